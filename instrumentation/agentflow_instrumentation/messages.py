"""What is said to models and by them, in the JSON of the conventions: each message once, cut inside its structure."""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import TYPE_CHECKING, Any

from . import names
from .content import WITHHELD
from .cutting import clean, dumps, parse, size

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agentflow_llm.records import ChatCall, Passage

    from .content import Teller

_LEAST = 256
_KEY = secrets.token_bytes(32)
"""Lest a short message be guessed from its hash: hashes tell which messages are the same in one process, no more."""
_FINISHED = {"tool_calls": "tool_call", "function_call": "tool_call"}


class History:
    """What a chat was sent: the next chat of the run tells only what is new."""

    __slots__ = ("digest", "image_size", "images", "messages", "size", "span_id")

    def __init__(self, messages: Sequence[Any], before: History | None, *, hashed: bool) -> None:
        self.messages: tuple[Any, ...] = tuple(messages)
        self.size: int
        """Characters in all of them."""
        self.images: int
        """How many pictures they have."""
        self.image_size: int
        """Bytes of those pictures that are sent along."""
        self.span_id = ""
        """Of the chat's span, in hex."""
        known = 0 if before is None else before.shared(self.messages)
        whole = before is not None and known == len(before.messages)
        new = self.messages[known if whole else 0 :]
        kept = before if whole else None
        size, images, image_size = weigh(new)
        self.size = size + (kept.size if kept else 0)
        self.images = images + (kept.images if kept else 0)
        self.image_size = image_size + (kept.image_size if kept else 0)
        self.digest: Any = None
        if hashed:
            self.digest = kept.digest.copy() if kept and kept.digest else hashlib.sha256(_KEY)
            for message in new if kept and kept.digest else self.messages:
                self.digest.update(_canonical(message))

    def shared(self, messages: Sequence[Any]) -> int:
        """How many messages at the beginning are the same."""
        many = 0
        for old, new in zip(self.messages, messages, strict=False):
            if old is not new and (old.role != new.role or old.content != new.content):
                break
            many += 1
        return many

    def hash_of(self, many: int) -> str:
        """The hash of the first `many` messages."""
        if many == len(self.messages) and self.digest is not None:
            return str(self.digest.hexdigest())
        digest = hashlib.sha256(_KEY)
        for message in self.messages[:many]:
            digest.update(_canonical(message))
        return digest.hexdigest()


def weigh(messages: Sequence[Any]) -> tuple[int, int, int]:
    """Characters in all texts of messages, how many pictures they have, and how many bytes of these are sent along."""
    size = images = sent = 0
    for message in messages:
        for part in message.content:
            kind = part.type
            if kind == "tool_result":
                size += len(part.content)
            elif kind == "tool_call":
                size += len(part.arguments)
            elif kind == "image":
                images += 1
                sent += _size_inside(part.url) if _holds_data(part.url) else 0
            else:
                size += len(part.text)
    return size, images, sent


def _holds_data(url: str) -> bool:
    return url[:5].lower() == "data:"


def _size_inside(url: str) -> int:
    """Bytes of what a `data:` address holds."""
    comma = url.find(",")
    if comma < 0:
        return 0
    sent = len(url) - comma - 1
    return sent * 3 // 4 - url[-2:].count("=") if url[:comma].endswith("base64") else sent


def _canonical(message: Any) -> bytes:
    parts = [part.model_dump(mode="json") for part in message.content]
    return json.dumps([message.role, parts], sort_keys=True, separators=(",", ":")).encode() + b"\n"


def input_messages(messages: Sequence[Any], tell: Teller) -> str:
    """The messages of a request."""
    limit = tell.may.limits.text
    while True:
        made = [one for message in messages for one in _input(message, limit, tell)]
        if len(made) > 1 or limit <= _LEAST or _fits(made, tell):
            return tell.listed(made, _left_out)[0]
        limit //= 2  # a single message of many parts


def _fits(items: list[dict[str, Any]], tell: Teller) -> bool:
    return size(dumps(items)) <= tell.room(tell.may.limits.attribute)


def _input(message: Any, limit: int, tell: Teller) -> Iterable[dict[str, Any]]:
    """One message; each result of a tool apart, for back ends show only one in a message."""
    may = tell.may
    results = [part for part in message.content if part.type == "tool_result"]
    others = [part for part in message.content if part.type != "tool_result" and (may.images or part.type != "image")]
    if others or not results:
        parts = [_part(part, limit, tell, names.INPUT_MESSAGES, shows=may.input_text) for part in others]
        yield {"role": message.role, "parts": parts}
    for part in results:
        parts = [_part(part, limit, tell, names.INPUT_MESSAGES, shows=may.input_text)]
        yield {"role": "tool", "parts": parts}


