"""A router: the model picks the one that can answer, an encyclopedia, a manual or a count, and a branch goes there.

    python examples/router.py "How many articles are there about France?"

Each route is described to the model as a tool; the tool that it calls decides which event `route` returns.
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
XQUAD = ROOT / "tests" / "fixtures" / "xquad" / "xquad-en-24-articles.json"
QUESTION = "Who discovered oxygen?"
ROUTES = {
    "encyclopedia": "Tells of people, places, history and science.",
    "manual": "Explains how to write a workflow: events, steps, resources, retries, agents, tools, models, traces.",
    "count": "Counts the articles and documents that there are about a subject, and names them.",
}


def read_articles() -> list[Document]:
    """Your own documents go here: load("folder").documents."""
    articles = json.loads(XQUAD.read_text(encoding="utf-8"))["data"]
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


def model() -> ChatModel:
    return OfflineModel()  # or OpenAI("gpt-4o-mini")


Model = Annotated[ChatModel, Resource(model)]


class Question(StartEvent):
    query: str


class ToEncyclopedia(Event):
    query: str


class ToManual(Event):
    query: str


class ToCount(Event):
    subject: str


class Answer(StopEvent):
    route: str
    text: str


class Router(Workflow[Question, Answer]):
    @step
    async def route(self, ev: Question, llm: Model) -> ToEncyclopedia | ToManual | ToCount:
        schema = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}
        tools = [ToolDefinition(name=name, description=text, parameters=schema) for name, text in ROUTES.items()]
        reply = await llm.chat([ChatMessage(role="user", content=ev.query)], tools=tools, tool_choice="required")
        match reply.message.tool_calls[0].name:
            case "manual":
                return ToManual(query=ev.query)
            case "count":
                return ToCount(subject=ev.query.rstrip("?").split()[-1])
            case _:
                return ToEncyclopedia(query=ev.query)

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
        return Answer(route="count", text=f"{len(titles)} speak of {ev.subject}: {'; '.join(sorted(titles))}")


async def answer(llm: ChatModel, retriever: Retriever, query: str) -> str:
    passages = [passage.text for passage in await retriever.aretrieve(query)]
    return (await llm.chat([ChatMessage(role="user", content="\n\n".join([*passages, query]))])).text.partition(
        "\n\n(offline"
    )[0]


async def main(question: str) -> None:
    answered = await Router().run(query=question)
    print(f"{answered.route}: {answered.text}")


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:]) or QUESTION))
