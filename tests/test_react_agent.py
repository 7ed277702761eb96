"""ReActAgent: an agent for models without tool calling. What it reads is tested in test_reasoning."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from agentflow import Context, WorkflowCancelledByUser
from agentflow_agents import (
    AgentConfigurationError,
    AgentResult,
    ApprovalRequired,
    Budget,
    FunctionAgent,
    TextDelta,
    Thought,
    ToolCall,
    ToolResult,
    UnreadableReplyError,
    tool,
)
from agentflow_agents.react_agent import ReActAgent
from agentflow_agents.reasoning import STOP
from agentflow_llm import (
    ChatMemory,
    ChatMessage,
    Delta,
    LLMBadRequestError,
    LLMOutputError,
    OfflineModel,
    OpenAI,
    ReasoningPart,
    RefusalPart,
    Reply,
    ScriptedModel,
    TextPart,
    ToolCallPart,
    Usage,
)
from agentflow_llm.server import Answer, LoopbackServer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentflow import Handler

WIRE = Path(__file__).parent / "fixtures" / "openai-wire"
MULTIPLY = 'Thought: I multiply.\nAction: multiply\nAction Input: {"a": 2, "b": 3}'
SIX = "Thought: I can answer without using any more tools.\nAnswer: Six."
called: list[tuple[int, int]] = []


@pytest.fixture(autouse=True)
def nothing_called() -> None:
    called.clear()


@tool
async def multiply(a: int, b: int) -> int:
    """Multiply two integers."""
    called.append((a, b))
    return a * b


def now() -> str:
    """The time."""
    return "noon"


def said(messages: Sequence[ChatMessage]) -> list[tuple[str, str]]:
    """What a model was sent, without the system's message."""
    return [(message.role, message.text) for message in messages if message.role != "system"]


async def events_of(handler: Handler[Any]) -> list[Any]:
    return [event async for event in handler.stream_events()]


def text_of(events: Sequence[Any], kind: type[Thought | TextDelta]) -> str:
    return "".join(event.text for event in events if isinstance(event, kind))


def results_of(result: AgentResult) -> list[tuple[str, str]]:
    return [(part.content, part.outcome) for message in result.messages for part in message.tool_results]


async def test_model_writes_in_plain_text_and_the_conversation_has_calls_and_results() -> None:
    with ScriptedModel([MULTIPLY, SIX]) as model:
        result = await ReActAgent([multiply], model).run("What is 2 times 3?")
    assert (str(result), result.stopped_by, called) == ("Six.", "answer", [(2, 3)])
    question, asked, told, answered = result.messages
    assert question.text == "What is 2 times 3?"
    thought, call = asked.content
    assert thought == ReasoningPart(text="I multiply.")
    assert isinstance(call, ToolCallPart)
    assert (call.name, json.loads(call.arguments)) == ("multiply", {"a": 2, "b": 3})
    assert [(part.call_id, part.content) for part in told.tool_results] == [(call.id, "6")]
    assert answered.content == (ReasoningPart(text="I can answer without using any more tools."), TextPart(text="Six."))


async def test_model_is_sent_a_transcript_and_no_tools() -> None:
    with ScriptedModel([MULTIPLY, SIX]) as model:
        await ReActAgent([multiply], model, system_prompt="Be brief.").run("What is 2 times 3?")
    first, second = model.calls
    assert first.tools == second.tools == ()
    assert first.parameters == {"stop": list(STOP)}
    system = first.messages[0]
    assert system.text.startswith("Be brief.\n\nYou have these tools:\n\nTool: multiply\n")
    assert json.dumps(multiply.parameters) in system.text
    assert said(second.messages) == [
        ("user", "What is 2 times 3?"),
        ("assistant", MULTIPLY),
        ("user", "Observation: 6"),
    ]


async def test_recorded_run_of_another_framework_goes_as_it_did() -> None:
    recorded = json.loads((WIRE / "react_llamaindex_two_steps.json").read_text(encoding="utf-8"))["interactions"]
    bodies = [json.loads(each["response"]["body"]) for each in recorded]
    sent = recorded[1]["request"]["json"]["messages"]
    with LoopbackServer(bodies) as server:
        async with OpenAI("gpt-3.5-turbo-0613", base_url=server.base_url, api_key="x") as model:
            result = await ReActAgent([multiply], model).run(sent[1]["content"])
    assert str(result) == "2 times 3 is 6."
    assert called == [(2, 3)]
    assert result.usage.input_tokens == sum(body["usage"]["prompt_tokens"] for body in bodies)
    ours = server.requests[1].json["messages"]
    assert [message["role"] for message in ours] == [message["role"] for message in sent]
    assert ours[1] == sent[1]
    assert ours[2]["content"] == bodies[0]["choices"][0]["message"]["content"]
    assert ours[3]["content"] == sent[3]["content"]


