"""The checks of a whole workflow: what is refused, with the line that would be right, and what is not."""

from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

import pytest
from pydantic import BaseModel

import agentflow
from agentflow import (
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Resource,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowConfigurationError,
    WorkflowValidationError,
    step,
)
from agentflow.workflow import graph_of


class A(Event):
    pass


class B(Event):
    pass


class Special(A):
    pass


class Begin(StartEvent):
    pass


class Ask(InputRequiredEvent):
    pass


class Answer(HumanResponseEvent):
    pass


class State(BaseModel):
    count: int = 0


class MoreState(State):
    more: int = 0


class OtherState(BaseModel):
    pass


class Unset(BaseModel):
    count: int


class Plain:
    pass


class Inner(Workflow):
    @step
    async def only(self, ev: StartEvent) -> StopEvent:
        return StopEvent()


def flow_of(*steps: str) -> type[Workflow]:
    """A workflow with these steps, written without body."""
    body = "".join(f"    @step\n    async def {line}: ...\n" for line in steps)
    names = {**vars(agentflow), **globals()}
    exec(f"class Flow(Workflow):\n{body or '    pass'}", names)  # noqa: S102 because mistakes are shown as written
    made: type[Workflow] = names["Flow"]
    return made


class Mistake(NamedTuple):
    steps: tuple[str, ...]
    says: str
    write: str
    kind: type[WorkflowValidationError] = WorkflowValidationError


@pytest.mark.parametrize(
    "mistake",
    [
        Mistake(
            (),
            "workflow 'Flow' has no steps. Write @step above methods, or @step(workflow=Flow) above functions.",
            "A decorator that stands above @step has to use functools.wraps.",
            WorkflowConfigurationError,
        ),
        Mistake(
            ("one(self, ev: A | B) -> A | StopEvent",),
            "no step of 'Flow' accepts StartEvent, so nothing can start it.",
            "async def one(self, ev: StartEvent) -> A | StopEvent:",
            WorkflowConfigurationError,
        ),
        Mistake(
            ("one(self, ev: StartEvent) -> A", "two(self, ctx: Context, ev: A) -> None"),
            "no step of 'Flow' returns StopEvent, so it could never end.",
            "async def two(self, ctx: Context, ev: A) -> StopEvent | None: and in it: return StopEvent(result=...)",
            WorkflowConfigurationError,
        ),
        Mistake(
            ("one(self, ev: StartEvent | A) -> A | StopEvent", "two(self, ev: Begin) -> A"),
            "'Flow' has two types of start event: StartEvent (in one), Begin (in two). A run starts with one.",
            "async def one(self, ev: Begin | A) -> A | StopEvent:",
            WorkflowConfigurationError,
        ),
        Mistake(
            ("one(self, ev: Begin) -> A | StopEvent", "two(self, ev: StartEvent | A) -> A"),
            "'Flow' has two types of start event: Begin (in one), StartEvent (in two). A run starts with one.",
            "async def two(self, ev: Begin | A) -> A:",
            WorkflowConfigurationError,
        ),
        Mistake(
            ("one(self, ev: StartEvent | Begin) -> StopEvent",),
            "'Flow' has two types of start event: StartEvent (in one), Begin (in one). A run starts with one.",
            "async def one(self, ev: Begin) -> StopEvent:",
            WorkflowConfigurationError,
        ),
        Mistake(
            ("one(self, ev: StartEvent) -> A", "two(self, ev: A | StopEvent) -> StopEvent"),
            "step 'two' of 'Flow' accepts StopEvent, which ends the run before any step sees it.",
            "Return an event of your own where the run is to go on, and let the step accept that.",
        ),
        Mistake(
            ("one(self, ev: StartEvent) -> A | StopEvent", "two(self, ev: A) -> B"),
            "step 'two' of 'Flow' produces B, which no step accepts; they accept StartEvent, A. Accept it in a step "
            "(ev: B), or name it where it is awaited (@step(waits=[B])), or drop it:",
            "async def two(self, ev: A) -> None:",
        ),
        Mistake(
            ("one(self, ev: StartEvent) -> StopEvent | None", "two(self, ev: A) -> None"),
            "step 'two' of 'Flow' accepts A, which no step produces. Write it into the return annotation of the step "
            "that returns or sends it,",
            "async def one(self, ev: StartEvent) -> StopEvent | A | None:",
        ),
        Mistake(
            ("one(self, ev: StartEvent) -> A", "two(self, ev: A | B) -> StopEvent", "three(self, ev: B) -> None"),
            "step 'two', 'three' of 'Flow' accepts B, which no step produces.",
            "async def one(self, ev: StartEvent) -> A | B:",
        ),
        Mistake(
            ("one(self, ev: StartEvent) -> StopEvent", "two(self, ev: A) -> B", "three(self, ev: B) -> A"),
            "no way leads from StartEvent to step 'two', 'three' of 'Flow'. Let a step that is reached produce what it "
            "accepts,",
            "async def one(self, ev: StartEvent) -> StopEvent | A:",
        ),
        Mistake(
            ("one(self, ctx: Context[Unset], ev: StartEvent) -> StopEvent",),
            "the state Unset of 'Flow' starts without values, but 'count' has no default.",
            "count: int = ...",
        ),
        Mistake(
            ("one(self, ctx: Context[Plain], ev: StartEvent) -> StopEvent",),
            "step 'one' of 'Flow' declares Context[Plain], but a state is a pydantic model.",
            "class Plain(BaseModel), with a default for every field.",
        ),
        Mistake(
            (
                "one(self, ctx: Context[State], ev: StartEvent) -> A",
                "two(self, ctx: Context[OtherState], ev: A) -> StopEvent",
            ),
            "'Flow' has different states: State (in one), OtherState (in two). A run has one:",
            "write the same model everywhere, or derive one from the others.",
        ),
        Mistake(
            ("one(self, ev: StartEvent, inner: Inner) -> StopEvent",),
            "step 'one' of 'Flow' needs a workflow for 'inner' and has none.",
            "workflow.add_workflows(inner=Inner())",
        ),
        Mistake(
            ("one(self, ev: StartEvent, inner: Workflow) -> StopEvent",),
            "step 'one' of 'Flow' needs a workflow for 'inner' and has none.",
            "workflow.add_workflows(inner=MyFlow())",
        ),
    ],
    ids=lambda mistake: mistake.says[:50],
)
def test_a_workflow_that_cannot_work_is_refused(mistake: Mistake) -> None:
    """When it is compiled: what is wrong, and what to write."""
    flow = flow_of(*mistake.steps)
    with pytest.raises(WorkflowValidationError) as caught:
        flow().validate()
    assert type(caught.value) is mistake.kind
    assert str(caught.value).startswith(mistake.says)
    assert str(caught.value).endswith(mistake.write)


