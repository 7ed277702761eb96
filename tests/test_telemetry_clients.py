"""What the spans of model calls, tool calls and retrievals tell: always how much, what only where it may."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from agentflow import Context, HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent, Workflow, step
from agentflow.clock import use_clock
from agentflow.observe import Kind, add_observer, operation
from agentflow.testing import FakeClock
from agentflow_agents.records import ToolExecution
from agentflow_instrumentation import SpanObserver
from agentflow_instrumentation.content import Content
from agentflow_llm.errors import LLMOutputError, RateLimitError
from agentflow_llm.messages import (
    AnyPart,
    ChatMessage,
    ImagePart,
    ReasoningPart,
    RefusalPart,
    Reply,
    Role,
    TextPart,
    ToolCallPart,
    ToolDefinition,
    ToolResultPart,
    Usage,
)
from agentflow_llm.output import output_format
from agentflow_llm.records import ChatCall

Spans = Callable[[], list[ReadableSpan]]


def watch(content: Content = "none") -> Spans:
    """Make spans from now on; returns what has ended, as it began."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    add_observer(SpanObserver(provider, content=content))
    return lambda: sorted(exporter.get_finished_spans(), key=lambda span: span.start_time or 0)


def facts(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def said(role: Role, *parts: AnyPart | str) -> ChatMessage:
    return ChatMessage(role=role, content=tuple(TextPart(text=p) if isinstance(p, str) else p for p in parts))


SYSTEM = said("system", "You help Ann Example.")
QUESTION = said("user", "How long do cats sleep?")
CALL = ToolCallPart(id="c1", name="search", arguments='{"query": "cats", "api_key": "not for you"}')
ASKED = said("assistant", CALL)
TOLD = said("tool", ToolResultPart(call_id="c1", name="search", content="16 hours"))
SEARCH = ToolDefinition(name="search", description="Find things.")
ANSWER = Reply(
    message=said("assistant", ReasoningPart(text="hm"), "16 hours."),
    finish_reason="stop",
    usage=Usage(
        input_tokens=80, output_tokens=9, cached_tokens=64, cache_write_tokens=5, reasoning_tokens=4, http_requests=1
    ),
    model="tiny-2026-01",
    id="r1",
)


def call(messages: Sequence[ChatMessage], **more: Any) -> ChatCall:
    return ChatCall("openai", "tiny", messages, **more)


def chat(messages: Sequence[ChatMessage], reply: Reply | None = ANSWER, **more: Any) -> None:
    with operation(Kind.CHAT, "tiny", call(messages, **more)) as opened:
        assert opened is not None
        opened.op.result = reply


def text(content: str) -> dict[str, str]:
    return {"type": "text", "content": content}


def only(spans: Spans) -> dict[str, Any]:
    (span,) = spans()
    return facts(span)


# chat


def test_a_chat_tells_how_much_and_not_what() -> None:
    spans = watch()
    chat(
        [SYSTEM, QUESTION],
        tools=[SEARCH],
        parameters={
            "temperature": 0,
            "max_tokens": 100,
            "stop": "END",
            "seed": 7,
            "tool_choice": "auto",
            "top_p": None,
            "reasoning": "low",
        },
        extra={"top_p": 0.5, "n": 2, "frequency_penalty": float("nan"), "presence_penalty": "high", "user": "Ann"},
        output=output_format({"type": "object", "title": "Ann", "properties": {}}),
        server_address="api.example.com",
        server_port=443,
    )
    (span,) = spans()
    assert (span.name, span.kind, span.status.status_code) == ("chat tiny", SpanKind.CLIENT, StatusCode.UNSET)
    assert facts(span) == {
        "openinference.span.kind": "LLM",
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "tiny",
        "gen_ai.request.temperature": 0.0,
        "gen_ai.request.max_tokens": 100,
        "gen_ai.request.seed": 7,
        "gen_ai.request.top_p": 0.5,
        "gen_ai.request.choice.count": 2,
        "gen_ai.output.type": "json",
        "agentflow.chat.reasoning": "low",
        "agentflow.chat.tool_choice": "auto",
        "server.address": "api.example.com",
        "server.port": 443,
        "agentflow.chat.input.messages": 2,
        "agentflow.chat.input.size": len(SYSTEM.text) + len(QUESTION.text),
        "agentflow.chat.tools": 1,
        "gen_ai.response.id": "r1",
        "gen_ai.response.model": "tiny-2026-01",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 80,
        "gen_ai.usage.output_tokens": 9,
        "gen_ai.usage.cache_read.input_tokens": 64,
        "gen_ai.usage.cache_creation.input_tokens": 5,
        "gen_ai.usage.reasoning.output_tokens": 4,
        "llm.token_count.completion_details.reasoning": 4,
        "agentflow.llm.http_requests": 1,
        "agentflow.chat.output.size": len("16 hours."),
        "agentflow.outcome": "ok",
    }
    assert isinstance(facts(span)["gen_ai.request.temperature"], float)


def test_messages_are_json_as_the_conventions_have_it() -> None:
    spans = watch("full")
    chat([SYSTEM, QUESTION, ASKED, TOLD], tools=[SEARCH])
    told = only(spans)
    assert json.loads(told["gen_ai.input.messages"]) == [
        {"role": "system", "parts": [text("You help Ann Example.")]},
        {"role": "user", "parts": [text("How long do cats sleep?")]},
        {
            "role": "assistant",
            "parts": [
                {
                    "type": "tool_call",
                    "id": "c1",
                    "name": "search",
                    "arguments": {"query": "cats", "api_key": "**********"},
                }
            ],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "16 hours"}]},
    ]
    assert json.loads(told["gen_ai.output.messages"]) == [
        {
            "role": "assistant",
            "parts": [{"type": "reasoning", "content": "hm"}, text("16 hours.")],
            "finish_reason": "stop",
        }
    ]
    assert json.loads(told["gen_ai.tool.definitions"]) == [
        {
            "type": "function",
            "name": "search",
            "description": "Find things.",
            "parameters": {"type": "object", "properties": {}},
        }
    ]
    assert (told["input.value"], told["output.value"]) == ("16 hours", "16 hours.")
    assert told["input.mime_type"] == told["output.mime_type"] == "text/plain"


