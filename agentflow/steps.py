"""Steps: the `@step` decorator and what a step's signature declares. Nothing runs here.

An annotation is looked up when the step is declared, in the module and in the functions around it;
what is not there yet (a class further down) is looked up again when the workflow is compiled.
"""

from __future__ import annotations

import inspect
import sys
import types
import typing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .errors import WorkflowValidationError
from .events import Event
from .resource import Resource
from .retry import check_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import tenacity

    from .retry import RetryPolicy

DECLARATION = "__agentflow_step__"
CONTEXT_ROLE = "__agentflow_context__"
WORKFLOW_ROLE = "__agentflow_workflow__"
DEFAULT_WORKERS = 4
_MAX_FRAMES = 8

F = TypeVar("F", bound="Callable[..., Any]")


@dataclass(frozen=True, slots=True)
class Slot:
    """A parameter that takes a nested workflow."""

    kind: type
    default: Any


@dataclass(frozen=True, slots=True)
class StepSpec:
    """What a step's signature and its decorator say."""

    name: str
    event: str
    """The name of the parameter that takes the event."""
    accepts: tuple[type[Event], ...]
    produces: tuple[type[Event], ...]
    context: str | None = None
    state: type | None = None
    """The state model in `Context[State]`."""
    resources: Mapping[str, tuple[Resource, object]] = field(default_factory=dict)
    slots: Mapping[str, Slot] = field(default_factory=dict)
    parameters: tuple[str, ...] = ()
    """All parameters behind `self`, in order."""
    positional_only: tuple[str, ...] = ()
    bound: bool = True
    """Does it take `self`?"""


class Declaration:
    """What `@step` leaves on a function."""

    __slots__ = ("_frames", "_spec", "fn", "free", "num_workers", "retry_policy", "timeout", "waits")

    def __init__(  # noqa: PLR0913 because these are the options that a step has
        self,
        fn: Callable[..., Any],
        *,
        free: bool,
        num_workers: int,
        retry_policy: RetryPolicy | tenacity.BaseRetrying | None,
        timeout: float | None,
        waits: tuple[type[Event], ...],
        frames: list[types.FrameType],
    ) -> None:
        self.fn = fn
        self.free = free
        self.num_workers = num_workers
        self.retry_policy = retry_policy
        self.timeout = timeout
        self.waits = waits
        self._frames = frames
        self._spec: StepSpec | None = None
        try:
            self.spec()
        except _Unresolved:
            return  # compiling looks again, when every class has been defined

    def spec(self) -> StepSpec:
        """What the signature declares. Raises `WorkflowValidationError` with the corrected line."""
        if self._spec is None:
            self._spec = read_signature(self.fn, self._namespace(), free=self.free)
            self._frames = []
        return self._spec

    def _namespace(self) -> dict[str, Any]:
        names: dict[str, Any] = {}
        for frame in reversed(self._frames):
            names.update(frame.f_locals)
        return names


class _Unresolved(WorkflowValidationError):
    """An annotation names what is not defined, or not yet."""


@overload
def step(fn: F, /) -> F: ...
@overload
def step(
    *,
    workflow: Any = None,
    num_workers: int = DEFAULT_WORKERS,
    retry_policy: RetryPolicy | tenacity.BaseRetrying | None = None,
    timeout: float | None = None,
    waits: list[type[Event]] | tuple[type[Event], ...] = (),
) -> Callable[[F], F]: ...
def step(  # noqa: PLR0913 because these are the options that a step has
    fn: F | None = None,
    /,
    *,
    workflow: Any = None,
    num_workers: int = DEFAULT_WORKERS,
    retry_policy: RetryPolicy | tenacity.BaseRetrying | None = None,
    timeout: float | None = None,
    waits: list[type[Event]] | tuple[type[Event], ...] = (),
) -> F | Callable[[F], F]:
    """Make a method, or a function, a step of a workflow.

    The event parameter's annotation says what triggers it, the return annotation what it produces:
    one event, a `list` of them, or None.

    - `workflow`: for a function outside a class, the workflow class or object that it becomes part of.
    - `num_workers`: how many executions of the step may go on at once within a run. A plain function
      runs in a thread of a pool of that size.
    - `retry_policy`: a `Retry`, a tenacity object, or anything with a `next` method.
    - `timeout`: seconds for one execution; waiting for a human does not count.
    - `waits`: event types that the step awaits with `ctx.wait_for_event`, kept when they come early.

    Raises `WorkflowValidationError`, with the corrected line, where the declaration cannot work.
    """
    if fn is not None and not callable(fn):
        msg = f"@step({fn!r}): options are given by name. Write @step(workflow={fn!r}) or @step(num_workers=4)."
        raise WorkflowValidationError(msg)
    frames = _frames()

    def declare(function: F) -> F:
        if not inspect.isroutine(function):
            msg = f"@step on {function!r}: it decorates functions. Write @step directly above `async def`."
            raise WorkflowValidationError(msg)
        where = f"step {function.__name__!r}"
        _check_options(where, num_workers, timeout, waits)
        if retry_policy is not None:
            check_policy(retry_policy, where)
        inner: Any = function.__func__ if isinstance(function, staticmethod) else function
        attach = getattr(workflow, "__agentflow_attach__", None)
        if workflow is not None and attach is None:
            msg = f"{where}: workflow={workflow!r} is no workflow. Write @step(workflow=MyWorkflow) or its instance."
            raise WorkflowValidationError(msg)
        declaration = Declaration(
            inner,
            free=workflow is not None or isinstance(function, staticmethod),
            num_workers=num_workers,
            retry_policy=retry_policy,
            timeout=timeout,
            waits=tuple(waits),
            frames=frames,
        )
        setattr(inner, DECLARATION, declaration)
        if attach is not None:
            attach(inner)
        return function

    return declare if fn is None else declare(fn)


