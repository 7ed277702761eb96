"""An agent that calls tools until it can answer.

```text
AgentInput ─► prepare ─► Turn ─► call_model ─┬─► ToolCall ─► call_tool ─┬─► ToolResult ─► collect_results ─► Turn
                                             │                          └─► ApprovalRequired ··· Approval ─► decide
                                             └─► Finished ─► answer ─► AgentResult
```

The tools that the model asks for in one turn are called at once. Every call has exactly one result.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

from agentflow import Context, step
from agentflow_llm import (
    ChatMessage,
    ChatModel,
    LLMOutputError,
    Memory,
    ToolCallPart,
)

from .agent import Agent, as_tools
from .budget import Accounts, Spending
from .children import Place, answered, asking, warn_of
from .conversation import said, without_calls
from .errors import UnreadableReplyError
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
from .handover import handover_tools
from .options import MEANT, AgentOptions, check_names
from .resources import Model, Remembered, Tools, no_tools
from .state import AgentState, state_of
from .toolbox import Toolbox

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from typing_extensions import Unpack

    from agentflow_llm import ToolResultPart
    from agentflow_llm.messages import ToolOutcome

    from .budget import Budget
    from .conversation import Conversation

_OWN = ["tools", "llm", "memory", "system_prompt", "output", "budget"]
_REPEATED = 3
"""So often the same call may be made, with the same result, before the model is told."""
_CORRECTIONS = 2
"""So often in a row the model is told that what it said cannot be read."""


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

    @step
    async def prepare(self, ctx: Context[AgentState], ev: AgentInput, memory: Remembered) -> Turn:
        """Put the question behind what was said before."""
        await asyncio.sleep(0)  # who is to follow the stream in a task of its own has begun to by then
        state = state_of(ctx)
        talk, state.spending, state.children, state.asked = state.conversation, Spending(), {}, {}
        await self.begin_talk(talk, ev, memory, self._system)
        talk.handoffs = ev.handoffs
        state.spending.elapsed()
        return Turn(number=1)

    @step
    async def call_model(
        self, ctx: Context[AgentState], ev: Turn, llm: Model, tools: Tools, memory: Remembered
    ) -> list[ToolCall] | Turn | Finished:
        """Send the model the conversation; it asks for tools, or answers."""
        state = state_of(ctx)
        talk, accounts = state.conversation, Accounts(self.budget, state.spending)
        if talk.entering:
            return await self._corrected(talk, memory)
        request = self.asked(ctx, accounts, llm, talk.messages, self.tools_of(talk, tools).definitions)
        try:
            reply = await self.bounded(accounts, request, ev.number - 1)
        except (LLMOutputError, UnreadableReplyError) as error:
            if error.reply is None or talk.corrections >= _CORRECTIONS:
                raise
            talk.correct(error.reply, str(error))
            ctx.write_event_to_stream(Withdrawn(agent=self.name))
            return await self._corrected(talk, memory)
        if isinstance(reply, Finished):
            return reply
        calls = [ToolCall(call_id=c.id, name=c.name, arguments=c.arguments, agent=self.name) for c in talk.hear(reply)]
        if not calls:
            return Finished(stopped_by="answer")
        for call in calls:
            ctx.write_event_to_stream(call)
        limit = self.limit_reached(accounts, ev.number, tool_calls=True)
        return calls if limit is None else Finished(stopped_by=limit)

    @step(num_workers=8)
    async def call_tool(
        self, ctx: Context[AgentState], ev: ToolCall, tools: Tools
    ) -> ToolResult | ApprovalRequired | list[ApprovalRequired]:
        """Call one tool, or ask a person whether it may be called. What goes wrong is a result as well.

        Where the tool is an agent, which asks a person, it asks that.
        """
        state = state_of(ctx)
        talk, accounts = state.conversation, Accounts(self.budget, state.spending)
        tools = self.tools_of(talk, tools)
        call = ToolCallPart(id=ev.call_id, name=ev.name, arguments=ev.arguments)
        goes_on = ev.call_id in state.children
        asked = None if ev.approved or goes_on else tools.asks_approval(ev.name, ev.arguments)
        if asked is not None:
            accounts.stop_clock()
            state.asked[ev.call_id] = ApprovalRequired(
                call_id=ev.call_id, tool=ev.name, arguments=asked, agent=self.name
            )
            return state.asked[ev.call_id]
        if not goes_on and not accounts.take_tool_call(ev.call_id):
            return self._told(ctx, call, self.prompt("skipped", limit="tool_calls"), "skipped")
        place = Place(state.children, ev, talk.call_ids)
        tool = tools.find(ev.name)
        within = None if tool is not None and tool.keeps_time else accounts.seconds_left()
        with accounts.shared(), place.here():
            result = await tools.execute(ev.call_id, ev.name, ev.arguments, ctx=ctx, within=within)
        if place.paused is not None:
            for _ in place.paused.questions:
                accounts.stop_clock()
            return place.paused.questions
        content, times = result.content, talk.times(call, result.content)
        direct = self._is_direct(result, tools)  # then no model reads it, and what is told to one has no place in it
        if times >= _REPEATED and not direct:
            content = f"{content}\n\n{self.prompt('repeated', times=str(times))}"
        if ev.approved and not direct and ev.arguments != talk.arguments_of(ev.call_id):
            content = f"{self.prompt('edited', arguments=ev.arguments)}\n\n{content}"
        return self._told(ctx, call, content, result.outcome)

    @step
    async def decide(
        self, ctx: Context[AgentState], ev: Approval, tools: Tools
    ) -> ToolCall | ToolResult | ApprovalRequired | None:
        """A person has said whether a call may go on. With arguments that are wrong, the person is asked once more."""
        state = state_of(ctx)
        talk, accounts = state.conversation, Accounts(self.budget, state.spending)
        parent = asking(state.children, ev.call_id)
        if parent is not None:
            accounts.start_clock()
            return state.children[parent].call if answered(state.children[parent], ev) else None
        question = state.asked.get(ev.call_id)
        if question is None:
            warn_of(ev, [asked.call_id for asked in state.waiting()])
            return None
        call = ToolCallPart(id=ev.call_id, name=question.tool, arguments=talk.arguments_of(ev.call_id))
        decided: ToolCall | ToolResult
        if not ev.approved:
            decided = self._told(ctx, call, self.prompt("refused", reason=ev.reason).strip(), "refused")
        else:
            arguments = call.arguments if ev.arguments is None else arguments_text(ev.arguments)
            problem = tools.problem_with(call.name, arguments)
            if problem:
                state.asked[ev.call_id] = question.model_copy(update={"problem": problem})
                return state.asked[ev.call_id]
            decided = ToolCall(call_id=call.id, name=call.name, arguments=arguments, agent=self.name, approved=True)
        del state.asked[ev.call_id]
        accounts.start_clock()
        return decided

    @step
    async def collect_results(
        self, ctx: Context[AgentState], ev: ToolResult, tools: Tools, memory: Remembered
    ) -> Turn | Finished | None:
        """When all results of a turn are there, let it enter the conversation, and the model goes on."""
        talk = state_of(ctx).conversation
        assert talk.pending is not None
        told = ctx.collect_events(ev, {ToolResult: len(talk.pending.tool_calls)})
        if told is None:
            return None
        turn = talk.turn([result.part() for result in told])
        direct = next((result.content for result in told if self._is_direct(result, tools)), None)
        if direct is not None and talk.handoff is None:
            ctx.write_event_to_stream(TextDelta(text=direct, agent=self.name))
            turn.append(ChatMessage(role="assistant", content=direct, id=f"{talk.pending.id}_direct"))
        await self.enter_turn(talk, turn, memory)
        if talk.handoff is not None:
            return Finished(stopped_by="handoff")
        return Turn(number=talk.turns + 1) if direct is None else Finished(stopped_by="tool")

    @step
    async def answer(
        self, ctx: Context[AgentState], ev: Finished, llm: Model, memory: Remembered
    ) -> AgentResult[OutputT]:
        """The model's last word is the answer. At a limit, calls are skipped that nobody will execute any more."""
        state = state_of(ctx)
        talk, accounts = state.conversation, Accounts(self.budget, state.spending)
        if talk.pending is not None:
            told = self.prompt("skipped", limit=ev.stopped_by)
            skipped = [self._told(ctx, call, told, "skipped").part() for call in talk.pending.tool_calls]
            await self.enter_turn(talk, talk.turn(skipped), memory)
        limited = ev.stopped_by not in {"answer", "tool", "handoff"}
        if limited and self.budget.last_answer:
            talk.entering = talk.entering or await self._last_answer(ctx, talk, accounts, llm, ev.stopped_by)
            await self.enter_turn(talk, talk.entering, memory)
        result = AgentResult[OutputT](
            output=self.read_output(talk.said),
            messages=talk.messages[talk.before :],
            usage=state.spending.usage,
            stopped_by=ev.stopped_by,
            handoff=talk.handoff,
        )
        return self.ended(result)

    def tools_of(self, talk: Conversation, tools: Toolbox) -> Toolbox:
        """The tools of a run: the agent's, and one for each colleague to whom it may hand over."""
        return Toolbox([*tools, *handover_tools(talk, self.prompt)]) if talk.handoffs else tools

    async def _last_answer(
        self, ctx: Context[AgentState], talk: Conversation, accounts: Accounts, llm: ChatModel, limit: str
    ) -> list[ChatMessage]:
        """Ask for an answer without tools."""
        question = ChatMessage(role="user", content=self.prompt("last_answer", limit=limit))
        reply = await self.last_reply(ctx, accounts, llm, [*talk.messages, question])
        answer = None if reply is None else without_calls(reply.message)
        return [question, answer] if answer is not None and said(answer) else []

    def _told(self, ctx: Context[AgentState], call: ToolCallPart, content: str, outcome: ToolOutcome) -> ToolResult:
        failed: dict[str, Any] = {} if outcome == "ok" else {"outcome": outcome}  # a field that is set takes memory
        told = ToolResult(call_id=call.id, name=call.name, content=content, agent=self.name, **failed)
        ctx.write_event_to_stream(told)
        return told

    def _is_direct(self, result: ToolResult | ToolResultPart, tools: Toolbox) -> bool:
        """Is the result the answer?"""
        tool = tools.find(result.name)
        direct = tool is not None and tool.return_direct and result.outcome == "ok"
        return direct and self.read_output(result.content) is not None

    async def _corrected(self, talk: Conversation, memory: Memory | None) -> Turn:
        """Let what the model was told of its form enter the conversation; it is its turn again."""
        await self.enter_turn(talk, talk.entering, memory)
        return Turn(number=talk.turns + 1)
