"""A store of chunks in memory, as a user of agentflow would take it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentflow_llm.documents import Chunk
from agentflow_llm.vector_store import SqliteVectorStore

if TYPE_CHECKING:
    from array import array
    from collections.abc import Sequence

    from cases.vectors import Row


class Store:
    def __init__(self) -> None:
        self.store = SqliteVectorStore()

    async def add(self, document: str, rows: Sequence[Row]) -> None:
        await self.store.add(
            document, [Chunk(name, text, vector, {"source": document}) for name, text, vector in rows], version="1"
        )

    async def query(self, text: str, vector: array[float], most: int) -> list[str]:
        return [passage.id for passage in await self.store.search(text, vector=vector, top_k=most)]

    async def nearest(self, vector: array[float], most: int) -> list[str]:
        return [passage.id for passage in await self.store.search("", vector=vector, top_k=most)]


def store() -> Store:
    return Store()
