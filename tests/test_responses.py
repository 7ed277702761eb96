"""The Responses API through the openai client, over a real socket; recorded traffic and synthetic."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from agentflow.observe import Kind
from agentflow.testing import record
from agentflow_llm.errors import (
    ContentFilterError,
    ContextLengthError,
    LLMBadRequestError,
    LLMConnectionError,
    LLMError,
    LLMResponseError,
    LLMServerError,
    QuotaError,
    RateLimitError,
)
from agentflow_llm.messages import (
    ChatMessage,
    Delta,
    ImagePart,
    ReasoningPart,
    RefusalPart,
    Reply,
    TextPart,
    ToolCallPart,
    ToolDefinition,
    ToolResultPart,
)
from agentflow_llm.model import ChatModel
from agentflow_llm.responses import OpenAIResponses
from agentflow_llm.server import Answer, LoopbackServer, Request
from agentflow_llm.serving_responses import response_body, response_events

RECORDINGS = Path(__file__).parent / "fixtures" / "openai-wire"
HELLO = [ChatMessage(role="user", content="Hello")]
WEATHER = ToolDefinition(
    name="weather", parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
)
USAGE = {
    "input_tokens": 9,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 5},
}


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)


def response(*output: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A body as a server sends it."""
    return {"id": "resp_1", "model": "m-1", "status": "completed", "output": list(output), "usage": USAGE, **more}


def message(*texts: str, refusal: str = "") -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []} for text in texts]
    refused = [{"type": "refusal", "refusal": refusal}] if refusal else []
    return {"type": "message", "id": "msg_1", "role": "assistant", "content": [*content, *refused]}


def function_call(ident: Any, arguments: Any, name: Any = "weather") -> dict[str, Any]:
    return {"type": "function_call", "id": "fc_1", "call_id": ident, "name": name, "arguments": arguments}


def reasoning(*summary: str, **more: Any) -> dict[str, Any]:
    sections = [{"type": "summary_text", "text": text} for text in summary]
    return {"type": "reasoning", "id": "rs_1", "summary": sections, **more}


def events(*told: dict[str, Any], named: bool = True) -> str:
    """Server-sent events, with their names, which their data have as well."""
    return "".join(
        (f"event: {data['type']}\n" if named and "type" in data else "") + f"data: {json.dumps(data)}\n\n"
        for data in told
    )


def completed(*output: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "response.completed", "response": response(*output, **more)}


def piece(kind: str, delta: str, at: int = 0, **more: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}.delta", "output_index": at, "delta": delta, **more}


def added(item: dict[str, Any], at: int = 0) -> dict[str, Any]:
    empty = {name: type(item[name])() for name in ("content", "summary", "arguments") if item.get(name) is not None}
    return {"type": "response.output_item.added", "output_index": at, "item": {**item, **empty}}


def done(item: dict[str, Any], at: int = 0) -> dict[str, Any]:
    return {"type": "response.output_item.done", "output_index": at, "item": item}


async def answer_of(*script: Any, **options: Any) -> Any:
    """What a model makes of these answers: the reply, or the error."""
    with LoopbackServer(script) as server:
        async with OpenAIResponses("m", base_url=server.base_url, retry=None) as model:
            try:
                return await model.chat(HELLO, **options)
            except LLMError as error:
                return error


async def streamed(*script: Any, **options: Any) -> tuple[list[Delta], Any]:
    """The deltas that a model makes of these answers, and the reply or the error at their end."""
    deltas: list[Delta] = []
    with LoopbackServer(script) as server:
        async with OpenAIResponses("m", base_url=server.base_url, retry=None) as model:
            stream = model.stream(HELLO, **options)
            try:
                async for delta in stream:
                    deltas.append(delta)  # noqa: PERF401 because those before an error count
            except LLMError as error:
                return deltas, error
            return deltas, stream.reply


def essence(reply: Reply) -> dict[str, Any]:
    """All of a reply but the id of its message, which is made here."""
    return reply.model_dump(exclude={"message": {"id"}})


def put_together(deltas: list[Delta]) -> list[tuple[str, str]]:
    """The pieces of a kind put together: text, reasoning, refusal, and each call by its index."""
    texts: dict[str, str] = {}
    for delta in deltas:
        kind = f"call {delta.index}" if delta.type == "tool_call" else delta.type
        texts[kind] = texts.get(kind, "") + delta.text
    return [(kind, text) for kind, text in texts.items() if text]


def agree(deltas: list[Delta], reply: Reply) -> None:
    """The deltas are what the reply says."""
    said = {"text": reply.text, "refusal": reply.refusal or ""}
    said["reasoning"] = "".join(part.text for part in reply.message.content if isinstance(part, ReasoningPart))
    said |= {f"call {at}": call.arguments for at, call in enumerate(reply.tool_calls)}
    assert sorted(put_together(deltas)) == sorted((kind, text) for kind, text in said.items() if text)
    begun = [(delta.id, delta.name) for delta in deltas if delta.id]
    assert begun == [(call.id, call.name) for call in reply.tool_calls]


# recorded traffic


class Recording:
    """What was recorded: the bodies of requests, and the answers."""

    def __init__(self, name: str) -> None:
        interactions = json.loads((RECORDINGS / f"{name}.json").read_text(encoding="utf-8"))["interactions"]
        self.asked: list[dict[str, Any]] = [interaction["request"]["json"] for interaction in interactions]
        self.bodies: list[str] = [interaction["response"]["body"] for interaction in interactions]
        self.headers: list[dict[str, str]] = [interaction["response"]["headers"] for interaction in interactions]

    def answers(self) -> list[Answer]:
        return [Answer(body.encode(), headers=headers) for body, headers in zip(self.bodies, self.headers, strict=True)]

    def assert_same(self, requests: list[Request]) -> None:
        """What was sent is what was recorded, but for what means the same."""
        assert [_request_essence(r.json) for r in requests] == [_request_essence(body) for body in self.asked]


