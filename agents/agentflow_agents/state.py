"""What a run of an agent knows: the conversation, what it has spent, and whom it waits for."""

from __future__ import annotations

from typing import Any, cast

from pydantic import BaseModel, Field

from agentflow import Context  # noqa: TC001 because a subclass's annotations may be read when they run

from .budget import Spending
from .children import Child
from .conversation import Conversation
from .events import ApprovalRequired


class AgentState(BaseModel, extra="allow"):
    """The state of a run. Tools and steps may keep more in it; a subclass of the agent may derive one with types."""

    conversation: Conversation = Field(default_factory=Conversation)
    spending: Spending = Field(default_factory=Spending)
    children: dict[str, Child] = Field(default_factory=dict[str, Child])
    """By the id of a call, the agents that it called and that wait for a person."""
    asked: dict[str, ApprovalRequired] = Field(default_factory=dict[str, ApprovalRequired])
    """By the id of a call, what a person was asked and has not answered."""

    def waiting(self) -> list[ApprovalRequired]:
        """All that a person was asked and has not answered, by the children, too."""
        return [*self.asked.values(), *(asked for child in self.children.values() for asked in child.asked.values())]


def state_of(ctx: Context[Any]) -> AgentState:
    """The state of a run itself, no copy."""
    return cast("AgentState", ctx.store.peek())
