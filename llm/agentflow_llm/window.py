"""The newest part of a conversation that fits a limit of tokens, such that a model can be sent it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING

from .messages import ChatMessage, ToolResultPart

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .messages import AnyPart, Role
    from .tokens import TokenCounter


@dataclass(frozen=True, slots=True)
class Window:
    """What of a conversation a model is sent.

    - `front`: messages of the system that are older than the rest; `rest`: what was said last. Oldest first.
    - `reach`: how many of the newest messages of the conversation `rest` is made of, incomplete turns included.
    - `tokens`: of all of it; 0 where there is no limit, for then nothing is counted.
    - `over_limit`: whether what must stay is more than the limit.
    """

    front: list[ChatMessage] = field(default_factory=list[ChatMessage])
    rest: list[ChatMessage] = field(default_factory=list[ChatMessage])
    reach: int = 0
    tokens: int = 0
    over_limit: bool = False

    @property
    def messages(self) -> list[ChatMessage]:
        """All of it, oldest first."""
        return [*self.front, *self.rest]


@dataclass(slots=True)
class _Turn:
    """Messages that are sent together or not at all, oldest first; none where what stood there cannot be sent.

    `reach`: how many messages from the end it begins.
    """

    messages: list[ChatMessage]
    reach: int
    tokens: int = 0

    def is_from(self, role: Role) -> bool:
        """Whether one of this role begins it."""
        return bool(self.messages) and self.messages[0].role == role


def window(messages: Sequence[ChatMessage], limit: int | None, counter: TokenCounter) -> Window:
    """The newest messages that fit `limit` tokens, None for all; in their order.

    - Messages of the system stay, wherever they stood.
    - A message that calls tools and the results right behind it are one: they stay together, or go together. Calls
      without all of their results, and results without their call, are left out, whatever the limit.
    - The newest turn stays, whatever its size.
    - Where something is left out, the rest begins with a message of the user, if it holds one.
    """
    return window_back(
        reversed(messages), [message for message in messages if message.role == "system"], limit, counter
    )


def window_back(
    newest_first: Iterable[ChatMessage], systems: Sequence[ChatMessage], limit: int | None, counter: TokenCounter
) -> Window:
    """As `window`, reading no further back than it needs.

    `systems` are all messages of the system, oldest first; `newest_first` gives them, too, in their places.
    """
    used = counter.count(systems) if limit is not None and systems else 0
    turns: list[_Turn] = []
    spoken = complete = False
    for turn in _turns(newest_first):
        if turn.messages and limit is not None and not turn.is_from("system"):
            turn.tokens = counter.count(turn.messages)
            if spoken and used + turn.tokens > limit:
                break
            spoken = True
        used += turn.tokens
        turns.append(turn)
    else:
        complete = True
    if not complete:
        used -= _begin_well(turns)
    turns.reverse()
    reach = turns[0].reach if turns else 0
    rest = [message for turn in turns for message in turn.messages]
    opening = list(takewhile(lambda message: message.role == "system", rest))
    older = len(systems) - sum(turn.is_from("system") for turn in turns)
    return Window([*systems[:older], *opening], rest[len(opening) :], reach, used, limit is not None and used > limit)


def _begin_well(turns: list[_Turn]) -> int:
    """Drop turns, the newest of which comes first, from the end, until a user's is last, or the oldest that spoke.

    Returns the tokens that were dropped.
    """
    first = next((turn for turn in reversed(turns) if turn.is_from("user")), None)
    if first is None:
        first = next(turn for turn in reversed(turns) if turn.messages and not turn.is_from("system"))
    dropped = 0
    while turns[-1] is not first:
        dropped += turns.pop().tokens
    return dropped


def _turns(newest_first: Iterable[ChatMessage]) -> Iterator[_Turn]:
    """The turns of a conversation, the newest first."""
    answers: list[ChatMessage] = []
    reach = 0
    for reach, message in enumerate(newest_first, 1):
        if message.role == "tool":
            answers.append(message)
        elif message.role == "system":
            yield _Turn([message], reach)
            answers = []
        else:
            yield _Turn(_sendable(message, answers), reach)
            answers = []
    if answers:
        yield _Turn([], reach)


def _sendable(message: ChatMessage, answers: list[ChatMessage]) -> list[ChatMessage]:
    """A message and the results behind it, the newest of which comes first; nothing where one of its calls has none.

    What answers none of its calls is left out.
    """
    if message.tool_results:
        others = [part for part in message.content if not isinstance(part, ToolResultPart)]
        if not others:
            return []
        message = _with(message, others)
    calls = message.tool_calls
    if not calls:
        return [message]
    open_calls = Counter(call.id for call in calls)
    turn = [message]
    for answer in reversed(answers):
        parts: list[AnyPart] = []
        for part in answer.content:
            if isinstance(part, ToolResultPart):
                open_calls[part.call_id] -= 1
                if open_calls[part.call_id] >= 0:
                    parts.append(part)
        if parts:
            turn.append(answer if len(parts) == len(answer.content) else _with(answer, parts))
    return [] if any(number > 0 for number in open_calls.values()) else turn


def _with(message: ChatMessage, parts: Sequence[AnyPart]) -> ChatMessage:
    return message.model_copy(update={"content": tuple(parts)})
