"""The tools of an agent, and what a model is told of each call: always exactly one result."""

from __future__ import annotations

import asyncio
import inspect
import json
import traceback
from collections.abc import Iterable
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from pydantic import TypeAdapter, ValidationError

from agentflow.errors import shown
from agentflow.observe import Kind, operation
from agentflow_llm import ToolResultPart
from agentflow_llm.loose import well_formed

from .callee import correction
from .errors import AgentConfigurationError, ToolError
from .records import Suspended, ToolExecution
from .tool import Tool, is_tool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agentflow import Context, Resource
    from agentflow_llm import ToolDefinition
    from agentflow_llm.messages import ToolOutcome

_LONGEST = 300
_FAILURES = (Exception, asyncio.CancelledError, SystemExit, GeneratorExit)
"""What a tool's code may raise without ending the program."""
_JSON = TypeAdapter(object).serializer
_NO_TEXT = "invalid utf-8"
"""What pydantic says of bytes that are no text."""


class Toolbox:
    """Tools by name. Plain functions are made tools.

    Raises `AgentConfigurationError` for what cannot be a tool, and for two of one name.
    """

    # a list of functions with different signatures is to mypy no list of callables
    def __init__(self, tools: Iterable[object] = ()) -> None:
        self._tools: dict[str, Tool[..., Any]] = {}
        if callable(tools) or isinstance(tools, str) or not isinstance(tools, Iterable):
            line = correction(tools) or "Write tools=[search, calculate]."
            raise AgentConfigurationError(f"tools={shown(tools)}: it must be a list. {line}")
        for given in tools:
            found = cast("Tool[..., Any]", given) if is_tool(given) else Tool(cast("Callable[..., Any]", given))
            found.check_bound()
            if found.name in self._tools:
                raise AgentConfigurationError(
                    f"two tools are called {found.name!r}, and a model calls them by name. Name one of them anew: "
                    f'Tool(function, name="{found.name}_2")'
                )
            self._tools[found.name] = found
        self.definitions: list[ToolDefinition] = [found.definition for found in self._tools.values()]
        """What a model is told of them."""

    def __repr__(self) -> str:
        return f"<Toolbox: {', '.join(self._tools) or 'empty'}>"

    def __len__(self) -> int:
        return len(self._tools)

    def __iter__(self) -> Iterator[Tool[..., Any]]:
        return iter(self._tools.values())

    @property
    def resources(self) -> list[Resource]:
        """What the tools are injected: a workflow that calls them has these in its `asks_for`."""
        return [resource for tool in self for resource in tool.resources]

    def find(self, name: str) -> Tool[..., Any] | None:
        """The tool of this name, or None."""
        return self._tools.get(name)

    def asks_approval(self, name: str, arguments: str) -> dict[str, Any] | None:
        """The arguments as JSON has them, where a person is to approve of the call; otherwise None.

        None as well where there is no such tool or the arguments are wrong: `execute` then says so.
        """
        tool = self._tools.get(name)
        return None if tool is None else tool.asks_approval(arguments)

    def problem_with(self, name: str, arguments: str) -> str:
        """What is wrong with these arguments; "" where nothing is."""
        tool = self._tools.get(name)
        return "" if tool is None else tool.problem_with(arguments)

    async def execute(
        self,
        call_id: str,
        name: str,
        arguments: str,
        *,
        ctx: Context[Any] | None = None,
        within: float | None = None,
    ) -> ToolResultPart:
        """Call the tool `name` with JSON text. Whatever goes wrong becomes the result; only a cancellation is raised.

        - `ctx`: the context of the step that calls it, for tools that are injected something.
        - `within`: seconds that are left for it; None for no limit but the tool's own.

        It is a tool operation, which ends with the error where there was one. Where the tool was `Suspended`, so is
        that, and what is returned stands for no result.
        """
        tool = self._tools.get(name)
        described = "" if tool is None else tool.description
        execution = ToolExecution(call_id, described, arguments, known=tool is not None)
        result: ToolResultPart | None = None
        try:
            with operation(Kind.TOOL, name, execution) as seen:
                try:
                    noting = None if seen is None else seen.note
                    value = await self._known(tool, name).invoke(arguments, ctx, noting=noting, within=within)
                    if isinstance(value, Suspended):
                        if seen is not None:
                            seen.op.outcome = "suspended"
                        return ToolResultPart(call_id=call_id, name=name, content="")
                    content = _cut(_text_of(value), tool)
                    result = ToolResultPart(call_id=call_id, name=name, content=content)
                except _FAILURES as error:
                    if _is_asked_for(error):
                        raise
                    outcome, told = _told(error, tool)
                    content = _cut(well_formed(told), tool)
                    result = ToolResultPart(call_id=call_id, name=name, content=content, outcome=outcome)
                    raise
                finally:
                    if seen is not None:
                        seen.op.result = result
        except _FAILURES:
            # whoever looks on has seen the error; the run goes on, and the model is told
            if result is None:
                raise
        assert result is not None
        return result

    def _known(self, tool: Tool[..., Any] | None, name: str) -> Tool[..., Any]:
        if tool is not None:
            return tool
        if not self._tools:
            raise ToolError(f"There is no tool {shown(name)}, nor any other. Answer without tools.")
        near = get_close_matches(name, self._tools, n=1)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        raise ToolError(f"There is no tool {shown(name)}.{meant} There are: {', '.join(map(repr, self._tools))}")


