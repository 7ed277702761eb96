"""Citations: which marks are read, what each is cited for, and when it holds."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import BaseModel

from agentflow_agents.citations import Citation, citations_in, says, supports, without_marks
from agentflow_agents.numerals import numbers
from agentflow_llm import Passage
from agentflow_llm.reading import sentences

XQUAD = Path(__file__).parent / "fixtures" / "xquad" / "xquad-en-24-articles.json"
CATS = Passage(
    "a:1", "A cat sleeps sixteen hours a day. It was found by John Smith in London in 1754.", 1, {"source": "a.md"}
)
COWS = Passage("b:1", "Cows give milk twice a day. Their number rose to 2 million in 1990.", 1)
DOGS = Passage("c:1", "Dogs bark at night, and 300 of them were counted.", 1)
PASSAGES = [CATS, COWS, DOGS]


@lru_cache
def paragraphs() -> list[Passage]:
    articles = json.loads(XQUAD.read_text(encoding="utf-8"))["data"]
    texts = [paragraph["context"] for article in articles for paragraph in article["paragraphs"]]
    return [Passage(str(number), text, 1) for number, text in enumerate(texts)]


def read(answer: str) -> list[tuple[int, str, bool]]:
    return [(one.number, one.claim, one.holds) for one in citations_in(answer, PASSAGES)]


def held(answer: str) -> list[tuple[int, bool]]:
    return [(number, holds) for number, _, holds in read(answer)]


def test_citation_says_what_is_claimed_and_where_it_is_from() -> None:
    assert citations_in("A cat sleeps 16 hours a day [1]. Cows bark [2].", PASSAGES) == [
        Citation(1, "a:1", "a.md", "A cat sleeps 16 hours a day.", holds=True),
        Citation(2, "b:1", "b:1", "Cows bark.", holds=False),
    ]


@pytest.mark.parametrize(
    "mark",
    [
        "[3]",
        "[ 3 ]",
        "[^3]",
        "[#3]",
        "[Passage 3]",
        "[source 3]",
        "(Passage 3)",
        "\u30103\u3011",
        "\u30103\u2020dogs.md\u3011",
        "[3](c.md)",
    ],
)
def test_ways_of_writing_a_number(mark: str) -> None:
    assert read(f"Dogs bark at night {mark}.") == [(3, "Dogs bark at night.", True)]


@pytest.mark.parametrize(
    "marks", ["[1][2][3]", "[1, 2, 3]", "[1; 2; 3]", "[1-3]", "[1\u20133]", "[1], [2], [3]", "[1, 2 and 3]", "[1 to 3]"]
)
def test_ways_of_writing_several(marks: str) -> None:
    claim = "Cats sleep, cows give milk and dogs bark"
    assert read(f"{claim} {marks}.") == [(1, f"{claim}.", True), (2, f"{claim}.", True), (3, f"{claim}.", True)]


def test_range_beyond_the_passages_is_named_once() -> None:
    assert held("Dogs bark [3-900]. Dogs bark [0].") == [(3, True), (900, False), (0, False)]


@pytest.mark.parametrize(
    "text",
    [
        "Dogs bark at night.",
        "Call `dogs[3]` at night.",
        "```\ndogs[3]\n```",
        "In [1990] dogs barked [sic].",
        "The interval [0.5, 1]",
        "Sources:\n[1] a.md\n[2] b.md\n",
        "**References**\n\n1. [1] a.md\n2. [2] b.md\n",
    ],
)
def test_what_is_no_citation(text: str) -> None:
    assert read(text) == []


@pytest.mark.parametrize(
    ("answer", "claims"),
    [
        ("Cats sleep. [1] Cows give milk.[2]", [(1, "Cats sleep."), (2, "Cows give milk.")]),
        ("Cats sleep. [1] says so of London.", [(1, "says so of London.")]),
        ("Cats sleep [1], and dogs bark [3].", [(1, "Cats sleep"), (3, "and dogs bark.")]),
        ("According to [1], cats sleep.", [(1, "According to, cats sleep.")]),
        ("According to [1], cats sleep, and in [3] dogs bark.", [(1, "cats sleep, and in"), (3, "dogs bark.")]),
        ("Cats sleep.\nSee [1].", [(1, "Cats sleep.")]),
        ("- Cats sleep [1]\n- Dogs bark [3]\n", [(1, "Cats sleep"), (3, "Dogs bark")]),
        ("| cats | dogs |\n|---|---|\n| sleep [1] | bark [3] |", [(1, "sleep"), (3, "- bark")]),
        ("Yes [1].", [(1, "Yes.")]),
        ("[1]", [(1, "")]),
    ],
)
def test_claim_is_the_sentence_or_the_part_of_it_that_carries_the_number(
    answer: str, claims: list[tuple[int, str]]
) -> None:
    assert [(number, claim) for number, claim, _ in read(answer)] == claims


@pytest.mark.parametrize(
    ("claim", "holds"),
    [
        ("A cat sleeps 16 hours", True),
        ("A cat sleeps twelve hours", False),
        ("There were 2,000,000 cows in 1990, their number rose", True),
        ("The number of cows rose to two million", True),
        ("The number of cows rose to 2", False),
        ("In London it was found by John Smith", True),
        ("In London it was found by Peter Smith", False),
        ("In London it was found by JOHN SMITH", True),
        ("It was found", True),
        ("A cat never sleeps", False),
        ("Cows don't give milk", False),
        ("it was found by John Smit", False),
        ("Yes", False),
        ("One was found in London", True),
        ("", False),
    ],
)
def test_passage_supports_a_claim(claim: str, holds: bool) -> None:  # noqa: FBT001 because it is a column of a table
    assert (supports(claim, CATS) or supports(claim, COWS)) is holds
    assert not supports(claim)


def test_title_and_heading_of_a_passage_count() -> None:
    passage = Passage("1", "It has two modes.", 1, {"heading": "Install > The installer", "title": "Handbook"})
    assert supports("The installer has two modes", passage)
    assert not supports("The installer has two modes", Passage("1", "It has two modes of.", 1, {"n": "installer"}))


def test_passages_cited_together_have_to_support_the_claim_together_each_in_part() -> None:
    assert held("Cats sleep and dogs bark at night [1][3].") == [(1, True), (3, True)]
    assert held("Cats sleep and dogs bark at night [1].") == [(1, False)]
    assert held("A cat sleeps sixteen hours [1, 3].") == [(1, True), (3, False)]


def test_number_of_a_note_that_was_copied_with_its_words_is_no_citation() -> None:
    noted = Passage("n", "A cat sleeps sixteen hours.[2] Dogs bark.[17]", 1)
    answer = "A cat sleeps sixteen hours.[2] [1] Dogs bark [17][1]. Cows fly [2]. A cat sleeps [3][1]."
    assert [(one.number, one.holds) for one in citations_in(answer, [noted, COWS, DOGS])] == [
        (1, True),
        (1, True),
        (2, False),
        (3, False),
        (1, True),
    ]


def test_chinese_is_compared_by_pairs_of_signs() -> None:
    passage = Passage("1", "\u6211\u559c\u6b22\u5728\u5317\u4eac\u5403\u70e4\u9e2d\u3002", 1)
    assert supports("\u5728\u5317\u4eac\u5403\u70e4\u9e2d", passage)
    assert supports("\u559c\u6b22\u5728\u5317\u4eac\u5403\u9e2d", passage)
    assert not supports("\u4ed6\u4eec\u4f4f\u5728\u4e0a\u6d77\u7684\u65b0\u623f\u5b50\u91cc", passage)


@given(st.data())
def test_literal_quotation_holds(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(paragraphs()) - 1))
    quoted = data.draw(st.sampled_from([s for s in sentences(paragraphs()[at].text) if re.search(r"\w", s)]))
    [citation] = citations_in(f"{quoted} [1]", [paragraphs()[at]])
    assert citation.holds


@given(st.data())
def test_claim_with_a_changed_number_does_not_hold(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(paragraphs()) - 1))
    passage = paragraphs()[at]
    counted = [s for s in sentences(passage.text) if re.search(r"(?<![\w.,])\d+(?![\w.,])", s)]
    assume(counted)
    quoted = data.draw(st.sampled_from(counted))
    other = data.draw(st.integers(2, 3000).map(str).filter(lambda number: number not in numbers(passage.text)))
    changed = re.sub(r"(?<![\w.,])\d+(?![\w.,])", other, quoted, count=1)
    assert not supports(changed, passage)


@given(st.text(alphabet="ab [](),;-1239.\n`|#\u3010\u3011^", max_size=60))
def test_any_text_can_be_read(answer: str) -> None:
    for citation in citations_in(answer, PASSAGES):
        assert citation.claim == without_marks(citation.claim)
        assert bool(citation.passage_id) is (1 <= citation.number <= len(PASSAGES))
        assert not (citation.holds and not citation.passage_id)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2,000,000 or 2 million or two million", {"2000000"}),
        ("twenty-five, 25", {"25"}),
        ("12, 13 and fourteen", {"12", "13", "14"}),
        ("1,5 km, 1.50 miles", {"1.5"}),
        ("1.000.000 Euro", {"1000000"}),
        ("the 19th century, the 1990s", {"19", "1990"}),
        ("version 3.11.2", {"3.11.2"}),
        ("a hundred of them", {"100"}),
        ("\u0663 and \uff13", {"3"}),
        ("none at all", set[str]()),
    ],
)
def test_numbers_are_the_same_however_they_are_written(text: str, found: set[str]) -> None:
    assert numbers(text) == found


@pytest.mark.parametrize(
    ("answer", "sentence", "said"),
    [
        ("Sorry. **the documents do not answer this**", "The documents do not answer this.", True),
        ("_The documents do not answer this!_", "The documents do not answer this.", True),
        ("The documents answer this.", "The documents do not answer this.", False),
        ("Im Januar.", "Ja", False),
        ("文件中没有答案。", "没有答案", True),
        ("Anything", "...", False),
        ("", "", False),
    ],
)
def test_sentence_is_known_again_in_an_answer(answer: str, sentence: str, *, said: bool) -> None:
    assert says(answer, sentence) is said


def test_all_texts_of_an_object_are_looked_through() -> None:
    class Row(BaseModel):
        told: str
        years: int

    class Table(BaseModel):
        rows: list[Row]
        notes: dict[str, str]

    answer = Table(rows=[Row(told="A cow has four stomachs [1].", years=3)], notes={"x": "A cow flies [1]."})
    found = citations_in(answer, [Passage("cows", "A cow has four stomachs.", 1.0, {})])
    assert [(one.claim, one.holds) for one in found] == [("A cow has four stomachs.", True), ("A cow flies.", False)]
