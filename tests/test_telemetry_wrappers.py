"""However clients are wrapped, a call is one span, which tells what all of them did."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agentflow.clock import use_clock
from agentflow.observe import add_observer
from agentflow.retry import Retry
from agentflow.testing import FakeClock
from agentflow_instrumentation import SpanObserver
from agentflow_llm.cache import Cached
from agentflow_llm.errors import LLMServerError, RateLimitError
from agentflow_llm.fallback import Fallback
from agentflow_llm.hash_embedder import HashEmbedder
from agentflow_llm.messages import ChatMessage, Reply, Usage
from agentflow_llm.rate_limit import RateLimited
from agentflow_llm.retrying import Retrying
from agentflow_llm.scripted import ScriptedModel

QUESTION = [ChatMessage(role="user", content="Why?")]
ANSWER = Reply(
    message=ChatMessage(role="assistant", content="Because."),
    finish_reason="stop",
    model="small-1",
    usage=Usage(input_tokens=3, output_tokens=1, cost=0.5),
)

Told = Callable[[], list[tuple[str, dict[str, Any], list[str]]]]


@pytest.fixture
def told() -> Told:
    """Of each span that has ended: its name, its attributes, the names of its events."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    add_observer(SpanObserver(provider))
    return lambda: [
        (span.name, dict(span.attributes or {}), [event.name for event in span.events])
        for span in exporter.get_finished_spans()
    ]


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_call_that_is_limited_retried_and_falls_back_is_one_span(told: Told, *, streamed: bool) -> None:
    clock = FakeClock()
    big = ScriptedModel([LLMServerError("down", status=503)] * 2)
    small = ScriptedModel([RateLimitError("slow down", status=429, retry_after=2.0), ANSWER])
    model = Retrying(Fallback([RateLimited(big, requests_per_minute=60), small]), Retry(attempts=3, wait=1))
    with use_clock(clock), big, small:
        asking = asyncio.ensure_future(model.stream(QUESTION).read() if streamed else model.chat(QUESTION))
        await clock.advance(60)
        assert (await asking).text == "Because."
    ((name, facts, events),) = told()
    assert name.startswith("chat ")
    assert events.count("agentflow.fallback") == facts["agentflow.llm.fallbacks"] == 2
    assert events.count("agentflow.retry") == 1
    assert facts["agentflow.llm.retry.wait"] == 2.0
    assert facts["gen_ai.response.model"] == facts["llm.model_name"] == "small-1"
    assert (facts["gen_ai.usage.input_tokens"], facts["agentflow.llm.cost"]) == (3, 0.5)
    assert ("gen_ai.request.stream" in facts) is streamed


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_is_paid_for_once(told: Told, *, streamed: bool) -> None:
    with ScriptedModel([ANSWER]) as once:
        model = Cached(once)
        for _ in range(3):
            await (model.stream(QUESTION).read() if streamed else model.chat(QUESTION))
    spans = told()
    assert [facts["agentflow.llm.cache.hit"] for _, facts, _ in spans] == [False, True, True]
    assert sum(facts.get("gen_ai.usage.input_tokens", 0) for _, facts, _ in spans) == 3
    assert sum(facts.get("agentflow.llm.cost", 0) for _, facts, _ in spans) == 0.5
    assert not any("agentflow.llm.usage.missing" in facts for _, facts, _ in spans)
    assert [facts["agentflow.chat.output.size"] for _, facts, _ in spans] == [8, 8, 8]


async def test_texts_that_are_known_are_told_to_be(told: Told) -> None:
    embedder = Cached(HashEmbedder(8))
    for texts in (["a", "b"], ["b", "c"], ["a", "c"]):
        await embedder.embed(texts)
    assert [facts["agentflow.llm.cache.hit"] for _, facts, _ in told()] == [False, False, True]
    assert [facts["gen_ai.embeddings.dimension.count"] for _, facts, _ in told()] == [8, 8, 8]
