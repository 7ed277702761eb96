"""A message carries its trace: what a consumer runs is below the step that sent it, or linked to it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry import baggage, trace
from opentelemetry import context as otel
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, Sampler

from agentflow import StartEvent, StopEvent, Workflow, session, step
from agentflow.observe import add_observer
from agentflow_instrumentation import SpanObserver
from agentflow_instrumentation.propagation import continued, extract, inject

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HEADERS = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=1"}
NOT_SAMPLED = {"traceparent": f"00-{TRACE}-{SPAN}-00"}


class Producer(Workflow):
    @step
    async def send(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=inject())


class Consumer(Workflow):
    @step
    async def take(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=None)


class Outer(Workflow):
    @step
    async def around(self, ev: StartEvent) -> StopEvent:
        await Consumer().run()
        return StopEvent()


class Traced:
    """What is run under this is made into spans."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        add_observer(SpanObserver(provider))

    def named(self, name: str) -> ReadableSpan:
        (found,) = (span for span in self._exporter.get_finished_spans() if span.name == name)
        return found

    @property
    def names(self) -> list[str]:
        return [span.name for span in self._exporter.get_finished_spans()]


@pytest.fixture
def traced() -> Traced:
    return Traced()


def ids(span: ReadableSpan) -> tuple[str, str]:
    context = span.get_span_context()
    assert context is not None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


async def test_a_consumer_goes_on_below_the_step_that_sent_the_message(traced: Traced) -> None:
    headers = await Producer().run()
    sender = ids(traced.named("step send"))
    assert headers == {"traceparent": "00-{}-{}-01".format(*sender)}
    with continued(headers):
        await Consumer().run()
    run = traced.named("invoke_workflow Consumer")
    assert run.parent is not None
    assert (ids(run)[0], f"{run.parent.span_id:016x}", run.parent.is_remote, run.links) == (*sender, True, ())


async def test_with_link_each_run_begins_a_trace_that_links_to_the_sender(traced: Traced) -> None:
    with continued(HEADERS, link=True):
        await Outer().run()
    run, inner = traced.named("invoke_workflow Outer"), traced.named("invoke_workflow Consumer")
    assert run.parent is None
    assert ids(run)[0] != TRACE
    assert [(f"{link.context.span_id:016x}", link.attributes) for link in run.links] == [
        (SPAN, {"agentflow.link": "sent_by"})
    ]
    assert (ids(inner)[0], inner.links) == (ids(run)[0], ())


@pytest.mark.parametrize("link", [False, True])
async def test_a_message_without_a_trace_begins_one(traced: Traced, link: bool) -> None:  # noqa: FBT001 because pytest gives it
    with continued({"content-type": "text/plain"}, link=link):
        await Consumer().run()
    run = traced.named("invoke_workflow Consumer")
    assert (run.parent, run.links) == (None, ())


