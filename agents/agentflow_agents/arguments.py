"""What a tool takes: parameters as one JSON Schema, and JSON text validated into arguments."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import ConfigDict, Field, PydanticUserError, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema

from agentflow.errors import shown, type_name
from agentflow.resource import evaluate

from .errors import ToolError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import BaseModel
    from pydantic.json_schema import JsonSchemaWarningKind

_MOST_PROBLEMS = 5
_CONFIG = ConfigDict(extra="forbid", protected_namespaces=())
_EMPTY = inspect.Parameter.empty
_VARIABLE = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


class UndescribableError(Exception):
    """A parameter of which a model cannot be told."""


class _JsonSchema(GenerateJsonSchema):
    ignored_warning_kinds: set[JsonSchemaWarningKind] = {"non-serializable-default"}  # noqa: RUF012 because pydantic has it so
    """A default that no JSON can be is left out of the schema, and used all the same."""


class Arguments:
    """The parameters of one function, compiled.

    - `code`: the function whose module resolves annotations that are strings.
    - `described`: by parameter, what the docstring says of it.

    Raises `UndescribableError`.
    """

    def __init__(self, parameters: Sequence[inspect.Parameter], code: Any, described: Mapping[str, str]) -> None:
        fields: dict[str, Any] = {}
        self._positional: list[str] = []
        self._named: list[tuple[str, str]] = []
        for number, parameter in enumerate(parameters):
            # a parameter may have a name that no field may have: it is the field's alias
            field = f"argument_{number}"
            fields[field] = _field_of(parameter, code, described.get(parameter.name))
            if parameter.kind is parameter.POSITIONAL_ONLY:
                self._positional.append(field)
            else:
                self._named.append((parameter.name, field))
        model, self.schema = _compiled(fields, parameters)
        self._validate = model.__pydantic_validator__.validate_json
        self._line = ", ".join(_in_a_line(name, told, self.schema) for name, told in self.schema["properties"].items())

    def __str__(self) -> str:
        return self._line

    def read(self, text: str) -> tuple[list[Any], dict[str, Any]]:
        """Validated arguments, by position and by name. Raises `ToolError`, which says what to correct."""
        try:
            values = self._validate(text if text and not text.isspace() else "{}").__dict__
        except ValidationError as error:
            raise ToolError(self._problems(error)) from error
        return [values[field] for field in self._positional], {name: values[field] for name, field in self._named}

    def _problems(self, error: ValidationError) -> str:
        found = error.errors(include_url=False, include_context=False)
        if found[0]["type"] == "json_invalid":
            return f"The arguments are no valid JSON ({_lower(found[0]['msg'])}). Send one object with: {self}"
        lines = [f"{'.'.join(map(str, problem['loc'])) or 'arguments'}: {_told(problem)}" for problem in found]
        more = len(lines) - _MOST_PROBLEMS
        lines = lines[:_MOST_PROBLEMS] + ([f"and {more} more"] if more > 0 else [])
        return f"The arguments are wrong. {'; '.join(lines)}. It takes: {self._line or 'nothing'}"


def _compiled(
    fields: dict[str, Any], parameters: Sequence[inspect.Parameter]
) -> tuple[type[BaseModel], dict[str, Any]]:
    """The model of the fields, and its schema."""
    try:
        model = create_model("Arguments", __config__=_CONFIG, **fields)
        return model, _closed(model.model_json_schema(schema_generator=_JsonSchema))
    except PydanticUserError as error:
        if len(fields) > 1:  # one of them is to blame
            for (name, field), parameter in zip(fields.items(), parameters, strict=True):
                _compiled({name: field}, [parameter])
        kind = type_name(parameters[0].annotation)
        raise UndescribableError(
            f"parameter {parameters[0].name!r} has type {kind}, which no JSON can be, so a model cannot send it. Take "
            f"what JSON has (str, int, list, a pydantic model...), and let the function get its {kind} from elsewhere: "
            "a closure, functools.partial, or the object whose method it is."
        ) from error


def _told(problem: Any) -> str:
    if problem["type"] == "missing":
        return "is missing"
    if problem["type"] == "extra_forbidden":
        return "there is no such parameter"
    return f"{_lower(problem['msg'])}, not {shown(problem['input'])}"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _field_of(parameter: inspect.Parameter, code: Any, said: str | None) -> tuple[Any, Any]:
    """A field of the model: its type with the description, and its default."""
    name = parameter.name
    if parameter.kind in _VARIABLE:
        stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**"
        raise UndescribableError(
            f"{stars}{name} takes anything, so a model cannot be told what to send. Name each parameter, or take a "
            f"list: {name}: list[str]"
        )
    if parameter.annotation is _EMPTY:
        raise UndescribableError(
            f"parameter {name!r} has no annotation, so a model cannot be told what to send. Write, for example: "
            f"{name}: str"
        )
    hint = _evaluated(parameter, code)
    metadata = list(getattr(hint, "__metadata__", ()))
    text = next((note for note in metadata if isinstance(note, str)), None) or said
    default = ... if parameter.default is _EMPTY else parameter.default
    own = [found for found in (*metadata, default) if isinstance(found, FieldInfo)]
    if any(found.description for found in own):
        text = None  # what stands in a Field is the field's own
    # pydantic lets the last Field win: the alias is ours, whatever the others say
    extra = Field(alias=name) if text is None else Field(alias=name, description=text)
    return Annotated[hint, extra], default


def _evaluated(parameter: inspect.Parameter, code: Any) -> Any:
    annotation = parameter.annotation
    try:
        return evaluate(annotation, code, None)
    except NameError as error:
        raise UndescribableError(
            f"the annotation of {parameter.name!r}, {type_name(annotation)}, names {error.name!r}, which is not "
            "defined in the function's module. Define or import it there, at the top."
        ) from error
    except (TypeError, AttributeError, SyntaxError) as error:
        raise UndescribableError(
            f"the annotation of {parameter.name!r}, {type_name(annotation)}, cannot be evaluated: {error}"
        ) from error


def _closed(schema: Any) -> Any:
    """The schema without titles, which cost tokens, and with every object closed that is not declared open."""
    if schema.__class__ is list:
        return [_closed(member) for member in schema]
    if schema.__class__ is not dict:
        return schema
    found: dict[str, Any] = {}
    for key, value in schema.items():
        if key in {"properties", "$defs"}:
            found[key] = {name: _closed(inner) for name, inner in value.items()}
        elif key in {"default", "const", "enum", "examples"}:
            found[key] = value
        elif key != "title":
            found[key] = _closed(value)
    if "properties" in found:
        found.setdefault("additionalProperties", False)
    return found


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
        return " | ".join(map(_kind, members))
    if told.get("type") == "array":
        return f"list of {_kind(told.get('items', {}))}"
    return str(told.get("type", "anything"))
