"""Beside the real packages of others each call is told once, each span hangs where it belongs, theirs stay theirs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentflow_instrumentation.testing import OtlpReceiver
from real import Instrumented

pytestmark = pytest.mark.slow

PROGRAMS = Path(__file__).parent / "instrumented"
OPENINFERENCE = "openinference.instrumentation.openai:OpenAIInstrumentor"
OFFICIAL = "opentelemetry.instrumentation.genai.openai:OpenAIInstrumentor"
OFFICIAL_BEFORE = "opentelemetry.instrumentation.openai_v2:OpenAIInstrumentor"
OPENLLMETRY = "opentelemetry.instrumentation.openai:OpenAIInstrumentor"
HTTPX = "opentelemetry.instrumentation.httpx:HTTPXClientInstrumentor"
HTTPX_SCOPE = "opentelemetry.instrumentation.httpx"


def calls(instrumented: Instrumented, *instrumentors: str, before: tuple[str, ...] = ()) -> dict[str, Any]:
    told = instrumented.run("python", str(PROGRAMS / "calls.py"), *instrumentors, before=before)
    return dict(json.loads(told))


@pytest.mark.parametrize("before", [(), ("openai-2",)], ids=["openai 3", "openai 2"])
@pytest.mark.parametrize("theirs", [OPENINFERENCE, OFFICIAL, OPENLLMETRY, "logfire"])
def test_a_call_of_a_model_is_one_span_with_one_count_of_tokens(
    instrumented: Instrumented, theirs: str, before: tuple[str, ...]
) -> None:
    told = calls(instrumented, theirs, before=before)
    own = told.pop("the client itself")
    assert len(told) == 6
    for kind, spans in told.items():
        name, tokens = ("embeddings text-embedding-3-small", 2) if kind == "embeddings" else ("chat gpt-4o-mini", 7)
        assert spans == [{"name": name, "scope": "agentflow", "parent": "above", "input": [tokens]}], kind
    # what agentflow has no part in is theirs to tell, below the step in which it happens
    assert [(span["scope"].startswith(theirs.partition(":")[0]), span["parent"]) for span in own] == [(True, "above")]


def test_the_same_beside_the_official_one_of_before(instrumented: Instrumented) -> None:
    told = calls(instrumented, OFFICIAL_BEFORE, before=("openai-v2", "openai-2"))
    for kind in ("chat", "chat, streamed", "responses", "responses, streamed", "embeddings"):
        assert [span["scope"] for span in told[kind]] == ["agentflow"], kind


def test_spans_of_http_are_below_the_span_of_the_call(instrumented: Instrumented) -> None:
    told = calls(instrumented, HTTPX, OFFICIAL, OPENLLMETRY, before=("openai-2",))
    told.pop("the client itself")
    for kind, (request, call) in told.items():
        assert (request["scope"], request["parent"]) == (HTTPX_SCOPE, call["name"]), kind
        assert (call["scope"], call["parent"]) == ("agentflow", "above"), kind


def test_beside_openinference_there_are_none_for_they_are_silenced_together(instrumented: Instrumented) -> None:
    told = calls(instrumented, HTTPX, OPENINFERENCE, before=("openai-2",))
    own = told.pop("the client itself")
    assert {span["scope"] for spans in told.values() for span in spans} == {"agentflow"}
    assert HTTPX_SCOPE in {span["scope"] for span in own}


@pytest.mark.parametrize("host", ["phoenix", "logfire"])
def test_a_host_that_owns_the_provider_has_its_spans_and_ours(
    instrumented: Instrumented, host: str, tmp_path: Path
) -> None:
    with OtlpReceiver() as receiver:
        written = tmp_path / "traces.jsonl"
        instrumented.run("python", str(PROGRAMS / "hosts.py"), host, receiver.http_endpoint, str(written))
        spans = list(receiver.spans)
    runs = sorted((span for span in spans if span.name == "invoke_agent clerk"), key=lambda span: span.start)
    (before,), (after,) = ([span for span in spans if span.name == name] for name in ("before", "after"))
    assert [run.parent_id for run in runs] == [before.span_id, "", after.span_id]
    assert {run.attributes["session.id"] for run in runs} == {"chat-42"}
    assert {run.attributes["user.id"] for run in runs} == {"ada"}
    assert {span.resource["service.name" if host == "logfire" else "openinference.project.name"] for span in spans} == {
        "shop"
    }
    assert len({span.span_id for span in spans}) == len(spans)
    ids = {span.span_id for span in spans}
    assert [span.name for span in spans if span.parent_id and span.parent_id not in ids] == []
    assert sum(span.name.startswith("chat") for span in spans) == 6
    assert sum("invoke_agent clerk" in line for line in written.read_text(encoding="utf-8").splitlines()) > 0


def test_in_a_web_service_runs_are_below_the_spans_of_requests(instrumented: Instrumented) -> None:
    told = json.loads(instrumented.run("python", str(PROGRAMS / "web.py")))
    assert told["told"] == ['"acme"', "data: begin\n\ndata: acme\n\n"]
    tree = {tuple(pair) for pair in told["tree"]}
    requests = {("GET /plain", "caller"), ("GET /streamed", "caller")}
    runs = {("invoke_workflow Chain", "GET /plain"), ("invoke_workflow Chain", "GET /streamed")}
    inside = {("step one", "invoke_workflow Chain"), ("event StartEvent", "invoke_workflow Chain")}
    assert requests | runs | inside | {("chat scripted", "step one")} == {
        pair for pair in tree if "http send" not in pair[0] and "http receive" not in pair[0]
    }


def auto(instrumented: Instrumented, receiver: OtlpReceiver, **environ: str) -> None:
    said = instrumented.run(
        "opentelemetry-instrument",
        str(instrumented.python),
        str(PROGRAMS / "app.py"),
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        OTEL_SERVICE_NAME="shop",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test",
        **environ,
    )
    assert said == "It is 5.\n"


def test_opentelemetry_instrument_makes_everything_appear_once(instrumented: Instrumented) -> None:
    with OtlpReceiver() as receiver:
        auto(instrumented, receiver, OTEL_LOGS_EXPORTER="otlp")
    ours = [span for span in receiver.spans if span.scope == "agentflow"]
    assert {span.scope for span in receiver.spans} == {"agentflow"}
    assert {(span.resource["service.name"], span.resource["deployment.environment.name"]) for span in ours} == {
        ("shop", "test")
    }
    names = [span.name for span in ours]
    assert (names.count("invoke_agent clerk"), names.count("chat gpt-4o-mini"), names.count("execute_tool add")) == (
        1,
        2,
        1,
    )
    (trace_id,) = {span.trace_id for span in ours}
    durations = [point for point in receiver.metrics if point.name == "gen_ai.client.operation.duration"]
    assert [point.count for point in durations] == [2]
    told = [record for record in receiver.logs if record.event_name.startswith("agentflow.")]
    assert [record.event_name for record in told] == ["agentflow.run.started", "agentflow.run.ended"]
    assert {record.trace_id for record in told} == {trace_id}


def test_it_is_left_out_where_it_is_disabled_by_name(instrumented: Instrumented) -> None:
    with OtlpReceiver() as receiver:
        auto(instrumented, receiver, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="flask, agentflow")
    assert "agentflow" not in {span.scope for span in receiver.spans}
    assert receiver.spans != []  # of the others, which are told of no call that agentflow tells of
