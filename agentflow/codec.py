"""Values to JSON and back, by an allow-list of types; never pickle.

JSON's own types stand for themselves. Others are written as an object with the one key `$agentflow`
beside what they hold. Classes are restored only if the workflow declares them: its events, with what
is derived from them, its state, and what the fields of those name.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import typing
from decimal import Decimal
from enum import Enum, Flag
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, TypeAlias, cast
from uuid import UUID

from pydantic import AliasChoices, BaseModel, RootModel

from .errors import ContextSerdeError, a
from .events import Event, HumanResponseEvent, InputRequiredEvent, StopEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

TAG = "$agentflow"
Keep: TypeAlias = "Callable[[Any], Any]"
"""Makes of a value that cannot be stored what is to stand in its place."""
_NATIVE = frozenset({str, int, float, bool, type(None)})
_TEXT = frozenset({str})
_PLAIN = (dict, list, tuple, set, frozenset, str, bytes, bool, int, float)
_EXEMPT: tuple[type[Event], ...] = (StopEvent, InputRequiredEvent, HumanResponseEvent)
"""Events that a workflow may use without declaring their very type."""


def _write_moment(value: dt.datetime | dt.time) -> Any:
    """ISO 8601 has no word for a zone's name, nor for which of two equal hours is meant when clocks go back."""
    zone = getattr(value.tzinfo, "key", None)
    return [value.isoformat(), zone, value.fold] if zone or value.fold else value.isoformat()


def _moment_reader(kind: type[dt.datetime | dt.time]) -> Callable[[Any], Any]:
    def read(stored: Any) -> Any:
        if isinstance(stored, str):
            return kind.fromisoformat(stored)
        text, zone, fold = stored
        value = kind.fromisoformat(text).replace(fold=fold)
        if zone is None:
            return value
        from zoneinfo import ZoneInfo  # noqa: PLC0415 because few runs store a named zone

        return value.replace(tzinfo=ZoneInfo(zone))

    return read


