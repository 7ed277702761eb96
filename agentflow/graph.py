"""The graph: a compiled workflow, immutable. What a run looks up per event, it finds in a table."""

from __future__ import annotations

import copy
import functools
import inspect
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from .errors import WorkflowRuntimeError, a, shown, type_name
from .events import Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent
from .signature import def_line, is_event

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from .steps import Declaration


class Shape(IntEnum):
    """How a step is called: the first three are async methods of an event, or of a context and an event."""

    EVENT = 0
    CONTEXT_EVENT = 1
    LIMITED = 2
    """Either of the two, with a time-out."""
    GENERAL = 3


class Fate(IntEnum):
    """What becomes of an event of some type."""

    STEPS = 0
    STOP = 1
    INPUT = 2
    """To the stream, and to the steps that accept its very type."""
    KEEP = 3
    """No step accepts it, but one may wait for it."""
    LOST = 4
    """No step accepts it and none is known to wait for it."""


class Edge:
    """One way through the graph: `source` (None: from outside) sends `event`, `target` (None: the end) takes it."""

    __slots__ = ("event", "source", "target")

    def __init__(self, source: str | None, event: type[Event], target: str | None) -> None:
        self.source = source
        self.event = event
        self.target = target

    def __repr__(self) -> str:
        return f"Edge({self.source!r} -{self.event.__name__}-> {self.target!r})"


class Route:
    """Where an event of one type goes when one step, or the outside, sends it."""

    __slots__ = ("edge", "edges", "event", "fate", "target", "targets")

    def __init__(self, source: str | None, event: type[Event], fate: Fate, targets: tuple[StepPlan, ...]) -> None:
        self.event = event
        self.fate = fate
        self.targets = targets
        self.edges = tuple(Edge(source, event, t.name) for t in targets)
        if fate is Fate.STOP:
            self.edges = (Edge(source, event, None),)
        alone = fate is Fate.STEPS and len(targets) == 1
        self.target = targets[0] if alone else None
        """The only step that takes it, if nothing else is to be done."""
        self.edge = self.edges[0] if self.edges else Edge(source, event, None)


class StepPlan:
    """A step, ready to be called."""

    __slots__ = (
        "declaration",
        "fn",
        "index",
        "is_async",
        "limit",
        "name",
        "policy",
        "resources",
        "returns",
        "sends",
        "shape",
        "spec",
        "timeout",
        "waits",
    )

    def __init__(self, index: int, name: str, fn: Callable[..., Any], declaration: Declaration) -> None:
        self.index = index
        self.name = name
        self.declaration = declaration
        self.spec = declaration.spec()
        # what wraps an async step is called like one: in the event loop
        self.is_async = inspect.iscoroutinefunction(inspect.unwrap(fn, stop=inspect.iscoroutinefunction))
        self.fn = _awaiting(fn) if self.is_async and not inspect.iscoroutinefunction(fn) else fn
        self.limit = declaration.num_workers
        self.policy = declaration.retry_policy
        self.timeout = declaration.timeout
        self.waits = declaration.waits
        self.resources = self.spec.recipes
        self.shape = self._shape()
        self.returns: dict[type, Route] = {}
        """By type, for what it returned: filled as types come, each checked against the declaration once."""
        self.sends: dict[type, Route] = {}
        """By type, for what it sent."""

    def _shape(self) -> Shape:
        spec = self.spec
        alone = spec.parameters == (spec.event,)
        simple = alone or spec.parameters == (spec.context, spec.event)
        if not (simple and self.is_async and spec.bound and self.policy is None):
            return Shape.GENERAL
        if self.timeout is not None:
            return Shape.LIMITED
        return Shape.EVENT if alone else Shape.CONTEXT_EVENT

    def __repr__(self) -> str:
        return f"<StepPlan {self.name}>"

    def line(self, *, accepts: str | None = None, returns: str | None = None) -> str:
        """The line of its `def`, accepting or returning something else."""
        return def_line(self.declaration.fn, annotate={self.spec.event: accepts} if accepts else {}, returns=returns)

    def line_returning(self, kind: type[Event]) -> str:
        """The line of its `def`, returning this too."""
        now = type_name(inspect.signature(self.declaration.fn).return_annotation)
        before = [] if now == "None" else [now.removesuffix(" | None")]
        nothing = ["None"] if now == "None" or now.endswith(" | None") else []
        return self.line(returns=" | ".join([*before, kind.__name__, *nothing]))

    def line_without(self, kind: type[Event]) -> str:
        """The line of its `def`, not returning this."""
        rest = [other.__name__ for other in self.spec.produces if other is not kind]
        return self.line(returns=" | ".join(rest) or "None")


