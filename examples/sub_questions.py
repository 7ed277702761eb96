"""Split a question into parts, answer all parts at once, each from its own search, and join what was found.

    python examples/sub_questions.py

One search for the whole question finds passages about one part of it and misses the others. The parts are answered
with a typed object each, so that joining them is plain code: here they are put into the order of their years. The
split, which takes a language model, is written down below; the answers are found.
"""

import asyncio
import json
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from agentflow import Context, Event, Resource, StartEvent, StopEvent, Workflow, step
from agentflow_llm import ChatMessage, ChatModel, Document, OfflineModel, Retriever, ScriptedModel, VectorStoreIndex

ARTICLES = Path(__file__).parents[1] / "tests" / "fixtures" / "xquad" / "xquad-en-24-articles.json"
QUESTION = "In which order: Sky Digital, France takes Algeria, England's war on France, the Tran defeat the Mongols?"
SPLIT = "Split this into questions that can each be answered on their own, from one passage of text:\n{query}"


class Plan(BaseModel):
    questions: list[str] = Field(description="The parts, each a whole question.")


class Finding(BaseModel):
    """The answer to one part."""

    year: int = Field(description="The year in which it happened.")
    quote: str = Field(description="The sentence that says so.")


PLAN = Plan(
    questions=[
        "When was Sky Digital launched?",
        "When did France take control of Algeria?",
        "When did England formally declare war on France?",
        "When were the Mongols defeated by the Tran?",
    ]
)


def read_articles() -> Retriever:
    paragraphs = [
        Document(paragraph["context"], metadata={"source": article["title"]})
        for article in json.loads(ARTICLES.read_text(encoding="utf-8"))["data"]
        for paragraph in article["paragraphs"]
    ]
    return VectorStoreIndex.from_documents(paragraphs, name="articles").as_retriever(1)


def choose_planner() -> ChatModel:
    return ScriptedModel(PLAN)  # your own: OpenAI("gpt-4o-mini")


def choose_reader() -> ChatModel:
    return OfflineModel()  # your own: OpenAI("gpt-4o-mini")


class Question(StartEvent):
    query: str


class SubQuestion(Event):
    query: str


class SubAnswer(Event):
    """`finding` is None where the passage does not say. Shown on the stream."""

    query: str
    source: str
    finding: Finding | None


class Answer(StopEvent):
    """What was found, in the order of the years, and the parts without an answer."""

    timeline: list[Finding]
    unanswered: list[str]


class SubQuestions(Workflow[Question, Answer]):
    @step
    async def split(
        self, ctx: Context, ev: Question, llm: Annotated[ChatModel, Resource(choose_planner)]
    ) -> list[SubQuestion]:
        told = ChatMessage(role="user", content=SPLIT.format(query=ev.query))
        plan = (await llm.chat([told], output=Plan)).output
        parts = plan.questions if isinstance(plan, Plan) else [ev.query]
        await ctx.set("parts", len(parts))
        return [SubQuestion(query=part) for part in parts]

    @step(num_workers=4)
    async def answer(
        self,
        ctx: Context,
        ev: SubQuestion,
        retriever: Annotated[Retriever, Resource(read_articles)],
        llm: Annotated[ChatModel, Resource(choose_reader)],
    ) -> SubAnswer:
        answer = SubAnswer(query=ev.query, source="nowhere", finding=None)
        for passage in await retriever.aretrieve(ev.query):
            told = ChatMessage(role="user", content=f"{passage.text}\n\n{ev.query}")
            found = (await llm.chat([told], output=Finding)).output  # None where the model finds none
            answer = SubAnswer(query=ev.query, source=passage.metadata["source"], finding=found)
        ctx.write_event_to_stream(answer)
        return answer

    @step
    async def join(self, ctx: Context, ev: SubAnswer) -> Answer | None:
        answers = ctx.collect_events(ev, {SubAnswer: await ctx.get("parts")})
        if answers is None:
            return None
        return Answer(
            timeline=sorted((one.finding for one in answers if one.finding), key=lambda finding: finding.year),
            unanswered=[one.query for one in answers if not one.finding],
        )


async def main() -> None:
    print(f"{QUESTION}\n")
    handler = SubQuestions().run(query=QUESTION)
    async for event in handler.stream_events():
        if isinstance(event, SubAnswer):
            year = event.finding.year if event.finding else "unknown"
            print(f"  {event.query} {year} ({event.source})")
    print()
    for finding in (await handler).timeline:
        print(f"{finding.year}  {finding.quote[:100]}...")


if __name__ == "__main__":
    asyncio.run(main())
