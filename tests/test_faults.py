"""Bad input and faults: each with the message that it gives, and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import pytest

from agentflow import (
    Context,
    Event,
    Handler,
    HumanResponseEvent,
    InputRequiredEvent,
    Resource,
    Retry,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowCancelledByUser,
    WorkflowConfigurationError,
    WorkflowFailedEvent,
    WorkflowRuntimeError,
    WorkflowStalledError,
    WorkflowTimeoutError,
    WorkflowValidationError,
    step,
)
from agentflow.clock import use_clock
from agentflow.delivery import Worker
from agentflow.run import Run, live
from agentflow.testing import FakeClock, record


class Job(Event):
    n: int = 0


class Done(Event):
    n: int = 0


class A(Event):
    release: Any = None


class B(Event):
    pass


class Ask(InputRequiredEvent):
    pass


class Answer(HumanResponseEvent):
    text: str = ""


class Waits(Workflow):
    """Waits for a human."""

    @step
    async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
        return StopEvent(result=(await ctx.wait_for_event(Answer)).text)


async def turn(times: int = 10) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


# what is declared


def test_a_step_without_an_annotation_shows_the_corrected_line() -> None:
    """The event parameter first."""
    with pytest.raises(WorkflowValidationError, match=r"step '.*start' .*'ev'.*start\(self, ev: MyEvent\)"):

        @step  # pyright: ignore[reportUnknownArgumentType]  # because it is the fault
        async def start(self, ev) -> StopEvent:  # type: ignore[no-untyped-def]  # noqa: ANN001 because it is the fault
            return StopEvent()


def test_a_step_without_a_return_annotation_shows_the_corrected_line() -> None:
    """What it produces must be said."""
    with pytest.raises(
        WorkflowValidationError, match=r"no return annotation.*start\(self, ev: StartEvent\) -> StopEvent"
    ):

        @step  # pyright: ignore[reportUnknownArgumentType]  # because it is the fault
        async def start(self, ev: StartEvent):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 because it is the fault
            return StopEvent()


def test_a_step_without_an_event_shows_the_corrected_line() -> None:
    """Nothing could trigger it."""
    with pytest.raises(WorkflowValidationError, match=r"so nothing can trigger it.*start\(self, ev: MyEvent\)"):

        @step  # pyright: ignore[reportUnknownArgumentType]  # because it is the fault
        async def start(self) -> StopEvent:  # type: ignore[no-untyped-def]  # noqa: ANN001 because it is the fault
            return StopEvent()


def refused(cls: type[Workflow[Any, Any]], says: str, kind: type[Exception] = WorkflowValidationError) -> None:
    with pytest.raises(kind, match=says):
        cls().validate()


def test_a_workflow_without_a_start_is_refused() -> None:
    """And told what to write."""

    class NoStart(Workflow):
        @step
        async def one(self, ev: A) -> StopEvent | A:
            return StopEvent()

    refused(
        NoStart, r"no step of 'NoStart' accepts StartEvent.*one\(self, ev: StartEvent\)", WorkflowConfigurationError
    )


def test_a_workflow_without_an_end_is_refused() -> None:
    """And told what to write."""

    class NoStop(Workflow):
        @step
        async def one(self, ev: StartEvent) -> None:
            pass

    refused(NoStop, r"no step of 'NoStop' returns StopEvent.*-> StopEvent", WorkflowConfigurationError)


def test_an_event_that_is_produced_and_not_consumed_is_refused() -> None:
    """It could go nowhere."""

    class Produces(Workflow):
        @step
        async def one(self, ev: StartEvent) -> StopEvent | A:
            return StopEvent()

    refused(Produces, "step 'one' of 'Produces' produces A, which no step accepts")


def test_an_event_that_is_consumed_and_not_produced_is_refused() -> None:
    """Its step could never run."""

    class Consumes(Workflow):
        @step
        async def one(self, ev: StartEvent) -> StopEvent:
            return StopEvent()

        @step
        async def two(self, ev: A) -> StopEvent:
            return StopEvent()

    refused(Consumes, r"step 'two' of 'Consumes' accepts A, which no step produces.* \| A")


def test_steps_that_are_out_of_reach_are_refused() -> None:
    """They feed only each other."""

    class Island(Workflow):
        @step
        async def one(self, ev: StartEvent) -> StopEvent:
            return StopEvent()

        @step
        async def two(self, ev: A) -> B:
            return B()

        @step
        async def three(self, ev: B) -> A:
            return A()

    refused(Island, "no way leads from StartEvent to step 'two', 'three' of 'Island'")


def test_two_types_of_start_event_are_refused() -> None:
    """Fields given to run() would belong to either."""

    class Other(StartEvent):
        pass

    class TwoStarts(Workflow):
        @step
        async def one(self, ev: StartEvent) -> StopEvent:
            return StopEvent()

        @step
        async def two(self, ev: Other) -> StopEvent:
            return StopEvent()

    says = r"'TwoStarts' has two types of start event: StartEvent \(in one\), Other \(in two\)"
    refused(TwoStarts, says, WorkflowConfigurationError)


def test_an_empty_slot_for_a_nested_workflow_is_refused() -> None:
    """And told how to fill it."""

    class Nests(Workflow):
        @step
        async def one(self, ev: StartEvent, inner: Waits) -> StopEvent:
            return StopEvent()

    refused(Nests, r"step 'one' of 'Nests' needs a workflow for 'inner'.*add_workflows\(inner=Waits\(\)\)")


def test_a_resource_whose_factory_makes_something_else_is_refused() -> None:
    """The annotation and the factory must agree."""

    def make() -> int:
        return 3

    def declare() -> Workflow[Any, Any]:
        class Uses(Workflow):
            @step
            async def one(self, ev: StartEvent, name: Annotated[str, Resource(make)]) -> StopEvent:
                return StopEvent()

        return Uses()

    with pytest.raises(
        WorkflowValidationError, match=r"'name' is declared as str, but its factory .*make' returns int"
    ):
        declare().validate()


async def test_fields_that_the_start_event_refuses_are_named() -> None:
    """At run(), before anything begins."""

    class Topic(StartEvent):
        topic: str
        words: int = 3

    class Takes(Workflow):
        @step
        async def one(self, ev: Topic) -> StopEvent:
            return StopEvent()

    with pytest.raises(
        WorkflowRuntimeError, match=r"cannot make a Topic: 'topic': Field required.*run\(topic: str, words: int"
    ):
        _ = Takes().run(words=2)


# what steps return and send


@pytest.mark.parametrize("watched", [False, True])
async def test_a_return_that_was_not_declared_raises_at_that_step(watched: bool) -> None:  # noqa: FBT001 because pytest passes it
    """The message shows the annotation to write."""

    class Undeclared(Workflow):
        @step
        async def one(self, ev: StartEvent) -> StopEvent | A:
            return B()  # type: ignore[return-value]  # it is the fault

        @step
        async def two(self, ev: A) -> StopEvent:
            return StopEvent()

    says = r"step 'one' returned a B, but declares -> (StopEvent \| A|A \| StopEvent). Write: .*-> .* \| B"
    if watched:
        with record() as seen, pytest.raises(WorkflowRuntimeError, match=says):
            await Undeclared().run()
        assert [op.outcome for op in seen.find("step")] == ["error"]
        assert not seen.open()
    else:
        with pytest.raises(WorkflowRuntimeError, match=says):
            await Undeclared().run()


@pytest.mark.parametrize("value", [3, "text", (), {"a": 1}, StopEvent, [3], [None]])
async def test_a_return_that_is_no_event_raises_at_that_step(value: object) -> None:
    """The message shows how to return it."""

    class Plain(Workflow):
        @step
        async def one(self, ev: StartEvent) -> StopEvent:
            return value  # type: ignore[return-value]  # it is the fault

    with pytest.raises(
        WorkflowRuntimeError, match=r"step 'one' returned .*A step returns an event, a list of events or None.*return "
    ):
        await Plain().run()


async def test_none_is_always_a_return_whether_declared_or_not() -> None:
    """A step may only send, or wait until all has come."""

    class Silent(Workflow):
        @step
        async def one(self, ctx: Context, ev: StartEvent) -> A | StopEvent:
            ctx.send_event(A())
            return None  # type: ignore[return-value]  # the documents have it so

        @step
        async def two(self, ev: A) -> StopEvent:
            return StopEvent(result="went on")

    assert await Silent().run() == "went on"


async def test_an_event_that_no_step_accepts_ends_the_run_of_a_careless_sender() -> None:
    """It is the error of the step that sent it."""

    class Careless(Workflow):
        @step
        async def one(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.send_event(A())
            return StopEvent()

    with pytest.raises(WorkflowRuntimeError, match="sent an A, which no step of 'Careless' accepts") as caught:
        await Careless().run()
    assert "in step 'one'" in caught.value.__notes__[0]


# stalls


async def test_a_run_whose_collector_lacks_something_fails_at_once() -> None:
    """The message names step, type and how many."""

    class Lacks(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[A | B]:
            return [A(), A(), B()]

        @step
        async def join(self, ctx: Context, ev: A | B) -> StopEvent | None:
            return None if ctx.collect_events(ev, [A, A, A, B, B]) is None else StopEvent()

    with pytest.raises(WorkflowStalledError) as caught:
        await Lacks().run()
    assert str(caught.value) == (
        "the run of 'Lacks' can never go on: step 'join' lacks 1 of 3 A, 1 of 2 B. So far it ran: start x1, join x3."
    )


async def test_a_stalled_buffer_is_named() -> None:
    """Where a step has several."""

    class Lacks(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> StopEvent | None:
            return None if ctx.collect_events(ev, {StartEvent: 2}, buffer_id="pairs") is None else StopEvent()

    with pytest.raises(WorkflowStalledError, match=r"step 'start' \(buffer 'pairs'\) lacks 1 of 2 StartEvent"):
        await Lacks().run()


async def test_a_run_whose_step_waits_for_what_nobody_sends_fails_at_once() -> None:
    """If only its own steps could send it, and none is running."""

    class Lacks(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[A | B]:
            return [A(), B()]

        @step
        async def waits(self, ctx: Context, ev: A) -> StopEvent:
            await ctx.wait_for_event(Job)
            return StopEvent()

        @step
        async def forgets(self, ev: B) -> Job | None:
            await asyncio.sleep(0)
            return None

        @step
        async def takes(self, ev: Job) -> None:
            pass

    with (
        record() as seen,
        pytest.raises(WorkflowStalledError, match=r"step 'waits' waits for Job\. So far it ran: start x1"),
    ):
        await Lacks().run()
    assert [op.outcome for op in seen.find("step", "waits")] == ["cancelled"]
    assert only_run(seen).outcome == "error"


def only_run(seen: Any) -> Any:
    (run,) = seen.find("run")
    return run


async def test_a_run_in_which_nothing_happens_any_more_fails_at_once() -> None:
    """No step, no event, no StopEvent."""

    class Stops(Workflow):
        @step
        async def start(self, ev: StartEvent) -> StopEvent | None:
            return None

    handler = Stops().run()
    with pytest.raises(
        WorkflowStalledError,
        match=r"no step is running, no event is on its way, and no StopEvent was returned\. So far it ran: start x1",
    ):
        await handler
    last = [event async for event in handler.stream_events()][-1]
    assert isinstance(last, WorkflowFailedEvent)
    assert last.exception_type == "agentflow.errors.WorkflowStalledError"
    assert last.step is None


async def test_a_run_whose_queue_stands_behind_waiting_steps_fails_at_once() -> None:
    """What could answer the waits has no slot."""

    class Blocked(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[A]:
            return [A(), A(), A()]

        @step(num_workers=1)
        async def waits(self, ctx: Context, ev: A) -> Job | StopEvent:
            await ctx.wait_for_event(Job)
            return StopEvent()

        @step
        async def takes(self, ev: Job) -> None:
            pass

    with pytest.raises(
        WorkflowStalledError, match="step 'waits' waits for Job; 2 more wait for a free slot of step 'waits'"
    ):
        await Blocked().run()


async def assert_goes_on(handler: Handler[Any]) -> None:
    await turn(50)
    assert not handler.is_done()


async def test_a_run_that_returned_a_question_is_not_stalled() -> None:
    """A human may answer next month."""

    class Human(Workflow):
        @step
        async def start(self, ev: StartEvent) -> Ask:
            return Ask()

        @step
        async def end(self, ev: Answer) -> StopEvent:
            return StopEvent(result="answered")

    handler = Human().run()
    await assert_goes_on(handler)
    handler.ctx.send_event(Answer())
    assert await handler == "answered"


async def test_a_run_that_waits_for_a_human_is_not_stalled() -> None:
    """The same, in a wait."""
    handler = Waits().run()
    await assert_goes_on(handler)
    handler.ctx.send_event(Answer(text="answered"))
    assert await handler == "answered"


async def test_a_run_that_waits_for_a_type_that_no_step_produces_is_not_stalled() -> None:
    """It can come only from outside."""

    class External(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.wait_for_event(Job)
            return StopEvent(result="came")

    handler = External().run()
    await assert_goes_on(handler)
    handler.ctx.send_event(Job())
    assert await handler == "came"


async def test_a_run_whose_wait_has_a_time_limit_is_not_stalled() -> None:
    """The timer goes off some day."""
    clock = FakeClock()

    class Timed(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> Job | StopEvent:
            try:
                await ctx.wait_for_event(Job, timeout=60)
            except WorkflowTimeoutError:
                return StopEvent(result="gave up")
            return StopEvent()

        @step
        async def takes(self, ev: Job) -> None:
            pass

    with use_clock(clock):
        handler = Timed().run()
        await assert_goes_on(handler)
        await clock.advance(61)
        assert await handler == "gave up"


async def test_a_run_whose_retry_sleeps_is_not_stalled() -> None:
    """A timer is something that will happen."""
    clock = FakeClock()
    tries = 0

    class Flaky(Workflow):
        @step(retry_policy=Retry(wait=3_600))
        async def start(self, ev: StartEvent) -> StopEvent:
            nonlocal tries
            tries += 1
            if tries == 1:
                raise ValueError
            return StopEvent(result=tries)

    with use_clock(clock):
        handler = Flaky().run()
        await assert_goes_on(handler)
        await clock.advance(3_600)
        assert await handler == 2


async def test_a_run_whose_waiting_step_has_a_time_limit_is_not_stalled() -> None:
    """The limit is a timer: its step fails with it, and a retry may help."""
    clock = FakeClock()
    tries = 0

    class Limited(Workflow):
        @step(timeout=60, retry_policy=Retry(wait=0))
        async def start(self, ctx: Context, ev: StartEvent) -> Job | StopEvent:
            nonlocal tries
            tries += 1
            if tries == 1:
                await ctx.wait_for_event(Job)
            return StopEvent(result=tries)

        @step
        async def takes(self, ev: Job) -> None:
            pass

    with use_clock(clock):
        handler = Limited().run()
        await assert_goes_on(handler)
        await clock.advance(61)
        assert await handler == 2


async def test_a_run_whose_child_goes_on_is_not_stalled() -> None:
    """Whoever awaits the child will go on."""
    children: list[Handler[Any]] = []

    class Parent(Workflow):
        @step
        async def start(self, ev: StartEvent) -> A | StopEvent:
            children.append(Waits().run())
            return A()

        @step
        async def waits(self, ctx: Context, ev: A) -> Job | StopEvent:
            await ctx.wait_for_event(Job)
            return StopEvent()

        @step
        async def takes(self, ev: Job) -> None:
            pass

    handler = Parent().run()
    await assert_goes_on(handler)
    children[0].ctx.send_event(Answer())
    with pytest.raises(WorkflowStalledError, match="step 'waits' waits for Job"):
        await handler


async def test_a_step_that_catches_the_error_of_its_question_is_still_running() -> None:
    """A wait that could not begin is no wait."""
    go = asyncio.Event()

    class Wrong(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[A | B]:
            return [A(), B()]

        @step
        async def asks(self, ctx: Context, ev: A) -> Job | StopEvent:
            with pytest.raises(WorkflowRuntimeError, match="only events are written"):
                await ctx.wait_for_event(Job, waiter_event="what?")  # type: ignore[arg-type]  # it is the fault
            await go.wait()
            return StopEvent(result="went on")

        @step
        async def other(self, ev: B) -> None:
            await asyncio.sleep(0)

        @step
        async def takes(self, ev: Job) -> None:
            pass

    handler = Wrong().run()
    await assert_goes_on(handler)
    go.set()
    assert await handler == "went on"


# steps that misbehave


class Boom(BaseException):
    """No Exception."""


@pytest.mark.parametrize("plain", [False, True])
async def test_a_baseexception_reaches_the_caller(plain: bool) -> None:  # noqa: FBT001 because pytest passes it
    """It is not tried again, and the others are cancelled."""
    boom = Boom("as it is")

    class Asynchronous(Workflow):
        @step(retry_policy=Retry(wait=0, on=BaseException))
        async def start(self, ev: StartEvent) -> StopEvent:
            raise boom

    class Plain(Workflow):
        @step(retry_policy=Retry(wait=0, on=BaseException))
        def start(self, ev: StartEvent) -> StopEvent:
            raise boom

    handler = (Plain if plain else Asynchronous)().run()
    with pytest.raises(Boom) as caught:
        await handler
    assert caught.value is boom
    assert "attempt 1" in boom.__notes__[0]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("plain", [False, True])
def test_an_interrupt_in_a_step_stops_the_event_loop_and_ends_the_run(
    kind: type[BaseException],
    plain: bool,  # noqa: FBT001 because pytest passes it
) -> None:
    """As in any other task; nothing of the run is left."""

    class Asynchronous(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[A | B]:
            return [A(), B()]

        @step
        async def other(self, ev: A) -> None:
            await asyncio.Event().wait()

        @step
        async def interrupted(self, ev: B) -> StopEvent:
            await asyncio.sleep(0)
            raise kind

    class Plain(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[A | B]:
            return [A(), B()]

        @step
        async def other(self, ev: A) -> None:
            await asyncio.Event().wait()

        @step
        def interrupted(self, ev: B) -> StopEvent:
            raise kind

    handlers: list[Handler[Any]] = []

    async def main() -> None:
        handlers.append((Plain if plain else Asynchronous)().run())
        await handlers[0]

    before = set(live)
    with record() as seen, pytest.raises(kind):
        asyncio.run(main())
    assert handlers[0].is_done()
    assert isinstance(handlers[0].exception(), kind)
    assert live == before
    assert not seen.open()


async def test_a_stopiteration_of_a_plain_step_is_its_error() -> None:
    """As in a coroutine, it becomes a RuntimeError."""

    class Exhausted(Workflow):
        @step
        def start(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=next(iter([])))

    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    handler = Exhausted().run()
    while not handler.is_done() and not errors:  # noqa: ASYNC110 because either may come
        await asyncio.sleep(0)
    if not handler.is_done():
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
    assert not errors
    with pytest.raises(RuntimeError, match="StopIteration"):
        await handler


async def test_an_error_that_cannot_be_shown_is_still_the_error() -> None:
    """Its text is asked for with care."""

    class UnspeakableError(ValueError):
        def __str__(self) -> str:
            msg = "no text"
            raise RuntimeError(msg)

    class Fails(Workflow):
        @step
        async def start(self, ev: StartEvent) -> StopEvent:
            raise UnspeakableError

    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    handler = Fails().run()
    await turn(30)
    assert isinstance(handler.exception(), UnspeakableError)
    assert not errors


class Stubborn(Workflow):
    """One step ignores its cancellation until it is released; it then does what it can to be noticed."""

    cancel_grace = 2.0

    @step
    async def start(self, ev: StartEvent) -> list[A | B]:
        return [A(release=ev.get("release")), B()]

    @step
    async def stubborn(self, ctx: Context, ev: A) -> A:
        while not ev.release.is_set():
            try:
                await ev.release.wait()
            except asyncio.CancelledError:
                continue
        ctx.send_event(A())
        ctx.write_event_to_stream(Done())
        await ctx.set("late", value=True)
        return A()

    @step
    async def fast(self, ev: B) -> StopEvent:
        await asyncio.sleep(0)
        return StopEvent(result="fast")


async def test_a_step_that_ignores_its_cancellation_for_a_while_is_awaited(caplog: pytest.LogCaptureFixture) -> None:
    """Within its grace the run is not over."""
    clock, release = FakeClock(), asyncio.Event()
    with use_clock(clock):
        handler = Stubborn().run(release=release)
        await clock.advance(1.9)
        assert not handler.is_done()
        release.set()
        await clock.settle()
        assert await handler == "fast"
    assert not caplog.records
    assert clock.pending == []


async def test_a_step_that_ignores_its_cancellation_for_too_long_is_left_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With a warning that names it."""
    clock, release = FakeClock(), asyncio.Event()
    with use_clock(clock):
        handler = Stubborn().run(release=release)
        await clock.advance(2.1)
        assert await handler == "fast"
    (logged,) = caplog.records
    assert (logged.name, logged.levelno) == ("agentflow", logging.WARNING)
    assert (
        vars(logged)["event"] == "steps ignored their cancellation and were left behind; what they still do is dropped"
    )
    assert vars(logged)["steps"] == ["stubborn"]
    assert vars(logged)["workflow"] == "Stubborn"
    assert vars(logged)["seconds"] == 2.0
    release.set()
    await turn()
    assert [type(event) async for event in handler.stream_events()] == [StopEvent]


