"""Answers of a given shape: what a model is told of it, and how its text is read."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from .errors import LLMBadRequestError, LLMError, LLMOutputError
from .loose import as_dict, as_list, well_formed

if TYPE_CHECKING:
    from collections.abc import Mapping

Output = "type[BaseModel] | Mapping[str, Any]"
OutputMode = Literal["native", "tool", "prompt"]
"""How a model is asked for an answer of some shape: by the server's own means, as a tool's arguments, or in words."""

_NAME = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST_NAME = 64
_MOST_ERRORS = 5
_STRIDE = 10_000
_SAYS_WHAT = frozenset({"type", "anyOf", "enum", "const", "$ref"})
_NUMBERS = frozenset({"multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
_LISTS = frozenset({"items", "minItems", "maxItems"})
_OBJECTS = frozenset({"properties", "required", "additionalProperties", "$defs"})
_TAKEN = _SAYS_WHAT | _NUMBERS | _LISTS | _OBJECTS | {"title", "description", "pattern", "format"}
"""What a schema that is kept to strictly may say."""
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
_SAYS_NOTHING = frozenset({"default", "discriminator", "examples", "deprecated", "readOnly", "writeOnly", "$schema"})


def checked_mode(output_mode: OutputMode) -> OutputMode:
    """It. Raises `LLMError` where it is none."""
    modes = get_args(OutputMode)
    if output_mode not in modes:
        raise LLMError(f"output_mode={output_mode!r} is none. Choose one of {', '.join(map(repr, modes))}.")
    return output_mode


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """The shape of an answer. `kind` is the pydantic model that it becomes, or None where only a schema was given."""

    name: str
    schema: Mapping[str, Any]
    kind: type[BaseModel] | None = None

    def read(self, text: str) -> Any:
        """The object in a model's text, which may stand in a fence or between words.

        Where there are several objects, the last counts: models think before they answer. With a pydantic model it is
        validated; with a schema alone, only its own `required` fields are seen to. Raises `LLMOutputError`, which says
        what is wrong in words that the model can use.
        """
        data = _json_in(text)
        if data is None:
            raise LLMOutputError("The answer is no JSON object. Answer with the JSON object alone.", text)
        if self.kind is None:
            missing = [name for name in self.schema.get("required", ()) if name not in data]
            if missing:
                raise LLMOutputError(f"The JSON object lacks {', '.join(map(repr, missing))}.", text)
            return data
        try:
            return self.kind.model_validate_json(json.dumps(data))
        except ValidationError as error:
            told = [
                f"{'.'.join(map(str, one['loc'])) or 'the object'}: {one['msg']}"
                for one in error.errors(include_url=False, include_context=False)[:_MOST_ERRORS]
            ]
            raise LLMOutputError(f"The JSON object is not valid: {'; '.join(told)}.", text) from error


def output_format(output: object) -> OutputFormat:
    """The shape that `output=` asks for. Raises `LLMBadRequestError` where it is none."""
    if isinstance(output, OutputFormat):
        return output
    if output is BaseModel:
        raise LLMBadRequestError(
            "output=BaseModel has no fields. Write class City(BaseModel): name: str, and output=City."
        )
    if isinstance(output, type) and issubclass(output, BaseModel):
        schema = output.model_json_schema()
        if _root(schema).get("type") == "object":
            return OutputFormat(_NAME.sub("_", output.__name__)[:_LONGEST_NAME], schema, output)
    elif isinstance(output, dict):
        schema = cast("dict[str, Any]", output)
        if schema.get("type") == "object":
            name = _NAME.sub("_", str(schema.get("title") or "output"))[:_LONGEST_NAME]
            return OutputFormat(name, schema)
    raise LLMBadRequestError(
        f"output={output!r} is no shape of an answer, which is one object. Give a class derived from "
        'pydantic.BaseModel, or the JSON schema of an object: {"type": "object", "properties": {...}}. A list, or one '
        "of several shapes, goes into a field: class Answer(BaseModel): pets: list[Cat | Dog]."
    )


def _json_in(text: str) -> dict[str, Any] | None:
    """The JSON object of a text: all of it, or the last that is whole. One within an object that breaks off is none."""
    text = well_formed(text)
    try:
        data: Any = from_json(text, allow_inf_nan=False)
    except ValueError:
        data = None
    if isinstance(data, dict):
        return cast("dict[str, Any]", data)
    no_numbers: list[str] = []
    decoder = json.JSONDecoder(parse_constant=no_numbers.append)
    found: dict[str, Any] | None = None
    at = text.find("{")
    while at >= 0:
        if at > _STRIDE:  # an error counts the lines of all that stands before it
            text, at = text[at:], 0
        no_numbers.clear()
        try:
            data, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            end = max(error.pos, at + 1)  # on from where it breaks off: each character is read once or twice
        except (ValueError, RecursionError):  # a number of thousands of digits, or thousands of braces
            break
        else:
            found = found if no_numbers else data
        at = text.find("{", end)
    return found


def strict_schema(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """The schema as servers want it that keep to it strictly; None where it cannot be said so.

    Every object then has all of its properties, and no others; what has a default is to be answered as well.
    """
    root = _root(schema)
    return _strict(root) if root.get("type") == "object" else None


def is_strict(schema: Mapping[str, Any]) -> bool:
    """Can servers keep to the schema strictly without asking for more than it does? Then all of it is required."""
    return strict_schema(schema) is not None and _requires_all(schema)


def _requires_all(schema: Any) -> bool:
    """Has every object in it to have all of its properties?"""
    said = as_dict(schema)
    parts = [*as_dict(said.get("properties")).values(), *as_dict(said.get("$defs")).values()]
    parts += [*as_list(said.get("anyOf")), *as_list(said.get("oneOf")), *([said["items"]] if "items" in said else ())]
    required = as_list(said.get("required"))
    return all(name in required for name in as_dict(said.get("properties"))) and all(map(_requires_all, parts))


def _root(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema, with what it refers to at its root, as that of a model does that refers to itself."""
    root = as_dict(schema)
    target = root.get("$ref")
    if not isinstance(target, str):
        return root
    named = as_dict(as_dict(root.get("$defs")).get(target.removeprefix("#/$defs/")))
    return {**named, "$defs": root.get("$defs")}


