"""What the spans of agents tell: what ended a run, what a person was asked and said, which calls no tool executed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import BaseModel

from agentflow import (
    Context,
    Handler,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from agentflow.clock import use_clock
from agentflow.observe import add_observer
from agentflow.testing import FakeClock
from agentflow_agents import AgentResult, ApprovalRequired, Budget, BudgetExceededError, FunctionAgent, tool
from agentflow_agents.team import Team
from agentflow_instrumentation import SpanObserver
from agentflow_instrumentation.content import Content
from agentflow_llm import ChatMessage, ScriptedModel, ToolCallPart

Spans = Callable[[str], list[ReadableSpan]]
LEVELS = pytest.mark.parametrize("content", ["none", "full"])


def watch(content: Content = "none") -> Spans:
    """Make spans from now on; returns those of a name, as they began."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    add_observer(SpanObserver(provider, content=content))
    return lambda name: sorted(
        (span for span in exporter.get_finished_spans() if span.name.startswith(name)),
        key=lambda span: span.start_time or 0,
    )


def told(span: ReadableSpan, prefix: str = "agentflow.agent.") -> dict[str, Any]:
    return {name: value for name, value in (span.attributes or {}).items() if name.startswith(prefix)}


def call(name: str, call_id: str = "1", arguments: str = "{}") -> ToolCallPart:
    return ToolCallPart(id=call_id, name=name, arguments=arguments)


@tool
async def look() -> str:
    """Look around."""
    return "nothing"


@tool(requires_approval=True)
async def pay(amount: int = 1) -> str:
    """Pay."""
    return f"paid {amount}"


async def answered(handler: Handler[AgentResult], *answers: Callable[[ApprovalRequired], Any]) -> AgentResult:
    """The result of a run whose questions are answered in their order."""
    left = list(answers)
    async for event in handler.stream_events():
        if isinstance(event, ApprovalRequired):
            handler.ctx.send_event(left.pop(0)(event))
    return await handler


@LEVELS
async def test_a_run_says_what_ended_it(content: Content) -> None:
    spans = watch(content)

    @tool(return_direct=True)
    def direct() -> str:
        return "at once"

    await FunctionAgent(llm=ScriptedModel(["Done."])).run("x")
    await FunctionAgent([look], ScriptedModel([call("look")]), budget=Budget(turns=1)).run("x")
    await FunctionAgent([direct], ScriptedModel([call("direct")])).run("x")
    await FunctionAgent(llm=ScriptedModel([call("hand_over_to_bill", "1", '{"message": "y"}')])).run(
        "x", handoffs={"bill": "Writes invoices."}
    )
    assert [told(span) for span in spans("invoke_agent")] == [
        {"agentflow.agent.stopped_by": "answer"},
        {"agentflow.agent.stopped_by": "turns", "agentflow.agent.tool_calls.skipped": 1},
        {"agentflow.agent.stopped_by": "tool"},
        {"agentflow.agent.stopped_by": "handoff", "agentflow.agent.handed_over_to": "bill"},
    ]


@LEVELS
async def test_a_run_that_raises_at_its_limit_says_which_it_was(content: Content) -> None:
    spans = watch(content)
    with pytest.raises(BudgetExceededError):
        await FunctionAgent([look], ScriptedModel([call("look")]), budget=Budget(turns=1, raises=True)).run("x")
    [run] = spans("invoke_agent")
    assert told(run)["agentflow.agent.stopped_by"] == "turns"
    assert (run.attributes or {})["error.type"] == "agentflow_agents.errors.BudgetExceededError"


@LEVELS
async def test_the_step_that_asked_a_person_says_so_and_so_does_the_one_that_heard_the_answer(content: Content) -> None:
    spans = watch(content)
    calls = [call("pay", "1"), call("pay", "2"), call("pay", "3")]
    handler = FunctionAgent([pay], ScriptedModel([calls, "Done."])).run("x")
    edit = {"amount": 5}
    await answered(handler, lambda e: e.approve(), lambda e: e.approve(edit), lambda e: e.refuse("Too dear."))
    asked = [told(span, "agentflow.a") for span in spans("step call_tool") if told(span, "agentflow.asked")]
    assert asked == [{"agentflow.asked": ("ApprovalRequired",), "agentflow.approval.tools": ("pay",)}] * 3
    decided = [
        (told(span, "gen_ai.tool.call.id"), told(span, "agentflow.approval"), told(span, "agentflow.tool"))
        for span in spans("step decide")
    ]
    assert decided == [
        ({"gen_ai.tool.call.id": "1"}, {"agentflow.approval.answer": "approved"}, {}),
        ({"gen_ai.tool.call.id": "2"}, {"agentflow.approval.answer": "edited"}, {}),
        (
            {"gen_ai.tool.call.id": "3"},
            {"agentflow.approval.answer": "refused"},
            {"agentflow.tool.outcome": "refused"},
        ),
    ]
    [run] = spans("invoke_agent")
    assert told(run) == {"agentflow.agent.stopped_by": "answer", "agentflow.agent.tool_calls.refused": 1}


