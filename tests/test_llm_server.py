"""A server on this machine that answers from a script."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from openai import AsyncOpenAI

from agentflow_llm.messages import ChatMessage, ReasoningPart, RefusalPart, Reply, TextPart, ToolCallPart, Usage
from agentflow_llm.model import Embeddings
from agentflow_llm.openai import OpenAI
from agentflow_llm.responses import OpenAIResponses
from agentflow_llm.server import Answer, LoopbackServer, Scripted, endless, offline_answer

ASK = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


def post(server: LoopbackServer, body: Any = ASK, path: str = "/chat/completions") -> tuple[int, Any]:
    return _send(server, "POST", path, json.dumps(body))


def _send(server: LoopbackServer, method: str, path: str, body: str | None = None) -> tuple[int, Any]:
    host, _, root = server.base_url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host)
    try:
        connection.request(method, f"/{root}{path}", body, {"X-Mine": "yes"})
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    return answer.status, json.loads(text) if text.startswith(("{", "[")) else text


def test_script_answers_one_request_after_the_other() -> None:
    reply = Reply(message=ChatMessage(role="assistant", content="Hi"), finish_reason="stop")

    def echo(body: Any) -> Scripted:
        return {"echo": body["messages"][0]["content"]}

    with LoopbackServer([{"a": 1}, b"garbage", (503, {}, {"b": 2}), echo, reply, Answer({"c": 3}, 201)]) as server:
        got = [post(server) for _ in range(6)]
    assert got[:4] == [(200, {"a": 1}), (200, "garbage"), (503, {"b": 2}), (200, {"echo": "Hello"})]
    assert got[4][1]["choices"][0]["message"] == {"role": "assistant", "content": "Hi"}
    assert got[5] == (201, {"c": 3})


def test_function_answers_everything() -> None:
    with LoopbackServer(lambda body: {"model": body["model"]}) as server:
        assert [post(server) for _ in range(3)] == [(200, {"model": "m"})] * 3


def test_request_too_many_is_refused_clearly() -> None:
    with LoopbackServer([]) as server:
        status, body = post(server)
    assert (status, body["error"]["message"]) == (400, "LoopbackServer has only 0 answers in its script")


def test_script_that_raises_says_so() -> None:
    def broken(_body: Any) -> Scripted:
        raise KeyError("oops")

    with LoopbackServer(broken) as server:
        status, body = post(server)
    assert (status, body["error"]["message"]) == (400, "The script of LoopbackServer raised KeyError('oops')")


def test_requests_are_kept() -> None:
    with LoopbackServer([{}]) as server:
        post(server)
    (request,) = server.requests
    assert (request.method, request.path, request.json) == ("POST", "/v1/chat/completions", ASK)
    assert request.headers["x-mine"] == "yes"


def test_models_are_listed() -> None:
    with LoopbackServer(models=["a", "b"]) as server:
        status, body = _send(server, "GET", "/models")
    assert (status, [model["id"] for model in body["data"]]) == (200, ["a", "b"])


def test_path_that_it_has_not_is_not_found() -> None:
    with LoopbackServer([{}]) as server:
        assert post(server, ASK, "/images")[0] == 404
        assert _send(server, "GET", "/chat/completions")[0] == 404


def test_connection_is_cut_in_the_middle() -> None:
    with LoopbackServer([Answer({"a": "b" * 100}, cut=True)]) as server, pytest.raises(http.client.IncompleteRead):
        post(server)


async def chunks_of(server: LoopbackServer, **asked: Any) -> list[Any]:
    """What OpenAI's own client makes of a streamed answer."""
    async with AsyncOpenAI(api_key="k", base_url=server.base_url, max_retries=0) as client:
        stream = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "Hello"}], stream=True, **asked
        )
        return [chunk async for chunk in stream]


SAID = Reply(
    message=ChatMessage(
        role="assistant",
        content=[
            ReasoningPart(text="Hm."),
            TextPart(text="It is a cat."),
            ToolCallPart(id="1", name="search", arguments='{"query": "Where do cats sleep?"}'),
            ToolCallPart(id="2", name="now", arguments="{}"),
        ],
    ),
    finish_reason="tool_calls",
    usage=Usage(input_tokens=7, output_tokens=5),
    model="m-1",
    id="reply_1",
)


