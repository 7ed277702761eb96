"""`setup()` of metrics and logs, sampling, and the standard variables: every signal goes its way, with one handle."""

from __future__ import annotations

import gc
import logging
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import _logs, metrics, propagate, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult

from agentflow import Event, StartEvent, StopEvent, Workflow, step
from agentflow_instrumentation import discovery, setup
from agentflow_instrumentation.received import LogRecord
from agentflow_instrumentation.testing import OtlpReceiver
from freshly import closed_port, forget_providers, threads_of_ours


class Middle(Event):
    pass


seen: list[dict[str, str]] = []


class Chain(Workflow):
    @step
    async def one(self, ev: StartEvent) -> Middle:
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        seen.append(carrier)
        return Middle()

    @step
    async def two(self, ev: Middle) -> StopEvent:
        logging.getLogger("shop").warning("sold out", extra={"article": 7})
        return StopEvent(result="done")


@pytest.fixture(autouse=True)
def nothing_is_set_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    forget_providers(monkeypatch)
    seen.clear()
    handlers = list(logging.getLogger().handlers)
    yield
    assert not threads_of_ours()
    assert logging.getLogger().handlers == handlers


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as running:
        yield running


def name_of(log: LogRecord) -> str:
    """The event's name, which APIs before 1.35 have among the attributes."""
    return str(log.event_name or log.attributes.get("event.name") or log.body)


def scrape(url: str | None) -> str:
    assert url is not None
    with urllib.request.urlopen(url) as page:  # noqa: S310 because it is our own page
        return str(page.read().decode())


# the way of each signal


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_every_signal_arrives_with_the_same_resource(receiver: OtlpReceiver, protocol: Any) -> None:
    endpoint = receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint
    with setup(
        endpoint=endpoint, protocol=protocol, metrics=True, logs=True, service_name="shop", headers={"X-Team": "cats"}
    ) as telemetry:
        await Chain().run()
        assert telemetry.flush() == []
        (duration,) = receiver.latest("gen_ai.invoke_workflow.duration")
        assert duration.count == 1
        assert {name_of(log) for log in receiver.logs} == {
            "agentflow.run.started",
            "agentflow.run.ended",
            "sold out",
        }
        await Chain().run()
    run, again = receiver.named("invoke_workflow Chain")
    (duration,) = receiver.latest("gen_ai.invoke_workflow.duration")
    assert duration.count == 2, "the end of the block reads the metrics for the last time"
    assert [(one.trace_id, one.span_id) for one in duration.exemplars] == [(again.trace_id, again.span_id)]
    (line, _) = [log for log in receiver.logs if log.body == "sold out"]
    assert (line.trace_id, line.severity, line.attributes["article"]) == (run.trace_id, "WARN", 7)
    resources = [run.resource, duration.resource, line.resource]
    assert resources[0]["service.name"] == "shop"
    assert all(resource == resources[0] for resource in resources)
    assert {headers["x-team"] for headers in receiver.headers} == {"cats"}


async def test_what_was_not_asked_for_is_not_sent(receiver: OtlpReceiver) -> None:
    with setup(endpoint=receiver.http_endpoint) as telemetry:
        await Chain().run()
        assert (telemetry.meter_provider, telemetry.logger_provider, telemetry.metrics_url) == (None, None, None)
    assert (receiver.metrics, receiver.logs) == ([], [])
    assert discovery.METRICS.observer() is None
    assert discovery.LOGS.observer() is None


async def test_a_service_may_set_up_again(receiver: OtlpReceiver) -> None:
    for many in (1, 2):
        with setup(endpoint=receiver.http_endpoint, metrics=True, logs=True):
            await Chain().run()
        assert len(receiver.named("step one")) == many
        assert len([log for log in receiver.logs if log.body == "sold out"]) == many
        (steps,) = [
            p for p in receiver.latest("agentflow.step.duration") if p.attributes["agentflow.step.name"] == "one"
        ]
        assert steps.count == 1, "a counter that began anew"
    await Chain().run()
    assert len(receiver.named("step one")) == 2
    assert discovery.METRICS.observer() is None


