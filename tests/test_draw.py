"""Drawing: all possible flows and the most recent execution, as a page and as Mermaid text."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import pytest
import tenacity
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field

from agentflow import (
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Resource,
    Retry,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowRuntimeError,
    WorkflowValidationError,
    draw_all_possible_flows,
    draw_most_recent_execution,
    step,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class JudgeEvent(Event):
    """A query that is to be judged again."""

    query: str = Field(description="what the model made of it")
    rounds: list[int] = Field(default=[])


class BadQueryEvent(Event):
    query: str


class NaiveRAGEvent(Event):
    query: str


class HighTopKEvent(Event):
    query: str


class RerankEvent(Event):
    query: str


class ResponseEvent(Event):
    response: str


class Judged(Workflow):
    """Improves a query, answers it in three ways, and returns the best answer.

    This is the picture of the tutorial.
    """

    @step
    async def judge_query(
        self, ctx: Context, ev: StartEvent | JudgeEvent
    ) -> BadQueryEvent | NaiveRAGEvent | HighTopKEvent | RerankEvent | None:
        """Is the query good enough?"""
        if len(ev.query) < ev.get("least", 6):
            return BadQueryEvent(query=ev.query)
        for kind in (NaiveRAGEvent, HighTopKEvent, RerankEvent):
            ctx.send_event(kind(query=ev.query))
        return None

    @step
    async def improve_query(self, ev: BadQueryEvent) -> JudgeEvent:
        return JudgeEvent(query=f"{ev.query}!!")

    @step(retry_policy=Retry(attempts=3), timeout=2.5)
    async def naive_rag(self, ev: NaiveRAGEvent) -> ResponseEvent:
        return ResponseEvent(response="naive")

    @step(num_workers=1)
    def high_top_k(self, ev: HighTopKEvent) -> ResponseEvent:
        return ResponseEvent(response="high")

    @step
    async def rerank(self, ev: RerankEvent) -> ResponseEvent:
        return ResponseEvent(response="rerank")

    @step
    async def judge_response(self, ctx: Context, ev: ResponseEvent) -> StopEvent | None:
        found = ctx.collect_events(ev, [ResponseEvent] * 3)
        return None if found is None else StopEvent(result=sorted(answer.response for answer in found))


class First(Event):
    pass


class Second(Event):
    pass


class Chain(Workflow):
    @step
    async def one(self, ev: StartEvent) -> First:
        return First()

    @step
    async def two(self, ev: First) -> Second:
        return Second()

    @step
    async def three(self, ev: Second) -> StopEvent:
        return StopEvent(result="done")


class Branches(Workflow):
    @step
    async def choose(self, ev: StartEvent) -> First | Second:
        return First() if ev.get("left") else Second()

    @step
    async def left(self, ev: First) -> StopEvent:
        return StopEvent(result="left")

    @step
    async def right(self, ev: Second) -> StopEvent:
        return StopEvent(result="right")


class Setup(Workflow):
    """Loops back to its start, as the tutorial's chapter on state does."""

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> First | Second:
        return Second() if await ctx.get("ready", default=None) else First()

    @step
    async def prepare(self, ctx: Context, ev: First) -> StartEvent:
        await ctx.set("ready", 1)
        return StartEvent()

    @step
    async def use(self, ev: Second) -> StopEvent:
        return StopEvent()


class Asks(Workflow):
    @step
    async def ask(self, ev: StartEvent) -> InputRequiredEvent:
        return InputRequiredEvent(prefix="A number: ")

    @step
    async def answer(self, ev: HumanResponseEvent) -> StopEvent:
        return StopEvent(result=ev.response)


class Approval(HumanResponseEvent):
    ok: bool = True


class ApprovalRequired(InputRequiredEvent):
    amount: float = 0.0


class Approves(Workflow):
    @step(waits=[Approval])
    async def pay(self, ctx: Context, ev: StartEvent) -> ApprovalRequired | StopEvent:
        await ctx.wait_for_event(Approval, waiter_event=ApprovalRequired(amount=1.0))
        return StopEvent()


class Database:
    pass


def connect() -> Database:
    """Open the database of the service."""
    return Database()


async def make_memory(db: Annotated[Database, Resource(connect)]) -> AsyncIterator[list[str]]:
    yield []


class Reflection(Workflow):
    """Thinks about a query."""

    @step
    async def reflect(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result="thought")


class Nested(Workflow):
    @step
    async def begin(self, ev: StartEvent, reflection: Workflow, db: Annotated[Database, Resource(connect)]) -> First:
        await reflection.run()
        return First()

    @step
    async def end(
        self,
        ev: First,
        database: Annotated[Database, Resource(connect)],
        memory: Annotated[list[str], Resource(make_memory)],
    ) -> StopEvent:
        return StopEvent()


