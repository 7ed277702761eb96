"""Numbered citations in an answer, each checked against the passage that it names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, cast
from unicodedata import normalize

from pydantic import BaseModel

from agentflow_llm.reading import sentences, stem, stems, words
from agentflow_llm.terms import indexed, is_sign

from .numerals import NUMERALS, numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from agentflow_llm import ChatMessage, Passage

_ENOUGH = 0.6
"""The share of a claim's words that the passages have at least; tests/test_rag_quality.py measures it."""
_PART = 0.3
"""The share that a passage has of its own, at least, where several are cited together."""

_HISTORY = 6
_LONGEST = 1_000
"""How many messages, and how many characters of each, say what was said."""

_NAMED = r"(?:passages?|sources?|documents?)\s*"
_AND = r"\s*(?:[,;&\-\u2013\u2014]|and|to)\s*"
_ONE = rf"[\^#]?(?:{_NAMED})?\d{{1,3}}"
_MARK = (
    rf"(?:[\[\u3010\uff3b]\s*{_ONE}(?:{_AND}{_ONE})*\s*(?:\u2020[^\]\u3011\n]*)?[\]\u3011\uff3d](?:\([^()\s]*\))?"
    rf"|\({_NAMED}\d{{1,3}}(?:{_AND}{_ONE})*\))"
)
_Pattern = partial(re.compile, flags=re.IGNORECASE)
_MARKS = _Pattern(rf"{_MARK}(?:\s*(?:,\s*)?{_MARK})*")
_WITH_SPACE = _Pattern(rf" ?{_MARKS.pattern}")
_BEHIND = re.compile(rf"([.!?\u2026\u3002][\"'\u201d\u2019)*]*)((?:[ \t]*(?i:{_MARK}))+)(?![ \t]*[a-z])")
"""Marks behind the end of their sentence, unless it goes on in a small letter: "[1] says"."""
_NUMBERS = _Pattern(rf"(\d+)(?:\s*(?:[\-\u2013\u2014]|to)\s*[\^#]?(?:{_NAMED})?(\d+))?")
_LIST = _Pattern(rf"(?m)^[^\w\n]*(?:sources|references|citations)[^\w\n]*\n+(?:[-*+\d.) \t]*{_MARK}.*(?:\n+|\Z))+\Z")
"""The list of sources that an answer may end with: it claims nothing."""
_CODE = re.compile(r"`++[^`]++`++")
_SAYING = ("according", "cited", "document", "passage", "per", "said", "say", "see", "source", "state")
_REPORTING = frozenset(map(stem, _SAYING))
"""Words in front of a mark that itself stands in front of what it is cited for: "According to [1], ..."."""

_CAPITAL = re.compile(r"(?<=[\w,;)] )[A-Z\u00c0-\u00d6\u00d8-\u00de][\w'\u2019-]*")
_DENIAL = _Pattern(r"\b(?:not|no|never|none|neither|nor|nobody|nothing|without|cannot)\b|n['\u2019]t\b")
_NOTE = re.compile(r"\[(\d{1,3})\]")
_ONE_OF = _Pattern(r"\bone\b")


@dataclass(frozen=True, slots=True)
class Citation:
    """A passage that an answer names for something.

    - `number`: as it stands in the answer. Passages are numbered from 1.
    - `passage_id`, `source`: of the passage; empty where there is none of this number.
    - `claim`: the sentence, or the part of it, that carries the number, without its marks.
    - `holds`: whether the passage supports the claim, see `supports`.
    """

    number: int
    passage_id: str
    source: str
    claim: str
    holds: bool


