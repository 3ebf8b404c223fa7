"""`methods.json` says the truth: a method is left out because this version does not have it, and for no other reason."""

import inspect

import pytest
from e2b.sandbox_sync.commands.command import Commands
from e2b.sandbox_sync.commands.pty import Pty
from e2b.sandbox_sync.filesystem.filesystem import Filesystem
from e2b_code_interpreter import Sandbox

import sdk

# Rows of other parts are about values, not methods.
PARTS = {"sandbox": Sandbox, "files": Filesystem, "commands": Commands, "pty": Pty}
# Rows in parentheses are about one option.
METHODS = [name for name in sdk.METHODS if name.split(".")[0] in PARTS and "(" not in name]


def test_the_table_names_exactly_the_methods_of_this_version():
    def public(part):
        return {name for name in dir(part) if not name.startswith("_") and callable(inspect.getattr_static(part, name, None))
                or name in ("create", "connect", "kill", "list") and hasattr(part, name)}

    there = {f"{name}.{method}" for name, part in PARTS.items() for method in public(part)}
    # A property of the class, or a class that is one of its members.
    there |= {name for name in METHODS if hasattr(PARTS[name.split(".")[0]], name.split(".")[1])}
    if sdk.number(sdk.CORE) < (2,):
        there.add("sandbox.create")
    assert there == {name for name in METHODS if sdk.has(name)}


@pytest.mark.covers("sandbox.create")
def test_what_is_not_offered_is_refused_with_its_name(sandbox):
    calls = {
        "sandbox.create_snapshot": lambda: sandbox.create_snapshot(),
        "sandbox.list_snapshots": lambda: sandbox.list_snapshots().next_items(),
        "sandbox.delete_snapshot": lambda: Sandbox.delete_snapshot("nothing"),
        "sandbox.fork": lambda: sandbox.fork(),
        "sandbox.get_mcp_token": lambda: sdk.create(template="code-interpreter-v1", mcp={"time": {}}),
    }
    refused = {name for name, row in sdk.METHODS.items() if row.get("refused") and "python" in row}
    assert refused == set(calls)
    for name in sorted(refused):
        if sdk.has(name):
            with pytest.raises(Exception, match="501.*is not offered here"):
                calls[name]()
