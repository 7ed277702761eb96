"""The run loop: deliveries, workers, waits, retries and ends of one run of a compiled workflow.

A *delivery* is an event on its way to one step. It is *ready* when the step has a free slot for it and
otherwise stands in the step's *backlog*. A *worker* is a task that executes deliveries one after the
other. A step's successor is executed by the same worker, at once, when nothing else of the run is
ready: a chain costs no task and no queue. When more is ready than the worker takes up, one callback
of the event loop makes workers for the rest.

Everything here is called in the run's own event loop; `Context` and `Handler` see to that.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import time
from collections import deque
from contextvars import Context as Variables
from contextvars import ContextVar, copy_context
from functools import partial
from threading import Lock, get_ident
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast
from weakref import ref

from . import attempt
from .call import changes, invoke, leave, limited, same
from .clock import current_clock
from .collect import Collector
from .context import context_of
from .delivery import Delivery, Worker
from .effects import Ledger
from .errors import (
    WorkflowCancelledByUser,
    WorkflowRuntimeError,
    WorkflowStalledError,
    WorkflowTimeoutError,
    a,
)
from .events import (
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
    WorkflowCancelledEvent,
    WorkflowFailedEvent,
    WorkflowTimedOutEvent,
)
from .graph import Fate, Shape
from .keeper import forget, keep
from .log import logger
from .observe import (
    Kind,
    Operation,
    RunOperation,
    Scope,
    attach,
    current_scope,
    outcome_of,
)
from .segment import Segment
from .sessions import Session, current_session
from .snapshot import dump
from .stall import why_stalled
from .stepwise import Held, Stepper
from .stream import Ring
from .waits import Kept, Waits, from_outside

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from .clock import Timer
    from .collect import Collected
    from .context import Context
    from .graph import Edge, Graph, Route, StepPlan
    from .host import Host
    from .observe import Observer, Outcome, Ref, Watch
    from .resource import Pool
    from .store import StateStore
    from .waits import Waiter

T = TypeVar("T")

NEW, QUEUED, RUNNING, ENDING, ENDED = range(5)
_STATUS = ("new", "queued", "running", "ending", "ended")
_EVENT, _CONTEXT_EVENT, _LIMITED = Shape.EVENT, Shape.CONTEXT_EVENT, Shape.LIMITED
_STEP_KIND, _EVENT_KIND = Kind.STEP, Kind.EVENT  # a look into an enum costs as much as a call
_SOON = 0.001  # seconds by which a timer may go off too early
_TURNS = 64  # steps that may follow each other before the event loop gets its turn

_EMPTY = Variables()
_naming = Lock()
live: set[Run] = set()
"""The runs that have tasks: the event loop itself holds those only weakly."""


class Run:
    """One run. Its state is explicit: store, deliveries, collectors, waiters, stream."""

    __slots__ = (
        "__weakref__",
        "_run_id",
        "active",
        "alive",
        "alone",
        "arrivals",
        "awaiting",
        "backlog",
        "base",
        "children",
        "clock",
        "collectors",
        "counts",
        "deadline",
        "delayed",
        "deliveries",
        "ended_by",
        "error",
        "fresh",
        "graph",
        "host",
        "inside",
        "kicked",
        "life",
        "loop",
        "op",
        "orphaned",
        "outcome",
        "parent",
        "plain",
        "pool",
        "questions",
        "ready",
        "recorder",
        "restored",
        "ring",
        "scope",
        "segment",
        "since",
        "started",
        "status",
        "stepper",
        "still",
        "stop_event",
        "store",
        "surroundings",
        "thread",
        "threads",
        "took",
        "waits",
        "watch",
        "workers",
    )

    def __init__(self, host: Host, store: StateStore) -> None:  # noqa: PLR0915 because a run's state is explicit
        self.host = host
        self.graph: Graph = host.graph
        self.store = store
        self.status = NEW
        self.thread: int | None = None
        self._run_id: str | None = None
        self.loop: asyncio.AbstractEventLoop
        self.workers: list[Worker] = []
        self.fresh: deque[Worker] | None = None
        """Workers that had no turn yet: what they hold comes before what is ready; whoever is free first takes it."""
        self.active = [0] * len(self.graph.steps)
        """By step, the slots in use."""
        self.ready: deque[Delivery] | None = None
        self.backlog: dict[int, deque[Delivery]] | None = None
        self.kicked = False
        self.waits: Waits | None = None
        self.collectors: dict[tuple[str, str], Collector] | None = None
        self.delayed: dict[object, tuple[Timer, Delivery, float]] | None = None
        """Deliveries that wait for another attempt, and when each is due, in seconds since the epoch."""
        self.children: set[Run] | None = None
        self.parent: Run | None = None
        self.counts: dict[Edge, int] = {}
        """How often each edge was taken: what the drawing of the last execution shows."""
        self.ring: Ring | None = None
        self.pool: Pool | None = None
        self.threads: concurrent.futures.ThreadPoolExecutor | None = None
        self.stepper: Stepper | None = None
        self.recorder: Callable[[Run, Worker, Any], None] | None = None
        self.restored: list[tuple[Delivery, float | None]] | None = None
        """What to begin with: deliveries, and when they are due, in seconds since the epoch (None: at once)."""
        self.arrivals: list[tuple[Event, StepPlan | None, str | None]] | None = None
        """What steps had produced, and was not handed on, when the run was put away: event, sender, addressee."""
        self.watch: Watch | None = None
        self.took: dict[str, int] | None = None
        """By step, the nanoseconds that its executions took, where somebody looks on."""
        self.surroundings: list[tuple[ContextVar[Any], Any]] = []
        """What observers made current for the whole run."""
        self.op: RunOperation | None = None
        """Also None, where somebody looks on, while the run stands still for longer than `pause_grace`."""
        self.segment: Segment | None = None
        """Where somebody looks on, or did so before it was stored."""
        self.plain = True
        """Nobody records, steps or waits: the short way is open."""
        self.awaiting: list[asyncio.Future[None]] | None = None
        self.questions: list[InputRequiredEvent] | None = None
        """What it asked, for whoever answers in place of a person; None where it asks on the stream."""
        self.still: asyncio.Future[None] | None = None
        """Done when it has ended, or stands still until somebody answers."""
        self.alone = False
        """Is its caller one who can answer nothing? Standing still for a person is logged then, once."""
        self.orphaned = False
        """Nobody can await it any more."""
        self.deliveries = 0
        """How many of its deliveries were given a name."""
        self.life = ""
        """What tells the names that it gives from those that it gave before it was put away."""
        self.deadline: Timer | None = None
        self.alive = 0.0
        """Seconds that the run was alive before `since`."""
        self.since = 0.0
        self.started = False
        self.inside = False
        """Does it hold a place in the workflow's gate?"""
        self.ended_by: Worker | None = None
        """The worker whose step sent the StopEvent, and may go on to its own end."""
        self.stop_event: StopEvent | None = None
        self.error: BaseException | None = None
        self.outcome: Outcome = "ok"

    def __repr__(self) -> str:
        does = self.stands_for() if self.status == RUNNING else ""
        does = does or f"{len(self.workers)} working, {len(self.ready or ())} ready"
        return f"<Run {self.graph.name} {_STATUS[self.status]}: {does}>"

    @property
    def run_id(self) -> str:
        """Made when somebody asks."""
        named = self._run_id
        if named is None:
            with _naming:  # plain steps ask from their threads
                named = self._run_id = self._run_id or _new_id()
        return named

    @run_id.setter
    def run_id(self, value: str) -> None:
        self._run_id = value

    # -- beginning ---------------------------------------------------------------------------------

    def start(self, event: Event | None, *, detached: bool) -> None:
        """Make it go on its own, from `event`, or from where it was put away."""
        self.loop = asyncio.get_running_loop()
        self.clock = current_clock()
        self.base = copy_context()
        scope = current_scope.get()
        parent: Run | None = None if detached or scope is None else scope.run
        if parent is not None and parent.status != RUNNING:
            parent = None
        if event is not None:
            route = self.graph.route(type(event), None)
            self.restored = [
                (Delivery(plan, event, edge, self.base, None, None), None)
                for plan, edge in zip(route.targets, route.edges, strict=False)
            ]
        if parent is not None:
            self.parent = parent
            if parent.loop is self.loop:
                if parent.children is None:
                    parent.children = set()
                parent.children.add(self)
        self.scope = Scope(self, None, scope.ref if scope is not None and not detached else None, None, self.graph.name)
        gate = self.host.gate
        if gate is not None and not self._ancestor_inside():
            self.status = QUEUED
            self.inside = True
            if not gate.enter(self):
                return
        self.begin()

    def _ancestor_inside(self) -> bool:
        """Would waiting for a place mean to wait for oneself?"""
        run = self.parent
        while run is not None:
            if run.host is self.host:
                return True
            run = run.parent
        return False

    def begin(self) -> None:
        """It has a place: go."""
        if self.status >= ENDING:  # it was cancelled when its place was free already, and gave it up
            return
        self.status = RUNNING
        self.thread = get_ident()
        self._watch()
        self.base.run(current_scope.set, self.scope)
        if self.host.timeout is not None and self.stepper is None:
            self._count_time()
        self._deliver_first()

    def _deliver_first(self) -> None:
        """Bring the start event, or what was under way when the run was put away, to its steps."""
        pending, self.restored = self.restored or (), None
        arrivals, self.arrivals = self.arrivals or (), None
        if self.watch is not None and self.watch.events:
            pending = [(d._replace(sent=self._sent(d.event, None)), due) for d, due in pending]
        if len(pending) == 1 and not arrivals and self.stepper is None and pending[0][1] is None:
            delivery = pending[0][0]
            self.active[delivery.plan.index] += 1
            self._employ(delivery._replace(variables=self.base), alone=True)
            return
        for delivery, due in pending:
            if due is None:
                self._enqueue(delivery._replace(variables=self.base))
            else:
                self._delay(delivery._replace(variables=self.base), max(0.0, due - self.clock.time()))
        for event, plan, step in arrivals:
            if self.status == RUNNING:
                self._deliver(event, self.graph.route(type(event), plan), self.base, None, step)
        if not pending:
            self.loop.call_soon(self.fail_if_stalled)
            if self.op is not None and self.segment is not None and self._idle:
                self._stand(self.segment)  # what it waits for was told when it began to wait

    def _watch(self) -> None:
        more: tuple[Observer, ...] = self.host.observers
        self.watch = watch = attach(*more)
        self.host.took = None if watch is None else {}
        if watch is None:
            return
        self.took = self.host.took
        if self.segment is None:
            self.segment = Segment()
        self._name_session(self.segment)
        first = self.restored[0][0].event if self.restored else None
        subject = first if isinstance(first, StartEvent) else None
        op = self._begin_segment(self.segment, watch, self.scope.ref, subject)
        self.scope = Scope(self, watch, op.ref, self.run_id, self.graph.name)
        keep(self)

    def _name_session(self, segment: Segment) -> None:
        """What is said where the run starts, then what was stored with it or the runs above say, then what it has."""
        said = self.base.get(current_session)
        above = None if self.parent is None else self.parent.segment
        if said is not None:
            segment.session, segment.user = said.id, said.user or segment.user
        elif above is not None:
            segment.session, segment.user = above.session, above.user
        elif segment.session is None:
            owner: Any = self.host.owner
            segment.session = owner.__agentflow_session__()

    def _begin_segment(self, segment: Segment, watch: Watch, parent: Ref | None, subject: Event | None) -> RunOperation:
        """Tell of a segment, in the base context."""
        self.op = op = RunOperation(self.graph.name, run_id=self.run_id, parent=parent, subject=subject)
        op.agent = getattr(self.host.owner, "agent_name", None)
        before = self.base.copy()
        # none, too, is said: else whoever answers would bring theirs
        session = None if segment.session is None else Session(segment.session, segment.user)
        self.base.run(current_session.set, session)
        segment.begin(op, self.clock.time(), watch, self.base)
        self.surroundings = changes(before, self.base)
        return op

    def _count_time(self) -> None:
        """Let the time limit of the run, which counts time alive, go on."""
        self.since = self.clock.monotonic()
        if self.host.timeout is not None:
            self.deadline = self.clock.call_later(max(0.0, self.host.timeout - self.alive), self._timed_out)

    def _stop_time(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None
            self.alive += self.clock.monotonic() - self.since

    def step_by_step(self, *, explicit: bool) -> None:
        """Hold every step from now on. Raises `WorkflowRuntimeError` where the run has begun."""
        if self.started:
            msg = (
                f"this run of {self.graph.name!r} is going already, and a run is held from its start or not at all. "
                "Write: handler = workflow.run(..., stepwise=True), or call run_step() before anything else is awaited."
            )
            raise WorkflowRuntimeError(msg)
        self.stepper = Stepper(self, explicit=explicit)
        self.plain = False
        self._stop_time()

    def record(self, recorder: Callable[[Run, Worker, Any], None]) -> None:
        """Call `recorder` whenever a step has completed, before what it produced is handed on."""
        self.recorder = recorder
        self.plain = False

    def continue_from(self, step: str, output: Event | list[Event] | None) -> None:
        """Before it begins: add what a completed step returned to what is to be delivered."""
        plan = self.graph.by_name[step]
        events = output if isinstance(output, list) else [] if output is None else [output]
        self.restored = self.restored or []
        self.arrivals = [*(self.arrivals or ()), *((event, plan, None) for event in events)]

    # -- the loop ----------------------------------------------------------------------------------

    def _employ(self, delivery: Delivery, *, alone: bool = False) -> Worker:
        """Make a worker for a delivery whose slot is taken. `alone`: it is the only one of the run."""
        worker = Worker(delivery)
        worker.place = len(self.workers)
        self.workers.append(worker)
        live.add(self)
        if not alone:
            if self.fresh is None:
                self.fresh = deque()
            self.fresh.append(worker)
        worker.task = self.loop.create_task(self._work(worker), context=delivery.variables.copy())
        return worker

    async def _work(self, me: Worker) -> None:  # noqa: C901, PLR0912, PLR0915 because a call saved here is a tenth of a step
        host_object = self.host.owner
        counts = self.counts
        turns = _TURNS
        if not self._starts(me):
            self._dismiss(me)
            return
        self.started = True
        try:
            while self.status == RUNNING:
                plan = me.plan
                edge = me.edge
                counts[edge] = counts.get(edge, 0) + 1
                watch = self.watch
                if watch is not None and (watch.steps or watch.events or self.op is None):
                    self._step_begins(me)
                try:
                    shape = plan.shape
                    if shape is _EVENT:
                        out = await plan.fn(host_object, me.event)
                    elif shape is _CONTEXT_EVENT:
                        ctx = me.ctx = context_of(self, me)
                        out = await plan.fn(host_object, ctx, me.event)
                    elif shape is _LIMITED:
                        assert plan.timeout is not None
                        if plan.spec.context is None:
                            out = await limited(self, me, plan.timeout, plan.fn(host_object, me.event))
                        else:
                            ctx = me.ctx = context_of(self, me)
                            out = await limited(self, me, plan.timeout, plan.fn(host_object, ctx, me.event))
                    else:
                        out = await self._invoke(me)
                except BaseException as error:  # noqa: BLE001 because whatever ends a step is dealt with in one place
                    if me.pool is not None:
                        await leave(self, me)
                    if not await self._failed(me, error):
                        return
                    continue
                route = plan.returns.get(out.__class__)
                if self.plain and route is not None and self.status == RUNNING:
                    # the short way: one successor, nothing else ready, and who hears of events has heard of the step
                    target = route.target
                    busy = self.ready or self.fresh or self.backlog or me.threaded or me.ledger
                    if target is not None and not busy and (watch is None or me.op is not None or not watch.events):
                        active = self.active
                        active[plan.index] -= 1
                        if active[target.index] < target.limit:
                            active[target.index] += 1
                            me.plan = target
                            me.event = out
                            me.edge = route.edge
                            me.ctx = me.ledger = me.sent = None
                            if me.op is not None:
                                self._hand_on(me, me.op, out)
                            turns -= 1
                            if not turns:
                                turns = _TURNS
                                await asyncio.sleep(0)
                            continue
                        active[plan.index] += 1
                if me.pool is not None:
                    await leave(self, me)
                if not self._settled(me, out, route):
                    return
                turns -= 1
                if turns <= 0:
                    turns = _TURNS
                    await asyncio.sleep(0)
        except asyncio.CancelledError:
            if self.status == RUNNING:  # neither we nor a step: the event loop is being shut down
                self.cancel()
            raise
        finally:
            self._dismiss(me)

    def _settled(self, me: Worker, out: object, route: Route | None) -> bool:  # noqa: C901, PLR0911, PLR0912 because it decides what is next
        """A step has returned: hand on what it produced. True: the worker has its next delivery."""
        plan = me.plan
        if self.status != RUNNING:  # it ended meanwhile; what comes late is dropped
            self._step_ends(me, None, "ok" if self.ended_by is me else "cancelled")
            return False
        try:
            routes = self._routes(plan, out) if route is None else [(cast("Event", out), route)]
        except WorkflowRuntimeError as error:
            self._fail(me, error)
            return False
        op = me.op
        if op is not None:
            op.result = out
        if self.recorder is not None:
            self.recorder(self, me, out)
        threaded = me.threaded and self._outgoing(me, me.threaded)
        self._step_ends(me, None, "ok")
        here = copy_context()
        variables = threaded or here
        if me.ledger is not None and me.ledger.taken:
            self._consume(me.ledger)
        self._release(plan)
        stop: tuple[Event, Route] | None = None
        for event, way in routes:
            if way.fate is Fate.STOP:
                stop = event, way
                break
        if self.stepper is not None:
            for event, way in routes:
                self.stepper.hold(Held(event, plan, None, variables, op))
                self.counts[way.edge] = self.counts.get(way.edge, 0)
            return False
        if stop is not None:
            if len(routes) > 1:
                self.note(me, "events_dropped", {"count": len(routes) - 1, "because": "a StopEvent was among them"})
            self._stop(*stop, done=me)
            return False
        if len(routes) == 1:
            event, way = routes[0]
            target = way.target
            idle = not (self.ready or self.fresh or self.waits or me.threaded)
            if target is not None and idle and self._free(target):
                self.active[target.index] += 1
                me.take(Delivery(target, event, way.edge, variables, self._sent(event, op), None))
                return True
        try:
            for event, way in routes:
                self._deliver(event, way, variables, op)
        except WorkflowRuntimeError as error:
            self._fail(me, error)
            return False
        return self._next(me, here)

    def _routes(self, plan: StepPlan, out: Any) -> list[tuple[Event, Route]]:
        if out is None:
            return []
        return [(v, plan.returns.get(v.__class__) or self.graph.returned(plan, v)) for v in _listed(out)]

    def _starts(self, me: Worker) -> bool:
        """A worker has its first turn. True: it has a delivery to execute."""
        fresh = self.fresh
        if not me.robbed and fresh:
            if fresh[0] is me:
                fresh.popleft()
            else:
                fresh.remove(me)
        if self.stepper is not None and not me.stepped:  # held after it was made
            if not me.robbed:
                self._ready_now(me.delivery(), first=True)
            return False
        return not me.robbed or self._next(me, copy_context())

    def _next(self, me: Worker, here: Variables) -> bool:
        """Give the worker, in whose task the variables are those of `here`, what comes first, if anything does."""
        if self.stepper is not None or self.status != RUNNING:
            return False
        if self.fresh:
            other = self.fresh[0]
            if not same(other.variables, here):
                return False
            self.fresh.popleft()
            other.robbed = True
            me.take(other.delivery())
            return True
        if not self.ready:
            return False
        delivery = self.ready.popleft()
        if same(delivery.variables, here):
            me.take(delivery)
            return True
        self._employ(delivery)
        return False

    def _free(self, plan: StepPlan) -> bool:
        return self.active[plan.index] < plan.limit and not (self.backlog and self.backlog.get(plan.index))

    def _enqueue(self, delivery: Delivery) -> None:
        """Let a delivery take a slot of its step, or stand in line for one."""
        plan = delivery.plan
        if self._free(plan):
            self.active[plan.index] += 1
            self._ready_now(delivery)
            return
        if self.backlog is None:
            self.backlog = {}
        line = self.backlog.get(plan.index)
        if line is None:
            line = self.backlog[plan.index] = deque()
        line.append(delivery)

    def _ready_now(self, delivery: Delivery, *, first: bool = False) -> None:
        """A delivery has its slot."""
        if self.ready is None:
            self.ready = deque()
        if first:
            self.ready.appendleft(delivery)
        else:
            self.ready.append(delivery)
        self._kick()

    def _kick(self) -> None:
        """See to it that what is ready is taken up, if no worker does before the event loop's next turn."""
        if self.stepper is not None:
            self.stepper.progressed()
        elif not self.kicked and self.ready:
            self.kicked = True
            self.loop.call_soon(self._spread)

    def _spread(self) -> None:
        self.kicked = False
        if self.stepper is None and self.status == RUNNING:
            while self.ready:
                self._employ(self.ready.popleft())

    def _release(self, plan: StepPlan) -> None:
        """Free a slot of a step, for the first in line."""
        index = plan.index
        line = self.backlog.get(index) if self.backlog else None
        if line:
            self._ready_now(line.popleft())
            if not line:
                del self.backlog[index]  # type: ignore[union-attr]  # line came from it
        else:
            self.active[index] -= 1

    def _dismiss(self, me: Worker) -> None:
        """A worker ends."""
        last = self.workers.pop() if self.workers else me  # the last takes the place: nothing is searched
        if last is not me:
            self.workers[me.place] = last
            last.place = me.place
        me.ctx = None  # a context leads back to its worker
        if self.stepper is not None:
            self.stepper.progressed()
        if self.status == RUNNING:
            self._kick()
            if not self.fail_if_stalled():
                if not self.workers:
                    live.discard(self)  # whoever can wake it holds it: its handler, a timer, the run whose child it is
                if self.watch is not None:
                    self._rest()

    # -- failing and trying again ------------------------------------------------------------------

    async def _invoke(self, me: Worker) -> Any:
        """Call a step that is more than an async method of an event."""
        if me.plan.policy is None:
            return await invoke(self, me)
        await attempt.begin(self, me)
        return await attempt.judge(self, me, await invoke(self, me))

    async def _failed(self, me: Worker, error: BaseException) -> bool:  # noqa: C901 because it tells all kinds of failure apart
        """A step has raised. True: the worker has its next delivery."""
        if self.status != RUNNING:  # we are ending it, or it fails too late to matter
            outcome = outcome_of(error)
            put_away = outcome == "cancelled" and self.outcome == "suspended"
            self._step_ends(me, error, "suspended" if put_away else outcome)
            if isinstance(error, KeyboardInterrupt | SystemExit):
                _interrupt(me, error)
            return False
        if isinstance(error, asyncio.CancelledError):
            if me.task.cancelling():  # the event loop is being shut down
                self._step_ends(me, error, "cancelled")
                self.cancel()
                raise error
            msg = f"step {me.plan.name!r} of {self.graph.name!r} raised CancelledError, though nobody cancelled it"
            own = WorkflowRuntimeError(msg)
            own.__cause__ = error
            error = own
        elif isinstance(error, attempt.Final):
            error = error.error
        elif me.plan.policy is not None and isinstance(error, Exception):
            try:
                answer = await attempt.decide(self, me, error)
            except Exception as broken:  # noqa: BLE001 because a policy may raise anything, and the run has to fail with it
                error = broken
            else:
                if isinstance(answer, tuple):
                    return self._settled(me, answer[0], None)
                if answer is not None:
                    self._again(me, error, answer)
                    return self._next(me, copy_context())
        self._fail(me, error)
        if isinstance(error, KeyboardInterrupt | SystemExit):
            _interrupt(me, error)
        return False

    def _again(self, me: Worker, error: Exception, delay: float) -> None:
        """Let a delivery be tried again after a delay; its slot is free meanwhile."""
        assert me.ledger is not None
        attempt.remember(self, me.ledger, delay)
        if self.watch is not None:
            self.note(me, "retry", {"attempt": me.ledger.failures, "delay": delay, "error": error})
        self._step_ends(me, error, "retried")
        me.ctx = None
        self._release(me.plan)
        self._delay(me.delivery(), delay)

    def _delay(self, delivery: Delivery, delay: float) -> None:
        if self.delayed is None:
            self.delayed = {}
        key = object()
        timer = self.clock.call_later(delay, partial(self._due, key))
        self.delayed[key] = (timer, delivery, self.clock.time() + delay)

    def _due(self, key: object) -> None:
        if self.delayed and key in self.delayed:
            _, delivery, _ = self.delayed.pop(key)
            if delivery.ledger is not None:
                delivery.ledger.due_ns = time.time_ns()
            self._enqueue(delivery)

    def _fail(self, me: Worker, error: BaseException) -> None:
        """A step's error ends the run."""
        attempt = 1 if me.ledger is None else me.ledger.failures + 1
        error.add_note(
            f"agentflow: in step {me.plan.name!r} of workflow {self.graph.name!r}, run {self.run_id}, attempt {attempt}"
        )
        self._step_ends(me, error, outcome_of(error))
        self._fail_with(error, me.plan.name, attempt, me)

    def _fail_with(self, error: BaseException, step: str | None, attempts: int, done: Worker | None) -> None:
        event = WorkflowFailedEvent(
            step=step,
            exception_type=f"{type(error).__module__}.{type(error).__qualname__}",
            message=_text_of(error),
            attempts=attempts,
        )
        self.end(event, error, "timeout" if isinstance(error, TimeoutError) else "error", done)

    def fail_if_stalled(self) -> bool:
        """Fail the run if nothing of it can ever go on; True if so."""
        if self.status != RUNNING or self._goes_on:
            return False
        if self.graph.answers or (self.waits is not None and self.waits.hopeful()):
            if self.waits is None or not self.waits.limited:
                self._stand_still()
            return False
        why = why_stalled(self.graph, self.collectors or {}, self.waits or (), self.backlog or {}, self.counts)
        self._fail_with(WorkflowStalledError(why), None, 1, None)
        return True

    @property
    def _goes_on(self) -> bool:
        """Is anything of it under way that needs nobody from outside?"""
        return bool(
            self._working
            or self.ready
            or self.delayed
            or self.children
            or (self.stepper is not None and self.stepper.held)
        )

    def _stand_still(self) -> None:
        """Nothing goes on until somebody answers: tell whoever is to hear of it."""
        if self.still is not None:
            _wake(self.still, self.loop)
        run: Run | None = self
        while run is not None:
            if run.alone:
                run.alone = False
                logger().warning(
                    f"the run of {self.graph.name!r} {self.stands_for()}, whom run_sync cannot ask. To answer it, use "
                    "run() and handler.ctx.send_event(...)",
                    workflow=self.graph.name,
                    run_id=self.run_id,
                )
            run = run.parent

    def stands_for(self) -> str:
        """Whom it waits for, in words, with the events that would answer; empty where anything of it goes on."""
        if self._goes_on:
            return ""
        kinds = self._awaited()
        if not kinds:
            return ""
        whom = "a person" if any(issubclass(kind, HumanResponseEvent) for kind in kinds) else "somebody outside"
        asked = None if self.ring is None else self.ring.newest(InputRequiredEvent)
        last = "" if asked is None else f"; asked last: {a(type(asked).__name__)}"
        return f"waits for {whom} ({' or '.join(a(kind.__name__) for kind in kinds)}{last})"

    def _awaited(self) -> list[type[Event]]:
        """The types of events from outside that would let it go on."""
        kinds = [waiter.kind for waiter in self.waits or () if from_outside(self.graph, waiter.kind)]
        return list(dict.fromkeys([*kinds, *self.graph.answers]))

    # -- pauses ------------------------------------------------------------------------------------

    @property
    def _idle(self) -> bool:
        """Does it stand still until somebody outside lets it go on, or the time limit of a wait?

        A step that is tried again later goes on by itself, and what is held is its holder's.
        """
        return self.status == RUNNING and self.stepper is None and not self._goes_on

    def _rest(self) -> None:
        """Something of it has ended, or begun to wait. Where that was the last, its segment ends after a while."""
        segment = self.segment
        if self.op is None or segment is None or not self._idle:
            return
        kinds = self._awaited()
        if kinds:
            facts = {"type": " or ".join(kind.__name__ for kind in kinds)}
            if segment.asked is not None:
                facts["asked"] = segment.asked
            self.note(None, "waiting", facts)
        self._stand(segment)

    def _stand(self, segment: Segment) -> None:
        """From now on nothing of it goes on."""
        segment.idle_ns = time.time_ns()
        segment.since = self.clock.time()
        if segment.timer is None:
            # it holds nothing of the run: one that nobody can wake any more is not kept for it
            later = partial(_stood_long, ref(self))
            segment.timer = Variables().run(self.clock.call_later, self.host.pause_grace, later)

    def stood_long(self, segment: Segment) -> None:
        """The time for which a segment may wait is over, for a wait that may be over as well."""
        segment.timer = None
        if self.op is None or not self._idle:
            return  # the next wait sets the timer again
        left = segment.since + self.host.pause_grace - self.clock.time()
        if left > _SOON:
            later = partial(_stood_long, ref(self))
            segment.timer = Variables().run(self.clock.call_later, left, later)
        else:
            self._pause(segment)

    def _pause(self, segment: Segment) -> None:
        self.op = None
        self.surroundings = []
        segment.pause()

    def wake(self, event: Event | None = None, *, by_itself: bool = False) -> None:
        """Something of it is about to go on. Where its segment has ended, another begins.

        `by_itself`: it is no code of anybody's that wakes it. Observers then find its own scope where it begins.
        """
        segment, watch = self.segment, self.watch
        if watch is None or segment is None or self.op is not None or self.status != RUNNING:
            return
        scope = current_scope.get()
        own = by_itself or (scope is not None and scope.run is self)
        parent = segment.parent
        if own or parent is not None:  # a timer, or a task of its own: in nobody's request
            self.base = self.base.copy()
        else:
            self.base = copy_context()
        self.scope.ref = self._begin_segment(segment, watch, parent, event).ref
        self.base.run(current_scope.set, self.scope)
        self._stand(segment)  # should the event that it is woken for set nothing going

    # -- events ------------------------------------------------------------------------------------

    def send(self, event: Event, step: str | None, sender: Context[Any] | None) -> None:
        """An event is sent, by a step or from outside."""
        if not isinstance(event, Event):
            msg = f"send_event({event!r}): only events are sent. Write send_event(MyEvent(...)), one call for each."
            raise WorkflowRuntimeError(msg)
        plan = None if sender is None else sender._plan
        if self.status not in {QUEUED, RUNNING}:
            self._late(event, plan)
            return
        if step is not None:
            self._check_target(event, step)
        if sender is None or plan is None:
            self._send_from_outside(event, step)
        elif sender.ledger().sends(type(event)):  # else an earlier attempt did it
            self._send_from_step(event, step, plan, sender._worker if sender._worker.ctx is sender else None)

    def _send_from_step(self, event: Event, step: str | None, plan: StepPlan, by: Worker | None) -> None:
        variables = self._outgoing(by)
        cause = None if by is None else by.op
        if self.stepper is not None:
            self.stepper.hold(Held(event, plan, step, variables, cause))
            return
        route = plan.sends.get(type(event)) or self.graph.route(type(event), plan)
        if route.fate is Fate.STOP:
            self.ended_by = by
        self._deliver(event, route, variables, cause, step)

    def _send_from_outside(self, event: Event, step: str | None) -> None:
        route = self.graph.route(type(event), None)
        self.wake(event)
        if self.status == QUEUED:
            if route.fate is Fate.LOST:
                raise self.graph.lost(type(event), "the caller")
            self.arrivals = [*(self.arrivals or ()), (event, None, step)]
            return
        variables = copy_context()
        for variable, value in self.surroundings:
            variables.run(variable.set, value)
        variables.run(current_scope.set, self.scope)
        held = None if self.stepper is None else self.stepper.release(event)
        if held is not None:
            self.pass_on(held, event)
        else:
            self._deliver(event, route, variables, None, step)

    def _outgoing(self, me: Worker | None, now: Variables | None = None) -> Variables:
        """The context variables that go with an event, without what observers made current for the step that sends."""
        if now is None:
            now = copy_context()
        if me is None or me.before is None or me.after is None:
            return now
        variables = me.before.copy()
        for variable, value in changes(me.after, now):
            variables.run(variable.set, value)
        return variables

    def pass_on(self, held: Held, event: Event) -> None:
        """Deliver what stepwise execution held, changed or not."""
        if self.status == RUNNING:
            route = self.graph.route(type(event), held.plan)
            self._deliver(event, route, held.variables, held.cause, held.step)

    def _late(self, event: Event, plan: StepPlan | None) -> None:
        if plan is not None or (self.stepper is not None and isinstance(event, StopEvent)):
            return  # what a step does after the end is dropped; a StopEvent that was handed out is never an error
        if self.status < RUNNING:
            kind = type(event).__name__
            msg = f"the run of {self.graph.name!r} has not begun: send {a(kind)} after workflow.run(ctx=ctx)."
        else:
            msg = (
                f"the run of {self.graph.name!r} has ended, so {a(type(event).__name__)} cannot be sent to it. Start "
                "another with the same state: workflow.run(ctx=handler.ctx)"
            )
        raise WorkflowRuntimeError(msg)

    def _check_target(self, event: Event, step: str) -> None:
        plan = self.graph.by_name.get(step)
        if plan is None:
            names = ", ".join(repr(name) for name in self.graph.by_name)
            msg = f"send_event(..., step={step!r}): {self.graph.name!r} has no such step. It has: {names}."
            raise WorkflowRuntimeError(msg)
        if not isinstance(event, plan.spec.accepts):
            accepts = ", ".join(k.__name__ for k in plan.spec.accepts)
            msg = f"send_event(..., step={step!r}): it does not accept {a(type(event).__name__)}, but: {accepts}."
            raise WorkflowRuntimeError(msg)

    def _deliver(
        self, event: Event, route: Route, variables: Variables, cause: Operation | None, step: str | None = None
    ) -> None:
        """Bring an event to all who take it. Raises `WorkflowRuntimeError` where nobody does."""
        fate = route.fate
        if fate is Fate.STOP:
            self._stop(event, route, done=None)
            return
        answered = self._answer(event, step)
        if not answered and fate in {Fate.KEEP, Fate.LOST}:
            self._keep(event, route, cause)
            return
        sent = self._sent(event, cause)
        if fate is Fate.INPUT:
            if not route.targets:
                self.counts[route.edge] = self.counts.get(route.edge, 0) + 1
            self._ask_outside(event)
            if self.watch is not None and self.segment is not None:
                self.segment.asked = type(event).__name__
                self.note(None, "event_streamed", {"event": event})
        if step is not None:
            route = self.host.route_to(route, step)
        for plan, edge in zip(route.targets, route.edges, strict=True):
            self._enqueue(Delivery(plan, event, edge, variables, sent, None))
        if not route.targets and sent is not None and self.watch is not None:
            self.watch.finished(sent)

    def _stop(self, event: Event, route: Route, done: Worker | None) -> None:
        self.counts[route.edge] = self.counts.get(route.edge, 0) + 1
        self.end(event, None, "ok", done)  # type: ignore[arg-type]  # its fate says that it is a StopEvent

    def _keep(self, event: Event, route: Route, cause: Operation | None) -> None:
        kind = type(event)
        kinds = self.graph.waited if self.waits is None else self.waits.kinds
        if route.fate is Fate.LOST and not any(base in kinds for base in kind.__mro__):
            sender = route.edge.source
            raise self.graph.lost(kind, "the caller" if sender is None else f"step {sender!r}")
        self.waiting().keep(event, self._sent(event, cause))

    def _answer(self, event: Event, step: str | None) -> bool:
        """Hand an event to the first who waits for it, if anyone does."""
        if not self.waits:
            return False
        waiter = self.waits.answer(event, step)
        if waiter is None:
            return False
        self._restore_plain()
        if self.watch is not None:
            self.wake(event)
            self.note(waiter.worker, "answered", {"type": type(event).__name__})
        return True

    def waiting(self) -> Waits:
        """The waits of the run, made when the first begins."""
        if self.waits is None:
            self.waits = Waits(self, self.graph.waited)
        return self.waits

    def begin_wait(  # noqa: PLR0913, PLR0917 because these are the documented parameters
        self,
        sender: Context[Any],
        kind: type[Event],
        waiter_event: Event | None,
        key: str | None,
        requirements: Mapping[str, Any],
        timeout: float | None,
    ) -> Event | Waiter:
        """What a step waits for, if it has come; else the wait, to be awaited and then ended."""
        ledger = sender.ledger()
        key = ledger.begins(key)
        if key in ledger.answers:
            return ledger.answers[key]
        if self.status != RUNNING:
            raise asyncio.CancelledError
        worker: Worker | None = sender._worker if sender._worker.ctx is sender else None
        plan = sender._plan
        assert plan is not None
        if key in ledger.expired:
            raise self.waiting().expired(plan, kind, timeout)
        waiter = self.waiting().begin(plan, worker, ledger, kind, requirements, key, timeout)
        if isinstance(waiter, Kept):
            if waiter.sent is not None and self.watch is not None:
                self.watch.finished(waiter.sent)
            return waiter.event
        self.plain = False
        if waiter_event is not None and key not in ledger.asked:
            try:
                self._ask(waiter_event, sender)
            except BaseException:
                self.end_wait(waiter)
                raise
            ledger.asked = (*ledger.asked, key)
        self._suspend(worker, kind, requirements)
        return waiter

    def _suspend(self, worker: Worker | None, kind: type[Event], requirements: Mapping[str, Any]) -> None:
        """A step waits from now on."""
        if self.stepper is not None:
            self.stepper.progressed()
        if self.watch is not None:
            self.note(worker, "waiting", {"type": kind.__name__, "requirements": dict(requirements)})
        if not self.fail_if_stalled():
            self._rest()

    def end_wait(self, waiter: Waiter) -> None:
        """A wait is over, answered or not."""
        if self.waits is not None:
            self.waits.end(waiter)
            self._restore_plain()

    def _restore_plain(self) -> None:
        if not self.waits:
            self.plain = self.recorder is None and self.stepper is None

    def _ask(self, event: Event, sender: Context[Any]) -> None:
        if isinstance(event, InputRequiredEvent):
            route = self.graph.route(type(event), sender._plan)
            by = sender._worker if sender._worker.ctx is sender else None
            self._deliver(event, route, self._outgoing(by), by and by.op)
        else:
            self.stream(event, sender)

    def collector(self, step: str, buffer_id: str) -> Collector:
        """The buffer of a step."""
        if self.collectors is None:
            self.collectors = {}
        found = self.collectors.get((step, buffer_id))
        if found is None:
            found = self.collectors[step, buffer_id] = Collector()
            found.key = step, buffer_id
        return found

    def _consume(self, ledger: Ledger) -> None:
        """What a step took out of its buffers is used up; buffers that are empty for good are forgotten."""
        for collector, _ in ledger.taken:
            collector.out -= 1
            if self.collectors is not None and not len(collector) and not collector.out:
                self.collectors.pop(collector.key, None)
        ledger.taken = ()

    def collected(self, sender: Context[Any], taken: list[Collected] | None) -> None:
        """A step has collected, all or not yet."""
        if self.watch is None or sender._worker.ctx is not sender:
            return
        op = sender._worker.op
        if op is None:
            return
        op.outcome = "collecting" if taken is None else "ok"
        if taken is not None:
            causes = [ref for _, ref in taken if ref is not None]
            self.watch.noted(op, "collected", {"count": len(taken), "causes": causes[:128]})

    # -- the stream --------------------------------------------------------------------------------

    def stream(self, event: Event, sender: Context[Any] | None) -> None:
        """A step, or the caller, writes to the stream."""
        if self.status != RUNNING:
            if sender is not None and sender._plan is not None:
                return
            self._late(event, None)
        if not isinstance(event, Event):
            msg = (
                f"write_event_to_stream({event!r}): only events are written. Write write_event_to_stream(MyEvent(...))"
            )
            raise WorkflowRuntimeError(msg)
        self.write(event)
        if self.watch is not None:
            self.note(None if sender is None else sender._worker, "event_streamed", {"event": event})

    def write(self, event: Event) -> None:
        """Put an event on the stream, and on that of the run whose child this is."""
        ring = self.ring
        if ring is None:
            ring = self.ring = Ring()
        ring.write(event)
        parent = self.parent
        if parent is not None and parent.status == RUNNING:
            if parent.loop is self.loop:
                parent.write(event)
            else:
                parent.loop.call_soon_threadsafe(parent.write, event)

    def _ask_outside(self, event: Event) -> None:
        """Show a question to whoever is to answer it."""
        if self.questions is None:
            self.write(event)
        else:
            self.questions.append(event)  # type: ignore[arg-type]  # its fate says that it is an InputRequiredEvent
            self.followed().write(event)

    def followed(self) -> Ring:
        """The stream, for those who follow it; after the end too."""
        if self.ring is None:
            self.ring = Ring()
            if self.status == ENDED:
                self._close_ring(self.ring)
        return self.ring

    @property
    def is_followed(self) -> bool:
        """Does anybody follow its stream, or that of a run whose child it is?"""
        run: Run | None = self
        while run is not None:
            if run.ring is not None and run.ring.readers:
                return True
            run = run.parent
        return False

    def _close_ring(self, ring: Ring) -> None:
        if self.stop_event is not None:
            ring.write(self.stop_event)
        ring.close()

    # -- stepwise ----------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Has it ended, with all that belongs to it?"""
        return self.status == ENDED

    @property
    def executing(self) -> bool:
        """Is a step running that is not suspended in a wait, or the run being wound up?"""
        return self._working or self.status == ENDING

    @property
    def _working(self) -> bool:
        """Is a worker doing anything but waiting for an event?"""
        return len(self.workers) > (0 if self.waits is None else self.waits.suspended)

    def start_next(self) -> bool:
        """Start the first delivery that is ready, if one is."""
        if not self.ready:
            return False
        self._employ(self.ready.popleft()).stepped = True
        return True

    # -- the end -----------------------------------------------------------------------------------

    def cancel(self) -> None:
        """End it because somebody wants it to."""
        self._cancel("was cancelled", "cancelled")

    def put_away(self) -> dict[str, Any]:
        """Store it, and end it here; it goes on elsewhere."""
        data = self.snapshot()
        self._cancel("was put away. It goes on with run(ctx=Context.from_dict(workflow, data))", "suspended")
        return data

    def _cancel(self, how: str, outcome: Outcome) -> None:
        if self.status == QUEUED and self.host.gate is not None:
            self.host.gate.give_up(self)
            self.inside = False
        if self.status < ENDING:
            error = WorkflowCancelledByUser(f"the run of {self.graph.name!r} {how}")
            self.end(WorkflowCancelledEvent(), error, outcome, None)

    def _timed_out(self) -> None:
        active = sorted({worker.plan.name for worker in self.workers})
        timeout = self.host.timeout or 0.0
        running = self.stands_for() or (f"running: {', '.join(active)}" if active else "no step was running")
        msg = f"the run of {self.graph.name!r} exceeded its time-out of {timeout:g} s; {running}"
        error = WorkflowTimeoutError(msg)
        self.wake(by_itself=True)
        self.end(WorkflowTimedOutEvent(timeout=timeout, active_steps=active), error, "timeout", None)

    def end(self, stop: StopEvent, error: BaseException | None, outcome: Outcome, done: Worker | None) -> None:
        """The first call decides how the run ends. `done` is the worker whose step is over."""
        if self.status >= ENDING:
            return
        begun = self.status == RUNNING
        if begun and outcome != "suspended" and self.segment is not None and not self.segment.stored:
            self.wake()
        self.status = ENDING
        self.stop_event, self.error, self.outcome = stop, error, outcome
        if not begun:
            self._close()
            return
        self._stop_time()
        if self.ready or self.backlog or self.delayed:
            self._drop_all()
        self.fresh = None
        others = [worker for worker in self.workers if worker is not done and not worker.robbed]
        for worker in others:
            worker.task.cancel()
        if self.waits is not None:
            self.waits.abandon()
        for child in list(self.children or ()):
            child.cancel()
        if others or self.children or (self.pool is not None and self.pool.needs_closing):
            closer = self.loop.create_task(self._wind_up(others), context=self.base.copy())
            closer.add_done_callback(self._wound_up)
        else:
            self._close()

    def _drop_all(self) -> None:
        """Nothing that is on its way will be executed any more."""
        for timer, _, _ in (self.delayed or {}).values():
            timer.cancel()
        for delivery in self._under_way():
            self._drop(delivery)
        self.delayed = self.ready = self.backlog = None

    def _under_way(self) -> list[Delivery]:
        """The deliveries that no worker has."""
        lines = (self.ready or (), *(self.backlog or {}).values())
        return [*(d for _, d, _ in (self.delayed or {}).values()), *(d for line in lines for d in line)]

    @property
    def _untaken(self) -> Outcome:
        """What becomes of events that nobody took up: a run that is put away has them with it."""
        return "suspended" if self.outcome == "suspended" else "dropped"

    def _drop(self, delivery: Delivery) -> None:
        if delivery.sent is not None and not delivery.sent.ended_at and self.watch is not None:
            self.watch.finished(delivery.sent, None, self._untaken)

    async def _wind_up(self, others: list[Worker]) -> None:
        """Wait for what was cancelled, for as long as the grace lasts; then tear down resources."""
        waiting: set[asyncio.Future[Any]] = {worker.task for worker in others}
        waiting |= {child.ended() for child in self.children or () if child.status != ENDED}
        left = await self._patiently(waiting)
        if left:
            names = sorted({w.plan.name for w in others if w.task in left})
            names += sorted(child.graph.name for child in self.children or ())
            logger().warning(
                "steps ignored their cancellation and were left behind; what they still do is dropped",
                workflow=self.graph.name,
                run_id=self.run_id,
                steps=names,
                seconds=self.host.cancel_grace,
            )
            self.note(None, "abandoned", {"steps": names})
        if self.pool is not None:
            closing = self.loop.create_task(self.pool.close())
            if await self._patiently({closing}):
                closing.cancel()
                logger().warning(
                    "the teardown of a resource took too long and was left behind",
                    workflow=self.graph.name,
                    run_id=self.run_id,
                    seconds=self.host.cancel_grace,
                )
            else:
                self.report(closing.result(), f"run of {self.graph.name!r}")

    def _wound_up(self, closer: asyncio.Task[None]) -> None:
        """All is wound up, or nobody lets us: where the event loop is shut down, the task may not have had a turn."""
        if not closer.cancelled() and (error := closer.exception()) is not None:
            logger().error("winding up a run failed: please report it", exc_info=error)
        self._close()

    async def _patiently(self, waiting: set[asyncio.Future[Any]]) -> set[asyncio.Future[Any]]:
        """Wait for all of them, for `cancel_grace` seconds at most; returns those that are left."""
        if not waiting:
            return waiting
        over: asyncio.Future[Any] = self.loop.create_future()
        timer = self.clock.call_later(self.host.cancel_grace, partial(_done, over))
        left = set(waiting)
        while left and not over.done():
            finished, _ = await asyncio.wait({*left, over}, return_when=asyncio.FIRST_COMPLETED)
            left -= finished
        timer.cancel()
        return left

    def report(self, errors: list[BaseException], where: str) -> None:
        """The teardown of resources failed: it never changes how the run ended, but it is said."""
        for error in errors:
            logger().warning("the teardown of a resource failed", where=where, run_id=self.run_id, exc_info=error)
            self.note(None, "teardown_failed", {"error": error})
            if self.error is not None:
                self.error.add_note(f"agentflow: and the teardown of a resource failed: {error!r}")

    def _close(self) -> None:
        """It is over: tell everyone."""
        self.status = ENDED
        self.thread = None
        live.discard(self)
        if self.watch is not None:
            self._close_operations(self.watch, self.outcome)
            forget(self)
        if self.threads is not None:
            self.threads.shutdown(wait=False, cancel_futures=True)
            self.threads = None
        if self.ring is not None:
            self._close_ring(self.ring)
        if self.inside and self.host.gate is not None:
            self.inside = False
            self.host.gate.leave(self)
        if self.parent is not None and self.parent.loop is self.loop:
            self.parent.lose(self)
        awaiting, self.awaiting = self.awaiting, None
        for future in awaiting or ():
            _wake(future, self.loop)
        if self.still is not None:
            _wake(self.still, self.loop)
        if self.stepper is not None:
            self.stepper.progressed()
        if self.orphaned:
            self.warn_unheard()
        self.workers = []
        self.scope.run = None  # contexts outlive the run, and must not keep it
        self.base = _EMPTY
        self.collectors = self.waits = self.children = self.op = None
        self.watch = self.recorder = self.parent = None

    def lose(self, child: Run) -> None:
        """A run that was started by this one has ended."""
        if self.children is not None:
            self.children.discard(child)
            if not self.fail_if_stalled():
                self._rest()

    def _close_operations(self, watch: Watch, outcome: Outcome) -> None:
        """Whatever is open ends with the run: steps that were left behind, events that nobody took up."""
        for worker in self.workers:
            if worker.op is not None:
                op, worker.op = worker.op, None
                watch.finished(op, None, "suspended" if outcome == "suspended" else "cancelled")
            self._drop(worker.delivery())
        for kept in self.waits.kept if self.waits is not None else ():
            if kept.sent is not None:
                watch.finished(kept.sent, None, self._untaken)
        self.op = None
        if self.segment is not None:
            if self.segment.timer is not None:
                self.segment.timer.cancel()
                self.segment.timer = None
            self.segment.close(self.error, outcome, self.stop_event)

    @property
    def begun_ns(self) -> int:
        """When its operation began, in nanoseconds since the epoch; 0 where none is open."""
        return 0 if self.op is None else self.op.started_at

    def leave(self) -> None:
        """Tell how it ends: its event loop is closed, or the process ends, and it gets no turn any more."""
        watch = self.watch
        if watch is None:
            return
        outcome: Outcome = "suspended" if self._idle else "cancelled"
        for delivery in self._under_way():
            self._drop(delivery)
        self._close_operations(watch, self.outcome if self.status >= ENDING else outcome)
        self.watch = None
        if self.loop.is_closed():
            self.status = max(self.status, ENDING)  # what its tasks still do when they are thrown away is no failure
            live.discard(self)

    def unwatch(self) -> None:
        """Tell nobody of it any more."""
        if self.watch is not None:
            self.watch.dismiss()

    def ended(self) -> asyncio.Future[None]:
        """A future of the running event loop that is done when the run has ended."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.status == ENDED:
            future.set_result(None)
        elif self.awaiting is None:
            self.awaiting = [future]
        else:
            self.awaiting.append(future)
        if self.status == ENDED and not future.done():
            future.set_result(None)  # it ended just now, in its own thread
        return future

    def warn_unheard(self) -> None:
        """It failed, and nobody can learn of it any more."""
        if self.error is not None and self.outcome in {"error", "timeout"}:
            logger().warning(
                "a run failed and nobody awaited it",
                workflow=self.graph.name,
                run_id=self.run_id,
                exc_info=self.error,
            )

    # -- being looked at ---------------------------------------------------------------------------

    def load(self) -> dict[str, tuple[int, int]] | None:
        """By step, how many events wait for it, and how many of its workers are busy. Any thread may ask.

        A step that waits for an event keeps its worker. None where it is over, or its event loop is closed.
        """
        if self.status == ENDED or self.loop.is_closed():
            return None
        # each copy is one operation of the interpreter: the event loop cannot change what is being copied
        busy = self.active.copy()
        waiting = [0] * len(busy)
        for index, line in list((self.backlog or {}).items()):
            waiting[index] += len(line)
        for delivery in list(self.ready or ()):  # they have a slot, and no worker yet
            waiting[delivery.plan.index] += 1
            busy[delivery.plan.index] -= 1
        return {
            plan.name: (waiting[plan.index], max(0, busy[plan.index]))
            for plan in self.graph.steps
            if waiting[plan.index] or busy[plan.index] > 0
        }

    def _sent(self, event: Event, cause: Operation | None) -> Operation | None:
        """Open the operation of an event on its way, where somebody looks on."""
        watch = self.watch
        if watch is None or not watch.events:
            return None
        scope = self.scope
        sent = Operation(
            _EVENT_KIND,
            type(event).__name__,
            run_id=scope.run_id,
            workflow=scope.workflow,
            parent=scope.ref if cause is None else cause.ref,
            cause=None if cause is None else cause.ref,
            subject=event,
        )
        watch.started(sent)
        return sent

    def _step_begins(self, me: Worker) -> None:
        watch = self.watch
        assert watch is not None
        sent = me.sent
        if sent is not None and not sent.ended_at:
            watch.finished(sent)
        if self.op is None:
            self.wake()
        if not watch.steps:
            return
        scope = self.scope
        me.cause = None if sent is None else sent.ref
        me.op = op = Operation(
            _STEP_KIND,
            me.plan.name,
            run_id=scope.run_id,
            workflow=scope.workflow,
            parent=scope.ref,
            cause=me.cause,
            subject=me.event,
            attempt=1 if me.ledger is None else me.ledger.failures + 1,
        )
        if me.ledger is not None and me.ledger.due_ns:
            op.queued_ns = max(0, op.started_at - me.ledger.due_ns)
        elif sent is not None:
            op.queued_ns = max(0, op.started_at - sent.started_at)
        me.before = copy_context()
        me.token = current_scope.set(
            Scope(self, watch, op.ref, scope.run_id, scope.workflow, step=op.name, attempt=op.attempt)
        )
        watch.started(op)
        me.after = copy_context()

    def _hand_on(self, me: Worker, op: Operation, out: Event) -> None:
        """Tell that a step has ended, and that its event is on its way to the worker's next step."""
        op.result = out
        self._step_ends(me, None, "ok")
        me.sent = self._sent(out, op)

    def _step_ends(self, me: Worker, error: BaseException | None, outcome: Outcome) -> None:
        op, me.op = me.op, None
        if op is None or self.watch is None:
            return
        if op.outcome == "collecting" and outcome == "ok":
            outcome = "collecting" if op.result is None else "ok"
        self.watch.finished(op, error, outcome)
        if self.took is not None:
            self.took[op.name] = self.took.get(op.name, 0) + op.ended_at - op.started_at
        current_scope.reset(me.token)
        me.token = me.before = me.after = None

    def note(self, worker: Worker | None, name: str, facts: dict[str, Any]) -> None:
        """Note something on the step that a worker executes, or on the run."""
        if self.watch is not None:
            op = (worker and worker.op) or self.op
            if op is not None:
                self.watch.noted(op, name, facts)

    def next_delivery_key(self) -> str:
        """Names a delivery to the outside. A run that was put away and brought back gives other names than before."""
        with _naming:
            self.deliveries += 1
            number = self.deliveries
        return f"{self.run_id}:{self.life}{number}"

    def name_deliveries(self) -> None:
        """Name all that is under way, so that it has the same name in every life of the run."""
        for worker in self.workers:
            if not worker.robbed:
                worker.ledger = worker.ledger or Ledger()
                worker.ledger.key = worker.ledger.key or self.next_delivery_key()
                if worker.ctx is not None:
                    worker.ctx._ledger = worker.ledger
        for line in (self.ready, *(self.backlog or {}).values()):
            for place, delivery in enumerate(line or ()):
                assert line is not None
                line[place] = self._named(delivery)
        for key, (timer, delivery, due) in (self.delayed or {}).items():
            assert self.delayed is not None
            self.delayed[key] = (timer, self._named(delivery), due)

    def _named(self, delivery: Delivery) -> Delivery:
        ledger = delivery.ledger or Ledger()
        ledger.key = ledger.key or self.next_delivery_key()
        return delivery._replace(ledger=ledger)

    # -- from other threads ------------------------------------------------------------------------

    def hop(self, fn: Callable[..., T], *args: Any) -> T:
        """Call something in the run's event loop, from another thread, and wait for it."""
        answer: concurrent.futures.Future[T] = concurrent.futures.Future()
        variables = copy_context()

        def call() -> None:
            try:
                answer.set_result(variables.run(fn, *args))
            except BaseException as error:  # noqa: BLE001 because it is raised where it was asked for
                answer.set_exception(error)

        self.loop.call_soon_threadsafe(call)
        return answer.result()

    def hop_await(self, awaitable: Awaitable[T]) -> T:
        """Await something in the run's event loop, from another thread."""
        if get_ident() == self.thread:
            msg = "from_thread is for plain functions; in an async step, write: await ..."
            raise WorkflowRuntimeError(msg)

        async def awaited() -> T:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(awaited(), self.loop).result()

    def snapshot(self) -> dict[str, Any]:
        """The run as JSON's types. Where all of it waits, its segment ends with that."""
        data = dump(self)
        segment = self.segment
        if segment is not None and self.watch is not None and self._idle:
            if self.op is not None:
                self._pause(segment)
            segment.stored = True
        return data

    def told(self) -> dict[str, Any]:
        """What is to be stored of its segment; nothing, where nobody looked on and nothing was said."""
        segment = self.segment
        if segment is None:
            said = None if self.status == NEW else self.base.get(current_session)
            if said is None:
                return {}
            segment = Segment()
            segment.session, segment.user = said
        if self.over:
            return segment.facts(0.0)
        return segment.facts(segment.since if self._idle or self.watch is None else self.clock.time())


def _new_id() -> str:
    """A random UUID, of version 4. The standard library takes twice the time."""
    bits = os.urandom(16).hex()
    return f"{bits[:8]}-{bits[8:12]}-4{bits[13:16]}-{'89ab'[int(bits[16], 16) & 3]}{bits[17:20]}-{bits[20:]}"


def _interrupt(me: Worker, error: BaseException) -> NoReturn:
    """Let an interrupt stop the event loop, which is told of it once: the task's own report would be the second."""
    me.task.add_done_callback(_heard)
    raise error


def _heard(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()


def _listed(out: Any) -> Any:
    return out if isinstance(out, list) else (out,)  # pyright: ignore[reportUnknownVariableType]  # because anything may be returned


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as second:  # noqa: BLE001 because an error that cannot be shown must not hide itself
        return f"<its text cannot be shown: {type(second).__name__}>"


def _stood_long(held: ref[Run]) -> None:
    run = held()
    if run is not None and run.segment is not None:
        run.stood_long(run.segment)


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _wake(future: asyncio.Future[None], here: asyncio.AbstractEventLoop) -> None:
    loop = future.get_loop()
    if loop is here:
        _done(future)
    elif not loop.is_closed():
        loop.call_soon_threadsafe(_done, future)