async def test_the_same_endpoint_is_told_everything_once(receiver: OtlpReceiver) -> None:
    endpoint = receiver.http_endpoint
    with setup(endpoint=endpoint, metrics=True, logs=True) as first:
        with setup(endpoint=endpoint, metrics=True, logs=True) as second:
            await Chain().run()
            assert first.flush() == second.flush() == []
        lines = [log for log in receiver.logs if log.body == "sold out"]
        sent = [point for point in receiver.metrics if point.name == "gen_ai.invoke_workflow.duration"]
        assert (len(lines), len(sent)) == (1, 2), "read by the flush and at the end of the inner block"
        await Chain().run()
    assert len([log for log in receiver.logs if log.body == "sold out"]) == 2
    (duration,) = receiver.latest("gen_ai.invoke_workflow.duration")
    assert duration.count == 2


async def test_providers_of_the_host_stay_and_get_one_more_way(receiver: OtlpReceiver) -> None:
    reader = InMemoryMetricReader()
    host = MeterProvider([reader], shutdown_on_exit=False)
    if not hasattr(host, "add_metric_reader"):
        pytest.skip("this version of the SDK lets nobody add a reader")
    metrics.set_meter_provider(host)
    loggers = LoggerProvider(shutdown_on_exit=False)
    _logs.set_logger_provider(loggers)
    with setup(endpoint=receiver.http_endpoint, metrics=True, logs=True) as telemetry:
        assert (telemetry.meter_provider, telemetry.logger_provider) == (host, loggers)
        await Chain().run()
    assert receiver.latest("gen_ai.invoke_workflow.duration")[0].count == 1
    assert {name_of(log) for log in receiver.logs} >= {"agentflow.run.started"}
    await Chain().run()
    data = reader.get_metrics_data()
    assert data is not None, "the host's own way is still open"
    assert len(receiver.latest("gen_ai.invoke_workflow.duration")) == 1


def test_a_meter_provider_that_takes_no_readers_is_refused_and_nothing_is_left() -> None:
    class Vendors(metrics.MeterProvider):
        def get_meter(self, *args: Any, **more: Any) -> metrics.Meter:
            return metrics.NoOpMeter("")

    metrics.set_meter_provider(Vendors())
    with pytest.raises(RuntimeError, match=r"meter provider is a Vendors.*metric_readers=\[PeriodicExporting"):
        setup(metrics=True)
    assert discovery.TRACES.observer() is None


async def test_the_root_logger_keeps_its_level_and_its_handlers(receiver: OtlpReceiver) -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    with setup(endpoint=receiver.http_endpoint):
        assert (root.level, root.handlers) == before
    with setup(endpoint=receiver.http_endpoint, logs=True):
        assert len(root.handlers) == len(before[1]) + 1
    assert (root.level, root.handlers) == before


# Prometheus


async def test_prometheus_is_served_a_page_until_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    port = closed_port()
    monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_HOST", "127.0.0.1")
    monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_PORT", str(port))
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    for _ in range(2):
        with setup(metrics="prometheus") as telemetry:
            assert telemetry.metrics_url == f"http://127.0.0.1:{port}/metrics"
            with setup(metrics="prometheus") as inner:
                assert inner.metrics_url == telemetry.metrics_url
            await Chain().run()
            assert telemetry.flush() == []
            page = scrape(telemetry.metrics_url)
        counted = [
            line for line in page.splitlines() if line.startswith("gen_ai_invoke_workflow_duration_seconds_count")
        ]
        assert [line.rpartition(" ")[2] for line in counted] == ["1.0"]
        with pytest.raises(OSError, match="refused"):
            scrape(telemetry.metrics_url)


async def test_a_later_call_that_fails_leaves_the_page_of_an_earlier_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Vendors(_logs.LoggerProvider):
        def get_logger(self, *args: Any, **more: Any) -> _logs.Logger:
            return _logs.NoOpLogger("")

    monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_HOST", "127.0.0.1")
    monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_PORT", str(closed_port()))
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    with setup(metrics="prometheus") as telemetry:
        _logs.set_logger_provider(Vendors())
        with pytest.raises(RuntimeError, match="logger provider is a Vendors"):
            setup(metrics="prometheus", logs=True)
        assert telemetry.metrics_url
        await Chain().run()
        assert "gen_ai_invoke_workflow_duration_seconds_count" in scrape(telemetry.metrics_url)


