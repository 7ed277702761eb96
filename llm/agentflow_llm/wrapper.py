"""What wrappers around one client share: they are clients of the same kind, and add to what is asked.

A wrapper takes over what its client says of itself, also the options of its requests, its retries and its limit on
time, and asks it for single attempts. So it does not matter in which order wrappers are put around each other, and
nothing is tried twice.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any, ClassVar

from agentflow.clock import current_clock

from .chat import BaseChatModel
from .closing import Closing
from .embedding import BaseEmbedder
from .errors import LLMError
from .model import ChatModel, ChatOptions, Embedder, Embeddings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from .errors import LLMTimeoutError
    from .messages import Delta, Reply
    from .records import ChatCall, EmbeddingsCall
    from .tokens import TokenEstimator

    Client = BaseChatModel | BaseEmbedder


_SHORTEST = 0.001


class Wrapper(Closing):
    """A client around another one. `inner` is that.

    A wrapper is a class with this base, which makes one of two kinds of itself: one is a `ChatWrapper` as well, the
    other an `EmbedderWrapper`.
    """

    title: ClassVar[str] = "Wrapper"
    """What users call it."""

    def __init__(self, client: Any, *_: Any, **__: Any) -> None:
        # each kind takes what it needs; type checkers look here where they cannot tell which kind it is
        self._client: Client = client

    def __repr__(self) -> str:
        return f"{self.title}({self.inner!r})"

    @property
    def inner(self) -> Client:
        """The client that is wrapped."""
        return self._client

    @property
    def place(self) -> str:
        """Behind the model's name."""
        return self.inner.place

    def late(self, timeout: float) -> LLMTimeoutError:
        """The error of a call that took too long."""
        return self.inner.late(timeout)

    async def prepare(self) -> None:
        """Let the client that is wrapped prepare."""
        await self.inner.prepare()

    @property
    def render_request(self) -> Callable[..., dict[str, Any]]:
        """That of the client that is wrapped. Raises `AttributeError` where it has none."""
        client: Any = self.inner
        render: Callable[..., dict[str, Any]] = client.render_request
        return render

    async def aclose(self) -> None:
        """Close the client that is wrapped, where it can be closed."""
        await close(self.inner)


class ChatWrapper(Wrapper, BaseChatModel):
    """A chat model around another one. A subclass adds in `through` and `through_deltas`."""

    def __init__(self, client: ChatModel) -> None:
        self._model = inner = as_chat_model(client)
        Wrapper.__init__(self, inner)
        BaseChatModel.__init__(
            self, inner.model, inner.provider, retry=inner.retry, timeout=inner.timeout, **inner.defaults
        )
        self.server_address, self.server_port, self.account = inner.server_address, inner.server_port, inner.account

    @property
    def inner(self) -> BaseChatModel:
        """The model that is wrapped."""
        return self._model

    @property
    def tokens(self) -> TokenEstimator:
        """That of the model that is wrapped."""
        return self.inner.tokens

    def learn(self, call: ChatCall, reply: Reply) -> None:
        """For the estimator of the model that is wrapped."""
        self.inner.learn(call, reply)

    async def through(self, ask: Callable[[ChatCall], Awaitable[Reply]], call: ChatCall) -> Reply:
        """Ask the model that is wrapped."""
        return await ask(call)

    def through_deltas(
        self, ask: Callable[[ChatCall], AsyncGenerator[Delta | Reply]], call: ChatCall
    ) -> AsyncGenerator[Delta | Reply]:
        """As `through`, in pieces."""
        return ask(call)

    async def answer(self, call: ChatCall) -> Reply:
        """Once. Raises `LLMError`."""
        return await self.through(self.inner.answer, call)

    def deltas(self, call: ChatCall) -> AsyncGenerator[Delta | Reply]:
        """Once, in pieces. Raises `LLMError`."""
        return self.through_deltas(self.inner.deltas, call)

    async def complete(self, call: ChatCall) -> Reply:
        """With the retries of this wrapper; where it has none, those that are further inside hold."""
        if self.retry is None:
            return await self.through(self.inner.complete, call)
        return await super().complete(call)

    def complete_deltas(self, call: ChatCall) -> AsyncGenerator[Delta | Reply]:
        """As `complete`, in pieces."""
        if self.retry is None:
            return self.through_deltas(self.inner.complete_deltas, call)
        return super().complete_deltas(call)


