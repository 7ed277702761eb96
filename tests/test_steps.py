"""`@step`: on methods, static methods, functions and what wraps them; its options; where annotations are looked up."""

import asyncio
import functools
import gc
import threading
import weakref
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import pytest

from agentflow import (
    Context,
    Event,
    Resource,
    Retry,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowTimeoutError,
    WorkflowValidationError,
    step,
)
from agentflow.clock import use_clock
from agentflow.testing import FakeClock, record


class Job(Event):
    n: int = 0


class Named(Event):
    where: str = "module"


class Made:
    @classmethod
    async def make(cls, ev: StartEvent) -> StopEvent:
        return StopEvent()


CLASS_METHOD: Any = vars(Made)["make"]


async def run(flow: type[Workflow], **fields: Any) -> Any:
    return await flow().run(**fields)


async def test_an_async_method_is_a_step() -> None:
    """With and without parentheses."""

    class Flow(Workflow):
        @step
        async def first(self, ev: StartEvent) -> Job:
            return Job(n=ev.n)

        @step()
        async def second(self, ev: Job) -> StopEvent:
            return StopEvent(result=ev.n + 1)

    assert await run(Flow, n=1) == 2


async def test_a_plain_method_is_a_step_in_a_thread() -> None:
    """So that it does not block the event loop."""

    class Flow(Workflow):
        @step
        def only(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=threading.current_thread())

    assert await run(Flow) is not threading.current_thread()


async def test_a_static_method_is_a_step() -> None:
    """Whichever of the two decorators is on top, async or plain."""

    class Flow(Workflow):
        @staticmethod
        @step
        async def first(ev: StartEvent) -> Job:
            return Job(n=1)

        @step
        @staticmethod
        def second(ctx: Context, ev: Job) -> StopEvent:
            return StopEvent(result=ev.n + 1)

    assert await run(Flow) == 2
    assert (await Flow.first(StartEvent())).n == 1


async def test_a_function_becomes_a_step_of_a_class() -> None:
    """Its parameters may come in any order."""

    class Flow(Workflow):
        pass

    @step(workflow=Flow)
    async def first(ctx: Context, ev: StartEvent) -> Job:
        await ctx.set("topic", ev.topic)
        return Job()

    @step(workflow=Flow)
    def second(ev: Job, ctx: Context) -> StopEvent:
        return StopEvent(result=ctx.from_thread(ctx.get("topic")))

    assert await run(Flow, topic="pirates") == "pirates"


async def test_a_function_becomes_a_step_of_one_object() -> None:
    """And of no other."""
    flow = Workflow()

    @step(workflow=flow)
    async def only(ev: StartEvent) -> StopEvent:
        return StopEvent(result=1)

    assert await flow.run() == 1
    with pytest.raises(WorkflowValidationError, match="has no steps"):
        Workflow().validate()


async def test_a_function_may_be_a_step_of_several_workflows_with_options_of_their_own() -> None:
    """It stays the function that it is."""
    clock = FakeClock()
    patient, hasty = Workflow(), Workflow()

    async def wait(ev: StartEvent) -> StopEvent:
        await clock.sleep(60)
        return StopEvent(result="waited")

    assert step(workflow=patient)(wait) is wait
    assert step(workflow=hasty, timeout=1)(wait) is wait
    with use_clock(clock):
        slow, fast = patient.run(), hasty.run()
        await clock.advance(100)
    assert await slow == "waited"
    with pytest.raises(WorkflowTimeoutError):
        await fast


async def test_a_bound_method_becomes_a_step() -> None:
    """With its object."""

    class Judge:
        def __init__(self, verdict: str) -> None:
            self.verdict = verdict

        async def judge(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=self.verdict)

    flow = Workflow()
    step(workflow=flow)(Judge("good").judge)
    assert await flow.run() == "good"


def test_a_step_can_be_called_as_the_function_that_it_is() -> None:
    """In a unit test, say."""

    class Flow(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=ev.n)

    assert asyncio.run(Flow().only(StartEvent(n=3))).result == 3