def _request_essence(body: dict[str, Any]) -> dict[str, Any]:
    body = json.loads(json.dumps(body))
    for item in body["input"]:
        if "arguments" in item:  # a recorder's client has rewritten the JSON in it
            item["arguments"] = json.loads(item["arguments"])
    for tool in body.get("tools", ()):
        tool.pop("strict", None)  # the recorder left it to the server's default
    empty = {"instructions": "", "text": {"format": {"type": "text"}}, "store": False}
    return {name: value for name, value in body.items() if empty.get(name) != value}


MULTIPLY = ToolDefinition(
    name="multiply",
    description="Multiply two numbers.",
    parameters={
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
        "type": "object",
    },
)


async def test_recorded_stream_with_a_tool_call_and_its_result() -> None:
    recording = Recording("responses_tool_use_stream")
    messages = [ChatMessage(role="user", content="What is 1231 * 2331? Use the multiply tool.")]
    with LoopbackServer(recording.answers()) as server:
        async with OpenAIResponses("gpt-5.5", base_url=server.base_url) as model:
            first = await model.stream(messages, tools=[MULTIPLY], reasoning="low").read()
            (call,) = first.tool_calls
            result = ToolResultPart(call_id=call.id, name=call.name, content="2869461")
            messages += [first.message, ChatMessage(role="tool", content=[result])]
            stream = model.stream(messages, tools=[MULTIPLY], reasoning="low")
            deltas = [delta async for delta in stream]
    recording.assert_same(server.requests)
    assert (call.id, call.name) == ("call_sVidsfFJ6zlzRpelrPkTPlpd", "multiply")
    assert json.loads(call.arguments) == {"a": 1231, "b": 2331}
    assert first.finish_reason == "tool_calls"
    assert (first.usage.input_tokens, first.usage.output_tokens, first.usage.http_requests) == (58, 23, 1)
    last = stream.reply
    assert (last.text, last.finish_reason) == ("1231 \u00d7 2331 = **2,869,461**", "stop")
    assert (last.model, last.id) == (
        "gpt-5.5-2026-04-23",
        "resp_0dacb603de1c9e6b0169fab1c2314081a3b1df3cc5c09e0c60",
    )
    assert [delta.text for delta in deltas][:4] == ["123", "1", " \u00d7", " "]
    agree(deltas, last)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("size", [1, 7, 4096])
async def test_recorded_stream_in_pieces_of_any_size_is_the_reply_that_came_whole(number: int, size: int) -> None:
    body = Recording("responses_tool_use_stream").bodies[number].encode()
    pieces = (body[start : start + size] for start in range(0, len(body), size))
    deltas, reply = await streamed(Answer(pieces))
    whole = json.loads(body.decode().rpartition("\ndata: ")[2])["response"]
    assert essence(reply) == essence(await answer_of(whole))
    agree(deltas, reply)


async def test_recorded_conversation_that_the_server_keeps() -> None:
    recording = Recording("responses_previous_response_id")
    first_words, more_words = "The secret key is sesame", "What is the secret key again?"
    with LoopbackServer(recording.answers()) as server:
        async with OpenAIResponses("gpt-5", base_url=server.base_url, store=True) as model:
            first = await model.chat([ChatMessage(role="user", content=first_words)])
            again = [ChatMessage(role="user", content=more_words)]
            second = await model.chat(again, extra={"previous_response_id": first.id})
    for request, recorded in zip(server.requests, recording.asked, strict=True):
        assert request.json["store"] is True
        for name in ("input", "model", "previous_response_id"):
            assert request.json.get(name) == recorded.get(name)
    assert first.text == "Open sesame! What would you like to unlock?"
    assert (second.text, second.finish_reason, second.id) == ("sesame", "stop", "resp_5678")
    assert (second.usage.input_tokens, second.usage.output_tokens, second.usage.reasoning_tokens) == (10, 1, 0)


# what is sent


def rendered(*messages: ChatMessage, **options: Any) -> dict[str, Any]:
    return OpenAIResponses("m", base_url="http://127.0.0.1:9/v1").render_request(messages or HELLO, **options)


def test_plain_request_keeps_nothing_on_the_server() -> None:
    assert rendered() == {"model": "m", "input": [{"role": "user", "content": "Hello"}], "store": False}


def test_messages_of_the_system_stay_where_they_stand() -> None:
    said = [ChatMessage(role="system", content="Be brief."), *HELLO, ChatMessage(role="system", content="In French.")]
    assert rendered(*said)["input"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "system", "content": "In French."},
    ]


def test_pictures_go_with_their_texts() -> None:
    picture = ImagePart(url="https://example.org/a.png")
    close = ImagePart.of(b"\x89PNG\r\n\x1a\n", detail="high")
    assert rendered(ChatMessage(role="user", content=[TextPart(text="What?"), picture, close]))["input"] == [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "What?"},
                {"type": "input_image", "image_url": "https://example.org/a.png", "detail": "auto"},
                {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo=", "detail": "high"},
            ],
        }
    ]


def test_what_a_model_said_and_refused_is_said_as_its_output() -> None:
    refused = ChatMessage(role="assistant", content=[TextPart(text="Well."), RefusalPart(text="No.")])
    content = [{"type": "output_text", "text": "Well."}, {"type": "refusal", "refusal": "No."}]
    assert rendered(refused)["input"] == [{"role": "assistant", "content": content}]