async def test_answer_without_thought_ends_the_run() -> None:
    # llama_index#22563: it was asked again and again, up to the limit
    for text in ("Answer: The sum is 8.", "I added them.\nAnswer: The sum is 8.", "The sum is 8."):
        with ScriptedModel([text]) as model:
            assert str(await ReActAgent([multiply], model).run("3 + 5?")) == "The sum is 8."


async def test_what_a_model_makes_up_behind_an_action_is_left_out() -> None:
    # llama_index#9472: without texts to stop at, models went on with results of their own
    made_up = f"{MULTIPLY}\nObservation: 7\nThought: I know.\nAnswer: Seven."
    with ScriptedModel([made_up, SIX]) as model:
        result = await ReActAgent([multiply], model).run("2 * 3?")
    assert (str(result), called) == ("Six.", [(2, 3)])
    assert said(model.calls[1].messages)[1:] == [("assistant", MULTIPLY), ("user", "Observation: 6")]


async def test_action_in_a_fence_is_called() -> None:
    # llama_index#14736: the thought was returned as the answer
    with ScriptedModel([f"```\n{MULTIPLY}\n```", SIX]) as model:
        handler = ReActAgent([multiply], model).run("2 * 3?")
        events = await events_of(handler)
    assert (str(await handler), called) == ("Six.", [(2, 3)])
    assert text_of(events, TextDelta) == "Six."


async def test_thoughts_are_streamed_apart_from_the_answer() -> None:
    # llama_index#18094: a stream had thoughts, actions and answer as one text
    with ScriptedModel([MULTIPLY, SIX]) as model:
        events = await events_of(ReActAgent([multiply], model, name="clerk").run("2 * 3?"))
    assert [type(event) for event in events if not isinstance(event, Thought)] == [
        ToolCall,
        ToolResult,
        TextDelta,
        AgentResult,
    ]
    assert text_of(events, Thought) == "I multiply.I can answer without using any more tools."
    assert text_of(events, TextDelta) == "Six."
    assert {event.agent for event in events[:-1]} == {"clerk"}
    assert sum(isinstance(event, Thought) for event in events) > 5


@given(st.lists(st.integers(0, len(SIX)), max_size=6).map(sorted))
async def test_however_the_stream_is_cut_no_thought_is_in_the_answer(cuts: list[int]) -> None:
    pieces = [Delta(text=SIX[start:end]) for start, end in zip([0, *cuts], [*cuts, len(SIX)], strict=True)]
    events = await events_of(ReActAgent([multiply], ScriptedModel([pieces])).run("2 * 3?"))
    assert text_of(events, Thought) == "I can answer without using any more tools."
    assert text_of(events, TextDelta) == "Six."


async def test_thoughts_of_the_server_are_thoughts_as_well() -> None:
    turn: list[ReasoningPart | str] = [ReasoningPart(text="Hm. "), SIX]
    with ScriptedModel([turn, turn]) as model:
        events = await events_of(ReActAgent(llm=model).run("2 * 3?"))
        result = await ReActAgent(llm=model).run("2 * 3?")
    assert text_of(events, Thought) == "Hm. I can answer without using any more tools."
    assert str(result) == "Six."


async def test_several_actions_are_called_at_once() -> None:
    both = f"{MULTIPLY}\nAction: now\nAction Input: {{}}"
    with ScriptedModel([both, SIX]) as model:
        result = await ReActAgent([multiply, now], model).run("2 * 3, and the time?")
    assert results_of(result) == [("6", "ok"), ("noon", "ok")]
    assert said(model.calls[1].messages)[-1] == (
        "user",
        "Observation: the result of multiply:\n6\n\nObservation: the result of now:\nnoon",
    )


async def test_unknown_tools_and_wrong_arguments_are_told_to_the_model() -> None:
    turns = ["Action: multipli\nAction Input: 2", 'Action: multiply\nAction Input: {"a": 2', SIX]
    with ScriptedModel(turns) as model:
        result = await ReActAgent([multiply], model).run("2 * 3?")
    unknown, wrong = (content for content, _ in results_of(result))
    assert "There is no tool 'multipli'. Did you mean 'multiply'?" in unknown
    assert "b: is missing" in wrong
    assert called == []


