"""The code interpreter: `run_code` and its results."""

import base64
import threading
import time

import pytest
from e2b import SandboxException, TimeoutException

import sdk

RUN = pytest.mark.covers("sandbox.run_code")


@RUN
def test_hello_world(shared):
    execution = shared.run_code("print('hello world')\n6 * 7")
    # The number of pieces of the output is not promised, only the whole.
    assert "".join(execution.logs.stdout) == "hello world\n" and execution.logs.stderr == []
    assert execution.text == "42" and execution.error is None
    assert execution.results[0].is_main_result


@RUN
def test_names_live_on_from_one_execution_to_the_next(shared):
    shared.run_code("import math\ndef area(r): return math.pi * r ** 2")
    assert shared.run_code("round(area(2), 2)").text == "12.57"


@RUN
def test_executions_are_counted(sandbox):
    assert [sandbox.run_code("1").execution_count for _ in range(3)] == [1, 2, 3]


@RUN
def test_output_arrives_as_it_happens(shared):
    out, err = [], []

    def hear(message):
        out.append(message.line)
        shared.files.write("/tmp/heard", "")

    # The code waits until the callback has received its first line.
    wait = "while not os.path.exists('/tmp/heard'): time.sleep(.02)"
    code = f"import os, sys, time\nprint('first', flush=True)\n{wait}\nprint('second')\nprint('end', file=sys.stderr)"
    shared.run_code(code, timeout=60, on_stdout=hear, on_stderr=lambda message: err.append(message.line))
    assert ("".join(out), "".join(err)) == ("first\nsecond\n", "end\n")


@RUN
def test_results_and_errors_arrive_as_they_happen(shared):
    results, errors = [], []
    shared.run_code("display('one')\n'two'", on_result=results.append, on_error=errors.append)
    assert [result.text for result in results] == ["one", "two"]
    assert [result.is_main_result for result in results] == [False, True] and errors == []
    shared.run_code("1 / 0", on_error=errors.append)
    assert [error.name for error in errors] == ["ZeroDivisionError"]


@RUN
def test_an_exception_is_part_of_the_answer(shared):
    execution = shared.run_code("print('before')\ndef f():\n    raise ValueError('no: é')\nf()")
    assert "".join(execution.logs.stdout) == "before\n" and execution.text is None
    assert (execution.error.name, execution.error.value) == ("ValueError", "no: é")
    assert "ValueError" in execution.error.traceback and "line 3" in execution.error.traceback or "f()" in execution.error.traceback


@RUN
def test_code_that_does_not_parse_is_an_error_of_the_code(shared):
    assert shared.run_code("def f(:\n  pass").error.name == "SyntaxError"


@RUN
def test_text_of_any_alphabet_and_of_any_length_arrives_whole(shared):
    line = "é 漢字 🎈 \u2028 \x1b[1m"
    assert "".join(shared.run_code(f"print({line!r}, end='')").logs.stdout) == line
    long = shared.run_code("for i in range(60_000): print('ü' * 40, i)")
    assert "".join(long.logs.stdout) == "".join(f"{'ü' * 40} {i}\n" for i in range(60_000))


@RUN
def test_variables_of_one_execution_are_gone_after_it(shared):
    value = "quo'te \"double\" $HOME \\ é\nline"
    code = "import os; print(os.environ.get('ONLY_NOW'), end='')"
    assert shared.run_code(code, envs={"ONLY_NOW": value}).logs.stdout == [value]
    assert shared.run_code(code).logs.stdout == ["None"]


@pytest.mark.covers("sandbox.run_code", needs=["sandbox.create"])
def test_a_variable_of_one_execution_covers_the_sandboxes_own(fresh):
    sandbox = fresh(envs={"LEVEL": "sandbox"})
    code = "import os; os.environ['LEVEL']"
    texts = [sandbox.run_code(code, envs=envs).text for envs in ({}, {"LEVEL": "run"}, {})]
    assert texts == ["sandbox", "run", "sandbox"]


@RUN
def test_a_timeout_interrupts_the_code_and_keeps_its_variables(shared):
    shared.run_code("before = 'kept'")
    begin = time.monotonic()
    with pytest.raises(TimeoutException):
        shared.run_code("import time\nwhile True: time.sleep(.1)", timeout=1)
    assert time.monotonic() - begin < 20
    assert shared.run_code("before", timeout=30).text == "kept"


@RUN
def test_a_client_that_hangs_up_interrupts_its_code(shared):
    seen = []

    class HangUp(Exception):
        pass

    def leave(message):
        seen.append(message.line)
        raise HangUp

    with pytest.raises(HangUp):
        shared.run_code("import time\nprint('on\\n', end='', flush=True)\nfor i in range(600): time.sleep(.1)\nunreached = 1", on_stdout=leave)
    assert seen == ["on\n"]
    begin = time.monotonic()
    assert shared.run_code("'unreached' in globals()", timeout=30).text == "False"
    assert time.monotonic() - begin < 30


@pytest.mark.covers("sandbox.kill", "sandbox.run_code", needs=["sandbox.is_running"])
def test_a_kill_during_a_run_is_no_success(sandbox):
    begin = time.monotonic()
    with pytest.raises(Exception) as raised:
        sandbox.run_code("import time; print(1, flush=True); time.sleep(60)", on_stdout=lambda _: sandbox.kill())
    assert time.monotonic() - begin < 50
    if sdk.has("sandbox.pause"):
        assert isinstance(raised.value, TimeoutException) and "killed" in str(raised.value)