SHAPES: dict[str, Callable[[dict[str, str]], Any]] = {
    "a dict": dict,
    "a dict of bytes, as Redis has it": lambda said: {k.encode(): v.encode() for k, v in said.items()},
    "pairs, as Kafka has them": lambda said: [("key", None), *((k, v.encode()) for k, v in said.items())],
    "an iterator of pairs": lambda said: iter(said.items()),
    "names in capitals": lambda said: {k.title(): v for k, v in said.items()},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_headers_of_every_shape_are_read(shape: str) -> None:
    found = trace.get_current_span(extract(SHAPES[shape](HEADERS))).get_span_context()
    assert (f"{found.trace_id:032x}", f"{found.span_id:016x}", found.trace_state.get("vendor")) == (TRACE, SPAN, "1")


def test_headers_that_are_there_stay() -> None:
    headers = {"content-type": "text/plain"}
    with continued(HEADERS):
        assert inject(headers) is headers
    assert headers == {"content-type": "text/plain", **HEADERS}


@given(st.dictionaries(st.text() | st.binary(), st.text() | st.binary() | st.none() | st.integers()) | st.none())
@example({"traceparent": 7, "tracestate": None, "baggage": 1.5})
@example([("traceparent", ["00"]), ("traceparent", b"\xff")])
def test_headers_that_mean_nothing_change_nothing(headers: Any) -> None:
    with continued(headers):
        assert trace.get_current_span() is trace.INVALID_SPAN
        assert inject().keys() <= {"baggage"}


async def test_what_is_not_sampled_is_handed_on_as_such() -> None:
    traced = Traced(ParentBased(ALWAYS_OFF))
    with continued(NOT_SAMPLED):
        headers = await Producer().run()
    assert headers["traceparent"].split("-")[1::2] == [TRACE, "00"]
    began = await Producer().run()
    assert began["traceparent"].endswith("-00")
    assert traced.names == []


async def test_where_nobody_looks_on_what_came_in_goes_out() -> None:
    with continued(HEADERS):
        assert await Producer().run() == HEADERS
    assert await Producer().run() == {}


def test_where_telemetry_is_turned_off_what_came_in_goes_out() -> None:
    code = f"""
        import json
        from agentflow import StartEvent, StopEvent, Workflow, step
        from agentflow_instrumentation import setup
        from agentflow_instrumentation.propagation import continued, inject

        class Producer(Workflow):
            @step
            async def send(self, ev: StartEvent) -> StopEvent:
                return StopEvent(result=inject())

        setup("console")
        with continued({HEADERS!r}):
            print(json.dumps(Producer().run_sync()))
    """
    environ = {**os.environ, "OTEL_SDK_DISABLED": "true"}
    command = [sys.executable, "-W", "error", "-c", dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    assert (done.stderr, json.loads(done.stdout)) == ("", HEADERS)


async def test_baggage_goes_along_and_is_no_session_unless_asked_for(traced: Traced) -> None:
    with continued({**HEADERS, "baggage": "session.id=chat-42,user.id=ada,region=eu"}):
        headers = await Producer().run()
    assert sorted(headers["baggage"].split(",")) == ["region=eu", "session.id=chat-42", "user.id=ada"]
    attributes = traced.named("invoke_workflow Producer").attributes or {}
    assert attributes["session.id"] == attributes["agentflow.run.id"]
    assert "user.id" not in attributes


async def test_a_session_is_handed_over_where_both_ends_say_so(traced: Traced) -> None:
    with session("chat 42, the second", user="ada"):
        assert inject() == {}
        headers = inject(session=True)
    with continued(headers, session=True):
        await Consumer().run()
    attributes = traced.named("invoke_workflow Consumer").attributes or {}
    assert (attributes["session.id"], attributes["user.id"]) == ("chat 42, the second", "ada")


@pytest.mark.parametrize("said", ["", "user.id=ada", "session.id="])
async def test_baggage_without_a_session_names_none(traced: Traced, said: str) -> None:
    with continued({"baggage": said}, session=True):
        await Consumer().run()
    attributes = traced.named("invoke_workflow Consumer").attributes or {}
    assert attributes["session.id"] == attributes["agentflow.run.id"]


def test_outside_of_the_block_nothing_is_left() -> None:
    def fail() -> None:
        with continued({**HEADERS, "baggage": "a=b"}, link=True, session=True):
            assert baggage.get_baggage("a") == "b"
            raise KeyError

    before = otel.get_current()
    with pytest.raises(KeyError):
        fail()
    assert otel.get_current() == before


async def test_a_generator_that_another_task_closes_leaves_quietly(caplog: pytest.LogCaptureFixture) -> None:
    async def messages() -> AsyncGenerator[int]:
        with continued(HEADERS):
            yield 1

    generator = messages()
    with caplog.at_level(logging.DEBUG):
        await asyncio.create_task(anext(generator))
        await generator.aclose()
    assert caplog.messages == []
