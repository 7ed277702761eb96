"""What can go wrong with a model, told apart by what one can do about it.

```
LLMError                       a model call failed
├── LLMRefusedError            this request is refused: trying again would not help
│   ├── LLMBadRequestError       it is wrong in itself (400, 422...)
│   ├── LLMAuthenticationError   the key is missing, wrong, or may not do this (401, 403)
│   ├── LLMNotFoundError         there is no such model or address (404)
│   ├── ContextLengthError       the messages are longer than the model takes
│   ├── ContentFilterError       a filter in front of the model stopped them
│   └── QuotaError               the account is out of credit
├── LLMUnavailableError        there is no answer now: trying again may help
│   ├── LLMServerError           the server failed, or is too busy (408, 409, 5xx)
│   ├── RateLimitError           too many requests (429)
│   ├── LLMConnectionError       no connection, or it broke
│   └── LLMTimeoutError          no answer in time (also a TimeoutError)
└── LLMResponseError           the server answered with what is no reply
    └── LLMOutputError           the model answered with what is not the `output` that was asked for
StorageError                   what is kept in a file cannot be read or written
MissingExtraError              a library is needed that is not installed
```
"""

from __future__ import annotations

from typing import Any

from agentflow.errors import AgentflowError


class LLMError(AgentflowError):
    """A model call failed. The original exception is its `__cause__`.

    - `status`: the HTTP status, where there was an answer.
    - `code`: the server's own name for the error.
    - `request_id`: the server's name for the request, to quote in a report to its owner.
    - `retry_after`: seconds that the server asks to wait before another attempt.
    - `attempts`: how many times the model was asked before this error stood.
    - `http_requests`: how many requests were sent for it.
    """

    attempts: int = 1
    http_requests: int = 0

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.request_id = request_id
        self.retry_after = retry_after


class LLMRefusedError(LLMError):
    """This request is refused; the same request would be refused again."""


class LLMBadRequestError(LLMRefusedError):
    """The request is wrong in itself."""


class LLMAuthenticationError(LLMRefusedError):
    """The key is missing, wrong, or may not do this."""


class LLMNotFoundError(LLMRefusedError):
    """There is no such model, or nothing at this address."""


class ContextLengthError(LLMRefusedError):
    """The messages are longer than the model takes."""


class ContentFilterError(LLMRefusedError):
    """A filter in front of the model stopped the messages, or its answer."""


class QuotaError(LLMRefusedError):
    """The account is out of credit."""


class LLMUnavailableError(LLMError):
    """There is no answer now; another attempt may succeed."""


class LLMServerError(LLMUnavailableError):
    """The server failed, or is too busy."""


class RateLimitError(LLMUnavailableError):
    """Too many requests, or too many tokens, in too short a time."""


class LLMConnectionError(LLMUnavailableError):
    """There is no connection to the server, or it broke."""


class LLMTimeoutError(LLMUnavailableError, TimeoutError):
    """The server did not answer in time."""


class LLMResponseError(LLMError):
    """The server answered with something that is no reply."""


class LLMOutputError(LLMResponseError):
    """The model answered with what is not the `output` that was asked for.

    `text` is what it said; `reply` the whole `Reply`, which tells what it took, where there is one.
    """

    reply: Any = None

    def __init__(self, message: str, text: str = "") -> None:
        super().__init__(message)
        self.text = text


class StorageError(AgentflowError):
    """What is kept in a file cannot be read or written."""


class MissingExtraError(AgentflowError, ImportError):
    """A library is needed that is not installed; the message names the extra that brings it."""
