"""Recorded traffic, replayed over a real socket; tests/fixtures/openai-wire/README.md says where it is from."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from agentflow.clock import use_clock
from agentflow.observe import Kind
from agentflow.retry import Retry
from agentflow.testing import FakeClock, record
from agentflow_llm import (
    ChatMessage,
    ContentFilterError,
    Delta,
    LLMAuthenticationError,
    LLMBadRequestError,
    LLMError,
    LLMNotFoundError,
    OpenAI,
    RateLimitError,
    ReasoningPart,
    Reply,
    TextPart,
    ToolCallPart,
    ToolDefinition,
    ToolResultPart,
)
from agentflow_llm.accumulator import Accumulator
from agentflow_llm.server import LoopbackServer
from agentflow_llm.serving import read_request
from agentflow_llm.sse import EventReader

RECORDINGS = Path(__file__).parent / "fixtures" / "openai-wire"


class Recording:
    """Serves the responses of a recording, and compares the requests."""

    def __init__(self, name: str) -> None:
        interactions = json.loads((RECORDINGS / f"{name}.json").read_text(encoding="utf-8"))["interactions"]
        self.asked = [interaction["request"]["json"] for interaction in interactions]
        answers = [interaction["response"] for interaction in interactions]
        own = {"connection", "date", "server"}  # of the server that plays
        self.server = LoopbackServer(
            [(a["status"], {k: v for k, v in a["headers"].items() if k not in own}, a["body"]) for a in answers]
        )
        self.messages, self.tools = read_request(self.asked[0])

    def model(self, **how: Any) -> OpenAI:
        """The model that was asked, where the recording is played."""
        return OpenAI(self.asked[0]["model"], base_url=self.server.base_url, **how)

    def conversation(self) -> tuple[list[ChatMessage], list[ToolDefinition]]:
        """The messages and tools of the first request."""
        return list(self.messages), self.tools

    async def replies(self, results: Sequence[str] = (), **asked: Any) -> list[Reply]:
        """What the model says to the first request, and then to each of these results of its tools.

        It is streamed where that was recorded.
        """
        messages, tools = self.conversation()
        replies: list[Reply] = []
        with self.server:
            async with self.model() as model:
                for content in (*results, None):
                    options: dict[str, Any] = {"tools": tools, **asked}
                    if self.asked[len(replies)].get("stream"):
                        replies.append(await model.stream(messages, **options).read())
                    else:
                        replies.append(await model.chat(messages, **options))
                    answers = [
                        ToolResultPart(call_id=call.id, name=call.name, content=str(content))
                        for call in replies[-1].tool_calls
                    ]
                    messages += [replies[-1].message, ChatMessage(role="tool", content=answers)]
        return replies

    async def error(self) -> Any:
        """The error that the model ends in."""
        with self.server:
            async with self.model(retry=None) as model:
                with pytest.raises(LLMError) as caught:
                    await model.chat(self.messages)
        return caught.value

    async def streamed(self, **asked: Any) -> tuple[list[Delta], Any]:
        """The deltas of a stream, and the reply or error that it ends in."""
        deltas: list[Delta] = []
        with self.server:
            async with self.model(retry=None) as model:
                stream = model.stream(self.messages, tools=self.tools, **asked)
                try:
                    async for delta in stream:
                        deltas.append(delta)  # noqa: PERF401 because what came before an error is wanted too
                except LLMError as error:
                    return deltas, error
        return deltas, stream.reply

    def assert_same_requests(self, *but: str) -> None:
        """What was sent is what was recorded, but for what a server takes as not there, and these fields."""
        sent = [_essence(request.json, but) for request in self.server.requests]
        assert sent == [_essence(body, but) for body in self.asked]


def _essence(body: dict[str, Any], but: Sequence[str] = ()) -> dict[str, Any]:
    body = json.loads(json.dumps(body))
    body["messages"] = [
        {name: value for name, value in message.items() if value is not None} for message in body["messages"]
    ]
    for message in body["messages"]:
        for call in message.get("tool_calls", ()):  # a recorder's client may have rewritten the JSON in them
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    for tool in body.get("tools", ()):
        unsaid = {"description": "", "strict": False}
        tool["function"] = {n: value for n, value in tool["function"].items() if unsaid.get(n) != value}
    left_out = (("stream", False), ("n", 1))
    return {name: value for name, value in body.items() if (name, value) not in left_out and name not in but}


def tokens(reply: Reply) -> tuple[int | None, ...]:
    usage = reply.usage
    return usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens


# --------------------------------------------------------------------------------------------------- plain answers


async def test_plain_reply() -> None:
    recording = Recording("chat_basic")
    (reply,) = await recording.replies()
    recording.assert_same_requests()
    assert (reply.text, reply.finish_reason, reply.model) == ("This is a test.", "stop", "gpt-4o-mini-2024-07-18")
    assert reply.id == "chatcmpl-ASYMQRl3A3DXL9FWCK9tnGRcKIO7q"
    assert tokens(reply) == (12, 5, 0, 0)


async def test_tokens_from_the_cache_are_counted() -> None:
    recording = Recording("chat_cached_tokens")
    with recording.server:
        async with recording.model() as model:
            replies = [await model.chat(read_request(asked)[0]) for asked in recording.asked]
    recording.assert_same_requests()
    assert [reply.usage.cached_tokens for reply in replies] == [0, 1280]
    assert replies[0].usage.input_tokens == 1370


async def test_parallel_calls_and_their_results() -> None:
    recording = Recording("chat_parallel_tools_roundtrip")
    messages, tools = recording.conversation()
    with recording.server:
        async with recording.model() as model:
            first = await model.chat(messages, tools=tools, tool_choice="auto")
            weather = ["50 degrees and raining", "70 degrees and sunny"]
            results = [
                ToolResultPart(call_id=call.id, name=call.name, content=content)
                for call, content in zip(first.tool_calls, weather, strict=True)
            ]
            second = await model.chat([*messages, first.message, ChatMessage(role="tool", content=results)])
    recording.assert_same_requests()
    assert first.finish_reason == "tool_calls"
    assert [json.loads(call.arguments) for call in first.tool_calls] == [
        {"location": "Seattle, WA"},
        {"location": "San Francisco, CA"},
    ]
    assert second.text.startswith("Today, the weather in Seattle is 50 degrees and raining")
    assert (first.usage + second.usage).total_tokens == 126 + 124


async def test_one_call_after_the_other() -> None:
    recording = Recording("chat_sequential_tool_chain")
    replies = await recording.replies(["123124", "true"])
    recording.assert_same_requests()
    assert [[call.name for call in reply.tool_calls] for reply in replies] == [
        ["lookup_population"],
        ["can_have_dragons"],
        [],
    ]
    assert replies[-1].text == "YES"


async def test_model_corrects_the_arguments_of_a_call() -> None:
    recording = Recording("chat_tool_retry_loop")
    results = ["Did you mean Mexico City?\n\nFix the errors and try again.", "sunny"]
    replies = await recording.replies(results, tool_choice="auto")
    recording.assert_same_requests()
    assert [call.arguments for reply in replies for call in reply.tool_calls] == [
        '{"city":"CDMX"}',
        '{"city":"Mexico City"}',
    ]
    assert replies[-1].text == "The weather in Mexico City is currently sunny."


async def test_call_without_an_id_gets_one_that_its_result_bears() -> None:
    recording = Recording("chat_gemini_tool_call_empty_id")
    first, second = await recording.replies(["Noon"], tool_choice="auto")
    recording.assert_same_requests("messages")
    (call,) = first.tool_calls
    _, said, result = recording.server.requests[1].json["messages"]
    assert call.id.startswith("call_")
    assert said["tool_calls"][0]["id"] == result["tool_call_id"] == call.id
    assert second.text == "The current time is Noon."
    assert first.usage.total_tokens == 109, "thoughts included, which the server counts only there"


async def test_steps_of_an_agent_that_acts_in_words() -> None:
    recording = Recording("react_llamaindex_two_steps")
    with recording.server:
        async with recording.model() as model:
            replies = [await model.chat(read_request(asked)[0], temperature=0.1) for asked in recording.asked]
    recording.assert_same_requests()
    assert 'Action: multiply\nAction Input: {"a": 2, "b": 3}' in replies[0].text
    assert replies[1].text.endswith("Answer: 2 times 3 is 6.")


class CityLocation(BaseModel):
    city: str
    country: str


async def test_output_of_a_given_shape_after_a_call() -> None:
    recording = Recording("chat_json_schema_output")
    shape = {**recording.asked[0]["response_format"]["json_schema"]["schema"], "title": "result"}
    first, second = await recording.replies(["Mexico"], tool_choice="auto", output=shape)
    recording.assert_same_requests("response_format")
    sent = recording.server.requests[0].json["response_format"]["json_schema"]
    assert (sent["name"], sent["strict"], sent["schema"]["required"]) == ("result", True, ["city", "country"])
    assert [call.name for call in first.tool_calls] == ["get_user_country"]
    assert second.output == {"city": "Mexico City", "country": "Mexico"}


async def test_output_of_a_local_model_that_thinks_first() -> None:
    recording = Recording("chat_ollama_local_json_schema")
    (reply,) = await recording.replies(output=CityLocation)
    recording.assert_same_requests("response_format")
    assert reply.output == CityLocation(city="Paris", country="France")
    assert [type(part) for part in reply.message.content] == [ReasoningPart, TextPart]


# ---------------------------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("name", "kind", "status", "code", "told"),
    [
        ("chat_error_400_unsupported_role", LLMBadRequestError, 400, "unsupported_value", "does not support 'system'"),
        ("chat_error_401_bad_key", LLMAuthenticationError, 401, "invalid_api_key", "Incorrect API key provided"),
        ("chat_error_404_model", LLMNotFoundError, 404, "model_not_found", "`this-model-does-not-exist`"),
        ("azure_prompt_filtered", ContentFilterError, 400, "content_filter", "The response was filtered"),
    ],
)
async def test_refusal_of_a_server_is_an_error_of_its_kind(
    name: str, kind: type[LLMError], status: int, code: str, told: str
) -> None:
    recording = Recording(name)
    error = await recording.error()
    recording.assert_same_requests()
    assert type(error) is kind
    assert (error.status, error.code, error.http_requests) == (status, code, 1)
    assert told in str(error)


@pytest.mark.parametrize("attempts", [1, 2, 3])
async def test_too_many_requests_are_tried_again_as_the_policy_says(attempts: int) -> None:
    recording = Recording("chat_error_429_openrouter_x3")
    del recording.asked[attempts:]
    with recording.server, use_clock(FakeClock()) as clock, record() as seen:
        model = recording.model(retry=Retry(attempts), timeout=None)
        task = asyncio.create_task(model.chat(recording.messages))
        while not task.done():
            await clock.advance(1)
        with pytest.raises(RateLimitError, match="is temporarily rate-limited upstream") as caught:
            await task
        await model.aclose()
    recording.assert_same_requests()
    assert (caught.value.status, caught.value.code, caught.value.attempts) == (429, "429", attempts)
    (op,) = seen.operations
    notes = [note.facts for note in seen.notes.get(op.ref.id, ())]
    assert [(note["attempt"], note["status"], note["retry_after"]) for note in notes] == [
        (attempt, 429, None) for attempt in range(1, attempts)
    ]
    assert all(0 <= note["wait"] <= 30 for note in notes)
    assert clock.now - 1_000_000_000 >= sum(note["wait"] for note in notes)


# ----------------------------------------------------------------------------------------------------------- streams


async def test_stream_ends_with_its_usage() -> None:
    recording = Recording("chat_stream_usage")
    deltas, reply = await recording.streamed()
    recording.assert_same_requests()
    assert [delta.text for delta in deltas] == ['"This', " is", " a", " test", '."']
    assert (reply.text, reply.finish_reason, reply.model) == ('"This is a test."', "stop", "gpt-4-0613")
    assert tokens(reply) == (12, 5, 0, 0)


async def test_stream_of_azure_begins_without_choices() -> None:
    recording = Recording("azure_stream")
    deltas, reply = await recording.streamed()
    recording.assert_same_requests("stream_options")
    assert reply.text == "".join(delta.text for delta in deltas)
    assert reply.text.startswith("Why")
    assert (reply.model, reply.id) == ("gpt-35-turbo", "chatcmpl-9HpbaAXyt0cAnlWvI8kUAFpZt5jyQ")
    assert tokens(reply) == (None, None, None, None)


async def test_stream_that_runs_into_its_limit_is_a_reply() -> None:
    recording = Recording("vllm_stream_length")
    deltas, reply = await recording.streamed(max_tokens=20, temperature=0.7)
    recording.assert_same_requests("stream_options")
    assert (len(deltas), reply.finish_reason, reply.text[:9]) == (20, "length", "<|im_end|")


async def test_parallel_calls_come_in_fragments() -> None:
    recording = Recording("chat_stream_parallel_tools")
    deltas, reply = await recording.streamed(tool_choice="auto")
    recording.assert_same_requests()
    assert reply.tool_calls == [
        ToolCallPart(
            id="call_fHCjJqt9Pysde6vcJcvbXGBx", name="get_current_weather", arguments='{"location": "Seattle, WA"}'
        ),
        ToolCallPart(
            id=reply.tool_calls[1].id, name="get_current_weather", arguments='{"location": "San Francisco, CA"}'
        ),
    ]
    for index, call in enumerate(reply.tool_calls):
        pieces = [delta for delta in deltas if delta.index == index]
        assert (pieces[0].id, pieces[0].name) == (call.id, call.name)
        assert "".join(piece.text for piece in pieces) == call.arguments
    assert (reply.finish_reason, reply.usage.total_tokens) == ("tool_calls", 126)


@pytest.mark.parametrize(
    ("name", "ident", "reason", "counted"),
    [
        ("chat_stream_kimi_variant_a", "0", None, 74),
        ("chat_stream_kimi_variant_c", "llm_version:0", "tool_calls", None),
    ],
)
async def test_calls_in_the_accents_of_kimi(name: str, ident: str, reason: str | None, counted: int | None) -> None:
    recording = Recording(name)
    first, second = await recording.replies(["0.fixed-version"])
    recording.assert_same_requests("messages")
    assert first.tool_calls == [ToolCallPart(id=ident, name="llm_version", arguments="{}")]
    assert first.finish_reason == reason
    assert counted is None or first.usage.total_tokens == counted
    assert "0.fixed-version" in second.text
    assert recording.server.requests[1].json["messages"][-2:] == [
        {
            "role": "assistant",
            "tool_calls": [{"id": ident, "type": "function", "function": {"name": "llm_version", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": ident, "content": "0.fixed-version"},
    ]


async def test_first_of_two_answers_is_the_reply() -> None:
    recording = Recording("chat_stream_two_choices")
    with record() as seen:
        deltas, reply = await recording.streamed(extra={"n": 2})
    recording.assert_same_requests()
    assert reply.text == "".join(delta.text for delta in deltas)
    assert reply.text.startswith("I'm")
    assert reply.usage.total_tokens == 130
    (op,) = seen.find(Kind.CHAT)
    assert [note.facts for note in seen.notes[op.ref.id] if note.name == "choices_ignored"] == [{"ignored": 1}]


async def test_error_in_the_midst_of_a_stream_is_one_of_its_kind() -> None:
    recording = Recording("chat_stream_midstream_error")
    deltas, error = await recording.streamed(extra={"max_completion_tokens": 10})
    recording.assert_same_requests()
    assert {delta.type for delta in deltas} == {"reasoning"}
    assert deltas[0].text == "We need"
    assert type(error) is LLMBadRequestError
    assert (error.status, error.code, error.http_requests) == (400, "400", 1)
    assert "Token limit reached" in str(error)


STREAMS = [path for path in RECORDINGS.glob("*.json") if '"stream": true' in path.read_text(encoding="utf-8")]
BODIES = [
    interaction["response"]["body"].encode()
    for path in STREAMS
    for interaction in json.loads(path.read_text(encoding="utf-8"))["interactions"]
    if not path.stem.startswith("responses_")
]


def put_together(reads: Sequence[bytes]) -> Any:
    """The deltas of these reads, the error, and the reply without what is made up for it."""
    reader, chunks = EventReader(), Accumulator()
    deltas = [delta for read in reads for delta in chunks.feed(reader.feed(read))]
    deltas += chunks.end()
    return deltas, chunks.error, chunks.reply().model_dump(exclude={"message": {"id"}})


@given(st.sampled_from(BODIES), st.lists(st.floats(0, 1), max_size=20))
def test_recorded_stream_is_the_same_wherever_the_network_splits_it(body: bytes, cuts: list[float]) -> None:
    places = sorted(int(cut * len(body)) for cut in cuts)
    reads = [body[start:end] for start, end in zip([0, *places], [*places, len(body)], strict=True)]
    assert put_together(reads) == put_together([body])


def test_every_recording_of_chat_completions_is_replayed_here() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    others = ("embeddings_", "responses_")
    names = [path.stem for path in RECORDINGS.glob("*.json") if not path.stem.startswith(others)]
    assert len(names) == 22
    assert [name for name in names if f'"{name}"' not in here] == []
