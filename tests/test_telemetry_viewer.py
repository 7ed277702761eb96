"""`agentflow trace` shows the runs of a file, without any server."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from agentflow import Context, Event, Retry, StartEvent, StopEvent, Workflow, step
from agentflow.observe import add_observer
from agentflow_instrumentation import FileExporter, SpanObserver
from agentflow_instrumentation.viewer import trace

if TYPE_CHECKING:
    from pathlib import Path


class Half(Event):
    """One of two."""


class Inner(Workflow):
    @step
    async def answer(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result="inner")


class Flaky(Workflow):
    failed = False

    @step(retry_policy=Retry(attempts=2, wait=0.0))
    async def begin(self, ev: StartEvent) -> list[Half]:
        if not self.failed:
            self.failed = True
            raise ConnectionError("no route")
        return [Half(), Half()]

    @step
    async def end(self, ctx: Context, ev: Half) -> StopEvent | None:
        if ctx.collect_events(ev, [Half, Half]) is None:
            return None
        return StopEvent(result=await Inner().run())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two runs of Flaky and one of Inner, as the exporter "file" writes them."""
    path = tmp_path / "traces.jsonl"
    provider = TracerProvider(shutdown_on_exit=False)
    exporter = FileExporter(path)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    observer = SpanObserver(provider)
    add_observer(observer)
    for workflow in (Flaky(), Inner(), Flaky()):
        workflow.run_sync()
    exporter.shutdown()
    return path


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = trace(arguments)
    out, err = capsys.readouterr()
    return code, re.sub(r"[\d.]+ (us|ms|s)\b", "TIME", out), err


def runs(path: Path) -> list[str]:
    """The ids of the runs that stand alone, as they began."""
    out = []
    for line in path.read_text().splitlines():
        for span in json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"]:
            if span["name"].startswith("invoke") and "parentSpanId" not in span:
                facts = {one["key"]: one["value"] for one in span["attributes"]}
                out.append(facts["agentflow.run.id"]["stringValue"])
    return out


def test_without_a_run_it_lists_all_and_shows_the_latest(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = shown(capsys, str(file))
    assert (code, err) == (0, "")
    *listed, _, hint, _, title = out.splitlines()[:7]
    assert [line.split()[0] for line in listed] == [run[:8] for run in runs(file)]
    assert [line.split()[3] for line in listed] == ["Flaky", "Inner", "Flaky"]
    assert hint == (f"The latest is shown here; another by: agentflow trace {file} --run {runs(file)[0][:8]}")
    assert re.fullmatch(r"trace [0-9a-f]{32}  1 retry", title)
    tree = [line.partition("TIME")[0].rstrip() for line in out.splitlines()[7:]]
    assert tree == [
        "invoke_workflow Flaky",
        "├─ step begin",
        "├─ step begin (attempt 2)",
        "└─ step end",
        "   └─ invoke_workflow Inner",
        "      └─ step answer",
        "",
    ]
    assert "retried after TIME: ConnectionError" in out
    assert "← 2 \N{MULTIPLICATION SIGN} begin:Half" in out


def test_a_run_is_named_by_the_beginning_of_its_id(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = shown(capsys, str(file), "--run", runs(file)[1][:10])
    assert code == 0
    assert [line.partition("TIME")[0].strip() for line in out.splitlines()[1:]] == [
        "invoke_workflow Inner",
        "└─ step answer",
        "",
    ]


def test_a_run_is_named_by_its_trace_as_well(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = shown(capsys, str(file), "--run", runs(file)[1])
    trace_id = wanted[1].split()[1]
    assert shown(capsys, str(file), "--run", trace_id) == wanted
    assert shown(capsys, str(file), "--run", trace_id[:12].upper()) == wanted


def test_every_run_is_listed_on_request(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(5):
        file.write_text(file.read_text() + file.read_text())
    code, out, _ = shown(capsys, str(file), "--all")
    assert (code, len(out.splitlines())) == (0, 3 * 32)
    assert "\n76 earlier runs, 76 ok, are not listed. All:\n" in shown(capsys, str(file))[1]


def test_a_run_that_was_killed_is_shown_as_far_as_it_came(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def kept(line: str) -> bool:
        return f'"traceId":"{last}"' not in line.replace(" ", "") or '"name":"invoke_workflow Flaky"' not in line

    last = shown(capsys, str(file), "--run", runs(file)[-1])[1].split()[1]
    killed = runs(file)[-1]
    file.write_text("".join(f"{line}\n" for line in file.read_text().splitlines() if kept(line)))
    _, out, _ = shown(capsys, str(file))
    assert re.search(rf"{killed[:8]} .* Flaky +TIME  unfinished\n", out)
    assert len([line for line in out.splitlines() if re.match("[0-9a-f]{8}  ", line)]) == 3  # the inner run is in it
    assert f"trace {last}, unfinished: Flaky still goes on, or was killed" in out
    assert "step begin (attempt 2)" in out
    assert "\n└─ invoke_workflow Inner" in out


def test_a_reader_that_goes_away_is_no_error(file: Path) -> None:
    shows = f"from agentflow_instrumentation.viewer import trace; exit(trace([{str(file)!r}]))"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-c", shows], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_run_that_is_not_there_is_an_error_that_names_those_that_are(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = shown(capsys, str(file), "--run", "zzz")
    assert (code, out) == (1, "")
    last = ", ".join(run[:8] for run in runs(file))
    assert err == f"agentflow trace: {file} has no run or trace 'zzz'. The last runs are: {last}\n"


def test_a_beginning_that_several_ids_share_is_an_error(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = shown(capsys, str(file), "--run", "")
    assert code == 1
    assert re.search(r"is the beginning of \d runs: ", err)


def test_a_torn_last_line_is_said_and_left_out(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = len(file.read_text().splitlines())
    with file.open("a") as more:
        more.write('{"resourceSpans":[{"scopeSp')
    code, out, err = shown(capsys, str(file))
    assert code == 0
    assert "invoke_workflow Flaky" in out
    assert err == f"agentflow trace: {file}: no OTLP JSON in line {lines + 1}: left out\n"


def test_a_file_that_is_not_there_is_an_error_that_says_how_to_write_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = shown(capsys)
    assert (code, out) == (1, "")
    assert err == (
        "agentflow trace: traces.jsonl: No such file or directory. "
        'Write one by setup("file", path="traces.jsonl"), or name another: agentflow trace FILE\n'
    )


@pytest.mark.parametrize(
    ("content", "has"),
    [
        ("", "no spans"),
        ('{"resourceLogs":[]}\n', "no spans"),
        ('{"resourceSpans":[{"scopeSpans":[{"spans":[{}]}]}]}', "1 span, none of a run"),
    ],
)
def test_a_file_without_runs_is_said_to_have_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, has: str
) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text(content)
    code, _, err = shown(capsys, str(path))
    assert code == 1
    assert f"has {has}." in err


def test_ids_in_base64_are_read_as_well(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def coded(value: Any) -> Any:
        if isinstance(value, list):
            return [coded(one) for one in value]
        if not isinstance(value, dict):
            return value
        return {
            key: base64.b64encode(bytes.fromhex(one)).decode()
            if key in {"traceId", "spanId", "parentSpanId"}
            else coded(one)
            for key, one in value.items()
        }

    wanted = shown(capsys, str(file))
    file.write_text("".join(f"{json.dumps(coded(json.loads(line)))}\n" for line in file.read_text().splitlines()))
    assert shown(capsys, str(file)) == wanted
