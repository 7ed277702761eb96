"""The demo answers from this repository's documents, shows what it does, and says so when it cannot answer."""

from __future__ import annotations

import importlib.util
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.testing import record

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
PROGRAM = ROOT / "examples" / "judged_answers.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the demo as `make demo` does."""
    command = [sys.executable, "-W", "error", str(PROGRAM), *arguments]
    utf8 = {**os.environ, "PYTHONUTF8": "1"}
    return subprocess.run(command, capture_output=True, encoding="utf-8", env=utf8, check=False, timeout=60)


@pytest.fixture(scope="module")
def demo() -> Any:
    """The demo, imported."""
    spec = importlib.util.spec_from_file_location("judged_answers", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def index(demo: Any) -> Iterator[Any]:
    """Five passages."""
    passages = [
        demo.Passage("zoo.md:1", "Cats", "A cat sleeps all day."),
        demo.Passage("zoo.md:3", "Cats", "Cats hunt mice at night."),
        demo.Passage("zoo.md:5", "Dogs", "A dog hunts what its owner hunts."),
        demo.Passage("zoo.md:7", "Is it", "Platypus."),
        demo.Passage("farm.md:1", "Mice", "Mice eat the grain."),
    ]
    with closing(sqlite3.connect(":memory:", check_same_thread=False)) as db:
        yield demo.Index(db, passages)


def test_the_demo_shows_the_loop_the_three_strategies_and_the_judge() -> None:
    """The picture of the tutorial, as verbose output."""
    done = run()
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    told = [line for line in done.stdout.splitlines() if line.startswith(("Running", "Step"))]
    improved = told.index("Step judge_query produced event NaiveRAGEvent") - 1
    assert told[:5] == [
        "Running step judge_query",
        "Step judge_query produced event BadQueryEvent",
        "Running step improve_query",
        "Step improve_query produced event JudgeEvent",
        "Running step judge_query",
    ]
    assert told[improved:] == [
        "Running step judge_query",
        "Step judge_query produced event NaiveRAGEvent",
        "Step judge_query produced event HighTopKEvent",
        "Step judge_query produced event RerankEvent",
        "Running step naive_rag",
        "Step naive_rag produced event ResponseEvent",
        "Running step high_top_k",
        "Step high_top_k produced event ResponseEvent",
        "Running step rerank",
        "Step rerank produced event ResponseEvent",
        "Running step judge_response",
        "Step judge_response produced no event",
        "Running step judge_response",
        "Step judge_response produced no event",
        "Running step judge_response",
        "Step judge_response produced event Answer",
    ]


def test_an_answer_stands_where_the_demo_says() -> None:
    """The source that is printed is a line of a document, and that line is the answer's first."""
    done = run("What does a bug fix start with?")
    assert done.returncode == 0, done.stderr
    source = done.stdout.partition("The judge picks ")[2].partition(": ")[2].split(",")[0]
    path, _, line = source.partition(":")
    first = (ROOT / path).read_text(encoding="utf-8").splitlines()[int(line) - 1]
    assert f"word for word:\n\n    {first}\n" in done.stdout
    assert "bug fix starts" in first


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("", "No answer to '': there are no words in it.\n"),
        ("?!", "No answer to '?!': there are no words in it.\n"),
        ("What is it?", "No answer to 'What is it?': no document has any of its words.\n"),
        ("Xylophone zeppelins?", "No answer to 'Xylophone zeppelins?': no document has any of its words.\n"),
    ],
)
def test_a_question_without_an_answer_ends_with_one_line(question: str, reason: str) -> None:
    """No traceback, and an exit code that says so."""
    done = run(question)
    assert done.returncode == 1
    assert done.stderr == reason


