"""The demo answers with whatever model the environment names, shows its trace, and says what is wrong in one line."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentflow_instrumentation.testing import OtlpReceiver
from agentflow_llm.server import LoopbackServer

SCRIPT = Path(sys.executable).with_name("agentflow")
README = Path(__file__).parents[1] / "README.md"
TRACE = "The trace:"
SETTINGS = ("OPENAI_", "AGENTFLOW_", "OLLAMA_", "OTEL_")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three small documents."""
    (tmp_path / "cats.md").write_text(
        "# Cats\n\nA cat sleeps sixteen hours a day.\n\nCats hunt mice at night, when the farm is quiet.\n",
        encoding="utf-8",
    )
    (tmp_path / "dogs.md").write_text("# Dogs\n\nA dog barks at strangers who come to the farm.\n", encoding="utf-8")
    (tmp_path / "cows.txt").write_text(
        "Cows give milk twice a day, in the morning and in the evening.\n", encoding="utf-8"
    )
    return tmp_path


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `agentflow demo` where nothing is set but this. No Ollama answers: its address is a closed port."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    clean |= {
        "OLLAMA_HOST": f"http://127.0.0.1:{closed_port()}",
        "PYTHONUTF8": "1",
        "PYTHONWARNINGS": "error",
        **environment,
    }
    command = [str(SCRIPT), "demo", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", env=clean, check=False, timeout=120)


def closed_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def said(text: str) -> dict[str, Any]:
    """A completion with this text, as it goes over the wire."""
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "tiny-2026",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
    }


def called(name: str, arguments: str) -> dict[str, Any]:
    """A completion that asks for a tool."""
    reply = said("")
    call = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}
    reply["choices"][0] |= {
        "message": {"role": "assistant", "content": None, "tool_calls": [call]},
        "finish_reason": "tool_calls",
    }
    return reply


