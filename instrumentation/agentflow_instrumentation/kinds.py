"""What a span of each kind must, may and must not carry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from . import names

Links = Literal["none", "causes", "origin"]


@dataclass(frozen=True, slots=True)
class Convention:
    """What holds for the spans of one kind."""

    name: str
    """The first word of the span's name."""
    named_by: str | None
    """The attribute that is the rest of it, where the span has that."""
    span_kind: str
    shown_as: str
    """Its kind in Phoenix."""
    operation: str | None
    parents: frozenset[str]
    """Which spans of ours it may be in; "" is none, or one that is not ours."""
    outcomes: frozenset[str]
    links: Links
    """"causes": to each event that triggered it; "origin": to what it goes on from, or was started in."""
    required: frozenset[str]
    optional: frozenset[str]
    events: frozenset[str]
    """The notes that may be events of the span, beside `exception` and those of the user's own."""

    def allows(self, attribute: str) -> bool:
        """May a span of this kind have it?"""
        return attribute in self.required or attribute in self.optional


_ANYWHERE = frozenset(
    {
        *(names.SESSION, names.USER, names.CONVERSATION, names.ERROR_TYPE),
        *(names.NOTES_LEFT_OUT, names.TRUNCATED, names.REDACTION_ERROR),
    }
)
_ALWAYS = frozenset({names.SPAN_KIND, names.OUTCOME})
_SHOWN = frozenset({names.INPUT, names.INPUT_TYPE, names.OUTPUT, names.OUTPUT_TYPE})
_ASKED = frozenset({names.PROVIDER, names.SERVER_ADDRESS, names.SERVER_PORT})
_TOOK = frozenset(
    {
        names.RESPONSE_MODEL,
        names.MODEL_SHOWN,
        names.INPUT_TOKENS,
        names.OUTPUT_TOKENS,
        names.CACHE_READ_TOKENS,
        names.CACHE_WRITE_TOKENS,
        names.REASONING_TOKENS,
        names.REASONING_COUNT,
        names.LLM_COST,
        names.COST_SHOWN,
        names.USAGE_MISSING,
        names.LLM_REQUESTS,
        names.LLM_ATTEMPTS,
        names.LLM_RETRY_WAIT,
        names.LLM_LIMIT_WAIT,
        names.LLM_FALLBACKS,
        names.LLM_CACHE_HIT,
        names.LLM_REQUEST_ID,
        names.HTTP_STATUS,
    }
)
_RUN = frozenset({names.RUN_ID, names.WORKFLOW, names.SPAN_KIND, names.OPERATION, names.OUTCOME})
_RUN_TOO = frozenset({names.SEGMENT, names.RESUMED_FROM, names.CONTINUES, names.FORKED_FROM, names.STREAMED}) | _SHOWN
_AGENT_RESULT = frozenset(
    {
        names.STOPPED_BY,
        names.HANDED_TO,
        names.CALLS_FAILED,
        names.CALLS_LATE,
        names.CALLS_REFUSED,
        names.CALLS_SKIPPED,
    }
)
_RUN_OUTCOMES = frozenset({"ok", "error", "timeout", "cancelled", "suspended"})
_CALL_OUTCOMES = frozenset({"ok", "error", "timeout", "cancelled"})
_IN_A_RUN = frozenset({"invoke_workflow", "invoke_agent"})
_CALLS = frozenset(
    {
        "chat",
        "embeddings",
        "retrieval",
        "rerank",
        "execute_tool",
        "memory",
        "resource",
        "checkpoint",
        "guardrail",
    }
)
_AROUND_CALLS = frozenset({"", "step"}) | _CALLS | _IN_A_RUN
_MODEL_NOTES = frozenset({"retry", "fallback", "rate_limit", "cache"})


def _call(  # noqa: PLR0913 because a convention has these parts
    name: str,
    named_by: str | None,
    span_kind: str,
    shown_as: str,
    *,
    operation: str | None = None,
    required: frozenset[str] = frozenset(),
    optional: frozenset[str] = frozenset(),
    events: frozenset[str] = frozenset(),
    outcomes: frozenset[str] = _CALL_OUTCOMES,
) -> Convention:
    must = _ALWAYS | required | frozenset([names.OPERATION] if operation else [])
    may = _ANYWHERE | optional | {names.RUN_ID}
    return Convention(
        name, named_by, span_kind, shown_as, operation, _AROUND_CALLS, outcomes, "none", must, may, events
    )


