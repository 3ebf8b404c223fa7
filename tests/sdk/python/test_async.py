"""The SDK's asynchronous API: all of it."""

import asyncio
from uuid import uuid4

import pytest
from e2b import CommandExitException, TimeoutException
from e2b_code_interpreter import AsyncSandbox

import sdk

pytestmark = pytest.mark.asynchronous
INPUT = {"stdin": True} if sdk.has("commands.close_stdin") else {}


def asynchronous(test):
    """Runs a test with its own sandbox."""

    def run():
        async def whole():
            if sdk.WAY == "shared":
                sdk.discard(None)
            sandbox = await AsyncSandbox.create(timeout=sdk.LIFE)
            try:
                await test(sandbox)
            finally:
                sdk.discard(sandbox)

        asyncio.run(asyncio.wait_for(whole(), 100))

    run.__name__ = test.__name__
    return run


async def until(holds):
    for _ in range(300):
        if await holds():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("did not come true in time")


@pytest.mark.covers("sandbox.run_code", "sandbox.create_code_context")
@asynchronous
async def test_code_runs(sandbox):
    seen = []
    execution = await sandbox.run_code("print('hi')\n6 * 7", on_stdout=lambda message: seen.append(message.line))
    assert (execution.text, "".join(seen)) == ("42", "hi\n")
    context = await sandbox.create_code_context(cwd="/tmp")
    assert (await sandbox.run_code("import os; os.getcwd()", context=context)).text == "/tmp"


@pytest.mark.covers("sandbox.create", "sandbox.connect", "sandbox.get_info", "sandbox.get_host", "sandbox.is_running")
@asynchronous
async def test_a_sandbox_is_connected_to_and_described(sandbox):
    await sandbox.run_code("kept = 42")
    again = await AsyncSandbox.connect(sandbox.sandbox_id)
    assert (await again.run_code("kept + 1")).text == "43"
    assert (await sandbox.get_info()).sandbox_id.split("-")[0] == sandbox.sandbox_id.split("-")[0]
    assert sandbox.get_host(3000).startswith("localhost:3000" if sdk.DEBUG else f"3000-{sandbox.sandbox_id}.")
    assert await sandbox.is_running() is True


@pytest.mark.covers("sandbox.is_running", "sandbox.get_host", "files.exists")
@asynchronous
async def test_is_running_reports_the_state(sandbox):
    assert await sandbox.is_running() is True
    assert sandbox.get_host(3000).startswith("localhost:3000" if sdk.DEBUG else f"3000-{sandbox.sandbox_id}.")
    assert await sandbox.files.exists("/tmp") is True


@pytest.mark.covers("sandbox.get_mcp_url")
@asynchronous
async def test_the_port_of_mcp_has_a_name(sandbox):
    assert sandbox.get_mcp_url() == f"https://{sandbox.get_host(50005)}/mcp"


@pytest.mark.covers("sandbox.create", "sandbox.run_code")
@asynchronous
async def test_sandboxes_work_at_the_same_time(sandbox):
    others = await asyncio.gather(*(AsyncSandbox.create(timeout=60) for _ in range(3)))
    texts = await asyncio.gather(*(other.run_code(f"{number} * 2") for number, other in enumerate(others)))
    assert [execution.text for execution in texts] == ["0", "2", "4"]
    await asyncio.gather(*(asyncio.to_thread(sdk.discard, other) for other in others))


@pytest.mark.covers("sandbox.create(allow_internet_access)")
def test_a_sandbox_without_internet_reaches_nothing():
    async def whole():
        async with await AsyncSandbox.create(allow_internet_access=False, timeout=sdk.LIFE) as sandbox:
            code = "import socket; socket.create_connection(('1.1.1.1', 53), 3)"
            assert (await sandbox.run_code(code)).error.name in ("OSError", "TimeoutError", "ConnectionRefusedError")
            sdk.discard(sandbox)

    asyncio.run(whole())


@pytest.mark.covers("sandbox.list_code_contexts", "sandbox.restart_code_context", "sandbox.remove_code_context")
@asynchronous
async def test_contexts_are_listed_restarted_and_removed(sandbox):
    context = await sandbox.create_code_context()
    await sandbox.run_code("own = 1", context=context)
    await sandbox.restart_code_context(context)
    assert (await sandbox.run_code("'own' in globals()", context=context)).text == "False"
    await sandbox.remove_code_context(context)
    assert context.id not in [context.id for context in await sandbox.list_code_contexts()]


@pytest.mark.covers("sandbox.list", needs=["sandbox.create"])
@asynchronous
async def test_sandboxes_are_listed(sandbox):
    if sdk.has("paginator.next_items"):
        pages, found = AsyncSandbox.list(), []
        while pages.has_next:
            found += await pages.next_items()
    else:
        found = await AsyncSandbox.list()
    assert sandbox.sandbox_id in [info.sandbox_id for info in found] + [f"{info.sandbox_id}-oncebox" for info in found]


