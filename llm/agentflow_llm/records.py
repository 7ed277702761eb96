"""What a client tells observers of a call: the subjects of its operations. Nothing in them is copied."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .messages import ChatMessage, ToolDefinition


@dataclass(frozen=True, slots=True)
class ChatCall:
    """The subject of a chat operation, whose name is the model asked for and whose result is a `Reply`.

    Notes on it: `retry`, before each wait for another attempt, with `attempt` (the number of the one that
    failed, from 1), `wait` (seconds), `error` (the exception), `status` (HTTP, or None) and
    `retry_after` (what the server asked for, in seconds, or None).
    """

    provider: str
    model: str
    messages: Sequence[ChatMessage]
    tools: Sequence[ToolDefinition] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What was asked for by name: temperature, max_tokens, stop, seed, tool_choice..., where given."""
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Further fields of the request, sent as they are."""
    server_address: str | None = None
    server_port: int | None = None


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
