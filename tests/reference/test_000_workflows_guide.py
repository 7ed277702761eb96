"""Document 000, the module guide, block by block in its order. The numbers are those of README.md."""
# ruff: noqa: T201 because the documents print

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Optional

import pytest

from agentflow import (
    ConstantDelayRetryPolicy,
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    RetryPolicy,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowCheckpointer,
    WorkflowRuntimeError,
    WorkflowValidationError,
    draw_all_possible_flows,
    draw_most_recent_execution,
    step,
)
from agentflow.clock import Clock, use_clock
from agentflow.testing import FakeClock
from agentflow_llm import OpenAI

from .stand_ins import JokeEvent, Parrot, critique_of, get_response_synthesizer, shows


def test_a_script_has_one_async_entry_point(capsys: pytest.CaptureFixture[str]) -> None:
    """000.1. Corrected: `MyWorkflow(...)` and `run(...)` get arguments."""

    class MyWorkflow(Workflow):
        @step
        async def my_step(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=f"Hello, {ev.name}!")

    async def main() -> None:
        w = MyWorkflow(timeout=10)
        result = await w.run(name="world")
        print(result)

    asyncio.run(main())
    assert capsys.readouterr().out == "Hello, world!\n"


async def test_a_joke_is_generated_and_then_critiqued(joke_flow: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """000.2 and 000.7, to the letter but for the import of the model."""
    w = joke_flow(timeout=60, verbose=False)
    result = await w.run(topic="pirates")
    print(str(result))
    assert capsys.readouterr().out == critique_of("pirates") + "\n"


def test_an_event_is_a_pydantic_model_with_methods_of_ones_own() -> None:
    """000.3: fields are checked, and the sentence below it says that methods may be added."""

    class LoudEvent(JokeEvent):
        def shout(self) -> str:
            return self.joke.upper()

    assert LoudEvent(joke="knock knock").shout() == "KNOCK KNOCK"
    with pytest.raises(ValueError, match="joke"):
        JokeEvent.model_validate({"joke": 3})


async def test_an_attribute_of_the_class_serves_every_step(joke_flow: Any, parrot: Parrot) -> None:
    """000.4: one client for the class; a workflow object may have one of its own."""
    w = joke_flow()
    await w.run(topic="pirates")
    w.llm = OpenAI(model="gpt-4o")
    await w.run(topic="pirates")
    assert [request.json["model"] for request in parrot.requests] == ["gpt-4o-mini"] * 2 + ["gpt-4o"] * 2
    assert joke_flow.llm.model == "gpt-4o-mini"


async def test_a_start_event_has_what_run_was_given() -> None:
    """000.5: `ev.topic` raises where it is missing, `ev.get("topic")` does not."""

    class Entry(Workflow):
        @step
        async def generate_joke(self, ev: StartEvent) -> StopEvent:
            assert ev.get("topic") is None
            assert ev.get("topic", "ships") == "ships"
            return StopEvent(result=ev.topic)

    with pytest.raises(AttributeError, match="topic"):
        await Entry().run()


def test_a_workflow_is_checked_before_it_runs() -> None:
    """000.5 without what the block leaves out: a joke that no step takes is refused, by name."""

    class HalfAJokeFlow(Workflow):
        @step
        async def generate_joke(self, ev: StartEvent) -> JokeEvent | StopEvent:
            return JokeEvent(joke=ev.topic)

    with pytest.raises(WorkflowValidationError, match="JokeEvent"):
        HalfAJokeFlow().validate()


@pytest.mark.parametrize("result", ["text", {"a": 1}, [1, 2], object()])
async def test_a_stop_event_ends_the_run_with_any_object(result: object) -> None:
    """000.6: the result is what was given, be it a text, a dictionary, a list or something else."""

    class Exit(Workflow):
        @step
        async def critique_joke(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=result)

    assert await Exit().run() is result


async def test_all_flows_and_an_execution_are_drawn(joke_flow: Any, tmp_path: Path) -> None:
    """000.9. Corrected: the files go to a folder of the test."""
    # Draw all
    draw_all_possible_flows(joke_flow, filename=str(tmp_path / "joke_flow_all.html"))

    # Draw an execution
    w = joke_flow()
    await w.run(topic="Pirates")
    draw_most_recent_execution(w, filename=str(tmp_path / "joke_flow_recent.html"))

    assert shows(tmp_path / "joke_flow_all.html", "generate_joke", "JokeEvent", "critique_joke", "StopEvent")
    assert shows(tmp_path / "joke_flow_recent.html", "generate_joke", "JokeEvent", "critique_joke", "StopEvent")


async def test_steps_share_what_the_context_holds() -> None:
    """000.10. Corrected: a step before it stores the query and makes `MyEvent`, and `...` is filled in."""

    class MyEvent(Event):
        pass

    class MyWorkflow(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> MyEvent:
            await ctx.set("query", ev.query)
            return MyEvent()

        @step
        async def query(self, ctx: Context, ev: MyEvent) -> StopEvent:
            # retrieve from context
            query = await ctx.get("query")

            # do something with context and event
            val = query.upper()
            result = f"{query}?"

            # store in context
            await ctx.set("key", val)

            return StopEvent(result=result)

    handler = MyWorkflow().run(query="why")
    assert await handler == "why?"
    assert await handler.ctx.get("key") == "WHY"


async def test_a_step_waits_for_several_events_and_gets_them_in_the_order_asked_for() -> None:
    """000.11. Corrected: the events are defined, and a step sends them, the later one first."""

    class QueryEvent(Event):
        query: str

    class RetrieveEvent(Event):
        nodes: list[str]

    class MyWorkflow(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> QueryEvent | RetrieveEvent:
            ctx.send_event(RetrieveEvent(nodes=["a", "b"]))
            return QueryEvent(query=ev.query)

        @step
        async def synthesize(self, ctx: Context, ev: QueryEvent | RetrieveEvent) -> StopEvent | None:
            data = ctx.collect_events(ev, [QueryEvent, RetrieveEvent])
            # check if we can run
            if data is None:
                return None

            # they come in the order asked for
            query_event, retrieve_event = data

            # run response synthesis
            synthesizer = get_response_synthesizer()
            response = synthesizer.synthesize(query_event.query, nodes=retrieve_event.nodes)

            return StopEvent(result=response)

    assert await MyWorkflow().run(query="letters") == "letters: a, b"


class MyEvent(Event):
    """000.12."""


class MyEventResult(Event):
    """000.12."""

    result: str


class GatherEvent(Event):
    """000.12."""


class Gathering(Workflow):
    """000.12, `MyWorkflow`, but for its last step."""

    @step
    async def dispatch_step(self, ctx: Context, ev: StartEvent) -> MyEvent | GatherEvent:
        ctx.send_event(MyEvent())
        ctx.send_event(MyEvent())

        return GatherEvent()

    @step
    async def handle_my_event(self, ev: MyEvent) -> MyEventResult:
        return MyEventResult(result="result")


async def test_events_are_sent_by_hand_and_gathered() -> None:
    """000.12. Corrected: `collect_events` is given `ev`. GatherEvent wakes `gather` too, and does not count."""
    woken_by: list[Event] = []

    class MyWorkflow(Gathering):
        @step
        async def gather(self, ctx: Context, ev: GatherEvent | MyEventResult) -> StopEvent | None:
            woken_by.append(ev)
            # wait for events to finish
            events = ctx.collect_events(ev, [MyEventResult, MyEventResult])
            if not events:
                return None

            return StopEvent(result=events)

    assert await MyWorkflow().run() == [MyEventResult(result="result")] * 2
    assert [type(ev) for ev in woken_by].count(GatherEvent) == 1
    assert len(woken_by) == 3


async def test_collecting_without_the_event_says_what_is_missing() -> None:
    """000.12 as it is printed."""

    class MyWorkflow(Gathering):
        @step
        async def gather(self, ctx: Context, ev: GatherEvent | MyEventResult) -> StopEvent | None:
            events = ctx.collect_events([MyEventResult, MyEventResult])  # type: ignore[arg-type, var-annotated]  # because it is the misprint
            return StopEvent(result=events)

    with pytest.raises(WorkflowRuntimeError, match=r"ctx\.collect_events\(ev, \[A, B\]\)"):
        await MyWorkflow().run()


async def test_a_step_writes_to_the_stream_and_the_caller_reads_it(capsys: pytest.CaptureFixture[str]) -> None:
    """000.13 and 000.14. Corrected: `FirstEvent` is defined, and a second step takes it and ends the run."""

    class FirstEvent(Event):
        first_output: str

    class ProgressEvent(Event):
        msg: str

    class MyWorkflow(Workflow):
        @step
        async def step_one(self, ctx: Context, ev: StartEvent) -> FirstEvent:
            ctx.write_event_to_stream(ProgressEvent(msg="Step one is happening"))
            return FirstEvent(first_output="First step complete.")

        @step
        async def step_two(self, ev: FirstEvent) -> StopEvent:
            return StopEvent(result=ev.first_output)

    w = MyWorkflow()

    handler = w.run(topic="Pirates")

    async for event in handler.stream_events():
        print(event)

    result = await handler
    assert result == "First step complete."
    assert capsys.readouterr().out == "msg='Step one is happening'\nresult='First step complete.'\n"


@pytest.mark.parametrize(("failures", "executions"), [(9, 10), (99, 10)])
async def test_a_policy_retries_a_step_every_five_seconds_ten_times_at_most(failures: int, executions: int) -> None:
    """000.15. Corrected: `flaky_call` is defined; ten attempts are ten executions. No second is slept."""
    calls: list[float] = []

    with use_clock(FakeClock(start=0)) as clock:
        assert isinstance(clock, FakeClock)

        def flaky_call() -> str:
            calls.append(clock.time())
            if len(calls) <= failures:
                raise OSError("not now")
            return "now"

        class MyWorkflow(Workflow):
            # This policy will retry this step on failure every 5 seconds for at most 10 times
            @step(retry_policy=ConstantDelayRetryPolicy(delay=5, maximum_attempts=10))
            async def flaky_step(self, ctx: Context, ev: StartEvent) -> StopEvent:
                result = flaky_call()  # this might raise
                return StopEvent(result=result)

        handler = MyWorkflow().run()
        await clock.advance(1000)

    assert calls == [5.0 * n for n in range(executions)]
    if failures < executions:
        assert await handler == "now"
    else:
        with pytest.raises(OSError, match="not now"):
            await handler


async def test_a_policy_is_anything_with_next() -> None:
    """000.16: the signature. `attempts` counts failures, `elapsed_time` the seconds since the first of them."""
    asked: list[tuple[float, int, str]] = []

    class MyPolicy:
        def next(self, elapsed_time: float, attempts: int, error: Exception) -> Optional[float]:  # noqa: UP045 because the document writes it so
            asked.append((elapsed_time, attempts, str(error)))
            return 2 if attempts < 3 else None

    class MyWorkflow(Workflow):
        @step(retry_policy=MyPolicy())
        async def flaky_step(self, ev: StartEvent) -> StopEvent:
            raise OSError("no")

    assert isinstance(MyPolicy(), RetryPolicy)
    with use_clock(FakeClock()) as clock:
        assert isinstance(clock, FakeClock)
        handler = MyWorkflow().run()
        await clock.advance(10)
    with pytest.raises(OSError, match="no"):
        await handler
    assert asked == [(0, 1, "no"), (2, 2, "no"), (4, 3, "no")]


class RetryOnFridayPolicy:
    """000.17. Corrected: the day is asked of a clock that a test can turn, not of `datetime.today()`."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def next(self, elapsed_time: float, attempts: int, error: Exception) -> Optional[float]:  # noqa: UP045 because the document writes it so
        if datetime.fromtimestamp(self.clock.time(), UTC).strftime("%A") == "Friday":
            # retry in 5 seconds
            return 5
        # tell the workflow we don't want to retry
        return None


@pytest.mark.parametrize(
    ("now", "executions"),
    [(datetime(2025, 3, 6, 12, tzinfo=UTC), 1), (datetime(2025, 3, 7, 23, 59, 52, tzinfo=UTC), 3)],
    ids=["thursday", "eight seconds before saturday"],
)
async def test_the_weekend_policy_retries_on_fridays_only(now: datetime, executions: int) -> None:
    """000.17: on a Thursday it gives up at once; late on a Friday until Saturday has come."""
    calls: list[None] = []

    with use_clock(FakeClock(now.timestamp())) as clock:
        assert isinstance(clock, FakeClock)

        class MyWorkflow(Workflow):
            @step(retry_policy=RetryOnFridayPolicy(clock))
            async def flaky_step(self, ev: StartEvent) -> StopEvent:
                calls.append(None)
                raise OSError("no")

        handler = MyWorkflow().run()
        await clock.advance(3600)

    with pytest.raises(OSError, match="no"):
        await handler
    assert len(calls) == executions


class HumanInTheLoopWorkflow(Workflow):
    """000.18."""

    @step
    async def step1(self, ev: StartEvent) -> InputRequiredEvent:
        return InputRequiredEvent(prefix="Enter a number: ")

    @step
    async def step2(self, ev: HumanResponseEvent) -> StopEvent:
        return StopEvent(result=ev.response)


def answer(prompt: str) -> str:
    """Stands in for `input`."""
    return {"Enter a number: ": "42"}[prompt]


async def test_a_human_is_asked_and_answers_while_the_stream_is_read() -> None:
    """000.18. Corrected: `input` is replaced."""
    # workflow should work with streaming
    workflow = HumanInTheLoopWorkflow()

    handler = workflow.run()
    async for event in handler.stream_events():
        if isinstance(event, InputRequiredEvent):
            # here, we can handle human input however you want
            response = answer(event.prefix)
            handler.ctx.send_event(HumanResponseEvent(response=response))

    final_result = await handler
    assert final_result == "42"


async def test_reading_the_stream_is_broken_off_and_resumed_after_the_answer() -> None:
    """000.19. Corrected: `input` is replaced; the second reading begins where the first one stopped."""
    workflow = HumanInTheLoopWorkflow()
    event: Event | None = None

    handler = workflow.run()
    async for event in handler.stream_events():
        if isinstance(event, InputRequiredEvent):
            break

    # now we handle the human response
    assert event is not None
    assert not handler.is_done()
    response = answer(event.prefix)
    handler.ctx.send_event(HumanResponseEvent(response=response))

    # now we resume the workflow streaming
    resumed = [event async for event in handler.stream_events()]

    final_result = await handler
    assert final_result == "42"
    assert resumed == [StopEvent(result="42")]


async def test_a_handler_is_iterated_step_by_step_and_the_run_stands_still_meanwhile() -> None:
    """000.20. Corrected: the workflow stores what is inspected; the old engine raised TypeError here."""

    class SecondEvent(Event):
        pass

    class Storing(Workflow):
        @step
        async def one(self, ctx: Context, ev: StartEvent) -> SecondEvent:
            await ctx.set("key", ev.topic)
            return SecondEvent()

        @step
        async def two(self, ctx: Context, ev: SecondEvent) -> StopEvent:
            await ctx.set("key", "two")
            return StopEvent(result="done")

    w = Storing()

    # Kick off the workflow
    handler = w.run(topic="Pirates")
    seen: list[str] = []

    # Iterate until done
    async for _ in handler:
        # inspect context
        val = await handler.ctx.get("key")
        await asyncio.sleep(0)
        assert await handler.ctx.get("key") == val
        seen.append(val)

    # Get the final result
    result = await handler
    assert result == "done"
    assert seen == ["Pirates", "two"]


@pytest.mark.usefixtures("parrot")
async def test_steps_are_functions_attached_to_a_workflow_object(capsys: pytest.CaptureFixture[str]) -> None:
    """000.21. Corrected: the second step has a model too; in the old engine only a class could be attached to."""
    joke_flow = Workflow(timeout=60, verbose=True)
    llm = OpenAI()

    @step(workflow=joke_flow)
    async def generate_joke(ev: StartEvent) -> JokeEvent:
        topic = ev.topic

        prompt = f"Write your best joke about {topic}."

        response = await llm.acomplete(prompt)
        return JokeEvent(joke=str(response))

    @step(workflow=joke_flow)
    async def critique_joke(ev: JokeEvent) -> StopEvent:
        joke = ev.joke

        prompt = f"Give a thorough analysis and critique of the following joke: {joke}"
        response = await llm.acomplete(prompt)
        return StopEvent(result=str(response))

    assert await joke_flow.run(topic="pirates") == critique_of("pirates")
    assert capsys.readouterr().out.splitlines() == [
        "Running step generate_joke",
        "Step generate_joke produced event JokeEvent",
        "Running step critique_joke",
        "Step critique_joke produced event StopEvent",
    ]


async def test_a_run_goes_on_with_the_context_of_the_one_before() -> None:
    """000.22. Corrected: the workflow keeps something to be seen."""

    class Counting(Workflow):
        @step
        async def count(self, ctx: Context, ev: StartEvent) -> StopEvent:
            runs = await ctx.get("runs", default=0) + 1
            await ctx.set("runs", runs)
            return StopEvent(result=runs)

    w = Counting()

    handler = w.run()
    result = await handler
    assert result == 1

    # continue with next run
    handler = w.run(ctx=handler.ctx)
    result = await handler
    assert result == 2

    assert await w.run() == 1


async def test_a_run_starts_from_a_checkpoint(joke_flow: Any, parrot: Parrot) -> None:
    """000.23. Corrected: `run_from` is given the checkpoint. A new topic comes too late: the joke is there."""
    w = joke_flow()
    w_cptr = WorkflowCheckpointer(workflow=w)

    # to checkpoint a run, use the `run` method from w_cptr
    handler = w_cptr.run(topic="Pirates")
    await handler

    # to view the stored checkpoints of this run
    first, second = w_cptr.checkpoints[handler.run_id]
    assert (first.last_completed_step, second.last_completed_step) == ("generate_joke", "critique_joke")

    # to run from one of the checkpoints, use `run_from` method
    ckpt = w_cptr.checkpoints[handler.run_id][0]
    again = w_cptr.run_from(topic="Ships", checkpoint=ckpt)
    assert await again == critique_of("Pirates")

    assert again.run_id != handler.run_id
    assert [c.last_completed_step for c in w_cptr.checkpoints[again.run_id]] == ["critique_joke"]
    assert [prompt.split()[0] for prompt in parrot.prompts] == ["Write", "Give", "Give"]


def test_starting_from_no_checkpoint_says_what_is_missing(joke_flow: Any) -> None:
    """000.23 as it is printed."""
    w_cptr = WorkflowCheckpointer(workflow=joke_flow())
    with pytest.raises(TypeError, match="checkpoint"):
        _ = w_cptr.run_from(topic="Ships")  # type: ignore[call-arg]  # because it is the misprint
