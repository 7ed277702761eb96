"""Query planning: a model breaks a question down, the parts are answered at once, and it plans again until it knows.

    python examples/query_planning.py

    Question ─► plan ─┬─► Item (several) ─► execute ─► Executed ─► gather ─► Results ─┐
                  ▲   └─► Answer                                                      │
                  └───────────────────────────────────────────────────────────────────┘

It takes a language model to plan: the plans, and the answer in the last of them, are written down below. What the
plans ask for is really looked up.
"""

import asyncio
import json
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel

from agentflow import Context, Event, Resource, StartEvent, StopEvent, Workflow, step
from agentflow_llm import ChatMessage, ChatModel, Document, OfflineModel, Retriever, ScriptedModel, VectorStoreIndex

ARTICLES = Path(__file__).parents[1] / "tests" / "fixtures" / "xquad" / "xquad-en-24-articles.json"
QUESTION = (
    "Who discovered the gas that is given against carbon monoxide poisoning, and who first made much of it liquid?"
)
PROMPT = """Question: {question}
What is known so far:
{known}

Plan which simpler questions to ask next, each of which can be looked up by itself. Where enough is known, answer."""


class Plan(BaseModel):
    """What the model is asked for: questions to look up now, at once; or else the answer."""

    questions: list[str] = []
    answer: str = ""


def choose_planner() -> ChatModel:
    """Three plans as a model makes them. Write OpenAI("gpt-4o-mini") here, and they will fit your own question."""
    return ScriptedModel(
        [
            Plan(questions=["What is carbon monoxide poisoning treated with?"]),
            Plan(questions=["Who discovered oxygen?", "Who was able to produce enough liquid oxygen to study?"]),
            Plan(answer="Oxygen was discovered by Scheele and by Priestley; Dewar first made much of it liquid."),
        ]
    )


def choose_reader() -> ChatModel:
    return OfflineModel()  # answers the simple questions; any model will do


def read_articles() -> Retriever:
    """Your own documents go here: VectorStoreIndex.from_documents(load("folder").documents)."""
    articles = json.loads(ARTICLES.read_text(encoding="utf-8"))["data"]
    paragraphs = [Document(paragraph["context"]) for article in articles for paragraph in article["paragraphs"]]
    return VectorStoreIndex.from_documents(paragraphs).as_retriever(2)


class Question(StartEvent):
    query: str


class Item(Event):
    query: str


class Executed(Event):
    query: str
    result: str


class Results(Event):
    results: list[Executed]


class Answer(StopEvent):
    text: str


class PlanQueries(Workflow[Question, Answer]):
    most_rounds = 5

    @step
    async def plan(
        self, ctx: Context, ev: Question | Results, llm: Annotated[ChatModel, Resource(choose_planner)]
    ) -> list[Item] | Answer:
        if isinstance(ev, Question):
            await ctx.set("query", ev.query)
        known: list[str] = await ctx.get("known", default=[])
        known += [f"{one.query} {one.result}" for one in ev.results] if isinstance(ev, Results) else []
        await ctx.set("known", known)
        rounds = await ctx.get("rounds", default=0) + 1
        await ctx.set("rounds", rounds)
        prompt = PROMPT.format(question=await ctx.get("query"), known="\n".join(known) or "nothing")
        plan = (await llm.chat([ChatMessage(role="user", content=prompt)], output=Plan)).output
        assert isinstance(plan, Plan)
        if plan.answer or not plan.questions or rounds > self.most_rounds:
            return Answer(text=plan.answer)
        await ctx.set("expected", len(plan.questions))
        return [Item(query=question) for question in plan.questions]

    @step(num_workers=4)
    async def execute(
        self,
        ctx: Context,
        ev: Item,
        llm: Annotated[ChatModel, Resource(choose_reader)],
        retriever: Annotated[Retriever, Resource(read_articles)],
    ) -> Executed:
        ctx.write_event_to_stream(ev)
        passages = [passage.text for passage in await retriever.aretrieve(ev.query)]
        said = await llm.chat([ChatMessage(role="user", content="\n\n".join([*passages, ev.query]))])
        executed = Executed(query=ev.query, result=said.text.splitlines()[0])
        ctx.write_event_to_stream(executed)
        return executed

    @step
    async def gather(self, ctx: Context, ev: Executed) -> Results | None:
        results = ctx.collect_events(ev, {Executed: await ctx.get("expected")})
        return None if results is None else Results(results=results)


async def main() -> None:
    handler = PlanQueries().run(query=QUESTION)
    async for event in handler.stream_events():
        if isinstance(event, Item | Executed):
            print(f"asked:  {event.query}" if isinstance(event, Item) else f"found:  {event.result}")
    print(f"answer: {(await handler).text}")


if __name__ == "__main__":
    asyncio.run(main())
