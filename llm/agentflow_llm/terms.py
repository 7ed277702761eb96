"""The words of a text, and which of them say what it is about."""

from __future__ import annotations

import re

_WORD = re.compile(r"\w+")
_ENGLISH = """
    a an the and or about as at by for from in into of on that there this to with
    am are be been being can could did do does had has have is may might must shall should was were will would
    how what when where which who whom whose why
    he her him his i it its me my our she their them they us we you your
"""
FILLER = frozenset(_ENGLISH.split())
"""Words that say little: in few documents they would decide what is found."""


def telling(text: str) -> list[str]:
    """The words that say something, each once; all, where none does."""
    found = list(dict.fromkeys(_WORD.findall(text)))
    return [word for word in found if word.casefold() not in FILLER] or found
