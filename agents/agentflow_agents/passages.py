"""Passages: a document cut where it has its own seams, at headings, paragraphs, lists and blocks of code."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

Markup = Literal["markdown", "rst", "text"]

LONGEST = 1_000
"""Characters that a passage has at most."""

_HASHES = re.compile(r"(#{1,6})\s+(.*?)\s*#*\s*$")
_UNDERLINE = re.compile(r"""([=\-`:.'"~^_*+#])\1{2,}\s*$""")
_FENCE = re.compile(r"\s*(`{3,}|~{3,})")
_NO_TITLE = re.compile(r"\s|[-*+|>]\s|\|")


class Piece(NamedTuple):
    """A passage, and where it stands."""

    line: int
    """Its first line, from 1."""
    section: int
    """The number of its section in the document."""
    heading: str
    """The headings above it, the outermost first: "Install > On a server"."""
    text: str


class _Line(NamedTuple):
    number: int
    text: str


def split(text: str, markup: Markup) -> Iterator[Piece]:
    """The passages of a document, in their order. Plain text has no headings."""
    reader = _Reader(markup)
    for number, line in enumerate(_body(text, markup), start=1):
        yield from reader.read(_Line(number, line))
    yield from reader.end_section()


class _Reader:
    """Reads a document line by line."""

    def __init__(self, markup: Markup) -> None:
        self._markup = markup
        self._section = 0
        self._headings: dict[int, str] = {}
        """By level, those above the present line."""
        self._levels: dict[str, int] = {}
        """In rst, by the character of an underline its level: the order in which they come says which is which."""
        self._fence = ""
        self._block: list[_Line] = []
        self._blocks: list[list[_Line]] = []

    def read(self, line: _Line) -> Iterator[Piece]:
        """Take up a line; where it begins a section, hand out the one before."""
        mark = _FENCE.match(line.text) if self._markup == "markdown" else None
        if self._fence or mark is not None:
            self._block.append(line)
            self._fence = _after_fence(self._fence, mark)
        elif self._markup == "markdown" and (found := _HASHES.match(line.text)):
            yield from self._enter(len(found[1]), found[2])
        elif level := self._underlined(line.text):
            yield from self._enter(level, self._block.pop().text.strip())
        elif not line.text.strip() or (self._markup == "rst" and not self._block and _UNDERLINE.match(line.text)):
            self._end_block()  # in rst, a line may stand above a heading as well, or between paragraphs
        else:
            self._block.append(line)

    def _underlined(self, line: str) -> int:
        """The level of the heading that a line makes of the one above it; 0 where it makes none."""
        found = _UNDERLINE.match(line)
        if found is None or len(self._block) != 1 or self._markup == "text" or _NO_TITLE.match(self._block[0].text):
            return 0
        if self._markup == "markdown":
            return {"=": 1, "-": 2}.get(found[1], 0)
        if len(line.rstrip()) < len(self._block[0].text.rstrip()):
            return 0
        return self._levels.setdefault(found[1], len(self._levels) + 1)

    def _enter(self, level: int, heading: str) -> Iterator[Piece]:
        yield from self.end_section()
        self._headings = {above: told for above, told in self._headings.items() if above < level}
        self._headings[level] = heading
        self._section += 1

    def _end_block(self) -> None:
        if self._block:
            self._blocks.append(self._block)
            self._block = []

    def end_section(self) -> Iterator[Piece]:
        """Hand out what was read since the last heading."""
        self._end_block()
        blocks, self._blocks = self._blocks, []
        heading = " > ".join(self._headings[level] for level in sorted(self._headings))
        for lines in _joined(blocks):
            yield Piece(lines[0].number, self._section, heading, "\n".join(line.text for line in lines))


def _body(text: str, markup: Markup) -> list[str]:
    """The lines, those of front matter empty, so that the others keep their numbers."""
    lines = text.split("\n")
    if markup == "markdown" and lines and lines[0].rstrip() == "---":
        end = next((at for at, line in enumerate(lines) if at and line.rstrip() == "---"), -1)
        lines[: end + 1] = [""] * (end + 1)
    return lines


def _after_fence(fence: str, mark: re.Match[str] | None) -> str:
    """The fence that is open behind a line which has this mark."""
    if mark is None:
        return fence
    if not fence:
        return mark[1]
    return "" if mark[1][0] == fence[0] and len(mark[1]) >= len(fence) else fence


def _joined(blocks: list[list[_Line]]) -> Iterator[list[_Line]]:
    """Blocks of one section, joined to passages that are not too long. A block that is, is cut between its lines."""
    passage: list[_Line] = []
    size = 0
    for block in blocks:
        lines = [part for line in block for part in _cut(line)]
        length = sum(len(line.text) + 1 for line in lines)
        if passage and size + length < LONGEST:
            passage.append(_Line(0, ""))
            size += 1
        elif passage:
            yield passage
            passage, size = [], 0
        for line in lines:
            if passage and size + len(line.text) >= LONGEST:
                yield passage
                passage, size = [], 0
            passage.append(line)
            size += len(line.text) + 1
    if passage:
        yield passage


def _cut(line: _Line) -> Iterator[_Line]:
    """A line in parts that are not too long, cut between words where there are any."""
    text = line.text
    while len(text) > LONGEST:
        end = text.rfind(" ", 1, LONGEST) + 1 or LONGEST
        yield _Line(line.number, text[:end].rstrip())
        text = text[end:]
    yield _Line(line.number, text)
