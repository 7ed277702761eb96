"""What the spans of model calls, tool calls and retrievals tell, before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentflow.observe import Kind

from . import names
from .content import LIMITS, clean, clean_again, json_text
from .messages import History, documents, input_messages, output_message, tool_definitions

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

    from agentflow.observe import Operation
    from agentflow_agents.records import ToolExecution
    from agentflow_llm.records import ChatCall, Passage, RetrievalCall

    from .content import Content
    from .trail import RunTrail, Trail

Attributes = dict[str, "AttributeValue"]

_MODELS = frozenset({Kind.CHAT, Kind.EMBEDDINGS, Kind.RERANK})
_PARAMETERS = {
    "temperature": (names.TEMPERATURE, float),
    "top_p": (names.TOP_P, float),
    "top_k": (names.TOP_K, float),
    "max_tokens": (names.MAX_TOKENS, int),
    "max_completion_tokens": (names.MAX_TOKENS, int),
    "frequency_penalty": (names.FREQUENCY_PENALTY, float),
    "presence_penalty": (names.PRESENCE_PENALTY, float),
    "seed": (names.SEED, int),
}
_USAGE = (
    (names.INPUT_TOKENS, "input_tokens"),
    (names.OUTPUT_TOKENS, "output_tokens"),
    (names.CACHE_READ_TOKENS, "cached_tokens"),
    (names.CACHE_WRITE_TOKENS, "cache_write_tokens"),
    (names.REASONING_TOKENS, "reasoning_tokens"),
    (names.REASONING_COUNT, "reasoning_tokens"),
)


def begins(op: Operation, run: RunTrail | None, content: Content) -> Attributes:
    """What is known when a client's call begins; of a call without a record, its name."""
    subject = op.subject
    if op.kind is Kind.CHAT and hasattr(subject, "messages"):
        return chat_begins(subject, run, content)
    if op.kind is Kind.TOOL:
        return tool_begins(op.name, subject, content) if hasattr(subject, "arguments") else {names.TOOL_NAME: op.name}
    if op.kind is Kind.RETRIEVAL and hasattr(subject, "query"):
        return retrieval_begins(subject, content)
    return {names.REQUEST_MODEL: op.name} if op.kind in _MODELS else {}


def ends(op: Operation, trail: Trail, content: Content) -> Attributes:
    """What is known when it has ended."""
    if op.kind is Kind.CHAT:
        return chat_ends(op, trail, content)
    if op.kind is Kind.TOOL:
        return tool_ends(op, content)
    return retrieval_ends(op, content) if op.kind is Kind.RETRIEVAL else {}


def chat_begins(call: ChatCall, run: RunTrail | None, content: Content) -> Attributes:
    """What is asked of a model. The run remembers it, so that its next chat tells only what is new."""
    made: Attributes = {names.PROVIDER: call.provider, names.REQUEST_MODEL: call.model}
    for name, value in call.parameters.items():
        if name in _PARAMETERS and isinstance(value, int | float):
            attribute, kind = _PARAMETERS[name]
            made[attribute] = kind(value)
    stop = call.parameters.get("stop")
    if stop:
        made[names.STOP_SEQUENCES] = [clean(str(one), 256) for one in ([stop] if isinstance(stop, str) else stop)]
    if call.server_address:
        made[names.SERVER_ADDRESS] = call.server_address
        if call.server_port:
            made[names.SERVER_PORT] = call.server_port
    before = None if run is None else run.history
    history = History(call.messages, before, hashed=content != "none")
    if run is not None:
        run.history = history
    made[names.CHAT_MESSAGES] = len(history.messages)
    made[names.CHAT_SIZE] = history.size
    if call.tools:
        made[names.CHAT_TOOLS] = len(call.tools)
    if content != "none":
        made |= _said(call, history, before, content)
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


def chat_ends(op: Operation, trail: Trail, content: Content) -> Attributes:
    """What a model answered, and what that took."""
    retries = (trail.counts or {}).get("retry", 0)
    made: Attributes = {}
    if retries:
        made[names.CHAT_RETRY_WAIT] = trail.wait
        made[names.CHAT_ATTEMPTS] = retries + 1
    reply = op.result
    if reply is None or not hasattr(reply, "usage"):
        return made
    if reply.usage.http_requests:
        made[names.CHAT_ATTEMPTS] = reply.usage.http_requests
    if reply.id:
        made[names.RESPONSE_ID] = clean(reply.id, 256)
    if reply.model:
        made[names.RESPONSE_MODEL] = clean_again(reply.model)
    if reply.finish_reason:
        made[names.FINISH_REASONS] = [clean_again(reply.finish_reason)]
    made |= _tokens(reply.usage)
    made[names.CHAT_ANSWER_SIZE] = len(reply.text)
    if reply.tool_calls:
        made[names.CHAT_TOOL_CALLS] = len(reply.tool_calls)
    if content != "none":
        made[names.OUTPUT_MESSAGES] = output_message(reply.message, reply.finish_reason, LIMITS[content])
        shown = reply.text or ", ".join(f"{call.name}({call.arguments})" for call in reply.tool_calls)
        made[names.OUTPUT] = clean(shown, LIMITS["preview"].value)
        made[names.OUTPUT_TYPE] = names.TEXT
    return made


def _tokens(usage: Any) -> Attributes:
    made: Attributes = {name: tokens for name, field in _USAGE if (tokens := getattr(usage, field)) is not None}
    if usage.input_tokens is None and usage.output_tokens is None:
        made[names.USAGE_MISSING] = True
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


def retrieval_begins(call: RetrievalCall, content: Content) -> Attributes:
    """What is looked for, and where."""
    made: Attributes = {
        names.DATA_SOURCE: clean_again(call.source),
        names.TOP_K: call.top_k,
        names.QUERY_SIZE: len(call.query),
    }
    if content != "none":
        made[names.QUERY] = made[names.INPUT] = clean(call.query, LIMITS[content].value)
        made[names.INPUT_TYPE] = names.TEXT
    return made


def retrieval_ends(op: Operation, content: Content) -> Attributes:
    """What was found."""
    found: list[Passage] | None = op.result
    if not isinstance(found, list):
        return {}
    made: Attributes = {names.DOCUMENT_COUNT: len(found)}
    if content != "none":
        made[names.DOCUMENTS], missing = documents(found, LIMITS[content])
        if missing:
            made[names.TRUNCATED] = True
    return made
