"""What cannot be delivered, of every signal: said once, counted, bounded, and never at the cost of a run."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from agentflow import StartEvent, StopEvent, Workflow, step
from agentflow_instrumentation import discovery, setup
from agentflow_instrumentation.outlet import Outlet
from agentflow_instrumentation.pipeline import Cargo
from agentflow_instrumentation.reasons import without_secrets
from agentflow_instrumentation.testing import OtlpReceiver
from freshly import closed_port, forget_providers, threads_of_ours


class One(Workflow):
    @step
    async def one(self, ev: StartEvent) -> StopEvent:
        logging.getLogger("shop").warning("sold out")
        return StopEvent(result="done")


@pytest.fixture(autouse=True)
def nothing_is_set_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    forget_providers(monkeypatch)
    yield
    assert not threads_of_ours()


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver(largest=60_000) as running:
        yield running


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage() for record in caplog.records if record.name != "shop" and record.levelno >= logging.WARNING
    ]


# a program that ends, or is in a hurry


start = threading.Thread.start


def no_more_threads(self: threading.Thread) -> None:
    if self.name == "agentflow-telemetry":  # the receiver's are those of another process
        raise RuntimeError("can't create new thread at interpreter shutdown")
    start(self)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_what_comes_when_no_thread_can_be_started_any_more_is_sent_all_the_same(
    receiver: OtlpReceiver, protocol: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint
    telemetry = setup(endpoint=place, protocol=protocol, logs=True)
    with monkeypatch.context() as ended:  # as Python 3.12 has it in functions of atexit
        ended.setattr(threading.Thread, "start", no_more_threads)
        trace.get_tracer("shop").start_span("late").end()
        assert telemetry.shutdown() == []
    assert [span.name for span in receiver.spans] == ["late"]


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_without_threads_nobody_who_listens_is_not_waited_for(
    protocol: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    telemetry = setup(endpoint=f"http://127.0.0.1:{closed_port()}", protocol=protocol)
    with monkeypatch.context() as ended:
        ended.setattr(threading.Thread, "start", no_more_threads)
        trace.get_tracer("shop").start_span("late").end()
        begun = time.monotonic()
        [problem] = telemetry.shutdown()
    assert problem.endswith("connection refused (1 span lost)")
    assert time.monotonic() - begun < 3


async def test_what_hangs_when_no_thread_can_be_started_any_more_holds_up_no_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        telemetry = setup(endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}")
        trace.get_tracer("shop").start_span("early").end()
        with monkeypatch.context() as ended:
            ended.setattr(threading.Thread, "start", no_more_threads)
            [problem] = telemetry.shutdown(0.2)
        for thread in threads_of_ours():
            thread.join(10)
    assert problem.endswith("no answer in time (1 span lost)")


def put_many(outlet: Outlet) -> None:
    for number in range(5_000):
        outlet.put(number)


def test_every_item_that_many_threads_put_at_once_arrives_or_is_counted() -> None:
    class Slow:
        many = 0

        def export(self, batch: Any) -> None:
            self.many += len(batch)

        def shutdown(self) -> None:
            """Nothing to do."""

    slow = Slow()
    outlet = Outlet(lambda: slow, "slow", cargo=Cargo("traces", "the trace", "span", "", 4))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=put_many, args=(outlet,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    outlet.shutdown()
    assert slow.many + outlet.dropped + outlet.lost == 20_000
    assert outlet.dropped


# a receiver that is not there


def test_of_long_items_fewer_wait() -> None:
    """A collector that hangs costs some 64 MB, and not the texts of 32,768 spans."""
    goes_on, taken = threading.Event(), threading.Event()

    class Hanging:
        def export(self, batch: Any) -> Any:
            taken.set()
            goes_on.wait(10)

        def shutdown(self) -> None:
            goes_on.set()

    class Long:
        attributes: ClassVar = {"input.value": "x" * 200_000}

    outlet = Outlet(Hanging, "nowhere", cargo=Cargo("traces", "the trace", "span", "", 32_768, 4))
    for _ in range(4):
        outlet.put(Long())
    assert taken.wait(10)
    for _ in range(1_000):
        outlet.put(Long())
    outlet.shutdown(0)
    assert 250 < outlet.lost < 350
    assert outlet.lost + outlet.dropped == 1_000


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_where_nobody_listens_every_signal_says_so_once_and_nothing_waits(
    protocol: Any, caplog: pytest.LogCaptureFixture
) -> None:
    place = f"http://127.0.0.1:{closed_port()}"
    telemetry = setup(endpoint=place, protocol=protocol, metrics=True, logs=True)
    begun = time.monotonic()
    assert await One().run() == "done"
    problems = telemetry.shutdown(30)
    assert time.monotonic() - begun < 5
    at = {signal: place if protocol == "grpc" else f"{place}/v1/{signal}" for signal in ("traces", "metrics", "logs")}
    assert problems == [
        f"the trace could not be delivered to {at['traces']}: connection refused (3 spans lost)",
        f"what was measured could not be delivered to {at['metrics']}: connection refused (1 reading lost)",
        f"the log could not be delivered to {at['logs']}: connection refused (3 log records lost)",
    ]
    assert warnings(caplog) == []


async def test_a_receiver_that_hangs_holds_up_neither_the_loop_nor_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.3")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        telemetry = setup(endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}", metrics=True, logs=True)
        assert await One().run() == "done"
        problems = telemetry.shutdown(0.1)
        for thread in threads_of_ours():
            thread.join(10)
    assert [problem.partition(": ")[2] for problem in problems] == [
        "no answer in time (3 spans lost)",
        "no answer in time (1 reading lost)",
        "no answer in time (3 log records lost)",
    ]


async def test_what_is_lost_is_counted_by_signal(receiver: OtlpReceiver, caplog: pytest.LogCaptureFixture) -> None:
    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider([reader], shutdown_on_exit=False))
    assert discovery.METRICS.observer() is not None

    def lost() -> dict[str, float]:
        data = reader.get_metrics_data()
        assert data is not None
        found = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics]
        points: list[Any] = [p for m in found if m.name == "agentflow.export.dropped" for p in m.data.data_points]
        wanted = "agentflow.export.dropped.reason"
        return {p.attributes["agentflow.signal"]: p.value for p in points if p.attributes[wanted] == "failed"}

    before = lost()
    receiver.status = 404
    with setup(endpoint=receiver.http_endpoint, logs=True) as telemetry:
        await One().run()
        assert len(telemetry.flush()) == 2
        await One().run()
    assert len(warnings(caplog)) == 2, "one for each signal"
    after = lost()
    assert {
        signal: after[signal] - before.get(signal, 0) for signal in after if after[signal] != before.get(signal)
    } == {
        "traces": 6,
        "logs": 6,
    }


# a receiver that does not take everything


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_one_span_that_is_too_large_costs_no_other(
    protocol: Any, receiver: OtlpReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint
    with setup(endpoint=endpoint, protocol=protocol) as telemetry:
        tracer = trace.get_tracer("t")
        begun = time.monotonic()
        for number in range(8):
            tracer.start_span(f"s{number}", attributes={"text": "x" * (100_000 if number == 3 else 10_000)}).end()
        problems = telemetry.flush()
        assert time.monotonic() - begun < 5, "the same request is not sent again"
    assert sorted(span.name for span in receiver.spans) == sorted(f"s{n}" for n in range(8) if n != 3)
    (said,) = problems
    assert said.endswith(": one span alone is larger than the receiver takes (1 span lost)")
    assert len(warnings(caplog)) == 1


def test_log_records_that_are_too_many_at_once_are_sent_in_halves(receiver: OtlpReceiver) -> None:
    with setup(endpoint=receiver.http_endpoint, logs=True) as telemetry:
        for _ in range(60):
            logging.getLogger("shop").warning("x" * 5_000)
        assert telemetry.flush() == []
    assert len(receiver.logs) == 60


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_what_a_receiver_refuses_of_a_request_is_lost(
    protocol: Any, receiver: OtlpReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.rejects, receiver.rejects_because = 2, "the quota is used up"
    endpoint = receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint
    with setup(endpoint=endpoint, protocol=protocol, metrics=True, logs=True) as telemetry:
        await One().run()
        problems = telemetry.flush()
        receiver.rejects, receiver.rejects_because = 0, ""
    assert [problem.partition(" could not be")[0] + problem.partition(" says")[2] for problem in problems] == [
        "the trace: the quota is used up (2 spans lost)",
        "what was measured: the quota is used up (1 reading lost)",
        "the log: the quota is used up (2 log records lost)",
    ]
    assert len(warnings(caplog)) == 3


async def test_what_a_receiver_merely_says_is_passed_on_once(
    receiver: OtlpReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.rejects_because = "use a newer address"
    with setup(endpoint=receiver.http_endpoint) as telemetry:
        for _ in range(2):
            await One().run()
            assert telemetry.flush() == []
    (said,) = warnings(caplog)
    assert said.endswith("/v1/traces, and the receiver says: use a newer address")


# secrets


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_a_token_in_the_address_is_printed_nowhere(protocol: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        endpoint = f"http://127.0.0.1:{closed_port()}/?token=s3cret&team=cats"
        telemetry = setup(endpoint=endpoint, protocol=protocol, metrics=True, logs=True)
        await One().run()
        problems = telemetry.shutdown(0.5)
    with pytest.raises(ValueError, match=r"token=\*\*\*") as caught:
        setup(endpoint="ftp://host/?token=s3cret")
    assert len(problems) == 3
    assert "token=***" in problems[0]
    assert "s3cret" not in f"{problems}{caplog.text}{caught.value}"


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_a_header_that_cannot_be_sent_is_printed_nowhere(protocol: Any, caplog: pytest.LogCaptureFixture) -> None:
    headers = {"authorization": "Bearer s3cret\n"}
    telemetry = setup(endpoint=f"http://127.0.0.1:{closed_port()}", protocol=protocol, headers=headers)
    await One().run()
    (problem,) = telemetry.shutdown(0.5)
    assert "3 spans lost" in problem
    assert "s3cret" not in f"{problem}{caplog.text}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://h:1/v1/traces?api_key=abc", "http://h:1/v1/traces?api_key=***"),
        ("url: /v1/traces?a=b;c=d (Caused by x)", "url: /v1/traces?a=***;c=*** (Caused by x)"),
        ("https://ann:pw@h/x", "https://***@h/x"),
        ("got Bearer abc.def back", "got Bearer *** back"),
        ("Basic dXNlcg==", "Basic ***"),
    ],
)
def test_secrets_of_addresses_and_headers_are_masked(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


# the end of a program, and processes that are forked off

PROGRAM = """
import os, sys, time, warnings
from agentflow import *
from agentflow_instrumentation import setup
import logging
warnings.simplefilter("ignore", DeprecationWarning)  # from 3.12 on: a forked program should have no threads