def logged(fn: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Wraps in an async function."""

    @functools.wraps(fn)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        out: StopEvent = await fn(*args, **kwargs)
        return StopEvent(result=("wrapped", out.result))

    return wrapper


def handed_on(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps in a plain function that hands on what the step returns."""

    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return wrapper


def guarded(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps in a plain function that answers by itself."""

    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return StopEvent(result="guarded")

    return wrapper


class Counted:
    """Wraps in an object."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        functools.update_wrapper(self, fn)
        self.fn = fn
        self.calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self.fn(*args, **kwargs)


@pytest.mark.parametrize(
    ("wrap", "result"), [(logged, ("wrapped", 1)), (handed_on, 1), (guarded, "guarded"), (Counted, 1)]
)
async def test_a_step_may_be_wrapped(wrap: Callable[[Any], Any], result: Any) -> None:
    """By async functions, by plain ones and by objects; it keeps its event loop, and its annotations."""
    loop_thread = threading.current_thread()

    class Short(Workflow):
        @wrap
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            assert threading.current_thread() is loop_thread
            return StopEvent(result=1)

    class Long(Workflow):
        @wrap
        @step
        async def only(self, ev: "StartEvent", db: Annotated[int, Resource(int)]) -> "StopEvent":
            assert threading.current_thread() is loop_thread
            return StopEvent(result=1)

    assert await run(Short) == await run(Long) == result


@pytest.mark.parametrize(("wrap", "result"), [(logged, ("wrapped", 1)), (handed_on, 1), (guarded, "guarded")])
async def test_a_step_may_be_made_of_what_is_wrapped(wrap: Callable[[Any], Any], result: Any) -> None:
    """With `@step` on top."""

    class Flow(Workflow):
        @step
        @wrap
        async def only(self, ev: "StartEvent", db: Annotated[int, Resource(int)]) -> "StopEvent":
            return StopEvent(result=1)

    assert await run(Flow) == result


async def test_a_plain_step_may_be_wrapped() -> None:
    """It stays in its thread."""
    loop_thread = threading.current_thread()

    class Flow(Workflow):
        @handed_on
        @step
        def only(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=threading.current_thread())

    assert await run(Flow) is not loop_thread


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"num_workers": 0}, r"num_workers=0 is no whole number of 1 or more. Write @step\(num_workers=4\)"),
        ({"num_workers": 1.5}, r"num_workers=1.5 is no whole number"),
        ({"num_workers": True}, r"num_workers=True is no whole number"),
        ({"timeout": 0}, r"timeout=0 is no positive number of seconds. Write @step\(timeout=30\), or None"),
        ({"timeout": "30"}, r"timeout='30' is no positive number"),
        ({"timeout": float("nan")}, r"timeout=nan is no positive number"),
        ({"waits": Job}, r"waits=.*Job.* is no list of event types. Write @step\(waits=\[Job\]\)"),
        ({"waits": [Job()]}, r"waits=\[Job\(n=0\)\] is no list of event types. Write @step\(waits=\[MyEvent\]\)"),
        ({"waits": "Job"}, r"waits='Job' is no list of event types"),
        ({"retry_policy": Retry}, r"retry_policy=Retry is a class. Write retry_policy=Retry\(...\)"),
        ({"retry_policy": 3}, r"retry_policy=3 has no method next.* Write retry_policy=Retry\(attempts=3\)"),
        ({"workflow": "flow"}, r"workflow='flow' is no workflow. Write @step\(workflow=MyWorkflow\)"),
        ({"workflow": Event}, r"workflow=.*Event.* is no workflow"),
    ],
)
def test_a_bad_option_is_refused(options: dict[str, Any], says: str) -> None:
    """At the declaration, with what to write."""
    with pytest.raises(WorkflowValidationError, match=f"^step 'only': {says}"):

        @step(**options)
        async def only(self: Any, ev: StartEvent) -> StopEvent:
            return StopEvent()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (Workflow, r"@step\(Workflow\): a workflow is given by name. Write @step\(workflow=Workflow\)"),
        (Workflow(), r"@step\(flow\): a workflow is given by name. Write @step\(workflow=flow\)"),
        (4, r"@step on 4: .* options are given by name, such as @step\(num_workers=4\)"),
        (Job, r"@step on <class '.*Job'>: it decorates functions and methods. Write @step directly above `def`"),
        (CLASS_METHOD, r"@step on a class method: .* Write @staticmethod in place of @classmethod"),
    ],
)
def test_a_step_is_a_function_or_a_method(given: Any, says: str) -> None:
    """All else is refused, with what was probably meant."""
    with pytest.raises(WorkflowValidationError, match=says):
        step(given)


def test_a_function_that_takes_self_is_refused() -> None:
    """Nothing could be passed for it."""
    names = {**globals(), "flow": Workflow()}
    slip = "@step(workflow=flow)\nasync def only(self, ev: StartEvent) -> StopEvent: ..."
    with pytest.raises(
        WorkflowValidationError, match=r"no self. Write: async def only\(ev: StartEvent\) -> StopEvent:"
    ):
        exec(slip, names)  # noqa: S102 because the slip is shown as it is written


