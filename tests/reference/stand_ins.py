"""What the documents take from elsewhere: a server for their models, and as small as it can be what is not here."""

import re
from pathlib import Path
from typing import Any

from agentflow import Event
from agentflow_llm import TextPart
from agentflow_llm.index import VectorStoreIndex
from agentflow_llm.server import LoopbackServer


class Parrot(LoopbackServer):
    """A server whose model repeats the prompt in brackets."""

    def __init__(self) -> None:
        super().__init__(lambda body: TextPart(text=f"[{_prompt(body)}]"))

    @property
    def prompts(self) -> list[str]:
        """What it was sent."""
        return [_prompt(request.json) for request in self.requests]


def _prompt(body: Any) -> str:
    return str(body["messages"][-1]["content"])


class QueryEngine:
    """Answers with the best passage of an index."""

    def __init__(self, index: VectorStoreIndex) -> None:
        self.index = index

    async def aquery(self, question: str) -> str:
        """Its text."""
        passages = await self.index.as_retriever(similarity_top_k=1).aretrieve(question)
        return passages[0].text


class Synthesizer:
    """Joins what was found."""

    def synthesize(self, query: str, nodes: list[str]) -> str:
        """One line."""
        return f"{query}: {', '.join(nodes)}"


def get_response_synthesizer() -> Synthesizer:
    """As the documents call it."""
    return Synthesizer()


class JokeEvent(Event):
    """000.3: an event of one's own, a pydantic model."""

    joke: str


def critique_of(topic: str) -> str:
    """What JokeFlow comes to with the model above."""
    return f"[Give a thorough analysis and critique of the following joke: [Write your best joke about {topic}.]]"


def shows(page: Path, *names: str) -> bool:
    """Is this a drawing in which all of these names stand?"""
    drawing = page.read_text(encoding="utf-8").partition("<svg")[2].partition("</svg>")[0]
    return {label.strip() for label in re.findall(r">([^<>]+)<", drawing)}.issuperset(names)
