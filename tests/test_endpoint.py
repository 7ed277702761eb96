"""Requests through the openai client, answers read from the bare socket, and nothing left open on any path."""

from __future__ import annotations

import asyncio
import gc
import gzip
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

import httpx2
import openai
import pytest

from agentflow_llm import (
    LLMBadRequestError,
    LLMConnectionError,
    LLMError,
    LLMResponseError,
    LLMServerError,
    LLMTimeoutError,
    OpenAI,
    RateLimitError,
)
from agentflow_llm.endpoint import OPENAI, Endpoint
from agentflow_llm.server import LoopbackServer

PLAIN = b"HTTP/1.1 200 OK\r\nx-request-id: req_1\r\ncontent-length: %d\r\n\r\n%s"
STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-request-id: req_1\r\ntransfer-encoding: chunked\r\n\r\n"
)
ONE, TWO, DONE = b'data: {"n": 1}\n\n', b'data: {"n": 2}\n\n', b"data: [DONE]\n\n"
END = b"0\r\n\r\n"
WAIT = b"wait"
"""Instead of bytes: nothing more comes, until the client goes away."""


def plain(body: bytes) -> list[bytes]:
    return [PLAIN % (len(body), body)]


def part(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Wire:
    """A server that sends these pieces of bytes for one request after the other, and counts its connections."""

    def __init__(self, *answers: Sequence[bytes]) -> None:
        self._answers = list(answers)
        self._handlers: set[asyncio.Task[Any]] = set()
        self.open = 0
        self.made = 0
        self.answered = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.base_url = f"http://127.0.0.1:{port}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for handler in self._handlers:
            handler.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)
        await self._server.wait_closed()

    async def closed(self, but: int = 0) -> bool:
        """Whether all connections are closed soon, but for so many."""
        with suppress(TimeoutError):
            async with asyncio.timeout(2):
                while self.open > but:  # noqa: ASYNC110 because what is waited for is on the other side of a socket
                    await asyncio.sleep(0.001)
        return self.open <= but

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        self.open += 1
        self.made += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                await reader.readexactly(int(lengths[0].split(b":")[1]))
                self.answered += 1
                answer = self._answers.pop(0)
                for piece in answer:
                    if piece is WAIT:
                        await reader.read()
                        return
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.001)  # so that each piece is read by itself
                if not answer[-1].endswith(END) and not answer[-1].startswith(b"HTTP"):
                    return
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass  # the client went away, or the test is over
        finally:
            self.open -= 1
            self._handlers.discard(task)
            writer.close()


@asynccontextmanager
async def serving(*answers: Sequence[bytes], **how: Any) -> AsyncGenerator[tuple[Wire, Endpoint]]:
    async with Wire(*answers) as wire, Endpoint("m", base_url=wire.base_url, **how) as endpoint:
        yield wire, endpoint


async def events(endpoint: Endpoint, **how: Any) -> list[tuple[str, Any]]:
    return [event async for some in endpoint.stream("/x", {}, **how) for event in some]


async def test_answer_is_its_json_and_its_headers() -> None:
    async with serving(plain(b'{"a": 1}')) as (_, endpoint):
        body, headers = await endpoint.post("/x", {"b": 2})
    assert (body, headers["x-request-id"]) == ({"a": 1}, "req_1")


async def test_streamed_answer_is_its_events_and_its_headers() -> None:
    headers: dict[str, str] = {}
    answer = [STREAM, part(ONE + TWO[:5]), part(TWO[5:]), part(DONE), END]
    async with serving(answer, answer) as (wire, endpoint):
        assert await events(endpoint, headers=headers) == [("", {"n": 1}), ("", {"n": 2})]
        assert await events(endpoint, done=True) == [("", {"n": 1}), ("", {"n": 2}), ("[DONE]", {})]
        assert wire.made == 1, "a connection whose answer came to its end is used again"
    assert headers["x-request-id"] == "req_1"


async def test_compressed_stream_is_read() -> None:
    body = gzip.compress(ONE + TWO + DONE)
    head = STREAM.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n")
    async with serving([head, part(body[:30]), part(body[30:]), END]) as (_, endpoint):
        assert await events(endpoint) == [("", {"n": 1}), ("", {"n": 2})]


async def test_stream_that_a_hook_of_the_client_has_read_already_is_read() -> None:
    async def hook(response: httpx2.Response) -> None:
        await response.aread()

    http = openai.DefaultAsyncHttpx2Client(event_hooks={"response": [hook]})
    async with (
        Wire([STREAM, part(ONE + TWO + DONE), END]) as wire,
        openai.AsyncOpenAI(api_key="k", base_url=wire.base_url, http_client=http) as client,
    ):
        assert await events(Endpoint("m", client=client)) == [("", {"n": 1}), ("", {"n": 2})]


