"""One repetition in a process of its own: `worker.py PEER CASE` prints what it measured as JSON.

That is null where the peer has no counterpart of the case.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import json
import os
import sys
from typing import TYPE_CHECKING

from cases import CASES

if TYPE_CHECKING:
    from cases import Metrics


async def repetition(peer: str, case_name: str) -> Metrics | None:
    """Set the case up and measure it once."""
    kind = CASES[case_name]
    workloads = importlib.import_module(f"peers.{peer}.{kind.area}")
    if not hasattr(workloads, kind.workload):
        return None
    case = kind(workloads)
    await case.set_up()
    return await case.measure()


def main() -> None:
    """Measure what the command line names."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a peer prints is no part of the answer
    peer_name, case_name = sys.argv[1:]
    metrics = asyncio.run(repetition(peer_name, case_name))
    packages = importlib.import_module(f"peers.{peer_name}").PACKAGES
    versions = {name: importlib.metadata.version(name) for name in packages}
    json.dump({"metrics": metrics, "versions": versions}, answer)


if __name__ == "__main__":
    main()
