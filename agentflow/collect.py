"""What a step has collected so far: first in, first out within a type, complete or not known in O(1)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from .errors import WorkflowRuntimeError
from .events import Event

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .observe import Ref

Collected = tuple[Event, "Ref | None"]


class Collector:
    """One buffer of one step.

    `size` counts what is held, whether expected or not, so "not yet" needs only a comparison with
    the length of what is expected; the list itself is read when it may be complete.
    """

    __slots__ = ("_counted", "_counts", "_known", "_latest", "_size", "held")

    def __init__(self) -> None:
        self.held: dict[type[Event], deque[Collected]] = {}
        self._size = 0
        self._known: dict[type, type[Event] | None] = {}
        self._latest: Sequence[type[Event]] | Mapping[type[Event], int] = ()
        self._counted: list[type[Event]] = []
        self._counts: dict[type[Event], int] = {}

    def __len__(self) -> int:
        return self._size

    def add(self, kind: type[Event], item: Collected) -> None:
        """Hold an event."""
        held = self.held.get(kind)
        if held is None:
            held = self.held[kind] = deque()
        held.append(item)
        self._size += 1

    def slot(self, kind: type[Event], expected: Sequence[type[Event]] | Mapping[type[Event], int]) -> type[Event] | None:
        """The expected type that an event of this type counts as: its own, or its nearest base; None if none."""
        if len(expected) != len(self._latest):
            self._known.clear()
        self._latest = expected
        if kind not in self._known:
            check_expected(expected)
            self._known[kind] = next((base for base in kind.__mro__ if base in expected), None)
        return self._known[kind]

    def take(self, expected: Sequence[type[Event]] | Mapping[type[Event], int]) -> list[Collected] | None:
        """All that is expected, in its order, or None while something lacks."""
        needed: Mapping[type[Event], int]
        if isinstance(expected, dict):
            needed = expected
            if self._size < sum(needed.values()):
                return None
        else:
            if self._size < len(expected):
                return None
            needed = self._count(expected)  # type: ignore[arg-type]  # not a dict: a sequence
        held = self.held
        for kind, count in needed.items():
            if len(held.get(kind, ())) < count:
                return None
        if needed is expected:
            taken = [held[kind].popleft() for kind, count in needed.items() for _ in range(count)]
        else:
            taken = [held[kind].popleft() for kind in expected]
        self._size -= len(taken)
        return taken

    def _count(self, expected: Sequence[type[Event]]) -> dict[type[Event], int]:
        if self._counted != expected:
            counts: dict[type[Event], int] = {}
            for kind in expected:
                counts[kind] = counts.get(kind, 0) + 1
            self._counted, self._counts = list(expected), counts
        return self._counts

    def put_back(self, taken: Sequence[Collected]) -> None:
        """Undo a `take`: the events stand again where they were."""
        for item in reversed(taken):
            kind = type(item[0])
            kind = self._known.get(kind) or kind
            self.held.setdefault(kind, deque()).appendleft(item)
            self._size += 1

    def lacks(self) -> str:
        """What is still missing, for a message."""
        latest = self._latest
        needed = latest if isinstance(latest, dict) else self._count(list(latest))
        parts = [
            f"{count - have} of {count} {kind.__name__}"
            for kind, count in needed.items()
            if (have := len(self.held.get(kind, ()))) < count
        ]
        return ", ".join(parts) or "nothing"


def check_expected(expected: object) -> None:
    """Refuse what cannot be collected."""
    if isinstance(expected, list | tuple):
        wrong = next((k for k in expected if not (isinstance(k, type) and issubclass(k, Event))), None)
    elif isinstance(expected, dict):
        wrong = next(
            (k for k, n in expected.items() if not (isinstance(k, type) and issubclass(k, Event)) or n < 0), None
        )
    else:
        wrong = expected
    if wrong is not None:
        msg = (
            f"collect_events(ev, {expected!r}): expected is a list of event types, or a mapping of types to counts, not "
            f"{wrong!r}. Write: ctx.collect_events(ev, [A, B]) or ctx.collect_events(ev, {{A: 3}})"
        )
        raise WorkflowRuntimeError(msg)
