"""`setup()` makes traces go somewhere; what cannot be delivered is said once, and never holds up a run."""

from __future__ import annotations

import base64
import json
import logging
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.util._once import Once

from agentflow import Event, StartEvent, StopEvent, Workflow, step
from agentflow_instrumentation import FileExporter, Telemetry, discovery, setup
from agentflow_instrumentation.exporters import make_outlet
from agentflow_instrumentation.ids import Ids
from agentflow_instrumentation.otlp import Protocol
from agentflow_instrumentation.outlet import Outlet
from agentflow_instrumentation.reasons import shorten
from agentflow_instrumentation.tally import EXPORT
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


async def test_the_variables_of_phoenix_name_its_server_and_its_key(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHOENIX_COLLECTOR_ENDPOINT", receiver.http_endpoint)
    monkeypatch.setenv("PHOENIX_API_KEY", "phoenix-key")
    with setup("phoenix"):
        await Chain().run()
    assert receiver.spans
    assert receiver.headers[0]["authorization"] == "Bearer phoenix-key"


def test_a_file_in_a_folder_that_is_not_there_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no folder '.*missing'. Make it first: mkdir -p"):
        setup("file", path=tmp_path / "missing" / "traces.jsonl")


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


def test_a_program_that_begins_random_anew_has_new_traces_all_the_same() -> None:
    before = random.getstate()
    with setup(InMemorySpanExporter()):
        places: list[trace.SpanContext] = []
        for _ in range(2):
            random.seed(0)
            places.append(trace.get_tracer("shop").start_span("order").get_span_context())
    random.setstate(before)
    assert len({place.trace_id for place in places} | {place.span_id for place in places}) == 4
    told = trace.TraceFlags.SAMPLED | getattr(trace.TraceFlags, "RANDOM_TRACE_ID", 0)
    assert [place.trace_flags for place in places] == [told, told]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_process_that_is_forked_off_has_ids_of_its_own() -> None:
    ids = Ids()
    out, into = os.pipe()
    if not (child := os.fork()):
        os.write(into, ids.generate_trace_id().to_bytes(16, "big"))
        os._exit(0)
    os.waitpid(child, 0)
    assert int.from_bytes(os.read(out, 16), "big") != ids.generate_trace_id()
    os.close(out)
    os.close(into)


async def test_after_shutdown_nothing_more_is_made_and_setup_may_be_called_again(receiver: OtlpReceiver) -> None:
    with setup(endpoint=receiver.http_endpoint) as telemetry:
        await Chain().run()
    assert telemetry.shutdown() == []
    assert len(receiver.spans) == 5
    await Chain().run()
    assert discovery.TRACES.observer() is None
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
        assert (discovery.TRACES.observer() is None) is (provider is telemetry.tracer_provider)


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"exporter": [object()]}, "object is no exporter.*otlp, phoenix"),
        ({"exporter": object()}, "object is no exporter"),
        ({"exporter": None}, "None is no exporter"),
        ({"exporter": Gate}, r"setup\(Gate\): this is a class.*setup\(Gate\(\)\)"),
        ({"headers": "a=b"}, 'a dict is needed, not a str.*headers={"name": "value"}'),
        (
            {"exporter": "console", "endpoint": "http://x"},
            r"endpoint=.*otlp, phoenix, jaeger.*setup\(\"otlp\", endpoint",
        ),
        ({"exporter": "file", "path": "x", "headers": {"a": "b"}}, "headers=.*otlp, phoenix, jaeger"),
        ({"path": "t.jsonl"}, r"path='t.jsonl'.*Write: setup\(\"file\", path='t.jsonl'\)"),
    ],
)
def test_what_means_nothing_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){message}"):
        setup(**arguments)
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider), "nothing was set up"


async def test_a_cell_that_is_run_again_prints_each_trace_once(capsys: pytest.CaptureFixture[str]) -> None:
    first, again = setup("console"), setup("console")
    await Chain().run()
    assert capsys.readouterr().err.count("invoke_workflow") == 1
    again.shutdown()
    await Chain().run()
    assert capsys.readouterr().err.count("invoke_workflow") == 1, "the first one is used again"
    first.shutdown()


async def test_the_same_endpoint_is_sent_each_span_once(receiver: OtlpReceiver) -> None:
    with setup("phoenix", endpoint=receiver.http_endpoint), setup("phoenix", endpoint=receiver.http_endpoint):
        await Chain().run()
    assert len(receiver.spans) == 5


class Fails(Workflow):
    @step
    async def one(self, ev: StartEvent) -> StopEvent:
        msg = "the shelf is empty"
        raise ValueError(msg)


async def test_on_the_terminal_alone_errors_say_why(capsys: pytest.CaptureFixture[str]) -> None:
    with setup("console"), pytest.raises(ValueError, match="shelf"):
        await Fails().run()
    assert "the shelf is empty" in capsys.readouterr().err


