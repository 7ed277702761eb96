"""What a run may spend: each limit ends it with what there is, alone and together with the agents that it calls."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import threading
from typing import Any

import pytest

from agentflow import Context, Handler, WorkflowCancelledByUser
from agentflow.clock import use_clock
from agentflow.testing import FakeClock
from agentflow_agents import (
    AgentConfigurationError,
    AgentResult,
    ApprovalRequired,
    Budget,
    BudgetExceededError,
    FunctionAgent,
    Spending,
    ToolResult,
    tool,
)
from agentflow_agents.budget import Accounts
from agentflow_llm import (
    ChatCall,
    ChatMemory,
    ChatMessage,
    LLMUnavailableError,
    Reply,
    ScriptedModel,
    TextPart,
    ToolCallPart,
    Usage,
)


def call(call_id: str, name: str = "look", arguments: str = "{}") -> ToolCallPart:
    return ToolCallPart(id=call_id, name=name, arguments=arguments)


def look() -> str:
    """Look around."""
    return "nothing"


def reply(*parts: TextPart | ToolCallPart, tokens: int = 10, cost: float | None = None) -> Reply:
    usage = Usage(input_tokens=tokens - 1, output_tokens=1, http_requests=1, cost=cost)
    return Reply(message=ChatMessage(role="assistant", content=parts), usage=usage, model="gpt-x")


def told(result: AgentResult) -> list[tuple[str, str]]:
    return [(p.call_id, p.outcome) for message in result.messages for p in message.tool_results]


async def waited_for(handler: Handler[AgentResult], clock: FakeClock) -> AgentResult:
    waiting = asyncio.ensure_future(_awaited(handler))
    while not waiting.done():
        await clock.advance(1)
    return waiting.result()


async def _awaited(handler: Handler[AgentResult]) -> AgentResult:
    return await handler


async def test_turns() -> None:
    with ScriptedModel([call("1"), call("2")]) as model:
        result = await FunctionAgent([look], model, budget=Budget(turns=2)).run("x")
    assert (result.stopped_by, told(result)) == ("turns", [("1", "ok"), ("2", "skipped")])


async def test_an_agent_has_twenty_turns_of_its_own_where_nobody_says() -> None:
    with ScriptedModel([call(str(n), arguments="{}") for n in range(20)]) as model:
        result = await FunctionAgent([look], model, budget=Budget(tokens=10**9)).run("x")
    assert (result.stopped_by, len(told(result))) == ("turns", 20)


async def test_tokens() -> None:
    turns = [reply(call("1"), tokens=60), reply(call("2"), tokens=60)]
    with ScriptedModel(turns) as model:
        result = await FunctionAgent([look], model, budget=Budget(tokens=100)).run("x")
    assert (result.stopped_by, told(result)) == ("tokens", [("1", "ok"), ("2", "skipped")])
    assert result.usage.total_tokens == 120


async def test_an_answer_that_crosses_a_limit_is_an_answer() -> None:
    with ScriptedModel([reply(TextPart(text="42"), tokens=600)]) as model:
        result = await FunctionAgent(llm=model, budget=Budget(tokens=100)).run("x")
    assert (result.stopped_by, result.output) == ("answer", "42")


async def test_tokens_are_estimated_where_the_server_does_not_count_them() -> None:
    with ScriptedModel([call("1"), call("2")]) as model:
        result = await FunctionAgent([look], model, budget=Budget(tokens=200)).run("word " * 60)
    assert (result.stopped_by, result.usage.total_tokens) == ("tokens", None)
    assert told(result) == [("1", "ok"), ("2", "skipped")]


async def test_cost() -> None:
    with ScriptedModel([reply(call("1"), cost=0.06), reply(call("2"), cost=0.06)]) as model:
        result = await FunctionAgent([look], model, budget=Budget(cost=0.1)).run("x")
    assert (result.stopped_by, told(result)) == ("cost", [("1", "ok"), ("2", "skipped")])
    assert result.usage.cost == pytest.approx(0.12)


async def test_an_unknown_price_ends_a_run_whose_cost_is_limited(caplog: pytest.LogCaptureFixture) -> None:
    with ScriptedModel([reply(call("1"))]) as model, caplog.at_level(logging.WARNING):
        result = await FunctionAgent([look], model, budget=Budget(cost=0.1)).run("x")
    assert (result.stopped_by, told(result)) == ("cost", [("1", "skipped")])
    assert "the price of 'gpt-x' is unknown" in caplog.text
    assert len(caplog.records) == 1


async def test_what_nobody_was_paid_for_costs_nothing() -> None:
    with ScriptedModel([call("1"), "done"]) as model:
        result = await FunctionAgent([look], model, budget=Budget(cost=0.1)).run("x")
    assert result.stopped_by == "answer"


async def test_tool_calls_beyond_the_limit_are_skipped_and_the_model_may_still_answer() -> None:
    with ScriptedModel([[call("1"), call("2"), call("3")], "done"]) as model:
        result = await FunctionAgent([look], model, budget=Budget(tool_calls=2)).run("x")
    assert (result.stopped_by, told(result)) == ("answer", [("1", "ok"), ("2", "ok"), ("3", "skipped")])


async def test_a_model_that_asks_for_more_tools_than_there_may_be_is_stopped() -> None:
    with ScriptedModel([[call("1"), call("2")], call("3")]) as model:
        result = await FunctionAgent([look], model, budget=Budget(tool_calls=2)).run("x")
    assert (result.stopped_by, told(result)) == ("tool_calls", [("1", "ok"), ("2", "ok"), ("3", "skipped")])


async def test_a_tool_that_takes_too_long_is_stopped() -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    async def look() -> str:
        return "nothing"  # in no thread: the clock would not wait for it

    with use_clock(FakeClock()) as clock, ScriptedModel([[call("1", "hang"), call("2")]]) as model:
        begun = clock.monotonic()
        handler = FunctionAgent([hang, look], model, budget=Budget(seconds=60)).run("x")
        result = await waited_for(handler, clock)
        assert clock.monotonic() - begun == pytest.approx(60, abs=2)
    assert (result.stopped_by, told(result)) == ("seconds", [("1", "timeout"), ("2", "ok")])


class Slow(ScriptedModel):
    """Never answers, once it has said what it was told to say."""

    def __init__(self, *turns: Any) -> None:
        super().__init__(turns)
        self.most = len(turns)

    async def answer(self, call: ChatCall) -> Reply:
        if len(self.calls) >= self.most:
            await asyncio.Event().wait()
        return await super().answer(call)


async def test_a_model_that_takes_too_long_is_stopped() -> None:
    with use_clock(FakeClock()) as clock:
        handler = FunctionAgent([look], Slow(), budget=Budget(seconds=60)).run("x")
        result = await waited_for(handler, clock)
    assert (result.stopped_by, result.output, len(result.messages)) == ("seconds", "", 1)


async def test_time_in_which_a_person_thinks_is_not_counted() -> None:
    @tool(requires_approval=True)
    def pay() -> str:
        return "paid"

    with use_clock(FakeClock()) as clock, ScriptedModel([call("1", "pay"), "done"]) as model:
        agent = FunctionAgent([pay], model, budget=Budget(seconds=60))
        handler = agent.run("x")
        async for event in handler.stream_events():
            if isinstance(event, ApprovalRequired):
                await clock.advance(3600)
                handler.ctx.send_event(event.approve())
        assert (await handler).stopped_by == "answer"


async def test_time_goes_on_where_it_was_when_a_run_was_put_away() -> None:
    async def slow() -> str:
        await clock.sleep(40)
        return "done"

    @tool(requires_approval=True)
    def pay() -> str:
        return "paid"

    with use_clock(FakeClock()) as clock:
        agent = FunctionAgent(
            [slow, pay], ScriptedModel([call("1", "slow"), call("2", "pay")]), budget=Budget(seconds=60)
        )
        handler = agent.run("x")
        asked: ApprovalRequired | None = None
        stream = handler.stream_events()
        while asked is None:
            waiting = asyncio.ensure_future(anext(stream))
            while not waiting.done():
                await clock.advance(1)
            event = waiting.result()
            asked = event if isinstance(event, ApprovalRequired) else None
        stored = handler.ctx.to_json()
        await handler.cancel_run()
        await clock.advance(1000)
        agent = FunctionAgent([slow, pay], ScriptedModel([call("3", "slow")]), budget=Budget(seconds=60))
        handler = agent.run(ctx=Context.from_json(agent, stored))
        handler.ctx.send_event(asked.approve())
        result = await waited_for(handler, clock)
    assert (result.stopped_by, told(result)) == ("seconds", [("1", "ok"), ("2", "ok"), ("3", "timeout")])


async def test_time_that_a_model_took_until_a_run_was_stored_is_counted() -> None:
    with use_clock(FakeClock()) as clock:
        handler = FunctionAgent([look], Slow(), budget=Budget(seconds=60)).run("x")
        for _ in range(40):
            await clock.advance(1)
        stored = handler.ctx.to_json()
        await handler.cancel_run()
        with pytest.raises(WorkflowCancelledByUser):
            await handler
        await clock.advance(1000)
        begun = clock.monotonic()
        agent = FunctionAgent([look], Slow(), budget=Budget(seconds=60))
        result = await waited_for(agent.run(ctx=Context.from_json(agent, stored)), clock)
        assert clock.monotonic() - begun == pytest.approx(20, abs=2)
    assert result.stopped_by == "seconds"


@pytest.mark.parametrize(
    ("budget", "ended"),
    [
        (Budget(seconds=60, last_answer=True), 120),
        (Budget(seconds=60, turns=1, last_answer=True), 120),
        (Budget(seconds=2, last_answer=True), 7),
    ],
)
async def test_a_last_answer_that_never_comes_is_not_waited_for(
    budget: Budget, ended: float, caplog: pytest.LogCaptureFixture
) -> None:
    with use_clock(FakeClock()) as clock:
        begun = clock.monotonic()
        model = Slow() if budget.turns is None else Slow(["Let me see.", call("1")])
        result = await waited_for(FunctionAgent([look], model, budget=budget).run("x"), clock)
        assert clock.monotonic() - begun == pytest.approx(ended, abs=3)
    assert result.stopped_by == ("seconds" if budget.turns is None else "turns")
    assert "has no last answer: it took too long" in caplog.text


async def test_last_answer_is_asked_for_without_tools() -> None:
    memory = ChatMemory()
    with ScriptedModel([call("1"), "As far as I know, nothing."]) as model:
        budget = Budget(turns=1, last_answer=True)
        result = await FunctionAgent([look], model, memory, budget=budget).run("x")
    assert (result.stopped_by, result.output) == ("turns", "As far as I know, nothing.")
    assert [m.role for m in result.messages] == ["user", "assistant", "tool", "user", "assistant"]
    assert "limit of turns" in result.messages[3].text
    assert await memory.aget() == result.messages
    assert model.calls[1].tools == ()


async def test_a_last_answer_that_calls_tools_all_the_same_calls_none() -> None:
    with ScriptedModel([call("1"), ["Let me see.", call("2")]]) as model:
        result = await FunctionAgent([look], model, budget=Budget(turns=1, last_answer=True)).run("x")
    assert (result.output, told(result)) == ("Let me see.", [("1", "skipped")])


async def test_a_last_answer_that_the_model_cannot_give_costs_no_work(caplog: pytest.LogCaptureFixture) -> None:
    memory, budget = ChatMemory(), Budget(turns=1, last_answer=True)
    with ScriptedModel([["Let me see.", call("1")], LLMUnavailableError("busy")]) as model:
        result = await FunctionAgent([look], model, memory, budget=budget).run("x")
    assert (result.stopped_by, result.output, told(result)) == ("turns", "Let me see.", [("1", "skipped")])
    assert await memory.aget() == result.messages
    assert "has no last answer: busy" in caplog.text


async def test_an_error_is_raised_where_it_was_asked_for_and_has_the_result() -> None:
    agent = FunctionAgent([look], ScriptedModel([call("1")]), budget=Budget(turns=1, raises=True), name="clerk")
    with pytest.raises(BudgetExceededError, match="'clerk' reached its limit of turns") as caught:
        await agent.run("x")
    assert isinstance(caught.value.result, AgentResult)
    assert told(caught.value.result) == [("1", "skipped")]


@pytest.mark.parametrize(
    ("budget", "stopped_by"),
    [(Budget(turns=3), "turns"), (Budget(tokens=25), "tokens"), (Budget(cost=0.25), "cost")],
)
async def test_what_an_agent_spends_that_is_called_counts(budget: Budget, stopped_by: str) -> None:
    inner: list[AgentResult] = []

    async def ask_colleague() -> str:
        """Ask a colleague."""
        inner.append(await FunctionAgent([look], colleague).run("y"))
        return str(inner[-1])

    colleague = ScriptedModel([reply(call(f"c{n}"), cost=0.1) for n in range(5)])
    chief = ScriptedModel([reply(call("1", "ask_colleague"), cost=0.1)])
    result = await FunctionAgent([ask_colleague], chief, budget=budget).run("x")
    assert (inner[0].stopped_by, result.stopped_by) == (stopped_by, stopped_by)
    assert (inner[0].usage.total_tokens, result.usage.total_tokens) == (20, 30)
    assert (told(inner[0]), told(result)) == ([("c0", "ok"), ("c1", "skipped")], [("1", "ok")])


async def test_tools_that_an_agent_calls_that_is_called_count() -> None:
    inner: list[AgentResult] = []

    def ask_colleague() -> str:
        """Ask a colleague, from a thread."""
        inner.append(FunctionAgent([look], colleague).run_sync("y"))
        return str(inner[-1])

    colleague = ScriptedModel([call("c1"), call("c2")])
    chief = ScriptedModel([call("1", "ask_colleague"), "done"])
    result = await FunctionAgent([ask_colleague], chief, budget=Budget(tool_calls=2)).run("x")
    assert (inner[0].stopped_by, told(inner[0])) == ("tool_calls", [("c1", "ok"), ("c2", "skipped")])
    assert (result.stopped_by, told(result)) == ("answer", [("1", "ok")])


def test_nothing_is_lost_of_what_agents_in_threads_spend() -> None:
    spending = Spending()
    accounts = Accounts(Budget(), spending)

    def spend(thread: int) -> None:
        for number in range(1_000):
            accounts.heard(reply(TextPart(text="x"), tokens=1), [])
            accounts.take_tool_call(f"{thread}/{number}")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=spend, args=(thread,)) for thread in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert (spending.turns, spending.usage.total_tokens, spending.tool_calls) == (4_000,) * 3


async def test_runs_side_by_side_spend_each_its_own() -> None:
    agent = FunctionAgent([look], ScriptedModel([call(str(n)) for n in range(4)]), budget=Budget(turns=2))
    results = await asyncio.gather(agent.run("x"), agent.run("y"))
    assert [(result.stopped_by, len(told(result))) for result in results] == [("turns", 2)] * 2


async def test_a_conversation_that_goes_on_spends_anew() -> None:
    agent = FunctionAgent([look], ScriptedModel([call("1"), call("2"), call("3"), "done"]), budget=Budget(turns=2))
    handler = agent.run("x")
    first = await handler
    second = await agent.run("go on", ctx=handler.ctx)
    assert (first.stopped_by, second.stopped_by) == ("turns", "answer")


async def test_the_same_call_with_the_same_result_is_told_to_the_model_at_the_third_time() -> None:
    answers = iter(["a", "a", "b", "a"])

    def find(place: str, depth: int) -> str:
        """Find something."""
        return next(answers)

    texts = ['{"place": "x", "depth": 1}', '{"depth":1,"place":"x"}']
    calls = [call(str(n), "find", texts[n % 2]) for n in range(4)]
    with ScriptedModel([*calls, "done"]) as model:
        handler = FunctionAgent([find], model).run("x")
        shown = [event.content async for event in handler.stream_events() if isinstance(event, ToolResult)]
    contents = [part.content for message in (await handler).messages for part in message.tool_results]
    assert contents[:3] == ["a", "a", "b"]
    assert re.match(r"a\n\n\(You have made this very call 3 times", contents[3])
    assert shown == contents


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"turns": 0}, "Budget(turns=0): it must be a whole number of 1 or more, or None for no limit."),
        ({"turns": 1.5}, "Budget(turns=1.5): it must be a whole number of 1 or more"),
        ({"turns": True}, "Budget(turns=True): it must be a whole number of 1 or more"),
        ({"tokens": -1}, "Budget(tokens=-1): it must be a whole number of 1 or more"),
        ({"tool_calls": -1}, "Budget(tool_calls=-1): it must be a whole number of 0 or more"),
        ({"cost": 0}, "Budget(cost=0): it must be a number above 0"),
        ({"cost": "1"}, "Budget(cost='1'): it must be a number above 0"),
        ({"seconds": float("nan")}, "Budget(seconds=nan): it must be a number above 0"),
        ({"seconds": float("inf")}, "Budget(seconds=inf): it must be a number above 0"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(AgentConfigurationError, match=re.escape(said)):
        Budget(**options)
