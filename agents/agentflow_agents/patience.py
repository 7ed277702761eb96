"""How long one call of a tool is waited for, and what becomes of its thread."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from agentflow.clock import current_clock

from .threads import THREADS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


class Patience:
    """The limits of one call, and the thread that it may leave behind."""

    def __init__(self) -> None:
        self._limits: list[asyncio.Timeout] = []
        self._ended: asyncio.Future[None] | None = None
        self.due: float | None = None
        """When its time is over, by the clock's `monotonic`; None for never."""
        self.has_begun = False
        """Has its turn come?"""

    async def limited(self, seconds: float, call: Awaitable[T]) -> T:
        """Await it for so many seconds. Raises `TimeoutError`."""
        clock = current_clock()
        due = clock.monotonic() + seconds
        self.due = due if self.due is None else min(due, self.due)
        limit = clock.timeout(seconds)
        self._limits.append(limit)
        try:
            async with limit:
                return await call
        except TimeoutError as error:
            if not limit.expired():
                raise
            what = "did not end" if self.has_begun else "could not begin"
            raise TimeoutError(f"it {what} within {seconds:.3g} s") from error

    async def in_thread(self, call: Callable[[], Any]) -> Any:
        """Call it in a thread. No thread can be interrupted: cancelling waits for it, a limit leaves it behind."""
        work = THREADS.start(call)
        self._ended = work.ended
        try:
            return await work.result
        except asyncio.CancelledError:
            if not any(limit.expired() for limit in self._limits):
                await asyncio.wait([work.ended])
            if work.result.done() and not work.result.cancelled():
                work.result.exception()  # it came at the same time; nobody will hear of it, and asyncio would say so
            raise
        finally:
            del work  # it holds the error, which holds this frame

    def when_over(self, act: Callable[[], None]) -> None:
        """Act as soon as no thread works on the call."""
        if self._ended is None or self._ended.done():
            act()
        else:
            self._ended.add_done_callback(lambda _: act())
