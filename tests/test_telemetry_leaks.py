"""Without content no text of the user's goes out, from wherever; with it, no secret that can be recognised."""

from __future__ import annotations

import base64
import contextlib
import io
from array import array
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agentflow.observe import Kind, add_observer, operation, remove_observer
from agentflow_agents.records import ToolExecution
from agentflow_instrumentation import SpanObserver
from agentflow_instrumentation.console import ConsoleExporter
from agentflow_instrumentation.content import Content
from agentflow_instrumentation.kinds import CONVENTIONS
from agentflow_llm.errors import LLMError, LLMOutputError
from agentflow_llm.messages import (
    ChatMessage,
    ImagePart,
    ReasoningPart,
    RefusalPart,
    Reply,
    TextPart,
    ToolCallPart,
    ToolDefinition,
    ToolResultPart,
    Usage,
)
from agentflow_llm.model import Embeddings
from agentflow_llm.output import output_format
from agentflow_llm.records import ChatCall, EmbeddingsCall, MemoryCall, Passage, RerankCall, RetrievalCall

Made = tuple[Kind, str, object, object]
Notes = list[tuple[str, dict[str, Any]]]


def chat(text: str) -> Made:
    """A chat that has the text wherever a text can be."""
    inside = f"data:image/png;base64,{base64.b64encode(text.encode()).decode()}"
    parts = (
        TextPart(text=text),
        ImagePart(url=f"https://example.com/{text}?sig={text}"),
        ImagePart(url=inside),
        ImagePart(url=f"data:image/png,{text}"),
        ReasoningPart(text=text, id=text, encrypted=text),
        RefusalPart(text=text),
        ToolCallPart(id="c", name="t", arguments=text),
        ToolCallPart(id="c", name="t", arguments=f'{{"a": "{text}"}}'),
        ToolResultPart(call_id="c", name="t", content=text),
    )
    schema = {
        "type": "object",
        "title": text,
        "description": text,
        "properties": {text: {"enum": [text], "default": text}},
    }
    call = ChatCall(
        "openai",
        "tiny",
        [ChatMessage(role="system", content=text), ChatMessage(role="user", content=parts)],
        [ToolDefinition(name="t", description=text, parameters=schema)],
        {"temperature": text, "seed": text},
        {"user": text, "top_p": text, "response_format": schema, "metadata": {text: text}},
        output=output_format(schema),
    )
    message = ChatMessage(role="assistant", content=parts)
    reply = Reply(message=message, usage=Usage(input_tokens=1), output={text: text})
    return Kind.CHAT, "tiny", call, reply


def found(text: str) -> list[Passage]:
    return [Passage("a.md:1", text, 1.0, {"title": text, text: 1})]


MAKERS: dict[str, Callable[[str], Made]] = {
    "chat": chat,
    "embeddings": lambda text: (
        Kind.EMBEDDINGS,
        "vec",
        EmbeddingsCall("openai", "vec", [text, f"{text}."]),
        Embeddings([array("f", [0.125, 0.25])] * 2),
    ),
    "retrieval": lambda text: (Kind.RETRIEVAL, "docs", RetrievalCall("docs", text, 3), found(text)),
    "rerank": lambda text: (Kind.RERANK, "judge", RerankCall("judge", text, found(text), 3), found(text)),
    "memory put": lambda text: (
        Kind.MEMORY,
        "put",
        MemoryCall("M", "s", [ChatMessage(role="user", content=text)], text),
        [ChatMessage(role="user", content=text)],
    ),
    "memory of facts": lambda text: (Kind.MEMORY, "recall", MemoryCall("M", "s", query=text), found(text)),
    "tool": lambda text: (
        Kind.TOOL,
        "t",
        ToolExecution("c", "", text),
        ToolResultPart(call_id="c", name="t", content=text),
    ),
}


