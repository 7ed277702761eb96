"""The toolbox: a call becomes exactly one result, whatever happens, and whoever looks on sees why."""

import asyncio
import json
import sys
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, field_serializer

from agentflow.clock import use_clock
from agentflow.testing import FakeClock, record
from agentflow_agents import AgentConfigurationError, FunctionAgent, Tool, Toolbox, ToolError, tool
from agentflow_llm import ScriptedModel, ToolCallPart


class Item(BaseModel):
    title: str


class Odd:
    def __str__(self) -> str:
        return "an odd one"


def add(a: int, b: int) -> int:
    """Add."""
    return a + b


def call(name: str) -> ToolCallPart:
    return ToolCallPart(id="c1", name=name, arguments="{}")


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


async def test_numbers_and_arrays_of_numpy_are_told_as_json_has_them() -> None:
    value = {
        "mean": np.float32(1.5),
        "count": np.int64(3),
        "all": np.bool_(True),  # noqa: FBT003 because it is the value
        "rows": np.array([[1, 2], [3, 4]]),
    }
    assert await told(returning(value)) == ("ok", '{"mean":1.5,"count":3,"all":true,"rows":[[1,2],[3,4]]}')
    assert await told(returning(np.float64("nan"))) == ("ok", "null")


@pytest.mark.parametrize("value", [b"\xff", {"file": [b"\xff"]}, {b"\xff": 1}, bytearray(b"\xff"), memoryview(b"x")])
async def test_bytes_that_are_no_text_are_told_with_what_to_return(value: Any) -> None:
    outcome, text = await told(returning(value))
    assert outcome == "error"
    assert text.startswith("The tool is broken: its result has type ")
    assert "which JSON has not. Its code must return text" in text


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
    assert "tools=None: it must be a list. Write tools=[search, calculate]" in refused(None)
    assert "tools=3: it must be a list" in refused(3)
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


# --------------------------------------------------------------------------------------------------------- approval


class Amount(BaseModel):
    value: Decimal
    currency: Literal["EUR", "USD"] = "EUR"


def pay(to: str, amount: Amount, urgent: bool = False, when: date = date(2026, 1, 1)) -> str:  # noqa: FBT001, FBT002 because tools look so
    """Pay."""
    return f"paid {amount.value} to {to}"


PAY = '{"to": "Ann", "amount": {"value": "12.50"}}'


def test_tool_asks_approval_with_its_validated_arguments() -> None:
    box = Toolbox([Tool(pay, requires_approval=True), add])
    shown = box.asks_approval("pay", PAY)
    assert shown == {
        "to": "Ann",
        "amount": {"value": "12.50", "currency": "EUR"},
        "urgent": False,
        "when": "2026-01-01",
    }
    assert box.asks_approval("add", '{"a": 1, "b": 2}') is None


async def test_arguments_that_were_shown_come_back_as_they_were() -> None:
    box = Toolbox([Tool(pay, requires_approval=True)])
    shown = box.asks_approval("pay", PAY)
    assert shown is not None
    assert box.asks_approval("pay", json.dumps(shown)) == shown
    edited = {**shown, "amount": {"value": 3}}
    assert (await box.execute("c1", "pay", json.dumps(edited))).content == "paid 3 to Ann"


def test_what_will_not_be_called_asks_nobody() -> None:
    box = Toolbox([Tool(pay, requires_approval=True)])
    assert box.asks_approval("pay", '{"to": "Ann"}') is None
    assert box.asks_approval("pay", "{") is None
    assert box.asks_approval("play", PAY) is None


def test_predicate_is_given_the_arguments_that_it_names() -> None:
    def much(amount: Amount, *, limit: int = 10) -> bool:
        return amount.value > limit

    box = Toolbox([Tool(pay, requires_approval=much)])
    assert box.asks_approval("pay", PAY) is not None
    assert box.asks_approval("pay", '{"to": "Ann", "amount": {"value": 1}}') is None
    every = Toolbox([Tool(pay, requires_approval=lambda **given: given["when"].year == 2026 and given["urgent"])])
    assert every.asks_approval("pay", PAY) is None
    assert every.asks_approval("pay", '{"to": "Ann", "amount": {"value": 1}, "urgent": true}') is not None


