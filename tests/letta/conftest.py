"""Which tests a version and a way leave out, and the line at the end that `scripts/test` adds up."""

import asyncio
import importlib
import os

import pytest

PACKAGE = os.environ["LETTA_CALLER"] == "package"
# In debug mode the oldest and the newest clients create no sandbox, and say nothing of what it is for.
WAY = os.environ["LETTA_WAY"]
LEFT_OUT = []


def pytest_configure(config):
    config.addinivalue_line("markers", "package: needs what Letta 0.16 does, and its package")
    config.addinivalue_line("markers", "creates: the client must create the sandbox itself")
    config.addinivalue_line("markers", "commands: the client must say in which sandbox a command is to run")
    config.addinivalue_line("markers", "plain: with a key that is not Letta's, which a server without keys has not")
    config.addinivalue_line("markers", "deep: in one way with some versions, because neither matters much")
    config.addinivalue_line("markers", "once: with one version in one way, because it takes long")


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
    # A test that skips itself has not been done.
    failed = count("failed") + count("error") + count("skipped")
    failed += int(failed == 0 and exitstatus != 0)
    word = "ok" if failed == 0 else "FAILED"
    terminalreporter.write_line(f"test result: {word}. {count('passed')} passed; {failed} failed; {len(LEFT_OUT)} are not for this")


class Letta:
    """Letta, or the calls it made, one after the other."""

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
