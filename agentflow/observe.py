"""The one seam through which everything is seen: operations, notes on them, and observers that look on.

An *operation* is one thing that takes time: a run, one attempt of a step, an event on its way from
sent to taken up, a model call, a tool call. The engine and the clients open and close operations;
an observer is told, in the very context in which the operation runs, so what it makes current
(a span, a log binding) is current for the user's code and for nothing else.

Operations name each other by `Ref`, a small id that never leads back to the record: a loop of any
length keeps O(1) of them. Nothing is built before somebody is known to listen.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from .log import logger
from .sessions import current_session as current_session  # noqa: PLC0414 because observers have it from here
from .sessions import session as session  # noqa: PLC0414 because as above

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping

ENTRY_POINTS = "agentflow.observers"

Outcome = Literal["ok", "error", "cancelled", "timeout", "suspended", "retried", "collecting", "dropped"]


class Kind(StrEnum):
    """What an operation is."""

    RUN = "run"
    STEP = "step"
    EVENT = "event"
    CHAT = "chat"
    EMBEDDINGS = "embeddings"
    RETRIEVAL = "retrieval"
    RERANK = "rerank"
    TOOL = "tool"
    MEMORY = "memory"
    RESOURCE = "resource"
    CHECKPOINT = "checkpoint"
    GUARDRAIL = "guardrail"


class Ref:
    """Names an operation without holding it. `carried` is what observers want to travel with the name.

    An observer that links operations stores under itself what the other end needs, such as a span
    context: `op.ref.carry(self, span_context)`, and later `op.cause.carried_by(self)`.
    """

    __slots__ = ("_carried", "id")

    def __init__(self, ident: int) -> None:
        self.id = ident
        # who carries what, by the observer's identity: it may have no hash
        self._carried: tuple[int, object] | dict[int, object] | None = None

    def __repr__(self) -> str:
        return f"Ref({self.id})"

    def carry(self, observer: Observer, value: object) -> None:
        """Let `value` travel with this name for `observer`."""
        carried = self._carried
        if isinstance(carried, dict):
            carried[id(observer)] = value
        elif carried is None or carried[0] == id(observer):
            self._carried = id(observer), value
        else:  # several observers carry something
            self._carried = {carried[0]: carried[1], id(observer): value}

    def carried_by(self, observer: Observer) -> Any:
        """What `observer` let travel with this name, or None."""
        carried = self._carried
        if isinstance(carried, tuple):
            return carried[1] if carried[0] == id(observer) else None
        return None if carried is None else carried.get(id(observer))


class Origin(NamedTuple):
    """What a run goes on from, when it is no new beginning."""

    how: Literal["resumed_from", "continues", "forked_from"]
    """After a pause it is the same run; else a new one, with the state of one that had ended, or from a checkpoint."""
    run_id: str
    luggage: Mapping[str, str]
    """What observers let be stored with that run, or with its last segment."""


_NO_LUGGAGE: Any = cast("Any", MappingProxyType({}))
_ids = itertools.count(1)
_RUN, _STEP, _EVENT = Kind.RUN, Kind.STEP, Kind.EVENT  # a look into an enum costs as much as a call


class Operation:
    """One thing that takes time. Observers read it; only who opened it writes it.

    Times are nanoseconds since the epoch; `ended_at` is 0 while the operation goes on.
    """

    segment: int = 1
    """For a run, the number of its part between two pauses."""
    suspended_ns: int = 0
    """For a run that goes on after a pause, how long it stood still before this segment."""
    origin: Origin | None = None
    """For a run that is no new beginning, what it goes on from."""
    session: str | None = None
    """For a run, the conversation that it belongs to, where one was named."""
    user: str | None = None
    """For a run, on whose behalf it is, where that was said."""
    luggage: dict[str, str] = _NO_LUGGAGE
    """For a run, what observers want stored with it; they find it in the `origin` of what goes on from it."""

    __slots__ = (
        "agent",
        "attempt",
        "cause",
        "ended_at",
        "kind",
        "name",
        "outcome",
        "parent",
        "queued_ns",
        "ref",
        "result",
        "run_id",
        "started_at",
        "subject",
        "workflow",
    )

    def __init__(  # noqa: PLR0913 because a record has the fields that it has
        self,
        kind: Kind,
        name: str,
        *,
        run_id: str | None,
        workflow: str | None,
        parent: Ref | None = None,
        cause: Ref | None = None,
        subject: object = None,
        attempt: int = 1,
    ) -> None:
        self.kind = kind
        self.name = name
        """The workflow, the step, the type of the event, the model, the tool..."""
        self.ref = Ref(next(_ids))
        self.parent = parent
        self.cause = cause
        """For a step the event that triggered it, for an event the step that sent it."""
        self.run_id = run_id
        self.workflow = workflow
        self.agent: str | None = None
        """For a run of an agent, the agent's name."""
        self.subject: Any = subject
        """What it works on: the event, for a run its start event; the record that describes a client's call."""
        self.result: Any = None
        """What came of it: what a step returned, the event that ended a run, a client's answer."""
        self.attempt = attempt
        self.queued_ns = 0
        """How long the event waited before this step took it up."""
        self.started_at = time.time_ns()
        self.ended_at = 0
        self.outcome: Outcome = "ok"

    def __repr__(self) -> str:
        return f"<Operation {self.kind} {self.name!r} {self.ref.id} {self.outcome if self.ended_at else 'open'}>"


