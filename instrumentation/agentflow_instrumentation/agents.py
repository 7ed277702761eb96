"""What the spans of agents tell: what ended a run, what a person was asked and said, which calls were not executed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from . import names
from .cutting import clean, clean_again
from .shapes import fields_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.util.types import AttributeValue

    from .content import Teller

Attributes = dict[str, "AttributeValue"]

_SAID_ELSEWHERE = ("messages", "usage", "history", "handoffs")
"""What of an agent's question and result the spans of its chats tell, with the tools that they have."""
_MOST = 16
_DECLARED = frozenset({"refused", "timeout"})
"""The outcomes of calls whose tool there is."""


_KINDS = {
    "AgentInput": "input",
    "InputRequiredEvent": "question",
    "Approval": "approval",
    "HumanResponseEvent": "answer",
    "ToolResult": "result",
}
_kinds: WeakKeyDictionary[type[Any], str] = WeakKeyDictionary()


def _kind(event: object) -> str:
    """What an event is, by the names of its classes: theirs is a package that this one does not import."""
    cls = type(event)
    kind = _kinds.get(cls)
    if kind is None:
        kind = _kinds[cls] = next((_KINDS[base.__name__] for base in cls.__mro__ if base.__name__ in _KINDS), "")
    return kind


def step_begins(event: Any) -> Attributes | None:
    """What a person said, where a step takes up an approval."""
    if _kind(event) != "approval":
        return None
    said = "refused" if not event.approved else "approved" if event.arguments is None else "edited"
    return {names.APPROVAL: said, names.TOOL_CALL_ID: clean(event.call_id, 256)}


def step_ends(out: Any, tell: Teller) -> Attributes:
    """What a step asks a person, or what became of a call that its tool had no result for.

    The name that a model gives a tool may be anything: it is told where content may go out.
    """
    events: list[Any] = out if isinstance(out, list) else [out]  # pyright: ignore[reportUnknownVariableType]  # because a list holds anything
    kind = _kind(events[0]) if events else ""
    if kind == "question":
        asked: Attributes = {names.ASKED: tuple(type(event).__name__ for event in events[:_MOST])}
        tools = [event.tool for event in events[:_MOST] if hasattr(event, "call_id")]
        if tools:
            asked[names.ASKED_TOOLS] = tuple(clean_again(tool) for tool in tools)
        return asked
    if kind != "result" or events[0].outcome == "ok":
        return {}
    told = events[0]
    made: Attributes = {names.TOOL_OUTCOME: told.outcome, names.TOOL_CALL_ID: clean(told.call_id, 256)}
    if tell.may.shows or told.outcome in _DECLARED:
        made[names.TOOL_NAME] = tell.text(names.TOOL_NAME, told.name, 256) if tell.may.shows else clean_again(told.name)
    return made


def asked(out: Any) -> object:
    """What a step asks a person: the question, or a list of all."""
    events: list[Any] = out if isinstance(out, list) else [out]  # pyright: ignore[reportUnknownVariableType]  # because a list holds anything
    questions = [question(event) for event in events[:_MOST]]
    return questions[0] if len(questions) == 1 else questions


def is_answer(event: object) -> bool:
    """Is it what a person said?"""
    return _kind(event) in {"approval", "answer"}


def run_ends(result: Any, error: BaseException | None) -> Attributes:
    """What ended an agent's run: the result's, or that of an error that has one."""
    result = getattr(error, "result", None) if result is None or error is not None else result
    stopped_by = getattr(result, "stopped_by", None)
    if not isinstance(stopped_by, str):
        return {}
    made: Attributes = {names.STOPPED_BY: stopped_by}
    to = getattr(getattr(result, "handoff", None), "to", None)
    if isinstance(to, str):
        made[names.HANDED_TO] = clean_again(to)
    outcomes = [part.outcome for message in getattr(result, "messages", ()) for part in message.tool_results]
    for outcome, name in _NOT_OK.items():
        if many := outcomes.count(outcome):
            made[name] = many
    return made


_NOT_OK: Mapping[str, str] = {
    "error": names.CALLS_FAILED,
    "timeout": names.CALLS_LATE,
    "refused": names.CALLS_REFUSED,
    "skipped": names.CALLS_SKIPPED,
}


def question(event: object) -> object:
    """The fields of a start event, or of a question or an answer; where it is but one text, that."""
    fields = taken(event)
    only = next(iter(fields.values())) if len(fields) == 1 else None
    return only if isinstance(only, str) else fields


def answer(stop: Any) -> object:
    """What a run ended with: the result, or the fields of a StopEvent of the user's own; an agent's answer."""
    if hasattr(stop, "stopped_by"):
        output: object = getattr(stop, "output", None)
        return str(stop) if output is None else output or getattr(stop, "handoff", None) or output
    fields = fields_of(stop)
    result = fields.pop("result", None)
    if result is not None or not fields:
        return result
    return fields["output"] if isinstance(fields.get("output"), str) else fields


def taken(event: object) -> dict[str, object]:
    """The fields of an event that a run begins with, or a step takes up."""
    return _told(event) if _kind(event) == "input" else fields_of(event)


def produced(event: object) -> dict[str, object]:
    """The fields of an event that a step made."""
    return _told(event) if hasattr(event, "stopped_by") else fields_of(event)


def _told(event: object) -> dict[str, object]:
    """The fields that say something which no other span does."""
    fields = {name: value for name, value in fields_of(event).items() if name not in _SAID_ELSEWHERE}
    return {name: value for name, value in fields.items() if value is not None and value != {}}
