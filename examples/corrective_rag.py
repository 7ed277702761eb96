"""Grade what a search found; where nothing of it answers, rewrite the question and search elsewhere, a few times.

    python examples/corrective_rag.py

The first search is in the guide to workflows, the later ones in an encyclopedia (120 paragraphs of Wikipedia,
XQuAD), where another program would ask the web. A passage is good if the model can quote what answers the question.
The rewritten questions are written down below; what is found for them, and the grades, are computed.
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
from agentflow_llm.loading import load

ROOT = Path(__file__).parents[1]
ARTICLES = ROOT / "tests" / "fixtures" / "xquad" / "xquad-en-24-articles.json"
QUESTIONS = ["How does a step wait for a human?", "Who found the gas that we breathe?", "How tall is the Eiffel Tower?"]
REWRITE = "A search for this found nothing that answers it. Say it in the words that an answer would have: {query}"
REWRITTEN = ["Who discovered the element oxygen, and when?", "Eiffel Tower height", "Eiffel Tower metres"]


class Grade(BaseModel):
    """What a passage says to a question."""

    quote: str | None = Field(None, description="What answers the question, word for word; null if nothing does.")


def choose_sources() -> list[Retriever]:
    """Where to search: first here, after a correction there."""
    encyclopedia = [
        Document(paragraph["context"], metadata={"source": article["title"]})
        for article in json.loads(ARTICLES.read_text(encoding="utf-8"))["data"]
        for paragraph in article["paragraphs"]
    ]
    found_in = {"guide": load(ROOT / "docs" / "workflows.md").documents, "encyclopedia": encyclopedia}
    return [VectorStoreIndex.from_documents(found_in[name], name=name).as_retriever(3) for name in found_in]


def choose_grader() -> ChatModel:
    return OfflineModel()  # your own: OpenAI("gpt-4o-mini")


def choose_writer() -> ChatModel:
    return ScriptedModel(REWRITTEN)  # your own: OpenAI("gpt-4o-mini")


class Question(StartEvent):
    query: str


class Rewritten(Event):
    query: str


class Candidate(Event):
    query: str
    passage: Passage


class Graded(Candidate):
    """A passage with what of it answers, if anything."""

    quote: str | None


class Poor(Event):
    """Nothing that was found answers."""

    query: str


class Answer(StopEvent):
    """The passages that answer, the best first; none where nothing was found."""

    found: list[Graded]


class CorrectiveRAG(Workflow[Question, Answer]):
    most_corrections = 2

    @step
    async def retrieve(
        self, ctx: Context, ev: Question | Rewritten, sources: Annotated[list[Retriever], Resource(choose_sources)]
    ) -> list[Candidate] | Poor:
        found = await sources[isinstance(ev, Rewritten)].aretrieve(ev.query)
        await ctx.set("candidates", len(found))
        return [Candidate(query=ev.query, passage=passage) for passage in found] or Poor(query=ev.query)

    @step(num_workers=3)
    async def grade(self, ctx: Context, ev: Candidate, llm: Annotated[ChatModel, Resource(choose_grader)]) -> Graded:
        reply = await llm.chat([ChatMessage(role="user", content=f"{ev.passage.text}\n\n{ev.query}")], output=Grade)
        quote = reply.output.quote if isinstance(reply.output, Grade) else None
        graded = Graded(query=ev.query, passage=ev.passage, quote=quote)
        ctx.write_event_to_stream(graded)
        return graded

    @step
    async def decide(self, ctx: Context, ev: Graded) -> Answer | Poor | None:
        graded = ctx.collect_events(ev, {Graded: await ctx.get("candidates")})
        if graded is None:
            return None
        good = sorted((one for one in graded if one.quote), key=lambda one: -one.passage.score)
        return Answer(found=good) if good else Poor(query=ev.query)

    @step
    async def rewrite(
        self, ctx: Context, ev: Poor, llm: Annotated[ChatModel, Resource(choose_writer)]
    ) -> Rewritten | Answer:
        corrections = await ctx.get("corrections", default=0) + 1
        if corrections > self.most_corrections:
            return Answer(found=[])
        await ctx.set("corrections", corrections)
        reply = await llm.chat([ChatMessage(role="user", content=REWRITE.format(query=ev.query))])
        rewritten = Rewritten(query=reply.text)
        ctx.write_event_to_stream(rewritten)
        return rewritten


async def main() -> None:
    workflow = CorrectiveRAG()
    for question in QUESTIONS:
        print(question)
        handler = workflow.run(query=question)
        async for event in handler.stream_events():
            if isinstance(event, Graded):
                print(f"    {'good' if event.quote else 'poor'}: {event.passage.metadata['source']}")
            if isinstance(event, Rewritten):
                print(f"    rewritten: {event.query}")
        best = next(iter((await handler).found), None)
        print(f"  {best.quote} [{best.passage.metadata['source']}]\n" if best else "  Not found.\n")


if __name__ == "__main__":
    asyncio.run(main())
