"""The declaration of a workflow: its options, what it tells from outside, how it is set up and started."""

import asyncio
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import typing_api
from agentflow import (
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Resource,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowConfigurationError,
    WorkflowRuntimeError,
    WorkflowValidationError,
    step,
)


class Topic(StartEvent):
    """What to joke about."""

    topic: str
    words: int = 100


class Joke(Event):
    text: str


class Late(Event):
    pass


class Critique(StopEvent):
    text: str


class Jokes(Workflow):
    @step
    async def write(self, ev: Topic) -> Joke:
        return Joke(text=f"{ev.topic} in {ev.words}")

    @step(waits=[Late])
    async def criticise(self, ev: Joke) -> Critique:
        return Critique(text=f"{ev.text}: fine")


class Simple(Workflow):
    @step
    async def only(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result={**ev})


def test_a_workflow_tells_what_a_run_takes_and_returns() -> None:
    """As classes and as JSON schemas, before any run."""
    flow = Jokes()
    assert flow.start_event_class is Topic
    assert flow.stop_event_class is Critique
    assert flow.start_event_class.model_json_schema() == {
        "title": "Topic",
        "description": "What to joke about.",
        "type": "object",
        "additionalProperties": True,
        "properties": {
            "topic": {"title": "Topic", "type": "string"},
            "words": {"title": "Words", "type": "integer", "default": 100},
        },
        "required": ["topic"],
    }
    assert flow.stop_event_class.model_json_schema()["required"] == ["text"]


def test_a_workflow_tells_all_its_events() -> None:
    """Those that are accepted, produced and awaited, each once, in their order."""
    assert tuple(Jokes().events()) == (Topic, Joke, Critique, Late)
    for kind in Jokes().events():
        assert kind.model_json_schema()["title"] == kind.__name__


def test_plain_start_and_stop_events_are_told_as_they_are() -> None:
    """Several stop events are told as what they have in common."""

    class Other(StopEvent):
        pass

    class Two(Workflow):
        @step
        async def only(self, ev: StartEvent) -> Critique | Other:
            return Other()

    assert (Simple().start_event_class, Simple().stop_event_class) == (StartEvent, StopEvent)
    assert Two().stop_event_class is StopEvent


def test_what_a_run_takes_is_told_before_slots_are_filled() -> None:
    """Only running needs them."""

    class Nests(Workflow):
        @step
        async def only(self, ev: Topic, inner: Jokes) -> StopEvent:
            return StopEvent()

    flow = Nests()
    assert flow.start_event_class is Topic
    assert tuple(flow.events()) == (Topic, StopEvent)
    with pytest.raises(WorkflowValidationError, match="needs a workflow for 'inner'"):
        flow.validate()


async def test_a_stopevent_of_ones_own_is_itself_the_result() -> None:
    """And a plain one carries it."""
    assert await Jokes().run(topic="pirates") == Critique(text="pirates in 100: fine")
    assert await Simple().run(a=1, b="two") == {"a": 1, "b": "two"}


async def test_a_run_is_started_by_an_event() -> None:
    """Which the step gets as it is."""
    event = StartEvent(a=1)

    class Same(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=ev is event)

    assert await Same().run(start_event=event) is True


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            {"start_event": StartEvent()},
            r"run\(start_event=StartEvent\(\)\): 'Jokes' starts with a Topic. Write: run\(start_event=Topic",
        ),
        ({"start_event": Topic}, r"run\(start_event=<class .*Topic'>\): 'Jokes' starts with a Topic"),
        ({"start_event": {"topic": "a"}}, r"run\(start_event=\{'topic': 'a'\}\): 'Jokes' starts with a Topic"),
        (
            {"start_event": Topic(topic="a"), "words": 3},
            r"a run is started by an event or by fields, not both. Write: run\(start_event=Topic\(words=...\)\)",
        ),
        ({}, r"Jokes.run\(\) cannot make a Topic: 'topic': Field required"),
    ],
)
async def test_a_mistaken_start_is_refused_at_run(given: dict[str, Any], says: str) -> None:
    """Before anything begins."""
    with pytest.raises(WorkflowRuntimeError, match=says):
        await Jokes().run(**given)


def test_an_error_that_run_sync_raises_has_nothing_of_ours_before_it() -> None:
    """Else its traceback would begin with "no running event loop"."""

    class Fails(Workflow):
        @step
        async def fail(self, ev: StartEvent) -> StopEvent:
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine") as caught:
        Fails().run_sync()
    assert caught.value.__context__ is None


