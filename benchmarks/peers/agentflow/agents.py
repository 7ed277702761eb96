"""The prebuilt agent."""

import os

from agentflow_agents import Budget, FunctionAgent, TextDelta
from agentflow_llm import OpenAI
from peers import Conversing, Pause, Streaming, Text, Tick
from server import MODEL
from stub import QUESTION, SYSTEM, Endpoint

SPANS = {"invoke_agent": 1, "step": 6, "event": 6, "chat": 2, "execute_tool": 1}


def adder(endpoint: Endpoint, add: object) -> FunctionAgent:
    llm = OpenAI(MODEL, client=endpoint.client())
    return FunctionAgent(tools=[add], llm=llm, system_prompt=SYSTEM, budget=Budget(turns=endpoint.turns + 1))


def asking(asked: FunctionAgent) -> Text:
    async def run() -> str:
        return str(await asked.run(QUESTION))

    return run


def agent(endpoint: Endpoint) -> Text:
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    return asking(adder(endpoint, add))


agent_traced = agent
agent_spanned = agent


def agent_meeting(endpoint: Endpoint, meet: Pause) -> Text:
    async def add(a: int, b: int) -> int:
        """Add two numbers."""
        await meet()
        return a + b

    return asking(adder(endpoint, add))


def agent_ticking(endpoint: Endpoint, tick: Tick) -> Conversing:
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        tick()
        return a + b

    asked = adder(endpoint, add)

    async def run() -> tuple[str, object]:
        result = await asked.run(QUESTION)
        return str(result), result.messages

    return run


def agent_told(endpoint: Endpoint, tick: Tick) -> Conversing:
    os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = "span_only"
    return agent_ticking(endpoint, tick)


def agent_streamed(endpoint: Endpoint) -> Streaming:
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    asked = adder(endpoint, add)

    async def run() -> tuple[str, int]:
        handler = asked.run(QUESTION)
        pieces = [event.text async for event in handler.stream_events() if isinstance(event, TextDelta)]
        await handler
        return "".join(pieces), len(pieces)

    return run
