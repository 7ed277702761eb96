"""Research in parallel sources, with a gate for their quality, and a person who decides about the poor ones.

    python examples/research.py "How was oxygen liquefied?"

    classify_topic ─► Topic ─► gather_sources ─► Source (several) ─► evaluate_quality ─► Judged ─► synthesize ─► Report
                                                                     (asks a person)

Answer with y or n. While one source waits for its answer, the others go on; the answers may come in any order.
"""

import asyncio
import json
import signal
import sys
from collections import Counter
from pathlib import Path
from textwrap import shorten
from typing import Annotated

from agentflow import (
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Resource,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from agentflow_llm import ChatMessage, ChatModel, Document, OfflineModel, Passage, VectorStoreIndex
from agentflow_llm.reading import stems

ARTICLES = Path(__file__).parents[1] / "tests" / "fixtures" / "xquad" / "xquad-en-24-articles.json"
QUESTION = "How was oxygen first made liquid, and by whom?"


def read_library() -> VectorStoreIndex:
    """Your own documents go here: VectorStoreIndex.from_documents(load("folder").documents)."""
    data = json.loads(ARTICLES.read_text(encoding="utf-8"))["data"]
    texts = [Document(text=p["context"], metadata={"title": a["title"]}) for a in data for p in a["paragraphs"]]
    return VectorStoreIndex.from_documents(texts)


Library = Annotated[VectorStoreIndex, Resource(read_library)]
Model = Annotated[ChatModel, Resource(OfflineModel)]  # your own: Resource(lambda: OpenAI("gpt-4o-mini"))


class Question(StartEvent):
    query: str


class Topic(Event):
    query: str
    category: str


class Source(Event):
    query: str
    title: str
    text: str


class PoorSource(InputRequiredEvent):
    title: str
    text: str
    quality: float


class Verdict(HumanResponseEvent):
    title: str
    use: bool


class Judged(Source):
    used: bool


class Report(StopEvent):
    category: str
    used: list[str]
    left_out: list[str]
    text: str


class Research(Workflow[Question, Report]):
    good_enough = 0.7
    most_sources = 3

    @step
    async def classify_topic(self, ctx: Context, ev: Question, library: Library) -> Topic | Report:
        """The topic is the article in which most of the best passages stand."""
        found = await library.as_retriever(5).aretrieve(ev.query)
        if not found:
            return Report(category="unknown", used=[], left_out=[], text="There are no sources on this.")
        [(title, _)] = Counter(passage.metadata["title"] for passage in found).most_common(1)
        await ctx.set("category", title)
        return Topic(query=ev.query, category=title)

    @step
    async def gather_sources(self, ctx: Context, ev: Topic, library: Library) -> list[Source]:
        """Ask several articles at once; a list of events sends each on its own way."""
        found = await library.as_retriever(20).aretrieve(ev.query)
        titles = list(dict.fromkeys([ev.category, *(p.metadata["title"] for p in found)]))
        sources = [library.as_retriever(1, where={"title": title}) for title in titles[: self.most_sources]]
        best: list[list[Passage]] = await asyncio.gather(*(source.aretrieve(ev.query) for source in sources))
        await ctx.set("sources", len(best))
        return [Source(query=ev.query, title=p.metadata["title"], text=p.text) for [p] in best]

    @step(num_workers=most_sources)
    async def evaluate_quality(self, ctx: Context, ev: Source) -> Judged:
        """The share of the question's words that a source has; where it is low, wait for a person."""
        asked = set(stems(ev.query))
        quality = len(asked.intersection(stems(ev.text))) / max(1, len(asked))
        used = quality >= self.good_enough
        if not used:
            asking = PoorSource(title=ev.title, text=ev.text, quality=quality)
            used = (await ctx.wait_for_event(Verdict, asking, requirements={"title": ev.title})).use
        return Judged(**ev.model_dump(), used=used)

    @step
    async def synthesize(self, ctx: Context, ev: Judged, llm: Model) -> Report | None:
        judged = ctx.collect_events(ev, {Judged: await ctx.get("sources")})
        if judged is None:
            return None
        judged.sort(key=lambda one: one.title)
        prompt = "\n\n".join([*(source.text for source in judged if source.used), judged[0].query])
        said = await llm.chat([ChatMessage(role="user", content=prompt)])
        return Report(
            category=await ctx.get("category"),
            used=[source.title for source in judged if source.used],
            left_out=[source.title for source in judged if not source.used],
            text=said.text,
        )


async def main(question: str) -> None:
    handler = Research().run(query=question)
    async for event in handler.stream_events():
        if isinstance(event, PoorSource):
            print(f"{event.title} ({event.quality:.0%}): {shorten(event.text, 100)}\n    use it? [y/n]")
            answer = await asyncio.to_thread(sys.stdin.readline)
            handler.ctx.send_event(Verdict(title=event.title, use=answer.startswith("y")))
    report = await handler
    print(f"Topic: {report.category}. Used: {report.used}. Left out: {report.left_out}.\n{report.text}")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once, also while a thread waits for a line
    asyncio.run(main(" ".join(sys.argv[1:]) or QUESTION))
