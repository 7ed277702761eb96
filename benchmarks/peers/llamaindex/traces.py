"""The chain with llama-index-observability-otel: a span a step with few attributes, none for events, no links."""

import logging
from typing import cast

from llama_index.observability.otel import LlamaIndexOpenTelemetry
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from peers import Run
from peers.llamaindex.engine import chain
from tracing import Discard

SPANS_LIKE_OURS = False
SIZES: dict[str, dict[str, int]] = {"traced": {"runs": 30}, "traced_memory": {"runs": 50}}


def instrument() -> None:
    logging.getLogger("opentelemetry.trace").setLevel(logging.ERROR)  # it sets the provider that is set already
    provider = cast("TracerProvider", trace.get_tracer_provider())
    LlamaIndexOpenTelemetry(tracer_provider=provider, span_exporter=Discard()).start_registering()


def chain_traced(steps: int) -> Run:
    instrument()
    return chain(steps)
