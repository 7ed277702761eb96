"""An answer whose every statement names a numbered passage, and is held against that passage before it is given out.

    python examples/citation_query.py "Who discovered oxygen, and when?"

What a passage does not bear out goes back to the model, which may correct it once; what then is still wrong is left
out. Two models are asked: one that quotes, and one that cites carelessly, whose answers are written down below.
"""

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Annotated

from agentflow import Context, Event, Resource, StartEvent, StopEvent, Workflow, step
from agentflow_llm import (
    ChatMessage,
    ChatModel,
    Document,
    OfflineModel,
    Retriever,
    ScriptedModel,
    ToolCallPart,
    ToolDefinition,
    ToolResultPart,
    VectorStoreIndex,
)
from agentflow_llm.reading import stems

QUESTION = "Who discovered oxygen, and when?"
ARTICLES = Path(__file__).parents[1] / "tests" / "fixtures" / "xquad" / "xquad-en-24-articles.json"
SEARCH = ToolDefinition(name="search", description="Search the encyclopedia for passages, each with its number.")
TASK = "Answer from the passages alone. End every statement with the number of its passage, like this. [1]"
WRONG = "The passages do not bear out some of your statements. Answer anew, without what they do not say:\n{problems}"
CARELESS = [
    "Scheele discovered oxygen in 1773 or earlier. [1] Priestley discovered it in 1784. [1] Lavoisier named it. [12]",
    "Scheele discovered oxygen in 1773 or earlier. [1] Priestley discovered it in 1774. [1]",
]


def read_articles() -> Retriever:
    articles = json.loads(ARTICLES.read_text(encoding="utf-8"))["data"]
    paragraphs = [Document(paragraph["context"]) for article in articles for paragraph in article["paragraphs"]]
    return VectorStoreIndex.from_documents(paragraphs, name="articles").as_retriever(4)


def choose_model() -> ChatModel:
    return OfflineModel()  # your own: OpenAI("gpt-4o-mini")


class Question(StartEvent):
    query: str


class Task(Event):
    """It is the model's turn."""

    messages: list[ChatMessage]
    passages: list[str]
    corrected: bool = False


class Correction(Task):
    """It is its turn again: something was wrong."""


class Draft(Event):
    statements: list[tuple[str, int]]  # each with the number of its passage
    task: Task


class Checked(Event):
    """A statement, and what is wrong with it. For the stream."""

    statement: str
    number: int
    problem: str


class Answer(StopEvent):
    """The statements that hold, and the passages by their numbers."""

    statements: list[str]
    passages: dict[int, str]


def problem_of(statement: str, number: int, passages: list[str]) -> str:
    """What the passage does not bear out, or nothing. Words are compared; a model could judge more."""
    if not 1 <= number <= len(passages):
        return "there is no such passage"
    said, passage = set(stems(statement)), set(stems(passages[number - 1]))
    strange = sorted(said - passage)
    numbers = [word for word in strange if word.isdecimal()]
    if not numbers and len(strange) * 4 <= len(said):
        return ""
    return f"it says nothing of {', '.join(numbers or strange)}"


class CitationQuery(Workflow[Question, Answer]):
    @step
    async def retrieve(self, ev: Question, retriever: Annotated[Retriever, Resource(read_articles)]) -> Task:
        """The passages go to the model as what a tool returned: so they are told apart from what the user says."""
        passages = [passage.text for passage in await retriever.aretrieve(ev.query)]
        found = json.dumps([{"source": number, "text": text} for number, text in enumerate(passages, start=1)])
        call = ToolCallPart(id="call_1", name=SEARCH.name, arguments="{}")
        result = ToolResultPart(call_id=call.id, name=call.name, content=found)
        asked = [ChatMessage(role="system", content=TASK), ChatMessage(role="user", content=ev.query)]
        given = [ChatMessage(role="assistant", content=[call]), ChatMessage(role="tool", content=[result])]
        return Task(messages=asked + given, passages=passages)

    @step
    async def write(self, ev: Task, llm: Annotated[ChatModel, Resource(choose_model)]) -> Draft:
        reply = await llm.chat(ev.messages, tools=[SEARCH], tool_choice="none")
        cited = re.findall(r"\s*(.+?)\s*\[(\d+)\]", reply.text, re.DOTALL)  # what has no number is no statement
        task = ev.model_copy(update={"messages": [*ev.messages, reply.message]})
        return Draft(statements=[(text, int(number)) for text, number in cited], task=task)

    @step
    async def check(self, ctx: Context, ev: Draft) -> Correction | Answer:
        task, checked = ev.task, list[Checked]()
        for text, number in ev.statements:
            problem = problem_of(text, number, task.passages)
            checked.append(Checked(statement=f"{text} [{number}]", number=number, problem=problem))
            ctx.write_event_to_stream(checked[-1])
        wrong = [f"- {one.statement}: {one.problem}" for one in checked if one.problem]
        if wrong and not task.corrected:
            told = ChatMessage(role="user", content=WRONG.format(problems="\n".join(wrong)))
            return Correction(messages=[*task.messages, told], passages=task.passages, corrected=True)
        good = [one for one in checked if not one.problem]
        cited = {one.number: task.passages[one.number - 1] for one in good}
        return Answer(statements=[one.statement for one in good], passages=cited)


async def main(question: str) -> None:
    for model in [OfflineModel()] if question else [OfflineModel(), ScriptedModel(CARELESS)]:
        print(f"{model.model}: {question or QUESTION}")
        handler = CitationQuery(resources={choose_model: model}).run(query=question or QUESTION)
        async for event in handler.stream_events():
            if isinstance(event, Checked):
                print(f"  {'no, ' + event.problem if event.problem else 'holds'}: {event.statement}")
        answer = await handler
        print(f"\n{' '.join(answer.statements) or 'The passages do not say.'}")
        for number, text in answer.passages.items():
            print(f"  [{number}] {text[:90]}...")
        print()


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:])))
