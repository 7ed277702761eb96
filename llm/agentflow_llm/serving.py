"""What a server reads and sends, for a server in tests: Chat Completions and embeddings, plain and streamed."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from array import array
from itertools import repeat
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from .hash_embedder import HashEmbedder
from .loose import as_dict, as_list, well_formed
from .messages import (
    ChatMessage,
    ImagePart,
    ReasoningPart,
    TextPart,
    ToolDefinition,
    ToolResultPart,
    Usage,
)
from .model import Embeddings
from .records import EmbeddingsCall
from .stream import pieces_of
from .wire import calls_in, read_calls, render_messages, text_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .messages import AnyPart, Delta, Reply
    from .model import RequestOptions

DONE = "data: [DONE]\n\n"
_DIMENSIONS = 64
_FRAGMENT = 8


def event(data: Mapping[str, Any], name: str = "") -> str:
    """A server-sent event."""
    told = f"event: {name}\n" if name else ""
    return f"{told}data: {json.dumps(data, ensure_ascii=False)}\n\n"


def read_request(body: Any) -> tuple[list[ChatMessage], list[ToolDefinition]]:
    """The messages and tools of a request, as a server reads it."""
    names: dict[str, str] = {}
    messages: list[ChatMessage] = []
    for said in map(as_dict, as_list(as_dict(body).get("messages"))):
        content, role = said.get("content"), said.get("role")
        text = well_formed(text_in(content))
        calls = read_calls(calls_in(said))
        names.update((call.id, call.name) for call in calls)
        parts: list[AnyPart] = [*([TextPart(text=text)] if text else ()), *_read_pictures(content), *calls]
        if role == "tool":
            ident = str(said.get("tool_call_id"))
            parts = [ToolResultPart(call_id=ident, name=names.get(ident, ""), content=text)]
        messages.append(
            ChatMessage.model_validate({"role": "system" if role == "developer" else role, "content": parts})
        )
    tools = [as_dict(as_dict(tool).get("function")) for tool in as_list(as_dict(body).get("tools"))]
    return messages, [
        ToolDefinition(
            name=str(tool.get("name")),
            description=str(tool.get("description") or ""),
            parameters=as_dict(tool.get("parameters")),
            strict=tool.get("strict") is True,
        )
        for tool in tools
    ]


def _read_pictures(content: Any) -> list[ImagePart]:
    pictures = (as_dict(as_dict(part).get("image_url")) for part in as_list(content))
    return [
        ImagePart.model_validate({"url": picture["url"], "detail": picture.get("detail") or None})
        for picture in pictures
        if picture.get("url")
    ]


def chat_options(body: Any) -> RequestOptions:
    """What the body of a Chat Completions request asks for: tools, which of them, and the shape of the answer."""
    body = as_dict(body)
    _, tools = read_request(body)
    choice = body.get("tool_choice")
    shape = as_dict(body.get("response_format"))
    schema = as_dict(as_dict(shape.get("json_schema")).get("schema"))
    return {
        "tools": tools,
        "tool_choice": choice if isinstance(choice, str) else as_dict(as_dict(choice).get("function")).get("name"),
        "output": schema if schema.get("type") == "object" else None,
    }


def chat_body(reply: Reply, *, model: str) -> dict[str, Any]:
    """A reply as a server sends it, with what was thought, and all that its usage tells."""
    (message,) = render_messages([reply.message])
    if reply.refusal is not None:
        message.update(content=reply.text or None, refusal=reply.refusal)
    thoughts = "".join(part.text for part in reply.message.content if isinstance(part, ReasoningPart))
    if thoughts:
        message["reasoning_content"] = thoughts
    body = {
        "id": reply.id or f"chatcmpl-{uuid4().hex[:24]}",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": {"content": None, **message}, "finish_reason": reply.finish_reason}],
    }
    return body if reply.usage.total_tokens is None else {**body, "usage": _usage(reply.usage)}


def _usage(usage: Usage) -> dict[str, Any]:
    sent = {"cached_tokens": usage.cached_tokens, "cache_write_tokens": usage.cache_write_tokens}
    got = {"reasoning_tokens": usage.reasoning_tokens}
    told: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }
    for name, counts in (("prompt_tokens_details", sent), ("completion_tokens_details", got)):
        known = {count: number for count, number in counts.items() if number is not None}
        if known:
            told[name] = known
    return told


def chat_events(reply: Reply, body: Any, model: str) -> Iterator[str]:
    """A reply as a server streams it: the role, its pieces, why it ended, its usage where that is asked for."""
    whole = chat_body(reply, model=model)
    usage = whole.pop("usage", None)
    head = {**whole, "object": "chat.completion.chunk"}

    def chunk(delta: Mapping[str, Any], reason: str | None = None) -> str:
        return event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})

    yield chunk({"role": "assistant", "content": ""})
    for piece in pieces_of(reply):
        for delta in _chat_deltas(piece):
            yield chunk(delta)
    yield chunk({}, reply.finish_reason)
    if as_dict(as_dict(body).get("stream_options")).get("include_usage"):
        yield event({**head, "choices": [], "usage": usage})
    yield DONE


def _chat_deltas(piece: Delta) -> Iterator[dict[str, Any]]:
    match piece.type:
        case "tool_call":
            named = {"id": piece.id, "type": "function"}
            yield _call_delta(piece.index, {"name": piece.name, "arguments": ""}, named)
            for fragment in fragments(piece.text):
                yield _call_delta(piece.index, {"arguments": fragment})
        case "refusal":
            yield {"refusal": piece.text}
        case "reasoning":
            yield {"reasoning_content": piece.text}
        case _:
            yield {"content": piece.text}


def _call_delta(index: int, function: Mapping[str, Any], named: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {"tool_calls": [{"index": index, **(named or {}), "function": function}]}


def fragments(arguments: str) -> Iterator[str]:
    """The arguments of a call as servers stream them, a few characters at a time."""
    for start in range(0, len(arguments), _FRAGMENT):
        yield arguments[start : start + _FRAGMENT]


def endless(text: str = "and on ") -> Iterator[str]:
    """A stream that says the same for ever."""
    chunk = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}}]}
    return repeat(event(chunk))


def embeddings_of(body: Any) -> Embeddings:
    """Vectors of the texts in the body of a request, by `HashEmbedder`."""
    body = as_dict(body)
    given = body.get("input")
    texts = [str(text) for text in ([given] if isinstance(given, str) else as_list(given))]
    length = body.get("dimensions")
    embedder = HashEmbedder(length if isinstance(length, int) else _DIMENSIONS)
    # as one would be asked in another process: observers of this one see the client's call, and not this one as well
    answer = asyncio.run(embedder.answer(EmbeddingsCall(embedder.provider, embedder.model, texts)))
    return Embeddings(answer.vectors, Usage(input_tokens=sum(len(text.split()) for text in texts)))


def embeddings_body(said: Embeddings, body: Any) -> dict[str, Any]:
    """Vectors as a server sends them, as numbers or as base64, whichever is asked for."""
    body = as_dict(body)
    packed = body.get("encoding_format") == "base64"
    vectors = [_packed(vector) if packed else list(vector) for vector in said.vectors]
    spent = said.usage if said.usage != Usage() else Usage(input_tokens=0)
    counted = {"prompt_tokens": spent.input_tokens, "total_tokens": spent.input_tokens}
    return {
        "object": "list",
        "model": str(body.get("model") or said.model),
        "data": [{"object": "embedding", "index": n, "embedding": vector} for n, vector in enumerate(vectors)],
        "usage": counted,
    }


def _packed(vector: Any) -> str:
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()
