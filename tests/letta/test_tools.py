"""Custom tools, which Letta runs in sandboxes too, and run_code_with_tools."""

import pytest

import control

ADD = "def add(a: int, b: int) -> int:\n    print('adding')\n    return a + b"
NUMBERS = {"a": "integer", "b": "integer"}


def test_a_tools_value_comes_back(letta):
    result = letta.call("add", ADD, {"a": 40, "b": 2}, NUMBERS)
    assert (result.ok, result.value, "".join(result.stdout), result.stderr) == (True, 42, "adding\n", [])


def test_values_with_a_structure_come_back_whole(letta):
    source = (
        "from pydantic import BaseModel\nclass Point(BaseModel):\n    x: int\n    name: str\n"
        "def make(name: str) -> dict:\n    return {'points': [Point(x=1, name=name)], 'quotes': '\\'\"', 'none': None}"
    )
    result = letta.call("make", source, {"name": "it's \"é\""}, {"name": "string"})
    assert (result.ok, result.value) == (True, {"points": [{"x": 1, "name": "it's \"é\""}], "quotes": "'\"", "none": None})


def test_variables_reach_a_tool(letta):
    source = "def told() -> list:\n    import os\n    return [os.environ['OWN'], 'LETTA_TOOL_ID' in os.environ]"
    assert letta.call("told", source, {}, {}).value == ["1", True]


@pytest.mark.creates
def test_a_failing_tool_reports_its_error(letta):
    source = "def fail(text: str) -> str:\n    print('before')\n    raise ValueError(text)"
    result = letta.call("fail", source, {"text": "no good"}, {"text": "string"})
    assert (result.ok, result.value) == (False, "Error executing function fail: ValueError: no good")
    assert "".join(result.stdout) == "before\n" and "ValueError: no good" in "".join(result.stderr)


@pytest.mark.package
def test_an_asynchronous_tool_is_awaited(letta):
    source = "async def wait(text: str) -> str:\n    import asyncio\n    return await asyncio.sleep(0.1, text)"
    assert letta.call("wait", source, {"text": "done"}, {"text": "string"}).value == "done"


@pytest.mark.commands
def test_a_package_that_is_installed_can_be_imported_at_once(letta):
    source = "def spell(number: int) -> str:\n    import roman\n    return roman.toRoman(number)"
    result = letta.call("spell", source, {"number": 14}, {"number": "integer"}, pip=["roman"])
    assert (result.ok, result.value) == (True, "XIV"), result


@pytest.mark.commands
def test_the_error_for_a_missing_package_names_it(letta):
    result = letta.call("add", ADD, {"a": 1, "b": 2}, NUMBERS, pip=["no-such-package-as-oncebox-asks-for"])
    assert not result.ok and "Failed to install tool pip requirement 'no-such-package-as-oncebox-asks-for'" in result.value, result
    control.end_all()


@pytest.mark.package
@pytest.mark.once
def test_a_typescript_tool_has_its_npm_packages(letta):
    source = (
        "import isOdd from 'is-odd';\n"
        "export async function odd(n: number): Promise<{odd: boolean, text: string}> {\n"
        "  return {odd: await Promise.resolve(isOdd(n)), text: `it's ${n}`};\n}"
    )
    result = letta.call("odd", source, {"n": 3}, {"n": "number"}, language="typescript", npm=["is-odd"])
    assert (result.ok, result.value) == (True, {"odd": True, "text": "it's 3"}), result


@pytest.mark.package
@pytest.mark.creates
def test_a_failing_typescript_tool_reports_its_error(letta):
    letta.use(template="offline")
    source = "export function fail(text: string): string { throw new RangeError(text); }"
    result = letta.call("fail", source, {"text": "too far"}, {"text": "string"}, language="typescript")
    assert (result.ok, result.value) == (False, "Error executing function fail: RangeError: too far")


@pytest.mark.package
@pytest.mark.creates
def test_run_code_with_tools_calls_them(letta):
    result = letta.run_code_with_tools("print(os.environ['MINE'])\nadd(40, 2)", tools=[("add", ADD)], env={"MINE": "own"}).answer()
    assert result == {"status": "success", "func_return": "42", "stdout": result["stdout"], "stderr": []}
    assert "".join(result["stdout"]) == "own\nadding\n"


@pytest.mark.package
@pytest.mark.creates
def test_run_code_with_tools_reports_an_error(letta):
    result = letta.run_code_with_tools("print('before')\n1 / 0").answer()
    assert (result["status"], result["stdout"]) == ("error", ["before\n"])
    assert result["func_return"] == "Error executing function run_code_with_tools: ZeroDivisionError: division by zero"
    assert "ZeroDivisionError" in result["stderr"][-1]


def test_no_sandbox_is_left(letta):
    letta.call("add", ADD, {"a": 1, "b": 2}, NUMBERS)
    assert control.all_end() == []
