"""Reading back what the exporter "file" writes, or a collector: OTLP JSON, one request a line."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import names

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from opentelemetry.sdk.trace import ReadableSpan

UNFINISHED = "unfinished"

_RUNS = {"invoke_workflow", "invoke_agent"}


@dataclass
class Run:
    """One run, as far as its span tells. Times are nanoseconds since the epoch.

    Where the file has spans of a run but not the run's own, because it still goes on or its process was killed, they
    tell what they can, and the outcome is "unfinished".
    """

    run_id: str
    name: str
    trace_id: str
    start: int
    end: int
    outcome: str
    segment: int
    is_inner: bool
    """Is it part of another run?"""


@dataclass
class Contents:
    """What a file has, without its spans."""

    runs: list[Run] = field(default_factory=list[Run])
    """As they began; a run that paused has one entry for each of its segments."""
    spans: int = 0
    unread: list[int] = field(default_factory=list[int])
    """The numbers of lines that are no JSON, such as the last one of a program that was killed."""


def survey(lines: Iterable[str]) -> Contents:
    """What a file has. Lines of logs and metrics are passed over."""
    found = Contents()
    inside: set[tuple[str, str]] = set()
    above: dict[int, tuple[str, str]] = {}
    parts: dict[tuple[str, str], Run] = {}
    for number, line in enumerate(lines, 1):
        try:
            spans = list(_spans(line))
        except (ValueError, TypeError, AttributeError, KeyError):
            found.unread.append(number)
            continue
        for span in spans:
            found.spans += 1
            facts = _attributes(span.get("attributes"))
            trace_id = _identity(span.get("traceId"))
            if names.RUN_ID not in facts:
                continue
            inside.add((trace_id, _identity(span.get("spanId"))))
            if facts.get(names.OPERATION) in _RUNS:
                above[len(found.runs)] = trace_id, _identity(span.get("parentSpanId"))
                found.runs.append(_run(span, facts, trace_id))
            else:
                part = _run(span, facts, trace_id)
                whole = parts.setdefault((trace_id, part.run_id), part)
                whole.start, whole.end = min(whole.start, part.start), max(whole.end, part.end)
                whole.name = str(facts.get(names.WORKFLOW_OF, whole.name))
    for place, parent in above.items():
        found.runs[place].is_inner = parent in inside
    _add_unfinished(found, parts)
    found.runs.sort(key=lambda run: run.start)
    return found


def _add_unfinished(found: Contents, parts: dict[tuple[str, str], Run]) -> None:
    ended = {(run.trace_id, run.run_id) for run in found.runs}
    first: dict[str, Run] = {}
    for key, run in parts.items():
        if key not in ended:
            run.outcome = UNFINISHED
            found.runs.append(run)
            if run.start < first.setdefault(run.trace_id, run).start:
                first[run.trace_id] = run
    for run in found.runs:
        outer = first.get(run.trace_id)
        if outer is not None and outer is not run and run.start >= outer.start:
            run.is_inner = True  # what it is inside of has not ended, and so cannot be looked up


def read(lines: Iterable[str], traces: Container[str]) -> Iterator[ReadableSpan]:
    """The spans of some traces, as the SDK has them. `traces`: their ids in hex."""
    for line in lines:
        try:
            spans = [span for span in _spans(line) if _identity(span.get("traceId")) in traces]
        except (ValueError, TypeError, AttributeError, KeyError):
            continue
        yield from map(_readable, spans)


def _spans(line: str) -> Iterator[dict[str, Any]]:
    if not line.strip():
        return
    request = json.loads(line)
    for of_resource in request.get("resourceSpans", ()):
        for of_scope in of_resource.get("scopeSpans", ()):
            yield from of_scope.get("spans", ())


def _run(span: dict[str, Any], facts: dict[str, Any], trace_id: str) -> Run:
    return Run(
        run_id=str(facts[names.RUN_ID]),
        name=str(facts.get(names.AGENT) or facts.get(names.WORKFLOW) or span.get("name")),
        trace_id=trace_id,
        start=int(span.get("startTimeUnixNano", 0)),
        end=int(span.get("endTimeUnixNano", 0)),
        outcome=str(facts.get(names.OUTCOME, "ok")),
        segment=int(facts.get(names.SEGMENT, 1)),
        is_inner=False,
    )


def _identity(given: Any) -> str:
    """An id in hex, as OTLP's JSON has it; some writers have base64, as protobuf's."""
    text = str(given or "")
    if len(text) in {0, 16, 32}:
        return text.lower()
    try:
        return base64.b64decode(text, validate=True).hex()
    except binascii.Error:
        return text


def _attributes(pairs: Iterable[dict[str, Any]] | None) -> dict[str, Any]:
    return {pair["key"]: _value(pair.get("value") or {}) for pair in pairs or ()}


def _value(value: dict[str, Any]) -> Any:
    if not value:
        return None
    kind, given = next(iter(value.items()))
    if kind == "arrayValue":
        return tuple(_value(one) for one in given.get("values", ()))
    if kind == "kvlistValue":
        return _attributes(given.get("values"))
    return int(given) if kind == "intValue" else float(given) if kind == "doubleValue" else given


def _readable(span: dict[str, Any]) -> ReadableSpan:
    from opentelemetry.sdk.trace import Event, ReadableSpan  # noqa: PLC0415 because the SDK is heavy
    from opentelemetry.trace import Link, Status, StatusCode  # noqa: PLC0415 because it comes with the SDK

    trace_id = _identity(span.get("traceId"))
    parent = _identity(span.get("parentSpanId"))
    status: dict[str, Any] = span.get("status") or {}
    code = status.get("code", 0)
    failed = code in {2, "STATUS_CODE_ERROR"}
    return ReadableSpan(
        name=str(span.get("name")),
        context=_context(trace_id, _identity(span.get("spanId"))),
        parent=_context(trace_id, parent) if parent else None,
        attributes=_attributes(span.get("attributes")),
        events=[
            Event(str(event.get("name")), _attributes(event.get("attributes")), int(event.get("timeUnixNano", 0)))
            for event in span.get("events", ())
        ],
        links=[
            Link(_context(_identity(link.get("traceId")), _identity(link.get("spanId"))))
            for link in span.get("links", ())
        ],
        status=Status(StatusCode.ERROR, status.get("message")) if failed else Status(),
        start_time=int(span.get("startTimeUnixNano", 0)),
        end_time=int(span.get("endTimeUnixNano", 0)),
    )


def _context(trace_id: str, span_id: str) -> Any:
    from opentelemetry.trace import SpanContext, TraceFlags  # noqa: PLC0415 because it comes with the SDK

    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=TraceFlags.get_default())
