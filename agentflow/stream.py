"""The stream of a run: one ring of events, and any number of followers, each at its own place.

The writer never blocks. Events are numbered from 1. A follower that falls behind what the ring still
holds is given a `StreamGap` in place of what it missed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from .errors import WorkflowRuntimeError
from .events import StreamGap

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from .events import Event

CAPACITY = 65_536
_SEGMENT = 1_024


class Ring:
    """The newest events of a stream, in segments, so that dropping the oldest is cheap."""

    __slots__ = ("_capacity", "_followers", "_segments", "closed", "first", "last", "readers")

    def __init__(self, capacity: int = CAPACITY) -> None:
        """Hold at least the newest `capacity` events."""
        self._capacity = capacity
        self._segments: list[list[Event]] = []
        self._followers: deque[Callable[[], None]] = deque()
        self.first = 1
        """The number of the oldest event that is held."""
        self.last = 0
        """The number of the newest event."""
        self.closed = False
        self.readers = 0
        """How many subscriptions there are that nobody has closed."""

    def write(self, event: Event) -> None:
        """Add an event and wake the followers that have caught up."""
        last = self.last
        if last % _SEGMENT == 0:
            self._segments.append([event])
            while last - self.first + 1 >= self._capacity + _SEGMENT:
                del self._segments[0]
                self.first += _SEGMENT
        else:
            self._segments[-1].append(event)
        self.last = last + 1
        if self._followers:
            self.wake()

    def close(self) -> None:
        """No event will come any more."""
        self.closed = True
        self.wake()

    def wake(self) -> None:
        """Let every waiting follower look again."""
        for _ in range(len(self._followers)):  # others may come or leave meanwhile, from other threads
            try:
                follower = self._followers.popleft()
            except IndexError:
                return
            follower()

    def at(self, number: int) -> Event:
        """The event with this number, which must be held."""
        offset = number - self.first
        return self._segments[offset // _SEGMENT][offset % _SEGMENT]

    def newest(self, kind: type[Event]) -> Event | None:
        """The newest event of this type that is held."""
        held = (event for segment in reversed(self._segments) for event in reversed(segment))
        return next((event for event in held if isinstance(event, kind)), None)

    def follow(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, at the next event or at the end."""
        self._followers.append(callback)

    def unfollow(self, callback: Callable[[], None]) -> None:
        """Take back `follow`."""
        with suppress(ValueError):  # it was called already
            self._followers.remove(callback)


class Cursor:
    """A place in a stream; iterations that share one go on where the last one stopped."""

    __slots__ = ("position",)

    def __init__(self, position: int = 0) -> None:
        if position < 0:
            msg = f"a stream's events are numbered from 1: none is behind {position}. Write subscribe(after=0) for all."
            raise WorkflowRuntimeError(msg)
        self.position = position


class Subscription:
    """An asynchronous iterator over the events of a run, to its end.

    `position` is the number of the last event handed out: give it to `subscribe(after=...)` to go on
    from there later. Closing it, from any task, ends the iteration and leaves nothing behind.
    """

    __slots__ = ("_closed", "_cursor", "_ring", "_waiting")

    def __init__(self, ring: Ring, cursor: Cursor) -> None:
        self._ring = ring
        self._cursor = cursor
        self._waiting: list[Callable[[], None]] = []
        """Wakes the tasks that stand in `__anext__`."""
        self._closed = False
        ring.readers += 1

    @property
    def position(self) -> int:
        """The number of the last event that was handed out."""
        return self._cursor.position

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        ring, cursor = self._ring, self._cursor
        while not self._closed:
            number = cursor.position + 1
            if number < ring.first:
                cursor.position = ring.first - 1
                return StreamGap(first=number, last=ring.first - 1)
            if number <= ring.last:
                cursor.position = number
                return ring.at(number)
            if ring.closed:
                break
            await self._next_event()
        raise StopAsyncIteration

    async def _next_event(self) -> None:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not waiter.done():
                waiter.set_result(None)

        def wake_from_anywhere() -> None:
            # a follower may live in another event loop than the run
            if asyncio._get_running_loop() is loop:  # does not raise where there is none
                wake()
            else:
                with suppress(RuntimeError):  # its event loop was closed while it waited
                    loop.call_soon_threadsafe(wake)

        self._waiting.append(wake_from_anywhere)
        self._ring.follow(wake_from_anywhere)
        if self._ring.last > self._cursor.position or self._ring.closed:
            wake()  # it came from another thread, between the look and the follow
        try:
            await waiter
        finally:
            self._waiting.remove(wake_from_anywhere)
            self._ring.unfollow(wake_from_anywhere)

    async def aclose(self) -> None:
        """Stop following."""
        if not self._closed:
            self._closed = True
            self._ring.readers -= 1
        for wake in list(self._waiting):
            wake()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
