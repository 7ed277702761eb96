"""A memory that keeps a summary of what no longer fits."""

from __future__ import annotations

import asyncio
import re
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.observe import Kind
from agentflow.testing import record
from agentflow_llm import ChatMessage, LLMResponseError, LLMServerError, ScriptedModel, ToolCallPart, ToolResultPart
from agentflow_llm.chat import BaseChatModel
from agentflow_llm.memory import MemoryInputError
from agentflow_llm.messages import Reply
from agentflow_llm.summary_memory import INTRODUCTION, SUMMARISE, SummaryMemory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentflow_llm import ChatCall


def say(text: str, role: Any = "user") -> ChatMessage:
    return ChatMessage(role=role, content=text)


def turn(number: int, text: str = "found") -> list[ChatMessage]:
    call = ToolCallPart(id=f"c{number}", name="search", arguments=f'{{"q": {number}}}')
    found = ToolResultPart(call_id=f"c{number}", name="search", content=text)
    return [ChatMessage(role="assistant", content=(call,)), ChatMessage(role="tool", content=(found,))]


class Letters:
    """A token is a letter; a message is nothing itself."""

    def count(self, messages: Sequence[ChatMessage]) -> int:
        return sum(letters(part) for message in messages for part in message.content)


def letters(part: Any) -> int:
    return len(
        part.arguments if part.type == "tool_call" else part.content if part.type == "tool_result" else part.text
    )


class Summariser(BaseChatModel):
    """Its summary is how many summaries it has written; `said` is what it was told each time."""

    def __init__(self, *errors: Exception | None) -> None:
        super().__init__("summariser", "test")
        self.errors = list(errors)
        self.told: list[str] = []
        self.before: list[str] = []
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()
        self.go_on.set()

    async def answer(self, call: ChatCall) -> Reply:
        prompt = call.messages[-1].text
        parts = re.fullmatch(r".*<summary>\n(.*)\n</summary>.*<conversation>\n(.*)\n</conversation>", prompt, re.DOTALL)
        assert parts
        self.before.append(parts[1])
        self.told.append(parts[2])
        self.asked.set()
        await self.go_on.wait()
        if self.errors and (error := self.errors.pop(0)):
            raise error
        return Reply(message=say(f"S{len(self.told)}", "assistant"))


SPACE = len(INTRODUCTION) + 2
"""What a summary takes."""


@pytest.fixture(params=["memory", "file"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "memory.db" if request.param == "file" else None


def make(llm: Any, limit: int, file: Path | None = None, **settings: Any) -> SummaryMemory:
    return SummaryMemory(llm, session="s", token_limit=limit, counter=Letters(), file=file, **settings)


async def test_what_fits_is_not_summarised(file: Path | None) -> None:
    model = Summariser()
    memory = make(model, 100, file)
    said = [say("be kind", "system"), say("q" * 40), say("a" * 40, "assistant")]
    await memory.aput(*said)
    assert await memory.aget() == said
    assert model.told == []


async def test_what_falls_out_is_summarised_behind_the_system_s_message(file: Path | None) -> None:
    model = Summariser()
    memory = make(model, 200, file)
    system, *said = [say("be kind", "system"), *(say(f"{n:02}" + "x" * 28) for n in range(8))]
    await memory.aput(system, *said[:6])
    assert model.told == []
    await memory.aput(*said[6:])
    first, summary, *rest = await memory.aget()
    assert first == system
    assert (summary.role, summary.text) == ("user", f"{INTRODUCTION}S1")
    assert rest == said[-3:]  # the newer half
    assert model.told == ["\n\n".join(f"user: {message.text}" for message in said[:-3])]
    assert len(memory) == 9


async def test_summary_is_extended_and_not_begun_again(file: Path | None) -> None:
    model = Summariser()
    memory = make(model, 200, file)
    for n in range(40):
        await memory.aput(say(f"{n:02}" + "x" * 28))
    assert model.before == ["(nothing yet)", *(f"S{n}" for n in range(1, len(model.before)))]
    # each message once, and in order
    told = [part for text in model.told for part in text.split("\n\n")]
    assert told == [f"user: {n:02}" + "x" * 28 for n in range(len(told))]
    kept = await memory.aget()
    assert [message.text[:2] for message in kept[1:]] == [f"{n:02}" for n in range(len(told), 40)]
    # with each summary about half of the limit is free again
    assert len(model.told) < 15


async def test_tool_turns_are_summarised_whole() -> None:
    model = Summariser()
    memory = make(model, 110)
    newest = turn(2, "g" * 50)
    await memory.aput(say("look"), *turn(1, "f" * 50), *newest)
    assert (await memory.aget())[1:] == newest
    said = f'user: look\n\nassistant: [calls search with {{"q": 1}}]\n\ntool: [search returned] {"f" * 50}'
    assert model.told == [said]


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from(["user", "assistant", "system", "turn"]), st.integers(0, 60)), max_size=25),
    st.integers(min_value=60, max_value=200),
)
async def test_nothing_is_lost_nothing_is_told_twice_and_turns_stay_whole(
    drawn: list[tuple[str, int]], limit: int
) -> None:
    model = Summariser()
    memory = make(model, limit)
    said: list[ChatMessage] = []
    for number, (kind, size) in enumerate(drawn):
        text = f"<{number}>" + "x" * size
        new = turn(number, text) if kind == "turn" else [say(text, kind)]
        said += new
        await memory.aput(*new)
    got = await memory.aget()
    told = "\n\n".join(model.told)
    for number, (kind, _) in enumerate(drawn):
        mark = f"<{number}>"
        kept = sum(
            mark in (message.text or (message.tool_results and message.tool_results[0].content)) for message in got
        )
        assert kept + told.count(mark) == 1, (mark, kind)
    assert [message for message in got if message.role == "system"] == [m for m in said if m.role == "system"]
    place = {message.id: n for n, message in enumerate(said)}
    places = [place[message.id] for message in got if message.id in place]
    assert places == sorted(places)
    for first, second in pairwise([*got, say("end")]):
        assert bool(first.tool_calls) == bool(second.tool_results)


