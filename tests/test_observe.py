"""The seam: what observers are told, in which context, in which order, and what it costs the run."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import importlib
import logging
import sys
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agentflow import (
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Observer,
    Retry,
    StartEvent,
    StopEvent,
    Workflow,
    add_observer,
    observe,
    remove_observer,
    step,
)
from agentflow.clock import use_clock
from agentflow.observe import Kind, Note, Operation, Watch, operation
from agentflow.testing import FakeClock, Recorder, record

current: ContextVar[str] = ContextVar("current", default="nothing")


class Job(Event):
    n: int = 0


class Done(Event):
    n: int = 0


class A(Event):
    seen: str = ""


class B(Event):
    seen: tuple[str, ...] = ()


class Ask(InputRequiredEvent):
    pass


class Answer(HumanResponseEvent):
    to: str = ""


class Chain(Workflow):
    """Two steps, one after the other; the second says what is current there."""

    @step
    async def one(self, ev: StartEvent) -> A:
        return A()

    @step
    async def two(self, ev: A) -> StopEvent:
        return StopEvent(result=current.get())


class Fan(Workflow):
    """Six jobs for two workers, joined."""

    @step
    async def start(self, ev: StartEvent) -> list[Job]:
        return [Job(n=n) for n in range(6)]

    @step(num_workers=2)
    async def work(self, ev: Job) -> Done:
        await asyncio.sleep(0)
        return Done(n=ev.n)

    @step
    async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
        return None if ctx.collect_events(ev, {Done: 6}) is None else StopEvent()


class Marks(Observer):
    """Makes the operation current while it goes on, as a tracer does."""

    kinds = frozenset({Kind.RUN, Kind.STEP})

    def __init__(self, *names: str) -> None:
        self.names = names
        self.tokens: dict[int, contextvars.Token[str]] = {}
        self.around: dict[str, str] = {}

    def started(self, op: Operation) -> None:
        if not self.names or op.name in self.names:
            self.around[op.name] = current.get()
            self.tokens[op.ref.id] = current.set(f"{op.kind} {op.name}")

    def finished(self, op: Operation, error: BaseException | None) -> None:
        if op.ref.id in self.tokens:
            current.reset(self.tokens.pop(op.ref.id))


class Raises(Observer):
    """Raises in one of its hooks."""

    def __init__(self, hook: str, kind: Kind) -> None:
        self.hook = hook
        self.kind = kind
        self.told: list[str] = []

    def tell(self, hook: str, op: Operation) -> None:
        self.told.append(f"{hook} {op.kind}")
        if (hook, op.kind) == (self.hook, self.kind):
            msg = "the observer is broken"
            raise ValueError(msg)

    def started(self, op: Operation) -> None:
        self.tell("started", op)

    def noted(self, op: Operation, note: Note) -> None:
        self.tell("noted", op)

    def finished(self, op: Operation, error: BaseException | None) -> None:
        self.tell("finished", op)


@contextmanager
def watching(*observers: Observer) -> Generator[None, None, None]:
    for observer in observers:
        add_observer(observer)
    try:
        yield
    finally:
        for observer in observers:
            remove_observer(observer)


async def turn(times: int = 10) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


def only(found: list[Operation]) -> Operation:
    (op,) = found
    return op


# what is told


async def test_a_run_is_told_as_a_tree_of_run_steps_and_events() -> None:
    """Steps and the start event belong to the run, other events to the step that sent them."""
    with record() as seen:
        await Chain().run()
    assert seen.tree().splitlines() == [
        "run Chain",
        "  event StartEvent",
        "  step one",
        "    event A",
        "  step two",
    ]
    assert not seen.open()


async def test_an_operation_names_its_cause_by_reference() -> None:
    """A step names the event that triggered it, an event the step that sent it."""
    with record() as seen:
        await Chain().run()
    run, start, one, a, two = seen.operations
    assert (run.cause, run.parent) == (None, None)
    assert (start.parent, start.cause) == (run.ref, None)
    assert (one.parent, one.cause) == (run.ref, start.ref)
    assert (a.parent, a.cause) == (one.ref, one.ref)
    assert (two.parent, two.cause) == (run.ref, a.ref)


async def test_operations_carry_the_facts_that_are_at_hand() -> None:
    """Ids, names, the event, what came of it, and times that follow each other."""
    with record() as seen:
        handler = Chain(name="chain").run(topic="x")
        await handler
    run, start, one, a, two = seen.operations
    assert {op.run_id for op in seen.operations} == {handler.run_id}
    assert {op.workflow for op in seen.operations} == {"chain"}
    assert isinstance(start.subject, StartEvent)
    assert one.subject is start.subject
    assert a.subject is one.result is two.subject
    assert run.result is two.result
    for op in seen.operations:
        assert 0 < op.started_at <= op.ended_at
    assert run.started_at <= start.started_at <= one.started_at <= a.started_at <= two.started_at
    assert one.queued_ns == one.started_at - start.started_at
    assert [op.attempt for op in seen.operations] == [1] * 5


async def test_what_is_told_of_a_fan_out_has_its_parents_right() -> None:
    """Under concurrency every event belongs to the step that sent it, every step to its event."""
    with record() as seen:
        await Fan().run()
    run, start = only(seen.find("run")), only(seen.find("step", "start"))
    jobs = {op.ref.id: op for op in seen.find("event", "Job")}
    assert len(jobs) == 6
    assert {op.parent for op in jobs.values()} == {start.ref}
    works = {op.ref.id: op for op in seen.find("step", "work")}
    for work in works.values():
        assert work.parent is run.ref
        assert work.cause is not None
        assert jobs[work.cause.id].subject is work.subject
    for done in seen.find("event", "Done"):
        assert done.parent is not None
        assert works[done.parent.id].subject.n == done.subject.n
    assert not seen.open()


async def test_how_long_an_event_was_queued_is_told() -> None:
    """An event ends when it is taken up, and that is when its step begins."""
    with record() as seen:
        await Fan().run()
    events = {op.ref.id: op for op in seen.find("event")}
    for op in seen.find("step"):
        assert op.cause is not None
        event = events[op.cause.id]
        assert event.ended_at <= op.started_at
        assert op.queued_ns == op.started_at - event.started_at


async def test_an_incomplete_collect_is_told_as_collecting_and_a_complete_one_names_its_causes() -> None:
    """The causes are the events that were collected."""
    with record() as seen:
        await Fan().run()
    joins = seen.find("step", "join")
    assert [op.outcome for op in joins] == ["collecting"] * 5 + ["ok"]
    (note,) = seen.notes[joins[-1].ref.id]
    assert note.name == "collected"
    assert note.facts["count"] == 6
    assert {ref.id for ref in note.facts["causes"]} == {op.ref.id for op in seen.find("event", "Done")}


async def test_of_many_collected_causes_the_first_128_are_named() -> None:
    """And how many there were."""

    class Many(Fan):
        @step
        async def start(self, ev: StartEvent) -> list[Job]:
            return [Job(n=n) for n in range(200)]

        @step
        async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
            return None if ctx.collect_events(ev, {Done: 200}) is None else StopEvent()

    with record() as seen:
        await Many().run()
    (note,) = seen.notes[seen.find("step", "join")[-1].ref.id]
    assert (note.facts["count"], len(note.facts["causes"])) == (200, 128)


async def test_every_attempt_is_a_step_of_its_own() -> None:
    """Retried ones say so and carry a note with the delay and the error; all have the same cause."""
    clock = FakeClock()
    tries = 0

    class Flaky(Workflow):
        @step
        async def start(self, ev: StartEvent) -> A:
            return A()

        @step(retry_policy=Retry(attempts=3, wait=60))
        async def flaky(self, ev: A) -> StopEvent:
            nonlocal tries
            tries += 1
            if tries < 3:
                msg = f"try {tries}"
                raise ValueError(msg)
            return StopEvent()

    with record() as seen, use_clock(clock):
        handler = Flaky().run()
        await clock.advance(200)
        await handler
    attempts = seen.find("step", "flaky")
    assert [(op.attempt, op.outcome) for op in attempts] == [(1, "retried"), (2, "retried"), (3, "ok")]
    assert {op.cause for op in attempts} == {only(seen.find("event", "A")).ref}
    assert {op.parent for op in attempts} == {only(seen.find("run")).ref}
    assert [repr(seen.errors[op.ref.id]) for op in attempts] == ["ValueError('try 1')", "ValueError('try 2')", "None"]
    notes = [seen.notes[op.ref.id][0] for op in attempts[:2]]
    assert [(n.name, n.facts["attempt"], n.facts["delay"]) for n in notes] == [("retry", 1, 60), ("retry", 2, 60)]
    assert repr(notes[0].facts["error"]) == "ValueError('try 1')"
    assert not seen.open()


async def test_the_last_attempt_of_a_failing_step_is_an_error() -> None:
    """Only those that another one follows are retried."""

    class Fails(Workflow):
        @step(retry_policy=Retry(attempts=2, wait=0))
        async def start(self, ev: StartEvent) -> StopEvent:
            raise ValueError

    with record() as seen:
        handler = Fails().run()
        with pytest.raises(ValueError, match="attempt 2"):
            await handler
    assert [op.outcome for op in seen.find("step")] == ["retried", "error"]
    run = only(seen.find("run"))
    assert run.outcome == "error"
    assert seen.errors[run.ref.id] is handler.exception()


async def test_the_queue_time_of_a_repeated_attempt_does_not_hold_the_attempts_before_it() -> None:
    """What it waited is between its being due and its begin: the delay is in the note."""

    class Flaky(Workflow):
        @step(retry_policy=Retry(attempts=2, wait=0))
        async def start(self, ev: StartEvent) -> StopEvent:
            if not seen.find("step")[1:]:
                while seen.find("step")[0].started_at + 1_000_000 > Note("now", {}).at:
                    pass
                raise ValueError
            return StopEvent()

    with record() as seen:
        await Flaky().run()
    first, second = seen.find("step")
    assert second.queued_ns <= second.started_at - first.ended_at


async def test_a_cancelled_run_is_told_as_cancelled_with_all_that_was_open() -> None:
    """Cancelling is no error; events that nobody took are dropped."""

    class Busy(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[Job]:
            return [Job() for _ in range(3)]

        @step(num_workers=1)
        async def work(self, ev: Job) -> StopEvent:
            await asyncio.Event().wait()
            return StopEvent()

    with record() as seen:
        handler = Busy().run()
        await turn()
        await handler.cancel_run()
    assert only(seen.find("run")).outcome == "cancelled"
    assert only(seen.find("step", "work")).outcome == "cancelled"
    assert [op.outcome for op in seen.find("event", "Job")] == ["ok", "dropped", "dropped"]
    assert not seen.open()


async def test_events_whose_steps_had_no_turn_before_the_end_are_dropped() -> None:
    """They were ready, and the first to run ended it all."""

    class Race(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[A | B]:
            return [A(), B(), B()]

        @step
        async def wins(self, ev: A) -> StopEvent:
            return StopEvent()

        @step
        async def loses(self, ev: B) -> None:
            pass

    with record() as seen:
        await Race().run()
    assert not seen.find("step", "loses")
    assert [op.outcome for op in seen.find("event", "B")] == ["dropped", "dropped"]
    assert not seen.open()


async def test_events_whose_workers_had_no_turn_before_the_end_are_dropped() -> None:
    """Tasks were made for them, and cancelled before they began."""

    class Race(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> A | B | None:
            for event in (A(), B(), B()):
                ctx.send_event(event)
            current.set("changed, so that other tasks must take them")
            return None

        @step
        async def wins(self, ev: A) -> StopEvent:
            return StopEvent()

        @step
        async def loses(self, ev: B) -> None:
            pass

    with record() as seen:
        await Race().run()
    assert not seen.find("step", "loses")
    assert [op.outcome for op in seen.find("event", "B")] == ["dropped", "dropped"]
    assert not seen.open()


async def test_a_step_that_sends_the_stopevent_and_returns_has_ended_well() -> None:
    """Nothing cut it short."""

    class Ends(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> StopEvent | None:
            ctx.send_event(StopEvent())
            return None

    with record() as seen:
        await Ends().run()
    assert only(seen.find("step")).outcome == "ok"


async def test_a_time_out_is_told_as_a_time_out() -> None:
    """Of the run and of a step."""
    clock = FakeClock()

    class Slow(Workflow):
        @step
        async def start(self, ev: StartEvent) -> StopEvent:
            await asyncio.Event().wait()
            return StopEvent()

    class Limited(Workflow):
        @step(timeout=1)
        async def start(self, ev: StartEvent) -> StopEvent:
            await asyncio.Event().wait()
            return StopEvent()

    with record() as seen, use_clock(clock):
        handlers = [Slow(timeout=1).run(), Limited().run()]
        await clock.advance(2)
        assert [type(handler.exception()).__name__ for handler in handlers] == ["WorkflowTimeoutError"] * 2
    assert only(seen.find("run", "Slow")).outcome == "timeout"
    assert [(op.workflow, op.outcome) for op in seen.find("step")] == [("Slow", "cancelled"), ("Limited", "timeout")]
    assert not seen.open()


async def test_waits_are_noted_on_the_step() -> None:
    """That it waits, for what, and that it was answered."""

    class Human(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.wait_for_event(Answer, waiter_event=Ask(), requirements={"to": "me"})
            return StopEvent()

    with record() as seen:
        handler = Human().run()
        await turn()
        assert only(seen.find("step")) in seen.open()
        handler.ctx.send_event(Answer(to="me"))
        await handler
    notes = seen.notes[only(seen.find("step")).ref.id]
    assert [(note.name, note.facts) for note in notes] == [
        ("waiting", {"type": "Answer", "requirements": {"to": "me"}}),
        ("answered", {"type": "Answer"}),
    ]
    assert not seen.open()


async def test_stream_events_are_noted_on_the_step_that_writes_them() -> None:
    """Those that the caller writes, on the run."""

    class Talks(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.write_event_to_stream(Done(n=1))
            await ctx.wait_for_event(Answer)
            return StopEvent()

    with record() as seen:
        handler = Talks().run()
        await turn()
        handler.ctx.write_event_to_stream(Done(n=2))
        handler.ctx.send_event(Answer())
        await handler
    on_step = [n.facts["event"].n for n in seen.notes[only(seen.find("step")).ref.id] if n.name == "event_streamed"]
    on_run = [n.facts["event"].n for n in seen.notes[only(seen.find("run")).ref.id] if n.name == "event_streamed"]
    assert (on_step, on_run) == ([1], [2])


async def test_events_that_are_dropped_beside_a_stopevent_are_noted() -> None:
    """With how many there were."""

    class Wins(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[A | StopEvent]:
            return [A(), StopEvent(), A()]

        @step
        async def never(self, ev: A) -> None:
            pass

    with record() as seen:
        await Wins().run()
    (note,) = [note for notes in seen.notes.values() for note in notes]
    assert (note.name, note.facts["count"]) == ("events_dropped", 2)


async def test_an_event_from_outside_belongs_to_the_run() -> None:
    """No step has caused it."""

    class Human(Workflow):
        @step
        async def start(self, ev: StartEvent) -> Ask:
            return Ask()

        @step
        async def end(self, ev: Answer) -> StopEvent:
            return StopEvent()

    with record() as seen:
        handler = Human().run()
        await turn()
        handler.ctx.send_event(Answer())
        await handler
    assert seen.tree().splitlines() == [
        "run Human",
        "  event StartEvent",
        "  step start",
        "    event Ask",
        "  event Answer",
        "  step end",
    ]
    assert only(seen.find("event", "Answer")).cause is None
    assert not seen.open()


async def test_an_event_that_is_kept_for_a_later_wait_lasts_until_that_wait() -> None:
    """From sent to taken up; one that nobody awaits is dropped at the end."""
    go = asyncio.Event()

    class Human(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await go.wait()
            await ctx.wait_for_event(Answer)
            return StopEvent()

    with record() as seen:
        handler = Human().run()
        await turn()
        handler.ctx.send_event(Answer())
        handler.ctx.send_event(Answer())
        assert len(seen.find("event", "Answer")) == 2
        go.set()
        await handler
    assert [op.outcome for op in seen.find("event", "Answer")] == ["ok", "dropped"]


async def test_a_step_that_ignores_its_cancellation_is_told_as_cancelled_and_noted() -> None:
    """Its operation ends with the run, and not when it pleases."""
    clock = FakeClock()
    release = asyncio.Event()

    class Stubborn(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[A | B]:
            return [A(), B()]

        @step
        async def stubborn(self, ev: A) -> None:
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue

        @step
        async def end(self, ev: B) -> StopEvent:
            await asyncio.sleep(0)
            return StopEvent()

    with record() as seen, use_clock(clock):
        handler = Stubborn().run()
        await clock.advance(6)
        await handler
    open_then = seen.open()
    release.set()
    await turn()
    notes = seen.notes[only(seen.find("run")).ref.id]
    assert [(note.name, note.facts["steps"]) for note in notes] == [("abandoned", ["stubborn"])]
    assert not open_then
    assert only(seen.find("step", "stubborn")).outcome == "cancelled"


async def test_a_child_run_belongs_to_the_step_that_started_it() -> None:
    """Also where several go on at once."""

    class Child(Workflow):
        @step
        async def inner(self, ev: StartEvent) -> StopEvent:
            await asyncio.sleep(0)
            return StopEvent(result=ev.get("n"))

    class Parent(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[Job]:
            return [Job(n=n) for n in range(3)]

        @step
        async def work(self, ev: Job) -> Done:
            return Done(n=await Child().run(n=ev.n))

        @step
        async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
            return None if ctx.collect_events(ev, {Done: 3}) is None else StopEvent()

    with record() as seen:
        await Parent().run()
    works = {op.ref.id: op for op in seen.find("step", "work")}
    children = seen.find("run", "Child")
    assert len(children) == 3
    for child in children:
        assert child.parent is not None
        assert works[child.parent.id].result.n == child.result.result
        (inner,) = [op for op in seen.children(child) if op.kind == "step"]
        assert inner.run_id == child.run_id


@pytest.mark.parametrize("wanted", [{Kind.RUN}, {Kind.STEP}, {Kind.EVENT}, {Kind.RUN, Kind.EVENT}])
async def test_an_observer_hears_only_of_the_kinds_that_it_wants(wanted: set[Kind]) -> None:
    """Nothing else is built for it."""
    with record(frozenset(wanted)) as seen:
        await Fan().run()
    assert {op.kind for op in seen.operations} == wanted
    assert not seen.open()


async def test_an_observer_may_override_only_what_it_needs() -> None:
    """Hooks that it leaves alone are not called."""

    class Ends(Observer):
        kinds = frozenset({Kind.STEP})

        def __init__(self) -> None:
            self.ended: list[str] = []

        def finished(self, op: Operation, error: BaseException | None) -> None:
            self.ended.append(op.name)

    ends = Ends()
    with watching(ends, Observer()):
        await Chain().run()
    assert ends.ended == ["one", "two"]


async def test_an_observer_that_is_removed_looks_on_to_the_end_of_runs_that_have_begun() -> None:
    """New runs do not have it."""
    recorder = Recorder()
    flow = Chain()
    with watching(recorder):
        handler = flow.run()
    await handler
    await flow.run()
    assert len(recorder.find("run")) == 1
    assert len(recorder.find("step")) == 2


async def test_an_observer_is_added_once() -> None:
    """However often it is added."""
    recorder = Recorder()
    with watching(recorder, recorder):
        await Chain().run()
    assert len(recorder.find("run")) == 1


async def test_observers_are_known_by_identity() -> None:
    """One that compares by value, and so has no hash, is an observer like any other."""

    @dataclass
    class Counts(Observer):
        count: int = 0

        def started(self, op: Operation) -> None:
            op.ref.carry(self, self.count)
            assert op.ref.carried_by(self) == self.count
            self.count += 1

    one, two = Counts(), Counts()
    with watching(one, two):
        await Chain().run()
    assert (one.count, two.count) == (5, 5)
    with watching(one):
        assert two.count == 5
    await Chain().run()
    assert (one.count, two.count) == (5, 5)


async def test_what_an_observer_lets_travel_with_a_reference_is_its_own() -> None:
    """Operations that name another by reference can reach what was carried."""

    class Links(Observer):
        def __init__(self) -> None:
            self.links: list[tuple[str, object]] = []

        def started(self, op: Operation) -> None:
            op.ref.carry(self, f"span of {op.name}")
            if op.cause is not None:
                self.links.append((op.name, op.cause.carried_by(self)))

    one, two = Links(), Links()
    with watching(one, two):
        await Chain().run()
    assert one.links == two.links == [("one", "span of StartEvent"), ("A", "span of one"), ("two", "span of A")]
    ref = Operation(Kind.TOOL, "x", run_id=None, workflow=None).ref
    assert ref.carried_by(one) is None


# what is current


async def test_what_an_observer_makes_current_is_current_for_the_code_of_the_step() -> None:
    """Not what it made current for the run, or for another step."""

    class Sees(Workflow):
        @step
        async def one(self, ev: StartEvent) -> A:
            return A(seen=current.get())

        @step
        def two(self, ev: A) -> B:
            return B(seen=(ev.seen, current.get()))

        @step
        async def three(self, ctx: Context, ev: B) -> StopEvent:
            before = current.get()
            await asyncio.sleep(0)
            return StopEvent(result=[*ev.seen, before, await asyncio.create_task(self.inner())])

        async def inner(self) -> str:
            return current.get()

    marks = Marks()
    with watching(marks):
        assert await Sees().run() == ["step one", "step two", "step three", "step three"]
    assert current.get() == "nothing"
    assert not marks.tokens


async def test_what_an_observer_makes_current_for_a_run_surrounds_its_steps() -> None:
    """Run hooks run in the run's base context, of which workers get copies."""
    marks = Marks("Fan", "start", "work", "join")
    with watching(marks):
        await Fan().run()
    assert marks.around == {"Fan": "nothing", "start": "run Fan", "work": "run Fan", "join": "run Fan"}
    assert current.get() == "nothing"


