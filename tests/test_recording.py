"""Requests and answers kept in a file, and played again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow_llm.errors import LLMBadRequestError, LLMError, StorageError
from agentflow_llm.messages import ChatMessage, Reply, TextPart
from agentflow_llm.openai import OpenAI
from agentflow_llm.openai_embedder import OpenAIEmbedder
from agentflow_llm.recording import Recording
from agentflow_llm.redaction import clean_json, clean_text, clean_url
from agentflow_llm.responses import OpenAIResponses
from agentflow_llm.server import Answer, LoopbackServer

WIRE = sorted((Path(__file__).parent / "fixtures" / "openai-wire").glob("*.json"))
KEY = "sk-proj-0123456789abcdefABCDEF"
HELLO = [ChatMessage(role="user", content="Hello")]


def asked(text: str) -> list[ChatMessage]:
    return [ChatMessage(role="user", content=text)]


def backwards(value: Any) -> Any:
    """The same JSON, the fields of all objects in another order."""
    if isinstance(value, dict):
        return {name: backwards(item) for name, item in reversed(value.items())}
    return [backwards(item) for item in value] if isinstance(value, list) else value


def interactions_of(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["interactions"]
    return found


@pytest.mark.parametrize("split", [None, 1, 7])
@pytest.mark.parametrize("path", WIRE, ids=lambda path: path.stem)
async def test_every_recording_of_the_wire_is_played(path: Path, split: int | None) -> None:
    with Recording(path, split=split) as recording:
        async with recording.client() as client, recording.http_client() as http:
            for interaction in interactions_of(path):
                request, response = interaction["request"], interaction["response"]
                api = next(end for end in ("/chat/completions", "/responses", "/embeddings") if end in request["url"])
                url = f"{str(client.base_url).rstrip('/')}{api}"
                assert request["url"].startswith(url)
                answer = await http.post(url, json=backwards(request["json"]))
                assert (answer.status_code, answer.text) == (response["status"], response["body"])


def file_of(path: Path, *said: tuple[str, str]) -> Path:
    """A recording of questions and answers."""
    interactions = [
        {
            "request": {
                "method": "POST",
                "url": "https://models.example/v1/chat/completions",
                "headers": {},
                "json": {"model": "m", "messages": [{"role": "user", "content": question}]},
            },
            "response": {
                "status": 200,
                "headers": {"content-type": "application/json"},
                "body": json.dumps({"choices": [{"message": {"content": answer}}]}),
            },
        }
        for question, answer in said
    ]
    path.write_text(json.dumps({"shows": "a talk", "interactions": interactions}), encoding="utf-8")
    return path


async def test_model_talks_to_a_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with Recording(file_of(tmp_path / "a.json", ("One?", "1"), ("Two?", "2"), ("One?", "one"))) as recording:
        async with recording.client() as client:
            model = OpenAI("m", client=client)
            assert model.base_url == "https://models.example/v1"
            answers = [(await model.chat(asked(text))).text for text in ("Two?", "One?", "One?")]
    assert answers == ["2", "1", "one"]


async def played(path: Path, *texts: str) -> list[str]:
    """What a model that is played from a file answers."""
    with Recording(path) as recording:
        async with recording.client() as client:
            return [(await OpenAI("m", client=client).chat(asked(text))).text for text in texts]


async def test_miss_shows_the_nearest_and_the_difference(tmp_path: Path) -> None:
    path = file_of(tmp_path / "a.json", ("What is a cat?", "An animal."), ("Who won the cup in 1954?", "Germany."))
    with pytest.raises(AssertionError) as caught:
        await played(path, "Who won the cup in 1955?")
    assert isinstance(caught.value.__cause__, LLMBadRequestError)
    assert "a.json has no such request" in str(caught.value.__cause__)
    first, second, *difference = str(caught.value).splitlines()
    assert first == f"{path} has no answer to this POST /v1/chat/completions."
    assert second.startswith("The nearest is interaction 2 of 2, POST /v1/chat/completions. To record it, write Rec")
    assert difference[:2] == ["--- recorded", "+++ sent"]
    changed = [line.replace(" ", "") for line in difference[2:] if line[0] in "+-"]
    assert changed == ['-"content":"Whowonthecupin1954?",', '+"content":"Whowonthecupin1955?",']


async def test_miss_of_another_api_says_so(tmp_path: Path) -> None:
    recording = Recording(file_of(tmp_path / "a.json", ("One?", "1")))
    async with recording.http_client() as http:
        answer = await http.post("https://models.example/v1/embeddings", json={})
    assert answer.status_code == 400
    with pytest.raises(AssertionError, match=r"\n- POST /v1/chat/completions\n\+ POST /v1/embeddings\n"):
        recording.__exit__(None, None, None)


async def test_request_too_many_says_how_often_it_was_recorded(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"It has it only once: .* interaction 1 of 1, .* played already"):
        await played(file_of(tmp_path / "a.json", ("One?", "1")), "One?", "One?")


async def test_change_in_a_long_text_is_seen(tmp_path: Path) -> None:
    long = "word " * 1000
    with pytest.raises(AssertionError) as caught:
        await played(file_of(tmp_path / "a.json", (long, "1")), f"{long[:-5]}wort ")
    assert "wort" in str(caught.value)
    assert len(str(caught.value)) < 2000


def test_answers_that_nobody_asked_for_fail(tmp_path: Path) -> None:
    path = file_of(tmp_path / "a.json", ("One?", "1"))
    told = r"nobody asked for: interaction 1, POST /v1/chat/completions\."
    with pytest.raises(AssertionError, match=told), Recording(path):
        pass
    with Recording(path, all_used=False):
        pass
    with pytest.raises(ZeroDivisionError), Recording(path):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("recorded", "sent"),
    [
        ({"stream": False, "user": None}, {}),
        ({"messages": [{"arguments": '{"a": 1, "b": 2}'}]}, {"messages": [{"arguments": '{"b":2,"a":1}'}]}),
    ],
)
async def test_what_means_the_same_is_the_same(recorded: dict[str, Any], sent: dict[str, Any], tmp_path: Path) -> None:
    request = {"method": "POST", "url": "https://models.example/v1/responses", "headers": {}, "json": recorded}
    response = {"status": 201, "headers": {}, "body": "yes"}
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"interactions": [{"request": request, "response": response}]}), encoding="utf-8")
    with Recording(path) as recording:
        async with recording.http_client() as http:
            assert (await http.post("http://127.0.0.1:1/v1/responses", json=sent)).text == "yes"


async def test_embedder_is_played() -> None:
    with Recording(WIRE[0].parent / "embeddings_two_docs_base64.json") as recording:
        async with recording.client() as client:
            answer = await OpenAIEmbedder("text-embedding-3-small", client=client).embed(["hello", "world"])
    assert len(answer.vectors) == 2


@pytest.mark.parametrize("kind", [OpenAI, OpenAIResponses])
async def test_what_was_recorded_is_played(kind: type[OpenAI | OpenAIResponses], tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    reply = Reply(message=ChatMessage(role="assistant", content="It is a cat."), finish_reason="stop")
    refusal = (401, {"x-request-id": "r", "set-cookie": "s=1"}, {"error": {"message": f"Wrong key {KEY}"}})
    heard: list[list[str]] = []
    with LoopbackServer([reply, TextPart(text="Plain."), refusal]) as server:
        for mode in ("record", "replay"):
            how = {"api_key": KEY, "base_url": server.base_url} if mode == "record" else {}
            with Recording(path, mode=mode) as recording:
                async with recording.client(**how) as client:
                    model = kind("m", client=client)
                    streamed = [delta.text async for delta in model.stream(HELLO)]
                    plain = (await model.chat(HELLO)).text
                    with pytest.raises(LLMError) as caught:
                        await model.chat(asked("Again"))
            heard.append([*streamed, plain, type(caught.value).__name__, str(caught.value.request_id)])
        assert len(server.requests) == 3
    assert heard[0] == heard[1]
    assert heard[0][:4] == ["It ", "is ", "a ", "cat."]
    kept = path.read_text(encoding="utf-8")
    assert KEY not in kept
    assert "set-cookie" not in kept
    assert "authorization" not in kept.lower()
    first = json.loads(kept)["interactions"][0]
    assert set(first) == {"request", "response"}
    assert set(first["request"]) == {"method", "url", "headers", "json"}
    assert first["response"]["body"].count("data: ") > 5


async def test_only_what_is_missing_is_recorded(tmp_path: Path) -> None:
    path = file_of(tmp_path / "a.json", ("One?", "1"))
    with LoopbackServer([TextPart(text="2")]) as server:
        for _ in range(2):
            with Recording(path, mode="missing") as recording:
                async with recording.client(api_key=KEY, base_url=server.base_url) as client:
                    model = OpenAI("m", client=client)
                    assert [(await model.chat(asked(text))).text for text in ("Two?", "One?")] == ["2", "1"]
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert (kept["shows"], len(kept["interactions"]), len(server.requests)) == ("a talk", 2, 1)


async def test_recording_always_asks_and_appends(tmp_path: Path) -> None:
    path = file_of(tmp_path / "a.json", ("One?", "1"))
    with LoopbackServer([TextPart(text="new")]) as server, Recording(path, mode="record") as recording:
        async with recording.client(api_key=KEY, base_url=server.base_url) as client:
            assert (await OpenAI("m", client=client).chat(asked("One?"))).text == "new"
    assert len(json.loads(path.read_text(encoding="utf-8"))["interactions"]) == 2


async def test_request_that_got_no_answer_is_not_recorded(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with LoopbackServer([Answer(hang_up=True)]) as server, Recording(path, mode="missing") as recording:
        async with recording.client(api_key=KEY, base_url=server.base_url) as client:
            with pytest.raises(LLMError, match="No connection"):
                await OpenAI("m", client=client, retry=None).chat(HELLO)
    assert not path.exists()


def test_file_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r'There is no recording at .* mode="missing"'):
        Recording(tmp_path / "none.json")
    wrong = tmp_path / "wrong.json"
    for text, reason in (("[]", "is no recording"), ("{", "cannot be read")):
        wrong.write_text(text, encoding="utf-8")
        with pytest.raises(StorageError, match=reason):
            Recording(wrong)
    with pytest.raises(LLMError, match="mode='play' is none of"):
        Recording(wrong, mode="play")  # type: ignore[arg-type]  # because it is wrong
    with pytest.raises(LLMError, match="split=0"):
        Recording(wrong, split=0)


@pytest.mark.parametrize(
    "text",
    [
        f"Incorrect API key: {KEY}.",
        '{"api_key": "hunter22", "x": 1}',
        '{"arguments": "{\\"api-key\\": \\"hunter22\\"}"}',
        "Authorization: Bearer hunter22hunter22",
        "in organization org-hunter22 of proj_hunter22",
    ],
)
def test_what_looks_like_a_key_is_not_kept(text: str) -> None:
    cleaned = clean_text(text)
    assert "REDACTED" in cleaned
    assert "hunter22" not in cleaned
    assert KEY not in cleaned
    assert clean_text(cleaned) == cleaned
    if text.startswith("{"):
        json.loads(cleaned)


def test_addresses_and_fields_are_cleaned() -> None:
    assert clean_url("https://me:pw@x.example/v1/a?api-version=1&api-key=abc") == (
        "https://x.example/v1/a?api-version=1&api-key=REDACTED"
    )
    schema = {"properties": {"api_key": {"type": "string"}}, "key": "of a song"}
    assert clean_json(schema) == schema
    assert clean_json({"a": [{"api_key": "x", "b": "long secret value"}]}, ["long secret value"]) == {
        "a": [{"api_key": "REDACTED", "b": "REDACTED"}]
    }


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_cleaning_twice_changes_nothing_more(value: Any) -> None:
    cleaned = clean_json(value)
    assert clean_json(cleaned) == cleaned
    text = json.dumps(value)
    assert clean_text(clean_text(text)) == clean_text(text)


TEST = """
import os

