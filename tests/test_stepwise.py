"""A run that stands still between its steps, in the three forms that the documents have."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow import (
    Context,
    Event,
    Handler,
    HumanResponseEvent,
    InputRequiredEvent,
    Retry,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowRuntimeError,
    WorkflowStalledError,
    step,
)
from agentflow.clock import use_clock
from agentflow.testing import FakeClock


class Joke(Event):
    text: str = ""


class Critique(Event):
    text: str = ""


class Side(Event):
    n: int = 0


class Ask(InputRequiredEvent):
    pass


class Answer(HumanResponseEvent):
    text: str = ""


class Jokes(Workflow):
    """Three steps; the first also sends, and what it sends is taken without producing anything."""

    def __init__(self, timeout: float | None = None) -> None:
        super().__init__(timeout=timeout)
        self.ran: list[str] = []

    @step
    async def tell(self, ctx: Context, ev: StartEvent) -> Joke | Side:
        self.ran.append("tell")
        await ctx.set("told", 1)
        ctx.send_event(Side(n=1))
        ctx.send_event(Side(n=2))
        return Joke(text="ha")

    @step
    async def swallow(self, ev: Side) -> None:
        self.ran.append(f"swallow {ev.n}")

    @step
    async def criticise(self, ev: Joke) -> Critique:
        self.ran.append("criticise")
        return Critique(text=f"not {ev.text}")

    @step
    async def end(self, ev: Critique) -> StopEvent:
        self.ran.append("end")
        return StopEvent(result=ev.text)


def names(events: list[Event]) -> list[str]:
    """Their types."""
    return [type(event).__name__ for event in events]


async def settle() -> None:
    """Let everything happen that can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def explicit(handler: Handler[Any], change: Callable[[Event], Event] = lambda event: event) -> list[list[str]]:
    """001's form: send on, changed or not, what each step produced."""
    rounds: list[list[str]] = []
    while produced := await handler.run_step():
        rounds.append(names(produced))
        for event in produced:
            handler.ctx.send_event(change(event))
    return rounds


async def test_each_call_hands_out_all_that_one_step_sent_and_returned() -> None:
    """001: `run(stepwise=True)`. Steps that produce nothing are passed over; empty is only the end."""
    flow = Jokes()
    handler = flow.run(stepwise=True)
    assert await explicit(handler) == [["Side", "Side", "Joke"], ["Critique"], ["StopEvent"]]
    assert flow.ran == ["tell", "swallow 1", "swallow 2", "criticise", "end"]
    assert handler.is_done()
    assert await handler == "not ha"
    assert await handler.run_step() == []


async def test_the_run_stands_still_while_the_body_of_the_loop_runs() -> None:
    """000: `async for _ in handler`. What was handed out is sent on by itself, with what was changed in it."""
    flow = Jokes()
    handler = flow.run()
    rounds = []
    async for produced in handler:
        rounds.append(names(produced))
        before = list(flow.ran)
        await settle()
        assert flow.ran == before
        assert await handler.ctx.get("told") == 1
        for event in produced:
            if isinstance(event, Joke):
                event.text = "changed"
    assert rounds == [["Side", "Side", "Joke"], ["Critique"], ["StopEvent"]]
    assert await handler == "not changed"


async def test_the_first_call_of_run_step_holds_a_run_that_has_not_begun() -> None:
    """002: `while not handler.is_done(): await handler.run_step()`."""
    flow = Jokes()
    handler = flow.run()
    calls = 0
    while not handler.is_done():
        produced = await handler.run_step()
        calls += 1
        before = list(flow.ran)
        await settle()
        assert flow.ran == before
        assert bool(produced) != handler.is_done()
    assert calls == 4
    assert handler.result() == "not ha"


async def test_002_sends_on_what_it_was_given_and_nothing_comes_twice() -> None:
    """Its loop calls `send_event` although the next call would do so as well."""
    flow = Jokes()
    handler = flow.run()
    while not handler.is_done():
        for event in await handler.run_step():
            event.set("seen", 1)
            handler.ctx.send_event(event)
    assert flow.ran == ["tell", "swallow 1", "swallow 2", "criticise", "end"]
    assert handler.result() == "not ha"


async def test_a_changed_copy_replaces_what_was_handed_out() -> None:
    """It goes where the original would have gone, once; also when the loop would send on by itself."""
    for stepwise in (True, False):
        flow = Jokes()
        handler = flow.run(stepwise=stepwise)
        rounds = await explicit(handler, lambda e: Joke(text="better") if isinstance(e, Joke) else e)
        assert rounds == [["Side", "Side", "Joke"], ["Critique"], ["StopEvent"]]
        assert flow.ran == ["tell", "swallow 1", "swallow 2", "criticise", "end"]
        assert await handler == "not better"


