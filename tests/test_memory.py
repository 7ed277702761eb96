"""A conversation in memory."""

from __future__ import annotations

import asyncio

from agentflow_llm import ChatMemory, ChatMessage, Memory

ONE, TWO, THREE = (ChatMessage(role="user", content=text) for text in ("one", "two", "three"))


async def test_keeps_everything_in_order() -> None:
    memory = ChatMemory([ONE])
    await memory.aput(TWO, THREE)
    assert await memory.aget() == [ONE, TWO, THREE]
    assert len(memory) == 3
    assert isinstance(memory, Memory)


async def test_list_that_is_got_is_the_caller_s_own() -> None:
    memory = ChatMemory([ONE])
    (await memory.aget()).clear()
    assert await memory.aget() == [ONE]


async def test_what_is_put_together_stays_together() -> None:
    memory = ChatMemory()
    pairs = [(ChatMessage(role="user", content=f"{n}a"), ChatMessage(role="user", content=f"{n}b")) for n in range(50)]
    await asyncio.gather(*(memory.aput(*pair) for pair in pairs))
    texts = [message.text for message in await memory.aget()]
    assert all(first[:-1] == second[:-1] for first, second in zip(texts[::2], texts[1::2], strict=True))


def test_repr_can_be_read() -> None:
    assert repr(ChatMemory()) == "<ChatMemory, 0 messages>"
    assert repr(ChatMemory([ONE])) == "<ChatMemory, 1 messages:\n  <user: one>>"
