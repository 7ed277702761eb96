"""What exporters say while one of our outlets exports: the outlet hears it, and nobody else does."""

from __future__ import annotations

import logging
import sys
import threading
from typing import Protocol

from .reasons import is_too_large

_HTTP, _GRPC = "opentelemetry.exporter.otlp.proto.http", "opentelemetry.exporter.otlp.proto.grpc"
_NOISY = (
    f"{_HTTP}.trace_exporter",
    f"{_HTTP}.metric_exporter",
    f"{_HTTP}._log_exporter",
    f"{_GRPC}.exporter",
    "opentelemetry.exporter.otlp.common.http",
    "urllib3.connectionpool",
)


class Ear(Protocol):
    """Whoever exports in this thread."""

    def heard(self, message: str) -> bool:
        """The exporter has logged that something is wrong. True if it is to give up."""
        ...

    def refused(self, many: int, message: str) -> None:
        """The receiver took a request, but not so many of the items in it."""


class HopelessError(Exception):
    """It ends an export that would try the same request again: it is too large, or nobody is there to take it."""


_here = threading.local()


def listen(ear: Ear | None) -> None:
    """Let what exporters log in this thread be told to `ear`; None lets it be logged again."""
    _here.ear = ear


def listener() -> Ear | None:
    """Who listens in this thread."""
    ear: Ear | None = getattr(_here, "ear", None)
    return ear


class _KeepsBack(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        """False for a line that somebody has heard."""
        ear = listener()
        if ear is None:
            return True
        if record.levelno >= logging.WARNING:
            message = record.getMessage()
            details = getattr(sys.exc_info()[1], "details", None)  # exporters before 1.33 do not write them
            if callable(details) and "details: " not in message:
                message = f"{message} Error details: {details()}"
            if ear.heard(message) or is_too_large(message):
                raise HopelessError(message)  # no exporter has another way out of its next attempts
        return False


_filter = _KeepsBack()


def keep_back() -> None:
    """Keep back what exporters of OTLP log in threads in which somebody listens."""
    for name in _NOISY:
        filters = logging.getLogger(name).filters
        if _filter not in filters:
            filters.insert(0, _filter)  # before the exporters' own, which lets a line pass once in 20 seconds
