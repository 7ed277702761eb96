"""What the spans of clients' calls tell, before and after: here those of models and tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentflow.observe import Kind

from . import lookups, names, usage
from .cutting import clean, clean_again
from .messages import History, input_messages, output_message, tool_definitions

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

    from agentflow.observe import Operation
    from agentflow_agents.records import ToolExecution
    from agentflow_llm.records import ChatCall

    from .content import Teller
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


def name_of(op: Operation) -> str:
    """What the span of a call is named after: nothing that a model has made up."""
    return op.name if getattr(op.subject, "known", True) else names.OTHER


def begins(op: Operation, run: RunTrail | None, tell: Teller) -> Attributes:
    """What is known when a client's call begins; of a call without a record, its name."""
    subject = op.subject
    if op.kind is Kind.CHAT:
        known = hasattr(subject, "messages")
        return chat_begins(subject, run, tell) if known else {names.REQUEST_MODEL: op.name}
    if op.kind is Kind.TOOL:
        return tool_begins(name_of(op), subject, tell) if hasattr(subject, "arguments") else {names.TOOL_NAME: op.name}
    return lookups.begins(op, tell)


def ends(op: Operation, trail: Trail, error: BaseException | None, tell: Teller) -> Attributes:
    """What is known when it has ended."""
    if op.kind is Kind.CHAT:
        return chat_ends(op, trail, error, tell)
    return tool_ends(op, tell) if op.kind is Kind.TOOL else lookups.ends(op, trail, error, tell)


def chat_begins(call: ChatCall, run: RunTrail | None, tell: Teller) -> Attributes:
    """What is asked of a model. The run remembers it, so that its next chat tells only what is new."""
    made = usage.asked(call)
    if tell.may.parameters:
        made |= _parameters(call, tell)
    before = None if run is None else run.history
    history = History(call.messages, before, hashed=tell.may.input_messages)
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
    if call.tools and tell.may.tools:
        made[names.TOOL_DEFINITIONS], _ = tool_definitions(call, tell)
    if tell.may.input_messages:
        made |= _said(history, before, tell)
    return made


def _parameters(call: ChatCall, tell: Teller) -> Attributes:
    """What the request asks for; fields of a server's own too, where the conventions know them."""
    made: Attributes = {}
    for name, value in (*call.extra.items(), *call.parameters.items()):
        if name in _PARAMETERS and isinstance(value, int | float) and abs(value) < _LARGEST:  # of OTLP; NaN is not
            attribute, kind = _PARAMETERS[name]
            made[attribute] = kind(value)
    stop = call.parameters.get("stop")
    if stop and tell.may.inputs:  # they may be words of a prompt
        every = [stop] if isinstance(stop, str) else stop
        made[names.STOP_SEQUENCES] = tuple(tell.text(names.STOP_SEQUENCES, str(one), 256) for one in every)
    for name, attribute in (("reasoning", names.CHAT_REASONING), ("tool_choice", names.CHAT_TOOL_CHOICE)):
        value = call.parameters.get(name)
        if isinstance(value, str):
            made[attribute] = clean_again(value)
    if call.output is not None:
        made[names.OUTPUT_KIND] = "json"
    return made


def _said(history: History, before: History | None, tell: Teller) -> Attributes:
    known = 0 if before is None else before.shared(history.messages)
    known = min(known, max(0, len(history.messages) - 1))  # asked again, at least the last one is told again
    new = history.messages[known:]
    made: Attributes = {names.INPUT_MESSAGES: input_messages(new, tell)}
    if known and before is not None:
        made[names.HISTORY_COUNT] = known
        made[names.HISTORY_HASH] = before.hash_of(known)
        if before.span_id:
            made[names.HISTORY_SPAN] = before.span_id
    last: Any = next((message for message in reversed(new) if message.text or message.tool_results), None)
    if last is not None and tell.may.input_text:
        made |= tell.input(last.text or last.tool_results[-1].content, glance=True)
    return made


def chat_ends(op: Operation, trail: Trail, error: BaseException | None, tell: Teller) -> Attributes:
    """What a model answered, and what that took."""
    reply = op.result if hasattr(op.result, "usage") else None
    made = usage.took(trail, reply, error)
    if reply is None:
        return made
    if reply.id:
        made[names.RESPONSE_ID] = clean(reply.id, 256)
    if reply.finish_reason:
        made[names.FINISH_REASONS] = (clean_again(reply.finish_reason),)
    made[names.CHAT_ANSWER_SIZE] = len(reply.text)
    if reply.tool_calls:
        made[names.CHAT_TOOL_CALLS] = len(reply.tool_calls)
    if reply.refusal:
        made[names.CHAT_REFUSED] = True
    if tell.may.output_messages:
        made[names.OUTPUT_MESSAGES] = output_message(reply.message, reply.finish_reason, tell)
    if tell.may.output_text:
        shown = reply.text or reply.refusal or ", ".join(f"{call.name}({call.arguments})" for call in reply.tool_calls)
        made |= tell.output(shown, glance=True)
    return made


def tool_begins(name: str, call: ToolExecution, tell: Teller) -> Attributes:
    """Which tool is called, and with what."""
    made: Attributes = {
        names.TOOL_NAME: name,
        names.TOOL_TYPE: "function",
        names.TOOL_CALL_ID: clean(call.call_id, 256),
        names.TOOL_ARGUMENTS_SIZE: len(call.arguments),
    }
    if call.description:
        made[names.TOOL_DESCRIPTION] = clean_again(call.description, 1024)
    if tell.may.inputs:
        text, is_json = tell.text_or_json(names.TOOL_ARGUMENTS, call.arguments)
        made[names.TOOL_ARGUMENTS] = text
        made[names.INPUT] = tell.spend(text)
        made[names.INPUT_TYPE] = names.JSON if is_json else names.TEXT
    return made


def tool_ends(op: Operation, tell: Teller) -> Attributes:
    """What came of it."""
    made: Attributes = {}
    result = op.result
    outcome = getattr(result, "outcome", None)
    if isinstance(outcome, str):
        made[names.TOOL_OUTCOME] = outcome
    text = result if isinstance(result, str) else getattr(result, "content", None)
    if isinstance(text, str):
        made[names.TOOL_RESULT_SIZE] = len(text)
        if tell.may.outputs:
            shown = made[names.TOOL_RESULT] = tell.text(names.TOOL_RESULT, text)
            made[names.OUTPUT] = tell.spend(shown)
            made[names.OUTPUT_TYPE] = names.TEXT
    return made
