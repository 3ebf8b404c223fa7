"""What a program sees that uses the official Python client."""

import base64
import json
import urllib.request

import anyio
import pytest
from conftest import KEY, URL, WAY, connected

pytestmark = pytest.mark.anyio

FIGURE = """
import matplotlib.pyplot as plt
plt.plot([1, 2])
plt.show()
"""


async def test_the_tools_are_listed(client):
    tools = {tool["name"]: tool for tool in await client.tools()}
    assert list(tools) == ["run_code", "list_languages"]
    assert "python" in tools["run_code"]["inputSchema"]["properties"]["language"]["enum"]
    assert tools["list_languages"]["annotations"]["readOnlyHint"] is True


async def test_code_runs_and_its_result_is_structured(client):
    files = [{"path": "a.txt", "content": "1 2"}]
    result = await client.run("print(input()); open('a.txt').read()", stdin="in\n", files=files, timeout_ms=20000)
    structured = result["structuredContent"]
    assert json.loads(result["content"][0]["text"]) == structured
    assert structured["outcome"]["kind"] == "ok" and result["isError"] is False
    assert (structured["stdout"], structured["results"]) == ("in\n", ["'1 2'"])


async def test_failing_code_is_an_error_with_its_traceback(client):
    result = await client.run("1/0")
    assert result["isError"] is True
    assert result["structuredContent"]["exception"]["name"] == "ZeroDivisionError"


async def test_wrong_arguments_are_refused_by_name(client):
    for arguments, name in [({"env": {}}, "env"), ({"timeout_ms": 0}, "timeout_ms"), ({"language": "cobol"}, "language")]:
        result = await client.run("1", **arguments)
        assert result["isError"] is True and "structuredContent" not in result
        assert result["content"][0]["text"].startswith(f"{name}: ")


async def test_an_unknown_tool_is_an_error_of_the_protocol(client):
    with pytest.raises(Exception, match="run_code, list_languages"):
        await client.call("run", {})


async def test_the_languages_have_their_limits(client):
    result = await client.call("list_languages", {})
    languages = {language["name"]: language for language in result["structuredContent"]["languages"]}
    assert languages["python"]["limits"]["timeout_ms"] > 0


async def test_progress_has_the_last_line(client):
    shown = []

    async def progress(done, total, message):
        shown.append((done, total, message))

    code = "import time\nfor i in range(150): print('line', i, flush=True); time.sleep(0.01)"
    arguments = {"language": "python", "code": code, "timeout_ms": 20000}
    await client.call("run_code", arguments, progress=progress)
    assert shown and all(total == 20000 and message.startswith("line ") for _, total, message in shown)
    assert [done for done, _, _ in shown] == sorted({done for done, _, _ in shown})


async def test_calls_run_side_by_side(client):
    results = {}

    async def call(number):
        results[number] = await client.run(f"import time; time.sleep(0.2); {number}")

    async with anyio.create_task_group() as calls:
        for number in range(3):
            calls.start_soon(call, number)
    assert {number: result["structuredContent"]["results"] for number, result in results.items()} == {n: [str(n)] for n in range(3)}


async def test_long_output_is_cut_and_accepted(client):
    result = await client.run("print('a' * 100_000); 'b' * 100_000")
    structured = result["structuredContent"]
    assert structured["truncated"] is True
    assert all(20_000 <= len(text) < 20_100 for text in [structured["stdout"], structured["results"][0]])


async def test_figures_are_images(client):
    images = [block for block in (await client.run(FIGURE))["content"] if block["type"] == "image"]
    assert [image["mimeType"] for image in images] == ["image/png"]
    assert base64.b64decode(images[0]["data"]).startswith(b"\x89PNG")


@pytest.mark.on_stdio
async def test_the_images_can_be_left_out(anyio_backend):
    async with connected("--no-images") as client:
        result = await client.run(FIGURE)
        assert [block["type"] for block in result["content"]] in (["text"], ["text", "text"])
        assert "images: 1" in json.dumps(result)


async def until_running(count):
    """Waits until the server runs this much code."""
    request = urllib.request.Request(f"{URL}/v1/status", headers={"X-API-Key": KEY})
    status = lambda: json.load(urllib.request.urlopen(request))["running"]
    with anyio.fail_after(30):
        while await anyio.to_thread.run_sync(status) != count:
            await anyio.sleep(0.05)


async def endless(client):
    await client.run("import time\nwhile True: time.sleep(1)", timeout_ms=60000)


@pytest.mark.on_server
async def test_a_client_that_ends_ends_its_run(anyio_backend):
    with anyio.CancelScope() as scope:
        async with connected() as client, anyio.create_task_group() as calls:
            calls.start_soon(endless, client)
            await until_running(1)
            scope.cancel()
    await until_running(0)


@pytest.mark.on_server
@pytest.mark.cancels
async def test_a_call_that_is_cancelled_ends_its_run(client):
    async with anyio.create_task_group() as calls:
        calls.start_soon(endless, client)
        await until_running(1)
        calls.cancel_scope.cancel()
    await until_running(0)
    assert (await client.run("1"))["structuredContent"]["results"] == ["1"]


@pytest.mark.on_server
async def test_a_wrong_key_is_refused(anyio_backend):
    with pytest.raises(Exception) as refused:
        async with connected(key="wrong-key-1") as client:
            await client.tools()
    errors, texts = [refused.value], []
    while errors:
        error = errors.pop()
        texts.append(str(error))
        errors.extend(getattr(error, "exceptions", []))
    assert any("401" in text or "API key" in text for text in texts), texts
