"""What all scenes of the comparison share: their model, its failures, and how long things take."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import stub
from stub import Endpoint

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx2 as http
else:
    http = stub.http

WAIT = 0.07
"""Seconds between two attempts."""
WORK = 0.03
"""Seconds that a piece of work takes."""
ABSENT = 0.4
"""Seconds until the person answers."""
PRIVATE = "the patient's name is Zebedee"
"""What nobody allowed to be sent anywhere."""
QUESTION = f"What is north and south of here? ({PRIVATE})"
ANSWER = "ice and ice"
TOKENS = 10
"""Tokens that each request has."""


class Failing:
    """Fails twice, then succeeds."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.calls < 3:
            raise ConnectionError("no route to north")
        return "ice"


class Scripted(Endpoint):
    """A model that refuses `refusals` times, then asks for all tools at once, if there are any, then answers."""

    url = "http://stub.invalid/v1"

    def __init__(self, refusals: int = 0, *, tools: tuple[str, ...] = ()) -> None:
        super().__init__(int(bool(tools)))
        self._refusals = refusals
        self._tools = tools

    def _answer(self, request: http.Request) -> http.Response:
        if self._refusals:
            self._refusals -= 1
            error = {"error": {"message": "slow down", "type": "rate_limit", "code": "rate_limit_exceeded"}}
            return http.Response(429, headers={"retry-after-ms": str(int(WAIT * 1000))}, json=error)
        body: Any = json.loads(request.content)
        if not self._tools or any(message["role"] == "tool" for message in body["messages"]):
            return http.Response(200, json=_reply({"content": ANSWER}, "stop"))
        calls = [
            {"id": f"call_{tool}", "type": "function", "function": {"name": tool, "arguments": "{}"}}
            for tool in self._tools
        ]
        return http.Response(200, json=_reply({"content": None, "tool_calls": calls}, "tool_calls"))

    def http_client(self) -> http.AsyncClient:
        return http.AsyncClient(transport=http.MockTransport(self._answer))


def _reply(message: Mapping[str, Any], reason: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o",
        "choices": [
            {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason, "logprobs": None}
        ],
        "usage": {"prompt_tokens": TOKENS, "completion_tokens": 5, "total_tokens": TOKENS + 5},
    }


async def north() -> str:
    """What is north of here."""
    await asyncio.sleep(WORK)
    return "ice"


async def south() -> str:
    """What is south of here."""
    await asyncio.sleep(WORK)
    return "ice"


async def work(number: int) -> int:
    """A piece of work."""
    await asyncio.sleep(WORK)
    return number


async def cancelled(running: Any) -> None:
    """Let it run for a while, then cancel it."""
    task = asyncio.ensure_future(running)
    await asyncio.sleep(WORK)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