def _awaiting(wrapper: Callable[..., Any]) -> Callable[..., Any]:
    """An async function of a plain one around an async step, which may answer by itself."""

    @functools.wraps(wrapper)
    async def call(*args: Any, **kwargs: Any) -> Any:
        out = wrapper(*args, **kwargs)
        return await out if inspect.isawaitable(out) else out

    return call


class Graph:
    """A compiled workflow: its steps and what each type of event triggers."""

    def __init__(self, name: str, steps: tuple[StepPlan, ...], state: type[BaseModel] | None) -> None:
        self.name = name
        self.steps = steps
        self.by_name = {plan.name: plan for plan in steps}
        accepting: dict[type[Event], tuple[StepPlan, ...]] = {}
        for plan in steps:
            for kind in plan.spec.accepts:
                accepting[kind] = (*accepting.get(kind, ()), plan)
        self.accepting: Mapping[type[Event], tuple[StepPlan, ...]] = accepting
        self.waited = frozenset(kind for plan in steps for kind in plan.waits)
        self.produced = tuple(dict.fromkeys(kind for plan in steps for kind in plan.spec.produces))
        self.stops = tuple(kind for kind in self.produced if issubclass(kind, StopEvent))
        self.starts = tuple(kind for kind in accepting if issubclass(kind, StartEvent))
        self.answers = tuple(kind for kind in accepting if issubclass(kind, HumanResponseEvent))
        self.state = state
        self.threads = sum(plan.limit for plan in steps if not plan.is_async)
        self.outside: dict[type, Route] = {}
        """By type, for what comes from outside."""

    def named(self, name: str) -> Graph:
        """The same graph, for a workflow that is called otherwise."""
        if name == self.name:
            return self
        twin = copy.copy(self)
        twin.name = name
        return twin

    @property
    def start(self) -> type[StartEvent]:
        """The type of event that starts a run."""
        return self.starts[0]

    @property
    def stop(self) -> type[StopEvent]:
        """The type of event that ends a run; StopEvent where there are several."""
        return self.stops[0] if len(self.stops) == 1 else StopEvent

    def events(self) -> tuple[type[Event], ...]:
        """Every type of event that the steps name, in order of appearance."""
        kinds: dict[type[Event], None] = {}
        for plan in self.steps:
            kinds.update(dict.fromkeys((*plan.spec.accepts, *plan.spec.produces, *plan.waits)))
        return tuple(kinds)

    def targets(self, kind: type) -> tuple[StepPlan, ...]:
        """The steps that take an event of this type: exact type first, then the nearest base class."""
        if (exact := self.accepting.get(kind)) is not None:
            return exact
        if not issubclass(kind, Event) or issubclass(kind, StopEvent | InputRequiredEvent):
            return ()
        return next((self.accepting[base] for base in kind.__mro__[1:] if base in self.accepting), ())

    def takers(self, kind: type[Event]) -> tuple[StepPlan, ...]:
        """The steps that may get an event that is declared as `kind`, which covers its subclasses."""
        special = [plan for accepted, plans in self.accepting.items() if issubclass(accepted, kind) for plan in plans]
        return tuple(dict.fromkeys((*self.targets(kind), *special)))

    def fate(self, kind: type[Event]) -> Fate:
        """What becomes of an event of this type."""
        if issubclass(kind, StopEvent):
            return Fate.STOP
        if issubclass(kind, InputRequiredEvent):
            return Fate.INPUT
        if self.targets(kind):
            return Fate.STEPS
        if issubclass(kind, HumanResponseEvent) or any(base in self.waited for base in kind.__mro__):
            return Fate.KEEP
        return Fate.LOST

    def route(self, kind: type[Event], source: StepPlan | None) -> Route:
        """The way of an event of this type from `source` (None: from outside); remembered."""
        table = self.outside if source is None else source.sends
        route = table.get(kind)
        if route is None:
            route = Route(None if source is None else source.name, kind, self.fate(kind), self.targets(kind))
            table[kind] = route
        return route

    def returned(self, plan: StepPlan, value: object) -> Route:
        """The way of what `plan` returned. Raises `WorkflowRuntimeError` where it declared no such type."""
        if not isinstance(value, Event):
            what = "a list that holds None" if value is None else shown(value)
            msg = (
                f"step {plan.name!r} returned {what}. A step returns an event, a list of events or None. Write: "
                f"{_instead(value)}"
            )
            raise WorkflowRuntimeError(msg)
        kind = type(value)
        if not issubclass(kind, plan.spec.produces or ()):
            declared = " | ".join(k.__name__ for k in plan.spec.produces) or "None"
            msg = (
                f"step {plan.name!r} returned {a(kind.__name__)}, but declares -> {declared}. Write: "
                f"{plan.line_returning(kind)}"
            )
            raise WorkflowRuntimeError(msg)
        route = self.route(type(value), plan)
        plan.returns[kind] = route
        return route

    def lost(self, kind: type[Event], sender: str) -> WorkflowRuntimeError:
        """The error for an event that nobody takes."""
        accepted = "; ".join(f"{plan.name}({' | '.join(k.__name__ for k in plan.spec.accepts)})" for plan in self.steps)
        return WorkflowRuntimeError(
            f"{sender} sent {a(kind.__name__)}, which no step of {self.name!r} accepts. Its steps: {accepted}. Let one "
            f"accept it, or name it where it is awaited: @step(waits=[{kind.__name__}])."
        )

    def start_event(self, fields: dict[str, Any], past: str = "") -> StartEvent:
        """The event that starts a run with these fields. Raises with the names of those that are wrong.

        `past` says how the run before ended, whose state this one begins with.
        """
        try:
            return self.start(**fields)
        except ValidationError as error:
            wrong = "; ".join(
                f"{'.'.join(map(str, e['loc'])) or 'the event'!r}: {e['msg']}" for e in error.errors(include_url=False)
            )
            wants = ", ".join(_parameter(name, field) for name, field in self.start.model_fields.items())
            msg = f"{self.name}.run() cannot make {a(self.start.__name__)}: {wrong}. It takes {self.name}.run({wants})."
            if past:
                msg += (
                    f" The run of this context {past}, so this is a new one, which begins with its state and needs the "
                    "fields of a start. To go on with a run, store it before it ends: data = handler.ctx.to_dict(), "
                    f"then {self.name}.run(ctx=Context.from_dict(workflow, data))."
                )
            raise WorkflowRuntimeError(msg) from error


def _parameter(name: str, field: FieldInfo) -> str:
    default = "..." if field.default_factory is not None else shown(field.default)
    return f"{field.alias or name}: {type_name(field.annotation)}{'' if field.is_required() else f' = {default}'}"


def _instead(value: object) -> str:
    """What to write instead of returning this."""
    if value is None:
        return "return [ev for ev in events if ev is not None]"
    if is_event(value):
        return f"return {type_name(value)}(...)"
    if inspect.iscoroutine(value):
        value.close()
        return f"return await {value.__name__}(...)"
    if isinstance(value, tuple | set | frozenset) or inspect.isgenerator(value):
        return "return [A(...), B(...)]"
    return f"return StopEvent(result={shown(value)}), or put it into an event of your own."
