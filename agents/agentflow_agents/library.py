"""Documents that an agent answers from: they are read before the first search, and again when that is asked for."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Protocol, cast, runtime_checkable

from agentflow import Resource
from agentflow.errors import shown
from agentflow.log import logger
from agentflow_llm import ChatModel, LLMOutputError, Passage, Reranker, VectorStoreIndex
from agentflow_llm.loading import listed

from .errors import AgentConfigurationError, DocumentsError
from .ingest import Ingest, sources_of
from .options import MEANT, AgentOptions, check_names

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Unpack

    from agentflow_llm import ChatMessage, ChatOptions, Embedder, Reply, VectorStore
    from agentflow_llm.stream import ReplyStream

    from .budget import Accounts
    from .ingest import IngestResult, Sources


_OWN = "documents llm memory system_prompt embedder store reranker top_k rewrites output budget"
"""The options of an agent for documents, beside those that are the same for every agent."""
_SEARCHING = {
    "similarity_top_k": "top_k=...",
    "k": "top_k=...",
    "embed_model": "embedder=...",
    "vector_store": "store=...",
    "node_postprocessors": "reranker=...",
    "index": "the first argument",
    "retriever": "the first argument",
}
"""What other frameworks call one of these."""
_CANDIDATES = 4
"""So many times as many passages as are wanted are found for a reranker."""


@runtime_checkable
class PassageFinder(Protocol):
    """Finds passages: a `Retriever`, or one of your own."""

    async def aretrieve(self, query: str) -> list[Passage]:
        """The passages that say most about a query, the best first."""
        ...


def no_retriever() -> PassageFinder:
    """Replaced by the documents that the agent is given."""
    raise DocumentsError("the agent has no documents.")


def no_reranker() -> Reranker | None:
    """Replaced by the reranker that the agent is given: without one, passages stay in the order of the search."""
    return None


Retrieval = Annotated[PassageFinder, Resource(no_retriever)]
Reranking = Annotated[Reranker | None, Resource(no_reranker)]


class Library:
    """What an agent searches: documents that it reads itself, an index, or a finder; and how it ranks what it finds.

    - `documents`: sources, as `Ingest.run` takes them; a `VectorStoreIndex`; or a `PassageFinder`; None for nothing.
    - `embedder`, `store`: for documents that the agent reads itself.
    - `reranker`: for it, more is found than the `top_k` that are wanted.
    - `name`: of the index, in traces.

    Raises `AgentConfigurationError`, `DocumentsError`.
    """

    def __init__(  # noqa: PLR0913 because these are the agent's options that have to do with its search
        self,
        documents: Sources | VectorStoreIndex | PassageFinder | None,
        embedder: Embedder | None,
        store: VectorStore | None,
        reranker: Reranker | None,
        *,
        top_k: int,
        name: str,
    ) -> None:
        _check_reranker(name, reranker)
        self._name = name
        self._sources: dict[str, Any] | None = None
        self._is_read = False
        self.index = documents if isinstance(documents, VectorStoreIndex) else None
        if documents is not None and not isinstance(documents, VectorStoreIndex | PassageFinder):
            self._sources = sources_of(documents)
            self.index = VectorStoreIndex(embedder, store, name=name)
            if store is None and not any(self._sources.values()):
                raise DocumentsError(f"{name!r} has no documents to search: there are none in {shown(documents)}.")
        elif embedder is not None or store is not None:
            raise AgentConfigurationError(
                f"{name!r}: embedder= and store= are for documents that the agent reads itself; what it was given "
                "has its own. Leave them out."
            )
        many = top_k if reranker is None else top_k * _CANDIDATES
        self._finder = self.index.as_retriever(many) if self.index is not None else documents
        self.resources: dict[Callable[..., Any], Any] = {no_reranker: reranker}
        """For the steps, by their factories."""
        if documents is not None:
            self.resources[no_retriever] = Resource(self.open)

    async def open(self) -> PassageFinder:
        """What finds passages; the documents are read first."""
        if self._sources is not None and not self._is_read:  # it is asked in each event loop anew
            await self.read()
        assert isinstance(self._finder, PassageFinder)
        return self._finder

    async def read(self) -> IngestResult:
        """Read the documents, or what has changed of them. Raises `DocumentsError` where there are none."""
        if self._sources is None or self.index is None:
            raise DocumentsError(
                f"{self._name!r} reads no documents itself: put them into the index, or what finds passages, that it "
                "was given."
            )
        result = await Ingest(self.index.store, self.index.embedder).run(**self._sources)
        left_out = f"Left out: {listed(result.skipped)}" if result.skipped else ""
        if not await self.index.store.versions():
            raise DocumentsError(f"{self._name!r} has no documents to search. {left_out}".rstrip())
        if left_out:
            logger().warning(f"documents of {self._name!r}. {left_out}", index=self._name, skipped=result.skipped)
        self._is_read = True
        return result


def check_search(kind: str, options: Iterable[str], top_k: object, rewrites: object) -> None:
    """Refuse options that an agent of class `kind`, for documents, does not have, and numbers that make no sense.

    Raises `AgentConfigurationError`.
    """
    check_names(kind, options, [*_OWN.split(), *AgentOptions.__optional_keys__], {**MEANT, **_SEARCHING})
    for name, value, least in (("top_k", top_k, 1), ("rewrites", rewrites, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise AgentConfigurationError(
                f"{kind}({name}={shown(value)}): it must be a whole number of {least} or more."
            )


async def found(finder: PassageFinder, query: str) -> list[Passage]:
    """What a search finds. Raises `DocumentsError` where that is no list of passages."""
    return _passages(finder, await finder.aretrieve(query))


async def reranked(
    reranker: Reranker, query: str, passages: Sequence[Passage], top_k: int, accounts: Accounts
) -> list[Passage]:
    """The best of the passages. Where the reranker asks a model, its answers count as the run's.

    Raises `DocumentsError` where it gives no list of passages.
    """
    llm: object = getattr(reranker, "llm", None)
    asked: Any = reranker
    if isinstance(llm, ChatModel):
        asked = copy.copy(reranker)
        asked.llm = Counted(llm, accounts)
    return _passages(reranker, await asked.rerank(query, passages, top_k=top_k))[:top_k]


def _check_reranker(kind: str, reranker: object) -> None:
    if reranker is not None and (isinstance(reranker, type) or not isinstance(reranker, Reranker)):
        raise AgentConfigurationError(
            f"{kind}(reranker={shown(reranker)}): it has no rerank(query, passages). Write reranker=ModelReranker(llm)."
        )


def _passages(of: object, given: object) -> list[Passage]:
    many = _items(given)
    passages = [passage for passage in many if isinstance(passage, Passage)]
    if len(passages) < len(many):
        raise DocumentsError(
            f"{shown(of)} gave {shown(given)}. Return a list of Passage(id, text, score, metadata); an empty one where "
            "there is none."
        )
    return passages


def _items(given: object) -> list[object]:
    return list(cast("Iterable[object]", given)) if isinstance(given, Iterable) else [given]


class Counted:
    """A `ChatModel` whose answers are counted; those of streams are not."""

    def __init__(self, llm: ChatModel, accounts: Accounts) -> None:
        self._llm = llm
        self._accounts = accounts

    @property
    def provider(self) -> str:
        """See `ChatModel.provider`."""
        return self._llm.provider

    @property
    def model(self) -> str:
        """See `ChatModel.model`."""
        return self._llm.model

    async def chat(self, messages: Sequence[ChatMessage], **options: Unpack[ChatOptions]) -> Reply:
        """See `ChatModel.chat`."""
        try:
            reply = await self._llm.chat(messages, **options)
        except LLMOutputError as error:
            if error.reply is not None:
                self._accounts.heard(error.reply, messages)
            raise
        self._accounts.heard(reply, messages)
        return reply

    def stream(self, messages: Sequence[ChatMessage], **options: Unpack[ChatOptions]) -> ReplyStream:
        """See `ChatModel.stream`."""
        return self._llm.stream(messages, **options)
