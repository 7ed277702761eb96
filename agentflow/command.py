"""The one command, `agentflow`. Installed packages bring its subcommands.

A subcommand is an entry point of the group "agentflow.commands": its name, and a function that takes the
arguments after the name, a list of strings, and returns the exit code.
"""

from __future__ import annotations

import sys
from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ENTRY_POINTS = "agentflow.commands"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the subcommand that the first argument names, and return its exit code; 2 for a usage error."""
    first, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    found = {entry.name: entry for entry in metadata.entry_points(group=ENTRY_POINTS)}
    if first in {"-h", "--help"}:
        print(f"usage: agentflow COMMAND ...\n\ncommands: {', '.join(sorted(found))}")
        print("\n`agentflow COMMAND --help` says what a command takes.")
        return 0
    if first not in found:
        known = ", ".join(map(repr, sorted(found))) or "none is installed"
        print(f"agentflow: there is no command {first!r}. The commands are: {known}.", file=sys.stderr)
        return 2
    return int(found[first].load()(rest))