def citations_in(answer: str | BaseModel, passages: Sequence[Passage]) -> list[Citation]:
    """The citations in an answer, or in all texts of an object, in their order, each checked.

    `[1]`, `[1][2]`, `[1, 3]`, `[2-4]`, `[^1]`, `[Passage 2]`, `(Source 2)` are such, and those in the brackets of
    Chinese texts; not what stands in code, in a heading, or in a list of sources at the end. A mark belongs to its
    sentence, also from behind the full stop. Of several in one sentence each belongs to the words since the one
    before, or, where they begin with "According to [1]", to those that follow. Where there are none, to the sentence
    before.

    A number without a passage does not hold; but one that a passage cited beside it has in brackets itself was copied
    from there with its words, and is left out. Where several passages are cited together they have to support the
    claim together, and each to have a part in it.
    """
    if isinstance(answer, BaseModel):
        answer = "\n\n".join(_texts(answer.model_dump(mode="json")))
    pages = [_Page.of(passage) for passage in passages]
    found: list[Citation] = []
    for claim, cited_numbers in _claims(answer, len(passages)):
        cited = [pages[number - 1] for number in cited_numbers if 0 < number <= len(pages)]
        together = bool(cited) and _supported(claim, cited, _ENOUGH)
        copied = frozenset[int]().union(*(page.brackets for page in cited))
        for number in cited_numbers:
            page = pages[number - 1] if 0 < number <= len(pages) else None
            holds = page is not None and together and (len(cited) == 1 or _share(claim, [page]) >= _PART)
            if not holds and number in copied and len(cited_numbers) > 1:
                continue
            named = ("", "") if page is None else (passages[number - 1].id, source_of(passages[number - 1]))
            found.append(Citation(number, *named, claim, holds))
    return found


def supports(claim: str, *passages: Passage) -> bool:
    """Whether passages, with their titles and headings, say what a claim says, as far as words can tell that.

    - Every number of the claim stands in one of them: "2,000,000", "2 million" and "two million" are the same.
    - So does every name: what is written with a capital, but not because a sentence begins there.
    - So do at least 60 % of its other words that say something, whatever their endings; or all of it stands
      there as it is. A claim without such words, "Yes.", is not supported by anything else.

    And where the claim denies something, one of them denies something. More is not looked at: "rose" and "fell" are
    two words as others, and who did it is not told from who it was done to.
    """
    return bool(passages) and _supported(claim, list(map(_Page.of, passages)), _ENOUGH)


def source_of(passage: Passage) -> str:
    """Where a passage is from: what its metadata say, else its id."""
    said = passage.metadata.get("source") or passage.metadata.get("title")
    return str(said or passage.id)


def numbered(passages: Sequence[Passage], prompt: Callable[..., str]) -> str:
    """The passages as a model is shown them, each by the prompt "passage": see `Agent.prompt`."""
    return "\n\n".join(
        prompt("passage", number=str(number), source=_place(passage), text=passage.text)
        for number, passage in enumerate(passages, start=1)
    )


def wrong_with(citations: Sequence[Citation], prompt: Callable[..., str]) -> list[str]:
    """What is wrong with the citations of an answer, as a model is told it."""
    if not citations:
        return [prompt("no_citations")]
    told = (
        prompt("does_not_hold" if one.passage_id else "no_passage", number=str(one.number), claim=one.claim)
        for one in citations
        if not one.holds
    )
    return list(dict.fromkeys(told))


def says(answer: str, sentence: str) -> bool:
    """Whether a sentence is in an answer, whatever its capitals and signs. One without words never is."""
    told, wanted = (" ".join(words(text)).casefold() for text in (answer, sentence))
    return _stands_in(wanted, told)


def without_marks(text: str) -> str:
    """The text without the marks of citations."""
    return " ".join(_WITH_SPACE.sub("", " ".join(text.split())).split())


def retold(messages: Iterable[ChatMessage]) -> str:
    """The last of what was said, as text. Marks are left out: their passages are not there any more."""
    who = {"user": "User", "assistant": "Assistant"}
    lines = [(who[m.role], without_marks(m.text)) for m in messages if m.role in who and m.text.strip()]
    return "\n".join(f"{name}: {text[:_LONGEST]}" for name, text in lines[-_HISTORY:])


def _place(passage: Passage) -> str:
    heading = passage.metadata.get("heading")
    return f"{source_of(passage)} > {heading}" if heading else source_of(passage)


def _claims(answer: str, most: int) -> Iterator[tuple[str, list[int]]]:
    """What is claimed, and the numbers of the passages that are cited for it."""
    text = _BEHIND.sub(lambda found: f" {found[2].strip()}{found[1]}", _LIST.sub("", answer))
    before = ""
    for sentence in sentences(text):
        code = [span.span() for span in _CODE.finditer(sentence)]
        marks = [m for m in _MARKS.finditer(sentence) if not any(a <= m.start() < b for a, b in code)]
        for claim, mark in zip(_parts(sentence, marks), marks, strict=True):
            yield (claim if _tells(claim) else before or claim), _numbers_of(mark[0], most)
        if _tells(whole := without_marks(sentence)):
            before = whole


