"""Chat Completions as it goes over the wire: messages into JSON, and whatever servers answer into a `Reply`.

Many servers speak it, each with an accent. Reading is tolerant: what can only mean one thing is taken to
mean it; what is no reply at all raises `LLMResponseError`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from .errors import LLMResponseError
from .loose import as_dict, as_list, excerpt, first, well_formed
from .messages import (
    ChatMessage,
    ReasoningPart,
    RefusalPart,
    Reply,
    TextPart,
    ToolCallPart,
    ToolDefinition,
    ToolResultPart,
    Usage,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .messages import AnyPart
    from .records import ChatCall

_CHOICES = ("auto", "none", "required")


def render_request(call: ChatCall, *, max_tokens_as: str = "max_tokens") -> dict[str, Any]:
    """The body of a request. `max_tokens_as` is the server's name for that limit."""
    body: dict[str, Any] = {"model": call.model, "messages": render_messages(call.messages)}
    if call.tools:
        body["tools"] = [render_tool(tool) for tool in call.tools]
    for name, value in call.parameters.items():
        if name == "max_tokens":
            body[max_tokens_as] = value
        elif name != "tool_choice":
            body[name] = value
        elif value in _CHOICES:
            if call.tools:  # servers refuse a choice among no tools
                body[name] = value
        else:
            body[name] = {"type": "function", "function": {"name": value}}
    body.update(call.extra)
    return body


def render_messages(messages: Iterable[ChatMessage]) -> list[dict[str, Any]]:
    """Messages as the wire has them: each tool result is one of its own."""
    rendered: list[dict[str, Any]] = []
    for message in messages:
        content = message.content
        if len(content) == 1 and type(content[0]) is TextPart:  # nearly all are
            rendered.append({"role": message.role, "content": well_formed(content[0].text)})
        else:
            rendered.extend(_render_parts(message))
    return rendered


def _render_parts(message: ChatMessage) -> list[dict[str, Any]]:
    text: str | None = None
    calls: list[dict[str, Any]] = []
    rendered: list[dict[str, Any]] = []
    for part in message.content:
        match part:
            case TextPart() | RefusalPart():  # as content, a refusal is understood by every server
                text = (text or "") + part.text
            case ToolCallPart():
                function = {"name": part.name, "arguments": well_formed(part.arguments)}
                calls.append({"id": part.id, "type": "function", "function": function})
            case ToolResultPart():
                rendered.append({"role": "tool", "tool_call_id": part.call_id, "content": well_formed(part.content)})
            case ReasoningPart():  # servers that give it do not want it back
                pass
    if text is not None or calls or not rendered:
        said: dict[str, Any] = {"role": message.role}
        if text is not None or not calls:
            said["content"] = well_formed(text or "")
        if calls:
            said["tool_calls"] = calls
        rendered.append(said)
    return rendered


def render_tool(tool: ToolDefinition) -> dict[str, Any]:
    """A tool as the wire has it."""
    described = {"description": well_formed(tool.description)} if tool.description else {}
    return {"type": "function", "function": {"name": tool.name, **described, "parameters": tool.parameters}}


def read_reply(body: Any) -> Reply:
    """The reply in the decoded body of an answer, which has no `error`. Choice 0 is the reply.

    Raises `LLMResponseError` where it holds none.
    """
    body = as_dict(body)
    choice = as_dict(first(body.get("choices")))
    message = choice.get("message")
    if not isinstance(message, dict):
        raise LLMResponseError(f"it has no message: {excerpt(body)}")
    message = as_dict(message)
    content = message.get("content")
    reasoning = message.get("reasoning_content") or message.get("reasoning") or message.get("reasoning_details")
    thought = _text(reasoning) or "".join(_text(as_dict(part).get("thinking")) for part in as_list(content))
    said: list[TextPart | ReasoningPart | RefusalPart] = [
        ReasoningPart(text=thought),
        TextPart(text=_text(content)),
        RefusalPart(text=_text(message.get("refusal"))),
    ]
    reason, model, ident = choice.get("finish_reason"), body.get("model"), body.get("id")
    return Reply(
        message=ChatMessage(
            role="assistant",
            content=(*(part for part in said if part.text), *_read_calls(message.get("tool_calls"))),
        ),
        finish_reason=str(reason) if reason else None,
        usage=read_usage(body.get("usage")),
        model=str(model) if model else "",
        id=str(ident) if ident else None,
    )