@pytest.mark.covers("paginator.next_items", needs=["sandbox.create"])
def test_a_list_comes_in_pages():
    from e2b import SandboxQuery

    async def whole():
        mark = {"mark": str(uuid4())}
        made = [await AsyncSandbox.create(metadata=mark, timeout=sdk.LIFE) for _ in range(2)]
        pages = AsyncSandbox.list(query=SandboxQuery(metadata=mark), limit=1)
        first, second = await pages.next_items(), await pages.next_items()
        assert [info.sandbox_id for info in first + second] == [made[1].sandbox_id, made[0].sandbox_id]
        assert not pages.has_next
        [sdk.discard(sandbox) for sandbox in made]

    asyncio.run(whole())


@pytest.mark.covers("sandbox.set_timeout", "sandbox.kill")
@asynchronous
async def test_a_deadline_is_moved_and_a_killed_sandbox_is_gone(sandbox):
    await sandbox.set_timeout(300)
    info = await sandbox.get_info()
    assert (info.end_at - info.started_at).total_seconds() > 200
    # Up to 1.x it returns nothing.
    assert await sandbox.kill() is not False
    assert await AsyncSandbox.kill(sandbox.sandbox_id) is False
    assert await sandbox.is_running() is False


@pytest.mark.covers("sandbox.kill", "commands.run")
@asynchronous
async def test_a_command_whose_sandbox_is_killed_ends_with_that_reason(sandbox):
    handle = await sandbox.commands.run("sleep 60", background=True)
    await sandbox.kill()
    with pytest.raises(TimeoutException, match="sandbox was killed|sandbox timeout"):
        await handle.wait()


@pytest.mark.covers("sandbox.get_metrics")
@asynchronous
async def test_metrics_report_usage(sandbox):
    async def measured():
        return any(0 < reading.mem_used < reading.mem_total for reading in await sandbox.get_metrics())

    await until(measured)


@pytest.mark.covers("sandbox.beta_pause", "sandbox.connect", needs=["sandbox.run_code"])
@asynchronous
async def test_a_paused_sandbox_keeps_its_memory(sandbox):
    await sandbox.run_code("kept = 'kept'")
    await sandbox.beta_pause()
    assert await sandbox.is_running() is False
    resumed = await AsyncSandbox.connect(sandbox.sandbox_id)
    assert (await resumed.run_code("kept")).text == "kept"


@pytest.mark.covers("sandbox.pause")
@asynchronous
async def test_pausing_twice_is_a_clear_error(sandbox):
    assert (await sandbox.pause(), await sandbox.pause()) == (True, False)


@pytest.mark.covers("sandbox.beta_create")
def test_a_sandbox_with_auto_pause_is_paused_at_its_deadline():
    async def whole():
        sandbox = await AsyncSandbox.beta_create(timeout=2, auto_pause=True)

        async def paused():
            return sdk.state(await sandbox.get_info()) == "paused"

        await until(paused)
        sdk.discard(sandbox)

    asyncio.run(whole())


@pytest.mark.covers("sandbox.update_network", needs=["SDK_OWN_SERVER"])
@asynchronous
async def test_rules_that_come_too_late_are_refused(sandbox):
    await sandbox.update_network({})
    with pytest.raises(Exception, match="400.*only be chosen when"):
        await sandbox.update_network({"deny_out": ["1.2.3.4/32"]})


@pytest.mark.covers("files.write", "files.read", "files.list", "files.make_dir", "files.exists", "files.rename", "files.remove")
@asynchronous
async def test_files_are_written_read_and_moved(sandbox):
    files = sandbox.files
    assert (await files.make_dir("tree"), await files.make_dir("tree")) == (True, False)
    await files.write("tree/a.txt", "é" * 100_000)
    assert await files.read("tree/a.txt") == "é" * 100_000
    assert bytes(await files.read("tree/a.txt", format="bytes")) == b"\xc3\xa9" * 100_000
    assert b"".join([piece async for piece in await files.read("tree/a.txt", format="stream")]) == b"\xc3\xa9" * 100_000
    assert [entry.name for entry in await files.list("tree")] == ["a.txt"]
    await files.rename("tree/a.txt", "/tmp/b.txt")
    assert (await files.exists("tree/a.txt"), await files.exists("/tmp/b.txt")) == (False, True)
    await files.remove("/tmp/b.txt")
    assert await files.exists("/tmp/b.txt") is False


@pytest.mark.covers("files.write_files", "files.get_info")
@asynchronous
async def test_several_files_are_written_and_described(sandbox):
    await sandbox.files.write_files([{"path": "many/a.txt", "data": "A"}, {"path": "many/b.bin", "data": b"\x00B"}])
    info = await sandbox.files.get_info("many/b.bin")
    assert (info.path, info.size, info.owner) == ("/home/user/many/b.bin", 2, "user")


