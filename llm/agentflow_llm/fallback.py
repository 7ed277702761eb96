"""Several clients, the next of which is asked where one fails."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, overload

from .call import BaseClient, counting, due
from .chat import BaseChatModel
from .closing import Closing
from .embedding import BaseEmbedder
from .errors import (
    LLMAuthenticationError,
    LLMError,
    LLMNotFoundError,
    LLMResponseError,
    LLMTimeoutError,
    LLMUnavailableError,
    QuotaError,
)
from .messages import Delta, Reply
from .model import Embeddings
from .records import ChatCall, EmbeddingsCall
from .wrapper import as_chat_model, as_embedder, close, is_chat

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

    from .model import ChatModel, Embedder

    Client = BaseChatModel | BaseEmbedder

ANOTHER_MAY_ANSWER = (
    LLMUnavailableError,
    LLMResponseError,
    LLMAuthenticationError,
    LLMNotFoundError,
    QuotaError,
)
"""Errors that are about who was asked. The others are about what was asked: they would come back."""

CallT = TypeVar("CallT", ChatCall, EmbeddingsCall)
AnswerT = TypeVar("AnswerT", Reply, Embeddings)


class Fallback(Closing):
    """Chat models, or embedders, of which the next is asked where one fails: `Fallback([OpenAI("gpt-4o"), other])`.

    - `on`: the classes of errors after which another is asked. By default where the server cannot answer, answers
      with what is no reply, knows no such model, refuses the key, or wants money; a request that is wrong in itself,
      too long, or filtered is refused with the first error.
    - `timeout`: seconds for all of them together; by default the sum of theirs.

    Each is asked within its own timeout, with its own options (`temperature=` and the like of its constructor) where
    the call does not say them, and with its own retries, unless a `Retrying` is around all of them: then
    each is asked once, and all of them again. A stream moves on only before its first piece. Each move is a note
    `fallback` on the call's operation; the reply says which model answered, and its usage counts the HTTP requests of
    those that failed. Where all fail, the last error tells in its notes of the others.

    Embedders must have one model and one number of dimensions: vectors of different models cannot be compared. That
    is an `LLMError` otherwise, and so is an empty list.
    """

    server_address: str | None
    server_port: int | None
    account: str | None
    clients: Sequence[Client]
    _on: tuple[type[LLMError], ...]

    @overload
    def __new__(
        cls, clients: Sequence[ChatModel], *, on: tuple[type[LLMError], ...] = ..., timeout: float | None = ...
    ) -> _FallbackChatModel: ...
    @overload
    def __new__(
        cls, clients: Sequence[Embedder], *, on: tuple[type[LLMError], ...] = ..., timeout: float | None = ...
    ) -> _FallbackEmbedder: ...
    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """One of the two kinds."""
        return _kind_of(cls, *args, **kwargs)

    def _set(self, clients: Sequence[Client], on: tuple[type[LLMError], ...]) -> None:
        given: Any = on
        if not isinstance(given, tuple) or not all(isinstance(one, type) for one in cast("list[object]", [*given])):
            raise LLMError(f"on={on!r} is no tuple of classes of errors. Write on=(LLMUnavailableError, QuotaError).")
        for one in on:
            # `TimeoutError` is a base of one of ours, and so are its own bases
            if not issubclass(one, LLMError) and not issubclass(LLMTimeoutError, one):
                raise LLMError(
                    f"on=({one.__name__},) would never hold: clients raise LLMError. Write on=(LLMConnectionError,), "
                    "or another class of agentflow_llm."
                )
        self._on = on
        self.clients = clients
        self.server_address, self.server_port = clients[0].server_address, clients[0].server_port
        self.account = clients[0].account

    def __repr__(self) -> str:
        return f"Fallback([{', '.join(map(repr, self.clients))}])"

    @property
    def render_request(self) -> Callable[..., dict[str, Any]]:
        """That of the first client. Raises `AttributeError` where it has none."""
        client: Any = self.clients[0]
        render: Callable[..., dict[str, Any]] = client.render_request
        return render

    async def aclose(self) -> None:
        """Close all of them, where they can be closed."""
        for client in self.clients:
            await close(client)


class _Round(Generic[CallT, AnswerT]):
    """One call, on its way from client to client."""

    def __init__(
        self, clients: Sequence[BaseClient[CallT, AnswerT]], on: tuple[type[LLMError], ...], call: CallT
    ) -> None:
        self._clients: Sequence[BaseClient[CallT, AnswerT]] = clients
        self._on = on
        self._call: CallT = call
        self._failed: list[str] = []
        # not the errors: their tracebacks lead back here, and what is in such a circle is not closed in its order
        self._http_requests = 0
        self._before: int = call.progress.http_requests

    async def ask(self, *, once: bool) -> AnswerT:
        """The answer of the first that has one."""
        for client in self._clients:
            ask = client.answer if once else client.complete
            try:
                await client.prepare()
                answer = await client.within(client.timeout, ask(self.call_for(client)), self._call.progress)
            except LLMError as error:
                self.go_on(client, error)
            else:
                return self.answered(client, answer)
        raise AssertionError("the last client answers or raises")

    def call_for(self, client: BaseClient[CallT, AnswerT]) -> CallT:
        """The call, as it goes to this one."""
        self._call.progress.asked = client.provider, client.model, client.server_address, client.server_port
        return due(client.readdressed(self._call), client.timeout)

    def go_on(self, client: BaseClient[CallT, AnswerT], error: LLMError, *, last: bool = False) -> None:
        """Note that another is asked. Raises the error, with what went before, where that is not done."""
        self._http_requests += error.http_requests
        self._call.progress.counted(self._before + self._http_requests)
        number = len(self._failed) + 1
        if last or number == len(self._clients) or not isinstance(error, self._on):
            error.http_requests = self._http_requests
            for before in self._failed:
                error.add_note(before)
            raise error
        self._failed.append(f"{_name(client)} was asked before, and failed: {type(error).__name__}: {error}")
        if self._call.noting is not None:
            following = self._clients[number]
            facts = {"id": _name(client), "to": _name(following), "error": error}
            facts |= _other(client.readdressed(self._call), following.readdressed(self._call))
            self._call.noting("fallback", facts)

    def answered(self, client: BaseClient[CallT, AnswerT], answer: AnswerT) -> AnswerT:
        """The answer, with all that it took, and whose it is."""
        if self._failed:
            self._call.progress.stopgap = True
        answer = counting(answer, self._http_requests)
        if answer.model:
            return answer
        if isinstance(answer, Reply):
            return answer.model_copy(update={"model": client.model})
        return replace(answer, model=client.model)


class _FallbackChatModel(Fallback, BaseChatModel):
    def __init__(
        self,
        clients: Sequence[ChatModel],
        *,
        on: tuple[type[LLMError], ...] = ANOTHER_MAY_ANSWER,
        timeout: float | None = None,
    ) -> None:
        self.models = [as_chat_model(client) for client in clients]
        first = self.models[0]
        timeout = _together(self.models) if timeout is None else timeout
        BaseChatModel.__init__(self, first.model, first.provider, timeout=timeout, **first.defaults)
        self._set(self.models, on)

    async def answer(self, call: ChatCall) -> Reply:
        """Each once. Raises `LLMError`."""
        return await _Round(self.models, self._on, call).ask(once=True)

    async def complete(self, call: ChatCall) -> Reply:
        """Each with its own retries. Raises `LLMError`."""
        return await _Round(self.models, self._on, call).ask(once=False)

    def deltas(self, call: ChatCall) -> AsyncGenerator[Delta | Reply]:
        """Each once, in pieces. Raises `LLMError`."""
        return self._stream(call, once=True)

    def complete_deltas(self, call: ChatCall) -> AsyncGenerator[Delta | Reply]:
        """Each with its own retries, in pieces. Raises `LLMError`."""
        return self._stream(call, once=False)

    async def _stream(self, call: ChatCall, *, once: bool) -> AsyncGenerator[Delta | Reply]:
        tried = _Round(self.models, self._on, call)
        for model in self.models:
            begun = False
            ask = model.deltas if once else model.complete_deltas
            try:
                await model.prepare()
                async with aclosing(ask(tried.call_for(model))) as items:
                    # its time is up to the first piece; for the rest there is that of all together
                    item = await model.within(model.timeout, anext(items, None), call.progress)
                    begun = True
                    if item is not None:
                        yield item if isinstance(item, Delta) else tried.answered(model, item)
                    async for item in items:
                        yield item if isinstance(item, Delta) else tried.answered(model, item)
            except LLMError as error:
                tried.go_on(model, error, last=begun)
            else:
                return


class _FallbackEmbedder(Fallback, BaseEmbedder):
    def __init__(
        self,
        clients: Sequence[Embedder],
        *,
        on: tuple[type[LLMError], ...] = ANOTHER_MAY_ANSWER,
        timeout: float | None = None,
    ) -> None:
        self.embedders = [as_embedder(client) for client in clients]
        _check_same(self.embedders)
        first = self.embedders[0]
        timeout = _together(self.embedders) if timeout is None else timeout
        BaseEmbedder.__init__(self, first.model, first.provider, dimensions=first.dimensions, timeout=timeout)
        self._set(self.embedders, on)
        self.most_texts = _least(client.most_texts for client in self.embedders)
        self.most_characters = _least(client.most_characters for client in self.embedders)

    async def answer(self, call: EmbeddingsCall) -> Embeddings:
        """Each once. Raises `LLMError`."""
        return await _Round(self.embedders, self._on, call).ask(once=True)

    async def complete(self, call: EmbeddingsCall) -> Embeddings:
        """Each with its own retries. Raises `LLMError`."""
        return await _Round(self.embedders, self._on, call).ask(once=False)


def _kind_of(fallback: type[Fallback], clients: Any = None, *more: Any, **_: object) -> Any:
    if issubclass(fallback, _FallbackChatModel | _FallbackEmbedder):  # who copies one knows which
        return object.__new__(fallback)
    if more or not isinstance(clients, list | tuple) or not clients:
        given = cast("tuple[object, ...]", (clients, *more))
        shown = ", ".join(map(repr, given))
        raise LLMError(f"Fallback takes a list of clients, not {shown}. Write Fallback([OpenAI('gpt-4o'), other]).")
    listed = cast("list[object]", [*clients])
    kinds = {is_chat(client, "Fallback", "Fallback([OpenAI('gpt-4o-mini'), other])") for client in listed}
    if len(kinds) > 1:
        raise LLMError(f"Fallback({listed!r}) mixes chat models with embedders. Make one Fallback of each.")
    return object.__new__(_FallbackChatModel if True in kinds else _FallbackEmbedder)


def _check_same(embedders: Sequence[BaseEmbedder]) -> None:
    kinds = {(embedder.model, embedder.dimensions) for embedder in embedders}
    if len(kinds) > 1:
        different = " and ".join(
            f"{model!r}" if dimensions is None else f"{model!r} with {dimensions} dimensions"
            for model, dimensions in sorted(kinds, key=str)
        )
        raise LLMError(
            f"Fallback mixes {different}, whose vectors cannot be compared. Use one model of several providers, or "
            "make an index for each."
        )


def _together(clients: Sequence[BaseClient[Any, Any]]) -> float | None:
    """Their timeouts, one after the other; None where one has none."""
    timeouts = [client.timeout for client in clients]
    known = [timeout for timeout in timeouts if timeout is not None]
    return sum(known) if len(known) == len(timeouts) else None


def _least(limits: Iterable[int | None]) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _other(before: ChatCall | EmbeddingsCall, now: ChatCall | EmbeddingsCall) -> dict[str, Any]:
    """What is asked for now that is not what was asked for before."""
    if not isinstance(before, ChatCall) or not isinstance(now, ChatCall):
        return {}
    both = {"parameters": (before.parameters, now.parameters), "extra": (before.extra, now.extra)}
    return {name: new for name, (old, new) in both.items() if new != old}


def _name(client: BaseClient[Any, Any]) -> str:
    return f"{client.provider}/{client.model}"
