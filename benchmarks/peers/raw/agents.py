"""A loop around the bare `openai` client."""

import json
from collections.abc import Awaitable, Callable

from openai import AsyncStream
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam, ChatCompletionToolParam
from openai.types.chat import ChatCompletionMessageFunctionToolCallParam as Call

from peers import Conversing, Pause, Streaming, Text, Tick
from server import MODEL
from stub import QUESTION, SYSTEM, Endpoint

ADD: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}

SPANS: dict[str, int] = {}
SIZES: dict[str, dict[str, int]] = {"agent_turns": {"runs": 1}}


def beginning() -> list[ChatCompletionMessageParam]:
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]


def looping(endpoint: Endpoint, add: Callable[[int, int], Awaitable[int]]) -> Conversing:
    client = endpoint.client()

    async def run() -> tuple[str, list[ChatCompletionMessageParam]]:
        messages = beginning()
        while True:
            reply = await client.chat.completions.create(model=MODEL, messages=messages, tools=[ADD])
            message = reply.choices[0].message
            if not message.tool_calls:
                return message.content or "", messages
            messages.append(message.model_dump(exclude_none=True))
            for call in message.tool_calls:
                result = await add(**json.loads(call.function.arguments))
                messages.append({"role": "tool", "tool_call_id": call.id, "content": str(result)})

    return run


def asking(endpoint: Endpoint, add: Callable[[int, int], Awaitable[int]]) -> Text:
    converse = looping(endpoint, add)

    async def run() -> str:
        return (await converse())[0]

    return run


def agent(endpoint: Endpoint) -> Text:
    async def add(a: int, b: int) -> int:
        return a + b

    return asking(endpoint, add)


agent_traced = agent  # the goal is a multiple of the loop that nobody watches


def agent_spanned(endpoint: Endpoint) -> Text:
    from peers.raw import spanned  # noqa: PLC0415 because others must not pay for OpenTelemetry

    return spanned.agent(endpoint)


def agent_meeting(endpoint: Endpoint, meet: Pause) -> Text:
    async def add(a: int, b: int) -> int:
        await meet()
        return a + b

    return asking(endpoint, add)


def agent_ticking(endpoint: Endpoint, tick: Tick) -> Conversing:
    async def add(a: int, b: int) -> int:
        tick()
        return a + b

    return looping(endpoint, add)


async def heard(chunks: AsyncStream[ChatCompletionChunk]) -> tuple[list[str], list[Call]]:
    pieces: list[str] = []
    calls: dict[int, Call] = {}
    async for chunk in chunks:
        if not chunk.choices:
            continue
        delta = chunk.choices[0].delta
        if delta.content:
            pieces.append(delta.content)
        for part in delta.tool_calls or ():
            assert part.function
            if part.id:
                named = {"name": part.function.name or "", "arguments": ""}
                calls[part.index] = {"id": part.id, "type": "function", "function": named}
            calls[part.index]["function"]["arguments"] += part.function.arguments or ""
    return pieces, list(calls.values())


def agent_streamed(endpoint: Endpoint) -> Streaming:
    client = endpoint.client()

    def add(a: int, b: int) -> int:
        return a + b

    async def run() -> tuple[str, int]:
        messages = beginning()
        while True:
            chunks = await client.chat.completions.create(
                model=MODEL, messages=messages, tools=[ADD], stream=True, stream_options={"include_usage": True}
            )
            pieces, calls = await heard(chunks)
            if not calls:
                return "".join(pieces), len(pieces)
            messages.append({"role": "assistant", "content": None, "tool_calls": calls})
            for call in calls:
                result = add(**json.loads(call["function"]["arguments"]))
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": str(result)})

    return run
