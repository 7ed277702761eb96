"""What is stored of a run's values comes back as it was, or is refused by name."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections import defaultdict, deque
from decimal import Decimal
from enum import Enum, Flag, auto
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import SimpleNamespace
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, RootModel, computed_field
from pydantic_core import from_json, to_json
from typing_extensions import TypeAliasType

from agentflow import ContextSerdeError, Event, HumanResponseEvent, StartEvent, StopEvent
from agentflow.codec import TAG, Codec, class_name, event_named

T = TypeVar("T")


class Color(Enum):
    RED = "r"
    BLUE = "b"


class Right(Flag):
    READ = auto()
    WRITE = auto()


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0
    seen: int = dataclasses.field(default=0, init=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    color: Color
    path: Path
    rank: int = dataclasses.field(default=1, init=False)


Shades = TypeAliasType("Shades", list[Color])


class Tags(RootModel[list[str]]):
    pass


class Box(BaseModel, Generic[T]):
    inside: T


class Person(BaseModel):
    model_config = ConfigDict(extra="allow")

    name: str
    born: dt.date | None = None
    knows: list[Person] = []

    @cached_property
    def initial(self) -> str:
        return self.name[0]

    @computed_field  # type: ignore[prop-decorator]  # pydantic's own way to write it
    @property
    def shout(self) -> str:
        return self.name.upper()


class Aliased(BaseModel):
    plain: int = Field(alias="PLAIN")
    chosen: int = Field(validation_alias=AliasChoices("first", "second"))
    both: int = Field(default=0, serialization_alias="out")


class ByName(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    size: int = Field(alias="Size")


class Shelf(BaseModel):
    point: Point | None = None
    cell: Cell | None = None


class Everything(Event):
    shelf: Shelf = Shelf()
    color: Color = Color.RED
    right: Right = Right.READ
    tags: Tags = Tags([])
    box: Box[int] | None = None
    person: Person | None = None
    aliased: Aliased | None = None
    by_name: ByName | None = None
    colors: Annotated[dict[str, list[Color]], "by name"] = Field(default_factory=dict)


class Derived(Everything):
    more: int = 0


class Stranger(Event):
    pass


class Reply(HumanResponseEvent):
    text: str = ""


class Undeclared(BaseModel):
    x: int = 0


def through_json(codec: Codec, value: object) -> Any:
    """Encoded, written, read, decoded."""
    text = to_json(codec.encode(value, "it"), inf_nan_mode="constants")
    return codec.decode(from_json(text), "it")


CODEC = Codec([Everything, StartEvent, StopEvent])

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
zones = st.none() | st.just(dt.UTC) | st.timezones() | st.just(dt.timezone(dt.timedelta(hours=5, minutes=45)))
hashable = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(),
    st.binary(),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.dates(),
    st.datetimes(timezones=zones),
    st.times(timezones=st.none() | st.timezones()),
    st.timedeltas(),
    st.complex_numbers(allow_nan=False),
    st.builds(PurePosixPath, st.text("abc/.", min_size=1)),
    st.builds(PureWindowsPath, st.text("abc\\", min_size=1).map("a".__add__)),
    st.builds(Path, st.text("abc/.", min_size=1)),
    st.sampled_from(Color),
    st.sampled_from([Right.READ, Right.WRITE, Right.READ | Right.WRITE, Right(0)]),
)
anything = st.recursive(
    hashable | st.floats(allow_nan=False),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.text() | st.just(TAG), inner, max_size=3),
        st.dictionaries(hashable, inner, max_size=3),
        st.sets(hashable, max_size=3),
        st.frozensets(hashable, max_size=3),
        st.builds(Point, x=st.integers()),
        st.builds(Person, name=st.text(min_size=1), extra=inner),
        st.builds(Everything, free=inner, color=st.sampled_from(Color)),
    ),
    max_leaves=12,
)


def kinds(value: Any) -> Any:
    """The types all through a value, where `==` would take a list for a tuple."""
    if isinstance(value, dict):
        return dict, [(type(k), kinds(v)) for k, v in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [kinds(v) for v in value]
    return type(value)


@given(json_values)
def test_the_values_of_json_stand_for_themselves(value: object) -> None:
    """Nothing is wrapped, so a stored state can be read by people and by other programs."""
    assert CODEC.encode(value, "it") == value
    assert through_json(CODEC, value) == value


@given(anything)
def test_every_value_of_a_known_type_comes_back_equal_and_of_its_type(value: object) -> None:
    """In any nesting, through real JSON."""
    back = through_json(CODEC, value)
    assert back == value
    assert kinds(back) == kinds(value)
    json.dumps(CODEC.encode(value, "it"))


@given(st.integers() | st.text(), st.integers())
def test_a_dict_keeps_keys_that_are_no_text(key: object, value: int) -> None:
    """JSON would make a text of the key 1; here 1 and "1" stay apart."""
    assert through_json(CODEC, {key: value, 1: "int", "1": "str"}) == {key: value, 1: "int", "1": "str"}


def test_a_dict_that_looks_like_a_tag_stays_a_dict() -> None:
    """The user's data cannot be taken for ours."""
    sly = {TAG: "bytes", "value": "AAAA"}
    assert through_json(CODEC, {"a": sly}) == {"a": sly}


