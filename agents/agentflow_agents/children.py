"""Agents that are run by other agents: as a tool, or when the conversation was handed over to them.

What a child asks a person, its parent asks. While it waits, nothing of it is running: it is put away in its parent's
state, and goes on with the answer, in this process or another, without doing again what it had done.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from agentflow import AgentflowError, Context
from agentflow.log import logger

from .errors import AgentConfigurationError
from .events import AgentResult, Approval, ApprovalRequired, ToolCall

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable

    from agentflow import Handler, InputRequiredEvent, Workflow

    Agents = Workflow[Any, AgentResult[Any]]


class Child(BaseModel):
    """A run that was put away while it waits for a person. It is part of its parent's state."""

    stored: dict[str, Any]
    """What `ctx.to_dict()` gave."""
    questions: dict[str, str] = Field(default_factory=dict[str, str])
    """By the id under which the parent asked, the child's own: the questions that nobody has answered."""
    asked: dict[str, ApprovalRequired] = Field(default_factory=dict[str, ApprovalRequired])
    """The same, as the parent asked them."""
    answers: list[Approval] = Field(default_factory=list[Approval])
    """What came since it was put away."""
    called: bool = False
    """Somebody is bringing it the answers."""
    call: ToolCall | None = None
    """Where it is a tool, the call that it answers."""


@dataclass
class Paused:
    """A child was put away; these are the questions that are new."""

    child: Child
    questions: list[ApprovalRequired] = field(default_factory=list[ApprovalRequired])


async def run_child(
    agent: Agents,
    child: Child | None,
    start: Callable[[], Handler[AgentResult[Any]]],
    place: str,
    taken: Callable[[], Collection[str]] = tuple,
) -> AgentResult[Any] | Paused:
    """Run an agent until it has a result, or until nothing of it goes on before a person answers.

    - `child`: where it goes on; None for a new run, which `start` starts.
    - `place`: what the parent puts before the child's ids of calls, which are not its own.
    - `taken`: ids that the parent uses already.

    Raises what ended the child, and `AgentConfigurationError` where it waits for what no approval will bring.
    """
    handler = start() if child is None else agent.run(ctx=Context.from_dict(agent, child.stored))
    asked: list[InputRequiredEvent] = []
    brought = 0
    while True:
        for answer in () if child is None else child.answers[brought:]:
            handler.ctx.send_event(answer)
            brought += 1
        asked += await handler.until_asked()
        if handler.is_done():
            return handler.result()
        if child is None or len(child.answers) == brought:
            break
    # from here on nothing is awaited: whoever stores the parent finds the child at work, or waiting
    questions = [question for question in asked if isinstance(question, ApprovalRequired)]
    try:
        if len(questions) < len(asked) or not (questions or (child is not None and child.questions)):
            raise AgentConfigurationError(_waits_for_nobody(agent, asked))
        stored = handler.put_away()
    except AgentflowError:
        await handler.cancel_run()
        raise
    whole = Child(stored=stored) if child is None else child.model_copy(update={"stored": stored, "answers": []})
    whole.called = False
    used = taken()
    new: list[ApprovalRequired] = []
    for question in questions:
        name = f"{place}/{question.call_id}"
        while name in whole.questions or name in used:
            name += "'"  # ids are the models' to choose
        whole.questions[name] = question.call_id
        whole.asked[name] = question.model_copy(update={"call_id": name})
        new.append(whole.asked[name])
    return Paused(whole, new)


def answered(child: Child, approval: Approval) -> bool:
    """Keep an answer for the child whose question it is. True: somebody is to bring it."""
    own = child.questions.pop(approval.call_id)
    child.asked.pop(approval.call_id, None)
    child.answers.append(approval.model_copy(update={"call_id": own}))
    called, child.called = child.called, True
    return not called


def warn_of(approval: Approval, waiting: Iterable[str]) -> None:
    """Nobody waits for this answer."""
    names = ", ".join(map(repr, waiting)) or "none"
    logger().warning(
        f"an Approval of {approval.call_id!r} was ignored: that call does not wait for one. Waiting: {names}"
    )


def asking(children: dict[str, Child], call_id: str) -> str | None:
    """The key of the child that asked the question with this id, if one did."""
    return next((key for key, child in children.items() if call_id in child.questions), None)


class Place:
    """A call of a tool, which may be an agent: whose child this is then."""

    def __init__(self, children: dict[str, Child], call: ToolCall, call_ids: Collection[str]) -> None:
        self.call = call
        self.paused: Paused | None = None
        self._children = children
        self._call_ids = call_ids

    @contextmanager
    def here(self) -> Generator[None]:
        """The call is made inside."""
        token = _place.set(self)
        try:
            yield
        finally:
            with suppress(ValueError):  # it may be thrown away with its event loop, in another context
                _place.reset(token)
        if self.paused is None:
            self._children.pop(self.call.call_id, None)

    async def run(self, agent: Agents, query: str) -> AgentResult[Any] | None:
        """The result of the agent; None where it was put away."""
        child = self._children.get(self.call.call_id)
        outcome = await run_child(agent, child, lambda: agent.run(query=query), self.call.call_id, self._taken)
        if not isinstance(outcome, Paused):
            return outcome
        outcome.child.call = self.call
        self._children[self.call.call_id] = outcome.child
        self.paused = outcome
        return None

    def _taken(self) -> set[str]:
        return {*self._call_ids, *(name for child in self._children.values() for name in child.questions)}


_place: ContextVar[Place | None] = ContextVar("agentflow_agents.place", default=None)


async def run_as_tool(agent: Agents, tool: str, query: str) -> AgentResult[Any] | None:
    """Run an agent that `tool` is made of. None: it was put away, and whoever called the tool knows."""
    place = _place.get()
    token = _place.set(None)  # what the agent calls is not called here
    try:
        if place is None or place.call.name != tool:
            return await agent.run(query=query)
        return await place.run(agent, query)
    finally:
        with suppress(ValueError):  # as above
            _place.reset(token)


def _waits_for_nobody(agent: Agents, asked: list[InputRequiredEvent]) -> str:
    kinds = ", ".join(sorted({type(question).__name__ for question in asked}))
    asks = f"asks by {kinds}" if kinds else "asks nothing"
    return (
        f"{agent.name!r} is run by another agent and waits for a person, but {asks}. What can be answered through "
        "another agent is an ApprovalRequired."
    )
