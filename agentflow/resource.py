"""Resources: what steps need from outside, made by factories and injected as parameters.

A factory is keyed by the object itself. It is run once under concurrency, in a task of its own, so
that neither the cancellation nor the context of the step that asked first touches it; a generator
factory is torn down in that same task, on every path.
"""

from __future__ import annotations

import asyncio
import inspect
import types
import typing
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from .errors import WorkflowRuntimeError, WorkflowValidationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

Scope = Literal["workflow", "run", "step"]
_LIFETIME: dict[Scope, int] = {"step": 0, "run": 1, "workflow": 2}
_ITERATORS = (AsyncGenerator, AsyncIterator, AsyncIterable, Generator, Iterator, Iterable)


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
    scope: Scope | None = None

    def __post_init__(self) -> None:
        if not callable(self.factory):
            msg = (
                f"Resource({self.factory!r}): a resource is made by a factory, and this cannot be called. "
                "Write Resource(lambda: value), or override it with Workflow(resources={factory: value})."
            )
            raise WorkflowValidationError(msg)
        if self.scope is not None and self.scope not in _LIFETIME:
            msg = f"Resource(scope={self.scope!r}): choose one of {sorted(_LIFETIME)}."
            raise WorkflowValidationError(msg)
        if not self.cache and self.scope not in {None, "step"}:
            msg = f"Resource(cache=False, scope={self.scope!r}): an object that is not cached lives for one step. Drop one."
            raise WorkflowValidationError(msg)


class Recipe:
    """A compiled resource: how to make it, what it needs, how long it lives."""

    __slots__ = ("factory", "generator", "key", "name", "needs", "scope")

    def __init__(self, resource: Resource, needs: dict[str, Recipe]) -> None:
        self.factory = resource.factory
        self.key = key_of(resource.factory)
        self.name = name_of(resource.factory)
        self.needs = needs
        code = _code_of(resource.factory)
        self.generator = inspect.isgeneratorfunction(code) or inspect.isasyncgenfunction(code)
        self.scope: Scope = resource.scope or ("step" if not resource.cache else "run" if self.generator else "workflow")

    async def make(self, resolve: Callable[[Recipe], Awaitable[Any]]) -> tuple[Any, Any]:
        """Call the factory. Returns the object, and the generator to be torn down, or None."""
        arguments = {name: await resolve(need) for name, need in self.needs.items()}
        made = self.factory(**arguments)
        if not self.generator:
            return (await made if inspect.isawaitable(made) and _is_async(self.factory) else made), None
        try:
            value = await anext(made) if inspect.isasyncgen(made) else next(made)
        except (StopIteration, StopAsyncIteration):
            msg = f"resource factory {self.name!r} is a generator that yields nothing. Write: yield the_resource"
            raise WorkflowRuntimeError(msg) from None
        return value, made


class _Maker:
    """One object on its way or alive: the task that makes it and, for a generator, tears it down."""

    __slots__ = ("closing", "made", "task")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.made: asyncio.Future[Any] = loop.create_future()
        self.closing: asyncio.Future[None] = loop.create_future()
        self.task: asyncio.Task[None]


class Pool:
    """The objects of one lifetime: each made once, torn down in the reverse order of their making."""

    __slots__ = ("_makers", "values")

    def __init__(self) -> None:
        self.values: dict[Hashable, Any] = {}
        self._makers: dict[Hashable, _Maker] = {}

    async def get(self, recipe: Recipe, resolve: Callable[[Recipe], Awaitable[Any]]) -> Any:
        """The object of `recipe`, made now if it has not been."""
        if recipe.key in self.values:
            return self.values[recipe.key]
        maker = self._makers.get(recipe.key)
        if maker is None:
            loop = asyncio.get_running_loop()
            maker = self._makers[recipe.key] = _Maker(loop)
            maker.task = loop.create_task(self._live(recipe, resolve, maker))
        return await asyncio.shield(maker.made)

    async def _live(self, recipe: Recipe, resolve: Callable[[Recipe], Awaitable[Any]], maker: _Maker) -> None:
        try:
            value, generator = await recipe.make(resolve)
        except BaseException as error:
            self._makers.pop(recipe.key, None)
            if isinstance(error, asyncio.CancelledError):
                maker.made.cancel()
            elif not maker.made.done():
                maker.made.set_exception(error)
                maker.made.exception()  # whoever asked may be gone; then it is no unhandled error
            if not isinstance(error, Exception):
                raise
            return
        self.values[recipe.key] = value
        if not maker.made.done():
            maker.made.set_result(value)
        if generator is None:
            self._makers.pop(recipe.key, None)
            return
        try:
            await maker.closing
        finally:
            await _tear_down(recipe, generator)

    @property
    def needs_closing(self) -> bool:
        """Is anything open or still being made?"""
        return bool(self._makers)

    async def close(self) -> list[BaseException]:
        """Tear everything down; returns what went wrong."""
        errors: list[BaseException] = []
        while self._makers:
            _, maker = self._makers.popitem()
            if maker.made.done() and not maker.closing.done():
                maker.closing.set_result(None)
            else:
                maker.task.cancel()
            await asyncio.wait([maker.task])
            if not maker.task.cancelled() and (error := maker.task.exception()) is not None:
                errors.append(error)
        self.values.clear()
        return errors


