"""A model that says what it was told to say, and fails a test that asks for more or less."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from agentflow.testing import record
from agentflow_llm.errors import LLMUnavailableError
from agentflow_llm.messages import ChatMessage, Delta, ReasoningPart, Reply, TextPart, ToolCallPart, Usage
from agentflow_llm.scripted import ScriptedModel
from agentflow_llm.stream import ReplyStream

HELLO = [ChatMessage(role="user", content="Hello")]
CALL = ToolCallPart(id="1", name="search", arguments="{}")


async def test_turns_are_texts_calls_lists_replies_and_functions() -> None:
    whole = Reply(message=ChatMessage(role="assistant", content="as it is"), finish_reason="length")
    with ScriptedModel(["text", CALL, ["both", CALL], whole, lambda messages: f"{len(messages)} message"]) as model:
        replies = [await model.chat(HELLO) for _ in range(5)]
    assert [reply.text for reply in replies] == ["text", "", "both", "as it is", "1 message"]
    assert [reply.finish_reason for reply in replies] == ["stop", "tool_calls", "tool_calls", "length", "stop"]
    assert replies[2].message.content == (TextPart(text="both"), CALL)


async def test_one_turn_needs_no_list() -> None:
    said = ReasoningPart(text="Hm.")
    for turn in ("text", CALL, said, whole_of("text"), {"a": 1}, lambda _: "text"):
        with ScriptedModel([turn]) as several, ScriptedModel(turn) as one:
            expected, reply = await several.chat(HELLO), await one.chat(HELLO)
        assert reply.message.content == expected.message.content
    with pytest.raises(LLMUnavailableError, match="down"):
        await ScriptedModel(LLMUnavailableError("down")).chat(HELLO)


def whole_of(text: str) -> Reply:
    return Reply(message=ChatMessage(role="assistant", content=text))


async def test_exception_is_raised() -> None:
    with record() as seen, pytest.raises(LLMUnavailableError, match="down"):
        await ScriptedModel([LLMUnavailableError("down")]).chat(HELLO)
    assert seen.tree() == "chat scripted error"


async def test_unexpected_turn_fails_and_shows_what_was_sent() -> None:
    model = ScriptedModel("only one")
    await model.chat(HELLO)
    with pytest.raises(AssertionError, match=r"has 1 turns.*<user: Hello>"):
        await model.chat(HELLO)


def test_unused_turn_fails_at_the_end() -> None:
    with (
        pytest.raises(AssertionError, match=r"called 0 times, but has 1 turns\. Next would have been 'unused'"),
        ScriptedModel(["unused"]),
    ):
        pass


def test_error_of_the_block_is_not_hidden_by_unused_turns() -> None:
    with pytest.raises(ZeroDivisionError), ScriptedModel(["unused"]):
        raise ZeroDivisionError


async def test_turn_that_is_none_fails() -> None:
    with pytest.raises(AssertionError, match=r"holds Delta.* beside what is none"):
        await ScriptedModel([["text", Delta(text="a")]]).chat(HELLO)
    with pytest.raises(AssertionError, match=r"Turn 1 of ScriptedModel holds 3\."):
        await ScriptedModel([lambda _: 3]).chat(HELLO)  # type: ignore[return-value,list-item]  # because it is wrong


async def test_turns_are_streamed_word_by_word() -> None:
    with ScriptedModel(["Hello there.", ["both ", CALL]]) as model:
        first, second = model.stream(HELLO), model.stream(HELLO)
        assert [delta.text async for delta in first] == ["Hello ", "there."]
        assert [(delta.type, delta.text) async for delta in second] == [("text", "both "), ("tool_call", "{}")]
    assert (first.reply.text, second.reply.tool_calls) == ("Hello there.", [CALL])


DELTAS = [
    Delta(type="reasoning", text="Hm."),
    Delta(text="Hel"),
    Delta(text="lo"),
    Delta(type="tool_call", id="1", name="search"),
    Delta(type="tool_call", index=1, id="2", name="now", text="{}"),
    Delta(type="tool_call", text="{}"),
]


async def test_pieces_may_be_given_one_by_one() -> None:
    with ScriptedModel([DELTAS, DELTAS]) as model:
        stream = model.stream(HELLO)
        assert [delta async for delta in stream] == DELTAS
        reply = await model.chat(HELLO)
    assert reply.message.content == stream.reply.message.content
    assert reply.message.content == (
        ReasoningPart(text="Hm."),
        TextPart(text="Hello"),
        CALL,
        ToolCallPart(id="2", name="now", arguments="{}"),
    )


@pytest.mark.parametrize("said", [DELTAS, ["Hello there."]])
async def test_exception_at_the_end_of_a_list_cuts_the_stream(said: list[Delta | str]) -> None:
    cut = LLMUnavailableError("cut")
    heard: list[str] = []
    with ScriptedModel([[*said, cut], [*said, cut]]) as model:
        stream = model.stream(HELLO)
        with pytest.raises(LLMUnavailableError, match="cut"):
            await _hear(stream, heard)
        assert "".join(heard).strip() in {"Hm.Hello{}{}", "Hello there."}
        with pytest.raises(LLMUnavailableError, match="cut"):
            await model.chat(HELLO)


async def _hear(stream: ReplyStream, heard: list[str]) -> None:
    async for delta in stream:
        heard.append(delta.text)  # noqa: PERF401 because what came before the cut counts


class Place(BaseModel):
    city: str
    people: int


async def test_object_is_answered_as_json_for_an_output_of_its_shape() -> None:
    paris = Place(city="Paris", people=2_100_000)
    with ScriptedModel([paris, {"city": "Rome", "people": "many"}, paris, lambda _: paris]) as model:
        assert (await model.chat(HELLO, output=Place)).output == paris
        repaired = await model.chat(HELLO, output=Place)
        stream = model.stream(HELLO, output=Place)
        assert (await stream.read()).output == paris
    assert repaired.output == paris
    assert len(model.calls) == 4
    assert "people" in model.calls[2].messages[-1].text


async def test_usage_may_be_scripted() -> None:
    said = Reply(message=ChatMessage(role="assistant", content="Hi"), usage=Usage(input_tokens=7, output_tokens=1))
    with ScriptedModel([said, said]) as model:
        assert (await model.chat(HELLO)).usage.total_tokens == 8
        assert (await model.stream(HELLO).read()).usage.total_tokens == 8


async def test_calls_keep_the_messages_as_they_were() -> None:
    model = ScriptedModel(["one", "two"])
    messages = list(HELLO)
    messages.append((await model.chat(messages)).message)
    await model.chat(messages, temperature=0)
    assert [len(call.messages) for call in model.calls] == [1, 2]
    assert model.calls[1].parameters == {"temperature": 0}


async def test_options_of_the_constructor_are_in_its_calls() -> None:
    with ScriptedModel("Hi", temperature=0.1) as model:
        await model.chat(HELLO, seed=1)
    assert model.calls[0].parameters == {"temperature": 0.1, "seed": 1}
