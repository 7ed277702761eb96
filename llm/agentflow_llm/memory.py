"""What a conversation remembers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .messages import ChatMessage


class Memory(ABC):
    """Messages of one conversation, kept somewhere. What one `aput` was given stays together, in its order."""

    @staticmethod
    def from_defaults(session: str = "default", token_limit: int | None = None) -> ChatMemory:
        """A conversation in memory, by its name."""
        raise NotImplementedError

    @abstractmethod
    async def aput(self, *messages: ChatMessage) -> None:
        """Append messages."""

    @abstractmethod
    async def aget(self, query: str = "") -> list[ChatMessage]:
        """The messages to send to a model now, oldest first; a list of the caller's own.

        `query`: what comes next, for memories that look things up.
        """


class ChatMemory(Memory):
    """A conversation in memory, whole: nothing is ever dropped.

    Several tasks of one event loop may use it at once.
    """

    def __init__(self, messages: Iterable[ChatMessage] = ()) -> None:
        self._messages = list(messages)

    def __repr__(self) -> str:
        said = "".join(f"\n  {message!r}" for message in self._messages)
        return f"<ChatMemory, {len(self._messages)} messages{':' if said else ''}{said}>"

    def __len__(self) -> int:
        return len(self._messages)

    async def aput(self, *messages: ChatMessage) -> None:
        """See `Memory.aput`."""
        self._messages.extend(messages)

    async def aget(self, query: str = "") -> list[ChatMessage]:  # noqa: ARG002 because nothing is looked up here
        """See `Memory.aget`."""
        return list(self._messages)
