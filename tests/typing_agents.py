"""What users of agents write, typed: read by mypy and pyright, both strict (`make check`), and run by test_agent."""

from __future__ import annotations

from typing import assert_type

from pydantic import BaseModel

from agentflow import Context, Event, Handler, step
from agentflow_agents import AgentResult, AgentState, Budget, Finished, FunctionAgent, ToolCall, tool
from agentflow_agents.resources import Model, Remembered
from agentflow_llm import ChatMessage, ScriptedModel


class City(BaseModel):
    name: str


@tool(timeout=5)
async def population(city: str, *, year: int = 2026) -> int:
    """How many people live in a city."""
    return len(city) * year


class Checked(Event):
    result: AgentResult


class Careful(FunctionAgent):
    """With a step more."""

    @step
    async def answer(self, ctx: Context[AgentState], ev: Finished, llm: Model, memory: Remembered) -> Checked:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride] because it returns another event
        return Checked(result=await super().answer(ctx, ev, llm, memory))

    @step
    async def check(self, ev: Checked) -> AgentResult:
        return ev.result.model_copy(update={"output": str(ev.result).upper()})


async def use() -> None:
    """Calls of every kind."""
    agent = FunctionAgent(tools=[population], llm=ScriptedModel(["Graz", "Graz"]), budget=Budget(turns=3))
    handler = agent.run("Where?", history=[ChatMessage(role="user", content="Hello")])
    _ = assert_type(handler, Handler[AgentResult])
    result = await handler
    assert_type(result.output, str | None)
    assert_type(str(result), str)
    assert_type(result.messages, list[ChatMessage])
    async for event in agent.run("Where?").stream_events():
        if isinstance(event, ToolCall):
            assert_type(event.arguments, str)

    structured = FunctionAgent(llm=ScriptedModel(['{"name": "Graz"}']), output=City)
    assert_type(structured, FunctionAgent[City])
    city = (await structured.run("Where?")).output
    assert_type(city, City | None)
    assert city == City(name="Graz")

    assert_type(await Careful(llm=ScriptedModel(["x"])).run("?"), AgentResult)
    assert_type(await population("Graz"), int)


def use_sync() -> None:
    """In plain code."""
    assert_type(FunctionAgent(llm=ScriptedModel(["x"])).run_sync("?"), AgentResult)
