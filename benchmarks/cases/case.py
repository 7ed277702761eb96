"""What a case is, and what all of them use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from measure import Timer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

Metrics = dict[str, float]


class WrongAnswerError(Exception):
    """A peer's workload did not come to the result that it must come to."""


def check(got: object, expected: object) -> None:
    """Refuse a wrong answer, so that no peer is fast by being wrong."""
    if got != expected:
        raise WrongAnswerError(f"got {got!r:.2000}, expected {expected!r:.2000}")


class Case:
    """A workload and how it is measured, in a process of its own each time."""

    name: ClassVar[str]
    area: ClassVar[str]
    """The module in the peer's package that holds the workload."""
    workload: ClassVar[str]
    """The function of that module which makes the workload. A peer without it has no counterpart."""
    repetitions: ClassVar[int] = 11
    reference: ClassVar[str] = "raw"
    """The peer that it is compared with."""
    reference_environ: ClassVar[Mapping[str, str]] = {}
    """Environment variables of the reference's process alone."""

    def __init__(self, peer: Any) -> None:
        self.peer = peer
        self.make = getattr(peer, self.workload)
        vars(self).update(getattr(peer, "SIZES", {}).get(self.name, {}))

    async def set_up(self) -> None:
        """Make the workload and warm it up."""
        raise NotImplementedError

    async def measure(self) -> Metrics:
        """Run the workload and say what it took."""
        raise NotImplementedError


async def growth(run: Callable[[int], Awaitable[None]], small: int, large: int) -> Metrics:
    """What a unit of work costs in a run of many, over what it costs in as much work in short runs."""
    with Timer() as short:
        for _ in range(large // small):
            await run(small)
    with Timer() as long:
        await run(large)
    return {"growth": long.cpu / short.cpu, "cpu_us": long.cpu / large * 1e6}
