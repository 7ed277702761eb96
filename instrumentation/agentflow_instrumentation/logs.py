"""The observer that sends log records of runs and retries: what a crash leaves behind.

A span goes out when it ends; where the process is killed, it never does. The record of a start has gone out by then.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from opentelemetry._logs import get_logger_provider

from agentflow.observe import Kind, Observer

from . import names
from .content import Policy
from .failures import error_type, told_of
from .record import ERROR, INFO, WARN, Sender

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.util.types import AttributeValue

    from agentflow.observe import Note, Operation

    from .content import Content
    from .redactors import Redactor

_FAILURES = frozenset({"error", "timeout"})
_RETRIES: Final = {Kind.STEP: names.STEP_RETRY, Kind.TOOL: names.TOOL_RETRY}


class LogObserver(Observer):
    """Sends a log record when a run starts, is suspended, goes on and ends, and for each retry.

    Each belongs to the span of the run, the step or the call, where that has one.

    - `logger_provider`: where records go; the global one by default.
    - `content`: whether the text of an error goes out: not with "none"; its class always does. By default what
      `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT` says of events, else "none".
    - `redactors`: what is taken out of such texts, as for spans.
    """

    kinds = frozenset({Kind.RUN, Kind.STEP, Kind.CHAT, Kind.EMBEDDINGS, Kind.RERANK, Kind.TOOL})
    reads_current = True

    def __init__(
        self, logger_provider: Any = None, *, content: Content | None = None, redactors: Iterable[Redactor] = ()
    ) -> None:
        self._policy = Policy(content, redactors, on="event")
        self._sender = Sender(get_logger_provider() if logger_provider is None else logger_provider, names.SCOPE)
        self._open: WeakSet[_Segment] = WeakSet()

    def __repr__(self) -> str:
        return f"LogObserver(content={self._policy.level!r})"

    def started(self, op: Operation) -> None:
        """A run begins, or goes on."""
        if op.kind is not Kind.RUN:
            return
        told = _about(op)
        segment = _Segment(told.copy(), op)
        self._open.add(segment)
        op.ref.carry(self, segment)
        if op.segment > 1:
            told[names.SUSPENDED] = op.suspended_ns / 1e9
            self._sender.send(INFO, f"run resumed: {op.name}", told, at=op.started_at, event=names.RUN_RESUMED)
        else:
            self._sender.send(INFO, f"run started: {op.name}", told, at=op.started_at, event=names.RUN_STARTED)

    def noted(self, op: Operation, note: Note) -> None:
        """Something is to be tried again."""
        if note.name != "retry":
            return
        facts = note.facts
        told: dict[str, AttributeValue] = {
            names.RUN_ID: op.run_id or "",
            names.WORKFLOW_OF: op.workflow or "",
            names.RETRY_ATTEMPT: int(facts.get("attempt") or 0),
            names.RETRY_WAIT: float(facts.get("wait", facts.get("delay")) or 0.0),
        }
        if op.kind is Kind.STEP:
            told[names.STEP] = op.name
        elif op.kind is Kind.TOOL:
            told[names.TOOL_NAME] = op.name
        else:
            told[names.REQUEST_MODEL] = op.name
        error = facts.get("error")
        if isinstance(error, BaseException):
            told |= {names.ERROR_TYPE: error_type(error), **told_of(error, self._policy)}
        self._sender.send(
            WARN, f"retry: {op.kind} {op.name}", told, at=note.at, event=_RETRIES.get(op.kind, names.LLM_RETRY)
        )

    def finished(self, op: Operation, error: BaseException | None) -> None:
        """A run has ended, or this segment of it."""
        if op.kind is not Kind.RUN:
            return
        self._open.discard(op.ref.carried_by(self))
        told = {
            **_about(op),
            names.OUTCOME: op.outcome,
            names.RUN_DURATION: max(0, op.ended_at - op.started_at) / 1e9,
        }
        if op.outcome == "suspended":
            self._sender.send(INFO, f"run suspended: {op.name}", told, at=op.ended_at, event=names.RUN_SUSPENDED)
            return
        failed = op.outcome in _FAILURES
        if failed:
            kind = "timeout" if op.outcome == "timeout" else None
            told[names.ERROR_TYPE] = kind or ("_OTHER" if error is None else error_type(error))
            if error is not None:
                told |= told_of(error, self._policy)
        self._sender.send(
            ERROR if failed else INFO,
            f"run ended: {op.name}: {op.outcome}",
            told,
            at=op.ended_at,
            event=names.RUN_ENDED,
        )

    def close(self) -> None:
        """Nobody will hear of the end of runs that are still open: they are suspended, as their spans say."""
        now = time.time_ns()
        for segment in list(self._open):
            self._open.discard(segment)
            told = {
                **segment.told,
                names.OUTCOME: "suspended",
                names.RUN_DURATION: (now - segment.started_at) / 1e9,
            }
            self._sender.send(INFO, f"run suspended: {segment.name}", told, at=now, event=names.RUN_SUSPENDED)


class _Segment:
    """A run that goes on, as its name carries it: a run that nobody holds any more is forgotten here, too."""

    __slots__ = ("__weakref__", "name", "started_at", "told")

    def __init__(self, told: dict[str, AttributeValue], op: Operation) -> None:
        self.told = told
        self.name = op.name
        self.started_at = op.started_at


def _about(op: Operation) -> dict[str, AttributeValue]:
    """What every record of a run says."""
    told: dict[str, AttributeValue] = {names.RUN_ID: op.run_id or "", names.WORKFLOW_OF: op.name}
    if op.agent is not None:
        told[names.AGENT] = op.agent
    if op.session is not None:
        told[names.SESSION] = op.session
    if op.user is not None:
        told[names.USER] = op.user
    told[names.SEGMENT] = op.segment
    return told
