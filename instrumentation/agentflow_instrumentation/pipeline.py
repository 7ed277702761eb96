"""What is carried out of the process, and what everything that carries it can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Cargo:
    """What an outlet carries, in words, and how much of it may wait."""

    signal: str
    whole: str
    item: str
    variables: str
    """How the variables begin that say otherwise."""
    queue: int
    batch: int = 512


TRACES = Cargo("traces", "the trace", "span", "OTEL_BSP", 32_768)
LOGS = Cargo("logs", "the log", "log record", "OTEL_BLRP", 8_192)
METRICS = Cargo("metrics", "what was measured", "reading", "", 4, 1)
"""A reading is all metrics at one time. The next one has what this one has, and more."""


class Way(Protocol):
    """Where telemetry goes out, and what came of it."""

    place: str
    """Where it goes, in words."""
    key: Any
    """Of ways with equal keys, the latest is used."""

    def put(self, item: Any) -> None:
        """Take a span, a log record, or a reading of metrics."""

    def hurry(self) -> None:
        """Send now what there is, without waiting for more."""

    def flush(self, timeout: float) -> bool:
        """Wait until everything is sent; False if that takes longer, in seconds, or is hopeless."""
        ...

    def not_yet(self) -> str:
        """What a flush did not wait for, in a line."""
        ...

    def problems(self) -> list[str]:
        """What did not arrive, in one line each; nothing where all did."""
        ...

    def unsaid(self) -> list[str]:
        """The problems of which nobody has been told."""
        ...

    def shutdown(self, timeout: float = 5.0) -> None:
        """Send what can be sent in `timeout` seconds, and stop."""
