"""One peer, one case, one process: `worker.py PEER CASE`.

Says in a line of JSON that it is ready; then answers every line on its standard input with a repetition.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import json
import os
import sys

from cases import CASES


def main() -> None:
    """Serve repetitions until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a peer prints is no answer

    peer_name, case_name = sys.argv[1:]
    peer = importlib.import_module(f"peers.{peer_name}")
    if not hasattr(peer, CASES[case_name].workload):
        print("null", file=answers)
        return
    case = CASES[case_name](peer)
    with asyncio.Runner() as runner:
        runner.run(case.set_up())
        print(json.dumps({name: importlib.metadata.version(name) for name in peer.PACKAGES}), file=answers)
        for _ in sys.stdin:
            print(json.dumps(runner.run(case.measure())), file=answers)


if __name__ == "__main__":
    main()
