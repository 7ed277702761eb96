"""What the clients of each kind can do: protocols, each small enough to be implemented on one screen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, runtime_checkable

from .messages import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Unpack

    from pydantic import BaseModel

    from .messages import ChatMessage, Reply, ToolDefinition
    from .output import OutputFormat
    from .records import Passage
    from .stream import ReplyStream


TOOL_CHOICES = ("auto", "none", "required")
"""What `tool_choice` may be beside the name of a tool."""


class ModelOptions(TypedDict, total=False):
    """What a model may say of all its requests, in its constructor, and each request again; None is left out.

    - `temperature`, `seed`: as the server takes them.
    - `max_tokens`: of the answer, thoughts included.
    - `stop`: texts at which the answer ends.
    - `reasoning`: how much the model is to think, "none", "minimal", "low", "medium", "high", or what the server takes.
    - `extra`: further fields of the request, sent as they are.
    """

    temperature: float | None
    max_tokens: int | None
    stop: Sequence[str] | str | None
    seed: int | None
    reasoning: str | None
    extra: Mapping[str, Any] | None


class RequestOptions(ModelOptions, total=False):
    """What a request to a model may say beside its messages: `ModelOptions`, and more; None is left out.

    What it says takes the place of what the model's constructor said; in `extra`, field by field.

    - `tools`: what the model may call.
    - `tool_choice`: "auto", "none", "required", or the name of a tool; the server's default otherwise.
    - `output`: the shape of the answer, a pydantic model or the JSON schema of an object; `Reply.output` has it.
    """

    tools: Sequence[ToolDefinition]
    tool_choice: str | None
    output: type[BaseModel] | Mapping[str, Any] | OutputFormat | None


class ChatOptions(RequestOptions, total=False):
    """What a call of a model may say: `RequestOptions`, and how long it may take.

    - `timeout`: seconds for all of the call, its retries and the whole stream; the model's own otherwise.
    """

    timeout: float | None


@runtime_checkable
class ChatModel(Protocol):
    """A model that one can talk to.

    `provider` is its name in traces (`openai`, `ollama`, `offline`...), `model` the one that is asked for.
    """

    @property
    def provider(self) -> str:
        """Who runs the model, as the OpenTelemetry conventions name providers."""
        ...

    @property
    def model(self) -> str:
        """Which model is asked for."""
        ...

    async def chat(self, messages: Sequence[ChatMessage], **options: Unpack[ChatOptions]) -> Reply:
        """Answer a conversation. The options are those of `ChatOptions`. Raises `LLMError`."""
        ...

    def stream(self, messages: Sequence[ChatMessage], **options: Unpack[ChatOptions]) -> ReplyStream:
        """Answer in pieces: `async for delta in model.stream(messages)`. Otherwise as `chat`."""
        ...


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Texts as vectors, one for each, in their order, all of one length; ours are `array("f")`, 4 bytes a number."""

    vectors: Sequence[Sequence[float]]
    usage: Usage = field(default_factory=Usage)
    model: str = ""


@runtime_checkable
class Embedder(Protocol):
    """Makes vectors of texts, so that texts about the same lie close together."""

    @property
    def provider(self) -> str:
        """Who runs the model."""
        ...

    @property
    def model(self) -> str:
        """Which model is asked for."""
        ...

    async def embed(self, texts: Sequence[str], *, timeout: float | None = None) -> Embeddings:
        """The vectors of these texts. `timeout`: seconds for all of it. Raises `LLMError`."""
        ...


@runtime_checkable
class Reranker(Protocol):
    """Puts passages that were found into a better order."""

    async def rerank(self, query: str, passages: Sequence[Passage], *, top_k: int | None = None) -> list[Passage]:
        """The passages that answer `query` best, the best first, with new scores; `top_k` of them, or all."""
        ...
