"""Arguments in words that a model can use: what is taken, and what is wrong with those that it sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from agentflow.errors import shown
from agentflow_llm.loose import as_dict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MOST_PROBLEMS = 5


def no_json(said: str, line: str) -> str:
    """What is said of text that is no JSON."""
    return f"The arguments are no valid JSON ({lower(said)}). Send one object with: {line or 'nothing in it'}"


def wrong(problems: Sequence[str], line: str) -> str:
    """What is said of these problems: the first few of them, and what is taken."""
    more = len(problems) - _MOST_PROBLEMS
    told = [*problems[:_MOST_PROBLEMS]] + ([f"and {more} more"] if more > 0 else [])
    return f"The arguments are wrong. {'; '.join(told)}. It takes: {line or 'nothing'}"


def lower(text: str) -> str:
    """With a small letter at its beginning, unless that is an abbreviation's."""
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def line_of(schema: Mapping[str, Any]) -> str:
    """What an object of a schema takes, in one line."""
    return ", ".join(_in_a_line(name, as_dict(told), schema) for name, told in schema["properties"].items())


def _in_a_line(name: str, told: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    default = f" = {shown(told['default'])}" if "default" in told else ""
    optional = "" if default or name in schema.get("required", ()) else "?"
    return f"{name}{optional}: {_kind(told)}{default}"


def _kind(told: Mapping[str, Any]) -> str:
    if "enum" in told:
        return " | ".join(map(repr, told["enum"]))
    if "const" in told:
        return repr(told["const"])
    if "$ref" in told:
        return str(told["$ref"]).rpartition("/")[2]
    members = told.get("anyOf") or told.get("oneOf")
    if members:
        return " | ".join(map(_kind, map(as_dict, members)))
    if told.get("type") == "array":
        return f"list of {_kind(as_dict(told.get('items')))}"
    kind = told.get("type", "anything")
    return " | ".join(map(str, cast("list[object]", kind))) if isinstance(kind, list) else str(kind)