def test_each_result_of_a_tool_is_a_message_of_its_own() -> None:
    """Phoenix shows one in a message."""
    spans = watch("full")
    both = said("tool", *(ToolResultPart(call_id=f"c{n}", name="search", content=str(n)) for n in range(2)))
    chat([both])
    told = json.loads(only(spans)["gen_ai.input.messages"])
    assert [message["parts"][0]["id"] for message in told] == ["c0", "c1"]


@pytest.mark.parametrize(
    ("reason", "message", "told"),
    [
        ("tool_calls", ASKED, "tool_call"),
        ("length", ANSWER.message, "length"),
        (None, ANSWER.message, "stop"),
        (None, ASKED, "tool_call"),
        ("content_filter", said("assistant", RefusalPart(text="no")), "content_filter"),
    ],
)
def test_every_answer_has_a_reason_for_its_end(reason: str | None, message: ChatMessage, told: str) -> None:
    spans = watch("full")
    chat([QUESTION], Reply(message=message, finish_reason=reason))
    (answer,) = json.loads(only(spans)["gen_ai.output.messages"])
    assert answer["finish_reason"] == told
    assert only(spans).get("gen_ai.response.finish_reasons") == (None if reason is None else (reason,))


def test_usage_that_the_server_does_not_tell_is_said_to_be_missing() -> None:
    spans = watch()
    chat([QUESTION], Reply(message=ANSWER.message))
    told = only(spans)
    assert told["agentflow.llm.usage.missing"] is True
    assert not [name for name in told if name.startswith("gen_ai.usage")]


def test_each_repeated_request_is_an_event_of_the_one_span() -> None:
    spans = watch()
    with operation(Kind.CHAT, "tiny", call([QUESTION])) as opened:
        assert opened is not None
        seen, op = opened.watch, opened.op
        facts_of_one = {"error": ConnectionError("Ann"), "status": 429, "retry_after": 2.0}
        seen.noted(op, "retry", {"attempt": 1, "wait": 2.0, **facts_of_one})
        seen.noted(
            op, "retry", {"attempt": 2, "wait": 0.5, "error": TimeoutError(), "status": None, "retry_after": None}
        )
        op.result = ANSWER.model_copy(update={"usage": Usage(input_tokens=1, http_requests=3)})
    (span,) = spans()
    assert span.status.status_code is StatusCode.UNSET
    assert [(event.name, dict(event.attributes or {})) for event in span.events] == [
        (
            "agentflow.retry",
            {
                "agentflow.retry.attempt": 1,
                "agentflow.retry.wait": 2.0,
                "error.type": "ConnectionError",
                "http.response.status_code": 429,
                "agentflow.retry.after": 2.0,
            },
        ),
        (
            "agentflow.retry",
            {"agentflow.retry.attempt": 2, "agentflow.retry.wait": 0.5, "error.type": "TimeoutError"},
        ),
    ]
    assert facts(span)["agentflow.llm.attempts"] == facts(span)["agentflow.llm.http_requests"] == 3
    assert facts(span)["agentflow.llm.retry.wait"] == 2.5


