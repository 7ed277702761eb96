"""What an agent costs above the `openai` client, on a model that costs nothing."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from measure import Timer

from .case import Case, check
from .traces import start_tracing

if TYPE_CHECKING:
    from .case import Metrics

CONTENT = ("add numbers", "2 + 3", '"b": 3', "sum is 5")
"""Pieces of what is said to the model and by it."""


class Agent(Case):
    """A model asks for a tool, the tool runs, the model answers."""

    name = "agent"
    area = "agents"
    workload = "agent"
    repetitions = 9
    turns = 1
    runs = 100

    async def set_up(self) -> None:
        from stub import Stub  # noqa: PLC0415 because it imports openai, which others must not pay for

        self.stub = Stub(self.turns)
        self.run = self.make(self.stub)
        await self._run(2)

    async def _run(self, runs: int) -> float:
        from stub import ANSWER  # noqa: PLC0415 because it imports openai, which others must not pay for

        self.stub.requests = self.stub.results = 0
        with Timer() as timer:
            for _ in range(runs):
                check(await self.run(), ANSWER)
        check(self.stub.requests, (self.turns + 1) * runs)
        check(self.stub.results, self.turns * runs)
        return timer.cpu

    async def measure(self) -> Metrics:
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

    async def measure(self) -> Metrics:
        self.tracing.taken()
        metrics = await super().measure()
        check(self.tracing.taken(), self.runs * self.spans)
        return metrics