async def _tear_down(recipe: Recipe, generator: Any) -> None:
    try:
        if inspect.isasyncgen(generator):
            await anext(generator)
        else:
            next(generator)
    except (StopIteration, StopAsyncIteration):
        return
    msg = f"resource factory {recipe.name!r} yields more than once. Write one yield, then the teardown."
    raise WorkflowRuntimeError(msg)


def key_of(factory: Callable[..., Any]) -> Hashable:
    """What a factory is known by: itself, or its identity where it has no hash."""
    try:
        hash(factory)
    except TypeError:
        return id(factory)
    return factory


def name_of(factory: Callable[..., Any]) -> str:
    """A name for messages."""
    return getattr(_code_of(factory), "__qualname__", None) or type(factory).__qualname__


def compile_recipe(resource: Resource, where: str, known: dict[Hashable, Recipe], path: tuple[Any, ...] = ()) -> Recipe:
    """Look at a factory's signature once: what it needs, and that it can be called."""
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
    hints = _hints(factory)
    for parameter in _parameters(factory):
        inner = next((m for m in getattr(hints.get(parameter.name), "__metadata__", ()) if isinstance(m, Resource)), None)
        if inner is not None:
            needs[parameter.name] = compile_recipe(inner, where, known, (*path, factory))
        elif parameter.default is parameter.empty and parameter.kind not in {
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        }:
            msg = (
                f"{where}: resource factory {name!r} needs {parameter.name!r}, which nothing provides. Give it a default, "
                f"make it a resource ({parameter.name}: Annotated[T, Resource(make_it)]), or bind it with a lambda."
            )
            raise WorkflowValidationError(msg)
    recipe = known[key] = Recipe(resource, needs)
    for need in needs.values():
        if _LIFETIME[need.scope] < _LIFETIME[recipe.scope]:
            msg = (
                f"{where}: resource {name!r} lives as long as the {recipe.scope} but needs {need.name!r}, which lives as "
                f'long as the {need.scope}. Write Resource({name}, scope="{need.scope}").'
            )
            raise WorkflowValidationError(msg)
    return recipe


def check_type(resource: Resource, declared: object, where: str, parameter: str) -> None:
    """Refuse a factory whose annotated return type cannot be what the parameter declares."""
    made = _made_type(resource.factory)
    wanted = [t for t in (_plain(a) for a in _members(declared)) if t is not None]
    given = [t for t in (_plain(a) for a in _members(made)) if t is not None]
    if len(wanted) != len(_members(declared)) or len(given) != len(_members(made)) or not wanted or not given:
        return
    if any(_fits(g, w) for g in given for w in wanted):
        return
    name = name_of(resource.factory)
    msg = (
        f"{where}: {parameter!r} is declared as {_type_name(declared)}, but its factory {name!r} returns "
        f"{_type_name(made)}. Write {parameter}: Annotated[{_type_name(made)}, Resource({name})], or correct the factory."
    )
    raise WorkflowValidationError(msg)


def _code_of(factory: Any) -> Any:
    """The function, or the class, behind a factory."""
    while isinstance(factory, partial):
        factory = factory.func
    if isinstance(factory, type) or inspect.isroutine(factory):
        return factory
    return type(factory).__call__


def _is_async(factory: Any) -> bool:
    return inspect.iscoroutinefunction(_code_of(factory))


def _parameters(factory: Any) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(factory).parameters.values())
    except (TypeError, ValueError):  # some builtins have no signature: they are called without arguments
        return []


def _hints(factory: Any) -> dict[str, Any]:
    code = _code_of(factory)
    try:
        return typing.get_type_hints(code.__init__ if isinstance(code, type) else code, include_extras=True)
    except (NameError, TypeError, AttributeError):  # names that exist only for type checkers say nothing here
        return dict(getattr(code, "__annotations__", {}))


def _made_type(factory: Any) -> object:
    code = _code_of(factory)
    if isinstance(code, type):
        return code
    made = _hints(factory).get("return")
    generator = inspect.isgeneratorfunction(code) or inspect.isasyncgenfunction(code)
    if generator and typing.get_origin(made) in _ITERATORS:
        made = typing.get_args(made)[0]
    return made


def _members(annotation: object) -> list[object]:
    if typing.get_origin(annotation) is typing.Annotated:
        return _members(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in {typing.Union, types.UnionType}:
        return [m for a in typing.get_args(annotation) if a is not type(None) for m in _members(a)]
    return [annotation]


def _plain(annotation: object) -> type | None:
    """The class behind an annotation, or None where a class says too little to judge."""
    origin = typing.get_origin(annotation) or annotation
    if not isinstance(origin, type) or origin is object or getattr(origin, "_is_protocol", False):
        return None
    return origin


def _fits(given: type, wanted: type) -> bool:
    # a factory annotated with a base class may well return the subclass that is asked for
    return issubclass(given, wanted) or issubclass(wanted, given)


def _type_name(annotation: object) -> str:
    return getattr(annotation, "__qualname__", None) or str(annotation)
