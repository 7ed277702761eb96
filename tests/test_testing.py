"""The clock that is moved by hand, and the recorder of what happened."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow import Context, Event, Retry, StartEvent, StopEvent, Workflow, step
from agentflow.clock import use_clock
from agentflow.observe import Kind
from agentflow.testing import FakeClock, Recorder, record


class Job(Event):
    n: int = 0


async def test_time_stands_still_until_it_is_moved() -> None:
    """Both of its hands."""
    clock = FakeClock(100)
    assert (clock.time(), clock.monotonic()) == (100, 100)
    await asyncio.sleep(0)
    assert clock.time() == 100
    await clock.advance(2.5)
    assert (clock.time(), clock.monotonic()) == (102.5, 102.5)


async def test_timers_go_off_at_their_moment_in_their_order() -> None:
    """Those of one moment in the order in which they were set; a cancelled one never."""
    clock = FakeClock(0)
    seen: list[tuple[str, float]] = []
    for name, delay in [("c", 3), ("a", 1), ("b", 2), ("a2", 1), ("d", 4)]:
        clock.call_later(delay, lambda name=name: seen.append((name, clock.now)))  # type: ignore[misc]  # a default binds it
    clock.call_later(2, lambda: seen.append(("never", 0))).cancel()
    assert clock.pending == [1, 1, 2, 3, 4]
    await clock.advance(3)
    assert seen == [("a", 1), ("a2", 1), ("b", 2), ("c", 3)]
    assert clock.pending == [1]


async def test_a_timer_that_is_set_while_time_passes_goes_off_in_the_same_move() -> None:
    """A chain of sleeps of a second each, over a minute."""
    clock = FakeClock(0)
    woken: list[float] = []

    async def tick() -> None:
        while True:
            await clock.sleep(1)
            woken.append(clock.now)

    ticking = asyncio.create_task(tick())
    await clock.advance(60)
    assert woken == [float(n) for n in range(1, 61)]
    ticking.cancel()
    await clock.settle()
    assert clock.pending == []


async def test_what_needs_no_time_happens_without_moving_the_clock() -> None:
    """A delay of nothing is none."""
    clock = FakeClock()
    await clock.sleep(0)
    called: list[int] = []
    clock.call_later(0, lambda: called.append(1))
    clock.call_later(-1, lambda: called.append(2))
    clock.call_later(0, lambda: called.append(3)).cancel()
    await clock.settle()
    assert called == [1, 2]


async def test_a_cancelled_timer_holds_on_to_nothing() -> None:
    """A test that counts what is alive is not misled by the clock."""

    class Thing:
        def ring(self) -> None:
            raise AssertionError

    clock, thing = FakeClock(), Thing()
    alive = weakref.ref(thing)
    clock.call_later(60, thing.ring).cancel()
    del thing
    gc.collect()
    assert alive() is None


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), max_size=10))
def test_however_time_is_moved_a_sleep_ends_at_its_moment(sleeps: list[tuple[float, float]]) -> None:
    """In small moves or in large ones."""

    async def main() -> None:
        clock = FakeClock(0)
        ended: dict[int, float] = {}
        due: dict[int, float] = {}

        async def sleep(number: int, delay: float) -> None:
            await clock.sleep(delay)
            ended[number] = clock.now

        tasks: list[asyncio.Task[None]] = []
        for number, (delay, move) in enumerate(sleeps):
            due[number] = clock.now + delay
            tasks.append(asyncio.create_task(sleep(number, delay)))
            await clock.advance(move)
        await clock.advance(100)
        await asyncio.gather(*tasks)
        assert ended == due

    asyncio.run(main())


class Family(Workflow):
    """A step that fails once, and one that runs a child."""

    failed = False

    @step(retry_policy=Retry(wait=0))
    async def first(self, ctx: Context, ev: StartEvent) -> Job:
        if not self.failed:
            self.failed = True
            raise ValueError("once")
        return Job()

    @step
    async def second(self, ev: Job) -> StopEvent:
        return StopEvent(result=await Child().run())


class Child(Workflow):
    @step
    async def only(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result="child")


async def test_a_recording_is_a_tree_of_what_happened() -> None:
    """Runs, steps, attempts and events, each inside of what it belongs to."""
    with record() as seen:
        assert await Family().run() == "child"
    assert seen.tree() == (
        "run Family\n"
        "  event StartEvent\n"
        "  step first retried\n"
        "  step first attempt 2\n"
        "    event Job\n"
        "  step second\n"
        "    run Child\n"
        "      event StartEvent\n"
        "      step only"
    )
    assert seen.open() == []


async def test_a_recording_is_searched_by_kind_and_name() -> None:
    """In the order in which things began; notes and errors by operation."""
    with record() as seen:
        await Family().run()
    assert [op.name for op in seen.find(Kind.STEP)] == ["first", "first", "second", "only"]
    assert [op.kind for op in seen.find(name="StartEvent")] == [Kind.EVENT, Kind.EVENT]
    failed, again = seen.find("step", "first")
    assert seen.noted_on(failed) == ["retry"]
    assert str(seen.errors[failed.ref.id]) == "once"
    assert seen.errors[again.ref.id] is None
    (run,) = seen.children(None)
    assert [op.name for op in seen.children(run)] == ["StartEvent", "first", "first", "second"]


async def test_a_recorder_hears_only_what_it_asks_for_and_only_inside_the_block() -> None:
    """Operations whose parents are not recorded are roots."""
    with record(frozenset({Kind.STEP})) as seen:
        await Family().run()
    assert seen.tree() == "step first retried\nstep first attempt 2\nstep second\nstep only"
    await Family().run()
    assert len(seen.operations) == 4


async def test_what_has_not_ended_is_shown_as_open() -> None:
    """A run that waits, say."""

    class Waits(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.wait_for_event(Job)
            return StopEvent()

    with record() as seen, use_clock(FakeClock()) as clock:
        handler = Waits().run()
        await clock.settle()
        assert [(op.kind, op.name) for op in seen.open()] == [(Kind.RUN, "Waits"), (Kind.STEP, "only")]
        assert seen.tree().startswith("run Waits open\n")
        await handler.cancel_run()
    assert seen.open() == []
    assert "step only cancelled" in seen.tree()


def test_a_recorder_is_an_observer_like_any_other() -> None:
    """It can be given to a test's own seam."""
    recorder = Recorder()
    assert recorder.kinds == frozenset(Kind)
    assert recorder.find() == []
    assert recorder.tree() == ""
    with pytest.raises(ValueError, match="inside"), record():
        raise ValueError("inside")
