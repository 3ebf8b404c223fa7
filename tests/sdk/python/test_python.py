"""Results of Python code as programs for E2B expect them, where a terminal or a notebook would behave differently."""

import base64

import pytest

pytestmark = pytest.mark.covers("sandbox.run_code")


def only(sandbox, code):
    """Runs code that succeeds and prints nothing; returns its only result."""
    execution = sandbox.run_code(code)
    assert execution.error is None and execution.logs.stdout == execution.logs.stderr == [], execution
    [result] = execution.results
    return result


def members(result):
    """The names of the forms of a result."""
    return set(result.formats()) - set(result.extra or {})


@pytest.mark.parametrize("code", ["x = 1", "None", "3;", "", "# a comment", "get_ipython?"])
def test_code_without_a_value_has_no_result(shared, code):
    execution = shared.run_code(code)
    assert (execution.results, execution.error, execution.logs.stdout, execution.logs.stderr) == ([], None, [], [])


@pytest.mark.parametrize(
    ("code", "text", "json"),
    [
        ("'str'", "str", None),
        ('"it\'s"', "it's", None),
        ("b'abc'", "b'abc'", None),
        ("{'a': 1, 'b': float('nan')}", "{'a': 1, 'b': nan}", {"a": 1, "b": None}),
        ("[1, 'x', None, (2,)]", "[1, 'x', None, (2,)]", [1, "x", None, [2]]),
        ("(1, 2)", "(1, 2)", None),
        ("{1}", "{1}", None),
        ("[int]", "[int]", None),
    ],
)
def test_dictionaries_and_lists_are_json_too(shared, code, text, json):
    result = only(shared, code)
    assert (result.text, result.json, result.is_main_result) == (text, json, True)


def test_names_are_there_from_the_start(sandbox):
    assert only(sandbox, "Image.__module__, display.__name__, Any, ip is get_ipython()").text == "('PIL.Image', 'display', typing.Any, True)"
    # Each module takes long to import, and little code needs all of them.
    assert only(sandbox, "import sys; {'pandas', 'numpy', 'matplotlib', 'pydantic'} & set(sys.modules)").text == "set()"


@pytest.mark.covers("result.data")
def test_a_table_comes_with_its_columns(shared):
    result = only(shared, """
import pandas as pd, numpy as np
pd.DataFrame({
    "n": [1, 2], "f": [0.5, np.nan], "t": [pd.Timestamp("2026-01-02 03:04"), pd.NaT], "s": ["é", None], 7: [True, False],
    "i": pd.array([1, None], dtype="Int64"), "c": pd.Categorical(["u", "v"]), "o": [[1, np.int64(2)], {"k": np.inf}],
})
""")
    assert result.data == {
        "n": [1, 2], "f": [0.5, None], "t": ["2026-01-02T03:04:00", "NaT"], "s": ["é", None], "7": [True, False],
        "i": [1, None], "c": ["u", "v"], "o": [[1, 2], {"k": None}],
    }
    assert members(result) == {"text", "html", "data"} and "<style scoped>" in result.html and result.text.startswith("   n ")
    assert only(shared, "pd.DataFrame()").data in ({}, None)
    # A column is not a table, and millions of numbers are not sent in addition to a table's text.
    assert members(only(shared, "pd.Series([1])")) == {"text"}
    assert members(only(shared, "pd.DataFrame(np.zeros((1_000_000, 3)))")) == {"text", "html"}


@pytest.mark.parametrize(
    ("code", "member", "value"),
    [
        ("HTML('<b>é</b>')", "html", "<b>é</b>"),
        ("Markdown('# T')", "markdown", "# T"),
        ("Latex('$x$')", "latex", "$x$"),
        ("JSON({'a': [1]})", "json", {"a": [1]}),
        ("Javascript('1')", "javascript", "1"),
        ("SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>')", "svg", '<svg xmlns="http://www.w3.org/2000/svg"/>'),
    ],
)
def test_display_objects_are_the_value_in_their_form(shared, code, member, value):
    result = only(shared, f"import IPython.display as shown\nshown.{code}")
    assert (getattr(result, member), result.text) == (value, f"<IPython.core.display.{code.split('(')[0]} object>")
    assert members(result) == {"text", member} and result.is_main_result


def test_mime_types_without_a_member_are_extra(shared):
    code = "class Rich:\n    def _repr_mimebundle_(self, **_): return {'text/html': '<i>', 'x/list': [{'a': 1}], 'x/text': 's'}\n    def __repr__(self): return 'R'\nRich()"
    result = only(shared, code)
    assert (result.text, result.html, result.extra) == ("R", "<i>", {"x/list": [{"a": 1}], "x/text": "s"})


def test_formulas_come_as_latex(shared):
    result = only(shared, "import sympy; sympy.Symbol('x') ** 2 / 3")
    assert (result.text, result.latex) == ("x**2/3", r"$\displaystyle \frac{x^{2}}{3}$")


@pytest.mark.parametrize(
    ("code", "text", "stdout"),
    [
        ("import asyncio\nawait asyncio.sleep(0, 'slept')", "slept", ""),
        ("  a = 1\n  a + 1", "2", ""),
        ("!echo hi; exit 3", None, "hi\n"),
        ("%cd -q /var\n%pwd", "/var", ""),
        ("%%bash\necho hi", None, "hi\n"),
    ],
)
def test_ipythons_language_works(shared, code, text, stdout):
    execution = shared.run_code(code)
    assert (execution.error, execution.text, "".join(execution.logs.stdout)) == (None, text, stdout)


