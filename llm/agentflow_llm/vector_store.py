"""Chunks in a SQLite file, found by their words (BM25), by their vectors (exact), or by both."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from agentflow.errors import shown

from .collection import TABLES, VERSION, State, find, make, written
from .database import shared_database
from .documents import Chunk, DocumentError, check_where
from .errors import StorageError
from .loose import well_formed
from .nearest import no_vectors, unit, units
from .records import Passage
from .terms import telling

if TYPE_CHECKING:
    import sqlite3
    from array import array
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .collection import Written
    from .database import Database
    from .documents import VectorStore
    from .model import Embedder
    from .nearest import Vectors

_MOST_WORDS = 64
_MOST_FOUND = 1_000_000
_DEPTH = 50
"""How far down at least each of two orders is read before they are fused."""
_FUSION = 60.0
"""Reciprocal rank fusion: the n-th of an order gets 1 / (60 + n) from it, and the less the farther behind the first."""


class SqliteVectorStore:
    """A `VectorStore` in a SQLite file, or in memory.

    - `file`: where it is kept; None for memory. Several tasks, threads and processes may use it at once.
    - `collection`: its name in the file. Each has its own documents and vectors; there may be thousands. How rare a
      word is, which says what it counts, is that of the whole file.
    - `dimensions`: of the vectors; by default those of the first that is added.

    The score of a passage is that of BM25 where only words are looked for, the cosine where only a vector is, else
    the sum of its reciprocal ranks, each times its score over that of the first. A vector is compared with all
    others, so none is missed; they are held in memory, 4 bytes a number, from the first search with a vector on.

    What is named `..._now` does in this very thread what its namesake does in another one.

    Raises `StorageError` where the file cannot be used, `DocumentError` where what it is given is wrong.
    """

    def __init__(
        self, file: str | Path | None = None, *, collection: str = "default", dimensions: int | None = None
    ) -> None:
        whole = isinstance(dimensions, int) and not isinstance(dimensions, bool)
        if dimensions is not None and (not whole or dimensions < 1):
            raise DocumentError(f"SqliteVectorStore(dimensions={shown(dimensions)}): a vector has 1 or more.")
        if not isinstance(collection, str):
            raise DocumentError(f"SqliteVectorStore(collection={shown(collection)}): it is a name.")
        self.collection = well_formed(collection)
        self._shared: Database | None = shared_database(file, TABLES, version=VERSION)
        self._file = self._shared.file
        known = self._db.read(lambda db: find(db, self.collection))
        self._tables = known or self._db.now(lambda db: make(db, self.collection))
        self._seen: tuple[State, Vectors] | None = None
        """The vectors, and how far the collection had come when they were read."""
        if dimensions is not None:
            self._db.now(lambda db: self._agree(db, dimensions, "dimensions="))

    def __repr__(self) -> str:
        return f"SqliteVectorStore({self._file!r}, collection={self.collection!r})"

    def close(self) -> None:
        """Let go of the file, which is closed when no other store of this process uses it."""
        self._shared = self._seen = None

    @property
    def _db(self) -> Database:
        if self._shared is None:
            raise StorageError(f"{self!r} was closed.")
        return self._shared

    async def add(self, document_id: str, chunks: Sequence[Chunk], *, version: str = "") -> None:
        """See `VectorStore.add`."""
        await asyncio.to_thread(self.add_now, document_id, chunks, version=version)

    async def delete(self, document_ids: Iterable[str]) -> None:
        """See `VectorStore.delete`."""
        await asyncio.to_thread(self.delete_now, document_ids)

    async def search(
        self,
        query: str,
        *,
        vector: Sequence[float] | None = None,
        top_k: int = 5,
        where: Mapping[str, Any] | None = None,
        weight: float = 1.0,
    ) -> list[Passage]:
        """See `VectorStore.search`. Any text is a query; with one that has no words, the vector alone decides."""
        return await asyncio.to_thread(self.search_now, query, vector=vector, top_k=top_k, where=where, weight=weight)

    async def versions(self) -> dict[str, str]:
        """See `VectorStore.versions`."""
        return await asyncio.to_thread(self.versions_now)

    def add_now(self, document_id: str, chunks: Sequence[Chunk], *, version: str = "") -> None:
        """See `add`."""
        name = well_formed(document_id)
        lengths = {len(chunk.vector): chunk.id for chunk in chunks if chunk.vector is not None}
        rows = _rows(chunks)

        def work(db: sqlite3.Connection) -> None:
            for length, ident in lengths.items():
                self._agree(db, length, f"chunk {ident!r} has a vector of ")
            self._tables.forget(db, [name])
            self._tables.keep(db, name, version, rows)

        self._db.now(work)

    def delete_now(self, document_ids: Iterable[str]) -> None:
        """See `delete`."""
        names = [well_formed(name) for name in checked_ids(document_ids)]
        self._db.now(lambda db: self._tables.forget(db, names))

    def renew_now(self, chunks: Mapping[str, Chunk], version: str) -> None:
        """Give documents of one chunk each, as far as they are still there, new vectors and this version.

        What is of another version afterwards has no vector any more, and "" as its version: then all vectors are of
        one embedder, and may have another length than before.
        """
        rows = dict(zip(map(well_formed, chunks), _rows(list(chunks.values())), strict=True))
        lengths = {len(chunk.vector) for chunk in chunks.values() if chunk.vector is not None}

        def work(db: sqlite3.Connection) -> None:
            there = self._tables.versions(db).keys() & rows.keys()
            self._tables.forget(db, there)
            self._tables.let_go(db, version)
            for length in lengths if there else ():
                self._agree(db, length, "a vector has ")
            for name, row in rows.items():
                if name in there:
                    self._tables.keep(db, name, version, [row])

        self._db.now(work)

    def versions_now(self) -> dict[str, str]:
        """See `versions`."""
        return self._db.read(self._tables.versions)

    def chunks_now(self, document_id: str) -> list[Chunk]:
        """The chunks of a document, in the order in which they were added, without their vectors."""
        rows = self._db.read(lambda db: self._tables.chunks(db, well_formed(document_id)))
        return [Chunk(name, text, None, json.loads(metadata)) for name, text, metadata in rows]

    def search_now(
        self,
        query: str,
        *,
        vector: Sequence[float] | None = None,
        top_k: int = 5,
        where: Mapping[str, Any] | None = None,
        weight: float = 1.0,
    ) -> list[Passage]:
        """See `search`."""
        most = checked_top_k(top_k)
        check_where(where)
        if not isinstance(query, str):
            raise DocumentError(f"search({shown(query)}): the query is a string.")
        words = telling(well_formed(query))[:_MOST_WORDS]
        meant = None if vector is None else unit(vector, "the query")
        fused = bool(words) and meant is not None
        depth = max(most, _DEPTH) if fused else most

        def work(db: sqlite3.Connection) -> list[Passage]:
            among = self._tables.matching(db, where) if where else None
            ranked = self._tables.by_words(db, words, depth, among) if words else []
            if meant is not None:
                close = self._by_vector(db, meant, depth, among)
                ranked = _fused(ranked, close, weight)[:most] if fused else close
            rows = self._tables.rows(db, [ident for ident, _ in ranked])
            return [Passage(*rows[ident][:2], score, json.loads(rows[ident][2])) for ident, score in ranked]

        return self._db.read(work)

    def _by_vector(
        self, db: sqlite3.Connection, meant: array[float], most: int, among: set[int] | None
    ) -> list[tuple[int, float]]:
        state = self._tables.state(db)
        if state.dimensions is None or not any(meant):  # one that points nowhere is as close to all
            return []
        if state.dimensions != len(meant):
            raise self._mismatch("the query has a vector of ", len(meant), state.dimensions)
        return self._vectors(db, state, state.dimensions).nearest(meant, most, among)

    def _vectors(self, db: sqlite3.Connection, state: State, dimensions: int) -> Vectors:
        """All vectors as they are now; those that were there before are not read again."""
        seen = self._seen
        if seen is None or seen[0].dimensions != dimensions:
            vectors = no_vectors(dimensions).grown(None, *self._tables.vectors(db, 0))
        elif seen[0].changes == state.changes:
            return seen[1]
        else:
            keep = None if seen[0].removals == state.removals else self._tables.vector_ids(db)
            vectors = seen[1].grown(keep, *self._tables.vectors(db, seen[1].newest))
        self._seen = state, vectors
        return vectors

    def _agree(self, db: sqlite3.Connection, length: int, what: str) -> None:
        """Vectors are so long; the first that comes says how long."""
        known = self._tables.state(db).dimensions
        if known is None:
            self._tables.fix(db, length)
        elif known != length:
            raise self._mismatch(what, length, known)

    def _mismatch(self, what: str, length: int, known: int) -> DocumentError:
        return DocumentError(
            f"{what}{length}, but the vectors in collection {self.collection!r} of {self._file!r} have {known} "
            "dimensions: they were made by another embedder. Use that one, or give this one a collection of its own."
        )


def _rows(chunks: Sequence[Chunk]) -> list[Written]:
    """Chunks to be written. Raises `DocumentError`."""
    given = [(f"chunk {chunk.id!r}", chunk.vector) for chunk in chunks if chunk.vector is not None]
    vectors = iter(units(given))
    return [written(chunk, None if chunk.vector is None else next(vectors)) for chunk in chunks]


async def look_up(
    store: VectorStore, embedder: Embedder | None, query: str, top_k: int, where: Mapping[str, Any] | None = None
) -> list[Passage]:
    """What a store finds by the words of a query and, where there is an embedder, by what it means as well.

    Any text is a query. Raises `LLMError` where the embedder fails.
    """
    if embedder is None or not query.strip():  # servers refuse to embed nothing
        return await store.search(query, top_k=top_k, where=where)
    vector = (await embedder.embed([query])).vectors[0]
    weight = getattr(embedder, "weight", 1.0)
    return await store.search(query, vector=vector, top_k=top_k, where=where, weight=weight)


def made_by(embedder: Embedder | None) -> str:
    """Whose vectors it makes: those of another name cannot be compared with them. Empty where there is none."""
    if embedder is None:
        return ""
    dimensions = getattr(embedder, "dimensions", None)
    return f"{embedder.provider}/{embedder.model}{f'/{dimensions}' if dimensions else ''}"


def checked_ids(document_ids: object) -> list[str]:
    """The ids of documents to be deleted. Raises `DocumentError`, for a single string as well."""
    if isinstance(document_ids, str):
        raise DocumentError(f"delete({document_ids!r}) takes a list of ids. Write delete([{document_ids!r}]).")
    ids = list(cast("Iterable[object]", document_ids)) if isinstance(document_ids, Iterable) else [document_ids]
    names = [ident for ident in ids if isinstance(ident, str)]
    if len(names) < len(ids):
        raise DocumentError(f"delete({shown(ids)}) takes a list of ids. Write delete([document.id]).")
    return names


def checked_top_k(top_k: object) -> int:
    """How many passages to look for, as SQLite can count them."""
    if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
        raise DocumentError(f"search(top_k={shown(top_k)}): it is a whole number of 1 or more.")
    return min(top_k, _MOST_FOUND)


def _fused(
    told: Sequence[tuple[int, float]], close: Sequence[tuple[int, float]], weight: float
) -> list[tuple[int, float]]:
    """Two orders as one, by reciprocal ranks; where they balance, the first order decides.

    Ranks alone would let a weak order of almost equal scores overturn one whose first stands out.
    """
    scores: dict[int, float] = {}
    for ranked, share in ((told, 1.0), (close, weight)):
        best = max((score for _, score in ranked), default=0.0) or 1.0
        for rank, (ident, score) in enumerate(ranked, start=1):
            scores[ident] = scores.get(ident, 0.0) + share * max(score / best, 0.0) / (_FUSION + rank)
    return sorted(scores.items(), key=lambda item: -item[1])
