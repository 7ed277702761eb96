"""An agent that calls tools until it can answer.

```text
AgentInput ─► prepare ─► Turn ─► call_model ─┬─► ToolCall ─► call_tool ─┬─► ToolResult ─► collect_results ─► Turn
                                             │                          └─► ApprovalRequired ··· Approval ─► decide
                                             └─► Finished ─► answer ─► AgentResult
```

The tools that the model asks for in one turn are called at once. Every call has exactly one result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

from pydantic import BaseModel, Field

from agentflow import Context, step
from agentflow.log import logger
from agentflow_llm import (
    ChatMessage,
    ChatModel,
    LLMError,
    LLMOutputError,
    Memory,
    ToolCallPart,
)

from .agent import Agent, as_tools, tool_name
from .budget import OWN_TURNS, Accounts, Spending
from .children import Child, Place, answered, asking, warn_of
from .conversation import Conversation, Handoff, said, without_calls
from .errors import BudgetExceededError, ToolError, UnreadableReplyError
from .events import (
    AgentInput,
    AgentResult,
    Approval,
    ApprovalRequired,
    Finished,
    OutputT,
    TextDelta,
    ToolCall,
    ToolResult,
    Turn,
    Withdrawn,
    arguments_text,
)
from .options import MEANT, AgentOptions, check_names
from .resources import Model, Remembered, Tools, no_tools
from .tool import Tool
from .toolbox import Toolbox

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from typing_extensions import Unpack

    from agentflow_llm import Reply
    from agentflow_llm.messages import ToolOutcome

    from .budget import Budget
    from .events import Limit

_HAND_OVER = {
    "type": "object",
    "properties": {"message": {"type": "string", "description": "What the colleague needs to know."}},
    "required": ["message"],
    "additionalProperties": False,
}
_OWN = ["tools", "llm", "memory", "system_prompt", "output", "budget"]
_REPEATED = 3
"""So often the same call may be made, with the same result, before the model is told."""
_CORRECTIONS = 2
"""So often in a row the model is told that what it said cannot be read."""


class AgentState(BaseModel, extra="allow"):
    """The state of a run. Tools and steps may keep more in it; a subclass of the agent may derive one with types."""

    conversation: Conversation = Field(default_factory=Conversation)
    spending: Spending = Field(default_factory=Spending)
    children: dict[str, Child] = Field(default_factory=dict[str, Child])
    """By the id of a call, the agents that it called and that wait for a person."""
    asked: dict[str, ApprovalRequired] = Field(default_factory=dict[str, ApprovalRequired])
    """By the id of a call, what a person was asked and has not answered."""


class FunctionAgent(Agent[OutputT]):
    """Calls tools until it can answer.

    ```
    result = await FunctionAgent(tools=[search], llm=model).run("question")
    ```

    - `tools`: plain typed functions, methods, `Tool` objects, or agents.

    The other options are those of every `Agent`. Raises `AgentConfigurationError` where something cannot work.
    """

    PROMPTS: ClassVar[Mapping[str, str]] = {
        "system": (
            "You are a helpful assistant. Use the tools when they help you to answer, and answer from what they "
            "return. When a tool fails, read why, and correct the call or go another way. Say so when you "
            "cannot find out."
        ),
        "skipped": "This call was skipped: the limit of {limit} was reached.",
        "last_answer": "The limit of {limit} was reached. Answer now, as well as you can, from what you have.",
        "repeated": "(You have made this very call {times} times, and this came of it each time. Do something else.)",
        "refused": "A person was asked, and refused this call. {reason}",
        "edited": "(A person changed the arguments of this call to {arguments})",
        "hand_over": "Hand the conversation over to {name}: {description}",
        "handed_over": "The conversation was handed over to {name}.",
    }

    hands_over = True

    def __init__(  # noqa: PLR0913 because these are the options that users know; the rest is every agent's
        self,
        tools: Iterable[object] = (),
        llm: ChatModel | None = None,
        memory: Memory | None = None,
        system_prompt: str | None = None,
        *,
        output: type[OutputT] | None = None,
        budget: Budget | None = None,
        **options: Unpack[AgentOptions],
    ) -> None:
        check_names(type(self).__name__, options, [*_OWN, *AgentOptions.__optional_keys__], MEANT)
        box = Toolbox(as_tools(tools))
        self.asks_for = box.resources
        options["resources"] = {**self.wanted({no_tools: box}), **(options.get("resources") or {})}
        super().__init__(llm, memory, system_prompt, output=output, budget=budget, **options)

    # -- the loop ------------------------------------------------------------------------------------

    @step
    async def prepare(self, ctx: Context[AgentState], ev: AgentInput, memory: Remembered) -> Turn:
        """Put the question behind what was said before."""
        await ctx.set("spending", Spending())
        await ctx.set("children", {})
        await ctx.set("asked", {})
        talk, accounts = await self.state_of(ctx)
        history = ev.history
        if history is None and memory is not None:
            history = await memory.aget(ev.query)
        talk.begin(ev.query, system=self._system, history=history)
        talk.handoffs = ev.handoffs
        accounts.own.spending.elapsed()
        return Turn(number=1)

    @step
    async def call_model(
        self, ctx: Context[AgentState], ev: Turn, llm: Model, tools: Tools, memory: Remembered
    ) -> list[ToolCall] | Turn | Finished:
        """Send the model the conversation; it asks for tools, or answers."""
        talk, accounts = await self.state_of(ctx)
        if talk.entering:
            return await self._corrected(talk, memory)
        limit = self._limit(accounts, ev.number - 1)
        if limit is not None:
            return Finished(stopped_by=limit)
        definitions = self.tools_of(talk, tools).definitions
        try:
            reply = await accounts.in_time(self.asked(ctx, accounts, llm, talk.messages, definitions))
        except (LLMOutputError, UnreadableReplyError) as error:
            if error.reply is None or talk.corrections >= _CORRECTIONS:
                raise
            talk.correct(error.reply, str(error))
            ctx.write_event_to_stream(Withdrawn(agent=self.name))
            return await self._corrected(talk, memory)
        if reply is None:
            return Finished(stopped_by="seconds")
        calls = [ToolCall(id=c.id, name=c.name, arguments=c.arguments, agent=self.name) for c in talk.hear(reply)]
        if not calls:
            return Finished(stopped_by="answer")
        for call in calls:
            ctx.write_event_to_stream(call)
        limit = self._limit(accounts, ev.number, tool_calls=True)
        return calls if limit is None else Finished(stopped_by=limit)

    @step(num_workers=8)
    async def call_tool(
        self, ctx: Context[AgentState], ev: ToolCall, tools: Tools
    ) -> ToolResult | ApprovalRequired | list[ApprovalRequired]:
        """Call one tool, or ask a person whether it may be called. What goes wrong is a result as well.

        Where the tool is an agent, which asks a person, it asks that.
        """
        talk, accounts = await self.state_of(ctx)
        tools = self.tools_of(talk, tools)
        call = ToolCallPart(id=ev.id, name=ev.name, arguments=ev.arguments)
        children = await children_of(ctx)
        goes_on = ev.id in children
        asked = None if ev.approved or goes_on else tools.asks_approval(ev.name, ev.arguments)
        if asked is not None:
            accounts.stop_clock()
            question = ApprovalRequired(call_id=ev.id, tool=ev.name, arguments=asked, agent=self.name)
            (await asked_of(ctx))[ev.id] = question
            return question
        if not goes_on and not accounts.take_tool_call(ev.id):
            return self._told(ctx, call, self.prompt("skipped", limit="tool_calls"), "skipped")
        place = Place(children, ev, talk.call_ids)
        tool = tools.find(ev.name)
        within = None if tool is not None and tool.keeps_time else accounts.seconds_left()
        with accounts.shared(), place.here():
            result = await tools.execute(ev.id, ev.name, ev.arguments, ctx=ctx, within=within)
        if place.paused is not None:
            for _ in place.paused.questions:
                accounts.stop_clock()
            return place.paused.questions
        content, times = result.content, talk.times(call, result.content)
        if times >= _REPEATED:
            content = f"{content}\n\n{self.prompt('repeated', times=str(times))}"
        if ev.approved and ev.arguments != talk.arguments_of(ev.id):
            content = f"{self.prompt('edited', arguments=ev.arguments)}\n\n{content}"
        return self._told(ctx, call, content, result.outcome)

    @step
    async def decide(
        self, ctx: Context[AgentState], ev: Approval, tools: Tools
    ) -> ToolCall | ToolResult | ApprovalRequired | None:
        """A person has said whether a call may go on. With arguments that are wrong, the person is asked once more."""
        talk, accounts = await self.state_of(ctx)
        children, asked = await children_of(ctx), await asked_of(ctx)
        parent = asking(children, ev.call_id)
        if parent is not None:
            accounts.start_clock()
            return children[parent].call if answered(children[parent], ev) else None
        question = asked.get(ev.call_id)
        if question is None:
            warn_of(ev, [*asked, *(name for child in children.values() for name in child.questions)])
            return None
        call = ToolCallPart(id=ev.call_id, name=question.tool, arguments=talk.arguments_of(ev.call_id))
        decided: ToolCall | ToolResult
        if not ev.approved:
            decided = self._told(ctx, call, self.prompt("refused", reason=ev.reason).strip(), "refused")
        else:
            arguments = call.arguments if ev.arguments is None else arguments_text(ev.arguments)
            problem = tools.problem_with(call.name, arguments)
            if problem:
                asked[ev.call_id] = question = question.model_copy(update={"problem": problem})
                return question
            decided = ToolCall(id=call.id, name=call.name, arguments=arguments, agent=self.name, approved=True)
        del asked[ev.call_id]
        accounts.start_clock()
        return decided

    @step
    async def collect_results(
        self, ctx: Context[AgentState], ev: ToolResult, tools: Tools, memory: Remembered
    ) -> Turn | Finished | None:
        """When all results of a turn are there, let it enter the conversation, and the model goes on."""
        talk, _ = await self.state_of(ctx)
        assert talk.pending is not None
        told = ctx.collect_events(ev, {ToolResult: len(talk.pending.tool_calls)})
        if told is None:
            return None
        turn = talk.turn([result.part() for result in told])
        direct = next((result.content for result in told if self._is_direct(result, tools)), None)
        if direct is not None and talk.handoff is None:
            ctx.write_event_to_stream(TextDelta(text=direct, agent=self.name))
            turn.append(ChatMessage(role="assistant", content=direct, id=f"{talk.pending.id}_direct"))
        await self._enter(talk, turn, memory)
        if talk.handoff is not None:
            return Finished(stopped_by="handoff")
        return Turn(number=talk.turns + 1) if direct is None else Finished(stopped_by="tool")

    # -- the end -------------------------------------------------------------------------------------

    @step
    async def answer(
        self, ctx: Context[AgentState], ev: Finished, llm: Model, memory: Remembered
    ) -> AgentResult[OutputT]:
        """The model's last word is the answer. At a limit, calls are skipped that nobody will execute any more."""
        talk, accounts = await self.state_of(ctx)
        if talk.pending is not None:
            told = self.prompt("skipped", limit=ev.stopped_by)
            skipped = [self._told(ctx, call, told, "skipped").part() for call in talk.pending.tool_calls]
            await self._enter(talk, talk.turn(skipped), memory)
        limited = ev.stopped_by not in {"answer", "tool", "handoff"}
        if limited and self.budget.last_answer:
            talk.entering = talk.entering or await self._last_answer(ctx, talk, accounts, llm, ev.stopped_by)
            await self._enter(talk, talk.entering, memory)
        output: Any = self.read_output(talk.said)
        result = AgentResult[OutputT](
            output=output,
            messages=talk.messages[talk.before :],
            usage=accounts.own.spending.usage,
            stopped_by=ev.stopped_by,
            handoff=talk.handoff,
        )
        if limited and self.budget.raises:
            raise BudgetExceededError(
                f"{self.name!r} reached its limit of {ev.stopped_by}. What there is so far is in error.result.", result
            )
        return result

    # -- what the steps use --------------------------------------------------------------------------

    async def approvals(self, ctx: Context[Any]) -> list[ApprovalRequired]:
        """See `Agent.approvals`."""
        children = await children_of(ctx)
        return [*(await asked_of(ctx)).values(), *(q for child in children.values() for q in child.asked.values())]

    async def state_of(self, ctx: Context[AgentState]) -> tuple[Conversation, Accounts]:
        """The conversation of a run itself, no copy, and what it spends from."""
        return await conversation_of(ctx), Accounts(self.budget, await ctx.get("spending"))

    def tools_of(self, talk: Conversation, tools: Toolbox) -> Toolbox:
        """The tools of a run: the agent's, and one for each colleague to whom it may hand over."""
        if not talk.handoffs:
            return tools
        return Toolbox([*tools, *(self._hand_over(talk, to, what) for to, what in talk.handoffs.items())])

    def _hand_over(self, talk: Conversation, to: str, description: str) -> Tool[..., Any]:
        async def hand_over(arguments: dict[str, Any]) -> str:
            if talk.handoff is not None:
                raise ToolError(f"The conversation was handed over to {talk.handoff.to} already.")
            talk.handoff = Handoff(to=to, message=str(arguments.get("message", "")))
            return self.prompt("handed_over", name=to)

        told = self.prompt("hand_over", name=to, description=description)
        return Tool.of_schema(f"hand_over_to_{tool_name(to)}", told, _HAND_OVER, hand_over)

    def _limit(self, accounts: Accounts, turns: int, *, tool_calls: bool = False) -> Limit | None:
        own: Limit | None = "turns" if self.budget.turns is None and turns >= OWN_TURNS else None
        return accounts.exceeded(tool_calls=tool_calls) or own

    async def _last_answer(
        self, ctx: Context[AgentState], talk: Conversation, accounts: Accounts, llm: ChatModel, limit: str
    ) -> list[ChatMessage]:
        """Ask for an answer without tools."""
        question = ChatMessage(role="user", content=self.prompt("last_answer", limit=limit))
        try:
            reply = await self.asked(ctx, accounts, llm, [*talk.messages, question])
        except (LLMError, UnreadableReplyError) as error:
            found: Reply | None = getattr(error, "reply", None)
            if found is None:  # what there is so far is worth more than the error
                logger().warning(f"{self.name!r} has no last answer: {error}")
                return []
            reply = found
        answer = without_calls(reply.message)
        return [question, answer] if said(answer) else []

    def _told(self, ctx: Context[AgentState], call: ToolCallPart, content: str, outcome: ToolOutcome) -> ToolResult:
        told = ToolResult(call_id=call.id, name=call.name, content=content, outcome=outcome, agent=self.name)
        ctx.write_event_to_stream(told)
        return told

    def _is_direct(self, result: ToolResult, tools: Toolbox) -> bool:
        """Is the result the answer?"""
        tool = tools.find(result.name)
        direct = tool is not None and tool.return_direct and result.outcome == "ok"
        return direct and self.read_output(result.content) is not None

    async def _corrected(self, talk: Conversation, memory: Memory | None) -> Turn:
        """Let what the model was told of its form enter the conversation; it is its turn again."""
        await self._enter(talk, talk.entering, memory)
        return Turn(number=talk.turns + 1)

    async def _enter(self, talk: Conversation, turn: list[ChatMessage], memory: Memory | None) -> None:
        """Let a turn enter the memory as a whole, and then the conversation."""
        if memory is not None:
            await memory.aput(*talk.messages[talk.kept :], *turn)
        talk.add(turn)


async def asked_of(ctx: Context[AgentState]) -> dict[str, ApprovalRequired]:
    """By the id of a call, what a person was asked and has not answered; no copy."""
    return cast("dict[str, ApprovalRequired]", await ctx.get("asked"))


async def children_of(ctx: Context[AgentState]) -> dict[str, Child]:
    """The children of a run that were put away; no copy."""
    return cast("dict[str, Child]", await ctx.get("children"))


async def conversation_of(ctx: Context[AgentState]) -> Conversation:
    """The conversation of a run itself, no copy."""
    return cast("Conversation", await ctx.get("conversation"))
