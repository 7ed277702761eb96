"""Tools: what a model is told of a function, and how the function is called with what the model sends."""

import asyncio
import functools
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from agentflow import Retry
from agentflow.clock import use_clock
from agentflow.testing import FakeClock
from agentflow_agents import AgentConfigurationError, Tool, ToolError, tool

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


def search(query: str, limit: int = 5) -> str:
    """Find documents.

    Looks everywhere.

    Args:
        query: What to look for.
        limit: How many at most.
    """
    return f"{limit} about {query}"


async def test_function_is_described_by_its_name_docstring_and_parameters() -> None:
    found = Tool(search)
    assert (found.name, found.description) == ("search", "Find documents.\n\nLooks everywhere.")
    assert found.parameters == {
        "type": "object",
        "properties": {
            "query": {"type": "string", "description": "What to look for."},
            "limit": {"type": "integer", "description": "How many at most.", "default": 5},
        },
        "required": ["query"],
        "additionalProperties": False,
    }
    assert found.definition.parameters is found.parameters
    assert await found.invoke('{"query": "cats"}') == "5 about cats"


def test_name_and_description_may_be_given() -> None:
    found = Tool(search, name="look-up", description="Finds.")
    assert (found.name, found.description, found.definition.name) == ("look-up", "Finds.", "look-up")


async def test_decorated_function_can_still_be_called() -> None:
    @tool
    def double(n: int) -> int:
        """Twice."""
        return 2 * n

    @tool(name="triple", timeout=1)
    async def thrice(n: int) -> int:
        return 3 * n

    assert double(4) == 8
    assert double.__doc__ == "Twice."
    assert await thrice(2) == 6
    assert (thrice.name, thrice.timeout) == ("triple", 1)
    assert repr(double) == "<Tool double(n: integer)>"


async def test_plain_function_runs_in_a_thread_with_the_context_variables() -> None:
    def where() -> list[Any]:
        return [threading.get_ident(), tenant.get()]

    tenant.set("acme")
    thread, seen = await Tool(where).invoke("{}")
    assert thread != threading.get_ident()
    assert seen == "acme"


async def test_async_function_runs_in_the_event_loop() -> None:
    async def where() -> int:
        return threading.get_ident()

    assert await Tool(where).invoke("") == threading.get_ident()


async def test_plain_function_that_returns_an_awaitable_is_awaited() -> None:
    async def later(n: int) -> int:
        return n + 1

    assert await Tool(lambda_like(later)).invoke('{"n": 1}') == 2