def test_numbers_beyond_json_come_back() -> None:
    """Infinity and integers of any length."""
    assert through_json(CODEC, [float("inf"), -float("inf"), 10**400]) == [float("inf"), -float("inf"), 10**400]
    nan = through_json(CODEC, float("nan"))
    assert nan != nan  # noqa: PLR0124 because this is what tells a NaN


def test_a_moment_keeps_its_zone_by_name_and_which_of_two_equal_hours_it_is() -> None:
    """Adding a day to it after a restore must cross the same changes of the clock."""
    berlin = ZoneInfo("Europe/Berlin")
    moment = dt.datetime(2026, 10, 25, 2, 30, tzinfo=berlin, fold=1)
    back = through_json(CODEC, moment)
    assert back.tzinfo is berlin
    assert back.fold == 1
    assert back.utcoffset() == moment.utcoffset()
    assert through_json(CODEC, dt.time(2, 30, tzinfo=berlin)).tzinfo is berlin
    assert through_json(CODEC, dt.datetime(2026, 1, 1, fold=1)).fold == 1  # noqa: DTZ001 because it is about times without a zone


def test_models_dataclasses_and_enums_that_the_fields_of_events_name_come_back() -> None:
    """Nested, generic, frozen, aliased, with free fields; cached and computed properties are no data."""
    free: dict[str, Any] = {"nick": "A"}
    person = Person(name="Ada", born=dt.date(1815, 12, 10), knows=[Person(name="Mary")], **free)
    assert person.initial == "A"
    point = Point(1, 2)
    point.seen = 5
    cell = Cell(Color.BLUE, Path("x"))
    object.__setattr__(cell, "rank", 7)
    event = Everything(
        shelf=Shelf(point=point, cell=cell),
        right=Right.READ | Right.WRITE,
        tags=Tags(["a"]),
        box=Box[int](inside=3),
        person=person,
        aliased=Aliased.model_validate({"PLAIN": 1, "second": 2, "both": 3}),
        by_name=ByName(Size=9),
        colors={"warm": [Color.RED]},
    )
    event.set("free", {1, 2})
    back = through_json(CODEC, event)
    assert back == event
    assert (back.shelf.point.seen, back.shelf.cell.rank, back.free) == (5, 7, {1, 2})
    assert back.person.model_extra == {"nick": "A"}


def test_classes_are_found_behind_the_names_of_types() -> None:
    """`type Shades = list[Color]`, as newer Pythons write it."""

    class Drawing(Event):
        shades: Shades = Field(default_factory=list)

    drawing = Drawing(shades=[Color.RED, Color.BLUE])
    assert through_json(Codec([Drawing]), drawing) == drawing