async def test_events_local_to_a_function_are_found() -> None:
    """Also by annotations that are strings, and those of functions further out."""

    class Outer(Event):
        pass

    async def inner() -> None:
        class Local(Event):
            pass

        class Flow(Workflow):
            @step
            async def first(self, ev: StartEvent) -> "Local | Outer":
                return Local()

            @step
            async def second(self, ev: "Local | Outer") -> StopEvent:
                return StopEvent(result=type(ev))

        assert await run(Flow) is Local

    await inner()


async def test_events_that_are_defined_after_the_workflow_are_found() -> None:
    """When it is first run, after the function that defined them has returned."""

    def define() -> type[Workflow]:
        class Flow(Workflow):
            @step
            async def first(self, ev: StartEvent) -> "Later":
                return Later()

            @step
            async def second(self, ev: "Later") -> StopEvent:
                return StopEvent(result=ev.n)

        class Later(Event):
            n: int = 7

        return Flow

    assert await run(define()) == 7


async def test_events_that_are_defined_in_the_class_are_found() -> None:
    """By the bare name, as in the body of the class."""

    class Flow(Workflow):
        class Inside(Event):
            n: int = 7

        @step
        async def first(self, ev: StartEvent) -> "Inside":
            return self.Inside()

        @step
        async def second(self, ev: "Inside") -> StopEvent:
            return StopEvent(result=ev.n)

    assert await run(Flow) == 7


def make_flow() -> type[Workflow]:
    class Flow(Workflow):
        @step
        async def only(self, ev: StartEvent) -> "Named | StopEvent":
            return StopEvent()

        @step
        async def take(self, ev: "Named") -> StopEvent:
            return StopEvent()

    return Flow


def test_the_names_of_whoever_calls_do_not_count() -> None:
    """Only those of the functions and classes that the step is written in."""

    def call() -> type[Workflow]:
        class Named(Event):
            where: str = "caller"

        flow = make_flow()
        assert Named not in flow().events()
        return flow

    assert Named in call()().events()


def test_each_call_of_a_function_defines_workflows_of_its_own() -> None:
    """With the events of that call."""

    def define(depth: int) -> list[tuple[type[Event], type[Workflow]]]:
        class Own(Event):
            pass

        inner = define(depth - 1) if depth else []

        class Flow(Workflow):
            @step
            async def first(self, ev: StartEvent) -> "Own":
                return Own()

            @step
            async def second(self, ev: "Own") -> StopEvent:
                return StopEvent()

        return [*inner, (Own, Flow)]

    for event, flow in define(3):
        assert event in flow().events()


class Held:
    pass


def define_events_first() -> "tuple[type[Workflow], weakref.ref[Held]]":
    class Own(Event):
        pass

    local = Held()

    class Flow(Workflow):
        @step
        async def first(self, ev: StartEvent) -> "Own":
            return Own()

        @step
        async def second(self, ev: "Own") -> StopEvent:
            return StopEvent()

    return Flow, weakref.ref(local)


def define_events_last() -> "tuple[type[Workflow], weakref.ref[Held]]":
    local = Held()

    class Flow(Workflow):
        @step
        async def first(self, ev: StartEvent) -> "Own":
            return Own()

        @step
        async def second(self, ev: "Own") -> StopEvent:
            return StopEvent()

    class Own(Event):
        pass

    return Flow, weakref.ref(local)


@pytest.mark.parametrize("define", [define_events_first, define_events_last])
def test_what_was_needed_to_read_annotations_is_let_go(
    define: Callable[[], tuple[type[Workflow], "weakref.ref[Held]"]],
) -> None:
    """The locals of a function do not live on with the steps that it declares."""
    flow, local = define()
    flow().validate()
    gc.collect()
    assert local() is None


async def test_a_step_is_called_by_the_name_under_which_it_stands() -> None:
    """So one function can make several steps."""

    def stage(takes: Any, gives: Any) -> Any:
        async def any_name(self: Any, ev: Event) -> Event:
            out: Event = gives(n=(ev.get("n") or 0) + 1) if gives is Job else gives(result=ev.get("n"))
            return out

        any_name.__annotations__.update(ev=takes, **{"return": gives})
        return step(any_name)

    class Flow(Workflow):
        first = stage(StartEvent, Job)
        last = stage(Job, StopEvent)

    with record() as seen:
        assert await run(Flow) == 1
    assert [op.name for op in seen.find("step")] == ["first", "last"]