async def test_reply_is_streamed_as_a_server_does() -> None:
    with LoopbackServer([SAID, SAID]) as server:
        first, *pieces, last = await chunks_of(server)
        *_, usage = await chunks_of(server, stream_options={"include_usage": True})
    assert (first.id, first.model, first.choices[0].delta.role) == ("reply_1", "m-1", "assistant")
    deltas = [piece.choices[0].delta for piece in pieces]
    assert [delta.content for delta in deltas if delta.content] == ["It ", "is ", "a ", "cat."]
    assert [delta.reasoning_content for delta in deltas if hasattr(delta, "reasoning_content")] == ["Hm."]
    called = [call for delta in deltas for call in delta.tool_calls or ()]
    assert [(call.index, call.id, call.function.name) for call in called if call.id] == [
        (0, "1", "search"),
        (1, "2", "now"),
    ]
    arguments = ["".join(call.function.arguments for call in called if call.index == index) for index in (0, 1)]
    assert arguments == [call.arguments for call in SAID.tool_calls]
    assert len(called) > 4  # arguments come in fragments
    assert (last.choices[0].finish_reason, last.usage) == ("tool_calls", None)
    assert (usage.choices, usage.usage.total_tokens) == ([], 12)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("kind", [OpenAI, OpenAIResponses])
async def test_what_a_server_sends_is_what_our_clients_read(
    kind: type[OpenAI | OpenAIResponses], *, streamed: bool
) -> None:
    usage = Usage(input_tokens=9, output_tokens=5, cached_tokens=4, cache_write_tokens=3, reasoning_tokens=2)
    with LoopbackServer([SAID.model_copy(update={"usage": usage})]) as server:
        async with kind("m", base_url=server.base_url, api_key="k") as model:
            hello = [ChatMessage(role="user", content="Hello")]
            reply = await (model.stream(hello).read() if streamed else model.chat(hello))
    said = [part.model_copy(update={"id": ""}) if part.type == "reasoning" else part for part in reply.message.content]
    expected = [
        part.model_copy(update={"id": ""}) if part.type == "reasoning" else part for part in SAID.message.content
    ]
    assert said == expected
    assert (reply.finish_reason, reply.model, reply.id) == ("tool_calls", "m-1", "reply_1")
    kept = {"input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens"}
    assert reply.usage.model_dump(include=kept) == usage.model_dump(include=kept)


async def test_text_or_part_is_a_reply() -> None:
    with LoopbackServer(["Hi there", TextPart(text="Hi"), RefusalPart(text="No.")]) as server:
        assert post(server)[1]["choices"][0]["message"]["content"] == "Hi there"
        assert post(server)[1]["choices"][0]["message"]["content"] == "Hi"
        *_, refusal, _last = await chunks_of(server)
    assert refusal.choices[0].delta.refusal == "No."


async def test_events_go_out_as_they_are() -> None:
    recorded = ': comment\n\ndata: {"choices": [{"index": 0, "delta": {"content": "\u00e9"}}]}\n\ndata: [DONE]\n\n'
    with LoopbackServer([recorded, (200, {"Content-Type": "text/event-stream", "date": "then"}, recorded)]) as server:
        assert post(server) == (200, recorded)
        [chunk] = await chunks_of(server)
    assert chunk.choices[0].delta.content == "\u00e9"


def test_string_that_is_no_reply_goes_out_as_it_is() -> None:
    with LoopbackServer([Answer("no", 503), (200, {}, "recorded"), Answer("said")]) as server:
        assert [post(server) for _ in range(2)] == [(503, "no"), (200, "recorded")]
        assert post(server)[1]["choices"][0]["message"]["content"] == "said"


async def test_responses_are_served_plain_and_streamed() -> None:
    with LoopbackServer([SAID, SAID, SAID.model_copy(update={"finish_reason": "length"})]) as server:
        async with AsyncOpenAI(api_key="k", base_url=server.base_url, max_retries=0) as client:
            whole = await client.responses.create(model="m", input="Hello")
            events = [event async for event in await client.responses.create(model="m", input="Hello", stream=True)]
            cut = await client.responses.create(model="m", input="Hello")
    assert (whole.output_text, whole.status, whole.model) == ("It is a cat.", "completed", "m-1")
    assert [item.type for item in whole.output] == ["reasoning", "message", "function_call", "function_call"]
    assert whole.usage is not None
    assert whole.usage.total_tokens == 12
    assert [event.sequence_number for event in events] == list(range(len(events)))
    said = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert said == ["It ", "is ", "a ", "cat."]
    last = events[-1]
    assert last.type == "response.completed"
    assert [item.type for item in last.response.output] == [item.type for item in whole.output]
    assert {request.path for request in server.requests} == {"/v1/responses"}
    assert cut.status == "incomplete"
    assert cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"


@pytest.mark.parametrize("mode", ["native", "prompt"])
@pytest.mark.parametrize("kind", [OpenAI, OpenAIResponses])
async def test_offline_model_gives_answers_of_a_shape(kind: type[OpenAI | OpenAIResponses], mode: Any) -> None:
    shape = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    asked = ChatMessage(role="user", content="The Eiffel Tower is in Paris.\n\nWhich city is the Eiffel Tower in?")
    with LoopbackServer(offline_answer) as server:
        async with kind("m", base_url=server.base_url, api_key="k", output_mode=mode) as model:
            assert (await model.chat([asked], output=shape)).output == {"city": "Paris"}


