"""A memory that keeps facts, and finds those that matter now."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agentflow.observe import Kind
from agentflow.testing import record
from agentflow_llm import ChatMessage, Embeddings, LLMResponseError, LLMServerError, RefusalPart, Reply, ScriptedModel
from agentflow_llm.embedding import BaseEmbedder
from agentflow_llm.long_term_memory import EXTRACT, INTRODUCTION, LongTermMemory
from agentflow_llm.memory import MemoryInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentflow_llm import EmbeddingsCall


def say(text: str, role: Any = "user") -> ChatMessage:
    return ChatMessage(role=role, content=text)


class Letters:
    """A token is a letter."""

    def count(self, messages: Sequence[ChatMessage]) -> int:
        return sum(len(message.text) for message in messages)


class Meaning(BaseEmbedder):
    """Knows that pets are animals, and that Paris is a place."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__("meaning", "test")
        self.errors: Sequence[Exception] = errors

    async def answer(self, call: EmbeddingsCall) -> Embeddings:
        if self.errors:
            error, *self.errors = self.errors
            raise error
        return Embeddings([[float(any(w in t for w in ws)) + 0.01 for ws in GROUPS] for t in call.texts])


GROUPS = [("cat", "pet", "dog"), ("Paris", "lives", "where")]


def facts(*told: str) -> str:
    return json.dumps({"facts": told})


