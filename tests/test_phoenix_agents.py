"""A real Phoenix shows a run of each prebuilt agent, of a plain workflow, and of what goes on later."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

import scenes
from agentflow_instrumentation.conventions import CONVENTIONS
from clerk import Told, record_all
from real import RealPhoenix, Seen, Trace

pytestmark = pytest.mark.slow

Stage = Callable[[str], list[Told]]
every = pytest.mark.parametrize("name", scenes.SCENES)


@pytest.fixture(scope="module", params=["http/protobuf", "grpc"])
def stage(request: pytest.FixtureRequest, phoenix: RealPhoenix, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """Plays a scene by its name, once, and tells its traces."""

    @cache
    def play(name: str) -> list[Told]:
        return record_all(phoenix, request.param, scenes.SCENES[name](tmp_path_factory.mktemp(name)))

    return play


def first(span: Seen) -> str:
    """What it is."""
    return span.name.partition(" ")[0]


def part(span: Seen, prefix: str) -> dict[str, Any]:
    """The attributes below this prefix, which Phoenix tells flat."""
    return {name.removeprefix(prefix): value for name, value in span.attributes.items() if name.startswith(prefix)}


def chats(trace: Trace) -> list[Seen]:
    return [span for span in trace.spans.values() if first(span) == "chat"]


def agents(trace: Trace) -> list[Seen]:
    return [span for span in trace.spans.values() if span.kind == "AGENT"]


# -- every scene ------------------------------------------------------------------------------------------


@every
def test_the_tree_the_kinds_the_times_and_the_ends_are_those_that_were_made(stage: Stage, name: str) -> None:
    for made, shown in stage(name):
        assert shown.root.name in {f"invoke_agent {name}", f"invoke_workflow {name}"}
        assert shown.tree() == made.tree()
        for span in shown.spans.values():
            was = made.spans[span.id]
            assert span.kind == CONVENTIONS[first(span)].shown_as
            assert span.lasted == pytest.approx(was.lasted, abs=2e-6)
            assert (span.status, span.message) == (was.status, was.message)
            assert span.attributes["agentflow.outcome"] == was.attributes["agentflow.outcome"]


@every
def test_agents_steps_chats_tools_and_retrievers_show_what_went_in_and_what_came_out(stage: Stage, name: str) -> None:
    """A retriever has its documents. A run that pauses shows the question, one that goes on the answer."""
    for _, shown in stage(name):
        for span in shown.spans.values():
            if first(span) in {"event", "resource", "memory"}:
                continue
            assert span.attributes["input.value"], span.name
            whole = span.attributes["agentflow.outcome"] == "ok" and first(span) != "retrieval"
            if whole or (span.kind, span.attributes["agentflow.outcome"]) == ("AGENT", "suspended"):
                assert span.attributes["output.value"], span.name


@every
def test_chats_show_each_message_in_its_role_and_every_tool_of_the_model(stage: Stage, name: str) -> None:
    for made, shown in stage(name):
        for span in chats(shown):
            was = made.spans[span.id].attributes
            messages = json.loads(was["gen_ai.input.messages"])
            # Phoenix makes a message of each result of a tool
            roles = [one["role"] for one in messages for _ in (one["parts"] if one["role"] == "tool" else "1")]
            assert [span.attributes[f"llm.input_messages.{n}.message.role"] for n in range(len(roles))] == roles
            (said,) = json.loads(was["gen_ai.output.messages"])
            calls = [one for one in said["parts"] if one["type"] == "tool_call"]
            answer = part(span, "llm.output_messages.0.message.")
            asked = [answer[f"tool_calls.{n}.tool_call.function.name"] for n in range(len(calls))]
            assert asked == [call["name"] for call in calls]
            assert answer["role"] == "assistant"
            assert bool(answer.get("content")) is not bool(calls)
            assert len(part(span, "llm.tools.")) == was.get("agentflow.chat.tools", 0)


@every
def test_tokens_and_costs_are_counted_once(stage: Stage, phoenix: RealPhoenix, name: str) -> None:
    """Of agents in agents too; of a model that it does not know, Phoenix knows no price."""
    session = "session { tokenUsage { total } costSummary { total { cost } } }"
    tokens, cost = 0, 0.0
    told: dict[str, Any] = {}
    for made, shown in stage(name):
        kinds = ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens")
        took = sum(span.attributes[kind] for span in chats(made) for kind in kinds)
        known = [span for span in chats(made) if span.attributes["gen_ai.request.model"] == scenes.MODEL]
        assert took == len(known) * 1100 or name == "clerk"
        told = phoenix.about(
            shown.root, f"cumulativeTokenCountTotal trace {{ costSummary {{ total {{ cost }} }} {session} }}"
        )
        assert told["cumulativeTokenCountTotal"] == took
        assert (told["trace"]["costSummary"]["total"]["cost"] or 0) == pytest.approx(len(known) * scenes.PRICE)
        tokens, cost = tokens + took, cost + len(known) * scenes.PRICE
    session_of = told["trace"]["session"]
    assert session_of["tokenUsage"]["total"] == tokens
    assert (session_of["costSummary"]["total"]["cost"] or 0) == pytest.approx(cost)


# -- what is special --------------------------------------------------------------------------------------


def test_a_react_agent_shows_its_thoughts_and_observations(stage: Stage) -> None:
    ((_, shown),) = stage("thinker")
    one, two = chats(shown)
    said = [part(span, "llm.output_messages.0.message.")["content"] for span in (one, two)]
    assert said == [
        'Thought: I have to add.\nAction: add\nAction Input: {"a": 2, "b": 3}',
        "Thought: I know it.\nAnswer: It is 5.",
    ]
    assert two.attributes["llm.input_messages.1.message.content"] == "Observation: 5"
    tool = shown.named("execute_tool add")
    assert (tool.attributes["tool.parameters.a"], tool.attributes["output.value"]) == (2, "5")


def test_a_rag_agent_shows_its_passages_its_repair_and_its_citations(stage: Stage) -> None:
    ((_, shown),) = stage("reader")
    document = part(shown.named("retrieval reader"), "retrieval.documents.0.document.")
    assert document["content"] == "The library opens at nine and closes at six."
    assert document["score"] > 0
    assert document["metadata.heading"] == "Opening hours"
    drafts, checks = shown.all_named("step draft"), shown.all_named("step check")
    assert len(drafts) == len(checks) == 2
    (problem,) = json.loads(checks[0].attributes["output.value"])["Repair"]["problems"]
    assert problem == "- Passage [1] does not say: It opens at ten."
    result = json.loads(shown.named("step finish").attributes["output.value"])["RAGResult"]
    (citation,) = result["citations"]
    assert (citation["number"], citation["passage_id"], citation["holds"]) == (1, document["id"], True)
    ingest = ["invoke_agent reader", "step retrieve", "resource Library.open", "invoke_workflow Ingest"]
    assert shown.above(shown.named("invoke_workflow Ingest")) == ingest


def test_a_team_is_one_tree_of_agents(stage: Stage) -> None:
    ((_, shown),) = stage("desk")
    run = ["invoke_agent desk", "step speak", "invoke_agent billing", "step call_tool", "execute_tool cashier"]
    for cashier in shown.all_named("invoke_agent cashier"):
        assert shown.above(cashier) == [*run, "invoke_agent cashier"]
    names = [span.name.removeprefix("invoke_agent ") for span in agents(shown)]
    assert names == ["desk", "triage", "billing", "cashier", "billing", "cashier"]
    told = [[span.attributes[f"{way}put.value"] for way in ("in", "out")] for span in agents(shown)]
    assert told[:2] == [["Pay my invoice.", "Done."], ["Pay my invoice.", '{"to":"billing","message":"Pay 3."}']]
    assert [output for _, output in told[4:]] == ["Done.", "It is paid."]
    for pauses, goes_on in (told[2::2], told[3::2]):
        asked, answer = json.loads(pauses[1]), json.loads(goes_on[0])
        assert (asked["tool"], asked["arguments"], answer["approved"]) == ("pay", {"amount": 3}, True)
        assert asked["call_id"] == answer["call_id"]


def test_agents_show_what_ended_them_and_what_a_person_was_asked_and_said(stage: Stage) -> None:
    ((_, shown),) = stage("desk")
    ends = [
        (span.attributes["agentflow.outcome"], span.attributes.get("agentflow.agent.stopped_by"))
        for span in agents(shown)
    ]
    paused = ("suspended", None)
    assert ends == [("ok", "answer"), ("ok", "handoff"), paused, paused, ("ok", "answer"), ("ok", "answer")]
    asked = [span.name for span in shown.spans.values() if span.attributes.get("agentflow.approval.tools")]
    assert sorted(asked) == ["step call_tool", "step call_tool", "step speak"]
    answers = [span.attributes.get("agentflow.approval.answer") for span in shown.all_named("step decide")]
    assert answers == ["approved"] * 3


def test_a_workflow_shows_each_attempt_and_all_that_a_step_collected(stage: Stage) -> None:
    ((_, shown),) = stage("orders")
    tries = [
        (span.attributes["agentflow.step.attempt"], span.status, span.attributes["agentflow.outcome"])
        for span in shown.all_named("step tax")
    ]
    assert sorted(tries) == [(1, "ERROR", "retried"), (1, "UNSET", "ok"), (1, "UNSET", "ok"), (2, "UNSET", "ok")]
    ends = [span.attributes["agentflow.outcome"] for span in shown.all_named("step total")]
    assert ends == ["collecting", "collecting", "ok"]
    last = shown.all_named("step total")[-1]
    assert {cause.split()[-1] for cause in last.attributes["agentflow.triggered_by"]} == {
        span.id for span in shown.all_named("event Priced")
    }
    assert shown.root.status == "UNSET", "a step that was tried again is no failure of the run"


# -- sessions ---------------------------------------------------------------------------------------------


SESSION = """project { name sessions(first: 1000) { edges { node { sessionId } } } } trace { session {
    sessionId userId numTraces numTracesWithError firstInput { value } lastOutput { value } startTime endTime
    traces(first: 10) { edges { node { traceId latencyMs } } } } }"""


@pytest.mark.parametrize(
    ("name", "begins", "ends"), [("host", scenes.HELLO, "You are Ada."), ("till", "Pay 7.", "It is paid.")]
)
def test_two_turns_or_a_run_that_was_put_away_and_went_on_are_a_session(
    stage: Stage, phoenix: RealPhoenix, name: str, begins: str, ends: str
) -> None:
    """Each turn is a trace that lasts as long as its run did, not as long as the time between them."""
    told = stage(name)
    about = phoenix.about(told[0].shown.root, SESSION)
    session = about["trace"]["session"]
    turns = [edge["node"] for edge in session["traces"]["edges"]]
    assert sorted(turn["traceId"] for turn in turns) == sorted(one.made.id for one in told)
    for one in told:
        (latency,) = (turn["latencyMs"] for turn in turns if turn["traceId"] == one.made.id)
        assert latency == pytest.approx(one.made.root.lasted * 1000, abs=0.002)
    assert (session["numTraces"], session["numTracesWithError"], session["userId"]) == (2, 0, scenes.ADA)
    assert (session["firstInput"]["value"], session["lastOutput"]["value"]) == (begins, ends)
    sessions = [edge["node"]["sessionId"] for edge in about["project"]["sessions"]["edges"]]
    assert sessions.count(session["sessionId"]) == 1


def test_without_a_session_a_run_is_one_of_its_own(stage: Stage, phoenix: RealPhoenix) -> None:
    ((_, shown),) = stage("desk")
    session = phoenix.about(shown.root, SESSION)["trace"]["session"]
    assert session["sessionId"] == shown.root.attributes["agentflow.run.id"]
    assert (session["numTraces"], session["userId"]) == (1, None)


def test_a_turn_begins_with_what_is_new(stage: Stage) -> None:
    """A chat of the second turn has the messages of the first, as the memory gave them."""
    _, (_, shown) = stage("host")
    (chat,) = chats(shown)
    said = [chat.attributes[f"llm.input_messages.{n}.message.content"] for n in range(1, 4)]
    assert said == [scenes.HELLO, "Hello, Ada!", scenes.NAME]
    assert shown.root.attributes["input.value"] == scenes.NAME


def test_a_run_that_goes_on_names_the_trace_before_it(stage: Stage) -> None:
    one, two = (told.shown for told in stage("till"))
    assert (one.root.attributes["agentflow.outcome"], two.root.attributes["agentflow.outcome"]) == ("suspended", "ok")
    assert two.root.attributes["agentflow.resumed_from.trace_id"] == one.id
    assert [trace.root.attributes["agentflow.segment"] for trace in (one, two)] == [1, 2]
    assert one.root.attributes["agentflow.run.id"] == two.root.attributes["agentflow.run.id"]
    assert json.loads(one.root.attributes["output.value"])["arguments"] == {"amount": 7}
    assert json.loads(two.root.attributes["input.value"])["approved"] is True
    decided = two.named("step decide").attributes
    assert decided["agentflow.approval.answer"] == "approved"
    assert decided["agentflow.triggered_by"][0].startswith("Approval ")
