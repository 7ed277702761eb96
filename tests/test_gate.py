"""`num_concurrent_runs`: as many as were asked for, in the order of their coming, and no place is ever lost."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow import (
    Context,
    Event,
    Handler,
    HumanResponseEvent,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowCancelledByUser,
    WorkflowConfigurationError,
    WorkflowRuntimeError,
    step,
)
from agentflow.gate import Gate


class Leave(HumanResponseEvent):
    pass


class Room(Workflow):
    """Counts who is inside; a run stays until it is told to leave."""

    def __init__(self, places: int | None) -> None:
        super().__init__(num_concurrent_runs=places)
        self.inside = 0
        self.most = 0
        self.entered: list[int] = []

    @step
    async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.entered.append(ev.n)
        try:
            if ev.get("stays", default=True):
                await ctx.wait_for_event(Leave)
            if ev.get("fails"):
                raise LookupError
        finally:
            self.inside -= 1
        return StopEvent(result=ev.n)


async def settle() -> None:
    """Let everything happen that can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_only_so_many_runs_of_one_object_go_on_at_once() -> None:
    """The others wait their turn, first come, first served; other objects do not count."""
    room, other = Room(2), Room(2)
    handlers = [room.run(n=n) for n in range(5)]
    elsewhere = other.run(n=9)
    await settle()
    assert room.entered == [0, 1]
    assert other.entered == [9]
    for n in (1, 0, 2, 3, 4):
        handlers[n].ctx.send_event(Leave())
        await settle()
    assert room.entered == [0, 1, 2, 3, 4]
    assert room.most == 2
    assert [await handler for handler in handlers] == [0, 1, 2, 3, 4]
    await elsewhere.cancel_run()


async def test_without_a_limit_all_go_on() -> None:
    """Which is the default."""
    room = Room(None)
    handlers = [room.run(n=n) for n in range(50)]
    await settle()
    assert room.inside == 50
    for handler in handlers:
        await handler.cancel_run()


@pytest.mark.parametrize("how", ["succeeds", "fails", "is cancelled"])
async def test_a_run_that_ends_gives_its_place_to_the_next(how: str) -> None:
    """However it ends."""
    room = Room(1)
    first = room.run(n=0, stays=how == "is cancelled", fails=how == "fails")
    second = room.run(n=1, stays=False)
    await settle()
    if how == "is cancelled":
        assert room.entered == [0]
        await first.cancel_run()
    assert await second == 1
    assert (first.exception() is None) == (how == "succeeds")


async def test_a_run_that_is_cancelled_in_the_queue_is_passed_over() -> None:
    """It never begins, and those behind it move up."""
    room = Room(1)
    first, second, third = (room.run(n=n) for n in range(3))
    await settle()
    await second.cancel_run()
    with pytest.raises(WorkflowCancelledByUser):
        await second
    first.ctx.send_event(Leave())
    await settle()
    third.ctx.send_event(Leave())
    assert await third == 2
    assert room.entered == [0, 2]
    assert await first == 0


async def test_a_run_that_is_cancelled_just_when_its_place_is_free_passes_it_on() -> None:
    """Between being called and coming in."""
    room = Room(1)
    first, second = room.run(n=0, stays=False), room.run(n=1)
    third = room.run(n=2, stays=False)
    await first
    _ = second.cancel_run()
    async with asyncio.timeout(1):
        assert await third == 2
    assert await room.run(n=3, stays=False) == 3
    assert 1 not in room.entered


