"""The handler that sends the lines of the standard library's loggers as log records of OpenTelemetry."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, cast

from opentelemetry import context
from opentelemetry._logs import get_logger_provider

from . import names
from .content import Policy
from .failures import exception_facts
from .fields import ABSENT, NAMES, here, want
from .lines import LOGGER
from .record import Sender, severity_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.util.types import AttributeValue

    from .content import Content, Teller
    from .redactors import Redactor

_SUPPRESSED = ("suppress_instrumentation", getattr(context, "_SUPPRESS_INSTRUMENTATION_KEY", ""))
_TAKEN = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})
_NAMED = {
    "run_id": names.RUN_ID,
    "workflow": names.WORKFLOW_OF,
    "step": names.STEP,
    "attempt": names.ATTEMPT,
    "session": names.SESSION,
}


class OtelHandler(logging.Handler):
    """Sends each line with its level, text, `extra` fields, exception, run and step, in the span that is current.

    Secrets that can be recognised are masked. What OpenTelemetry itself logs is not sent, nor what is logged while
    something is exported; nor are the lines of "agentflow.runs", of which `LogObserver` sends records.

    - `logger_provider`: where records go; the global one by default.
    - `content`: whether the texts of errors go out that agentflow itself logs; what the program logs always does.
    - `redactors`: what is taken out of texts, as for spans; "body" is where the text of a line is.
    """

    def __init__(
        self, logger_provider: Any = None, *, content: Content | None = None, redactors: Iterable[Redactor] = ()
    ) -> None:
        super().__init__()
        want()
        self._policy = Policy(content, redactors, on="event")
        self._whole = self._policy.at("full")
        self._provider = get_logger_provider() if logger_provider is None else logger_provider
        self._senders: dict[str, Sender] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Send a line. An error goes where the standard library's handlers let errors go."""
        if self._is_alone(record.name) and logging.lastResort and record.levelno >= logging.lastResort.level:
            logging.lastResort.handle(record)  # which Python leaves out where there is any handler
        if record.name == LOGGER or record.name.startswith("opentelemetry.") or _is_suppressed():
            return
        try:
            self._send(record)
        except Exception:  # noqa: BLE001 because a line that cannot be sent must not end what it tells of
            self.handleError(record)

    def _is_alone(self, name: str) -> bool:
        logger: logging.Logger | None = logging.getLogger(name)
        while logger is not None:
            if any(handler is not self for handler in logger.handlers):
                return False
            logger = logger.parent if logger.propagate else None
        return True

    def _send(self, record: logging.LogRecord) -> None:
        sender = self._senders.get(record.name)
        if sender is None:
            sender = self._senders[record.name] = Sender(self._provider, record.name)
        ours = record.name == "agentflow" or record.name.startswith("agentflow.")
        known = here()
        fields, text = _parts(record, ours=ours)
        tell = self._whole.teller()
        told: dict[str, AttributeValue] = {_NAMED[name]: known[name] for name in _NAMED if name in known}
        for name, value in fields.items():
            if value is not None and not (name in NAMES and value in (ABSENT, known.get(name))):
                told[_NAMED.get(name, name) if ours else name] = _value(name, value, tell)
        told |= {
            names.CODE_FILE: record.pathname,
            names.CODE_LINE: record.lineno,
            names.CODE_FUNCTION: record.funcName or "",
        }
        error = _error(record)
        if error is not None:
            told |= exception_facts(error, self._policy.teller() if ours and not self._policy.shows else tell)
        sender.send(
            severity_of(record.levelno),
            tell.text("body", text, self._whole.limits.attribute),
            told | tell.facts(),
            at=int(record.created * 1e9),
        )


def _parts(record: logging.LogRecord, *, ours: bool) -> tuple[dict[str, Any], str]:
    """The fields of a line, and its text without them, where it says that apart."""
    fields = {name: value for name, value in vars(record).items() if name not in _TAKEN and not name.startswith("_")}
    said = _structured(record)
    if said is not None:
        fields |= {name: value for name, value in said.items() if not name.startswith("_") and name != "exc_info"}
        ours = True
    if ours and "event" in fields:
        return fields, str(fields.pop("event"))
    return fields, record.getMessage()


def _structured(record: logging.LogRecord) -> dict[str, Any] | None:
    """What structlog has put into a line that is on its way to its formatter."""
    said: Any = record.msg
    return cast("dict[str, Any]", said) if isinstance(said, dict) and hasattr(record, "_name") else None


def _error(record: logging.LogRecord) -> BaseException | None:
    """The exception that a line shows; structlog may have just asked for it."""
    said = _structured(record)
    given: Any = record.exc_info if said is None else said.get("exc_info")
    if isinstance(given, BaseException):
        return given
    if isinstance(given, tuple):
        return cast("tuple[Any, BaseException | None, Any]", given)[1]
    return sys.exception() if given else None


def _value(name: str, value: object, tell: Teller) -> AttributeValue:
    if isinstance(value, str):
        return tell.text(name, value)
    if isinstance(value, bool | int | float):
        return value
    return tell.json(name, value)


def _is_suppressed() -> bool:
    """Is what runs here the export itself?"""
    return any(context.get_value(key) for key in _SUPPRESSED)