@pytest.fixture(params=["memory", "file"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "memory.db" if request.param == "file" else None


async def test_facts_are_remembered_found_and_forgotten(file: Path | None) -> None:
    memory = LongTermMemory(session="s", file=file)
    cat = await memory.remember("The user has a cat named Mia.")
    await memory.remember("The user lives in Paris.")
    found = await memory.recall("what is the cat called?")
    assert [(passage.id, passage.text) for passage in found] == [(cat, "The user has a cat named Mia.")]
    await memory.forget(cat)
    await memory.forget("unknown")
    assert await memory.recall("cat") == []


async def test_facts_are_found_by_what_they_mean(file: Path | None) -> None:
    memory = LongTermMemory(session="s", file=file, embedder=Meaning(), top_k=1)
    await memory.remember("Mia is the cat of the user.")
    await memory.remember("The user lives in Paris.")
    assert [passage.text for passage in await memory.recall("any pet?")] == ["Mia is the cat of the user."]


async def test_same_fact_is_kept_once(file: Path | None) -> None:
    memory = LongTermMemory(session="s", file=file)
    idents = {
        await memory.remember(fact) for fact in ("The user has a cat.", "the  user has a CAT ", "The user has a cat.")
    }
    assert len(idents) == 1
    assert [passage.text for passage in await memory.recall("cat")] == ["The user has a cat."]


async def test_what_fits_stands_behind_the_window(file: Path | None) -> None:
    memory = LongTermMemory(session="s", file=file)
    await memory.remember("The user has a cat.")
    said = [say("be kind", "system"), say("hello"), say("hi", "assistant")]
    await memory.aput(*said)
    assert await memory.aget() == said
    assert await memory.aget("nothing known") == said
    *window, told = await memory.aget("what about my cat?")
    assert window == said
    assert (told.role, told.text) == ("user", f"{INTRODUCTION}\n- The user has a cat.")
    assert len(memory) == 3


async def test_facts_take_a_share_of_the_limit_only() -> None:
    memory = LongTermMemory(session="s", token_limit=400, counter=Letters(), top_k=50)
    for n in range(20):
        await memory.remember(f"Fact {n} about the cat.")
    said = [say(f"{n:02}" + "x" * 48) for n in range(10)]
    await memory.aput(*said)
    assert await memory.aget() == said[2:]
    *window, told = await memory.aget("cat")
    assert window == said[4:]
    assert 50 < len(told.text) <= 100
    assert sum(len(message.text) for message in [*window, told]) <= 400


async def test_facts_are_drawn_from_what_leaves_the_window(file: Path | None) -> None:
    said = [say(f"I have {n} cats. " + "x" * 80) for n in range(5)]
    with ScriptedModel([facts("The user has 2 cats.", "The user has 2 cats", "The user likes x.")]) as model:
        memory = LongTermMemory(model, session="s", token_limit=400, counter=Letters(), file=file)
        await memory.aput(*said[:4])
        await memory.aput(said[4])
    (asked,) = model.calls
    assert asked.output is not None
    assert all((message.text in asked.messages[0].text) == (message in said[:3]) for message in said)
    assert {passage.text for passage in await memory.recall("user")} == {"The user has 2 cats.", "The user likes x."}
    assert (await memory.aget())[-1] == said[-1]


async def test_each_message_is_read_once_for_facts() -> None:
    told: list[str] = []

    def answer(messages: Sequence[ChatMessage]) -> str:
        told.append(messages[-1].text)
        return facts()

    memory = LongTermMemory(ScriptedModel([answer] * 20), token_limit=400, counter=Letters())
    for n in range(30):
        await memory.aput(say(f"<{n}>" + "x" * 80))
    text = "".join(told)
    read = [text.count(f"<{n}>") for n in range(30)]
    assert read == sorted(read, reverse=True)
    assert set(read) == {0, 1}
    assert sum(read) > 20


@pytest.mark.parametrize("failure", [LLMServerError("busy"), "no JSON"])
async def test_failing_model_loses_nothing_and_is_asked_again(file: Path | None, failure: Any) -> None:
    with ScriptedModel([failure] * (2 if isinstance(failure, str) else 1) + [facts("The user has a cat.")]) as model:
        memory = LongTermMemory(model, session="s", token_limit=200, counter=Letters(), file=file)
        with record() as recorder:
            await memory.aput(*(say(f"{n}" + "x" * 89) for n in range(3)))
        extract = recorder.find(Kind.MEMORY, "extract")[0]
        assert (extract.outcome, len(memory)) == ("error", 3)
        await memory.aput(say("now"))
    assert len(await memory.recall("cat")) == 1


async def test_failing_embedder_loses_nothing() -> None:
    with ScriptedModel([facts("The user has a cat.")] * 2) as model:
        memory = LongTermMemory(model, embedder=Meaning(LLMServerError("busy")), token_limit=200, counter=Letters())
        await memory.aput(*(say(f"{n}" + "x" * 89) for n in range(3)))
        assert await memory.recall("cat") == []
        await memory.aput(say("now"))
    assert len(await memory.recall("cat")) == 1


async def test_failing_embedder_leaves_the_words_to_find_by() -> None:
    embedder = Meaning()
    memory = LongTermMemory(embedder=embedder)
    await memory.remember("The user has a cat.")
    embedder.errors = [LLMServerError("busy")]
    assert (await memory.aget("my cat"))[-1].text.endswith("The user has a cat.")
    embedder.errors = [LLMServerError("busy")]
    with pytest.raises(LLMServerError):
        await memory.recall("cat")


async def test_sessions_know_nothing_of_each_other(tmp_path: Path) -> None:
    one, two = (LongTermMemory(session=name, file=tmp_path / "memory.db") for name in ("one", "two"))
    await one.remember("The user has a cat.")
    await two.remember("The user has a cat and a dog.")
    await two.aput(say("hello"))
    assert [passage.text for passage in await one.recall("cat")] == ["The user has a cat."]
    await one.aclear()
    assert await one.recall("cat") == []
    assert (len(await two.recall("cat")), len(two)) == (1, 1)


async def test_facts_are_there_after_a_restart(tmp_path: Path) -> None:
    await LongTermMemory(session="s", file=tmp_path / "memory.db", embedder=Meaning()).remember("The user has a cat.")
    again = LongTermMemory(session="s", file=tmp_path / "memory.db", embedder=Meaning())
    assert len(await again.recall("a pet")) == 1


async def test_cancelled_put_loses_nothing(file: Path | None) -> None:
    asked = asyncio.Event()

    class Slow(Meaning):
        async def answer(self, call: EmbeddingsCall) -> Embeddings:
            asked.set()
            await asyncio.Event().wait()
            return await super().answer(call)

    with ScriptedModel([facts("The user has a cat.")] * 2) as model:
        memory = LongTermMemory(model, session="s", token_limit=200, counter=Letters(), file=file, embedder=Slow())
        put = asyncio.create_task(memory.aput(*(say(f"{n}" + "x" * 89) for n in range(3))))
        await asked.wait()
        put.cancel()
        with pytest.raises(asyncio.CancelledError):
            await put
        assert len(memory) == 3
        memory.embedder = Meaning()
        await memory.aput(say("now"))
    assert len(await memory.recall("cat")) == 1


async def test_model_that_declines_has_failed() -> None:
    refused = ChatMessage(role="assistant", content=[RefusalPart(text="I will not.")])
    with ScriptedModel([Reply(message=refused)]) as model, record() as recorder:
        memory = LongTermMemory(model, token_limit=100, counter=Letters())
        await memory.aput(say("x" * 80), say("y" * 80))
    (extract,) = recorder.find(Kind.MEMORY, "extract")
    assert isinstance(recorder.errors[extract.ref.id], LLMResponseError)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"llm": "gpt"}, r"LongTermMemory\('gpt'\): it is no model"),
        ({"embedder": "ada"}, r"embedder='ada'\): it has no embed"),
        ({"top_k": 0}, r"top_k=0\): it is a whole number of 1 or more"),
        ({"prompt": "Facts!"}, r"lacks \{messages\}"),
        ({"token_limit": 0}, r"LongTermMemory\(token_limit=0\)"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(MemoryInputError, match=said):
        LongTermMemory(**settings)


@pytest.mark.parametrize("fact", ["", "  ", 7])
async def test_what_is_no_fact_is_refused(fact: Any) -> None:
    with pytest.raises(MemoryInputError, match="a fact is a sentence"):
        await LongTermMemory().remember(fact)


def test_prompts_are_shown() -> None:
    assert LongTermMemory().prompts() == {"extract": EXTRACT, "introduction": INTRODUCTION}


async def test_operations_tell_what_is_done(file: Path | None) -> None:
    memory = LongTermMemory(session="s", file=file)
    with record() as recorder:
        ident = await memory.remember("The user has a cat.")
        await memory.recall("cat")
        got = await memory.aget("cat")
        await memory.forget(ident)
    operations = recorder.find(Kind.MEMORY)
    assert [op.name for op in operations] == ["put", "recall", "get", "delete"]
    assert [op.subject.query for op in operations] == ["", "cat", "cat", ""]
    assert operations[2].result == got
    assert not recorder.open()


class Wide(Meaning):
    """Another embedder, with longer vectors, which says how often it is asked."""

    def __init__(self, model: str = "wide") -> None:
        super().__init__()
        self.model = model
        self.texts: list[str] = []

    async def answer(self, call: EmbeddingsCall) -> Embeddings:
        self.texts += call.texts
        return Embeddings([[float("cat" in text or "pet" in text), 0.5, 0.5, 0.5] for text in call.texts])


async def test_facts_of_another_embedder_or_of_none_are_embedded_anew_once(tmp_path: Path) -> None:
    file = tmp_path / "memory.db"
    await LongTermMemory(session="s", file=file).remember("Mia is the cat of the user.")
    first = LongTermMemory(session="s", file=file, embedder=Meaning(), top_k=1)
    assert [passage.text for passage in await first.recall("any pet?")] == ["Mia is the cat of the user."]
    await first.remember("The user lives in Paris.")

    wide = Wide()
    second = LongTermMemory(session="s", file=file, embedder=wide, top_k=1)
    assert [passage.text for passage in await second.recall("any pet?")] == ["Mia is the cat of the user."]
    assert sorted(wide.texts[:-1]) == ["Mia is the cat of the user.", "The user lives in Paris."]
    wide.texts.clear()
    await second.remember("The user has a dog.")
    assert [passage.text for passage in await second.recall("any pet?")] == ["Mia is the cat of the user."]
    assert wide.texts == ["The user has a dog.", "any pet?"]

    assert len(await first.recall("any pet?")) == 1, "the first one goes on with its own"
    same_length = Wide("other")
    await LongTermMemory(session="s", file=file, embedder=same_length).recall("cat")
    assert len(same_length.texts) == 4


async def test_failing_embedder_leaves_the_facts_of_the_one_before(tmp_path: Path) -> None:
    file = tmp_path / "memory.db"
    await LongTermMemory(session="s", file=file, embedder=Meaning()).remember("The user has a cat.")
    renamed = Meaning(LLMServerError("busy"))
    renamed.model = "renamed"
    memory = LongTermMemory(session="s", file=file, embedder=renamed)
    assert (await memory.aget("cat"))[-1].text.endswith("The user has a cat.")
    assert len(await memory.recall("pet")) == 1


async def test_fact_that_is_forgotten_while_all_are_embedded_anew_stays_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "memory.db"
    plain = LongTermMemory(session="s", file=file)
    cat, dog = await plain.remember("The user has a cat."), await plain.remember("The user has a dog.")

    class Forgetting(Meaning):
        async def answer(self, call: EmbeddingsCall) -> Embeddings:
            await plain.forget(cat)
            return await super().answer(call)

    memory = LongTermMemory(session="s", file=file, embedder=Forgetting())
    assert [passage.id for passage in await memory.recall("pet")] == [dog]


async def test_short_fact_has_room_where_a_longer_one_before_it_had_none() -> None:
    memory = LongTermMemory(token_limit=400, counter=Letters())
    await memory.remember("cat cat cat cat " + "x" * 100)
    await memory.remember("The user has a cat.")
    assert (await memory.aget("cat"))[-1].text == f"{INTRODUCTION}\n- The user has a cat."


async def test_query_that_is_no_text_is_refused() -> None:
    nothing: Any = None
    with pytest.raises(MemoryInputError, match=r"aget\(None\): a query is a string"):
        await LongTermMemory().aget(nothing)
    with pytest.raises(MemoryInputError, match=r"recall\(None\): a query is a string"):
        await LongTermMemory().recall(nothing)
