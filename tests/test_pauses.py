"""A run that stands still ends a segment of what is told of it; what goes on begins another, here or elsewhere."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import subprocess
import sys
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from agentflow import (
    Context,
    Event,
    Handler,
    HumanResponseEvent,
    InputRequiredEvent,
    Observer,
    Retry,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowCancelledByUser,
    WorkflowCheckpointer,
    WorkflowStalledError,
    WorkflowTimeoutError,
    add_observer,
    remove_observer,
    step,
)
from agentflow.clock import use_clock
from agentflow.observe import Kind, Note, Operation, operation
from agentflow.testing import FakeClock, Recorder, record

GRACE = Workflow.pause_grace


class Ask(InputRequiredEvent):
    pass


class Answer(HumanResponseEvent):
    pass


class A(Event):
    pass


class Asks(Workflow):
    """It pauses by returning a question."""

    @step
    async def ask(self, ev: StartEvent) -> Ask:
        return Ask()

    @step
    async def end(self, ev: Answer) -> StopEvent:
        return StopEvent(result="answered")


class Waits(Workflow):
    """It pauses inside of a step."""

    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        await ctx.wait_for_event(Answer, waiter_event=Ask())
        return StopEvent(result="answered")


class Packs(Observer):
    """Stores something with each run, as a tracer does, and keeps what it finds."""

    kinds = frozenset({Kind.RUN})

    def __init__(self) -> None:
        self.found: list[dict[str, str] | None] = []

    def started(self, op: Operation) -> None:
        self.found.append(None if op.origin is None else dict(op.origin.luggage))
        op.luggage["place"] = f"segment {op.segment}"


async def turn(times: int = 10) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


def segments(seen: Recorder) -> list[tuple[int, str]]:
    return [(op.segment, op.outcome if op.ended_at else "open") for op in seen.find("run")]


def waits_told(seen: Recorder, op: Operation) -> list[dict[str, Any]]:
    return [note.facts for note in seen.notes.get(op.ref.id, ()) if note.name == "waiting"]


# -- the grace ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("flow", [Asks(), Waits()], ids=["asks", "waits"])
async def test_a_run_that_waits_longer_than_the_grace_goes_on_in_another_segment(flow: Workflow) -> None:
    with record() as seen, use_clock(FakeClock()) as clock:
        handler = flow.run()
        await clock.advance(GRACE - 1)
        assert segments(seen) == [(1, "open")]
        await clock.advance(2)
        assert segments(seen) == [(1, "suspended")]
        await clock.advance(3600 - GRACE - 1)
        handler.ctx.send_event(Answer())
        assert await handler == "answered"
    assert segments(seen) == [(1, "suspended"), (2, "ok")]
    first, second = seen.find("run")
    assert (first.origin, first.suspended_ns) == (None, 0)
    assert second.origin == ("resumed_from", handler.run_id, {})
    assert second.suspended_ns == 3600 * 10**9
    assert second.run_id == first.run_id
    assert isinstance(second.subject, Answer)
    assert seen.open() == []


async def test_steps_and_events_belong_to_the_segment_in_which_they_begin() -> None:
    with record() as seen, use_clock(FakeClock()) as clock:
        handler = Asks().run()
        await clock.advance(GRACE + 1)
        handler.ctx.send_event(Answer())
        await handler
    assert seen.tree().splitlines() == [
        "run Asks suspended",
        "  event StartEvent",
        "  step ask",
        "    event Ask",
        "run Asks",
        "  event Answer",
        "  step end",
    ]


async def test_a_step_that_is_alive_in_a_wait_stays_open_in_the_segment_that_it_began_in() -> None:
    with record() as seen, use_clock(FakeClock()) as clock:
        handler = Waits().run()
        await clock.advance(GRACE + 1)
        (ask,) = seen.find("step", "ask")
        assert not ask.ended_at
        handler.ctx.send_event(Answer())
        await handler
    assert ask.outcome == "ok"
    assert ask.parent == seen.find("run")[0].ref
    assert seen.noted_on(ask) == ["waiting", "answered"]


async def test_a_segment_ends_at_the_moment_since_which_nothing_went_on() -> None:
    """The grace is no part of it."""
    with record() as seen, use_clock(FakeClock()) as clock:
        handler = Asks().run()
        await turn()
        (run,) = seen.find("run")
        (waiting,) = (note for note in seen.notes[run.ref.id] if note.name == "waiting")
        await asyncio.sleep(0.01)
        await clock.advance(GRACE + 1)
        assert waiting.at - 10**7 < run.ended_at < waiting.at + 5 * 10**6
        await handler.cancel_run()


async def test_short_waits_stay_in_one_segment_however_many() -> None:
    class Often(Workflow):
        @step
        async def ask(self, ev: StartEvent) -> Ask:
            return Ask()

        @step
        async def again(self, ctx: Context, ev: Answer) -> Ask | StopEvent:
            times = await ctx.get("times", 0) + 1
            await ctx.set("times", times)
            return Ask() if times < 10 else StopEvent(result=times)

    with record() as seen, use_clock(FakeClock()) as clock:
        handler = Often().run()
        for _ in range(10):
            await clock.advance(GRACE - 1)
            handler.ctx.send_event(Answer())
            await turn()
            assert len(clock.pending) <= 1
        assert await handler == 10
        assert clock.pending == []
    assert segments(seen) == [(1, "ok")]


async def test_a_run_says_what_it_waits_for_when_it_begins_to_wait() -> None:
    with record() as seen, use_clock(FakeClock()) as clock:
        handler = Asks().run()
        await clock.settle()
        (run,) = seen.find("run")
        assert waits_told(seen, run) == [{"type": "Answer", "asked": "Ask"}]
        await clock.advance(GRACE * 2)
        assert len(waits_told(seen, run)) == 1
        handler.ctx.send_event(Answer())
        await handler


async def test_the_grace_is_the_classs_to_choose() -> None:
    class Patient(Asks):
        pause_grace = 3600.0

    with record() as seen, use_clock(FakeClock()) as clock:
        handler = Patient().run()
        await clock.advance(3599)
        assert segments(seen) == [(1, "open")]
        await clock.advance(2)
        assert segments(seen) == [(1, "suspended")]
        await handler.cancel_run()


async def test_a_run_pauses_as_often_as_it_waits() -> None:
    class Twice(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.wait_for_event(Answer, waiter_event=Ask())
            await ctx.wait_for_event(Answer, waiter_event=Ask())
            return StopEvent()

    packs = Packs()
    add_observer(packs)
    with record() as seen, use_clock(FakeClock()) as clock:
        handler = Twice().run()
        for _ in range(2):
            await clock.advance(GRACE + 1)
            handler.ctx.send_event(Answer())
            await clock.settle()
        await handler
    remove_observer(packs)
    assert segments(seen) == [(1, "suspended"), (2, "suspended"), (3, "ok")]
    assert packs.found == [None, {"place": "segment 1"}, {"place": "segment 2"}]


async def test_a_step_that_is_tried_again_later_is_no_pause() -> None:
    """The run goes on by itself."""

    class Flaky(Workflow):
        @step(retry_policy=Retry(attempts=2, wait=3600))
        async def one(self, ctx: Context, ev: StartEvent) -> StopEvent:
            if await ctx.get("tried", default=False):
                return StopEvent()
            await ctx.set("tried", value=True)
            raise ValueError

    with record() as seen, use_clock(FakeClock()) as clock:
        handler = Flaky().run()
        await clock.advance(3601)
        await handler
    assert segments(seen) == [(1, "ok")]


async def test_a_run_that_is_held_between_its_steps_is_no_pause() -> None:
    with record() as seen, use_clock(FakeClock()) as clock:
        handler = Asks().run(stepwise=True)
        await handler.run_step()
        await clock.advance(GRACE * 10)
        assert segments(seen) == [(1, "open")]
        await handler.cancel_run()


async def test_work_that_takes_long_is_no_pause() -> None:
    class Long(Workflow):
        @step
        async def one(self, ev: StartEvent) -> Ask:
            return Ask()

        @step
        async def work(self, ev: Answer) -> StopEvent:
            await clock.sleep(GRACE * 10)
            return StopEvent()

    with record() as seen, use_clock(FakeClock()) as clock:
        handler = Long().run()
        await clock.advance(GRACE - 1)
        handler.ctx.send_event(Answer())
        await clock.advance(GRACE * 11)
        await handler
    assert segments(seen) == [(1, "ok")]


async def test_a_run_is_said_to_wait_when_nothing_of_it_goes_on_any_more() -> None:
    class Both(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.wait_for_event(Answer)
            return StopEvent()

        @step
        async def work(self, ev: StartEvent) -> None:
            await clock.sleep(GRACE - 1)

    with record() as seen, use_clock(FakeClock()) as clock:
        handler = Both().run()
        await clock.advance(GRACE - 2)
        (run,) = seen.find("run")
        assert waits_told(seen, run) == []
        await clock.advance(GRACE - 2)
        assert waits_told(seen, run) == [{"type": "Answer"}]
        assert segments(seen) == [(1, "open")], "its grace began when the work was done"
        handler.ctx.send_event(Answer())
        await handler
    assert segments(seen) == [(1, "ok")]


async def test_a_wait_that_is_too_long_ends_in_a_segment_of_its_own() -> None:
    class Limited(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            try:
                await ctx.wait_for_event(Answer, timeout=3600)
            except WorkflowTimeoutError:
                return StopEvent(result="too late")
            return StopEvent()

    with record() as seen, use_clock(FakeClock()) as clock:
        handler = Limited().run()
        await clock.advance(3601)
        assert await handler == "too late"
    assert segments(seen) == [(1, "suspended"), (2, "ok")]
    assert seen.find("run")[1].parent is None


@pytest.mark.parametrize("how", ["cancelled", "timeout"])
async def test_a_pause_that_ends_with_the_run_is_told(how: str) -> None:
    with record() as seen, use_clock(FakeClock()) as clock:
        handler = Asks(timeout=3600).run()
        await clock.advance(GRACE + 1)
        if how == "cancelled":
            await handler.cancel_run()
        await clock.advance(3600)
        assert isinstance(handler.exception(), WorkflowCancelledByUser | WorkflowTimeoutError)
    assert segments(seen) == [(1, "suspended"), (2, how)]
    assert seen.open() == []


async def test_an_event_that_nothing_takes_up_begins_a_segment_that_ends_by_itself() -> None:
    class Later(Workflow):
        @step(waits=[A])
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.wait_for_event(Answer)
            await ctx.wait_for_event(A)
            return StopEvent()

    with record() as seen, use_clock(FakeClock()) as clock:
        handler = Later().run()
        await clock.advance(GRACE + 1)
        handler.ctx.send_event(A())
        await clock.advance(GRACE + 1)
        assert segments(seen) == [(1, "suspended"), (2, "suspended")]
        handler.ctx.send_event(Answer())
        await handler
    assert segments(seen)[2:] == [(3, "ok")]
    assert seen.open() == []


async def test_a_run_inside_of_another_goes_on_in_the_same_place() -> None:
    class Outer(Workflow):
        @step
        async def call(self, ev: StartEvent) -> StopEvent:
            self.child = Asks().run()
            return StopEvent(result=await self.child)

    with record() as seen, use_clock(FakeClock()) as clock:
        outer = Outer()
        handler = outer.run()
        await clock.advance(GRACE + 1)
        outer.child.ctx.send_event(Answer())
        assert await handler == "answered"
    (call,) = seen.find("step", "call")
    assert [(op.outcome, op.parent) for op in seen.find("run", "Asks")] == [("suspended", call.ref), ("ok", call.ref)]
    assert [op.outcome for op in seen.find("run", "Outer")] == ["ok"]


async def test_what_is_called_in_a_segment_belongs_to_its_steps_whoever_listens() -> None:
    """Also where nobody hears of steps, a call belongs to the newest segment."""

    class Calls(Asks):
        @step
        async def end(self, ev: Answer) -> StopEvent:
            with operation(Kind.TOOL, "search"):
                return StopEvent()

    with record(frozenset({Kind.RUN, Kind.TOOL})) as seen, use_clock(FakeClock()) as clock:
        handler = Calls().run()
        await clock.advance(GRACE + 1)
        handler.ctx.send_event(Answer())
        await handler
    assert seen.find("tool")[0].parent == seen.find("run")[1].ref


async def test_a_segment_is_surrounded_by_what_is_current_where_it_was_woken() -> None:
    request: ContextVar[str] = ContextVar("request", default="none")
    told: list[str] = []

    class Reads(Observer):
        kinds = frozenset({Kind.RUN})

        def started(self, op: Operation) -> None:
            told.append(request.get())

        def finished(self, op: Operation, error: BaseException | None) -> None:
            told.append(request.get())

    reads = Reads()
    add_observer(reads)
    with use_clock(FakeClock()) as clock:
        request.set("GET /start")
        handler = Asks().run()
        await clock.advance(GRACE + 1)
        request.set("POST /answer")
        handler.ctx.send_event(Answer())
        await handler
    remove_observer(reads)
    assert told == ["GET /start"] * 2 + ["POST /answer"] * 2


async def test_a_run_that_can_never_go_on_fails_without_a_pause() -> None:
    class Never(Workflow):
        @step
        async def one(self, ctx: Context, ev: StartEvent) -> A:
            ctx.collect_events(A(), [A, A])
            return A()

        @step
        async def two(self, ctx: Context, ev: A) -> StopEvent | None:
            return StopEvent() if ctx.collect_events(ev, [A, A]) else None

    with record() as seen, use_clock(FakeClock()) as clock, pytest.raises(WorkflowStalledError):
        await Never().run()
    assert segments(seen) == [(1, "error")]
    assert clock.pending == []


async def test_nothing_is_timed_where_nobody_looks_on() -> None:
    with use_clock(FakeClock()) as clock:
        handler = Asks().run()
        await clock.settle()
        assert clock.pending == []
        handler.ctx.send_event(Answer())
        assert await handler == "answered"


async def test_a_run_that_waits_is_not_kept_for_the_sake_of_its_grace() -> None:
    with record() as seen:
        handler = Asks().run()
        await turn()
        del handler
        gc.collect()
    assert segments(seen) == [(1, "suspended")]
    assert seen.open() == []


# -- stored and restored ------------------------------------------------------------------------------


@pytest.mark.parametrize("flow", [Asks(), Waits()], ids=["asks", "waits"])
@pytest.mark.parametrize("how", ["put away", "stored", "stored after the grace"])
async def test_a_run_that_is_stored_while_it_waits_ends_its_segment_and_goes_on_elsewhere(
    flow: Workflow, how: str
) -> None:
    packs = Packs()
    add_observer(packs)
    with record() as seen, use_clock(FakeClock()) as clock:
        handler = flow.run()
        waited = round(GRACE) + 1 if how == "stored after the grace" else 10
        await clock.advance(waited)
        data = handler.put_away() if how == "put away" else handler.ctx.to_dict()
        assert segments(seen) == [(1, "suspended")]
        await handler.cancel_run()
        assert segments(seen) == [(1, "suspended")], "it goes on elsewhere"
        await clock.advance(100)
        context = Context[Any].from_dict(flow, json.loads(json.dumps(data)))
        again = flow.run(ctx=context)
        again.ctx.send_event(Answer())
        assert await again == "answered"
    remove_observer(packs)
    assert segments(seen) == [(1, "suspended"), (2, "ok")]
    assert packs.found == [None, {"place": "segment 1"}]
    second = seen.find("run")[1]
    assert second.origin == ("resumed_from", handler.run_id, {"place": "segment 1"})
    assert second.suspended_ns == (waited + 100) * 10**9
    assert seen.open() == []


async def test_a_run_that_is_stored_while_it_works_goes_on_in_its_segment() -> None:
    go_on = asyncio.Event()

    class Works(Workflow):
        @step
        async def one(self, ev: StartEvent) -> StopEvent:
            await go_on.wait()
            return StopEvent()

    packs = Packs()
    add_observer(packs)
    with record() as seen, use_clock(FakeClock()) as clock:
        handler = Works().run()
        await turn()
        data = handler.ctx.to_dict()
        assert segments(seen) == [(1, "open")]
        go_on.set()
        await handler
        await clock.advance(60)
        await Works().run(ctx=Context.from_dict(Works(), data))
    remove_observer(packs)
    assert segments(seen) == [(1, "ok"), (2, "ok")]
    assert packs.found == [None, {"place": "segment 1"}]
    assert seen.find("run")[1].suspended_ns == 60 * 10**9


async def test_a_run_that_was_stored_and_is_answered_here_goes_on_in_another_segment() -> None:
    with record() as seen:
        handler = Waits().run()
        await turn()
        handler.ctx.to_dict()
        handler.ctx.send_event(Answer())
        await handler
    assert segments(seen) == [(1, "suspended"), (2, "ok")]


async def test_what_cannot_be_stored_leaves_the_segment_open() -> None:
    class Odd(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> Ask:
            await ctx.set("odd", object())
            return Ask()

        @step
        async def end(self, ev: Answer) -> StopEvent:
            return StopEvent()

    with record() as seen:
        handler = Odd().run()
        await turn()
        with pytest.raises(ValueError, match="odd"):
            handler.put_away()
        assert segments(seen) == [(1, "open")]
        handler.ctx.send_event(Answer())
        await handler
    assert segments(seen) == [(1, "ok")]


async def test_a_run_that_nobody_looked_on_at_stores_nothing_of_it_and_is_resumed_all_the_same() -> None:
    handler = Asks().run()
    await turn()
    data = handler.put_away()
    assert "segment" not in data
    with record() as seen:
        again = Asks().run(ctx=Context.from_dict(Asks(), data))
        again.ctx.send_event(Answer())
        await again
    (run,) = seen.find("run")
    assert (run.segment, run.origin, run.suspended_ns) == (2, ("resumed_from", handler.run_id, {}), 0)


async def test_what_was_told_is_kept_by_a_process_in_which_nobody_looks_on() -> None:
    packs = Packs()
    add_observer(packs)
    handler = Asks().run()
    await turn()
    data = handler.put_away()
    remove_observer(packs)
    silent = Asks().run(ctx=Context.from_dict(Asks(), data))
    await turn()
    assert silent.put_away()["segment"] == data["segment"]


@pytest.mark.parametrize(
    "segment", [7, {"number": "one"}, {"luggage": 7}, {"suspended": "yesterday"}], ids=["no dict", "number", "l", "s"]
)
async def test_a_damaged_segment_is_refused(segment: object) -> None:
    handler = Asks().run()
    await turn()
    data = {**handler.put_away(), "segment": segment}
    with pytest.raises(ValueError, match="damaged"):
        Context.from_dict(Asks(), data)


async def test_the_next_run_with_a_context_continues_and_is_no_segment() -> None:
    class Counts(Workflow):
        @step
        async def one(self, ev: StartEvent) -> StopEvent:
            return StopEvent()

    packs = Packs()
    add_observer(packs)
    with record() as seen:
        first = Counts().run()
        await first
        second = Counts().run(ctx=first.ctx)
        await second
        third = Counts().run(ctx=Context.from_dict(Counts(), second.ctx.to_dict()))
        await third
    remove_observer(packs)
    assert len({op.run_id for op in seen.find("run")}) == 3
    assert [op.segment for op in seen.find("run")] == [1, 1, 1]
    assert [op.origin and op.origin[:2] for op in seen.find("run")] == [
        None,
        ("continues", first.run_id),
        ("continues", second.run_id),
    ]
    assert packs.found == [None, {"place": "segment 1"}, {"place": "segment 1"}]


async def test_a_run_from_a_checkpoint_names_the_run_that_it_came_from() -> None:
    class Two(Workflow):
        @step
        async def one(self, ev: StartEvent) -> A:
            return A()

        @step
        async def two(self, ev: A) -> StopEvent:
            return StopEvent()

    checkpointer = WorkflowCheckpointer(Two())
    with record() as seen:
        first = checkpointer.run()
        await first
        second = checkpointer.run_from(checkpointer.checkpoints[first.run_id][0])
        await second
    old, new = seen.find("run")
    assert new.run_id == second.run_id != old.run_id
    assert (new.segment, new.origin) == (1, ("forked_from", first.run_id, {}))


# -- ends ---------------------------------------------------------------------------------------------


class Sleeps(Workflow):
    @step
    async def one(self, ev: StartEvent) -> StopEvent:
        await asyncio.sleep(30)
        return StopEvent()


class Above(Workflow):
    @step
    async def outer(self, ev: StartEvent) -> StopEvent:
        await Sleeps().run()
        return StopEvent()


@pytest.mark.parametrize(
    ("flow", "told"),
    [
        (Sleeps(), ["run Sleeps cancelled", "  step one cancelled"]),
        (
            Above(),
            ["run Above cancelled", "  step outer cancelled", "    run Sleeps cancelled", "      step one cancelled"],
        ),
        (Asks(), ["run Asks suspended", "  step ask"]),
        (Waits(), ["run Waits cancelled", "  step ask cancelled"]),
    ],
    ids=["working", "inside", "asking", "waiting"],
)
def test_every_operation_ends_where_the_event_loop_is_closed(flow: Workflow, told: list[str]) -> None:
    held: list[Handler[Any]] = []

    async def main() -> None:
        held.append(flow.run())
        await turn()

    with record(frozenset({Kind.RUN, Kind.STEP})) as seen:
        asyncio.run(main())
        assert seen.tree().splitlines() == told
        assert seen.open() == []
        ended = [op.ended_at for op in seen.find("run")]
        assert ended == sorted(ended, reverse=True), "runs inside of runs end first"


def test_every_operation_ends_where_the_event_loop_is_closed_without_more_ado() -> None:
    """Nobody cancels its tasks; nothing of the run is kept."""
    held: list[Handler[Any]] = []

    async def main() -> None:
        held.append(Asks().run())
        await turn()

    loop = asyncio.new_event_loop()
    with record() as seen:
        loop.run_until_complete(main())
        assert segments(seen) == [(1, "open")]
        loop.close()
        assert segments(seen) == [(1, "suspended")]
    assert seen.open() == []


def test_a_run_that_had_failed_when_the_loop_was_closed_ends_as_failed() -> None:
    class Stays(Workflow):
        @step
        async def split(self, ev: StartEvent) -> list[A]:
            return [A(), A()]

        @step
        async def work(self, ctx: Context, ev: A) -> StopEvent:
            if await ctx.get("second", default=False):
                msg = "the shelf is empty"
                raise ValueError(msg)
            await ctx.set("second", value=True)
            try:
                await asyncio.sleep(30)
            finally:
                await asyncio.sleep(30)
            return StopEvent()

    held: list[Handler[Any]] = []

    async def main() -> None:
        held.append(Stays().run())
        await turn()

    with record() as seen:
        asyncio.run(main())
    (run,) = seen.find("run")
    assert run.outcome == "error"
    assert str(seen.errors[run.ref.id]) == "the shelf is empty"
    assert seen.open() == []


def test_what_is_interrupted_ends(caplog: pytest.LogCaptureFixture) -> None:
    class Interrupted(Workflow):
        @step
        async def one(self, ev: StartEvent) -> StopEvent:
            raise KeyboardInterrupt

    async def main() -> None:
        held = [Asks().run(), Sleeps().run(), Interrupted().run()]
        await asyncio.sleep(10)
        assert held

    with record() as seen, pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert seen.open() == []
    assert {op.name: op.outcome for op in seen.find("run")} == {
        "Asks": "suspended",
        "Sleeps": "cancelled",
        "Interrupted": "error",
    }
    assert [logged for logged in caplog.records if logged.levelno >= logging.ERROR] == []


async def test_the_time_out_of_a_step_is_that_of_its_run() -> None:
    class Slow(Workflow):
        @step(timeout=10)
        async def one(self, ev: StartEvent) -> StopEvent:
            await clock.sleep(60)
            return StopEvent()

    with record() as seen, use_clock(FakeClock()) as clock:
        handler = Slow().run()
        await clock.advance(11)
        with pytest.raises(WorkflowTimeoutError):
            await handler
    assert [op.outcome for op in seen.operations if op.kind != "event"] == ["timeout", "timeout"]


class Counts(Recorder):
    """Counts how often each operation ends."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[int] = []

    def finished(self, op: Operation, error: BaseException | None) -> None:
        super().finished(op, error)
        self.ends.append(op.ref.id)

    def noted(self, op: Operation, note: Note) -> None:
        assert not op.ended_at
        super().noted(op, note)


