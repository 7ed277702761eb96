"""The observer that writes log lines of runs, steps and retries: what a plain `logging` shows of a run."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from agentflow.log import logger
from agentflow.observe import Kind, Observer

if TYPE_CHECKING:
    from agentflow.observe import Note, Operation

LOGGER = "agentflow.runs"
"""Its lines go to a logger of their own, which can be silenced while the warnings of "agentflow" stay."""

_RETRIED = frozenset({Kind.CHAT, Kind.EMBEDDINGS, Kind.RERANK, Kind.TOOL})
_TROUBLE = frozenset({"error", "timeout"})
_FAILURES = _TROUBLE | {"retried"}
_CALLED = {Kind.EVENT: "event_type", Kind.CHAT: "model", Kind.EMBEDDINGS: "model"}


class LineObserver(Observer):
    """Writes a line when a run starts or ends, when a step has ended, and for each retry; names and times only.

    - `level`: what of it is wanted; with `logging.DEBUG` also events, calls, and steps as they begin.
    """

    reads_current = True

    def __init__(self, level: int) -> None:
        self._all = level <= logging.DEBUG
        self.kinds = frozenset(Kind) if self._all else frozenset({Kind.RUN, Kind.STEP, Kind.EVENT, *_RETRIED})

    def __repr__(self) -> str:
        return f"LineObserver({'logging.DEBUG' if self._all else 'logging.INFO'})"

    def started(self, op: Operation) -> None:
        """A run begins, or goes on."""
        if op.kind is Kind.RUN:
            if op.segment > 1:
                told: dict[str, Any] = {"segment": op.segment, "suspended": _seconds(op.suspended_ns)}
                logger(LOGGER).info("run resumed", **told, **_where(op))
            else:
                logger(LOGGER).info("run started", **_where(op))
        elif self._all and op.kind is Kind.STEP:
            told = {"attempt": op.attempt, "event_type": type(op.subject).__name__, "waited": _seconds(op.queued_ns)}
            logger(LOGGER).debug("step started", **_name(op), **told, **_where(op))

    def noted(self, op: Operation, note: Note) -> None:
        """Something is to be tried again."""
        if note.name != "retry":
            return
        facts = note.facts
        told = {**_name(op), "attempt": facts.get("attempt")}
        error = facts.get("error")
        if isinstance(error, BaseException):
            told["error"] = type(error).__qualname__
        told["wait"] = float(facts.get("wait", facts.get("delay")) or 0.0)
        logger(LOGGER).warning(f"{op.kind} failed, is tried again", **told, **_where(op))

    def finished(self, op: Operation, error: BaseException | None) -> None:
        """A run or a step has ended."""
        kind = op.kind
        if not (self._all or kind is Kind.RUN or kind is Kind.STEP):
            return
        told = {**_name(op), "outcome": op.outcome}
        if error is not None and op.outcome in _FAILURES:
            told["error"] = type(error).__qualname__
        told["duration"] = _seconds(max(0, op.ended_at - op.started_at))
        if kind is Kind.STEP:
            told["waited"] = _seconds(op.queued_ns)
            told["attempt"] = op.attempt
        lines = logger(LOGGER)
        if kind is not Kind.RUN and (kind is not Kind.STEP or op.outcome == "collecting"):
            say = lines.debug
        else:
            say = lines.warning if op.outcome in _TROUBLE else lines.info
        say(f"{kind} {'suspended' if op.outcome == 'suspended' else 'ended'}", **told, **_where(op))


def _seconds(nanoseconds: int) -> float:
    """To the microsecond: what is beyond is noise."""
    return round(nanoseconds / 1e9, 6)


def _name(op: Operation) -> dict[str, Any]:
    """Which step, event, model or tool it is."""
    if op.kind is Kind.RUN:
        return {}
    return {_CALLED.get(op.kind, op.kind.value): op.name}


def _where(op: Operation) -> dict[str, Any]:
    """Which run it is part of."""
    told = {"workflow": op.workflow, "run_id": op.run_id}
    return {name: value for name, value in told.items() if value is not None}
