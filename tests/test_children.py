"""Agents as tools of other agents: answers, limits, cancellation, and what a person is asked, however deep."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import BaseModel

from agentflow import (
    Context,
    Event,
    Handler,
    HumanResponseEvent,
    InputRequiredEvent,
    WorkflowCancelledByUser,
    step,
)
from agentflow.clock import use_clock
from agentflow.observe import add_observer
from agentflow.testing import FakeClock, record
from agentflow_agents import (
    Agent,
    AgentConfigurationError,
    AgentInput,
    AgentResult,
    Approval,
    ApprovalRequired,
    Budget,
    FunctionAgent,
    tool,
)
from agentflow_agents.team import Team
from agentflow_instrumentation import SpanObserver
from agentflow_llm import ChatMemory, ChatMessage, LLMUnavailableError, Reply, ScriptedModel, ToolCallPart, Usage
from agentflow_llm.scripted import Piece
from agentflow_llm.wire import render_messages
from test_integrity import check_messages


def call(call_id: str, name: str, **arguments: Any) -> ToolCallPart:
    return ToolCallPart(id=call_id, name=name, arguments=json.dumps(arguments))


def ask(call_id: str = "p1", name: str = "clerk", query: str = "do it") -> ToolCallPart:
    return call(call_id, name, query=query)


def outcomes(result: AgentResult) -> list[tuple[str, str, str]]:
    return [(p.call_id, p.content, p.outcome) for message in result.messages for p in message.tool_results]


def check(*models: ScriptedModel) -> None:
    for model in models:
        for request in model.calls:
            check_messages(render_messages(request.messages))


class Till:
    """Tools that remember what was done."""

    def __init__(self) -> None:
        self.done: list[str] = []

    async def look(self) -> str:
        """Look around."""
        self.done.append("look")
        return "seen"

    @tool(requires_approval=True)
    async def pay(self, amount: int) -> str:
        """Pay."""
        self.done.append(f"pay {amount}")
        return f"paid {amount}"


def clerk(tools: Sequence[object], model: ScriptedModel, name: str = "clerk", **options: Any) -> FunctionAgent:
    return FunctionAgent(tools, model, name=name, description=f"The {name} does it.", **options)


# what the model is told of an agent, and by it


async def test_an_agent_among_the_tools_is_called_like_one() -> None:
    boss_model, clerk_model = ScriptedModel([ask(query="2 + 2?"), "It is four."]), ScriptedModel(["Four."])
    with boss_model, clerk_model:
        result = await FunctionAgent([clerk([], clerk_model)], boss_model).run("What is 2 + 2?")
    assert outcomes(result) == [("p1", "Four.", "ok")]
    (definition,) = boss_model.calls[0].tools
    assert (definition.name, definition.description, definition.strict) == ("clerk", "The clerk does it.", True)
    assert definition.parameters["required"] == ["query"]
    assert [message.text for message in clerk_model.calls[0].messages[1:]] == ["2 + 2?"]


async def test_name_description_and_the_options_of_a_tool_may_be_given() -> None:
    model, inner = ScriptedModel([ask(name="ask_clerk")]), ScriptedModel(["Four."])
    made = FunctionAgent(llm=inner, name="a clerk").as_tool("ask_clerk", "Calculates.", return_direct=True, timeout=5)
    assert (made.name, made.description, made.timeout, made.return_direct) == ("ask_clerk", "Calculates.", 5, True)
    result = await FunctionAgent([made], model).run("x")
    assert (str(result), result.stopped_by) == ("Four.", "tool")


def test_a_name_that_no_tool_can_have_is_changed() -> None:
    assert FunctionAgent(name="The clerk, upstairs", description="x").as_tool().name == "The_clerk_upstairs"


def test_an_agent_without_a_description_is_no_tool() -> None:
    with pytest.raises(
        AgentConfigurationError, match=r"'clerk' has no description.*FunctionAgent\(\.\.\., description="
    ):
        FunctionAgent([FunctionAgent(name="clerk")])


def test_agents_of_one_name_are_refused() -> None:
    with pytest.raises(AgentConfigurationError, match="two tools are called 'clerk'"):
        FunctionAgent([FunctionAgent(name="clerk", description="x"), FunctionAgent(name="clerk", description="y")])


def test_one_agent_in_place_of_a_list_is_refused() -> None:
    with pytest.raises((AgentConfigurationError, TypeError)):
        FunctionAgent(FunctionAgent(name="clerk", description="x"))  # type: ignore[arg-type]  # because that is tested


@pytest.mark.parametrize("arguments", ['{"query": 3}', "{}", '{"query": ["x"]}'])
async def test_a_query_that_is_no_text_is_told(arguments: str) -> None:
    wrong = ToolCallPart(id="p1", name="clerk", arguments=arguments)
    with ScriptedModel([wrong, "Sorry."]) as model, ScriptedModel([]) as inner:
        result = await FunctionAgent([clerk([], inner)], model).run("x")
    ((_, content, outcome),) = outcomes(result)
    assert (outcome, "query" in content) == ("error", True)


class City(BaseModel):
    name: str
    people: int


async def test_an_output_is_told_as_json() -> None:
    with ScriptedModel([ask(), "Graz."]) as model, ScriptedModel([City(name="Graz", people=302_660)]) as inner:
        result = await FunctionAgent([clerk([], inner, output=City)], model).run("x")
    assert outcomes(result) == [("p1", '{"name":"Graz","people":302660}', "ok")]


async def test_what_an_agent_has_at_its_limit_is_told_with_a_sentence_that_says_so() -> None:
    turns: list[Any] = [["I have looked once.", call("c1", "look")]]
    with ScriptedModel([ask(), "Once."]) as model, ScriptedModel(turns) as inner:
        result = await FunctionAgent([clerk([Till().look], inner, budget=Budget(turns=1))], model).run("x")
    expected = "I have looked once.\n\n(This may be incomplete: clerk was stopped at its limit of turns.)"
    assert (outcomes(result), result.stopped_by) == ([("p1", expected, "ok")], "answer")


async def test_an_output_that_was_made_at_the_limit_is_told_as_json_as_well() -> None:
    budget = Budget(turns=1, last_answer=True)
    turns: list[Any] = [call("c1", "look"), City(name="Graz", people=1)]
    with ScriptedModel([ask(), "Graz."]) as model, ScriptedModel(turns) as inner:
        result = await FunctionAgent([clerk([Till().look], inner, output=City, budget=budget)], model).run("x")
    assert outcomes(result)[0][1].startswith('{"name":"Graz","people":1}\n\n(This may be incomplete')


async def test_an_agent_that_fails_is_a_failed_tool() -> None:
    turns = [LLMUnavailableError("no answer")]
    with ScriptedModel([ask(), "Sorry."]) as model:
        result = await FunctionAgent([clerk([], ScriptedModel(turns, retry=None))], model).run("x")
    ((_, content, outcome),) = outcomes(result)
    assert (content.split(":")[0], outcome) == ("The tool failed", "error")


async def test_an_agent_with_a_memory_remembers_from_call_to_call() -> None:
    inner, memory = ScriptedModel(["One.", "Two."]), ChatMemory()
    with ScriptedModel([ask("p1", query="a"), ask("p2", query="b"), "done"]) as model, inner:
        await FunctionAgent([clerk([], inner, memory=memory)], model).run("x")
    assert [message.text for message in inner.calls[1].messages[1:]] == ["a", "One.", "b"]


# one trace, one stream, one budget, one cancellation


async def test_the_child_is_in_the_trace_of_its_call() -> None:
    model, inner = ScriptedModel([ask(), "done"]), ScriptedModel([call("c1", "look"), "seen"])
    with model, inner, record() as seen:
        await FunctionAgent([clerk([Till().look], inner)], model, name="boss").run("x")
    boss, child = seen.find("run")
    assert (boss.agent, child.agent) == ("boss", "clerk")
    called = next(op for op in seen.find("tool") if op.name == "clerk")
    assert seen.children(called) == [child]
    assert seen.open() == []


async def test_events_of_the_child_are_in_the_parents_stream_under_its_name() -> None:
    with ScriptedModel([ask(), "done"]) as model, ScriptedModel([call("c1", "look"), "seen"]) as inner:
        handler = FunctionAgent([clerk([Till().look], inner)], model, name="boss").run("x")
        shown = [event async for event in handler.stream_events()]
    assert [(type(event).__name__, event.get("agent")) for event in shown] == [
        ("ToolCall", "boss"),
        ("ToolCall", "clerk"),
        ("ToolResult", "clerk"),
        ("TextDelta", "clerk"),
        ("ToolResult", "boss"),
        ("TextDelta", "boss"),
        ("AgentResult", None),
    ]


def reply(piece: Piece, tokens: int = 10) -> Reply:
    content = piece if isinstance(piece, str) else (piece,)
    usage = Usage(input_tokens=tokens - 1, output_tokens=1, http_requests=1)
    return Reply(message=ChatMessage(role="assistant", content=content), usage=usage, model="gpt-x")


@pytest.mark.parametrize(("budget", "limit"), [(Budget(turns=2), "turns"), (Budget(tokens=15), "tokens")])
async def test_what_the_child_spends_is_the_parents(budget: Budget, limit: str) -> None:
    inner = ScriptedModel([reply(call(f"c{n}", "look")) for n in range(5)])
    result = await FunctionAgent([clerk([Till().look], inner)], ScriptedModel([reply(ask())]), budget=budget).run("x")
    assert (result.stopped_by, result.usage.total_tokens, len(inner.calls)) == (limit, 20, 1)
    assert f"clerk was stopped at its limit of {limit}" in outcomes(result)[0][1]


async def test_an_agent_that_a_plain_function_asks_in_its_thread_spends_from_the_same_budget() -> None:
    inner = ScriptedModel([reply(call(f"c{n}", "look")) for n in range(5)])
    asked = clerk([Till().look], inner)

    def ask_clerk() -> str:
        """Ask the clerk."""
        return str(asked.run_sync("do it").stopped_by)

    model = ScriptedModel([reply(call("p1", "ask_clerk"))])
    result = await FunctionAgent([ask_clerk], model, budget=Budget(turns=3)).run("x")
    assert (result.stopped_by, result.usage.total_tokens) == ("turns", 30)
    assert outcomes(result) == [("p1", "turns", "ok")]


async def test_cancelling_the_parent_ends_its_children_and_leaves_no_task() -> None:
    began = asyncio.Event()

    async def hang() -> None:
        """Hang."""
        began.set()
        await asyncio.Event().wait()

    before = asyncio.all_tasks()
    memory = ChatMemory()
    inner = ScriptedModel([call("c1", "look"), call("c2", "hang"), "again"])
    boss = FunctionAgent([clerk([hang, Till().look], inner, memory=memory)], ScriptedModel([ask(), "fine"]))
    with record() as seen:
        handler = boss.run("x")
        await began.wait()
        await handler.cancel_run()
        with pytest.raises(WorkflowCancelledByUser):
            await handler
    assert asyncio.all_tasks() == before
    assert ([op.outcome for op in seen.find("run")], seen.open()) == (["cancelled", "cancelled"], [])
    assert [message.role for message in await memory.aget()] == ["user", "assistant", "tool"]
    assert str(await boss.run("y", ctx=handler.ctx)) == "fine"


async def test_a_child_that_takes_too_long_is_cancelled_and_the_run_goes_on() -> None:
    async def hang() -> None:
        """Hang."""
        await asyncio.Event().wait()

    with use_clock(FakeClock()) as clock, ScriptedModel([ask(), "done"]) as model, record() as seen:
        inner = ScriptedModel([call("c1", "hang")])
        handler = FunctionAgent([clerk([hang], inner).as_tool(timeout=5)], model).run("x")
        await clock.advance(5)
        result = await handler
    assert [(op.agent, op.outcome) for op in seen.find("run")] == [("FunctionAgent", "ok"), ("clerk", "cancelled")]
    assert outcomes(result) == [("p1", "The tool failed: TimeoutError: it did not end within 5 s", "timeout")]


# what a child asks a person


def questions(events: Sequence[Event]) -> list[ApprovalRequired]:
    return [event for event in events if isinstance(event, ApprovalRequired)]


async def until_asked(handler: Handler[AgentResult], count: int = 1) -> list[ApprovalRequired]:
    """The questions on the stream, as soon as there are so many."""
    found: list[ApprovalRequired] = []
    async for event in handler.stream_events():
        found += questions([event])
        if len(found) == count:
            break
    return found


async def test_the_question_of_a_child_is_answered_through_the_parents_handler() -> None:
    till = Till()
    inner = ScriptedModel([call("c0", "look"), call("c1", "pay", amount=3), "I have paid."])
    with ScriptedModel([ask(), "done"]) as model, inner:
        handler = FunctionAgent([clerk([till.look, till.pay], inner)], model).run("x")
        (question,) = await until_asked(handler)
        assert (question.call_id, question.agent, question.tool) == ("p1/c1", "clerk", "pay")
        assert question.arguments == {"amount": 3}
        assert till.done == ["look"]
        handler.ctx.send_event(question.approve())
        rest = [event async for event in handler.stream_events()]
        result = await handler
    assert questions(rest) == []
    assert (till.done, outcomes(result)) == (["look", "pay 3"], [("p1", "I have paid.", "ok")])


async def test_refusals_and_other_arguments_reach_the_child() -> None:
    till = Till()
    inner = ScriptedModel([[call("c1", "pay", amount=3), call("c2", "pay", amount=4)], "done there"])
    with ScriptedModel([ask(), "done"]) as model, inner:
        handler = FunctionAgent([clerk([till.pay], inner)], model).run("x")
        first, second = await until_asked(handler, 2)
        handler.ctx.send_event(second.approve({"amount": 5}))
        handler.ctx.send_event(first.refuse("Too dear."))
        await handler
    assert till.done == ["pay 5"]
    told = [part.content for part in inner.calls[1].messages[-1].tool_results]
    assert told == [
        "A person was asked, and refused this call. Too dear.",
        '(A person changed the arguments of this call to {"amount": 5})\n\npaid 5',
    ]


async def test_questions_of_one_child_are_answered_one_by_one() -> None:
    till = Till()
    inner = ScriptedModel([[call("c1", "pay", amount=3), call("c2", "pay", amount=4)], "done there"])
    with ScriptedModel([ask(), "done"]) as model, inner:
        handler = FunctionAgent([clerk([till.pay], inner)], model).run("x")
        first, second = await until_asked(handler, 2)
        handler.ctx.send_event(second.approve())
        assert await handler.until_asked() == []
        assert till.done == ["pay 4"]
        handler.ctx.send_event(first.approve())
        await handler
    assert till.done == ["pay 4", "pay 3"]
    check(model, inner)


async def test_an_answer_that_comes_while_the_child_works_on_another_is_brought_to_it_then() -> None:
    began, go_on = asyncio.Event(), asyncio.Event()
    paid: list[int] = []

    @tool(requires_approval=True)
    async def pay(amount: int) -> str:
        """Pay."""
        began.set()
        await go_on.wait()
        paid.append(amount)
        return "paid"

    inner = ScriptedModel([[call("c1", "pay", amount=3), call("c2", "pay", amount=4)], "done there"])
    with ScriptedModel([ask(), "done"]) as model, inner, record() as seen:
        handler = FunctionAgent([clerk([pay], inner)], model).run("x")
        first, second = await until_asked(handler, 2)
        handler.ctx.send_event(first.approve())
        await began.wait()
        handler.ctx.send_event(second.approve())
        await asyncio.sleep(0)
        assert paid == []
        go_on.set()
        await handler
    assert paid == [3, 4]
    assert [op.outcome for op in seen.find("run") if op.agent == "clerk"] == ["suspended", "ok"]
    put_away, ended = [op for op in seen.find("tool") if op.name == "clerk"]
    assert (put_away.outcome, put_away.result) == ("suspended", None)
    assert (ended.outcome, ended.result.content) == ("ok", "done there")
    check(model, inner)


async def test_several_children_wait_at_once_whatever_ids_their_models_choose() -> None:
    till = Till()
    one = clerk([till.pay], ScriptedModel([call("c1", "pay", amount=1), "1"]), "one")
    two = clerk([till.pay], ScriptedModel([call("c1", "pay", amount=2), "2"]), "two")
    asks = [ask("a", "one"), ask("a/c1", "two"), call("b", "pay", amount=3)]
    with ScriptedModel([asks, "done"]) as model:
        handler = FunctionAgent([one, two, till.pay], model).run("x")
        found = {question.arguments["amount"]: question for question in await until_asked(handler, 3)}
        assert len({question.call_id for question in found.values()} | {"a", "a/c1"}) == 5
        for amount in (2, 3, 1):
            handler.ctx.send_event(found[amount].approve())
            assert await handler.until_asked() == []
            assert till.done[-1] == f"pay {amount}"
        result = await handler
    assert [content for _, content, _ in outcomes(result)] == ["1", "2", "paid 3"]


async def test_the_call_of_the_child_itself_may_need_approval() -> None:
    till = Till()
    with ScriptedModel([ask(), "done"]) as model, ScriptedModel([call("c1", "pay", amount=1), "paid"]) as inner:
        handler = FunctionAgent([clerk([till.pay], inner).as_tool(requires_approval=True)], model).run("x")
        (first,) = await until_asked(handler)
        assert (first.tool, first.call_id) == ("clerk", "p1")
        handler.ctx.send_event(first.approve({"query": "do something else"}))
        (second,) = await until_asked(handler)
        assert (second.tool, second.call_id) == ("pay", "p1/c1")
        handler.ctx.send_event(second.approve())
        told = [content for _, content, _ in outcomes(await handler)]
    assert told == ['(A person changed the arguments of this call to {"query": "do something else"})\n\npaid']
    assert inner.calls[0].messages[-1].text == "do something else"


class House:
    """A boss, whose clerk has a hand, who pays; the models live on when the run is put away."""

    def __init__(self) -> None:
        self.till = Till()
        self.hand_model = ScriptedModel([call("h0", "look"), call("h1", "pay", amount=7), "I paid."])
        self.clerk_model = ScriptedModel([call("c0", "look"), ask("c1", "hand"), "He paid."])
        self.model = ScriptedModel([[ask(), call("p2", "look")], "All is paid."])
        self.memory = ChatMemory()

    def boss(self) -> FunctionAgent:
        hand = clerk([self.till.look, self.till.pay], self.hand_model, "hand")
        middle = clerk([self.till.look, hand], self.clerk_model)
        return FunctionAgent([middle, self.till.look], self.model, self.memory, name="boss")

    def check(self, result: AgentResult) -> None:
        assert Counter(self.till.done) == {"look": 3, "pay 7": 1}
        assert outcomes(result) == [("p1", "He paid.", "ok"), ("p2", "seen", "ok")]
        for model in (self.hand_model, self.clerk_model, self.model):
            model.assert_done()
            check(model)


async def test_a_child_of_a_child_asks_through_both() -> None:
    house = House()
    handler = house.boss().run("pay")
    (question,) = await until_asked(handler)
    assert (question.call_id, question.agent) == ("p1/c1/h1", "hand")
    handler.ctx.send_event(question.approve())
    house.check(await handler)


async def test_a_parent_that_is_put_away_while_its_child_waits_goes_on_without_doing_anything_again() -> None:
    house = House()
    handler = house.boss().run("pay")
    (question,) = await until_asked(handler)
    for _ in range(3):  # from one process to the next, with nobody answering
        await handler.until_asked()
        text = handler.ctx.to_json()
        await handler.cancel_run()
        boss = house.boss()
        handler = boss.run(ctx=Context.from_json(boss, text))
    handler.ctx.send_event(Approval.model_validate_json(question.approve().model_dump_json()))
    house.check(await handler)


async def test_a_parent_that_is_put_away_with_an_answer_on_its_way_brings_it_to_the_child() -> None:
    house = House()
    handler = house.boss().run("pay")
    (question,) = await until_asked(handler)
    await handler.until_asked()
    handler.ctx.send_event(question.approve())
    while not (await handler.ctx.get("children"))["p1"].called:  # noqa: ASYNC110 because not one turn more may pass
        await asyncio.sleep(0)
    text = handler.ctx.to_json()
    await handler.cancel_run()
    house.till.done = ["look"] * 3  # what was done by then
    boss = house.boss()
    house.check(await boss.run(ctx=Context.from_json(boss, text)))


async def test_a_run_step_by_step_hands_out_the_question_of_a_child() -> None:
    house = House()
    handler = house.boss().run("pay", stepwise=True)
    while produced := await handler.run_step():
        for event in produced:
            handler.ctx.send_event(event)
            if isinstance(event, ApprovalRequired):
                assert event.call_id == "p1/c1/h1"
                handler.ctx.send_event(event.approve())
    house.check(await handler)


async def test_the_child_that_waits_is_suspended_and_its_call_goes_on_in_the_same_trace() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    add_observer(SpanObserver(provider))
    house = House()
    handler = house.boss().run("pay")
    (question,) = await until_asked(handler)
    handler.ctx.send_event(question.approve())
    await handler
    spans = sorted(exporter.get_finished_spans(), key=lambda span: span.start_time or 0)
    by_id = {span.context.span_id: span for span in spans if span.context is not None}
    agents = [span for span in spans if span.name.startswith("invoke_agent")]

    def above(span: ReadableSpan) -> list[str]:
        names = []
        while span.parent is not None:
            span = by_id[span.parent.span_id]
            names.append(span.name)
        return names

    called = ["execute_tool clerk", "step call_tool", "invoke_agent boss"]
    deeper = ["execute_tool hand", "step call_tool", "invoke_agent clerk", *called]
    assert [(span.name, dict(span.attributes or {})["agentflow.outcome"], above(span)) for span in agents] == [
        ("invoke_agent boss", "ok", []),
        ("invoke_agent clerk", "suspended", called),
        ("invoke_agent hand", "suspended", deeper),
        ("invoke_agent clerk", "ok", called),
        ("invoke_agent hand", "ok", deeper),
    ]
    assert len({span.context.trace_id for span in spans if span.context is not None}) == 1
    assert not any(span.status.status_code.name == "ERROR" for span in spans)


async def test_the_time_that_a_person_takes_is_nobodys() -> None:
    till = Till()
    with use_clock(FakeClock()) as clock, ScriptedModel([ask(), "done"]) as model:
        inner = clerk([till.pay], ScriptedModel([call("c1", "pay", amount=1), "paid"]), budget=Budget(seconds=10))
        handler = FunctionAgent([inner.as_tool(timeout=20)], model, budget=Budget(seconds=30)).run("x")
        (question,) = await handler.until_asked()
        assert isinstance(question, ApprovalRequired)
        await clock.advance(3600)
        handler.ctx.send_event(question.approve())
        result = await handler
    assert (result.stopped_by, till.done) == ("answer", ["pay 1"])


async def test_the_clock_goes_on_when_the_answer_has_come() -> None:
    async def hang() -> None:
        """Hang."""
        await asyncio.Event().wait()

    till = Till()
    with use_clock(FakeClock()) as clock:
        inner = clerk([till.pay, hang], ScriptedModel([call("c1", "pay", amount=1), call("c2", "hang")]))
        handler = FunctionAgent([inner], ScriptedModel([ask()]), budget=Budget(seconds=30)).run("x")
        (question,) = await handler.until_asked()
        assert isinstance(question, ApprovalRequired)
        await clock.advance(3600)
        handler.ctx.send_event(question.approve())
        await clock.advance(29)
        assert not handler.is_done()
        await clock.advance(1)
        assert (await handler).stopped_by == "seconds"


async def test_a_call_that_goes_on_counts_once() -> None:
    till = Till()
    inner = ScriptedModel([call("c1", "pay", amount=1), "paid"])
    with ScriptedModel([ask(), "done"]) as model, inner:
        handler = FunctionAgent([clerk([till.pay], inner)], model, budget=Budget(tool_calls=2)).run("x")
        (question,) = await until_asked(handler)
        handler.ctx.send_event(question.approve())
        assert (await handler).stopped_by == "answer"
    assert till.done == ["pay 1"]


async def test_a_child_that_has_one_place_leaves_it_while_it_waits() -> None:
    till = Till()
    inner = clerk([till.pay], ScriptedModel([call("c1", "pay", amount=1)] * 2 + ["paid"] * 2), num_concurrent_runs=1)
    with ScriptedModel([[ask("p1"), ask("p2")], "done"]) as model:
        handler = FunctionAgent([inner], model).run("x")
        for question in await until_asked(handler, 2):
            handler.ctx.send_event(question.approve())
        await handler
    assert till.done == ["pay 1", "pay 1"]


async def test_an_answer_to_nobody_says_who_waits(caplog: pytest.LogCaptureFixture) -> None:
    till = Till()
    inner = ScriptedModel([call("c1", "pay", amount=1), "paid"])
    with caplog.at_level(logging.WARNING):
        agent = FunctionAgent([clerk([till.pay], inner)], ScriptedModel([ask(), "done"]))
        handler = agent.run("x")
        (question,) = await until_asked(handler)
        assert agent.approvals(handler.ctx) == [question]
        handler.ctx.send_event(Approval(call_id="c1", approved=True))
        await handler.until_asked()
        handler.ctx.send_event(question.approve())
        handler.ctx.send_event(question.approve())
        await handler
    assert re.search(r"an Approval of 'c1' was ignored.*Waiting: 'p1/c1'", caplog.text)
    assert re.search(r"an Approval of 'p1/c1' was ignored.*Waiting: none", caplog.text)
    assert till.done == ["pay 1"]


async def test_a_team_that_is_a_tool_asks_through_its_caller() -> None:
    till = Till()
    first = FunctionAgent(llm=ScriptedModel([call("c1", "hand_over_to_payer", message="Pay.")]), name="first")
    payer = clerk([till.pay], ScriptedModel([call("c1", "pay", amount=2), "paid"]), "payer")
    team = Team([first, payer], handoffs={"first": ["payer"]}, name="office", description="Pays.")
    with ScriptedModel([ask(name="office"), "done"]) as model:
        handler = FunctionAgent([team], model).run("x")
        (question,) = await until_asked(handler)
        text = handler.ctx.to_json()
        await handler.cancel_run()
        agent = FunctionAgent([team], model)
        handler = agent.run(ctx=Context.from_json(agent, text))
        handler.ctx.send_event(question.approve())
        assert outcomes(await handler) == [("p1", "paid", "ok")]
    assert till.done == ["pay 2"]


class Sum(InputRequiredEvent):
    """A question that is no approval."""


class Said(HumanResponseEvent):
    """Its answer."""


class Curious(Agent):
    """Asks something else."""

    @step
    async def begin(self, ev: AgentInput) -> Sum:
        return Sum()

    @step
    async def end(self, ev: Said) -> AgentResult[str]:
        return AgentResult(output="x", messages=[], usage=Usage(), stopped_by="answer")


async def test_a_question_that_no_approval_answers_is_an_error_that_the_model_is_told() -> None:
    with ScriptedModel([ask(name="curious"), "done"]) as model:
        handler = FunctionAgent([Curious(name="curious", description="Asks.")], model).run("x")
        shown = [event async for event in handler.stream_events()]
        ((_, content, outcome),) = outcomes(await handler)
    assert outcome == "error"
    assert "'curious' is run by another agent and waits for a person, but asks by Sum" in content
    assert not any(isinstance(event, Sum) for event in shown)


class Forgetful(Agent):
    """Has something in its state that cannot be stored, and asks."""

    @step
    async def begin(self, ctx: Context, ev: AgentInput) -> ApprovalRequired:
        await ctx.set("lock", asyncio.Lock())
        return ApprovalRequired(call_id="1", tool="x", arguments={})

    @step
    async def end(self, ev: Approval) -> AgentResult[str]:
        return AgentResult(output="x", messages=[], usage=Usage(), stopped_by="answer")


async def test_a_child_that_cannot_be_put_away_is_an_error_that_the_model_is_told() -> None:
    with ScriptedModel([ask(name="forgetful"), "done"]) as model, record() as seen:
        result = await FunctionAgent([Forgetful(name="forgetful", description="Asks.")], model).run("x")
    ((_, content, outcome),) = outcomes(result)
    assert (outcome, "ContextSerdeError" in content, "lock" in content) == ("error", True, True)
    assert [op.outcome for op in seen.find("run")] == ["ok", "cancelled"]


async def test_a_tool_that_calls_an_agents_tool_by_itself_is_not_that_agent() -> None:
    """Its question is its own: nothing of the function could be put away."""
    till = Till()
    helper = clerk([till.look], ScriptedModel([call("c1", "look"), "seen"])).as_tool()

    async def twice() -> str:
        """Ask it."""
        return str(await helper.invoke('{"query": "look"}'))

    with ScriptedModel([call("p1", "twice"), "done"]) as model:
        assert outcomes(await FunctionAgent([twice], model).run("x")) == [("p1", "seen", "ok")]


# whatever models say and people answer

Plans = list[list[list[tuple[str, int]]]]
plans = st.lists(
    st.lists(
        st.lists(st.tuples(st.sampled_from(["work", "pay", "fail", "clerk", "gone"]), st.integers(0, 3)), max_size=2),
        max_size=2,
    ),
    min_size=3,
    max_size=3,
)

chances = st.integers(0, 10**6).map(Random)
"""All that is left to chance while a run goes on: hypothesis must not break that off."""


class Firm:
    """Three agents, each the tool of the one before; what they say is the same whenever they are asked the same."""

    def __init__(self, planned: Plans) -> None:
        self.done: list[str] = []
        self.models = [ScriptedModel([self._turn(plan)] * 400) for plan in planned]
        self.memories = [ChatMemory() for _ in planned]

    def _turn(self, plan: list[list[tuple[str, int]]]) -> Callable[[Sequence[ChatMessage]], Any]:
        def turn(messages: Sequence[ChatMessage]) -> Any:
            last = max(place for place, message in enumerate(messages) if message.role == "user")
            number = sum(message.role == "assistant" for message in messages[last:])
            if number >= len(plan) or not plan[number]:
                return "Done."
            return [
                ask(f"c{place}") if name == "clerk" else call(f"c{place}", name, n=n)
                for place, (name, n) in enumerate(plan[number])
            ]

        return turn

    def agent(self) -> FunctionAgent:
        async def work(n: int) -> int:
            """Work."""
            for _ in range(n):
                await asyncio.sleep(0)
            self.done.append(f"work {n}")
            return n

        @tool(requires_approval=True)
        async def pay(n: int) -> int:
            """Pay."""
            self.done.append(f"pay {n}")
            return n

        async def fail(n: int) -> None:
            """Fail."""
            raise ValueError(str(n))

        tools: list[Any] = [work, pay, fail]
        agent = clerk(tools, self.models[2])
        agent = clerk([*tools, agent], self.models[1])
        return FunctionAgent([*tools, agent], self.models[0], self.memories[0])

    async def run(self, chance: Random, *, put_away: bool) -> AgentResult:
        handler = self.agent().run("question")
        waiting: list[ApprovalRequired] = []
        while True:
            waiting += questions(await handler.until_asked())
            if handler.is_done():
                assert not waiting
                return await handler
            assert len({question.call_id for question in waiting}) == len(waiting) > 0
            if put_away and chance.random() < 0.5:
                text = json.dumps(handler.put_away())
                agent = self.agent()
                handler = agent.run(ctx=Context.from_json(agent, text))
            chance.shuffle(waiting)
            for _ in range(chance.randint(1, len(waiting))):
                question = waiting.pop()
                approved = question.arguments["n"] != 2
                handler.ctx.send_event(question.approve() if approved else question.refuse("No."))


def without_ids(result: AgentResult) -> list[Any]:
    return [[part.model_dump(exclude={"id", "call_id"}) for part in message.content] for message in result.messages]


@settings(max_examples=60)
@given(plans, chances)
def test_whoever_is_put_away_and_answered_in_whatever_order_does_everything_once(
    planned: Plans, chance: Random
) -> None:
    async def scenario() -> None:
        plain, stored = Firm(planned), Firm(planned)
        expected = await plain.run(chance, put_away=False)
        result = await stored.run(chance, put_away=True)
        assert without_ids(result) == without_ids(expected)
        assert Counter(stored.done) == Counter(plain.done)
        for firm in (plain, stored):
            check(*firm.models)
            check_messages(render_messages(await firm.memories[0].aget()))
        check_messages(render_messages(result.messages))

    asyncio.run(scenario())


async def live(handler: Handler[AgentResult], turns: int, chance: Random) -> tuple[list[ApprovalRequired], str]:
    """So many turns of a run, of which a person sees the stream, and may answer; then it is stored, and ends."""
    unanswered: list[ApprovalRequired] = []

    async def follow() -> None:
        async for event in handler.stream_events():
            if isinstance(event, ApprovalRequired):
                unanswered.append(event)
                if chance.random() < 0.5 and not handler.is_done() and not stored:
                    handler.ctx.send_event(unanswered.pop().approve())

    stored = ""
    following = asyncio.create_task(follow())
    for _ in range(turns):
        await asyncio.sleep(0)
    stored = handler.ctx.to_json()
    await handler.cancel_run()
    await following
    return unanswered, stored


@settings(max_examples=80)
@given(plans, st.integers(1, 120), st.integers(1, 60), chances)
def test_whoever_is_put_away_at_any_moment_goes_on_and_nobody_is_asked_in_vain(
    planned: Plans, first: int, then: int, chance: Random
) -> None:
    async def scenario() -> None:
        firm = Firm(planned)
        handler = firm.agent().run("question")
        waiting: list[ApprovalRequired] = []
        for turns in (first, then):
            more, stored = await live(handler, turns, chance)
            if json.loads(stored)["ended"]:
                return
            waiting += more
            agent = firm.agent()
            handler = agent.run(ctx=Context.from_json(agent, stored))
        while True:
            waiting += questions(await handler.until_asked())
            if handler.is_done():
                break
            assert waiting
            for question in waiting:
                handler.ctx.send_event(question.approve())
            waiting.clear()
        check_messages(render_messages((await handler).messages))
        check_messages(render_messages(await firm.memories[0].aget()))
        check(*firm.models)

    asyncio.run(scenario())


@settings(max_examples=60)
@given(plans, st.integers(0, 40), chances)
def test_whoever_is_cancelled_leaves_whole_conversations_and_no_task(
    planned: Plans, turns: int, chance: Random
) -> None:
    async def scenario() -> None:
        firm = Firm(planned)
        agent = firm.agent()
        handler = agent.run("question")
        for _ in range(turns):
            await asyncio.sleep(0)
        await handler.cancel_run()
        await asyncio.sleep(0)  # a task that had no turn yet has one now, and ends
        assert asyncio.all_tasks() == {asyncio.current_task()}
        check_messages(render_messages(await firm.memories[0].aget()))
        again = agent.run("again", ctx=handler.ctx)
        while not again.is_done():
            for question in questions(await again.until_asked()):
                again.ctx.send_event(question.approve() if chance.random() < 0.5 else question.refuse())
        check_messages(render_messages((await again).messages))
        check_messages(render_messages(await firm.memories[0].aget()))
        check(*firm.models)

    asyncio.run(scenario())
