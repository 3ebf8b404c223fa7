"""The text that the model sees if code fails: with a Letta key the language's error, with another Letta's message."""

import os

import pytest

import control

# The code, its printed output, and fragments of the text that the model must see.
FAILING = {
    "python": ("print('before')\n1 / 0", "before\n", ["Traceback", "line 2", "ZeroDivisionError: division by zero"]),
    "python's grammar": ("def f(:", "", ["SyntaxError: invalid syntax"]),
    "python's exit": ("print('before')\nraise SystemExit(3)", "before\n", ["SystemExit", "3"]),
    "python's missing package": ("import nothing_of_this_name", "", ["ModuleNotFoundError: No module named 'nothing_of_this_name'"]),
    "js": ("console.log('before');\nnull.x", "before\n", ["TypeError: Cannot read properties of null"]),
    "js's missing package": ("require('axios')", "", ["Cannot find module 'axios'"]),
    "ts": ("console.log('before');\nthrow new RangeError('too far')", "before\n", ["RangeError: too far"]),
    "r": ("cat('before\\n')\nstop('too far')", "before\n", ["Error", "too far"]),
    "r's missing package": ("library(ggplot2)", "", ["there is no package called", "ggplot2"]),
    "java": ('System.out.println("before"); int x = 1 / 0;', "before\n", ["java.lang.ArithmeticException: / by zero"]),
    "java's types": ('int x = "s";', "", ["incompatible types"]),
}


def language(case):
    return case.split("'")[0]


@pytest.mark.parametrize("case", [pytest.param(case, marks=[pytest.mark.deep] if "'" in case else []) for case in FAILING])
def test_the_model_sees_why(letta, case):
    code, stdout, fragments = FAILING[case]
    answer = letta.run_code(code, language(case)).answer()
    assert answer.keys() == {"results", "logs"} and answer["results"] == []
    assert "".join(answer["logs"]["stdout"]) == stdout
    stderr = "".join(answer["logs"]["stderr"])
    assert all(fragment in stderr for fragment in fragments), stderr


@pytest.mark.deep
@pytest.mark.plain
@pytest.mark.parametrize("name", ["python", "js", "ts", "r", "java"])
def test_with_another_key_letta_cannot_report_the_failure(letta, name):
    """Shows why there is a profile for Letta: no version of Letta can turn E2B's exact failure event into JSON."""
    letta.use(os.environ["LETTA_PLAIN_KEY"])
    try:
        result = letta.run_code(FAILING[name][0], name)
    finally:
        control.end_all(os.environ["LETTA_PLAIN_KEY"])
    assert not result.ok
    assert result.value == "Error executing function run_code: TypeError: Object of type ExecutionError is not JSON serializable"


@pytest.mark.plain
@pytest.mark.once
def test_with_another_key_a_sandbox_stays(letta):
    key = os.environ["LETTA_PLAIN_KEY"]
    letta.use(key)
    assert letta.run_code("1").answer()["results"] == ["1"]
    assert len(control.sandboxes(key)) == 1
    control.end_all(key)


@pytest.mark.deep
@pytest.mark.package
@pytest.mark.creates
def test_the_error_for_a_missing_template_names_it(letta):
    letta.use(template="no-such-template")
    result = letta.run_code("1")
    assert not result.ok and "template 'no-such-template' not found" in result.value
