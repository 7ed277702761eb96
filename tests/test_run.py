"""The run loop: order, tasks, context variables, slots, sends and ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from contextvars import ContextVar
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow import (
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Retry,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowRuntimeError,
    WorkflowTimeoutError,
    step,
)
from agentflow.clock import use_clock
from agentflow.testing import FakeClock, record

color: ContextVar[str] = ContextVar("color", default="none")


class Job(Event):
    n: int = 0
    to: str = ""


class Done(Event):
    n: int = 0
    before: str = ""
    by: str = ""


class A(Event):
    pass


class B(Event):
    seen: str = ""


class C(Event):
    pass


class Ask(InputRequiredEvent):
    prefix: str = ""


class Answer(HumanResponseEvent):
    n: int = 0
    text: str = ""


@pytest.fixture(params=["unwatched", "watched"])
def watched(request: pytest.FixtureRequest) -> Iterator[None]:
    """Once on the short way, and once with an observer, which takes the long one."""
    with record() if request.param == "watched" else nullcontext():
        yield


# order and tasks


@pytest.mark.usefixtures("watched")
async def test_branches_all_run_before_what_joins_them() -> None:
    """What was sent earlier comes before what its takers produce."""
    ran: list[str] = []

    class Joined(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> A | B | C | None:
            ran.append("start")
            for branch in (A(), B(), C()):
                ctx.send_event(branch)
            return None

        @step
        async def a(self, ev: A) -> Done:
            ran.append("a")
            return Done()

        @step
        async def b(self, ev: B) -> Done:
            ran.append("b")
            return Done()

        @step
        async def c(self, ev: C) -> Done:
            ran.append("c")
            return Done()

        @step
        async def three(self, ctx: Context, ev: Done) -> StopEvent | None:
            ran.append("three")
            return None if ctx.collect_events(ev, {Done: 3}) is None else StopEvent()

    await Joined().run()
    assert " ".join(ran) == "start a b c three three three"


@pytest.mark.usefixtures("watched")
async def test_branches_of_a_returned_list_all_run_before_what_joins_them() -> None:
    """A list and sends are taken up alike."""
    ran: list[str] = []

    class Joined(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[A | B]:
            return [A(), B()]

        @step
        async def a(self, ev: A) -> Done:
            ran.append("a")
            return Done()

        @step
        async def b(self, ev: B) -> Done:
            ran.append("b")
            return Done()

        @step
        async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
            ran.append("join")
            return None if ctx.collect_events(ev, [Done] * 2) is None else StopEvent()

    await Joined().run()
    assert ran == ["a", "b", "join", "join"]


@settings(max_examples=40)
@given(count=st.integers(1, 40), workers=st.integers(1, 6), pauses=st.lists(st.integers(0, 3), min_size=1))
def test_deliveries_of_a_step_begin_in_the_order_in_which_they_were_sent(
    count: int, workers: int, pauses: list[int]
) -> None:
    """First in first out per step, however many slots it has and however long each takes."""
    begun: list[int] = []

    class Fifo(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[Job]:
            return [Job(n=n) for n in range(count)]

        @step(num_workers=workers)
        async def work(self, ev: Job) -> Done:
            begun.append(ev.n)
            for _ in range(pauses[ev.n % len(pauses)]):
                await asyncio.sleep(0)
            return Done()

        @step
        async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
            return None if ctx.collect_events(ev, {Done: count}) is None else StopEvent()

    Fifo().run_sync()
    assert begun == list(range(count))


@settings(max_examples=40)
@given(count=st.integers(1, 40), workers=st.integers(1, 6), pauses=st.lists(st.integers(0, 3), min_size=1))
def test_a_step_never_has_more_executions_at_once_than_workers(count: int, workers: int, pauses: list[int]) -> None:
    """The bound is kept exactly: reached where there is enough to do, never passed."""
    now = most = 0

    class Bounded(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[Job]:
            return [Job(n=n) for n in range(count)]

        @step(num_workers=workers)
        async def work(self, ev: Job) -> Done:
            nonlocal now, most
            now += 1
            most = max(most, now)
            for _ in range(2 + pauses[ev.n % len(pauses)]):  # one turn of the loop makes the workers
                await asyncio.sleep(0)
            now -= 1
            return Done()

        @step(num_workers=1)
        async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
            return None if ctx.collect_events(ev, {Done: count}) is None else StopEvent()

    Bounded().run_sync()
    assert most == min(count, workers)


async def test_a_step_has_four_workers_unless_it_says_otherwise() -> None:
    """The default of num_workers is 4."""
    arrived = 0
    released = asyncio.Event()

    class Four(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[Job]:
            return [Job() for _ in range(10)]

        @step
        async def work(self, ev: Job) -> StopEvent:
            nonlocal arrived
            arrived += 1
            await released.wait()
            return StopEvent()

    handler = Four().run()
    for _ in range(20):
        await asyncio.sleep(0)
    assert arrived == 4
    released.set()
    await handler


@pytest.mark.usefixtures("watched")
async def test_plain_functions_run_in_as_many_threads_as_they_have_workers() -> None:
    """Sixteen meet at a barrier, twice: none is held back, and never are there seventeen."""
    barrier = threading.Barrier(16)
    lock = threading.Lock()
    now = most = 0

    class Threads(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[Job]:
            return [Job() for _ in range(32)]

        @step(num_workers=16)
        def work(self, ev: Job) -> Done:
            nonlocal now, most
            with lock:
                now += 1
                most = max(most, now)
            barrier.wait(timeout=30)
            with lock:
                now -= 1
            return Done()

        @step
        async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
            return None if ctx.collect_events(ev, {Done: 32}) is None else StopEvent()

    await Threads().run()
    assert most == 16


async def test_two_plain_steps_do_not_take_each_others_threads() -> None:
    """The pool is as large as all plain steps together need."""
    barrier = threading.Barrier(6)

    class Threads(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[A | B]:
            return [A(), A(), A(), B(), B(), B()]

        @step(num_workers=3)
        def a(self, ev: A) -> Done:
            barrier.wait(timeout=30)
            return Done()

        @step(num_workers=3)
        def b(self, ev: B) -> Done:
            barrier.wait(timeout=30)
            return Done()

        @step
        async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
            return None if ctx.collect_events(ev, {Done: 6}) is None else StopEvent(result="met")

    assert await Threads().run() == "met"


async def test_steps_of_a_chain_may_share_a_task() -> None:
    """A worker goes on with the successor when nothing else is ready."""
    tasks: list[asyncio.Task[Any] | None] = []

    class Chain(Workflow):
        @step
        async def one(self, ev: StartEvent) -> A:
            tasks.append(asyncio.current_task())
            return A()

        @step
        async def two(self, ctx: Context, ev: A) -> B:
            tasks.append(asyncio.current_task())
            return B()

        @step
        async def three(self, ev: B) -> StopEvent:
            tasks.append(asyncio.current_task())
            return StopEvent()

    await Chain().run()
    assert len(tasks) == 3
    assert len(set(tasks)) == 1


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("sends", [False, True])
async def test_a_chain_that_never_suspends_lets_others_run(sends: bool) -> None:  # noqa: FBT001 because pytest passes it
    """The event loop gets its turn every so many steps, whether events are returned or sent."""
    turns = 0

    class Loop(Workflow):
        @step
        async def start(self, ev: StartEvent) -> Job:
            return Job()

        @step
        async def again(self, ctx: Context, ev: Job) -> Job | StopEvent | None:
            if ev.n == 5_000:
                return StopEvent()
            if sends:
                ctx.send_event(Job(n=ev.n + 1))
                return None
            return Job(n=ev.n + 1)

    async def other() -> None:
        nonlocal turns
        while not handler.is_done():
            turns += 1
            await asyncio.sleep(0)

    handler = Loop().run()
    await other()
    assert turns >= 50


async def test_a_cancellederror_that_nobody_asked_for_is_the_error_of_its_step() -> None:
    """It neither cancels the run nor looks as if somebody had."""

    class Broken(Workflow):
        @step
        async def start(self, ev: StartEvent) -> StopEvent:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            future.cancel()
            await future
            return StopEvent()

    with pytest.raises(
        WorkflowRuntimeError, match="step 'start' of 'Broken' raised CancelledError, though nobody"
    ) as error:
        await Broken().run()
    assert isinstance(error.value.__cause__, asyncio.CancelledError)


async def test_a_cancellederror_is_never_tried_again() -> None:
    """Whatever the retry policy says."""
    tries = 0

    class Broken(Workflow):
        @step(retry_policy=Retry(attempts=5, wait=0, on=BaseException))
        async def start(self, ev: StartEvent) -> StopEvent:
            nonlocal tries
            tries += 1
            raise asyncio.CancelledError

    with pytest.raises(WorkflowRuntimeError, match="raised CancelledError"):
        await Broken().run()
    assert tries == 1


async def test_a_step_that_cancels_a_task_of_its_own_may_go_on() -> None:
    """What happens to tasks that a step makes is the step's affair."""

    class Careful(Workflow):
        @step
        async def start(self, ev: StartEvent) -> StopEvent:
            task = asyncio.create_task(asyncio.Event().wait())
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            return StopEvent(result=task.cancelled())

    assert await Careful().run() is True