async def test_what_cannot_be_read_is_told_to_the_model() -> None:
    with ScriptedModel(["Thought: I must multiply.", MULTIPLY, SIX]) as model:
        result = await ReActAgent([multiply], model).run("2 * 3?")
    assert (str(result), called) == ("Six.", [(2, 3)])
    _, thought, told = said(model.calls[1].messages)
    assert thought == ("assistant", "Thought: I must multiply.")
    assert told[0] == "user"
    assert told[1].startswith("This could not be read. There is a Thought, but neither an Action nor an Answer.")


async def test_after_two_repairs_the_text_is_the_answer_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    memory = ChatMemory()
    with ScriptedModel(["", "Thought: Six, I think.", "Thought: It is six."]) as model:
        result = await ReActAgent([multiply], model, memory, name="clerk").run("2 * 3?")
    assert (str(result), result.stopped_by) == ("It is six.", "answer")
    assert [(r.levelno, "the model of 'clerk' wrote cannot be read" in r.message) for r in caplog.records] == [
        (logging.WARNING, True)
    ]
    assert await memory.aget() == result.messages


async def test_after_two_repairs_the_answer_is_streamed_too(caplog: pytest.LogCaptureFixture) -> None:
    with ScriptedModel(["Thought: a", "Thought: b", "Action: I will look."]) as model:
        events = await events_of(ReActAgent([multiply], model).run("2 * 3?"))
    assert text_of(events, TextDelta) == str(events[-1]) == "Action: I will look."
    assert caplog.records


async def test_repairs_are_counted_anew_behind_what_could_be_read() -> None:
    turns = ["Thought: a", "Thought: b", MULTIPLY, "Thought: c", "Thought: d", SIX]
    with ScriptedModel(turns) as model:
        assert str(await ReActAgent([multiply], model).run("2 * 3?")) == "Six."


async def test_without_tools_a_thought_is_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    with ScriptedModel(["Thought: Hello!"]) as model:
        assert str(await ReActAgent(llm=model).run("Hello?")) == "Hello!"
    assert "You have no tools." in model.calls[0].messages[0].text
    assert caplog.records


async def test_refusal_is_the_answer() -> None:
    with ScriptedModel([RefusalPart(text="I will not.")]) as model:
        assert str(await ReActAgent([multiply], model).run("2 * 3?")) == "I will not."


async def test_calls_that_a_server_makes_of_markup_are_calls() -> None:
    call = ToolCallPart(id="c1", name="multiply", arguments='{"a": 2, "b": 3}')
    with ScriptedModel([call, SIX]) as model:
        assert str(await ReActAgent([multiply], model).run("2 * 3?")) == "Six."
    assert called == [(2, 3)]


async def test_server_that_takes_no_stop_is_asked_without_and_never_again_with_it() -> None:
    refusal = {"error": {"message": "Unsupported parameter: 'stop' is not supported with this model.", "param": "stop"}}
    script: list[Answer | str] = [Answer(refusal, status=400), MULTIPLY, SIX, SIX]
    with LoopbackServer(script) as server:
        async with OpenAI("o3", base_url=server.base_url, api_key="x") as model:
            agent = ReActAgent([multiply], model)
            assert str(await agent.run("2 * 3?")) == "Six."
            assert text_of(await events_of(agent.run("2 * 3?")), TextDelta) == "Six."
    assert ["stop" in request.json for request in server.requests] == [True, False, False, False]


async def test_request_that_is_wrong_otherwise_fails() -> None:
    with ScriptedModel([LLMBadRequestError("no such picture")]) as model, pytest.raises(LLMBadRequestError):
        await ReActAgent([multiply], model).run("2 * 3?")


class City(BaseModel):
    name: str
    people: int


GRAZ = '{"name": "Graz", "people": 302660}'


async def test_output_is_read_from_the_answer() -> None:
    with ScriptedModel([f"Thought: I know.\nAnswer: ```json\n{GRAZ}\n```"]) as model:
        result = await ReActAgent([multiply], model, output=City).run("Graz?")
    assert result.output == City(name="Graz", people=302660)
    assert '"people"' in model.calls[0].messages[0].text


async def test_answer_that_is_not_the_output_is_told_to_the_model() -> None:
    with ScriptedModel(["Answer: Graz", f"Answer: {GRAZ}"]) as model:
        result = await ReActAgent(llm=model, output=City).run("Graz?")
    assert result.output == City(name="Graz", people=302660)
    assert said(model.calls[1].messages)[1:] == [
        ("assistant", "Answer: Graz"),
        ("user", "The answer is no JSON object. Answer with the JSON object alone."),
    ]


