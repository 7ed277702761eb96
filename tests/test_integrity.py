"""The rule: every tool call has exactly one result, in the order of the calls, in memory and before a model.

Runs are drawn with everything that may happen to them, and each request is looked at as OpenAI's servers do it. Then
the same is done with some runs at each turn of the event loop: there they are cancelled, or put away to go on.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from agentflow import Context, Handler, WorkflowCancelledByUser
from agentflow.clock import use_clock
from agentflow.testing import FakeClock
from agentflow_agents import (
    Agent,
    AgentResult,
    Approval,
    Budget,
    BudgetExceededError,
    FunctionAgent,
    Tool,
    ToolCall,
    ToolError,
    ToolResult,
)
from agentflow_agents.react_agent import ReActAgent
from agentflow_agents.team import Team
from agentflow_llm import (
    BaseChatModel,
    ChatCall,
    ChatMemory,
    ChatMessage,
    Delta,
    LLMOutputError,
    LLMUnavailableError,
    Memory,
    Reply,
    ScriptedModel,
    SummaryMemory,
    TextPart,
    ToolCallPart,
    Usage,
)
from agentflow_llm.stream import pieces_of
from agentflow_llm.wire import render_messages

Kind = Literal["function", "react", "team"]
QUESTION = re.compile("question|handed over")


def check_messages(messages: list[dict[str, Any]]) -> None:
    """What OpenAI's servers refuse with status 400, and some that they let pass."""
    waiting: list[str] = []
    seen: set[str] = set()
    for place, message in enumerate(messages):
        if message["role"] == "tool":
            assert waiting, f"message {place} is a tool's, but no call waits for it"
            assert message["tool_call_id"] == waiting.pop(0), f"message {place} answers another call"
            assert isinstance(message["content"], str)
            continue
        assert not waiting, f"message {place} comes before the results of {waiting}"
        assert message["role"] != "system" or place == 0, "the system speaks first or not at all"
        calls = message.get("tool_calls", [])
        assert not calls or message["role"] == "assistant"
        assert calls or isinstance(message["content"], str)
        for call in calls:
            assert call["type"] == "function"
            assert re.fullmatch("[a-zA-Z0-9_-]{1,64}", call["function"]["name"])
            assert isinstance(call["function"]["arguments"], str)
            assert len(call["id"]) <= 40
            assert call["id"] not in seen, f"two calls have the id {call['id']!r}"
            assert call["id"]
            seen.add(call["id"])
            waiting.append(call["id"])
    assert not waiting, f"{waiting} have no results"


def test_checker_finds_what_it_is_to_find() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "work", "arguments": "{}"}}
    asks = {"role": "assistant", "tool_calls": [call]}
    told = {"role": "tool", "tool_call_id": "1", "content": "3"}
    user = {"role": "user", "content": "x"}
    check_messages([user, asks, told])
    wrong: list[list[dict[str, Any]]] = [
        [user, asks],
        [user, asks, user, told],
        [user, told],
        [user, asks, told, told],
        [user, asks, told, asks, told],
        [user, asks, {**told, "tool_call_id": "2"}],
        [user, {**asks, "tool_calls": [{**call, "id": "1" * 41}]}, {**told, "tool_call_id": "1" * 41}],
        [user, {**asks, "tool_calls": [{**call, "function": {"name": "functions.work", "arguments": "{}"}}]}, told],
        [user, {"role": "system", "content": "x"}],
    ]
    for messages in wrong:
        with pytest.raises(AssertionError):
            check_messages(messages)


class City(BaseModel):
    name: str


@dataclass(frozen=True)
class Plan:
    """A run, and what happens to it."""

    turns: list[list[Any]]
    kind: Kind = "function"
    budget: Budget = field(default_factory=Budget)
    decisions: tuple[str, ...] = ("approve",)
    memory: str = "whole"
    output: bool = False
    handoffs: bool = False
    followed: bool = False
    stop_after: int | None = None
    """Turns of the event loop."""
    then: Literal["cancel", "store"] = "cancel"


