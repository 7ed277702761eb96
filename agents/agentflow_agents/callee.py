"""The function behind a tool: what it is called, where its code stands, what of it a model fills in."""

from __future__ import annotations

import inspect
import re
from functools import partial
from typing import Any

from agentflow.errors import shown

from .errors import AgentConfigurationError

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""What servers accept."""
CLASS_METHOD = (
    "@tool does not go with @classmethod. Leave @tool out and make a tool of the method that the class has: "
    "tools=[Desk.wave], or tools=[Tool(Desk.wave, timeout=5)]"
)
CALLED = "Write Tool(search), without calling it."


def correction(given: object) -> str:
    """What to write in place of the tools of a server that were not asked for; "" for anything else.

    A coroutine is closed: nobody will await it, and Python would warn of that.
    """
    asked = inspect.iscoroutine(given) and given.__name__ == "tools"
    if inspect.iscoroutine(given):
        given.close()
    if asked or (not isinstance(given, type) and inspect.iscoroutinefunction(getattr(given, "tools", None))):
        return "Write tools=await store.tools(), or tools=[*await store.tools(), search]."
    return ""


def check_seconds(what: str, timeout: object) -> None:
    """Refuse what is no number of seconds for the option `timeout`. Raises `AgentConfigurationError`."""
    if timeout is None:
        return
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
        raise AgentConfigurationError(
            f"{what}(timeout={shown(timeout)}): it must be a positive number of seconds, or None."
        )


def name_of(function: object, given: str | None) -> str:
    """What a tool is called: as given, or as its function. Raises `AgentConfigurationError` where servers refuse it."""
    inner: Any = function
    while isinstance(inner, partial):
        inner = inner.func
    found = str(given or getattr(inner, "__name__", ""))
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


def code_of(function: Any) -> Any:
    """The function behind a tool's: of a partial, of a callable object."""
    while isinstance(function, partial):
        function = function.func
    return function if isinstance(function, type) or inspect.isroutine(function) else type(function).__call__


def check_kind(function: object, code: Any, name: str) -> None:
    """Refuse what can be called and is no tool all the same. Raises `AgentConfigurationError`."""
    inner = inspect.unwrap(code)
    if code.__name__ == "<lambda>":
        what = f"is a lambda, which has no annotations. Write: def {name}(query: str) -> str: ..."
    elif isinstance(function, type):
        what = f"is a class. Write a function: def {name.lower()}(...) -> {name}: ..."
    elif inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        what = "yields. A tool returns one value: return [...]"
    else:
        return
    raise AgentConfigurationError(f"tool {name!r} {what}")


def parameters_of(function: Any) -> tuple[list[inspect.Parameter], bool]:
    """What it takes, without what is bound already; and whether it is a method that is bound to no object yet.

    Raises `AgentConfigurationError` for a class method that is bound to no class.
    """
    held: object = function
    bound = set(held.keywords) if isinstance(held, partial) else set[str]()
    found = [p for p in inspect.signature(function).parameters.values() if p.name not in bound]
    first = found[0].name if found and found[0].annotation is inspect.Parameter.empty else ""
    if first == "cls":
        raise AgentConfigurationError(CLASS_METHOD)
    return (found[1:], True) if first == "self" else (found, False)
