"""The tables of what spans carry: they are whole, they tell right from wrong, and the documents say the same."""

from __future__ import annotations

import asyncio
import json
import re
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from agentflow import Context, Event, StartEvent, StopEvent, Workflow, step
from agentflow_instrumentation import names
from agentflow_instrumentation.conventions import ATTRIBUTES, CONVENTIONS, NOTES, check, check_trace
from agentflow_instrumentation.testing import LinkRecord, SpanRecord, recorded_trace
from agentflow_llm import ChatMessage, ScriptedModel

ROOT = Path(__file__).parents[1]
NOT_OF_SPANS = {
    *("SCOPE", "SCHEMA", "PROJECT", "TEXT", "JSON", "EXCEPTION_EVENT", "SENT_BY"),
    *("RERANK_INPUT", "RERANK_OUTPUT"),  # the beginnings of names that have numbers
    # of log records
    *("RUN_STARTED", "RUN_SUSPENDED", "RUN_RESUMED", "RUN_ENDED", "STEP_RETRY", "LLM_RETRY", "TOOL_RETRY"),
    *("EVENT_NAME", "CODE_FILE", "CODE_LINE", "CODE_FUNCTION", "RUN_DURATION", "SUSPENDED"),
    # of metrics
    *("TOKEN_TYPE", "RETRY_SCOPE", "RETRY_NAME", "RETRY_EXHAUSTED", "RESOURCE_NAME", "CONTENT_REASON", "SIGNAL"),
    *("EXPORT_REASON", "OTHER", "CALLS_BEFORE"),
}
"""The constants that name neither an attribute of a span, nor of its events, nor of its links."""


def spoken() -> set[str]:
    """The names of attributes of spans in names.py."""
    return {
        name
        for constant, name in vars(names).items()
        if constant.isupper() and constant not in NOT_OF_SPANS and not constant.startswith("METRIC_")
    }


class Done(Event):
    n: int


class Two(Workflow):
    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Done | None:
        for n in range(2):
            ctx.send_event(Done(n=n))
        return None

    @step
    async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
        if ctx.collect_events(ev, [Done] * 2) is None:
            return None
        await ScriptedModel(["Yes."]).chat([ChatMessage(role="user", content="Why?")])
        return StopEvent(result=ev.n)


def spans() -> dict[str, SpanRecord]:
    """Some spans that are right, by name; of several the last."""
    with recorded_trace() as trace:
        asyncio.run(_two())
    assert not check_trace(trace.spans)
    return {span.name: span for span in trace.spans}


async def _two() -> None:
    await Two().run()


@pytest.fixture(scope="module")
def right() -> dict[str, SpanRecord]:
    return spans()


def test_every_attribute_that_a_kind_has_is_in_the_table() -> None:
    for one in CONVENTIONS.values():
        assert not (one.required | one.optional) - ATTRIBUTES.keys(), one.name
        assert not one.required & one.optional, one.name
    for note, facts in NOTES.items():
        assert not facts - ATTRIBUTES.keys(), note


def test_every_attribute_in_the_table_is_of_some_kind_or_of_events_and_links() -> None:
    carried = frozenset[str]().union(*(one.required | one.optional for one in CONVENTIONS.values()), *NOTES.values())
    assert {name for name in ATTRIBUTES if name not in carried} == {
        names.LINK,
        names.EXCEPTION_TYPE,
        names.EXCEPTION_STACK,
    }


def test_the_table_has_the_names_that_go_out_and_no_others() -> None:
    assert spoken() == {name for name in ATTRIBUTES if ".N." not in name}