def test_a_chat_that_fails_tells_how_often_it_was_tried() -> None:
    spans = watch()

    def fail() -> None:
        with operation(Kind.CHAT, "tiny", call([QUESTION])) as opened:
            assert opened is not None
            opened.note("retry", {"attempt": 1, "wait": 2.0, "error": ConnectionError(), "status": None})
            raise ConnectionError("the key of Ann is wrong")

    with pytest.raises(ConnectionError):
        fail()
    (span,) = spans()
    assert span.status.status_code is StatusCode.ERROR
    assert facts(span)["error.type"] == "ConnectionError"
    assert facts(span)["agentflow.llm.attempts"] == 2
    assert "gen_ai.response.id" not in facts(span)


def test_an_error_tells_what_the_server_said_beside_its_text() -> None:
    spans = watch()
    error = RateLimitError("Ann is too fast", status=429, code="slow", request_id="req-1")
    error.http_requests = 3
    with pytest.raises(RateLimitError), operation(Kind.CHAT, "tiny", call([QUESTION])):
        raise error
    told = only(spans)
    assert (told["http.response.status_code"], told["agentflow.llm.request_id"]) == (429, "req-1")
    assert told["agentflow.llm.http_requests"] == 3
    assert "Ann" not in spans()[0].to_json()


def noted(reply: Reply | None, *notes: tuple[str, dict[str, Any]], content: Content = "none") -> ReadableSpan:
    """The span of a chat on which this is noted."""
    spans = watch(content)
    with operation(Kind.CHAT, "tiny", call([QUESTION])) as opened:
        assert opened is not None
        for name, of_it in notes:
            opened.note(name, of_it)
        opened.op.result = reply
    (span,) = spans()
    return span


def test_the_first_piece_of_a_stream_is_a_fact_of_the_span() -> None:
    span = noted(ANSWER, ("first_chunk", {"after": 0.25}))
    assert facts(span)["gen_ai.response.time_to_first_chunk"] == 0.25
    assert not span.events


def test_waits_for_the_rate_limit_are_told_apart_from_those_between_attempts() -> None:
    wait = {"wait": 1.5, "because": "tokens", "key": "Ann's"}
    span = noted(ANSWER, ("rate_limit", wait), ("retry", {"attempt": 1, "wait": 4.0}), ("rate_limit", wait))
    told = facts(span)
    assert (told["agentflow.llm.rate_limit.wait"], told["agentflow.llm.retry.wait"]) == (3.0, 4.0)
    assert [(event.name, dict(event.attributes or {})) for event in span.events[:1]] == [
        ("agentflow.rate_limit", {"agentflow.rate_limit.wait": 1.5, "agentflow.rate_limit.because": "tokens"})
    ]


def test_a_fallback_tells_who_failed_why_and_who_is_asked_instead() -> None:
    span = noted(ANSWER, ("fallback", {"id": "openai/big", "to": "ollama/small", "error": ConnectionError("Ann")}))
    (event,) = span.events
    assert (event.name, dict(event.attributes or {})) == (
        "agentflow.fallback",
        {
            "agentflow.fallback.id": "openai/big",
            "agentflow.fallback.to": "ollama/small",
            "error.type": "ConnectionError",
        },
    )
    assert facts(span)["agentflow.llm.fallbacks"] == 1
    assert facts(span)["gen_ai.response.model"] == "tiny-2026-01"
    assert facts(span)["llm.model_name"] == "tiny-2026-01"  # whose price Phoenix takes
    assert "llm.model_name" not in facts(noted(ANSWER))


