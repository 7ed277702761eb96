"""What a drawing shows, before anybody decides how: nodes, the lines between them, and what there is to say of each.

Steps and types of events are nodes. A line from a step to an event says that the step produces it, one
from an event to a step that the step takes it.
"""

from __future__ import annotations

import inspect
import re
import typing
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import WorkflowRuntimeError
from .events import Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent
from .resource import Recipe, Resource, name_of
from .steps import DEFAULT_WORKERS
from .workflow import Workflow, graph_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from .graph import Graph, StepPlan
    from .signature import Slot

    Drawable = Workflow[Any, Any] | type[Workflow[Any, Any]]


TIMES = "\N{MULTIPLICATION SIGN}"


class Kind(StrEnum):
    """What a node stands for."""

    START = "start"
    STEP = "step"
    EVENT = "event"
    OUTSIDE = "outside"
    """Whoever gets questions from the run and sends it events: a person, or the caller."""
    STOP = "stop"


class About(NamedTuple):
    """What is told of something when it is looked at closely."""

    what: str
    name: str
    text: str
    rows: tuple[tuple[str, str], ...]


class Part(NamedTuple):
    """Something inside a step: a workflow that it runs, or a resource that it is handed."""

    kind: typing.Literal["workflow", "resource"]
    label: str
    note: str
    missing: bool
    """Is it a slot that nothing fills yet?"""
    same: int
    """Parts with the same number are the same thing."""
    about: About


class Node(NamedTuple):
    """A step, a type of event, or the outside world."""

    kind: Kind
    label: str
    note: str
    times: int | None
    """How often it ran or was taken, in a picture of an execution."""
    parts: tuple[Part, ...]
    about: About


class Line(NamedTuple):
    """Leads from one node to another, by their places in the list."""

    source: int
    target: int
    times: int | None
    awaited: bool
    """Does the step take the event only while it waits for it?"""


class Picture(NamedTuple):
    """A drawing, as facts."""

    name: str
    title: str
    summary: str
    text: str
    nodes: list[Node]
    lines: list[Line]


def possible(workflow: Drawable) -> Picture:
    """All that the declarations of a workflow allow."""
    _check(workflow, "draw_all_possible_flows")
    graph = graph_of(workflow)
    sketch = _Sketch(graph, workflow)
    sketch.event(graph.start, graph.start)
    for kind in graph.events():
        if _comes_from_outside(graph, kind):
            sketch.line(sketch.outside(kind), sketch.event(kind, kind))
    for plan in graph.steps:
        for kind in plan.spec.produces:
            sketch.line(sketch.step(plan), sketch.event(kind, kind))
    for kind in list(sketch.kinds):
        targets = graph.targets(kind)
        for plan in targets:
            sketch.line(sketch.event(kind, kind), sketch.step(plan))
        for plan in graph.steps:
            if plan not in targets and any(issubclass(kind, waited) for waited in plan.waits):
                sketch.line(sketch.event(kind, kind), sketch.step(plan), awaited=True)
        if issubclass(kind, InputRequiredEvent):
            sketch.line(sketch.event(kind, kind), sketch.outside(kind))
    return sketch.picture(
        "all possible flows", f"{_many(len(graph.steps), 'step')}, {_many(len(sketch.kinds), 'event type')}"
    )


def recent(workflow: Workflow[Any, Any]) -> Picture:
    """What ran in the run of a workflow that was started last. Raises `WorkflowRuntimeError` where nothing did."""
    _check(workflow, "draw_most_recent_execution")
    if isinstance(workflow, type):
        msg = (
            f"draw_most_recent_execution({workflow.__name__}) was given a class; what ran is known of an object. "
            f"Write: flow = {workflow.__name__}(); await flow.run(...); draw_most_recent_execution(flow)"
        )
        raise WorkflowRuntimeError(msg)
    host = workflow._host
    if host is None or host.recent is None:
        msg = (
            f"this {type(workflow).__name__} has not run yet, so there is no execution to draw. Write: "
            "await flow.run(...); draw_most_recent_execution(flow)"
        )
        raise WorkflowRuntimeError(msg)
    graph = host.graph
    taken: dict[tuple[str | None, type[Event], str | None], int] = {}
    for edge, count in list(host.recent.items()):  # the run may go on in another thread
        if count:
            key = (edge.source, edge.event, edge.target)
            taken[key] = taken.get(key, 0) + count
    if not taken:
        msg = (
            f"the last run of this {type(workflow).__name__} has not executed any step yet, so there is nothing to "
            "draw. Let it go on first: await handler, or await handler.run_step()"
        )
        raise WorkflowRuntimeError(msg)
    return _execution(workflow, graph, taken)


