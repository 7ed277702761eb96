"""A model behind a socket that costs next to nothing: `server.py CHUNKS` prints its port; it ends when its input does.

It answers whatever is posted with one reply, or, where that asks for a stream, with so many chunks, all at once.
"""

from __future__ import annotations

import asyncio
import json
import sys

MODEL = "gpt-4o"
ANSWER = "The sum is 5."
_ENDS = b"\r\n\r\n"


def words(chunks: int) -> list[str]:
    """The texts of the chunks."""
    return [f"w{number} " for number in range(chunks)]


def reply() -> bytes:
    """The body of a plain answer."""
    message = {"role": "assistant", "content": ANSWER}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": MODEL}
    return json.dumps({**body, "choices": [choice], "usage": usage}).encode()


def stream(chunks: int) -> list[bytes]:
    """The events of a streamed answer."""
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL}

    def event(delta: dict[str, str], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        return b"data: " + json.dumps({**base, "choices": [choice]}).encode() + b"\n\n"

    usage = {"prompt_tokens": 10, "completion_tokens": chunks, "total_tokens": 10 + chunks}
    return [
        event({"role": "assistant", "content": ""}),
        *(event({"content": word}) for word in words(chunks)),
        event({}, "stop"),
        b"data: " + json.dumps({**base, "choices": [], "usage": usage}).encode() + b"\n\n",
        b"data: [DONE]\n\n",
    ]


class _Answering(asyncio.Protocol):
    """Reads requests that have a content-length, one after the other."""

    def __init__(self, plain: bytes, streamed: bytes) -> None:
        self._plain = _response(b"application/json", plain)
        self._streamed = _response(b"text/event-stream", streamed)
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._got += data
        while True:
            head, found, rest = self._got.partition(_ENDS)
            if not found:
                return
            length = next(
                int(line.partition(b":")[2])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            )
            if len(rest) < length:
                return
            body, self._got = rest[:length], rest[length:]
            wants = body.replace(b'": ', b'":')
            self._transport.write(self._streamed if b'"stream":true' in wants else self._plain)


def _response(kind: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d%s%s" % (kind, len(body), _ENDS, body)


async def main() -> None:
    """Serve."""
    plain, streamed = reply(), b"".join(stream(int(sys.argv[1])))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Answering(plain, streamed), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