def _is_asked_for(error: BaseException) -> bool:
    """Is it the cancellation of the run, and not one that the tool made by itself?"""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # the run is thrown away with its event loop
        return True
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def _told(error: BaseException, tool: Tool[..., Any] | None) -> tuple[ToolOutcome, str]:
    """What a model is told of an error: a traceback only where the tool says so."""
    if isinstance(error, ToolError):
        return "error", str(error)
    if isinstance(error, asyncio.CancelledError):
        return "cancelled", "The tool was cancelled before it had a result."
    outcome: ToolOutcome = "timeout" if isinstance(error, TimeoutError) else "error"
    if tool is not None and tool.tracebacks:
        return outcome, f"The tool failed.\n{_traceback_of(error)}"
    text = f"The tool failed: {_briefly(error)}"
    return outcome, text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _briefly(error: BaseException) -> str:
    """The class and first line of an error; of a group, those of its members."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(map(_briefly, cast("BaseExceptionGroup[BaseException]", error).exceptions))
    if isinstance(error, ValidationError):  # its first line only counts them
        told = [f"{'.'.join(map(str, one['loc'])) or 'it'}: {one['msg']}" for one in error.errors(include_url=False)]
        return f"{type(error).__name__} of {error.title}: {'; '.join(told)}"
    said = next(iter(_said(error).splitlines()), "")
    kind = type(error).__name__
    return f"{kind}: {said}" if said else kind


def _traceback_of(error: BaseException) -> str:
    """The traceback of what a tool raised, from its own code on."""
    ours = is_tool.__code__.co_filename
    frames, found = error.__traceback__, None
    while frames is not None:
        if frames.tb_frame.f_code.co_filename == ours:
            found = frames.tb_next
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, found, chain=found is not None)).strip()


def _cut(text: str, tool: Tool[..., Any] | None) -> str:
    """The text, cut where it is longer than the tool's results may be."""
    most = None if tool is None else tool.max_chars
    if most is None or len(text) <= most:
        return text
    return f"{text[:most]}\n... (cut: {len(text) - most:,} more characters. Ask for less at once.)"


def _said(error: BaseException) -> str:
    try:
        return str(error).strip()
    except Exception as second:  # noqa: BLE001 because an error that cannot be shown is one of the tool's as well
        return f"its text cannot be shown: {type(second).__name__}"


def _text_of(value: Any) -> str:
    """What a tool returned, as a model reads it: text as it is, all else as JSON."""
    if isinstance(value, str):
        return well_formed(value)
    strange: list[object] = []

    def plainer(inner: object) -> object:
        listed = getattr(inner, "tolist", None)
        if listed is not None and hasattr(inner, "__array__"):
            return listed()  # numbers and arrays of numpy, and of others that are like it
        if type(inner).__str__ is not object.__str__:
            return str(inner)
        strange.append(inner)
        raise TypeError

    try:
        return _json_of(value, plainer)
    except (TypeError, ValueError) as error:
        if strange:
            raise ToolError(_cannot_be_told(strange[0])) from error
        if _NO_TEXT in str(error):
            raise ToolError(_cannot_be_told(value if isinstance(value, bytes | bytearray) else b"")) from error
        raise


def _json_of(value: object, fallback: Callable[[Any], object]) -> str:
    try:
        return _JSON.to_json(value, fallback=fallback).decode()
    except ValueError as error:  # pydantic's, whatever was raised inside
        if "surrogates not allowed" not in str(error):
            raise
    plain = partial(_JSON.to_python, mode="json", fallback=fallback)
    return well_formed(json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=plain))


def _cannot_be_told(value: object) -> str:
    """What is wrong with a tool that returned, or put into what it returned, this value."""
    kind = type(value).__name__
    if inspect.iscoroutine(value):
        value.close()  # nobody will await it, and Python would warn of that
        return f"The tool is broken: its result has type {kind}. Its code must return await {value.__qualname__}(...)."
    return (
        f"The tool is broken: its result has type {kind}, which JSON has not. Its code must return text, numbers, "
        "lists, dicts, dataclasses or pydantic models."
    )
