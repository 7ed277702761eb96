"""A server on 127.0.0.1 that speaks OpenAI's APIs from a script, faults included: for tests, and to try things out.

`python -m agentflow_llm.server --port 8000` answers with `OfflineModel` until it is interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self

from .loopback import EVENTS, Answer, HttpServer, Request
from .loose import as_dict
from .messages import ChatMessage, ReasoningPart, RefusalPart, Reply, TextPart, ToolCallPart
from .model import Embeddings
from .offline import OfflineModel
from .serving import chat_body, chat_events, chat_options, embeddings_body, embeddings_of, endless, read_request
from .serving_responses import read_input, response_body, response_events, responses_options
from .wire import asked_in_words

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Answer", "LoopbackServer", "Request", "Scripted", "endless", "offline_answer"]

_Said = TextPart | ReasoningPart | RefusalPart | ToolCallPart
Scripted = (
    Answer
    | Reply
    | _Said
    | Embeddings
    | Mapping[str, Any]
    | str
    | bytes
    | Iterator[Any]
    | tuple[int, Mapping[str, str], Any]
)
"""An answer: also its body alone, or (status, headers, body), whose body goes out as it is, such as a recorded one."""

Script = Callable[[Any], Scripted] | Sequence[Scripted | Callable[[Any], Scripted]]

CHAT, RESPONSES, EMBEDDINGS = "/chat/completions", "/responses", "/embeddings"
_POLL = 0.01
"""Seconds: so long the end of a server may be waited for, and each test has one."""


class LoopbackServer:
    """Serves Chat Completions, Responses and embeddings while its `with` block lasts, plain and streamed.

    - `script` has an answer for each POST to /v1/chat/completions or /v1/responses, in order, or is a function of a
      request's JSON that answers all of them; a request too many gets a 400 that says so. A string is a reply's
      text, bytes go out as they are: `b"<html>"`.
    - `paths` has scripts of the same kind for other paths, or for these alone: `{"/embeddings": [...]}`.
      Without one, embeddings are worked out from the words of the texts, the same each time.
    - `models` are listed at GET /v1/models, and at GET /api/tags as an Ollama lists them.

    `requests` are those it got. What it waits, it waits in real time, whatever clock is in force.
    """

    def __init__(
        self,
        script: Script = (),
        *,
        paths: Mapping[str, Script] | None = None,
        models: Sequence[str] = ("loopback",),
        port: int = 0,
    ) -> None:
        self._script = _Script(script)
        self._paths = {path: _Script(own) for path, own in (paths or {}).items()}
        self._models = list(models)
        self._port = port
        self._lock = threading.Lock()
        self._http: HttpServer | None = None
        self.requests: list[Request] = []

    @property
    def base_url(self) -> str:
        """The address to give to a client; it ends in /v1."""
        if self._http is None:
            raise RuntimeError("LoopbackServer has an address only while it runs: with LoopbackServer(...) as server:")
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> Self:
        self._http = HttpServer(self._port, self.respond)
        threading.Thread(target=self._http.serve_forever, args=(_POLL,), name="LoopbackServer", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._http is not None:
            self._http.stop()

    def respond(self, request: Request) -> Answer:
        """What to answer, in the form of the API that was asked."""
        try:
            answer = self.answer(request)
        except Exception as error:  # noqa: BLE001 because a script may raise anything, and nobody else would tell
            answer = _refusal(HTTPStatus.BAD_REQUEST, f"The script of LoopbackServer raised {error!r}")
        body = answer.body
        if isinstance(body, str) and answer.status == HTTPStatus.OK and _is_asked(request) and not EVENTS.match(body):
            body = TextPart(text=body)
        return replace(answer, body=_rendered(body, request))

    def answer(self, request: Request) -> Answer:
        """What to answer."""
        path = request.path.partition("?")[0].removesuffix("/")
        with self._lock:
            self.requests.append(request)
            own = next((script for end, script in self._paths.items() if path in {end, f"/v1{end}"}), None)
            if own is None and _is_asked(request):
                own = self._script
            said = None if own is None else own.next()
        if said is not None:
            return _as_answer(said(request.json) if callable(said) else said)
        if request.method == "GET" and path in _LISTS:
            return Answer(_LISTS[path](self._models))
        if request.method == "POST" and path.startswith("/v1/") and path.endswith(EMBEDDINGS):
            return Answer(embeddings_of(request.json))
        return _refusal(HTTPStatus.NOT_FOUND, f"LoopbackServer has no {request.method} {request.path}")


class _Script:
    """What a script says to one request after the other."""

    def __init__(self, script: Script) -> None:
        self._script = script if callable(script) else list(script)
        self._used = 0

    def next(self) -> Scripted | Callable[[Any], Scripted]:
        """The next answer, or a function that works it out."""
        if callable(self._script):
            return self._script
        if self._used == len(self._script):
            return _refusal(HTTPStatus.BAD_REQUEST, f"LoopbackServer has only {self._used} answers in its script")
        self._used += 1
        return self._script[self._used - 1]


def _is_asked(request: Request) -> bool:
    """Whether a model is."""
    path = request.path.partition("?")[0].removesuffix("/")
    return request.method == "POST" and path.startswith("/v1/") and path.endswith((CHAT, RESPONSES))


def _models(names: Sequence[str]) -> Any:
    return {"object": "list", "data": [{"id": name, "object": "model"} for name in names]}


def _tags(names: Sequence[str]) -> Any:
    return {"models": [{"name": name} for name in names]}


_LISTS = {"/v1/models": _models, "/api/tags": _tags}


def _as_answer(said: Scripted) -> Answer:
    if isinstance(said, Answer):
        return said
    if not isinstance(said, tuple):
        return Answer(said)
    status, headers, body = said
    raw = isinstance(body, str) and not EVENTS.match(body)
    return Answer(body.encode() if raw else body, status, headers)


def _rendered(body: Any, request: Request) -> Any:
    """A body in the form of the API that was asked: events where they are streamed, else JSON or text."""
    if isinstance(body, _Said):
        reason = "tool_calls" if body.type == "tool_call" else "stop"
        body = Reply(message=ChatMessage(role="assistant", content=[body]), finish_reason=reason)
    if isinstance(body, Embeddings):
        return embeddings_body(body, request.json)
    if not isinstance(body, Reply):
        return body
    asked = as_dict(request.json)
    model = body.model or str(asked.get("model"))
    if request.path.partition("?")[0].endswith(RESPONSES):
        return response_events(body, model=model) if asked.get("stream") else response_body(body, model=model)
    return chat_events(body, asked, model) if asked.get("stream") else chat_body(body, model=model)


def _refusal(status: int, message: str) -> Answer:
    return Answer({"error": {"message": message, "type": "invalid_request_error", "code": None}}, status)


def offline_answer(body: Any) -> Reply:
    """What `OfflineModel` says to the JSON of a request for Chat Completions or Responses."""
    if "input" in as_dict(body):
        messages, options = read_input(body), responses_options(body)
    else:
        messages, options = read_request(body)[0], chat_options(body)
    shape = options.get("output") or asked_in_words(messages)
    options["output"] = shape if as_dict(shape).get("type") == "object" else None
    model = OfflineModel()
    # as one would be asked in another process: observers of this one see the client's call, and not this one as well
    return asyncio.run(model.answer(model.call_of(messages, options)))


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
