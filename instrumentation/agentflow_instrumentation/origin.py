"""What a run's span says of where the run comes from, and of the conversation to which it belongs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from agentflow.observe import current_session

from . import names
from .cutting import clean

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext
    from opentelemetry.util.types import AttributeValue

    from agentflow.observe import Operation, Origin

Attributes = dict[str, "AttributeValue"]

_PLACE = "traceparent"
_LONGEST = 256
_reads = TraceContextTextMapPropagator()


def pack(op: Operation, place: SpanContext) -> None:
    """Let the place of a run's span be stored with the run."""
    key = _PLACE
    while key in op.luggage:  # another observer's, which sends to elsewhere: the order of them is the same next time
        key += "'"
    op.luggage[key] = "00-%032x-%016x-%02x" % (place.trace_id, place.span_id, place.trace_flags)  # noqa: UP031 because it takes half the time


def before(op: Operation) -> SpanContext | None:
    """The span of what a run goes on from, where that is known. Called before `pack`."""
    if op.origin is None:
        return None
    key = _PLACE
    while key in op.luggage:
        key += "'"
    carrier = {_PLACE: op.origin.luggage.get(key, "")}
    found = trace.get_current_span(_reads.extract(carrier, Context())).get_span_context()
    return found if found.is_valid else None


def origin(op: Operation, span: SpanContext | None) -> tuple[Attributes, tuple[Link, ...]]:
    """The attributes and links of a run that goes on from another, or from its own segment before."""
    if op.origin is None:
        return {}, ()
    made: Attributes = {}
    how = op.origin.how
    if how == "continues":
        made[names.CONTINUES] = op.origin.run_id
    elif how == "forked_from":
        made[names.FORKED_FROM] = op.origin.run_id
    elif span is not None:
        made[names.RESUMED_FROM] = f"{span.trace_id:032x}"
    return made, () if span is None else (Link(span, {names.LINK: how}),)


def sent_by(context: Context) -> tuple[Link, ...]:
    """The link to the sender of the message that is worked on, where its trace is not gone on with."""
    sender: Any = context.get(names.SENT_BY)
    return () if sender is None else (Link(sender, {names.LINK: "sent_by"}),)


def belongs(op: Operation, above: Attributes | None, current: Context) -> Attributes:
    """To which conversation a run and the chats in it belong, and to whom. `above`: the same of a run around it.

    Without a conversation that was named there is none, but back ends that show sessions put together what has the
    same: all segments of a run, and the runs inside of it.
    """
    session, user = op.session, op.user
    # OpenInference may have been told, and the engine does not store that
    if session is None and (session := _told(names.SESSION, op.origin, current)) is not None:
        op.luggage[names.SESSION] = session
    if user is None and (user := _told(names.USER, op.origin, current)) is not None:
        op.luggage[names.USER] = user
    made = _belongs(session, user)
    if session is None:
        made[names.SESSION] = (op.run_id or "") if above is None else above[names.SESSION]
    return made


def belongs_here() -> Attributes:
    """The same, for what is called outside of any run."""
    said, here = current_session.get(), otel.get_current()
    if said is None:
        return _belongs(_text(names.SESSION, here), _text(names.USER, here))
    return _belongs(said.id, said.user or _text(names.USER, here))


def _belongs(session: str | None, user: str | None) -> Attributes:
    made: Attributes = {}
    if session is not None:
        made[names.SESSION] = made[names.CONVERSATION] = clean(session, _LONGEST)
    if user is not None:
        made[names.USER] = clean(user, _LONGEST)
    return made


def _told(key: str, before: Origin | None, current: Context) -> str | None:
    """What OpenInference was told where a run begins, or when that began from which it goes on."""
    if before is None:
        return _text(key, current)
    # who answers may be in a conversation of their own
    said = None if before.how == "resumed_from" else _text(key, current)
    return said or before.luggage.get(key)


def _text(key: str, context: Context) -> str | None:
    """What OpenInference's context managers have put into a context."""
    value = context.get(key)
    return value if isinstance(value, str) and value else None
