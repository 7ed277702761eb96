"""Run the benchmarks: `make bench`, or `.venv/bin/python benchmarks/run.py` with options. README.md says how."""

from __future__ import annotations

import argparse
import json
import os
import platform
import select
import subprocess
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import report
from cases import CASES
from environments import PEERS, ROOT, python_of

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from cases import Metrics

HERE = Path(__file__).parent
README = HERE / "README.md"
REFERENCE = "raw"
MOST_REPETITIONS = {"llamaindex": 3}
"""It takes seconds where the others take milliseconds, and its factors are large."""
QUICK_REPETITIONS = {"agentflow": 3, "llamaindex": 1}
PATIENCE = 300.0

# Workers run as a user's program would: with cached bytecode, whatever this shell says.
ENVIRON = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("AGENTFLOW_", "OTEL_", "PYTHON"))},
    "PYTHONHASHSEED": "0",
}


class Worker:
    """A process that repeats one case of one peer on request."""

    def __init__(self, python: str, peer: str, case: str) -> None:
        self._what = f"{peer}, {case}"
        self._command = [python, str(HERE / "worker.py"), peer, case]
        self._fresh = CASES[case].fresh
        self._used = False
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRON)
        self.versions: dict[str, str] | None = self._answer()
        """What it runs with; None where the peer has no counterpart of the case."""

    def repeat(self) -> Metrics:
        """One repetition, in a new process where the case asks for it."""
        if self._fresh and self._used:
            self.close()
            self._start()
        self._used = True
        assert self._process.stdin
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        metrics: Metrics = self._answer()
        return metrics

    def _answer(self) -> Any:
        assert self._process.stdout
        if not select.select([self._process.stdout], [], [], PATIENCE)[0]:
            raise SystemExit(f"{self._what}: no answer in {PATIENCE:g} s")
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._what}: the process ended early; its error is above")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def run_case(case: str, pythons: dict[str, str], *, quick: bool) -> tuple[report.ByPeer, dict[str, str]]:
    """Take each peer through the case beside the reference. Also says which versions ran."""
    results: report.ByPeer = dict.fromkeys(pythons)
    versions: dict[str, str] = {}
    with ExitStack() as stack:
        pairs: dict[str, tuple[Worker, Worker]] = {}
        for peer, python in pythons.items():
            worker = stack.enter_context(Worker(python, peer, case))
            if worker.versions is not None:
                versions |= worker.versions
                pairs[peer] = worker, stack.enter_context(Worker(python, REFERENCE, case))
                results[peer] = report.Measured()
        for i in range(CASES[case].repetitions):
            for peer, (worker, reference) in pairs.items():
                most = QUICK_REPETITIONS[peer] if quick else MOST_REPETITIONS.get(peer)
                measured = results[peer]
                if measured is None or (most is not None and i >= most):
                    continue
                measured.reference.append(reference.repeat() if reference.versions is not None else {})
                measured.peer.append(worker.repeat())
    return results, versions


def main() -> None:
    """Run the cases that the command line names, print their figures, write the table."""
    parser = argparse.ArgumentParser(description="Measure agentflow beside asyncio by hand and llama-index-workflows.")
    parser.add_argument("--case", nargs="+", choices=CASES, metavar="NAME", help=f"of: {', '.join(CASES)}")
    parser.add_argument("--peer", nargs="+", choices=PEERS, metavar="NAME", help=f"of: {', '.join(PEERS)}")
    parser.add_argument("--quick", action="store_true", help="few repetitions")
    parser.add_argument("--no-write", action="store_true", help="leave the table in README.md as it is")
    parser.add_argument("--venvs", type=Path, default=ROOT / ".bench" / "venvs", metavar="DIR", help="environments")
    options = parser.parse_args()

    pythons = {peer: python_of(peer, options.venvs) for peer in options.peer or PEERS}
    results: dict[str, report.ByPeer] = {}
    versions = {"Python": platform.python_version()}
    for case in options.case or CASES:
        results[case], with_versions = run_case(case, pythons, quick=options.quick)
        versions |= with_versions
        for line in report.lines(case, results[case]):
            print(line, flush=True)

    # A table is one whole run: rows of different days and machines would not bear comparing.
    if not (options.case or options.peer or options.quick or options.no_write):
        names = ", ".join(f"{name} {version}" for name, version in versions.items())
        day = datetime.now(UTC).date()
        caption = f"{day}, {os.cpu_count()} cores of {platform.machine()}, {names}."
        text = report.put_between_markers(README.read_text(encoding="utf-8"), f"{caption}\n\n{report.table(results)}")
        README.write_text(text, encoding="utf-8")
        print(f"The table is in {README.relative_to(ROOT)}.")


if __name__ == "__main__":
    main()
