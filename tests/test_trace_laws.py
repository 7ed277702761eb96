"""The laws of cost of being traced, held by counting: each step adds its own spans, and nothing is kept."""

from __future__ import annotations

import gc
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from agentflow import Context, Event, StartEvent, StopEvent, Workflow, add_observer, step
from agentflow.observe import Operation, Ref
from agentflow_instrumentation.spans import SpanObserver
from agentflow_instrumentation.trail import Trail

if TYPE_CHECKING:
    from collections.abc import Sequence

HELD = (Operation, Ref, Trail, ReadableSpan)


class Counting(SpanExporter):
    """Counts spans by the first word of their name, and keeps none."""

    def __init__(self) -> None:
        self.names: Counter[str] = Counter()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.names.update(span.name.split()[0] for span in spans)
        return SpanExportResult.SUCCESS


@pytest.fixture
def exported() -> Counter[str]:
    exporter = Counting()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    add_observer(SpanObserver(provider))
    return exporter.names


def held() -> int:
    gc.collect()
    return sum(issubclass(type(thing), HELD) for thing in gc.get_objects())


class Job(Event):
    left: int


class Loop(Workflow):
    """Goes round by what it returns, and counts in its last round what is held."""

    @step
    async def start(self, ev: StartEvent) -> Job:
        return Job(left=ev.get("rounds"))

    @step
    async def again(self, ev: Job) -> Job | StopEvent:
        return Job(left=ev.left - 1) if ev.left else StopEvent(result=held())


class LoopBySends(Loop):
    """Goes round by what it sends."""

    @step
    async def again(self, ctx: Context, ev: Job) -> Job | StopEvent | None:  # type: ignore[override]  # a step may take more
        if not ev.left:
            return StopEvent(result=held())
        ctx.send_event(Job(left=ev.left - 1))
        return None


@pytest.mark.parametrize("kind", [Loop, LoopBySends])
async def test_a_traced_loop_holds_as_much_after_500_rounds_as_after_5(
    kind: type[Loop], exported: Counter[str]
) -> None:
    few = await kind().run(rounds=5)
    many = await kind().run(rounds=500)
    assert few == many


@pytest.mark.parametrize("kind", [Loop, LoopBySends])
async def test_nothing_is_held_when_a_traced_run_is_over(kind: type[Loop], exported: Counter[str]) -> None:
    await kind().run(rounds=5)
    before = held()
    await kind().run(rounds=50)
    assert held() == before


async def test_a_round_adds_one_span_for_its_step_and_one_for_its_event(exported: Counter[str]) -> None:
    await Loop().run(rounds=5)
    assert exported == {"invoke_workflow": 1, "step": 7, "event": 7}
    exported.clear()
    await Loop().run(rounds=50)
    assert exported == {"invoke_workflow": 1, "step": 52, "event": 52}