def test_the_demo_draws_all_flows_and_this_run(demo: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both pages are written, and said where; what did not run is not in the drawing of the run."""
    demo.main("retry policy", tmp_path / "drawn")
    every = (tmp_path / "drawn" / "all_flows.html").read_text(encoding="utf-8")
    recent = (tmp_path / "drawn" / "this_run.html").read_text(encoding="utf-8")
    assert "improve_query" in every
    assert "improve_query" not in recent
    for name in ("judge_query", "naive_rag", "high_top_k", "rerank", "judge_response"):
        assert name in every
        assert name in recent
    assert "drawn/all_flows.html, drawn/this_run.html" in capsys.readouterr().out


async def test_each_round_of_the_loop_removes_one_problem(demo: Any, index: Any) -> None:
    """Filler words go, a misspelt word is put right, a single word gets company."""
    with record() as seen:
        answer = await demo.JudgeQuery(resources={demo.read_documents: index}).run(query="What is a catt?")
    assert [step.result.problem for step in seen.find("step", "judge_query")[:-1]] == ["wordy", "unknown", "vague"]
    assert [step.result.query for step in seen.find("step", "improve_query")] == ["catt", "cat", "cat cats"]
    assert answer.responses[0].passage.heading == "Cats"


async def test_a_question_that_gets_no_better_is_given_up(demo: Any, index: Any) -> None:
    """Here the heading that keeps the only word company is all filler: without a bound the loop would go on."""
    with pytest.raises(demo.UnanswerableError, match="no better in 5 rounds"):
        await demo.JudgeQuery(resources={demo.read_documents: index}).run(query="platypus")


async def test_the_best_response_has_most_words_and_most_votes(demo: Any, index: Any) -> None:
    """Three responses, sorted by a score that two facts make up."""
    answer = await demo.JudgeQuery(resources={demo.read_documents: index}).run(query="dogs hunt mice")
    assert {response.strategy for response in answer.responses} == {"naive", "high top k", "rerank"}
    scores = [response.score for response in answer.responses]
    assert scores == sorted(scores, reverse=True)
    sources = [response.passage.source for response in answer.responses]
    for response in answer.responses:
        votes = sources.count(response.passage.source) / 3
        assert response.score == (index.support("dogs hunt mice", response.passage) + votes) / 2


WORDS = ["what", "is", "a", "the", "cat", "catt", "dogs", "hunt", "platypus", "ñandú", "日本", "42", "_", "?"]


@given(question=st.text() | st.lists(st.sampled_from(WORDS)).map(" ".join))
def test_every_question_is_answered_or_refused(demo: Any, index: Any, question: str) -> None:
    """Whatever is asked, the loop ends, and with one of two outcomes."""
    try:
        answer = demo.JudgeQuery(resources={demo.read_documents: index}).run_sync(query=question)
    except demo.UnanswerableError:
        return
    assert len(answer.responses) == 3


def test_a_document_is_split_into_paragraphs_items_rows_and_code(demo: Any) -> None:
    """What says too little, and what only asks, is left out."""
    text = """# Cats

A cat sleeps all day.
And all night.

- A dog barks at night.
- A dog
  barks by day, too.
- Short.

| question | answer |
|---|---|
| how long a cat sleeps | all day |

```sh
make a cat sleep     # by day

make a dog bark      # by night
```
## Demo
`make demo QUESTION="When does a cat sleep?"` asks it.
"""
    assert [tuple(passage) for passage in demo.passages_of("zoo.md", text)] == [
        ("zoo.md:3", "Cats", "A cat sleeps all day.\nAnd all night."),
        ("zoo.md:6", "Cats", "- A dog barks at night."),
        ("zoo.md:7", "Cats", "- A dog\n  barks by day, too."),
        ("zoo.md:13", "Cats", "| how long a cat sleeps | all day |"),
        ("zoo.md:16", "Cats", "make a cat sleep     # by day\n\nmake a dog bark      # by night"),
    ]


PIECES = ["says a lot of things", "word", "\n", "\n\n", "# ", "- ", "| ", "```\n", "  "]


@given(text=st.lists(st.sampled_from(PIECES)).map("".join))
def test_passages_are_parts_of_the_document_at_their_lines(demo: Any, text: str) -> None:
    """Nothing is invented, and each passage begins on the line that its source names."""
    lines = text.splitlines()
    for passage in demo.passages_of("zoo.md", text):
        start = int(passage.source.removeprefix("zoo.md:")) - 1
        block = passage.text.split("\n")
        assert lines[start : start + len(block)] == block
