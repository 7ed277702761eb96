"""What a step, or the caller, holds of a run: its state, its events, its stream.

All methods are safe from any thread: called elsewhere than in the run's event loop, they are carried
out there. Awaitable ones are awaited by `ctx.from_thread(...)` in a plain function.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from threading import get_ident
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from pydantic_core import from_json, to_json

from .effects import Ledger
from .errors import ContextSerdeError, WorkflowRuntimeError, shown
from .events import Event
from .resource import Pool
from .signature import CONTEXT_ROLE
from .store import MISSING, StateT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .graph import StepPlan
    from .observe import Ref
    from .port import Port
    from .resource import Resource
    from .store import StateStore

E = TypeVar("E", bound=Event)
T = TypeVar("T")


_ENDED: dict[Any, str] = {
    "ok": "had ended",
    "cancelled": "was cancelled",
    "error": "failed",
    "timeout": "exceeded its time limit",
    "suspended": "was put away",
}
"""In words, how a run ended."""


class Context(Generic[StateT]):
    """Annotate a step's parameter with it: `ctx: Context`, or `ctx: Context[State]` for a typed state.

    `Context(workflow)` makes a fresh one, to be filled before a run: `workflow.run(ctx=ctx)`.
    """

    __slots__ = ("_cause", "_event", "_ledger", "_past", "_plan", "_run", "_worker")

    def __init__(self, workflow: Any) -> None:
        self._bind(workflow.__agentflow_run__(None))

    def _bind(self, run: Port) -> None:
        self._run = run
        self._past = ""
        self._plan: StepPlan | None = None
        self._worker: Any = None
        self._event: Event | None = None
        self._cause: Ref | None = None
        self._ledger: Ledger | None = None

    def __repr__(self) -> str:
        where = "" if self._plan is None else f" in step {self._plan.name!r}"
        return f"<Context of {self._run!r}{where}>"

    @property
    def run_id(self) -> str:
        """The id of the run."""
        return self._run.run_id

    @property
    def store(self) -> StateStore[StateT]:
        """The state of the run, with typed models, dotted paths and atomic edits."""
        if self._plan is not None and self._run.over:
            return self._run.store.twin()  # a step that was left behind: another run may go on with the state
        return self._run.store

    # -- state -------------------------------------------------------------------------------

    async def get(self, key: str, default: Any = MISSING) -> Any:
        """The value under `key`, taken as it is. Raises `StateKeyError` where there is none and no default."""
        return self._run.store.read(key, default)

    async def set(self, key: str, value: Any) -> None:
        """Put `value` under `key`, taken as it is."""
        await self.store.write(key, value)

    # -- resources ------------------------------------------------------------------------------

    async def resource(self, resource: Resource) -> Any:
        """The object of a resource, as the step's parameter would be given it: `await ctx.resource(Resource(connect))`.

        It is made where it has not been, lives as long as its scope says, and what the workflow overrides is
        overridden here as well. Raises `WorkflowRuntimeError` outside a step, or when the step has ended, and
        `WorkflowValidationError` where the factory cannot be called.
        """
        if self._plan is None:
            msg = "a resource belongs in a step: take `ctx: Context` as a parameter there."
            raise WorkflowRuntimeError(msg)
        run, worker = self._run, self._worker
        if run.over or worker.ctx is not self:
            msg = f"step {self._plan.name!r} has ended, and nobody would tear down {resource!r}. Ask before it ends."
            raise WorkflowRuntimeError(msg)
        recipe = run.host.recipe(resource)
        if run.pool is None:
            run.pool = Pool()
        if worker.pool is None:
            self.ledger()
            worker.pool = Pool()
        return await run.host.resource(recipe, run.pool, worker.pool)

    # -- events --------------------------------------------------------------------------------

    def send_event(self, event: Event, step: str | None = None) -> None:
        """Send an event to the steps that accept it, or only to `step`.

        Raises `WorkflowRuntimeError` where no step accepts it, or when the run has ended.
        """
        run = self._run
        if get_ident() != run.thread and run.thread is not None:
            run.hop(run.send, event, step, self)
        else:
            run.send(event, step, self)

    @property
    def is_followed(self) -> bool:
        """Does anybody follow the run's stream, or that of a run whose child it is?

        A step need not take in pieces what nobody will look at in pieces.
        """
        return self._run.is_followed

    def write_event_to_stream(self, event: Event) -> None:
        """Show an event to those who follow the run's stream. It triggers no step."""
        run = self._run
        if get_ident() != run.thread and run.thread is not None:
            run.hop(run.stream, event, self)
        else:
            run.stream(event, self)

    def collect_events(
        self,
        ev: Event,
        # a type is a callable, and mypy joins those; without a default, Python's own error would not say what to write
        expected: Sequence[Callable[..., E]] | Mapping[type[E], int] = MISSING,
        buffer_id: str | None = None,
    ) -> list[E] | None:
        """Keep `ev` until all that is expected has come; then return it all, else None.

        `expected` is a list of types, or a mapping of types to counts, which is cheaper where many are
        expected. The result is in the order of `expected`, first in first out within a type; what is
        left over stays for the next time. An `ev` of a type that is not expected is ignored. Buffers
        belong to the step; `buffer_id` tells several of one step apart.
        """
        run = self._run
        if get_ident() != run.thread and run.thread is not None:
            return run.hop(self._collect, ev, expected, buffer_id)
        return self._collect(ev, expected, buffer_id)

    def _collect(self, ev: Event, expected: Any, buffer_id: str | None) -> list[Any] | None:
        plan = self._plan
        if plan is None:
            msg = "collect_events belongs in a step, as its buffers do. Take `ctx: Context` as a parameter there."
            raise WorkflowRuntimeError(msg)
        buffer = buffer_id or ""
        collector = self._run.collector(plan.name, buffer)
        kind = collector.slot(type(ev), expected)
        ledger = self._ledger or self.ledger()
        own = ev is self._event
        if kind is not None and not (own and buffer in ledger.added):
            if own:
                ledger.added = (*ledger.added, buffer)
            collector.add(kind, (ev, self._cause))
        taken = collector.take(expected)
        if taken is None:
            self._run.collected(self, None)
            return None
        ledger.taken = (*ledger.taken, (collector, taken))
        self._run.collected(self, taken)
        return [event for event, _ in taken]

    async def wait_for_event(
        self,
        event_type: type[E],
        waiter_event: Event | None = None,
        waiter_id: str | None = None,
        requirements: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> E:
        """Suspend this step until an event of `event_type` comes whose fields equal `requirements`.

        `waiter_event` is written to the stream when the wait begins: the question. In memory the step
        goes on where it stood. When the run was put away meanwhile, the step runs again from its top
        and the answer is handed to this same wait, known by `waiter_id` or by its ordinal in the step.

        Raises `WorkflowTimeoutError` after `timeout` seconds; by default there is no limit.
        """
        if self._plan is None:
            msg = "wait_for_event belongs in a step. From outside, write: async for ev in handler.stream_events()"
            raise WorkflowRuntimeError(msg)
        run = self._run
        found = run.begin_wait(self, event_type, waiter_event, waiter_id, requirements or {}, timeout)
        if isinstance(found, Event):
            return cast("E", found)
        try:
            return cast("E", await found.future)
        finally:
            run.end_wait(found)

    # -- effects that must not repeat ------------------------------------------------------------

    @property
    def idempotency_key(self) -> str:
        """Names this delivery of this event to this step: the same in every attempt, and after a resume."""
        ledger = self.ledger()
        if not ledger.key:
            ledger.key = self._run.next_delivery_key()
        return ledger.key

    async def once(self, key: str, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call `fn` and keep what it returned: a repeated attempt of this step gets that and calls nothing.

        `fn` may be a plain or a coroutine function. What it returns is stored with the run.
        """
        ledger = self.ledger()
        if key not in ledger.once:
            value = fn(*args, **kwargs)
            ledger.once = {**ledger.once, key: await value if inspect.isawaitable(value) else value}
        return ledger.once[key]

    def ledger(self) -> Ledger:
        """What this delivery has done, over all of its attempts."""
        if self._plan is None:
            msg = "this belongs in a step: take `ctx: Context` as a parameter there."
            raise WorkflowRuntimeError(msg)
        if self._ledger is None:
            self._ledger = Ledger()
            if self._worker.ctx is self:
                self._worker.ledger = self._ledger
        return self._ledger

    def from_thread(self, awaitable: Awaitable[T]) -> T:
        """Await something of this context from a plain function: `ctx.from_thread(ctx.get("key"))`."""
        return self._run.hop_await(awaitable)

    # -- storing ---------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """The run as JSON's types: its state, and all that is under way.

        Raises `ContextSerdeError`, which names the key or the field, for a value that cannot be stored.
        """
        run = self._run
        if get_ident() != run.thread and run.thread is not None:
            return run.hop(run.snapshot)
        return run.snapshot()

    def to_json(self) -> str:
        """As `to_dict`, as text."""
        return to_json(self.to_dict(), inf_nan_mode="constants").decode()

    @classmethod
    def from_dict(cls, workflow: Any, data: Mapping[str, Any]) -> Context[StateT]:
        """What `to_dict` was given out, to be run: `workflow.run(ctx=ctx)`.

        A run that had not ended goes on, without a start event; after one that had ended, a new run
        starts with the old state. Raises `ContextSerdeError` where the data does not fit the workflow.
        """
        given: object = data
        if not isinstance(given, Mapping):
            takes = (
                "from_json(workflow, text)" if isinstance(given, str | bytes) else "from_dict(workflow, ctx.to_dict())"
            )
            msg = f"Context.from_dict(workflow, {shown(given)}): it takes a dict. Write: Context.{takes}"
            raise ContextSerdeError(msg)
        context: Context[StateT] = cls.__new__(cls)
        context._bind(workflow.__agentflow_run__(data))
        if data["ended"]:
            context._past = _ENDED.get(data.get("outcome"), "had ended, or never begun")
        return context

    @classmethod
    def from_json(cls, workflow: Any, text: str | bytes) -> Context[StateT]:
        """As `from_dict`, from text."""
        given: object = text
        if not isinstance(given, str | bytes | bytearray):
            takes = "from_dict(workflow, data)" if isinstance(given, Mapping) else "from_json(workflow, ctx.to_json())"
            msg = f"Context.from_json(workflow, {shown(given)}): it takes a text. Write: Context.{takes}"
            raise ContextSerdeError(msg)
        try:
            data = from_json(text)
        except ValueError as error:
            msg = f"this is no JSON of a run: {error}"
            raise ContextSerdeError(msg) from error
        return cls.from_dict(workflow, data)


setattr(Context, CONTEXT_ROLE, True)


def past_of(context: Context[Any]) -> str:
    """How the run ended whose state a new run with this context begins with; empty where there was none."""
    return _ENDED.get(context._run.outcome, "had ended") if context._run.over else context._past


def context_of(run: Any, worker: Any = None) -> Context[Any]:
    """The context that one execution of a step is given, or, without a worker, the caller's."""
    context: Context[Any] = Context.__new__(Context)
    context._run = run
    context._worker = worker
    if worker is None:
        context._plan = context._event = context._cause = context._ledger = None
    else:
        context._plan = worker.plan
        context._event = worker.event
        context._cause = worker.cause
        context._ledger = worker.ledger
    return context