async def test_offline_model_answers_both_apis() -> None:
    fort = "The fort was built in 1754. It was rebuilt by Smith in 1964."
    search: dict[str, object] = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}
    with LoopbackServer(offline_answer) as server:
        async with AsyncOpenAI(api_key="k", base_url=server.base_url, max_retries=0) as client:
            answered = await client.responses.create(model="m", input=f"{fort}\n\nWho rebuilt the fort?")
            called = await client.responses.create(
                model="m",
                instructions="Be kind.",
                input=[{"role": "user", "content": [{"type": "input_text", "text": "Who rebuilt the fort?"}]}],
                tools=[{"type": "function", "name": "search", "parameters": search, "strict": None}],
            )
            [call] = called.output
            assert call.type == "function_call"
            last = await client.responses.create(
                model="m",
                input=[
                    {"role": "user", "content": "Who rebuilt the fort?"},
                    {"type": "function_call", "call_id": call.call_id, "name": "search", "arguments": call.arguments},
                    {"type": "function_call_output", "call_id": call.call_id, "output": fort},
                ],
            )
        streamed = await chunks_of(server)
    assert "rebuilt by Smith" in answered.output_text
    assert (call.name, json.loads(call.arguments)) == ("search", {"query": "Who rebuilt the fort?"})
    assert "rebuilt by Smith" in last.output_text
    assert "no language model" in "".join(chunk.choices[0].delta.content or "" for chunk in streamed)


async def test_embeddings_are_the_same_as_numbers_and_packed() -> None:
    texts = ["the cat sat", "a cat sat", "tax law"]
    with LoopbackServer() as server:
        async with AsyncOpenAI(api_key="k", base_url=server.base_url, max_retries=0) as client:
            packed = await client.embeddings.create(model="m", input=texts, dimensions=32)
            plain = await client.embeddings.create(model="m", input=texts, dimensions=32, encoding_format="float")
            default = await client.embeddings.create(model="m", input="one text")
    one, other, far = (data.embedding for data in packed.data)
    assert server.requests[0].json["encoding_format"] == "base64"
    assert [data.embedding for data in plain.data] == [pytest.approx(data.embedding) for data in packed.data]
    assert len(one) == 32
    assert len(default.data) == 1
    assert sum(a * b for a, b in zip(one, other, strict=True)) > sum(a * b for a, b in zip(one, far, strict=True))


def test_paths_have_scripts_of_their_own() -> None:
    vectors = Embeddings([[1.0, 0.5]], Usage(input_tokens=3), "e")
    paths: dict[str, Any] = {"/embeddings": [vectors, Answer("no", 503)], "/models": [(500, {}, "gone")]}
    with LoopbackServer([{"a": 1}], paths=paths) as server:
        status, body = post(server, {"input": ["x"], "model": "asked"}, "/embeddings")
        assert (status, body["data"][0]["embedding"], body["usage"]["prompt_tokens"]) == (200, [1.0, 0.5], 3)
        assert post(server, {"input": ["x"]}, "/embeddings") == (503, "no")
        assert post(server) == (200, {"a": 1})
        assert _send(server, "GET", "/models") == (500, "gone")
    assert [request.path.removeprefix("/v1") for request in server.requests] == [
        "/embeddings", "/embeddings", "/chat/completions", "/models",
    ]  # fmt: skip


def test_paths_of_azure_are_served() -> None:
    with LoopbackServer([SAID]) as server:
        status, body = post(server, ASK, "/openai/deployments/m/chat/completions?api-version=1")
    assert (status, body["id"]) == (200, "reply_1")


def raw(server: LoopbackServer, **asked: Any) -> tuple[http.client.HTTPResponse, http.client.HTTPConnection]:
    """An answer that was not read yet."""
    connection = http.client.HTTPConnection(server.base_url.split("/")[2])
    connection.request("POST", "/v1/chat/completions", json.dumps({**ASK, **asked}))
    return connection.getresponse(), connection


@pytest.mark.parametrize(("cut", "length"), [(True, 5), (3, 3), (0, 0)])
def test_body_is_cut_where_the_script_says(cut: int, length: int) -> None:
    with LoopbackServer([Answer(b"0123456789", cut=cut)]) as server:
        answer, connection = raw(server)
        with pytest.raises(http.client.IncompleteRead) as caught:
            answer.read()
        connection.close()
    assert len(caught.value.partial) == length


