"""The checks of a compiled workflow: each error says what happened and shows the line that would be right."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from .errors import WorkflowConfigurationError, WorkflowValidationError, a, shown, type_name
from .events import HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent
from .resource import Resource, check_lifetime, compile_recipe, key_of, name_of
from .signature import WORKFLOW_ROLE

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    from .events import Event
    from .graph import Graph, StepPlan
    from .resource import Recipe


def refusal(kind: type[WorkflowValidationError], message: str, *plans: StepPlan) -> WorkflowValidationError:
    """The error, with a note that says where these steps stand."""
    error = kind(message)
    for plan in dict.fromkeys(plans):
        error.add_note(f"agentflow: step {plan.name!r} is in {plan.declaration.place()}")
    return error


def check_ends(graph: Graph) -> None:
    """Refuse a workflow that has not one type of start event and at least one of stop event."""
    name = graph.name
    if not graph.steps:
        target = "flow" if name == "Workflow" else name
        msg = (
            f"workflow {name!r} has no steps. Write @step above methods, or @step(workflow={target}) above functions. "
            "A decorator that stands above @step has to use functools.wraps."
        )
        raise WorkflowConfigurationError(msg)
    if not graph.starts:
        first = graph.steps[0]
        msg = (
            f"no step of {name!r} accepts StartEvent, so nothing can start it. Write, for example: "
            f"{first.line(accepts='StartEvent')}"
        )
        raise refusal(WorkflowConfigurationError, msg, first)
    if len(graph.starts) > 1:
        plans = [plan for kind in graph.starts for plan in graph.accepting[kind]]
        found = ", ".join(
            f"{kind.__name__} (in {', '.join(p.name for p in graph.accepting[kind])})" for kind in graph.starts
        )
        one = next((kind for kind in graph.starts if kind is not StartEvent), StartEvent)
        other = next(plan for plan in plans if any(k in graph.starts and k is not one for k in plan.spec.accepts))
        accepts = dict.fromkeys(one if k in graph.starts else k for k in other.spec.accepts)
        msg = (
            f"{name!r} has two types of start event: {found}. A run starts with one. Write, for example: "
            f"{other.line(accepts=' | '.join(k.__name__ for k in accepts))}"
        )
        raise refusal(WorkflowConfigurationError, msg, *plans)
    if not graph.stops:
        last = graph.steps[-1]
        msg = (
            f"no step of {name!r} returns StopEvent, so it could never end. Write, for example: "
            f"{last.line_returning(StopEvent)} and in it: return StopEvent(result=...)"
        )
        raise refusal(WorkflowConfigurationError, msg, last)
    for plan in graph.steps:
        if bad := [k.__name__ for k in plan.spec.accepts if issubclass(k, StopEvent)]:
            msg = (
                f"step {plan.name!r} of {name!r} accepts {bad[0]}, which ends the run before any step sees it. Return "
                "an event of your own where the run is to go on, and let the step accept that."
            )
            raise refusal(WorkflowValidationError, msg, plan)


def _exempt(kind: type) -> bool:
    return issubclass(kind, InputRequiredEvent | HumanResponseEvent | StopEvent)


def check_flow(graph: Graph) -> None:
    """Refuse events that go nowhere or come from nowhere, and steps that nothing reaches."""
    name = graph.name
    start = graph.accepting[graph.start][0]
    taken: set[type[Event]] = set()
    for plan in graph.steps:
        for kind in plan.spec.produces:
            takers = _accepted(graph, kind)
            taken.update(takers)
            if not (takers or _exempt(kind) or any(issubclass(w, kind) or issubclass(kind, w) for w in graph.waited)):
                choices = ", ".join(k.__name__ for k in graph.accepting)
                msg = (
                    f"step {plan.name!r} of {name!r} produces {kind.__name__}, which no step accepts; they accept "
                    f"{choices}. Accept it in a step (ev: {kind.__name__}), or name it where it is awaited "
                    f"(@step(waits=[{kind.__name__}])), or drop it: {plan.line_without(kind)}"
                )
                raise refusal(WorkflowValidationError, msg, plan)
    for kind, plans in graph.accepting.items():
        if not (kind in taken or _exempt(kind) or kind in graph.starts):
            users = ", ".join(repr(plan.name) for plan in plans)
            msg = (
                f"step {users} of {name!r} accepts {kind.__name__}, which no step produces. Write it into the return "
                f"annotation of the step that returns or sends it, for example: {start.line_returning(kind)}"
            )
            raise refusal(WorkflowValidationError, msg, *plans)
    reached = _reached(graph)
    if missed := [plan for plan in graph.steps if plan not in reached]:
        wanted = missed[0].spec.accepts[0]
        msg = (
            f"no way leads from {graph.start.__name__} to step {', '.join(repr(plan.name) for plan in missed)} of "
            f"{name!r}. Let a step that is reached produce what it accepts, for example: {start.line_returning(wanted)}"
        )
        raise refusal(WorkflowValidationError, msg, *missed)


def _accepted(graph: Graph, kind: type[Event]) -> list[type[Event]]:
    """The types under which steps accept an event that is declared as `kind`: it, its nearest base, its subclasses."""
    nearest = next((base for base in kind.__mro__ if base in graph.accepting), None)
    special = [accepted for accepted in graph.accepting if issubclass(accepted, kind)]
    return [*([] if nearest is None else [nearest]), *special]


def _reached(graph: Graph) -> set[StepPlan]:
    """The steps that some event can get to, from the start and from outside."""
    reached: set[StepPlan] = set()
    todo = [kind for kind in graph.accepting if kind in graph.starts or _exempt(kind)]
    seen = set(todo)
    while todo:
        for plan in graph.takers(todo.pop()):
            reached.add(plan)
            todo += [kind for kind in plan.spec.produces if kind not in seen]
            seen.update(plan.spec.produces)
    return reached


def state_of(steps: tuple[StepPlan, ...], name: str) -> type[BaseModel] | None:
    """The model of the state that the steps declare, `Context[State]`; None where they declare none."""
    models: dict[type[BaseModel], StepPlan] = {}
    for plan in steps:
        model = plan.spec.state
        if not isinstance(model, type) or model is Any or issubclass(model, dict):
            continue
        if not issubclass(model, BaseModel):
            msg = (
                f"step {plan.name!r} of {name!r} declares Context[{model.__name__}], but a state is a pydantic model. "
                f"Write: class {model.__name__}(BaseModel), with a default for every field."
            )
            raise refusal(WorkflowValidationError, msg, plan)
        if required := [(n, f) for n, f in model.model_fields.items() if f.is_required()]:
            field, info = required[0]
            msg = (
                f"the state {model.__name__} of {name!r} starts without values, but {field!r} has no default. Write: "
                f"{field}: {type_name(info.annotation)} = ..."
            )
            raise refusal(WorkflowValidationError, msg, plan)
        models.setdefault(model, plan)
    for model in models:
        if all(issubclass(model, other) for other in models):
            return model
    if models:
        found = ", ".join(f"{model.__name__} (in {plan.name})" for model, plan in models.items())
        msg = (
            f"{name!r} has different states: {found}. A run has one: write the same model everywhere, or derive one "
            "from the others."
        )
        raise refusal(WorkflowValidationError, msg, *models.values())
    return None


def check_slots(graph: Graph, filled: Mapping[str, object]) -> None:
    """Refuse a workflow whose slot for a nested one is empty, or filled with something else."""
    for plan in graph.steps:
        for name, slot in plan.spec.slots.items():
            kind = slot.kind.__name__ if WORKFLOW_ROLE not in vars(slot.kind) else "MyFlow"
            given = filled.get(name, slot.default)
            if given is inspect.Parameter.empty:
                what = f"needs a workflow for {name!r} and has none"
            elif name in filled and not isinstance(given, slot.kind):
                what = f"takes {a(slot.kind.__name__)} for {name!r}, but has {shown(given)}"
            else:
                continue
            msg = f"step {plan.name!r} of {graph.name!r} {what}. Write: workflow.add_workflows({name}={kind}())"
            raise refusal(WorkflowValidationError, msg, plan)


def check_overrides(graph: Graph, overrides: Mapping[Any, Any], asked: Iterable[Resource] = ()) -> None:
    """Refuse an override of a resource that no step uses, and one that does not live long enough.

    `asked` are those that steps ask for by `ctx.resource`.
    """
    found = _Overridden(graph, overrides, asked)
    for factory in overrides:
        if key_of(factory) not in found.used:
            msg = (
                f"Workflow(resources={{{name_of(factory)}: ...}}): no step of {graph.name!r} uses this factory. The "
                f"keys are the factories themselves; there are: {', '.join(sorted(found.used.values())) or 'none'}."
            )
            raise WorkflowConfigurationError(msg)


class _Overridden:
    """The resources of a workflow as they are once some are replaced."""

    def __init__(self, graph: Graph, overrides: Mapping[Any, Any], asked: Iterable[Resource]) -> None:
        self._where = f"Workflow(resources=...) of {graph.name!r}"
        known: dict[Hashable, Recipe] = {}
        self._instead = {
            key_of(factory): compile_recipe(given, self._where, known) if isinstance(given, Resource) else None
            for factory, given in overrides.items()
        }
        self.used: dict[Hashable, str] = {}
        """The names of all factories that are asked for, by their keys."""
        for plan in graph.steps:
            for recipe in plan.resources.values():
                self._follow(recipe, ())
        for resource in asked:
            self._follow(compile_recipe(resource, f"asks_for of {graph.name!r}", known), ())

    def _follow(self, recipe: Recipe, path: tuple[Hashable, ...]) -> Recipe | None:
        """What is made in the end where `recipe` is asked for; None for an object that is there already."""
        self.used[recipe.key] = recipe.name
        instead = self._instead.get(recipe.key, recipe)
        if instead is None:
            return None
        if instead.key in path:
            msg = (
                f"{self._where}: {instead.name!r} needs what it replaces, and so itself. Let it make the object alone."
            )
            raise WorkflowConfigurationError(msg)
        for need in instead.needs.values():
            given = self._follow(need, (*path, instead.key))
            if given is not None:
                check_lifetime(instead, given, self._where)
        return instead
