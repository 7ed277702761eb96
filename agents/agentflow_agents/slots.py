"""How many calls go on at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from agentflow.clock import current_clock

if TYPE_CHECKING:
    from .repetition import Noting


class Slots:
    """So many in each event loop; who comes when all are taken waits, first come, first served."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

    async def take(self, noting: Noting | None) -> asyncio.Semaphore:
        """Wait for a slot. What it returns has to be released. A wait is noted as `queued`."""
        loop = asyncio.get_running_loop()
        slots = self._by_loop.get(loop)
        if slots is None:
            slots = self._by_loop.setdefault(loop, asyncio.Semaphore(self._number))
        begun = current_clock().monotonic() if noting is not None and slots.locked() else None
        await slots.acquire()
        if noting is not None and begun is not None:
            noting("queued", {"wait": current_clock().monotonic() - begun})
        return slots