class One(Workflow):
    @step
    async def one(self, ev: StartEvent) -> StopEvent:
        logging.getLogger("shop").warning("in %s", sys.argv[3] if os.getpid() == parent else "child")
        return StopEvent()

class Waits(Workflow):
    @step
    async def one(self, ev: StartEvent) -> StopEvent:
        pool()
        return StopEvent()

def fork():
    if (child := os.fork()) == 0:
        for _ in range(2):
            One().run_sync()
        sys.exit()
    assert os.waitpid(child, 0)[1] == 0

def work():
    One().run_sync()

def pool():
    import multiprocessing
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == 0

parent, how = os.getpid(), sys.argv[3]
logging.getLogger("shop").addHandler(logging.NullHandler())
logging.getLogger("shop").propagate = True
telemetry = setup(endpoint=sys.argv[1], protocol=sys.argv[2], service_name="shop", metrics=True, logs=True)
One().run_sync()
assert telemetry.flush() == [], telemetry.flush()
if how == "fork":
    One().run_sync()  # is queued when the process is forked
    fork()
elif how == "pool":
    pool()
elif how == "open":
    Waits().run_sync()
"""


def run_program(endpoint: str, protocol: str, how: str) -> None:
    command = [sys.executable, "-c", PROGRAM, endpoint, protocol, how]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def counted(receiver: OtlpReceiver) -> list[int]:
    """The runs of each process, by the latest that it has sent."""
    latest = receiver.latest("gen_ai.invoke_workflow.duration")
    return sorted(point.count for point in latest)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_child_sends_its_own_and_nothing_twice(receiver: OtlpReceiver, protocol: str) -> None:
    endpoint = receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint
    run_program(endpoint, protocol, "fork")
    runs = receiver.named("invoke_workflow One")
    assert len(runs) == len({span.span_id for span in receiver.spans if span.name == "invoke_workflow One"}) == 4
    instances = [span.resource["service.instance.id"] for span in runs]
    assert sorted(instances.count(one) for one in set(instances)) == [2, 2]
    assert sorted(log.body for log in receiver.logs if log.scope == "shop") == ["in child"] * 2 + ["in fork"] * 2
    assert counted(receiver) == [2, 2], "a child counts from the start"


def test_a_child_of_multiprocessing_sends_what_is_left(receiver: OtlpReceiver) -> None:
    run_program(receiver.http_endpoint, "http/protobuf", "pool")
    assert len(receiver.named("invoke_workflow One")) == 2
    assert counted(receiver) == [1, 1]


def test_a_run_that_is_open_where_a_process_is_forked_is_told_by_its_parent(receiver: OtlpReceiver) -> None:
    run_program(receiver.http_endpoint, "http/protobuf", "open")
    assert len(receiver.named("invoke_workflow Waits")) == 1
    assert len(receiver.named("invoke_workflow One")) == 2
    outcomes = [log.attributes.get("agentflow.outcome") for log in receiver.logs]
    assert [outcome for outcome in outcomes if outcome] == ["ok", "ok", "ok"], "and none is suspended"


def test_the_child_of_a_program_with_a_page_is_told_that_nobody_reads_it() -> None:
    program = """
import os, sys
from agentflow_instrumentation import setup
telemetry = setup("console", metrics="prometheus")
if (child := os.fork()) == 0:
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
"""
    environ = {"OTEL_EXPORTER_PROMETHEUS_HOST": "127.0.0.1", "OTEL_EXPORTER_PROMETHEUS_PORT": str(closed_port())}
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ, timeout=60)
    assert done.returncode == 0, done.stderr
    (said,) = done.stderr.splitlines()
    assert said.startswith("the metrics of this process, which was forked, are served nowhere")
    assert json.dumps(said).count("metrics=True") == 1
