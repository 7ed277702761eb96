"""Runs, steps and events are counted and timed, whether they are traced or not, with bounded dimensions."""

from __future__ import annotations

import asyncio
import gc
import random
import string
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import HistogramDataPoint
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler

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
from agentflow.clock import use_clock
from agentflow.errors import WorkflowCancelledByUser, WorkflowTimeoutError
from agentflow.observe import Kind, Observer, Operation, add_observer, operation
from agentflow.testing import FakeClock
from agentflow_agents.records import ToolExecution
from agentflow_instrumentation import SpanObserver
from agentflow_instrumentation.bounded import MOST
from agentflow_instrumentation.instruments import METRICS
from agentflow_instrumentation.metrics import MetricObserver
from agentflow_instrumentation.tally import Tally
from measured import ERROR, EVENT, EXHAUSTED, OUTCOME, STEP, TOOL, WF, Metrics, number


class Middle(Event):
    pass


class Chain(Workflow):
    @step
    async def one(self, ev: StartEvent) -> Middle:
        return Middle()

    @step
    async def two(self, ev: Middle) -> StopEvent:
        return StopEvent(result="done")


class Trouble(Workflow):
    """Does what it is told."""

    @step
    async def work(self, ev: StartEvent) -> StopEvent:
        if ev.how == "error":
            raise ValueError(ev.how)
        if ev.how == "hang":
            await asyncio.Event().wait()
        return StopEvent()


async def test_runs_steps_and_events_are_measured() -> None:
    seen = Metrics()
    await Chain().run()
    await Chain().run()
    assert seen.value("gen_ai.invoke_workflow.duration") == 2
    assert seen.dimensions("gen_ai.invoke_workflow.duration") == [{"gen_ai.workflow.name": "Chain", OUTCOME: "ok"}]
    assert seen.dimensions("agentflow.step.duration") == [
        {WF: "Chain", STEP: "one", OUTCOME: "ok"},
        {WF: "Chain", STEP: "two", OUTCOME: "ok"},
    ]
    assert seen.dimensions("agentflow.step.queue.wait") == [{WF: "Chain", STEP: name} for name in ("one", "two")]
    assert {point.attributes[EVENT]: number(point) for point in seen.points("agentflow.events")} == {
        "StartEvent": 2,
        "Middle": 2,
    }
    assert seen.value("agentflow.run.active") == 0


def test_each_metric_has_its_unit_its_text_and_its_buckets() -> None:
    """They are those of the table, which the documents show as well."""
    page = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text(encoding="utf-8")
    for metric in METRICS:
        assert metric.description.endswith(".")
        assert list(metric.buckets) == sorted(set(metric.buckets))
        assert bool(metric.buckets) == (metric.sort == "histogram")
        [row] = [line for line in page.splitlines() if line.startswith(f"| `{metric.name}` |")]
        assert metric.unit in row
        assert [name for name in metric.dimensions if f"`{name}`" not in row] == []


async def test_buckets_and_units_arrive_at_the_reader() -> None:
    seen = Metrics()
    await Chain().run()
    found = seen.all()
    for metric in METRICS:
        if metric.name in found:
            arrived = found[metric.name]
            assert (arrived.unit, arrived.description) == (metric.unit, metric.description)
            for point in arrived.data.data_points:
                if isinstance(point, HistogramDataPoint):
                    assert tuple(point.explicit_bounds) == metric.buckets
    assert seen.points("agentflow.step.duration")[0].explicit_bounds[-1] == 327.68
    assert set(found) <= {metric.name for metric in METRICS}


