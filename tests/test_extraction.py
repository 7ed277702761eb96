"""Fields of a schema, filled with what stands in texts, or left empty."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, create_model

from agentflow_llm.messages import ChatMessage, Reply, ToolCallPart, ToolResultPart
from agentflow_llm.offline import CLOSING, OfflineModel


class Person(BaseModel):
    name: str
    age: int
    city: str


async def asked(text: str, output: Any) -> Reply:
    return await OfflineModel().chat([ChatMessage(role="user", content=text)], output=output)


JANE = "Jane Doe is 34 years old and lives in Berlin."
FORT = "The fort was built in 1754. It was rebuilt by Smith in 1964."


@pytest.mark.parametrize(
    "text", [JANE, f"{JANE}\n\nExtract the person.", f"Nobody sang.\n\n{JANE}\n\nWho is Jane Doe?"]
)
async def test_fields_are_found_by_their_names_and_types(text: str) -> None:
    assert (await asked(text, create_model("Found", age=(int, ...), city=(str, ...)))).output.model_dump() == {
        "age": 34,
        "city": "Berlin",
    }


async def test_person_is_found_whole_and_in_another_object() -> None:
    whole = Person(name="Jane Doe", age=34, city="Berlin")
    assert (await asked(JANE, Person)).output == whole
    assert (await asked(JANE, create_model("Found", person=(Person, ...)))).output.person == whole


FIELDS: list[tuple[str, dict[str, Any], Any]] = [
    (f"{FORT}\n\nWho rebuilt the fort?", {"rebuilt_by": (str, ...)}, {"rebuilt_by": "Smith"}),
    (f"{FORT}\n\nWho rebuilt the fort?", {"answer": (str, ...)}, {"answer": "It was rebuilt by Smith in 1964."}),
    (f"{FORT}\n\nWhen was the fort rebuilt?", {"year": (int | None, None)}, {"year": 1964}),
    (f"{FORT}\n\nWhen was the fort rebuilt?", {"question": (str, ...)}, {"question": "When was the fort rebuilt?"}),
    ("The film was very positive.", {"mood": (Literal["positive", "negative"], ...)}, {"mood": "positive"}),
    ("It cost 1,250.50 dollars.", {"cost": (float, ...)}, {"cost": 1250.5}),
    ("It is on July 4, 1976.", {"date": (dt.date, ...)}, {"date": dt.date(1976, 7, 4)}),
    ("It is on 4 July 1976.", {"date": (str, ...)}, {"date": "4 July 1976"}),
    ("The shop is not open.\n\nIs the shop open?", {"open": (bool, ...)}, {"open": False}),
    ("The shop is open.\n\nIs the shop open?", {"open": (bool, ...)}, {"open": True}),
    ("Ann met Bob.", {"names": (list[str], ...)}, {"names": ["Ann", "Bob"]}),
    (JANE, {"age": (int, ...), "pet": (str | None, ...)}, {"age": 34, "pet": None}),
    (JANE, {"age": (int, ...), "kind": (Literal["person"], ...)}, {"age": 34, "kind": "person"}),
]


@pytest.mark.parametrize(("text", "fields", "found"), FIELDS)
async def test_fields_of_each_type_are_found(text: str, fields: dict[str, Any], found: dict[str, Any]) -> None:
    reply = await asked(text, create_model("Found", **fields))
    assert reply.refusal is None
    assert reply.output.model_dump() == found
    assert CLOSING not in reply.text


@pytest.mark.parametrize(
    ("text", "fields", "told"),
    [
        ("Tell me a joke.", {"city": (str, ...)}, "I find nothing to put into 'city': Tell me a joke."),
        ("I loved it.", {"mood": (Literal["positive", "negative"], ...)}, "'mood'"),
        ("It was positive, not negative.", {"mood": (Literal["positive", "negative"], ...)}, "'mood'"),
        ("Germany beat Hungary.\n\nWho was the winner?", {"winner": (str, ...)}, "'winner'"),
        (f"{FORT}\n\nWho invented tea?", {"inventor": (str, ...), "answer": (str, ...)}, "'inventor', 'answer'"),
        ("Nothing.", {"open": (bool, ...)}, "'open'"),
        ("Nothing.", {"size": (int | None, None)}, "I find nothing of it"),
        ("It cost 12.5 dollars.", {"cost": (int, ...)}, "What I find does not fit"),
    ],
)
async def test_what_is_not_there_is_not_invented(text: str, fields: dict[str, Any], told: str) -> None:
    reply = await asked(text, create_model("Found", **fields))
    assert reply.output is None
    assert reply.refusal is not None
    assert told in reply.refusal
    assert reply.refusal.endswith(CLOSING)


async def test_values_of_earlier_results_come_first() -> None:
    call = ToolCallPart(id="1", name="search", arguments='{"query": "x"}')
    found = [
        {"id": "a.md", "text": "The fort was rebuilt by Smith.", "city": "Dover", "size": 7},
        {"id": "b.md", "text": "Nothing."},
    ]
    result = ToolResultPart(call_id="1", name="search", content=json.dumps(found))
    messages = [
        ChatMessage(role="user", content="Who rebuilt the fort?"),
        ChatMessage(role="assistant", content=[call]),
        ChatMessage(role="tool", content=[result]),
    ]
    fields: dict[str, Any] = {
        "city": (str, ...),
        "size": (int, ...),
        "answer": (str, ...),
        "sources": (list[str], ...),
    }
    reply = await OfflineModel().chat(messages, output=create_model("Found", **fields))
    assert reply.output.model_dump() == {
        "city": "Dover",
        "size": 7,
        "answer": "The fort was rebuilt by Smith.",
        "sources": ["a.md"],
    }


async def test_output_is_streamed_as_json() -> None:
    async with OfflineModel().stream([ChatMessage(role="user", content=JANE)], output=Person) as stream:
        text = "".join([delta.text async for delta in stream])
    assert stream.reply.output == Person.model_validate_json(text)


LEAVES = st.sampled_from(
    [{"type": kind} for kind in ("string", "integer", "number", "boolean", "null", "array", "object", "odd")]
    + [{}, {"enum": ["Berlin", 34]}, {"const": 1}, {"$ref": "#/$defs/none"}, {"type": ["string", "null"]}]
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(lambda items: {"type": "array", "items": items}, inner)
        | st.builds(lambda one, other: {"anyOf": [one, other]}, inner, inner)
        | st.builds(
            lambda fields: {"type": "object", "properties": fields, "required": [*fields]},
            st.dictionaries(st.sampled_from(["name", "city", "age", "answer", "source", ""]), inner),
        )
    ),
    max_leaves=6,
)


@given(fields=st.dictionaries(st.text(max_size=9), SCHEMAS), text=st.text(max_size=40) | st.just(JANE))
async def test_any_schema_is_filled_or_refused(fields: dict[str, Any], text: str) -> None:
    reply = await asked(text, {"type": "object", "properties": fields, "required": [*fields]})
    assert (reply.output is None) == (reply.refusal is not None)
    again = await asked(text, {"type": "object", "properties": fields, "required": [*fields]})
    assert again.output == reply.output


async def test_schema_that_holds_itself_comes_to_an_end() -> None:
    class Tree(BaseModel):
        name: str
        parent: Tree | None = None
        children: list[Tree] = []

    assert (await asked(JANE, Tree)).output == Tree(name="Jane Doe")
