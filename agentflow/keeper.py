"""Event loops that are closed while runs are open: whoever looks on is told how these end, for they get no turn."""

from __future__ import annotations

import atexit
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator


class Kept(Protocol):
    """A run, as far as this goes."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Where it goes on."""
        ...

    @property
    def begun_ns(self) -> int:
        """When its operation began, in nanoseconds since the epoch."""
        ...

    def leave(self) -> None:
        """Tell how it ends: it gets no turn any more."""
        ...


class Keeper:
    """The runs of one event loop that somebody looks on at."""

    def __init__(self) -> None:
        self.runs: WeakSet[Kept] = WeakSet()
        self._waiting = _waiting(self)
        # an asynchronous generator that has begun is closed where the loop is shut down, after all of its tasks
        with suppress(StopIteration):
            self._waiting.__anext__().send(None)

    def close(self) -> None:
        """Let every run go that is open, runs inside of runs first."""
        for run in sorted(self.runs, key=lambda run: run.begun_ns, reverse=True):
            run.leave()


async def _waiting(keeper: Keeper) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        keeper.close()


_keepers: dict[asyncio.AbstractEventLoop, Keeper] = {}
_making = Lock()


def keep(run: Kept) -> None:
    """Tell of the end of `run`, should its event loop be closed, or the process end, before it does."""
    keeper = _keepers.get(run.loop) or _make(run.loop)
    keeper.runs.add(run)


def forget(run: Kept) -> None:
    """It has ended."""
    keeper = _keepers.get(run.loop)
    if keeper is not None:
        keeper.runs.discard(run)


def _make(loop: asyncio.AbstractEventLoop) -> Keeper:
    with _making:
        for other in [other for other in _keepers if other.is_closed()]:
            _keepers.pop(other).close()
        keeper = _keepers[loop] = Keeper()
        # what was registered last is called first: spans have to end before those who send them are shut down
        atexit.unregister(_close_all)
        atexit.register(_close_all)
    return keeper


def _close_all() -> None:
    for keeper in list(_keepers.values()):
        keeper.close()
