"""Clients for tests: they fail as they are told, and count what is open."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any, TypeVar, Unpack

from agentflow.clock import current_clock
from agentflow.retry import Retry, RetryPolicy
from agentflow.testing import FakeClock
from agentflow_llm import (
    BaseChatModel,
    BaseEmbedder,
    ChatCall,
    ChatMessage,
    Delta,
    Embeddings,
    EmbeddingsCall,
    LLMError,
    Reply,
    Usage,
)
from agentflow_llm.model import ModelOptions

HELLO = [ChatMessage(role="user", content="Hello")]
WORDS = ("one ", "two ", "three ", "four")
SPENT = Usage(input_tokens=10, output_tokens=4, cost=0.5, http_requests=1)
T = TypeVar("T")


class Flaky(BaseChatModel):
    """Fails with each of some errors, then answers; None in place of an error never comes to an end.

    Its answers and its errors count one HTTP request each. `open` is how many answers are on their way now.
    """

    def __init__(  # noqa: PLR0913 because a test says what it is about
        self,
        *errors: LLMError | None,
        retry: RetryPolicy | None = Retry(attempts=3, wait=1),  # noqa: B008 because a policy is frozen
        timeout: float | None = None,
        model: str = "flaky",
        provider: str = "test",
        says: Sequence[str] = WORDS,
        usage: Usage = SPENT,
        fails_after: LLMError | None = None,
        takes: float | None = None,
        **options: Unpack[ModelOptions],
    ) -> None:
        super().__init__(model, provider, retry=retry, timeout=timeout, **options)
        self.errors = list(errors)
        for error in errors:
            if error is not None:
                error.http_requests = 1
        self.asked: list[ChatCall] = []
        self.says = says
        self.usage = usage
        self.fails_after = fails_after
        self.takes = takes
        self.open = 0
        self.most_open = 0
        self.closed = 0

    async def answer(self, call: ChatCall) -> Reply:
        self._begin(call)
        try:
            await self._work()
            return self._reply()
        finally:
            self.open -= 1

    async def deltas(self, call: ChatCall) -> AsyncGenerator[Delta | Reply]:
        self._begin(call)
        try:
            await self._work()
            for word in self.says:
                yield Delta(text=word)
                await asyncio.sleep(0)
            if self.fails_after is not None:
                self.fails_after.http_requests = 1
                raise self.fails_after
            yield self._reply()
        finally:
            try:  # as a real one does, which has something to wait for when it closes its connection
                await asyncio.sleep(0)
            finally:
                self.open -= 1

    async def aclose(self) -> None:
        self.closed += 1

    def _begin(self, call: ChatCall) -> None:
        self.asked.append(call)
        self.open += 1
        self.most_open = max(self.open, self.most_open)

    async def _work(self) -> None:
        await asyncio.sleep(0)
        if self.takes is not None:
            await current_clock().sleep(self.takes)
        if self.errors:
            error = self.errors.pop(0)
            if error is None:
                await asyncio.Event().wait()
            else:
                raise error

    def _reply(self) -> Reply:
        message = ChatMessage(role="assistant", content="".join(self.says))
        return Reply(message=message, usage=self.usage, finish_reason="stop")


class FlakyEmbedder(BaseEmbedder):
    """Fails likewise; the vector of a text is its length and its first character."""

    def __init__(
        self,
        *errors: LLMError | None,
        retry: RetryPolicy | None = Retry(attempts=3, wait=1),  # noqa: B008 because a policy is frozen
        timeout: float | None = None,
        model: str = "vectors",
        dimensions: int | None = None,
    ) -> None:
        super().__init__(model, "test", dimensions=dimensions, retry=retry, timeout=timeout)
        self.errors = list(errors)
        for error in errors:
            if error is not None:
                error.http_requests = 1
        self.asked: list[EmbeddingsCall] = []

    async def answer(self, call: EmbeddingsCall) -> Embeddings:
        self.asked.append(call)
        if self.errors:
            error = self.errors.pop(0)
            if error is None:
                await asyncio.Event().wait()
            else:
                raise error
        vectors = [array("f", [len(text), ord(text[0])]) for text in call.texts]
        return Embeddings(vectors, Usage(input_tokens=len(vectors), http_requests=1), "vectors-1")


async def together(*asking: Coroutine[Any, Any, T]) -> list[T]:
    """All at once."""
    return await asyncio.gather(*asking)


async def finish(clock: FakeClock, asking: Callable[[], Coroutine[Any, Any, T]], *, step: float = 1) -> T:
    """Let time pass, a second at a time or `step`, until the call has ended."""
    task = asyncio.ensure_future(asking())
    await clock.settle()
    while not task.done():
        await clock.advance(step)
    return await task
