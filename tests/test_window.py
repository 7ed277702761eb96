"""What of a conversation a model is sent: the rules hold for all conversations, limits and repeated trims."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from agentflow_llm import ChatMessage, TextPart, ToolCallPart, ToolResultPart
from agentflow_llm.window import window, window_back

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Letters:
    """A token is a letter of a text, of a call's arguments or of a result; a message is one more."""

    def count(self, messages: Sequence[ChatMessage]) -> int:
        return sum(1 + sum(map(letters, message.content)) for message in messages)


def letters(part: Any) -> int:
    return len(
        part.arguments if part.type == "tool_call" else part.content if part.type == "tool_result" else part.text
    )


COUNTER = Letters()


def say(role: Any, text: str = "x") -> ChatMessage:
    return ChatMessage(role=role, content=(TextPart(text=text),))


def calls(*ids: str) -> ChatMessage:
    return ChatMessage(role="assistant", content=tuple(ToolCallPart(id=i, name="tool", arguments="{}") for i in ids))


def result(*ids: str, text: str = "y") -> ChatMessage:
    return ChatMessage(role="tool", content=tuple(ToolResultPart(call_id=i, name="tool", content=text) for i in ids))


IDS = st.sampled_from(["a", "b", "c", ""])
TEXTS = st.text("abc", max_size=12)
PIECES = st.one_of(
    st.builds(lambda text: [say("user", text)], TEXTS),
    st.builds(lambda text: [say("assistant", text)], TEXTS),
    st.builds(lambda text: [say("system", text)], TEXTS),
    # turns with tools: results one by one or in one message
    st.builds(
        lambda ids, text: [calls(*ids), *(result(i, text=text) for i in ids)],
        st.lists(IDS, min_size=1, max_size=3),
        TEXTS,
    ),
    st.builds(lambda ids, text: [calls(*ids), result(*ids, text=text)], st.lists(IDS, min_size=1, max_size=3), TEXTS),
    # what a crash, a bug or another client leaves behind
    st.builds(lambda ids: [calls(*ids)], st.lists(IDS, min_size=1, max_size=3)),
    st.builds(lambda ids: [result(*ids)], st.lists(IDS, min_size=1, max_size=3)),
    st.builds(lambda ids, more: [calls(*ids), result(*more)], st.lists(IDS, min_size=1, max_size=2), st.lists(IDS)),
    st.builds(lambda: [ChatMessage(role="tool")]),
    st.builds(
        lambda text: [ChatMessage(role="user", content=(*result("a").content, *say("user", text).content))], TEXTS
    ),
    st.builds(lambda: [ChatMessage(role="user", content=result("a").content)]),
)
CONVERSATIONS = st.lists(PIECES, max_size=12).map(lambda pieces: [message for piece in pieces for message in piece])
LIMITS = st.integers(min_value=1, max_value=120)


def turns(messages: Sequence[ChatMessage]) -> Iterator[list[ChatMessage]]:
    """Each message with the messages of tools behind it."""
    turn: list[ChatMessage] = []
    for message in messages:
        if message.role != "tool" and turn:
            yield turn
            turn = []
        turn.append(message)
    if turn:
        yield turn


def check_sendable(messages: Sequence[ChatMessage]) -> None:
    """No call without its result, right behind it, and no result without its call."""
    for turn in turns(messages):
        called = Counter(call.id for call in turn[0].tool_calls)
        answered = Counter(part.call_id for message in turn for part in message.tool_results)
        assert turn[0].role != "tool"
        assert called == answered


