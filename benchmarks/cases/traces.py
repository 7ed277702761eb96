"""What being watched costs: a chain whose spans and metrics are made, sampled out, or wanted by nobody."""

from __future__ import annotations

import gc
import importlib
import tracemalloc
from collections import Counter
from typing import TYPE_CHECKING

from .case import check
from .engine import Chain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.sampling import Sampler

    from peers import Run
    from tracing import Measuring, Tracing

    from .case import Metrics

    Shape = tuple[str, str | None, tuple[tuple[str, str], ...], int]

OFF = {"AGENTFLOW_TELEMETRY": "off"}
OF_ALL = {"openinference.span.kind": "str", "agentflow.run.id": "str", "agentflow.outcome": "str"}
OF_A_RUN = {
    **OF_ALL,
    "gen_ai.operation.name": "str",
    "gen_ai.workflow.name": "str",
    "agentflow.segment": "int",
    "session.id": "str",
}
OF_AN_EVENT = {**OF_ALL, "agentflow.workflow.name": "str", "agentflow.event.type": "str"}
OF_A_STEP = {
    **OF_AN_EVENT,
    "agentflow.step.name": "str",
    "agentflow.step.attempt": "int",
    "agentflow.queue.wait": "float",
    "agentflow.triggered_by": "tuple",
}
"""The attributes that agentflow writes, with the types of their values: R writes the same."""
MEASURED = {
    "run": ("gen_ai.invoke_workflow.duration", "agentflow.outcome", "gen_ai.workflow.name"),
    "step": ("agentflow.step.duration", "agentflow.outcome", "agentflow.step.name", "agentflow.workflow.name"),
    "wait": ("agentflow.step.queue.wait", "agentflow.step.name", "agentflow.workflow.name"),
}
"""The histograms that agentflow records, each with its dimensions: R records the same."""


def expected(steps: int) -> Counter[Shape]:
    """What the spans of one run of a chain must look like."""
    run, step, event = "invoke_workflow", "step", "event"
    return Counter(
        {
            _shape(run, None, OF_A_RUN, links=0): 1,
            _shape(event, run, OF_AN_EVENT, links=0): 1,
            _shape(step, run, OF_A_STEP, links=1): steps,
            _shape(event, step, OF_AN_EVENT, links=0): steps - 1,
        }
    )


def shapes(spans: Sequence[ReadableSpan]) -> Counter[Shape]:
    """What spans look like, all values left out."""
    words = {span.context.span_id: span.name.split()[0] for span in spans if span.context}
    return Counter(
        _shape(
            span.name.split()[0],
            None if span.parent is None else words[span.parent.span_id],
            {name: type(value).__name__ for name, value in (span.attributes or {}).items()},
            links=len(span.links),
        )
        for span in spans
    )


def _shape(word: str, parent: str | None, attributes: Mapping[str, str], *, links: int) -> Shape:
    return word, parent, tuple(sorted(attributes.items())), links


def start_tracing(sampler: Sampler | None = None) -> Tracing:
    """Configure OpenTelemetry for this process."""
    from tracing import Tracing  # noqa: PLC0415 because it imports the SDK, which other cases must not pay for

    return Tracing(sampler)


def start_measuring() -> Measuring:
    """Configure OpenTelemetry's metrics for this process."""
    from tracing import Measuring  # noqa: PLC0415 because it imports the SDK, which other cases must not pay for

    return Measuring()


class NotConfigured(Chain):
    """Telemetry is installed and its API imported, as many libraries do; nobody has configured it."""

    name = "not_configured"
    area = "traces"
    workload = "chain_unwatched"
    runs = 10_000
    reference = "agentflow"
    reference_environ = OFF

    async def set_up(self) -> None:
        importlib.import_module("opentelemetry.trace")
        await super().set_up()


class SampledOut(NotConfigured):
    """A provider is configured, and its sampler takes nothing. The reference has that provider too."""

    name = "sampled_out"

    async def set_up(self) -> None:
        from opentelemetry.sdk.trace.sampling import ALWAYS_OFF  # noqa: PLC0415 because others must not pay for it

        self.tracing = start_tracing(ALWAYS_OFF)
        await super().set_up()

    async def measure(self) -> Metrics:
        metrics = await super().measure()
        check(self.tracing.taken(), 0)
        return metrics


class Traced(Chain):
    """The chain with a span for the run, for each step and for each event."""

    name = "traced"
    area = "traces"
    workload = "chain_traced"
    runs = 500

    async def set_up(self) -> None:
        self.tracing = start_tracing()
        await super().set_up()
        self.tracing.keep()
        check(await self.run(), self.steps)
        spans = self.tracing.kept()
        self.spans = len(spans)
        if self.peer.SPANS_LIKE_OURS:
            check(shapes(spans), expected(self.steps))

    async def measure(self) -> Metrics:
        self.tracing.taken()
        metrics = await super().measure()
        check(self.tracing.taken(), self.runs * self.spans)
        return metrics


class Measured(Chain):
    """What a step costs more where metrics are on, and how much that is beside the same records by hand."""

    name = "measured"
    area = "traces"
    workload = "chain_measured"
    runs = 500
    sampler: Sampler | None = None
    traced = False

    async def set_up(self) -> None:
        await self._warm_up(self.peer.chain_unwatched)
        self.before = await super().measure()
        if self.traced:
            start_tracing(self.sampler)
        self.measuring = start_measuring()
        await self._warm_up(self.make)

    async def _warm_up(self, make: Callable[[int], Run]) -> None:
        self.run = make(self.steps)
        for _ in range(20):
            check(await self.run(), self.steps)

    async def measure(self) -> Metrics:
        self.measuring.recorded()
        metrics = await super().measure()
        runs, steps = self.runs, self.runs * self.steps
        expected = {MEASURED["run"]: runs, MEASURED["step"]: steps, MEASURED["wait"]: steps}
        check(self.measuring.recorded(), expected)
        return {**metrics, "added_us": metrics["cpu_us"] - self.before["cpu_us"]}


class TracedMeasured(Measured):
    """Spans and metrics, with exemplars."""

    name = "traced_measured"
    workload = "chain_traced_measured"
    traced = True


class SampledMeasured(TracedMeasured):
    """Metrics, and a sampler that takes no span."""

    name = "sampled_measured"

    async def set_up(self) -> None:
        from opentelemetry.sdk.trace.sampling import ALWAYS_OFF  # noqa: PLC0415 because others must not pay for it

        self.sampler = ALWAYS_OFF
        await super().set_up()


class TracedMemory(Traced):
    """The bytes a step that are still there when traced runs are over and their spans are exported."""

    name = "traced_memory"
    repetitions = 3
    runs = 100

    async def measure(self) -> Metrics:
        self.tracing.taken()
        tracemalloc.start()
        await self._kept(self.runs)  # warms up what tracemalloc counts
        before = await self._kept(self.runs)
        after = await self._kept(2 * self.runs)
        tracemalloc.stop()
        return {"bytes": (after - before) / (2 * self.runs * self.steps)}

    async def _kept(self, runs: int) -> int:
        for _ in range(runs):
            await self.run()
        check(self.tracing.taken(), runs * self.spans)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
