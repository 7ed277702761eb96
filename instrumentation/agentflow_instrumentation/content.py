"""What of the user's data goes out: how much, cut where, and never a secret that can be recognised.

Nothing here calls the user's code: no `repr`, no `str` of strange objects, no properties.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

Content = Literal["none", "preview", "full"]

CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
HIDDEN = "**********"
CUT = "…"

_KiB = 1024
_DEEPEST = 12
_LOOKAHEAD = 1024
_SMALLEST = 64
_LONGEST_PARSED = 1 << 20
_ON_SPANS = {"span_only", "span_and_event", "true", "1", "yes", "on"}

_SECRETS = re.compile(
    r"""
      \b(?:sk|pk|rk)-[A-Za-z0-9_-]{12,}                         # OpenAI, Anthropic, Stripe...
    | \b(?:sk|pk|rk)_(?:live|test)_[A-Za-z0-9]{8,}
    | \bgh[opusr]_[A-Za-z0-9]{20,} | \bgithub_pat_\w{20,}
    | \bglpat-[\w-]{16,} | \bhf_[A-Za-z0-9]{20,} | \bxox[abprs]-[A-Za-z0-9-]{10,}
    | \bAKIA[0-9A-Z]{12,} | \bAIza[\w-]{30,}
    | \beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?                      # a JSON web token
    | (?<=bearer\ )[\w.~+/=-]{8,}
    | (?<=basic\ )[A-Za-z0-9+/]{12,}={0,2}
    """,
    re.VERBOSE | re.IGNORECASE,
)
_SIGNS = (
    *(
        "sk-",
        "pk-",
        "rk-",
        "k_live_",
        "k_test_",
        "ghp_",
        "gho_",
        "ghu_",
        "ghs_",
        "ghr_",
        "github_pat_",
        "glpat-",
        "hf_",
    ),
    *("xox", "akia", "aiza", "eyj", "bearer ", "basic "),
)
"""In every text that `_SECRETS` finds something in there is one of these."""
_NAMED = re.compile(
    r"""((?:api[_-]?key|access[_-]?key|secret|password|passwd|authorization|(?:auth|access|refresh)[_-]?token)
        ["']?\s*[:=]\s*["']?)(?!bearer\s|basic\s)[^\s"',;&}]{4,}""",
    re.VERBOSE | re.IGNORECASE,
)
_NAMED_SIGNS = ("key", "secret", "password", "passwd", "authorization", "token")
_NAMES = re.compile(
    r"api[_-]?key|access[_-]?key|secret|password|passwd|authorization|(auth|access|refresh)[_-]?token", re.IGNORECASE
)


def level_from_environment() -> Content:
    """The level that the standard variable asks for: full where it wants message content on spans."""
    return "full" if os.environ.get(CAPTURE, "").strip().lower() in _ON_SPANS else "none"


class Limits:
    """How long things may be, in bytes of UTF-8."""

    __slots__ = ("attribute", "text", "value")

    def __init__(self, text: int, value: int, attribute: int) -> None:
        self.text = text
        """One text inside a message."""
        self.value = value
        """The input or the output of a span."""
        self.attribute = attribute
        """The messages of a span, or its documents."""


LIMITS: dict[Content, Limits] = {
    "none": Limits(0, 0, 0),
    "preview": Limits(_KiB, _KiB, 64 * _KiB),
    "full": Limits(8 * _KiB, 8 * _KiB, 64 * _KiB),
}


def clean(text: str, limit: int) -> str:
    """The text without secrets, in valid UTF-8, cut to `limit` bytes with a mark that says so."""
    shorter = _masked(text[: limit + _LOOKAHEAD])
    if len(text) <= limit and shorter.isascii() and len(shorter) <= limit:
        return shorter
    data = shorter.encode("utf-8", "replace")
    if len(data) <= limit and len(text) <= limit + _LOOKAHEAD:
        return data.decode()
    return data[: max(0, limit - len(CUT.encode()))].decode("utf-8", "ignore") + CUT


def _masked(text: str) -> str:
    """The text without secrets. Most have none, and to look for words is a hundred times faster."""
    folded = text.casefold()
    if any(sign in folded for sign in _SIGNS):
        text = _SECRETS.sub(HIDDEN, text)
    if any(sign in folded for sign in _NAMED_SIGNS):
        text = _NAMED.sub(rf"\g<1>{HIDDEN}", text)
    return text


@lru_cache(maxsize=256)
def clean_again(text: str, limit: int = 256) -> str:
    """As `clean`, for what comes again and again: names of models and sources, reasons, descriptions of tools."""
    return clean(text, limit)


def dumps(value: object) -> str:
    """JSON as it goes into an attribute."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def size(text: str) -> int:
    """Bytes of UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def plain(value: object, limit: int) -> Any:
    """Any value as JSON's types, of about `limit` bytes at most."""
    return _Walk(limit).plain(value, 0)


def as_json(value: object, limit: int) -> str:
    """Any value as JSON of at most `limit` bytes, cut inside its structure."""
    budget = limit
    while budget >= _SMALLEST:
        text = dumps(plain(value, budget))
        if size(text) <= limit:
            return text
        budget //= 2
    return dumps(CUT)


