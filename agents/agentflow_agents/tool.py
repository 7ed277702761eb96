"""Tools: functions that a model may call. The signature is read once, when the tool is made.

What a model is told is the function's name, the docstring's text, and a JSON Schema of the parameters;
their descriptions come from `Annotated[int, "how many"]`, `Annotated[int, Field(description=...)]` or
the docstring. What the model sends is validated against the same types before the function is called.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import re
from contextvars import copy_context
from functools import partial, update_wrapper
from typing import TYPE_CHECKING, Any, Generic, NoReturn, ParamSpec, TypeVar, overload

from agentflow.clock import current_clock
from agentflow.errors import shown
from agentflow_llm import ToolDefinition

from .arguments import Arguments, UndescribableError
from .docstring import read_docstring
from .errors import AgentConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""What servers accept."""


class Tool(Generic[P, R_co]):
    """A function that a model may call. `tool` makes one; where tools are expected, plain functions are taken as well.

    - `name`: by default the function's.
    - `description`: by default the docstring's text, without its lists of parameters, results and errors.
    - `timeout`: seconds that one call may take; None for no limit. A plain function runs in a thread, which cannot
      be stopped: when the time is over it is left behind.

    Calling the tool calls the function. Raises `AgentConfigurationError`, with the corrected line, where a model
    cannot be told what the function takes.
    """

    def __init__(
        self,
        function: Callable[P, R_co],
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: float | None = None,
    ) -> None:
        if is_tool(function) or not callable(function):
            raise AgentConfigurationError(
                f"Tool({shown(function)}): a tool is made of a function. Write Tool(search), without calling it."
            )
        if timeout is not None and not timeout > 0:
            raise AgentConfigurationError(f"Tool(timeout={timeout!r}): it is a positive number of seconds, or None.")
        self._function = function
        self._code = _code_of(function)
        self.name = self._named(name)
        self.timeout = timeout
        self._check_kind()
        bound = _names_bound(function)
        parameters = [p for p in inspect.signature(function).parameters.values() if p.name not in bound]
        self._is_method = bool(parameters) and parameters[0].name == "self" and not _is_annotated(parameters[0])
        """Was it declared in a class, and is it bound to no object yet?"""
        if self._is_method:
            del parameters[0]
        described = read_docstring(self._code)
        try:
            self._arguments = Arguments(parameters, self._code, described.parameters)
        except UndescribableError as error:
            raise AgentConfigurationError(f"tool {self.name!r}: {error}") from error.__cause__
        self._is_async = inspect.iscoroutinefunction(inspect.unwrap(self._code))
        self.description = described.text if description is None else description
        self.definition = ToolDefinition(
            name=self.name, description=self.description, parameters=self._arguments.schema
        )
        """What a model is told."""
        update_wrapper(self, function, updated=())

    def __repr__(self) -> str:
        return f"<Tool {self.name}({self._arguments})>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the function, as if it were no tool."""
        return self._function(*args, **kwargs)

    def __get__(self, holder: object, owner: type | None = None) -> Tool[..., R_co]:
        if holder is None or not self._is_method:
            return self
        method: Any = self._function
        bound = copy.copy(self)
        vars(bound).update(_function=method.__get__(holder), _is_method=False)
        return bound

    @property
    def parameters(self) -> dict[str, Any]:
        """The JSON Schema of the object that it takes."""
        return self.definition.parameters

    @property
    def signature(self) -> str:
        """What it takes, in one line: `query: string, limit: integer = 5`."""
        return str(self._arguments)

    def check_bound(self) -> None:
        """Raise `AgentConfigurationError` for a method that was taken from a class and not from an object."""
        if self._is_method:
            owner, _, method = self._code.__qualname__.rpartition(".")
            owner = owner.rpartition(".")[2] or "MyTools"
            raise AgentConfigurationError(
                f"tool {self.name!r} is a method, and belongs to no object. Write: {owner.lower()} = {owner}() and "
                f"tools=[{owner.lower()}.{method}]"
            )

    async def invoke(self, arguments: str) -> Any:
        """Validate JSON text that a model wrote, and call the function with it.

        Raises `ToolError` where the arguments are wrong, `TimeoutError` where it takes too long, and what the
        function raises.
        """
        args, named = self._arguments.read(arguments)
        if self.timeout is None:
            return await self._call(args, named)
        limit = current_clock().timeout(self.timeout)
        try:
            async with limit:
                return await self._call(args, named, limit)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise TimeoutError(f"it did not end within {self.timeout:g} s") from error

    async def _call(self, args: list[Any], named: dict[str, Any], limit: asyncio.Timeout | None = None) -> Any:
        if self._is_async:
            return await self._function(*args, **named)  # type: ignore[misc]  # because it returns a coroutine
        plain = partial(_plainly, partial(self._function, *args, **named))
        future = asyncio.get_running_loop().run_in_executor(None, partial(copy_context().run, plain))
        try:
            value = await asyncio.shield(future)
        except asyncio.CancelledError:
            # no thread can be interrupted: cancelling waits for it, as for a plain step; a time-out leaves it behind
            if limit is None or not limit.expired():
                await asyncio.wait([future])
            future.add_done_callback(_heard)
            raise
        return await value if inspect.isawaitable(value) else value

    def _named(self, name: str | None) -> str:
        inner: Any = self._function
        while isinstance(inner, partial):
            inner = inner.func
        found = str(name or getattr(inner, "__name__", ""))
        if found == "<lambda>":
            raise AgentConfigurationError(
                "a lambda cannot be a tool: it has no name and no types. Write: def search(query: str) -> str: ..."
            )
        if not _NAME.fullmatch(found):
            raise AgentConfigurationError(
                f"{found!r} is no name for a tool: a model calls it by 1 to 64 letters a-z, digits, _ and -. Write "
                'Tool(function, name="search").'
            )
        return found

    def _check_kind(self) -> None:
        if self._code.__name__ == "<lambda>":
            self._refuse(f"is a lambda, which has no annotations. Write: def {self.name}(query: str) -> str: ...")
        if isinstance(self._function, type):
            self._refuse(f"is a class. Write a function: def {self.name.lower()}(...) -> {self.name}: ...")
        inner = inspect.unwrap(self._code)
        if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
            self._refuse("yields. A tool returns one value: return [...]")

    def _refuse(self, what: str) -> NoReturn:
        raise AgentConfigurationError(f"tool {self.name!r} {what}")


