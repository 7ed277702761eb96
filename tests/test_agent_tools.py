"""Tools in an agent: whatever a tool does, the run goes on, and every call has one result that the model can read."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from agentflow import Context, Event, Resource, Retry
from agentflow.testing import record
from agentflow_agents import AgentResult, Approval, ApprovalRequired, FunctionAgent, Tool, ToolError, tool
from agentflow_llm import ScriptedModel, ToolCallPart, ToolResultPart


def call(name: str, arguments: str = "{}", ident: str = "c1") -> ToolCallPart:
    return ToolCallPart(id=ident, name=name, arguments=arguments)


async def asked(tools: list[Any], *calls: ToolCallPart, **options: Any) -> AgentResult:
    """What an agent makes of one turn with these calls."""
    agent = FunctionAgent(tools=tools, llm=ScriptedModel([list(calls), "Done."]), **options)
    return await agent.run("Do it.")


def results_of(result: AgentResult) -> list[ToolResultPart]:
    return [part for message in result.messages for part in message.tool_results]


class City(BaseModel):
    people: int


def fails(error: Callable[[], BaseException]) -> Callable[[], None]:
    def work() -> None:
        raise error()

    return work


def invalid() -> BaseException:
    try:
        City.model_validate({"people": None})
    except ValueError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (lambda: ValueError("no"), "The tool failed: ValueError: no"),
        (lambda: RuntimeError("secret\nline of a traceback"), "The tool failed: RuntimeError: secret"),
        (lambda: KeyError("x" * 1_000), f"The tool failed: KeyError: '{'x' * 272}..."),
        (lambda: TimeoutError("late"), "The tool failed: TimeoutError: late"),
        (asyncio.CancelledError, "The tool was cancelled before it had a result."),
        (lambda: ToolError("Ask again."), "Ask again."),
        (lambda: SystemExit(2), "The tool failed: SystemExit: 2"),
        (lambda: ExceptionGroup("several", [ValueError("a")]), "The tool failed: ValueError: a"),
        (StopIteration, "The tool failed: RuntimeError: the tool raised StopIteration"),
        (lambda: RecursionError("too deep"), "The tool failed: RecursionError: too deep"),
        (MemoryError, "The tool failed: MemoryError"),
        (
            invalid,
            "The tool failed: ValidationError of City: people: Input should be a valid integer",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("is_async", [False, True])
async def test_tool_that_raises_ends_no_run(
    error: Callable[[], BaseException],
    told: str,
    is_async: bool,  # noqa: FBT001 because it is a parameter of the test
) -> None:
    plain = fails(error)

    async def later() -> None:
        try:
            plain()
        except StopIteration as stop:  # no coroutine can raise it
            raise RuntimeError("the tool raised StopIteration") from stop

    def fine() -> str:
        return "fine"

    work = Tool[..., Any](later if is_async else plain, name="work")
    result = await asked([work, fine], call("work"), call("fine", ident="c2"))
    assert (result.output, result.stopped_by) == ("Done.", "answer")
    failed, other = sorted(results_of(result), key=lambda part: part.call_id)
    assert (failed.content, failed.outcome != "ok") == (told, True)
    assert (other.content, other.outcome) == ("fine", "ok")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "fail", "hang", "unknown", "flaky"]),
            st.sampled_from(['{"n": 1}', "{}", "{", '{"n": "x"}', '{"n": 1, "m": 2}', "null"]),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_each_call_of_a_turn_has_one_result_whatever_it_asks_for(wanted: list[tuple[str, str]]) -> None:
    tries: list[int] = []

    async def add(n: int) -> int:
        return n + 1

    def fail(n: int) -> int:
        raise ValueError(n)

    async def hang(n: int) -> int:
        await asyncio.Event().wait()
        return n

    async def flaky(n: int) -> int:
        tries.append(n)
        if len(tries) % 2:
            raise ConnectionError
        return n

    calls = [call(name, arguments, f"c{number}") for number, (name, arguments) in enumerate(wanted)]
    tools = [
        Tool(add, concurrency=1),
        fail,
        Tool(hang, timeout=0.001),
        Tool(flaky, retry=Retry(attempts=2, wait=0), concurrency=1),
    ]
    results = results_of(asyncio.run(asked(tools, *calls)))
    assert sorted(part.call_id for part in results) == sorted(one.id for one in calls)
    for one, part in zip(calls, sorted(results, key=lambda part: int(part.call_id[1:])), strict=True):
        good = one.arguments == '{"n": 1}'
        expected = {"add": "ok", "flaky": "ok", "fail": "error", "hang": "timeout", "unknown": "error"}[one.name]
        assert part.outcome == (expected if good else "error")
        assert "Traceback" not in part.content


class Store:
    def __init__(self, name: str) -> None:
        self.name = name
        self.sold: list[str] = []


class Sold(Event):
    item: str


opened: list[str] = []


def open_store() -> Iterator[Store]:
    opened.append("open")
    yield Store("real")
    opened.append("closed")


async def sell(item: str, store: Annotated[Store, Resource(open_store)], ctx: Context) -> str:
    """Sell an item."""
    store.sold.append(item)
    ctx.write_event_to_stream(Sold(item=item))
    return f"{item} of {store.name}: {store.sold}"


async def test_agent_injects_its_context_and_resources() -> None:
    opened.clear()
    calls = call("sell", '{"item": "tea"}'), call("sell", '{"item": "milk"}', "c2")
    handler = FunctionAgent(tools=[sell], llm=ScriptedModel([calls[0], calls[1], "Done."])).run("Do it.")
    sold = [event.item async for event in handler.stream_events() if isinstance(event, Sold)]
    told = [part.content for part in results_of(await handler)]
    assert told == ["tea of real: ['tea']", "milk of real: ['tea', 'milk']"]
    assert sold == ["tea", "milk"]
    assert opened == ["open", "closed"]


async def test_resources_of_tools_are_overridden_by_the_agent() -> None:
    opened.clear()
    result = await asked([sell], call("sell", '{"item": "tea"}'), resources={open_store: Store("fake")})
    assert results_of(result)[0].content == "tea of fake: ['tea']"
    assert opened == []


async def test_tool_that_waits_for_approval_is_injected_when_it_goes_on() -> None:
    @tool(requires_approval=lambda item: item != "tea")
    async def order(item: str, ctx: Context, store: Annotated[Store, Resource(open_store)]) -> str:
        return f"{item} from {store.name} in {ctx.run_id == handler.run_id}"

    calls = [call("order", '{"item": "tea"}'), call("order", '{"item": "gold"}', "c2")]
    handler = FunctionAgent(tools=[order], llm=ScriptedModel([calls, "Done."])).run("Do it.")
    async for event in handler.stream_events():
        if isinstance(event, ApprovalRequired):
            assert (event.call_id, event.tool, event.arguments) == ("c2", "order", {"item": "gold"})
            handler.ctx.send_event(event.approve())
    assert {part.call_id: part.content for part in results_of(await handler)} == {
        "c1": "tea from real in True",
        "c2": "gold from real in True",
    }


async def test_tool_is_injected_in_a_run_that_was_stored_meanwhile() -> None:
    @tool(requires_approval=True)
    async def order(item: str, ctx: Context, store: Annotated[Store, Resource(open_store)]) -> str:
        store.sold.append(item)
        return f"{store.sold} in {ctx.run_id}"

    def agent(*turns: Any) -> FunctionAgent[Any]:
        return FunctionAgent(tools=[order], llm=ScriptedModel(list(turns)))

    opened.clear()
    stored: dict[str, Any] = {}
    handler = agent(call("order", '{"item": "tea"}')).run("Do it.")
    async for event in handler.stream_events():
        if isinstance(event, ApprovalRequired):
            stored = handler.ctx.to_dict()
            await handler.cancel_run()
            break
    assert opened == []
    other = agent("Done.")
    going_on = other.run(ctx=Context.from_dict(other, stored))
    going_on.ctx.send_event(Approval(call_id="c1", approved=True, arguments={"item": "milk"}))
    [part] = results_of(await going_on)
    assert f"['milk'] in {going_on.run_id}" in part.content
    assert opened == ["open", "closed"]


async def test_an_error_that_was_corrected_is_short_in_the_records() -> None:
    def work(n: int) -> int:
        if n < 0:
            raise ToolError("n is not negative.")
        return n

    agent = FunctionAgent(
        tools=[work], llm=ScriptedModel([call("work", '{"n": -1}'), call("work", '{"n": 1}', "c2"), "Done."])
    )
    with record() as seen:
        assert (await agent.run("Do it.")).output == "Done."
    tools = [op for op in seen.operations if op.kind == "tool"]
    assert [(op.outcome, op.result.content) for op in tools] == [("error", "n is not negative."), ("ok", "1")]
    assert [op.outcome for op in seen.operations if op.kind in {"step", "run"}] == ["ok"] * len(
        [op for op in seen.operations if op.kind in {"step", "run"}]
    )
