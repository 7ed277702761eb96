"""The patterns of which all flows are made: a fan-out and its join, a branch, a loop, a workflow in a workflow.

    python examples/common_patterns.py

    read ─► Article ─► triage ─┬─► Short ─► quote ───────────────┬─► Line ─► join ─► Digest
         (one for each)        └─► Long ──► condense (Shorten) ──┘

It makes a digest of encyclopedia articles, one line for each, in plain Python: no model takes part.
"""

import json
import re
from pathlib import Path

from agentflow import Context, Event, StartEvent, StopEvent, Workflow, step
from agentflow_llm.reading import sentences

ARTICLES = Path(__file__).parents[1] / "tests" / "fixtures" / "xquad" / "xquad-en-24-articles.json"
WIDTH = 100


class Text(StartEvent):
    text: str


class TooLong(Event):
    text: str


class Cut(Event):
    text: str


class Shortened(StopEvent):
    text: str


class Shorten(Workflow[Text, Shortened]):
    """A loop: the two steps hand the text to each other until it is short enough."""

    @step
    async def measure(self, ev: Text | Cut) -> TooLong | Shortened:
        return TooLong(text=ev.text) if len(ev.text) > WIDTH else Shortened(text=ev.text)

    @step
    async def cut(self, ctx: Context, ev: TooLong) -> Cut:
        """Leave out the last clause, or the last word where there is only one clause."""
        await ctx.set("rounds", await ctx.get("rounds", default=0) + 1)
        text = ev.text.removesuffix(" ...")
        clauses = re.split(r"(?<=[,;:]) ", text)
        left = " ".join(clauses[:-1]) if len(clauses) > 1 else text.rpartition(" ")[0]
        return Cut(text=f"{left.rstrip(',;:')} ...")


class Article(Event):
    title: str
    text: str


class Short(Article):
    pass


class Long(Article):
    pass


class Line(Event):
    title: str
    text: str


class Digest(StopEvent):
    lines: list[Line]


class MakeDigest(Workflow[StartEvent, Digest]):
    @step
    async def read(self, ctx: Context, ev: StartEvent) -> list[Article]:
        """A fan-out: each event of the list goes its own way, and all of them at once."""
        data = json.loads(ARTICLES.read_text(encoding="utf-8"))["data"]
        articles = [Article(title=a["title"], text=p["context"]) for a in data for p in a["paragraphs"][:1]]
        await ctx.set("articles", len(articles))
        return articles

    @step
    async def triage(self, ev: Article) -> Short | Long:
        """A branch: which of the two is returned decides which step runs."""
        first = next(sentences(ev.text))
        return Short(title=ev.title, text=first) if len(first) <= WIDTH else Long(title=ev.title, text=first)

    @step
    async def quote(self, ev: Short) -> Line:
        return Line(title=ev.title, text=ev.text)

    @step(num_workers=8)
    async def condense(self, ev: Long, shorten: Workflow[Text, Shortened]) -> Line:
        """A workflow in a workflow: `add_workflows(shorten=...)` puts one here."""
        short = await shorten.run(text=ev.text)
        return Line(title=ev.title, text=short.text)

    @step
    async def join(self, ctx: Context, ev: Line) -> Digest | None:
        """The join: None until all lines have come."""
        lines = ctx.collect_events(ev, {Line: await ctx.get("articles")})
        return None if lines is None else Digest(lines=sorted(lines, key=lambda line: line.title))


def main() -> None:
    workflow = MakeDigest()
    workflow.add_workflows(shorten=Shorten())
    for line in workflow.run_sync().lines:
        print(f"{line.title.replace('_', ' ')[:30]:31}{line.text}")


if __name__ == "__main__":
    main()
