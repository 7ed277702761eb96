"""Arguments: JSON Schemas of parameters, and JSON text made into what a function takes."""

import inspect
from dataclasses import dataclass
from datetime import date
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from agentflow_agents import ToolError
from agentflow_agents.arguments import Arguments


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Item(BaseModel):
    title: str
    count: int = 1


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str


@dataclass
class Point:
    x: float
    y: float = 0


def arguments_of(function: Any, **described: str) -> Arguments:
    return Arguments(list(inspect.signature(function).parameters.values()), function, described)


def read(arguments: Arguments, text: str) -> tuple[list[Any], dict[str, Any]]:
    return arguments.call(arguments.validate(text), None)


def properties_of(function: Any, **described: str) -> dict[str, Any]:
    found: dict[str, Any] = arguments_of(function, **described).schema["properties"]
    return found


def test_types_become_json_schema() -> None:
    def function(  # noqa: PLR0913, PLR0917 because each is of another type
        text: str,
        color: Color,
        size: Literal["small", "large"],
        perhaps: int | None,
        many: list[float],
        day: date,
        named: dict[str, int],
    ) -> None: ...

    schema = arguments_of(function).schema
    assert schema["properties"] == {
        "text": {"type": "string"},
        "color": {"$ref": "#/$defs/Color"},
        "size": {"type": "string", "enum": ["small", "large"]},
        "perhaps": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "many": {"type": "array", "items": {"type": "number"}},
        "day": {"type": "string", "format": "date"},
        "named": {"type": "object", "additionalProperties": {"type": "integer"}},
    }
    assert schema["$defs"]["Color"] == {"type": "string", "enum": ["red", "blue"]}
    assert schema["required"] == ["text", "color", "size", "perhaps", "many", "day", "named"]
    assert schema["additionalProperties"] is False


def test_objects_inside_are_closed_unless_they_are_declared_open() -> None:
    def function(item: Item, point: Point, anything: Open, free: dict[str, Any]) -> None: ...

    schema = arguments_of(function).schema
    assert schema["$defs"]["Item"]["additionalProperties"] is False
    assert schema["$defs"]["Point"]["additionalProperties"] is False
    assert schema["$defs"]["Open"]["additionalProperties"] is True
    assert schema["properties"]["free"]["additionalProperties"] is True
    assert list(schema["$defs"]["Item"]["properties"]) == ["title", "count"]
    assert "title" not in schema["$defs"]["Item"]


def test_descriptions_come_from_annotated_from_field_or_from_the_docstring() -> None:
    def function(
        first: Annotated[int, "one"],
        second: Annotated[int, Field(description="two", ge=0)],
        third: int,
        fourth: Annotated[int, Field(description="four")],
        fifth: int = Field(5, description="five"),
    ) -> None: ...

    told = properties_of(function, third="three", fourth="not this one")
    assert [told[name]["description"] for name in told] == ["one", "two", "three", "four", "five"]
    assert told["second"]["minimum"] == 0
    assert told["fifth"]["default"] == 5


def test_arguments_are_what_the_annotations_say() -> None:
    def function(  # noqa: PLR0913, PLR0917 because each is of another type
        item: Item,
        point: Point,
        color: Color = Color.RED,
        items: list[Item] = [],  # noqa: B006 because a model's default is the same
        fifth: int = Field(5, ge=1),
        made: list[int] = Field(default_factory=list),  # noqa: B008 because people write it
        where: Path = Path("a"),
    ) -> None: ...

    sent = '{"item": {"title": "x"}, "point": {"x": "1.5"}, "items": [{"title": "y"}]}'
    _, found = read(arguments_of(function), sent)
    assert found == {
        "item": Item(title="x"),
        "point": Point(1.5),
        "color": Color.RED,
        "items": [Item(title="y")],
        "fifth": 5,
        "made": [],
        "where": Path("a"),
    }


def test_parameters_may_be_called_like_anything_of_pydantic() -> None:
    def function(schema: str, model_config: int, _hidden: int, copy: int, json: str = "j") -> None: ...

    arguments = arguments_of(function)
    _, found = read(arguments, '{"schema": "s", "model_config": 1, "_hidden": 2, "copy": 3}')
    assert found == {"schema": "s", "model_config": 1, "_hidden": 2, "copy": 3, "json": "j"}
    assert list(arguments.schema["properties"]) == list(found)


def test_default_that_no_json_can_be_is_used_without_being_shown() -> None:
    unset: Any = object()

    def function(query: str = unset) -> None: ...

    arguments = arguments_of(function)
    assert arguments.schema["properties"] == {"query": {"type": "string"}}
    assert read(arguments, "{}")[1] == {"query": unset}
    assert str(arguments) == "query?: string"


def test_default_none_may_be_sent_though_the_type_does_not_say_so() -> None:
    def function(limit: int = None, name: Annotated[str, "who"] = None, free: Any = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013 because people write it

    arguments = arguments_of(function)
    assert arguments.schema["properties"] == {
        "limit": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
        "name": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None, "description": "who"},
        "free": {"default": None},
    }
    assert read(arguments, '{"limit": null}')[1] == {"limit": None, "name": None, "free": None}


@pytest.mark.parametrize("text", ["", " \n", "{}"])
def test_nothing_is_as_good_as_an_empty_object(text: str) -> None:
    def function() -> None: ...

    arguments = arguments_of(function)
    assert arguments.schema == {"type": "object", "properties": {}, "additionalProperties": False}
    assert read(arguments, text) == ([], {})


def said(text: str, function: Any) -> str:
    with pytest.raises(ToolError) as caught:
        read(arguments_of(function), text)
    return str(caught.value)


def test_message_says_what_to_correct() -> None:
    def function(item: Item, color: Color = Color.RED, limit: int = 5) -> None: ...

    takes = "It takes: item: Item, color: Color = 'red', limit: integer = 5"
    assert said('{"item": {}, "colour": 1}', function) == (
        f"The arguments are wrong. item.title: is missing; colour: there is no such parameter. {takes}"
    )
    assert said("[]", function) == f"The arguments are wrong. arguments: input should be an object, not []. {takes}"
    cut = said('{"item": {"title": ', function)
    assert cut.startswith("The arguments are no valid JSON (")
    assert cut.endswith("Send one object with: item: Item, color: Color = 'red', limit: integer = 5")


def test_message_is_short_however_much_is_wrong() -> None:
    def function(numbers: list[int]) -> None: ...

    text = said(f'{{"numbers": ["{"x" * 10_000}"{", null" * 100}]}}', function)
    assert "and 96 more" in text
    assert len(text) < 1_000


class Everything(BaseModel):
    n: int
    text: str = "t"
    color: Color = Color.BLUE
    inner: Item | None = None


@given(st.from_type(Everything), st.lists(st.integers()))
def test_what_fits_the_types_comes_back_as_it_was(everything: Everything, numbers: list[int]) -> None:
    def function(everything: Everything, numbers: list[int]) -> None: ...

    text = f'{{"everything": {everything.model_dump_json()}, "numbers": {numbers}}}'
    assert read(arguments_of(function), text)[1] == {"everything": everything, "numbers": numbers}


@given(st.text())
def test_any_text_is_read_or_refused_with_an_explanation(text: str) -> None:
    def function(query: str, limit: int = 5) -> None: ...

    said = ""
    found: dict[str, Any] = {}
    try:
        _, found = read(arguments_of(function), text)
    except ToolError as error:
        said = str(error)
    assert "query: string, limit: integer = 5" in said or set(found) == {"query", "limit"}