def test_an_answer_from_a_cache_is_not_paid_for_again() -> None:
    stored = ANSWER.model_copy(update={"usage": ANSWER.usage.model_copy(update={"http_requests": 0, "cost": 0.5})})
    told = facts(noted(stored, ("cache", {"hit": True})))
    assert told["agentflow.llm.cache.hit"] is True
    assert told["gen_ai.response.model"] == "tiny-2026-01"
    assert not [name for name in told if "usage" in name or "token" in name or "cost" in name]
    missed = facts(noted(ANSWER, ("cache", {"hit": False})))
    assert missed["agentflow.llm.cache.hit"] is False
    assert missed["gen_ai.usage.input_tokens"] == 80


def test_what_a_call_cost_is_told_where_the_price_is_known() -> None:
    priced = ANSWER.model_copy(update={"usage": ANSWER.usage.model_copy(update={"cost": 0.00042})})
    told = facts(noted(priced))
    assert told["agentflow.llm.cost"] == told["llm.cost.total"] == 0.00042
    assert "agentflow.llm.cost" not in facts(noted(ANSWER))


def test_repairs_and_further_choices_are_counted() -> None:
    error = LLMOutputError("The JSON object lacks 'Ann'.", "Ann")
    span = noted(ANSWER, ("repair", {"attempt": 1, "error": error}), ("choices_ignored", {"ignored": 2}))
    assert facts(span)["agentflow.chat.repairs"] == 1
    assert facts(span)["agentflow.chat.choices.ignored"] == 2
    assert [event.name for event in span.events] == ["agentflow.repair"]
    assert "Ann" not in span.to_json()
    assert "Ann" in noted(ANSWER, ("repair", {"attempt": 1, "error": error}), content="full").to_json()


def test_a_refusal_is_told() -> None:
    refusal = Reply(message=said("assistant", RefusalPart(text="I would rather not.")), finish_reason="stop")
    assert facts(noted(refusal))["agentflow.chat.refused"] is True
    told = facts(noted(refusal, content="full"))
    assert told["output.value"] == "I would rather not."
    assert "agentflow.chat.refused" not in facts(noted(ANSWER))


# pictures


def test_a_picture_is_counted_and_its_bytes_stay_here() -> None:
    data = b"\x89PNG\r\n\x1a\n" + bytes(100_000)
    link = "https://example.com/cat.png?of=Ann"
    seen = said("user", "What is this?", ImagePart.of(data), ImagePart(url=link))
    spans = watch()
    chat([seen])
    told = only(spans)
    assert (told["agentflow.chat.input.images"], told["agentflow.chat.input.images.size"]) == (2, len(data))
    assert told["agentflow.chat.input.size"] == len("What is this?")
    assert "Ann" not in spans()[0].to_json()
    for content in ("preview", "full"):
        spans = watch(content)
        chat([seen])
        (message,) = json.loads(only(spans)["gen_ai.input.messages"])
        assert message["parts"] == [
            text("What is this?"),
            text("[image/png, 100,008 bytes]"),
            {"type": "uri", "modality": "image", "uri": link},
        ]
        assert len(spans()[0].to_json()) < 5_000


@pytest.mark.parametrize(
    ("url", "shown", "size"),
    [
        ("data:image/gif;base64,R0lG", "[image/gif, 3 bytes]", 3),
        ("data:image/gif;base64,R0k=", "[image/gif, 2 bytes]", 2),
        ("DATA:image/svg+xml,%3Csvg/%3E", "[image/svg+xml, 10 bytes]", 10),
        ("data:;base64,R0lG", "[image, 3 bytes]", 3),
        ("data:image/gif", "[image/gif, 0 bytes]", 0),
        ("data:", "[image, 0 bytes]", 0),
    ],
)
def test_whatever_address_a_picture_has_only_its_size_is_told(url: str, shown: str, size: int) -> None:
    spans = watch("full")
    chat([said("user", ImagePart(url=url))])
    told = only(spans)
    assert json.loads(told["gen_ai.input.messages"])[0]["parts"] == [text(shown)]
    assert told["agentflow.chat.input.images.size"] == size


