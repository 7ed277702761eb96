"""An answer that comes in pieces."""

from __future__ import annotations

import asyncio
import re
import sys
import types
from functools import partial
from typing import TYPE_CHECKING, Any, Self
from weakref import ref

from agentflow.clock import current_clock

from .closing import Closing
from .errors import LLMError, LLMResponseError
from .messages import Delta, ReasoningPart, RefusalPart, Reply, TextPart, ToolCallPart

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterator
    from contextvars import Context

    from agentflow.clock import Timer

_WORD = re.compile(r"\s*\S+\s*")


class TimeLimit:
    """How long a stream may take, and whether it took longer: then `error` is set, and ends it."""

    __slots__ = ("_late", "error", "seconds")

    def __init__(self, seconds: float, late: Callable[[], LLMError]) -> None:
        self.seconds = seconds
        self._late = late
        self.error: LLMError | None = None

    def expire(self) -> None:
        """It took longer."""
        self.error = self._late()


class ReplyStream(Closing):
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
        self._over = False
        self._failure = ""
        self._left: asyncio.Future[None] | None = None
        self._ended: asyncio.Future[None] | None = None
        self._reply: Reply | None = None

    @property
    def reply(self) -> Reply:
        """The whole answer. Raises `LLMResponseError` before the end of the stream, and where it has none."""
        if self._reply is None:
            raise LLMResponseError(f"The stream {self._state()}")
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
        if self._reader is not None:
            raise LLMError("The stream is being read by another task. Let one read it, and hand on what it gives.")
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
                self._failure = f"{type(error).__name__}: {error}"
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
        self._over = True
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

    def _state(self) -> str:
        """Why there is no reply."""
        late = None if self._limit is None else self._limit.error
        if self._failure or late is not None:
            return f"failed before its end: {self._failure or late}"
        if self._over:
            return "ended without a Reply: deltas() yields it last."
        if self._stopped:
            return "was closed before its end."
        return "has not come to its end. Read it first: async for delta in stream."

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


def _step(context: Context | None, step: Callable[..., Any], *given: Any) -> Any:
    firstiter = sys.get_asyncgen_hooks().firstiter
    sys.set_asyncgen_hooks(firstiter=None)
    try:
        return step(*given) if context is None else context.run(step, *given)
    finally:
        sys.set_asyncgen_hooks(firstiter=firstiter)


@types.coroutine
def unseen(begin: Callable[[], Any], context: Context | None = None) -> Generator[Any, Any, Any]:
    """Await what `begin` gives, in this task, so that the event loop hears of no generator that is begun in it.

    When it ends, a loop closes all generators that it knows, at the same time. One inside another is closed by that
    and by the loop, and one of them fails. So a loop knows only the outermost of a stream.

    In a context of its own, what is set is seen by nobody else, and its parts may be awaited from several
    tasks, as those of a stream are.
    """
    steps = _step(context, begin)
    try:
        waiting = _step(context, steps.send, None)
        while True:
            try:
                answer = yield waiting
            except GeneratorExit:
                _step(context, steps.close)
                raise
            except BaseException as error:  # noqa: BLE001 because it goes to where it would have gone without this
                waiting = _step(context, steps.throw, error)
            else:
                waiting = _step(context, steps.send, answer)
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
