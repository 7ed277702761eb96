"""Every attribute that a span, an event of a span or a link may have: its type, its values, what it means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from agentflow.observe import Outcome

from . import names

Shape = Literal["", "messages", "answer", "documents", "tools"]
"""What JSON an attribute holds, where it always holds JSON."""

OUTCOMES: tuple[str, ...] = get_args(Outcome)
_MIME = (names.TEXT, names.JSON)


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute. `type`: str, bool, int, float, or tuple for a list of texts."""

    name: str
    """With `N` where it has a number."""
    type: type
    means: str
    values: tuple[str, ...] = ()
    """All that there are, where that is known."""
    content: bool = False
    """Does it go out only where content does?"""
    shape: Shape = ""


def _text(name: str, means: str, *values: str) -> Attribute:
    return Attribute(name, str, means, values)


def _content(name: str, means: str, shape: Shape = "") -> Attribute:
    return Attribute(name, str, means, content=True, shape=shape)


def _list(name: str, means: str, *, content: bool = False) -> Attribute:
    return Attribute(name, tuple, means, content=content)


def _count(name: str, means: str) -> Attribute:
    return Attribute(name, int, means)


def _number(name: str, means: str, *, content: bool = False) -> Attribute:
    return Attribute(name, float, means, content=content)


def _flag(name: str, means: str) -> Attribute:
    return Attribute(name, bool, means)