async def test_pictures_of_earlier_turns_are_counted_and_not_told_again() -> None:
    seen = said("user", "And this?", ImagePart.of(b"GIF89a"))
    _, second = await chats([[seen], [seen, ANSWER.message, seen]])
    told = facts(second)
    assert (told["agentflow.chat.input.images"], told["agentflow.chat.input.images.size"]) == (2, 12)
    assert told["gen_ai.input.messages"].count("image/gif") == 1


# history


class Talk(Workflow):
    """Each turn asks the model with one message more."""

    turns: Sequence[Sequence[ChatMessage]] = ()

    @step
    async def start(self, ev: StartEvent) -> StopEvent:
        for messages in self.turns:
            chat(messages)
        return StopEvent()


async def chats(turns: Sequence[Sequence[ChatMessage]], content: Content = "full") -> list[ReadableSpan]:
    spans = watch(content)
    talk = Talk()
    talk.turns = turns
    await talk.run()
    return [span for span in spans() if span.name == "chat tiny"]


async def test_a_chat_tells_what_is_new_since_the_last_one_of_the_run() -> None:
    first, second = await chats([[SYSTEM, QUESTION], [SYSTEM, QUESTION, ASKED, TOLD]])
    assert len(json.loads(facts(first)["gen_ai.input.messages"])) == 2
    assert "agentflow.chat.history.messages" not in facts(first)
    new = json.loads(facts(second)["gen_ai.input.messages"])
    assert [message["role"] for message in new] == ["assistant", "tool"]
    assert facts(second)["agentflow.chat.history.messages"] == 2
    assert facts(second)["agentflow.chat.input.messages"] == 4
    assert first.context
    assert facts(second)["agentflow.chat.history.span_id"] == f"{first.context.span_id:016x}"


async def test_the_hash_of_what_came_before_tells_what_is_the_same_and_nothing_else() -> None:
    turns = [[SYSTEM, QUESTION], [SYSTEM, QUESTION, ASKED], [SYSTEM, QUESTION, TOLD]]
    _, second, third = await chats(turns)
    hashed = facts(second)["agentflow.chat.history.hash"]
    assert hashed == facts(third)["agentflow.chat.history.hash"]
    canonical = "".join(
        json.dumps([m.role, [p.model_dump(mode="json") for p in m.content]], sort_keys=True, separators=(",", ":"))
        + "\n"
        for m in (SYSTEM, QUESTION)
    )
    assert hashed != hashlib.sha256(canonical.encode()).hexdigest()  # else who knows the rest could try out a PIN


async def test_a_message_that_is_made_anew_is_known_by_what_it_says() -> None:
    again = said("system", SYSTEM.text)
    assert again.id != SYSTEM.id
    _, second = await chats([[SYSTEM, QUESTION], [again, QUESTION, ASKED]])
    assert facts(second)["agentflow.chat.history.messages"] == 2


async def test_the_same_request_again_tells_its_last_message_again() -> None:
    _, second = await chats([[SYSTEM, QUESTION], [SYSTEM, QUESTION]])
    assert facts(second)["agentflow.chat.history.messages"] == 1
    assert [m["role"] for m in json.loads(facts(second)["gen_ai.input.messages"])] == ["user"]


async def test_a_message_that_was_edited_is_told_with_all_that_follow_it() -> None:
    edited = said("user", "How long do dogs sleep?")
    _, second = await chats([[SYSTEM, QUESTION, ASKED], [SYSTEM, edited, ASKED, TOLD]])
    assert facts(second)["agentflow.chat.history.messages"] == 1
    told = json.loads(facts(second)["gen_ai.input.messages"])
    assert [m["role"] for m in told] == ["user", "assistant", "tool"]


async def test_what_was_trimmed_is_not_counted_as_told() -> None:
    _, second = await chats([[SYSTEM, QUESTION, ASKED, TOLD], [SYSTEM, TOLD]])
    assert facts(second)["agentflow.chat.history.messages"] == 1
    assert [m["role"] for m in json.loads(facts(second)["gen_ai.input.messages"])] == ["tool"]


async def test_another_conversation_shares_only_its_beginning() -> None:
    other = said("user", "And dogs?")
    _, second, third = await chats([[SYSTEM, QUESTION], [SYSTEM, other], [other]])
    assert facts(second)["agentflow.chat.history.messages"] == 1
    assert [m["role"] for m in json.loads(facts(second)["gen_ai.input.messages"])] == ["user"]
    assert "agentflow.chat.history.messages" not in facts(third)
    assert facts(third)["agentflow.chat.input.size"] == len("And dogs?")


