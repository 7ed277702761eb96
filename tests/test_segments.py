"""The spans of runs that pause: a trace for each segment, linked to the one before, in the same session."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, Span, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from agentflow import (
    Context,
    Event,
    Handler,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowCheckpointer,
    WorkflowTimeoutError,
    add_observer,
    step,
)
from agentflow.clock import use_clock
from agentflow.observe import Kind, operation
from agentflow.testing import FakeClock
from agentflow_instrumentation import SpanObserver
from agentflow_instrumentation.testing import OtlpReceiver

GRACE = Workflow.pause_grace


class Spans:
    """The spans that have ended, in the order in which they began."""

    def __init__(self, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False, **options)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.observer = SpanObserver(self.provider)
        self.tracer = self.provider.get_tracer("the user's")
        add_observer(self.observer)

    def named(self, name: str) -> list[ReadableSpan]:
        found = [span for span in self.exporter.get_finished_spans() if span.name == name]
        return sorted(found, key=lambda span: span.start_time or 0)

    def parent(self, span: ReadableSpan) -> str | None:
        if span.parent is None:
            return None
        (found,) = (s for s in self.exporter.get_finished_spans() if place(s).span_id == span.parent.span_id)
        return found.name


def place(span: ReadableSpan) -> trace.SpanContext:
    found: trace.SpanContext | None = span.context
    assert found
    return found


def facts(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def links(span: ReadableSpan) -> list[tuple[int, Any]]:
    return [(link.context.span_id, (link.attributes or {}).get("agentflow.link")) for link in span.links]


@pytest.fixture
def spans() -> Iterator[Spans]:
    made = Spans()
    yield made
    made.provider.shutdown()


class Ask(InputRequiredEvent):
    pass


class Answer(HumanResponseEvent):
    pass


class A(Event):
    pass


class Asks(Workflow):
    @step
    async def ask(self, ev: StartEvent) -> Ask:
        return Ask()

    @step
    async def end(self, ev: Answer) -> StopEvent:
        return StopEvent()


def resumed(first: ReadableSpan, second: ReadableSpan) -> None:
    """The second is what goes on after the first, in a trace of its own."""
    assert place(first).trace_id != place(second).trace_id
    assert (facts(first)["agentflow.outcome"], facts(second)["agentflow.outcome"]) == ("suspended", "ok")
    assert (facts(first)["agentflow.segment"], facts(second)["agentflow.segment"]) == (1, 2)
    assert facts(second)["agentflow.resumed_from.trace_id"] == f"{place(first).trace_id:032x}"
    assert (place(first).span_id, "resumed_from") in links(second)
    assert facts(first)["session.id"] == facts(second)["session.id"] == facts(first)["agentflow.run.id"]
    assert "gen_ai.conversation.id" not in facts(second)


async def test_a_run_that_goes_on_after_a_pause_does_so_in_a_trace_of_its_own(spans: Spans) -> None:
    with use_clock(FakeClock()) as clock:
        handler = Asks().run()
        await clock.advance(GRACE + 1)
        first, second = *spans.named("invoke_workflow Asks"), None
        assert [event.name for event in first.events] == ["agentflow.event_streamed", "agentflow.waiting"]
        assert dict(first.events[1].attributes or {}) == {
            "agentflow.waiting.type": "Answer",
            "agentflow.waiting.asked": "Ask",
        }
        handler.ctx.send_event(Answer())
        await handler
    first, second = spans.named("invoke_workflow Asks")
    resumed(first, second)
    assert second.parent is None
    (end,) = spans.named("step end")
    assert end.parent
    assert end.parent.span_id == place(second).span_id
    assert facts(end)["agentflow.triggered_by"][0].startswith("Answer ")


async def test_a_run_that_is_resumed_by_a_request_is_in_the_trace_of_that(spans: Spans) -> None:
    with use_clock(FakeClock()) as clock:
        with spans.tracer.start_as_current_span("POST /start"):
            handler = Asks().run()
            await clock.settle()
        await clock.advance(GRACE + 1)
        with spans.tracer.start_as_current_span("POST /answer"):
            handler.ctx.send_event(Answer())
            await handler
    first, second = spans.named("invoke_workflow Asks")
    resumed(first, second)
    assert (spans.parent(first), spans.parent(second)) == ("POST /start", "POST /answer")


async def test_a_request_that_lasts_over_the_pause_is_the_parent_of_the_first_segment_alone(spans: Spans) -> None:
    with use_clock(FakeClock()) as clock, spans.tracer.start_as_current_span("websocket"):
        handler = Asks().run()
        await clock.advance(GRACE + 1)
        handler.ctx.send_event(Answer())
        await handler
    first, second = spans.named("invoke_workflow Asks")
    resumed(first, second)
    assert (spans.parent(first), second.parent) == ("websocket", None)


async def test_an_own_time_limit_resumes_in_a_trace_of_its_own(spans: Spans) -> None:
    class Limited(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> A:
            try:
                await ctx.wait_for_event(Answer, timeout=3600)
            except TimeoutError:
                return A()
            return A()

        @step
        async def end(self, ev: A) -> StopEvent:
            return StopEvent()

    with use_clock(FakeClock()) as clock, spans.tracer.start_as_current_span("POST /start"):
        handler = Limited().run()
        await clock.advance(3601)
        await handler
    first, second = spans.named("invoke_workflow Limited")
    resumed(first, second)
    assert second.parent is None
    (ask,), (end,) = spans.named("step ask"), spans.named("step end")
    assert (spans.parent(ask), place(ask).trace_id) == ("invoke_workflow Limited", place(first).trace_id)
    assert place(end).trace_id == place(second).trace_id
    (event,) = spans.named("event A")
    assert place(event).trace_id == place(first).trace_id, "its cause is in the segment before"
    assert [link[0] for link in links(end)] == [place(event).span_id]
    assert facts(end)["agentflow.triggered_by"] == (f"ask:A {place(event).span_id:016x}",)


async def test_a_detached_run_that_goes_on_by_itself_is_not_put_below_the_step_that_started_it(spans: Spans) -> None:
    class Waits(Workflow):
        @step
        async def wait(self, ctx: Context, ev: StartEvent) -> StopEvent:
            with suppress(TimeoutError):
                await ctx.wait_for_event(Answer, timeout=3600)
            return StopEvent()

    started: list[Handler[Any]] = []

    class Starts(Workflow):
        @step
        async def start(self, ev: StartEvent) -> StopEvent:
            started.append(Waits().run(detached=True))
            return StopEvent()

    with use_clock(FakeClock()) as clock:
        await Starts().run()
        await clock.advance(3601)
        await started.pop()
    first, second = spans.named("invoke_workflow Waits")
    resumed(first, second)
    assert (first.parent, second.parent) == (None, None)
    (start,) = spans.named("step start")
    assert links(first) == [(place(start).span_id, None)]
    assert len(links(second)) == 1


async def test_a_run_that_is_over_time_ends_in_no_request_of_before(spans: Spans) -> None:
    class AsksOn(Workflow):
        @step
        async def ask(self, ev: StartEvent | Answer) -> Ask | StopEvent:
            return Ask()

    with use_clock(FakeClock()) as clock:
        with spans.tracer.start_as_current_span("POST /start"):
            handler = AsksOn(timeout=GRACE * 10).run()
            await clock.advance(GRACE + 1)
        with spans.tracer.start_as_current_span("POST /answer"):
            handler.ctx.send_event(Answer())
            await clock.advance(GRACE + 1)
        await clock.advance(GRACE * 10)
        with pytest.raises(WorkflowTimeoutError):
            await handler
    found = spans.named("invoke_workflow AsksOn")
    assert [spans.parent(span) for span in found] == ["POST /start", "POST /answer", None]
    assert facts(found[2])["agentflow.outcome"] == "timeout"


async def test_a_join_after_a_pause_links_to_causes_in_both_segments(spans: Spans) -> None:
    class Joins(Workflow):
        @step
        async def ask(self, ev: StartEvent) -> list[A | Ask]:
            return [A(), Ask()]

        @step
        async def join(self, ctx: Context, ev: A | Answer) -> StopEvent | None:
            return None if ctx.collect_events(ev, [A, Answer]) is None else StopEvent()

    with use_clock(FakeClock()) as clock:
        handler = Joins().run()
        await clock.advance(GRACE + 1)
        handler.ctx.send_event(Answer())
        await handler
    early, join = spans.named("step join")
    assert facts(early)["agentflow.outcome"] == "collecting"
    (a,), (answer,) = spans.named("event A"), spans.named("event Answer")
    assert {link[0] for link in links(join)} == {place(a).span_id, place(answer).span_id}
    assert place(a).trace_id != place(answer).trace_id


async def test_what_was_under_way_when_a_run_was_stored_names_its_events_in_the_next_segment(spans: Spans) -> None:
    class Joins(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[A]:
            return [A(), A()]

        @step(num_workers=1)
        async def join(self, ctx: Context, ev: A) -> StopEvent | None:
            if ctx.collect_events(ev, [A, A]) is None:
                return None
            if hangs:
                await asyncio.Event().wait()
            return StopEvent()

    hangs = True
    handler = Joins().run()
    await asyncio.sleep(0.001)
    data = json.loads(json.dumps(handler.put_away()))
    await handler.cancel_run()
    hangs = False
    await Joins().run(ctx=Context.from_dict(Joins(), data))
    first, second = spans.named("invoke_workflow Joins")
    resumed(first, second)
    _, cut, again = spans.named("step join")
    (event,) = (span for span in spans.named("event A") if place(span).trace_id == place(second).trace_id)
    assert (facts(cut)["agentflow.outcome"], facts(again)["agentflow.outcome"]) == ("suspended", "ok")
    assert facts(cut)["agentflow.collected.count"] == facts(again)["agentflow.collected.count"] == 2
    assert [link[0] for link in links(again)] == [place(event).span_id]
    assert facts(again)["agentflow.triggered_by"] == (f"A {place(event).span_id:016x}",)


async def test_a_child_that_waits_stays_in_the_trace_of_its_parent(spans: Spans) -> None:
    class Outer(Workflow):
        @step
        async def call(self, ev: StartEvent) -> StopEvent:
            self.child = Asks().run()
            await self.child
            return StopEvent()

    outer = Outer()
    with use_clock(FakeClock()) as clock:
        handler = outer.run()
        await clock.advance(GRACE + 1)
        with spans.tracer.start_as_current_span("POST /answer"):
            outer.child.ctx.send_event(Answer())
        await handler
    first, second = spans.named("invoke_workflow Asks")
    assert spans.parent(first) == spans.parent(second) == "step call"
    assert links(second) == [(place(first).span_id, "resumed_from")]
    (above,) = spans.named("invoke_workflow Outer")
    assert {facts(span)["session.id"] for span in (first, second)} == {handler.run_id}
    assert facts(above)["agentflow.outcome"] == "ok"


async def test_a_call_that_is_open_over_a_pause_goes_on(spans: Spans) -> None:
    class Searches(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            with operation(Kind.TOOL, "search"):
                await ctx.wait_for_event(Answer)
            return StopEvent()

    with use_clock(FakeClock()) as clock:
        handler = Searches().run()
        await clock.advance(GRACE + 1)
        assert spans.named("execute_tool search") == []
        handler.ctx.send_event(Answer())
        await handler
    (tool,) = spans.named("execute_tool search")
    assert facts(tool)["agentflow.outcome"] == "ok"


async def test_a_call_that_a_thread_is_left_with_ends_with_the_run(spans: Spans) -> None:
    begun, let_go, over = threading.Event(), threading.Event(), threading.Event()

    class Slow(Workflow):
        @step(timeout=60)
        def work(self, ev: StartEvent) -> StopEvent:
            with operation(Kind.TOOL, "search"):
                begun.set()
                let_go.wait(10)
            over.set()
            return StopEvent()

    with use_clock(FakeClock()) as clock:
        handler = Slow().run()
        await clock.settle()
        assert await asyncio.to_thread(begun.wait, 10)
        await clock.advance(61)
        with pytest.raises(WorkflowTimeoutError):
            await handler
    ended = [(span.name, facts(span)["agentflow.outcome"]) for span in spans.exporter.get_finished_spans()]
    let_go.set()
    assert ("execute_tool search", "cancelled") in ended
    assert ended[-1] == ("invoke_workflow Slow", "timeout")
    assert await asyncio.to_thread(over.wait, 10)
    assert len(spans.exporter.get_finished_spans()) == len(ended), "it ends once"


async def test_the_next_turn_of_a_conversation_and_a_run_from_a_checkpoint_name_where_they_come_from(
    spans: Spans,
) -> None:
    class Two(Workflow):
        @step
        async def one(self, ev: StartEvent) -> A:
            return A()

        @step
        async def two(self, ev: A) -> StopEvent:
            return StopEvent()

    checkpointer = WorkflowCheckpointer(Two())
    handler = checkpointer.run()
    await handler
    await Two().run(ctx=handler.ctx)
    await checkpointer.run_from(checkpointer.checkpoints[handler.run_id][0])
    first, turn, fork = spans.named("invoke_workflow Two")
    assert links(turn) == [(place(first).span_id, "continues")]
    assert links(fork) == [(place(first).span_id, "forked_from")]
    assert facts(turn)["agentflow.continues.run_id"] == facts(fork)["agentflow.forked_from.run_id"] == handler.run_id
    assert [facts(span)["agentflow.segment"] for span in (first, turn, fork)] == [1, 1, 1]
    assert len({place(span).trace_id for span in (first, turn, fork)}) == 3


async def test_two_observers_that_send_to_different_places_link_each_to_its_own(spans: Spans) -> None:
    other = Spans()
    with use_clock(FakeClock()) as clock:
        handler = Asks().run()
        await clock.settle()
        data = json.loads(json.dumps(handler.put_away()))
        again = Asks().run(ctx=Context.from_dict(Asks(), data))
        again.ctx.send_event(Answer())
        await again
    for seen in (spans, other):
        resumed(*seen.named("invoke_workflow Asks"))
    assert place(spans.named("invoke_workflow Asks")[0]) != place(other.named("invoke_workflow Asks")[0])
    other.provider.shutdown()


async def test_what_was_stored_is_no_place_where_it_is_damaged(spans: Spans) -> None:
    handler = Asks().run()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    data = handler.put_away()
    data["segment"]["luggage"]["traceparent"] = "nowhere"
    again = Asks().run(ctx=Context.from_dict(Asks(), data))
    again.ctx.send_event(Answer())
    await again
    second = spans.named("invoke_workflow Asks")[1]
    assert (facts(second)["agentflow.segment"], links(second)) == (2, [])


async def test_an_unsampled_run_stores_its_place_as_unsampled() -> None:
    seen = Spans(sampler=ALWAYS_OFF)
    handler = Asks().run()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    (stored,) = handler.put_away()["segment"]["luggage"].values()
    assert stored.endswith("-00")
    assert seen.exporter.get_finished_spans() == ()
    seen.provider.shutdown()


def test_spans_end_without_the_observer_where_the_loop_is_closed(spans: Spans) -> None:
    held: list[object] = []

    async def main() -> None:
        held.append(Asks().run())
        await asyncio.sleep(0.001)

    asyncio.run(main())
    assert [facts(span)["agentflow.outcome"] for span in spans.named("invoke_workflow Asks")] == ["suspended"]


def test_a_loop_in_another_thread_tells_of_its_runs_when_it_is_closed(spans: Spans) -> None:
    held: list[object] = []

    async def main() -> None:
        held.append(Asks().run())
        await asyncio.sleep(0.001)

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    thread.join()
    assert len(spans.named("invoke_workflow Asks")) == 1


async def test_a_paused_run_keeps_no_span(spans: Spans) -> None:
    with use_clock(FakeClock()) as clock:
        handlers = [Asks().run() for _ in range(50)]
        await clock.advance(GRACE + 1)
        gc.collect()
        assert [found for found in gc.get_objects() if isinstance(found, Span)] == []
        for handler in handlers:
            await handler.cancel_run()
    assert len(spans.named("invoke_workflow Asks")) == 100


_PROGRAM = """
import asyncio, json, sys
from agentflow import Context, HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent, Workflow, session, step
from agentflow_instrumentation import setup