def lambda_like(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(n: int) -> Any:
        return function(n)

    return call


class Desk:
    def __init__(self, name: str) -> None:
        self.name = name

    def greet(self, whom: str) -> str:
        """Say hello."""
        return f"{self.name} greets {whom}"

    @tool
    def wave(self, times: int = 1) -> str:
        """Wave."""
        return f"{self.name} waves {times} times"

    def __call__(self, text: str) -> str:
        """Hear."""
        return text


async def test_method_of_an_object_is_a_tool() -> None:
    found = Tool(Desk("Ann").greet)
    assert list(found.parameters["properties"]) == ["whom"]
    assert await found.invoke('{"whom": "Bob"}') == "Ann greets Bob"


async def test_decorated_method_is_bound_to_its_object() -> None:
    ann, bob = Desk("Ann"), Desk("Bob")
    assert list(ann.wave.parameters["properties"]) == ["times"]
    assert await ann.wave.invoke("") == "Ann waves 1 times"
    assert await bob.wave.invoke('{"times": 2}') == "Bob waves 2 times"
    assert bob.wave(3) == "Bob waves 3 times"


async def test_partial_hides_what_it_has_filled() -> None:
    found = Tool(functools.partial(search, limit=2))
    assert list(found.parameters["properties"]) == ["query"]
    assert await found.invoke('{"query": "x"}') == "2 about x"


async def test_callable_object_needs_a_good_name() -> None:
    with pytest.raises(AgentConfigurationError, match="'' is no name") as caught:
        Tool(Desk("Ann"))
    assert 'Tool(function, name="search")' in str(caught.value)
    assert await Tool(Desk("Ann"), name="hear").invoke('{"text": "x"}') == "x"


async def test_positional_only_parameters_are_passed_by_position() -> None:
    def subtract(a: int, b: int = 1, /, *, twice: bool = False) -> int:
        return (a - b) * (2 if twice else 1)

    assert await Tool(subtract).invoke('{"a": 5, "twice": true}') == 8


def test_function_is_inspected_once() -> None:
    class Counting:
        reads = 0

        def __call__(self, n: int) -> int:
            return n

        @property
        def __signature__(self) -> Any:
            Counting.reads += 1
            raise AttributeError

    found = Tool(Counting(), name="count")
    read = Counting.reads
    for _ in range(3):
        assert asyncio.run(found.invoke('{"n": 1}')) == 1
    assert Counting.reads == read


async def test_exception_of_the_function_is_raised() -> None:
    def fail() -> None:
        raise LookupError("nothing there")

    with pytest.raises(LookupError, match="nothing there"):
        await Tool(fail).invoke("{}")


async def test_stop_iteration_in_a_thread_does_not_hang() -> None:
    def first() -> int:
        return next(iter([]))

    with pytest.raises(RuntimeError, match="StopIteration"):
        await Tool(first).invoke("{}")


async def test_time_out_ends_an_async_call() -> None:
    ended = asyncio.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with use_clock(FakeClock()) as clock:
        call = asyncio.create_task(Tool(hang, timeout=30).invoke("{}"))
        await clock.advance(29)
        assert not call.done()
        await clock.advance(1)
        with pytest.raises(TimeoutError, match="it did not end within 30 s"):
            await call
    assert ended.is_set()


async def test_time_out_leaves_a_thread_behind() -> None:
    go_on, ended = threading.Event(), threading.Event()

    def hang() -> None:
        go_on.wait(10)
        ended.set()
        raise ValueError("too late to matter")

    with use_clock(FakeClock()) as clock:
        call = asyncio.create_task(Tool(hang, timeout=1).invoke("{}"))
        await clock.advance(1)
        with pytest.raises(TimeoutError):
            await call
    assert not ended.is_set()
    go_on.set()
    assert await asyncio.to_thread(ended.wait, 10)


async def test_cancelling_waits_for_a_thread() -> None:
    started, go_on = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        go_on.wait(10)

    call = asyncio.create_task(Tool(work).invoke("{}"))
    await asyncio.to_thread(started.wait, 10)
    call.cancel()
    await asyncio.sleep(0)
    assert not call.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await call


def refused(function: Any, **options: Any) -> str:
    with pytest.raises(AgentConfigurationError) as caught:
        Tool(function, **options)
    return str(caught.value)


def test_lambda_is_refused() -> None:
    assert "a lambda cannot be a tool" in refused(lambda query: query)
    assert "def find(query: str)" in refused(lambda query: query, name="find")


def test_name_that_no_server_takes_is_refused() -> None:
    assert "'look it up' is no name" in refused(search, name="look it up")
    assert "is no name" in refused(search, name="x" * 65)


def test_parameter_without_annotation_is_refused() -> None:
    def find(query) -> str:  # type: ignore[no-untyped-def]  # noqa: ANN001 because that is the mistake
        return str(query)

    assert refused(find) == (
        "tool 'find': parameter 'query' has no annotation, so a model cannot be told what to send. Write, for "
        "example: query: str"
    )


def test_variable_parameters_are_refused() -> None:
    def many(*terms: str) -> str:
        return "".join(terms)

    def named(**terms: str) -> str:
        return "".join(terms)

    assert "*terms takes anything" in refused(many)
    assert "terms: list[str]" in refused(many)
    assert "**terms takes anything" in refused(named)


def test_parameter_that_no_json_can_be_is_refused_by_name() -> None:
    def work(query: str, lock: Desk) -> str:
        return query

    def call(back: Callable[[int], int]) -> int:
        return back(1)

    assert "parameter 'lock' has type Desk, which no JSON can be" in refused(work)
    assert "parameter 'back' has type Callable" in refused(call)


def test_unresolved_annotation_is_refused() -> None:
    def work(query: "Nothing") -> str:  # type: ignore[name-defined]  # noqa: F821 because that is the mistake
        return str(query)

    assert "names 'Nothing', which is not defined in the function's module" in refused(work)


def test_generators_classes_and_values_are_refused() -> None:
    def many() -> Iterator[int]:
        yield 1

    async def more() -> AsyncIterator[int]:
        yield 1

    assert "yields" in refused(many)
    assert "yields" in refused(more)
    assert "is a class" in refused(Desk)
    assert "a tool is made of a function" in refused("search")
    assert "a tool is made of a function" in refused(Tool(search))


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), True, "5"])
def test_time_out_is_positive(timeout: Any) -> None:
    assert "it must be a positive number of seconds" in refused(search, timeout=timeout)


@pytest.mark.parametrize("option", ["concurrency", "max_chars"])
@pytest.mark.parametrize("number", [0, -1, 1.5, True, "5"])
def test_numbers_are_whole_and_positive(option: str, number: Any) -> None:
    assert f"Tool({option}={number!r}): it must be a whole number from 1 on, or None." in refused(
        search, **{option: number}
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"name": 3}, "Tool(name=3): it must be text."),
        ({"description": 3}, "Tool(description=3): it must be text."),
        ({"return_direct": "x"}, "Tool(return_direct='x'): it must be True or False."),
        ({"tracebacks": 1}, "Tool(tracebacks=1): it must be True or False."),
    ],
)
def test_options_have_their_types(options: dict[str, Any], told: str) -> None:
    assert refused(search, **options) == told


def test_retry_is_a_policy() -> None:
    assert refused(search, retry=Retry) == "tool 'search': retry=Retry is a class. Write retry=Retry(...)."
    assert "Write retry=Retry(attempts=3), a tenacity object, or your own policy." in refused(search, retry=3)


def test_option_that_there_is_not_is_refused() -> None:
    with pytest.raises(TypeError, match="timeuot"):
        tool(timeuot=5)(search)  # type: ignore[call-overload]  # because that is the mistake


async def test_wrong_arguments_are_told_to_the_model() -> None:
    with pytest.raises(ToolError) as caught:
        await Tool(search).invoke(json.dumps({"limit": "many"}))
    assert str(caught.value) == (
        "The arguments are wrong. query: is missing; limit: input should be a valid integer, unable to parse string "
        "as an integer, not 'many'. It takes: query: string, limit: integer = 5"
    )
