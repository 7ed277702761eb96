"""pydantic-ai's Agent."""

from pydantic_ai import Agent, InstrumentationSettings, PartDeltaEvent, PartStartEvent, UsageLimits
from pydantic_ai.messages import TextPart, TextPartDelta
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from peers import Conversing, Pause, Streaming, Text, Tick
from server import MODEL
from stub import QUESTION, SYSTEM, Endpoint

SPANS = None  # of its own making
NO_LIMIT = UsageLimits(request_limit=None)
SIZES: dict[str, dict[str, int]] = {
    "agent_long": {"runs": 2},
    "agent_turns": {"runs": 1},
    "agent_streamed": {"runs": 2},
}


def adder(endpoint: Endpoint, add: object) -> Agent:
    model = OpenAIChatModel(MODEL, provider=OpenAIProvider(openai_client=endpoint.client()))
    return Agent(model, instructions=SYSTEM, tools=[add])


def asking(asked: Agent) -> Text:
    async def run() -> str:
        return (await asked.run(QUESTION, usage_limits=NO_LIMIT)).output

    return run


def agent(endpoint: Endpoint) -> Text:
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    return asking(adder(endpoint, add))


def agent_traced(endpoint: Endpoint) -> Text:
    Agent.instrument_all(InstrumentationSettings(include_content=False))
    return agent(endpoint)


def agent_meeting(endpoint: Endpoint, meet: Pause) -> Text:
    async def add(a: int, b: int) -> int:
        """Add two numbers."""
        await meet()
        return a + b

    return asking(adder(endpoint, add))


def agent_ticking(endpoint: Endpoint, tick: Tick) -> Conversing:
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        tick()
        return a + b

    asked = adder(endpoint, add)

    async def run() -> tuple[str, object]:
        result = await asked.run(QUESTION, usage_limits=NO_LIMIT)
        return result.output, result.all_messages()

    return run


def agent_told(endpoint: Endpoint, tick: Tick) -> Conversing:
    Agent.instrument_all()
    return agent_ticking(endpoint, tick)


def agent_streamed(endpoint: Endpoint) -> Streaming:
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    asked = adder(endpoint, add)

    async def run() -> tuple[str, int]:
        pieces = []
        async with asked.run_stream_events(QUESTION) as events:
            async for event in events:
                match event:
                    case PartStartEvent(part=TextPart(content=piece)) if piece:
                        pieces.append(piece)
                    case PartDeltaEvent(delta=TextPartDelta(content_delta=piece)) if piece:
                        pieces.append(piece)
        return "".join(pieces), len(pieces)

    return run