async def test_what_is_current_in_a_step_does_not_leak_along_returned_events() -> None:
    """A step for which the observer makes nothing current sees what surrounds the run."""
    with watching(Marks("Chain", "one")):
        assert await Chain().run() == "run Chain"


async def test_what_is_current_in_a_step_does_not_leak_along_sent_events() -> None:
    """The user's own variables flow on; the observer's do not."""

    class Sends(Workflow):
        @step
        async def one(self, ctx: Context, ev: StartEvent) -> A | None:
            ctx.send_event(A())
            return None

        @step
        async def two(self, ev: A) -> StopEvent:
            return StopEvent(result=current.get())

    with watching(Marks("Sends", "one")):
        assert await Sends().run() == "run Sends"


async def test_what_is_current_in_a_plain_step_does_not_leak_along_its_events() -> None:
    """Also where the step sets variables of its own in its thread."""
    own: ContextVar[str] = ContextVar("own")

    class Plain(Workflow):
        @step
        def one(self, ev: StartEvent) -> A:
            own.set("kept")
            return A()

        @step
        async def two(self, ev: A) -> StopEvent:
            return StopEvent(result=(own.get(), current.get()))

    with watching(Marks("Plain", "one")):
        assert await Plain().run() == ("kept", "run Plain")


async def test_what_is_current_in_an_attempt_does_not_leak_into_the_next() -> None:
    """Each begins in what surrounds the run."""
    seen: list[str] = []

    class First(Marks):
        def started(self, op: Operation) -> None:
            if op.attempt == 1:
                super().started(op)

    class Flaky(Workflow):
        @step(retry_policy=Retry(attempts=2, wait=0))
        async def one(self, ev: StartEvent) -> StopEvent:
            seen.append(current.get())
            if len(seen) == 1:
                raise ValueError
            return StopEvent()

    with watching(First("Flaky", "one")):
        await Flaky().run()
    assert seen == ["step one", "run Flaky"]


