"""Time is taken from the clock in force, and from nowhere else."""

from __future__ import annotations

import asyncio
import time
from contextvars import ContextVar

import pytest

from agentflow import Context, Event, HumanResponseEvent, StartEvent, StopEvent, Workflow, WorkflowTimeoutError, step
from agentflow.clock import Clock, current_clock, use_clock
from agentflow.testing import FakeClock


class Answer(HumanResponseEvent):
    text: str = ""


class Ready(Event):
    pass


def test_the_clock_in_force_is_the_systems_unless_another_is_put_in_force() -> None:
    """Inside the block only, one inside the other."""
    system = current_clock()
    assert type(system) is Clock
    with use_clock(FakeClock()) as outer:
        assert current_clock() is outer
        with use_clock(FakeClock()) as inner:
            assert current_clock() is inner
        assert current_clock() is outer
    assert current_clock() is system


def test_the_systems_clock_tells_the_systems_time() -> None:
    """Between two looks at it."""
    clock = Clock()
    before = time.time(), time.monotonic()
    now = clock.time(), clock.monotonic()
    assert before[0] <= now[0] <= time.time()
    assert before[1] <= now[1] <= time.monotonic()


async def test_the_systems_clock_sleeps_in_the_event_loop() -> None:
    """No time at all is enough to see it; a cancelled sleep leaves no timer."""
    clock = Clock()
    await clock.sleep(0)
    called: list[int] = []
    clock.call_later(0, lambda: called.append(1))
    clock.call_later(0, lambda: called.append(2)).cancel()
    await clock.sleep(0)
    await asyncio.sleep(0)
    assert called == [1]
    sleeping = asyncio.create_task(clock.sleep(3_600))
    await asyncio.sleep(0)
    sleeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeping


async def test_a_run_keeps_the_clock_that_was_in_force_when_it_started() -> None:
    """Two runs side by side, each in its own time."""

    class Sleeps(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            try:
                await ctx.wait_for_event(Answer, timeout=60)
            except WorkflowTimeoutError:
                return StopEvent(result="late")
            return StopEvent(result="in time")

    with use_clock(FakeClock()) as fast:
        one = Sleeps().run()
    with use_clock(FakeClock()) as slow:
        other = Sleeps().run()
    await fast.advance(60)
    await slow.advance(59)
    assert await one == "late"
    other.ctx.send_event(Answer())
    assert await other == "in time"


@pytest.mark.parametrize("make", [Clock, FakeClock])
async def test_a_limit_ends_its_block_like_any_other_limit(make: type[Clock]) -> None:
    """`asyncio.timeout` does it, so what it says afterwards is true; a paused one never goes off."""
    clock = make()
    limit = clock.timeout(0)
    with pytest.raises(TimeoutError):
        await _forever(limit)
    assert limit.expired()
    async with clock.timeout(0.001) as limit:
        left = clock.pause(limit)
        assert 0 <= left <= 0.0011
        for _ in range(3):
            await asyncio.sleep(0)
    assert not limit.expired()
    limit = clock.timeout(3_600)
    with pytest.raises(TimeoutError):
        await _forever(limit, clock)
    assert limit.expired()


async def _forever(limit: asyncio.Timeout, clock: Clock | None = None) -> None:
    """Stay in the block of a limit, which a clock may hold and let run out."""
    async with limit:
        if clock is not None:
            clock.pause(limit)
            clock.resume(limit, 0)
        await asyncio.Event().wait()


class Limited(Workflow):
    """Its step has ten seconds, but humans may take their time."""

    @step(timeout=10)
    async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
        clock = current_clock()
        await clock.sleep(ev.get("before", 0))
        waits = [ctx.wait_for_event(Answer, requirements={"text": text}) for text in ev.get("texts", ["a"])]
        answers = await asyncio.gather(*waits)
        await clock.sleep(ev.get("after", 0))
        return StopEvent(result=[answer.text for answer in answers])


async def test_the_time_that_a_human_takes_does_not_count_towards_a_steps_limit() -> None:
    """What the step itself takes before and after does, all together."""
    with use_clock(FakeClock()) as clock:
        enough = Limited().run(before=6, after=3)
        too_long = Limited().run(before=6, after=5)
        await clock.advance(6)
        await clock.advance(86_400)
        for handler in (enough, too_long):
            handler.ctx.send_event(Answer(text="a"))
        await clock.advance(3)
        assert await enough == ["a"]
        assert not too_long.is_done()
        await clock.advance(1)
        assert too_long.is_done()
        with pytest.raises(WorkflowTimeoutError, match="step 'only' of 'Limited' exceeded its time-out of 10 s"):
            await too_long


async def test_the_limit_stands_still_until_the_last_of_several_waits_for_humans_is_over() -> None:
    """A step may ask two people at once."""
    with use_clock(FakeClock()) as clock:
        handler = Limited().run(before=6, after=3, texts=["a", "b"])
        await clock.advance(6)
        await clock.advance(86_400)
        handler.ctx.send_event(Answer(text="b"))
        await clock.advance(86_400)
        assert not handler.is_done()
        handler.ctx.send_event(Answer(text="a"))
        await clock.advance(3)
        assert handler.is_done()
        assert await handler == ["a", "b"]


async def test_a_limit_that_was_met_leaves_no_timer() -> None:
    """Neither running nor paused."""
    with use_clock(FakeClock()) as clock:
        handler = Limited().run()
        await clock.settle()
        handler.ctx.send_event(Answer(text="a"))
        assert await handler == ["a"]
        await clock.advance(100)
        assert handler.exception() is None
        assert clock.pending == []


async def test_a_fake_timer_goes_off_among_the_variables_of_whoever_set_it() -> None:
    """As those of an event loop do."""
    variable: ContextVar[str] = ContextVar("variable")
    seen: list[str] = []
    clock = FakeClock()
    variable.set("then")
    clock.call_later(1, lambda: seen.append(variable.get()))
    variable.set("now")
    await clock.advance(1)
    assert seen == ["then"]
