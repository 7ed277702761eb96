"""What tests say of traces: what holds is silent, and what does not shows the trace and what came nearest."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from textwrap import dedent
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agentflow import Context, Event, StartEvent, StopEvent, Workflow, add_observer, step
from agentflow_instrumentation import SpanObserver, setup
from agentflow_instrumentation.testing import OtlpReceiver, Trace, assert_trace, record_of, recorded_trace
from agentflow_llm import ChatMessage, ScriptedModel


class Done(Event):
    n: int


class Adds(Workflow):
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


TREE = """
    invoke_workflow Adds
      step begin
      step join collecting
      step join
        chat scripted
"""


@pytest.fixture
async def trace() -> Trace:
    with recorded_trace() as trace:
        await Adds().run()
    return trace


def said(trace: Trace, ask: str, *args: Any, **kwargs: Any) -> str:
    """What is said where it does not hold."""
    with pytest.raises(AssertionError) as raised:
        getattr(trace, ask)(*args, **kwargs)
    return str(raised.value)


def test_what_holds_can_be_said_in_one_go(trace: Trace) -> None:
    (
        trace.has("step")
        .has("step begin")
        .has("step", name="join", count=2)
        .has("step", name="join", outcome="collecting", count=1)
        .has("chat", parent="step join", attributes={"gen_ai.request.model": "scripted", "input.value": ...})
        .has("invoke_workflow", parent="", count=1)
        .has("execute_tool", count=0)
        .has_no("execute_tool")
        .has_no("step", name="join", outcome="error")
        .links("step join", to=["event Done", "event Done"])
        .tree(TREE)
        .well_formed()
    )


def test_a_tree_has_events_where_one_is_asked_for(trace: Trace) -> None:
    trace.tree("""
        invoke_workflow Adds
          event StartEvent
          step begin
            event Done
            event Done
          step join collecting
          step join
            chat scripted
    """)


def test_a_span_that_is_missing_is_told_with_the_nearest_and_the_tree(trace: Trace) -> None:
    assert said(trace, "has", "step", name="jion", outcome="ok", attributes={"shop": 1}) == (
        "there is no 'step jion', with outcome 'ok', with shop 1\n"
        "nearest is 'step join': it is 'step join', it has no shop\n"
        "the trace is\n"
        "  invoke_workflow Adds\n"
        "    event StartEvent\n"
        "    step begin\n"
        "      event Done\n"
        "      event Done\n"
        "    step join collecting\n"
        "    step join\n"
        "      chat scripted"
    )


@pytest.mark.parametrize(
    ("wanted", "nearest"),
    [
        ({"outcome": "error"}, "nearest is 'chat scripted': its outcome is 'ok'"),
        ({"parent": "step begin"}, "nearest is 'chat scripted': it is in 'step join'"),
        ({"parent": ""}, "nearest is 'chat scripted': it is in 'step join'"),
        ({"attributes": {"gen_ai.request.model": "big"}}, "its gen_ai.request.model is 'scripted'"),
    ],
)
def test_what_the_nearest_lacks_is_told(trace: Trace, wanted: dict[str, Any], nearest: str) -> None:
    assert nearest in said(trace, "has", "chat", **wanted)


def test_another_number_is_told(trace: Trace) -> None:
    assert said(trace, "has", "step", name="join", count=3).startswith("there are 2, not 3: 'step join'\nthe trace is")
    assert said(trace, "has", "step", name="x", count=3).startswith("there is no 'step x'\nnearest is")


def test_a_span_that_should_not_be_is_told(trace: Trace) -> None:
    assert said(trace, "has_no", "chat").startswith("there is a span that should not be: 'chat'\nthe trace is")
    assert said(trace, "has_no", "step").startswith("there is a span that should not be, 3 times: 'step'\n")


def test_another_tree_is_told_line_by_line(trace: Trace) -> None:
    assert said(trace, "tree", TREE.replace("scripted", "tiny")) == (
        "the trace is another one; - should be there, + is there:\n"
        "    invoke_workflow Adds\n"
        "      step begin\n"
        "      step join collecting\n"
        "      step join\n"
        "  -     chat tiny\n"
        "  +     chat scripted"
    )


def test_other_links_are_told(trace: Trace) -> None:
    told = said(trace, "links", "step join", to=["event Done"] * 3)
    assert told.startswith(
        "there is no 'step join' that links to ['event Done', 'event Done', 'event Done']; they link"
    )
    assert "to ['event Done', 'event Done']" in told
    assert said(trace, "links", "step x", to=[]).startswith("there is no 'step x' that links to []\nthe trace is")


def test_a_trace_without_spans_says_so() -> None:
    assert said(assert_trace([]), "has", "step") == "there is no 'step'\nthere are no spans"
    assert_trace([]).has_no("step").tree("").well_formed()


async def test_a_span_that_is_not_as_it_should_be_is_told() -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("mine").start_as_current_span("step x"):
        pass
    (span,) = map(record_of, exporter.get_finished_spans())
    assert_trace([span]).well_formed()  # it is not ours
    ours = replace(span, scope="agentflow")
    assert "span 'step x': it lacks" in said(assert_trace([ours]), "well_formed")


async def test_spans_may_come_from_an_exporter_or_a_receiver() -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    add_observer(SpanObserver(provider))
    with OtlpReceiver() as receiver:
        with setup(endpoint=receiver.http_endpoint):
            await Adds().run()
        receiver.wait_for(8)
        for source in (exporter, receiver, list(exporter.get_finished_spans()), receiver.spans):
            assert_trace(source).has("step join", outcome="collecting").links("step join", to=["event Done"] * 2)


async def test_what_is_recorded_is_what_starts_in_the_block() -> None:
    with recorded_trace(content="none", events="links") as trace:
        await Adds().run()
        trace.has("step", name="begin").has_no("event")
        trace.has_no("chat", attributes={"input.value": ...})
    many = len(trace.spans)
    await Adds().run()
    assert len(trace.spans) == many
    assert str(trace) == dedent(TREE).strip()


def test_a_run_that_is_still_open_at_the_end_of_the_block_is_in_the_trace() -> None:
    async def main() -> Trace:
        with recorded_trace() as trace:
            handler = Adds().run()
        await handler.cancel_run()
        return trace

    asyncio.run(main()).has("invoke_workflow", outcome="cancelled")


@pytest.mark.parametrize(
    ("span", "outcome", "says"),
    [
        (
            "step",
            "errror",
            "outcome 'errror': there is no such outcome. Did you mean \"error\"? Choose from: ok, error,",
        ),
        ("stepp", None, "span 'stepp': there is no such span. Did you mean \"step\"?"),
        ("excute_tool add", None, 'Did you mean "execute_tool"?'),
    ],
)
def test_what_is_misspelt_is_an_error_and_no_success(span: str, outcome: str | None, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        assert_trace([]).has_no(span, outcome=outcome)


def test_a_span_of_the_users_own_may_have_any_name() -> None:
    assert_trace([]).has_no("my span").has_no("render")


def test_what_has_no_spans_is_refused() -> None:
    with pytest.raises(TypeError, match=r"assert_trace\(None\).*Give it an OtlpReceiver"):
        assert_trace(None)