def test_a_call_that_fails_closes_the_file_that_it_has_opened(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="no such protocol"):
            setup(["file", "otlp"], path=tmp_path / "t.jsonl", protocol="grpcx")  # type: ignore[arg-type]  # because it is wrong
        gc.collect()  # a file that is open still would warn


def test_a_port_that_is_taken_is_said_with_what_to_do(receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    port = receiver.http_endpoint.rpartition(":")[2]
    monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_HOST", "127.0.0.1")
    monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_PORT", port)
    with pytest.raises(OSError, match=rf"at 127\.0\.0\.1:{port}: .*in use.*_PORT={int(port) + 1}.*metrics=True"):
        setup("console", metrics="prometheus")
    monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_PORT", "often")
    with pytest.raises(ValueError, match="PORT='often': this is no port"):
        setup("console", metrics="prometheus")
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider), "nothing was set up"


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.exporter.prometheus", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'agentflow-otel\[prometheus\]'"):
        setup("console", metrics="prometheus")


# what means nothing


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metrics": "promethius"}, "metrics='promethius'.*True.*prometheus"),
        ({"logs": "yes"}, "logs='yes'.*False, True"),
        (
            {"exporter": "phoenix", "metrics": True},
            r'Phoenix takes traces only.*setup\(\["otlp", "phoenix"\], metrics=T',
        ),
        ({"exporter": "jaeger", "logs": True}, r'Jaeger takes traces only.*setup\(\["otlp", "jaeger"\], logs=True\)$'),
        ({"exporter": "console", "metrics": True}, r'by OTLP.*\["otlp", "console"\].*metrics="prometheus"'),
        (
            {"endpoint": "http://c:1/custom", "metrics": True},
            r"metrics=True\).*this path.*http://c:1\".*METRICS_ENDPOINT",
        ),
        ({"sampling": 10}, r"sampling=10.*from 0 for none to 1 for all. For 10 %, write: sampling=0.1"),
        ({"sampling": "all"}, r"sampling='all'.*Write: sampling=0.1"),
        ({"sampling": True}, r"sampling=True.*Write: sampling=0.1"),
    ],
)
def test_what_means_nothing_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){message}"):
        setup(**arguments)
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider), "nothing was set up"


# sampling


async def test_a_run_that_is_not_sampled_is_measured_and_its_trace_goes_on(receiver: OtlpReceiver) -> None:
    with setup(endpoint=receiver.http_endpoint, sampling=0, metrics=True, logs=True):
        await Chain().run()
        with trace.use_span(
            trace.NonRecordingSpan(far := trace.SpanContext(7, 8, is_remote=True, trace_flags=trace.TraceFlags(1)))
        ):
            await Chain().run()
    ours, theirs = seen
    assert not int(ours["traceparent"].rpartition("-")[2], 16) & trace.TraceFlags.SAMPLED
    assert not ours["traceparent"].startswith("00-000000")
    assert theirs["traceparent"].startswith(f"00-{far.trace_id:032x}-")
    assert theirs["traceparent"].endswith("-01"), "what was decided elsewhere holds"
    assert {span.trace_id for span in receiver.spans} == {f"{far.trace_id:032x}"}
    assert receiver.latest("gen_ai.invoke_workflow.duration")[0].count == 2
    assert len([log for log in receiver.logs if name_of(log) == "agentflow.run.ended"]) == 2


