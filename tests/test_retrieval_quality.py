"""Real questions over real text: what is found must be as good as plain BM25, and no worse with a weak embedder."""

from __future__ import annotations

import json
import sqlite3
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from agentflow_llm.documents import Document
from agentflow_llm.hash_embedder import HashEmbedder
from agentflow_llm.index import VectorStoreIndex
from agentflow_llm.splitting import split

XQUAD = Path(__file__).parent / "fixtures" / "xquad" / "xquad-en-24-articles.json"
uncut = partial(split, size=10_000)
"""Each paragraph is a passage."""


class Found(NamedTuple):
    """Questions whose paragraph was found first, and within five."""

    first: int
    five: int


class Corpus(NamedTuple):
    paragraphs: list[str]
    questions: list[tuple[str, int]]
    """Each with the number of the paragraph that it is about."""

    def found(self, answers: list[list[int]]) -> Found:
        pairs = [(right, answer) for (_, right), answer in zip(self.questions, answers, strict=True)]
        return Found(sum(right in a[:1] for right, a in pairs), sum(right in a[:5] for right, a in pairs))


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    corpus = Corpus([], [])
    for article in json.loads(XQUAD.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            corpus.questions.extend((asked["question"], len(corpus.paragraphs)) for asked in paragraph["qas"])
            corpus.paragraphs.append(paragraph["context"])
    return corpus


@pytest.fixture(scope="module")
def plain(corpus: Corpus) -> Found:
    """What one gets by hand."""
    db = sqlite3.connect(":memory:")
    db.execute("CREATE VIRTUAL TABLE paragraph USING fts5(text, tokenize = 'porter unicode61')")
    db.executemany("INSERT INTO paragraph (rowid, text) VALUES (?, ?)", enumerate(corpus.paragraphs))
    statement = "SELECT rowid FROM paragraph WHERE paragraph MATCH ? ORDER BY rank LIMIT 5"
    answers: list[list[int]] = []
    for question, _ in corpus.questions:
        words = "".join(char if char.isalnum() else " " for char in question).split()
        query = " OR ".join(f'"{word}"' for word in words)
        answers.append([ident for (ident,) in db.execute(statement, (query,))])
    db.close()
    return corpus.found(answers)


async def found(corpus: Corpus, index: VectorStoreIndex) -> Found:
    index.add(Document(text, str(number)) for number, text in enumerate(corpus.paragraphs))
    retriever = index.as_retriever(5)
    answers = [
        [int(passage.metadata["document"]) for passage in await retriever.aretrieve(question)]
        for question, _ in corpus.questions
    ]
    return corpus.found(answers)


async def test_words_alone_find_what_plain_bm25_finds_and_a_weak_embedder_takes_nothing_away(
    corpus: Corpus, plain: Found
) -> None:
    assert len(corpus.questions) == 612
    assert plain == Found(569, 603)
    by_words = await found(corpus, VectorStoreIndex(splitter=uncut))
    assert by_words.first >= plain.first
    assert by_words.five >= plain.five
    hybrid = await found(corpus, VectorStoreIndex(HashEmbedder(), splitter=uncut))
    assert hybrid.first >= by_words.first
    assert hybrid.five >= by_words.five
