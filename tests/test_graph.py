"""The graph: which steps get an event, and what becomes of what a step returns."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow import (
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowRuntimeError,
    WorkflowStalledError,
    step,
)
from agentflow.testing import record


class Animal(Event):
    n: int = 0


class Dog(Animal):
    pass


class Puppy(Dog):
    pass


class Ask(InputRequiredEvent):
    pass


class AskTwice(Ask):
    pass


class Answer(HumanResponseEvent):
    pass


class Verdict(StopEvent):
    text: str = "good"


class Logs(Workflow):
    """Its steps write down that they ran."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []

    async def until_stalled(self, **fields: Any) -> list[str]:
        with pytest.raises(WorkflowStalledError):
            await self.run(**fields)
        return sorted(self.log)


def taker(name: str, kind: type[Event]) -> Any:
    """A step that accepts `kind` and writes down its name."""

    async def take(self: Logs, ev: Event) -> None:
        self.log.append(name)

    take.__annotations__["ev"] = kind
    return step(take)


def taking(kinds: dict[str, type[Event]], made: type[Event]) -> Logs:
    """A workflow with such steps, whose first step makes an event of type `made`."""

    async def start(self: Logs, ev: StartEvent) -> Event | StopEvent:
        return made()

    steps: dict[str, Any] = {name: taker(name, kind) for name, kind in kinds.items()}
    flow: Logs = type("Flow", (Logs,), {"start": step(start), **steps})()
    return flow


@pytest.mark.parametrize(
    ("made", "ran"),
    [(Puppy, ["puppy"]), (Dog, ["animal"]), (Animal, ["animal"]), (Event, ["any"])],
)
async def test_the_exact_type_comes_first_and_the_nearest_base_after_it(made: type[Event], ran: list[str]) -> None:
    """A base class gets what nobody accepts more exactly."""
    assert await taking({"any": Event, "animal": Animal, "puppy": Puppy}, made).until_stalled() == ran


@st.composite
def families(draw: st.DrawFn) -> tuple[list[type[Event]], list[int], int]:
    """Classes of events that derive from each other; which of them are accepted, one or more times; which is made."""
    classes: list[type[Event]] = []
    for index in range(draw(st.integers(1, 7))):
        bases = draw(st.lists(st.sampled_from(classes), max_size=2, unique=True)) if classes else []
        try:
            classes.append(type(f"E{index}", tuple(bases) or (Event,), {"__module__": __name__}))
        except TypeError:  # these two cannot be bases in this order
            classes.append(type(f"E{index}", (bases[0],), {"__module__": __name__}))
    accepted = draw(st.lists(st.integers(0, len(classes) - 1), min_size=1, max_size=5))
    return classes, accepted, draw(st.integers(0, len(classes) - 1))


@given(families())
def test_all_steps_that_accept_the_nearest_type_get_an_event(family: tuple[list[type[Event]], list[int], int]) -> None:
    """For all families of events: its own type, or the first in the order of its bases that any step accepts."""
    classes, accepted, made = family
    kinds = {f"take{n}": classes[index] for n, index in enumerate(accepted)}
    nearest = next((base for base in classes[made].__mro__ if base in kinds.values()), None)
    takers = sorted(name for name, kind in kinds.items() if kind is nearest)
    flow = taking(kinds, classes[made])
    if takers:
        assert asyncio.run(flow.until_stalled()) == takers
    else:
        with pytest.raises(WorkflowRuntimeError, match=f"sent an E{made}, which no step of 'Flow' accepts"):
            asyncio.run(flow.until_stalled())


async def test_an_inputrequiredevent_never_goes_to_a_step_that_accepts_its_base() -> None:
    """Only to those that accept its very type; the stream shows it in any case."""

    class Flow(Logs):
        @step
        async def start(self, ev: StartEvent) -> list[Ask | AskTwice]:
            return [Ask(), AskTwice()]

        @step
        async def base(self, ev: Event | InputRequiredEvent) -> None:
            self.log.append(f"base {type(ev).__name__}")

        @step
        async def exact(self, ev: Ask) -> None:
            self.log.append(f"exact {type(ev).__name__}")

        @step
        async def end(self, ev: HumanResponseEvent) -> StopEvent:
            return StopEvent()

    flow = Flow()
    handler = flow.run()
    shown: list[type[Event]] = []
    async for ev in handler.stream_events():
        shown.append(type(ev))
        if isinstance(ev, AskTwice):
            handler.ctx.send_event(HumanResponseEvent())
    assert shown == [Ask, AskTwice, StopEvent]
    assert flow.log == ["exact Ask"]


