"""FunctionAgent: turns, tools, memory, limits, the stream, and a run that is put away."""

import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from agentflow import (
    Context,
    Event,
    Resource,
    WorkflowCancelledByUser,
    WorkflowRuntimeError,
    draw_all_possible_flows,
    step,
)
from agentflow.testing import record
from agentflow_agents import (
    AgentConfigurationError,
    AgentInput,
    AgentResult,
    AgentState,
    Budget,
    Finished,
    FunctionAgent,
    TextDelta,
    ToolCall,
    ToolResult,
    Turn,
    tool,
)
from agentflow_agents.resources import Model, Remembered, choose_model
from agentflow_agents.state import state_of
from agentflow_llm import (
    ChatMemory,
    ChatMessage,
    LLMUnavailableError,
    OfflineModel,
    OpenAI,
    RefusalPart,
    Reply,
    ScriptedModel,
    TextPart,
    ToolCallPart,
    Usage,
)
from agentflow_llm.server import LoopbackServer


@tool
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def call(call_id: str, a: int = 1, b: int = 2, name: str = "add") -> ToolCallPart:
    return ToolCallPart(id=call_id, name=name, arguments=f'{{"a": {a}, "b": {b}}}')


def outcomes(result: AgentResult) -> list[tuple[str, str, str]]:
    return [(p.call_id, p.content, p.outcome) for message in result.messages for p in message.tool_results]


def roles(messages: list[ChatMessage]) -> list[str]:
    return [message.role for message in messages]


async def test_model_that_answers_at_once_is_called_once() -> None:
    with ScriptedModel(["Paris."]) as model:
        result = await FunctionAgent(llm=model).run("Capital of France?")
    assert (result.output, str(result), result.stopped_by) == ("Paris.", "Paris.", "answer")
    assert [m.text for m in result.messages] == ["Capital of France?", "Paris."]


async def test_results_of_tools_go_back_to_the_model() -> None:
    with ScriptedModel([call("c1"), "It is 3."]) as model:
        result = await FunctionAgent([add], model, system_prompt="Be brief.").run("1 + 2?")
    assert outcomes(result) == [("c1", "3", "ok")]
    assert roles(result.messages) == ["user", "assistant", "tool", "assistant"]
    first, second = model.calls
    assert first.tools == (add.definition,)
    assert [m.text for m in first.messages] == ["Be brief.", "1 + 2?"]
    assert second.messages[1:] == result.messages[:3]


async def test_question_may_be_given_by_name_or_as_an_event() -> None:
    with ScriptedModel(["a", "b"]) as model:
        agent = FunctionAgent(llm=model)
        assert str(await agent.run(query="x")) == "a"
        assert str(await agent.run(start_event=AgentInput(query="x"))) == "b"
        with pytest.raises(WorkflowRuntimeError, match=r"FunctionAgent.run\(query: str, history"):
            await agent.run()


def test_agent_runs_in_plain_code() -> None:
    with ScriptedModel(["a", "b"]) as model:
        agent = FunctionAgent(llm=model)
        assert str(agent.run_sync("x")) == "a"
        assert str(agent.run_sync(query="x")) == "b"


async def test_calls_of_one_turn_go_on_at_once_and_their_results_keep_the_order() -> None:
    together = asyncio.Barrier(3)

    async def meet(a: int, b: int) -> int:
        await together.wait()
        for _ in range(5 - a):
            await asyncio.sleep(0)
        return a

    with ScriptedModel([[call(f"c{n}", n, name="meet") for n in range(3)], "met"]) as model:
        result = await FunctionAgent([meet], model).run("meet")
    assert [(i, text) for i, text, _ in outcomes(result)] == [("c0", "0"), ("c1", "1"), ("c2", "2")]


async def test_no_more_than_eight_calls_go_on_at_once() -> None:
    now = most = 0

    async def work(a: int, b: int) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1

    with ScriptedModel([[call(f"c{n}", name="work") for n in range(30)], "done"]) as model:
        result = await FunctionAgent([work], model).run("work")
    assert most == 8
    assert len(outcomes(result)) == 30