async def test_a_step_that_an_outside_event_triggers_is_surrounded_by_its_run() -> None:
    """What was made current for the run is current in all of its steps."""

    class Human(Workflow):
        @step
        async def start(self, ev: StartEvent) -> Ask:
            return Ask()

        @step
        async def end(self, ev: Answer) -> StopEvent:
            return StopEvent(result=current.get())

    with watching(Marks("Human")):
        handler = Human().run()
        await turn()
        handler.ctx.send_event(Answer())
        assert await handler == "run Human"


async def test_what_several_observers_make_current_nests() -> None:
    """The first to hear of a start hears last of the end, and each finds what was current before it."""

    class Makes(Observer):
        def __init__(self, name: str) -> None:
            self.name = name

        def started(self, op: Operation) -> None:
            op.ref.carry(self, current.set(f"{current.get()} > {self.name}"))

        def finished(self, op: Operation, error: BaseException | None) -> None:
            if op.kind is not Kind.EVENT:
                assert current.get().endswith(self.name)
                current.reset(op.ref.carried_by(self))

    outer, inner = Makes("outer"), Makes("inner")
    inner.kinds = outer.kinds = frozenset({Kind.RUN, Kind.STEP})
    with watching(outer, inner):
        assert await Chain().run() == "nothing > outer > inner > outer > inner"
    assert current.get() == "nothing"


