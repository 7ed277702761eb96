"""What a step has collected so far: first in, first out within a type; not yet complete is known in O(1)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, cast

from .errors import WorkflowRuntimeError, a
from .events import Event

if TYPE_CHECKING:
    from .observe import Ref

Collected = tuple[Event, "Ref | None"]
_Numbered = tuple[int, Collected]
Expected: TypeAlias = "Sequence[type[Event]] | Mapping[type[Event], int]"


class Taken(list[Collected]):
    """What was taken out of a buffer, and the numbers under which it goes back."""

    __slots__ = ("numbers",)

    def __init__(self, items: list[_Numbered]) -> None:
        super().__init__([item for _, item in items])
        self.numbers = [number for number, _ in items]


class Collector:
    """One buffer of one step.

    Events stand under their own type, numbered in the order of their coming: what they count as is
    decided by the latest expectation alone. `len` counts all of them, so "not yet" needs only a
    comparison with the length of what is expected; that itself is read when it may be complete.
    """

    __slots__ = ("_added", "_counted", "_counts", "_latest", "_positions", "_size", "held", "key", "out")

    def __init__(self) -> None:
        self.key: tuple[str, str] = ("", "")
        """The step, and which of its buffers."""
        self.out = 0
        """How many attempts hold what they took out, and may yet put it back."""
        self.held: dict[type[Event], deque[_Numbered]] = {}
        self._size = 0
        self._added = 0
        self._latest: Expected = ()
        self._positions: dict[type[Event], int] = {}
        """Where a type was found in what is expected: most likely it is there again."""
        self._counted: Sequence[type[Event]] = ()
        self._counts: dict[type[Event], int] = {}

    def __len__(self) -> int:
        return self._size

    def slot(self, kind: type[Event], expected: Expected) -> type[Event] | None:
        """The type itself if such an event is expected, as what it is or as one of its bases; else None."""
        self._latest = expected
        position = self._positions.get(kind)
        if position is not None:
            if isinstance(expected, dict):
                known = kind in expected
            else:
                known = isinstance(expected, list) and position < len(expected) and expected[position] is kind
            if known:
                return kind
        check_expected(kind, expected)
        counts_as = _nearest(kind, expected)
        if counts_as is kind:
            self._positions[kind] = 0 if isinstance(expected, Mapping) else expected.index(kind)
        return None if counts_as is None else kind

    def add(self, kind: type[Event], item: Collected) -> None:
        """Hold an event."""
        held = self.held.get(kind)
        if held is None:
            held = self.held[kind] = deque()
        self._added += 1
        held.append((self._added, item))
        self._size += 1

    def take(self, expected: Expected) -> Taken | None:
        """All that is expected, in its order, or None while something lacks."""
        if expected.__class__ is not list and isinstance(expected, Mapping):
            if self._size < sum(expected.values()):
                return None
            needed = expected
            order: Iterable[type[Event]] = (kind for kind, count in expected.items() for _ in range(count))
        else:
            if self._size < len(expected):
                return None
            needed = self._count(cast("Sequence[type[Event]]", expected))
            order = expected
        lines = self._lines(needed)
        if any(sum(map(len, lines.get(kind, ()))) < count for kind, count in needed.items()):
            return None
        oldest = {kind: held[0].popleft if len(held) == 1 else partial(_oldest, held) for kind, held in lines.items()}
        taken = Taken([oldest[kind]() for kind in order])
        self._size -= len(taken)
        self.out += 1
        return taken

    def _count(self, expected: Sequence[type[Event]]) -> dict[type[Event], int]:
        if self._counted != expected:
            counts: dict[type[Event], int] = {}
            for kind in expected:
                counts[kind] = counts.get(kind, 0) + 1
            self._counted, self._counts = list(expected), counts
        return self._counts

    def _lines(self, needed: Mapping[type[Event], int]) -> dict[type[Event], list[deque[_Numbered]]]:
        """What is held, by the expected type that it counts as."""
        lines: dict[type[Event], list[deque[_Numbered]]] = {}
        for kind, held in self.held.items():
            if held and (found := _nearest(kind, needed)) is not None:
                lines.setdefault(found, []).append(held)
        return lines

    def put_back(self, taken: Taken) -> None:
        """Undo a `take`: the events stand again where they were."""
        self.out -= 1
        for number, item in zip(reversed(taken.numbers), reversed(taken), strict=True):
            held = self.held.setdefault(type(item[0]), deque())
            place = 0
            while place < len(held) and held[place][0] < number:
                place += 1
            held.insert(place, (number, item))
            self._size += 1

    def events(self, *taken: Taken) -> list[Event]:
        """What is held, in the order of its coming, as if what was taken had been put back."""
        items = [item for held in self.held.values() for item in held]
        items += [pair for several in taken for pair in zip(several.numbers, several, strict=True)]
        return [event for _, (event, _) in sorted(items, key=lambda item: item[0])]

    def lacks(self) -> str:
        """What is still missing, for a message."""
        latest = self._latest
        needed = latest if isinstance(latest, Mapping) else self._count(latest)
        lines = self._lines(needed)
        parts = [
            f"{count - have} of {count} {kind.__name__}"
            for kind, count in needed.items()
            if (have := sum(map(len, lines.get(kind, ())))) < count
        ]
        return ", ".join(parts) or "nothing"


def _nearest(kind: type[Event], expected: Expected) -> type[Event] | None:
    """The expected type that an event of this type counts as: its own, or its nearest base."""
    return next((base for base in kind.__mro__ if base in expected), None)


def _oldest(lines: list[deque[_Numbered]]) -> _Numbered:
    """Take out what came first of several types that count as one."""
    return min((line for line in lines if line), key=lambda line: line[0][0]).popleft()


def check_expected(kind: type, expected: object) -> None:
    """Refuse what cannot be collected."""
    if not _is_event(kind):
        msg = (
            f"collect_events(ev, ...): ev is {a(kind.__name__)}, no event. The event that triggered the step "
            "comes first. Write: ctx.collect_events(ev, [A, B])"
        )
        raise WorkflowRuntimeError(msg)
    wrong: list[object] = [expected]
    if isinstance(expected, Mapping):
        counts = cast("Mapping[object, object]", expected)
        wrong = [k for k, n in counts.items() if not _is_event(k) or not isinstance(n, int) or n < 0]
    elif isinstance(expected, Sequence):
        wrong = [k for k in cast("Sequence[object]", expected) if not _is_event(k)]
    if wrong:
        msg = (
            f"collect_events(ev, {expected!r}): expected is a list of event types, or a mapping of types to counts, "
            f"not {wrong[0]!r}. Write: ctx.collect_events(ev, [A, B]) or ctx.collect_events(ev, {{A: 3}})"
        )
        raise WorkflowRuntimeError(msg)


def _is_event(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Event)
