"""What is recorded in the cheap way is, in all that readers see, what the SDK's histogram records."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, AlwaysOnExemplarFilter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import DropAggregation, ExponentialBucketHistogramAggregation, View
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from agentflow_instrumentation import series
from agentflow_instrumentation.series import recorder

ABOUT: tuple[dict[str, str | int], ...] = ({"step": "a"}, {"step": "b", "port": 80}, {"step": "b", "why": "ok"}, {})
VIEWS: dict[str, list[View]] = {
    "none": [],
    "some attributes": [View(instrument_name="h", attribute_keys={"step"})],
    "dropped": [View(instrument_name="h", aggregation=DropAggregation())],
    "exponential": [View(instrument_name="h", aggregation=ExponentialBucketHistogramAggregation())],
    "two": [View(instrument_name="h", name="one"), View(instrument_name="h", name="two", attribute_keys=set())],
}
FILTERS = {"default": None, "on": AlwaysOnExemplarFilter(), "off": AlwaysOffExemplarFilter()}


def within(*, sampled: bool) -> Context:
    span = NonRecordingSpan(SpanContext(5, 7, is_remote=False, trace_flags=TraceFlags(int(sampled))))
    return trace.set_span_in_context(span, Context())


def shown(reader: InMemoryMetricReader) -> Any:
    """What a reader has collected, but for when."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(one) for key, one in value.items() if "time" not in key}
        return [plain(one) for one in value] if isinstance(value, list) else value

    data = reader.get_metrics_data()
    return None if data is None else plain(json.loads(data.to_json()))


@given(
    views=st.sampled_from(list(VIEWS)),
    filtered=st.sampled_from(list(FILTERS)),
    deltas=st.lists(st.booleans(), min_size=0, max_size=2),
    script=st.lists(
        st.one_of(
            st.tuples(st.integers(0, 3), st.floats(-1, 50, allow_nan=False) | st.just(float("inf")), st.booleans()),
            st.just("collect"),
        ),
        max_size=25,
    ),
)
def test_what_is_collected_is_what_the_sdk_collects(
    views: str, filtered: str, deltas: list[bool], script: list[Any]
) -> None:
    seen: list[Any] = []
    for cheap in (True, False):
        readers = [
            InMemoryMetricReader({Histogram: AggregationTemporality.DELTA} if delta else None) for delta in deltas
        ]
        provider = MeterProvider(readers, views=VIEWS[views], exemplar_filter=FILTERS[filtered], shutdown_on_exit=False)
        histogram = provider.get_meter("test").create_histogram("h", explicit_bucket_boundaries_advisory=[1, 5, 10])
        records = [recorder(histogram, about) for about in ABOUT]
        told: list[Any] = []
        for one in script:
            if one == "collect":
                told.append([shown(reader) for reader in readers])
            elif cheap:
                records[one[0]](one[1], within(sampled=one[2]))
            else:
                histogram.record(one[1], ABOUT[one[0]], within(sampled=one[2]))
        seen.append([*told, [shown(reader) for reader in readers]])
        provider.shutdown()
    assert seen[0] == seen[1]


def test_a_second_record_looks_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = InMemoryMetricReader()
    histogram: Any = MeterProvider([reader], shutdown_on_exit=False).get_meter("test").create_histogram("h")
    record = recorder(histogram, {"step": "a"})
    record(1, within(sampled=False))
    monkeypatch.setattr(type(histogram), "record", None)
    record(2, within(sampled=False))
    assert (
        shown(reader)["resource_metrics"][0]["scope_metrics"][0]["metrics"][0]["data"]["data_points"][0]["count"] == 2
    )


def test_where_the_sdk_is_another_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "_MEASUREMENT", {"value"})
    reader = InMemoryMetricReader()
    histogram = MeterProvider([reader], shutdown_on_exit=False).get_meter("test").create_histogram("h")
    record = recorder(histogram, {"step": "a"})
    for value in range(3):
        record(value, within(sampled=True))
    point = shown(reader)["resource_metrics"][0]["scope_metrics"][0]["metrics"][0]["data"]["data_points"][0]
    assert (point["count"], point["sum"]) == (3, 3)
