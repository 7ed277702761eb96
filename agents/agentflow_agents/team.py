"""Several agents of which one speaks at a time, and hands the conversation over to another.

```text
AgentInput ─► begin ─► AgentTurn ─► speak ─┬─► AgentTurn
                                           ├─► ApprovalRequired ··· Approval ─► decide ─► AgentTurn
                                           └─► Spoken ─► conclude ─► AgentResult
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

from pydantic import BaseModel, Field

from agentflow import Context, Event, step
from agentflow.codec import Codec
from agentflow.errors import shown
from agentflow_llm import ChatMessage, Memory, ToolResultPart, Usage

from .agent import Agent
from .budget import Accounts, Spending
from .children import Child, Paused, answered, run_child, warn_of
from .conversation import repaired, with_own_ids
from .errors import AgentConfigurationError, BudgetExceededError
from .events import (
    AgentInput,  # noqa: TC001 because the steps' annotations are read when they run
    AgentResult,  # noqa: TC001 because the steps' annotations are read when they run
    Approval,  # noqa: TC001 because the steps' annotations are read when they run
    ApprovalRequired,  # noqa: TC001 because the steps' annotations are read when they run
)
from .handover import tool_name
from .options import MEANT, AgentOptions, check_names
from .resources import Remembered  # noqa: TC001 because the steps' annotations are read when they run
from .roster import Roster

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from typing_extensions import Unpack

    from agentflow import Handler

    from .budget import Budget

_OWN = ["agents", "first", "handoffs", "shared", "memory", "hops", "budget"]


class AgentTurn(Event):
    """It is an agent's turn to speak: it is told `query`, or goes on where it waited for a person."""

    agent: str
    query: str


class Spoken(Event):
    """The last of the agents has ended, with this result; what was said is in the talk."""

    result: AgentResult[Any]
    """Its output is as it is stored."""
    exceeded: str = ""
    """What its budget says that raises."""


class Talk(BaseModel):
    """What is said in a team, and whose turn it is."""

    messages: list[ChatMessage] = Field(default_factory=list[ChatMessage])
    """The whole conversation, but for what the agent says whose turn it is."""
    before: int = 0
    """How many messages are older than the run."""
    kept: int = 0
    """How many of the messages a memory has."""
    parts: dict[str, list[ChatMessage]] = Field(default_factory=dict[str, list[ChatMessage]])
    """By agent, what it heard and said by itself."""
    hops: int = 0
    """How often the conversation was handed over in this run."""
    child: Child | None = None
    """The agent whose turn it is, while it waits for a person."""
    turn: AgentTurn | None = None
    spending: Spending = Field(default_factory=Spending)


class TeamState(BaseModel):
    """The state of a run of a team."""

    talk: Talk = Field(default_factory=Talk)


