"""An agent that calls tools until it can answer.

```text
AgentInput ─► prepare ─► Turn ─► call_model ─┬─► ToolCall ─► call_tool ─► ToolResult ─► collect_results ─► Turn
                                             └─► Finished ─► answer ─► AgentResult
```

The tools that the model asks for in one turn are called at once. Every call has exactly one result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel, Field

from agentflow import Context, Workflow, step
from agentflow.errors import shown
from agentflow.workflow import graph_of
from agentflow_llm import ChatMessage, ChatModel, Memory, TextPart

from .conversation import Conversation
from .errors import AgentConfigurationError
from .events import AgentInput, AgentResult, Finished, ToolCall, ToolResult, Turn
from .resources import Model, Remembered, Tools, choose_model, no_memory, no_tools
from .toolbox import Toolbox

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping

    from agentflow import Handler
    from agentflow.graph import Graph
    from agentflow_llm import ToolResultPart

SYSTEM_PROMPT = (
    "You are a helpful assistant. Use the tools when they help you to answer, and answer from what they return. When a "
    "tool fails, read why, and correct the call or go another way. Say so when you cannot find out."
)
SKIPPED = "This call was skipped: the limit of turns was reached."


class AgentState(BaseModel):
    """The state of a run. A subclass of the agent may derive one with more fields."""

    conversation: Conversation = Field(default_factory=Conversation)


class FunctionAgent(Workflow[AgentInput, AgentResult]):
    """Calls tools until it can answer.

    ```
    result = await FunctionAgent(tools=[search], llm=model).run("question")
    ```

    - `tools`: plain typed functions, methods, or `Tool` objects.
    - `llm`: the model; by default the one that `agentflow_llm.default_model` chooses.
    - `memory`: a conversation that goes on from run to run. It is given whole turns: a call together with its
      result, the question together with the first turn; what a cancelled or failed run left open never gets there.
      Without a memory runs know nothing of each other.
    - `system_prompt`: what the model is told first; "" or None for nothing.
    - `name`: the agent's name in traces; the class's by default.
    - `max_turns`: how often the model is called in a run at most.

    The other options are those of `Workflow`. Raises `AgentConfigurationError` where something cannot work.
    """

    def __init__(  # noqa: PLR0913 because these are the options that an agent and its workflow have
        self,
        tools: Iterable[object] = (),
        llm: ChatModel | None = None,
        memory: Memory | None = None,
        system_prompt: str | None = SYSTEM_PROMPT,
        *,
        name: str | None = None,
        max_turns: int = 20,
        timeout: float | None = None,
        verbose: bool = False,
        num_concurrent_runs: int | None = None,
        resources: Mapping[Callable[..., Any], Any] | None = None,
    ) -> None:
        _check(type(self).__name__, llm, memory, system_prompt, max_turns)
        given: dict[Callable[..., Any], Any] = {no_tools: Toolbox(tools), no_memory: memory}
        if llm is not None:
            given[choose_model] = llm
        used = _factories(graph_of(type(self)))  # a subclass may have overridden the only step that wants one
        given = {factory: value for factory, value in given.items() if factory in used}
        super().__init__(timeout, verbose, num_concurrent_runs, {**given, **(resources or {})}, name)
        self.agent_name = self.name
        self.max_turns = max_turns
        self.system_prompt = system_prompt or ""
        said = (TextPart(text=self.system_prompt),)
        self._system = ChatMessage(role="system", content=said) if self.system_prompt else None

    def prompts(self) -> dict[str, str]:
        """Every text of the agent's own that a model is sent."""
        return {"system": self.system_prompt, "skipped": SKIPPED}

    def run(
        self,
        query: str | None = None,
        *,
        ctx: Context[Any] | None = None,
        start_event: AgentInput | None = None,
        stepwise: bool = False,
        detached: bool = False,
        **fields: Any,
    ) -> Handler[AgentResult]:
        """Ask the agent: `result = await agent.run("question")`. Otherwise as `Workflow.run`.

        With the `ctx` of a run that has ended, `agent.run("and then?", ctx=handler.ctx)`, the conversation goes on.
        """
        if query is not None:
            fields["query"] = query
        return super().run(ctx=ctx, start_event=start_event, stepwise=stepwise, detached=detached, **fields)

    def run_sync(self, query: str | None = None, **arguments: Any) -> AgentResult:
        """As `run`, in plain code. See `Workflow.run_sync`."""
        return super().run_sync(query=query, **arguments)

    @step
    async def prepare(self, ctx: Context[AgentState], ev: AgentInput, memory: Remembered) -> Turn:
        """Put the question behind what was said before."""
        talk = await conversation_of(ctx)
        history = None if memory is None else await memory.aget(ev.query)
        talk.begin(ev.query, system=self._system, history=history)
        return Turn(number=1)

    @step
    async def call_model(
        self, ctx: Context[AgentState], ev: Turn, llm: Model, tools: Tools
    ) -> list[ToolCall] | Finished:
        """Send the model the conversation; it asks for tools, or answers."""
        talk = await conversation_of(ctx)
        reply = await llm.chat(talk.messages, tools=tools.definitions)
        calls = [ToolCall(id=call.id, name=call.name, arguments=call.arguments) for call in talk.hear(reply)]
        if not calls:
            return Finished(stopped_by="answer")
        for call in calls:
            ctx.write_event_to_stream(call)
        return calls if ev.number < self.max_turns else Finished(stopped_by="max_turns")

    @step(num_workers=8)
    async def call_tool(self, ctx: Context[AgentState], ev: ToolCall, tools: Tools) -> ToolResult:
        """Call one tool. What goes wrong is a result as well."""
        result = await tools.execute(ev.id, ev.name, ev.arguments)
        told = ToolResult(call_id=ev.id, name=ev.name, content=result.content, outcome=result.outcome)
        ctx.write_event_to_stream(told)
        return told

    @step
    async def collect_results(self, ctx: Context[AgentState], ev: ToolResult, memory: Remembered) -> Turn | None:
        """When all results of a turn are there, let it enter the conversation, and the model goes on."""
        talk = await conversation_of(ctx)
        assert talk.pending is not None
        told = ctx.collect_events(ev, {ToolResult: len(talk.pending.tool_calls)})
        if told is None:
            return None
        await self._complete(talk, [result.part() for result in told], memory)
        return Turn(number=talk.turns + 1)

    @step
    async def answer(self, ctx: Context[AgentState], ev: Finished, memory: Remembered) -> AgentResult:
        """The model's last word is the answer; calls that nobody will execute any more are skipped."""
        talk = await conversation_of(ctx)
        assert talk.pending is not None
        skipped = [
            ToolResult(call_id=call.id, name=call.name, content=SKIPPED, outcome="skipped")
            for call in talk.pending.tool_calls
        ]
        await self._complete(talk, [result.part() for result in skipped], memory)
        for result in skipped:
            ctx.write_event_to_stream(result)
        messages = talk.messages[talk.before :]
        return AgentResult(output=talk.said, messages=messages, usage=talk.usage, stopped_by=ev.stopped_by)

    async def _complete(self, talk: Conversation, results: list[ToolResultPart], memory: Memory | None) -> None:
        """Let the pending turn enter the memory as a whole, and then the conversation."""
        turn = talk.turn(results)
        if memory is not None:
            await memory.aput(*talk.messages[talk.kept :], *turn)
        talk.add(turn)