class Planned(BaseChatModel):
    """Says what is planned for the turn that it is; what that is it reads from the messages alone."""

    def __init__(self, plan: Plan) -> None:
        super().__init__("planned", "planned")
        self._plan = plan
        self.sent: list[list[ChatMessage]] = []
        self.failed: set[int] = set()

    async def answer(self, call: ChatCall) -> Reply:
        self.sent.append(list(call.messages))
        await asyncio.sleep(0)
        return self._reply(call)

    async def deltas(self, call: ChatCall) -> AsyncGenerator[Delta | Reply]:
        self.sent.append(list(call.messages))
        reply = self._reply(call)
        for delta in pieces_of(reply):
            await asyncio.sleep(0)
            yield delta
        yield reply

    def _reply(self, call: ChatCall) -> Reply:
        number = 0
        for message in reversed(call.messages):
            if message.role == "user" and QUESTION.search(message.text):
                break
            number += message.role == "assistant"
        said = self._plan.turns[number] if number < len(self._plan.turns) else self._last()
        usage = Usage(input_tokens=10, output_tokens=5, cost=0.01, http_requests=1)
        failures = [part for part in said if isinstance(part, Exception)]
        if failures and len(self.sent) not in self.failed:
            self.failed |= {len(self.sent), len(self.sent) + 1}  # the next one succeeds
            raise failures[0]
        return Reply(message=ChatMessage(role="assistant", content=self._parts(said, number)), usage=usage)

    def _last(self) -> list[Any]:
        return ['{"name": "Graz"}' if self._plan.output else "Done."]

    def _parts(self, said: Iterable[Any], number: int) -> list[Any]:
        calls = [part for part in said if isinstance(part, ToolCallPart)]
        texts = [part for part in said if isinstance(part, str)]
        if self._plan.kind == "react":
            lines = [f"Action: {call.name}\nAction Input: {call.arguments}" for call in calls]
            return [TextPart(text="\n".join([f"Thought: {number}.", *(lines or [f"Answer: {' '.join(texts)}"])]))]
        return [*(TextPart(text=text) for text in texts), *calls]


class Waiting(ChatMemory):
    """A memory that takes its time."""

    async def put(self, messages: Sequence[ChatMessage]) -> None:
        await asyncio.sleep(0)
        await super().put(messages)
        await asyncio.sleep(0)

    async def get(self, query: str) -> list[ChatMessage]:
        await asyncio.sleep(0)
        return await super().get(query)


async def work(n: int = 0) -> int:
    for _ in range(n):
        await asyncio.sleep(0)
    return n


async def fail() -> None:
    raise ValueError("no")


async def explain() -> None:
    raise ToolError("another way")


async def hang() -> None:
    await asyncio.Event().wait()


async def give_up() -> None:
    raise asyncio.CancelledError


async def direct(n: int = 0) -> str:
    await asyncio.sleep(0)
    return '{"name": "direct"}'


async def ask(n: int = 0) -> str:
    await asyncio.sleep(0)
    return f"asked {n}"


