"""`methods.json` is correct: a method is only skipped because this version does not have it."""

import asyncio
import importlib
import inspect
import re
from pathlib import Path
from uuid import uuid4

import pytest
from e2b import SandboxException
from e2b_code_interpreter import AsyncSandbox, Sandbox

import sdk


def parts(face):
    """The classes of a sandbox's parts, and of the objects that its methods return."""

    def member(module, sync, async_=None):
        try:
            return getattr(importlib.import_module(f"e2b.sandbox_{face}.{module}"), sync if face == "sync" else async_ or sync)
        except ModuleNotFoundError:
            return None

    found = {
        "sandbox": Sandbox if face == "sync" else AsyncSandbox,
        "files": member("filesystem.filesystem", "Filesystem"),
        "commands": member("commands.command", "Commands"),
        "pty": member("commands.pty", "Pty"),
        "git": member("git", "Git"),
        "handle": member("commands.command_handle", "CommandHandle", "AsyncCommandHandle"),
        "watch": member("filesystem.watch_handle", "WatchHandle", "AsyncWatchHandle"),
        "paginator": member("paginator", "SandboxPaginator", "AsyncSandboxPaginator"),
    }
    return {name: part for name, part in found.items() if part}


def methods(part):
    members = {name: getattr(part, name) for name in dir(part) if not name.startswith("_")}
    return {name for name, member in members.items() if callable(member) and not inspect.isclass(member)}


@pytest.mark.parametrize("face", ["sync", "async"])
def test_the_table_names_exactly_the_methods_of_this_version(face):
    found = parts(face)
    there = {f"{name}.{method}" for name, part in found.items() for method in methods(part)}
    if sdk.number(sdk.CORE) < (2,):
        # Here the constructor creates the sandbox.
        there.add("sandbox.create")
    # Rows in parentheses are about one option.
    rows = {name for name, row in sdk.METHODS.items() if sdk.has(name) and face in row.get("faces", [face]) and "(" not in name}
    every = {*found, "git", "paginator"}
    assert there == {name for name in rows if name.split(".")[0] in every}


# The models of the SDK's requests, by the names that docs/e2b.md gives the requests.
MODELS = {
    "creation": ["NewSandbox", "NewSandboxV2"],
    "connect": ["ConnectSandbox", "ConnectSandboxV2"],
    "resume": ["ResumedSandbox"],
    "pause": ["SandboxPauseRequest"],
    "timeout": ["SandboxTimeoutRequest", "PostSandboxesSandboxIDTimeoutBody"],
    "refreshes": ["SandboxRefreshRequest", "PostSandboxesSandboxIDRefreshesBody"],
    "network": ["SandboxNetworkUpdateConfig"],
    "snapshots": ["SandboxSnapshotRequest"],
    "fork": ["SandboxForkRequest"],
}


def members(name):
    """The members of a model, as they are sent; none if this version does not have it."""
    model = getattr(importlib.import_module("e2b.api.client.models"), name, None)
    return set(re.findall(r'\bd\.pop\(\s*"(\w+)"', inspect.getsource(model.from_dict))) if model else set()


def test_the_page_lists_every_member_that_this_version_sends():
    page = (Path(__file__).parents[3] / "docs" / "e2b.md").read_text()
    rows = re.findall(r"^\| (\w+) \| (`[^|]*) \| [^|]+ \|$", page.split("| request | members | here |")[1], re.MULTILINE)
    listed = {(request, member) for request, cell in rows for member in re.findall("`([^`]+)`", cell)}
    sent = {(request, member) for request, models in MODELS.items() for model in models for member in members(model)}
    # The page lists the members of this one by themselves.
    sent -= {("creation", "network")}
    sent |= {("creation", f"network.{member}") for member in members("SandboxNetworkConfig")}
    assert len(sent) > 5
    assert sent <= listed, sent - listed


