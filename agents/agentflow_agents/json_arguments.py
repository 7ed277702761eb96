"""What something takes that is no Python function, such as a tool on a server: of it only the JSON Schema is known."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn, cast

from agentflow.errors import shown
from agentflow_llm.loose import as_dict, as_list

from .arguments import UndescribableError
from .errors import ToolError
from .wording import line_of, no_json, wrong

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .arguments import Injected


class JsonArguments:
    """An object of a JSON Schema, used like `Arguments`.

    Only the names are checked; the rest is for the callee to say. Raises `UndescribableError`.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        given: Any = schema
        if not isinstance(given, dict) or schema.get("type", "object") != "object":
            raise UndescribableError(
                f"parameters={shown(schema)} is no JSON Schema of an object. Write: "
                '{"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}'
            )
        # servers refuse an object that does not say which properties it has
        self.schema: dict[str, Any] = {**schema, "type": "object", "properties": as_dict(schema.get("properties"))}
        self.injected: dict[str, Injected] = {}
        self._line = line_of(self.schema)

    def __str__(self) -> str:
        return self._line

    @property
    def names(self) -> list[str]:
        """The properties that the schema names."""
        return list(self.schema["properties"])

    def validate(self, text: str) -> dict[str, Any]:
        """The object that a model wrote. Raises `ToolError`, which says what to correct."""
        try:
            found: Any = json.loads(text if text and not text.isspace() else "{}", parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:  # thousands of braces
            raise ToolError(no_json(str(error), self._line)) from error
        if found.__class__ is not dict:
            problems = [f"arguments: input should be an object, not {shown(found)}"]
        else:
            problems = [f"{name}: is missing" for name in as_list(self.schema.get("required")) if name not in found]
        if problems:
            raise ToolError(wrong(problems, self._line))
        return cast("dict[str, Any]", found)

    def values(self, found: dict[str, Any]) -> dict[str, Any]:
        """By property, what was sent."""
        return found

    def plain(self, found: dict[str, Any]) -> dict[str, Any]:
        """The same."""
        return found

    def call(self, found: dict[str, Any], injected: Mapping[str, Any] | None) -> tuple[list[Any], dict[str, Any]]:
        """It is called with the object alone."""
        return [found], {**(injected or {})}


def _no_constant(name: str) -> NoReturn:
    msg = f"there is no {name} in JSON"
    raise ValueError(msg)
