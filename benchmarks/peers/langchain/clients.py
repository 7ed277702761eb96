"""langchain-openai's ChatOpenAI."""

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage
from langchain_openai import ChatOpenAI

from peers import Said, Streaming, Talking, Text
from server import MODEL


def client(url: str) -> ChatOpenAI:
    return ChatOpenAI(model=MODEL, api_key="none", base_url=url, max_retries=0, stream_usage=True)


def call(url: str) -> Talking:
    llm = client(url)

    def about(said: Said) -> Text:
        kinds = {"user": HumanMessage, "assistant": AIMessage}
        messages = [kinds[role](text) for role, text in said]

        async def run() -> str:
            return (await llm.ainvoke(messages)).content

        return run

    return about


def stream(url: str) -> Streaming:
    llm = client(url)

    async def run() -> tuple[str, int]:
        pieces = [chunk.content async for chunk in llm.astream([HumanMessage("Talk.")]) if chunk.content]
        return "".join(pieces), len(pieces)

    return run


def step_stream(url: str) -> Streaming:
    agent = create_agent(client(url), [])

    async def run() -> tuple[str, int]:
        talk = {"messages": [HumanMessage("Talk.")]}
        pieces = [chunk.content async for chunk, _ in agent.astream(talk, stream_mode="messages") if chunk.content]
        return "".join(pieces), len(pieces)

    return run
