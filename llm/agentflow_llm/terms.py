"""The words of a text, as they are looked for, and which of them say what it is about."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from unicodedata import category, normalize

if TYPE_CHECKING:
    from collections.abc import Callable

_WORD = re.compile(r"\w+")
_ENGLISH = """
    a an the and or about as at by for from in into of on that there this to with
    am are be been being can could did do does had has have is may might must shall should was were will would
    how what when where which who whom whose why
    he her him his i it its me my our she their them they us we us you your
"""
FILLER = frozenset(_ENGLISH.split())
"""Words that say little: in few documents they would decide what is found."""
_POINTS = re.compile(
    "[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e8\u06ea-\u06ed]"
)
"""Vowels and other signs of Hebrew and Arabic, which most texts leave out."""
_SIGNS = re.compile(
    "[\u3005\u3007\u3041-\u3096\u309d\u309e\u30a1-\u30fa\u30fc-\u30fe\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff66-\uff9f\U00020000-\U0003ffff]+"
)
"""Signs of Chinese and Japanese, which write no words apart."""


def indexed(text: str) -> str:
    """A text as its words are kept: composed, without points, in Chinese and Japanese each two signs as a word."""
    return text if text.isascii() else _apart(text, lambda run: [run[at : at + 2] for at in range(len(run))])


def telling(text: str) -> list[str]:
    """The words that say something, as they are kept, each once; all, where none does."""
    if not text.isascii():
        text = _apart(text, lambda run: [run[at : at + 2] for at in range(max(1, len(run) - 1))])
        text = "".join(char if _is_of_a_word(char) else " " for char in text)
        found = list(dict.fromkeys(text.split()))
    else:
        found = list(dict.fromkeys(_WORD.findall(text)))
    return [word for word in found if word.casefold() not in FILLER] or found


def is_sign(word: str) -> bool:
    """Whether it is a single sign of Chinese or Japanese."""
    return len(word) == 1 and _SIGNS.match(word) is not None


def _apart(text: str, parts: Callable[[str], list[str]]) -> str:
    text = _POINTS.sub("", normalize("NFC", text))
    return _SIGNS.sub(lambda run: f" {' '.join(parts(run[0]))} ", text)


def _is_of_a_word(char: str) -> bool:
    return char.isalnum() or category(char) in {"Mn", "Mc", "Co"}
