"""Retries: how often, when, on what, and that nobody waits for real."""

from __future__ import annotations

import asyncio
import datetime as dt
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st

from agentflow import (
    ConstantDelayRetryPolicy,
    Context,
    Event,
    ExponentialBackoffRetryPolicy,
    HumanResponseEvent,
    Retry,
    RetryPolicy,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowRuntimeError,
    WorkflowTimeoutError,
    WorkflowValidationError,
    step,
)
from agentflow.clock import use_clock
from agentflow.testing import FakeClock, record

DAY = 86_400.0


class Weather(Exception):  # noqa: N818 because nobody is to blame
    """Comes and goes."""


class Storm(Weather):
    pass


class Job(Event):
    n: int = 0


class Halfway(Event):
    n: int = 0


def flaky(policy: Any, *, failures: float = float("inf"), error: type[BaseException] = Weather) -> _Flaky:
    """A workflow whose only step has this policy and fails this often."""

    class Flow(_Flaky):
        @step(retry_policy=policy)
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            self.times.append(self.clock.now - self.began)
            if len(self.times) <= failures:
                raise error(f"failure {len(self.times)}")
            return StopEvent(result=len(self.times))

    return Flow()


class _Flaky(Workflow):
    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []
        """When the step was executed, in seconds since the start."""
        self.clock = FakeClock()
        self.began = self.clock.now

    async def ends(self, after: float = 365 * DAY) -> Any:
        """Its result, or what it raises, when a year has passed."""
        with use_clock(self.clock):
            handler = self.run()
            await self.clock.advance(after)
            assert handler.is_done()
            return await handler


@pytest.mark.parametrize(
    "policy",
    [ConstantDelayRetryPolicy(maximum_attempts=3, delay=5), Retry(3, wait=5), Retry(wait=tenacity.wait_fixed(5))],
)
async def test_three_attempts_are_three_executions(policy: RetryPolicy) -> None:
    """With the delay in between, and the step's own error at the end."""
    flow = flaky(policy)
    with pytest.raises(Weather, match="failure 3") as caught:
        await flow.ends()
    assert flow.times == [0, 5, 10]
    assert "in step 'only' of workflow 'Flow', run " in caught.value.__notes__[0]
    assert caught.value.__notes__[0].endswith("attempt 3")
    assert await flaky(policy, failures=2).ends() == 3


async def test_plain_functions_are_tried_again_too() -> None:
    """As often as coroutine functions."""

    class Flow(Workflow):
        times = 0

        @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=3, delay=0))
        def only(self, ev: StartEvent) -> StopEvent:
            Flow.times += 1
            raise Weather(f"failure {Flow.times}")

    with pytest.raises(Weather, match="failure 3"):
        await Flow().run()
    assert Flow.times == 3


async def test_the_defaults_of_the_policies_are_the_documented_ones() -> None:
    """Three times five seconds; five times with a delay that doubles."""
    flow = flaky(ConstantDelayRetryPolicy())
    with pytest.raises(Weather):
        await flow.ends()
    assert flow.times == [0, 5, 10]
    flow = flaky(ExponentialBackoffRetryPolicy(jitter=False))
    with pytest.raises(Weather):
        await flow.ends()
    assert flow.times == [0, 1, 3, 7, 15]
    flow = flaky(Retry())
    with pytest.raises(Weather):
        await flow.ends()
    assert len(flow.times) == 3
    assert flow.times[-1] <= 1.5


@given(
    st.integers(1, 8),
    st.floats(0.01, 10),
    st.floats(1, 4),
    st.floats(0, 100),
    st.booleans(),
)
def test_an_exponential_back_off_grows_up_to_its_largest_delay(
    attempts: int,
    first: float,
    factor: float,
    more: float,
    jitter: bool,  # noqa: FBT001 because hypothesis draws it
) -> None:
    """Without jitter by its factor; with it, each delay is between half of that and all of it."""
    policy = ExponentialBackoffRetryPolicy(9, first, factor, first + more, jitter)
    delay = policy.next(0, attempts, Weather())
    whole = min(first * factor ** (attempts - 1), first + more)
    assert delay is not None
    assert (whole / 2 if jitter else whole) * (1 - 1e-9) <= delay <= whole * (1 + 1e-9)
    assert policy.next(0, 9, Weather()) is None


