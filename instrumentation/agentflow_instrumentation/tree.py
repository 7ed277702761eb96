"""A trace as a tree of text, short enough to be read: what happened, how long it took, why, and what went wrong.

An event is no line of its own: the step that took it says `<- sender:Event` and how long it waited. Nor is a step
that collects and has not got all yet, where nothing else happened in it. Long rows of equal siblings are folded.
"""

from __future__ import annotations

import os
import re
import shutil
import textwrap
from collections import Counter
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

from agentflow import observe

from . import names

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import TextIO

    from opentelemetry.sdk.trace import ReadableSpan

WIDTH = 110

_NARROWEST = 60

_LABEL = 52
_LEAST = 28
"""Columns that a label has, however deep it stands."""
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What would steer the terminal, or tear a line."""
_FRAME = re.compile(r'File "([^"\n]+)", line (\d+), in (\S+)')
_OURS = re.compile(r"[/\\](?:site-packages|python3\.\d+|agentflow_(?:agents|llm|instrumentation))[/\\]")
_ENGINE = str(Path(observe.__file__).parent)
_DEEPEST = 40
"""Levels that are indented."""
_UNTOLD = 250
"""Levels that are shown."""
_MOST_LINES = 3
"""Of a problem that has no room beside the rest."""
_MOST_CHILDREN = 24
_ROW = 5
_SHOWN = 2
_CENT = 0.01
_WAIT = 100_000
"""Nanoseconds in a queue that are worth a word."""
_EVENT, _COLLECT = "event ", "collecting"
_RETRY, _FALLBACK = map(names.note_event, ("retry", "fallback"))
_REMARKS = {names.note_event("repair"): "repair", names.note_event("order_kept"): "order kept"}
_CALLS = {
    names.CALLS_FAILED: "failed",
    names.CALLS_LATE: "timed out",
    names.CALLS_REFUSED: "refused",
    names.CALLS_SKIPPED: "skipped",
}
_RESET, _DIM, _RED, _YELLOW = "\x1b[0m", "\x1b[2m", "\x1b[31m", "\x1b[33m"
_LINES = {
    True: ("├─ ", "└─ ", "│  ", "…", "←", "\N{MULTIPLICATION SIGN}"),
    False: ("|- ", "`- ", "|  ", "...", "<-", "x"),
}


class Row:
    """What the tree shows of one span: made when the span ends, so that the span can go."""

    __slots__ = (
        "caused",
        "details",
        "end",
        "id",
        "label",
        "notes",
        "outcome",
        "parent",
        "place",
        "problem",
        "retries",
        "said",
        "spent",
        "start",
        "sure",
    )

    def __init__(self, span: ReadableSpan) -> None:
        context, given = span.context, span.attributes or {}
        assert context is not None
        self.id = context.span_id
        self.parent = None if span.parent is None else span.parent.span_id
        self.start = span.start_time or 0
        self.end = span.end_time or self.start
        self.outcome = str(given.get(names.OUTCOME, "ok"))
        attempt = given.get(names.ATTEMPT, 1)
        self.label = f"{span.name} (attempt {attempt})" if attempt != 1 else span.name
        self.caused = [link.context.span_id for link in span.links]
        self.notes = list(_notes(span))
        """What happened to a call, each as a title and a text."""
        self.problem = _problem(span, given, self.outcome, self.notes)
        self.place = _place(span) if self.problem.startswith("error") else ""
        """Where in code that is not ours the error came up."""
        self.retries = sum(title.startswith("retry ") for title, _ in self.notes)
        if names.STEP in given:  # a step's retry is told with its problem
            self.notes = []
        self.spent = _spent(given)
        """Of a call of a model: tokens sent, tokens answered, dollars."""
        self.details = [detail for detail in _details(span, given) if detail]
        self.said = [
            _one_line(str(given[key]))
            for key in (names.TOOL_ARGUMENTS, names.QUERY, names.RERANK_QUERY)
            if key in given
        ]
        """What somebody else has written, to be shown as it stands."""
        self.sure = bool(self.problem or self.notes)
        """Is it never folded?"""


def _spent(given: Mapping[str, Any]) -> tuple[int, int, float] | None:
    if given.get(names.OPERATION) not in {"chat", "embeddings"}:
        return None
    sent, answered = int(given.get(names.INPUT_TOKENS, 0)), int(given.get(names.OUTPUT_TOKENS, 0))
    return sent, answered, float(given.get(names.LLM_COST, 0.0))


def _notes(span: ReadableSpan) -> Iterable[tuple[str, str]]:
    retries = 0
    for event in span.events:
        facts: Mapping[str, Any] = event.attributes or {}
        if event.name == _RETRY:
            retries += 1
            wait = duration(float(facts.get(names.RETRY_WAIT, 0.0)) * 1e9)
            yield f"retry {retries}", f"after {wait}: {_why(facts)}"
        elif event.name == _FALLBACK:
            to = _one_line(str(facts.get(names.note_fact("fallback", "to")) or "the next model"))
            yield "fallback", f"to {to}: {_why(facts)}"
        elif event.name in _REMARKS:
            yield _REMARKS[event.name], _why(facts)


def _problem(span: ReadableSpan, given: Mapping[str, Any], outcome: str, notes: list[tuple[str, str]]) -> str:
    if outcome == "retried" and notes:
        return f"retried {notes[-1][1]}"
    if span.status.status_code.name == "ERROR" or outcome in {"error", "timeout"}:
        why = span.status.description or str(given.get(names.ERROR_TYPE, ""))
        return f"{'timeout' if outcome == 'timeout' else 'error'}: {' '.join(why.split())}".rstrip(": ")
    if outcome in {"cancelled", "suspended", "dropped"}:
        return outcome
    return ""


def _place(span: ReadableSpan) -> str:
    for event in span.events:
        if event.name == names.EXCEPTION_EVENT:
            stack = str((event.attributes or {}).get(names.EXCEPTION_STACK, ""))
            for path, line, where in reversed(_FRAME.findall(stack)):
                if not _OURS.search(path) and not path.startswith((_ENGINE, "<")):
                    return f" (in {where}, {PureWindowsPath(path).name}:{line})"
    return ""


def _why(facts: Mapping[str, Any]) -> str:
    why = str(facts.get(names.EXCEPTION_MESSAGE) or "")
    kind = str(facts.get(names.ERROR_TYPE, "error")).rpartition(".")[2]
    status = f" ({facts[names.HTTP_STATUS]})" if names.HTTP_STATUS in facts else ""
    return f"{kind}{status}{f': {_one_line(why)}' if why else ''}"


def _details(span: ReadableSpan, given: Mapping[str, Any]) -> Iterable[str]:
    if int(given.get(names.SEGMENT, 1)) > 1:
        yield f"segment {given[names.SEGMENT]}"
    yield _causes(given)
    wait = float(given.get(names.QUEUE_WAIT, 0.0)) * 1e9
    if wait >= _WAIT:
        yield f"waited {duration(wait)}"
    yield _paused(span)
    if given.get(names.OUTCOME) == _COLLECT:
        yield "not all has come"
    yield from _asked(given)
    yield from _ended(given)
    yield from _answer(given)
    yield from _found(given)
    if names.STREAMED in given:
        yield f"{_many(given[names.STREAMED], 'event')} streamed"


def _causes(given: Mapping[str, Any]) -> str:
    """What caused a step, as `<- sender:Event`."""
    said = [str(one).rpartition(" ")[0] for one in given.get(names.TRIGGERED_BY, ())]
    if not said:
        return ""
    counts = Counter(said)
    total = int(given.get(names.COLLECTED, len(said)))
    if len(counts) == 1:
        return f"<- {f'{total:,} x ' if total > 1 else ''}{said[0]}"
    shown = ", ".join(f"{f'{many} x ' if many > 1 else ''}{name}" for name, many in counts.items())
    return f"<- {shown}{f' and {total - len(said):,} more' if total > len(said) else ''}"


def _paused(span: ReadableSpan) -> str:
    begun, paused, kind = 0, 0, ""
    for event in span.events:
        if event.name == "agentflow.waiting":
            begun, kind = event.timestamp, str((event.attributes or {}).get("agentflow.waiting.type", "event"))
        elif event.name == "agentflow.answered" and begun:
            paused, begun = paused + event.timestamp - begun, 0
    if begun:
        return f"waiting for {kind}"
    return f"{duration(paused)} of it waiting for {kind}" if paused else ""


def _asked(given: Mapping[str, Any]) -> Iterable[str]:
    """What a step asks a person, or what the person said."""
    if tools := given.get(names.ASKED_TOOLS):
        yield f"asks for approval of {', '.join(map(str, tools))}"
    elif asked := given.get(names.ASKED):
        yield f"asks {', '.join(map(str, asked))}"
    if names.APPROVAL in given:
        yield str(given[names.APPROVAL])


def _ended(given: Mapping[str, Any]) -> Iterable[str]:
    """How an agent came to its end, where that is not its answer, and what became of its calls."""
    if (by := given.get(names.STOPPED_BY, "answer")) != "answer":
        yield f"stopped by {by}"
    wrong = [f"{given[key]:,} {what}" for key, what in _CALLS.items() if given.get(key)]
    if wrong:
        yield f"tool calls: {', '.join(wrong)}"


def _answer(given: Mapping[str, Any]) -> Iterable[str]:
    """What a model call came to."""
    if names.TEXT_COUNT in given:
        size = given.get(names.DIMENSIONS)
        yield f"{_many(given[names.TEXT_COUNT], 'text')}{f' x {size:,}' if size else ''}"
    if given.get(names.LLM_CACHE_HIT):
        yield "from the cache"
    yield _tokens(given)
    if given.get(names.USAGE_MISSING) and names.SERVER_ADDRESS in given:
        yield "tokens are not known"
    if names.LLM_COST in given:
        yield dollars(float(given[names.LLM_COST]))
    if names.FIRST_CHUNK in given:
        yield f"first after {duration(given[names.FIRST_CHUNK] * 1e9)}"
    if names.LLM_LIMIT_WAIT in given:
        yield f"{duration(given[names.LLM_LIMIT_WAIT] * 1e9)} of it waiting for the rate limit"


def _found(given: Mapping[str, Any]) -> Iterable[str]:
    """What a look into documents or a memory came to."""
    if names.DOCUMENT_COUNT in given:
        yield _many(given[names.DOCUMENT_COUNT], "document")
    if names.RERANK_GIVEN in given:
        yield f"{_many(given[names.RERANK_GIVEN], 'document')} -> {_count(given.get(names.RERANK_KEPT))}"
    for key in (names.MEMORY_GIVEN, names.MEMORY_GOT):
        if key in given:
            yield _many(given[key], "message")
    if names.MEMORY_TRIMMED in given:
        yield f"{given[names.MEMORY_TRIMMED]:,} left out"


def _tokens(given: Mapping[str, Any]) -> str:
    sent, answered = given.get(names.INPUT_TOKENS), given.get(names.OUTPUT_TOKENS)
    if sent is None and answered is None:
        return ""
    cached, thought = given.get(names.CACHE_READ_TOKENS), given.get(names.REASONING_TOKENS)
    if names.TEXT_COUNT in given:
        return f"{_count(sent)} tokens"
    said = f"{_count(sent)}{f' ({cached:,} cached)' if cached else ''} -> {_count(answered)}"
    calls = given.get(names.CHAT_TOOL_CALLS)
    more = f", {_many(calls, 'tool call')}" if calls else ""
    return f"{said}{f' ({thought:,} reasoning)' if thought else ''} tokens{more}"


def _count(tokens: int | None) -> str:
    return "?" if tokens is None else f"{tokens:,}"


def _many(number: Any, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _one_line(text: str) -> str:
    return " ".join(text[: WIDTH * 4].split())


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def duration(ns: float) -> str:
    """A time in nanoseconds as one reads it: 0.8 ms, 1.24 s, 3 min 20 s, 5 h 2 min, 3 d 4 h."""
    ms = ns / 1e6
    if ms < 0.1:  # noqa: PLR2004 because the steps are those of the text
        return f"{ns / 1e3:.0f} us"
    if ms < 1000:  # noqa: PLR2004 because as above
        return f"{ms:.1f} ms" if ms < 100 else f"{ms:.0f} ms"  # noqa: PLR2004 because as above
    if ms < 60_000:  # noqa: PLR2004 because as above
        return f"{ms / 1000:.2f} s"
    minutes, seconds = divmod(round(ms / 1000), 60)
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes} min {seconds} s"
    days, within = divmod(hours, 24)
    return f"{days:,} d {within} h" if days else f"{hours} h {minutes} min"


def dollars(cost: float) -> str:
    """A cost as one reads it."""
    return f"${cost:.2g}" if not 0 < cost < _CENT / 100 else f"less than ${_CENT / 100:g}"


def totals(rows: Iterable[Row]) -> str:
    """What the calls of models in a trace took together, and how often something was tried again."""
    spent = [row.spent for row in rows if row.spent is not None]
    sent, answered, cost = (sum(column) for column in zip(*spent, strict=True)) if spent else (0, 0, 0.0)
    retries = sum(row.retries for row in rows)
    said = [_many(len(spent), "model call")] if spent else []
    if sent or answered:
        said.append(f"{sent:,} -> {answered:,} tokens")
    if cost:
        said.append(dollars(cost))
    if retries:
        said.append(f"{retries:,} {'retry' if retries == 1 else 'retries'}")
    return ", ".join(said)


def drawn(rows: Sequence[Row], title: str, file: TextIO) -> str:
    """A trace as text for `file`: as wide and as colourful as a terminal is; plain elsewhere."""
    terminal = file.isatty()
    columns = shutil.get_terminal_size((WIDTH, 0)).columns if terminal else WIDTH
    colours = terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    unicode = (getattr(file, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf")
    tree = Tree(rows, width=max(_NARROWEST, columns), colours=colours, unicode=unicode)
    total = totals(rows)
    return "\n".join([f"{title}  {total}" if total else title, *tree.lines(), ""])


class Tree:
    """Draws the rows of one trace."""

    def __init__(self, rows: Sequence[Row], *, width: int = WIDTH, colours: bool = False, unicode: bool = True) -> None:
        self._width = width
        self._colours = colours
        self._fork, self._last, self._bar, self._more, self._from, self._times = _LINES[unicode]
        taken = {cause for row in rows for cause in row.caused}
        fired = {(row.parent, row.label) for row in rows if row.outcome != _COLLECT}
        untold = {
            row.id
            for row in rows
            if not row.sure
            and (
                (row.label.startswith(_EVENT) and row.id in taken)
                # the step that has collected all says how many there were
                or (row.outcome == _COLLECT and (row.parent, row.label) in fired)
            )
        }
        untold -= {row.parent for row in rows if row.id not in untold}  # what happened in a step stands below it
        shown = [row for row in rows if row.id not in untold]
        known = {row.id for row in shown}
        self._children: dict[int | None, list[Row]] = {}
        for row in sorted(shown, key=lambda row: row.start):
            self._children.setdefault(row.parent if row.parent in known else None, []).append(row)
        self._lines: list[tuple[str, ...]] = []
        """Of each line: the label, how long it took, details, the problem, the outcome."""
        self._wide = _LABEL

    def lines(self) -> list[str]:
        """The tree, line by line."""
        for one in self._folded(self._children.get(None, ())):
            if isinstance(one, Row):
                self._add(one, "", "", 0)
            else:
                self._fold("", one)
        self._lines = [tuple(_UNSEEN.sub(_escaped, part) for part in line) for line in self._lines]
        wide = min(self._wide, max((len(first) for first, *_ in self._lines), default=0))
        self._width += max(0, wide - _LABEL)
        return [line for parts in self._lines for line in self._line(wide, *parts)]

    def _add(self, row: Row, before: str, below: str, depth: int) -> None:
        self._wide = max(self._wide, len(before) + _LEAST)
        children = self._children.get(row.id, ())
        bar = self._bar if children else "   "
        problem = row.problem
        if any(child.problem == problem for child in children):  # it is told in full where it came up
            problem = ": ".join(problem.split(": ")[:2])
        else:
            problem += row.place
        details = "  ".join(map(self._arrows, row.details))
        label = f"(level {depth}) {row.label}" if depth > _DEEPEST else row.label
        took = duration(row.end - row.start)
        self._lines.append((f"{before}{label}", took, details, "  ".join(row.said), problem, row.outcome, below + bar))
        for title, text in row.notes:
            self._lines.append((f"{below}{bar}{title}", "", "", "", text, "retried", f"{below}{bar}"))
        if depth >= _UNTOLD:
            if children:
                self._lines.append((f"{below}{self._more} and more below", "", "", "", "", "ok", ""))
            return
        groups = list(self._folded(children))
        for place, group in enumerate(groups):
            end = place == len(groups) - 1
            fork, under = (self._last, "   ") if end else (self._fork, self._bar)
            if not isinstance(group, Row):
                self._fold(below + fork, group)
            elif depth < _DEEPEST:
                self._add(group, below + fork, below + under, depth + 1)
            else:
                self._add(group, below + fork, below, depth + 1)

    def _fold(self, before: str, group: list[Row]) -> None:
        took = duration(max(row.end for row in group) - group[0].start)
        times = sorted(row.end - row.start for row in group)
        longest = f"the longest {duration(times[-1])}" if times[-1] > 2 * times[len(times) // 2] else ""
        self._lines.append((f"{before}{self._sum_up(group)}", took, longest, "", "", "ok", ""))

    def _sum_up(self, group: list[Row]) -> str:
        counts = Counter(row.label for row in group)
        if len(counts) == 1:
            return f"{self._more} {len(group):,} more {group[0].label}"
        shown = ", ".join(f"{many:,} {self._times} {label}" for label, many in counts.most_common(3))
        return f"{self._more} {len(group):,} more: {shown}{f', {self._more}' if len(counts) > 3 else ''}"  # noqa: PLR2004 because three fit

    def _folded(self, children: Sequence[Row]) -> Iterable[Row | list[Row]]:
        """The children, those in one list that are shown as one line."""
        hidden = self._hidden(children)
        group: list[Row] = []
        for row in children:
            if row.id in hidden:
                group.append(row)
                continue
            if group:
                yield group if len(group) > 1 else group[0]
                group = []
            yield row
        if group:
            yield group if len(group) > 1 else group[0]

    def _hidden(self, children: Sequence[Row]) -> set[int]:
        """Of many equal siblings in a row the first two are shown; of too many children, the first two of each name."""
        hidden: set[int] = set()
        row: list[Row] = []
        for child in [*children, None]:
            if child is not None and not self._matters(child) and (not row or child.label == row[-1].label):
                row.append(child)
                continue
            if len(row) > _ROW:
                hidden |= {one.id for one in row[_SHOWN:]}
            row = [] if child is None or self._matters(child) else [child]
        if len(children) - len(hidden) > _MOST_CHILDREN:
            seen: Counter[str] = Counter()
            for child in children:
                seen[child.label] += 1
                if seen[child.label] > _SHOWN and not child.sure:
                    hidden.add(child.id)
        return hidden

    def _matters(self, row: Row) -> bool:
        return row.sure or row.id in self._children

    def _line(  # noqa: PLR0913, PLR0917 because a line has these parts
        self, wide: int, first: str, took: str, details: str, written: str, problem: str, outcome: str, below: str
    ) -> Iterable[str]:
        label = first if len(first) <= wide else f"{first[: wide - len(self._more)]}{self._more}"
        text = f"{label:<{wide}}  {took:>10}"
        room = self._width - len(text) - 2
        said = [part for part in (problem, details, written) if part]
        shown = "  ".join(said)
        under = ""
        if problem and len(shown) > room and (written or len(problem) > room):
            # neither what went wrong nor what was sent is cut for the other's sake
            shown, under = "  ".join(said[1:]), problem
        if len(shown) > room:
            shown = f"{shown[: max(0, room - len(self._more))]}{self._more}"
        if shown:
            text = f"{text}  {self._painted(shown, 0 if under else len(problem), outcome)}"
        yield text.rstrip()
        if under:
            indent = f"{below}  "
            for line in textwrap.wrap(
                under, max(_LEAST, self._width - len(indent)), max_lines=_MOST_LINES, placeholder=f" {self._more}"
            ):
                yield f"{indent}{self._painted(line, len(line), outcome)}"

    def _arrows(self, text: str) -> str:
        return text.replace("<- ", f"{self._from} ").replace(" x ", f" {self._times} ")

    def _painted(self, shown: str, problem: int, outcome: str) -> str:
        if not self._colours:
            return shown
        colour = _YELLOW if outcome in {"retried", "cancelled", "suspended", "dropped"} else _RED
        first = f"{colour}{shown[:problem]}{_RESET}" if problem else ""
        rest = f"{_DIM}{shown[problem:]}{_RESET}" if shown[problem:] else ""
        return f"{first}{rest}"
