"""Spans that are started in the cheap way are, in all that anybody can see, those that the SDK's tracer starts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, TraceFlags, TraceState

import contract
from agentflow_instrumentation.tracer import starter, tell


class Counted(IdGenerator):
    """Ids that two tracers have alike."""

    def __init__(self) -> None:
        self.last = 0

    def generate_span_id(self) -> int:
        self.last += 1
        return self.last

    def generate_trace_id(self) -> int:
        self.last += 1
        return self.last << 60


class Writes(SpanProcessor):
    """Sets an attribute when a span starts, as processors of baggage do."""

    def on_start(self, span: SdkSpan, parent_context: Context | None = None) -> None:
        span.set_attribute("from.processor", str(parent_context and sorted(map(str, parent_context.values()))))


class Odd(Sampler):
    """A sampler of somebody's own, which adds attributes."""

    def should_sample(self, *args: Any, **more: Any) -> SamplingResult:
        return SamplingResult(Decision.RECORD_AND_SAMPLE, {"sampled.by": "odd"})

    def get_description(self) -> str:
        return "odd"


def provider(sampler: Sampler | None = None, limits: SpanLimits | None = None) -> tuple[Any, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    made = TracerProvider(
        sampler=sampler,
        span_limits=limits,
        id_generator=Counted(),
        resource=Resource({"service.name": "test"}),
        shutdown_on_exit=False,
    )
    made.add_span_processor(Writes())
    made.add_span_processor(SimpleSpanProcessor(exporter))
    return made.get_tracer("test", "1", attributes={"a": 1}), exporter


def shown(span: ReadableSpan) -> Any:
    made = json.loads(span.to_json())
    return made | {
        "types": {name: type(value).__name__ for name, value in (span.attributes or {}).items()},
        "dropped": (span.dropped_attributes, span.dropped_events, span.dropped_links),
        "flags": span.context and int(span.context.trace_flags),
        "state": span.context and span.context.trace_state.to_header(),
        "scope": str(span.instrumentation_scope),
    }


def is_cheap(span: object) -> bool:
    return type(span).__name__ == "AgentflowSpan"


REMOTE = SpanContext(5 << 70, 7, True, TraceFlags(1), TraceState([("vendor", "x")]))  # noqa: FBT003 because it is remote
UNSAMPLED = SpanContext(5 << 70, 8, False, TraceFlags(0))  # noqa: FBT003 because it is not
values = st.one_of(
    st.booleans(), st.integers(-5, 5), st.floats(0, 1), st.text(max_size=5), st.lists(st.text(max_size=3)).map(tuple)
)
attributes = st.dictionaries(st.sampled_from([f"key.{n}" for n in range(9)]), values)


@given(
    parents=st.sampled_from([None, REMOTE, UNSAMPLED, "own"]),
    sampler=st.sampled_from(
        [
            None,
            ALWAYS_ON,
            ALWAYS_OFF,
            ParentBased(ALWAYS_OFF),
            TraceIdRatioBased(0.5),
            ParentBased(TraceIdRatioBased(0.5)),
        ]
    ),
    first=attributes,
    later=attributes,
    links=st.lists(st.sampled_from([REMOTE, UNSAMPLED, trace.INVALID_SPAN_CONTEXT]), max_size=3),
    linked=st.booleans(),
    limits=st.sampled_from(
        [
            None,
            SpanLimits(max_span_attributes=3, max_links=1, max_events=1),
            SpanLimits(max_links=0),
            SpanLimits(max_span_attributes=SpanLimits.UNSET),
            SpanLimits(max_events=SpanLimits.UNSET, max_links=SpanLimits.UNSET),
        ]
    ),
)
def test_what_is_exported_is_what_the_sdk_exports(  # noqa: PLR0913, PLR0917 because a span has that many sides
    parents: Any,
    sampler: Sampler | None,
    first: dict[str, Any],
    later: dict[str, Any],
    links: list[SpanContext],
    linked: bool,  # noqa: FBT001 because hypothesis gives it by name
    limits: SpanLimits | None,
) -> None:
    told: list[Any] = []
    for cheap in (True, False):
        tracer, exporter = provider(sampler, limits)
        start = starter(tracer) if cheap else tracer.start_span
        own = tracer.start_span("outer", Context(), start_time=1)
        parent = own if parents == "own" else None if parents is None else NonRecordingSpan(parents)
        context = Context() if parent is None else trace.set_span_in_context(parent, Context())
        made = tuple(Link(link, {"why": "so"} if linked else None) for link in links)
        span = start("step x", context, SpanKind.CLIENT, dict(first), made, 2)
        if cheap and span.is_recording():
            tell(span, later)
        else:
            span.set_attributes(later)
        span.set_attribute("by.user", [1, 2])
        span.add_event("one", {"n": 1}, 3)
        span.add_event("two", timestamp=4)
        span.add_link(REMOTE)
        span.update_name("step y")
        span.set_status(trace.StatusCode.ERROR, "why")
        span.end(9)
        told.append((span.is_recording(), int(span.get_span_context().trace_flags), span.get_span_context().span_id))
        told.append([shown(one) for one in exporter.get_finished_spans()])
    assert told[:2] == told[2:]


def test_it_is_the_cheap_way_beside_the_installed_sdk() -> None:
    tracer, exporter = provider()
    span = starter(tracer)("x", attributes={"a": 1})
    assert is_cheap(span)
    assert isinstance(span, SdkSpan)
    span.end()
    assert exporter.get_finished_spans()[0].attributes == {"a": 1, "from.processor": "None"}


def test_after_its_end_it_takes_nothing_more() -> None:
    tracer, exporter = provider()
    span = starter(tracer)("x", attributes={"a": 1})
    span.end()
    tell(span, {"b": 2})
    span.end()
    (one,) = exporter.get_finished_spans()
    assert "b" not in (one.attributes or {})
    said = contract.contract.broken()  # else it would fail this test
    assert said == ["Setting attribute on ended span.", "Calling end() on an ended span."]


@pytest.mark.parametrize(
    ("sampler", "names"),
    [
        (Odd(), ["inner", "outer"]),
        (ParentBased(Odd()), ["outer"]),
        (ParentBased(ALWAYS_ON, local_parent_sampled=Odd()), ["inner"]),
    ],
)
def test_a_sampler_of_others_is_asked_by_the_sdk(sampler: Sampler, names: list[str]) -> None:
    tracer, exporter = provider(sampler)
    outer = starter(tracer)("outer", Context())
    inner = starter(tracer)("inner", trace.set_span_in_context(outer))
    assert not is_cheap(outer)
    inner.end()
    outer.end()
    odd = [one.name for one in exporter.get_finished_spans() if "sampled.by" in (one.attributes or {})]
    assert odd == names


def test_a_sampler_that_is_replaced_later_is_asked() -> None:
    tracer, exporter = provider()
    start = starter(tracer)
    tracer.sampler = Odd()
    start("x", Context()).end()
    assert (exporter.get_finished_spans()[0].attributes or {})["sampled.by"] == "odd"


def test_where_values_are_cut_the_sdk_cuts_them() -> None:
    tracer, exporter = provider(limits=SpanLimits(max_attribute_length=3))
    span = starter(tracer)("x", Context(), attributes={"a": "long text"})
    tell(span, {"b": "long text"})
    span.end()
    told = exporter.get_finished_spans()[0].attributes or {}
    assert (told["a"], told["b"]) == ("lon", "lon")


def test_a_tracer_of_others_starts_its_own_spans() -> None:
    class Vendors(trace.NoOpTracer):
        pass

    tracer = Vendors()
    assert starter(tracer) == tracer.start_span


def test_the_sdk_counts_them_in_its_own_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "true")
    reader = InMemoryMetricReader()
    meters = MeterProvider([reader], shutdown_on_exit=False)
    made = TracerProvider(shutdown_on_exit=False, meter_provider=meters)
    span = starter(made.get_tracer("test"))("x", Context())
    assert is_cheap(span)
    span.end()
    data = json.loads(reader.get_metrics_data().to_json())  # type: ignore[union-attr]  # because there are some
    found = {m["name"] for r in data["resource_metrics"] for s in r["scope_metrics"] for m in s["metrics"]}
    assert "otel.sdk.span.started" in found
    meters.shutdown()
