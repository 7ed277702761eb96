"""Document 001, the later module guide: where it says more than 000, or otherwise. README.md has the numbers."""
# ruff: noqa: T201 because the documents print

from pathlib import Path
from typing import Annotated, Any

import pytest

from agentflow import (
    Context,
    Event,
    Resource,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowCheckpointer,
    WorkflowRuntimeError,
    step,
)
from agentflow_llm import ChatMessage, Memory, OpenAI
from agentflow_llm.completion import Completion
from agentflow_llm.documents import Document
from agentflow_llm.index import VectorStoreIndex

from .stand_ins import JokeEvent, Parrot, QueryEngine, critique_of


class MyCustomStartEvent(StartEvent):
    """001.8. Index and model are of no type that pydantic knows."""

    a_string_field: str
    a_path_to_somewhere: Path
    an_index: VectorStoreIndex
    an_llm: OpenAI


class JokeFromIndexFlow(Workflow):
    """001.9, `JokeFlow`. Corrected: the string is a field of the event (`ev.a_string_field`); a last step is added.

    The query engine is a stand-in, and awaited.
    """

    @step
    async def generate_joke_from_index(self, ev: MyCustomStartEvent) -> JokeEvent:
        # Build a query engine using the index and the llm from the start event
        query_engine = QueryEngine(ev.an_index)
        topic = await query_engine.aquery(f"What is the closest topic to {ev.a_string_field}")
        # Use the llm attached to the start event to instruct the model
        prompt = f"Write your best joke about {topic}."
        response = await ev.an_llm.acomplete(prompt)
        # Dump the response on disk using the Path object from the event
        ev.a_path_to_somewhere.write_text(str(response))
        # Finally, pass the JokeEvent along
        return JokeEvent(joke=str(response))

    @step
    async def end(self, ev: JokeEvent) -> StopEvent:
        return StopEvent(result=ev.joke)


SHIPS = [Document(text="ships and boats"), Document(text="trains")]


