"""All that is declared here has annotations that are strings until somebody reads them."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from agentflow import Context, Event, Resource, StartEvent, StopEvent, Workflow, WorkflowValidationError, step


class Job(Event):
    n: int = 0


class State(BaseModel):
    seen: list[int] = []


class Database:
    pass


def connect() -> Database:
    return Database()


@dataclass
class Service:
    db: Annotated[Database, Resource(connect)]
    limit: int = 3


async def serve(service: Annotated[Service, Resource(Service)]) -> AsyncIterator[Service]:
    yield service


class Inner(Workflow):
    @step
    async def only(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result="inner")


class Everything(Workflow):
    @step(num_workers=1)
    async def start(self, ctx: Context[State], ev: StartEvent) -> list[Job]:
        return [Job(n=1), Job(n=2)]

    @step(num_workers=1)
    async def take(
        self, ev: Job, ctx: Context[State], service: Annotated[Service, Resource(serve)], inner: Inner | None = None
    ) -> StopEvent | None:
        async with ctx.store.edit_state() as state:
            state.seen.append(ev.n)
        if ev.n < 2:
            return None
        assert isinstance(service.db, Database)
        return StopEvent(result=[*state.seen, inner])


async def test_everything_that_a_step_declares_is_found() -> None:
    """Events, lists, the state, resources with their own needs, slots."""
    assert await Everything().run() == [1, 2, None]


async def test_what_is_local_to_a_function_is_found() -> None:
    """Events, factories and what they need, workflows; also those that are defined below."""

    class Near(Event):
        far: Any

    def make_far() -> Far:
        return Far()

    def make_near(far: Annotated[Far, Resource(make_far)]) -> Near:
        return Near(far=far)

    class Flow(Workflow):
        @step
        async def start(self, ev: StartEvent, near: Annotated[Near, Resource(make_near)]) -> Near | Far:
            return near

        @step
        async def end(self, ev: Near | Far, nested: Nested) -> StopEvent:
            return StopEvent(result=(type(ev["far"]), await nested.run()))

    class Far(Event):
        pass

    class Nested(Inner):
        pass

    flow = Flow()
    flow.add_workflows(nested=Nested())
    assert await flow.run() == (Far, "inner")


async def test_functions_that_are_attached_find_their_events() -> None:
    """To a class and to an object, local ones too."""

    class Near(Event):
        pass

    class Flow(Workflow):
        pass

    @step(workflow=Flow)
    async def first(ev: StartEvent) -> Near:
        return Near()

    flow = Flow()

    @step(workflow=flow)
    async def last(ctx: Context, ev: Near) -> StopEvent:
        return StopEvent(result="end")

    assert await flow.run() == "end"


def wrapped(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return wrapper


async def test_what_wraps_a_step_hides_no_names() -> None:
    """Neither above `@step` nor below it."""

    class Near(Event):
        pass

    class Flow(Workflow):
        @wrapped
        @step
        async def first(self, ev: StartEvent) -> Near:
            return Near()

        @step
        @wrapped
        async def last(self, ev: Near) -> StopEvent:
            return StopEvent(result="end")

    assert await Flow().run() == "end"


async def test_a_step_that_overrides_finds_its_events() -> None:
    """Each in its own place."""

    class Own(Event):
        pass

    class Flow(Everything):
        @step
        async def start(self, ctx: Context[State], ev: StartEvent) -> Own:  # type: ignore[override]  # a step may produce something else
            return Own()

        @step
        async def between(self, ev: Own) -> list[Job]:
            return [Job(n=2)]

    assert await Flow().run() == [2, None]


FLOW = """
from __future__ import annotations

{factory}

class Flow(Workflow):
    @step
    async def one(self, ev: StartEvent, db: Annotated[Database, Resource(make)]) -> StopEvent: ...

Flow().validate()
"""


@pytest.mark.parametrize(
    ("factory", "says"),
    [
        (
            "def make(db: Annotated[Nowhere, Resource(connect)]) -> Database: ...",
            r"factory 'make', the annotation of 'db', 'Annotated\[Nowhere, Resource\(connect\)\]', names 'Nowhere'",
        ),
        ("def make(db: Nowhere) -> Database: ...", "resource factory 'make' needs 'db', which nothing provides"),
    ],
)
def test_a_factory_whose_names_are_not_there_is_refused(factory: str, says: str) -> None:
    """Where it matters; an annotation that says nothing to us may name what it likes."""
    with pytest.raises(WorkflowValidationError, match=says):
        exec(FLOW.format(factory=factory), dict(globals()))  # noqa: S102 because the slip is shown as it is written
    exec(FLOW.format(factory="def make(db: Nowhere = None) -> Nowhere: ..."), dict(globals()))  # noqa: S102 because it is shown as it is written