@pytest.mark.parametrize(("text", "error"), [("Answer: Graz", LLMOutputError), ("Thought: Graz", UnreadableReplyError)])
async def test_where_the_output_cannot_be_had_the_run_fails(text: str, error: type[Exception]) -> None:
    with ScriptedModel([text] * 3) as model, pytest.raises(error):
        await ReActAgent([multiply], model, output=City).run("Graz?")


async def test_usage_of_repairs_counts() -> None:
    def reply(text: str) -> Reply:
        message = ChatMessage(role="assistant", content=text)
        return Reply(message=message, usage=Usage(input_tokens=10, output_tokens=1, cost=0.5))

    with ScriptedModel([reply("Thought: a"), reply(MULTIPLY), reply(SIX)]) as model:
        result = await ReActAgent([multiply], model).run("2 * 3?")
    assert (result.usage.input_tokens, result.usage.output_tokens, result.usage.cost) == (30, 3, 1.5)


async def test_conversation_goes_on_from_memory_and_both_kinds_of_agents_share_it() -> None:
    memory = ChatMemory()
    with ScriptedModel([MULTIPLY, SIX, "Answer: As I said."]) as model:
        agent = ReActAgent([multiply], model, memory)
        first = await agent.run("2 * 3?")
        await agent.run("Sure?")
    assert said(model.calls[2].messages) == [
        ("user", "2 * 3?"),
        ("assistant", MULTIPLY),
        ("user", "Observation: 6"),
        ("assistant", SIX),
        ("user", "Sure?"),
    ]
    with ScriptedModel(["Yes."]) as native:
        await FunctionAgent([multiply], native, memory).run("Really?")
    assert native.calls[0].messages[1:5] == first.messages


async def test_budget_keeps_the_work() -> None:
    with ScriptedModel([MULTIPLY, MULTIPLY]) as model:
        result = await ReActAgent([multiply], model, budget=Budget(turns=2)).run("2 * 3?")
    assert result.stopped_by == "turns"
    assert [outcome for _, outcome in results_of(result)] == ["ok", "skipped"]


async def test_last_answer_at_a_limit_is_asked_for_without_tools(caplog: pytest.LogCaptureFixture) -> None:
    with ScriptedModel([MULTIPLY, "Thought: Six it is."]) as model:
        result = await ReActAgent([multiply], model, budget=Budget(turns=1, last_answer=True)).run("2 * 3?")
    assert (str(result), result.stopped_by) == ("Six it is.", "turns")
    assert "You have no tools." in model.calls[1].messages[0].text
    assert said(model.calls[1].messages)[-1][1].startswith("Observation: This call was skipped")
    assert caplog.records


async def test_result_of_a_direct_tool_is_the_answer() -> None:
    @tool(name="multiply", return_direct=True)
    def direct(a: int, b: int) -> int:
        """Multiply two integers."""
        return a * b

    with ScriptedModel([MULTIPLY]) as model:
        result = await ReActAgent([direct], model).run("2 * 3?")
    assert (str(result), result.stopped_by) == ("6", "tool")


@pytest.mark.parametrize(("approve", "expected"), [(True, "20"), (False, "refused this call. Too dear.")])
async def test_person_approves_refuses_and_changes(*, approve: bool, expected: str) -> None:
    @tool(requires_approval=True)
    def order(amount: int) -> int:
        """Order something."""
        return amount * 10

    with ScriptedModel(["Action: order\nAction Input: 1", "Answer: Done."]) as model:
        handler = ReActAgent([order], model).run("Order one.")
        async for event in handler.stream_events():
            if isinstance(event, ApprovalRequired):
                assert (event.tool, event.arguments) == ("order", {"amount": 1})
                handler.ctx.send_event(event.approve({"amount": 2}) if approve else event.refuse("Too dear."))
        result = await handler
    assert expected in results_of(result)[0][0]
    assert str(result) == "Done."


async def test_run_that_is_put_away_goes_on() -> None:
    @tool(requires_approval=True)
    def order(amount: int) -> int:
        """Order something."""
        return amount * 10

    model = ScriptedModel(["Thought: hm", "Action: order\nAction Input: 1", "Answer: Done."])
    agent = ReActAgent([order], model)
    handler = agent.run("Order one.")
    event = await anext(event async for event in handler.stream_events() if isinstance(event, ApprovalRequired))
    kept = json.loads(json.dumps(handler.ctx.to_dict()))
    await handler.cancel_run()
    again = agent.run(ctx=Context.from_dict(agent, kept))
    again.ctx.send_event(event.approve())
    result = await again
    assert (str(result), results_of(result)) == ("Done.", [("10", "ok")])


