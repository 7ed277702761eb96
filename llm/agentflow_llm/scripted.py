"""A model whose answers are written down beforehand, for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from .chat import BaseChatModel
from .messages import ChatMessage, Reply, TextPart, ToolCallPart

if TYPE_CHECKING:
    from types import TracebackType

    from agentflow.retry import RetryPolicy

    from .records import ChatCall

Said = str | ToolCallPart | Sequence[str | ToolCallPart] | Reply | Exception
"""What a turn is: a text, a tool call, several of these, a whole reply, or an error to raise."""

Turn = Said | Callable[[Sequence[ChatMessage]], Said]
"""A turn may also be worked out from the messages."""


class ScriptedModel(BaseChatModel):
    """Answers each call with the next of `turns`; a call after the last one fails, and so do turns left over.

    ```
    with ScriptedModel([ToolCallPart(id="1", name="search", arguments='{"query": "x"}'), "Found it."]) as model:
        ...
    ```

    `calls` are the requests that it got, as `ChatCall`, each with the messages as they were then.
    """

    def __init__(self, turns: Sequence[Turn], *, retry: RetryPolicy | None = None) -> None:
        super().__init__("scripted", "scripted", retry=retry)
        if isinstance(turns, str):
            turns = [turns]
        self._turns = list(turns)
        self.calls: list[ChatCall] = []

    async def answer(self, call: ChatCall) -> Reply:
        """The next turn. Raises `AssertionError` where there is none."""
        self.calls.append(replace(call, messages=list(call.messages)))
        turn = len(self.calls)
        if turn > len(self._turns):
            last = repr(call.messages[-1]) if call.messages else "no message at all"
            raise AssertionError(
                f"ScriptedModel has {len(self._turns)} turns, and was called a time more. It was sent "
                f"{len(call.messages)} messages, the last of them {last}. Add a turn, or find out why it was called."
            )
        said: Any = self._turns[turn - 1]
        if callable(said):
            said = said(call.messages)
        if isinstance(said, Exception):
            raise said
        return said if isinstance(said, Reply) else _reply(said, turn)

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


def _reply(said: str | ToolCallPart | Sequence[str | ToolCallPart], turn: int) -> Reply:
    parts = [said] if isinstance(said, str) or not isinstance(said, Sequence) else said
    everything: Sequence[object] = parts
    wrong = [part for part in everything if not isinstance(part, str | ToolCallPart)]
    if wrong:
        raise AssertionError(
            f"Turn {turn} of ScriptedModel holds {wrong[0]!r}. A turn is a str, a ToolCallPart, a list of these, "
            "a Reply, an exception, or a function of the messages that returns one of them."
        )
    content = tuple(TextPart(text=part) if isinstance(part, str) else part for part in parts)
    reason = "tool_calls" if any(isinstance(part, ToolCallPart) for part in parts) else "stop"
    return Reply(message=ChatMessage(role="assistant", content=content), finish_reason=reason, model="scripted")
