"""What the caller holds of a run: awaiting, cancelling, continuing, children, plain code."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import threading
from contextvars import ContextVar
from typing import Any

import pytest

from agentflow import (
    Context,
    ContextSerdeError,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowCancelledByUser,
    WorkflowCancelledEvent,
    WorkflowFailedEvent,
    WorkflowRuntimeError,
    WorkflowTimeoutError,
    step,
)
from agentflow.clock import use_clock
from agentflow.testing import FakeClock, record

color: ContextVar[str] = ContextVar("color", default="none")


class Job(Event):
    pass


class News(Event):
    text: str = ""


class Answer(HumanResponseEvent):
    text: str = ""


class Echo(Workflow):
    """Returns what it is given."""

    @step
    async def start(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=ev.get("text"))


class Waits(Workflow):
    """Waits until somebody answers."""

    @step
    async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
        answer = await ctx.wait_for_event(Answer)
        return StopEvent(result=answer.text)


class Fails(Workflow):
    """Raises."""

    @step
    async def start(self, ev: StartEvent) -> StopEvent:
        msg = "no luck"
        raise ValueError(msg)


class Counts(Workflow):
    """Counts its runs in its state."""

    @step
    async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
        count = await ctx.get("count", default=0) + 1
        await ctx.set("count", count)
        return StopEvent(result=count)


async def turn(times: int = 10) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


# the handler itself


async def test_run_returns_at_once() -> None:
    """Nothing has been executed yet, and a handler is there."""
    handler = Echo().run(text="hello")
    assert not handler.is_done()
    assert await handler == "hello"
    assert handler.is_done()


async def test_a_handler_can_be_awaited_again_and_by_many() -> None:
    """All of them get the same result."""
    handler = Waits().run()

    async def wait() -> Any:
        return await handler

    waiting = [asyncio.create_task(wait()) for _ in range(3)]
    await turn()
    handler.ctx.send_event(Answer(text="yes"))
    assert await asyncio.gather(*waiting) == ["yes"] * 3
    assert await handler == handler.result() == "yes"
    assert handler.exception() is None


async def test_every_run_has_an_id_of_its_own() -> None:
    """Two runs of one workflow object go on side by side."""
    flow = Waits()
    one, two = flow.run(), flow.run()
    assert one.run_id != two.run_id
    assert one.ctx.run_id == one.run_id
    await turn()
    two.ctx.send_event(Answer(text="two"))
    one.ctx.send_event(Answer(text="one"))
    assert [await one, await two] == ["one", "two"]


async def test_asking_for_the_result_too_early_says_to_await() -> None:
    """So does asking for the exception."""
    handler = Waits().run()
    for ask in (handler.result, handler.exception):
        with pytest.raises(WorkflowRuntimeError, match=r"has not ended\. Write: result = await handler"):
            ask()
    await handler.cancel_run()


async def test_a_failed_run_raises_for_who_awaits_it_and_ends_its_stream() -> None:
    """The last event of the stream says what happened."""
    handler = Fails().run()
    with pytest.raises(ValueError, match="no luck"):
        await handler
    assert isinstance(handler.exception(), ValueError)
    with pytest.raises(ValueError, match="no luck"):
        handler.result()
    last = [event async for event in handler.stream_events()][-1]
    assert isinstance(last, WorkflowFailedEvent)
    assert (last.step, last.exception_type, last.message, last.attempts) == (
        "start",
        "builtins.ValueError",
        "no luck",
        1,
    )


async def test_a_failure_that_nobody_awaits_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """One warning with the traceback, when the last one who could have asked is gone."""
    handler = Fails().run()
    await turn()
    assert not caplog.records
    del handler
    gc.collect()
    (logged,) = caplog.records
    assert (logged.name, logged.levelno) == ("agentflow", logging.WARNING)
    assert vars(logged)["event"] == "a run failed and nobody awaited it"
    assert logged.exc_info is not None
    assert isinstance(logged.exc_info[1], ValueError)


async def test_a_failure_whose_handler_is_gone_before_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The warning comes at the end of the run."""
    handler = Fails().run()
    del handler
    await turn()
    gc.collect()
    assert [vars(logged)["event"] for logged in caplog.records] == ["a run failed and nobody awaited it"]