@pytest.mark.covers("files.watch_dir", "watch.stop")
@asynchronous
async def test_a_directory_is_watched(sandbox):
    events = []
    await sandbox.files.make_dir("watched")
    watch = await sandbox.files.watch_dir("watched", on_event=lambda event: events.append((event.type.value, event.name)))
    await sandbox.files.write("watched/a.txt", "text")

    async def event_arrived():
        return ("write", "a.txt") in events

    await until(event_arrived)
    assert events == [("create", "a.txt"), ("chmod", "a.txt"), ("write", "a.txt")]
    await watch.stop()
    await sandbox.files.write("watched/b.txt", "text")
    await asyncio.sleep(0.5)
    assert not [name for _, name in events if name == "b.txt"]


@pytest.mark.covers("sandbox.download_url", "sandbox.upload_url", needs=["files.write"])
@asynchronous
async def test_a_link_names_its_file(sandbox):
    import urllib.request

    def fetch(url):
        return urllib.request.urlopen(url, timeout=30).read()

    await sandbox.files.write("linked.txt", "by link")
    options = {"user": "user"} if sdk.number(sdk.CORE) >= (2,) else {"use_signature": True}
    assert await asyncio.to_thread(fetch, sandbox.download_url("linked.txt", **options)) == b"by link"
    assert "up.txt" in sandbox.upload_url("up.txt", **options)


@pytest.mark.covers("commands.run", "commands.send_stdin", "commands.list", "commands.kill", "commands.connect", "handle.wait", "handle.kill", "handle.disconnect")
@asynchronous
async def test_commands_run(sandbox):
    assert (await sandbox.commands.run("echo hi")).stdout == "hi\n"
    handle = await sandbox.commands.run("read line; echo got $line", background=True, **INPUT)
    await sandbox.commands.send_stdin(handle.pid, "it\n")
    assert (await handle.wait()).stdout == "got it\n"
    handle = await sandbox.commands.run("until [ -e /tmp/again ]; do sleep .02; done; echo late", background=True)
    await handle.disconnect()
    again = await sandbox.commands.connect(handle.pid)
    await sandbox.files.write("/tmp/again", "")
    assert (await again.wait()).stdout == "late\n"
    sleepers = [await sandbox.commands.run("sleep 63", background=True) for _ in range(2)]
    assert {sleeper.pid for sleeper in sleepers} <= {process.pid for process in await sandbox.commands.list()}
    assert await sandbox.commands.kill(sleepers[0].pid) is True
    assert await sleepers[1].kill() is True
    with pytest.raises(CommandExitException):
        await sleepers[1].wait()


@pytest.mark.covers("commands.close_stdin", "handle.send_stdin", "handle.close_stdin")
@asynchronous
async def test_a_command_sees_the_end_of_its_input(sandbox):
    handles = [await sandbox.commands.run("cat; echo end", background=True, stdin=True) for _ in range(2)]
    for handle in handles:
        await handle.send_stdin("a")
    await sandbox.commands.close_stdin(handles[0].pid)
    await handles[1].close_stdin()
    assert [(await handle.wait()).stdout for handle in handles] == ["aend\n"] * 2


@pytest.mark.covers("commands.stream_input", "pty.stream_input")
@asynchronous
async def test_input_is_streamed(sandbox):
    from e2b import PtySize

    async def send(stream, *pieces):
        for piece in pieces:
            await stream.send(piece)
        await stream.close()

    handle = await sandbox.commands.run("head -n 2", background=True, stdin=True)
    await send(sandbox.commands.stream_input(handle.pid), "one\n", b"two\n")
    assert (await handle.wait()).stdout == "one\ntwo\n"
    seen = bytearray()
    terminal = await sandbox.pty.create(PtySize(rows=20, cols=70), on_data=seen.extend)
    await send(sandbox.pty.stream_input(terminal.pid), b"echo $((6*7)); exit\n")
    await terminal.wait()
    assert b"42" in seen


@pytest.mark.covers("pty.create", "pty.send_stdin", "pty.resize", "pty.kill")
@asynchronous
async def test_a_terminal_is_typed_into_resized_and_killed(sandbox):
    from e2b import PtySize

    seen = bytearray()
    handle = await sandbox.pty.create(PtySize(rows=20, cols=70), on_data=seen.extend, timeout=30)

    async def typed(text, answer):
        await sandbox.pty.send_stdin(handle.pid, text)

        async def answered():
            return answer in seen

        await until(answered)

    await typed(b"echo at $((6*7)) in $(stty size)\n", b"at 42 in 20 70")
    await sandbox.pty.resize(handle.pid, PtySize(rows=30, cols=90))
    await typed(b"stty size\n", b"30 90")
    assert await sandbox.pty.kill(handle.pid) is True


@pytest.mark.covers("pty.connect", needs=["pty.create"])
@asynchronous
async def test_a_terminal_is_connected_to_again(sandbox):
    from e2b import PtySize

    seen = bytearray()
    handle = await sandbox.pty.create(PtySize(rows=20, cols=70), on_data=lambda _: None)
    await handle.disconnect()
    again = await sandbox.pty.connect(handle.pid, on_data=seen.extend)
    await sandbox.pty.send_stdin(handle.pid, b"echo $((6*7)); exit\n")
    await again.wait()
    assert b"42" in seen
