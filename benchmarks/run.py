"""Run the benchmarks: `make bench`, or `.venv/bin/python benchmarks/run.py` with options. README.md says how."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import report
from cases import CASES
from environments import PEERS, ROOT, python_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cases import Metrics

HERE = Path(__file__).parent
README = HERE / "README.md"
MOST_REPETITIONS = {peer: 3 for peer in PEERS if peer != "agentflow"}
"""They take seconds where agentflow takes milliseconds, and their factors are large."""
QUICK_REPETITIONS = {**dict.fromkeys(PEERS, 1), "agentflow": 3}
PATIENCE = 300.0

# Workers run as a user's program would: with cached bytecode, whatever this shell says.
ENVIRON = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("AGENTFLOW_", "OTEL_", "PYTHON"))},
    "PYTHONHASHSEED": "0",
}


def repeat(
    python: str, peer: str, case: str, environ: Mapping[str, str] | None = None
) -> tuple[Metrics | None, dict[str, str]]:
    """One repetition, and the versions that ran. None: the peer has no counterpart of the case."""
    command = [python, str(HERE / "worker.py"), peer, case]
    env = {**ENVIRON, **(environ or {})}
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, env=env, timeout=PATIENCE, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise SystemExit(f"{peer} failed at {case}: {error}") from None
    answer = json.loads(done.stdout)
    return answer["metrics"], answer["versions"]


def run_case(case: str, pythons: dict[str, str], *, quick: bool) -> tuple[report.ByPeer, dict[str, str]]:
    """Take each peer through the case beside the reference, in turns. Also says which versions ran."""
    results: report.ByPeer = {}
    versions: dict[str, str] = {}
    kind = CASES[case]
    there = {peer: python for peer, python in pythons.items() if (HERE / "peers" / peer / f"{kind.area}.py").exists()}
    for i in range(kind.repetitions):
        for peer, python in there.items():
            most = QUICK_REPETITIONS[peer] if quick else MOST_REPETITIONS.get(peer)
            if (most is not None and i >= most) or (i and results[peer] is None):
                continue
            metrics, of_peer = repeat(python, peer, case)
            versions |= of_peer
            measured = results.setdefault(peer, None if metrics is None else report.Measured())
            if measured and metrics is not None:
                measured.peer.append(metrics)
                reference, _ = repeat(python, kind.reference, case, kind.reference_environ)
                measured.reference.append(reference or {})
    return results, versions


def main() -> None:
    """Run the cases that the command line names, print their figures, write the table."""
    parser = argparse.ArgumentParser(description="Measure agentflow beside the same work by hand and its peers.")
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