def test_magics_measure_time_and_report_how_a_script_failed(shared):
    execution = shared.run_code("%time 1 + 1")
    assert execution.text == "2" and "Wall time" in "".join(execution.logs.stdout)
    execution = shared.run_code("%%bash\necho before; exit 3")
    assert execution.error.name == "CalledProcessError" and "".join(execution.logs.stdout) == "before\n"


def test_warnings_and_the_log_go_to_stderr(shared):
    execution = shared.run_code("import warnings, logging\nwarnings.warn('careful'); logging.warning('noted')")
    assert execution.logs.stdout == [] and execution.error is None
    stderr = "".join(execution.logs.stderr)
    assert "UserWarning: careful\n" in stderr and stderr.endswith("WARNING:root:noted\n")


def test_nobody_answers_questions(shared):
    error = shared.run_code("input('Your name? ')").error
    assert (error.name, error.value) == ("StdinNotImplementedError", "raw_input was called, but this frontend does not support input requests.")
    assert only(shared, "import sys; sys.stdin.read()").text == ""


@pytest.mark.parametrize(("code", "value"), [("raise SystemExit(3)", "3"), ("import sys; sys.exit()", ""), ("import sys; sys.exit('why')", "why")])
def test_code_that_exits_is_an_error_that_keeps_the_variables(shared, code, value):
    shared.run_code("kept = 5")
    execution = shared.run_code(code)
    assert (execution.error.name, execution.error.value, execution.logs.stderr) == ("SystemExit", value, [])
    assert shared.run_code("kept").text == "5"


def test_a_child_process_exits_with_its_own_status(shared):
    code = "import os, sys\nchild = os.fork()\nif child == 0: sys.exit(7)\nos.waitstatus_to_exitcode(os.waitpid(child, 0)[1])"
    execution = shared.run_code(code)
    assert execution.text == "7" and "SystemExit" not in "".join(execution.logs.stderr)


@pytest.mark.parametrize("code", ["exit()", "quit()", "quit", "print('last'); exit()"])
def test_exit_begins_anew(sandbox, code):
    sandbox.run_code("kept = 5")
    execution = sandbox.run_code(code)
    assert execution.error is None and "".join(execution.logs.stdout) == "last\n" * ("last" in code)
    after = sandbox.run_code("'kept' in globals()")
    assert (after.text, after.execution_count) == ("False", 1)
    assert sandbox.run_code("1").execution_count == 2


def test_images_are_shown_as_values_when_saved_and_when_asked(shared):
    image = "from PIL import Image\nimage = Image.new('RGB', (3, 2), 'red')\n"
    result = only(shared, image + "image")
    assert members(result) == {"text", "png", "jpeg"} and result.is_main_result
    assert base64.b64decode(result.png).startswith(b"\x89PNG") and base64.b64decode(result.jpeg).startswith(b"\xff\xd8\xff")
    for code in ("image.save('/tmp/image.png')", "import pathlib; image.save(pathlib.Path('/tmp/image.png'))", "image.show()"):
        shown = only(shared, image + code)
        assert (shown.png, shown.is_main_result) == (result.png, False)
    saved = shared.run_code(image + "import io; image.save(io.BytesIO(), 'PNG')\nimport os; os.path.getsize('/tmp/image.png')")
    assert [value.is_main_result for value in saved.results] == [True] and int(saved.text) > 0


def test_an_image_that_cannot_be_saved_is_an_error_of_the_code(shared):
    error = shared.run_code("from PIL import Image\nImage.new('RGB', (3, 2)).save('/no/such.png')").error
    assert error.name == "FileNotFoundError" and "oncebox" not in error.traceback


def test_a_saved_figure_is_an_image_beside_the_figure(shared):
    execution = shared.run_code("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.savefig('/tmp/figure.png')")
    assert [result.text.split(" image")[0].split(" size")[0] for result in execution.results] == ["<PIL.Image.Image", "<Figure"]
    assert all(result.png and not result.is_main_result for result in execution.results)


def test_a_figure_of_plotly_is_html_that_needs_no_network(shared):
    code = "import plotly.graph_objects as go\nfigure = go.Figure(go.Bar(y=[1, 2]))\n"
    for show, main in (("figure", True), ("figure.show()", False)):
        result = only(shared, code + show)
        assert result.is_main_result is main and result.html.lstrip().startswith("<div") and len(result.html) > 1_000_000
        assert result.extra["application/vnd.plotly.v1+json"]["data"][0]["type"] == "bar"


def test_the_packages_of_the_image_are_there(shared):
    code = """
import bs4, cv2, matplotlib, numpy, openpyxl, orjson, pandas, PIL, plotly, requests, scipy, seaborn, sklearn, sympy
pandas.DataFrame({"a": [1]}).to_excel("/tmp/a.xlsx")
int(pandas.read_excel("/tmp/a.xlsx").a[0]), orjson.dumps([1]), cv2.resize(numpy.zeros((2, 2)), (4, 4)).shape, "a" in pandas.DataFrame({"a": [1]}).style.to_html()
"""
    assert shared.run_code(code).text == "(1, b'[1]', (4, 4), True)"
