"""A step that is executed again repeats nothing that it did: retried, or put away inside a wait and restored."""

from __future__ import annotations

import asyncio
from collections import Counter
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
    WorkflowStalledError,
    WorkflowTimeoutError,
    step,
)
from agentflow.clock import use_clock
from agentflow.testing import FakeClock

again = Retry(attempts=20, wait=0)


class Work(Event):
    n: int = 0


class Part(Event):
    n: int = 0
    k: int = 0


class Batch(Event):
    parts: list[tuple[int, int]]


class Question(InputRequiredEvent):
    text: str = ""


class Answer(HumanResponseEvent):
    text: str = ""
    to: str = ""


class News(Event):
    """Sent by a step, awaited by another."""

    n: int = 0


class Flaky(Exception):  # noqa: N818 because it is no fault
    """What makes an attempt fail."""


async def test_the_nth_send_of_a_type_is_the_same_send_in_every_attempt() -> None:
    """An attempt that gets further than the one before adds only what is new; types are counted apart."""
    received: list[tuple[str, int]] = []

    class Flow(Workflow):
        attempts = 0

        @step(retry_policy=again)
        async def start(self, ctx: Context, ev: StartEvent) -> Work | News | None:
            Flow.attempts += 1
            for n in range(Flow.attempts):
                ctx.send_event(Work(n=n))
            ctx.send_event(News(n=0))
            if Flow.attempts < 4:
                raise Flaky
            return None

        @step(num_workers=1)
        async def take(self, ctx: Context, ev: Work | News) -> StopEvent | None:
            received.append((type(ev).__name__, ev.n))
            return StopEvent() if ctx.collect_events(ev, {Work: 4, News: 1}) else None

    await Flow().run()
    assert sorted(received) == [("News", 0), ("Work", 0), ("Work", 1), ("Work", 2), ("Work", 3)]


