"""A service with the instrumentor of Starlette on: `python web.py`. Prints its spans as JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from importlib import import_module
from typing import Any

from opentelemetry import baggage, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agentflow import StartEvent, StopEvent, Workflow, step
from agentflow_llm import ScriptedModel
from agentflow_llm.messages import ChatMessage

CALLER = 42


class Chain(Workflow):
    """Asks once, and says which tenant the baggage names."""

    @step
    async def one(self, ev: StartEvent) -> StopEvent:
        """Ask."""
        await ScriptedModel(["Hi"]).chat([ChatMessage(role="user", content="Hello")])
        return StopEvent(result=baggage.get_baggage("tenant"))


async def plain(request: Any) -> Any:
    """A run in a request, and one when it was answered."""
    responses, background = (import_module(f"starlette.{name}") for name in ("responses", "background"))

    async def later() -> None:
        await Chain().run()

    return responses.JSONResponse(await Chain().run(), background=background.BackgroundTask(later))


async def streamed(request: Any) -> Any:
    """A run while the answer is sent."""

    async def lines() -> AsyncIterator[str]:
        yield "data: begin\n\n"
        yield f"data: {await Chain().run()}\n\n"

    return import_module("starlette.responses").StreamingResponse(lines(), media_type="text/event-stream")


async def call(app: Any) -> list[str]:
    """What a client is told, which has a trace already."""
    httpx = import_module("httpx")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
        headers = {"baggage": "tenant=acme", "traceparent": f"00-{1:032x}-{CALLER:016x}-01"}
        return [(await client.get(path, headers=headers)).text for path in ("/plain", "/streamed")]


def main() -> None:
    """Serve in process, call, tell."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    routes = [import_module("starlette.routing").Route(f"/{view.__name__}", view) for view in (plain, streamed)]
    app = import_module("starlette.applications").Starlette(routes=routes)
    import_module("opentelemetry.instrumentation.starlette").StarletteInstrumentor.instrument_app(app)
    told = asyncio.run(call(app))
    spans = exporter.get_finished_spans()
    named = {CALLER: "caller", **{span.context.span_id: span.name for span in spans if span.context}}
    tree = sorted({(span.name, named[span.parent.span_id] if span.parent else "") for span in spans})
    print(json.dumps({"told": told, "tree": tree}))  # noqa: T201 because the test reads it


main()
