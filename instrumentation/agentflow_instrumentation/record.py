"""Log records of OpenTelemetry, whose API for logs is still moving, sent in every version from 1.30 on."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any

from opentelemetry._logs import SeverityNumber
from opentelemetry.trace import get_current_span

from . import names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.util.types import AttributeValue

INFO, WARN, ERROR = SeverityNumber.INFO, SeverityNumber.WARN, SeverityNumber.ERROR


def severity_of(level: int) -> SeverityNumber:
    """The severity of a level of the standard library, custom ones between the known ones included."""
    tens, rest = divmod(max(level, 0), 10)
    return SeverityNumber(min(4 * tens + 1 + min(rest, 3), SeverityNumber.FATAL4.value))


class Sender:
    """Sends records of one scope. A record belongs to the span that is current where it is sent."""

    def __init__(self, provider: Any, scope: str) -> None:
        logger = provider.get_logger(scope, names.version() if scope == names.SCOPE else None)
        self._emit: Callable[..., None] = logger.emit if _takes(logger.emit, "event_name") else _in_a_record(logger)

    def send(
        self, severity: SeverityNumber, body: str, attributes: Mapping[str, AttributeValue], *, at: int, event: str = ""
    ) -> None:
        """Send a record. `at`: nanoseconds since the epoch; `event`: the name, where it is an event."""
        self._emit(
            timestamp=at,
            severity_number=severity,
            severity_text=severity.name,
            body=body,
            attributes=attributes,
            event_name=event or None,
        )


def _takes(function: Callable[..., Any], parameter: str) -> bool:
    return parameter in signature(function).parameters


def _in_a_record(logger: Any) -> Callable[..., None]:
    """How a logger is given what one since 1.37 takes as arguments: in an object of a class that differs, too."""
    # an older SDK exports no records but its own; Logfire hands on what a logger of the SDK has
    own: Any = (
        getattr(import_module("opentelemetry.sdk._logs"), "LogRecord", None) if hasattr(logger, "resource") else None
    )
    cls: Any = own or import_module("opentelemetry._logs").LogRecord
    make: Callable[..., Any] = cls if own is None else partial(own, resource=logger.resource)
    if _takes(cls, "event_name"):
        return partial(_emit_record, logger, make)
    return partial(_emit_older, logger, make)


def _emit_record(logger: Any, make: Callable[..., Any], **given: Any) -> None:
    logger.emit(make(**given))


def _emit_older(logger: Any, make: Callable[..., Any], *, event_name: str | None, **given: Any) -> None:
    """Before 1.35 a record has no name and does not find its span."""
    span = get_current_span().get_span_context()
    if event_name is not None:
        given["attributes"] = {**given["attributes"], names.EVENT_NAME: event_name}
    logger.emit(make(trace_id=span.trace_id, span_id=span.span_id, trace_flags=span.trace_flags, **given))
