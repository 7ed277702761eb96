"""Values of any kind as texts and JSON of bounded size, cut inside their structure, redacted before that.

Nothing here calls the user's code but its redactors: no `repr`, no `str` of strange objects, no properties.
"""

from __future__ import annotations

import json
from enum import Enum
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

from . import tally
from .redactors import HIDDEN, is_secret_field, is_secret_text, masked
from .shapes import LISTS, TEXTUAL, bases_of, class_of, kind_of, name_of, shown_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .redactors import Redactor

CUT = "…"
DROPPED = "[dropped]"
"""Stands where a text would, had its redactor not failed."""

_LOOKAHEAD = 1024
"""So much more of a text is looked through for secrets than is shown of it..."""
_MARGIN = 512
"""...and so much at the end of that is never shown: the secret that begins there can't be recognised."""
_LOOKBEHIND = 1 << 16
_DEEPEST = 12
_SMALLEST = 64
_LONGEST_NAME = 256
_LONGEST_PARSED = 1 << 20
_LARGEST_NUMBER = 1 << 63


def clean(text: str, limit: int) -> str:
    """The text without secrets, in valid UTF-8, cut to `limit` bytes with a mark that says so."""
    return _PLAIN.clean(text, limit)


@lru_cache(maxsize=256)
def clean_again(text: str, limit: int = _LONGEST_NAME) -> str:
    """As `clean`, for what comes again and again: names of models and sources, reasons, descriptions of tools."""
    return clean(text, limit)


def dumps(value: object) -> str:
    """JSON as it goes into an attribute."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def size(text: str) -> int:
    """Bytes of UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


class Cutter:
    """Makes texts and JSON of values, redacted and cut. `where` says what it is, as redactors are told it."""

    __slots__ = ("cut", "failure", "redactors")

    def __init__(self, redactors: Sequence[Redactor] = ()) -> None:
        self.redactors = redactors
        self.cut = False
        """Is something missing from what it has made?"""
        self.failure: str | None = None
        """The class of the error of a redactor that failed."""

    def clean(self, text: str, limit: int, where: str = "") -> str:
        """The text, redacted, in valid UTF-8, cut to `limit` bytes with a mark that says so."""
        end = limit + _LOOKAHEAD
        if len(text) <= end:
            shown = self._redacted(text, where)
            if len(shown) <= limit and shown.isascii():
                return shown
            data = shown.encode("utf-8", "replace")
            if len(data) <= limit:
                return data.decode()
        else:
            shown = self._redacted(text[:end], where)
            data = shown[: max(0, len(shown) - _MARGIN)].encode("utf-8", "replace")
        self.cut = True
        return data[: max(0, limit - len(CUT.encode()))].decode("utf-8", "ignore") + (CUT if limit else "")

    def clean_end(self, text: str, limit: int, where: str = "") -> str:
        """As `clean`, but where the text is too long, its beginning goes."""
        long = len(text) > limit + _LOOKBEHIND
        shown = self._redacted(text[-limit - _LOOKBEHIND :] if long else text, where)
        data = shown.encode("utf-8", "replace")
        if len(data) <= limit and not long:
            return data.decode()
        self.cut = True
        room = max(0, min(limit - len(CUT.encode()), len(data) - _MARGIN if long else limit))
        return CUT + (data[-room:].decode("utf-8", "ignore") if room else "")

    def _redacted(self, text: str, where: str) -> str:
        for redactor in self.redactors:
            try:
                text = str.__str__(redactor(text, where))
            except Exception as error:  # noqa: BLE001 because the text must not go out, and the run must go on
                self.failure = name_of(type(error))
                tally.CONTENT.add("redaction_error")
                return DROPPED
        return masked(text)

    def plain(self, value: object, limit: int, where: str = "") -> Any:
        """Any value as JSON's types, of about `limit` bytes at most."""
        return _Walk(self, limit).plain(value, 0, where)

    def as_json(self, value: object, limit: int, where: str = "") -> str:
        """Any value as JSON of at most `limit` bytes, cut inside its structure."""
        budget = limit
        while budget >= _SMALLEST:
            text = dumps(self.plain(value, budget, where))
            if size(text) <= limit:
                return text
            self.cut = True
            budget //= 2
        return dumps(CUT)

    def json_text(self, text: str, limit: int, where: str = "") -> tuple[str, bool]:
        """Text that should be JSON, cut to `limit` bytes inside its structure, and whether it is JSON."""
        parsed = parse(text)
        if parsed is None:
            return self.clean(text, limit, where), False
        return self.as_json(parsed[0], limit, where), True

    def as_value(self, value: object, limit: int, where: str = "") -> tuple[str, bool]:
        """A value as text, and whether that is JSON: a text stays itself."""
        if isinstance(value, str):
            return self.clean(str.__str__(value), limit, where), False
        return self.as_json(value, limit, where), True

    def fit(self, items: Sequence[Any], limit: int, left_out: Callable[[int], Any]) -> tuple[str, bool]:
        """A list as JSON of at most `limit` bytes, and whether something is missing.

        The first item stays, and as many of the last as fit; `left_out(n)` makes the item that stands for the rest.
        """
        texts = [dumps(item) for item in items]
        if sum(map(size, texts)) + len(texts) + 1 <= limit:
            return f"[{','.join(texts)}]", False
        self.cut = True
        gap = dumps(left_out(len(texts)))
        room = limit - size(gap) - 4
        if room < 0:
            tally.CONTENT.add("limit", many=len(texts))
            return "[]", True
        first = [texts[0]] if texts and size(texts[0]) <= room // 2 else []
        room -= sum(map(size, first)) + 1
        last: list[str] = []
        for text in islice(reversed(texts), len(texts) - len(first)):
            if size(text) + 1 > room:
                break
            room -= size(text) + 1
            last.append(text)
        missing = len(texts) - len(first) - len(last)
        tally.CONTENT.add("limit", many=missing)
        return f"[{','.join([*first, dumps(left_out(missing)), *reversed(last)])}]", True


