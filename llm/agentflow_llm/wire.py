"""Chat Completions as it goes over the wire: messages into JSON, and whatever servers answer into a `Reply`.

Many servers speak it, each with an accent. Reading is tolerant: what can only mean one thing is taken to
mean it; what is no reply at all raises `LLMResponseError`.
"""

from __future__ import annotations

import json
import re
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4
from weakref import ref

from .errors import LLMBadRequestError, LLMResponseError
from .loose import as_dict, as_list, excerpt, first, parsed, well_formed
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
from .output import strict_schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .messages import AnyPart
    from .output import OutputFormat, OutputMode
    from .records import ChatCall

_IN_WORDS = "Give the final answer as one JSON object and nothing else. It has to be valid under this JSON schema:\n"
_CALLS = {"tool_calls", "function_call"}
_GOOGLE = {"gcp.gemini", "gcp.vertex_ai", "gcp.gen_ai"}
_THOUGHTFUL = {"deepseek", *_GOOGLE}
"""Servers that want the thoughts back which led to calls."""
LONGEST_ID = 40
"""Characters of the id of a call that OpenAI's servers take."""
_is_name = re.compile(r"[a-zA-Z0-9_-]{1,64}").fullmatch
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]")
_LONGEST_NAME = 64
_SIGNED = "__thought__"
"""In the ids of a LiteLLM server, what Google signs a call with stands behind this. Without it the call is refused."""
_strict: dict[int, tuple[ref[ToolDefinition], dict[str, Any] | None]] = {}
"""By the id of a definition, it, and its strict schema."""


def render_request(
    call: ChatCall, *, max_tokens_as: str = "max_tokens", output_mode: OutputMode = "native"
) -> dict[str, Any]:
    """The body of a request. `max_tokens_as` is the server's name for that limit.

    `output_mode` says how the shape of the answer is asked for, where there is one; see `OpenAI`.
    """
    body: dict[str, Any] = {"model": call.model, "messages": render_messages(call.messages, call.provider, call.tools)}
    tools, choice = asked_tools(call, output_mode)
    if tools:
        body["tools"] = [render_tool(tool, output_mode) for tool in tools]
    if choice is not None:
        named = {"type": "function", "function": {"name": choice}}
        body["tool_choice"] = choice if choice in TOOL_CHOICES else named
    for name, value in call.parameters.items():
        if name == "max_tokens":
            body[max_tokens_as] = value
        elif name == "reasoning":
            body["reasoning_effort"] = value
        elif name != "tool_choice":
            body[name] = value
    if call.output is not None and output_mode == "native":
        body["response_format"] = {"type": "json_schema", "json_schema": rendered_format(call.output)}
    elif call.output is not None and output_mode == "prompt":
        ask_in_words(body["messages"], call.output)
    body.update(call.extra)
    return body


def check_extra(extra: Mapping[str, Any]) -> None:
    """Raise `LLMBadRequestError` for a further field of a request that is not the caller's to set."""
    if "stream" in extra:
        raise LLMBadRequestError(
            f"extra={{'stream': {extra['stream']!r}}}: how an answer comes is said by calling chat() or stream(). "
            "Leave it out."
        )


def output_tool(call: ChatCall, output_mode: OutputMode) -> str | None:
    """The name of the tool whose call is the answer; None where no shape is asked for as a tool."""
    if call.output is None or output_mode != "tool":
        return None
    taken = {tool.name for tool in call.tools}
    name = call.output.name
    while name in taken:
        name = f"{name}_"
    return name


def asked_tools(call: ChatCall, output_mode: OutputMode) -> tuple[Sequence[ToolDefinition], str | None]:
    """The tools that a request has, and the choice among them, if it says one."""
    choice: str | None = call.parameters.get("tool_choice")
    name = output_tool(call, output_mode)
    if name is None or call.output is None:
        return call.tools, choice if call.tools or choice not in TOOL_CHOICES else None  # none among no tools
    tool = ToolDefinition(
        name=name, description="Gives the final answer, as its arguments.", parameters={**call.output.schema}
    )
    if not call.tools or choice == "none":
        choice = name
    elif choice is None or choice in TOOL_CHOICES:  # a tool that is asked for by name comes first
        choice = "required"
    return [*call.tools, tool], choice


