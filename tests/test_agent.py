"""What all agents share: text in pieces, thoughts apart, outputs that are corrected, histories, options."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from pydantic import BaseModel

import typing_agents
from agentflow import Context, Event, Handler, HumanResponseEvent, InputRequiredEvent, WorkflowTimeoutError, step
from agentflow.clock import use_clock
from agentflow.testing import FakeClock
from agentflow_agents import (
    Agent,
    AgentConfigurationError,
    AgentInput,
    AgentResult,
    ApprovalRequired,
    FunctionAgent,
    TextDelta,
    Thought,
    Tool,
    ToolCall,
    Withdrawn,
    tool,
)
from agentflow_llm import (
    ChatCall,
    ChatMemory,
    ChatMessage,
    Delta,
    LLMConnectionError,
    LLMOutputError,
    ReasoningPart,
    RefusalPart,
    Reply,
    ScriptedModel,
    TextPart,
    ToolCallPart,
    Usage,
)


class City(BaseModel):
    name: str
    people: int


def look() -> str:
    """Look around."""
    return "nothing"


def said(*parts: Any, usage: Usage | None = None) -> Reply:
    return Reply(message=ChatMessage(role="assistant", content=parts), usage=usage or Usage())


async def followed(handler: Handler[Any]) -> list[Event]:
    return [event async for event in handler.stream_events()]


def texts(events: list[Event], kind: type[TextDelta | Thought] = TextDelta) -> list[str]:
    return [event.text for event in events if isinstance(event, kind)]


async def test_text_comes_in_pieces_where_somebody_follows() -> None:
    with ScriptedModel(["It is five o'clock."]) as model:
        events = await followed(FunctionAgent(llm=model).run("x"))
    assert texts(events) == ["It ", "is ", "five ", "o'clock."]
    assert model.calls[0].streamed


async def test_text_comes_in_pieces_to_a_follower_in_a_task_of_its_own() -> None:
    with ScriptedModel(["It is five o'clock."]) as model:
        handler = FunctionAgent(llm=model).run("x")
        follower = asyncio.create_task(followed(handler))
        assert texts(await follower) == ["It ", "is ", "five ", "o'clock."]


async def test_text_stands_in_the_stream_as_one_piece_where_nobody_followed() -> None:
    with ScriptedModel(["It is five o'clock."]) as model:
        handler = FunctionAgent(llm=model, name="clock").run("x")
        await handler
        later = [event async for event in handler.subscribe(after=0)]
    assert later[0] == TextDelta(text="It is five o'clock.", agent="clock")
    assert not model.calls[0].streamed


async def test_who_follows_the_run_around_an_agent_follows_the_agent() -> None:
    async def ask() -> str:
        """Ask somebody else."""
        return str(await FunctionAgent(llm=ScriptedModel(["It is five."]), name="inner").run("x"))

    call = ToolCallPart(id="1", name="ask", arguments="{}")
    events = await followed(FunctionAgent([ask], ScriptedModel([call, "Five."]), name="outer").run("x"))
    spoken = [(event.agent, event.text) for event in events if isinstance(event, TextDelta)]
    assert spoken == [("inner", "It "), ("inner", "is "), ("inner", "five."), ("outer", "Five.")]


@pytest.mark.parametrize("live", [True, False])
async def test_a_thought_is_never_part_of_the_answer(live: bool) -> None:  # noqa: FBT001 because it is a parameter of the test
    thinking = said(ReasoningPart(text="Hm, well."), TextPart(text="Five."))
    with ScriptedModel([thinking]) as model:
        handler = FunctionAgent(llm=model).run("x")
        if not live:
            await handler
        events = await followed(handler)
    assert ("".join(texts(events, Thought)), "".join(texts(events))) == ("Hm, well.", "Five.")
    assert (await handler).output == "Five."


async def test_a_stream_does_not_end_at_the_text_before_a_call() -> None:
    with ScriptedModel([["Let me look.", ToolCallPart(id="1", name="look", arguments="{}")], "Nothing."]) as model:
        handler = FunctionAgent([look], model).run("x")
        events = await followed(handler)
    assert "".join(texts(events)) == "Let me look.Nothing."
    assert sum(isinstance(event, ToolCall) for event in events) == 1
    assert (await handler).output == "Nothing."


async def test_usage_is_the_same_in_pieces() -> None:
    usage = Usage(input_tokens=10, output_tokens=5, cached_tokens=4, reasoning_tokens=3, http_requests=1)
    results: list[AgentResult] = []
    for live in (True, False):
        call = said(ToolCallPart(id="1", name="look", arguments="{}"), usage=usage)
        handler = FunctionAgent([look], ScriptedModel([call, said(TextPart(text="x"), usage=usage)])).run("x")
        if live:
            await followed(handler)
        results.append(await handler)
    assert results[0].usage == results[1].usage == usage + usage


async def test_a_follower_that_leaves_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    class Slow(ScriptedModel):
        async def deltas(self, call: ChatCall) -> AsyncGenerator[Delta | Reply]:
            async for item in super().deltas(call):
                await asyncio.sleep(0)
                yield item

    before = asyncio.all_tasks()
    with caplog.at_level(logging.WARNING), Slow(["one two three four"]) as model:
        handler = FunctionAgent(llm=model).run("x")
        stream = handler.stream_events()
        assert isinstance(await anext(stream), TextDelta)
        await asyncio.create_task(stream.aclose())
        assert str(await handler) == "one two three four"
    assert asyncio.all_tasks() == before
    assert caplog.records == []


async def test_a_stream_that_breaks_fails_the_run_and_leaves_nothing_in_the_memory() -> None:
    class Broken(ScriptedModel):
        async def deltas(self, call: ChatCall) -> AsyncGenerator[Delta | Reply]:
            yield Delta(text="It ")
            raise LLMConnectionError("The connection broke.")

    memory = ChatMemory()
    handler = FunctionAgent(llm=Broken([]), memory=memory).run("x")
    events = await followed(handler)
    assert texts(events) == ["It "]
    with pytest.raises(LLMConnectionError, match="The connection broke"):
        await handler
    assert await memory.aget() == []


@pytest.mark.parametrize("live", [True, False])
async def test_an_output_that_is_not_valid_goes_back_to_the_model_in_a_turn(live: bool) -> None:  # noqa: FBT001 because it is a parameter of the test
    replies = ['{"name": "Graz"}', "Graz has 302660.", '{"name": "Graz", "people": 302660}']
    with ScriptedModel(replies) as model:
        handler = FunctionAgent(llm=model, output=City).run("x")
        if live:
            await followed(handler)
        result = await handler
    assert result.output == City(name="Graz", people=302660)
    assert str(result) == replies[2]
    told = [message.text for message in result.messages if message.role == "user"][1:]
    assert told == [
        "The JSON object is not valid: people: Field required.",
        "The answer is no JSON object. Answer with the JSON object alone.",
    ]


async def test_who_follows_is_told_that_an_answer_is_given_anew() -> None:
    with ScriptedModel(['{"name": "Graz"}', '{"name": "Graz", "people": 3}']) as model:
        events = await followed(FunctionAgent(llm=model, output=City, name="clerk").run("x"))
    withdrawn = events.index(Withdrawn(agent="clerk"))
    assert "".join(texts(events[:withdrawn])) == '{"name": "Graz"}'
    assert "".join(texts(events[withdrawn:])) == '{"name": "Graz", "people": 3}'


async def test_an_answer_of_a_tool_is_shown_like_any_answer() -> None:
    direct = Tool(look, return_direct=True)
    with ScriptedModel([ToolCallPart(id="1", name="look", arguments="{}")]) as model:
        events = await followed(FunctionAgent([direct], model).run("x"))
    assert texts(events) == ["nothing"]


async def test_an_answer_of_a_tool_is_not_mixed_with_what_a_model_is_told() -> None:
    @tool(return_direct=True, requires_approval=True)
    def pay(euros: int) -> str:
        """Pay."""
        return f"{euros} paid"

    with ScriptedModel([ToolCallPart(id="1", name="pay", arguments='{"euros": 9}')]) as model:
        handler = FunctionAgent([pay], model).run("x")
        async for event in handler.stream_events():
            if isinstance(event, ApprovalRequired):
                handler.ctx.send_event(event.approve({"euros": 5}))
        assert str(await handler) == "5 paid"


async def test_an_agent_may_have_steps_and_a_state_of_its_own() -> None:
    class Parrot(Agent):
        @step
        async def repeat(self, ctx: Context, ev: AgentInput) -> InputRequiredEvent:
            await ctx.set("query", ev.query)
            return InputRequiredEvent()

        @step
        async def answer(self, ctx: Context, ev: HumanResponseEvent) -> AgentResult:
            return AgentResult(output=await ctx.get("query"), messages=[], usage=Usage(), stopped_by="answer")

    handler = Parrot().run("Hello?")
    await handler.until_asked()
    stored = handler.ctx.to_json()
    await handler.cancel_run()
    again = Parrot()
    handler = again.run(ctx=Context.from_json(again, stored))
    assert again.approvals(handler.ctx) == []
    handler.ctx.send_event(HumanResponseEvent())
    assert str(await handler) == "Hello?"


async def test_tools_may_keep_things_in_the_state_of_a_run() -> None:
    async def note(name: str, ctx: Context) -> str:
        """Note something."""
        await ctx.store.set("names", [*await ctx.get("names", []), name])
        return "noted"

    @tool(requires_approval=True)
    def wait() -> str:
        """Wait."""
        return "waited"

    def script() -> list[Any]:
        return [ToolCallPart(id=n, name="note", arguments=f'{{"name": "{n}"}}') for n in ("ann", "bob")]

    agent = FunctionAgent([note, wait], ScriptedModel([*script(), ToolCallPart(id="3", name="wait", arguments="{}")]))
    handler = agent.run("x")
    async for event in handler.stream_events():
        if isinstance(event, ApprovalRequired):
            break
    stored = handler.ctx.to_json()
    await handler.cancel_run()
    agent = FunctionAgent([note, wait], ScriptedModel(["done"]))
    handler = agent.run(ctx=Context.from_json(agent, stored))
    assert await handler.ctx.get("names") == ["ann", "bob"]
    [question] = agent.approvals(handler.ctx)
    async for event in handler.stream_events():
        if isinstance(event, ApprovalRequired):
            assert event == question
            handler.ctx.send_event(event.approve())
    assert str(await handler) == "done"
    assert agent.approvals(handler.ctx) == []


async def test_who_approves_with_wrong_arguments_is_asked_once_more() -> None:
    @tool(requires_approval=True)
    def pay(euros: int) -> str:
        """Pay."""
        return f"{euros} paid"

    with ScriptedModel([ToolCallPart(id="1", name="pay", arguments='{"euros": 9}'), "done"]) as model:
        handler = FunctionAgent([pay], model).run("x")
        answers: list[dict[str, Any] | None] = [{"euro": 5}, {"euros": 5}]
        problems: list[str] = []
        async for event in handler.stream_events():
            if isinstance(event, ApprovalRequired):
                problems.append(event.problem)
                handler.ctx.send_event(event.approve(answers.pop(0)))
    assert problems[0] == ""
    assert "euros: is missing" in problems[1]
    contents = [part.content for message in (await handler).messages for part in message.tool_results]
    assert contents == ['(A person changed the arguments of this call to {"euros": 5})\n\n5 paid']


async def test_an_output_that_never_is_valid_is_an_error() -> None:
    with ScriptedModel(["no"] * 3) as model, pytest.raises(LLMOutputError, match="no JSON object"):
        await FunctionAgent(llm=model, output=City).run("x")


async def test_tools_come_before_the_output() -> None:
    with ScriptedModel([ToolCallPart(id="1", name="look", arguments="{}"), '{"name": "x", "people": 1}']) as model:
        result = await FunctionAgent([look], model, output=City).run("x")
    assert result.output == City(name="x", people=1)


async def test_a_model_that_declines_gives_no_output() -> None:
    with ScriptedModel([said(RefusalPart(text="I will not."))]) as model:
        result = await FunctionAgent(llm=model, output=City).run("x")
    assert (result.output, str(result), result.stopped_by) == (None, "I will not.", "answer")


async def test_a_tool_may_return_the_output_directly() -> None:
    @tool(return_direct=True)
    def find(people: int | None = None) -> dict[str, Any]:
        """Find a city."""
        return {"name": "Graz"} if people is None else {"name": "Graz", "people": people}

    first = ToolCallPart(id="1", name="find", arguments="{}")
    second = ToolCallPart(id="2", name="find", arguments='{"people": 3}')
    with ScriptedModel([first, second]) as model:
        result = await FunctionAgent([find], model, output=City).run("x")
    assert (result.output, result.stopped_by) == (City(name="Graz", people=3), "tool")
    assert result.messages[-1].role == "assistant"


async def test_the_caller_may_keep_the_conversation() -> None:
    memory = ChatMemory()
    await memory.aput(ChatMessage(role="user", content="What was said elsewhere."))
    with ScriptedModel(["Hello Ada.", "Ada."]) as model:
        agent = FunctionAgent(llm=model, memory=memory, system_prompt="")
        first = await agent.run("I am Ada.", history=[])
        second = await agent.run("Who am I?", history=first.messages)
    assert [message.text for message in model.calls[1].messages] == ["I am Ada.", "Hello Ada.", "Who am I?"]
    assert [message.text for message in second.messages] == ["Who am I?", "Ada."]


async def test_time_out_and_verbose_are_options_of_the_constructor(capsys: pytest.CaptureFixture[str]) -> None:
    async def hang() -> None:
        """Never end."""
        await asyncio.Event().wait()

    with use_clock(FakeClock()) as clock, ScriptedModel([ToolCallPart(id="1", name="hang", arguments="{}")]) as model:
        handler = FunctionAgent([hang], model, timeout=30, verbose=True).run("x")
        await clock.advance(31)
        with pytest.raises(WorkflowTimeoutError):
            await handler
    assert "Step call_model produced event ToolCall" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [3, "City", int, dict])
def test_an_output_that_is_no_model_is_refused(wrong: Any) -> None:
    with pytest.raises(AgentConfigurationError, match="it must be a pydantic model"):
        FunctionAgent(output=wrong)


async def test_what_users_write_is_typed() -> None:
    await typing_agents.use()
    await asyncio.to_thread(typing_agents.use_sync)