def test_thoughts_go_before_the_calls_that_came_of_them() -> None:
    thought = ReasoningPart(text="Hm.", id="rs_1", encrypted="sealed")
    call = ToolCallPart(id="c1", name="weather", arguments='{"city": "Oslo"}')
    asked = ChatMessage(role="assistant", content=[thought, TextPart(text="Let me see."), call])
    picture = ImagePart(url="https://example.org/map.png")
    results = (ToolResultPart(call_id="c1", name="weather", content="rain"), picture)
    items = rendered(*HELLO, asked, ChatMessage(role="tool", content=results))["input"]
    assert items[1:] == [
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "Hm."}],
            "encrypted_content": "sealed",
        },
        {"role": "assistant", "content": [{"type": "output_text", "text": "Let me see."}]},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city": "Oslo"}'},
        {"type": "function_call_output", "call_id": "c1", "output": "rain"},
        {
            "role": "user",
            "content": [{"type": "input_image", "image_url": "https://example.org/map.png", "detail": "auto"}],
        },
    ]


def test_what_is_said_after_a_call_stays_after_it() -> None:
    call = ToolCallPart(id="c1", name="weather", arguments="{}")
    items = rendered(ChatMessage(role="assistant", content=[TextPart(text="A"), call, TextPart(text="B")]))["input"]
    assert [item.get("type") or item["content"][0]["text"] for item in items] == ["A", "function_call", "B"]


@pytest.mark.parametrize(
    "content",
    [
        [ReasoningPart(text="Hm.", id="rs_1"), TextPart(text="Hi")],  # the server did not keep it
        [TextPart(text="Hi"), ReasoningPart(text="Hm.", id="rs_1", encrypted="sealed")],  # nothing came of it
    ],
)
def test_thoughts_that_the_server_would_refuse_stay_here(content: list[Any]) -> None:
    (item,) = rendered(ChatMessage(role="assistant", content=content))["input"]
    assert item == {"role": "assistant", "content": [{"type": "output_text", "text": "Hi"}]}


def test_a_message_without_content() -> None:
    assert rendered(ChatMessage(role="assistant"), ChatMessage(role="user"))["input"] == [
        {"role": "user", "content": ""}
    ]


def test_tools_and_the_choice_among_them() -> None:
    body = rendered(tools=[WEATHER, MULTIPLY], tool_choice="weather")
    assert body["tools"][0] == {
        "type": "function",
        "name": "weather",
        "parameters": WEATHER.parameters,
        "strict": False,
    }
    assert body["tools"][1]["description"] == "Multiply two numbers."
    assert body["tool_choice"] == {"type": "function", "name": "weather"}
    assert rendered(tools=[WEATHER], tool_choice="required")["tool_choice"] == "required"
    assert "tool_choice" not in rendered(tool_choice="none")


def test_options_have_the_names_of_the_api() -> None:
    body = rendered(temperature=0.5, max_tokens=100, reasoning="low")
    assert (body["temperature"], body["max_output_tokens"], body["reasoning"]) == (0.5, 100, {"effort": "low"})
    assert body["include"] == ["reasoning.encrypted_content"]
    assert body.keys() == {
        "model",
        "input",
        "store",
        "temperature",
        "max_output_tokens",
        "reasoning",
        "include",
    }
    assert "include" not in rendered(reasoning="none")  # models that do not think refuse it


@pytest.mark.parametrize(("name", "value"), [("stop", "\n"), ("seed", 7)])
def test_options_that_the_api_has_not_are_named(name: str, value: Any) -> None:
    with pytest.raises(LLMBadRequestError, match=f"{name}=.*Leave it out, or use OpenAI"):
        rendered(**{name: value})
    model: Any = OpenAIResponses("m", base_url="http://127.0.0.1:9/v1")
    with pytest.raises(LLMBadRequestError, match=f"{name}="):
        model.stream(HELLO, **{name: value})
    assert rendered(extra={name: value})[name] == value


async def test_how_an_answer_comes_is_not_said_in_extra() -> None:
    with pytest.raises(LLMBadRequestError, match=r"extra=\{'stream': True\}"):
        rendered(extra={"stream": True})


def test_extra_adds_to_what_options_have_filled() -> None:
    class Point(BaseModel):
        x: int

    extra = {"reasoning": {"summary": "auto"}, "text": {"verbosity": "low"}, "include": ["x"], "store": True}
    body = rendered(reasoning="high", output=Point, extra=extra)
    assert body["reasoning"] == {"effort": "high", "summary": "auto"}
    assert body["include"] == ["x", "reasoning.encrypted_content"]
    assert body["text"]["verbosity"] == "low"
    assert body["text"]["format"]["name"] == "Point"
    assert body["store"] is True
    assert rendered(extra=extra)["include"] == ["x"]
    sealed = ["reasoning.encrypted_content"]
    assert rendered(reasoning="high", extra={"include": sealed})["include"] == sealed
    assert rendered(reasoning="high", extra={"reasoning": None})["reasoning"] is None


def test_a_rendered_request_is_the_callers_to_change() -> None:
    rendered(tools=[WEATHER])["tools"][0]["parameters"].clear()
    assert WEATHER.parameters["required"] == ["city"]


def test_half_a_surrogate_pair_is_sent_as_what_it_is() -> None:
    said = ChatMessage(role="tool", content=[ToolResultPart(call_id="c", name="f", content="\ud83d")])
    assert rendered(said, ChatMessage(role="user", content="\ud83d"))["input"] == [
        {"type": "function_call_output", "call_id": "c", "output": "\ufffd"},
        {"role": "user", "content": "\ufffd"},
    ]


# what is answered


async def test_parts_come_in_the_order_of_the_items() -> None:
    reply = await answer_of(
        response(
            reasoning("One.", "Two.", encrypted_content="sealed"),
            message("A", "B"),
            {"type": "web_search_call", "id": "ws_1", "status": "completed"},
            function_call("c1", '{"city": "Oslo"}'),
            function_call("c2", '{"city": "Rome"}'),
        )
    )
    assert reply.message.content == (
        ReasoningPart(text="One.\n\nTwo.", id="rs_1", encrypted="sealed"),
        TextPart(text="AB"),
        ToolCallPart(id="c1", name="weather", arguments='{"city": "Oslo"}'),
        ToolCallPart(id="c2", name="weather", arguments='{"city": "Rome"}'),
    )
    assert (reply.finish_reason, reply.model, reply.id) == ("tool_calls", "m-1", "resp_1")
    usage = reply.usage
    assert (usage.input_tokens, usage.cached_tokens, usage.output_tokens, usage.reasoning_tokens) == (9, 4, 7, 5)
    assert usage.http_requests == 1