class Team(Agent[Any]):
    """Agents that hand a conversation over to each other, until one of them answers.

    ```
    result = await Team([triage, billing, support]).run("My invoice is wrong.")
    ```

    - `agents`: their names tell them apart, their descriptions tell the others when to hand over. A `FunctionAgent`
      and a `ReActAgent` can hand over; others can be handed over to.
    - `first`: who begins, each time; by default the first of the list.
    - `handoffs`: by name, to whom each may hand over: `{"triage": ["billing", "support"]}`; who is not named there
      hands over to nobody. None: all to all.
    - `shared`: each agent sees the whole conversation. False: only what it was told and has said itself, in this
      conversation or, where it has a memory of its own, in that.
    - `memory`: is given the whole conversation, one agent's turn after the other; with `shared`, the next run goes on
      from it.
    - `hops`: how often a run may be handed over; then it ends, stopped by "hops".
    - `budget`: what all of them may spend together.

    The other options are those of every `Agent`. Raises `AgentConfigurationError` where something cannot work.
    """

    PROMPTS: ClassVar[Mapping[str, str]] = {
        "handed_over": "{message}\n\n(The conversation was handed over to you by {name}.)",
        "too_many_hops": "The conversation was not handed over to {name}: the limit of hops was reached.",
    }

    def __init__(  # noqa: PLR0913 because these are the options that users know; the rest is every agent's
        self,
        agents: Iterable[Agent[Any]],
        first: str | Agent[Any] | None = None,
        *,
        handoffs: Mapping[str, Iterable[str]] | None = None,
        shared: bool = True,
        memory: Memory | None = None,
        hops: int = 10,
        budget: Budget | None = None,
        **options: Unpack[AgentOptions],
    ) -> None:
        for option in ("llm", "output", "system_prompt"):
            if option in options:
                raise AgentConfigurationError(
                    f"Team({option}=...): a team has no model of its own. Give {option}= to its agents."
                )
        check_names(type(self).__name__, options, [*_OWN, *AgentOptions.__optional_keys__], MEANT)
        super().__init__(memory=memory, budget=budget, **options)
        if self.budget.last_answer:
            raise AgentConfigurationError(
                "Team(budget=Budget(last_answer=True)): a team has no model of its own that could be asked. Give that "
                "budget to its agents."
            )
        if isinstance(hops, bool) or not isinstance(cast("object", hops), int) or hops < 0:
            raise AgentConfigurationError(f"Team(hops={shown(hops)}): it must be a whole number of 0 or more.")
        self.roster = Roster(agents, first, handoffs)
        self.outputs = [kind for agent in self.roster.agents.values() for kind in _outputs_of(agent)]
        """The classes of which an answer may be."""
        self.shared = shared
        self.hops = hops
        self._codec_of_outputs = Codec(self.outputs)

    @step
    async def begin(self, ctx: Context[TeamState], ev: AgentInput, memory: Remembered) -> AgentTurn:
        """Let the first agent be told the question."""
        talk = await talk_of(ctx)
        history = ev.history
        if history is None:
            history = talk.messages if memory is None else await memory.aget(ev.query)
        talk.messages = repaired(history)
        talk.before = talk.kept = len(talk.messages)
        talk.hops, talk.child, talk.turn, talk.spending = 0, None, None, Spending()
        talk.spending.elapsed()
        return AgentTurn(agent=self.roster.first, query=ev.query)

    @step
    async def speak(
        self, ctx: Context[TeamState], ev: AgentTurn, memory: Remembered
    ) -> AgentTurn | Spoken | list[ApprovalRequired]:
        """Let an agent speak, until it has answered, hands over, or waits for a person."""
        talk = await talk_of(ctx)
        await _remember(talk, memory)
        if ev.agent not in self.roster.agents:
            raise AgentConfigurationError(
                f"it is {ev.agent!r}'s turn in this stored run, and {self.name!r} has no such agent. There are "
                f"{', '.join(map(repr, self.roster.agents))}."
            )
        accounts = Accounts(self.budget, talk.spending)
        exceeded = ""
        try:
            with accounts.shared():
                outcome = await run_child(
                    self.roster.agents[ev.agent],
                    talk.child,
                    lambda: self._start(talk, ev),
                    f"{ev.agent}-{talk.hops}",
                )
        except BudgetExceededError as error:
            exceeded, outcome = str(error), error.result
        if isinstance(outcome, Paused):
            talk.child, talk.turn = outcome.child, ev
            for _ in outcome.questions:
                accounts.stop_clock()
            return outcome.questions
        # from here on nothing is awaited: whoever stores the run finds the agent at work, or all that it has said
        talk.messages.extend(with_own_ids(outcome.messages, talk.messages))
        talk.parts.setdefault(ev.agent, []).extend(outcome.messages)
        talk.child = talk.turn = None
        to, stopped_by = outcome.handoff, outcome.stopped_by
        if to is not None and stopped_by == "handoff":
            if talk.hops < self.hops:
                talk.hops += 1
                return AgentTurn(
                    agent=to.to, query=self.prompt("handed_over", name=ev.agent, message=to.message).strip()
                )
            stopped_by = "hops"
            said = talk.messages[talk.kept :]
            talk.messages[talk.kept :] = [self._not_handed_over(message, to.to) for message in said]
        output = self._codec_of_outputs.encode(outcome.output, "the output", keep=lambda unknown: unknown)
        left: dict[str, Any] = {"output": output, "messages": [], "usage": Usage(), "stopped_by": stopped_by}
        return Spoken(result=outcome.model_copy(update=left), exceeded=exceeded)

    @step
    async def conclude(self, ctx: Context[TeamState], ev: Spoken, memory: Remembered) -> AgentResult[Any]:
        """The last agent's result is that of all."""
        talk = await talk_of(ctx)
        await _remember(talk, memory)
        output = self._codec_of_outputs.decode(ev.result.output, "the output")
        all_of_it = {"output": output, "messages": talk.messages[talk.before :], "usage": talk.spending.usage}
        result = ev.result.model_copy(update=all_of_it)
        if ev.exceeded:
            raise BudgetExceededError(ev.exceeded, result)
        return self.ended(result)

    @step
    async def decide(self, ctx: Context[TeamState], ev: Approval) -> AgentTurn | None:
        """A person has answered the agent whose turn it is."""
        talk = await talk_of(ctx)
        child = talk.child
        if child is None or ev.call_id not in child.questions:
            warn_of(ev, () if child is None else child.questions)
            return None
        talk.spending.start_clock()
        return talk.turn if answered(child, ev) else None

    def approvals(self, ctx: Context[Any]) -> list[ApprovalRequired]:
        """See `Agent.approvals`."""
        child = cast("TeamState", ctx.store.peek()).talk.child
        return [] if child is None else [*child.asked.values()]

    def _not_handed_over(self, message: ChatMessage, to: str) -> ChatMessage:
        """The message, in which the call that would have handed over is skipped."""
        name = f"hand_over_to_{tool_name(to)}"
        if message.role != "tool" or not any(result.name == name for result in message.tool_results):
            return message
        skipped = {"content": self.prompt("too_many_hops", name=to), "outcome": "skipped"}
        parts = [
            part.model_copy(update=skipped) if isinstance(part, ToolResultPart) and part.name == name else part
            for part in message.content
        ]
        return message.model_copy(update={"content": tuple(parts)})

    def _start(self, talk: Talk, turn: AgentTurn) -> Handler[AgentResult[Any]]:
        agent = self.roster.agents[turn.agent]
        history = talk.messages if self.shared else None if agent.remembers else talk.parts.get(turn.agent, [])
        return agent.run(turn.query, history=history, handoffs=self.roster.colleagues(turn.agent))


async def talk_of(ctx: Context[TeamState]) -> Talk:
    """The talk of a run itself, no copy."""
    return cast("Talk", await ctx.get("talk"))


async def _remember(talk: Talk, memory: Memory | None) -> None:
    """Give the memory what was said since it was given something. A message that it has is not put twice."""
    said = talk.messages[talk.kept :]
    if memory is not None and said:
        await memory.aput(*said)
    talk.kept += len(said)


def _outputs_of(agent: Agent[Any]) -> list[type[BaseModel]]:
    """The classes of which an agent's answers may be."""
    if isinstance(agent, Team):
        return agent.outputs
    return [] if agent.output is None or agent.output.kind is None else [agent.output.kind]
