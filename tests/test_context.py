"""What a step holds of its run: from its own task, from threads, and from outside."""

from __future__ import annotations

import asyncio
import sys
import threading
from contextvars import ContextVar
from typing import Any

import pytest

from agentflow import (
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Retry,
    StartEvent,
    StateKeyError,
    StopEvent,
    Workflow,
    WorkflowRuntimeError,
    WorkflowTimeoutError,
    step,
)
from agentflow.clock import use_clock
from agentflow.testing import FakeClock

color: ContextVar[str] = ContextVar("color", default="none")


class Job(Event):
    n: int = 0


class Done(Event):
    n: int = 0
    key: str = ""
    id: str = ""


class Ask(InputRequiredEvent):
    pass


class Answer(HumanResponseEvent):
    text: str = ""
    to: str = ""
    n: int = 0


class Waits(Workflow):
    """Stands still until a human answers."""

    @step
    async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
        await ctx.wait_for_event(Answer)
        return StopEvent()


async def test_state_that_one_step_sets_another_one_gets() -> None:
    """Keys are taken as they are, dots and all."""

    class State(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> Job:
            await ctx.set("a.b", [1, 2])
            return Job()

        @step
        async def end(self, ctx: Context, ev: Job) -> StopEvent:
            return StopEvent(result=(await ctx.get("a.b"), await ctx.get("other", default=3)))

    assert await State().run() == ([1, 2], 3)


async def test_a_key_that_the_state_does_not_have_raises_unless_there_is_a_default() -> None:
    """The error is a KeyError too, and names the key."""

    class State(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.get("color")
            return StopEvent()

    with pytest.raises(StateKeyError, match="color"):
        await State().run()


async def test_the_caller_may_fill_the_state_before_the_run() -> None:
    """`Context(workflow)` is a fresh one, for `run(ctx=)`."""

    class State(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await ctx.get("color"))

    flow = State()
    ctx: Context = Context(flow)
    await ctx.set("color", "red")
    handler = flow.run(ctx=ctx)
    assert await handler == "red"
    assert handler.ctx is ctx


async def test_the_methods_of_a_context_are_safe_in_plain_functions() -> None:
    """Sixteen threads send, stream, collect and set at once, and nothing is lost."""
    barrier = threading.Barrier(16)

    class Threads(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[Job]:
            return [Job(n=n) for n in range(16)]

        @step(num_workers=16)
        def work(self, ctx: Context, ev: Job) -> Done | None:
            barrier.wait(timeout=30)
            ctx.write_event_to_stream(Event(n=ev.n))
            ctx.from_thread(ctx.set(f"n{ev.n}", ev.n))
            ctx.send_event(Done(n=ev.n))
            return None

        @step(num_workers=16)
        def join(self, ctx: Context, ev: Done) -> StopEvent | None:
            done = ctx.collect_events(ev, {Done: 16})
            return None if done is None else StopEvent(result=sorted(event.n for event in done))

    handler = Threads().run()
    assert await handler == list(range(16))
    streamed = [event.get("n") async for event in handler.stream_events() if not isinstance(event, StopEvent)]
    assert sorted(streamed) == list(range(16))
    assert [await handler.ctx.get(f"n{n}") for n in range(16)] == list(range(16))


async def test_plain_functions_agree_on_the_id_of_their_run_and_have_keys_of_their_own() -> None:
    """Whoever asks first: sixteen threads at once, a hundred times."""

    class Threads(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[Job]:
            return [Job(n=n) for n in range(16)]

        @step(num_workers=16)
        def work(self, ctx: Context, ev: Job) -> Done:
            barrier.wait(timeout=30)
            return Done(key=ctx.idempotency_key, id=ctx.run_id)

        @step
        async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
            done = ctx.collect_events(ev, {Done: 16})
            return None if done is None else StopEvent(result=[(event.key, event.id) for event in done])

    barrier = threading.Barrier(16)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(100):
            handler = Threads().run()
            keys, ids = zip(*await handler, strict=True)
            assert set(ids) == {handler.run_id}
            assert len(set(keys)) == 16
    finally:
        sys.setswitchinterval(interval)


async def test_a_send_from_a_thread_raises_in_that_thread() -> None:
    """A plain step learns of its mistake where it makes it."""

    class Threads(Workflow):
        @step
        def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
            try:
                ctx.send_event(Job())
            except WorkflowRuntimeError as error:
                return StopEvent(result=str(error))
            return StopEvent()

    assert "sent a Job, which no step of 'Threads' accepts" in await Threads().run()


async def test_a_plain_function_may_wait_for_an_event() -> None:
    """`ctx.from_thread` awaits in the event loop of the run."""

    class Threads(Workflow):
        @step
        def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
            answer = ctx.from_thread(ctx.wait_for_event(Answer, waiter_event=Ask()))
            return StopEvent(result=answer.text)

    handler = Threads().run()
    async for _ in handler.stream_events():
        break
    handler.ctx.send_event(Answer(text="yes"))
    assert await handler == "yes"


async def test_a_plain_function_that_waits_is_released_when_the_run_ends() -> None:
    """Its thread ends: one that stayed would keep the process from ending."""
    clock = FakeClock()
    escape: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waits: list[asyncio.Task[Answer]] = []

    class Threads(Workflow):
        @step
        def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
            async def wait() -> None:
                waits.append(asyncio.create_task(ctx.wait_for_event(Answer, waiter_event=Ask())))
                both: list[asyncio.Future[Any]] = [waits[0], escape]
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)

            ctx.from_thread(wait())
            return StopEvent()

    with use_clock(clock):
        handler = Threads().run()
        async for _ in handler.stream_events():
            break
        _ = handler.cancel_run()
        await clock.advance(10)
    try:
        assert handler.is_done()
        assert waits[0].done()
    finally:
        escape.set_result(None)
        waits[0].cancel()
        await clock.settle()


async def test_from_thread_in_an_async_step_says_what_to_write() -> None:
    """It would wait for its own event loop."""

    class Wrong(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
            coroutine = ctx.get("key", default=None)
            try:
                ctx.from_thread(coroutine)
            finally:
                coroutine.close()
            return StopEvent()

    with pytest.raises(
        WorkflowRuntimeError, match="from_thread is for plain functions; in an async step, write: await"
    ):
        await Wrong().run()


async def test_a_context_is_safe_in_any_other_thread_too() -> None:
    """The caller's threads send, stream and store like the run's own."""
    handler = Waits().run()
    await asyncio.sleep(0)

    def elsewhere() -> str:
        handler.ctx.write_event_to_stream(Event(text="hello"))
        stored = handler.ctx.to_dict()
        handler.ctx.send_event(Answer())
        return str(stored["workflow"])

    assert await asyncio.to_thread(elsewhere) == "Waits"
    await handler
    assert [event.get("text") async for event in handler.stream_events()] == ["hello", None]


async def test_a_send_from_a_thread_carries_the_context_of_that_thread() -> None:
    """The rule for context variables is the same in every thread."""

    class Human(Workflow):
        @step
        async def start(self, ev: StartEvent) -> Ask:
            return Ask()

        @step
        async def end(self, ev: Answer) -> StopEvent:
            return StopEvent(result=color.get())

    handler = Human().run()
    await asyncio.sleep(0)

    def elsewhere() -> None:
        color.set("green")
        handler.ctx.send_event(Answer())

    await asyncio.to_thread(elsewhere)
    assert await handler == "green"


async def test_what_belongs_in_a_step_is_refused_outside() -> None:
    """The caller's context has no buffers and no delivery."""
    handler = Waits().run()
    await asyncio.sleep(0)
    with pytest.raises(WorkflowRuntimeError, match="collect_events belongs in a step"):
        handler.ctx.collect_events(Job(), [Job])
    with pytest.raises(WorkflowRuntimeError, match="this belongs in a step"):
        _ = handler.ctx.idempotency_key
    await handler.cancel_run()


async def test_waiting_outside_of_a_step_says_to_follow_the_stream() -> None:
    """The caller follows the stream instead."""
    handler = Waits().run()
    await asyncio.sleep(0)
    with pytest.raises(WorkflowRuntimeError, match=r"wait_for_event belongs in a step.*handler.stream_events\(\)"):
        await handler.ctx.wait_for_event(Answer)
    await handler.cancel_run()


async def test_a_context_that_has_not_begun_takes_no_events() -> None:
    """The message says what to do first."""
    ctx: Context = Context(Waits())
    with pytest.raises(WorkflowRuntimeError, match=r"has not begun: send an Answer after workflow.run\(ctx=ctx\)"):
        ctx.send_event(Answer())


async def test_a_wait_that_takes_too_long_raises_in_its_step() -> None:
    """The step may go on; the message names step, time and type."""
    clock = FakeClock()

    class Impatient(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
            try:
                await ctx.wait_for_event(Answer, timeout=30)
            except WorkflowTimeoutError as error:
                return StopEvent(result=str(error))
            return StopEvent()

    with use_clock(clock):
        handler = Impatient().run()
        await clock.advance(31)
        assert await handler == "step 'start' of 'Impatient' waited 30 s for an Answer, and none came"


async def test_a_wait_takes_only_what_meets_its_requirements() -> None:
    """Other answers stay for other waits."""

    class Picky(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
            second = await ctx.wait_for_event(Answer, waiter_event=Ask(), requirements={"to": "second"})
            first = await ctx.wait_for_event(Answer)
            return StopEvent(result=[first.to, second.to])

    handler = Picky().run()
    await asyncio.sleep(0)
    handler.ctx.send_event(Answer(to="first"))
    handler.ctx.send_event(Answer(to="second"))
    assert await handler == ["first", "second"]


async def test_a_step_that_waits_goes_on_where_it_stood() -> None:
    """In memory its body is not run again."""
    begun = 0

    class Human(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
            nonlocal begun
            begun += 1
            first = await ctx.wait_for_event(Answer, waiter_event=Ask())
            second = await ctx.wait_for_event(Answer, waiter_event=Ask())
            return StopEvent(result=[first.n, second.n])

    handler = Human().run()
    asked = 0
    async for event in handler.stream_events():
        if isinstance(event, Ask):
            asked += 1
            handler.ctx.send_event(Answer(n=asked))
    assert await handler == [1, 2]
    assert begun == 1


async def test_an_idempotency_key_is_the_same_in_every_attempt_and_differs_between_deliveries() -> None:
    """It names the delivery to the outside."""
    keys: list[str] = []

    class Keys(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[Job]:
            return [Job(n=1), Job(n=2)]

        @step(retry_policy=Retry(wait=0), num_workers=1)
        async def work(self, ctx: Context, ev: Job) -> Done:
            keys.append(ctx.idempotency_key)
            if len(keys) == 1:
                raise ValueError
            return Done()

        @step
        async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
            return None if ctx.collect_events(ev, [Done, Done]) is None else StopEvent()

    await Keys().run()
    assert len(keys) == 3
    assert sorted(keys.count(key) for key in set(keys)) == [1, 2]


async def test_once_calls_a_function_once_over_all_attempts() -> None:
    """Coroutine functions and plain ones, with their arguments."""
    calls: list[str] = []

    async def pay(amount: int) -> int:
        calls.append("pay")
        return amount * 2

    def look_up() -> str:
        calls.append("name")
        return "Ada"

    class Once(Workflow):
        @step(retry_policy=Retry(wait=0))
        async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
            paid = await ctx.once("pay", pay, 21)
            name = await ctx.once("name", look_up)
            if len(calls) == 2:
                calls.append("failed")
                raise ValueError
            return StopEvent(result=(paid, name))

    assert await Once().run() == (42, "Ada")
    assert calls == ["pay", "name", "failed"]


async def test_a_repeated_attempt_sends_nothing_twice() -> None:
    """The n-th send of a type is the same send in every attempt."""
    tries = 0

    class Sends(Workflow):
        @step(retry_policy=Retry(wait=0))
        async def start(self, ctx: Context, ev: StartEvent) -> Job | Done | None:
            nonlocal tries
            tries += 1
            ctx.send_event(Job(n=1))
            if tries == 1:
                raise ValueError
            ctx.send_event(Job(n=2))
            ctx.send_event(Done())
            return None

        @step(num_workers=1)
        async def join(self, ctx: Context, ev: Job | Done) -> StopEvent | None:
            seen = [*await ctx.get("seen", default=[]), ev.n]
            await ctx.set("seen", seen)
            return StopEvent(result=seen) if isinstance(ev, Done) else None

    assert await Sends().run() == [1, 2, 0]


async def test_a_context_says_where_it_is() -> None:
    """Its repr names the workflow and the step."""

    class Says(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=repr(ctx))

    handler = Says().run()
    assert "Says running" in await handler
    assert "in step 'start'" in await handler
    assert "Says ended" in repr(handler.ctx)