async def test_a_collected_event_is_added_once_and_what_a_failed_attempt_took_goes_back() -> None:
    """Without that, a retry after `collect_events` would count one event twice, or lose the others."""
    seen: list[list[int]] = []

    class Flow(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[Work]:
            return [Work(n=n) for n in range(5)]

        @step(num_workers=1, retry_policy=again)
        async def gather(self, ctx: Context, ev: Work) -> StopEvent | None:
            got = ctx.collect_events(ev, [Work] * 3)
            if got is None:
                return None
            seen.append([e.n for e in got])
            if len(seen) < 3:
                raise Flaky
            return StopEvent(result=[e.n for e in got])

    assert await Flow().run() == [0, 1, 2]
    assert seen == [[0, 1, 2]] * 3


async def test_an_attempt_that_fails_before_it_completes_a_collection_leaves_its_event_there() -> None:
    """Another delivery may complete it while the first one waits for its next attempt."""

    class Flow(Workflow):
        failed = False

        @step
        async def start(self, ev: StartEvent) -> list[Work]:
            return [Work(n=0), Work(n=1)]

        @step(num_workers=1, retry_policy=Retry(wait=60))
        async def gather(self, ctx: Context, ev: Work) -> StopEvent | None:
            got = ctx.collect_events(ev, [Work] * 2)
            if not self.failed:
                type(self).failed = True
                raise Flaky
            return StopEvent(result=[e.n for e in got]) if got else None

    with use_clock(FakeClock()):
        assert await Flow().run() == [0, 1]


async def test_what_several_failed_attempts_took_out_goes_back_in_order() -> None:
    """Whichever of them fails first."""
    meeting = asyncio.Barrier(2)
    got_at_last: list[int] = []

    tries: Counter[int] = Counter()

    class Flow(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[Work]:
            return [Work(n=n) for n in range(4)]

        @step(num_workers=4, retry_policy=again)
        async def gather(self, ctx: Context, ev: Work) -> Part | None:
            got = ctx.collect_events(ev, [Work] * 2)
            tries[ev.n] += 1
            if got is None:
                return None
            if tries[ev.n] == 1:
                await meeting.wait()
                if ev.n == 1:
                    await asyncio.sleep(0)
                raise Flaky
            got_at_last.extend(e.n for e in got)
            return Part()

        @step
        async def end(self, ctx: Context, ev: Part) -> StopEvent | None:
            return StopEvent() if ctx.collect_events(ev, [Part] * 2) else None

    await Flow().run()
    assert got_at_last == [0, 1, 2, 3]


async def test_plain_functions_repeat_no_effect_either() -> None:
    """From their threads: sends, collections, `ctx.once`, keys."""
    received: list[int] = []
    calls: list[int] = []
    keys: set[str] = set()
    failed: set[int] = set()

    class Flow(Workflow):
        @step
        def start(self, ev: StartEvent) -> list[Work]:
            return [Work(n=n) for n in range(8)]

        @step(num_workers=4, retry_policy=again)
        def gather(self, ctx: Context, ev: Work) -> Part | News:
            ctx.send_event(News(n=ev.n))
            got = ctx.collect_events(ev, {Work: 4})
            ctx.from_thread(ctx.once("call", calls.append, ev.n))
            keys.add(ctx.idempotency_key)
            if ev.n not in failed:
                failed.add(ev.n)
                raise Flaky
            return Part(n=len(got or ()))

        @step(num_workers=1)
        def end(self, ctx: Context, ev: Part | News) -> StopEvent | None:
            received.append(ev.n if isinstance(ev, News) else -ev.n)
            return StopEvent() if ctx.collect_events(ev, [Part, News] * 8) else None

    await Flow().run()
    assert sorted(received) == [-4, -4, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7]
    assert sorted(calls) == list(range(8))
    assert len(keys) == 8


points = st.sets(st.tuples(st.sampled_from("wg"), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), max_size=40)


class Failing(Workflow):
    """Three parts of each of four works, gathered by threes, then all of them."""

    def __init__(self, failures: set[tuple[str, int, int, int]], workers: int) -> None:
        super().__init__(name=f"Failing{workers}")
        self.failures = failures
        self.attempts: Counter[tuple[str, int, int]] = Counter()
        self.calls: Counter[tuple[str, int, int]] = Counter()
        self.keys: dict[tuple[str, int, int], set[str]] = {}

    def begin(self, ctx: Context, who: tuple[str, int, int]) -> int:
        self.keys.setdefault(who, set()).add(ctx.idempotency_key)
        self.attempts[who] += 1
        return self.attempts[who] - 1

    def maybe_fail(self, kind: str, n: int, attempt: int, point: int) -> None:
        if (kind, n, attempt, point) in self.failures:
            raise Flaky

    @step(retry_policy=again)
    async def start(self, ctx: Context, ev: StartEvent) -> list[Work]:
        self.maybe_fail("w", 0, self.begin(ctx, ("s", 0, 0)), 3)
        return [Work(n=n) for n in range(4)]

    @step(num_workers=3, retry_policy=again)
    async def work(self, ctx: Context, ev: Work) -> Part:
        who = ("w", ev.n, 0)
        attempt = self.begin(ctx, who)
        for k in range(2):
            self.maybe_fail("w", ev.n, attempt, k)
            await asyncio.sleep(0)
            ctx.send_event(Part(n=ev.n, k=k))
        await ctx.once("count", self.calls.update, [who])
        self.maybe_fail("w", ev.n, attempt, 2)
        return Part(n=ev.n, k=2)

    @step(num_workers=2, retry_policy=again)
    async def gather(self, ctx: Context, ev: Part) -> Batch | None:
        attempt = self.begin(ctx, ("g", ev.n, ev.k))
        self.maybe_fail("g", ev.n, attempt, 0)
        got = ctx.collect_events(ev, {Part: 3})
        await asyncio.sleep(0)
        self.maybe_fail("g", ev.n, attempt, 1 + ev.k)
        return Batch(parts=[(p.n, p.k) for p in got]) if got else None

    @step(num_workers=1, retry_policy=again)
    async def end(self, ctx: Context, ev: Batch) -> StopEvent | None:
        got = ctx.collect_events(ev, [Batch] * 4)
        self.maybe_fail("g", 3, self.begin(ctx, ("e", *ev.parts[0])), 3)
        return StopEvent(result=[part for batch in got for part in batch.parts]) if got else None


@settings(max_examples=200)
@given(points)
def test_whatever_fails_and_is_retried_the_result_is_as_if_nothing_had_failed(
    failures: set[tuple[str, int, int, int]],
) -> None:
    """Nothing is lost, nothing comes twice, no effect is repeated, and every attempt has the same key."""
    flow = Failing(failures, 2)
    result = flow.run_sync()
    assert Counter(result) == Counter((n, k) for n in range(4) for k in range(3))
    assert set(flow.calls.values()) == {1}
    assert all(len(keys) == 1 for keys in flow.keys.values())
    assert len(set.union(*flow.keys.values())) == len(flow.keys)


async def test_once_calls_its_function_once_over_all_attempts() -> None:
    """Plain or coroutine function, with its arguments; keys are apart; what raised is called again."""
    calls: list[str] = []

    async def charge(amount: int, *, currency: str) -> str:
        calls.append("charge")
        return f"{amount} {currency}"

    def fail_at_first() -> int:
        calls.append("fail")
        if calls.count("fail") == 1:
            raise Flaky
        return 7

    class Flow(Workflow):
        attempts = 0

        @step(retry_policy=again)
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            Flow.attempts += 1
            receipt = await ctx.once("charge", charge, 5, currency="EUR")
            number = await ctx.once("number", fail_at_first)
            if Flow.attempts < 4:
                raise Flaky
            return StopEvent(result=(receipt, number))

    assert await Flow().run() == ("5 EUR", 7)
    assert calls == ["charge", "fail", "fail"]


async def test_the_idempotency_key_names_a_delivery_not_an_attempt() -> None:
    """The same in every attempt; another one for every other event, step and run."""
    keys: list[str] = []

    class Flow(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> list[Work]:
            keys.append(ctx.idempotency_key)
            return [Work(n=0), Work(n=1)]

        @step(retry_policy=again, num_workers=1)
        async def work(self, ctx: Context, ev: Work) -> StopEvent | None:
            keys.append(ctx.idempotency_key)
            assert ctx.idempotency_key == keys[-1]
            if ev.n == 0 and len(keys) == 2:
                raise Flaky
            return StopEvent() if ctx.collect_events(ev, [Work] * 2) else None

    handler = Flow().run()
    await handler
    start, first, *others = keys
    assert sorted([first, *others]).count(first) == 2
    assert len({start, first, *others}) == 3
    assert all(key.startswith(handler.run_id) for key in keys)
    await Flow().run()
    assert len(set(keys)) == 6


async def test_a_wait_keeps_the_frame_of_the_step() -> None:
    """Its body is not executed again when the event comes."""
    entered: list[int] = []

    class Flow(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            entered.append(1)
            first = await ctx.wait_for_event(Answer, waiter_event=Question(text="1"))
            second = await ctx.wait_for_event(Answer, waiter_event=Question(text="2"))
            return StopEvent(result=first.text + second.text)

    handler = Flow().run()
    async for event in handler.stream_events():
        if isinstance(event, Question):
            handler.ctx.send_event(Answer(text=f"a{event.text}"))
    assert await handler == "a1a2"
    assert entered == [1]


async def test_an_answer_that_came_before_the_wait_is_not_lost() -> None:
    """Answers from outside, and events that a step announces that it will await, are kept in order."""

    class Flow(Workflow):
        @step(waits=[News])
        async def only(self, ctx: Context, ev: StartEvent) -> News | StopEvent:
            ctx.send_event(News(n=1))
            ctx.send_event(News(n=2))
            await asyncio.sleep(0)
            answer = await ctx.wait_for_event(Answer)
            news = [(await ctx.wait_for_event(News)).n for _ in range(2)]
            return StopEvent(result=(answer.text, news))

    handler = Flow().run()
    handler.ctx.send_event(Answer(text="early"))
    assert await handler == ("early", [1, 2])


async def test_a_thousand_early_events_are_kept_and_the_next_one_is_refused() -> None:
    """The sender learns that nobody takes them."""

    class Flow(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.wait_for_event(Answer, requirements={"to": "start"})
            return StopEvent(result=[(await ctx.wait_for_event(Answer)).text for _ in range(1_000)])

    handler = Flow().run()
    for n in range(1_000):
        handler.ctx.send_event(Answer(text=str(n)))
    with pytest.raises(WorkflowRuntimeError, match=r"1,000 events .* are kept .* Does a step still await them"):
        handler.ctx.send_event(Answer(text="1000"))
    await asyncio.sleep(0)
    handler.ctx.send_event(Answer(to="start"))
    assert await handler == [str(n) for n in range(1_000)]


async def test_requirements_choose_among_events_and_among_waits() -> None:
    """Every field must be equal; the others stay for whoever they fit."""

    class Flow(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[Work]:
            return [Work(n=1), Work(n=2)]

        @step
        async def ask(self, ctx: Context, ev: Work) -> Part:
            answer = await ctx.wait_for_event(Answer, requirements={"to": f"step {ev.n}", "text": "yes"})
            assert answer.to == f"step {ev.n}"
            return Part(n=ev.n)

        @step(num_workers=1)
        async def end(self, ctx: Context, ev: Part) -> StopEvent | None:
            got = ctx.collect_events(ev, [Part] * 2)
            return StopEvent(result=[p.n for p in got]) if got else None

    handler = Flow().run()
    for to, text in [("step 2", "no"), ("step 2", "yes"), ("nobody", "yes")]:
        handler.ctx.send_event(Answer(to=to, text=text))
    await _settle()
    handler.ctx.send_event(Answer(to="step 1", text="yes"))
    assert await handler == [2, 1]


async def test_one_event_answers_one_wait_the_first_that_began() -> None:
    """First come, first served, among the steps and within one."""

    class Flow(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            waits = [asyncio.ensure_future(ctx.wait_for_event(Answer)) for _ in range(3)]
            return StopEvent(result=[answer.text for answer in await asyncio.gather(*waits)])

    handler = Flow().run()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for text in "abc":
        handler.ctx.send_event(Answer(text=text))
    assert await handler == ["a", "b", "c"]


async def test_a_wait_that_takes_too_long_raises_in_the_step() -> None:
    """Where it can be caught; days take no time, and an answer in time stops the clock."""

    class Flow(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            first = await ctx.wait_for_event(Answer, timeout=86_400)
            try:
                await ctx.wait_for_event(Answer, timeout=60)
            except WorkflowTimeoutError as error:
                return StopEvent(result=(first.text, str(error)))
            return StopEvent()

    with use_clock(FakeClock()) as clock:
        handler = Flow().run()
        await clock.advance(86_399)
        handler.ctx.send_event(Answer(text="in time"))
        await clock.advance(59)
        assert not handler.is_done()
        await clock.advance(1)
    text, message = await handler
    assert text == "in time"
    assert message == "step 'only' of 'Flow' waited 60 s for an Answer, and none came"


async def test_a_wait_for_what_only_this_workflow_could_send_is_known_to_be_in_vain() -> None:
    """It stalls at once; a wait for a human, or for a type that no step produces, never does."""

    class Flow(Workflow):
        @step(waits=[News])
        async def only(self, ctx: Context, ev: StartEvent) -> News | StopEvent:
            await ctx.wait_for_event(News)
            return StopEvent()

    with pytest.raises(WorkflowStalledError, match="step 'only' waits for News"):
        await Flow().run()

    class FromOutside(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=(await ctx.wait_for_event(Work)).n)

    handler = FromOutside().run()
    for _ in range(5):
        await asyncio.sleep(0)
    handler.ctx.send_event(Work(n=4))
    assert await handler == 4


async def test_answered_waits_are_not_asked_again_by_a_retry() -> None:
    """Neither is the question shown twice, nor does the human answer twice."""
    questions: list[str] = []

    class Flow(Workflow):
        attempts = 0

        @step(retry_policy=again)
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            Flow.attempts += 1
            name = await ctx.wait_for_event(Answer, waiter_event=Question(text="name"))
            if Flow.attempts == 1:
                raise Flaky
            color = await ctx.wait_for_event(Answer, waiter_event=Question(text="color"), waiter_id="color")
            if Flow.attempts == 2:
                raise Flaky
            return StopEvent(result=(name.text, color.text))

    handler = Flow().run()
    async for event in handler.stream_events():
        if isinstance(event, Question):
            questions.append(event.text)
            handler.ctx.send_event(Answer(text=f"my {event.text}"))
    assert await handler == ("my name", "my color")
    assert questions == ["name", "color"]
    assert Flow.attempts == 3


class Interview(Workflow):
    """Asks twice, with effects before, between and after."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []

    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> Work | Part:
        self.log.append("top")
        ctx.send_event(Work(n=1))
        paid = await ctx.once("pay", self._pay)
        name = await ctx.wait_for_event(Answer, waiter_event=Question(text="name"))
        ctx.send_event(Work(n=2))
        color = await ctx.wait_for_event(Answer, waiter_event=Question(text="color"), waiter_id="color")
        await ctx.set("heard", [name.text, color.text, paid])
        await ctx.set("key", ctx.idempotency_key)
        return Part()

    def _pay(self) -> str:
        self.log.append("pay")
        return "receipt"

    @step(num_workers=1)
    async def end(self, ctx: Context, ev: Work | Part) -> StopEvent | None:
        self.log.append(f"{type(ev).__name__} {ev.n}")
        got = ctx.collect_events(ev, [Work, Work, Part])
        return StopEvent(result=[*(await ctx.get("heard")), [e.n for e in got]]) if got else None


async def _settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_step_put_away_inside_a_wait_runs_again_from_its_top_and_gets_the_answer_there() -> None:
    """Twice put away, in JSON; what it sent, paid and was told before stays done."""
    flow = Interview()
    handler = flow.run()
    await _settle()
    first = handler.ctx.to_json()
    await handler.cancel_run()
    assert flow.log == ["top", "pay", "Work 1"]

    second_flow = Interview()
    handler = second_flow.run(ctx=Context.from_json(second_flow, first))
    handler.ctx.send_event(Answer(text="Ann"))
    await _settle()
    second = handler.ctx.to_json()
    await handler.cancel_run()
    assert second_flow.log == ["top", "Work 2"]

    third_flow = Interview()
    handler = third_flow.run(ctx=Context.from_json(third_flow, second))
    await _settle()
    handler.ctx.send_event(Answer(text="red"))
    assert await handler == ["Ann", "red", "receipt", [1, 2, 0]]
    assert third_flow.log == ["top", "Part 0"]


async def test_the_question_of_a_wait_is_not_put_again_after_a_restore() -> None:
    """Who answers has read it already; the next question is put."""
    flow = Interview()
    handler = flow.run()
    await _settle()
    stored = handler.ctx.to_dict()
    await handler.cancel_run()
    handler = flow.run(ctx=Context.from_dict(flow, stored))
    handler.ctx.send_event(Answer(text="Ann"))
    questions = []
    async for event in handler.stream_events():
        if isinstance(event, Question):
            questions.append(event.text)
            handler.ctx.send_event(Answer(text="red"))
    assert questions == ["color"]


async def test_a_pause_by_a_returned_question_runs_nothing_again() -> None:
    """The step that asked has finished; another one takes up the answer, next month, elsewhere."""
    ran: list[str] = []

    class Flow(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> Question:
            ran.append("ask")
            await ctx.set("asked", ev.topic)
            return Question(text="?")

        @step
        async def hear(self, ctx: Context, ev: Answer) -> StopEvent:
            ran.append("hear")
            return StopEvent(result=(await ctx.get("asked"), ev.text))

    flow = Flow()
    handler = flow.run(topic="pirates")
    async for event in handler.stream_events():
        if isinstance(event, Question):
            break
    stored = handler.ctx.to_json()
    await handler.cancel_run()

    resumed = Flow()
    handler = resumed.run(ctx=Context.from_json(resumed, stored))
    await _settle()
    assert not handler.is_done()
    handler.ctx.send_event(Answer(text="yes"))
    assert await handler == ("pirates", "yes")
    assert ran == ["ask", "hear"]


async def test_early_answers_and_what_may_come_early_survive_being_put_away() -> None:
    """Also a type that only the wait itself names: it is taken as soon as the run goes on."""

    class Flow(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            work = await ctx.wait_for_event(Work)
            answer = await ctx.wait_for_event(Answer)
            return StopEvent(result=(work.n, answer.text))

    flow = Flow()
    handler = flow.run()
    await _settle()
    handler.ctx.send_event(Answer(text="early"))
    stored = handler.ctx.to_json()
    await handler.cancel_run()
    twice = Context.from_json(flow, Context.from_json(flow, stored).to_json())
    handler = flow.run(ctx=twice)
    handler.ctx.send_event(Work(n=3))
    assert await handler == (3, "early")


async def test_the_idempotency_key_and_the_count_of_failures_survive_being_put_away() -> None:
    """A delivery is the same one wherever it is executed."""
    keys: list[str] = []
    attempts: list[int] = []

    class Policy:
        def next(self, elapsed_time: float, attempts_so_far: int, error: Exception) -> float:
            attempts.append(attempts_so_far)
            return 100

    class Flow(Workflow):
        @step(retry_policy=Policy())
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            keys.append(ctx.idempotency_key)
            if len(keys) < 4:
                raise Flaky
            return StopEvent()

    with use_clock(FakeClock()) as clock:
        flow = Flow()
        handler = flow.run()
        await clock.advance(150)
        stored = handler.ctx.to_json()
        await handler.cancel_run()
        handler = flow.run(ctx=Context.from_json(flow, stored))
        await clock.advance(200)
        await handler
    assert len(set(keys)) == 1
    assert attempts == [1, 2, 3]


async def test_a_wait_that_had_expired_does_not_take_the_answer_of_a_later_one_after_a_restore() -> None:
    """The step runs again from its top, and its first wait ends as it had ended."""

    class Flow(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            try:
                heard = (await ctx.wait_for_event(Answer, timeout=60)).text
            except WorkflowTimeoutError:
                heard = "nothing"
            return StopEvent(result=(heard, (await ctx.wait_for_event(Answer)).text))

    with use_clock(FakeClock()) as clock:
        flow = Flow()
        handler = flow.run()
        await clock.advance(60)
        stored = handler.ctx.to_json()
        await handler.cancel_run()
        handler = flow.run(ctx=Context.from_json(flow, stored))
        await clock.settle()
        handler.ctx.send_event(Answer(text="here"))
        await clock.advance(60)
        assert handler.is_done()
        assert await handler == ("nothing", "here")


async def test_a_retry_waits_anew_where_the_wait_had_expired() -> None:
    """A time-out is no answer."""

    class Flow(Workflow):
        @step(retry_policy=Retry(attempts=3, wait=0))
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=(await ctx.wait_for_event(Answer, timeout=60)).text)

    with use_clock(FakeClock()) as clock:
        handler = Flow().run()
        await clock.advance(150)
        handler.ctx.send_event(Answer(text="at last"))
        assert await handler == "at last"


async def test_a_waiter_id_that_a_step_uses_again_names_another_wait() -> None:
    """A loop that asks until it is content gets a new answer each time."""
    questions: list[str] = []

    class Flow(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            heard: list[str] = []
            while "yes" not in heard and len(heard) < 5:
                answer = await ctx.wait_for_event(Answer, waiter_event=Question(text="?"), waiter_id="sure")
                heard.append(answer.text)
            return StopEvent(result=heard)

    handler = Flow().run()
    async for event in handler.stream_events():
        if isinstance(event, Question):
            questions.append(event.text)
            handler.ctx.send_event(Answer(text=["no", "perhaps", "yes"][len(questions) - 1]))
    assert await handler == ["no", "perhaps", "yes"]


async def test_an_id_that_looks_like_a_number_is_no_other_wait() -> None:
    """Waits without an id are counted apart."""

    class Flow(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            waits = [ctx.wait_for_event(Answer), ctx.wait_for_event(Answer, waiter_id="0"), ctx.wait_for_event(Answer)]
            return StopEvent(result=[(await wait).text for wait in waits])

    handler = Flow().run()
    for text in "abc":
        handler.ctx.send_event(Answer(text=text))
    assert await handler == ["a", "b", "c"]


async def test_a_delivery_that_was_under_way_has_the_same_key_in_both_lives_of_its_run() -> None:
    """Whoever asks first: else the effect of one would be taken for that of the other."""
    lives: list[dict[int, str]] = []

    class Flow(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[Work]:
            return [Work(n=0), Work(n=1)]

        @step
        async def work(self, ctx: Context, ev: Work) -> StopEvent | None:
            await ctx.wait_for_event(Answer, requirements={"to": str(ev.n)})
            lives[-1][ev.n] = ctx.idempotency_key
            return StopEvent() if ctx.collect_events(ev, {Work: 2}) else None

    flow = Flow()
    handler = flow.run()
    await _settle()
    stored = handler.ctx.to_json()
    for order in ("01", "10"):
        lives.append({})
        for to in order:
            handler.ctx.send_event(Answer(to=to))
            await _settle()
        await handler
        handler = flow.run(ctx=Context.from_json(flow, stored))
        await _settle()
    await handler.cancel_run()
    assert lives[0] == lives[1]


async def test_an_effect_that_cannot_be_stored_is_named() -> None:
    """With the step, so that one knows where to look."""

    class Flow(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.once("client", object)
            await ctx.wait_for_event(Answer)
            return StopEvent()

    handler = Flow().run()
    await _settle()
    with pytest.raises(ValueError, match=r"ctx\.once of step 'only'\.client holds an object"):
        handler.ctx.to_dict()
    await handler.cancel_run()


async def test_the_methods_for_effects_belong_in_a_step() -> None:
    """The caller has no delivery."""
    ctx: Context[Any] = Context(Interview())
    with pytest.raises(WorkflowRuntimeError, match="belongs in a step"):
        _ = ctx.idempotency_key
    with pytest.raises(WorkflowRuntimeError, match="belongs in a step"):
        await ctx.once("key", list)
    with pytest.raises(WorkflowRuntimeError, match="belongs in a step"):
        await ctx.wait_for_event(Answer)
