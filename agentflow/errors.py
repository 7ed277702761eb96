"""Every error that agentflow raises by itself, and how their messages show values and types.

What a step raises reaches the caller as it is.

```
AgentflowError
├── WorkflowValidationError          a declaration is wrong: signature, graph, resource
│   ├── UnresolvedNameError          an annotation names what is not defined, or not yet
│   ├── UnannotatedError             a parameter of a step says nothing of what to pass
│   └── WorkflowConfigurationError   a whole workflow is wrong: no start, no stop, two starts, unknown override
├── WorkflowRuntimeError             a run was used wrongly, or a step did what it never declared
│   └── WorkflowStalledError         nothing can ever happen in this run again
├── WorkflowTimeoutError             a run, a step or a wait took too long (also a TimeoutError)
├── WorkflowCancelledByUser          raised to whoever awaits a cancelled run
├── StateKeyError                    the state has no such key (also a KeyError and a ValueError)
└── ContextSerdeError                a value cannot be stored, or stored data cannot be read (also a ValueError)
```
"""

from __future__ import annotations

import reprlib
import types
import typing
from typing import Any, cast


class AgentflowError(Exception):
    """The root of all errors of agentflow."""


class WorkflowValidationError(AgentflowError):
    """A step, a graph or a resource is declared wrongly."""


class UnresolvedNameError(WorkflowValidationError):
    """An annotation names what is not defined where it stands, or not yet."""


class UnannotatedError(WorkflowValidationError):
    """A parameter of a step has no annotation, so nothing says what to pass."""


class WorkflowConfigurationError(WorkflowValidationError):
    """A workflow as a whole cannot run as it is set up."""


class WorkflowRuntimeError(AgentflowError):
    """A run was used in a way that cannot work, or a step did what it had not declared."""


class WorkflowStalledError(WorkflowRuntimeError):
    """Nothing of the run can ever go on: the message says what each collector and wait still lacks."""


class WorkflowTimeoutError(AgentflowError, TimeoutError):
    """A run, a step or a wait exceeded its time limit."""


class WorkflowCancelledByUser(AgentflowError):  # noqa: N818 because the name is part of the documented API
    """The run was cancelled."""


class StateKeyError(AgentflowError, KeyError, ValueError):
    """The state of a run has nothing under this key or path."""

    __str__ = Exception.__str__  # KeyError would show the quoted form


class ContextSerdeError(AgentflowError, ValueError):
    """A value of a run cannot be stored, or stored data does not fit the workflow."""


_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 120


def shown(value: object) -> str:
    """A value as a message shows it: its repr, cut where it is long."""
    return _repr.repr(value)


def a(name: str) -> str:
    """A name with its article, by its first letter: `a Question`, `an Answer`."""
    return f"{'an' if name[:1].lower() in {*'aeiou'} else 'a'} {name}"


def type_name(annotation: object) -> str:
    """An annotation as one writes it: `A | None`, `list[A]`, `Annotated[A, Resource(make_a)]`."""
    if isinstance(annotation, str):
        return annotation
    if annotation is None or annotation is types.NoneType:
        return "None"
    arguments: list[object] = list(typing.get_args(annotation))
    origin: Any = typing.get_origin(annotation)
    if origin in {typing.Union, types.UnionType}:
        return " | ".join(map(type_name, arguments))
    if origin is typing.Annotated:
        metadata: tuple[object, ...] = getattr(annotation, "__metadata__", ())
        return f"Annotated[{', '.join([type_name(arguments[0]), *map(repr, metadata)])}]"
    if origin is typing.Literal or not isinstance(origin or annotation, type):
        return str(annotation).replace("typing.", "")
    name: str = getattr(origin or annotation, "__name__", "")
    return f"{name}[{', '.join(map(_argument, arguments))}]" if arguments else name


def _argument(argument: object) -> str:
    if isinstance(argument, list):  # the parameters of a Callable
        return f"[{', '.join(map(type_name, cast('list[object]', argument)))}]"
    return "..." if argument is ... else type_name(argument)