async def test_thoughts_in_plain_words() -> None:
    thought = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Hm."}], "encrypted_content": None}
    reply = await answer_of(response({"type": "reasoning", "id": "rs_0", "summary": []}, thought, message("Hi")))
    assert reply.message.content == (ReasoningPart(text="Hm."), TextPart(text="Hi"))


async def test_refusal() -> None:
    reply = await answer_of(response(message("Well. ", refusal="I cannot.")))
    assert (reply.text, reply.refusal, reply.finish_reason) == ("Well. ", "I cannot.", "stop")


async def test_loose_servers_are_understood() -> None:
    loose = response(
        {"type": "message", "content": "Hi"},
        function_call("", None),
        function_call("c", {"city": "Oslo"}),
        function_call("c", " "),
        status="in_progress",
        usage=None,
        model=None,
        id=None,
    )
    reply = await answer_of(loose)
    assert reply.text == "Hi"
    assert [call.arguments for call in reply.tool_calls] == ["{}", '{"city": "Oslo"}', "{}"]
    assert len({call.id for call in reply.tool_calls}) == 3
    assert (reply.usage.input_tokens, reply.usage.http_requests, reply.model, reply.id) == (None, 1, "", None)


async def test_an_answer_that_is_cut_at_its_limit() -> None:
    cut = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    assert (await answer_of(response(message("Once"), **cut))).finish_reason == "length"
    last = {"type": "response.incomplete", "response": response(message("Once"), **cut)}
    assert (await answer_of(response(message("Once"), status="incomplete"))).finish_reason == "length"
    deltas, reply = await streamed(events(piece("output_text", "Once"), last))
    assert (put_together(deltas), reply.finish_reason) == ([("text", "Once")], "length")


FILTERED = {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}


async def test_an_answer_that_a_filter_cuts_short() -> None:
    whole = response(message("Once"), **FILTERED)
    assert (await answer_of(whole)).finish_reason == "content_filter"
    _, reply = await streamed(events(piece("output_text", "Once"), {"type": "response.incomplete", "response": whole}))
    assert (reply.text, reply.finish_reason) == ("Once", "content_filter")


async def test_an_answer_of_which_a_filter_leaves_nothing() -> None:
    whole = response(**FILTERED)
    _, late = await streamed(events({"type": "response.incomplete", "response": whole}))
    for error in (late, await answer_of(whole)):
        assert type(error) is ContentFilterError
        assert (error.code, error.http_requests) == ("content_filter", 1)


FAILURES = [
    ("server_error", LLMServerError),
    ("rate_limit_exceeded", RateLimitError),
    ("insufficient_quota", QuotaError),
    ("context_length_exceeded", ContextLengthError),
    ("invalid_prompt", LLMBadRequestError),
    ("image_too_large", LLMBadRequestError),
    ("bio_policy", ContentFilterError),
    ("something_new", LLMServerError),
]


@pytest.mark.parametrize(("code", "kind"), FAILURES)
async def test_an_answer_that_failed(code: str, kind: type[LLMError]) -> None:
    error = {"code": code, "message": "Something went wrong"}
    failed = response(status="failed", error=error)
    late = events(piece("output_text", "On"), {"type": "response.failed", "response": failed})
    nested = events(piece("output_text", "On"), {"error": error}, named=False)
    bare = events(piece("output_text", "On"), {"type": "error", "sequence_number": 2, "param": None, **error})
    told = [await answer_of(failed)]
    for body in (late, nested, bare):
        deltas, outcome = await streamed(body)
        assert put_together(deltas) == [("text", "On")]
        told.append(outcome)
    for outcome in told:
        assert type(outcome) is kind
        assert (outcome.code, outcome.http_requests) == (code, 1)
        assert "Something went wrong" in str(outcome)


async def test_an_answer_that_failed_without_a_word() -> None:
    assert type(await answer_of(response(status="failed", error=None))) is LLMServerError


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"id": "x"}, "it has no output"),
        ([1], "it has no output"),
        (response(status="queued"), "it is not finished"),
        (response(function_call("c", "{}", name=None)), "does not name"),
        (b"<html>", "no JSON"),
    ],
)
async def test_an_answer_that_is_no_reply(body: Any, said: str) -> None:
    error = await answer_of(body)
    assert type(error) is LLMResponseError
    assert said in str(error)
    assert error.http_requests == 1


async def test_errors_by_status_are_those_of_all_adapters() -> None:
    told = {
        "error": {"message": "This is too long", "type": "invalid_request_error", "code": "context_length_exceeded"}
    }
    error = await answer_of((400, {"x-request-id": "req_1"}, told))
    assert type(error) is ContextLengthError
    assert (error.status, error.request_id, error.http_requests) == (400, "req_1", 1)
    deltas, late = await streamed((429, {"retry-after-ms": "1500"}, {"error": {"message": "Slow down"}}))
    assert (deltas, type(late), late.retry_after, late.http_requests) == ([], RateLimitError, 1.5, 1)


# streams


async def both(whole: dict[str, Any], *told: dict[str, Any], named: bool = True) -> list[Delta]:
    """The deltas of these events; their reply is the one that comes of the whole."""
    deltas, reply = await streamed(events(*told, named=named))
    assert isinstance(reply, Reply), reply
    assert essence(reply) == essence(await answer_of(whole))
    agree(deltas, reply)
    return deltas


