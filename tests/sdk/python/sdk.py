"""One interface to all versions of the SDK, and the way in which this run reaches the server."""

import json
import os
import urllib.error
import urllib.request
from importlib.metadata import version
from pathlib import Path

from e2b_code_interpreter import Sandbox

CORE = version("e2b")
INTERPRETER = version("e2b-code-interpreter")

if os.environ.get("E2B_DEBUG", "").lower() == "true":
    # Versions 1.5 to 2.10 create a sandbox in debug mode. All others talk to a shared sandbox that they did not create.
    WAY = "debug" if (1, 5) <= tuple(int(part) for part in CORE.split(".")) < (2, 11) else "shared"
elif os.environ.get("E2B_API_URL"):
    WAY = "url"
else:
    WAY = "domain"

DEBUG = WAY in ("debug", "shared")

METHODS = json.loads((Path(__file__).parents[1] / "methods.json").read_text())


def number(text):
    return tuple(int(part) for part in text.split("."))


def has(method):
    """Whether this version of the SDK has a method, according to `methods.json`."""
    row = METHODS[method]
    since, until = row.get("python"), row.get("python_until")
    own = number(INTERPRETER if row.get("package") == "interpreter" else CORE)
    return since is not None and own >= number(since) and (until is None or own < number(until))


def offered(method):
    """Whether the method works here: in debug mode some SDKs make no call at all.

    An upper-case name is an environment variable.
    """
    if method.isupper():
        return method in os.environ
    return has(method) and not METHODS[method].get("refused") and WAY in METHODS[method].get("ways", [WAY])


def refused(method):
    """Whether oncebox must refuse a method that it does not offer; another server may offer it."""
    return has(method) and WAY in METHODS[method].get("ways", [WAY]) and "SDK_OWN_SERVER" in os.environ


# The default timeout of sandboxes, in seconds. Every test takes less.
LIFE = 120


def create(**options):
    """Creates a sandbox. Up to 1.x the constructor does."""
    assert WAY != "shared" or not options.keys() - {"timeout"}, "the SDK does not send these options: the test needs sandbox.create"
    options.setdefault("timeout", LIFE)
    return Sandbox.create(**options) if number(CORE) >= (2,) else Sandbox(**options)


def discard(sandbox):
    """Ends a sandbox, which may have ended already.

    In debug mode the SDK's `kill` does nothing, so this calls the API itself.
    """
    if WAY == "debug":
        control("DELETE", f"/sandboxes/{sandbox.sandbox_id}")
    elif WAY == "shared":
        # Ends every sandbox, because no other suite uses this server. The next call creates a new one.
        for found in json.loads(control("GET", "/v2/sandboxes")):
            control("DELETE", f"/sandboxes/{found['sandboxID']}")
    else:
        Sandbox.kill(sandbox.sandbox_id)


def control(method, path):
    """Makes a call that the SDK does not make in debug mode."""
    request = urllib.request.Request(f"http://localhost:3000{path}", method=method, headers={"X-API-Key": os.environ["E2B_API_KEY"]})
    try:
        return urllib.request.urlopen(request, timeout=30).read()
    except urllib.error.HTTPError as err:
        assert err.code == 404, err


def link(make, *arguments, **options):
    """A signed link to a file. Up to 1.x the SDK only signs on request."""
    signed = {"use_signature": True} if number(CORE) < (2,) else {}
    return make(*arguments, **signed, **options)


def listed(limit=None, **query):
    """All sandboxes that match, from every page. Up to 1.x there is one page."""
    if number(CORE) < (2,):
        from e2b.sandbox.sandbox_api import SandboxQuery

        return list(Sandbox.list(query=SandboxQuery(**query)))
    from e2b import SandboxQuery

    found, pages = [], Sandbox.list(query=SandboxQuery(**query), limit=limit)
    while pages.has_next:
        found += pages.next_items()
    return found


def state(info):
    """A sandbox's state as text."""
    return getattr(info.state, "value", info.state)