_SPANS = (
    # what every span may tell
    _text(names.SPAN_KIND, "what the span is to Phoenix"),
    _text(names.OPERATION, "what the span is to OpenTelemetry's conventions"),
    _text(names.OUTCOME, "how it ended", *OUTCOMES),
    _text(names.ERROR_TYPE, "the class of the error that ended it, or `timeout`"),
    _text(names.RUN_ID, "the run that it belongs to"),
    _text(names.WORKFLOW, "the workflow that runs"),
    _text(names.WORKFLOW_OF, "the workflow whose step or event it is"),
    _text(names.SESSION, "the conversation that it belongs to; the run's id where nobody said one"),
    _text(names.USER, "on whose behalf it is"),
    _text(names.CONVERSATION, "the conversation, where one was said"),
    _count(names.NOTES_LEFT_OUT, "what was noted on it and is no event of the span, because there were many"),
    _flag(names.TRUNCATED, "some of its texts were cut, or messages or documents left out"),
    _text(names.REDACTION_ERROR, "the class of the error of a redactor that failed; its text did not go out"),
    _content(names.INPUT, "what went in, at a glance"),
    _content(names.OUTPUT, "what came out, at a glance"),
    Attribute(names.INPUT_TYPE, str, "what `input.value` is", _MIME, content=True),
    Attribute(names.OUTPUT_TYPE, str, "what `output.value` is", _MIME, content=True),
    # runs
    _count(names.SEGMENT, "1, and one more each time that the run goes on after a pause"),
    _text(names.RESUMED_FROM, "the trace of the segment before"),
    _text(names.CONTINUES, "the run that had ended, and with whose state this one began"),
    _text(names.FORKED_FROM, "the run at whose checkpoint this one began"),
    _count(names.STREAMED, "events that were put on the stream"),
    _text(names.AGENT, "the agent that runs"),
    _text(names.STOPPED_BY, "what ended the agent: `answer`, `tool`, `handoff`, or the limit that was reached"),
    _text(names.HANDED_TO, "the colleague that goes on"),
    _count(names.CALLS_FAILED, "calls of tools that failed"),
    _count(names.CALLS_LATE, "calls of tools that took too long"),
    _count(names.CALLS_REFUSED, "calls of tools that a person refused"),
    _count(names.CALLS_SKIPPED, "calls of tools that were not executed"),
    # steps and events
    _text(names.STEP, "the step"),
    _count(names.ATTEMPT, "1, and one more for each retry"),
    _text(names.EVENT_TYPE, "the class of the event"),
    _number(names.QUEUE_WAIT, "seconds from sent to taken up"),
    _list(names.TRIGGERED_BY, "each event that triggered it, as `step:Event span-id`"),
    _count(names.COLLECTED, "events that it collected"),
    _list(names.ASKED, "the types of the events by which it asks a person"),
    _list(names.ASKED_TOOLS, "the tools that a person is asked to approve of"),
    _text(names.APPROVAL, "what the person said", "approved", "edited", "refused"),
    # models
    _text(names.PROVIDER, "whose API is called"),
    _text(names.REQUEST_MODEL, "the model that was asked"),
    _text(names.RESPONSE_MODEL, "the model that answered"),
    _text(names.MODEL_SHOWN, "the same, where a fallback answered: whose price the call has"),
    _text(names.SERVER_ADDRESS, "the host that is asked"),
    _count(names.SERVER_PORT, "its port"),
    _number(names.TEMPERATURE, "as the request has it"),
    _number(names.TOP_P, "as the request has it"),
    _number(names.TOP_K, "of a retrieval as well: how many passages are wanted"),
    _count(names.MAX_TOKENS, "as the request has it"),
    _number(names.FREQUENCY_PENALTY, "as the request has it"),
    _number(names.PRESENCE_PENALTY, "as the request has it"),
    _count(names.SEED, "as the request has it"),
    _list(names.STOP_SEQUENCES, "as the request has it"),
    _count(names.CHOICE_COUNT, "as the request has it"),
    _flag(names.STREAM, "the answer comes in pieces"),
    _text(names.OUTPUT_KIND, "what the answer is asked to be", "json", "text"),
    _text(names.CHAT_REASONING, "how much the model is to think"),
    _text(names.CHAT_TOOL_CHOICE, "whether the model must call tools, and which"),
    _text(names.RESPONSE_ID, "the server's name for the answer"),
    _list(names.FINISH_REASONS, "why the model stopped"),
    _number(names.FIRST_CHUNK, "seconds to the first piece of a streamed answer, retries included"),
    _count(names.INPUT_TOKENS, "those from the cache included"),
    _count(names.OUTPUT_TOKENS, "those of reasoning included"),
    _count(names.CACHE_READ_TOKENS, "tokens that the server had in its cache"),
    _count(names.CACHE_WRITE_TOKENS, "tokens that it put there"),
    _count(names.REASONING_TOKENS, "tokens of reasoning"),
    _count(names.REASONING_COUNT, "the same, for Phoenix"),
    _number(names.LLM_COST, "US dollars, where the price is known"),
    _number(names.COST_SHOWN, "the same, for Phoenix"),
    _flag(names.USAGE_MISSING, "the server did not say what it took"),
    _count(names.LLM_REQUESTS, "HTTP requests that the call took, those that failed included"),
    _count(names.LLM_ATTEMPTS, "how often it was tried, where it was retried"),
    _number(names.LLM_RETRY_WAIT, "seconds waited between attempts, together"),
    _number(names.LLM_LIMIT_WAIT, "seconds waited for our own rate limit, together"),
    _count(names.LLM_FALLBACKS, "models that failed before the one that answered"),
    _flag(names.LLM_CACHE_HIT, "the answer, or a part of it, came from a cache of ours"),
    _text(names.LLM_REQUEST_ID, "the server's name for a request that failed"),
    _count(names.HTTP_STATUS, "what a server said of a request that failed"),
    _count(names.CHAT_MESSAGES, "messages of the request"),
    _count(names.CHAT_SIZE, "characters in all of them"),
    _count(names.CHAT_TOOLS, "tools that the model may call"),
    _count(names.CHAT_IMAGES, "pictures in the request"),
    _count(names.CHAT_IMAGES_SIZE, "bytes of those that it holds itself"),
    _count(names.CHAT_ANSWER_SIZE, "characters of the answer"),
    _count(names.CHAT_TOOL_CALLS, "tool calls that the answer asks for"),
    _flag(names.CHAT_REFUSED, "the model refused to answer"),
    _count(names.CHAT_REPAIRS, "how often the model was asked to correct its output"),
    _count(names.CHOICES_IGNORED, "answers beside the first"),
    Attribute(names.HISTORY_COUNT, int, "messages left out, as earlier chats of the run have them", content=True),
    _content(names.HISTORY_HASH, "the hash of these"),
    _content(names.HISTORY_SPAN, "the chat that has the last of them"),
    _content(names.INPUT_MESSAGES, "the messages that are new", "messages"),
    _content(names.OUTPUT_MESSAGES, "the answer", "answer"),
    _content(names.TOOL_DEFINITIONS, "the tools that the model may call", "tools"),
    # tools
    _text(names.TOOL_NAME, "the tool"),
    _text(names.TOOL_TYPE, "what kind of tool", "function", "extension", "datastore"),
    _text(names.TOOL_CALL_ID, "the model's name for the call"),
    _text(names.TOOL_DESCRIPTION, "what the model is told of it"),
    _count(names.TOOL_ARGUMENTS_SIZE, "characters of the arguments"),
    _count(names.TOOL_RESULT_SIZE, "characters of the result"),
    _text(names.TOOL_OUTCOME, "what became of the call", "ok", "error", "timeout", "cancelled", "refused", "skipped"),
    _content(names.TOOL_ARGUMENTS, "what it was called with"),
    _content(names.TOOL_RESULT, "what it returned"),
    # embeddings, retrievals, rerankers, memories
    _count(names.TEXT_COUNT, "texts"),
    _count(names.TEXT_SIZE, "characters in all of them"),
    _count(names.DIMENSIONS, "of a vector"),
    _content(names.embedded_text("N"), "a text of which a vector is made"),
    _text(names.DATA_SOURCE, "what is searched"),
    _count(names.QUERY_SIZE, "characters of the question"),
    _count(names.DOCUMENT_COUNT, "passages that were found"),
    _content(names.QUERY, "the question"),
    _content(names.DOCUMENTS, "the passages with their scores", "documents"),
    _text(names.RERANK_MODEL, "what puts them into order"),
    _count(names.RERANK_TOP_K, "how many passages are wanted"),
    _count(names.RERANK_QUERY_SIZE, "characters of the question"),
    _count(names.RERANK_GIVEN, "passages that were given"),
    _count(names.RERANK_KEPT, "passages that were kept"),
    _content(names.RERANK_QUERY, "the question"),
    *(
        Attribute(names.listed_document(prefix, "N", field), kind, means, content=True)
        for prefix, which in ((names.RERANK_INPUT, "given"), (names.RERANK_OUTPUT, "kept"))
        for field, kind, means in (
            ("id", str, f"which passage was {which}"),
            ("content", str, "its text"),
            ("score", float, "its score"),
        )
    ),
    _text(names.MEMORY_OPERATION, "what is done: `put`, `get`, `recall` ..."),
    _text(names.MEMORY_KIND, "the memory's class"),
    _text(names.MEMORY_SESSION, "whose memory it is"),
    _count(names.MEMORY_GIVEN, "messages that were put"),
    _count(names.MEMORY_SIZE, "characters in them"),
    _count(names.MEMORY_GOT, "messages or facts that were got"),
    _count(names.MEMORY_QUERY_SIZE, "characters of the question"),
    _count(names.MEMORY_TRIMMED, "messages that were left out to keep to the limit"),
)

_EVENTS_AND_LINKS = (
    _text(names.LINK, "what the link is", "resumed_from", "continues", "forked_from", "sent_by"),
    _text(names.EXCEPTION_TYPE, "the error's class"),
    _text(names.EXCEPTION_STACK, "where it was raised; without content, no messages in it"),
    _content(names.EXCEPTION_MESSAGE, "what the error says"),
    _count(names.RETRY_ATTEMPT, "the attempt that failed"),
    _number(names.RETRY_WAIT, "seconds until the next one"),
    _number(names.RETRY_AFTER, "seconds that the server asked to wait"),
)

ATTRIBUTES: dict[str, Attribute] = {one.name: one for one in (*_SPANS, *_EVENTS_AND_LINKS)}
"""By name, `N` in place of numbers."""
