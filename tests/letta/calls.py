"""Repeats the calls of Letta 0.7 to 0.11.5, whose own packages cannot be installed beside these clients any more."""

import base64
import json
import os
import pickle
import uuid

from e2b.sandbox.commands.command_handle import CommandExitException
from e2b_code_interpreter import AsyncSandbox

from tool_result import ToolResult


async def run_code(code, language="python", tools=()):
    assert not tools, "these versions do not send the source of tools"
    sandbox = await AsyncSandbox.create(api_key=os.environ["E2B_API_KEY"])
    options = {} if language == "python" else {"language": language}
    execution = await sandbox.run_code(code=code, **options)
    answer = {
        "results": [result.text for result in execution.results],
        "logs": {"stdout": execution.logs.stdout, "stderr": execution.logs.stderr},
    }
    if execution.error is not None:
        answer["error"] = execution.error
    try:
        return ToolResult(True, json.dumps(answer, ensure_ascii=False))
    except TypeError as err:
        return ToolResult(False, f"Error executing function run_code: TypeError: {err}")


# The arguments, the tool's source and its call. The last expression is the pickled result.
SCRIPT = """from typing import *
import pickle
import sys
import base64
import struct
import hashlib
{arguments}
{source}
_function_result = {name}({names})
try:
    from pydantic import BaseModel, ConfigDict
    class _Wrapper(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        result: Any
    _serialized = _Wrapper(result=_function_result).model_dump()['result']
except ImportError:
    print("Pydantic not available")
    _serialized = str(_function_result)
_result = {{"results": _serialized, "agent_state": None}}
_result_pkl = pickle.dumps(_result)
base64.b64encode(_result_pkl).decode('utf-8')
"""


async def call(name, source, arguments, types, pip=()):
    """Calls a custom tool."""
    sandbox = await AsyncSandbox.create(metadata={"config_state": uuid.uuid4().hex}, timeout=300, template=None)
    try:
        for package in pip:
            try:
                await sandbox.commands.run(f"pip install {package}")
            except CommandExitException as err:
                return ToolResult(False, f"Failed to install tool pip requirement '{package}': {err}")
        given = "\n".join(f"{key} = {value!r}" for key, value in arguments.items())
        names = ", ".join(f"{key}={key}" for key in arguments)
        envs = {"OWN": "1", "LETTA_TOOL_ID": "tool-1"}
        execution = await sandbox.run_code(SCRIPT.format(arguments=given, source=source, name=name, names=names), envs=envs)
    finally:
        # Since Letta 0.9.1. In debug mode `kill` makes no call.
        await sandbox.kill()
    stdout, stderr = execution.logs.stdout, execution.logs.stderr
    if execution.results:
        return ToolResult(True, pickle.loads(base64.b64decode(execution.results[0].text))["results"], stdout, stderr)
    assert execution.error, "Letta says that the tool returned None"
    return ToolResult(False, f"Error executing function {name}: {execution.error.name}: {execution.error.value}", stdout, stderr + [execution.error.traceback])


def use(key=None, template=None):
    assert template is None, "run_code of these versions ignores the template"
    os.environ["E2B_API_KEY"] = key