def json_text(text: str, limit: int) -> tuple[str, bool]:
    """Text that should be JSON, cut to `limit` bytes inside its structure, and whether it is JSON."""
    if len(text) <= _LONGEST_PARSED:
        try:
            return as_json(json.loads(text), limit), True
        except (ValueError, RecursionError):
            return clean(text, limit), False
    return clean(text, limit), False


def as_value(value: object, limit: int) -> tuple[str, bool]:
    """A value as text, and whether that is JSON: a text stays itself."""
    if isinstance(value, str):
        return clean(value, limit), False
    return as_json(value, limit), True


class _Walk:
    """Makes JSON's types of a value while the budget lasts."""

    def __init__(self, budget: int) -> None:
        self.left = budget

    def plain(self, value: object, depth: int) -> Any:  # noqa: PLR0911 because there are that many kinds of values
        if value is None or isinstance(value, bool):
            self.left -= 5
            return value
        if isinstance(value, str):
            text = clean(str.__str__(value), max(self.left, _SMALLEST // 2))
            self.left -= size(text) + 2
            return text
        if isinstance(value, int | float) and not isinstance(value, Enum):
            return self._number(value)
        if depth > _DEEPEST:
            return CUT
        if isinstance(value, dict):
            pairs = cast("Mapping[object, object]", value)
            return self._object(((_key(k), v) for k, v in pairs.items()), len(pairs), depth)
        if isinstance(value, list | tuple | set | frozenset):
            return self._array(cast("Iterable[object]", value), depth)
        if isinstance(value, Enum):
            return self.plain(value.value, depth + 1)
        return self._other(value, depth)

    def _number(self, value: float) -> Any:
        self.left -= 8
        if isinstance(value, int):
            return int(value) if abs(value) < 1 << 63 else CUT
        return float(value) if value - value == 0 else str(float(value))  # JSON knows no infinity

    def _object(self, pairs: Iterable[tuple[str, object]], many: int, depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in pairs:
            if self.left <= 0:
                made[CUT] = f"{many - len(made)} more"
                break
            name = clean(key, 256)
            self.left -= size(name) + 4
            made[name] = HIDDEN if isinstance(value, str) and _NAMES.search(name) else self.plain(value, depth + 1)
        return made

    def _array(self, values: Iterable[object], depth: int) -> list[Any]:
        made: list[Any] = []
        for value in values:
            if self.left <= 0:
                made.append(CUT)
                break
            made.append(self.plain(value, depth + 1))
            self.left -= 1
        return made

    def _other(self, value: object, depth: int) -> Any:
        cls = type(value)
        known = _fields(value)
        if known is not None:
            return self._object(iter(known.items()), len(known), depth)
        if "Secret" in cls.__name__:
            text = HIDDEN
        elif isinstance(value, bytes | bytearray):
            text = f"<{len(value):,} bytes>"
        elif isinstance(value, BaseException):
            text = f"<{cls.__name__}>"
        elif cls.__module__ in {"datetime", "uuid", "decimal", "pathlib", "fractions"}:
            text = clean(str(value), 256)
        elif isinstance(value, type):
            text = f"<class {value.__name__}>"
        else:
            text = f"<{cls.__name__}>"
        self.left -= len(text) + 2
        return text


def _key(key: object) -> str:
    return str.__str__(key) if isinstance(key, str) else str(key) if isinstance(key, int) else f"<{type(key).__name__}>"


def _fields(value: object) -> dict[str, object] | None:
    """The fields of a pydantic model or a dataclass that may be shown, else None."""
    cls: Any = type(value)
    is_model = hasattr(cls, "__pydantic_core_schema__")
    declared: Any = getattr(cls, "__pydantic_fields__", None) or getattr(cls, "model_fields", {})  # before 2.10
    if is_model and isinstance(declared, dict):
        infos = cast("dict[str, Any]", declared)
        hidden = {name for name, info in infos.items() if info.exclude or info.repr is False}
        extra: dict[str, object] = getattr(value, "__pydantic_extra__", None) or {}
        return {name: field for name, field in {**vars(value), **extra}.items() if name not in hidden}
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name, None) for f in fields(value) if f.repr}
    return None


def fields_of(value: object) -> dict[str, object]:
    """The fields of an event."""
    return _fields(value) or {}


def fit(items: list[Any], limit: int, left_out: Callable[[int], Any]) -> tuple[str, bool]:
    """A list as JSON of at most `limit` bytes, and whether something is missing.

    The first item stays, and as many of the last as fit; `left_out(n)` makes the item that stands for the rest.
    """
    texts = [dumps(item) for item in items]
    if sum(map(size, texts)) + len(texts) + 1 <= limit:
        return f"[{','.join(texts)}]", False
    gap = dumps(left_out(len(texts)))
    room = limit - size(gap) - 4
    first = [texts[0]] if texts and size(texts[0]) <= room // 2 else []
    room -= sum(map(size, first)) + 1
    last: list[str] = []
    for text in islice(reversed(texts), len(texts) - len(first)):
        if size(text) + 1 > room:
            break
        room -= size(text) + 1
        last.append(text)
    missing = len(texts) - len(first) - len(last)
    return f"[{','.join([*first, dumps(left_out(missing)), *reversed(last)])}]", True
