"""A streamed chat is one span: it ends on every path, and the reader's own span is never another one for it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from agentflow import Context, Event, StartEvent, StopEvent, Workflow, step
from agentflow.clock import use_clock
from agentflow.observe import Kind, Note, Observer, Operation, add_observer, current_scope, operation
from agentflow.retry import Retry
from agentflow.testing import FakeClock
from agentflow_instrumentation import SpanObserver
from agentflow_llm.chat import BaseChatModel
from agentflow_llm.errors import LLMServerError, LLMTimeoutError
from agentflow_llm.messages import ChatMessage, Delta, Reply, Usage
from agentflow_llm.records import ChatCall

QUESTION = [ChatMessage(role="user", content="Why?")]
ANSWER = Reply(
    message=ChatMessage(role="assistant", content="one two three"),
    finish_reason="stop",
    model="drip-1",
    usage=Usage(input_tokens=3, output_tokens=3, http_requests=1),
)


class Seen:
    """The spans that have ended, and a tracer of the user's own."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = provider.get_tracer("the user's")
        add_observer(SpanObserver(provider))

    def one(self, name: str) -> ReadableSpan:
        (found,) = (span for span in self.exporter.get_finished_spans() if span.name == name)
        return found

    def tree(self) -> list[str]:
        """What has ended, as it began, with its outcome; without events."""
        spans = sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)
        lines: list[str] = []

        def show(parent: int | None, depth: int) -> None:
            for span in spans:
                if (span.parent.span_id if span.parent else None) == parent and not span.name.startswith("event "):
                    outcome = (span.attributes or {}).get("agentflow.outcome", "ok")
                    lines.append(f"{'  ' * depth}{span.name}{'' if outcome == 'ok' else f' {outcome}'}")
                    assert span.context
                    show(span.context.span_id, depth + 1)

        show(None, 0)
        return lines


