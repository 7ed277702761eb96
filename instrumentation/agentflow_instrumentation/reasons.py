"""Why something did not arrive, in a few words, from what exporters write; and texts without what lets one in."""

from __future__ import annotations

import re

_TOO_LARGE = r"larger than max|too large|code: 413|exceeds max_request_size"
_HINTS = (
    (r"BadStatusLine", "it looks like a gRPC port: use protocol='grpc'"),
    (r"Failed parsing HTTP/2", "it looks like an HTTP port: use protocol='http/protobuf'"),
    (r"connection refused|actively refused|ECONNREFUSED", "connection refused"),
    (r"resol(?:ve|ution)|getaddrinfo|Name or service|nodename", "the host is not known"),
    (r"timed? ?out|DEADLINE_EXCEEDED", "no answer in time"),
    (_TOO_LARGE, "the batch is too large for the receiver"),
    (r"Too Many Requests|code: 429|RESOURCE_EXHAUSTED", "too many requests"),
    (r"UNIMPLEMENTED", "the receiver takes no {signal} there"),
    (r"No connection adapters|MissingSchema", "the address has no scheme: it begins with http:// or https://"),
    (r"certificate|SSL", "the TLS certificate is not accepted"),
)
_WRONG_PORT = r"BadStatusLine|Failed parsing HTTP/2"
_WORDS = 160
_FRAMES = (
    r"code: (?P<code>\d{3}), reason: ?(?P<why>.*)",
    r"code: None, reason: (?P<why>.*)",
    r"Failed to export \w+ to \S+, error code: (?:StatusCode\.)?(?P<why>.*)",
    r"Transient error StatusCode\.(?P<code>\w+) encountered .*Error details: (?P<why>.*)",
    r"Transient error (?:StatusCode\.)?(?P<why>.*) encountered while exporting",
)
"""What exporters write around what happened."""
_SECRETS = (
    (r"(?<=//)[^\s@]*@(?:[^\s/@]*@)*|[^\s/'\"]+:[^\s/@]*@", "***@"),  # before the host of an address
    (r"([?&;][^\s=&;?]+=)[^\s&;'\")]+", r"\1***"),  # in its query
    (r"(?i)(header value: ).*", r"\1***"),  # requests shows the header that it does not take
    (r"(?i)(metadata was invalid: ).*", r"\1***"),  # so does grpc
    (r"(?i)\b(bearer|basic) +[^\s'\"]+", r"\1 ***"),
)


def is_hopeless(message: str) -> bool:
    """Would another attempt soon fail in the same way, because nobody listens there, or somebody else does?"""
    return shorten(message) == "connection refused" or re.search(_WRONG_PORT, message) is not None


def gives_up(message: str) -> bool:
    """Does an exporter merely say that it gives up? Why it had to was said before."""
    return re.search("shutdown|max retries(?! exceeded)", message, re.IGNORECASE) is not None


def is_too_large(message: str) -> bool:
    """Does an exporter say that a request was larger than the receiver takes?"""
    return re.search(_TOO_LARGE, message, re.IGNORECASE) is not None


def shorten(reason: str, signal: str = "traces") -> str:
    """What an exporter of a signal said, in a few words."""
    for pattern, hint in _HINTS:
        if re.search(pattern, reason, re.IGNORECASE):
            return hint.format(signal=signal)
    text = " ".join(without_secrets(reason).split())
    for frame in _FRAMES:
        if match := re.search(frame, text):
            found = match.groupdict()
            text = f"{found.get('code') or ''} {found['why']}".strip()
            break
    return text if len(text) <= _WORDS else f"{text[:_WORDS]}…"


def without_secrets(text: str) -> str:
    """A text without the passwords and tokens of the addresses and headers in it."""
    for pattern, instead in _SECRETS:
        text = re.sub(pattern, instead, text)
    return text
