"""The control plane: sandboxes, their deadlines, and errors."""

import contextlib
import json
import os
import time
import urllib.error
import urllib.request
from datetime import datetime, timedelta, timezone
from uuid import uuid4

import pytest
from e2b import AuthenticationException, NotFoundException, SandboxException, TimeoutException
from e2b_code_interpreter import Sandbox

import sdk

UNKNOWN = "i0123456789abcdefghij"
# Versions raise different classes for an unknown sandbox, but the message always has the status.
GONE = (NotFoundException, SandboxException)


def until(seconds, holds):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "did not come true in time"
        time.sleep(0.1)


def seconds_left(info):
    return (info.end_at - datetime.now(timezone.utc)).total_seconds()


@pytest.mark.covers("sandbox.create", "sandbox.get_info")
def test_a_sandbox_is_described_as_it_was_asked_for(fresh):
    metadata = {"user": "ada", "a b": "c&d=é"}
    sandbox = fresh(timeout=90, metadata=metadata)
    # The id becomes part of host names. Up to 1.x a client id follows it.
    own = sandbox.sandbox_id.split("-")[0]
    assert own.isalnum() and own == own.lower()
    info = sandbox.get_info()
    assert info.sandbox_id.split("-")[0] == sandbox.sandbox_id.split("-")[0]
    assert info.metadata == metadata
    assert info.name == "code-interpreter-v1" or info.template_id == "code-interpreter-v1"
    assert abs(datetime.now(timezone.utc) - info.started_at) < timedelta(seconds=30)
    assert 60 < seconds_left(info) <= 91


@pytest.mark.covers("sandbox.get_info", needs=["sandbox.pause"])
def test_a_sandbox_reports_its_size_and_its_state(shared):
    info = shared.get_info()
    assert sdk.state(info) == "running"
    assert info.cpu_count >= 1 and info.memory_mb >= 512
    assert sdk.state(Sandbox.get_info(shared.sandbox_id)) == "running"


@pytest.mark.covers("sandbox.create", "sandbox.run_code")
def test_variables_of_the_sandbox_are_seen_by_its_code(fresh):
    value = "quo'te \"double\" $HOME \\ é\nline"
    sandbox = fresh(envs={"GREETING": value})
    assert sandbox.run_code("import os; print(os.environ['GREETING'], end='')").logs.stdout == [value]


@pytest.mark.covers("sandbox.create(allow_internet_access)")
def test_a_sandbox_without_internet_reaches_nothing(fresh):
    code = "import socket; socket.create_connection(('1.1.1.1', 53), 3)"
    sandbox = fresh(allow_internet_access=False)
    assert sandbox.run_code(code).error.name in ("OSError", "TimeoutError", "ConnectionRefusedError")


@pytest.mark.covers("sandbox.connect", "sandbox.run_code")
def test_every_connection_finds_the_same_interpreter(sandbox):
    sandbox.run_code("secret = 6 * 7")
    again = Sandbox.connect(sandbox.sandbox_id)
    assert again.sandbox_id == sandbox.sandbox_id
    assert again.run_code("secret").text == "42"


@pytest.mark.covers("sandbox.connect", needs=["sandbox.pause"])
def test_connecting_makes_a_life_longer_and_never_shorter(fresh):
    sandbox = fresh(timeout=100)
    Sandbox.connect(sandbox.sandbox_id, timeout=20)
    assert seconds_left(sandbox.get_info()) > 60
    sandbox.connect(timeout=500)
    assert seconds_left(sandbox.get_info()) > 400


@pytest.mark.covers("sandbox.list")
def test_sandboxes_are_found_by_their_metadata(fresh):
    mark = f"{uuid4()} &=%+é"
    mine = fresh(metadata={"mark": mark, "kind": "one"})
    fresh(metadata={"mark": mark, "kind": "two"})
    fresh(metadata={"mark": "another"})
    assert len(sdk.listed(metadata={"mark": mark})) == 2
    found = sdk.listed(metadata={"mark": mark, "kind": "one"})
    assert [info.sandbox_id.split("-")[0] for info in found] == [mine.sandbox_id.split("-")[0]]
    assert found[0].metadata == {"mark": mark, "kind": "one"}
    assert sdk.listed(metadata={"mark": mark, "kind": "three"}) == []