import pytest

from agentflow_llm import ChatMessage, OpenAI

async def ask(recording):
    how = {"base_url": os.environ["WHERE"], "api_key": "k"} if "WHERE" in os.environ else {}
    async with recording.client(**how) as client:
        return (await OpenAI("m", client=client).chat([ChatMessage(role="user", content="Hello")])).text

@pytest.mark.parametrize("x", ["a", "a b", "a/b"])
async def test_one(recording, x):
    assert await ask(recording) == "Hi"

class TestOne:
    async def test_one(self, recording):
        assert await ask(recording) == "Hi"

@pytest.mark.recording("mine/own.json")
async def test_two(recording):
    assert await ask(recording) == "Hi"
"""
UNNAMED = """
import pytest

@pytest.mark.recording
def test_it(recording):
    pass
"""


@pytest.mark.slow
def test_fixture_finds_its_file_and_the_environment_says_the_mode(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TEST, encoding="utf-8")
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["agentflow_llm.pytest_plugin"]\n', encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode=auto\naddopts=--strict-markers\n", encoding="utf-8")

    def run(**environment: str) -> str:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
        held = {**os.environ, **environment}
        return subprocess.run(command, env=held, cwd=tmp_path, capture_output=True, text=True, check=False).stdout

    missing = run()
    assert "There is no recording at" in missing
    assert "To make it, run AGENTFLOW_RECORDINGS=missing pytest." in missing
    with LoopbackServer(lambda _: TextPart(text="Hi")) as server:
        assert "5 passed" in run(AGENTFLOW_RECORDINGS="missing", WHERE=server.base_url)
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.json")}
    assert found > {"mine/own.json", "recordings/test_it/test_one[a].json", "recordings/test_it/TestOne.test_one.json"}
    assert len(found) == 5
    assert "5 passed" in run()
    assert "AGENTFLOW_RECORDINGS='all' is none of replay, record, missing" in run(AGENTFLOW_RECORDINGS="all")
    (tmp_path / "test_it.py").write_text(UNNAMED, encoding="utf-8")
    assert 'The marker of test_it needs the name of a file: @pytest.mark.recording("joke.json").' in run()
