"""Schemas of tools: valid JSON Schema for every signature, strict where they may be, and true to what is accepted."""

import functools
import inspect
import json
import re
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, cast
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from agentflow_agents import AgentConfigurationError, Tool, Toolbox, tool
from agentflow_llm import ChatMessage, ToolDefinition
from agentflow_llm.output import is_strict
from agentflow_llm.records import ChatCall
from agentflow_llm.responses_wire import render_request as render_responses
from agentflow_llm.wire import render_request

FIXTURES = Path(__file__).parent / "fixtures" / "openai-wire"
WHOLE = st.integers(-(2**53), 2**53)
"""Those that a float can be."""
Draft202012Validator: Any = import_module("jsonschema").Draft202012Validator  # it has no types


class Color(StrEnum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Mixed(Enum):
    ONE = 1
    TWO = "two"


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = Field(9, ge=1, le=9)


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    name: str = Field(min_length=1, description="What it hears to.")


class Tree(BaseModel):
    """Refers to itself."""

    name: str
    children: list["Tree"] = []


@dataclass
class Point:
    x: float
    y: float = 0
    tags: list[str] = field(default_factory=list)


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


class Pair(NamedTuple):
    first: int
    second: str = "b"


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]

KINDS: list[Any] = [
    str, int, float, bool, None, Any, dict, list, date, datetime, timedelta, Decimal, UUID, Path, bytes, Color, Level,
    Mixed, Literal["a", 1], Literal["only"], Cat, Tree, Point, Movie, Pair, Pet, Annotated[str, "how it is called"],
    Annotated[int, Field(ge=0, lt=10)], Annotated[str, Field(pattern="^a+$")],
]  # fmt: skip
# types that are made here are to a checker no types
a_list, a_dict, a_sequence, a_mapping, annotated, a_tuple = cast(
    "tuple[Any, ...]", (list, dict, Sequence, Mapping, Annotated, tuple)
)
hints = st.recursive(
    st.sampled_from(KINDS),
    lambda inner: st.one_of(
        inner.map(lambda kind: a_list[kind]),
        inner.map(lambda kind: a_dict[str, kind]),
        inner.map(lambda kind: kind | None if kind is not None else None),
        inner.map(lambda kind: a_sequence[kind]),
        inner.map(lambda kind: a_mapping[str, kind]),
        inner.map(lambda kind: annotated[kind, "said of it"]),
        st.tuples(inner, inner).map(lambda kinds: a_tuple[kinds[0], kinds[1]]),
    ),
    max_leaves=4,
)
names = st.from_regex(re.compile(r"[a-z_][a-z0-9_]{0,8}", re.ASCII), fullmatch=True).filter(
    lambda name: (
        name.isidentifier() and name not in {"self", "class", "def", "as", "if", "is", "in", "or", "and", "not"}
    )
)


def function_of(annotations: dict[str, Any], optional: set[str]) -> Callable[..., Any]:
    """A function with these parameters, some of which have the default None."""

    def work(**sent: Any) -> Any:
        return sent

    parameters = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=hint,
            default=None if name in optional else inspect.Parameter.empty,
        )
        for name, hint in annotations.items()
    ]
    work.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # because functions may have one
    work.__annotations__ = annotations
    return work


@given(st.dictionaries(names, hints, max_size=5), st.data())
def test_any_signature_gives_a_valid_schema(annotations: dict[str, Any], data: st.DataObject) -> None:
    optional = set(data.draw(st.lists(st.sampled_from(sorted(annotations)), unique=True))) if annotations else set()
    found = Tool(function_of(annotations, optional), name="work")
    schema = found.parameters
    Draft202012Validator.check_schema(schema)
    json.dumps(schema, allow_nan=False)
    assert list(schema["properties"]) == list(annotations)
    assert set(schema.get("required", ())) == set(annotations) - optional
    assert schema["additionalProperties"] is False
    assert found.definition.strict == is_strict(schema)
    if optional:
        assert not found.definition.strict