@pytest.mark.parametrize(
    ("how", "outcome", "error"),
    [("error", "error", "ValueError"), ("cancel", "cancelled", None), ("time-out", "timeout", "timeout")],
)
async def test_how_a_run_ended_is_a_dimension(how: str, outcome: str, error: str | None) -> None:
    seen = Metrics()
    with use_clock(FakeClock()) as clock:
        handler = Trouble(timeout=5).run(how="error" if how == "error" else "hang")
        await clock.advance(1)
        if how == "cancel":
            await handler.cancel_run()
        await clock.advance(5)
        with pytest.raises((ValueError, WorkflowCancelledByUser, WorkflowTimeoutError)):
            await handler
    failed = {} if error is None else {ERROR: error}
    assert seen.dimensions("gen_ai.invoke_workflow.duration") == [
        {"gen_ai.workflow.name": "Trouble", OUTCOME: outcome, **failed}
    ]
    of_step = {"outcome": "cancelled"} if outcome == "timeout" else {"outcome": outcome}
    assert seen.dimensions("agentflow.step.duration") == [
        {
            WF: "Trouble",
            STEP: "work",
            OUTCOME: of_step["outcome"],
            **({ERROR: "ValueError"} if outcome == "error" else {}),
        }
    ]
    assert seen.value("agentflow.run.active") == 0


# how many go on


async def test_runs_that_go_on_are_counted_until_they_end() -> None:
    seen = Metrics()
    with use_clock(FakeClock()) as clock:
        handlers = [Trouble(timeout=None).run(how="hang") for _ in range(3)]
        await clock.advance(0)
        assert seen.value("agentflow.run.active") == 3
        assert seen.value("agentflow.step.workers.busy") == 3
        await handlers[0].cancel_run()
        await clock.advance(1)
        assert seen.value("agentflow.run.active") == 2
        for handler in handlers[1:]:
            await handler.cancel_run()
        await asyncio.gather(*handlers, return_exceptions=True)
    assert seen.value("agentflow.run.active") == 0
    assert seen.value("agentflow.step.workers.busy") == 0


def test_a_run_whose_event_loop_is_shut_down_goes_on_no_longer() -> None:
    seen = Metrics()

    async def leave() -> None:
        _ = Trouble(timeout=None).run(how="hang")
        await asyncio.sleep(0)
        assert seen.value("agentflow.run.active") == 1

    asyncio.run(leave())
    assert seen.value("agentflow.run.active") == 0


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_a_run_whose_event_loop_was_closed_under_it_goes_on_no_longer() -> None:
    seen = Metrics()
    loop = asyncio.new_event_loop()

    async def leave() -> None:
        _ = Trouble(timeout=None).run(how="hang")
        await asyncio.sleep(0)

    loop.run_until_complete(leave())
    assert seen.value("agentflow.run.active") == 1
    tasks = asyncio.all_tasks(loop)
    loop.close()
    assert seen.value("agentflow.run.active") == 0
    assert seen.value("agentflow.step.workers.busy") == 0
    for task in tasks:  # lest their end is reported here
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 because asyncio has no other way to say it


class Asking(Workflow):
    @step
    async def ask(self, ev: StartEvent) -> InputRequiredEvent:
        return InputRequiredEvent(prefix="?")

    @step
    async def take(self, ev: HumanResponseEvent) -> StopEvent:
        return StopEvent()


async def test_a_run_that_was_given_up_goes_on_no_longer() -> None:
    seen = Metrics()
    handler = Asking(timeout=None).run()
    async for event in handler.stream_events():
        if isinstance(event, InputRequiredEvent):
            break
    assert seen.value("agentflow.run.active") == 1
    del handler
    await asyncio.sleep(0)
    gc.collect()
    assert seen.value("agentflow.run.active") == 0


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_run_that_is_suspended_goes_on_no_longer_until_it_is_resumed(elsewhere: bool) -> None:  # noqa: FBT001 because pytest gives it
    seen = Metrics()
    with use_clock(FakeClock()) as clock:
        workflow = Asking(timeout=None)
        handler = workflow.run()
        await clock.advance(31)
        assert seen.value("agentflow.run.active") == 0
        assert seen.dimensions("gen_ai.invoke_workflow.duration")[0][OUTCOME] == "suspended"
        await clock.advance(3600 - 31)
        if elsewhere:
            data = handler.ctx.to_dict()
            await handler.cancel_run()
            await clock.advance(3600)
            handler = workflow.run(ctx=Context.from_dict(workflow, data))
        handler.ctx.send_event(HumanResponseEvent(response="yes"))
        await handler
    assert seen.value("agentflow.run.active") == 0
    [still] = seen.points("agentflow.run.suspended.duration", {WF: "Asking"})
    assert (still.count, round(still.sum)) == (1, 7200 if elsewhere else 3600)


