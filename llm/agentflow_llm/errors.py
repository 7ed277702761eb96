"""What can go wrong with a model, told apart by what one can do about it.

```
LLMError                       a model call failed
├── LLMRefusedError            the server refuses this request: trying again would not help
│   ├── LLMAuthenticationError   the key is missing, wrong, or may not do this (401, 403)
│   ├── LLMNotFoundError         there is no such model or address (404)
│   ├── ContextLengthError       the messages are longer than the model takes
│   └── QuotaError               the account is out of credit
├── LLMUnavailableError        the server cannot answer now: trying again may help (408, 409, 5xx)
│   ├── RateLimitError           too many requests (429)
│   ├── LLMConnectionError       no connection, or it broke
│   └── LLMTimeoutError          no answer in time (also a TimeoutError)
└── LLMResponseError           the server answered with what is no reply
```
"""

from __future__ import annotations

from agentflow.errors import AgentflowError


class LLMError(AgentflowError):
    """A model call failed. The original exception is its `__cause__`.

    - `status`: the HTTP status, where there was an answer.
    - `code`: the server's own name for the error.
    - `request_id`: the server's name for the request, to quote in a report to its owner.
    - `retry_after`: seconds that the server asks to wait before another attempt.
    - `attempts`: how many times the model was asked before this error stood.
    """

    attempts: int = 1

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
    """The server refuses this request; the same request would be refused again."""


class LLMAuthenticationError(LLMRefusedError):
    """The key is missing, wrong, or may not do this."""


class LLMNotFoundError(LLMRefusedError):
    """There is no such model, or nothing at this address."""


class ContextLengthError(LLMRefusedError):
    """The messages are longer than the model takes."""


class QuotaError(LLMRefusedError):
    """The account is out of credit."""


class LLMUnavailableError(LLMError):
    """The server cannot answer now; another attempt may succeed."""


class RateLimitError(LLMUnavailableError):
    """Too many requests, or too many tokens, in too short a time."""


class LLMConnectionError(LLMUnavailableError):
    """There is no connection to the server, or it broke."""


class LLMTimeoutError(LLMUnavailableError, TimeoutError):
    """The server did not answer in time."""


class LLMResponseError(LLMError):
    """The server answered with something that is no reply."""
