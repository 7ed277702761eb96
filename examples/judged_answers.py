"""Judge a question, improve it in a loop, look for an answer in three ways at once, let the best one win.

    python examples/judged_answers.py "How does a step wait for a human?"

The documents are the Markdown files of this repository. No language model takes part: a question is judged by its
words, an answer is a passage of the documents as it stands, and SQLite's full-text search finds it.
"""

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

from agentflow import (
    Context,
    Event,
    Resource,
    StartEvent,
    StopEvent,
    Workflow,
    draw_all_possible_flows,
    draw_most_recent_execution,
    step,
)

QUESTION = "How does a step wait for a human?"
EXAMPLE = "QUESTION="  # a document that asks is no answer
FEWEST_WORDS = 5
ROOT = Path(__file__).parents[1]


def words_of(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())


FILLER = frozenset(
    words_of("""
    a about all am an and any are as at be been but by can could did do does for from get had has have how i if in into
    is it its me my no not of on or our should so some than that the their them then there these they this those to us
    was we were what when where which who whose why will with would you your
    """)
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
        ranked = "SELECT * FROM passage WHERE passage MATCH ? ORDER BY rank, rowid LIMIT ?"
        return [Passage(*row) for row in self.db.execute(ranked, (" OR ".join(words_of(query)), top_k))]

    def nearest(self, word: str) -> list[str]:
        """The word itself where a passage has it, or else the one that was probably meant, if there is one."""
        return [word] if self.search(word, top_k=1) else get_close_matches(word, self.words, n=1, cutoff=0.75)

    def support(self, query: str, passage: Passage) -> float:
        """How much of a query a passage speaks of, from 0 to 1."""
        says = "SELECT 1 FROM passage WHERE passage MATCH ? AND source = ?"
        words = words_of(query)
        return sum(bool(self.db.execute(says, (word, passage.source)).fetchone()) for word in words) / len(words)


def passages_of(name: str, text: str) -> Iterator[Passage]:
    """Split a document into its paragraphs, list items, table rows and blocks of code."""
    heading, fenced, start = "", False, 0
    block: list[str] = []
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        fence = line.lstrip().startswith("```")
        if block and (fence or (not fenced and (not line.strip() or line.startswith(("#", "- ", "|"))))):
            passage = Passage(f"{name}:{start}", heading, "\n".join(block))
            if len(words_of(passage.text)) >= FEWEST_WORDS and EXAMPLE not in passage.text:
                yield passage
            block = []
        if fence:
            fenced = not fenced
        elif line.startswith("#") and not fenced:
            heading = line.strip("# ")
        elif line.strip() or fenced:
            start = start if block else number
            block.append(line)


def read_documents() -> Iterator[Index]:
    """A resource: opened when a step first asks for it, closed when the run ends."""
    paths = sorted([*ROOT.glob("*.md"), *ROOT.glob("[!.]*/*.md")])
    texts = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}
    with closing(sqlite3.connect(":memory:")) as db:
        yield Index(db, [passage for name, text in texts.items() for passage in passages_of(name, text)])


Documents = Annotated[Index, Resource(read_documents)]


class Question(StartEvent):
    query: str


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


class Answer(StopEvent):
    """Every response, the best one first."""

    responses: list[ResponseEvent]


class UnanswerableError(Exception):
    """Says why a question has no answer."""


class JudgeQuery(Workflow[Question, Answer]):
    most_rounds = 5

    @step
    async def judge_query(
        self, ev: Question | JudgeEvent, index: Documents
    ) -> BadQueryEvent | list[NaiveRAGEvent | HighTopKEvent | RerankEvent]:
        words = words_of(ev.query)
        if FILLER.intersection(words):
            return BadQueryEvent(query=ev.query, problem="wordy")
        if not words or any(word not in index.nearest(word) for word in words):
            return BadQueryEvent(query=ev.query, problem="unknown")
        if len(words) == 1:
            return BadQueryEvent(query=ev.query, problem="vague")
        return [NaiveRAGEvent(query=ev.query), HighTopKEvent(query=ev.query), RerankEvent(query=ev.query)]

    @step
    async def improve_query(self, ctx: Context, ev: BadQueryEvent, index: Documents) -> JudgeEvent:
        words = words_of(ev.query)
        match ev.problem:
            case "wordy":
                words = [word for word in words if word not in FILLER]
            case "unknown":
                words = [near for word in words for near in index.nearest(word)]
            case "vague":
                words += words_of(index.search(ev.query, top_k=1)[0].heading)
        if not words:
            raise UnanswerableError("no document has any of its words.")
        rounds = await ctx.get("rounds", default=0) + 1
        if rounds > self.most_rounds:
            raise UnanswerableError(f"it got no better in {self.most_rounds} rounds.")
        await ctx.set("rounds", rounds)
        print(f"    {ev.problem}: {ev.query!r} becomes {' '.join(words)!r}")
        return JudgeEvent(query=" ".join(words))

    @step
    async def naive_rag(self, ev: NaiveRAGEvent, index: Documents) -> ResponseEvent:
        """The passage that ranks first."""
        return ResponseEvent(query=ev.query, strategy="naive", passage=index.search(ev.query, top_k=1)[0])

    @step
    async def high_top_k(self, ev: HighTopKEvent, index: Documents) -> ResponseEvent:
        """Of many passages, the first of the section in which most of them stand."""
        found = index.search(ev.query, top_k=20)
        [(section, _)] = Counter(passage.heading for passage in found).most_common(1)
        best = next(passage for passage in found if passage.heading == section)
        return ResponseEvent(query=ev.query, strategy="high top k", passage=best)

    @step
    async def rerank(self, ev: RerankEvent, index: Documents) -> ResponseEvent:
        """Of a few passages, the one that has most of the words."""
        best = max(index.search(ev.query, top_k=5), key=lambda passage: index.support(ev.query, passage))
        return ResponseEvent(query=ev.query, strategy="rerank", passage=best)

    @step
    async def judge_response(self, ctx: Context, ev: ResponseEvent, index: Documents) -> Answer | None:
        """The best has most of the words and most of the votes."""
        responses = ctx.collect_events(ev, [ResponseEvent] * 3)
        if responses is None:
            return None
        votes = Counter(response.passage for response in responses)
        for response in responses:
            agreement = votes[response.passage] / len(responses)
            response.score = (index.support(ev.query, response.passage) + agreement) / 2
        return Answer(responses=sorted(responses, key=lambda response: -response.score))


def main(question: str, drawings: Path = ROOT / ".demo") -> None:
    if not words_of(question):
        raise UnanswerableError("there are no words in it.")
    workflow = JudgeQuery(verbose=True)
    answer = workflow.run_sync(query=question)
    best = answer.responses[0]
    print(f"\nThe judge picks {best.strategy}: {best.passage.source}, {best.passage.heading}.")
    print("No language model takes part; the passage, word for word:\n")
    print(indent(best.passage.text, "    "), end="\n\n")
    for response in answer.responses:
        print(f"    {response.score:.2f}  {response.strategy:10}  {response.passage.source}")
    drawings.mkdir(exist_ok=True)
    draw_all_possible_flows(workflow, filename=str(drawings / "all_flows.html"))
    draw_most_recent_execution(workflow, filename=str(drawings / "this_run.html"))
    print(f"\nDrawn, to be opened in a browser: {drawings.name}/all_flows.html, {drawings.name}/this_run.html")


if __name__ == "__main__":
    asked = " ".join(sys.argv[1:]) if len(sys.argv) > 1 else QUESTION
    try:
        main(asked)
    except UnanswerableError as error:
        sys.exit(f"No answer to {asked!r}: {error}")
