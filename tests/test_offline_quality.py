"""Real questions over real text: what the offline model quotes of the paragraph that it is given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest

from agentflow_llm import ChatMessage, OfflineModel

XQUAD = Path(__file__).parent / "fixtures" / "xquad" / "xquad-en-24-articles.json"


class Asked(NamedTuple):
    article: int
    paragraph: str
    question: str
    answers: tuple[str, ...]


@pytest.fixture(scope="module")
def asked() -> list[Asked]:
    return [
        Asked(number, paragraph["context"], qa["question"], tuple(answer["text"] for answer in qa["answers"]))
        for number, article in enumerate(json.loads(XQUAD.read_text(encoding="utf-8"))["data"])
        for paragraph in article["paragraphs"]
        for qa in paragraph["qas"]
    ]


async def quoted(paragraph: str, question: str) -> str:
    """The first line of what the model answers."""
    reply = await OfflineModel().chat([ChatMessage(role="user", content=f"{paragraph}\n\n{question}")])
    return reply.text.splitlines()[0]


async def test_the_sentence_that_it_quotes_first_holds_the_answer_78_times_in_100(asked: list[Asked]) -> None:
    quotations = [await quoted(one.paragraph, one.question) for one in asked]
    held = [any(answer in said for answer in one.answers) for one, said in zip(asked, quotations, strict=True)]
    assert len(held) == 612
    assert sum(held) / len(held) >= 0.78


async def test_of_a_paragraph_about_something_else_it_says_that_it_cannot_answer(asked: list[Asked]) -> None:
    strangers = [(one, asked[(at + len(asked) // 2) % len(asked)]) for at, one in enumerate(asked)]
    strangers = [(one, other) for one, other in strangers if one.article != other.article]
    admitted = [(await quoted(other.paragraph, one.question)).startswith("I cannot answer") for one, other in strangers]
    assert len(admitted) > 600
    assert sum(admitted) / len(admitted) >= 0.95
