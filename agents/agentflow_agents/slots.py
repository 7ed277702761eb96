"""How many calls of one tool go on at once."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from agentflow.clock import current_clock

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from .repetition import Noting


class Slots:
    """So many in each event loop; who comes when all are taken waits, first come, first served."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

    @asynccontextmanager
    async def taken(self, noting: Noting | None) -> AsyncGenerator[None]:
        """Hold a slot for a block. A wait for it is noted as `queued`."""
        loop = asyncio.get_running_loop()
        slots = self._by_loop.setdefault(loop, asyncio.Semaphore(self._number))
        if slots.locked() and noting is not None:
            clock = current_clock()
            begun = clock.monotonic()
            await slots.acquire()
            noting("queued", {"wait": clock.monotonic() - begun})
        else:
            await slots.acquire()
        try:
            yield
        finally:
            slots.release()
