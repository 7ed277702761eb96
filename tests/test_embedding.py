"""What all embedders have in common: batches, retries, and one operation."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.clock import current_clock, use_clock
from agentflow.observe import Kind
from agentflow.testing import FakeClock, record
from agentflow_llm import (
    Embedder,
    Embeddings,
    EmbeddingsCall,
    LLMBadRequestError,
    LLMError,
    LLMResponseError,
    LLMServerError,
    LLMTimeoutError,
    Usage,
)
from flaky import FlakyEmbedder, finish


async def test_embedding_is_one_operation_with_its_facts_and_its_answer() -> None:
    embedder = FlakyEmbedder(dimensions=2)
    assert isinstance(embedder, Embedder)
    with record() as seen:
        found = await embedder.embed(["a", "bb"])
    assert [list(vector) for vector in found.vectors] == [[1, 97], [2, 98]]
    (op,) = seen.operations
    assert (op.kind, op.name, op.outcome) == (Kind.EMBEDDINGS, "vectors", "ok")
    assert op.subject == EmbeddingsCall("test", "vectors", ("a", "bb"), 2)
    assert op.result is found


@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=20), texts=st.integers(1, 6), most=st.integers(1, 50))
async def test_batches_keep_to_the_limits_and_lose_nothing(sizes: list[int], texts: int, most: int) -> None:
    embedder = FlakyEmbedder()
    embedder.most_texts, embedder.most_characters = texts, most
    given_texts = [chr(97 + number) * size for number, size in enumerate(sizes)]
    with record() as seen:
        found = await embedder.embed(given_texts)
    assert [text for call in embedder.asked for text in call.texts] == given_texts
    assert [list(vector) for vector in found.vectors] == [[len(text), ord(text[0])] for text in given_texts]
    for call in embedder.asked:
        assert len(call.texts) <= texts
        assert sum(map(len, call.texts)) <= most or len(call.texts) == 1
    assert found.usage == Usage(input_tokens=len(sizes), http_requests=len(embedder.asked))
    assert (found.model, len(seen.operations)) == ("vectors-1", 1)


async def test_each_batch_is_tried_again_by_itself() -> None:
    embedder = FlakyEmbedder(LLMServerError("down"))
    embedder.most_texts = 1
    with use_clock(FakeClock()) as clock, record() as seen:
        found = await finish(clock, lambda: embedder.embed(["a", "b"]))
    assert [list(call.texts) for call in embedder.asked] == [["a"], ["a"], ["b"]]
    assert found.usage.http_requests == 3
    assert seen.noted_on(seen.operations[0]) == ["retry"]


async def test_failure_counts_the_requests_of_batches_before_it() -> None:
    class Breaking(FlakyEmbedder):
        async def answer(self, call: EmbeddingsCall) -> Embeddings:
            if self.asked:
                self.errors.append(LLMServerError("down"))
                self.errors[0].http_requests = 1  # type: ignore[union-attr]  # because it is none of the endless ones
            return await super().answer(call)

    embedder = Breaking(retry=None)
    embedder.most_texts = 1
    with pytest.raises(LLMServerError) as caught:
        await embedder.embed(["a", "b"])
    assert caught.value.http_requests == 2


async def test_no_text_is_no_call() -> None:
    embedder = FlakyEmbedder()
    with record() as seen:
        assert await embedder.embed([]) == Embeddings([], model="vectors")
    assert (embedder.asked, seen.operations) == ([], [])


async def test_limit_of_time_is_for_all_batches_together() -> None:
    class Slow(FlakyEmbedder):
        async def answer(self, call: Any) -> Any:
            await current_clock().sleep(4)
            return await super().answer(call)

    embedder = Slow(timeout=100)
    embedder.most_texts = 1
    with use_clock(FakeClock(0)) as clock, record() as seen, pytest.raises(LLMTimeoutError, match="within 10 s"):
        await finish(clock, lambda: embedder.embed(["a", "b", "c"], timeout=10))
    assert (clock.now, len(embedder.asked), seen.operations[0].outcome) == (10, 2, "timeout")


async def test_single_text_in_place_of_a_list_is_refused() -> None:
    with pytest.raises(LLMBadRequestError, match=r"Write embed\(\[text\]\)"):
        await FlakyEmbedder().embed("abc")


@pytest.mark.parametrize("dimensions", [0, -1])
def test_vector_of_no_dimensions_is_refused(dimensions: int) -> None:
    with pytest.raises(LLMError, match="1 or more"):
        FlakyEmbedder(dimensions=dimensions)


async def test_too_few_vectors_are_no_answer() -> None:
    class Lazy(FlakyEmbedder):
        async def answer(self, call: EmbeddingsCall) -> Embeddings:
            found = await super().answer(call)
            return Embeddings(found.vectors[1:], found.usage, found.model)

    with pytest.raises(LLMResponseError, match="gave 1 vectors for 2 texts"):
        await Lazy().embed(["a", "b"])


@pytest.mark.parametrize("texts", [[1], ["a", None], b"ab", 5, None])
async def test_what_are_no_texts_is_refused(texts: Any) -> None:
    with pytest.raises(LLMBadRequestError, match=r"takes a list of texts, and .* is none. Write embed\(\[text\]\)"):
        await FlakyEmbedder().embed(texts)


async def test_late_call_counts_the_batches_before() -> None:
    class Slowing(FlakyEmbedder):
        most_texts = 1

        async def answer(self, call: EmbeddingsCall) -> Embeddings:
            if self.asked:
                self.errors = [None]
            return await super().answer(call)

    with use_clock(FakeClock()) as clock, pytest.raises(LLMTimeoutError) as caught:
        await finish(clock, lambda: Slowing(timeout=9).embed(["a", "b"]))
    assert caught.value.http_requests == 1


async def test_time_limit_that_is_none_is_refused() -> None:
    with pytest.raises(LLMBadRequestError, match="timeout=0 is no limit"):
        await FlakyEmbedder().embed(["a"], timeout=0)
