"""What `Workflow(verbose=True)` prints."""

from __future__ import annotations

import asyncio

import pytest

from agentflow import Context, Event, Retry, StartEvent, StopEvent, Workflow, step
from agentflow.clock import use_clock
from agentflow.testing import FakeClock


class A(Event):
    pass


class B(Event):
    pass


class Done(Event):
    pass


class Joined(Workflow):
    """Two branches that are sent, and a join."""

    @step
    async def start(self, ctx: Context, ev: StartEvent) -> A | B | None:
        ctx.send_event(A())
        ctx.send_event(B())
        return None

    @step
    async def step_a(self, ev: A) -> Done:
        return Done()

    @step
    async def step_b(self, ev: B) -> Done:
        return Done()

    @step
    async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
        return None if ctx.collect_events(ev, [Done, Done]) is None else StopEvent()


def test_every_step_is_printed_with_what_it_produced(capsys: pytest.CaptureFixture[str]) -> None:
    """The documented lines, in the order in which it happens."""
    Joined(verbose=True).run_sync()
    assert capsys.readouterr().out.splitlines() == [
        "Running step start",
        "Step start produced no event",
        "Running step step_a",
        "Step step_a produced event Done",
        "Running step step_b",
        "Step step_b produced event Done",
        "Running step join",
        "Step join produced no event",
        "Running step join",
        "Step join produced event StopEvent",
    ]


def test_nothing_is_printed_unless_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """By default a workflow is silent."""
    Joined().run_sync()
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_every_event_of_a_returned_list_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """One line each."""

    class Fan(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[A]:
            return [A(), A()]

        @step
        async def join(self, ctx: Context, ev: A) -> StopEvent | None:
            return None if ctx.collect_events(ev, [A, A]) is None else StopEvent()

    Fan(verbose=True).run_sync()
    assert capsys.readouterr().out.splitlines()[:3] == [
        "Running step start",
        "Step start produced event A",
        "Step start produced event A",
    ]


async def test_a_repeated_attempt_is_printed_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    """And so is the error that stands."""
    clock = FakeClock()

    class Fails(Workflow):
        @step(retry_policy=Retry(attempts=2, wait=90))
        async def start(self, ev: StartEvent) -> StopEvent:
            msg = "busy"
            raise ValueError(msg)

    with use_clock(clock):
        handler = Fails(verbose=True).run()
        await clock.advance(100)
        with pytest.raises(ValueError, match="busy"):
            await handler
    assert capsys.readouterr().out.splitlines() == [
        "Running step start",
        "Step start failed, attempt 1: ValueError('busy'); again in 90 s",
        "Running step start",
        "Step start ended with ValueError('busy')",
    ]


async def test_a_step_that_is_cancelled_is_printed_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    """It produced nothing, and did not fail either."""

    class Race(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[A | B]:
            return [A(), B()]

        @step
        async def slow(self, ev: A) -> None:
            await asyncio.Event().wait()

        @step
        async def fast(self, ev: B) -> StopEvent:
            return StopEvent()

    await Race(verbose=True).run()
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "Step fast produced event StopEvent",
        "Step slow ended with CancelledError()",
    ]


async def test_only_the_workflow_that_asked_for_it_prints(capsys: pytest.CaptureFixture[str]) -> None:
    """Runs of others, also of nested ones, are silent."""

    class Outer(Workflow):
        @step
        async def outer(self, ev: StartEvent) -> StopEvent:
            await Joined().run()
            return StopEvent()

    await Outer(verbose=True).run()
    assert capsys.readouterr().out.splitlines() == ["Running step outer", "Step outer produced event StopEvent"]
