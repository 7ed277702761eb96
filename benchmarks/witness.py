"""One peer's part of the comparison: `witness.py PEER` lives through every scene and prints the spans of each as JSON.

Each library is instrumented as its own documents say, with their defaults.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import json
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span

SCENES = ("step_retry", "model_retry", "tools", "fan_in", "cancel", "pause")


class Witness(SpanExporter):
    """Keeps what a scene's spans say, and counts those that began."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        self.begun = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.spans += map(told, spans)
        return SpanExportResult.SUCCESS

    def take(self) -> dict[str, Any]:
        """What came since it was asked last."""
        taken = {"spans": self.spans, "begun": self.begun}
        self.spans, self.begun = [], 0
        return taken


class Counting(SimpleSpanProcessor):
    """Counts spans when they begin."""

    span_exporter: Any

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self.span_exporter.begun += 1


def told(span: ReadableSpan) -> dict[str, Any]:
    """A span as JSON's types."""
    assert span.context
    return {
        "name": span.name,
        "trace": f"{span.context.trace_id:032x}",
        "id": f"{span.context.span_id:016x}",
        "parent": None if span.parent is None else f"{span.parent.span_id:016x}",
        "start": (span.start_time or 0) / 1e9,
        "end": (span.end_time or 0) / 1e9,
        "status": span.status.status_code.name,
        "says": span.status.description,
        "attributes": dict(span.attributes or {}),
        "events": [{"name": event.name, **dict(event.attributes or {})} for event in span.events],
        "links": [f"{link.context.trace_id:032x}" for link in span.links],
    }


async def live(scene: Any) -> str | None:
    """Live through a scene; how it failed, where it did."""
    try:
        await scene()
    except asyncio.CancelledError:
        return None  # what the scene is about
    except Exception as error:  # noqa: BLE001 because the others are to be seen
        return f"{type(error).__name__}: {error}"
    finally:
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others, timeout=1)  # what still ends its spans
    return None


def main() -> None:
    """Print what is seen of the peer that the command line names."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    peer = sys.argv[1]
    logging.disable(logging.WARNING)
    scenes = importlib.import_module(f"peers.{peer}.scenes")
    witness = Witness()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Counting(witness))
    trace.set_tracer_provider(provider)
    scenes.instrument(provider)
    seen: dict[str, Any] = {}
    for name in SCENES:
        if hasattr(scenes, name):
            failed = asyncio.run(live(getattr(scenes, name)))
            seen[name] = {**witness.take(), "failed": failed}
    versions = {package: importlib.metadata.version(package) for package in scenes.PACKAGES}
    json.dump({"seen": seen, "versions": versions}, answer, default=str)


if __name__ == "__main__":
    main()