def test_a_name_carries_something_for_each_observer() -> None:
    """They do not see each other's, and the latest counts."""
    op = Operation(Kind.TOOL, "hammer", run_id=None, workflow=None)
    first, second, third = Observer(), Observer(), Observer()
    assert op.ref.carried_by(first) is None
    op.ref.carry(first, "old")
    op.ref.carry(first, "new")
    assert op.ref.carried_by(second) is None
    op.ref.carry(second, "its own")
    op.ref.carry(second, "its own too")
    assert [op.ref.carried_by(o) for o in (first, second, third)] == ["new", "its own too", None]


async def test_hooks_of_a_run_are_called_in_one_context() -> None:
    """What `started` sets, `finished` can reset, however the run ends and from wherever it is ended."""

    class Waits(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.wait_for_event(Answer)
            return StopEvent()

    marks = Marks()
    with watching(marks):
        one, two, three = (Waits().run() for _ in range(3))
        await turn()
        one.ctx.send_event(Answer())
        two.ctx.send_event(StopEvent())
        _ = await asyncio.to_thread(three.cancel_run)
        await one
        await two
        await three.cancel_run()
    assert not marks.tokens
    assert current.get() == "nothing"


# observers that answer False, or break


async def test_an_observer_that_answers_false_to_a_run_hears_only_of_its_end() -> None:
    """What it made current stays so to the end of the run."""

    class Unsampled(Recorder):
        def started(self, op: Operation) -> bool:  # type: ignore[override]  # a recorder answers nothing
            super().started(op)
            self.token = current.set("not recording")
            return False

        def finished(self, op: Operation, error: BaseException | None) -> None:
            super().finished(op, error)
            current.reset(self.token)

    unsampled, other = Unsampled(), Recorder()
    with watching(unsampled, other):
        assert await Chain().run() == "not recording"
    assert [op.kind for op in unsampled.operations] == ["run"]
    assert not unsampled.open()
    assert len(unsampled.errors) == 1
    assert len(other.operations) == 5


async def test_false_counts_only_as_the_answer_to_a_run() -> None:
    """From a step it means nothing."""

    class Denies(Recorder):
        kinds = frozenset({Kind.STEP})

        def started(self, op: Operation) -> bool:  # type: ignore[override]  # a recorder answers nothing
            super().started(op)
            return False

    denies = Denies()
    with watching(denies):
        await Chain().run()
    assert [op.name for op in denies.operations] == ["one", "two"]
    assert not denies.open()


@pytest.mark.parametrize("kind", [Kind.RUN, Kind.STEP, Kind.EVENT])
@pytest.mark.parametrize("hook", ["started", "finished"])
async def test_an_observer_that_raises_is_logged_once_and_dropped_for_the_run(
    hook: str, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    """The run goes on, the other observers too, and in the next run it has another chance."""
    broken = Raises(hook, kind)
    with watching(broken), record() as seen:
        assert await Chain().run() == "nothing"
        told = list(broken.told)
        assert told[-1] == f"{hook} {kind}"
        assert told.count(f"{hook} {kind}") == 1
        (logged,) = caplog.records
        assert (logged.name, logged.levelno) == ("agentflow", logging.ERROR)
        assert vars(logged)["event"] == "an observer raised; it is dropped for this run"
        assert logged.exc_info is not None
        assert str(logged.exc_info[1]) == "the observer is broken"
        await Chain().run()
        assert len(broken.told) == 2 * len(told)
    assert len(seen.operations) == 10
    assert not seen.open()


async def test_an_observer_that_raises_on_a_note_is_dropped_too(caplog: pytest.LogCaptureFixture) -> None:
    """The same rule."""

    class Talks(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.write_event_to_stream(Done())
            ctx.write_event_to_stream(Done())
            return StopEvent(result="went on")

    broken = Raises("noted", Kind.STEP)
    with watching(broken):
        assert await Talks().run() == "went on"
    assert broken.told.count("noted step") == 1
    assert "finished run" not in broken.told
    assert len(caplog.records) == 1


# entry points


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path for distributions with entry points, which are looked for anew."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(observe, "_providers", None)
    yield tmp_path
    sys.modules.pop("agentflow_plugin", None)


def install(folder: Path, code: str, *targets: str) -> None:
    """Lay down a distribution whose entry points name functions of a module."""
    (folder / "agentflow_plugin.py").write_text(code)
    info = folder / "agentflow_plugin-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: agentflow-plugin\nVersion: 1\n")
    lines = "\n".join(f"p{n} = agentflow_plugin:{target}" for n, target in enumerate(targets))
    (info / "entry_points.txt").write_text(f"[agentflow.observers]\n{lines}\n")
    importlib.invalidate_caches()


PLUGIN = """
from agentflow.testing import Recorder

one, two, three = Recorder(), Recorder(), Recorder()
asked = 0

def single():
    return one

def several():
    return [two, three]

def none():
    global asked
    asked += 1

def broken():
    raise ValueError("no collector there")
"""


async def test_installed_packages_bring_observers(plugins: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each is asked at every start of a run, and answers one, several, or none."""
    install(plugins, PLUGIN, "single", "several", "none")
    await Chain().run()
    await Chain().run()
    plugin = importlib.import_module("agentflow_plugin")
    assert plugin.asked == 2
    for recorder in (plugin.one, plugin.two, plugin.three):
        assert [op.name for op in recorder.find("step")] == ["one", "two"] * 2
    assert not caplog.records


async def test_an_entry_point_that_breaks_is_logged_and_left_out(
    plugins: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither one that cannot be loaded nor one that raises stops a run."""
    install(plugins, PLUGIN, "missing", "broken", "single")
    assert await Chain().run() == "nothing"
    assert [vars(record)["event"] for record in caplog.records] == [
        "an observer's entry point cannot be loaded; it is left out",
        "an observer's entry point raised; it is left out of this run",
    ]
    plugin = importlib.import_module("agentflow_plugin")
    assert len(plugin.one.find("step")) == 2


# operations of clients


async def test_an_operation_of_a_client_belongs_to_the_step_that_is_running() -> None:
    """Also in a thread, in a task of the step, and inside another operation."""

    def call(name: str) -> None:
        with operation(Kind.TOOL, name, subject={"x": 1}) as opened:
            assert opened is not None
            watch, op = opened.watch, opened.op
            op.result = 3
            watch.noted(op, "chunk", {"n": 1})

    class Calls(Workflow):
        @step
        async def one(self, ev: StartEvent) -> A:
            with operation(Kind.CHAT, "model"):
                call("inside")
            await asyncio.to_thread(call, "in a thread")
            await asyncio.create_task(self.later())
            return A()

        async def later(self) -> None:
            call("in a task")

        @step
        def two(self, ev: A) -> StopEvent:
            call("in a plain step")
            return StopEvent()

    with record() as seen:
        handler = Calls().run()
        await handler
    assert seen.tree().splitlines() == [
        "run Calls",
        "  event StartEvent",
        "  step one",
        "    chat model",
        "      tool inside",
        "    tool in a thread",
        "    tool in a task",
        "    event A",
        "  step two",
        "    tool in a plain step",
    ]
    tools = seen.find("tool")
    assert {(op.run_id, op.workflow, op.result) for op in tools} == {(handler.run_id, "Calls", 3)}
    assert [seen.noted_on(op) for op in tools] == [["chunk"]] * 4
    assert not seen.open()


async def test_an_operation_outside_of_any_run_is_told_to_the_observers_of_the_process() -> None:
    """It belongs to no run, and to the operation around it."""
    with record() as seen, operation(Kind.CHAT, "model"), operation(Kind.EMBEDDINGS, "embedder"):
        pass
    assert seen.tree() == "chat model\n  embeddings embedder"
    assert {op.run_id for op in seen.operations} == {None}
    assert not seen.open()


async def test_an_operation_that_nobody_listens_to_is_not_built() -> None:
    """The block runs all the same."""
    with operation(Kind.CHAT, "model") as opened:
        assert opened is None
    with record(frozenset({Kind.TOOL})), operation(Kind.CHAT, "model") as opened:
        assert opened is None

    class Calls(Workflow):
        @step
        async def start(self, ev: StartEvent) -> StopEvent:
            with operation(Kind.CHAT, "model") as inside:
                return StopEvent(result=inside)

    assert await Calls().run() is None


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ValueError(), "error"),
        (TimeoutError(), "timeout"),
        (asyncio.CancelledError(), "cancelled"),
        (GeneratorExit(), "cancelled"),
        (KeyError(), "error"),
    ],
)
async def test_an_operation_ends_with_what_passes_through_it(error: BaseException, outcome: str) -> None:
    """The exception goes on."""
    with record() as seen:
        with pytest.raises(type(error)), operation(Kind.CHAT, "model"):
            raise error
        assert observe.current_scope.get() is None
    op = only(seen.operations)
    assert op.outcome == outcome
    assert seen.errors[op.ref.id] is error


