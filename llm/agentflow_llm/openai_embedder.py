"""Embeddings through the `openai` client: OpenAI, Azure, and all servers that speak like them."""

from __future__ import annotations

import base64
import sys
from array import array
from math import isfinite
from typing import TYPE_CHECKING, Any

from agentflow.retry import Retry

from .adapter import Adapter
from .embedding import BaseEmbedder
from .endpoint import Endpoint
from .errors import LLMBadRequestError, LLMResponseError
from .loose import as_dict, as_list, excerpt, well_formed
from .messages import Usage
from .model import Embeddings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openai import AsyncOpenAI

    from .backoff import Policy
    from .records import EmbeddingsCall


class OpenAIEmbedder(Adapter, BaseEmbedder):
    """A model that makes vectors, behind a server that speaks as OpenAI's does.

    - `dimensions`: the length of the vectors, where the model lets one choose.
    - All else is as with `OpenAI`.

    Texts go out in requests of up to 2,048 texts and 75,000 characters, which are never more than the 300,000 tokens
    that OpenAI takes at once. A text without characters raises `LLMBadRequestError`: hardly a server takes one.
    """

    most_texts = 2048
    most_characters = 300_000 // 4  # a token has at least one byte, a character at most four

    def __init__(  # noqa: PLR0913 because a server has this many sides
        self,
        model: str = "text-embedding-3-small",
        *,
        dimensions: int | None = None,
        api_key: str | None = None,
        base_url: str | None = None,
        client: AsyncOpenAI | None = None,
        provider: str | None = None,
        retry: Policy | None = Retry(attempts=3),  # noqa: B008 because a policy is frozen
        timeout: float | None = 60.0,
    ) -> None:
        endpoint = Endpoint(
            model, api_key=api_key, base_url=base_url, client=client, provider=provider, owner=type(self).__name__
        )
        super().__init__(model, endpoint.provider, dimensions=dimensions, retry=retry, timeout=timeout)
        self.connect(endpoint)

    async def embed(self, texts: Sequence[str], *, timeout: float | None = None) -> Embeddings:
        """See `Embedder.embed`."""
        _check(texts)  # all of them, before the first are sent
        return await super().embed(texts, timeout=timeout)

    async def answer(self, call: EmbeddingsCall) -> Embeddings:
        """One request. Raises `LLMError`."""
        _check(call.texts)
        body, headers = await self.endpoint.post("/embeddings", _render(call), progress=call.progress)
        body = as_dict(body)
        try:
            vectors = read_vectors(body.get("data"), len(call.texts), call.dimensions)
        except LLMResponseError as error:
            raise self.endpoint.no_reply(str(error), headers) from error
        model = str(body.get("model") or call.model)
        return Embeddings(vectors, self.endpoint.priced(model, _read_usage(body.get("usage"))), model)


def _check(texts: Sequence[str]) -> None:
    if "" in texts and not isinstance(texts, str):
        at = list(texts).index("")
        raise LLMBadRequestError(
            f"Text {at} of {len(texts)}, counted from 0, is empty: there is nothing to make a vector of. Leave such "
            "texts out: embed([text for text in texts if text])."
        )


def _render(call: EmbeddingsCall) -> dict[str, Any]:
    # numbers as text take four times the bytes, and long to read
    body: dict[str, Any] = {
        "model": call.model,
        "input": list(map(well_formed, call.texts)),
        "encoding_format": "base64",
    }
    if call.dimensions is not None:
        body["dimensions"] = call.dimensions
    return body


def read_vectors(data: Any, texts: int, dimensions: int | None = None) -> list[array[float]]:
    """The vectors of so many texts, in their order, from the `data` of an answer.

    Raises `LLMResponseError` where they are not one for each text, all of one length, that of `dimensions` where given.
    """
    items = [as_dict(item) for item in as_list(data)]
    if len(items) != texts:
        raise LLMResponseError(f"it has {len(items)} vectors for {texts} texts: {excerpt(data)}")
    vectors = [_vector(item.get("embedding")) for item in _in_order(items)]
    lengths = {len(vector) for vector in vectors}
    if len(lengths) > 1:
        raise LLMResponseError(f"its vectors are of different lengths: {', '.join(map(str, sorted(lengths)))}")
    if dimensions is not None and lengths and dimensions not in lengths:
        (length,) = lengths
        raise LLMResponseError(
            f"its vectors have {length} dimensions, not {dimensions}: the model does not let one choose. Leave out "
            "dimensions="
        )
    return vectors


def _in_order(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By what they say of their place. Some servers leave out the index of the first, or of all, or say 0 of all."""
    places = [item.get("index") or 0 for item in items]
    if not any(places):
        return items
    if sorted(places, key=str) != sorted(range(len(items)), key=str):
        raise LLMResponseError(f"the places of its vectors are not those of the texts: {excerpt(places)}")
    return sorted(items, key=lambda item: item.get("index") or 0)


def _vector(said: Any) -> array[float]:
    vector: array[float] = array("f")
    try:
        if isinstance(said, str):
            vector.frombytes(base64.b64decode(said, validate=True))
            if sys.byteorder == "big":  # on the wire it is little
                vector.byteswap()
        else:
            vector.extend(as_list(said))
    except (TypeError, ValueError, OverflowError) as error:
        raise LLMResponseError(f"it has a vector that is none ({error}): {excerpt(said)}") from error
    if not vector or not isfinite(sum(vector)):
        raise LLMResponseError(f"it has a vector that is empty or has no numbers: {excerpt(said)}")
    return vector


def _read_usage(said: Any) -> Usage:
    said = as_dict(said)
    tokens = said.get("prompt_tokens", said.get("total_tokens"))
    known = isinstance(tokens, int | float) and tokens >= 0
    return Usage(input_tokens=int(tokens) if known else None, output_tokens=0, http_requests=1)
