"""For tests of workflows: an observer that records what happened as a tree, and a clock that one moves."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from contextlib import contextmanager
from contextvars import copy_context
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from .clock import Clock
from .observe import Observer, add_observer, remove_observer

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from .clock import Timer
    from .observe import Kind, Note, Operation

_SETTLING_TURNS = 100


class Recorder(Observer):
    """Keeps every operation and every note, in the order in which they came."""

    def __init__(self, kinds: frozenset[Kind] | None = None) -> None:
        if kinds is not None:
            self.kinds = kinds
        self.operations: list[Operation] = []
        self.errors: dict[int, BaseException | None] = {}
        """By the id of an operation that has ended, the error that ended it."""
        self.notes: dict[int, list[Note]] = {}
        """By the id of an operation, what was noted on it."""

    def started(self, op: Operation) -> None:
        """Keep an operation."""
        self.operations.append(op)

    def noted(self, op: Operation, note: Note) -> None:
        """Keep a note."""
        self.notes.setdefault(op.ref.id, []).append(note)

    def finished(self, op: Operation, error: BaseException | None) -> None:
        """Keep how an operation ended."""
        self.errors[op.ref.id] = error

    def find(self, kind: Kind | str | None = None, name: str | None = None) -> list[Operation]:
        """The operations of a kind, of a name, or both, in the order in which they began."""
        return [op for op in self.operations if (kind is None or op.kind == kind) and (name is None or op.name == name)]

    def children(self, op: Operation | None) -> list[Operation]:
        """The operations inside of one; of None, those that are inside of no recorded one."""
        if op is not None:
            return [o for o in self.operations if o.parent is not None and o.parent.id == op.ref.id]
        known = {o.ref.id for o in self.operations}
        return [o for o in self.operations if o.parent is None or o.parent.id not in known]

    def open(self) -> list[Operation]:
        """The operations that have not ended."""
        return [op for op in self.operations if not op.ended_at]

    def noted_on(self, op: Operation) -> list[str]:
        """The names of the notes on an operation."""
        return [note.name for note in self.notes.get(op.ref.id, ())]

    def tree(self) -> str:
        """Everything as an indented text, one operation a line: kind, name, and how it ended if not well."""
        lines: list[str] = []

        def show(op: Operation, depth: int) -> None:
            attempt = f" attempt {op.attempt}" if op.attempt > 1 else ""
            outcome = "" if op.ended_at and op.outcome == "ok" else f" {op.outcome if op.ended_at else 'open'}"
            lines.append(f"{'  ' * depth}{op.kind} {op.name}{attempt}{outcome}")
            for child in self.children(op):
                show(child, depth + 1)

        for root in self.children(None):
            show(root, 0)
        return "\n".join(lines)


@contextmanager
def record(kinds: frozenset[Kind] | None = None) -> Generator[Recorder]:
    """Record everything that starts inside the block; `print(seen.tree())` shows what that was."""
    recorder = Recorder(kinds)
    add_observer(recorder)
    try:
        yield recorder
    finally:
        remove_observer(recorder)


class _FakeTimer:
    __slots__ = ("callback", "variables")

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback
        self.variables = copy_context()  # as an event loop's timers have them

    def cancel(self) -> None:
        """Never call it."""
        self.callback = None


class FakeClock(Clock):
    """A clock that stands still until it is moved: `with use_clock(FakeClock()) as clock: ...`.

    `await clock.advance(3600)` lets an hour pass at once, timers going off in their order.
    """

    def __init__(self, start: float = 1_000_000_000.0) -> None:
        self.now = start
        self._timers: list[tuple[float, int, _FakeTimer]] = []
        self._order = itertools.count()
        self._limits: WeakKeyDictionary[asyncio.Timeout, tuple[float, Timer]] = WeakKeyDictionary()

    def time(self) -> float:
        """Seconds since the epoch, as far as this clock is concerned."""
        return self.now

    def monotonic(self) -> float:
        """The same."""
        return self.now

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` when the clock has been moved by `delay` seconds; at once if there is none."""
        if delay <= 0:
            return asyncio.get_running_loop().call_soon(callback)
        timer = _FakeTimer(callback)
        heapq.heappush(self._timers, (self.now + delay, next(self._order), timer))
        return timer

    def timeout(self, seconds: float) -> asyncio.Timeout:
        """A time limit that goes off when the clock has been moved by `seconds`."""
        limit = asyncio.timeout(None)
        self.resume(limit, seconds)
        return limit

    def pause(self, limit: asyncio.Timeout) -> float:
        """Let the time of a limit stand still; returns the seconds that are left."""
        due, timer = self._limits.pop(limit)
        timer.cancel()
        return due - self.now

    def resume(self, limit: asyncio.Timeout, left: float) -> None:
        """Let the time of a limit run again."""

        def expire() -> None:
            # a block that is over has taken its limit with it
            if self._limits.pop(limit, None) is not None and not _is_over(limit):
                limit.reschedule(asyncio.get_running_loop().time())

        self._limits[limit] = self.now + left, self.call_later(left, expire)

    @property
    def pending(self) -> list[float]:
        """In how many seconds each timer will go off, soonest first."""
        return sorted(when - self.now for when, _, timer in self._timers if timer.callback is not None)

    async def advance(self, seconds: float) -> None:
        """Let time pass, and everything that it brings about happen."""
        end = self.now + seconds
        await self.settle()
        while self._timers and self._timers[0][0] <= end:
            when, _, timer = heapq.heappop(self._timers)
            if timer.callback is not None:
                self.now = max(self.now, when)
                timer.variables.run(timer.callback)
                await self.settle()
        self.now = end

    async def settle(self) -> None:
        """Let everything happen that needs no time."""
        for _ in range(_SETTLING_TURNS):
            await asyncio.sleep(0)


def _is_over(limit: asyncio.Timeout) -> bool:
    """Has the block of a limit been left? It says so only by refusing to be changed."""
    try:
        limit.reschedule(None)
    except RuntimeError:
        return True
    return False
