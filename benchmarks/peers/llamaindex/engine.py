"""llama-index-workflows. It has no time-out of a step, and collects by a list of types only."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import create_model
from workflows import Context, Workflow, step
from workflows.context.serializers import JsonSerializer
from workflows.events import Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent
from workflows.handler import WorkflowHandler

from peers import Checkpointing, Pause, Pausing, PuttingAway, Run, SizedRun

IMPORT = "from workflows import Workflow, Context, step; from workflows.events import Event, StartEvent, StopEvent"

# Where a case would take minutes. Ratios are per step or event, so only its own growth with the size is left out.
SIZES: dict[str, dict[str, int]] = {
    "chain": {"runs": 50},
    "chain_growth": {"steps": 1_000},
    "loop": {"rounds": 1_000},
    "loop_growth": {"large": 5_000},
    "loop_memory": {"large": 3_000},
    "fanout": {"runs": 1},
    "fanout_list": {"runs": 1},
    "fanout_growth": {"small": 100, "large": 1_000},
    "concurrent": {"batches": 1},
    "paused": {"runs": 1_000},
    "checkpoint": {"times": 50},
}


def chain(steps: int, pause: Pause | None = None) -> Run:
    class First(StartEvent):
        n: int

    class Last(StopEvent):
        n: int

    kinds: list[type[Event]] = [First, *(create_model(f"E{i}", __base__=Event, n=int) for i in range(1, steps)), Last]

    def make(i: int) -> Callable[..., Awaitable[Any]]:
        out = kinds[i + 1]

        async def body(self: Workflow, ev: Any) -> Any:
            if pause is not None:
                await pause()
            return out(n=ev.n + 1)

        body.__name__, body.__qualname__ = f"step{i}", f"Chain.step{i}"
        body.__annotations__ = {"ev": kinds[i], "return": out}
        return step(body)

    workflow = type("Chain", (Workflow,), {f"step{i}": make(i) for i in range(steps)})(timeout=None)

    async def run() -> int:
        return (await workflow.run(start_event=First(n=0))).n

    return run


chain_waiting = chain


def loop() -> SizedRun:
    class Begin(StartEvent):
        n: int

    class Ping(Event):
        n: int
        i: int

    class Pong(Event):
        n: int
        i: int

    class Loop(Workflow):
        @step
        async def begin(self, ev: Begin) -> Ping:
            return Ping(n=ev.n, i=0)

        @step
        async def ping(self, ev: Ping) -> Pong | StopEvent:
            return StopEvent(result=ev.i) if ev.i >= ev.n else Pong(n=ev.n, i=ev.i)

        @step
        async def pong(self, ev: Pong) -> Ping:
            return Ping(n=ev.n, i=ev.i + 1)

    workflow = Loop(timeout=None)

    async def run(n: int) -> int:
        return await workflow.run(start_event=Begin(n=n))

    return run


def fanout(workers: int, pause: Pause) -> SizedRun:
    class Begin(StartEvent):
        n: int

    class Item(Event):
        n: int

    class Result(Event):
        n: int

    class Fan(Workflow):
        @step
        async def emit(self, ctx: Context, ev: Begin) -> Item | None:
            await ctx.store.set("n", ev.n)
            for i in range(ev.n):
                ctx.send_event(Item(n=i))
            return None

        @step(num_workers=workers)
        async def work(self, ev: Item) -> Result:
            await pause()
            return Result(n=ev.n)

        @step
        async def collect(self, ctx: Context, ev: Result) -> StopEvent | None:
            got = ctx.collect_events(ev, [Result] * await ctx.store.get("n"))
            if got is None:
                return None
            return StopEvent(result=sum(result.n for result in got))

    workflow = Fan(timeout=None)

    async def run(n: int) -> int:
        return await workflow.run(start_event=Begin(n=n))

    return run


fanout_list = fanout


class Ask(InputRequiredEvent):
    pass


class Answer(HumanResponseEvent):
    n: int


class Wait(Workflow):
    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        answer = await ctx.wait_for_event(Answer, waiter_event=Ask())
        return StopEvent(result=answer.n)


def waiting() -> Pausing:
    workflow = Wait(timeout=None)

    async def pause() -> WorkflowHandler:
        handler = workflow.run(start_event=StartEvent())
        async for ev in handler.stream_events():
            if isinstance(ev, Ask):
                break
        return handler

    async def answer(handler: WorkflowHandler, n: int) -> int:
        handler.ctx.send_event(Answer(n=n))
        return await handler

    return pause, answer


def putting_away() -> PuttingAway:
    workflow = Wait(timeout=None)
    pause, answer = waiting()
    serializer = JsonSerializer()

    async def put_away() -> str:
        handler = await pause()
        text = json.dumps(handler.ctx.to_dict(serializer=serializer))
        await handler.cancel_run()
        return text

    async def take_up(text: str, n: int) -> int:
        ctx = Context.from_dict(workflow, json.loads(text), serializer=serializer)
        return await answer(workflow.run(ctx=ctx), n)

    return put_away, take_up


def stream() -> SizedRun:
    class Begin(StartEvent):
        n: int

    class Token(Event):
        n: int

    class Writer(Workflow):
        @step
        async def write(self, ctx: Context, ev: Begin) -> StopEvent:
            for i in range(ev.n):
                ctx.write_event_to_stream(Token(n=i))
            return StopEvent()

    workflow = Writer(timeout=None)

    async def run(n: int) -> int:
        handler = workflow.run(start_event=Begin(n=n))
        seen = 0
        async for ev in handler.stream_events():
            seen += isinstance(ev, Token)
        await handler
        return seen

    return run


async def checkpoint(values: dict[str, object]) -> Checkpointing:
    class Keep(Workflow):
        @step
        async def keep(self, ctx: Context, ev: StartEvent) -> StopEvent:
            for key, value in values.items():
                await ctx.store.set(key, value)
            return StopEvent()

    workflow = Keep(timeout=None)
    handler = workflow.run(start_event=StartEvent())
    await handler
    serializer = JsonSerializer()

    def to_text() -> str:
        return json.dumps(handler.ctx.to_dict(serializer=serializer))

    def from_text(text: str) -> Context:
        return Context.from_dict(workflow, json.loads(text), serializer=serializer)

    async def read(ctx: Context) -> dict[str, object]:
        return {key: await ctx.store.get(key) for key in values}

    return to_text, from_text, read