def _execution(
    workflow: Workflow[Any, Any], graph: Graph, taken: Mapping[tuple[str | None, type[Event], str | None], int]
) -> Picture:
    ran: dict[str, int] = {}
    for (_, _, target), count in taken.items():
        if target is not None:
            ran[target] = ran.get(target, 0) + count
    sketch = _Sketch(graph, workflow, ran)
    places: dict[str | None, int] = {plan.name: n for n, plan in enumerate(graph.steps)}
    places[None] = -1
    events = {kind: n for n, kind in enumerate(graph.events())}
    for key in sorted(taken, key=lambda k: (places[k[0]], events.get(k[1], len(events)), k[1].__name__, places[k[2]])):
        source, kind, target = key
        count = taken[key]
        # each step that takes an event has its own node for it, so that every number is exact
        starts = issubclass(kind, StartEvent)
        event = sketch.event(kind, kind if starts else (kind, target), count)
        if source is not None:
            sketch.line(sketch.step(graph.by_name[source]), event, count)
        elif not starts:
            sketch.line(sketch.outside(kind), event, count)
        if target is not None:
            sketch.line(event, sketch.step(graph.by_name[target]), count)
        elif issubclass(kind, InputRequiredEvent):
            sketch.line(event, sketch.outside(kind), count)
    executions = f"{_many(len(ran), 'step')} ran, {_many(sum(ran.values()), 'execution')} in all"
    return sketch.picture("most recent execution", executions)


def _check(workflow: object, function: str) -> None:
    if not _is_workflow(workflow) and not (isinstance(workflow, type) and issubclass(workflow, Workflow)):
        msg = f"{function}({workflow!r}): only workflows can be drawn. Write: {function}(MyFlow)"
        raise WorkflowRuntimeError(msg)


def _is_workflow(value: object) -> typing.TypeGuard[Workflow[Any, Any]]:
    return isinstance(value, Workflow)


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _comes_from_outside(graph: Graph, kind: type[Event]) -> bool:
    """Can an event of this type come from elsewhere than from a step?"""
    if issubclass(kind, HumanResponseEvent):
        return True
    wanted = kind in graph.waited or (kind in graph.accepting and issubclass(kind, InputRequiredEvent))
    return wanted and not any(issubclass(made, kind) for made in graph.produced)


