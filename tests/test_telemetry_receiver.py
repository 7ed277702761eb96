"""The receiver of OTLP keeps all three signals as plain records, over http and grpc, and answers as it is told to."""

from __future__ import annotations

import importlib
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

import pytest
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from agentflow_instrumentation.testing import MetricPoint, OtlpReceiver

RESOURCE = Resource({"service.name": "shop"})


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        yield receiver


def measured(receiver: OtlpReceiver, measure: Callable[[Any], object]) -> list[MetricPoint]:
    """What arrives of what is measured, in a span."""
    reader = PeriodicExportingMetricReader(
        OTLPMetricExporter(f"{receiver.http_endpoint}/v1/metrics"), export_interval_millis=math.inf
    )
    provider = MeterProvider([reader], RESOURCE, shutdown_on_exit=False)
    with TracerProvider(shutdown_on_exit=False).get_tracer("t").start_as_current_span("s"):
        measure(provider.get_meter("meter"))
    provider.force_flush()
    provider.shutdown()
    return receiver.metrics


def test_a_histogram_arrives_with_its_buckets_and_exemplars(receiver: OtlpReceiver) -> None:
    def measure(meter: Any) -> None:
        histogram = meter.create_histogram("took", "s", explicit_bucket_boundaries_advisory=[1, 5])
        for value in (0.5, 1.0, 7.0):
            histogram.record(value, {"step": "a"})

    point, *_ = measured(receiver, measure)
    assert (point.name, point.kind, point.unit, point.attributes) == ("took", "histogram", "s", {"step": "a"})
    assert (point.count, point.sum, point.value) == (3, 8.5, None)
    assert point.buckets == {1.0: 2, 5.0: 0, math.inf: 1}
    assert point.resource["service.name"] == "shop"
    assert point.scope == "meter"
    assert point.exemplars
    assert all(len(one.trace_id) == 32 and len(one.span_id) == 16 for one in point.exemplars)
    assert 7.0 in {one.value for one in point.exemplars}


def test_counters_and_gauges_arrive_by_their_kind(receiver: OtlpReceiver) -> None:
    def depth(_: CallbackOptions) -> Iterator[Observation]:
        yield Observation(4, {"step": "a"})

    def measure(meter: Any) -> None:
        meter.create_counter("retries").add(2)
        meter.create_up_down_counter("active").add(-1)
        meter.create_observable_gauge("depth", [depth])

    points = {point.name: point for point in measured(receiver, measure)}
    assert {name: (point.kind, point.value) for name, point in points.items()} == {
        "retries": ("counter", 2),
        "active": ("updown", -1),
        "depth": ("gauge", 4),
    }
    assert points["depth"].buckets == {}


def test_the_latest_point_of_each_set_of_attributes(receiver: OtlpReceiver) -> None:
    reader = PeriodicExportingMetricReader(
        OTLPMetricExporter(f"{receiver.http_endpoint}/v1/metrics"), export_interval_millis=math.inf
    )
    provider = MeterProvider([reader], RESOURCE, shutdown_on_exit=False)
    counter = provider.get_meter("meter").create_counter("n")
    for kind in ("a", "b", "a"):
        counter.add(1, {"kind": kind})
        provider.force_flush()
    provider.shutdown()
    assert sum(point.name == "n" for point in receiver.metrics) > 2
    assert {point.attributes["kind"]: point.value for point in receiver.latest("n")} == {"a": 2, "b": 1}
    assert receiver.latest("m") == []