OUTSIDE = {
    "template.build": lambda template, volume, secret: template.build(template().from_image("debian:13"), "mine"),
    "volume.create": lambda template, volume, secret: volume.create("mine"),
    "volume.list": lambda template, volume, secret: volume.list(),
    "secret.create": lambda template, volume, secret: secret.create("mine", "value"),
    "secret.list": lambda template, volume, secret: secret.list().next_items(),
}
CALLS = {
    "sandbox.create_snapshot": lambda sandbox: sandbox.create_snapshot(),
    "sandbox.list_snapshots": lambda sandbox: sandbox.list_snapshots().next_items(),
    "sandbox.delete_snapshot": lambda sandbox: type(sandbox).delete_snapshot("nothing"),
    "sandbox.fork": lambda sandbox: sandbox.fork(),
    "sandbox.get_mcp_token": lambda sandbox: type(sandbox).create(template="code-interpreter-v1", mcp={"time": {}}),
}


def test_every_refusal_is_tried():
    assert {name for name, row in sdk.METHODS.items() if row.get("refused") and "python" in row} == {*OUTSIDE, *CALLS}


@pytest.mark.refuses(*CALLS)
def test_what_is_not_offered_is_refused_with_its_name(sandbox):
    for name in filter(sdk.has, CALLS):
        with pytest.raises(Exception, match="501.*is not offered here"):
            CALLS[name](sandbox)


@pytest.mark.refuses(*CALLS)
@pytest.mark.asynchronous
def test_what_is_not_offered_is_refused_asynchronously():
    async def whole():
        sandbox = await AsyncSandbox.create(timeout=sdk.LIFE)
        for name in filter(sdk.has, CALLS):
            with pytest.raises(Exception, match="501.*is not offered here"):
                await CALLS[name](sandbox)
        sdk.discard(sandbox)

    asyncio.run(whole())


@pytest.mark.refuses("sandbox.get_mcp_token")
@pytest.mark.parametrize("template", [None, "code-interpreter-v1"])
@pytest.mark.parametrize("face", [pytest.param("sync"), pytest.param("async", marks=pytest.mark.asynchronous)])
def test_a_gateway_that_is_not_there_leaves_no_sandbox(face, template):
    metadata = {"mark": uuid4().hex}
    # The words of the SDK itself.
    with pytest.raises(SandboxException, match="Failed to start MCP gateway"):
        if face == "sync":
            Sandbox.create(template, mcp={"time": {}}, metadata=metadata)
        else:
            asyncio.run(AsyncSandbox.create(template, mcp={"time": {}}, metadata=metadata))
    assert sdk.listed(metadata=metadata) == []


@pytest.mark.refuses(*OUTSIDE)
def test_other_features_that_are_not_offered_are_refused_with_their_names():
    import e2b

    for name in filter(sdk.has, OUTSIDE):
        with pytest.raises(Exception, match="501.*is not offered here"):
            OUTSIDE[name](e2b.Template, e2b.Volume, e2b.Secret)


@pytest.mark.refuses(*OUTSIDE)
@pytest.mark.asynchronous
def test_other_features_that_are_not_offered_are_refused_asynchronously():
    import e2b

    async def whole():
        for name in filter(sdk.has, OUTSIDE):
            with pytest.raises(Exception, match="501.*is not offered here"):
                await OUTSIDE[name](e2b.AsyncTemplate, e2b.AsyncVolume, e2b.AsyncSecret)

    asyncio.run(whole())


@pytest.mark.covers("template.exists")
@pytest.mark.parametrize("face", [pytest.param("sync"), pytest.param("async", marks=pytest.mark.asynchronous)])
def test_a_template_exists_or_not(face):
    import e2b

    for name, there in (("code-interpreter-v1", True), ("no-such-template", False)):
        found = e2b.Template.exists(name) if face == "sync" else asyncio.run(e2b.AsyncTemplate.exists(name))
        assert found is there
