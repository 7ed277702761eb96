"""ReAct by hand: the model thinks and names an action in plain text, the workflow does it and says what it observed.

    python examples/react_from_scratch.py

What cannot be read, or done, is an observation as well, from which the model goes on. The tools are real: they search
120 paragraphs of Wikipedia (XQuAD), and count. What a model would say is written down below. `ReActAgent` of
agentflow_agents has all this ready made, and reads what less tidy models write.
"""

import asyncio
import json
import re
from pathlib import Path
from typing import Annotated

from agentflow import Context, Event, Resource, StartEvent, StopEvent, Workflow, step
from agentflow_agents import Toolbox
from agentflow_llm import ChatMessage, ChatModel, Document, ScriptedModel, VectorStoreIndex

ARTICLES = Path(__file__).parents[1] / "tests" / "fixtures" / "xquad" / "xquad-en-24-articles.json"
QUESTION = "How many years after the discovery of oxygen was there enough liquid oxygen to study?"
PROMPT = """Answer the question in turns. There are these tools:
{tools}

In each turn write either

Thought: what you know, and what you need
Action: the name of a tool
Action Input: its arguments, as a JSON object

or, when you know the answer

Thought: why you know it
Answer: the answer"""
UNREADABLE = "That was no turn. Write an Action and an Action Input, or an Answer."
ACTION = re.compile(r"Action: *(\S+)\s+Action Input:\s*(\{.*\})", re.DOTALL)
ANSWER = re.compile(r"Answer: *(.+)", re.DOTALL)


def make_tools() -> Toolbox:
    articles = json.loads(ARTICLES.read_text(encoding="utf-8"))["data"]
    paragraphs = [Document(paragraph["context"]) for article in articles for paragraph in article["paragraphs"]]
    retriever = VectorStoreIndex.from_documents(paragraphs, name="articles").as_retriever(1)

    async def search(query: str) -> str:
        """Find a passage in an encyclopedia."""
        return next((passage.text for passage in await retriever.aretrieve(query)), "Nothing was found.")

    def years_between(first: int, last: int) -> int:
        """How many years lie between two years."""
        return last - first

    return Toolbox([search, years_between])


def choose_model() -> ChatModel:
    """Your own: `OpenAI("llama3.2", base_url="http://127.0.0.1:11434/v1")`."""
    return ScriptedModel(
        [
            'Thought: When was it discovered?\nAction: search\nAction Input: {"query": "When was oxygen discovered?"}',
            'Thought: In 1773.\nAction: look_up\nAction Input: {"query": "liquid oxygen"}',
            'Thought: Then I search.\nAction: search\nAction Input: {"query": "Who made liquid oxygen to study?"}',
            "I think that it was in 1891.",
            'Thought: Dewar, in 1891.\nAction: years_between\nAction Input: {"first": 1773, "last": 1891}',
            lambda messages: f"Thought: That is all.\nAnswer: {messages[-1].text.removeprefix('Observation: ')} years.",
        ]
    )


class Question(StartEvent):
    query: str


class Thought(Event):
    """What the model wrote. For the stream, as observations are."""

    text: str


class Action(Event):
    tool: str
    arguments: str
    messages: list[ChatMessage]


class Observation(Event):
    text: str
    messages: list[ChatMessage]


class Answer(StopEvent):
    """`text` is empty where the turns did not suffice."""

    text: str
    turns: int


Tools = Annotated[Toolbox, Resource(make_tools)]


class ReAct(Workflow[Question, Answer]):
    most_turns = 10

    @step
    async def think(
        self, ctx: Context, ev: Question | Observation, tools: Tools, llm: Annotated[ChatModel, Resource(choose_model)]
    ) -> Action | Observation | Answer:
        if isinstance(ev, Question):
            listed = "\n".join(f"{tool.name}({tool.signature}): {tool.description}" for tool in tools)
            before, told = [ChatMessage(role="system", content=PROMPT.format(tools=listed))], ev.query
        else:
            ctx.write_event_to_stream(ev)
            before, told = ev.messages, f"Observation: {ev.text}"
        turn = 1 + len(before) // 2
        if turn > self.most_turns:
            return Answer(text="", turns=self.most_turns)
        messages = [*before, ChatMessage(role="user", content=told)]
        reply = await llm.chat(messages, stop=["Observation:"])
        messages.append(reply.message)
        ctx.write_event_to_stream(Thought(text=reply.text))
        if said := ACTION.search(reply.text):
            return Action(tool=said[1], arguments=said[2], messages=messages)
        if said := ANSWER.search(reply.text):
            return Answer(text=said[1], turns=turn)
        return Observation(text=UNREADABLE, messages=messages)

    @step
    async def act(self, ev: Action, tools: Tools) -> Observation:
        call_id = f"call_{len(ev.messages) // 2}"
        result = await tools.execute(call_id, ev.tool, ev.arguments)  # whatever goes wrong is a result
        return Observation(text=result.content, messages=ev.messages)


async def main() -> None:
    print(QUESTION)
    handler = ReAct().run(query=QUESTION)
    async for event in handler.stream_events():
        if isinstance(event, Thought):
            print(f"\n{event.text}")
        if isinstance(event, Observation):
            print(f"    {event.text[:100]}")
    answer = await handler
    print(f"\n{answer.text or 'No answer.'} ({answer.turns} turns)")


if __name__ == "__main__":
    asyncio.run(main())
