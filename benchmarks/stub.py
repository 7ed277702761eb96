"""A model that costs next to nothing: a transport inside the process, below the `openai` client.

There is no socket and no server, so what a benchmark sees is the client and what lies above it.
"""

from __future__ import annotations

import importlib
import json
from typing import TYPE_CHECKING, Any

import openai

from server import MODEL

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx2 as http
else:
    # What this openai is built on: httpx before its version 3.
    http = importlib.import_module("httpx2" if int(openai.VERSION.split(".")[0]) >= 3 else "httpx")

SYSTEM = "You add numbers."
QUESTION = "What is 2 + 3?"
ANSWER = "The sum is 5."
URL = "http://stub.invalid/v1"


class Stub:
    """Asks for `add(a=2, b=3)` until the conversation carries `turns` of its results, then gives the answer."""

    def __init__(self, turns: int) -> None:
        self.turns = turns
        self.requests = self.results = 0
        calls = [
            {"id": f"call_{i}", "type": "function", "function": {"name": "add", "arguments": '{"a": 2, "b": 3}'}}
            for i in range(turns)
        ]
        self._replies = [_reply({"content": None, "tool_calls": [call]}, "tool_calls") for call in calls]
        self._replies.append(_reply({"content": ANSWER}, "stop"))

    def _answer(self, request: http.Request) -> http.Response:
        body = request.content.replace(b'": "', b'":"')
        results = body.count(b'"role":"tool"')
        self.requests += 1
        self.results += results > 0 and body.count(b'"content":"5"') == results
        return http.Response(
            200, headers={"content-type": "application/json"}, content=self._replies[min(results, self.turns)]
        )

    def http_client(self) -> http.AsyncClient:
        """What a client of the model sends its requests through."""
        return http.AsyncClient(transport=http.MockTransport(self._answer))

    def client(self) -> openai.AsyncOpenAI:
        """The bare client."""
        return openai.AsyncOpenAI(api_key="none", base_url=URL, http_client=self.http_client(), max_retries=0)


def _reply(message: Mapping[str, Any], reason: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason, "logprobs": None}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    reply = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice]}
    return json.dumps({**reply, "usage": usage}).encode()
