"""Every example runs, as its reader runs it, and shows what its transcript in `tests/examples/` says.

A transcript is what a terminal shows, a file of the same name, `router.txt` for `router.py`:

    $ python examples/router.py "What does it cost?"
    < what is typed, a line each; without such lines the input is closed
    a line that is printed
    ...                          any lines, or none
    any part of a line: [...]    also within one
    ! a line that goes to stderr; with these the exit code is 1, else 0

Several commands in one file are several runs. What goes to stderr must stand there; it is compared in the same way.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow import Context, Workflow, WorkflowCancelledByUser, draw_all_possible_flows
from agentflow.testing import record
from agentflow_llm import Document, Passage, ScriptedModel, ToolCallPart

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
TRANSCRIPTS = Path(__file__).parent / "examples"
LONGEST = 150


@dataclass
class Session:
    """One command of a transcript, and what is expected of it."""

    command: str
    typed: list[str] = field(default_factory=list)
    printed: list[str] = field(default_factory=list)
    complained: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return self.command.removeprefix("python examples/")


def sessions_of(path: Path) -> Iterator[Session]:
    """The commands of a transcript."""
    session: Session | None = None
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("$ "):
            if session:
                yield session
            session = Session(line[2:])
            continue
        assert session, f"{path.name} begins with a command: $ python examples/{path.stem}.py"
        if line.startswith("< "):
            session.typed.append(line[2:])
        elif line.startswith("! "):
            session.complained.append(line[2:])
        else:
            session.printed.append(line)
    assert session, f"{path.name} is empty"
    yield session


def pattern(lines: list[str]) -> str:
    """A regular expression for lines in which `...` stands for any lines and `[...]` for any part of one."""
    parts = []
    for line in lines:
        anything = ".*".join(re.escape(part) for part in line.split("[...]"))
        parts.append(r"(?:.*\n)*" if line == "..." else rf"{anything}\n")
    return "".join(parts)


SESSIONS = [session for path in sorted(TRANSCRIPTS.glob("*.txt")) for session in sessions_of(path)]


@pytest.mark.parametrize("session", SESSIONS, ids=str)
def test_an_example_shows_what_its_transcript_says(session: Session, tmp_path: Path) -> None:
    python, program, *arguments = shlex.split(session.command)
    assert python == "python"
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / program), *arguments],
        input="".join(f"{line}\n" for line in session.typed),
        capture_output=True,
        encoding="utf-8",
        cwd=tmp_path,
        env={**os.environ, "PYTHONUTF8": "1"},
        check=False,
        timeout=60,
    )
    assert re.fullmatch(pattern(session.complained), done.stderr), done.stderr
    assert re.fullmatch(pattern(session.printed), done.stdout), done.stdout
    assert done.returncode == bool(session.complained)
    assert not list(tmp_path.iterdir()), "an example leaves nothing behind"


@pytest.mark.parametrize("name", ["human_in_the_loop", "research"])
def test_an_interrupt_ends_an_example_that_waits_for_a_person(name: str) -> None:
    command = [sys.executable, "-u", str(ROOT / "examples" / f"{name}.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == -signal.SIGINT


def test_every_example_has_a_transcript_and_every_transcript_an_example() -> None:
    examples = {path.stem for path in (ROOT / "examples").glob("*.py")}
    assert examples == {path.stem for path in TRANSCRIPTS.glob("*.txt")}


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_read_in_one_sitting(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST
    assert text.startswith('"""')
    assert f"python examples/{path.name}" in text
    assert f"[{path.name}]({path.name})" in (path.parent / "README.md").read_text(encoding="utf-8")


