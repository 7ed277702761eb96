"""What an agent and its model say to each other, in which every tool call has exactly one result.

A message of the model that calls tools is *pending* until all results are there, and then enters the
conversation together with them: whenever a run is cancelled, fails or is put away, what stands in the
conversation is whole, and a model can be sent it.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING
from uuid import uuid4

from pydantic import BaseModel, Field

from agentflow_llm import ChatMessage, RefusalPart, Reply, TextPart, ToolCallPart, ToolResultPart

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from agentflow_llm.messages import AnyPart

CANCELLED = "This call was cancelled; it has no result."


class Handoff(BaseModel):
    """The conversation goes on with the colleague `to`, who is told the message."""

    to: str
    message: str = ""


class Conversation(BaseModel):
    """The messages of one run, behind those that were there before it."""

    messages: list[ChatMessage] = Field(default_factory=list[ChatMessage])
    """What the model is sent: the system's message, if there is one, then everything that was said."""
    systems: int = 0
    """How many messages of the system stand in front."""
    before: int = 0
    """How many messages are older than the run."""
    kept: int = 0
    """How many of the messages a memory has."""
    pending: ChatMessage | None = None
    """What the model said last, while its calls have no results."""
    entering: list[ChatMessage] = Field(default_factory=list[ChatMessage])
    """A turn that cannot be made a second time, while a memory is given it."""
    call_ids: set[str] = Field(default_factory=set[str])
    turns: int = 0
    """How often the model was called in this run."""
    corrections: int = 0
    """How often in a row the model was told that what it said cannot be read."""
    repeated: dict[str, int] = Field(default_factory=dict[str, int])
    """How often a call was made with the same arguments, and the same came of it, by a digest of both."""
    handoffs: dict[str, str] = Field(default_factory=dict[str, str])
    """The colleagues to whom this run may hand over, and what each is for."""
    handoff: Handoff | None = None

    def begin(self, query: str, *, system: ChatMessage | None, history: Sequence[ChatMessage] | None) -> None:
        """Begin a run with a question, behind `history`, or, where that is None, behind what was said so far."""
        earlier = repaired(self.messages[self.systems :] if history is None else history)
        front = [] if system is None else [system]
        self.systems = len(front)
        self.before = self.kept = len(front) + len(earlier)
        self.messages = [*front, *earlier, ChatMessage(role="user", content=(TextPart(text=query),))]
        self.call_ids = {call.id for message in earlier for call in message.tool_calls}
        self.pending, self.entering = None, []
        self.turns = self.corrections = 0
        self.repeated, self.handoffs, self.handoff = {}, {}, None

    def hear(self, reply: Reply) -> list[ToolCallPart]:
        """Take up what the model said, as pending; returns its calls, each with an id of its own."""
        self.pending = self._with_own_ids(reply.message)
        self.turns += 1
        self.corrections = 0
        return self.pending.tool_calls

    def correct(self, reply: Reply, message: str) -> None:
        """Take up what cannot be read, and what the model is told of it: a turn that is entering the conversation."""
        self.turns += 1
        self.corrections += 1
        self.entering = [without_calls(reply.message), ChatMessage(role="user", content=(TextPart(text=message),))]

    def arguments_of(self, call_id: str) -> str:
        """What the model wrote as the arguments of a pending call."""
        calls = [] if self.pending is None else self.pending.tool_calls
        return next((call.arguments for call in calls if call.id == call_id), "")

    def times(self, call: ToolCallPart, content: str) -> int:
        """How often, now included, this call was made in this run and the same came of it."""
        key = sha256(f"{call.name}\0{_canonical(call.arguments)}\0{content}".encode(errors="replace")).hexdigest()[:32]
        self.repeated[key] = self.repeated.get(key, 0) + 1
        return self.repeated[key]

    def _with_own_ids(self, message: ChatMessage) -> ChatMessage:
        """The message itself where no id is empty or was there before, as it is with careful servers."""
        ids = [part.id for part in message.content if isinstance(part, ToolCallPart)]
        if all(ids) and len(set(ids)) == len(ids) and self.call_ids.isdisjoint(ids):
            self.call_ids.update(ids)
            return message
        return message.model_copy(update={"content": tuple(map(self._with_own_id, message.content))})

    def _with_own_id(self, part: AnyPart) -> AnyPart:
        if not isinstance(part, ToolCallPart):
            return part
        own = part
        if not part.id or part.id in self.call_ids:
            own = part.model_copy(update={"id": f"call_{uuid4().hex}"})
        self.call_ids.add(own.id)
        return own

    def turn(self, results: Iterable[ToolResultPart]) -> list[ChatMessage]:
        """The pending message and, where it calls tools, one message with their results in the order of the calls.

        Nothing is changed. The ids are the same each time, so that a turn that is made twice is known to be one.
        """
        assert self.pending is not None
        by_id = {result.call_id: result for result in results}
        ordered = tuple(by_id.pop(call.id) for call in self.pending.tool_calls)
        assert not by_id, "each result belongs to a call"
        return [self.pending, _results_of(self.pending, ordered)] if ordered else [self.pending]

    def add(self, turn: Iterable[ChatMessage]) -> None:
        """Let a turn enter the conversation, which the memory has; nothing is pending then."""
        self.messages.extend(turn)
        self.kept = len(self.messages)
        self.pending, self.entering = None, []

    @property
    def said(self) -> str:
        """The text of the model's newest message; where it has none, why the model declines."""
        last = self.pending or next((m for m in reversed(self.messages) if m.role == "assistant"), None)
        return "" if last is None else said(last)