@given(
    st.fixed_dictionaries(
        {
            "pet": st.one_of(st.builds(Cat), st.builds(Dog, name=st.text(min_size=1))),
            "point": st.builds(Point, x=WHOLE, y=WHOLE),
            "movie": st.fixed_dictionaries({"title": st.text()}, optional={"year": st.integers()}),
            "tree": st.builds(Tree, name=st.text(), children=st.lists(st.builds(Tree, name=st.text()), max_size=2)),
            "color": st.sampled_from(Color),
            "pets": st.lists(st.builds(Cat), max_size=3),
        }
    )
)
def test_what_fits_the_schema_is_what_the_function_gets(values: dict[str, Any]) -> None:
    def work(pet: Pet, point: Point, movie: Movie, tree: Tree, color: Color, pets: list[Pet]) -> None: ...  # noqa: PLR0913, PLR0917 because each is of another type

    found = Tool(work, requires_approval=True)
    shown = found.asks_approval(json.dumps(values, default=lambda one: getattr(one, "__dict__", str(one))))
    assert shown is not None
    Draft202012Validator(found.parameters).validate(shown)
    arguments = found._arguments  # noqa: SLF001 because what is called is what is looked at
    got: Any = arguments.validate(json.dumps(shown))
    assert arguments.values(got) == values


def look(city: str, days: int, color: Color, pet: Annotated[Pet, "whose"], perhaps: str | None) -> str:
    """Look."""
    return f"{city} {days} {color} {pet} {perhaps}"


def test_schema_is_strict_where_it_asks_for_everything_and_allows_nothing_else() -> None:
    def dog(name: str) -> str:
        return name

    def nothing() -> None: ...

    def plain(pets: list[Dog]) -> None: ...

    def default(city: str, days: int = 3) -> None: ...

    def inner(pet: Cat) -> None: ...

    def opened(labels: dict[str, str]) -> None: ...

    def limited(text: Annotated[str, Field(min_length=2)]) -> None: ...

    assert Tool(dog).definition.strict
    assert Tool(nothing).definition.strict
    others: list[Callable[..., None]] = [plain, default, inner, opened, limited]
    assert not any(Tool(one).definition.strict for one in others)


def request(definition: ToolDefinition, render: Any, **options: Any) -> dict[str, Any]:
    call = ChatCall("openai", "gpt-4o-mini", [ChatMessage(role="user", content="x")], [definition])
    body: dict[str, Any] = render(call, **options)
    [told] = body["tools"]
    found: dict[str, Any] = told.get("function", told)
    return found


def test_server_is_asked_to_keep_to_a_strict_schema() -> None:
    def walk(where: Annotated[Color, "which"], steps: int) -> None: ...

    told = Tool(walk).definition
    for render, options in ((render_request, {}), (render_responses, {"store": False})):
        sent = request(told, render, **options)
        assert sent["strict"] is True
        assert sent["parameters"]["required"] == ["where", "steps"]
        # beside a reference nothing else may stand
        assert sent["parameters"]["properties"]["where"] == {
            "anyOf": [{"$ref": "#/$defs/Color"}],
            "description": "which",
        }
        Draft202012Validator.check_schema(sent["parameters"])
        others = request(told, render, output_mode="prompt", **options)
        assert not others.get("strict")
        assert others["parameters"] == told.parameters


def test_strict_tool_goes_out_as_one_that_openai_took() -> None:
    recorded = json.loads((FIXTURES / "chat_tool_retry_loop.json").read_text(encoding="utf-8"))
    [told] = recorded["interactions"][0]["request"]["json"]["tools"]

    def get_weather_in_city(city: str) -> None: ...

    assert {"description": "", **request(Tool(get_weather_in_city).definition, render_request)} == told["function"]


def test_server_is_not_asked_to_keep_to_what_it_cannot() -> None:
    def walk(steps: int = 3) -> None: ...

    told = Tool(walk).definition
    assert "strict" not in request(told, render_request)
    assert request(told, render_responses, store=False)["strict"] is False
    claimed = told.model_copy(update={"strict": True, "parameters": {"type": "object", "additionalProperties": True}})
    assert "strict" not in request(claimed, render_request)


