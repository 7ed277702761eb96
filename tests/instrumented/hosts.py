"""Hosts that own the tracer provider: `python hosts.py phoenix ENDPOINT` or `python hosts.py logfire ENDPOINT`.

They run an agent in a span of their own, and make another when agentflow's own `setup` has come and gone.
"""

from __future__ import annotations

import asyncio
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from opentelemetry import trace

from agentflow_agents import FunctionAgent, tool
from agentflow_instrumentation import setup
from agentflow_llm import ScriptedModel
from agentflow_llm.messages import ToolCallPart


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def phoenix(endpoint: str) -> Any:
    """Phoenix's own way to begin."""
    register = import_module("phoenix.otel").register
    return register(project_name="shop", endpoint=f"{endpoint}/v1/traces", batch=False, verbose=False)


def logfire(endpoint: str) -> Any:
    """Logfire without its service."""
    theirs = import_module("logfire")
    exporter = import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter").OTLPSpanExporter(
        endpoint=f"{endpoint}/v1/traces"
    )
    processor = import_module("opentelemetry.sdk.trace.export").SimpleSpanProcessor(exporter)
    theirs.configure(
        send_to_logfire=False, console=False, service_name="shop", additional_span_processors=[processor],
        inspect_arguments=False, scrubbing=False,
    )  # fmt: skip
    return trace.get_tracer_provider()


async def run() -> None:
    """An agent that calls its tool."""
    call = ToolCallPart(id="call-1", name="add", arguments='{"a": 2, "b": 3}')
    agent = FunctionAgent(name="clerk", tools=[add], llm=ScriptedModel([call, "It is 5."]))
    context = import_module("openinference.instrumentation")
    with context.using_session("chat-42"), context.using_user("ada"), context.using_attributes(tags=["beta"]):
        await agent.run("What is 2 + 3?")


def main() -> None:
    """Run it."""
    provider = {"phoenix": phoenix, "logfire": logfire}[sys.argv[1]](sys.argv[2])
    tracer = trace.get_tracer("shop")
    with tracer.start_as_current_span("before"):
        asyncio.run(run())
    assert trace.get_tracer_provider() is provider
    with setup("file", path=Path(sys.argv[3])):
        asyncio.run(run())
    assert trace.get_tracer_provider() is provider
    with tracer.start_as_current_span("after"):
        asyncio.run(run())


main()
