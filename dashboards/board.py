"""A board of panels as Grafana's JSON: where each panel stands, what is chosen above, what leads away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import promql
from panels import PROMETHEUS, Json, Panel

if TYPE_CHECKING:
    from collections.abc import Sequence

SCHEMA_VERSION = 39  # what Grafana 11 writes; later ones read it
WIDTH = 24


@dataclass(frozen=True)
class Row:
    """Panels side by side, all equally wide unless it says how wide each is. With a title it begins a section."""

    height: int
    panels: Sequence[Panel]
    title: str = ""
    widths: Sequence[int] = ()


@dataclass(frozen=True)
class Board:
    """A dashboard."""

    uid: str
    title: str
    description: str
    rows: Sequence[Row]

    def render(self) -> Json:
        """As Grafana imports it."""
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["agentflow"],
            "schemaVersion": SCHEMA_VERSION,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": "now-1h", "to": "now"},
            "timezone": "browser",
            "annotations": {"list": []},
            "templating": {"list": _variables()},
            "links": _links(),
            "panels": list(self._placed()),
        }

    def _placed(self) -> list[Json]:
        placed: list[Json] = []
        y = 0
        for row in self.rows:
            if row.title:
                place = {"x": 0, "y": y, "w": WIDTH, "h": 1}
                section: Json = {"type": "row", "title": row.title, "collapsed": False, "panels": [], "gridPos": place}
                placed.append({"id": len(placed) + 1, **section})
                y += 1
            x = 0
            widths = row.widths or [WIDTH // len(row.panels)] * len(row.panels)
            for width, panel in zip(widths, row.panels, strict=True):
                placed.append(panel.render(len(placed) + 1, {"x": x, "y": y, "w": width, "h": row.height}))
                x += width
            y += row.height
        return placed


def _variables() -> list[Json]:
    service = f'{{{promql.SERVICE}=~"$service"}}'
    anything = f'{{__name__=~"{promql.ACTIVE}|{promql.CALLS}_count"}}'
    phoenix = "http://localhost:6006"
    return [
        _source("datasource", "Metrics", "prometheus", hide=0),
        _source("traces", "Traces", "jaeger", hide=2),
        _choice("service", "Service", anything, promql.SERVICE),
        _choice("workflow", "Workflow", promql.ACTIVE + service, promql.WORKFLOW),
        _choice("agent", "Agent", f"{promql.AGENTS}_count{service}", promql.AGENT),
        _choice("model", "Model", f"{promql.CALLS}_count{service}", promql.MODEL),
        {
            "name": "phoenix",
            "label": "Phoenix",
            "type": "textbox",
            "hide": 2,
            "query": phoenix,
            "current": {"text": phoenix, "value": phoenix},
        },
    ]


def _source(name: str, title: str, kind: str, *, hide: int) -> Json:
    return {
        "name": name,
        "label": title,
        "type": "datasource",
        "query": kind,
        "regex": "",
        "hide": hide,
        "multi": False,
        "includeAll": False,
        "refresh": 1,
        "current": {},
    }


def _choice(name: str, title: str, series: str, label: str) -> Json:
    query = f"label_values({series}, {label})"
    return {
        "name": name,
        "label": title,
        "type": "query",
        "datasource": PROMETHEUS,
        "definition": query,
        "query": {"query": query, "refId": name, "qryType": 1},
        "refresh": 2,
        "sort": 1,
        "hide": 0,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"], "selected": True},
    }


def _links() -> list[Json]:
    same: Json = {"includeVars": True, "keepTime": True, "targetBlank": False, "icon": "external link", "tooltip": ""}
    boards: Json = {"type": "dashboards", "title": "agentflow", "tags": ["agentflow"], "asDropdown": False, "url": ""}
    phoenix: Json = {"type": "link", "title": "Phoenix", "tags": [], "asDropdown": False, "url": "${phoenix}"}
    return [{**boards, **same}, {**phoenix, **same, "includeVars": False, "keepTime": False, "targetBlank": True}]