CONVENTIONS: dict[str, Convention] = {
    one.name: one
    for one in (
        Convention(
            "invoke_workflow",
            names.WORKFLOW,
            "INTERNAL",
            "CHAIN",
            "invoke_workflow",
            frozenset({"", "step", "execute_tool", "resource", "retrieval", "memory", "guardrail"}),
            _RUN_OUTCOMES,
            "origin",
            _RUN,
            _ANYWHERE | _RUN_TOO | _AGENT_RESULT,  # a workflow may end with what an agent ended with
            frozenset({"event_streamed", "waiting", "abandoned", "teardown_failed"}),
        ),
        Convention(
            "invoke_agent",
            names.AGENT,
            "INTERNAL",
            "AGENT",
            "invoke_agent",
            frozenset({"", "step", "execute_tool", "resource", "retrieval", "memory", "guardrail"}),
            _RUN_OUTCOMES,
            "origin",
            _RUN | {names.AGENT},
            _ANYWHERE | _RUN_TOO | _AGENT_RESULT,
            frozenset({"event_streamed", "waiting", "abandoned", "teardown_failed"}),
        ),
        Convention(
            "step",
            names.STEP,
            "INTERNAL",
            "CHAIN",
            None,
            _IN_A_RUN,
            _RUN_OUTCOMES | {"retried", "collecting"},
            "causes",
            _ALWAYS | {names.RUN_ID, names.WORKFLOW_OF, names.STEP, names.ATTEMPT, names.EVENT_TYPE, names.QUEUE_WAIT},
            _ANYWHERE
            | _SHOWN
            | {
                names.TRIGGERED_BY,
                names.COLLECTED,
                names.STREAMED,
                names.ASKED,
                names.ASKED_TOOLS,
                names.APPROVAL,
                names.TOOL_CALL_ID,
                names.TOOL_NAME,
                names.TOOL_OUTCOME,
            },
            frozenset({"event_streamed", "retry", "waiting", "answered", "events_dropped", "checkpoint"}),
        ),
        Convention(
            "event",
            names.EVENT_TYPE,
            "INTERNAL",
            "CHAIN",
            None,
            _IN_A_RUN | {"step"},
            frozenset({"ok", "dropped", "suspended"}),
            "none",
            _ALWAYS | {names.RUN_ID, names.WORKFLOW_OF, names.EVENT_TYPE},
            frozenset({names.SESSION, names.USER, names.CONVERSATION}),
            frozenset(),
        ),
        _call(
            "chat",
            names.REQUEST_MODEL,
            "CLIENT",
            "LLM",
            operation="chat",
            required=frozenset({names.REQUEST_MODEL}),
            optional=_ASKED
            | _TOOK
            | _SHOWN
            | {
                names.TEMPERATURE,
                names.TOP_P,
                names.TOP_K,
                names.MAX_TOKENS,
                names.FREQUENCY_PENALTY,
                names.PRESENCE_PENALTY,
                names.SEED,
                names.STOP_SEQUENCES,
                names.CHOICE_COUNT,
                names.STREAM,
                names.OUTPUT_KIND,
                names.CHAT_REASONING,
                names.CHAT_TOOL_CHOICE,
                names.RESPONSE_ID,
                names.FINISH_REASONS,
                names.FIRST_CHUNK,
                names.CHAT_MESSAGES,
                names.CHAT_SIZE,
                names.CHAT_TOOLS,
                names.CHAT_IMAGES,
                names.CHAT_IMAGES_SIZE,
                names.CHAT_ANSWER_SIZE,
                names.CHAT_TOOL_CALLS,
                names.CHAT_REFUSED,
                names.CHAT_REPAIRS,
                names.CHOICES_IGNORED,
                names.HISTORY_COUNT,
                names.HISTORY_HASH,
                names.HISTORY_SPAN,
                names.INPUT_MESSAGES,
                names.OUTPUT_MESSAGES,
                names.TOOL_DEFINITIONS,
            },
            events=_MODEL_NOTES | {"first_chunk", "choices_ignored", "repair"},
        ),
        _call(
            "embeddings",
            names.REQUEST_MODEL,
            "CLIENT",
            "EMBEDDING",
            operation="embeddings",
            required=frozenset({names.REQUEST_MODEL}),
            optional=_ASKED
            | _TOOK
            | {names.TEXT_COUNT, names.TEXT_SIZE, names.DIMENSIONS, names.embedded_text("N")}
            | {names.INPUT, names.INPUT_TYPE},
            events=_MODEL_NOTES,
        ),
        _call(
            "retrieval",
            names.DATA_SOURCE,
            "CLIENT",
            "RETRIEVER",
            operation="retrieval",
            optional=frozenset({names.DATA_SOURCE, names.TOP_K, names.QUERY_SIZE, names.DOCUMENT_COUNT, names.QUERY})
            | {names.DOCUMENTS, names.INPUT, names.INPUT_TYPE},
        ),
        _call(
            "rerank",
            names.REQUEST_MODEL,
            "CLIENT",
            "RERANKER",
            required=frozenset({names.REQUEST_MODEL}),
            optional=frozenset(
                {
                    names.RERANK_MODEL,
                    names.RERANK_TOP_K,
                    names.RERANK_QUERY_SIZE,
                    names.RERANK_GIVEN,
                    names.RERANK_KEPT,
                    names.RERANK_QUERY,
                    names.INPUT,
                    names.INPUT_TYPE,
                    *(
                        names.listed_document(prefix, "N", field)
                        for prefix in (names.RERANK_INPUT, names.RERANK_OUTPUT)
                        for field in ("id", "content", "score")
                    ),
                }
            ),
            events=frozenset({"order_kept"}),
        ),
        _call(
            "execute_tool",
            names.TOOL_NAME,
            "INTERNAL",
            "TOOL",
            operation="execute_tool",
            required=frozenset({names.TOOL_NAME}),
            optional=_SHOWN
            | {
                names.TOOL_TYPE,
                names.TOOL_CALL_ID,
                names.TOOL_DESCRIPTION,
                names.TOOL_ARGUMENTS,
                names.TOOL_ARGUMENTS_SIZE,
                names.TOOL_RESULT,
                names.TOOL_RESULT_SIZE,
                names.TOOL_OUTCOME,
            },
            events=frozenset({"retry", "queued"}),
            outcomes=_CALL_OUTCOMES | {"suspended"},
        ),
        _call(
            "memory",
            names.MEMORY_OPERATION,
            "INTERNAL",
            "CHAIN",
            optional=frozenset(
                {
                    names.MEMORY_OPERATION,
                    names.MEMORY_KIND,
                    names.MEMORY_SESSION,
                    names.MEMORY_GIVEN,
                    names.MEMORY_SIZE,
                    names.MEMORY_GOT,
                    names.MEMORY_QUERY_SIZE,
                    names.MEMORY_TRIMMED,
                    names.INPUT,
                    names.INPUT_TYPE,
                }
            ),
            events=frozenset({"trimmed", "over_limit"}),
        ),
        _call("resource", None, "INTERNAL", "CHAIN"),
        _call("checkpoint", None, "INTERNAL", "CHAIN"),
        _call("guardrail", None, "INTERNAL", "GUARDRAIL"),
    )
}
"""By the first word of a span's name."""

_RETRY = frozenset({names.RETRY_ATTEMPT, names.RETRY_WAIT, names.RETRY_AFTER, names.HTTP_STATUS})
NOTES: dict[str, frozenset[str]] = {
    "retry": _RETRY | {names.ERROR_TYPE, names.EXCEPTION_MESSAGE},
    "fallback": frozenset({names.ERROR_TYPE, names.EXCEPTION_MESSAGE}),
    "repair": frozenset({names.ERROR_TYPE, names.EXCEPTION_MESSAGE}),
    "order_kept": frozenset({names.ERROR_TYPE, names.EXCEPTION_MESSAGE}),
    "teardown_failed": frozenset({names.ERROR_TYPE, names.EXCEPTION_MESSAGE}),
    "event_streamed": frozenset({names.EVENT_TYPE}),
}
"""By the note, what its event has under a name that others have, too; the rest is `agentflow.NOTE.FACT`."""
