"""A stream: nothing is asked too early, it ends when it is told to, and it keeps its context to itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import suppress
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from agentflow.clock import use_clock
from agentflow.observe import Kind, Operation, current_scope, operation
from agentflow.testing import FakeClock, record
from agentflow_llm import (
    BaseChatModel,
    ChatCall,
    Delta,
    Fallback,
    LLMConnectionError,
    LLMError,
    LLMResponseError,
    LLMTimeoutError,
    OpenAI,
    Reply,
    ReplyStream,
    Retrying,
)
from agentflow_llm.server import Answer, LoopbackServer
from agentflow_llm.stream import unseen
from flaky import HELLO, WORDS, Flaky

said: ContextVar[str] = ContextVar("said", default="nothing")
OBSERVED = pytest.mark.parametrize("observed", [True, False])


class Stuck(Flaky):
    """Comes to no end after so many pieces."""

    def __init__(self, pieces: int, **how: Any) -> None:
        super().__init__(**how)
        self.pieces = pieces

    async def deltas(self, call: ChatCall) -> AsyncGenerator[Delta | Reply]:
        self._begin(call)
        try:
            for word in WORDS[: self.pieces]:
                yield Delta(text=word)
            await asyncio.Event().wait()
        finally:
            try:
                await asyncio.sleep(0)
            finally:
                self.open -= 1


async def test_nothing_is_asked_before_the_first_piece_is_wanted() -> None:
    model = Flaky()
    with record() as seen:
        stream = model.stream(HELLO)
        await asyncio.sleep(0)
        assert (model.asked, seen.operations) == ([], [])
        assert (await anext(stream)).text == "one "
    assert len(model.asked) == 1
    await stream.aclose()


async def test_closed_before_it_began_it_asks_nothing() -> None:
    model = Flaky()
    with record() as seen:
        stream = model.stream(HELLO)
        await stream.aclose()
        assert [delta async for delta in stream] == []
    assert (model.asked, seen.operations) == ([], [])


async def test_reply_is_there_at_the_end_and_not_before() -> None:
    stream = Flaky().stream(HELLO)
    await anext(stream)
    with pytest.raises(LLMResponseError, match="Read it first: async for delta in stream"):
        _ = stream.reply
    pieces = [delta.text async for delta in stream]
    assert pieces == ["two ", "three ", "four"]
    assert stream.reply.text == "one two three four"
    assert [delta async for delta in stream] == []
    assert await stream.read() is stream.reply


async def test_operation_has_the_reply_and_the_time_of_the_first_piece() -> None:
    with record() as seen:
        reply = await Flaky().stream(HELLO).read()
    (op,) = seen.operations
    assert (op.kind, op.outcome, op.result) == (Kind.CHAT, "ok", reply)
    (note,) = seen.notes[op.ref.id]
    assert note.name == "first_chunk"
    assert 0 <= note.facts["after"] < 5


@OBSERVED
async def test_left_early_it_is_closed_and_its_operation_is_cancelled(*, observed: bool) -> None:
    model = Flaky()
    with record(None if observed else frozenset()) as seen:
        async with model.stream(HELLO) as stream:
            await anext(stream)
            assert model.open == 1
    assert model.open == 0
    assert [op.outcome for op in seen.operations] == ["cancelled"] * observed


@OBSERVED
async def test_error_on_the_way_ends_the_operation(*, observed: bool) -> None:
    model = Flaky(fails_after=LLMConnectionError("cut"))
    with record(None if observed else frozenset()) as seen, pytest.raises(LLMConnectionError):
        await model.stream(HELLO).read()
    assert model.open == 0
    assert [op.outcome for op in seen.operations] == ["error"] * observed


@OBSERVED
@pytest.mark.parametrize("pieces", range(3))
async def test_limit_of_time_ends_a_stream_that_waits(pieces: int, *, observed: bool) -> None:
    model = Stuck(pieces, timeout=10)
    stream = model.stream(HELLO)
    with use_clock(FakeClock()) as clock, record(None if observed else frozenset()) as seen:
        reading = asyncio.ensure_future(stream.read())
        await clock.advance(9)
        assert not reading.done()
        await clock.advance(1)
        with pytest.raises(LLMTimeoutError, match="within 10 s"):
            await reading
        assert (model.open, clock.pending) == (0, [])
    assert not reading.cancelling()
    assert [op.outcome for op in seen.operations] == ["timeout"] * observed


async def test_limit_of_time_goes_on_while_nobody_reads() -> None:
    model = Flaky()
    with use_clock(FakeClock()) as clock, record() as seen:
        stream = model.stream(HELLO, timeout=10)
        await anext(stream)
        await clock.advance(11)
        with pytest.raises(LLMTimeoutError):
            await anext(stream)
        with pytest.raises(LLMTimeoutError):
            await anext(stream)
    assert model.open == 0
    assert seen.operations[0].outcome == "timeout"


async def test_limit_of_time_begins_with_the_first_piece_that_is_wanted() -> None:
    with use_clock(FakeClock()) as clock:
        stream = Flaky().stream(HELLO, timeout=10)
        await clock.advance(100)
        assert (await stream.read()).text
        assert clock.pending == []


async def test_reader_that_is_cancelled_at_the_same_time_stays_cancelled() -> None:
    stream = Stuck(0).stream(HELLO)
    reading = asyncio.ensure_future(stream.read())
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(stream.aclose())
    await asyncio.sleep(0)
    reading.cancel()
    await closing
    await asyncio.wait([reading])
    assert reading.cancelled()


@OBSERVED
@pytest.mark.parametrize("pieces", range(3))
async def test_closed_from_another_task_its_reader_finds_it_at_its_end(pieces: int, *, observed: bool) -> None:
    model = Stuck(pieces)
    stream = model.stream(HELLO)
    with record(None if observed else frozenset()) as seen:

        async def read() -> list[str]:
            return [delta.text async for delta in stream]

        reading = asyncio.ensure_future(read())
        for _ in range(10):
            await asyncio.sleep(0)
        await asyncio.gather(stream.aclose(), stream.aclose())
        assert model.open == 0
        assert await reading == [*WORDS[:pieces]]
        assert not reading.cancelling()
    assert [op.outcome for op in seen.operations] == ["cancelled"] * observed


@OBSERVED
@pytest.mark.parametrize("timeout", [None, 60])
async def test_dropped_it_is_closed_at_once(timeout: float | None, *, observed: bool) -> None:
    model = Flaky(timeout=timeout)
    with record(None if observed else frozenset()) as seen:
        stream = model.stream(HELLO)
        await anext(stream)
        del stream
        for _ in range(10):
            await asyncio.sleep(0)
    assert model.open == 0
    assert [op.outcome for op in seen.operations] == ["cancelled"] * observed


@OBSERVED
async def test_pieces_may_be_read_by_several_tasks_one_after_the_other(*, observed: bool) -> None:
    with record(None if observed else frozenset()):
        stream = Flaky().stream(HELLO)
        pieces = [(await asyncio.ensure_future(_next(stream))).text for _ in WORDS]
        assert (await asyncio.ensure_future(stream.read())).text
    assert pieces == [*WORDS]


async def _next(stream: ReplyStream) -> Delta:
    return await anext(stream)


async def test_operation_is_current_for_the_request_and_for_nobody_else() -> None:
    class Asking(Flaky):
        async def deltas(self, call: ChatCall) -> AsyncGenerator[Delta | Reply]:
            with operation(Kind.TOOL, "request"):
                await asyncio.sleep(0)
            async for item in super().deltas(call):
                yield item

    with record() as seen:
        async for _ in Asking().stream(HELLO):
            assert current_scope.get() is None
            with operation(Kind.TOOL, "between"):
                pass
    (chat,) = seen.find(Kind.CHAT)
    assert [op.name for op in seen.children(chat)] == ["request"]
    assert all(op.parent is None for op in seen.find(name="between"))
    assert current_scope.get() is None


async def test_what_an_observer_makes_current_stays_inside() -> None:
    class Marking(Flaky):
        async def deltas(self, call: ChatCall) -> AsyncGenerator[Delta | Reply]:
            inside.append(said.get())
            async for item in super().deltas(call):
                yield item

    inside: list[str] = []
    with record() as seen:

        def mark(op: Operation) -> None:
            said.set(f"in {op.kind}")

        seen.started = mark  # type: ignore[method-assign]  # because this observer is of this test alone
        async for _ in Marking().stream(HELLO):
            assert said.get() == "nothing"
    assert inside == ["in chat"]
    assert said.get() == "nothing"


async def _set_and_wait() -> str:
    before = said.get()
    said.set(f"{before}, once")
    await asyncio.sleep(0)
    return said.get()


async def test_unseen_keeps_what_is_set_and_sees_what_was_set() -> None:
    context = copy_context()
    context.run(said.set, "inside")
    assert await unseen(_set_and_wait, context) == "inside, once"
    assert await asyncio.ensure_future(_awaiting(unseen(_set_and_wait, context))) == "inside, once, once"
    assert said.get() == "nothing"


async def _awaiting(what: Any) -> Any:
    return await what


async def test_unseen_passes_errors_and_cancellation_on() -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await unseen(fail, copy_context())
    left: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            left.append("left")

    waiting = asyncio.ensure_future(_awaiting(unseen(wait, copy_context())))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert left == ["left"]


async def test_unseen_may_go_on_after_an_error() -> None:
    async def stubborn() -> str:
        with suppress(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        await asyncio.sleep(0)
        return "done"

    assert await unseen(stubborn, copy_context()) == "done"


def test_unseen_closes_what_is_dropped() -> None:
    left: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            left.append(said.get())

    async def begin() -> None:
        context = copy_context()
        context.run(said.set, "inside")
        waiting: Any = _awaiting(unseen(wait, context))
        waiting.send(None)
        waiting.close()

    asyncio.run(begin())
    assert left == ["inside"]


@pytest.mark.parametrize("way", ["stream", "wrapped", "completion", "kept"])
@OBSERVED
def test_stream_that_is_open_when_its_loop_ends_is_closed_in_silence(
    way: str, *, observed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    kept: list[Any] = []

    async def leave(model: BaseChatModel) -> None:
        pieces: Any = await model.astream_complete("Hello") if way == "completion" else model.stream(HELLO)
        if way == "kept":
            kept.append(pieces)
        async for _ in pieces:
            if way == "kept":
                return
            raise ZeroDivisionError

    def run(model: BaseChatModel) -> None:
        with record(None if observed else frozenset()) as seen, suppress(ZeroDivisionError):
            asyncio.run(leave(Retrying(Fallback([model])) if way == "wrapped" else model))
        assert seen.open() == []

    with caplog.at_level(logging.WARNING), LoopbackServer([Answer("one two three", drip=0.01)]) as server:
        flaky = Flaky()
        run(flaky)
        run(OpenAI("m", base_url=server.base_url, api_key="k"))
    assert flaky.open == 0
    assert [record.getMessage() for record in caplog.records] == []


async def test_stream_that_was_closed_says_so() -> None:
    stream = Flaky().stream(HELLO)
    await anext(stream)
    await stream.aclose()
    with pytest.raises(LLMResponseError, match="was closed before its end"):
        await stream.read()


async def test_reader_of_a_stream_that_another_task_closes_is_told_so() -> None:
    stream = Stuck(1).stream(HELLO)
    reading = asyncio.ensure_future(stream.read())
    for _ in range(5):
        await asyncio.sleep(0)
    await stream.aclose()
    with pytest.raises(LLMResponseError, match="was closed before its end"):
        await reading


async def test_stream_that_failed_says_so() -> None:
    stream = Flaky(fails_after=LLMConnectionError("cut off")).stream(HELLO)
    with pytest.raises(LLMConnectionError):
        await stream.read()
    with pytest.raises(LLMResponseError, match="failed before its end: LLMConnectionError: cut off"):
        await stream.read()


async def test_reply_stays_when_its_stream_is_closed() -> None:
    stream = Flaky().stream(HELLO)
    reply = await stream.read()
    await stream.aclose()
    assert stream.reply is reply


async def test_second_reader_is_refused_and_the_first_goes_on() -> None:
    stream = Flaky(takes=1).stream(HELLO)
    with use_clock(FakeClock()) as clock:
        first = asyncio.ensure_future(stream.read())
        await clock.settle()
        with pytest.raises(LLMError, match="is being read by another task"):
            await anext(stream)
        await clock.advance(1)
    assert (await first).text == "one two three four"