@RUN
def test_a_long_silence_is_no_failure(shared):
    assert shared.run_code("import time; time.sleep(7); 'awake'").text == "awake"


@RUN
def test_one_context_runs_one_thing_at_a_time(shared):
    def run(name):
        shared.run_code(f"import time\norder = globals().setdefault('order', [])\norder.append('{name}+'); time.sleep(.5); order.append('{name}-')")

    threads = [threading.Thread(target=run, args=(name,)) for name in "ab"]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert shared.run_code("''.join(order)").text in ("a+a-b+b-", "b+b-a+a-")


@RUN
@pytest.mark.parametrize(
    ("language", "code", "stdout", "text"),
    [
        ("python", "print('hi')\n'a' + 'b'", "hi\n", "ab"),
        ("js", "console.log('hi');\n[1, 2].map(x => x * 2)", "hi\n", "[ 2, 4 ]"),
        ("javascript", "const late = await Promise.resolve(7); console.log('hi')\nlate", "hi\n", "7"),
        ("ts", "enum Color { Red = 3 }\nconst c: Color = Color.Red\nconsole.log('hi')\nc", "hi\n", "3"),
        ("typescript", "interface P { x: number }\nconst p: P = { x: 1 }\nconsole.log('hi')\np.x + 1", "hi\n", "2"),
        ("r", "cat('hi\\n')\nx <- c(1, 2)\nsum(x)", "hi\n", "[1] 3"),
        ("java", "System.out.println(\"hi\");\nvar x = 20;\nx + 1", "hi\n", "21"),
    ],
)
def test_every_language_prints_and_has_a_value(shared, language, code, stdout, text):
    execution = shared.run_code(code, language=language)
    assert execution.error is None
    assert "".join(execution.logs.stdout) == stdout
    # R displays its values; none of them is the main result.
    assert (execution.results[0].text if language == "r" else execution.text) == text


@RUN
@pytest.mark.parametrize(
    ("language", "set", "get", "text"),
    [
        ("js", "let kept = 5", "kept + 1", "6"),
        ("ts", "let kept: number = 5", "kept + 1", "6"),
        ("r", "kept <- 5", "kept + 1", "[1] 6"),
        ("java", "int kept = 5;", "kept + 1", "6"),
    ],
)
def test_every_language_keeps_its_variables(shared, language, set, get, text):
    shared.run_code(set, language=language)
    assert shared.run_code(get, language=language).results[0].text == text


@RUN
@pytest.mark.parametrize(
    ("language", "code", "word"),
    [
        ("js", "throw new RangeError('wide')", "wide"),
        ("ts", "throw new RangeError('wide')", "wide"),
        ("r", "stop('wide')", "wide"),
        ("java", "throw new IllegalStateException(\"wide\");", "wide"),
    ],
)
def test_every_language_reports_its_errors(shared, language, code, word):
    error = shared.run_code(code, language=language).error
    assert error.name and word in error.value


@RUN
@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("js", "process.env.ONLY_NOW"),
        ("ts", "process.env.ONLY_NOW"),
        ("r", "cat(Sys.getenv('ONLY_NOW'))"),
        ("java", "System.getProperty(\"ONLY_NOW\")"),
    ],
)
def test_every_language_sees_the_variables_of_an_execution(shared, language, code):
    execution = shared.run_code(code, language=language, envs={"ONLY_NOW": "it's me"})
    assert "it's me" in "".join(execution.logs.stdout) + "".join(str(result.text) for result in execution.results)


@RUN
def test_an_unknown_language_is_named(shared):
    with pytest.raises(SandboxException, match="500.*nolang"):
        shared.run_code("1", language="nolang")


@RUN
def test_a_plot_is_a_picture(shared):
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 2, 3], [4, 5, 6], label='L')\nplt.title('T')\nplt.show()"
    results = [result for result in shared.run_code(code).results if result.png]
    assert len(results) == 1
    assert base64.b64decode(results[0].png).startswith(b"\x89PNG\r\n\x1a\n")
    assert "png" in results[0].formats()


@RUN
def test_a_table_comes_as_html_and_as_text(shared):
    result = shared.run_code("import pandas as pd\npd.DataFrame({'a': [1, 2], 'b': ['x', 'y']})").results[0]
    assert result.is_main_result and "<table" in result.html and "0  1  x" in result.text


@RUN
def test_every_kind_of_display_arrives(shared):
    code = """
from IPython.display import HTML, JSON, Latex, Markdown, SVG, Javascript
display(HTML("<b>é</b>"), Markdown("# T"), Latex("$x$"), SVG("<svg xmlns='http://www.w3.org/2000/svg'/>"), JSON({"a": [1]}), Javascript("1"))
"""
    results = shared.run_code(code).results
    assert [result.formats()[-1] for result in results] == ["html", "markdown", "latex", "svg", "json", "javascript"]
    assert results[0].html == "<b>é</b>" and results[4].json == {"a": [1]}


@RUN
def test_child_processes_print_too(shared):
    execution = shared.run_code("import subprocess\nsubprocess.run('echo out; echo err >&2', shell=True)")
    assert (execution.logs.stdout, execution.logs.stderr) == (["out\n"], ["err\n"])
    assert "".join(shared.run_code("!echo shell").logs.stdout).strip() == "shell"


@RUN
def test_the_end_of_an_interpreter_is_reported_and_the_next_one_starts(sandbox):
    error = sandbox.run_code("import os; os._exit(3)").error
    assert error is not None
    assert sandbox.run_code("1 + 1").text == "2"
