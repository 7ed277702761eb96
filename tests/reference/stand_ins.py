"""What the documents take from elsewhere, as small as it can be: a model client, an index, a memory."""

import re
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from agentflow import Event, StartEvent, StopEvent, Workflow, step


class CompletionResponse:
    """What a model said: all of it, and the newest piece."""

    def __init__(self, text: str, delta: str = "") -> None:
        self.text = text
        self.delta = delta

    def __str__(self) -> str:
        return self.text


class OpenAI:
    """A client whose model repeats the prompt, and remembers it."""

    def __init__(self, model: str = "parrot") -> None:
        self.model = model
        self.prompts: list[str] = []

    async def acomplete(self, prompt: str) -> CompletionResponse:
        """The prompt in brackets."""
        self.prompts.append(prompt)
        return CompletionResponse(f"[{prompt}]")

    async def astream_complete(self, prompt: str) -> AsyncIterator[CompletionResponse]:
        """The words of the prompt, one by one."""
        self.prompts.append(prompt)

        async def words() -> AsyncIterator[CompletionResponse]:
            said = ""
            for word in prompt.split():
                said = f"{said} {word}".lstrip()
                yield CompletionResponse(said, delta=word)

        return words()


class Node:
    """A piece of a document."""

    def __init__(self, text: str) -> None:
        self.text = text


class VectorStoreIndex:
    """Pieces of documents; an index, its retriever and its query engine in one."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.nodes = [Node(text) for text in texts]

    def as_retriever(self, similarity_top_k: int) -> "VectorStoreIndex":
        """An index of what would be found."""
        return VectorStoreIndex(node.text for node in self.nodes[:similarity_top_k])

    async def aretrieve(self, query: str) -> list[Node]:
        """All there is: this retriever is not choosy."""
        return self.nodes

    def as_query_engine(self, llm: OpenAI) -> "VectorStoreIndex":
        """Itself: it needs no model."""
        return self

    def query(self, question: str) -> str:
        """The first piece."""
        return self.nodes[0].text


class Synthesizer:
    """Joins what was found."""

    def synthesize(self, query: str, nodes: list[str]) -> str:
        """One line."""
        return f"{query}: {', '.join(nodes)}"


def get_response_synthesizer() -> Synthesizer:
    """As the documents call it."""
    return Synthesizer()


class ChatMessage:
    """One message of a conversation."""

    def __init__(self, role: str, content: str) -> None:
        self.role = role
        self.content = content


class Memory:
    """Messages in order."""

    def __init__(self) -> None:
        self.messages: list[ChatMessage] = []

    @classmethod
    def from_defaults(cls, session_id: str, token_limit: int) -> "Memory":
        """An empty one."""
        return cls()

    def __str__(self) -> str:
        return " / ".join(message.content for message in self.messages) or "nothing"

    async def aput(self, message: ChatMessage) -> None:
        """Add one."""
        self.messages.append(message)


class JokeEvent(Event):
    """The documents' own first event."""

    joke: str


class JokeFlow(Workflow):
    """The documents' own first workflow, for blocks that only use it."""

    llm = OpenAI()

    @step
    async def generate_joke(self, ev: StartEvent) -> JokeEvent:
        """The first step."""
        topic = ev.topic

        prompt = f"Write your best joke about {topic}."
        response = await self.llm.acomplete(prompt)
        return JokeEvent(joke=str(response))

    @step
    async def critique_joke(self, ev: JokeEvent) -> StopEvent:
        """The last step."""
        joke = ev.joke

        prompt = f"Give a thorough analysis and critique of the following joke: {joke}"
        response = await self.llm.acomplete(prompt)
        return StopEvent(result=str(response))


def critique_of(topic: str) -> str:
    """What JokeFlow comes to with the model above."""
    return f"[Give a thorough analysis and critique of the following joke: [Write your best joke about {topic}.]]"


def shows(page: Path, *names: str) -> bool:
    """Is this a drawing in which all of these names stand?"""
    drawing = page.read_text(encoding="utf-8").partition("<svg")[2].partition("</svg>")[0]
    return {label.strip() for label in re.findall(r">([^<>]+)<", drawing)}.issuperset(names)
