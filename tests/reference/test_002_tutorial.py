"""Document 002, the tutorial, block by block in its order. README.md has the numbers.

Its second half, a copy of the module guide, is what 000 tests. Its third is about llama_deploy, a service for running
workflows elsewhere, and out of scope; only the workflows that it deploys are run here, without it.
"""
# ruff: noqa: T201 because the documents print

import asyncio
import random
from pathlib import Path

import pytest

from agentflow import (
    Context,
    Event,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowValidationError,
    draw_all_possible_flows,
    draw_most_recent_execution,
    step,
)
from agentflow.clock import current_clock, use_clock
from agentflow.testing import FakeClock
from agentflow_llm import OpenAI

from .stand_ins import Parrot, shows


async def test_the_picture_of_the_introduction_runs() -> None:
    """002.1, which is described and not coded: judge, improve in a loop, three strategies at once, pick the best."""

    class BadQueryEvent(Event):
        query: str

    class JudgeEvent(Event):
        query: str

    class NaiveRAGEvent(Event):
        query: str

    class HighTopKEvent(Event):
        query: str

    class RerankEvent(Event):
        query: str

    class ResponseEvent(Event):
        query: str
        response: str
        quality: int

    class ComplexWorkflow(Workflow):
        @step
        async def judge_query(
            self, ctx: Context, ev: StartEvent | JudgeEvent
        ) -> BadQueryEvent | NaiveRAGEvent | HighTopKEvent | RerankEvent | None:
            if not ev.query.endswith("?!"):
                return BadQueryEvent(query=ev.query)
            ctx.send_event(NaiveRAGEvent(query=ev.query))
            ctx.send_event(HighTopKEvent(query=ev.query))
            ctx.send_event(RerankEvent(query=ev.query))
            return None

        @step
        async def improve_query(self, ev: BadQueryEvent) -> JudgeEvent:
            return JudgeEvent(query=ev.query + ("!" if ev.query.endswith("?") else "?"))

        @step
        async def naive_rag(self, ev: NaiveRAGEvent) -> ResponseEvent:
            return ResponseEvent(query=ev.query, response="naive", quality=1)

        @step
        async def high_top_k(self, ev: HighTopKEvent) -> ResponseEvent:
            return ResponseEvent(query=ev.query, response="high top k", quality=3)

        @step
        async def rerank(self, ev: RerankEvent) -> ResponseEvent:
            return ResponseEvent(query=ev.query, response="rerank", quality=2)

        @step
        async def judge_response(self, ctx: Context, ev: ResponseEvent) -> StopEvent | None:
            ready = ctx.collect_events(ev, [ResponseEvent] * 3)
            if ready is None:
                return None
            best = max(ready, key=lambda response: response.quality)
            return StopEvent(result=f"{best.query} {best.response}")

    assert await ComplexWorkflow().run(query="why") == "why?! high top k"


class SingleStep(Workflow):
    """002.4, `MyWorkflow`."""

    @step
    async def my_step(self, ev: StartEvent) -> StopEvent:
        # do something here
        return StopEvent(result="Hello, world!")


async def test_the_simplest_workflow_has_one_step(capsys: pytest.CaptureFixture[str]) -> None:
    """002.3 and 002.4. Corrected: the text says "Hello, World!", the code has the small letter."""
    w = SingleStep(timeout=10, verbose=False)
    result = await w.run()
    print(result)
    assert capsys.readouterr().out == "Hello, world!\n"


def test_a_script_wraps_it_in_an_async_function(capsys: pytest.CaptureFixture[str]) -> None:
    """002.5."""

    async def main() -> None:
        w = SingleStep(timeout=10, verbose=False)
        result = await w.run()
        print(result)

    asyncio.run(main())
    assert capsys.readouterr().out == "Hello, world!\n"


def test_one_step_is_drawn(tmp_path: Path) -> None:
    """002.6. Corrected: the file goes to a folder of the test."""
    draw_all_possible_flows(SingleStep, filename=str(tmp_path / "basic_workflow.html"))
    assert shows(tmp_path / "basic_workflow.html", "StartEvent", "my_step", "StopEvent")


def test_an_event_that_no_step_takes_is_refused() -> None:
    """002.6, the paragraph on annotations above it: an error, by name, before anything runs."""

    class MyWorkflow(Workflow):
        @step
        async def my_step(self, ev: StartEvent) -> FirstEvent | StopEvent:
            return FirstEvent(first_output="nobody listens")

    with pytest.raises(WorkflowValidationError, match="FirstEvent"):
        MyWorkflow().validate()