async def test_an_operation_keeps_an_outcome_that_was_set_on_it() -> None:
    """A client may know better than "ok"."""
    with record() as seen, operation(Kind.TOOL, "tool") as opened:
        assert opened is not None
        opened.op.outcome = "dropped"
    assert only(seen.operations).outcome == "dropped"


async def test_an_operation_around_a_generator_ends_when_that_is_closed_from_elsewhere() -> None:
    """A stream that is left, and closed in another context, leaves nothing open and raises nothing."""

    async def stream() -> AsyncIterator[int]:
        with operation(Kind.CHAT, "model"):
            yield 1
            yield 2

    with record() as seen:
        generator: Any = stream()
        assert await anext(generator) == 1
        await asyncio.get_running_loop().create_task(generator.aclose(), context=contextvars.Context())
    assert not seen.open()


async def test_an_operation_that_is_opened_and_closed_apart_is_seen_in_its_own_context_only() -> None:
    """What is opened in a context of its own is current there, and nowhere else, until it is closed."""
    own = contextvars.copy_context()
    marks = Marks()
    marks.kinds = frozenset({Kind.CHAT})
    with watching(marks), record() as seen:
        opened = own.run(observe.open_operation, Kind.CHAT, "model", "the call")
        assert opened is not None
        assert (observe.current_scope.get(), current.get()) == (None, "nothing")
        assert own.run(current.get) == "chat model"
        with operation(Kind.EMBEDDINGS, "beside"):
            own.run(_ask, "inside")
        opened.note("chunk", {"n": 1})
        assert seen.tree().splitlines() == ["chat model open", "  tool inside", "embeddings beside"]
        assert [op.name for op in seen.open()] == ["model"]
        opened.op.result = "the answer"
        own.run(opened.close)
        assert (own.run(observe.current_scope.get), own.run(current.get)) == (None, "nothing")
        own.run(_ask, "after it")
    chat = only(seen.find("chat"))
    assert (chat.subject, chat.result, chat.outcome, seen.noted_on(chat)) == ("the call", "the answer", "ok", ["chunk"])
    assert only(seen.find("tool", "after it")).parent is None
    assert not seen.open()


