"""What every log line can be told of where it was written: the current span, the run, the step."""

from __future__ import annotations

import logging
from sys import modules
from typing import TYPE_CHECKING, Any

from agentflow.observe import Kind, Observer, current_scope, current_session

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from agentflow.observe import Operation

NAMES = ("trace_id", "span_id", "trace_flags", "run_id", "workflow", "step", "attempt", "session")
ABSENT = "-"

wanted = False
"""Does anybody ask where lines are written? Runs that start from then on let their steps be known."""


def want() -> None:
    """Let steps be known in the runs that start from now on. The first line that asks does it, too."""
    global wanted  # noqa: PLW0603 because how lines are written is the process's
    wanted = True


def here() -> dict[str, Any]:
    """What is known here, by `NAMES`: ids in hex; {} outside of spans and runs."""
    if not wanted:
        want()
    found: dict[str, Any] = {}
    trace: Any = modules.get("opentelemetry.trace")  # where nobody has imported it, no span is current
    if hasattr(trace, "get_current_span"):
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            found["trace_id"] = f"{span.trace_id:032x}"
            found["span_id"] = f"{span.span_id:016x}"
            found["trace_flags"] = f"{span.trace_flags:02x}"
    scope = current_scope.get()
    session = current_session.get()
    if session is not None:
        found["session"] = session.id
    if scope is None:
        return found
    run_id = scope.run_id or getattr(scope.run, "run_id", None)
    if run_id is not None:
        found["run_id"] = run_id
    if scope.workflow:
        found["workflow"] = scope.workflow
    if scope.step is not None:
        found["step"] = scope.step
        found["attempt"] = scope.attempt
    return found


def add_trace_context(logger: object, method: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ARG001 because structlog calls it so
    """A processor of structlog that adds `NAMES`, as far as they are known, and replaces nothing."""
    for name, value in here().items():
        event_dict.setdefault(name, value)
    return event_dict


class TraceContextFilter(logging.Filter):
    """Gives each record of a handler `NAMES`, for `%(trace_id)s` in a format; "-" stands for what is not known.

    Add it to a handler, not to a logger: `handler.addFilter(TraceContextFilter())`.
    """

    def __init__(self) -> None:
        super().__init__()
        want()

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass."""
        known = here()
        for name in NAMES:
            if name not in vars(record):
                setattr(record, name, known.get(name, ABSENT))
        return True


class StepMarker(Observer):
    """Sees nothing, but where somebody listens to steps, code in a step can tell which it is in."""

    kinds = frozenset({Kind.STEP})

    def started(self, op: Operation) -> None:
        """Nothing to do: the engine has marked the context."""
