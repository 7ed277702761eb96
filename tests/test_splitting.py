"""Splitting: documents cut at their own seams, each piece with its line and its headings."""

from __future__ import annotations

import re
import sys
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow_llm.documents import DocumentError
from agentflow_llm.errors import MissingExtraError
from agentflow_llm.splitting import SIZE, Piece, semantic_split, split

if TYPE_CHECKING:
    from agentflow_llm.documents import Markup


def pieces(text: str, markup: Markup = "markdown") -> list[Piece]:
    return list(split(dedent(text), markup))


def test_section_is_a_passage_with_the_headings_above_it() -> None:
    found = pieces("""\
        # Install

        First this.

        - then
        - that

        ## On a server ##

        Other things.

        # Use
        It works.
        """)
    assert found == [
        Piece(3, 1, "Install", "First this.\n\n- then\n- that"),
        Piece(10, 2, "Install > On a server", "Other things."),
        Piece(13, 3, "Use", "It works."),
    ]


def test_underlined_headings_are_read() -> None:
    text = "Title\n=====\n\ntext\n\nSub\n---\n\nmore\n"
    assert [(p.line, p.heading) for p in pieces(text)] == [(4, "Title"), (9, "Title > Sub")]


def test_levels_of_restructured_text_are_those_of_their_first_use() -> None:
    text = "====\nTop\n====\n\na\n\nOne\n~~~\n\nb\n\nDeep\n----\n\nc\n\nTwo\n~~~\n\nd\n\n-----\n\ne\n"
    assert [(p.heading, p.text) for p in pieces(text, "rst")] == [
        ("Top", "a"),
        ("Top > One", "b"),
        ("Top > One > Deep", "c"),
        ("Top > Two", "d\n\ne"),
    ]


def test_plain_text_has_no_headings() -> None:
    assert pieces("# not\n\nTitle\n=====\n", "text") == [Piece(1, 0, "", "# not\n\nTitle\n=====")]


def test_code_is_no_heading_and_stays_together() -> None:
    text = "# A\n\n```sh\n# comment\n\nrun\n```\n~~~~\n```\n# still code\n~~~~\n\nb\n"
    assert pieces(text) == [Piece(3, 1, "A", text.removeprefix("# A\n\n").strip())]


def test_rule_and_table_are_no_headings() -> None:
    text = "para one\npara two\n---\n\n| a |\n|---|\n\n- item\n---\n"
    assert {p.heading for p in pieces(text)} == {""}


def test_front_matter_is_left_out_and_lines_keep_their_numbers() -> None:
    assert pieces("---\ntitle: x\n---\n\ntext\n") == [Piece(5, 0, "", "text")]
    assert pieces("---\ntext\n")[0].line == 1


def test_long_section_is_cut_between_paragraphs() -> None:
    paragraphs = [f"{n} " + "word " * 60 for n in range(8)]
    found = pieces("\n\n".join(paragraphs))
    assert len(found) > 1
    assert [p.line for p in found] == [1, 7, 13]
    assert "\n\n".join(p.text for p in found) == "\n\n".join(paragraphs)


def test_long_line_is_cut_between_words() -> None:
    found = pieces("word " * 1_000)
    assert {p.line for p in found} == {1}
    assert all(p.text.startswith("word") and p.text.endswith("word") for p in found[:-1])


def test_document_without_text_has_no_passages() -> None:
    assert pieces("") == pieces("\n \n") == pieces("# Only a heading\n") == []


markdown = st.lists(
    st.sampled_from(
        ["# a", "## b", "text", "", "```", "~~~~", "---", "===", "- item", "| t |", "x" * 1_500, "y " * 700]
    )
    | st.text(max_size=20),
    max_size=40,
).map("\n".join)


@given(markdown, st.sampled_from(["markdown", "rst", "text"]))
def test_nothing_is_too_long_nor_out_of_order(text: str, markup: Markup) -> None:
    found = list(split(text, markup))
    assert all(0 < len(p.text) <= SIZE for p in found)
    assert [(p.line, p.section) for p in found] == sorted((p.line, p.section) for p in found)
    lines = text.split("\n")
    assert all(p.text.split("\n")[0].strip() in lines[p.line - 1] for p in found)


@given(markdown)
def test_no_word_of_a_plain_text_is_lost(text: str) -> None:
    assert "".join("".join(p.text.split()) for p in split(text, "text")) == "".join(text.split())


@pytest.mark.parametrize("markup", ["markdown", "rst"])
def test_headings_are_where_words_of_documents_with_headings_go(markup: Markup) -> None:
    [found] = split("Title of it\n===========\nbody", markup)
    assert (found.heading, found.text) == ("Title of it", "body")