class Ask(InputRequiredEvent): pass
class Answer(HumanResponseEvent): pass

class Flow(Workflow):
    @step
    async def ask(self, ev: StartEvent) -> Ask:
        return Ask()
    @step
    async def end(self, ev: Answer) -> StopEvent:
        return StopEvent()

async def start():
    with session("chat-42", user="ada"):
        handler = Flow().run()
    async for event in handler.stream_events():
        if isinstance(event, Ask):
            return json.dumps(handler.put_away())

async def go_on(stored):
    handler = Flow().run(ctx=Context.from_dict(Flow(), json.loads(stored)))
    handler.ctx.send_event(Answer())
    await handler

endpoint, *stored = sys.argv[1:]
with setup("otlp", endpoint=endpoint):
    print(asyncio.run(go_on(stored[0]) if stored else start()))
"""


def test_a_run_that_goes_on_in_another_process_is_linked_to_where_it_began(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(_PROGRAM, "utf-8")

    def run(*arguments: str) -> str:
        command = [sys.executable, str(program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert not done.returncode, done.stderr
        return done.stdout.strip()

    with OtlpReceiver() as receiver:
        stored = run(receiver.http_endpoint)
        run(receiver.http_endpoint, stored)
        receiver.wait_for(7)
    first, second = sorted(receiver.named("invoke_workflow Flow"), key=lambda span: span.start)
    assert (first.attributes["agentflow.outcome"], second.attributes["agentflow.outcome"]) == ("suspended", "ok")
    assert [(link.trace_id, link.span_id) for link in second.links] == [(first.trace_id, first.span_id)]
    assert second.attributes["agentflow.resumed_from.trace_id"] == first.trace_id != second.trace_id
    assert first.attributes["agentflow.run.id"] == second.attributes["agentflow.run.id"]
    for span in (first, second):
        assert span.attributes["session.id"] == span.attributes["gen_ai.conversation.id"] == "chat-42"
        assert span.attributes["user.id"] == "ada"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_process_that_is_forked_off_ends_no_span_of_its_parent(tmp_path: Path) -> None:
    program = tmp_path / "forks.py"
    program.write_text(
        "import asyncio, os, sys\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor\n"
        "from agentflow import StartEvent, StopEvent, Workflow, add_observer, step\n"
        "from agentflow_instrumentation import SpanObserver\n"
        "class Flow(Workflow):\n"
        "    @step\n"
        "    async def work(self, ev: StartEvent) -> StopEvent:\n"
        "        await asyncio.sleep(0.01)\n"
        "        return StopEvent()\n"
        "tell = lambda span: f'{os.getpid()} {span.name} {span.attributes[\"agentflow.outcome\"]}\\n'\n"
        "provider = TracerProvider()\n"
        "provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=tell)))\n"
        "observer = SpanObserver(provider)\n"
        "add_observer(observer)\n"
        "async def main():\n"
        "    handler = Flow().run()\n"
        "    await asyncio.sleep(0)\n"
        "    if child := os.fork():\n"
        "        os.waitpid(child, 0)\n"
        "        await handler\n"
        "        print(os.getpid(), 'is over', flush=True)\n"
        "    elif 'observer' in sys.argv:\n"
        "        observer.close()\n"
        "loop = asyncio.new_event_loop()\n"
        "loop.run_until_complete(main())\n"
        "if 'close' in sys.argv: loop.close()\n",
        "utf-8",
    )
    for how in ("leave", "close", "observer"):
        command = [sys.executable, "-W", "ignore::DeprecationWarning", str(program), how]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        lines = [line.partition(" ") for line in done.stdout.splitlines()]
        assert len({pid for pid, _, _ in lines}) == 1, done.stdout
        told = [rest for _, _, rest in lines]
        assert told == ["event StartEvent ok", "step work ok", "invoke_workflow Flow ok", "is over"], done.stderr
