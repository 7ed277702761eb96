"""Collections of chunks in the tables of a SQLite file; each function is a part of somebody's transaction."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from .documents import metadata_as_json, options_of
from .loose import well_formed
from .terms import indexed, is_sign

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from .documents import Chunk

TABLES = """
    CREATE TABLE chunk_collection (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, dimensions INTEGER,
        newest INTEGER NOT NULL DEFAULT 0, changes INTEGER NOT NULL DEFAULT 0, removals INTEGER NOT NULL DEFAULT 0);
    CREATE TABLE chunk_document (
        collection INTEGER NOT NULL, name TEXT NOT NULL, version TEXT NOT NULL, PRIMARY KEY (collection, name)
    ) WITHOUT ROWID;
    CREATE TABLE chunk (
        id INTEGER PRIMARY KEY, document TEXT NOT NULL, name TEXT NOT NULL, metadata TEXT NOT NULL, text TEXT);
    CREATE INDEX chunk_by_document ON chunk (document);
    CREATE TABLE chunk_vector (id INTEGER PRIMARY KEY, data BLOB NOT NULL);
    CREATE VIRTUAL TABLE chunk_words USING fts5(
        title, heading, text,
        tokenize = "porter unicode61 remove_diacritics 2 categories 'L* N* Co Mn Mc'");
    INSERT INTO chunk_words (chunk_words, rank) VALUES ('rank', 'bm25(1.0, 2.0, 1.0)');
"""
VERSION = 2
"""Of these tables. The text of a chunk stands in `chunk` only where it is indexed as another one."""
_ROOM = 1 << 40
"""Ids that each collection has for its chunks, so that they lie side by side in all tables.

None is ever given to another chunk: what was read of it before holds, or it is gone.
"""
_FORGET = [
    "DELETE FROM chunk_words WHERE rowid IN (SELECT id FROM chunk WHERE {of_document})",
    "DELETE FROM chunk_vector WHERE id IN (SELECT id FROM chunk WHERE {of_document})",
    "DELETE FROM chunk WHERE {of_document}",
]
_OF_DOCUMENT = "document = :document AND id BETWEEN :first AND :last"
_ROWS = """
    SELECT chunk.id, name, coalesce(chunk.text, words.text), metadata FROM json_each(:ids) AS wanted
    JOIN chunk ON chunk.id = wanted.value JOIN chunk_words AS words ON words.rowid = chunk.id
"""
_CHUNKS = """
    SELECT name, coalesce(chunk.text, words.text), metadata
    FROM chunk JOIN chunk_words AS words ON words.rowid = chunk.id
    WHERE document = :document AND chunk.id BETWEEN :first AND :last ORDER BY chunk.id
"""
_MATCHING = "SELECT id FROM chunk WHERE id BETWEEN :first AND :last AND {condition}"
_TERM = """(
    json_extract(metadata, :key{number}) IN (SELECT value FROM json_each(:options{number}))
    OR json_type(metadata, :key{number}) = 'array' AND EXISTS (
        SELECT 1 FROM json_each(metadata, :key{number}) AS had
        WHERE had.atom IN (SELECT value FROM json_each(:options{number}))))"""
_RANKED = """
    SELECT rowid, -rank FROM chunk_words WHERE chunk_words MATCH :query AND rowid BETWEEN :first AND :last
    AND {among} ORDER BY rank LIMIT :most
"""
_AMONG = "+rowid IN (SELECT value FROM json_each(:among))"  # without the + each of them would be looked up on its own


class State(NamedTuple):
    """How far a collection has come: its vectors' length, its changes so far, and those that removed something."""

    dimensions: int | None
    changes: int
    removals: int


class Written(NamedTuple):
    """A chunk as it is written; `vector` has length 1."""

    name: str
    title: str
    heading: str
    text: str
    indexed: str
    metadata: str
    vector: bytes | None


