"""Search several sources at once, and ask a model about each finding without asking it too much.

    python examples/parallel_search.py "Which river is crossed by a bridge?"

The sources are searched in parallel; their findings come together, and the model is asked about each of them, again in
parallel. `RateLimited` lets two requests out at a time, for all steps and runs of this process that use its account.
"""

import asyncio
import json
import sys
from pathlib import Path
from textwrap import shorten
from typing import Annotated

from pydantic import BaseModel, Field

from agentflow import Context, Event, Resource, StartEvent, StopEvent, Workflow, step
from agentflow_llm import (
    ChatCall,
    ChatMessage,
    ChatModel,
    Document,
    OfflineModel,
    RateLimited,
    Reply,
    Retriever,
    VectorStoreIndex,
)

ARTICLES = Path(__file__).parents[1] / "tests" / "fixtures" / "xquad" / "xquad-en-24-articles.json"
QUESTION = "Which river is crossed by a bridge?"
SOURCES = {
    "history": ["Normans", "Huguenot", "Black_Death", "Yuan_dynasty", "French_and_Indian_War", "Imperialism"],
    "science": ["Oxygen", "Prime_number", "Computational_complexity_theory", "Pharmacy", "Apollo_program"],
    "places": ["Newcastle_upon_Tyne", "Fresno,_California", "Jacksonville,_Florida", "Amazon_rainforest"],
}


class Finding(BaseModel):
    """What a passage says to a question."""

    quote: str | None = Field(None, description="What answers the question, word for word; null if nothing does.")


class SlowModel(OfflineModel):
    """Takes its time, as a model elsewhere does, and sees how many ask it at once."""

    now = most = 0

    async def answer(self, call: ChatCall) -> Reply:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.01)
        self.now -= 1
        return await super().answer(call)


def open_sources() -> dict[str, Retriever]:
    articles = json.loads(ARTICLES.read_text(encoding="utf-8"))["data"]
    texts = {article["title"]: [paragraph["context"] for paragraph in article["paragraphs"]] for article in articles}
    return {
        source: VectorStoreIndex.from_documents(
            [Document(text=text, metadata={"title": title}) for title in titles for text in texts[title]], name=source
        ).as_retriever(2)
        for source, titles in SOURCES.items()
    }


def choose_model() -> ChatModel:
    return RateLimited(OfflineModel(), concurrency=2)  # RateLimited(OpenAI("gpt-4o-mini"), requests_per_minute=500)


class Question(StartEvent):
    query: str


class Search(Event):
    source: str


class Found(Event):
    source: str
    passages: list[str]


class Read(Event):
    source: str
    passage: str


class Remark(Event):
    source: str
    quote: str


class Answers(StopEvent):
    remarks: list[Remark]  # where the passage answers
    read: int  # how many passages there were


class ParallelSearch(Workflow[Question, Answers]):
    @step
    async def dispatch(self, ctx: Context, ev: Question) -> list[Search]:
        await ctx.set("query", ev.query)
        return [Search(source=source) for source in SOURCES]

    @step
    async def search(
        self, ctx: Context, ev: Search, sources: Annotated[dict[str, Retriever], Resource(open_sources)]
    ) -> Found:
        passages = await sources[ev.source].aretrieve(await ctx.get("query"))
        return Found(source=ev.source, passages=[passage.text for passage in passages])

    @step
    async def gather(self, ctx: Context, ev: Found) -> list[Read] | Answers | None:
        """All sources have answered: now each passage is read."""
        found = ctx.collect_events(ev, {Found: len(SOURCES)})
        if found is None:
            return None
        reads = [Read(source=one.source, passage=passage) for one in found for passage in one.passages]
        await ctx.set("expected", len(reads))
        return reads or Answers(remarks=[], read=0)

    @step(num_workers=16)
    async def read(self, ctx: Context, ev: Read, llm: Annotated[ChatModel, Resource(choose_model)]) -> Remark:
        asked = ChatMessage(role="user", content=f"{ev.passage}\n\n{await ctx.get('query')}")
        finding = (await llm.chat([asked], output=Finding)).output
        return Remark(source=ev.source, quote=finding.quote or "" if isinstance(finding, Finding) else "")

    @step
    async def merge(self, ctx: Context, ev: Remark) -> Answers | None:
        remarks = ctx.collect_events(ev, {Remark: await ctx.get("expected")})
        if remarks is None:
            return None
        answering = [remark for remark in remarks if remark.quote]
        return Answers(remarks=sorted(answering, key=lambda remark: (remark.source, remark.quote)), read=len(remarks))


async def main(question: str) -> None:
    slow = SlowModel()
    workflow = ParallelSearch(resources={choose_model: RateLimited(slow, concurrency=2)})
    answers = await workflow.run(query=question)
    for remark in answers.remarks:
        print(f"{remark.source:8} {shorten(remark.quote, 110)}")
    print(f"\n{len(answers.remarks)} of {answers.read} passages speak of it; at most {slow.most} requests at once")


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:]) or QUESTION))