def test_a_handler_that_the_interpreter_takes_down_makes_no_noise() -> None:
    program = """
import asyncio, builtins
from agentflow import StartEvent, StopEvent, Workflow, step

class Fails(Workflow):
    @step
    async def fail(self, ev: StartEvent) -> StopEvent:
        raise ValueError

async def main():
    builtins.handler = Fails().run()  # outlives what the warning would need
    await asyncio.sleep(0)
    await asyncio.sleep(0)

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


async def test_a_failure_that_was_asked_for_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Neither is a cancelled run."""
    handler = Fails().run()
    await asyncio.wait([asyncio.ensure_future(_settled(handler))])
    cancelled = Waits().run()
    await turn()
    await cancelled.cancel_run()
    del handler, cancelled
    gc.collect()
    assert not caplog.records


async def _settled(handler: Any) -> BaseException | None:
    try:
        await handler
    except ValueError as error:
        return error
    return None


async def test_a_caller_who_is_cancelled_while_awaiting_leaves_the_run_going() -> None:
    """Only `cancel_run` cancels."""
    handler = Waits().run()

    async def wait() -> Any:
        return await handler

    waiting = asyncio.create_task(wait())
    await turn()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not handler.is_done()
    handler.ctx.send_event(Answer(text="still here"))
    assert await handler == "still here"


async def test_cancelling_a_run_ends_it_with_an_error_and_an_event_of_its_own() -> None:
    """Awaiting what `cancel_run` returns waits for the end and raises nothing."""
    handler = Waits().run()
    await turn()
    await handler.cancel_run()
    assert handler.is_done()
    with pytest.raises(WorkflowCancelledByUser, match="the run of 'Waits' was cancelled"):
        await handler
    assert [type(event) async for event in handler.stream_events()] == [WorkflowCancelledEvent]


async def test_a_run_can_be_cancelled_before_its_first_step_began() -> None:
    """No step of it runs then."""
    ran = False

    class Never(Workflow):
        @step
        async def start(self, ev: StartEvent) -> StopEvent:
            nonlocal ran
            ran = True
            return StopEvent()

    with record() as seen:
        handler = Never().run()
        await handler.cancel_run()
        await turn()
    with pytest.raises(WorkflowCancelledByUser):
        await handler
    assert not ran
    assert [op.outcome for op in seen.find("run")] == ["cancelled"]


async def test_cancelling_a_run_that_has_ended_changes_nothing() -> None:
    """The result stays."""
    handler = Echo().run(text="done")
    await handler
    await handler.cancel_run()
    assert await handler == "done"


async def test_a_run_can_be_cancelled_from_another_thread() -> None:
    """The handler brings it to the run's event loop."""
    handler = Waits().run()
    await turn()
    _ = await asyncio.to_thread(handler.cancel_run)
    with pytest.raises(WorkflowCancelledByUser):
        await handler


async def test_a_run_can_be_awaited_in_another_event_loop() -> None:
    """The answer comes to the loop of who awaits."""
    handler = Waits().run()
    begun = threading.Event()

    async def elsewhere() -> Any:
        begun.set()
        return await handler

    answer = asyncio.get_running_loop().run_in_executor(None, lambda: asyncio.run(elsewhere()))
    while not begun.is_set():  # noqa: ASYNC110 because another thread sets it
        await asyncio.sleep(0)
    handler.ctx.send_event(Answer(text="here"))
    assert await answer == "here"


# continuing


async def test_the_context_of_a_run_that_has_ended_goes_on_with_its_state() -> None:
    """A new run with an id of its own, and the old state."""
    flow = Counts()
    first = flow.run()
    first_id = first.run_id
    assert await first == 1
    second = flow.run(ctx=first.ctx)
    assert second.run_id != first_id
    assert await second == 2
    assert await flow.run(ctx=second.ctx) == 3
    assert await flow.run() == 1