sizes = st.integers(1, 60)


@given(markdown, st.sampled_from(["markdown", "rst", "text"]), sizes)
def test_no_piece_is_longer_than_asked(text: str, markup: Markup, size: int) -> None:
    assert all(0 < len(piece.text) <= size for piece in split(text, markup, size=size, overlap=size // 3))


@given(st.text(alphabet="ab.! \n", max_size=300) | markdown, sizes)
def test_nothing_is_lost_but_white_space_whatever_the_size(text: str, size: int) -> None:
    assert "".join("".join(piece.text.split()) for piece in split(text, size=size)) == "".join(text.split())


@given(st.text(alphabet="abcd.! \n", max_size=300), sizes, st.integers(0, 30))
def test_overlapping_pieces_hold_everything_in_order_and_begin_with_the_end_of_the_one_before(
    pattern: str, size: int, overlap: int
) -> None:
    # each letter is another one, so that it is seen where a piece begins
    text = "".join(chr(0x4E00 + at) if char.isalpha() else char for at, char in enumerate(pattern))
    text = re.sub(r"(?<![\u4e00-\u9fff])[.!]", "", text)  # a mark stands behind a letter, so none is like its neighbour
    overlap = min(overlap, size // 2)
    bare = ["".join(piece.text.split()) for piece in split(text, size=size, overlap=overlap)]
    everything, at = "".join(text.split()), 0
    for piece in bare:
        # a piece that is a mark alone is the one that stands there, not an equal one before it
        start = next(start for start in range(at, max(at - overlap, 0) - 1, -1) if everything.startswith(piece, start))
        at = start + len(piece)
    assert at == len(everything)


def test_piece_begins_with_the_last_sentences_of_the_one_before() -> None:
    text = "One is short. Two is short. Three is short. Four is short. Five is short."
    assert [piece.text for piece in split(text, size=50, overlap=17)] == [
        "One is short. Two is short.",
        "Two is short. Three is short. Four is short.",
        "Four is short. Five is short.",
    ]


def test_piece_begins_with_the_last_lines_of_the_one_before_but_not_beyond_a_heading() -> None:
    text = "# A\naaa\nbbb\nccc\nddd\n# B\neee\n"
    assert [(p.line, p.text) for p in split(text, "markdown", size=12, overlap=4)] == [
        (2, "aaa\nbbb"),
        (3, "bbb\nccc\nddd"),
        (7, "eee"),
    ]


def test_long_line_is_cut_between_sentences_where_that_leaves_no_small_rest() -> None:
    text = "A sentence that is long enough. Is this one as well? Oh. " + "word " * 8
    assert [piece.text for piece in split(text, size=40)] == [
        "A sentence that is long enough.",
        "Is this one as well? Oh.",
        "word word word word word word word word ",
    ]


@pytest.mark.parametrize(
    ("size", "overlap", "message"),
    [
        (0, 0, r"split\(size=0\): it is a whole number"),
        (2.5, 0, r"split\(size=2.5\)"),
        (True, 0, r"split\(size=True\)"),
        (10, -1, r"split\(overlap=-1\)"),
        (10, 6, r"overlap is half of size at most, 5"),
    ],
)
def test_sizes_that_make_no_sense_are_refused_at_once(size: Any, overlap: Any, message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        split("text", size=size, overlap=overlap)


def test_semantic_splitter_gives_the_same_kind_of_pieces() -> None:
    text = "# Boats\n\nA boat floats. It has sails.\n\n## Sails\n\nThe wind fills a sail.\n"
    found = list(semantic_split(text, "markdown", size=40))
    assert [(piece.line, piece.heading) for piece in found] == [(1, "Boats"), (5, "Boats > Sails")]
    assert "".join(" ".join(piece.text for piece in found).split()) == "".join(text.split())
    assert list(semantic_split("", "text")) == []


def test_semantic_splitter_that_is_not_installed_is_an_error_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "semantic_text_splitter", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'agentflow-otel\[documents\]'"):
        semantic_split("text")


@given(markdown, st.sampled_from(["markdown", "rst", "text"]), st.integers(2, 60))
def test_pieces_of_the_semantic_splitter_are_no_longer_than_asked_and_lose_nothing(
    text: str, markup: Markup, size: int
) -> None:
    found = list(semantic_split(text, markup, size=size))
    assert all(len(piece.text) <= size for piece in found)
    assert "".join("".join(piece.text.split()) for piece in found) == "".join(text.split())