def test_a_log_record_arrives_with_its_event_and_its_span(receiver: OtlpReceiver) -> None:
    provider = LoggerProvider(RESOURCE, shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(OTLPLogExporter(f"{receiver.http_endpoint}/v1/logs")))
    record: dict[str, Any] = {"severity_number": SeverityNumber.WARN2, "body": {"n": 1}, "attributes": {"run": "r"}}
    with TracerProvider(shutdown_on_exit=False).get_tracer("t").start_as_current_span("s") as span:
        provider.get_logger("log").emit(LogRecord(timestamp=7, event_name="agentflow.run.ended", **record))
    provider.shutdown()
    receiver.wait_for(logs=1)
    (found,) = receiver.logs
    assert (found.event_name, found.body, found.severity) == ("agentflow.run.ended", {"n": 1}, "WARN")
    assert (found.attributes, found.at, found.scope) == ({"run": "r"}, 7, "log")
    assert (found.trace_id, found.span_id) == (
        f"{span.get_span_context().trace_id:032x}",
        f"{span.get_span_context().span_id:016x}",
    )
    assert found.resource["service.name"] == "shop"


def test_what_did_not_come_is_told_for_each_signal(receiver: OtlpReceiver) -> None:
    with pytest.raises(TimeoutError) as raised:
        receiver.wait_for(1, timeout=0.01, metrics=2, logs=3)
    assert str(raised.value) == (
        "0 spans came in 0.01 s, not 1: []; 0 points of metrics came in 0.01 s, not 2: []; "
        "0 log records came in 0.01 s, not 3: []"
    )


def request(name: str = "s") -> bytes:
    message = ExportTraceServiceRequest()
    message.resource_spans.add().scope_spans.add().spans.add().name = name
    return bytes(message.SerializeToString())


def post(receiver: OtlpReceiver, body: bytes) -> tuple[int, bytes, Any]:
    """By http: the status, the answer, and its headers."""
    with closing(HTTPConnection(receiver.http_endpoint.removeprefix("http://"), timeout=10)) as connection:
        connection.request("POST", "/v1/traces", body, {"Content-Type": "application/x-protobuf"})
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers


def call(receiver: OtlpReceiver, body: bytes) -> tuple[str, bytes]:
    """By grpc: the name of the status, and the answer."""
    grpc: Any = importlib.import_module("grpc")
    with grpc.insecure_channel(receiver.grpc_endpoint.removeprefix("http://")) as channel:
        export = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
        try:
            return "OK", export(body, timeout=10)
        except grpc.RpcError as error:
            return error.code().name, b""


def test_a_partial_success_says_how_many_and_why(receiver: OtlpReceiver) -> None:
    receiver.rejects, receiver.rejects_because = 3, "too old"
    answers = [post(receiver, request())[1], call(receiver, request())[1]]
    for answer in answers:
        partial = ExportTraceServiceResponse.FromString(answer).partial_success
        assert (partial.rejected_spans, partial.error_message) == (3, "too old")
    assert len(receiver.spans) == 2


@pytest.mark.parametrize(
    ("status", "code"), [(400, "INVALID_ARGUMENT"), (401, "UNAUTHENTICATED"), (503, "UNAVAILABLE"), (418, "UNKNOWN")]
)
def test_an_error_is_the_same_over_http_and_grpc(receiver: OtlpReceiver, status: int, code: str) -> None:
    receiver.status, receiver.retry_after = status, 2.5
    answered, _, headers = post(receiver, request())
    assert (answered, headers["Retry-After"]) == (status, "2.5")
    assert call(receiver, request())[0] == code
    assert receiver.spans == []


def test_a_request_that_is_too_large_is_refused_over_http_and_grpc(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.CRITICAL, "grpc"), OtlpReceiver(largest=1000) as receiver:
        assert post(receiver, request("x" * 2000))[0] == 413
        assert call(receiver, request("x" * 2000))[0] == "RESOURCE_EXHAUSTED"
        assert post(receiver, request("x" * 500))[0] == 200
        assert call(receiver, request("x" * 500))[0] == "OK"
        assert len(receiver.spans) == 2


def test_it_takes_four_megabytes_unless_told_otherwise(receiver: OtlpReceiver) -> None:
    assert call(receiver, request("x" * (4 << 20)))[0] == "RESOURCE_EXHAUSTED"
    assert call(receiver, request("x" * ((4 << 20) - 100)))[0] == "OK"
