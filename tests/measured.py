"""The metrics that a test makes, as it asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, Metric

from agentflow.observe import add_observer
from agentflow_instrumentation.metrics import MetricObserver

WF, STEP, OUTCOME, ERROR = "agentflow.workflow.name", "agentflow.step.name", "agentflow.outcome", "error.type"
EVENT, EXHAUSTED, TOOL = "agentflow.event.type", "agentflow.retry.exhausted", "gen_ai.tool.name"


class Metrics:
    """What is measured from now on."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False)
        add_observer(MetricObserver(self.provider))

    def all(self) -> dict[str, Metric]:
        data = self.reader.get_metrics_data()
        found = [] if data is None else [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics]
        return {metric.name: metric for metric in found}

    def points(self, name: str, where: Mapping[str, object] | None = None) -> list[Any]:
        metric = self.all().get(name)
        points: list[Any] = [] if metric is None else list(metric.data.data_points)
        return [point for point in points if (where or {}).items() <= dict(point.attributes).items()]

    def dimensions(self, name: str) -> list[dict[str, Any]]:
        return sorted((dict(point.attributes) for point in self.points(name)), key=repr)

    def value(self, name: str, where: Mapping[str, object] | None = None) -> float | None:
        """The only point: a number, or how often something was recorded."""
        points = self.points(name, where)
        assert len(points) <= 1, points
        return None if not points else number(points[0])

    def series(self) -> int:
        """How many there are; but for those that are of the whole process, and so of other tests as well."""
        return sum(len(metric.data.data_points) for name, metric in self.all().items() if "dropped" not in name)


def number(point: Any) -> float:
    return float(point.count if isinstance(point, HistogramDataPoint) else point.value)
