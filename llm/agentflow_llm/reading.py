"""Reading without a language model: words, sentences, and which sentence says most about a question."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_SAYING_NOTHING = (
    "a about after all also am an and any are as at be been being but by can could did do does doing for from get "
    "give given had has have having he her hers him his how i if in into is it its just let made make many may me "
    "might much must my no not of on one or other our over please same shall she should so some such tell than "
    "that the their them then there these they this those through to under up us use used was we were what when "
    "where which while who whom whose why will with would you your"
)
_STOP_WORDS = frozenset(_SAYING_NOTHING.split())

_WORD = re.compile(r"[^\W_]+(?:[.,'\u2019][^\W_]+)*")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|_")
_ENDINGS = re.compile(
    r"(?<=...)(?:ational|ization|ations|ation|ements|ement|ings|ing|ions|ion|edly|ied|ies|ers|ed|es|er|ly|al|s|e|y)$"
)
_POSSESSIVE = re.compile(r"['\u2019]s$|,")
_ABBREVIATION = re.compile(r"(?:^|[\s(])(?:[A-Za-z]|e\.g|i\.e|etc|vs|cf|St|Mr|Mrs|Ms|Dr|No|Fig|Jr|Sr|Inc|U\.S)\.$")
_SENTENCE_END = re.compile(r"[.!?][\"'\u201d\u2019)\]*`]*(?=\s)")
_LONGEST_ABBREVIATION = 10
_CONTEXT = 0.5
"""What a word of the question is worth in the sentence before: "he" and "it" are who and what that one is about."""

_DEFINED = re.compile(r"what(?: is| are|'s|\u2019s) ((?:\S+ ?){1,4}?)\?*$", re.IGNORECASE)
_DEFINES = re.compile(r"[`*\"]*((?:\S+ ){1,5}?)(?:is|are) ")
_DEFINITION = 0.5
_FRAGMENT = 0.9


@lru_cache(maxsize=20_000)
def stem(word: str) -> str:
    """A word without its ending, so that its forms are the same."""
    word = _ENDINGS.sub("", _POSSESSIVE.sub("", word.lower()))
    return word[:-1] if word[3:] and word[-1] == word[-2] else word


def words(text: str) -> list[str]:
    """The words of a text, names in it taken apart: `read_document` and `ChatModel` are two words each."""
    return _WORD.findall(_HUMP.sub(" ", text))


def stems(text: str) -> list[str]:
    """The stems of all words of a text that say something."""
    return [stem(word) for word in words(text) if word.lower() not in _STOP_WORDS]


def sentences(text: str) -> Iterator[str]:
    """The sentences of a text or of Markdown, each on one line. Headings and blocks of code are none."""
    for block in _blocks(text):
        start = 0
        for end in _SENTENCE_END.finditer(block):
            if not _ABBREVIATION.search(block[max(0, end.start() - _LONGEST_ABBREVIATION) : end.start() + 1]):
                yield block[start : end.end()].strip()
                start = end.end()
        if rest := block[start:].strip():
            yield rest


def _blocks(text: str) -> Iterator[str]:
    """Paragraphs, list items and rows of tables."""
    block: list[str] = []
    fence = ""
    for line in (*text.splitlines(), ""):
        bare = line.strip()
        if bare.startswith(("```", "~~~")):
            fence = "" if fence and bare.startswith(fence) else fence or bare[:3]
            bare = ""
        elif fence:
            continue
        item = re.match(r"(?:[-*+]|\d+[.)])\s+", bare)
        if block and (not bare or item or bare.startswith(("#", "|", ">"))):
            yield " ".join(block)
            block = []
        if bare.startswith("|"):
            cells = [cell.strip() for cell in bare.strip("|").split("|")]
            bare = " - ".join(cell for cell in cells if cell.strip(":-"))
        if bare and not bare.startswith("#"):
            block.append(bare.removeprefix(item[0]) if item else bare.lstrip("> "))
    if block:
        yield " ".join(block)


@dataclass(frozen=True)
class Text:
    """A text that may hold an answer, where it is from, and what it stands under."""

    text: str
    source: str
    heading: str = ""


@dataclass(frozen=True)
class Quote:
    """A sentence of a text.

    - `score`: how much of the question it speaks of, from 0 to 1, rare words counting more; and something for
      what the sentence before it, or its heading, speaks of.
    - `shared`: how many of the question's words it has.
    """

    text: str
    source: str
    score: float
    shared: int


def quotes(question: str, texts: Iterable[Text]) -> list[Quote]:
    """The sentences of the texts, the one that says most about the question first.

    None of them stands twice, and none is a question itself.
    """
    found = _found(texts)
    asked = dict.fromkeys(stems(question))  # in an order, so that the sums below are the same each time
    each = [asked.keys() & stems(sentence) for _, sentence, _ in found.values()]
    seen = Counter(word for said in each for word in said)
    weights = {word: math.log(1 + (len(each) + 0.5) / (seen[word] + 0.5)) for word in asked}
    total = sum(weights.values()) or 1.0
    defined = _DEFINED.match(question)
    subject = stems(defined[1]) if defined else []
    ranked: list[Quote] = []
    for said, (text, sentence, before) in zip(each, found.values(), strict=True):
        context = asked.keys() & set(stems(f"{text.heading} {before}")) - said
        share = sum(weights[word] for word in asked if word in said) / total
        score = share + _CONTEXT * sum(weights[word] for word in asked if word in context) / total
        if subject and _subject(sentence) == subject:
            score += _DEFINITION
        if not sentence.endswith((".", "!", "?", ":", ")", '"')):
            score *= _FRAGMENT
        ranked.append(Quote(sentence, text.source, score, len(said)))
    return sorted(ranked, key=lambda quote: -quote.score)


def _found(texts: Iterable[Text]) -> dict[str, tuple[Text, str, str]]:
    """Each sentence by its words alone: its text, it, and the one before it. What was cut off is left out."""
    found: dict[str, tuple[Text, str, str]] = {}
    ends: list[str] = []
    for text in texts:
        before = plain = ""
        for sentence in sentences(text.text):
            plain = _plain(sentence)
            if "?" not in sentence:
                found.setdefault(plain, (text, sentence, before))
            before = sentence
        ends.append(plain)
    for end in ends:
        if any(plain.startswith(end) and plain != end for plain in found):
            found.pop(end, None)
    return found


def _plain(text: str) -> str:
    return " ".join(words(text)).lower()


def _subject(sentence: str) -> list[str]:
    """What a sentence like "A workflow is a class" is about."""
    defines = _DEFINES.match(sentence)
    return stems(defines[1]) if defines else []
