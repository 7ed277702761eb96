"""What the observer keeps of an operation that is open: on the operation's own name, and nowhere else."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING
from weakref import WeakSet

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.context import Context

from . import names
from .interplay import KEYS

if TYPE_CHECKING:
    from contextvars import Token

    from opentelemetry.trace import Span, SpanContext
    from opentelemetry.util.types import AttributeValue

    from agentflow.observe import Outcome

    from .content import Teller
    from .messages import History


SPAN = next(iter(trace.set_span_in_context(trace.INVALID_SPAN, Context())))
"""The key under which a context has its span."""
PLACE = "agentflow.place"
"""The key under which it has whose span that is: see `place`."""
_WITHIN = KEYS | {SPAN, PLACE}
"""What holds below a span, and no longer when it has ended."""


def with_span(span: Span, context: Context) -> Context:
    """As `trace.set_span_in_context`, which copies twice."""
    return Context({**context, SPAN: span})


class RunTrail:
    """What the trails of one run share."""

    __slots__ = ("asked", "belongs", "calls", "history", "parts", "silent")

    def __init__(self) -> None:
        self.history: History | None = None
        """What the last chat of the run was sent."""
        self.calls: WeakSet[Trail] | None = None
        """The calls of clients that are open, if there was any: one in a thread may outlive the run."""
        self.parts: set[Trail] = set()
        """Its steps and events that are open."""
        self.belongs: dict[str, AttributeValue] = {}
        """The conversation that it belongs to, and whose, as all chats of the run say it, too."""
        self.silent = False
        """Does its span show no input? A run that goes on shows the answer with which it does."""
        self.asked: object = None
        """What a person was asked and has not answered: if it pauses, its span shows that as its output."""

    def forget(self, trail: Trail) -> None:
        """A part of the run, or a client's call in it, has ended."""
        if trail in self.parts:
            self.parts.discard(trail)
        elif self.calls is not None:
            self.calls.discard(trail)


class Trail:
    """The span of an operation, and what links to it and children of it need to know."""

    __slots__ = (
        "__weakref__",
        "cached",
        "context",
        "counts",
        "label",
        "limited",
        "lost",
        "run",
        "span",
        "span_context",
        "teller",
        "token",
        "trimmed",
        "wait",
    )

    def __init__(self, span: Span | None, span_context: SpanContext, label: str, lost: Outcome) -> None:
        self.span = span
        """None when it has ended."""
        self.span_context = span_context
        self.label = label
        """How `agentflow.triggered_by` names it."""
        self.lost: Outcome = lost
        """The outcome, should its operation be forgotten before it ends."""
        self.teller: Teller | None = None
        """What tells its content; None where there is none."""
        self.context: Context | None = None
        """In which this span is the current one."""
        self.token: Token[Context] | None = None
        self.run: RunTrail | None = None
        self.counts: dict[str, int] | None = None
        """By name, the notes on it."""
        self.wait = 0.0
        """Seconds that retries waited, together."""
        self.limited = 0.0
        """Seconds waited for the rate limit, together."""
        self.cached = False
        """Did the answer, or a part of it, come from a cache?"""
        self.trimmed = 0
        """Messages that a memory left out."""

    def __str__(self) -> str:
        return f"{self.label} {self.span_context.span_id:016x}"

    def __del__(self) -> None:
        # a run that waits for a human, and whose handler nobody holds any more, never ends
        span, self.span = self.span, None
        if span is not None:
            give_up(span, self.lost)

    def count(self, name: str) -> int:
        """One more note of this name: how many that makes."""
        if self.counts is None:
            self.counts = {}
        many = self.counts[name] = self.counts.get(name, 0) + 1
        return many

    @property
    def waits(self) -> bool:
        """Does a step stand still until an event comes?"""
        counts = self.counts or {}
        return counts.get("waiting", 0) > counts.get("answered", 0)

    def belongs_to(self, run: RunTrail) -> None:
        """It is a client's call in this run."""
        self.run = run
        if run.calls is None:
            run.calls = WeakSet()
        run.calls.add(self)

    def attach(self, context: Context) -> None:
        """Make a context the current one, here."""
        self.context = context
        self.token = otel.attach(context)

    def detach(self) -> None:
        """Make current what was current before, if this is where `attach` was called.

        What the user's code attached meanwhile and left, such as baggage, stays; a span that it left does not.
        """
        token, self.token = self.token, None
        if token is None:
            return
        left = otel.get_current()
        if leave(token) and left is not self.context:
            self._keep(left)

    def _keep(self, left: Context) -> None:
        now = otel.get_current()
        kept = {key: value for key, value in left.items() if key not in _WITHIN}
        if kept != {key: value for key, value in now.items() if key not in _WITHIN}:
            otel.attach(Context({**kept, **{key: now[key] for key in _WITHIN if key in now}}))


def leave(token: Token[Context]) -> bool:
    """Make current what was current before `attach` gave this token. False where that was called elsewhere."""
    try:
        token.var.reset(token)  # detach() would log what is no error here
    except ValueError:
        return False  # a generator that is closed elsewhere, a step that is left behind: nothing is current here
    except AttributeError:  # contexts that are kept in another way than in a context variable
        otel.detach(token)
    return True


def alive(trails: WeakSet[Trail]) -> list[Trail]:
    """All of them, though other threads may add some meanwhile."""
    while True:
        with suppress(RuntimeError):  # it has grown while it was gone through
            return list(trails)


def give_up(span: Span, outcome: Outcome) -> None:
    """End a span whose operation nobody will end; one that began before a fork ends in the process that it began in."""
    if span.is_recording() and getattr(span, "start_time", _born) >= _born:
        span.set_attribute(names.OUTCOME, outcome)
        span.end()


_born = 0
"""When this process was forked off another, in nanoseconds since the epoch."""


def _forked() -> None:
    global _born  # noqa: PLW0603 because it is the process's
    _born = time.time_ns()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
