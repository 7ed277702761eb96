"""Which calls of a tool a person has to approve of."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from agentflow.errors import shown
from agentflow.log import logger

from .errors import AgentConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class Consent:
    """The option `requires_approval` of a tool that takes these parameters.

    Raises `AgentConfigurationError` for what is neither a bool nor a plain function of some of them.
    """

    def __init__(self, tool: str, asks: object, parameters: Sequence[str]) -> None:
        self._tool = tool
        self._predicate: Callable[..., Any] | None = None
        self._takes: Sequence[str] = ()
        self.never = asks is False
        """Is nobody ever asked?"""
        if callable(asks):
            self._predicate = asks
            self._takes = self._checked(asks, parameters)
        elif not isinstance(asks, bool):
            raise AgentConfigurationError(
                f"tool {tool!r} has requires_approval={shown(asks)}: it must be True, False, or a function that takes "
                "some of the tool's parameters by their names and says whether a call with them needs it."
            )

    def asks(self, arguments: Mapping[str, Any]) -> bool:
        """Is a person asked of a call with these arguments? A predicate that fails asks."""
        if self._predicate is None:
            return not self.never
        try:
            return bool(self._predicate(**{name: arguments[name] for name in self._takes if name in arguments}))
        except Exception as error:  # noqa: BLE001 because it must not let the call through, nor end the run
            logger().warning("requires_approval failed, so a person is asked", tool=self._tool, error=repr(error))
            return True

    def _checked(self, predicate: Callable[..., Any], parameters: Sequence[str]) -> Sequence[str]:
        """What of a tool's parameters the predicate is given."""
        line = f"requires_approval=lambda {', '.join(parameters[:1])}: ..."
        if inspect.iscoroutinefunction(predicate):
            raise AgentConfigurationError(
                f"tool {self._tool!r} has a requires_approval that is async. It must be a plain function: {line}"
            )
        taken: list[str] = []
        for parameter in inspect.signature(predicate).parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                return parameters
            if parameter.name in parameters and parameter.kind is not parameter.POSITIONAL_ONLY:
                taken.append(parameter.name)
            elif parameter.default is parameter.empty:
                there = ", ".join(map(repr, parameters)) or "none"
                raise AgentConfigurationError(
                    f"tool {self._tool!r} has a requires_approval that takes {parameter.name!r}, which no argument of "
                    f"the tool is called. There are: {there}. Write {line}, or requires_approval=True."
                )
        return taken
