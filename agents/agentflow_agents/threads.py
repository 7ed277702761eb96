"""Threads for plain tools: made as they are needed, used again, and waited for by nobody when the program ends.

An executor of the library would do neither: it has a few threads, which stuck tools take from all others, and the
interpreter waits for it when it ends.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_IDLE = 60.0
"""Seconds after which a thread ends that has nothing to do."""


class Work:
    """A call in a thread, as the event loop sees it that was running when it was made."""

    __slots__ = ("_loop", "call", "ended", "result")

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call
        self._loop = asyncio.get_running_loop()
        self.result: asyncio.Future[Any] = self._loop.create_future()
        """What the call returns or raises. It may be cancelled, which leaves the thread behind."""
        self.ended: asyncio.Future[None] = self._loop.create_future()
        """Is done when the thread has ended the call; never to be cancelled."""

    def tell(self, outcome: tuple[Any, BaseException | None]) -> None:
        """Hand the outcome to the event loop."""
        with suppress(RuntimeError):  # it is closed, and so nobody waits
            self._loop.call_soon_threadsafe(self._settle, outcome)

    def _settle(self, outcome: tuple[Any, BaseException | None]) -> None:
        self.ended.set_result(None)
        if self.result.cancelled():
            return
        value, error = outcome
        if error is None:
            self.result.set_result(value)
        else:
            self.result.set_exception(error)


class Threads:
    """As many as there are calls at the same time. Who uses them sees to it that these are not too many.

    - `idle`: seconds after which a thread ends that has nothing to do.
    """

    def __init__(self, idle: float = _IDLE) -> None:
        self._idle_seconds = idle
        self._idle: list[SimpleQueue[Work]] = []
        """By the queues they listen at, those that wait for work; the last one is the first to get some. Several
        threads change it: `append`, `pop` and `remove` are atomic."""
        if sys.platform != "win32":
            os.register_at_fork(after_in_child=self._idle.clear)  # a child process has none of them

    def start(self, call: Callable[[], Any]) -> Work:
        """Call it in a thread, from now on."""
        work = Work(call)
        queue: SimpleQueue[Work]
        try:
            queue = self._idle.pop()
        except IndexError:
            queue = SimpleQueue()
            Thread(target=self._live, args=(queue,), name="agentflow-tool", daemon=True).start()
        queue.put(work)
        return work

    def _live(self, queue: SimpleQueue[Work]) -> None:
        while True:
            try:
                work = queue.get(timeout=self._idle_seconds)
            except Empty:
                try:
                    self._idle.remove(queue)
                except ValueError:  # it has just been chosen: its work is on the way
                    continue
                return
            outcome = _outcome(work.call)
            self._idle.append(queue)  # first: the next call is to find it
            work.tell(outcome)
            del work, outcome  # nothing is held while it waits


def _outcome(call: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """What it returns, and what it raises."""
    # the error holds this frame, and a `Work` the error: so none stands here
    try:
        return call(), None
    except BaseException as error:  # noqa: BLE001 because whoever awaits the result gets it
        return None, error


THREADS = Threads()
"""Those of this process."""
