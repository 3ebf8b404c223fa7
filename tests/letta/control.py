"""What only a test asks of the server, beside the client."""

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
    """Ends what is left: in debug mode, clients cannot."""
    for sandbox in sandboxes(key):
        api("DELETE", f"/sandboxes/{sandbox}", key)


def all_end(key=os.environ["LETTA_KEY"]):
    """Whether soon no sandbox of a key is left."""
    deadline = time.monotonic() + 30
    while left := sandboxes(key):
        if time.monotonic() > deadline:
            return left
        time.sleep(0.1)
    return []
