"""Compiling: which steps a class or an object has, and how often they are looked at."""

from typing import Any

import pytest

from agentflow import Context, Event, StartEvent, StopEvent, Workflow, WorkflowValidationError, step
from agentflow.workflow import graph_of


class A(Event):
    by: str = ""


class Base(Workflow):
    @step
    async def first(self, ev: StartEvent) -> A:
        return A(by="base")

    @step
    async def last(self, ev: A) -> StopEvent:
        return StopEvent(result=f"{ev.by} first, base last")


def names(workflow: Workflow | type[Workflow]) -> list[str]:
    return [plan.name for plan in graph_of(workflow).steps]


async def test_a_subclass_inherits_the_steps() -> None:
    """Those of a mixin, too."""

    class More:
        @step
        async def note(self, ev: A) -> None: ...

    class Flow(Base, More):
        pass

    assert sorted(names(Flow)) == ["first", "last", "note"]
    assert names(Base) == ["first", "last"]
    assert await Flow().run() == "base first, base last"


async def test_a_subclass_may_override_a_step() -> None:
    """With other events, async or plain; the base class keeps its own."""

    class B(Event):
        pass

    class Flow(Base):
        @step
        def first(self, ev: StartEvent) -> "A | B":  # pyright: ignore[reportIncompatibleMethodOverride] because it may
            return B()

        @step
        async def between(self, ev: B) -> A:
            return A(by="own")

    assert await Flow().run() == "own first, base last"
    assert await Base().run() == "base first, base last"


async def test_a_step_that_overrides_may_call_the_one_of_the_base() -> None:
    """It is a method like any other."""

    class Flow(Base):
        @step
        async def last(self, ev: A) -> StopEvent:
            stop = await super().last(ev)
            return StopEvent(result=stop.result.upper())

    assert await Flow().run() == "BASE FIRST, BASE LAST"


async def test_overriding_a_step_without_making_it_one_is_refused() -> None:
    """Most likely the decorator was forgotten."""

    class Flow(Base):
        async def last(self, ev: A) -> StopEvent:
            return StopEvent()

    with pytest.raises(
        WorkflowValidationError,
        match=r"^Flow\.last overrides the step 'last' without being one. Write @step above it, or last = None to take",
    ):
        Flow().validate()


async def test_a_step_may_be_taken_out() -> None:
    """By None; a further subclass may put one in again."""

    class Without(Base):
        last = None  # type: ignore[assignment]  # the documented way to take it out

    class Again(Without):
        @step
        async def last(self, ev: A) -> StopEvent:  # type: ignore[override]  # it was taken out
            return StopEvent(result="again")

    with pytest.raises(WorkflowValidationError, match="returns StopEvent"):
        Without().validate()
    assert await Again().run() == "again"


@pytest.mark.parametrize("name", ["run", "validate", "events", "name", "add_workflows", "_host"])
def test_a_step_that_would_hide_what_a_workflow_has_is_refused(name: str) -> None:
    """Another name is easily found."""

    async def any_name(self: Workflow, ev: StartEvent) -> StopEvent:
        return StopEvent()

    flow: type[Workflow] = type("Flow", (Workflow,), {name: step(any_name)})
    with pytest.raises(
        WorkflowValidationError,
        match=f"^step '{name}' of 'Flow' would hide Workflow.{name}. Give it another name: {name}_step$",
    ):
        graph_of(flow)


@pytest.mark.parametrize(
    ("decorators", "parameters", "says"),
    [
        (
            "@step",
            "ev: StartEvent, ctx: Context",
            "is a method without self. Write: async def only(self, ev: StartEvent, ctx: Context) -> StopEvent: or put",
        ),
        (
            "@staticmethod; @step",
            "self, ev: StartEvent",
            "is a static method, and takes no self. Write: async def only(ev: StartEvent) -> StopEvent:",
        ),
        ("@classmethod; @step", "cls, ev: StartEvent", "is a class method: a step takes self, or nothing."),
    ],
)
def test_a_method_that_takes_the_wrong_first_parameter_is_refused(decorators: str, parameters: str, says: str) -> None:
    """With the corrected line."""
    lines = [*decorators.split("; "), f"async def only({parameters}) -> StopEvent: ..."]
    names: dict[str, Any] = {**globals(), "Context": Context}
    exec("class Flow(Workflow):\n    " + "\n    ".join(lines), names)  # noqa: S102 because slips are shown as written
    with pytest.raises(WorkflowValidationError) as caught:
        names["Flow"]().validate()
    assert str(caught.value).startswith(f"step 'only' of 'Flow' {says}")