async def test_thoughts_calls_and_words_in_pieces() -> None:
    thought = reasoning("One.", "Two.", encrypted_content="sealed")
    calls = [function_call("c1", '{"city": "Oslo"}'), {**function_call("c2", '{"city": "Rome"}'), "id": "fc_2"}]
    output = [thought, message("Let me see."), *calls]
    deltas = await both(
        response(*output),
        {"type": "response.created", "response": response(status="in_progress")},
        added(thought),
        {"type": "response.reasoning_summary_part.added", "output_index": 0, "summary_index": 0},
        piece("reasoning_summary_text", "On", summary_index=0),
        piece("reasoning_summary_text", "e.", summary_index=0),
        piece("reasoning_summary_text", "Two.", summary_index=1),
        done(thought),
        added(output[1], 1),
        piece("output_text", "Let me ", 1, content_index=0),
        {"type": "response.output_text.annotation.added", "output_index": 1, "annotation": {}},
        piece("output_text", "see.", 1, content_index=0),
        done(output[1], 1),
        added(calls[0], 2),
        added(calls[1], 3),
        piece("function_call_arguments", '{"city": ', 2),
        piece("function_call_arguments", '{"city": ', 3),
        piece("function_call_arguments", '"Oslo"}', 2),
        piece("function_call_arguments", '"Rome"}', 3),
        done(calls[0], 2),
        done(calls[1], 3),
        completed(*output),
    )
    assert [delta.text for delta in deltas if delta.type == "reasoning"] == ["On", "e.", "\n\n", "Two."]
    assert [(d.index, d.id, d.text) for d in deltas if d.type == "tool_call"] == [
        (0, "c1", ""),
        (1, "c2", ""),
        (0, None, '{"city": '),
        (1, None, '{"city": '),
        (0, None, '"Oslo"}'),
        (1, None, '"Rome"}'),
    ]


async def test_refusal_in_pieces() -> None:
    refused = message(refusal="I cannot.")
    deltas = await both(
        response(refused), added(refused), piece("refusal", "I "), piece("refusal", "cannot."), completed(refused)
    )
    assert [(delta.type, delta.text) for delta in deltas] == [("refusal", "I "), ("refusal", "cannot.")]


async def test_thoughts_in_plain_words_in_pieces() -> None:
    thought = {**reasoning(), "content": [{"type": "reasoning_text", "text": "Hm."}]}
    await both(
        response(thought),
        added(thought),
        piece("reasoning_text", "H", content_index=0),
        piece("reasoning_text", "m.", content_index=0),
        completed(thought),
    )


async def test_names_of_events_are_not_needed() -> None:
    await both(response(message("Hi")), piece("output_text", "Hi"), completed(message("Hi")), named=False)


async def test_a_server_that_only_tells_what_is_done() -> None:
    whole = [reasoning("Hm."), message("Hi"), function_call("c1", '{"city": "Oslo"}')]
    deltas = await both(response(*whole), *(done(item, at) for at, item in enumerate(whole)), completed(*whole))
    assert [(delta.type, delta.text) for delta in deltas] == [
        ("reasoning", "Hm."),
        ("text", "Hi"),
        ("tool_call", ""),
        ("tool_call", '{"city": "Oslo"}'),
    ]


async def test_a_server_that_tells_all_of_it_at_the_end() -> None:
    whole = [reasoning("Hm."), message("Hi"), function_call("c1", "")]
    await both(response(*whole), completed(*whole))


async def test_a_server_that_does_not_stream() -> None:
    whole = response(message("Hi"), function_call("c1", "{}"))
    deltas, reply = await streamed(whole)
    assert essence(reply) == essence(await answer_of(whole))
    agree(deltas, reply)


async def test_a_server_that_leaves_out_at_the_end_what_it_has_said() -> None:
    output = [reasoning("Hm."), message("Hi"), function_call("c1", "{}")]
    deltas, reply = await streamed(
        events(
            piece("reasoning_summary_text", "Hm.", 0),
            piece("output_text", "Hi", 1),
            {"type": "response.output_text.done", "output_index": 1, "content_index": 0, "text": "Hi!"},
            piece("refusal", "No.", 1, content_index=1),
            added(output[2], 2),
            piece("function_call_arguments", "{}", 2),
            completed(),
        )
    )
    assert reply.message.content == (
        ReasoningPart(text="Hm."),
        TextPart(text="Hi!"),
        RefusalPart(text="No."),
        ToolCallPart(id="c1", name="weather", arguments="{}"),
    )
    agree(deltas, reply)


async def test_items_that_all_have_the_same_place() -> None:
    calls = [function_call("c1", '{"a": 1}'), function_call("c2", '{"b": 2}')]
    told = [e for c in calls for e in (added(c), piece("function_call_arguments", c["arguments"]), done(c))]
    await both(response(*calls), *told, completed(*calls))


async def test_items_that_were_never_announced_and_all_have_the_same_place() -> None:
    calls = [function_call("c1", '{"a": 1}'), function_call("c2", '{"b": 2}')]
    output = [reasoning("Hm."), message("Hi"), *calls]
    told = [piece("reasoning_summary_text", "Hm."), piece("output_text", "H"), piece("output_text", "i")]
    await both(response(*output), *told, *map(done, calls), completed(*output))


async def test_what_a_server_says_of_an_item_that_is_done_counts() -> None:
    sealed = reasoning("Hm.", encrypted_content="sealed")
    _, reply = await streamed(events(added(sealed), done(sealed), completed(reasoning("Hm."))))
    assert reply.message.content == (ReasoningPart(text="Hm.", id="rs_1", encrypted="sealed"),)


async def test_a_server_that_says_something_else_at_the_end() -> None:
    deltas, reply = await streamed(events(piece("output_text", "Yes"), completed(message("No, never"))))
    assert (put_together(deltas), reply.text) == ([("text", "Yes")], "No, never")


async def test_items_without_a_place_are_known_by_their_id() -> None:
    calls = [{**function_call("c1", '{"a": 1}'), "id": "fc_1"}, {**function_call("c2", '{"b": 2}'), "id": "fc_2"}]
    begun = [{"type": "response.output_item.added", "item": {**call, "arguments": ""}} for call in calls]
    pieces = [
        {"type": "response.function_call_arguments.delta", "item_id": call["id"], "delta": call["arguments"]}
        for call in calls
    ]
    await both(response(*calls), *begun, *pieces, completed(*calls))


