"""`agentflow trace`: what a file of traces has, and each run of it as a tree. No server is needed."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections import Counter
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from .tracefile import UNFINISHED, Run, read, survey
from .tree import Row, drawn, duration

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from typing import TextIO

DEFAULT = "traces.jsonl"

_MOST_LISTED = 20
_SHORTEST = 8
"""Characters of a run's id that are shown."""


def trace(arguments: Sequence[str]) -> int:
    """Run `agentflow trace` with these arguments; returns the exit code."""
    options = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # no terminal is too old for a trace
    try:
        with _opened(options.file) as file:
            code = _show(file, options.file, options.run, every=options.all)
            sys.stdout.flush()
            return code
    except BrokenPipeError:  # such as by `| head`: whoever read has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        how = f' Write one by setup("file", path="{DEFAULT}"), or name another: agentflow trace FILE' if missing else ""
        return _complain(f"{options.file}: {error.strerror}.{how}")


def _show(file: TextIO, name: str, wanted: str | None, *, every: bool) -> int:
    found = survey(file)
    if found.unread:
        lines = ", ".join(map(str, found.unread[:5]))
        more = f" and {len(found.unread) - 5:,} more" if len(found.unread) > 5 else ""  # noqa: PLR2004 because five are shown
        _complain(f"{name}: no OTLP JSON in line {lines}{more}: left out")
    outer = [run for run in found.runs if not run.is_inner]
    if not found.runs:
        many = f"{found.spans:,} span{'s' * (found.spans != 1)}"
        what = f"{many}, none of a run" if found.spans else "no spans"
        return _complain(f'{name} has {what}. Runs are written by setup("file", path=...)')
    if every:
        _list(outer)
        return 0
    if wanted is None:
        shown = [run for run in found.runs if run.run_id == outer[-1].run_id]
        if len({run.run_id for run in outer}) > 1:
            _list(outer[-_MOST_LISTED:])
            _point(outer, name)
    else:
        shown = [run for run in found.runs if run.run_id.startswith(wanted)]
        if not shown:  # logs and other programs name the trace
            shown = [run for run in outer if run.trace_id.startswith(wanted.lower())]
        matching = sorted({run.run_id for run in shown})
        if not matching:
            last = ", ".join(run.run_id[:_SHORTEST] for run in outer[-5:])
            return _complain(f"{name} has no run or trace {wanted!r}. The last runs are: {last}")
        if len(matching) > 1:
            return _complain(f"{wanted!r} is the beginning of {len(matching)} runs: {', '.join(matching[:5])}")
    _draw(file, shown)
    return 0


def _list(runs: Sequence[Run]) -> None:
    """One line a run, the latest last."""
    wide = max(len(run.name) for run in runs)
    for run in runs:
        at = datetime.fromtimestamp(run.start / 1e9).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        how = run.outcome if run.segment == 1 else f"{run.outcome}, segment {run.segment}"
        print(f"{run.run_id[:_SHORTEST]}  {at}  {run.name:<{wide}}  {duration(run.end - run.start):>10}  {how}")


def _point(outer: Sequence[Run], name: str) -> None:
    """What the list leaves out, and how to see it."""
    earlier = outer[:-_MOST_LISTED]
    if earlier:
        ends = ", ".join(f"{many:,} {how}" for how, many in Counter(run.outcome for run in earlier).most_common())
        print(f"\n{len(earlier):,} earlier runs, {ends}, are not listed. All:")
        print(f"  agentflow trace {name} --all")
    print(f"\nThe latest is shown here; another by: agentflow trace {name} --run {outer[0].run_id[:_SHORTEST]}\n")


def _draw(file: TextIO, runs: Sequence[Run]) -> None:
    rows: dict[str, list[Row]] = {run.trace_id: [] for run in runs}
    titles = {run.trace_id: f"trace {run.trace_id}" for run in runs}
    for run in runs:
        if run.outcome == UNFINISHED:
            titles[run.trace_id] += f", unfinished: {run.name} still goes on, or was killed"
    file.seek(0)
    for span in read(file, rows):
        assert span.context is not None
        rows[f"{span.context.trace_id:032x}"].append(Row(span))
    for trace_id, of_trace in rows.items():
        print(drawn(of_trace, titles[trace_id], sys.stdout))


@contextmanager
def _opened(name: str) -> Generator[TextIO]:
    if name == "-":
        yield io.StringIO(sys.stdin.read())  # it is read twice
        return
    with Path(name).open(encoding="utf-8", errors="replace") as file:
        yield file


def _complain(line: str) -> int:
    sys.stdout.flush()
    print(f"agentflow trace: {line}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="agentflow trace",
        description="Show a run as a tree: what happened, how long it took and waited, what was retried, tokens, cost.",
        epilog='The file is what setup("file") writes, or a collector: OTLP JSON, one request a line.',
    )
    parser.add_argument("file", nargs="?", default=DEFAULT, metavar="FILE", help="default: %(default)s; - is stdin")
    parser.add_argument(
        "--run", metavar="ID", help="the run with this id or trace id, or the beginning of one; default: the latest"
    )
    parser.add_argument("--all", action="store_true", help="list every run, one a line, and show none")
    return parser