async def test_what_was_sent_to_one_step_goes_there_after_it_was_held() -> None:
    """Two steps accept it; only the one that it was addressed to gets it."""
    ran: list[str] = []

    class Flow(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> list[Joke]:
            ctx.send_event(Joke(), step="two")
            return []

        @step
        async def one(self, ev: Joke) -> StopEvent:
            ran.append("one")
            return StopEvent(result=1)

        @step
        async def two(self, ev: Joke) -> StopEvent:
            ran.append("two")
            return StopEvent(result=2)

    handler = Flow().run(stepwise=True)
    await explicit(handler)
    assert await handler == 2
    assert ran == ["two"]


async def test_what_is_not_sent_on_stays_held() -> None:
    """A later call hands out only what is new, and when nothing else can run, says what it waits for."""
    flow = Jokes()
    handler = flow.run(stepwise=True)
    one, two, joke = await handler.run_step()
    handler.ctx.send_event(two)
    with pytest.raises(
        WorkflowRuntimeError, match=r"nothing can run: Side, Joke was handed out and not sent on\. Write: for ev in"
    ):
        await handler.run_step()
    assert flow.ran == ["tell", "swallow 2"]
    handler.ctx.send_event(joke)
    (critique,) = await handler.run_step()
    handler.ctx.send_event(critique)
    (stop,) = await handler.run_step()
    handler.ctx.send_event(one)
    handler.ctx.send_event(stop)
    assert await handler.run_step() == []
    assert flow.ran == ["tell", "swallow 2", "criticise", "end"]


async def test_a_stop_event_that_was_handed_out_ends_the_run_and_is_never_an_error() -> None:
    """Sent once, twice, or after the next call has sent it on; anything else is refused after the end."""
    for stepwise in (True, False):
        handler = Jokes().run(stepwise=stepwise)
        stop: Event | None = None
        while not isinstance(stop, StopEvent):
            for event in await handler.run_step():
                stop = event
                if not isinstance(event, StopEvent):
                    handler.ctx.send_event(event)
        assert not handler.is_done()
        if not stepwise:
            assert await handler.run_step() == []
        handler.ctx.send_event(stop)
        handler.ctx.send_event(stop)
        assert await handler == "not ha"
        with pytest.raises(WorkflowRuntimeError, match="has ended, so a Joke cannot be sent"):
            handler.ctx.send_event(Joke())


async def test_a_changed_result_is_the_result() -> None:
    """The StopEvent is held like any other event."""
    handler = Jokes().run(stepwise=True)
    await explicit(handler, lambda e: StopEvent(result="mine") if isinstance(e, StopEvent) else e)
    assert await handler == "mine"


async def test_steps_run_one_at_a_time_in_the_order_of_their_events() -> None:
    """Even where there are slots for more."""
    going: list[int] = []

    class Flow(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[Side]:
            return [Side(n=n) for n in range(4)]

        @step(num_workers=4)
        async def work(self, ctx: Context, ev: Side) -> Critique:
            going.append(ev.n)
            await settle()
            assert going[-1] == ev.n
            return Critique(text=str(ev.n))

        @step
        async def end(self, ctx: Context, ev: Critique) -> StopEvent | None:
            got = ctx.collect_events(ev, {Critique: 4})
            return StopEvent(result=[e.text for e in got]) if got else None

    handler = Flow().run(stepwise=True)
    assert await explicit(handler) == [
        ["Side"] * 4,
        ["Critique"],
        ["Critique"],
        ["Critique"],
        ["Critique"],
        ["StopEvent"],
    ]
    assert await handler == ["0", "1", "2", "3"]
    assert going == [0, 1, 2, 3]


async def test_the_error_of_a_step_ends_the_stepping_and_is_raised_where_the_run_is_awaited() -> None:
    """`run_step` tells only that it is over."""

    class Fails(Jokes):
        @step
        async def criticise(self, ev: Joke) -> Critique:
            raise LookupError("no taste")

    handler = Fails().run(stepwise=True)
    assert await explicit(handler) == [["Side", "Side", "Joke"]]
    with pytest.raises(LookupError, match="no taste"):
        await handler


async def test_a_run_that_has_begun_cannot_be_held_any_more() -> None:
    """The error shows both ways to hold it from its start."""
    handler = Jokes().run()
    await asyncio.sleep(0)
    if not handler.is_done():
        with pytest.raises(WorkflowRuntimeError, match=r"workflow\.run\(\.\.\., stepwise=True\), or call run_step\(\)"):
            await handler.run_step()
    await handler
    assert await handler.run_step() == []


async def test_two_calls_at_once_are_refused() -> None:
    """The second would steal what the first waits for."""

    class Slow(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.wait_for_event(Answer)
            return StopEvent()

    handler = Slow().run(stepwise=True)
    first = asyncio.create_task(handler.run_step())
    await settle()
    with pytest.raises(WorkflowRuntimeError, match=r"run_step\(\) is running already, in another task"):
        await handler.run_step()
    handler.ctx.send_event(Answer())
    assert names(await first) == ["StopEvent"]
    await handler.cancel_run()


async def test_a_call_that_is_cancelled_loses_nothing() -> None:
    """The next call goes on with the step that was running."""

    class Slow(Jokes):
        @step
        async def tell(self, ctx: Context, ev: StartEvent) -> Joke | Side:
            await ctx.wait_for_event(Answer)
            return await super().tell(ctx, ev)

    flow = Slow()
    handler = flow.run(stepwise=True)
    first = asyncio.create_task(handler.run_step())
    await settle()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    handler.ctx.send_event(Answer())
    await settle()
    assert await explicit(handler) == [["Side", "Side", "Joke"], ["Critique"], ["StopEvent"]]
    assert flow.ran == ["tell", "swallow 1", "swallow 2", "criticise", "end"]


async def test_stepping_waits_for_a_human_as_long_as_it_takes() -> None:
    """In a step that waits, and between steps; the question is on the stream."""

    class Flow(Workflow):
        @step
        async def ask(self, ev: StartEvent) -> list[Ask | Side]:
            return [Ask(), Side()]

        @step
        async def hear(self, ctx: Context, ev: Answer) -> Joke:
            more = await ctx.wait_for_event(Answer, waiter_event=Ask())
            return Joke(text=ev.text + more.text)

        @step
        async def side(self, ev: Side) -> None:
            pass

        @step
        async def end(self, ev: Joke) -> StopEvent:
            return StopEvent(result=ev.text)

    handler = Flow().run(stepwise=True)
    questions = handler.subscribe()
    produced = await handler.run_step()
    assert names(produced) == ["Ask", "Side"]
    handler.ctx.send_event(produced[0])
    assert isinstance(await anext(questions), Ask)
    handler.ctx.send_event(Answer(text="a"))
    stepping = asyncio.create_task(handler.run_step())
    await settle()
    assert not stepping.done()
    assert isinstance(await anext(questions), Ask)
    handler.ctx.send_event(Answer(text="b"))
    assert names(await stepping) == ["Joke"]
    handler.ctx.send_event(produced[1])
    handler.ctx.send_event(Joke(text="c"))
    await explicit(handler)
    assert await handler == "c"


async def test_stepping_waits_for_a_retry_even_while_something_is_held_back() -> None:
    """What waits for its next attempt can still run."""

    class Flow(Workflow):
        failed = False

        @step
        async def start(self, ev: StartEvent) -> list[Side | Joke]:
            return [Side(), Joke()]

        @step(retry_policy=Retry(wait=60))
        async def flaky(self, ev: Side) -> Critique:
            if not Flow.failed:
                Flow.failed = True
                raise ValueError
            return Critique()

        @step
        async def end(self, ev: Critique | Joke) -> StopEvent:
            return StopEvent(result=type(ev).__name__)

    with use_clock(FakeClock()) as clock:
        handler = Flow().run(stepwise=True)
        side, _ = await handler.run_step()
        handler.ctx.send_event(side)
        stepping = asyncio.create_task(handler.run_step())
        await clock.advance(59)
        assert not stepping.done()
        await clock.advance(1)
        assert names(await stepping) == ["Critique"]
    await handler.cancel_run()


async def test_a_stalled_run_fails_when_it_is_stepped() -> None:
    """Once nothing is held and nothing can run."""

    class Flow(Workflow):
        @step
        async def start(self, ev: StartEvent) -> Side:
            return Side()

        @step
        async def never(self, ctx: Context, ev: Side) -> StopEvent | None:
            return StopEvent() if ctx.collect_events(ev, {Side: 2}) else None

    handler = Flow().run(stepwise=True)
    assert await explicit(handler) == [["Side"]]
    with pytest.raises(WorkflowStalledError, match="step 'never' lacks 1 of 2 Side"):
        await handler


async def test_a_run_in_which_nothing_was_left_to_run_by_what_was_sent_on_fails_too() -> None:
    """The last event was only kept for a wait, and no step is there that waits."""

    class Flow(Workflow):
        @step
        async def start(self, ev: StartEvent) -> Joke:
            return Joke()

        @step(waits=[Joke])
        async def never(self, ctx: Context, ev: Answer) -> StopEvent:
            return StopEvent(result=await ctx.wait_for_event(Joke))

        @step(waits=[Side])
        async def neither(self, ctx: Context, ev: StartEvent) -> None:
            pass

    handler = Flow().run(stepwise=True)
    (joke,) = await handler.run_step()
    handler.ctx.send_event(joke)
    stepping = asyncio.create_task(handler.run_step())
    await settle()
    assert not stepping.done()
    handler.ctx.send_event(Answer())
    (stop,) = await stepping
    assert isinstance(stop, StopEvent)
    assert stop.result is joke
    await handler.cancel_run()


async def test_time_between_steps_does_not_count_towards_the_limit_of_the_run() -> None:
    """A person who looks around is not in a hurry."""
    with use_clock(FakeClock()) as clock:
        handler = Jokes(timeout=10).run(stepwise=True)
        while produced := await handler.run_step():
            await clock.advance(3_600)
            for event in produced:
                handler.ctx.send_event(event)
        assert await handler == "not ha"


async def test_plain_steps_and_context_variables_are_stepped_like_others() -> None:
    """What a held event carries is what it carried when it was produced."""

    class Flow(Workflow):
        @step
        def start(self, ctx: Context, ev: StartEvent) -> list[Side]:
            ctx.send_event(Side(n=1))
            return [Side(n=2), Side(n=3)]

        @step(num_workers=1)
        def end(self, ctx: Context, ev: Side) -> StopEvent | None:
            got = ctx.collect_events(ev, {Side: 3})
            return StopEvent(result=[s.n for s in got]) if got else None

    handler = Flow().run(stepwise=True)
    assert await explicit(handler) == [["Side"] * 3, ["StopEvent"]]
    assert await handler == [1, 2, 3]


class Net(Workflow):
    """Sends and returns as a table says, until there is nothing more to do."""

    def __init__(self, table: list[tuple[int, int]]) -> None:
        super().__init__()
        self.table = table
        self.taken: list[int] = []

    def spread(self, ctx: Context, n: int) -> list[Side]:
        """The events that one event leads to; some are sent, these are to be returned."""
        sent, returned = self.table[n % len(self.table)] if n < 30 else (0, 0)
        children = [Side(n=2 * n + 1 + k) for k in range(sent + returned)]
        for child in children[:sent]:
            ctx.send_event(child)
        return children[sent:]

    @step
    async def start(self, ctx: Context, ev: StartEvent) -> list[Side]:
        return [*self.spread(ctx, 0), Side(n=1_000)]

    @step(num_workers=3)
    async def work(self, ctx: Context, ev: Side) -> list[Side] | StopEvent | None:
        self.taken.append(ev.n)
        await asyncio.sleep(0)
        return self.spread(ctx, ev.n) or None


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=4),
    st.sampled_from(["explicit", "async for", "run_step"]),
    st.data(),
)
def test_every_event_is_handed_out_once_and_taken_once_in_every_form(
    table: list[tuple[int, int]], form: str, data: st.DataObject
) -> None:
    """Whether sent on by hand, all or some of them, in any order, or by the next call."""
    free, flow = Net(table), Net(table)
    handed: list[int] = []

    async def body(handler: Handler[Any], produced: list[Event]) -> None:
        handed.extend(event.n for event in produced if isinstance(event, Side))
        some = produced if form == "explicit" else data.draw(st.lists(st.sampled_from(produced), unique_by=id))
        for event in data.draw(st.permutations(some)):
            handler.ctx.send_event(event)
        for _ in range(data.draw(st.integers(0, 3))):
            await asyncio.sleep(0)

    async def main() -> None:
        with pytest.raises(WorkflowStalledError):
            await free.run()
        handler = flow.run(stepwise=form == "explicit")
        if form == "async for":
            async for produced in handler:
                await body(handler, produced)
        while produced := await handler.run_step():
            await body(handler, produced)
        with pytest.raises(WorkflowStalledError):
            await handler

    asyncio.run(main())
    assert sorted(flow.taken) == sorted(free.taken)
    assert sorted(handed) == sorted(free.taken)