@pytest.mark.covers("sandbox.list", "paginator.next_items")
def test_a_list_comes_in_pages_newest_first(fresh):
    mark = {"mark": str(uuid4())}
    made = [fresh(metadata=mark).sandbox_id for _ in range(3)]
    pages = Sandbox.list(query=query(metadata=mark), limit=2)
    first = pages.next_items()
    assert [info.sandbox_id for info in first] == [made[2], made[1]] and pages.has_next
    again = Sandbox.list(query=query(metadata=mark), limit=2, next_token=pages.next_token)
    assert [info.sandbox_id for info in pages.next_items()] == [made[0]] and not pages.has_next
    assert [info.sandbox_id for info in again.next_items()] == [made[0]]


def query(**filters):
    from e2b import SandboxQuery

    return SandboxQuery(**filters)


def pause(sandbox):
    return (sandbox.pause if sdk.has("sandbox.pause") else sandbox.beta_pause)()


@pytest.mark.covers("sandbox.beta_pause", "sandbox.connect", needs=["sandbox.run_code"])
def test_a_paused_sandbox_keeps_its_memory_and_stands_still(fresh):
    from e2b import SandboxState

    mark = {"mark": str(uuid4())}
    sandbox = fresh(metadata=mark)
    sandbox.run_code(
        "import threading, time\nlongest = 0\ndef tick():\n    global longest\n    last = time.time()\n    while True:\n"
        "        time.sleep(.01); now = time.time(); longest, last = max(longest, now - last), now\n"
        "threading.Thread(target=tick, daemon=True).start(); kept = 'kept'"
    )
    sandbox.beta_pause()
    assert not sandbox.is_running()
    assert sdk.state(sandbox.get_info()) == "paused"
    assert len(sdk.listed(metadata=mark, state=[SandboxState.PAUSED])) == 1
    assert sdk.listed(metadata=mark, state=[SandboxState.RUNNING]) == []
    time.sleep(5)
    resumed = Sandbox.connect(sandbox.sandbox_id)
    # The thread needs a moment to notice.
    noticed = "end = time.time() + 30\nwhile longest < 4.9 and time.time() < end: time.sleep(.1)\nlongest"
    assert float(resumed.run_code(noticed).text) > 4.9, "it went on while it was paused"
    assert resumed.run_code("kept").text == "kept"
    assert sdk.state(resumed.get_info()) == "running"


@pytest.mark.covers("sandbox.pause", needs=["sandbox.kill"])
def test_pausing_twice_is_a_clear_error_and_a_paused_sandbox_can_be_killed(sandbox):
    assert sandbox.pause() is True
    assert sandbox.pause() is False
    assert sandbox.kill() is True
    with pytest.raises(NotFoundException):
        sandbox.pause()


@pytest.mark.covers("sandbox.pause", needs=["sandbox.list"])
def test_a_sandbox_that_asked_for_it_is_paused_at_its_deadline(fresh):
    sandbox = fresh(lifecycle={"on_timeout": "pause"})
    sandbox.run_code("kept = 1")
    sandbox.set_timeout(2)
    until(30, lambda: sdk.state(sandbox.get_info()) == "paused")
    assert Sandbox.connect(sandbox.sandbox_id, timeout=60).run_code("kept").text == "1"


@pytest.mark.covers("sandbox.pause", needs=["sandbox.run_code"])
def test_a_sandbox_that_asked_for_it_is_resumed_by_a_request(fresh):
    sandbox = fresh(lifecycle={"on_timeout": "pause", "auto_resume": True})
    sandbox.run_code("kept = 1")
    sandbox.pause()
    assert sandbox.run_code("kept").text == "1"


@pytest.mark.covers("sandbox.beta_create")
def test_a_sandbox_with_auto_pause_is_paused_at_its_deadline():
    sandbox = Sandbox.beta_create(timeout=2, auto_pause=True)
    until(30, lambda: sdk.state(sandbox.get_info()) == "paused")
    sdk.discard(sandbox)


@pytest.mark.covers("sandbox.kill")
def test_a_killed_sandbox_is_gone(sandbox):
    id = sandbox.sandbox_id
    assert Sandbox.kill(id) is True
    assert Sandbox.kill(id) is False
    with pytest.raises(GONE):
        sandbox.get_info()
    assert id not in [info.sandbox_id for info in sdk.listed()]