async def test_what_goes_wrong_is_a_result_and_the_model_goes_on() -> None:
    def fail(a: int, b: int) -> None:
        raise ValueError("no such number")

    calls: list[Any] = [
        call("c1", name="fail"),
        ToolCallPart(id="c2", name="add", arguments='{"a": 1}'),
        ToolCallPart(id="c3", name="add", arguments='{"a": '),
        call("c4", name="ad"),
        call("c5"),
    ]
    with ScriptedModel([calls, "well"]) as model:
        result = await FunctionAgent([add, fail], model).run("x")
    told = outcomes(result)
    assert [(i, outcome) for i, _, outcome in told] == [
        ("c1", "error"),
        ("c2", "error"),
        ("c3", "error"),
        ("c4", "error"),
        ("c5", "ok"),
    ]
    assert told[0][1] == "The tool failed: ValueError: no such number"
    assert "b: is missing" in told[1][1]
    assert "no valid JSON" in told[2][1]
    assert "Did you mean 'add'?" in told[3][1]


async def test_call_ids_of_a_careless_server_are_made_its_own() -> None:
    with ScriptedModel([[call("c", 1), call("c", 2), call("", 3)], call("c", 4), "done"]) as model:
        result = await FunctionAgent([add], model).run("x")
    told = outcomes(result)
    assert [text for _, text, _ in told] == ["3", "4", "5", "6"]
    assert len({i for i, _, _ in told}) == 4
    made = [c.id for message in result.messages for c in message.tool_calls]
    assert made == [i for i, _, _ in told]


async def test_stream_shows_calls_and_results_and_ends_with_the_result() -> None:
    with ScriptedModel([[call("c1"), call("c2", name="nope")], "3"]) as model:
        handler = FunctionAgent([add], model, name="clerk").run("x")
        events = [event async for event in handler.stream_events()]
    assert events[:3] == [
        ToolCall(call_id="c1", name="add", arguments='{"a": 1, "b": 2}', agent="clerk"),
        ToolCall(call_id="c2", name="nope", arguments='{"a": 1, "b": 2}', agent="clerk"),
        ToolResult(call_id="c1", name="add", content="3", agent="clerk"),
    ]
    assert isinstance(events[3], ToolResult)
    assert events[3].outcome == "error"
    assert events[4] == TextDelta(text="3", agent="clerk")
    assert events[5] is await handler


async def test_limit_of_turns_ends_in_a_partial_result() -> None:
    ran = 0

    async def count(a: int, b: int) -> int:
        nonlocal ran
        ran += 1
        return ran

    memory = ChatMemory()
    turns: list[Any] = [call("c1", name="count"), ["Let me see.", call("c2", name="count"), call("c3", name="count")]]
    with ScriptedModel(turns) as model:
        handler = FunctionAgent([count], model, memory, budget=Budget(turns=2)).run("x")
        events = [event async for event in handler.stream_events()]
    result = await handler
    assert (result.stopped_by, result.output, ran) == ("turns", "Let me see.", 1)
    skipped = "This call was skipped: the limit of turns was reached."
    assert outcomes(result) == [("c1", "1", "ok"), ("c2", skipped, "skipped"), ("c3", skipped, "skipped")]
    assert await memory.aget() == result.messages
    assert sum(isinstance(event, ToolCall) for event in events) == 3
    assert sum(isinstance(event, ToolResult) for event in events) == 3


async def test_answer_in_the_last_turn_is_an_answer() -> None:
    with ScriptedModel([call("c1"), "3"]) as model:
        result = await FunctionAgent([add], model, budget=Budget(turns=2)).run("x")
    assert result.stopped_by == "answer"


async def test_usage_is_that_of_all_calls_of_the_run() -> None:
    def reply(part: Any) -> Reply:
        message = ChatMessage(role="assistant", content=(part,))
        return Reply(message=message, usage=Usage(input_tokens=10, output_tokens=2, http_requests=1))

    model = ScriptedModel([reply(call("c1")), reply(TextPart(text="3")), reply(TextPart(text="4"))])
    memory = ChatMemory()
    agent = FunctionAgent([add], model, memory)
    first, second = await agent.run("x"), await agent.run("y")
    assert (first.usage.total_tokens, first.usage.http_requests) == (24, 2)
    assert second.usage.total_tokens == 12