async def test_a_run_inside_a_run_of_the_same_object_waits_for_no_place() -> None:
    """It would wait for itself."""

    class Nests(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            if ev.depth == 0:
                return StopEvent(result=[0])
            return StopEvent(result=[ev.depth, *(await self.run(depth=ev.depth - 1))])

    flow = Nests(num_concurrent_runs=1)
    assert await flow.run(depth=3) == [3, 2, 1, 0]
    assert await asyncio.gather(*(flow.run(depth=1) for _ in range(3))) == [[1, 0]] * 3


async def test_a_run_that_waits_for_its_place_can_be_stored_and_takes_up_elsewhere() -> None:
    """It begins with its start event."""
    room = Room(1)
    first, second = room.run(n=0), room.run(n=1, stays=False)
    stored = second.ctx.to_json()
    await second.cancel_run()
    await first.cancel_run()
    assert await room.run(ctx=Context.from_json(room, stored)) == 1


async def test_events_sent_to_a_run_in_the_queue_are_there_when_it_begins() -> None:
    """Also when it is put away before it has begun; what nobody could take is refused at once."""

    class Lost(Event):
        pass

    room = Room(1)
    first, second, third = (room.run(n=n) for n in range(3))
    for handler in (second, third):
        handler.ctx.send_event(Leave())
        with pytest.raises(WorkflowRuntimeError, match="the caller sent a Lost, which no step of 'Room' accepts"):
            handler.ctx.send_event(Lost())
    stored = third.ctx.to_json()
    await third.cancel_run()
    first.ctx.send_event(Leave())
    assert await second == 1
    assert await room.run(ctx=Context.from_json(room, stored)) == 2


def test_runs_of_one_object_in_several_event_loops_share_its_places() -> None:
    """One after the other; a loop that was closed with runs in the queue does not block those of the next."""
    room = Room(1)

    async def leave_some() -> None:
        first = room.run(n=0)
        waiting = [room.run(n=n) for n in (1, 2)]
        await settle()
        assert room.entered[-1] == 0
        del waiting
        await first.cancel_run()

    async def one() -> Any:
        async with asyncio.timeout(0.2):
            return await room.run(n=7, stays=False)

    for _ in range(2):
        asyncio.run(leave_some())
        assert asyncio.run(one()) == 7


def test_a_gate_passes_over_runs_whose_event_loop_is_closed() -> None:
    """They will never come; and leaving an empty queue frees the place."""

    class Run:
        def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
            self.loop = loop
            self.begun = False

        def begin(self) -> None:
            self.begun = True

    loop, closed = asyncio.new_event_loop(), asyncio.new_event_loop()
    closed.close()
    gate = Gate(1)
    first, gone, second, third = Run(loop), Run(closed), Run(loop), Run(loop)
    assert gate.enter(first)
    assert not gate.enter(gone)
    assert not gate.enter(second)
    gate.leave(first)
    loop.run_until_complete(asyncio.sleep(0))
    assert (gone.begun, second.begun) == (False, True)
    gate.leave(second)
    assert gate.enter(third)
    assert not gate.enter(first)
    gate.give_up(first)
    gate.leave(third)
    assert gate.enter(first)
    loop.close()


@settings(max_examples=60)
@given(st.integers(1, 3), st.lists(st.sampled_from(["run", "leave", "cancel", "turn"]), max_size=30), st.randoms())
def test_whatever_comes_and_goes_the_limit_holds_and_everyone_gets_in(
    places: int, todo: list[str], chance: random.Random
) -> None:
    """Runs that come, leave, and are cancelled, in any order, inside or in the queue."""

    async def main() -> None:
        room = Room(places)
        handlers: list[Handler[Any]] = []
        gone: set[int] = set()

        def leave(n: int, *, cancelled: bool) -> None:
            if cancelled:
                _ = handlers[n].cancel_run()
            elif n not in gone:
                handlers[n].ctx.send_event(Leave())
            gone.add(n)

        for what in todo:
            if what == "run":
                handlers.append(room.run(n=len(handlers)))
            elif what == "turn":
                await asyncio.sleep(0)
            elif handlers:
                leave(chance.randrange(len(handlers)), cancelled=what == "cancel")
            assert room.inside <= places
        for n in range(len(handlers)):
            leave(n, cancelled=False)
        await asyncio.gather(*handlers, return_exceptions=True)
        assert room.most <= places
        assert room.inside == 0
        assert await room.run(n=-1, stays=False) == -1

    asyncio.run(main())


@pytest.mark.parametrize("places", [0, -1, 1.5, "2"])
def test_a_limit_that_makes_no_sense_is_refused(places: Any) -> None:
    """When the workflow is made."""
    with pytest.raises(WorkflowConfigurationError, match="num_concurrent_runs"):
        Room(places)