def forty_steps() -> type[Workflow]:
    """A long flow with short cuts, repairs and early ends."""

    class Forty(Workflow):
        pass

    kinds = [type(f"Stage{n}", (Event,), {"__module__": __name__}) for n in range(40)]
    for n in range(40):

        async def stage(ev: Any) -> None:
            pass

        out: list[Any] = [
            kinds[m] for m in (n + 1, *([n + 2] if n % 4 == 0 else []), *([n - 4] if n % 9 == 7 else [])) if m < 40
        ]
        out += [StopEvent] if n == 39 or n % 6 == 5 else []
        stage.__name__ = stage.__qualname__ = f"stage_{n:02}"
        stage.__annotations__ = {
            "ev": kinds[n] if n else StartEvent,
            "return": functools.reduce(lambda a, b: a | b, out),
        }
        step(workflow=Forty)(stage)
    return Forty


class Box(NamedTuple):
    """A node of a drawing."""

    kind: str
    label: str
    times: int
    text: str
    about: str


class Drawing:
    """What a page shows, read back from it."""

    def __init__(self, path: Path) -> None:
        self.source = path.read_text(encoding="utf-8")
        reader = _Reader()
        reader.feed(self.source)
        reader.close()
        self.title = reader.title
        self.heading = reader.heading
        self.legend = reader.legend
        self.parts = reader.parts
        self.boxes = [
            Box(kind, label, times, text, reader.abouts[about])
            for kind, label, times, text, about in reader.nodes.values()
        ]
        names = {number: label for number, (_, label, _, _, _) in reader.nodes.items()}
        self.lines = Counter((names[source], names[target]) for source, target, _ in reader.lines)
        self.loops = {(names[source], names[target]) for source, target, kind in reader.lines if "loop" in kind}
        self.awaited = {(names[source], names[target]) for source, target, kind in reader.lines if "awaited" in kind}
        self.times = {(names[source], names[target]): times for source, target, times in reader.times}

    def labels(self, kind: str) -> list[str]:
        """The labels of all nodes of a kind."""
        return [box.label for box in self.boxes if box.kind == kind]

    def box(self, label: str) -> Box:
        """The one node with this label."""
        (found,) = [box for box in self.boxes if box.label == label]
        return found


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.title = self.heading = ""
        self.legend: list[str] = []
        self.abouts: dict[str, str] = {}
        self.nodes: dict[str, tuple[str, str, int, str, str]] = {}
        self.parts: list[tuple[str, str, str]] = []
        """Of each part of a node: its kind, its text, and what is told of it."""
        self.lines: list[tuple[str, str, str]] = []
        self.times: list[tuple[str, str, int]] = []
        self.path: list[tuple[str, dict[str, str]]] = []
        self.tags: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags[tag] += 1
        if tag not in {"meta", "link", "path", "rect"}:
            self.path.append((tag, given))
        kind, *more = given.get("class", "").split() or [""]
        if tag == "g" and kind == "node":
            self.nodes[given["id"]] = (more[0], "", 0, "", given["data-about"])
        elif tag == "g" and kind == "line":
            self.lines.append((given["data-from"], given["data-to"], given["class"]))
        elif tag == "g" and kind == "part":
            self.parts.append((given["class"].removeprefix("part "), "", given["data-about"]))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self.path[-1][0] == tag, f"</{tag}> closes <{self.path[-1][0]}>"
        self.path.pop()
        if tag == "aside":
            self.parts = [(kind, text, self.abouts[about]) for kind, text, about in self.parts]

    def handle_data(self, data: str) -> None:
        tags = [tag for tag, _ in self.path]
        last = self.path[-1][1] if self.path else {}
        if tags[-1:] == ["title"]:
            self.title += data
        elif tags[-1:] == ["h1"]:
            self.heading += data
        elif "li" in tags:
            self.legend.append(data)
        elif "section" in tags:
            about = next(given["id"] for tag, given in self.path if tag == "section").removeprefix("about-")
            self.abouts[about] = f"{self.abouts.get(about, '')}{data}\n"
        elif "svg" in tags and data.strip():
            self._drawn(data, last.get("class", ""))

    def _drawn(self, data: str, kind: str) -> None:
        node = next((given["id"] for _, given in self.path if given.get("class", "").startswith("node ")), None)
        if node is None:
            assert kind == "times"
            ends = self.path[-1][1]
            self.times.append((ends["data-from"], ends["data-to"], int(data[1:])))
        elif any(given.get("class", "").startswith("part ") for _, given in self.path):
            part, text, about = self.parts[-1]
            self.parts[-1] = (part, f"{text} {data}".strip(), about)
        else:
            box, label, times, text, about = self.nodes[node]
            if kind in {"badge", "count"}:
                times = int(data[1:])
            elif kind == "note":
                text = data
            else:
                label += data
            self.nodes[node] = (box, label, times, text, about)


def all_flows(workflow: Any, folder: Path) -> Drawing:
    """All possible flows, drawn and read back."""
    return Drawing(draw_all_possible_flows(workflow, folder / "all.html"))


def execution(workflow: Any, folder: Path) -> Drawing:
    """The most recent execution, drawn and read back."""
    return Drawing(draw_most_recent_execution(workflow, folder / "recent.html"))


