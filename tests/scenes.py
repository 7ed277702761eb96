"""One run of each prebuilt agent, of a plain workflow, and of what goes on later: what real back ends must show."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agentflow import Context, Event, StartEvent, StopEvent, Workflow, session, step
from agentflow.retry import ConstantDelayRetryPolicy
from agentflow_agents import ApprovalRequired, Budget, FunctionAgent, RAGAgent, ReActAgent, Team, tool
from agentflow_llm import ChatMemory, ChatMessage, Reply, ToolCallPart, Usage
from agentflow_llm.openai import OpenAI
from agentflow_llm.server import LoopbackServer
from clerk import DOCUMENTS, add, ask_clerk

MODEL = "gpt-4o-mini"
USAGE = Usage(input_tokens=1000, output_tokens=100)
PRICE = 1000 * 0.15e-6 + 100 * 0.6e-6
"""US dollars of a call with that usage, by Phoenix's list and by ours."""
ADA = "ada"
HELLO, NAME = "I am Ada.", "Who am I?"


def asks_for(name: str, arguments: str) -> ToolCallPart:
    """A call of a tool."""
    return ToolCallPart(id=f"call-{name}", name=name, arguments=arguments)


@asynccontextmanager
async def model(*said: str | ToolCallPart) -> AsyncGenerator[OpenAI]:
    """A model on this machine, whose price is known, and which says this."""
    replies = [
        Reply(
            message=ChatMessage(role="assistant", content=one if isinstance(one, str) else (one,)),
            finish_reason="stop" if isinstance(one, str) else "tool_calls",
            usage=USAGE,
        )
        for one in said
    ]
    with LoopbackServer(replies) as server:
        async with OpenAI(MODEL, base_url=server.base_url, api_key="none", provider="openai") as client:
            yield client


async def think(_: Path) -> None:
    """A ReActAgent thinks, adds, and answers."""
    async with model(
        'Thought: I have to add.\nAction: add\nAction Input: {"a": 2, "b": 3}', "Thought: I know it.\nAnswer: It is 5."
    ) as llm:
        assert str(await ReActAgent([add], llm, name="thinker").run("What is 2 + 3?")) == "It is 5."


async def read(folder: Path) -> None:
    """A RAGAgent answers from documents, after it was told that a citation does not hold."""
    for name, text in DOCUMENTS.items():
        (folder / name).write_text(text, encoding="utf-8")
    async with model("It opens at ten [1].", "The library opens at nine [1].") as llm:
        result = await RAGAgent(folder, llm, name="reader").run("When does the library open?")
    assert [citation.holds for citation in result.citations] == [True]


@tool(requires_approval=True)
async def pay(amount: int) -> str:
    """Pay an amount."""
    return f"paid {amount}"


async def pay_invoice(_: Path) -> None:
    """Two agents of a team, of which the second has a third as a tool, which needs a person's approval."""
    async with model(
        asks_for("hand_over_to_billing", '{"message": "Pay 3."}'),
        asks_for("cashier", '{"query": "Pay 3."}'),
        asks_for("pay", '{"amount": 3}'),
        "It is paid.",
        "Done.",
    ) as llm:
        cashier = FunctionAgent([pay], llm, name="cashier", description="Pays.")
        billing = FunctionAgent([cashier], llm, name="billing", description="Knows of invoices.")
        triage = FunctionAgent(llm=llm, name="triage")
        handler = Team([triage, billing], name="desk", handoffs={"triage": ["billing"]}).run("Pay my invoice.")
        async for event in handler.stream_events():
            if isinstance(event, ApprovalRequired):
                handler.ctx.send_event(event.approve())
        assert str(await handler) == "Done."


class Line(Event):
    """A line of an order."""

    price: int


class Priced(Event):
    """What it costs."""

    price: int


class Orders(Workflow):
    """Fans out, tries one step twice, and fans in."""

    failed = False

    @step
    async def split(self, ev: StartEvent) -> list[Line]:
        return [Line(price=price) for price in ev.prices]

    @step(num_workers=1, retry_policy=ConstantDelayRetryPolicy(maximum_attempts=2, delay=0))
    async def tax(self, ev: Line) -> Priced:
        if not self.failed:
            self.failed = True
            raise ConnectionError("the register is busy")
        return Priced(price=ev.price + 1)

    @step
    async def total(self, ctx: Context, ev: Priced) -> StopEvent | None:
        lines = ctx.collect_events(ev, [Priced] * 3)
        return None if lines is None else StopEvent(result=sum(line.price for line in lines))


async def order(_: Path) -> None:
    """A plain workflow."""
    assert await Orders(name="orders").run(prices=[1, 2, 3]) == 9


async def chat(folder: Path) -> None:
    """Two turns of a conversation, which is named after the folder."""
    async with model("Hello, Ada!", "You are Ada.") as llm:
        agent = FunctionAgent(llm=llm, memory=ChatMemory(), name="host")
        with session(folder.name, user=ADA):
            await agent.run(HELLO)
            await agent.run(NAME)


async def pay_later(folder: Path) -> None:
    """A run is put away while it waits for an approval, and goes on as another process would let it."""
    async with model(asks_for("pay", '{"amount": 7}'), "It is paid.") as llm:
        with session(folder.name, user=ADA):
            handler = FunctionAgent([pay], llm, name="till").run("Pay 7.")
        asked = [event async for event in until_asked(handler)]
        stored = handler.put_away()
        await handler.cancel_run()
        again = FunctionAgent([pay], llm, name="till")
        handler = again.run(ctx=Context.from_dict(again, stored))
        handler.ctx.send_event(asked[-1].approve())
        assert str(await handler) == "It is paid."


async def add_for_ever(_: Path) -> None:
    """An agent reaches its limit."""
    async with model(asks_for("add", '{"a": 1, "b": 1}')) as llm:
        result = await FunctionAgent([add], llm, name="tireless", budget=Budget(turns=1)).run("Count.")
    assert result.stopped_by == "turns"


async def until_asked(handler: Any) -> AsyncGenerator[ApprovalRequired]:
    """The question of a run, as soon as it waits for the answer."""
    async for event in handler.stream_events():
        if isinstance(event, ApprovalRequired):
            yield event
            await asyncio.sleep(0)
            return


Scene = Callable[[Path], Coroutine[Any, Any, None]]

SCENES: Mapping[str, Scene] = {
    "clerk": ask_clerk,
    "thinker": think,
    "reader": read,
    "desk": pay_invoice,
    "orders": order,
    "host": chat,
    "till": pay_later,
}
"""By the name of the agent or workflow whose run is the root of the trace."""
