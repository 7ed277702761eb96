"""A model whose answers are written down beforehand, for tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self, Unpack, cast

from pydantic import BaseModel

from .chat import BaseChatModel
from .messages import ChatMessage, Delta, Part, ReasoningPart, RefusalPart, Reply, TextPart, ToolCallPart
from .stream import pieces_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from types import TracebackType

    from .backoff import Policy
    from .messages import AnyPart
    from .model import ModelOptions
    from .records import ChatCall

Piece = str | TextPart | ReasoningPart | RefusalPart | ToolCallPart
Said = Piece | Sequence[Piece | Delta | Exception] | Reply | BaseModel | Mapping[str, Any] | Exception
"""What a turn is:

- a text, a tool call or another part, or several of these in a list;
- a whole `Reply`, where its usage or finish reason matters;
- a pydantic object or a mapping, whose JSON is the answer, for `output=`;
- a list of `Delta`, for a stream in just these pieces;
- an exception to raise; as the last of a list, after what stands before it.
"""

Turn = Said | Callable[[Sequence[ChatMessage]], Said]
"""A turn may also be worked out from the messages."""


class ScriptedModel(BaseChatModel):
    """Answers each call with the next of `turns`; a call after the last one fails, and so do turns left over.

    ```
    with ScriptedModel([ToolCallPart(id="1", name="search", arguments='{"query": "x"}'), "Found it."]) as model:
        ...
    ```

    A single turn needs no list. A turn may be plain or streamed, whichever is asked for; text is streamed word by
    word. `calls` are the requests that it got, as `ChatCall`. It never waits but for its retries: in tests of those,
    `agentflow.testing.FakeClock` lets no time pass.
    """

    def __init__(
        self, turns: Sequence[Turn] | Turn, *, retry: Policy | None = None, **options: Unpack[ModelOptions]
    ) -> None:
        super().__init__("scripted", "scripted", retry=retry, **options)
        several = isinstance(turns, Sequence) and not isinstance(turns, str)
        self._turns: list[Any] = list(cast("Sequence[Any]", turns)) if several else [turns]
        self.calls: list[ChatCall] = []

    async def answer(self, call: ChatCall) -> Reply:
        """The next turn. Raises `AssertionError` where there is none."""
        turn = self._next(call)
        if turn.error is not None:
            raise turn.error
        return turn.reply

    async def deltas(self, call: ChatCall) -> AsyncGenerator[Delta | Reply]:
        """The next turn, in pieces."""
        turn = self._next(call)
        for delta in turn.deltas or pieces_of(turn.reply):
            yield delta
        if turn.error is not None:
            raise turn.error
        yield turn.reply

    def _next(self, call: ChatCall) -> _Turn:
        self.calls.append(replace(call, messages=list(call.messages)))  # lists, as tests compare them with lists
        number = len(self.calls)
        if number > len(self._turns):
            last = repr(call.messages[-1]) if call.messages else "no message at all"
            raise AssertionError(
                f"ScriptedModel has {len(self._turns)} turns, and was called a time more. It was sent "
                f"{len(call.messages)} messages, the last of them {last}. Add a turn, or find out why it was called."
            )
        said: Any = self._turns[number - 1]
        if callable(said):
            said = said(call.messages)
        return _turn(said, number)

    def assert_done(self) -> None:
        """Raise `AssertionError` if turns are left."""
        used = len(self.calls)
        if used < len(self._turns):
            raise AssertionError(
                f"ScriptedModel was called {used} times, but has {len(self._turns)} turns. Next would have been "
                f"{self._turns[used]!r}."
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None:
            self.assert_done()


@dataclass(frozen=True)
class _Turn:
    """What is answered; the pieces, where they are given; the error at the end, if there is one."""

    reply: Reply
    deltas: Sequence[Delta] = ()
    error: Exception | None = None


def _turn(said: Any, number: int) -> _Turn:
    if isinstance(said, Reply):
        return _Turn(said)
    if isinstance(said, BaseModel) and not isinstance(said, Part | Delta):
        said = said.model_dump_json()
    elif isinstance(said, Mapping):
        said = json.dumps(said, ensure_ascii=False)
    several = isinstance(said, Sequence) and not isinstance(said, str)
    pieces: list[object] = [*cast("Sequence[object]", said)] if several else [said]
    error = pieces.pop() if pieces and isinstance(pieces[-1], Exception) else None
    assert error is None or isinstance(error, Exception)  # for the type checkers: they cannot follow pop()
    deltas = [piece for piece in pieces if isinstance(piece, Delta)]
    if deltas and len(deltas) == len(pieces):
        return _Turn(_reply(_put_together(deltas)), deltas, error)
    wrong = next((piece for piece in pieces if not isinstance(piece, Piece)), None)
    if wrong is not None:
        mixed = " beside what is none" if isinstance(wrong, Delta) else ""
        raise AssertionError(
            f"Turn {number} of ScriptedModel holds {wrong!r}{mixed}. A turn is a str, a ToolCallPart or another part, "
            "a list of these or of Delta, a Reply, an object to be given as JSON, an exception, or a function of the "
            "messages that returns one of them."
        )
    content = [
        TextPart(text=piece) if isinstance(piece, str) else piece for piece in pieces if isinstance(piece, Piece)
    ]
    return _Turn(_reply(content), (), error)


def _reply(content: Sequence[AnyPart]) -> Reply:
    reason = "tool_calls" if any(isinstance(part, ToolCallPart) for part in content) else "stop"
    return Reply(message=ChatMessage(role="assistant", content=content), finish_reason=reason, model="scripted")


def _put_together(deltas: Sequence[Delta]) -> list[AnyPart]:
    """The parts that deltas make: what was thought, what was said, what was declined, and the calls."""
    texts = {kind: "".join(delta.text for delta in deltas if delta.type == kind) for kind in _KINDS}
    parts: list[AnyPart] = [_KINDS[kind](text=text) for kind, text in texts.items() if text]
    for index in sorted({delta.index for delta in deltas if delta.type == "tool_call"}):
        pieces = [delta for delta in deltas if delta.type == "tool_call" and delta.index == index]
        ident = next((delta.id for delta in pieces if delta.id), f"call_{index + 1}")
        name = next((delta.name for delta in pieces if delta.name), "")
        parts.append(ToolCallPart(id=ident, name=name, arguments="".join(delta.text for delta in pieces)))
    return parts


_KINDS: Mapping[str, type[ReasoningPart | TextPart | RefusalPart]] = {
    "reasoning": ReasoningPart,
    "text": TextPart,
    "refusal": RefusalPart,
}