def _parts(sentence: str, marks: Sequence[re.Match[str]]) -> list[str]:
    """The part of a sentence that each of its marks belongs to."""
    if len(marks) <= 1:
        return [without_marks(sentence)] * len(marks)
    edges = [0, *(mark.end() for mark in marks)]
    if set(stems(sentence[: marks[0].start()])) <= _REPORTING:  # they stand in front
        edges = [*(mark.start() for mark in marks), len(sentence)]
    else:
        edges[-1] = len(sentence)
    return [without_marks(sentence[start:end]).strip(" ,;:") for start, end in pairwise(edges)]


def _tells(claim: str) -> bool:
    return bool(set(stems(claim)) - _REPORTING or _counted(claim))


def _numbers_of(marks: str, most: int) -> list[int]:
    """The numbers in marks, each once. Of a range beyond the `most` that there are, its end stands for the rest."""
    found: list[int] = []
    for first, last in _NUMBERS.findall(marks):
        start, end = int(first), int(last or first)
        found += [start, end] if end < start else [*range(start, min(end, max(most, start)) + 1), end]
    return list(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class _Page:
    """What a passage is compared by."""

    plain: str
    stems: frozenset[str]
    numbers: frozenset[str]
    denies: bool
    brackets: frozenset[int]
    """The numbers in brackets in it, such as those of notes."""

    @classmethod
    def of(cls, passage: Passage) -> _Page:
        facts = (str(passage.metadata.get(name) or "") for name in ("title", "heading"))
        text = "\n".join([passage.text, *facts])
        brackets = frozenset(map(int, _NOTE.findall(text)))
        denies = _DENIAL.search(text) is not None
        return cls(_plain(text), frozenset(_stems(text)), frozenset(numbers(text)), denies, brackets)


def _supported(claim: str, pages: Sequence[_Page], enough: float) -> bool:
    known = frozenset[str]().union(*(page.stems for page in pages))
    if not _counted(claim) <= frozenset[str]().union(*(page.numbers for page in pages)):
        return False
    if any(_stands_in(_plain(claim), page.plain) for page in pages):
        return True
    if _DENIAL.search(claim) and not any(page.denies for page in pages):
        return False
    names = {part for name in _CAPITAL.findall(claim) for part in _stems(name)}
    return names <= known and _share(claim, pages) >= enough


def _share(claim: str, pages: Sequence[_Page]) -> float:
    """How many of the words of a claim that say something the pages have, of 1."""
    said = _stems(claim)
    if not said:
        return float(bool(_counted(claim)))
    return sum(any(word in page.stems for page in pages) for word in said) / len(said)


def _stems(text: str) -> set[str]:
    """The words that say something, numbers left out: those are compared by what they are, not how they are written."""
    told = (word for word in words(indexed(normalize("NFKC", text))) if word.lower() not in NUMERALS)
    return {part for part in stems(" ".join(told)) if not part[0].isdigit()}


def _counted(claim: str) -> set[str]:
    """The numbers that a claim needs. The word "one" is seldom meant as one."""
    return numbers(claim) - ({"1"} if _ONE_OF.search(claim) else set())


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", normalize("NFKC", text).casefold()))


def _stands_in(claim: str, text: str) -> bool:
    """Whether a claim stands in a text, not from the middle of a word, nor to the middle of one."""
    at = text.find(claim) if claim else -1
    while at >= 0:
        edges = (text[at - 1 : at + 1] if at else "", text[at + len(claim) - 1 : at + len(claim) + 1])
        if not any(edge[1:] and edge.isalnum() and not any(map(is_sign, edge)) for edge in edges):
            return True
        at = text.find(claim, at + 1)
    return False


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        inner = cast("dict[str, object] | list[object]", value)
        for one in inner.values() if isinstance(inner, dict) else inner:
            yield from _texts(one)