async def test_a_call_whose_name_comes_late() -> None:
    call = function_call("c1", '{"a": 1}')
    deltas = await both(
        response(call),
        added({**call, "name": None}),
        piece("function_call_arguments", '{"a": '),
        piece("function_call_arguments", "1}"),
        done(call),
        completed(call),
    )
    assert [(delta.id, delta.name, delta.text) for delta in deltas] == [("c1", "weather", '{"a": 1}')]


@pytest.mark.parametrize("ident", ["", "same"])
async def test_calls_that_cannot_be_told_apart_get_ids_of_their_own(ident: str) -> None:
    calls = [{**function_call(ident, "{}"), "id": ""} for _ in range(2)]
    deltas, reply = await streamed(
        events(*(e for at, c in enumerate(calls) for e in (added(c, at), done(c, at))), completed(*calls))
    )
    assert len({call.id for call in reply.tool_calls}) == 2
    agree(deltas, reply)


async def test_a_call_whose_own_id_comes_late_keeps_the_one_that_was_handed_on() -> None:
    call = function_call("c1", "{}")
    deltas, reply = await streamed(events(added({**call, "call_id": None}), done(call), completed(call)))
    assert [made.id for made in reply.tool_calls] == ["fc_1"]
    agree(deltas, reply)


async def test_a_call_whose_id_comes_late_after_something_without_one() -> None:
    output = [{**message("Hi"), "id": None}, {**function_call("c1", "{}"), "id": None}]
    begun = [added(output[0]), added({**output[1], "call_id": None}, 1)]
    await both(response(*output), *begun, done(output[1], 1), completed(*output))


async def test_half_a_surrogate_pair_whose_other_half_comes_with_the_whole() -> None:
    body = 'data: {"type": "response.output_text.delta", "output_index": 0, "delta": "a\\ud83d"}\n\n'
    whole = {"type": "response.output_text.done", "output_index": 0, "text": "a\U0001f600b"}
    deltas, reply = await streamed(body + events(whole, completed(message("a\U0001f600b"))))
    assert [delta.text for delta in deltas] == ["a", "\U0001f600b"]
    agree(deltas, reply)


async def test_a_surrogate_pair_that_is_split() -> None:
    body = (
        'data: {"type": "response.output_text.delta", "output_index": 0, "delta": "a\\ud83d"}\n\n'
        'data: {"type": "response.output_text.delta", "output_index": 0, "delta": "\\ude00b"}\n\n'
        + events(completed(message("a\U0001f600b")))
    )
    deltas, reply = await streamed(body)
    assert [delta.text for delta in deltas] == ["a", "\U0001f600b"]
    assert reply.text == "a\U0001f600b"


async def test_a_stream_that_ends_before_its_end() -> None:
    deltas, error = await streamed(events(piece("output_text", "On")))
    assert type(error) is LLMConnectionError
    assert (put_together(deltas), error.http_requests) == ([("text", "On")], 1)


async def test_a_connection_that_is_cut_in_the_midst_of_a_stream() -> None:
    body = events(*(piece("output_text", "On ") for _ in range(4)), completed(message("On On On On ")))
    deltas, error = await streamed(Answer(body, cut=2))
    assert type(error) is LLMConnectionError
    assert (put_together(deltas), error.http_requests) == ([("text", "On On ")], 1)


async def test_data_that_are_no_json_in_a_stream() -> None:
    deltas, error = await streamed(events(piece("output_text", "On")) + "data: {oops\n\n")
    assert type(error) is LLMResponseError
    assert put_together(deltas) == [("text", "On")]


def forever() -> Iterator[str]:
    while True:
        yield events(piece("output_text", "and on "))


async def test_closing_a_stream_leaves_nothing_behind() -> None:
    before = asyncio.all_tasks()
    with LoopbackServer([Answer(forever()), response(message("Hi"))]) as server:
        async with OpenAIResponses("m", base_url=server.base_url) as model:
            async with model.stream(HELLO) as stream:
                assert (await anext(stream)).text == "and on "
            assert (await model.chat(HELLO)).text == "Hi"
    assert asyncio.all_tasks() == before
    gc.collect()  # a generator that nobody closed would warn now


async def test_cancelling_a_stream_that_waits_leaves_nothing_behind() -> None:
    before = asyncio.all_tasks()
    loop, asked = asyncio.get_running_loop(), asyncio.Event()

    def never(_: Any) -> Answer:
        loop.call_soon_threadsafe(asked.set)
        return Answer(forever(), drip=30)

    with LoopbackServer(never) as server:
        async with OpenAIResponses("m", base_url=server.base_url) as model:
            reading = asyncio.create_task(model.stream(HELLO).read())
            await asked.wait()
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
    assert asyncio.all_tasks() == before
    gc.collect()


async def test_a_server_that_lingers_after_the_end_does_not_hold_up_the_reply() -> None:
    def lingering() -> Iterator[str]:
        yield events(piece("output_text", "Hi"), completed(message("Hi")))
        yield from forever()

    _, reply = await streamed(Answer(lingering()))
    assert reply.text == "Hi"


async def test_connections_are_used_again() -> None:
    connected: list[str] = []

    async def seen(event: str, _: Any) -> None:
        if event == "connection.connect_tcp.complete":
            connected.append(event)

    async def watch(request: httpx2.Request) -> None:
        request.extensions["trace"] = seen

    with LoopbackServer([TextPart(text="Hi")] * 3) as server:
        http = httpx2.AsyncClient(event_hooks={"request": [watch]})
        async with openai.AsyncOpenAI(api_key="k", base_url=server.base_url, http_client=http) as client:
            model = OpenAIResponses("m", client=client)
            for _ in range(3):
                await model.stream(HELLO).read()
    assert len(connected) == 1


