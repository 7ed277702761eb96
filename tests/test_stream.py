"""The stream of a run: any number of followers, each at its own pace, none of whom holds up the run."""

from __future__ import annotations

import asyncio
import gc
import threading
from contextlib import aclosing
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
    StreamGap,
    Workflow,
    WorkflowCancelledEvent,
    WorkflowFailedEvent,
    WorkflowRuntimeError,
    WorkflowTimedOutEvent,
    step,
)
from agentflow.clock import use_clock
from agentflow.stream import CAPACITY, Cursor, Ring, Subscription
from agentflow.testing import FakeClock


class Progress(Event):
    n: int = 0


class Go(HumanResponseEvent):
    pass


class Report(StopEvent):
    text: str = ""


class Talks(Workflow):
    """Writes `before` events, waits for a word if `waits`, writes `after` more."""

    @step
    async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
        before = ev.get("before", 3)
        for n in range(before):
            ctx.write_event_to_stream(Progress(n=n))
        if ev.get("waits"):
            await ctx.wait_for_event(Go)
        for n in range(ev.get("after", 0)):
            ctx.write_event_to_stream(Progress(n=before + n))
        return StopEvent(result="done")


def shown(events: list[Event]) -> list[Any]:
    """The numbers of progress, and the names of the others."""
    return [event.n if isinstance(event, Progress) else type(event).__name__ for event in events]


async def read(following: Subscription, count: int | None = None) -> list[Any]:
    """So many events, or all to the end."""
    events: list[Event] = []
    async for event in following:
        events.append(event)
        if len(events) == count:
            break
    return shown(events)


async def settle() -> None:
    """Let everything happen that can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_stream_has_what_steps_wrote_and_ends_with_the_runs_own_stop_event() -> None:
    """In order; the result is there for whoever awaits it."""
    handler = Talks().run()
    events = [event async for event in handler.stream_events()]
    assert shown(events) == [0, 1, 2, "StopEvent"]
    assert isinstance(events[-1], StopEvent)
    assert events[-1].result == "done"
    assert await handler == "done"


async def test_stream_events_goes_on_where_the_last_iteration_stopped() -> None:
    """To the end, and then there is nothing more."""
    handler = Talks().run()
    assert await read(handler.stream_events(), 1) == [0]
    assert await read(handler.stream_events(), 1) == [1]
    assert await read(handler.stream_events()) == [2, "StopEvent"]
    assert await read(handler.stream_events()) == []


async def test_iterations_that_share_a_place_share_the_events() -> None:
    """Each event goes to one of them, and both end."""
    handler = Talks().run(before=100)
    one, other = await asyncio.gather(read(handler.stream_events()), read(handler.stream_events()))
    assert sorted(one + other, key=str) == sorted([*range(100), "StopEvent"], key=str)


async def test_subscribers_are_independent_and_begin_where_they_say() -> None:
    """From the start, or from behind an event; `position` is what to go on from later."""
    handler = Talks().run()
    first = handler.subscribe()
    assert await read(first, 2) == [0, 1]
    assert first.position == 2
    assert await read(handler.subscribe()) == [0, 1, 2, "StopEvent"]
    assert await read(handler.subscribe(after=first.position)) == [2, "StopEvent"]
    assert await read(first) == [2, "StopEvent"]
    assert await read(handler.subscribe(after=3)) == ["StopEvent"]
    assert await read(handler.subscribe(after=4)) == []
    assert await read(handler.subscribe(after=1_000)) == []
    with pytest.raises(WorkflowRuntimeError, match=r"numbered from 1: none is behind -1. Write subscribe\(after=0\)"):
        handler.subscribe(after=-1)


async def test_a_subscriber_that_is_ahead_waits_until_its_event_comes() -> None:
    """`after` may lie in the future."""
    handler = Talks().run(before=2, waits=True, after=3)
    ahead = asyncio.create_task(read(handler.subscribe(after=4)))
    await settle()
    assert not ahead.done()
    handler.ctx.send_event(Go())
    assert await ahead == [4, "StopEvent"]


@pytest.mark.parametrize("followed", [True, False])
async def test_who_comes_after_the_end_gets_everything(followed: bool) -> None:  # noqa: FBT001 because the test is run for both
    """Whether or not anybody had followed before; also of a run that wrote nothing."""
    handler = Talks().run()
    if followed:
        await read(handler.stream_events())
    await handler
    assert await read(handler.subscribe()) == [0, 1, 2, "StopEvent"]
    assert await read(handler.subscribe()) == [0, 1, 2, "StopEvent"]
    silent = Talks().run(before=0)
    await silent
    assert await read(silent.stream_events()) == ["StopEvent"]
    assert await read(silent.subscribe()) == ["StopEvent"]


async def test_every_end_of_a_run_ends_its_stream() -> None:
    """With an event that says which it was: for who follows, and for who comes late."""

    class Ends(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> Report:
            ctx.write_event_to_stream(Progress())
            if ev.how == "fail":
                raise LookupError("lost")
            if ev.how == "report":
                return Report(text="all well")
            await asyncio.Event().wait()
            raise AssertionError

    async def last(how: str) -> Event:
        with use_clock(FakeClock()) as clock:
            handler = Ends(timeout=60).run(how=how)
            following = asyncio.create_task(_events(handler))
            await settle()
            if how == "cancel":
                await handler.cancel_run()
            await clock.advance(60)
            assert handler.is_done()
            if how != "report":
                assert handler.exception() is not None
            events = await following
            assert events == await _events(handler)
        assert isinstance(events[0], Progress)
        assert len(events) == 2
        return events[-1]

    assert await last("report") == Report(text="all well")
    assert await last("cancel") == WorkflowCancelledEvent()
    assert await last("time") == WorkflowTimedOutEvent(timeout=60, active_steps=["only"])
    failed = await last("fail")
    assert isinstance(failed, WorkflowFailedEvent)
    assert (failed.step, failed.exception_type, failed.message) == ("only", "builtins.LookupError", "lost")


async def _events(handler: Handler[Any]) -> list[Event]:
    return [event async for event in handler.subscribe()]


async def test_the_writer_never_waits_and_who_falls_behind_is_told_what_is_missing() -> None:
    """The ring keeps the newest; the gap covers exactly the rest."""
    total = CAPACITY + 3_000
    handler = Talks().run(before=10, waits=True, after=total - 10)
    slow = handler.subscribe()
    assert await read(slow, 4) == [0, 1, 2, 3]
    handler.ctx.send_event(Go())
    assert await handler == "done"
    events = [event async for event in slow]
    gap = events[0]
    assert isinstance(gap, StreamGap)
    assert gap.first == 5
    assert shown(events[1:]) == [*range(gap.last, total), "StopEvent"]
    assert len(events) - 1 >= CAPACITY
    late = [event async for event in handler.subscribe()]
    assert late[0] == StreamGap(first=1, last=gap.last)
    assert late[1:] == events[1:]


async def test_closing_a_subscription_from_another_task_ends_it_and_leaves_nothing_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No task, no callback in the stream, no line in the log; the run goes on."""
    handler = Talks().run(waits=True, after=2)
    await settle()
    tasks = len(asyncio.all_tasks())
    following = handler.subscribe()
    reader = asyncio.create_task(read(following))
    await settle()
    assert _waiting(handler) == 1
    await following.aclose()
    assert await reader == [0, 1, 2]
    assert await read(following) == []
    assert len(asyncio.all_tasks()) == tasks
    assert not _waiting(handler)
    handler.ctx.send_event(Go())
    assert await handler == "done"
    assert caplog.records == []


