"""Why a run can never go on: the text of `WorkflowStalledError`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sized

    from .collect import Collector
    from .graph import Edge, Graph
    from .waits import Waiter


def why_stalled(
    graph: Graph,
    collectors: Mapping[tuple[str, str], Collector],
    waiters: Iterable[Waiter],
    backlog: Mapping[int, Sized],
    counts: Mapping[Edge, int],
) -> str:
    """What each collector and each wait still lacks, and what ran before."""
    lacking = [
        f"step {step!r}{f' (buffer {buffer!r})' if buffer else ''} lacks {collector.lacks()}"
        for (step, buffer), collector in collectors.items()
        if len(collector)
    ]
    lacking += [f"step {waiter.plan.name!r} waits for {waiter.kind.__name__}" for waiter in waiters]
    lacking += [
        f"{len(line)} more {'waits' if len(line) == 1 else 'wait'} for a free slot of step {graph.steps[index].name!r}"
        for index, line in backlog.items()
    ]
    why = "; ".join(lacking) or "no step is running, no event is on its way, and no StopEvent was returned"
    ran: dict[str, int] = {}
    for edge, count in counts.items():
        if edge.target is not None and count:
            ran[edge.target] = ran.get(edge.target, 0) + count
    so_far = ", ".join(f"{step} x{count}" for step, count in ran.items()) or "nothing"
    return f"the run of {graph.name!r} can never go on: {why}. So far it ran: {so_far}."
