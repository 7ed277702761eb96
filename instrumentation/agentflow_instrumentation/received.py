"""What arrives by OTLP, as plain records: spans, points of metrics, log records."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from . import names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_SPAN_KINDS: tuple[str, ...] = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_STATUSES = ("UNSET", "OK", "ERROR")


@dataclass(frozen=True)
class LinkRecord:
    """A link, with ids in hex."""

    trace_id: str
    span_id: str
    attributes: dict[str, Any]


@dataclass(frozen=True)
class EventRecord:
    """An event of a span. `at`: nanoseconds since the epoch."""

    name: str
    at: int
    attributes: dict[str, Any]


@dataclass(frozen=True)
class SpanRecord:
    """A span as it arrived: ids in hex, times in nanoseconds since the epoch."""

    name: str
    kind: str
    """INTERNAL, CLIENT..."""
    trace_id: str
    span_id: str
    parent_id: str
    """Empty for a root."""
    start: int
    end: int
    attributes: dict[str, Any] = field(repr=False)
    events: list[EventRecord] = field(repr=False)
    links: list[LinkRecord] = field(repr=False)
    status: str
    """UNSET, OK or ERROR."""
    description: str
    """Of the status."""
    resource: dict[str, Any] = field(repr=False)
    scope: str = field(repr=False)


@dataclass(frozen=True)
class Exemplar:
    """One measurement of many, with the span in which it was made; ids in hex, empty where there was no span."""

    value: float
    trace_id: str
    span_id: str
    attributes: dict[str, Any]


@dataclass(frozen=True)
class MetricPoint:
    """What a metric was for one set of attributes, when it was sent."""

    name: str
    kind: str
    """"counter", "updown", "gauge", "histogram"."""
    unit: str
    attributes: dict[str, Any]
    value: float | None
    """None of a histogram."""
    count: int
    """How many values a histogram has; of the others 0."""
    sum: float
    """Of a histogram's values; of the others 0."""
    buckets: dict[float, int]
    """By upper bound, inclusive, how many values; the last bound is infinity. Empty of the others."""
    exemplars: list[Exemplar] = field(repr=False)
    resource: dict[str, Any] = field(repr=False)
    scope: str = field(repr=False)
    at: int = field(repr=False)
    """Nanoseconds since the epoch."""


@dataclass(frozen=True)
class LogRecord:
    """A log record; ids in hex, empty where there was no span. `at`: nanoseconds since the epoch."""

    event_name: str
    """Empty of a plain line."""
    body: Any
    severity: str
    """INFO, WARN, ERROR..."""
    attributes: dict[str, Any]
    trace_id: str
    span_id: str
    resource: dict[str, Any] = field(repr=False)
    scope: str = field(repr=False)
    at: int = field(repr=False)


def spans(request: Any) -> Iterator[SpanRecord]:
    """The spans of a request, a protobuf message."""
    for of_resource in request.resource_spans:
        resource = _attributes(of_resource.resource.attributes)
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                yield _span(span, resource, of_scope.scope.name)


def points(request: Any) -> Iterator[MetricPoint]:
    """The points of the metrics of a request."""
    for of_resource in request.resource_metrics:
        resource = _attributes(of_resource.resource.attributes)
        for of_scope in of_resource.scope_metrics:
            for metric in of_scope.metrics:
                yield from _points(metric, resource, of_scope.scope.name)


def logs(request: Any) -> Iterator[LogRecord]:
    """The log records of a request."""
    for of_resource in request.resource_logs:
        resource = _attributes(of_resource.resource.attributes)
        for of_scope in of_resource.scope_logs:
            for record in of_scope.log_records:
                yield LogRecord(
                    event_name=getattr(record, "event_name", ""),  # since 1.5 of OTLP
                    body=_value(record.body),
                    severity=record.severity_text or _severity(record.severity_number),
                    attributes=_attributes(record.attributes),
                    trace_id=record.trace_id.hex(),
                    span_id=record.span_id.hex(),
                    resource=resource,
                    scope=of_scope.scope.name,
                    at=record.time_unix_nano or record.observed_time_unix_nano,
                )