def test_the_page_is_made_of_the_table() -> None:
    made = runpy.run_path(str(ROOT / "scripts" / "spans_page.py"))["page"]()
    said = "scripts/spans_page.py > docs/spans.md"
    assert (ROOT / "docs" / "spans.md").read_text(encoding="utf-8") == made, f"run {said}"


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_a_page_names_no_attribute_that_there_is_not(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    known = {name for constant, name in vars(names).items() if constant.isupper()}
    said = set(re.findall(r"`((?:gen_ai|session|user|input|output|error|reranker|openinference)\.[\w.]+)`", text))
    said |= {name for name in re.findall(r"`(agentflow\.[\w.]+)`", text) if f"{name}.".startswith(OURS)}
    events = {names.note_event(note) for one in CONVENTIONS.values() for note in one.events}
    known |= events | {name for name in ATTRIBUTES if ".N." in name}
    inside = tuple(f"{name}." for name, one in ATTRIBUTES.items() if one.content)  # a path into what is told there
    assert {name for name in said - known if not name.startswith(inside)} == set()


OURS = tuple(
    {f"{'.'.join(name.split('.')[:2])}." for name in vars(names).values() if str(name).startswith("agentflow.")}
)
"""How our names begin; there are modules, too."""


WRONG: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("step join", {"name": "step other"}, {}, "its name ends in 'other', and its agentflow.step.name is 'join'"),
    ("step join", {"name": "stage join"}, {}, "no kind has such a name"),
    ("step join", {"kind": "CLIENT"}, {}, "its kind is CLIENT, not INTERNAL"),
    ("step join", {}, {names.SPAN_KIND: "TOOL"}, "its openinference.span.kind is 'TOOL', not 'CHAIN'"),
    ("step join", {}, {names.OUTCOME: "dropped"}, "its outcome is 'dropped'; a step ends as cancelled, collecting"),
    ("step join", {}, {names.OUTCOME: "error"}, "its outcome is 'error', and its status UNSET"),
    ("step join", {}, {names.OUTCOME: "error"}, "its outcome is 'error', and its error.type None"),
    ("step join", {"status": "ERROR"}, {}, "its outcome is 'ok', and its status ERROR"),
    ("step join", {"status": "OK"}, {}, "its outcome is 'ok', and its status OK"),
    ("step join", {}, {names.ERROR_TYPE: "ValueError"}, "its outcome is 'ok', and its error.type 'ValueError'"),
    ("step join", {"end": 1}, {}, "and ended at 1"),
    ("step join", {}, {names.RUN_ID: None}, "it lacks agentflow.run.id"),
    ("step join", {}, {names.ATTEMPT: "1"}, "its attribute agentflow.step.attempt is of type str, not int"),
    ("step join", {}, {names.ATTEMPT: True}, "its attribute agentflow.step.attempt is of type bool, not int"),
    ("step join", {}, {names.QUEUE_WAIT: float("nan")}, "its attribute agentflow.queue.wait is no number"),
    ("step join", {}, {names.INPUT: "x" * 70_000}, "its attribute input.value is 70000 characters long"),
    ("step join", {}, {names.APPROVAL: "maybe"}, "is 'maybe'; there are approved, edited, refused"),
    ("step join", {}, {"agentflow.step.nam": "x"}, "nothing is known of its attribute agentflow.step.nam"),
    ("step join", {}, {names.INPUT_TOKENS: 3}, "a step has no attribute gen_ai.usage.input_tokens"),
    ("step join", {}, {names.INPUT: "{"}, "its input.value is no JSON"),
    ("step join", {"links": []}, {}, "to which it has no link"),
    ("step join", {}, {names.TRIGGERED_BY: ["begin"]}, "has 'begin', not step:Event and the span's id"),
    ("step join", {}, {names.TRIGGERED_BY: []}, "it has 2 links, and its agentflow.triggered_by names 0"),
    ("event Done", {"links": [LinkRecord("a", "b", {})]}, {}, "a event has no links"),
    ("chat scripted", {}, {names.OPERATION: "talk"}, "its gen_ai.operation.name is 'talk', not 'chat'"),
    ("chat scripted", {}, {names.INPUT_MESSAGES: "[{}"}, "gen_ai.input.messages is no JSON list of objects"),
    ("chat scripted", {}, {names.INPUT_MESSAGES: "{}"}, "gen_ai.input.messages is no JSON list of objects"),
    ("chat scripted", {}, {names.INPUT_MESSAGES: "[{}]"}, "has a message without role or parts"),
    ("chat scripted", {}, {names.OUTPUT_MESSAGES: '[{"role":"a","parts":[]}]'}, "without finish_reason"),
    ("invoke_workflow Two", {"links": [LinkRecord("a", "b", {names.LINK: "like"})]}, {}, "a link of it has"),
]


@pytest.mark.parametrize(("name", "fields", "attributes", "said"), WRONG)
def test_a_span_that_is_not_as_it_should_be_is_told(
    right: dict[str, SpanRecord], name: str, fields: dict[str, Any], attributes: dict[str, Any], said: str
) -> None:
    span = right[name]
    told = {key: value for key, value in (span.attributes | attributes).items() if value is not None}
    wrong = replace(span, attributes=told, **fields)
    assert any(said in problem for problem in check(wrong)), check(wrong)
    assert not check(span)


def test_content_is_told_where_none_may_go_out(right: dict[str, SpanRecord]) -> None:
    wrong = check(right["chat scripted"], content=False)
    assert {problem.split()[5] for problem in wrong} == {
        "gen_ai.input.messages",
        "gen_ai.output.messages",
        *("input.value", "input.mime_type", "output.value", "output.mime_type"),
    }


def test_a_document_without_a_score_is_told() -> None:
    with recorded_trace() as trace:
        pass
    assert trace.spans == []
    attributes = {
        names.SPAN_KIND: "RETRIEVER",
        names.OPERATION: "retrieval",
        names.OUTCOME: "ok",
        names.DOCUMENTS: json.dumps([{"id": "a", "score": None}]),
    }
    span = SpanRecord("retrieval", "CLIENT", "a", "b", "", 1, 2, attributes, [], [], "UNSET", "", {}, names.SCOPE)
    (problem,) = check(span)
    assert "a document without a number as its score" in problem


def test_what_others_put_on_a_span_is_theirs(right: dict[str, SpanRecord]) -> None:
    span = right["step join"]
    assert not check(replace(span, attributes=span.attributes | {"shop.order": 7, "user.name": "Ada"}))


def test_spans_that_do_not_fit_together_are_told(right: dict[str, SpanRecord]) -> None:
    root, joined = right["invoke_workflow Two"], right["step join"]
    early = replace(joined, start=root.start - 5)
    assert check_trace([root, early]) == [
        "span 'step join': it began 5 ns before its parent 'invoke_workflow Two'",
    ]
    assert check_trace([root, joined, joined]) == ["span 'step join': its id is that of 'step join', too"]
    assert check_trace([root, replace(joined, end=root.end + 3)]) == [
        "span 'step join': it ended 3 ns after its parent 'invoke_workflow Two'",
    ]
    assert check_trace([replace(joined, parent_id="")]) == ["span 'step join': it has no parent"]
    assert check_trace([joined, replace(root, parent_id=joined.span_id, start=joined.start)]) == []
    chat = right["chat scripted"]
    assert check_trace([replace(joined, parent_id=chat.span_id), chat])[0].endswith("its parent is 'chat scripted'")


def test_the_spans_of_the_sdk_are_checked_like_those_that_arrive() -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("somebody")
    with tracer.start_as_current_span("step mine") as span:
        pass
    wrong = check(span)
    assert any("it lacks agentflow.event.type" in problem for problem in wrong)
    assert check_trace([span]) == []  # it is not ours
