"""Traces as a file of OTLP JSON lines, which the collector's `otlpjsonfile` receiver reads, too."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext
else:
    SpanExporter = object  # the SDK's class only says which methods there are, and it is heavy

_NOT_FINITE = {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}


class FileExporter(SpanExporter):
    """Appends one line of OTLP JSON for each batch of spans. Raises `OSError` where the file cannot be opened."""

    def __init__(self, path: str | Path) -> None:
        self._file = Path(path).open("a", encoding="utf-8")  # noqa: SIM115 because shutdown() closes it
        self._lock = Lock()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Append a line."""
        from opentelemetry.sdk.trace.export import SpanExportResult  # noqa: PLC0415 because the SDK is heavy

        line = json.dumps(_request(spans), ensure_ascii=False, separators=(",", ":"))
        with self._lock:
            if self._file.closed:
                return SpanExportResult.FAILURE
            self._file.write(f"{line}\n")
            self._file.flush()
        return SpanExportResult.SUCCESS

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002 because it is the SDK's
        """Every line is written at once."""
        return True

    def shutdown(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()


def _request(spans: Sequence[ReadableSpan]) -> dict[str, Any]:
    """What is sent for these spans, as JSON's types. By way of protobuf it takes several times as long."""
    grouped: dict[Resource, dict[InstrumentationScope | None, list[dict[str, Any]]]] = {}
    for span in spans:
        grouped.setdefault(span.resource, {}).setdefault(span.instrumentation_scope, []).append(_span(span))
    return {
        "resourceSpans": [
            _set(
                resource={"attributes": _attributes(resource.attributes)},
                scopeSpans=[_scope(scope, made) for scope, made in scopes.items()],
                schemaUrl=resource.schema_url,
            )
            for resource, scopes in grouped.items()
        ]
    }


def _scope(scope: InstrumentationScope | None, made: list[dict[str, Any]]) -> dict[str, Any]:
    if scope is None:
        return {"spans": made}
    named = _set(name=scope.name, version=scope.version, attributes=_attributes(scope.attributes))
    return _set(scope=named, spans=made, schemaUrl=scope.schema_url)


def _span(span: ReadableSpan) -> dict[str, Any]:
    context, parent = span.context, span.parent
    assert context is not None
    return _set(
        traceId=f"{context.trace_id:032x}",
        spanId=f"{context.span_id:016x}",
        traceState=context.trace_state.to_header(),
        parentSpanId=None if parent is None else f"{parent.span_id:016x}",
        flags=_flags(parent),
        name=span.name,
        kind=span.kind.value + 1,
        startTimeUnixNano=str(span.start_time or 0),
        endTimeUnixNano=str(span.end_time or 0),
        attributes=_attributes(span.attributes),
        droppedAttributesCount=span.dropped_attributes,
        events=[
            _set(
                timeUnixNano=str(event.timestamp),
                name=event.name,
                attributes=_attributes(event.attributes),
                droppedAttributesCount=event.dropped_attributes,
            )
            for event in span.events
        ],
        droppedEventsCount=span.dropped_events,
        links=[
            _set(
                traceId=f"{link.context.trace_id:032x}",
                spanId=f"{link.context.span_id:016x}",
                attributes=_attributes(link.attributes),
                droppedAttributesCount=link.dropped_attributes,
                flags=_flags(link.context),
            )
            for link in span.links
        ],
        droppedLinksCount=span.dropped_links,
        status=_set(message=span.status.description, code=span.status.status_code.value),
    ) | ({} if span.status.status_code.value else {"status": {}})


def _flags(context: SpanContext | None) -> int:
    """Bit 8: it is known whether the other is remote; bit 9: it is."""
    return 0x300 if context is not None and context.is_remote else 0x100


def _set(**fields: Any) -> dict[str, Any]:
    """The fields that are not what a reader assumes where they are missing."""
    return {name: value for name, value in fields.items() if value}


def _attributes(given: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in (given or {}).items()]


def _value(value: Any) -> dict[str, Any]:  # noqa: PLR0911 because there is a word for each kind
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value if math.isfinite(value) else _NOT_FINITE[str(value)]}
    if isinstance(value, bytes):
        return {"bytesValue": base64.b64encode(value).decode()}
    if isinstance(value, Mapping):
        return {"kvlistValue": _set(values=_attributes(cast("Mapping[str, Any]", value)))}
    if isinstance(value, Sequence):
        return {"arrayValue": _set(values=[_value(one) for one in value])}  # pyright: ignore[reportUnknownVariableType]  # because it holds anything
    return {}