def test_predicate_that_fails_asks_a_person(caplog: pytest.LogCaptureFixture) -> None:
    def broken(amount: Amount) -> bool:
        return amount.value > Decimal("a lot")

    assert Toolbox([Tool(pay, requires_approval=broken)]).asks_approval("pay", PAY) is not None
    [said] = [record.getMessage() for record in caplog.records]
    assert "requires_approval failed, so a person is asked" in said


def test_default_that_no_json_can_be_is_not_shown() -> None:
    unset: Any = object()

    def work(n: int, other: str = unset) -> str:
        return f"{n} {other is unset}"

    found = Tool(work, requires_approval=True)
    assert found.asks_approval('{"n": 1}') == {"n": 1}
    assert found.asks_approval('{"n": 1, "other": "x"}') == {"n": 1, "other": "x"}


def test_arguments_that_cannot_be_shown_are_shown_as_they_came() -> None:
    class Secret(BaseModel):
        word: str

        @field_serializer("word")
        def hide(self, word: str) -> str:
            raise ValueError(word)

    def work(secret: Secret, n: int = 1) -> None: ...

    found = Tool(work, requires_approval=True)
    assert found.asks_approval('{"secret": {"word": "x"}}') == {"secret": {"word": "x"}}


def test_predicate_that_cannot_be_asked_is_refused() -> None:
    def other(total: int) -> bool:
        return total > 1

    async def later(amount: Amount) -> bool:
        return amount.value > 1

    with pytest.raises(AgentConfigurationError) as caught:
        Tool(pay, requires_approval=other)
    assert str(caught.value) == (
        "tool 'pay' has a requires_approval that takes 'total', which no argument of the tool is called. There are: "
        "'to', 'amount', 'urgent', 'when'. Write requires_approval=lambda to: ..., or requires_approval=True."
    )
    with pytest.raises(
        AgentConfigurationError, match="has requires_approval='always': it must be True, False, or a function"
    ):
        Tool(pay, requires_approval="always")  # type: ignore[arg-type]  # because that is the mistake
    with pytest.raises(AgentConfigurationError, match="that is async"):
        Tool(pay, requires_approval=later)  # type: ignore[arg-type]  # because that is the mistake


# ---------------------------------------------------------------------------------------- what is no Python function


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": ["integer", "null"]}, "any": True},
    "required": ["city"],
}


async def forecast(arguments: dict[str, Any]) -> str:
    if arguments["city"] == "Nowhere":
        raise ToolError("There is no such city.")
    return f"sun in {arguments['city']} for {arguments.get('days')} days"


def remote(**options: Any) -> Tool[..., Any]:
    return Tool.of_schema("forecast", "The weather.", SCHEMA, forecast, **options)


async def test_tool_of_a_schema_is_called_with_what_the_model_sent() -> None:
    found = remote()
    assert (found.name, found.description, found.parameters) == ("forecast", "The weather.", SCHEMA)
    assert repr(found) == "<Tool forecast(city: string, days?: integer | null, any?: anything)>"
    box = Toolbox([found, add])
    result = await box.execute("c1", "forecast", '{"city": "Rome", "days": 3, "unknown": [1]}')
    assert (result.outcome, result.content) == ("ok", "sun in Rome for 3 days")
    assert (await box.execute("c2", "forecast", '{"city": "Nowhere"}')).content == "There is no such city."
    assert await found({"city": "Rome"}) == "sun in Rome for None days"


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ("{}", "The arguments are wrong. city: is missing."),
        ("", "The arguments are wrong. city: is missing."),
        ("[1]", "The arguments are wrong. arguments: input should be an object, not [1]."),
        ('{"city": ', "The arguments are no valid JSON (expecting value: line 1 column 10 (char 9)). Send one object"),
        (
            '{"city": NaN}',
            "The arguments are no valid JSON (there is no NaN in JSON). Send one object with: city: string",
        ),
        ("[" * 100_000, "The arguments are no valid JSON"),
    ],
)
async def test_names_of_a_schema_are_checked_before_the_call(sent: str, told: str) -> None:
    result = await Toolbox([remote()]).execute("c1", "forecast", sent)
    assert result.outcome == "error"
    assert result.content.startswith(told)
    assert "city: string, days?: integer | null" in result.content


