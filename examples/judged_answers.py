"""Judge a question, improve it in a loop, look for an answer in three ways at once, let the best one win.

    make demo QUESTION="How is a failed step tried again?"

The documents are the Markdown files of this repository. No language model takes part: a question is judged by its
words, an answer is a passage of the documents as it stands, found by SQLite's full-text search.
"""

import asyncio
import re
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from difflib import get_close_matches
from pathlib import Path
from textwrap import indent
from typing import Annotated, Literal, NamedTuple

from agentflow import Context, Event, Resource, StartEvent, StopEvent, Workflow, step
from agentflow import draw_all_possible_flows, draw_most_recent_execution

QUESTION = "Where do I change what an error message says?"
ROOT = Path(__file__).parents[1]
FILLER = frozenset(
    "a about all an and any are as at be by can do does for from get has have how i if in into is it its me my no not "
    "of on or our should some that the their them there they this to us we what when where which who why will with "
    "would you your".split()
)


class Passage(NamedTuple):
    source: str
    heading: str
    text: str


class Index:
    """Passages, ranked by the words that they share with a query."""

    def __init__(self, db: sqlite3.Connection, passages: list[Passage]) -> None:
        self.db = db
        self.words = sorted({word for passage in passages for word in words_of(passage.text)} - FILLER)
        db.execute("CREATE VIRTUAL TABLE passage USING fts5(source UNINDEXED, heading, text, tokenize = 'porter')")
        db.executemany("INSERT INTO passage VALUES (?, ?, ?)", passages)

    def search(self, query: str, top_k: int) -> list[Passage]:
        found = "SELECT * FROM passage WHERE passage MATCH ? ORDER BY rank, rowid LIMIT ?"
        return [Passage(*row) for row in self.db.execute(found, (" OR ".join(words_of(query)), top_k))]

    def support(self, query: str, passage: Passage) -> float:
        """How many of the query's words the passage has, from 0 to 1."""
        has = "SELECT count(*) FROM passage WHERE passage MATCH ? AND source = ?"
        words = words_of(query)
        return sum(self.db.execute(has, (word, passage.source)).fetchone()[0] for word in words) / len(words)


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def passages_of(path: Path) -> Iterator[Passage]:
    """Split a document into its paragraphs, list items, table rows and blocks of code."""
    heading, fenced, start = "", False, 0
    block: list[str] = []
    for number, line in enumerate([*path.read_text(encoding="utf-8").splitlines(), ""], start=1):
        fence = line.lstrip().startswith("```")
        if block and not fenced and (fence or not line.strip() or line.startswith(("#", "- ", "|"))):
            yield Passage(f"{path.relative_to(ROOT).as_posix()}:{start}", heading, "\n".join(block))
            block = []
        if fence:
            fenced = not fenced
        elif line.startswith("#") and not fenced:
            heading = line.strip("# ")
        elif line.strip():
            start = start if block else number
            block.append(line)


def read_documents() -> Iterator[Index]:
    """Opened when a step first asks for it, closed when the run ends."""
    documents = sorted(path for path in [*ROOT.glob("*.md"), *ROOT.glob("[!.]*/*.md")])
    with closing(sqlite3.connect(":memory:")) as db:
        yield Index(db, [passage for path in documents for passage in passages_of(path)])


Documents = Annotated[Index, Resource(read_documents)]


class JudgeEvent(Event):
    query: str


class BadQueryEvent(Event):
    query: str
    problem: Literal["wordy", "unknown", "vague"]


class NaiveRAGEvent(Event):
    query: str


class HighTopKEvent(Event):
    query: str


class RerankEvent(Event):
    query: str


class ResponseEvent(Event):
    query: str
    strategy: str
    passage: Passage
    score: float = 0


class Question(StartEvent):
    query: str


class Answer(StopEvent):
    responses: list[ResponseEvent]


class UnanswerableError(Exception):
    pass


class JudgeQuery(Workflow[Question, Answer]):
    """The picture of the tutorial, without a model."""

    @step
    async def judge_query(
        self, ev: Question | JudgeEvent, index: Documents
    ) -> BadQueryEvent | list[NaiveRAGEvent | HighTopKEvent | RerankEvent]:
        words = words_of(ev.query)
        if FILLER.intersection(words):
            return BadQueryEvent(query=ev.query, problem="wordy")
        if not all(index.search(word, top_k=1) for word in words):
            return BadQueryEvent(query=ev.query, problem="unknown")
        if len(words) < 2:
            return BadQueryEvent(query=ev.query, problem="vague")
        return [NaiveRAGEvent(query=ev.query), HighTopKEvent(query=ev.query), RerankEvent(query=ev.query)]

    @step
    async def improve_query(self, ev: BadQueryEvent, index: Documents) -> JudgeEvent:
        """Each round removes the one problem that was found, so the loop ends."""
        words = words_of(ev.query)
        if ev.problem == "wordy":
            better = [word for word in words if word not in FILLER]
        elif ev.problem == "unknown":
            near = [index.search(word, 1) and [word] or get_close_matches(word, index.words, 1, 0.75) for word in words]
            better = [word for words in near for word in words]
        else:
            better = [*words, *words_of(index.search(ev.query, top_k=1)[0].heading)]
        if not better:
            raise UnanswerableError("the documents have none of its words")
        print(f"    {ev.problem}: {ev.query!r} becomes {' '.join(better)!r}")
        return JudgeEvent(query=" ".join(better))

    @step
    async def naive_rag(self, ev: NaiveRAGEvent, index: Documents) -> ResponseEvent:
        """The passage that ranks first."""
        return ResponseEvent(query=ev.query, strategy="naive", passage=index.search(ev.query, top_k=1)[0])

    @step
    async def high_top_k(self, ev: HighTopKEvent, index: Documents) -> ResponseEvent:
        """The first passage of the section that most of many passages stand in."""
        found = index.search(ev.query, top_k=20)
        [(heading, _)] = Counter(passage.heading for passage in found).most_common(1)
        best = next(passage for passage in found if passage.heading == heading)
        return ResponseEvent(query=ev.query, strategy="high top k", passage=best)

    @step
    async def rerank(self, ev: RerankEvent, index: Documents) -> ResponseEvent:
        """Of ten passages the one that has most of the words."""
        best = max(index.search(ev.query, top_k=10), key=lambda passage: index.support(ev.query, passage))
        return ResponseEvent(query=ev.query, strategy="rerank", passage=best)

    @step
    async def judge_response(self, ctx: Context, ev: ResponseEvent, index: Documents) -> Answer | None:
        """What has most of the words and most of the votes."""
        responses = ctx.collect_events(ev, [ResponseEvent] * 3)
        if responses is None:
            return None
        votes = Counter(response.passage for response in responses)
        for response in responses:
            share = votes[response.passage] / len(responses)
            response.score = (index.support(ev.query, response.passage) + share) / 2
        return Answer(responses=sorted(responses, key=lambda response: -response.score))


async def main(question: str) -> None:
    workflow = JudgeQuery(verbose=True)
    answer = await workflow.run(query=question)
    best, *_ = answer.responses
    print(f"\n{best.passage.source}, {best.passage.heading}:\n\n{indent(best.passage.text, '    ')}\n")
    for response in answer.responses:
        print(f"{response.score:.2f}  {response.strategy:12}{response.passage.source}")


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:]) or QUESTION))
