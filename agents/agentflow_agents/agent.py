"""What all agents share: their options, their prompts, and how they are asked."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from pydantic import BaseModel

from agentflow import Context, Workflow
from agentflow.errors import shown
from agentflow.log import logger
from agentflow.observe import current_scope
from agentflow.workflow import graph_of
from agentflow_llm import (
    ChatMessage,
    ChatModel,
    Delta,
    LLMError,
    LLMOutputError,
    Memory,
    ReasoningPart,
    RefusalPart,
    Reply,
    TextPart,
)
from agentflow_llm.prompt import filled

from .budget import OWN_TURNS, Accounts, Budget
from .children import run_as_tool
from .errors import AgentConfigurationError, BudgetExceededError, ToolError, UnreadableReplyError
from .events import AgentInput, AgentResult, ApprovalRequired, Finished, OutputT, TextDelta, Thought
from .handover import tool_name
from .options import ASKED, check_names, check_options, shape_of
from .prompts import merged_prompts
from .records import Suspended
from .resources import choose_model, no_memory
from .state import AgentState, state_of
from .tool import Tool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Hashable, Mapping, Sequence

    from typing_extensions import Unpack

    from agentflow import Handler
    from agentflow.graph import Graph
    from agentflow_llm import ToolDefinition

    from .conversation import Conversation
    from .events import Limit
    from .tool import Options

    ResultT = TypeVar("ResultT", bound=AgentResult[Any])

T = TypeVar("T")


class Agent(Workflow[AgentInput, AgentResult[OutputT]], Generic[OutputT]):
    """The base of all agents; it has no steps of its own.

    - `llm`: the model; by default the one that `agentflow_llm.default_model` chooses.
    - `memory`: a conversation that goes on from run to run. It is given whole turns: a call together with its
      result, the question together with the first turn; what a cancelled or failed run left open never gets there.
      Without a memory runs know nothing of each other.
    - `system_prompt`: what the model is told first, in place of the class's own; "" for nothing.
    - `output`: a pydantic model; the answer is then one of its objects.
    - `budget`: what a run may spend. See `Budget`.
    - `prompts`: by name, texts in place of the agent's own. `agent.prompts()` shows them all.
    - `name`: the agent's name in traces, and to other agents; the class's by default.
    - `description`: what the agent is for, told to other agents.

    A subclass changes a text by `PROMPTS = {"system": "..."}`. The other options are those of `Workflow`. Raises
    `AgentConfigurationError` where something cannot work.
    """

    PROMPTS: ClassVar[Mapping[str, str]] = {
        "system": "",
        "task": "What to do or to find out, with everything that is needed for it: nothing else is known there.",
        "partial": "{answer}\n\n(This may be incomplete: {name} was stopped at its limit of {limit}.)",
    }
    """Every text of the agent's own that a model is sent, by name. A subclass has those that it adds or changes."""

    hands_over: ClassVar[bool] = False
    """Does it do so where a run is given `handoffs`?"""

    def __init__(  # noqa: PLR0913 because these are the options that an agent and its workflow have
        self,
        llm: ChatModel | None = None,
        memory: Memory | None = None,
        system_prompt: str | None = None,
        *,
        output: type[OutputT] | None = None,
        budget: Budget | None = None,
        prompts: Mapping[str, str] | None = None,
        name: str | None = None,
        description: str = "",
        timeout: float | None = None,
        verbose: bool = False,
        num_concurrent_runs: int | None = None,
        resources: Mapping[Callable[..., Any], Any] | None = None,
    ) -> None:
        kind = type(self).__name__
        check_options(kind, llm, memory, system_prompt, budget)
        given: dict[Callable[..., Any], Any] = {no_memory: memory}
        if llm is not None:
            given[choose_model] = llm
        resources = {**self.wanted(given), **(resources or {})}
        super().__init__(timeout, verbose, num_concurrent_runs, resources, name)
        self.agent_name = self.name
        self.description = description
        kept = resources.get(no_memory)
        self.remembers = kept is not None
        """Has it a memory of its own?"""
        self._session = kept.session if isinstance(kept, Memory) and kept.session != Memory.session else None
        self.budget = Budget() if budget is None else budget
        self.output = shape_of(kind, output)
        self._prompts = merged_prompts(type(self), {} if prompts is None else prompts, system_prompt)
        self._system = self.system_message()

    def __agentflow_session__(self) -> str | None:
        """The conversation of its memory, where that was given a name."""
        return self._session

    @classmethod
    def wanted(cls, resources: Mapping[Callable[..., Any], Any]) -> dict[Callable[..., Any], Any]:
        """Those that a step wants: a subclass may have replaced the only step that wants one."""
        used = _factories(graph_of(cls))
        return {factory: value for factory, value in resources.items() if factory in used}

    def prompts(self) -> dict[str, str]:
        """Every text of the agent's own that a model is sent, by name; what stands in braces is filled in."""
        return dict(self._prompts)

    def prompt(self, name: str, /, **values: str) -> str:
        """One of them, with values in place of the names in braces."""
        return filled(self._prompts[name], values)

    def system_message(self, **values: str) -> ChatMessage | None:
        """What the model is told first; None for nothing."""
        text = self.prompt("system", **values)
        return ChatMessage(role="system", content=(TextPart(text=text),)) if text else None

    def run(  # noqa: PLR0913 because a run of a workflow has these, and an agent's has two more
        self,
        query: str | None = None,
        *,
        history: Sequence[ChatMessage] | None = None,
        ctx: Context[Any] | None = None,
        start_event: AgentInput | None = None,
        stepwise: bool = False,
        detached: bool = False,
        **fields: Any,
    ) -> Handler[AgentResult[OutputT]]:
        """Ask the agent: `result = await agent.run("question")`. Otherwise as `Workflow.run`.

        - `history`: what was said before, where you keep the conversation yourself; the memory is not asked then.

        With the `ctx` of a run that has ended, `agent.run("and then?", ctx=handler.ctx)`, the conversation goes on.
        """
        if fields:
            known = {*self.start_event_class.model_fields, "ctx", "start_event", "stepwise", "detached"}
            check_names(f"a run of {self.name!r}", fields, known, ASKED)
        if query is not None:
            if not isinstance(cast("object", query), str):
                raise AgentConfigurationError(
                    f"{type(self).__name__}.run({shown(query)}): it must be a text. What was said before goes into "
                    'history=: run("And then?", history=messages).'
                )
            fields["query"] = query
        if history is not None:
            fields["history"] = list(history)
        handler = super().run(ctx=ctx, start_event=start_event, stepwise=stepwise, detached=detached, **fields)
        if ctx is not None and query is None and start_event is None and not _is_child():
            for question in self.approvals(handler.ctx):
                handler.ctx.write_event_to_stream(question)
        return handler

    def run_sync(self, query: str | None = None, **arguments: Any) -> AgentResult[OutputT]:
        """As `run`, in plain code. See `Workflow.run_sync`."""
        return super().run_sync(query=query, **arguments)

    def approvals(self, ctx: Context[Any]) -> list[ApprovalRequired]:
        """What a run waits for: the questions that no `Approval` has answered yet: `agent.approvals(handler.ctx)`.

        The stream of a run that goes on, `agent.run(ctx=...)`, shows them again.
        """
        state: object = state_of(ctx)  # an agent of one's own may keep another one
        return state.waiting() if isinstance(state, AgentState) else []

    def as_tool(
        self, name: str | None = None, description: str | None = None, **options: Unpack[Options]
    ) -> Tool[[dict[str, Any]], Awaitable[Any]]:
        """The agent as a tool for another agent: `tools=[researcher.as_tool(timeout=60)]`, or just `[researcher]`.

        - `name`: by default the agent's.
        - `description`: when to call it; by default the agent's.

        The other options are those of `Tool`. Each call is a run of its own, a child of the run that calls. The other
        agent's model is told the answer: text, or JSON of the `output` class; at a limit, what there is by then,
        with a sentence that says so. Raises `AgentConfigurationError` where there is no description.
        """
        told = self.description if description is None else description
        if not told:
            raise AgentConfigurationError(
                f"{self.name!r} has no description, so a model cannot know what to call it for. Write "
                f'{type(self).__name__}(..., description="Looks things up in the handbook.").'
            )
        called = tool_name(self.name) if name is None else name
        parameters = {
            "type": "object",
            "properties": {"query": {"type": "string", "description": self.prompt("task")}},
            "required": ["query"],
            "additionalProperties": False,
        }

        async def call(arguments: dict[str, Any]) -> Any:
            query = arguments["query"]
            if not isinstance(query, str):
                raise ToolError("query: it must be a text.")
            result = await run_as_tool(self, called, query)
            return Suspended() if result is None else self._answer_of(result)

        made = Tool.of_schema(called, told, parameters, call, **options)
        made.keeps_time = True
        return made

    def _answer_of(self, result: AgentResult[Any]) -> Any:
        """What another agent's model is told of an answer."""
        output = result.output
        if result.stopped_by in {"answer", "tool"}:
            return str(result) if output is None else output
        answer = output.model_dump_json() if isinstance(output, BaseModel) else str(result)
        return self.prompt("partial", answer=answer, name=self.name, limit=result.stopped_by).strip()

    async def ask(
        self,
        llm: ChatModel,
        messages: Sequence[ChatMessage],
        tools: Sequence[ToolDefinition],
        tell: Callable[[Delta], None] | None,
    ) -> Reply:
        """Ask the model; `tell` is to be given each piece of the answer, or is None where nobody follows."""
        if tell is None and self.output is None:
            return await llm.chat(messages, tools=tools)
        # a stream is never repaired by the model's client: it is the agent's to do that, in a turn that can be seen
        async with llm.stream(messages, tools=tools, output=self.output) as stream:
            async for delta in stream:
                if tell is not None:
                    tell(delta)
        return stream.reply

    async def asked(
        self,
        ctx: Context[Any],
        accounts: Accounts,
        llm: ChatModel,
        messages: Sequence[ChatMessage],
        tools: Sequence[ToolDefinition] = (),
    ) -> Reply:
        """`ask`, count what it took, and show on the stream what the model said."""
        followed = ctx.is_followed
        try:
            reply = await self.ask(llm, messages, tools, partial(self._tell, ctx) if followed else None)
        except (LLMOutputError, UnreadableReplyError) as error:
            if error.reply is not None:
                accounts.heard(error.reply, messages)
            raise
        accounts.heard(reply, messages)
        if not followed:
            for part in reply.message.content:
                if isinstance(part, TextPart | ReasoningPart | RefusalPart):
                    self._tell(ctx, Delta(type=part.type, text=part.text))
        return reply

    async def last_reply(
        self, ctx: Context[Any], accounts: Accounts, llm: ChatModel, messages: Sequence[ChatMessage]
    ) -> Reply | None:
        """Ask once more, at a limit. None where nothing comes: what there is so far is worth more than the error."""
        why = "it took too long"
        try:
            reply = await accounts.in_time(self.asked(ctx, accounts, llm, messages), last=True)
        except (LLMError, UnreadableReplyError) as error:
            reply, why = getattr(error, "reply", None), str(error)
        if reply is None:
            logger().warning(f"{self.name!r} has no last answer: {why}")
        return reply

    def limit_reached(self, accounts: Accounts, turns: int, *, tool_calls: bool = False) -> Limit | None:
        """The limit that was reached; `turns` is how often the agent has called its model."""
        own: Limit | None = "turns" if self.budget.turns is None and turns >= OWN_TURNS else None
        return accounts.exceeded(tool_calls=tool_calls) or own

    async def bounded(self, accounts: Accounts, work: Coroutine[Any, Any, T], turns: int | None = None) -> T | Finished:
        """Await it; where a limit was reached, or the time is over before it ends, the run is to be finished.

        - `turns`: how often the agent has called its model; by default, how often the run called any.
        """
        limit = self.limit_reached(accounts, accounts.own.spending.turns if turns is None else turns)
        if limit is not None:
            work.close()
            return Finished(stopped_by=limit)
        done = await accounts.in_time(work)
        return Finished(stopped_by="seconds") if done is None else done

    async def begin_talk(
        self, talk: Conversation, ev: AgentInput, memory: Memory | None, system: ChatMessage | None
    ) -> None:
        """Put the question behind what was said before."""
        history = ev.history
        if history is None and memory is not None:
            history = await memory.aget(ev.query)
        talk.begin(ev.query, system=system, history=history)

    async def enter_turn(self, talk: Conversation, turn: list[ChatMessage], memory: Memory | None) -> None:
        """Let a turn enter the memory as a whole, and then the conversation."""
        if memory is not None:
            await memory.aput(*talk.messages[talk.kept :], *turn)
        talk.add(turn)

    def ended(self, result: ResultT) -> ResultT:
        """The result. Raises `BudgetExceededError` where a limit ended the run, and the budget says so."""
        if self.budget.raises and result.stopped_by not in {"answer", "tool", "handoff"}:
            raise BudgetExceededError(
                f"{self.name!r} reached its limit of {result.stopped_by}. What there is so far is in error.result.",
                result,
            )
        return result

    def read_output(self, text: str) -> Any:
        """The output in a text, where a class was asked for; None where there is none."""
        if self.output is None:
            return text
        try:
            return self.output.read(text)
        except LLMOutputError:
            return None

    def _tell(self, ctx: Context[Any], delta: Delta) -> None:
        if delta.text and delta.type == "reasoning":
            ctx.write_event_to_stream(Thought(text=delta.text, agent=self.name))
        elif delta.text and delta.type != "tool_call":
            ctx.write_event_to_stream(TextDelta(text=delta.text, agent=self.name))


def as_tools(tools: Iterable[object]) -> Iterable[object]:
    """The same, with the agents among them as tools."""
    given: object = tools
    if not isinstance(given, Iterable) or isinstance(given, str):
        return tools  # a toolbox says what is wrong with it
    return [tool.as_tool() if isinstance(tool, Agent) else tool for tool in tools]


def _is_child() -> bool:
    """Is this the code of a step? What a child asks, its parent asks."""
    scope = current_scope.get()
    return scope is not None and scope.run is not None


def _factories(graph: Graph) -> set[Hashable]:
    """The factories of all resources of the steps, and of those that they need."""
    recipes = [recipe for plan in graph.steps for recipe in plan.resources.values()]
    for recipe in recipes:
        recipes.extend(recipe.needs.values())
    return {recipe.key for recipe in recipes}