async def test_attributes_that_are_no_steps_are_left_alone() -> None:
    """A proxy that is not bound yet, say, is not asked for anything."""

    class Proxy:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

    class Flow(Base):
        client = Proxy()

    assert await Flow().run() == "base first, base last"


def test_two_functions_of_one_name_cannot_be_attached() -> None:
    """To a class, to an object, or to a class that has such a method."""
    flow, cls = Workflow(), type("Flow", (Workflow,), {})

    async def first(ev: StartEvent) -> StopEvent:
        return StopEvent()

    for target, name in ((flow, "Workflow"), (cls, "Flow"), (Base, "Base"), (Base(), "Base")):
        attach = step(workflow=target)
        if name != "Base":
            attach(first)
        with pytest.raises(WorkflowValidationError, match=f"^'{name}' has a step 'first' already. Give one of the two"):
            attach(first)


def test_nothing_is_attached_to_workflow_itself() -> None:
    """It would become part of every workflow."""
    with pytest.raises(
        WorkflowValidationError, match=r"every workflow there is. Make one of your own: flow = Workflow"
    ):

        @step(workflow=Workflow)
        async def only(ev: StartEvent) -> StopEvent:
            return StopEvent()

    with pytest.raises(WorkflowValidationError, match=r"above methods, or @step\(workflow=flow\) above functions"):
        Workflow().validate()


async def test_attaching_to_a_class_reaches_its_objects_and_subclasses() -> None:
    """Also those that have run already: they are compiled anew."""

    class Flow(Base):
        pass

    class Sub(Flow):
        pass

    flow, sub = Flow(), Sub()
    assert await flow.run() == await sub.run()

    class B(Event):
        pass

    @step(workflow=Flow)
    async def extra(ev: A) -> B:
        return B()

    @step(workflow=Flow)
    async def end(ev: B) -> StopEvent:
        return StopEvent(result="extra")

    for workflow in (flow, sub, Flow(), Sub()):
        assert {"extra", "end"} < set(names(workflow))
        assert B in workflow.events()
        await workflow.run()
    assert "extra" not in names(Base)


async def test_attaching_to_an_object_leaves_others_as_they_are() -> None:
    """It has the steps of its class, too, and is compiled anew when it has run already."""
    flow, other = Base(), Base()
    await flow.run()
    assert graph_of(flow) is graph_of(other)

    @step(workflow=flow)
    async def extra(ev: A) -> None: ...

    assert names(flow) == ["first", "last", "extra"]
    assert names(other) == names(Base) == ["first", "last"]
    assert await flow.run() == await other.run()


def test_a_class_is_compiled_once() -> None:
    """For all of its objects; an object with steps of its own once, too."""
    assert graph_of(Base()) is graph_of(Base()) is graph_of(Base)
    flow = Base()

    @step(workflow=flow)
    async def extra(ev: A) -> None: ...

    assert graph_of(flow) is graph_of(flow)
    assert flow.start_event_class is StartEvent
    assert graph_of(flow) is not graph_of(Base)


def test_a_name_of_ones_own_costs_no_compiling() -> None:
    """The tables are shared."""
    named = graph_of(Base(name="mine"))
    assert named.name == "mine"
    assert graph_of(Base).name == "Base"
    assert named.steps is graph_of(Base).steps


def test_attaching_to_an_object_compiles_no_other_workflow() -> None:
    """A service may make one per request."""
    before = graph_of(Base)
    flow = Workflow()

    @step(workflow=flow)
    async def only(ev: StartEvent) -> StopEvent:
        return StopEvent()

    assert graph_of(Base) is before


def test_steps_stand_in_the_order_of_their_classes() -> None:
    """Those of the base first, then those of the subclass, then those that were attached."""

    class Flow(Base):
        @step
        async def more(self, ev: A) -> None: ...

        @step
        async def first(self, ev: StartEvent) -> A:
            return A()

    flow = Flow()

    @step(workflow=flow)
    async def attached(ev: A) -> None: ...

    assert names(flow) == ["first", "last", "more", "attached"]