def test_an_error_says_where_the_step_stands() -> None:
    """In the form in which Python writes places, so that tools can go there."""

    class Flow(Workflow):
        @step
        async def one(self, ev: StartEvent) -> A | StopEvent:
            return A()

    with pytest.raises(WorkflowValidationError) as caught:
        Flow().validate()
    line = Flow.one.__code__.co_firstlineno
    assert caught.value.__notes__ == [f"agentflow: step 'one' is in File \"{__file__}\", line {line}"]


@pytest.mark.parametrize(
    "steps",
    [
        # to the stream, and from outside
        ("one(self, ev: StartEvent) -> Ask", "two(self, ev: Answer) -> StopEvent"),
        ("one(self, ev: StartEvent) -> InputRequiredEvent", "two(self, ev: HumanResponseEvent) -> StopEvent"),
        # both ways: a step may take a question, and make an answer
        ("one(self, ev: StartEvent) -> Answer", "two(self, ev: Ask) -> StopEvent"),
        # loops
        ("one(self, ev: StartEvent | A) -> A | StopEvent",),
        ("one(self, ev: StartEvent) -> StartEvent | StopEvent",),
        # a base class takes what its subclasses are
        ("one(self, ev: StartEvent) -> Special", "two(self, ev: A) -> StopEvent"),
        # a declared type covers its subclasses
        ("one(self, ev: StartEvent) -> A", "two(self, ev: Special) -> StopEvent"),
        ("one(self, ev: StartEvent) -> Event", "two(self, ev: A) -> StopEvent", "three(self, ev: B) -> None"),
        # several ends
        ("one(self, ev: StartEvent) -> StopEvent | WorkflowFailedEvent",),
        # states that derive from each other
        (
            "one(self, ctx: Context[State], ev: StartEvent) -> A",
            "two(self, ctx: Context[MoreState], ev: A) -> B",
            "three(self, ctx: Context, ev: B) -> StopEvent",
        ),
        ("one(self, ctx: Context[dict[str, int]], ev: StartEvent) -> StopEvent",),
        # slots that are filled
        ("one(self, ev: StartEvent, inner: Workflow = Inner()) -> StopEvent",),
        ("one(self, ev: StartEvent, inner: Inner | None = None) -> StopEvent",),
    ],
    ids="; ".join,
)
def test_a_workflow_that_can_work_is_accepted(steps: tuple[str, ...]) -> None:
    """What comes from outside or goes there is exempt, and subclasses count."""
    flow_of(*steps)().validate()


