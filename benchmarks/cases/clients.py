"""What a model's client costs above the bare `openai` client, on a server that costs nothing, over a real socket."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from measure import Timer
from server import ANSWER, MODEL, Server, words

from .agents import sizes
from .case import Case, check
from .traces import start_tracing

if TYPE_CHECKING:
    from .case import Metrics

CHUNKS = 1_000
WARM_UP = 10


def conversation(messages: int) -> list[tuple[str, str]]:
    """Roles and texts, as long as people's are."""
    text = "The quick brown fox jumps over the lazy dog, and nobody knows why it does so every single morning."
    return [("user" if number % 2 else "assistant", f"{number}: {text}") for number in range(messages, 0, -1)]


def seconds_of_json(messages: int, times: int) -> float:
    """CPU time that it takes to write such a request as JSON, so often."""
    body = {"model": MODEL, "messages": [{"role": role, "content": text} for role, text in conversation(messages)]}
    with Timer() as timer:
        for _ in range(times):
            json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    return timer.cpu


class Call(Case):
    """A plain call with two messages."""

    name = "client_call"
    area = "clients"
    workload = "call"
    repetitions = 9
    calls = 200

    async def set_up(self) -> None:
        self.server = Server(chunks=CHUNKS)
        self.run = self.make(self.server.url)
        await self.warm_up()

    async def warm_up(self) -> None:
        """Let imports, connections and caches be there."""
        await self.called(WARM_UP, 2)

    async def called(self, times: int, messages: int) -> float:
        """CPU time of so many calls."""
        run = self.run(conversation(messages))
        with Timer() as timer:
            for _ in range(times):
                check(await run(), ANSWER)
        return timer.cpu

    async def measure(self) -> Metrics:
        try:
            return await self.measured()
        finally:
            self.server.stop()

    async def measured(self) -> Metrics:
        """The figures."""
        return {"cpu_us": await self.called(self.calls, 2) / self.calls * 1e6}


class CallGrowth(Call):
    """What a call with 100 messages costs over one with two, its JSON left out."""

    name = "client_growth"

    async def measured(self) -> Metrics:
        short = await self.called(self.calls, 2) - seconds_of_json(2, self.calls)
        long = await self.called(self.calls, 100) - seconds_of_json(100, self.calls)
        return {"growth": long / short}


class CallTraced(Call):
    """A plain call with telemetry on, content off. The reference is not traced."""

    name = "client_traced"
    workload = "call_traced"

    async def set_up(self) -> None:
        self.tracing = start_tracing()
        await super().set_up()
        self.spans = self.tracing.taken() / WARM_UP

    async def measured(self) -> Metrics:
        metrics = await super().measured()
        check(self.tracing.taken(), self.spans * self.calls)
        return metrics


class CallSpanned(CallTraced):
    """The same, and the reference makes a span with as many attributes, by the bare SDK."""

    name = "client_spanned"
    workload = "call_spanned"

    async def set_up(self) -> None:
        await super().set_up()
        self.tracing.keep()
        await self.called(1, 2)
        check(sizes(self.tracing.kept()), {("chat", 16, 0, 0): 1})
        self.tracing.taken()


class Streamed(Call):
    """A streamed answer of 1,000 chunks."""

    name = "client_stream"
    workload = "stream"
    streams = 5

    async def warm_up(self) -> None:
        await self.run()

    async def measured(self) -> Metrics:
        expected = ("".join(words(CHUNKS)), CHUNKS)
        with Timer() as timer:
            for _ in range(self.streams):
                check(await self.run(), expected)
        return {"cpu_us": timer.cpu / self.streams / CHUNKS * 1e6}


class StreamedThroughStep(Streamed):
    """The same, each chunk an event that a step puts on the stream of its run, read by the caller."""

    name = "step_stream"
    workload = "step_stream"