def declaration_of(function: object) -> Declaration | None:
    """What `@step` left on a function, a bound method or a static method; None if it is no step."""
    found = getattr(function, DECLARATION, None)
    return found if isinstance(found, Declaration) else None


def read_signature(fn: Callable[..., Any], local_names: dict[str, Any], *, free: bool) -> StepSpec:
    """Work out what `fn` declares."""
    name = fn.__name__
    signature = inspect.signature(fn)
    parameters = list(signature.parameters.values())
    bound = not free and bool(parameters) and parameters[0].annotation is inspect.Parameter.empty
    if bound:
        del parameters[0]
    where = f"step {fn.__qualname__!r}"
    if inspect.isasyncgenfunction(fn) or inspect.isgeneratorfunction(fn):
        msg = f"{where} yields. A step returns its events: write `return [A(...), B(...)]`, or ctx.send_event(...) for each."
        raise WorkflowValidationError(msg)

    event: str | None = None
    accepts: tuple[type[Event], ...] = ()
    context: str | None = None
    state: type | None = None
    resources: dict[str, tuple[Resource, object]] = {}
    slots: dict[str, Slot] = {}
    for parameter in parameters:
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            continue
        if parameter.annotation is inspect.Parameter.empty:
            if parameter.default is not inspect.Parameter.empty:
                continue
            msg = f"{where}: parameter {parameter.name!r} has no annotation, so nothing says what to pass. Write: {_suggest(fn, bound=bound, fix=parameter.name)}"
            raise WorkflowValidationError(msg)
        hint = _resolve(fn, parameter.name, parameter.annotation, local_names, where)
        marker = next((m for m in getattr(hint, "__metadata__", ()) if isinstance(m, Resource)), None)
        if marker is not None:
            resources[parameter.name] = (marker, typing.get_args(hint)[0])
            continue
        origin = typing.get_origin(hint) or hint
        if isinstance(origin, type) and CONTEXT_ROLE in vars(origin):
            context, state = parameter.name, next(iter(typing.get_args(hint)), None)
        elif isinstance(origin, type) and hasattr(origin, WORKFLOW_ROLE):
            slots[parameter.name] = Slot(origin, parameter.default)
        elif events := _events_of(hint):
            if event is not None:
                msg = (
                    f"{where} takes two events, {event!r} and {parameter.name!r}. A step is triggered by one: write a union "
                    f"({event}: A | B) and join them with ctx.collect_events({event}, [A, B])."
                )
                raise WorkflowValidationError(msg)
            event, accepts = parameter.name, events
        elif parameter.default is inspect.Parameter.empty:
            msg = (
                f"{where}: nothing can be passed for {parameter.name!r}: {_show(hint)} is neither an event, nor Context, nor "
                f"a Workflow. Make it a resource: {parameter.name}: Annotated[{_show(hint)}, Resource(make_it)]"
            )
            raise WorkflowValidationError(msg)
    if event is None:
        msg = f"{where} has no event parameter, so nothing can trigger it. Write: {_suggest(fn, bound=bound, fix='ev')}"
        raise WorkflowValidationError(msg)
    if signature.return_annotation is inspect.Signature.empty:
        msg = f"{where} has no return annotation, so nothing says what it produces. Write: {_suggest(fn, bound=bound, fix='return')}"
        raise WorkflowValidationError(msg)
    returned = _resolve(fn, "return", signature.return_annotation, local_names, where)
    return StepSpec(
        name=name,
        event=event,
        accepts=accepts,
        produces=_produced(returned, where),
        context=context,
        state=state,
        resources=resources,
        slots=slots,
        parameters=tuple(p.name for p in parameters),
        positional_only=tuple(p.name for p in parameters if p.kind is p.POSITIONAL_ONLY),
        bound=bound,
    )