def facts(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


@pytest.fixture
def seen(caplog: pytest.LogCaptureFixture) -> Iterator[Seen]:
    """Nothing may be logged, and nothing left current."""
    with caplog.at_level(logging.DEBUG):
        yield Seen()
    assert not [r for r in caplog.records if r.name != "asyncio" or r.levelno > logging.DEBUG]
    assert otel.get_current() == {}


class Drip(BaseChatModel):
    """Sends its request in a span of its own, as an instrumented HTTP client does, and answers piece by piece.

    - `fails`: so many attempts fail before the first piece; `breaks`: so many pieces come before the connection breaks.
    - `stuck`: so many pieces come, and then no more.
    """

    def __init__(
        self, tracer: trace.Tracer, *, fails: int = 0, breaks: int | None = None, stuck: int | None = None
    ) -> None:
        super().__init__("drip", "drip", retry=Retry(attempts=3, wait=1))
        self.tracer = tracer
        self.fails = fails
        self.breaks = breaks
        self.stuck = stuck
        self.around: list[str] = []
        self.closed = 0

    async def answer(self, call: ChatCall) -> Reply:
        return ANSWER

    async def deltas(self, call: ChatCall) -> AsyncGenerator[Delta | Reply]:
        with self.tracer.start_as_current_span("POST"):
            await asyncio.sleep(0)
        if self.fails:
            self.fails -= 1
            error = LLMServerError("busy", status=503)
            error.http_requests = 1
            raise error
        try:
            for number, word in enumerate(("one", " two", " three")):
                if number == self.breaks:
                    raise LLMServerError("cut", request_id="req-7")
                if number == self.stuck:
                    await asyncio.Event().wait()
                self.around.append(current_name())
                yield Delta(text=word)
            yield ANSWER
        finally:
            self.closed += 1


def current_name() -> str:
    return getattr(trace.get_current_span(), "name", "nothing")


async def test_a_stream_in_a_step_is_a_span_of_the_step_with_the_requests_inside(seen: Seen) -> None:
    model = Drip(seen.tracer)
    inside: list[str] = []

    class Streams(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            scope = current_scope.get()
            async for delta in model.stream(QUESTION):
                inside.append(current_name())
                assert current_scope.get() is scope
                ctx.write_event_to_stream(Event(msg=delta.text))
                with seen.tracer.start_as_current_span("mine"), operation(Kind.TOOL, "tool"):
                    pass
            inside.append(current_name())
            return StopEvent()

    await Streams().run()
    assert inside == ["step ask"] * 4
    assert model.around == ["chat drip", "step ask", "step ask"]
    assert seen.tree() == [
        "invoke_workflow Streams",
        "  step ask",
        "    chat drip",
        "      POST",
        *["    mine", "      execute_tool tool"] * 3,
    ]
    told = facts(seen.one("chat drip"))
    assert told["gen_ai.request.stream"] is True
    assert 0 < told["gen_ai.response.time_to_first_chunk"] < 10
    assert (told["gen_ai.response.model"], told["gen_ai.usage.output_tokens"]) == ("drip-1", 3)
    assert not seen.one("chat drip").events


async def test_the_span_of_whoever_reads_a_stream_outside_of_runs_is_unchanged(seen: Seen) -> None:
    with seen.tracer.start_as_current_span("mine"):
        async with Drip(seen.tracer).stream(QUESTION) as stream:
            async for _ in stream:
                assert current_name() == "mine"
        assert current_name() == "mine"
    assert seen.tree() == ["mine", "  chat drip", "    POST"]


async def test_attempts_before_the_first_piece_are_inside_of_the_span(seen: Seen) -> None:
    clock = FakeClock()
    with use_clock(clock):
        reading = asyncio.ensure_future(Drip(seen.tracer, fails=2).stream(QUESTION).read())
        await clock.advance(10)
        assert (await reading).text == "one two three"
    assert seen.tree() == ["chat drip", *["  POST"] * 3]
    told = facts(seen.one("chat drip"))
    assert (told["agentflow.llm.attempts"], told["agentflow.llm.retry.wait"]) == (3, 2)
    assert told["agentflow.llm.http_requests"] == 3
    assert [event.name for event in seen.one("chat drip").events] == ["agentflow.retry"] * 2


async def test_a_stream_that_is_closed_early_ends_its_span_as_cancelled(seen: Seen) -> None:
    model = Drip(seen.tracer)
    async with model.stream(QUESTION) as stream:
        async for _ in stream:
            break
        assert not seen.tree()
    span = seen.one("chat drip")
    assert (span.status.status_code, model.closed) == (StatusCode.UNSET, 1)
    told = facts(span)
    assert (told["agentflow.outcome"], told["gen_ai.request.stream"]) == ("cancelled", True)
    assert "gen_ai.usage.output_tokens" not in told


@pytest.mark.parametrize("stuck", [0, 1])
async def test_a_stream_that_is_closed_from_another_task_ends_its_span(seen: Seen, stuck: int) -> None:
    """Also while its reader waits, before the first piece and after it."""
    model = Drip(seen.tracer, stuck=stuck)
    stream = model.stream(QUESTION)
    reading = asyncio.ensure_future(_texts(stream))
    for _ in range(10):
        await asyncio.sleep(0)
    closing = asyncio.get_running_loop().create_task(stream.aclose(), context=contextvars.Context())
    await closing
    assert await reading == ["one"][:stuck]
    assert seen.tree() == ["chat drip cancelled", "  POST"]
    assert model.closed == 1


async def _texts(stream: Any) -> list[str]:
    return [delta.text async for delta in stream]


async def test_a_stream_that_was_begun_in_a_step_and_is_closed_elsewhere_belongs_to_the_step(seen: Seen) -> None:
    held: list[Any] = []

    class Begins(Workflow):
        @step
        async def ask(self, ev: StartEvent) -> StopEvent:
            held.append(Drip(seen.tracer).stream(QUESTION))
            await anext(held[0])
            return StopEvent()

    async def close() -> None:
        with seen.tracer.start_as_current_span("mine"):
            await held[0].aclose()
            assert current_name() == "mine"

    await Begins().run()
    await asyncio.get_running_loop().create_task(close())
    assert seen.tree() == ["invoke_workflow Begins", "  step ask", "    chat drip cancelled", "      POST", "mine"]


async def test_a_stream_that_nobody_holds_any_more_ends_its_span(seen: Seen) -> None:
    model = Drip(seen.tracer)
    stream = model.stream(QUESTION)
    await anext(stream)
    del stream
    gc.collect()
    for _ in range(10):
        await asyncio.sleep(0)
    assert seen.tree() == ["chat drip cancelled", "  POST"]
    assert model.closed == 1


def test_a_stream_that_is_left_when_the_loop_ends_ends_its_span(seen: Seen) -> None:
    held: list[Any] = []

    async def main() -> None:
        held.append(Drip(seen.tracer).stream(QUESTION))
        await anext(held[0])

    asyncio.run(main())
    assert seen.tree() == ["chat drip cancelled", "  POST"]


async def test_a_stream_that_nobody_reads_is_no_span(seen: Seen) -> None:
    async with Drip(seen.tracer).stream(QUESTION):
        pass
    assert not seen.tree()


async def test_a_stream_that_breaks_is_an_error_with_what_the_server_said(seen: Seen) -> None:
    with pytest.raises(LLMServerError):
        await Drip(seen.tracer, breaks=1).stream(QUESTION).read()
    span = seen.one("chat drip")
    assert span.status.status_code is StatusCode.ERROR
    told = facts(span)
    assert told["error.type"] == "agentflow_llm.errors.LLMServerError"
    assert told["agentflow.llm.request_id"] == "req-7"
    assert told["gen_ai.request.stream"] is True


async def test_a_stream_that_takes_too_long_is_a_time_out(seen: Seen) -> None:
    clock = FakeClock()
    with use_clock(clock):
        reading = asyncio.ensure_future(Drip(seen.tracer, stuck=1).stream(QUESTION, timeout=5).read())
        await clock.advance(10)
        with pytest.raises(LLMTimeoutError):
            await reading
    assert seen.tree() == ["chat drip timeout", "  POST"]


async def test_a_step_that_is_cancelled_while_it_reads_ends_both_spans(seen: Seen) -> None:
    class Reads(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            async with Drip(seen.tracer, stuck=1).stream(QUESTION) as stream:
                async for _ in stream:
                    ctx.write_event_to_stream(Event())
            return StopEvent()

    handler = Reads().run()
    async for _ in handler.stream_events():
        await handler.cancel_run()
        break
    assert seen.tree() == [
        "invoke_workflow Reads cancelled",
        "  step ask cancelled",
        "    chat drip cancelled",
        "      POST",
    ]


async def test_two_streams_that_are_read_in_turns_do_not_mix(seen: Seen) -> None:
    with seen.tracer.start_as_current_span("mine"):
        first, second = (Drip(seen.tracer).stream(QUESTION) for _ in range(2))
        async for _ in first:
            await anext(second)
            assert current_name() == "mine"
        await second.read()
    assert seen.tree() == ["mine", *["  chat drip", "    POST"] * 2]


async def test_a_completion_in_pieces_is_the_same_chat(seen: Seen) -> None:
    parts = await Drip(seen.tracer).astream_complete("Why?")
    async with aclosing(parts) as pieces:  # type: ignore[type-var]  # because the protocol promises less
        assert [str(part) async for part in pieces][-1] == "one two three"
    assert seen.tree() == ["chat drip", "  POST"]


@pytest.mark.parametrize("early", [False, True])
async def test_an_observer_is_told_of_the_end_where_it_was_told_of_the_beginning(seen: Seen, *, early: bool) -> None:
    """What it made current there it can take back, by its token."""
    current: contextvars.ContextVar[str] = contextvars.ContextVar("current", default="nothing")
    taken_back: list[str] = []

    class Binds(Observer):
        kinds = frozenset({Kind.CHAT})

        def started(self, op: Operation) -> None:
            self.token = current.set(op.name)

        def finished(self, op: Operation, error: BaseException | None) -> None:
            taken_back.append(current.get())
            current.reset(self.token)

    add_observer(Binds())
    async with Drip(seen.tracer).stream(QUESTION) as stream:
        async for _ in stream:
            assert current.get() == "nothing"
            if early:
                break
    assert taken_back == ["drip"]


async def test_an_observer_hears_of_a_stream_a_fixed_number_of_times(seen: Seen) -> None:
    """However many pieces there are: when it begins, at the first piece, and when it ends."""
    told: list[str] = []

    class Counts(Observer):
        kinds = frozenset({Kind.CHAT})

        def started(self, op: Operation) -> None:
            told.append("started")

        def noted(self, op: Operation, note: Note) -> None:
            told.append(note.name)

        def finished(self, op: Operation, error: BaseException | None) -> None:
            told.append("finished")

    add_observer(Counts())
    await Drip(seen.tracer).stream(QUESTION).read()
    assert told == ["started", "first_chunk", "finished"]