async def test_cancelled_run_leaves_whole_turns_in_the_memory() -> None:
    started = asyncio.Event()

    async def hang() -> None:
        started.set()
        await asyncio.Event().wait()

    memory = ChatMemory()
    with ScriptedModel([MULTIPLY, f"{MULTIPLY}\nAction: hang", SIX]) as model:
        agent = ReActAgent([multiply, hang], model, memory)
        handler = agent.run("2 * 3?")
        await started.wait()
        await handler.cancel_run()
        with pytest.raises(WorkflowCancelledByUser):
            await handler
        assert [message.role for message in await memory.aget()] == ["user", "assistant", "tool"]
        assert str(await agent.run("And now?")) == "Six."
    assert said(model.calls[-1].messages)[2:] == [("user", "Observation: 6\n\nAnd now?")]


async def test_run_goes_on_step_by_step() -> None:
    with ScriptedModel([MULTIPLY, "Thought: hm", SIX]) as model:
        handler = ReActAgent([multiply], model).run("2 * 3?", stepwise=True)
        produced: list[str] = []
        while events := await handler.run_step():
            for event in events:
                produced.append(type(event).__name__)
                handler.ctx.send_event(event)
    assert produced == ["Turn", "ToolCall", "ToolResult", "Turn", "Turn", "Finished", "AgentResult"]


OUTPUTS: list[str] = [
    output["text"]
    for output in json.loads(
        (Path(__file__).parent / "fixtures" / "react-outputs" / "outputs.json").read_text(encoding="utf-8")
    )["outputs"]
]


@given(turns=st.lists(st.sampled_from(OUTPUTS), max_size=8), followed=st.booleans())
async def test_whatever_a_model_writes_the_run_ends_and_each_call_has_one_result(
    turns: list[str], *, followed: bool
) -> None:
    model = ScriptedModel([*turns, SIX, SIX, SIX])
    handler = ReActAgent([multiply, now], model).run("2 * 3?")
    events = await events_of(handler) if followed else []
    result = await handler
    assert result.stopped_by == "answer"
    assert not followed or text_of(events, TextDelta) == str(result)
    calls = [call.id for message in result.messages for call in message.tool_calls]
    assert [part.call_id for message in result.messages for part in message.tool_results] == calls
    assert len(set(calls)) == len(calls)
    for call in model.calls:
        roles = [message.role for message in call.messages]
        assert roles == ["system", *["user", "assistant"] * (len(roles) // 2)][: len(roles)]
        assert all(message.text for message in call.messages)
        assert not any(message.tool_calls or message.tool_results for message in call.messages)


async def test_conversation_is_handed_over() -> None:
    turn = "Thought: Ask the clerk.\nAction: hand_over_to_clerk\nAction Input: They want tea."
    with ScriptedModel([turn]) as model:
        result = await ReActAgent([multiply], model).run("Tea?", handoffs={"clerk": "sells tea"})
    assert result.handoff is not None
    assert (result.stopped_by, result.handoff.to, result.handoff.message) == ("handoff", "clerk", "They want tea.")
    assert "sells tea" in model.calls[0].messages[0].text


async def test_same_call_again_and_again_is_noticed() -> None:
    with ScriptedModel([MULTIPLY, MULTIPLY, MULTIPLY, SIX]) as model:
        await ReActAgent([multiply], model).run("2 * 3?")
    assert "3 times" in said(model.calls[-1].messages)[-1][1]


async def test_model_that_does_not_know_the_form_answers_at_once() -> None:
    result = await ReActAgent([multiply], OfflineModel()).run("What is 2 times 3?")
    assert (result.stopped_by, called) == ("answer", [])


def test_prompts_are_shown_and_changed_and_their_names_are_kept() -> None:
    assert ReActAgent().prompts().keys() - FunctionAgent().prompts().keys() == {"tools", "no_tools", "shape", "repair"}
    assert ReActAgent(prompts={"repair": "No: {problem}"}).prompts()["repair"] == "No: {problem}"
    with pytest.raises(AgentConfigurationError, match=r"lacks \{tools\}"):
        ReActAgent(prompts={"tools": "Use tools."})


async def test_subclass_has_a_form_of_its_own() -> None:
    class Terse(ReActAgent):
        PROMPTS: ClassVar[Mapping[str, str]] = {
            "system": "",
            "tools": "{tools}\nThought, Action, Action Input. Or Answer.",
        }

    with ScriptedModel([SIX]) as model:
        await Terse([multiply], model).run("2 * 3?")
    assert model.calls[0].messages[0].text.endswith("\nThought, Action, Action Input. Or Answer.")
    assert model.calls[0].messages[0].text.startswith("Tool: multiply")
