"""Recorded traffic, replayed over a real socket; tests/fixtures/openai-wire/README.md says where it is from."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from agentflow.clock import use_clock
from agentflow.retry import Retry
from agentflow.testing import FakeClock, record
from agentflow_llm import ChatMessage, OpenAI, RateLimitError, Reply, ToolDefinition, ToolResultPart
from agentflow_llm.server import LoopbackServer
from agentflow_llm.wire import read_request

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

    def conversation(self) -> tuple[list[ChatMessage], list[ToolDefinition]]:
        """The messages and tools of the first request."""
        return read_request(self.asked[0])

    def assert_same_requests(self) -> None:
        """What was sent is what was recorded, but for what a server takes as not there."""
        assert [_essence(r.json) for r in self.server.requests] == [_essence(body) for body in self.asked]


def _essence(body: dict[str, Any]) -> dict[str, Any]:
    body = json.loads(json.dumps(body))
    for message in body["messages"]:
        for call in message.get("tool_calls", ()):  # a recorder's client may have rewritten the JSON in them
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return {name: value for name, value in body.items() if (name, value) != ("stream", False)}


async def test_plain_reply() -> None:
    recording = Recording("chat_basic")
    messages, _ = recording.conversation()
    with recording.server as server:
        async with OpenAI("gpt-4o-mini", base_url=server.base_url) as model:
            reply = await model.chat(messages)
    recording.assert_same_requests()
    assert (reply.text, reply.finish_reason, reply.model) == ("This is a test.", "stop", "gpt-4o-mini-2024-07-18")
    assert reply.id == "chatcmpl-ASYMQRl3A3DXL9FWCK9tnGRcKIO7q"
    usage = reply.usage
    assert (usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens) == (12, 5, 0, 0)


async def test_parallel_calls_and_their_results() -> None:
    recording = Recording("chat_parallel_tools_roundtrip")
    messages, tools = recording.conversation()
    with recording.server as server:
        async with OpenAI("gpt-4o-mini", base_url=server.base_url) as model:
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
    messages, tools = recording.conversation()
    replies: list[Reply] = []
    with recording.server as server:
        async with OpenAI("gpt-4o-mini", base_url=server.base_url) as model:
            for content in ("123124", "true", None):
                reply = await model.chat(messages, tools=tools)
                replies.append(reply)
                results = [
                    ToolResultPart(call_id=call.id, name=call.name, content=str(content)) for call in reply.tool_calls
                ]
                messages += [reply.message, ChatMessage(role="tool", content=results)]
    recording.assert_same_requests()
    assert [[call.name for call in reply.tool_calls] for reply in replies] == [
        ["lookup_population"],
        ["can_have_dragons"],
        [],
    ]
    assert replies[-1].text == "YES"


@pytest.mark.parametrize("attempts", [1, 2, 3])
async def test_too_many_requests_are_tried_again_as_the_policy_says(attempts: int) -> None:
    recording = Recording("chat_error_429_openrouter_x3")
    del recording.asked[attempts:]
    messages, _ = recording.conversation()
    with recording.server as server, use_clock(FakeClock()) as clock, record() as seen:
        model = OpenAI(
            "google/gemini-2.0-flash-exp:free", base_url=server.base_url, retry=Retry(attempts), timeout=None
        )
        task = asyncio.create_task(model.chat(messages))
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
