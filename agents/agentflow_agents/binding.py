"""What a model gave as the input of a tool, as the JSON text of an object that the tool can be called with."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from agentflow_llm.loose import as_dict, as_list

from .literal import value_or_text

if TYPE_CHECKING:
    from agentflow_llm import ToolDefinition

_NOTHING: Final = {
    "", "none", "null", "na", "n/a", "no input", "empty", "none needed", "no input needed", "no input required",
}  # fmt: skip
_FENCED = re.compile(
    r"\s*(?:(?P<fence>`{3,}|~{3,})(?:\w*[ \t]*(?:\n|(?=[{\[])))?(?P<body>.*?)(?:(?P=fence).*|\Z)|"
    r"`(?P<code>[^`]*)`\s*\Z)",
    re.DOTALL,
)
_LANGUAGE = re.compile(r"json\s*(?=[{\[])", re.IGNORECASE)
_KEYWORD = re.compile(r"[\"'`]?([A-Za-z_]\w*)[\"'`]?\s*[:=]\s*(?=\S)")
_NO_TEXT: Final = {"integer", "number", "boolean", "array", "object"}


def arguments_of(given: Any, tool: ToolDefinition | None) -> str:
    """JSON text for the input of `tool`, which is None where there is no such tool.

    - `given`: text, or a value of JSON, or None for nothing at all.

    What is valid stays as it is. Text that stands alone is bound to the only parameter that can be meant. Text of which
    no object can be made stays as it is as well: the tool will say what is wrong.
    """
    if given is None:
        return "{}"
    if isinstance(given, str):
        return _of_text(unfenced(given), tool)
    if isinstance(given, list):
        first: Any = next(iter(as_list(given)), None)
        if not isinstance(first, dict) or _target(tool) is not None:
            return _bound(as_list(given), tool)
        given = as_dict(first)
    return _members(as_dict(given), tool) if isinstance(given, dict) else _bound(given, tool)


def unfenced(text: str) -> str:
    """The text without a fence around it, or the word json before it."""
    fenced = _FENCED.match(text)
    text = text if fenced is None else fenced["body"] or fenced["code"] or ""
    return _LANGUAGE.sub("", text.strip(), count=1).strip()


def _of_text(text: str, tool: ToolDefinition | None) -> str:
    if text.strip(" -.,()[]{}'\"`").lower() in _NOTHING:
        return "{}"
    for attempt in (_of_object, _of_value, _of_object_within, _of_names, _of_positions):
        found = attempt(text, tool)
        if found is not None:
            return found
    return _bound(text, tool)


def _of_object(text: str, _tool: ToolDefinition | None) -> str | None:
    """The object with which the text begins."""
    if text[0] != "{":
        return None
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        value, _ = value_or_text(text)
        return text if isinstance(value, str) else _json(value)
    return text[:end]


def _of_value(text: str, tool: ToolDefinition | None) -> str | None:
    """A list, or a text in quotation marks, in which an object may stand as text once more."""
    if text[0] not in "[\"'\u201c":
        return None
    value, end = value_or_text(text)
    if isinstance(value, list):
        return arguments_of(as_list(value), tool)
    if end < len(text) or not isinstance(value, str) or value == text:
        return None
    return _of_text(value.strip(), tool) if value.lstrip().startswith("{") else _bound(value, tool)


def _of_object_within(text: str, tool: ToolDefinition | None) -> str | None:
    """An object behind other words."""
    at = text.find("{")
    value = value_or_text(text, at)[0] if at > 0 else None
    return _json(as_dict(value)) if value and isinstance(value, dict) and _fits(as_dict(value), tool) else None


def _of_names(text: str, tool: ToolDefinition | None) -> str | None:
    """As a call in a program: `query="x", limit=3`, or a line for each."""
    keyword = _KEYWORD.match(text)
    if keyword is None:
        return None
    value, end = value_or_text("{" + text + "}")
    if isinstance(value, dict) and end == len(text) + 2 and _fits(as_dict(value), tool):
        return _members(as_dict(value), tool)
    return _bound(text[keyword.end() :], tool) if keyword[1] == _target(tool) else None


def _of_positions(text: str, tool: ToolDefinition | None) -> str | None:
    """As a call in a program: `"x", 3`."""
    own = _properties(tool)
    if len(own) < 2 or _target(tool) is not None:  # noqa: PLR2004 because several are two or more
        return None
    value, end = value_or_text("[" + text + "]")
    values = as_list(value)
    if end != len(text) + 2 or not 1 < len(values) <= len(own):
        return None
    return _json({name: _typed(each, own[name]) for name, each in zip(own, values, strict=False)})


def _fits(value: dict[str, Any], tool: ToolDefinition | None) -> bool:
    """Has the tool all of these parameters?"""
    own = _properties(tool)
    return not own or own.keys() >= value.keys()


def _bound(value: Any, tool: ToolDefinition | None) -> str:
    """An object with a value that stands alone."""
    if tool is None:
        return _json({"input": value})
    own = _properties(tool)
    target = _target(tool)
    if target is None:
        return _json(value) if own else "{}"
    return _json({target: _typed(value, own[target])})


def _members(value: dict[str, Any], tool: ToolDefinition | None) -> str:
    own = _properties(tool)
    return _json({name: _typed(inner, own.get(name)) for name, inner in value.items()})


def _properties(tool: ToolDefinition | None) -> dict[str, Any]:
    return {} if tool is None else as_dict(tool.parameters.get("properties"))


def _target(tool: ToolDefinition | None) -> str | None:
    """The only parameter of a tool, or the only one that it must have."""
    own = list(_properties(tool))
    required = own if tool is None else [name for name in as_list(tool.parameters.get("required")) if name in own]
    candidates = own if len(own) == 1 else required
    return candidates[0] if len(candidates) == 1 else None


def _typed(value: Any, schema: Any) -> Any:
    """A value as the schema wants it, where it is written otherwise."""
    kind = as_dict(schema).get("type")
    if isinstance(value, str) and kind in _NO_TEXT:
        read, end = value_or_text(value.strip())
        return read if end == len(value.strip()) else value
    if kind == "string" and not isinstance(value, str) and value is not None:
        return _json(value)
    return value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
