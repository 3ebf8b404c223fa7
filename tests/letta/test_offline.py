"""A template without network, named in E2B_SANDBOX_TEMPLATE_ID by an operator: everything works except installing."""

import time

import pytest

import control

pytestmark = [pytest.mark.package, pytest.mark.creates, pytest.mark.deep]


@pytest.fixture(autouse=True)
def offline(letta):
    letta.use(template="offline")


def test_code_runs_and_reaches_nothing(letta):
    code = "import socket\ntry:\n    socket.create_connection(('1.1.1.1', 53), 2)\nexcept OSError as err:\n    print('refused')\n1"
    answer = letta.run_code(code).answer()
    assert (answer["results"], answer["logs"]["stdout"]) == (["1"], ["refused\n"])


def test_a_typescript_tool_runs_although_its_client_cannot_be_installed(letta):
    source = "export function twice(text: string): string { return text + text; }"
    begun = time.monotonic()
    # Every backslash and quote of the value must arrive, although it passes through JSON.
    text = "it's `a` \"b\"\n\\c \U0001f600 ${d}"
    result = letta.call("twice", source, {"text": text}, {"text": "string"}, language="typescript")
    assert (result.ok, result.value) == (True, text + text), result
    # By default npm retries for 71 seconds, and Letta's timeout is 60.
    assert time.monotonic() - begun < 50


@pytest.mark.parametrize("language, packages", [("python", {"pip": ["roman"]}), ("typescript", {"npm": ["is-odd"]})])
def test_a_package_that_cannot_be_installed_is_an_error_soon(letta, language, packages):
    source = {"python": "def f() -> int:\n    return 1", "typescript": "export function f(): number { return 1; }"}[language]
    begun = time.monotonic()
    result = letta.call("f", source, {}, {}, language=language, **packages)
    assert not result.ok and "Failed to install tool" in result.value, result
    assert time.monotonic() - begun < 50
    control.end_all()
