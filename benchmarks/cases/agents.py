"""What an agent costs above the `openai` client, on a model that costs nothing."""

from __future__ import annotations

import asyncio
import gc
import json
import time
import tracemalloc
from collections import Counter
from typing import TYPE_CHECKING, Any

from measure import Timer, peak_resident, resident
from server import ANSWER, MODEL, tool_call, tool_result, words

from .case import Case, check
from .traces import start_tracing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from stub import Endpoint

    from .case import Metrics

CONTENT = ("add numbers", "2 + 3", '"b": 3', "sum is 5")
"""Pieces of what is said to the model and by it."""
SIZES = Counter(
    {
        ("invoke_agent", 9, 0, 0): 1,
        ("event", 5, 0, 0): 6,
        ("step", 9, 1, 0): 2,
        ("step", 10, 1, 0): 1,
        ("step", 10, 1, 1): 3,
        ("chat", 20, 0, 0): 1,
        ("chat", 19, 0, 0): 1,
        ("execute_tool", 11, 0, 0): 1,
    }
)
"""The spans of a run with one tool call: how their names begin, their attributes, links and events, and how many."""
CHUNKS = 1_000
PATIENCE = 120.0


def sizes(spans: Sequence[ReadableSpan]) -> Counter[tuple[str, int, int, int]]:
    """How the names of spans begin, and how many attributes, links and events these have."""
    return Counter(
        (span.name.split()[0], len(span.attributes or ()), len(span.links), len(span.events)) for span in spans
    )


class Agent(Case):
    """A model asks for a tool, the tool runs, the model answers. The model is inside the process."""

    name = "agent"
    area = "agents"
    workload = "agent"
    repetitions = 9
    turns = 1
    runs = 100

    async def set_up(self) -> None:
        self.model = self.connect()
        self.run = self.make(self.model)
        await self._run(2)

    def connect(self) -> Endpoint:
        """What the agent's model is."""
        from stub import Stub  # noqa: PLC0415 because it imports openai, which others must not pay for

        return Stub(self.turns)

    def check_asked(self, runs: int) -> None:
        """Each turn is a request, and each but a run's first brings the tool's results."""
        check(self.model.asked(), ((self.turns + 1) * runs, self.turns * runs))

    async def _run(self, runs: int) -> float:
        with Timer() as timer:
            for _ in range(runs):
                check(await self.run(), ANSWER)
        self.check_asked(runs)
        return timer.cpu

    async def measure(self) -> Metrics:
        try:
            return await self.measured()
        finally:
            self.model.stop()

    async def measured(self) -> Metrics:
        """The figures."""
        return {"cpu_us": await self._run(self.runs) / self.runs * 1e6}


class AgentLong(Agent):
    """The model asks for a tool 20 times, one call at a time: what a growing conversation costs."""

    name = "agent_long"
    repetitions = 7
    turns = 20
    runs = 4


class AgentTraced(Agent):
    """One tool call and an answer, traced, without the content of messages. The reference is not traced."""

    name = "agent_traced"
    workload = "agent_traced"

    async def set_up(self) -> None:
        self.tracing = start_tracing()
        await super().set_up()
        self.tracing.keep()
        await self._run(1)
        spans = self.tracing.kept()
        if self.peer.SPANS is not None:
            check(dict(Counter(span.name.split()[0] for span in spans)), self.peer.SPANS)
            written = repr([dict(span.attributes or {}) for span in spans])
            check([text for text in CONTENT if text in written], [])
        self.spans = len(spans)

    async def measured(self) -> Metrics:
        self.tracing.taken()
        metrics = await super().measured()
        check(self.tracing.taken(), self.runs * self.spans)
        return metrics


class AgentSpanned(Agent):
    """The same, and the reference makes as many spans, with as many attributes, links and events, by the bare SDK."""

    name = "agent_spanned"
    workload = "agent_spanned"

    async def set_up(self) -> None:
        self.tracing = start_tracing()
        await super().set_up()
        self.tracing.keep()
        await self._run(1)
        check(sizes(self.tracing.kept()), SIZES)

    async def measured(self) -> Metrics:
        self.tracing.taken()
        metrics = await super().measured()
        check(self.tracing.taken(), self.runs * SIZES.total())
        return metrics


class AgentServed(Agent):
    """One tool call and an answer, where the model is a server behind a socket."""

    name = "agent_served"
    chunks = 0

    def connect(self) -> Endpoint:
        from stub import Served  # noqa: PLC0415 because it imports openai, which others must not pay for

        return Served(self.turns, self.chunks)


class AgentsAtOnce(AgentServed):
    """Many runs of one agent at the same time: all of them meet in their tool."""

    name = "agents_at_once"
    workload = "agent_meeting"
    repetitions = 7
    runs = 200

    async def set_up(self) -> None:
        self.model = self.connect()
        self.run = self.make(self.model, self._meet)
        await self._at_once(1)

    async def _meet(self) -> None:
        await self.meeting.wait()

    async def _at_once(self, runs: int) -> Timer:
        self.meeting = asyncio.Barrier(runs)
        with Timer() as timer:
            async with asyncio.timeout(PATIENCE):
                got = await asyncio.gather(*[self.run() for _ in range(runs)])
        check(got, [ANSWER] * runs)
        self.check_asked(runs)
        return timer

    async def measured(self) -> Metrics:
        before = resident()
        timer = await self._at_once(self.runs)
        return {
            "cpu_us": timer.cpu / self.runs * 1e6,
            "wall_us": timer.wall / self.runs * 1e6,
            "peak_kb": (peak_resident() - before) / self.runs / 1024,
        }


