"""A router: the model picks the one that can answer, an encyclopedia, a manual or a count, and a branch goes there.

    python examples/router.py "How many articles are there about France?"

Each route is an event, which the model is shown as a tool: its fields are what the model fills in when it calls it.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated

from agentflow import Event, Resource, StartEvent, StopEvent, Workflow, step
from agentflow_llm import ChatMessage, ChatModel, Document, OfflineModel, Retriever, ToolDefinition, VectorStoreIndex
from agentflow_llm.loading import load

ROOT = Path(__file__).parents[1]
ARTICLES = ROOT / "tests" / "fixtures" / "xquad" / "xquad-en-24-articles.json"
QUESTION = "Who discovered oxygen?"


def read_articles() -> list[Document]:
    """Your own documents go here: load("folder").documents."""
    articles = json.loads(ARTICLES.read_text(encoding="utf-8"))["data"]
    return [
        Document(text=paragraph["context"], metadata={"title": article["title"].replace("_", " ")})
        for article in articles
        for paragraph in article["paragraphs"]
    ]


Articles = Annotated[list[Document], Resource(read_articles)]


def encyclopedia(articles: Articles) -> Retriever:
    return VectorStoreIndex.from_documents(articles, name="encyclopedia").as_retriever(2)


def manual() -> Retriever:
    return VectorStoreIndex.from_documents(load(ROOT / "docs").documents, name="manual").as_retriever(2)


def choose_model() -> ChatModel:
    return OfflineModel()  # your own: OpenAI("gpt-4o-mini")


Model = Annotated[ChatModel, Resource(choose_model)]


class Question(StartEvent):
    query: str


class ToEncyclopedia(Event):
    """Tells of people, places, history and science."""

    query: str


class ToManual(Event):
    """Explains how to write a workflow: events, steps, resources, retries, agents, tools, models, traces."""

    query: str


class ToCount(Event):
    """Counts the articles and documents that there are about a subject, and names them."""

    subject: str


ROUTES: dict[str, type[ToEncyclopedia | ToManual | ToCount]] = {
    "encyclopedia": ToEncyclopedia,
    "manual": ToManual,
    "count": ToCount,
}


class Answer(StopEvent):
    route: str
    text: str


class Router(Workflow[Question, Answer]):
    @step
    async def route(self, ev: Question, llm: Model) -> ToEncyclopedia | ToManual | ToCount:
        tools = [
            ToolDefinition(name=name, description=event.__doc__ or "", parameters=event.model_json_schema())
            for name, event in ROUTES.items()
        ]
        reply = await llm.chat([ChatMessage(role="user", content=ev.query)], tools=tools, tool_choice="required")
        [call, *_] = reply.message.tool_calls
        return ROUTES[call.name].model_validate_json(call.arguments)

    @step
    async def look_up(
        self, ev: ToEncyclopedia, llm: Model, found: Annotated[Retriever, Resource(encyclopedia)]
    ) -> Answer:
        return Answer(route="encyclopedia", text=await answer(llm, found, ev.query))

    @step
    async def read_manual(self, ev: ToManual, llm: Model, found: Annotated[Retriever, Resource(manual)]) -> Answer:
        return Answer(route="manual", text=await answer(llm, found, ev.query))

    @step
    async def count(self, ev: ToCount, articles: Articles) -> Answer:
        titles = {article.metadata["title"] for article in articles if ev.subject in article.text}
        return Answer(route="count", text=f"{len(titles)} with {ev.subject!r}: {'; '.join(sorted(titles))}")


async def answer(llm: ChatModel, retriever: Retriever, query: str) -> str:
    passages = [passage.text for passage in await retriever.aretrieve(query)]
    return (await llm.chat([ChatMessage(role="user", content="\n\n".join([*passages, query]))])).text


async def main(question: str) -> None:
    answered = await Router().run(query=question)
    print(f"{answered.route}: {answered.text}")


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:]) or QUESTION))
