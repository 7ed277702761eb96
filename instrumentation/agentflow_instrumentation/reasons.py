"""Why something did not arrive, in a few words, from what exporters write; and addresses without passwords."""

from __future__ import annotations

import re

_HINTS = (
    (r"BadStatusLine", "it looks like a gRPC port: use protocol='grpc'"),
    (r"Failed parsing HTTP/2", "it looks like an HTTP port: use protocol='http/protobuf'"),
    (r"refused|ECONNREFUSED", "connection refused"),
    (r"resol(?:ve|ution)|getaddrinfo|Name or service|nodename", "the host is not known"),
    (r"timed? ?out|DEADLINE_EXCEEDED", "no answer in time"),
    (r"Too Many Requests|code: 429", "too many requests"),
    (r"RESOURCE_EXHAUSTED|larger than max|too large", "the batch is too large for the receiver"),
    (r"UNIMPLEMENTED", "the receiver takes no traces there"),
    (r"certificate|SSL", "the TLS certificate is not accepted"),
)
_WORDS = 160
_FRAMES = (
    r"code: (?P<code>\d{3}), reason: (?P<why>.*)",
    r"code: None, reason: (?P<why>.*)",
    r"Failed to export \w+ to \S+, error code: (?:StatusCode\.)?(?P<why>.*)",
    r"Transient error StatusCode\.(?P<code>\w+) encountered .*Error details: (?P<why>.*)",
    r"Transient error (?:StatusCode\.)?(?P<why>.*) encountered while exporting",
)
"""What exporters write around what happened."""


def gives_up(message: str) -> bool:
    """Does an exporter merely say that it gives up? Why it had to was said before."""
    return re.search("shutdown|max retries", message, re.IGNORECASE) is not None


def shorten(reason: str) -> str:
    """What an exporter said, in a few words."""
    for pattern, hint in _HINTS:
        if re.search(pattern, reason, re.IGNORECASE):
            return hint
    text = " ".join(without_password(reason).split())
    for frame in _FRAMES:
        if match := re.search(frame, text):
            found = match.groupdict()
            text = f"{found['code']} {found['why']}" if found.get("code") else found["why"]
            break
    return text if len(text) <= _WORDS else f"{text[:_WORDS]}…"


def without_password(text: str) -> str:
    """A text without what stands before the host in its addresses."""
    return re.sub(r"(?<=//)[^\s@]*@(?:[^\s/@]*@)*|[^\s/'\"]+:[^\s/@]*@", "***@", text)
