"""What every model client can do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .messages import ChatMessage, Reply, ToolDefinition


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

    async def chat(  # noqa: PLR0913 because these are the parameters that models have
        self,
        messages: Sequence[ChatMessage],
        *,
        tools: Sequence[ToolDefinition] = (),
        tool_choice: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] | None = None,
        seed: int | None = None,
        timeout: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Reply:
        """Answer a conversation.

        - `tool_choice`: "auto", "none", "required", or the name of a tool; the server's default where None.
        - `timeout`: seconds for all attempts together.
        - `extra`: further fields of the request, sent as they are.

        Raises `LLMError`.
        """
        ...