def _text(content: Any) -> str:
    """The text of a content: a string, or a list of parts, as Mistral and OpenRouter send."""
    if isinstance(content, str):
        return well_formed(content)
    parts: list[Any] = [content] if isinstance(content, dict) else as_list(content)
    texts = (part if isinstance(part, str) else _text_of_part(as_dict(part)) for part in parts)
    return well_formed("".join(text for text in texts if isinstance(text, str)))


def _text_of_part(part: dict[str, Any]) -> Any:
    return part.get("text") or part.get("summary") or part.get("refusal")


def _read_calls(said: Any) -> list[ToolCallPart]:
    calls: list[ToolCallPart] = []
    for call in map(as_dict, as_list(said)):
        function = as_dict(call.get("function"))
        name, arguments, ident = function.get("name"), function.get("arguments"), call.get("id")
        if not isinstance(name, str) or not name:
            raise LLMResponseError(f"it calls a tool that it does not name: {excerpt(call)}")
        if not isinstance(arguments, str):  # an object, or null for no arguments
            arguments = json.dumps(arguments or {}, ensure_ascii=False)
        if not isinstance(ident, str) or not ident or any(ident == other.id for other in calls):
            ident = f"call_{uuid4().hex[:24]}"  # without one of its own, its result could not be told from others'
        calls.append(ToolCallPart(id=ident, name=name, arguments=well_formed(arguments) if arguments.strip() else "{}"))
    return calls


def read_usage(said: Any) -> Usage:
    """The usage of one request, from the server's account of it."""
    said = as_dict(said)
    sent, got = as_dict(said.get("prompt_tokens_details")), as_dict(said.get("completion_tokens_details"))
    cached = _count(sent, "cached_tokens")
    return Usage(
        input_tokens=_count(said, "prompt_tokens"),
        output_tokens=_count(said, "completion_tokens"),
        cached_tokens=_count(said, "prompt_cache_hit_tokens") if cached is None else cached,
        cache_write_tokens=_count(sent, "cache_write_tokens"),
        reasoning_tokens=_count(got, "reasoning_tokens"),
        http_requests=1,
    )


def _count(said: Mapping[str, Any], name: str) -> int | None:
    value = said.get(name)
    return int(value) if isinstance(value, int | float) and value >= 0 else None


def render_reply(reply: Reply, *, model: str) -> dict[str, Any]:
    """A reply as a server sends it."""
    (message,) = render_messages([reply.message])
    refusals = [part.text for part in reply.message.content if isinstance(part, RefusalPart)]
    if refusals:
        message.update(content=reply.message.text or None, refusal="".join(refusals))
    usage = reply.usage
    counted = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }
    return {
        "id": reply.id or f"chatcmpl-{uuid4().hex[:24]}",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": {"content": None, **message}, "finish_reason": reply.finish_reason}],
        **({} if usage.total_tokens is None else {"usage": counted}),
    }


def read_request(body: Any) -> tuple[list[ChatMessage], list[ToolDefinition]]:
    """The messages and tools of a request, as a server reads it."""
    names: dict[str, str] = {}
    messages: list[ChatMessage] = []
    for said in map(as_dict, as_list(as_dict(body).get("messages"))):
        text, role = _text(said.get("content")), said.get("role")
        calls = _read_calls(said.get("tool_calls"))
        names.update((call.id, call.name) for call in calls)
        parts: list[AnyPart] = [*([TextPart(text=text)] if text else ()), *calls]
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
        )
        for tool in tools
    ]
