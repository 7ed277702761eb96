"""A service that is busy with a bit of everything, until its input is closed: `busy.py prometheus` or `busy.py otlp`.

Runs that go well, fail, are cancelled and wait for somebody; steps, calls to models and tools that are retried, and
given up; queues that fill; documents, a memory, a reranker; spans that do not arrive, and content that is cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import tempfile
import threading
from pathlib import Path
from typing import Annotated

from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

import clerk
from agentflow import (
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Resource,
    Retry,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from agentflow_agents import FunctionAgent, tool
from agentflow_instrumentation import setup
from agentflow_llm import ChatMessage, Embeddings, RateLimitError, Reply, ScriptedModel, ToolCallPart, Usage
from agentflow_llm.server import LoopbackServer

ROUNDS = 200
"""At most; each takes about a second."""


class Dead(SpanExporter):
    """A collector that takes nothing."""

    def export(self, spans: object) -> SpanExportResult:
        return SpanExportResult.FAILURE


def forgetful(text: str, where: str) -> str:
    """A redactor with a fault, for which some content is left out."""
    if "gold" in text:
        raise KeyError(where)
    return text


class Job(Event):
    """Some work."""

    number: int


class Done(Event):
    """It is done."""


def connect() -> dict[str, str]:
    """A resource."""
    return {"open": "yes"}


class Factory(Workflow):
    """Many jobs for one worker, who fails at the first attempt."""

    def __init__(self) -> None:
        super().__init__(name="factory")
        self.warm = set[int]()

    @step
    async def plan(self, ctx: Context, ev: StartEvent) -> Job | None:
        for number in range(6):
            ctx.send_event(Job(number=number))
        return None

    @step(num_workers=1, retry_policy=Retry(attempts=2, wait=0.01))
    async def work(self, ctx: Context, ev: Job, tools: Annotated[dict[str, str], Resource(connect)]) -> Done:
        await asyncio.sleep(0.05)
        if ev.number not in self.warm:
            self.warm.add(ev.number)
            raise OSError("The machine is cold.")
        return Done()

    @step
    async def pack(self, ctx: Context, ev: Done) -> StopEvent | None:
        return StopEvent() if ctx.collect_events(ev, [Done] * 6) else None


class Hopeless(Workflow):
    """Never succeeds."""

    @step(retry_policy=Retry(attempts=2, wait=0.01))
    async def fail(self, ev: StartEvent) -> StopEvent:
        raise OSError("Nobody is there.")


class Permission(Workflow):
    """Waits for somebody for longer than a run stays open."""

    pause_grace = 0.02

    @step
    async def ask(self, ev: StartEvent) -> InputRequiredEvent:
        return InputRequiredEvent()

    @step
    async def act(self, ev: HumanResponseEvent) -> StopEvent:
        return StopEvent()


async def wait_for_permission() -> None:
    """The answer comes late."""
    handler = Permission(name="permission").run()
    async for event in handler.stream_events():
        if isinstance(event, InputRequiredEvent):
            await asyncio.sleep(0.1)
            handler.ctx.send_event(HumanResponseEvent())
    await handler


@tool(retry=Retry(attempts=2, wait=0.01))
async def weigh(thing: str) -> str:
    """Weigh a thing."""
    raise OSError(f"The scales are broken, and {thing} is heavy.")


async def ask_in_vain() -> None:
    """A tool fails, and then the model, for good."""
    script: list[ToolCallPart | Exception] = [
        ToolCallPart(id="1", name="weigh", arguments='{"thing": "gold"}'),
        *[RateLimitError("Slow down.")] * 2,
    ]
    model = ScriptedModel(script, retry=Retry(attempts=2, wait=0.01))
    with contextlib.suppress(RateLimitError):
        await FunctionAgent([weigh], model, name="porter").run("How heavy is it?")


async def give_up() -> None:
    """A run that fails, after its retries."""
    with contextlib.suppress(OSError):
        await Hopeless(name="hopeless").run()


def library() -> LoopbackServer:
    """Whose librarian finds the same again and again."""
    usage = Usage(input_tokens=1000, output_tokens=200)
    order, answer = (
        Reply(message=ChatMessage(role="assistant", content=text), finish_reason="stop", usage=usage)
        for text in ('{"order": [2, 1]}', clerk.LIBRARIAN)
    )
    vectors = [
        Embeddings([[1.0, 0.0], [0.9, 0.1]], Usage(input_tokens=20)),
        Embeddings([[1.0, 0.0]], Usage(input_tokens=6)),
    ]
    return LoopbackServer([order, answer] * ROUNDS, paths={"/embeddings": vectors * ROUNDS})


async def be_busy(folder: Path, library: LoopbackServer, enough: threading.Event) -> None:
    """All of it, again and again."""
    for _ in range(ROUNDS):
        if enough.is_set():
            return
        await asyncio.gather(
            Factory().run(),
            clerk.ask_clerk(folder),
            clerk.Librarian(library).run(question="How many seats?"),
            clerk.fail(),
            clerk.cancel(),
            wait_for_permission(),
            ask_in_vain(),
            give_up(),
        )
        await asyncio.sleep(0.2)


def main() -> None:
    """Serve or send metrics while the input is open."""
    logging.disable()
    enough = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        enough.set()

    threading.Thread(target=listen, daemon=True).start()
    if sys.argv[1] == "prometheus":
        telemetry = setup(Dead(), metrics="prometheus", content="full", redactors=[forgetful])
    else:
        telemetry = setup(
            ["otlp", Dead()], metrics=True, service_name="collected", content="full", redactors=[forgetful]
        )
    with telemetry, tempfile.TemporaryDirectory() as folder, library() as server:
        asyncio.run(be_busy(Path(folder), server, enough))


if __name__ == "__main__":
    main()
