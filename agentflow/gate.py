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
        self._inside = 0
        self._queue: deque[Waiting] = deque()
        self._lock = Lock()

    def enter(self, run: Waiting) -> bool:
        """Let `run` in now, or remember it and answer False."""
        with self._lock:
            if self._inside < self._limit:
                self._inside += 1
                return True
            self._queue.append(run)
            return False

    def leave(self) -> None:
        """A run that was inside has ended: the next one begins, in its own event loop."""
        with self._lock:
            while self._queue:
                run = self._queue.popleft()
                try:
                    run.loop.call_soon_threadsafe(run.begin)
                except RuntimeError:  # its event loop was closed: it will never begin
                    continue
                return
            self._inside -= 1

    def give_up(self, run: Waiting) -> None:
        """`run`, which has not begun, will not come any more."""
        with self._lock:
            waits = run in self._queue
            if waits:
                self._queue.remove(run)
        if not waits:  # its place was given to it a moment ago
            self.leave()
