"""Signatures: what a step's annotations mean, and what somebody who writes them wrongly is told."""

import asyncio
import typing
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from typing_extensions import TypeAliasType

import agentflow
from agentflow import (
    Context,
    Event,
    HumanResponseEvent,
    Resource,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowValidationError,
    step,
)
from agentflow.errors import UnresolvedNameError
from agentflow.signature import StepSpec
from agentflow.steps import declaration_of


class A(Event):
    pass


class B(Event):
    pass


class State(BaseModel):
    count: int = 0


class Database:
    pass


def connect() -> Database:
    return Database()


EITHER = TypeAliasType("EITHER", A | B)


def spec_of(fn: Callable[..., Any]) -> StepSpec:
    declaration = declaration_of(fn)
    assert declaration is not None
    return declaration.spec()


def declare(source: str) -> dict[str, Any]:
    """Execute what a user might write, with everything that is in this module."""
    names = {**vars(typing), **vars(agentflow), **globals()}
    exec(source, names)  # noqa: S102 because mistakes in annotations are shown as they are written
    return names


def step_of(source: str) -> StepSpec:
    """What the signature of this step says."""
    return spec_of(declare(f"@step\n{source}")["ask"])


def told(source: str) -> str:
    """What the user is told who writes this."""
    with pytest.raises(WorkflowValidationError) as caught:
        declare(source)
    return str(caught.value)


class Mistake(NamedTuple):
    source: str
    says: str
    """Why it cannot work."""
    write: str
    """The line that would be right."""


@pytest.mark.parametrize(
    "mistake",
    [
        Mistake(
            "async def ask(self, ev: A, db) -> StopEvent: ...",
            "step 'ask' has no annotation on parameter 'db', so nothing says what to pass.",
            "async def ask(self, ev: A, db: Annotated[T, Resource(make_it)]) -> StopEvent:",
        ),
        Mistake(
            "async def ask(self, ev) -> StopEvent: ...",
            "step 'ask' has no annotation on parameter 'ev', so nothing says what to pass.",
            "async def ask(self, ev: MyEvent) -> StopEvent:",
        ),
        Mistake(
            "async def ask(self, ctx, ev, db) -> StopEvent: ...",
            "step 'ask' has no annotation on parameter 'ctx', so nothing says what to pass.",
            "async def ask(self, ctx: Context, ev: MyEvent, db: Annotated[T, Resource(make_it)]) -> StopEvent:",
        ),
        Mistake(
            "async def ask(self, db, ev: A, n=1, *rest) -> StopEvent: ...",
            "step 'ask' has no annotation on parameter 'db', so nothing says what to pass.",
            "async def ask(self, db: Annotated[T, Resource(make_it)], ev: A, n=1, *rest) -> StopEvent:",
        ),
        Mistake(
            "async def ask(ev) -> StopEvent: ...",
            "step 'ask' has no event parameter, so nothing can trigger it.",
            "async def ask(self, ev: MyEvent) -> StopEvent:",
        ),
        Mistake(
            "def ask(self, ctx: Context, n: int = 3, *, word='a') -> StopEvent: ...",
            "step 'ask' has no event parameter, so nothing can trigger it.",
            "def ask(self, ctx: Context, ev: MyEvent, n: int = 3, *, word='a') -> StopEvent:",
        ),
        Mistake(
            "def ask() -> StopEvent: ...",
            "step 'ask' has no event parameter, so nothing can trigger it.",
            "def ask(ev: MyEvent) -> StopEvent:",
        ),
        Mistake(
            "async def ask(self, ctx: Context[State], ev: A | None, sub: Workflow = Workflow(), /): ...",
            "step 'ask' has no return annotation, so nothing says what it produces. "
            "Name the events that it returns and sends, or None.",
            "async def ask(self, ctx: Context[State], ev: A | None, sub: Workflow = ..., /) -> StopEvent:",
        ),
        Mistake(
            "async def ask(self, one: A | B, other: B | StartEvent) -> StopEvent: ...",
            "step 'ask' takes two events, 'one' and 'other', but is triggered by one at a time.",
            "async def ask(self, one: A | B | StartEvent) -> StopEvent: and join them in it: "
            "ctx.collect_events(one, [A, B, StartEvent])",
        ),
        Mistake(
            "async def ask(self, ev: A, db: Database) -> 'A | None': ...",
            "step 'ask' declares 'db' as Database, which is neither an event, nor Context, nor a workflow, so "
            "nothing can be passed for it.",
            "async def ask(self, ev: A, db: Annotated[Database, Resource(make_it)]) -> A | None:",
        ),
        Mistake(
            "async def ask(self, ev: A | int) -> A: ...",
            "step 'ask' declares 'ev' as A | int, which is neither an event, nor Context, nor a workflow",
            "async def ask(self, ev: Annotated[A | int, Resource(make_it)]) -> A:",
        ),
        Mistake(
            "async def ask(self, ev: A, db: Database = Resource(connect, scope='run')) -> A: ...",
            "step 'ask' has a resource as the default of 'db'; it belongs in the annotation.",
            "db: Annotated[Database, Resource(connect, scope='run')]",
        ),
        Mistake(
            "async def ask(self, ev: A, db=Resource(connect, cache=False)) -> A: ...",
            "step 'ask' has a resource as the default of 'db'; it belongs in the annotation.",
            "db: Annotated[T, Resource(connect, cache=False)]",
        ),
        Mistake(
            "async def ask(self, ev: A) -> A | str: ...",
            "step 'ask' is annotated to return str. A step returns an event, a list of events or None; a value "
            "goes into an event: StopEvent(result=...) where the run ends, one of your own elsewhere.",
            "async def ask(self, ev: A) -> A | StopEvent:",
        ),
        Mistake(
            "async def ask(self, ev: A) -> list: ...",
            "step 'ask' is annotated to return list.",
            "async def ask(self, ev: A) -> list[MyEvent]:",
        ),
        Mistake(
            "async def ask(self, ev: A) -> tuple[B, ...] | None: ...",
            "step 'ask' is annotated to return tuple[B, ...].",
            "async def ask(self, ev: A) -> list[B] | None:",
        ),
        Mistake(
            "async def ask(self, ev: A) -> Any: ...",
            "step 'ask' is annotated to return Any.",
            "async def ask(self, ev: A) -> StopEvent:",
        ),
        Mistake(
            "async def ask(self, ev: A) -> A:\n    yield A()",
            "step 'ask' yields.",
            "return [A(...), B(...)], or send each event: ctx.send_event(A(...))",
        ),
        Mistake(
            "def ask(self, ev: A) -> A:\n    yield A()",
            "step 'ask' yields.",
            "return [A(...), B(...)], or send each event: ctx.send_event(A(...))",
        ),
    ],
    ids=lambda mistake: mistake.source.partition("\n")[0],
)
def test_a_mistaken_signature_is_told_the_corrected_line(mistake: Mistake) -> None:
    """When it is declared: what is wrong, and what to write."""
    said = told(f"@step\n{mistake.source}")
    assert said.startswith(mistake.says)
    assert said.endswith(mistake.write)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("@step\nasync def ask(self, ev: 'A.B') -> A: ...", "the annotation of 'ev', 'A.B', cannot be evaluated: "),
        ("@step\nasync def ask(self, ev: A) -> 'A |': ...", "the return annotation, 'A |', cannot be evaluated: "),
        (
            "@step\nasync def ask(self, ev: 'A[1, 2]') -> A: ...",
            "the annotation of 'ev', 'A[1, 2]', cannot be evaluated: ",
        ),
    ],
)
def test_an_annotation_that_makes_no_sense_is_refused(source: str, says: str) -> None:
    """With what Python says of it."""
    assert told(source).startswith(f"step 'ask': {says}")


