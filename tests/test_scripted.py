"""A model that says what it was told to say, and fails a test that asks for more or less."""

from __future__ import annotations

import pytest

from agentflow.testing import record
from agentflow_llm import ChatMessage, LLMUnavailableError, Reply, ScriptedModel, TextPart, ToolCallPart

HELLO = [ChatMessage(role="user", content="Hello")]
CALL = ToolCallPart(id="1", name="search", arguments="{}")


async def test_turns_are_texts_calls_lists_replies_and_functions() -> None:
    whole = Reply(message=ChatMessage(role="assistant", content="as it is"), finish_reason="length")
    with ScriptedModel(["text", CALL, ["both", CALL], whole, lambda messages: f"{len(messages)} message"]) as model:
        replies = [await model.chat(HELLO) for _ in range(5)]
    assert [reply.text for reply in replies] == ["text", "", "both", "as it is", "1 message"]
    assert [reply.finish_reason for reply in replies] == ["stop", "tool_calls", "tool_calls", "length", "stop"]
    assert replies[2].message.content == (TextPart(text="both"), CALL)


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
    with pytest.raises(AssertionError, match=r"Turn 1 of ScriptedModel holds 3\."):
        await ScriptedModel([lambda _: 3]).chat(HELLO)  # type: ignore[return-value,list-item]  # because it is wrong


async def test_calls_keep_the_messages_as_they_were() -> None:
    model = ScriptedModel(["one", "two"])
    messages = list(HELLO)
    messages.append((await model.chat(messages)).message)
    await model.chat(messages, temperature=0)
    assert [len(call.messages) for call in model.calls] == [1, 2]
    assert model.calls[1].parameters == {"temperature": 0}
