"""The calls of models, tools, retrievals and memories are timed, and their tokens and dollars counted once."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import pytest

from agentflow import Context, Resource, Retry, StartEvent, StopEvent, Workflow, step
from agentflow.clock import use_clock
from agentflow.observe import Kind, operation
from agentflow.testing import FakeClock
from agentflow_agents import ApprovalRequired, FunctionAgent, RAGAgent, ReActAgent, Tool, Toolbox, tool
from agentflow_llm import (
    Cached,
    ChatMemory,
    ChatMessage,
    Document,
    Fallback,
    HashEmbedder,
    LLMServerError,
    OfflineModel,
    OpenAI,
    Reply,
    ScriptedModel,
    ToolCallPart,
    Usage,
)
from agentflow_llm.server import LoopbackServer
from measured import ERROR, EXHAUSTED, TOOL, WF, Metrics, number

DURATION, TOKENS, COST = "gen_ai.client.operation.duration", "gen_ai.client.token.usage", "agentflow.llm.cost"
HELLO = [ChatMessage(role="user", content="Hello")]


def said(text: str = "Hi", **usage: Any) -> Reply:
    return Reply(message=ChatMessage(role="assistant", content=text), model="scripted-2026", usage=Usage(**usage))


async def test_a_chat_has_its_time_its_tokens_and_its_cost() -> None:
    seen = Metrics()
    await ScriptedModel([said(input_tokens=30, output_tokens=4, cost=0.25)]).chat(HELLO)
    asked = {"gen_ai.provider.name": "scripted", "gen_ai.request.model": "scripted"}
    about = {"gen_ai.operation.name": "chat", **asked, "gen_ai.response.model": "scripted-2026"}
    assert seen.dimensions(DURATION) == [about]
    assert {point.attributes["gen_ai.token.type"]: point.sum for point in seen.points(TOKENS, about)} == {
        "input": 30,
        "output": 4,
    }
    assert seen.value(COST, asked) == 0.25


async def test_usage_that_nobody_told_is_not_guessed() -> None:
    seen = Metrics()
    await ScriptedModel([said(), said(input_tokens=7)]).chat(HELLO)
    assert (seen.points(TOKENS), seen.points(COST)) == ([], [])


async def test_where_a_model_runs_is_a_dimension() -> None:
    seen = Metrics()
    with LoopbackServer(["Hi"]) as server:
        await OpenAI("gpt-4o-mini", base_url=server.base_url, api_key="k").chat(HELLO)
        [about] = seen.dimensions(DURATION)
        assert f"http://{about['server.address']}:{about['server.port']}" in server.base_url


async def test_a_stream_has_the_time_to_its_first_piece() -> None:
    seen = Metrics()
    model = ScriptedModel([said("one two three"), said("plain")])
    await model.stream(HELLO).read()
    assert seen.value("gen_ai.client.operation.time_to_first_chunk") == 1
    await model.chat(HELLO)
    assert seen.value("gen_ai.client.operation.time_to_first_chunk") == 1
    assert seen.value(DURATION) == 2


async def test_attempts_of_a_model_are_retries_and_one_call() -> None:
    seen = Metrics()
    turns: list[Exception | Reply] = [LLMServerError("busy"), LLMServerError("busy"), said(input_tokens=9, cost=1.0)]
    with use_clock(FakeClock()) as clock:
        call = asyncio.create_task(ScriptedModel(turns, retry=Retry(attempts=3, wait=2)).chat(HELLO))
        await clock.advance(9)
        await call
    retried = {"agentflow.retry.scope": "llm", "agentflow.retry.name": "scripted"}
    assert seen.value("agentflow.retries", {**retried, EXHAUSTED: False}) == 2
    assert seen.value("agentflow.retry.wait", retried) == 4
    assert seen.points("agentflow.retries", {EXHAUSTED: True}) == []
    assert seen.value(DURATION) == 1
    assert seen.value(TOKENS) == 1
    assert seen.value(COST) == 1
    assert ERROR not in seen.dimensions(DURATION)[0]


async def test_a_model_that_never_answers_has_used_up_its_retries() -> None:
    seen = Metrics()
    with use_clock(FakeClock()) as clock:
        model = ScriptedModel([LLMServerError("busy")] * 2, retry=Retry(attempts=2, wait=2))
        call = asyncio.create_task(model.chat(HELLO))
        await clock.advance(9)
        with pytest.raises(LLMServerError):
            await call
    assert seen.value("agentflow.retries", {EXHAUSTED: False}) == 1
    assert seen.value("agentflow.retries", {EXHAUSTED: True}) == 1
    assert [about[ERROR].rpartition(".")[2] for about in seen.dimensions(DURATION)] == ["LLMServerError"]


class Other(ScriptedModel):
    """Another model, by its name."""

    def __init__(self, turns: list[Any], **options: Any) -> None:
        super().__init__(turns, **options)
        self.model, self.provider = "other-model", "other"


async def test_the_model_that_answered_in_place_of_another_is_counted() -> None:
    seen = Metrics()
    with use_clock(FakeClock()) as clock:
        first = ScriptedModel([LLMServerError("busy")] * 2, retry=Retry(attempts=2, wait=2))
        second = Other([LLMServerError("busy"), said(input_tokens=5, cost=2.0)], retry=Retry(attempts=2, wait=2))
        call = asyncio.create_task(Fallback([first, second]).chat(HELLO))
        await clock.advance(9)
        await call
    other = {"gen_ai.provider.name": "other", "gen_ai.request.model": "other-model"}
    assert [len(seen.points(name)) for name in (DURATION, TOKENS, COST)] == [1, 1, 1]
    assert seen.value(DURATION, other) == seen.value(TOKENS, other) == 1
    assert seen.value(COST, other) == 2
    by_name = {
        (p.attributes["agentflow.retry.name"], p.attributes[EXHAUSTED]) for p in seen.points("agentflow.retries")
    }
    assert by_name == {("scripted", False), ("scripted", True), ("other-model", False)}


async def test_what_a_cache_answers_is_no_call_of_a_model() -> None:
    seen = Metrics()
    model = Cached(ScriptedModel([said(input_tokens=9, cost=1.0)]))
    await model.chat(HELLO)
    await model.chat(HELLO)
    assert (seen.value(DURATION), seen.value(TOKENS), seen.value(COST)) == (1, 1, 1)


async def test_a_call_that_was_cancelled_has_its_time_and_no_error() -> None:
    class Slow(ScriptedModel):
        async def answer(self, call: Any) -> Reply:
            await asyncio.Event().wait()
            raise AssertionError

    seen = Metrics()
    call = asyncio.create_task(Slow(["never"]).chat(HELLO))
    for _ in range(5):
        await asyncio.sleep(0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert seen.value(DURATION) == 1
    assert ERROR not in seen.dimensions(DURATION)[0]


async def test_embeddings_have_their_time_and_tokens() -> None:
    seen = Metrics()
    await HashEmbedder().embed(["one", "two"])
    [about] = seen.dimensions(DURATION)
    assert about["gen_ai.operation.name"] == "embeddings"
    assert all(point.attributes["gen_ai.token.type"] == "input" for point in seen.points(TOKENS))


# tools


async def test_tools_have_their_time_and_their_errors() -> None:
    async def add(a: int, b: int) -> int:
        return a + b

    async def fail() -> str:
        raise KeyError

    seen = Metrics()
    box = Toolbox([add, fail])
    await box.execute("1", "add", '{"a": 1, "b": 2}')
    await box.execute("2", "fail", "{}")
    for name in ("addition", "sum", "plus"):
        await box.execute("3", name, "{}")
    made = {
        p.attributes[TOOL]: (p.attributes.get(ERROR), number(p)) for p in seen.points("gen_ai.execute_tool.duration")
    }
    assert made.pop("_other")[1] == 3
    assert made == {"add": (None, 1), "fail": ("KeyError", 1)}


async def test_attempts_of_a_tool_are_retries() -> None:
    async def fail() -> str:
        raise ConnectionError

    seen = Metrics()
    with use_clock(FakeClock()) as clock:
        box = Toolbox([Tool(fail, retry=Retry(attempts=3, wait=2))])
        call = asyncio.create_task(box.execute("1", "fail", "{}"))
        await clock.advance(9)
        await call
    retried = {"agentflow.retry.scope": "tool", "agentflow.retry.name": "fail", ERROR: "ConnectionError"}
    assert seen.value("agentflow.retries", {**retried, EXHAUSTED: False}) == 2
    assert seen.value("agentflow.retries", {**retried, EXHAUSTED: True}) == 1
    assert seen.value("agentflow.retry.wait", retried) == 4


# agents


def call(name: str, number: int = 1) -> ToolCallPart:
    return ToolCallPart(id=str(number), name=name, arguments="{}")


async def look() -> str:
    """Look around."""
    return "nothing"


async def test_an_agent_has_its_time_and_its_calls() -> None:
    seen = Metrics()
    model = ScriptedModel([[call("look", 1), call("look", 2)], [call("invent", 3)], "Nothing."])
    await FunctionAgent(name="scout", tools=[look], llm=model).run("What is there?")
    scout = {"gen_ai.agent.name": "scout"}
    assert seen.value("gen_ai.invoke_agent.duration", scout) == 1
    assert [point.sum for point in seen.points("gen_ai.invoke_agent.inference_calls", scout)] == [3]
    assert [point.sum for point in seen.points("gen_ai.invoke_agent.tool_calls", scout)] == [3]
    assert {p.attributes[TOOL] for p in seen.points("gen_ai.execute_tool.duration", scout)} == {"look", "_other"}
    [workflow] = seen.dimensions("gen_ai.invoke_workflow.duration")
    assert workflow["agentflow.outcome"] == "ok"


async def test_calls_before_a_pause_are_counted_too() -> None:
    @tool(requires_approval=True)
    async def pay() -> str:
        """Pay."""
        return "paid"

    seen = Metrics()
    model = ScriptedModel([[call("look", 1)], [call("pay", 2)], "Paid."])
    agent = FunctionAgent(name="clerk", tools=[look, pay], llm=model)
    with use_clock(FakeClock()) as clock:
        handler = agent.run("Pay.")
        await clock.advance(31)
        data = handler.ctx.to_dict()
        await handler.cancel_run()
        [asked] = [event async for event in handler.stream_events() if isinstance(event, ApprovalRequired)]
        again = agent.run(ctx=Context.from_dict(agent, data))
        again.ctx.send_event(asked.approve())
        await again
    assert [(p.count, p.sum) for p in seen.points("gen_ai.invoke_agent.inference_calls")] == [(1, 3)]
    assert [(p.count, p.sum) for p in seen.points("gen_ai.invoke_agent.tool_calls")] == [(1, 2)]


async def test_an_agent_without_tool_calling_is_measured_alike() -> None:
    seen = Metrics()
    model = ScriptedModel(["Thought: look.\nAction: look\nAction Input: {}", "Thought: done.\nAnswer: Nothing."])
    await ReActAgent(name="reader", tools=[look], llm=model).run("What is there?")
    assert [point.sum for point in seen.points("gen_ai.invoke_agent.inference_calls")] == [2]
    assert [point.sum for point in seen.points("gen_ai.invoke_agent.tool_calls")] == [1]


async def test_an_agent_of_documents_has_its_retrievals() -> None:
    seen = Metrics()
    farm = [Document("A cat sleeps sixteen hours a day.", "cats.md")]
    await RAGAgent(documents=farm, llm=OfflineModel()).run("How long does a cat sleep a day?")
    [found] = seen.points("agentflow.retrieval.documents")
    assert (found.count, found.sum) == (1, 1)
    assert seen.value("agentflow.retrieval.duration") == 1
    assert seen.dimensions("agentflow.retrieval.duration") == [dict(found.attributes)]


# the rest


def connect() -> str:
    return "connection"


class Connected(Workflow):
    @step
    async def work(self, ctx: Context, ev: StartEvent, line: Annotated[str, Resource(connect)]) -> StopEvent:
        memory = ChatMemory()
        await memory.aput(*HELLO)
        await memory.aget("Hello")
        for kind, name in ((Kind.CHECKPOINT, "store"), (Kind.RERANK, "sorter")):
            with operation(kind, name):
                pass
        return StopEvent()


async def test_memories_resources_rerankings_and_checkpoints_have_their_time() -> None:
    seen = Metrics()
    await Connected().run()
    at = {WF: "Connected"}
    names = {about["agentflow.memory.operation"] for about in seen.dimensions("agentflow.memory.duration")}
    assert names == {"put", "get"}
    assert seen.dimensions("agentflow.resource.duration") == [{**at, "agentflow.resource.name": "connect"}]
    assert seen.dimensions("agentflow.checkpoint.duration") == [at]
    assert seen.dimensions("agentflow.rerank.duration") == [{**at, "reranker.model_name": "sorter"}]
