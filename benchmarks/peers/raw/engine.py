"""The reference: asyncio by hand. A queue, a dict from event type to handler, pydantic events, no framework.

Steps are awaited in the run's one task: the least that an engine with such events can do.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable

from pydantic import BaseModel, create_model

from peers import Checkpointing, Pause, Pausing, Run, SizedRun

IMPORT = "import asyncio, pydantic; from pydantic import BaseModel"


class Event(BaseModel):
    n: int


class Ping(Event):
    pass


class Pong(Event):
    pass


class Item(Event):
    pass


class Result(Event):
    pass


class Answer(Event):
    pass


class Token(Event):
    pass


class Stop(Event):
    pass


Step = Callable[[Event], Awaitable[Event]]


async def drive(steps: dict[type[Event], Step], event: Event) -> int:
    queue: asyncio.Queue[Event] = asyncio.Queue()
    queue.put_nowait(event)
    while True:
        event = await queue.get()
        out = await steps[type(event)](event)
        if type(out) is Stop:
            return out.n
        queue.put_nowait(out)


def chain(steps: int, pause: Pause | None = None) -> Run:
    kinds: list[type[Event]] = [*(create_model(f"E{i}", __base__=Event) for i in range(steps)), Stop]

    def make(out: type[Event]) -> Step:
        async def step(event: Event) -> Event:
            if pause is not None:
                await pause()
            return out(n=event.n + 1)

        return step

    table = {kinds[i]: make(kinds[i + 1]) for i in range(steps)}

    async def run() -> int:
        return await asyncio.create_task(drive(table, kinds[0](n=0)))

    return run


chain_waiting = chain
chain_timeout = chain  # the goal is a multiple of the chain that sets no timers


def loop() -> SizedRun:
    async def run(n: int) -> int:
        async def ping(event: Event) -> Event:
            return Stop(n=event.n) if event.n >= n else Pong(n=event.n)

        async def pong(event: Event) -> Event:
            return Ping(n=event.n + 1)

        return await asyncio.create_task(drive({Ping: ping, Pong: pong}, Ping(n=0)))

    return run


def fanout(workers: int, pause: Pause) -> SizedRun:
    async def run(n: int) -> int:
        todo: asyncio.Queue[Item] = asyncio.Queue()
        done: asyncio.Queue[Result] = asyncio.Queue()
        collected: list[Result] = []

        async def emit() -> None:
            for i in range(n):
                todo.put_nowait(Item(n=i))

        async def work() -> None:
            while True:
                item = await todo.get()
                await pause()
                done.put_nowait(Result(n=item.n))

        async def collect() -> Stop:
            while len(collected) < n:
                collected.append(await done.get())
            return Stop(n=sum(result.n for result in collected))

        tasks = [asyncio.create_task(work()) for _ in range(workers)]
        await emit()
        stop = await collect()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return stop.n

    return run


fanout_list = fanout


class Waiting:
    __slots__ = ("asked", "inbox", "task")

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[Answer] = asyncio.Queue()
        self.asked = asyncio.Event()
        self.task = asyncio.create_task(self.drive())

    async def drive(self) -> int:
        self.asked.set()
        answer = await self.inbox.get()
        return Stop(n=answer.n).n


def waiting() -> Pausing:
    async def pause() -> Waiting:
        run = Waiting()
        await run.asked.wait()
        return run

    async def answer(run: Waiting, n: int) -> int:
        run.inbox.put_nowait(Answer(n=n))
        return await run.task

    return pause, answer


def stream() -> SizedRun:
    async def run(n: int) -> int:
        queue: asyncio.Queue[Token | None] = asyncio.Queue()

        async def produce() -> None:
            for i in range(n):
                queue.put_nowait(Token(n=i))
            queue.put_nowait(None)

        task = asyncio.create_task(produce())
        seen = 0
        while await queue.get() is not None:
            seen += 1
        await task
        return seen

    return run


async def checkpoint(values: dict[str, object]) -> Checkpointing:
    async def read(state: dict[str, object]) -> dict[str, object]:
        return state

    return lambda: json.dumps(values), json.loads, read
