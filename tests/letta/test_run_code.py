"""The text that the model sees if run_code succeeds."""

import pytest

import control

SUCCEEDING = {
    "python": ("print('hello')\nx = 41\nx + 1", ["42"], "hello\n"),
    "python's packages": (
        "import warnings; warnings.simplefilter('ignore')\nimport pkg_resources\nhave = {found.key for found in pkg_resources.working_set}\n"
        "sorted({'numpy', 'pandas', 'scipy', 'scikit-learn', 'requests', 'aiohttp', 'beautifulsoup4', 'matplotlib', 'pyyaml', "
        "'pillow', 'pydantic', 'letta-client'} - have)",
        ["[]"],
        "",
    ),
    "python's await": ("import asyncio\nawait asyncio.sleep(0, 'waited')", ["waited"], ""),
    "js": ("const { basename } = require('path');\nconsole.log(basename('/a/b.txt'));\nawait Promise.resolve([1, 2].length)", ["2"], "b.txt\n"),
    "ts": ("enum Color { Red = 1, Green }\nconst same = <T,>(value: T): T => value;\nconsole.log(same<string>(Color[2]));\nColor.Green", ["2"], "Green\n"),
    "r": ("x <- c(1, 2, 3)\nprint(summary(x)[['Max.']])\nmean(x)", ["[1] 2"], "[1] 3\n"),
    "java": ('var words = java.util.List.of("a", "b"); System.out.println(words); words.size() * 21', ["42"], "[a, b]\n"),
    "java's class": ('public class Main { public static void main(String[] a) { System.out.println("main"); } }', [], "main\n"),
}


@pytest.mark.parametrize("case", [pytest.param(case, marks=[pytest.mark.deep] if "'" in case else []) for case in SUCCEEDING])
def test_results_and_logs_are_json(letta, case):
    code, results, stdout = SUCCEEDING[case]
    answer = letta.run_code(code, case.split("'")[0]).answer()
    assert (answer["results"], "".join(answer["logs"]["stdout"]), answer["logs"]["stderr"]) == (results, stdout, [])
    assert answer.keys() == {"results", "logs"}


@pytest.mark.parametrize("language, code", [("python", "import matplotlib.pyplot as plt\nplt.plot([1, 4, 9]);"), ("r", "plot(1:3)")])
def test_a_plot_is_a_result(letta, language, code):
    answer = letta.run_code(code, language).answer()
    # Letta drops the picture and keeps its text.
    names = {"python": "<Figure size 640x480 with 1 Axes>", "r": "<plot>"}
    assert answer == {"results": [names[language]], "logs": {"stdout": [], "stderr": []}}


@pytest.mark.deep
def test_each_call_is_in_a_sandbox_of_its_own(letta):
    letta.run_code("open('left', 'w').write('x')\nleft = 1")
    answer = letta.run_code("import os\n'left' in globals(), os.path.exists('left')").answer()
    assert answer["results"] == ["(False, False)"]


@pytest.mark.deep
def test_text_that_is_not_ascii_arrives_unchanged(letta):
    assert letta.run_code("print('grüße \U0001f600')\n'été'").answer() == {
        "results": ["été"],
        "logs": {"stdout": ["grüße \U0001f600\n"], "stderr": []},
    }


@pytest.mark.deep
@pytest.mark.parametrize("language, code", [("python", "for n in range(5000): print(n)"), ("java", "for (int n = 0; n < 5000; n++) System.out.println(n);")])
def test_much_output_is_one_event(letta, language, code):
    answer = letta.run_code(code, language).answer()
    # Letta truncates the text at 50,000 characters, and each event takes some of them.
    assert answer["logs"]["stdout"] == ["".join(f"{number}\n" for number in range(5000))]


@pytest.mark.package
def test_the_source_of_the_agents_tools_comes_first(letta):
    answer = letta.run_code("add(40, 2)", tools=[("add", "def add(a: int, b: int) -> int:\n    return a + b")]).answer()
    assert answer["results"] == ["42"]


@pytest.mark.once
@pytest.mark.creates
def test_many_calls_leave_no_sandbox(letta):
    for number in range(40):
        assert letta.run_code(str(number)).answer()["results"] == [str(number)]
        # The sandbox of the call before may still be ending.
        assert len(control.sandboxes()) <= 2
    assert control.all_end() == []