async def test_refusal_is_the_output() -> None:
    refused = Reply(message=ChatMessage(role="assistant", content=(RefusalPart(text="I will not."),)))
    assert (await FunctionAgent(llm=ScriptedModel([refused])).run("x")).output == "I will not."


async def test_runs_without_a_memory_know_nothing_of_each_other() -> None:
    with ScriptedModel([lambda messages: messages[-1].text] * 4) as model:
        agent = FunctionAgent(llm=model, system_prompt="")
        results = await asyncio.gather(*(agent.run(f"q{n}") for n in range(4)))
    assert [str(result) for result in results] == ["q0", "q1", "q2", "q3"]
    assert [len(c.messages) for c in model.calls] == [1] * 4


async def test_memory_lets_the_conversation_go_on() -> None:
    memory = ChatMemory()
    with ScriptedModel([call("c1"), "3", "as I said, 3"]) as model:
        agent = FunctionAgent([add], model, memory)
        first = await agent.run("1 + 2?")
        second = await agent.run("what was it?")
    assert await memory.aget() == [*first.messages, *second.messages]
    assert model.calls[-1].messages[1:-1] == first.messages
    assert roles(second.messages) == ["user", "assistant"]


async def test_context_of_a_run_that_has_ended_lets_its_conversation_go_on() -> None:
    with ScriptedModel([call("c1"), "3", "as I said, 3"]) as model:
        agent = FunctionAgent([add], model)
        handler = agent.run("1 + 2?")
        first = await handler
        second = await agent.run("what was it?", ctx=handler.ctx)
    assert roles(list(model.calls[-1].messages)) == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert model.calls[-1].messages[1:-1] == first.messages
    assert len(second.messages) == 2


async def test_memory_gets_whole_turns_only() -> None:
    started = asyncio.Event()

    async def hang(a: int, b: int) -> None:
        started.set()
        await asyncio.Event().wait()

    memory = ChatMemory()
    model = ScriptedModel([call("c1"), [call("c2"), call("c3", name="hang")], "goes on"])
    agent = FunctionAgent([add, hang], model, memory)
    handler = agent.run("x")
    await started.wait()
    await handler.cancel_run()
    with pytest.raises(WorkflowCancelledByUser):
        await handler
    kept = await memory.aget()
    assert roles(kept) == ["user", "assistant", "tool"]
    assert [part.call_id for part in kept[-1].tool_results] == ["c1"]
    await agent.run("and now?")
    assert roles(await memory.aget()) == ["user", "assistant", "tool", "user", "assistant"]


async def test_question_that_the_model_could_not_take_is_not_remembered() -> None:
    memory = ChatMemory()
    agent = FunctionAgent(llm=ScriptedModel([LLMUnavailableError("busy"), "hello"]), memory=memory)
    with pytest.raises(LLMUnavailableError):
        await agent.run("x")
    assert await memory.aget() == []
    await agent.run("x")
    assert [m.text for m in await memory.aget()] == ["x", "hello"]


async def test_run_that_is_put_away_goes_on_without_doing_again_what_was_done() -> None:
    ran: list[str] = []
    waiting = asyncio.Event()
    open_gate = False

    async def first(a: int, b: int) -> str:
        ran.append("first")
        return "one"

    async def second(a: int, b: int) -> str:
        ran.append("second")
        if not open_gate:
            waiting.set()
            await asyncio.Event().wait()
        return "two"

    turns: list[Any] = [call("c1", name="first"), [call("c2", name="first"), call("c3", name="second")], "done"]
    model = ScriptedModel(turns)
    handler = FunctionAgent([first, second], model).run("x")
    await waiting.wait()
    text = handler.ctx.to_json()
    await handler.cancel_run()
    open_gate = True

    agent = FunctionAgent([first, second], model)
    result = await agent.run(ctx=Context.from_json(agent, text))
    assert ran == ["first", "first", "second", "second"]
    assert [text for _, text, _ in outcomes(result)] == ["one", "one", "two"]
    assert [m.text for m in result.messages if m.role == "user"] == ["x"]
    assert (result.output, len(model.calls)) == ("done", 3)


