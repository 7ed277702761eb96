"""OpenTelemetry with nobody behind it. It imports the SDK, so only cases that trace or measure import this module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.sampling import Sampler


class Discard(SpanExporter):
    """Counts spans and lets them go, unless it is asked to keep them."""

    def __init__(self) -> None:
        self.count = 0
        self.kept: list[ReadableSpan] | None = None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.count += len(spans)
        if self.kept is not None:
            self.kept += spans
        return SpanExportResult.SUCCESS


class Tracing:
    """A provider for the whole process, whose spans go to `exporter` in line.

    A batch processor's thread costs as much as a third of the making of a span, on all sides alike, and at
    moments of its own: it would hide what is measured.
    """

    def __init__(self, sampler: Sampler | None = None) -> None:
        self.exporter = Discard()
        provider = TracerProvider(sampler=sampler)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        trace.set_tracer_provider(provider)

    def taken(self) -> int:
        """How many spans have ended since it was asked last."""
        count, self.exporter.count = self.exporter.count, 0
        return count

    def keep(self) -> None:
        """Keep the spans that end from now on."""
        self.exporter.kept = []

    def kept(self) -> list[ReadableSpan]:
        """The spans that ended since `keep`; later ones are not kept."""
        kept, self.exporter.kept = self.exporter.kept, None
        return kept or []


class Measuring:
    """A provider of metrics for the whole process, which are collected when somebody asks."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self._before: dict[tuple[str, ...], int] = {}
        metrics.set_meter_provider(MeterProvider(metric_readers=[self._reader]))

    def recorded(self) -> dict[tuple[str, ...], int]:
        """How often histograms were recorded since it was asked last, by their name and the names of dimensions."""
        now: dict[tuple[str, ...], int] = {}
        data = self._reader.get_metrics_data()
        for resource in data.resource_metrics if data else ():
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                for point in metric.data.data_points:
                    if isinstance(point, HistogramDataPoint):
                        key = metric.name, *sorted(point.attributes or ())
                        now[key] = now.get(key, 0) + point.count
        before, self._before = self._before, now
        return {key: many - before.get(key, 0) for key, many in now.items()}