@pytest.mark.parametrize("more", ["argument", "list", "later", "earlier", "environment", "host"])
async def test_nothing_more_goes_out_than_was_asked_for_where_it_leaves_the_terminal(
    more: str, receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    handles: list[Telemetry] = []
    if more == "earlier":
        handles.append(setup(endpoint=receiver.http_endpoint))
    if more == "environment":
        monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "false")
    if more == "host":
        trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
    if more == "list":
        handles.append(setup(["console", "otlp"], endpoint=receiver.http_endpoint))
    else:
        handles.append(setup("console", content="none" if more == "argument" else None))
    if more == "later":
        setup(endpoint=receiver.http_endpoint).shutdown()
        handles.append(setup(endpoint=receiver.http_endpoint))
        handles.pop().shutdown()
    with pytest.raises(ValueError, match="shelf"):
        await Fails().run()
    for handle in handles:
        handle.shutdown()
    assert "error: ValueError" in (printed := capsys.readouterr().err)
    assert "shelf" not in printed + str([span.description for span in receiver.spans])


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
    key = ("traces", "queue_full")
    counted = EXPORT.read().get(key, 0)
    with setup(gate) as telemetry:
        await Chain().run()
        assert gate.entered.wait(10)
        for _ in range(4):
            await Chain().run()
        gate.open.set()
        assert telemetry.flush() == ["10 spans lost on the way to Gate: too many at once"]
    assert EXPORT.read()[key] - counted == 10, "the metric has as many"
    assert len(gate.taken) == 15
    assert gate.taken[-1] == "invoke_workflow Chain"
    assert [r.message for r in caplog.records] == ["more spans are made than can be sent to Gate; the oldest are lost"]


async def test_an_exporter_that_hangs_is_left_after_the_time_that_is_given() -> None:
    gate = Gate()
    telemetry = setup(gate)
    await Chain().run()
    assert telemetry.flush(0.01) == ["the trace is not delivered to Gate yet: no answer in time"]
    gate.answers.append(SpanExportResult.FAILURE)
    assert telemetry.shutdown(0.01) == ["the trace could not be delivered to Gate: no answer in time (5 spans lost)"]


async def test_an_exporter_that_is_slow_has_not_failed() -> None:
    gate = Gate()
    telemetry = setup(gate)
    gate.open.set()
    await Chain().run()
    assert telemetry.flush() == []
    gate.open.clear()
    await Chain().run()
    assert telemetry.flush(0.01) == ["the trace is not delivered to Gate yet: not in time"]
    gate.answers.append(SpanExportResult.FAILURE)
    assert telemetry.shutdown(0.01) == ["the trace could not be delivered to Gate: not in time (5 spans lost)"]


async def test_a_receiver_that_never_answers_gave_no_answer_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        telemetry = setup(endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}")
        await Chain().run()
        (said,) = telemetry.shutdown(0.05)
    for thread in threading.enumerate():
        if thread.name == "agentflow-telemetry":
            thread.join(10)
    assert said.endswith("no answer in time (5 spans lost)")


async def test_http_at_a_grpc_port_says_what_would_be_right(receiver: OtlpReceiver) -> None:
    telemetry = setup(endpoint=receiver.grpc_endpoint)
    await Chain().run()
    telemetry.flush(0.2)
    (said,) = telemetry.shutdown(0.1)
    assert said.endswith("it looks like a gRPC port: use protocol='grpc' (5 spans lost)")


async def test_grpc_at_an_http_port_says_what_would_be_right(receiver: OtlpReceiver) -> None:
    telemetry = setup(endpoint=receiver.http_endpoint, protocol="grpc")
    await Chain().run()
    telemetry.flush(0.5)
    (said,) = telemetry.shutdown(0.1)
    assert said.endswith("it looks like an HTTP port: use protocol='http/protobuf' (5 spans lost)")


async def test_a_password_in_the_address_is_not_printed(caplog: pytest.LogCaptureFixture) -> None:
    said: list[str] = []
    protocols: tuple[Protocol, ...] = ("http/protobuf", "grpc")
    for protocol in protocols:
        telemetry = setup(endpoint=f"http://ann:s3cret@127.0.0.1:{closed_port()}", protocol=protocol)
        await Chain().run()
        said += telemetry.shutdown(0.3)
    with setup(endpoint=f"http://ann:s3cret@127.0.0.1:{closed_port()}"):
        await Chain().run()
    with pytest.raises(ValueError, match=r"\*\*\*@") as caught:
        setup(endpoint="ftp://ann:s3cret@host")
    assert ["***@127.0.0.1" in told for told in [*said, caplog.text]] == [True] * 3
    assert "s3cret" not in f"{said}{caplog.text}{caught.value}"


@pytest.mark.parametrize("leave", ["__exit__", "_leave"])
async def test_what_nobody_reads_is_logged_once(leave: str, caplog: pytest.LogCaptureFixture) -> None:
    port = closed_port()
    telemetry = setup(endpoint=f"http://127.0.0.1:{port}")
    await Chain().run()
    for _ in range(2):
        getattr(telemetry, leave)(*([None] * 3 if leave == "__exit__" else ()))  # at exit, the latter is called
    place = f"http://127.0.0.1:{port}/v1/traces"
    said = f"the trace could not be delivered to {place}: connection refused (5 spans lost)"
    assert [r.message for r in caplog.records if r.name == "agentflow"] == [said]


