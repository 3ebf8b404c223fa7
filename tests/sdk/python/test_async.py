"""The asynchronous face of the SDK, over the whole of it."""

import asyncio

import pytest
from e2b_code_interpreter import AsyncSandbox

import sdk


def asynchronous(test):
    """Runs a test with a sandbox of its own."""

    def run():
        async def whole():
            sandbox = await AsyncSandbox.create(timeout=sdk.LIFE)
            try:
                await test(sandbox)
            finally:
                sdk.discard(sandbox)

        asyncio.run(asyncio.wait_for(whole(), 100))

    run.__name__ = test.__name__
    return run


@pytest.mark.covers("sandbox.create", "sandbox.run_code", "sandbox.connect", "sandbox.create_code_context", "sandbox.get_info")
@asynchronous
async def test_code_runs_asynchronously(sandbox):
    seen = []
    execution = await sandbox.run_code("print('hi')\n6 * 7", on_stdout=lambda message: seen.append(message.line))
    assert (execution.text, seen) == ("42", ["hi\n"])
    again = await AsyncSandbox.connect(sandbox.sandbox_id)
    assert (await again.run_code("_ + 1")).text == "43"
    context = await sandbox.create_code_context(cwd="/tmp")
    assert (await sandbox.run_code("import os; os.getcwd()", context=context)).text == "/tmp"
    assert (await sandbox.get_info()).sandbox_id.startswith(sandbox.sandbox_id)


@pytest.mark.covers("sandbox.run_code", "sandbox.create")
@asynchronous
async def test_sandboxes_work_at_the_same_time(sandbox):
    others = await asyncio.gather(*(AsyncSandbox.create(timeout=60) for _ in range(3)))
    texts = await asyncio.gather(*(other.run_code(f"{number} * 2") for number, other in enumerate(others)))
    assert [execution.text for execution in texts] == ["0", "2", "4"]
    await asyncio.gather(*(asyncio.to_thread(sdk.discard, other) for other in others))


@pytest.mark.covers("files.write", "files.read", "files.list", "files.watch_dir")
@asynchronous
async def test_files_are_written_and_watched_asynchronously(sandbox):
    events = []
    await sandbox.files.make_dir("watched")
    watch = await sandbox.files.watch_dir("watched", on_event=lambda event: events.append((event.type.value, event.name)))
    await sandbox.files.write("watched/a.txt", "text")
    assert await sandbox.files.read("watched/a.txt") == "text"
    assert [entry.name for entry in await sandbox.files.list("watched")] == ["a.txt"]
    for _ in range(100):
        if ("write", "a.txt") in events:
            break
        await asyncio.sleep(0.1)
    assert events[0] == ("create", "a.txt") and ("write", "a.txt") in events
    await watch.stop()


@pytest.mark.covers("commands.run", "commands.send_stdin", "commands.list", "commands.kill")
@asynchronous
async def test_commands_run_asynchronously(sandbox):
    assert (await sandbox.commands.run("echo hi")).stdout == "hi\n"
    options = {"stdin": True} if sdk.has("commands.close_stdin") else {}
    handle = await sandbox.commands.run("read line; echo got $line", background=True, **options)
    await sandbox.commands.send_stdin(handle.pid, "it\n")
    assert (await handle.wait()).stdout == "got it\n"
    sleeper = await sandbox.commands.run("sleep 63", background=True)
    assert sleeper.pid in [process.pid for process in await sandbox.commands.list()]
    assert await sandbox.commands.kill(sleeper.pid) is True
