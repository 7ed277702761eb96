"""agentflow: nothing to switch on but a tracer provider."""

import asyncio

from opentelemetry.sdk.trace import TracerProvider

from agentflow import (
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Retry,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from agentflow_agents import FunctionAgent
from agentflow_llm import OpenAI
from scenery import ABSENT, QUESTION, WAIT, Failing, Scripted, north, south, work

PACKAGES = ["agentflow-otel"]


def instrument(provider: TracerProvider) -> None:
    """The global provider is found."""


class Flaky(Workflow):
    def __init__(self) -> None:
        super().__init__()
        self.ask = Failing()

    @step(retry_policy=Retry(attempts=3, wait=WAIT))
    async def flaky(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=self.ask())


async def step_retry() -> None:
    await Flaky().run()


def model(refusals: int = 0, tools: tuple[str, ...] = ()) -> OpenAI:
    return OpenAI("gpt-4o", client=Scripted(refusals, tools=tools).client())


async def model_retry() -> None:
    await FunctionAgent(llm=model(2)).run(QUESTION)


async def tools() -> None:
    await FunctionAgent(llm=model(tools=("north", "south")), tools=[north, south]).run(QUESTION)


class Piece(Event):
    number: int


class Done(Event):
    number: int


class Joining(Workflow):
    @step
    async def begin(self, ev: StartEvent) -> list[Piece]:
        return [Piece(number=number) for number in range(3)]

    @step(num_workers=2)
    async def piece(self, ev: Piece) -> Done:
        return Done(number=await work(ev.number))

    @step
    async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
        done = ctx.collect_events(ev, {Done: 3})
        return None if done is None else StopEvent(result=len(done))


async def fan_in() -> None:
    await Joining().run()


class Sleeping(Workflow):
    @step
    async def sleep(self, ev: StartEvent) -> StopEvent:
        await asyncio.sleep(60)
        return StopEvent()


async def cancel() -> None:
    handler = Sleeping().run()
    await asyncio.sleep(0.03)
    await handler.cancel_run()
    await asyncio.gather(handler, return_exceptions=True)


class Asking(Workflow):
    @step
    async def ask(self, ev: StartEvent) -> InputRequiredEvent:
        return InputRequiredEvent(prefix="Go on?")

    @step
    async def answer(self, ev: HumanResponseEvent) -> StopEvent:
        return StopEvent(result=ev.response)


async def pause() -> None:
    workflow = Asking()
    handler = workflow.run()
    async for event in handler.stream_events():
        if isinstance(event, InputRequiredEvent):
            break
    stored = handler.put_away()
    await asyncio.sleep(ABSENT)
    handler = workflow.run(ctx=Context.from_dict(workflow, stored))
    handler.ctx.send_event(HumanResponseEvent(response="yes"))
    await handler
