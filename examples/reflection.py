"""Structured output by reflection: an answer is checked, and the model is told what is wrong until it is right.

    python examples/reflection.py

    Text ─► extract ─► Extracted ─► check ─┬─► Extraction
               ▲                           │
               └───────── Invalid ◄────────┘

`await llm.chat(messages, output=Defense)` does the same in one line, with one repair. In a workflow of your own you
choose how often, what the model is told, and what else must hold: here, that the numbers stand in the text.
"""

import asyncio
import json
import re
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from agentflow import Context, Event, Resource, StartEvent, StopEvent, Workflow, step
from agentflow_llm import ChatMessage, ChatModel, ScriptedModel

ARTICLES = Path(__file__).parents[1] / "tests" / "fixtures" / "xquad" / "xquad-en-24-articles.json"
PROMPT = """{text}

Extract from this text, as one JSON object and nothing else:
{schema}"""
REFLECT = """

Your last answer was:
{answer}

It is wrong: {error}
Correct it."""


class Defense(BaseModel):
    """What the text tells of a defense."""

    team: str
    points_given_up: int = Field(gt=0)
    interceptions: int
    best_in_sacks: str


def choose_model() -> ChatModel:
    """Answers as models give them, three of them wrong, written down here: your own is OpenAI("gpt-4o-mini")."""
    return ScriptedModel(
        [
            'Sure! {"team": "Panthers", "points_given_up": 308',
            '{"team": "Panthers", "points_given_up": 308, "interceptions": "many", "best_in_sacks": "Kawann Short"}',
            '{"team": "Panthers", "points_given_up": 380, "interceptions": 24, "best_in_sacks": "Kawann Short"}',
            '{"team": "Panthers", "points_given_up": 308, "interceptions": 24, "best_in_sacks": "Kawann Short"}',
        ]
    )


class Text(StartEvent):
    text: str


class Extracted(Event):
    text: str
    answer: str


class Invalid(Extracted):
    error: str


class Extraction(StopEvent):
    defense: Defense
    attempts: int


class Extract(Workflow[Text, Extraction]):
    most_attempts = 5

    @step
    async def extract(
        self, ctx: Context, ev: Text | Invalid, llm: Annotated[ChatModel, Resource(choose_model)]
    ) -> Extracted:
        attempts = await ctx.get("attempts", default=0) + 1
        if attempts > self.most_attempts:
            raise ValueError(f"no valid answer in {self.most_attempts} attempts")
        await ctx.set("attempts", attempts)
        prompt = PROMPT.format(text=ev.text, schema=json.dumps(Defense.model_json_schema()))
        if isinstance(ev, Invalid):
            prompt += REFLECT.format(answer=ev.answer, error=ev.error)
        return Extracted(text=ev.text, answer=(await llm.chat([ChatMessage(role="user", content=prompt)])).text)

    @step
    async def check(self, ctx: Context, ev: Extracted) -> Extraction | Invalid:
        invalid = Invalid(text=ev.text, answer=ev.answer, error="")
        try:
            defense = Defense.model_validate_json(ev.answer)
        except ValidationError as error:
            faults = ((".".join(map(str, fault["loc"])), fault["msg"]) for fault in error.errors())
            invalid.error = "; ".join(f"{where}: {what}" if where else what for where, what in faults)
        else:
            invented = set(re.findall(r"\d+", ev.answer)) - set(re.findall(r"\d+", ev.text))
            if not invented:
                return Extraction(defense=defense, attempts=await ctx.get("attempts"))
            invalid.error = f"the text has no {', '.join(sorted(invented))}"
        ctx.write_event_to_stream(invalid)
        return invalid


async def main() -> None:
    text: str = json.loads(ARTICLES.read_text(encoding="utf-8"))["data"][0]["paragraphs"][0]["context"]
    handler = Extract().run(text=text)
    async for event in handler.stream_events():
        if isinstance(event, Invalid):
            print(f"{event.answer}\n    {event.error}")
    result = await handler
    print(f"{result.defense.model_dump_json()}\n    valid, at attempt {result.attempts}")


if __name__ == "__main__":
    asyncio.run(main())
