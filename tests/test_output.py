"""Answers of a given shape: how they are asked for, and how they are read."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, RootModel

from agentflow_llm import (
    ChatMessage,
    LLMBadRequestError,
    LLMError,
    LLMOutputError,
    OpenAI,
    OpenAIResponses,
    ToolCallPart,
    ToolDefinition,
)
from agentflow_llm.output import output_format, strict_schema
from agentflow_llm.server import LoopbackServer

HELLO = [ChatMessage(role="user", content="Where is Rome?")]
SEARCH = ToolDefinition(name="search")


class City(BaseModel):
    name: str
    people: int | None = None


CITY = '{"name": "Rome", "people": 3}'
ROME = City(name="Rome", people=3)
STRICT = {
    "title": "City",
    "type": "object",
    "properties": {
        "name": {"title": "Name", "type": "string"},
        "people": {"title": "People", "anyOf": [{"type": "integer"}, {"type": "null"}]},
    },
    "required": ["name", "people"],
    "additionalProperties": False,
}


# ------------------------------------------------------------------------------------------------- strict schemas


def test_strict_schema_has_all_properties_and_no_others() -> None:
    assert strict_schema(City.model_json_schema()) == STRICT


def test_schema_itself_is_not_changed() -> None:
    schema = City.model_json_schema()
    before = json.dumps(schema)
    strict_schema(schema)
    assert json.dumps(schema) == before


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Node(BaseModel):
    value: str
    children: list[Node] = []


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Many(BaseModel):
    node: Node = Field(description="The root.")
    colour: Colour = Colour.RED
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    when: dt.datetime
    few: list[Annotated[int, Field(ge=0, lt=9)]] = Field(max_length=3)


class Nothing(BaseModel):
    pass


@pytest.mark.parametrize("kind", [City, Node, Many, Nothing])
def test_models_of_common_types_are_asked_for_strictly(kind: type[BaseModel]) -> None:
    strict = strict_schema(kind.model_json_schema())
    assert strict is not None
    assert strict["type"] == "object"
    for schema in schemas_in(strict):
        if schema.get("type") == "object":
            assert schema["additionalProperties"] is False
            assert schema["required"] == list(schema["properties"])
        assert "default" not in schema
        assert "oneOf" not in schema
        assert "$ref" not in schema or len(schema) == 1


def schemas_in(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    inner = [*schema.get("properties", {}).values(), *schema.get("$defs", {}).values(), *schema.get("anyOf", ())]
    inner += [schema["items"]] if "items" in schema else []
    return [schema, *(deeper for one in inner for deeper in schemas_in(one))]


def test_what_is_said_beside_a_reference_is_kept() -> None:
    strict = strict_schema(Many.model_json_schema())
    assert strict is not None
    assert strict["properties"]["node"] == {"anyOf": [{"$ref": "#/$defs/Node"}], "description": "The root."}


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class Dictionary(BaseModel):
    counts: dict[str, int]


class Anything(BaseModel):
    value: Any


class Pair(BaseModel):
    pair: tuple[int, str]


class Short(BaseModel):
    name: str = Field(min_length=1)


@pytest.mark.parametrize("kind", [Open, Dictionary, Anything, Pair, Short])
def test_what_cannot_be_said_strictly_is_not(kind: type[BaseModel]) -> None:
    assert strict_schema(kind.model_json_schema()) is None


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "properties": {"a": {}}},
        {"type": "object", "properties": {"a": True}},
        {"type": "object", "properties": {"a": {"type": "array"}}},
        {"type": "object", "properties": {"a": {"type": "string", "format": "uri"}}},
        {"type": "object", "properties": {"a": {"not": {"type": "string"}}}},
        {"type": "object", "properties": {"a": {"anyOf": [{"type": "string"}, {"type": "object"}]}}},
        {"type": "object", "properties": {}, "$defs": {"a": {}}},
        {"anyOf": [{"type": "object", "properties": {}}]},
        {"$ref": "#/$defs/None"},
    ],
)
def test_schemas_that_leave_something_open_are_not_strict(schema: Any) -> None:
    assert strict_schema(schema) is None


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(max_size=3) | st.integers(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["type", "properties", "items", "anyOf", "$ref", "$defs", "a"]), inner)
        ),
    )
)
def test_any_schema_is_made_strict_or_not(value: Any) -> None:
    strict = strict_schema({"type": "object", "properties": {"x": value}})
    assert strict is None or strict["required"] == ["x"]


# --------------------------------------------------------------------------------------------- how it is asked for


def test_native_output_is_a_response_format() -> None:
    body = OpenAI("m").render_request(HELLO, output=City)
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "City", "schema": STRICT, "strict": True},
    }


def test_schema_that_cannot_be_strict_is_sent_as_it_is() -> None:
    format_ = OpenAI("m").render_request(HELLO, output=Dictionary)["response_format"]["json_schema"]
    assert (format_["strict"], format_["schema"]) == (False, Dictionary.model_json_schema())


def test_output_tool_is_the_only_one_and_has_to_be_called() -> None:
    body = OpenAI("m", output_mode="tool").render_request(HELLO, output=City)
    (tool,) = body["tools"]
    assert (tool["function"]["name"], tool["function"]["parameters"]) == ("City", City.model_json_schema())
    assert body["tool_choice"] == {"type": "function", "function": {"name": "City"}}
    assert "response_format" not in body


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        (None, "required"),
        ("auto", "required"),
        ("required", "required"),
        ("none", {"type": "function", "function": {"name": "City"}}),
        ("search", {"type": "function", "function": {"name": "search"}}),
    ],
)
def test_output_tool_stands_beside_others_of_which_one_has_to_be_called(choice: str | None, sent: Any) -> None:
    body = OpenAI("m", output_mode="tool").render_request(HELLO, output=City, tools=[SEARCH], tool_choice=choice)
    assert [tool["function"]["name"] for tool in body["tools"]] == ["search", "City"]
    assert body["tool_choice"] == sent


def test_output_tool_has_a_name_of_its_own() -> None:
    taken = [ToolDefinition(name="City"), ToolDefinition(name="City_")]
    body = OpenAI("m", output_mode="tool").render_request(HELLO, output=City, tools=taken)
    assert [tool["function"]["name"] for tool in body["tools"]] == ["City", "City_", "City__"]


def test_output_in_words_is_said_by_the_system() -> None:
    model = OpenAI("m", output_mode="prompt")
    system, user = model.render_request(HELLO, output=City)["messages"]
    assert (system["role"], user) == ("system", {"role": "user", "content": "Where is Rome?"})
    assert json.dumps(City.model_json_schema()) in system["content"]
    begun = [ChatMessage(role="system", content="Be kind."), *HELLO]
    longer, _ = model.render_request(begun, output=City)["messages"]
    assert longer["content"] == f"Be kind.\n\n{system['content']}"
    assert begun[0].text == "Be kind."


@pytest.mark.parametrize("client", [OpenAI, OpenAIResponses])
def test_unknown_mode_is_refused(client: Any) -> None:
    with pytest.raises(LLMError, match="Choose one of 'native', 'tool', 'prompt'"):
        client("m", output_mode="json")


# --------------------------------------------------------------------------------------------------- what comes back


def text(content: str) -> dict[str, Any]:
    return {"choices": [{"message": {"content": content}, "finish_reason": "stop"}]}


def calling(name: str, arguments: str) -> dict[str, Any]:
    call = {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}
    return {"choices": [{"message": {"content": None, "tool_calls": [call]}, "finish_reason": "tool_calls"}]}


@pytest.mark.parametrize(
    ("mode", "answer"),
    [
        ("native", text(CITY)),
        ("tool", calling("City", CITY)),
        ("tool", text(CITY)),
        ("prompt", text(f"Here it is:\n```json\n{CITY}\n```")),
    ],
)
@pytest.mark.parametrize("how", ["plain", "stream"])
async def test_answer_has_the_output(mode: Any, answer: Any, how: str) -> None:
    with LoopbackServer([answer]) as server:
        async with OpenAI("m", base_url=server.base_url, output_mode=mode) as model:
            if how == "plain":
                reply = await model.chat(HELLO, output=City)
            else:
                reply = await model.stream(HELLO, output=City).read()
    assert reply.output == ROME
    assert (reply.finish_reason, reply.tool_calls) == ("stop", [])


@pytest.mark.parametrize("mode", ["native", "tool", "prompt"])
async def test_model_is_asked_to_correct_what_is_not_valid(mode: Any) -> None:
    wrong, right = '{"people": "many"}', CITY
    script = [calling("City", said) if mode == "tool" else text(said) for said in (wrong, right)]
    with LoopbackServer(script) as server:
        async with OpenAI("m", base_url=server.base_url, output_mode=mode) as model:
            reply = await model.chat(HELLO, output=City)
    assert (reply.output, reply.usage.http_requests) == (ROME, 2)
    *_, said, correction = server.requests[1].json["messages"]
    assert (said["role"], said["content"]) == ("assistant", wrong)
    assert "name: Field required" in correction["content"]


async def test_other_tools_come_first() -> None:
    with LoopbackServer([calling("search", "{}"), calling("City", CITY)]) as server:
        async with OpenAI("m", base_url=server.base_url, output_mode="tool") as model:
            first = await model.chat(HELLO, output=City, tools=[SEARCH])
            second = await model.chat(HELLO, output=City, tools=[SEARCH])
    assert (first.tool_calls, first.output) == ([ToolCallPart(id="c1", name="search", arguments="{}")], None)
    assert second.output == ROME


@pytest.mark.parametrize(
    "said",
    [
        CITY,
        f"```\n{CITY}\n```",
        f"Here:\n```json\n{CITY}```\nDone.",
        f"The city is {CITY}, I think.",
        f'<think>{{"q": 1}}</think>{CITY}',
        f"I think {{x}} so: {CITY}",
        f'<think>```json\n{{"q": NaN}}\n```</think>\n```json\n{CITY}\n```',
        f'{CITY} and not {{"name": NaN}}',
    ],
)
def test_object_is_found_in_what_a_model_says(said: str) -> None:
    assert output_format(City).read(said) == ROME
    assert output_format({"type": "object", "required": ["name"]}).read(said) == {"name": "Rome", "people": 3}


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Rome", "no JSON object"),
        ("[1]", "no JSON object"),
        ('{"name": "Rome", "people": NaN}', "no JSON object"),
        ('{"name": "Rome", "inner": {"name": "Milan"}', "no JSON object"),
        ("{" * 99_999, "no JSON object"),
        ('{"a":' * 9_999, "no JSON object"),
        ('{"a' * 99_999, "no JSON object"),
        ('{"name": ' + "9" * 5_000 + "}", "no JSON object"),
        ('{"people": 3}', "name: Field required"),
        ('{"name": "Rome", "people": "x"}', "people: Input should be a valid integer"),
    ],
)
def test_what_is_wrong_is_said_in_words_that_the_model_can_use(said: str, told: str) -> None:
    with pytest.raises(LLMOutputError, match=told) as caught:
        output_format(City).read(said)
    assert caught.value.text == said


def test_schema_alone_says_what_has_to_be_there() -> None:
    with pytest.raises(LLMOutputError, match="lacks 'name'"):
        output_format({"type": "object", "required": ["name"]}).read("{}")


def test_shape_has_a_name_that_servers_take() -> None:
    generic = output_format({"type": "object", "title": "A city (or town)!" * 9})
    assert generic.name.startswith("A_city_or_town_A_")
    assert len(generic.name) == 64
    assert output_format({"type": "object"}).name == "output"
    assert output_format(generic) is generic


@pytest.mark.parametrize("wrong", ["City", int, {"type": "array"}, {}, 1])
def test_what_is_no_shape_is_refused(wrong: Any) -> None:
    with pytest.raises(LLMBadRequestError, match="is no shape of an answer"):
        output_format(wrong)


def test_model_that_is_no_object_is_refused() -> None:
    class Names(RootModel[list[str]]):
        pass

    with pytest.raises(LLMBadRequestError, match="is no shape of an answer"):
        output_format(Names)
    assert strict_schema(Names.model_json_schema()) is None


def test_model_that_is_one_of_several_objects_is_refused() -> None:
    class Pet(RootModel[Cat | Dog]):
        pass

    with pytest.raises(LLMBadRequestError, match=r"pets: list\[Cat \| Dog\]"):
        output_format(Pet)


def test_model_that_refers_to_itself_is_a_shape() -> None:
    assert output_format(Node).read('{"value": "x", "children": []}') == Node(value="x")


def test_base_model_itself_is_refused() -> None:
    with pytest.raises(LLMBadRequestError, match="output=BaseModel has no fields"):
        output_format(BaseModel)


@given(
    st.lists(st.text().filter(lambda text: "{" not in text) | st.just({"q": 1}).map(json.dumps)),
    st.dictionaries(st.text(), st.integers(), min_size=1),
)
def test_last_object_counts_whatever_was_thought_before(thoughts: list[str], answer: dict[str, int]) -> None:
    said = "".join([*thoughts, json.dumps(answer)])
    assert output_format({"type": "object"}).read(said) == answer