async def test_run_goes_on_step_by_step() -> None:
    with ScriptedModel([call("c1"), "3"]) as model:
        handler = FunctionAgent([add], model).run("x", stepwise=True)
        produced: list[str] = []
        while events := await handler.run_step():
            for event in events:
                produced.append(type(event).__name__)
                handler.ctx.send_event(event)
    assert produced == ["Turn", "ToolCall", "ToolResult", "Turn", "Finished", "AgentResult"]


async def test_run_is_a_tree_of_operations_with_the_agents_name() -> None:
    def fail(a: int, b: int) -> None:
        raise ValueError("no")

    with record() as seen:
        await FunctionAgent([add, fail], ScriptedModel([[call("c1"), call("c2", name="fail")], "3"]), name="clerk").run(
            "x"
        )
    [run] = seen.find("run")
    assert (run.agent, run.name, run.outcome) == ("clerk", "clerk", "ok")
    assert str(run.result) == "3"
    [failed] = seen.find("tool", "fail")
    assert (failed.outcome, failed.result.outcome) == ("error", "error")
    assert isinstance(seen.errors[failed.ref.id], ValueError)
    assert re.sub(r"\n +event.*", "", seen.tree()) == (
        "run clerk\n"
        "  step prepare\n"
        "  step call_model\n"
        "    chat scripted\n"
        "  step call_tool\n"
        "    tool add\n"
        "  step call_tool\n"
        "    tool fail error\n"
        "  step collect_results collecting\n"
        "  step collect_results\n"
        "  step call_model\n"
        "    chat scripted\n"
        "  step answer"
    )


async def test_agent_without_a_model_takes_the_one_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTFLOW_MODEL", "offline")
    result = await FunctionAgent([add]).run("What do you get when you add 2 and 40?")
    assert "42" in str(result)


async def test_model_tools_and_memory_are_resources() -> None:
    made: list[str] = []

    def make_model() -> OfflineModel:
        made.append("model")
        return OfflineModel()

    agent = FunctionAgent([add], resources={choose_model: Resource(make_model)})
    await agent.run("add 1 and 2")
    await agent.run("add 1 and 2")
    assert made == ["model"]


def test_prompts_are_shown() -> None:
    own = FunctionAgent().prompts()
    assert FunctionAgent(system_prompt="Be kind.").prompts() == {**own, "system": "Be kind."}
    assert FunctionAgent(prompts={"refused": "No: {reason}"}).prompts() == {**own, "refused": "No: {reason}"}


def test_subclass_changes_the_prompts_that_it_names() -> None:
    class Kind(FunctionAgent):
        PROMPTS: ClassVar[Mapping[str, str]] = {"system": "Be kind."}

    assert Kind().prompts() == {**FunctionAgent().prompts(), "system": "Be kind."}
    assert FunctionAgent().prompts()["system"] != "Be kind."


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        (
            {"sytem": "x"},
            "FunctionAgent(prompts=...) has no prompt 'sytem'. Did you mean 'system'? There are 'system', 'task'",
        ),
        ({"refused": "No."}, "the prompt 'refused' of FunctionAgent(prompts=...) lacks {reason}"),
        ({"system": 3}, "is 3: it must be a text"),
    ],
)
def test_wrong_prompts_are_refused(prompts: dict[str, Any], said: str) -> None:
    with pytest.raises(AgentConfigurationError, match=re.escape(said)):
        FunctionAgent(prompts=prompts)


async def test_steps_can_be_overridden_and_added() -> None:
    class Checked(Event):
        stopped_by: Any

    class Careful(FunctionAgent):
        @step
        async def check(self, ctx: Context[AgentState], ev: Finished) -> Checked:
            return Checked(stopped_by=ev.stopped_by)

        @step
        async def answer(self, ctx: Context[AgentState], ev: Checked, llm: Model, memory: Remembered) -> AgentResult:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]  # because it takes another event
            result = await super().answer(ctx, Finished(stopped_by=ev.stopped_by), llm, memory)
            return result.model_copy(update={"output": str(result).upper()})

    with ScriptedModel([call("c1"), "hello"]) as model:
        result = await Careful([add], model).run("x")
    assert (result.output, len(result.messages)) == ("HELLO", 4)


