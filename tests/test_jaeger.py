"""A real Jaeger gives back what it was sent, with its links, which Phoenix does not keep."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

import clerk
from real import Protocol, RealJaeger, Trace

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Told:
    """The trace of the agent's run, as the SDK made it and as Jaeger gives it back."""

    made: Trace
    shown: Trace


@pytest.fixture(scope="module", params=["http/protobuf", "grpc"])
def told(request: pytest.FixtureRequest, jaeger: RealJaeger, tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp("library")
    return Told(*clerk.record(jaeger, request.param, clerk.ask_clerk(folder)))


def test_every_span_comes_back_as_it_was_made(told: Told) -> None:
    """Names, parents, kinds, status, attributes, events, links.

    Nothing is added: no warning that the clock is wrong, where an event is taken up after its step has ended.
    """
    assert told.shown.spans == told.made.spans


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
