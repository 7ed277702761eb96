"""Calling a tool: its retries, its time, its turn among other calls, and what it is injected."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import pytest
import tenacity
from pydantic import BaseModel

from agentflow import Context, Resource, Retry, StartEvent, StopEvent, Workflow, step
from agentflow.clock import use_clock
from agentflow.testing import FakeClock, record
from agentflow_agents import AgentConfigurationError, Budget, FunctionAgent, Tool, Toolbox, ToolError, tool
from agentflow_llm import ScriptedModel, ToolCallPart, ToolResultPart


class Flaky:
    """Fails so often, and then answers."""

    def __init__(self, failures: int, error: Callable[[], BaseException] = lambda: ConnectionError("down")) -> None:
        self.failures = failures
        self.error = error
        self.calls = 0

    async def ask(self, n: int = 1) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error()
        return f"answer {n} at call {self.calls}"

    def ask_plainly(self, n: int = 1) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error()
        return f"answer {n} at call {self.calls}"


async def outcome_of(found: Tool[..., Any], arguments: str = "{}") -> tuple[str, str]:
    result = await Toolbox([found]).execute("c1", found.name, arguments)
    return result.outcome, result.content


# ---------------------------------------------------------------------------------------------------------- retries


@pytest.mark.parametrize("method", ["ask", "ask_plainly"])
async def test_tool_that_fails_is_called_again_with_the_same_arguments(method: str) -> None:
    flaky = Flaky(2)
    found = Tool(getattr(flaky, method), retry=Retry(attempts=3, wait=0))
    assert await outcome_of(found, '{"n": 7}') == ("ok", "answer 7 at call 3")


async def test_error_of_the_last_attempt_is_told() -> None:
    flaky = Flaky(9)
    assert await outcome_of(Tool(flaky.ask, retry=Retry(attempts=3, wait=0))) == (
        "error",
        "The tool failed: ConnectionError: down",
    )
    assert flaky.calls == 3


async def test_waits_go_by_the_clock_and_are_noted() -> None:
    flaky = Flaky(2)
    with use_clock(FakeClock()) as clock, record() as seen:
        call = asyncio.create_task(outcome_of(Tool(flaky.ask, retry=Retry(attempts=3, wait=10))))
        await clock.advance(9)
        assert flaky.calls == 1
        await clock.advance(1)
        assert flaky.calls == 2
        await clock.advance(10)
        assert await call == ("ok", "answer 1 at call 3")
    [op] = seen.operations
    assert [(note.name, note.facts["attempt"], note.facts["wait"]) for note in seen.notes[op.ref.id]] == [
        ("retry", 1, 10),
        ("retry", 2, 10),
    ]
    assert isinstance(seen.notes[op.ref.id][0].facts["error"], ConnectionError)
    assert (op.kind, op.outcome) == ("tool", "ok")


async def test_own_policy_is_asked_with_time_and_number_of_failures() -> None:
    asked: list[tuple[float, int, str]] = []

    class Mine:
        def next(self, elapsed_time: float, attempts: int, error: Exception) -> float | None:
            asked.append((elapsed_time, attempts, str(error)))
            return 5 if attempts < 3 else None

    with use_clock(FakeClock()) as clock:
        call = asyncio.create_task(outcome_of(Tool(Flaky(9).ask, retry=Mine())))
        await clock.advance(10)
        assert (await call)[0] == "error"
    assert asked == [(0, 1, "down"), (5, 2, "down"), (10, 3, "down")]


async def test_tenacity_object_decides_of_errors_and_values_and_never_sleeps_itself() -> None:
    policy = tenacity.AsyncRetrying(
        stop=tenacity.stop_after_attempt(4),
        wait=tenacity.wait_fixed(60),
        retry=tenacity.retry_if_exception_type(ConnectionError) | tenacity.retry_if_result(lambda text: "3" in text),
    )
    flaky = Flaky(2)
    with use_clock(FakeClock()) as clock:
        call = asyncio.create_task(outcome_of(Tool(flaky.ask, retry=policy)))
        await clock.advance(180)
        assert await call == ("ok", "answer 1 at call 4")


async def test_tenacity_object_that_gives_up_leaves_the_error() -> None:
    policy = tenacity.AsyncRetrying(stop=tenacity.stop_after_attempt(2), wait=tenacity.wait_none())
    outcome, text = await outcome_of(Tool(Flaky(9).ask, retry=policy))
    assert (outcome, text) == ("error", "The tool failed: ConnectionError: down")
    never = tenacity.AsyncRetrying(
        stop=tenacity.stop_after_attempt(2),
        wait=tenacity.wait_none(),
        retry=tenacity.retry_if_result(lambda _: True),
    )
    outcome, text = await outcome_of(Tool(Flaky(0).ask, retry=never))
    assert outcome == "error"
    assert text.startswith("The tool failed: RetryError")


async def test_tenacity_object_may_have_a_value_in_place_of_an_error() -> None:
    policy = tenacity.AsyncRetrying(
        stop=tenacity.stop_after_attempt(1), retry_error_callback=lambda _: "nothing to be had"
    )
    assert await outcome_of(Tool(Flaky(9).ask, retry=policy)) == ("ok", "nothing to be had")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ToolError("No such city. Ask for another."), ("error", "No such city. Ask for another.")),
        (asyncio.CancelledError(), ("cancelled", "The tool was cancelled before it had a result.")),
    ],
    ids=["tool error", "cancelled"],
)
async def test_what_is_final_is_not_tried_again(error: BaseException, told: tuple[str, str]) -> None:
    flaky = Flaky(9, lambda: error)
    assert await outcome_of(Tool(flaky.ask, retry=Retry(attempts=5, wait=0, on=BaseException))) == told
    assert flaky.calls == 1


async def test_wrong_arguments_are_not_tried_again() -> None:
    flaky = Flaky(0)
    found = Tool(flaky.ask, retry=Retry(attempts=3, wait=0))
    assert (await outcome_of(found, '{"n": "x"}'))[0] == "error"
    assert flaky.calls == 0


async def test_cancelling_ends_the_wait_for_another_attempt() -> None:
    flaky = Flaky(9)
    with use_clock(FakeClock()) as clock:
        call = asyncio.create_task(outcome_of(Tool(flaky.ask, retry=Retry(attempts=3, wait=10))))
        await clock.advance(5)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (clock.pending, flaky.calls) == ([], 1)


# ------------------------------------------------------------------------------------------------------------- time


async def test_time_out_is_for_all_attempts_together() -> None:
    calls = 0

    async def slow() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ConnectionError
        await asyncio.Event().wait()

    with use_clock(FakeClock()) as clock:
        call = asyncio.create_task(outcome_of(Tool(slow, timeout=10, retry=Retry(attempts=9, wait=4))))
        await clock.advance(9)
        assert (calls, call.done()) == (2, False)
        await clock.advance(1)
        assert await call == ("timeout", "The tool failed: TimeoutError: it did not end within 10 s")
    assert calls == 2


async def test_no_wait_begins_that_would_outlast_the_time() -> None:
    flaky = Flaky(9)
    with use_clock(FakeClock()):
        told = await outcome_of(Tool(flaky.ask, timeout=10, retry=Retry(attempts=9, wait=11)))
    assert told == ("error", "The tool failed: ConnectionError: down")
    assert flaky.calls == 1


async def test_time_that_is_left_bounds_waits_and_attempts_and_plain_functions() -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    started, go_on = threading.Event(), threading.Event()

    def block() -> None:
        started.set()
        go_on.wait(10)

    with use_clock(FakeClock()) as clock:
        box = Toolbox([Tool(hang, concurrency=1), Tool(block, timeout=60), Tool(Flaky(9).ask, retry=Retry(wait=7))])
        left = [("hang", 5), ("hang", 4), ("block", 5), ("ask", 5)]
        calls = [asyncio.create_task(box.execute("c", name, "{}", within=seconds)) for name, seconds in left]
        await asyncio.to_thread(started.wait, 10)
        await clock.advance(4)
        assert [call.done() for call in calls] == [False, True, False, True]
        await clock.advance(1)
        told = [(result.outcome, result.content) for result in await asyncio.gather(*calls)]
    late = "The tool failed: TimeoutError: it "
    assert told == [
        ("timeout", f"{late}did not end within 5 s"),
        ("timeout", f"{late}could not begin within 4 s"),
        ("timeout", f"{late}did not end within 5 s"),
        ("error", "The tool failed: ConnectionError: down"),
    ]
    go_on.set()


@pytest.mark.parametrize("method", ["ask", "ask_plainly"])
async def test_no_call_begins_without_time(method: str) -> None:
    flaky = Flaky(0)
    found = Tool(getattr(flaky, method))
    result = await Toolbox([found]).execute("c1", method, "{}", within=0)
    assert (result.outcome, flaky.calls) == ("timeout", 0)


async def test_budget_of_seconds_does_not_wait_for_a_plain_tool() -> None:
    started, go_on = threading.Event(), threading.Event()

    def block() -> None:
        started.set()
        go_on.wait(10)

    model = ScriptedModel([ToolCallPart(id="c1", name="block", arguments="{}"), "Never said."])
    with use_clock(FakeClock()) as clock:
        run = FunctionAgent([block], model, budget=Budget(seconds=30)).run("Block.")
        while not started.is_set():
            await clock.settle()
        await clock.advance(30)
        assert (await run).stopped_by == "seconds"
    assert not go_on.is_set()
    go_on.set()


async def test_getting_ready_is_no_part_of_the_time_but_of_that_which_is_left() -> None:
    async def connect() -> None:
        await clock.sleep(30)

    async def call(arguments: dict[str, Any]) -> str:
        await clock.sleep(9)
        return "done"

    with use_clock(FakeClock()) as clock:
        found = Tool.of_schema("look", "", {}, call, ready=connect, timeout=10)
        going, late = asyncio.create_task(found.invoke("")), asyncio.create_task(found.invoke("", within=20))
        await clock.advance(39)
        assert await going == "done"
        with pytest.raises(TimeoutError, match="it could not begin within 20 s"):
            await late


# ------------------------------------------------------------------------------------------------------ concurrency


async def test_so_many_calls_go_on_at_once_and_the_others_wait_their_turn() -> None:
    inside, most = 0, 0

    async def look(n: int) -> int:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        for _ in range(3):
            await asyncio.sleep(0)
        inside -= 1
        return n

    limited = Tool(look, concurrency=2)
    boxes = Toolbox([limited]), Toolbox([limited])  # two agents
    results = await asyncio.gather(*(boxes[n % 2].execute(f"c{n}", "look", f'{{"n": {n}}}') for n in range(9)))
    assert most == 2
    assert [result.content for result in results] == [str(n) for n in range(9)]


async def test_waiting_for_a_turn_is_noted_and_takes_none_of_the_time() -> None:
    async def slow() -> str:
        await clock.sleep(8)
        return "done"

    with use_clock(FakeClock()) as clock, record() as seen:
        box = Toolbox([Tool(slow, timeout=10, concurrency=1)])
        calls = [asyncio.create_task(box.execute(f"c{n}", "slow", "{}")) for n in range(3)]
        await clock.advance(24)
        assert [(await call).outcome for call in calls] == ["ok"] * 3
    noted = [[(note.name, note.facts) for note in seen.notes.get(op.ref.id, ())] for op in seen.operations]
    assert noted == [[], [("queued", {"wait": 8})], [("queued", {"wait": 16})]]


async def test_a_call_that_is_cancelled_gives_its_place_to_others() -> None:
    begun: list[int] = []

    async def hang(n: int) -> None:
        begun.append(n)
        await asyncio.Event().wait()

    found = Tool(hang, concurrency=1)
    calls = [asyncio.create_task(found.invoke(f'{{"n": {n}}}')) for n in range(3)]
    await asyncio.sleep(0.0)
    calls[1].cancel()  # it waits
    calls[0].cancel()  # it is inside
    for _ in range(5):
        await asyncio.sleep(0)
    assert begun == [0, 2]
    calls[2].cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_thread_that_was_left_behind_keeps_its_turn_until_it_has_ended() -> None:
    order: list[str] = []
    started, go_on = threading.Event(), threading.Event()

    def work(n: int) -> None:
        order.append(f"begin {n}")
        started.set()
        go_on.wait(10)
        order.append(f"end {n}")

    with use_clock(FakeClock()) as clock:
        found = Tool(work, concurrency=1, timeout=5)
        calls = [asyncio.create_task(found.invoke(f'{{"n": {n}}}')) for n in range(2)]
        await asyncio.to_thread(started.wait, 10)
        await clock.advance(5)
        assert (calls[0].done(), order) == (True, ["begin 0"])
        go_on.set()
        await asyncio.wait(calls, timeout=10)
    assert order == ["begin 0", "end 0", "begin 1", "end 1"]
    assert isinstance(calls[0].exception(), TimeoutError)
    assert await calls[1] is None


async def test_objects_of_a_class_share_the_turns_of_its_tools() -> None:
    class Desk:
        @tool(concurrency=1)
        async def work(self, n: int) -> int:
            order.append(n)
            await asyncio.sleep(0)
            order.append(n)
            return n

    order: list[int] = []
    await asyncio.gather(*(Desk().work.invoke(f'{{"n": {n}}}') for n in range(3)))
    assert order == [0, 0, 1, 1, 2, 2]


def test_each_event_loop_has_turns_of_its_own() -> None:
    async def work() -> str:
        await asyncio.sleep(0)
        return "done"

    found = Tool(work, concurrency=1)

    async def twice() -> list[str]:
        return list(await asyncio.gather(found.invoke(""), found.invoke("")))

    assert [asyncio.run(twice()) for _ in range(2)] == [["done", "done"]] * 2


# -------------------------------------------------------------------------------------------------- what is injected


class Database:
    def __init__(self) -> None:
        self.open = True


class State(BaseModel):
    notes: list[str] = []


made: list[Database] = []


def connect() -> Iterator[Database]:
    database = Database()
    made.append(database)
    yield database
    database.open = False


async def open_file() -> AsyncIterator[Database]:
    database = Database()
    made.append(database)
    yield database
    database.open = False


class Caller(Workflow):
    """Calls a tool from a step, twice."""

    def __init__(self, *tools: object, **options: Any) -> None:
        super().__init__(**options)
        self.box = Toolbox(tools)
        self.asks_for = self.box.resources

    @step
    async def call(self, ctx: Context[State], ev: StartEvent) -> StopEvent:
        [name] = [found.name for found in self.box]
        results = [await self.box.execute(f"c{n}", name, ev.arguments, ctx=ctx) for n in range(2)]
        return StopEvent(result=(results, await ctx.get("notes")))


async def called(*tools: object, arguments: str = "{}", **options: Any) -> tuple[list[ToolResultPart], list[str]]:
    found: tuple[list[ToolResultPart], list[str]] = await Caller(*tools, **options).run(arguments=arguments)
    return found


async def test_context_and_resources_are_injected_and_no_model_is_told() -> None:
    async def note(
        text: str, ctx: Context[State], db: Annotated[Database, Resource(connect)], *, times: int = 1
    ) -> dict[str, Any]:
        """Write something down.

        Args:
            text: What.
            ctx: Not for the model.
            db: Neither.
            times: How often.
        """
        async with ctx.store.edit_state() as state:
            state.notes.extend([text] * times)
        return {"open": db.open, "run": ctx.run_id != ""}

    found = Tool(note)
    assert list(found.parameters["properties"]) == ["text", "times"]
    assert found.signature == "text: string, times: integer = 1"
    made.clear()
    results, notes = await called(note, arguments='{"text": "x", "times": 2}')
    assert [(result.outcome, result.content) for result in results] == [("ok", '{"open":true,"run":true}')] * 2
    assert notes == ["x", "x", "x", "x"]
    [database] = made
    assert not database.open


async def test_plain_tool_uses_the_context_from_its_thread() -> None:
    def note(ctx: Context, text: str) -> str:
        assert threading.current_thread() is not threading.main_thread()
        ctx.from_thread(ctx.set("notes", [text]))
        db = ctx.from_thread(ctx.resource(Resource(connect)))
        return f"{ctx.from_thread(ctx.get('notes'))} {db.open}"

    results, notes = await called(note, arguments='{"text": "x"}')
    assert results[0].content == "['x'] True"
    assert notes == ["x"]


async def test_positional_only_parameters_are_injected_too() -> None:
    def work(db: Annotated[Database, Resource(connect)], n: int, ctx: Context | None = None, /) -> str:
        return f"{db.open} {n} {ctx is not None}"

    assert (await called(work, arguments='{"n": 2}'))[0][0].content == "True 2 True"


async def test_method_and_decorated_method_are_injected() -> None:
    class Desk:
        @tool
        async def work(self, ctx: Context, n: int) -> str:
            return f"{n} {ctx.run_id == ran}"

        def plain(self, n: int, ctx: Context) -> str:
            return f"{n} {ctx.run_id == ran}"

    for found in (Desk().work, Desk().plain):
        handler = Caller(found).run(arguments='{"n": 1}')
        ran = handler.run_id
        assert (await handler)[0][0].content == "1 True"


async def test_resource_is_overridden_as_those_of_steps_are() -> None:
    async def work(db: Annotated[Database, Resource(connect)]) -> str:
        return type(db).__name__

    class Fake(Database):
        pass

    made.clear()
    assert (await called(work, resources={connect: Fake()}))[0][0].content == "Fake"
    assert made == []


async def test_resource_of_a_step_lives_as_long_as_the_call() -> None:
    async def work(db: Annotated[Database, Resource(open_file, scope="step")]) -> str:
        return str(db.open)

    made.clear()
    results, _ = await called(work)
    assert [result.content for result in results] == ["True", "True"]  # both in one step
    assert [database.open for database in made] == [False]


async def test_resource_that_cannot_be_made_is_told_to_the_model_and_may_be_tried_again() -> None:
    tries = 0

    def unreachable() -> Database:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise ConnectionError("no database")
        return Database()

    async def work(db: Annotated[Database, Resource(unreachable)]) -> str:
        return str(db.open)

    results, _ = await called(Tool(work, retry=Retry(attempts=2, wait=0)))
    assert [(result.outcome, result.content) for result in results] == [
        ("error", "The tool failed: ConnectionError: no database"),
        ("ok", "True"),
    ]
    assert tries == 3


async def test_tool_that_needs_a_context_says_so_where_it_has_none() -> None:
    def work(n: int, ctx: Context) -> int:
        return n

    def look(db: Annotated[Database, Resource(connect)]) -> str:
        return ""

    with pytest.raises(AgentConfigurationError) as caught:
        await Tool(work).invoke('{"n": 1}')
    assert str(caught.value) == (
        "tool 'work' takes the step's context as 'ctx', and was called without a context. In a step, write: await "
        "work.invoke(arguments, ctx), or, of a toolbox: await toolbox.execute(call_id, name, arguments, ctx=ctx)"
    )
    with pytest.raises(AgentConfigurationError, match=r"takes Resource\(connect\) as 'db'"):
        await Tool(look).invoke("{}")


async def test_what_is_injected_may_have_a_default() -> None:
    def work(n: int, ctx: Context | None = None) -> str:
        return f"{n} {ctx is None}"

    assert await Tool(work).invoke('{"n": 1}') == "1 True"
    assert (await called(work, arguments='{"n": 1}'))[0][0].content == "1 False"


def test_factory_that_needs_what_nothing_provides_is_refused_when_the_tool_is_made() -> None:
    def needy(address: str) -> Database:
        return Database()

    def work(db: Annotated[Database, Resource(needy)]) -> None: ...

    with pytest.raises(AgentConfigurationError, match=r"tool 'work': parameter 'db': .* needs 'address'"):
        Tool(work)


async def test_calls_leave_nothing_behind() -> None:
    async def work(n: int) -> int:
        raise ValueError(n)

    found = Tool(work, retry=Retry(attempts=2, wait=0), timeout=5, concurrency=2)
    await outcome_of(found, '{"n": 1}')
    gc.collect()
    assert len(asyncio.all_tasks()) == 1
