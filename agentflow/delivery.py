"""The records that a run works with: deliveries, and the workers that execute them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import asyncio
    from contextvars import Context as Variables

    from .context import Context
    from .effects import Ledger
    from .events import Event
    from .graph import Edge, StepPlan
    from .observe import Operation, Ref
    from .resource import Pool


class Delivery(NamedTuple):
    """An event on its way to a step."""

    plan: StepPlan
    event: Event
    edge: Edge
    variables: Variables
    sent: Operation | None
    """The operation of its being sent, where somebody looks on."""
    ledger: Ledger | None


class Worker:
    """A task that executes deliveries, and what it executes now."""

    __slots__ = (
        "after",
        "before",
        "cause",
        "ctx",
        "edge",
        "event",
        "ledger",
        "left",
        "limit",
        "op",
        "pauses",
        "place",
        "plan",
        "pool",
        "robbed",
        "sent",
        "stepped",
        "task",
        "threaded",
        "token",
        "variables",
    )

    def __init__(self, delivery: Delivery) -> None:
        self.task: asyncio.Task[None]
        self.place = 0
        """Its index among the run's workers."""
        self.pool: Pool | None = None
        """The resources that live as long as this execution of the step, if it has any."""
        self.limit: asyncio.Timeout | None = None
        self.pauses = 0
        """How many waits for a human the time limit stands still for, and what is left of it."""
        self.left = 0.0
        self.op: Operation | None = None
        self.token: Any = None
        self.before: Variables | None = None
        """The context variables before and after observers were told of the step, where any are."""
        self.after: Variables | None = None
        self.stepped = False
        """May it execute one delivery though the run is held?"""
        self.take(delivery)

    def take(self, delivery: Delivery) -> None:
        """Make it the worker's next delivery."""
        self.plan, self.event, self.edge, self.variables, self.sent, self.ledger = delivery
        self.robbed = False
        """Has another taken its delivery, and has it none?"""
        self.ctx: Context[Any] | None = None
        self.threaded: Variables | None = None
        """The context variables as the thread left them in which a plain function ran."""
        self.cause: Ref | None = None if self.sent is None else self.sent.ref

    def delivery(self) -> Delivery:
        """What it executes, to be given to another."""
        return Delivery(self.plan, self.event, self.edge, self.variables, self.sent, self.ledger)