async def test_step_that_needs_no_model_can_replace_the_one_that_calls_it() -> None:
    class Parrot(FunctionAgent):
        @step
        async def call_model(self, ctx: Context[AgentState], ev: Turn) -> list[ToolCall] | Finished:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]  # because it wants no resources
            talk = state_of(ctx).conversation
            talk.hear(Reply(message=ChatMessage(role="assistant", content=talk.messages[-1].content)))
            return Finished(stopped_by="answer")

    assert str(await Parrot([add], OfflineModel()).run("x")) == "x"


async def test_plain_tools_run_in_threads_at_once() -> None:
    both = threading.Barrier(2, timeout=10)

    def meet(a: int, b: int) -> int:
        return both.wait()

    with ScriptedModel([[call("c1", name="meet"), call("c2", name="meet")], "met"]) as model:
        result = await FunctionAgent([meet], model).run("meet")
    assert sorted(text for _, text, _ in outcomes(result)) == ["0", "1"]


async def test_model_is_sent_the_conversation_itself_and_no_copy_of_it() -> None:
    sent: list[Any] = []

    class Listening(ScriptedModel):
        async def chat(self, messages: Any, **options: Any) -> Reply:
            sent.append(messages)
            return await super().chat(messages, **options)

    await FunctionAgent([add], Listening([call("c1"), call("c2"), "done"])).run("x")
    assert sent[0] is sent[1] is sent[2]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"llm": "gpt-4o"}, "Write llm=OpenAI('gpt-4o')"),
        ({"memory": []}, "Write memory=ChatMemory()"),
        ({"budget": 20}, "write budget=Budget(turns=10, tokens=50_000)"),
        ({"tools": add}, r"Write tools=\[search, calculate\]"),
        ({"tools": [add, add]}, "two tools are called 'add'"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(AgentConfigurationError, match=said.replace("(", r"\(").replace(")", r"\)")):
        FunctionAgent(**options)


def test_drawing_shows_every_step(tmp_path: Any) -> None:
    draw_all_possible_flows(FunctionAgent, filename=str(tmp_path / "agent.html"))
    page = (tmp_path / "agent.html").read_text(encoding="utf-8")
    for name in ("prepare", "call_model", "call_tool", "collect_results", "answer", "AgentInput", "AgentResult"):
        assert name in page


def test_importing_agents_brings_no_client_and_no_parser() -> None:
    code = "import sys, agentflow_agents; print(*{'openai', 'griffe', 'structlog', 'tenacity'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"memory": ChatMemory}, r"it is a class, and no memory. Write memory=ChatMemory\(\)"),
        ({"memory": []}, r"it is no memory. Write memory=ChatMemory\(\)"),
        ({"llm": OfflineModel}, r"it is a class, and no model. Write llm=OfflineModel\(\.\.\.\)"),
        ({"llm": "gpt-9"}, r"it is no model. Write llm=OpenAI\('gpt-9'\)"),
        ({"llm": 3}, r"it is no model. Write llm=OpenAI\('gpt-4o-mini'\)"),
        ({"system_prompt": 3}, r"system_prompt=3\): it must be a text"),
    ],
)
def test_option_that_cannot_be_is_answered_with_the_line_to_write(options: dict[str, Any], line: str) -> None:
    with pytest.raises(AgentConfigurationError, match=line):
        FunctionAgent(**options)


async def test_without_a_system_prompt_there_is_no_message_of_the_system() -> None:
    with ScriptedModel(["Hi"]) as model:
        agent = FunctionAgent(llm=model, system_prompt="")
        await agent.run("Hello")
    assert [message.role for message in model.calls[0].messages] == ["user"]
    assert agent.prompts()["system"] == ""


@pytest.mark.parametrize("followed", [False, True])
async def test_model_is_asked_with_the_options_of_its_constructor_in_every_turn(*, followed: bool) -> None:
    with LoopbackServer([call("c1"), "It is 3."]) as server:
        async with OpenAI("m", base_url=server.base_url, temperature=0.1, max_tokens=50) as model:
            handler = FunctionAgent([add], model).run("1 + 2?")
            if followed:
                async for _ in handler.stream_events():
                    pass
            assert str(await handler) == "It is 3."
    assert [(sent.json["temperature"], sent.json["max_tokens"]) for sent in server.requests] == [(0.1, 50)] * 2
    assert ["stream" in sent.json for sent in server.requests] == [followed] * 2
