"""The steps of a run that are suspended in `ctx.wait_for_event`, and the events that came too early for one."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import WorkflowRuntimeError, WorkflowTimeoutError, a
from .events import HumanResponseEvent, InputRequiredEvent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .clock import Timer
    from .delivery import Worker
    from .effects import Ledger
    from .events import Event
    from .graph import Graph, StepPlan
    from .observe import Operation
    from .port import Port

KEPT_AT_MOST = 1_000


class Waiter:
    """One wait of one step."""

    __slots__ = ("future", "key", "kind", "ledger", "pauses", "plan", "requirements", "timer", "worker")

    def __init__(
        self, plan: StepPlan, ledger: Ledger, kind: type[Event], requirements: Mapping[str, Any], key: str
    ) -> None:
        self.future: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        self.kind = kind
        self.requirements = requirements
        self.key = key
        self.plan = plan
        self.ledger = ledger
        self.timer: Timer | None = None
        self.pauses: Worker | None = None
        """The worker whose time limit stands still for it: the time that a human takes does not count."""
        self.worker: Worker | None = None
        """The worker, where it is the step's own task that waits, and not one that the step made."""

    def matches(self, event: Event) -> bool:
        """Is it this event that is awaited?"""
        return isinstance(event, self.kind) and all(event.get(k) == v for k, v in self.requirements.items())


class Kept(NamedTuple):
    """An event that came before anyone waited for it."""

    event: Event
    sent: Operation | None
    """The operation of its being sent, where somebody looks on."""


class Waits:
    """All waits of a run, by the type of event that they are for, first in first out."""

    __slots__ = ("_by_kind", "_run", "kept", "kinds", "suspended")

    def __init__(self, run: Port, kinds: frozenset[type[Event]]) -> None:
        self._run = run
        self._by_kind: dict[type[Event], list[Waiter]] = {}
        self.kinds = kinds
        """The types that are kept for a later wait though nobody waits yet."""
        self.kept: Sequence[Kept] = ()
        self.suspended = 0
        """How many workers stand still in a wait."""

    def __iter__(self) -> Iterator[Waiter]:
        for waiters in self._by_kind.values():
            yield from waiters

    def __len__(self) -> int:
        return len(self._by_kind)

    def begin(  # noqa: PLR0913, PLR0917 because these are the documented parameters
        self,
        plan: StepPlan,
        worker: Worker | None,
        ledger: Ledger,
        kind: type[Event],
        requirements: Mapping[str, Any],
        key: str,
        timeout: float | None,
    ) -> Kept | Waiter:
        """The event, if it has come already; else the wait, to be awaited and then ended.

        `worker` executes the step that waits, or is None where the step's execution is over.
        """
        waiter = Waiter(plan, ledger, kind, requirements, key)
        for position, early in enumerate(self.kept):
            if waiter.matches(early.event):
                self.kept = [*self.kept[:position], *self.kept[position + 1 :]]
                ledger.answers = {**ledger.answers, key: early.event}
                return early
        if kind in self._by_kind:
            self._by_kind[kind].append(waiter)
        else:
            self._by_kind[kind] = [waiter]
        run = self._run
        if timeout is not None:
            waiter.timer = run.clock.call_later(timeout, partial(self._waited_long, waiter, timeout))
        if worker is not None:
            if worker.limit is not None and from_outside(run.graph, kind):
                waiter.pauses = worker
                if not worker.pauses:
                    worker.left = run.clock.pause(worker.limit)
                worker.pauses += 1
            if asyncio.current_task() is worker.task:
                waiter.worker = worker
                self.suspended += 1
        return waiter

    def end(self, waiter: Waiter) -> None:
        """A wait is over, answered or not."""
        worker, waiter.pauses = waiter.pauses, None
        if worker is not None:
            worker.pauses -= 1
            if not worker.pauses and worker.limit is not None and not worker.limit.expired():
                self._run.clock.resume(worker.limit, worker.left)
        waiters = self._by_kind.get(waiter.kind)
        if waiters is None or waiter not in waiters:
            return
        waiters.remove(waiter)
        if not waiters:
            del self._by_kind[waiter.kind]
        if waiter.timer is not None:
            waiter.timer.cancel()
        if waiter.worker is not None:
            self.suspended -= 1

    def abandon(self) -> None:
        """The run ends: nobody will be answered any more."""
        for waiter in list(self):
            waiter.future.cancel()

    def answer(self, event: Event, step: str | None) -> Waiter | None:
        """Hand an event to the first who waits for it, in the step that it is addressed to, and say who that is."""
        for base in type(event).__mro__:
            for waiter in self._by_kind.get(base, ()):
                if waiter.future.done() or step not in {None, waiter.plan.name}:
                    continue
                if waiter.matches(event):
                    self.end(waiter)
                    waiter.ledger.answers = {**waiter.ledger.answers, waiter.key: event}
                    waiter.future.set_result(event)
                    return waiter
        return None

    def keep(self, event: Event, sent: Operation | None) -> None:
        """Keep an event for a later wait. Raises `WorkflowRuntimeError` where too many are kept."""
        if len(self.kept) >= KEPT_AT_MOST:
            msg = (
                f"{KEPT_AT_MOST:,} events that no step of {self._run.graph.name!r} accepts are kept for a later wait, "
                f"and {a(type(event).__name__)} would be one more. Does a step still await them (ctx.wait_for_event)?"
            )
            raise WorkflowRuntimeError(msg)
        self.kept = [*self.kept, Kept(event, sent)]

    def hopeful(self) -> bool:
        """Can any of the waits still end: by a time limit, or by an event from outside?"""
        return any(
            waiter.timer is not None
            or (waiter.worker is not None and waiter.worker.limit is not None)
            or from_outside(self._run.graph, waiter.kind)
            for waiter in self
        )

    @property
    def limited(self) -> bool:
        """Is any of them ended by a time limit, if by nothing else?"""
        return any(waiter.timer is not None for waiter in self)

    def _waited_long(self, waiter: Waiter, timeout: float) -> None:
        self.end(waiter)
        if not waiter.future.done():
            self._run.wake()
            waiter.ledger.expired = (*waiter.ledger.expired, waiter.key)
            waiter.future.set_exception(self.expired(waiter.plan, waiter.kind, timeout))

    def expired(self, plan: StepPlan, kind: type[Event], timeout: float | None) -> WorkflowTimeoutError:
        """The error of a wait that took too long."""
        limit = "too long" if timeout is None else f"{timeout:g} s"
        what = f"step {plan.name!r} of {self._run.graph.name!r}"
        return WorkflowTimeoutError(f"{what} waited {limit} for {a(kind.__name__)}, and none came")


def from_outside(graph: Graph, kind: type[Event]) -> bool:
    """Can an event of this type come from elsewhere than from the workflow's own steps?"""
    if issubclass(kind, HumanResponseEvent | InputRequiredEvent):
        return True
    return not any(issubclass(made, kind) for made in graph.produced)
