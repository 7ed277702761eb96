"""Collecting events: in the order asked for, first in first out, complete or not known at once."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from inspect import isfunction
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from agentflow import (
    Context,
    Event,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowRuntimeError,
    WorkflowStalledError,
    step,
)
from agentflow.collect import Collector

Expected = Sequence[type[Event]] | Mapping[type[Event], int]


class A(Event):
    n: int = 0


class B(Event):
    n: int = 0


class SubA(A):
    pass


class Other(Event):
    n: int = 0


class Plan(StartEvent):
    events: list[Any] = Field(default_factory=list)
    expected: Any = None
    """What each event is collected for: one for all, or a function of its number."""


class Collects(Workflow):
    """Hands a list of events to one step, one after the other, and returns what it collected at each."""

    @step
    async def start(self, ctx: Context, ev: Plan) -> A | B | Other | None:
        await ctx.set("expected", ev.expected)
        await ctx.set("left", len(ev.events))
        await ctx.set("seen", [])
        for event in ev.events:
            ctx.send_event(event)
        return None

    @step(num_workers=1)
    async def gather(self, ctx: Context, ev: A | B | Other) -> StopEvent | None:
        seen = await ctx.get("seen")
        expected = await ctx.get("expected")
        seen.append(ctx.collect_events(ev, expected(len(seen)) if isfunction(expected) else expected))
        return StopEvent(result=seen) if len(seen) == await ctx.get("left") else None


async def collected(events: list[Event], expected: Any) -> list[list[Event] | None]:
    """What each of these events, collected one after the other, completes."""
    found: list[list[Event] | None] = await Collects().run(events=events, expected=expected)
    return found


class Model:
    """What collecting means, without regard to speed."""

    def __init__(self) -> None:
        self.held: list[Event] = []

    def collect(self, event: Event, expected: Expected) -> list[Event] | None:
        def counts_as(kind: type) -> type | None:
            return next((base for base in kind.__mro__ if base in expected), None)

        if counts_as(type(event)) is not None:
            self.held.append(event)
        wanted = [k for k, n in expected.items() for _ in range(n)] if isinstance(expected, Mapping) else expected
        left, taken = list(self.held), []
        for kind in wanted:
            found = next((held for held in left if counts_as(type(held)) is kind), None)
            if found is None:
                return None
            left.remove(found)
            taken.append(found)
        self.held = left
        return taken


async def test_the_result_is_in_the_order_asked_for() -> None:
    """Whatever the order of coming."""
    b, a1, a2 = B(), A(n=1), A(n=2)
    assert await collected([b, a1, a2], [A, A, B]) == [None, None, [a1, a2, b]]
    assert await collected([b, a1, a2], {A: 2, B: 1}) == [None, None, [a1, a2, b]]


async def test_what_is_left_over_stays_in_order_for_the_next_time() -> None:
    """First in, first out within a type."""
    a = [A(n=n) for n in range(4)]
    b = [B(n=n) for n in range(2)]
    assert await collected([a[0], a[1], a[2], b[0], a[3], b[1]], [A, B]) == [
        None,
        None,
        None,
        [a[0], b[0]],
        None,
        [a[1], b[1]],
    ]


async def test_an_event_that_is_not_expected_is_ignored() -> None:
    """001's `gather` is also woken by an event that it does not collect."""
    a1, a2 = A(n=1), A(n=2)
    assert await collected([Other(), a1, Other(), a2], [A, A]) == [None, None, None, [a1, a2]]


async def test_an_event_that_was_ignored_does_not_count_later() -> None:
    """Even when a later call does expect its type."""
    a, b, other = A(), B(), Other()
    results = await collected([other, a, b], lambda n: [[A, B], [A, Other], [A, B]][n])
    assert results == [None, None, [a, b]]


async def test_the_latest_expectation_counts() -> None:
    """More, fewer, other types of the same number: what is held is measured against what is asked for now."""
    a1, a2, a3, b = A(n=1), A(n=2), A(n=3), B()
    assert await collected([a1, a2], lambda n: [A] * (3 - n)) == [None, [a1, a2]]
    assert await collected([a1, b, a2], lambda n: [{A: 3}, {B: 2}, {A: 2}][n]) == [None, None, [a1, a2]]
    assert await collected([a1, b], lambda n: [[A, Other], [B, A]][n]) == [None, [b, a1]]
    assert await collected([a1, a2, a3], lambda n: [A] * (n + 2)) == [None, None, None]


async def test_an_event_counts_as_its_nearest_expected_base() -> None:
    """Its own type first; several types that count as one are taken in the order of their coming."""
    sub, a, late = SubA(n=1), A(n=2), SubA(n=3)
    assert await collected([sub, a], [A, A]) == [None, [sub, a]]
    assert await collected([a, sub, late], [SubA, A, SubA]) == [None, None, [sub, a, late]]
    assert await collected([sub, a, late], [Event] * 3) == [None, None, [sub, a, late]]