def imported(name: str) -> Any:
    """An example, as a reader gets it who lifts its workflow out."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_an_example_has_a_workflow_to_lift_out_that_can_be_drawn(path: Path, tmp_path: Path) -> None:
    module = imported(path.stem)
    own = [value for value in vars(module).values() if getattr(value, "__module__", None) == path.stem]
    workflows = [value for value in own if isinstance(value, type) and issubclass(value, Workflow)]
    assert workflows
    assert module.main in own
    for workflow in workflows:
        draw_all_possible_flows(workflow, filename=str(tmp_path / "flow.html"))


async def test_no_more_calls_go_on_at_once_than_there_are_workers() -> None:
    module = imported("parallel_execution")
    with record() as seen:
        await module.CountWords().run(titles=module.TITLES)
    calls = seen.find("step", "fetch")
    most = max(sum(one.started_at <= call.started_at < one.ended_at for one in calls) for call in calls)
    assert (len(calls), most) == (7, 3)


async def test_the_story_is_put_away_while_it_waits_and_goes_on_elsewhere() -> None:
    module = imported("human_in_the_loop")
    segments = [
        module.Segment(plot="First.", choices=["left", "right"]),
        module.Segment(plot="Last.", choices=[]),
    ]

    def write(number: int) -> Any:
        return module.WriteStory(resources={module.choose_model: ScriptedModel(segments[number])})

    handler = write(0).run(hero="somebody")
    async for event in handler.stream_events():
        if isinstance(event, module.YourTurn):
            break
    stored = handler.ctx.to_json()
    await handler.cancel_run()
    with pytest.raises(WorkflowCancelledByUser):
        await handler

    there = write(1)
    resumed = there.run(ctx=Context.from_json(there, stored))
    resumed.ctx.send_event(module.Choice(text="left"))
    assert (await resumed).parts == ["There was somebody.", "First.", "left", "Last."]


async def test_reflection_gives_up_after_so_many_attempts() -> None:
    module = imported("reflection")
    workflow = module.Extract(resources={module.choose_model: ScriptedModel(["no JSON"] * 5)})
    with pytest.raises(ValueError, match="no valid answer in 5 attempts"):
        await workflow.run(text="Nothing.")


@pytest.mark.parametrize(("verdict", "sources"), [("use", 3), ("leave out", 1)])
async def test_poor_sources_are_asked_for_together_and_judged_in_any_order(verdict: str, sources: int) -> None:
    module = imported("research")
    handler = module.Research().run(query=module.QUESTION)
    poor: list[Any] = []
    async for event in handler.stream_events():
        if isinstance(event, module.PoorSource):
            poor.append(event)
        if len(poor) == 2:
            for one in reversed(poor):
                handler.ctx.send_event(module.Verdict(title=one.title, use=verdict == "use"))
            poor.clear()
    report = await handler
    assert (len(report.used), len(report.left_out)) == (sources, 3 - sources)


@pytest.fixture(scope="module")
def judged() -> Any:
    """The module, and an object whose library is read once."""
    module = imported("judged_answers")
    texts = ["A cat sleeps all day.", "Cats hunt mice at night.", "A dog hunts what its owner hunts."]
    return module.JudgeQuery(resources={module.read_library: module.Library(texts)})


async def test_each_round_puts_one_word_right_or_leaves_it_out(judged: Any) -> None:
    with record() as seen:
        answer = await judged.run(query="Do cats hunt zzz or mise at nigt?")
    assert [step.result.query for step in seen.find("step", "improve_query")] == [
        "Do cats hunt or mise at nigt",
        "Do cats hunt or mice at nigt",
        "Do cats hunt or mice at night",
    ]
    assert answer.best.text == "Cats hunt mice at night."
    assert {response.strategy for response in answer.responses} == {"naive", "high top k", "rerank"}


@pytest.mark.parametrize(("source", "best"), [("1", "Mice."), ("3", "Cats hunt mice."), ("7", None), ("none", None)])
async def test_the_model_that_answers_is_asked_which_answer_is_best(judged: Any, source: str, best: str | None) -> None:
    module = imported("judged_answers")
    said = [module.Said(answer=text) for text in ("At night.", "Mice.", "Cats hunt mice.")]
    with ScriptedModel([*said, module.Verdict(source=source)]) as model:
        library = module.Library(["Cats hunt mice at night."])
        flow = module.JudgeQuery(resources={module.read_library: library, module.OfflineModel: model})
        answer = await flow.run(query="What do cats hunt?")
    assert (answer.best and answer.best.text) == best
    asked = model.calls[-1].messages[-1].text
    assert asked == "[1]\nMice.\n\n[2]\nAt night.\n\n[3]\nCats hunt mice.\n\nQuestion: What do cats hunt?"


async def test_a_judge_that_no_word_suits_is_asked_no_more_when_none_is_left() -> None:
    module = imported("judged_answers")

    class Grumbler(module.QueryJudge):  # type: ignore[misc, name-defined]  # because it is imported by its path
        async def unclear_word(self, query: str, documents: Any) -> str | None:
            return query.split(maxsplit=1)[0] if query else "nothing"

    library = module.Library(["Cats hunt mice at night."])
    flow = module.JudgeQuery(resources={module.read_library: library, module.QueryJudge: Grumbler()})
    answer = await flow.run(query="Catts hunt mice cats")
    assert (answer.best, {response.query for response in answer.responses}) == (None, {""})


@pytest.mark.parametrize(
    ("call", "route", "text"),
    [
        (("count", {"subject": "a cat"}), "count", "1 with 'a cat': Cats"),
        (("manual", {"query": "What is a step?"}), "manual", "What is a step?"),
    ],
)
async def test_a_route_gets_what_the_model_fills_in(call: tuple[str, Any], route: str, text: str) -> None:
    module = imported("router")

    class Echo:
        async def aretrieve(self, query: str) -> list[Passage]:
            return [Passage("echo", query, 1.0)]

    name, arguments = call
    chosen = ToolCallPart(id="call_1", name=name, arguments=json.dumps(arguments))
    articles = [Document("This is a cat.", metadata={"title": "Cats"}), Document("A dog.", metadata={"title": "Dogs"})]
    model = ScriptedModel([[chosen], "Answered."])
    flow = module.Router(resources={module.choose_model: model, module.read_articles: articles, module.manual: Echo()})
    answer = await flow.run(query="Which?")
    assert answer.route == route
    assert text in (answer.text if route == "count" else model.calls[-1].messages[-1].text)
    offered = {tool.name: list(tool.parameters["properties"]) for tool in model.calls[0].tools}
    assert offered == {"encyclopedia": ["query"], "manual": ["query"], "count": ["subject"]}


async def test_passages_that_do_not_speak_of_the_question_are_left_out() -> None:
    module = imported("parallel_search")

    class Shelf:
        async def aretrieve(self, query: str) -> list[Passage]:
            return [Passage("1", "A passage.", 1.0)]

    said = [module.Finding(quote="This."), module.Finding(), module.Finding(quote="And that.")]
    resources = {module.open_sources: dict.fromkeys(module.SOURCES, Shelf()), module.choose_model: ScriptedModel(said)}
    answers = await module.ParallelSearch(resources=resources).run(query="What?")
    assert ({remark.quote for remark in answers.remarks}, answers.read) == ({"This.", "And that."}, 3)


WORDS = ["what", "is", "a", "the", "cat", "catt", "dogs", "hunt", "platypus", "ñandú", "日本", "42", "_", "?", "İ"]


@given(question=st.text() | st.lists(st.sampled_from(WORDS)).map(" ".join))
def test_every_question_is_judged_in_the_end(judged: Any, question: str) -> None:
    assert len(judged.run_sync(query=question).responses) == 3
