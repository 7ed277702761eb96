"""What is noted on an operation becomes events of its span."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from . import names
from .content import LIMITS, as_json, clean
from .failures import error_type, message_of

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

    from agentflow.observe import Note

    from .content import Content
    from .trail import Trail

MOST = 32
"""So many notes of one name become events of a span; the rest is counted."""

_CODE = frozenset({"step", "steps", "type", "because", "id"})
"""Facts that are texts and come from the code: they go out whatever the content level."""
_RETRY = {
    "attempt": names.RETRY_ATTEMPT,
    "delay": names.RETRY_WAIT,
    "wait": names.RETRY_WAIT,
    "status": names.HTTP_STATUS,
    "retry_after": names.RETRY_AFTER,
}


def add(trail: Trail, note: Note, content: Content) -> None:
    """Add what was noted to the span."""
    name = note.name
    facts = note.facts
    if name == "retry":
        trail.wait += float(facts.get("wait", facts.get("delay")) or 0.0)
    if trail.count(name) > MOST or trail.span is None:
        return
    made: dict[str, AttributeValue] = {}
    for fact, value in facts.items():
        _tell(made, name, fact, value, content)
    trail.span.add_event(names.note_event(name), made, note.at)


def _tell(made: dict[str, AttributeValue], note: str, fact: str, value: Any, content: Content) -> None:
    key = (_RETRY.get(fact) if note == "retry" else None) or names.note_fact(note, fact)
    if isinstance(value, BaseException):
        made[names.ERROR_TYPE] = error_type(value)
        if content != "none":
            made[names.EXCEPTION_MESSAGE] = message_of(value)
    elif isinstance(value, bool | int | float):
        made[key] = value
    elif fact in _CODE:
        if isinstance(value, str):
            made[key] = clean(value, 256)
        elif isinstance(value, list | tuple):
            made[key] = [clean(str(one), 256) for one in cast("list[object]", value)[:MOST]]
    elif note == "event_streamed":
        made[names.EVENT_TYPE] = type(value).__name__
    elif value is not None and content != "none":
        made[key] = as_json(value, LIMITS["preview"].text) if not isinstance(value, str) else clean(value, 1024)


def totals(trail: Trail) -> dict[str, AttributeValue]:
    """What the notes on a span add up to."""
    made: dict[str, AttributeValue] = {}
    left_out = 0
    for name, many in (trail.counts or {}).items():
        if name == "event_streamed":
            made[names.STREAMED] = many
        else:
            left_out += max(0, many - MOST)
    if left_out:
        made[names.NOTES_LEFT_OUT] = left_out
    return made
