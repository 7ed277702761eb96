"""Documents that an agent answers from: they are read before the first search, and again when that is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Protocol, runtime_checkable

from agentflow import Resource
from agentflow.log import logger
from agentflow_llm import Embedder, Passage, Reranker, VectorStore, VectorStoreIndex
from agentflow_llm.loading import listed

from .errors import AgentConfigurationError, DocumentsError
from .ingest import Ingest, sources_of

if TYPE_CHECKING:
    from .ingest import IngestResult, Sources


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
    """What an agent searches: documents that it reads itself, an index, or a finder.

    - `documents`: sources, as `Ingest.run` takes them; a `VectorStoreIndex`; or a `PassageFinder`.
    - `embedder`, `store`: for documents that the agent reads itself.
    - `top_k`: how many passages a search is to find.
    - `name`: of the index, in traces.

    Raises `AgentConfigurationError`, `DocumentsError`.
    """

    def __init__(
        self,
        documents: Sources | VectorStoreIndex | PassageFinder,
        embedder: Embedder | None,
        store: VectorStore | None,
        *,
        top_k: int,
        name: str,
    ) -> None:
        self._name = name
        self._sources = None
        self._is_read = False
        if isinstance(documents, VectorStoreIndex | PassageFinder):
            if embedder is not None or store is not None:
                raise AgentConfigurationError(
                    f"{name!r}: embedder= and store= are for documents that the agent reads itself; what it was given "
                    "has its own. Leave them out."
                )
            self.index = documents if isinstance(documents, VectorStoreIndex) else None
        else:
            self._sources = sources_of(documents)
            self.index = VectorStoreIndex(embedder, store, name=name)
        self._finder = self.index.as_retriever(top_k) if self.index is not None else documents

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
                f"{self._name!r} was given what finds passages, and reads no documents itself. Put them into that."
            )
        result = await Ingest(self.index.store, self.index.embedder).run(**self._sources)
        left_out = f"Left out: {listed(result.skipped)}" if result.skipped else ""
        if not await self.index.store.versions():
            raise DocumentsError(f"{self._name!r} has no documents to search. {left_out}".rstrip())
        if left_out:
            logger().warning(f"documents of {self._name!r}. {left_out}", index=self._name, skipped=result.skipped)
        self._is_read = True
        return result
