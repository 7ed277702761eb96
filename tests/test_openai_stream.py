"""Streamed Chat Completions, over a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import openai
import pytest
from openai.resources.chat.completions import AsyncCompletions

from agentflow.clock import use_clock
from agentflow.observe import Kind
from agentflow.retry import Retry
from agentflow.testing import FakeClock, record
from agentflow_llm import (
    ChatMessage,
    ContentFilterError,
    Delta,
    LLMBadRequestError,
    LLMConnectionError,
    LLMError,
    LLMResponseError,
    LLMServerError,
    LLMTimeoutError,
    OpenAI,
    OpenAIResponses,
    RateLimitError,
    Reply,
    ReplyStream,
    ToolCallPart,
    ToolDefinition,
)
from agentflow_llm.server import Answer, LoopbackServer

HELLO = [ChatMessage(role="user", content="Hello")]
USAGE = {"prompt_tokens": 3, "completion_tokens": 2}


def chunk(content: str | None = None, reason: str | None = None, model: str = "m-2", **more: Any) -> dict[str, Any]:
    delta = {} if content is None else {"content": content}
    return {"id": "r1", "model": model, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}], **more}


def sse(*chunks: Any, end: str = "data: [DONE]\n\n") -> str:
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + end


HI = sse(chunk("H"), chunk("i"), chunk(None, "stop"), {"choices": [], "usage": USAGE})


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)


@asynccontextmanager
async def serving(*script: Any, **how: Any) -> AsyncGenerator[tuple[LoopbackServer, OpenAI]]:
    with LoopbackServer(script) as server:
        async with OpenAI("m", base_url=server.base_url, retry=how.pop("retry", None), **how) as model:
            yield server, model


async def read(stream: ReplyStream) -> tuple[list[Delta], Any]:
    """The deltas, and the reply or the error that comes after them."""
    deltas: list[Delta] = []
    try:
        async for delta in stream:
            deltas.append(delta)  # noqa: PERF401 because what came before an error is wanted too
    except LLMError as error:
        return deltas, error
    return deltas, stream.reply


async def answer_of(*script: Any, **how: Any) -> tuple[list[Delta], Any]:
    async with serving(*script, **how) as (_, model):
        return await read(model.stream(HELLO))


async def test_answer_comes_in_pieces_and_then_whole() -> None:
    deltas, reply = await answer_of(HI)
    assert deltas == [Delta(text="H"), Delta(text="i")]
    assert (reply.text, reply.finish_reason, reply.model, reply.id) == ("Hi", "stop", "m-2", "r1")
    assert (reply.usage.total_tokens, reply.usage.http_requests) == (5, 1)


async def test_what_is_sent_is_what_render_request_shows_and_that_it_is_to_be_streamed() -> None:
    asked: dict[str, Any] = {"tools": [ToolDefinition(name="search")], "max_tokens": 5, "reasoning": "low"}
    async with serving(HI) as (server, model):
        await model.stream(HELLO, **asked).read()
        shown = model.render_request(HELLO, **asked)
    assert shown["reasoning_effort"] == "low"
    assert server.requests[0].json == {**shown, "stream": True, "stream_options": {"include_usage": True}}


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, {"error": {"message": "Unrecognized request argument supplied: stream_options"}}),
        (422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"]}]}),
    ],
)
async def test_server_that_does_not_know_stream_options_is_asked_without_them(status: int, said: Any) -> None:
    async with serving((status, {}, said), HI, HI) as (server, model):
        first = await model.stream(HELLO).read()
        second = await model.stream(HELLO).read()
    assert ["stream_options" in request.json for request in server.requests] == [True, False, False]
    assert (first.text, first.usage.http_requests, second.usage.http_requests) == ("Hi", 2, 1)


async def test_other_refusals_stand() -> None:
    refused: Any = (400, {}, {"error": {"message": "No stream_options"}})
    async with serving((400, {}, {"error": {"message": "No."}}), refused, refused) as (server, model):
        assert (await read(model.stream(HELLO)))[1].http_requests == 1
        assert (await read(model.stream(HELLO)))[1].http_requests == 2
        assert (await read(model.stream(HELLO)))[1].http_requests == 1
    assert len(server.requests) == 4


async def test_refusal_after_the_first_piece_is_none_of_stream_options() -> None:
    late = sse(chunk("H"), {"error": {"code": 400, "message": "stream_options"}})
    async with serving(late, HI) as (server, model):
        deltas, error = await read(model.stream(HELLO))
    assert (len(deltas), type(error), len(server.requests)) == (1, LLMBadRequestError, 1)


async def test_stream_options_of_one_s_own_are_sent_as_they_are() -> None:
    options = {"include_usage": False}
    async with serving((400, {}, {"error": {"message": "No stream_options"}})) as (server, model):
        _, error = await read(model.stream(HELLO, extra={"stream_options": options}))
    assert type(error) is LLMBadRequestError
    assert [request.json["stream_options"] for request in server.requests] == [options]


@pytest.mark.parametrize("client", [OpenAI, OpenAIResponses])
@pytest.mark.parametrize("stream", [True, False])
async def test_how_an_answer_comes_is_no_extra_field(client: type[OpenAI | OpenAIResponses], *, stream: bool) -> None:
    with pytest.raises(LLMBadRequestError, match=rf"^extra=\{{'stream': {stream}\}}: .* chat\(\) or stream\(\)"):
        await client("m", api_key="k").chat(HELLO, extra={"stream": stream})


@pytest.mark.parametrize(
    ("answer", "kind", "said", "told"),
    [
        (sse(chunk("H"), {"error": {"code": 429, "message": "busy"}}), RateLimitError, "H", "busy"),
        (sse(chunk("H"), {"error": {"message": "broke"}}), LLMServerError, "H", "broke"),
        (sse(chunk("H"), end='event: error\ndata: {"message": "x"}\n\n'), LLMServerError, "H", "x."),
        (sse(chunk("H"), end=""), LLMConnectionError, "H", "was cut"),
        (sse(chunk("H"), end="data: {\n"), LLMResponseError, "H", "it is no JSON"),
        (sse(chunk("H"), end="data: {"), LLMConnectionError, "H", "was cut"),
        (b"", LLMConnectionError, "", "was cut"),
        (Answer(sse(chunk("H"), chunk("x" * 99)), cut=1), LLMConnectionError, "H", "was cut: 'peer"),
        (b"<html>", LLMResponseError, "", "it is no JSON: '<html>'"),
        ({"detail": "x"}, LLMResponseError, "", "it has no message"),
        (sse(), LLMResponseError, "", "it has no message"),
        ((500, {}, "oops"), LLMServerError, "", "oops"),
        ({"error": {"code": "content_filter", "message": "Filtered"}}, ContentFilterError, "", "Filtered"),
        (sse(chunk(None, "content_filter")), ContentFilterError, "", "left nothing"),
    ],
)
async def test_failure_is_told_after_what_came_before_it(
    answer: Any, kind: type[LLMError], said: str, told: str
) -> None:
    deltas, error = await answer_of(answer)
    assert type(error) is kind
    assert told in str(error)
    assert "'m' at http://127.0.0.1:" in str(error)
    assert error.http_requests == 1
    assert "".join(delta.text for delta in deltas) == said


async def test_request_can_be_named_to_the_owner_of_a_server_that_failed_midway() -> None:
    _, error = await answer_of((200, {"x-request-id": "req_1"}, sse(chunk("H"), {"error": {"message": "broke"}})))
    assert error.request_id == "req_1"


@pytest.mark.parametrize("end", ["", "data: {"])
async def test_stream_whose_last_words_are_lost_is_whole(end: str) -> None:
    assert (await answer_of(sse(chunk("Hi"), chunk(None, "stop"), end=end)))[1].text == "Hi"


async def test_plain_answer_of_a_server_that_cannot_stream_is_one() -> None:
    deltas, reply = await answer_of({"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]})
    assert ([delta.text for delta in deltas], reply.text) == (["Hi"], "Hi")


async def test_failure_before_the_first_piece_is_tried_again_and_one_after_it_is_not() -> None:
    busy, broken = sse({"error": {"code": 503, "message": "busy"}}), sse(chunk("H"), {"error": {"code": 503}})
    with use_clock(FakeClock()) as clock:
        async with serving(busy, HI, broken, retry=Retry(2), timeout=None) as (server, model):
            task = asyncio.create_task(model.stream(HELLO).read())
            while not task.done():
                await clock.advance(0.1)
            assert (task.result().text, task.result().usage.http_requests) == ("Hi", 2)
            deltas, error = await read(model.stream(HELLO))
    assert (len(deltas), type(error), error.attempts) == (1, LLMServerError, 1)
    assert len(server.requests) == 3


@pytest.mark.parametrize("how", ["plain", "stream"])
async def test_first_of_several_answers_is_the_reply_and_the_rest_one_note(how: str) -> None:
    choices = [{"index": index, "message": {"content": str(index)}, "finish_reason": "stop"} for index in range(3)]
    with record() as seen:
        async with serving({"choices": choices}) as (_, model):
            asked: dict[str, Any] = {"extra": {"n": 3}}
            reply = await (model.chat(HELLO, **asked) if how == "plain" else model.stream(HELLO, **asked).read())
    assert reply.text == "0"
    (op,) = seen.find(Kind.CHAT)
    notes = [note.facts for note in seen.notes[op.ref.id] if note.name == "choices_ignored"]
    assert notes == [{"ignored": 2}]


async def test_refusal_is_an_outcome_and_no_error() -> None:
    refusal = {"choices": [{"index": 0, "delta": {"refusal": "I won't."}, "finish_reason": "stop"}]}
    plain = {"choices": [{"message": {"content": None, "refusal": "I won't."}, "finish_reason": "stop"}]}
    shape = {"type": "object", "properties": {}}
    async with serving(sse(refusal), plain) as (_, model):
        for reply in (await model.stream(HELLO, output=shape).read(), await model.chat(HELLO, output=shape)):
            assert (reply.refusal, reply.text, reply.output) == ("I won't.", "", None)


@pytest.mark.parametrize("how", ["plain", "stream"])
async def test_answer_of_which_a_filter_left_something_is_a_reply(how: str) -> None:
    message = {"choices": [{"message": {"content": "Hal"}, "finish_reason": "content_filter"}]}
    async with serving(message) as (_, model):
        reply = await (model.chat(HELLO) if how == "plain" else model.stream(HELLO).read())
    assert (reply.text, reply.finish_reason) == ("Hal", "content_filter")


@pytest.mark.parametrize("how", ["plain", "stream"])
async def test_azure_is_asked_at_its_own_address(how: str) -> None:
    urls: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        urls.append(f"{request.method} {request.url} {request.headers['api-key']}")
        return httpx2.Response(200, text=HI) if how == "stream" else httpx2.Response(200, json=PLAIN)

    http = openai.DefaultAsyncHttpx2Client(transport=httpx2.MockTransport(answer))
    async with openai.AsyncAzureOpenAI(
        api_key="key", azure_endpoint="https://me.openai.azure.com", api_version="2024-10-21", http_client=http
    ) as client:
        model = OpenAI("my-deployment", client=client)
        assert model.provider == "azure.ai.openai"
        reply = await (model.chat(HELLO) if how == "plain" else model.stream(HELLO).read())
    assert reply.text == "Hi"
    assert urls == [
        "POST https://me.openai.azure.com/openai/deployments/my-deployment/chat/completions?api-version=2024-10-21 key"
    ]


PLAIN: dict[str, Any] = {"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}], "usage": USAGE}


async def test_what_vendors_wrap_to_make_spans_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """An instrumentor of the openai client would make a second span of each call."""
    seen: list[str] = []
    create = AsyncCompletions.create

    def recorder(self: AsyncCompletions, **given: Any) -> Any:
        seen.append(given["model"])
        return create(self, **given)

    monkeypatch.setattr(AsyncCompletions, "create", recorder)
    with LoopbackServer([PLAIN, HI, PLAIN]) as server:
        async with openai.AsyncOpenAI(api_key="k", base_url=server.base_url) as client:
            model = OpenAI("m", client=client)
            await model.chat(HELLO)
            await model.stream(HELLO).read()
            assert seen == []
            await client.chat.completions.create(model="theirs", messages=[{"role": "user", "content": "Hello"}])
    assert seen == ["theirs"]


@asynccontextmanager
async def one_connection(script: Sequence[Any]) -> AsyncGenerator[tuple[LoopbackServer, OpenAI]]:
    """A model with a single connection, so that one which is not given back would be missed."""
    http = openai.DefaultAsyncHttpx2Client(limits=httpx2.Limits(max_connections=1), timeout=5)
    with LoopbackServer(script) as server:
        async with openai.AsyncOpenAI(api_key="k", base_url=server.base_url, http_client=http) as client:
            yield server, OpenAI("m", client=client, retry=None)


SLOW = Answer(sse(chunk("H"), *[chunk("i")] * 1000), drip=0.01)


async def test_stream_that_is_left_gives_its_connection_back() -> None:
    async with one_connection([SLOW, SLOW, PLAIN]) as (_, model):
        async with model.stream(HELLO) as stream:
            async for delta in stream:
                assert delta.text == "H"
                break
        stream = model.stream(HELLO)
        await anext(stream)
        await stream.aclose()
        assert (await model.chat(HELLO)).text == "Hi"


async def test_stream_that_is_closed_from_another_task_gives_its_connection_back() -> None:
    async with one_connection([Answer(HI, delay=60), PLAIN]) as (server, model):
        stream = model.stream(HELLO)
        reader = asyncio.create_task(read(stream))
        while not server.requests:  # noqa: ASYNC110 because the server's thread sets no event of this loop
            await asyncio.sleep(0.001)
        await stream.aclose()
        with pytest.raises(LLMResponseError, match="was closed before its end"):
            await reader
        assert (await model.chat(HELLO)).text == "Hi"


@pytest.mark.parametrize("pieces", [1, 2])
async def test_reader_that_is_cancelled_gives_its_connection_back(pieces: int) -> None:
    async with one_connection([SLOW, PLAIN]) as (_, model):
        came = asyncio.Queue[Delta]()

        async def reader() -> None:
            async for delta in model.stream(HELLO):
                came.put_nowait(delta)

        task = asyncio.create_task(reader())
        for _ in range(pieces):
            await came.get()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await model.chat(HELLO)).text == "Hi"


async def test_slow_stream_runs_into_the_limit() -> None:
    async with one_connection([SLOW, PLAIN]) as (_, model):
        with pytest.raises(LLMTimeoutError, match=r"within 0.05 s"):
            await model.stream(HELLO, timeout=0.05).read()
        assert (await model.chat(HELLO)).text == "Hi"


async def test_stream_is_one_operation_with_its_reply() -> None:
    with record() as seen:
        async with serving(HI) as (_, model):
            reply = await model.stream(HELLO).read()
    (op,) = seen.find(Kind.CHAT, "m")
    assert op.result is reply
    assert [note.name for note in seen.notes[op.ref.id]] == ["first_chunk"]


@pytest.mark.parametrize("how", ["plain", "stream"])
async def test_cost_is_told_where_it_is_known_who_runs_the_model(how: str) -> None:
    async def cost(**who: Any) -> float | None:
        with LoopbackServer([sse(chunk("Hi", "stop", model="", usage=USAGE)) if how == "stream" else PLAIN]) as server:
            async with OpenAI("gpt-4o-mini", base_url=server.base_url, **who) as model:
                reply: Reply = await (model.chat(HELLO) if how == "plain" else model.stream(HELLO).read())
                return reply.usage.cost

    pytest.importorskip("genai_prices")
    assert await cost() is None, "a server that only speaks like OpenAI has no known price"
    assert await cost(provider="openai") == pytest.approx((3 * 0.15 + 2 * 0.6) / 1e6)


async def test_tool_calls_are_streamed_from_a_server() -> None:
    call = ToolCallPart(id="c1", name="search", arguments='{"query": "the weather in Rome"}')
    async with serving(call) as (_, model):
        deltas, reply = await read(model.stream(HELLO, tools=[ToolDefinition(name="search")]))
    assert reply.tool_calls == [call]
    assert (deltas[0].id, deltas[0].name) == ("c1", "search")
    assert "".join(delta.text for delta in deltas) == call.arguments
