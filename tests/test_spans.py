"""Every operation is a span in its right place, with its cause, and every span ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry import context as otel
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode

from agentflow import (
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Retry,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowCancelledByUser,
    WorkflowTimeoutError,
    step,
)
from agentflow.clock import use_clock
from agentflow.observe import Kind, add_observer, operation
from agentflow.testing import FakeClock, record
from agentflow_instrumentation import SpanObserver
from agentflow_instrumentation.trail import Trail


class Seen:
    """The spans that have ended, and who made them."""

    def __init__(self, sampler: Sampler | None = None, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler or ALWAYS_ON, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.observer = SpanObserver(self.provider, **options)
        self.tracer = self.provider.get_tracer("the user's")
        add_observer(self.observer)

    @property
    def spans(self) -> list[ReadableSpan]:
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (found,) = self.named(name)
        return found

    def parent(self, span: ReadableSpan) -> str | None:
        return None if span.parent is None else self.by_id(span.parent.span_id).name

    def by_id(self, ident: int) -> ReadableSpan:
        (found,) = (span for span in self.spans if span.context and span.context.span_id == ident)
        return found

    def linked(self, span: ReadableSpan) -> list[str]:
        return [self.by_id(link.context.span_id).name for link in span.links]

    def tree(self, *, events: bool = False) -> list[str]:
        lines: list[str] = []

        def show(span: ReadableSpan, depth: int) -> None:
            outcome = facts(span).get("agentflow.outcome", "ok")
            if events or not span.name.startswith("event "):
                lines.append(f"{'  ' * depth}{span.name}{'' if outcome == 'ok' else f' {outcome}'}")
            for child in self.spans:
                if child.parent and span.context and child.parent.span_id == span.context.span_id:
                    show(child, depth + 1)

        for span in self.spans:
            if span.parent is None:
                show(span, 0)
        return lines


def facts(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


@pytest.fixture
def seen(caplog: pytest.LogCaptureFixture) -> Iterator[Seen]:
    """Spans of a provider of its own; nothing may be logged about contexts, or spans that have ended."""
    with caplog.at_level(logging.DEBUG, "opentelemetry"):
        yield Seen()
    assert not [r for r in caplog.records if r.name.startswith("opentelemetry")]
    assert otel.get_current() == {}


class A(Event):
    pass


class B(Event):
    n: int = 0


class Found(Event):
    n: int = 0
    name: str = ""


class Ask(InputRequiredEvent):
    pass


class Answer(HumanResponseEvent):
    user: str = ""


class Chain(Workflow):
    @step
    async def one(self, ev: StartEvent) -> A:
        return A()

    @step
    async def two(self, ev: A) -> StopEvent:
        return StopEvent(result="done")


class Fan(Workflow):
    """Asks `n` times, and joins what is found."""

    @step
    async def split(self, ctx: Context, ev: StartEvent) -> B:  # type: ignore[return]  # it sends what it declares
        await ctx.set("n", ev.n)
        for n in range(ev.n):
            ctx.send_event(B(n=n))

    @step(num_workers=8)
    async def work(self, ev: B) -> Found:
        await asyncio.sleep(0)
        return Found(n=ev.n)

    @step
    async def join(self, ctx: Context, ev: Found) -> StopEvent | None:
        found = ctx.collect_events(ev, {Found: await ctx.get("n")})
        return None if found is None else StopEvent(result=sum(f.n for f in found))


async def turn() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


# the tree, and what its spans tell


async def test_a_run_is_a_span_with_its_steps_and_their_events(seen: Seen) -> None:
    handler = Chain().run(topic="cats")
    await handler
    assert seen.tree(events=True) == [
        "invoke_workflow Chain",
        "  event StartEvent",
        "  step one",
        "    event A",
        "  step two",
    ]
    assert facts(seen.one("invoke_workflow Chain")) == {
        "openinference.span.kind": "CHAIN",
        "gen_ai.operation.name": "invoke_workflow",
        "gen_ai.workflow.name": "Chain",
        "agentflow.run.id": handler.run_id,
        "agentflow.segment": 1,
        "session.id": handler.run_id,
        "agentflow.outcome": "ok",
    }
    two = facts(seen.one("step two"))
    assert two.pop("agentflow.queue.wait") >= 0
    sent = seen.one("event A")
    assert sent.context
    assert two == {
        "openinference.span.kind": "CHAIN",
        "agentflow.run.id": handler.run_id,
        "agentflow.workflow.name": "Chain",
        "agentflow.step.name": "two",
        "agentflow.step.attempt": 1,
        "agentflow.event.type": "A",
        "agentflow.triggered_by": (f"one:A {sent.context.span_id:016x}",),
        "agentflow.outcome": "ok",
    }
    assert facts(sent) == {
        "openinference.span.kind": "CHAIN",
        "agentflow.run.id": handler.run_id,
        "agentflow.workflow.name": "Chain",
        "agentflow.event.type": "A",
        "agentflow.outcome": "ok",
    }
    assert {(span.kind, span.status.status_code) for span in seen.spans} == {(SpanKind.INTERNAL, StatusCode.UNSET)}
    assert seen.linked(seen.one("step one")) == ["event StartEvent"]
    assert seen.linked(seen.one("step two")) == ["event A"]
    scope = seen.one("step one").instrumentation_scope
    assert scope
    assert (scope.name, scope.schema_url) == ("agentflow", "https://opentelemetry.io/schemas/1.41.0")


async def test_an_event_span_lasts_from_sent_to_taken_up(seen: Seen) -> None:
    await Chain().run()
    one, sent, two = seen.one("step one"), seen.one("event A"), seen.one("step two")
    assert (one.end_time or 0) <= (sent.start_time or 0) <= (sent.end_time or 0) <= (two.start_time or 0)
    waited = ((two.start_time or 0) - (sent.start_time or 0)) / 1e9
    assert facts(two)["agentflow.queue.wait"] == pytest.approx(waited)


async def test_the_run_of_an_agent_is_invoke_agent(seen: Seen) -> None:
    class Librarian(Chain):
        agent_name = "librarian"

    await Librarian().run()
    run = facts(seen.one("invoke_agent librarian"))
    assert run["openinference.span.kind"] == "AGENT"
    assert run["gen_ai.operation.name"] == "invoke_agent"
    assert run["gen_ai.agent.name"] == "librarian"
    assert run["gen_ai.workflow.name"] == "Librarian"


async def test_a_join_links_to_all_that_it_collected(seen: Seen) -> None:
    await Fan().run(n=3)
    *waiting, fired = seen.named("step join")
    assert [facts(span)["agentflow.outcome"] for span in waiting] == ["collecting", "collecting"]
    assert [seen.linked(span) for span in waiting] == [["event Found"]] * 2
    found = {span.context.span_id for span in seen.named("event Found") if span.context}
    assert {link.context.span_id for link in fired.links} == found
    assert len(fired.links) == 3
    assert facts(fired)["agentflow.collected.count"] == 3
    caused = facts(fired)["agentflow.triggered_by"]
    assert {one.partition(" ")[0] for one in caused} == {"work:Found"}
    assert {int(one.partition(" ")[2], 16) for one in caused} == found


async def test_a_large_join_has_128_links_and_the_number(seen: Seen) -> None:
    await Fan().run(n=300)
    fired = seen.named("step join")[-1]
    assert len(fired.links) == 128
    assert not fired.dropped_links
    assert facts(fired)["agentflow.collected.count"] == 300
    assert len(facts(fired)["agentflow.triggered_by"]) == 16


async def test_events_as_links_make_no_spans_of_their_own() -> None:
    seen = Seen(events="links")
    await Fan().run(n=2)
    assert {span.name for span in seen.spans} == {"invoke_workflow Fan", "step split", "step work", "step join"}
    assert [seen.linked(span) for span in seen.named("step work")] == [["step split"]] * 2
    assert sorted(seen.linked(seen.named("step join")[-1])) == ["step work", "step work"]
    split = seen.one("step split").context
    assert split
    assert facts(seen.named("step work")[0])["agentflow.triggered_by"] == (f"split:B {split.span_id:016x}",)
    assert not seen.one("step split").links


async def test_the_current_span_of_the_caller_is_the_parent_of_the_run(seen: Seen) -> None:
    with seen.tracer.start_as_current_span("GET /ask") as host:
        await Chain().run()
        assert trace.get_current_span() is host
    assert seen.tree()[:2] == ["GET /ask", "  invoke_workflow Chain"]
    assert len({span.context.trace_id for span in seen.spans if span.context}) == 1


# the current span


async def test_a_span_that_a_step_opens_is_a_child_of_the_step(seen: Seen) -> None:
    class Mine(Workflow):
        @step
        async def one(self, ev: StartEvent) -> A:
            with seen.tracer.start_as_current_span("mine, in one"):
                await asyncio.sleep(0)
            return A()

        @step
        def two(self, ev: A) -> StopEvent:
            with seen.tracer.start_as_current_span("mine, in a thread"):
                return StopEvent()

    await Mine().run()
    assert seen.tree() == [
        "invoke_workflow Mine",
        "  step one",
        "    mine, in one",
        "  step two",
        "    mine, in a thread",
    ]


async def test_concurrent_steps_have_each_its_own_current_span(seen: Seen) -> None:
    class Many(Fan):
        @step(num_workers=8)
        async def work(self, ev: B) -> Found:
            for _ in range(3):
                with seen.tracer.start_as_current_span(f"mine {ev.n}"):
                    await asyncio.sleep(0)
                await asyncio.sleep(0)
            return Found(n=ev.n)

    await asyncio.gather(*(Many().run(n=8) for _ in range(3)))
    assert len(seen.named("step work")) == 24
    for span in seen.spans:
        if span.name.startswith("mine"):
            assert seen.parent(span) == "step work"
    steps = {span.context.span_id: 0 for span in seen.named("step work") if span.context}
    for span in seen.spans:
        if span.name.startswith("mine") and span.parent:
            steps[span.parent.span_id] += 1
    assert set(steps.values()) == {3}


async def test_an_event_that_is_sent_inside_of_a_users_span_does_not_take_that_along(seen: Seen) -> None:
    """The span of the user is over, or not, when the next step runs; its parent is the run."""

    class Sends(Workflow):
        @step
        async def one(self, ctx: Context, ev: StartEvent) -> A:  # type: ignore[return]  # it sends what it declares
            with seen.tracer.start_as_current_span("mine"):
                ctx.send_event(A())

        @step
        async def two(self, ev: A) -> StopEvent:
            with seen.tracer.start_as_current_span("inner"):
                return StopEvent()

    await Sends().run()
    assert seen.tree(events=True) == [
        "invoke_workflow Sends",
        "  event StartEvent",
        "  step one",
        "    mine",
        "    event A",
        "  step two",
        "    inner",
    ]


async def test_baggage_that_a_step_sets_goes_with_its_events(seen: Seen) -> None:
    class Bags(Workflow):
        @step
        async def one(self, ev: StartEvent) -> A:
            otel.attach(baggage.set_baggage("tenant", "t1"))
            return A()

        @step
        async def two(self, ev: A) -> StopEvent:
            with seen.tracer.start_as_current_span("inner"):
                return StopEvent(result=baggage.get_baggage("tenant"))

    assert await Bags().run() == "t1"
    assert seen.parent(seen.one("inner")) == "step two"
    assert seen.parent(seen.one("step two")) == "invoke_workflow Bags"


async def test_a_run_inside_a_step_is_a_child_of_the_step(seen: Seen) -> None:
    class Outer(Workflow):
        @step
        async def start(self, ev: StartEvent) -> StopEvent:
            with seen.tracer.start_as_current_span("mine"):
                await Chain().run()
            return StopEvent()

    await Outer().run()
    assert seen.tree() == [
        "invoke_workflow Outer",
        "  step start",
        "    mine",
        "      invoke_workflow Chain",
        "        step one",
        "        step two",
    ]


async def test_a_plain_step_may_run_a_workflow(seen: Seen) -> None:
    class Outer(Workflow):
        @step
        def start(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=Chain().run_sync())

    assert await Outer().run() == "done"
    assert seen.tree()[:3] == ["invoke_workflow Outer", "  step start", "    invoke_workflow Chain"]


async def test_a_detached_run_is_a_trace_of_its_own_that_links_to_where_it_began(seen: Seen) -> None:
    class Outer(Workflow):
        @step
        async def start(self, ev: StartEvent) -> StopEvent:
            await Chain().run(detached=True)
            with seen.tracer.start_as_current_span("after"):
                return StopEvent()

    with seen.tracer.start_as_current_span("host"):
        await Outer().run()
    chain = seen.one("invoke_workflow Chain")
    assert chain.parent is None
    assert seen.linked(chain) == ["step start"]
    assert seen.parent(seen.one("after")) == "step start"
    assert seen.parent(seen.one("invoke_workflow Outer")) == "host"


async def test_a_detached_run_outside_of_any_step_is_like_any_other(seen: Seen) -> None:
    with seen.tracer.start_as_current_span("host"):
        await Chain().run(detached=True)
    assert seen.parent(seen.one("invoke_workflow Chain")) == "host"


async def test_calls_of_clients_belong_where_they_are_made(seen: Seen) -> None:
    class Calls(Workflow):
        @step
        async def start(self, ev: StartEvent) -> StopEvent:
            with operation(Kind.TOOL, "search"), seen.tracer.start_as_current_span("mine"):
                with operation(Kind.EMBEDDINGS, "small"):
                    pass
                await Chain().run()
            await asyncio.to_thread(self.remember)
            return StopEvent()

        def remember(self) -> None:
            with operation(Kind.MEMORY, "search"):
                pass

    await Calls().run()
    assert seen.tree() == [
        "invoke_workflow Calls",
        "  step start",
        "    execute_tool search",
        "      mine",
        "        embeddings small",
        "        invoke_workflow Chain",
        "          step one",
        "          step two",
        "    memory search",
    ]
    kinds = {
        span.name: (span.kind.name, facts(span)["openinference.span.kind"]) for span in seen.named("memory search")
    }
    assert kinds == {"memory search": ("INTERNAL", "CHAIN")}
    assert seen.one("embeddings small").kind is SpanKind.CLIENT
    assert facts(seen.one("embeddings small"))["gen_ai.request.model"] == "small"


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in {Kind.RUN, Kind.STEP, Kind.EVENT}])
async def test_an_operation_of_any_kind_is_a_span_also_outside_of_runs(seen: Seen, kind: Kind) -> None:
    with seen.tracer.start_as_current_span("mine"):
        with operation(kind, "thing"):
            inside = trace.get_current_span()
        assert trace.get_current_span() is not inside
    (made,) = (span for span in seen.spans if span.name != "mine")
    assert made.name.endswith(" thing")
    assert made.context == inside.get_span_context()
    assert facts(made)["openinference.span.kind"] in {
        "LLM",
        "EMBEDDING",
        "RETRIEVER",
        "RERANKER",
        "TOOL",
        "CHAIN",
        "GUARDRAIL",
    }
    assert facts(made)["agentflow.outcome"] == "ok"
    assert seen.parent(made) == "mine"


# ends


async def test_an_error_is_told_on_the_step_and_on_the_run(seen: Seen) -> None:
    class Fails(Workflow):
        @step
        async def start(self, ev: StartEvent) -> StopEvent:
            raise ValueError(f"order 17 of {ev.name} is missing")

    with pytest.raises(ValueError, match="order 17"):
        await Fails().run(name="Ann Example")
    assert seen.tree() == ["invoke_workflow Fails error", "  step start error"]
    for span in seen.spans:
        if span.name.startswith("event"):
            continue
        assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "ValueError")
        assert facts(span)["error.type"] == "ValueError"
        (event,) = span.events
        told = dict(event.attributes or {})
        assert event.name == "exception"
        assert told["exception.type"] == "ValueError"
        assert "in start" in str(told["exception.stacktrace"])
        assert "Ann" not in str(span.to_json())


async def test_an_errors_text_goes_out_where_content_may() -> None:
    seen = Seen(content="preview")

    class Fails(Workflow):
        @step
        async def start(self, ev: StartEvent) -> StopEvent:
            raise LookupError(f"no order for key sk-{'a' * 40}: {'x' * 400}")

    with pytest.raises(LookupError):
        await Fails().run()
    told = seen.one("step start")
    assert told.status.description
    assert told.status.description.startswith("LookupError: no order for key **********: xxx")
    assert len(told.status.description.encode()) <= 256
    assert "sk-a" not in str(told.to_json())
    assert "exception.message" in dict(told.events[0].attributes or {})


async def test_an_attempt_that_is_repeated_is_a_failed_span_of_a_run_that_recovers(seen: Seen) -> None:
    class Flaky(Workflow):
        left = 2

        @step(retry_policy=Retry())
        async def start(self, ev: StartEvent) -> StopEvent:
            with seen.tracer.start_as_current_span("mine"):
                Flaky.left -= 1
                if Flaky.left >= 0:
                    raise OSError("no")
            return StopEvent()

    with use_clock(FakeClock()) as clock:
        handler = Flaky().run()
        for _ in range(3):
            await clock.advance(60)
        await handler
    assert seen.tree() == [
        "invoke_workflow Flaky",
        "  step start retried",
        "    mine",
        "  step start retried",
        "    mine",
        "  step start",
        "    mine",
    ]
    first, second, third = seen.named("step start")
    assert [facts(span)["agentflow.step.attempt"] for span in (first, second, third)] == [1, 2, 3]
    assert [span.status.status_code.name for span in (first, second, third)] == ["ERROR", "ERROR", "UNSET"]
    assert seen.one("invoke_workflow Flaky").status.status_code is StatusCode.UNSET
    retry, failure = first.events
    assert (retry.name, failure.name) == ("agentflow.retry", "exception")
    told: dict[str, Any] = dict(retry.attributes or {})
    assert told.pop("agentflow.retry.wait") > 0
    assert told == {"agentflow.retry.attempt": 1, "error.type": "OSError"}
    assert {seen.linked(span)[0] for span in (first, second, third)} == {"event StartEvent"}


class Slow(Workflow):
    @step
    async def start(self, ctx: Context, ev: StartEvent) -> B:
        ctx.send_event(B(n=1))
        return B(n=2)

    @step(num_workers=1)
    async def wait(self, ev: B) -> StopEvent:
        with operation(Kind.CHAT, "model"):
            await asyncio.Event().wait()
        return StopEvent()


async def test_a_run_that_is_cancelled_is_neither_an_error_nor_a_success(seen: Seen) -> None:
    handler = Slow().run()
    await turn()
    await handler.cancel_run()
    with pytest.raises(WorkflowCancelledByUser):
        await handler
    assert seen.tree(events=True) == [
        "invoke_workflow Slow cancelled",
        "  event StartEvent",
        "  step start",
        "    event B",
        "    event B dropped",
        "  step wait cancelled",
        "    chat model cancelled",
    ]
    assert {span.status.status_code for span in seen.spans} == {StatusCode.UNSET}
    assert not [span for span in seen.spans if span.events]


async def test_a_run_that_exceeds_its_time_is_an_error_of_type_timeout(seen: Seen) -> None:
    with use_clock(FakeClock()) as clock:
        handler = Slow(timeout=5).run()
        await clock.advance(6)
        with pytest.raises(WorkflowTimeoutError):
            await handler
    run = seen.one("invoke_workflow Slow")
    assert facts(run)["agentflow.outcome"] == "timeout"
    assert facts(run)["error.type"] == "timeout"
    assert run.status.status_code is StatusCode.ERROR
    assert facts(seen.one("step wait"))["agentflow.outcome"] == "cancelled"


async def test_a_step_that_exceeds_its_time_too(seen: Seen) -> None:
    class Limited(Workflow):
        @step(timeout=1)
        async def start(self, ev: StartEvent) -> StopEvent:
            await asyncio.Event().wait()
            return StopEvent()

    with use_clock(FakeClock()) as clock:
        handler = Limited().run()
        await clock.advance(2)
        with pytest.raises(WorkflowTimeoutError):
            await handler
    assert facts(seen.one("step start"))["error.type"] == "timeout"
    assert facts(seen.one("step start"))["agentflow.outcome"] == "timeout"


async def test_a_step_that_ignores_its_cancellation_ends_with_its_run(
    seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    late = asyncio.Event()

    class Stubborn(Workflow):
        @step
        async def start(self, ev: StartEvent) -> A | B:
            return [A(), B()]  # type: ignore[return-value]  # a list fans out

        @step
        async def stubborn(self, ev: A) -> StopEvent:
            while not late.is_set():
                try:
                    await late.wait()
                except asyncio.CancelledError:
                    continue
            with seen.tracer.start_as_current_span("late"):
                return StopEvent()

        @step
        async def ends(self, ev: B) -> StopEvent:
            return StopEvent()

    with use_clock(FakeClock()) as clock:
        handler = Stubborn().run()
        await clock.advance(10)
        await handler
    late.set()
    await turn()
    assert "step stubborn cancelled" in "\n".join(seen.tree())
    assert [event.name for event in seen.one("invoke_workflow Stubborn").events] == ["agentflow.abandoned"]
    assert seen.parent(seen.one("late")) == "step stubborn"
    assert [vars(r)["event"] for r in caplog.records] == [
        "steps ignored their cancellation and were left behind; what they still do is dropped"
    ]


def test_spans_end_when_the_event_loop_is_shut_down(seen: Seen) -> None:
    async def main() -> None:
        going = Slow().run()
        await turn()
        assert going.run_id

    asyncio.run(main())
    assert seen.tree() == [
        "invoke_workflow Slow cancelled",
        "  step start",
        "  step wait cancelled",
        "    chat model cancelled",
    ]


class Asks(Workflow):
    @step
    async def ask(self, ev: StartEvent) -> Ask:
        return Ask()

    @step
    async def end(self, ev: Answer) -> StopEvent:
        return StopEvent()


async def test_a_run_that_nobody_holds_any_more_is_suspended(seen: Seen) -> None:
    """It waits for a human, and nobody can answer it."""
    handler = Asks().run()
    await turn()
    assert seen.tree() == []
    del handler
    gc.collect()
    assert seen.tree() == ["invoke_workflow Asks suspended", "  step ask"]


async def test_closing_the_observer_ends_the_runs_that_go_on_as_suspended(seen: Seen) -> None:
    handler = Asks().run()
    await turn()
    seen.observer.close()
    assert seen.tree() == ["invoke_workflow Asks suspended", "  step ask"]
    handler.ctx.send_event(Answer())
    await handler
    assert len(seen.named("invoke_workflow Asks")) == 1


async def test_an_answer_from_outside_has_the_run_as_its_parent(seen: Seen) -> None:
    handler = Asks().run()
    await turn()
    with seen.tracer.start_as_current_span("POST /answer"):
        handler.ctx.send_event(Answer())
    await handler
    assert seen.parent(seen.one("event Answer")) == "invoke_workflow Asks"
    assert seen.parent(seen.one("step end")) == "invoke_workflow Asks"
    assert facts(seen.one("step end"))["agentflow.triggered_by"][0].startswith("Answer ")


async def test_an_operation_around_a_stream_ends_when_the_stream_is_closed_from_elsewhere(seen: Seen) -> None:
    async def stream() -> AsyncIterator[int]:
        with operation(Kind.CHAT, "model"):
            yield 1
            yield 2

    generator: Any = stream()
    assert await anext(generator) == 1
    await asyncio.get_running_loop().create_task(generator.aclose())
    chat = seen.one("chat model")
    assert facts(chat)["agentflow.outcome"] == "cancelled"
    assert chat.status.status_code is StatusCode.UNSET
    # the generator began in this very context, and no other could reset what it made current
    otel.attach(otel.Context())


async def test_whatever_is_awaited_when_it_is_cancelled_every_span_ends(seen: Seen) -> None:
    """A run is cancelled after one turn of the loop, after two, and so on until it ends by itself."""

    class Deep(Fan):
        @step(num_workers=2)
        async def work(self, ev: B) -> Found:
            with operation(Kind.TOOL, "tool"):
                await asyncio.sleep(0)
                await Chain().run()
            return Found(n=ev.n)

    for turns in range(60):
        with record() as made:
            handler = Deep().run(n=3)
            for _ in range(turns):
                await asyncio.sleep(0)
            await handler.cancel_run()
            await asyncio.wait([asyncio.ensure_future(_quietly(handler))])
        names = sorted(f"{op.kind} {op.name}" for op in made.operations)
        told = sorted(
            span.name.replace("invoke_workflow", "run").replace("execute_tool", "tool") for span in seen.spans
        )
        assert names == told, turns
        known = {span.context.span_id for span in seen.spans if span.context}
        assert all(span.parent is None or span.parent.span_id in known for span in seen.spans)
        seen.exporter.clear()


async def _quietly(handler: Any) -> None:
    with contextlib.suppress(WorkflowCancelledByUser):
        await handler


# notes


async def test_streamed_events_are_counted_and_the_first_32_told(seen: Seen) -> None:
    class Talks(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
            for n in range(100):
                ctx.write_event_to_stream(Found(n=n))
            return StopEvent()

    await Talks().run()
    told = seen.one("step start")
    assert len(told.events) == 32
    assert {event.name for event in told.events} == {"agentflow.event_streamed"}
    assert dict(told.events[0].attributes or {}) == {"agentflow.event.type": "Found"}
    assert facts(told)["agentflow.stream.events"] == 100


async def test_a_wait_and_its_answer_are_events_of_the_steps_span(seen: Seen) -> None:
    class Waits(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.wait_for_event(Answer, requirements={"user": "Ann Example"})
            return StopEvent()

    handler = Waits().run()
    await turn()
    handler.ctx.send_event(Answer(user="Ann Example"))
    await handler
    span = seen.one("step start")
    assert [(event.name, dict(event.attributes or {})) for event in span.events] == [
        ("agentflow.waiting", {"agentflow.waiting.type": "Answer"}),
        ("agentflow.answered", {"agentflow.answered.type": "Answer"}),
    ]


async def test_what_is_unknown_of_a_note_goes_out_as_far_as_content_may() -> None:
    none, full = Seen(), Seen(content="full")
    with operation(Kind.TOOL, "tool") as opened:
        assert opened is not None
        watch, op = opened.watch, opened.op
        for _ in range(40):
            watch.noted(op, "progress", {"done": 3, "what": "Ann Example", "more": {"a": [1]}, "empty": None})
    assert dict(none.one("execute_tool tool").events[0].attributes or {}) == {"agentflow.progress.done": 3}
    assert dict(full.one("execute_tool tool").events[0].attributes or {}) == {
        "agentflow.progress.done": 3,
        "agentflow.progress.what": "Ann Example",
        "agentflow.progress.more": '{"a":[1]}',
    }
    assert facts(none.one("execute_tool tool"))["agentflow.notes.left_out"] == 8


# content


async def test_without_content_no_field_and_no_result_goes_out(seen: Seen) -> None:
    class Secretive(Workflow):
        @step
        async def start(self, ev: StartEvent) -> Found:
            return Found(n=1, name="Ann Example")

        @step
        async def end(self, ev: Found) -> StopEvent:
            return StopEvent(result="Ann Example")

    await Secretive().run(name="Ann Example")
    assert not any("Ann" in span.to_json() for span in seen.spans)
    assert not any(name.startswith(("input.", "output.")) for span in seen.spans for name in facts(span))


async def test_with_content_runs_and_steps_tell_what_went_in_and_out() -> None:
    seen = Seen(content="full")

    class Report(StopEvent):
        title: str = ""
        pages: int = 0

    class Writes(Workflow):
        @step
        async def start(self, ev: StartEvent) -> Found:
            return Found(n=1)

        @step
        async def end(self, ev: Found) -> Report:
            return Report(title="Cats", pages=3)

    await Writes().run(topic="cats")
    await Chain().run(topic="cats", n=1)
    run = facts(seen.one("invoke_workflow Writes"))
    assert (run["input.value"], run["input.mime_type"]) == ("cats", "text/plain")
    assert (run["output.value"], run["output.mime_type"]) == ('{"title":"Cats","pages":3}', "application/json")
    start, end = facts(seen.one("step start")), facts(seen.one("step end"))
    assert (start["input.value"], start["output.value"]) == ('{"topic":"cats"}', '{"Found":{"n":1,"name":""}}')
    assert (end["input.value"], end["input.mime_type"]) == ('{"n":1,"name":""}', "application/json")
    chain = facts(seen.one("invoke_workflow Chain"))
    assert (chain["input.value"], chain["output.value"]) == ('{"topic":"cats","n":1}', "done")
    assert (chain["input.mime_type"], chain["output.mime_type"]) == ("application/json", "text/plain")


# sampling


class PerSpan(Sampler):
    """A sampler that decides about each span on its own: of a run, only the steps."""

    def should_sample(self, parent_context: Any, trace_id: int, name: str, *args: Any, **more: Any) -> Any:
        chosen = ALWAYS_ON if name.startswith("step") else ALWAYS_OFF
        return chosen.should_sample(parent_context, trace_id, name, *args, **more)

    def get_description(self) -> str:
        return "steps only"


@pytest.mark.parametrize("sampler", [ALWAYS_OFF, ParentBased(ALWAYS_OFF), TraceIdRatioBased(0.0)], ids=str)
async def test_of_an_unsampled_run_nothing_is_built_but_its_context_is_current(sampler: Sampler) -> None:
    seen = Seen(sampler)
    inside: list[trace.SpanContext] = []

    class Looks(Workflow):
        @step
        async def start(self, ev: StartEvent) -> A:
            inside.append(trace.get_current_span().get_span_context())
            return A()

        @step
        def end(self, ev: A) -> StopEvent:
            inside.append(trace.get_current_span().get_span_context())
            with operation(Kind.CHAT, "model") as opened:
                return StopEvent(result=opened)

    assert await Looks().run() is None
    one, other = inside
    assert one == other
    assert one.is_valid
    assert not one.trace_flags.sampled
    assert otel.get_current() == {}
    assert not seen.spans


async def test_a_sampler_that_decides_for_each_span_is_asked_for_each() -> None:
    seen = Seen(PerSpan())
    await Chain().run()
    assert [span.name for span in seen.spans] == ["step one", "step two"]


async def test_an_unsampled_parent_leaves_its_runs_out() -> None:
    seen = Seen(ParentBased(ALWAYS_ON))
    unsampled = trace.SpanContext(1, 2, is_remote=True, trace_flags=trace.TraceFlags(0))
    token = otel.attach(trace.set_span_in_context(trace.NonRecordingSpan(unsampled)))
    await Chain().run()
    otel.detach(token)
    assert not seen.spans
    await Chain().run()
    assert len(seen.spans) == 5


# cost, counted


async def test_a_long_traced_run_holds_a_handful_of_trails_and_none_afterwards() -> None:
    class Loop(Workflow):
        @step
        async def start(self, ev: StartEvent) -> B:
            return B(n=ev.n)

        @step
        async def again(self, ev: B) -> B | StopEvent:
            if ev.n == 10:
                gc.collect()
                return StopEvent(result=alive())
            return B(n=ev.n - 1)

    def alive() -> int:
        return sum(isinstance(thing, Trail) for thing in gc.get_objects())

    provider = TracerProvider(shutdown_on_exit=False)
    add_observer(SpanObserver(provider))
    gc.collect()
    before = alive()
    assert await Loop().run(n=2000) - before <= 6
    gc.collect()
    assert alive() == before


def test_the_observer_says_what_it_is() -> None:
    observer = SpanObserver(TracerProvider(shutdown_on_exit=False), content="preview", events="links")
    assert repr(observer) == "SpanObserver(content='preview', events='links')"


@pytest.mark.parametrize(
    ("value", "level"),
    [("SPAN_ONLY", "full"), ("span_and_event", "full"), ("true", "full"), ("EVENT_ONLY", "none"), ("", "none")],
)
def test_the_content_level_comes_from_the_standard_variable_unless_code_says(
    value: str, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", value)
    provider = TracerProvider(shutdown_on_exit=False)
    assert SpanObserver(provider).content == level
    assert SpanObserver(provider, content="preview").content == "preview"


class Sleeps(Workflow):
    @step
    async def one(self, ev: StartEvent) -> StopEvent:
        await asyncio.sleep(30)
        return StopEvent()


class Above(Workflow):
    @step
    async def outer(self, ev: StartEvent) -> StopEvent:
        await Sleeps().run()
        return StopEvent()


def test_where_the_loop_is_closed_runs_end_as_was_decided() -> None:
    """So it is after Ctrl-C: the tasks of the run are cancelled, and it gets no turn to wind up."""
    seen = Seen()

    async def main() -> list[object]:
        handler = Above().run()
        await turn()
        return [handler]

    held = asyncio.run(main())
    seen.observer.close()
    assert held
    assert seen.tree() == [
        "invoke_workflow Above cancelled",
        "  step outer cancelled",
        "    invoke_workflow Sleeps cancelled",
        "      step one cancelled",
    ]
    ended = {span.name: span.end_time or 0 for span in seen.spans}
    assert ended["invoke_workflow Sleeps"] <= ended["invoke_workflow Above"]


def test_where_the_loop_is_closed_a_run_that_had_failed_says_so() -> None:
    seen = Seen(content="full")

    class Both(Workflow):
        @step
        async def split(self, ctx: Context, ev: StartEvent) -> A | B:  # type: ignore[return]  # it sends what it declares
            ctx.send_event(A())
            ctx.send_event(B())

        @step
        async def stays(self, ev: A) -> StopEvent:
            try:
                await asyncio.sleep(30)
            finally:
                await asyncio.sleep(30)
            return StopEvent()

        @step
        async def fails(self, ev: B) -> StopEvent:
            await asyncio.sleep(0)
            msg = "the shelf is empty"
            raise ValueError(msg)

    async def main() -> list[object]:
        handler = Both().run()
        await turn()
        return [handler]

    held = asyncio.run(main())
    seen.observer.close()
    assert held
    run = seen.one("invoke_workflow Both")
    assert facts(run)["agentflow.outcome"] == "error"
    assert (run.status.status_code, run.status.description) == (StatusCode.ERROR, "ValueError: the shelf is empty")


async def test_a_call_that_outlives_the_run_in_a_thread_ends_with_it_as_cancelled(seen: Seen) -> None:
    begun, go_on, over = asyncio.Event(), threading.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def search() -> None:
        with operation(Kind.TOOL, "search"):
            loop.call_soon_threadsafe(begun.set)
            go_on.wait(10)
        over.set()

    class Uses(Workflow):
        @step
        async def one(self, ev: StartEvent) -> StopEvent:
            await asyncio.to_thread(search)
            return StopEvent()

    handler = Uses().run()
    await begun.wait()
    await handler.cancel_run()
    ended = ["invoke_workflow Uses cancelled", "  step one cancelled", "    execute_tool search cancelled"]
    assert seen.tree() == ended
    go_on.set()
    await asyncio.to_thread(over.wait, 10)
    assert seen.tree() == ended