class _Sketch:
    """A picture in the making."""

    def __init__(self, graph: Graph, workflow: Drawable, ran: Mapping[str, int] | None = None) -> None:
        self.graph = graph
        self.workflow = workflow
        self.ran = ran
        self.kinds: dict[type[Event], None] = {}
        self.nodes: dict[Hashable, Node] = {}
        self.numbers: dict[Hashable, int] = {}
        self.lines: dict[tuple[int, int], Line] = {}
        self.things: dict[Hashable, int] = {}
        self.passed: dict[type[Event], None] = {}
        """Types of events that cross the border to the outside world."""

    def picture(self, title: str, summary: str) -> Picture:
        nodes = list(self.nodes.values())
        lines = list(self.lines.values())
        if self.ran is not None:  # a number that the event itself shows needs no second place
            events = [node.times if node.kind is not Kind.STEP else None for node in nodes]
            lines = [
                line._replace(times=None) if line.times in {events[line.source], events[line.target]} else line
                for line in lines
            ]
        cls = self.workflow if isinstance(self.workflow, type) else type(self.workflow)
        return Picture(self.graph.name, title, summary, _doc(cls), nodes, lines)

    def line(self, source: int, target: int, count: int | None = None, *, awaited: bool = False) -> None:
        """Draw a line, or make the one that is there count for more."""
        known = self.lines.get((source, target))
        if known is not None and known.times is not None and count is not None:
            count += known.times
        self.lines[source, target] = Line(source, target, count, awaited)

    def _node(self, key: Hashable, node: Node) -> int:
        self.nodes[key] = node
        return self.numbers.setdefault(key, len(self.numbers))

    def step(self, plan: StepPlan) -> int:
        key = ("step", plan.name)
        if key in self.nodes:
            return self.numbers[key]
        count = None if self.ran is None else self.ran.get(plan.name)
        parts = [*self._slots(plan), *(self._resource(plan, name) for name in plan.resources)]
        about = _about_step(plan, count, self._took(plan) if count is not None else None)
        return self._node(key, Node(Kind.STEP, plan.name, _note(plan), count, tuple(parts), about))

    def _took(self, plan: StepPlan) -> int | None:
        """The nanoseconds that a step took in the last execution, where somebody looked on."""
        host = None if isinstance(self.workflow, type) else self.workflow._host
        return None if host is None or host.took is None else host.took.get(plan.name)

    def event(self, kind: type[Event], key: Hashable, count: int | None = None) -> int:
        self.kinds[kind] = None
        if count is not None and (known := self.nodes.get(("event", key))) is not None:
            count += known.times or 0
        which = Kind.START if issubclass(kind, StartEvent) else Kind.STOP if issubclass(kind, StopEvent) else Kind.EVENT
        return self._node(("event", key), Node(which, kind.__name__, "", count, (), _about_event(kind, count)))

    def outside(self, kind: type[Event]) -> int:
        self.passed[kind] = None
        human = all(issubclass(passed, InputRequiredEvent | HumanResponseEvent) for passed in self.passed)
        asked = ", ".join(p.__name__ for p in self.passed if issubclass(p, InputRequiredEvent))
        sends = ", ".join(p.__name__ for p in self.passed if not issubclass(p, InputRequiredEvent))
        about = About(
            "outside world",
            "human" if human else "outside",
            "Whoever follows the stream of the run and sends it events: a person, a user interface, the caller.",
            tuple((term, text) for term, text in (("is asked", asked), ("sends", sends)) if text),
        )
        return self._node("outside", Node(Kind.OUTSIDE, about.name, "", None, (), about))

    def _slots(self, plan: StepPlan) -> list[Part]:
        if self.ran is not None:
            return []  # nobody counts whether a step that ran has run them
        filled: Mapping[str, object] = {} if isinstance(self.workflow, type) else self.workflow._workflows
        return [self._slot(name, slot, filled.get(name, slot.default)) for name, slot in plan.spec.slots.items()]

    def _slot(self, name: str, slot: Slot, given: object) -> Part:
        wanted = ("takes", slot.kind.__name__)
        if not _is_workflow(given):
            text = f"Nothing fills it yet: workflow.add_workflows({name}=...)"
            about = About("slot for a nested workflow", name, text, (wanted,))
            return Part("workflow", name, "empty slot", missing=True, same=self._thing(("slot", name)), about=about)
        graph = graph_of(given)
        rows = (
            ("slot", name),
            wanted,
            ("steps", ", ".join(plan.name for plan in graph.steps)),
            ("starts with", _fields(graph.start) or graph.start.__name__),
        )
        about = About("nested workflow", graph.name, _doc(type(given)), rows)
        return Part("workflow", graph.name, name, missing=False, same=self._thing(("workflow", id(given))), about=about)

    def _resource(self, plan: StepPlan, name: str) -> Part:
        recipe = plan.resources[name]
        resource, declared = plan.spec.resources[name]
        rows = [("type", _type(declared)), ("made by", recipe.name), ("lives as long as", f"the {recipe.scope}")]
        if recipe.needs:
            rows.append(("needs", ", ".join(_needs(recipe))))
        replaced: Mapping[Callable[..., Any], Any] = {} if isinstance(self.workflow, type) else self.workflow._resources
        if given := [value for factory, value in replaced.items() if factory is resource.factory]:
            # never the object as text: it may be a client that holds a key
            other: Callable[..., Any] = given[0].factory if isinstance(given[0], Resource) else given[0].__class__
            rows.append(("replaced by", name_of(other)))
        about = About("resource", name, _doc(resource.factory), tuple(rows))
        return Part("resource", name, f"per {recipe.scope}", missing=False, same=self._thing(recipe.key), about=about)

    def _thing(self, key: Hashable) -> int:
        return self.things.setdefault(key, len(self.things))