class FirstEvent(Event):
    """002.8."""

    first_output: str


class SecondEvent(Event):
    """002.8."""

    second_output: str


class MultiStep(Workflow):
    """002.9, `MyWorkflow`."""

    @step
    async def step_one(self, ev: StartEvent) -> FirstEvent:
        print(ev.first_input)
        return FirstEvent(first_output="First step complete.")

    @step
    async def step_two(self, ev: FirstEvent) -> SecondEvent:
        print(ev.first_output)
        return SecondEvent(second_output="Second step complete.")

    @step
    async def step_three(self, ev: SecondEvent) -> StopEvent:
        print(ev.second_output)
        return StopEvent(result="Workflow complete.")


async def test_three_steps_print_what_the_document_shows(capsys: pytest.CaptureFixture[str]) -> None:
    """002.7 to 002.10, output to the letter."""
    w = MultiStep(timeout=10, verbose=False)
    result = await w.run(first_input="Start the workflow.")
    print(result)
    assert capsys.readouterr().out.splitlines() == [
        "Start the workflow.",
        "First step complete.",
        "Second step complete.",
        "Workflow complete.",
    ]


def test_three_steps_are_drawn(tmp_path: Path) -> None:
    """002.11."""
    draw_all_possible_flows(MultiStep, filename=str(tmp_path / "multi_step_workflow.html"))
    assert shows(
        tmp_path / "multi_step_workflow.html", "step_one", "FirstEvent", "step_two", "SecondEvent", "step_three"
    )


async def test_a_step_loops_back_to_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """002.12 and 002.13. Corrected: chance is seeded, and the step is put into the workflow of 002.9."""
    chance = random.Random(5)  # noqa: S311 because it only tosses a coin
    tosses = random.Random(5)  # noqa: S311 because it only tosses a coin

    class LoopEvent(Event):
        loop_output: str

    class MyWorkflow(MultiStep):
        @step
        async def step_one(self, ev: StartEvent | LoopEvent) -> FirstEvent | LoopEvent:  # type: ignore[override]  # because the document widens it
            if chance.randint(0, 1) == 0:
                print("Bad thing happened")
                return LoopEvent(loop_output="Back to step one.")
            print("Good thing happened")
            return FirstEvent(first_output="First step complete.")

    w = MyWorkflow(timeout=10)
    for _ in range(20):
        bad = 0
        while tosses.randint(0, 1) == 0:
            bad += 1
        assert await w.run(first_input="Start the workflow.") == "Workflow complete."
        assert capsys.readouterr().out.splitlines() == [
            *["Bad thing happened"] * bad,
            "Good thing happened",
            "First step complete.",
            "Second step complete.",
        ]

    draw_all_possible_flows(MyWorkflow, filename=str(tmp_path / "loop.html"))
    assert shows(tmp_path / "loop.html", "step_one", "LoopEvent")