async def test_events_of_a_read_come_together_and_at_once() -> None:
    async with serving([STREAM, part(ONE + TWO), WAIT]) as (wire, endpoint):
        stream = endpoint.stream("/x", {})
        assert await anext(stream) == [("", {"n": 1}), ("", {"n": 2})]
        await stream.aclose()
        assert await wire.closed()


async def test_server_that_says_done_and_goes_on_is_left() -> None:
    async with serving([STREAM, part(ONE + DONE), WAIT]) as (wire, endpoint):
        assert await events(endpoint) == [("", {"n": 1})]
        assert await wire.closed()


async def test_cut_after_the_end_is_none() -> None:
    async with serving([STREAM, part(ONE + DONE), b""]) as (_, endpoint):
        assert await events(endpoint) == [("", {"n": 1})]


async def test_plain_answer_to_a_stream_is_one_event() -> None:
    async with serving(plain(b'{"a":\n\n 1}')) as (_, endpoint):
        assert await events(endpoint) == [("", {"a": 1})]


@pytest.mark.parametrize(
    ("answer", "kind", "told"),
    [
        (plain(b'[{"error": {"code": 400, "message": "wrong"}}]'), LLMBadRequestError, "wrong"),
        (plain(b"<html>"), LLMResponseError, "it is no JSON: '<html>'"),
        (plain(b'{"error": {"code": 429, "message": "busy"}}'), RateLimitError, "busy"),
        (plain(b'{"object": "error", "code": 400, "message": "wrong"}'), LLMBadRequestError, "wrong"),
        ([b"HTTP/1.1 503 No\r\ncontent-length: 4\r\n\r\nbusy"], LLMServerError, "busy"),
        ([STREAM, b"ff\r\nda", b""], LLMConnectionError, "No connection|was cut: 'peer closed connection"),
        ([b""], LLMConnectionError, "No connection"),
    ],
)
@pytest.mark.parametrize("how", ["post", "stream"])
async def test_failure_is_an_error_of_ours_that_counts_the_request(
    answer: list[bytes], kind: type[LLMError], told: str, how: str
) -> None:
    async with serving(answer) as (wire, endpoint):
        with pytest.raises(LLMError, match=told) as caught:
            await (endpoint.post("/x", {}) if how == "post" else events(endpoint))
        assert type(caught.value) is kind
        assert caught.value.http_requests == 1
        await endpoint.aclose()
        assert await wire.closed()


async def test_cut_in_the_midst_of_a_stream_is_a_broken_connection() -> None:
    async with serving([STREAM, part(ONE), b"ff\r\n"]) as (_, endpoint):
        stream = endpoint.stream("/x", {})
        assert await anext(stream) == [("", {"n": 1})]
        with pytest.raises(LLMConnectionError) as caught:
            await anext(stream)
    assert isinstance(caught.value.__cause__, httpx2.RemoteProtocolError)
    assert caught.value.http_requests == 1


async def test_event_that_is_no_json_is_told_after_what_came_before_it() -> None:
    async with serving([STREAM, part(ONE + b"data: what?\n\n"), WAIT]) as (wire, endpoint):
        stream = endpoint.stream("/x", {})
        assert await anext(stream) == [("", {"n": 1})]
        with pytest.raises(LLMResponseError, match=r"it is no JSON: 'what\?'") as caught:
            await anext(stream)
        assert (caught.value.request_id, caught.value.http_requests) == ("req_1", 1)
        assert await wire.closed()


async def test_slow_server_runs_into_the_client_s_own_limit() -> None:
    async with (
        Wire([WAIT], [STREAM, part(ONE), WAIT]) as wire,
        openai.AsyncOpenAI(api_key="k", base_url=wire.base_url, timeout=0.05) as client,
    ):
        endpoint = Endpoint("m", client=client)
        for asking in (endpoint.post("/x", {}), events(endpoint)):
            with pytest.raises(LLMTimeoutError) as caught:
                await asking
            assert caught.value.http_requests == 1
        assert await wire.closed()


async def test_what_was_not_sent_is_no_request() -> None:
    async with serving() as (_, endpoint):
        with pytest.raises(LLMBadRequestError, match="cannot be sent") as caught:
            await endpoint.post("/x", {"a": object()})
        assert caught.value.http_requests == 0
    with pytest.raises(LLMError, match=r"pass OpenAIEmbedder\(") as other:
        await Endpoint("m", base_url="https://api.openai.com/v1", api_key=" ", owner="OpenAIEmbedder").post("/x", {})
    assert other.value.http_requests == 0


