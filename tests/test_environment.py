"""Which model is used where nobody says."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from agentflow_llm import (
    ChatMessage,
    LLMAuthenticationError,
    LLMConnectionError,
    LLMError,
    LLMNotFoundError,
    LLMResponseError,
    LLMTimeoutError,
    OfflineModel,
    OpenAI,
    default_model,
)
from agentflow_llm.server import Answer, LoopbackServer, Request


def closed_port() -> str:
    """A host and port at which nothing answers."""
    with LoopbackServer() as server:
        return server.base_url.split("/")[2]


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "AGENTFLOW_MODEL", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OLLAMA_HOST", closed_port())


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer(lambda _: {"choices": [{"message": {"content": "Hi"}}]}, models=["one", "two"]) as running:
        yield running


async def test_without_anything_there_is_no_language_model_and_it_says_so() -> None:
    model, reason = await default_model()
    assert isinstance(model, OfflineModel)
    assert "no language model" in reason
    assert "no Ollama answers at 127.0.0.1:" in reason
    assert "To choose another, set OPENAI_API_KEY" in reason


async def test_key_means_openai(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    model, reason = await default_model()
    assert isinstance(model, OpenAI)
    assert (model.model, model.base_url) == ("gpt-4o-mini", "https://api.openai.com/v1")
    assert "AGENTFLOW_MODEL is not" in reason
    monkeypatch.setenv("AGENTFLOW_MODEL", "gpt-9")
    model, reason = await default_model()
    assert model.model == "gpt-9"
    assert "as AGENTFLOW_MODEL says" in reason


async def test_address_without_a_model_means_the_first_that_it_lists(
    server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.base_url}/")
    monkeypatch.setenv("OPENAI_API_KEY", "mine")
    model, reason = await default_model()
    assert isinstance(model, OpenAI)
    assert model.model == "one"
    assert "the first in the list" in reason
    assert server.requests[0].headers["authorization"] == "Bearer mine"
    async with model:
        assert (await model.chat([ChatMessage(role="user", content="Hello")])).text == "Hi"


async def test_address_and_model_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://{closed_port()}/v1")
    monkeypatch.setenv("AGENTFLOW_MODEL", "mine")
    model, _ = await default_model()
    with pytest.raises(LLMConnectionError, match="'mine' at"):
        await OpenAI(model.model, retry=None).acomplete("Hi")


async def test_dead_address_is_never_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://{closed_port()}/v1")
    with pytest.raises(LLMConnectionError, match="Is the server running"):
        await default_model()


@pytest.mark.parametrize("address", ["nonsense", "file:///etc"])
async def test_what_is_no_address_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    with pytest.raises(LLMError, match="is no address"):
        await default_model()


async def test_server_that_lists_nothing_needs_a_model_s_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with LoopbackServer(models=[]) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        with pytest.raises(LLMNotFoundError, match="Set AGENTFLOW_MODEL"):
            await default_model()
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.base_url}/nowhere")
        with pytest.raises(LLMNotFoundError, match="usually ends in /v1"):
            await default_model()


@pytest.mark.parametrize("form", ["{}", "http://{}/"])
async def test_local_ollama_is_found(form: str, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", form.format(server.base_url.split("/")[2]))
    model, reason = await default_model()
    assert isinstance(model, OpenAI)
    assert (model.model, model.provider, model.base_url) == ("one", "ollama", server.base_url)
    assert "its first model" in reason
    monkeypatch.setenv("AGENTFLOW_MODEL", "two")
    assert (await default_model()).model.model == "two"


async def test_ollama_that_listens_everywhere_is_called_here(
    server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", f"0.0.0.0:{server.base_url.split('/')[2].partition(':')[2]}")
    assert (await default_model()).model.model == "one"


async def test_ollama_without_models_is_told_from_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with LoopbackServer(models=[]) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.base_url.split("/")[2])
        model, reason = await default_model()
    assert isinstance(model, OfflineModel)
    assert "has no models" in reason


async def test_named_model_without_a_server_is_never_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTFLOW_MODEL", "llama")
    with pytest.raises(LLMConnectionError, match="AGENTFLOW_MODEL='llama' names a model, but no server"):
        await default_model()


async def test_offline_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("AGENTFLOW_MODEL", "offline")
    model, reason = await default_model()
    assert isinstance(model, OfflineModel)
    assert "as AGENTFLOW_MODEL says" in reason


@pytest.mark.parametrize("space", [" ", "\n"])
async def test_space_around_an_address_does_not_count(
    server: LoopbackServer, monkeypatch: pytest.MonkeyPatch, space: str
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{space}{server.base_url}/{space}")
    monkeypatch.setenv("AGENTFLOW_MODEL", "mine")
    chosen = (await default_model()).model
    assert isinstance(chosen, OpenAI)
    assert chosen.base_url == OpenAI("mine").base_url == server.base_url


async def test_who_names_both_is_not_looked_up(server: LoopbackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    monkeypatch.setenv("AGENTFLOW_MODEL", "mine")
    assert (await default_model()).model.model == "mine"
    assert server.requests == []


async def test_key_that_cannot_be_sent_is_said_to_be_so(
    server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a\nb")
    with pytest.raises(LLMAuthenticationError, match=r"The key for .* cannot be sent"):
        await default_model()
    assert server.requests == []


class Pages(LoopbackServer):
    """Answers everything with a page."""

    def answer(self, request: Request) -> Answer:
        self.requests.append(request)
        return Answer("<html>Welcome</html>")


async def test_page_in_place_of_a_list_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with Pages() as pages:
        monkeypatch.setenv("OPENAI_BASE_URL", pages.base_url)
        with pytest.raises(LLMResponseError, match=r"it is no JSON: '<html>Welcome</html>'.*OPENAI_BASE_URL"):
            await default_model()


async def test_address_that_is_none_is_called_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "127.0.0.1:1/v1")
    for model in ("", "m"):
        monkeypatch.setenv("AGENTFLOW_MODEL", model)
        with pytest.raises(LLMError, match=r"Write OPENAI_BASE_URL='http://127.0.0.1:1/v1'"):
            await default_model()


async def test_address_without_v1_is_answered_with_the_one_that_was_meant(
    server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url.removesuffix("/v1"))
    with pytest.raises(LLMNotFoundError) as caught:
        await default_model()
    assert f"set OPENAI_BASE_URL={server.base_url}. " in str(caught.value)
    assert "the list of models'" not in str(caught.value)
    assert caught.value.status == 404


async def test_server_that_hangs_is_told_from_one_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentflow_llm.environment._PATIENCE", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/v1")
        with pytest.raises(LLMTimeoutError, match=r"did not answer in 0.05 s"):
            await default_model()


async def test_who_chose_offline_is_told_to_unset_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTFLOW_MODEL", "offline")
    assert "To choose another, unset AGENTFLOW_MODEL" in (await default_model()).reason


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ("http://[::1]:11434", "[::1]:11434"),
        ("[::1]:9", "[::1]:9"),
        ("[::1]", "[::1]:11434"),
        ("::1", "[::1]:11434"),
        ("[::]:9", "[::1]:9"),
        (":9", "127.0.0.1:9"),
        ("http://localhost:9/", "localhost:9"),
    ],
)
async def test_ollama_is_looked_for_where_its_host_says(
    said: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentflow_llm.environment._OLLAMA_PATIENCE", 0.01)
    monkeypatch.setenv("OLLAMA_HOST", said)
    assert f"at {address}." in (await default_model()).reason