def test_run_outside_of_an_event_loop_says_what_to_write() -> None:
    """And leaves nothing behind."""
    with pytest.raises(WorkflowRuntimeError, match=r"Jokes.run\(\) needs a running event loop. .* Jokes\(\).run_sync"):
        _ = Jokes().run(topic="a")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"timeout": 0}, r"Jokes\(timeout=0\): it is a positive number of seconds. Write Jokes\(timeout=60\), or None"),
        ({"timeout": -1.5}, r"Jokes\(timeout=-1.5\)"),
        ({"timeout": True}, r"Jokes\(timeout=True\)"),
        ({"timeout": "60"}, r"Jokes\(timeout='60'\)"),
        (
            {"num_concurrent_runs": 0},
            r"num_concurrent_runs=0\): it is a whole number of 1 or more. Write Jokes\(num_conc",
        ),
        ({"num_concurrent_runs": 1.5}, r"num_concurrent_runs=1.5\)"),
        ({"num_concurrent_runs": True}, r"num_concurrent_runs=True\)"),
        (
            {"resources": [print]},
            r"resources=\[<.*print>\]\): it is a mapping .* Write Jokes\(resources=\{make_db: my_db\}\)",
        ),
        ({"name": ""}, r"Jokes\(name=''\): it is a text. Write Jokes\(name=\"my-flow\"\), or None for 'Jokes'"),
        ({"name": 3}, r"Jokes\(name=3\)"),
    ],
)
def test_a_bad_option_is_refused(options: dict[str, Any], says: str) -> None:
    """When the object is made, with what to write."""
    with pytest.raises(WorkflowConfigurationError, match=says):
        Jokes(**options)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "timeout": st.none() | st.integers(1) | st.floats(0, exclude_min=True),
            "verbose": st.booleans(),
            "num_concurrent_runs": st.none() | st.integers(1),
            "resources": st.dictionaries(st.text(), st.text(), max_size=0),
            "name": st.none() | st.text(min_size=1),
        },
    )
)
def test_good_options_are_taken(options: dict[str, Any]) -> None:
    """All of them have defaults."""
    flow = Jokes(**options)
    flow.validate()
    assert flow.name == (options.get("name") or "Jokes")


def test_the_first_options_may_be_given_by_position() -> None:
    """In the documented order."""
    flow = Jokes(10, True, 3, {}, "mine")  # noqa: FBT003 because that is what is tested
    assert repr(flow) == "<Jokes workflow 'mine'>"
    assert repr(Jokes()) == "<Jokes workflow>"


async def test_a_subclass_may_leave_out_the_constructor_of_its_base() -> None:
    """Defaults hold then."""

    class Own(Simple):
        def __init__(self, word: str) -> None:
            self.word = word

    assert await Own("x").run(a=1) == {"a": 1}
    assert Own("x").name == "Own"


def test_a_workflow_that_cannot_work_is_refused_before_it_runs() -> None:
    """By validate, by run, and by whoever asks what it takes."""

    class Never(Workflow):
        @step
        async def only(self, ev: StartEvent) -> Joke:
            return Joke(text="")

    for ask in (Never().validate, Never().events, lambda: Never().start_event_class, lambda: Never().run()):
        with pytest.raises(WorkflowConfigurationError, match="returns StopEvent"):
            ask()


def test_a_slot_that_no_step_has_is_refused() -> None:
    """With those that there are."""

    class Nests(Workflow):
        @step
        async def only(self, ev: StartEvent, inner: Jokes, other: Workflow | None = None) -> StopEvent:
            return StopEvent()

    flow = Nests()
    unknown: dict[str, Any] = {"outer": Jokes()}
    with pytest.raises(
        WorkflowConfigurationError,
        match=r"add_workflows\(outer=...\): no step of 'Nests' has such a slot. There are: inner, other. "
        r"A slot is a step's parameter: outer: Workflow",
    ):
        flow.add_workflows(**unknown)
    with pytest.raises(WorkflowConfigurationError, match="There are: none"):
        Jokes().add_workflows(**unknown)
    for mistaken, made in ((Jokes, "Jokes"), ("jokes", "MyFlow")):
        wrong: dict[str, Any] = {"inner": mistaken}
        with pytest.raises(
            WorkflowConfigurationError, match=rf"takes a workflow object. Write: add_workflows\(inner={made}\(\)\)"
        ):
            flow.add_workflows(**wrong)
    with pytest.raises(WorkflowValidationError, match="needs a workflow for 'inner'"):
        flow.validate()