async def test_a_stopevent_ends_the_run_though_a_step_accepts_its_base() -> None:
    """It is never routed."""

    class Flow(Logs):
        @step
        async def start(self, ev: StartEvent) -> Verdict | Animal:
            return Verdict()

        @step
        async def every(self, ev: Event) -> None:
            self.log.append("every")

    flow = Flow()
    assert await flow.run() == Verdict()
    assert not flow.log


async def test_a_human_answer_goes_to_the_nearest_base() -> None:
    """Like any other event."""

    class Flow(Workflow):
        @step
        async def start(self, ev: StartEvent) -> Ask:
            return Ask()

        @step
        async def end(self, ev: HumanResponseEvent) -> StopEvent:
            return StopEvent(result=type(ev))

    handler = Flow().run()
    async for ev in handler.stream_events():
        if isinstance(ev, Ask):
            handler.ctx.send_event(Answer())
    assert await handler is Answer


async def test_a_run_may_be_started_by_a_subclass_of_its_start_event() -> None:
    """Which goes to the steps that accept the base."""

    class Special(StartEvent):
        pass

    class Flow(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=type(ev))

    assert await Flow().run(start_event=Special()) is Special


async def test_all_steps_that_accept_an_event_get_it() -> None:
    """The very object, each of them."""

    class Flow(Logs):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[Event] = []

        @step
        async def start(self, ev: StartEvent) -> Dog:
            return Dog()

        @step
        async def one(self, ev: Dog | Puppy) -> None:
            self.seen.append(ev)

        @step
        async def two(self, ev: Dog) -> StopEvent | None:
            self.seen.append(ev)
            return StopEvent() if ev.n else None

    flow = Flow()
    await flow.until_stalled()
    one, two = flow.seen
    assert one is two


async def test_a_list_fans_out() -> None:
    """In its order; an empty one is nothing."""

    class Flow(Logs):
        @step
        async def start(self, ev: StartEvent) -> list[Dog | Animal]:
            return [Dog(n=1), Animal(n=2), Dog(n=3)]

        @step(num_workers=1)
        async def take(self, ev: Animal) -> list[Dog] | StopEvent:
            self.log.append(str(ev.n))
            return []

        @step
        async def never(self, ev: Dog) -> list[Animal]:
            return [Animal(n=ev.n)]

    assert await Flow().until_stalled() == ["1", "2", "3"]


async def test_a_stopevent_in_a_list_wins() -> None:
    """The others are dropped, and that is noted."""

    class Flow(Logs):
        @step
        async def start(self, ev: StartEvent) -> list[Dog | StopEvent]:
            return [Dog(), StopEvent(result="won"), Dog()]

        @step
        async def take(self, ev: Dog) -> None:
            self.log.append("dog")

    flow = Flow()
    with record() as seen:
        assert await flow.run() == "won"
    assert not flow.log
    assert "events_dropped" in {note.name for notes in seen.notes.values() for note in notes}


@pytest.mark.parametrize("declared", ["Dog", "Dog | StopEvent | None", "list[Dog]"])
async def test_a_step_may_always_return_none(declared: str) -> None:
    """Declared or not: it has only sent, or waits until all has come."""

    async def start(self: Logs, ctx: Context, ev: StartEvent) -> Any:
        ctx.send_event(Dog())

    start.__annotations__["return"] = declared

    async def take(self: Logs, ev: Dog) -> StopEvent:
        return StopEvent(result="taken")

    flow: type[Logs] = type("Flow", (Logs,), {"start": step(start), "take": step(take)})
    assert await flow().run() == "taken"


async def test_declared_types_cover_their_subclasses() -> None:
    """Of what is returned, alone and in a list, and of what is accepted."""

    class Flow(Logs):
        @step
        async def start(self, ev: StartEvent) -> Animal:
            return Dog()

        @step
        async def dog(self, ev: Dog) -> list[Animal]:
            self.log.append("dog")
            return [Puppy(), Animal()]

        @step
        async def puppy(self, ev: Puppy) -> None:
            self.log.append("puppy")

        @step
        async def animal(self, ev: Animal) -> StopEvent | None:
            self.log.append("animal")
            return StopEvent() if ev.n else None

    assert await Flow().until_stalled() == ["animal", "dog", "puppy"]


