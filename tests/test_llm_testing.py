"""The checks that every client must pass: ours do, and each check finds what it is there to find."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentflow.clock import use_clock
from agentflow.observe import Kind, operation
from agentflow.retry import Retry
from agentflow.testing import FakeClock
from agentflow_llm.cache import Cached
from agentflow_llm.chat import BaseChatModel
from agentflow_llm.documents import Chunk, VectorStore
from agentflow_llm.embedding import BaseEmbedder
from agentflow_llm.errors import LLMConnectionError, LLMError
from agentflow_llm.fallback import Fallback
from agentflow_llm.hash_embedder import HashEmbedder
from agentflow_llm.long_term_memory import LongTermMemory
from agentflow_llm.memory import ChatMemory, Memory
from agentflow_llm.messages import ChatMessage, Delta, Reply, TextPart, ToolCallPart, Usage
from agentflow_llm.model import ChatModel, Embedder, Embeddings, Reranker
from agentflow_llm.offline import OfflineModel
from agentflow_llm.openai import OpenAI
from agentflow_llm.openai_embedder import OpenAIEmbedder
from agentflow_llm.rate_limit import RateLimited
from agentflow_llm.records import ChatCall, EmbeddingsCall, Passage, RerankCall
from agentflow_llm.rerank import ModelReranker
from agentflow_llm.responses import OpenAIResponses
from agentflow_llm.retrying import Retrying
from agentflow_llm.scripted import ScriptedModel
from agentflow_llm.server import LoopbackServer, offline_answer
from agentflow_llm.stream import ReplyStream
from agentflow_llm.summary_memory import SummaryMemory
from agentflow_llm.testing import (
    check_chat_model,
    check_embedder,
    check_memory,
    check_reranker,
    check_vector_store,
)
from agentflow_llm.vector_store import SqliteVectorStore

NOWHERE = "http://127.0.0.1:1/v1"


async def test_offline_model_passes() -> None:
    checked = await check_chat_model(OfflineModel())
    assert (checked.passed[0], len(checked.passed), checked.skipped) == ("names", 15, ("failing",))
    assert str(checked).startswith("OfflineModel('offline') passed names, reply, ")
    assert str(checked).endswith("; not checked: failing.")


@pytest.mark.parametrize("kind", [OpenAI, OpenAIResponses])
async def test_openai_passes_through_a_real_socket(kind: type[OpenAI | OpenAIResponses]) -> None:
    with LoopbackServer(offline_answer) as server:
        async with (
            kind("m", base_url=server.base_url, api_key="k") as model,
            kind("m", base_url=NOWHERE, api_key="k", retry=None) as dead,
        ):
            checked = await check_chat_model(model, failing=dead)
    assert checked.skipped == ()


async def test_scripted_model_passes() -> None:
    def turn(messages: Sequence[ChatMessage]) -> Any:
        last = messages[-1].text
        if "Look it up" in last:
            return ToolCallPart(id="1", name="look_up_population", arguments='{"city": "Paris"}')
        return {"city": "Paris"} if "Eiffel" in last else "Hello, one two three."

    failing = ScriptedModel([LLMConnectionError("down")] * 2)
    assert (await check_chat_model(ScriptedModel([turn] * 100), failing=failing)).skipped == ()


async def test_stores_and_embedders_pass() -> None:
    await check_embedder(HashEmbedder())
    await check_memory(ChatMemory())
    await check_vector_store(SqliteVectorStore())
    with LoopbackServer() as server:
        async with OpenAIEmbedder("m", base_url=server.base_url, api_key="k") as embedder:
            await check_embedder(embedder)


def wrapped(client: Any) -> list[Any]:
    """A client in each of the wrappers, and in several."""
    other: Any = type(client)()
    key = f"checks of {client!r}"
    limited: Any = RateLimited(client, concurrency=2, key=f"{key}, several")
    several: Any = Fallback([limited, other])
    return [
        Retrying(client, Retry(2, wait=0)),
        RateLimited(client, requests_per_minute=60_000, key=key),
        Fallback([client, other]),
        Cached(client),
        Retrying(several, Retry(2, wait=0)),
    ]


async def test_wrappers_pass_around_models_and_embedders() -> None:
    for model in wrapped(OfflineModel()):
        await check_chat_model(model)
    for embedder in wrapped(HashEmbedder()):
        await check_embedder(embedder)


async def test_wrappers_of_a_dead_server_pass() -> None:
    def turned(model: OpenAI) -> ChatModel:
        return Retrying(Fallback([RateLimited(model, concurrency=2, key="dead"), model]), Retry(2, wait=0))

    with LoopbackServer(offline_answer) as server:
        async with (
            OpenAI("m", base_url=server.base_url, api_key="k") as model,
            OpenAI("m", base_url=NOWHERE, api_key="k") as dead,
        ):
            assert (await check_chat_model(turned(model), failing=turned(dead))).skipped == ()


async def test_memories_and_rerankers_pass(tmp_path: Path) -> None:
    await check_memory(ChatMemory(file=tmp_path / "chat.db", token_limit=2000))
    await check_memory(SummaryMemory(OfflineModel(), token_limit=2000))
    await check_memory(LongTermMemory(embedder=HashEmbedder()))
    await check_reranker(ModelReranker(OfflineModel()))
    await check_vector_store(SqliteVectorStore(tmp_path / "store.db"))


# what follows is right, but for one thing each


class Right(BaseChatModel):
    """Says what the checks want to hear."""

    def __init__(self) -> None:
        super().__init__("right", "tests")

    async def answer(self, call: ChatCall) -> Reply:
        await asyncio.sleep(0)
        part: TextPart | ToolCallPart = TextPart(text="Hello there, you.")
        if call.parameters.get("tool_choice") == "required":
            part = ToolCallPart(id="1", name=call.tools[0].name, arguments="{}")
        elif call.output is not None:
            part = TextPart(text='{"city": "Paris"}')
        return Reply(message=ChatMessage(role="assistant", content=[part]), finish_reason="stop")


async def test_model_that_is_right_passes() -> None:
    await check_chat_model(Right())


class Nameless(Right):
    def __init__(self) -> None:
        super().__init__()
        self.provider = ""


class Silent(Right):
    async def answer(self, call: ChatCall) -> Reply:
        return Reply(message=ChatMessage(role="assistant"))


class AsUser(Right):
    async def answer(self, call: ChatCall) -> Reply:
        return Reply(message=ChatMessage(role="user", content="Hello"))


class TextOnly(Right):
    async def chat(self, messages: Any, **options: Any) -> Any:
        return (await super().chat(messages, **options)).text


class Overpaid(Right):
    async def answer(self, call: ChatCall) -> Reply:
        reply = await super().answer(call)
        return reply.model_copy(update={"usage": Usage(input_tokens=1, cached_tokens=2)})


class Indebted(Right):
    async def answer(self, call: ChatCall) -> Reply:
        reply = await super().answer(call)
        return reply.model_copy(update={"usage": Usage(input_tokens=-1)})


class Stuttering(Right):
    async def deltas(self, call: ChatCall) -> AsyncGenerator[Delta | Reply]:
        reply = await self.answer(call)
        for _ in range(2):
            yield Delta(text=reply.text)
        yield reply


class Unstreamed(Right):
    async def deltas(self, call: ChatCall) -> AsyncGenerator[Delta | Reply]:
        yield await self.answer(call)


class NotAStream(Right):
    async def stream(self, messages: Any, **options: Any) -> Any:  # type: ignore[override]  # because it is wrong
        return super().stream(messages, **options)


class Leaving(Right):
    """Leaves a task behind whenever it streams."""

    def __init__(self) -> None:
        super().__init__()
        self.left: list[asyncio.Task[None]] = []

    async def deltas(self, call: ChatCall) -> AsyncGenerator[Delta | Reply]:
        self.left.append(asyncio.create_task(asyncio.sleep(3600)))
        async for item in super().deltas(call):
            yield item


class BadEnd(ReplyStream):
    async def __anext__(self) -> Delta:
        try:
            return await super().__anext__()
        except StopAsyncIteration:
            if self._stopped:
                raise RuntimeError("closed") from None
            raise


class Surprising(Right):
    def stream(self, messages: Any, **options: Any) -> ReplyStream:
        return BadEnd(super().stream(messages, **options)._items)  # noqa: SLF001 because it is one that ends badly


class Deaf(Right):
    """Takes no notice of being cancelled."""

    async def answer(self, call: ChatCall) -> Reply:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return await super().answer(call)


class SameAgain(Right):
    async def answer(self, call: ChatCall) -> Reply:
        reply = await super().answer(call)
        return reply.model_copy(update={"message": reply.message.model_copy(update={"id": "msg_1"})})


class Grasping(Right):
    async def chat(self, messages: Any, **options: Any) -> Reply:
        reply = await super().chat(messages, **options)
        messages.append(reply.message)
        return reply


class Careless(Right):
    async def chat(self, messages: Any, **options: Any) -> Reply:
        options.pop("temperatur", None)
        return await super().chat(messages, **options)


class Unseen(Right):
    async def _call(self, call: ChatCall, timeout: float | None) -> Reply:
        return await self.in_time(call, timeout)


class SeenTwice(Right):
    async def answer(self, call: ChatCall) -> Reply:
        with operation(Kind.CHAT, "again"):
            return await super().answer(call)


class WithoutResult(Right):
    async def chat(self, messages: Any, **options: Any) -> Reply:
        reply = await super().chat(messages, **options)
        return reply.model_copy(update={"id": "other"})


class Toolless(Right):
    async def answer(self, call: ChatCall) -> Reply:
        return await super().answer(replace(call, parameters={}))


class BadArguments(Right):
    async def answer(self, call: ChatCall) -> Reply:
        reply = await super().answer(call)
        content = [part.model_copy(update={"arguments": "{"}) for part in reply.tool_calls] or reply.message.content
        return reply.model_copy(update={"message": ChatMessage(role="assistant", content=content)})


class Forgetful(Right):
    """Cannot go on after a tool."""

    async def answer(self, call: ChatCall) -> Reply:
        if call.messages[-1].role == "tool":
            raise KeyError("tool")
        return await super().answer(call)


class Shapeless(Right):
    def call_of(self, messages: Any, options: Any) -> ChatCall:
        return replace(super().call_of(messages, options), output=None)


class Impatient(Right):
    async def chat(self, messages: Any, **options: Any) -> Reply:
        if options.get("timeout"):
            raise ValueError("late")
        return await super().chat(messages, **options)


class Hanging(Right):
    async def answer(self, call: ChatCall) -> Reply:
        if "Eiffel" in call.messages[-1].text:
            await asyncio.Event().wait()
        return await super().answer(call)


@pytest.mark.parametrize(
    ("kind", "check", "told"),
    [
        (Nameless, "names", "Its provider is ''"),
        (Silent, "reply", "Its reply says nothing"),
        (AsUser, "reply", "the role 'user'"),
        (TextOnly, "reply", "answers with 'Hello there, you.'. Return a Reply"),
        (Overpaid, "usage", "cached_tokens=2, more than input_tokens=1"),
        (Indebted, "usage", "input_tokens=-1"),
        (Stuttering, "stream", "Make the reply of these pieces"),
        (Unstreamed, "stream", "Its stream has no pieces"),
        (NotAStream, "stream", "stream itself is no coroutine"),
        (Leaving, "close", "leaves tasks running: Task-"),
        (Leaving, "close_elsewhere", "leaves tasks running: Task-"),
        (Surprising, "close_elsewhere", "gets RuntimeError('closed')"),
        (Deaf, "cancel", "Let CancelledError through"),
        (SameAgain, "concurrent", "messages of the same id"),
        (Grasping, "unchanged", "Copy what you have to change"),
        (Careless, "options", "unknown option temperatur=0"),
        (Unseen, "operation", "A call is 0 chat operations"),
        (SeenTwice, "operation", "A call is 2 chat operations"),
        (WithoutResult, "operation", "not its reply as the result"),
        (Toolless, "tools", "it calls no tool"),
        (BadArguments, "tools", "no JSON object: '{'"),
        (Toolless, "tool_results", "skip={'tools', 'tool_results'}"),
        (Forgetful, "tool_results", "It raises KeyError: 'tool'"),
        (Shapeless, "output", "output=None and no refusal"),
        (Impatient, "errors", "raises ValueError('late'). Raise an LLMTimeoutError"),
    ],
)
@pytest.mark.filterwarnings("ignore:coroutine 'NotAStream.stream' was never awaited:RuntimeWarning")
async def test_each_check_of_models_finds_its_defect(kind: type[Right], check: str, told: str) -> None:
    model = kind()
    with pytest.raises(AssertionError) as caught:
        await check_chat_model(model)
    for task in model.left if isinstance(model, Leaving) else ():
        task.cancel()
    first, *lines = str(caught.value).splitlines()
    assert first.startswith(f"{kind.__name__}('right') fails {len(lines)} of 15 checks:")
    assert any(line.startswith(f"- {check}: ") and told in line for line in lines), str(caught.value)


class Unhurried(Right):
    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self.clock = clock

    async def chat(self, messages: Any, **options: Any) -> Reply:
        if options.pop("timeout", None):
            await self.clock.advance(5)
        return await super().chat(messages, **options)


async def test_model_that_takes_no_notice_of_a_limit_on_time_is_found() -> None:
    with use_clock(FakeClock()) as clock, pytest.raises(AssertionError, match=r"errors: With timeout=.* after 5\.0 s"):
        await check_chat_model(Unhurried(clock))


class Raw(Right):
    async def answer(self, call: ChatCall) -> Reply:
        raise OSError("raw")


@pytest.mark.parametrize(("failing", "told"), [(Raw(), "Raise an LLMError from it"), (Right(), "Give one that cannot")])
async def test_errors_that_are_not_ours_are_found(failing: ChatModel, told: str) -> None:
    with pytest.raises(AssertionError, match=rf"(?s)^Right.* fails 1 of 16 checks.*- failing: .*{told}"):
        await check_chat_model(Right(), failing=failing)


async def test_check_that_does_not_end_fails() -> None:
    with pytest.raises(AssertionError, match=r"fails 1 of 15.*\n- output: It did not come to its end within 0\.05 s"):
        await check_chat_model(Hanging(), timeout=0.05)


async def test_what_is_left_out_is_told_and_must_be_there() -> None:
    checked = await check_chat_model(Toolless(), skip={"tools", "tool_results"})
    assert checked.skipped == ("tools", "tool_results", "failing")
    with pytest.raises(LLMError, match=r"'tool' is no check\. There are names, reply"):
        await check_chat_model(Right(), skip={"tool"})
    with pytest.raises(LLMError, match="'tool' is no check"):
        await check_chat_model(Right(), skip="tool")


class RightEmbedder(BaseEmbedder):
    """Counts letters."""

    def __init__(self) -> None:
        super().__init__("right", "tests")

    async def answer(self, call: EmbeddingsCall) -> Embeddings:
        await asyncio.sleep(0)
        return Embeddings((await HashEmbedder(64).answer(call)).vectors, Usage(), "right")


class Crossed(RightEmbedder):
    async def answer(self, call: EmbeddingsCall) -> Embeddings:
        answer = await super().answer(call)
        return replace(answer, vectors=sorted(answer.vectors, key=list))


class Short(RightEmbedder):
    async def answer(self, call: EmbeddingsCall) -> Embeddings:
        answer = await super().answer(call)
        return replace(answer, vectors=answer.vectors[:-1])


class Endless(RightEmbedder):
    async def answer(self, call: EmbeddingsCall) -> Embeddings:
        return Embeddings([[math.inf, 1.0] for _ in call.texts])


class Blind(RightEmbedder):
    async def answer(self, call: EmbeddingsCall) -> Embeddings:
        return Embeddings([[1.0, 1.0] for _ in call.texts])


class Letters(RightEmbedder):
    async def embed(self, texts: Sequence[str], *, timeout: float | None = None) -> Embeddings:
        return await super().embed(list(texts), timeout=timeout)


class Charging(RightEmbedder):
    async def answer(self, call: EmbeddingsCall) -> Embeddings:
        return replace(await super().answer(call), usage=Usage(input_tokens=-3))


class Emptying(RightEmbedder):
    async def embed(self, texts: Any, *, timeout: float | None = None) -> Embeddings:
        answer = await super().embed(list(texts) if isinstance(texts, list) else texts, timeout=timeout)
        if isinstance(texts, list):
            texts.clear()
        return answer


class Mixing(RightEmbedder):
    """Gives all that ask at once what the last one asked for."""

    texts: Sequence[str] = ()

    async def answer(self, call: EmbeddingsCall) -> Embeddings:
        self.texts = call.texts
        await asyncio.sleep(0)
        return await super().answer(replace(call, texts=self.texts))


class DeafEmbedder(RightEmbedder):
    async def answer(self, call: EmbeddingsCall) -> Embeddings:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return await super().answer(call)


class UnseenEmbedder(RightEmbedder):
    async def _call(self, call: EmbeddingsCall, timeout: float | None) -> Embeddings:
        return await self.in_time(call, timeout)


class NamelessEmbedder(RightEmbedder):
    def __init__(self) -> None:
        super().__init__()
        self.model = ""


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        (NamelessEmbedder, "names"),
        (Short, "vectors"),
        (Endless, "vectors"),
        (Blind, "vectors"),
        (Crossed, "order"),
        (Letters, "empty"),
        (Charging, "usage"),
        (Emptying, "unchanged"),
        (Mixing, "concurrent"),
        (DeafEmbedder, "cancel"),
        (UnseenEmbedder, "operation"),
    ],
)
async def test_each_check_of_embedders_finds_its_defect(kind: Callable[[], Embedder], check: str) -> None:
    await check_embedder(RightEmbedder())
    with pytest.raises(AssertionError, match=rf"\n- {check}: "):
        await check_embedder(kind())


class RightReranker:
    """The longest first."""

    async def rerank(self, query: str, passages: Sequence[Passage], *, top_k: int | None = None) -> list[Passage]:
        call = RerankCall("right", query, passages, top_k or len(passages))
        with operation(Kind.RERANK, "right", call) as seen:
            ranked = self.ranked(passages, top_k)
            if seen is not None:
                seen.op.result = ranked
            return ranked

    def ranked(self, passages: Sequence[Passage], top_k: int | None) -> list[Passage]:
        longest = sorted(passages, key=lambda passage: -len(passage.text))
        return [replace(passage, score=float(len(passage.text))) for passage in longest][:top_k]


class Dropping(RightReranker):
    def ranked(self, passages: Sequence[Passage], top_k: int | None) -> list[Passage]:
        return super().ranked(passages, top_k)[:1]


class Backwards(RightReranker):
    def ranked(self, passages: Sequence[Passage], top_k: int | None) -> list[Passage]:
        return super().ranked(passages, top_k)[::-1]


class Generous(RightReranker):
    def ranked(self, passages: Sequence[Passage], top_k: int | None) -> list[Passage]:
        return super().ranked(passages, None)


class Inventing(RightReranker):
    def ranked(self, passages: Sequence[Passage], top_k: int | None) -> list[Passage]:
        return super().ranked(passages, top_k) or [Passage("x", "x", 1.0)]


class Sorting(RightReranker):
    def ranked(self, passages: Any, top_k: int | None) -> list[Passage]:
        passages.reverse()
        return super().ranked(passages, top_k)


class Losing(RightReranker):
    busy = False

    async def rerank(self, query: str, passages: Sequence[Passage], *, top_k: int | None = None) -> list[Passage]:
        if self.busy:
            return []
        self.busy = True
        await asyncio.sleep(0)
        self.busy = False
        return await super().rerank(query, passages, top_k=top_k)


class UnseenReranker(RightReranker):
    async def rerank(self, query: str, passages: Sequence[Passage], *, top_k: int | None = None) -> list[Passage]:
        return self.ranked(passages, top_k)


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        (Dropping, "passages"),
        (Backwards, "passages"),
        (Generous, "top_k"),
        (Inventing, "empty"),
        (Sorting, "unchanged"),
        (Losing, "concurrent"),
        (UnseenReranker, "operation"),
    ],
)
async def test_each_check_of_rerankers_finds_its_defect(kind: Callable[[], Reranker], check: str) -> None:
    await check_reranker(RightReranker())
    with pytest.raises(AssertionError, match=rf"\n- {check}: "):
        await check_reranker(kind())


class RightMemory(Memory):
    """A list."""

    def __init__(self) -> None:
        self.messages: list[ChatMessage] = []

    async def put(self, messages: Sequence[ChatMessage]) -> None:
        self.messages.extend(messages)

    async def get(self, query: str) -> list[ChatMessage]:
        return list(self.messages)

    async def clear(self) -> None:
        self.messages.clear()


class Shuffled(RightMemory):
    async def get(self, query: str) -> list[ChatMessage]:
        return self.messages[::-1]


class Shared(RightMemory):
    async def get(self, query: str) -> list[ChatMessage]:
        return self.messages


class Torn(RightMemory):
    async def get(self, query: str) -> list[ChatMessage]:
        return [message for message in self.messages if message.role != "tool"]


class Interleaved(RightMemory):
    async def put(self, messages: Sequence[ChatMessage]) -> None:
        for message in messages:
            self.messages.append(message)
            await asyncio.sleep(0)


class UnseenMemory(RightMemory):
    async def aput(self, *messages: ChatMessage) -> None:
        self.messages.extend(messages)


class Remembering(RightMemory):
    async def clear(self) -> None:
        pass


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        (Shuffled, "order"),
        (Shared, "own_list"),
        (Torn, "together"),
        (Interleaved, "concurrent"),
        (UnseenMemory, "operation"),
        (Remembering, "clear"),
    ],
)
async def test_each_check_of_memories_finds_its_defect(kind: Callable[[], Memory], check: str) -> None:
    await check_memory(RightMemory())
    with pytest.raises(AssertionError, match=rf"\n- {check}: "):
        await check_memory(kind())


class Wordless(SqliteVectorStore):
    async def search(self, query: str, **options: Any) -> list[Passage]:
        options.setdefault("vector", [1.0, 0.0, 0.0])
        return await super().search("", **options)


class Vectorless(SqliteVectorStore):
    async def search(self, query: str, **options: Any) -> list[Passage]:
        options["vector"] = None
        return await super().search(query or "cat", **options)


class Unfiltered(SqliteVectorStore):
    async def search(self, query: str, **options: Any) -> list[Passage]:
        options["where"] = None
        return await super().search(query, **options)


class Limitless(SqliteVectorStore):
    async def search(self, query: str, **options: Any) -> list[Passage]:
        options["top_k"] = 100
        return await super().search(query, **options)


class Versionless(SqliteVectorStore):
    async def versions(self) -> dict[str, str]:
        return dict.fromkeys(await super().versions(), "")


class Hoarding(SqliteVectorStore):
    async def add(self, document_id: str, chunks: Sequence[Chunk], *, version: str = "") -> None:
        old = self.chunks_now(document_id)
        await super().add(document_id, [*old, *chunks], version=version)


class Clumsy(SqliteVectorStore):
    busy = False

    async def add(self, document_id: str, chunks: Sequence[Chunk], *, version: str = "") -> None:
        if not self.busy:
            self.busy = True
            await super().add(document_id, chunks, version=version)
            self.busy = False


class Keeping(SqliteVectorStore):
    async def delete(self, document_ids: Iterable[str]) -> None:
        pass


class Best(SqliteVectorStore):
    """Finds by words and vector at once what fits neither best."""

    async def search(self, query: str, **options: Any) -> list[Passage]:
        found = await super().search(query, **options)
        if query and options.get("vector"):
            found = [replace(passage, score=0.0) for passage in found[::-1]]
        return found


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        (Wordless, "words"),
        (Vectorless, "vectors"),
        (Best, "both"),
        (Unfiltered, "filters"),
        (Limitless, "top_k"),
        (Versionless, "versions"),
        (Hoarding, "replace"),
        (Clumsy, "concurrent"),
        (Keeping, "delete"),
    ],
)
async def test_each_check_of_stores_finds_its_defect(kind: Callable[[], VectorStore], check: str) -> None:
    with pytest.raises(AssertionError, match=rf"\n- {check}: "):
        await check_vector_store(kind())