class RunOperation(Operation):
    """The operation of a run, or of one segment of it."""

    __slots__ = ("luggage", "origin", "segment", "session", "suspended_ns", "user")

    def __init__(self, name: str, *, run_id: str, parent: Ref | None, subject: object) -> None:
        super().__init__(_RUN, name, run_id=run_id, workflow=name, parent=parent, subject=subject)
        self.segment = 1
        self.suspended_ns = 0
        self.origin = None
        self.session = None
        self.user = None
        self.luggage = {}


class Note:
    """Something that happened at one moment of an operation: a retry, a wait, an event put on the stream."""

    __slots__ = ("at", "facts", "name")

    def __init__(self, name: str, facts: dict[str, Any]) -> None:
        self.name = name
        self.facts = facts
        self.at = time.time_ns()

    def __repr__(self) -> str:
        return f"Note({self.name!r}, {self.facts!r})"


class Observer:
    """Looks on. Override what you need; the methods are called in line, so they must not block."""

    kinds: frozenset[Kind] = frozenset(Kind)
    """The kinds of operations that it wants to hear of."""
    reads_current: bool = False
    """Does it read what others make current, such as the span? It hears of a start after them, of an end before."""

    def started(self, op: Operation) -> bool | None:
        """An operation began. False for a run: hear no more of that run but its end."""

    def noted(self, op: Operation, note: Note) -> None:
        """Something happened in an operation."""

    def finished(self, op: Operation, error: BaseException | None) -> None:
        """An operation ended; `op.outcome` says how."""


_Entry = tuple[Observer, "Callable[..., Any]"]
_Hooks = dict[Kind, tuple[_Entry, ...]]


class _Table(NamedTuple):
    """Who is to be called for which kind; hooks that nobody overrides have no entry."""

    observers: tuple[Observer, ...]
    """Held so that their identities stay theirs."""
    started: _Hooks
    noted: _Hooks
    finished: _Hooks
    wanted: frozenset[Kind]


_MOST_TABLES = 32
_tables: dict[tuple[int, ...], _Table] = {}
"""By the identities of the observers."""


def _table(observers: tuple[Observer, ...]) -> _Table:
    key = tuple(map(id, observers))
    known = _tables.get(key)
    if known is None:
        if len(_tables) >= _MOST_TABLES:
            _tables.clear()
        known = _tables[key] = _make_table(observers)
    return known


def _make_table(observers: tuple[Observer, ...]) -> _Table:
    every: dict[str, _Hooks] = {"started": {}, "noted": {}, "finished": {}}
    for observer in sorted(observers, key=lambda observer: observer.reads_current):
        for hook, hooks in every.items():
            if getattr(type(observer), hook) is getattr(Observer, hook) and hook not in vars(observer):
                continue
            entry = observer, getattr(observer, hook)
            for kind in observer.kinds:
                before = hooks.get(kind, ())
                # the first to hear of a start hears last of the end: what observers make current nests
                hooks[kind] = (entry, *before) if hook == "finished" else (*before, entry)
    return _Table(observers, **every, wanted=frozenset(kind for hooks in every.values() for kind in hooks))


