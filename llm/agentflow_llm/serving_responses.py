"""What a server of the Responses API reads and sends, for a server in tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from .loose import as_dict, as_list
from .messages import (
    ChatMessage,
    Delta,
    ReasoningPart,
    RefusalPart,
    Reply,
    TextPart,
    ToolCallPart,
    ToolDefinition,
    ToolResultPart,
)
from .serving import event, fragments
from .stream import pieces_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .messages import AnyPart, Usage
    from .model import RequestOptions

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def read_input(body: Any) -> list[ChatMessage]:
    """The messages of a request."""
    body = as_dict(body)
    messages: list[ChatMessage] = []
    if body.get("instructions"):
        messages.append(ChatMessage(role="system", content=str(body["instructions"])))
    given = body.get("input")
    names: dict[str, str] = {}
    for item in [{"role": "user", "content": given}] if isinstance(given, str) else map(as_dict, as_list(given)):
        part: AnyPart
        ident = str(item.get("call_id"))
        match item.get("type", "message"):
            case "message":
                role = {"developer": "system"}.get(str(item.get("role")), item.get("role"))
                messages.append(ChatMessage.model_validate({"role": role, "content": _text(item.get("content"))}))
            case "function_call":
                names[ident] = str(item.get("name"))
                part = ToolCallPart(id=ident, name=names[ident], arguments=str(item.get("arguments")))
                messages.append(ChatMessage(role="assistant", content=[part]))
            case "function_call_output":
                said = _text(item.get("output"))
                part = ToolResultPart(call_id=ident, name=names.get(ident, ""), content=said)
                messages.append(ChatMessage(role="tool", content=[part]))
            case _:
                pass
    return messages


def responses_options(body: Any) -> RequestOptions:
    """What the body of a request asks for: tools, which of them, and the shape of the answer."""
    body = as_dict(body)
    choice = body.get("tool_choice")
    shape = as_dict(as_dict(body.get("text")).get("format")).get("schema")
    return {
        "tools": [
            ToolDefinition(
                name=str(tool.get("name")),
                description=str(tool.get("description") or ""),
                parameters=as_dict(tool.get("parameters")),
                strict=tool.get("strict") is True,
            )
            for tool in map(as_dict, as_list(body.get("tools")))
            if tool.get("type") == "function"
        ],
        "tool_choice": choice if isinstance(choice, str) else as_dict(choice).get("name"),
        "output": shape if as_dict(shape).get("type") == "object" else None,
    }


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text") or part.get("refusal") or "") for part in map(as_dict, as_list(content)))


def response_body(reply: Reply, *, model: str) -> dict[str, Any]:
    """A reply as a server sends it."""
    cut = _INCOMPLETE.get(reply.finish_reason or "")
    return {
        "id": reply.id or f"resp_{uuid4().hex}",
        "object": "response",
        "created_at": 0,
        "status": "incomplete" if cut else "completed",
        "error": None,
        "incomplete_details": {"reason": cut} if cut else None,
        "model": model,
        "output": [_item(kind, parts) for kind, parts in _items(reply)],
        "parallel_tool_calls": True,
        "usage": _usage(reply.usage),
    }


def _items(reply: Reply) -> list[tuple[str, list[AnyPart]]]:
    """The parts of a reply as the items that the API has: what is said stands together in one."""
    items: list[tuple[str, list[AnyPart]]] = []
    for part in reply.message.content:
        kind = {"reasoning": "reasoning", "tool_call": "function_call"}.get(part.type, "message")
        if items and kind == items[-1][0] == "message":
            items[-1][1].append(part)
        else:
            items.append((kind, [part]))
    return items


def _item(kind: str, parts: list[AnyPart]) -> dict[str, Any]:
    (part, *_) = parts
    match part:
        case ToolCallPart():
            called = {"call_id": part.id, "name": part.name, "arguments": part.arguments}
            return {"type": kind, "id": f"fc_{uuid4().hex}", "status": "completed", **called}
        case ReasoningPart():
            summary = [{"type": "summary_text", "text": part.text}] if part.text else []
            sealed = {} if part.encrypted is None else {"encrypted_content": part.encrypted}
            return {"type": kind, "id": part.id or f"rs_{uuid4().hex}", "summary": summary, **sealed}
        case _:
            content = [_said(part) for part in parts]
            ident = f"msg_{uuid4().hex}"
            return {"type": kind, "id": ident, "status": "completed", "role": "assistant", "content": content}


def _said(part: AnyPart) -> dict[str, Any]:
    if isinstance(part, RefusalPart):
        return {"type": "refusal", "refusal": part.text}
    return {"type": "output_text", "annotations": [], "text": part.text if isinstance(part, TextPart) else ""}


def _usage(usage: Usage) -> dict[str, Any] | None:
    if usage.total_tokens is None:
        return None
    written = {} if usage.cache_write_tokens is None else {"cache_write_tokens": usage.cache_write_tokens}
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens or 0, **written},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
        "total_tokens": usage.total_tokens,
    }


def response_events(reply: Reply, *, model: str) -> Iterator[str]:
    """A reply as a server streams it: each item is added, comes in pieces, and is done."""
    whole = response_body(reply, model=model)
    number = -1

    def told(kind: str, **facts: Any) -> str:
        nonlocal number
        number += 1
        return event({"type": kind, **facts, "sequence_number": number}, kind)

    begun: dict[str, Any] = {**whole, "status": "in_progress", "incomplete_details": None, "output": [], "usage": None}
    yield told("response.created", response=begun)
    yield told("response.in_progress", response=begun)
    for index, (item, (_, parts)) in enumerate(zip(whole["output"], _items(reply), strict=True)):
        at = {"item_id": item["id"], "output_index": index}
        empty: dict[str, Any] = {
            name: "" if name == "arguments" else [] for name in ("content", "summary", "arguments") if name in item
        }
        yield told("response.output_item.added", output_index=index, item={**item, **empty})
        for place, part in enumerate(parts):
            for kind, facts in _told_of(part, place):
                yield told(kind, **at, **facts)
        yield told("response.output_item.done", output_index=index, item=item)
    yield told(f"response.{whole['status']}", response=whole)


def _told_of(part: AnyPart, place: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """The events of one part, without what they all have in common."""
    pieces = [piece.text for piece in _pieces(part)]
    match part:
        case ToolCallPart():
            for piece in fragments(part.arguments):
                yield "response.function_call_arguments.delta", {"delta": piece}
            yield "response.function_call_arguments.done", {"arguments": part.arguments}
        case ReasoningPart():
            at = {"summary_index": place}
            whole = {"type": "summary_text", "text": part.text}
            yield "response.reasoning_summary_part.added", {**at, "part": {**whole, "text": ""}}
            for piece in pieces:
                yield "response.reasoning_summary_text.delta", {**at, "delta": piece}
            yield "response.reasoning_summary_text.done", {**at, "text": part.text}
            yield "response.reasoning_summary_part.done", {**at, "part": whole}
        case _:
            whole = _said(part)
            name = "refusal" if whole["type"] == "refusal" else "text"
            kind = "response.refusal" if name == "refusal" else "response.output_text"
            at = {"content_index": place}
            yield "response.content_part.added", {**at, "part": {**whole, name: ""}}
            for piece in pieces:
                yield f"{kind}.delta", {**at, "delta": piece}
            yield f"{kind}.done", {**at, name: whole[name]}
            yield "response.content_part.done", {**at, "part": whole}


def _pieces(part: AnyPart) -> Iterator[Delta]:
    return pieces_of(Reply(message=ChatMessage(role="assistant", content=[part])))