def _strict(schema: Any) -> dict[str, Any] | None:
    said = {name: value for name, value in as_dict(schema).items() if name not in _SAYS_NOTHING}
    if "oneOf" in said and "anyOf" not in said:  # one that fits is all that a writer needs
        said["anyOf"] = said.pop("oneOf")
    if not said.keys() & _SAYS_WHAT or said.keys() - _TAKEN or said.get("format", "date") not in _FORMATS:
        return None
    if "properties" in said or said.get("type") == "object":
        if not isinstance(said.get("properties"), dict) or said.get("additionalProperties"):
            return None
        said |= {"required": list(said["properties"]), "additionalProperties": False}
    parts = _strict_parts(said)
    if not all(map(_all_there, parts.values())):
        return None
    said |= parts
    if "$ref" in said and len(said) > 1:  # beside which nothing else may stand
        said["anyOf"] = [{"$ref": said.pop("$ref")}]
    return said


def _strict_parts(said: Mapping[str, Any]) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    for name in said.keys() & {"properties", "$defs"}:
        parts[name] = {inner: _strict(value) for inner, value in as_dict(said[name]).items()}
    if "items" in said or said.get("type") == "array":
        parts["items"] = _strict(said.get("items"))
    if "anyOf" in said:
        parts["anyOf"] = [_strict(value) for value in as_list(said["anyOf"])]
    return parts


def _all_there(parts: Any) -> bool:
    if isinstance(parts, list):
        return None not in as_list(parts)
    return parts is not None and None not in as_dict(parts).values()
