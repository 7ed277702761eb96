"""llama-index-workflows with llama-index-observability-otel; its agent for the tools."""

import asyncio
import logging

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.llms.openai import OpenAI
from llama_index.observability.otel import LlamaIndexOpenTelemetry
from opentelemetry.sdk.trace import TracerProvider
from workflows import Context, Workflow, step
from workflows.events import Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent
from workflows.retry_policy import ConstantDelayRetryPolicy

from scenery import ABSENT, QUESTION, WAIT, Failing, Scripted, north, south, work
from tracing import Discard

PACKAGES = ["llama-index-workflows", "llama-index-core", "llama-index-observability-otel"]


def instrument(provider: TracerProvider) -> None:
    logging.getLogger("opentelemetry.trace").setLevel(logging.ERROR)
    LlamaIndexOpenTelemetry(tracer_provider=provider, span_exporter=Discard()).start_registering()


class Flaky(Workflow):
    def __init__(self) -> None:
        super().__init__()
        self.ask = Failing()

    @step(retry_policy=ConstantDelayRetryPolicy(delay=WAIT, maximum_attempts=3))
    async def flaky(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=self.ask())


async def step_retry() -> None:
    await Flaky().run()


def model(refusals: int = 0, tools: tuple[str, ...] = ()) -> OpenAI:
    endpoint = Scripted(refusals, tools=tools)
    return OpenAI(model="gpt-4o", api_key="none", api_base=endpoint.url, async_http_client=endpoint.http_client())


async def model_retry() -> None:
    await FunctionAgent(llm=model(2), tools=[north], streaming=False).run(QUESTION)


async def tools() -> None:
    await FunctionAgent(llm=model(tools=("north", "south")), tools=[north, south], streaming=False).run(QUESTION)


class Piece(Event):
    number: int


class Done(Event):
    number: int


class Joining(Workflow):
    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Piece | None:
        for number in range(3):
            ctx.send_event(Piece(number=number))
        return None

    @step(num_workers=2)
    async def piece(self, ev: Piece) -> Done:
        return Done(number=await work(ev.number))

    @step
    async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
        done = ctx.collect_events(ev, [Done] * 3)
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
    stored = handler.ctx.to_dict()
    await handler.cancel_run()
    await asyncio.gather(handler, return_exceptions=True)
    await asyncio.sleep(ABSENT)
    handler = workflow.run(ctx=Context.from_dict(workflow, stored))
    handler.ctx.send_event(HumanResponseEvent(response="yes"))
    await handler
