"""Runs whose traces real back ends must show: an agent with two tools, all kinds of clients, a failure, a cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, NamedTuple

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agentflow import Context, Event, StartEvent, StopEvent, Workflow, step
from agentflow.retry import ConstantDelayRetryPolicy
from agentflow_agents import DocumentIndex, FunctionAgent
from agentflow_instrumentation import setup
from agentflow_llm import ChatMessage, RateLimitError, Reply, ScriptedModel, TextPart, ToolCallPart, Usage
from agentflow_llm.documents import Document
from agentflow_llm.index import VectorStoreIndex
from agentflow_llm.memory import ChatMemory
from agentflow_llm.messages import ImagePart
from agentflow_llm.model import Embeddings
from agentflow_llm.openai import OpenAI
from agentflow_llm.openai_embedder import OpenAIEmbedder
from agentflow_llm.rerank import ModelReranker
from agentflow_llm.server import LoopbackServer
from real import Protocol, RealBackend, Seen, Trace

QUESTION = "When does the library open, and what is 2 + 3?"
ANSWER = "It opens at nine, and it is 5."
DOCUMENTS = {
    "hours.md": "# Opening hours\n\nThe library opens at nine and closes at six.\n",
    "fees.md": "# Fees\n\nA late book costs 20 cents a day.\n",
    "rooms.md": "# Rooms\n\nThe reading room has forty seats.\n",
}


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def answering(*parts: TextPart | ToolCallPart, reason: str, tokens: tuple[int, int]) -> Reply:
    """A reply that says what it cost."""
    message = ChatMessage(role="assistant", content=parts)
    usage = Usage(input_tokens=tokens[0], output_tokens=tokens[1])
    return Reply(message=message, finish_reason=reason, model="scripted-1", usage=usage)


async def ask_clerk(folder: Path) -> None:
    """The model is asked twice before it answers; then it wants both tools at once, and then it knows."""
    for name, text in DOCUMENTS.items():
        (folder / name).write_text(text, encoding="utf-8")
    search = ToolCallPart(id="call-1", name="search_documents", arguments='{"query": "library opens"}')
    sum_up = ToolCallPart(id="call-2", name="add", arguments='{"a": 2, "b": 3}')
    script = ScriptedModel(
        [
            RateLimitError("Slow down.", status=429),
            answering(search, sum_up, reason="tool_calls", tokens=(50, 7)),
            answering(TextPart(text=ANSWER), reason="stop", tokens=(80, 9)),
        ],
        retry=ConstantDelayRetryPolicy(maximum_attempts=2, delay=0),
    )
    with DocumentIndex(folder, name="library") as index, script as model:
        agent = FunctionAgent([index.search_documents, add], llm=model, name="clerk")
        assert str(await agent.run(QUESTION)) == ANSWER


PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(50_000)
LIBRARIAN = "The reading room has forty seats."


class FoundEvent(Event):
    """A passage was found."""

    text: str


class Librarian(Workflow):
    """Uses each kind of client: a memory, an index with an embedder, a reranker, a model that streams."""

    def __init__(self, server: LoopbackServer) -> None:
        super().__init__(name="librarian")
        self.embedder = OpenAIEmbedder(
            "text-embedding-3-small", base_url=server.base_url, api_key="none", provider="openai"
        )
        self.model = OpenAI("gpt-4o-mini", base_url=server.base_url, api_key="none", provider="openai")
        self.memory = ChatMemory(session="reader-7")
        rooms, fees = DOCUMENTS["rooms.md"], DOCUMENTS["fees.md"]
        documents = [Document(text=fees, id="fees.md"), Document(text=rooms, id="rooms.md")]
        self.index = VectorStoreIndex.from_documents(documents, self.embedder, name="library")

    @step
    async def find(self, ev: StartEvent) -> FoundEvent:
        question = ChatMessage(role="user", content=str(ev.question))
        await self.memory.aput(question)
        found = await self.index.as_retriever(similarity_top_k=2).aretrieve(question.text)
        best = await ModelReranker(self.model).rerank(question.text, found, top_k=1)
        return FoundEvent(text=best[0].text)

    @step
    async def answer(self, ctx: Context, ev: FoundEvent) -> StopEvent:
        picture = ChatMessage(
            role="user",
            content=[TextPart(text=ev.text), ImagePart.of(PICTURE), ImagePart(url="https://example.com/room.png")],
        )
        messages = [*await self.memory.aget(), picture]
        async with self.model, self.embedder, self.model.stream(messages, temperature=0) as stream:
            async for delta in stream:
                ctx.write_event_to_stream(Event(msg=delta.text))
        return StopEvent(result=stream.reply.text)


async def ask_librarian() -> None:
    """One run, whose model and embedder are on a server of this machine."""
    usage = Usage(input_tokens=1000, output_tokens=200)
    order, reply = (
        Reply(message=ChatMessage(role="assistant", content=text), finish_reason="stop", usage=usage)
        for text in ('{"order": [2, 1]}', LIBRARIAN)
    )
    vectors = [
        Embeddings([[1.0, 0.0], [0.9, 0.1]], Usage(input_tokens=20)),
        Embeddings([[1.0, 0.0]], Usage(input_tokens=6)),
    ]
    with LoopbackServer([order, reply], paths={"/embeddings": vectors}) as server:
        assert await Librarian(server).run(question="How many seats?") == LIBRARIAN


class Unlucky(Workflow):
    @step
    async def divide(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=1 / 0)


async def fail() -> None:
    """A run whose step raises."""
    try:
        await Unlucky(name="unlucky").run()
    except ZeroDivisionError:
        return
    raise AssertionError


class Asleep(Event):
    """Tells that the step has begun."""


class Slow(Workflow):
    @step
    async def sleep(self, ctx: Context, ev: StartEvent) -> StopEvent:
        ctx.write_event_to_stream(Asleep())
        return await asyncio.Future()


async def cancel() -> None:
    """A run that is cancelled while its step waits."""
    handler = Slow(name="slow").run()
    async for event in handler.stream_events():
        if isinstance(event, Asleep):
            await handler.cancel_run()


class Told(NamedTuple):
    """A trace, as the SDK made it and as a back end gives it back."""

    made: Trace
    shown: Trace


def record(backend: RealBackend, protocol: Protocol, run: Coroutine[Any, Any, None]) -> Told:
    """Let it run, and tell its trace."""
    (told,) = record_all(backend, protocol, run)
    return told


def record_all(backend: RealBackend, protocol: Protocol, run: Coroutine[Any, Any, None]) -> list[Told]:
    """The same of something that makes several traces, in the order in which they began."""
    memory = InMemorySpanExporter()
    with setup([memory, backend.preset], endpoint=backend.endpoint(protocol), protocol=protocol, content="full"):
        asyncio.run(run)
    spans: dict[str, list[ReadableSpan]] = {}
    for span in sorted(memory.get_finished_spans(), key=lambda span: span.start_time or 0):
        assert span.context
        spans.setdefault(f"{span.context.trace_id:032x}", []).append(span)
    return [
        Told(Trace(map(Seen.from_sdk, made), trace_id), backend.trace(trace_id, len(made)))
        for trace_id, made in spans.items()
    ]
