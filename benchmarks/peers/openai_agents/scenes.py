"""openai-agents with OpenInference's instrumentation. It retries nothing itself, and joins nothing."""

import asyncio

from openinference.instrumentation.openai_agents import OpenAIAgentsInstrumentor
from opentelemetry.sdk.trace import TracerProvider

from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool
from scenery import ABSENT, QUESTION, Scripted, cancelled, north, south

PACKAGES = ["openai-agents", "openinference-instrumentation-openai-agents"]


def instrument(provider: TracerProvider) -> None:
    OpenAIAgentsInstrumentor().instrument(tracer_provider=provider)


def agent(refusals: int = 0, asks: tuple[str, ...] = (), tools: list[object] | None = None) -> Agent:
    client = Scripted(refusals, tools=asks).client().with_options(max_retries=2)
    return Agent(
        name="guide", model=OpenAIChatCompletionsModel(model="gpt-4o", openai_client=client), tools=tools or []
    )


async def model_retry() -> None:
    await Runner.run(agent(2), QUESTION)


async def tools() -> None:
    await Runner.run(agent(0, ("north", "south"), [function_tool(north), function_tool(south)]), QUESTION)


async def cancel() -> None:
    async def sleep() -> str:
        await asyncio.sleep(60)
        return ""

    await cancelled(Runner.run(agent(0, ("sleep",), [function_tool(sleep)]), QUESTION))


async def pause() -> None:
    guide = agent(0, ("north",), [function_tool(north, needs_approval=True)])
    asked = await Runner.run(guide, QUESTION)
    state = asked.to_state()
    await asyncio.sleep(ABSENT)
    state.approve(asked.interruptions[0])
    await Runner.run(guide, state)