@pytest.mark.covers("sandbox.kill", "commands.run")
def test_a_command_whose_sandbox_is_killed_ends_with_that_reason(sandbox):
    handle = sandbox.commands.run("sleep 60", background=True)
    sandbox.kill()
    with pytest.raises(TimeoutException, match="sandbox was killed|sandbox timeout"):
        handle.wait()


@pytest.mark.covers("sandbox.kill", needs=["sandbox.list"])
def test_leaving_the_block_kills(fresh):
    with fresh() as sandbox:
        id = sandbox.sandbox_id
    with pytest.raises(GONE):
        Sandbox.get_info(id)


@pytest.mark.covers("sandbox.is_running")
def test_is_running_reports_the_state(sandbox):
    assert sandbox.is_running() is True
    sdk.discard(sandbox)
    if not sdk.DEBUG:
        assert sandbox.is_running() is False


@pytest.mark.covers("sandbox.set_timeout")
def test_a_deadline_is_moved_both_ways(fresh):
    sandbox = fresh(timeout=60)
    sandbox.set_timeout(300)
    assert 200 < seconds_left(sandbox.get_info()) <= 301
    Sandbox.set_timeout(sandbox.sandbox_id, 30)
    assert 10 < seconds_left(sandbox.get_info()) <= 31


@pytest.mark.covers("sandbox.set_timeout", "sandbox.create")
def test_a_sandbox_dies_at_its_deadline_and_not_before(fresh):
    sandbox = fresh(timeout=60)
    begin = time.monotonic()
    sandbox.set_timeout(3)

    def gone():
        try:
            sandbox.get_info()
        except GONE as err:
            assert "404" in str(err) or isinstance(err, NotFoundException)
            return True
        return False

    until(15, gone)
    assert time.monotonic() - begin > 2


@pytest.mark.covers("sandbox.create")
def test_a_deadline_ends_a_sandbox_that_nobody_touches(fresh):
    sandbox = fresh(timeout=2)
    time.sleep(6)

    def gone():
        with contextlib.suppress(GONE):
            sandbox.get_info()
            return False
        return True

    until(15, gone)


@pytest.mark.covers("sandbox.get_metrics")
def test_metrics_report_usage_and_limits(shared):
    readings = []
    until(30, lambda: readings.extend(shared.get_metrics()) or readings)
    reading = readings[-1]
    assert reading.cpu_count >= 1 and reading.cpu_used_pct >= 0
    assert 0 < reading.mem_used < reading.mem_total
    assert 0 <= reading.disk_used < reading.disk_total
    assert abs(datetime.now(timezone.utc) - reading.timestamp) < timedelta(seconds=60)


@pytest.mark.covers("sandbox.update_network", needs=["SDK_OWN_SERVER"])
def test_rules_that_come_too_late_are_refused(shared):
    shared.update_network({})
    with pytest.raises(SandboxException, match="400.*only be chosen when"):
        shared.update_network({"deny_out": ["1.2.3.4/32"]})


@pytest.mark.covers("sandbox.create")
@pytest.mark.parametrize("timeout", [-5, 24 * 3600 + 1])
def test_a_timeout_out_of_bounds_is_refused(timeout):
    with pytest.raises(SandboxException, match="400.*Timeout"):
        sdk.create(timeout=timeout)


@pytest.mark.covers("sandbox.create")
def test_an_unknown_template_is_named(fresh):
    with pytest.raises(SandboxException, match="404.*template 'no-such-template' not found"):
        fresh(template="no-such-template")


@pytest.mark.covers("sandbox.get_info", "sandbox.connect")
@pytest.mark.parametrize("call", ["get_info", "connect"])
def test_an_unknown_sandbox_is_not_found(call):
    with pytest.raises(GONE, match="404|not found|doesn't exist"):
        getattr(Sandbox, call)(UNKNOWN)


@pytest.mark.covers("sandbox.set_timeout", "sandbox.kill", "sandbox.get_metrics")
def test_an_unknown_sandbox_has_no_deadline_no_metrics_and_no_end():
    with pytest.raises(GONE, match="404|not found|doesn't exist"):
        Sandbox.set_timeout(UNKNOWN, 10)
    with pytest.raises(GONE, match="404|not found|doesn't exist"):
        Sandbox.get_metrics(UNKNOWN)
    assert Sandbox.kill(UNKNOWN) is False


