"""The events of agents: what they are asked, what flows between their steps, what one sees of it, what comes of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Generic, Literal

from pydantic import Field
from typing_extensions import TypeVar

from agentflow import Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent
from agentflow_llm import ChatMessage, ToolResultPart, Usage
from agentflow_llm.messages import ToolOutcome  # noqa: TC001 because pydantic reads it when the class is made

from .conversation import Handoff, said

Limit = Literal["turns", "tokens", "cost", "seconds", "tool_calls", "hops"]
"""What a budget may bound."""
StoppedBy = Literal["answer", "tool", "handoff", "turns", "tokens", "cost", "seconds", "tool_calls", "hops"]
if TYPE_CHECKING:
    OutputT = TypeVar("OutputT", default=str)
else:
    OutputT = TypeVar("OutputT", default=Any)  # pydantic would validate by it


class AgentInput(StartEvent):
    """What an agent is asked.

    - `history`: what was said before, where the caller keeps the conversation; the agent's memory is not asked then.
    - `handoffs`: colleagues to whom the agent may hand the conversation over: by name, what each is for.
    """

    query: str
    history: list[ChatMessage] | None = None
    handoffs: dict[str, str] = Field(default_factory=dict[str, str])


class Turn(Event):
    """It is the model's turn; `number` counts from 1."""

    number: int


class TextDelta(Event):
    """A piece of what the model says. Shown on the stream.

    It comes in pieces where somebody follows the stream when the model begins to answer; else it is all of it.
    """

    text: str
    agent: str = ""


class Thought(Event):
    """A piece of what the model thinks, never of what it answers. Shown on the stream, likewise."""

    text: str
    agent: str = ""


class Withdrawn(Event):
    """What the agent has said in this turn is not its answer: it says it anew. Shown on the stream."""

    agent: str = ""


class ToolCall(Event):
    """The model asks for a tool. Shown on the stream.

    - `arguments`: JSON text as the model wrote it, or a person who approved the call.
    """

    call_id: str
    name: str
    arguments: str
    agent: str = ""
    approved: bool = False
    """A person has let it go on."""


class ToolResult(Event):
    """What the model is told of the call `call_id`. Shown on the stream."""

    call_id: str
    name: str
    content: str
    outcome: ToolOutcome = "ok"
    agent: str = ""

    def part(self) -> ToolResultPart:
        """The same, as a part of a message."""
        return ToolResultPart(call_id=self.call_id, name=self.name, content=self.content, outcome=self.outcome)


class Approval(HumanResponseEvent):
    """The answer to `ApprovalRequired`: whether the call may go on, with which arguments, or why not."""

    call_id: str
    approved: bool
    arguments: dict[str, Any] | None = None
    """In place of the model's; None for those."""
    reason: str = ""
    """Told to the model where the call is refused."""


class ApprovalRequired(InputRequiredEvent):
    """A person must say whether `tool` may be called with `arguments`. Shown on the stream.

    Send the answer to the run: `handler.ctx.send_event(event.approve())`.
    """

    call_id: str
    tool: str
    arguments: dict[str, Any]
    agent: str = ""
    problem: str = ""
    """What is wrong with the arguments with which the call was approved: it is asked for once more."""

    def approve(self, arguments: dict[str, Any] | None = None) -> Approval:
        """The call may go on; with `arguments`, these take the place of the model's."""
        return Approval(call_id=self.call_id, approved=True, arguments=arguments)

    def refuse(self, reason: str = "") -> Approval:
        """The call may not go on; the model is told the reason."""
        return Approval(call_id=self.call_id, approved=False, reason=reason)


class Finished(Event):
    """The model has said its last word in this run, or a limit was reached."""

    stopped_by: StoppedBy


class AgentResult(StopEvent, Generic[OutputT]):
    """What an agent answered; `str()` of it is the text.

    - `output`: the answer: a text, or an object of the class that the agent was given as `output=`. None where that
      class was asked for, and a limit or a handoff ended the run before there was one.
    - `messages`: those of this run, from the question to the answer.
    - `usage`: of all model calls of this run, those of agents that it called as tools among them.
    - `stopped_by`: "answer"; "tool" for the result of a tool with `return_direct`; "handoff"; or the limit of the
      budget that was hit: then the last calls have results that say that they were skipped.
    """

    output: OutputT | None
    messages: list[ChatMessage]
    usage: Usage
    stopped_by: StoppedBy
    handoff: Handoff | None = None
    """To whom the agent handed the conversation over."""

    def __class_getitem__(cls, kind: object) -> Any:
        # the parameter is for type checkers: a step that returns an AgentResult[City] returns an AgentResult
        return cls

    def __str__(self) -> str:
        if isinstance(self.output, str):
            return self.output
        return next((said(m) for m in reversed(self.messages) if m.role == "assistant"), "")


def arguments_text(arguments: dict[str, Any]) -> str:
    """Arguments as the JSON text that tools take."""
    return json.dumps(arguments, ensure_ascii=False)
