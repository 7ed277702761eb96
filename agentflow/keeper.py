"""Event loops that are closed while runs are open: whoever looks on is told how these end, for they get no turn."""

from __future__ import annotations

import atexit
import os
import sys
from contextvars import Context as Variables
from threading import Lock
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

if TYPE_CHECKING:
    import asyncio


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

    def unwatch(self) -> None:
        """Tell nobody of it any more: it goes on elsewhere."""
        ...


class Keeper:
    """The runs of one event loop that somebody looks on at."""

    def __init__(self) -> None:
        self.runs: WeakSet[Kept] = WeakSet()

    def close(self) -> None:
        """Let every run go that is open, runs inside of runs first."""
        for run in sorted(self.runs, key=lambda run: run.begun_ns, reverse=True):
            run.leave()


class _Until:
    """Stands in the timers of an event loop, which forgets them where it is closed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, keeper: Keeper) -> None:
        self._loop = id(loop)
        self._keeper = keeper

    def __call__(self) -> None:
        """Never called: it is for the end of time."""

    def __del__(self) -> None:
        if not sys.is_finalizing():
            _keepers.pop(self._loop, None)
            self._keeper.close()


_FOREVER = 100 * 365 * 86400.0
_keepers: dict[int, Keeper] = {}
"""By the identity of the loop."""
_making = Lock()


def keep(run: Kept) -> None:
    """Tell of the end of `run`, should its event loop be closed, or the process end, before it does."""
    keeper = _keepers.get(id(run.loop)) or _make(run.loop)
    keeper.runs.add(run)


def forget(run: Kept) -> None:
    """It has ended."""
    keeper = _keepers.get(id(run.loop))
    if keeper is not None:
        keeper.runs.discard(run)


def _make(loop: asyncio.AbstractEventLoop) -> Keeper:
    keeper = Keeper()
    Variables().run(loop.call_later, _FOREVER, _Until(loop, keeper))
    with _making:
        _keepers[id(loop)] = keeper
        # what was registered last is called first: spans have to end before those who send them are shut down
        atexit.unregister(_close_all)
        atexit.register(_close_all)
    return keeper


def _close_all() -> None:
    for keeper in list(_keepers.values()):
        keeper.close()


def _forked() -> None:
    """The runs that were open go on in the process that this one was forked off; each of them ends once."""
    for keeper in _keepers.values():
        for run in list(keeper.runs):
            run.unwatch()
    _keepers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