def test_drawing_goes_into_the_documented_file_and_its_path_is_returned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a name it is the one of the documents, in the current directory."""
    monkeypatch.chdir(tmp_path)
    assert draw_all_possible_flows(Chain) == Path("workflow_all_flows.html")
    assert (tmp_path / "workflow_all_flows.html").read_text(encoding="utf-8").startswith("<!doctype html>")


async def test_execution_goes_into_the_documented_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a name it is the one of the documents, in the current directory."""
    monkeypatch.chdir(tmp_path)
    flow = Chain()
    await flow.run()
    assert draw_most_recent_execution(flow) == Path("workflow_recent_execution.html")
    assert (tmp_path / "workflow_recent_execution.html").exists()


def test_filename_may_be_given_by_place_by_name_as_text_or_as_path(tmp_path: Path) -> None:
    """All of these are what documents and users write."""
    assert draw_all_possible_flows(Chain, str(tmp_path / "a.html")).exists()
    assert draw_all_possible_flows(Chain, filename=tmp_path / "b.HTML").exists()
    assert draw_all_possible_flows(workflow=Chain, filename=str(tmp_path / "c.mmd")).exists()


@pytest.mark.parametrize("name", ["flow.png", "flow", "flow.html.txt", ""])
def test_unknown_suffix_is_refused_with_the_choices(name: str) -> None:
    """Nothing is written, and the message shows what to write."""
    with pytest.raises(WorkflowRuntimeError, match=r"ends in \.html for a page, or in \.mmd .* Write: filename='flow"):
        draw_all_possible_flows(Chain, filename=name)


@pytest.mark.parametrize("draw", [draw_all_possible_flows, draw_most_recent_execution])
def test_only_workflows_can_be_drawn(draw: Any) -> None:
    """Anything else is refused with what to write."""
    with pytest.raises(
        WorkflowRuntimeError, match=r"\('flow'\): only workflows can be drawn. Write: draw_\w+\(MyFlow\)"
    ):
        draw("flow")