# time-outs of steps


async def test_a_step_that_takes_too_long_is_cancelled_and_says_so() -> None:
    """The message names step, workflow and limit; the body sees CancelledError."""
    clock = FakeClock()
    seen: list[str] = []

    class Slow(Workflow):
        @step(timeout=3)
        async def start(self, ev: StartEvent) -> StopEvent:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise
            return StopEvent()

    with use_clock(clock):
        handler = Slow().run()
        await clock.advance(2.9)
        assert not handler.is_done()
        await clock.advance(0.2)
    with pytest.raises(WorkflowTimeoutError, match="step 'start' of 'Slow' exceeded its time-out of 3 s"):
        await handler
    assert seen == ["cancelled"]


async def test_a_time_limit_keeps_context_variables_and_the_task() -> None:
    """What the step sets within its limit is visible in its successors."""

    class Limited(Workflow):
        @step(timeout=3)
        async def start(self, ev: StartEvent) -> A:
            color.set("red")
            return A()

        @step(timeout=3)
        async def end(self, ev: A) -> StopEvent:
            return StopEvent(result=color.get())

    assert await Limited().run() == "red"


async def test_a_timeouterror_of_the_body_stays_what_it_is() -> None:
    """Only the step's own limit makes it the engine's error."""

    class Own(Workflow):
        @step(timeout=3)
        async def start(self, ev: StartEvent) -> StopEvent:
            raise TimeoutError("the server did not answer")

    with pytest.raises(TimeoutError, match="the server did not answer") as error:
        await Own().run()
    assert type(error.value) is TimeoutError


