"""What the spans of clients' calls tell, before and after: here those of models and tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentflow.observe import Kind

from . import lookups, names, usage
from .content import LIMITS, clean, clean_again, json_text
from .messages import History, input_messages, output_message, tool_definitions

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

    from agentflow.observe import Operation
    from agentflow_agents.records import ToolExecution
    from agentflow_llm.records import ChatCall

    from .content import Content
    from .trail import RunTrail, Trail

Attributes = dict[str, "AttributeValue"]

_LARGEST = 1 << 63
_PARAMETERS = {
    "temperature": (names.TEMPERATURE, float),
    "top_p": (names.TOP_P, float),
    "top_k": (names.TOP_K, float),
    "max_tokens": (names.MAX_TOKENS, int),
    "max_completion_tokens": (names.MAX_TOKENS, int),
    "frequency_penalty": (names.FREQUENCY_PENALTY, float),
    "presence_penalty": (names.PRESENCE_PENALTY, float),
    "seed": (names.SEED, int),
    "n": (names.CHOICE_COUNT, int),
}


def begins(op: Operation, run: RunTrail | None, content: Content) -> Attributes:
    """What is known when a client's call begins; of a call without a record, its name."""
    subject = op.subject
    if op.kind is Kind.CHAT:
        known = hasattr(subject, "messages")
        return chat_begins(subject, run, content) if known else {names.REQUEST_MODEL: op.name}
    if op.kind is Kind.TOOL:
        return tool_begins(op.name, subject, content) if hasattr(subject, "arguments") else {names.TOOL_NAME: op.name}
    return lookups.begins(op, content)


def ends(op: Operation, trail: Trail, error: BaseException | None, content: Content) -> Attributes:
    """What is known when it has ended."""
    if op.kind is Kind.CHAT:
        return chat_ends(op, trail, error, content)
    return tool_ends(op, content) if op.kind is Kind.TOOL else lookups.ends(op, trail, error, content)


def chat_begins(call: ChatCall, run: RunTrail | None, content: Content) -> Attributes:
    """What is asked of a model. The run remembers it, so that its next chat tells only what is new."""
    made = usage.asked(call) | _parameters(call)
    before = None if run is None else run.history
    history = History(call.messages, before, hashed=content != "none")
    if run is not None:
        run.history = history
    made[names.CHAT_MESSAGES] = len(history.messages)
    made[names.CHAT_SIZE] = history.size
    if call.streamed:
        made[names.STREAM] = True
    if call.tools:
        made[names.CHAT_TOOLS] = len(call.tools)
    if history.images:
        made[names.CHAT_IMAGES] = history.images
        made[names.CHAT_IMAGES_SIZE] = history.image_size
    if content != "none":
        made |= _said(call, history, before, content)
    return made


def _parameters(call: ChatCall) -> Attributes:
    """What the request asks for; fields of a server's own too, where the conventions know them."""
    made: Attributes = {}
    for name, value in (*call.extra.items(), *call.parameters.items()):
        if name in _PARAMETERS and isinstance(value, int | float) and abs(value) < _LARGEST:  # of OTLP; NaN is not
            attribute, kind = _PARAMETERS[name]
            made[attribute] = kind(value)
    stop = call.parameters.get("stop")
    if stop:
        made[names.STOP_SEQUENCES] = [clean(str(one), 256) for one in ([stop] if isinstance(stop, str) else stop)]
    for name, attribute in (("reasoning", names.CHAT_REASONING), ("tool_choice", names.CHAT_TOOL_CHOICE)):
        value = call.parameters.get(name)
        if isinstance(value, str):
            made[attribute] = clean_again(value)
    if call.output is not None:
        made[names.OUTPUT_KIND] = "json"
    return made


def _said(call: ChatCall, history: History, before: History | None, content: Content) -> Attributes:
    limits = LIMITS[content]
    known = 0 if before is None else before.shared(history.messages)
    new = history.messages[known:]
    text, missing = input_messages(new, limits)
    made: Attributes = {names.INPUT_MESSAGES: text}
    if missing:
        made[names.TRUNCATED] = True
    if known and before is not None:
        made[names.HISTORY_COUNT] = known
        made[names.HISTORY_HASH] = before.hash_of(known)
        if before.span_id:
            made[names.HISTORY_SPAN] = before.span_id
    if call.tools:
        made[names.TOOL_DEFINITIONS], _ = tool_definitions(call, limits)
    last: Any = next((message for message in reversed(new) if message.text or message.tool_results), None)
    if last is not None:
        shown = last.text or last.tool_results[-1].content
        made[names.INPUT] = clean(shown, LIMITS["preview"].value)
        made[names.INPUT_TYPE] = names.TEXT
    return made


def chat_ends(op: Operation, trail: Trail, error: BaseException | None, content: Content) -> Attributes:
    """What a model answered, and what that took."""
    reply = op.result if hasattr(op.result, "usage") else None
    made = usage.took(trail, reply, error)
    if reply is None:
        return made
    if reply.id:
        made[names.RESPONSE_ID] = clean(reply.id, 256)
    if reply.finish_reason:
        made[names.FINISH_REASONS] = [clean_again(reply.finish_reason)]
    made[names.CHAT_ANSWER_SIZE] = len(reply.text)
    if reply.tool_calls:
        made[names.CHAT_TOOL_CALLS] = len(reply.tool_calls)
    if reply.refusal:
        made[names.CHAT_REFUSED] = True
    if content != "none":
        made[names.OUTPUT_MESSAGES] = output_message(reply.message, reply.finish_reason, LIMITS[content])
        shown = reply.text or reply.refusal or ", ".join(f"{call.name}({call.arguments})" for call in reply.tool_calls)
        made[names.OUTPUT] = clean(shown, LIMITS["preview"].value)
        made[names.OUTPUT_TYPE] = names.TEXT
    return made


def tool_begins(name: str, call: ToolExecution, content: Content) -> Attributes:
    """Which tool is called, and with what."""
    made: Attributes = {
        names.TOOL_NAME: name,
        names.TOOL_TYPE: "function",
        names.TOOL_CALL_ID: clean(call.call_id, 256),
        names.TOOL_ARGUMENTS_SIZE: len(call.arguments),
    }
    if call.description:
        made[names.TOOL_DESCRIPTION] = clean_again(call.description, LIMITS["preview"].text)
    if content != "none":
        text, is_json = json_text(call.arguments, LIMITS[content].value)
        made[names.TOOL_ARGUMENTS] = made[names.INPUT] = text
        made[names.INPUT_TYPE] = names.JSON if is_json else names.TEXT
    return made


def tool_ends(op: Operation, content: Content) -> Attributes:
    """What came of it."""
    made: Attributes = {}
    result = op.result
    outcome = getattr(result, "outcome", None)
    if isinstance(outcome, str):
        made[names.TOOL_OUTCOME] = outcome
    text = result if isinstance(result, str) else getattr(result, "content", None)
    if isinstance(text, str):
        made[names.TOOL_RESULT_SIZE] = len(text)
        if content != "none":
            made[names.TOOL_RESULT] = made[names.OUTPUT] = clean(text, LIMITS[content].value)
            made[names.OUTPUT_TYPE] = names.TEXT
    return made
