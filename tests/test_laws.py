"""The laws of cost, held by counting: every event costs the same, nothing consumed is kept, nothing is reflected on."""

from __future__ import annotations

import asyncio
import gc
import sys
import tracemalloc
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from agentflow import (
    Context,
    Event,
    HumanResponseEvent,
    Observer,
    Retry,
    StartEvent,
    StopEvent,
    Workflow,
    add_observer,
    remove_observer,
    step,
)
from agentflow.clock import Clock, use_clock
from agentflow.observe import Operation


class Job(Event):
    n: int = 0


class Done(Event):
    n: int = 0


class Answer(HumanResponseEvent):
    n: int = 0


class Loop(Workflow):
    """Goes round by what it returns."""

    @step
    async def start(self, ev: StartEvent) -> Job:
        return Job(n=ev.get("rounds"))

    @step
    async def again(self, ev: Job) -> Job | StopEvent:
        if ev.n == 0:
            return StopEvent()
        look(ev.n)
        return Job(n=ev.n - 1)


class LoopWithContext(Loop):
    """Goes round with a context, and uses its state."""

    @step
    async def again(self, ctx: Context, ev: Job) -> Job | StopEvent:  # type: ignore[override]  # a step may take more
        if ev.n == 0:
            return StopEvent()
        await ctx.set("n", ev.n)
        look(ev.n)
        return Job(n=ev.n - 1)


class LoopWithContextOnly(Loop):
    """Goes round with a context that it does not use."""

    @step
    async def again(self, ctx: Context, ev: Job) -> Job | StopEvent:  # type: ignore[override]  # a step may take more
        if ev.n == 0:
            return StopEvent()
        look(ev.n)
        return Job(n=ev.n - 1)


class LoopBySends(Loop):
    """Goes round by what it sends."""

    @step
    async def again(self, ctx: Context, ev: Job) -> Job | StopEvent | None:  # type: ignore[override]  # a step may take more
        if ev.n == 0:
            return StopEvent()
        look(ev.n)
        ctx.send_event(Job(n=ev.n - 1))
        return None


class LoopWithLimit(Loop):
    """Goes round under a time limit."""

    @step(timeout=60)
    async def again(self, ev: Job) -> Job | StopEvent:
        if ev.n == 0:
            return StopEvent()
        look(ev.n)
        return Job(n=ev.n - 1)


class LoopWithRetries(Loop):
    """Fails once in every round."""

    @step(retry_policy=Retry(attempts=2, wait=0))
    async def again(self, ctx: Context, ev: Job) -> Job | StopEvent:  # type: ignore[override]  # a step may take more
        if ev.n == 0:
            return StopEvent()
        look(ev.n)
        if not await ctx.get(f"failed {ev.n % 2}", default=False):
            await ctx.set(f"failed {ev.n % 2}", value=True)
            raise ValueError
        await ctx.set(f"failed {ev.n % 2}", value=False)
        return Job(n=ev.n - 1)


class LoopWithWaits(Loop):
    """Waits in one step for what another one sends, in every round."""

    @step
    async def start(self, ev: StartEvent) -> Job:
        return Job(n=ev.get("rounds"))

    @step(waits=[Answer])
    async def again(self, ctx: Context, ev: Job) -> Job | Done | StopEvent | None:  # type: ignore[override]  # a step may take more
        if ev.n == 0:
            return StopEvent()
        look(ev.n)
        ctx.send_event(Done(n=ev.n))
        answer = await ctx.wait_for_event(Answer)
        return Job(n=answer.n - 1)

    @step
    async def answers(self, ctx: Context, ev: Done) -> None:
        ctx.send_event(Answer(n=ev.n))


class LoopWithJoins(Loop):
    """Fans out and joins in every round."""

    @step
    async def again(self, ev: Job) -> list[Done] | StopEvent:  # type: ignore[override]  # a step may fan out
        look(ev.n)
        return StopEvent() if ev.n <= 0 else [Done(n=ev.n) for _ in range(5)]

    @step
    async def join(self, ctx: Context, ev: Done) -> Job | None:
        done = ctx.collect_events(ev, [Done] * 5)
        return None if done is None else Job(n=ev.n - 5)


