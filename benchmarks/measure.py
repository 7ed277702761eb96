"""What the cases measure with: time, and the memory that the system gives the process."""

from __future__ import annotations

import gc
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self


class Timer:
    """Seconds that a block took: `cpu` is the process's own, `wall` what a clock on the wall shows."""

    cpu = 0.0
    wall = 0.0

    def __enter__(self) -> Self:
        gc.collect()
        self._cpu, self._wall = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.cpu, self.wall = time.process_time() - self._cpu, time.perf_counter() - self._wall


def resident() -> int:
    """Bytes of memory that the process holds now, garbage left out."""
    gc.collect()
    return _status("VmRSS")


def peak_resident() -> int:
    """The most bytes of memory that the process has held."""
    return _status("VmHWM")


def _status(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert found, f"/proc/self/status has no {name}"
    return int(found[1]) * 1024
