"""Embeddings through the openai client, over a real socket; recorded answers and synthetic."""

from __future__ import annotations

import base64
import json
import struct
import sys
from array import array
from pathlib import Path
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.observe import Kind
from agentflow.testing import record
from agentflow_llm.errors import (
    LLMBadRequestError,
    LLMConnectionError,
    LLMError,
    LLMResponseError,
    LLMServerError,
    LLMTimeoutError,
    RateLimitError,
)
from agentflow_llm.model import Embedder
from agentflow_llm.openai_embedder import OpenAIEmbedder, read_vectors
from agentflow_llm.server import Answer, LoopbackServer

RECORDINGS = Path(__file__).parent / "fixtures" / "openai-wire"


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)


def packed(*numbers: float) -> str:
    """Numbers as they are on the wire."""
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def body(*vectors: Any, **more: Any) -> dict[str, Any]:
    """A body as a server sends it."""
    data = [{"object": "embedding", "index": at, "embedding": vector} for at, vector in enumerate(vectors)]
    return {"object": "list", "data": data, "model": "e-1", "usage": {"prompt_tokens": 5, "total_tokens": 5}, **more}


def serving(*script: Any) -> LoopbackServer:
    return LoopbackServer(paths={"/embeddings": script})


async def embeddings_of(answer: Any, texts: list[str], **how: Any) -> Any:
    """What an embedder makes of this answer: the embeddings, or the error."""
    with serving(answer) as server:
        async with OpenAIEmbedder("e", base_url=server.base_url, retry=None, **how) as embedder:
            try:
                return await embedder.embed(texts)
            except LLMError as error:
                return error


def recorded(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    (interaction,) = json.loads((RECORDINGS / f"{name}.json").read_text(encoding="utf-8"))["interactions"]
    return interaction["request"]["json"], json.loads(interaction["response"]["body"])


async def test_recorded_vectors_as_base64() -> None:
    asked, answer = recorded("embeddings_two_docs_base64")
    with serving(answer) as server:
        async with OpenAIEmbedder(base_url=server.base_url) as embedder:
            found = await embedder.embed(["hello", "world"])
    assert [request.json for request in server.requests] == [asked]
    packed_first = answer["data"][0]["embedding"]
    assert len(found.vectors) == 2
    assert {len(vector) for vector in found.vectors} == {1536}
    assert list(found.vectors[0]) == list(struct.unpack("<1536f", base64.b64decode(packed_first)))
    assert sum(number * number for number in found.vectors[1]) == pytest.approx(1.0, abs=1e-3)
    assert (found.model, found.usage.input_tokens, found.usage.http_requests) == ("text-embedding-3-small", 2, 1)


async def test_recorded_vectors_as_numbers_of_a_chosen_length() -> None:
    asked, answer = recorded("embeddings_float_dimensions")
    with serving(answer) as server:
        async with OpenAIEmbedder(base_url=server.base_url, dimensions=512) as embedder:
            found = await embedder.embed([asked["input"]])
    (request,) = server.requests
    assert request.json == {**asked, "input": [asked["input"]], "encoding_format": "base64"}
    (vector,) = found.vectors
    assert isinstance(vector, array)
    assert (vector.typecode, len(vector)) == ("f", 512)
    assert list(vector) == pytest.approx(answer["data"][0]["embedding"], rel=1e-6)
    assert found.usage.input_tokens == 8


async def test_vectors_are_in_the_order_of_the_texts() -> None:
    answer = body(packed(0.0, 1.0), packed(2.0, 3.0), [4, 5.5])
    answer["data"].reverse()
    found = await embeddings_of(answer, ["a", "b", "c"])
    assert [list(vector) for vector in found.vectors] == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.5]]


@pytest.mark.parametrize("places", [[None, None, None], [0, 0, 0], [None, 1, 2]])
def test_places_that_are_left_out_are_those_of_the_texts(places: list[int | None]) -> None:
    data = [{"index": place, "embedding": [float(at)]} for at, place in enumerate(places)]
    assert [list(vector) for vector in read_vectors(data, 3)] == [[0.0], [1.0], [2.0]]


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_packed_and_plain_vectors_are_the_same(numbers: list[float]) -> None:
    plain, other = read_vectors([{"index": 0, "embedding": numbers}, {"index": 1, "embedding": packed(*numbers)}], 2)
    assert plain == other == array("f", numbers)