@pytest.mark.parametrize("moment", range(12))
async def test_cancelled_at_any_moment_it_leaves_nothing_open(moment: int) -> None:
    """With a pool of one connection, so that one which is not given back would be missed."""
    answer = [STREAM, part(ONE), part(TWO), WAIT]
    http = openai.DefaultAsyncHttpx2Client(limits=httpx2.Limits(max_connections=1), timeout=2)
    async with (
        Wire(answer, plain(b"{}"), plain(b"{}")) as wire,
        openai.AsyncOpenAI(api_key="k", base_url=wire.base_url, http_client=http) as client,
    ):
        endpoint = Endpoint("m", client=client)
        task = asyncio.create_task(events(endpoint))
        for _ in range(moment * moment):
            await asyncio.sleep(0)
        if moment > 8:
            await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        wire._answers[:] = [plain(b"{}")]  # noqa: SLF001 because whether the first one was used, depends on the moment
        assert (await endpoint.post("/x", {})).body == {}
        assert await wire.closed(but=1)
    assert await wire.closed()


async def test_stream_that_nobody_holds_any_more_is_closed() -> None:
    async with serving([STREAM, part(ONE), WAIT]) as (wire, endpoint):
        stream = endpoint.stream("/x", {})
        await anext(stream)
        del stream
        gc.collect()
        assert await wire.closed()


async def test_stream_that_was_not_begun_asks_nothing() -> None:
    async with serving() as (wire, endpoint):
        await endpoint.stream("/x", {}).aclose()
        assert wire.made == 0


@pytest.mark.parametrize("how", ["plain", "stream"])
async def test_admin_key_in_the_environment_is_never_sent(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(request.headers["authorization"])
        return httpx2.Response(200, json={"choices": []})

    monkeypatch.setenv("OPENAI_ADMIN_KEY", "admin")
    http = openai.DefaultAsyncHttpx2Client(transport=httpx2.MockTransport(answer))
    async with openai.AsyncOpenAI(api_key="mine", base_url="http://127.0.0.1:1/v1", http_client=http) as client:
        endpoint = Endpoint("m", client=client)
        await (endpoint.post("/x", {}) if how == "plain" else events(endpoint))
    assert sent == ["Bearer mine"]


def test_endpoint_knows_its_server() -> None:
    endpoint = Endpoint("m", base_url="https://me:secret@x.cognitiveservices.azure.com/v1/?k=x")
    assert (endpoint.provider, endpoint.address, endpoint.port) == (
        "azure.ai.openai",
        "x.cognitiveservices.azure.com",
        443,
    )
    assert (endpoint.is_openai, Endpoint("m", base_url="https://api.openai.com/v1").is_openai) == (False, True)
    assert "secret" not in repr(endpoint)


class Interrupted(asyncio.SelectorEventLoop):
    """Lets something happen in another thread when somebody asks whether it is closed."""

    meanwhile: Callable[[], str] | None = None
    happened: str | None = None

    def is_closed(self) -> bool:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            with ThreadPoolExecutor(1) as pool:
                self.happened = pool.submit(meanwhile).result()
        return super().is_closed()


def test_one_client_serves_several_threads_whose_loops_end() -> None:
    def ask() -> str:
        return asyncio.run(model.acomplete("Hello")).text

    loop = Interrupted()
    with LoopbackServer(["one", "two", "three"]) as server:
        model = OpenAI("m", base_url=server.base_url, api_key="secret")
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(model.acomplete("Hello"))
        loop.meanwhile = ask
        assert (ask(), loop.happened) == ("three", "two")


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"api_key": 123}, r"api_key= is a text, not of type int. Write api_key='sk-...'"),
        ({"api_key": b"secret"}, r"api_key= is a text, not of type bytes"),
        ({"base_url": 5}, r"base_url= is a text, not of type int. Write base_url='http://"),
        ({"base_url": "http://"}, r"base_url='http://' is no address. Write base_url='http://127.0.0.1:8000/v1'"),
        ({"client": openai.AsyncOpenAI}, r"is no asynchronous client. Write client=openai.AsyncOpenAI\(...\)"),
    ],
)
def test_what_is_no_key_address_or_client_is_refused(how: dict[str, Any], told: str) -> None:
    with pytest.raises(LLMError, match=told) as caught:
        Endpoint("m", **how)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("said", "meant"), [(" http://127.0.0.1:9/v1/\n", "http://127.0.0.1:9/v1"), (" \n", OPENAI)])
def test_white_space_around_the_address_in_the_environment_is_none_of_it(
    said: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", said)
    assert Endpoint("m").base_url == meant


@pytest.mark.parametrize("how", ["answer", "stream", "left"])
def test_client_is_closed_with_its_loop(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[openai.AsyncOpenAI] = []

    class Kept(openai.AsyncOpenAI):
        def __init__(self, **how: Any) -> None:
            super().__init__(**how)
            made.append(self)

    async def ask() -> None:
        if how == "answer":
            await model.acomplete("Hello")
            return
        async for _ in await model.astream_complete("Hello"):
            if how == "left":
                return

    monkeypatch.setattr(openai, "AsyncOpenAI", Kept)
    with LoopbackServer(["Hi", "Hi"]) as server:
        model = OpenAI("m", base_url=server.base_url, api_key="secret")
        for _ in range(2):
            asyncio.run(ask())
    assert [client.is_closed() for client in made] == [True, True]
