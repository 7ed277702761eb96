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
    async def taken(self, noting: Noting | None, within: float | None) -> AsyncGenerator[None]:
        """Hold a slot for a block. A wait for it is noted as `queued`.

        Raises `TimeoutError` where none is free within so many seconds.
        """
        loop = asyncio.get_running_loop()
        slots = self._by_loop.setdefault(loop, asyncio.Semaphore(self._number))
        if slots.locked():
            await _acquired(slots, noting, within)
        else:
            await slots.acquire()
        try:
            yield
        finally:
            slots.release()


async def _acquired(slots: asyncio.Semaphore, noting: Noting | None, within: float | None) -> None:
    clock = current_clock()
    begun = clock.monotonic()
    if within is None:
        await slots.acquire()
    else:
        limit = clock.timeout(within)
        try:
            async with limit:
                await slots.acquire()
        except TimeoutError as error:
            raise TimeoutError(f"it had no turn within {within:.3g} s") from error
    if noting is not None:
        noting("queued", {"wait": clock.monotonic() - begun})
