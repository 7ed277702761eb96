"""Find passages, put them into a better order, answer from the first: where each one stood, and where it stands now.

    python examples/rag_with_rerank.py "Who was the main crew of Apollo 1, of which they named themselves?"

The documents are 120 paragraphs of Wikipedia (XQuAD). The search goes by the words of whole paragraphs; the reranker
compares the question with each single sentence, which would take too long for all of them, but not for ten.
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Annotated

from agentflow import Context, Event, Resource, StartEvent, StopEvent, Workflow, step
from agentflow_llm import (
    BaseReranker,
    ChatMessage,
    ChatModel,
    Document,
    HashEmbedder,
    OfflineModel,
    Passage,
    Reranker,
    Retriever,
    VectorStoreIndex,
)
from agentflow_llm.reading import sentences

QUESTION = "What famous Indian's actions were considered civil disobedience?"
ARTICLES = Path(__file__).parents[1] / "tests" / "fixtures" / "xquad" / "xquad-en-24-articles.json"


class BestSentence(BaseReranker):
    """Adds to each score how close the passage's closest sentence is to the query."""

    def __init__(self) -> None:
        self.embedder = HashEmbedder()  # your own: OpenAIEmbedder("text-embedding-3-small")
        super().__init__(self.embedder.model)

    async def order(self, query: str, passages: Sequence[Passage], seen: object) -> list[Passage]:
        cut = [list(sentences(passage.text)) for passage in passages]
        asked, *said = (await self.embedder.embed([query, *chain(*cut)])).vectors
        near = iter([sum(a * b for a, b in zip(asked, vector, strict=True)) for vector in said])
        best = [max(islice(near, len(own)), default=0.0) for own in cut]
        scores = [passage.score / passages[0].score + closest for passage, closest in zip(passages, best, strict=True)]
        ranked = [replace(passage, score=score) for passage, score in zip(passages, scores, strict=True)]
        return sorted(ranked, key=lambda passage: -passage.score)


def read_articles() -> Retriever:
    articles = json.loads(ARTICLES.read_text(encoding="utf-8"))["data"]
    paragraphs = [
        Document(paragraph["context"], f"{article['title']}/{number}")
        for article in articles
        for number, paragraph in enumerate(article["paragraphs"], start=1)
    ]
    return VectorStoreIndex.from_documents(paragraphs, name="articles").as_retriever(10)


def choose_reranker() -> Reranker:
    return BestSentence()  # a model's judgement: ModelReranker(OpenAI("gpt-4o-mini"))


def choose_model() -> ChatModel:
    return OfflineModel()  # your own: OpenAI("gpt-4o-mini")


class Question(StartEvent):
    query: str


class Found(Event):
    query: str
    passages: list[Passage]


class Reranked(Event):
    query: str
    before: list[Passage]
    after: list[Passage]


class Answer(StopEvent):
    text: str
    source: str


class RAGWithRerank(Workflow[Question, Answer]):
    @step
    async def retrieve(self, ev: Question, retriever: Annotated[Retriever, Resource(read_articles)]) -> Found:
        return Found(query=ev.query, passages=await retriever.aretrieve(ev.query))

    @step
    async def rerank(
        self, ctx: Context, ev: Found, reranker: Annotated[Reranker, Resource(choose_reranker)]
    ) -> Reranked | Answer:
        if not ev.passages:
            return Answer(text="No passage has a word of it.", source="")
        ranked = Reranked(query=ev.query, before=ev.passages, after=await reranker.rerank(ev.query, ev.passages))
        ctx.write_event_to_stream(ranked)
        return ranked

    @step
    async def answer(self, ev: Reranked, llm: Annotated[ChatModel, Resource(choose_model)]) -> Answer:
        best = ev.after[0]
        reply = await llm.chat([ChatMessage(role="user", content=f"{best.text}\n\n{ev.query}")])
        return Answer(text=reply.text, source=best.id)


async def main(question: str) -> None:
    handler = RAGWithRerank().run(query=question)
    async for event in handler.stream_events():
        if isinstance(event, Reranked):
            places = {passage.id: place for place, passage in enumerate(event.before, start=1)}
            print("before  now  score")
            for place, passage in enumerate(event.after[:5], start=1):
                print(f"{places[passage.id]:6}{place:5}  {passage.score:5.2f}  {passage.id}")
    answer = await handler
    print(f"\n{question}\n{answer.text}\n\nSource: {answer.source}")


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:]) or QUESTION))