def _needs(recipe: Recipe) -> list[str]:
    return [f"{name} ({need.name}, {need.scope})" for name, need in recipe.needs.items()]


def _note(plan: StepPlan) -> str:
    """What is special about a step, in a few words."""
    said = [f"{plan.limit} worker{'' if plan.limit == 1 else 's'}"] if plan.limit != DEFAULT_WORKERS else []
    said += ["retries"] if plan.policy is not None else []
    said += [f"{plan.timeout:g} s"] if plan.timeout is not None else []
    said += [] if plan.is_async else ["thread"]
    return " · ".join(said)


def _about_step(plan: StepPlan, count: int | None, took: int | None) -> About:
    spec = plan.spec
    rows = [] if count is None else [("ran", "once" if count == 1 else f"{count} times")]
    rows += [] if took is None else [("took", f"{took / 1e6:,.3f} ms" + (" in all" if count != 1 else ""))]
    rows += [("takes", _either(spec.accepts)), ("returns or sends", _either(spec.produces) or "nothing")]
    rows += [("awaits", _either(plan.waits))] if plan.waits else []
    rows.append(("num_workers", str(plan.limit)))
    rows.append(("retry policy", "none" if plan.policy is None else _ADDRESS.sub("", repr(plan.policy))))
    rows.append(("timeout", "none" if plan.timeout is None else f"{plan.timeout:g} s"))
    rows += [("state", spec.state.__name__)] if isinstance(spec.state, type) else []
    return About("step" if plan.is_async else "step, in a thread", plan.name, _doc(plan.fn), tuple(rows))


_WHAT: dict[type[Event], str] = {
    StartEvent: "starts a run",
    StopEvent: "ends the run",
    InputRequiredEvent: "question to the outside",
    HumanResponseEvent: "answer from outside",
}


def _about_event(kind: type[Event], count: int | None) -> About:
    what = next((text for base, text in _WHAT.items() if issubclass(kind, base)), "event")
    rows = [] if count is None else [("taken", "once" if count == 1 else f"{count} times")]
    for name, field in kind.model_fields.items():
        said = f"{_type(field.annotation)}{'' if field.is_required() else ', optional'}"
        rows.append((name, f"{said}: {field.description}" if field.description else said))
    return About(what, kind.__name__, _doc(kind), tuple(rows))


def _fields(kind: type[Event]) -> str:
    return ", ".join(f"{name}: {_type(field.annotation)}" for name, field in kind.model_fields.items())


def _either(kinds: tuple[type[Event], ...]) -> str:
    return " | ".join(kind.__name__ for kind in kinds)


def _doc(thing: object) -> str:
    """What its author wrote about a class or function, and no base class's words."""
    own = vars(thing).get("__doc__") if isinstance(thing, type) else thing.__doc__ if inspect.isroutine(thing) else None
    return inspect.cleandoc(own) if isinstance(own, str) else ""


_ADDRESS = re.compile(r" (?:object )?at 0x[0-9a-fA-F]+")
_PATH = re.compile(r"'[^']*'|\"[^\"]*\"|(?:[\w<>]+\.)+(?=\w)")


def _type(annotation: object) -> str:
    """A type as it is written where its module is at hand."""
    text = (
        annotation.__qualname__ if isinstance(annotation, type) and not typing.get_args(annotation) else str(annotation)
    )
    return _ADDRESS.sub("", _PATH.sub(lambda m: m[0] if m[0][0] in "'\"" else "", text))
