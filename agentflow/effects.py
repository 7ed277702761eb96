"""What the earlier attempts of a delivery did, so that a repeated attempt repeats none of it.

A delivery is one event given to one step. It may be executed more than once: by a retry, or because a
run was put away inside a wait. Effects are known by their ordinal: the n-th send of a type is the
same send in every attempt, the n-th wait the same wait.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .collect import Collected, Collector
    from .events import Event

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Ledger:
    """The effects of one delivery over all of its attempts, and how often it failed.

    Most deliveries have one effect or none, so containers are shared empty ones until they are used.
    """

    __slots__ = (
        "added",
        "answers",
        "asked",
        "failed_at",
        "failures",
        "idle",
        "key",
        "once",
        "sending",
        "sent",
        "started_at",
        "taken",
        "waits",
    )

    def __init__(self) -> None:
        self.failures = 0
        self.started_at = 0.0
        """When its first attempt began, and when that failed, in seconds since the epoch."""
        self.failed_at = 0.0
        self.idle = 0.0
        """Seconds that it spent waiting between attempts."""
        self.sent: Mapping[str, int] = _NOTHING
        """How often an event of each type was sent, over all attempts."""
        self.sending: Mapping[str, int] = _NOTHING
        """The same, in the present attempt."""
        self.added: tuple[str, ...] = ()
        """The buffers to which its event was added."""
        self.taken: tuple[tuple[Collector, list[Collected]], ...] = ()
        """What the present attempt took out of its buffers."""
        self.answers: Mapping[str, Event] = _NOTHING
        """By wait, what it was answered."""
        self.asked: tuple[str, ...] = ()
        """The waits whose question was published."""
        self.waits = 0
        """How many waits the present attempt began."""
        self.once: Mapping[str, Any] = _NOTHING
        """By key, what a function that must not repeat returned."""
        self.key = ""
        """What names the delivery to the outside, once somebody asked."""

    def again(self) -> None:
        """Begin another attempt: what the last one took out goes back, ordinals start anew."""
        for collector, items in reversed(self.taken):
            collector.put_back(items)
        self.taken = ()
        self.sending = _NOTHING
        self.waits = 0

    def sends(self, kind: type[Event]) -> bool:
        """Count a send. False: an earlier attempt did it already."""
        name = kind.__qualname__
        if self.sending is _NOTHING:
            self.sending = {}
            self.sent = dict(self.sent)
        ordinal = self.sending.get(name, 0) + 1
        self.sending[name] = ordinal  # type: ignore[index]  # it is a dict from here on
        if ordinal <= self.sent.get(name, 0):
            return False
        self.sent[name] = ordinal  # type: ignore[index]  # it is a dict from here on
        return True
