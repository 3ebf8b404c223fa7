"""The first programs that people try, each written as its own program without knowledge of the server."""

import base64
import contextlib
import io
import re
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from e2b_code_interpreter import Sandbox

import sdk


@pytest.fixture
def box():
    """The first line of every example. Up to 1.x it is `Sandbox()`."""
    sandbox = Sandbox.create() if sdk.number(sdk.CORE) >= (2,) else Sandbox()
    yield sandbox
    sdk.discard(sandbox)


@pytest.mark.covers("sandbox.run_code", "files.list")
def test_hello_world(box):
    execution = box.run_code("print('hello world')")
    assert "".join(execution.logs.stdout) == "hello world\n" and not execution.error
    assert isinstance(box.files.list("/home/user"), list)


@pytest.mark.covers("sandbox.create", "sandbox.run_code", "sandbox.kill")
def test_a_block_that_ends_its_sandbox():
    with (Sandbox.create() if sdk.number(sdk.CORE) >= (2,) else Sandbox()) as box:
        box.run_code("x = 1")
        assert box.run_code("x += 1; x").text == "2"
    assert box.is_running() is False


@pytest.mark.parametrize("page", ["README.md", "docs/e2b.md"])
@pytest.mark.covers("sandbox.run_code", needs=["sandbox.create"])
def test_the_example_of_a_page_prints_what_the_page_shows(page):
    text = (Path(__file__).parents[3] / page).read_text()
    (program, shown), = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL)
    if sdk.number(sdk.CORE) < (2,):
        program = program.replace("Sandbox.create()", "Sandbox()")
    printed, names = io.StringIO(), {}
    with contextlib.redirect_stdout(printed):
        exec(program, names)
    sdk.discard(names["sandbox"])
    assert printed.getvalue() == shown


@pytest.mark.covers("sandbox.run_code")
def test_streaming(box):
    out, err, results = [], [], []

    def hear(data):
        out.append(str(data.line))
        box.files.write("heard.txt", "".join(out))

    # If all output arrived at the end, the code would wait for ever.
    execution = box.run_code(
        "import os, sys, time\nprint(0, flush=True)\nwhile not os.path.exists('heard.txt'): time.sleep(.02)\n"
        "print(1)\nprint('oops', file=sys.stderr)\n'the value'",
        on_stdout=hear,
        on_stderr=lambda data: err.append(data.line),
        on_result=results.append,
        timeout=60,
    )
    assert "".join(out) == "0\n1\n" and "".join(err) == "oops\n"
    assert [result.text for result in results] == ["the value"] == [execution.text]


@pytest.mark.covers("sandbox.create_code_context", "sandbox.run_code")
def test_contexts(box):
    first = box.create_code_context(cwd="/home/user", language="python")
    second = box.create_code_context(cwd="/tmp", language="python")
    box.run_code("name = 'first'", context=first)
    box.run_code("name = 'second'", context=second)
    assert box.run_code("name", context=first).text == "first"
    assert box.run_code("import os; (name, os.getcwd())", context=second).text == "('second', '/tmp')"


@pytest.mark.covers("sandbox.run_code")
def test_a_chart_is_saved_as_a_picture(box, tmp_path):
    execution = box.run_code("import matplotlib.pyplot as plt\nplt.plot([1, 2, 3, 4])\nplt.ylabel('some numbers')\nplt.show()")
    first = execution.results[0]
    assert first.png
    (tmp_path / "chart.png").write_bytes(base64.b64decode(first.png))
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.covers("files.write", "files.read", "sandbox.run_code")
def test_a_data_set_is_uploaded_and_analysed(box, tmp_path):
    (tmp_path / "data.csv").write_text("city,people\nBern,134\nBasel,174\n")
    with open(tmp_path / "data.csv", "rb") as file:
        box.files.write("/home/user/data.csv", file)
    execution = box.run_code("import pandas as pd\npd.read_csv('/home/user/data.csv')['people'].sum()")
    assert execution.error is None and "308" in execution.text
    box.run_code("pd.DataFrame({'a': [1]}).to_csv('/home/user/out.csv', index=False)")
    assert box.files.read("/home/user/out.csv") == "a\n1\n"


@pytest.mark.covers("commands.run")
def test_commands(box):
    assert "data" in box.commands.run("mkdir -p data && ls -la").stdout
    seen = []
    box.commands.run("echo hello; sleep 1; echo world", on_stdout=seen.append)
    assert "".join(seen) == "hello\nworld\n"
    handle = box.commands.run("echo hello; sleep 1; echo world", background=True)
    assert handle.wait().exit_code == 0
    handle = box.commands.run("sleep 100", background=True)
    assert handle.kill() is True


@pytest.mark.covers("commands.run", needs=["sandbox.create"])
def test_environment_variables():
    options = {"envs": {"MY_VAR": "my_value"}}
    box = sdk.create(**options)
    assert box.run_code("import os; os.environ.get('MY_VAR')").text == "my_value"
    assert box.commands.run("echo $MY_VAR").stdout == "my_value\n"
    assert box.commands.run("echo $MY_VAR", envs={"MY_VAR": "this time"}).stdout == "this time\n"
    sdk.discard(box)


@pytest.mark.covers("sandbox.get_host", needs=["sandbox.create"])
def test_a_web_server_in_a_sandbox(box):
    if sdk.DEBUG:
        # In debug mode the SDK returns the machine itself, and not a sandbox.
        assert box.get_host(8000) == "localhost:8000"
        return
    box.files.write("index.html", "<h1>from inside</h1>")
    box.commands.run("python3 -m http.server 8000", background=True)
    url = f"https://{box.get_host(8000)}"
    end = time.monotonic() + 30
    while True:
        try:
            assert "from inside" in urllib.request.urlopen(url, timeout=10).read().decode()
            break
        except urllib.error.HTTPError as err:
            assert err.code == 502 and time.monotonic() < end, err
            time.sleep(0.2)


@pytest.mark.covers("sandbox.list", needs=["sandbox.create"])
def test_metadata_is_listed():
    box = sdk.create(metadata={"user_id": "uniqueID 1&2=é"})
    found = sdk.listed(metadata={"user_id": "uniqueID 1&2=é"})
    assert [info.sandbox_id.split("-")[0] for info in found] == [box.sandbox_id.split("-")[0]]
    assert found[0].metadata == {"user_id": "uniqueID 1&2=é"} and found[0].started_at
    sdk.discard(box)


@pytest.mark.covers("sandbox.set_timeout", "sandbox.get_info", "sandbox.connect")
def test_a_longer_life_and_a_second_client(box):
    before = box.get_info().end_at
    box.set_timeout(900)
    assert box.get_info().end_at > before
    box.run_code("left = 'here'")
    assert Sandbox.connect(box.sandbox_id).run_code("left").text == "here"


@pytest.mark.covers("sandbox.beta_pause", "sandbox.connect")
def test_pause_and_resume(box):
    box.files.write("kept.txt", "on disk")
    box.run_code("kept = 'in memory'")
    (box.pause if sdk.has("sandbox.pause") else box.beta_pause)()
    again = Sandbox.connect(box.sandbox_id)
    assert again.run_code("kept").text == "in memory"
    assert again.files.read("kept.txt") == "on disk"


@pytest.mark.covers("files.watch_dir", "files.make_dir")
def test_a_directory_is_watched(box):
    box.files.make_dir("my-dir")
    handle = box.files.watch_dir("my-dir")
    box.files.write("my-dir/my-file", "hello")
    assert ("write", "my-file") in [(event.type.value, event.name) for event in handle.get_new_events()]
