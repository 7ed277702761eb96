"""Passages: documents cut at their own seams, each with its line and its headings."""

from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow_agents.passages import LONGEST, Markup, Piece, split


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
    assert all(0 < len(p.text) <= LONGEST for p in found)
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