async def test_a_follower_that_is_cancelled_or_leaves_its_loop_leaves_nothing_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """By `break`, by cancellation, by the end of a `with` block."""
    handler = Talks().run(waits=True, after=1)
    await settle()
    before = len(asyncio.all_tasks())
    assert await read(handler.stream_events(), 2) == [0, 1]
    reader = asyncio.create_task(read(handler.stream_events()))
    await settle()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    async with handler.subscribe() as following:
        assert await read(following, 1) == [0]
    assert await read(following) == []
    async with aclosing(handler.subscribe()) as other:
        assert await read(other, 3) == [0, 1, 2]
    gc.collect()
    assert len(asyncio.all_tasks()) == before
    assert not _waiting(handler)
    handler.ctx.send_event(Go())
    assert await read(handler.stream_events()) == [3, "StopEvent"]
    assert caplog.records == []


async def test_a_subscription_that_two_tasks_share_wakes_and_ends_for_both() -> None:
    """As an iterator each event goes to one of them."""
    handler = Talks().run(before=0, waits=True, after=1)
    following = handler.subscribe()
    readers = [asyncio.create_task(read(following)) for _ in range(3)]
    await settle()
    await following.aclose()
    assert await asyncio.gather(*readers) == [[], [], []]
    await handler.cancel_run()


def _waiting(handler: Handler[Any]) -> int:
    """How many callbacks a run's stream holds."""
    found = [o for o in gc.get_referents(handler._run) if isinstance(o, Ring)]  # noqa: SLF001 because nothing public shows it
    return sum(len(ring._followers) for ring in found)  # noqa: SLF001 because nothing public shows it