async def test_a_single_message_over_the_limit_is_summarised_once() -> None:
    model = Summariser()
    memory = make(model, 1000)
    huge = say("x" * 50_000)
    await memory.aput(say("before"), huge)
    assert (await memory.aget())[1:] == [huge]
    assert len(model.told) == 1
    for _ in range(3):
        await memory.aget()
    await memory.aput(say("after"))
    assert [message.text for message in await memory.aget()] == [f"{INTRODUCTION}S2", "after"]
    assert len(model.told[1]) < 1100
    assert "[49006 characters left out]" in model.told[1]
    for n in range(5):
        await memory.aput(say(f"and {n}"))
    assert len(model.told) == 2


async def test_many_messages_at_once_are_summarised_in_pieces_that_a_model_can_take() -> None:
    model = Summariser()
    memory = make(model, 300)
    await memory.aput(*(say(f"{n:03}" + "x" * 27) for n in range(200)))
    assert len(model.told) > 10
    assert max(map(len, model.told)) < 450
    told = [part[6:9] for text in model.told for part in text.split("\n\n")]
    assert told == [f"{n:03}" for n in range(len(told))]
    assert sum(len(message.text) for message in await memory.aget()) <= 300


async def test_failing_model_loses_nothing_and_is_asked_again(file: Path | None) -> None:
    model = Summariser(LLMServerError("busy"), LLMServerError("busy"))
    memory = make(model, 200, file)
    said = [say(f"{n:02}" + "x" * 28) for n in range(9)]
    with record() as recorder:
        await memory.aput(*said[:8])
        got = await memory.aget()
    assert got == said[2:8]
    assert len(memory) == 8
    put, summarise, get = recorder.find(Kind.MEMORY)
    assert (put.outcome, summarise.name, summarise.outcome) == ("ok", "summarise", "error")
    assert recorder.noted_on(get) == ["trimmed"]
    await memory.aput(said[8])
    assert [message.text for message in await memory.aget()] == [message.text for message in said[3:]]
    await memory.aput(say("now"))
    assert (await memory.aget())[0].text == f"{INTRODUCTION}S3"
    assert model.told[1].startswith(model.told[0])
    assert model.told[2].startswith(model.told[1])


async def test_model_that_writes_nothing_has_failed() -> None:
    with ScriptedModel(["", "short"]) as model:
        memory = make(model, 200)
        with record() as recorder:
            await memory.aput(say("x" * 120), say("y" * 120))
        (_, summarise) = recorder.find(Kind.MEMORY)
        assert isinstance(recorder.errors[summarise.ref.id], LLMResponseError)
        await memory.aput(say("z"))
    assert (await memory.aget())[0].text == f"{INTRODUCTION}short"


async def test_summary_that_is_far_too_long_is_shortened() -> None:
    with ScriptedModel(["a" * 10_000]) as model:
        memory = make(model, 1000)
        await memory.aput(say("x" * 600), say("y" * 600))
    summary, _ = await memory.aget()
    assert len(summary.text) < 600
    assert "characters left out" in summary.text


async def test_concurrent_puts_are_summarised_once(file: Path | None) -> None:
    model = Summariser()
    model.go_on.clear()
    memory = make(model, 200, file)
    puts = [asyncio.create_task(memory.aput(say(f"{n:02}" + "x" * 28))) for n in range(10)]
    await model.asked.wait()
    model.go_on.set()
    await asyncio.gather(*puts)
    told = [part for text in model.told for part in text.split("\n\n")]
    assert len(told) == len(set(told))
    assert len(told) + len(await memory.aget()) - 1 == 10


