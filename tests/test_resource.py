"""Resources: every kind of factory, made once, for as long as they live, torn down on every path."""

import asyncio
import contextvars
import functools
import gc
import logging
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow import (
    Context,
    Event,
    Resource,
    Retry,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowCancelledByUser,
    WorkflowRuntimeError,
    WorkflowTimeoutError,
    WorkflowValidationError,
    step,
)
from agentflow.clock import use_clock
from agentflow.observe import current_scope
from agentflow.resource import Pool, Recipe, compile_recipe
from agentflow.testing import FakeClock, record


class Job(Event):
    pass


class Database:
    def __init__(self, name: str = "db") -> None:
        self.name = name


def using(factory: Any, declared: Any = Any, **options: Any) -> type[Workflow]:
    """A workflow of two steps that are handed the same resource, and return both."""
    marked = Annotated[declared, Resource(factory, **options)]

    async def first(self: Workflow, ctx: Context, ev: StartEvent, it: Any) -> Job:
        await ctx.set("first", it)
        return Job()

    async def second(self: Workflow, ctx: Context, ev: Job, it: Any) -> StopEvent:
        return StopEvent(result=(await ctx.get("first"), it))

    first.__annotations__["it"] = second.__annotations__["it"] = marked
    made: type[Workflow] = type("Using", (Workflow,), {"first": step(first), "second": step(second)})
    return made


def plain() -> Database:
    return Database()


def unannotated(*args, **kwargs):  # type: ignore[no-untyped-def]  # noqa: ANN002, ANN003, ANN201 because such factories are documented
    return Database(f"{args}{kwargs}")


async def coroutine() -> Database:
    await asyncio.sleep(0)
    return Database()


def generator() -> Iterator[Database]:
    yield Database()


async def async_generator() -> AsyncIterator[Database]:
    await asyncio.sleep(0)
    yield Database()


class Maker:
    """A callable object."""

    def __call__(self) -> Database:
        return Database()


class AsyncMaker:
    """A callable object whose call is a coroutine function; a method of it is a generator."""

    async def __call__(self) -> Database:
        return Database()

    def generate(self) -> Generator[Database, None, None]:
        yield Database()


class Unhashable:
    """A callable object without a hash."""

    __hash__ = None  # type: ignore[assignment]  # that is how a class says so

    def __eq__(self, other: object) -> bool:
        return self is other

    def __call__(self) -> Database:
        return Database()


FACTORIES: list[Any] = [
    plain,
    unannotated,
    coroutine,
    generator,
    async_generator,
    Database,
    functools.partial(Database, "x"),
    functools.partial(coroutine),
    functools.partial(async_generator),
    Maker(),
    AsyncMaker(),
    AsyncMaker().generate,
    Unhashable(),
    functools.cache(plain),
    lambda: Database(),  # noqa: PLW0108 because a lambda is what is tried
    lambda: coroutine(),  # noqa: PLW0108 because a lambda is what is tried
]


@pytest.mark.parametrize("factory", FACTORIES, ids=lambda f: type(f).__name__ + getattr(f, "__name__", ""))
async def test_every_kind_of_factory_makes_one_object_for_all_steps(factory: Any) -> None:
    """Functions, also without annotations; classes, partials, callable objects, coroutine functions, generators."""
    first, second = await using(factory)().run()
    assert isinstance(first, Database)
    assert first is second


@pytest.mark.parametrize("factory", FACTORIES, ids=lambda f: type(f).__name__ + getattr(f, "__name__", ""))
async def test_what_is_not_cached_is_made_for_each_step(factory: Any) -> None:
    """Also when it is said by its scope."""
    for options in ({"cache": False}, {"scope": "step"}):
        first, second = await using(factory, **options)().run()
        assert (first is second) == hasattr(factory, "cache_info")  # what the factory itself keeps stays the same
        assert isinstance(second, Database)


async def test_two_lambdas_do_not_collide() -> None:
    """A factory is known by itself, not by its name."""

    class Flow(Workflow):
        @step
        async def only(
            self, ev: StartEvent, a: Annotated[str, Resource(lambda: "a")], b: Annotated[str, Resource(lambda: "b")]
        ) -> StopEvent:
            return StopEvent(result=a + b)

    assert await Flow().run() == "ab"


async def test_a_factory_that_two_steps_ask_for_at_once_is_called_once() -> None:
    """Whoever comes second waits for the first."""
    calls: list[int] = []
    go = asyncio.Event()

    async def slow() -> Database:
        calls.append(1)
        await go.wait()
        return Database()

    class Flow(Workflow):
        @step
        async def start(self, ev: StartEvent) -> list[Job]:
            return [Job() for _ in range(4)]

        @step
        async def take(self, ctx: Context, ev: Job, db: Annotated[Database, Resource(slow)]) -> StopEvent | None:
            got = [*(await ctx.get("got", [])), db]
            await ctx.set("got", got)
            return StopEvent(result=got) if len(got) == 4 else None

    flow = Flow()
    one, two = flow.run(), flow.run()
    for _ in range(20):
        await asyncio.sleep(0)
    go.set()
    assert len({*map(id, await one), *map(id, await two)}) == 1
    assert len(calls) == 1


