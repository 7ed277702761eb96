"""HTTP on 127.0.0.1 for tests: answers go out as they are, cut, slow, or not at all."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from typing import Any, cast

from .loose import parsed

_OWN_HEADERS = {"connection", "content-encoding", "content-length", "date", "server", "transfer-encoding"}
"""What a recorded answer says of its own transport does not hold for this one."""
EVENTS = re.compile(r"\s*(?:data|event|id|retry)?:")
"""How server-sent events begin."""
_LONGEST = 10_000
"""Pieces; an endless stream has no middle."""
_EVENT = re.compile(r".*?(?:\r\n\r\n|\n\n|\r\r|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Answer:
    """What the server does with one request, faults included.

    - `body`: a `Reply`, a part of one, or its text as a string, sent in the form of the API that was asked, streamed
      where the request says so; `Embeddings`; JSON, sent as such; bytes, sent as they are, and so is a string that
      is server-sent events, goes with another status than 200, or goes to another path than those that ask a model;
      an iterator of strings or bytes, each sent by itself, such as `endless()`.
    - `delay`: seconds before it answers.
    - `drip`: seconds before each piece of the body: an event of a stream, an item of an iterator, else a byte.
    - `cut`: close the connection in the middle of the body, or after so many pieces of it.
    - `hang_up`: close the connection without an answer.
    """

    body: Any = ""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    delay: float = 0.0
    drip: float = 0.0
    cut: bool | int = False
    hang_up: bool = False


@dataclass(frozen=True)
class Request:
    """A request that the server got. Names of headers are in lower case; `json` is None where there is none."""

    method: str
    path: str
    headers: Mapping[str, str]
    json: Any


class HttpServer(ThreadingHTTPServer):
    """Serves each connection in a thread of its own, until it is stopped. Port 0 is any that is free."""

    daemon_threads = False  # stop() waits for them: none outlives its server
    disable_nagle_algorithm = True

    def __init__(self, port: int, answer: Callable[[Request], Answer]) -> None:
        self.answer = answer
        self.stopping = threading.Event()
        self.connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    def stop(self) -> None:
        """End all connections, and wait until their threads have ended."""
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
        with suppress(ConnectionError):  # the client went away, and what was still to be said cannot be
            super().finish()

    @property
    def loopback(self) -> HttpServer:
        """The server, as what it is."""
        assert isinstance(self.server, HttpServer)
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
        given = self.rfile.read(int(self.headers.get("content-length") or 0)).decode("utf-8", "replace")
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.loopback.answer(Request(self.command, self.path, headers, parsed(given)))
        if self._interrupted(answer.delay) or answer.hang_up:
            self.close_connection = True
            return
        body = _as_sent(answer.body)
        kind = "application/json" if isinstance(body, bytes) else "text/event-stream"
        self.send_response(answer.status)
        said = {name.lower(): value for name, value in answer.headers.items()}
        for name, value in {"content-type": kind, **said}.items():
            if name not in _OWN_HEADERS:
                self.send_header(name, value)
        if isinstance(body, bytes):
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self._write(body, answer)
        else:
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            self._stream(body, answer)

    def _stream(self, pieces: Iterable[str | bytes], answer: Answer) -> None:
        """Send pieces, each by itself."""
        for piece in _until_cut(pieces, answer.cut):
            content = piece.encode() if isinstance(piece, str) else piece
            self.wfile.flush()  # what was said so far is there before the wait
            if self._interrupted(answer.drip):
                self.close_connection = True
                return
            if content:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(content), content))
                self.wfile.flush()
        if answer.cut is False:
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = answer.cut is not False
        self.wfile.flush()

    def _write(self, content: bytes, answer: Answer) -> None:
        """Send a body, whole or byte by byte."""
        if answer.cut is not False:
            self.close_connection = True
            content = content[: len(content) // 2 if answer.cut is True else answer.cut]
        for at in range(len(content)) if answer.drip else ():
            self.wfile.flush()
            if self._interrupted(answer.drip):
                self.close_connection = True
                return
            self.wfile.write(content[at : at + 1])
        self.wfile.write(b"" if answer.drip else content)
        self.wfile.flush()

    def _interrupted(self, seconds: float) -> bool:
        """Wait, unless the server is being stopped: then say so."""
        return bool(seconds) and self.loopback.stopping.wait(seconds)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 because the base class names it so
        """Nothing: who wants to know what came, reads `requests`."""


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # its client was faster


def _as_sent(body: Any) -> bytes | Iterable[str | bytes]:
    """A body as bytes, or as the pieces in which it is sent."""
    if isinstance(body, Iterator):
        return cast("Iterator[str | bytes]", body)
    if isinstance(body, bytes):
        return body
    if isinstance(body, str):
        return _events(body) if EVENTS.match(body) else body.encode()
    return json.dumps(body).encode()


def _events(text: str) -> Iterator[str]:
    """Server-sent events, one by one, just as they stand in a text."""
    return (found[0] for found in _EVENT.finditer(text) if found[0])


def _until_cut(pieces: Iterable[str | bytes], cut: int) -> Iterable[str | bytes]:
    if cut is True:
        known = list(islice(pieces, _LONGEST))
        return known[: len(known) // 2]
    return pieces if cut is False else islice(pieces, cut)