class Asked:
    """Writes down what it is asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[float, int, str]] = []

    def next(self, elapsed_time: float, attempts: int, error: Exception) -> Any:
        self.asked.append((elapsed_time, attempts, str(error)))
        return self.answers.pop(0)


async def test_a_policy_of_ones_own_is_told_failures_and_the_time_since_the_first() -> None:
    """Attempts count from 1; at the first failure no time has passed, however long the attempt took."""
    policy = Asked(10, 20, None)

    class Flow(_Flaky):
        @step(retry_policy=policy)
        async def only(self, ev: StartEvent) -> StopEvent:
            self.times.append(self.clock.now - self.began)
            await self.clock.sleep(7)
            raise Weather(f"failure {len(self.times)}")

    assert isinstance(policy, RetryPolicy)
    flow = Flow()
    with pytest.raises(Weather, match="failure 3"):
        await flow.ends()
    assert policy.asked == [(0, 1, "failure 1"), (17, 2, "failure 2"), (44, 3, "failure 3")]
    assert flow.times == [0, 17, 44]


async def test_the_friday_policy_of_the_documents_works() -> None:
    """`next` with defaults in its signature, as written there."""

    class RetryOnFridayPolicy:
        def next(self, elapsed_time: float, attempts: int, error: Exception) -> float | None:
            weekday = dt.datetime.fromtimestamp(flow.clock.time(), tz=dt.UTC).strftime("%A")
            return 5 if weekday == "Friday" else None

    flow = flaky(RetryOnFridayPolicy())
    flow.clock.now = flow.began = dt.datetime(2026, 11, 20, 23, 59, 52, tzinfo=dt.UTC).timestamp()
    with pytest.raises(Weather, match="failure 3"):
        await flow.ends()
    assert flow.times == [0, 5, 10]


async def test_a_negative_delay_means_at_once() -> None:
    """Time does not go back."""
    flow = flaky(Asked(-5, 0, None))
    with pytest.raises(Weather):
        await flow.ends()
    assert flow.times == [0, 0, 0]


@pytest.mark.parametrize("answer", ["soon", [1]])
async def test_a_policy_that_answers_nonsense_fails_the_run_with_what_is_wrong(answer: Any) -> None:
    """And the step's own error stays visible as its context."""
    flow = flaky(Asked(answer))
    with pytest.raises((TypeError, ValueError)) as caught:
        await flow.ends()
    assert isinstance(caught.value.__context__, Weather)


async def test_a_policy_that_raises_fails_the_run_with_its_error() -> None:
    """The step's error is its context."""

    class Broken:
        def next(self, elapsed_time: float, attempts: int, error: Exception) -> float:
            raise LookupError("no such policy")

    with pytest.raises(LookupError, match="no such policy") as caught:
        await flaky(Broken()).ends()
    assert isinstance(caught.value.__context__, Weather)

    def wait(state: object) -> float:
        raise LookupError("no such wait")

    with pytest.raises(LookupError, match="no such wait"):
        await flaky(tenacity.AsyncRetrying(wait=wait)).ends()


@pytest.mark.parametrize(
    ("on", "executions"),
    [
        (Exception, 3),
        (Weather, 3),
        (Storm, 1),
        ((Storm, KeyError), 1),
        ((KeyError, Weather), 3),
        (lambda error: "failure 1" in str(error), 2),
        (tenacity.retry_if_exception_message(match="failure [12]"), 3),
        (tenacity.retry_if_not_exception_type(Weather), 1),
        (BaseException, 3),
    ],
)
async def test_only_some_errors_are_worth_another_attempt(on: Any, executions: int) -> None:
    """Chosen by class, classes, predicate, or a tenacity object."""
    flow = flaky(Retry(attempts=3, wait=1, on=on))
    with pytest.raises(Weather):
        await flow.ends()
    assert len(flow.times) == executions