def test_bytes_are_turned_round_on_a_machine_that_writes_them_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "byteorder", "big" if sys.byteorder == "little" else "little")
    # as this machine is of the other kind, it reads what such a machine would never get
    (vector,) = read_vectors([{"embedding": base64.b64encode(struct.pack(">2f", 1.5, 2.5)).decode()}], 1)
    assert list(vector) == [1.5, 2.5]


NO_VECTORS = [
    (body(packed(1.0)), "it has 1 vectors for 2 texts"),
    ({"object": "list"}, "it has 0 vectors for 2 texts"),
    ([1], "it has 0 vectors for 2 texts"),
    (body(packed(1.0), packed(1.0, 2.0)), "different lengths: 1, 2"),
    (body(packed(1.0), "not base64!"), "that is none"),
    (body(packed(1.0), base64.b64encode(b"123").decode()), "that is none"),
    (body([1.0], ["1.0"]), "that is none"),
    (body([1.0], [None]), "that is none"),
    (body([[1.0]], [[1.0]]), "that is none"),
    (body([1.0], []), "that is empty"),
    (body([1.0], None), "that is empty"),
    (body([1.0], packed(float("nan"))), "no numbers"),
    (body([1.0], packed(float("inf"))), "no numbers"),
    ({"data": [{"index": 0, "embedding": [1.0]}, {"index": 7, "embedding": [1.0]}]}, "the places of its vectors"),
    ({"data": [{"index": "b", "embedding": [1.0]}, {"index": "a", "embedding": [1.0]}]}, "the places of its vectors"),
    ({"data": [{"index": 1, "embedding": [1.0]}, {"index": 1, "embedding": [1.0]}]}, "the places of its vectors"),
    ("<html>", "no JSON"),
]


@pytest.mark.parametrize(("answer", "said"), NO_VECTORS)
async def test_an_answer_without_a_vector_for_each_text(answer: Any, said: str) -> None:
    error = await embeddings_of(answer, ["a", "b"])
    assert type(error) is LLMResponseError
    assert said in str(error)
    assert error.http_requests == 1


async def test_vectors_of_another_length_than_was_asked_for() -> None:
    error = await embeddings_of(body(packed(1.0, 2.0)), ["a"], dimensions=3)
    assert type(error) is LLMResponseError
    assert "2 dimensions, not 3" in str(error)
    assert "Leave out dimensions=" in str(error)


async def test_an_error_with_a_status_that_says_all_is_well() -> None:
    error = await embeddings_of({"error": {"message": "The model is loading", "code": 503}}, ["a"])
    assert type(error) is LLMServerError
    assert error.http_requests == 1


async def test_an_empty_text_is_named_before_anything_is_sent() -> None:
    with serving() as server:
        embedder = OpenAIEmbedder("e", base_url=server.base_url)
        embedder.most_texts = 1
        with pytest.raises(LLMBadRequestError, match="Text 2 of 3, counted from 0, is empty"):
            await embedder.embed(["a", "b", ""])
    assert server.requests == []


async def test_no_texts_are_no_request() -> None:
    with serving() as server:
        found = await OpenAIEmbedder("e", base_url=server.base_url).embed([])
    assert (list(found.vectors), server.requests) == ([], [])


async def test_one_text_alone_is_refused_as_by_every_embedder() -> None:
    text: Any = "hello"
    with pytest.raises(LLMBadRequestError, match=r"embed\(\[text\]\)"):
        await OpenAIEmbedder("e", base_url="http://127.0.0.1:9/v1").embed(text)


async def test_half_a_surrogate_pair_is_sent_as_what_it_is() -> None:
    with serving(body(packed(1.0))) as server:
        async with OpenAIEmbedder("e", base_url=server.base_url) as embedder:
            await embedder.embed(["a\ud83d"])
    assert server.requests[0].json["input"] == ["a\ufffd"]


