"""`setup()` makes traces go somewhere; what cannot be delivered is said once, and never holds up a run."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.util._once import Once

from agentflow import Event, StartEvent, StopEvent, Workflow, step
from agentflow_instrumentation import FileExporter, Telemetry, discovery, setup
from agentflow_instrumentation.exporters import make_outlet
from agentflow_instrumentation.outlet import Outlet, shorten
from agentflow_instrumentation.testing import OtlpReceiver

SPANS = {"invoke_workflow Chain", "event StartEvent", "step one", "event Middle", "step two"}


class Middle(Event):
    pass


class Chain(Workflow):
    @step
    async def one(self, ev: StartEvent) -> Middle:
        return Middle()

    @step
    async def two(self, ev: Middle) -> StopEvent:
        return StopEvent(result="done")


@pytest.fixture(autouse=True)
def nothing_is_set_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test has a process of its own, as far as OpenTelemetry is concerned."""
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "AGENTFLOW_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "agentflow-telemetry"]


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as running:
        yield running


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Gate(SpanExporter):
    """An exporter that waits until it may go on, and does what it is told."""

    def __init__(self, *answers: SpanExportResult | Exception) -> None:
        self.answers = list(answers)
        self.open = threading.Event()
        self.entered = threading.Event()
        self.taken: list[str] = []
        self.closed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.entered.set()
        assert self.open.wait(10)
        self.taken += [span.name for span in spans]
        answer = self.answers.pop(0) if self.answers else SpanExportResult.SUCCESS
        if isinstance(answer, Exception):
            raise answer
        return answer

    def shutdown(self) -> None:
        self.closed += 1
        self.open.set()


# over the wire


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_a_trace_arrives_whole(receiver: OtlpReceiver, protocol: Any) -> None:
    endpoint = receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint
    with setup(endpoint=endpoint, protocol=protocol, service_name="shop", headers={"X-Team": "cats"}) as telemetry:
        await Chain().run()
        assert telemetry.flush() == []
        spans = receiver.wait_for(5)
    assert {span.name for span in spans} == SPANS
    assert receiver.tree().splitlines() == [
        "invoke_workflow Chain",
        "  event StartEvent",
        "  step one",
        "    event Middle",
        "  step two",
    ]
    (sent,), (two,) = receiver.named("event Middle"), receiver.named("step two")
    assert [(link.trace_id, link.span_id) for link in two.links] == [(sent.trace_id, sent.span_id)]
    assert two.attributes["agentflow.triggered_by"] == [f"one:Middle {sent.span_id}"]
    assert two.attributes["agentflow.step.attempt"] == 1
    assert isinstance(two.attributes["agentflow.queue.wait"], float)
    assert (two.kind, two.status, two.scope) == ("INTERNAL", "UNSET", "agentflow")
    assert two.resource["service.name"] == "shop"
    assert two.resource["openinference.project.name"] == "shop"
    assert two.resource["host.name"] == socket.gethostname()
    assert 0 < two.start <= two.end
    assert {headers["x-team"] for headers in receiver.headers} == {"cats"}


async def test_the_standard_variables_say_where_to(receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.http_endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "from-the-environment")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "host.name=there,team=cats")
    monkeypatch.setenv("PHOENIX_PROJECT_NAME", "shops")
    with setup() as telemetry:
        await Chain().run()
        assert telemetry.flush() == []
    resource = receiver.spans[0].resource
    assert (resource["service.name"], resource["host.name"], resource["team"]) == (
        "from-the-environment",
        "there",
        "cats",
    )
    assert resource["openinference.project.name"] == "shops"
    assert receiver.headers[0]["content-encoding"] == "gzip"


async def test_the_protocol_may_come_from_the_environment(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.grpc_endpoint)
    with setup() as telemetry:
        await Chain().run()
        assert telemetry.shutdown() == []
    assert {span.name for span in receiver.spans} == SPANS