async def test_the_step_that_asked_first_may_be_cancelled() -> None:
    """The making goes on, for the others."""
    go = asyncio.Event()

    async def slow() -> Database:
        await go.wait()
        return Database("made")

    flow = using(slow)()
    first = flow.run()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    second = flow.run()
    await asyncio.sleep(0)
    await first.cancel_run()
    go.set()
    made, _ = await second
    assert made.name == "made"
    with pytest.raises(WorkflowCancelledByUser):
        await first


async def test_a_run_that_a_factory_starts_is_no_child_of_the_run_that_asked_first() -> None:
    """Its cancellation does not reach what is made for the workflow."""
    go = asyncio.Event()

    class Loads(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            await go.wait()
            return StopEvent(result="loaded")

    async def load() -> Any:
        return await Loads().run()

    flow = using(load)()
    first, second = flow.run(), flow.run()
    for _ in range(5):
        await asyncio.sleep(0)
    await first.cancel_run()
    go.set()
    assert await second == ("loaded", "loaded")


color: contextvars.ContextVar[str] = contextvars.ContextVar("color", default="none")


async def test_what_a_factory_sets_in_its_context_stays_there() -> None:
    """It runs in a task of its own, and is torn down in that same task."""
    tasks: list[Any] = []

    async def paint() -> AsyncIterator[str]:
        token = color.set("red")
        tasks.append(asyncio.current_task())
        yield color.get()
        tasks.append(asyncio.current_task())
        color.reset(token)

    class Flow(Workflow):
        @step
        async def only(self, ev: StartEvent, red: Annotated[str, Resource(paint)]) -> StopEvent:
            return StopEvent(result=(red, color.get(), asyncio.current_task()))

    red, seen, task = await Flow().run()
    assert (red, seen) == ("red", "none")
    assert tasks[0] is tasks[1] is not task


async def test_the_failure_of_a_factory_fails_the_step_and_is_not_kept() -> None:
    """Whoever asks next tries again; the error says where it came from."""
    calls: list[int] = []

    async def flaky() -> Database:
        calls.append(1)
        if len(calls) == 1:
            raise ConnectionError
        return Database()

    flow = using(flaky)()
    with pytest.raises(ConnectionError) as caught:
        await flow.run()
    assert "agentflow: in resource factory " in caught.value.__notes__[0]
    assert "in step 'first' of workflow 'Using'" in caught.value.__notes__[1]
    first, second = await flow.run()
    assert first is second
    assert len(calls) == 2


async def test_a_retry_makes_the_resource_again() -> None:
    """A factory that fails is part of the attempt."""
    calls: list[int] = []

    def flaky() -> str:
        calls.append(1)
        if len(calls) < 3:
            raise ConnectionError
        return "made"

    class Flow(Workflow):
        @step(retry_policy=Retry(attempts=3, wait=0))
        async def only(self, ev: StartEvent, it: Annotated[str, Resource(flaky)]) -> StopEvent:
            return StopEvent(result=it)

    assert await Flow().run() == "made"


async def test_a_factory_that_yields_nothing_is_told_so() -> None:
    """Plain or async."""

    def nothing() -> Iterator[Database]:
        if color.get() == "never":
            yield Database()

    async def also_nothing() -> AsyncIterator[Database]:
        if color.get() == "never":
            yield Database()

    for factory in (nothing, also_nothing):
        with pytest.raises(
            WorkflowRuntimeError, match=f"'{factory.__name__}' is a generator that yields nothing. Write: yield"
        ):
            await using(factory)().run()


async def test_a_generator_in_a_lambda_is_refused() -> None:
    """Nobody would tear it down."""
    for factory in (lambda: generator(), lambda: async_generator()):  # noqa: PLW0108 because it is the slip
        with pytest.raises(WorkflowRuntimeError, match=r"'<lambda>' returned a generator.* Resource\(open_it\)"):
            await using(factory)().run()


class Log(list[str]):
    """What was opened and closed, in order."""

    def opening(self, name: str) -> Callable[..., AsyncIterator[str]]:
        async def open_it() -> AsyncIterator[str]:
            self.append(f"open {name}")
            yield name
            self.append(f"close {name}")

        return open_it


async def test_generators_are_torn_down_when_the_run_ends(caplog: pytest.LogCaptureFixture) -> None:
    """Well, by an error, by cancellation, by its time-out; before the caller hears of it."""
    log = Log()
    clock = FakeClock()

    class Flow(Workflow):
        @step
        async def only(self, ev: StartEvent, it: Annotated[str, Resource(log.opening("it"))]) -> StopEvent:
            log.append(f"run {ev.how}")
            if ev.how == "fail":
                raise ZeroDivisionError
            if ev.how != "well":
                await asyncio.Event().wait()
            return StopEvent(result="well")

    with use_clock(clock):
        assert await Flow().run(how="well") == "well"
        assert log == ["open it", "run well", "close it"]
        log.clear()

        with pytest.raises(ZeroDivisionError):
            await Flow().run(how="fail")
        assert log == ["open it", "run fail", "close it"]
        log.clear()

        handler = Flow().run(how="cancel")
        await clock.settle()
        await handler.cancel_run()
        assert log == ["open it", "run cancel", "close it"]
        log.clear()

        handler = Flow(timeout=10).run(how="time-out")
        await clock.advance(11)
        assert log == ["open it", "run time-out", "close it"]
        with pytest.raises(WorkflowTimeoutError):
            await handler
    assert not caplog.records


async def test_a_generator_that_is_being_opened_when_the_run_ends_is_cancelled() -> None:
    """And may clean up."""
    log = Log()

    async def slow() -> AsyncIterator[str]:
        try:
            await asyncio.Event().wait()
            yield "never"
        finally:
            log.append("cleaned up")

    handler = using(slow)().run()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await handler.cancel_run()
    assert log == ["cleaned up"]


async def test_a_generator_that_ignores_its_cancellation_is_torn_down_all_the_same() -> None:
    """What it yields too late is closed at once."""
    log = Log()

    async def stubborn() -> AsyncIterator[str]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            log.append("ignored")
        yield "late"
        log.append("closed")

    handler = using(stubborn)().run()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await handler.cancel_run()
    assert log == ["ignored", "closed"]


@dataclass(frozen=True)
class Node:
    name: str
    needs: tuple["Node", ...]


@st.composite
def needs(draw: st.DrawFn) -> list[Node]:
    """Resources that need each other, without a circle."""
    nodes: list[Node] = []
    for index in range(draw(st.integers(1, 6))):
        nodes.append(
            Node(f"n{index}", tuple(draw(st.lists(st.sampled_from(nodes), max_size=3, unique=True)) if nodes else ()))
        )
    return nodes


@given(needs(), st.booleans())
def test_resources_are_torn_down_before_what_they_need(nodes: list[Node], together: bool) -> None:  # noqa: FBT001 because hypothesis passes it by name
    """In the reverse order of their making, whatever needs what, and who asks first."""
    log: list[str] = []
    recipes: dict[str, Recipe] = {}
    for node in nodes:

        def opened(node: Node = node) -> Callable[..., AsyncIterator[str]]:
            async def open_it(**given: str) -> AsyncIterator[str]:
                await asyncio.sleep(0)
                log.append(f"+{node.name}")
                yield node.name
                log.append(f"-{node.name}")

            return open_it

        recipe = compile_recipe(Resource(opened()), "here", {})
        recipe.needs = {need.name: recipes[need.name] for need in node.needs}
        recipes[node.name] = recipe

    async def main() -> None:
        pool = Pool()

        async def resolve(recipe: Recipe) -> Any:
            return await pool.get(recipe, resolve)

        asking = [resolve(recipe) for recipe in reversed(recipes.values())]
        if together:
            await asyncio.gather(*asking)
        else:
            for one in asking:
                await one
        assert pool.needs_closing
        assert not await pool.close()
        assert not pool.needs_closing

    asyncio.run(main())
    opened_order = [entry[1:] for entry in log if entry[0] == "+"]
    closed_order = [entry[1:] for entry in log if entry[0] == "-"]
    assert sorted(opened_order) == sorted(recipes)
    assert closed_order == opened_order[::-1]
    for node in nodes:
        for need in node.needs:
            assert opened_order.index(need.name) < opened_order.index(node.name)


async def test_a_generator_for_one_step_is_torn_down_when_the_step_ends() -> None:
    """Before its successor begins."""
    log = Log()

    class Flow(Workflow):
        @step
        async def first(self, ev: StartEvent, it: Annotated[str, Resource(log.opening("it"), scope="step")]) -> Job:
            log.append("first")
            return Job()

        @step
        async def second(self, ev: Job) -> StopEvent:
            log.append("second")
            return StopEvent()

    await Flow().run()
    assert log == ["open it", "first", "close it", "second"]


async def test_a_generator_for_the_workflow_lives_until_the_workflow_is_closed() -> None:
    """By `async with workflow`, or by aclose; afterwards it is made again."""
    log = Log()
    flow = using(log.opening("it"), scope="workflow")()
    async with flow:
        await flow.run()
        await flow.run()
        assert log == ["open it"]
    assert log == ["open it", "close it"]
    await flow.run()
    await flow.aclose()
    assert log == ["open it", "close it"] * 2
    await flow.aclose()


async def test_what_lives_as_long_as_the_workflow_survives_its_being_changed() -> None:
    """A step that is attached, or a slot that is filled, makes nothing anew."""
    log = Log()
    flow = using(log.opening("it"), scope="workflow")()
    async with flow:
        await flow.run()

        @step(workflow=flow)
        async def more(ev: Job) -> None: ...

        await flow.run()
    assert log == ["open it", "close it"]


def test_each_event_loop_has_objects_of_its_own() -> None:
    """Two asyncio.run calls, one workflow."""
    log = Log()
    flow = using(plain)()
    opened = using(log.opening("it"), scope="workflow")()
    one, _ = asyncio.run(flow_result(flow))
    two, again = asyncio.run(flow_result(flow))
    assert one is not two
    assert two is again
    asyncio.run(flow_result(opened))
    assert log == ["open it", "close it"]
    asyncio.run(flow_result(opened))
    assert log == ["open it", "close it"] * 2


async def flow_result(flow: Workflow) -> Any:
    return await flow.run()


def test_objects_of_event_loops_that_are_closed_are_let_go() -> None:
    """Also where they hold on to their loop."""

    class Bound:
        def __init__(self) -> None:
            self.loop = asyncio.get_running_loop()

    flow = using(Bound)()
    kept = [weakref.ref(asyncio.run(flow_result(flow))[0]) for _ in range(5)]
    gc.collect()
    assert sum(ref() is not None for ref in kept) <= 1


async def test_the_run_that_asked_first_is_not_kept() -> None:
    """By what it made for the workflow."""

    class Big:
        pass

    async def opened() -> AsyncIterator[str]:
        yield "it"

    class Flow(Workflow):
        @step
        async def only(self, ev: StartEvent, it: Annotated[str, Resource(opened, scope="workflow")]) -> StopEvent:
            return StopEvent(result=it)

    async with Flow() as flow:
        big = Big()
        kept = weakref.ref(big)
        assert await flow.run(big=big) == "it"
        del big
        gc.collect()
        assert kept() is None


async def test_a_teardown_that_fails_is_logged_and_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The others are torn down as well, and the result stands."""
    log = Log()

    async def bad() -> AsyncIterator[str]:
        yield "bad"
        raise ConnectionError

    class Flow(Workflow):
        @step
        async def only(
            self,
            ev: StartEvent,
            one: Annotated[str, Resource(log.opening("one"))],
            two: Annotated[str, Resource(bad)],
            three: Annotated[str, Resource(log.opening("three"))],
        ) -> StopEvent:
            return StopEvent(result="stands")

    with caplog.at_level(logging.WARNING), record() as seen:
        assert await Flow().run() == "stands"
    assert log == ["open one", "open three", "close three", "close one"]
    assert [vars(r)["event"] for r in caplog.records] == ["the teardown of a resource failed"]
    assert seen.noted_on(seen.find("run")[0])[-1] == "teardown_failed"


async def test_a_teardown_that_fails_is_noted_on_the_error_of_the_run(caplog: pytest.LogCaptureFixture) -> None:
    """Which stays the error of the run."""

    async def bad() -> AsyncIterator[str]:
        yield "bad"
        raise ConnectionError

    class Flow(Workflow):
        @step
        async def only(self, ev: StartEvent, it: Annotated[str, Resource(bad)]) -> StopEvent:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        await Flow().run()
    assert any("teardown of a resource failed: ConnectionError()" in note for note in caught.value.__notes__)


async def test_a_generator_that_yields_twice_is_told_so(caplog: pytest.LogCaptureFixture) -> None:
    """And is closed."""
    log = Log()

    async def twice() -> AsyncIterator[str]:
        try:
            yield "one"
            yield "two"
        finally:
            log.append("closed")

    def plain_twice() -> Iterator[str]:
        try:
            yield "one"
            yield "two"
        finally:
            log.append("closed")

    for factory in (twice, plain_twice):
        with caplog.at_level(logging.WARNING):
            await using(factory)().run()
        assert "yields more than once. Write one yield, then the teardown" in str(caplog.records[-1].exc_info)
    assert log == ["closed", "closed"]


async def test_closing_a_workflow_raises_what_failed() -> None:
    """There is nobody else to hear of it."""

    async def bad() -> AsyncIterator[str]:
        yield "bad"
        raise ConnectionError

    flow = using(bad, scope="workflow")()
    await flow.run()
    with pytest.raises(BaseExceptionGroup, match="the teardown of resources of 'Using' failed") as caught:
        await flow.aclose()
    assert [type(error) for error in caught.value.exceptions] == [ConnectionError]


def settings() -> dict[str, str]:
    return {"url": "real"}


async def connect(config: Annotated[dict[str, str], Resource(settings)]) -> Database:
    return Database(config["url"])


@dataclass
class Service:
    db: Annotated[Database, Resource(connect)]
    retries: int = 3


def by_position(service: Annotated[Service, Resource(Service)], /, word: str = "w") -> str:
    return service.db.name + word


@pytest.mark.parametrize(
    ("resources", "name"),
    [
        ({}, "realw"),
        ({settings: {"url": "fake"}}, "fakew"),
        ({connect: Database("object")}, "objectw"),
        ({connect: Resource(plain)}, "dbw"),
        ({Service: Service(Database("whole"))}, "wholew"),
        (
            {settings: Resource(lambda: {"url": "lambda"}), Service: Resource(functools.partial(Service, retries=1))},
            "lambdaw",
        ),
        ({by_position: "all"}, "all"),
    ],
    ids=lambda value: None if isinstance(value, str) else ", ".join(k.__name__ for k in value) or "nothing",
)
async def test_resources_take_resources_and_any_of_them_can_be_overridden(resources: dict[Any, Any], name: str) -> None:
    """By an object, or by another resource, however deep."""
    first, second = await using(by_position)(resources=resources).run()
    assert first == second == name


async def test_an_overriding_generator_is_torn_down() -> None:
    """It lives as long as its own kind does."""
    log = Log()
    flow = using(plain)(resources={plain: Resource(log.opening("fake"))})
    assert await flow.run() == ("fake", "fake")
    assert log == ["open fake", "close fake"]


async def test_two_objects_of_a_workflow_have_overrides_of_their_own() -> None:
    """The class is compiled once all the same."""
    flow = using(plain)
    one, two = flow(resources={plain: 1}), flow(resources={plain: 2})
    assert await one.run() == (1, 1)
    assert await two.run() == (2, 2)
    assert isinstance((await flow().run())[0], Database)


async def test_a_pool_that_is_closed_while_an_object_is_made_can_be_used_again() -> None:
    """What is made then does not get lost by the end of what was made before."""
    go = asyncio.Event()
    log = Log()

    async def stubborn() -> AsyncIterator[str]:
        log.append("open")
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                log.append("ignored")
        yield "it"
        log.append("close")

    recipe, pool = compile_recipe(Resource(stubborn), "here", {}), Pool()

    async def resolve(recipe: Recipe) -> Any:
        return await pool.get(recipe, resolve)

    first = asyncio.ensure_future(resolve(recipe))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(pool.close())
    await asyncio.sleep(0)
    second = asyncio.ensure_future(resolve(recipe))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    go.set()
    assert [await first, await second, await closing] == ["it", "it", []]
    assert not await pool.close()
    assert (log.count("open"), log.count("close")) == (2, 2)


async def test_a_partial_keeps_what_is_bound() -> None:
    """Though it is a resource elsewhere."""
    bound = functools.partial(by_position, Service(Database("bound")), word="!")
    assert (await using(bound)().run())[0] == "bound!"
    named = functools.partial(connect, config={"url": "named"})
    assert (await using(named)().run())[0].name == "named"


async def test_an_annotation_that_is_for_somebody_else_is_left_alone() -> None:
    """What a factory's parameter means is its own affair, as long as it has a default."""

    def make(width: "3 in" = 3, again: "A |" = 4) -> int:  # type: ignore[valid-type]  # noqa: F722  # pyright: ignore because it is no type
        return int(width + again)

    assert await using(make)().run() == (7, 7)


async def test_one_step_may_ask_for_a_resource_twice() -> None:
    """By two parameters, or by what they need."""

    class Flow(Workflow):
        @step
        async def only(
            self,
            ev: StartEvent,
            one: Annotated[Service, Resource(Service)],
            two: Annotated[Service, Resource(Service)],
            db: Annotated[Database, Resource(connect)],
        ) -> StopEvent:
            return StopEvent(result=one is two and one.db is db)

    assert await Flow().run() is True


def test_needs_that_go_in_a_circle_are_refused() -> None:
    """With the circle."""
    names: dict[str, Any] = {**globals()}
    exec(  # noqa: S102 because a circle needs names that come later
        """
from __future__ import annotations
def one(two: Annotated[str, Resource(two)]) -> str: ...
def two(one: Annotated[str, Resource(one)]) -> str: ...
""",
        names,
    )
    with pytest.raises(WorkflowValidationError, match=r"in a circle: one -> two -> one\. One of them must do"):
        using(names["one"])


def test_needs_that_live_too_short_are_refused() -> None:
    """With both ways out."""

    def long(short: Annotated[Database, Resource(generator)]) -> str:
        return ""

    with pytest.raises(
        WorkflowValidationError,
        match=r"^step 'first': resource 'long' lives as long as the workflow but needs 'generator', which lives as "
        r'long as the run. Write Resource\(long, scope="run"\), or Resource\(generator, scope="workflow"\)\.$',
    ):
        using(long)
    using(long, scope="run")

    def needs_fresh(fresh: Annotated[Database, Resource(plain, cache=False)]) -> str:
        return ""

    with pytest.raises(
        WorkflowValidationError, match="'needs_fresh' lives as long as the run but needs 'plain', which lives"
    ):
        using(needs_fresh, scope="run")
    using(needs_fresh, cache=False)


def test_a_need_that_nobody_fills_is_refused() -> None:
    """With three ways out."""

    def needy(url: str, port: int = 3) -> Database:
        return Database()

    with pytest.raises(
        WorkflowValidationError,
        match=r"^step 'first': resource factory 'needy' needs 'url', which nothing provides. Give it a default, make "
        r"it a resource \(url: Annotated\[T, Resource\(make_it\)\]\), or bind it: "
        r"Resource\(functools.partial\(needy, url=...\)\)\.$",
    ):
        using(needy)


class Aloof(type):
    """Does not say what derives from it."""

    def __subclasscheck__(cls, other: type) -> bool:
        raise TypeError


class Unasked(metaclass=Aloof):
    pass


class Speaks(Protocol):
    def speak(self) -> str: ...


class Config(TypedDict):
    url: str


class Sub(Database):
    pass


def makes(annotation: Any) -> Callable[..., Any]:
    def make() -> Any: ...

    make.__annotations__["return"] = annotation
    return make


async def makes_text() -> str:
    return ""


def yields_text() -> Iterator[str]:
    yield ""


@pytest.mark.parametrize(
    ("declared", "factory", "made"),
    [
        (Database, makes(str), "str"),
        (Database, makes(None), "None"),
        (Database, makes(str | int), "str | int"),
        (Database | None, makes(list[int]), "list[int]"),
        (dict[str, int], makes(list[int]), "list[int]"),
        (Database, makes_text, "str"),
        (Database, yields_text, "str"),
        (Database, makes(Awaitable[str]), "str"),
        (Database, makes(Coroutine[Any, Any, str]), "str"),
        (Database, makes("str"), "str"),
        (str, Database, "Database"),
        (str, functools.partial(Database, "x"), "Database"),
        (str, Maker(), "Database"),
        (str, AsyncMaker().generate, "Database"),
    ],
    ids=repr,
)
def test_a_factory_of_another_type_is_refused(declared: Any, factory: Any, made: str) -> None:
    """With the type that it makes."""
    with pytest.raises(WorkflowValidationError) as caught:
        using(factory, declared)
    assert str(caught.value).startswith("step 'first': 'it' is declared as ")
    assert f" returns {made}. Write it: Annotated[{made}, Resource(" in str(caught.value)


def bare_iterator() -> Iterator:  # type: ignore[type-arg]  # it says nothing of what it yields
    yield Database()


MAY_FIT: list[tuple[Any, Any]] = [
    (Database, makes(Sub)),
    (Sub, makes(Database)),
    (Database, makes(Database | None)),
    (Database | None, makes(Sub)),
    (Database, makes(Any)),
    (Database, makes(object)),
    (Database, makes("Nowhere")),
    (object, makes(str)),
    (Any, makes(str)),
    (Speaks, makes(str)),
    (Config, makes(dict[str, str])),
    (dict[str, str], makes(Config)),
    (list[int], makes(list[str])),
    (float, makes(int)),
    (Callable[[], str], makes(Callable[[], str])),
    (Iterable[int], makes(list[int])),
    (Database, unannotated),
    (Database, lambda: 3),
    (Annotated[Database, "the one"], makes(Database)),
    (Database, makes(Awaitable)),
    (Database, bare_iterator),
    (Unasked, makes(str)),
]


@pytest.mark.parametrize(("declared", "factory"), MAY_FIT, ids=repr)
def test_a_factory_whose_type_may_fit_is_accepted(declared: Any, factory: Any) -> None:
    """Subclasses both ways, and all that says too little to judge by."""
    using(factory, declared)


@pytest.mark.parametrize(
    ("args", "options", "says"),
    [
        (
            (Database(),),
            {},
            r"Resource\(<.*Database object.*>\): a resource is made by a factory, and this cannot be called",
        ),
        (
            (3,),
            {},
            r"Resource\(3\): .* Write Resource\(make_it\), without calling make_it, or Resource\(lambda: value\)",
        ),
        ((plain,), {"scope": "app"}, r"Resource\(..., scope='app'\): choose one of \['run', 'step', 'workflow'\]"),
        (
            (plain,),
            {"cache": False, "scope": "run"},
            r"^Resource\(plain, cache=False, scope='run'\): .* Write Resource\(plain, cache=False\), or Resource",
        ),
    ],
)
def test_a_bad_marker_is_refused(args: Any, options: Any, says: str) -> None:
    """Where it is written."""
    with pytest.raises(WorkflowValidationError, match=says):
        Resource(*args, **options)


async def test_a_resource_may_be_optional_in_the_signature() -> None:
    """It is injected all the same."""

    class Flow(Workflow):
        @step
        async def only(self, ev: StartEvent, db: Annotated[Database, Resource(plain)] | None = None) -> StopEvent:
            return StopEvent(result=db)

    assert isinstance(await Flow().run(), Database)


async def test_the_making_of_a_resource_is_an_operation_of_the_step_that_asked_first() -> None:
    """What it needs is inside of it; who finds it made has none."""
    with record() as seen:
        await using(by_position)().run()
    (run,) = seen.children(None)
    first, second = (op for op in seen.children(run) if op.kind == "step")
    assert not [op for op in seen.children(second) if op.kind == "resource"]
    path = [first.name]
    op = first
    while inside := [op for op in seen.children(op) if op.kind == "resource"]:
        (op,) = inside
        path.append(op.name)
    assert path == ["first", "by_position", "Service", "connect", "settings"]
    assert not seen.open()


async def test_no_operation_is_built_when_nobody_listens() -> None:
    """A factory runs as if there were no observers."""

    def look() -> Any:
        return current_scope.get()

    scope, _ = await using(look)().run()
    assert (scope.watch, scope.ref) == (None, None)


async def test_a_factory_that_fails_ends_its_operation_with_the_error() -> None:
    """Each of those that it is inside of."""

    def fails() -> str:
        raise ConnectionError

    with record() as seen, pytest.raises(ConnectionError):
        await using(fails)().run()
    (op,) = seen.find("resource")
    assert op.outcome == "error"
    assert isinstance(seen.errors[op.ref.id], ConnectionError)
    assert not seen.open()


async def test_what_is_operated_inside_a_factory_is_inside_its_operation() -> None:
    """A run that it starts, for one."""

    class Loads(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result="loaded")

    async def load() -> Any:
        return await Loads().run()

    with record() as seen:
        await using(load)().run()
    (making,) = seen.find("resource")
    assert [op.name for op in seen.children(making)] == ["Loads"]


# ------------------------------------------------------------------------------------ asked for by ctx.resource(...)


def opened() -> Iterator[Database]:
    yield Database("opened")


class Asking(Workflow):
    """Asks for resources itself; the same as `using` makes, without parameters."""

    asks_for: Sequence[Resource] = (Resource(plain), Resource(opened), Resource(opened, scope="step"))

    @step
    async def first(self, ctx: Context, ev: StartEvent) -> Job:
        found = [await ctx.resource(resource) for resource in self.asks_for]
        assert found == [await ctx.resource(resource) for resource in self.asks_for]
        await ctx.set("first", found)
        return Job()

    @step
    async def second(self, ctx: Context, ev: Job) -> StopEvent:
        found = [await ctx.resource(resource) for resource in self.asks_for]
        return StopEvent(result=(await ctx.get("first"), found))


async def test_a_step_may_ask_for_resources_by_its_context() -> None:
    workflow = Asking()
    runs = [await workflow.run() for _ in range(2)]
    same = [[a is b for a, b in zip(*run, strict=True)] for run in runs]
    assert same == [[True, True, False]] * 2  # of the workflow, of the run, of the step
    (one, _), (other, _) = runs
    assert [a is b for a, b in zip(one, other, strict=True)] == [True, False, False]


async def test_a_resource_asked_for_is_the_one_that_a_parameter_is_given() -> None:
    class Both(Workflow):
        @step
        async def only(
            self,
            ctx: Context,
            ev: StartEvent,
            it: Annotated[Database, Resource(plain)],
            once: Annotated[Database, Resource(plain, cache=False)],
        ) -> StopEvent:
            same = it is await ctx.resource(Resource(plain)), once is await ctx.resource(Resource(plain, cache=False))
            return StopEvent(result=same)

    # one factory, two scopes: each its own object
    assert await Both().run() == (True, True)


@pytest.mark.parametrize("failing", [False, True], ids=["returns", "raises"])
@pytest.mark.parametrize("limit", [None, 60], ids=["", "with a time-out"])
async def test_a_resource_of_a_step_that_asked_for_it_is_torn_down_when_it_ends(
    failing: bool,  # noqa: FBT001 because it is a parameter of the test
    limit: float | None,
) -> None:
    log: list[str] = []

    def logged() -> Iterator[str]:
        log.append("open")
        yield "it"
        log.append("closed")

    class Asks(Workflow):
        @step(timeout=limit, retry_policy=Retry(attempts=2, wait=0) if limit else None)
        async def first(self, ctx: Context, ev: StartEvent) -> Job:
            log.append(await ctx.resource(Resource(logged, scope="step")))
            if failing:
                raise ValueError("no")
            return Job()

        @step
        async def second(self, ev: Job) -> StopEvent:
            log.append("second")
            return StopEvent()

    handler = Asks().run()
    if failing:
        with pytest.raises(ValueError, match="no"):
            await handler
        assert log == ["open", "it", "closed"] * (2 if limit else 1)
    else:
        await handler
        assert log == ["open", "it", "closed", "second"]


async def test_a_resource_of_a_step_that_is_cancelled_is_torn_down() -> None:
    log: list[str] = []

    def logged() -> Iterator[str]:
        log.append("open")
        yield "it"
        log.append("closed")

    class Asks(Workflow):
        @step
        async def first(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.resource(Resource(logged, scope="step"))
            begun.set()
            await asyncio.Event().wait()
            return StopEvent()

    begun = asyncio.Event()
    handler = Asks().run()
    await begun.wait()
    await handler.cancel_run()
    with pytest.raises(WorkflowCancelledByUser):
        await handler
    assert log == ["open", "closed"]


async def test_a_resource_asked_for_is_overridden_where_the_workflow_says_that_it_asks() -> None:
    fake = Database("fake")
    first, second = await Asking(resources={plain: fake, opened: Resource(Maker())}).run()
    assert first[0] is second[0] is fake
    assert (first[1].name, second[2].name) == ("db", "db")
    with pytest.raises(Exception, match="no step of 'Asking' uses this factory"):
        await Asking(resources={generator: fake}).run()


async def test_a_plain_step_asks_through_its_thread() -> None:
    class Asks(Workflow):
        @step
        def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=ctx.from_thread(ctx.resource(Resource(opened))).name)

    assert await Asks().run() == "opened"


async def test_a_resource_that_is_asked_for_too_late_or_from_outside_is_refused() -> None:
    kept: list[Context] = []

    class Asks(Workflow):
        @step
        async def first(self, ctx: Context, ev: StartEvent) -> Job:
            kept.append(ctx)
            return Job()

        @step
        async def second(self, ctx: Context, ev: Job) -> StopEvent:
            with pytest.raises(WorkflowRuntimeError, match=r"step 'first' has ended.*Resource\(plain\)"):
                await kept[0].resource(Resource(plain))
            return StopEvent()

    handler = Asks().run()
    await handler
    with pytest.raises(WorkflowRuntimeError, match="belongs in a step"):
        await handler.ctx.resource(Resource(plain))
    with pytest.raises(WorkflowRuntimeError, match="'first' has ended"):
        await kept[0].resource(Resource(plain))


async def test_a_factory_that_cannot_be_called_is_refused_where_it_is_asked_for() -> None:
    def needy(address: str) -> Database:
        return Database(address)

    class Asks(Workflow):
        @step
        async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent(result=await ctx.resource(Resource(needy)))

    with pytest.raises(WorkflowValidationError, match=r"needs 'address', which nothing provides"):
        await Asks().run()


async def test_resources_that_were_asked_for_leave_nothing_behind() -> None:
    tasks = asyncio.all_tasks()
    refs = [weakref.ref(one) for one in (await Asking().run())[1]]
    gc.collect()
    assert asyncio.all_tasks() == tasks
    assert [ref() for ref in refs] == [None] * 3


async def _run_and_drop(make: Callable[[], Workflow]) -> None:
    await make().run()
    gc.collect()


async def _settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_what_a_workflow_leaves_open_is_torn_down_with_a_warning_when_it_is_gone() -> None:
    """In the order in which its closing does it."""
    log = Log()

    def make() -> Workflow:
        first, second = log.opening("first"), log.opening("second")

        class Two(Workflow):
            @step
            async def only(
                self,
                ev: StartEvent,
                one: Annotated[str, Resource(first, scope="workflow")],
                two: Annotated[str, Resource(second, scope="workflow")],
            ) -> StopEvent:
                return StopEvent()

        return Two()

    with pytest.warns(ResourceWarning, match=r"nobody had closed its resources: .*, .*\. Write: async with flow:$"):
        await _run_and_drop(make)
    assert log == ["open first", "open second"]
    await _settle()
    assert log[2:] == ["close second", "close first"]


async def test_a_teardown_that_fails_when_the_workflow_is_gone_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody is left to raise it to."""

    async def bad() -> AsyncIterator[str]:
        yield "bad"
        raise ConnectionError

    with pytest.warns(ResourceWarning, match="bad"):
        await _run_and_drop(using(bad, scope="workflow"))
    await _settle()
    assert [vars(record)["event"] for record in caplog.records] == ["the teardown of a resource failed"]
    assert caplog.records[0].exc_info
    assert caplog.records[0].exc_info[0] is ConnectionError


def test_what_a_workflow_leaves_open_in_a_loop_that_is_closed_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """By us, and not by asyncio as a task that was destroyed."""
    log = Log()

    def run_and_drop() -> None:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(flow_result(using(log.opening("it"), scope="workflow")()))
        loop.close()
        del loop
        gc.collect()

    with pytest.warns(ResourceWarning, match=r"Write: async with flow:$"):
        run_and_drop()
    gc.collect()
    assert not caplog.records


async def test_a_workflow_that_is_closed_goes_without_a_warning() -> None:
    """Also when its resources were made again after it."""
    log = Log()
    async with using(log.opening("it"), scope="workflow")() as flow:
        await flow.run()
    await flow.run()
    await flow.aclose()
    del flow
    gc.collect()
    assert log == ["open it", "close it"] * 2