async def test_many_texts_go_out_in_several_requests_within_the_limits_of_the_provider() -> None:
    with LoopbackServer() as server:
        async with OpenAIEmbedder("e", base_url=server.base_url) as embedder:
            found = await embedder.embed([f"text {n}" for n in range(5000)])
            long = await embedder.embed(["\U0001f600" * 30_000] * 5)
    asked = [request.json["input"] for request in server.requests]
    assert [len(texts) for texts in asked] == [2048, 2048, 904, 2, 2, 1]
    # a token is never less than a byte
    assert max(len("".join(texts).encode()) for texts in asked) <= 300_000
    assert (len(found.vectors), found.usage.http_requests, found.usage.input_tokens) == (5000, 3, 10_000)
    assert (len(long.vectors), long.usage.http_requests) == (5, 3)


async def test_one_operation_with_its_retries() -> None:
    slow = (429, {"retry-after-ms": "1"}, {"error": {"message": "Slow down"}})
    with serving(slow, body(packed(1.0))) as server, record() as seen:
        async with OpenAIEmbedder("e", base_url=server.base_url) as embedder:
            found = await embedder.embed(["a"])
    (op,) = seen.find(Kind.EMBEDDINGS)
    assert (op.name, op.result, found.usage.http_requests) == ("e", found, 2)
    assert seen.noted_on(op) == ["retry"]


async def test_a_batch_that_fails_tells_its_requests() -> None:
    with serving((429, {}, {"error": {"message": "Slow down"}})) as server:
        async with OpenAIEmbedder("e", base_url=server.base_url, retry=None) as embedder:
            with pytest.raises(RateLimitError, match="Slow down") as caught:
                await embedder.embed(["a"])
    assert caught.value.http_requests == 1


async def test_cost_of_a_call() -> None:
    pytest.importorskip("genai_prices", reason="prices are those of genai-prices")
    usage = {"prompt_tokens": 1_000_000, "total_tokens": 1_000_000}
    answer = body(packed(1.0), model="text-embedding-3-small", usage=usage)
    with serving(answer, answer) as server:
        async with OpenAIEmbedder(base_url=server.base_url, provider="openai") as embedder:
            assert (await embedder.embed(["a"])).usage.cost == pytest.approx(0.02)
        async with OpenAIEmbedder(base_url=server.base_url, provider="mine") as embedder:
            assert (await embedder.embed(["a"])).usage.cost is None


async def test_usage_that_a_server_does_not_tell() -> None:
    found = await embeddings_of(body(packed(1.0), usage={"total_tokens": 4}), ["a"])
    assert found.usage.input_tokens == 4
    found = await embeddings_of(body(packed(1.0), usage=None, model=None), ["a"])
    assert (found.usage.input_tokens, found.usage.http_requests, found.model) == (None, 1, "e")


async def test_an_answer_that_is_late() -> None:
    with serving(Answer(body(packed(1.0)), delay=30)) as server:
        async with OpenAIEmbedder("e", base_url=server.base_url, timeout=0.01) as embedder:
            with pytest.raises(
                LLMTimeoutError, match=r"'e' at http://127\.0\.0\.1:\d+/v1 did not answer within 0\.01 s"
            ):
                await embedder.embed(["a"])


async def test_it_is_an_embedder_that_says_where_it_is() -> None:
    embedder = OpenAIEmbedder(base_url="http://127.0.0.1:9/v1", retry=None)
    assert isinstance(embedder, Embedder)
    assert repr(embedder) == "OpenAIEmbedder('text-embedding-3-small', base_url='http://127.0.0.1:9/v1')"
    assert (embedder.server_address, embedder.server_port, embedder.provider) == ("127.0.0.1", 9, "openai")
    with pytest.raises(LLMConnectionError, match="text-embedding-3-small"):
        await embedder.embed(["a"])


async def test_a_client_of_ones_own_stays_open() -> None:
    with LoopbackServer() as server:
        async with openai.AsyncOpenAI(api_key="k", base_url=server.base_url, max_retries=5) as client:
            async with OpenAIEmbedder("e", client=client) as embedder:
                await embedder.embed(["a"])
            assert not client.is_closed()
    with pytest.raises(LLMError, match=r"OpenAIEmbedder\(client=\.\.\.\)"):
        OpenAIEmbedder("e", client=client, api_key="k")