async def test_a_run_that_nobody_awaits_is_counted_to_its_end() -> None:
    seen = Metrics()
    handler = Chain().run()
    for _ in range(10):
        await asyncio.sleep(0)
    assert seen.value("agentflow.run.active") == 0
    assert seen.value("gen_ai.invoke_workflow.duration") == 1
    assert handler.is_done()


class Work(Event):
    pass


class Done(Event):
    pass


class Crowd(Workflow):
    """Two workers, and more to do than they can take up."""

    def __init__(self, **options: Any) -> None:
        super().__init__(timeout=None, **options)
        self.go = asyncio.Event()

    @step
    async def spread(self, ctx: Context, ev: StartEvent) -> Work | None:
        for _ in range(5):
            ctx.send_event(Work())
        return None

    @step(num_workers=2)
    async def work(self, ev: Work) -> Done:
        await self.go.wait()
        return Done()

    @step
    async def gather(self, ctx: Context, ev: Done) -> StopEvent | None:
        return None if ctx.collect_events(ev, [Done] * 5) is None else StopEvent()


async def test_what_waits_for_a_step_and_who_works_is_read_from_the_runs() -> None:
    seen = Metrics()
    workflow = Crowd()
    handlers = [workflow.run(), workflow.run()]
    for _ in range(5):
        await asyncio.sleep(0)
    # asked from another thread, as exporters do
    told: list[float | None] = []
    names = ("agentflow.step.queue.depth", "agentflow.step.workers.busy")
    asking = threading.Thread(target=lambda: told.extend(seen.value(name, {STEP: "work"}) for name in names))
    asking.start()
    asking.join()
    assert told == [6, 4]
    workflow.go.set()
    await asyncio.gather(*handlers)
    assert [number(point) for name in names for point in seen.points(name)] == [0] * 6
    waits = seen.points("agentflow.step.queue.wait", {STEP: "work"})
    assert number(waits[0]) == 10


async def test_reading_while_runs_change_in_another_thread_is_safe() -> None:
    seen = Metrics()
    over = threading.Event()
    problems: list[BaseException] = []

    def read() -> None:
        while not over.is_set():
            try:
                seen.all()
            except BaseException as error:  # noqa: BLE001 because the test tells of it
                problems.append(error)
                return

    reading = threading.Thread(target=read)
    reading.start()
    workflow = Crowd()
    workflow.go.set()
    for _ in range(30):
        await asyncio.gather(*(workflow.run() for _ in range(3)))
    over.set()
    reading.join()
    assert problems == []
    assert seen.value("agentflow.run.active") == 0


# retries


class Flaky(Workflow):
    @step(retry_policy=Retry(attempts=3, wait=2))
    async def work(self, ev: StartEvent) -> StopEvent:
        await self.left(ev)
        return StopEvent()

    async def left(self, ev: StartEvent) -> None:
        ev.failures.append(1)
        if len(ev.failures) <= ev.many:
            raise ConnectionError


