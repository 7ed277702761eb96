"""A conversation: whole turns, ids of its own, and histories mended before a model sees them."""

from typing import Any

import pytest

from agentflow_agents import Conversation
from agentflow_agents.conversation import CANCELLED, repaired
from agentflow_llm import ChatMessage, RefusalPart, Reply, TextPart, ToolCallPart, ToolResultPart, Usage


def user(text: str) -> ChatMessage:
    return ChatMessage(role="user", content=(TextPart(text=text),))


def calling(*ids: str, name: str = "add") -> ChatMessage:
    return ChatMessage(role="assistant", content=tuple(ToolCallPart(id=i, name=name, arguments="{}") for i in ids))


def results(*ids: str) -> ChatMessage:
    return ChatMessage(role="tool", content=tuple(result(i) for i in ids))


def result(call_id: str, content: str = "3", **fields: Any) -> ToolResultPart:
    return ToolResultPart(call_id=call_id, name="add", content=content, **fields)


def begun(history: list[ChatMessage] | None = None, system: ChatMessage | None = None) -> Conversation:
    talk = Conversation()
    talk.begin("what?", system=system, history=history)
    return talk


def test_question_stands_behind_the_system_and_what_was_said_before() -> None:
    system = ChatMessage(role="system", content=(TextPart(text="be kind"),))
    earlier = [user("hello"), ChatMessage(role="assistant", content=(TextPart(text="hi"),))]
    talk = begun(earlier, system)
    assert talk.messages[:3] == [system, *earlier]
    assert [m.text for m in talk.messages[talk.before :]] == ["what?"]


def test_conversation_goes_on_without_a_second_system_message() -> None:
    system = ChatMessage(role="system", content=(TextPart(text="be kind"),))
    talk = begun([], system)
    talk.hear(Reply(message=ChatMessage(role="assistant", content=(TextPart(text="this"),))))
    talk.add(talk.turn([]))
    talk.begin("and?", system=system, history=None)
    assert [m.role for m in talk.messages] == ["system", "user", "assistant", "user"]
    assert talk.turns == 0


def test_calls_enter_the_conversation_together_with_their_results_in_the_order_of_the_calls() -> None:
    talk = begun()
    talk.hear(Reply(message=calling("a", "b")))
    assert len(talk.messages) == 1
    turn = talk.turn([result("b", "B"), result("a", "A")])
    assert talk.turn([result("a", "A"), result("b", "B")]) == turn
    talk.add(turn)
    assert [part.content for part in talk.messages[-1].tool_results] == ["A", "B"]
    assert talk.pending is None


def test_results_must_be_those_of_the_calls() -> None:
    talk = begun()
    talk.hear(Reply(message=calling("a", "b")))
    with pytest.raises(KeyError):
        talk.turn([result("a")])
    with pytest.raises(AssertionError, match="each result belongs to a call"):
        talk.turn([result("a"), result("b"), result("c")])


def test_each_call_gets_an_id_of_its_own() -> None:
    talk = begun([user("x"), calling("old"), results("old")])
    ids = [call.id for call in talk.hear(Reply(message=calling("old", "a", "a", "", "b")))]
    assert (ids[1], ids[4]) == ("a", "b")
    assert len({*ids, "old"}) == 6
    assert all(ids)
    assert [call.id for call in talk.pending.tool_calls] == ids if talk.pending else False


def test_message_of_a_careful_server_is_kept_as_it_is() -> None:
    talk = begun()
    message = calling("a", "b")
    talk.hear(Reply(message=message))
    assert talk.pending is message


def test_turns_add_up() -> None:
    talk = begun()
    for _ in range(2):
        talk.hear(Reply(message=calling("a"), usage=Usage(input_tokens=5, output_tokens=1)))
    assert talk.turns == 2


def test_last_word_is_text_or_refusal() -> None:
    talk = begun()
    assert talk.said == ""
    talk.hear(Reply(message=ChatMessage(role="assistant", content=(RefusalPart(text="I will not."),))))
    assert talk.said == "I will not."


@pytest.mark.parametrize(
    ("history", "mended"),
    [
        ([user("x"), calling("a", "b"), results("a"), user("y")], ["a", "b*"]),
        ([user("x"), calling("a")], ["a*"]),
        ([user("x"), calling("a", "b"), results("b"), results("a")], ["a", "b"]),
        ([results("a"), user("x"), results("b")], []),
        ([user("x"), calling("a"), results("a", "a", "z")], ["a"]),
        ([user("x"), calling("a"), user("y"), results("a")], ["a*"]),
    ],
    ids=["one missing", "all missing", "wrong order", "no calls", "too many", "too late"],
)
def test_history_is_mended(history: list[ChatMessage], mended: list[str]) -> None:
    whole = repaired(history)
    found = [part for message in whole for part in message.tool_results]
    assert [part.call_id + ("*" if part.outcome == "cancelled" else "") for part in found] == mended
    assert all(part.content == CANCELLED for part in found if part.outcome == "cancelled")
    assert [m for m in whole if m.role != "tool"] == [m for m in history if m.role != "tool"]


def test_whole_history_is_left_alone() -> None:
    history = [user("x"), calling("a", "b"), results("a"), results("b"), user("y"), calling("c"), results("c")]
    assert all(new is old for new, old in zip(repaired(history), history, strict=True))


def test_ids_that_were_there_before_are_changed_the_same_way_each_time() -> None:
    """Two runs that share a memory may both have had a call "a", where a server counts from the start each time."""
    history = [calling("a"), results("a"), user("x"), calling("a", "b"), results("b"), results("a")]
    whole = repaired(history)
    assert whole == repaired(history)
    assert whole[:3] == history[:3]
    new, kept = whole[3].tool_calls
    assert (kept.id, new.id.startswith("call_"), len(new.id)) == ("b", True, 37)
    assert [part.call_id for part in whole[4].tool_results] == [new.id, "b"]


def test_conversation_goes_through_json() -> None:
    talk = begun([user("x"), calling("a"), results("a")])
    talk.hear(Reply(message=calling("b")))
    assert Conversation.model_validate_json(talk.model_dump_json()) == talk
