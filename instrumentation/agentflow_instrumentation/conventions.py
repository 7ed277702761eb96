"""A check of spans against the tables of what a span of each kind must, may and must not carry.

```python
assert not check(span)              # what is wrong with one span, in words
assert not check_trace(spans)       # and with all spans of a trace together
```

Spans may be those of the SDK or the records of an `OtlpReceiver`. What others put on our spans, under names of their
own, is theirs.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import names
from .attributes import ATTRIBUTES, Attribute
from .kinds import CONVENTIONS, NOTES, Convention

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = [
    "ATTRIBUTES",
    "CONVENTIONS",
    "NOTES",
    "Attribute",
    "Convention",
    "Place",
    "check",
    "check_trace",
    "check_tree",
    "kind_of",
    "placed",
]

_ANY_NOTE = frozenset({names.ERROR_TYPE, names.EXCEPTION_MESSAGE})
_KNOWN_NOTES = frozenset[str]().union(*(one.events for one in CONVENTIONS.values()))
_EXCEPTION = frozenset({names.EXCEPTION_TYPE, names.EXCEPTION_MESSAGE, names.EXCEPTION_STACK, "exception.escaped"})
_OURS = ("agentflow.", "gen_ai.", "llm.", "openinference.", "reranker.", "embedding.", "input.", "output.", "session.")
_FAILED = frozenset({"error", "timeout", "retried"})
_LONGEST = 64 * 1024
"""Bytes of one attribute."""
_MOST_LINKS = 128
_MOST_NAMED = 16
_CAUSE = re.compile(r"(?:[^:]+:)?\S+ ([0-9a-f]{16})")
_NUMBERS = re.compile(r"\.\d+\.")


@dataclass(slots=True)
class _Facts:
    """A span, whoever made it: ids in hex, times in nanoseconds."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start: int
    end: int
    attributes: Mapping[str, Any]
    status: str
    events: Iterable[Any]
    links: list[tuple[str, Mapping[str, Any]]]
    """The id of the span that it links to, and what it says of that."""
    lost: bool
    """Did the SDK drop attributes to keep to its limits?"""


def _facts(span: Any) -> _Facts:
    if hasattr(span, "parent_id"):
        links = [(link.span_id, link.attributes) for link in span.links]
        head = span.name, span.kind, span.trace_id, span.span_id, span.parent_id, span.start, span.end
        return _Facts(*head, span.attributes, span.status, span.events, links, lost=False)
    own, parent = span.context, span.parent
    return _Facts(
        span.name,
        span.kind.name,
        f"{own.trace_id:032x}",
        f"{own.span_id:016x}",
        "" if parent is None else f"{parent.span_id:016x}",
        span.start_time or 0,
        span.end_time or 0,
        span.attributes or {},
        span.status.status_code.name,
        span.events,
        [(f"{link.context.span_id:016x}", link.attributes or {}) for link in span.links],
        lost=bool(span.dropped_attributes),
    )


def kind_of(span: Any) -> str:
    """Which convention a span's name stands for: its first word."""
    first: str = span.name.partition(" ")[0]
    return first


def check(span: Any, *, content: bool | None = None) -> list[str]:
    """What is wrong with a span that agentflow has made, in words; nothing where it is as it should be.

    - `span`: a `ReadableSpan` of the SDK that has ended, or a `SpanRecord`.
    - `content`: False where no content may be on it; by default it may.
    """
    told = _facts(span)
    convention = CONVENTIONS.get(kind_of(told))
    if convention is None:
        return [f"span {told.name!r}: no kind has such a name; there are {', '.join(CONVENTIONS)}"]
    wrong: list[str] = []
    _check_frame(told, convention, wrong.append)
    _check_attributes(told, convention, wrong.append, content=content)
    _check_links(told, convention, wrong.append)
    for event in told.events:
        _check_event(event, convention, wrong.append, content=content)
    return [f"span {told.name!r}: {problem}" for problem in wrong]


