"""What an agent's model is reached by: a transport inside the process, or a server behind a socket.

With the transport, which stands below the `openai` client, there is no socket and no server: what a benchmark sees is
the client and what lies above it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import openai

from server import Model, Server

if TYPE_CHECKING:
    import httpx2 as http
else:
    # What this openai is built on: httpx before its version 3.
    http = importlib.import_module("httpx2" if int(openai.VERSION.split(".")[0]) >= 3 else "httpx")

SYSTEM = "You add numbers."
QUESTION = "What is 2 + 3?"


class Endpoint:
    """A model that asks for a tool `turns` times and answers then, and how clients reach it."""

    url: str

    def __init__(self, turns: int) -> None:
        self.turns = turns

    def http_client(self) -> http.AsyncClient | None:
        """What a client sends its requests through; None for what it makes itself."""
        raise NotImplementedError

    def client(self) -> openai.AsyncOpenAI:
        """The bare client."""
        return openai.AsyncOpenAI(api_key="none", base_url=self.url, http_client=self.http_client(), max_retries=0)

    def asked(self) -> tuple[int, int]:
        """See `Model.asked`."""
        raise NotImplementedError

    def stop(self) -> None:
        """End what was started."""


class Stub(Endpoint):
    """The model inside the process."""

    url = "http://stub.invalid/v1"

    def __init__(self, turns: int) -> None:
        super().__init__(turns)
        self._model = Model(turns)

    def _answer(self, request: http.Request) -> http.Response:
        kind, content = self._model.answer(request.content)
        return http.Response(200, headers={"content-type": kind}, content=content)

    def http_client(self) -> http.AsyncClient:
        return http.AsyncClient(transport=http.MockTransport(self._answer))

    def asked(self) -> tuple[int, int]:
        return self._model.asked()


class Served(Endpoint):
    """The model in a process of its own, behind a socket."""

    def __init__(self, turns: int, chunks: int = 0) -> None:
        super().__init__(turns)
        self._server = Server(turns, chunks)
        self.url = self._server.url

    def http_client(self) -> None:
        return None

    def asked(self) -> tuple[int, int]:
        return self._server.asked()

    def stop(self) -> None:
        self._server.stop()