def greet(name: str, /, *, greeting: str = "Hello") -> str:
    """Say hello.

    Args:
        name: Whom.
        greeting: How.
    """
    return f"{greeting}, {name}"


class Office:
    prefix = "office"

    @classmethod
    def of_class(cls, name: str) -> str:
        """Of the class."""
        return f"{cls.prefix} {name}"

    @staticmethod
    def of_none(name: str) -> str:
        """Of nobody."""
        return name

    async def of_object(self, name: str) -> str:
        """Of the object."""
        return f"{self.prefix} {name}"


class Branch(Office):
    prefix = "branch"


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (Office.of_class, "office Ann"),
        (Branch.of_class, "branch Ann"),
        (Branch().of_class, "branch Ann"),
        (Office.of_none, "Ann"),
        (Office().of_none, "Ann"),
        (Branch().of_object, "branch Ann"),
        (functools.partial(greet, greeting="Bye"), "Bye, Ann"),
        (greet, "Hello, Ann"),
    ],
)
async def test_every_sort_of_function_is_a_tool(function: Callable[..., Any], told: str) -> None:
    found = Tool(function)
    assert next(iter(found.parameters["properties"])) == "name"
    result = await Toolbox([function]).execute("c1", found.name, '{"name": "Ann"}')
    assert (result.outcome, result.content) == ("ok", told)


async def test_static_method_may_be_decorated_in_both_orders() -> None:
    class Desk:
        @tool
        @staticmethod
        def first(n: int) -> str:
            return f"first {n}"

        @staticmethod
        @tool
        def second(n: int) -> str:
            return f"second {n}"

    box = Toolbox([Desk.first, Desk().second])
    assert [(await box.execute("c", name, '{"n": 1}')).content for name in ("first", "second")] == [
        "first 1",
        "second 1",
    ]
    assert (Desk.first(2), Desk().second(2)) == ("first 2", "second 2")


def test_decorated_class_method_is_refused_with_what_to_write() -> None:
    def wave(cls: type) -> None: ...

    del wave.__annotations__["cls"]
    with pytest.raises(AgentConfigurationError, match=r"tools=\[Tool\(Desk.wave, timeout=5\)\]"):
        tool(cast("Any", classmethod(wave)))
    with pytest.raises(AgentConfigurationError, match="@tool does not go with @classmethod"):
        classmethod(cast("Any", tool(wave)))


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="newer Pythons take it")
def test_plain_typed_dict_of_an_old_python_is_refused_with_what_to_write() -> None:
    class Book(typing.TypedDict):
        title: str

    def read(books: list[Book]) -> None: ...

    with pytest.raises(
        AgentConfigurationError, match=r"tool 'read': parameter 'books' .* use `typing_extensions.Typed"
    ):
        Tool(read)


async def test_discriminated_unions_and_models_in_lists_are_read() -> None:
    def feed(pets: list[Pet], point: Point, pair: Pair, movie: Movie, level: Level = Level.LOW) -> str:
        return f"{pets} {point} {pair} {movie} {level!r}"

    result = await Toolbox([feed]).execute(
        "c1",
        "feed",
        '{"pets": [{"kind": "dog", "name": "Rex"}, {"kind": "cat"}], "point": {"x": 1}, "pair": [1], '
        '"movie": {"title": "M"}, "level": 2}',
    )
    assert result.content == (
        "[Dog(kind='dog', name='Rex'), Cat(kind='cat', lives=9)] Point(x=1.0, y=0, tags=[]) "
        "Pair(first=1, second='b') {'title': 'M'} <Level.HIGH: 2>"
    )
    wrong = await Toolbox([feed]).execute(
        "c2", "feed", '{"pets": [{"kind": "fish"}], "point": 1, "pair": [], "movie": {}}'
    )
    assert wrong.outcome == "error"
    assert "pets.0: input tag 'fish' found using 'kind' does not match any of the expected tags: 'cat', 'dog'" in (
        wrong.content
    )
    assert "movie.title: is missing" in wrong.content
    assert "Traceback" not in wrong.content