def test_workflow_that_cannot_work_is_refused_as_when_it_runs(tmp_path: Path) -> None:
    """A drawing of it would lie; the error shows the corrected line."""

    class Endless(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> First:
            return First()

    with pytest.raises(WorkflowValidationError, match="no step of 'Endless' returns StopEvent"):
        draw_all_possible_flows(Endless, tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()


def test_class_and_object_look_the_same(tmp_path: Path) -> None:
    """Where the object adds nothing of its own."""
    a = draw_all_possible_flows(Judged, tmp_path / "a.html")
    b = draw_all_possible_flows(Judged(), tmp_path / "b.html")
    assert a.read_bytes() == b.read_bytes()


@pytest.mark.parametrize("suffix", ["html", "mmd"])
def test_drawing_is_the_same_in_every_process(suffix: str, tmp_path: Path) -> None:
    """Hash seeds and addresses leave no trace, so that a drawing can be committed."""
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_draw as t\n"
        f"for n, flow in enumerate((t.Judged, t.Nested, t.Approves, t.forty_steps())): "
        f"t.draw_all_possible_flows(flow, f'{{sys.argv[1]}}/{{n}}.{suffix}')"
    )
    found: set[str] = set()
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        subprocess.run([sys.executable, "-c", program, folder], check=True, env={**os.environ, "PYTHONHASHSEED": seed})
        content = b"".join(path.read_bytes() for path in sorted(folder.iterdir()))
        found.add(hashlib.sha256(content).hexdigest())
    assert len(found) == 1


def test_what_draws_is_not_loaded_before_something_is_drawn() -> None:
    """`import agentflow` pays nothing for it."""
    program = "import agentflow, sys; print(*[m for m in sys.modules if m.startswith('agentflow.')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "agentflow.draw" in loaded
    assert not {"agentflow.picture", "agentflow.page", "agentflow.layout", "agentflow.mermaid"} & set(loaded)


def test_steps_and_events_of_the_tutorial_are_each_drawn_once(tmp_path: Path) -> None:
    """Start, stop, steps and events are told apart."""
    drawing = all_flows(Judged, tmp_path)
    assert drawing.title == "Judged: all possible flows"
    assert drawing.heading == "Judged"
    assert drawing.labels("start") == ["StartEvent"]
    assert drawing.labels("stop") == ["StopEvent"]
    assert sorted(drawing.labels("step")) == [
        "high_top_k",
        "improve_query",
        "judge_query",
        "judge_response",
        "naive_rag",
        "rerank",
    ]
    assert sorted(drawing.labels("event")) == [
        "BadQueryEvent",
        "HighTopKEvent",
        "JudgeEvent",
        "NaiveRAGEvent",
        "RerankEvent",
        "ResponseEvent",
    ]


def test_lines_lead_from_step_to_event_to_step(tmp_path: Path) -> None:
    """Each of them once, and nothing else."""
    assert all_flows(Judged, tmp_path).lines == Counter(
        [
            ("StartEvent", "judge_query"),
            ("judge_query", "BadQueryEvent"),
            ("BadQueryEvent", "improve_query"),
            ("improve_query", "JudgeEvent"),
            ("JudgeEvent", "judge_query"),
            ("judge_query", "NaiveRAGEvent"),
            ("NaiveRAGEvent", "naive_rag"),
            ("naive_rag", "ResponseEvent"),
            ("judge_query", "HighTopKEvent"),
            ("HighTopKEvent", "high_top_k"),
            ("high_top_k", "ResponseEvent"),
            ("judge_query", "RerankEvent"),
            ("RerankEvent", "rerank"),
            ("rerank", "ResponseEvent"),
            ("ResponseEvent", "judge_response"),
            ("judge_response", "StopEvent"),
        ]
    )


def test_loop_is_drawn_as_a_loop(tmp_path: Path) -> None:
    """The line that leads back, and only that one, also from a step back to its own event or to the start."""

    class Counts(Workflow):
        @step
        async def count(self, ev: StartEvent | First) -> First | StopEvent:
            return StopEvent()

    assert all_flows(Judged, tmp_path).loops == {("JudgeEvent", "judge_query")}
    assert all_flows(Counts, tmp_path).loops == {("First", "count")}
    assert all_flows(Setup, tmp_path).loops == {("prepare", "StartEvent")}
    assert all_flows(Branches, tmp_path).loops == set()


def test_event_that_several_steps_take_leads_to_all_of_them(tmp_path: Path) -> None:
    """It is one node."""

    class Broadcasts(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> First:
            return First()

        @step
        async def one(self, ev: First) -> None:
            return None

        @step
        async def two(self, ev: First) -> StopEvent:
            return StopEvent()

    lines = all_flows(Broadcasts, tmp_path).lines
    assert lines["First", "one"] == lines["First", "two"] == lines["begin", "First"] == 1


def test_event_leads_to_the_step_that_takes_its_base_class(tmp_path: Path) -> None:
    """The drawing routes as the run does."""

    class Special(First):
        pass

    class Takes(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Special:
            return Special()

        @step
        async def end(self, ev: First) -> StopEvent:
            return StopEvent()

    drawing = all_flows(Takes, tmp_path)
    assert drawing.lines["Special", "end"] == 1
    assert drawing.labels("event") == ["Special"]


def test_steps_of_bases_subclasses_and_objects_are_drawn(tmp_path: Path) -> None:
    """An overridden step is drawn as overridden, one attached to an object only with that object."""

    class Third(Event):
        pass

    class Longer(Chain):
        @step
        async def two(self, ev: First) -> Third:  # type: ignore[override]  # that is what the documents do
            return Third()

        @step
        async def two_and_a_half(self, ev: Third) -> Second:
            return Second()

    drawing = all_flows(Longer, tmp_path)
    assert drawing.lines["two", "Third"] == 1
    assert ("two", "Second") not in drawing.lines

    flow = Chain()

    @step(workflow=flow)
    async def listens(ev: First) -> None:
        return None

    assert "listens" in all_flows(flow, tmp_path).labels("step")
    assert "listens" not in all_flows(Chain(), tmp_path).labels("step")


def test_person_stands_between_question_and_answer(tmp_path: Path) -> None:
    """InputRequiredEvent leads out of the workflow, HumanResponseEvent into it."""
    drawing = all_flows(Asks, tmp_path)
    assert drawing.labels("outside") == ["human"]
    assert drawing.lines["ask", "InputRequiredEvent"] == 1
    assert drawing.lines["InputRequiredEvent", "human"] == 1
    assert drawing.lines["human", "HumanResponseEvent"] == 1
    assert drawing.lines["HumanResponseEvent", "answer"] == 1
    assert "outside world" in drawing.legend


def test_question_leads_also_to_a_step_that_takes_it(tmp_path: Path) -> None:
    """As in a run, where it goes to the stream as well."""

    class Logs(Asks):
        @step
        async def note(self, ev: InputRequiredEvent) -> None:
            return None

    lines = all_flows(Logs, tmp_path).lines
    assert lines["InputRequiredEvent", "human"] == lines["InputRequiredEvent", "note"] == 1


def test_awaited_event_leads_to_the_waiting_step_by_a_line_of_its_own_kind(tmp_path: Path) -> None:
    """It does not start the step, and looks so."""
    drawing = all_flows(Approves, tmp_path)
    assert drawing.awaited == {("Approval", "pay")}
    assert drawing.lines["human", "Approval"] == 1
    assert drawing.lines["ApprovalRequired", "human"] == 1


def test_awaited_event_that_no_step_produces_comes_from_outside(tmp_path: Path) -> None:
    """Not from a person, as far as anybody knows."""

    class Listens(Workflow):
        @step(waits=[First])
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await ctx.wait_for_event(First)
            return StopEvent()

    drawing = all_flows(Listens, tmp_path)
    assert drawing.lines["outside", "First"] == 1
    assert drawing.awaited == {("First", "begin")}


def test_resources_are_drawn_in_their_step_with_name_and_lifetime(tmp_path: Path) -> None:
    """What they are and how they are made is told on a closer look."""
    drawing = all_flows(Nested, tmp_path)
    resources = [(text, about) for kind, text, about in drawing.parts if kind == "resource"]
    assert [text for text, _ in resources] == ["db per workflow", "database per workflow", "memory per run"]
    assert "Open the database of the service." in resources[0][1]
    assert "made by\nconnect" in resources[0][1]
    assert "type\nlist[str]" in resources[2][1]
    assert "needs\ndb (connect, workflow)" in resources[2][1]
    assert "resource" in drawing.legend


@pytest.mark.parametrize(
    ("given", "shown"), [(Database(), "Database"), (Resource(functools.partial(connect)), "connect")]
)
def test_resource_that_an_object_replaces_says_so(given: object, shown: str, tmp_path: Path) -> None:
    """Only in the drawing of that object, and without printing what may hold a secret."""
    flow = Nested(resources={connect: given})
    assert any(f"replaced by\n{shown}\n" in about for _, _, about in all_flows(flow, tmp_path).parts)
    assert not any("replaced by" in about for _, _, about in all_flows(Nested(), tmp_path).parts)


@pytest.mark.parametrize("workflow", [Nested, Nested()], ids=["class", "object"])
def test_slot_that_nothing_fills_is_drawn_empty(workflow: Any, tmp_path: Path) -> None:
    """The tutorial draws such a workflow, which could not run."""
    (part,) = [part for part in all_flows(workflow, tmp_path).parts if part[0].startswith("workflow")]
    kind, text, about = part
    assert kind == "workflow missing"
    assert text == "reflection empty slot"
    assert "workflow.add_workflows(reflection=...)" in about


def test_nested_workflow_is_one_box(tmp_path: Path) -> None:
    """Its steps are not drawn, only told of."""
    flow = Nested()
    flow.add_workflows(reflection=Reflection(name="deep thought"))
    drawing = all_flows(flow, tmp_path)
    (part,) = [part for part in drawing.parts if part[0].startswith("workflow")]
    assert part[:2] == ("workflow", "deep thought reflection")
    assert "Thinks about a query." in part[2]
    assert "steps\nreflect" in part[2]
    assert drawing.labels("step") == ["begin", "end"]


def test_default_of_a_slot_is_drawn(tmp_path: Path) -> None:
    """With the class as with the object."""
    default = Reflection()

    class HasDefault(Workflow):
        @step
        async def begin(self, ev: StartEvent, reflection: Reflection = default) -> StopEvent:
            return StopEvent()

    for workflow in (HasDefault, HasDefault()):
        (part,) = all_flows(workflow, tmp_path).parts
        assert part[1] == "Reflection reflection"


def test_step_tells_its_docstring_and_its_options(tmp_path: Path) -> None:
    """Options that are not the usual ones are in the box itself as well."""
    drawing = all_flows(Judged, tmp_path)
    about = drawing.box("judge_query").about
    assert about.startswith("step\njudge_query\nIs the query good enough?\n")
    assert "takes\nStartEvent | JudgeEvent\n" in about
    assert "returns or sends\nBadQueryEvent | NaiveRAGEvent | HighTopKEvent | RerankEvent\n" in about
    assert "num_workers\n4\nretry policy\nnone\ntimeout\nnone\n" in about
    assert drawing.box("judge_query").text == ""
    assert "retry policy\nRetry(attempts=3" in drawing.box("naive_rag").about
    assert "timeout\n2.5 s\n" in drawing.box("naive_rag").about
    assert drawing.box("naive_rag").text == "retries · 2.5 s"
    assert "step, in a thread" in drawing.box("high_top_k").about
    assert drawing.box("high_top_k").text == "1 worker · thread"


def test_event_tells_its_docstring_and_its_fields(tmp_path: Path) -> None:
    """With type and description, and no words of a base class."""
    drawing = all_flows(Judged, tmp_path)
    about = drawing.box("JudgeEvent").about
    assert about == (
        "event\nJudgeEvent\nA query that is to be judged again.\n"
        "query\nstr: what the model made of it\nrounds\nlist[int], optional\n"
    )
    assert drawing.box("BadQueryEvent").about == "event\nBadQueryEvent\nquery\nstr\n"


def test_workflow_tells_the_first_paragraph_of_its_docstring(tmp_path: Path) -> None:
    """Below the title, beside how much there is."""
    source = all_flows(Judged, tmp_path).source
    assert '<p class="text">Improves a query, answers it in three ways, and returns the best answer.</p>' in source
    assert "all possible flows · 6 steps, 8 event types" in source


def test_no_address_of_an_object_is_shown(tmp_path: Path) -> None:
    """It would say nothing, and differ each time."""

    class Mine:
        def next(self, elapsed_time: float, attempts: int, error: Exception) -> float | None:
            return None

    class Tries(Workflow):
        @step(retry_policy=Mine())
        async def begin(self, ev: StartEvent) -> First:
            return First()

        @step(retry_policy=tenacity.AsyncRetrying(stop=tenacity.stop_after_attempt(2)))
        async def end(self, ev: First) -> StopEvent:
            return StopEvent()

    drawing = all_flows(Tries, tmp_path)
    assert "Mine" in drawing.box("begin").about
    assert "stop_after_attempt" in drawing.box("end").about
    assert "0x" not in "".join(box.about for box in drawing.boxes)


def test_forty_steps_are_drawn(tmp_path: Path) -> None:
    """All of them, the early ends meeting in one."""
    drawing = all_flows(forty_steps(), tmp_path)
    assert len(drawing.labels("step")) == 40
    assert drawing.labels("stop") == ["StopEvent"]
    assert sum(count for (_, target), count in drawing.lines.items() if target == "StopEvent") == 7


async def test_execution_shows_how_often_steps_ran_and_events_were_taken(tmp_path: Path) -> None:
    """Two rounds of the loop, then three answers."""
    flow = Judged()
    await flow.run(query="why")
    drawing = execution(flow, tmp_path)
    assert drawing.title == "Judged: most recent execution"
    assert {box.label: box.times for box in drawing.boxes} == {
        "StartEvent": 1,
        "judge_query": 3,
        "BadQueryEvent": 2,
        "improve_query": 2,
        "JudgeEvent": 2,
        "NaiveRAGEvent": 1,
        "naive_rag": 1,
        "HighTopKEvent": 1,
        "high_top_k": 1,
        "RerankEvent": 1,
        "rerank": 1,
        "ResponseEvent": 3,
        "judge_response": 3,
        "StopEvent": 1,
    }
    assert "6 steps ran, 11 executions in all" in drawing.source
    assert "ran\n3 times" in drawing.box("judge_query").about


async def test_execution_shows_how_often_each_way_was_taken(tmp_path: Path) -> None:
    """Lines have a number where the event's own does not say it."""
    flow = Judged()
    await flow.run(query="long enough")
    assert execution(flow, tmp_path).times == {
        ("naive_rag", "ResponseEvent"): 1,
        ("high_top_k", "ResponseEvent"): 1,
        ("rerank", "ResponseEvent"): 1,
    }
    again = Setup()
    await again.run()
    drawing = execution(again, tmp_path)
    assert drawing.box("StartEvent").times == 2
    assert drawing.times == {("prepare", "StartEvent"): 1}


async def test_execution_shows_nothing_that_did_not_run(tmp_path: Path) -> None:
    """No step, event or line of the other branch, and no loop that was not taken."""
    flow = Branches()
    await flow.run(left=True)
    drawing = execution(flow, tmp_path)
    assert {box.label for box in drawing.boxes} == {"StartEvent", "choose", "First", "left", "StopEvent"}
    assert ("choose", "Second") not in drawing.lines
    judged = Judged()
    await judged.run(query="long enough")
    assert not {"improve_query", "BadQueryEvent", "JudgeEvent"} & {b.label for b in execution(judged, tmp_path).boxes}


async def test_execution_is_the_one_of_the_run_that_was_started_last(tmp_path: Path) -> None:
    """Of this object; others of the same class have their own."""
    flow, other = Branches(), Branches()
    await flow.run(left=True)
    await other.run(left=True)
    await flow.run(left=False)
    assert "right" in execution(flow, tmp_path).labels("step")
    assert "left" not in execution(flow, tmp_path).labels("step")
    assert "left" in execution(other, tmp_path).labels("step")


async def test_event_that_two_steps_took_has_a_node_for_each(tmp_path: Path) -> None:
    """So every number says how often one step took it from one sender."""

    class Broadcasts(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> First | None:
            ctx.send_event(First())
            ctx.send_event(First(), step="counts")
            return None

        @step
        async def counts(self, ctx: Context, ev: First) -> StopEvent | None:
            return StopEvent() if ctx.collect_events(ev, [First] * 2) else None

        @step
        async def looks(self, ev: First) -> None:
            return None

    flow = Broadcasts()
    await flow.run()
    drawing = execution(flow, tmp_path)
    assert sorted(box.times for box in drawing.boxes if box.label == "First") == [1, 2]
    assert drawing.box("counts").times == 2
    assert drawing.box("looks").times == 1
    assert drawing.lines["begin", "First"] == 2


async def test_start_event_that_two_steps_took_is_one_node(tmp_path: Path) -> None:
    """A run has one beginning."""

    class Both(Workflow):
        @step
        async def one(self, ev: StartEvent) -> First:
            return First()

        @step
        async def two(self, ctx: Context, ev: StartEvent | First) -> StopEvent | None:
            return StopEvent() if ctx.collect_events(ev, [StartEvent, First]) else None

    flow = Both()
    await flow.run()
    drawing = execution(flow, tmp_path)
    assert drawing.labels("start") == ["StartEvent"]
    assert drawing.times["StartEvent", "one"] == drawing.times["StartEvent", "two"] == 1


async def test_execution_of_a_failed_run_shows_how_far_it_came(tmp_path: Path) -> None:
    """The step that failed is there, and what would have followed is not."""

    class Fails(Chain):
        @step
        async def two(self, ev: First) -> Second:
            raise ValueError("no")

    flow = Fails()
    with pytest.raises(ValueError, match="no"):
        await flow.run()
    assert execution(flow, tmp_path).labels("step") == ["one", "two"]


async def test_attempts_count_as_executions(tmp_path: Path) -> None:
    """A step that was tried again ran twice."""

    class Fails(Chain):
        failures = 1

        @step(retry_policy=Retry(attempts=2, wait=0))
        async def two(self, ev: First) -> Second:
            if self.failures:
                self.failures -= 1
                raise ValueError("no")
            return Second()

    flow = Fails()
    await flow.run()
    assert execution(flow, tmp_path).box("two").times == 2


async def test_execution_can_be_drawn_in_the_middle_of_stepping(tmp_path: Path) -> None:
    """It shows what ran so far, and not the event that is held."""
    flow = Chain()
    handler = flow.run()
    await handler.run_step()
    drawing = execution(flow, tmp_path)
    assert [box.label for box in drawing.boxes] == ["StartEvent", "one"]
    await handler.run_step()
    assert execution(flow, tmp_path).labels("step") == ["one", "two"]
    while await handler.run_step():
        pass
    assert execution(flow, tmp_path).labels("step") == ["one", "two", "three"]
    await handler


async def test_execution_of_a_restored_run_shows_what_ran_since(tmp_path: Path) -> None:
    """Its first events come from outside: nobody remembers who sent them."""
    handler = (first := Chain()).run(stepwise=True)
    for event in await handler.run_step():
        handler.ctx.send_event(event)
    stored = handler.ctx.to_dict()
    await handler.cancel_run()
    assert execution(first, tmp_path).labels("step") == ["one"]
    flow = Chain()
    assert await flow.run(ctx=Context.from_dict(flow, stored)) == "done"
    drawing = execution(flow, tmp_path)
    assert drawing.labels("step") == ["two", "three"]
    assert drawing.lines["outside", "First"] == 1


async def test_answer_of_a_person_comes_from_outside(tmp_path: Path) -> None:
    """It is drawn where it was taken."""
    flow = Asks()
    handler = flow.run()
    async for event in handler.stream_events():
        if isinstance(event, InputRequiredEvent):
            handler.ctx.send_event(HumanResponseEvent(response="42"))
    assert await handler == "42"
    drawing = execution(flow, tmp_path)
    assert drawing.lines["human", "HumanResponseEvent"] == 1
    assert drawing.labels("step") == ["ask", "answer"]


async def test_question_to_a_person_is_part_of_the_execution(tmp_path: Path) -> None:
    """It left the workflow, so the step that asked leads to the one that got the answer."""
    flow = Asks()
    handler = flow.run()
    async for event in handler.stream_events():
        if isinstance(event, InputRequiredEvent):
            handler.ctx.send_event(HumanResponseEvent(response="42"))
    await handler
    drawing = execution(flow, tmp_path)
    assert drawing.lines["ask", "InputRequiredEvent"] == drawing.lines["InputRequiredEvent", "human"] == 1


async def test_resources_are_part_of_an_execution_and_unseen_workflows_are_not(tmp_path: Path) -> None:
    """A step that ran was handed its resources; whether it ran a nested workflow nobody counts."""
    flow = Nested()
    flow.add_workflows(reflection=Reflection())
    await flow.run()
    kinds = {kind for kind, _, _ in execution(flow, tmp_path).parts}
    assert kinds == {"resource"}


def test_without_any_run_there_is_nothing_to_draw(tmp_path: Path) -> None:
    """The message shows what to write."""
    with pytest.raises(WorkflowRuntimeError, match=r"Chain has not run yet.* await flow\.run\(\.\.\.\); draw_most"):
        draw_most_recent_execution(Chain(), tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()


async def test_run_that_has_not_begun_cannot_be_drawn(tmp_path: Path) -> None:
    """`run` returns before its first step."""
    flow = Chain()
    handler = flow.run()
    with pytest.raises(WorkflowRuntimeError, match=r"has not executed any step yet.* await handler\.run_step\(\)"):
        draw_most_recent_execution(flow, tmp_path / "x.html")
    await handler


def test_class_has_no_most_recent_execution() -> None:
    """Only objects run."""
    with pytest.raises(WorkflowRuntimeError, match=r"was given a class.* Write: flow = Chain\(\); await flow\.run"):
        draw_most_recent_execution(Chain)  # type: ignore[arg-type]  # this is the mistake


def test_mermaid_text_has_the_same_nodes_and_lines(tmp_path: Path) -> None:
    """One shape for each kind of node, a dotted line for what is inside of a step."""
    text = draw_all_possible_flows(Asks, tmp_path / "flow.mmd").read_text(encoding="utf-8")
    assert text.startswith('---\ntitle: "Asks: all possible flows"\n---\nflowchart TD\n')
    for line in (
        'start_StartEvent(["StartEvent"]):::start',
        'step_ask["ask"]:::step',
        'event_InputRequiredEvent("InputRequiredEvent"):::event',
        'outside_human{{"human"}}:::outside',
        'stop_StopEvent(["StopEvent"]):::stop',
        "start_StartEvent --> step_ask",
        "step_ask --> event_InputRequiredEvent",
        "event_InputRequiredEvent --> outside_human",
        "outside_human --> event_HumanResponseEvent",
        "event_HumanResponseEvent --> step_answer",
        "step_answer --> stop_StopEvent",
    ):
        assert text.count(f"    {line}\n") == 1


def test_mermaid_text_has_resources_nested_workflows_and_waits(tmp_path: Path) -> None:
    """A resource that two steps share is one node."""
    flow = Nested()
    flow.add_workflows(reflection=Reflection())
    text = draw_all_possible_flows(flow, tmp_path / "flow.mmd").read_text(encoding="utf-8")
    assert 'workflow_Reflection[["Reflection<br/>reflection"]]:::workflow' in text
    assert 'resource_db[("db<br/>per workflow")]:::resource' in text
    assert "step_begin -.- resource_db\n" in text
    assert "step_end -.- resource_db\n" in text
    waits = draw_all_possible_flows(Approves, tmp_path / "flow.mmd").read_text(encoding="utf-8")
    assert "event_Approval -.-> step_pay\n" in waits


async def test_mermaid_text_of_an_execution_has_the_numbers(tmp_path: Path) -> None:
    """At nodes, and at lines where the event's own number does not say it."""
    flow = Judged()
    await flow.run(query="why")
    text = draw_most_recent_execution(flow, tmp_path / "flow.mmd").read_text(encoding="utf-8")
    assert 'step_judge_query["judge_query \N{MULTIPLICATION SIGN}3"]' in text
    assert 'step_rerank -->|"\N{MULTIPLICATION SIGN}1"| event_ResponseEvent' in text


def test_events_of_one_name_are_different_nodes_in_mermaid(tmp_path: Path) -> None:
    """Two modules may well have an event of the same name."""
    same = type("First", (Event,), {"__module__": "elsewhere"})

    async def end(ev: Any) -> None:
        pass

    async def begin(ev: Any) -> None:
        pass

    flow = Workflow()
    begin.__annotations__ = {"ev": StartEvent, "return": First | same}
    end.__annotations__ = {"ev": First | same, "return": StopEvent}
    step(workflow=flow)(begin)
    step(workflow=flow)(end)
    text = draw_all_possible_flows(flow, tmp_path / "flow.mmd").read_text(encoding="utf-8")
    assert 'event_First("First")' in text
    assert 'event_First_2("First")' in text


TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp", "Zs", "Cn", "Co")), min_size=1, max_size=40)


def named(text: str) -> Workflow:
    """A workflow with this text wherever a user's text can be."""
    event = type(text, (Event,), {"__doc__": text, "__module__": __name__})

    async def begin(ev: Any) -> None:
        pass

    async def end(ev: Any) -> None:
        pass

    begin.__doc__ = text
    begin.__annotations__ = {"ev": StartEvent, "return": event}
    end.__annotations__ = {"ev": event, "return": StopEvent}
    flow = Workflow(name=text)
    step(workflow=flow)(begin)
    step(workflow=flow)(end)
    return flow


@given(TEXT)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_text_of_users_is_shown_as_it_is_in_the_page(tmp_path: Path, text: str) -> None:
    """Whatever a workflow, an event or a docstring says, it is text and nothing else."""
    drawing = all_flows(named(text), tmp_path)
    assert drawing.heading == text
    assert drawing.title == f"{text}: all possible flows"
    (event,) = [box for box in drawing.boxes if box.kind == "event"]
    assert event.about.startswith(f"event\n{text}\n{text}\n")
    assert text in drawing.box("begin").about
    reader = _Reader()
    reader.feed(drawing.source)
    assert reader.tags["script"] == reader.tags["style"] == reader.tags["svg"] == 1


@given(TEXT)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_text_of_users_has_no_meaning_in_mermaid(tmp_path: Path, text: str) -> None:
    """In a label only letters and harmless signs are written as they are, the others as numbers."""
    lines = draw_all_possible_flows(named(text), tmp_path / "flow.mmd").read_text(encoding="utf-8").splitlines()
    (label,) = [re.fullmatch(r'    event_\w+\("(.*)"\):::event', line) for line in lines if line.endswith(":::event")]
    assert label is not None
    assert not set(label[1]) & set('"<>&`[]{}|%\\')
    assert unescape(label[1].replace("#", "&#")) == text
    assert json.loads(lines[1].removeprefix("title: ")) == f"{text}: all possible flows"


def test_overlong_names_are_cut_in_the_drawing_and_whole_on_a_closer_look(tmp_path: Path) -> None:
    """A box stays readable."""
    drawing = all_flows(named("x" * 300), tmp_path)
    (event,) = [box for box in drawing.boxes if box.kind == "event"]
    assert event.label == "x" * 43 + "…"
    assert "x" * 300 in event.about


def test_page_needs_nothing_from_anywhere(tmp_path: Path) -> None:
    """No address in it but of the page itself, and a policy that allows none."""
    source = all_flows(Nested, tmp_path).source
    assert not re.findall(r"https?:|//[\w.-]+\.\w", source)
    assert re.findall(r'(?:href|src)="([^"]*)"', source) == ["data:,"]
    assert "url(" not in source
    assert "@import" not in source
    assert "default-src 'none'" in source


async def test_an_execution_that_was_looked_at_tells_how_long_each_step_took(tmp_path: Path) -> None:
    """By an observer or `verbose`; nobody pays for it otherwise."""

    class Short(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            return StopEvent()

    for verbose in (True, False):
        flow = Short(verbose=verbose)
        await flow.run()
        page = await asyncio.to_thread(draw_most_recent_execution(flow, tmp_path / "recent.html").read_text, "utf-8")
        assert bool(re.search(r"took.{1,200}\d\.\d{3} ms", page, re.DOTALL)) is verbose
