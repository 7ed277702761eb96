"""pydantic-ai with `Agent.instrument_all()`. It retries nothing itself but what a tool asks for, and joins nothing."""

import asyncio

from opentelemetry.sdk.trace import TracerProvider
from pydantic_ai import Agent, DeferredToolRequests, DeferredToolResults
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from scenery import ABSENT, QUESTION, Scripted, cancelled, north, south

PACKAGES = ["pydantic-ai-slim"]


def instrument(provider: TracerProvider) -> None:
    Agent.instrument_all()


def model(refusals: int = 0, tools: tuple[str, ...] = ()) -> OpenAIChatModel:
    client = Scripted(refusals, tools=tools).client().with_options(max_retries=2)
    return OpenAIChatModel("gpt-4o", provider=OpenAIProvider(openai_client=client))


async def model_retry() -> None:
    await Agent(model(2)).run(QUESTION)


async def tools() -> None:
    await Agent(model(tools=("north", "south")), tools=[north, south]).run(QUESTION)


async def cancel() -> None:
    async def sleep() -> str:
        await asyncio.sleep(60)
        return ""

    await cancelled(Agent(model(tools=("sleep",)), tools=[sleep]).run(QUESTION))


async def pause() -> None:
    agent = Agent(model(tools=("north",)), output_type=[str, DeferredToolRequests])
    agent.tool_plain(requires_approval=True)(north)
    asked = await agent.run(QUESTION)
    await asyncio.sleep(ABSENT)
    approved = DeferredToolResults(approvals={call.tool_call_id: True for call in asked.output.approvals})
    await agent.run(message_history=asked.all_messages(), deferred_tool_results=approved)