async def test_concurrent_puts_ask_a_model_that_fails_once() -> None:
    model = Summariser(*[LLMServerError("busy")] * 20)
    model.go_on.clear()
    memory = make(model, 100)
    puts = [asyncio.create_task(memory.aput(say(f"{n:02}" + "x" * 98))) for n in range(10)]
    for _ in range(20):
        await asyncio.sleep(0)
    model.go_on.set()
    await asyncio.gather(*puts)
    assert len(model.told) == 1


async def test_of_two_that_summarise_the_same_session_the_first_counts(tmp_path: Path) -> None:
    models = Summariser(), Summariser()
    one, two = (make(model, 200, tmp_path / "memory.db") for model in models)
    models[0].go_on.clear()
    put = asyncio.create_task(one.aput(*(say(f"{n:02}" + "x" * 28) for n in range(8))))
    await models[0].asked.wait()
    await two.aput(say("now"))
    models[0].go_on.set()
    await put
    assert await one.aget() == await two.aget()
    assert (await one.aget())[0].text == f"{INTRODUCTION}S1"
    assert len(models[0].told) == len(models[1].told) == 1


async def test_cancelled_put_loses_nothing(file: Path | None) -> None:
    model = Summariser()
    model.go_on.clear()
    memory = make(model, 200, file)
    put = asyncio.create_task(memory.aput(*(say(f"{n:02}" + "x" * 28) for n in range(8))))
    await model.asked.wait()
    put.cancel()
    with pytest.raises(asyncio.CancelledError):
        await put
    assert len(memory) == 8
    model.go_on.set()
    await memory.aput(say("now"))
    assert (await memory.aget())[0].text == f"{INTRODUCTION}S2"
    assert model.told[0] == model.told[1]


async def test_summary_of_what_was_cleared_meanwhile_is_dropped(file: Path | None) -> None:
    model = Summariser()
    model.go_on.clear()
    memory = make(model, 200, file)
    put = asyncio.create_task(memory.aput(*(say(f"{n:02}" + "x" * 28) for n in range(8))))
    await model.asked.wait()
    await memory.aclear()
    new = asyncio.create_task(memory.aput(say("new")))
    await asyncio.sleep(0)
    model.go_on.set()
    await asyncio.gather(put, new)
    assert [message.text for message in await memory.aget()] == ["new"]


async def test_summary_is_there_after_a_restart(tmp_path: Path) -> None:
    memory = make(Summariser(), 200, tmp_path / "memory.db")
    await memory.aput(*(say(f"{n:02}" + "x" * 28) for n in range(8)))
    before = await memory.aget()
    with ScriptedModel([]) as unused:
        again = make(unused, 200, tmp_path / "memory.db")
        assert await again.aget() == before
        await again.aput(say("and"))


def test_memories_of_several_event_loops() -> None:
    memory = make(Summariser(), 100)
    for n in range(4):
        asyncio.run(memory.aput(say(f"{n}" + "x" * 60)))
    assert asyncio.run(memory.aget())[0].text.startswith(INTRODUCTION)


async def test_prompt_is_one_s_own() -> None:
    with ScriptedModel(["Zusammenfassung"]) as model:
        memory = make(model, 100, prompt="Fasse {zusammen}: {summary}|{messages}")
        await memory.aput(say("{summary} {words}" + "x" * 60), say("y" * 60))
    assert model.calls[0].messages[0].text.startswith("Fasse {zusammen}: (nothing yet)|user: {summary} {words}xxx")
    assert memory.prompts() == {"summarise": "Fasse {zusammen}: {summary}|{messages}", "introduction": INTRODUCTION}
    assert make(model, 100).prompts()["summarise"] == SUMMARISE


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"llm": "gpt"}, r"SummaryMemory\('gpt'\): it is no model"),
        ({"llm": ScriptedModel}, "it is no model"),
        ({"prompt": "Summarise {messages}"}, r"lacks \{summary\}, for what is to stand there"),
        ({"prompt": 7}, r"lacks \{summary\} and \{messages\}"),
        ({"token_limit": None}, "nothing would ever be summarised. Use ChatMemory"),
        ({"token_limit": -1}, r"SummaryMemory\(token_limit=-1\)"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(MemoryInputError, match=said):
        SummaryMemory(**_settings(settings))


def _settings(changed: dict[str, Any]) -> dict[str, Any]:
    return {"llm": ScriptedModel([]), "token_limit": 10, **changed}


async def test_operations_tell_what_was_summarised(file: Path | None) -> None:
    memory = make(Summariser(), 100, file)
    said = [say("x" * 60), say("y" * 60)]
    with record() as recorder:
        await memory.aput(*said)
        got = await memory.aget()
    _, summarise, get = recorder.find(Kind.MEMORY)
    assert (summarise.subject.memory, summarise.subject.session) == ("SummaryMemory", "s")
    assert list(summarise.subject.messages) == said[:1]
    assert [op.kind for op in recorder.children(summarise)] == [Kind.CHAT]
    assert get.result == got
    assert not recorder.open()
