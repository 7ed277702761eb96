"""The dashboards, rules and alerts hold together: they are whole, can be read, and ask for what there is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped] # because it has no types
import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

import boards
from agentflow_instrumentation.instruments import METRICS
from boards import ALERTS, FOLDER, JSON, KNOWN, NOT_MADE_YET, RULES, Query, in_prometheus

COMPOSE = FOLDER / "compose"
OF_OTHER_VINTAGES = {
    "gen_ai_client_inference_duration_seconds_count",
    "gen_ai_client_inference_duration_seconds_bucket",
    "gen_ai_client_inference_usage_input_tokens_total",
    "gen_ai_client_inference_usage_output_tokens_total",
}
OF_PROMETHEUS = {"job", "le", "alertname", "alertstate", "__name__"}
QUERIES = [*boards.board_queries(), *boards.rule_queries()]
every_board = pytest.mark.parametrize("path", JSON, ids=lambda path: path.stem)


def test_the_files_are_what_generate_writes() -> None:
    command = [sys.executable, str(FOLDER / "generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_each_board_is_called_as_its_file() -> None:
    assert [boards.board(path)["uid"] for path in JSON] == [path.stem for path in JSON]
    assert [path.stem for path in JSON] == [
        "agentflow-llm-cost",
        "agentflow-overview",
        "agentflow-steps",
        "agentflow-tools-rag",
    ]


@every_board
def test_grafana_knows_all_that_they_say(path: Path) -> None:
    """What its own types do not know is lost on the way through them."""
    register_default_plugins()
    through = json.loads(JSONEncoder().encode(Dashboard.from_json(boards.board(path))))
    assert set(lost(boards.board(path), through)) <= {".templating.list[].definition"}, "its editor alone reads that"


def lost(said: Any, kept: Any, at: str = "") -> Iterator[str]:
    if isinstance(said, dict) and isinstance(kept, dict):
        for name, value in said.items():
            yield from lost(value, kept[name], f"{at}.{name}") if name in kept else (f"{at}.{name}",)
    elif isinstance(said, list) and isinstance(kept, list) and len(said) == len(kept):
        for one, other in zip(said, kept, strict=True):
            yield from lost(one, other, f"{at}[]")
    elif said != kept:
        yield f"{at}: {said!r} became {kept!r}"


@every_board
def test_panels_have_ids_of_their_own(path: Path) -> None:
    ids = [panel["id"] for panel in boards.board(path)["panels"]]
    assert sorted(set(ids)) == sorted(ids)


@every_board
def test_panels_fill_the_width_and_lie_on_none_another(path: Path) -> None:
    taken: dict[tuple[int, int], str] = {}
    bottom = 0
    for panel in boards.board(path)["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        bottom = max(bottom, place["y"] + place["h"])
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) is panel["title"], (panel["title"], taken[x, y])
    assert len(taken) == 24 * bottom, "there is a hole"


@every_board
def test_panels_say_what_they_show(path: Path) -> None:
    for panel in boards.panels(path):
        shown = panel["fieldConfig"]["defaults"]
        assert panel["description"].endswith((".", "0.")), panel["title"]
        assert shown["unit"], panel["title"]
        values = [step["value"] for step in shown["thresholds"]["steps"]]
        assert values[0] is None
        assert values[1:] == sorted(values[1:]), panel["title"]


@every_board
def test_titles_are_said_once(path: Path) -> None:
    titles = [(panel["type"], panel["title"]) for panel in boards.panels(path)]
    assert sorted(set(titles)) == sorted(titles)


@every_board
def test_every_query_asks_the_source_that_is_chosen_above(path: Path) -> None:
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    for panel in boards.panels(path):
        assert [panel["datasource"], *(target["datasource"] for target in panel["targets"])] == [chosen] * (
            len(panel["targets"]) + 1
        )


@every_board
def test_variables_choose_source_service_workflow_agent_and_model(path: Path) -> None:
    variables = {variable["name"]: variable for variable in boards.board(path)["templating"]["list"]}
    assert {"datasource", "traces", "service", "workflow", "agent", "model"} <= variables.keys()
    used = json.dumps(boards.board(path)["panels"])
    assert "$service" in used
    for name in ("service", "workflow", "agent", "model"):
        assert variables[name]["allValue"] == ".*", "what has no such label must be shown, too"


@every_board
def test_the_first_row_fits_on_the_first_screen(path: Path) -> None:
    first = boards.panels(path)[:6]
    assert {panel["type"] for panel in first} == {"stat"}
    assert {panel["gridPos"]["y"] for panel in first} == {0}


@every_board
def test_links_to_traces_have_the_labels_that_they_name(path: Path) -> None:
    links = 0
    for panel in boards.panels(path):
        for link in panel["fieldConfig"]["defaults"]["links"]:
            links += 1
            named = {part.partition("}")[0] for part in link["url"].split("${__field.labels.")[1:]}
            assert "job" in named, panel["title"]
            for target in panel["targets"]:
                expr = Query("", target["expr"]).filled()
                assert named <= boards.asked(expr).labels, (panel["title"], named)
    assert links


@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_queries_can_be_read_and_ask_for_what_there_is(query: Query) -> None:
    named = boards.asked(query.filled())
    recorded = {rule["record"] for rule in boards.rules(RULES)}
    unknown = named.metrics - KNOWN.keys() - recorded - OF_OTHER_VINTAGES - {"ALERTS"}
    assert not unknown, f"agentflow has no such metric: {sorted(unknown)}"
    labels = OF_PROMETHEUS.union(*(KNOWN.get(metric, set()) for metric in named.metrics))
    if named.metrics & recorded:
        labels |= set().union(*KNOWN.values())
    assert named.labels <= labels, f"these metrics have no such label: {sorted(named.labels - labels)}"


def test_every_metric_is_on_a_board() -> None:
    shown = frozenset[str]().union(*(boards.asked(query.filled()).metrics for query in boards.board_queries()))
    missing = {
        metric.name
        for metric in METRICS
        if not shown & {name for name in KNOWN if name.startswith(in_prometheus(metric.name))}
    }
    assert missing == NOT_MADE_YET


def test_every_alert_says_what_to_do() -> None:
    for rule in boards.rules(ALERTS):
        assert rule["alert"].startswith("Agentflow")
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}
        assert boards.without_threshold(rule["expr"])


def test_every_alert_is_tested_and_seen_to_stay_silent() -> None:
    asked: dict[str, set[bool]] = {}
    for path in (FOLDER / "prometheus" / "tests").glob("*.yml"):
        for case in boards.read_yaml(path)["tests"]:
            for test in case["alert_rule_test"]:
                asked.setdefault(test["alertname"], set()).add(bool(test.get("exp_alerts")))
    wanted = {rule["alert"]: {True, False} for rule in boards.rules(ALERTS)}
    wanted["AgentflowRunawayLoop"] = {True}  # beside it an agent that finds its end stays silent
    wanted["AgentflowToolFails"] = {True}  # as above, a tool
    wanted["AgentflowQueueWait"] = {True}  # as above, a step
    assert asked == wanted


def test_compose_file_keeps_to_its_schema() -> None:
    schema = files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    jsonschema.validate(
        boards.read_yaml(COMPOSE / "docker-compose.yml"), json.loads(schema.read_text(encoding="utf-8"))
    )


def services() -> dict[str, Any]:
    found: dict[str, Any] = boards.read_yaml(COMPOSE / "docker-compose.yml")["services"]
    return found


def test_every_port_is_of_this_machine_only() -> None:
    ports = [port for service in services().values() for port in service["ports"]]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_image_has_a_version() -> None:
    for service in services().values():
        assert service["image"].rpartition(":")[2].strip("version-").strip("v").replace(".", "").isdecimal()


def test_every_file_that_is_mounted_is_there() -> None:
    for service in services().values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert not source.startswith(".") or (COMPOSE / source).exists(), source


def test_boards_and_data_sources_are_there_without_a_click() -> None:
    grafana = services()["grafana"]
    (provider,) = boards.read_yaml(COMPOSE / "grafana" / "dashboards" / "dashboards.yaml")["providers"]
    mounted = dict(volume.split(":")[1::-1] for volume in grafana["volumes"])
    assert (COMPOSE / mounted[provider["options"]["path"]]).resolve() == FOLDER / "grafana"
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert FOLDER / "grafana" / home.name in JSON
    assert mounted["/etc/grafana/provisioning"] == "./grafana"
    sources = {
        source["type"]: source
        for source in boards.read_yaml(COMPOSE / "grafana" / "datasources" / "datasources.yaml")["datasources"]
    }
    assert sources.keys() == {"prometheus", "jaeger"}
    for kind, source in sources.items():
        assert source["url"].startswith(f"http://{kind}:")
        assert kind in services()
    links = sources["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert links[0]["datasourceUid"] == sources["jaeger"]["uid"]
    assert links[1]["url"].startswith("http://localhost:6006/")


def test_the_collector_sends_to_services_that_are_there() -> None:
    config = boards.read_yaml(COMPOSE / "collector.yaml")
    pipelines = config["service"]["pipelines"]
    assert pipelines.keys() == {"traces", "metrics", "logs"}
    for pipeline in pipelines.values():
        for part in ("receivers", "processors", "exporters"):
            assert set(pipeline[part]) <= config[part].keys()
    assert pipelines["traces"]["exporters"] == ["otlphttp/phoenix", "otlp/jaeger"]
    assert config["exporters"]["otlphttp/phoenix"]["endpoint"] == "${env:PHOENIX:-http://phoenix:6006}"
    assert config["exporters"]["otlp/jaeger"]["endpoint"] == "${env:JAEGER:-jaeger:4317}"
    assert {"phoenix", "jaeger", "collector"} <= services().keys()


def test_prometheus_scrapes_the_collector_and_reads_the_rules() -> None:
    config = boards.read_yaml(COMPOSE / "prometheus.yml")
    (job,) = config["scrape_configs"]
    assert job["honor_labels"], "else every service is called `collector`"
    (port,) = (target.rpartition(":")[2] for target in job["static_configs"][0]["targets"])
    exporter = boards.read_yaml(COMPOSE / "collector.yaml")["exporters"]["prometheus"]
    assert exporter["endpoint"] == f"${{env:METRICS:-0.0.0.0:{port}}}"
    mounted = dict(volume.split(":")[1::-1] for volume in services()["prometheus"]["volumes"])
    assert (COMPOSE / mounted["/etc/prometheus/rules"]).resolve() == RULES.parent
    assert config["rule_files"] == ["rules/*.yml"]
    assert {path.name for path in RULES.parent.glob("*.yml")} == {"rules.yml", "alerts.yml"}


def test_thresholds_are_compared_with_something() -> None:
    """What the tests of a real Prometheus ask is made from the alerts by this."""
    assert boards.without_threshold("(a / b) > 0.5 or c > 1") == ["(a / b)"]
    assert boards.without_threshold("a offset 1h unless b") == ["a offset 1h", "b"]
    assert boards.in_seconds("rate(a[5m]) unless a offset 10m") == "rate(a[30s]) unless a offset 2s"