def spoken(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    return [message for message in messages if message.role != "system"]


@given(CONVERSATIONS, LIMITS | st.none())
def test_a_call_and_its_results_stay_together_whatever_was_put(messages: list[ChatMessage], limit: int | None) -> None:
    check_sendable(window(messages, limit, COUNTER).messages)


@given(CONVERSATIONS, LIMITS)
def test_messages_of_the_system_stay_and_the_order_stays(messages: list[ChatMessage], limit: int) -> None:
    kept = window(messages, limit, COUNTER).messages
    place = {message.id: number for number, message in enumerate(messages)}
    assert all(place[first.id] < place[second.id] for first, second in pairwise(kept))
    assert [m for m in kept if m.role == "system"] == [m for m in messages if m.role == "system"]


@given(CONVERSATIONS, LIMITS)
def test_what_is_kept_fits_or_is_what_must_stay(messages: list[ChatMessage], limit: int) -> None:
    found = window(messages, limit, COUNTER)
    assert found.tokens == COUNTER.count(found.messages)
    assert found.over_limit == (found.tokens > limit)
    if found.over_limit:
        assert len(list(turns(spoken(found.messages)))) <= 1


@given(CONVERSATIONS, LIMITS)
def test_the_newest_turn_stays_and_what_is_kept_has_no_gaps(messages: list[ChatMessage], limit: int) -> None:
    whole = spoken(window(messages, None, COUNTER).messages)
    kept = spoken(window(messages, limit, COUNTER).messages)
    assert kept == whole[len(whole) - len(kept) :]
    assert bool(kept) == bool(whole)


@given(CONVERSATIONS, LIMITS)
def test_as_much_is_kept_as_fits_from_a_user_s_message_on(messages: list[ChatMessage], limit: int) -> None:
    whole = window(messages, None, COUNTER).messages
    found = window(messages, limit, COUNTER)
    kept = spoken(found.messages)
    if len(kept) == len(spoken(whole)):
        return
    older = list(turns(spoken(whole)[: len(spoken(whole)) - len(kept)]))
    if any(message.role == "user" for message in kept):
        assert kept[0].role == "user"
        # up to the next message of the user before that, it would not have fitted
        back = next((n for n in range(len(older) - 1, -1, -1) if older[n][0].role == "user"), 0)
        more = [message for turn in older[back:] for message in turn]
    else:
        more = older[-1]
    assert found.tokens + COUNTER.count(more) > limit


@given(CONVERSATIONS, st.lists(LIMITS, min_size=1, max_size=4))
def test_trimming_again_changes_nothing(messages: list[ChatMessage], limits: list[int]) -> None:
    for limit in limits:
        once = window(messages, limit, COUNTER).messages
        again = window(once, limit, COUNTER)
        assert again.messages == once
        assert again.reach == len(once)
        messages = once


@given(CONVERSATIONS, LIMITS | st.none())
def test_everything_that_fits_is_kept_unchanged(messages: list[ChatMessage], limit: int | None) -> None:
    whole = window(messages, None, COUNTER)
    if limit is None or COUNTER.count(whole.messages) <= limit:
        assert window(messages, limit, COUNTER).messages == whole.messages
        assert whole.reach == len(messages)
    clean = [message for message in messages if message.role in {"user", "system"} and not message.tool_results]
    assert window(clean, None, COUNTER).messages == clean


def test_reads_no_further_back_than_it_needs() -> None:
    read = 0

    def newest_first() -> Iterator[ChatMessage]:
        nonlocal read
        for _ in range(1_000_000):
            read += 1
            yield say("user", "x" * 9)

    found = window_back(newest_first(), [say("system", "s" * 9)], 50, COUNTER)
    assert (len(found.messages), found.tokens, found.reach, read) == (5, 50, 4, 5)


def test_counts_each_message_once() -> None:
    class Counting(Letters):
        counted = 0

        def count(self, messages: Sequence[ChatMessage]) -> int:
            self.counted += len(messages)
            return super().count(messages)

    counter = Counting()
    messages = [say("system"), *(message for _ in range(500) for message in (say("user"), calls("a"), result("a")))]
    assert len(window(messages, 10_000, counter).messages) == len(messages)
    assert counter.counted == len(messages)


def test_a_turn_that_is_over_the_limit_alone_stays_and_is_told() -> None:
    messages = [say("system", "be kind"), say("user", "old"), calls("a", "b"), result("a", text="z" * 500), result("b")]
    found = window(messages, 100, COUNTER)
    assert found.messages == [messages[0], *messages[2:]]
    assert found.over_limit


def test_an_incomplete_turn_at_the_end_waits_for_its_results() -> None:
    messages = [say("user"), calls("a", "b"), result("a")]
    found = window(messages, None, COUNTER)
    assert found.messages == messages[:1]
    assert found.reach == 3
    messages.append(result("b"))
    assert window(messages, None, COUNTER).messages == messages


def test_a_second_result_of_a_call_is_left_out() -> None:
    messages = [calls("a"), result("a", "a"), result("a")]
    kept = window(messages, None, COUNTER).messages
    assert [[part.call_id for part in message.tool_results] for message in kept] == [[], ["a"]]


def test_summaries_can_be_put_behind_the_messages_of_the_system() -> None:
    messages = [say("system", "1"), say("user"), say("system", "2"), say("user", "z" * 30)]
    found = window(messages, 36, COUNTER)
    assert (found.front, found.rest) == ([messages[0], messages[2]], [messages[3]])