def _ask(name: str) -> None:
    with operation(Kind.TOOL, name):
        pass


@pytest.mark.parametrize("error", [None, ValueError("no")])
async def test_an_operation_is_closed_from_another_task_and_told_once(error: BaseException | None) -> None:
    """It belongs to the step in which it was opened; the run may have gone on meanwhile."""
    told: list[tuple[str, BaseException | None]] = []

    class Ends(Observer):
        kinds = frozenset({Kind.CHAT})

        def finished(self, op: Operation, error: BaseException | None) -> None:
            told.append((op.name, error))

    class Calls(Workflow):
        @step
        async def one(self, ev: StartEvent) -> A:
            context = contextvars.copy_context()
            opened = context.run(observe.open_operation, Kind.CHAT, "model")
            assert opened is not None
            outside = observe.current_scope.get()
            assert outside is not None
            assert outside.ref is not opened.op.ref

            async def close() -> None:
                context.run(opened.close, error)

            await asyncio.get_running_loop().create_task(close(), context=contextvars.Context())
            assert observe.current_scope.get() is outside
            return A()

        @step
        async def two(self, ev: A) -> StopEvent:
            return StopEvent()

    with record() as seen, watching(Ends()):
        await Calls().run()
    assert told == [("model", error)]
    chat = only(seen.find("chat"))
    assert (chat.parent, chat.outcome) == (only(seen.find("step", "one")).ref, "error" if error else "ok")
    assert not seen.open()