def test_with_nothing_set_the_offline_model_answers_from_the_documents_and_says_what_it_is(folder: Path) -> None:
    done = run("How long does a cat sleep?", "--docs", folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    question, rest = done.stdout.split("\n", 1)
    assert question == "Question: How long does a cat sleep?"
    told, trace = rest.split(TRACE)
    assert "offline" in told.lower()
    assert "OPENAI_API_KEY" in told
    assert "sixteen hours" in told
    assert "cats.md" in told
    for span in ("Librarian", "librarian", "execute_tool search_documents", "retrieval", "chat "):
        assert span in trace
    assert "error" not in trace


def test_without_a_folder_it_answers_over_the_documents_of_the_project() -> None:
    done = run()
    assert done.returncode == 0, done.stderr
    assert ".md:" in done.stdout


def test_the_readme_shows_what_it_prints() -> None:
    """But for times, the trace's id, which port had no Ollama, and which of two parallel calls was faster."""
    blocks = re.findall(r"```text\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert [plain(block) for block in blocks if TRACE in block] == [plain(run().stdout)]


def plain(text: str) -> list[str]:
    """The lines that a demo printed, in any order, without what differs from run to run."""
    for pattern, instead in (
        (r"\d+(?:\.\d+)? [mu]?s\b", "0 s"),
        (r"(← (?:\d+ \W )?\S+).*", r"\1"),  # how long it waited may leave no room for the rest
        (r"trace [0-9a-f]{32}", "trace"),
        (r"127\.0\.0\.1:\d+", "127.0.0.1:11434"),
        (r" +", " "),
    ):
        text = re.sub(pattern, instead, text)
    return sorted(text.splitlines())


def test_the_model_that_the_environment_names_answers(folder: Path) -> None:
    with LoopbackServer(
        [called("search_documents", '{"query": "cat sleep"}'), said("Sixteen hours, says cats.md.")]
    ) as server:
        done = run(
            "How long does a cat sleep?",
            "--docs",
            folder,
            OPENAI_BASE_URL=server.base_url,
            OPENAI_API_KEY="a-key",
            AGENTFLOW_MODEL="tiny",
        )
    assert done.returncode == 0, done.stderr
    assert "Sixteen hours, says cats.md." in done.stdout
    assert "tiny" in done.stdout.split(TRACE)[0]
    assert "chat tiny" in done.stdout.split(TRACE)[1]
    assert [request.json["model"] for request in server.requests if request.json] == ["tiny", "tiny"]


def test_a_wrong_key_is_one_clear_line_and_the_trace(folder: Path) -> None:
    refusal = {"error": {"message": "Incorrect API key provided: a-key.", "code": "invalid_api_key"}}
    with LoopbackServer([(401, {}, refusal)]) as server:
        done = run(
            "Why?", "--docs", folder, OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="a-key", AGENTFLOW_MODEL="tiny"
        )
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "key" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert "chat tiny" in done.stdout
    assert "error" in done.stdout.split(TRACE)[1]


def test_a_dead_endpoint_is_one_clear_line_and_the_trace(folder: Path) -> None:
    dead = f"http://127.0.0.1:{closed_port()}/v1"
    done = run("Why?", "--docs", folder, OPENAI_BASE_URL=dead, OPENAI_API_KEY="a-key")
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert dead in done.stderr
    assert "error" in done.stdout.split(TRACE)[1]


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_without_documents_is_one_clear_line_and_the_trace(tmp_path: Path, there: bool) -> None:  # noqa: FBT001 because pytest passes it
    folder = tmp_path / "documents"
    if there:
        folder.mkdir()
    done = run("Why?", "--docs", folder)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert str(folder) in done.stderr
    assert "error" in done.stdout.split(TRACE)[1]


def test_the_trace_is_sent_where_export_says(folder: Path) -> None:
    with OtlpReceiver() as receiver:
        done = run("How long does a cat sleep?", "--docs", folder, "--export", receiver.http_endpoint)
        assert done.returncode == 0, done.stderr
        names = {span.name for span in receiver.spans}
    assert {"invoke_workflow Librarian", "invoke_agent librarian", "execute_tool search_documents"} <= names
    assert receiver.http_endpoint in done.stdout


def test_a_trace_that_cannot_be_delivered_is_one_clear_line(folder: Path) -> None:
    dead = f"http://127.0.0.1:{closed_port()}"
    done = run("How long does a cat sleep?", "--docs", folder, "--export", dead)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert dead in done.stderr
    assert "sixteen hours" in done.stdout


def test_an_unknown_place_to_export_to_is_refused_with_the_choices(folder: Path) -> None:
    done = run("Why?", "--docs", folder, "--export", "phenix")
    assert done.returncode == 2
    assert "'phenix'" in done.stderr
    assert "'phoenix', 'jaeger'" in done.stderr


@pytest.mark.parametrize("address", ["http://", "http://[::1", "ftp://there"])
def test_what_is_no_address_is_refused(address: str) -> None:
    done = run("Why?", "--export", address)
    assert done.returncode == 2
    assert address in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_setting_of_the_exporter_is_one_line() -> None:
    done = run("Why?", "--export", "http://127.0.0.1:1", OTEL_EXPORTER_OTLP_PROTOCOL="http/json")
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "http/json" in done.stderr


def test_a_trace_that_is_switched_off_was_not_sent(folder: Path) -> None:
    done = run(
        "How long does a cat sleep?", "--docs", folder, "--export", "http://127.0.0.1:1", AGENTFLOW_TELEMETRY="off"
    )
    assert done.returncode == 0, done.stderr
    assert "AGENTFLOW_TELEMETRY" in done.stdout.split(TRACE)[1]
    assert "was sent" not in done.stdout


def test_the_model_is_named_also_where_the_folder_is_wrong(tmp_path: Path) -> None:
    done = run("Why?", "--docs", tmp_path)
    assert "OPENAI_API_KEY" in done.stdout.split(TRACE)[0]


def test_an_agent_that_stops_at_its_limit_says_so(folder: Path) -> None:
    with LoopbackServer(lambda _: called("search_documents", '{"query": "cat"}')) as server:
        done = run("Why?", "--docs", folder, OPENAI_BASE_URL=server.base_url, AGENTFLOW_MODEL="tiny")
    assert done.returncode == 0, done.stderr
    assert "stopped at its limit, turns" in done.stdout.split(TRACE)[0]


def test_a_terminal_that_knows_ascii_only_is_no_problem(folder: Path) -> None:
    done = run(
        "How long does a c\N{LATIN SMALL LETTER A WITH DIAERESIS}t sleep?", "--docs", folder, PYTHONIOENCODING="ascii"
    )
    assert done.returncode == 0, done.stderr
    assert "`- step" in done.stdout
    assert done.stdout.isascii()


def test_what_would_steer_the_terminal_is_spelled_out(folder: Path) -> None:
    done = run("a cat\x1b[31m sleeps", "--docs", folder)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout.split(TRACE)[0]
    assert "Question: a cat\\x1b[31m sleeps" in done.stdout


def test_a_question_needs_no_quotes(folder: Path) -> None:
    done = run("How", "long", "does", "a", "cat", "sleep", "--docs", folder)
    assert "Question: How long does a cat sleep\n" in done.stdout
