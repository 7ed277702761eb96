"""What users write, typed: read by mypy and pyright, both strict (`make check`), and run by test_workflow.

A line that must be refused carries an ignore, which `make check` refuses once it is not needed.
"""

from __future__ import annotations

from typing import Annotated, Any, assert_type

from pydantic import BaseModel

from agentflow import (
    Context,
    Event,
    Handler,
    HumanResponseEvent,
    InputRequiredEvent,
    Resource,
    Retry,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)


class Topic(StartEvent):
    topic: str
    words: int = 100


class Draft(Event):
    text: str


class Review(Event):
    good: bool


class Verdict(StopEvent):
    text: str
    good: bool


class Notes(BaseModel):
    drafts: list[str] = []


class Model:
    async def complete(self, prompt: str) -> str:
        return prompt.upper()


def connect() -> Model:
    return Model()


class Writes(Workflow[Topic, Verdict]):
    """Typed from end to end."""

    @step
    async def draft(self, ctx: Context[Notes], ev: Topic, model: Annotated[Model, Resource(connect)]) -> list[Draft]:
        assert_type(ev.topic, str)
        text = await model.complete(ev.topic)
        async with ctx.store.edit_state() as notes:
            assert_type(notes, Notes)
            notes.drafts.append(text)
        return [Draft(text=text), Draft(text=text)]

    @step(num_workers=2, retry_policy=Retry(attempts=2), timeout=30)
    async def review(self, ctx: Context[Notes], ev: Draft) -> Review | None:
        drafts = ctx.collect_events(ev, [Draft, Draft])
        assert_type(drafts, list[Draft] | None)
        if drafts is None:
            return None
        ctx.send_event(Draft(text=drafts[0].text), step="publish")
        return Review(good=all(draft.text for draft in drafts))

    @step
    def publish(self, ctx: Context[Notes], ev: Draft | Review) -> Verdict | None:
        both = ctx.collect_events(ev, [Draft, Review])
        if both is None:
            return None
        draft, review = both
        return Verdict(text=draft.text, good=review.good)


class Gathers(Workflow):
    """Free fields and counts."""

    @step
    async def start(self, ctx: Context, ev: StartEvent) -> Draft:
        question: str = ev.question
        await ctx.set("question", question)
        return Draft(text=question)

    @step
    async def join(self, ctx: Context, ev: Draft, inner: Writes | None = None) -> StopEvent:
        drafts = ctx.collect_events(ev, {Draft: 1})
        assert_type(drafts, list[Draft] | None)
        return StopEvent(result=[draft.text for draft in drafts or ()])


class Asks(Workflow[StartEvent, str]):
    """A human in the loop, with the events as they come."""

    @step
    async def ask(self, ev: StartEvent) -> InputRequiredEvent:
        return InputRequiredEvent(prefix="Name: ")

    @step
    async def answer(self, ev: HumanResponseEvent) -> StopEvent:
        return StopEvent(result=ev.response)


flow = Workflow(timeout=60)


@step(workflow=flow)
async def only(ev: StartEvent) -> StopEvent:
    return StopEvent(result=ev.get("n", 0))


async def use() -> None:
    """Calls of every kind."""
    handler = Writes(timeout=10, verbose=False).run(topic="pirates", words=50)
    _ = assert_type(handler, Handler[Verdict])
    verdict = await handler
    assert_type(verdict, Verdict)
    assert verdict == Verdict(text="PIRATES", good=True)
    assert_type(handler.result(), Verdict)
    assert_type(handler.run_id, str)

    again = await Writes().run(start_event=Topic(topic="pirates"))
    assert_type(again, Verdict)
    if not again.good:
        await Writes().run(start_event=StartEvent())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] because it is of another type

    assert_type(await Gathers().run(question="why?"), Any)
    assert_type(await flow.run(n=1), Any)

    asks = Asks()
    answered = asks.run()
    async for ev in answered.stream_events():
        assert_type(ev, Event)
        if isinstance(ev, InputRequiredEvent):
            prefix: str = ev.prefix
            answered.ctx.send_event(HumanResponseEvent(response=prefix + "me"))
    name = await answered
    assert_type(name, str)
    assert name == "Name: me"


def use_sync() -> None:
    """In plain code."""
    assert_type(Writes().run_sync(topic="pirates"), Verdict)
    if not Draft(text="x").text:
        Draft(txt="x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue] because an event takes what it declares
