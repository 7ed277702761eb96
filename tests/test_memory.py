"""A conversation, in memory and in a file: what is kept of it, and what a model is sent."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.observe import Kind
from agentflow.testing import record
from agentflow_llm import (
    ChatMemory,
    ChatMessage,
    Memory,
    MemoryCall,
    StorageError,
    ToolCallPart,
    ToolResultPart,
)
from agentflow_llm.memory import MemoryInputError
from agentflow_llm.tokens import TokenEstimator
from agentflow_llm.window import window

Make = Callable[..., ChatMemory]


def say(text: str, role: Any = "user") -> ChatMessage:
    return ChatMessage(role=role, content=text)


def calls(*ids: str) -> ChatMessage:
    return ChatMessage(role="assistant", content=tuple(ToolCallPart(id=i, name="tool", arguments="{}") for i in ids))


def result(call_id: str, text: str = "y") -> ChatMessage:
    return ChatMessage(role="tool", content=(ToolResultPart(call_id=call_id, name="tool", content=text),))


ONE, TWO, THREE = map(say, ("one", "two", "three"))


class PerMessage:
    """Ten tokens a message, whatever it says."""

    def count(self, messages: Sequence[ChatMessage]) -> int:
        return 10 * len(messages)


@pytest.fixture(params=["memory", "file"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Makes memories, those of a file all of the same file."""

    def memory(*given: Any, **settings: Any) -> ChatMemory:
        return ChatMemory(*given, file=tmp_path / "memory.db" if request.param == "file" else None, **settings)

    return memory


async def test_keeps_everything_in_order(make: Make) -> None:
    memory = make([ONE])
    await memory.aput(TWO, THREE)
    await memory.aput()
    assert await memory.aget() == [ONE, TWO, THREE]
    assert len(memory) == 3
    assert isinstance(memory, Memory)


async def test_messages_come_back_as_they_were(make: Make) -> None:
    said = [
        say("ö 😀 \x00 '; DROP TABLE", "system"),
        ChatMessage(role="user", content=()),
        calls("a", ""),
        result("a", "x" * 100_000),
        result("", ""),
    ]
    memory = make(said, session="ä'\"\x00")
    assert await memory.aget() == said
    assert [message.id for message in await memory.aget()] == [message.id for message in said]


async def test_text_that_no_encoding_has_is_kept_as_far_as_possible(make: Make) -> None:
    memory = make([say("half \ud83d of a picture")], session="\ud83d")
    assert (await memory.aget())[0].text.startswith("half ")
    assert len(memory) == 1


async def test_list_that_is_got_is_the_caller_s_own(make: Make) -> None:
    memory = make([ONE])
    (await memory.aget()).clear()
    assert await memory.aget() == [ONE]


async def test_what_is_put_together_stays_together(make: Make) -> None:
    memory = make()
    pairs = [(say(f"{n}a"), say(f"{n}b")) for n in range(50)]
    await asyncio.gather(*(memory.aput(*pair) for pair in pairs))
    assert_together([message.text for message in await memory.aget()], 50)


def assert_together(texts: list[str], pairs: int) -> None:
    assert len(texts) == 2 * pairs
    assert all(first[:-1] == second[:-1] for first, second in zip(texts[::2], texts[1::2], strict=True))


