"""Commands and terminals of a sandbox."""

import threading
import time

import pytest
from e2b import CommandExitException, InvalidArgumentException, NotFoundException, TimeoutException

import sdk


@pytest.mark.covers("commands.run")
def test_a_command_prints_and_ends(shared):
    result = shared.commands.run("echo out; echo err >&2")
    assert (result.stdout, result.stderr, result.exit_code) == ("out\n", "err\n", 0)


@pytest.mark.covers("commands.run")
def test_a_command_that_fails_raises_with_what_it_printed(shared):
    with pytest.raises(CommandExitException) as raised:
        shared.commands.run("echo before; echo why >&2; exit 3")
    assert (raised.value.exit_code, raised.value.stdout, raised.value.stderr) == (3, "before\n", "why\n")


@pytest.mark.covers("commands.run")
def test_output_arrives_as_it_happens(shared):
    seen = []

    def hear(text):
        seen.append(text)
        shared.files.write("/tmp/heard", "")

    # The command waits until the callback has received its first line.
    shared.commands.run("echo first; until [ -e /tmp/heard ]; do sleep .02; done; echo second", on_stdout=hear)
    assert "".join(seen) == "first\nsecond\n"


@pytest.mark.covers("commands.run")
def test_a_command_runs_in_the_given_directory_as_the_given_user(shared):
    result = shared.commands.run('pwd; whoami; echo "$Q"', cwd="/tmp", envs={"Q": "it's \"é\""})
    assert result.stdout == "/tmp\nuser\nit's \"é\"\n"
    assert shared.commands.run("whoami; pwd", user="root").stdout == "root\n/root\n"
    assert shared.commands.run("pwd").stdout == "/home/user\n"


@pytest.mark.covers("commands.run", needs=["sandbox.create"])
def test_variables_of_the_sandbox_are_seen_by_commands(fresh):
    sandbox = fresh(envs={"GREETING": "hi there"})
    assert sandbox.commands.run("echo $GREETING; echo $E2B_SANDBOX").stdout == "hi there\ntrue\n"


@pytest.mark.covers("commands.run")
def test_a_command_that_takes_too_long_is_stopped(shared):
    begin = time.monotonic()
    with pytest.raises(TimeoutException):
        shared.commands.run("sleep 61.5", timeout=1)
    assert time.monotonic() - begin < 20
    # The client's clock may be ahead of the server's.
    while "61.5" in shared.commands.run("ps ax | grep '[s]leep 61' || true").stdout:
        assert time.monotonic() - begin < 40


@pytest.mark.covers("commands.run")
def test_much_output_arrives_whole(shared):
    assert shared.commands.run("head -c 5000000 /dev/zero | tr '\\0' x").stdout == "x" * 5_000_000


@pytest.mark.covers("commands.run", "commands.list", "commands.kill")
def test_a_command_in_the_background_is_listed_and_killed(shared):
    handle = shared.commands.run("sleep 62", background=True)
    found = [process for process in shared.commands.list() if process.pid == handle.pid]
    assert len(found) == 1 and "sleep 62" in " ".join(found[0].args)
    assert shared.commands.kill(handle.pid) is True
    with pytest.raises(CommandExitException):
        handle.wait()
    assert handle.pid not in [process.pid for process in shared.commands.list()]
    assert shared.commands.kill(handle.pid) is False


@pytest.mark.covers("commands.run", "handle.wait", "handle.kill")
def test_a_command_in_the_background_is_waited_for_or_killed(shared):
    handle = shared.commands.run("sleep .3; echo done", background=True)
    result = handle.wait()
    assert (result.stdout, result.exit_code) == ("done\n", 0)
    handle = shared.commands.run("sleep 65", background=True)
    assert handle.kill() is True
    with pytest.raises(CommandExitException):
        handle.wait()
    assert handle.kill() is False


@pytest.mark.covers("commands.run", "handle.kill")
def test_a_pid_is_the_sandboxes_own_and_the_dead_are_gone(shared):
    handle = shared.commands.run("sleep 66", background=True)
    assert shared.commands.run(f"kill -0 {handle.pid}").exit_code == 0
    handle.kill()
    with pytest.raises(CommandExitException) as raised:
        handle.wait()
    assert raised.value.exit_code == -1
    # No zombie is left either: `kill -0` would find it.
    with pytest.raises(CommandExitException):
        shared.commands.run(f"kill -0 {handle.pid}")