PARTS = st.lists(
    st.one_of(
        st.builds(TextPart, text=st.text(min_size=1)),
        st.builds(RefusalPart, text=st.text(min_size=1)),
        st.builds(ReasoningPart, text=st.text(min_size=1), id=st.just("rs_9"), encrypted=st.sampled_from(["x", None])),
        st.builds(
            ToolCallPart,
            id=st.uuids().map(str),
            name=st.sampled_from(["f", "g"]),
            arguments=st.dictionaries(st.text(), st.integers()).map(json.dumps),
        ),
    ),
    max_size=6,
)


@settings(max_examples=60)
@given(PARTS, st.integers(1, 200))
def test_any_answer_is_the_same_in_pieces_and_whole(parts: list[Any], size: int) -> None:
    said = Reply(message=ChatMessage(role="assistant", content=parts), model="m", id="resp_1")
    transport = httpx2.MockTransport(Wire(said, size).respond)

    async def ask() -> tuple[list[Delta], Reply, Reply]:
        async with openai.AsyncOpenAI(api_key="k", http_client=httpx2.AsyncClient(transport=transport)) as client:
            model = OpenAIResponses("m", client=client)
            stream = model.stream(HELLO)
            return [delta async for delta in stream], stream.reply, await model.chat(HELLO)

    deltas, reply, whole = asyncio.run(ask())
    assert reply.message.content == whole.message.content
    assert [p for p in whole.message.content if isinstance(p, ToolCallPart)] == said.tool_calls
    assert (whole.text, whole.refusal) == (said.text, said.refusal)
    agree(deltas, reply)


class Wire:
    """A server of one answer, which it streams in pieces of so many bytes."""

    def __init__(self, reply: Reply, size: int) -> None:
        self.reply = reply
        self.size = size

    def respond(self, request: httpx2.Request) -> httpx2.Response:
        if not json.loads(request.content).get("stream"):
            return httpx2.Response(200, json=response_body(self.reply, model="m"))
        body = "".join(response_events(self.reply, model="m")).encode()
        return httpx2.Response(200, content=self._pieces(body), headers={"content-type": "text/event-stream"})

    async def _pieces(self, body: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(body), self.size):
            yield body[start : start + self.size]


# the model as a whole


async def test_output_of_a_given_shape_and_its_repair() -> None:
    class Joke(BaseModel):
        setup: str
        stars: int = 3

    with LoopbackServer([TextPart(text='{"setup": 1}'), TextPart(text='{"setup": "Why?", "stars": 5}')]) as server:
        async with OpenAIResponses("m", base_url=server.base_url) as model:
            reply = await model.chat(HELLO, output=Joke)
    assert reply.output == Joke(setup="Why?", stars=5)
    asked = server.requests[0].json["text"]["format"]
    assert (asked["type"], asked["name"], asked["strict"]) == ("json_schema", "Joke", True)
    assert asked["schema"]["required"] == ["setup", "stars"]
    assert server.requests[1].json["input"][1] == {"role": "assistant", "content": '{"setup": 1}'}


async def test_a_schema_that_cannot_be_kept_to_strictly_is_sent_as_it_is() -> None:
    schema = {"type": "object", "properties": {"any": {}}}
    asked = rendered(output=schema)["text"]["format"]
    assert (asked["schema"], asked["strict"], asked["name"]) == (schema, False, "output")


def shaped(mode: Any, *messages: ChatMessage, **options: Any) -> dict[str, Any]:
    """The request of a client that asks for a shape in this way."""
    return OpenAIResponses("m", output_mode=mode).render_request(messages or HELLO, output=Place, **options)


class Place(BaseModel):
    name: str


def test_output_tool_has_to_be_called() -> None:
    body = shaped("tool")
    (tool,) = body["tools"]
    assert (tool["type"], tool["name"], tool["parameters"]) == ("function", "Place", Place.model_json_schema())
    assert body["tool_choice"] == {"type": "function", "name": "Place"}
    assert "text" not in body


def test_output_tool_stands_beside_others() -> None:
    body = shaped("tool", tools=[WEATHER, ToolDefinition(name="Place")])
    assert [tool["name"] for tool in body["tools"]] == ["weather", "Place", "Place_"]
    assert body["tool_choice"] == "required"
    first = shaped("tool", tools=[WEATHER], tool_choice="weather")
    assert first["tool_choice"] == {"type": "function", "name": "weather"}


def test_output_in_words_is_said_by_the_system() -> None:
    system, user = shaped("prompt")["input"]
    assert (system["role"], user) == ("system", {"role": "user", "content": "Hello"})
    assert json.dumps(Place.model_json_schema()) in system["content"]
    longer, _ = shaped("prompt", ChatMessage(role="system", content="Be kind."), *HELLO)["input"]
    assert longer["content"] == f"Be kind.\n\n{system['content']}"


PLACE = '{"name": "Rome"}'
ANSWERS = [
    ("tool", [function_call("c1", PLACE, "Place")], PLACE, 0),
    ("tool", [message(PLACE)], PLACE, 0),
    ("tool", [reasoning("Hm."), function_call("c1", PLACE, "Place"), function_call("c2", "{}", "Place")], PLACE, 0),
    ("tool", [function_call("c1", PLACE, "Place"), function_call("c2", '{"city": "Rome"}')], PLACE, 1),
    ("tool", [function_call("c1", '{"city": "Rome"}'), function_call("c2", PLACE, "Place")], PLACE, 1),
    ("tool", [function_call("c1", '{"city": "Rome"}')], "", 1),
    ("prompt", [message(f"Here it is: {PLACE}")], f"Here it is: {PLACE}", 0),
]