@pytest.mark.parametrize(
    ("declared", "corrected"),
    [
        ("StopEvent", "StopEvent | Dog"),
        ("Puppy | StopEvent", "Puppy | StopEvent | Dog"),
        ("list[Puppy] | StopEvent | None", "list[Puppy] | StopEvent | Dog | None"),
        ("Puppy", "Puppy | Dog"),
        (None, "Dog | None"),
    ],
)
@pytest.mark.parametrize("listed", [True, False])
async def test_an_undeclared_return_raises_at_the_step(declared: str | None, corrected: str, *, listed: bool) -> None:
    """With the corrected line, and a note that says where."""

    async def start(self: Logs, ev: StartEvent) -> Any:
        return [Dog()] if listed else Dog()

    start.__annotations__["return"] = declared

    async def end(self: Logs, ev: Puppy) -> StopEvent:
        return StopEvent()

    async def send(self: Logs, ctx: Context, ev: StartEvent) -> Puppy | StopEvent | None:
        return None

    steps = {"start": step(start), "end": step(end), "send": step(send)}
    flow: type[Logs] = type("Flow", (Logs,), steps)
    with pytest.raises(WorkflowRuntimeError) as caught:
        await flow().run()
    says, _, line = str(caught.value).partition(" Write: ")
    assert says.startswith("step 'start' returned a Dog, but declares -> ")
    assert line == f"async def start(self: Logs, ev: StartEvent) -> {corrected}:"
    assert "in step 'start' of workflow 'Flow'" in caught.value.__notes__[-1]


async def never() -> None:
    """Not awaited."""


@pytest.mark.parametrize(
    ("value", "says", "write"),
    [
        (3, "returned 3.", "return StopEvent(result=3), or put it into an event of your own."),
        ({"a": 1}, "returned {'a': 1}.", "return StopEvent(result={'a': 1}), or put it into an event of your own."),
        (Dog, "returned <class", "return Dog(...)"),
        ((Dog(), Dog()), "returned (Dog(n=0), Dog(n=0)).", "return [A(...), B(...)]"),
        ({1}, "returned {1}.", "return [A(...), B(...)]"),
        ([Dog(), None], "returned a list that holds None.", "return [ev for ev in events if ev is not None]"),
        (["a"], "returned 'a'.", "return StopEvent(result='a'), or put it into an event of your own."),
    ],
    ids=repr,
)
async def test_a_return_that_is_no_event_raises_at_the_step(value: Any, says: str, write: str) -> None:
    """With what to return instead."""

    async def start(self: Logs, ev: StartEvent) -> Dog | StopEvent:
        returned: Dog = value
        return returned

    flow: type[Logs] = type("Flow", (Logs,), {"start": step(start), "dog": taker("dog", Dog)})
    with pytest.raises(WorkflowRuntimeError) as caught:
        await flow().run()
    assert str(caught.value).startswith(f"step 'start' {says}")
    assert str(caught.value).endswith(f"Write: {write}")


@pytest.mark.filterwarnings("error")
async def test_a_forgotten_await_is_told() -> None:
    """And the coroutine is closed, so that Python does not complain as well."""

    class Flow(Workflow):
        @step
        async def start(self, ev: StartEvent) -> StopEvent:
            returned: Any = never()
            return returned  # type: ignore[no-any-return]  # it is the slip

    with pytest.raises(WorkflowRuntimeError, match=r"Write: return await never\(...\)"):
        await Flow().run()


async def test_generators_are_no_lists() -> None:
    """They are not run."""

    class Flow(Workflow):
        @step
        async def start(self, ev: StartEvent) -> StopEvent:
            returned: Any = (self.fail() for _ in range(1))
            return returned  # type: ignore[no-any-return]  # it is the slip

        def fail(self) -> StopEvent:
            raise AssertionError

    with pytest.raises(WorkflowRuntimeError, match=r"Write: return \[A\(...\), B\(...\)\]"):
        await Flow().run()


async def test_a_long_value_does_not_fill_the_message() -> None:
    """It is cut."""

    class Flow(Workflow):
        @step
        async def start(self, ev: StartEvent) -> StopEvent:
            returned: Any = "x" * 100_000
            return returned  # type: ignore[no-any-return]  # it is the slip

    with pytest.raises(WorkflowRuntimeError) as caught:
        await Flow().run()
    assert len(str(caught.value)) < 1_000


class Topic(StartEvent):
    topic: str
    words: int = 3
    tags: tuple[str, ...] = ()


class Tells(Workflow):
    @step
    async def only(self, ev: Topic) -> StopEvent:
        return StopEvent(result=ev.topic)


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({}, "'topic': Field required"),
        ({"topic": 3}, "'topic': Input should be a valid string"),
        ({"topic": "a", "words": "many"}, "'words': Input should be a valid integer"),
        ({"topic": "a", "tags": ["a", 1]}, "'tags.1': Input should be a valid string"),
    ],
)
async def test_bad_start_fields_are_named_at_run(fields: dict[str, Any], wrong: str) -> None:
    """All of them, with what the run takes."""
    with pytest.raises(WorkflowRuntimeError) as caught:
        await Tells().run(**fields)
    assert str(caught.value).startswith(f"Tells.run() cannot make a Topic: {wrong}")
    assert str(caught.value).endswith("It takes Tells.run(topic: str, words: int = 3, tags: tuple[str, ...] = ()).")