class World:
    """What stays when agents come and go: a model and a memory."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.model = Planned(plan)
        self.memory = self._memory()
        self.answered: set[str] = set()
        self.decisions = cycle(plan.decisions)
        self.current: Agent[Any]

    def _memory(self) -> Memory | None:
        match self.plan.memory:
            case "none":
                return None
            case "small":
                return ChatMemory(token_limit=40)
            case "summary":
                return SummaryMemory(llm=ScriptedModel([lambda _: "They spoke."] * 200), token_limit=120)
            case _:
                return Waiting()

    def agent(self) -> Agent[Any]:
        plan = self.plan
        colleague = FunctionAgent(
            [Tool(ask, requires_approval=True)],
            ScriptedModel([_colleague] * 500),
            name="colleague",
            description="Knows.",
            system_prompt="",
        )
        tools = [work, fail, explain, Tool(hang, timeout=5), give_up, Tool(direct, return_direct=True)]
        options: dict[str, Any] = {
            "tools": [*tools, Tool(ask, requires_approval=True), colleague.as_tool()],
            "llm": self.model,
            "output": City if plan.output else None,
        }
        if plan.kind == "team":
            one = FunctionAgent(**options, name="one", description="First.")
            other = FunctionAgent(**options, name="other", description="Second.")
            self.current = Team([one, other], memory=self.memory, budget=plan.budget, hops=3)
        else:
            kind = ReActAgent if plan.kind == "react" else FunctionAgent
            self.current = kind(**options, memory=self.memory, budget=plan.budget)
        return self.current

    def options(self) -> dict[str, Any]:
        return {"handoffs": {"other": "Knows the rest."}} if self.plan.handoffs and self.plan.kind != "team" else {}

    def decide(self, call_id: str) -> str:
        """What a person decides next, whatever is asked."""
        return next(self.decisions)

    async def questions(self, handler: Handler[Any]) -> list[str]:
        """The approvals that a run waits for."""
        return [question.call_id for question in self.current.approvals(handler.ctx)]

    async def answer(self, handler: Handler[Any], decided: Callable[[str], str]) -> None:
        """What a person does who looks at the run now."""
        for call_id in await self.questions(handler):
            if call_id not in self.answered:
                self.answered.add(call_id)
                match decided(call_id):
                    case "approve":
                        handler.ctx.send_event(Approval(call_id=call_id, approved=True))
                    case "edit":
                        handler.ctx.send_event(Approval(call_id=call_id, approved=True, arguments={"n": 2}))
                    case "spoil":
                        handler.ctx.send_event(Approval(call_id=call_id, approved=True, arguments={"m": []}))
                    case "refuse":
                        handler.ctx.send_event(Approval(call_id=call_id, approved=False, reason="Too dear."))
                    case _:
                        pass  # nobody answers

    async def ended(self, handler: Handler[Any], clock: FakeClock) -> AgentResult[Any] | None:
        """Attend to a run until it has ended."""
        self.answered.clear()
        for turn in range(4_000):
            if handler.is_done():
                break
            await asyncio.sleep(0)
            if turn < 300:
                await self.answer(handler, self.decide)
                continue
            if turn == 300:  # those whom nobody answered
                self.answered.clear()
            await self.answer(handler, approve)
            await clock.advance(1)
        assert handler.is_done(), "the run goes on for ever"
        return await outcome(handler)

    def check(self, result: AgentResult[Any] | None) -> None:
        if result is not None:
            check_messages(render_messages(result.messages))
            assert result.messages[0].role == "user"
        for sent in self.model.sent:
            check_messages(render_messages(sent))


def approve(call_id: str) -> str:
    """What a person decides who has given in."""
    return "approve"


def _colleague(messages: Sequence[ChatMessage]) -> Any:
    if messages[-1].role == "tool":
        return "That is all."
    return [ToolCallPart(id="a", name="ask", arguments="{}"), ToolCallPart(id="b", name="ask", arguments='{"n": 7}')]


async def outcome(handler: Handler[Any]) -> AgentResult[Any] | None:
    """The result, also where it came as an error; None where there is none."""
    found: AgentResult[Any] | None = None
    try:
        found = await handler
    except BudgetExceededError as error:
        found = error.result
    except (WorkflowCancelledByUser, LLMOutputError, LLMUnavailableError):
        pass
    return found


async def shown(handler: Handler[Any]) -> None:
    async for _ in handler.stream_events():
        pass


async def check_stream(handler: Handler[Any], result: AgentResult[Any]) -> None:
    """Each call that was shown has one result that was shown, and is in the conversation with just that."""
    events = [event async for event in handler.subscribe(after=0)]
    asked = [event.call_id for event in events if isinstance(event, ToolCall) and event.agent != "colleague"]
    told = [event for event in events if isinstance(event, ToolResult) and event.agent != "colleague"]
    assert sorted(asked) == sorted(event.call_id for event in told)
    kept = {part.call_id: part.content for message in result.messages for part in message.tool_results}
    assert {event.call_id: event.content for event in told} == kept


@dataclass
class Outcome:
    result: AgentResult[Any] | None
    interrupted: bool
    remembered: list[ChatMessage] = field(default_factory=list[ChatMessage])


async def lived(plan: Plan, *, goes_on: bool = True) -> Outcome:
    """A run as it was planned, and others behind it."""
    world = World(plan)
    clock = FakeClock()
    with use_clock(clock):
        agent = world.agent()
        handler = agent.run("first question", **world.options())
        watching = asyncio.create_task(shown(handler)) if plan.followed else None
        for _ in range(plan.stop_after or 0):
            await asyncio.sleep(0)
            if handler.is_done():
                break
            await world.answer(handler, world.decide)
        interrupted = plan.stop_after is not None and not handler.is_done()
        if interrupted and plan.then == "store":
            text = handler.ctx.to_json()
            await handler.cancel_run()
            assert await outcome(handler) is None
            agent = world.agent()
            handler = agent.run(ctx=Context.from_json(agent, text))
        elif interrupted:
            await handler.cancel_run()
        result = await world.ended(handler, clock)
        if watching is not None:
            await watching
        world.check(result)
        remembered = [] if world.memory is None else await world.memory.aget()
        check_messages(render_messages(remembered))
        if plan.memory == "whole" and result is not None:
            assert [m.id for m in remembered] == [m.id for m in result.messages]
            if not interrupted and plan.kind == "function" and not plan.output:
                await check_stream(handler, result)
        if goes_on:
            from_context = agent.run("second question", ctx=handler.ctx, **world.options())
            world.check(await world.ended(from_context, clock))
            third = agent.run("third question", **world.options())
            world.check(await world.ended(third, clock))
            check_messages(render_messages([] if world.memory is None else await world.memory.aget()))
    return Outcome(result, interrupted, remembered)


names = ["work", "fail", "explain", "hang", "give_up", "direct", "ask", "colleague", "hand_over_to_other", "nothing"]
names += ["multi_tool_use.parallel", "functions.work", ""]
arguments = ["{}", "", '{"n": 1}', '{"n": 3}', '{"n": "x"}', '{"n": ', "[]", '{"other": 1}', '{"query": "Well?"}']
calls = st.builds(
    ToolCallPart,
    id=st.sampled_from(["", "a", "b", "call_1", "c" * 41, "c" * 42]) | st.text(min_size=1, max_size=3),
    name=st.sampled_from(names),
    arguments=st.sampled_from(arguments),
)
failures = st.just(LLMUnavailableError("busy"))
budgets = st.builds(
    Budget,
    turns=st.none() | st.integers(1, 4),
    tokens=st.none() | st.integers(10, 60),
    cost=st.none() | st.sampled_from([0.005, 0.015, 0.025]),
    seconds=st.none() | st.sampled_from([1.0, 7.0]),
    tool_calls=st.none() | st.integers(0, 4),
    last_answer=st.booleans(),
    raises=st.booleans(),
)
decisions = st.lists(st.sampled_from(["approve", "refuse", "edit", "spoil", "never"]), min_size=1, max_size=3).map(
    tuple
)


def plans(kind: Kind) -> st.SearchStrategy[Plan]:
    bounds = budgets.filter(lambda budget: not budget.last_answer) if kind == "team" else budgets
    return st.builds(
        Plan,
        turns=st.lists(st.lists(calls | st.just("Let me see.") | failures, min_size=1, max_size=4), max_size=4),
        kind=st.just(kind),
        budget=st.just(Budget()) | bounds,
        decisions=decisions,
        memory=st.sampled_from(["whole", "none", "small", "summary"]),
        output=st.booleans(),
        handoffs=st.booleans(),
        followed=st.booleans(),
        stop_after=st.none() | st.integers(0, 150),
        then=st.sampled_from(["cancel", "store"]),
    )


@settings(max_examples=120)
@given(plans("function"))
def test_rule_holds_however_a_run_goes_and_ends(plan: Plan) -> None:
    asyncio.run(lived(plan))


@settings(max_examples=75)
@given(plans("react"))
def test_rule_holds_for_models_that_write_their_calls(plan: Plan) -> None:
    asyncio.run(lived(plan))


@settings(max_examples=75)
@given(plans("team"))
def test_rule_holds_in_a_team(plan: Plan) -> None:
    asyncio.run(lived(plan))


def call(name: str, arguments: str = "{}", call_id: str = "") -> ToolCallPart:
    return ToolCallPart(id=call_id, name=name, arguments=arguments)


def plain(messages: Iterable[ChatMessage]) -> list[Any]:
    """What was said, whatever ids it has."""
    return [
        (
            m.role,
            m.text,
            [(c.name, c.arguments) for c in m.tool_calls],
            [(r.content, r.outcome) for r in m.tool_results],
        )
        for m in messages
    ]


SWEPT: dict[str, Plan] = {
    "errors": Plan([[call("work", '{"n": 3}', "a"), call("fail", "{}", "a"), call("nothing")], [call("explain")]]),
    "first of two is direct": Plan([[call("direct"), call("work", '{"n": 3}')]]),
    "second of two is direct": Plan([[call("work", '{"n": 3}'), call("direct")]]),
    "approved": Plan([[call("ask"), call("work", '{"n": 1}')], [call("ask", '{"n": 2}')]]),
    "refused": Plan([[call("ask"), call("work", '{"n": 1}')]], decisions=("refuse", "edit")),
    "a colleague asks": Plan([[call("colleague", '{"query": "Well?"}'), call("ask")]]),
    "turns": Plan([[call("work")], [call("work"), call("fail")]], budget=Budget(turns=2)),
    "tool calls": Plan([[call("work", '{"n": 2}'), call("work"), call("fail")]], budget=Budget(tool_calls=2)),
    "last answer": Plan([[call("work")], [call("work")]], budget=Budget(turns=2, last_answer=True)),
    "output": Plan([[call("work")], ["no"], ['{"name": 3}']], output=True),
    "handoff": Plan([[call("work")], [call("hand_over_to_other"), call("work", '{"n": 3}')]], handoffs=True),
    "followed": Plan([["Let me see.", call("work"), call("ask")]], followed=True),
    "react": Plan([[call("work", '{"n": 3}'), call("ask")], [call("work")]], kind="react"),
    "team": Plan([[call("work", '{"n": 3}'), call("ask")], [call("hand_over_to_other")]], kind="team"),
}


async def swept(plan: Plan, then: Literal["cancel", "store"], every: int) -> None:
    """Interrupt a run at each turn of the loop, until it ends before."""
    undisturbed = await lived(plan, goes_on=False)
    assert undisturbed.result is not None
    expected = plain(undisturbed.result.messages)
    for turn in range(0, 10_000, every):
        found = await lived(replace(plan, stop_after=turn, then=then), goes_on=then == "cancel")
        if not found.interrupted:
            assert turn > 5
            return
        if then == "store":
            assert found.result is not None
            assert (turn, plain(found.result.messages)) == (turn, expected)
            assert found.result.stopped_by == undisturbed.result.stopped_by
            assert (found.result.usage.total_tokens or 0) >= (undisturbed.result.usage.total_tokens or 0)
        else:
            assert (turn, plain(found.remembered)) == (turn, expected[: len(found.remembered)])


def interruptions() -> list[Any]:
    """Each of the runs, and both ways to interrupt it."""
    return [pytest.param(name, then, id=f"{then}-{name}") for name in SWEPT for then in ("cancel", "store")]


@pytest.mark.parametrize(("name", "then"), interruptions())
async def test_rule_holds_wherever_a_run_is_interrupted(name: str, then: Literal["cancel", "store"]) -> None:
    await swept(SWEPT[name], then, every=4)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "then"), interruptions())
async def test_rule_holds_at_every_turn_of_the_loop(name: str, then: Literal["cancel", "store"]) -> None:
    await swept(SWEPT[name], then, every=1)


async def stepped(plan: Plan, *, put_away: bool) -> Outcome:
    """A run one step at a time; with `put_away`, a new agent goes on with each."""
    world = World(plan)
    with use_clock(FakeClock()):
        agent = world.agent()
        handler = agent.run("first question", stepwise=True, **world.options())
        while True:
            produced = await handler.run_step()
            for event in produced or ():
                handler.ctx.send_event(event)
            if handler.is_done():
                break
            await world.answer(handler, world.decide)
            if put_away:
                text = handler.ctx.to_json()
                await handler.cancel_run()
                assert await outcome(handler) is None
                agent = world.agent()
                handler = agent.run(ctx=Context.from_json(agent, text), stepwise=True)
        result = await outcome(handler)
        world.check(result)
        assert world.memory is not None
        return Outcome(result, put_away, await world.memory.aget())


@pytest.mark.parametrize("name", SWEPT)
@pytest.mark.parametrize("put_away", [False, True])
async def test_rule_holds_step_by_step(name: str, put_away: bool) -> None:  # noqa: FBT001 because it is a parameter of the test
    undisturbed = await lived(replace(SWEPT[name], followed=False), goes_on=False)
    found = await stepped(SWEPT[name], put_away=put_away)
    assert undisturbed.result is not None
    assert found.result is not None
    assert plain(found.result.messages) == plain(undisturbed.result.messages)
    assert [m.id for m in found.remembered] == [m.id for m in found.result.messages]
