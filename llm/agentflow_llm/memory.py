"""What a conversation remembers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import islice
from typing import TYPE_CHECKING

from agentflow.errors import AgentflowError, shown
from agentflow.observe import Kind, operation

from .loose import well_formed
from .messages import ChatMessage
from .records import MemoryCall
from .tokens import TokenCounter, TokenEstimator
from .transcript import FileTranscript, MemoryTranscript
from .window import window_back

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from agentflow.observe import Opened

    from .transcript import Transcript, View
    from .window import Window

_LAST = 6
_LONGEST = 200
"""How many messages, and how many characters of each, are shown of a memory."""


class MemoryInputError(AgentflowError, ValueError):
    """What was given to a memory cannot be taken."""


class Memory(ABC):
    """Messages of one conversation, kept somewhere. What one `aput` was given stays together, in its order.

    A subclass says how, in `put`, `get` and `clear`; what agents call, `aput`, `aget` and `aclear`, checks what it is
    given and makes it an operation.
    """

    session: str = "default"
    """The conversation's name."""

    @staticmethod
    def from_defaults(session: str = "default", token_limit: int | None = None) -> ChatMemory:
        """A conversation in memory, by its name, of which models are sent at most so many tokens."""
        return ChatMemory(session=session, token_limit=token_limit)

    async def aput(self, *messages: ChatMessage) -> None:
        """Append messages. Raises `MemoryInputError`."""
        self._check(messages)
        if messages:
            with self._operation("put", messages):
                await self.put(messages)

    async def aget(self, query: str = "") -> list[ChatMessage]:
        """The messages to send to a model now, oldest first; a list of the caller's own.

        `query`: what comes next, for memories that look things up. Raises `MemoryInputError`.
        """
        self._check_query("aget", query)
        with self._operation("get", query=query) as seen:
            messages = await self.get(query)
            if seen is not None:
                seen.op.result = messages
            return messages

    async def aclear(self) -> None:
        """Forget all of it."""
        with self._operation("delete"):
            await self.clear()

    @abstractmethod
    async def put(self, messages: Sequence[ChatMessage]) -> None:
        """Append messages, one or more; they stay together."""

    @abstractmethod
    async def get(self, query: str) -> list[ChatMessage]:
        """The messages to send to a model now, in a new list."""

    @abstractmethod
    async def clear(self) -> None:
        """Forget all of it."""

    def _operation(
        self, name: str, messages: Sequence[ChatMessage] = (), query: str = ""
    ) -> AbstractContextManager[Opened | None]:
        return operation(Kind.MEMORY, name, MemoryCall(type(self).__name__, self.session, messages, query))

    def _check(self, messages: Sequence[object]) -> None:
        wrong = next((message for message in messages if not isinstance(message, ChatMessage)), None)
        if wrong is not None:
            given = shown(wrong)
            line = "aput(*messages)" if isinstance(wrong, list) else 'aput(ChatMessage(role="user", content="..."))'
            raise MemoryInputError(f"{type(self).__name__} was given {given}, which is no message. Write {line}.")

    def _check_query(self, name: str, query: object) -> None:
        if not isinstance(query, str):
            raise MemoryInputError(f'{name}({shown(query)}): a query is a string. Write {name}("...").')


class ChatMemory(Memory):
    """A conversation, kept whole, of which models are sent the newest part.

    - `messages`: put at once.
    - `session`: the conversation's name. In a file it says which of the conversations this is.
    - `token_limit`: of what `aget` gives; None for all. See `window` for what stays and what goes.
    - `counter`: says how many tokens messages are; a `TokenEstimator` by default.
    - `file`: the SQLite file that keeps it; None for memory. Sessions, tasks, threads and processes may share one.

    A message whose id it has already is not put again, so that a step that is repeated puts nothing twice.
    `len()` is the number of messages that were put. Raises `MemoryInputError`, `StorageError`.
    """

    def __init__(
        self,
        messages: Iterable[ChatMessage] = (),
        *,
        session: str = "default",
        token_limit: int | None = None,
        counter: TokenCounter | None = None,
        file: str | Path | None = None,
    ) -> None:
        check_settings(type(self).__name__, session, token_limit, counter)
        self.session = well_formed(session)
        self.token_limit = token_limit
        self.counter: TokenCounter = TokenEstimator() if counter is None else counter
        self._transcript: Transcript = MemoryTranscript() if file is None else FileTranscript(file, self.session)
        given = tuple(messages)
        if given:
            self._check(given)
            self._transcript.put_now(given)

    def __repr__(self) -> str:
        number, last = self._transcript.look_now(lambda view: (view.length, list(islice(view.newest_first(), _LAST))))
        lines = [_cut(repr(message)) for message in reversed(last)]
        if number > len(last):
            lines.insert(0, f"... {number - len(last):,} before these")
        said = "".join(f"\n  {line}" for line in lines)
        return f"<{type(self).__name__}, {number} messages{':' if said else ''}{said}>"

    def __len__(self) -> int:
        return self._transcript.look_now(lambda view: view.length)

    def __bool__(self) -> bool:
        return True  # an empty memory is one, too

    async def aget(self, query: str = "") -> list[ChatMessage]:
        """See `Memory.aget`."""
        self._check_query("aget", query)
        with self._operation("get", query=query) as seen:
            found, left_out = await self._found(query)
            messages = found.messages
            if seen is not None:
                seen.op.result = messages
                self._note(seen, found, left_out)
            return messages

    async def put(self, messages: Sequence[ChatMessage]) -> None:
        """See `Memory.put`. Also where the caller is cancelled all of them are kept, or none."""
        await self._transcript.put(messages)

    async def get(self, query: str) -> list[ChatMessage]:
        """See `Memory.get`."""
        return (await self._found(query))[0].messages

    async def clear(self) -> None:
        """See `Memory.clear`."""
        await self._transcript.clear()

    async def _found(self, query: str) -> tuple[Window, int]:  # noqa: ARG002 because a subclass needs it
        """What a model is sent now, and how many messages were left out of it."""
        return await self._transcript.look(self._window)

    def _window(self, view: View) -> tuple[Window, int]:
        """What a model is sent, and how many messages were left out of it to keep to the limit."""
        found = window_back(view.newest_first(), view.systems(), self.token_limit, self.counter)
        return found, 0 if found.reach == view.length else view.length - len(found.messages)

    def _note(self, seen: Opened, found: Window, left_out: int) -> None:
        """Tell what was left out to keep to the limit, and where the limit could not be kept to."""
        if left_out > 0:
            seen.note("trimmed", {"messages": left_out, "tokens": found.tokens})
        if found.over_limit:
            seen.note("over_limit", {"tokens": found.tokens, "limit": self.token_limit})


def check_settings(kind: str, session: object, token_limit: object, counter: object) -> None:
    """Refuse what every memory refuses. Raises `MemoryInputError`."""
    if not isinstance(session, str) or not session:
        raise MemoryInputError(f'{kind}(session={shown(session)}): it is a name. Write {kind}(session="...").')
    whole = token_limit if isinstance(token_limit, int) and not isinstance(token_limit, bool) else 0
    if token_limit is not None and whole < 1:
        raise MemoryInputError(
            f"{kind}(token_limit={shown(token_limit)}): it is a whole number of 1 or more, or None for no limit."
        )
    if counter is not None and (isinstance(counter, type) or not isinstance(counter, TokenCounter)):
        raise MemoryInputError(
            f"{kind}(counter={shown(counter)}): it has no count(messages). Write counter=TokenEstimator()."
        )


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
