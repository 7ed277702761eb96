"""An embedder without a model: texts that share words, or parts of words, have vectors that lie close together."""

from __future__ import annotations

import asyncio
import math
import re
from array import array
from collections import Counter
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING
from unicodedata import normalize

from agentflow.errors import shown

from .embedding import BaseEmbedder
from .errors import LLMBadRequestError
from .loose import well_formed
from .model import Embeddings
from .terms import FILLER

if TYPE_CHECKING:
    from .records import EmbeddingsCall

_FILLER_WEIGHT = 0.05
_WORD = re.compile(r"\w{1,64}")  # some languages write none of their words apart


class HashEmbedder(BaseEmbedder):
    """Vectors of a text's words and their trigrams, by hashing: no model, no network, the same in every process.

    It knows what is written, not what is meant: "car" and "cars" are alike, "car" and "automobile" are not. It serves
    tests, examples, and search that forgives misspelling; `weight` says how little its order of texts is worth beside
    that by words.

    - `dimensions`: more tell more words apart.
    """

    weight = 0.1

    def __init__(self, dimensions: int = 384) -> None:
        if isinstance(dimensions, bool) or not isinstance(dimensions, int):
            raise LLMBadRequestError(
                f"HashEmbedder({shown(dimensions)}): it takes the number of dimensions. Write HashEmbedder()."
            )
        super().__init__(f"hash-{dimensions}", "offline", dimensions=dimensions)
        self._length = dimensions

    def __repr__(self) -> str:
        return f"HashEmbedder(dimensions={self._length})"

    async def answer(self, call: EmbeddingsCall) -> Embeddings:
        """See `BaseClient.answer`."""
        vectors = await asyncio.to_thread(lambda: [self._vector(text) for text in call.texts])
        return Embeddings(vectors, model=self.model)

    def _vector(self, text: str) -> array[float]:
        numbers = [0.0] * self._length
        for word, count in Counter(_WORD.findall(normalize("NFKC", well_formed(text)).casefold())).items():
            often = 1.0 + math.log(count)
            for place, number in _features(word, self._length):
                numbers[place] += often * number
        length = math.hypot(*numbers)
        return array("f", [number / length for number in numbers] if length else numbers)


@lru_cache(maxsize=50_000)
def _features(word: str, dimensions: int) -> list[tuple[int, float]]:
    """Where a word goes in a vector, and with how much: it itself, and in sum as much each three characters of it."""
    weight = _FILLER_WEIGHT if word in FILLER else 1.0
    framed = f"<{word}>"
    parts = [framed[at : at + 3] for at in range(len(framed) - 2)]
    share = weight / math.sqrt(len(parts))
    return [_feature(f"{word} ", weight, dimensions), *(_feature(part, share, dimensions) for part in parts)]


def _feature(text: str, weight: float, dimensions: int) -> tuple[int, float]:
    """A place, and a sign, so that what falls on one place by chance cancels out as often as it adds up."""
    number = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")
    return (number >> 1) % dimensions, -weight if number & 1 else weight
