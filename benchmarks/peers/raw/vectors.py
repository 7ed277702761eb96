"""Numpy brute force and FTS5, put together by hand: what one would write for this one table."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterable, Sequence

    from cases.vectors import Row

DEPTH = 50
FUSION = 60


class Store:
    def __init__(self) -> None:
        self.db = sqlite3.connect(":memory:")
        self.db.execute("CREATE TABLE chunk (id INTEGER PRIMARY KEY, name TEXT, metadata TEXT, vector BLOB)")
        self.db.execute("CREATE VIRTUAL TABLE words USING fts5(text, tokenize = 'porter unicode61')")
        self.count = 0
        self.matrix: Any = None

    async def add(self, document: str, rows: Sequence[Row]) -> None:
        numbered = list(enumerate(rows, start=self.count))
        self.count += len(rows)
        metadata = json.dumps({"source": document})
        with self.db:
            self.db.executemany(
                "INSERT INTO chunk VALUES (?, ?, ?, ?)",
                [(ident, row.name, metadata, row.vector.tobytes()) for ident, row in numbered],
            )
            self.db.executemany(
                "INSERT INTO words (rowid, text) VALUES (?, ?)", [(ident, row.text) for ident, row in numbered]
            )

    def by_vector(self, vector: array[float], most: int) -> list[int]:
        if self.matrix is None:
            data = b"".join(data for (data,) in self.db.execute("SELECT vector FROM chunk ORDER BY id"))
            self.matrix = np.frombuffer(data, np.float32).reshape(self.count, -1)
            self.matrix = self.matrix / np.linalg.norm(self.matrix, axis=1, keepdims=True)
        scores = self.matrix @ np.frombuffer(vector, np.float32)
        best = np.argpartition(-scores, most)[:most]
        return best[np.argsort(-scores[best])].tolist()

    def names(self, ids: Iterable[int]) -> list[str]:
        statement = "SELECT name, text, metadata FROM chunk JOIN words ON words.rowid = id WHERE id = ?"
        return [self.db.execute(statement, (ident,)).fetchone()[0] for ident in ids]

    async def query(self, text: str, vector: array[float], most: int) -> list[str]:
        words = " OR ".join(f'"{word}"' for word in text.split())
        statement = "SELECT rowid FROM words WHERE words MATCH ? ORDER BY rank LIMIT ?"
        told = [ident for (ident,) in self.db.execute(statement, (words, DEPTH))]
        scores = {}
        for order in (told, self.by_vector(vector, DEPTH)):
            for rank, ident in enumerate(order, start=1):
                scores[ident] = scores.get(ident, 0) + 1 / (FUSION + rank)
        return self.names(sorted(scores, key=lambda ident: -scores[ident])[:most])

    async def nearest(self, vector: array[float], most: int) -> list[str]:
        return self.names(self.by_vector(vector, most))


def store() -> Store:
    return Store()
