"""Values to JSON and back, by an allow-list of types; never pickle.

JSON's own types stand for themselves. Others are written as an object with the one key `$agentflow`
beside what they hold. Classes are restored only if the workflow declares them: its events, its state,
and what the fields of those name.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import typing
from decimal import Decimal
from enum import Enum
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import BaseModel, ValidationError

from .errors import ContextSerdeError

if TYPE_CHECKING:
    from collections.abc import Iterable

TAG = "$agentflow"
_NATIVE = frozenset({str, int, float, bool, type(None)})
_SIMPLE: dict[type, tuple[str, Any, Any]] = {
    bytes: ("bytes", lambda v: base64.b64encode(v).decode(), base64.b64decode),
    dt.datetime: ("datetime", dt.datetime.isoformat, dt.datetime.fromisoformat),
    dt.date: ("date", dt.date.isoformat, dt.date.fromisoformat),
    dt.time: ("time", dt.time.isoformat, dt.time.fromisoformat),
    dt.timedelta: ("timedelta", lambda v: [v.days, v.seconds, v.microseconds], lambda v: dt.timedelta(*v)),
    Decimal: ("decimal", str, Decimal),
    UUID: ("uuid", str, UUID),
    complex: ("complex", lambda v: [v.real, v.imag], lambda v: complex(*v)),
}
_READERS = {name: read for name, _, read in _SIMPLE.values()} | {"path": Path}
_SEQUENCES: dict[type, str] = {tuple: "tuple", set: "set", frozenset: "frozenset"}
_MAKERS: dict[str, Any] = {name: kind for kind, name in _SEQUENCES.items()}


class Codec:
    """Writes and reads the values of one workflow's runs."""

    def __init__(self, roots: Iterable[type]) -> None:
        self._names: dict[type, str] = {}
        self._classes: dict[str, type] = {}
        for root in roots:
            self._allow(root)

    def _allow(self, kind: Any) -> None:
        """Let a class be stored, and what its fields are annotated with."""
        for argument in typing.get_args(kind):
            self._allow(argument)
        if not isinstance(kind, type) or kind in self._names:
            return
        if issubclass(kind, BaseModel):
            inner = [f.annotation for f in kind.model_fields.values()]
        elif dataclasses.is_dataclass(kind):
            inner = list(_dataclass_hints(kind).values())
        elif issubclass(kind, Enum):
            inner = []
        else:
            return
        name = f"{kind.__module__}:{kind.__qualname__}"
        self._names[kind] = name
        self._classes[name] = kind
        for annotation in inner:
            self._allow(annotation)

    def classes(self) -> Iterable[type]:
        """Every class that may be stored."""
        return self._names

    def encode(self, value: Any, where: str, *, keep: bool = False) -> Any:
        """`value` in JSON's types. What cannot be stored raises `ContextSerdeError`, which names `where`.

        With `keep` it stays the object that it is instead: good enough within one process.
        """
        kind = value.__class__
        if kind in _NATIVE:
            return value
        if kind is dict:
            return self._encode_dict(value, where, keep)
        if kind is list:
            return [v if v.__class__ in _NATIVE else self.encode(v, f"{where}[{i}]", keep=keep) for i, v in enumerate(value)]
        if kind in _SIMPLE:
            name, write, _ = _SIMPLE[kind]
            return {TAG: name, "value": write(value)}
        if kind in _SEQUENCES:
            return {TAG: _SEQUENCES[kind], "value": [self.encode(v, where, keep=keep) for v in value]}
        if isinstance(value, PurePath):
            return {TAG: "path", "value": str(value)}
        name = self._names.get(kind)
        if name is not None:
            if isinstance(value, Enum):
                return {TAG: name, "value": value.name}
            fields = _fields_of(value)
            return {TAG: name, "value": {k: self.encode(v, f"{where}.{k}", keep=keep) for k, v in fields.items()}}
        if keep:
            return value
        raise ContextSerdeError(self._refusal(value, where))

    def _encode_dict(self, value: dict[Any, Any], where: str, keep: bool) -> Any:
        if TAG not in value and {*map(type, value)} <= {str}:
            return {
                k: v if v.__class__ in _NATIVE else self.encode(v, f"{where}.{k}", keep=keep) for k, v in value.items()
            }
        pairs = [
            [self.encode(k, where, keep=keep), self.encode(v, f"{where}[{k!r}]", keep=keep)] for k, v in value.items()
        ]
        return {TAG: "dict", "value": pairs}

    def _refusal(self, value: Any, where: str) -> str:
        kind = type(value).__qualname__
        if isinstance(value, BaseModel | Enum) or dataclasses.is_dataclass(value):
            return (
                f"{where} holds a {kind}, a class that this workflow does not declare. Declare it as a field of an event, "
                "or of a typed state (ctx: Context[State])."
            )
        return (
            f"{where} holds a {kind}, which cannot be stored. Keep what makes it (a path, an id) and let a resource make "
            "the object: Annotated[T, Resource(make_it)]."
        )

    def decode(self, value: Any, where: str) -> Any:
        """What `encode` was given. Raises `ContextSerdeError` for classes that the workflow does not declare."""
        kind = value.__class__
        if kind is list:
            return [v if v.__class__ in _NATIVE else self.decode(v, where) for v in value]
        if kind is not dict:
            return value
        tag = value.get(TAG)
        if tag is None:
            return {k: v if v.__class__ in _NATIVE else self.decode(v, f"{where}.{k}") for k, v in value.items()}
        inner = value.get("value")
        try:
            return self._decode_tagged(tag, inner, where)
        except (TypeError, ValueError, KeyError) as error:
            if isinstance(error, ContextSerdeError):
                raise
            msg = f"{where}: what is stored as {tag!r} cannot be read: {error}"
            raise ContextSerdeError(msg) from error

    def _decode_tagged(self, tag: str, inner: Any, where: str) -> Any:
        if tag in _READERS:
            return _READERS[tag](inner)
        if tag in _MAKERS:
            return _MAKERS[tag](self.decode(inner, where))
        if tag == "dict":
            return {self.decode(k, where): self.decode(v, where) for k, v in inner}
        found = self._classes.get(tag)
        if found is None:
            msg = (
                f"{where}: stored data names the class {tag!r}, which this workflow does not declare. Known: "
                f"{sorted(self._classes)}."
            )
            raise ContextSerdeError(msg)
        if issubclass(found, Enum):
            return found[inner]
        data = {k: self.decode(v, f"{where}.{k}") for k, v in inner.items()}
        if not issubclass(found, BaseModel):
            return found(**data)
        for name, field in found.model_fields.items():
            alias = field.validation_alias or field.alias
            if name in data and isinstance(alias, str) and not found.model_config.get("populate_by_name"):
                data[alias] = data.pop(name)
        try:
            return found.model_validate(data)
        except ValidationError as error:
            msg = f"{where}: stored data does not fit {found.__qualname__}: {error}"
            raise ContextSerdeError(msg) from error


def _fields_of(value: Any) -> dict[str, Any]:
    if isinstance(value, BaseModel):
        return {**value.__dict__, **(value.__pydantic_extra__ or {})}
    return {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}


def _dataclass_hints(kind: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(kind)
    except NameError:  # names for type checkers only: what they stand for is not stored
        return {}