@pytest.mark.usefixtures("parrot")
async def test_a_run_is_started_with_a_custom_event(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """001.8 to 001.10. Corrected: `MyCustomStartEvent(...)` gets its fields."""
    custom_start_event = MyCustomStartEvent(
        a_string_field="boats",
        a_path_to_somewhere=tmp_path / "joke.txt",
        an_index=VectorStoreIndex.from_documents(SHIPS),
        an_llm=OpenAI(),
    )
    w = JokeFromIndexFlow(timeout=60, verbose=False)
    result = await w.run(start_event=custom_start_event)
    print(str(result))
    assert capsys.readouterr().out == "[Write your best joke about ships and boats.]\n"
    assert (tmp_path / "joke.txt").read_text() == "[Write your best joke about ships and boats.]"


@pytest.mark.usefixtures("parrot")
async def test_the_fields_of_a_custom_event_can_be_given_to_run(tmp_path: Path) -> None:
    """001.10, the sentence above it: cumbersome, but possible; and a missing field is named at once."""
    w = JokeFromIndexFlow()
    fields: dict[str, Any] = {
        "a_string_field": "boats",
        "a_path_to_somewhere": tmp_path / "joke.txt",
        "an_index": VectorStoreIndex.from_documents(SHIPS),
    }
    assert await w.run(**fields, an_llm=OpenAI()) == "[Write your best joke about ships and boats.]"
    with pytest.raises(WorkflowRuntimeError, match="an_llm"):
        _ = w.run(**fields)


class MyStopEvent(StopEvent):
    """001.11. Corrected: `CompletionResponse` is called `Completion`."""

    critique: Completion


@pytest.fixture
def critique_flow(parrot: Parrot) -> Any:
    """001.12, `JokeFlow` with its first step. The class is made where the server's address is known."""

    class JokeFlow(Workflow):
        llm = OpenAI()

        @step
        async def generate_joke(self, ev: StartEvent) -> JokeEvent:
            return JokeEvent(joke=f"[Write your best joke about {ev.topic}.]")

        @step
        async def critique_joke(self, ev: JokeEvent) -> MyStopEvent:
            joke = ev.joke

            prompt = f"Give a thorough analysis and critique of the following joke: {joke}"
            response = await self.llm.acomplete(prompt)
            return MyStopEvent(critique=response)

    return JokeFlow


async def test_a_custom_stop_event_is_itself_the_result(critique_flow: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """001.11 to 001.13. Corrected: the field is named, `MyStopEvent(critique=response)`."""
    w = critique_flow(timeout=60, verbose=False)
    # Warning! `result` now contains an instance of MyStopEvent!
    result = await w.run(topic="pirates")
    assert isinstance(result, MyStopEvent)
    # We can now access the event fields as any normal Event
    print(result.critique.text)
    assert capsys.readouterr().out == critique_of("pirates") + "\n"


def test_what_a_run_takes_and_returns_is_known_from_outside(critique_flow: Any) -> None:
    """001.13, the sentence below it."""
    w = critique_flow()
    assert w.stop_event_class is MyStopEvent
    assert JokeFromIndexFlow().start_event_class is MyCustomStartEvent


async def test_an_event_takes_no_positional_value(critique_flow: Any) -> None:
    """001.12 as it is printed: `MyStopEvent(response)`."""

    class Printed(critique_flow):  # type: ignore[misc]  # because it comes from a fixture
        @step
        async def critique_joke(self, ev: JokeEvent) -> MyStopEvent:
            response = await self.llm.acomplete(ev.joke)
            return MyStopEvent(response)  # type: ignore[call-arg]  # because it is the misprint

    with pytest.raises(TypeError, match="positional"):
        await Printed().run(topic="pirates")


async def test_steps_are_run_one_at_a_time_and_what_they_produce_is_sent_on_by_hand(joke_flow: Any) -> None:
    """001.26. Corrected: `run` is given the topic that JokeFlow reads."""
    # Create a workflow, same as usual
    workflow = joke_flow()
    # Get the handler. Passing `stepwise=True` will block execution, waiting for manual intervention
    handler = workflow.run(topic="pirates", stepwise=True)
    rounds: list[list[type[Event]]] = []
    # Each time we call `run_step`, the workflow will advance and return all the events
    # that were produced in the last step.
    while produced_events := await handler.run_step():
        rounds.append([type(ev) for ev in produced_events])
        # If we're here, it means there's at least an event we need to propagate,
        # let's do it with `send_event`
        for ev in produced_events:
            handler.ctx.send_event(ev)

    # If we're here, it means the workflow execution completed, and
    # we can now access the final result.
    result = await handler
    assert result == critique_of("pirates")
    assert rounds == [[JokeEvent], [StopEvent]]


async def test_an_event_that_was_handed_out_is_held_until_it_is_sent_on(joke_flow: Any) -> None:
    """001.26, its comments: nothing goes on by itself, and what is sent on may be another joke."""
    handler = joke_flow().run(topic="pirates", stepwise=True)
    (joke,) = await handler.run_step()
    assert isinstance(joke, JokeEvent)
    with pytest.raises(WorkflowRuntimeError, match="JokeEvent was handed out and not sent on"):
        await handler.run_step()

    joke.joke = "[Write your best joke about ships.]"
    handler.ctx.send_event(joke)
    (stop,) = await handler.run_step()
    handler.ctx.send_event(stop)
    assert await handler == critique_of("ships")


class SecondEvent(Event):
    """001.29."""

    msg: str


async def test_steps_share_a_resource_that_is_made_once(capsys: pytest.CaptureFixture[str]) -> None:
    """001.29. Corrected: `Annotated` is imported."""
    made: list[Memory] = []

    def get_memory(*args, **kwargs):  # type: ignore[no-untyped-def]  # noqa: ANN002, ANN003, ANN202 because the document annotates nothing
        made.append(Memory.from_defaults("user_id_123", token_limit=60000))
        return made[-1]

    class WorkflowWithResource(Workflow):
        @step
        async def first_step(
            self,
            ev: StartEvent,
            memory: Annotated[Memory, Resource(get_memory)],  # pyright: ignore[reportUnknownArgumentType] because of the above
        ) -> SecondEvent:
            print("Memory before step 1", memory)
            await memory.aput(ChatMessage(role="user", content="This is the first step"))
            print("Memory after step 1", memory)
            return SecondEvent(msg="This is an input for step 2")

        @step
        async def second_step(
            self,
            ev: SecondEvent,
            memory: Annotated[Memory, Resource(get_memory)],  # pyright: ignore[reportUnknownArgumentType] because of the above
        ) -> StopEvent:
            print("Memory before step 2", memory)
            await memory.aput(ChatMessage(role="user", content=ev.msg))
            print("Memory after step 2", memory)
            return StopEvent(result="Messages put into memory")

    assert await WorkflowWithResource().run() == "Messages put into memory"
    assert len(made) == 1
    assert capsys.readouterr().out.splitlines() == [
        "Memory before step 1 <ChatMemory, 0 messages>",
        "Memory after step 1 <ChatMemory, 1 messages:",
        "  <user: This is the first step>>",
        "Memory before step 2 <ChatMemory, 1 messages:",
        "  <user: This is the first step>>",
        "Memory after step 2 <ChatMemory, 2 messages:",
        "  <user: This is the first step>",
        "  <user: This is an input for step 2>>",
    ]


async def test_a_resource_that_is_not_cached_is_made_for_every_step() -> None:
    """001.29, the last paragraph below it: `cache=False`."""
    made: list[Memory] = []

    def get_memory() -> Memory:
        made.append(Memory.from_defaults())
        return made[-1]

    class WorkflowWithResource(Workflow):
        @step
        async def first_step(
            self, ev: StartEvent, memory: Annotated[Memory, Resource(get_memory, cache=False)]
        ) -> SecondEvent:
            await memory.aput(ChatMessage(role="user", content="This is the first step"))
            return SecondEvent(msg=str(memory))

        @step
        async def second_step(
            self, ev: SecondEvent, memory: Annotated[Memory, Resource(get_memory, cache=False)]
        ) -> StopEvent:
            return StopEvent(result=(ev.msg, str(memory)))

    assert await WorkflowWithResource().run() == (
        "<ChatMemory, 1 messages:\n  <user: This is the first step>>",
        "<ChatMemory, 0 messages>",
    )
    assert len(made) == 2


async def test_a_run_from_a_checkpoint_repeats_no_finished_step_and_keeps_its_state(parrot: Parrot) -> None:
    """001.30, to the letter but for `JokeFlow(...)`; `topic` comes too late to matter."""

    class StatefulJokeFlow(Workflow):
        llm = OpenAI()

        @step
        async def generate_joke(self, ctx: Context, ev: StartEvent) -> JokeEvent:
            await ctx.set("topic", ev.topic)
            return JokeEvent(joke=str(await self.llm.acomplete(ev.topic)))

        @step
        async def critique_joke(self, ctx: Context, ev: JokeEvent) -> StopEvent:
            await ctx.set("critiques", await ctx.get("critiques", default=0) + 1)
            return StopEvent(result=f"{await ctx.get('topic')}: {ev.joke}")

    w = StatefulJokeFlow()
    w_cptr = WorkflowCheckpointer(workflow=w)

    # to checkpoint a run, use the `run` method from w_cptr
    handler = w_cptr.run(topic="Pirates")
    await handler

    # to view the stored checkpoints of this run
    assert len(w_cptr.checkpoints[handler.run_id]) == 2

    # to run from one of the checkpoints, use `run_from` method
    ckpt = w_cptr.checkpoints[handler.run_id][0]
    assert isinstance(ckpt.input_event, StartEvent)
    assert isinstance(ckpt.output_event, JokeEvent)
    handler = w_cptr.run_from(topic="Ships", checkpoint=ckpt)
    assert await handler == "Pirates: [Pirates]"
    assert await handler.ctx.get("critiques") == 1
    assert parrot.prompts == ["Pirates"]
