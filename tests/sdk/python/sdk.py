"""One face for all versions of the SDK, and what the environment says of where it leads."""

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
    # From 1.5 to 2.10 a sandbox is really created in debug mode. All others talk to one that they did not create, and share.
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
    """Whether this version of the SDK has a method, by the table."""
    row = METHODS[method]
    since, until = row.get("python"), row.get("python_until")
    own = number(INTERPRETER if row.get("package") == "interpreter" else CORE)
    return since is not None and own >= number(since) and (until is None or own < number(until))


def offered(method):
    """Whether the method does something here: in debug mode some SDKs make no call at all. A variable may be needed, too."""
    if method.isupper():
        return method in os.environ
    return has(method) and not METHODS[method].get("refused") and WAY in METHODS[method].get("ways", [WAY])


def refused(method):
    """Whether a server of ours must refuse it."""
    return has(method) and WAY in METHODS[method].get("ways", [WAY]) and "SDK_OWN_SERVER" in os.environ


# A whole test takes less.
LIFE = 120


def create(**options):
    """A new sandbox. Up to 1.x the constructor makes it."""
    assert WAY != "shared" or not options.keys() - {"timeout"}, "nobody is told these options: the test needs sandbox.create"
    options.setdefault("timeout", LIFE)
    return Sandbox.create(**options) if number(CORE) >= (2,) else Sandbox(**options)


def discard(sandbox):
    """Ends a sandbox, whether or not it is still there. In debug mode `kill` does nothing, so that it is done by hand."""
    if WAY == "debug":
        control("DELETE", f"/sandboxes/{sandbox.sandbox_id}")
    elif WAY == "shared":
        # Whichever it is: this suite is alone with the server. The next call begins another one.
        for found in json.loads(control("GET", "/v2/sandboxes")):
            control("DELETE", f"/sandboxes/{found['sandboxID']}")
    else:
        Sandbox.kill(sandbox.sandbox_id)


def control(method, path):
    """A call that the SDK does not make in debug mode."""
    request = urllib.request.Request(f"http://localhost:3000{path}", method=method, headers={"X-API-Key": os.environ["E2B_API_KEY"]})
    try:
        return urllib.request.urlopen(request, timeout=30).read()
    except urllib.error.HTTPError as err:
        assert err.code == 404, err


def link(make, *arguments, **options):
    """A link to a file. Up to 1.x one is signed when that is asked for."""
    signed = {"use_signature": True} if number(CORE) < (2,) else {}
    return make(*arguments, **signed, **options)


def listed(limit=None, **query):
    """All sandboxes that fit, from every page. Up to 1.x there is one page."""
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
