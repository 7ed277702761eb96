"""JSON that may have any shape: what is there is taken, what is not is empty."""

from __future__ import annotations

import json
from typing import Any, TypeGuard

_FIRST_HIGH, _LAST_HIGH = "\ud800", "\udbff"
"""The first halves of surrogate pairs, from the first to the last."""


def as_dict(value: Any) -> dict[str, Any]:
    """The object that it is, or an empty one."""
    return value if _is_dict(value) else {}


def _is_dict(value: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def as_list(value: Any) -> list[Any]:
    """The array that it is, or an empty one."""
    return value if _is_list(value) else []


def _is_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def first(value: Any) -> Any:
    """The first item of the array that it is, or None."""
    items = as_list(value)
    return items[0] if items else None


def parsed(text: str) -> Any:
    """What the JSON text says; None where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def well_formed(text: str) -> str:
    """The text, with U+FFFD for each half of a surrogate pair that stands alone: no encoding has those."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


class Text:
    """Pieces of a text, each of them well formed: half of a surrogate pair is held back until the other half comes."""

    __slots__ = ("_held", "pieces")

    def __init__(self) -> None:
        self._held = ""
        self.pieces: list[str] = []

    def __str__(self) -> str:
        return "".join(self.pieces)

    def add(self, piece: str) -> str:
        """What of the text is now there that was not before."""
        if self._held or not piece.isascii():
            piece = self._held + piece
            self.drop()
            if _FIRST_HIGH <= piece[-1:] <= _LAST_HIGH:
                self._held = piece[-1]
                piece = piece[:-1]
            piece = well_formed(piece)
        if piece:
            self.pieces.append(piece)
        return piece

    def drop(self) -> None:
        """Forget what was held back."""
        self._held = ""

    def end(self) -> str:
        """What was held back."""
        rest = "\ufffd" if self._held else ""
        self.drop()
        if rest:
            self.pieces.append(rest)
        return rest


def excerpt(value: Any, longest: int = 200) -> str:
    """The beginning of a text or of a value's JSON, in quotes and on one line, to be shown in an error."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr)
    text = " ".join(text.split())
    return repr(text if len(text) <= longest else f"{text[:longest]}...")
