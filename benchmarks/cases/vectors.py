"""What it costs to keep chunks of text with vectors, and to find them by words and vector at once."""

from __future__ import annotations

import math
from array import array
from heapq import nlargest
from itertools import accumulate
from operator import mul
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from measure import Timer, resident

from .case import Case, check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .case import Metrics

DIMENSIONS = 384
A_DOCUMENT = 100
WORDS = 20_000
MOST = 10


class Row(NamedTuple):
    """A chunk."""

    name: str
    text: str
    vector: array[float]


class Texts:
    """Texts in which words are as unevenly spread as in any language, and vectors that point anywhere."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)  # noqa: S311 because nothing is kept secret
        self._words = [f"word{number}" for number in range(WORDS)]
        self._weights = list(accumulate(1 / (1 + number) for number in range(WORDS)))

    def text(self, words: int) -> str:
        return " ".join(self._random.choices(self._words, cum_weights=self._weights, k=words))

    def vector(self) -> array[float]:
        bits = self._random.randbytes(DIMENSIONS)
        return array("f", [byte - 127.5 for byte in bits])

    def documents(self, chunks: int) -> Iterator[tuple[str, list[Row]]]:
        for start in range(0, chunks, A_DOCUMENT):
            rows = [Row(f"c{number}", self.text(80), self.vector()) for number in range(start, start + A_DOCUMENT)]
            yield f"d{start}", rows


def _cosine(one: array[float], other: array[float]) -> float:
    return float(sum(map(mul, one, other))) / math.sqrt(sum(map(mul, other, other)))


class Ingest(Case):
    """Documents of 100 chunks are added, their vectors given."""

    name = "vectors_ingest"
    area = "vectors"
    workload = "store"
    repetitions = 5
    chunks = 20_000

    async def set_up(self) -> None:
        self.texts = Texts(7)
        self.store = self.make()
        for document, rows in Texts(1).documents(A_DOCUMENT):
            await self.make().add(document, rows)

    async def fill(self, chunks: int) -> float:
        cpu = 0.0
        for document, rows in self.texts.documents(chunks):
            with Timer() as timer:
                await self.store.add(document, rows)
            cpu += timer.cpu
        return cpu

    async def measure(self) -> Metrics:
        return {"cpu_us": await self.fill(self.chunks) / self.chunks * 1e6}


class IngestGrowth(Ingest):
    """What a chunk costs in 100,000, over what it costs in the first 20,000 of them."""

    name = "vectors_ingest_growth"
    repetitions = 3
    more = 80_000

    async def measure(self) -> Metrics:
        few = await self.fill(self.chunks)
        self.texts = Texts(8)
        many = await self.fill(self.more)
        return {"growth": (few + many) / few * self.chunks / (self.chunks + self.more)}


class Query(Ingest):
    """The ten best of 20,000 chunks by eight words and a vector; and whether the nearest by vector are all found."""

    name = "vectors_query"
    queries = 40
    checked = 3
    """Queries whose nearest chunks are looked for one by one as well."""

    async def set_up(self) -> None:
        await super().set_up()
        before = resident()
        self.asked = [(self.texts.text(8), self.texts.vector()) for _ in range(self.queries)]
        best: list[list[tuple[float, str]]] = [[] for _ in self.asked]
        for document, rows in self.texts.documents(self.chunks):
            await self.store.add(document, rows)
            for near, (_, vector) in zip(best, self.asked[: self.checked], strict=False):
                near[:] = nlargest(MOST, [*near, *((_cosine(vector, row.vector), row.name) for row in rows)])
        self.exact = [{name for _, name in near} for near in best[: self.checked]]
        await self.store.query(*self.asked[0], MOST)
        self.kept = resident() - before

    async def measure(self) -> Metrics:
        with Timer() as timer:
            for text, vector in self.asked:
                check(len(await self.store.query(text, vector, MOST)), MOST)
        found = 0
        for right, (_, vector) in zip(self.exact, self.asked, strict=False):
            found += len(right.intersection(await self.store.nearest(vector, MOST)))
        return {
            "cpu_us": timer.cpu / self.queries * 1e6,
            "recall": found / (MOST * len(self.exact)),
            "kb": self.kept / self.chunks / 1024,
        }


class QueryFew(Query):
    """The same with 1,000 chunks."""

    name = "vectors_query_few"
    chunks = 1_000


class QueryMany(Query):
    """The same with 100,000 chunks."""

    name = "vectors_query_many"
    repetitions = 3
    chunks = 100_000
    queries = 20
