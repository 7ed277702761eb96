"""What must not be kept of a request or an answer: keys, cookies, and who pays."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from .loose import as_dict, as_list

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

REDACTED = "REDACTED"
_SENT = {"accept", "content-type", "host", "user-agent"}
"""What is kept of a request's headers. Keys may be in any other."""
_TRANSPORT = {"connection", "content-encoding", "content-length", "keep-alive", "transfer-encoding"}
_COOKIES = {"set-cookie", "set-cookie2"}
_OWNERS = {"openai-organization", "openai-project"}
_SECRET = r"(?:[\w-]*api[_-]?key|authorization|access[_-]?token|auth[_-]?token|client[_-]?secret|password|secret)"  # noqa: S105 because it is a pattern
_SECRET_NAME = re.compile(rf"{_SECRET}|key|token|sig|signature", re.IGNORECASE)
_SECRET_FIELD = re.compile(rf'(\\*"{_SECRET}\\*"\s*:\s*\\*")([^"\\]+)', re.IGNORECASE)
"""A field of JSON with its value, be it JSON inside a string of JSON."""
_PATTERNS = [
    (re.compile(r"\bsk-[\w*-]{8,}"), f"sk-{REDACTED}"),
    (re.compile(r"\bBearer\s+[\w.~+/-]{6,}=*", re.IGNORECASE), f"Bearer {REDACTED}"),
    (re.compile(r"\borg-[A-Za-z0-9]{6,}"), f"org-{REDACTED}"),
    (re.compile(r"\bproj_[A-Za-z0-9]{6,}"), f"proj_{REDACTED}"),
]
_SHORTEST = 16
"""A shorter one is no real key, and may be a word: who runs a local server writes api_key="ollama"."""


def secrets(headers: Iterable[tuple[str, str]]) -> list[str]:
    """What the headers of a request or answer hold that must stand nowhere else either."""
    found = [
        value.removeprefix("Bearer ").strip()
        for name, value in headers
        if _SECRET_NAME.fullmatch(name.lower())
        or name.lower() in {"cookie", "proxy-authorization", *_COOKIES, *_OWNERS}
    ]
    return [secret for secret in found if len(secret) >= _SHORTEST and secret != REDACTED]


def clean_text(text: str, known: Iterable[str] = ()) -> str:
    """A text without keys: those that are known, and what looks like one."""
    for secret in known:
        text = text.replace(secret, REDACTED)
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return _SECRET_FIELD.sub(rf"\g<1>{REDACTED}", text)


def clean_json(value: Any, known: Iterable[str] = ()) -> Any:
    """JSON without keys: likewise, and the values of fields that are called so."""
    if isinstance(value, str):
        return clean_text(value, known)
    if isinstance(value, list):
        return [clean_json(item, known) for item in as_list(value)]
    if not isinstance(value, dict):
        return value
    return {
        name: REDACTED
        if isinstance(item, str) and re.fullmatch(_SECRET, name, re.IGNORECASE)
        else clean_json(item, known)
        for name, item in as_dict(value).items()
    }


def clean_url(url: str, known: Iterable[str] = ()) -> str:
    """An address without a name and password, and without keys in its query."""
    parts = urlsplit(url)
    query = [
        (name, REDACTED if _SECRET_NAME.fullmatch(name) else value)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
    ]
    host = parts.netloc.rpartition("@")[2]
    return clean_text(parts._replace(netloc=host, query=urlencode(query)).geturl(), known)


def sent_headers(headers: Mapping[str, str], known: Iterable[str] = ()) -> dict[str, str]:
    """What is kept of the headers of a request."""
    return {name.lower(): clean_text(value, known) for name, value in headers.items() if name.lower() in _SENT}


def answered_headers(headers: Mapping[str, str], known: Iterable[str] = ()) -> dict[str, str]:
    """What is kept of the headers of an answer: neither cookies, nor what belongs to the connection."""
    return {
        name.lower(): REDACTED if name.lower() in _OWNERS else clean_text(value, known)
        for name, value in headers.items()
        if name.lower() not in _TRANSPORT | _COOKIES
    }
