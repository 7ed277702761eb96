"""The prebuilt agent."""

from agentflow_agents import FunctionAgent
from agentflow_llm import OpenAI
from peers import Text
from stub import MODEL, QUESTION, SYSTEM, Stub

SPANS = {"invoke_agent": 1, "step": 6, "event": 6, "chat": 2, "execute_tool": 1}


def agent(stub: Stub) -> Text:
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    adder = FunctionAgent(
        tools=[add], llm=OpenAI(MODEL, client=stub.client()), system_prompt=SYSTEM, max_turns=stub.turns + 1
    )

    async def run() -> str:
        return str(await adder.run(QUESTION))

    return run


agent_traced = agent