async def test_an_operation_that_is_closed_in_another_context_is_told_all_the_same() -> None:
    """What is current there stays; nothing is raised."""
    with record() as seen:
        opened = contextvars.copy_context().run(observe.open_operation, Kind.CHAT, "model")
        assert opened is not None
        with operation(Kind.TOOL, "tool") as inside:
            assert inside is not None
            opened.close()
            scope = observe.current_scope.get()
            assert scope is not None
            assert scope.ref is inside.op.ref
    assert not seen.open()


def test_nothing_is_opened_where_nobody_listens() -> None:
    """Then there is nothing to close."""
    assert observe.open_operation(Kind.CHAT, "model") is None
    assert observe.current_scope.get() is None


async def test_an_operation_of_a_muted_run_is_told_to_nobody() -> None:
    """Muted is muted, all the way down."""

    class Unsampled(Recorder):
        def started(self, op: Operation) -> bool:  # type: ignore[override]  # a recorder answers nothing
            super().started(op)
            return False

    class Calls(Workflow):
        @step
        async def start(self, ev: StartEvent) -> StopEvent:
            with operation(Kind.CHAT, "model"):
                return StopEvent()

    unsampled = Unsampled()
    with watching(unsampled):
        await Calls().run()
    assert [op.kind for op in unsampled.operations] == ["run"]