class Fan(Workflow):
    """Fans out once, widely, and joins what comes back."""

    @step
    async def start(self, ev: StartEvent) -> list[Job]:
        return [Job(n=n + 1) for n in range(ev.get("rounds"))]

    @step(num_workers=8)
    async def work(self, ev: Job) -> Done:
        await asyncio.sleep(0)
        return Done(n=ev.n)

    @step
    async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
        # the number is known when the last has been made
        expected = await ctx.get("rounds", default=0)
        if not expected:
            expected = ROUNDS[0]
            await ctx.set("rounds", expected)
        done = ctx.collect_events(ev, {Done: expected})
        return None if done is None else StopEvent()


ROUNDS = [0]
LOOPS = [Loop, LoopWithContext, LoopBySends, LoopWithLimit, LoopWithRetries, LoopWithWaits, LoopWithJoins]


class Instantly(Clock):
    """Delays of no time need no timer, whose number would depend on the machine."""

    def call_later(self, delay: float, callback: Callable[[], object]) -> Any:
        loop = asyncio.get_running_loop()
        return loop.call_soon(callback) if delay == 0 else loop.call_later(delay, callback)


class Looks(Observer):
    """Looks on, and keeps nothing."""

    def started(self, op: Operation) -> None:
        op.ref.carry(self, op.name)


looking: list[Callable[[int], None]] = []


def look(n: int) -> None:
    for each in looking:
        each(n)


@pytest.fixture(params=["unwatched", "watched"])
def watched(request: pytest.FixtureRequest) -> Iterator[None]:
    """Once with nobody looking on, and once with an observer."""
    observer = Looks()
    if request.param == "watched":
        add_observer(observer)
    yield
    remove_observer(observer)


def run(cls: type[Workflow[Any, Any]], rounds: int) -> None:
    ROUNDS[0] = rounds
    with use_clock(Instantly()):
        cls().run_sync(rounds=rounds)


def calls(cls: type[Workflow[Any, Any]], rounds: int) -> int:
    """How many functions are called, in Python and in C, for so many rounds."""
    count = 0

    def profile(frame: FrameType, event: str, arg: object) -> None:
        nonlocal count
        if event in {"call", "c_call"}:
            count += 1

    gc.disable()
    sys.setprofile(profile)
    try:
        run(cls, rounds)
    finally:
        sys.setprofile(None)
        gc.enable()
    return count


