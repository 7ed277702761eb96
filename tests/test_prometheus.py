"""A real Prometheus gets every metric of a busy service, scraped and through a collector, and answers every query."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import boards
from agentflow_instrumentation.testing import OtlpReceiver
from boards import ALERTS, FOLDER, KNOWN, NOT_MADE_YET, RULES, Query, in_prometheus
from real import SCRIPT, free_ports, is_installed

pytestmark = pytest.mark.slow

WINDOW = "30s"
BUSY = Path(__file__).parent / "busy.py"
COMPOSE = FOLDER / "compose"
BOARD_QUERIES = list(boards.board_queries())


def check(promtool: str, *arguments: str | Path) -> None:
    done = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_and_alerts_are_rules(promtool: str) -> None:
    check(promtool, "check", "rules", RULES, ALERTS)


@pytest.mark.parametrize("path", sorted((FOLDER / "prometheus" / "tests").glob("*.yml")), ids=lambda path: path.stem)
def test_alerts_fire_when_they_should(path: Path, promtool: str) -> None:
    check(promtool, "test", "rules", path)


@pytest.mark.parametrize(
    ("values", "happened"), [("_x20 1x40", 1), ("3x60", 0), ("3x40 5x20", 2), ("_x20 1x20 4x20", 4)]
)
def test_what_happens_for_the_first_time_is_counted(values: str, happened: int, promtool: str, tmp_path: Path) -> None:
    """The counter of what was never seen before is born with its first event."""
    given_up = next(query for query in BOARD_QUERIES if query.where == "agentflow-steps: Given up A")
    series = 'agentflow_retries_total{job="shop", agentflow_retry_exhausted="true"}'
    asked = {
        "expr": f"round({given_up.filled(window='50m')})",
        "eval_time": "60m",
        "exp_samples": [{"labels": "{}", "value": happened}],
    }
    case = {
        "interval": "1m",
        "input_series": [{"series": series, "values": values}],
        "promql_expr_test": [asked],
    }
    path = tmp_path / "first.yml"
    path.write_text(json.dumps({"evaluation_interval": "1m", "tests": [case]}), encoding="utf-8")
    check(promtool, "test", "rules", path)


def test_configuration_of_compose_is_one(tmp_path: Path, promtool: str) -> None:
    shutil.copytree(RULES.parent, tmp_path / "rules")
    shutil.copy(COMPOSE / "prometheus.yml", tmp_path)
    check(promtool, "check", "config", tmp_path / "prometheus.yml")


@dataclass(frozen=True)
class Program:
    """A program that runs, and what it says."""

    process: subprocess.Popen[bytes]
    log: Path

    def said(self) -> str:
        """The end of that."""
        return self.log.read_text(errors="replace")[-4000:]

    def listens(self, port: int, path: str = "") -> None:
        """Return as soon as it does, and what is at the path is there."""
        give_up = time.monotonic() + 30
        while not (_is_there(port, path) if path else _is_open(port)):
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < give_up, self.said()
            time.sleep(0.05)


def _is_open(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _is_there(port: int, path: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10):
            return True
    except OSError:
        return False


@contextlib.contextmanager
def running(log: Path, *command: str | Path, **environment: str) -> Generator[Program]:
    """A program that runs as long as the block, and is asked to end by the end of its input, and then by a signal."""
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **environment}
        ) as process,
    ):
        try:
            yield Program(process, log)
        finally:
            assert process.stdin
            process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=5 if command[0] == sys.executable else 0)
            process.terminate()


@dataclass(frozen=True)
class Prometheus:
    """A server that runs."""

    port: int
    begun: float
    others: Sequence[Program]
    """What it watches, which must not end before it."""

    def get(self, path: str, **parameters: str) -> Any:
        """What its API answers."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def query(self, expr: str) -> list[tuple[Mapping[str, str], float]]:
        """The series of an expression, with their labels, that have a number now."""
        series = [(one["metric"], float(one["value"][1])) for one in self.get("query", query=expr)["result"]]
        return [(labels, value) for labels, value in series if not math.isnan(value)]

    def until(self, expr: str, **labels: str) -> list[tuple[Mapping[str, str], float]]:
        """As `query`, of those with these labels, as soon as there are any: it takes its time to know enough."""
        while True:
            found = [one for one in self.query(expr) if labels.items() <= one[0].items()]
            if found:
                return found
            for other in self.others:
                assert other.process.poll() is None, other.said()
            assert time.monotonic() < self.begun + 60, f"no data: {expr}"
            time.sleep(0.2)