@pytest.mark.parametrize("source", ["ev: 'Nowhere') -> A", "ev: A) -> 'Nowhere'", "ev: 'list[Nowhere]') -> A"])
def test_a_name_that_is_not_there_is_refused_when_the_workflow_is_compiled(source: str) -> None:
    """Not before: it may be a class further down."""
    names = declare(f"class Flow(Workflow):\n    @step\n    async def ask(self, {source}: ...")
    with pytest.raises(UnresolvedNameError, match=r"'Flow\.ask': .* names 'Nowhere', .* not only under TYPE_CHECKING"):
        names["Flow"]().validate()


@pytest.mark.parametrize(
    ("annotation", "events"),
    [
        ("A", (A,)),
        ("A | B", (A, B)),
        ("Union[A, B]", (A, B)),
        ("Optional[A]", (A,)),
        ("Annotated[A | B, 'either of the two']", (A, B)),
        ("EITHER", (A, B)),
        ("EITHER | StartEvent", (A, B, StartEvent)),
    ],
)
def test_the_same_events_can_be_written_in_several_ways(annotation: str, events: tuple[type[Event], ...]) -> None:
    """As what a step accepts, and as what it produces, alone or in a list."""
    alone = step_of(f"async def ask(self, ev: {annotation}) -> {annotation}: ...")
    listed = step_of(f"async def ask(self, ev: {annotation}) -> list[{annotation}]: ...")
    assert alone.accepts == alone.produces == listed.produces == events


