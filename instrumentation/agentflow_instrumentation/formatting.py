"""`configure_logging()`: all log lines of an application on stderr, as JSON or for people."""

from __future__ import annotations

import logging
import os
import sys
from json import dumps
from typing import TYPE_CHECKING, Any, cast

from .cutting import clean, plain
from .fields import add_trace_context, want

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from structlog.typing import Processor

_LIMIT = 8 * 1024


class _Handler(logging.StreamHandler[Any]):
    """The handler of `configure_logging()`, which a second call replaces."""


def configure_logging(json: bool | None = None, level: str | int = "INFO") -> None:  # noqa: FBT001 because it is the one thing to choose
    """Show all log lines of this process on stderr, whoever writes them: structlog or the standard library.

    Each has the time, the level, the logger, its fields, and what is known where it was written: `trace_id`,
    `span_id`, `trace_flags`, `run_id`, `workflow`, `step`, `attempt`, `session`. For applications; libraries leave
    it alone.

    - `json`: one JSON object a line, with tracebacks as lists of frames, without the values of variables; else aligned
      text, in colours where stderr is a terminal. By default text where stderr is a terminal, else JSON.
    - `level`: the least level that is shown, of all loggers that have none of their own.

    Takes the place of an earlier call, and of handlers that `logging.basicConfig()` has added for the terminal; others
    stay. Secrets that can be recognised are masked in agentflow's own lines. Raises `ValueError` for an unknown level.
    """
    import structlog  # noqa: PLC0415 because only who calls this needs it

    number = _number(level)
    want()
    colours = sys.stderr.isatty()
    as_json = not colours if json is None else json
    context: list[Processor] = [structlog.contextvars.merge_contextvars, add_trace_context]
    render: list[Processor]
    if as_json:
        transform = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
        render = [structlog.processors.ExceptionRenderer(transform), _mask, structlog.processors.JSONRenderer(_as_json)]
    else:
        stamp = structlog.processors.TimeStamper(fmt="%H:%M:%S.%f", utc=False)
        console = structlog.dev.ConsoleRenderer(
            colors=colours and "NO_COLOR" not in os.environ,
            exception_formatter=structlog.dev.plain_traceback,
            sort_keys=False,
        )
        render = [structlog.processors.format_exc_info, _mask, console]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *context,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = _Handler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), _leave_out_formatted, *context],
            processors=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                stamp,
                structlog.processors.StackInfoRenderer(),
                *render,
            ],
        )
    )
    root = logging.getLogger()
    for other in root.handlers[:]:
        if isinstance(other, _Handler) or _is_for_terminal(other):
            root.removeHandler(other)
    root.addHandler(handler)
    root.setLevel(number)


def _number(level: str | int) -> int:
    known = logging.getLevelNamesMapping()
    if isinstance(level, int) and not isinstance(level, bool):
        return level
    if not isinstance(level, str) or level.upper() not in known:
        choices = ", ".join(f'"{name}"' for name in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"))
        msg = f"configure_logging(level={level!r}): there is no such level. Choose from: {choices}."
        raise ValueError(msg)
    return known[level.upper()]


def _is_for_terminal(handler: logging.Handler) -> bool:
    """Is it what `logging.basicConfig()` makes?"""
    if type(handler) is not logging.StreamHandler:
        return False
    stream: object = cast("Any", handler).stream
    return stream in (sys.stderr, sys.stdout, sys.__stderr__, sys.__stdout__)


def _leave_out_formatted(_: object, __: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """What other handlers' formatters have left on the record says nothing new."""
    for name in ("message", "asctime"):
        event_dict.pop(name, None)
    return event_dict


def _as_json(line: object, default: Callable[[Any], Any]) -> str:
    """A line of JSON whatever is in it: NaN, keys that are no texts, what holds itself, an object without a `repr`."""
    try:
        return dumps(line, default=default, allow_nan=False)
    except Exception:  # noqa: BLE001 because a `repr` may raise anything, and the line is wanted all the same
        return dumps(plain(line, 4 * _LIMIT))


def _mask(_: object, __: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Mask what looks like a secret in lines of our own: what applications log is theirs."""
    logger = str(event_dict.get("logger"))
    if logger == "agentflow" or logger.startswith("agentflow."):
        for name, value in event_dict.items():
            event_dict[name] = clean(value, _LIMIT) if isinstance(value, str) else plain(value, 4 * _LIMIT)
    return event_dict