@pytest.mark.parametrize(("many", "again", "given_up"), [(0, None, None), (1, 1, None), (2, 2, None), (3, 2, 1)])
async def test_retries_of_a_step(many: int, again: int | None, given_up: int | None) -> None:
    seen = Metrics()
    with use_clock(FakeClock()) as clock:
        handler = Flaky(timeout=None).run(many=many, failures=[])
        await clock.advance(10)
        await asyncio.gather(handler, return_exceptions=True)
    name = {"agentflow.retry.scope": "step", "agentflow.retry.name": "work", ERROR: "ConnectionError"}
    assert seen.value("agentflow.retries", {EXHAUSTED: False}) == again
    assert seen.value("agentflow.retries", {EXHAUSTED: True}) == given_up
    assert seen.value("agentflow.retry.wait") == (None if again is None else 2.0 * again)
    assert all(name.items() <= dimensions.items() for dimensions in seen.dimensions("agentflow.retries"))
    attempts = {str(p.attributes[OUTCOME]): number(p) for p in seen.points("agentflow.step.duration")}
    assert attempts == {**({"retried": again} if again else {}), "error" if given_up else "ok": 1}


# with traces, and without


class Inner(Workflow):
    @step
    async def only(self, ev: StartEvent) -> StopEvent:
        return StopEvent()


class Outer(Workflow):
    @step
    async def call(self, ev: StartEvent) -> StopEvent:
        await Inner().run()
        with operation(Kind.RETRIEVAL, "shelf"):
            pass
        with operation(Kind.TOOL, "saw", ToolExecution("1", "", "{}")):
            pass
        return StopEvent()