def seconds_of_json(begin: int, end: int) -> float:
    """CPU time that it takes to write the requests as JSON that a run sends between those turns."""
    from stub import QUESTION, SYSTEM  # noqa: PLC0415 because it imports openai, which others must not pay for

    messages: list[dict[str, Any]] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
    for number in range(end):
        messages.append({"role": "assistant", "content": None, "tool_calls": [tool_call(number)]})
        messages.append({"role": "tool", "tool_call_id": f"call_{number}", "content": tool_result(number)})
    with Timer() as timer:
        for turn in range(begin, end):
            body = {"model": MODEL, "messages": messages[: 2 + 2 * turn]}
            json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    return timer.cpu


class AgentTurns(AgentServed):
    """What the last turns of a long run cost over what its first ones cost, their JSON left out."""

    name = "agent_turns"
    workload = "agent_ticking"
    repetitions = 7
    turns = 100
    runs = 5
    early, late = (5, 25), (80, 100)
    """The turns that are compared: they begin and end when the tool is called."""

    async def set_up(self) -> None:
        self.ticks: list[float] = []
        self.model = self.connect()
        self.run = self.make(self.model, self.tick)
        await self.once()

    def tick(self) -> None:
        """The tool was called."""
        self.ticks.append(time.process_time())

    async def once(self) -> object:
        """The messages of a run, as the library has them."""
        self.ticks.clear()
        gc.collect()
        got, messages = await self.run()
        check(got, ANSWER)
        self.check_asked(1)
        return messages

    async def measured(self) -> Metrics:
        early = late = 0.0
        for _ in range(self.runs):
            await self.once()
            early += self.between(*self.early) - seconds_of_json(*self.early)
            late += self.between(*self.late) - seconds_of_json(*self.late)
        return {"growth": late / early, "cpu_us": late / self.runs / (self.late[1] - self.late[0]) * 1e6}

    def between(self, begin: int, end: int) -> float:
        """By how much what is ticked grew from the one turn to the other."""
        check(len(self.ticks), self.turns)
        return self.ticks[end - 1] - self.ticks[begin - 1]


class AgentTurnsMemory(AgentTurns):
    """The bytes by which a run grows with each turn while it goes on, and how many of them are its messages."""

    name = "agent_turns_memory"
    repetitions = 1
    turns = 40
    early, late = (10, 25), (25, 40)

    def tick(self) -> None:
        if len(self.ticks) + 1 in {*self.early, *self.late}:
            gc.collect()
        self.ticks.append(tracemalloc.get_traced_memory()[0])

    async def measured(self) -> Metrics:
        tracemalloc.start()
        await self.once()  # warms up what tracemalloc counts
        messages = await self.once()
        gc.collect()
        held = tracemalloc.get_traced_memory()[0]
        del messages
        gc.collect()
        of_messages = (held - tracemalloc.get_traced_memory()[0]) / self.turns
        tracemalloc.stop()
        early, late = self.between(*self.early), self.between(*self.late)
        kept = (early + late) / (self.late[1] - self.early[0])
        return {"growth": late / early, "bytes": kept - of_messages, "message_bytes": of_messages}


def attributes_of(span: ReadableSpan) -> list[Mapping[str, Any] | None]:
    """Those of a span, and of its events."""
    return [span.attributes, *(event.attributes for event in span.events)]


def written(span: ReadableSpan) -> int:
    """The bytes that the attributes of a span and of its events are as JSON."""
    return sum(len(json.dumps(dict(attributes or {}))) for attributes in attributes_of(span))


class TraceTurns(Agent):
    """What the spans of the last turns of a long run hold over those of its first ones, where messages go out."""

    name = "trace_turns"
    workload = "agent_told"
    repetitions = 1
    turns = 100
    early, late = (5, 25), (80, 100)

    async def set_up(self) -> None:
        self.tracing = start_tracing()
        self.ticks: list[int] = []
        self.model = self.connect()
        self.run = self.make(self.model, lambda: self.ticks.append(time.time_ns()))

    async def measured(self) -> Metrics:
        self.tracing.keep()
        got, _ = await self.run()
        check(got, ANSWER)
        check(len(self.ticks), self.turns)
        self.sizes = [(span.start_time or 0, written(span)) for span in self.tracing.kept()]
        early, late = self.between(*self.early), self.between(*self.late)
        return {"growth": late / early, "bytes": late / (self.late[1] - self.late[0])}

    def between(self, begin: int, end: int) -> int:
        """The bytes of the attributes of spans and their events that began between the one turn and the other."""
        return sum(size for at, size in self.sizes if self.ticks[begin - 1] <= at < self.ticks[end - 1])


class AgentStreamed(AgentServed):
    """One tool call and an answer of 1,000 chunks, followed piece by piece."""

    name = "agent_streamed"
    workload = "agent_streamed"
    chunks = CHUNKS
    runs = 5

    async def _run(self, runs: int) -> float:
        expected = ("".join(words(CHUNKS)), CHUNKS)
        with Timer() as timer:
            for _ in range(runs):
                check(await self.run(), expected)
        self.check_asked(runs)
        return timer.cpu

    async def measured(self) -> Metrics:
        return {"cpu_us": await self._run(self.runs) / self.runs / CHUNKS * 1e6}
