"""The text of an HTML page as Markdown, so that its headings, lists and blocks of code stay what they are."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_UNSEEN = {"script", "style", "template", "noscript", "svg", "math", "iframe", "object", "canvas", "select"}
_MARKS = {"li": "-", **{f"h{level}": "#" * level for level in range(1, 7)}}
"""What a block begins with."""
_BLOCKS = {
    "address", "article", "aside", "blockquote", "body", "caption", "dd", "details", "dialog", "div", "dl", "dt",
    "fieldset", "figcaption", "figure", "footer", "form", "header", "hr", "html", "main", "nav", "ol", "p", "pre",
    "section", "summary", "table", "tbody", "tfoot", "thead", "tr", "ul", *_MARKS,
}  # fmt: skip
_CELLS = {"td", "th"}


def title_and_text(page: str) -> tuple[str, str]:
    """The title of a page, and all that it shows, as Markdown. Any text is a page."""
    reader = _Reader()
    end = page.rfind(">") + 1
    # behind the last ">" no tag is complete, and the parser would look for its end over and over
    reader.feed(page[:end] + page[end:].replace("<", "&lt;"))
    reader.close()
    reader.end_block()
    return reader.title, "\n\n".join(reader.blocks)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[str] = []
        self._titles: list[str] = []
        self._text: list[str] = []
        self._has_text = False
        """Has `_text` more than white space?"""
        self._mark = ""
        """What the present block is to begin with."""
        self._unseen: list[str] = []
        """The open elements, the outermost first, whose content is not shown; of equal ones the outermost alone."""
        self._in_title = False
        self._in_pre = 0

    @property
    def title(self) -> str:
        """What stands in the first title."""
        return " ".join("".join(self._titles).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "title":
            self._in_title = not (self._titles or self._unseen)
        elif tag in _UNSEEN:
            if tag not in self._unseen:
                self._unseen.append(tag)
        elif self._unseen:
            return
        elif tag == "br":
            self._text.append("\n")
        elif tag == "img":
            self._add(f" {dict(attrs).get('alt') or ''} ")
        elif tag in _CELLS and self._has_text:
            self._text.append(" | ")
        elif tag in _BLOCKS:
            self.end_block()
            self._in_pre += tag == "pre"
            self._mark = _MARKS.get(tag, self._mark)

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        elif tag in self._unseen:
            del self._unseen[self._unseen.index(tag) :]
        elif tag in _BLOCKS and not self._unseen:
            self.end_block()
            self._in_pre = max(self._in_pre - (tag == "pre"), 0)
            if tag in _MARKS:
                self._mark = ""

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self._titles.append(data)
        elif not self._unseen:
            self._add(data if self._in_pre else re.sub(r"\s+", " ", data))

    def _add(self, text: str) -> None:
        self._text.append(text)
        self._has_text = self._has_text or not text.isspace()

    def end_block(self) -> None:
        """Keep what was read since the last block."""
        text = "".join(self._text)
        self._text, self._has_text = [], False
        if not text.strip():
            return
        if self._in_pre:
            longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
            fence = "`" * max(longest + 1, 3)
            self.blocks.append(f"{fence}\n{text.strip(chr(10))}\n{fence}")
        else:
            lines = [" ".join(line.split()) for line in text.split("\n")]
            shown = (" " if self._mark else "\n").join(line for line in lines if line)
            self.blocks.append(f"{self._mark} {shown}" if self._mark else shown)
        self._mark = ""