def written(chunk: Chunk, vector: bytes | None) -> Written:
    """A chunk to be written. Raises `DocumentError` where JSON cannot hold its metadata."""
    metadata = metadata_as_json(chunk.metadata, f"chunk {chunk.id!r}")
    text = well_formed(chunk.text)
    title, heading = (str(chunk.metadata.get(name) or "") for name in ("title", "heading"))
    return Written(
        well_formed(chunk.id),
        indexed(well_formed(title)),
        indexed(well_formed(heading)),
        text,
        indexed(text),
        well_formed(metadata),
        vector,
    )


def find(db: sqlite3.Connection, name: str) -> Collection | None:
    """The collection of this name, if there is one."""
    found = db.execute("SELECT id FROM chunk_collection WHERE name = ?", (name,)).fetchone()
    return None if found is None else Collection(found[0])


def make(db: sqlite3.Connection, name: str) -> Collection:
    """The collection of this name, made where it is missing."""
    found = find(db, name)
    if found is None:
        number = db.execute("INSERT INTO chunk_collection (name) VALUES (?)", (name,)).lastrowid
        assert number is not None
        db.execute("UPDATE chunk_collection SET newest = id * ? WHERE id = ?", (_ROOM, number))
        found = Collection(number)
    return found


class Collection:
    """What a file has of one collection, by its number."""

    def __init__(self, number: int) -> None:
        self._bounds = {"number": number, "first": number * _ROOM, "last": (number + 1) * _ROOM - 1}

    def _all(self, db: sqlite3.Connection, statement: str, **values: object) -> list[Any]:
        return db.execute(statement, {**self._bounds, **values}).fetchall()

    def state(self, db: sqlite3.Connection) -> State:
        """How far it has come."""
        [row] = self._all(db, "SELECT dimensions, changes, removals FROM chunk_collection WHERE id = :number")
        return State(*row)

    def fix(self, db: sqlite3.Connection, dimensions: int) -> None:
        """From now on vectors are so long."""
        self._all(db, "UPDATE chunk_collection SET dimensions = :length WHERE id = :number", length=dimensions)

    def keep(self, db: sqlite3.Connection, document: str, version: str, chunks: Sequence[Written]) -> None:
        """Add a document that is not there."""
        [(newest,)] = self._all(db, "SELECT newest FROM chunk_collection WHERE id = :number")
        numbered = list(enumerate(chunks, start=newest + 1))
        self._all(
            db,
            "UPDATE chunk_collection SET newest = :newest, changes = changes + 1 WHERE id = :number",
            newest=newest + len(chunks),
        )
        self._all(
            db, "INSERT INTO chunk_document VALUES (:number, :document, :version)", document=document, version=version
        )
        db.executemany(
            "INSERT INTO chunk VALUES (?, ?, ?, ?, ?)",
            (
                (ident, document, chunk.name, chunk.metadata, None if chunk.indexed == chunk.text else chunk.text)
                for ident, chunk in numbered
            ),
        )
        db.executemany(
            "INSERT INTO chunk_words (rowid, title, heading, text) VALUES (?, ?, ?, ?)",
            ((ident, chunk.title, chunk.heading, chunk.indexed) for ident, chunk in numbered),
        )
        db.executemany(
            "INSERT INTO chunk_vector VALUES (?, ?)",
            ((ident, chunk.vector) for ident, chunk in numbered if chunk.vector is not None),
        )

    def forget(self, db: sqlite3.Connection, documents: Iterable[str]) -> None:
        """Delete documents with all that they have."""
        removals = 0
        for document in documents:
            values = {**self._bounds, "document": document}
            gone = db.execute("DELETE FROM chunk_document WHERE collection = :number AND name = :document", values)
            if gone.rowcount:
                removals += 1
                for statement in _FORGET:
                    db.execute(statement.format(of_document=_OF_DOCUMENT), values)
        if removals:
            statement = "UPDATE chunk_collection SET changes = changes + 1, removals = removals + 1 WHERE id = :number"
            self._all(db, statement)

    def let_go(self, db: sqlite3.Connection, version: str) -> None:
        """Take from all documents but those of this version their vectors and their versions."""
        others = "FROM chunk_document WHERE collection = :number AND version <> :version"
        found = self._all(db, f"SELECT name {others}", version=version)
        for (document,) in found:
            self._all(db, _FORGET[1].format(of_document=_OF_DOCUMENT), document=document)
        self._all(
            db,
            "UPDATE chunk_document SET version = '' WHERE collection = :number AND version <> :version",
            version=version,
        )
        [(left,)] = self._all(db, "SELECT count(*) FROM chunk_vector WHERE id BETWEEN :first AND :last")
        self._all(
            db,
            "UPDATE chunk_collection SET dimensions = iif(:left, dimensions, NULL), changes = changes + 1, "
            "removals = removals + 1 WHERE id = :number",
            left=left,
        )

    def versions(self, db: sqlite3.Connection) -> dict[str, str]:
        """By document, its version."""
        statement = "SELECT name, version FROM chunk_document WHERE collection = :number ORDER BY name"
        return dict(self._all(db, statement))

    def chunks(self, db: sqlite3.Connection, document: str) -> list[tuple[str, str, str]]:
        """Name, text and metadata of a document's chunks, in the order in which they were added."""
        return self._all(db, _CHUNKS, document=document)

    def rows(self, db: sqlite3.Connection, ids: Iterable[int]) -> dict[int, tuple[str, str, str]]:
        """By id, the name, text and metadata of chunks; those that are gone are left out."""
        found = self._all(db, _ROWS, ids=json.dumps(list(ids)))
        return {ident: (name, text, metadata) for ident, name, text, metadata in found}

    def vector_ids(self, db: sqlite3.Connection) -> set[int]:
        """The ids of the chunks that have a vector."""
        found = self._all(db, "SELECT id FROM chunk_vector WHERE id BETWEEN :first AND :last")
        return {ident for (ident,) in found}

    def vectors(self, db: sqlite3.Connection, after: int) -> tuple[int, Iterator[tuple[int, bytes]]]:
        """How many chunks with vectors have greater ids, and their ids and vectors, as they are read."""
        values = {**self._bounds, "first": max(after + 1, self._bounds["first"])}
        [many] = db.execute("SELECT count(*) FROM chunk_vector WHERE id BETWEEN :first AND :last", values).fetchone()
        statement = "SELECT id, data FROM chunk_vector WHERE id BETWEEN :first AND :last ORDER BY id"
        return many, db.execute(statement, values)

    def matching(self, db: sqlite3.Connection, where: Mapping[str, Any]) -> set[int]:
        """The ids of the chunks whose metadata say so."""
        condition, values = _condition(where)
        return {ident for (ident,) in self._all(db, _MATCHING.format(condition=condition), **values)}

    def by_words(
        self, db: sqlite3.Connection, words: Iterable[str], most: int, among: Iterable[int] | None
    ) -> list[tuple[int, float]]:
        """Ids and scores of the chunks that the words fit best; of `among`, or of all."""
        # in quotes nothing is syntax; of a sign that stands alone all pairs that it begins are meant
        query = " OR ".join(f'"{word}"*' if is_sign(word) else f'"{word}"' for word in words)
        if among is None:
            found = self._all(db, _RANKED.format(among="1"), query=query, most=most)
        else:
            ids = json.dumps(list(among))
            found = self._all(db, _RANKED.format(among=_AMONG), query=query, most=most, among=ids)
        return sorted(found, key=lambda row: (-row[1], row[0]))


def _condition(where: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """What the metadata must say, as SQL with the values of its parameters. See `check_where`."""
    terms: list[str] = []
    values: dict[str, str] = {}
    for number, (key, wanted) in enumerate(where.items()):
        terms.append(_TERM.format(number=number))
        values[f"key{number}"] = well_formed(f'$."{key}"')
        values[f"options{number}"] = well_formed(json.dumps(options_of(wanted), ensure_ascii=False))
    return " AND ".join(terms) or "1", values