async def test_the_context_of_a_failed_or_cancelled_run_goes_on_too() -> None:
    """However it ended, its state is there."""

    class Ends(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
            count = await ctx.get("count", default=0) + 1
            await ctx.set("count", count)
            if count == 1:
                msg = "failed"
                raise ValueError(msg)
            if count == 2:
                await asyncio.Event().wait()
            return StopEvent(result=count)

    flow = Ends()
    handler = flow.run()
    with pytest.raises(ValueError, match="failed"):
        await handler
    handler = flow.run(ctx=handler.ctx)
    await turn()
    await handler.cancel_run()
    assert await flow.run(ctx=handler.ctx) == 3


async def test_the_context_of_a_run_that_goes_on_is_refused() -> None:
    """Two runs would share what is under way."""
    flow = Waits()
    handler = flow.run()
    await turn()
    with pytest.raises(WorkflowRuntimeError, match="the run of 'Waits' that this context belongs to is still going"):
        _ = flow.run(ctx=handler.ctx)
    await handler.cancel_run()


async def test_the_context_of_a_step_is_refused() -> None:
    """It belongs to the run that is going on."""

    class Nests(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await Echo().run(ctx=ctx))

    with pytest.raises(WorkflowRuntimeError, match="was given the context of a step"):
        await Nests().run()


async def test_the_context_of_another_workflow_is_refused() -> None:
    """Its state is not this workflow's, whether its run has ended or not begun."""
    flow = Counts()
    with pytest.raises(WorkflowRuntimeError, match="belongs to 'Counts', not to 'Echo'"):
        _ = Echo().run(ctx=Context(flow))
    handler = flow.run()
    await handler
    with pytest.raises(WorkflowRuntimeError, match="belongs to 'Counts', not to 'Echo'"):
        _ = Echo().run(ctx=handler.ctx)


async def test_running_without_an_event_loop_says_what_to_write() -> None:
    """In plain code it is run_sync."""

    def plain() -> None:
        with pytest.raises(WorkflowRuntimeError, match=r"needs a running event loop.*run_sync"):
            _ = Echo().run(text="x")

    await asyncio.to_thread(plain)


# plain code


def test_run_sync_returns_the_result_in_plain_code() -> None:
    """No event loop is needed."""
    assert Echo().run_sync(text="plain") == "plain"


async def test_run_sync_works_under_a_running_event_loop() -> None:
    """As in a notebook: it blocks, and sees the caller's context."""

    class Sees(Workflow):
        @step
        async def start(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=(color.get(), threading.get_ident()))

    token = color.set("red")
    try:
        seen, thread = Sees().run_sync()
    finally:
        color.reset(token)
    assert seen == "red"
    assert thread != threading.get_ident()


async def test_run_sync_works_in_a_thread() -> None:
    """With an event loop of its own."""
    assert await asyncio.to_thread(lambda: Echo().run_sync(text="there")) == "there"


def test_run_sync_raises_what_ended_the_run() -> None:
    """As awaiting the handler does."""
    with pytest.raises(ValueError, match="no luck"):
        Fails().run_sync()


async def test_run_sync_in_a_plain_step_runs_a_child_in_the_event_loop_of_its_parent() -> None:
    """It sees the step's context, belongs to the step, and shows its events in the parent's stream."""

    class Child(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.write_event_to_stream(News(text="from the child"))
            return StopEvent(result=(color.get(), threading.get_ident()))

    class Parent(Workflow):
        @step
        def start(self, ev: StartEvent) -> StopEvent:
            color.set("red")
            return StopEvent(result=Child().run_sync())

    with record() as seen:
        handler = Parent().run()
        assert await handler == ("red", threading.get_ident())
    assert [event.get("text") async for event in handler.stream_events()] == ["from the child", None]
    (child,) = seen.find("run", "Child")
    (start,) = [op for op in seen.find("step", "start") if op.workflow == "Parent"]
    assert child.parent is start.ref


# children


class Talks(Workflow):
    """Says something, then waits for an answer."""

    @step
    async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
        ctx.write_event_to_stream(News(text="child"))
        answer = await ctx.wait_for_event(Answer)
        return StopEvent(result=answer.text)


class Parent(Workflow):
    """Starts a child, tells the test, and awaits it."""

    @step
    async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
        child = Talks().run(detached=bool(ev.get("detached")))
        ev.get("children").append(child)
        ctx.write_event_to_stream(News(text="parent"))
        return StopEvent(result=await child)


async def test_the_events_of_a_child_appear_in_the_stream_of_its_parent_but_not_its_end() -> None:
    """The stream ends with the parent's own StopEvent."""
    children: list[Any] = []
    handler = Parent().run(children=children)
    await turn()
    children[0].ctx.send_event(Answer(text="well"))
    assert await handler == "well"
    seen = [event async for event in handler.stream_events()]
    assert [event.get("text") for event in seen[:-1]] == ["parent", "child"]
    assert [type(event) for event in seen if isinstance(event, StopEvent)] == [StopEvent]


async def test_a_child_of_a_child_shows_its_events_at_the_top() -> None:
    """Streams are handed on at every level."""

    class Middle(Workflow):
        @step
        async def start(self, ev: StartEvent) -> StopEvent:
            handler = Talks().run()
            await turn()
            handler.ctx.send_event(Answer(text="deep"))
            return StopEvent(result=await handler)

    class Top(Workflow):
        @step
        async def start(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await Middle().run())

    handler = Top().run()
    assert await handler == "deep"
    assert [type(event) async for event in handler.stream_events()] == [News, StopEvent]


async def test_cancelling_a_parent_cancels_its_children() -> None:
    """And the parent is over only when they are."""
    children: list[Any] = []
    handler = Parent().run(children=children)
    await turn()
    await handler.cancel_run()
    assert children[0].is_done()
    with pytest.raises(WorkflowCancelledByUser):
        await children[0]


async def test_a_step_that_is_cancelled_while_awaiting_a_child_cancels_it() -> None:
    """A time limit around the child ends the child."""
    children: list[Any] = []

    class Impatient(Workflow):
        @step
        async def start(self, ev: StartEvent) -> StopEvent:
            child = Talks().run()
            children.append(child)
            try:
                async with asyncio.timeout(0):
                    await child
            except TimeoutError:
                return StopEvent(result="went on")
            return StopEvent()

    assert await Impatient().run() == "went on"
    with pytest.raises(WorkflowCancelledByUser):
        await children[0]


async def test_a_child_that_nobody_awaits_ends_with_its_parent() -> None:
    """It belongs to the run whose step started it."""
    children: list[Any] = []

    class Forgets(Workflow):
        @step
        async def start(self, ev: StartEvent) -> Job:
            children.append(Talks().run())
            return Job()

        @step
        async def end(self, ev: Job) -> StopEvent:
            await turn()
            assert not children[0].is_done()
            return StopEvent()

    await Forgets().run()
    assert isinstance(children[0].exception(), WorkflowCancelledByUser)


async def test_the_error_of_a_child_is_the_error_of_the_step_that_awaits_it() -> None:
    """It has one note for each level."""

    class Above(Workflow):
        @step
        async def start(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await Fails().run())

    with pytest.raises(ValueError, match="no luck") as caught:
        await Above().run()
    assert ["'Fails'" in note for note in caught.value.__notes__] == [True, False]
    assert "'Above'" in caught.value.__notes__[1]


async def test_a_detached_run_is_no_child() -> None:
    """It outlives the run that started it, and its events stay in its own stream."""
    children: list[Any] = []
    with record() as seen:
        handler = Parent().run(children=children, detached=False)
        await turn()
        children[0].ctx.send_event(Answer())
        await handler
    assert seen.find("run", "Talks")[0].parent is not None

    class Detaches(Workflow):
        @step
        async def start(self, ev: StartEvent) -> StopEvent:
            children.append(Talks().run(detached=True))
            await turn()
            return StopEvent()

    with record() as seen:
        handler = Detaches().run()
        await handler
    assert [type(event) async for event in handler.stream_events()] == [StopEvent]
    assert not children[1].is_done()
    assert seen.find("run", "Talks")[0].parent is None
    children[1].ctx.send_event(Answer(text="on its own"))
    assert await children[1] == "on its own"


async def test_a_run_that_is_started_in_a_thread_of_a_step_is_its_child_too() -> None:
    """`asyncio.to_thread` carries the context, and with it the run that the child belongs to."""

    class Threads(Workflow):
        @step
        async def start(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await asyncio.to_thread(lambda: Echo().run_sync(text="in a thread")))

    with record() as seen:
        assert await Threads().run() == "in a thread"
    assert seen.tree().splitlines() == [
        "run Threads",
        "  event StartEvent",
        "  step start",
        "    run Echo",
        "      event StartEvent",
        "      step start",
    ]


async def test_slots_for_nested_workflows_are_filled_by_name_or_by_default() -> None:
    """`add_workflows` wins over the default of the parameter."""

    class Shout(Echo):
        @step
        async def start(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=str(ev.get("text")).upper())

    class Nests(Workflow):
        @step
        async def start(self, ev: StartEvent, inner: Workflow[Any, Any], other: Echo = Echo()) -> StopEvent:  # noqa: B008 because a default fills a slot
            return StopEvent(result=[await inner.run(text="a"), await other.run(text="b")])

    flow = Nests()
    flow.add_workflows(inner=Shout())
    assert await flow.run() == ["A", "b"]
    flow.add_workflows(other=Shout())
    assert await flow.run() == ["A", "B"]


# places


async def test_a_run_that_waits_for_its_place_can_be_cancelled() -> None:
    """The others keep theirs."""
    flow = Waits(num_concurrent_runs=1)
    first, second, third = flow.run(), flow.run(), flow.run()
    await turn()
    await second.cancel_run()
    first.ctx.send_event(Answer(text="first"))
    assert await first == "first"
    await turn()
    third.ctx.send_event(Answer(text="third"))
    assert await third == "third"


async def test_a_run_that_is_cancelled_just_when_its_place_is_free_hands_it_on() -> None:
    """No place is ever lost."""
    clock = FakeClock()
    flow = Waits(num_concurrent_runs=1)
    with use_clock(clock):
        first, second, third = flow.run(), flow.run(), flow.run()
        await turn()
        first.ctx.send_event(Answer())
        while not first.is_done():  # noqa: ASYNC110 because not one turn more may pass
            await asyncio.sleep(0)
        assert not second.is_done()
        await second.cancel_run()
        await turn()
    third.ctx.send_event(Answer(text="third"))
    assert await third == "third"


# a child whose questions its parent answers


class Question(InputRequiredEvent):
    text: str = ""


class Clerk(Workflow):
    """Asks two questions at once, works meanwhile, and asks a third when it has both answers."""

    @step
    async def start(self, ctx: Context, ev: StartEvent) -> list[Question | Job]:
        return [Question(text="one"), Job(), Question(text="two")]

    @step
    async def work(self, ctx: Context, ev: Job) -> None:
        await turn()
        await ctx.set("worked", await ctx.get("worked", default=0) + 1)

    @step
    async def answered(self, ctx: Context, ev: Answer) -> Question | StopEvent | None:
        texts = [*await ctx.get("texts", default=[]), ev.text]
        await ctx.set("texts", texts)
        if len(texts) == 2:
            return Question(text="three")
        return StopEvent(result=[*texts, await ctx.get("worked")]) if len(texts) == 3 else None


class Answers(Workflow):
    """Answers for the person."""

    @step
    async def start(self, ev: StartEvent) -> StopEvent:
        handler = Clerk().run()
        rounds = []
        while questions := await handler.until_asked():
            rounds.append([question.text for question in questions])
            for question in questions:
                handler.ctx.send_event(Answer(text=question.text.upper()))
        return StopEvent(result=[rounds, await handler])


async def test_a_step_answers_the_questions_of_its_child() -> None:
    """They come when nothing of the child goes on, and nobody else sees them."""
    handler = Answers().run()
    shown = [type(event) async for event in handler.stream_events()]
    assert await handler == [[["one", "two"], ["three"]], ["ONE", "TWO", "THREE", 1]]
    assert shown == [StopEvent]


async def test_until_asked_without_a_new_question_is_empty() -> None:
    """The run stands still then, and has not ended."""
    handler = Clerk().run()
    assert [question.text for question in await handler.until_asked()] == ["one", "two"]
    assert await handler.until_asked() == []
    handler.ctx.send_event(Answer(text="x"))
    assert await handler.until_asked() == []
    assert not handler.is_done()
    handler.ctx.send_event(Answer(text="y"))
    assert [question.text for question in await handler.until_asked()] == ["three"]
    handler.ctx.send_event(Answer(text="z"))
    assert await handler.until_asked() == []
    assert await handler == ["x", "y", "z", 1]
    assert await handler.until_asked() == []


async def test_until_asked_sees_a_step_that_waits_but_not_one_whose_wait_is_limited() -> None:
    """The latter goes on by itself."""

    class Patient(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=(await ctx.wait_for_event(Answer, Question(text="well?"))).text)

    class Impatient(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
            with pytest.raises(TimeoutError):
                await ctx.wait_for_event(Answer, Question(), timeout=10)
            return StopEvent(result="no answer")

    handler = Patient().run()
    assert [question.text for question in await handler.until_asked()] == ["well?"]
    handler.ctx.send_event(Answer(text="well"))
    assert await handler == "well"
    with use_clock(FakeClock()) as clock:
        handler = Impatient().run()
        asking = asyncio.create_task(handler.until_asked())
        await clock.advance(9)
        assert not asking.done()
        await clock.advance(1)
        await asking
        assert handler.is_done()
        assert await handler == "no answer"


async def test_until_asked_raises_nothing_when_the_run_fails() -> None:
    """Whoever awaits the handler learns of it."""
    handler = Fails().run()
    assert await handler.until_asked() == []
    with pytest.raises(ValueError, match="no luck"):
        await handler


async def test_a_step_that_is_cancelled_in_until_asked_cancels_its_child() -> None:
    """As one that awaits it."""
    began = asyncio.Event()

    class Hangs(Workflow):
        @step
        async def start(self, ev: StartEvent) -> StopEvent:
            began.set()
            await asyncio.Event().wait()
            return StopEvent()

    children = []

    class Keeper(Workflow):
        @step
        async def start(self, ev: StartEvent) -> StopEvent:
            children.append(Hangs().run())
            async with asyncio.timeout(None) as limit:
                asyncio.get_running_loop().call_soon(limit.reschedule, 0)
                await children[0].until_asked()
            return StopEvent()

    with pytest.raises(TimeoutError):
        await Keeper().run()
    assert isinstance(children[0].exception(), WorkflowCancelledByUser)


async def test_a_run_that_is_put_away_goes_on_elsewhere() -> None:
    """Nothing is done again, and its operations end as suspended."""
    with record() as seen:
        handler = Clerk().run()
        await handler.until_asked()
        stored = handler.put_away()
        with pytest.raises(WorkflowCancelledByUser, match=r"was put away\. It goes on with run\(ctx="):
            await handler
    assert (seen.find("run")[0].outcome, seen.open()) == ("suspended", [])
    flow = Clerk()
    again = flow.run(ctx=Context.from_dict(flow, stored))
    for text in "xyz":
        again.ctx.send_event(Answer(text=text))
    assert await again == ["x", "y", "z", 1]
    assert again.run_id == handler.run_id


async def test_a_step_that_waits_is_suspended_with_its_run() -> None:
    """It did not fail, and nobody cancelled it."""
    with record() as seen:
        handler = Waits().run()
        await handler.until_asked()
        handler.put_away()
        await handler.cancel_run()
    assert [(op.kind, op.outcome) for op in seen.find() if op.outcome != "ok"] == [
        ("run", "suspended"),
        ("step", "suspended"),
    ]


async def test_a_run_that_cannot_be_stored_is_not_put_away() -> None:
    """It goes on where it is."""
    handler = Clerk().run()
    await handler.until_asked()
    await handler.ctx.set("thing", object())
    with pytest.raises(ContextSerdeError, match="thing"):
        handler.put_away()
    for text in "xyz":
        handler.ctx.send_event(Answer(text=text))
    assert await handler == ["x", "y", "z", 1]


async def test_a_run_that_has_ended_is_put_away_with_its_state() -> None:
    """As by `ctx.to_dict()`."""
    flow = Counts()
    handler = flow.run()
    await handler
    stored = handler.put_away()
    assert stored == handler.ctx.to_dict()
    assert await flow.run(ctx=Context.from_dict(flow, stored)) == 2


@pytest.mark.parametrize(
    ("flow", "does"),
    [
        (Clerk, "waits for a person (an Answer; asked last: a Question)"),
        (Waits, "waits for a person (an Answer)"),
        (Echo, "1 working, 0 ready"),
    ],
)
async def test_a_handler_shows_whom_its_run_waits_for(flow: type[Workflow], does: str) -> None:
    """And what it asked last, while nothing of it goes on."""
    handler = flow().run()
    if flow is not Echo:
        await handler.until_asked()
    assert repr(handler) == f"<Handler of <Run {flow.__name__} running: {does}>>"
    await handler.cancel_run()
    assert "waits" not in repr(handler)


class Ping(Event):
    pass


async def test_a_handler_shows_that_its_run_waits_for_an_event_from_outside() -> None:
    """Which need not be a person's."""

    class Pinged(Workflow):
        @step(waits=[Ping])
        async def start(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.wait_for_event(Ping)
            return StopEvent()

    handler = Pinged().run()
    await handler.until_asked()
    assert repr(handler) == "<Handler of <Run Pinged running: waits for somebody outside (a Ping)>>"
    handler.ctx.send_event(Ping())
    await handler


async def test_a_run_that_times_out_while_it_waits_says_for_whom() -> None:
    """A step that is suspended in a wait is not what took long."""
    said = r"time-out of 5 s; waits for a person \(an Answer; asked last: a Question\)$"
    with use_clock(FakeClock()) as clock:
        for flow in (Clerk(timeout=5), Waits(timeout=5)):
            handler = flow.run()
            await handler.until_asked()
            await clock.advance(5)
            with pytest.raises(
                WorkflowTimeoutError, match=said if isinstance(flow, Clerk) else r"person \(an Answer\)$"
            ):
                await handler


class Nests(Workflow):
    """Its child waits."""

    @step
    async def start(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=await Clerk().run())


@pytest.mark.parametrize(("flow", "waits"), [(Clerk, "Clerk"), (Nests, "Clerk"), (Waits, "Waits")])
def test_run_sync_warns_once_of_a_run_that_nobody_can_answer(
    flow: type[Workflow], waits: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It would stand still in silence; a child of it as well."""
    with pytest.raises(WorkflowTimeoutError):
        flow(timeout=0.01).run_sync()
    (warned,) = caplog.records
    assert warned.levelname == "WARNING"
    assert f"the run of '{waits}' waits for a person (an Answer" in warned.getMessage()
    assert "whom run_sync cannot ask" in warned.getMessage()
    assert "handler.ctx.send_event(...)" in warned.getMessage()


async def test_run_does_not_warn_of_a_run_that_waits(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever holds its handler can answer."""
    handler = Clerk().run()
    await handler.until_asked()
    await handler.cancel_run()
    assert not caplog.records
