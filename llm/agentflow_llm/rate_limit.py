"""A client that keeps to the limits of its account."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .errors import LLMError
from .limiter import Account, Limits, NoRoomError, Stay
from .messages import ChatMessage, Delta, ImagePart, Reply, ToolCallPart, ToolResultPart, Usage
from .model import Embeddings
from .records import ChatCall, EmbeddingsCall
from .wrapper import ChatWrapper, EmbedderWrapper, Wrapper, kind_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable

    from .model import ChatModel, Embedder

_CHARACTERS_OF_A_TOKEN = 4
_TOKENS_OF_A_PICTURE = 1000
CallT = TypeVar("CallT", ChatCall, EmbeddingsCall)
AnswerT = TypeVar("AnswerT", Reply, Embeddings)


class RateLimited(Wrapper):
    """A chat model or an embedder that keeps to limits: `RateLimited(OpenAI("gpt-4o"), requests_per_minute=500)`.

    - `requests_per_minute`, `tokens_per_minute`: of any minute. A call counts with an estimate of its tokens, a
      quarter of its characters and its `max_tokens`, which is corrected when its usage is known.
    - `concurrency`: how many calls at once; a stream is one until it is closed.
    - `key`: who shares the limits, in all threads and event loops of this process; by default those with the same
      provider, server and account. While one is in use, its numbers are the same for all: others are an `LLMError`.

    Calls go in the order in which they came. A `Retry-After` that one gets holds back all with the same key, up to
    60 s. Each attempt waits for itself; the wait is a note `rate_limit` on the call's operation. A call whose timeout
    would end before its turn comes fails at once, with a `RateLimitError` that says so. Where one `RateLimited` stands
    inside another with the same key, the outer one counts.
    """

    title = "RateLimited"

    @overload
    def __new__(
        cls,
        client: ChatModel,
        *,
        requests_per_minute: int | None = ...,
        tokens_per_minute: int | None = ...,
        concurrency: int | None = ...,
        key: str | None = ...,
    ) -> _RateLimitedChatModel: ...
    @overload
    def __new__(
        cls,
        client: Embedder,
        *,
        requests_per_minute: int | None = ...,
        tokens_per_minute: int | None = ...,
        concurrency: int | None = ...,
        key: str | None = ...,
    ) -> _RateLimitedEmbedder: ...
    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """One of the two kinds."""
        return kind_of(cls, _RateLimitedChatModel, _RateLimitedEmbedder)(*args, **kwargs)


class _RateLimited(RateLimited):
    def __init__(
        self,
        client: Any,
        *,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        concurrency: int | None = None,
        key: str | None = None,
    ) -> None:
        super().__init__(client)
        limits = Limits(requests_per_minute, tokens_per_minute, concurrency)
        inner = self.inner
        known = (inner.provider, inner.server_address, inner.server_port, inner.account)
        self._limits = Account.of(key or " ".join(str(part) for part in known if part is not None), limits, self)

    def _inside(self, call: CallT) -> CallT | None:
        """The call as it goes on from here. None where it has a place already, and another would be one too many."""
        key = self._limits.key
        return None if key in call.limits else replace(call, limits=call.limits | {key})

    async def _enter(self, call: ChatCall | EmbeddingsCall) -> Stay:
        tokens = _estimated(call) if self._limits.limits.tokens_per_minute is not None else 0
        call.progress.queued = self._limits.key
        try:
            stay = await self._limits.limiter().enter(tokens, call.deadline)
        except NoRoomError:
            call.progress.queued = None
            raise
        call.progress.queued = None
        if stay.waited > 0 and call.noting is not None:
            call.noting("rate_limit", {"wait": stay.waited, "because": stay.because, "key": self._limits.key})
        return stay

    async def _limited(self, ask: Callable[[CallT], Awaitable[AnswerT]], call: CallT) -> AnswerT:
        inside = self._inside(call)
        if inside is None:
            return await ask(call)
        stay = await self._enter(call)
        try:
            answer = await ask(inside)
            stay.spent(_spent(answer.usage))
        except LLMError as error:
            stay.spent(0)
            stay.failed(error)
            raise
        finally:
            stay.leave()
        return answer


class _RateLimitedChatModel(_RateLimited, ChatWrapper):
    async def through(self, ask: Callable[[ChatCall], Awaitable[Reply]], call: ChatCall) -> Reply:
        """Ask when it is this call's turn."""
        return await self._limited(ask, call)

    async def through_deltas(
        self, ask: Callable[[ChatCall], AsyncGenerator[Delta | Reply]], call: ChatCall
    ) -> AsyncGenerator[Delta | Reply]:
        """As `through`, in pieces."""
        inside = self._inside(call)
        if inside is None:
            async with aclosing(ask(call)) as items:
                async for item in items:
                    yield item
            return
        stay = await self._enter(call)
        begun = False
        try:
            async with aclosing(ask(inside)) as items:
                async for item in items:
                    begun = True
                    if isinstance(item, Reply):
                        stay.spent(_spent(item.usage))
                    yield item
        except LLMError as error:
            stay.spent(None if begun else 0)
            stay.failed(error)
            raise
        finally:
            stay.leave()


class _RateLimitedEmbedder(_RateLimited, EmbedderWrapper):
    async def through(self, ask: Callable[[EmbeddingsCall], Awaitable[Embeddings]], call: EmbeddingsCall) -> Embeddings:
        """Ask when it is this call's turn."""
        return await self._limited(ask, call)


def _estimated(call: ChatCall | EmbeddingsCall) -> int:
    if isinstance(call, EmbeddingsCall):
        return sum(map(len, call.texts)) // _CHARACTERS_OF_A_TOKEN
    return _said(call.messages) // _CHARACTERS_OF_A_TOKEN + (call.parameters.get("max_tokens") or 0)


def _said(messages: Iterable[ChatMessage]) -> int:
    """Characters."""
    count = 0
    for message in messages:
        for part in message.content:
            match part:
                case ImagePart():
                    count += _TOKENS_OF_A_PICTURE * _CHARACTERS_OF_A_TOKEN
                case ToolCallPart():
                    count += len(part.arguments)
                case ToolResultPart():
                    count += len(part.content)
                case _:
                    count += len(part.text)
    return count


def _spent(usage: Usage) -> int | None:
    """Tokens, where the server told them; what came from a cache took none."""
    if usage.input_tokens is None and usage.output_tokens is None:
        return 0 if usage.cost == 0 and not usage.http_requests else None
    return (usage.input_tokens or 0) + (usage.output_tokens or 0)
