"""A document cut where it has its own seams: headings, paragraphs, blocks of code, lines, sentences, words."""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

from agentflow.errors import shown

from .documents import DocumentError
from .errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .documents import Markup

SIZE = 1_000
"""Characters that a piece has at most, unless something else is asked for."""

VERSION = 1
"""Of how documents are cut; what was cut by another version is cut anew."""

_HASHES = re.compile(r"(#{1,6})\s+(.*?)\s*#*\s*$")
_UNDERLINE = re.compile(r"""([=\-`:.'"~^_*+#])\1{2,}\s*$""")
_FENCE = re.compile(r"\s*(`{3,}|~{3,})")
_NO_TITLE = re.compile(r"\s|[-*+|>]\s|\|")
_SENTENCE_END = re.compile(r"[.!?\u2026][\"'\u201d\u2019)\]]*\s+|[\u3002\uff01\uff1f]\s*")


class Piece(NamedTuple):
    """A part of a document, and where it stands."""

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


def split(text: str, markup: Markup = "text", *, size: int = SIZE, overlap: int = 0) -> Iterator[Piece]:
    """The pieces of a document, in their order. No piece reaches beyond a heading; headings stand in none.

    - `size`: characters that a piece has at most.
    - `overlap`: characters of the piece before that a piece of the same section begins with, at most.

    Raises `DocumentError` where they make no sense.
    """
    _check(size, overlap)
    return _pieces(text, markup, size, overlap)


def semantic_split(text: str, markup: Markup = "text", *, size: int = SIZE, overlap: int = 0) -> Iterator[Piece]:
    """As `split`, by the library semantic-text-splitter: headings stand in the pieces, whatever the markup joins.

    It cuts fewer sentences where pieces are of less than 300 characters; questions are answered from its pieces as
    often as from those of `split`. Raises `MissingExtraError` where it is not installed.
    """
    _check(size, overlap)
    try:
        from semantic_text_splitter import MarkdownSplitter, TextSplitter  # noqa: PLC0415 because it is an extra
    except ImportError as error:
        raise MissingExtraError(
            "semantic_split() needs semantic-text-splitter. Run: pip install 'agentflow-otel[documents]'. "
            "split() needs nothing."
        ) from error
    kind = MarkdownSplitter if markup == "markdown" else TextSplitter
    return _placed(kind(size, overlap).chunk_indices(text), text, markup)


def _placed(chunks: Iterable[tuple[int, str]], text: str, markup: Markup) -> Iterator[Piece]:
    """Chunks behind their offsets in the text, with the line, section and heading of each."""
    seams = list(split(text, markup))
    lines = [piece.line for piece in seams]
    line = offset = 0
    for start, chunk in chunks:
        line += text.count("\n", min(offset, start), start) - text.count("\n", start, offset)
        offset = start
        place = bisect_right(lines, line + 1 + chunk.count("\n")) - 1
        here = seams[place] if place >= 0 else None
        yield Piece(line + 1, here.section if here else 0, here.heading if here else "", chunk)


def _check(size: object, overlap: object) -> None:
    for name, value in (("size", size), ("overlap", overlap)):
        if isinstance(value, bool) or not isinstance(value, int) or value < (name == "size"):
            raise DocumentError(f"split({name}={shown(value)}): it is a whole number of characters.")
    if isinstance(size, int) and isinstance(overlap, int) and overlap > size // 2:
        raise DocumentError(f"split(size={size}, overlap={overlap}): overlap is half of size at most, {size // 2}.")


def _pieces(text: str, markup: Markup, size: int, overlap: int) -> Iterator[Piece]:
    reader = _Reader(markup, size, overlap)
    for number, line in enumerate(_body(text, markup), start=1):
        yield from reader.read(_Line(number, line))
    yield from reader.end_section()


class _Reader:
    """Reads a document line by line."""

    def __init__(self, markup: Markup, size: int, overlap: int) -> None:
        self._markup = markup
        self._size = size
        self._overlap = overlap
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
        for lines in _overlapping(_joined(blocks, self._size - self._overlap), self._overlap):
            text = "\n".join(line.text for line in lines)
            if text.strip():
                yield Piece(lines[0].number, self._section, heading, text)


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


def _joined(blocks: list[list[_Line]], most: int) -> Iterator[list[_Line]]:
    """Blocks of one section, joined where they are short enough. One that is too long is cut between its lines."""
    piece: list[_Line] = []
    size = 0
    for block in blocks:
        lines = [part for line in block for part in _cut(line, most)]
        length = sum(len(line.text) + 1 for line in lines)
        if piece and size + length <= most:
            piece.append(_Line(0, ""))
            size += 1
        elif piece:
            yield piece
            piece, size = [], 0
        for line in lines:
            if piece and size + len(line.text) > most:
                yield piece
                piece, size = [], 0
            piece.append(line)
            size += len(line.text) + 1
    if piece:
        yield piece


def _cut(line: _Line, most: int) -> Iterator[_Line]:
    """A line in parts that are not too long: cut between sentences, else between words, else anywhere."""
    text = line.text
    if len(text) <= most:
        yield line
        return
    while len(text) > most:
        sentences = [end.end() for end in _SENTENCE_END.finditer(text, 0, most + 1) if most // 2 < end.end()]
        end = sentences[-1] if sentences else text.rfind(" ", 1, most + 1) + 1 or most
        if part := text[: min(end, most)].rstrip():
            yield _Line(line.number, part)
        text = text[min(end, most) :]
    if text.strip():
        yield _Line(line.number, text)


def _overlapping(pieces: Iterable[list[_Line]], most: int) -> Iterator[list[_Line]]:
    """Each piece, behind the end of the one before it."""
    before: list[_Line] = []
    for lines in pieces:
        end = _end(before, most)
        if end and end[-1].number == lines[0].number:  # both are of one line, which was cut
            yield [*end[:-1], _Line(lines[0].number, f"{end[-1].text} {lines[0].text}"), *lines[1:]]
        else:
            yield [*end, *lines]
        before = lines


def _end(lines: list[_Line], most: int) -> list[_Line]:
    """The last lines, so many characters with their line breaks; or of the last line the last sentences or words."""
    room = most
    start = len(lines)
    while start and len(lines[start - 1].text) < room:
        start -= 1
        room -= len(lines[start].text) + 1
    while start < len(lines) and not lines[start].text:
        start += 1
    if start < len(lines) or not lines or most < 2:  # noqa: PLR2004 because a character and its line break are 2
        return lines[start:]
    text = lines[-1].text[1 - most :]
    seam = _SENTENCE_END.search(text) or re.search(r"\s+", text)
    rest = text[seam.end() :].rstrip() if seam else ""
    return [_Line(lines[-1].number, rest)] if rest else []
