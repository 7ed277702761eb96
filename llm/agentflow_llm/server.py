"""A server on 127.0.0.1 that speaks Chat Completions from a script, faults included: for tests, and to try things out.

`python -m agentflow_llm.server --port 8000` answers with `OfflineModel` until it is interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from .loose import as_dict, parsed
from .messages import Reply
from .offline import OfflineModel
from .wire import read_request, render_reply

if TYPE_CHECKING:
    from types import TracebackType


@dataclass(frozen=True)
class Answer:
    """What the server does with one request.

    - `body`: JSON, sent as such; a string or bytes, sent as they are, such as garbage.
    - `delay`: seconds before it answers.
    - `cut`: close the connection in the middle of the body.
    """

    body: Any = ""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    delay: float = 0.0
    cut: bool = False


Scripted = Answer | Reply | Mapping[str, Any] | str | tuple[int, Mapping[str, str], Any]
"""An answer: also a reply, a JSON body, a text, or (status, headers, body)."""

Script = Callable[[Any], Scripted] | Sequence[Scripted | Callable[[Any], Scripted]]
_DATA = (Answer, Reply, Mapping, str, tuple)


@dataclass(frozen=True)
class Request:
    """A request that the server got. Names of headers are in lower case; `json` is None where there is none."""

    method: str
    path: str
    headers: Mapping[str, str]
    json: Any


class LoopbackServer:
    """Serves POST /v1/chat/completions from `script` while its `with` block lasts.

    Its `models` are listed at GET /v1/models, and at GET /api/tags as an Ollama lists them.

    `script` has an answer for each request, in order, or is a function of a request's JSON that answers
    all of them; a request too many gets a 400 that says so. `requests` are those it got.
    """

    def __init__(self, script: Script = (), *, models: Sequence[str] = ("loopback",), port: int = 0) -> None:
        self._script = script if callable(script) else list(script)
        self._models = list(models)
        self._port = port
        self._served = 0
        self._lock = threading.Lock()
        self._http: _Server | None = None
        self.requests: list[Request] = []

    @property
    def base_url(self) -> str:
        """The address to give to a client; it ends in /v1."""
        if self._http is None:
            raise RuntimeError("LoopbackServer has an address only while it runs: with LoopbackServer(...) as server:")
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> Self:
        self._http = _Server(self._port, self)
        threading.Thread(target=self._http.serve_forever, args=(0.05,), name="LoopbackServer", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._http is not None:
            self._http.stop()

    def answer(self, request: Request) -> Answer:
        """What to answer."""
        with self._lock:
            self.requests.append(request)
            if request.method == "GET" and request.path in _LISTS:
                return Answer(_LISTS[request.path](self._models))
            if (request.method, request.path) != ("POST", "/v1/chat/completions"):
                return _refusal(HTTPStatus.NOT_FOUND, f"LoopbackServer has no {request.method} {request.path}")
            number = self._served
            self._served += 1
        if as_dict(request.json).get("stream"):
            return _refusal(HTTPStatus.BAD_REQUEST, "LoopbackServer does not stream")
        return self._next(number, request)

    def _next(self, number: int, request: Request) -> Answer:
        if callable(self._script):
            return _as_answer(self._script(request.json), request)
        if number >= len(self._script):
            return _refusal(
                HTTPStatus.BAD_REQUEST, f"LoopbackServer has only {len(self._script)} answers in its script"
            )
        return _as_answer(_worked_out(self._script[number], request.json), request)


def _models(names: Sequence[str]) -> Any:
    return {"object": "list", "data": [{"id": name, "object": "model"} for name in names]}


def _tags(names: Sequence[str]) -> Any:
    return {"models": [{"name": name} for name in names]}


_LISTS = {"/v1/models": _models, "/api/tags": _tags}


def _worked_out(said: Any, body: Any) -> Any:
    return said(body) if callable(said) else said


def _as_answer(said: Scripted, request: Request) -> Answer:
    if isinstance(said, Answer):
        return said
    if isinstance(said, Reply):
        return Answer(render_reply(said, model=said.model or str(as_dict(request.json).get("model"))))
    if isinstance(said, tuple):
        return Answer(said[2], said[0], said[1])
    return Answer(said)


def _refusal(status: int, message: str) -> Answer:
    return Answer({"error": {"message": message, "type": "invalid_request_error", "code": None}}, status)


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # stop() waits for them: none outlives its server
    disable_nagle_algorithm = True

    def __init__(self, port: int, owner: LoopbackServer) -> None:
        self.owner = owner
        self.stopping = threading.Event()
        self.connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    def stop(self) -> None:
        self.stopping.set()
        self.shutdown()
        for connection in list(self.connections):  # a client may keep it open, and its thread would wait for more
            _shut(connection)
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # a reply goes out in one piece

    def setup(self) -> None:
        """Begin with a connection."""
        super().setup()
        self.loopback.connections.add(self.connection)

    def finish(self) -> None:
        """Be done with a connection."""
        self.loopback.connections.discard(self.connection)
        super().finish()

    @property
    def loopback(self) -> _Server:
        """The server, as what it is."""
        assert isinstance(self.server, _Server)
        return self.server

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            self.close_connection = True  # the client went away, or stop() did not wait for it

    def do_GET(self) -> None:
        self._respond()

    def do_POST(self) -> None:
        self._respond()

    def _respond(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        text = body.decode("utf-8", "replace")
        answer = self.loopback.owner.answer(Request(self.command, self.path, headers, parsed(text)))
        if answer.delay and self.loopback.stopping.wait(answer.delay):
            self.close_connection = True
            return
        content = answer.body if isinstance(answer.body, bytes | str) else json.dumps(answer.body)
        content = content.encode() if isinstance(content, str) else content
        self.send_response(answer.status)
        for name, value in {"content-type": "application/json", **answer.headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if answer.cut else content)
        self.wfile.flush()
        if answer.cut:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 because the base class names it so
        """Nothing: who wants to know what came, reads `requests`."""


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # its client was faster


def offline_answer(body: Any) -> Scripted:
    """What `OfflineModel` says to the JSON of a request."""
    messages, tools = read_request(body)
    choice = as_dict(body).get("tool_choice")
    if not isinstance(choice, str):
        choice = as_dict(as_dict(choice).get("function")).get("name")
    return asyncio.run(OfflineModel().chat(messages, tools=tools, tool_choice=choice))


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve on 127.0.0.1 until interrupted. Raises `SystemExit` with a line that says why it cannot."""
    parser = argparse.ArgumentParser(prog="python -m agentflow_llm.server", description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="0 for any that is free (default: %(default)s)")
    port = parser.parse_args(arguments).port
    with ExitStack() as until_interrupted:
        try:
            server = until_interrupted.enter_context(LoopbackServer(offline_answer, models=["offline"], port=port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error).rstrip(".")
            sys.exit(f"Cannot serve at 127.0.0.1:{port}: {reason}. Choose another with --port; 0 is any that is free.")
        until_interrupted.enter_context(suppress(KeyboardInterrupt))
        sys.stdout.write(
            f"Answering without a language model at {server.base_url}. Try it from another terminal:\n"
            f"    OPENAI_BASE_URL={server.base_url} agentflow demo\n"
        )
        sys.stdout.flush()
        threading.Event().wait()


if __name__ == "__main__":
    main()
