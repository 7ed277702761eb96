"""The chain with the bare SDK: the spans, links and attributes that agentflow makes, made by hand."""

import asyncio
import time
from uuid import uuid4

from opentelemetry import metrics, trace
from opentelemetry.trace import Link, Span, format_span_id
from pydantic import create_model

from peers import Run
from peers.raw.engine import Event, Step, Stop, chain, drive

SPANS_LIKE_OURS = True

chain_unwatched = chain


class Sent:
    """What a step needs to know of the event that triggers it."""

    def __init__(self, span: Span, sender: str) -> None:
        self.span = span
        self.sender = sender
        self.at = time.time_ns()


class Histograms:
    """What is recorded of runs and steps."""

    def __init__(self) -> None:
        meter = metrics.get_meter("by hand")
        self._run = meter.create_histogram("gen_ai.invoke_workflow.duration", "s")
        self._step = meter.create_histogram("agentflow.step.duration", "s")
        self._wait = meter.create_histogram("agentflow.step.queue.wait", "s")
        self._events = meter.create_counter("agentflow.events")
        self._sent: dict[type[Event], int] = {}

    def sends(self, kind: type[Event]) -> None:
        self._sent[kind] = time.time_ns()
        self._events.add(1, {"agentflow.workflow.name": "Chain", "agentflow.event.type": kind.__name__})

    def of_step(self, name: str, kind: type[Event], step: Step) -> Step:
        async def run(event: Event) -> Event:
            place = {"agentflow.workflow.name": "Chain", "agentflow.step.name": name}
            began = time.time_ns()
            result = await step(event)
            self._step.record((time.time_ns() - began) / 1e9, {**place, "agentflow.outcome": "ok"})
            self._wait.record((began - self._sent[kind]) / 1e9, place)
            self.sends(type(result))
            return result

        return run

    def of_steps(self, table: dict[type[Event], Step]) -> dict[type[Event], Step]:
        return {kind: self.of_step(f"step{i}", kind, step) for i, (kind, step) in enumerate(table.items())}

    def of_run(self, kind: type[Event], run: Run) -> Run:
        async def measured() -> int:
            began = time.time_ns()
            self.sends(kind)
            result = await run()
            about = {"gen_ai.workflow.name": "Chain", "agentflow.outcome": "ok"}
            self._run.record((time.time_ns() - began) / 1e9, about)
            return result

        return measured


def chain_measured(steps: int) -> Run:
    to = Histograms()
    kinds: list[type[Event]] = [*(create_model(f"E{i}", __base__=Event) for i in range(steps)), Stop]

    def make(out: type[Event]) -> Step:
        async def step(event: Event) -> Event:
            return out(n=event.n + 1)

        return step

    table = to.of_steps({kinds[i]: make(kinds[i + 1]) for i in range(steps)})

    async def run() -> int:
        return await asyncio.create_task(drive(table, kinds[0](n=0)))

    return to.of_run(kinds[0], run)


def chain_traced_measured(steps: int) -> Run:
    return chain_traced(steps, Histograms())


def chain_traced(steps: int, to: Histograms | None = None) -> Run:
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
    if to is not None:
        table = to.of_steps(table)

    async def run() -> int:
        nonlocal run_id
        run_id = uuid4().hex
        attributes = {
            "openinference.span.kind": "CHAIN",
            "agentflow.run.id": run_id,
            "gen_ai.operation.name": "invoke_workflow",
            "gen_ai.workflow.name": "Chain",
            "agentflow.segment": 1,
            "session.id": run_id,
        }
        with tracer.start_as_current_span("invoke_workflow Chain", attributes=attributes) as span:
            send(kinds[0], "")
            result = await asyncio.create_task(drive(table, kinds[0](n=0)))
            span.set_attribute("agentflow.outcome", "ok")
        return result

    return run if to is None else to.of_run(kinds[0], run)
