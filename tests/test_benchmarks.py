"""The benchmarks: what would fail `make bench` after minutes fails here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
WHOLE = """
import importlib
from cases import CASES
from report import MULTIPLES, ROWS

assert {row.case for row in ROWS} == set(CASES)
for row in ROWS:
    case = CASES[row.case]
    for peer in {"agentflow", case.reference if row.unit in MULTIPLES else "agentflow"}:
        assert hasattr(importlib.import_module(f"peers.{peer}.{case.area}"), case.workload), (row, peer)
"""


TABLE = """
import sys
import comparison

seen, _ = comparison.look("agentflow", sys.executable)
lines = comparison.table({"agentflow": seen, "langchain": seen}).splitlines()
page = comparison.PAGE.read_text(encoding="utf-8")
written = page.partition(comparison.report.BEGIN)[2].partition(comparison.report.END)[0].strip().splitlines()
written = [line for line in written if line.startswith("|")]
first = [line.split("|")[1] for line in lines]
assert first == [line.split("|")[1] for line in written], (first, written)
of_page = [line.split("|")[2] for line in written[2:]]
assert [line.split("|")[2] for line in lines[2:]] == of_page, (lines, written)
"""


def run(*arguments: str) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("AGENTFLOW_", "OTEL_"))}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=BENCHMARKS, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_case_has_a_goal_and_what_it_is_compared_with() -> None:
    run("-c", WHOLE)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        "traced",
        "agent_traced",
        "agent_spanned",
        "client_spanned",
        "measured",
        "traced_measured",
        "sampled_measured",
    ],
)
@pytest.mark.parametrize("peer", ["agentflow", "raw"])
def test_what_is_compared_makes_the_spans_and_records_that_it_must_make(peer: str, case: str) -> None:
    run("worker.py", peer, case)


@pytest.mark.slow
def test_what_agentflow_shows_of_each_scene_is_what_the_page_says() -> None:
    run("-c", TABLE)
