"""Failed answers of servers that speak as OpenAI's does, made into errors that say what happened and what to do."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from agentflow.clock import current_clock

from .errors import (
    ContentFilterError,
    ContextLengthError,
    LLMAuthenticationError,
    LLMBadRequestError,
    LLMConnectionError,
    LLMError,
    LLMNotFoundError,
    LLMRefusedError,
    LLMResponseError,
    LLMServerError,
    LLMTimeoutError,
    LLMUnavailableError,
    QuotaError,
    RateLimitError,
)
from .loose import as_dict, excerpt, first, parsed

if TYPE_CHECKING:
    from collections.abc import Mapping

_TOO_LONG = re.compile(
    r"context[ _](length|window|size)|maximum (context|prompt length|number of (input )?tokens)|prompt is too long"
    r"|too many (input )?tokens|input is too long",
    re.IGNORECASE,
)
_NO_CREDIT = {"insufficient_quota", "billing_hard_limit_reached", "insufficient_balance", "credits_exhausted"}
_CLIENT_ERROR, _SERVER_ERROR = 400, 500
_FILTERED = "content_filter"
_FILTERED_CODES = {_FILTERED, "content_policy_violation", "moderation_blocked", "ResponsibleAIPolicyViolation"}
_AGAIN = {408, 409, 425}
_TOO_LONG_CODES = {"context_length_exceeded", "exceed_context_size_error"}
_STATUS = re.compile(r"[45]\d\d")
_LONGEST_DETAIL = 300
_SPEAKERS = {"openai", "httpx", "httpx2", "httpcore", "httpcore2", "h11", "anyio", "ssl"}
"""The packages whose errors say what happened to a connection."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Who was asked, and where, for what an error says."""

    model: str
    server: str

    def __str__(self) -> str:
        return f"{self.model!r} at {self.server}"


def answered(asked: Asked, status: int, headers: Mapping[str, str], text: str) -> LLMError:
    """The error that an answer with this status, its headers (names in lower case) and its body means.

    `x-should-retry: false` makes a refusal of what else might be tried again. `true` changes nothing: a request that
    is wrong in itself stays so.
    """
    body = parsed(text)
    body = as_dict(first(body) or body)  # Google has it in a list
    said = body.get("error") or body or text
    facts: dict[str, Any] = {
        "status": status,
        "code": _code(said),
        "request_id": headers.get("x-request-id") or headers.get("apim-request-id"),
    }
    error = _error(asked, status, said, facts, retry_after(headers))
    if headers.get("x-should-retry") == "false" and isinstance(error, LLMUnavailableError):
        return LLMRefusedError(f"{error} The server says that trying again would not help.", **facts)
    return error


def confessed(asked: Asked, said: Any, headers: Mapping[str, str]) -> LLMError:
    """The error that stands in the body of an answer whose status says that all is well."""
    told = as_dict(said)
    inner = str(told.get("status") or told.get("status_code") or told.get("code"))
    code = _code(said)
    if _STATUS.fullmatch(inner):
        status = int(inner)
    else:
        status = _CLIENT_ERROR if code in _FILTERED_CODES | _NO_CREDIT else _SERVER_ERROR
    facts: dict[str, Any] = {"status": status, "code": code, "request_id": headers.get("x-request-id")}
    return _error(asked, status, said, facts, None)


def _error(  # noqa: PLR0911 because each status means an error of its own
    asked: Asked, status: int, said: Any, facts: dict[str, Any], wait: float | None
) -> LLMError:
    detail = _message(said)
    names = {facts["code"], as_dict(said).get("type")}
    if status == HTTPStatus.PAYMENT_REQUIRED or names & _NO_CREDIT:
        return QuotaError(f"The account that asks for {asked} is out of credit: {detail}", **facts)
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        hint = "Set OPENAI_API_KEY to a valid key, or pass OpenAI(..., api_key=...)."
        return LLMAuthenticationError(f"The server refuses the key for {asked}: {detail} {hint}", **facts)
    if status == HTTPStatus.NOT_FOUND:
        hint = (
            "Check the model's name (AGENTFLOW_MODEL) against the server's list, GET /models, and the address "
            "(OPENAI_BASE_URL), which usually ends in /v1."
        )
        return LLMNotFoundError(f"The server does not find {asked}: {detail} {hint}", **facts)
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        asks = "" if wait is None else f" It asks for a wait of {wait:g} s."
        return RateLimitError(f"Too many requests for {asked}: {detail}{asks}", retry_after=wait, **facts)
    if status in _AGAIN or status >= _SERVER_ERROR:
        text = f"The server cannot answer for {asked} now (status {status}): {detail}"
        return LLMServerError(text, retry_after=wait, **facts)
    if status < _CLIENT_ERROR:
        return LLMResponseError(f"{asked} answered with status {status}: {detail}", **facts)
    if names & _TOO_LONG_CODES or _TOO_LONG.search(detail):
        hint = "Send fewer or shorter messages, or choose a model with a larger context."
        return ContextLengthError(f"The messages are too long for {asked}: {detail} {hint}", **facts)
    if names & _FILTERED_CODES:
        return ContentFilterError(f"A content filter stopped the messages for {asked}: {detail}", **facts)
    return LLMBadRequestError(f"The server refuses this request for {asked} (status {status}): {detail}", **facts)


