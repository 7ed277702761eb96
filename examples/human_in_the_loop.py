"""A story that a model and a person write in turns: the run waits for the person, as long as it takes.

    python examples/human_in_the_loop.py

Choose by number, or type what happens next; an empty line ends the story. While it waits, the run can be put away with
`handler.ctx.to_json()`, and go on in another process with `Context.from_json(workflow, text)`.
"""

import asyncio
import signal
import sys
from textwrap import fill
from typing import Annotated

from pydantic import BaseModel

from agentflow import (
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Resource,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from agentflow_llm import ChatMessage, ChatModel, ScriptedModel

PROMPT = "Tell the next part of this story in a few sentences, and three things that could happen next.\n\n{story}"


class Segment(BaseModel):
    """What the model is asked for, each time. Without choices the story is over."""

    plot: str
    choices: list[str]


class Beginning(StartEvent):
    hero: str


class Continue(Event):
    pass


class YourTurn(InputRequiredEvent):
    plot: str
    choices: list[str]


class Choice(HumanResponseEvent):
    text: str


class Story(StopEvent):
    parts: list[str]


def choose_model() -> ChatModel:
    """A model whose text is written down, so that the example runs anywhere: write OpenAI("gpt-4o-mini") instead."""
    return ScriptedModel(
        [
            Segment(
                plot="One morning the great lamp of the lighthouse was gone. In its place lay a small brass key.",
                choices=["She tries the key in the cellar door.", "She rows out to ask the fishermen."],
            ),
            Segment(
                plot="She did not come far: from below somebody hummed the tune that the lamp used to turn to.",
                choices=["She hums along.", "She holds her breath and listens."],
            ),
            Segment(plot="Then the whole tower began to turn, slowly, and every window of it shone.", choices=[]),
        ]
    )


class WriteStory(Workflow[Beginning, Story]):
    @step
    async def begin(self, ctx: Context, ev: Beginning) -> Continue:
        await ctx.set("parts", [f"There was {ev.hero}."])
        return Continue()

    @step
    async def tell(
        self, ctx: Context, ev: Continue, llm: Annotated[ChatModel, Resource(choose_model)]
    ) -> YourTurn | Story:
        parts: list[str] = await ctx.get("parts")
        prompt = PROMPT.format(story="\n".join(parts))
        reply = await llm.chat([ChatMessage(role="user", content=prompt)], output=Segment)
        assert isinstance(reply.output, Segment)
        await ctx.set("parts", [*parts, reply.output.plot])
        if not reply.output.choices:
            return Story(parts=[*parts, reply.output.plot])
        return YourTurn(plot=reply.output.plot, choices=reply.output.choices)

    @step
    async def listen(self, ctx: Context, ev: Choice) -> Continue | Story:
        parts: list[str] = await ctx.get("parts")
        if not ev.text:
            return Story(parts=parts)
        await ctx.set("parts", [*parts, ev.text])
        return Continue()


def ask(turn: YourTurn) -> str:
    print(turn.plot)
    for number, choice in enumerate(turn.choices, start=1):
        print(f"  {number}. {choice}")
    text = sys.stdin.readline().strip()  # "" at its end
    return turn.choices[int(text) - 1] if text.isdigit() and 0 < int(text) <= len(turn.choices) else text


async def main() -> None:
    handler = WriteStory().run(hero="a woman who kept a lighthouse")
    async for event in handler.stream_events():
        if isinstance(event, YourTurn):
            text = await asyncio.to_thread(ask, event)  # the program goes on while somebody thinks
            handler.ctx.send_event(Choice(text=text))
    story = await handler
    print(fill(" ".join(story.parts), 100))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once, also while a thread waits for a line
    asyncio.run(main())