async def test_tool_of_a_schema_has_the_options_of_a_tool() -> None:
    found = remote(timeout=5, return_direct=True, requires_approval=lambda city: city == "Rome", concurrency=1)
    assert (found.timeout, found.return_direct) == (5, True)
    assert found.asks_approval('{"city": "Rome", "x": 1}') == {"city": "Rome", "x": 1}
    assert found.asks_approval('{"city": "Oslo"}') is None
    assert await found.invoke('{"city": "Oslo"}') == "sun in Oslo for None days"


def test_schema_that_says_little_is_completed() -> None:
    found = Tool.of_schema("ping", "", {}, forecast)
    assert found.parameters == {"type": "object", "properties": {}}


@pytest.mark.parametrize("schema", [{"type": "string"}, [], "x"])
def test_schema_of_something_else_is_refused(schema: Any) -> None:
    with pytest.raises(AgentConfigurationError, match=r"tool 'ping': parameters=.* is no JSON Schema of an object"):
        Tool.of_schema("ping", "", schema, forecast)


def test_callee_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(
        AgentConfigurationError, match="tool 'ping': call='x': it must be an async function of one dict"
    ):
        Tool.of_schema("ping", "", {}, "x")  # type: ignore[arg-type]  # because that is the mistake


# ------------------------------------------------------------------------------------------------- what a model hears


def divide(a: int, b: int) -> float:
    return a / b


async def adivide(a: int, b: int) -> float:
    return a / b


@pytest.mark.parametrize("function", [divide, adivide])
async def test_traceback_is_told_where_the_tool_says_so(function: Callable[[int, int], Any]) -> None:
    shown = await Toolbox([Tool(function, tracebacks=True)]).execute("c1", function.__name__, '{"a": 1, "b": 0}')
    assert shown.content.startswith("The tool failed.\nTraceback (most recent call last):\n")
    assert "return a / b" in shown.content
    assert shown.content.endswith("ZeroDivisionError: division by zero")
    assert "agentflow_agents" not in shown.content
    hidden = await Toolbox([function]).execute("c1", function.__name__, '{"a": 1, "b": 0}')
    assert hidden.content == "The tool failed: ZeroDivisionError: division by zero"


async def test_errors_of_a_group_are_told_one_by_one() -> None:
    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail(ValueError("one\nand more")))
            group.create_task(fail(LookupError("two")))

    async def fail(error: Exception) -> None:
        raise error

    assert await told(both) == ("error", "The tool failed: ValueError: one; LookupError: two")


async def test_tool_that_ends_the_program_has_failed() -> None:
    def leave() -> None:
        sys.exit("usage: leave")

    assert await told(leave) == ("error", "The tool failed: SystemExit: usage: leave")


@pytest.mark.parametrize("is_async", [True, False])
async def test_tool_that_raises_what_ends_a_generator_has_failed(is_async: bool) -> None:  # noqa: FBT001 because pytest passes it by name
    def stop() -> None:
        raise GeneratorExit

    function = raising(GeneratorExit()) if is_async else stop
    outcome, text = await told(function)
    assert (outcome, text.rpartition(" ")[2]) == ("error", "GeneratorExit")
    agent = FunctionAgent([Tool(function, name="work")], ScriptedModel([call("work"), "It does not work."]))
    assert str(await agent.run("Work.")) == "It does not work."


async def test_long_result_is_cut_and_says_so() -> None:
    result = await Toolbox([Tool(returning("x" * 30), name="work", max_chars=10)]).execute("c1", "work", "{}")
    assert result.content == "xxxxxxxxxx\n... (cut: 20 more characters. Ask for less at once.)"
    default = await Toolbox([Tool(returning("x" * 150_000), name="work")]).execute("c1", "work", "{}")
    assert default.content.endswith("x\n... (cut: 50,000 more characters. Ask for less at once.)")
    whole = await Toolbox([Tool(returning("x" * 150_000), name="work", max_chars=None)]).execute("c1", "work", "{}")
    assert len(whole.content) == 150_000


async def test_long_correction_is_cut_as_well() -> None:
    found = Tool(raising(ToolError("no " * 20)), name="work", max_chars=5)
    assert (await Toolbox([found]).execute("c1", "work", "{}")).content.startswith("no no\n... (cut: 55 more")


def test_tools_are_found_by_name() -> None:
    box = Toolbox([add])
    found = box.find("add")
    assert found is not None
    assert (found.name, box.find("ad")) == ("add", None)