async def test_what_a_step_that_was_left_behind_writes_to_the_state_is_dropped() -> None:
    """Another run may go on with that state meanwhile."""
    clock, release = FakeClock(), asyncio.Event()
    with use_clock(clock):
        handler = Stubborn().run(release=release)
        await clock.advance(2.1)
        await handler
    release.set()
    await turn()
    assert await handler.ctx.get("late", default=False) is False


# cancelling


async def test_a_run_that_is_cancelled_while_its_steps_run_awaits_their_clean_up() -> None:
    """Each sees CancelledError."""
    cleaned: list[int] = []

    class Busy(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[Job]:
            return [Job(n=n) for n in range(3)]

        @step
        async def work(self, ev: Job) -> StopEvent:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                cleaned.append(ev.n)
            return StopEvent()

    handler = Busy().run()
    await turn()
    await handler.cancel_run()
    assert sorted(cleaned) == [0, 1, 2]
    with pytest.raises(WorkflowCancelledByUser, match="the run of 'Busy' was cancelled"):
        await handler


async def test_a_run_that_is_cancelled_while_a_thread_works_waits_for_it() -> None:
    """A thread cannot be interrupted; what it returns is dropped."""
    begun, release = threading.Event(), threading.Event()

    class Busy(Workflow):
        @step
        def start(self, ev: StartEvent) -> StopEvent:
            begun.set()
            release.wait(30)
            return StopEvent(result="late")

    handler = Busy().run()
    while not begun.is_set():  # noqa: ASYNC110 because another thread sets it
        await asyncio.sleep(0)
    ended = handler.cancel_run()
    await turn()
    assert not handler.is_done()
    release.set()
    await ended
    with pytest.raises(WorkflowCancelledByUser):
        await handler


async def test_a_run_that_is_cancelled_while_a_retry_sleeps_ends_at_once() -> None:
    """And no timer is left."""
    clock = FakeClock()

    class Flaky(Workflow):
        @step(retry_policy=Retry(wait=3_600))
        async def start(self, ev: StartEvent) -> StopEvent:
            raise ValueError

    with use_clock(clock):
        handler = Flaky().run()
        await turn()
        assert clock.pending == [3_600]
        await handler.cancel_run()
        assert clock.pending == []
    with pytest.raises(WorkflowCancelledByUser):
        await handler


@pytest.mark.parametrize("how", ["cancelled", "failed", "stopped", "timed out"])
async def test_an_open_resource_is_torn_down_however_the_run_ends(how: str) -> None:
    """What follows the yield runs on every path, before the run is over."""
    clock = FakeClock()
    said: list[str] = []

    async def connect() -> AsyncIterator[str]:
        said.append("open")
        yield "connection"
        await asyncio.sleep(0)
        said.append("closed")

    def connect_plainly() -> Iterator[str]:
        said.append("open")
        yield "connection"
        said.append("closed")

    class Uses(Workflow):
        @step
        async def start(
            self,
            ev: StartEvent,
            one: Annotated[str, Resource(connect)],
            two: Annotated[str, Resource(connect_plainly)],
        ) -> StopEvent:
            if how == "failed":
                msg = "failed"
                raise ValueError(msg)
            if how != "stopped":
                await asyncio.Event().wait()
            return StopEvent()

    with use_clock(clock):
        handler = Uses(timeout=10).run()
        await clock.settle()
        if how == "cancelled":
            _ = handler.cancel_run()
        if how == "timed out":
            await clock.advance(11)
        await clock.settle()
        assert handler.is_done()
    assert said == ["open", "open", "closed", "closed"]
    error = handler.exception()
    assert type(error).__name__ == {
        "cancelled": "WorkflowCancelledByUser",
        "failed": "ValueError",
        "stopped": "NoneType",
        "timed out": "WorkflowTimeoutError",
    }.get(how)


async def test_a_follower_that_is_closed_from_another_task_leaves_nothing_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its iteration ends; the run and the other followers go on."""
    handler = Waits().run()
    mine, other = handler.subscribe(), handler.subscribe()

    async def follow(subscription: Any) -> list[Event]:
        return [event async for event in subscription]

    tasks = [asyncio.create_task(follow(mine)), asyncio.create_task(follow(other))]
    await turn()
    await asyncio.create_task(mine.aclose())
    assert await tasks[0] == []
    assert not tasks[1].done()
    handler.ctx.send_event(Answer())
    await handler
    assert [type(event) for event in await tasks[1]] == [StopEvent]
    await turn()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert not caplog.records


# one workflow object, many runs


async def test_two_runs_of_one_workflow_object_share_nothing_but_the_object() -> None:
    """State, buffers, slots and streams belong to the run."""

    class Counts(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> list[Job]:
            await ctx.set("base", ev.get("base"))
            return [Job(n=n) for n in range(3)]

        @step(num_workers=1)
        async def work(self, ctx: Context, ev: Job) -> Done:
            await asyncio.sleep(0)
            ctx.write_event_to_stream(Job(n=ev.n))
            return Done(n=ev.n + await ctx.get("base"))

        @step
        async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
            done = ctx.collect_events(ev, [Done] * 3)
            return None if done is None else StopEvent(result=[event.n for event in done])

    flow = Counts()
    handlers = [flow.run(base=base) for base in (10, 20)]
    assert [await handler for handler in handlers] == [[10, 11, 12], [20, 21, 22]]
    for handler in handlers:
        assert [event.get("n") async for event in handler.stream_events()] == [0, 1, 2, None]


class Everything(Workflow):
    """A bit of all: a resource, a thread, a fan-out, a join, a wait."""

    @step
    async def start(self, ev: StartEvent) -> list[Job]:
        return [Job(n=n) for n in range(3)]

    @step
    def work(self, ctx: Context, ev: Job) -> Done:
        ctx.write_event_to_stream(Done(n=ev.n))
        return Done(n=ev.n)

    @step
    async def join(self, ctx: Context, ev: Done) -> Ask | None:
        return None if ctx.collect_events(ev, {Done: 3}) is None else Ask()

    @step
    async def end(self, ctx: Context, ev: Answer) -> StopEvent:
        return StopEvent(result=ev.text)


async def go_through(flow: Everything, text: str) -> str:
    handler = flow.run()
    async for event in handler.stream_events():
        if isinstance(event, Ask):
            handler.ctx.send_event(Answer(text=text))
    return str(await handler)


def test_one_workflow_object_can_be_used_from_one_event_loop_after_another() -> None:
    """Nothing of the first loop is touched in the second."""
    flow = Everything(num_concurrent_runs=1)
    assert [asyncio.run(go_through(flow, text)) for text in ("one", "two", "three")] == ["one", "two", "three"]


def test_one_workflow_object_can_be_used_from_several_event_loops_at_once() -> None:
    """Each in a thread of its own, also where they share a limit on runs."""
    flow, limited = Everything(), Everything(num_concurrent_runs=1)
    barrier = threading.Barrier(2)
    results: dict[str, list[str]] = {}

    async def main(name: str) -> list[str]:
        return [await go_through(which, name) for which in (flow, limited) for _ in range(20)]

    def thread(name: str) -> None:
        barrier.wait(30)
        results[name] = asyncio.run(main(name))

    threads = [threading.Thread(target=thread, args=(name,)) for name in ("one", "two")]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert results == {name: [name] * 40 for name in ("one", "two")}


# nothing is left


def test_runs_that_are_going_when_their_event_loop_ends_are_cancelled() -> None:
    """Their operations end, and nothing holds them."""
    handlers: list[Handler[Any]] = []

    class Sleeps(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[A]:
            return [A(), A()]

        @step
        async def sleep(self, ev: A) -> StopEvent:
            await asyncio.Event().wait()
            return StopEvent()

    async def main() -> None:
        handlers.extend([Sleeps().run(), Waits().run()])
        await turn()
        handlers.append(Sleeps().run())

    before = set(live)
    with record() as seen:
        asyncio.run(main())
    assert [handler.is_done() for handler in handlers] == [True] * 3
    assert {type(handler.exception()) for handler in handlers} == {WorkflowCancelledByUser}
    assert live == before
    assert not seen.open()


def test_runs_that_wait_without_a_task_when_their_event_loop_ends_are_not_kept() -> None:
    """Neither one that waits for a human, nor one whose retry sleeps."""

    class Human(Workflow):
        @step
        async def start(self, ev: StartEvent) -> Ask:
            return Ask()

        @step
        async def end(self, ev: Answer) -> StopEvent:
            return StopEvent()

    class Flaky(Workflow):
        @step(retry_policy=Retry(wait=3_600))
        async def start(self, ev: StartEvent) -> StopEvent:
            raise ValueError

    async def main() -> None:
        _ = Human().run()
        _ = Flaky().run()
        await turn()

    before = set(live)
    try:
        asyncio.run(main())
        asyncio.run(go_through(Everything(), "another loop"))
        gc.collect()
        assert live == before
    finally:
        live.intersection_update(before)


def left() -> dict[str, int]:
    """How many objects of a run are alive."""
    gc.collect()
    kinds = (Run, Context, Handler, Worker, StopEvent)
    return {kind.__name__: sum(type(found) is kind for found in gc.get_objects()) for kind in kinds}


async def test_ten_thousand_runs_leave_nothing_behind() -> None:
    """No task, no context, no run; also where they fail, are cancelled, or wait for each other."""

    class Small(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> Job:
            await ctx.set("n", ev.get("n"))
            return Job(n=ev.get("n"))

        @step
        async def end(self, ctx: Context, ev: Job) -> StopEvent:
            if ev.n % 4 == 1:
                await asyncio.sleep(0)
            if ev.n % 4 == 2:
                msg = "on purpose"
                raise ValueError(msg)
            if ev.n % 4 == 3:
                await ctx.wait_for_event(Answer)
            return StopEvent(result=ev.n)

    async def one(n: int) -> None:
        handler = flow.run(n=n)
        try:
            if n % 4 == 3:
                await turn(3)
                await handler.cancel_run()
            await handler
        except (ValueError, WorkflowCancelledByUser):
            pass

    flow = Small()
    await one(0)
    before, tasks, running = left(), asyncio.all_tasks(), set(live)
    for hundred in range(100):
        await asyncio.gather(*(one(100 * hundred + n) for n in range(100)))
    assert asyncio.all_tasks() == tasks
    assert live == running
    now = left()
    assert not {name: many for name, many in now.items() if many > before[name]}  # what others left may go meanwhile


async def test_a_run_that_has_ended_is_freed_without_the_garbage_collector() -> None:
    """Memory does not wait for a sweep."""

    class Small(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> Job:
            return Job()

        @step
        async def end(self, ev: Job) -> StopEvent:
            return StopEvent()

    flow = Small()
    await flow.run()
    before = left()
    gc.disable()
    try:
        for _ in range(10):
            await flow.run()
        kinds = (Run, Context, Handler, Worker)
        assert {k.__name__: sum(type(o) is k for o in gc.get_objects()) for k in kinds} == {
            k.__name__: before[k.__name__] for k in kinds
        }
    finally:
        gc.enable()


async def test_a_teardown_that_never_ends_does_not_keep_the_run_from_ending(caplog: pytest.LogCaptureFixture) -> None:
    """It is left behind after the same grace as a step, and the result stands."""

    async def stuck() -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    class Uses(Workflow):
        @step
        async def start(self, ev: StartEvent, one: Annotated[int, Resource(stuck)]) -> StopEvent:
            return StopEvent(result=one)

    with use_clock(FakeClock()) as clock:
        handler = Uses().run()
        await clock.advance(4.9)
        assert not handler.is_done()
        await clock.advance(0.2)
        assert await handler == 1
    assert "the teardown of a resource took too long and was left behind" in caplog.text