def traced(sampler: Sampler = ALWAYS_ON) -> tuple[SpanObserver, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return SpanObserver(provider), exporter


@pytest.mark.parametrize("spans_first", [True, False])
async def test_an_exemplar_is_the_span_of_the_operation_itself(spans_first: bool) -> None:  # noqa: FBT001 because pytest gives it
    observer, exporter = traced()
    if spans_first:
        add_observer(observer)
    seen = Metrics()
    if not spans_first:
        add_observer(observer)
    await Outer().run()
    spans = {span.context.span_id: span.name for span in exporter.get_finished_spans() if span.context is not None}
    wanted = {
        "gen_ai.invoke_workflow.duration": "gen_ai.workflow.name",
        "agentflow.step.duration": STEP,
        "agentflow.step.queue.wait": STEP,
        "agentflow.retrieval.duration": "gen_ai.data_source.id",
        "gen_ai.execute_tool.duration": TOOL,
    }
    found = seen.all()
    for name, dimension in wanted.items():
        for point in found[name].data.data_points:
            [exemplar] = point.exemplars
            assert spans[exemplar.span_id or 0].endswith(f" {point.attributes[dimension]}")  # type: ignore[index]  # because all have it
            assert exemplar.trace_id


async def test_a_step_that_is_left_behind_has_its_own_span_as_exemplar_too() -> None:
    class Stubborn(Workflow):
        cancel_grace = 1.0

        @step
        async def work(self, ev: StartEvent) -> StopEvent:
            while True:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    if ev.over:
                        raise

    over: list[int] = []
    observer, exporter = traced()
    add_observer(observer)
    seen = Metrics()
    with use_clock(FakeClock()) as clock:
        handler = Stubborn(timeout=None).run(over=over)
        await clock.advance(0)
        [left] = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        ending = handler.cancel_run()
        await clock.advance(2)
        await ending
    over.append(1)
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    [span] = [span for span in exporter.get_finished_spans() if span.name == "step work"]
    [point] = seen.points("agentflow.step.duration")
    assert span.context is not None
    assert [exemplar.span_id for exemplar in point.exemplars] == [span.context.span_id]


async def test_metrics_go_on_where_a_run_is_not_sampled() -> None:
    observer, exporter = traced(ALWAYS_OFF)
    add_observer(observer)
    seen = Metrics()
    await Chain().run()
    assert exporter.get_finished_spans() == ()
    assert seen.value("gen_ai.invoke_workflow.duration") == 1
    assert len(seen.points("agentflow.step.duration")) == 2


async def test_each_provider_has_its_own_metrics() -> None:
    first = Metrics()
    await Chain().run()
    second = Metrics()
    await Chain().run()
    assert first.value("gen_ai.invoke_workflow.duration") == 2
    assert second.value("gen_ai.invoke_workflow.duration") == 1


async def test_a_second_observer_of_a_provider_shares_its_instruments(caplog: pytest.LogCaptureFixture) -> None:
    """As where `setup()` is called again."""
    seen = Metrics()
    MetricObserver(seen.provider)
    await Chain().run()
    assert seen.value("gen_ai.invoke_workflow.duration") == 1
    assert number(seen.points("agentflow.events", {EVENT: "Middle"})[0]) == 1
    assert caplog.records == []


async def test_an_instrument_that_raises_hurts_no_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen = Metrics()

    def broken(*_: object, **__: object) -> None:
        raise OSError

    monkeypatch.setattr(seen.provider._measurement_consumer, "consume_measurement", broken)  # noqa: SLF001 because a broken SDK is to be had no other way
    assert await Chain().run() == "done"
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    gc.collect()
    assert seen.value("agentflow.run.active") == 0


async def test_what_was_lost_is_counted_for_all_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    lost, cut = Tally(), Tally()
    monkeypatch.setattr("agentflow_instrumentation.load.EXPORT", lost)
    monkeypatch.setattr("agentflow_instrumentation.load.CONTENT", cut)
    seen = [Metrics(), Metrics()]
    lost.add("traces", "queue_full", many=3)
    cut.add("limit")
    for each in seen:
        of_spans = {"agentflow.signal": "traces", "agentflow.export.dropped.reason": "queue_full"}
        assert each.value("agentflow.export.dropped", of_spans) == 3
        assert each.value("agentflow.content.dropped", {"agentflow.content.dropped.reason": "limit"}) == 1


# how many series there may be


def words(rng: random.Random) -> Iterator[str]:
    while True:
        yield "".join(rng.choices(string.ascii_lowercase, k=12))


class Named(Workflow):
    @step
    async def work(self, ev: StartEvent) -> StopEvent:
        for make in ev.calls:
            make()
        return StopEvent(result=ev.text)


async def test_a_thousand_runs_make_few_series() -> None:
    """Whatever ids, texts and invented tools are in them."""
    seen = Metrics()
    texts = words(random.Random(6))  # noqa: S311 because it is no secret
    workflow = Named()

    def invented() -> None:
        with operation(Kind.TOOL, next(texts), ToolExecution(next(texts), next(texts), next(texts), known=False)):
            pass

    sizes: list[int] = []
    for _ in range(2):
        for _ in range(500):
            await workflow.run(text=next(texts), session=next(texts), calls=[invented])
        sizes.append(seen.series())
    assert sizes[0] == sizes[1] <= 12
    assert seen.value("gen_ai.execute_tool.duration", {TOOL: "_other"}) == 1000


async def test_a_dimension_has_so_many_values_and_then_others() -> None:
    seen = Metrics()
    for many in range(MOST + 50):
        with operation(Kind.RETRIEVAL, f"index {many}"):
            pass
    found = {
        point.attributes["gen_ai.data_source.id"]: number(point)
        for point in seen.points("agentflow.retrieval.duration")
    }
    assert len(found) == MOST + 1
    assert found["_other"] == 50
    assert all(many == 1 for name, many in found.items() if name != "_other")


# the seam


async def test_who_reads_what_is_current_hears_between_those_who_set_it() -> None:
    heard: list[str] = []

    class Hears(Observer):
        kinds = frozenset({Kind.STEP})

        def __init__(self, name: str, *, reads: bool) -> None:
            self.name = name
            self.reads_current = reads

        def started(self, op: Operation) -> None:
            heard.append(f"+{self.name}")

        def finished(self, op: Operation, error: BaseException | None) -> None:
            heard.append(f"-{self.name}")

    for name in ("reads", "sets", "sets too"):
        add_observer(Hears(name, reads=name == "reads"))
    await Inner().run()
    assert heard == ["+sets", "+sets too", "+reads", "-reads", "-sets too", "-sets"]