def test_a_dataclass_whose_annotations_cannot_be_looked_up_is_stored_all_the_same() -> None:
    """Local classes are visible only where they are; what their fields hold must then be known otherwise."""

    @dataclasses.dataclass
    class Inner:
        n: int

    @dataclasses.dataclass
    class Outer:
        inner: Inner | None = None
        n: int = 0

    class Holds(Event):
        outer: Outer

    codec = Codec([Holds])
    assert through_json(codec, Holds(outer=Outer(n=3))) == Holds(outer=Outer(n=3))
    with pytest.raises(
        ContextSerdeError, match=r"it\.outer\.inner holds an? .*Inner, a class that .* does not declare"
    ):
        codec.encode(Holds(outer=Outer(Inner(1))), "it")


def test_a_class_that_is_derived_from_a_declared_event_is_stored_too() -> None:
    """The engine routes it, so a run that holds one can be put away, and read by a process that never wrote one."""
    stored = CODEC.encode(Derived(more=3), "it")
    assert Codec([Everything]).decode(stored, "it") == Derived(more=3)
    assert Codec([StartEvent]).decode(CODEC.encode(Reply(text="yes"), "it"), "it") == Reply(text="yes")


def test_a_class_whose_module_has_another_name_now_is_found_by_its_own() -> None:
    """A script stores as `__main__` what a service imports by its name."""
    stored = CODEC.encode(Everything(shelf=Shelf(point=Point(1))), "it")
    moved = json.loads(json.dumps(stored).replace(f"{__name__}:", "__main__:"))
    assert CODEC.decode(moved, "it") == Everything(shelf=Shelf(point=Point(1)))


def test_a_name_that_two_declared_classes_share_is_not_guessed() -> None:
    """Where the module does not say which one is meant, neither do we."""

    def local() -> type[Event]:
        class Twin(Event):
            pass

        return Twin

    one, two = local(), local()
    one.__module__, two.__module__ = "here", "there"
    codec = Codec([one, two])
    assert type(codec.decode(codec.encode(two(), "it"), "it")) is two
    with pytest.raises(ContextSerdeError, match="does not declare"):
        codec.decode({TAG: f"elsewhere:{one.__qualname__}", "value": {}}, "it")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Undeclared(), "a class that this workflow does not declare. Declare it as a field of an event"),
        (Stranger(), r"Name it where it is used: as what a step accepts or returns, .*@step\(waits=\[Stranger\]\)"),
        (object(), "Keep what makes it .* and let a resource make the object"),
        (SimpleNamespace(), "let a resource make the object"),
        (defaultdict(list), r"cannot be stored as it is. Store what it holds: dict\(...\)"),
        (lambda: None, "cannot be stored"),
    ],
)
def test_what_cannot_be_stored_names_its_place_and_what_to_do(value: object, said: str) -> None:
    """The path leads to the very value."""
    with pytest.raises(ContextSerdeError, match=rf"^the state\.a\[1\]\.b holds an? .*{said}"):
        CODEC.encode({"a": [0, {"b": value}]}, "the state")


def test_the_place_of_what_cannot_be_stored_is_named_inside_of_events_and_by_odd_keys() -> None:
    """Fields and keys alike."""
    keeper = Person.model_validate({"name": "B", "pet": object()})
    with pytest.raises(ContextSerdeError, match=r"^it\.person\.knows\[0\]\.pet holds an object"):
        CODEC.encode(Everything(person=Person(name="A", knows=[keeper])), "it")
    with pytest.raises(ContextSerdeError, match=r"^it\[7\] holds an object"):
        CODEC.encode({7: object()}, "it")


def test_a_value_that_holds_itself_is_refused_with_its_place() -> None:
    """Instead of a recursion error from somewhere inside."""
    ring: list[object] = []
    ring.append(ring)
    with pytest.raises(ContextSerdeError, match="the state holds itself, or is nested too deeply"):
        CODEC.encode({"ring": ring}, "the state")