def output_message(message: Any, finish_reason: str | None, tell: Teller) -> str:
    """The answer of a model, with the reason for which it stopped, without which Phoenix drops it."""
    reason = finish_reason or ("tool_call" if message.tool_calls else "stop")
    rest = {"role": "assistant", "finish_reason": clean(_FINISHED.get(reason, reason), _LEAST)}
    where, shows = names.OUTPUT_MESSAGES, tell.may.output_text
    limit = tell.may.limits.text
    while True:
        parts = [_part(part, limit, tell, where, shows=shows) for part in message.content]
        if limit <= _LEAST or _fits([{**rest, "parts": parts}], tell):
            break
        limit //= 2
    left_out = [{"type": "text", "content": f"[{len(parts):,} parts left out]"}]
    return tell.listed([{**rest, "parts": parts}], lambda _: {**rest, "parts": left_out})[0]


def _part(part: Any, limit: int, tell: Teller, where: str, *, shows: bool) -> dict[str, Any]:
    """A part of a message. `shows`: whether texts are shown, or only that there are some."""
    match part.type:
        case "tool_call":
            return {
                "type": "tool_call",
                "id": clean(part.id, _LEAST),
                "name": tell.clean(part.name, _LEAST, f"{where}.parts.name"),
                "arguments": _arguments(part.arguments, limit, tell, f"{where}.parts.arguments"),
            }
        case "tool_result":
            response = tell.clean(part.content, limit, f"{where}.parts.response") if shows else WITHHELD
            return {"type": "tool_call_response", "id": clean(part.call_id, _LEAST), "response": response}
        case "image":
            return _picture(part.url, limit, tell, f"{where}.parts.uri")
        case kind:
            content = tell.clean(part.text, limit, f"{where}.parts.content") if shows else WITHHELD
            return {"type": "reasoning" if kind == "reasoning" else "text", "content": content}


def _picture(url: str, limit: int, tell: Teller, where: str) -> dict[str, Any]:
    """A picture by its address; one that is sent along by what it is, for it would be many times all the rest."""
    if _holds_data(url):
        kind = url[5:_LEAST].partition(",")[0].partition(";")[0] or "image"
        return {"type": "text", "content": f"[{clean(kind, _LEAST)}, {_size_inside(url):,} bytes]"}
    return {"type": "uri", "modality": "image", "uri": tell.clean(url, limit, where)}


def _arguments(text: str, limit: int, tell: Teller, where: str) -> Any:
    """As JSON where it is that, else as the model wrote it."""
    parsed = parse(text)
    return tell.clean(text, limit, where) if parsed is None else tell.plain(parsed[0], limit, where)


def _left_out(many: int) -> dict[str, Any]:
    return {"role": "system", "parts": [{"type": "text", "content": f"[{many:,} messages left out]"}]}


def tool_definitions(call: ChatCall, tell: Teller) -> tuple[str, bool]:
    """The tools that a model may ask for, and whether some are missing."""
    limit = tell.may.limits.text
    where = f"{names.TOOL_DEFINITIONS}.parameters"
    return tell.listed(
        [
            {
                "type": "function",
                "name": tool.name,
                "description": tell.clean(tool.description, limit, f"{names.TOOL_DEFINITIONS}.description"),
                "parameters": tell.plain(tool.parameters, limit, where),
            }
            for tool in call.tools
        ],
        lambda many: {"type": "function", "name": f"[{many:,} tools left out]"},
    )


def documents(passages: Sequence[Passage], tell: Teller) -> str:
    """What a retrieval found; each with a number as its score, without which Phoenix drops them all."""
    limit = tell.may.limits.text
    return tell.listed(
        [
            {"id": clean(str(passage.id), _LEAST), "score": score_of(passage.score), **_inside(passage, limit, tell)}
            for passage in passages
        ],
        lambda many: {"id": f"[{many:,} documents left out]", "score": 0.0},
    )[0]


def _inside(passage: Passage, limit: int, tell: Teller) -> dict[str, Any]:
    if not (tell.may.outputs and tell.may.documents):
        return {"content": WITHHELD}
    return {
        "content": tell.clean(passage.text, limit, f"{names.DOCUMENTS}.content"),
        "metadata": tell.plain(dict(passage.metadata), limit, f"{names.DOCUMENTS}.metadata"),
    }


def score_of(score: object) -> float:
    """A score as a number, 0.0 where it is none."""
    try:
        number = float(score)  # type: ignore[arg-type]  # because a retriever may give anything as a score
    except (TypeError, ValueError):
        return 0.0
    return number if number - number == 0 else 0.0
