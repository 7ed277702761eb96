"""What becomes of messages that no longer fit: once each, they are handed to a model, in pieces that it can take."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from .errors import LLMError
from .memory import ChatMemory
from .messages import ChatMessage, ImagePart
from .transcript import Digest
from .window import window_back

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable
    from pathlib import Path

    from .tokens import TokenCounter
    from .transcript import Put, View

_SHORTEST = 200


class _Overdue(NamedTuple):
    """Messages that have left the window, and that no digest has yet."""

    before: Digest
    messages: list[ChatMessage]
    last: ChatMessage
    upto: int


class DigestingMemory(ChatMemory):
    """A `ChatMemory` that makes something of what leaves the window: `digest` says what.

    It does so within `aput`, when the messages that are not digested are more than `token_limit`: the older half of
    them then. Where the model fails they stay, and are tried again with the next `aput`; they are too old to be sent
    meanwhile. Two that put at once, also of two processes, do not digest the same twice in what is kept.
    """

    verb: ClassVar[str]
    """The name of the operation, and of what is kept."""

    def __init__(
        self,
        messages: Iterable[ChatMessage] = (),
        *,
        session: str = "default",
        token_limit: int | None = None,
        counter: TokenCounter | None = None,
        file: str | Path | None = None,
    ) -> None:
        super().__init__(messages, session=session, token_limit=token_limit, counter=counter, file=file)
        self._lock: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None
        self._room: tuple[int, int] | None = None
        """How many messages there were, and how many more tokens would have fitted then, where that is known."""
        self._failures = 0

    async def aput(self, *messages: ChatMessage) -> None:
        """See `Memory.aput`."""
        self._check(messages)
        if not messages:
            return
        with self._operation("put", messages):
            put = await self._transcript.put(messages)
        if self.token_limit is not None and not self._fits(put):
            await self._catch_up(self.token_limit)

    @abstractmethod
    async def digest(self, before: str, messages: list[ChatMessage]) -> str:
        """Make something of messages; what it returns is kept, and is `before` the next time. Raises `LLMError`."""

    def reserved(self, digest: Digest) -> int:  # noqa: ARG002 because a subclass needs it
        """How many tokens of the limit something else takes than messages."""
        return 0

    def _fits(self, put: Put) -> bool:
        """Whether nothing can have left the window: known without reading where nobody else has put anything."""
        room, self._room = self._room, None
        if room is None or put.first != room[0]:
            return False
        left = room[1] - self.counter.count(put.added)
        self._room = put.first + len(put.added), left
        return left >= 0

    async def _catch_up(self, limit: int) -> None:
        failures = self._failures
        async with self._one_at_a_time():
            if self._failures != failures:  # it was tried just now, while this one waited
                return
            while (overdue := await self._transcript.look(lambda view: self._overdue(view, limit))) is not None:
                made = overdue.before.text
                if overdue.messages:
                    try:
                        with self._operation(self.verb, overdue.messages):
                            made = await self.digest(made, overdue.messages)
                    except LLMError:  # the operation has told it, and nothing is lost
                        self._failures += 1
                        return
                await self._transcript.advance(self.verb, overdue.before, Digest(overdue.upto, made), overdue.last)

    def _overdue(self, view: View, limit: int) -> _Overdue | None:
        """The next piece to digest, if there is one."""
        before = view.digest(self.verb)
        systems = view.systems()
        limit -= self.reserved(before)
        full = window_back(view.newest_first(before.upto), systems, limit, self.counter)
        if before.upto + full.reach == view.length:
            self._room = view.length, limit - full.tokens
            return None
        fixed = self.counter.count(systems)
        half = fixed + max(0, limit - fixed) // 2
        kept = window_back(view.newest_first(before.upto), systems, half, self.counter)
        old = self._piece(view.between(before.upto, view.length - kept.reach))
        said = [message for message in old if message.role != "system"]
        return _Overdue(before, said, old[-1], before.upto + len(old))

    def _piece(self, messages: list[ChatMessage]) -> list[ChatMessage]:
        """The first of them, up to about the limit: a model that is sent the window can take as much of them."""
        tokens = 0
        for place, message in enumerate(messages):
            tokens += self.counter.count([message])
            # results stay with their calls
            if place and tokens > (self.token_limit or tokens) and message.role != "tool":
                return messages[:place]
        return messages

    @asynccontextmanager
    async def _one_at_a_time(self) -> AsyncGenerator[None]:
        """Tasks of one event loop wait for each other; between loops and processes the first that is done counts."""
        loop = asyncio.get_running_loop()
        if self._lock is None or self._lock[0] is not loop:
            self._lock = loop, asyncio.Lock()
        async with self._lock[1]:
            yield

    def written(self, messages: list[ChatMessage]) -> str:
        """Messages as one text, for a prompt; one of more tokens than the limit is shortened."""
        limit = self.token_limit or 0
        return "\n\n".join(shortened(_as_text(one), self.counter.count([one]), limit) for one in messages)


def shortened(text: str, tokens: int, limit: int) -> str:
    """A text of so many tokens, without its middle where they are more than the limit."""
    if tokens <= limit:
        return text
    half = max(_SHORTEST, len(text) * limit // tokens) // 2
    left_out = len(text) - 2 * half
    return text if left_out <= 0 else f"{text[:half]}\n[{left_out} characters left out]\n{text[-half:]}"


def _as_text(message: ChatMessage) -> str:
    said = [message.text] if message.text else []
    said += ["[a picture]" for part in message.content if isinstance(part, ImagePart)]
    said += [f"[calls {call.name} with {call.arguments}]" for call in message.tool_calls]
    said += [f"[{result.name} returned] {result.content}" for result in message.tool_results]
    return f"{message.role}: {' '.join(said)}"
