"""Tools: functions that a model may call. The signature is read once, when the tool is made.

What a model is told is the function's name, the docstring's text, and a JSON Schema of the parameters;
their descriptions come from `Annotated[int, "how many"]`, `Annotated[int, Field(description=...)]` or
the docstring. What the model sends is validated against the same types before the function is called.
A parameter annotated `Context`, or as a resource, is injected, and no model is told of it.
"""

from __future__ import annotations

import copy
import inspect
import json
from contextvars import copy_context
from functools import partial, update_wrapper
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from agentflow.errors import WorkflowValidationError, shown
from agentflow.retry import check_policy
from agentflow_llm import ToolDefinition
from agentflow_llm.output import is_strict

from .arguments import Arguments, UndescribableError
from .callee import CALLED, CLASS_METHOD, check_kind, check_seconds, code_of, correction, name_of, parameters_of
from .consent import Consent
from .docstring import read_docstring
from .errors import AgentConfigurationError, ToolError
from .json_arguments import JsonArguments
from .patience import Patience
from .repetition import Repetition
from .slots import Slots

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import TypedDict

    from typing_extensions import Unpack

    from agentflow import Context, Resource
    from agentflow_llm.backoff import Policy

    from .repetition import Noting

    class Options(TypedDict, total=False):
        """The options of a tool, but for its name and description. See `Tool`."""

        timeout: float | None
        retry: Policy | None
        concurrency: int | None
        return_direct: bool
        requires_approval: bool | Callable[..., bool]
        tracebacks: bool
        max_chars: int | None


P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)

LONGEST_RESULT = 100_000
"""Characters of a result, unless the tool says otherwise."""
_THREADS = Slots(256)
"""Calls of plain functions at once: more would only wait for each other. Those that were left behind do not count."""


