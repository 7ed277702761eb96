"""What all embedders share."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agentflow.observe import Kind

from .call import BaseClient
from .errors import LLMBadRequestError, LLMError, LLMResponseError
from .messages import Usage
from .model import Embeddings
from .records import EmbeddingsCall

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .backoff import Policy


class BaseEmbedder(BaseClient[EmbeddingsCall, Embeddings]):
    """An `Embedder` whose subclass only says how to answer once, in `answer`.

    - `dimensions`: the length of the vectors, where it can be chosen; the model's own otherwise.
    - `retry`, `timeout`: as those of a `BaseChatModel`.

    More texts than `most_texts`, or longer ones than `most_characters` together, are asked for in several requests,
    one after the other; a single text is never split.
    """

    kind = Kind.EMBEDDINGS
    most_texts: int | None = None
    most_characters: int | None = None

    def __init__(
        self,
        model: str,
        provider: str,
        *,
        dimensions: int | None = None,
        retry: Policy | None = None,
        timeout: float | None = None,
    ) -> None:
        if dimensions is not None and dimensions < 1:
            raise LLMBadRequestError(f"dimensions={dimensions!r}: a vector has 1 or more.")
        super().__init__(model, provider, retry=retry, timeout=timeout)
        self.dimensions = dimensions

    async def embed(self, texts: Sequence[str], *, timeout: float | None = None) -> Embeddings:
        """See `Embedder.embed`."""
        given = _checked(texts)
        if not given:
            return Embeddings([], model=self.model)
        call = EmbeddingsCall(self.provider, self.model, given, self.dimensions, self.server_address, self.server_port)
        return await self._call(call, timeout)

    async def whole(self, call: EmbeddingsCall) -> Embeddings:
        """`complete`, for one batch of texts after the other."""
        vectors: list[Sequence[float]] = []
        usage, model = Usage(), ""
        before = call.progress.http_requests
        for texts in self._batches(call.texts):
            try:
                answer = await self.complete(call if len(texts) == len(call.texts) else replace(call, texts=texts))
                check_vectors(answer, len(texts))
            except LLMError as error:
                error.http_requests += usage.http_requests
                raise
            vectors.extend(answer.vectors)
            usage, model = usage + answer.usage, answer.model
            call.progress.counted(before + usage.http_requests)
        return Embeddings(vectors, usage, model)

    def _batches(self, texts: Sequence[str]) -> Iterator[Sequence[str]]:
        batch: list[str] = []
        size = 0
        for text in texts:
            full = self.most_texts is not None and len(batch) >= self.most_texts
            if batch and (full or (self.most_characters is not None and size + len(text) > self.most_characters)):
                yield batch
                batch, size = [], 0
            batch.append(text)
            size += len(text)
        yield batch


def _checked(texts: Any) -> tuple[str, ...]:
    """The texts, which nobody can change any more. Raises `LLMBadRequestError` where there are others among them."""
    if isinstance(texts, str):
        raise LLMBadRequestError("embed() takes a list of texts. Write embed([text]).")
    try:
        given: tuple[Any, ...] = tuple(texts)
    except TypeError:
        given = (texts,)
    wrong = [text for text in given if not isinstance(text, str)]
    if wrong:
        raise LLMBadRequestError(f"embed() takes a list of texts, and {wrong[0]!r} is none. Write embed([text]).")
    return given


def check_vectors(answer: Embeddings, texts: int) -> None:
    """Raise `LLMResponseError` unless there is a vector for each of so many texts."""
    if len(answer.vectors) != texts:
        error = LLMResponseError(f"{answer.model!r} gave {len(answer.vectors)} vectors for {texts} texts.")
        error.http_requests = answer.usage.http_requests
        raise error
