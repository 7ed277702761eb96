"""Threads of plain tools: enough of them, used again, and nobody waits for those that were left behind."""

import asyncio
import gc
import logging
import subprocess
import sys
import threading
import weakref
from typing import Any

import pytest

from agentflow.clock import use_clock
from agentflow.testing import FakeClock, record
from agentflow_agents import Tool, Toolbox
from agentflow_agents.threads import Threads

MOST = 256


class Gate:
    """A plain tool whose calls wait until the gate is opened."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.begun: list[int] = []
        self.threads: set[threading.Thread] = set()
        self._arrivals = threading.Semaphore(0)

    def __call__(self, n: int) -> int:
        self.begun.append(n)
        self.threads.add(threading.current_thread())
        self._arrivals.release()
        self.opened.wait(30)
        return n

    def calls(self, numbers: range, **options: Any) -> list[asyncio.Task[Any]]:
        found = Tool(self, name="gate", **options)
        return [asyncio.create_task(found.invoke(f'{{"n": {n}}}')) for n in numbers]

    async def holds(self, number: int) -> None:
        def wait() -> bool:
            return all(self._arrivals.acquire(timeout=30) for _ in range(number))

        assert await asyncio.to_thread(wait)


def where() -> threading.Thread:
    return threading.current_thread()


async def test_thread_is_used_again() -> None:
    found = Tool(where)
    threads = {await found.invoke("") for _ in range(20)}
    assert len(threads) == 1
    assert all(thread.daemon for thread in threads)


async def test_stuck_tools_starve_no_others() -> None:
    gate = Gate()
    with use_clock(FakeClock()) as clock:
        stuck = gate.calls(range(MOST), timeout=1)
        await gate.holds(MOST)
        await clock.advance(1)
        outcomes = await asyncio.gather(*stuck, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {TimeoutError}
        assert await Tool(where).invoke("") not in gate.threads
    gate.opened.set()


async def test_calls_beyond_the_most_wait_and_that_takes_none_of_their_time() -> None:
    gate, late = Gate(), Gate()
    late.opened.set()
    with use_clock(FakeClock()) as clock, record() as seen:
        going = gate.calls(range(MOST))
        await gate.holds(MOST)
        waits = asyncio.create_task(Toolbox([Tool(late, name="late", timeout=5)]).execute("c1", "late", '{"n": 1}'))
        await clock.advance(60)
        assert (waits.done(), late.begun) == (False, [])
        gate.opened.set()
        assert (await waits).content == "1"
        await asyncio.gather(*going)
    [op] = seen.operations
    assert [(note.name, note.facts) for note in seen.notes[op.ref.id]] == [("queued", {"wait": 60})]


async def test_call_that_waits_when_its_time_is_over_is_never_made() -> None:
    gate, late = Gate(), Gate()
    late.opened.set()
    with use_clock(FakeClock()) as clock:
        going = gate.calls(range(MOST))
        await gate.holds(MOST)
        over = asyncio.create_task(Tool(late, name="late").invoke('{"n": 1}', within=5))
        cancelled = asyncio.create_task(Tool(late, name="late").invoke('{"n": 2}'))
        await clock.advance(5)
        with pytest.raises(TimeoutError, match="it could not begin within 5 s"):
            await over
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        gate.opened.set()
        await asyncio.gather(*going)
    assert await Tool(late, name="late").invoke('{"n": 3}') == 3
    assert late.begun == [3]


async def test_thread_without_work_ends() -> None:
    threads = Threads(idle=0.01)
    first = await threads.start(threading.current_thread).result
    await asyncio.to_thread(first.join, 10)
    assert not first.is_alive()
    assert await threads.start(threading.current_thread).result is not first


def test_thread_that_outlives_its_event_loop_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    gate, threads = Gate(), Threads(idle=0.01)

    async def leave() -> None:
        threads.start(lambda: gate(1))
        await gate.holds(1)

    asyncio.run(leave())
    gate.opened.set()
    [thread] = gate.threads
    thread.join(10)
    assert not thread.is_alive()
    assert [found for found in caplog.records if found.levelno >= logging.WARNING] == []


async def test_error_of_a_thread_is_let_go_with_its_call() -> None:
    class Broken(Exception):  # noqa: N818 because it is none that anyone sees
        pass

    raised: list[weakref.ref[Broken]] = []

    def fail() -> None:
        error = Broken()
        raised.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    gc.disable()
    try:
        await Toolbox([fail]).execute("c1", "fail", "{}")
        await asyncio.sleep(0)
        assert raised[0]() is None
    finally:
        gc.enable()


async def test_impatient_cancelling_leaves_the_turn_with_the_thread() -> None:
    gate = Gate()
    first, second = gate.calls(range(2), concurrency=1)
    await gate.holds(1)
    for _ in range(2):  # once, and while the thread is waited for
        first.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert first.cancelled()
    assert gate.begun == [0]
    gate.opened.set()
    assert await second == 1


PROGRAM = """
import asyncio, os, sys, threading
from agentflow_agents import Tool

def stuck() -> str:
    "Never ends."
    threading.Event().wait()

def quick() -> str:
    "Ends."
    return "quick"

async def main() -> None:
    try:
        await Tool(stuck, timeout=0.01).invoke("")
    except TimeoutError:
        print(await Tool(quick).invoke(""), flush=True)

asyncio.run(main())
if sys.argv[1] == "fork":
    if os.fork() == 0:
        asyncio.run(main())
    else:
        os.wait()
"""


@pytest.mark.parametrize(
    "then",
    [
        "end",
        pytest.param("fork", marks=pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")),
    ],
)
def test_program_ends_beside_a_stuck_tool_and_its_child_has_threads_of_its_own(then: str) -> None:
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, then]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert (ended.stdout.split(), ended.stderr) == (["quick"] * (2 if then == "fork" else 1), "")
