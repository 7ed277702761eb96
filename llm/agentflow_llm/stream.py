"""An answer that comes in pieces."""

from __future__ import annotations

import asyncio
import re
import types
from functools import partial
from typing import TYPE_CHECKING, Any, Self
from weakref import ref

from agentflow.clock import current_clock

from .errors import LLMResponseError
from .messages import Delta, ReasoningPart, RefusalPart, Reply, TextPart, ToolCallPart

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Iterator
    from contextvars import Context
    from types import TracebackType

    from agentflow.clock import Timer

    from .errors import LLMError

_WORD = re.compile(r"\s*\S+\s*")


class TimeLimit:
    """How long a stream may take, and whether it took longer: then `error` is set, and ends it."""

    __slots__ = ("_late", "error", "seconds")

    def __init__(self, seconds: float, late: LLMError) -> None:
        self.seconds = seconds
        self._late = late
        self.error: LLMError | None = None

    def expire(self) -> None:
        """It took longer."""
        self.error = self._late


class ReplyStream:
    """The pieces of an answer: `async for delta in stream`. Afterwards `stream.reply` is the whole of it.

    `items` is what a model gives: deltas, and as its last item the reply that they make. Nothing is asked before the
    first piece is wanted. Who stops before the end closes it: `async with model.stream(messages) as stream`, or
    `await stream.aclose()`, also from another task, which then finds the stream at its end. Where neither happens,
    the connection is closed when nobody holds the stream any more.
    """

    def __init__(self, items: AsyncGenerator[Delta | Reply], limit: TimeLimit | None = None) -> None:
        self._items = items
        self._limit = limit
        self._timer: Timer | None = None
        self._reader: asyncio.Task[Any] | None = None
        self._stopped = False
        self._left: asyncio.Future[None] | None = None
        self._ended: asyncio.Future[None] | None = None
        self._reply: Reply | None = None

    @property
    def reply(self) -> Reply:
        """The whole answer. Raises `LLMResponseError` before the end of the stream."""
        if self._reply is None:
            raise LLMResponseError("The stream has not come to its end. Read it first: async for delta in stream.")
        return self._reply

    async def read(self) -> Reply:
        """Read what is left, and return the whole answer."""
        async for _ in self:
            pass
        return self.reply

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delta:
        if self._stopped:
            await self._end()
            raise self._reason()
        if self._timer is None and self._limit is not None:
            self._timer = current_clock().call_later(self._limit.seconds, partial(_expire, ref(self)))
        self._reader = reader = asyncio.current_task()
        cancelling = reader.cancelling() if reader is not None else 0
        try:
            async for item in self._items:
                if isinstance(item, Delta):
                    return item
                self._reply = item
        except BaseException as error:
            self._stop_timer()
            if not self._stopped or reader is None:
                raise
            # the reader was cancelled from here; a cancellation from elsewhere at the same time goes on
            if reader.uncancel() > cancelling and isinstance(error, asyncio.CancelledError):
                raise
            raise self._reason() from None
        finally:
            self._reader = None
            if self._left is not None:
                self._left.set_result(None)
                self._left = None
        self._stop_timer()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the stream now. A task that waits for its next piece finds it at its end."""
        self._stop_timer()
        self._stop()
        if self._reader is None:
            await self._end()
            return
        if self._left is None:
            self._left = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._left)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _end(self) -> None:
        """Close what gives the pieces. Several tasks may want that at once, and a generator is closed by one."""
        if self._ended is not None:
            await asyncio.shield(self._ended)
            return
        self._ended = asyncio.get_running_loop().create_future()
        try:
            await self._items.aclose()
        finally:
            self._ended.set_result(None)

    def _reason(self) -> BaseException:
        """What a reader is told whom the end surprises."""
        late = None if self._limit is None else self._limit.error
        return late or StopAsyncIteration()

    def expire(self) -> None:
        """Its time is over."""
        assert self._limit is not None
        if not self._stopped:
            self._limit.expire()
            self._stop()

    def _stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            if self._reader is not None:
                self._reader.cancel()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _expire(stream: ref[ReplyStream]) -> None:
    # the timer does not hold the stream: it is closed when nobody else does
    there = stream()
    if there is not None:
        there.expire()


@types.coroutine
def in_context(context: Context, steps: Any) -> Generator[Any, Any, Any]:
    """Await a coroutine in a context of its own, in the task that awaits this.

    What it sets is seen by nobody else, and its parts may be awaited from several tasks, as those of a stream are.
    """
    try:
        waiting = context.run(steps.send, None)
        while True:
            try:
                answer = yield waiting
            except GeneratorExit:
                context.run(steps.close)
                raise
            except BaseException as error:  # noqa: BLE001 because it goes to where it would have gone without this
                waiting = context.run(steps.throw, error)
            else:
                waiting = context.run(steps.send, answer)
    except StopIteration as done:
        return done.value


def pieces_of(reply: Reply) -> Iterator[Delta]:
    """A reply that is there already as a stream would bring it, text word by word."""
    calls = 0
    for part in reply.message.content:
        match part:
            case TextPart():
                for word in _WORD.findall(part.text) or ([part.text] if part.text else []):
                    yield Delta(text=word)
            case ReasoningPart():
                yield Delta(type="reasoning", text=part.text)
            case RefusalPart():
                yield Delta(type="refusal", text=part.text)
            case ToolCallPart():
                yield Delta(type="tool_call", text=part.arguments, index=calls, id=part.id, name=part.name)
                calls += 1
            case _:
                pass
