"""Calls the tool executors of Letta's own, unmodified package in this process, without its database."""

import os
from unittest import mock

from letta.schemas.agent import AgentState, AgentType
from letta.schemas.enums import SandboxType, ToolType
from letta.schemas.environment_variables import AgentEnvironmentVariable
from letta.schemas.llm_config import LLMConfig
from letta.schemas.memory import Memory
from letta.schemas.npm_requirement import NpmRequirement
from letta.schemas.pip_requirement import PipRequirement
from letta.schemas.sandbox_config import SandboxConfig
from letta.schemas.tool import Tool
from letta.schemas.user import User
from letta.services.sandbox_config_manager import SandboxConfigManager
from letta.services.tool_executor.tool_execution_manager import ToolExecutionManager
from letta.settings import tool_settings

from tool_result import ToolResult

ORGANIZATION = "org-00000000-0000-4000-8000-000000000000"
ACTOR = User(organization_id=ORGANIZATION, name="tester")
CONFIG = SandboxConfig(type=SandboxType.E2B, organization_id=ORGANIZATION, config={"timeout": 300})


async def execute(tool, arguments, agent=None):
    """Executes a tool as an agent's step does: the manager finds the executor, and turns failures into text."""
    manager = ToolExecutionManager(None, None, None, None, None, ACTOR, agent, sandbox_config=CONFIG, sandbox_env_vars={"OWN": "1"})
    with mock.patch.object(SandboxConfigManager, "get_sandbox_env_vars_as_dict_async", mock.AsyncMock(return_value={})):
        result = await manager.execute_tool_async(tool.name, arguments, tool)
    return ToolResult(result.status == "success", result.func_return, result.stdout or [], result.stderr or [])


def custom(name, source, **options):
    return Tool(name=name, tool_type=ToolType.CUSTOM, source_code=source, **options)


def schema(tool, types):
    properties = {key: {"type": kind} for key, kind in types.items()}
    return {"name": tool, "parameters": {"type": "object", "properties": properties, "required": [*properties]}}


def agent(tools, env):
    identity = "agent-00000000-0000-4000-8000-000000000000"
    return AgentState(
        id=identity,
        name="tester",
        agent_type=AgentType.letta_v1_agent,
        system="",
        llm_config=LLMConfig.default_config("gpt-4o-mini"),
        memory=Memory(blocks=[]),
        blocks=[],
        tools=[custom(name, source, json_schema=schema(name, {})) for name, source in tools],
        sources=[],
        tags=[],
        secrets=[AgentEnvironmentVariable(key=key, value=value, agent_id=identity) for key, value in env.items()],
    )


async def run_code(code, language="python", tools=()):
    tool = Tool(name="run_code", tool_type=ToolType.LETTA_BUILTIN)
    return await execute(tool, {"code": code, "language": language}, agent(tools, {}))


async def run_code_with_tools(code, tools=(), env=None):
    tool = Tool(name="run_code_with_tools", tool_type=ToolType.LETTA_BUILTIN)
    return await execute(tool, {"code": code}, agent(tools, env or {}))


async def call(name, source, arguments, types, language="python", pip=(), npm=()):
    """Calls a custom tool."""
    tool = custom(
        name,
        source,
        source_type=language,
        json_schema=schema(name, types),
        pip_requirements=[PipRequirement(name=package) for package in pip] or None,
        npm_requirements=[NpmRequirement(name=package) for package in npm] or None,
    )
    return await execute(tool, arguments)


def use(key=None, template=None):
    """Sets E2B_API_KEY and E2B_SANDBOX_TEMPLATE_ID, as an operator does."""
    tool_settings.e2b_api_key = os.environ["E2B_API_KEY"] = key
    tool_settings.e2b_sandbox_template_id = template
