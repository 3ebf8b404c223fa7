"""Servers in a sandbox, reached from outside."""

import time
import urllib.error
import urllib.request

import pytest


def get(host, path="/"):
    """Sends a request to a port's host name.

    Names below `localhost` are this machine, but not every resolver knows that.
    """
    name, _, port = host.partition(":")
    if name.endswith(".localhost"):
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Host": host})
    else:
        request = urllib.request.Request(f"https://{host}{path}")
    return urllib.request.urlopen(request, timeout=30).read()


@pytest.mark.covers("sandbox.get_host", needs=["commands.run", "E2B_API_URL"])
def test_a_server_in_a_sandbox_is_reached(sandbox):
    sandbox.files.write("site/index.html", "<h1>here</h1>")
    sandbox.commands.run("python3 -m http.server 8123 --bind 127.0.0.1 --directory site", background=True, timeout=0)
    end = time.monotonic() + 30
    while True:
        try:
            assert get(sandbox.get_host(8123)) == b"<h1>here</h1>"
            break
        except urllib.error.HTTPError as err:
            assert err.code == 502 and time.monotonic() < end, err.read()
            time.sleep(0.2)


@pytest.mark.covers("sandbox.get_host", needs=["E2B_API_URL"])
def test_a_port_without_a_server_is_a_clear_error(shared):
    with pytest.raises(urllib.error.HTTPError) as raised:
        get(shared.get_host(8124))
    assert raised.value.code == 502 and b"The sandbox is running but port is not open" in raised.value.read()