def _check_frame(told: _Facts, convention: Convention, say: Callable[[str], None]) -> None:
    """Name, kinds, status, times."""
    attributes = told.attributes
    rest = told.name[len(convention.name) + 1 :]
    named_by = convention.named_by
    if named_by is not None and attributes.get(named_by, rest) != rest:
        say(f"its name ends in {rest!r}, and its {named_by} is {attributes[named_by]!r}")
    if told.kind != convention.span_kind:
        say(f"its kind is {told.kind}, not {convention.span_kind}")
    if attributes.get(names.SPAN_KIND) != convention.shown_as and not told.lost:
        say(f"its {names.SPAN_KIND} is {attributes.get(names.SPAN_KIND)!r}, not {convention.shown_as!r}")
    if attributes.get(names.OPERATION) != convention.operation and not told.lost:
        say(f"its {names.OPERATION} is {attributes.get(names.OPERATION)!r}, not {convention.operation!r}")
    outcome = attributes.get(names.OUTCOME)
    if outcome not in convention.outcomes and not told.lost:
        say(f"its outcome is {outcome!r}; a {convention.name} ends as {', '.join(sorted(convention.outcomes))}")
    failed = outcome in _FAILED
    if told.status != ("ERROR" if failed else "UNSET"):
        say(f"its outcome is {outcome!r}, and its status {told.status}")
    if failed != (names.ERROR_TYPE in attributes):
        say(f"its outcome is {outcome!r}, and its {names.ERROR_TYPE} {attributes.get(names.ERROR_TYPE)!r}")
    if not 0 < told.start <= told.end:
        say(f"it began at {told.start} and ended at {told.end}")


def _check_attributes(
    told: _Facts, convention: Convention, say: Callable[[str], None], *, content: bool | None
) -> None:
    for name, value in told.attributes.items():
        known = ATTRIBUTES.get(name)
        if known is None:
            known = ATTRIBUTES.get(_NUMBERS.sub(".N.", name))
            if known is None:
                if name.startswith(_OURS):
                    say(f"nothing is known of its attribute {name}")
                continue
        if not convention.allows(known.name):
            say(f"a {convention.name} has no attribute {name}")
        problem = _problem(known, value, content=content)
        if problem:
            say(f"its attribute {name} {problem}")
    missing = convention.required - told.attributes.keys()
    if missing and not told.lost:
        say(f"it lacks {', '.join(sorted(missing))}")
    for value, kind in ((names.INPUT, names.INPUT_TYPE), (names.OUTPUT, names.OUTPUT_TYPE)):
        if told.attributes.get(kind) == names.JSON and _parsed(told.attributes.get(value)) is None:
            say(f"its {value} is no JSON, and its {kind} says that it is")


def _fits(kind: type, value: object) -> bool:
    """Is it of this very type? Lists are tuples in the SDK and lists where they arrive; a bool is no int."""
    return type(value) is kind or (kind is tuple and isinstance(value, list))


def _problem(known: Attribute, value: Any, *, content: bool | None) -> str:
    """What is wrong with a value, if something is."""
    if not _fits(known.type, value):
        return f"is of type {type(value).__name__}, not {known.type.__name__}"
    if known.values and value not in known.values:
        return f"is {value!r}; there are {', '.join(known.values)}"
    if known.content and content is False:
        return "is content, and none may go out"
    if known.type is str and len(value) > _LONGEST:
        return f"is {len(value)} characters long"
    if known.type is float and value != value:  # noqa: PLR0124 because that is what NaN is
        return "is no number"
    return _misshapen(known.shape, value) if known.shape else ""


def _parsed(text: Any) -> tuple[Any] | None:
    """What JSON says, or None where it is none."""
    try:
        return (json.loads(text),)
    except (TypeError, ValueError, RecursionError):
        return None


def _objects(text: str) -> list[Any] | None:
    """A list of JSON's objects, or None where it is none."""
    parsed = _parsed(text)
    if parsed is None or not text.lstrip().startswith("["):
        return None
    items: list[Any] = parsed[0]
    return items if all(hasattr(item, "items") for item in items) else None


def _misshapen(shape: str, text: str) -> str:
    items = _objects(text)
    if items is None:
        return "is no JSON list of objects"
    if shape in {"messages", "answer"} and not all(
        isinstance(item.get("role"), str) and isinstance(item.get("parts"), list) for item in items
    ):
        return "has a message without role or parts"
    if shape == "answer" and not all(isinstance(item.get("finish_reason"), str) for item in items):
        return "has a message without finish_reason: Phoenix drops them all"
    if shape == "documents" and not all(isinstance(item.get("score"), float) for item in items):
        return "has a document without a number as its score: Phoenix drops them all"
    return ""


def _check_links(told: _Facts, convention: Convention, say: Callable[[str], None]) -> None:
    causes = told.attributes.get(names.TRIGGERED_BY, ())
    if not told.links and not causes:
        return
    if convention.links == "none":
        say(f"a {convention.name} has no links")
    elif convention.links == "causes":
        _check_causes(told, causes, say)
    for _, facts in told.links:
        for name, value in facts.items():
            if name.startswith(_OURS) and (name != names.LINK or value not in ATTRIBUTES[names.LINK].values):
                say(f"a link of it has {name} {value!r}")