async def test_the_size_of_a_trace_grows_with_its_turns_not_with_their_square() -> None:
    turns: list[list[ChatMessage]] = []
    for n in range(40):
        before = turns[-1] if turns else [SYSTEM]
        turns.append([*before, said("user", f"{n} {'x' * 200}"), ANSWER.message])
    sizes = [len(facts(span)["gen_ai.input.messages"]) for span in await chats(turns)]
    assert max(sizes[1:]) - min(sizes[1:]) < 10
    told = [facts(span)["agentflow.chat.input.size"] for span in await chats(turns, "none")]
    assert told == [sum(len(m.text) + 2 * (m is ANSWER.message) for m in turn) for turn in turns]


class Ask(InputRequiredEvent):
    pass


class Answer(HumanResponseEvent):
    pass


class Pausing(Workflow):
    """One step waits with a chat behind it and one before it, another goes on with the same messages."""

    @step
    async def wait(self, ev: StartEvent, ctx: Context) -> None:
        chat([SYSTEM, QUESTION])
        await ctx.wait_for_event(Answer)
        chat([SYSTEM, QUESTION, ASKED])

    @step
    async def ask(self, ev: StartEvent) -> Ask:
        return Ask()

    @step
    async def go_on(self, ev: Answer) -> StopEvent:
        chat([SYSTEM, QUESTION, ASKED])
        chat([SYSTEM, QUESTION, ASKED, TOLD])
        return StopEvent()


async def test_after_a_pause_a_new_trace_tells_everything_once_and_an_old_one_goes_on_with_what_is_new() -> None:
    spans = watch("full")
    with use_clock(FakeClock()) as clock:
        handler = Pausing().run()
        await clock.advance(Workflow.pause_grace + 1)
        handler.ctx.send_event(Answer())
        await handler
    made = spans()
    trace_of = {f"{c.span_id:016x}": c.trace_id for span in made if (c := span.context)}
    old = next(span for span in made if span.name.startswith("invoke_workflow")).context
    assert old
    told: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
    for span in made:
        if span.name == "chat tiny" and (own := span.context):
            here = facts(span)
            before = here.get("agentflow.chat.history.messages", 0)
            new = len(json.loads(here["gen_ai.input.messages"]))
            told[own.trace_id == old.trace_id].append((before, new))
            earlier = here.get("agentflow.chat.history.span_id")
            assert earlier is None or trace_of[earlier] == own.trace_id, "what was told stands in the same trace"
    assert told == {True: [(0, 2), (2, 1)], False: [(0, 3), (3, 1)]}


def test_a_chat_outside_of_runs_tells_all_of_its_messages() -> None:
    spans = watch("full")
    chat([QUESTION])
    chat([QUESTION, ASKED])
    assert [len(json.loads(facts(span)["gen_ai.input.messages"])) for span in spans()] == [1, 2]


# caps


def test_a_long_text_is_cut_inside_of_its_message() -> None:
    for content, limit in (("preview", 1024), ("full", 8192)):
        spans = watch(content)  # type: ignore[arg-type]  # a loop over literals
        chat([said("user", "é" * 20_000)], Reply(message=said("assistant", "y" * 20_000)))
        told = only(spans)
        (asked,) = json.loads(told["gen_ai.input.messages"])
        (answered,) = json.loads(told["gen_ai.output.messages"])
        for message in (asked, answered):
            text = message["parts"][0]["content"]
            assert limit - 4 < len(text.encode()) <= limit
            assert text.endswith("…")


def test_many_messages_are_cut_in_the_middle_of_the_list() -> None:
    spans = watch("full")
    chat([SYSTEM, *(said("user", f"{n} {'x' * 5000}") for n in range(100))])
    told = only(spans)
    messages = json.loads(told["gen_ai.input.messages"])
    assert len(told["gen_ai.input.messages"].encode()) <= 64 * 1024
    assert messages[0]["parts"][0]["content"] == SYSTEM.text
    assert messages[1]["parts"][0]["content"] == f"[{101 - len(messages) + 1} messages left out]"
    assert messages[-1]["parts"][0]["content"].startswith("99 xxx")
    assert told["agentflow.content.truncated"] is True


