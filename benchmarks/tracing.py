"""OpenTelemetry with an exporter that throws away. It imports the SDK, so only cases that trace import this module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import trace
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
