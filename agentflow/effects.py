"""What the earlier attempts of a delivery did, so that a repeated attempt repeats none of it.

A delivery is one event given to one step. It may be executed more than once: by a retry, or because a
run was put away inside a wait. Effects are known by their ordinal: the n-th send of a type is the
same send in every attempt, the n-th wait the same wait.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .collect import Collector, Taken
    from .events import Event

_NOTHING: Any = cast("Any", MappingProxyType({}))


class Ledger:
    """The effects of one delivery over all of its attempts, and how often it failed.

    Most deliveries have one effect or none, so what stands here is the class's until it is set.
    """

    failures = 0
    started_at = 0.0
    """When its first attempt began, and when that failed, in seconds since the epoch."""
    failed_at = 0.0
    due_ns = 0
    """When its newest attempt was due, in nanoseconds since the epoch; 0 for the first."""
    idle = 0.0
    """Seconds that it spent waiting between attempts."""
    sent: dict[type[Event], int] = _NOTHING
    """How often an event of each type was sent, over all attempts."""
    sending: dict[type[Event], int] = _NOTHING
    """The same, in the present attempt."""
    added: tuple[str, ...] = ()
    """The buffers to which its event was added."""
    taken: tuple[tuple[Collector, Taken], ...] = ()
    """What the present attempt took out of its buffers."""
    answers: Mapping[str, Event] = _NOTHING
    """By wait, what it was answered."""
    asked: tuple[str, ...] = ()
    """The waits whose question was published."""
    unnamed = 0
    """How many waits the present attempt began without an id."""
    waits: dict[str, int] = _NOTHING
    """How many it began with one, by the id."""
    expired: tuple[str, ...] = ()
    """Those of them that ended by their time-out: executed again after a restore, they end so at once."""
    once: Mapping[str, Any] = _NOTHING
    """By key, what a function that must not repeat returned."""
    key = ""
    """What names the delivery to the outside, once somebody asked."""

    def again(self) -> None:
        """Begin another attempt: what the last one took out goes back, ordinals start anew."""
        for collector, items in reversed(self.taken):
            collector.put_back(items)
        self.taken = ()
        self.sending = _NOTHING
        self.waits = _NOTHING
        self.unnamed = 0
        self.expired = ()

    def begins(self, waiter_id: str | None) -> str:
        """Count a wait; returns what it is known by: the same in every attempt."""
        if waiter_id is None:  # nearly every wait: a number is a fraction of a dict
            self.unnamed += 1
            return f"#{self.unnamed - 1}"
        if self.waits is _NOTHING:
            self.waits = {}
        ordinal = self.waits[waiter_id] = self.waits.get(waiter_id, -1) + 1
        return f"{waiter_id}#{ordinal}"

    def sends(self, kind: type[Event]) -> bool:
        """Count a send. False: an earlier attempt did it already."""
        if self.sending is _NOTHING:
            self.sending = {}
        ordinal = self.sending[kind] = self.sending.get(kind, 0) + 1
        if ordinal <= self.sent.get(kind, 0):
            return False
        if self.sent is _NOTHING:
            self.sent = {}
        self.sent[kind] = ordinal
        return True
