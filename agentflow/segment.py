"""The parts of a run between its pauses: what observers are told of each, and what of it is stored."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from .observe import Origin

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextvars import Context as Variables

    from .clock import Timer
    from .observe import Outcome, Ref, RunOperation, Watch


class Segment:
    """The newest segment of a run. Its end is told even where nobody holds the run any more."""

    __slots__ = (
        "_base",
        "_op",
        "_watch",
        "asked",
        "idle_ns",
        "luggage",
        "number",
        "origin",
        "parent",
        "paused",
        "session",
        "since",
        "stored",
        "timer",
        "user",
    )

    def __init__(self) -> None:
        self.number = 1
        self.origin: Origin | None = None
        """What the next segment goes on from."""
        self.parent: Ref | None = None
        self.luggage: Mapping[str, str] = {}
        """What observers let be stored with this one."""
        self.session: str | None = None
        self.user: str | None = None
        self.paused = False
        """Has it ended, and will another follow?"""
        self.stored = False
        """Was it stored while it stood still? Then it goes on elsewhere, and nothing is told of its end here."""
        self.since = 0.0
        """Since when the run stands still or, while it goes on, last stood still, in seconds since the epoch; or 0."""
        self.idle_ns = 0
        """The same moment as operations have it, in nanoseconds of the system's clock."""
        self.asked: str | None = None
        """The type of the newest question."""
        self.timer: Timer | None = None
        self._op: RunOperation | None = None
        self._watch: Watch | None = None
        self._base: Variables | None = None

    def __del__(self) -> None:
        # a run that waits for a person, and that nobody holds any more, never ends
        if self._op is not None and not sys.is_finalizing():
            self.close(None, "suspended")

    @property
    def open(self) -> bool:
        """Is its operation going on?"""
        return self._op is not None

    def begin(self, op: RunOperation, now: float, watch: Watch, base: Variables) -> None:
        """Tell of its operation, in the context `base`. `now`: seconds since the epoch, as the run's clock has it."""
        if self.paused:
            self.paused = self.stored = False
            self.number += 1
            self.origin = Origin("resumed_from", op.run_id or "", self.luggage)
            op.suspended_ns = round(max(0.0, now - self.since) * 1e9) if self.since else 0
        op.segment, op.origin, op.session, op.user = self.number, self.origin, self.session, self.user
        self.luggage, self.parent = op.luggage, op.parent
        self._op, self._watch, self._base = op, watch, base
        base.run(watch.started, op)

    def close(self, error: BaseException | None, outcome: Outcome, result: Any = None, at_ns: int = 0) -> None:
        """Tell that its operation ended, if it is open."""
        op, watch, base = self._op, self._watch, self._base
        self._op = self._watch = self._base = None
        if op is not None and watch is not None and base is not None:
            op.result = result
            base.run(watch.finished, op, error, outcome, at_ns)

    def pause(self) -> None:
        """It ends, at the moment since which the run stands still."""
        self.paused = True
        self.close(None, "suspended", at_ns=self.idle_ns)

    def followed_by(self, run_id: str) -> Segment:
        """The first segment of a new run, with the state of the run of this id, whose last one this was."""
        new = Segment()
        new.origin = Origin("continues", run_id, self.luggage)
        new.session, new.user = self.session, self.user
        return new

    def fork(self, run_id: str) -> None:
        """It is a new run that begins at a checkpoint of another, whose id is given."""
        self.number, self.paused = 1, False
        self.origin = Origin("forked_from", run_id, self.luggage)

    def facts(self, now: float) -> dict[str, Any]:
        """What is stored of it, as far as anything is. `now`: since when the run stands still; 0 if it ended."""
        facts: dict[str, Any] = {
            "number": self.number if self.number > 1 else 0,
            "suspended": now,
            "luggage": dict(self.luggage),
            "session": self.session,
            "user": self.user,
        }
        return {name: value for name, value in facts.items() if value}

    @classmethod
    def stored_as(cls, facts: Mapping[str, Any], run_id: str, *, ended: bool) -> Segment:
        """What `facts` has given; nothing, where nobody had looked on. Raises what damaged data raises."""
        segment = cls()
        segment.number = int(facts.get("number", 1))
        segment.since = float(facts.get("suspended", 0.0))
        segment.luggage = {str(name): str(value) for name, value in dict(facts.get("luggage", {})).items()}
        segment.session, segment.user = _text(facts.get("session")), _text(facts.get("user"))
        if ended:
            return segment.followed_by(run_id)
        segment.paused = True
        return segment


def _text(value: object) -> str | None:
    return None if value is None else str(value)
