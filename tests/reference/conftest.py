"""What the documents share: the server behind their models, and their first workflow."""

from collections.abc import Iterator
from typing import Any

import pytest

from agentflow import StartEvent, StopEvent, Workflow, step
from agentflow_llm import OpenAI

from .stand_ins import JokeEvent, Parrot


@pytest.fixture
def parrot(monkeypatch: pytest.MonkeyPatch) -> Iterator[Parrot]:
    """Where `OpenAI(...)` asks while the test lasts."""
    with Parrot() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        yield server


@pytest.fixture
def joke_flow(parrot: Parrot) -> Any:
    """000.2, of which 000.4 to 000.6 are parts, and its copies. It is made where the server's address is known."""

    class JokeFlow(Workflow):
        llm = OpenAI(model="gpt-4o-mini")

        @step
        async def generate_joke(self, ev: StartEvent) -> JokeEvent:
            topic = ev.topic

            prompt = f"Write your best joke about {topic}."
            response = await self.llm.acomplete(prompt)
            return JokeEvent(joke=str(response))

        @step
        async def critique_joke(self, ev: JokeEvent) -> StopEvent:
            joke = ev.joke

            prompt = f"Give a thorough analysis and critique of the following joke: {joke}"
            response = await self.llm.acomplete(prompt)
            return StopEvent(result=str(response))

    return JokeFlow