class Watch:
    """The observers of one run. An observer that raises is logged once and dropped for the run."""

    __slots__ = ("_muted", "_observers", "_table", "_whole", "events", "steps")

    def __init__(self, observers: tuple[Observer, ...]) -> None:
        self._observers = observers
        self._muted: tuple[Observer, ...] = ()
        """Those that hear of nothing but the end of the run."""
        self._whole = _table(observers)
        self._tell(self._whole)

    def _tell(self, table: _Table) -> None:
        self._table = table
        self.steps = _STEP in table.wanted
        self.events = _EVENT in table.wanted

    def _tell_the_others(self) -> None:
        quiet = [id(muted) for muted in self._muted]
        self._tell(_table(tuple([o for o in self._observers if id(o) not in quiet])))

    def wants(self, kind: Kind) -> bool:
        """Does anyone listen to operations of this kind?"""
        return kind in self._table.wanted

    def started(self, op: Operation) -> None:
        """Tell that `op` began."""
        for observer, hook in self._table.started.get(op.kind, ()):
            try:
                answer = hook(op)
            except Exception:  # noqa: BLE001 because an observer never stops a run
                self._drop(observer)
            else:
                if answer is False and op.kind is _RUN:
                    self._muted = (*self._muted, observer)
                    self._tell_the_others()

    def noted(self, op: Operation, name: str, facts: dict[str, Any]) -> None:
        """Tell that something happened in `op`."""
        entries = self._table.noted.get(op.kind, ())
        if not entries:
            return
        note = Note(name, facts)
        for observer, hook in entries:
            try:
                hook(op, note)
            except Exception:  # noqa: BLE001 because an observer never stops a run
                self._drop(observer)

    def finished(
        self, op: Operation, error: BaseException | None = None, outcome: Outcome = "ok", at_ns: int = 0
    ) -> None:
        """Tell that `op` ended, now or at a moment that is over, in nanoseconds since the epoch."""
        op.ended_at = at_ns or time.time_ns()
        op.outcome = outcome
        if self._muted and op.kind is _RUN:
            self._muted = ()
            self._tell(self._whole)
        for observer, hook in self._table.finished.get(op.kind, ()):
            try:
                hook(op, error)
            except Exception:  # noqa: BLE001 because an observer never stops a run
                self._drop(observer)

    def dismiss(self) -> None:
        """Tell nobody anything more."""
        self._observers = self._muted = ()
        self._whole = _table(())
        self._tell(self._whole)

    def _drop(self, observer: Observer) -> None:
        logger().exception("an observer raised; it is dropped for this run", observer=repr(observer))
        self._observers = tuple(o for o in self._observers if o is not observer)
        self._muted = tuple(o for o in self._muted if o is not observer)
        self._whole = _table(self._observers)
        self._tell_the_others()


class Scope:
    """Where in a run some code is: what its operations belong to. Kept in a context variable."""

    __slots__ = ("attempt", "ref", "run", "run_id", "step", "watch", "workflow")

    def __init__(  # noqa: PLR0913 because a record has the fields that it has
        self,
        run: Any,
        watch: Watch | None,
        ref: Ref | None,
        run_id: str | None,
        workflow: str,
        *,
        step: str | None = None,
        attempt: int = 1,
    ) -> None:
        self.run = run
        self.watch = watch
        self.ref = ref
        self.run_id = run_id
        self.workflow = workflow
        self.step = step
        """The step that runs, where somebody listens to steps."""
        self.attempt = attempt
        """Of that step."""


current_scope: ContextVar[Scope | None] = ContextVar("agentflow_scope", default=None)

_added: tuple[Observer, ...] = ()
_providers: tuple[Callable[[], Observer | Iterable[Observer] | None], ...] | None = None


def add_observer(observer: Observer) -> None:
    """Let `observer` look on at every run that starts from now on, in the whole process."""
    global _added  # noqa: PLW0603 because the list is the process's
    if not any(o is observer for o in _added):
        _added = (*_added, observer)


