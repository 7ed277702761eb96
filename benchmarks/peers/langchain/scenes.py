"""langgraph, and langchain's agent for the tools, with OpenInference's instrumentation."""

import asyncio
import operator
from typing import Annotated, TypedDict

from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, RetryPolicy, Send, interrupt
from openinference.instrumentation.langchain import LangChainInstrumentor
from opentelemetry.sdk.trace import TracerProvider

from scenery import ABSENT, QUESTION, WAIT, Failing, Scripted, cancelled, north, south, work

PACKAGES = ["langgraph", "langchain", "openinference-instrumentation-langchain"]


def instrument(provider: TracerProvider) -> None:
    LangChainInstrumentor().instrument(tracer_provider=provider)


class State(TypedDict, total=False):
    done: Annotated[list[int], operator.add]
    number: int


async def step_retry() -> None:
    ask = Failing()

    async def flaky(state: State) -> State:
        ask()
        return {}

    graph = StateGraph(State)
    policy = RetryPolicy(initial_interval=WAIT, backoff_factor=1.0, max_attempts=3, jitter=False)
    graph.add_node("flaky", flaky, retry_policy=policy)
    graph.add_edge(START, "flaky")
    await graph.compile().ainvoke({})


def model(refusals: int = 0, tools: tuple[str, ...] = ()) -> ChatOpenAI:
    endpoint = Scripted(refusals, tools=tools)
    client = endpoint.http_client()
    return ChatOpenAI(model="gpt-4o", api_key="none", base_url=endpoint.url, http_async_client=client, max_retries=2)


ASKED = {"messages": [{"role": "user", "content": QUESTION}]}


async def model_retry() -> None:
    await create_agent(model(2), []).ainvoke(ASKED)


async def tools() -> None:
    await create_agent(model(tools=("north", "south")), [tool(north), tool(south)]).ainvoke(ASKED)


async def fan_in() -> None:
    async def piece(state: State) -> State:
        return {"done": [await work(state["number"])]}

    async def join(state: State) -> State:
        assert len(state["done"]) == 3
        return {}

    graph = StateGraph(State)
    graph.add_node("piece", piece)
    graph.add_node("join", join)
    graph.add_conditional_edges(START, lambda _: [Send("piece", {"number": n}) for n in range(3)], ["piece"])
    graph.add_edge("piece", "join")
    graph.add_edge("join", END)
    await graph.compile().ainvoke({"done": []}, {"max_concurrency": 2})


async def cancel() -> None:
    async def sleep(state: State) -> State:
        await asyncio.sleep(60)
        return {}

    graph = StateGraph(State)
    graph.add_node("sleep", sleep)
    graph.add_edge(START, "sleep")
    await cancelled(graph.compile().ainvoke({}))


async def pause() -> None:
    async def ask(state: State) -> State:
        interrupt("Go on?")
        return {}

    graph = StateGraph(State)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    compiled = graph.compile(checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "thread-1"}}
    await compiled.ainvoke({}, config)
    await asyncio.sleep(ABSENT)
    await compiled.ainvoke(Command(resume="yes"), config)
