"""Answers of a given shape: what a model is told of it, and how its text is read."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from .errors import LLMBadRequestError, LLMOutputError

if TYPE_CHECKING:
    from collections.abc import Mapping

Output = "type[BaseModel] | Mapping[str, Any]"
_NAME = re.compile(r"[^A-Za-z0-9_-]+")
_FENCED = re.compile(r"```(?:json)?\s*\n?(.*?)```", re.DOTALL | re.IGNORECASE)
_LONGEST_NAME = 64
_MOST_ERRORS = 5


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """The shape of an answer. `kind` is the pydantic model that it becomes, or None where only a schema was given."""

    name: str
    schema: Mapping[str, Any]
    kind: type[BaseModel] | None = None

    def read(self, text: str) -> Any:
        """The object in a model's text, which may stand in a fence or between words.

        With a pydantic model it is validated; with a schema alone, it is any JSON object. Raises `LLMOutputError`,
        which says what is wrong in words that the model can use.
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
    if isinstance(output, type) and issubclass(output, BaseModel):
        return OutputFormat(_NAME.sub("_", output.__name__)[:_LONGEST_NAME], output.model_json_schema(), output)
    if isinstance(output, dict):
        schema = cast("dict[str, Any]", output)
        if schema.get("type") == "object":
            name = _NAME.sub("_", str(schema.get("title") or "output"))[:_LONGEST_NAME]
            return OutputFormat(name, schema)
    raise LLMBadRequestError(
        f"output={output!r} is no shape of an answer. Give a class derived from pydantic.BaseModel, or the JSON schema "
        'of an object: {"type": "object", "properties": {...}}.'
    )


def _json_in(text: str) -> dict[str, Any] | None:
    """The JSON object of a text: all of it, in a fence, or from its first brace to its last."""
    fenced = _FENCED.search(text)
    for candidate in (text, fenced[1] if fenced else "", text[text.find("{") : text.rfind("}") + 1]):
        try:
            data: Any = from_json(candidate)
        except ValueError:
            continue
        if isinstance(data, dict):
            return cast("dict[str, Any]", data)
    return None