@dataclass(frozen=True)
class Watched:
    """The server and what it watches."""

    prometheus: Prometheus
    collected: tuple[OtlpReceiver, OtlpReceiver] | None
    """Phoenix and Jaeger to the collector, if there is one."""


SCRAPED = {"job_name": "scraped", "scrape_interval": "500ms"}
EVERY_SECOND = {"scrape_interval": "1s", "evaluation_interval": "1s"}


@pytest.fixture(scope="module")
def watched(prometheus: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Two services at work, one scraped, one with a collector between, and a Prometheus that watches both."""
    folder = tmp_path_factory.mktemp("prometheus")
    port, served = free_ports(2)
    config = boards.read_yaml(COMPOSE / "prometheus.yml")
    config["global"] = EVERY_SECOND
    config["scrape_configs"].append({**SCRAPED, "static_configs": [{"targets": [f"127.0.0.1:{served}"]}]})
    (folder / "rules").mkdir()
    for path in (RULES, ALERTS):
        text = boards.in_seconds(path.read_text(encoding="utf-8"))
        (folder / "rules" / path.name).write_text(re.sub(r"for: \d+m", "for: 0s", text), encoding="utf-8")
    with contextlib.ExitStack() as stack:
        others: list[Program] = []
        collected = None
        if is_installed("jaeger"):
            collected = stack.enter_context(OtlpReceiver()), stack.enter_context(OtlpReceiver())
            shown, *others = stack.enter_context(collecting(folder, *collected))
            config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{shown}"]}]
        environment = {"OTEL_EXPORTER_PROMETHEUS_PORT": str(served)}
        busy = running(folder / "scraped.log", sys.executable, BUSY, "prometheus", **environment)
        others.append(stack.enter_context(busy))
        (folder / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")
        options = {
            "config.file": folder / "prometheus.yml",
            "storage.tsdb.path": folder / "data",
            "web.listen-address": f"127.0.0.1:{port}",
            "enable-feature": "exemplar-storage",
            "log.level": "warn",
        }
        command = [prometheus, *(f"--{name}={value}" for name, value in options.items())]
        stack.enter_context(running(folder / "prometheus.log", *command)).listens(port, "/-/ready")
        yield Watched(Prometheus(port, time.monotonic(), others), collected)


@contextlib.contextmanager
def collecting(folder: Path, phoenix: OtlpReceiver, jaeger: OtlpReceiver) -> Generator[tuple[int, Program, Program]]:
    """A service that sends to a collector with the configuration of compose: where that shows metrics, and the two."""
    told = subprocess.run([sys.executable, SCRIPT, "jaeger", "path"], capture_output=True, text=True, check=True)
    grpc, http, shown = free_ports(3)
    addresses = {
        "OTLP_GRPC": f"127.0.0.1:{grpc}",
        "OTLP_HTTP": f"127.0.0.1:{http}",
        "METRICS": f"127.0.0.1:{shown}",
        "PHOENIX": phoenix.http_endpoint.removesuffix("/v1/traces"),
        "JAEGER": jaeger.grpc_endpoint.removeprefix("http://"),
    }
    command = [told.stdout.strip(), f"--config={COMPOSE / 'collector.yaml'}"]
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{http}",
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
    }
    with running(folder / "collector.log", *command, **addresses) as collector:
        collector.listens(http)
        with running(folder / "collected.log", sys.executable, BUSY, "otlp", **environment) as busy:
            yield shown, collector, busy


@pytest.fixture
def collected(watched: Watched, request: pytest.FixtureRequest) -> tuple[OtlpReceiver, OtlpReceiver]:
    """Phoenix and Jaeger to the collector."""
    if watched.collected is None:
        request.getfixturevalue("jaeger")  # its program is a collector, too: it says why there is none
    assert watched.collected
    return watched.collected


@pytest.fixture(params=["scraped", "collected"])
def job(request: pytest.FixtureRequest) -> str:
    """The service that was scraped, or whose metrics were collected."""
    if request.param == "collected":
        request.getfixturevalue("collected")
    return str(request.param)


@pytest.mark.parametrize("query", BOARD_QUERIES, ids=str)
def test_every_panel_shows_something(query: Query, job: str, watched: Watched) -> None:
    watched.prometheus.until(query.filled(job, WINDOW))


@pytest.mark.parametrize("rule", boards.rules(RULES), ids=lambda rule: rule["record"])
def test_every_rule_records_something(rule: Any, job: str, watched: Watched) -> None:
    watched.prometheus.until(rule["record"], job=job)


@pytest.mark.parametrize("rule", boards.rules(ALERTS), ids=lambda rule: rule["alert"])
def test_every_alert_looks_at_something(rule: Any, job: str, watched: Watched) -> None:
    for expr in boards.without_threshold(rule["expr"]):
        watched.prometheus.until(boards.in_seconds(expr), job=job)


@pytest.mark.parametrize("alert", ["RunsFail", "RetriesExhausted", "ToolFails", "TelemetryLost"])
def test_alerts_of_what_goes_wrong_here_fire(alert: str, job: str, watched: Watched) -> None:
    expr = f'ALERTS{{alertname="Agentflow{alert}", alertstate="firing"}}'
    watched.prometheus.until(expr, job=job)


@pytest.mark.parametrize("name", ["service", "workflow", "agent", "model"])
def test_variables_have_something_to_choose(name: str, job: str, watched: Watched) -> None:
    (definition,) = {
        variable["definition"]
        for path in boards.JSON
        for variable in boards.board(path)["templating"]["list"]
        if variable["name"] == name
    }
    series, label = boards.label_values(definition)
    chosen = {labels.get(label) for labels, _ in watched.prometheus.until(Query("", series).filled(job, WINDOW))}
    expected = {"service": {job}, "workflow": {"factory", "permission"}, "agent": {"clerk"}, "model": {"gpt-4o-mini"}}
    assert expected[name] <= chosen


def test_labels_are_those_of_the_table_and_no_more(job: str, watched: Watched) -> None:
    """Also that no name came that no board knows of: what Prometheus has is what the table says."""
    found: dict[str, set[str]] = {}
    for labels, _ in watched.prometheus.until(f'{{__name__=~"(agentflow|gen_ai)_.+", job="{job}"}}'):
        mine = {label for label in labels if not label.startswith("otel_scope_")} - {"__name__", "job", "instance"}
        found.setdefault(labels["__name__"], set()).update(mine)
    missing_yet = {name for name in KNOWN if name.startswith(tuple(map(in_prometheus, NOT_MADE_YET)))}
    assert found.keys() == KNOWN.keys() - missing_yet
    for name, its_labels in found.items():
        assert its_labels <= KNOWN[name], name


def test_the_collector_sends_traces_to_phoenix_and_to_jaeger(collected: tuple[OtlpReceiver, OtlpReceiver]) -> None:
    phoenix, jaeger = collected
    phoenix.wait_for(spans=100)
    jaeger.wait_for(spans=100)
    assert {span.trace_id for span in phoenix.spans} & {span.trace_id for span in jaeger.spans}


def test_a_dot_on_a_curve_leads_to_a_trace(watched: Watched, collected: tuple[OtlpReceiver, OtlpReceiver]) -> None:
    phoenix, _ = collected
    curve = 'gen_ai_invoke_workflow_duration_seconds_bucket{job="collected"}'

    def named() -> set[str]:
        now = time.time()
        found = watched.prometheus.get("query_exemplars", query=curve, start=str(now - 60), end=str(now))
        return {one["labels"]["trace_id"] for series in found for one in series["exemplars"]}

    watched.prometheus.until(curve)
    give_up = time.monotonic() + 30
    while not named() & {span.trace_id for span in phoenix.spans}:
        assert time.monotonic() < give_up, named()
        time.sleep(0.2)
