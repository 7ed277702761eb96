"""langchain's agent, which is a graph of langgraph."""

from langchain.agents import create_agent
from langchain_openai import ChatOpenAI
from langgraph.graph.state import CompiledStateGraph

from peers import Conversing, Pause, Streaming, Text, Tick
from server import MODEL
from stub import QUESTION, SYSTEM, Endpoint

ASKED = {"messages": [{"role": "user", "content": QUESTION}]}
NO_LIMIT = {"recursion_limit": 1_000}
SIZES: dict[str, dict[str, int]] = {
    "agent_long": {"runs": 2},
    "agent_turns": {"runs": 1},
    "agent_streamed": {"runs": 2},
}


def adder(endpoint: Endpoint, add: object) -> CompiledStateGraph:
    llm = ChatOpenAI(
        model=MODEL,
        api_key="none",
        base_url=endpoint.url,
        http_async_client=endpoint.http_client(),
        max_retries=0,
        stream_usage=True,
    )
    return create_agent(llm, [add], system_prompt=SYSTEM)


def looping(endpoint: Endpoint, add: object) -> Conversing:
    asked = adder(endpoint, add)

    async def run() -> tuple[str, object]:
        messages = (await asked.ainvoke(ASKED, NO_LIMIT))["messages"]
        return messages[-1].content, messages

    return run


def asking(endpoint: Endpoint, add: object) -> Text:
    converse = looping(endpoint, add)

    async def run() -> str:
        return (await converse())[0]

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

    return looping(endpoint, add)


def agent_streamed(endpoint: Endpoint) -> Streaming:
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    asked = adder(endpoint, add)

    async def run() -> tuple[str, int]:
        pieces = [
            chunk.content
            async for chunk, _ in asked.astream(ASKED, stream_mode="messages")
            if chunk.type == "AIMessageChunk" and chunk.content
        ]
        return "".join(pieces), len(pieces)

    return run
