#!/usr/bin/env python3
"""Give Phoenix three questions that a person answers about an answer. The standard library is all that it needs.

dashboards/phoenix/setup_annotations.py [http://localhost:6006]

They stand beside each span and trace then ("Annotate"): a click labels it, and Phoenix adds the labels up for the
project. What is there already under these names stays as it is.
"""

# ruff: noqa: T201 because it talks to the person who runs it

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.request
from typing import Any

EXISTS = 409
QUESTIONS = {
    "correct": "Is the answer right?",
    "grounded": "Does everything in the answer stand in the documents and results that were found?",
    "right_tools": "Were the right tools called, with the right arguments, and no others?",
}


def config(name: str, question: str) -> dict[str, Any]:
    """As Phoenix wants it."""
    values = [{"label": label, "score": score} for label, score in (("yes", 1), ("partly", 0.5), ("no", 0))]
    return {
        "name": name,
        "type": "CATEGORICAL",
        "description": question,
        "optimization_direction": "MAXIMIZE",
        "values": values,
    }


def create(server: str, name: str, question: str) -> str:
    """Ask for it, and say what came of that. Raises: OSError: no Phoenix is there, or it refuses."""
    request = urllib.request.Request(  # noqa: S310 because whoever runs it names the server
        f"{server}/v1/annotation_configs",
        json.dumps(config(name, question)).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10):  # noqa: S310 because of the same
            return "created"
    except urllib.error.HTTPError as error:
        if error.code == EXISTS:
            return "was there"
        raise


def main() -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", nargs="?", default="http://localhost:6006", help="default: %(default)s")
    server = parser.parse_args().server.rstrip("/")
    try:
        for name, question in QUESTIONS.items():
            print(f"{name}: {create(server, name, question)}")
    except OSError as error:
        print(f"{server} is no Phoenix that takes this in: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
