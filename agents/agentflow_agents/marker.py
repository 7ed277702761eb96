"""The words that divide the text of a model: `Thought:`, `Action:`, `Action Input:`, `Observation:`, `Answer:`."""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

Kind = Literal["thought", "action", "input", "observation", "answer"]

_KINDS: Final[dict[str, Kind]] = {
    "thought": "thought",
    "thoughts": "thought",
    "though": "thought",
    "action": "action",
    "actioninput": "input",
    "actioninputs": "input",
    "observation": "observation",
    "observations": "observation",
    "answer": "answer",
    "finalanswer": "answer",
}
_SIGNS: Final = r"[*_`#]{0,4}"
_NUMBERED: Final = r"[ \t]*\d{0,3}[ \t]*"
_LISTED: Final = r"[ \t]*(?:(?:[-+>*]|#{1,6}|\d{1,2}[.)])[ \t]+)?"
_WORD: Final = r"(?P<word>thoughts?|though|action[ _]?inputs?|action|observations?|(?:final[ _]?)?answer)"
_LINE = re.compile(
    rf"{_LISTED}(?P<opened>{_SIGNS})[ \t]?{_WORD}(?P<closed>{_SIGNS}){_NUMBERED}(?P<last>{_SIGNS})[ \t]*[:\uff1a]",
    re.IGNORECASE,
)
_LINE_BEGUN = re.compile(
    rf"[ \t]*(?:[-+>*]|#{{1,6}}|\d{{1,2}}[.)]?)?[ \t]*{_SIGNS}[ \t]?"
    rf"(?P<word>[a-z]*(?:[ _][a-z]*)?){_SIGNS}{_NUMBERED}{_SIGNS}[ \t]*",
    re.IGNORECASE,
)
_SENTENCE: Final = ".!?:;)\\]\u2026\u3002\uff01\uff1f"
_ENDED: Final = rf"(?:(?<=[{_SENTENCE}])|(?<=[{_SENTENCE}][\"'\u201d]))"
_INLINE = re.compile(
    rf"(?:{_ENDED}[ \t]{{1,3}}(?P<opened>\*{{0,2}})(?P<word>Answer|Action|Observation)|"
    rf"(?<=[\w{_SENTENCE}])[ \t]{{1,3}}(?P<opened_2>\*{{0,2}})(?P<word_2>Final Answer))"
    r"[ \t]?(?P<closed>\*{0,2})[:\uff1a]"
)


def _prefixes(word: str) -> str:
    """A pattern of all beginnings of a word, the empty one included."""
    return "" if not word else f"(?:{re.escape(word[0])}{_prefixes(word[1:])})?"


_INLINE_BEGUN = re.compile(
    rf"(?<=[\w{_SENTENCE}\"'\u201d])[ \t]{{1,3}}\*{{0,2}}"
    rf"(?:{'|'.join(map(_prefixes, ('Final Answer', 'Answer', 'Action', 'Observation')))})[ \t]?\*{{0,2}}\Z"
)
_LONGEST_INLINE: Final = 32


class Mark(NamedTuple):
    """A marker in a text: its kind, where it begins and ends, and the signs that open it and are closed behind it."""

    kind: Kind
    start: int
    end: int
    open: str = ""


def mark_of_line(text: str, at: int = 0) -> Mark | None:
    """The marker with which the line at `at` begins, in whatever case, as heading, list item or in bold."""
    found = _LINE.match(text, at)
    if found is None:
        return None
    signs = "" if found["closed"] or found["last"] else found["opened"].lstrip("#")
    return Mark(_kind_of(found["word"]), at, found.end(), signs)


def mark_in_line(text: str, at: int = 0, end: int | None = None) -> Mark | None:
    """The first marker within a line: behind the end of a sentence, and written as it was asked for."""
    found = _INLINE.search(text, at, len(text) if end is None else end)
    if found is None:
        return None
    signs = "" if found["closed"] else found["opened"] or found["opened_2"] or ""
    return Mark(_kind_of(found["word"] or found["word_2"]), found.start(), found.end(), signs)


def may_begin_line(text: str) -> bool:
    """Could the line that begins with `text` still turn out to begin with a marker?"""
    found = _LINE_BEGUN.fullmatch(text)
    if found is None:
        return False
    word = _plain(found["word"])
    return any(known.startswith(word) for known in _KINDS)


def begun_in_line(text: str) -> int:
    """From where the end of `text` could still turn out to be a marker within a line; its length, where it cannot."""
    start = max(0, len(text) - _LONGEST_INLINE)
    found = _INLINE_BEGUN.search(text, start)
    return len(text) if found is None else found.start()


def _kind_of(word: str) -> Kind:
    return _KINDS[_plain(word)]


def _plain(word: str) -> str:
    return word.lower().replace(" ", "").replace("_", "")