SIZES = [2_000, pytest.param(100_000, marks=pytest.mark.slow)]


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("large", SIZES)
@pytest.mark.parametrize("cls", [*LOOPS, Fan])
def test_a_step_of_a_long_run_costs_as_many_calls_as_one_of_a_short_run(
    cls: type[Workflow[Any, Any]], large: int
) -> None:
    """What is counted is the difference between two sizes, so that beginning and end do not count."""
    run(cls, 10)
    short = (calls(cls, 200) - calls(cls, 100)) / 100
    long = (calls(cls, large) - calls(cls, large // 2)) / (large - large // 2)
    assert 0 < long <= short * 1.03


@pytest.mark.parametrize(("cls", "most"), [(Loop, 7), (LoopWithContextOnly, 9)])
def test_a_step_that_nobody_looks_at_costs_a_handful_of_calls(cls: type[Workflow[Any, Any]], most: int) -> None:
    """The short way calls the step and what is in it, and hardly anything around it."""
    run(cls, 10)
    assert (calls(cls, 1_100) - calls(cls, 100)) / 1_000 < most


def chain(length: int) -> Workflow[Any, Any]:
    """A workflow of so many steps, each with an event type of its own."""
    flow: Workflow[Any, Any] = Workflow(name=f"chain of {length}")
    kinds: list[Any] = [StartEvent, *(type(f"E{n}", (Event,), {}) for n in range(1, length)), StopEvent]
    for n in range(length):

        async def run_it(ev: Event, following: Any = kinds[n + 1]) -> Any:
            return following()

        run_it.__name__ = f"s{n}"
        run_it.__annotations__ = {"ev": kinds[n], "return": kinds[n + 1]}
        step(workflow=flow)(run_it)
    return flow


def test_a_step_of_a_large_workflow_costs_as_many_calls_as_one_of_a_small_workflow() -> None:
    """Steps are found in a table."""

    def in_all(length: int) -> int:
        count = 0

        def profile(frame: FrameType, event: str, arg: object) -> None:
            nonlocal count
            count += event in {"call", "c_call"}

        flow = chain(length)
        flow.run_sync()
        gc.disable()
        sys.setprofile(profile)
        try:
            flow.run_sync()
        finally:
            sys.setprofile(None)
            gc.enable()
        return count

    small, middle, large = in_all(5), in_all(30), in_all(55)
    assert large - middle <= (middle - small) * 1.05


@contextmanager
def looks(callback: Callable[[int], None]) -> Generator[None, None, None]:
    looking.append(callback)
    try:
        yield
    finally:
        looking.remove(callback)


def alive() -> int:
    kinds = {Job, Done, Answer}
    return sum(type(found) in kinds for found in gc.get_objects())


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("cls", LOOPS)
def test_no_event_stays_once_it_has_been_consumed(cls: type[Workflow[Any, Any]]) -> None:
    """Of thousands only a handful are alive at any moment, and that without the garbage collector."""
    most: list[int] = []

    def count(n: int) -> None:
        if n % 1_000 == 0:
            most.append(alive() - before)

    gc.collect()
    before = alive()
    gc.disable()
    try:
        with looks(count):
            run(cls, 3_000)
    finally:
        gc.enable()
    assert len(most) >= 3
    assert max(most) < 12


@pytest.mark.usefixtures("watched")
def test_events_of_a_fan_out_go_as_they_are_consumed() -> None:
    """What has not been taken up yet is there, and nothing else."""
    left: list[int] = []

    class Goes(Fan):
        @step(num_workers=8)
        async def work(self, ev: Job) -> Done:
            if ev.n % 100 == 0:
                left.append(sum(type(found) is Job for found in gc.get_objects()) - (1_000 - ev.n))
            await asyncio.sleep(0)
            return Done(n=ev.n)

    gc.collect()
    run(Goes, 1_000)
    assert len(left) == 10
    assert max(left) < 30


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("rounds", [2_000, pytest.param(100_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("cls", LOOPS)
def test_a_loop_takes_no_more_memory_the_longer_it_runs(cls: type[Workflow[Any, Any]], rounds: int) -> None:
    """Whatever an event leaves behind is less than a byte."""
    sizes: dict[int, int] = {}

    def measure(n: int) -> None:
        if n % (rounds // 4) == 0:
            gc.collect()
            sizes[n] = tracemalloc.get_traced_memory()[0]

    run(cls, 10)
    tracemalloc.start()
    try:
        with looks(measure):
            run(cls, rounds)
    finally:
        tracemalloc.stop()
    early, late = sizes[rounds // 4 * 3], sizes[rounds // 4]
    assert late - early < max(2_000, rounds // 2)


REFLECTION = {"inspect.py", "typing.py"}
NOT_REFLECTION = {"cast"}  # it only returns what it is given


@pytest.mark.parametrize("watching", [False, True])
@pytest.mark.parametrize("cls", [*LOOPS, Fan])
def test_a_compiled_workflow_is_not_reflected_on(cls: type[Workflow[Any, Any]], watching: bool) -> None:  # noqa: FBT001 because pytest passes it
    """A run calls nothing of `inspect` or `typing`, not even when it begins."""
    called: list[str] = []

    def profile(frame: FrameType, event: str, arg: object) -> None:
        code = frame.f_code
        if event == "call" and Path(code.co_filename).name in REFLECTION and code.co_name not in NOT_REFLECTION:
            called.append(f"{code.co_name} from {frame.f_back and frame.f_back.f_code.co_qualname}")

    async def main() -> None:
        flow = cls()
        ROUNDS[0] = 20
        await flow.run(rounds=20)
        sys.setprofile(profile)
        try:
            await flow.run(rounds=20)
        finally:
            sys.setprofile(None)

    observer = Looks()
    with nullcontext() if not watching else _watching(observer), use_clock(Instantly()):
        asyncio.run(main())
    assert called == []


@contextmanager
def _watching(observer: Observer) -> Generator[None, None, None]:
    add_observer(observer)
    try:
        yield
    finally:
        remove_observer(observer)