class Tool(Generic[P, R_co]):
    """A function that a model may call. `tool` makes one; where tools are expected, plain functions are taken as well.

    - `name`: by default the function's.
    - `description`: by default the docstring's text, without its lists of parameters, results and errors.
    - `timeout`: seconds that one call may take, all of its attempts together; None for no limit. A plain function
      runs in a thread, which cannot be stopped: when the time is over it is left behind, and works on. Waiting for
      a turn, for a thread or for a connection is not part of it.
    - `retry`: calls the function again when it fails: `Retry(attempts=3)`, or whatever else a step's `retry_policy`
      may be. A `ToolError`, wrong arguments among them, a cancellation and the end of `timeout` are final.
    - `concurrency`: how many calls go on at once in an event loop, of all agents and runs, and of all objects where
      it is a method; None for no limit. A thread that was left behind counts until it has ended.
    - `return_direct`: what it returns is the agent's answer; the model does not see it first.
    - `requires_approval`: a person is asked before it is called: True, or a function that takes some of the tool's
      own parameters, by their names, and says whether this call needs it.
    - `tracebacks`: the model is told the traceback of an exception, and not its first line alone.
    - `max_chars`: a longer result is cut, and says so; None for no limit.

    Calling the tool calls the function. Raises `AgentConfigurationError`, with the corrected line, where a model
    cannot be told what the function takes, or an option makes no sense.
    """

    def __init__(  # noqa: PLR0913 because these are the options of a tool
        self,
        function: Callable[P, R_co],
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: float | None = None,
        retry: Policy | None = None,
        concurrency: int | None = None,
        return_direct: bool = False,
        requires_approval: bool | Callable[..., bool] = False,
        tracebacks: bool = False,
        max_chars: int | None = LONGEST_RESULT,
    ) -> None:
        if isinstance(function, classmethod):
            raise AgentConfigurationError(CLASS_METHOD)
        if is_tool(function) or not callable(function):
            raise AgentConfigurationError(
                f"Tool({shown(function)}): a tool is made of a function. {correction(function) or CALLED}"
            )
        given: Any = function
        self._function = function
        self._code = code_of(function)
        self.timeout = timeout
        self.retry = retry
        self.concurrency = concurrency
        self.return_direct = return_direct
        self.requires_approval = requires_approval
        self.tracebacks = tracebacks
        self.max_chars = max_chars
        self.keeps_time = False
        """Does it end by itself when the time that a budget leaves is over?"""
        self._check_options(name, description)
        self.name = name_of(function, name)
        self._ready = given.ready if isinstance(given, _Remote) else None
        self._slots = None if concurrency is None else Slots(concurrency)
        check_kind(function, self._code, self.name)
        described = read_docstring(self._code)
        self.description = described.text if description is None else description
        self._is_method = False
        """Was it declared in a class, and is it bound to no object yet?"""
        try:
            if isinstance(given, _Remote):
                self._arguments: Arguments | JsonArguments = given.arguments
            else:
                parameters, self._is_method = parameters_of(function)
                self._arguments = Arguments(parameters, self._code, described.parameters)
            if retry is not None:
                check_policy(retry, f"tool {self.name!r}")
        except UndescribableError as error:
            raise AgentConfigurationError(f"tool {self.name!r}: {error}") from error.__cause__
        except WorkflowValidationError as error:
            raise AgentConfigurationError(str(error).replace("retry_policy=", "retry=")) from None
        self._consent = Consent(self.name, requires_approval, self._arguments.names)
        self._is_async = inspect.iscoroutinefunction(inspect.unwrap(self._code))
        schema = self._arguments.schema
        self.definition = ToolDefinition(
            name=self.name, description=self.description, parameters=schema, strict=is_strict(schema)
        )
        """What a model is told."""
        update_wrapper(self, given, updated=())

    @classmethod
    def of_schema(
        cls,
        name: str,
        description: str,
        parameters: Mapping[str, Any],
        call: Callable[[dict[str, Any]], Awaitable[Any]],
        *,
        ready: Callable[[], Awaitable[object]] | None = None,
        **options: Unpack[Options],
    ) -> Tool[[dict[str, Any]], Awaitable[Any]]:
        """A tool that is no Python function: `call` is awaited with the arguments as one dict.

        `parameters` is the JSON Schema of this object. Only that it is an object, and has what is required, is
        checked before the call; the rest is for the callee to say. `ready` is awaited before each call, such as to
        connect, and is no part of its `timeout`. The options are those of `Tool`.
        """
        if not callable(call):
            raise AgentConfigurationError(
                f"tool {name!r}: call={shown(call)}: it must be an async function of one dict."
            )
        try:
            arguments = JsonArguments(parameters)
        except UndescribableError as error:
            raise AgentConfigurationError(f"tool {name!r}: {error}") from None
        return Tool(_Remote(call, arguments, ready), name=name, description=description, **options)

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

    @property
    def resources(self) -> list[Resource]:
        """The resources that it is injected."""
        return [wanted.resource for wanted in self._arguments.injected.values() if wanted.resource is not None]

    def check_bound(self) -> None:
        """Raise `AgentConfigurationError` for a method that was taken from a class and not from an object."""
        if self._is_method:
            owner, _, method = self._code.__qualname__.rpartition(".")
            owner = owner.rpartition(".")[2] or "MyTools"
            raise AgentConfigurationError(
                f"tool {self.name!r} is a method, and belongs to no object. Write: {owner.lower()} = {owner}() and "
                f"tools=[{owner.lower()}.{method}]"
            )

    def asks_approval(self, arguments: str) -> dict[str, Any] | None:
        """The arguments as JSON has them, where a person is to approve of a call with them; otherwise None.

        None as well where they are wrong: then no call would come of it, and `invoke` says what is wrong.
        A predicate that fails asks for approval.
        """
        if self._consent.never:
            return None
        try:
            found: Any = self._arguments.validate(arguments)
        except ToolError:
            return None
        if not self._consent.asks(self._arguments.values(found)):
            return None
        try:
            return self._arguments.plain(found)
        except Exception:  # noqa: BLE001 because a serializer of the tool's own may raise anything: then as they came
            return json.loads(arguments)  # type: ignore[no-any-return]  # because it is the object that was validated

    def problem_with(self, arguments: str) -> str:
        """What is wrong with these arguments; "" where nothing is."""
        try:
            self._arguments.validate(arguments)
        except ToolError as error:
            return str(error)
        return ""

    async def invoke(
        self,
        arguments: str,
        ctx: Context[Any] | None = None,
        *,
        noting: Noting | None = None,
        within: float | None = None,
    ) -> Any:
        """Validate JSON text that a model wrote, and call the function with it.

        - `ctx`: the context of the step that calls it, for what is injected.
        - `noting`: is told of waits; see `ToolExecution`.
        - `within`: seconds that are left, all waits among them.

        Raises `ToolError` where the arguments are wrong, `TimeoutError` where it takes too long,
        `AgentConfigurationError` where it needs a context and has none, and what the function raises.
        """
        found: Any = self._arguments.validate(arguments)
        if ctx is None and self._arguments.injected:
            self._check_without()
        patience = Patience()
        if within is None:
            return await self._in_turn(found, ctx, noting, patience)
        if within <= 0:
            raise TimeoutError("no time was left for it")
        return await patience.limited(within, self._in_turn(found, ctx, noting, patience))

    async def _in_turn(self, found: Any, ctx: Context[Any] | None, noting: Noting | None, patience: Patience) -> Any:
        own = None if self._slots is None else await self._slots.take(noting)
        try:
            if self._ready is not None:
                await self._ready()
            if self._is_async:
                return await self._in_time(found, ctx, noting, patience)
            threads = await _THREADS.take(noting)
            try:
                return await self._in_time(found, ctx, noting, patience)
            finally:
                threads.release()  # a thread that was left behind takes no other call's place
        finally:
            if own is not None:
                patience.when_over(own.release)

    async def _in_time(self, found: Any, ctx: Context[Any] | None, noting: Noting | None, patience: Patience) -> Any:
        patience.has_begun = True
        if self.timeout is None:
            return await self._attempts(found, ctx, noting, patience)
        return await patience.limited(self.timeout, self._attempts(found, ctx, noting, patience))

    async def _attempts(self, found: Any, ctx: Context[Any] | None, noting: Noting | None, patience: Patience) -> Any:
        if self.retry is None:
            return await self._call(found, ctx, patience)
        return await Repetition(self.retry, patience.due, noting).run(partial(self._call, found, ctx, patience))

    async def _call(self, found: Any, ctx: Context[Any] | None, patience: Patience) -> Any:
        injected = await self._injected(ctx) if self._arguments.injected else None
        args, named = self._arguments.call(found, injected)
        if self._is_async:
            return await self._function(*args, **named)  # type: ignore[misc]  # because it returns a coroutine
        plain = partial(_plainly, partial(self._function, *args, **named))
        value = await patience.in_thread(partial(copy_context().run, plain))
        return await value if inspect.isawaitable(value) else value

    async def _injected(self, ctx: Context[Any] | None) -> dict[str, Any]:
        """What is handed to the function beside what the model sent."""
        made: dict[str, Any] = {}
        for name, wanted in self._arguments.injected.items():
            if ctx is None:
                made[name] = wanted.default
            else:
                made[name] = ctx if wanted.resource is None else await ctx.resource(wanted.resource)
        return made

    def _check_without(self) -> None:
        """Refuse a call without a context where the function needs one."""
        for name, wanted in self._arguments.injected.items():
            if wanted.default is inspect.Parameter.empty:
                what = "the step's context" if wanted.resource is None else f"{wanted.resource!r}"
                raise AgentConfigurationError(
                    f"tool {self.name!r} takes {what} as {name!r}, and was called without a context. In a step, write: "
                    f"await {self.name}.invoke(arguments, ctx), or, of a toolbox: await toolbox.execute(call_id, name, "
                    "arguments, ctx=ctx)"
                )

    def _check_options(self, name: object, description: object) -> None:
        for option, given in (("name", name), ("description", description)):
            if given is not None and not isinstance(given, str):
                raise AgentConfigurationError(f"Tool({option}={shown(given)}): it must be text.")
        for option in ("return_direct", "tracebacks"):
            given = getattr(self, option)
            if not isinstance(given, bool):
                raise AgentConfigurationError(f"Tool({option}={shown(given)}): it must be True or False.")
        check_seconds("Tool", self.timeout)
        for option in ("concurrency", "max_chars"):
            given = getattr(self, option)
            if given is not None and (isinstance(given, bool) or not isinstance(given, int) or given < 1):
                raise AgentConfigurationError(
                    f"Tool({option}={shown(given)}): it must be a whole number from 1 on, or None."
                )