async def conversation_of(ctx: Context[AgentState]) -> Conversation:
    """The conversation of a run itself, no copy."""
    return cast("Conversation", await ctx.get("conversation"))


def _factories(graph: Graph) -> set[Hashable]:
    """The factories of all resources of the steps, and of those that they need."""
    recipes = [recipe for plan in graph.steps for recipe in plan.resources.values()]
    for recipe in recipes:
        recipes.extend(recipe.needs.values())
    return {recipe.key for recipe in recipes}


def _check(kind: str, llm: object, memory: object, system_prompt: object, max_turns: object) -> None:
    if llm is not None and (isinstance(llm, type) or not isinstance(llm, ChatModel)):
        what = "a class, and no model" if isinstance(llm, type) else "no model"
        line = f"{llm.__name__}(...)" if isinstance(llm, type) else f"OpenAI({_model_name(llm)!r})"
        raise AgentConfigurationError(
            f"{kind}(llm={shown(llm)}): it is {what}. Write llm={line}, or leave it out for the one that the "
            "environment names."
        )
    # a class has the methods that the protocol asks for
    if memory is not None and (isinstance(memory, type) or not isinstance(memory, Memory)):
        what = "a class, and no memory" if isinstance(memory, type) else "no memory"
        line = f"{memory.__name__}()" if isinstance(memory, type) else "ChatMemory()"
        raise AgentConfigurationError(
            f"{kind}(memory={shown(memory)}): it is {what}. Write memory={line}, or leave it out for runs that know "
            "nothing of each other."
        )
    if system_prompt is not None and not isinstance(system_prompt, str):
        raise AgentConfigurationError(
            f'{kind}(system_prompt={shown(system_prompt)}): it is a text. Write system_prompt="...", or None for none.'
        )
    if isinstance(max_turns, bool) or not isinstance(max_turns, int) or max_turns < 1:
        raise AgentConfigurationError(f"{kind}(max_turns={shown(max_turns)}): it is a whole number of 1 or more.")


def _model_name(given: object) -> str:
    """The name of a model that was meant: a text that was given in place of a model is taken for one."""
    return given if isinstance(given, str) and given else "gpt-4o-mini"
