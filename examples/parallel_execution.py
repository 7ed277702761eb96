"""Many calls at once, but never more than a few: `num_workers` bounds a step, and what is observed shows who waited.

    python examples/parallel_execution.py

A list of events starts as many executions of `fetch` as there are workers; the others wait for their turn. The join
gets all results, in the order in which they came.
"""

import asyncio
import json
from pathlib import Path

from agentflow import Context, Event, StartEvent, StopEvent, Workflow, step
from agentflow.testing import Recorder, record

ARTICLES = Path(__file__).parents[1] / "tests" / "fixtures" / "xquad" / "xquad-en-24-articles.json"
TITLES = ["Normans", "Huguenot", "Oxygen", "Pharmacy", "Imperialism", "Black_Death", "Doctor_Who"]
WIDTH = 60


class Titles(StartEvent):
    titles: list[str]


class Fetch(Event):
    title: str


class Fetched(Event):
    title: str
    words: int


class Counts(StopEvent):
    words: dict[str, int]


class CountWords(Workflow[Titles, Counts]):
    @step
    async def split(self, ctx: Context, ev: Titles) -> list[Fetch]:
        await ctx.set("expected", len(ev.titles))
        return [Fetch(title=title) for title in ev.titles]

    @step(num_workers=3, timeout=5)
    async def fetch(self, ev: Fetch) -> Fetched:
        """Your own call goes here; the sleep stands for a service that takes its time. A plain `def` gets a thread."""
        await asyncio.sleep(0.02)
        articles = json.loads(ARTICLES.read_text(encoding="utf-8"))["data"]
        text = next(str(article["paragraphs"]) for article in articles if article["title"] == ev.title)
        return Fetched(title=ev.title, words=len(text.split()))

    @step
    async def join(self, ctx: Context, ev: Fetched) -> Counts | None:
        fetched = ctx.collect_events(ev, {Fetched: await ctx.get("expected")})
        return None if fetched is None else Counts(words={one.title: one.words for one in fetched})


def chart(seen: Recorder) -> str:
    """When each call ran; `.` is the time that it waited for one of the three workers."""
    calls = seen.find("step", "fetch")
    begin, end = calls[0].started_at, max(call.ended_at for call in calls)
    scale = WIDTH / (end - begin)
    lines: list[str] = []
    for call in calls:
        start, waited = round((call.started_at - begin) * scale), round(call.queued_ns * scale)
        ran = max(1, round((call.ended_at - call.started_at) * scale))
        lines.append(f"{call.result.title:12} {' ' * (start - waited)}{'.' * waited}{'#' * ran}")
    together = sum(call.ended_at - call.started_at for call in calls)
    lines.append(f"{together / 1e6:.0f} ms of work in {(end - begin) / 1e6:.0f} ms")
    return "\n".join(lines)


async def main() -> None:
    with record() as seen:
        counts = await CountWords().run(titles=TITLES)
    print(chart(seen))
    print(counts.words)


if __name__ == "__main__":
    asyncio.run(main())