@overload
def tool(function: Callable[P, R_co], /) -> Tool[P, R_co]: ...
@overload
def tool(
    *, name: str | None = None, description: str | None = None, **options: Unpack[Options]
) -> Callable[[Callable[P, R_co]], Tool[P, R_co]]: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    **options: Unpack[Options],
) -> Any:
    """Make a function or method a `Tool`: `@tool`, or `@tool(name="search", timeout=5)`. The options are its."""
    make = partial(Tool[..., Any], name=name, description=description, **options)
    return make if function is None else make(function)


def is_tool(value: object) -> bool:
    """Is it a `Tool` already?"""
    return isinstance(value, Tool)


class _Remote:
    """Something that is called with one dict, of which only the schema is known."""

    def __init__(
        self,
        call: Callable[[dict[str, Any]], Awaitable[Any]],
        arguments: JsonArguments,
        ready: Callable[[], Awaitable[object]] | None,
    ) -> None:
        self._call = call
        self.arguments = arguments
        self.ready = ready

    async def __call__(self, arguments: dict[str, Any]) -> Any:
        return await self._call(arguments)


def _plainly(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (StopIteration, GeneratorExit) as error:  # no future carries the one, and the other would close who waits
        raise RuntimeError(f"the tool raised {type(error).__name__}") from error
