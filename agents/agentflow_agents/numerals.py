"""The numbers in a text, however they are written."""

from __future__ import annotations

import re
from decimal import Decimal
from unicodedata import normalize

_TOKEN = re.compile(r"\d+(?:[.,\u00a0\u202f]\d+)*|[^\W\d_]+")
_THOUSANDS = re.compile(r"\d{1,3}(?:[,\u00a0\u202f]\d{3})+(?:\.\d+)?")
_DOTTED = re.compile(r"\d{1,3}(?:\.\d{3}){2,}(?:,\d+)?")
_DECIMAL = re.compile(r"\d+(?:[.,]\d+)?")
_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_LARGE = "twenty thirty forty fifty sixty seventy eighty ninety"
_VALUES = {
    **{word: Decimal(value) for value, word in enumerate(_SMALL.split())},
    **{word: Decimal(10 * value) for value, word in enumerate(_LARGE.split(), start=2)},
}
_SCALES = {
    "hundred": Decimal(100),
    "thousand": Decimal(1000),
    "million": Decimal(10**6),
    "billion": Decimal(10**9),
    "trillion": Decimal(10**12),
}
NUMERALS = frozenset(_VALUES.keys() | _SCALES.keys())
"""The words that are numbers."""
_TEN = 10
_HUNDRED = 100
_JOINED = frozenset(" -\u00a0")


def numbers(text: str) -> set[str]:
    """The numbers of a text, each in one way of writing: 2,000,000, 2 million and "two million" are one.

    What is no plain number, such as a version, is kept as it is written.
    """
    text = normalize("NFKC", text)
    found: list[Decimal | str] = []
    end = -1
    for token in _TOKEN.finditer(text):
        word = token[0].lower()
        value = _value(word)
        before = found[-1] if found and end >= 0 and set(text[end : token.start()]) <= _JOINED else None
        end = -1 if value is None and word not in _SCALES else token.end()
        if isinstance(before, Decimal) and word in _SCALES:
            found[-1] = before * _SCALES[word]
        elif isinstance(before, Decimal) and word in _VALUES and _goes_on(before, _VALUES[word]):
            found[-1] = before + _VALUES[word]
        elif value is not None:
            found.append(value)
        elif word in _SCALES:
            found.append(_SCALES[word])
    return {_written(number) for number in found}


def _goes_on(tens: Decimal, unit: Decimal) -> bool:
    return _TEN < tens < _HUNDRED and tens % _TEN == 0 and 0 < unit < _TEN


def _value(word: str) -> Decimal | str | None:
    """What one word says; None where it is no number, or only says how many of what is before it."""
    if not word[0].isdigit():
        return _VALUES.get(word)
    if _THOUSANDS.fullmatch(word):
        return Decimal(re.sub(r"[,\u00a0\u202f]", "", word))
    if _DOTTED.fullmatch(word):
        return Decimal(word.replace(".", "").replace(",", "."))
    return Decimal(word.replace(",", ".")) if _DECIMAL.fullmatch(word) else word


def _written(number: Decimal | str) -> str:
    return number if isinstance(number, str) else f"{number.normalize():f}"
