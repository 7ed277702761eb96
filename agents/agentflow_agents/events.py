"""The events of agents: what they are asked, what flows between their steps, and what comes of it."""

from __future__ import annotations

from typing import Literal

from agentflow import Event, StartEvent, StopEvent
from agentflow_llm import ChatMessage, ToolResultPart, Usage
from agentflow_llm.messages import ToolOutcome  # noqa: TC001 because pydantic reads it when the class is made

StoppedBy = Literal["answer", "max_turns"]


class AgentInput(StartEvent):
    """What an agent is asked."""

    query: str


class Turn(Event):
    """It is the model's turn; `number` counts from 1."""

    number: int


class ToolCall(Event):
    """The model asks for a tool. `arguments` is JSON text as the model wrote it. Shown on the stream."""

    id: str
    name: str
    arguments: str


class ToolResult(Event):
    """What the model is told of the call `call_id`. Shown on the stream."""

    call_id: str
    name: str
    content: str
    outcome: ToolOutcome = "ok"

    def part(self) -> ToolResultPart:
        """The same, as a part of a message."""
        return ToolResultPart(call_id=self.call_id, name=self.name, content=self.content, outcome=self.outcome)


class Finished(Event):
    """The model has said its last word in this run."""

    stopped_by: StoppedBy


class AgentResult(StopEvent):
    """What an agent answered; `str()` of it is the text.

    - `output`: the answer. After "max_turns", what the model said beside its last calls, often nothing.
    - `messages`: those of this run, from the question to the answer.
    - `usage`: of all model calls of this run.
    - `stopped_by`: "answer", or "max_turns": then the last calls have results that say that they were skipped.
    """

    output: str
    messages: list[ChatMessage]
    usage: Usage
    stopped_by: StoppedBy

    def __str__(self) -> str:
        return self.output