async def test_nothing_of_what_was_asked_goes_out_where_content_does_not() -> None:
    spans = watch("none")
    handler = FunctionAgent([pay], ScriptedModel([call("pay", "1", '{"amount": 471147114711}'), "Done."])).run("secret")
    await answered(handler, lambda e: e.refuse("secret reason"))
    text = " ".join(str(dict(span.attributes or {})) for span in spans(""))
    assert "refused" in text
    assert "471147114711" not in text
    assert "secret" not in text


@LEVELS
async def test_a_call_that_no_tool_had_a_result_for_says_what_became_of_it(content: Content) -> None:
    async def hang() -> None:
        """Never end."""
        await asyncio.Event().wait()

    spans = watch(content)
    with use_clock(FakeClock()) as clock:
        agent = FunctionAgent(
            [look, hang], ScriptedModel([[call("hang"), call("look", "2")]]), budget=Budget(seconds=5)
        )
        handler = agent.run("x")
        await clock.advance(6)
        assert (await handler).stopped_by == "seconds"
    budget = Budget(tool_calls=1)
    await FunctionAgent([look], ScriptedModel([[call("look"), call("look", "2")], "Done."]), budget=budget).run("x")
    outcomes = [told(span, "agentflow.tool") | told(span, "gen_ai.tool") for span in spans("step call_tool")]
    assert [found for found in outcomes if found] == [
        {"agentflow.tool.outcome": "timeout", "gen_ai.tool.name": "hang", "gen_ai.tool.call.id": "1"},
        # a model may have made up the name of a call that is not executed
        {"agentflow.tool.outcome": "skipped", "gen_ai.tool.call.id": "2"}
        | ({} if content == "none" else {"gen_ai.tool.name": "look"}),
    ]
    assert [told(span) for span in spans("invoke_agent")] == [
        {"agentflow.agent.stopped_by": "seconds", "agentflow.agent.tool_calls.timed_out": 1},
        {"agentflow.agent.stopped_by": "answer", "agentflow.agent.tool_calls.skipped": 1},
    ]


class City(BaseModel):
    name: str


async def test_a_run_shows_question_and_answer_and_no_dump_of_everything() -> None:
    spans = watch("full")
    said = ChatMessage(role="user", content="What was said before.")
    await FunctionAgent([look], ScriptedModel([call("look"), "Nothing."])).run("What is there?", history=[said])
    await FunctionAgent(llm=ScriptedModel(['{"name": "Graz"}']), output=City).run("Where?")
    await FunctionAgent(
        [look], ScriptedModel([["Let me see.", call("look")]]), output=City, budget=Budget(turns=1)
    ).run("Where?")
    shown = [
        tuple((span.attributes or {})[name] for name in ("input.value", "output.value", "output.mime_type"))
        for span in spans("invoke_agent")
    ]
    assert shown == [
        ("What is there?", "Nothing.", "text/plain"),
        ("Where?", '{"name":"Graz"}', "application/json"),
        ("Where?", "Let me see.", "text/plain"),
    ]
    last = (spans("step answer")[0].attributes or {})["output.value"]
    assert json.loads(str(last)) == {"AgentResult": {"output": "Nothing.", "stopped_by": "answer"}}


@LEVELS
async def test_agents_of_a_team_and_agents_as_tools_are_below_who_ran_them(content: Content) -> None:
    spans = watch(content)
    book = FunctionAgent([look], ScriptedModel([call("look"), "It says so."]), name="book", description="Looks up.")
    bill = FunctionAgent(
        [book], ScriptedModel([call("book", "2", '{"query": "y"}'), "Done."]), name="bill", description="Invoices."
    )
    triage = FunctionAgent(
        llm=ScriptedModel([call("hand_over_to_bill", "1", '{"message": "y"}')]), name="triage", description="First."
    )
    result = await Team([triage, bill], name="desk").run("x")
    assert str(result) == "Done."
    everything = {span.context.span_id: span for span in spans("") if span.context}
    assert len({span.context.trace_id for span in spans("") if span.context}) == 1

    def above(span: ReadableSpan) -> list[str]:
        parent = everything.get(span.parent.span_id) if span.parent else None
        return [*(above(parent) if parent else []), span.name]

    of_bill = ["invoke_agent desk", "step speak", "invoke_agent bill"]
    assert [above(span) for span in spans("invoke_agent")] == [
        ["invoke_agent desk"],
        ["invoke_agent desk", "step speak", "invoke_agent triage"],
        of_bill,
        [*of_bill, "step call_tool", "execute_tool book", "invoke_agent book"],
    ]
    if content == "full":
        triaged = spans("invoke_agent triage")[0].attributes or {}
        assert (triaged["input.value"], triaged["output.value"]) == ("x", '{"to":"bill","message":"y"}')
    assert [told(span)["agentflow.agent.stopped_by"] for span in spans("invoke_agent")] == [
        "answer",
        "handoff",
        "answer",
        "answer",
    ]


