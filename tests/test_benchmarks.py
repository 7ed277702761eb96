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


def run(*arguments: str) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("AGENTFLOW_", "OTEL_"))}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=BENCHMARKS, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_case_has_a_goal_and_what_it_is_compared_with() -> None:
    run("-c", WHOLE)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["traced", "agent_traced"])
@pytest.mark.parametrize("peer", ["agentflow", "raw"])
def test_what_is_compared_makes_the_spans_that_it_must_make(peer: str, case: str) -> None:
    run("worker.py", peer, case)