async def test_a_cancelled_error_is_never_retried() -> None:
    """Nor anything else that is no Exception."""
    flow = flaky(Retry(on=BaseException), error=asyncio.CancelledError)
    with pytest.raises(WorkflowRuntimeError, match="raised CancelledError, though nobody cancelled it"):
        await flow.ends()
    assert len(flow.times) == 1
    flow = flaky(tenacity.AsyncRetrying(), error=asyncio.CancelledError)
    with pytest.raises(WorkflowRuntimeError, match="raised CancelledError"):
        await flow.ends()
    assert len(flow.times) == 1


async def test_days_of_back_off_take_no_time() -> None:
    """A clock that is moved by hand is all that a test needs."""
    wait = tenacity.wait_exponential(multiplier=60, max=3 * DAY)
    flow = flaky(Retry(attempts=None, within=30 * DAY, wait=wait))
    with pytest.raises(Weather):
        await flow.ends()
    assert flow.times[:4] == [0, 60, 180, 420]
    assert 27 * DAY < flow.times[-1] <= 30 * DAY


@given(
    st.floats(0, 100, allow_subnormal=False),
    st.lists(st.floats(0, 50, allow_subnormal=False), min_size=1, max_size=6),
    st.integers(1, 6) | st.none(),
)
def test_a_deadline_is_never_overslept(within: float, delays: list[float], attempts: int | None) -> None:
    """No attempt begins later than `within` after the first failure, and none is given up that could begin in time."""
    wait = tenacity.wait_chain(*map(tenacity.wait_fixed, [*delays, 101]))
    policy = Retry(attempts=attempts, within=within, wait=wait)
    elapsed, number = 0.0, 1
    while (delay := policy.next(elapsed, number, Weather())) is not None:
        elapsed += delay
        number += 1
        assert elapsed <= within + 1e-6
    if attempts is None or number < attempts:
        assert elapsed + [*delays, 101][min(number, len(delays) + 1) - 1] > within - 1e-6


async def test_an_attempt_may_begin_at_the_very_deadline() -> None:
    """Not a moment later; then the error stands at once, without a last sleep."""
    flow = flaky(Retry(attempts=None, within=10, wait=5))
    with pytest.raises(Weather):
        await flow.ends(after=10)
    assert flow.times == [0, 5, 10]
    flow = flaky(Retry(attempts=None, within=9, wait=5))
    with pytest.raises(Weather):
        await flow.ends(after=5)
    assert flow.times == [0, 5]


