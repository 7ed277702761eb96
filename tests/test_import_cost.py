"""`import agentflow` loads nothing that costs more than the engine itself. What it costs in time is benchmarked."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def loaded() -> frozenset[str]:
    """The names of all modules after `import agentflow` in a new interpreter."""
    program = "import agentflow, json, sys; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return frozenset(json.loads(done.stdout))


@pytest.mark.parametrize(
    "heavy",
    ["httpx", "httpx2", "mcp", "numpy", "openai", "opentelemetry", "starlette", "structlog", "tenacity", "uvicorn"],
)
def test_import_leaves_out(heavy: str, loaded: frozenset[str]) -> None:
    assert "agentflow" in loaded
    assert heavy not in loaded


def test_search_by_words_loads_no_numpy() -> None:
    program = (
        "import sys; from agentflow_llm import Chunk, SqliteVectorStore; store = SqliteVectorStore(); "
        "store.add_now('a', [Chunk('a:1', 'cats sleep')]); print(store.search_now('cat')[0].id, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["a:1", "False"]
