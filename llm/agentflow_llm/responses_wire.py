"""The Responses API as it goes over the wire: messages into items, and an answer's items into a `Reply`.

A conversation is a flat list of items: what is said, thoughts, calls and their results, in their order. System
messages are items like the others, and not `instructions`: so each stays where it stands, there may be several, and
they are carried over where a request builds on an earlier answer (`previous_response_id`), as `instructions` are not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import LLMBadRequestError, LLMResponseError
from .loose import as_dict, as_list, excerpt, well_formed
from .messages import (
    ChatMessage,
    ImagePart,
    ReasoningPart,
    RefusalPart,
    Reply,
    TextPart,
    ToolCallPart,
    ToolDefinition,
    ToolResultPart,
    Usage,
)
from .model import TOOL_CHOICES
from .wire import (
    arguments_in,
    ask_in_words,
    asked_tools,
    call_id,
    count_in,
    id_to_send,
    name_to_send,
    rendered_format,
    rendered_parameters,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .messages import AnyPart
    from .output import OutputMode
    from .records import ChatCall

SECTIONS = "\n\n"
"""Between two sections of one thought."""
_LONGEST_ID = 64
"""Characters of the id of a call that OpenAI's servers take here."""
_UNKNOWN = ("stop", "seed")
_SEALED = "reasoning.encrypted_content"
_NOT_THINKING = "none"
_UNFINISHED = {"queued", "in_progress", "cancelled"}
_REASONS = {"max_output_tokens": "length"}
"""Why an answer is incomplete, where Chat Completions have another word for it."""


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Raise `LLMBadRequestError` for an option of a call that the Responses API does not have."""
    for name in _UNKNOWN:
        if name in parameters:
            raise LLMBadRequestError(
                f"{name}={parameters[name]!r} cannot be asked for: the Responses API has no {name}. Leave it out, or "
                f"use OpenAI(...), which asks through Chat Completions. To a server that takes it all the same, send "
                f"extra={{{name!r}: ...}}."
            )


def render_request(call: ChatCall, *, store: bool, output_mode: OutputMode = "native") -> dict[str, Any]:
    """The body of a request. `store`: whether the server is to keep the answer. Raises `LLMBadRequestError`.

    `output_mode` says how the shape of the answer is asked for, where there is one; see `OpenAI`.
    """
    check_parameters(call.parameters)
    body: dict[str, Any] = {"model": call.model, "input": render_input(call.messages, call.tools), "store": store}
    tools, choice = asked_tools(call, output_mode)
    if tools:
        body["tools"] = [render_tool(tool, output_mode) for tool in tools]
    if choice is not None:
        body["tool_choice"] = choice if choice in TOOL_CHOICES else {"type": "function", "name": choice}
    for name, value in call.parameters.items():
        if name == "reasoning":
            body[name] = {"effort": value}
            if value != _NOT_THINKING:  # models that do not think refuse to be asked for it
                body["include"] = [_SEALED]
        elif name != "tool_choice":
            body["max_output_tokens" if name == "max_tokens" else name] = value
    if call.output is not None and output_mode == "native":
        body["text"] = {"format": {"type": "json_schema", **rendered_format(call.output)}}
    elif call.output is not None and output_mode == "prompt":
        ask_in_words(body["input"], call.output)
    for name, value in call.extra.items():
        body[name] = _both(body.get(name), value) if name in {"text", "reasoning", "include"} else value
    return body


def _both(ours: Any, theirs: Any) -> Any:
    """What a caller adds to a field that an option of the call has filled; where both say the same, the caller's."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return {**as_dict(ours), **as_dict(theirs)}
    if isinstance(ours, list) and isinstance(theirs, list):
        return [*as_list(theirs), *(one for one in as_list(ours) if one not in theirs)]
    return theirs


def render_tool(tool: ToolDefinition, output_mode: OutputMode) -> dict[str, Any]:
    """A tool as the wire has it. Strict, which is the server's default, would make every argument required."""
    described = {"description": well_formed(tool.description)} if tool.description else {}
    parameters, strict = rendered_parameters(tool, output_mode)
    return {"type": "function", "name": tool.name, **described, "parameters": parameters, "strict": strict}


