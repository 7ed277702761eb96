"""Documents that are found again: split, embedded, kept in a store; and the retriever that finds them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from agentflow.errors import shown
from agentflow.observe import Kind, operation

from .documents import Chunk, Document, DocumentError, VectorStore, check_where
from .model import Embedder
from .records import RetrievalCall
from .splitting import VERSION, split
from .vector_store import SqliteVectorStore, checked_ids, checked_top_k, look_up, made_by

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from .documents import Markup
    from .records import Passage
    from .splitting import Piece

    Splitter = Callable[[str, Markup], Iterable[Piece]]

_BATCH = 512
"""Chunks that are embedded at once, so that no more than these are in memory."""


class VectorStoreIndex:
    """Documents in a store, found by their words, and with an embedder by their meaning as well.

    - `embedder`: None for words alone.
    - `store`: None for a `SqliteVectorStore` in memory.
    - `splitter`: cuts a document into pieces, `split` by default: `partial(split, size=500, overlap=50)`.
    - `name`: how it is called in traces.

    What is added waits in memory, and is split, embedded and stored by `refresh`, or at the latest by the next
    retrieval. Documents that the store has in the same version, from the same embedder and splitter, are left as they
    are. Raises `DocumentError`.
    """

    def __init__(
        self,
        embedder: Embedder | None = None,
        store: VectorStore | None = None,
        *,
        splitter: Splitter = split,
        name: str = "documents",
    ) -> None:
        _check(embedder, store, splitter)
        self.embedder = embedder
        self.store = SqliteVectorStore() if store is None else store
        self.name = name
        self._splitter = splitter
        self._waiting: dict[str, Document] = {}
        self._turns: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None
        """The lock for refreshing, and the event loop that it is for."""

    def __repr__(self) -> str:
        waiting = f", {len(self._waiting)} documents waiting" if self._waiting else ""
        return f"<VectorStoreIndex {self.name!r} in {self.store!r}, embedder {self.embedder!r}{waiting}>"

    @classmethod
    def from_documents(
        cls,
        documents: Iterable[Document],
        embedder: Embedder | None = None,
        store: VectorStore | None = None,
        *,
        splitter: Splitter = split,
        name: str = "documents",
    ) -> VectorStoreIndex:
        """An index to which these documents are added. It may be called under a running event loop."""
        index = cls(embedder, store, splitter=splitter, name=name)
        index.add(documents)
        return index

    def add(self, documents: Iterable[Document]) -> None:
        """Add documents, each in place of the one of the same id that was added before.

        Raises `DocumentError` for what is none, and where two that differ have one id; then none is added.
        """
        self._waiting.update(by_id(documents))

    async def delete(self, document_ids: Iterable[str]) -> None:
        """Forget documents."""
        ids = checked_ids(document_ids)
        async with self._lock():
            for ident in ids:
                self._waiting.pop(ident, None)
            await self.store.delete(ids)

    async def refresh(self) -> None:
        """Split, embed and store what has been added. After an error, what was not stored is tried again next time."""
        if not self._waiting:
            return
        async with self._lock():
            waiting = list(self._waiting.values())
            known = await self.store.versions()
            changed = [document for document in waiting if known.get(document.id) != self._version(document)]
            left = {document.id for document in changed}
            for document in waiting:
                if document.id not in left:
                    self._done(document)
            await self._put(changed)

    async def changed(self, documents: Iterable[Document]) -> list[Document]:
        """Those of the documents that the store does not have in this version, from this embedder and splitter.

        Raises `DocumentError` as `add` does.
        """
        given = by_id(documents)
        known = await self.store.versions()
        return [document for document in given.values() if known.get(document.id) != self._version(document)]

    async def put(self, documents: Iterable[Document]) -> int:
        """Split, embed and store documents now, whatever the store has of them. Returns how many chunks they became.

        Several may be put at once. Raises `DocumentError` as `add` does, and what the embedder and the store raise.
        """
        return await self._put(by_id(documents).values())

    def as_retriever(self, similarity_top_k: int = 5, *, where: Mapping[str, Any] | None = None) -> Retriever:
        """A retriever of so many passages; `where`: what their metadata must say, see `VectorStore.search`."""
        return Retriever(self, similarity_top_k, where)

    def _lock(self) -> asyncio.Lock:
        loop = asyncio.get_running_loop()
        if self._turns is None or self._turns[0] is not loop:
            self._turns = loop, asyncio.Lock()
        return self._turns[1]

    def _done(self, document: Document) -> None:
        if self._waiting.get(document.id) is document:  # else a newer one was added meanwhile
            del self._waiting[document.id]

    def _version(self, document: Document) -> str:
        return f"{document.version} {_told_apart(self._splitter)} {made_by(self.embedder)}".rstrip()

    def _batch(self, documents: Iterator[Document]) -> list[tuple[Document, list[Chunk]]]:
        """The next of the documents, split: so many as make a batch."""
        batch: list[tuple[Document, list[Chunk]]] = []
        many = 0
        for document in documents:
            batch.append((document, self._chunks(document)))
            many += len(batch[-1][1])
            if many >= _BATCH:
                break
        return batch

    def _chunks(self, document: Document) -> list[Chunk]:
        facts = {"document": document.id, **document.metadata}
        return [
            Chunk(f"{document.id}:{number}", piece.text, None, {**facts, "line": piece.line, "heading": piece.heading})
            for number, piece in enumerate(self._splitter(document.text, document.markup), start=1)
        ]

    async def _put(self, documents: Iterable[Document]) -> int:
        many, rest = 0, iter(documents)
        while batch := await asyncio.to_thread(self._batch, rest):
            many += await self._store(batch)
        return many

    async def _store(self, batch: Sequence[tuple[Document, list[Chunk]]]) -> int:
        chunks = [chunk for _, chunks in batch for chunk in chunks]
        vectors: Iterable[Sequence[float] | None] = [None] * len(chunks)
        if self.embedder is not None and chunks:
            vectors = (await self.embedder.embed([_told(chunk) for chunk in chunks])).vectors
        made = iter([Chunk(c.id, c.text, vector, c.metadata) for c, vector in zip(chunks, vectors, strict=True)])
        for document, own in batch:
            await self.store.add(document.id, [next(made) for _ in own], version=self._version(document))
            self._done(document)
        return len(chunks)


def by_id(documents: object) -> dict[str, Document]:
    """What is to be added. Raises `DocumentError` for what is none, and where two that differ have one id."""
    given: dict[str, Document] = {}
    for document in _documents(documents):
        other = given.setdefault(document.id, document)
        if other.version != document.version:
            raise DocumentError(
                f"two documents have the id {document.id!r}: {_source(other)} and {_source(document)}. Give each "
                'an id of its own; for those of several folders write load(folder, prefix="...").'
            )
    return given


def _documents(documents: object) -> list[Document]:
    """What is to be added. Raises `DocumentError`."""
    if hasattr(documents, "documents"):
        raise DocumentError(f"{shown(documents)} has documents, but is no list of them. Write load(...).documents.")
    if isinstance(documents, Document | str) or not isinstance(documents, Iterable):
        raise DocumentError(f"{shown(documents)} is no list of documents. Write [Document(text=...)].")
    found = list(cast("Iterable[object]", documents))
    wrong = [item for item in found if not isinstance(item, Document)]
    if wrong:
        raise DocumentError(f"{shown(wrong[0])} is no Document. Write Document(text=...).")
    return cast("list[Document]", found)


def _source(document: Document) -> str:
    source = document.metadata.get("source")
    return shown(document.text) if source is None else f"{shown(document.text)} from {shown(source)}"


def _told_apart(splitter: object) -> str:
    """How a splitter cuts, as far as its name and what a `partial` gives it say that."""
    if isinstance(splitter, partial):
        given = [
            *map(_named, splitter.args),
            *(f"{name}={_named(splitter.keywords[name])}" for name in sorted(splitter.keywords)),
        ]
        return f"{_told_apart(splitter.func)}({','.join(given)})"
    name = getattr(splitter, "__qualname__", type(splitter).__qualname__)
    return f"{VERSION}:{splitter.__module__}.{name}"


def _named(value: object) -> str:
    return repr(value) if isinstance(value, str | int | float | None) else type(value).__qualname__


def _check(embedder: object, store: object, splitter: object) -> None:
    if embedder is not None and (isinstance(embedder, type) or not isinstance(embedder, Embedder)):
        line = "store=..." if isinstance(embedder, VectorStore) else "embedder=HashEmbedder()"
        raise DocumentError(f"VectorStoreIndex(embedder={shown(embedder)}): it has no embed(texts). Write {line}.")
    if store is not None and (isinstance(store, type) or not isinstance(store, VectorStore)):
        raise DocumentError(
            f'VectorStoreIndex(store={shown(store)}): it is no store. Write store=SqliteVectorStore("documents.db").'
        )
    if not callable(splitter):
        raise DocumentError(
            f"VectorStoreIndex(splitter={shown(splitter)}): it is a function. Write partial(split, size=500)."
        )


def _told(chunk: Chunk) -> str:
    """What is embedded of a chunk: a piece may never say what it is about, its headings do."""
    heading = chunk.metadata["heading"]
    return f"{heading}\n{chunk.text}" if heading else chunk.text


class Retriever:
    """Finds the passages of an index that say most about a question."""

    def __init__(self, index: VectorStoreIndex, similarity_top_k: int, where: Mapping[str, Any] | None) -> None:
        self.index = index
        self.similarity_top_k = checked_top_k(similarity_top_k)
        check_where(where)
        self.where = where

    def __repr__(self) -> str:
        return f"Retriever({self.index!r}, similarity_top_k={self.similarity_top_k})"

    async def aretrieve(self, query: str) -> list[Passage]:
        """The passages, the best first, with `.id`, `.text`, `.score` and `.metadata`. Any text is a query.

        Raises `LLMError` where the embedder fails.
        """
        index = self.index
        if not isinstance(query, str):
            raise DocumentError(f"aretrieve({shown(query)}): the query is a string.")
        with operation(Kind.RETRIEVAL, index.name, RetrievalCall(index.name, query, self.similarity_top_k)) as seen:
            await index.refresh()
            found = await look_up(index.store, index.embedder, query, self.similarity_top_k, self.where)
            if seen is not None:
                seen.op.result = found
            return found