def test_a_message_of_many_long_parts_keeps_all_of_its_parts() -> None:
    spans = watch("full")
    parts = tuple(TextPart(text="x" * 9000) for _ in range(30))
    chat([said("user", *parts)], Reply(message=said("assistant", *parts), finish_reason="stop"))
    told = only(spans)
    for name in ("gen_ai.input.messages", "gen_ai.output.messages"):
        (message,) = json.loads(told[name])
        assert len(message["parts"]) == 30
        assert len(told[name]) <= 64 * 1024


def test_an_answer_of_far_too_many_parts_says_so() -> None:
    spans = watch("full")
    parts = tuple(TextPart(text="x" * 300) for _ in range(1000))
    chat([QUESTION], Reply(message=said("assistant", *parts), finish_reason="stop"))
    (message,) = json.loads(only(spans)["gen_ai.output.messages"])
    assert message["parts"] == [{"type": "text", "content": "[1,000 parts left out]"}]
    assert message["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "arguments", ["{not json", '{"a": NaN, "b": 1e999}', '"\\ud800"', "[" * 10_000, '{"a": "' + "x" * 9000 + '"}']
)
def test_whatever_arguments_a_model_writes_the_message_is_json(arguments: str) -> None:
    spans = watch("full")
    message = said("assistant", ToolCallPart(id="c", name="t", arguments=arguments))
    chat([message], Reply(message=message))
    for name in ("gen_ai.input.messages", "gen_ai.output.messages"):
        json.loads(only(spans)[name], parse_constant=pytest.fail)
        only(spans)[name].encode()


# tools


def test_a_tool_call_tells_how_much_and_not_what() -> None:
    spans = watch()
    with operation(Kind.TOOL, "search", ToolExecution("c1", "Find things.", '{"query": "cats"}')) as opened:
        assert opened is not None
        opened.op.result = ToolResultPart(call_id="c1", name="search", content="16 hours")
    (span,) = spans()
    assert (span.name, span.kind) == ("execute_tool search", SpanKind.INTERNAL)
    assert facts(span) == {
        "openinference.span.kind": "TOOL",
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "search",
        "gen_ai.tool.type": "function",
        "gen_ai.tool.call.id": "c1",
        "gen_ai.tool.description": "Find things.",
        "agentflow.tool.arguments.size": 17,
        "agentflow.tool.outcome": "ok",
        "agentflow.tool.result.size": 8,
        "agentflow.outcome": "ok",
    }


def test_with_content_a_tool_call_tells_its_arguments_and_its_result() -> None:
    spans = watch("full")
    with operation(Kind.TOOL, "search", ToolExecution("c1", "", '{"query": "cats", "password": "1234"}')) as opened:
        assert opened is not None
        opened.op.result = ToolResultPart(call_id="c1", name="search", content="16 hours")
    told = only(spans)
    assert told["gen_ai.tool.call.arguments"] == told["input.value"] == '{"query":"cats","password":"**********"}'
    assert told["input.mime_type"] == "application/json"
    assert told["gen_ai.tool.call.result"] == told["output.value"] == "16 hours"


@pytest.mark.parametrize(("outcome", "kind"), [("error", "_OTHER"), ("timeout", "timeout")])
def test_a_tool_that_failed_without_raising_is_a_failed_span(outcome: Any, kind: str) -> None:
    spans = watch()
    with operation(Kind.TOOL, "search", ToolExecution("c1", "", "{}")) as opened:
        assert opened is not None
        opened.op.result = ToolResultPart(call_id="c1", name="search", content="no", outcome=outcome)
        opened.op.outcome = outcome
    (span,) = spans()
    assert span.status.status_code is StatusCode.ERROR
    assert facts(span)["error.type"] == kind
    assert not span.events


@pytest.mark.parametrize(
    "kind", [Kind.CHAT, Kind.TOOL, Kind.RETRIEVAL, Kind.EMBEDDINGS, Kind.RERANK, Kind.MEMORY, Kind.RESOURCE]
)
@pytest.mark.parametrize("result", [None, "text", 3])
def test_a_call_without_a_record_is_a_span_all_the_same(kind: Kind, result: object) -> None:
    spans = watch("full")
    with operation(kind, "thing", {"any": "subject"}) as opened:
        assert opened is not None
        opened.op.result = result
    assert only(spans)["agentflow.outcome"] == "ok"
