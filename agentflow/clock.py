"""Time as the engine sees it, replaceable: a test of three days of back-off takes no time.

The clock in force is taken when a run starts, from a context variable, so that replacing it
touches only what is started inside `use_clock`.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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

    async def sleep(self, delay: float) -> None:
        """Suspend the calling task for `delay` seconds."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.call_later(delay, lambda: waiter.done() or waiter.set_result(None))
        try:
            await waiter
        finally:
            timer.cancel()


class Limit:
    """A time limit on a block of the current task, which can be paused.

    `asyncio.timeout` does the cancelling, so that nested limits and outside cancellation keep apart;
    the clock in force says when.
    """

    __slots__ = ("_clock", "_left", "_since", "_timer", "expired", "inner")

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._left = seconds
        self._since = 0.0
        self._timer: Timer | None = None
        self.inner = asyncio.timeout(None)
        self.expired = False

    def resume(self) -> None:
        """Let the time run."""
        self._since = self._clock.monotonic()
        self._timer = self._clock.call_later(self._left, self._expire)

    def pause(self) -> None:
        """Stop the time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._left = max(0.0, self._left - (self._clock.monotonic() - self._since))

    def _expire(self) -> None:
        self._timer = None
        self.expired = True
        self.inner.reschedule(asyncio.get_running_loop().time())


_current: ContextVar[Clock] = ContextVar("agentflow_clock", default=Clock())


def current_clock() -> Clock:
    """The clock in force here."""
    return _current.get()


@contextmanager
def use_clock(clock: Clock) -> Iterator[Clock]:
    """Put `clock` in force for everything that is started inside the block."""
    token = _current.set(clock)
    try:
        yield clock
    finally:
        _current.reset(token)