def _check_causes(told: _Facts, causes: Iterable[str], say: Callable[[str], None]) -> None:
    linked = {span_id for span_id, _ in told.links}
    if len(told.links) > _MOST_LINKS:
        say(f"it has {len(told.links)} links")
    named = list(causes)
    if len(named) > _MOST_NAMED or (linked and not named):
        say(f"it has {len(told.links)} links, and its {names.TRIGGERED_BY} names {len(named)}")
    for cause in named:
        found = _CAUSE.fullmatch(cause)
        if found is None:
            say(f"its {names.TRIGGERED_BY} has {cause!r}, not step:Event and the span's id")
        elif found[1] not in linked:
            say(f"its {names.TRIGGERED_BY} has {cause!r}, to which it has no link")


def _check_event(event: Any, convention: Convention, say: Callable[[str], None], *, content: bool | None) -> None:
    facts: Mapping[str, Any] = event.attributes or {}
    if event.name == names.EXCEPTION_EVENT:
        allowed, prefix = _EXCEPTION, ""
        if names.EXCEPTION_TYPE not in facts:
            say(f"its event {event.name} lacks {names.EXCEPTION_TYPE}")
    else:
        note = event.name.removeprefix("agentflow.")
        if note == event.name:
            return
        if note in _KNOWN_NOTES and note not in convention.events:
            say(f"a {convention.name} has no event {event.name}")
        allowed, prefix = NOTES.get(note, _ANY_NOTE), f"{event.name}."
    for name, value in facts.items():
        known = ATTRIBUTES.get(name)
        if name not in allowed and not (prefix and name.startswith(prefix)) and name.startswith(_OURS):
            say(f"its event {event.name} has {name}")
        elif known is not None and (problem := _problem(known, value, content=content)):
            say(f"{name} of its event {event.name} {problem}")


def check_trace(spans: Iterable[Any], *, content: bool | None = None) -> list[str]:
    """What is wrong with spans, each for itself and together: ids, parents, times.

    Spans that agentflow has not made are passed over; a parent may be missing, such as one that has not ended.
    """
    ours = [span for span in spans if _scope(span) == names.SCOPE]
    wrong = [problem for span in ours for problem in check(span, content=content)]
    return wrong + check_tree([placed(span) for span in ours])


Place = tuple[str, str, str, str, int, int, str]


def placed(span: Any) -> Place:
    """Where a span is in its trace: name, ids of trace, span and parent, when it began and ended, its outcome."""
    told = _facts(span)
    outcome = str(told.attributes.get(names.OUTCOME))
    return told.name, told.trace_id, told.span_id, told.parent_id, told.start, told.end, outcome


def check_tree(places: Iterable[Place]) -> list[str]:
    """What is wrong with the places of spans: ids that are there twice, parents that cannot be, times."""
    wrong: list[str] = []
    by_id: dict[str, Place] = {}
    for place in places:
        if place[2] in by_id:
            wrong.append(f"span {place[0]!r}: its id is that of {by_id[place[2]][0]!r}, too")
        by_id[place[2]] = place
    for place in by_id.values():
        convention = CONVENTIONS.get(place[0].partition(" ")[0])
        if convention is not None:
            wrong += [f"span {place[0]!r}: {problem}" for problem in _misplaced(place, convention, by_id)]
    return wrong


def _misplaced(place: Place, convention: Convention, by_id: Mapping[str, Place]) -> Iterable[str]:
    _, trace_id, _, parent_id, start, end, _ = place
    around = by_id.get(parent_id)
    if around is None:
        if not parent_id and "" not in convention.parents:
            yield "it has no parent"
        return
    name, trace_around, _, _, start_around, end_around, outcome_around = around
    if name.partition(" ")[0] not in convention.parents:
        yield f"its parent is {name!r}"
    if trace_around != trace_id:
        yield f"its parent {name!r} is in another trace"
    if start < start_around:
        yield f"it began {start_around - start} ns before its parent {name!r}"
    if convention.name == "step" and end > end_around and outcome_around != "suspended":  # nobody looks on any more
        yield f"it ended {end - end_around} ns after its parent {name!r}"


def _scope(span: Any) -> str:
    """Which instrumentation made it."""
    found: Any = getattr(span, "scope", None)
    if isinstance(found, str):
        return found
    scope: Any = span.instrumentation_scope
    return "" if scope is None else str(scope.name)