@pytest.mark.parametrize(("mode", "items", "text", "calls"), ANSWERS)
async def test_answer_has_the_output_plain_and_in_pieces(mode: Any, items: Any, text: str, calls: int) -> None:
    told = [event for at, item in enumerate(items) for event in (added(item, at), done(item, at))]
    with LoopbackServer([response(*items), events(*told, completed(*items))]) as server:
        async with OpenAIResponses("m", base_url=server.base_url, output_mode=mode) as model:
            plain = await model.chat(HELLO, output=Place, tools=[WEATHER])
            stream = model.stream(HELLO, output=Place, tools=[WEATHER])
            deltas = [delta async for delta in stream]
    agree(deltas, plain)
    assert essence(stream.reply) == essence(plain)
    assert (plain.text, len(plain.tool_calls)) == (text, calls)
    assert plain.output == (None if calls else Place(name="Rome"))
    assert plain.finish_reason == ("tool_calls" if calls else "stop")


async def test_output_tool_is_corrected() -> None:
    script = [response(function_call("c1", said, "Place")) for said in ('{"name": 1}', PLACE)]
    with LoopbackServer(script) as server:
        async with OpenAIResponses("m", base_url=server.base_url, output_mode="tool") as model:
            reply = await model.chat(HELLO, output=Place)
    assert (reply.output, reply.usage.http_requests) == (Place(name="Rome"), 2)
    assert server.requests[1].json["input"][1] == {"role": "assistant", "content": '{"name": 1}'}


async def test_one_operation_with_its_retries() -> None:
    slow = (429, {"retry-after-ms": "1"}, {"error": {"message": "Slow down"}})
    with LoopbackServer([slow, TextPart(text="Hi")]) as server, record() as seen:
        async with OpenAIResponses("m", base_url=server.base_url) as model:
            reply = await model.stream(HELLO).read()
    (op,) = seen.find(Kind.CHAT)
    assert (op.name, op.result, reply.usage.http_requests) == ("m", reply, 2)
    assert seen.noted_on(op) == ["retry", "first_chunk"]


async def test_nothing_is_asked_again_once_something_was_handed_on() -> None:
    failed = events(piece("output_text", "On"), {"type": "error", "code": "server_error", "message": "Oops"})
    with LoopbackServer([failed, TextPart(text="Hi")]) as server:
        async with OpenAIResponses("m", base_url=server.base_url) as model:
            with pytest.raises(LLMServerError):
                await model.stream(HELLO).read()
    assert len(server.requests) == 1


async def test_cost_of_a_call() -> None:
    pytest.importorskip("genai_prices", reason="prices are those of genai-prices")
    usage = {"input_tokens": 1_000_000, "output_tokens": 1_000_000, "input_tokens_details": {"cached_tokens": 0}}
    whole = response(message("Hi"), model="gpt-4o-mini-2024-07-18", usage=usage)
    with LoopbackServer([whole, whole, events(completed(message("Hi"), model="m-1", usage=usage))]) as server:
        async with OpenAIResponses(base_url=server.base_url, provider="openai") as model:
            assert (await model.chat(HELLO)).usage.cost == pytest.approx(0.75)
        async with OpenAIResponses(base_url=server.base_url, provider="mine") as model:
            assert (await model.chat(HELLO)).usage.cost is None
            assert (await model.stream(HELLO).read()).usage.cost is None


async def test_it_is_a_chat_model_that_says_where_it_is() -> None:
    model = OpenAIResponses(base_url="http://127.0.0.1:9/v1")
    assert isinstance(model, ChatModel)
    assert repr(model) == "OpenAIResponses('gpt-4o-mini', base_url='http://127.0.0.1:9/v1')"
    assert (model.server_address, model.server_port, model.provider) == ("127.0.0.1", 9, "openai")
    with pytest.raises(LLMConnectionError, match="gpt-4o-mini"):
        await OpenAIResponses(base_url="http://127.0.0.1:9/v1", retry=None).chat(HELLO)


async def test_errors_name_the_class() -> None:
    with pytest.raises(LLMError, match=r"OpenAIResponses\(\.\.\., api_key=\.\.\.\)"):
        await OpenAIResponses().chat(HELLO)
    with pytest.raises(LLMError, match=r"OpenAIResponses\(client=\.\.\.\)"):
        OpenAIResponses(client=openai.AsyncOpenAI(api_key="k"), api_key="k")


@pytest.mark.parametrize("way", ["chat", "stream"])
async def test_options_of_the_constructor_are_sent_with_each_request(way: str) -> None:
    fields = {"reasoning": {"summary": "auto"}, "user": "u"}
    with LoopbackServer(["Hi", "Hi"]) as server:
        async with OpenAIResponses(
            "m", base_url=server.base_url, temperature=0.1, max_tokens=500, reasoning="low", extra=fields
        ) as model:
            for options in ({}, {"temperature": 0.7, "reasoning": "high"}):
                asked: Any = options
                await (model.stream(HELLO, **asked).read() if way == "stream" else model.chat(HELLO, **asked))
                sent = {name: value for name, value in server.requests[-1].json.items() if name != "stream"}
                assert sent == model.render_request(HELLO, **asked)
    first, second = (request.json for request in server.requests)
    assert (first["temperature"], first["max_output_tokens"], first["user"]) == (0.1, 500, "u")
    assert first["reasoning"] == {"effort": "low", "summary": "auto"}
    assert (second["temperature"], second["max_output_tokens"], second["user"]) == (0.7, 500, "u")
    assert second["reasoning"] == {"effort": "high", "summary": "auto"}


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ({"seed": 1}, "the Responses API has no seed"),
        ({"stop": "END"}, "the Responses API has no stop"),
        ({"extra": {"stream": True}}, r"calling chat\(\) or stream\(\)"),
        ({"stored": True}, r"OpenAIResponses has no option stored=. Did you mean store=\?"),
    ],
)
def test_option_that_cannot_be_asked_for_is_refused_at_construction(option: Any, told: str) -> None:
    with pytest.raises(LLMBadRequestError, match=told):
        OpenAIResponses("m", **option)
