"""A loop that refines an answer until it is good enough, or until it has had its rounds.

    python examples/refinement.py "How did the plague reach Europe, and how many people of Paris died of plague?"

    Question ─► generate ─► Draft ─► check_quality ─┬─► Answer
                   ▲                                │
                   └──────────── Refine ◄───────────┘

The quality is the share of the question's words that the answer speaks of; what it lacks is what is looked for next.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated

from agentflow import Context, Event, Resource, StartEvent, StopEvent, Workflow, step
from agentflow_llm import ChatMessage, ChatModel, Document, OfflineModel, VectorStoreIndex
from agentflow_llm.reading import stems

ARTICLES = Path(__file__).parents[1] / "tests" / "fixtures" / "xquad" / "xquad-en-24-articles.json"
QUESTION = "Which railways serve Newcastle, and how many universities does it have?"


def read_articles() -> VectorStoreIndex:
    """Your own documents go here: VectorStoreIndex.from_documents(load("folder").documents)."""
    articles = json.loads(ARTICLES.read_text(encoding="utf-8"))["data"]
    paragraphs = [Document(paragraph["context"]) for article in articles for paragraph in article["paragraphs"]]
    return VectorStoreIndex.from_documents(paragraphs)


def choose_model() -> ChatModel:
    return OfflineModel()  # your own: OpenAI("gpt-4o-mini")


class Question(StartEvent):
    query: str


class Draft(Event):
    """An answer so far, and what of the question it does not speak of."""

    query: str
    sentences: list[str]
    lacks: list[str]
    rounds: int

    @property
    def quality(self) -> float:
        return 1 - len(self.lacks) / max(1, len(stems(self.query)))


class Refine(Event):
    draft: Draft


class Answer(StopEvent):
    text: str
    quality: float


class RefineAnswer(Workflow[Question, Answer]):
    good_enough = 0.8
    most_rounds = 4

    @step
    async def generate(
        self,
        ev: Question | Refine,
        library: Annotated[VectorStoreIndex, Resource(read_articles)],
        llm: Annotated[ChatModel, Resource(choose_model)],
    ) -> Draft:
        """Ask the model about the next passage, and keep what it says of what the answer lacks."""
        if isinstance(ev, Refine):
            draft = ev.draft
        else:
            draft = Draft(query=ev.query, sentences=[], lacks=stems(ev.query), rounds=0)
        found = await library.as_retriever(draft.rounds + 1).aretrieve(draft.query)
        passages = [passage.text for passage in found[draft.rounds :]]
        reply = await llm.chat([ChatMessage(role="user", content="\n\n".join([*passages, draft.query]))])
        sentences, lacks = list(draft.sentences), draft.lacks
        for sentence in [line for line in reply.text.splitlines() if any(line in passage for passage in passages)]:
            left = [stem for stem in lacks if stem not in stems(sentence)]
            if left != lacks:
                sentences, lacks = [*sentences, sentence], left
        return Draft(query=draft.query, sentences=sentences, lacks=lacks, rounds=draft.rounds + 1)

    @step
    async def check_quality(self, ctx: Context, ev: Draft) -> Refine | Answer:
        ctx.write_event_to_stream(ev)
        if ev.quality >= self.good_enough or ev.rounds == self.most_rounds:
            return Answer(text="\n".join(ev.sentences), quality=ev.quality)
        return Refine(draft=ev)


async def main(question: str) -> None:
    handler = RefineAnswer().run(query=question)
    async for event in handler.stream_events():
        if isinstance(event, Draft):
            print(f"round {event.rounds}: {event.quality:.0%}; it lacks {', '.join(event.lacks) or 'nothing'}")
    result = await handler
    print(f"\n{result.text or 'Nothing in the library speaks of it.'}")


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:]) or QUESTION))
