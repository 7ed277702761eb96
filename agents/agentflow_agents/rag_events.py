"""What flows between the steps of an agent for documents, and what comes of it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from agentflow import Event
from agentflow_llm import Passage

from .citations import Citation
from .events import AgentResult, OutputT
from .state import AgentState


class Search(Event):
    """The documents are searched for `query`; `number` counts from 1. Shown on the stream."""

    query: str
    number: int


class Found(Event):
    """Passages that were found."""

    passages: list[Passage]


class Ranked(Event):
    """The passages that the model is shown, the best first. Shown on the stream."""

    passages: list[Passage]


class NotFound(Event):
    """Nothing that was found holds the answer."""


class Draft(Event):
    """What the model answers; `refused`: it declines to."""

    text: str
    refused: bool = False


class Repair(Event):
    """The model is told what is wrong with its answer. Shown on the stream, as `Withdrawn` is."""

    draft: str
    problems: list[str]


class RAGResult(AgentResult[OutputT]):
    """What was answered from documents.

    - `found`: whether the documents hold the answer. If not, `output` is the agent's sentence for that.
    - `citations`: those in the answer, each checked; one that does not hold has `holds=False`.
    - `passages`: those that the model was shown last. Citation [1] is of the first.
    - `queries`: what was searched for.
    """

    found: bool
    citations: list[Citation]
    passages: list[Passage]
    queries: list[str]


class Query(BaseModel):
    """What to search for, as the model is asked for it."""

    query: str = Field(description="The question or query, and nothing else.")


class Inquiry(BaseModel):
    """How far a question has come."""

    question: str = ""
    """It as it can be understood alone."""
    queries: list[str] = Field(default_factory=list[str])
    """What was searched for."""
    passages: list[Passage] = Field(default_factory=list[Passage])
    """Those that the model was shown last."""
    repaired: bool = False
    """Whether it is told now what was wrong with its answer."""
    answer: str = ""
    citations: list[Citation] = Field(default_factory=list[Citation])
    outcome: Literal["", "found", "not_found", "refused"] = ""
    told: str = ""
    """What the stream has of the answer, and was not withdrawn."""

    def show(self, passages: list[Passage]) -> None:
        """The model is shown these now: what it said of others counts no more."""
        self.passages = passages
        self.answer, self.citations, self.outcome = "", [], ""


class RAGState(AgentState):
    """The state of a run."""

    inquiry: Inquiry = Field(default_factory=Inquiry)
