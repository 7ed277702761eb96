"""Resources: what steps need from outside, made by factories and injected as parameters.

A factory is keyed by the object itself. It is run once under concurrency, in a task of its own, so
that neither the cancellation nor the context of the step that asked first touches it; a generator
factory is torn down in that same task, on every path.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import types
import typing
import warnings
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
)
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal
from weakref import ref

from .errors import UnresolvedNameError, WorkflowRuntimeError, WorkflowValidationError, shown, type_name
from .log import logger
from .observe import Kind, Scope, current_scope, operation

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

Lifetime = Literal["workflow", "run", "step"]
_LENGTH: dict[Lifetime, int] = {"step": 0, "run": 1, "workflow": 2}
_YIELDING = (AsyncGenerator, AsyncIterator, AsyncIterable, Generator, Iterator, Iterable)


@dataclass(frozen=True)
class Resource:
    """Marks a step's parameter as injected: `db: Annotated[Database, Resource(connect)]`.

    `factory` is a function, class, partial, callable object, coroutine function or (async) generator
    function; what follows a generator's `yield` is its teardown. Parameters of the factory may be
    resources themselves.

    `scope` says how long the object lives: "workflow" (as long as the workflow object, per event
    loop; the default), "run" (the default for generators) or "step" (one execution of a step).
    `cache=False` is short for `scope="step"`.

    Raises `WorkflowValidationError` where the factory cannot be called or the options contradict.
    """

    factory: Callable[..., Any]
    cache: bool = True
    scope: Lifetime | None = None

    def __post_init__(self) -> None:
        if not callable(self.factory):
            msg = (
                f"Resource({shown(self.factory)}): a resource is made by a factory, and this cannot be called. Write "
                "Resource(make_it), without calling make_it, or Resource(lambda: value)."
            )
            raise WorkflowValidationError(msg)
        if self.scope is not None and self.scope not in _LENGTH:
            msg = f"Resource(..., scope={self.scope!r}): choose one of {sorted(_LENGTH)}."
            raise WorkflowValidationError(msg)
        if not self.cache and self.scope not in {None, "step"}:
            name = name_of(self.factory)
            msg = (
                f"{self!r}: what is not cached lives for one step. Write Resource({name}, cache=False), or "
                f"Resource({name}, scope={self.scope!r})."
            )
            raise WorkflowValidationError(msg)

    def __repr__(self) -> str:
        options = "" if self.cache else ", cache=False"
        options += "" if self.scope is None else f", scope={self.scope!r}"
        return f"Resource({name_of(self.factory)}{options})"


class Recipe:
    """A compiled resource: how to make it, what it needs, how long it lives."""

    __slots__ = ("factory", "generator", "key", "name", "needs", "positional", "scope")

    def __init__(self, resource: Resource, needs: dict[str, Recipe], positional: tuple[str, ...]) -> None:
        self.factory = resource.factory
        self.key = key_of(resource.factory)
        self.name = name_of(resource.factory)
        self.needs = needs
        self.positional = positional
        """The needs that cannot be given by name."""
        self.generator = _yields(_code_of(resource.factory))
        default: Lifetime = "step" if not resource.cache else "run" if self.generator else "workflow"
        self.scope: Lifetime = resource.scope or default

    def __repr__(self) -> str:
        return f"<Recipe {self.name} for a {self.scope}>"

    async def make(self, resolve: Callable[[Recipe], Awaitable[Any]]) -> tuple[Any, Any]:
        """Call the factory. Returns the object, and the generator to be torn down, or None."""
        named = {name: await resolve(need) for name, need in self.needs.items()}
        first = [named.pop(name) for name in self.positional]
        made = self.factory(*first, **named)
        if inspect.iscoroutine(made):
            made = await made
        if not self.generator:
            if inspect.isgenerator(made) or inspect.isasyncgen(made):
                msg = (
                    f"resource factory {self.name!r} returned a generator, which would never be torn down. Pass the "
                    "generator function itself: Resource(open_it), or Resource(functools.partial(open_it, ...))."
                )
                raise WorkflowRuntimeError(msg)
            return made, None
        try:
            value = await anext(made) if inspect.isasyncgen(made) else next(made)
        except (StopIteration, StopAsyncIteration):
            msg = f"resource factory {self.name!r} is a generator that yields nothing. Write: yield the_resource"
            raise WorkflowRuntimeError(msg) from None
        return value, made

    async def tear_down(self, generator: Any) -> None:
        """Let the generator of an object run to its end."""
        try:
            if inspect.isasyncgen(generator):
                await anext(generator)
                await generator.aclose()
            else:
                next(generator)
                generator.close()
        except (StopIteration, StopAsyncIteration):
            return
        msg = f"resource factory {self.name!r} yields more than once. Write one yield, then the teardown."
        raise WorkflowRuntimeError(msg)


class _Maker:
    """One object on its way or alive: the task that makes it and, for a generator, tears it down."""

    __slots__ = ("closing", "made", "name", "task")

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self.name = name
        self.made: asyncio.Future[Any] = loop.create_future()
        self.closing: asyncio.Future[None] = loop.create_future()
        self.task: asyncio.Task[None]


_held: set[asyncio.Task[Any]] = set()
"""What holds the resources of workflows, to its end: an event loop holds tasks only weakly."""
_counting_loops = Lock()


class Pool:
    """The objects of one lifetime: each made once, torn down in the reverse order of their making."""

    __slots__ = ("_makers", "values")

    def __init__(self) -> None:
        self.values: dict[Hashable, Any] = {}
        self._makers: dict[Hashable, _Maker] = {}
        """Who is to be waited for when the pool is closed, in the order in which they were done."""

    async def get(self, recipe: Recipe, resolve: Callable[[Recipe], Awaitable[Any]]) -> Any:
        """The object of `recipe`, made now if it has not been."""
        if recipe.key in self.values:
            return self.values[recipe.key]
        maker = self._makers.get(recipe.key)
        if maker is None:
            loop = asyncio.get_running_loop()
            maker = self._makers[recipe.key] = _Maker(recipe.name, loop)
            maker.task = loop.create_task(self._live(recipe, resolve, maker))
            if recipe.scope == "workflow":
                _held.add(maker.task)
                maker.task.add_done_callback(_held.discard)
        return await asyncio.shield(maker.made)

    async def _live(self, recipe: Recipe, resolve: Callable[[Recipe], Awaitable[Any]], maker: _Maker) -> None:
        if recipe.scope == "workflow":
            _leave_run()
        try:
            with operation(Kind.RESOURCE, recipe.name, recipe):
                value, generator = await recipe.make(resolve)
        except GeneratorExit:  # thrown away with its event loop, where nobody can be told
            raise
        except BaseException as error:
            self._forget(recipe, maker)
            if isinstance(error, asyncio.CancelledError):
                maker.made.cancel()
                raise
            error.add_note(f"agentflow: in resource factory {recipe.name!r}")
            maker.made.set_exception(error)
            maker.made.exception()  # whoever asked may be gone; then it is no unhandled error
            if not isinstance(error, Exception):
                raise
            return
        del resolve  # it leads to the run that asked first
        self._forget(recipe, maker)
        if not maker.closing.done():
            self.values[recipe.key] = value
            if generator is not None:
                self._makers[recipe.key] = maker  # behind those that it needs
        maker.made.set_result(value)
        if generator is None:
            return
        try:
            await maker.closing
        finally:
            # nothing can be awaited where it is thrown away with its event loop
            if not (inspect.isasyncgen(generator) and maker.closing.get_loop().is_closed()):
                await recipe.tear_down(generator)

    def _forget(self, recipe: Recipe, maker: _Maker) -> None:
        if self._makers.get(recipe.key) is maker:  # the pool may have been closed, and be in use again
            del self._makers[recipe.key]

    @property
    def needs_closing(self) -> bool:
        """Is anything open or still being made?"""
        return bool(self._makers)

    async def close(self) -> list[BaseException]:
        """Tear everything down; returns what went wrong."""
        errors: list[BaseException] = []
        self.values.clear()
        while self._makers:
            unfinished = next((key for key, maker in self._makers.items() if not maker.made.done()), None)
            maker = self._makers.popitem()[1] if unfinished is None else self._makers.pop(unfinished)
            if not maker.closing.done():
                maker.closing.set_result(None)
            if not maker.made.done():
                maker.task.cancel()
            await asyncio.wait([maker.task])
            if not maker.task.cancelled() and (error := maker.task.exception()) is not None:
                errors.append(error)
        return errors

    def left_behind(self) -> None:
        """Nobody can close it any more: close it, where its event loop still goes on, and warn."""
        makers = [maker for maker in self._makers.values() if not maker.task.done()]
        if not makers:
            return
        loop = makers[0].closing.get_loop()
        if loop.is_closed():
            for maker in makers:
                task: Any = maker.task
                task._log_destroy_pending = False  # as asyncio does where it says it in better words
                _held.discard(task)
        else:
            loop.call_soon_threadsafe(self._close_soon)
        names = ", ".join(repr(maker.name) for maker in makers)
        msg = f"a workflow is gone, and nobody had closed its resources: {names}. Write: async with flow:"
        warnings.warn(msg, ResourceWarning, stacklevel=3)

    def _close_soon(self) -> None:
        closing = asyncio.get_running_loop().create_task(self.close())
        _held.add(closing)
        closing.add_done_callback(_report)


def _report(closing: asyncio.Task[list[BaseException]]) -> None:
    """Say how a pool was closed that nobody closed."""
    _held.discard(closing)
    for error in () if closing.cancelled() else closing.result():
        logger().warning("the teardown of a resource failed", where="a workflow that is gone", exc_info=error)


class Pools:
    """The objects that live as long as a workflow: a pool for each event loop."""

    __slots__ = ("_by_loop",)

    def __init__(self) -> None:
        self._by_loop: list[tuple[ref[asyncio.AbstractEventLoop], Pool]] = []
        """Few, and no weak dictionary: that is empty already when it goes with the workflow."""

    def __del__(self) -> None:
        if not sys.is_finalizing():
            for _, pool in self._by_loop:
                pool.left_behind()

    def here(self) -> Pool:
        """That of the running event loop."""
        loop = asyncio.get_running_loop()
        for known, pool in self._by_loop:
            if known() is loop:
                return pool
        # what is in a pool may hold on to its loop
        made = Pool()
        with _counting_loops:  # others may be counted at the same time, in their threads
            alive = [(at, pool) for at, pool in self._by_loop if (other := at()) is not None and not other.is_closed()]
            self._by_loop = [*alive, (ref(loop), made)]
        return made


def _leave_run() -> None:
    """What is made for a whole workflow is no part of the run that asked first, though seen in its step."""
    scope = current_scope.get()
    if scope is not None:
        current_scope.set(Scope(None, scope.watch, scope.ref, scope.run_id, scope.workflow))


def key_of(factory: Callable[..., Any]) -> Hashable:
    """What a factory is known by: itself, or its identity where it has no hash."""
    try:
        hash(factory)
    except TypeError:
        return id(factory)
    return factory


def name_of(factory: Callable[..., Any]) -> str:
    """A name for messages and traces."""
    while isinstance(factory, partial):
        factory = factory.func
    name: str = getattr(factory, "__qualname__", type(factory).__qualname__)
    return name.rpartition("<locals>.")[2]


def marker_of(hint: object) -> Resource | None:
    """The `Resource` in an annotation, also in `Annotated[T, Resource(f)] | None`."""
    if typing.get_origin(hint) in {typing.Union, types.UnionType}:
        return next((m for a in typing.get_args(hint) if (m := marker_of(a)) is not None), None)
    return next((m for m in getattr(hint, "__metadata__", ()) if isinstance(m, Resource)), None)


def compile_recipe(
    resource: Resource,
    where: str,
    known: dict[Hashable, Recipe],
    path: tuple[Callable[..., Any], ...] = (),
    names: Mapping[str, Any] | None = None,
) -> Recipe:
    """Look at a factory's signature once: what it needs, and that it can be called.

    `names` are the local names around the step, for annotations that are strings.
    """
    factory = resource.factory
    key = (key_of(factory), resource.cache, resource.scope)
    if key in known:
        return known[key]
    name = name_of(factory)
    if factory in path:
        cycle = " -> ".join(name_of(f) for f in (*path[path.index(factory) :], factory))
        msg = f"{where}: resources need each other in a circle: {cycle}. One of them must do without."
        raise WorkflowValidationError(msg)
    needs: dict[str, Recipe] = {}
    positional: tuple[str, ...] = ()
    for parameter in _parameters(factory):
        inner = marker_of(_hint(factory, parameter.name, parameter.annotation, where, names))
        if inner is not None:
            needs[parameter.name] = compile_recipe(inner, where, known, (*path, factory), names)
            positional += (parameter.name,) if parameter.kind is parameter.POSITIONAL_ONLY else ()
        elif parameter.default is parameter.empty:
            msg = (
                f"{where}: resource factory {name!r} needs {parameter.name!r}, which nothing provides. Give it a "
                f"default, make it a resource ({parameter.name}: Annotated[T, Resource(make_it)]), or bind it: "
                f"Resource(functools.partial({name}, {parameter.name}=...))."
            )
            raise WorkflowValidationError(msg)
    recipe = known[key] = Recipe(resource, needs, positional)
    for need in needs.values():
        check_lifetime(recipe, need, where)
    return recipe


def check_lifetime(recipe: Recipe, need: Recipe, where: str) -> None:
    """Refuse a resource that lives longer than one that it needs."""
    if _LENGTH[need.scope] < _LENGTH[recipe.scope]:
        msg = (
            f"{where}: resource {recipe.name!r} lives as long as the {recipe.scope} but needs {need.name!r}, which "
            f'lives as long as the {need.scope}. Write Resource({recipe.name}, scope="{need.scope}"), or '
            f'Resource({need.name}, scope="{recipe.scope}").'
        )
        raise WorkflowValidationError(msg)


def check_type(resource: Resource, declared: object, where: str, parameter: str, names: Mapping[str, Any]) -> None:
    """Refuse a factory whose annotated return type cannot be what the parameter declares."""
    name, made = name_of(resource.factory), _made_type(resource.factory, where, names)
    wanted, given = _classes(declared), _classes(made)
    if not wanted or not given or any(_fits(g, w) for g in given for w in wanted):
        return
    msg = (
        f"{where}: {parameter!r} is declared as {type_name(declared)}, but its factory {name!r} returns "
        f"{type_name(made)}. Write {parameter}: Annotated[{type_name(made)}, {resource!r}], or correct the factory."
    )
    raise WorkflowValidationError(msg)


class _Holder:
    """Something with annotations, which is all that `typing.get_type_hints` looks at."""

    def __init__(self, annotations: dict[str, Any]) -> None:
        self.__annotations__ = annotations


def evaluate(annotation: object, function: object, names: Mapping[str, Any] | None) -> Any:
    """What an annotation of `function` means; raises what evaluating it raises, such as `NameError`."""
    if annotation is None:
        return type(None)
    module = getattr(inspect.unwrap(function) if callable(function) else function, "__globals__", {})
    holder = _Holder({"it": annotation})
    return typing.get_type_hints(holder, globalns=module, localns=dict(names or {}), include_extras=True)["it"]


def _hint(factory: Any, name: str, annotation: object, where: str, names: Mapping[str, Any] | None) -> Any:
    if annotation is inspect.Parameter.empty:
        return None
    code = _code_of(factory)
    try:
        return evaluate(annotation, getattr(code, "__init__", None) if isinstance(code, type) else code, names)
    except NameError as error:
        if "Resource" not in str(annotation):
            return None
        msg = (
            f"{where}: in resource factory {name_of(factory)!r}, the annotation of {name!r}, {annotation!r}, names "
            f"{error.name!r}, which is not defined where the factory is. Define or import it at run time, at the top "
            "of its module."
        )
        raise UnresolvedNameError(msg) from None
    except (TypeError, AttributeError, SyntaxError):  # it says something to somebody else
        return None


def _made_type(factory: Any, where: str, names: Mapping[str, Any]) -> object:
    code = _code_of(factory)
    if isinstance(code, type):
        return code
    annotation = getattr(code, "__annotations__", {}).get("return", inspect.Parameter.empty)
    made = _hint(factory, "return", annotation, where, names)
    holders: tuple[object, ...] = _YIELDING if _yields(code) else (Awaitable, Coroutine)
    origin: Any = typing.get_origin(made)
    if (origin or made) in holders:
        position = -1 if origin in {Awaitable, Coroutine} else 0
        return typing.get_args(made)[position] if origin is not None and typing.get_args(made) else None
    return made


def _code_of(factory: Any) -> Any:
    """The function, or the class, behind a factory."""
    while isinstance(factory, partial):
        factory = factory.func
    if isinstance(factory, type) or inspect.isroutine(factory):
        return factory
    return type(factory).__call__


def _yields(code: object) -> bool:
    return inspect.isgeneratorfunction(code) or inspect.isasyncgenfunction(code)


def _parameters(factory: Any) -> list[inspect.Parameter]:
    """What may be passed to a factory by its name."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # some builtins have no signature: they are called without arguments
        return []
    bound = factory.keywords if isinstance(factory, partial) else ()
    return [p for p in parameters if p.name not in bound and p.kind not in {p.VAR_POSITIONAL, p.VAR_KEYWORD}]


def _classes(annotation: object) -> list[type]:
    """The classes of an annotation; none where one of its members says too little to judge by it."""
    origin: Any = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _classes(typing.get_args(annotation)[0])
    if origin in {typing.Union, types.UnionType}:
        members = [_classes(a) for a in typing.get_args(annotation) if a is not type(None)]
        return [c for m in members for c in m] if all(members) else []
    kind: Any = origin or annotation
    return [kind] if isinstance(kind, type) and not _is_vague(kind) else []


def _is_vague(kind: object) -> bool:
    return kind is object or kind is Any or typing.is_typeddict(kind) or getattr(kind, "_is_protocol", False)


def _fits(given: type, wanted: type) -> bool:
    # a factory annotated with a base class may well return the subclass that is asked for
    try:
        return issubclass(given, wanted) or issubclass(wanted, given) or (given is int and wanted in {float, complex})
    except TypeError:  # a class that cannot be asked
        return True