@pytest.mark.covers("sandbox.pause")
def test_an_unknown_sandbox_is_of_the_newest_class():
    from e2b import SandboxNotFoundException

    for call in (Sandbox.get_info, Sandbox.pause, Sandbox.connect, Sandbox.get_metrics):
        with pytest.raises(SandboxNotFoundException):
            call(UNKNOWN)


@pytest.mark.covers("sandbox.create", "sandbox.list", "sandbox.get_info", needs=["E2B_OTHER_API_KEY"])
def test_a_wrong_key_opens_nothing(shared):
    wrong = {"api_key": "e2b_" + "0" * 40}
    # Versions before 2.1 only have the general class for it.
    refused = {"expected_exception": (AuthenticationException, SandboxException), "match": "401|[Ii]nvalid API key|Unauthorized"}
    with pytest.raises(**refused):
        sdk.create(**wrong)
    with pytest.raises(**refused):
        Sandbox.get_info(shared.sandbox_id, **wrong)
    with pytest.raises(**refused):
        listing = Sandbox.list(**wrong)
        listing.next_items()


@pytest.mark.covers("sandbox.pause")
def test_a_wrong_key_is_of_its_class(shared):
    with pytest.raises(AuthenticationException):
        Sandbox.get_info(shared.sandbox_id, api_key="e2b_" + "0" * 40)


@pytest.mark.covers("sandbox.get_info", "sandbox.list", needs=["E2B_OTHER_API_KEY"])
def test_another_key_sees_nothing_of_this_ones_sandboxes(shared):
    other = {"api_key": os.environ["E2B_OTHER_API_KEY"]}
    with pytest.raises(GONE, match="404|not found|doesn't exist"):
        Sandbox.get_info(shared.sandbox_id, **other)
    with pytest.raises(GONE, match="404|not found|doesn't exist"):
        Sandbox.connect(shared.sandbox_id, **other)
    listing = Sandbox.list(**other)
    seen = listing if isinstance(listing, list) else listing.next_items()
    assert shared.sandbox_id not in [info.sandbox_id for info in seen]
    if not sdk.DEBUG:
        assert Sandbox.kill(shared.sandbox_id, **other) is False


# Older SDKs repeat nothing by themselves.
@pytest.mark.covers("sandbox.create", needs=["E2B_LIMITED_API_KEY", "sandbox.pause"])
def test_only_what_waiting_cures_is_repeated():
    """The key may keep one sandbox and start four in a minute, and each try of the SDK is a start."""
    # Older SDKs have no such exception.
    from e2b import RateLimitException

    key = {"api_key": os.environ["E2B_LIMITED_API_KEY"]}
    sandbox = sdk.create(**key)
    try:
        with pytest.raises(RateLimitException, match="max_kept_sandboxes = 1"):
            sdk.create(**key)
        # So two starts are left, and no more.
        assert [refusal(**key) for _ in range(3)] == ["max_kept_sandboxes", "max_kept_sandboxes", "max_starts_per_minute"]
        # The SDK waits until another start is possible, and then there is no room.
        with pytest.raises(RateLimitException, match="max_kept_sandboxes = 1"):
            sdk.create(**key)
    finally:
        Sandbox.kill(sandbox.sandbox_id, **key)


def refusal(api_key):
    """The limit that a creation is refused for, without an SDK."""
    headers = {"X-API-Key": api_key, "Content-Type": "application/json"}
    request = urllib.request.Request(f"{os.environ['SDK_OWN_SERVER']}/sandboxes", b'{"templateID": "base"}', headers)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    return json.load(refused.value)["message"].split(" ")[0]


@pytest.mark.covers("sandbox.get_host")
def test_a_port_has_a_name_of_its_own(shared):
    name = "localhost:3000" if sdk.DEBUG else f"3000-{shared.sandbox_id}."
    assert shared.get_host(3000).startswith(name)


@pytest.mark.covers("sandbox.get_mcp_url", needs=["sandbox.get_host"])
def test_the_port_of_mcp_has_a_name(shared):
    assert shared.get_mcp_url() == f"https://{shared.get_host(50005)}/mcp"
