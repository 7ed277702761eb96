"""What a conversation remembers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .messages import ChatMessage


@runtime_checkable
class Memory(Protocol):
    """Messages of one conversation, kept somewhere. What one `aput` was given stays together, in its order."""

    async def aput(self, *messages: ChatMessage) -> None:
        """Append messages."""
        ...

    async def aget(self) -> list[ChatMessage]:
        """The messages to send to a model now, oldest first; a list of the caller's own."""
        ...


class ChatMemory:
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

    async def aget(self) -> list[ChatMessage]:
        """See `Memory.aget`."""
        return list(self._messages)
