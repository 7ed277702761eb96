"""Signatures: what a step's annotations say, read once, and how they are corrected."""

from __future__ import annotations

import inspect
import types
import typing
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, cast

from .errors import UnannotatedError, UnresolvedNameError, WorkflowValidationError, type_name
from .events import Event
from .resource import Resource, check_type, compile_recipe, evaluate, marker_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Mapping

    from .resource import Recipe

CONTEXT_ROLE = "__agentflow_context__"
WORKFLOW_ROLE = "__agentflow_workflow__"
_EMPTY = inspect.Parameter.empty


class Slot(NamedTuple):
    """A parameter that takes a nested workflow."""

    kind: type
    default: Any


class StepSpec(NamedTuple):
    """What a step's signature says."""

    event: str
    """The name of the parameter that takes the event."""
    accepts: tuple[type[Event], ...]
    produces: tuple[type[Event], ...]
    context: str | None
    state: Any
    """The state model in `Context[State]`."""
    resources: Mapping[str, tuple[Resource, object]]
    """By parameter, the marker and the type that is declared."""
    recipes: Mapping[str, Recipe]
    """By parameter, how to make it."""
    slots: Mapping[str, Slot]
    parameters: tuple[str, ...]
    """What is handed to it behind `self`, in order; empty where not all of it can be given by position."""
    positional_only: tuple[str, ...]
    bound: bool
    """Does it take `self`?"""


def read_signature(fn: Callable[..., Any], names: Mapping[str, Any], *, free: bool) -> StepSpec:
    """Work out what `fn` declares; `names` are the local names around it, `free` is a function outside a class.

    Raises `WorkflowValidationError` with the corrected line.
    """
    return _Reader(fn, names, free=free).read()


def def_line(  # noqa: PLR0913 because there are that many ways to be wrong
    fn: Callable[..., Any],
    *,
    annotate: Mapping[str, str] | None = None,
    returns: str | None = None,
    without: Collection[str] = (),
    event: str | None = None,
    self_: bool = False,
) -> str:
    """The `def` line of `fn`, corrected: annotated and returning like this, without these parameters.

    `event` adds a parameter with that annotation, `self_` one in front.
    """
    signature = inspect.signature(fn)
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        if parameter.name not in without:
            annotation = (annotate or {}).get(parameter.name, parameter.annotation)
            default = parameter.default
            if default is not _EMPTY and not isinstance(default, int | float | str | None):
                default = _Source("...")
            parameters.append(parameter.replace(annotation=_written(annotation), default=default))
    only = bool(parameters) and parameters[0].kind is inspect.Parameter.POSITIONAL_ONLY
    kind = inspect.Parameter.POSITIONAL_ONLY if only else inspect.Parameter.POSITIONAL_OR_KEYWORD
    if event is not None:
        behind = len([p for p in parameters if p.kind is kind and p.default is _EMPTY])
        parameters.insert(behind, inspect.Parameter("ev", kind, annotation=_Source(event)))
    if self_:
        parameters.insert(0, inspect.Parameter("self", kind))
    result = returns or ("StopEvent" if signature.return_annotation is _EMPTY else signature.return_annotation)
    prefix = "async def" if inspect.iscoroutinefunction(inspect.unwrap(fn)) else "def"
    return f"{prefix} {fn.__name__}{signature.replace(parameters=parameters, return_annotation=_written(result))}:"


