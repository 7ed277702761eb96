"""The engine by itself: no telemetry, no models."""

from __future__ import annotations

import asyncio
import functools
import sys
import tracemalloc
from typing import TYPE_CHECKING

from measure import Timer, peak_resident, resident

from .case import Case, check, growth

if TYPE_CHECKING:
    from collections.abc import Callable

    from .case import Metrics


class EngineCase(Case):
    """What all of them share."""

    area = "engine"


class Chain(EngineCase):
    """A linear workflow, run again and again."""

    name = "chain"
    workload = "chain"
    steps = 10
    runs = 2_000

    async def set_up(self) -> None:
        self.run = self.make(self.steps)
        for _ in range(20):
            await self.run()

    async def measure(self) -> Metrics:
        with Timer() as timer:
            for _ in range(self.runs):
                check(await self.run(), self.steps)
        return {"cpu_us": timer.cpu / (self.runs * self.steps) * 1e6}


class ChainTimeout(Chain):
    """The same where every step has a time-out of its own."""

    name = "chain_timeout"
    workload = "chain_timeout"


class ChainGrowth(EngineCase):
    """A step's cost in a long chain over that in a short one: does it pay for the steps beside it?"""

    name = "chain_growth"
    workload = "chain"
    small = 5
    large = 100
    steps = 20_000

    async def set_up(self) -> None:
        self.runs = {size: self.make(size) for size in (self.small, self.large)}
        for run in self.runs.values():
            await run()

    async def measure(self) -> Metrics:
        cpu = {}
        for size, run in self.runs.items():
            with Timer() as timer:
                for _ in range(self.steps // size):
                    check(await run(), size)
            cpu[size] = timer.cpu
        return {"growth": cpu[self.large] / cpu[self.small]}


class Loop(EngineCase):
    """One run that goes round two steps."""

    name = "loop"
    workload = "loop"
    rounds = 30_000

    async def set_up(self) -> None:
        self.run = self.make()
        await self._once(500)

    async def _once(self, rounds: int) -> None:
        check(await self.run(rounds), rounds)

    async def measure(self) -> Metrics:
        with Timer() as timer:
            await self._once(self.rounds)
        return {"cpu_us": timer.cpu / (2 * self.rounds) * 1e6}


class LoopGrowth(Loop):
    """A step's cost in a long loop over that in a short one."""

    name = "loop_growth"
    small = 1_000
    large = 30_000

    async def measure(self) -> Metrics:
        return await growth(self._once, self.small, self.large)


class LoopMemory(Loop):
    """The bytes by which a run grows with each step while it goes on."""

    name = "loop_memory"
    repetitions = 3
    small = 1_000
    large = 11_000

    async def measure(self) -> Metrics:
        tracemalloc.start()
        peaks: list[int] = []
        for rounds in (self.small, self.small, self.large):  # the first warms up what tracemalloc counts
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            await self._once(rounds)
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
        tracemalloc.stop()
        return {"bytes": (peaks[2] - peaks[1]) / (2 * (self.large - self.small))}


class Fanout(EngineCase):
    """A step that sends many events, workers that each yield to the event loop once, a step that collects."""

    name = "fanout"
    workload = "fanout"
    events = 1_000
    workers = 64
    runs = 10

    async def set_up(self) -> None:
        self.run = self.make(self.workers, functools.partial(asyncio.sleep, 0))
        await self._once(200)

    async def _once(self, events: int) -> None:
        check(await self.run(events), events * (events - 1) // 2)

    async def measure(self) -> Metrics:
        with Timer() as timer:
            for _ in range(self.runs):
                await self._once(self.events)
        return {"cpu_us": timer.cpu / (self.runs * self.events) * 1e6}


class FanoutList(Fanout):
    """The same where the collector names the type as often as it expects it."""

    name = "fanout_list"
    workload = "fanout_list"


class FanoutGrowth(Fanout):
    """An event's cost in a wide fan-out over that in a narrow one."""

    name = "fanout_growth"
    small = 1_000
    large = 10_000

    async def measure(self) -> Metrics:
        return await growth(self._once, self.small, self.large)


class FanoutWaiting(Fanout):
    """A fan-out whose workers wait: how close to the ideal it comes, and how many work at once."""

    name = "fanout_waiting"
    repetitions = 5
    delay = 0.01

    async def set_up(self) -> None:
        self.working = self.most = 0
        self.run = self.make(self.workers, self._work)
        await self._once(200)

    async def _work(self) -> None:
        self.working += 1
        self.most = max(self.most, self.working)
        await asyncio.sleep(self.delay)
        self.working -= 1

    async def measure(self) -> Metrics:
        self.most = 0
        with Timer() as timer:
            await self._once(self.events)
        ideal = -(-self.events // self.workers) * self.delay
        return {"wall": timer.wall / ideal, "at_once": self.most}


class Concurrent(EngineCase):
    """Many runs at the same time, each step of which waits."""

    name = "concurrent"
    workload = "chain_waiting"
    repetitions = 7
    runs = 1_000
    batches = 5
    steps = 5

    async def set_up(self) -> None:
        self.run = self.make(self.steps, functools.partial(asyncio.sleep, 0.001))
        await self.run()

    async def measure(self) -> Metrics:
        before = resident()
        cpu, peak = 0.0, 0
        for batch in range(self.batches):
            with Timer() as timer:
                got = await asyncio.gather(*[self.run() for _ in range(self.runs)])
            check(got, [self.steps] * self.runs)
            cpu += timer.cpu
            if batch == 0:
                peak = peak_resident()
        return {"cpu_us": cpu / (self.runs * self.batches) * 1e6, "peak_kb": (peak - before) / self.runs / 1024}


class Paused(EngineCase):
    """Runs that pause for a human's answer, and are all answered then."""

    name = "paused"
    workload = "waiting"
    repetitions = 7
    runs = 5_000

    async def set_up(self) -> None:
        self.pause, self.answer = self.make()
        check(await self.answer(await self.pause(), 7), 7)

    async def measure(self) -> Metrics:
        before = resident()
        with Timer() as pausing:
            paused = await asyncio.gather(*[self.pause() for _ in range(self.runs)])
        await asyncio.sleep(0)  # until then the event loop holds the tasks of gather
        held = resident() - before
        with Timer() as resuming:
            got = await asyncio.gather(*[self.answer(run, i) for i, run in enumerate(paused)])
        check(got, list(range(self.runs)))
        return {
            "kb": held / self.runs / 1024,
            "pause_us": pausing.cpu / self.runs * 1e6,
            "resume_us": resuming.cpu / self.runs * 1e6,
        }


class PutAway(EngineCase):
    """Paused runs written down; each is taken up again and answered."""

    name = "put_away"
    workload = "putting_away"
    repetitions = 3
    runs = 100

    async def set_up(self) -> None:
        self.put_away, self.take_up = self.make()

    async def measure(self) -> Metrics:
        written = [await self.put_away() for _ in range(self.runs)]
        for i, text in enumerate(written):
            check(await self.take_up(text, i), i)
        return {"kb": sum(len(text.encode()) for text in written) / self.runs / 1024}


class Stream(EngineCase):
    """A step that writes a burst of events to the stream, and one consumer that reads them."""

    name = "stream"
    workload = "stream"
    events = 50_000

    async def set_up(self) -> None:
        self.run = self.make()
        await self._once(500)

    async def _once(self, events: int) -> None:
        check(await self.run(events), events)

    async def measure(self) -> Metrics:
        with Timer() as timer:
            await self._once(self.events)
        return {"cpu_us": timer.cpu / self.events * 1e6}


class StreamGrowth(Stream):
    """An event's cost in a long burst over that in short ones."""

    name = "stream_growth"
    small = 5_000
    large = 50_000

    async def measure(self) -> Metrics:
        return await growth(self._once, self.small, self.large)


class Checkpoint(EngineCase):
    """The context of a run that holds state, to text and back. The state is not read, but once to check it."""

    name = "checkpoint"
    workload = "checkpoint"
    keys = 100
    times = 200

    async def set_up(self) -> None:
        kinds: list[Callable[[int], object]] = [
            lambda i: i,
            lambda i: f"some text {i} " * 6,
            lambda i: {"id": i, "tags": ["a", "b"], "ok": True},
        ]
        values = {f"key{i}": kinds[i % 3](i) for i in range(self.keys)}
        self.to_text, self.from_text, read = await self.make(values)
        check(await read(self.from_text(self.to_text())), values)

    async def measure(self) -> Metrics:
        with Timer() as timer:
            for _ in range(self.times):
                self.from_text(self.to_text())
        return {"cpu_us": timer.cpu / self.times * 1e6}


class Import(EngineCase):
    """What a program pays before its first line, in a new interpreter each time."""

    name = "import"
    workload = "IMPORT"
    repetitions = 15

    async def set_up(self) -> None:
        await self.measure()

    async def measure(self) -> Metrics:
        code = f"import time; began = time.process_time()\n{self.make}\nprint(time.process_time() - began)"
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
        out, _ = await process.communicate()
        check(process.returncode, 0)
        return {"cpu_ms": float(out) * 1e3}
