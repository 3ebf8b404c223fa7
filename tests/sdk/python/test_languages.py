"""The languages other than Python, as E2B's notebooks show them."""

import base64
import time

import pytest
from e2b import TimeoutException

pytestmark = pytest.mark.covers("sandbox.run_code")


@pytest.fixture(params=["js", "ts"])
def script(request, shared):
    """Runs JavaScript code, as JavaScript and as TypeScript."""
    return lambda code, **options: shared.run_code(code, language=request.param, **options)


def test_each_call_that_logs_is_an_event(script):
    execution = script("console.log('a'); console.log('b\\nc'); console.log({ d: 'x'.repeat(50), e: 'y'.repeat(50) })")
    *first, last = execution.logs.stdout
    assert first == ["a\n", "b\nc\n"] and last.startswith("{\n  d: 'xxx") and last.endswith("\n}\n")
    assert script("console.error('e'); console.warn('w')").logs.stderr == ["e\n", "w\n"]


def test_a_long_text_that_is_logged_is_one_event(script):
    assert script("console.log('é'.repeat(20_000))").logs.stdout == ["é" * 20_000 + "\n"]


def test_the_last_expression_is_the_result_and_strings_have_no_quotes(script):
    for code, text in [("'str'", "str"), ('"it\'s"', "it's"), ("Promise.resolve(4)", "4"), ("await Promise.resolve([1])", "[ 1 ]")]:
        assert script(code).text == text
    assert script("undefined").results == []


def test_scripts_report_their_errors(script):
    error = script("throw 'str'").error
    assert (error.name, error.value) == ("string", "'str'")
    error = script("throw new RangeError('wide')").error
    assert (error.name, error.value) == ("RangeError", "wide") and "RangeError: wide" in error.traceback
    script("let once = 1")
    assert script("let once = 2").error.name == "SyntaxError"
    assert script("once").text == "1"


def test_scripts_show_what_they_like(script):
    (result,) = script("$$.html('<b>x</b>')").results
    assert result.html == "<b>x</b>" and result.is_main_result
    (result,) = script("$$.png('iVBORw0KGgo=')").results
    assert base64.b64decode(result.png).startswith(b"\x89PNG")
    (result,) = script("$$.mime({ 'text/markdown': '# x', 'text/html': '<h1>x</h1>' })").results
    assert (result.markdown, result.html) == ("# x", "<h1>x</h1>")


def test_r_displays_its_values_and_has_no_main_one(shared):
    execution = shared.run_code("x <- 2\nx", language="r")
    assert execution.text is None
    (result,) = execution.results
    assert (result.text, result.html, result.markdown, result.latex) == ("[1] 2", "2", "2", "2")
    assert [result.text for result in shared.run_code("1\n'a'\ninvisible(3)", language="r").results] == ["[1] 1", '[1] "a"']


def test_r_shows_tables_in_every_form(shared):
    (result,) = shared.run_code("data.frame(a = 1:2, b = c('x', 'y_z'))", language="r").results
    assert "<table>" in result.html and "<td>y_z</td>" in result.html
    assert "| 2 | 2 | y_z |" in result.markdown
    assert "2 & 2 & y\\_z \\\\" in result.latex and result.latex.startswith("\\begin{tabular}")


def test_r_prints_draws_and_complains(shared):
    execution = shared.run_code("print('hi'); message('told'); plot(1:3)", language="r")
    assert execution.logs.stdout == ['[1] "hi"\n'] and execution.logs.stderr == ["told\n"]
    (result,) = execution.results
    assert base64.b64decode(result.png).startswith(b"\x89PNG") and not result.is_main_result
    error = shared.run_code("f <- function() stop('boom')\nf()", language="r").error
    assert (error.name, error.value) == ("ERROR", "Error in f() : boom\n")


def test_java_prints_the_end_of_a_line_by_itself(shared):
    execution = shared.run_code('System.out.println("Hello, World!"); System.out.println(2);', language="java")
    assert execution.logs.stdout == ["Hello, World!", "\n", "2", "\n"]
    assert shared.run_code('System.err.println("e");', language="java").logs.stderr == ["e", "\n"]


def test_java_has_a_value_and_names_its_errors_by_their_class(shared):
    assert shared.run_code('"a" + 1', language="java").text == "a1"
    error = shared.run_code('throw new IllegalStateException("wide");', language="java").error
    assert (error.name, error.value) == ("IllegalStateException", "wide") and "line 1" in error.traceback


@pytest.mark.covers(needs=["sandbox.create"])
def test_java_sees_variables_and_its_directory_as_properties(fresh):
    sandbox = fresh(envs={"ALWAYS": "sandbox"})
    code = 'System.getProperty("ALWAYS") + " " + System.getProperty("NOW") + " " + System.getProperty("user.dir")'
    assert sandbox.run_code(code, language="java", envs={"NOW": "it's"}).text == "sandbox it's /home/user"
    assert sandbox.run_code(code, language="java").text == "sandbox null /home/user"


@pytest.mark.parametrize("language", ["js", "ts", "r", "java"])
def test_code_that_waits_is_interrupted_and_its_variables_stay(shared, language):
    code = {
        "js": ("let stays = 7", "await new Promise((done) => setTimeout(done, 60_000))", "stays"),
        "ts": ("let stays: number = 7", "await new Promise((done) => setTimeout(done, 60_000))", "stays"),
        "r": ("stays <- 7", "Sys.sleep(60)", "cat(stays)"),
        "java": ("int stays = 7;", "Thread.sleep(60_000);", "stays"),
    }[language]
    shared.run_code(code[0], language=language)
    begin = time.monotonic()
    with pytest.raises(TimeoutException):
        shared.run_code(code[1], language=language, timeout=1)
    execution = shared.run_code(code[2], language=language, timeout=30)
    assert "7" in "".join(execution.logs.stdout) + str(execution.text)
    assert time.monotonic() - begin < 20