async def test_a_follower_may_live_in_another_event_loop() -> None:
    """A thread of the service, say."""
    handler = Talks().run(before=2, waits=True, after=2)
    seen: list[Any] = []
    started = threading.Event()

    async def follow() -> None:
        async for event in handler.subscribe():
            seen.append(*shown([event]))
            if seen == [0, 1]:
                started.set()

    thread = threading.Thread(target=lambda: asyncio.run(follow()))
    thread.start()
    await asyncio.to_thread(started.wait)
    await settle()
    handler.ctx.send_event(Go())
    await handler
    await asyncio.to_thread(thread.join)
    assert seen == [0, 1, 2, 3, "StopEvent"]


async def test_a_follower_whose_event_loop_was_closed_does_not_disturb_the_run() -> None:
    """The step that writes never hears of it."""
    handler = Talks().run(before=1, waits=True, after=1)
    await settle()
    following = handler.subscribe(after=1)

    def abandon() -> None:
        loop = asyncio.new_event_loop()
        waiting = following.__anext__()
        task = loop.create_task(waiting)
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 because it is left pending on purpose

    thread = threading.Thread(target=abandon)
    thread.start()
    await asyncio.to_thread(thread.join)
    handler.ctx.send_event(Go())
    assert await handler == "done"


async def test_a_childs_events_appear_in_the_parents_stream_but_not_its_stop_event() -> None:
    """In the order in which they were written."""

    class Parent(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> Report:
            ctx.write_event_to_stream(Progress(n=100))
            child = Talks().run()
            assert await child == "done"
            ctx.write_event_to_stream(Progress(n=200))
            return Report()

    assert await read(Parent().run().stream_events()) == [100, 0, 1, 2, 200, "Report"]


async def test_only_events_are_written_and_only_while_the_run_goes_on() -> None:
    """The caller may write too."""
    handler = Talks().run(waits=True)
    await settle()
    with pytest.raises(WorkflowRuntimeError, match="only events are written"):
        handler.ctx.write_event_to_stream("text")  # type: ignore[arg-type]  # the mistake under test
    handler.ctx.write_event_to_stream(Progress(n=9))
    handler.ctx.send_event(Go())
    assert await read(handler.stream_events()) == [0, 1, 2, 9, "StopEvent"]
    with pytest.raises(WorkflowRuntimeError, match="has ended"):
        handler.ctx.write_event_to_stream(Progress())


EVENTS = [Progress(n=n) for n in range(1, 6_001)]
actions = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 1_500)),
        st.tuples(st.just("read"), st.integers(0, 2), st.integers(1, 1_500)),
        st.tuples(st.just("join"), st.integers(0, 2), st.integers(0, 4_000)),
    ),
    max_size=8,
)


@settings(max_examples=60)
@given(st.integers(1, 2_000), actions)
def test_a_follower_sees_each_event_once_in_order_or_a_gap_that_covers_what_is_missing(
    capacity: int, todo: list[tuple[Any, ...]]
) -> None:
    """However writing, reading and joining alternate, and however few the ring holds."""

    async def main() -> None:
        ring = Ring(capacity)
        begun = [0, 0, 0]
        followers = [Subscription(ring, Cursor()) for _ in begun]
        logs: list[list[Event]] = [[], [], []]
        for what, *arguments in todo:
            if what == "write":
                for event in EVENTS[ring.last : min(ring.last + arguments[0], len(EVENTS))]:
                    ring.write(event)
                    assert ring.last - ring.first + 1 >= min(ring.last, capacity)
                    assert ring.last - ring.first + 1 < capacity + 2 * 1_024
            elif what == "join":
                who, begun[who] = arguments
                followers[who], logs[who] = Subscription(ring, Cursor(begun[who])), []
            else:
                who, count = arguments
                while count and followers[who].position < ring.last:
                    logs[who].append(await anext(followers[who]))
                    count -= 1
        ring.close()
        for start, follower, log in zip(begun, followers, logs, strict=True):
            log += [event async for event in follower]
            covered = [n for event in log for n in _numbers(event)]
            assert covered == list(range(start + 1, ring.last + 1))

    asyncio.run(main())


def _numbers(event: Event) -> range:
    if isinstance(event, StreamGap):
        return range(event.first, event.last + 1)
    assert isinstance(event, Progress)
    return range(event.n, event.n + 1)


@given(st.lists(st.integers(1, 3), min_size=1, max_size=30))
def test_a_follower_that_waits_misses_nothing(bursts: list[int]) -> None:
    """Written one by one or several at once, between its looks."""

    async def main() -> None:
        ring = Ring()
        readers = [asyncio.create_task(read(Subscription(ring, Cursor()))) for _ in range(2)]
        for burst in bursts:
            await asyncio.sleep(0)
            for _ in range(burst):
                ring.write(EVENTS[ring.last])
        ring.close()
        assert await asyncio.gather(*readers) == [list(range(1, sum(bursts) + 1))] * 2

    asyncio.run(main())