async def test_a_step_that_waits_for_its_next_attempt_frees_its_slot() -> None:
    """The others of the same step go on; when it is due, it stands in line like any other."""
    order: list[tuple[int, float]] = []

    class Flow(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[Job]:
            return [Job(n=n) for n in range(4)]

        @step(num_workers=1, retry_policy=Retry(wait=60))
        async def work(self, ctx: Context, ev: Job) -> StopEvent | None:
            order.append((ev.n, clock.now - began))
            if ev.n == 0 and len(order) == 1:
                raise Weather
            if ev.n == 2:
                await clock.sleep(100)
            return StopEvent() if ctx.collect_events(ev, {Job: 4}) else None

    with use_clock(FakeClock()) as clock:
        began = clock.now
        handler = Flow().run()
        await clock.advance(50)
        assert order == [(0, 0), (1, 0), (2, 0)]
        await clock.advance(50)
        await handler
    assert order == [(0, 0), (1, 0), (2, 0), (3, 100), (0, 100)]


async def test_a_step_that_times_out_is_tried_again() -> None:
    """Each attempt has its whole time."""

    class Flow(_Flaky):
        @step(timeout=10, retry_policy=Retry(attempts=2, wait=5))
        async def only(self, ev: StartEvent) -> StopEvent:
            self.times.append(self.clock.now - self.began)
            await asyncio.Event().wait()
            return StopEvent()

    flow = Flow()
    with pytest.raises(WorkflowTimeoutError, match="exceeded its time-out of 10 s"):
        await flow.ends(after=25)
    assert flow.times == [0, 15]


async def test_a_cancelled_run_drops_the_attempts_that_it_still_meant_to_make() -> None:
    """Nothing is left on the clock."""
    flow = flaky(Retry(wait=60))
    with use_clock(flow.clock):
        handler = flow.run()
        await flow.clock.advance(1)
        assert flow.clock.pending == [59]
        await handler.cancel_run()
        assert flow.clock.pending == []
        await flow.clock.advance(100)
    assert flow.times == [0]


async def test_every_attempt_is_seen_with_its_number_and_the_delay_that_followed() -> None:
    """One operation each; those that were tried again end as retried."""
    with record() as seen, pytest.raises(Weather):
        await flaky(Retry(3, wait=5)).ends()
    attempts = seen.find("step", "only")
    assert [(op.attempt, op.outcome) for op in attempts] == [(1, "retried"), (2, "retried"), (3, "error")]
    (note,) = seen.notes[attempts[1].ref.id]
    assert (note.name, note.facts["attempt"], note.facts["delay"]) == ("retry", 2, 5)
    assert str(note.facts["error"]) == "failure 2"
    assert len(seen.find("event", "StartEvent")) == 1


Settings = Callable[..., Any]
tenacities = pytest.mark.parametrize("make", [tenacity.Retrying, tenacity.AsyncRetrying])


@tenacities
async def test_a_raw_tenacity_object_decides_by_its_stop_wait_and_retry(make: Settings) -> None:
    """Attempts count from 1, delays come from its wait, and its own sleep is never called."""

    def sleep(seconds: float) -> None:
        raise AssertionError("it must not sleep")

    flow = flaky(
        make(
            sleep=sleep,
            stop=tenacity.stop_after_attempt(4),
            wait=tenacity.wait_incrementing(10, 10),
            retry=tenacity.retry_if_exception_message(match="failure"),
        )
    )
    with pytest.raises(Weather, match="failure 4") as caught:
        await flow.ends()
    assert flow.times == [0, 10, 30, 60]
    assert caught.value.__notes__[0].endswith("attempt 4")
    flow = flaky(make(retry=tenacity.retry_if_exception_type(Storm)))
    with pytest.raises(Weather, match="failure 1"):
        await flow.ends()
    flow = flaky(make(stop=tenacity.stop_after_delay(25), wait=tenacity.wait_fixed(10)))
    with pytest.raises(Weather, match="failure 4"):
        await flow.ends()


@tenacities
async def test_a_tenacity_object_that_is_switched_off_decides_nothing(make: Settings) -> None:
    """Neither on an error nor on a result."""
    with pytest.raises(Weather, match="failure 1"):
        await flaky(make(enabled=False)).ends()
    assert await flaky(make(enabled=False, retry=tenacity.retry_always), failures=0).ends() == 1


async def test_a_wait_object_sees_the_time_of_the_clock_in_force() -> None:
    """And not that of the machine."""
    seen: list[float | None] = []

    def wait(state: tenacity.RetryCallState) -> float:
        seen.append(state.seconds_since_start)
        return 10 * DAY

    for policy in (Retry(wait=wait), tenacity.AsyncRetrying(wait=wait, stop=tenacity.stop_after_attempt(3))):
        with pytest.raises(Weather):
            await flaky(policy).ends()
        assert seen[:2] == [0, 10 * DAY]
        seen.clear()


@tenacities
@pytest.mark.parametrize("reraise", [True, False])
async def test_the_steps_own_error_reaches_the_caller_whatever_tenacity_would_wrap_it_in(
    make: Settings,
    reraise: bool,  # noqa: FBT001 because the test is run for both
) -> None:
    """`RetryError` tells nobody what went wrong."""
    with pytest.raises(Weather, match="failure 2"):
        await flaky(make(stop=tenacity.stop_after_attempt(2), reraise=reraise)).ends()


@tenacities
async def test_the_callbacks_of_a_tenacity_object_are_called_in_its_own_order(make: Settings) -> None:
    """With the number of the attempt, the time, and what is going to happen."""
    calls: list[tuple[Any, ...]] = []

    def note(name: str) -> Callable[[tenacity.RetryCallState], None]:
        def callback(state: tenacity.RetryCallState) -> None:
            failed = state.outcome is not None and state.outcome.failed
            calls.append((name, state.attempt_number, state.seconds_since_start, state.idle_for, failed))
            if name == "before_sleep":
                assert state.next_action is not None
                assert state.next_action.sleep == 10
                assert state.outcome is not None
                assert isinstance(state.outcome.exception(), Weather)

        return callback

    flow = flaky(
        make(
            stop=tenacity.stop_after_attempt(3),
            wait=tenacity.wait_fixed(10),
            before=note("before"),
            after=note("after"),
            before_sleep=note("before_sleep"),
        ),
        failures=2,
    )
    assert await flow.ends() == 3
    assert calls == [
        ("before", 1, 0, 0, False),
        ("after", 1, 0, 0, True),
        ("before_sleep", 1, 0, 10, True),
        ("before", 2, 10, 10, False),
        ("after", 2, 10, 10, True),
        ("before_sleep", 2, 10, 20, True),
        ("before", 3, 20, 20, False),
    ]


async def test_the_callbacks_of_a_tenacity_object_may_be_coroutine_functions() -> None:
    """Those of `AsyncRetrying`, as tenacity has it."""
    calls: list[str] = []

    async def before(state: tenacity.RetryCallState) -> None:
        calls.append("before")

    async def worth_it(state: tenacity.RetryCallState) -> bool:
        await asyncio.sleep(0)
        calls.append("retry")
        assert state.outcome is not None
        return state.outcome.failed

    async def instead(state: tenacity.RetryCallState) -> StopEvent:
        calls.append("instead")
        return StopEvent(result="instead")

    policy = tenacity.AsyncRetrying(
        stop=tenacity.stop_after_attempt(2), before=before, retry=worth_it, retry_error_callback=instead
    )
    assert await flaky(policy).ends() == "instead"
    assert calls == ["before", "retry", "before", "retry", "instead"]


@tenacities
async def test_a_retry_error_callback_gives_what_the_step_is_taken_to_have_returned(make: Settings) -> None:
    """Its event goes on like any other; an undeclared one is refused like any other."""

    class Flow(Workflow):
        answer: Any = Halfway(n=7)

        @step(
            retry_policy=make(
                stop=tenacity.stop_after_attempt(2),
                retry_error_callback=lambda state: Flow.answer,
            )
        )
        async def start(self, ev: StartEvent) -> Halfway | None:
            raise Weather

        @step
        async def end(self, ev: Halfway) -> StopEvent:
            return StopEvent(result=ev.n)

    assert await Flow().run() == 7
    Flow.answer = Job()
    with pytest.raises(WorkflowRuntimeError, match="step 'start' returned a Job, but declares"):
        await Flow().run()


@tenacities
async def test_a_tenacity_object_may_want_another_attempt_though_the_step_returned(make: Settings) -> None:
    """Nothing of what it does not accept goes on, and effects are not repeated."""
    sent: list[int] = []

    class Flow(_Flaky):
        @step(retry_policy=make(retry=tenacity.retry_if_result(lambda ev: ev.n < 3), wait=tenacity.wait_fixed(10)))
        async def start(self, ctx: Context, ev: StartEvent) -> Halfway | Job:
            self.times.append(self.clock.now - self.began)
            ctx.send_event(Job())
            return Halfway(n=len(self.times))

        @step
        async def count(self, ev: Job) -> None:
            sent.append(1)

        @step
        async def end(self, ev: Halfway) -> StopEvent:
            return StopEvent(result=ev.n)

    flow = Flow()
    assert await flow.ends() == 3
    assert flow.times == [0, 10, 20]
    assert sent == [1]


@tenacities
async def test_a_result_that_is_never_accepted_fails_the_run_and_is_judged_once(make: Settings) -> None:
    """With tenacity's error, for the step has none; each attempt is judged once."""
    calls: list[tuple[str, int]] = []
    flow = flaky(
        make(
            stop=tenacity.stop_after_attempt(2),
            retry=tenacity.retry_always,
            after=lambda state: calls.append(("after", state.attempt_number)),
        ),
        failures=0,
    )
    with pytest.raises(tenacity.RetryError):
        await flow.ends()
    assert len(flow.times) == 2
    assert calls == [("after", 1), ("after", 2)]


@tenacities
async def test_a_step_may_ask_for_another_attempt_by_tenacitys_own_exception(make: Settings) -> None:
    """`TryAgain` is retried whatever `retry` says."""
    policy = make(retry=tenacity.retry_if_exception_type(Storm), stop=tenacity.stop_after_attempt(5))

    class Flow(Workflow):
        times = 0

        @step(retry_policy=policy)
        async def only(self, ev: StartEvent) -> StopEvent:
            Flow.times += 1
            if Flow.times < 3:
                raise tenacity.TryAgain
            return StopEvent(result=Flow.times)

    assert await Flow().run() == 3


async def test_one_policy_object_serves_many_runs_at_once() -> None:
    """No count of one is seen by another."""
    policy = tenacity.AsyncRetrying(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_none())
    flows = [flaky(policy, failures=n % 3) for n in range(30)]
    assert await asyncio.gather(*(flow.run() for flow in flows)) == [n % 3 + 1 for n in range(30)]


async def test_retries_and_waits_for_a_human_go_together() -> None:
    """A failure after an answer asks the human nothing, and the delays are kept."""

    class Answer(HumanResponseEvent):
        pass

    class Flow(_Flaky):
        @step(retry_policy=Retry(attempts=2, wait=10))
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.wait_for_event(Answer)
            self.times.append(self.clock.now - self.began)
            if len(self.times) == 1:
                raise Weather
            return StopEvent()

    flow = Flow()
    with use_clock(flow.clock):
        handler = flow.run()
        await flow.clock.advance(30)
        handler.ctx.send_event(Answer())
        await flow.clock.advance(10)
        assert handler.is_done()
    assert flow.times == [30, 40]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Retry(attempts=0), r"runs at least once. Write Retry\(attempts=1\)"),
        (lambda: Retry(within=-1), "a time limit is not negative"),
        (lambda: Retry(wait=-1), "a delay is not negative"),
        (lambda: Retry(attempts=None), r"would try for ever. Write Retry\(attempts=None, within=600\)"),
        (lambda: ConstantDelayRetryPolicy(maximum_attempts=0), "runs at least once"),
        (lambda: ConstantDelayRetryPolicy(delay=-1), "a delay is not negative"),
        (lambda: ExponentialBackoffRetryPolicy(multiplier=0.5), "a back-off grows"),
        (lambda: ExponentialBackoffRetryPolicy(initial_delay=10, max_delay=5), "max_delay=10 or more"),
        (lambda: ExponentialBackoffRetryPolicy(initial_delay=-1), "a delay is not negative"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused_where_it_is_written(make: Callable[[], Any], said: str) -> None:
    """With what to write instead."""
    with pytest.raises(WorkflowValidationError, match=said):
        make()


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (Retry, r"retry_policy=Retry is a class. Write retry_policy=Retry\(...\)"),
        (tenacity.AsyncRetrying, r"retry_policy=AsyncRetrying is a class"),
        (tenacity.retry(lambda: None), "is a decorated function. Pass the tenacity object"),
        (3, r"has no method next\(elapsed_time, attempts, error\)"),
        ("often", r"Write retry_policy=Retry\(attempts=3\)"),
    ],
)
def test_what_is_no_policy_is_refused_at_the_step(policy: Any, said: str) -> None:
    """When the class is defined, naming the step."""
    with pytest.raises(WorkflowValidationError, match=rf"step 'only'.*{said}"):
        flaky(policy)


async def test_a_library_that_another_thread_is_importing_just_now_fails_no_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Fine(Workflow):
        @step(retry_policy=Retry(attempts=2, wait=0))
        async def one(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result="fine")

    monkeypatch.setitem(sys.modules, "tenacity", ModuleType("tenacity"))
    assert await Fine().run() == "fine"
