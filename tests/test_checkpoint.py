"""A checkpoint for every step that completes, and runs that start from there."""

from __future__ import annotations

import asyncio
import copy
import json
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from agentflow import (
    Checkpoint,
    Context,
    ContextSerdeError,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Retry,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowCheckpointer,
    WorkflowConfigurationError,
    WorkflowRuntimeError,
    step,
)
from agentflow.clock import use_clock
from agentflow.testing import FakeClock, record


class JokeEvent(Event):
    joke: str
    notes: list[str] = Field(default_factory=list)


class SlyEvent(JokeEvent):
    pass


class WrongEvent(Event):
    pass


class Jokes(Workflow):
    """Two steps; what they executed is written down."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[str] = []

    @step
    async def generate_joke(self, ctx: Context, ev: StartEvent) -> JokeEvent:
        self.ran.append("generate_joke")
        await ctx.set("topic", ev.topic)
        return JokeEvent(joke=f"about {ev.topic}")

    @step
    async def critique_joke(self, ctx: Context, ev: JokeEvent) -> StopEvent:
        self.ran.append("critique_joke")
        ev.notes.append("read")
        await ctx.set("critic", "done")
        return StopEvent(result=f"{ev.joke} is bad; {await ctx.get('topic')}; {len(ev.notes)}")


async def test_every_completed_step_leaves_a_checkpoint_in_order_of_completion() -> None:
    """With what it was given, what it returned, and the state of the run at that moment."""
    flow = Jokes()
    checkpointer = WorkflowCheckpointer(workflow=flow)
    handler = checkpointer.run(topic="Pirates")
    assert await handler == "about Pirates is bad; Pirates; 1"
    first, second = checkpointer.checkpoints[handler.run_id]
    assert (first.last_completed_step, second.last_completed_step) == ("generate_joke", "critique_joke")
    assert first.input_event == StartEvent.model_validate({"topic": "Pirates"})
    assert first.output_event == JokeEvent(joke="about Pirates")
    assert first.ctx_state["state"] == {"topic": "Pirates"}
    assert second.ctx_state["state"] == {"topic": "Pirates", "critic": "done"}
    assert second.output_event == StopEvent(result="about Pirates is bad; Pirates; 1")
    assert first.id_ != second.id_


async def test_a_run_from_a_checkpoint_repeats_no_finished_step() -> None:
    """It has an id and checkpoints of its own; fields for a start event have no effect any more."""
    flow = Jokes()
    checkpointer = WorkflowCheckpointer(workflow=flow)
    handler = checkpointer.run(topic="Pirates")
    await handler
    flow.ran.clear()
    first = checkpointer.checkpoints[handler.run_id][0]
    again = checkpointer.run_from(topic="Ships", checkpoint=first)
    assert await again == "about Pirates is bad; Pirates; 1"
    assert flow.ran == ["critique_joke"]
    assert again.run_id != handler.run_id
    assert [c.last_completed_step for c in checkpointer.checkpoints[again.run_id]] == ["critique_joke"]
    assert len(checkpointer.checkpoints[handler.run_id]) == 2


async def test_a_run_from_the_last_checkpoint_ends_at_once_with_the_same_result() -> None:
    """Nothing is left to do."""
    flow = Jokes()
    checkpointer = WorkflowCheckpointer(workflow=flow)
    handler = checkpointer.run(topic="Pirates")
    result = await handler
    flow.ran.clear()
    assert await checkpointer.run_from(checkpointer.checkpoints[handler.run_id][-1]) == result
    assert flow.ran == []


async def test_a_changed_output_is_what_the_run_goes_on_with() -> None:
    """Changed in place, or replaced; the checkpoint itself stays as it is, so it can be used again."""
    flow = Jokes()
    checkpointer = WorkflowCheckpointer(workflow=flow)
    handler = checkpointer.run(topic="Pirates")
    await handler
    first = checkpointer.checkpoints[handler.run_id][0]
    assert isinstance(first.output_event, JokeEvent)
    first.output_event.joke = "about parrots"
    assert await checkpointer.run_from(first) == "about parrots is bad; Pirates; 1"
    first.output_event = SlyEvent(joke="about krakens")
    assert await checkpointer.run_from(first) == "about krakens is bad; Pirates; 1"
    assert await checkpointer.run_from(first) == "about krakens is bad; Pirates; 1"
    first.output_event = None
    with pytest.raises(WorkflowRuntimeError, match="can never go on"):
        await checkpointer.run_from(first)


async def test_a_changed_state_is_what_the_run_goes_on_with() -> None:
    """`ctx_state` is plain data."""
    checkpointer = WorkflowCheckpointer(workflow=Jokes())
    handler = checkpointer.run(topic="Pirates")
    await handler
    first = checkpointer.checkpoints[handler.run_id][0]
    first.ctx_state["state"]["topic"] = "Ninjas"
    assert await checkpointer.run_from(first) == "about Pirates is bad; Ninjas; 1"


async def test_an_output_that_the_step_does_not_declare_is_refused() -> None:
    """Before anything runs, with the corrected line."""
    checkpointer = WorkflowCheckpointer(workflow=Jokes())
    handler = checkpointer.run(topic="Pirates")
    await handler
    first = checkpointer.checkpoints[handler.run_id][0]
    first.output_event = WrongEvent()
    with pytest.raises(WorkflowRuntimeError, match="'generate_joke' returned a WrongEvent, but declares -> JokeEvent"):
        _ = checkpointer.run_from(first)
    first.last_completed_step = "gone"
    with pytest.raises(WorkflowConfigurationError, match="has no step 'gone'"):
        _ = checkpointer.run_from(first)
    assert list(checkpointer.checkpoints) == [handler.run_id]


async def test_what_later_steps_do_to_an_event_or_a_value_does_not_reach_a_checkpoint() -> None:
    """`critique_joke` adds a note to the very event that `generate_joke` returned."""
    checkpointer = WorkflowCheckpointer(workflow=Jokes())
    handler = checkpointer.run(topic="Pirates")
    await handler
    first, second = checkpointer.checkpoints[handler.run_id]
    assert first.output_event == JokeEvent(joke="about Pirates", notes=[])
    assert second.input_event == JokeEvent(joke="about Pirates", notes=["read"])


async def test_a_checkpoint_is_noted_where_observers_see_it() -> None:
    """So that a trace can name it, and somebody can run again from there."""
    checkpointer = WorkflowCheckpointer(Jokes())
    with record() as seen:
        handler = checkpointer.run(topic="Pirates")
        await handler
    notes = [note for notes in seen.notes.values() for note in notes if note.name == "checkpoint"]
    assert [note.facts for note in notes] == [
        {"id": c.id_, "step": c.last_completed_step} for c in checkpointer.checkpoints[handler.run_id]
    ]


async def test_steps_can_be_kept_from_leaving_checkpoints() -> None:
    """From the start, later, and again; an unknown step is refused."""
    checkpointer = WorkflowCheckpointer(Jokes(), disabled_steps=["critique_joke"])
    assert checkpointer.enabled_checkpoints == {"generate_joke"}

    async def steps() -> list[str]:
        handler = checkpointer.run(topic="x")
        await handler
        return [c.last_completed_step for c in checkpointer.checkpoints[handler.run_id]]

    assert await steps() == ["generate_joke"]
    checkpointer.disable_checkpoint("generate_joke")
    assert await steps() == []
    checkpointer.enable_checkpoint("critique_joke")
    assert await steps() == ["critique_joke"]
    assert checkpointer.enabled_checkpoints == {"critique_joke"}
    for use in (checkpointer.enable_checkpoint, checkpointer.disable_checkpoint):
        with pytest.raises(WorkflowConfigurationError, match=r"'Jokes' has no step 'x'. It has: \['generate_joke', "):
            use("x")
    with pytest.raises(WorkflowConfigurationError, match="has no step 'x'"):
        WorkflowCheckpointer(Jokes(), disabled_steps=["x"])


async def test_checkpoints_are_found_by_run_step_and_events() -> None:
    """Each filter alone and together; a list of events fits if one of them does."""

    class Fans(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[JokeEvent | WrongEvent]:
            return [JokeEvent(joke="a"), WrongEvent()]

        @step
        async def end(self, ctx: Context, ev: JokeEvent | WrongEvent) -> StopEvent | None:
            return StopEvent() if ctx.collect_events(ev, [JokeEvent, WrongEvent]) else None

    checkpointer = WorkflowCheckpointer(Fans())
    one, two = checkpointer.run(), checkpointer.run()
    await one
    await two
    find: Callable[..., list[Checkpoint]] = checkpointer.filter_checkpoints
    assert len(find()) == 6
    assert find(run_id=one.run_id) == checkpointer.checkpoints[one.run_id]
    assert {c.last_completed_step for c in find(last_completed_step="end")} == {"end"}
    assert [c.input_event for c in find(run_id=two.run_id, input_event_type=WrongEvent)] == [WrongEvent()]
    assert len(find(output_event_type=WrongEvent)) == 2
    assert [c.last_completed_step for c in find(run_id=two.run_id, output_event_type=StopEvent)] == ["end"]
    assert find(input_event_type=Event) == []
    assert find(last_completed_step="start", output_event_type=StopEvent) == []
    with pytest.raises(WorkflowConfigurationError, match="there are no checkpoints of a run 'x'"):
        find(run_id="x")


class Opaque:
    """A model client, say: it cannot be stored, nor copied."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.calls = 0


