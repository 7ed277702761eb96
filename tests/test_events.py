"""Events: declared and free fields, access like a dict, and the schema of them."""

import keyword
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.json_schema import GenerateJsonSchema

from agentflow import (
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowFailedEvent,
    step,
)


class Index:
    """A class that knows nothing of pydantic or JSON."""


class Joke(Event):
    topic: str
    rating: int = 3


class Opened(StartEvent):
    """As the documents have it: an index, a model client, a path."""

    text: str
    where: Path
    index: Index
    fallback: Index | None = None
    others: list[Index] = Field(default_factory=list[Index], description="to ask next")
    known: Index = Index()
    judge: Callable[[str], int] = len


FREE_NAMES = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True).filter(
    lambda name: not keyword.iskeyword(name) and not hasattr(Event, name)
)


@pytest.mark.parametrize("kind", [Event, StartEvent, StopEvent, InputRequiredEvent, HumanResponseEvent])
def test_events_take_free_fields(kind: type[Event]) -> None:
    """Of any name and type, and hand them out as they are."""
    index = Index()
    ev = kind(topic="pirates", index=index)
    assert ev.topic == "pirates"
    assert ev["index"] is index


@given(st.dictionaries(FREE_NAMES, st.none() | st.integers() | st.text() | st.lists(st.integers())))
def test_free_fields_are_seen_alike_in_every_way(fields: dict[str, Any]) -> None:
    """As attributes, as items, by get, in `in` and in keys."""
    ev = Event(**fields)
    assert list(ev.keys()) == list(fields)
    assert {**ev} == fields
    for name, value in fields.items():
        assert name in ev
        assert getattr(ev, name) == ev[name] == ev.get(name) == value


def test_declared_fields_are_seen_like_free_ones() -> None:
    """Declared ones come first, with their defaults."""
    ev = Joke.model_validate({"topic": "pirates", "extra": 1})
    assert list(ev.keys()) == ["topic", "rating", "extra"]
    assert {**ev} == {"topic": "pirates", "rating": 3, "extra": 1}
    assert ev["rating"] == ev.get("rating") == ev.rating == 3
    assert "topic" in ev
    assert "extra" in ev


def test_what_is_no_field_is_missing_in_every_way() -> None:
    """Methods and class attributes are no fields."""
    ev = Joke(topic="pirates")
    with pytest.raises(AttributeError, match="audience"):
        _ = ev.audience
    for name in ("audience", "get", "model_fields"):
        assert name not in ev
        assert ev.get(name) is None
        assert ev.get(name, "none") == "none"
        with pytest.raises(KeyError, match=name):
            ev[name]


@pytest.mark.parametrize("name", ["rating", "new"])
def test_fields_can_be_changed_and_added(name: str) -> None:
    """By attribute, by item and by set."""
    ev = Joke(topic="pirates")
    setattr(ev, name, 1)
    assert ev[name] == 1
    ev[name] = 2
    assert ev.get(name) == 2
    ev.set(name, 3)
    assert getattr(ev, name) == 3
    assert name in ev


def test_declared_fields_are_validated() -> None:
    """The error names the field."""
    given: dict[str, Any] = {"topic": 3}
    with pytest.raises(ValidationError, match="topic"):
        Joke(**given)
    given = {"topic": "x", "rating": "4"}
    assert Joke(**given).rating == 4


def test_a_field_may_have_any_python_type() -> None:
    """The object is kept; one of another type is refused with the field's name."""
    index = Index()
    opened = Opened(text="x", where=Path("a"), index=index)
    assert opened.index is index
    wrong: Any = object()
    with pytest.raises(ValidationError, match="index"):
        Opened(text="x", where=Path("a"), index=wrong)


def test_common_names_of_fields_give_no_warning() -> None:
    """Pydantic reserves `model_`, but a model's name is what many events carry; `items` is no method here."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        class Asked(Event):
            model_name: str
            items: list[str]
            values: list[int]

    asked = Asked(model_name="m", items=["a"], values=[1])
    assert asked["model_name"] == "m"
    assert asked.items == ["a"]


def test_a_stopevent_has_a_result() -> None:
    """Nothing, where none is given."""
    assert StopEvent().result is None
    assert StopEvent(result={"a": 1}).result == {"a": 1}


def test_the_schema_of_a_start_event_names_the_types_that_json_does_not_know() -> None:
    """What a run takes can be told from outside, whatever is passed."""

    class Flow(Workflow):
        @step
        async def only(self, ev: Opened) -> StopEvent:
            return StopEvent()

    schema = Flow().start_event_class.model_json_schema()
    name = f"{__name__}.Index"
    python = {"description": f"a Python object: {name}", "x-python-type": name}
    assert schema["required"] == ["text", "where", "index"]
    assert schema["properties"] == {
        "text": {"title": "Text", "type": "string"},
        "where": {"title": "Where", "type": "string", "format": "path"},
        "index": {"title": "Index", **python},
        "fallback": {"title": "Fallback", "anyOf": [python, {"type": "null"}], "default": None},
        "others": {"title": "Others", "type": "array", "items": python, "description": "to ask next"},
        "known": {"title": "Known", **python},
        "judge": {"title": "Judge", "description": "a Python object: callable", "x-python-type": "callable"},
    }


@pytest.mark.parametrize("mode", ["validation", "serialization"])
def test_the_schema_reaches_into_models_and_does_not_warn(mode: Any) -> None:
    """In a nested model, too, any type is described."""

    class Inner(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        index: Index = Index()

    class Outer(Event):
        inner: Inner
        stream: Iterator[int] = iter(())

    properties = Outer.model_json_schema(mode=mode)["$defs"]["Inner"]["properties"]
    assert properties["index"]["x-python-type"].endswith("Index")


def test_a_schema_generator_of_ones_own_is_used() -> None:
    """By name and by position, as pydantic has it."""

    class Mine(GenerateJsonSchema):
        def str_schema(self, schema: Any) -> dict[str, Any]:
            return {"type": "my-string"}

    by_name = Joke.model_json_schema(schema_generator=Mine)
    by_position = Joke.model_json_schema(True, "#/{model}", Mine)  # noqa: FBT003 because that is what is tested
    assert by_name["properties"]["topic"]["type"] == by_position["properties"]["topic"]["type"] == "my-string"


class Named(StopEvent):
    name: str = "n"


@pytest.mark.parametrize(
    ("event", "shown"),
    [
        (Named(), "Named(name='n')"),
        (Named(result=1), "Named(result=1, name='n')"),
        (Named(free=1), "Named(name='n', free=1)"),  # type: ignore[call-arg]  # events take free fields
        (StopEvent(), "StopEvent(result=None)"),
        (WorkflowFailedEvent(step="s"), "WorkflowFailedEvent(step='s', exception_type='', message='', attempts=1)"),
    ],
    ids=repr,
)
def test_a_stop_event_is_shown_without_the_result_that_it_does_not_use(event: StopEvent, shown: str) -> None:
    """It is data all the same."""
    assert repr(event) == shown
    assert str(event) == shown.partition("(")[2][:-1].replace(", ", " ")
    assert "result" in event.model_dump()