@overload
def tool(function: Callable[P, R_co], /) -> Tool[P, R_co]: ...
@overload
def tool(
    *, name: str | None = None, description: str | None = None, timeout: float | None = None
) -> Callable[[Callable[P, R_co]], Tool[P, R_co]]: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = None,
) -> Any:
    """Make a function or method a `Tool`: `@tool`, or `@tool(name="search", timeout=5)`. See `Tool`."""
    make = partial(Tool[..., Any], name=name, description=description, timeout=timeout)
    return make if function is None else make(function)


def is_tool(value: object) -> bool:
    """Is it a `Tool` already?"""
    return isinstance(value, Tool)


def _names_bound(function: object) -> set[str]:
    """The parameters that a partial has filled: no model is told of them."""
    return set(function.keywords) if isinstance(function, partial) else set()


def _code_of(function: Any) -> Any:
    """The function behind a tool's: of a partial, of a callable object."""
    while isinstance(function, partial):
        function = function.func
    return function if isinstance(function, type) or inspect.isroutine(function) else type(function).__call__


def _is_annotated(parameter: inspect.Parameter) -> bool:
    return parameter.annotation is not parameter.empty


def _plainly(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except StopIteration as error:  # no future can carry it
        raise RuntimeError("the tool raised StopIteration") from error


def _heard(future: asyncio.Future[Any]) -> None:
    """Nobody waits for it any more; its error is no news."""
    if not future.cancelled():
        future.exception()