async def test_a_limit_inside_of_a_limited_step_is_told_apart_from_it() -> None:
    """The inner one expires, the step goes on."""
    clock = FakeClock()

    class Nested(Workflow):
        @step(timeout=60)
        async def start(self, ev: StartEvent) -> StopEvent:
            try:
                async with asyncio.timeout(0):
                    await asyncio.Event().wait()
            except TimeoutError:
                return StopEvent(result="inner")
            return StopEvent()

    with use_clock(clock):
        assert await Nested().run() == "inner"


async def test_the_time_that_a_human_takes_does_not_count_against_the_step() -> None:
    """The limit stands still while the step waits for an answer, and goes on behind it."""
    clock = FakeClock()
    entered = asyncio.Event()

    class Patient(Workflow):
        @step(timeout=10)
        async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.wait_for_event(Answer, waiter_event=Ask())
            entered.set()
            await asyncio.Event().wait()
            return StopEvent()

    with use_clock(clock):
        handler = Patient().run()
        await clock.advance(86_400)
        handler.ctx.send_event(Answer())
        await entered.wait()
        await clock.advance(9)
        assert not handler.is_done()
        await clock.advance(2)
    with pytest.raises(WorkflowTimeoutError, match="exceeded its time-out of 10 s"):
        await handler


async def test_a_plain_function_that_takes_too_long_is_left_behind() -> None:
    """A thread cannot be interrupted: the run fails in time all the same."""
    clock = FakeClock()
    begun, release = threading.Event(), threading.Event()

    class Slow(Workflow):
        @step(timeout=3)
        def start(self, ev: StartEvent) -> StopEvent:
            begun.set()
            release.wait(30)
            return StopEvent()

    with use_clock(clock):
        handler = Slow().run()
        while not begun.is_set():  # noqa: ASYNC110 because another thread sets it
            await asyncio.sleep(0)
        await clock.advance(4)
        try:
            with pytest.raises(WorkflowTimeoutError, match="exceeded its time-out of 3 s"):
                await handler
        finally:
            release.set()