@pytest.mark.parametrize(
    ("exporter", "protocol", "endpoint", "place"),
    [
        ("phoenix", None, None, "http://localhost:6006/v1/traces"),
        ("phoenix", "grpc", None, "http://localhost:4317"),
        ("jaeger", None, None, "http://localhost:4318/v1/traces"),
        ("jaeger", "grpc", None, "http://localhost:4317"),
        ("otlp", None, None, "http://localhost:4318/v1/traces"),
        ("otlp", "grpc", None, "http://localhost:4317"),
        ("phoenix", None, "https://phoenix.example.com", "https://phoenix.example.com/v1/traces"),
        ("otlp", None, "collector:4318/", "http://collector:4318/v1/traces"),
        ("otlp", None, "http://collector:4318/custom/path", "http://collector:4318/custom/path"),
        ("otlp", "grpc", "collector:4317", "http://collector:4317"),
    ],
)
def test_presets_are_nothing_but_endpoints(exporter: str, protocol: Any, endpoint: str | None, place: str) -> None:
    outlet = make_outlet(exporter, endpoint=endpoint, protocol=protocol, headers=None, path=None)
    assert isinstance(outlet, Outlet)
    assert outlet.place == place
    inner: Any = outlet.exporter
    where = inner._endpoint  # noqa: SLF001 because the exporter does not say it otherwise
    assert where == (place.partition("://")[2] if protocol == "grpc" else place)
    outlet.shutdown()


def test_the_endpoint_of_the_environment_is_named() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://elsewhere:1/x")
        outlet = make_outlet("otlp", endpoint=None, protocol=None, headers=None, path=None)
        assert outlet.place == "http://elsewhere:1/x"
        outlet.shutdown()


# what the handle does


async def test_content_and_events_are_what_was_asked_for(receiver: OtlpReceiver) -> None:
    with setup(endpoint=receiver.http_endpoint, content="full", events="links"):
        await Chain().run(topic="cats")
    assert {span.name for span in receiver.spans} == {"invoke_workflow Chain", "step one", "step two"}
    (run,) = receiver.named("invoke_workflow Chain")
    assert (run.attributes["input.value"], run.attributes["output.value"]) == ("cats", "done")


async def test_spans_of_the_application_go_the_same_way(receiver: OtlpReceiver) -> None:
    with setup(endpoint=receiver.http_endpoint) as telemetry:
        assert telemetry.tracer_provider is trace.get_tracer_provider()
        with trace.get_tracer("shop").start_as_current_span("order"):
            await Chain().run()
    assert receiver.tree().splitlines()[:2] == ["order", "  invoke_workflow Chain"]


async def test_after_shutdown_nothing_more_is_made_and_setup_may_be_called_again(receiver: OtlpReceiver) -> None:
    with setup(endpoint=receiver.http_endpoint) as telemetry:
        await Chain().run()
    assert telemetry.shutdown() == []
    assert len(receiver.spans) == 5
    await Chain().run()
    assert discovery.observer() is None
    with setup(endpoint=receiver.http_endpoint):
        await Chain().run()
    assert len(receiver.spans) == 10


async def test_a_provider_that_was_shut_down_stays_so_when_it_is_the_global_one_again(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with setup(endpoint=receiver.http_endpoint) as telemetry:
        pass
    for provider in (TracerProvider(shutdown_on_exit=False), telemetry.tracer_provider):
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
        assert (discovery.observer() is None) is (provider is telemetry.tracer_provider)


async def test_two_setups_go_each_its_way(receiver: OtlpReceiver, tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    with setup(endpoint=receiver.http_endpoint, content="full"):
        with setup("file", path=path):
            await Chain().run(topic="cats")
        await Chain().run(topic="dogs")
    assert len(receiver.spans) == 10
    assert len(path.read_text().splitlines()) == 1
    inputs = [span.attributes.get("input.value") for span in receiver.named("invoke_workflow Chain")]
    assert inputs == [None, "dogs"]  # the later one's content level held for both


async def test_a_provider_of_the_host_stays_and_gets_one_more_processor(receiver: OtlpReceiver) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    with setup(endpoint=receiver.http_endpoint, service_name="not this one") as telemetry:
        assert telemetry.tracer_provider is provider
        await Chain().run()
    assert len(receiver.spans) == len(exporter.get_finished_spans()) == 5
    assert receiver.spans[0].resource["service.name"] != "not this one"
    await Chain().run()
    assert len(receiver.spans) == 5
    assert len(exporter.get_finished_spans()) == 10, "the host's own way is still open"


def test_a_provider_that_takes_no_processors_is_refused() -> None:
    class Vendors(trace.TracerProvider):
        def get_tracer(self, *args: Any, **more: Any) -> trace.Tracer:
            return trace.NoOpTracer()

    trace.set_tracer_provider(Vendors())
    with pytest.raises(RuntimeError, match="global tracer provider is a Vendors"):
        setup(Gate())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"exporter": "phenix"}, "exporter='phenix'.*Did you mean \"phoenix\".*otlp, phoenix, jaeger, console, file"),
        ({"protocol": "http"}, "protocol='http'.*http/protobuf, grpc"),
        ({"content": "all"}, "content='all'.*none.*preview.*full"),
        ({"events": "none"}, "events='none'.*spans.*links"),
        ({"exporter": "file"}, 'path="traces.jsonl"'),
        ({"endpoint": "ftp://x"}, "endpoint='ftp://x'.*http://localhost:4318"),
    ],
)
def test_a_mistake_is_said_with_what_would_be_right(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){message}"):
        setup(**arguments)
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider), "nothing was set up"