@pytest.mark.parametrize("waits", [[A], [Special], [Event]])
def test_an_event_that_is_awaited_need_not_be_accepted(waits: list[type[Event]]) -> None:
    """By itself, its base or its subclass."""

    class Flow(Workflow):
        @step
        async def one(self, ev: StartEvent) -> A | B:
            return A()

        @step(waits=waits)
        async def two(self, ev: B) -> StopEvent:
            return StopEvent()

    Flow().validate()


def test_the_state_is_the_most_derived_model() -> None:
    """Which has all that the others have."""
    flow = flow_of(
        "one(self, ctx: Context[MoreState], ev: StartEvent) -> A", "two(self, ctx: Context[State], ev: A) -> StopEvent"
    )
    assert graph_of(flow).state is MoreState


INNER = Inner()


class Nests(Workflow):
    @step
    async def one(self, ev: StartEvent, inner: Inner, other: Workflow = INNER) -> StopEvent:
        return StopEvent(result=(type(inner).__name__, type(other).__name__))


class Another(Inner):
    pass


async def test_slots_are_filled_by_workflows_and_by_defaults() -> None:
    """By an object of the declared class, or of one that derives from it."""
    flow = Nests()
    flow.add_workflows(inner=Another())
    assert await flow.run() == ("Another", "Inner")
    flow.add_workflows(other=Nests())
    assert await flow.run() == ("Another", "Nests")


def test_a_slot_that_is_filled_with_another_kind_of_workflow_is_refused() -> None:
    """It says which is wanted."""
    flow = Nests()
    flow.add_workflows(inner=Nests())
    with pytest.raises(
        WorkflowValidationError,
        match=r"step 'one' of 'Nests' takes an Inner for 'inner', but has <Nests workflow>. "
        r"Write: workflow.add_workflows\(inner=Inner\(\)\)",
    ):
        flow.validate()


def connect() -> str:
    return "real"


def open_it() -> Iterator[str]:
    yield "open"


def serve(db: Annotated[str, Resource(connect)]) -> str:
    return f"service on {db}"


class Uses(Workflow):
    @step
    async def one(self, ev: StartEvent, service: Annotated[str, Resource(serve)]) -> StopEvent:
        return StopEvent(result=service)


def fake(db: Annotated[str, Resource(connect)]) -> str:
    return db


@pytest.mark.parametrize(
    ("resources", "says"),
    [
        ({len: 3}, r"^Workflow\(resources=\{len: ...\}\): no step of 'Uses' uses .* there are: connect, serve\.$"),
        ({connect: Resource(fake)}, r"'fake' needs what it replaces, and so itself. Let it make the object alone\.$"),
        (
            {connect: Resource(open_it)},
            "resource 'serve' lives as long as the workflow but needs 'open_it', which lives as long as the run",
        ),
    ],
    ids=lambda value: None if isinstance(value, str) else next(map(repr, value)),
)
def test_an_override_that_cannot_work_is_refused(resources: Any, says: str) -> None:
    """With the factories that there are."""
    with pytest.raises(WorkflowValidationError, match=says):
        Uses(resources=resources).validate()


def test_an_override_may_live_as_long_as_it_must() -> None:
    """Where its scope is said."""
    Uses(resources={connect: Resource(open_it, scope="workflow")}).validate()
    Uses(resources={serve: Resource(open_it)}).validate()