@pytest.mark.parametrize(
    ("annotation", "events"),
    [
        ("None", ()),
        ("NoReturn", ()),
        ("A | None", (A,)),
        ("list[A] | B | None", (A, B)),
        ("list[A | B]", (A, B)),
        ("list[A] | list[B] | A", (A, B)),
    ],
)
def test_what_a_step_produces_is_read_through_lists_and_none(annotation: str, events: tuple[type[Event], ...]) -> None:
    """Each type once, in the order in which they are written."""
    assert step_of(f"async def ask(self, ev: A) -> {annotation}: ...").produces == events


@pytest.mark.parametrize(
    ("annotation", "state"),
    [
        ("Context", None),
        ("Context[State]", State),
        ("Context[State] | None", State),
        ("Annotated[Context[State], 'mine']", State),
    ],
)
def test_the_context_may_be_typed(annotation: str, state: type | None) -> None:
    """By the model of the state."""
    spec = step_of(f"async def ask(self, context: {annotation}, ev: A) -> A: ...")
    assert (spec.context, spec.state) == ("context", state)


def test_annotations_that_are_strings_mean_the_same() -> None:
    """Whole, or inside."""

    @step
    async def ask(
        self: Any, ctx: "Context[State]", ev: "A | B", db: Annotated["Database", Resource(connect)]
    ) -> "list[A]":
        return [A()]

    spec = spec_of(ask)
    assert (spec.context, spec.state, spec.accepts, spec.produces) == ("ctx", State, (A, B), (A,))
    assert spec.resources["db"] == (Resource(connect), Database)


class Inner(Workflow):
    @step
    async def only(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result="inner")


PARAMETERS = {
    "ev": "ev: StartEvent",
    "ctx": "ctx: Context",
    "db": "db: Annotated[Database, Resource(connect)]",
    "late": "late: Annotated[Database, Resource(connect, scope='run')] | None",
    "inner": "inner: Inner",
}


@st.composite
def flows(draw: st.DrawFn) -> str:
    """A workflow whose step takes everything, in some order, by position only, by name only or both."""
    written = [PARAMETERS[name] for name in draw(st.permutations(sorted(PARAMETERS)))]
    written += draw(st.lists(st.sampled_from(["n: int = 3", "word='a'", "other: Database | None = None"]), unique=True))
    slash, star = sorted(draw(st.lists(st.integers(0, len(written)), min_size=2, max_size=2)))
    if star < len(written) and draw(st.booleans()):
        written.insert(star, "*")
    if slash and draw(st.booleans()):
        written.insert(slash, "/")
    method = draw(st.booleans())
    return f"""
class Flow(Workflow):
    {"" if method else "@staticmethod"}
    @step
    {draw(st.sampled_from(["async def", "def"]))} only({", ".join(["self"] * method + written)}) -> StopEvent:
        return StopEvent(result=[ev.topic, ctx.run_id, type(db), type(late), type(inner)])
"""


@given(flows())
def test_parameters_may_come_in_any_order_and_kind(source: str) -> None:
    """In methods and static methods, async and plain."""

    async def run() -> None:
        flow = declare(source)["Flow"]()
        flow.add_workflows(inner=Inner())
        handler = flow.run(topic="pirates")
        assert await handler == ["pirates", handler.run_id, Database, Database, Inner]

    asyncio.run(run())


async def test_a_step_may_take_anything_more() -> None:
    """`*args` and `**kwargs` stay empty, a parameter with a default keeps it."""

    class Flow(Workflow):
        @step
        async def only(self, ev: StartEvent, *args: int, n: int = 3, **kwargs: int) -> StopEvent:
            return StopEvent(result=(args, n, kwargs))

    assert await Flow().run() == ((), 3, {})


@pytest.mark.parametrize("name", ["self", "this"])
def test_self_may_have_any_name_and_an_annotation(name: str) -> None:
    """With an annotation it must be called self."""
    annotation = ": 'Workflow'" if name == "self" else ""
    flow = declare(
        f"class F(Workflow):\n    @step\n    async def a({name}{annotation}, ev: StartEvent) -> StopEvent: ..."
    )
    assert spec_of(flow["F"].a).bound


def test_a_human_answer_is_an_event_like_any_other() -> None:
    """And so are classes of one's own that derive from it."""

    class Answer(HumanResponseEvent):
        pass

    @step
    async def ask(self: Any, ev: Answer | HumanResponseEvent) -> StopEvent:
        return StopEvent()

    assert spec_of(ask).accepts == (Answer, HumanResponseEvent)


def test_a_partial_is_no_step() -> None:
    """It has no name and no place of its own."""
    with pytest.raises(WorkflowValidationError, match="it decorates functions and methods"):
        step(partial(connect))