def render_input(messages: Iterable[ChatMessage], tools: Sequence[ToolDefinition] = ()) -> list[dict[str, Any]]:
    """Messages as the items of a request. See `wire.render_messages` for `tools`."""
    items: list[dict[str, Any]] = []
    for message in messages:
        content = message.content
        if len(content) == 1 and type(content[0]) is TextPart:  # nearly all are
            items.append({"role": message.role, "content": well_formed(content[0].text)})
        else:
            items.extend(_items_of(message, tools))
    return items


def _items_of(message: ChatMessage, tools: Sequence[ToolDefinition]) -> list[dict[str, Any]]:
    """The items of one message, in the order of its parts; what is said without a break is one item."""
    items: list[dict[str, Any]] = []
    said: list[dict[str, Any]] | None = None
    parts = message.content
    while parts and isinstance(parts[-1], ReasoningPart):  # a thought without what came of it is refused
        parts = parts[:-1]
    role = "user" if message.role == "tool" else message.role  # beside results there may be pictures
    calls = {call.id for call in message.tool_calls}
    for part in parts:
        if isinstance(part, ReasoningPart) and part.id in calls:  # another API's signature of a call
            continue
        spoken = _content(part, role)
        if spoken is not None:
            if said is None:
                said = []
                items.append({"role": role, "content": said})
            said.append(spoken)
            continue
        item = _item(part, tools)
        if item is not None:
            said = None
            items.append(item)
    if not items and role != "assistant":
        items.append({"role": role, "content": ""})
    return items


def _content(part: AnyPart, role: str) -> dict[str, Any] | None:
    """A part that is said within a message, or None."""
    match part:
        case TextPart():
            return {"type": "output_text" if role == "assistant" else "input_text", "text": well_formed(part.text)}
        case ImagePart():
            return {"type": "input_image", "image_url": part.url, "detail": part.detail or "auto"}
        case RefusalPart():
            return {"type": "refusal", "refusal": well_formed(part.text)}
        case _:
            return None


def _item(part: AnyPart, tools: Sequence[ToolDefinition]) -> dict[str, Any] | None:
    """A part that is an item of its own, or None where it is not to be sent."""
    match part:
        case ToolCallPart():
            called = {"name": name_to_send(part.name, tools), "arguments": well_formed(part.arguments)}
            return {"type": "function_call", "call_id": id_to_send(part.id, _LONGEST_ID), **called}
        case ToolResultPart():
            ident = id_to_send(part.call_id, _LONGEST_ID)
            return {"type": "function_call_output", "call_id": ident, "output": well_formed(part.content)}
        case ReasoningPart(encrypted=str()):
            # in plain words, or by its id alone, a thought counts for nothing: the server did not keep it
            known = {} if part.id is None else {"id": part.id}
            summary = [{"type": "summary_text", "text": well_formed(part.text)}] if part.text else []
            return {"type": "reasoning", **known, "summary": summary, "encrypted_content": part.encrypted}
        case _:
            return None


def read_reply(body: Any, *, output_tool: str | None = None) -> Reply:
    """The reply in the decoded body of an answer that did not fail.

    Where there is an `output_tool`, the first call of this tool is the text of the answer. Raises `LLMResponseError`
    where the body holds no reply.
    """
    body = as_dict(body)
    output = body.get("output")
    if not isinstance(output, list):
        raise LLMResponseError(f"it has no output: {excerpt(body)}")
    parts: list[AnyPart] = []
    for item in map(as_dict, as_list(output)):
        parts.extend(_parts_of(item, parts))
    parts = _answered(parts, output_tool)
    status = body.get("status")
    if not parts and status in _UNFINISHED:
        raise LLMResponseError(f"it is not finished, its status is {status!r}: {excerpt(body)}")
    model, ident = body.get("model"), body.get("id")
    return Reply(
        message=ChatMessage(role="assistant", content=parts),
        finish_reason=_finish_reason(body, parts),
        usage=read_usage(body.get("usage")),
        model=str(model) if model else "",
        id=str(ident) if ident else None,
    )


def _answered(parts: list[AnyPart], output_tool: str | None) -> list[AnyPart]:
    """The parts with the first call of the output tool as text, and without others of it."""
    calls = [part.id for part in parts if isinstance(part, ToolCallPart) and part.name == output_tool]
    if not calls:
        return parts
    return [
        TextPart(text=part.arguments) if isinstance(part, ToolCallPart) and part.id == calls[0] else part
        for part in parts
        if not isinstance(part, ToolCallPart) or part.id not in calls[1:]
    ]


