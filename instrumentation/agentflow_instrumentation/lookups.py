"""What the spans of embeddings, retrievals, rerankings and memories tell, before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentflow.observe import Kind

from . import names, usage
from .content import WITHHELD
from .cutting import clean, clean_again, size
from .messages import documents, score_of, weigh

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.util.types import AttributeValue

    from agentflow.observe import Operation
    from agentflow_llm.records import EmbeddingsCall, MemoryCall, Passage, RerankCall, RetrievalCall

    from .content import Teller
    from .trail import Trail

Attributes = dict[str, "AttributeValue"]

_MOST_TEXTS = 32
_MOST_DOCUMENTS = 16
"""Each has three attributes, before and after; the SDK keeps 128 of a span, and drops the oldest."""


def begins(op: Operation, tell: Teller) -> Attributes:
    """What is known when a call begins; of a call without a record, its name."""
    subject = op.subject
    match op.kind:
        case Kind.EMBEDDINGS:
            return _embeddings_begin(subject, tell) if hasattr(subject, "texts") else {names.REQUEST_MODEL: op.name}
        case Kind.RERANK:
            return _rerank_begins(subject, tell) if hasattr(subject, "passages") else {names.REQUEST_MODEL: op.name}
        case Kind.RETRIEVAL:
            return _retrieval_begins(subject, tell) if hasattr(subject, "query") else {}
        case Kind.MEMORY:
            return _memory_begins(op.name, subject, tell) if hasattr(subject, "session") else {}
        case _:
            return {}


def ends(op: Operation, trail: Trail, error: BaseException | None, tell: Teller) -> Attributes:
    """What is known when it has ended."""
    match op.kind:
        case Kind.EMBEDDINGS:
            return _embeddings_end(op, trail, error)
        case Kind.RETRIEVAL:
            return _retrieval_ends(op, tell)
        case Kind.RERANK:
            return _rerank_ends(op, tell)
        case Kind.MEMORY:
            return _memory_ends(op, trail)
        case _:
            return {}


def _embeddings_begin(call: EmbeddingsCall, tell: Teller) -> Attributes:
    """Of how much text vectors are made."""
    made = usage.asked(call)
    made[names.TEXT_COUNT] = len(call.texts)
    made[names.TEXT_SIZE] = sum(map(len, call.texts))
    if call.dimensions is not None:
        made[names.DIMENSIONS] = call.dimensions
    if tell.may.embedded:
        shown = _first(call.texts, _MOST_TEXTS, names.embedded_text, tell)
        made |= {names.embedded_text(number): text for number, text in enumerate(shown)}
        made |= tell.input(call.texts[0] if len(call.texts) == 1 else list(call.texts), glance=True)
    return made


def _embeddings_end(op: Operation, trail: Trail, error: BaseException | None) -> Attributes:
    """What that took. The vectors stay here."""
    made = usage.took(trail, op.result if hasattr(op.result, "vectors") else None, error)
    vectors: Any = getattr(op.result, "vectors", None)
    if vectors:
        made[names.DIMENSIONS] = len(vectors[0])
    return made


def _retrieval_begins(call: RetrievalCall, tell: Teller) -> Attributes:
    """What is looked for, and where."""
    made: Attributes = {
        names.DATA_SOURCE: clean_again(call.source),
        names.TOP_K: float(call.top_k),  # a double in the conventions, as a model's is
        names.QUERY_SIZE: len(call.query),
    }
    if tell.may.inputs:
        made[names.QUERY] = tell.text(names.QUERY, call.query)
        made |= tell.input(call.query)
    return made


def _retrieval_ends(op: Operation, tell: Teller) -> Attributes:
    """What was found."""
    found: list[Passage] | None = op.result
    if not isinstance(found, list):
        return {}
    made: Attributes = {names.DOCUMENT_COUNT: len(found)}
    if tell.may.shows:
        made[names.DOCUMENTS] = documents(found, tell)
    return made


def _rerank_begins(call: RerankCall, tell: Teller) -> Attributes:
    """What is put into order, and by what."""
    made: Attributes = {
        names.REQUEST_MODEL: call.model,
        names.RERANK_MODEL: call.model,
        names.RERANK_TOP_K: call.top_k,
        names.RERANK_QUERY_SIZE: len(call.query),
        names.RERANK_GIVEN: len(call.passages),
    }
    if tell.may.inputs:
        made[names.RERANK_QUERY] = tell.text(names.RERANK_QUERY, call.query)
        made |= tell.input(call.query, glance=True)
        made |= _listed(names.RERANK_INPUT, call.passages, tell)
    return made


def _rerank_ends(op: Operation, tell: Teller) -> Attributes:
    """What came first."""
    kept: list[Passage] | None = op.result
    if not isinstance(kept, list):
        return {}
    made: Attributes = {names.RERANK_KEPT: len(kept)}
    if tell.may.outputs:
        made |= _listed(names.RERANK_OUTPUT, kept, tell)
    return made


def _listed(prefix: str, passages: Sequence[Passage], tell: Teller) -> Attributes:
    """Documents one by one, as back ends want those of rerankers."""
    made: Attributes = {}
    texts = [passage.text if tell.may.documents else WITHHELD for passage in passages]
    shown = _first(texts, _MOST_DOCUMENTS, lambda number: names.listed_document(prefix, number, "content"), tell)
    for number, (passage, text) in enumerate(zip(passages, shown, strict=False)):
        made[names.listed_document(prefix, number, "id")] = clean(str(passage.id), 256)
        made[names.listed_document(prefix, number, "content")] = text
        made[names.listed_document(prefix, number, "score")] = score_of(passage.score)
    return made


def _first(texts: Sequence[str], most: int, name: Callable[[int], str], tell: Teller) -> list[str]:
    """The first of many texts, as many as fit into a span."""
    shown: list[str] = []
    limits = tell.may.limits
    room = limits.attribute
    for number, text in enumerate(texts[:most]):
        room -= min(size(text), limits.text)
        if room < 0:
            break
        shown.append(tell.text(name(number), text, limits.text))
    if len(shown) < len(texts):
        tell.leave_out(len(texts) - len(shown))
    return shown


def _memory_begins(name: str, call: MemoryCall, tell: Teller) -> Attributes:
    """What is asked of a memory. Its messages are in the trace with the chats that have them; here is a glimpse."""
    made: Attributes = {
        names.MEMORY_OPERATION: name,
        names.MEMORY_KIND: call.memory,
        names.MEMORY_SESSION: clean(call.session, 256),
    }
    if call.messages:
        made[names.MEMORY_GIVEN] = len(call.messages)
        made[names.MEMORY_SIZE] = weigh(call.messages)[0]
    if call.query:
        made[names.MEMORY_QUERY_SIZE] = len(call.query)
    if tell.may.input_text:
        said = [message.text for message in call.messages if message.text]
        if said or call.query:
            made |= tell.input(call.query or (said[0] if len(said) == 1 else said), glance=True)
    return made


def _memory_ends(op: Operation, trail: Trail) -> Attributes:
    """How much it gave back."""
    made: Attributes = {}
    if trail.trimmed:
        made[names.MEMORY_TRIMMED] = trail.trimmed
    got: list[object] | None = op.result
    if isinstance(got, list):
        made[names.MEMORY_GOT] = len(got)
    return made
