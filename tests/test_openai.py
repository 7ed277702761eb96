"""Chat Completions through the openai client, over a real socket."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from agentflow.observe import Kind
from agentflow.testing import record
from agentflow_llm import (
    ChatMessage,
    ChatModel,
    ContentFilterError,
    LLMAuthenticationError,
    LLMBadRequestError,
    LLMConnectionError,
    LLMError,
    LLMNotFoundError,
    LLMRefusedError,
    LLMResponseError,
    LLMServerError,
    LLMTimeoutError,
    LLMUnavailableError,
    OpenAI,
    RateLimitError,
    ToolCallPart,
    ToolDefinition,
    ToolResultPart,
)
from agentflow_llm.server import Answer, LoopbackServer

HELLO = [ChatMessage(role="user", content="Hello")]
HI = {
    "id": "r1",
    "model": "m-2",
    "choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1},
}


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer([HI] * 3) as running:
        yield running


async def answer_of(*script: Any, **how: Any) -> Any:
    """What a model makes of these answers: the reply, or the error."""
    with LoopbackServer(script) as server:
        async with OpenAI("m", base_url=server.base_url, retry=None, **how) as model:
            try:
                return await model.chat(HELLO)
            except LLMError as error:
                return error


async def test_reply_comes_from_the_server(server: LoopbackServer) -> None:
    async with OpenAI("m", base_url=server.base_url) as model:
        reply = await model.chat(HELLO, temperature=0)
    assert (reply.text, reply.finish_reason, reply.model, reply.id) == ("Hi", "stop", "m-2", "r1")
    assert (reply.usage.total_tokens, reply.usage.http_requests) == (4, 1)
    assert isinstance(model, ChatModel)


async def test_what_is_sent_is_what_render_request_shows(server: LoopbackServer) -> None:
    call = ToolCallPart(id="c1", name="search", arguments="{}")
    messages = [
        *HELLO,
        ChatMessage(role="assistant", content=[call]),
        ChatMessage(role="tool", content=[ToolResultPart(call_id="c1", name="search", content="found")]),
    ]
    asked: dict[str, Any] = {
        "tools": [ToolDefinition(name="search")],
        "tool_choice": "search",
        "max_tokens": 5,
        "stop": "END",
        "extra": {"user": "u"},
    }
    async with OpenAI("m", base_url=server.base_url) as model:
        await model.chat(messages, **asked)
    assert server.requests[0].json == model.render_request(messages, **asked)
    assert server.requests[0].json["max_tokens"] == 5


def test_rendered_request_is_the_caller_s_own() -> None:
    tool = ToolDefinition(name="search")
    model = OpenAI("m")
    model.render_request(HELLO, tools=[tool])["tools"][0]["function"]["parameters"]["properties"]["x"] = {}
    assert tool.parameters["properties"] == {}


def test_openai_has_its_own_name_for_the_limit_of_tokens() -> None:
    assert OpenAI("m").render_request(HELLO, max_tokens=5)["max_completion_tokens"] == 5


@pytest.mark.parametrize(("key", "sent"), [("mine", "Bearer mine"), (None, "Bearer no-key-needed")])
async def test_server_that_is_not_openai_s_needs_no_key(server: LoopbackServer, key: str | None, sent: str) -> None:
    async with OpenAI("m", base_url=server.base_url, api_key=key) as model:
        await model.chat(HELLO)
    assert server.requests[0].headers["authorization"] == sent


async def test_environment_gives_key_and_address(server: LoopbackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "from-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "never-sent")
    async with OpenAI("m") as model:
        await model.chat(HELLO)
    assert server.requests[0].headers["authorization"] == "Bearer from-environment"


async def test_openai_without_a_key_says_how_to_give_one() -> None:
    with pytest.raises(LLMAuthenticationError, match=r"Set OPENAI_API_KEY, or pass OpenAI\(\.\.\., api_key="):
        await OpenAI("m").chat(HELLO)


async def test_client_of_one_s_own_is_used_without_its_retries() -> None:
    busy: Any = (503, {}, {"error": {"message": "busy"}})
    with LoopbackServer([busy, HI, HI]) as server:
        async with openai.AsyncOpenAI(api_key="mine", base_url=server.base_url, max_retries=5) as client:
            model = OpenAI("m", client=client, retry=None)
            with pytest.raises(LLMUnavailableError, match="busy"):
                await model.chat(HELLO)
            assert (await model.chat(HELLO)).text == "Hi"
            await model.aclose()
            assert (await model.chat(HELLO)).text == "Hi", "closing the model leaves the client open"
    assert len(server.requests) == 3
    assert server.requests[0].headers["authorization"] == "Bearer mine"
    assert model.base_url == server.base_url


async def test_azure_client_keeps_its_addresses() -> None:
    paths: list[str] = []

    with LoopbackServer() as server:
        root = server.base_url.removesuffix("/v1")
        async with openai.AsyncAzureOpenAI(api_key="k", azure_endpoint=root, api_version="2024-10-21") as client:
            with pytest.raises(LLMNotFoundError):
                await OpenAI("gpt-4o", client=client).chat(HELLO)
        paths += [request.path for request in server.requests]
    assert paths == ["/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"]


def test_client_that_does_not_fit_is_refused() -> None:
    with openai.OpenAI(api_key="k") as blocking, pytest.raises(LLMError, match=r"client=openai\.AsyncOpenAI"):
        OpenAI("m", client=blocking)  # type: ignore[arg-type]  # because it is wrong
    with pytest.raises(LLMError, match="Leave out api_key"):
        OpenAI("m", client=openai.AsyncOpenAI(api_key="k"), api_key="other")


@pytest.mark.parametrize("address", ["127.0.0.1:8000/v1", "file:///etc/x", "nonsense"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(LLMError, match="is no address"):
        OpenAI("m", base_url=address)


def test_one_model_serves_several_event_loops(server: LoopbackServer) -> None:
    model = OpenAI("m", base_url=server.base_url)

    async def ask() -> str:
        return (await model.chat(HELLO)).text

    assert [asyncio.run(ask()) for _ in range(3)] == ["Hi", "Hi", "Hi"]
    gc.collect()  # connections that were left open would be warned of here
    assert len(model.endpoint._open) == 1  # noqa: SLF001 because nothing else tells


async def test_concurrent_first_calls_share_one_client(server: LoopbackServer) -> None:
    async with OpenAI("m", base_url=server.base_url) as model:
        replies = await asyncio.gather(*(model.chat(HELLO) for _ in range(3)))
        assert [reply.text for reply in replies] == ["Hi"] * 3
        assert len(model.endpoint._open) == 1  # noqa: SLF001 because nothing else tells


@pytest.mark.parametrize(
    ("answer", "kind", "told"),
    [
        ((401, {}, {"error": {"message": "Incorrect key"}}), LLMAuthenticationError, "Incorrect key."),
        ((404, {}, {"error": {"message": "No such model"}}), LLMNotFoundError, "GET /models"),
        ((400, {}, {"error": {"message": "No."}}), LLMBadRequestError, "refuses this request"),
        ((429, {"retry-after": "90"}, {"error": {"message": "Slow."}}), RateLimitError, "a wait of 90 s"),
        ((500, {}, "<html>"), LLMServerError, "<html>"),
        ({"error": {"message": "Filtered.", "code": "content_filter"}}, ContentFilterError, "Filtered."),
        ({"choices": [{"error": {"message": "Upstream.", "code": 502}}]}, LLMServerError, "Upstream."),
        (b"<html>hello</html>", LLMResponseError, "it is no JSON: '<html>hello</html>'"),
        (b"", LLMResponseError, "usually ends in /v1"),
        ({"choices": None}, LLMResponseError, "no message"),
        (Answer({"x": "y" * 50}, cut=True), LLMConnectionError, "Is the server running"),
    ],
)
async def test_failed_answer_is_one_line_that_says_what_to_do(answer: Any, kind: type[LLMError], told: str) -> None:
    error = await answer_of(answer)
    assert type(error) is kind
    assert told in str(error)
    assert "'m' at http://127.0.0.1:" in str(error)
    assert "\n" not in str(error)


async def test_original_error_is_the_cause() -> None:
    error = await answer_of((401, {"x-request-id": "req_1"}, {"error": {"message": "no", "code": "invalid_api_key"}}))
    assert isinstance(error.__cause__, openai.AuthenticationError)
    assert (error.status, error.code, error.request_id) == (401, "invalid_api_key", "req_1")


async def test_reply_with_an_error_beside_it_is_a_reply() -> None:
    assert (await answer_of({**HI, "error": {"message": "a warning"}})).text == "Hi"


async def test_wait_asked_for_with_a_reply_is_ignored() -> None:
    assert (await answer_of((200, {"retry-after": "5"}, HI))).text == "Hi"


async def test_dead_end_says_where_and_why() -> None:
    with LoopbackServer() as server:
        address = server.base_url
    with pytest.raises(LLMConnectionError, match=r"refused|Connect call failed") as caught:
        await OpenAI("m", base_url=address, retry=None).chat(HELLO)
    assert address in str(caught.value)


async def test_slow_server_runs_into_the_limit() -> None:
    error = await answer_of(Answer(HI, delay=60), timeout=0.05)
    assert type(error) is LLMTimeoutError
    assert "did not answer within 0.05 s" in str(error)


async def test_cancelled_call_ends_at_once() -> None:
    with LoopbackServer([Answer(HI, delay=60)]) as server:
        async with OpenAI("m", base_url=server.base_url) as model:
            task = asyncio.create_task(model.chat(HELLO))
            while not server.requests:  # noqa: ASYNC110 because the server's thread sets no event of this loop
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


async def test_operation_tells_the_server(server: LoopbackServer) -> None:
    with record() as seen:
        async with OpenAI("m", base_url=server.base_url) as model:
            reply = await model.chat(HELLO)
    (op,) = seen.find(Kind.CHAT, "m")
    assert (op.subject.provider, op.subject.server_address) == ("openai", "127.0.0.1")
    assert f":{op.subject.server_port}/" in server.base_url
    assert op.result is reply


@pytest.mark.parametrize(
    ("address", "provider", "port"),
    [
        ("https://api.openai.com/v1", "openai", 443),
        ("https://me.openai.azure.com/openai", "azure.ai.openai", 443),
        ("https://openrouter.ai/api/v1", "openrouter", 443),
        ("https://generativelanguage.googleapis.com/v1beta/openai", "gcp.gemini", 443),
        ("https://europe-west4-aiplatform.googleapis.com/v1/x", "gcp.vertex_ai", 443),
        ("https://eu.api.openai.com/v1", "openai", 443),
        ("http://localhost:11434/v1", "ollama", 11434),
        ("http://localhost/v1", "openai", 80),
    ],
)
def test_provider_is_known_from_the_address(address: str, provider: str, port: int) -> None:
    model = OpenAI("m", base_url=address)
    assert (model.provider, model.server_port) == (provider, port)
    assert OpenAI("m", base_url=address, provider="mine").provider == "mine"


def test_password_in_an_address_is_not_shown() -> None:
    assert repr(OpenAI("m", base_url="http://me:secret@host/v1?key=x")) == "OpenAI('m', base_url='http://host/v1')"


@pytest.mark.parametrize("key", ["sk-\xe9", "sk-a\nb", "sk-a b", "sk-\udcff"])
async def test_key_that_cannot_be_sent_is_refused_without_being_shown(
    key: str, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "from-environment")
    with pytest.raises(LLMAuthenticationError, match="cannot be sent: its character") as caught:
        await OpenAI("m", base_url=server.base_url, api_key=key).chat(HELLO)
    assert key not in str(caught.value)
    assert "\n" not in str(caught.value)
    async with openai.AsyncOpenAI(api_key=key, base_url=server.base_url) as client:
        with pytest.raises(LLMAuthenticationError, match="cannot be sent"):
            await OpenAI("m", client=client).chat(HELLO)
    assert server.requests == []


async def test_newline_behind_a_key_is_no_part_of_it(server: LoopbackServer) -> None:
    async with OpenAI("m", base_url=server.base_url, api_key="mine\n") as model:
        await model.chat(HELLO)
    assert server.requests[0].headers["authorization"] == "Bearer mine"


async def test_request_that_cannot_be_sent_is_an_error_of_ours(server: LoopbackServer) -> None:
    async with OpenAI("m", base_url=server.base_url) as model:
        with pytest.raises(LLMRefusedError, match="cannot be sent: TypeError"):
            await model.chat(HELLO, extra={"x": object()})
        with pytest.raises(LLMRefusedError, match="cannot be sent: UnicodeEncodeError"):
            await model.chat(HELLO, extra={"x": "\udcff"})


async def test_question_with_half_of_a_surrogate_pair_is_answered(server: LoopbackServer) -> None:
    async with OpenAI("m", base_url=server.base_url) as model:
        await model.chat([ChatMessage(role="user", content="name \udcff.txt")])
    assert server.requests[0].json["messages"][0]["content"] == "name \ufffd.txt"


@pytest.mark.parametrize("address", ["http://[::1", "http://h:99999", "http://h:x", "http://h:0", "http://a b/v1"])
def test_address_that_cannot_be_taken_apart_is_refused(address: str) -> None:
    with pytest.raises(LLMError, match=r"base_url=.* is no address. Write base_url='http://127"):
        OpenAI("m", base_url=address)


def test_address_from_the_environment_is_refused_by_its_name_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "127.0.0.1:1/v1")
    with pytest.raises(LLMError, match=r"Write OPENAI_BASE_URL='http://127.0.0.1:1/v1'"):
        OpenAI("m")


def test_client_is_imported_before_the_call_is_measured() -> None:
    code = (
        "import asyncio, sys\n"
        "from agentflow.observe import Kind\n"
        "from agentflow.testing import record\n"
        "from agentflow_llm import OpenAI\n"
        "class Model(OpenAI):\n"
        "    async def prepare(self):\n"
        "        begun.append(('openai' in sys.modules, len(seen.find(Kind.CHAT))))\n"
        "        await super().prepare()\n"
        "    async def answer(self, call):\n"
        "        begun.append(('openai' in sys.modules, len(seen.find(Kind.CHAT))))\n"
        "        raise KeyError\n"
        "begun = []\n"
        "with record() as seen:\n"
        "    try:\n"
        "        asyncio.run(Model('m').acomplete('Hi'))\n"
        "    except KeyError:\n"
        "        print(begun)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[(False, 0), (True, 1)]"


@pytest.mark.parametrize("streamed", [False, True])
async def test_options_of_the_constructor_are_sent_with_each_request(server: LoopbackServer, *, streamed: bool) -> None:
    async with OpenAI("m", base_url=server.base_url, temperature=0.1, max_tokens=500, extra={"user": "u"}) as model:
        for options in ({}, {"temperature": 0.7, "extra": {"top_p": 0.5}}):
            asked: Any = options
            await (model.stream(HELLO, **asked).read() if streamed else model.chat(HELLO, **asked))
            sent = {name: value for name, value in server.requests[-1].json.items() if not name.startswith("stream")}
            assert sent == model.render_request(HELLO, **asked)
    first, second = (request.json for request in server.requests)
    assert (first["temperature"], first["max_tokens"], first["user"]) == (0.1, 500, "u")
    assert (second["temperature"], second["max_tokens"], second["user"], second["top_p"]) == (0.7, 500, "u", 0.5)


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("api_base", r"OpenAI has no option api_base=. Did you mean base_url=\? There are api_key, base_url, "),
        ("model_name", r"Did you mean model=\?"),
        ("request_timeout", r"Did you mean timeout=\?"),
        ("max_completion_tokens", r"Did you mean max_tokens=\?"),
        ("apikey", r"Did you mean api_key=\?"),
        ("max_retries", r"Did you mean retry=\?"),
        ("tools", r"OpenAI\(tools=...\): each call says that"),
    ],
)
def test_unknown_option_of_the_constructor_is_refused_with_what_was_meant(option: str, told: str) -> None:
    options: Any = {option: "x"}
    with pytest.raises(LLMBadRequestError, match=told):
        OpenAI("m", **options)


def test_field_that_says_how_an_answer_comes_is_refused_at_construction() -> None:
    with pytest.raises(LLMBadRequestError, match=r"calling chat\(\) or stream\(\)"):
        OpenAI("m", extra={"stream": True})


def test_type_checkers_know_the_options() -> None:
    OpenAI("m", temperature="0.1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] because it is a number
    with pytest.raises(LLMBadRequestError, match="Did you mean temperature"):
        OpenAI("m", temprature=0.1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue] because it is misspelt