def test_what_is_no_exporter_is_refused() -> None:
    wrong: Any = [object()]
    with pytest.raises(TypeError, match="object is no exporter"):
        setup(wrong)


async def test_exporters_of_ones_own_and_several_of_them(tmp_path: Path) -> None:
    mine = InMemorySpanExporter()
    with setup([mine, FileExporter(tmp_path / "t.jsonl")]) as telemetry:
        await Chain().run()
        assert telemetry.flush() == []
        assert len(mine.get_finished_spans()) == 5
    assert (tmp_path / "t.jsonl").exists()


# what cannot be delivered


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_where_nobody_listens_one_line_says_so_and_nothing_waits(
    protocol: Any, caplog: pytest.LogCaptureFixture
) -> None:
    port = closed_port()
    with caplog.at_level(logging.DEBUG):
        telemetry = setup(endpoint=f"http://127.0.0.1:{port}", protocol=protocol)
        assert await Chain().run() == "done"
        late = telemetry.flush(30)
        problems = telemetry.shutdown(30)
    (said,) = problems
    place = f"http://127.0.0.1:{port}{'' if protocol == 'grpc' else '/v1/traces'}"
    assert said == f"the trace could not be delivered to {place}: connection refused (5 spans lost)"
    assert late in ([said], [f"the trace is not delivered to {place} yet: connection refused"])
    assert telemetry.shutdown() == problems
    assert not [r for r in caplog.records if r.name.startswith("opentelemetry") and r.levelno >= logging.WARNING]


async def test_a_receiver_that_refuses_is_said_once_until_it_takes_again(
    receiver: OtlpReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.status = 404
    problems: list[str] = []
    with setup(endpoint=receiver.http_endpoint) as telemetry:
        for status in (404, 404, 200, 401):
            receiver.status = status
            await Chain().run()
            problems = telemetry.flush()
    place = f"{receiver.http_endpoint}/v1/traces"
    assert problems == [f"the trace could not be delivered to {place}: 401 Unauthorized (15 spans lost)"]
    warnings = [r.message for r in caplog.records if r.name == "agentflow"]
    assert warnings == [
        f"the trace cannot be delivered to {place}: 404 Not Found; spans get lost",
        f"the trace cannot be delivered to {place}: 401 Unauthorized; spans get lost",
    ]
    assert [r for r in caplog.records if r.name != "agentflow" and r.levelno >= logging.WARNING] == []


async def test_an_exporter_that_raises_costs_no_run(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate(ValueError("no idea"), SpanExportResult.FAILURE)
    gate.open.set()
    with setup(gate) as telemetry:
        assert await Chain().run() == "done"
        assert telemetry.flush() == ["the trace could not be delivered to Gate: ValueError: no idea (5 spans lost)"]
        await Chain().run()
        assert telemetry.flush() == ["the trace could not be delivered to Gate: ValueError: no idea (10 spans lost)"]
        await Chain().run()
    assert gate.closed == 1
    assert len(gate.taken) == 15
    assert len([r for r in caplog.records if r.name == "agentflow"]) == 1


async def test_a_full_queue_drops_the_oldest_counts_them_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "10")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "5")
    gate = Gate()
    with setup(gate) as telemetry:
        await Chain().run()
        assert gate.entered.wait(10)
        for _ in range(4):
            await Chain().run()
        gate.open.set()
        assert telemetry.flush() == ["10 spans lost on the way to Gate: too many at once"]
    assert len(gate.taken) == 15
    assert gate.taken[-1] == "invoke_workflow Chain"
    assert [r.message for r in caplog.records] == ["more spans are made than can be sent to Gate; the oldest are lost"]


