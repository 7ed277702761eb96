"""Judge a question, improve it in a loop, answer it in three ways at once, and let a judge pick the best answer.

    python examples/judged_answers.py "Wo discoverd oxigen?"

    Question ─► judge_query ─┬─► NaiveRAGEvent ──► naive_rag ──┬─► ResponseEvent ─► judge_response ─► Answer
                  ▲      │   ├─► HighTopKEvent ──► high_top_k ─┤
            JudgeEvent   ▼   └─► RerankEvent ────► rerank ─────┘
              improve_query

A question is bad while it has words that the documents do not have: each round puts one right, or leaves it out.
"""

import asyncio
import json
import sys
from difflib import get_close_matches
from pathlib import Path
from textwrap import shorten
from typing import Annotated

from agentflow import Context, Event, Resource, StartEvent, StopEvent, Workflow, step
from agentflow_llm import ChatMessage, ChatModel, Document, HashEmbedder, OfflineModel, Passage, VectorStoreIndex
from agentflow_llm.reading import stem, stems, words

XQUAD = Path(__file__).parents[1] / "tests" / "fixtures" / "xquad" / "xquad-en-24-articles.json"
QUESTION = "Which railways serve Newcastel, and how many universitys does it have?"


class Library:
    def __init__(self, texts: list[str]) -> None:
        self.index = VectorStoreIndex.from_documents([Document(text=text) for text in texts], HashEmbedder())
        self.words = sorted({word for text in texts for word in words(text.lower())})
        self.stems = frozenset(map(stem, self.words))

    async def find(self, query: str, top_k: int) -> list[Passage]:
        return await self.index.as_retriever(top_k).aretrieve(query)


def read_library() -> Library:
    """Your own documents go here: the texts of load("folder").documents."""
    articles = json.loads(XQUAD.read_text(encoding="utf-8"))["data"]
    return Library([paragraph["context"] for article in articles for paragraph in article["paragraphs"]])


Documents = Annotated[Library, Resource(read_library)]
Model = Annotated[ChatModel, Resource(OfflineModel)]  # or Resource(lambda: OpenAI("gpt-4o-mini"))


class Question(StartEvent):
    query: str


class JudgeEvent(Event):
    query: str


class BadQueryEvent(Event):
    query: str
    unknown: str


class NaiveRAGEvent(Event):
    query: str


class HighTopKEvent(Event):
    query: str


class RerankEvent(Event):
    query: str


class ResponseEvent(Event):
    query: str
    strategy: str
    text: str
    score: float = 0


class Answer(StopEvent):
    """Every response, the best one first."""

    responses: list[ResponseEvent]


class JudgeQuery(Workflow[Question, Answer]):
    @step
    async def judge_query(
        self, ev: Question | JudgeEvent, documents: Documents
    ) -> BadQueryEvent | list[NaiveRAGEvent | HighTopKEvent | RerankEvent]:
        for word in words(ev.query):
            if not documents.stems.issuperset(stems(word)):
                return BadQueryEvent(query=ev.query, unknown=word)
        return [NaiveRAGEvent(query=ev.query), HighTopKEvent(query=ev.query), RerankEvent(query=ev.query)]

    @step
    async def improve_query(self, ev: BadQueryEvent, documents: Documents) -> JudgeEvent:
        near = get_close_matches(ev.unknown.lower(), documents.words, n=1, cutoff=0.75)
        better = ("".join(near) if word == ev.unknown else word for word in words(ev.query))
        return JudgeEvent(query=" ".join(filter(None, better)))

    @step
    async def naive_rag(self, ev: NaiveRAGEvent, documents: Documents, llm: Model) -> ResponseEvent:
        return await respond("naive", ev.query, await documents.find(ev.query, 1), llm)

    @step
    async def high_top_k(self, ev: HighTopKEvent, documents: Documents, llm: Model) -> ResponseEvent:
        return await respond("high top k", ev.query, await documents.find(ev.query, 10), llm)

    @step
    async def rerank(self, ev: RerankEvent, documents: Documents, llm: Model) -> ResponseEvent:
        found = await documents.find(ev.query, 5)
        found.sort(key=lambda passage: support(ev.query, passage.text), reverse=True)
        return await respond("rerank", ev.query, found[:2], llm)

    @step
    async def judge_response(self, ctx: Context, ev: ResponseEvent) -> Answer | None:
        """The best speaks of most of the question, in the fewest words."""
        responses = ctx.collect_events(ev, {ResponseEvent: 3})
        if responses is None:
            return None
        for response in responses:
            response.score = support(response.query, response.text) / (1 + len(response.text) / 1000)
        return Answer(responses=sorted(responses, key=lambda response: (-response.score, response.strategy)))


async def respond(strategy: str, query: str, passages: list[Passage], llm: ChatModel) -> ResponseEvent:
    prompt = "\n\n".join([*(passage.text for passage in passages), query])
    said = await llm.chat([ChatMessage(role="user", content=prompt)])
    return ResponseEvent(query=query, strategy=strategy, text=said.text.partition("\n\n(offline")[0])


def support(query: str, text: str) -> float:
    """The share of the query's words that a text has."""
    asked = set(stems(query))
    return len(asked.intersection(stems(text))) / max(1, len(asked))


async def main(question: str) -> None:
    answer = await JudgeQuery(verbose=True).run(query=question)
    print(f"\n{answer.responses[0].query}")
    for response in answer.responses:
        print(f"{response.score:.2f}  {response.strategy:10}  {shorten(response.text, 110)}")


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:]) or QUESTION))
