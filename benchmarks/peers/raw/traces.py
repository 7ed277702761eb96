"""The chain with the bare SDK: the spans, links and attributes that agentflow makes, made by hand."""

import asyncio
import time
from uuid import uuid4

from opentelemetry import trace
from opentelemetry.trace import Link, Span, format_span_id
from pydantic import create_model

from peers import Run
from peers.raw.engine import Event, Step, Stop, drive

SPANS_LIKE_OURS = True


class Sent:
    """What a step needs to know of the event that triggers it."""

    def __init__(self, span: Span, sender: str) -> None:
        self.span = span
        self.sender = sender
        self.at = time.time_ns()


def chain_traced(steps: int) -> Run:
    tracer = trace.get_tracer("by hand")
    kinds: list[type[Event]] = [*(create_model(f"E{i}", __base__=Event) for i in range(steps)), Stop]
    sent: dict[type[Event], Sent] = {}
    run_id = ""

    def send(kind: type[Event], sender: str) -> None:
        attributes = {
            "openinference.span.kind": "CHAIN",
            "agentflow.run.id": run_id,
            "agentflow.workflow.name": "Chain",
            "agentflow.event.type": kind.__name__,
        }
        sent[kind] = Sent(tracer.start_span(f"event {kind.__name__}", attributes=attributes), sender)

    def make(i: int) -> Step:
        name, kind, out = f"step{i}", kinds[i], kinds[i + 1]

        async def step(event: Event) -> Event:
            cause = sent.pop(kind)
            waited = time.time_ns() - cause.at
            cause.span.set_attribute("agentflow.outcome", "ok")
            cause.span.end()
            context = cause.span.get_span_context()
            attributes = {
                "openinference.span.kind": "CHAIN",
                "agentflow.run.id": run_id,
                "agentflow.workflow.name": "Chain",
                "agentflow.step.name": name,
                "agentflow.step.attempt": 1,
                "agentflow.event.type": kind.__name__,
                "agentflow.queue.wait": waited / 1e9,
                "agentflow.triggered_by": (f"{cause.sender}{kind.__name__} {format_span_id(context.span_id)}",),
            }
            with tracer.start_as_current_span(f"step {name}", attributes=attributes, links=(Link(context),)) as span:
                result = out(n=event.n + 1)
                if out is not Stop:
                    send(out, f"{name}:")
                span.set_attribute("agentflow.outcome", "ok")
            return result

        return step

    table = {kinds[i]: make(i) for i in range(steps)}

    async def run() -> int:
        nonlocal run_id
        run_id = uuid4().hex
        attributes = {
            "openinference.span.kind": "CHAIN",
            "agentflow.run.id": run_id,
            "gen_ai.operation.name": "invoke_workflow",
            "gen_ai.workflow.name": "Chain",
        }
        with tracer.start_as_current_span("invoke_workflow Chain", attributes=attributes) as span:
            send(kinds[0], "")
            result = await asyncio.create_task(drive(table, kinds[0](n=0)))
            span.set_attribute("agentflow.outcome", "ok")
        return result

    return run