class Undeclared(BaseModel):
    names: list[str] = Field(default_factory=list)


class Hoards(Workflow):
    """Keeps in its state what cannot be stored."""

    @step
    async def first(self, ctx: Context, ev: StartEvent) -> JokeEvent:
        await ctx.set("client", ev.client)
        await ctx.set("groups", defaultdict(list, a=[1]))
        await ctx.set("model", Undeclared(names=["a"]))
        ring: dict[str, Any] = {"n": 1}
        ring["self"] = ring
        await ctx.set("ring", ring)
        return JokeEvent(joke="j")

    @step
    async def second(self, ctx: Context, ev: JokeEvent) -> StopEvent:
        (await ctx.get("groups"))["a"].append(2)
        (await ctx.get("model")).names.append("b")
        (await ctx.get("ring"))["n"] += 1
        (await ctx.get("client")).calls += 1
        names = (await ctx.get("model")).names
        return StopEvent(result=[dict(await ctx.get("groups")), names, (await ctx.get("ring"))["n"]])


async def test_values_that_cannot_be_stored_are_kept_as_objects() -> None:
    """A client is the same one in every run; data is what it was at the checkpoint, however often one starts there."""
    checkpointer = WorkflowCheckpointer(Hoards())
    client = Opaque()
    handler = checkpointer.run(client=client)
    expected = [{"a": [1, 2]}, ["a", "b"], 2]
    assert await handler == expected
    first, _ = checkpointer.checkpoints[handler.run_id]
    assert first.ctx_state["state"]["client"] is client
    with pytest.raises(ContextSerdeError, match=r"the state\.client holds an Opaque"):
        handler.ctx.to_dict()
    for _ in range(2):
        assert await checkpointer.run_from(first) == expected
    assert client.calls == 3


