"""What the observer keeps of an operation that is open: on the operation's own name, and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakSet, ref

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.context import Context

from . import names

if TYPE_CHECKING:
    from contextvars import Token

    from opentelemetry.trace import Span, SpanContext

    from agentflow.observe import Outcome

    from .messages import History


_SPAN = next(iter(trace.set_span_in_context(trace.INVALID_SPAN, Context())))
"""The key under which a context has its span."""


def with_span(span: Span, context: Context) -> Context:
    """As `trace.set_span_in_context`, which copies twice."""
    return Context({**context, _SPAN: span})


class RunTrail:
    """What the trails of one run share."""

    __slots__ = ("calls", "history", "run")

    def __init__(self) -> None:
        self.history: History | None = None
        """What the last chat of the run was sent."""
        self.calls: WeakSet[Trail] = WeakSet()
        """The calls of clients that are open: one in a thread may outlive the run."""
        self.run: ref[Any] | None = None
        """The engine's run, as its first step has told."""


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
        try:
            token.var.reset(token)  # detach() would log what is no error here
        except ValueError:
            return  # a generator that is closed elsewhere, a step that is left behind: nothing is current here
        except AttributeError:  # contexts that are kept in another way than in a context variable
            otel.detach(token)
        if left is not self.context:
            self._keep(left)

    def _keep(self, left: Context) -> None:
        now = otel.get_current()
        kept = {key: value for key, value in left.items() if key != _SPAN}
        if kept != {key: value for key, value in now.items() if key != _SPAN}:
            otel.attach(Context({**kept, _SPAN: now[_SPAN]} if _SPAN in now else kept))


def give_up(span: Span, outcome: Outcome) -> None:
    """End a span whose operation nobody will end."""
    if span.is_recording():
        span.set_attribute(names.OUTCOME, outcome)
        span.end()
