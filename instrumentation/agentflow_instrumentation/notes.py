"""What is noted on an operation becomes events of its span; where it is but one fact of the whole, an attribute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from . import names, tracer
from .cutting import clean
from .failures import error_type, message_of

if TYPE_CHECKING:
    from opentelemetry.trace import Span
    from opentelemetry.util.types import AttributeValue

    from agentflow.observe import Note

    from .content import Teller
    from .trail import Trail

MOST = 32
"""So many notes of one name become events of a span; the rest is counted."""

_CODE = frozenset({"step", "steps", "type", "because", "id", "asked"})
"""Facts that are texts and come from the code: they go out whatever the content level."""
_NUMBERS = (bool, int, float)
_RETRY = {
    "attempt": names.RETRY_ATTEMPT,
    "delay": names.RETRY_WAIT,
    "wait": names.RETRY_WAIT,
    "status": names.HTTP_STATUS,
    "retry_after": names.RETRY_AFTER,
}
_COUNTED = {"event_streamed": names.STREAMED, "repair": names.CHAT_REPAIRS}
"""Notes whose number is an attribute of the span."""


def add(trail: Trail, note: Note, tell: Teller) -> None:
    """Add what was noted to the span."""
    name = note.name
    facts = note.facts
    if trail.span is None or _is_attribute(trail, trail.span, name, facts):
        return
    if name == "retry":
        trail.wait += float(facts.get("wait", facts.get("delay")) or 0.0)
    elif name == "rate_limit":
        trail.limited += float(facts.get("wait") or 0.0)
    elif name == "trimmed":
        trail.trimmed += int(facts.get("messages") or 0)
    if trail.count(name) > MOST:
        return
    made: dict[str, AttributeValue] = {}
    for fact, value in facts.items():
        _tell(made, name, fact, value, tell)
    tracer.note(trail.span, names.note_event(name), made, note.at)


def _is_attribute(trail: Trail, span: Span, name: str, facts: dict[str, Any]) -> bool:
    """Tell it as an attribute, where it is one."""
    if name == "first_chunk":
        span.set_attributes({names.FIRST_CHUNK: float(facts.get("after") or 0.0)})
    elif name == "cache":
        trail.cached = trail.cached or bool(facts.get("hit"))
        span.set_attribute(names.LLM_CACHE_HIT, trail.cached)
    elif name == "choices_ignored":
        span.set_attribute(names.CHOICES_IGNORED, int(facts.get("ignored") or 0))
    else:
        return False
    return True


def _tell(made: dict[str, AttributeValue], note: str, fact: str, value: Any, tell: Teller) -> None:
    key = (_RETRY.get(fact) if note == "retry" else None) or names.note_fact(note, fact)
    if note == "event_streamed":
        made[names.EVENT_TYPE] = type(value).__name__
    elif isinstance(value, BaseException):
        made[names.ERROR_TYPE] = error_type(value)
        if tell.may.shows:
            made[names.EXCEPTION_MESSAGE] = message_of(value, tell)
    elif isinstance(value, _NUMBERS):
        made[key] = value
    elif fact in _CODE or (note == "fallback" and fact == "to"):
        if isinstance(value, str):
            made[key] = clean(value, 256)
        elif isinstance(value, list | tuple):
            made[key] = tuple(clean(str(one), 256) for one in cast("list[object]", value)[:MOST])
    elif value is not None and tell.may.shows:
        limit = tell.may.glance
        made[key] = tell.text(key, value, limit) if isinstance(value, str) else tell.json(key, value, limit)


def totals(trail: Trail) -> dict[str, AttributeValue]:
    """What the notes on a span add up to."""
    made: dict[str, AttributeValue] = {}
    left_out = 0
    for name, many in (trail.counts or {}).items():
        if name in _COUNTED:
            made[_COUNTED[name]] = many
        if name != "event_streamed":
            left_out += max(0, many - MOST)
    if left_out:
        made[names.NOTES_LEFT_OUT] = left_out
    return made
