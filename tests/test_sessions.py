"""The conversation that a run belongs to: said, stored, inherited, or that of an agent's memory; never invented."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from opentelemetry import context as otel
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agentflow import (
    Context,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowConfigurationError,
    add_observer,
    session,
    step,
)
from agentflow.clock import use_clock
from agentflow.testing import FakeClock, Recorder, record
from agentflow_agents import FunctionAgent
from agentflow_instrumentation import SpanObserver
from agentflow_llm import ChatMemory, ScriptedModel


class Ask(InputRequiredEvent):
    pass


class Answer(HumanResponseEvent):
    pass


class Asks(Workflow):
    @step
    async def ask(self, ev: StartEvent) -> Ask:
        return Ask()

    @step
    async def end(self, ev: Answer) -> StopEvent:
        await Inner().run()
        return StopEvent()


class Inner(Workflow):
    @step
    async def one(self, ev: StartEvent) -> StopEvent:
        return StopEvent()


class Outer(Workflow):
    @step
    async def one(self, ev: StartEvent) -> StopEvent:
        await Inner().run()
        return StopEvent()


class Calls(Workflow):
    @step
    async def one(self, ev: StartEvent) -> StopEvent:
        await ScriptedModel(["hello"]).acomplete("hi")
        return StopEvent()


def said(seen: Recorder) -> list[tuple[str | None, str | None]]:
    return [(op.session, op.user) for op in seen.find("run")]


async def test_runs_inside_of_a_session_belong_to_it() -> None:
    with record() as seen:
        with session("chat-42", user="ada"):
            await Outer().run()
        await Inner().run()
    assert said(seen) == [("chat-42", "ada"), ("chat-42", "ada"), (None, None)]


async def test_a_session_inside_of_another_is_another_of_the_same_user() -> None:
    with record() as seen, session("outer", user="ada"):
        with session("inner"):
            await Inner().run()
        with session("inner", user="bob"):
            await Inner().run()
        await Inner().run()
    assert said(seen) == [("inner", "ada"), ("inner", "bob"), ("outer", "ada")]


async def test_sessions_of_tasks_at_once_are_their_own() -> None:
    async def one(name: str) -> None:
        with session(name):
            await asyncio.sleep(0)
            await Inner().run()

    with record() as seen:
        await asyncio.gather(*(one(f"chat-{n}") for n in range(3)))
    assert sorted(op.session or "" for op in seen.find("run")) == ["chat-0", "chat-1", "chat-2"]


def test_run_sync_belongs_to_the_session_around_it() -> None:
    with record() as seen, session("chat-42"):
        Inner().run_sync()
    assert said(seen) == [("chat-42", None)]


@pytest.mark.parametrize("watched", [True, False], ids=["watched", "unwatched"])
async def test_the_session_is_stored_with_the_run(*, watched: bool) -> None:
    with record() as before, session("chat-42", user="ada"):
        handler = Asks().run()
        await asyncio.sleep(0.001)
    if not watched:
        before.operations.clear()
    data = json.loads(json.dumps(handler.put_away()))
    with record() as seen:
        again = Asks().run(ctx=Context.from_dict(Asks(), data))
        again.ctx.send_event(Answer())
        await again
    assert said(seen) == [("chat-42", "ada")] * 2, "the run, and the one inside of it"


async def test_a_session_is_stored_where_nobody_looks_on() -> None:
    with session("chat-42", user="ada"):
        handler = Asks().run()
        await asyncio.sleep(0.001)
    assert handler.put_away()["segment"] == {"session": "chat-42", "user": "ada"}


async def test_what_is_said_where_a_stored_run_goes_on_wins() -> None:
    with session("old", user="ada"):
        handler = Asks().run()
        await asyncio.sleep(0.001)
    data = handler.put_away()
    with record() as seen, session("new"):
        again = Asks().run(ctx=Context.from_dict(Asks(), data))
        again.ctx.send_event(Answer())
        await again
    assert said(seen)[0] == ("new", "ada")


async def test_the_next_run_with_a_context_is_in_the_same_session() -> None:
    with record() as seen:
        with session("chat-42"):
            handler = Inner().run()
            await handler
        await Inner().run(ctx=handler.ctx)
        await Inner().run(ctx=Context.from_dict(Inner(), handler.ctx.to_dict()))
    assert said(seen) == [("chat-42", None)] * 3


async def test_all_segments_are_in_the_session_and_what_an_answer_starts_is_too() -> None:
    with record() as seen, use_clock(FakeClock()) as clock:
        with session("chat-42"):
            handler = Asks().run()
        await clock.advance(Workflow.pause_grace + 1)
        with session("that of the one who answers"):
            handler.ctx.send_event(Answer())
        await handler
    assert said(seen) == [("chat-42", None)] * 3


async def test_what_an_answer_starts_is_in_no_session_where_the_run_is_in_none() -> None:
    for wait in (1, Workflow.pause_grace + 1):
        with record() as seen, use_clock(FakeClock()) as clock:
            handler = Asks().run()
            await clock.advance(wait)
            with session("that of the one who answers", user="bob"):
                handler.ctx.send_event(Answer())
            await handler
        assert set(said(seen)) == {(None, None)}
        assert any(op.name == "Inner" for op in seen.operations)


def agent(memory: ChatMemory | None) -> FunctionAgent:
    return FunctionAgent([], ScriptedModel(["hello"] * 3), memory=memory)


@pytest.mark.parametrize(
    ("memory", "expected"),
    [(ChatMemory(session="ada's"), "ada's"), (ChatMemory(), None), (None, None)],
    ids=["named", "unnamed", "none"],
)
async def test_an_agents_memory_names_the_session_of_its_runs(memory: ChatMemory | None, expected: str | None) -> None:
    with record() as seen:
        await agent(memory).run(query="hi")
        with session("said"):
            await agent(memory).run(query="hi")
    assert said(seen) == [(expected, None), ("said", None)]


async def test_a_run_inside_of_another_is_in_the_session_of_that() -> None:
    class Team(Workflow):
        @step
        async def one(self, ev: StartEvent) -> StopEvent:
            await agent(ChatMemory(session="the member's")).run(query="hi")
            return StopEvent()

    with record() as seen, session("the team's"):
        await Team().run()
    assert said(seen) == [("the team's", None)] * 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("",), "session('')"),
        ((7,), "session(7)"),
        (("chat", ""), "session(..., user='')"),
        (("chat", 7), "session(..., user=7)"),
    ],
)
def test_a_session_is_named_by_a_text(arguments: tuple[Any, ...], told: str) -> None:
    with pytest.raises(WorkflowConfigurationError) as caught, session(*arguments):
        pass
    assert str(caught.value).startswith(f"{told}: it is a text, and not empty. Write: with session(")


# -- what spans say -----------------------------------------------------------------------------------


class Spans:
    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        add_observer(SpanObserver(self.provider))

    def said(self, first: str) -> list[tuple[Any, Any, Any]]:
        keys = ("session.id", "gen_ai.conversation.id", "user.id")
        found = [span for span in self.exporter.get_finished_spans() if span.name.startswith(first)]
        return [tuple((span.attributes or {}).get(key) for key in keys) for span in sorted(found, key=_began)]  # type: ignore[misc]  # because it is as long


def _began(span: ReadableSpan) -> int:
    return span.start_time or 0


@pytest.fixture
def spans() -> Iterator[Spans]:
    made = Spans()
    yield made
    made.provider.shutdown()


async def test_spans_of_runs_and_chats_name_the_session_and_the_user(spans: Spans) -> None:
    with session("chat-42", user="ada"):
        await Calls().run()
        await ScriptedModel(["hello"]).acomplete("hi")
    everywhere = ("chat-42", "chat-42", "ada")
    assert spans.said("invoke_workflow") == [everywhere]
    assert spans.said("chat") == [everywhere] * 2


async def test_without_a_session_spans_name_the_outermost_run_and_no_conversation(spans: Spans) -> None:
    handler = Outer().run()
    await handler
    calls = Calls().run()
    await calls
    await ScriptedModel(["hello"]).acomplete("hi")
    assert spans.said("invoke_workflow") == [(handler.run_id, None, None)] * 2 + [(calls.run_id, None, None)]
    assert spans.said("chat") == [(calls.run_id, None, None), (None, None, None)]


async def test_what_openinference_was_told_is_said_too_and_goes_with_the_run(spans: Spans) -> None:
    token = otel.attach(otel.set_value("session.id", "oi-7", otel.set_value("user.id", "ada")))
    handler = Asks().run()
    await asyncio.sleep(0.001)
    await ScriptedModel(["hello"]).acomplete("hi")
    otel.detach(token)
    data = json.loads(json.dumps(handler.put_away()))
    again = Asks().run(ctx=Context.from_dict(Asks(), data))
    again.ctx.send_event(Answer())
    await again
    assert spans.said("invoke_workflow Asks") == [("oi-7", "oi-7", "ada")] * 2
    assert spans.said("invoke_workflow Inner")[0][0] == "oi-7"
    assert spans.said("chat") == [("oi-7", "oi-7", "ada")]


async def test_openinference_of_whoever_answers_does_not_name_the_session(spans: Spans) -> None:
    for around in (nullcontext(), session("chat-42")):
        with use_clock(FakeClock()) as clock:
            with around:
                handler = Asks().run()
                await clock.advance(Workflow.pause_grace + 1)
            token = otel.attach(otel.set_value("session.id", "theirs", otel.set_value("user.id", "bob")))
            handler.ctx.send_event(Answer())
            otel.detach(token)
            await handler
            first, second = spans.said("invoke_workflow Asks")[-2:]
            assert first == second
            assert (first[0] == handler.run_id, first[2]) == (isinstance(around, nullcontext), None)


async def test_what_agentflow_was_told_comes_before_what_openinference_was(spans: Spans) -> None:
    token = otel.attach(otel.set_value("session.id", "oi-7"))
    with session("chat-42"):
        await Inner().run()
    otel.detach(token)
    assert spans.said("invoke_workflow") == [("chat-42", "chat-42", None)]
