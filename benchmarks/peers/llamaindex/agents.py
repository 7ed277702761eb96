"""llama-index-core's FunctionAgent."""

from llama_index.core.agent.workflow import AgentStream, FunctionAgent
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.llms.openai import OpenAI

from peers import Conversing, Pause, Streaming, Text, Tick
from peers.llamaindex.traces import instrument
from server import MODEL
from stub import QUESTION, SYSTEM, Endpoint

SPANS = None  # of its own making
SIZES: dict[str, dict[str, int]] = {
    "agent": {"runs": 30},
    "agent_long": {"runs": 2},
    "agent_traced": {"runs": 20},
    "agent_served": {"runs": 30},
    "agent_turns": {"runs": 1},
    "agent_streamed": {"runs": 1},
}


def adder(endpoint: Endpoint, add: object, *, streaming: bool = False) -> FunctionAgent:
    llm = OpenAI(
        model=MODEL,
        api_key="none",
        api_base=endpoint.url,
        async_http_client=endpoint.http_client(),
        max_retries=0,
        additional_kwargs={"stream_options": {"include_usage": True}} if streaming else {},
    )
    return FunctionAgent(name="adder", tools=[add], llm=llm, system_prompt=SYSTEM, streaming=streaming, timeout=None)


def asking(endpoint: Endpoint, asked: FunctionAgent) -> Text:
    async def run() -> str:
        return str(await asked.run(QUESTION, max_iterations=endpoint.turns + 2))

    return run


def agent(endpoint: Endpoint) -> Text:
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    return asking(endpoint, adder(endpoint, add))


def agent_traced(endpoint: Endpoint) -> Text:
    instrument()
    return agent(endpoint)


def agent_meeting(endpoint: Endpoint, meet: Pause) -> Text:
    async def add(a: int, b: int) -> int:
        """Add two numbers."""
        await meet()
        return a + b

    return asking(endpoint, adder(endpoint, add))


def agent_ticking(endpoint: Endpoint, tick: Tick) -> Conversing:
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        tick()
        return a + b

    asked = adder(endpoint, add)

    async def run() -> tuple[str, object]:
        memory = ChatMemoryBuffer.from_defaults(token_limit=1_000_000)
        result = await asked.run(QUESTION, memory=memory, max_iterations=endpoint.turns + 2)
        return str(result), memory

    return run


def agent_told(endpoint: Endpoint, tick: Tick) -> Conversing:
    instrument()
    return agent_ticking(endpoint, tick)


def agent_streamed(endpoint: Endpoint) -> Streaming:
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    asked = adder(endpoint, add, streaming=True)

    async def run() -> tuple[str, int]:
        handler = asked.run(QUESTION, max_iterations=endpoint.turns + 2)
        pieces = [
            event.delta async for event in handler.stream_events() if isinstance(event, AgentStream) and event.delta
        ]
        await handler
        return "".join(pieces), len(pieces)

    return run