def test_within_a_process_what_cannot_be_stored_may_be_kept() -> None:
    """`keep` says what stands in its place; what holds itself is kept whole."""
    queue = deque([1])
    stored = CODEC.encode({"queue": queue, "n": (1,)}, "it", keep=lambda value: value)
    assert stored["queue"] is queue
    assert CODEC.decode(stored, "it") == {"queue": queue, "n": (1,)}
    ring: list[Any] = []
    ring.append(ring)
    stored = CODEC.encode({"ring": ring, "n": (1,)}, "it", keep=lambda value: value)
    assert stored["n"] == {TAG: "tuple", "value": [1]}
    assert CODEC.decode(stored, "it")["ring"] is ring
    assert CODEC.decode(CODEC.encode(ring, "it", keep=lambda value: value), "it") is ring


@pytest.mark.parametrize(
    "stored",
    [
        {TAG: "os:system", "value": {}},
        {TAG: class_name(Undeclared), "value": {}},
        {TAG: class_name(Stranger), "value": {}},
        {TAG: "builtins:object", "value": {}},
        {TAG: ["a"], "value": 1},
        {TAG: None, "value": 1},
        {TAG: 1},
    ],
)
def test_stored_data_cannot_name_what_the_workflow_does_not_declare(stored: object) -> None:
    """Nothing is imported, and nothing is made, on the word of stored data."""
    with pytest.raises(ContextSerdeError, match=r"^it\.x"):
        CODEC.decode({"x": stored}, "it")


tags = ["bytes", "datetime", "time", "date", "decimal", "uuid", "complex", "path", "dict", "set", "timedelta"]
classes = [class_name(kind) for kind in (Everything, Point, Color, Right, Tags)]


@given(
    st.recursive(
        json_values,
        lambda inner: st.builds(
            lambda tag, value: {TAG: tag, "value": value},
            st.sampled_from([*tags, *classes]),
            inner,
        ),
        max_leaves=5,
    )
)
def test_stored_data_is_read_or_refused_whatever_it_is(stored: object) -> None:
    """Damaged data never ends in an error that is not ours."""
    try:
        CODEC.decode(stored, "it")
    except ContextSerdeError as error:
        assert str(error).startswith("it")  # noqa: PT017 because most data is read without an error


def test_stored_data_that_no_longer_fits_its_class_says_what_does_not() -> None:
    """A field that has become required, another type."""
    with pytest.raises(ContextSerdeError, match=r"(?s)it: what is stored as .*Everything.* cannot be read: .*color"):
        CODEC.decode({TAG: class_name(Everything), "value": {"color": "no color"}}, "it")


def test_stored_data_that_is_nested_too_deeply_is_refused() -> None:
    """However deep."""
    deep: Any = 0
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ContextSerdeError, match="nested too deeply"):
        CODEC.decode(deep, "it")
    while deep:  # taken apart by hand: freeing it at once would recurse as deep
        deep = deep.pop()


def test_an_event_class_is_found_by_the_name_that_it_is_stored_under() -> None:
    """The one that was defined last, where there are several."""

    def local() -> type[Event]:
        class Local(Event):
            pass

        return Local

    first, last = local(), local()
    assert class_name(first) == class_name(last)
    assert event_named(class_name(Derived)) is Derived
    assert event_named(class_name(last)) is last
    assert event_named("no:Such") is None


def test_an_identifier_and_an_exact_number_keep_every_digit() -> None:
    """By way of an example that one can read."""
    value = {"id": UUID(int=7), "price": Decimal("0.10"), "raw": b"\x00\xff", "who": ("a", 1)}
    assert CODEC.encode(value, "it") == {
        "id": {TAG: "uuid", "value": "00000000-0000-0000-0000-000000000007"},
        "price": {TAG: "decimal", "value": "0.10"},
        "raw": {TAG: "bytes", "value": "AP8="},
        "who": {TAG: "tuple", "value": ["a", 1]},
    }
    assert str(through_json(CODEC, value)["price"]) == "0.10"
