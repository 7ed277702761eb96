"""openai-agents' Agent and Runner. Its own tracing, which sends what it writes to its maker, is off."""

import logging

from openai.types.responses import ResponseTextDeltaEvent
from openinference.instrumentation import TraceConfig
from openinference.instrumentation.openai_agents import OpenAIAgentsInstrumentor
from opentelemetry.trace import get_tracer_provider

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    RawResponsesStreamEvent,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from peers import Conversing, Pause, Streaming, Text, Tick
from server import MODEL
from stub import QUESTION, SYSTEM, Endpoint

SPANS = None  # of its own making
SIZES: dict[str, dict[str, int]] = {
    "agent_long": {"runs": 2},
    "agent_turns": {"runs": 1},
    "agent_streamed": {"runs": 2},
}


def adder(endpoint: Endpoint, add: object) -> Agent:
    set_tracing_disabled(disabled=True)
    model = OpenAIChatCompletionsModel(model=MODEL, openai_client=endpoint.client())
    usage = ModelSettings(include_usage=True)
    return Agent(name="adder", instructions=SYSTEM, model=model, model_settings=usage, tools=[function_tool(add)])


def asking(endpoint: Endpoint, add: object) -> Text:
    asked = adder(endpoint, add)

    async def run() -> str:
        return (await Runner.run(asked, QUESTION, max_turns=endpoint.turns + 1)).final_output

    return run


def agent(endpoint: Endpoint) -> Text:
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    return asking(endpoint, add)


def agent_meeting(endpoint: Endpoint, meet: Pause) -> Text:
    async def add(a: int, b: int) -> int:
        """Add two numbers."""
        await meet()
        return a + b

    return asking(endpoint, add)


def agent_ticking(endpoint: Endpoint, tick: Tick) -> Conversing:
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        tick()
        return a + b

    asked = adder(endpoint, add)

    async def run() -> tuple[str, object]:
        result = await Runner.run(asked, QUESTION, max_turns=endpoint.turns + 1)
        return result.final_output, (result.new_items, result.raw_responses)

    return run


def agent_traced(endpoint: Endpoint) -> Text:
    run = agent(endpoint)
    instrument(TraceConfig(hide_inputs=True, hide_outputs=True))
    return run


def agent_told(endpoint: Endpoint, tick: Tick) -> Conversing:
    run = agent_ticking(endpoint, tick)
    instrument(TraceConfig())
    return run


def instrument(config: TraceConfig) -> None:
    # it has an attribute for each message, and the SDK says so for each that it drops beyond 128
    logging.getLogger("opentelemetry.attributes").setLevel(logging.ERROR)
    set_tracing_disabled(disabled=False)
    OpenAIAgentsInstrumentor().instrument(tracer_provider=get_tracer_provider(), config=config)


def agent_streamed(endpoint: Endpoint) -> Streaming:
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    asked = adder(endpoint, add)

    async def run() -> tuple[str, int]:
        result = Runner.run_streamed(asked, QUESTION, max_turns=endpoint.turns + 1)
        pieces = [
            event.data.delta
            async for event in result.stream_events()
            if isinstance(event, RawResponsesStreamEvent) and isinstance(event.data, ResponseTextDeltaEvent)
        ]
        return "".join(pieces), len(pieces)

    return run
