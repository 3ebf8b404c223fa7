"""Skips the tests that do not apply to a version or a way, and prints the result line that `scripts/test` adds up."""

import asyncio
import importlib
import os

import pytest

PACKAGE = os.environ["LETTA_CALLER"] == "package"
# With `shared` (debug mode, the oldest and the newest clients), the client creates no sandbox and sends no options for
# one.
WAY = os.environ["LETTA_WAY"]
LEFT_OUT = []


def pytest_configure(config):
    config.addinivalue_line("markers", "package: needs a feature of Letta 0.16, and its package")
    config.addinivalue_line("markers", "creates: the client must create the sandbox itself")
    config.addinivalue_line("markers", "commands: the client must name the sandbox in which a command runs")
    config.addinivalue_line("markers", "plain: uses a key that is not Letta's; a server without keys has none")
    config.addinivalue_line("markers", "deep: runs in one way with some versions, because neither matters much")
    config.addinivalue_line("markers", "once: runs with one version in one way, because it is slow")


def fits(item):
    has = lambda mark: item.get_closest_marker(mark) is not None
    return not (
        (has("package") and not PACKAGE)
        or (has("creates") and WAY == "shared")
        or (has("commands") and "LETTA_NO_COMMANDS" in os.environ)
        or (has("plain") and "LETTA_PLAIN_KEY" not in os.environ)
        or (has("deep") and "LETTA_DEEP" not in os.environ)
        or (has("once") and "LETTA_ONCE" not in os.environ)
    )


def pytest_collection_modifyitems(config, items):
    LEFT_OUT.extend(item for item in items if not fits(item))
    config.hook.pytest_deselected(items=list(LEFT_OUT))
    items[:] = filter(fits, items)


def pytest_terminal_summary(terminalreporter, exitstatus):
    count = lambda outcome: len(terminalreporter.stats.get(outcome, []))
    # A test that skips itself was not run, and counts as failed.
    failed = count("failed") + count("error") + count("skipped")
    failed += int(failed == 0 and exitstatus != 0)
    word = "ok" if failed == 0 else "FAILED"
    terminalreporter.write_line(f"test result: {word}. {count('passed')} passed; {failed} failed; {len(LEFT_OUT)} do not apply")


class Letta:
    """Letta's package, or the repeated calls of its older versions, with synchronous methods."""

    def __init__(self):
        self.caller = importlib.import_module("package" if PACKAGE else "calls")
        self.use()

    def use(self, key=os.environ["LETTA_KEY"], template=None):
        self.caller.use(key, template)

    def __getattr__(self, name):
        return lambda *arguments, **options: asyncio.run(getattr(self.caller, name)(*arguments, **options))


@pytest.fixture(scope="session")
def only_letta():
    return Letta()


@pytest.fixture
def letta(only_letta):
    yield only_letta
    only_letta.use()
