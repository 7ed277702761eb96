"""The one logger of the project: structlog over the standard library's logger "agentflow".

It configures nothing: level, handlers and format belong to the application. A line reads well without any
configuration, `event key=value key=value`; its facts are `extra` fields of the log record, too, with the bare
event as the field `event`. structlog is imported at the first line that is logged.
"""

from __future__ import annotations

import logging
import sys
from functools import cache
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from structlog.stdlib import BoundLogger

_MOST_LISTED = 8
_LONGEST = 200
_KWARGS = ("exc_info", "stack_info", "stacklevel")
_TAKEN = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})
"""Names that a log record has itself, and would refuse."""


@cache
def logger(name: str = "agentflow") -> BoundLogger:
    """The project's logger, or one of those below it, each of which can be turned off by its name."""
    import structlog  # noqa: PLC0415 because it costs more than the engine, and most processes never log

    bound: BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[structlog.stdlib.filter_by_level, structlog.contextvars.merge_contextvars, _as_record],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    return bound


def _as_record(_: object, __: str, facts: MutableMapping[str, Any]) -> dict[str, Any]:
    """What the standard library's logger is called with."""
    event = facts.pop("event")
    kwargs = {key: facts.pop(key) for key in _KWARGS if key in facts}
    kwargs.setdefault("stacklevel", _depth())
    shown = [f"{key}={_text(value)}" for key, value in facts.items() if _is_short(value)]
    extra = {f"{key}_" if key in _TAKEN else key: value for key, value in facts.items()}
    return {"msg": " ".join([str(event), *shown]), "extra": {"event": event, **extra}, **kwargs}


def _depth() -> int:
    """How many frames above structlog's call of the logger the line was written."""
    depth = 1
    frame = sys._getframe(3)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("structlog"):
        depth += 1
        frame = frame.f_back
    return depth


def _is_short(value: object) -> bool:
    if isinstance(value, list | tuple):
        listed = cast("list[object]", value)
        return len(listed) <= _MOST_LISTED and all(isinstance(one, str) for one in listed)
    return isinstance(value, str | int | float)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".")
    text = ",".join(cast("list[str]", value)) if isinstance(value, list | tuple) else str(value)
    plain = text.isprintable() and text and not any(sign in text for sign in " =\"'")
    return text if plain and len(text) <= _LONGEST else repr(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")
