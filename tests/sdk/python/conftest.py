"""Skips the tests that do not apply to a version or a way, and prints the result line that `scripts/test` adds up.

A test names with `@covers` the methods that it tests and the others that it needs. `methods.json` alone decides which
methods a version has; a test that skips itself counts as failed.
"""

import json
import os

import pytest

import sdk

LEFT_OUT = []
OUTCOMES = {}


def pytest_configure(config):
    config.addinivalue_line("markers", "covers(*methods, needs=()): the methods that a test is about, and others that it needs")
    config.addinivalue_line("markers", "refuses(*methods): methods that are not offered; each error must name its method")
    config.addinivalue_line("markers", "asynchronous: the test is about the asynchronous API")


def methods_of(item):
    marks = list(item.iter_markers("covers"))
    return [name for mark in marks for name in mark.args], [name for mark in marks for name in mark.kwargs.get("needs", ())]


def pytest_collection_modifyitems(config, items):
    run = []
    for item in items:
        about, needed = methods_of(item)
        refused = [name for mark in item.iter_markers("refuses") for name in mark.args]
        if refused:
            about = list(filter(sdk.refused, refused))
            (run if about else LEFT_OUT).append(item)
        else:
            (run if all(map(sdk.offered, about + needed)) else LEFT_OUT).append(item)
        item.about = about
    if os.environ.get("SDK_THIN"):
        run = thinned(run)
    config.hook.pytest_deselected(items=list(LEFT_OUT))
    items[:] = run


def thinned(items):
    """One test for each method and API: enough for a further version or way, because another run has all tests."""
    seen, kept = set(), []
    for item in items:
        new = {(method, face(item)) for method in item.about} - seen
        seen |= new
        (kept if new else LEFT_OUT).append(item)
    return kept


def face(item):
    return "async" if item.get_closest_marker("asynchronous") else "sync"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if call.when == "call" or not report.passed:
        earlier = OUTCOMES.get(item.nodeid, (True,))[0]
        OUTCOMES[item.nodeid] = (earlier and report.passed, item.about, face(item))
    return report


def pytest_terminal_summary(terminalreporter, exitstatus):
    stats = terminalreporter.stats
    passed = sum(ok for ok, *_ in OUTCOMES.values())
    failed = sum(not ok for ok, *_ in OUTCOMES.values())
    # Adds test files that could not be imported, and a run that ended for another reason.
    failed += len([report for report in stats.get("error", []) if report.when == "collect"])
    failed += int(failed == 0 and exitstatus not in (0, 1))
    word = "ok" if failed == 0 else "FAILED"
    left_out = f"{len(LEFT_OUT)} left out"
    terminalreporter.write_line(f"test result: {word}. {passed} passed; {failed} failed; {left_out}")
    if path := os.environ.get("SDK_REPORT"):
        tests = [
            {"name": name, "works": ok, "covers": about, "face": of} for name, (ok, about, of) in OUTCOMES.items()
        ]
        report = {"sdk": "python", "version": sdk.CORE, "interpreter": sdk.INTERPRETER, "way": sdk.WAY, "tests": tests}
        with open(path, "w") as file:
            json.dump(report, file)


@pytest.fixture
def fresh():
    """Creates sandboxes for one test, which are ended after it."""
    made = []

    def make(**options):
        if sdk.WAY == "shared":
            sdk.discard(None)
        made.append(sdk.create(**options))
        return made[-1]

    yield make
    for sandbox in made:
        sdk.discard(sandbox)


@pytest.fixture
def sandbox(fresh):
    """A sandbox for one test."""
    return fresh()


@pytest.fixture(scope="module")
def shared():
    """A sandbox for tests that leave nothing behind that affects other tests."""
    sandbox = sdk.create(timeout=600)
    yield sandbox
    sdk.discard(sandbox)
