"""What is said to models and by them, in the JSON of the conventions: each message once, cut inside its structure."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from .content import clean, fit, json_text, plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agentflow_llm.records import ChatCall, Passage

    from .content import Limits

_LEAST = 256
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
            self.digest = kept.digest.copy() if kept and kept.digest else hashlib.sha256()
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
        digest = hashlib.sha256()
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


def input_messages(messages: Sequence[Any], limits: Limits) -> tuple[str, bool]:
    """The messages of a request, and whether something is missing from them."""
    text = limits.text
    while True:
        made = [one for message in messages for one in _input(message, text)]
        out, missing = fit(made, limits.attribute, _left_out)
        if not missing or len(made) > 1 or text <= _LEAST:
            return out, missing
        text //= 2  # a single message of many parts


def _input(message: Any, limit: int) -> Iterable[dict[str, Any]]:
    """One message; each result of a tool apart, for back ends show only one in a message."""
    results = [part for part in message.content if part.type == "tool_result"]
    others = [part for part in message.content if part.type != "tool_result"]
    if others or not results:
        yield {"role": message.role, "parts": [_part(part, limit) for part in others]}
    for part in results:
        yield {"role": "tool", "parts": [_part(part, limit)]}


def output_message(message: Any, finish_reason: str | None, limits: Limits) -> str:
    """The answer of a model, with the reason for which it stopped, without which Phoenix drops it."""
    reason = finish_reason or ("tool_call" if message.tool_calls else "stop")
    text = limits.text
    while True:
        parts = [_part(part, text) for part in message.content]
        one = {"role": "assistant", "parts": parts, "finish_reason": clean(_FINISHED.get(reason, reason), _LEAST)}
        out, missing = fit([one], limits.attribute, _left_out)
        if not missing:
            return out
        text //= 2
        if text < _LEAST:
            one["parts"] = [{"type": "text", "content": f"[{len(parts):,} parts left out]"}]
            return fit([one], limits.attribute, _left_out)[0]


def _part(part: Any, limit: int) -> dict[str, Any]:
    match part.type:
        case "tool_call":
            return {
                "type": "tool_call",
                "id": clean(part.id, _LEAST),
                "name": clean(part.name, _LEAST),
                "arguments": _arguments(part.arguments, limit),
            }
        case "tool_result":
            return {
                "type": "tool_call_response",
                "id": clean(part.call_id, _LEAST),
                "response": clean(part.content, limit),
            }
        case "reasoning":
            return {"type": "reasoning", "content": clean(part.text, limit)}
        case "image":
            return _picture(part.url, limit)
        case _:
            return {"type": "text", "content": clean(part.text, limit)}


def _picture(url: str, limit: int) -> dict[str, Any]:
    """A picture by its address; one that is sent along by what it is, for it would be many times all the rest."""
    if _holds_data(url):
        kind = url[5:_LEAST].partition(",")[0].partition(";")[0] or "image"
        return {"type": "text", "content": f"[{clean(kind, _LEAST)}, {_size_inside(url):,} bytes]"}
    return {"type": "uri", "modality": "image", "uri": clean(url, limit)}


def _arguments(text: str, limit: int) -> Any:
    """As JSON where it is that, else as the model wrote it."""
    shown, is_json = json_text(text, limit)
    return json.loads(shown) if is_json else shown


def _left_out(many: int) -> dict[str, Any]:
    return {"role": "system", "parts": [{"type": "text", "content": f"[{many:,} messages left out]"}]}


def tool_definitions(call: ChatCall, limits: Limits) -> tuple[str, bool]:
    """The tools that a model may ask for."""
    return fit(
        [
            {
                "type": "function",
                "name": tool.name,
                "description": clean(tool.description, limits.text),
                "parameters": plain(tool.parameters, limits.text),
            }
            for tool in call.tools
        ],
        limits.attribute,
        lambda many: {"type": "function", "name": f"[{many:,} tools left out]"},
    )


def documents(passages: Sequence[Passage], limits: Limits) -> tuple[str, bool]:
    """What a retrieval found; each with a number as its score, without which Phoenix drops them all."""
    return fit(
        [
            {
                "id": clean(str(passage.id), _LEAST),
                "score": score_of(passage.score),
                "content": clean(passage.text, limits.text),
                "metadata": plain(dict(passage.metadata), limits.text),
            }
            for passage in passages
        ],
        limits.attribute,
        lambda many: {"id": f"[{many:,} documents left out]", "score": 0.0},
    )


def score_of(score: object) -> float:
    """A score as a number, 0.0 where it is none."""
    try:
        number = float(score)  # type: ignore[arg-type]  # because a retriever may give anything as a score
    except (TypeError, ValueError):
        return 0.0
    return number if number - number == 0 else 0.0