@pytest.mark.parametrize(("toss", "branch"), [(0, "A"), (1, "B")])
async def test_a_step_branches(toss: int, branch: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """002.14. Corrected: chance is replaced by the test's choice."""

    class BranchA1Event(Event):
        payload: str

    class BranchA2Event(Event):
        payload: str

    class BranchB1Event(Event):
        payload: str

    class BranchB2Event(Event):
        payload: str

    class BranchWorkflow(Workflow):
        @step
        async def start(self, ev: StartEvent) -> BranchA1Event | BranchB1Event:
            if toss == 0:
                print("Go to branch A")
                return BranchA1Event(payload="Branch A")
            print("Go to branch B")
            return BranchB1Event(payload="Branch B")

        @step
        async def step_a1(self, ev: BranchA1Event) -> BranchA2Event:
            print(ev.payload)
            return BranchA2Event(payload=ev.payload)

        @step
        async def step_b1(self, ev: BranchB1Event) -> BranchB2Event:
            print(ev.payload)
            return BranchB2Event(payload=ev.payload)

        @step
        async def step_a2(self, ev: BranchA2Event) -> StopEvent:
            print(ev.payload)
            return StopEvent(result="Branch A complete.")

        @step
        async def step_b2(self, ev: BranchB2Event) -> StopEvent:
            print(ev.payload)
            return StopEvent(result="Branch B complete.")

    w = BranchWorkflow()
    assert await w.run() == f"Branch {branch} complete."
    assert capsys.readouterr().out.splitlines() == [f"Go to branch {branch}", f"Branch {branch}", f"Branch {branch}"]

    other = {"A": "b", "B": "a"}[branch]
    draw_all_possible_flows(BranchWorkflow, filename=str(tmp_path / "all.html"))
    draw_most_recent_execution(w, filename=str(tmp_path / "recent.html"))
    assert shows(tmp_path / "all.html", "start", "step_a1", "step_a2", "step_b1", "step_b2")
    assert shows(tmp_path / "recent.html", "start", f"step_{branch.lower()}1", f"step_{branch.lower()}2")
    assert not shows(tmp_path / "recent.html", f"step_{other}1")


async def test_state_is_set_up_once_and_the_start_event_sent_again(capsys: pytest.CaptureFixture[str]) -> None:
    """002.15 to 002.17. Corrected: the brackets in `(await ctx.get("some_database"))[1]`."""

    class SetupEvent(Event):
        query: str

    class StepTwoEvent(Event):
        query: str

    class StatefulFlow(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> SetupEvent | StepTwoEvent:
            db = await ctx.get("some_database", default=None)
            if db is None:
                print("Need to load data")
                return SetupEvent(query=ev.query)

            # do something with the query
            return StepTwoEvent(query=ev.query)

        @step
        async def setup(self, ctx: Context, ev: SetupEvent) -> StartEvent:
            # load data
            await ctx.set("some_database", [1, 2, 3])
            return StartEvent(query=ev.query)

        @step
        async def step_two(self, ctx: Context, ev: StepTwoEvent) -> StopEvent:
            # do something with the data
            print("Data is ", await ctx.get("some_database"))

            return StopEvent(result=(await ctx.get("some_database"))[1])

    w = StatefulFlow(timeout=10, verbose=False)
    result = await w.run(query="Some query")
    print(result)
    assert capsys.readouterr().out.splitlines() == ["Need to load data", "Data is  [1, 2, 3]", "2"]


class TextEvent(Event):
    """002.19, `SecondEvent` with a second field."""

    second_output: str
    response: str


class Streaming(Workflow):
    """002.20, `MyWorkflow`."""

    @step
    async def step_one(self, ctx: Context, ev: StartEvent) -> FirstEvent:
        ctx.write_event_to_stream(Event(msg="Step one is happening"))
        return FirstEvent(first_output="First step complete.")

    @step
    async def step_two(self, ctx: Context, ev: FirstEvent) -> TextEvent:
        llm = OpenAI(model="gpt-4o-mini")
        generator = await llm.astream_complete(
            "Please give me the first 3 paragraphs of Moby Dick, a book in the public domain."
        )
        response = None
        async for response in generator:
            # Allow the workflow to stream this piece of response
            ctx.write_event_to_stream(Event(msg=response.delta))
        return TextEvent(second_output="Second step complete, full response attached", response=str(response))

    @step
    async def step_three(self, ctx: Context, ev: TextEvent) -> StopEvent:
        ctx.write_event_to_stream(Event(msg="Step three is happening"))
        return StopEvent(result="Workflow complete.")


def test_events_are_streamed_while_the_run_goes_on(
    parrot: Parrot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """002.18 to 002.21. Corrected: the stream ends with a StopEvent, which has no `msg`."""

    async def main() -> None:
        w = Streaming(timeout=30, verbose=True)
        handler = w.run(first_input="Start the workflow.")

        async for ev in handler.stream_events():
            if not isinstance(ev, StopEvent):
                print(ev.msg)

        final_result = await handler
        print("Final result", final_result)

        draw_all_possible_flows(Streaming, filename=str(tmp_path / "streaming_workflow.html"))

    asyncio.run(main())
    printed = capsys.readouterr().out.splitlines()
    first, *pieces, last, result = [line for line in printed if not line.startswith(("Running step", "Step step_"))]
    assert (first, last) == ("Step one is happening", "Step three is happening")
    assert len(pieces) > 5
    assert "".join(pieces) == f"[{parrot.prompts[0]}]"
    assert result == "Final result Workflow complete."
    assert "Step step_two produced event TextEvent" in printed
    assert shows(tmp_path / "streaming_workflow.html", "step_one", "step_two", "step_three")


@pytest.mark.usefixtures("parrot")
async def test_a_stop_event_has_no_message() -> None:
    """002.21 as it is printed: `print(ev.msg)` for every event."""
    handler = Streaming().run()
    *messages, stop = [ev async for ev in handler.stream_events()]
    assert [ev.msg for ev in messages][-1] == "Step three is happening"
    with pytest.raises(AttributeError, match="msg"):
        print(stop.msg)
    assert await handler == "Workflow complete."


class StepTwoEvent(Event):
    """002.22 and 002.23."""

    query: str


class StepThreeEvent(Event):
    """002.23."""

    result: str


SECONDS = {"Query 1": 3, "Query 2": 1, "Query 3": 2}


async def test_the_first_of_parallel_steps_to_stop_ends_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    """002.22. Corrected: seconds are given, not drawn, and are those of a clock that the test turns."""

    class ParallelFlow(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> StepTwoEvent:  # type: ignore[return]  # because the document's step only sends
            ctx.send_event(StepTwoEvent(query="Query 1"))
            ctx.send_event(StepTwoEvent(query="Query 2"))
            ctx.send_event(StepTwoEvent(query="Query 3"))

        @step(num_workers=4)
        async def step_two(self, ctx: Context, ev: StepTwoEvent) -> StopEvent:
            print("Running slow query ", ev.query)
            await current_clock().sleep(SECONDS[ev.query])

            return StopEvent(result=ev.query)

    with use_clock(FakeClock()) as clock:
        assert isinstance(clock, FakeClock)
        handler = ParallelFlow().run()
        await clock.advance(1)
        assert await handler == "Query 2"
    assert capsys.readouterr().out.splitlines() == [f"Running slow query  Query {n}" for n in (1, 2, 3)]


async def test_three_events_of_a_type_are_collected_in_the_order_of_their_coming(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """002.23. Corrected: as 002.22; undeclared `None` is returned as printed."""

    class ConcurrentFlow(Workflow):
        @step
        async def start(self, ctx: Context, ev: StartEvent) -> StepTwoEvent:  # type: ignore[return]  # because the document's step only sends
            ctx.send_event(StepTwoEvent(query="Query 1"))
            ctx.send_event(StepTwoEvent(query="Query 2"))
            ctx.send_event(StepTwoEvent(query="Query 3"))

        @step(num_workers=4)
        async def step_two(self, ctx: Context, ev: StepTwoEvent) -> StepThreeEvent:
            print("Running query ", ev.query)
            await current_clock().sleep(SECONDS[ev.query])
            return StepThreeEvent(result=ev.query)

        @step
        async def step_three(self, ctx: Context, ev: StepThreeEvent) -> StopEvent:
            # wait until we receive 3 events
            result = ctx.collect_events(ev, [StepThreeEvent] * 3)
            if result is None:
                return None  # type: ignore[return-value]  # because the document declares no None

            # do something with all 3 results together
            print(result)
            return StopEvent(result="Done")

    with use_clock(FakeClock()) as clock:
        assert isinstance(clock, FakeClock)
        handler = ConcurrentFlow().run()
        await clock.advance(3)
        assert await handler == "Done"
    collected = "StepThreeEvent(result='Query 2'), StepThreeEvent(result='Query 3'), StepThreeEvent(result='Query 1')"
    assert capsys.readouterr().out.splitlines() == [*(f"Running query  Query {n}" for n in (1, 2, 3)), f"[{collected}]"]


class StepAEvent(Event):
    """002.24, where it is not defined; likewise the five below."""

    query: str


class StepBEvent(Event):
    """002.24."""

    query: str


class StepCEvent(Event):
    """002.24."""

    query: str


class StepACompleteEvent(Event):
    """002.24."""

    result: str


class StepBCompleteEvent(Event):
    """002.24."""

    result: str


class StepCCompleteEvent(Event):
    """002.24."""

    result: str


class ConcurrentFlow(Workflow):
    """002.24, and again 002.37. Corrected: its events are defined; undeclared `None` is returned as printed."""

    def __init__(self, *, timeout: float | None = None, verbose: bool = False) -> None:
        super().__init__(timeout=timeout, verbose=verbose)
        self.collected: list[Event] = []

    @step
    async def start(self, ctx: Context, ev: StartEvent) -> StepAEvent | StepBEvent | StepCEvent:  # type: ignore[return]  # because the document's step only sends
        ctx.send_event(StepAEvent(query="Query 1"))
        ctx.send_event(StepBEvent(query="Query 2"))
        ctx.send_event(StepCEvent(query="Query 3"))

    @step
    async def step_a(self, ctx: Context, ev: StepAEvent) -> StepACompleteEvent:
        print("Doing something A-ish")
        return StepACompleteEvent(result=ev.query)

    @step
    async def step_b(self, ctx: Context, ev: StepBEvent) -> StepBCompleteEvent:
        print("Doing something B-ish")
        return StepBCompleteEvent(result=ev.query)

    @step
    async def step_c(self, ctx: Context, ev: StepCEvent) -> StepCCompleteEvent:
        print("Doing something C-ish")
        return StepCCompleteEvent(result=ev.query)

    @step
    async def step_three(
        self,
        ctx: Context,
        ev: StepACompleteEvent | StepBCompleteEvent | StepCCompleteEvent,
    ) -> StopEvent:
        print("Received event ", ev.result)

        # wait until we receive 3 events
        collected = ctx.collect_events(ev, [StepCCompleteEvent, StepACompleteEvent, StepBCompleteEvent])
        if collected is None:
            return None  # type: ignore[return-value]  # because the document declares no None

        # do something with all 3 results together
        self.collected = [*collected]
        return StopEvent(result="Done")


async def test_events_of_three_types_are_collected_in_the_order_asked_for(tmp_path: Path) -> None:
    """002.24: C, A, B, however they came; and the picture of it."""
    w = ConcurrentFlow()
    assert await w.run() == "Done"
    assert [type(ev) for ev in w.collected] == [StepCCompleteEvent, StepACompleteEvent, StepBCompleteEvent]
    draw_all_possible_flows(ConcurrentFlow, filename=str(tmp_path / "concurrent.html"))
    assert shows(tmp_path / "concurrent.html", "start", "step_a", "step_b", "step_c", "step_three")


class Step2Event(Event):
    """002.25 and 002.31."""

    query: str


class Step3Event(Event):
    """002.25."""

    query: str


class MainWorkflow(Workflow):
    """002.25."""

    @step
    async def start(self, ev: StartEvent) -> Step2Event:
        print("Starting up")
        return Step2Event(query=ev.query)

    @step
    async def step_two(self, ev: Step2Event) -> Step3Event:
        print("Sending an email")
        return Step3Event(query=ev.query)

    @step
    async def step_three(self, ev: Step3Event) -> StopEvent:
        print("Finishing up")
        return StopEvent(result=ev.query)


async def test_the_base_workflow_prints_what_the_document_shows(capsys: pytest.CaptureFixture[str]) -> None:
    """002.25 to 002.27."""
    w = MainWorkflow(timeout=10, verbose=False)
    result = await w.run(query="Initial query")
    print(result)
    assert capsys.readouterr().out.splitlines() == [
        "Starting up",
        "Sending an email",
        "Finishing up",
        "Initial query",
    ]


async def test_a_subclass_replaces_a_step_and_adds_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """002.28 to 002.30, with the output to the letter, and the filename as second argument."""

    class Step2BEvent(Event):
        query: str

    class CustomWorkflow(MainWorkflow):
        @step
        async def step_two(self, ev: Step2Event) -> Step2BEvent:  # type: ignore[override]  # because the document replaces what it returns
            print("Sending an email")
            return Step2BEvent(query=ev.query)

        @step
        async def step_two_b(self, ev: Step2BEvent) -> Step3Event:
            print("Also sending a text message")
            return Step3Event(query=ev.query)

    w = CustomWorkflow(timeout=10, verbose=False)
    result = await w.run(query="Initial query")
    print(result)
    assert capsys.readouterr().out.splitlines() == [
        "Starting up",
        "Sending an email",
        "Also sending a text message",
        "Finishing up",
        "Initial query",
    ]

    draw_all_possible_flows(CustomWorkflow, str(tmp_path / "custom_workflow.html"))
    assert shows(tmp_path / "custom_workflow.html", "start", "step_two", "step_two_b", "step_three")


class NestingWorkflow(Workflow):
    """002.31, `MainWorkflow`."""

    @step
    async def start(self, ctx: Context, ev: StartEvent, reflection_workflow: Workflow) -> Step2Event:
        print("Need to run reflection")
        res = await reflection_workflow.run(query=ev.query)

        return Step2Event(query=res)

    @step
    async def step_two(self, ctx: Context, ev: Step2Event) -> StopEvent:
        print("Query is ", ev.query)
        # do something with the query here
        return StopEvent(result=ev.query)


class ReflectionFlow(Workflow):
    """002.32."""

    @step
    async def sub_start(self, ctx: Context, ev: StartEvent) -> StopEvent:
        print("Doing custom reflection")
        return StopEvent(result="Improved query")


def test_a_workflow_with_an_empty_slot_does_not_run() -> None:
    """002.31, the sentence below it."""
    with pytest.raises(WorkflowValidationError, match="reflection_workflow"):
        NestingWorkflow().validate()


async def test_a_nested_workflow_fills_a_slot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """002.32 and 002.33. Corrected: in the drawing the nested workflow is a box, its steps are left out."""
    w = NestingWorkflow(timeout=10, verbose=False)
    w.add_workflows(reflection_workflow=ReflectionFlow())
    result = await w.run(query="Initial query")
    print(result)
    assert capsys.readouterr().out.splitlines() == [
        "Need to run reflection",
        "Doing custom reflection",
        "Query is  Improved query",
        "Improved query",
    ]

    draw_all_possible_flows(w, filename=str(tmp_path / "nested.html"))
    assert shows(tmp_path / "nested.html", "start", "ReflectionFlow", "Step2Event", "step_two")
    assert not shows(tmp_path / "nested.html", "sub_start")


class DefaultSubflow(Workflow):
    """002.34."""

    @step()
    async def sub_start(self, ctx: Context, ev: StartEvent) -> StopEvent:
        print("Doing basic reflection")
        return StopEvent(result="Improved query")


async def test_a_slot_has_a_default_which_can_be_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    """002.34 and 002.35, where `step_two` of 002.31 is left out."""

    class DefaultingWorkflow(NestingWorkflow):
        @step()
        async def start(
            self,
            ctx: Context,
            ev: StartEvent,
            reflection_workflow: Workflow = DefaultSubflow(),  # noqa: B008 because the document writes it so
        ) -> Step2Event:
            print("Need to run reflection")
            res = await reflection_workflow.run(query=ev.query)

            return Step2Event(query=res)

    assert await DefaultingWorkflow().run(query="Initial query") == "Improved query"
    assert "Doing basic reflection" in capsys.readouterr().out

    w = DefaultingWorkflow()
    w.add_workflows(reflection_workflow=ReflectionFlow())
    assert await w.run(query="Initial query") == "Improved query"
    assert "Doing custom reflection" in capsys.readouterr().out


async def test_verbose_output_is_what_the_document_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """002.36 to 002.39, to the letter: the three steps run before the first of what they produced is taken up."""
    draw_all_possible_flows(ConcurrentFlow, filename=str(tmp_path / "some_filename.html"))
    assert shows(tmp_path / "some_filename.html", "step_three")

    w = ConcurrentFlow(timeout=10, verbose=True)
    result = await w.run()
    assert result == "Done"
    assert capsys.readouterr().out.splitlines() == [
        "Running step start",
        "Step start produced no event",
        "Running step step_a",
        "Doing something A-ish",
        "Step step_a produced event StepACompleteEvent",
        "Running step step_b",
        "Doing something B-ish",
        "Step step_b produced event StepBCompleteEvent",
        "Running step step_c",
        "Doing something C-ish",
        "Step step_c produced event StepCCompleteEvent",
        "Running step step_three",
        "Received event  Query 1",
        "Step step_three produced no event",
        "Running step step_three",
        "Received event  Query 2",
        "Step step_three produced no event",
        "Running step step_three",
        "Received event  Query 3",
        "Step step_three produced event StopEvent",
    ]


async def test_a_run_is_stepped_through_until_its_handler_is_done() -> None:
    """002.40. Corrected: `run_step` returns a list, as 001 has it; the first call holds a run that has not begun."""
    w = ConcurrentFlow(timeout=10, verbose=True)
    handler = w.run()
    rounds: list[list[type[Event]]] = []

    while not handler.is_done():
        # run_step returns all that the step returned and sent
        events = await handler.run_step()
        rounds.append([type(ev) for ev in events])
        for ev in events:
            handler.ctx.send_event(ev)

    # get the result
    result = handler.result()
    assert result == "Done"
    assert rounds[0] == [StepAEvent, StepBEvent, StepCEvent]
    assert [StopEvent] in rounds


async def test_an_event_is_changed_before_it_is_sent_on() -> None:
    """002.40, its comments: `ev.get`, `ev.set` and a look into the context."""

    class MyWorkflow(Workflow):
        @step
        async def one(self, ctx: Context, ev: StartEvent) -> Step2Event:
            await ctx.set("key", "value")
            return Step2Event(query="from the step")

        @step
        async def two(self, ev: Step2Event) -> StopEvent:
            return StopEvent(result=ev.query)

    handler = MyWorkflow().run()
    (ev,) = await handler.run_step()
    # can make modifications to the results before dispatching the event
    val = ev.get("query")
    ev.set("query", f"{val}, changed")
    # can also inspect context
    val = await handler.ctx.get("key")
    assert val == "value"
    handler.ctx.send_event(ev)
    while not handler.is_done():
        await handler.run_step()
    assert handler.result() == "from the step, changed"


async def test_the_most_recent_execution_is_drawn_even_in_the_middle_of_it(tmp_path: Path) -> None:
    """002.41: an instance is passed, not the class; what has not run is not in the picture."""
    w = ConcurrentFlow(timeout=10)
    handler = w.run()
    await handler.run_step()
    draw_most_recent_execution(w, filename=str(tmp_path / "so_far.html"))
    assert shows(tmp_path / "so_far.html", "start")
    assert not shows(tmp_path / "so_far.html", "step_three")

    async for _ in handler:
        pass
    draw_most_recent_execution(w, filename=str(tmp_path / "last_execution.html"))
    assert shows(tmp_path / "last_execution.html", "start", "step_a", "step_b", "step_c", "step_three")


async def test_steps_are_functions_attached_to_an_empty_class() -> None:
    """002.42 and 002.43: a plain function, whose StopEvent has no result.."""

    class TestWorkflow(Workflow):
        pass

    @step(workflow=TestWorkflow)
    def some_step(ev: StartEvent) -> StopEvent:
        return StopEvent()

    assert await TestWorkflow().run() is None


async def test_a_function_is_added_to_a_class_that_has_steps() -> None:
    """002.43, the last paragraph below it: one extra step, without a subclass."""

    class Existing(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Step2Event:
            return Step2Event(query=ev.query)

    @step(workflow=Existing)
    async def extra_step(ev: Step2Event) -> StopEvent:
        return StopEvent(result=f"{ev.query}, and one step more")

    assert await Existing().run(query="begun") == "begun, and one step more"


async def test_the_deployed_workflow_runs_by_itself() -> None:
    """002.65, `MyWorkflow`. Corrected: run here, where the document gives it to a server."""

    class ProgressEvent(Event):
        progress: str

    class MyWorkflow(Workflow):
        @step()
        async def run_step(self, ctx: Context, ev: StartEvent) -> StopEvent:
            # Your workflow logic here
            arg1 = str(ev.get("arg1", ""))
            result = arg1 + "_result"

            # stream events as steps run
            ctx.write_event_to_stream(ProgressEvent(progress="I am doing something!"))

            return StopEvent(result=result)

    handler = MyWorkflow().run(arg1="hello_world")
    streamed = [event async for event in handler.stream_events()]
    assert streamed == [ProgressEvent(progress="I am doing something!"), StopEvent(result="hello_world_result")]
    assert await handler == "hello_world_result"
    assert await MyWorkflow().run() == "_result"


class InnerWorkflow(Workflow):
    """002.66."""

    @step()
    async def run_step(self, ev: StartEvent) -> StopEvent:
        arg1 = ev.get("arg1")
        if not arg1:
            raise ValueError("arg1 is required.")

        return StopEvent(result=str(arg1) + "_result")


class OuterWorkflow(Workflow):
    """002.66."""

    @step()
    async def run_step(self, ev: StartEvent, inner: InnerWorkflow) -> StopEvent:
        arg1 = ev.get("arg1")
        if not arg1:
            raise ValueError("arg1 is required.")

        arg1 = await inner.run(arg1=arg1)

        return StopEvent(result=str(arg1) + "_result")


async def test_a_slot_is_typed_with_the_workflow_that_it_takes() -> None:
    """002.66. Corrected: run here, where the document gives both to a server."""
    inner = InnerWorkflow()
    outer = OuterWorkflow()
    outer.add_workflows(inner=InnerWorkflow())

    assert await inner.run(arg1="hello_world") == "hello_world_result"
    assert await outer.run(arg1="hello_world") == "hello_world_result_result"
    with pytest.raises(ValueError, match="arg1 is required"):
        await outer.run()
