"""A model that costs next to nothing, and the process that serves it behind a socket.

`server.py TURNS CHUNKS` prints its port. For each line that it is given it prints what it was asked since the last one:
requests, and those that brought a new result of the tool. It ends when its input does.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

MODEL = "gpt-4o"
ANSWER = "The sum is 5."
_ENDS = b"\r\n\r\n"
_STREAM = (b'"stream":true', b'"stream": true')


def words(chunks: int) -> list[str]:
    """The texts of the chunks."""
    return [f"w{number} " for number in range(chunks)]


def tool_call(number: int) -> dict[str, Any]:
    """What the model asks for in a turn: never the same twice, which agents may hold against it."""
    function = {"name": "add", "arguments": f'{{"a": {number + 2}, "b": 3}}'}
    return {"id": f"call_{number}", "type": "function", "function": function}


def tool_result(number: int) -> str:
    """What the tool then says."""
    return str(number + 5)


class Model:
    """Asks for `add(a=2, b=3)` and the like until the conversation carries `turns` of its results, and answers then.

    The answer is one text, or, where a stream is asked for, so many chunks, all at once.
    """

    def __init__(self, turns: int = 0, chunks: int = 0) -> None:
        self._turns = turns
        self._requests = self._results = 0
        calls = [tool_call(number) for number in range(turns)]
        self._plain = [_reply({"content": None, "tool_calls": [call]}, "tool_calls") for call in calls]
        self._plain.append(_reply({"content": ANSWER}, "stop"))
        self._streamed = [_stream([{"tool_calls": [{"index": 0, **call}]}], "tool_calls") for call in calls]
        self._streamed.append(_stream([{"content": word} for word in words(chunks)], "stop"))

    def answer(self, body: bytes) -> tuple[str, bytes]:
        """The content type and the content of the response to such a request."""
        dense = body.replace(b'": "', b'":"')
        results = dense.count(b'"role":"tool"')
        self._requests += 1
        self._results += results > 0 and b'"content":"%s"' % tool_result(results - 1).encode() in dense
        turn = min(results, self._turns)
        if any(wish in body for wish in _STREAM):
            return "text/event-stream", self._streamed[turn]
        return "application/json", self._plain[turn]

    def asked(self) -> tuple[int, int]:
        """How many requests came since this was called last, and how many brought a new result that is right."""
        asked = self._requests, self._results
        self._requests = self._results = 0
        return asked


def _usage(chunks: int = 5) -> dict[str, int]:
    return {"prompt_tokens": 10, "completion_tokens": chunks, "total_tokens": 10 + chunks}


def _reply(message: Mapping[str, Any], reason: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason, "logprobs": None}
    body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": MODEL}
    return json.dumps({**body, "choices": [choice], "usage": _usage()}).encode()


def _stream(deltas: list[dict[str, Any]], reason: str) -> bytes:
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL}

    def event(choices: list[dict[str, Any]], **more: object) -> bytes:
        return b"data: " + json.dumps({**base, "choices": choices, **more}).encode() + b"\n\n"

    def choice(delta: Mapping[str, Any], reason: str | None = None) -> list[dict[str, Any]]:
        return [{"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}]

    events = [
        event(choice({"role": "assistant", "content": ""})),
        *(event(choice(delta)) for delta in deltas),
        event(choice({}, reason)),
        event([], usage=_usage(len(deltas))),
        b"data: [DONE]\n\n",
    ]
    return b"".join(events)


class _Answering(asyncio.Protocol):
    """Reads requests that have a content-length, one after the other."""

    def __init__(self, model: Model) -> None:
        self._model = model
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
            kind, content = self._model.answer(body)
            headers = b"content-type: %s\r\ncontent-length: %d" % (kind.encode(), len(content))
            self._transport.write(b"HTTP/1.1 200 OK\r\n%s%s%s" % (headers, _ENDS, content))


class Server:
    """The process that serves the model, as the process sees it that asks the model."""

    def __init__(self, turns: int = 0, chunks: int = 0) -> None:
        command = [sys.executable, __file__, str(turns), str(chunks)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = f"http://127.0.0.1:{int(self._line())}/v1"

    def asked(self) -> tuple[int, int]:
        """See `Model.asked`."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        requests, results = self._line().split()
        return int(requests), int(results)

    def _line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline()

    def stop(self) -> None:
        """End it."""
        self._process.communicate()  # closes its input, at which it ends


async def main() -> None:
    """Serve."""
    turns, chunks = (int(argument) for argument in sys.argv[1:])
    model = Model(turns, chunks)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Answering(model), "127.0.0.1", 0, backlog=1_000)
    print(server.sockets[0].getsockname()[1], flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(*model.asked(), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