def parse(text: str) -> tuple[Any] | None:
    """What a text of JSON says; None where it is none."""
    if len(text) > _LONGEST_PARSED:
        return None
    try:
        return (json.loads(text),)
    except (ValueError, RecursionError):
        return None


class _Walk:
    """Makes JSON's types of a value while the budget lasts."""

    __slots__ = ("_cutter", "_left", "_tells_where")

    def __init__(self, cutter: Cutter, budget: int) -> None:
        self._cutter = cutter
        self._left = budget
        self._tells_where = bool(cutter.redactors)

    def plain(self, value: Any, depth: int, where: str) -> Any:  # noqa: PLR0911 because there are that many kinds
        kind = kind_of(value)
        if kind is str:
            text = self._cutter.clean(str.__str__(value), max(self._left, _SMALLEST // 2), where)
            self._left -= size(text) + 2
            return text
        if kind is None or kind is bool:
            self._left -= 5
            return value
        if kind is int or kind is float:
            self._left -= 8
            return self._number(value, kind)
        if depth > _DEEPEST:
            self._cutter.cut = True
            return CUT
        if kind is dict:
            return self._object(_items_of(value), depth, where)
        if kind in LISTS:
            return self._array(_iter_of(kind)(value), depth, where)
        return self._other(value, kind, depth, where)

    def _number(self, value: Any, kind: type) -> Any:
        if kind is int:
            whole = int.__index__(value)
            return whole if abs(whole) < _LARGEST_NUMBER else CUT
        number = float.__float__(value)
        return number if number - number == 0 else str(number)  # JSON knows no infinity

    def _object(self, pairs: Iterable[tuple[Any, Any]], depth: int, where: str) -> dict[str, Any]:
        made: dict[str, Any] = {}
        items = list(pairs)
        for done, (key, value) in enumerate(items):
            if self._left <= 0:
                self._cutter.cut = True
                made[CUT] = f"{len(items) - done} more"
                break
            name = self._cutter.clean(_key(key), _LONGEST_NAME, where)
            self._left -= size(name) + 4
            if _is_secret(name, value):
                made[name] = HIDDEN
                self._left -= len(HIDDEN)
            else:
                made[name] = self.plain(value, depth + 1, f"{where}.{name}" if self._tells_where else "")
        return made

    def _array(self, values: Iterable[Any], depth: int, where: str) -> list[Any]:
        made: list[Any] = []
        for value in values:
            if self._left <= 0:
                self._cutter.cut = True
                made.append(CUT)
                break
            made.append(self.plain(value, depth + 1, where))
            self._left -= 1
        return made

    def _other(self, value: Any, kind: Any, depth: int, where: str) -> Any:
        if kind is Enum:
            return self.plain(object.__getattribute__(value, "_value_"), depth + 1, where)
        known = shown_fields(value)
        if known is not None:
            return self._object(known.items(), depth, where)
        if bytes in bases_of(kind) or bytearray in bases_of(kind):
            text = f"<{_length(value):,} bytes>"
        elif kind in TEXTUAL:
            text = self._cutter.clean(str(value), _LONGEST_NAME, where)
        elif type in bases_of(kind):
            text = f"<class {name_of(value)}>"
        else:
            text = HIDDEN if _has_secret_name(kind) else f"<{name_of(kind)}>"
        self._left -= len(text) + 2
        return text


_items_of: Any = vars(dict)["items"]  # a subclass may have one of its own


def _iter_of(kind: Any) -> Any:
    return kind.__iter__


def _length(value: Any) -> int:
    return memoryview(value).nbytes


def _key(key: Any) -> str:
    kind = kind_of(key)
    if kind is str:
        return str.__str__(key)
    return str(int.__index__(key)) if kind is int or kind is bool else f"<{name_of(class_of(key))}>"


def _has_secret_name(cls: type[Any]) -> bool:
    return any("Secret" in name_of(base) for base in bases_of(cls))


def _is_secret(name: str, value: Any) -> bool:
    """Is a value secret because of the name of its field? What is inside an object has names of its own."""
    kind = kind_of(value)
    if kind is str:
        return is_secret_text(name, str.__str__(value))
    return kind not in _SAYS_NOTHING and is_secret_field(name)


_SAYS_NOTHING = (None, bool, float, dict)
_PLAIN = Cutter()


def plain(value: object, limit: int) -> Any:
    """Any value as JSON's types, of about `limit` bytes at most, for where no redactors are."""
    return Cutter().plain(value, limit)


def as_json(value: object, limit: int) -> str:
    """Any value as JSON of at most `limit` bytes, cut inside its structure, for where no redactors are."""
    return Cutter().as_json(value, limit)
