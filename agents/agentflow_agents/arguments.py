"""What a tool takes: parameters as one JSON Schema, and JSON text validated into arguments.

Some may be injected, of which no model is told: the context and resources.
"""

from __future__ import annotations

import inspect
import types
import typing
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, cast

from pydantic import ConfigDict, Field, PydanticUserError, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema

from agentflow.errors import WorkflowValidationError, shown, type_name
from agentflow.resource import compile_recipe, evaluate, marker_of
from agentflow.signature import CONTEXT_ROLE

from .errors import ToolError
from .wording import line_of, lower, no_json, wrong

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import BaseModel
    from pydantic.json_schema import JsonSchemaWarningKind

    from agentflow import Resource

_CONFIG = ConfigDict(extra="forbid", protected_namespaces=())
_UNSENDABLE = {"schema-for-unknown-type", "invalid-for-json-schema"}
"""What pydantic says of types that JSON has not."""
_EMPTY = inspect.Parameter.empty
_VARIABLE = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


class UndescribableError(Exception):
    """A parameter of which a model cannot be told."""


class _JsonSchema(GenerateJsonSchema):
    ignored_warning_kinds: set[JsonSchemaWarningKind] = {"non-serializable-default"}  # noqa: RUF012 because pydantic has it so
    """A default that no JSON can be is left out of the schema, and used all the same."""


class Injected(NamedTuple):
    """A parameter that is handed something which no model is told of."""

    resource: Resource | None
    """None: it is handed the step's context."""
    default: Any
    """What it gets where there is no context; `inspect.Parameter.empty` where it cannot do without."""


class Arguments:
    """The parameters of one function, compiled.

    - `code`: the function whose module resolves annotations that are strings.
    - `described`: by parameter, what the docstring says of it.

    Raises `UndescribableError`.
    """

    def __init__(self, parameters: Sequence[inspect.Parameter], code: Any, described: Mapping[str, str]) -> None:
        fields: dict[str, Any] = {}
        sent: list[inspect.Parameter] = []
        self.injected: dict[str, Injected] = {}
        """By parameter, what the model does not send."""
        self._names: list[tuple[str, str]] = []
        self._positional = tuple(p.name for p in parameters if p.kind is p.POSITIONAL_ONLY)
        for number, parameter in enumerate(parameters):
            hint = _hint_of(parameter, code)
            injected = _injected(parameter, hint)
            if injected is not None:
                self.injected[parameter.name] = injected
                continue
            # a parameter may have a name that no field may have: it is the field's alias
            field = f"argument_{number}"
            fields[field] = _field_of(parameter, hint, described.get(parameter.name))
            sent.append(parameter)
            self._names.append((parameter.name, field))
        model, self.schema = _compiled(fields, sent)
        self._validate = model.__pydantic_validator__.validate_json
        self._serialize = model.__pydantic_serializer__.to_python
        self._line = line_of(self.schema)

    def __str__(self) -> str:
        return self._line

    @property
    def names(self) -> list[str]:
        """The parameters that a model sends."""
        return [name for name, _ in self._names]

    def validate(self, text: str) -> BaseModel:
        """What a model wrote, validated. Raises `ToolError`, which says what to correct."""
        try:
            return cast("BaseModel", self._validate(text if text and not text.isspace() else "{}"))
        except ValidationError as error:
            raise ToolError(self._problems(error)) from error

    def values(self, found: BaseModel) -> dict[str, Any]:
        """By parameter, what the function is given."""
        values = vars(found)
        return {name: values[field] for name, field in self._names}

    def plain(self, found: BaseModel) -> dict[str, Any]:
        """The same as JSON has it. A default that no JSON can be is left out."""
        told = self.schema["properties"]
        unset = {f for name, f in self._names if f not in found.model_fields_set and "default" not in told[name]}
        values: dict[str, Any] = self._serialize(
            found, mode="json", by_alias=True, exclude=unset, round_trip=True, warnings=False
        )
        return values

    def call(self, found: BaseModel, injected: Mapping[str, Any] | None) -> tuple[list[Any], dict[str, Any]]:
        """How the function is called, by position and by name."""
        named = self.values(found)
        if injected:
            named.update(injected)
        return [named.pop(name) for name in self._positional], named

    def _problems(self, error: ValidationError) -> str:
        found = error.errors(include_url=False, include_context=False)
        if found[0]["type"] == "json_invalid":
            return no_json(found[0]["msg"].removeprefix("Invalid JSON: "), self._line)
        problems = [f"{'.'.join(map(str, problem['loc'])) or 'arguments'}: {_told(problem)}" for problem in found]
        return wrong(problems, self._line)


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
        what = f"parameter {parameters[0].name!r} has type {kind}"
        if error.code not in _UNSENDABLE:  # pydantic says what is wrong with it
            raise UndescribableError(f"{what}: {error.message}") from error
        raise UndescribableError(
            f"{what}, which no JSON can be, so a model cannot send it. Take what JSON has (str, int, list, a pydantic "
            f"model...), and let the function get its {kind} from elsewhere: a closure, functools.partial, a resource, "
            "or the object whose method it is."
        ) from error


def _told(problem: Any) -> str:
    if problem["type"] == "missing":
        return "is missing"
    if problem["type"] == "extra_forbidden":
        return "there is no such parameter"
    return f"{lower(problem['msg'])}, not {shown(problem['input'])}"


def _hint_of(parameter: inspect.Parameter, code: Any) -> Any:
    """What a parameter's annotation means."""
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
    return _evaluated(parameter, code)


def _injected(parameter: inspect.Parameter, hint: Any) -> Injected | None:
    """What a parameter is injected; None where the model sends it."""
    marker = marker_of(hint)
    if marker is not None:
        try:
            compile_recipe(marker, f"parameter {parameter.name!r}", {})
        except WorkflowValidationError as error:
            raise UndescribableError(str(error)) from error
        return Injected(marker, parameter.default)
    members = typing.get_args(hint) if typing.get_origin(hint) in {typing.Union, types.UnionType} else (hint,)
    kinds = [typing.get_origin(member) or member for member in members]
    if any(isinstance(kind, type) and CONTEXT_ROLE in vars(kind) for kind in kinds):
        return Injected(None, parameter.default)
    return None


def _field_of(parameter: inspect.Parameter, hint: Any, said: str | None) -> tuple[Any, Any]:
    """A field of the model: its type with the description, and its default."""
    metadata = list(getattr(hint, "__metadata__", ()))
    text = next((note for note in metadata if isinstance(note, str)), None) or said
    default = ... if parameter.default is _EMPTY else parameter.default
    if default is None and not _has_none(hint):
        hint |= None  # `limit: int = None` is written often, and a model that is told of the default sends it
    own = [found for found in (*metadata, default) if isinstance(found, FieldInfo)]
    if any(found.description for found in own):
        text = None  # what stands in a Field is the field's own
    # pydantic lets the last Field win: the alias is ours, whatever the others say
    extra = Field(alias=parameter.name, description=text) if text is not None else Field(alias=parameter.name)
    return Annotated[hint, extra], default


def _has_none(hint: Any) -> bool:
    """Does a type allow None?"""
    if typing.get_origin(hint) is Annotated:
        return _has_none(typing.get_args(hint)[0])
    if typing.get_origin(hint) in {typing.Union, types.UnionType}:
        return any(map(_has_none, typing.get_args(hint)))
    return hint is None or hint is type(None) or hint is Any or hint is object


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