async def test_the_variables_sample_where_nothing_is_given(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    with setup(endpoint=receiver.http_endpoint):
        await Chain().run()
    with setup(endpoint=receiver.http_endpoint, sampling=1.0):
        await Chain().run()
    with setup(endpoint=receiver.http_endpoint):
        await Chain().run()
    assert len(receiver.named("invoke_workflow Chain")) == 1


def test_a_sampler_of_others_stays(receiver: OtlpReceiver) -> None:
    trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
    with pytest.raises(
        ValueError, match=r"sampling=0\.1\): a TracerProvider is set up already.*OTEL_TRACES_SAMPLER_ARG=0\.1"
    ):
        setup(endpoint=receiver.http_endpoint, sampling=0.1)


async def test_a_sampler_is_shown_the_kind_and_the_names_of_what_begins() -> None:
    class Asks(Sampler):
        shown: dict[str, Any] = {}  # noqa: RUF012 because it is a test's

        def should_sample(self, *args: Any, **more: Any) -> SamplingResult:
            name, attributes = args[2], dict(more.get("attributes") or args[4] or {})
            self.shown[name] = attributes
            return SamplingResult(Decision.DROP)

        def get_description(self) -> str:
            return "asks"

    trace.set_tracer_provider(TracerProvider(sampler=Asks(), shutdown_on_exit=False))
    await Chain().run()
    run = Asks.shown["invoke_workflow Chain"]
    assert (run["openinference.span.kind"], run["gen_ai.workflow.name"]) == ("CHAIN", "Chain")
    assert run["agentflow.run.id"]
    one = Asks.shown["step one"]
    assert (one["agentflow.step.name"], one["agentflow.step.attempt"], one["agentflow.event.type"]) == (
        "one",
        1,
        "StartEvent",
    )
    assert Asks.shown["event Middle"]["agentflow.event.type"] == "Middle"


# the variables


@pytest.mark.parametrize("signal", ["TRACES", "METRICS", "LOGS"])
async def test_each_signal_may_have_its_own_address(
    signal: str, receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.http_endpoint)
    with OtlpReceiver() as other:
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT", other.grpc_endpoint)
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "grpc")
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{signal}_HEADERS", "x-for=this")
        with setup(metrics=True, logs=True):
            await Chain().run()
        got = {"TRACES": bool(other.spans), "METRICS": bool(other.metrics), "LOGS": bool(other.logs)}
        assert got == {name: name == signal for name in got}
        assert {headers["x-for"] for headers in other.headers} == {"this"}
        rest = {"TRACES": bool(receiver.spans), "METRICS": bool(receiver.metrics), "LOGS": bool(receiver.logs)}
        assert rest == {name: name != signal for name in rest}


@pytest.mark.parametrize("signal", ["TRACES", "METRICS", "LOGS"])
async def test_none_leaves_a_signal_out(signal: str, receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"OTEL_{signal}_EXPORTER", "none")
    with setup(endpoint=receiver.http_endpoint, metrics=True, logs=True) as telemetry:
        await Chain().run()
    got = {"TRACES": bool(receiver.spans), "METRICS": bool(receiver.metrics), "LOGS": bool(receiver.logs)}
    assert got == {name: name != signal for name in got}
    there = {
        "TRACES": telemetry.tracer_provider,
        "METRICS": telemetry.meter_provider,
        "LOGS": telemetry.logger_provider,
    }
    assert {name: provider is not None for name, provider in there.items()} == got


async def test_everything_may_be_turned_off(receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with setup(endpoint=receiver.http_endpoint, metrics=True, logs=True, sampling=0.5) as telemetry:
        await Chain().run()
        assert telemetry.flush() == []
    assert receiver.headers == []
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


async def test_metrics_are_sent_at_the_interval_of_the_variable(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "20")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta")
    with setup(endpoint=receiver.http_endpoint, metrics=True):
        await Chain().run()
        receiver.wait_for(metrics=1)
    counts = [point.count for point in receiver.metrics if point.name == "gen_ai.invoke_workflow.duration"]
    assert sum(counts) == 1


async def test_the_queue_of_log_records_is_as_long_as_the_variable_says(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_BLRP_MAX_QUEUE_SIZE", "2")
    monkeypatch.setenv("OTEL_BLRP_SCHEDULE_DELAY", "60000")
    monkeypatch.setenv("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "2")
    with setup(endpoint=receiver.http_endpoint, logs=True, metrics=True) as telemetry:
        receiver.status = 503
        receiver.retry_after = 0.02
        for number in range(20):
            logging.getLogger("shop").warning("line %d", number)
        receiver.status = 200
        problems = telemetry.flush()
        telemetry.flush()
        logged = {"agentflow.signal": "logs", "agentflow.export.dropped.reason": "queue_full"}
        dropped = [point.value for point in receiver.latest("agentflow.export.dropped") if point.attributes == logged]
    (said,) = problems
    assert "log records lost on the way to" in said
    assert len(dropped) == 1
    assert len([r for r in caplog.records if "more log records are made than can be sent" in r.message]) == 1
