"""What the spans of embeddings, retrievals, rerankings and memories tell: how much always, what only where it may."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from agentflow.observe import Kind, add_observer, operation
from agentflow_instrumentation import SpanObserver
from agentflow_instrumentation.content import Content
from agentflow_llm.errors import LLMServerError
from agentflow_llm.messages import ChatMessage, Usage
from agentflow_llm.model import Embeddings
from agentflow_llm.records import EmbeddingsCall, MemoryCall, Passage, RerankCall, RetrievalCall

Spans = Callable[[], list[ReadableSpan]]


def watch(content: Content = "none") -> Spans:
    """Make spans from now on; returns what has ended, as it began."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    add_observer(SpanObserver(provider, content=content))
    return lambda: sorted(exporter.get_finished_spans(), key=lambda span: span.start_time or 0)


def facts(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def observed(
    kind: Kind,
    name: str,
    subject: object,
    result: object = None,
    *notes: tuple[str, dict[str, Any]],
    content: Content = "none",
) -> ReadableSpan:
    """The span of one call."""
    spans = watch(content)
    with operation(kind, name, subject) as opened:
        assert opened is not None
        for note, of_it in notes:
            opened.note(note, of_it)
        opened.op.result = result
    (span,) = spans()
    return span


# embeddings

VECTORS = Embeddings([array("f", [0.25, 0.5, 1.0])] * 2, Usage(input_tokens=9, http_requests=2, cost=0.01), "vec-2")


def embeddings(
    texts: list[str], result: Embeddings | None = VECTORS, *notes: tuple[str, dict[str, Any]], content: Content = "none"
) -> ReadableSpan:
    call = EmbeddingsCall("openai", "vec", texts, 3, "api.example.com", 443)
    return observed(Kind.EMBEDDINGS, "vec", call, result, *notes, content=content)


def test_embeddings_tell_how_much_and_not_what() -> None:
    span = embeddings(["sleep of cats", "of Ann's"])
    assert (span.name, span.kind) == ("embeddings vec", SpanKind.CLIENT)
    assert facts(span) == {
        "openinference.span.kind": "EMBEDDING",
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "vec",
        "gen_ai.response.model": "vec-2",
        "gen_ai.embeddings.dimension.count": 3,
        "gen_ai.usage.input_tokens": 9,
        "server.address": "api.example.com",
        "server.port": 443,
        "agentflow.embeddings.texts": 2,
        "agentflow.embeddings.size": 21,
        "agentflow.llm.http_requests": 2,
        "agentflow.llm.cost": 0.01,
        "llm.cost.total": 0.01,
        "agentflow.outcome": "ok",
    }


def test_with_content_embeddings_tell_their_texts_and_no_vectors() -> None:
    told = facts(embeddings(["sleep of cats", "x" * 9000], content="full"))
    assert told["embedding.embeddings.0.embedding.text"] == "sleep of cats"
    assert len(told["embedding.embeddings.1.embedding.text"]) <= 8192
    assert json.loads(told["input.value"])[0] == "sleep of cats"
    assert told["input.mime_type"] == "application/json"
    assert not [name for name in told if "vector" in name]
    one = facts(embeddings(["sleep of cats"], content="preview"))
    assert (one["input.value"], one["input.mime_type"]) == ("sleep of cats", "text/plain")


@pytest.mark.parametrize(("length", "shown"), [(10, 32), (8000, 8), (20_000, 8)])
def test_of_many_texts_the_first_are_told(length: int, shown: int) -> None:
    told = facts(embeddings([f"{n:03}{'x' * (length - 3)}" for n in range(200)], content="full"))
    texts = [value for name, value in told.items() if name.startswith("embedding.embeddings.")]
    assert [text[:3] for text in texts] == [f"{n:03}" for n in range(shown)]
    assert told["agentflow.content.truncated"] is True
    assert told["agentflow.embeddings.texts"] == 200


def test_the_dimensions_are_those_of_the_vectors() -> None:
    call = EmbeddingsCall("openai", "vec", ["a"])
    assert facts(observed(Kind.EMBEDDINGS, "vec", call, VECTORS))["gen_ai.embeddings.dimension.count"] == 3
    assert "gen_ai.embeddings.dimension.count" not in facts(observed(Kind.EMBEDDINGS, "vec", call, Embeddings([])))


def test_embeddings_tell_their_retries_and_waits_as_a_chat_does() -> None:
    retry = ("retry", {"attempt": 1, "wait": 2.0, "error": LLMServerError("Ann", status=503), "status": 503})
    span = embeddings(["a"], VECTORS, retry, ("rate_limit", {"wait": 0.5, "because": "requests"}))
    told = facts(span)
    assert (told["agentflow.llm.attempts"], told["agentflow.llm.retry.wait"]) == (2, 2.0)
    assert told["agentflow.llm.rate_limit.wait"] == 0.5
    assert [event.name for event in span.events] == ["agentflow.retry", "agentflow.rate_limit"]


def test_vectors_from_a_cache_are_not_paid_for_again() -> None:
    """Where some came from there and some were asked for, these are."""
    told = facts(embeddings(["a"], Embeddings(VECTORS.vectors, Usage(), "vec-2"), ("cache", {"hit": True})))
    assert told["agentflow.llm.cache.hit"] is True
    assert "agentflow.llm.usage.missing" not in told
    partly = facts(embeddings(["a"], VECTORS, ("cache", {"hit": True}), ("cache", {"hit": False})))
    assert partly["agentflow.llm.cache.hit"] is True
    assert partly["gen_ai.usage.input_tokens"] == 9


def test_embeddings_that_fail_tell_why() -> None:
    spans = watch()
    error = LLMServerError("Ann's", status=500, request_id="req-1")
    with pytest.raises(LLMServerError), operation(Kind.EMBEDDINGS, "vec", EmbeddingsCall("openai", "vec", ["a"])):
        raise error
    (span,) = spans()
    assert span.status.status_code is StatusCode.ERROR
    assert (facts(span)["http.response.status_code"], facts(span)["agentflow.llm.request_id"]) == (500, "req-1")


# retrieval


def test_a_retrieval_tells_how_much_and_not_what() -> None:
    spans = watch()
    with operation(Kind.RETRIEVAL, "docs", RetrievalCall("docs", "sleep of cats", 5)) as opened:
        assert opened is not None
        opened.op.result = [Passage("cats.md:1", "16 hours", 0.7)]
    (span,) = spans()
    assert (span.name, span.kind) == ("retrieval docs", SpanKind.CLIENT)
    assert facts(span) == {
        "openinference.span.kind": "RETRIEVER",
        "gen_ai.operation.name": "retrieval",
        "gen_ai.data_source.id": "docs",
        "gen_ai.request.top_k": 5,
        "agentflow.retrieval.query.size": 13,
        "agentflow.retrieval.documents.count": 1,
        "agentflow.outcome": "ok",
    }


@pytest.mark.parametrize(("score", "told"), [(0.7, 0.7), (3, 3.0), (None, 0.0), (float("nan"), 0.0)])
def test_every_document_has_a_number_as_its_score(score: Any, told: float) -> None:
    """Phoenix drops all documents of a list where one has none."""
    spans = watch("full")
    with operation(Kind.RETRIEVAL, "docs", RetrievalCall("docs", "sleep of cats", 5)) as opened:
        assert opened is not None
        opened.op.result = [Passage("cats.md:1", "16 hours", score, {"page": 3, "of": object()})]
    (span,) = spans()
    found = facts(span)
    (document,) = json.loads(found["gen_ai.retrieval.documents"])
    assert document == {
        "id": "cats.md:1",
        "score": told,
        "content": "16 hours",
        "metadata": {"page": 3, "of": "<object>"},
    }
    assert isinstance(document["score"], float)
    assert found["gen_ai.retrieval.query.text"] == found["input.value"] == "sleep of cats"


def test_many_documents_are_cut() -> None:
    spans = watch("full")
    with operation(Kind.RETRIEVAL, "docs", RetrievalCall("docs", "q", 50)) as opened:
        assert opened is not None
        opened.op.result = [Passage(str(n), "x" * 9000, 1.0) for n in range(50)]
    told = facts(spans()[0])
    assert len(told["gen_ai.retrieval.documents"]) <= 64 * 1024
    assert all(isinstance(one["score"], float) for one in json.loads(told["gen_ai.retrieval.documents"]))
    assert told["agentflow.content.truncated"] is True
    assert told["agentflow.retrieval.documents.count"] == 50


# rerank

FOUND = [Passage(f"cats.md:{n}", f"{n} hours", n / 10, {"page": n}) for n in range(20)]


def test_a_reranking_tells_how_much_and_not_what() -> None:
    span = observed(Kind.RERANK, "judge", RerankCall("judge", "sleep of cats", FOUND, 3), FOUND[:3])
    assert (span.name, span.kind) == ("rerank judge", SpanKind.CLIENT)
    assert facts(span) == {
        "openinference.span.kind": "RERANKER",
        "gen_ai.request.model": "judge",
        "reranker.model_name": "judge",
        "reranker.top_k": 3,
        "agentflow.rerank.query.size": 13,
        "agentflow.rerank.documents.given": 20,
        "agentflow.rerank.documents.kept": 3,
        "agentflow.outcome": "ok",
    }


def test_with_content_a_reranking_tells_the_documents_before_and_after() -> None:
    call = RerankCall("judge", "sleep of cats", FOUND[:2], 2)
    told = facts(observed(Kind.RERANK, "judge", call, FOUND[1::-1], content="full"))
    assert told["reranker.query"] == told["input.value"] == "sleep of cats"
    for place, numbers in (("input", (0, 1)), ("output", (1, 0))):
        listed = [
            tuple(told[f"reranker.{place}_documents.{at}.document.{field}"] for field in ("id", "content", "score"))
            for at in range(2)
        ]
        assert listed == [(f"cats.md:{n}", f"{n} hours", n / 10) for n in numbers]


def test_of_many_documents_the_first_are_told_and_no_attribute_is_lost() -> None:
    """The SDK keeps 128 attributes of a span, and drops the oldest."""
    many = [Passage(str(n), "x" * 9000, float("nan")) for n in range(100)]
    span = observed(Kind.RERANK, "judge", RerankCall("judge", "q", many, 100), many, content="full")
    told = facts(span)
    assert not span.dropped_attributes
    assert told["openinference.span.kind"] == "RERANKER"
    assert told["reranker.output_documents.7.document.score"] == 0.0
    assert sum(len(str(value)) for value in told.values()) < 140_000
    assert told["agentflow.content.truncated"] is True
    short = [Passage(str(n), "x", 1.0) for n in range(100)]
    span = observed(Kind.RERANK, "judge", RerankCall("judge", "q", short, 100), short, content="full")
    assert not span.dropped_attributes
    assert facts(span)["reranker.input_documents.15.document.content"] == "x"


# memory


def test_a_memory_tells_how_much_and_not_what() -> None:
    said = [ChatMessage(role="user", content="I am Ann."), ChatMessage(role="assistant", content="Hello, Ann.")]
    span = observed(Kind.MEMORY, "put", MemoryCall("ChatMemory", "user-7", said))
    assert (span.name, span.kind) == ("memory put", SpanKind.INTERNAL)
    assert facts(span) == {
        "openinference.span.kind": "CHAIN",
        "agentflow.memory.operation": "put",
        "agentflow.memory.kind": "ChatMemory",
        "agentflow.memory.session": "user-7",
        "agentflow.memory.messages.given": 2,
        "agentflow.memory.size": 20,
        "agentflow.outcome": "ok",
    }
    span = observed(Kind.MEMORY, "recall", MemoryCall("LongTermMemory", "user-7", query="Who is Ann?"), said)
    assert facts(span)["agentflow.memory.query.size"] == 11
    assert facts(span)["agentflow.memory.messages.got"] == 2
    assert "Ann" not in span.to_json()


def test_what_a_memory_leaves_out_is_told() -> None:
    over = ("over_limit", {"tokens": 900, "limit": 500})
    trimmed = ("trimmed", {"messages": 4, "tokens": 480})
    span = observed(Kind.MEMORY, "get", MemoryCall("ChatMemory", "s"), [], trimmed, over)
    assert facts(span)["agentflow.memory.trimmed"] == 4
    assert [(event.name, dict(event.attributes or {})) for event in span.events] == [
        ("agentflow.trimmed", {"agentflow.trimmed.messages": 4, "agentflow.trimmed.tokens": 480}),
        ("agentflow.over_limit", {"agentflow.over_limit.tokens": 900, "agentflow.over_limit.limit": 500}),
    ]


@pytest.mark.parametrize(
    ("call", "shown"),
    [
        (MemoryCall("M", "s", [ChatMessage(role="user", content="I am Ann.")]), "I am Ann."),
        (MemoryCall("M", "s", [ChatMessage(role="user", content=c) for c in "ab"]), '["a","b"]'),
        (MemoryCall("M", "s", query="Who?"), "Who?"),
        (MemoryCall("M", "s"), None),
    ],
)
def test_with_content_a_memory_gives_a_glimpse_of_what_went_in(call: MemoryCall, shown: str | None) -> None:
    assert facts(observed(Kind.MEMORY, "put", call, content="full")).get("input.value") == shown


def test_a_memory_does_not_repeat_a_long_conversation() -> None:
    """The chats have its messages; to tell them here too would make a trace grow with the square of its turns."""
    long = [ChatMessage(role="user", content="x" * 500) for _ in range(200)]
    put = observed(Kind.MEMORY, "put", MemoryCall("M", "s", long), content="full")
    got = observed(Kind.MEMORY, "get", MemoryCall("M", "s"), long, content="full")
    assert max(len(put.to_json()), len(got.to_json())) < 3000
