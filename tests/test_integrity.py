"""The rule: every tool call has exactly one result, in the order of the calls, in memory and before a model."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow import Context, Handler, WorkflowCancelledByUser
from agentflow_agents import AgentResult, Budget, FunctionAgent, ToolError
from agentflow_agents.conversation import repaired
from agentflow_llm import ChatMemory, ChatMessage, ScriptedModel, TextPart, ToolCallPart, ToolResultPart
from agentflow_llm.wire import render_messages


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
            assert isinstance(call["function"]["arguments"], str)
            assert call["id"] not in seen, f"two calls have the id {call['id']!r}"
            assert call["id"]
            seen.add(call["id"])
            waiting.append(call["id"])
    assert not waiting, f"{waiting} have no results"


class Tools:
    """Tools that do all that tools do, and one that lets the run be stopped when it has been called so often."""

    def __init__(self, stop_at: int) -> None:
        self.calls = 0
        self.stop_at = stop_at
        self.stopping = asyncio.Event()

    async def _called(self) -> None:
        self.calls += 1
        if self.calls == self.stop_at:
            self.stopping.set()
            await asyncio.Event().wait()

    async def work(self, n: int = 0) -> int:
        await self._called()
        for _ in range(n):
            await asyncio.sleep(0)
        return n

    async def fail(self) -> None:
        await self._called()
        raise ValueError("no")

    async def explain(self) -> None:
        raise ToolError("another way")

    async def hang(self) -> None:
        raise TimeoutError

    async def give_up(self) -> None:
        raise asyncio.CancelledError

    def all(self) -> list[Any]:
        return [self.work, self.fail, self.explain, self.hang, self.give_up]


calls = st.builds(
    ToolCallPart,
    id=st.sampled_from(["", "a", "b", "call_1"]) | st.text(min_size=1, max_size=3),
    name=st.sampled_from(["work", "fail", "explain", "hang", "give_up", "nothing", ""]),
    arguments=st.sampled_from(["{}", "", '{"n": 1}', '{"n": 3}', '{"n": "x"}', '{"n": ', "[]", '{"other": 1}']),
)
turns = st.lists(st.lists(calls | st.just("Let me see."), min_size=1, max_size=5), max_size=4)


def script(planned: list[list[Any]]) -> ScriptedModel:
    """Turns that end at the first without a call; then an answer, as often as one is wanted."""
    return ScriptedModel([*planned, *["Done."] * 3])


async def ended(handler: Handler[AgentResult]) -> AgentResult | None:
    try:
        return await handler
    except WorkflowCancelledByUser:
        return None


def check_model(model: ScriptedModel) -> None:
    for call in model.calls:
        check_messages(render_messages(call.messages))


def check_result(result: AgentResult) -> None:
    check_messages(render_messages(result.messages))


@settings(max_examples=150)
@given(turns, st.integers(1, 4), st.integers(0, 6))
def test_rule_holds_however_a_run_goes_and_ends(planned: list[list[Any]], max_turns: int, stop_at: int) -> None:
    async def scenario() -> None:
        tools, memory, model = Tools(stop_at), ChatMemory(), script(planned)
        agent = FunctionAgent(tools.all(), model, memory, budget=Budget(turns=max_turns))
        handler = agent.run("first question")
        stopper = asyncio.create_task(tools.stopping.wait())
        watched = asyncio.create_task(ended(handler))
        await asyncio.wait([stopper, watched], return_when=asyncio.FIRST_COMPLETED)
        if stopper.done():
            await handler.cancel_run()
        stopper.cancel()
        result = await watched
        tools.stop_at = 0
        assert (result is None) == tools.stopping.is_set()
        if result is not None:
            check_result(result)
        check_messages(render_messages(await memory.aget()))
        goes_on = await agent.run("second question")
        check_result(goes_on)
        check_messages(render_messages(await memory.aget()))
        from_context = await agent.run("third question", ctx=handler.ctx)
        check_result(from_context)
        check_model(model)

    asyncio.run(scenario())


@settings(max_examples=75)
@given(turns, st.integers(1, 6))
def test_rule_holds_when_a_run_is_put_away_and_goes_on(planned: list[list[Any]], stop_at: int) -> None:
    async def scenario() -> None:
        tools, model, memory = Tools(stop_at), script(planned), ChatMemory()
        handler = FunctionAgent(tools.all(), model, memory).run("question")
        stopper = asyncio.create_task(tools.stopping.wait())
        watched = asyncio.create_task(ended(handler))
        await asyncio.wait([stopper, watched], return_when=asyncio.FIRST_COMPLETED)
        if not stopper.done():
            stopper.cancel()
            return
        text = handler.ctx.to_json()
        await handler.cancel_run()
        await watched
        agent = FunctionAgent(Tools(0).all(), model, memory)
        result = await agent.run(ctx=Context.from_json(agent, text))
        assert result.stopped_by == "answer"
        check_result(result)
        check_messages(render_messages(await memory.aget()))
        assert [m.id for m in await memory.aget()] == [m.id for m in result.messages]
        check_model(model)

    asyncio.run(scenario())


messages = st.lists(
    st.one_of(
        st.just(ChatMessage(role="user", content=(TextPart(text="x"),))),
        st.just(ChatMessage(role="assistant", content=(TextPart(text="y"),))),
        st.integers(0, 3).map(lambda count: ["call"] * count),
        st.lists(st.integers(0, 9), min_size=1, max_size=3),
    ),
    max_size=12,
)


@given(messages)
def test_rule_holds_for_any_history_that_a_memory_gives(drawn: list[Any]) -> None:
    history: list[ChatMessage] = []
    count = 0
    for item in drawn:
        if isinstance(item, ChatMessage):
            history.append(item)
        elif item and item[0] == "call":
            parts = tuple(ToolCallPart(id=str(count + i), name="work", arguments="{}") for i in range(len(item)))
            count += len(item)
            history.append(ChatMessage(role="assistant", content=parts))
        else:
            found = tuple(ToolResultPart(call_id=str(n), name="work", content="3") for n in item)
            history.append(ChatMessage(role="tool", content=found))
    check_messages(render_messages(repaired(history)))
