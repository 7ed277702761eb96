"""llama-index-core's FunctionAgent."""

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.llms.openai import OpenAI

from peers import Text
from peers.llamaindex.traces import instrument
from stub import MODEL, QUESTION, SYSTEM, URL, Stub

SPANS = None  # of its own making
SIZES: dict[str, dict[str, int]] = {"agent": {"runs": 30}, "agent_long": {"runs": 2}, "agent_traced": {"runs": 20}}


def agent(stub: Stub) -> Text:
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    llm = OpenAI(model=MODEL, api_key="none", api_base=URL, async_http_client=stub.http_client(), max_retries=0)
    adder = FunctionAgent(name="adder", tools=[add], llm=llm, system_prompt=SYSTEM, streaming=False, timeout=None)

    async def run() -> str:
        return str(await adder.run(QUESTION, max_iterations=stub.turns + 2))

    return run


def agent_traced(stub: Stub) -> Text:
    instrument()
    return agent(stub)
