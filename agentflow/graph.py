"""Compiling: from the declarations of a workflow to an immutable graph that a run can trust.

All reflection and all checks are here. What a run looks up per event, it finds in a table.
"""

from __future__ import annotations

import inspect
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from .errors import WorkflowConfigurationError, WorkflowRuntimeError, WorkflowValidationError
from .events import Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent
from .resource import Recipe, check_type, compile_recipe, key_of, name_of
from .steps import Declaration, declaration_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping

STEPS_ROLE = "__agentflow_steps__"


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

    def __init__(self, index: int, fn: Callable[..., Any], declaration: Declaration, known: dict[Hashable, Recipe]) -> None:
        spec = declaration.spec()
        self.index = index
        self.name = spec.name
        self.fn = fn
        self.spec = spec
        self.is_async = inspect.iscoroutinefunction(fn) or (
            # a wrapper around an async step is called like one: it hands on what it is given
            fn is not declaration.fn and inspect.iscoroutinefunction(declaration.fn)
        )
        self.limit = declaration.num_workers
        self.policy = declaration.retry_policy
        self.timeout = declaration.timeout
        self.waits = declaration.waits
        where = f"step {spec.name!r}"
        self.resources: dict[str, Recipe] = {}
        for parameter, (resource, declared) in spec.resources.items():
            check_type(resource, declared, where, parameter)
            self.resources[parameter] = compile_recipe(resource, where, known)
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


class Graph:
    """A compiled workflow: its steps and what each type of event triggers."""

    def __init__(self, name: str, steps: tuple[StepPlan, ...]) -> None:
        self.name = name
        self.steps = steps
        self.by_name = {plan.name: plan for plan in steps}
        accepting: dict[type[Event], tuple[StepPlan, ...]] = {}
        for plan in steps:
            for kind in plan.spec.accepts:
                accepting[kind] = (*accepting.get(kind, ()), plan)
        self.accepting: Mapping[type[Event], tuple[StepPlan, ...]] = accepting
        self.waited = frozenset(kind for plan in steps for kind in plan.waits)
        self.produced = frozenset(kind for plan in steps for kind in plan.spec.produces)
        self.stops = tuple(kind for kind in self.produced if issubclass(kind, StopEvent))
        self.starts = tuple(kind for kind in accepting if issubclass(kind, StartEvent))
        self.takes_human = any(issubclass(kind, HumanResponseEvent) for kind in accepting)
        self.state = _state_of(steps, name)
        self.threads = sum(plan.limit for plan in steps if not plan.is_async)
        self.outside: dict[type, Route] = {}
        """By type, for what comes from outside."""

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
            route = Route(source and source.name, kind, self.fate(kind), self.targets(kind))
            table[kind] = route
        return route

    def returned(self, plan: StepPlan, value: object) -> Route:
        """The way of what `plan` returned. Raises `WorkflowRuntimeError` where it declared no such type."""
        kind = type(value)
        if not isinstance(value, Event):
            msg = (
                f"step {plan.name!r} returned {value!r}, a {kind.__name__}. A step returns an event, a list of events or "
                f"None. Write: return StopEvent(result={value!r}), or wrap it in an event of your own."
            )
            raise WorkflowRuntimeError(msg)
        if not issubclass(kind, plan.spec.produces or ()):
            declared = " | ".join(k.__name__ for k in plan.spec.produces) or "None"
            wanted = f"{declared} | {kind.__name__}" if plan.spec.produces else f"{kind.__name__} | None"
            msg = f"step {plan.name!r} returned a {kind.__name__}, but declares -> {declared}. Write: -> {wanted}"
            raise WorkflowRuntimeError(msg)
        route = self.route(type(value), plan)
        plan.returns[kind] = route
        return route

    def lost(self, kind: type[Event], sender: str) -> WorkflowRuntimeError:
        """The error for an event that nobody takes."""
        accepted = "; ".join(
            f"{plan.name}({' | '.join(k.__name__ for k in plan.spec.accepts)})" for plan in self.steps
        )
        return WorkflowRuntimeError(
            f"{sender} sent a {kind.__name__}, which no step of {self.name!r} accepts. Its steps: {accepted}. Let a step "
            f"accept it, or name it where it is awaited: @step(waits=[{kind.__name__}])."
        )

    def start_event(self, fields: dict[str, Any]) -> StartEvent:
        """The event that starts a run with these fields. Raises with the names of those that are wrong."""
        try:
            return self.start(**fields)
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc']))!r}: {e['msg']}" for e in error.errors())
            wants = ", ".join(
                f"{n}: {_annotation(f.annotation)}{'' if f.is_required() else ' = ...'}"
                for n, f in self.start.model_fields.items()
            )
            msg = f"{self.name}.run() cannot make a {self.start.__name__}: {wrong}. It takes {self.name}.run({wants})."
            raise WorkflowRuntimeError(msg) from error


