"""What breaks in other agent frameworks does not break here. Which test says so, by section and number of the research.

a, probed or read in the comparison of features:

- a.1 parallel tool calls lose results where one of them is returned directly:
  `test_a_direct_tool_beside_another_leaves_no_call_without_a_result` here, and test_integrity.
- a.2 the text of any exception goes to the model whole: test_agent_tools, `test_tool_that_raises_ends_no_run`.
- a.3 streams that repeat what was said before: `test_what_is_streamed_is_as_long_as_the_answer`.
- a.4 retries that nobody sees, and `requests` without them: `test_retries_are_seen_and_counted`.
- a.5 traces that grow with the square of the turns: `test_a_trace_grows_with_the_turns_and_not_with_their_square`.
- a.6 limits that raise, and lose the work: `test_a_limit_keeps_the_work`, test_budget.

f, what users complain about:

- f.1 broken trees of spans under parallel steps and threads: test_telemetry_agents,
  `test_agents_of_a_team_and_agents_as_tools_are_below_who_ran_them`; test_trace_laws; here,
  `test_an_agent_in_a_thread_is_in_the_same_trace`.
- f.2 `Failed to detach context` when a stream is closed elsewhere:
  `test_a_stream_that_is_closed_from_another_task_leaves_nothing_behind`.
- f.3 retries invisible or doubled: as a.4.
- f.4 streaming that ends at the first text: `test_tools_run_after_the_first_text_of_a_stream`.
- f.5 trimming that splits calls from results: test_integrity, test_window;
  `test_a_memory_that_forgets_never_splits_a_call_from_its_result`.
- f.6 exceptions of tools that end the run: test_agent_tools, `test_tool_that_raises_ends_no_run`; here,
  `test_a_tool_that_fails_does_not_end_the_run`.
- f.7 ReAct: answers without a marker that loop, stop words, fences, thoughts in the answer:
  `test_an_answer_without_a_thought_ends_the_run`, `test_what_cannot_be_read_never_loops`,
  `test_thoughts_are_no_answer`; test_reasoning and test_react_agent.
- f.8 as a.6.
- f.9 cancelling that leaks connections: `test_runs_that_are_cancelled_leave_no_connection_open`.
- f.10 event loops: `test_plain_code_may_ask_inside_of_a_running_loop`.
- f.11 sessions of MCP that are closed in another task: test_mcp.
- f.12 global tracers and pinned versions: test_telemetry_setup, test_telemetry_discovery.
- f.13 state that cannot be stored, clients that are lost:
  `test_a_run_that_is_stored_has_no_client_in_it_and_finds_one`.
- f.14 usage that is wrong in streams: `test_usage_is_right_in_streams`.
- f.15 hidden prompts: test_function_agent, `test_prompts_are_shown`; growing memory:
  `test_a_long_run_costs_each_turn_the_same`; types: typing_agents.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import httpx2
import openai
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agentflow import Context, WorkflowCancelledByUser
from agentflow.observe import add_observer
from agentflow_agents import (
    AgentResult,
    ApprovalRequired,
    Budget,
    FunctionAgent,
    TextDelta,
    Thought,
    ToolCall,
    ToolResult,
    tool,
)
from agentflow_agents.react_agent import ReActAgent
from agentflow_instrumentation import SpanObserver
from agentflow_llm import (
    ChatMemory,
    ChatMessage,
    OpenAI,
    ReasoningPart,
    Reply,
    ScriptedModel,
    TextPart,
    ToolCallPart,
    Usage,
)
from agentflow_llm.server import Answer, LoopbackServer
from agentflow_llm.wire import render_messages
from test_integrity import check_messages

USAGE = Usage(input_tokens=20, output_tokens=7, cached_tokens=5, reasoning_tokens=3)


def call(name: str, call_id: str = "1", arguments: str = "{}") -> ToolCallPart:
    return ToolCallPart(id=call_id, name=name, arguments=arguments)


def reply(*parts: Any) -> Reply:
    return Reply(message=ChatMessage(role="assistant", content=parts), usage=USAGE, model="m", finish_reason="stop")


def outcomes(result: AgentResult) -> list[tuple[str, str]]:
    return [(part.call_id, part.outcome) for message in result.messages for part in message.tool_results]


@tool
async def look() -> str:
    """Look around."""
    return "nothing"


def watch() -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    add_observer(SpanObserver(provider, content="full"))
    return exporter


def named(exporter: InMemorySpanExporter, begin: str) -> list[ReadableSpan]:
    found = [span for span in exporter.get_finished_spans() if span.name.startswith(begin)]
    return sorted(found, key=lambda span: span.start_time or 0)


@asynccontextmanager
async def one_connection(script: Sequence[Any]) -> AsyncGenerator[tuple[LoopbackServer, OpenAI]]:
    """A server and a model that has only one connection to it: what is not given back is missed."""
    http = openai.DefaultAsyncHttpx2Client(limits=httpx2.Limits(max_connections=1), timeout=5)
    with LoopbackServer(script) as server:
        client = openai.AsyncOpenAI(api_key="none", base_url=server.base_url, http_client=http, max_retries=0)
        async with client, OpenAI("m", client=client, retry=None) as model:
            yield server, model


@pytest.mark.parametrize("place", [0, 1])
async def test_a_direct_tool_beside_another_leaves_no_call_without_a_result(place: int) -> None:
    @tool(return_direct=True)
    async def direct() -> str:
        """Answer."""
        return "at once"

    calls = [call("look", "1"), call("look", "2")]
    calls[place] = call("direct", calls[place].id)
    memory = ChatMemory()
    with ScriptedModel([calls, "And so on."]) as model:
        agent = FunctionAgent([look, direct], model, memory)
        first = await agent.run("x")
        await agent.run("go on")
    assert (first.output, first.stopped_by) == ("at once", "tool")
    assert outcomes(first) == [("1", "ok"), ("2", "ok")]
    check_messages(render_messages(model.calls[1].messages))


async def test_what_is_streamed_is_as_long_as_the_answer() -> None:
    text = "word " * 400
    handler = FunctionAgent(llm=ScriptedModel([text])).run("x")
    events = [event async for event in handler.stream_events()]
    assert len(events) > 300
    assert sum(len(event.model_dump_json()) for event in events if isinstance(event, TextDelta)) < 40 * len(events)


async def test_retries_are_seen_and_counted() -> None:
    busy = Answer({"error": {"message": "Slow down."}}, status=429, headers={"Retry-After": "0"})
    broken = Answer({"error": {"message": "Sorry."}}, status=500)
    exporter = watch()
    with LoopbackServer([busy, reply(call("look")), broken, reply(TextPart(text="Nothing."))]) as server:
        async with OpenAI("m", base_url=server.base_url, api_key="none") as model:
            result = await FunctionAgent([look], model).run("x")
        assert len(server.requests) == 4
    assert (str(result), result.usage.http_requests, result.usage.total_tokens) == ("Nothing.", 4, 54)
    chats = named(exporter, "chat")
    assert [[event.name for event in span.events] for span in chats] == [["agentflow.retry"]] * 2
    statuses = [dict(span.events[0].attributes or {})["http.response.status_code"] for span in chats]
    assert statuses == [429, 500]


async def test_a_trace_grows_with_the_turns_and_not_with_their_square() -> None:
    @tool
    async def read(page: int) -> str:
        """Read a page."""
        return f"{page:04}" * 512

    sizes: dict[int, int] = {}
    for turns in (10, 30):
        exporter = watch()
        script = [call("read", str(n), f'{{"page": {n}}}') for n in range(turns)]
        await FunctionAgent([read], ScriptedModel([*script, "Read."]), budget=Budget(turns=40)).run("x")
        sizes[turns] = sum(
            len(str(value)) for span in exporter.get_finished_spans() for value in (span.attributes or {}).values()
        )
    assert sizes[30] < 3.2 * sizes[10]
    assert sizes[30] < 12 * 30 * 2048


async def test_a_limit_keeps_the_work() -> None:
    budget = Budget(turns=2)
    result = await FunctionAgent(
        [look], ScriptedModel([call("look"), ["So far.", call("look", "2")]]), budget=budget
    ).run("x")
    assert (result.stopped_by, str(result), outcomes(result)) == ("turns", "So far.", [("1", "ok"), ("2", "skipped")])
    with ScriptedModel(["As I said."]) as model:
        again = await FunctionAgent([look], model).run("go on", history=result.messages)
    assert str(again) == "As I said."
    check_messages(render_messages(model.calls[0].messages))


async def test_an_agent_in_a_thread_is_in_the_same_trace() -> None:
    def ask() -> str:
        """Ask somebody else."""
        return str(FunctionAgent(llm=ScriptedModel(["Five."]), name="inner").run_sync("x"))

    exporter = watch()
    await FunctionAgent([ask], ScriptedModel([call("ask"), "Five."]), name="outer").run("x")
    spans = exporter.get_finished_spans()
    assert len({span.context.trace_id for span in spans if span.context}) == 1
    [inner], [above] = named(exporter, "invoke_agent inner"), named(exporter, "execute_tool ask")
    assert inner.parent is not None
    assert above.context is not None
    assert inner.parent.span_id == above.context.span_id


async def test_a_stream_that_is_closed_from_another_task_leaves_nothing_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = asyncio.all_tasks()
    exporter = watch()
    script = [Answer(reply(TextPart(text="word " * 50)), drip=0.005), reply(TextPart(text="Well."))]
    with caplog.at_level(logging.WARNING):
        async with one_connection(script) as (_, model):
            agent = FunctionAgent(llm=model)
            handler = agent.run("x")
            stream = handler.stream_events()
            assert isinstance(await anext(stream), TextDelta)
            await asyncio.create_task(stream.aclose())
            await handler.cancel_run()
            with pytest.raises(WorkflowCancelledByUser):
                await handler
            assert str(await asyncio.wait_for(agent.run("y"), 5)) == "Well."
    gc.collect()
    assert [record.getMessage() for record in caplog.records] == []
    assert asyncio.all_tasks() == before
    runs = named(exporter, "invoke_agent")
    assert [dict(span.attributes or {})["agentflow.outcome"] for span in runs] == ["cancelled", "ok"]


async def test_tools_run_after_the_first_text_of_a_stream() -> None:
    script = [reply(TextPart(text="Let me look."), call("look")), reply(TextPart(text="Nothing."))]
    with LoopbackServer(script) as server:
        async with OpenAI("m", base_url=server.base_url, api_key="none") as model:
            handler = FunctionAgent([look], model).run("x")
            events = [event async for event in handler.stream_events()]
    kinds = [type(event) for event in events]
    assert kinds.index(TextDelta) < kinds.index(ToolCall) < kinds.index(ToolResult)
    assert str(await handler) == "Nothing."


async def test_a_memory_that_forgets_never_splits_a_call_from_its_result() -> None:
    memory = ChatMemory(token_limit=60)
    script: list[Any] = []
    for turn in range(20):
        script += [[call("look", f"{turn}a"), call("look", f"{turn}b")], f"Nothing, at {turn}."]
    with ScriptedModel(script) as model:
        agent = FunctionAgent([look], model, memory)
        for turn in range(20):
            await agent.run(f"And {turn}?")
    for asked in model.calls:
        check_messages(render_messages(asked.messages))
    assert max(len(asked.messages) for asked in model.calls) < 30


async def test_a_tool_that_fails_does_not_end_the_run() -> None:
    def fail() -> None:
        """Fail."""
        raise KeyError("secret place")

    result = await FunctionAgent([fail, look], ScriptedModel([[call("fail"), call("look", "2")], "Well."])).run("x")
    assert (str(result), outcomes(result)) == ("Well.", [("1", "error"), ("2", "ok")])


async def test_an_answer_without_a_thought_ends_the_run() -> None:
    with ScriptedModel(["It is five o'clock."]) as model:
        result = await ReActAgent([look], model).run("What time is it?")
    assert (str(result), result.stopped_by) == ("It is five o'clock.", "answer")
    with ScriptedModel(["Answer: Five."]) as model:
        assert str(await ReActAgent([look], model).run("What time is it?")) == "Five."


@pytest.mark.parametrize("said", ["Thought: hm", "Action:", "```\n```", "Action Input: {", "", "Observation: x"])
async def test_what_cannot_be_read_never_loops(said: str) -> None:
    model = ScriptedModel([said] * 5)
    result = await ReActAgent([look], model).run("x")
    assert result.stopped_by == "answer"
    assert len(model.calls) <= 3


async def test_thoughts_are_no_answer() -> None:
    model = ScriptedModel(
        ["Thought: Hm, I look.\nAction: look\nAction Input: {}", "Thought: I know.\nAnswer: Nothing."]
    )
    handler = ReActAgent([look], model).run("x")
    events = [event async for event in handler.stream_events()]
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "Nothing."
    assert "I know." in "".join(event.text for event in events if isinstance(event, Thought))


async def test_thoughts_of_a_model_that_reasons_are_no_answer() -> None:
    model = ScriptedModel([[ReasoningPart(text="Hm."), "Five."]])
    handler = FunctionAgent(llm=model).run("x")
    events = [event async for event in handler.stream_events()]
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "Five."
    assert str(await handler) == "Five."


@pytest.mark.parametrize("followed", [False, True])
async def test_runs_that_are_cancelled_leave_no_connection_open(
    followed: bool,  # noqa: FBT001 because it is a parameter of the test
) -> None:
    slow = Answer(reply(TextPart(text="word " * 20)), drip=0.004)
    async with one_connection([slow] * 50 + [reply(TextPart(text="Well."))]) as (server, model):
        agent = FunctionAgent(llm=model)
        for number in range(50):
            handler = agent.run("x")
            if followed:
                stream = handler.stream_events()
                await anext(stream)
            while len(server.requests) <= number:  # noqa: ASYNC110 because the server sets no event of this loop
                await asyncio.sleep(0)
            await handler.cancel_run()
            with pytest.raises(WorkflowCancelledByUser):
                await handler
        assert str(await asyncio.wait_for(agent.run("y"), 5)) == "Well."
    assert len(asyncio.all_tasks()) == 1


async def test_plain_code_may_ask_inside_of_a_running_loop() -> None:
    agent = FunctionAgent([look], ScriptedModel([call("look"), "Nothing."]))
    assert str(agent.run_sync("x")) == "Nothing."


async def test_a_run_that_is_stored_has_no_client_in_it_and_finds_one() -> None:
    @tool(requires_approval=True)
    async def pay() -> str:
        """Pay."""
        return "paid"

    with LoopbackServer([reply(call("pay")), reply(TextPart(text="It is paid."))]) as server:
        async with OpenAI("m", base_url=server.base_url, api_key="sk-secret-of-mine") as model:
            handler = FunctionAgent([pay], model, ChatMemory()).run("x")
            asked: list[ApprovalRequired] = []
            async for event in handler.stream_events():
                if isinstance(event, ApprovalRequired):
                    asked.append(event)
                    break
            stored = json.loads(json.dumps(handler.ctx.to_dict()))
            await handler.cancel_run()
        assert "sk-secret-of-mine" not in json.dumps(stored)
        assert "127.0.0.1" not in json.dumps(stored)
        async with OpenAI("m", base_url=server.base_url, api_key="none") as other:
            agent = FunctionAgent([pay], other, ChatMemory())
            again = agent.run(ctx=Context.from_dict(agent, stored))
            again.ctx.send_event(asked[0].approve())
            assert str(await again) == "It is paid."


async def test_usage_is_right_in_streams() -> None:
    with LoopbackServer([reply(call("look")), reply(TextPart(text="Nothing."))] * 2) as server:
        async with OpenAI("m", base_url=server.base_url, api_key="none") as model:
            agent = FunctionAgent([look], model)
            plain = await agent.run("x")
            handler = agent.run("x")
            async for _ in handler.stream_events():
                pass
            streamed = await handler
    assert plain.usage == streamed.usage
    used = streamed.usage
    assert (used.input_tokens, used.output_tokens, used.cached_tokens, used.reasoning_tokens) == (40, 14, 10, 6)
    assert used.http_requests == 2


async def test_a_long_run_costs_each_turn_the_same() -> None:
    """Beside what the model is sent nothing is copied: what a turn adds to the state is the same at the end."""
    sizes: list[int] = []

    @tool
    async def weigh(ctx: Context, n: int) -> str:
        """Weigh the run."""
        sizes.append(len(ctx.to_json()))
        return "x" * 100

    script = [call("weigh", str(n), f'{{"n": {n}}}') for n in range(100)]
    await FunctionAgent([weigh], ScriptedModel([*script, "Done."]), budget=Budget(turns=200)).run("x")
    added = [later - sooner for sooner, later in pairwise(sizes[10:])]
    assert max(added) - min(added) < 50