@pytest.mark.covers("commands.connect", "handle.disconnect")
def test_a_command_is_connected_to_again(shared):
    handle = shared.commands.run("until [ -e /tmp/again ]; do sleep .02; done; echo late", background=True)
    handle.disconnect()
    again = shared.commands.connect(handle.pid)
    shared.files.write("/tmp/again", "")
    assert again.wait().stdout == "late\n"
    with pytest.raises(NotFoundException):
        shared.commands.connect(999_999).wait()


@pytest.mark.covers("commands.send_stdin")
def test_a_command_reads_its_input(shared):
    # Versions without the option give every command an input.
    options = {"stdin": True} if sdk.has("commands.close_stdin") else {}
    handle = shared.commands.run("read line; echo got $line", background=True, **options)
    shared.commands.send_stdin(handle.pid, "héllo\n")
    assert handle.wait().stdout == "got héllo\n"


@pytest.mark.covers("commands.close_stdin", "handle.send_stdin", "handle.close_stdin", needs=["commands.send_stdin"])
def test_a_command_sees_the_end_of_its_input(shared):
    handle = shared.commands.run("cat; echo end", background=True, stdin=True)
    shared.commands.send_stdin(handle.pid, "a")
    shared.commands.close_stdin(handle.pid)
    assert handle.wait().stdout == "aend\n"
    handle = shared.commands.run("cat; echo end", background=True, stdin=True)
    handle.send_stdin("b")
    handle.close_stdin()
    assert handle.wait().stdout == "bend\n"


@pytest.mark.covers("commands.stream_input")
def test_input_is_streamed(shared):
    handle = shared.commands.run("head -n 2", background=True, stdin=True)
    shared.commands.stream_input(handle.pid, iter(["one\n", b"two\n"]))
    assert handle.wait().stdout == "one\ntwo\n"


@pytest.mark.covers("commands.run")
def test_a_missing_directory_or_user_is_an_error(shared):
    for options in ({"cwd": "/no/such"}, {"user": "nobody-here"}):
        with pytest.raises(Exception) as raised:
            shared.commands.run("true", **options)
        assert not isinstance(raised.value, CommandExitException)


@pytest.mark.covers("commands.run", "sandbox.kill", needs=["sandbox.pause"])
def test_a_kill_ends_what_runs_with_an_error(sandbox):
    with pytest.raises(TimeoutException):
        sandbox.commands.run("echo on; sleep 60", on_stdout=lambda _: sandbox.kill())


@pytest.mark.covers("pty.create", "pty.send_stdin", "pty.resize", "pty.kill")
def test_a_terminal_is_typed_into_resized_and_killed(shared):
    from e2b import PtySize

    handle = shared.pty.create(PtySize(rows=20, cols=70), timeout=30)
    seen = bytearray()

    def read():
        try:
            handle.wait(on_pty=seen.extend)
        except Exception as err:
            seen.extend(b"ended " + type(err).__name__.encode())

    reader = threading.Thread(target=read)
    reader.start()

    def typed(text, answer):
        shared.pty.send_stdin(handle.pid, text)
        end = time.monotonic() + 30
        while answer not in bytes(seen):
            assert time.monotonic() < end, bytes(seen)
            time.sleep(0.05)

    typed(b"echo at $((6*7)) in $(stty size)\n", b"at 42 in 20 70")
    shared.pty.resize(handle.pid, PtySize(rows=30, cols=90))
    typed(b"stty size; test -t 0 && echo is a tty\n", b"30 90")
    typed(b"\n", b"is a tty")
    assert shared.pty.kill(handle.pid) is True
    reader.join(30)
    assert not reader.is_alive()
    assert shared.pty.kill(handle.pid) is False


@pytest.mark.covers("pty.connect", "pty.stream_input", needs=["pty.create"])
def test_a_terminal_is_connected_to_again(shared):
    from e2b import PtySize

    handle = shared.pty.create(PtySize(rows=20, cols=70), timeout=30)
    handle.disconnect()
    again = shared.pty.connect(handle.pid)
    seen = bytearray()
    shared.pty.stream_input(handle.pid, iter([b"sleep .5; echo $((6*7)); exit\n"]))
    again.wait(on_pty=seen.extend)
    assert b"42" in seen
