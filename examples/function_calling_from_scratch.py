"""An agent by hand: a model that asks for tools, the tools, and the engine between them. Three steps, nothing hidden.

    python examples/function_calling_from_scratch.py "Which documents are there?"

All calls of a turn run at once, each has exactly one result, and what goes wrong is told to the model. `FunctionAgent`
of agentflow_agents is this with a memory, budgets, approval, structured answers and streams.
"""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

from agentflow import Context, Event, Resource, StartEvent, StopEvent, Workflow, step
from agentflow_agents import Toolbox, ToolError
from agentflow_llm import ChatMessage, ChatModel, OfflineModel, ToolCallPart, ToolResultPart

QUESTION = 'How many words have "observability.md" and "models.md"?'
DOCUMENTS = Path(__file__).parents[1] / "docs"


def list_documents() -> list[str]:
    """Which documents there are."""
    return sorted(path.name for path in DOCUMENTS.glob("*.md"))


def count_words(document: str) -> int:
    """How many words a document has."""
    if document not in list_documents():
        raise ToolError(f"There is no {document!r}, only {', '.join(list_documents())}.")  # the model is told
    return len((DOCUMENTS / document).read_text(encoding="utf-8").split())


def choose_model() -> ChatModel:
    return OfflineModel()  # your own: OpenAI("gpt-4o-mini")


def make_tools() -> Toolbox:
    return Toolbox([list_documents, count_words])


Model = Annotated[ChatModel, Resource(choose_model)]
Tools = Annotated[Toolbox, Resource(make_tools)]


class Question(StartEvent):
    query: str


class Turn(Event):
    messages: list[ChatMessage]


class Call(Event):
    part: ToolCallPart


class Result(Event):
    part: ToolResultPart


class Answer(StopEvent):
    text: str


class FunctionCalling(Workflow[Question, Answer]):
    @step
    async def ask(self, ctx: Context, ev: Question | Turn, llm: Model, tools: Tools) -> list[Call] | Answer:
        asked = ev.messages if isinstance(ev, Turn) else [ChatMessage(role="user", content=ev.query)]
        reply = await llm.chat(asked, tools=tools.definitions)
        await ctx.set("messages", [*asked, reply.message])
        return [Call(part=part) for part in reply.tool_calls] or Answer(text=reply.text)

    @step(num_workers=8)
    async def call(self, ctx: Context, ev: Call, tools: Tools) -> Result:
        ctx.write_event_to_stream(ev)
        return Result(part=await tools.execute(ev.part.id, ev.part.name, ev.part.arguments))

    @step
    async def collect(self, ctx: Context, ev: Result) -> Turn | None:
        messages: list[ChatMessage] = await ctx.get("messages")
        calls = messages[-1].tool_calls
        results = ctx.collect_events(ev, {Result: len(calls)})
        if results is None:
            return None
        by_call = {result.part.call_id: result.part for result in results}
        return Turn(messages=[*messages, ChatMessage(role="tool", content=[by_call[call.id] for call in calls])])


async def main(question: str) -> None:
    handler = FunctionCalling().run(query=question)
    async for event in handler.stream_events():
        if isinstance(event, Call):
            print(f"  {event.part.name} {event.part.arguments}")
    print((await handler).text)


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:]) or QUESTION))
