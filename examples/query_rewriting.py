"""Let a model say a question in other words, search for all of them at once, and fuse what is found into one order.

    python examples/query_rewriting.py

The questions are real ones (XQuAD), and a search for them fails: they are misspelt, or have no word of their answer. A
rewriting says the question otherwise, or is the answer that is hoped for (HyDE). What a model would write is written
down below; the search, among 120 paragraphs of Wikipedia, and the order are computed.
"""

import asyncio
import json
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from agentflow import Context, Event, Resource, StartEvent, StopEvent, Workflow, step
from agentflow_llm import (
    ChatMessage,
    ChatModel,
    Document,
    OfflineModel,
    Passage,
    Retriever,
    ScriptedModel,
    VectorStoreIndex,
)

ARTICLES = Path(__file__).parents[1] / "tests" / "fixtures" / "xquad" / "xquad-en-24-articles.json"
REWRITE = "Help a search engine to find the answer to this question: {query}"


class Rewritings(BaseModel):
    otherwise: str = Field(description="The question without mistakes, in other words.")
    hoped_for: str = Field(description="A sentence that would answer it, be it true or not.")


SCRIPT = {
    "What was Ghandi's work called?": Rewritings(
        otherwise="What name did Gandhi give his doctrine of civil disobedience?",
        hoped_for="Gandhi called his doctrine of non-violent resistance Satyagraha.",
    ),
    "What is septicemia?": Rewritings(
        otherwise="What is septicemic plague?",
        hoped_for="Septicemia is blood poisoning, which accompanies the plague.",
    ),
}


def read_articles() -> Retriever:
    paragraphs = [
        Document(paragraph["context"], f"{article['title']}/{number}")
        for article in json.loads(ARTICLES.read_text(encoding="utf-8"))["data"]
        for number, paragraph in enumerate(article["paragraphs"], start=1)
    ]
    return VectorStoreIndex.from_documents(paragraphs, name="articles").as_retriever(10)


def choose_writer() -> ChatModel:
    return ScriptedModel([*SCRIPT.values()])  # your own: OpenAI("gpt-4o-mini")


def choose_reader() -> ChatModel:
    return OfflineModel()  # your own: OpenAI("gpt-4o-mini")


class Question(StartEvent):
    query: str


class Query(Event):
    text: str


class Hits(Event):
    """What was found for one of the queries. Shown on the stream."""

    query: str
    passages: list[Passage]


class Fused(Event):
    query: str
    passages: list[Passage]


class Answer(StopEvent):
    text: str
    source: str


class QueryRewriting(Workflow[Question, Answer]):
    @step
    async def rewrite(
        self, ctx: Context, ev: Question, llm: Annotated[ChatModel, Resource(choose_writer)]
    ) -> list[Query]:
        told = ChatMessage(role="user", content=REWRITE.format(query=ev.query))
        written = (await llm.chat([told], output=Rewritings)).output
        rewritings = [written.otherwise, written.hoped_for] if isinstance(written, Rewritings) else []
        queries = [Query(text=text) for text in [ev.query, *rewritings]]
        await ctx.set("question", rewritings[0] if rewritings else ev.query)  # what the reader is asked
        await ctx.set("queries", len(queries))
        return queries

    @step(num_workers=4)
    async def search(self, ctx: Context, ev: Query, retriever: Annotated[Retriever, Resource(read_articles)]) -> Hits:
        hits = Hits(query=ev.text, passages=await retriever.aretrieve(ev.text))
        ctx.write_event_to_stream(hits)
        return hits

    @step
    async def fuse(self, ctx: Context, ev: Hits) -> Fused | None:
        """Reciprocal rank fusion: whoever stands high in many orders stands high in the one that they make."""
        found = ctx.collect_events(ev, {Hits: await ctx.get("queries")})
        if found is None:
            return None
        scores: dict[str, float] = {}
        for hits in found:
            for rank, passage in enumerate(hits.passages, start=1):
                scores[passage.id] = scores.get(passage.id, 0) + 1 / (60 + rank)
        passages = {passage.id: passage for hits in found for passage in hits.passages}
        order = sorted(scores, key=lambda ident: -scores[ident])
        return Fused(query=await ctx.get("question"), passages=[passages[ident] for ident in order])

    @step
    async def answer(self, ev: Fused, llm: Annotated[ChatModel, Resource(choose_reader)]) -> Answer:
        if not ev.passages:
            return Answer(text="Nothing was found.", source="")
        best = ev.passages[0]
        reply = await llm.chat([ChatMessage(role="user", content=f"{best.text}\n\n{ev.query}")])
        return Answer(text=reply.text, source=best.id)


async def main() -> None:
    workflow = QueryRewriting()
    for question in SCRIPT:
        print(question)
        handler = workflow.run(query=question)
        async for event in handler.stream_events():
            if isinstance(event, Hits):
                print(f"    {event.passages[0].id if event.passages else 'nothing':20}  {event.query}")
        answer = await handler
        print(f"  {answer.text.splitlines()[0]} [{answer.source}]\n")


if __name__ == "__main__":
    asyncio.run(main())