def compile_graph(name: str, functions: Mapping[str, Callable[..., Any]]) -> Graph:
    """Compile and check. Raises `WorkflowValidationError` with what to write instead."""
    known: dict[Hashable, Recipe] = {}
    plans: list[StepPlan] = []
    for attribute, fn in functions.items():
        declaration = declaration_of(fn)
        assert declaration is not None
        plan = StepPlan(len(plans), fn, declaration, known)
        if not plan.spec.bound and not declaration.free:
            msg = (
                f"step {attribute!r} of {name!r} is a method without self. Write: "
                f"{'async ' if plan.is_async else ''}def {attribute}(self, {', '.join(plan.spec.parameters)}), or put "
                "@staticmethod above @step."
            )
            raise WorkflowValidationError(msg)
        plans.append(plan)
    graph = Graph(name, tuple(plans))
    _check_ends(graph)
    _check_flow(graph)
    return graph


def collect_functions(cls: type, own: Mapping[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """The step functions of a workflow class, those of its bases first, then those attached to the object."""
    found: dict[str, Callable[..., Any]] = {}
    for base in reversed(cls.__mro__):
        for name, value in [*vars(base).items(), *vars(base).get(STEPS_ROLE, {}).items()]:
            raw = value.__func__ if isinstance(value, staticmethod) else value
            if declaration_of(raw) is not None:
                found[name] = raw
            elif name in found:
                if value is not None:
                    msg = (
                        f"{base.__qualname__}.{name} overrides the step {name!r} without being one. Write @step above it, "
                        f"or `{name} = None` to take the step out."
                    )
                    raise WorkflowValidationError(msg)
                del found[name]
    return {**found, **own}


def check_slots(graph: Graph, filled: Mapping[str, object]) -> None:
    """Refuse a workflow whose slot for a nested one is empty, or filled with something else."""
    for plan in graph.steps:
        for name, slot in plan.spec.slots.items():
            given = filled.get(name, slot.default)
            if given is inspect.Parameter.empty:
                msg = (
                    f"step {plan.name!r} of {graph.name!r} needs a workflow for {name!r} and has none. Write: "
                    f"workflow.add_workflows({name}={slot.kind.__name__ if slot.kind.__name__ != 'Workflow' else 'MyFlow'}())"
                )
                raise WorkflowValidationError(msg)
            if not isinstance(given, slot.kind):
                msg = (
                    f"step {plan.name!r} of {graph.name!r} takes a {slot.kind.__name__} for {name!r}, but has {given!r}. "
                    f"Write: workflow.add_workflows({name}={slot.kind.__name__}())"
                )
                raise WorkflowValidationError(msg)


def check_overrides(graph: Graph, overrides: Iterable[Callable[..., Any]]) -> None:
    """Refuse an override of a resource that no step uses."""
    recipes: dict[Hashable, str] = {}

    def gather(recipe: Recipe) -> None:
        recipes[recipe.key] = recipe.name
        for need in recipe.needs.values():
            gather(need)

    for plan in graph.steps:
        for recipe in plan.resources.values():
            gather(recipe)
    for factory in overrides:
        if not callable(factory) or key_of(factory) not in recipes:
            shown = name_of(factory) if callable(factory) else factory
            msg = (
                f"Workflow(resources={{{shown!r}: ...}}): no step of {graph.name!r} uses this factory. Keys are the factory "
                f"objects themselves; there are: {sorted(recipes.values()) or 'none'}."
            )
            raise WorkflowConfigurationError(msg)


def _check_ends(graph: Graph) -> None:
    name = graph.name
    if not graph.steps:
        msg = f"workflow {name!r} has no steps. Write @step above its methods, or @step(workflow={name}) above functions."
        raise WorkflowConfigurationError(msg)
    if not graph.starts:
        first = graph.steps[0]
        msg = (
            f"no step of {name!r} accepts StartEvent, so nothing can start it. Write, for example: "
            f"def {first.name}(self, {first.spec.event}: StartEvent)"
        )
        raise WorkflowConfigurationError(msg)
    if len(graph.starts) > 1:
        found = ", ".join(
            f"{kind.__name__} (in {', '.join(p.name for p in graph.accepting[kind])})" for kind in graph.starts
        )
        msg = f"{name!r} has two types of start event: {found}. Let its first steps accept the same one."
        raise WorkflowConfigurationError(msg)
    if not graph.stops:
        last = graph.steps[-1]
        msg = (
            f"no step of {name!r} returns StopEvent, so it could never end. Write, for example: "
            f"def {last.name}(...) -> StopEvent, and return StopEvent(result=...)"
        )
        raise WorkflowConfigurationError(msg)
    for plan in graph.steps:
        if bad := [k.__name__ for k in plan.spec.accepts if issubclass(k, StopEvent)]:
            msg = f"step {plan.name!r} of {name!r} accepts {bad[0]}, which ends the run before any step sees it. Accept another event."
            raise WorkflowValidationError(msg)


def _exempt(kind: type) -> bool:
    return issubclass(kind, InputRequiredEvent | HumanResponseEvent | StopEvent)


def _check_flow(graph: Graph) -> None:
    name = graph.name
    for plan in graph.steps:
        for kind in plan.spec.produces:
            if not _exempt(kind) and not graph.targets(kind) and kind not in graph.waited:
                msg = (
                    f"step {plan.name!r} of {name!r} produces {kind.__name__}, which no step accepts. Let a step accept it "
                    f"(ev: {kind.__name__}), await it (@step(waits=[{kind.__name__}])), or drop it from -> of {plan.name!r}."
                )
                raise WorkflowValidationError(msg)
    taken_as = {_taken_as(graph, kind) for kind in graph.produced}
    for kind in graph.accepting:
        produced = kind in taken_as
        if not (produced or _exempt(kind) or kind in graph.starts):
            users = ", ".join(repr(p.name) for p in graph.accepting[kind])
            msg = (
                f"step {users} of {name!r} accepts {kind.__name__}, which no step produces. Add it to the return annotation "
                f"of the step that returns or sends it: -> ... | {kind.__name__}"
            )
            raise WorkflowValidationError(msg)
    reached: dict[str, None] = {}
    todo = [kind for kind in graph.accepting if kind in graph.starts or _exempt(kind)]
    seen = set(todo)
    while todo:
        for plan in graph.targets(todo.pop()):
            reached[plan.name] = None
            todo += [k for k in plan.spec.produces if k not in seen]
            seen.update(plan.spec.produces)
    if missed := [plan.name for plan in graph.steps if plan.name not in reached]:
        msg = (
            f"no way leads from {graph.start.__name__} to step {', '.join(map(repr, missed))} of {name!r}. Let a step that is "
            "reached produce what it accepts, or remove it."
        )
        raise WorkflowValidationError(msg)


def _taken_as(graph: Graph, kind: type[Event]) -> type | None:
    """The type under which the steps accept an event of this type: its own, or its nearest base."""
    return next((base for base in kind.__mro__ if base in graph.accepting), None)


def _state_of(steps: tuple[StepPlan, ...], name: str) -> type[BaseModel] | None:
    models = {plan.spec.state: plan.name for plan in steps if plan.spec.state is not None and plan.spec.state is not Any}
    models = {m: n for m, n in models.items() if isinstance(m, type) and not issubclass(m, dict)}
    for model, step in models.items():
        if not issubclass(model, BaseModel):
            msg = f"step {step!r} of {name!r} declares Context[{model.__name__}]: a state is a pydantic model with defaults."
            raise WorkflowValidationError(msg)
        if required := [n for n, f in model.model_fields.items() if f.is_required()]:
            msg = f"the state {model.__name__} of {name!r} starts empty, but {required[0]!r} has no default. Write: {required[0]}: ... = ..."
            raise WorkflowValidationError(msg)
    for model in models:
        if all(issubclass(model, other) for other in models):
            return model
    if models:
        found = ", ".join(f"{m.__name__} (in {n})" for m, n in models.items())
        msg = f"{name!r} has different states: {found}. A run has one: use the same model everywhere, or derive one from the other."
        raise WorkflowValidationError(msg)
    return None


def _annotation(annotation: object) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")