def notes(what: str, text: str) -> Notes:
    """All that may be noted on such a call, and what the user's code notes, with the text wherever a text can be."""
    errors = LLMError(text, code=text), LLMOutputError(text, text), ValueError(text)
    allowed = CONVENTIONS[{"tool": "execute_tool"}.get(what, what.partition(" ")[0])].events | {"mine"}
    every: Notes = [
        ("retry", {"attempt": 1, "wait": 1.0, "error": errors[0], "status": 429, "retry_after": 2.0}),
        ("fallback", {"id": "a/b", "to": "c/d", "error": errors[2]}),
        ("rate_limit", {"wait": 1.0, "because": "tokens", "key": text}),
        ("repair", {"attempt": 1, "error": errors[1]}),
        ("order_kept", {"error": errors[1]}),
        ("cache", {"hit": False, "key": text}),
        ("first_chunk", {"after": 0.1, "text": text}),
        ("choices_ignored", {"ignored": 1, "texts": [text]}),
        ("trimmed", {"messages": 1, "tokens": 3, "of": [ChatMessage(role="user", content=text)]}),
        ("over_limit", {"tokens": 3, "limit": 2, "text": text}),
        ("queued", {"wait": 1.0, "text": text}),
        ("mine", {"n": 1, "text": text, "texts": [text], "key": {text: text}, "error": errors[0]}),
    ]
    return [(name, facts) for name, facts in every if name in allowed]


def told(made: Made, of_it: Notes, content: Content, error: BaseException | None = None) -> str:
    """All that goes out of a call, as JSON and as the console prints it."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource.get_empty(), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    observer = SpanObserver(provider, content=content)
    kind, name, subject, result = made
    add_observer(observer)
    try:
        with contextlib.suppress(LLMError), operation(kind, name, subject) as opened:
            assert opened is not None
            for note, facts in of_it:
                opened.note(note, facts)
            opened.op.result = result
            if error is not None:
                raise error
    finally:
        remove_observer(observer)
    spans = exporter.get_finished_spans()
    assert spans
    assert all("agentflow.outcome" in (span.attributes or {}) for span in spans)
    printed = io.StringIO()
    ConsoleExporter(printed).export(spans)
    return "".join(span.to_json(indent=None) for span in spans) + printed.getvalue()


WORDS = st.text(st.characters(categories=["L", "N"], max_codepoint=0x7F), min_size=12, max_size=40).map(
    lambda text: f"Zq{text}qZ"
)


@pytest.mark.parametrize("what", MAKERS)
@settings(max_examples=25)
@given(text=WORDS)
def test_without_content_no_text_goes_out(what: str, text: str) -> None:
    out = told(MAKERS[what](text), notes(what, text), "none")
    assert text not in out
    assert base64.b64encode(text.encode()).decode()[:12] not in out


@pytest.mark.parametrize("what", MAKERS)
@settings(max_examples=25)
@given(text=WORDS)
def test_without_content_no_text_of_an_error_goes_out(what: str, text: str) -> None:
    error = LLMError(text, code=text, status=400)
    error.__cause__ = ValueError(text)
    error.add_note(text)
    assert text not in told(MAKERS[what](text), [], "none", error)


@pytest.mark.parametrize("what", MAKERS)
@pytest.mark.parametrize("content", ["preview", "full"])
@settings(max_examples=25)
@given(before=st.text(max_size=30))
def test_with_content_no_secret_goes_out(what: str, content: Content, before: str) -> None:
    secret = "sk-proj-abcdefghijklmnop1234"  # noqa: S105 because it opens nothing
    out = told(MAKERS[what](f"{before} {secret}"), notes(what, secret), content, LLMError(secret))
    assert secret not in out
    assert "sk-proj-abcdefgh" not in out


@pytest.mark.parametrize("what", MAKERS)
def test_with_content_the_texts_do_go_out(what: str) -> None:
    """What the tests above look for is there to be found."""
    assert "ZqwordsqZ" in told(MAKERS[what]("ZqwordsqZ"), [], "full")