def _span(span: Any, resource: dict[str, Any], scope: str) -> SpanRecord:
    kind: int = span.kind
    status: int = span.status.code
    return SpanRecord(
        name=span.name,
        kind=_SPAN_KINDS[kind],
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        attributes=_attributes(span.attributes),
        events=[EventRecord(e.name, e.time_unix_nano, _attributes(e.attributes)) for e in span.events],
        links=[LinkRecord(x.trace_id.hex(), x.span_id.hex(), _attributes(x.attributes)) for x in span.links],
        status=_STATUSES[status],
        description=span.status.message,
        resource=resource,
        scope=scope,
    )


def _points(metric: Any, resource: dict[str, Any], scope: str) -> Iterable[MetricPoint]:
    shape: str = metric.WhichOneof("data") or "gauge"
    data = getattr(metric, shape)
    is_histogram = shape == "histogram"
    kind = shape if shape != "sum" else "counter" if data.is_monotonic else "updown"
    for point in data.data_points:
        bounds = [*point.explicit_bounds, math.inf] if is_histogram else ()
        yield MetricPoint(
            name=metric.name,
            kind=kind,
            unit=metric.unit,
            attributes=_attributes(point.attributes),
            value=None if not hasattr(point, "as_double") else _number(point),
            count=getattr(point, "count", 0),
            sum=getattr(point, "sum", 0.0),
            buckets=dict(zip(bounds, point.bucket_counts, strict=True)) if is_histogram else {},
            exemplars=[
                Exemplar(_number(e), e.trace_id.hex(), e.span_id.hex(), _attributes(e.filtered_attributes))
                for e in point.exemplars
            ],
            resource=resource,
            scope=scope,
            at=point.time_unix_nano,
        )


def _number(of: Any) -> float:
    found: float = getattr(of, of.WhichOneof("value") or "as_int")
    return found


_SEVERITIES = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")


def _severity(number: int) -> str:
    """The name of a range of four numbers, of which the first is 1."""
    return _SEVERITIES[(number - 1) // 4] if number else ""


def _attributes(pairs: Sequence[Any]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    found = getattr(value, kind)
    if kind == "array_value":
        return [_value(one) for one in found.values]
    return _attributes(found.values) if kind == "kvlist_value" else found


def record_of(span: Any) -> SpanRecord:
    """A span of the SDK as it would arrive; a record stays itself."""
    if isinstance(span, SpanRecord):
        return span
    own, parent, scope = span.context, span.parent, span.instrumentation_scope
    return SpanRecord(
        name=span.name,
        kind=span.kind.name,
        trace_id=f"{own.trace_id:032x}",
        span_id=f"{own.span_id:016x}",
        parent_id="" if parent is None else f"{parent.span_id:016x}",
        start=span.start_time or 0,
        end=span.end_time or 0,
        attributes=_listed(span.attributes),
        events=[EventRecord(event.name, event.timestamp, _listed(event.attributes)) for event in span.events],
        links=[
            LinkRecord(f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}", _listed(link.attributes))
            for link in span.links
        ],
        status=span.status.status_code.name,
        description=span.status.description or "",
        resource=_listed(span.resource.attributes),
        scope="" if scope is None else scope.name,
    )


def _listed(attributes: Any) -> dict[str, Any]:
    """With lists where the SDK has tuples, as they arrive."""
    held: dict[str, Any] = attributes or {}
    return {name: list(cast("Iterable[Any]", value)) if type(value) is tuple else value for name, value in held.items()}


def tree_of(spans: Iterable[SpanRecord], *, events: bool = True) -> str:
    """Spans as an indented text, one a line, as they began: the name, and the outcome where it is not "ok"."""
    shown = sorted((one for one in spans if events or not one.name.startswith("event ")), key=lambda one: one.start)
    known = {span.span_id for span in shown}
    children: dict[str, list[SpanRecord]] = {}
    for span in shown:
        children.setdefault(span.parent_id if span.parent_id in known else "", []).append(span)
    lines: list[str] = []

    def show(span: SpanRecord, depth: int) -> None:
        outcome = span.attributes.get(names.OUTCOME, "ok")
        lines.append(f"{'  ' * depth}{span.name}{'' if outcome == 'ok' else f' {outcome}'}")
        for child in children.get(span.span_id, ()):
            show(child, depth + 1)

    for root in children.get("", ()):
        show(root, 0)
    return "\n".join(lines)
