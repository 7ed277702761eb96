"""Answers to a prompt under the names of completions."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from agentflow.testing import record
from agentflow_llm import (
    ChatCall,
    ChatMessage,
    Completion,
    Delta,
    LLMBadRequestError,
    Reply,
)
from flaky import WORDS, Flaky


async def test_prompt_is_one_message_of_a_user() -> None:
    model = Flaky()
    answer = await model.acomplete("Hello", temperature=0.5)
    assert (str(answer), answer.text, answer.delta) == ("one two three four",) * 3
    (call,) = model.asked
    assert [(message.role, message.text) for message in call.messages] == [("user", "Hello")]
    assert call.parameters == {"temperature": 0.5}
    assert repr(answer) == "Completion('one two three four')"


async def test_parts_have_what_is_new_and_all_so_far() -> None:
    model = Flaky()
    parts = [part async for part in await model.astream_complete("Hello")]
    assert [part.delta for part in parts] == [*WORDS]
    assert [str(part) for part in parts] == ["one ", "one two ", "one two three ", "one two three four"]


async def test_only_text_is_a_part() -> None:
    class Thinking(Flaky):
        async def deltas(self, call: ChatCall) -> AsyncGenerator[Delta | Reply]:
            yield Delta(type="reasoning", text="hm")
            async for item in super().deltas(call):
                yield item

    assert [part.delta async for part in await Thinking().astream_complete("Hello")] == [*WORDS]


async def test_nothing_is_asked_before_the_first_part_is_wanted_and_leaving_closes() -> None:
    model = Flaky()
    with record() as seen:
        parts = await model.astream_complete("Hello")
        assert model.asked == []
        assert isinstance(await anext(parts), Completion)
        assert model.open == 1
        await parts.aclose()  # type: ignore[attr-defined]  # because an iterator need not have it
    assert model.open == 0
    assert seen.operations[0].outcome == "cancelled"


async def test_keeping_all_parts_takes_memory_in_proportion() -> None:
    async def taken(number: int) -> int:
        model = Flaky(says=["x" * 50] * number)
        tracemalloc.start()
        try:
            parts = [part async for part in await model.astream_complete("Hello")]
            assert len(parts[-1].text) == 50 * number
            return tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()

    small, large = await taken(1_000), await taken(8_000)
    assert large < 12 * small


async def test_prompt_that_is_no_text_is_refused() -> None:
    prompt: Any = [ChatMessage(role="user", content="Hello")]
    with pytest.raises(LLMBadRequestError, match=r"A prompt is a text, not \[<user: Hello>\].*write chat\(messages\)"):
        await Flaky().acomplete(prompt)
    with pytest.raises(LLMBadRequestError, match="A prompt is a text"):
        await Flaky().astream_complete(prompt)
