"""Compiling: from the declarations of a workflow to a graph that a run can trust."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, NamedTuple

from .checks import check_ends, check_flow, refusal, state_of
from .errors import UnannotatedError, UnresolvedNameError, WorkflowValidationError
from .graph import Graph, StepPlan
from .signature import WORKFLOW_ROLE, def_line
from .steps import declaration_of, function_behind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .steps import Declaration

STEPS_ROLE = "__agentflow_steps__"
"""Where a class, or an object, keeps the steps that were attached to it."""


class StepSource(NamedTuple):
    """A step as a class has it: the function that is called, with what wraps it, and what `@step` said."""

    fn: Callable[..., Any]
    declaration: Declaration
    static: bool = False


def compile_graph(name: str, sources: Mapping[str, StepSource]) -> Graph:
    """Compile and check. Raises `WorkflowValidationError` with what to write instead."""
    plans: list[StepPlan] = []
    for step, (fn, declaration, static) in sources.items():
        plan = StepPlan(len(plans), step, fn, declaration)
        if plan.spec.bound == (declaration.free or static):
            raise _misplaced_self(plan, name)
        plans.append(plan)
    steps = tuple(plans)
    graph = Graph(name, steps, state_of(steps, name))
    check_ends(graph)
    check_flow(graph)
    return graph


def collect_steps(cls: type, own: Mapping[str, StepSource]) -> dict[str, StepSource]:
    """The steps of a workflow class, those of its bases first, then those attached to the object."""
    root = next(base for base in reversed(cls.__mro__) if WORKFLOW_ROLE in vars(base))
    found: dict[str, StepSource] = {}
    for base in reversed(cls.__mro__):
        attributes: dict[str, Any] = dict(vars(base))
        for name, value in attributes.items():
            fn = function_behind(value)
            declaration = declaration_of(fn)
            if declaration is not None:
                _check_place(base, name, value, root)
                found[name] = StepSource(fn, declaration, isinstance(value, staticmethod))
            elif name in found:
                if value is not None:
                    msg = (
                        f"{base.__name__}.{name} overrides the step {name!r} without being one. Write @step above it, "
                        f"or {name} = None to take it out."
                    )
                    raise WorkflowValidationError(msg)
                del found[name]
        found.update(vars(base).get(STEPS_ROLE, {}))
    return {**found, **own}


def check_annotated(cls: type) -> None:
    """Refuse a step of a new class without annotations, with the signature of the step that it overrides."""
    for name, value in vars(cls).items():
        declaration = declaration_of(function_behind(value))
        try:
            if declaration is not None:
                declaration.spec()
        except UnresolvedNameError:
            continue  # compiling looks again
        except UnannotatedError as error:
            bases = {base: declaration_of(function_behind(vars(base).get(name))) for base in cls.__mro__[1:]}
            overridden = next(((base, its) for base, its in bases.items() if its is not None), None)
            if overridden is None:
                raise
            base, its = overridden
            before, _, _ = str(error).partition(" Write")
            msg = f"{before} Write, as {base.__name__} does: {def_line(its.fn)}"
            raise UnannotatedError(msg) from None


def _check_place(cls: type, name: str, value: object, root: type) -> None:
    """Refuse a step that cannot be called where it stands."""
    if isinstance(value, classmethod):
        msg = (
            f"step {name!r} of {cls.__name__!r} is a class method: a step takes self, or nothing. Write @staticmethod "
            "in place of @classmethod."
        )
        raise WorkflowValidationError(msg)
    if hasattr(root, name):
        msg = f"step {name!r} of {cls.__name__!r} would hide {root.__name__}.{name}. Give it another name: {name}_step"
        raise WorkflowValidationError(msg)


def _misplaced_self(plan: StepPlan, name: str) -> WorkflowValidationError:
    fn = plan.declaration.fn
    if plan.spec.bound:
        first = next(iter(inspect.signature(fn).parameters))
        msg = (
            f"step {plan.name!r} of {name!r} is a static method, and takes no {first}. Write: "
            f"{def_line(fn, without={first})}"
        )
    else:
        msg = (
            f"step {plan.name!r} of {name!r} is a method without self. Write: {def_line(fn, self_=True)} or put "
            "@staticmethod above @step."
        )
    return refusal(WorkflowValidationError, msg, plan)
