"""What kind of value something is and which fields it shows, without calling any code of its class."""

from __future__ import annotations

import dataclasses
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path, PosixPath, PurePath, PurePosixPath, PureWindowsPath, WindowsPath
from types import MemberDescriptorType
from typing import Any, cast
from uuid import UUID
from weakref import WeakKeyDictionary

TEXTUAL = frozenset(
    {
        *(date, datetime, time, timedelta, Decimal, Fraction, UUID),
        *(Path, PosixPath, WindowsPath, PurePath, PurePosixPath, PureWindowsPath),
    }
)
"""Classes whose `str` is the library's own."""

LISTS = (list, tuple, set, frozenset)
_BASIC = {id(kind): kind for kind in (str, bool, int, float, dict, *LISTS)}
_name_of: Any = type.__dict__["__name__"].__get__
_mro_of: Any = type.__dict__["__mro__"].__get__
_Fields = tuple[bool, tuple[str, ...], frozenset[str]]
_known: WeakKeyDictionary[type, _Fields | None] = WeakKeyDictionary()


def name_of(cls: type) -> str:
    """The name of a class, whatever its metaclass says."""
    return str(_name_of(cls))


def class_of(value: object) -> Any:
    """The class of a value, whatever it says itself."""
    return type(value)


def bases_of(cls: type) -> tuple[type, ...]:
    """A class and its bases."""
    return tuple(_mro_of(cls))


def kind_of(value: object) -> Any:
    """The builtin class that a value is of, be it by inheritance; for others None, Enum, or its own class."""
    cls = type(value)
    basic = _BASIC.get(id(cls))
    if basic is not None:
        return basic
    if value is None:
        return None
    bases = bases_of(cls)
    return next((base for base in bases if id(base) in _BASIC), Enum if Enum in bases else cls)


def shown_fields(value: object) -> dict[str, object] | None:
    """The fields of a pydantic model or a dataclass that may be shown; None where it is neither.

    Those that are excluded, or left out of its `repr`, stay here.
    """
    cls = type(value)
    try:
        fields = _known[cls]
    except KeyError:
        fields = _known[cls] = _fields(cls)
    if fields is None:
        return None
    is_model, shown, hidden = fields
    inside: dict[str, object] = _own(value, "__dict__") or {}
    made = {name: inside[name] if name in inside else _slot(cls, value, name) for name in shown}
    if is_model:
        extra: dict[str, object] = _own(value, "__pydantic_extra__") or {}
        made |= {name: field for name, field in extra.items() if name not in hidden}
    return made


def fields_of(value: object) -> dict[str, object]:
    """The fields of an event that may be shown."""
    return shown_fields(value) or {}


def _own(value: object, name: str) -> Any:
    try:
        return object.__getattribute__(value, name)
    except AttributeError:
        return None


def _slot(cls: type, value: object, name: str) -> object:
    """What a field holds that is no entry of `__dict__`: a slot, or the class's default. A property is not asked."""
    found: Any = next((vars(base)[name] for base in bases_of(cls) if name in vars(base)), None)
    if isinstance(found, MemberDescriptorType):
        try:
            return found.__get__(value, cls)
        except AttributeError:
            return None
    return None if hasattr(class_of(found), "__get__") else found


def _fields(cls: type) -> _Fields | None:
    inside = {name: value for base in reversed(bases_of(cls)) for name, value in vars(base).items()}
    if "__pydantic_core_schema__" in inside:
        found: Any = inside.get("__pydantic_fields__", inside.get("model_fields"))  # the latter before pydantic 2.10
        infos = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
        hidden = frozenset(name for name, info in infos.items() if info.exclude or info.repr is False)
        return True, tuple(name for name in infos if name not in hidden), hidden
    if "__dataclass_fields__" in inside:
        return False, tuple(field.name for field in dataclasses.fields(cls) if field.repr), frozenset()
    return None
