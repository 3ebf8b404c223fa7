"""Prints the result line that `scripts/test` adds up, and connects clients of either line of the package `mcp`."""

import contextlib
import importlib.metadata
import os
from datetime import timedelta

import pytest

LINE = int(importlib.metadata.version("mcp").split(".")[0])
# `http`, or standard input and output of `oncebox mcp`: `bridge` in front of the server, `own` with sandboxes of its own.
WAY = os.environ["MCP_WAY"]
URL, KEY = os.environ["MCP_URL"], os.environ["MCP_KEY"]
# How a client of the newer line opens a connection.
MODE = os.environ["MCP_MODE"]
LEFT_OUT = []


def pytest_configure(config):
    config.addinivalue_line("markers", "on_server: needs the server behind the client")
    config.addinivalue_line("markers", "on_stdio: needs `oncebox mcp`")
    config.addinivalue_line("markers", "cancels: needs a client whose cancelled call reaches the server")


def fits(item):
    has = lambda mark: item.get_closest_marker(mark) is not None
    # Without sessions, a server does not know which request an older client means when it cancels one by a message of its
    # own. The older line of the package sends none.
    cancels = LINE > 1 and (MODE == "auto" or WAY != "http")
    return not (has("on_server") and WAY == "own" or has("on_stdio") and WAY == "http" or has("cancels") and not cancels)


def pytest_collection_modifyitems(config, items):
    LEFT_OUT.extend(item for item in items if not fits(item))
    config.hook.pytest_deselected(items=list(LEFT_OUT))
    items[:] = filter(fits, items)


def pytest_terminal_summary(terminalreporter, exitstatus):
    count = lambda outcome: len(terminalreporter.stats.get(outcome, []))
    # A test that skips itself was not run, and counts as failed.
    failed = count("failed") + count("error") + count("skipped")
    failed += int(failed == 0 and exitstatus != 0)
    word = "ok" if failed == 0 else "FAILED"
    terminalreporter.write_line(f"test result: {word}. {count('passed')} passed; {failed} failed; {len(LEFT_OUT)} do not apply")


@pytest.fixture
def anyio_backend():
    return "asyncio"


class Client:
    """A client whose results are the JSON that the server has sent."""

    def __init__(self, client):
        self.client = client

    async def tools(self):
        return [shape(tool) for tool in (await self.client.list_tools()).tools]

    async def call(self, tool, arguments, timeout_s=60, progress=None):
        timeout = timedelta(seconds=timeout_s) if LINE == 1 else timeout_s
        return shape(await self.client.call_tool(tool, arguments, timeout, progress))

    async def run(self, code, **arguments):
        return await self.call("run_code", {"language": "python", "code": code, **arguments})


def shape(result):
    return result.model_dump(by_alias=True, exclude_none=True, mode="json")


@contextlib.asynccontextmanager
async def connected(*arguments, key=KEY):
    async with contextlib.AsyncExitStack() as stack:
        if LINE == 1:
            from mcp import ClientSession

            streams = await stack.enter_async_context(transport(arguments, key))
            session = await stack.enter_async_context(ClientSession(streams[0], streams[1]))
            await session.initialize()
            yield Client(session)
        else:
            import mcp

            yield Client(await stack.enter_async_context(mcp.Client(transport(arguments, key), mode=MODE)))


def transport(arguments, key):
    if WAY != "http":
        from mcp import StdioServerParameters
        from mcp.client.stdio import stdio_client

        url = {"ONCEBOX_URL": URL, "ONCEBOX_API_KEY": key} if WAY == "bridge" else {}
        variables = {name: value for name, value in os.environ.items() if name not in ("ONCEBOX_URL", "ONCEBOX_API_KEY")}
        program = os.environ["MCP_PROGRAM"]
        return stdio_client(StdioServerParameters(command=program, args=["mcp", *arguments], env={**variables, **url}))
    headers = {"X-API-Key": key}
    if LINE == 1:
        from mcp.client.streamable_http import streamablehttp_client

        return streamablehttp_client(f"{URL}/mcp", headers=headers)
    import httpx2
    from mcp.client.streamable_http import streamable_http_client

    return streamable_http_client(f"{URL}/mcp", http_client=httpx2.AsyncClient(headers=headers, timeout=120))


@pytest.fixture
async def client(anyio_backend):
    async with connected() as client:
        yield client
