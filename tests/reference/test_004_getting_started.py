"""Document 004, getting started: its page as one program, read from top to bottom. README.md has the numbers."""
# ruff: noqa: T201 because the documents print

import asyncio

import pytest

from agentflow import Event, StartEvent, StopEvent, Workflow, step

from .stand_ins import OpenAI, critique_of


class JokeEvent(Event):
    """004.3."""

    joke: str


class JokeFlow(Workflow):
    """004.2, of which 004.4 to 004.6 are parts. Corrected: the model is a stand-in."""

    llm = OpenAI()

    @step
    async def generate_joke(self, ev: StartEvent) -> JokeEvent:
        topic = ev.topic

        prompt = f"Write your best joke about {topic}."
        response = await self.llm.acomplete(prompt)
        return JokeEvent(joke=str(response))

    @step
    async def critique_joke(self, ev: JokeEvent) -> StopEvent:
        joke = ev.joke

        prompt = f"Give a thorough analysis and critique of the following joke: {joke}"
        response = await self.llm.acomplete(prompt)
        return StopEvent(result=str(response))


async def main() -> None:
    """004.1, with 004.7 as its body."""
    w = JokeFlow(timeout=60, verbose=False)
    result = await w.run(topic="pirates")
    print(str(result))


joke_flow = Workflow(timeout=60, verbose=True)
"""004.8, at the level of the module, as the page has it. Corrected: both functions share one model."""
llm = OpenAI()


@step(workflow=joke_flow)
async def generate_joke(ev: StartEvent) -> JokeEvent:
    """004.8."""
    topic = ev.topic

    prompt = f"Write your best joke about {topic}."

    response = await llm.acomplete(prompt)
    return JokeEvent(joke=str(response))


@step(workflow=joke_flow)
async def critique_joke(ev: JokeEvent) -> StopEvent:
    """004.8."""
    joke = ev.joke

    prompt = f"Give a thorough analysis and critique of the following joke: {joke}"
    response = await llm.acomplete(prompt)
    return StopEvent(result=str(response))


def test_the_page_runs_as_a_script(capsys: pytest.CaptureFixture[str]) -> None:
    """004.1 to 004.7."""
    asyncio.run(main())
    assert capsys.readouterr().out == critique_of("pirates") + "\n"


async def test_functions_at_the_level_of_a_module_make_the_same_workflow(capsys: pytest.CaptureFixture[str]) -> None:
    """004.8, with the verbose output that it asks for."""
    assert await joke_flow.run(topic="pirates") == await JokeFlow().run(topic="pirates")
    assert capsys.readouterr().out.splitlines() == [
        "Running step generate_joke",
        "Step generate_joke produced event JokeEvent",
        "Running step critique_joke",
        "Step critique_joke produced event StopEvent",
    ]


async def test_an_attached_function_is_still_a_function() -> None:
    """004.8: unbound functions, which can be called by themselves."""
    assert await generate_joke(StartEvent(topic="ships")) == JokeEvent(joke="[Write your best joke about ships.]")
