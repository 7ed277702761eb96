"""What happens to a call of a tool is seen on its span: attempts that failed, and waits for its turn."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from agentflow import Retry
from agentflow.clock import use_clock
from agentflow.observe import add_observer
from agentflow.testing import FakeClock
from agentflow_agents import Tool, Toolbox, ToolError
from agentflow_instrumentation import SpanObserver
from agentflow_instrumentation.content import Content


def watch(content: Content = "none") -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    add_observer(SpanObserver(provider, content=content))
    return exporter


def events_of(span: ReadableSpan) -> list[tuple[str, dict[str, Any]]]:
    return [(event.name, dict(event.attributes or {})) for event in span.events]


@pytest.mark.parametrize("content", ["none", "full"])
async def test_attempts_that_failed_are_events_of_the_span(content: Content) -> None:
    calls = 0

    async def search(query: str) -> str:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise ConnectionError(f"nobody hears {query}")
        return "found"

    spans = watch(content)
    with use_clock(FakeClock()) as clock:
        box = Toolbox([Tool(search, retry=Retry(attempts=3, wait=2))])
        call = asyncio.create_task(box.execute("c1", "search", '{"query": "cats"}'))
        await clock.advance(4)
        assert (await call).content == "found"
    [span] = spans.get_finished_spans()
    assert span.name == "execute_tool search"
    assert span.status.status_code is StatusCode.UNSET
    told = {"exception.message": "nobody hears cats"} if content == "full" else {}
    assert events_of(span) == [
        (
            "agentflow.retry",
            {
                "agentflow.retry.attempt": number,
                "agentflow.retry.wait": 2,
                "error.type": "ConnectionError",
                **told,
            },
        )
        for number in (1, 2)
    ]


@pytest.mark.parametrize("content", ["none", "full"])
async def test_a_correction_leaves_no_stack_trace(content: Content) -> None:
    def search(query: str) -> str:
        raise ToolError("Ask for something else.")

    spans = watch(content)
    box = Toolbox([search])
    await box.execute("c1", "search", '{"query": "cats"}')
    await box.execute("c2", "search", "{}")
    await box.execute("c3", "find", "{}")
    for span in spans.get_finished_spans():
        assert (span.attributes or {})["agentflow.tool.outcome"] == "error"
        [(name, told)] = events_of(span)
        assert (name, told["exception.type"]) == ("exception", "agentflow_agents.errors.ToolError")
        assert "exception.stacktrace" not in told
        assert ("exception.message" in told) == (content == "full")
        assert sum(len(str(value)) for value in told.values()) < 300


async def test_an_error_of_the_code_keeps_its_stack_trace() -> None:
    def search(query: str) -> str:
        raise LookupError(query)

    spans = watch("full")
    await Toolbox([search]).execute("c1", "search", '{"query": "cats"}')
    [(_, told)] = events_of(spans.get_finished_spans()[0])
    assert "raise LookupError(query)" in told["exception.stacktrace"]


async def test_a_wait_for_its_turn_is_an_event_of_the_span() -> None:
    async def search() -> None:
        await clock.sleep(3)

    spans = watch()
    with use_clock(FakeClock()) as clock:
        box = Toolbox([Tool(search, concurrency=1)])
        calls = [asyncio.create_task(box.execute(f"c{n}", "search", "{}")) for n in range(2)]
        await clock.advance(6)
        await asyncio.gather(*calls)
    told = [events_of(span) for span in spans.get_finished_spans()]
    assert told == [[], [("agentflow.queued", {"agentflow.queued.wait": 3})]]
