"""The toolbox: a call becomes exactly one result, whatever happens, and whoever looks on sees why."""

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from agentflow.clock import use_clock
from agentflow.testing import FakeClock, record
from agentflow_agents import AgentConfigurationError, Tool, Toolbox, ToolError, tool


class Item(BaseModel):
    title: str


class Odd:
    def __str__(self) -> str:
        return "an odd one"


def add(a: int, b: int) -> int:
    """Add."""
    return a + b


async def told(function: Callable[..., Any], arguments: str = "{}") -> tuple[str, str]:
    found = Tool(function, name="work")
    result = await Toolbox([found]).execute("c1", "work", arguments)
    assert (result.call_id, result.name) == ("c1", "work")
    return result.outcome, result.content


def returning(value: Any) -> Callable[..., Any]:
    async def work() -> Any:
        return value

    return work


def raising(error: BaseException) -> Callable[..., Any]:
    async def work() -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("text as it is\n", "text as it is\n"),
        (3, "3"),
        (None, "null"),
        ([Item(title="a")], '[{"title":"a"}]'),
        ({"price": Decimal("1.50"), "what": {1}}, '{"price":"1.50","what":[1]}'),
        ({"odd": Odd()}, '{"odd":"an odd one"}'),
    ],
)
async def test_text_is_the_result_and_anything_else_is_json(value: Any, text: str) -> None:
    assert await told(returning(value)) == ("ok", text)


async def test_error_is_told_by_class_and_first_line() -> None:
    assert await told(raising(ValueError("no such city\nsecret detail"))) == (
        "error",
        "The tool failed: ValueError: no such city",
    )
    assert await told(raising(KeyError())) == ("error", "The tool failed: KeyError")
    outcome, text = await told(raising(RuntimeError("x" * 10_000)))
    assert (outcome, len(text)) == ("error", 303)


async def test_tool_error_is_told_word_for_word() -> None:
    assert await told(raising(ToolError("Cities only.\nTry Paris."))) == ("error", "Cities only.\nTry Paris.")


async def test_error_that_cannot_be_shown_is_told_too() -> None:
    class BrokenError(Exception):
        def __str__(self) -> str:
            raise ZeroDivisionError

    outcome, text = await told(raising(BrokenError()))
    assert outcome == "error"
    assert "BrokenError" in text


async def test_value_that_cannot_be_written_is_an_error() -> None:
    circle: list[Any] = []
    circle.append(circle)
    outcome, text = await told(returning(circle))
    assert outcome == "error"
    assert text.startswith("The tool failed: ")


async def test_time_out_is_told() -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    with use_clock(FakeClock()) as clock:
        call = asyncio.create_task(Toolbox([Tool(hang, timeout=5)]).execute("c1", "hang", "{}"))
        await clock.advance(5)
        result = await call
    assert (result.outcome, result.content) == ("timeout", "The tool failed: TimeoutError: it did not end within 5 s")


async def test_unknown_tool_is_told_with_those_that_there_are() -> None:
    result = await Toolbox([add]).execute("c1", "ad", "{}")
    assert (result.outcome, result.content) == ("error", "There is no tool 'ad'. Did you mean 'add'? There are: 'add'")
    nothing = await Toolbox().execute("c1", "add", "{}")
    assert nothing.content == "There is no tool 'add', nor any other. Answer without tools."


async def test_bad_arguments_are_told_and_the_function_is_not_called() -> None:
    result = await Toolbox([add]).execute("c1", "add", '{"a": 1}')
    assert result.outcome == "error"
    assert result.content == "The arguments are wrong. b: is missing. It takes: a: integer, b: integer"


async def test_tool_that_cancels_itself_is_a_result() -> None:
    assert await told(raising(asyncio.CancelledError())) == (
        "cancelled",
        "The tool was cancelled before it had a result.",
    )


async def test_cancellation_from_outside_is_raised() -> None:
    started = asyncio.Event()

    async def hang() -> None:
        started.set()
        await asyncio.Event().wait()

    call = asyncio.create_task(Toolbox([hang]).execute("c1", "hang", "{}"))
    with record() as seen:
        await asyncio.sleep(0)
    await started.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not seen.open()