class _Source:
    """Prints as the source text that it is made of."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _written(annotation: object) -> object:
    return annotation if annotation is _EMPTY else _Source(type_name(annotation))


class _Reader:
    """Reads one signature, parameter by parameter."""

    def __init__(self, fn: Callable[..., Any], names: Mapping[str, Any], *, free: bool) -> None:
        self._fn = fn
        self._names = names
        self._free = free
        self._where = f"step {fn.__qualname__.rpartition('<locals>.')[2]!r}"
        self._line = partial(def_line, fn)
        self._event = ""
        self._accepts: tuple[type[Event], ...] = ()
        self._context: str | None = None
        self._state: Any = None
        self._resources: dict[str, tuple[Resource, object]] = {}
        self._recipes: dict[str, Recipe] = {}
        self._slots: dict[str, Slot] = {}
        self._known: dict[Hashable, Recipe] = {}

    def read(self) -> StepSpec:
        """All of it."""
        if inspect.isasyncgenfunction(self._fn) or inspect.isgeneratorfunction(self._fn):
            self._refuse("yields. Write: return [A(...), B(...)], or send each event: ctx.send_event(A(...))")
        signature = self._inspect()
        parameters = list(signature.parameters.values())
        bound = not self._free and bool(parameters) and _is_self(parameters[0])
        first = parameters.pop(0) if bound else None
        parameters = [p for p in parameters if p.kind not in {p.VAR_POSITIONAL, p.VAR_KEYWORD}]
        for parameter in parameters:
            self._take(parameter)
        if not self._event:
            self._refuse_without_event(first)
        if signature.return_annotation is _EMPTY:
            self._refuse(
                "has no return annotation, so nothing says what it produces. Name the events that it returns and "
                f"sends, or None. Write, for example: {self._line()}"
            )
        handed = {self._event, *([self._context] if self._context else []), *self._resources, *self._slots}
        front = parameters[: len(handed)]
        return StepSpec(
            event=self._event,
            accepts=self._accepts,
            produces=self._produced(self._evaluate("return", signature.return_annotation)),
            context=self._context,
            state=self._state,
            resources=self._resources,
            recipes=self._recipes,
            slots=self._slots,
            parameters=tuple(p.name for p in front) if all(_by_position(p) and p.name in handed for p in front) else (),
            positional_only=tuple(p.name for p in parameters if p.name in handed and p.kind is p.POSITIONAL_ONLY),
            bound=bound,
        )

    def _inspect(self) -> inspect.Signature:
        try:
            return inspect.signature(self._fn)
        except NameError as error:  # from Python 3.14 on
            raise self._unresolved("an annotation", error) from None

    def _take(self, parameter: inspect.Parameter) -> None:
        """Find out what a parameter is handed."""
        name, default = parameter.name, parameter.default
        if parameter.annotation is _EMPTY:
            if default is _EMPTY:
                self._refuse_unannotated(parameter)
            self._refuse_default(name, "T", default)
            return
        hint = self._evaluate(name, parameter.annotation)
        if (marker := marker_of(hint)) is not None:
            declared = typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint
            self._resources[name] = marker, declared
            self._recipes[name] = compile_recipe(marker, self._where, self._known, (), self._names)
            check_type(marker, declared, self._where, name, self._names)
            return
        self._refuse_default(name, type_name(hint), default)
        alone = _alone(hint)
        kind: object = typing.get_origin(alone) or alone
        if isinstance(kind, type) and CONTEXT_ROLE in vars(kind):
            self._context, self._state = name, next(iter(typing.get_args(alone)), None)
        elif isinstance(kind, type) and hasattr(kind, WORKFLOW_ROLE):
            self._slots[name] = Slot(kind, default)
        elif events := _events_of(hint):
            self._take_event(name, events)
        elif default is _EMPTY:
            line = self._line(annotate={name: f"Annotated[{type_name(hint)}, Resource(make_it)]"})
            self._refuse(
                f"declares {name!r} as {type_name(hint)}, which is neither an event, nor Context, nor a workflow, so "
                f"nothing can be passed for it. Make it a resource: {line}"
            )

    def _take_event(self, name: str, events: tuple[type[Event], ...]) -> None:
        if self._event:
            kinds = list(dict.fromkeys(type_name(kind) for kind in (*self._accepts, *events)))
            line = self._line(annotate={self._event: " | ".join(kinds)}, without={name})
            self._refuse(
                f"takes two events, {self._event!r} and {name!r}, but is triggered by one at a time. Write: {line} and "
                f"join them in it: ctx.collect_events({self._event}, [{', '.join(kinds)}])"
            )
        self._event, self._accepts = name, events

    def _produced(self, hint: object) -> tuple[type[Event], ...]:
        produced: dict[type[Event], None] = {}
        for member in _members(hint):
            inside = typing.get_args(member)[0] if typing.get_origin(member) is list else member
            if member not in {types.NoneType, typing.NoReturn, typing.Never}:
                produced.update(dict.fromkeys(_events_of(inside) or self._refuse_returned(hint, member)))
        return tuple(produced)

    def _evaluate(self, name: str, annotation: object) -> Any:
        what = (
            f"the return annotation, {annotation!r},"
            if name == "return"
            else f"the annotation of {name!r}, {annotation!r},"
        )
        try:
            return evaluate(annotation, self._fn, self._names)
        except NameError as error:
            raise self._unresolved(what, error) from None
        except (TypeError, AttributeError, SyntaxError) as error:
            msg = f"{self._where}: {what} cannot be evaluated: {error}"
            raise WorkflowValidationError(msg) from None

    def _unresolved(self, what: str, error: NameError) -> UnresolvedNameError:
        return UnresolvedNameError(
            f"{self._where}: {what} names {error.name!r}, which is not defined where the step is. Define or import it "
            "at run time, not only under TYPE_CHECKING."
        )

    def _refuse_unannotated(self, first: inspect.Parameter) -> NoReturn:
        """Refuse what has no annotation, from the first such parameter on."""
        if first.name == "self":
            self._refuse(f"is a function or a static method, and takes no self. Write: {self._line(without={'self'})}")
        parameters = list(inspect.signature(self._fn).parameters.values())
        behind = [p for p in parameters[parameters.index(first) :] if p.kind not in {p.VAR_POSITIONAL, p.VAR_KEYWORD}]
        annotated = [p for p in behind if p.annotation is not _EMPTY]
        has_event = self._event or any(_events_of(self._evaluate(p.name, p.annotation)) for p in annotated)
        annotate: dict[str, str] = {}
        for parameter in behind:
            if parameter.annotation is _EMPTY and parameter.default is _EMPTY:
                kind = "Context" if parameter.name in {"ctx", "context"} else "MyEvent"
                if (has_event and kind == "MyEvent") or kind in annotate.values():
                    kind = "Annotated[T, Resource(make_it)]"
                annotate[parameter.name] = kind
        msg = (
            f"{self._where} has no annotation on parameter {first.name!r}, so nothing says what to pass. Write, for "
            f"example: {self._line(annotate=annotate)}"
        )
        raise UnannotatedError(msg)

    def _refuse_default(self, name: str, kind: str, default: object) -> None:
        if isinstance(default, Resource):
            self._refuse(
                f"has a resource as the default of {name!r}; it belongs in the annotation. Write: "
                f"{name}: Annotated[{kind}, {default!r}]"
            )

    def _refuse_without_event(self, first: inspect.Parameter | None) -> NoReturn:
        if first is not None and first.name != "self":  # it stands where self does, but is probably the event
            line = self._line(annotate={first.name: "MyEvent"}, self_=True)
        else:
            line = self._line(event="MyEvent")
        self._refuse(f"has no event parameter, so nothing can trigger it. Write, for example: {line}")

    def _refuse_returned(self, hint: object, member: object) -> NoReturn:
        """Refuse one type of those that are annotated to be returned."""
        inside = next((a for a in typing.get_args(member) if _events_of(a)), None)
        instead = "StopEvent"
        if inside is not None or member is list:
            instead = f"list[{'MyEvent' if inside is None else type_name(inside)}]"
        line = self._line(returns=" | ".join(instead if m is member else type_name(m) for m in _members(hint)))
        self._refuse(
            f"is annotated to return {type_name(member)}. A step returns an event, a list of events or None; a value "
            "goes into an event: StopEvent(result=...) where the run ends, one of your own elsewhere. Write, for "
            f"example: {line}"
        )

    def _refuse(self, what: str) -> NoReturn:
        raise WorkflowValidationError(f"{self._where} {what}")


def _is_self(parameter: inspect.Parameter) -> bool:
    if parameter.name == "self":
        return True
    return (
        parameter.annotation is _EMPTY and parameter.default is _EMPTY and parameter.kind is not parameter.KEYWORD_ONLY
    )


def _by_position(parameter: inspect.Parameter) -> bool:
    return parameter.kind in {parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD}


def is_event(kind: object) -> bool:
    """Is it a type of event?"""
    return isinstance(kind, type) and issubclass(kind, Event)


def _members(hint: Any) -> list[Any]:
    """The types that an annotation stands for: of a union each, of an alias its value."""
    if type(hint).__name__ == "TypeAliasType":  # typing's, from Python 3.12 on, or that of typing_extensions
        return _members(hint.__value__)
    if typing.get_origin(hint) is typing.Annotated:
        return _members(typing.get_args(hint)[0])
    if typing.get_origin(hint) in {typing.Union, types.UnionType}:
        return [member for argument in typing.get_args(hint) for member in _members(argument)]
    return [hint]


def _alone(hint: object) -> object:
    """The only member of an annotation, None left aside."""
    members = [m for m in _members(hint) if m is not types.NoneType]
    return members[0] if len(members) == 1 else None


def _events_of(hint: object) -> tuple[type[Event], ...]:
    """The event types of an annotation; none where it has another member than those and None."""
    members = [m for m in _members(hint) if m is not types.NoneType]
    return tuple(cast("list[type[Event]]", members)) if all(map(is_event, members)) else ()
