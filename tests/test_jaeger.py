"""A real Jaeger gives back what it was sent, with its links, which Phoenix does not keep, and finds it by its tags."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

import clerk
import scenes
from clerk import Told
from real import Protocol, RealJaeger, Trace

pytestmark = pytest.mark.slow

Stage = Callable[[str], list[Told]]


@pytest.fixture(scope="module", params=["http/protobuf", "grpc"])
def stage(request: pytest.FixtureRequest, jaeger: RealJaeger, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """Plays a scene by its name, once, and tells its traces."""

    @cache
    def play(name: str) -> list[Told]:
        return clerk.record_all(jaeger, request.param, scenes.SCENES[name](tmp_path_factory.mktemp(name)))

    return play


@pytest.fixture
def told(stage: Stage) -> Told:
    """The trace of an agent with two tools."""
    (only,) = stage("clerk")
    return only


@pytest.mark.parametrize("name", scenes.SCENES)
def test_every_span_comes_back_as_it_was_made(stage: Stage, name: str) -> None:
    """Names, parents, kinds, status, attributes, events, links, and to the nanosecond how long it lasted.

    Nothing is added: no warning that the clock is wrong, where an event is taken up after its step has ended.
    """
    for made, shown in stage(name):
        assert shown.spans == made.spans
        for span in shown.spans.values():
            assert (span.begun, span.lasted) == (made.spans[span.id].begun, made.spans[span.id].lasted)


def test_only_calls_that_may_leave_the_process_are_of_the_kind_client(told: Told) -> None:
    kinds = {span.name.partition(" ")[0]: span.kind for span in told.shown.spans.values()}
    assert kinds == {
        "invoke_agent": "INTERNAL",
        "step": "INTERNAL",
        "event": "INTERNAL",
        "chat": "CLIENT",
        "execute_tool": "INTERNAL",
        "retrieval": "CLIENT",
    }


def test_every_step_is_linked_to_the_event_that_triggered_it(told: Told) -> None:
    """The attribute, for back ends that keep no links, names the same events."""
    events = {span.id: span for span in told.shown.spans.values() if span.name.startswith("event ")}
    steps = [span for span in told.shown.spans.values() if span.name.startswith("step ")]
    for step in steps:
        triggers = [events[link.to] for link in step.links]
        assert {f"event {step.attributes['agentflow.event.type']}"} == {event.name for event in triggers}
        named = {cause.split()[-1] for cause in step.attributes["agentflow.triggered_by"]}
        assert named == {event.id for event in triggers}


def test_a_step_that_collects_is_linked_to_all_that_it_collected(told: Told) -> None:
    waits, goes_on = told.shown.all_named("step collect_results")
    results = {span.id for span in told.shown.all_named("event ToolResult")}
    assert {link.to for link in goes_on.links} == results
    assert {link.to for link in waits.links} < results


def test_a_retry_is_an_event_of_its_chat(told: Told) -> None:
    first, second = told.shown.all_named("chat scripted")
    assert [event.name for event in first.events] == ["agentflow.retry"]
    assert first.events[0].attributes["agentflow.retry.attempt"] == 1
    assert not second.events


def test_all_kinds_of_clients_come_back_as_they_were_made(jaeger: RealJaeger) -> None:
    """With the attributes of each document and text, and what a memory, a search, a model took."""
    made, shown = clerk.record(jaeger, "http/protobuf", clerk.ask_librarian())
    assert shown.spans == made.spans
    kinds = {span.name.partition(" ")[0]: span.kind for span in shown.spans.values()}
    assert {name: kinds[name] for name in ("embeddings", "rerank", "memory")} == {
        "embeddings": "CLIENT",
        "rerank": "CLIENT",
        "memory": "INTERNAL",
    }


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_run_that_fails_shows_where_and_why(jaeger: RealJaeger, protocol: Protocol) -> None:
    made, shown = clerk.record(jaeger, protocol, clerk.fail())
    assert shown.spans == made.spans
    for span in (shown.named("invoke_workflow unlucky"), shown.named("step divide")):
        assert span.status == "ERROR"
        assert "division by zero" in span.message


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_run_that_is_cancelled_is_no_error_and_no_success(jaeger: RealJaeger, protocol: Protocol) -> None:
    made, shown = clerk.record(jaeger, protocol, clerk.cancel())
    assert shown.spans == made.spans
    for span in (shown.named("invoke_workflow slow"), shown.named("step sleep")):
        assert (span.status, span.attributes["agentflow.outcome"]) == ("UNSET", "cancelled")


def links_of(trace: Trace) -> set[tuple[str, str, str]]:
    """Those that leave the trace."""
    return {
        (link.trace, link.to, link.attributes["agentflow.link"])
        for span in trace.spans.values()
        for link in span.links
        if link.trace != trace.id
    }


def test_a_run_that_goes_on_is_linked_to_where_it_left_off_in_another_trace(stage: Stage) -> None:
    one, two = (told.shown for told in stage("till"))
    assert not links_of(one)
    assert links_of(two) == {(one.id, one.root.id, "resumed_from")}
    assert two.root.links[0].trace == one.id


def test_a_step_that_was_tried_again_and_what_came_of_it_are_told_apart(stage: Stage) -> None:
    ((_, shown),) = stage("orders")
    failed = [span for span in shown.all_named("step tax") if span.status == "ERROR"]
    (again,) = (span for span in shown.all_named("step tax") if span.attributes["agentflow.step.attempt"] == 2)
    assert [span.attributes["agentflow.outcome"] for span in failed] == ["retried"]
    assert failed[0].message == "ConnectionError: the register is busy"
    assert again.links == failed[0].links, "both are linked to the one event"


def found(jaeger: RealJaeger, **tags: str) -> set[str]:
    """The traces that are found by these tags, as the search of its page finds them."""
    return {
        trace["traceID"]
        for service in jaeger.get("/api/services")["data"]
        for trace in searched(jaeger, service, json.dumps(tags))
    }


def searched(jaeger: RealJaeger, service: str, tags: str) -> list[Any]:
    asked = urlencode({"service": service, "limit": 1000, "tags": tags})
    return list(jaeger.get(f"/api/traces?{asked}")["data"])


PAGE = (Path(__file__).parents[1] / "docs" / "jaeger.md").read_text(encoding="utf-8")


def test_every_search_of_the_page_finds_what_it_should(
    jaeger: RealJaeger, stage: Stage, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = stage("till")[0].shown.root.attributes["agentflow.run.id"]
    stage("orders")
    clerk.record(jaeger, "grpc", clerk.fail())
    clerk.record(jaeger, "grpc", scenes.add_for_ever(tmp_path_factory.mktemp("tireless")))
    every = re.findall(r"^find 'tags=(.*)'", PAGE, re.MULTILINE)
    assert len(every) == 5
    for tags in every:
        assert found(jaeger, **json.loads(tags.replace("THE-RUN-ID", run))), tags
    assert not found(jaeger, error="true"), "the page says so"


def test_links_are_references_in_the_older_api(jaeger: RealJaeger, stage: Stage) -> None:
    one, two = (told.shown for told in stage("till"))
    (trace,) = jaeger.get(f"/api/traces/{two.id}")["data"]
    (root,) = (span for span in trace["spans"] if span["spanID"] == two.root.id)
    assert root["references"] == [{"refType": "FOLLOWS_FROM", "traceID": one.id, "spanID": one.root.id}]


# Its resource is that of the first provider of a process.
PROGRAM = """
import pathlib, sys
import clerk, scenes
from real import RealJaeger
port, http, grpc = sys.argv[1:]
((_, shown),) = clerk.record_all(RealJaeger(int(port), http, grpc), "grpc", scenes.think(pathlib.Path()))
print(shown.id)
"""


@pytest.mark.parametrize("attributes", ["", "ip=10.0.0.7"])
def test_the_older_api_warns_of_events_alone_unless_it_knows_the_machine(jaeger: RealJaeger, attributes: str) -> None:
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(jaeger.port), jaeger.http, jaeger.grpc],
        env={**os.environ, "OTEL_RESOURCE_ATTRIBUTES": attributes, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    (trace,) = jaeger.get(f"/api/traces/{told.stdout.strip()}")["data"]
    warned = {span["operationName"].split()[0]: span["warnings"] for span in trace["spans"] if span["warnings"]}
    assert list(warned) == ([] if attributes else ["event"])
    for (warning,) in warned.values():
        assert warning.startswith("clock skew adjustment disabled; not applying calculated delta of -")


def test_runs_are_found_by_their_id_their_session_and_their_outcome(jaeger: RealJaeger, stage: Stage) -> None:
    segments = stage("till")
    ids = {told.shown.id for told in segments}
    first = segments[0].shown.root.attributes
    assert found(jaeger, **{"agentflow.run.id": first["agentflow.run.id"]}) == ids
    assert found(jaeger, **{"session.id": first["session.id"]}) == ids
    assert found(jaeger, **{"session.id": first["session.id"], "agentflow.outcome": "suspended"}) == {
        segments[0].shown.id
    }
    _, failed = clerk.record(jaeger, "grpc", clerk.fail())
    assert failed.id in found(jaeger, **{"agentflow.outcome": "error"})
    assert ids.isdisjoint(found(jaeger, **{"agentflow.outcome": "error"}))