async def test_call_is_an_operation_with_its_result() -> None:
    with record() as seen:
        result = await Toolbox([add]).execute("c1", "add", '{"a": 1, "b": 2}')
    [op] = seen.operations
    assert (op.kind, op.name, op.outcome, op.result) == ("tool", "add", "ok", result)
    assert (op.subject.call_id, op.subject.description, op.subject.arguments) == ("c1", "Add.", '{"a": 1, "b": 2}')


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(ValueError("no"), "error"), (TimeoutError("late"), "timeout"), (asyncio.CancelledError(), "cancelled")],
    ids=["error", "timeout", "cancelled"],
)
async def test_operation_ends_with_the_error_that_the_model_is_told_of(error: BaseException, outcome: str) -> None:
    with record() as seen:
        result = await Toolbox([Tool(raising(error), name="work")]).execute("c1", "work", "{}")
    [op] = seen.operations
    assert (op.outcome, result.outcome, op.result) == (outcome, outcome, result)
    assert seen.errors[op.ref.id] is error


async def test_unknown_tool_is_an_operation_that_failed() -> None:
    with record() as seen:
        await Toolbox([add]).execute("c1", "nope", "{}")
    [op] = seen.operations
    assert (op.name, op.outcome) == ("nope", "error")
    assert isinstance(seen.errors[op.ref.id], ToolError)


def refused(tools: Any) -> str:
    with pytest.raises(AgentConfigurationError) as caught:
        Toolbox(tools)
    return str(caught.value)


def test_two_tools_of_one_name_are_refused() -> None:
    assert "two tools are called 'add'" in refused([add, tool(add)])


def test_what_is_no_list_of_tools_is_refused() -> None:
    assert "Write tools=[search, calculate]" in refused(add)
    assert "Write tools=[search, calculate]" in refused("add")
    assert "a tool is made of a function" in refused(["add"])


def test_method_without_its_object_is_refused() -> None:
    class Desk:
        @tool
        def wave(self) -> str:
            return "hi"

    assert "Write: desk = Desk() and tools=[desk.wave]" in refused([Desk.wave])
    assert len(Toolbox([Desk().wave])) == 1


@given(st.text(), st.text())
def test_any_call_has_one_result(name: str, arguments: str) -> None:
    result = asyncio.run(Toolbox([add]).execute("c1", name, arguments))
    assert (result.call_id, result.name) == ("c1", name)
    assert "Traceback" not in result.content
    assert len(result.content) < 1_000


async def test_half_of_a_surrogate_pair_is_replaced() -> None:
    assert await told(returning("name \udcff.txt")) == ("ok", "name \ufffd.txt")
    assert await told(returning({"a\udcff": ["b\udcff", Item(title="c\udcff")]})) == (
        "ok",
        '{"a\ufffd":["b\ufffd",{"title":"c\ufffd"}]}',
    )
    assert await told(raising(ToolError("no \udcff"))) == ("error", "no \ufffd")
    assert await told(raising(OSError("no \udcff"))) == ("error", "The tool failed: OSError: no \ufffd")
    assert await told(returning("a pair: \ud83d\ude00")) == ("ok", "a pair: \U0001f600")


@pytest.mark.parametrize(
    "wrap", [lambda value: value, lambda value: {"inner": [value]}, lambda value: ["\udcff", value]]
)
async def test_value_that_json_has_not_is_told_with_its_type(wrap: Callable[[Any], Any]) -> None:
    class Desk:
        pass

    outcome, text = await told(returning(wrap(Desk())))
    assert outcome == "error"
    assert "has type Desk, which JSON has not. Its code must return text, numbers" in text
    assert "object at 0x" not in text


async def test_coroutine_that_nobody_awaited_is_told_with_what_to_write() -> None:
    async def look_up() -> str:
        return "found"

    outcome, text = await told(returning(look_up()))
    assert outcome == "error"
    assert "has type coroutine. Its code must return await " in text
    assert "look_up(...)" in text


async def test_awaitable_of_a_plain_function_is_awaited() -> None:
    async def look_up() -> str:
        return "found"

    def work() -> Any:
        return look_up()

    assert await told(work) == ("ok", "found")