def rendered_format(output: OutputFormat) -> dict[str, Any]:
    """The shape of an answer as a server keeps to it, strictly where it can be said so."""
    strict = strict_schema(output.schema)
    return {"name": output.name, "schema": strict or output.schema, "strict": strict is not None}


def ask_in_words(messages: list[dict[str, Any]], output: OutputFormat) -> None:
    """Ask for the shape of an answer in the messages of a request, as they are in a body."""
    schema = json.dumps(output.schema, ensure_ascii=False)
    told = f"{_IN_WORDS}{well_formed(schema)}"
    # in the first message, if it is the system's: many servers take no other of the system
    if messages and messages[0].get("role") == "system" and isinstance(messages[0]["content"], str):
        messages[0]["content"] += f"\n\n{told}"
    else:
        messages.insert(0, {"role": "system", "content": told})


def asked_in_words(messages: Iterable[ChatMessage]) -> dict[str, Any] | None:
    """The schema that messages ask for in the words of `ask_in_words`, or None."""
    told = (message.text.partition(_IN_WORDS)[2] for message in messages if message.role == "system")
    return next((schema for schema in map(as_dict, map(parsed, told)) if schema), None)


def render_messages(
    messages: Iterable[ChatMessage], provider: str = "", tools: Sequence[ToolDefinition] = ()
) -> list[dict[str, Any]]:
    """Messages as the wire has them: each tool result is one of its own.

    The model's thoughts are left out, but for a `provider` that refuses calls without those that led to them. What
    models call tools and calls is made such that servers take it back, but for the names of `tools` that there are.
    """
    rendered: list[dict[str, Any]] = []
    for message in messages:
        content = message.content
        part = content[0] if len(content) == 1 else None  # nearly all are
        if type(part) is TextPart:
            rendered.append({"role": message.role, "content": well_formed(part.text)})
        elif type(part) is ToolResultPart and message.role == "tool":
            rendered.append(_render_result(part))
        elif type(part) is ToolCallPart and provider not in _THOUGHTFUL:
            rendered.append({"role": message.role, "tool_calls": [_render_call(part, tools)]})
        else:
            rendered.extend(_render_parts(message, provider, tools))
    return rendered


def _render_parts(message: ChatMessage, provider: str, tools: Sequence[ToolDefinition]) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = []  # texts and pictures
    calls: list[dict[str, Any]] = []
    rendered: list[dict[str, Any]] = []
    for part in message.content:
        match part:
            case TextPart() | RefusalPart():  # as content, a refusal is understood by every server
                said.append({"type": "text", "text": well_formed(part.text)})
            case ImagePart():
                detail = {"detail": part.detail} if part.detail else {}
                said.append({"type": "image_url", "image_url": {"url": part.url, **detail}})
            case ToolCallPart():
                calls.append(_render_call(part, tools))
            case ToolResultPart():
                rendered.append(_render_result(part))
            case ReasoningPart():  # most servers that give it do not want it back
                pass
    if said or calls or not rendered:
        # what a tool's message holds beside its results, such as a picture, only a user can say
        whole: dict[str, Any] = {"role": "user" if rendered and message.role == "tool" else message.role}
        if said or not calls:
            whole["content"] = _render_content(said)
        if calls:
            whole["tool_calls"] = calls
            _add_thoughts(whole, message, provider)
        rendered.append(whole)
    return rendered


def _render_call(part: ToolCallPart, tools: Sequence[ToolDefinition]) -> dict[str, Any]:
    function = {"name": name_to_send(part.name, tools), "arguments": well_formed(part.arguments)}
    return {"id": id_to_send(part.id), "type": "function", "function": function}


def name_to_send(name: str, tools: Iterable[ToolDefinition]) -> str:
    """The name of a call in a request: models call `multi_tool_use.parallel`, and servers refuse to hear of it."""
    if _is_name(name) or any(tool.name == name for tool in tools):
        return name
    return _NOT_IN_NAMES.sub("_", name)[:_LONGEST_NAME] or "unknown"


def id_to_send(ident: str, longest: int = LONGEST_ID) -> str:
    """The id of a call in a request, the same each time: many servers make ids that others refuse as too long."""
    if (len(ident) <= longest or _SIGNED in ident) and well_formed(ident) == ident:
        return ident
    return f"call_{sha256(ident.encode(errors='surrogatepass')).hexdigest()[:32]}"


def _render_result(part: ToolResultPart) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id_to_send(part.call_id), "content": well_formed(part.content)}