async def test_an_exporter_that_hangs_is_left_after_the_time_that_is_given() -> None:
    gate = Gate()
    telemetry = setup(gate)
    await Chain().run()
    assert telemetry.flush(0.01) == ["the trace is not delivered to Gate yet: the exporter failed"]
    gate.answers.append(SpanExportResult.FAILURE)
    assert telemetry.shutdown(0.01) == ["the trace could not be delivered to Gate: the exporter failed (5 spans lost)"]


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("Failed to export spans batch code: 503, reason: Service Unavailable", "503 Service Unavailable"),
        ("[Errno -2] Name or service not known", "the host is not known"),
        ("StatusCode.DEADLINE_EXCEEDED", "no answer in time"),
        ("StatusCode.UNIMPLEMENTED, error details: Method not found!", "the receiver takes no traces there"),
        ("certificate verify failed", "the TLS certificate is not accepted"),
        ("RESOURCE_EXHAUSTED: larger than max", "the batch is too large for the receiver"),
        ("x" * 500, "x" * 160 + "…"),
    ],
)
def test_what_an_exporter_says_is_put_in_a_few_words(reason: str, told: str) -> None:
    assert shorten(reason) == told


# at the end of a program, and in a fork

PROGRAM = """
import os, sys
from agentflow import *
from agentflow_instrumentation import setup

class Chain(Workflow):
    @step
    async def one(self, ev: StartEvent) -> StopEvent:
        return StopEvent()

setup(endpoint=sys.argv[1], service_name="parent")
Chain().run_sync()
if sys.argv[2:] == ["fork"]:
    child = os.fork()
    Chain().run_sync()
    if child:
        assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.parametrize(("more", "spans"), [((), 3), (("fork",), 9)])
def test_a_program_delivers_its_spans_when_it_ends(receiver: OtlpReceiver, more: tuple[str, ...], spans: int) -> None:
    command = [sys.executable, "-c", PROGRAM, receiver.http_endpoint, *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(receiver.spans) == spans


# files


async def test_a_file_has_one_request_a_line_as_the_collector_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    path.write_text("{}\n")
    with setup("file", path=path, service_name="shop", content="full") as telemetry:
        await Chain().run(topic="Käse")
        telemetry.flush()
        await Chain().run()
    before, first, _ = path.read_text(encoding="utf-8").splitlines()
    assert before == "{}"
    (of_resource,) = json.loads(first)["resourceSpans"]
    assert {"key": "service.name", "value": {"stringValue": "shop"}} in of_resource["resource"]["attributes"]
    (of_scope,) = of_resource["scopeSpans"]
    spans = {span["name"]: span for span in of_scope["spans"]}
    run, two, sent = spans["invoke_workflow Chain"], spans["step two"], spans["event Middle"]
    assert (len(run["traceId"]), len(run["spanId"])) == (32, 16)
    assert two["parentSpanId"] == run["spanId"]
    assert two["links"][0]["spanId"] == sent["spanId"]
    assert two["links"][0]["traceId"] == run["traceId"]
    assert run["kind"] == 1
    assert int(run["startTimeUnixNano"]) > 0
    assert {"key": "input.value", "value": {"stringValue": "Käse"}} in run["attributes"]
    assert {"key": "agentflow.step.attempt", "value": {"intValue": "1"}} in two["attributes"]


def test_a_file_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        setup("file", path=tmp_path / "no folder" / "traces.jsonl")


# the receiver


def test_the_receiver_says_what_it_waited_for_in_vain(receiver: OtlpReceiver) -> None:
    with pytest.raises(TimeoutError, match=r"0 spans came in 0\.01 s, not 3"):
        receiver.wait_for(3, timeout=0.01)


async def test_the_receiver_has_values_of_every_kind(receiver: OtlpReceiver) -> None:
    values: dict[str, Any] = {"s": "a", "b": True, "i": 3, "f": 0.5, "many": ["a", "b"], "bytes": b"\x00"}
    with (
        setup(endpoint=receiver.http_endpoint),
        trace.get_tracer("t").start_as_current_span("x", attributes=values) as x,
    ):
        x.add_event("e", {"n": 1}, 7)
        x.set_status(trace.StatusCode.ERROR, "no")
    (span,) = receiver.spans
    assert span.attributes == values
    assert [(event.name, event.at, event.attributes) for event in span.events] == [("e", 7, {"n": 1})]
    assert (span.status, span.description, span.parent_id) == ("ERROR", "no", "")
    assert receiver.children(span) == []


def test_a_handle_of_nothing_is_harmless() -> None:
    telemetry = Telemetry(None, (), None)
    assert telemetry.flush() == telemetry.shutdown() == []
