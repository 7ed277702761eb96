"""Grafana's panels as JSON, from what a board says of them: what, in which unit, when it is bad."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import promql

if TYPE_CHECKING:
    from collections.abc import Mapping

Json = dict[str, Any]
PROMETHEUS: Json = {"type": "prometheus", "uid": "${datasource}"}
PER_MINUTE = "suffix:/min"
DOLLARS = "currencyUSD"
DOLLARS_AN_HOUR = "suffix: $/h"
SECONDS = "s"
PART = "percentunit"
COUNT = "short"
EVERY = "1m"
"""How often there is something new, at the slowest: metrics go out every minute by OTLP. Grafana makes $__rate_interval
four times as long; within a single minute there is now one step of a counter and now none."""
OUTCOMES = {
    "ok": "green",
    "collecting": "blue",
    "suspended": "purple",
    "cancelled": "yellow",
    "retried": "orange",
    "timeout": "dark-orange",
    "error": "red",
}
"""How a run or step ended, each in a colour of its own."""


@dataclass(frozen=True)
class Query:
    """An expression, and what its series are called."""

    expr: str
    legend: str = ""
    exemplar: bool = False
    """Whether single traces are shown on it as dots."""


@dataclass(frozen=True)
class Panel:
    """What a panel shows. `json` is what Grafana calls its own for the kind of panel."""

    kind: str
    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    options: Json
    custom: Json
    limits: tuple[float, float] | None = None
    """From where on it is worth a look, and from where on it is bad."""
    at_once: bool = False
    """Whether it shows how it is now, or what all the time shown comes to, and not how it came about."""
    as_table: bool = False
    overrides: tuple[Json, ...] = ()
    transformations: tuple[Json, ...] = ()
    links: tuple[Json, ...] = ()
    at_least: float | None = 0

    def render(self, number: int, place: Json) -> Json:
        """As Grafana has it."""
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "gridPos": place,
            "datasource": PROMETHEUS,
            "targets": [self._target(letter, query) for letter, query in zip("ABCDEFGH", self.queries, strict=False)],
            "fieldConfig": {
                "defaults": {
                    "unit": self.unit,
                    "noValue": "-",
                    "color": {"mode": "thresholds" if self._by_limits else "palette-classic"},
                    "thresholds": {"mode": "absolute", "steps": self._steps()},
                    "custom": self.custom,
                    "links": list(self.links),
                    **({} if self.at_least is None else {"min": self.at_least}),
                },
                "overrides": list(self.overrides),
            },
            "options": self.options,
            "transformations": list(self.transformations),
        }

    @property
    def _by_limits(self) -> bool:
        return self.kind in {"stat", "bargauge"}

    def _steps(self) -> list[Json]:
        if self.limits is None:
            return [{"color": "text" if self.kind == "stat" else "blue", "value": None}]
        look, bad = self.limits
        return [
            {"color": "green", "value": None},
            {"color": "orange", "value": look},
            {"color": "red", "value": bad},
        ]

    def _target(self, letter: str, query: Query) -> Json:
        return {
            "refId": letter,
            "datasource": PROMETHEUS,
            "editorMode": "code",
            "expr": query.expr,
            "legendFormat": query.legend or "__auto",
            "instant": self.at_once,
            "range": not self.at_once,
            "interval": EVERY,
            "exemplar": query.exemplar,
            "format": "table" if self.as_table else "heatmap" if self.kind == "heatmap" else "time_series",
        }


def stat(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    limits: tuple[float, float] | None = None,
    at_once: bool = False,
) -> Panel:
    """A number, or one for each query, with its curve behind it unless it is of all the time shown."""
    options: Json = {
        "colorMode": "value",
        "graphMode": "none" if at_once else "area",
        "justifyMode": "auto",
        "orientation": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "textMode": "value_and_name" if len(queries) > 1 else "value",
        "wideLayout": True,
    }
    return Panel("stat", title, description, unit, queries, options, {}, limits, at_once)


def lines(  # noqa: PLR0913 because a reader of a board sees each by its name
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    limits: tuple[float, float] | None = None,
    stacked: bool = False,
    colours: Mapping[str, str] = {},
    operation: str = "",
) -> Panel:
    """Curves over time. `operation` is the name of the spans that its series are about, for a link to their traces."""
    custom: Json = {
        "drawStyle": "line",
        "lineInterpolation": "linear",
        "lineWidth": 1,
        "fillOpacity": 40 if stacked else 8,
        "showPoints": "auto",
        "spanNulls": 120_000,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if limits else "off"},
    }
    options: Json = {
        "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"], "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return Panel(
        "timeseries",
        title,
        description,
        unit,
        queries,
        options,
        custom,
        limits,
        overrides=tuple(_coloured(name, colour) for name, colour in colours.items()),
        links=(_traces(operation),) if operation else (),
    )


def bars(title: str, description: str, unit: str, query: Query, *, limits: tuple[float, float] | None = None) -> Panel:
    """The greatest of all the time shown, the greatest first."""
    options: Json = {
        "displayMode": "gradient",
        "orientation": "horizontal",
        "showUnfilled": True,
        "valueMode": "color",
        "namePlacement": "auto",
        "sizing": "auto",
        "minVizHeight": 16,
        "minVizWidth": 8,
        "maxVizHeight": 40,
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "legend": {"showLegend": False, "displayMode": "list", "placement": "bottom", "calcs": []},
    }
    return Panel("bargauge", title, description, unit, (query,), options, {}, limits, at_once=True)


def heatmap(title: str, description: str, unit: str, query: Query) -> Panel:
    """How many values lay in which bucket, over time."""
    options: Json = {
        "calculate": False,
        "cellGap": 1,
        "color": {
            "mode": "scheme",
            "scheme": "Oranges",
            "steps": 64,
            "exponent": 0.5,
            "scale": "exponential",
            "fill": "dark-orange",
            "reverse": False,
        },
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "tooltip": {"mode": "single", "yHistogram": False, "showColorScale": True},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": unit},
    }
    return Panel("heatmap", title, description, unit, (query,), options, {}, at_least=None)


@dataclass(frozen=True)
class Column:
    """A column of a table: what it is called, its unit, and the query that has it for each row."""

    title: str
    unit: str
    expr: str
    limits: tuple[float, float] | None = None


def table(title: str, description: str, labels: Mapping[str, str], *columns: Column) -> Panel:
    """A row for each combination of these labels, of which each has its title; the first column sorts."""
    letters = "ABCDEFGH"[: len(columns)]
    named = {**labels, **{f"Value #{letter}": column.title for letter, column in zip(letters, columns, strict=True)}}
    order = {name: place for place, name in enumerate(named)}
    options: Json = {
        "cellHeight": "sm",
        "showHeader": True,
        "sortBy": [{"displayName": columns[0].title, "desc": True}],
        "footer": {"show": False, "reducer": ["sum"], "countRows": False, "fields": ""},
    }
    organised: Json = {
        "id": "organize",
        "options": {"excludeByName": {"Time": True}, "indexByName": order, "renameByName": named},
    }
    plain = Panel(
        "table",
        title,
        description,
        COUNT,
        tuple(Query(column.expr) for column in columns),
        options,
        {"align": "auto", "cellOptions": {"type": "auto"}, "filterable": True},
        at_once=True,
        as_table=True,
        overrides=tuple(map(_of_column, columns)),
        transformations=({"id": "merge", "options": {}}, organised),
    )
    return replace(plain, at_least=None)


def _of_column(column: Column) -> Json:
    properties: list[Json] = [{"id": "unit", "value": column.unit}, {"id": "decimals", "value": 2}]
    if column.limits:
        look, bad = column.limits
        steps = [{"color": "text", "value": None}, {"color": "orange", "value": look}, {"color": "red", "value": bad}]
        properties += [
            {"id": "thresholds", "value": {"mode": "absolute", "steps": steps}},
            {"id": "color", "value": {"mode": "thresholds"}},
            {"id": "custom.cellOptions", "value": {"type": "color-text"}},
        ]
    return {"matcher": {"id": "byName", "options": column.title}, "properties": properties}


def _coloured(name: str, colour: str) -> Json:
    fixed: Json = {"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}
    return {"matcher": {"id": "byName", "options": name}, "properties": [fixed]}


def _traces(operation: str) -> Json:
    """A link from a series to the traces of that service which have such a span. Its labels must have the service."""
    query = {
        "refId": "A",
        "datasource": {"type": "jaeger", "uid": "${traces}"},
        "queryType": "search",
        "service": f"${{__field.labels.{promql.SERVICE}}}",
        "operation": operation,
    }
    span = {"from": "${__from}", "to": "${__to}"}
    panes = json.dumps({"traces": {"datasource": "${traces}", "queries": [query], "range": span}})
    # Grafana puts the variables' values in, so that they must stay as they are.
    url = "/explore?schemaVersion=1&panes=" + quote(panes, safe="${}.:,")
    return {"title": "Traces with such a span", "url": url, "targetBlank": True}
