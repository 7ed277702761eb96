"""An answer to a prompt, as text that may still grow."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Completion:
    """What a model said: `str(completion)` and `text` are all of it so far, `delta` is the newest piece."""

    __slots__ = ("_many", "_said", "delta")

    def __init__(self, said: Sequence[str], many: int, delta: str) -> None:
        # one list serves all parts of a stream: the text is put together only for who asks for it
        self._said = said
        self._many = many
        self.delta = delta

    @property
    def text(self) -> str:
        """All of it so far."""
        return "".join(self._said[: self._many])

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Completion({self.text!r})"
