#!/usr/bin/env python3
"""Write Grafana's dashboards. The standard library is all that it needs.

dashboards/generate.py            writes grafana/*.json anew
dashboards/generate.py --check    writes nothing; exit status 1 where a file is not what would be written
"""

# ruff: noqa: T201 because it talks to the person who runs it

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import llm_cost
import overview
import steps_queues
import tools_rag

FOLDER = Path(__file__).parent / "grafana"
BOARDS = (overview.BOARD, llm_cost.BOARD, steps_queues.BOARD, tools_rag.BOARD)


def main() -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say which files are not what would be written")
    check = parser.parse_args().check
    files = {
        FOLDER / f"{board.uid}.json": json.dumps(board.render(), indent=2, ensure_ascii=False) + "\n"
        for board in BOARDS
    }
    stale = [path for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if check:
        for path in stale:
            print(f"{path.name} is not what generate.py writes: run it, and commit what it wrote.")
        return 1 if stale else 0
    for path in stale:
        path.write_text(files[path], encoding="utf-8")
        print(f"{path.name} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