def _add_thoughts(whole: dict[str, Any], message: ChatMessage, provider: str) -> None:
    """Give back the thoughts that led to calls, to the servers that refuse the calls without them."""
    thoughts = [part for part in message.content if isinstance(part, ReasoningPart)]
    if provider == "deepseek":
        whole["reasoning_content"] = well_formed("".join(part.text for part in thoughts))
    elif provider in _GOOGLE:
        signatures = {id_to_send(part.id): part.encrypted for part in thoughts if part.id and part.encrypted}
        for call in whole["tool_calls"]:
            if call["id"] in signatures:
                call["extra_content"] = {"google": {"thought_signature": signatures[call["id"]]}}


def _render_content(said: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """A string where there is only text: every server takes that."""
    texts = [part["text"] for part in said if part["type"] == "text"]
    return "".join(texts) if len(texts) == len(said) else said


def render_tool(tool: ToolDefinition, output_mode: OutputMode) -> dict[str, Any]:
    """A tool as the wire has it."""
    described = {"description": well_formed(tool.description)} if tool.description else {}
    parameters, strict = rendered_parameters(tool, output_mode)
    function = {"name": tool.name, **described, "parameters": parameters}
    return {"type": "function", "function": {**function, "strict": True} if strict else function}


def rendered_parameters(tool: ToolDefinition, output_mode: OutputMode) -> tuple[dict[str, Any], bool]:
    """What a tool takes, and whether the server is to keep to it strictly: where it does so with an answer's shape."""
    strict = _strict_parameters(tool) if tool.strict and output_mode == "native" else None
    return (tool.parameters, False) if strict is None else (strict, True)


def _strict_parameters(tool: ToolDefinition) -> dict[str, Any] | None:
    """The strict schema of a definition, which goes with every request: made once."""
    known = _strict.get(id(tool))
    if known is None or known[0]() is not tool:  # another may have had its id
        known = _strict[id(tool)] = ref(tool, partial(_forget, id(tool))), strict_schema(tool.parameters)
    return known[1]


def _forget(key: int, _: object) -> None:
    _strict.pop(key, None)


def read_reply(body: Any, *, output_tool: str | None = None) -> Reply:
    """The reply in the decoded body of an answer, which has no `error`. Choice 0 is the reply.

    Where there is an `output_tool`, the first call of this tool is the text of the answer. Raises `LLMResponseError`
    where the body holds no reply.
    """
    body = as_dict(body)
    choice = as_dict(first(body.get("choices")))
    message = choice.get("message")
    if not isinstance(message, dict):
        raise LLMResponseError(f"it has no message: {excerpt(body)}")
    message = as_dict(message)
    said, given = read_said(message), calls_in(message)
    calls = read_calls(given)
    answers = [call.arguments for call in calls if call.name == output_tool]
    if answers:
        said = said._replace(text=said.text + answers[0])
    return make_reply(
        said,
        [(call, signature_in(one)) for call, one in zip(calls, given, strict=True) if call.name != output_tool],
        answered=bool(answers),
        finish_reason=choice.get("finish_reason"),
        usage=usage_in(body, choice),
        model=body.get("model"),
        ident=body.get("id"),
    )


def make_reply(  # noqa: PLR0913 because a reply has this many sides
    said: Said,
    calls: Sequence[tuple[ToolCallPart, str | None]],
    *,
    answered: bool,
    finish_reason: Any,
    usage: Any,
    model: Any,
    ident: Any,
) -> Reply:
    """The reply that is made of these, be they from one body or put together from a stream.

    `calls` come with their signatures, where they have one: a `ReasoningPart` with the id of the call keeps it.
    `answered`: the output tool was called, so that the model has come to its end.
    """
    if answered and not calls and finish_reason in _CALLS:
        finish_reason = "stop"
    reasoning, text, refusal = map(well_formed, said)
    parts = (ReasoningPart(text=reasoning), TextPart(text=text), RefusalPart(text=refusal))
    content: list[AnyPart] = [ReasoningPart(text="", id=call.id, encrypted=seal) for call, seal in calls if seal]
    content += [part for part in parts if part.text]
    return Reply(
        message=ChatMessage(role="assistant", content=[*content, *(call for call, _ in calls)]),
        finish_reason=str(finish_reason) if finish_reason else None,
        usage=read_usage(usage),
        model=str(model) if model else "",
        id=str(ident) if ident else None,
    )


class Said(NamedTuple):
    """What a message, or a piece of one, says."""

    reasoning: str
    text: str
    refusal: str


def read_said(message: dict[str, Any]) -> Said:
    """What a message says, or a piece of one."""
    content = message.get("content")
    reasoning = message.get("reasoning_content") or message.get("reasoning") or message.get("reasoning_details")
    thought = text_in(reasoning) or "".join(text_in(as_dict(part).get("thinking")) for part in as_list(content))
    return Said(thought, text_in(content), text_in(message.get("refusal")))


def text_in(content: Any) -> str:
    """The text of a content: a string, or a list of parts, as Mistral and OpenRouter send."""
    if isinstance(content, str):
        return content
    parts: list[Any] = [content] if isinstance(content, dict) else as_list(content)
    texts = (part if isinstance(part, str) else _text_of_part(as_dict(part)) for part in parts)
    return "".join(text for text in texts if isinstance(text, str))


def _text_of_part(part: dict[str, Any]) -> Any:
    return part.get("text") or part.get("summary") or part.get("refusal")


def calls_in(message: dict[str, Any]) -> list[Any]:
    """The tool calls of a message, or their pieces; the one that the old form of the wire has as well."""
    calls = as_list(message.get("tool_calls"))
    if calls:
        return calls
    function = message.get("function_call")
    return [{"function": function}] if isinstance(function, dict) else []


def read_calls(given: Iterable[Any]) -> list[ToolCallPart]:
    """The tool calls of a message, as `calls_in` has them. Raises `LLMResponseError` where one has no name."""
    calls: list[ToolCallPart] = []
    for call in map(as_dict, given):
        function = as_dict(call.get("function"))
        name, ident = function.get("name"), call.get("id")
        arguments = arguments_in(function)
        if not isinstance(name, str) or not name:
            raise LLMResponseError(f"it calls a tool that it does not name: {excerpt(call)}")
        if not isinstance(ident, str) or not ident or any(ident == other.id for other in calls):
            ident = call_id()  # without one of its own, its result could not be told from others'
        calls.append(ToolCallPart(id=ident, name=name, arguments=well_formed(arguments) if arguments.strip() else "{}"))
    return calls


def signature_in(call: Any) -> str | None:
    """What Google signs a call with, or None. It refuses the call in a later request without it."""
    signature = as_dict(as_dict(as_dict(call).get("extra_content")).get("google")).get("thought_signature")
    return signature if isinstance(signature, str) else None


def arguments_in(function: dict[str, Any]) -> str:
    """The arguments of a call as JSON text: some servers send an object, or null for none."""
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        return arguments
    return json.dumps(arguments, ensure_ascii=False) if arguments else ""


def call_id() -> str:
    """An id for a call that the server gave none."""
    return f"call_{uuid4().hex[:24]}"


def usage_in(body: dict[str, Any], choice: dict[str, Any]) -> Any:
    """The account of the usage in an answer or a chunk: Moonshot has it in the choice, Groq in a field of its own."""
    groq = body.get("x_groq")
    return body.get("usage") or choice.get("usage") or (as_dict(groq).get("usage") if groq else None)


def ignored_choices(body: Any) -> int:
    """How many answers there are beside the first."""
    return max(0, len(as_list(as_dict(body).get("choices"))) - 1)


def read_usage(said: Any) -> Usage:
    """The usage of one request, from the server's account of it."""
    said = as_dict(said)
    sent, got = as_dict(said.get("prompt_tokens_details")), as_dict(said.get("completion_tokens_details"))
    cached = count_in(sent, "cached_tokens")
    asked, answered = count_in(said, "prompt_tokens"), count_in(said, "completion_tokens")
    total = count_in(said, "total_tokens")
    if asked is not None and answered is not None and total is not None:
        answered = max(answered, total - asked)  # Gemini and xAI leave thoughts out of the completion
    return Usage(
        input_tokens=asked,
        output_tokens=answered,
        cached_tokens=count_in(said, "prompt_cache_hit_tokens") if cached is None else cached,
        cache_write_tokens=count_in(sent, "cache_write_tokens"),
        reasoning_tokens=count_in(got, "reasoning_tokens"),
        http_requests=1,
    )


def count_in(said: Mapping[str, Any], name: str) -> int | None:
    """A number of the server's account, or None where it has none that can be."""
    value = said.get(name)
    return int(value) if isinstance(value, int | float) and value >= 0 else None
