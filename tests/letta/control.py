"""Calls that tests make to the server without the client."""

import json
import os
import time
import urllib.request


def api(method, path, key):
    request = urllib.request.Request(os.environ["LETTA_ORIGIN"] + path, method=method, headers={"X-API-Key": key})
    text = urllib.request.urlopen(request, timeout=30).read()
    return json.loads(text) if text else None


def sandboxes(key=os.environ["LETTA_KEY"]):
    return [found["sandboxID"] for found in api("GET", "/v2/sandboxes", key)]


def end_all(key=os.environ["LETTA_KEY"]):
    """Ends all sandboxes of a key, because clients in debug mode cannot."""
    for sandbox in sandboxes(key):
        api("DELETE", f"/sandboxes/{sandbox}", key)


def all_end(key=os.environ["LETTA_KEY"]):
    """Waits until no sandbox of a key is left; returns those that are left after 30 seconds."""
    deadline = time.monotonic() + 30
    while left := sandboxes(key):
        if time.monotonic() > deadline:
            return left
        time.sleep(0.1)
    return []