def said(message: ChatMessage) -> str:
    """The text of a message of the model; where it has none, why the model declines."""
    return message.text or "".join(part.text for part in message.content if isinstance(part, RefusalPart))


def without_calls(message: ChatMessage) -> ChatMessage:
    """The message without the calls in it, which nobody will execute."""
    parts = tuple(part for part in message.content if not isinstance(part, ToolCallPart))
    return message.model_copy(update={"content": parts or (TextPart(text=""),)})


def with_own_ids(messages: Iterable[ChatMessage], before: Iterable[ChatMessage] = ()) -> list[ChatMessage]:
    """The messages, where calls have the ids of earlier ones with others in place of them: the same each time.

    `before`: earlier messages; these keep theirs.
    """
    taken = {call.id for message in before for call in message.tool_calls}
    own: list[ChatMessage] = []
    anew: dict[str, str] = {}
    for message in messages:
        calls = message.tool_calls
        if calls:
            anew = {call.id: _other_id(message, call.id) for call in calls if call.id in taken}
            taken.update(anew.get(call.id, call.id) for call in calls)
        own.append(_renamed(message, anew) if anew else message)
    return own


def _other_id(message: ChatMessage, call_id: str) -> str:
    digest = sha256(f"{message.id} {call_id}".encode(errors="replace")).hexdigest()
    return f"call_{digest[:32]}"


def _renamed(message: ChatMessage, anew: Mapping[str, str]) -> ChatMessage:
    parts: list[AnyPart] = []
    for part in message.content:
        own = part
        if isinstance(part, ToolCallPart):
            own = part.model_copy(update={"id": anew.get(part.id, part.id)})
        elif isinstance(part, ToolResultPart):
            own = part.model_copy(update={"call_id": anew.get(part.call_id, part.call_id)})
        parts.append(own)
    return message.model_copy(update={"content": tuple(parts)})


def _canonical(arguments: str) -> str:
    """The same text for the same arguments."""
    try:
        return json.dumps(json.loads(arguments), sort_keys=True)
    except ValueError:
        return arguments


def repaired(messages: Iterable[ChatMessage]) -> list[ChatMessage]:
    """The messages, such that a model can be sent them, whatever a memory lost of them.

    Calls without a result are given a cancelled one, results without a call are left out, and ids are different.
    """
    whole: list[ChatMessage] = []
    calling: ChatMessage | None = None
    answers: list[ChatMessage] = []
    for message in with_own_ids(messages):
        if message.role == "tool":
            answers.append(message)
            continue
        whole.extend(_answers_to(calling, answers))
        answers = []
        whole.append(message)
        calling = message
    whole.extend(_answers_to(calling, answers))
    return whole


def _answers_to(message: ChatMessage | None, answers: list[ChatMessage]) -> list[ChatMessage]:
    """The results behind a message: one for each of its calls, in their order."""
    calls = [] if message is None else message.tool_calls
    if message is None or not calls:
        return []
    answers = [answer for answer in answers if answer.tool_results]
    found = [result for answer in answers for result in answer.tool_results]
    if [result.call_id for result in found] == [call.id for call in calls]:
        return answers
    by_id = {result.call_id: result for result in found}
    missing = {
        call.id: ToolResultPart(call_id=call.id, name=call.name, content=CANCELLED, outcome="cancelled")
        for call in calls
        if call.id not in by_id
    }
    return [_results_of(message, tuple({**by_id, **missing}[call.id] for call in calls))]


def _results_of(message: ChatMessage, results: tuple[ToolResultPart, ...]) -> ChatMessage:
    return ChatMessage(role="tool", content=results, id=f"{message.id}_results")