async def test_a_start_field_of_any_name_can_be_given_in_the_event() -> None:
    """Those that are parameters of run, too."""

    class Stepwise(StartEvent):
        stepwise: int

    class Flow(Workflow):
        @step
        async def only(self, ev: Stepwise) -> StopEvent:
            return StopEvent(result=ev.stepwise)

    assert await Flow().run(start_event=Stepwise(stepwise=3)) == 3


async def test_a_question_and_an_answer_need_no_partner() -> None:
    """They go to the stream, and come from outside."""

    class Asks(Workflow):
        @step
        async def ask(self, ev: StartEvent) -> InputRequiredEvent:
            return InputRequiredEvent(prefix="?")

        @step
        async def answer(self, ctx: Context, ev: HumanResponseEvent) -> StopEvent:
            return StopEvent(result=ev.response)

    handler = Asks().run()
    async for ev in handler.stream_events():
        if isinstance(ev, InputRequiredEvent):
            handler.ctx.send_event(HumanResponseEvent(response=f"{ev.prefix}!"))
    assert await handler == "?!"


async def test_the_typed_code_of_users_runs() -> None:
    """It is what mypy and pyright read."""
    await typing_api.use()
    await asyncio.to_thread(typing_api.use_sync)


def connect() -> int:
    return 1


class Connects(Workflow):
    @step
    async def only(self, ev: StartEvent, db: Annotated[int, Resource(connect)]) -> StopEvent:
        return StopEvent(result=db)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("connect", r"\(resources={'connect': ...}\): .* this is a str. Write Connects\(resources={connect: ...}\)\.$"),
        (
            Resource(connect),
            r"\(resources={Resource\(connect\): ...}\): .* Write Connects\(resources={connect: ...}\)\.$",
        ),
        (3, r"\(resources={3: ...}\): .* this is an int. Write Connects\(resources={make_db: ...}\)\.$"),
    ],
    ids=["str", "Resource", "int"],
)
def test_the_keys_of_resources_are_factories(key: Any, says: str) -> None:
    """Nothing else replaces anything, and it fails where it is written."""
    with pytest.raises(WorkflowConfigurationError, match=says):
        Connects(resources={key: 1})


class Base(Workflow):
    @step
    async def first(self, ctx: Context, ev: Topic, word: str = "a") -> Joke | StopEvent:
        return StopEvent()

    @step
    async def last(self, ev: Joke) -> StopEvent:
        return StopEvent()


def test_an_override_without_annotations_is_shown_those_of_the_step_that_it_overrides() -> None:
    """Also where others stand between them."""

    class Between(Base):
        pass

    with pytest.raises(WorkflowValidationError) as caught:

        class Over(Between):  # pyright: ignore[reportUnusedClass]  # making it is what fails
            @step
            async def first(self, ctx, ev): ...  # type: ignore[no-untyped-def, override]  # noqa: ANN001, ANN202 because it is the mistake under test

    said = str(caught.value)
    assert (
        "Over.first' has no annotation on parameter 'ctx', so nothing says what to pass. Write, as Base does: " in said
    )
    assert said.endswith("async def first(self, ctx: Context, ev: Topic, word: str = 'a') -> Joke | StopEvent:")


def test_a_step_without_annotations_that_overrides_none_is_shown_what_it_may_be() -> None:
    """Of the class whose step it is."""
    with pytest.raises(WorkflowValidationError) as caught:

        class Own(Base):  # pyright: ignore[reportUnusedClass]  # making it is what fails
            @step
            async def other(self, ctx, ev): ...  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 because it is the mistake under test

    assert str(caught.value).endswith("for example: async def other(self, ctx: Context, ev: MyEvent) -> StopEvent:")


def test_a_step_without_annotations_in_a_class_that_is_no_workflow_is_refused_with_the_workflow() -> None:
    """The class itself cannot know what it is for."""

    class Mixin:
        @step
        async def first(self, ev): ...  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 because it is the mistake under test

    class Mixed(Mixin, Base):  # type: ignore[misc]  # it has no annotations, which is the mistake under test
        pass

    with pytest.raises(WorkflowValidationError, match=r"Mixin.first' has no annotation on parameter 'ev'"):
        Mixed().validate()
