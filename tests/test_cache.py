"""Answers that are remembered: the same call costs nothing, another one is asked, and nothing wrong is kept."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from pydantic import BaseModel

from agentflow.retry import Retry
from agentflow.testing import record
from agentflow_llm import (
    BaseChatModel,
    ChatMessage,
    LLMError,
    LLMOutputError,
    LLMResponseError,
    LLMServerError,
    Reply,
    ToolCallPart,
    ToolDefinition,
    Usage,
)
from agentflow_llm.cache import Cached
from agentflow_llm.fallback import Fallback
from agentflow_llm.retrying import Retrying
from flaky import HELLO, Flaky, FlakyEmbedder

SEARCH = ToolDefinition(name="search", parameters={"type": "object"})


def say(text: str) -> list[ChatMessage]:
    return [ChatMessage(role="user", content=text)]


@pytest.fixture(params=["memory", "file"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return None if request.param == "memory" else tmp_path / "cache.db"


async def test_same_call_is_asked_once_and_then_costs_nothing(file: Path | None) -> None:
    inner = Flaky()
    cached = Cached(inner, file=file)
    with record() as seen:
        first = await cached.chat(say("Hello"))  # another message, with another id, that says the same
        again = await cached.chat(say("Hello"))
    assert len(inner.asked) == 1
    assert first.usage == inner.usage
    assert again.usage == Usage(cost=0.0)
    assert (again.text, again.finish_reason) == (first.text, "stop")
    assert again.message.id != first.message.id
    assert [[note.facts for note in seen.notes[op.ref.id]] for op in seen.operations] == [
        [{"hit": False}],
        [{"hit": True}],
    ]
    assert (first.usage + again.usage).cost == 0.5


@pytest.mark.parametrize(
    "other",
    [
        {"temperature": 0.5},
        {"max_tokens": 5},
        {"stop": "END"},
        {"seed": 1},
        {"reasoning": "low"},
        {"extra": {"user": "u"}},
        {"tools": [SEARCH]},
        {"tools": [SEARCH], "tool_choice": "none"},
        {"messages": [*HELLO, *HELLO]},
        {"messages": [ChatMessage(role="system", content="Hello")]},
    ],
)
async def test_another_call_is_asked_by_itself(other: dict[str, Any]) -> None:
    inner = Flaky()
    cached = Cached(inner)
    messages = other.pop("messages", HELLO)
    await cached.chat(HELLO)
    await cached.chat(messages, **other)
    await cached.chat(messages, **other)
    assert len(inner.asked) == 2


async def test_another_model_server_or_provider_has_its_own_answers(tmp_path: Path) -> None:
    served = Flaky()
    served.server_address = "127.0.0.1"
    clients = [Flaky(), served, Flaky(model="b"), Flaky(provider="b")]
    for client in clients * 2:
        await Cached(client, file=tmp_path / "cache.db").chat(HELLO)
    assert [len(client.asked) for client in clients] == [1, 1, 1, 1]


async def test_file_is_shared_and_outlives_its_users(tmp_path: Path) -> None:
    await Cached(Flaky(), file=tmp_path / "cache.db").chat(HELLO)
    later = Flaky()
    assert (await Cached(later, file=str(tmp_path / "cache.db")).chat(HELLO)).text == "one two three four"
    assert later.asked == []


async def test_answer_that_cannot_be_read_any_more_is_asked_anew(tmp_path: Path) -> None:
    inner = Flaky()
    await Cached(inner, file=tmp_path / "cache.db").chat(HELLO)
    db = sqlite3.connect(tmp_path / "cache.db")
    db.execute('UPDATE cached_answers SET value = \'{"of": "another version"}\'')
    db.commit()
    db.close()
    for _ in range(2):
        assert (await Cached(inner, file=tmp_path / "cache.db").chat(HELLO)).text == "one two three four"
    assert len(inner.asked) == 2


async def test_tool_calls_come_back_as_they_were() -> None:
    class Calling(Flaky):
        def _reply(self) -> Reply:
            part = ToolCallPart(id="1", name="search", arguments='{"query": "x"}')
            return Reply(
                message=ChatMessage(role="assistant", content=[part]), model="m", id="r", finish_reason="tool_calls"
            )

    cached = Cached(Calling())
    first, again = [await cached.chat(HELLO, tools=[SEARCH]) for _ in range(2)]
    assert (again.tool_calls, again.model, again.id, again.finish_reason) == (first.tool_calls, "m", "r", "tool_calls")
    streamed = [delta async for delta in cached.stream(HELLO, tools=[SEARCH])]
    assert [(delta.type, delta.name, delta.text) for delta in streamed] == [("tool_call", "search", '{"query": "x"}')]


async def test_stream_is_remembered_when_it_was_read_to_its_end(file: Path | None) -> None:
    inner = Flaky()
    cached = Cached(inner, file=file)
    async with cached.stream(HELLO) as left:
        await anext(left)
    await cached.stream(HELLO).read()
    assert len(inner.asked) == 2
    stream = cached.stream(HELLO)
    assert [delta.text async for delta in stream] == ["one ", "two ", "three ", "four"]
    assert stream.reply.usage == Usage(cost=0.0)
    assert (await cached.chat(HELLO)).text == "one two three four"
    assert (len(inner.asked), inner.open) == (2, 0)


@pytest.mark.parametrize("streamed", [False, True])
async def test_error_is_never_remembered(*, streamed: bool) -> None:
    inner = Flaky(LLMServerError("down"), retry=None)
    cached = Cached(inner)
    with pytest.raises(LLMServerError):
        await (cached.stream(HELLO).read() if streamed else cached.chat(HELLO))
    await cached.chat(HELLO)
    assert len(inner.asked) == 2


class Person(BaseModel):
    name: str


async def test_output_is_made_anew_of_what_is_remembered() -> None:
    inner = Flaky(says=['{"name": "Ada"}'])
    cached = Cached(inner)
    replies = [await cached.chat(HELLO, output=Person) for _ in range(2)]
    assert [reply.output for reply in replies] == [Person(name="Ada")] * 2
    assert len(inner.asked) == 1


async def test_answer_that_is_not_the_output_is_not_remembered() -> None:
    inner = Flaky(says=["no JSON"])
    cached = Cached(inner)
    for _ in range(2):
        with pytest.raises(LLMOutputError):
            await cached.chat(HELLO, output=Person)
    assert len(inner.asked) == 4  # each with one repair


async def test_least_recently_used_goes(file: Path | None) -> None:
    inner = Flaky()
    cached = Cached(inner, most=2, file=file)
    for text in ("a", "b", "a", "c", "a", "b"):
        await cached.chat(say(text))
    assert [call.messages[0].text for call in inner.asked] == ["a", "b", "c", "b"]


async def test_what_has_no_json_is_asked_every_time() -> None:
    inner = Flaky()
    cached = Cached(inner)
    for _ in range(2):
        await cached.chat(HELLO, extra={"what": object()})
        await cached.chat(HELLO, extra=MappingProxyType({"what": MappingProxyType({"a": (1, 2)})}))
    assert len(inner.asked) == 3


async def test_embedder_is_asked_for_new_texts_only(file: Path | None) -> None:
    inner = FlakyEmbedder()
    cached = Cached(inner, file=file)
    with record() as seen:
        await cached.embed(["a", "bb"])
        found = await cached.embed(["bb", "ccc", "a", "ccc"])
        known = await cached.embed(["a"])
    assert [list(call.texts) for call in inner.asked] == [["a", "bb"], ["ccc"]]
    assert [list(vector) for vector in found.vectors] == [[2, 98], [3, 99], [1, 97], [3, 99]]
    assert (found.usage, known.usage) == (Usage(input_tokens=1, http_requests=1), Usage(cost=0.0))
    assert (found.model, known.model) == ("vectors-1", "vectors-1")
    assert [[note.facts["hit"] for note in seen.notes[op.ref.id]] for op in seen.operations] == [
        [False],
        [False],
        [True],
    ]


async def test_vectors_of_other_dimensions_are_others(tmp_path: Path) -> None:
    clients = [FlakyEmbedder(dimensions=2), FlakyEmbedder(dimensions=3), FlakyEmbedder()]
    for client in clients * 2:
        await Cached(client, file=tmp_path / "cache.db").embed(["a"])
    assert [len(client.asked) for client in clients] == [1, 1, 1]


async def test_too_few_vectors_are_no_answer() -> None:
    class Lazy(FlakyEmbedder):
        async def answer(self, call: Any) -> Any:
            found = await super().answer(call)
            return type(found)(found.vectors[1:], found.usage, found.model)

    with pytest.raises(LLMResponseError, match="1 vectors for 2 texts"):
        await Cached(Lazy()).embed(["a", "b"])


async def test_retries_inside_and_outside_are_the_same() -> None:
    inside, outside = Flaky(), Flaky()
    models: list[BaseChatModel] = [Cached(Retrying(inside)), Retrying(Cached(outside))]
    for inner, cached in zip((inside, outside), models, strict=True):
        await asyncio.gather(cached.chat(HELLO), cached.chat(say("other")))
        await cached.chat(HELLO)
        assert len(inner.asked) == 2


def test_cache_of_nothing_is_refused() -> None:
    with pytest.raises(LLMError, match="most=1 or more"):
        Cached(Flaky(), most=0)


@pytest.mark.parametrize("way", ["chat", "stream"])
@pytest.mark.parametrize("policy", [None, Retry(attempts=2, wait=0)])
async def test_answer_of_a_stopgap_is_not_remembered(file: Path | None, way: str, policy: Retry | None) -> None:
    first, second = Flaky(LLMServerError("down"), retry=None), Flaky(model="other")
    both: Any = Fallback([first, second])
    inner: Any = both if policy is None else Retrying(both, policy)
    cached: Any = Cached(inner, file=file)
    models = []
    for _ in range(3):
        reply = await (cached.chat(HELLO) if way == "chat" else cached.stream(HELLO).read())
        models.append(reply.model)
    assert models == ["other", "flaky", "flaky"]
    assert (len(first.asked), len(second.asked)) == (2, 1)


async def test_stopgap_that_remembers_its_own_answers_does_so() -> None:
    first, second = Flaky(*[LLMServerError("down") for _ in range(2)], retry=None), Flaky(model="other")
    both = Cached(Fallback([first, Cached(second)]))
    for _ in range(2):
        assert (await both.chat(HELLO)).model == "other"
    assert (len(first.asked), len(second.asked)) == (2, 1)


async def test_vectors_of_a_stopgap_are_not_remembered() -> None:
    first, second = FlakyEmbedder(LLMServerError("down"), retry=None), FlakyEmbedder()
    cached = Cached(Fallback([first, second]))
    for _ in range(3):
        assert [list(vector) for vector in (await cached.embed(["a"])).vectors] == [[1, 97]]
    assert (len(first.asked), len(second.asked)) == (2, 1)


@pytest.mark.parametrize(
    "others",
    [{"temperature": 0.5}, {"max_tokens": 5}, {"stop": "END"}, {"seed": 1}, {"extra": {"user": "u"}}, {}],
)
@pytest.mark.parametrize("inside", [False, True])
async def test_models_with_other_options_share_no_answers(others: Any, tmp_path: Path, *, inside: bool) -> None:
    models = [Flaky(temperature=0.1), Flaky(**others)]
    for model in models * 2:
        client: Any = Fallback([model]) if inside else model
        cached: Any = Cached(client, file=tmp_path / "cache.db")
        await cached.chat(HELLO)
    assert [len(model.asked) for model in models] == [1, 1]


async def test_option_of_the_constructor_is_the_same_as_that_of_a_call(tmp_path: Path) -> None:
    usual, plain = Flaky(temperature=0.1), Flaky()
    await Cached(usual, file=tmp_path / "cache.db").chat(HELLO)
    again: BaseChatModel = Cached(plain, file=tmp_path / "cache.db")
    assert (await again.chat(HELLO, temperature=0.1)).usage.cost == 0.0
    assert plain.asked == []
