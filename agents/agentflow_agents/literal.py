"""Objects as weak models write them: JSON, a Python literal, or what was meant to be one of them."""

from __future__ import annotations

import json
import re
from typing import Any, Final

_BLANK = re.compile(r"(?:\s|//[^\n]*|#[^\n]*|/\*.*?\*/)*", re.DOTALL)
_NUMBER = re.compile(r"[-+]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?=\s*(?:[,}\])\"']|#|//|/\*|$))")
_KEY = re.compile(r"[^\W\d][\w.-]*")
_WORD = re.compile(r"[^,}\])\n]+")
_MEMBER = re.compile(r"(?:[\"'`\u201c\u2018{\[(}\]),\d-]|(?i:true|false|null|none)\b|[^\W\d][\w.-]*\s*[:=]|$)")
"""How what stands behind a comma goes on, where it is the next member and not text."""
_UNICODE = re.compile(r"(?:\\u[0-9a-fA-F]{4})+")
_QUOTES: Final = {
    '"': '"',
    "'": "'",
    "`": "`",
    "\u201c": "\u201d\u201c",
    "\u2018": "\u2019\u2018",
    "\u201e": "\u201c\u201d",
}
"""What opens a text, and what may close it."""
_ESCAPED: Final = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "0": "\0"}
_NO_ESCAPES: Final = "_*[]{}()#-`\"'\\/\u201d\u2019"
"""What a backslash may stand before without meaning anything: Markdown's signs, and quotation marks."""
_WORDS: Final = {"true": True, "false": False, "null": None, "none": None, "undefined": None, "nan": None}
_CLOSES: Final = {"{": "}", "[": "]", "(": ")"}
_DEEPEST = 60
_DECODER = json.JSONDecoder()


class UnreadableError(ValueError):
    """There is no object, or it breaks off in the middle of a text."""


def read_literal(text: str, at: int = 0) -> tuple[Any, int]:
    """The value that begins at `at`, and where it ends.

    Valid JSON is read as such. Otherwise also: single and typographic quotation marks, quotation marks within a text
    that were not escaped, line breaks in texts, keys without quotation marks, True, False and None, tuples, commas too
    many or too few, comments, and closing brackets that are missing at the end. A text that breaks off is not
    completed: half of it may mean something else. Raises `UnreadableError`.
    """
    at = _skip(text, at)
    try:
        return _DECODER.raw_decode(text, at)
    except (ValueError, RecursionError):
        return _value(text, at, 0)


def value_or_text(text: str, at: int = 0) -> tuple[Any, int]:
    """As `read_literal`; where there is no value, all of the rest, as it is."""
    try:
        return read_literal(text, at)
    except UnreadableError:
        return text[at:], len(text)


def _skip(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    assert found is not None  # it matches nothing at all as well
    return found.end()


def _value(text: str, at: int, depth: int) -> tuple[Any, int]:
    if depth > _DEEPEST:
        raise UnreadableError("too many brackets")
    sign = text[at : at + 1]
    if sign == "{":
        return _object(text, at + 1, depth)
    if sign in _CLOSES:
        return _array(text, at + 1, _CLOSES[sign], depth)
    if sign in _QUOTES:
        return _text(text, at)
    if number := _NUMBER.match(text, at):
        digits = number[0].replace("_", "")
        whole = digits.lstrip("+-").isdigit()
        return (int(digits) if whole and len(digits) < _DEEPEST else float(digits)), number.end()
    if word := _WORD.match(text, at):
        said = word[0].strip()
        return _WORDS.get(said.lower(), said), word.end()
    raise UnreadableError("a value is missing")


def _object(text: str, at: int, depth: int) -> tuple[dict[str, Any], int]:
    found: dict[str, Any] = {}
    while True:
        at = _next_member(text, at)
        if at == len(text) or text[at] == "}":
            return found, min(at + 1, len(text))
        if text[at] in _QUOTES:
            key, at = _text(text, at, key=True)
        elif name := _KEY.match(text, at):
            key, at = name[0], name.end()
        else:
            raise UnreadableError("a key is missing")
        at = _skip(text, at)
        if text[at : at + 1] not in {":", "=", "\uff1a"}:
            raise UnreadableError("a colon is missing")
        found[key], at = _value(text, _skip(text, at + 1), depth + 1)


def _array(text: str, at: int, closes: str, depth: int) -> tuple[list[Any], int]:
    found: list[Any] = []
    while True:
        at = _next_member(text, at)
        if at == len(text) or text[at] == closes:
            return found, min(at + 1, len(text))
        value, at = _value(text, at, depth + 1)
        found.append(value)


def _next_member(text: str, at: int) -> int:
    """Where the next member begins, or the bracket that closes: behind commas, however many there are."""
    at = _skip(text, at)
    while text[at : at + 1] == ",":
        at = _skip(text, at + 1)
    return at


def _text(text: str, at: int, *, key: bool = False) -> tuple[str, int]:
    """A text in quotation marks. It ends where one stands that something of the object follows."""
    opened = text[at]
    closes = opened * 3 if text.startswith(opened * 3, at) and opened in "\"'" else _QUOTES[opened]
    triple = len(closes) == 3 and closes == opened * 3  # noqa: PLR2004 because three are three
    at += 3 if triple else 1
    said: list[str] = []
    while at < len(text):
        sign = text[at]
        if sign == "\\" and at + 1 < len(text):
            at = _escape(text, at + 1, said)
        elif triple and text.startswith(closes, at):
            return "".join(said), at + 3
        elif not triple and sign in closes and _ends(text, at + 1, key=key):
            return "".join(said), at + 1
        else:
            said.append(sign)
            at += 1
    raise UnreadableError("a text breaks off")


def _escape(text: str, at: int, said: list[str]) -> int:
    """Take up what the backslash before `at` means; returns what comes behind it."""
    if code := _UNICODE.match(text, at - 1):  # all that stand in a row, since some letters are made of two
        said.append(json.loads(f'"{code[0]}"'))
        return code.end()
    sign = text[at]
    if sign in _ESCAPED:
        said.append(_ESCAPED[sign])
    elif sign in _NO_ESCAPES:
        said.append(sign)
    elif sign != "\n":  # which continues the line, in Python
        said.append(f"\\{sign}")
    return at + 1


def _ends(text: str, at: int, *, key: bool) -> bool:
    """Does what follows a quotation mark say that it closes the text?"""
    after = _skip(text, at)
    follows = text[after : after + 1]
    if key:
        return follows in {":", "\uff1a", "="}
    if follows == ",":
        return _MEMBER.match(text, _skip(text, after + 1)) is not None
    return follows in {"", "}", "]", ")"} or ("\n" in text[at:after] and follows in _QUOTES)