# context variables


@pytest.mark.usefixtures("watched")
async def test_a_returned_event_carries_the_context_at_the_return() -> None:
    """What a step sets is visible in the steps that its event triggers."""

    class Chain(Workflow):
        @step
        async def start(self, ev: StartEvent) -> A:
            color.set("red")
            return A()

        @step
        async def middle(self, ctx: Context, ev: A) -> B:
            return B(seen=color.get())

        @step
        async def end(self, ev: B) -> StopEvent:
            return StopEvent(result=(ev.seen, color.get()))

    assert await Chain().run() == ("red", "red")
    assert color.get() == "none"


@pytest.mark.usefixtures("watched")
async def test_a_sent_event_carries_the_context_at_the_send() -> None:
    """What is set after the send is not visible to who takes it."""

    class Sends(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> A | None:
            color.set("red")
            ctx.send_event(A())
            color.set("blue")
            await asyncio.sleep(0)
            return None

        @step
        async def end(self, ev: A) -> StopEvent:
            return StopEvent(result=color.get())

    assert await Sends().run() == "red"


@pytest.mark.usefixtures("watched")
async def test_a_send_does_not_change_what_the_returned_event_carries() -> None:
    """Both go their own ways, each with its own context."""
    seen: dict[str, str] = {}

    class Both(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> A | B:
            color.set("red")
            ctx.send_event(A())
            color.set("blue")
            return B()

        @step
        async def a(self, ev: A) -> Done:
            seen["a"] = color.get()
            return Done()

        @step
        async def b(self, ev: B) -> Done:
            seen["b"] = color.get()
            return Done()

        @step
        async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
            return None if ctx.collect_events(ev, {Done: 2}) is None else StopEvent()

    await Both().run()
    assert seen == {"a": "red", "b": "blue"}


@pytest.mark.usefixtures("watched")
async def test_branches_do_not_see_what_the_others_set() -> None:
    """Each branch of a fan-out has a copy of the context of its own."""
    seen: list[tuple[int, str]] = []

    class Fan(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[Job]:
            color.set("common")
            return [Job(n=n) for n in range(6)]

        @step(num_workers=2)
        async def work(self, ev: Job) -> Done:
            before = color.get()
            color.set(f"job {ev.n}")
            await asyncio.sleep(0)
            return Done(n=ev.n, before=before)

        @step
        async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
            seen.append((ev.n, color.get()))
            assert ev.before == "common"
            return None if ctx.collect_events(ev, {Done: 6}) is None else StopEvent()

    await Fan().run()
    assert sorted(seen) == [(n, f"job {n}") for n in range(6)]


@pytest.mark.usefixtures("watched")
async def test_a_plain_step_sees_the_context_and_hands_on_that_of_its_thread() -> None:
    """Variables go into the thread and out of it again, along the events."""

    class Threads(Workflow):
        @step
        async def start(self, ev: StartEvent) -> A:
            color.set("red")
            return A()

        @step
        def middle(self, ev: A) -> B:
            was = color.get()
            color.set("blue")
            return B(seen=was)

        @step
        async def end(self, ev: B) -> StopEvent:
            return StopEvent(result=(ev.seen, color.get()))

    assert await Threads().run() == ("red", "blue")


@pytest.mark.usefixtures("watched")
async def test_what_a_plain_step_sends_carries_the_context_of_its_thread() -> None:
    """As at the send, not as when the step began."""

    class Threads(Workflow):
        @step
        def start(self, ctx: Context, ev: StartEvent) -> A | None:
            color.set("red")
            ctx.send_event(A())
            color.set("blue")
            return None

        @step
        async def end(self, ev: A) -> StopEvent:
            return StopEvent(result=color.get())

    assert await Threads().run() == "red"


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("plain", [False, True])
async def test_a_retry_starts_from_the_context_of_its_delivery(plain: bool) -> None:  # noqa: FBT001 because pytest passes it
    """What a failed attempt set is gone."""
    seen: list[str] = []

    def attempt() -> StopEvent:
        seen.append(color.get())
        color.set("failed")
        if len(seen) < 3:
            raise ValueError
        return StopEvent()

    class Asynchronous(Workflow):
        @step
        async def start(self, ev: StartEvent) -> A:
            color.set("red")
            return A()

        @step(retry_policy=Retry(wait=0))
        async def flaky(self, ev: A) -> StopEvent:
            return attempt()

    class Plain(Workflow):
        @step
        async def start(self, ev: StartEvent) -> A:
            color.set("red")
            return A()

        @step(retry_policy=Retry(wait=0))
        def flaky(self, ev: A) -> StopEvent:
            return attempt()

    await (Plain if plain else Asynchronous)().run()
    assert seen == ["red"] * 3


@pytest.mark.usefixtures("watched")
async def test_a_run_sees_the_context_of_its_caller_and_changes_nothing_there() -> None:
    """Variables flow in with the start, and out to nobody."""

    class Simple(Workflow):
        @step
        async def start(self, ev: StartEvent) -> StopEvent:
            was = color.get()
            color.set("inside")
            return StopEvent(result=was)

    token = color.set("outside")
    try:
        assert await Simple().run() == "outside"
        assert color.get() == "outside"
    finally:
        color.reset(token)


@pytest.mark.usefixtures("watched")
async def test_an_event_from_outside_carries_the_context_of_its_sender() -> None:
    """The same rule holds for a send from outside."""

    class Human(Workflow):
        @step
        async def start(self, ev: StartEvent) -> Ask:
            return Ask()

        @step
        async def end(self, ev: Answer) -> StopEvent:
            return StopEvent(result=color.get())

    handler = Human().run()
    async for _ in handler.stream_events():
        break
    token = color.set("green")
    handler.ctx.send_event(Answer())
    color.reset(token)
    assert await handler == "green"


@pytest.mark.usefixtures("watched")
async def test_an_answer_does_not_bring_its_context_into_the_step_that_waits() -> None:
    """A step in a wait stays in its own context."""

    class Human(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
            color.set("red")
            await ctx.wait_for_event(Answer, waiter_event=Ask())
            return StopEvent(result=color.get())

    handler = Human().run()
    async for _ in handler.stream_events():
        break
    token = color.set("green")
    handler.ctx.send_event(Answer())
    color.reset(token)
    assert await handler == "red"


# ends


@pytest.mark.usefixtures("watched")
async def test_the_first_stopevent_ends_the_run() -> None:
    """Steps that are still running are cancelled, and awaited before the run is over."""
    ended: list[str] = []

    class Race(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[A | B]:
            return [A(), B()]

        @step
        async def slow(self, ev: A) -> StopEvent:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                ended.append("slow")
            return StopEvent(result="slow")

        @step
        async def fast(self, ev: B) -> StopEvent:
            await asyncio.sleep(0)
            return StopEvent(result="fast")

    assert await Race().run() == "fast"
    assert ended == ["slow"]


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("plain", [False, True])
async def test_a_sent_stopevent_ends_the_run(plain: bool) -> None:  # noqa: FBT001 because pytest passes it
    """Returned or sent makes no difference, and its sender is cancelled like every other step."""

    class Asynchronous(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.send_event(StopEvent(result="sent"))
            await asyncio.Event().wait()
            return StopEvent(result="returned")

    class Plain(Workflow):
        @step
        def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.send_event(StopEvent(result="sent"))
            return StopEvent(result="returned")

    assert await (Plain() if plain else Asynchronous()).run() == "sent"


async def test_a_stopevent_from_outside_ends_the_run() -> None:
    """The caller may end it with a result."""

    class Waits(Workflow):
        @step
        async def start(self, ev: StartEvent) -> StopEvent:
            await asyncio.Event().wait()
            return StopEvent()

    handler = Waits().run()
    await asyncio.sleep(0)
    handler.ctx.send_event(StopEvent(result="enough"))
    assert await handler == "enough"


async def test_a_stopevent_in_a_list_wins_and_the_others_are_dropped_and_noted() -> None:
    """No step takes the events beside it."""
    ran: list[str] = []

    class Wins(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[A | StopEvent]:
            return [A(), StopEvent(result="won"), A()]

        @step
        async def never(self, ev: A) -> None:
            ran.append("never")

    with record() as seen:
        assert await Wins().run() == "won"
    assert not ran
    dropped = [note for notes in seen.notes.values() for note in notes if note.name == "events_dropped"]
    assert [note.facts["count"] for note in dropped] == [2]


async def test_a_subclass_of_stopevent_is_itself_the_result() -> None:
    """`result` is asked for only where the event is a plain StopEvent."""

    class Verdict(StopEvent):
        score: int

    class Judged(Workflow):
        @step
        async def start(self, ev: StartEvent) -> Verdict:
            return Verdict(score=3)

    verdict = await Judged().run()
    assert isinstance(verdict, Verdict)
    assert verdict.score == 3


@pytest.mark.usefixtures("watched")
async def test_the_exception_of_a_step_reaches_the_caller_with_a_note() -> None:
    """It is the very object, and the note names workflow, run, step and attempt."""
    boom = ValueError("no such city")

    class Fails(Workflow):
        @step
        async def start(self, ev: StartEvent) -> A:
            return A()

        @step(retry_policy=Retry(attempts=2, wait=0))
        async def look_up(self, ev: A) -> StopEvent:
            raise boom

    handler = Fails(name="weather").run()
    with pytest.raises(ValueError, match="no such city") as caught:
        await handler
    assert caught.value is boom
    (note,) = boom.__notes__
    assert note == f"agentflow: in step 'look_up' of workflow 'weather', run {handler.run_id}, attempt 2"


async def test_a_run_that_takes_too_long_is_ended_and_says_what_was_running() -> None:
    """The message names the limit and the steps; the stream ends with what timed out."""
    clock = FakeClock()

    class Slow(Workflow):
        @step
        async def start(self, ev: StartEvent) -> A:
            return A()

        @step
        async def crawl(self, ev: A) -> StopEvent:
            await asyncio.Event().wait()
            return StopEvent()

    with use_clock(clock):
        handler = Slow(timeout=7).run()
        await clock.advance(6.9)
        assert not handler.is_done()
        await clock.advance(0.2)
    with pytest.raises(WorkflowTimeoutError, match="the run of 'Slow' exceeded its time-out of 7 s; running: crawl"):
        await handler
    last = [event async for event in handler.stream_events()][-1]
    assert last.get("active_steps") == ["crawl"]
    assert last.get("timeout") == 7


async def test_a_run_has_no_time_limit_by_default() -> None:
    """A week goes by."""
    clock = FakeClock()

    class Waits(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.wait_for_event(Answer)
            return StopEvent(result="at last")

    with use_clock(clock):
        handler = Waits().run()
        await clock.advance(7 * 86_400)
        handler.ctx.send_event(Answer())
        assert await handler == "at last"


async def test_the_time_limit_ends_with_the_run() -> None:
    """No timer is left behind."""
    clock = FakeClock()

    class Quick(Workflow):
        @step
        async def start(self, ev: StartEvent) -> StopEvent:
            return StopEvent()

    with use_clock(clock):
        await Quick(timeout=60).run()
    assert clock.pending == []


async def test_what_a_step_does_after_the_end_is_dropped_without_an_error() -> None:
    """Sends and stream events of a step that is being cancelled go nowhere."""
    went_on: list[str] = []

    class Race(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[A | B]:
            return [A(), B()]

        @step
        async def slow(self, ctx: Context, ev: A) -> A:
            try:
                await asyncio.Event().wait()
            finally:
                ctx.send_event(A())
                ctx.write_event_to_stream(Done())
                went_on.append("to the end")
            return A()

        @step
        async def fast(self, ev: B) -> StopEvent:
            await asyncio.sleep(0)
            return StopEvent()

    handler = Race().run()
    await handler
    assert went_on == ["to the end"]
    assert [type(event) async for event in handler.stream_events()] == [StopEvent]


# sends


class Two(Workflow):
    """Takes a job in one step and waits for a human in another."""

    @step
    async def start(self, ev: StartEvent) -> Ask | Job:
        return Ask()

    @step
    async def one(self, ev: Job) -> StopEvent:
        return StopEvent(result="one")

    @step
    async def two(self, ev: Job | Answer) -> StopEvent:
        await asyncio.sleep(0)
        return StopEvent(result="two")


class Sends(Workflow):
    """Sends what it is given, and says how that failed."""

    @step
    async def start(self, ctx: Context, ev: StartEvent) -> StopEvent | A:
        try:
            ctx.send_event(ev.get("event"), step=ev.get("step"))
        except WorkflowRuntimeError as error:
            return StopEvent(result=str(error))
        return StopEvent(result="sent")

    @step
    async def takes_a(self, ev: A) -> None:
        pass


async def test_an_event_that_no_step_accepts_raises_in_the_step_that_sent_it() -> None:
    """The message names who sent it, and the steps that there are."""
    said = await Sends().run(event=B())
    assert said.startswith(
        "step 'start' sent a B, which no step of 'Sends' accepts. Its steps: start(StartEvent); takes_a(A)."
    )


async def test_the_message_about_an_event_that_no_step_accepts_names_the_steps_and_what_to_write() -> None:
    """It never vanishes and never hangs the run."""
    said = await Sends().run(event=B())
    assert "sent a B, which no step of 'Sends' accepts. Its steps: start(StartEvent); takes_a(A)." in said
    assert "@step(waits=[B])" in said


async def test_an_event_that_no_step_accepts_raises_in_the_caller_that_sent_it() -> None:
    """And the run goes on."""
    handler = Two().run()
    await asyncio.sleep(0)
    with pytest.raises(WorkflowRuntimeError, match="the caller sent a C, which no step of 'Two' accepts"):
        handler.ctx.send_event(C())
    handler.ctx.send_event(Answer())
    assert await handler == "two"


async def test_sending_to_a_step_that_does_not_exist_names_those_that_do() -> None:
    """A typing error is seen at once."""
    said = await Sends().run(event=A(), step="take_a")
    assert said == "send_event(..., step='take_a'): 'Sends' has no such step. It has: 'start', 'takes_a'."


async def test_sending_to_a_step_that_does_not_accept_the_event_says_what_it_accepts() -> None:
    """The step's own types are named."""
    said = await Sends().run(event=B(), step="takes_a")
    assert said == "send_event(..., step='takes_a'): it does not accept a B, but: A."


async def test_sending_what_is_no_event_says_what_to_write() -> None:
    """Values have to be wrapped."""
    said = await Sends().run(event=3)
    assert said == "send_event(3): only events are sent. Write send_event(MyEvent(...)), one call for each."


@pytest.mark.parametrize("name", ["one", "two"])
async def test_an_event_sent_to_one_step_is_taken_by_that_step_only(name: str) -> None:
    """Without `step` all that accept it would take it."""
    handler = Two().run()
    await asyncio.sleep(0)
    handler.ctx.send_event(Job(), step=name)
    assert await handler == name


async def test_all_steps_that_accept_a_type_take_its_events() -> None:
    """Several steps may accept the same type."""
    ran: list[str] = []

    class All(Workflow):
        @step
        async def start(self, ev: StartEvent) -> A:
            return A()

        @step
        async def one(self, ev: A) -> Done:
            ran.append("one")
            return Done()

        @step
        async def two(self, ev: A) -> Done:
            ran.append("two")
            return Done()

        @step
        async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
            return None if ctx.collect_events(ev, [Done, Done]) is None else StopEvent()

    await All().run()
    assert ran == ["one", "two"]


async def test_the_exact_type_comes_before_a_base_class() -> None:
    """The nearest base class takes what has no step of its own."""

    class Special(A):
        pass

    class Other(A):
        pass

    class Nearest(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[A | Special]:
            return [Special(), Other()]

        @step
        async def special(self, ev: Special) -> Done:
            return Done(by="special")

        @step
        async def base(self, ev: A) -> Done:
            return Done(by="base")

        @step
        async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
            done = ctx.collect_events(ev, [Done, Done])
            return None if done is None else StopEvent(result=[event.by for event in done])

    assert await Nearest().run() == ["special", "base"]


async def test_an_event_sent_after_the_end_raises_and_says_how_to_go_on() -> None:
    """So do stream events from outside."""

    class Quick(Workflow):
        @step
        async def start(self, ev: StartEvent) -> StopEvent:
            return StopEvent()

    handler = Quick().run()
    await handler
    with pytest.raises(
        WorkflowRuntimeError, match="the run of 'Quick' has ended, so an A cannot be sent to it"
    ) as error:
        handler.ctx.send_event(A())
    assert "workflow.run(ctx=handler.ctx)" in str(error.value)
    with pytest.raises(WorkflowRuntimeError, match="has ended"):
        handler.ctx.write_event_to_stream(A())


async def test_an_answer_that_comes_early_is_kept_for_the_wait() -> None:
    """A human may be faster than the step that asks."""
    go = asyncio.Event()

    class Human(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await go.wait()
            answer = await ctx.wait_for_event(Answer)
            return StopEvent(result=answer.text)

    handler = Human().run()
    await asyncio.sleep(0)
    handler.ctx.send_event(Answer(text="early"))
    go.set()
    assert await handler == "early"


async def test_a_thousand_events_are_kept_and_the_next_one_raises_in_its_sender() -> None:
    """Memory is bounded, and nobody loses an event unnoticed."""
    go = asyncio.Event()

    class Human(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await go.wait()
            answer = await ctx.wait_for_event(Answer, requirements={"n": 999})
            return StopEvent(result=answer.n)

    handler = Human().run()
    await asyncio.sleep(0)
    for n in range(1_000):
        handler.ctx.send_event(Answer(n=n))
    with pytest.raises(
        WorkflowRuntimeError, match="1,000 events that no step of 'Human' accepts are kept for a later wait"
    ):
        handler.ctx.send_event(Answer())
    go.set()
    assert await handler == 999


async def test_an_event_named_in_waits_is_kept_until_it_is_awaited() -> None:
    """`@step(waits=[T])` says that it will be."""
    order: list[str] = []

    class Waits(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[A | B]:
            return [A(), B()]

        @step
        async def produces(self, ev: A) -> Job:
            order.append("produced")
            return Job(n=3)

        @step(waits=[Job])
        async def waits(self, ctx: Context, ev: B) -> StopEvent:
            for _ in range(5):
                await asyncio.sleep(0)
            order.append("awaited")
            return StopEvent(result=(await ctx.wait_for_event(Job)).n)

    assert await Waits().run() == 3
    assert order == ["produced", "awaited"]


async def test_an_event_sent_to_one_step_does_not_answer_the_wait_of_another() -> None:
    """It is addressed: whoever waits elsewhere goes on waiting."""

    class Addressed(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[A | Job]:
            return [A(), Job(n=0)]

        @step
        async def waits(self, ctx: Context, ev: A) -> StopEvent:
            return StopEvent(result=(await ctx.wait_for_event(Job, requirements={"n": 1})).to)

        @step
        async def takes(self, ctx: Context, ev: Job) -> Job | None:
            if ev.n == 0:
                await asyncio.sleep(0)
                ctx.send_event(Job(n=1, to="takes"), step="takes")
            elif ev.to == "takes":
                ctx.send_event(Job(n=1, to="all"))
            return None

    assert await Addressed().run() == "all"


async def test_a_required_input_goes_to_the_stream_and_to_the_steps_that_accept_it() -> None:
    """A question is for whoever follows, and for a step that asks for its very type."""
    took: list[Event] = []

    class Asks(Workflow):
        @step
        async def start(self, ev: StartEvent) -> Ask:
            return Ask(prefix="name?")

        @step
        async def watches(self, ev: Ask) -> None:
            took.append(ev)

        @step
        async def end(self, ev: Answer) -> StopEvent:
            return StopEvent(result=ev.text)

    handler = Asks().run()
    async for event in handler.stream_events():
        assert isinstance(event, Ask)
        await asyncio.sleep(0)
        handler.ctx.send_event(Answer(text="Ada"))
        break
    assert await handler == "Ada"
    assert [event.get("prefix") for event in took] == ["name?"]
