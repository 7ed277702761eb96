"""Document 004, getting started: its page as one program, from top to bottom. `test_004_getting_started.py` runs it."""
# ruff: noqa: T201 because the documents print

from agentflow import Event, StartEvent, StopEvent, Workflow, step
from agentflow_llm import OpenAI


class JokeEvent(Event):
    """004.3."""

    joke: str


class JokeFlow(Workflow):
    """004.2, of which 004.4 to 004.6 are parts."""

    llm = OpenAI(model="gpt-4o-mini")

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
llm = OpenAI(model="gpt-4o-mini")


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