# what it costs


class Loop(Workflow):
    """Goes round `rounds` times."""

    @step
    async def start(self, ev: StartEvent) -> Job:
        return Job(n=ev.get("rounds"))

    @step
    async def again(self, ev: Job) -> Job | StopEvent:
        return Job(n=ev.n - 1) if ev.n else StopEvent()


def operations_alive() -> int:
    return sum(isinstance(found, Operation) for found in gc.get_objects())


@pytest.mark.parametrize("rounds", [1_000, pytest.param(100_000, marks=pytest.mark.slow)])
async def test_a_loop_that_is_watched_holds_a_handful_of_operations(rounds: int) -> None:
    """Names of causes lead to no records, so no chain of them is held."""
    made = most = 0

    class Looks(Observer):
        def started(self, op: Operation) -> None:
            nonlocal made, most
            made += 1
            op.ref.carry(self, op.name)
            if made % (rounds // 2) == 0:
                most = max(most, operations_alive() - before)

    gc.collect()
    before = operations_alive()
    with watching(Looks()):
        await Loop().run(rounds=rounds)
    assert made == 2 * rounds + 5
    assert 0 < most < 10


def test_nothing_is_built_when_nobody_listens() -> None:
    """No watch, and no operation."""
    assert observe.attach() is None
    before = Operation(Kind.TOOL, "before", run_id=None, workflow=None).ref.id
    Fan().run_sync()
    assert Operation(Kind.TOOL, "after", run_id=None, workflow=None).ref.id == before + 1


def test_a_watch_asks_for_what_is_wanted_in_one_look() -> None:
    """The engine need not know the observers."""

    class Only(Observer):
        kinds = frozenset({Kind.STEP})

        def noted(self, op: Operation, note: Note) -> None:
            pass

    watch = Watch((Only(), Observer()))
    assert (watch.steps, watch.events, watch.wants(Kind.CHAT)) == (True, False, False)


def test_records_say_what_they_are() -> None:
    """For whoever looks at them in a debugger."""
    op = Operation(Kind.TOOL, "hammer", run_id=None, workflow=None)
    assert repr(op) == f"<Operation tool 'hammer' {op.ref.id} open>"
    op.ended_at = 1
    assert repr(op) == f"<Operation tool 'hammer' {op.ref.id} ok>"
    assert repr(op.ref) == f"Ref({op.ref.id})"
    assert repr(Note("retry", {"n": 1})) == "Note('retry', {'n': 1})"
