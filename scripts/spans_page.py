#!/usr/bin/env python3
"""Prints docs/spans.md, made of the tables in `agentflow_instrumentation`: scripts/spans_page.py > docs/spans.md."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from agentflow_instrumentation.conventions import ATTRIBUTES, CONVENTIONS
from agentflow_instrumentation.names import ERROR_TYPE, OPERATION, OUTCOME, SPAN_KIND

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from agentflow_instrumentation.conventions import Attribute

HEAD = """\
# Spans

<!-- Made by scripts/spans_page.py. -->

What each span has, must have and never has. The tables are in `agentflow_instrumentation.conventions`, all spans of
agentflow's own tests are checked against them, and so can yours be: `check(span)` says in words what is wrong with one,
`check_trace(spans)` with all of a trace.
"""
RULES = f"""\
- `{SPAN_KIND}` and `{OUTCOME}` are on every span.
- The status is ERROR, and `{ERROR_TYPE}` is there, when the outcome is `error`, `timeout` or `retried`; else the
  status is unset, also of what was cancelled.
- A step links to each event that triggered it, to 128 at most. A run links to the segment that it goes on from, and to
  the span in which it was started when it is not inside of that.
- What the engine, clients and tools note at a moment is an event of the span, named `agentflow.` and the note; an error
  is an event `exception`. Of each note there are 32 at most.
- Spans and events may have more under names that are not ours: your code can put something on the current span.
"""
CALLS = frozenset(CONVENTIONS) - {"event"}
TYPES = {str: "text", tuple: "texts", int: "int", float: "float", bool: "bool"}


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, "## Kinds\n", *_kinds(), "", RULES, "## Attributes\n", LEGEND, *_attributes(), ""])


LEGEND = """\
Those that are marked *content* go out only when you let content out; a name in bold is on every span of that kind.
`N` is a number, from 0.
"""


def _kinds() -> Iterator[str]:
    yield "| span | kind | in Phoenix | operation | inside of | ends as | events |"
    yield "|---|---|---|---|---|---|---|"
    for one in CONVENTIONS.values():
        name = f"`{one.name}`" if one.named_by is None else f"`{one.name} {{{one.named_by}}}`"
        inside = "anything" if one.parents >= CALLS else _listed(parent or "anything else" for parent in one.parents)
        operation = f"`{one.operation}`" if one.operation else ""
        cells = name, one.span_kind, one.shown_as, operation, inside, _listed(one.outcomes), _listed(one.events)
        yield f"| {' | '.join(cells)} |"


def _attributes() -> Iterator[str]:
    yield "| attribute | type | of | is |"
    yield "|---|---|---|---|"
    for known in ATTRIBUTES.values():
        values = (
            f": {', '.join(f'`{value}`' for value in known.values)}" if known.values and known.name != OUTCOME else ""
        )
        content = ", *content*" if known.content else ""
        yield f"| `{known.name}` | {TYPES[known.type]}{content} | {_carriers(known)} | {known.means}{values} |"


def _carriers(known: Attribute) -> str:
    must = [name for name, one in CONVENTIONS.items() if known.name in one.required]
    may = [name for name, one in CONVENTIONS.items() if known.name in one.optional]
    if len(must) == len(CONVENTIONS):
        return "**all**"
    if len(may) == len(CONVENTIONS):
        return "all"
    if known.name == OPERATION:
        return "where the table above has one"
    without = [name for name in CONVENTIONS if name not in must and name not in may]
    bold = [f"**{name}**" for name in must]
    if not must and len(without) <= 3:  # noqa: PLR2004 because more are better named the other way
        return f"all but {', '.join(without)}"
    if len(must) + len(may) == len(CONVENTIONS):
        return f"{', '.join(bold)}, all others"
    return ", ".join([*bold, *may]) or "events and links"


def _listed(words: Iterable[str]) -> str:
    return ", ".join(sorted(words))


if __name__ == "__main__":
    sys.stdout.write(page())