def test_threads_put_side_by_side(make: Make) -> None:
    memory = make()

    def put(thread: int) -> None:
        async def main() -> None:
            for n in range(20):
                await memory.aput(say(f"{thread}.{n}a"), say(f"{thread}.{n}b"))

        asyncio.run(main())

    threads = [Thread(target=put, args=[n]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_everybody_s_pairs(memory, 4, 20)


def assert_everybody_s_pairs(memory: ChatMemory, writers: int, pairs: int) -> None:
    texts = [message.text for message in asyncio.run(memory.aget())]
    assert_together(texts, writers * pairs)
    for n in range(writers):
        assert [text for text in texts[::2] if text.startswith(f"{n}.")] == [f"{n}.{k}a" for k in range(pairs)]


async def test_a_message_that_is_there_is_not_put_again(make: Make) -> None:
    memory = make([ONE])
    await memory.aput(ONE, TWO)
    await memory.aput(TWO, THREE, THREE)
    assert await memory.aget() == [ONE, TWO, THREE]
    await memory.aput(say("one"))  # the same words, said again
    assert len(memory) == 4


async def test_sessions_of_a_file_know_nothing_of_each_other(tmp_path: Path) -> None:
    one, two = (ChatMemory(session=name, file=tmp_path / "memory.db") for name in ("one", "two"))
    await asyncio.gather(*(one.aput(say(str(n))) for n in range(20)), *(two.aput(ONE) for _ in range(3)))
    await two.aput(TWO)
    assert len(one) == 20
    await one.aclear()
    assert (len(one), await two.aget()) == (0, [ONE, TWO])


async def test_memories_of_a_session_in_a_file_are_one(tmp_path: Path) -> None:
    file = tmp_path / "memory.db"
    one, two = ChatMemory([ONE], session="s", file=file), ChatMemory([ONE, TWO], session="s", file=str(file))
    assert await one.aget() == await two.aget() == [ONE, TWO]
    await two.aclear()
    assert await one.aget() == []
    await one.aput(THREE, ONE)
    assert await two.aget() == [THREE, ONE]


async def test_window_is_the_newest_that_fits(make: Make) -> None:
    system = say("be kind", "system")
    said = [system, *(message for n in range(20) for message in (say(f"q{n}"), say(f"a{n}", "assistant")))]
    memory = make(said, token_limit=60, counter=PerMessage())
    assert await memory.aget() == [system, *said[-4:]]  # a fifth would be an answer without its question
    assert len(memory) == 41


async def test_default_counter_is_the_estimator(make: Make) -> None:
    memory = make([say("word " * 100) for _ in range(50)], token_limit=1000)
    kept = await memory.aget()
    assert 1 < len(kept) < 20
    assert TokenEstimator().count(kept) <= 1000


async def test_turn_without_its_results_is_not_sent_until_they_are_there(make: Make) -> None:
    turn = [ONE, calls("a", "b"), result("a"), result("b")]
    memory = make(turn[:3])
    assert await memory.aget() == [ONE]
    await memory.aput(turn[3])
    assert await memory.aget() == turn
    await memory.aput(result("nobody asked"))
    assert await memory.aget() == turn
    assert len(memory) == 5


MESSAGES = st.lists(st.sampled_from(["user", "assistant", "system", "calls", "result", "turn"]), max_size=30).map(
    lambda kinds: [message for kind in kinds for message in drawn(kind)]
)


def drawn(kind: str) -> list[ChatMessage]:
    if kind == "calls":
        return [calls("a", "b")]
    if kind == "result":
        return [result("a")]
    return [calls("a"), result("a")] if kind == "turn" else [say(kind, kind)]


@settings(max_examples=40)
@given(MESSAGES, st.integers(min_value=1, max_value=200), st.integers(min_value=1, max_value=5))
async def test_a_file_gives_the_same_window_as_the_whole_conversation(
    tmp_path_factory: pytest.TempPathFactory, messages: list[ChatMessage], limit: int, step: int
) -> None:
    memory = ChatMemory(file=tmp_path_factory.mktemp("db") / "memory.db", token_limit=limit, counter=PerMessage())
    for place in range(0, len(messages), step):
        await memory.aput(*messages[place : place + step])
    assert await memory.aget() == window(messages, limit, PerMessage()).messages


async def test_clearing_forgets_everything(make: Make) -> None:
    memory = make([say("system", "system"), ONE])
    await memory.aclear()
    assert (await memory.aget(), len(memory), repr(memory)) == ([], 0, "<ChatMemory, 0 messages>")
    await memory.aput(ONE)
    assert await memory.aget() == [ONE]


def test_repr_can_be_read(make: Make) -> None:
    assert repr(make()) == "<ChatMemory, 0 messages>"
    assert repr(make([ONE])) == "<ChatMemory, 1 messages:\n  <user: one>>"


def test_repr_of_a_large_one_shows_its_end(make: Make) -> None:
    memory = make([say(f"{n} {'x' * 1000}") for n in range(1234)])
    lines = repr(memory).splitlines()
    assert lines[:2] == ["<ChatMemory, 1234 messages:", "  ... 1,228 before these"]
    assert lines[2].startswith("  <user: 1228 xxx")
    assert len(lines) == 8
    assert all(len(line) < 210 for line in lines)


def test_an_empty_memory_is_true() -> None:
    assert ChatMemory()


async def test_from_defaults_is_the_memory_of_the_documents(capsys: pytest.CaptureFixture[str]) -> None:
    memory = Memory.from_defaults("user_id_123", token_limit=60000)
    assert (type(memory), memory.session, memory.token_limit) == (ChatMemory, "user_id_123", 60000)
    print("before", memory)  # noqa: T201 because the documents print it
    await memory.aput(ChatMessage(role="user", content="This is the first step"))
    print("after", memory)  # noqa: T201 as above
    said = "before <ChatMemory, 0 messages>\nafter <ChatMemory, 1 messages:\n  <user: This is the first step>>\n"
    assert capsys.readouterr().out == said


async def test_cancelled_put_keeps_all_or_nothing(tmp_path: Path) -> None:
    memory = ChatMemory(file=tmp_path / "memory.db")
    for n in range(300):
        task = asyncio.create_task(memory.aput(say(f"{n}a"), say(f"{n}b")))
        for _ in range(n % 4):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await memory.aput(say("lasta"), say("lastb"))
    texts = [message.text for message in await memory.aget()]
    assert_together(texts, len(texts) // 2)
    assert texts[-2:] == ["lasta", "lastb"]
    numbers = [int(text[:-1]) for text in texts[:-2:2]]
    assert numbers == sorted(numbers), "one that was cancelled came after a later one"


async def test_put_that_was_cancelled_while_it_waits_for_the_file_is_before_a_later_one(tmp_path: Path) -> None:
    file = tmp_path / "memory.db"
    memory = ChatMemory(file=file)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    tasks: list[asyncio.Task[None]] = []
    for n in range(8):
        tasks.append(asyncio.create_task(memory.aput(say(str(n)))))
        await asyncio.sleep(0)
        tasks[-1].cancel()
    last = asyncio.create_task(memory.aput(say("last")))
    cleared = asyncio.create_task(memory.aclear())
    behind = asyncio.create_task(memory.aput(say("behind")))
    await asyncio.sleep(0)
    other.execute("COMMIT")
    other.close()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.gather(last, cleared, behind)
    assert [message.text for message in await memory.aget()] == ["behind"]


async def test_query_that_is_no_text_is_refused() -> None:
    nothing: Any = None
    with pytest.raises(MemoryInputError, match=r"aget\(None\): a query is a string"):
        await ChatMemory().aget(nothing)


def test_file_that_is_no_path_is_refused() -> None:
    number: Any = 3
    for file in (number, ":memory:"):
        with pytest.raises(StorageError, match="None for memory"):
            ChatMemory(file=file)


WRITER = """
import asyncio, sys
from agentflow_llm import ChatMemory, ChatMessage

async def main():
    memory = ChatMemory(session="s", file=sys.argv[1])
    for n in range(30):
        await memory.aput(*(ChatMessage(role="user", content=f"{sys.argv[2]}.{n}{half}") for half in "ab"))
        assert f"{sys.argv[2]}.{n}b" in {message.text for message in await memory.aget()}

sys.stdin.readline()
asyncio.run(main())
"""


def test_processes_that_write_one_session_keep_everything_together(tmp_path: Path) -> None:
    file = tmp_path / "memory.db"
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(file), str(n)], stdin=subprocess.PIPE) for n in range(2)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.close()
    assert [process.wait() for process in processes] == [0, 0]
    assert_everybody_s_pairs(ChatMemory(session="s", file=file), 2, 30)


def test_process_that_is_killed_while_it_writes_leaves_whole_puts(tmp_path: Path) -> None:
    file = tmp_path / "memory.db"
    endless = WRITER.replace("range(30)", "itertools.count()").replace("import asyncio,", "import itertools, asyncio,")
    process = subprocess.Popen([sys.executable, "-c", endless, str(file), "0"], stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(b"go\n")
    process.stdin.close()
    memory = ChatMemory(session="s", file=file)
    while len(memory) < 20:
        assert process.poll() is None
    process.kill()
    process.wait()
    assert_everybody_s_pairs(memory, 1, len(memory) // 2)


async def test_looking_does_not_wait_for_somebody_who_writes(tmp_path: Path) -> None:
    file = tmp_path / "memory.db"
    memory = ChatMemory([ONE], file=file)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    put = asyncio.create_task(memory.aput(TWO))
    await asyncio.sleep(0)
    assert (len(memory), await memory.aget()) == (1, [ONE])
    assert "1 messages" in repr(memory)
    other.execute("COMMIT")
    other.close()
    await put
    assert await memory.aget() == [ONE, TWO]


def reshape(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the JSON of the only message in a file."""
    db = sqlite3.connect(file)
    message = json.loads(db.execute("SELECT message FROM memory_messages").fetchone()[0])
    change(message)
    db.execute("UPDATE memory_messages SET message = ?", (json.dumps(message),))
    db.commit()
    db.close()


async def test_message_of_a_newer_version_is_refused_with_a_reason(tmp_path: Path) -> None:
    file = tmp_path / "memory.db"
    memory = ChatMemory([ONE], session="s", file=file)
    reshape(file, lambda message: message.update(mood="glad"))
    with pytest.raises(StorageError, match=r"memory\.db.*session 's'.*mood: .*A newer agentflow-otel wrote it: update"):
        await memory.aget()
    reshape(file, lambda message: (message.pop("mood"), message.pop("role")))
    with pytest.raises(StorageError, match=r"cannot be read: role: Field required\.$"):
        await memory.aget()
    assert len(memory) == 1


def test_a_put_reads_nothing_and_a_get_what_it_gives(make: Make) -> None:
    """However long the conversation is: told by what is counted."""

    class Counting(PerMessage):
        counted = 0

        def count(self, messages: Sequence[ChatMessage]) -> int:
            self.counted += len(messages)
            return super().count(messages)

    counter = Counting()
    memory = make([say(str(n)) for n in range(2000)], token_limit=100, counter=counter)
    asyncio.run(memory.aput(ONE))
    assert counter.counted == 0
    assert len(asyncio.run(memory.aget())) == 10
    assert counter.counted == 11


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"token_limit": 0}, r"ChatMemory\(token_limit=0\): it is a whole number of 1 or more"),
        ({"token_limit": 1.5}, r"token_limit=1\.5"),
        ({"token_limit": True}, r"token_limit=True"),
        ({"session": ""}, r"session=''\): it is a name"),
        ({"session": 7}, r"session=7\): it is a name"),
        ({"counter": len}, r"it has no count\(messages\). Write counter=TokenEstimator\(\)"),
        ({"counter": TokenEstimator}, r"it has no count\(messages\)"),
        ({"messages": ["hello"]}, r"was given 'hello', which is no message. Write aput\(ChatMessage\("),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(MemoryInputError, match=said):
        ChatMemory(**settings)


async def test_what_is_no_message_is_refused_whole(make: Make) -> None:
    memory = make()
    wrong: Any = [ONE, TWO]
    with pytest.raises(MemoryInputError, match=r"Write aput\(\*messages\)\."):
        await memory.aput(ONE, wrong)
    assert len(memory) == 0


async def test_operations_tell_what_was_put_got_and_left_out(make: Make) -> None:
    memory = make(session="s", token_limit=25, counter=PerMessage())
    with record() as recorder:
        await memory.aput(ONE, TWO, THREE)
        got = await memory.aget("next?")
        await memory.aclear()
        await memory.aput(calls("a"), result("a"), result("a"))
        await memory.aget()
    put, get, delete, _, whole = recorder.find(Kind.MEMORY)
    assert [put.name, get.name, delete.name] == ["put", "get", "delete"]
    assert put.subject == MemoryCall("ChatMemory", "s", (ONE, TWO, THREE))
    assert (get.subject, get.result) == (MemoryCall("ChatMemory", "s", query="next?"), got)
    assert [(note.name, note.facts) for note in recorder.notes[get.ref.id]] == [
        ("trimmed", {"messages": 1, "tokens": 20})
    ]
    assert recorder.noted_on(whole) == []
    assert not recorder.open()


async def test_operation_tells_that_the_limit_cannot_be_kept(make: Make) -> None:
    memory = make([ONE, calls("a"), result("a")], token_limit=15, counter=PerMessage())
    with record() as recorder:
        assert len(await memory.aget()) == 2
    (get,) = recorder.find(Kind.MEMORY)
    assert [(note.name, note.facts) for note in recorder.notes[get.ref.id]] == [
        ("trimmed", {"messages": 1, "tokens": 20}),
        ("over_limit", {"tokens": 20, "limit": 15}),
    ]


async def test_operation_ends_with_the_error(tmp_path: Path) -> None:
    file = tmp_path / "memory.db"
    memory = ChatMemory([ONE], file=file)
    reshape(file, lambda message: message.update(mood="glad"))
    with record() as recorder, pytest.raises(StorageError) as raised:
        await memory.aget()
    (get,) = recorder.find(Kind.MEMORY)
    assert (get.outcome, recorder.errors[get.ref.id]) == ("error", raised.value)