def unfit_key(asked: Asked, key: str) -> LLMAuthenticationError | None:
    """The error that a key means which no request can carry, without showing the key; None where it is fit."""
    at = next((at for at, character in enumerate(key) if not "!" <= character <= "~"), None)
    if at is None:
        return None
    return LLMAuthenticationError(
        f"The key for {asked} cannot be sent: its character {at + 1} of {len(key)} is {key[at]!r}, and keys have only "
        "ASCII letters, digits and signs. Set OPENAI_API_KEY to the key alone, as the provider shows it, or pass "
        "OpenAI(..., api_key=...)."
    )


def not_sent(asked: Asked, error: Exception) -> LLMBadRequestError:
    """The error that a request means which cannot be put into bytes."""
    return LLMBadRequestError(f"The request for {asked} cannot be sent: {type(error).__name__}: {excerpt(str(error))}.")


def no_connection(asked: Asked, error: BaseException) -> LLMError:
    """The error that a broken or refused connection means."""
    reason = excerpt(_innermost(error))
    return LLMConnectionError(
        f"No connection for {asked}: {reason}. Is the server running, and its address (OPENAI_BASE_URL) right?"
    )


def cut(asked: Asked, error: BaseException | None = None) -> LLMConnectionError:
    """The error of a streamed answer that ended before its end, with what the connection said, if that broke."""
    reason = "the stream ended before the model did" if error is None else excerpt(_innermost(error))
    return LLMConnectionError(f"The answer of {asked} was cut: {reason}.")


def filtered(asked: Asked) -> ContentFilterError:
    """The error of an answer of which a content filter left nothing."""
    return ContentFilterError(
        f"A content filter stopped the answer of {asked}, and left nothing of it.", status=HTTPStatus.OK, code=_FILTERED
    )


def no_answer(asked: Asked) -> LLMError:
    """The error that the client's own time-out means."""
    return LLMTimeoutError(f"No answer in time for {asked}. Is the server running and reachable?")


def no_reply(asked: Asked, reason: str, status: int, headers: Mapping[str, str]) -> LLMResponseError:
    """The error that an answer means which is no reply."""
    return LLMResponseError(
        f"The answer of {asked} cannot be understood: {reason}. Does the server speak this API at this "
        "address? Its base_url (OPENAI_BASE_URL) usually ends in /v1.",
        status=status,
        request_id=headers.get("x-request-id"),
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait: milliseconds, seconds, or a date. None where it does not ask."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            seconds = _until(value)
        if 0 < seconds < float("inf"):
            return seconds
    return None


def _until(date: str) -> float:
    try:
        return parsedate_to_datetime(date).timestamp() - current_clock().time()
    except (ValueError, OverflowError):
        return 0.0


def _code(said: Any) -> str | None:
    code = as_dict(said).get("code") or as_dict(said).get("type")
    return None if code is None else str(code)


def _message(said: Any) -> str:
    """What the server said, as one line that ends with a full stop."""
    told = as_dict(said)
    message = told.get("message") or told.get("detail") or said
    text = message if isinstance(message, str) else json.dumps(message, ensure_ascii=False)
    raw = as_dict(told.get("metadata")).get("raw")
    if isinstance(raw, str):  # OpenRouter hands on what its provider said
        text = f"{text}: {raw}"
    text = " ".join(text.split()) or "it says no more"
    text = text if len(text) <= _LONGEST_DETAIL else f"{text[:_LONGEST_DETAIL]}..."
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _innermost(error: BaseException) -> str:
    """What the error says that all of this began with."""
    said = str(error)
    seen: set[int] = set()
    inner: BaseException | None = error
    while inner is not None and id(inner) not in seen:
        seen.add(id(inner))
        if isinstance(inner, BaseExceptionGroup):  # one for each address of the host
            inner = cast("BaseExceptionGroup[BaseException]", inner).exceptions[0]
        said = str(inner) or said
        inner = inner.__cause__ or _behind(inner)
    return said.rstrip(".")


def _behind(error: BaseException) -> BaseException | None:
    """What was being handled when the error came, where that is about the connection too, and not by chance there."""
    context = error.__context__
    about = isinstance(context, OSError) or type(context).__module__.partition(".")[0] in _SPEAKERS
    return context if about else None