class EmbedderWrapper(Wrapper, BaseEmbedder):
    """An embedder around another one. A subclass adds in `through`."""

    def __init__(self, client: Embedder) -> None:
        self._embedder = inner = as_embedder(client)
        Wrapper.__init__(self, inner)
        BaseEmbedder.__init__(
            self,
            inner.model,
            inner.provider,
            dimensions=inner.dimensions,
            retry=inner.retry,
            timeout=inner.timeout,
        )
        self.server_address, self.server_port, self.account = inner.server_address, inner.server_port, inner.account
        self.most_texts, self.most_characters = inner.most_texts, inner.most_characters

    @property
    def inner(self) -> BaseEmbedder:
        """The embedder that is wrapped."""
        return self._embedder

    async def through(self, ask: Callable[[EmbeddingsCall], Awaitable[Embeddings]], call: EmbeddingsCall) -> Embeddings:
        """Ask the embedder that is wrapped."""
        return await ask(call)

    async def answer(self, call: EmbeddingsCall) -> Embeddings:
        """Once. Raises `LLMError`."""
        return await self.through(self.inner.answer, call)

    async def complete(self, call: EmbeddingsCall) -> Embeddings:
        """With the retries of this wrapper; where it has none, those that are further inside hold."""
        if self.retry is None:
            return await self.through(self.inner.complete, call)
        return await super().complete(call)


class _ForeignChatModel(BaseChatModel):
    """A model that is none of ours, asked through the two methods that all models have."""

    def __init__(self, model: ChatModel) -> None:
        super().__init__(model.model, model.provider)
        self.foreign = model

    def __repr__(self) -> str:
        return repr(self.foreign)

    async def answer(self, call: ChatCall) -> Reply:
        """One call of its `chat`."""
        return await self.foreign.chat(call.messages, **_options(call))

    async def deltas(self, call: ChatCall) -> AsyncGenerator[Delta | Reply]:
        """One call of its `stream`."""
        stream = self.foreign.stream(call.messages, **_options(call))
        async with aclosing(stream):
            async for delta in stream:
                yield delta
            yield stream.reply

    async def aclose(self) -> None:
        """Close it, where it can be closed."""
        await close(self.foreign)


class _ForeignEmbedder(BaseEmbedder):
    """An embedder that is none of ours."""

    def __init__(self, embedder: Embedder) -> None:
        super().__init__(embedder.model, embedder.provider, dimensions=getattr(embedder, "dimensions", None))
        self.foreign = embedder

    def __repr__(self) -> str:
        return repr(self.foreign)

    async def answer(self, call: EmbeddingsCall) -> Embeddings:
        """One call of its `embed`."""
        return await self.foreign.embed(call.texts, timeout=_left(call))

    async def aclose(self) -> None:
        """Close it, where it can be closed."""
        await close(self.foreign)


def as_chat_model(client: ChatModel) -> BaseChatModel:
    """The model as one of ours."""
    return client if isinstance(client, BaseChatModel) else _ForeignChatModel(client)


def as_embedder(client: Embedder) -> BaseEmbedder:
    """The embedder as one of ours."""
    return client if isinstance(client, BaseEmbedder) else _ForeignEmbedder(client)


def is_chat(client: object, called: str, meant: str = "") -> bool:
    """Is it a chat model, or else an embedder? Raises `LLMError` with the line that is meant where it is neither."""
    given = None if isinstance(client, type) else client
    if isinstance(given, ChatModel):
        return True
    if isinstance(given, Embedder):
        return False
    what = f"{client.__name__} is a class" if isinstance(client, type) else f"{client!r} is no client"
    meant = meant or f"{called}(OpenAI('gpt-4o-mini'))"
    raise LLMError(f"{called}(...) is put around a chat model or an embedder, and {what}. Write {meant}.")


def kind_of(wrapper: type[Wrapper], chat: type[Any], embedder: type[Any]) -> Callable[..., Any]:
    """What makes an instance of one of the two kinds of a wrapper, for `__new__`; `__init__` comes after it."""

    def make(client: Any = None, *_: object, **__: object) -> Any:
        if issubclass(wrapper, chat | embedder):  # who copies one knows which
            return object.__new__(wrapper)
        return object.__new__(chat if is_chat(client, wrapper.title) else embedder)

    return make


async def close(client: object) -> None:
    """Close a client, where it can be closed."""
    aclose: Any = getattr(client, "aclose", None)
    if aclose is not None:
        await aclose()


def _options(call: ChatCall) -> ChatOptions:
    """What the call says beside its messages, as `chat` takes it."""
    options: Any = {**call.parameters}
    if call.tools:
        options["tools"] = call.tools
    if call.extra:
        options["extra"] = call.extra
    if call.output is not None:
        options["output"] = call.output.kind or call.output.schema
    left = _left(call)
    if left is not None:
        options["timeout"] = left
    given: ChatOptions = options
    return given


def _left(call: ChatCall | EmbeddingsCall) -> float | None:
    """Seconds until the caller's patience ends; never 0, which would be no limit to give."""
    return None if call.deadline is None else max(_SHORTEST, call.deadline - current_clock().monotonic())
