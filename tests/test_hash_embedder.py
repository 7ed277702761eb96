"""The embedder without a model: the same everywhere, and close where texts share words or parts of them."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.testing import record
from agentflow_llm.errors import LLMBadRequestError
from agentflow_llm.hash_embedder import HashEmbedder
from agentflow_llm.model import Embedder

if TYPE_CHECKING:
    from collections.abc import Sequence


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    return math.fsum(a * b for a, b in zip(one, other, strict=True))


async def test_texts_that_share_words_or_parts_of_them_lie_close() -> None:
    embedder = HashEmbedder()
    assert isinstance(embedder, Embedder)
    answer = await embedder.embed(
        ["The sailors tie a bowline.", "Sailor, tye bowlines!", "Interest rates were raised."]
    )
    one, near, far = answer.vectors
    assert cosine(one, near) > 0.25
    assert abs(cosine(one, far)) < 0.15
    assert (embedder.provider, embedder.model, answer.model) == ("offline", "hash-384", "hash-384")


async def test_order_and_case_make_no_difference_but_how_often_does() -> None:
    one, same, often = (await HashEmbedder().embed(["a big Boat", "BOAT, big!", "boat boat boat big"])).vectors
    assert cosine(one, same) > 0.99
    assert 0.7 < cosine(one, often) < 0.99


@given(st.lists(st.text(max_size=60), min_size=1, max_size=4), st.integers(1, 50))
def test_any_text_has_a_vector_of_length_1_or_none_at_all(texts: list[str], dimensions: int) -> None:
    import asyncio  # noqa: PLC0415 because hypothesis runs no coroutines

    for vector in asyncio.run(HashEmbedder(dimensions).embed(texts)).vectors:
        length = math.hypot(*vector)
        assert len(vector) == dimensions
        assert length == 0 or length == pytest.approx(1, abs=1e-5)


async def test_it_is_the_same_in_every_process() -> None:
    program = (
        "import asyncio; from agentflow_llm.hash_embedder import HashEmbedder\n"
        "made = asyncio.run(HashEmbedder(8).embed(['Der Wind f\\u00fcllt das Segel.']))\n"
        "print([round(number, 4) for number in made.vectors[0]])"
    )
    said = {
        subprocess.run(  # noqa: ASYNC221 because nothing else runs
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert said == {"[-0.1129, -0.0133, -0.0328, -0.3785, -0.1262, -0.12, 0.6566, -0.6175]\n"}


async def test_embedding_is_one_operation() -> None:
    with record() as seen:
        answer = await HashEmbedder(16).embed(["a", "b"])
    [op] = seen.operations
    assert (op.kind, op.name, op.result, op.subject.dimensions) == ("embeddings", "hash-16", answer, 16)


def test_dimensions_that_are_none_are_refused_and_it_says_what_it_is() -> None:
    with pytest.raises(LLMBadRequestError, match="dimensions=0"):
        HashEmbedder(0)
    assert repr(HashEmbedder(16)) == "HashEmbedder(dimensions=16)"
    assert "not what is meant" in (HashEmbedder.__doc__ or "")


@pytest.mark.parametrize("dimensions", ["a", 1.5, True, None])
def test_what_is_no_number_of_dimensions_is_refused(dimensions: Any) -> None:
    with pytest.raises(LLMBadRequestError, match="it takes the number of dimensions"):
        HashEmbedder(dimensions)