_SIMPLE: dict[type, tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = {
    bytes: ("bytes", lambda v: base64.b64encode(v).decode(), base64.b64decode),
    dt.datetime: ("datetime", _write_moment, _moment_reader(dt.datetime)),
    dt.date: ("date", dt.date.isoformat, dt.date.fromisoformat),
    dt.time: ("time", _write_moment, _moment_reader(dt.time)),
    dt.timedelta: ("timedelta", lambda v: [v.days, v.seconds, v.microseconds], lambda v: dt.timedelta(*v)),
    Decimal: ("decimal", str, Decimal),
    UUID: ("uuid", str, UUID),
    complex: ("complex", lambda v: [v.real, v.imag], lambda v: complex(*v)),
    type(Path()): ("path", str, Path),
    PurePosixPath: ("posixpath", str, PurePosixPath),
    PureWindowsPath: ("windowspath", str, PureWindowsPath),
}
_READERS = {name: read for name, _, read in _SIMPLE.values()}
_SEQUENCES: dict[type, str] = {tuple: "tuple", set: "set", frozenset: "frozenset"}
_MAKERS: dict[str, Any] = {name: kind for kind, name in _SEQUENCES.items()}


class Codec:
    """Writes and reads the values of one workflow's runs."""

    def __init__(self, roots: Iterable[type]) -> None:
        self._names: dict[type, str] = {}
        self._classes: dict[str, type] = {}
        for root in roots:
            self._allow(root, set())
        self._open: tuple[type[Event], ...] = (*_EXEMPT, *(kind for kind in self._names if issubclass(kind, Event)))
        """Events whose derived classes may be stored too: the engine routes them."""

    def _allow(self, annotation: Any, seen: set[Any]) -> None:
        """Let a class be stored, and what its fields are annotated with."""
        if type(annotation).__name__ == "TypeAliasType" and annotation not in seen:
            seen.add(annotation)  # an alias may name itself
            self._allow(annotation.__value__, seen)
        for argument in typing.get_args(annotation):
            self._allow(argument, seen)
        if not isinstance(annotation, type) or annotation in self._names:
            return
        kind: type[Any] = annotation
        inner: list[Any] = []
        if issubclass(kind, BaseModel):
            inner = [field.annotation for field in kind.model_fields.values()]
        elif dataclasses.is_dataclass(kind):
            inner = list(_dataclass_hints(kind).values())
        elif not issubclass(kind, Enum):
            return
        name = class_name(kind)
        self._names[kind] = name
        self._classes[name] = kind
        for hint in inner:
            self._allow(hint, seen)

    def encode(self, value: Any, where: str, *, keep: Keep | None = None) -> Any:
        """`value` in JSON's types. What cannot be stored raises `ContextSerdeError`, which names `where`.

        With `keep`, what it makes of such a value stands in its place: good enough within one process.
        """
        try:
            return self._encode(value, keep)
        except _Unstorable as refused:
            raise ContextSerdeError(_refusal(refused.value, f"{where}{_way_to(refused.value, value)}")) from None
        except RecursionError:
            if keep is None:
                msg = f"{where} holds itself, or is nested too deeply to be stored. Keep ids in place of the objects."
                raise ContextSerdeError(msg) from None
        if value.__class__ is not dict or TAG in value:
            return _Kept(keep(value))
        return {k: self._encoded_or_kept(v, keep) for k, v in value.items()}

    def _encoded_or_kept(self, value: Any, keep: Keep) -> Any:
        try:
            return self._encode(value, keep)
        except RecursionError:
            return _Kept(keep(value))

    def _encode(self, value: Any, keep: Keep | None) -> Any:
        kind: type = value.__class__
        if kind in _NATIVE:
            return value
        if kind is dict:
            return self._encode_dict(value, keep)
        if kind is list:
            plain = _NATIVE.issuperset(map(type, value))
            return value.copy() if plain else [v if v.__class__ in _NATIVE else self._encode(v, keep) for v in value]
        if kind in _SIMPLE:
            name, write, _ = _SIMPLE[kind]
            return {TAG: name, "value": write(value)}
        if kind in _SEQUENCES:
            return {TAG: _SEQUENCES[kind], "value": [self._encode(v, keep) for v in value]}
        return self._encode_object(value, kind, keep)

    def _encode_object(self, value: Any, kind: type, keep: Keep | None) -> Any:
        known = self._names.get(kind) or self._derived(kind)
        if known is None:
            if keep is None:
                raise _Unstorable(value)
            return keep(value)
        if isinstance(value, Enum):
            return {TAG: known, "value": value.value if isinstance(value, Flag) else value.name}
        if issubclass(kind, RootModel):
            return {TAG: known, "value": self._encode(value.root, keep)}
        return {TAG: known, "value": {k: self._encode(v, keep) for k, v in _fields_of(value).items()}}

    def _encode_dict(self, value: dict[Any, Any], keep: Keep | None) -> Any:
        if TAG in value or not _TEXT.issuperset(map(type, value)):
            return {TAG: "dict", "value": [[self._encode(k, keep), self._encode(v, keep)] for k, v in value.items()]}
        if _NATIVE.issuperset(map(type, value.values())):
            return value.copy()
        return {k: v if v.__class__ in _NATIVE else self._encode(v, keep) for k, v in value.items()}

    def decode(self, value: Any, where: str) -> Any:
        """What `encode` was given. Raises `ContextSerdeError` for what the workflow does not declare."""
        try:
            return self._decode(value, where)
        except RecursionError:
            msg = f"{where}: stored data is nested too deeply"
            raise ContextSerdeError(msg) from None

    def _decode(self, value: Any, where: str) -> Any:
        kind = value.__class__
        if kind is list:
            return [v if v.__class__ in _NATIVE else self._decode(v, where) for v in value]
        if kind is _Kept:
            return value.value
        if kind is not dict:
            return value
        if TAG not in value:
            return {k: v if v.__class__ in _NATIVE else self._decode(v, f"{where}.{k}") for k, v in value.items()}
        tag = value[TAG]
        try:
            return self._decode_tagged(tag, value["value"], where)
        except (ContextSerdeError, RecursionError):
            raise
        except Exception as error:  # because the classes of a workflow may raise anything when they are made
            msg = f"{where}: what is stored as {tag!r} cannot be read: {error}"
            raise ContextSerdeError(msg) from error

    def _decode_tagged(self, tag: Any, inner: Any, where: str) -> Any:  # noqa: PLR0911 because each tag is read in its own way
        if tag in _READERS:
            return _READERS[tag](inner)
        if tag in _MAKERS:
            return _MAKERS[tag](self._decode(inner, where))
        if tag == "dict":
            return {self._decode(k, where): self._decode(v, where) for k, v in inner}
        found: Any = self._class_named(tag)
        if found is None:
            msg = (
                f"{where}: stored data names the class {tag!r}, which this workflow does not declare. Known: "
                f"{sorted(self._classes)}."
            )
            raise ContextSerdeError(msg)
        if issubclass(found, Enum):
            return found(inner) if issubclass(found, Flag) else found[inner]
        if issubclass(found, RootModel):
            return cast("type[RootModel[Any]]", found).model_validate(self._decode(inner, where))
        data: dict[str, Any] = {k: self._decode(v, f"{where}.{k}") for k, v in inner.items()}
        if issubclass(found, BaseModel):
            return found.model_validate(_by_alias(found, data))
        fields = {field.name: field.init for field in dataclasses.fields(found)}
        made = found(**{name: v for name, v in data.items() if fields.get(name, True)})
        for name in data.keys() & fields.keys():
            object.__setattr__(made, name, data[name])  # a frozen one has no other way
        return made

    def _derived(self, kind: type) -> str | None:
        """The name of a class that is derived from a declared event: declared, from now on."""
        if not issubclass(kind, self._open):
            return None
        self._allow(kind, set())
        return self._names[kind]

    def _class_named(self, name: str) -> type | None:
        """The class that was stored under a name; its module may have another name now, as `__main__` has."""
        if name in self._classes:
            return self._classes[name]
        _, _, short = name.partition(":")
        alike = [kind for kind in self._names if kind.__qualname__ == short]
        if alike:
            return alike[0] if len(alike) == 1 else None
        derived = _newest(self._open, name)
        if derived is not None:
            self._allow(derived, set())
        return derived


class _Unstorable(Exception):  # noqa: N818 because it is caught here, to say where the value is
    """A value that cannot be stored was met."""

    def __init__(self, value: Any) -> None:
        self.value = value


@dataclasses.dataclass(frozen=True, slots=True)
class _Kept:
    """Stands for dicts and lists that hold themselves, and are kept as they are."""

    value: Any


def class_name(kind: type) -> str:
    """The name under which a class is stored."""
    return f"{kind.__module__}:{kind.__qualname__}"


def event_named(name: str) -> type[Event] | None:
    """The class of event that has this name and has been defined."""
    return _newest((Event,), name)


def _newest(bases: Iterable[type[Event]], name: str) -> type[Event] | None:
    """The class of this name among those derived from `bases`, the one defined last where there are several."""
    return next((kind for base in bases for kind in _lineage(base) if class_name(kind) == name), None)


def _lineage(base: type[Event]) -> Iterator[type[Event]]:
    for derived in reversed(base.__subclasses__()):
        yield from _lineage(derived)
    yield base


def _fields_of(value: Any) -> dict[str, Any]:
    if not isinstance(value, BaseModel):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    held = value.__dict__  # holds cached properties as well, which are no fields
    declared = {name: held[name] for name in type(value).model_fields if name in held}
    return {**declared, **(value.__pydantic_extra__ or {})}


def _by_alias(model: type[BaseModel], data: dict[str, Any]) -> dict[str, Any]:
    """The fields under the names by which the model takes them."""
    config = model.model_config
    if config.get("populate_by_name") or config.get("validate_by_name"):
        return data
    for name, field in model.model_fields.items():
        alias = field.validation_alias or field.alias
        if isinstance(alias, AliasChoices):
            alias = next((choice for choice in alias.choices if isinstance(choice, str)), None)
        if name in data and isinstance(alias, str):
            data[alias] = data.pop(name)
    return data


def _way_to(value: Any, holder: Any) -> str | None:
    """How to get from a holder to a value somewhere in it: `.field`, `[0]`; None if it is not there."""
    if holder is value:
        return ""
    inside: dict[Any, Any] = {}
    if isinstance(holder, BaseModel) or (dataclasses.is_dataclass(holder) and not isinstance(holder, type)):
        inside = _fields_of(holder)
    elif isinstance(holder, dict):
        inside = cast("Any", holder)
    elif isinstance(holder, list | tuple | set | frozenset):
        inside = dict(enumerate(cast("Iterable[Any]", holder)))
    for key, inner in inside.items():
        way = _way_to(value, inner)
        if way is not None:
            return (f".{key}" if isinstance(key, str) else f"[{key!r}]") + way
    return None


def _refusal(value: Any, where: str) -> str:
    kind: type[Any] = value.__class__
    held = f"{where} holds {a(kind.__qualname__)}"
    if isinstance(value, Event):
        return (
            f"{held}, an event that this workflow does not declare. Name it where it is used: as what a step accepts "
            f"or returns, or, where it is awaited, in @step(waits=[{kind.__name__}])."
        )
    if isinstance(value, BaseModel | Enum) or dataclasses.is_dataclass(value):
        return (
            f"{held}, a class that this workflow does not declare. Declare it as a field of an event, or of a typed "
            "state (ctx: Context[State])."
        )
    plain = next((base.__name__ for base in _PLAIN if isinstance(value, base)), None)
    if plain is not None:
        return f"{held}, which cannot be stored as it is. Store what it holds: {plain}(...)."
    return (
        f"{held}, which cannot be stored. Keep what makes it (a path, an id) and let a resource make the object: "
        "Annotated[T, Resource(make_it)]."
    )


def _dataclass_hints(kind: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(kind, include_extras=True)
    except NameError:  # names for type checkers only: what they stand for is not stored
        return {}