@pytest.mark.parametrize(("cut", "pieces"), [(True, 5), (2, 2), (0, 0)])
def test_stream_is_cut_between_its_pieces(cut: int, pieces: int) -> None:
    with LoopbackServer([Answer(iter([b"%d" % number for number in range(10)]), cut=cut)]) as server:
        answer, connection = raw(server, stream=True)
        with pytest.raises(http.client.IncompleteRead) as caught:
            answer.read()
        connection.close()
    assert caught.value.partial == b"0123456789"[:pieces]


def test_events_of_a_reply_are_cut_as_well() -> None:
    with LoopbackServer([Answer(SAID, cut=3)]) as server:
        answer, connection = raw(server, stream=True)
        with pytest.raises(http.client.IncompleteRead) as caught:
            answer.read()
        connection.close()
    assert caught.value.partial.count(b"data: ") == 3


def test_connection_is_closed_without_an_answer() -> None:
    with LoopbackServer([Answer({}, hang_up=True)]) as server, pytest.raises(http.client.RemoteDisconnected):
        post(server)


def test_slow_answer_is_whole() -> None:
    with LoopbackServer([Answer({"a": 1}, drip=0.001), Answer(SAID, drip=0.001, delay=0.001)]) as server:
        assert post(server) == (200, {"a": 1})
        assert post(server, {**ASK, "stream": True})[1].endswith("data: [DONE]\n\n")


def test_endless_stream_ends_with_its_client_or_with_the_server() -> None:
    before = threading.active_count()
    with LoopbackServer([endless(), endless()]) as server:
        answer, connection = raw(server, stream=True)
        assert answer.readline().startswith(b"data: ")
        answer.close()
        connection.close()
        answer, connection = raw(server, stream=True)
        assert b"and on" in answer.read(1000)
    answer.close()
    connection.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("late", [Answer({}, delay=600), Answer(b"late", drip=600), Answer(iter("late"), drip=600)])
def test_server_that_stops_waits_for_no_answer(late: Answer) -> None:
    with LoopbackServer([late]) as server:
        connection = http.client.HTTPConnection(server.base_url.split("/")[2])
        connection.request("POST", "/v1/chat/completions", json.dumps(ASK))
        while not server.requests:
            time.sleep(0.001)
    connection.close()


def test_nothing_is_left_behind_though_a_client_holds_its_connection() -> None:
    before = threading.active_count()
    with LoopbackServer([{}]) as server:
        connection = http.client.HTTPConnection(server.base_url.split("/")[2])
        connection.request("POST", "/v1/chat/completions", json.dumps(ASK))
        connection.getresponse().read()
    connection.close()
    assert threading.active_count() == before


def test_address_is_known_only_while_it_runs() -> None:
    with pytest.raises(RuntimeError, match="only while it runs"):
        _ = LoopbackServer().base_url


def test_offline_model_answers_behind_the_wire() -> None:
    search = {
        "type": "function",
        "function": {
            "name": "search",
            "parameters": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
        },
    }
    called = offline_answer({**ASK, "tools": [search]})
    assert isinstance(called, Reply)
    assert called.tool_calls == [ToolCallPart(id="call_1", name="search", arguments='{"query": "Hello"}')]
    forced = offline_answer(
        {**ASK, "tools": [search], "tool_choice": {"type": "function", "function": {"name": "search"}}}
    )
    assert isinstance(forced, Reply)
    assert forced.tool_calls
    refused = offline_answer({**ASK, "tools": [search], "tool_choice": "none"})
    assert isinstance(refused, Reply)
    assert not refused.tool_calls


def test_runs_from_the_command_line_and_streams() -> None:
    command = [sys.executable, "-m", "agentflow_llm.server", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        line = program.stdout.readline()
        address = line.partition(" at ")[2].split(" ")[0].rstrip(".")
        connection = http.client.HTTPConnection(address.split("/")[2])
        connection.request("POST", "/v1/chat/completions", json.dumps(ASK))
        body = json.loads(connection.getresponse().read())
        connection.request("POST", "/v1/chat/completions", json.dumps({**ASK, "stream": True}))
        streamed = connection.getresponse().read()
        connection.close()
        program.terminate()
    assert "no language model" in body["choices"][0]["message"]["content"]
    assert streamed.endswith(b"data: [DONE]\n\n")


def test_port_that_cannot_be_had_is_one_line() -> None:
    with LoopbackServer() as server:
        taken = server.base_url.split(":")[2].partition("/")[0]
        for port, reason in ((taken, "Address already in use"), ("99999", "port must be 0-65535")):
            command = [sys.executable, "-m", "agentflow_llm.server", "--port", port]
            said = subprocess.run(command, capture_output=True, text=True, check=False)
            assert said.returncode == 1
            assert said.stdout == ""
            [line] = said.stderr.splitlines()
            assert line.startswith(f"Cannot serve at 127.0.0.1:{port}: ")
            assert reason in line
            assert "--port" in line
