"""The dashboards, rules and alerts as tests read them, and what their queries ask."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import promql_parser
from ruamel.yaml import YAML

from agentflow_instrumentation.instruments import METRICS

FOLDER = Path(__file__).parents[1] / "dashboards"
JSON = sorted((FOLDER / "grafana").glob("*.json"))
RULES = FOLDER / "prometheus" / "rules.yml"
ALERTS = FOLDER / "prometheus" / "alerts.yml"
NOT_MADE_YET = {"agentflow.checkpoint.duration"}
"""Nothing stores a run of its own accord."""
UNIT = {"s": "_seconds"}
"""What Prometheus appends for a unit; for one in braces nothing."""
SERIES = {
    "histogram": ("_bucket", "_sum", "_count"),
    "counter": ("_total",),
    "up-down counter": ("",),
    "gauge": ("",),
}
COMPARISONS = {">", "<", ">=", "<=", "==", "!="}


def in_prometheus(name: str) -> str:
    return name.replace(".", "_")


KNOWN = {
    f"{in_prometheus(metric.name)}{UNIT.get(metric.unit, '')}{series}": {
        *map(in_prometheus, metric.dimensions),
        *(["le"] if series == "_bucket" else []),
    }
    for metric in METRICS
    for series in SERIES[metric.sort]
}
"""Every series of agentflow in Prometheus, and its labels."""


def read_yaml(path: Path) -> Any:
    """What it says."""
    return YAML(typ="safe", pure=True).load(path)


@cache
def board(path: Path) -> Any:
    """A dashboard."""
    return json.loads(path.read_text(encoding="utf-8"))


def panels(path: Path) -> list[dict[str, Any]]:
    """All that show something."""
    return [panel for panel in board(path)["panels"] if panel["type"] != "row"]


@dataclass(frozen=True)
class Query:
    """An expression, and where it stands."""

    where: str
    expr: str

    def __str__(self) -> str:
        return self.where

    def filled(self, service: str = ".*", window: str = "5m") -> str:
        """With something in place of the variables."""
        expr = self.expr.replace("$__rate_interval", window).replace("$__range", window).replace("$service", service)
        return re.sub(r"\$(workflow|agent|model)\b", ".*", expr)


def board_queries() -> Iterator[Query]:
    """Of all panels, and of the variables above them."""
    for path in JSON:
        for panel in panels(path):
            for target in panel["targets"]:
                yield Query(f"{path.stem}: {panel['title']} {target['refId']}", target["expr"])
        for variable in board(path)["templating"]["list"]:
            if variable["type"] == "query":
                yield Query(f"{path.stem}: ${variable['name']}", label_values(variable["definition"])[0])


def label_values(definition: str) -> tuple[str, str]:
    """The series and the label of `label_values(series, label)`."""
    asked = re.fullmatch(r"label_values\((.*), (\w+)\)", definition)
    assert asked, definition
    return asked[1], asked[2]


def rules(path: Path) -> list[dict[str, Any]]:
    """The rules of a file."""
    return [rule for group in read_yaml(path)["groups"] for rule in group["rules"]]


def rule_queries() -> Iterator[Query]:
    """Of all recording rules and alerts."""
    for rule in rules(RULES):
        yield Query(f"rule {rule['record']}", rule["expr"])
    for rule in rules(ALERTS):
        yield Query(f"alert {rule['alert']}", rule["expr"])


@dataclass(frozen=True)
class Asked:
    """The metrics and labels that an expression names."""

    metrics: frozenset[str]
    labels: frozenset[str]


def asked(expr: str) -> Asked:
    """What it names."""
    metrics: set[str] = set()
    labels: set[str] = set()

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            if node.name:
                metrics.add(node.name)
            for matcher in node.matchers.matchers:
                if matcher.name == "__name__":
                    metrics.update(matcher.value.split("|"))
                else:
                    labels.add(matcher.name)
        elif isinstance(node, promql_parser.AggregateExpr) and node.modifier:
            labels.update(node.modifier.labels)
        elif isinstance(node, promql_parser.BinaryExpr) and node.modifier and node.modifier.matching:
            labels.update(node.modifier.matching.labels)

    promql_parser.walk(promql_parser.parse(expr), visit)
    return Asked(frozenset(metrics), frozenset(labels))


def without_threshold(expr: str) -> list[str]:
    """The expressions that an alert looks at: what is compared, and both sides of an `unless`."""
    node = promql_parser.parse(expr)
    while isinstance(node, promql_parser.ParenExpr):
        node = node.expr
    if isinstance(node, promql_parser.BinaryExpr):
        if str(node.op) == "or":
            return without_threshold(node.lhs.prettify())
        if str(node.op) == "unless":
            return [node.lhs.prettify(), node.rhs.prettify()]
        if str(node.op) in COMPARISONS:
            return [node.lhs.prettify()]
    raise AssertionError(f"This is no alert that these tests know: {expr}")


def in_seconds(expr: str) -> str:
    """With windows that a load of some seconds fills."""
    return re.sub(r"offset \d+[mh]", "offset 2s", re.sub(r"\[\d+[mh]\]", "[30s]", expr))
