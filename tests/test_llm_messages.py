"""Messages, usage and replies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agentflow_llm import ChatMessage, RefusalPart, Reply, TextPart, ToolCallPart, ToolResultPart, Usage

PARTS = st.one_of(
    st.builds(TextPart, text=st.text()),
    st.builds(RefusalPart, text=st.text()),
    st.builds(ToolCallPart, id=st.text(), name=st.text(), arguments=st.text()),
    st.builds(ToolResultPart, call_id=st.text(), name=st.text(), content=st.text()),
)


@given(st.lists(PARTS, max_size=4))
def test_message_goes_through_json_unchanged_with_its_id(parts: list[TextPart]) -> None:
    message = ChatMessage(role="assistant", content=parts)
    again = ChatMessage.model_validate_json(message.model_dump_json())
    assert again == message
    assert again.id == message.id


def test_string_is_one_part_of_text() -> None:
    message = ChatMessage(role="user", content="Hi")
    assert message.content == (TextPart(text="Hi"),)
    assert repr(message) == "<user: Hi>"


def test_message_cannot_be_changed() -> None:
    message = ChatMessage(role="user", content="Hi")
    with pytest.raises(ValidationError, match="frozen"):
        message.role = "system"


def test_calls_and_results_are_found() -> None:
    call = ToolCallPart(id="1", name="f", arguments="{}")
    result = ToolResultPart(call_id="1", name="f", content="r")
    reply = Reply(message=ChatMessage(role="assistant", content=[TextPart(text="a"), call, result]))
    assert (reply.text, reply.tool_calls, reply.message.tool_results) == ("a", [call], [result])
    assert repr(reply.message) == "<assistant: a | f({}) | 1 -> 'r'>"


USAGES = st.builds(Usage, input_tokens=st.none() | st.integers(0, 9), output_tokens=st.none() | st.integers(0, 9))


@given(USAGES, USAGES, USAGES)
def test_usages_add_up_in_any_order(a: Usage, b: Usage, c: Usage) -> None:
    assert (a + b) + c == a + (b + c)
    assert a + b == b + a
    assert a + Usage() == a


def test_unknown_is_not_zero() -> None:
    assert Usage(input_tokens=3).total_tokens is None
    assert Usage(input_tokens=3, output_tokens=0).total_tokens == 3
    assert (Usage() + Usage()).input_tokens is None