def _check_options(where: str, num_workers: object, timeout: object, waits: object) -> None:
    if not isinstance(num_workers, int) or isinstance(num_workers, bool) or num_workers < 1:
        msg = f"{where}: num_workers={num_workers!r} must be a whole number of 1 or more. Write num_workers={DEFAULT_WORKERS}."
        raise WorkflowValidationError(msg)
    if timeout is not None and (not isinstance(timeout, int | float) or timeout <= 0):
        msg = f"{where}: timeout={timeout!r} must be a positive number of seconds, or None for no limit."
        raise WorkflowValidationError(msg)
    if not isinstance(waits, list | tuple) or not all(isinstance(t, type) and issubclass(t, Event) for t in waits):
        msg = f"{where}: waits={waits!r} must be a list of event types. Write waits=[MyEvent]."
        raise WorkflowValidationError(msg)


def _frames() -> list[types.FrameType]:
    """The frames around a declaration, innermost first, up to its module: where local classes are found."""
    frame: types.FrameType | None = sys._getframe(2)  # noqa: SLF001 because nothing else gives local names
    names = frame.f_globals if frame else None
    found: list[types.FrameType] = []
    while frame is not None and frame.f_globals is names and frame.f_code.co_name != "<module>":
        found.append(frame)
        if len(found) == _MAX_FRAMES:
            break
        frame = frame.f_back
    return found


class _Holder:
    """Something with annotations, which is all that `typing.get_type_hints` looks at."""

    def __init__(self, annotations: dict[str, Any]) -> None:
        self.__annotations__ = annotations


def _resolve(fn: Callable[..., Any], name: str, annotation: Any, local_names: dict[str, Any], where: str) -> Any:
    if annotation is None:
        return type(None)
    try:
        hints = typing.get_type_hints(
            _Holder({name: annotation}),
            globalns=getattr(fn, "__globals__", {}),
            localns=local_names,
            include_extras=True,
        )
    except NameError as error:
        what = "the return annotation" if name == "return" else f"the annotation of {name!r}"
        msg = (
            f"{where}: {what}, {annotation!r}, names {error.name!r}, which is not defined where the step is. Define or "
            "import it at run time, not only under TYPE_CHECKING."
        )
        raise _Unresolved(msg) from None
    except TypeError as error:
        msg = f"{where}: the annotation {annotation!r} of {name!r} is no type: {error}."
        raise WorkflowValidationError(msg) from None
    return hints[name]


def _members(hint: object) -> list[object]:
    if typing.get_origin(hint) is typing.Annotated:
        return _members(typing.get_args(hint)[0])
    if typing.get_origin(hint) in {typing.Union, types.UnionType}:
        return [m for a in typing.get_args(hint) for m in _members(a)]
    return [hint]


def _events_of(hint: object) -> tuple[type[Event], ...]:
    """The event types of an annotation; empty where it has any other member but None."""
    members = [m for m in _members(hint) if m is not type(None)]
    events = tuple(m for m in members if isinstance(m, type) and issubclass(m, Event))
    return events if len(events) == len(members) else ()


def _produced(hint: object, where: str) -> tuple[type[Event], ...]:
    produced: dict[type[Event], None] = {}
    for member in _members(hint):
        if member is type(None) or member in {typing.NoReturn, typing.Never}:
            continue
        inner = typing.get_args(member)[0] if typing.get_origin(member) is list and typing.get_args(member) else member
        events = _events_of(inner)
        if not events:
            msg = (
                f"{where} is annotated to return {_show(member)}. A step returns events, a list of them, or None: end the "
                "run with StopEvent(result=...) (-> StopEvent), or wrap the value in an event of your own."
            )
            raise WorkflowValidationError(msg)
        produced.update(dict.fromkeys(events))
    return tuple(produced)


def _show(hint: object) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _suggest(fn: Callable[..., Any], *, bound: bool, fix: str) -> str:
    """The step's `def` line with what is missing filled in."""
    signature = inspect.signature(fn)
    parts = ["self"] if bound else []
    for parameter in list(signature.parameters.values())[1 if bound else 0 :]:
        if parameter.name == fix:
            parts.append(f"{fix}: MyEvent")
        elif parameter.annotation is parameter.empty:
            parts.append(str(parameter))
        else:
            hint = parameter.annotation
            parts.append(f"{parameter.name}: {hint if isinstance(hint, str) else _show(hint)}")
    if fix == "ev" and "ev" not in signature.parameters:
        parts.append("ev: MyEvent")
    returns = signature.return_annotation
    if returns is inspect.Signature.empty:
        returns = "StopEvent"
    prefix = "async def" if inspect.iscoroutinefunction(fn) else "def"
    shown = returns if isinstance(returns, str) else "None" if returns is None else _show(returns)
    return f"{prefix} {fn.__name__}({', '.join(parts)}) -> {shown}:"
