"""Time as the engine sees it, replaceable: a test of three days of back-off takes no time.

The clock in force is taken when a run starts, from a context variable, so that replacing it
touches only what is started inside `use_clock`.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


class Timer(Protocol):
    """What `Clock.call_later` returns."""

    def cancel(self) -> None:
        """Make sure that the callback is not called any more."""
        ...


class Clock:
    """The system's clock and the event loop's timers."""

    def time(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""
        return time.monotonic()

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` in the running event loop after `delay` seconds."""
        return asyncio.get_running_loop().call_later(delay, callback)

    def timeout(self, seconds: float) -> asyncio.Timeout:
        """A time limit on an `async with` block of the current task, as `asyncio.timeout`."""
        return asyncio.timeout(seconds)

    def pause(self, limit: asyncio.Timeout) -> float:
        """Let the time of a limit stand still; returns the seconds that are left."""
        due = limit.when()
        limit.reschedule(None)
        return 0.0 if due is None else max(0.0, due - asyncio.get_running_loop().time())

    def resume(self, limit: asyncio.Timeout, left: float) -> None:
        """Let the time of a limit run again."""
        limit.reschedule(asyncio.get_running_loop().time() + left)

    async def sleep(self, delay: float) -> None:
        """Suspend the calling task for `delay` seconds."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.call_later(delay, partial(_wake, waiter))
        try:
            await waiter
        finally:
            timer.cancel()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


ClockT = TypeVar("ClockT", bound=Clock)

_SYSTEM = Clock()
_current: ContextVar[Clock] = ContextVar("agentflow_clock", default=_SYSTEM)


def current_clock() -> Clock:
    """The clock in force here."""
    return _current.get()


@contextmanager
def use_clock(clock: ClockT) -> Generator[ClockT]:
    """Put `clock` in force for everything that is started inside the block."""
    token = _current.set(clock)
    try:
        yield clock
    finally:
        _current.reset(token)
