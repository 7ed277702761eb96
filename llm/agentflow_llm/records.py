"""What a client tells observers of a call: the subjects of its operations. Nothing in them is copied."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 because pydantic looks for it where a Passage is a field of an event
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .messages import ChatMessage, ToolDefinition
    from .output import OutputFormat


class Progress:
    """How far a call has come: there is one for each call, and all copies of its record have it."""

    attempts: int = 0
    """How many were begun."""
    http_requests: int = 0
    """How many were sent, also those that nobody has told of yet."""
    queued: str | None = None
    """Whose limits it waits for now."""
    stopgap: bool = False
    """Whether a client answered last that stands in for another."""
    asked: tuple[str, str, str | None, int | None] | None = None
    """Who was asked last, where a `Fallback` has several: provider, model, and the server's address and port."""

    def counted(self, http_requests: int) -> None:
        """So many at the least were sent; a client may count for itself, and tell when it has failed or answered."""
        self.http_requests = max(self.http_requests, http_requests)


@dataclass(frozen=True, slots=True)
class ChatCall:
    """The subject of a chat operation, whose name is the model asked for and whose result is a `Reply`.

    Notes on it:

    - `retry`, before each wait for another attempt: `attempt` (the number of the one that failed, from 1), `wait`
      (seconds), `error` (the exception), `status` (HTTP, or None), `retry_after` (what the server asked for, in
      seconds, or None).
    - `first_chunk`, when the first piece of a streamed answer came: `after` (seconds since the call began).
    - `rate_limit`, when a wait for the rate limit is over: `wait` (seconds), `because` ("requests", "tokens",
      "concurrency" or "retry_after"), `key` (whose limit).
    - `fallback`, when another model is asked instead: `id` (provider and model that failed, "openai/gpt-4o"), `to`
      (likewise), `error` (the exception); `parameters` and `extra`, each where it is sent others than the one that
      failed: the record itself has what the first is sent.
    - `cache`, when a cache was looked into: `hit` (True or False).
    - `repair`, when the model is asked to correct its output: `attempt` (from 1), `error` (the exception).
    - `choices_ignored`: `ignored` (how many answers beside the first there were).
    """

    provider: str
    model: str
    messages: Sequence[ChatMessage]
    tools: Sequence[ToolDefinition] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What is asked for by name: temperature, max_tokens, stop, seed, reasoning, tool_choice..., where given.

    The call has given it, or else the constructor of the model.
    """
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Further fields of the request, sent as they are."""
    server_address: str | None = None
    server_port: int | None = None
    output: OutputFormat | None = None
    """The shape that the answer is to have."""
    said: tuple[Mapping[str, Any], Mapping[str, Any]] | None = field(default=None, repr=False, compare=False)
    """The `parameters` and `extra` of the call itself. None where the model's constructor has added nothing."""
    streamed: bool = False
    """Whether the answer is to come in pieces."""
    deadline: float | None = None
    """When the caller's patience ends, by the monotonic time of the clock in force."""
    noting: Callable[[str, dict[str, Any]], None] | None = None
    """Notes something on the operation: name and facts. None where nobody listens; then no facts need be made."""
    limits: frozenset[str] = frozenset()
    """Whose limits have let it through, and count it until it ends."""
    progress: Progress = field(default_factory=Progress, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class EmbeddingsCall:
    """The subject of an embeddings operation, whose name is the model and whose result is an `Embeddings`.

    Notes on it: `retry`, `rate_limit`, `fallback` and `cache`, as on a `ChatCall`.
    """

    provider: str
    model: str
    texts: Sequence[str]
    dimensions: int | None = None
    server_address: str | None = None
    server_port: int | None = None
    deadline: float | None = None
    noting: Callable[[str, dict[str, Any]], None] | None = None
    limits: frozenset[str] = frozenset()
    progress: Progress = field(default_factory=Progress, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document that a retrieval found. A larger score is a better match."""

    id: str
    text: str
    score: float
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class RetrievalCall:
    """The subject of a retrieval operation, whose name is the source and whose result is a list of `Passage`."""

    source: str
    query: str
    top_k: int


@dataclass(frozen=True, slots=True)
class RerankCall:
    """The subject of a rerank operation, whose name is the model and whose result is a list of `Passage`."""

    model: str
    query: str
    passages: Sequence[Passage]
    top_k: int


@dataclass(frozen=True, slots=True)
class MemoryCall:
    """The subject of a memory operation, whose name is "put", "get", "summarise", "extract", "recall" or "delete".

    Its result is the messages that were got, or None. Notes on it: `trimmed`, where messages were left out to keep
    to the limit: `messages` (how many), `tokens` (estimated, of what is left); `over_limit`, where what must stay is
    more than the limit: `tokens`, `limit`.
    """

    memory: str
    """Which kind: the class's name."""
    session: str
    messages: Sequence[ChatMessage] = ()
    """What is put."""
    query: str = ""