async def test_nothing_expected_is_complete_at_once() -> None:
    """An empty list, not None."""
    assert await collected([A()], []) == [[]]
    assert await collected([A()], {A: 0}) == [[]]


@pytest.mark.parametrize("expected", [Counter({A: 2}), MappingProxyType({A: 2}), (A, A), deque([A, A])])
async def test_any_mapping_and_any_sequence_will_do(expected: Any) -> None:
    """What the annotation allows works."""
    a1, a2 = A(n=1), A(n=2)
    assert await collected([Other(), a1, a2], expected) == [None, None, [a1, a2]]


@pytest.mark.parametrize("expected", [A, None, 3, "A", [A, "B"], [A()], {A: -1}, {A: "1"}, {"A": 1}, {A: 1.5}])
async def test_what_cannot_be_collected_is_refused_with_what_to_write(expected: Any) -> None:
    """Instead of waiting for ever for what cannot come."""
    with pytest.raises(WorkflowRuntimeError, match=r"Write: ctx\.collect_events\(ev, \[A, B\]\) or .*\{A: 3\}"):
        await collected([A()], expected)


async def test_what_is_no_event_cannot_be_collected() -> None:
    """The class in place of the event, most likely."""

    class Flow(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.collect_events(StartEvent, [StartEvent])  # type: ignore[arg-type]  # the mistake under test
            return StopEvent()

    with pytest.raises(WorkflowRuntimeError, match=r"ev is a ModelMetaclass, no event.*collect_events\(ev, \[A, B\]\)"):
        await Flow().run()


async def test_collecting_belongs_in_a_step() -> None:
    """From outside there is no step whose buffer it would be."""
    with pytest.raises(WorkflowRuntimeError, match="collect_events belongs in a step"):
        Context(Collects()).collect_events(A(), [A])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([A, B], r"ev is a list, no event\. .* Write: ctx\.collect_events\(ev, \[A, B\]\)"),
        ({A: 2}, r"ev is a dict, no event\. .* Write: ctx\.collect_events\(ev, \[A, B\]\)"),
        (A(), r"expected is a list of event types, .* Write: ctx\.collect_events\(ev, \[A, B\]\) or"),
    ],
    ids=["list", "dict", "event"],
)
async def test_collecting_takes_the_event_and_what_is_expected(given: Any, says: str) -> None:
    """One of them alone is answered by the line that would be right."""

    class Flow(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.collect_events(given)
            return StopEvent()

    with pytest.raises(WorkflowRuntimeError, match=says):
        await Flow().run()


class Buffers(Workflow):
    """Two steps collect the same events, one of them in two buffers."""

    @step
    async def start(self, ev: StartEvent) -> list[A]:
        return [A(n=n) for n in range(4)]

    @step(num_workers=1)
    async def odd_and_even(self, ctx: Context, ev: A) -> B | None:
        pair = ctx.collect_events(ev, [A, A], buffer_id=f"rest {ev.n % 2}")
        return B(n=sum(a.n for a in pair)) if pair else None

    @step(num_workers=1)
    async def all_four(self, ctx: Context, ev: A) -> Other | None:
        every = ctx.collect_events(ev, [A] * 4)
        return Other(n=sum(a.n for a in every)) if every else None

    @step(num_workers=1)
    async def end(self, ctx: Context, ev: B | Other) -> StopEvent | None:
        got = ctx.collect_events(ev, [B, B, Other])
        return StopEvent(result=[(type(e).__name__, e.n) for e in got if isinstance(e, B | Other)]) if got else None


async def test_buffers_belong_to_a_step_and_an_id_tells_several_apart() -> None:
    """The same event may be collected by several."""
    assert await Buffers().run() == [("B", 2), ("B", 4), ("Other", 6)]


async def test_one_event_may_be_collected_in_several_buffers_of_one_execution() -> None:
    """Once in each; a second time in the same buffer it is the same event."""

    class Flow(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            one = ctx.collect_events(ev, [StartEvent], buffer_id="one")
            two = ctx.collect_events(ev, [StartEvent], buffer_id="two")
            again = ctx.collect_events(ev, [StartEvent], buffer_id="one")
            return StopEvent(result=(one == [ev], two == [ev], again))

    assert await Flow().run() == (True, True, None)


async def test_a_run_that_can_never_complete_a_collection_says_what_it_lacks() -> None:
    """By type and number, against the latest expectation."""

    class Lacks(Collects):
        @step(num_workers=1)
        async def gather(self, ctx: Context, ev: A | B | Other) -> StopEvent | None:
            return StopEvent() if ctx.collect_events(ev, {A: 3, B: 1}) else None

    with pytest.raises(WorkflowStalledError, match="step 'gather' lacks 1 of 3 A, 1 of 1 B"):
        await Lacks().run(events=[A(), SubA()])


events = st.lists(st.one_of(*(st.builds(kind, n=st.integers(0, 99)) for kind in (A, B, SubA, Other))), max_size=14)
types = st.sampled_from([A, B, SubA])
lists = st.lists(types, min_size=0, max_size=5)
mappings = st.dictionaries(types, st.integers(0, 3), max_size=3)


@given(events, lists | mappings)
def test_collecting_equals_a_simple_model(given_events: list[Event], expected: Expected) -> None:
    """For any sequence of events, and any one expectation."""
    _compare(given_events, lambda _: expected)


@given(events, st.lists(lists | mappings, min_size=1, max_size=5))
def test_collecting_equals_the_model_when_the_expectation_changes(
    given_events: list[Event], expected: list[Expected]
) -> None:
    """From call to call, in any way."""
    _compare(given_events, lambda n: expected[n % len(expected)])


def _compare(given_events: list[Event], expected: Callable[[int], Expected]) -> None:
    if not given_events:
        return
    model = Model()
    wanted = [model.collect(event, expected(n)) for n, event in enumerate(given_events)]
    found = asyncio.run(collected(given_events, expected))
    assert _ids(found) == _ids(wanted)


def _ids(results: list[list[Event] | None]) -> list[list[int] | None]:
    """Events compare by value, and equal ones are to be told apart."""
    return [None if one is None else [id(event) for event in one] for one in results]


@given(st.lists(st.sampled_from([A, B, SubA]), max_size=12), st.data())
def test_what_is_put_back_stands_where_it_was(added: list[type[A | B]], data: st.DataObject) -> None:
    """However many takes are undone, in whatever order."""
    collector = Collector()
    for n, kind in enumerate(added):
        collector.add(kind, (kind(n=n), None))
    before = collector.events()
    taken = []
    while (one := collector.take(data.draw(st.lists(st.sampled_from([A, B]), min_size=1, max_size=3)))) is not None:
        taken.append(one)
    assert collector.events(*taken) == before
    for one in data.draw(st.permutations(taken)):
        collector.put_back(one)
    assert collector.events() == before
    assert len(collector) == len(added)


class Watched(list[type[Event]]):
    """A list that counts how often it is looked into."""

    looks = 0

    def __getitem__(self, index: Any) -> Any:
        self.looks += 1
        return super().__getitem__(index)

    def __iter__(self) -> Any:
        self.looks += len(self)
        return super().__iter__()

    def __contains__(self, kind: object) -> bool:
        places = [place for place, one in enumerate(super().__iter__()) if id(one) == id(kind)]
        self.looks += 1 + (places[0] if places else len(self))
        return bool(places)

    def __eq__(self, other: object) -> bool:
        self.looks += len(self)
        return super().__eq__(other)

    __hash__ = None


@pytest.mark.parametrize("size", [100, 10_000])
async def test_not_yet_complete_is_known_at_once_whatever_the_number_expected(size: int) -> None:
    """One look into the list at each event, for one type and for several in a row."""
    looks: list[int] = []
    expected = Watched([A] * (size // 2) + [B] * (size // 2))

    def watch(_: int) -> Watched:
        looks.append(expected.looks)
        return expected

    kinds = [A, B] * (size // 2)
    found = await collected([kind(n=n) for n, kind in enumerate(kinds)], watch)
    assert found[:-1] == [None] * (size - 1)
    assert found[-1] is not None
    assert [type(event) for event in found[-1]] == list(expected)
    settled = [later - earlier for earlier, later in pairwise(looks[3:])]
    assert max(settled) == 1


async def test_nothing_that_was_collected_stays_in_memory() -> None:
    """A run that goes on keeps no event that it has used up."""
    alive: list[int] = []

    class Loop(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[A]:
            return [A(n=0) for _ in range(10)]

        @step(num_workers=1)
        async def again(self, ctx: Context, ev: A) -> A | StopEvent | None:
            got = ctx.collect_events(ev, {A: 10})
            if got is None:
                return None
            if ev.n == 30:
                return StopEvent()
            for _ in range(9):
                ctx.send_event(A(n=ev.n + 1))
            if ev.n % 10 == 5:
                del got
                gc.collect()
                alive.append(sum(type(o) is A for o in gc.get_objects()))
            return A(n=ev.n + 1)

    await Loop().run()
    assert len(alive) == 3
    assert max(alive) <= 21


async def test_a_buffer_that_has_been_emptied_is_forgotten() -> None:
    """A loop that gives each round a buffer of its own needs no more memory for more rounds."""
    alive: list[int] = []

    class Loop(Workflow):
        @step
        async def start(self, ev: StartEvent) -> A:
            return A(n=0)

        @step
        async def again(self, ctx: Context, ev: A) -> A | StopEvent:
            assert ctx.collect_events(ev, [A], buffer_id=f"round {ev.n}") == [ev]
            alive.append(sum(type(o) is Collector for o in gc.get_objects()))
            return A(n=ev.n + 1) if ev.n < 20 else StopEvent()

    await Loop().run()
    assert alive[-1] <= alive[0] + 1
