"""The limit on how many runs of one workflow object go on at once."""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio


class Waiting(Protocol):
    """A run that can be told to begin."""

    loop: asyncio.AbstractEventLoop

    def begin(self) -> None:
        """Go."""
        ...


class Gate:
    """Lets `limit` runs in, the others in the order of their coming; from any thread and event loop."""

    __slots__ = ("_inside", "_limit", "_lock", "_queue")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._inside: set[Waiting] = set()
        self._queue: deque[Waiting] = deque()
        self._lock = Lock()

    def enter(self, run: Waiting) -> bool:
        """Let `run` in now, or remember it and answer False."""
        with self._lock:
            if len(self._inside) >= self._limit:
                # an event loop that was closed under its runs took their ends with it
                self._inside = {other for other in self._inside if not other.loop.is_closed()}
            if len(self._inside) < self._limit:
                self._inside.add(run)
                return True
            self._queue.append(run)
            return False

    def leave(self, run: Waiting) -> None:
        """`run`, which was inside, has ended: the next one begins, in its own event loop."""
        with self._lock:
            self._inside.discard(run)
            while self._queue and len(self._inside) < self._limit:
                following = self._queue.popleft()
                try:
                    following.loop.call_soon_threadsafe(following.begin)
                except RuntimeError:  # its event loop was closed: it will never begin
                    continue
                self._inside.add(following)

    def give_up(self, run: Waiting) -> None:
        """`run`, which has not begun, will not come any more."""
        with self._lock:
            waits = run in self._queue
            if waits:
                self._queue.remove(run)
        if not waits:  # its place was given to it a moment ago
            self.leave(run)
