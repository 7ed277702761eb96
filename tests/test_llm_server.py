"""A server on this machine that answers from a script."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
from typing import Any

import pytest

from agentflow_llm import ChatMessage, Reply, ToolCallPart
from agentflow_llm.server import Answer, LoopbackServer, Scripted, offline_answer

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

    with LoopbackServer([{"a": 1}, "garbage", (503, {}, {"b": 2}), echo, reply, Answer({"c": 3}, 201)]) as server:
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


@pytest.mark.parametrize(
    ("path", "body", "status"), [("/embeddings", ASK, 404), ("/chat/completions", {**ASK, "stream": True}, 400)]
)
def test_what_it_cannot_do_it_says(path: str, body: Any, status: int) -> None:
    with LoopbackServer([{}]) as server:
        assert post(server, body, path)[0] == status


def test_connection_is_cut_in_the_middle() -> None:
    with LoopbackServer([Answer({"a": "b" * 100}, cut=True)]) as server, pytest.raises(http.client.IncompleteRead):
        post(server)


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


def test_runs_from_the_command_line() -> None:
    command = [sys.executable, "-m", "agentflow_llm.server", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        line = program.stdout.readline()
        address = line.partition(" at ")[2].split(" ")[0].rstrip(".")
        connection = http.client.HTTPConnection(address.split("/")[2])
        connection.request("POST", "/v1/chat/completions", json.dumps(ASK))
        body = json.loads(connection.getresponse().read())
        connection.close()
        program.terminate()
    assert "no language model" in body["choices"][0]["message"]["content"]


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
