"""Who belongs to a team, who begins, and who may hand over to whom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from agentflow.errors import shown

from .agent import Agent
from .errors import AgentConfigurationError
from .handover import tool_name


class Roster:
    """The members of a team, by name. The options are those of `Team`. Raises `AgentConfigurationError`."""

    def __init__(self, agents: object, first: object, handoffs: object) -> None:
        self.agents = _by_name(agents)
        self.first = next(iter(self.agents)) if first is None else self._named(first)
        everyone = {name: [other for other in self.agents if other != name] for name in self.agents}
        self.routes = everyone if handoffs is None else self._checked(_listed(handoffs))
        """By name, to whom each may hand over."""
        for to in self.routes.values():
            for name in to:
                self._check_description(self.agents[name])

    def colleagues(self, name: str) -> dict[str, str]:
        """To whom an agent may hand over, and what each is for."""
        return {to: self.agents[to].description for to in self.routes[name]}

    def _named(self, first: object) -> str:
        for name, agent in self.agents.items():
            if first is agent or first == name:
                return name
        raise AgentConfigurationError(f"Team(first={shown(first)}): there is no such agent. {self._there_are()}")

    def _checked(self, given: dict[str, list[str]]) -> dict[str, list[str]]:
        for name, to in given.items():
            unknown = next((each for each in (name, *to) if each not in self.agents), None)
            if unknown is not None:
                raise AgentConfigurationError(
                    f"Team(handoffs=...) names {unknown!r}, and there is no such agent. {self._there_are()}"
                )
            if name in to:
                raise AgentConfigurationError(f"Team(handoffs=...) lets {name!r} hand over to itself. Leave that out.")
            if to and not self.agents[name].hands_over:
                raise AgentConfigurationError(
                    f"Team(handoffs=...) lets {name!r} hand over, and a {type(self.agents[name]).__name__} cannot: it "
                    "calls no tools. Leave it out there; others may hand over to it."
                )
        return {name: given.get(name, []) for name in self.agents}

    def _check_description(self, agent: Agent[Any]) -> None:
        if not agent.description:
            raise AgentConfigurationError(
                f"{agent.name!r} has no description, so the others cannot know when to hand over to it. Write "
                f'{type(agent).__name__}(..., name={agent.name!r}, description="Answers questions about invoices.").'
            )

    def _there_are(self) -> str:
        return f"There are {', '.join(map(repr, self.agents))}."


def _by_name(agents: object) -> dict[str, Agent[Any]]:
    given = _items(agents)
    if not given or not all(isinstance(agent, Agent) for agent in given):
        wrong = next((agent for agent in given or () if not isinstance(agent, Agent)), agents)
        raise AgentConfigurationError(
            f"Team({shown(wrong)}): it takes a list of agents. Write Team([triage, billing])."
        )
    found: dict[str, Agent[Any]] = {}
    for agent in cast("list[Agent[Any]]", given):
        twin = next((name for name in found if tool_name(name) == tool_name(agent.name)), None)
        if twin is not None:
            raise AgentConfigurationError(
                f"two agents are called {twin!r} and {agent.name!r}, which models cannot tell apart. Name one of them "
                f'anew: {type(agent).__name__}(..., name="{tool_name(agent.name)}_2").'
            )
        found[agent.name] = agent
    return found


def _listed(handoffs: object) -> dict[str, list[str]]:
    routes = {name: _items(to) for name, to in _entries(handoffs).items()}
    if not isinstance(handoffs, Mapping) or None in routes.values():
        raise AgentConfigurationError(
            'Team(handoffs=...): by name, it lists who may come next. Write handoffs={"triage": ["billing"]}.'
        )
    return cast("dict[str, list[str]]", routes)


def _entries(given: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", given) if isinstance(given, Mapping) else {}


def _items(given: object) -> list[object] | None:
    """What is in a list, or in anything else that is gone through; None for text, and for what is no such thing."""
    if not isinstance(given, Iterable) or isinstance(given, str):
        return None
    return list(cast("Iterable[object]", given))
