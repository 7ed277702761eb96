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
from typing import TYPE_CHECKING, Any

from cases import CASES

if TYPE_CHECKING:
    from cases import Metrics


async def repetition(peer: Any, case_name: str) -> Metrics | None:
    """Set the case up and measure it once."""
    if not hasattr(peer, CASES[case_name].workload):
        return None
    case = CASES[case_name](peer)
    await case.set_up()
    return await case.measure()


def main() -> None:
    """Measure what the command line names."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a peer prints is no part of the answer
    peer_name, case_name = sys.argv[1:]
    peer = importlib.import_module(f"peers.{peer_name}")
    metrics = asyncio.run(repetition(peer, case_name))
    versions = {name: importlib.metadata.version(name) for name in peer.PACKAGES}
    json.dump({"metrics": metrics, "versions": versions}, answer)


if __name__ == "__main__":
    main()
