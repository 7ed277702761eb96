"""A client that is asked again while it cannot answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from agentflow.retry import Retry

from .backoff import checked
from .errors import LLMError
from .wrapper import ChatWrapper, EmbedderWrapper, Wrapper, kind_of

if TYPE_CHECKING:
    from .backoff import Policy
    from .model import ChatModel, Embedder

_USUAL = Retry(attempts=4, within=60)


class Retrying(Wrapper):
    """A chat model or an embedder with this policy of retries, in place of its own: `Retrying(OpenAI("gpt-4o"))`.

    - `retry`: `Retry(...)`, another retry policy, or a tenacity object, as steps take them. By default at most four
      attempts, the last of them begun no later than 60 s after the first failure; the waits grow and are random.

    Only an `LLMUnavailableError` is worth another attempt: the server failed, is too busy, or could not be reached.
    Where it asks for a wait (`Retry-After`), that takes the place of a shorter or longer one, up to 60 s; for more it
    is not asked again. No wait outlasts the call's `timeout`, and nothing is asked again once the first piece of a
    stream was handed on. Each wait is a note `retry` on the one operation of the call, and the usage counts the HTTP
    requests of all attempts.
    """

    title = "Retrying"

    @overload
    def __new__(cls, client: ChatModel, retry: Policy = ...) -> _RetryingChatModel: ...
    @overload
    def __new__(cls, client: Embedder, retry: Policy = ...) -> _RetryingEmbedder: ...
    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """One of the two kinds."""
        return kind_of(cls, _RetryingChatModel, _RetryingEmbedder)(*args, **kwargs)


class _Retrying(Retrying):
    def __init__(self, client: Any, retry: Policy | None = _USUAL) -> None:
        super().__init__(client)
        if retry is None:
            raise LLMError("Retrying(client, retry=None) would not retry. Leave Retrying out, or pass a policy.")
        self.retry = checked(retry)


class _RetryingChatModel(_Retrying, ChatWrapper):
    pass


class _RetryingEmbedder(_Retrying, EmbedderWrapper):
    pass
