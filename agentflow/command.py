"""The one command, `agentflow`. Installed packages bring its subcommands.

A subcommand is an entry point of the group "agentflow.commands": its name, and a function that takes the
arguments after the name, a list of strings, and returns the exit code.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ENTRY_POINTS = "agentflow.commands"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the subcommand that the first argument names, and return its exit code; 2 for a usage error.

    Interrupted, or cut off by who reads its output, it says nothing more: 130 and 141, as a shell has it.
    """
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
    try:
        return int(found[first].load()(rest))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:  # who reads the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter's last flush fails again
        return 128 + signal.SIGPIPE