async def test_what_was_returned_is_not_logged_too(caplog: pytest.LogCaptureFixture) -> None:
    with setup(endpoint=f"http://127.0.0.1:{closed_port()}") as telemetry:
        await Chain().run()
        assert len(telemetry.shutdown()) == 1
    assert [r for r in caplog.records if r.name == "agentflow"] == []


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_a_refused_connection_is_not_waited_for_again(protocol: Any) -> None:
    telemetry = setup(endpoint=f"http://127.0.0.1:{closed_port()}", protocol=protocol)
    await Chain().run()
    telemetry.flush(30)  # from here the exporter waits for its next attempt
    begun = time.monotonic()
    (said,) = telemetry.shutdown(30)
    assert "connection refused (5 spans lost)" in said
    assert time.monotonic() - begun < 0.5


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
        (
            "Transient error Too Many Requests encountered while exporting spans batch, retrying in 1.00s.",
            "too many requests",
        ),
        (
            "Transient error Service Unavailable encountered while exporting spans batch, retrying in 1s.",
            "Service Unavailable",
        ),
        ("Failed to export spans batch code: None, reason: Invalid URL 'x'", "Invalid URL 'x'"),
        (
            "Failed to export traces to ann:s3cret@host:4317, error code: StatusCode.INTERNAL, error details: oh",
            "INTERNAL, error details: oh",
        ),
        (
            "Transient error StatusCode.UNAVAILABLE encountered while exporting spans to h:1, retry. Error details: oh",
            "UNAVAILABLE oh",
        ),
        ("no way to http://ann:s3/cr@et@host:1", "no way to http://***@host:1"),
    ],
)
def test_what_an_exporter_says_is_put_in_a_few_words(reason: str, told: str) -> None:
    assert shorten(reason) == told


# at the end of a program, and in a fork

PROGRAM = """
import os, sys, warnings
from agentflow import *
from agentflow_instrumentation import setup

class Chain(Workflow):
    @step
    async def one(self, ev: StartEvent) -> StopEvent:
        return StopEvent()

setup(endpoint=sys.argv[1], service_name="parent")
Chain().run_sync()
if sys.argv[2:] == ["fork"]:
    warnings.simplefilter("ignore", DeprecationWarning)  # from 3.12 on: a forked program should have no threads
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


def with_hex_ids(value: Any) -> Any:
    """OTLP writes ids as hex, where protobuf's JSON has base64."""
    if isinstance(value, dict):
        ids = {"traceId", "spanId", "parentSpanId"}
        return {k: base64.b64decode(v).hex() if k in ids else with_hex_ids(v) for k, v in value.items()}
    return [with_hex_ids(item) for item in value] if isinstance(value, list) else value


def test_a_file_says_what_is_sent(tmp_path: Path) -> None:
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    far = trace.SpanContext(
        7, 8, is_remote=True, trace_flags=trace.TraceFlags(1), trace_state=trace.TraceState([("a", "b")])
    )
    values: dict[str, Any] = {
        "s": "ä",
        "b": False,
        "i": 0,
        "f": 0.5,
        "n": ["a", "b"],
        "x": b"\x00",
        "inf": float("inf"),
    }
    tracer = provider.get_tracer("shop", "1.0", schema_url="https://x/1", attributes={"k": 1})
    around = trace.set_span_in_context(trace.NonRecordingSpan(far))
    with tracer.start_as_current_span("a", around, links=[trace.Link(far, values)], attributes=values) as span:
        span.add_event("e", values, 9)
        with tracer.start_as_current_span("b", kind=trace.SpanKind.CLIENT) as inner:
            inner.set_status(trace.StatusCode.ERROR, "no")
        provider.get_tracer("other").start_span("c").end()
    spans = memory.get_finished_spans()
    writer = FileExporter(path := tmp_path / "t.jsonl")
    writer.export(spans)
    writer.shutdown()
    to_dict: Any = import_module("google.protobuf.json_format").MessageToDict  # it has no types
    expected = to_dict(encode_spans(spans), use_integers_for_enums=True)
    assert json.loads(path.read_text(encoding="utf-8")) == with_hex_ids(expected)


def test_a_file_loses_nothing_of_a_run_that_is_faster_than_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "20")
    path = tmp_path / "traces.jsonl"
    with setup("file", path=path) as telemetry:
        tracer = trace.get_tracer("t")
        for _ in range(1_000):
            tracer.start_span("x").end()
        assert telemetry.shutdown() == []
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert sum(len(line["resourceSpans"][0]["scopeSpans"][0]["spans"]) for line in lines) == 1_000


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
    telemetry = Telemetry()
    assert telemetry.flush() == telemetry.shutdown() == []


def test_a_header_that_is_no_text_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a header is text. Write: headers={'a': \"1\"}"):
        setup("otlp", headers={"a": 1})  # type: ignore[dict-item]  # because that is the mistake
