"""Content is cut inside its structure, is always valid, and never holds a secret that can be recognised."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from enum import Enum, IntEnum
from functools import cached_property
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, Secret, SecretStr, computed_field

from agentflow import Event
from agentflow_instrumentation.cutting import Cutter, as_json, clean, size

SECRETS = [
    "sk-proj-abcdefghijklmnop1234",
    "sk-ant-api03-abcdefghijklmnop",
    "sk_live_abcdefgh12345678",
    "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "github_pat_11ABCDEFG0abcdefghijkl",
    "glpat-abcdefghijklmnop1234",
    "hf_abcdefghijklmnopqrstuvwx",
    "xoxb-123456789012-abcdefghij",
    "AKIAIOSFODNN7EXAMPLE",
    "AIzaSyA-abcdefghijklmnopqrstuvwxyz01234",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3.dBjftJeZ4CVP",
]
TEXTS = st.text(st.characters(categories=None), max_size=200)  # with what is no Unicode, too


def _oddities() -> st.SearchStrategy[Any]:
    # Hypothesis looks at what it makes: it bears no others
    return st.sampled_from(["rude", "asking", "cached", "listed"]).map(lambda name: HOSTILE[name]())


VALUES = st.recursive(
    st.one_of(
        *(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS, st.binary(max_size=20), st.dates()),
        *(st.uuids(), st.decimals(), st.sets(st.integers(), max_size=3), st.deferred(_oddities)),
    ),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(TEXTS, inner, max_size=8) | st.tuples(inner),
    max_leaves=60,
)


@pytest.mark.parametrize("secret", SECRETS)
def test_keys_and_tokens_are_masked(secret: str) -> None:
    told = clean(f"use {secret}, please", 1000)
    assert told == "use **********, please"
    assert secret[:12] not in as_json({"note": f"use {secret}"}, 1000)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Authorization: Bearer abcdef123456", "Authorization: Bearer **********"),
        ("api_key=abcdef", "api_key=**********"),
        ('{"OPENAI_API_KEY": "abcdef"}', '{"OPENAI_API_KEY": "**********"}'),
        ("postgres password: hunter2 or so", "postgres password: ********** or so"),
        ("access_token=abc.def&x=1", "access_token=**********&x=1"),
        ("the risk-management-department asks", "the risk-management-department asks"),
        ("tokens: 812", "tokens: 812"),
    ],
)
def test_what_is_named_like_a_secret_is_masked(text: str, told: str) -> None:
    assert clean(text, 1000) == told


class Login(BaseModel):
    user: str
    password: SecretStr
    pin: str = Field(default="1234", repr=False)
    shadow: str = Field(default="5678", exclude=True)


@dataclass
class Point:
    x: int
    hidden: str = field(default="1234", repr=False)


class Colour(Enum):
    RED = "red"


class Rude:
    def __repr__(self) -> str:
        raise AssertionError("the user's code was called")

    __str__ = __repr__


def never(*_: object, **__: object) -> Any:
    raise AssertionError("the user's code was called")


HIDING: Any = property(never)


class Level(IntEnum):
    HIGH = 3
    __int__ = __index__ = __str__ = __repr__ = never


class Word(str):
    __slots__ = ()
    __str__ = __repr__ = __len__ = __eq__ = __hash__ = __getitem__ = encode = casefold = isascii = never


class Sized(str):
    __slots__ = ()
    __class__ = HIDING  # pyright: ignore[reportIncompatibleMethodOverride]  # because it is hostile


class Mapped(dict[str, Any]):
    __iter__ = __len__ = __getitem__ = items = keys = values = __repr__ = never


class Listed(list[Any]):
    __iter__ = __len__ = __getitem__ = __repr__ = never


class Liar:
    """Says that it is a dictionary, and raises when it is asked anything."""

    __class__ = HIDING  # pyright: ignore[reportIncompatibleMethodOverride]  # because it is hostile
    __getattr__ = __getattribute__ = __eq__ = __hash__ = __len__ = __iter__ = __str__ = __repr__ = never
    __bool__ = __dir__ = __format__ = __reduce__ = items = model_dump = model_fields = dict = never


class Meta(type):
    __name__ = HIDING
    __getattr__ = __instancecheck__ = __subclasscheck__ = never


class Odd(metaclass=Meta):
    pass


@dataclass
class Shadowed:
    x: object


@dataclass
class Slotted:
    __slots__ = ("x",)
    x: int


class ApiKey(Secret[str]):
    pass


class Cached(BaseModel):
    x: int = 1

    @computed_field  # type: ignore[prop-decorator]  # because mypy knows no decorated properties
    @property
    def y(self) -> int:
        return int(never())

    @cached_property
    def z(self) -> str:
        return "1234"

    def model_post_init(self, _: object) -> None:
        assert self.z  # it is kept in the object's dictionary, and is no field


class Asking(Shadowed):
    x: Any = property(never, lambda self, value: self.__dict__.__setitem__("x", value))


HIDDEN_FIELDS = {"passwords": "**********", "secret": "**********", "api_key": "**********", "n_secret": None}
HOSTILE: dict[str, Callable[[], Any]] = {
    "liar": Liar,
    "odd": Odd,
    "rude": Rude,
    "asking": lambda: Asking(1),
    "mapped": lambda: Mapped({"a": 1}),
    "listed": lambda: Listed([1]),
    "word": lambda: Word("x"),
    "sized": lambda: Sized("x"),
    "level": lambda: Level.HIGH,
    "cached": Cached,
    "mock": lambda: Mock(spec=dict),
    "class": lambda: Liar,
    "odd class": lambda: Odd,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_code_of_the_users_is_called(name: str) -> None:
    value = HOSTILE[name]()
    json.loads(as_json({"a": value, "b": [value], "c": (1, value)}, 1000))
    as_json(value, 1000)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (Login(user="ann", password=SecretStr("hunter2")), {"user": "ann", "password": "**********"}),
        (SecretStr("hunter2"), "**********"),
        ({"api_key": "hunter2", "n": 1}, {"api_key": "**********", "n": 1}),
        (Point(1), {"x": 1}),
        (Event(a=1, b=[True, None]), {"a": 1, "b": [True, None]}),
        (Colour.RED, "red"),
        (b"\x00\x01", "<2 bytes>"),
        (Rude(), "<Rude>"),
        (Rude, "<class Rude>"),
        (ValueError("Ann"), "<ValueError>"),
        (date(2026, 1, 2), "2026-01-02"),
        ({1: {2.5, 3.5} - {3.5}, Rude(): 1}, {"1": [2.5], "<Rude>": 1}),
        (float("inf"), "inf"),
        (1 << 70, "…"),
        ({"passwords": ["hunter2"], "secret": b"hunter2", "api_key": 4711, "n_secret": None}, HIDDEN_FIELDS),
        (
            {"token": "abcdefgh12345678", "idToken": "abcdefgh12345678"},
            {"token": "**********", "idToken": "**********"},
        ),
        ({"token": "Hel", "pad_token": "<pad>"}, {"token": "Hel", "pad_token": "<pad>"}),
        ({"Cookie": "a=b", "set-cookie": ["a=b"]}, {"Cookie": "**********", "set-cookie": "**********"}),
        ({"credentials": "x", "pwd": "x", "pass": "x"}, dict.fromkeys(("credentials", "pwd", "pass"), "**********")),
        ({"parameters": {"password": {"type": "string"}}}, {"parameters": {"password": {"type": "string"}}}),
        (Shadowed(1), {"x": 1}),
        (Slotted(1), {"x": 1}),
        (ApiKey("hunter2"), "**********"),
        (Cached(), {"x": 1}),
    ],
)
def test_values_become_json_without_calling_their_code(value: object, told: object) -> None:
    assert json.loads(as_json(value, 1000)) == told


def test_what_is_inherited_from_builtins_is_shown_as_they_have_it() -> None:
    assert as_json([Level.HIGH, Word("x"), Mapped({"a": Listed([1])}), Sized("x")], 1000) == '[3,"x",{"a":[1]},"x"]'


def test_a_text_is_cut_between_characters_and_says_so() -> None:
    assert clean("é" * 10, 12) == "éééé…"
    assert clean("abcdef", 6) == "abcdef"
    assert clean("abcdefg", 6) == "abc…"
    assert clean("é" * 3, 6) == "ééé"


def test_a_secret_at_the_cut_does_not_get_out_in_part() -> None:
    for before in range(80, 101):
        assert "sk-" not in clean("x" * before + " " + SECRETS[0] + "y" * 5000, 100).replace("**********", "")


def test_a_structure_is_cut_inside() -> None:
    told = json.loads(as_json({"first": "a", "many": list(range(10_000)), "last": "z"}, 500))
    assert told["first"] == "a"
    assert told["many"][:3] == [0, 1, 2]
    assert told["many"][-1] == "…"
    deep: Any = "end"
    for _ in range(100):
        deep = [deep]
    assert "end" not in as_json(deep, 1000)


def test_a_structure_that_holds_itself_ends() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    json.loads(as_json(loop, 1000))


@given(value=VALUES, limit=st.integers(min_value=64, max_value=2000))
def test_whatever_goes_in_valid_json_of_bounded_size_comes_out(value: Any, limit: int) -> None:
    told = as_json(value, limit)
    json.loads(told, parse_constant=pytest.fail)
    assert len(told.encode()) <= limit
    text, is_json = Cutter().as_value(value, limit)
    assert len(text.encode()) <= limit
    assert is_json is not isinstance(value, str)


@given(text=TEXTS, limit=st.integers(min_value=8, max_value=100))
def test_whatever_text_goes_in_bounded_utf_8_comes_out(text: str, limit: int) -> None:
    assert len(clean(text, limit).encode()) <= limit
    told, is_json = Cutter().json_text(text, limit + 64)
    assert len(told.encode()) <= limit + 64
    if is_json:
        json.loads(told)


WAYS: list[Callable[[str], Any]] = [
    lambda text: [text],
    lambda text: {text: 1},
    lambda text: json.dumps({"a": text}),
    lambda text: {"arguments": json.dumps({"arguments": json.dumps({"a": [text]})})},
    lambda text: Login(user=text, password=SecretStr(text)),
    Shadowed,
    lambda text: Event(text=text),
    lambda text: {"nested": ({"deep": [{"deeper": text}]},)},
]


@given(
    before=VALUES,
    secret=st.sampled_from(SECRETS),
    way=st.sampled_from(WAYS),
    text=TEXTS.map(lambda text: text[:100]),
    limit=st.integers(min_value=64, max_value=600),
)
def test_a_planted_secret_never_comes_out(
    before: Any, secret: str, way: Callable[[str], Any], text: str, limit: int
) -> None:
    told = as_json({"before": before, text: way(f"{text} {secret} {text}")}, limit)
    assert secret not in told
    assert secret[:16] not in told
    told, _ = Cutter().json_text(json.dumps([f"{secret}"] * 3), limit)
    assert secret[:16] not in told


@given(secret=st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=8), levels=st.integers(0, 3))
def test_what_is_named_like_a_secret_is_found_in_json_inside_json(secret: str, levels: int) -> None:
    value: Any = {"db": {"password": f'Zq{secret} \\ " {secret}'}, "user": "ann"}
    for _ in range(levels):
        value = {"arguments": json.dumps(value)}
    assert f"Zq{secret}" not in as_json(value, 5000)
    assert "ann" in as_json(value, 5000)
    assert f"Zq{secret}" not in clean(json.dumps(value), 5000)


@given(items=st.lists(TEXTS, max_size=30), limit=st.integers(min_value=200, max_value=2000))
def test_a_list_keeps_its_first_item_and_its_last(items: list[str], limit: int) -> None:
    cleaned = [clean(item, 60) for item in items]
    told, missing = Cutter().fit(cleaned, limit, lambda many: f"[{many} left out]")
    kept = json.loads(told)
    assert size(told) <= limit
    if not missing:
        assert kept == cleaned
    else:
        gap = next(n for n, item in enumerate(kept) if item.endswith("left out]"))
        assert gap <= 1
        assert kept[:gap] == cleaned[:gap]
        assert kept[gap + 1 :] == cleaned[len(cleaned) - len(kept) + gap + 1 :]
        assert kept[gap] == f"[{len(cleaned) - len(kept) + 1} left out]"