async def test_a_checkpoint_of_storable_values_is_json() -> None:
    """It can be written to a file and used in another process."""
    checkpointer = WorkflowCheckpointer(Jokes())
    handler = checkpointer.run(topic="Pirates")
    await handler
    first = checkpointer.checkpoints[handler.run_id][0]
    first.ctx_state = json.loads(json.dumps(first.ctx_state))
    other = WorkflowCheckpointer(Jokes())
    assert await other.run_from(first) == "about Pirates is bad; Pirates; 1"


async def test_a_checkpoint_inside_a_retry_keeps_the_delay_and_the_count() -> None:
    """The other branch's next attempt is due when it was due; it fails as often as it would have."""
    attempts: list[float] = []

    class Flow(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[JokeEvent | WrongEvent]:
            return [JokeEvent(joke="a"), WrongEvent()]

        @step(retry_policy=Retry(attempts=3, wait=100))
        async def flaky(self, ev: JokeEvent) -> StopEvent:
            attempts.append(clock.now - start)
            if len(attempts) < 3:
                raise ValueError
            return StopEvent(result="ok")

        @step
        async def slow(self, ctx: Context, ev: WrongEvent) -> None:
            await clock.sleep(10)

    with use_clock(FakeClock()) as clock:
        start = clock.now
        checkpointer = WorkflowCheckpointer(Flow())
        handler = checkpointer.run()
        await clock.advance(20)
        await handler.cancel_run()
        assert attempts == [0]
        (slow,) = checkpointer.filter_checkpoints(last_completed_step="slow")
        handler = checkpointer.run_from(slow)
        await clock.advance(200)
        assert attempts == [0, 100, 200]
        assert await handler == "ok"


class Question(InputRequiredEvent):
    pass


class Answer(HumanResponseEvent):
    text: str = ""


async def test_a_checkpoint_beside_a_wait_leads_back_to_the_wait() -> None:
    """The step that waits runs again from its top; what it had been told before, it knows."""
    told = asyncio.Event()

    class Flow(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[JokeEvent | WrongEvent]:
            return [JokeEvent(joke="a"), WrongEvent()]

        @step
        async def ask(self, ctx: Context, ev: JokeEvent) -> StopEvent:
            one = await ctx.wait_for_event(Answer, waiter_event=Question())
            told.set()
            two = await ctx.wait_for_event(Answer, waiter_event=Question())
            return StopEvent(result=one.text + two.text)

        @step
        async def other(self, ctx: Context, ev: WrongEvent) -> None:
            await told.wait()

    checkpointer = WorkflowCheckpointer(Flow())
    handler = checkpointer.run()
    handler.ctx.send_event(Answer(text="a"))
    for _ in range(20):
        await asyncio.sleep(0)
    handler.ctx.send_event(Answer(text="b"))
    assert await handler == "ab"
    other = checkpointer.checkpoints[handler.run_id][1]
    handler = checkpointer.run_from(other)
    handler.ctx.send_event(Answer(text="c"))
    assert await handler == "ac"


async def test_plain_steps_and_stepwise_runs_leave_checkpoints_too() -> None:
    """One for each step; a run from a checkpoint can be stepped as well."""

    class Flow(Workflow):
        @step
        def start(self, ctx: Context, ev: StartEvent) -> JokeEvent | WrongEvent:
            ctx.send_event(WrongEvent())
            return JokeEvent(joke="plain")

        @step
        def end(self, ctx: Context, ev: JokeEvent | WrongEvent) -> StopEvent | None:
            got = ctx.collect_events(ev, [WrongEvent, JokeEvent])
            return StopEvent(result=[type(e).__name__ for e in got]) if got else None

    checkpointer = WorkflowCheckpointer(Flow())
    handler = checkpointer.run(stepwise=True)
    while produced := await handler.run_step():
        for event in produced:
            handler.ctx.send_event(event)
    assert await handler == ["WrongEvent", "JokeEvent"]
    steps = [c.last_completed_step for c in checkpointer.checkpoints[handler.run_id]]
    assert steps == ["start", "end", "end"]
    handler = checkpointer.run_from(checkpointer.checkpoints[handler.run_id][0], stepwise=True)
    while produced := await handler.run_step():
        for event in produced:
            handler.ctx.send_event(event)
    assert await handler == ["WrongEvent", "JokeEvent"]


class Node(Event):
    path: tuple[int, ...] = ()


class Done(Event):
    path: tuple[int, ...] = ()


class Fan(Workflow):
    """Spreads out twice and joins again, with sends, retries and buffers; state counts what was done."""

    def __init__(self, widths: tuple[int, int], flaky: set[tuple[int, ...]]) -> None:
        super().__init__()
        self.widths = widths
        self.flaky = flaky
        self.failed: set[tuple[int, ...]] = set()

    async def count(self, ctx: Context) -> None:
        async with ctx.store.edit_state() as state:
            state["count"] = state.get("count", 0) + 1

    @step
    async def start(self, ctx: Context, ev: StartEvent) -> list[Node]:
        await self.count(ctx)
        return [Node(path=(n,)) for n in range(self.widths[0])]

    @step(num_workers=2, retry_policy=Retry(wait=0))
    async def spread(self, ctx: Context, ev: Node) -> list[Done]:
        for n in range(self.widths[1]):
            ctx.send_event(Done(path=(*ev.path, n)))
        await asyncio.sleep(0)
        if ev.path in self.flaky and ev.path not in self.failed:
            self.failed.add(ev.path)
            raise ValueError
        await self.count(ctx)
        return [Done(path=(*ev.path, -1))]

    @step(num_workers=2)
    async def join(self, ctx: Context, ev: Done) -> Done | StopEvent | None:
        whole = len(ev.path) == 1
        got = ctx.collect_events(ev, {Done: self.widths[0] if whole else self.widths[1] + 1}, str(ev.path[:-1]))
        await self.count(ctx)
        if got is None:
            return None
        return StopEvent(result=await ctx.get("count")) if whole else Done(path=ev.path[:-1])


@settings(max_examples=40)
@given(st.tuples(st.integers(1, 4), st.integers(0, 3)), st.sets(st.tuples(st.integers(0, 3)), max_size=3))
def test_a_run_from_any_checkpoint_ends_the_same_and_repeats_no_finished_step(
    widths: tuple[int, int], flaky: set[tuple[int, ...]]
) -> None:
    """Of every run, from every one of its checkpoints, and from one of that run's again."""

    def done(checkpoints: list[Checkpoint]) -> Counter[tuple[str, Any]]:
        return Counter((c.last_completed_step, c.input_event.get("path")) for c in checkpoints)

    async def main() -> None:
        checkpointer = WorkflowCheckpointer(Fan(widths, flaky))
        handler = checkpointer.run()
        result = await handler
        assert result == 1 + widths[0] * (widths[1] + 3)
        checkpoints = checkpointer.checkpoints[handler.run_id]
        before = copy.deepcopy([c.ctx_state for c in checkpoints])
        whole = done(checkpoints)
        assert whole.total() == result
        for n, checkpoint in enumerate(checkpoints):
            again = checkpointer.run_from(checkpoint)
            assert await again == result
            later = checkpointer.checkpoints[again.run_id]
            assert done(checkpoints[: n + 1]) + done(later) == whole
            if later:
                third = checkpointer.run_from(later[0])
                assert await third == result
                last = checkpointer.checkpoints[third.run_id]
                assert done(checkpoints[: n + 1]) + done(later[:1]) + done(last) == whole
        assert [c.ctx_state for c in checkpoints] == before

    asyncio.run(main())