def _finish_reason(body: dict[str, Any], parts: list[AnyPart]) -> str:
    if body.get("status") == "incomplete":
        reason = str(as_dict(body.get("incomplete_details")).get("reason") or "length")
        return _REASONS.get(reason, reason)
    return "tool_calls" if any(isinstance(part, ToolCallPart) for part in parts) else "stop"


def _parts_of(item: dict[str, Any], before: list[AnyPart]) -> list[AnyPart]:
    match item.get("type"):
        case "message":
            return _spoken(item)
        case "reasoning":
            text = SECTIONS.join(text for _, _, text in sections_of(item) if text)
            ident, sealed = item.get("id"), item.get("encrypted_content")
            sealed = sealed if isinstance(sealed, str) and sealed else None
            known = ident if isinstance(ident, str) and ident else None
            return [ReasoningPart(text=text, id=known, encrypted=sealed)] if text or sealed else []
        case "function_call":
            return [_call(item, {part.id for part in before if isinstance(part, ToolCallPart)})]
        case _:  # what the server's own tools did
            return []


def _spoken(item: dict[str, Any]) -> list[AnyPart]:
    parts: list[AnyPart] = []
    for kind, _, text in sections_of(item):
        last = parts[-1] if parts else None
        if not text:
            continue
        if kind == "refusal":
            refused = last.text if isinstance(last, RefusalPart) else ""
            parts[-1:] = [RefusalPart(text=refused + text)] if refused else [*parts[-1:], RefusalPart(text=text)]
        else:
            said = last.text if isinstance(last, TextPart) else ""
            parts[-1:] = [TextPart(text=said + text)] if said else [*parts[-1:], TextPart(text=text)]
    return parts


def _call(item: dict[str, Any], taken: set[str]) -> ToolCallPart:
    name, ident = item.get("name"), known_id(item)
    if not isinstance(name, str) or not name:
        raise LLMResponseError(f"it calls a tool that it does not name: {excerpt(item)}")
    if not ident or ident in taken:  # without one of its own, its result could not be told from others'
        ident = call_id()
    ((_, _, arguments),) = sections_of(item)
    return ToolCallPart(id=ident, name=name, arguments=arguments)


def known_id(item: dict[str, Any]) -> str:
    """The id of a call, by which its result is known; "" where there is none."""
    ident = item.get("call_id") or item.get("id")
    return ident if isinstance(ident, str) else ""


def sections_of(item: dict[str, Any]) -> list[tuple[str, int, str]]:
    """The texts of an item, each with its kind and its number among those of its kind, from 0."""
    match item.get("type"):
        case "message":
            content: Any = item.get("content")
            if isinstance(content, str):
                return [("text", 0, well_formed(content))]
            parts = [as_dict(part) for part in as_list(content)]
            kinds = ["refusal" if part.get("refusal") else "text" for part in parts]
            return [(kind, at, _text(part, kind)) for at, (part, kind) in enumerate(zip(parts, kinds, strict=True))]
        case "reasoning":
            return [
                (kind, at, _text(as_dict(part), "text"))
                for kind in ("summary", "content")
                for at, part in enumerate(as_list(item.get(kind)))
            ]
        case "function_call":
            arguments = arguments_in(item)
            return [("arguments", 0, well_formed(arguments) if arguments.strip() else "{}")]
        case _:
            return []


def _text(part: dict[str, Any], name: str) -> str:
    text = part.get(name)
    return well_formed(text) if isinstance(text, str) else ""


def read_usage(said: Any) -> Usage:
    """The usage of one request, from the server's account of it."""
    said = as_dict(said)
    sent, got = as_dict(said.get("input_tokens_details")), as_dict(said.get("output_tokens_details"))
    return Usage(
        input_tokens=count_in(said, "input_tokens"),
        output_tokens=count_in(said, "output_tokens"),
        cached_tokens=count_in(sent, "cached_tokens"),
        cache_write_tokens=count_in(sent, "cache_write_tokens"),
        reasoning_tokens=count_in(got, "reasoning_tokens"),
        http_requests=1,
    )
