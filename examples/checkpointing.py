"""A checkpoint after every step: a run that broke off goes on without repeating a step, and another takes a turn.

    python examples/checkpointing.py

The report is sent to a place that fails at first. `run_from` takes the newest checkpoint and goes on behind it; then it
takes an older one, changes what that step had found out, and goes on from there: nothing is searched again.
"""

import asyncio
import json
from pathlib import Path
from typing import Annotated

from agentflow import Event, Resource, StartEvent, StopEvent, Workflow, WorkflowCheckpointer, step
from agentflow_llm import ChatMessage, ChatModel, Document, OfflineModel, VectorStoreIndex

ARTICLES = Path(__file__).parents[1] / "tests" / "fixtures" / "xquad" / "xquad-en-24-articles.json"


def read_articles() -> VectorStoreIndex:
    """Your own documents go here: VectorStoreIndex.from_documents(load("folder").documents)."""
    articles = json.loads(ARTICLES.read_text(encoding="utf-8"))["data"]
    paragraphs = [Document(paragraph["context"]) for article in articles for paragraph in article["paragraphs"]]
    return VectorStoreIndex.from_documents(paragraphs)


def choose_model() -> ChatModel:
    return OfflineModel()  # your own: OpenAI("gpt-4o-mini")


class Outbox:
    """Stands for a service that is down at first."""

    down = True

    async def send(self, text: str) -> str:
        if self.down:
            raise ConnectionError("the outbox does not answer")
        return f"sent: {text}"


class Question(StartEvent):
    query: str


class Found(Event):
    query: str
    passages: list[str]


class Answered(Event):
    text: str


class Sent(StopEvent):
    receipt: str


class Report(Workflow[Question, Sent]):
    @step
    async def search(self, ev: Question, library: Annotated[VectorStoreIndex, Resource(read_articles)]) -> Found:
        print("  search runs")
        passages = await library.as_retriever(2).aretrieve(ev.query)
        return Found(query=ev.query, passages=[passage.text for passage in passages])

    @step
    async def answer(self, ev: Found, llm: Annotated[ChatModel, Resource(choose_model)]) -> Answered:
        print("  answer runs")
        reply = await llm.chat([ChatMessage(role="user", content="\n\n".join([*ev.passages, ev.query]))])
        return Answered(text=reply.text.splitlines()[0])

    @step
    async def send(self, ev: Answered, outbox: Annotated[Outbox, Resource(Outbox)]) -> Sent:
        print("  send runs")
        return Sent(receipt=await outbox.send(ev.text))


async def main() -> None:
    outbox = Outbox()
    checkpointer = WorkflowCheckpointer(Report(resources={Outbox: outbox}))

    print("A run, in which the last step fails:")
    handler = checkpointer.run(query="What chemist made enough liquid oxygen to study it?")
    try:
        await handler
    except ConnectionError as error:
        print(f"  {error}")
    checkpoints = checkpointer.checkpoints[handler.run_id]
    print(f"  checkpoints: {', '.join(checkpoint.last_completed_step for checkpoint in checkpoints)}")

    print("On from the newest checkpoint, when the outbox is up again:")
    outbox.down = False
    result = await checkpointer.run_from(checkpoint=checkpoints[-1])
    print(f"  {result.receipt}")

    print("On from the search, with another question about what was found:")
    [checkpoint] = checkpointer.filter_checkpoints(handler.run_id, last_completed_step="search")
    assert isinstance(checkpoint.output_event, Found)
    checkpoint.output_event.query = "Which engineers developed a process for producing liquid oxygen?"
    result = await checkpointer.run_from(checkpoint=checkpoint)
    print(f"  {result.receipt}")


if __name__ == "__main__":
    asyncio.run(main())