def remove_observer(observer: Observer) -> None:
    """Take back `add_observer`. Runs that have started keep the observer to their end."""
    global _added  # noqa: PLW0603 because the list is the process's
    _added = tuple(o for o in _added if o is not observer)
    _tables.clear()


def _load_providers() -> tuple[Callable[[], Any], ...]:
    global _providers  # noqa: PLW0603 because installed packages are the process's
    from importlib import metadata  # noqa: PLC0415 because only the first run of a process needs it

    found: list[Callable[[], Any]] = []
    for entry in metadata.entry_points(group=ENTRY_POINTS):
        try:
            found.append(entry.load())
        except Exception:  # noqa: BLE001 because a broken plug-in must not stop the host's runs
            logger().exception("an observer's entry point cannot be loaded; it is left out", entry_point=entry.value)
    _providers = tuple(found)
    return _providers


def attach(*more: Observer) -> Watch | None:
    """The observers of a run that starts now, or None where nobody listens.

    They are those that `add_observer` added, `more`, and those that the callables behind the entry
    point group "agentflow.observers" return: each is asked at every start, and answers an observer,
    several, or None.
    """
    observers = (*_added, *more)
    for provide in _load_providers() if _providers is None else _providers:
        try:
            offered = provide()
        except Exception:  # noqa: BLE001 because a broken plug-in must not stop the host's runs
            logger().exception("an observer's entry point raised; it is left out of this run")
            continue
        if offered is not None:
            observers = (*observers, *((offered,) if isinstance(offered, Observer) else offered))
    return Watch(observers) if observers else None


class Opened:
    """An operation of a client that goes on. Who opened it closes it, in the same context, exactly once."""

    __slots__ = ("_token", "op", "watch")

    def __init__(self, watch: Watch, op: Operation, token: Token[Scope | None]) -> None:
        self.watch = watch
        self.op = op
        self._token = token

    def note(self, name: str, facts: dict[str, Any]) -> None:
        """Tell that something happened."""
        self.watch.noted(self.op, name, facts)

    def close(self, error: BaseException | None = None) -> None:
        """Tell that it ended, with an error or with `op.outcome`."""
        try:
            self.watch.finished(self.op, error, self.op.outcome if error is None else outcome_of(error))
        finally:
            with suppress(ValueError):  # a generator may be closed in another context than it was begun in
                current_scope.reset(self._token)


def open_operation(kind: Kind, name: str, subject: object = None) -> Opened | None:
    """Open an operation of a client or a tool, in the step that is running, if one is. None where nobody listens.

    What is called in this context from now on belongs to it, until it is closed. `operation` does both around a
    block; this is for what is spread over several calls, which then runs `open_operation` and `close` in a
    `contextvars.Context` of its own, so that the caller's sees nothing of it.
    """
    scope = current_scope.get()
    watch = attach() if scope is None else scope.watch
    if watch is None or not watch.wants(kind):
        return None
    op = Operation(
        kind,
        name,
        run_id=None if scope is None else scope.run_id,
        workflow=None if scope is None else scope.workflow,
        parent=None if scope is None else scope.ref,
        subject=subject,
    )
    inner = Scope(None if scope is None else scope.run, watch, op.ref, op.run_id, op.workflow or "")
    if scope is not None:
        inner.step, inner.attempt = scope.step, scope.attempt
    token = current_scope.set(inner)
    watch.started(op)
    return Opened(watch, op, token)


@contextmanager
def operation(kind: Kind, name: str, subject: object = None) -> Generator[Opened | None, None, None]:
    """Open an operation of a client or a tool around a block, in the step that is running, if one is.

    Yields None where nobody listens, else the operation, to set the `result` or `outcome` of its `op` and to note
    things on. An exception that passes through ends the operation with it.
    """
    opened = open_operation(kind, name, subject)
    if opened is None:
        yield None
        return
    try:
        yield opened
    except BaseException as error:
        opened.close(error)
        raise
    else:
        opened.close()


def outcome_of(error: BaseException) -> Outcome:
    """How an operation ended that this error ended. A generator that is closed early has not failed."""
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return "cancelled"
    return "timeout" if isinstance(error, TimeoutError) else "error"
