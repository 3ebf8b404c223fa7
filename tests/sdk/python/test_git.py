"""A sandbox's `git`, which runs git's own commands in the sandbox. It pushes to a bare repository there."""

import asyncio
import inspect

import pytest
from e2b_code_interpreter import AsyncSandbox

import sdk

GIT = pytest.mark.covers(*(name for name in sdk.METHODS if name.startswith("git.")))


async def whole(sandbox):
    """Calls every method once, with either API."""

    async def git(method, *arguments, **options):
        result = getattr(sandbox.git, method)(*arguments, **options)
        return await result if inspect.isawaitable(result) else result

    async def write(path, text):
        result = sandbox.files.write(path, text)
        return await result if inspect.isawaitable(result) else result

    await git("configure_user", "Ada", "ada@example.org")
    assert await git("get_config", "user.name") == "Ada"
    await git("init", "/tmp/bare", bare=True, initial_branch="main")
    await git("init", "work", initial_branch="main")
    await git("set_config", "pull.rebase", "false", scope="local", path="work")
    await git("remote_add", "work", "origin", "/tmp/bare")
    assert await git("remote_get", "work", "origin") == "/tmp/bare"

    await write("work/a.txt", "one\n")
    assert (await git("status", "work")).has_untracked
    await git("add", "work")
    assert (await git("status", "work")).has_staged
    await git("commit", "work", "First, with \"quotes\" and 'é'")
    assert (await git("status", "work")).is_clean
    await git("push", "work", remote="origin", branch="main")

    await git("create_branch", "work", "side")
    assert (await git("branches", "work")).current_branch == "side"
    await git("checkout_branch", "work", "main")
    await git("delete_branch", "work", "side")
    assert (await git("branches", "work")).branches == ["main"]

    await write("work/a.txt", "spoilt\n")
    await git("restore", "work", paths=["a.txt"])
    await write("work/b.txt", "new\n")
    await git("add", "work", files=["b.txt"])
    await git("reset", "work")
    assert not (await git("status", "work")).has_staged

    await git("clone", "/tmp/bare", path="copy")
    await write("copy/c.txt", "from the copy\n")
    await git("add", "copy")
    await git("commit", "copy", "Second", author_name="Grace", author_email="grace@example.org")
    await git("push", "copy")
    await git("pull", "work", remote="origin", branch="main")
    assert (await git("status", "work")).current_branch == "main"
    await git("dangerously_authenticate", "ada", "secret", host="git.example.org")


@GIT
def test_a_repository_is_made_changed_and_shared(sandbox):
    asyncio.run(whole(sandbox))
    assert sandbox.files.read("work/c.txt") == "from the copy\n"
    assert sandbox.files.read("work/a.txt") == "one\n"
    assert "ada:secret@git.example.org" in sandbox.files.read(".git-credentials")


@GIT
@pytest.mark.asynchronous
def test_a_repository_is_made_changed_and_shared_asynchronously():
    async def run():
        if sdk.WAY == "shared":
            sdk.discard(None)
        sandbox = await AsyncSandbox.create(timeout=sdk.LIFE)
        try:
            await whole(sandbox)
            assert await sandbox.files.read("work/c.txt") == "from the copy\n"
        finally:
            sdk.discard(sandbox)

    asyncio.run(run())