async def _ends(handler: Handler[Any], how: str) -> None:
    if how == "answered":
        handler.ctx.send_event(Answer())
        await handler
    elif how == "put away":
        handler.put_away()
    if how != "forgotten":
        await handler.cancel_run()


@pytest.mark.parametrize("flow", [Asks(), Waits(), Asks(timeout=GRACE * 3)], ids=["asks", "waits", "limited"])
@pytest.mark.parametrize("how", ["answered", "cancelled", "put away", "forgotten"])
async def test_every_operation_ends_once_whatever_becomes_of_a_pause(flow: Workflow, how: str) -> None:
    seen = Counts()
    add_observer(seen)
    with use_clock(FakeClock()) as clock:
        for wait in (0, GRACE - 1, GRACE + 1, GRACE * 2 + 1):
            handler = flow.run()
            await clock.advance(wait)
            await _ends(handler, "cancelled" if how == "forgotten" and isinstance(flow, Waits) else how)
            del handler
        if how == "forgotten":
            gc.collect()
    remove_observer(seen)
    assert sorted(seen.ends) == sorted(op.ref.id for op in seen.operations)


def test_a_process_that_ends_with_its_loop_open_tells_of_its_runs(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import asyncio, atexit\n"
        "from agentflow import InputRequiredEvent, HumanResponseEvent, StartEvent, StopEvent, Workflow, step\n"
        "from agentflow.observe import Observer, add_observer\n"
        "class Ask(InputRequiredEvent): pass\n"
        "class Flow(Workflow):\n"
        "    @step\n"
        "    async def ask(self, ev: StartEvent) -> Ask: return Ask()\n"
        "    @step\n"
        "    async def end(self, ev: HumanResponseEvent) -> StopEvent: return StopEvent()\n"
        "class Says(Observer):\n"
        "    def finished(self, op, error): print(op.kind, op.name, op.outcome)\n"
        "atexit.register(print, 'the exporter shuts down')\n"
        "add_observer(Says())\n"
        "loop = asyncio.new_event_loop()\n"
        "async def main():\n"
        "    handler = Flow().run()\n"
        "    await asyncio.sleep(0.01)\n"
        "    return handler\n"
        "handler = loop.run_until_complete(main())\n",
        "utf-8",
    )
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.splitlines()[-2:] == ["run Flow suspended", "the exporter shuts down"], done.stderr
