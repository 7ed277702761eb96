"""The ids of traces and spans: new in every process, whatever the program does with `random`."""

from __future__ import annotations

from random import Random

from .fork import after_fork


class Ids:
    """An `IdGenerator` of the SDK whose ids come from a source of their own.

    The SDK's come from that of the module `random`: two processes that call `random.seed(0)`, as programs do that want
    the same results each time, would give different traces the same ids.
    """

    def __init__(self) -> None:
        self._seed()
        after_fork(self._seed)

    def _seed(self) -> None:
        self._bits = Random().getrandbits  # noqa: S311 because ids are no secrets; it begins with the system's randomness

    def generate_span_id(self) -> int:
        """64 bits, not all of them 0."""
        return self._bits(64) or 1

    def generate_trace_id(self) -> int:
        """128 bits, not all of them 0."""
        return self._bits(128) or 1

    def is_trace_id_random(self) -> bool:
        """Are its bits random, as a flag in `traceparent` is to say?"""
        return True
