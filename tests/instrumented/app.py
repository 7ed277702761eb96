"""A service that knows nothing of telemetry: `opentelemetry-instrument python app.py`."""

import asyncio

from agentflow_agents import FunctionAgent, tool
from agentflow_llm.messages import ToolCallPart
from agentflow_llm.openai import OpenAI
from agentflow_llm.server import LoopbackServer


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def main() -> None:
    """Ask an agent that calls its tool."""
    call = ToolCallPart(id="call-1", name="add", arguments='{"a": 2, "b": 3}')
    with LoopbackServer([call, "It is 5."]) as server:
        model = OpenAI("gpt-4o-mini", api_key="none", base_url=server.base_url)
        agent = FunctionAgent(name="clerk", tools=[add], llm=model)
        print(await agent.run("What is 2 + 3?"))  # noqa: T201 because the test reads it
        await model.aclose()


asyncio.run(main())
