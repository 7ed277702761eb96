"""Where an operation begins, for one of several observers: each has spans of its own, and one span is current."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan

from .trail import PLACE, SPAN, with_span

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from agentflow.observe import Observer, Ref

    from .trail import Trail


class Place(NamedTuple):
    """Whose the span is that an observer made the current one, and what was current before any observer did."""

    span: Span
    ref: Ref
    outer: Any
    outer_ref: Ref | None


def inside(span: Span, ref: Ref, current: Context) -> Context:
    """The context in which the span of this operation is the current one. `current`: the one that is."""
    place = _place(current)
    if place is not None and place.ref is ref:  # another observer has made its span of the same the current one
        made = Place(span, ref, place.outer, place.outer_ref)
    else:
        made = Place(span, ref, current.get(SPAN), None if place is None else place.ref)
    return Context({**current, SPAN: span, PLACE: made})


def beginning(observer: Observer, ref: Ref, current: Context) -> Context:
    """The current context as this observer has it, where an operation begins: a span of the user's own stays."""
    place = _place(current)
    if place is None:
        return current
    around, span = (place.outer_ref, place.outer) if place.ref is ref else (place.ref, place.span)
    trail: Trail | None = None if around is None else around.carried_by(observer)
    if trail is not None:
        if trail.context is not None and trail.context.get(SPAN) is place.span:
            return current
        return with_span(NonRecordingSpan(trail.span_context), current)
    return current if span is place.span else with_span(INVALID_SPAN if span is None else span, current)


def left_by(context: Context) -> Context:
    """The same without whose span is current, for what begins when that operation has ended."""
    made = dict(context)
    made.pop(PLACE, None)
    return Context(made)


def _place(current: Context) -> Place | None:
    """Whose span is current; None where it is a span of the user's own, or there is none."""
    place: Any = current.get(PLACE)
    return place if place is not None and place.span is current.get(SPAN) else None