async def test_a_run_that_waits_for_a_person_elsewhere_and_goes_on_says_both() -> None:
    spans = watch()
    agent = FunctionAgent([pay], ScriptedModel([call("pay"), "Done."]))
    handler = agent.run("x")
    asked = None
    async for event in handler.stream_events():
        if isinstance(event, ApprovalRequired):
            asked = event
            break
    assert asked is not None
    stored = handler.ctx.to_dict()
    await handler.cancel_run()
    again = agent.run(ctx=Context.from_dict(agent, stored))
    again.ctx.send_event(asked.approve())
    assert str(await again) == "Done."
    assert [((span.attributes or {})["agentflow.outcome"], told(span)) for span in spans("invoke_agent")] == [
        ("suspended", {}),
        ("ok", {"agentflow.agent.stopped_by": "answer"}),
    ]


class Asks(Workflow):
    @step
    async def ask(self, ev: StartEvent) -> InputRequiredEvent:
        return InputRequiredEvent(prefix="How many?")

    @step
    async def again(self, ev: HumanResponseEvent) -> InputRequiredEvent | StopEvent:
        if ev.response == "none":
            raise LookupError
        return StopEvent(result="Thanks.") if ev.response == "one" else InputRequiredEvent(prefix="Really?")


@pytest.mark.parametrize(
    ("content", "answer", "expected"),
    [
        ("full", "one", [("{}", "How many?"), ("one", "Thanks.")]),
        ("full", "two", [("{}", "How many?"), ("two", "Really?"), (None, None)]),  # the end is told, too
        ("full", "none", [("{}", "How many?"), ("none", None)]),
        ("none", "one", [(None, None), (None, None)]),
    ],
)
async def test_a_run_that_pauses_shows_the_question_and_one_that_goes_on_the_answer(
    content: Content, answer: str, expected: list[Any]
) -> None:
    spans = watch(content)
    with use_clock(FakeClock()) as clock:
        handler = Asks().run()
        await clock.advance(Asks.pause_grace + 1)
        handler.ctx.send_event(HumanResponseEvent(response=answer))
        await clock.advance(Asks.pause_grace + 1)
        await handler.cancel_run()
    shown = [[(span.attributes or {}).get(f"{way}put.value") for way in ("in", "out")] for span in spans("invoke_w")]
    assert shown == [list(one) for one in expected]


async def test_a_run_that_pauses_after_the_answer_shows_no_question() -> None:
    class Waits(Workflow):
        @step
        async def ask(self, ev: StartEvent) -> InputRequiredEvent:
            return InputRequiredEvent(prefix="How many?")

        @step
        async def wait(self, ctx: Context, ev: HumanResponseEvent) -> StopEvent:
            await ctx.wait_for_event(HumanResponseEvent)
            return StopEvent()

    spans = watch("full")
    with use_clock(FakeClock()) as clock:
        handler = Waits().run()
        await clock.settle()
        handler.ctx.send_event(HumanResponseEvent(response="one"))
        await clock.advance(Waits.pause_grace + 1)
        await handler.cancel_run()
    run = spans("invoke_w")[0]
    assert (run.attributes or {})["agentflow.outcome"] == "suspended"
    assert "output.value" not in (run.attributes or {})


async def test_a_step_of_an_agent_shows_the_question_without_the_conversation_before_it() -> None:
    spans = watch("full")
    said = ChatMessage(role="user", content="What was said before.")
    await FunctionAgent(llm=ScriptedModel(["Nothing."])).run("What is there?", history=[said])
    [prepare] = spans("step prepare")
    assert json.loads(str((prepare.attributes or {})["input.value"])) == {"query": "What is there?"}


async def test_a_workflows_own_history_is_shown() -> None:
    class Own(Workflow):
        @step
        async def one(self, ev: StartEvent) -> StopEvent:
            return StopEvent()

    spans = watch("full")
    await Own().run(history=["a", "b"])
    for name in ("invoke_w", "step one"):
        [span] = spans(name)
        assert json.loads(str((span.attributes or {})["input.value"])) == {"history": ["a", "b"]}
