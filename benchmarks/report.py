"""The goals, and the table that shows the figures beside them."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from cases import CASES, Metrics

BEGIN = "<!-- table: written by a program in benchmarks/ -->"
END = "<!-- end of table -->"


@dataclass
class Measured:
    """What one peer's repetitions of one case gave, pair by pair with those of the reference beside it."""

    peer: list[Metrics] = field(default_factory=list[Metrics])
    reference: list[Metrics] = field(default_factory=list[Metrics])


ByPeer = dict[str, Measured | None]
"""One case's measurements; None where the peer has no counterpart of the case."""


MULTIPLES = {"R", "off"}
"""Units that say what a case is compared with: the work by hand, agentflow with its telemetry off."""


@dataclass(frozen=True)
class Row:
    """A goal: a line of the table."""

    title: str
    case: str
    metric: str
    goal: float
    unit: str
    """`R` and `off` for a multiple of what the case's reference needs; else what the metric counts in."""
    exact: bool = False
    """Less than the goal is as wrong as more."""

    def values(self, measured: Measured) -> list[float]:
        """The figure of each repetition."""
        if self.unit in MULTIPLES:
            pairs = zip(measured.peer, measured.reference, strict=True)
            return [peer[self.metric] / reference[self.metric] for peer, reference in pairs]
        return [metrics[self.metric] for metrics in measured.peer]

    def verdict(self, values: list[float]) -> str:
        """Whether the goal is reached, by the median."""
        if self.exact:
            return "yes" if set(values) == {self.goal} else "missed"
        excess = statistics.median(values) / self.goal - 1
        return "yes" if excess <= 0 else f"missed by {excess * 100:.2g} %"

    @property
    def goal_text(self) -> str:
        """The goal as the table shows it."""
        return f"{'=' if self.exact else '<='} {self.goal:g} {self.unit}".strip()


ROWS = [
    Row("10-step chain, a step", "chain", "cpu_us", 2, "R"),
    Row("the same, each step with a time-out", "chain_timeout", "cpu_us", 4, "R"),
    Row("step of a 100-step chain over one of a 5-step chain", "chain_growth", "growth", 1, "x"),
    Row("loop, a step", "loop", "cpu_us", 2, "R"),
    Row("loop of 30,000 rounds over 1,000, a step", "loop_growth", "growth", 1.05, "x"),
    Row("loop, memory kept a step", "loop_memory", "bytes", 16, "bytes"),
    Row("fan-out of 1,000, collected with `{Result: n}`, an event", "fanout", "cpu_us", 3.5, "R"),
    Row("the same with `[Result] * n`", "fanout_list", "cpu_us", 4, "R"),
    Row("fan-out of 10,000 over 1,000, an event", "fanout_growth", "growth", 1.1, "x"),
    Row("fan-out of 1,000 x 10 ms, 64 workers, wall over ideal", "fanout_waiting", "wall", 1.05, "x"),
    Row("the same, handlers at once", "fanout_waiting", "at_once", 64, "", exact=True),
    Row("1,000 runs of 5 steps at once, a run", "concurrent", "cpu_us", 1.5, "R"),
    Row("the same, peak memory a run", "concurrent", "peak_kb", 8, "kB"),
    Row("paused run, in memory", "paused", "kb", 5, "kB"),
    Row("paused run, put away", "put_away", "kb", 1, "kB"),
    Row("paused run, to pause it", "paused", "pause_us", 60, "us"),
    Row("paused run, to resume it", "paused", "resume_us", 30, "us"),
    Row("stream of 50,000 events, an event", "stream", "cpu_us", 1.4, "R"),
    Row("stream of 50,000 over 5,000, an event", "stream_growth", "growth", 1.35, "x"),
    Row("context of 100 keys to JSON and back", "checkpoint", "cpu_us", 1.5, "R"),
    Row("telemetry not configured, a step of a chain", "not_configured", "cpu_us", 1.05, "off"),
    Row("telemetry sampled out, a step", "sampled_out", "cpu_us", 2, "off"),
    Row("chain traced, a span a step and a span an event, a step", "traced", "cpu_us", 1.25, "R"),
    Row("kept after traced runs, a step", "traced_memory", "bytes", 1, "bytes"),
    Row("metrics on, what a step costs more", "measured", "added_us", 12, "us"),
    Row("the same, all of it", "measured", "cpu_us", 1, "R"),
    Row("spans and metrics on, a step", "traced_measured", "cpu_us", 1.25, "R"),
    Row("spans sampled out, metrics on, a step", "sampled_measured", "cpu_us", 1, "R"),
    Row("agent, 1 tool call and an answer, a run", "agent", "cpu_us", 0.6, "R"),
    Row("agent, 20 tool calls and an answer, a run", "agent_long", "cpu_us", 0.25, "R"),
    Row("agent traced, 1 tool call, content off, over the untraced loop by hand", "agent_traced", "cpu_us", 0.9, "R"),
    Row("the same over a loop by hand that makes as many spans and attributes", "agent_spanned", "cpu_us", 0.9, "R"),
    Row("agent, 1 tool call and an answer, over a socket, a run", "agent_served", "cpu_us", 0.6, "R"),
    Row("200 such runs at once, a run", "agents_at_once", "cpu_us", 1, "R"),
    Row("the same, wall, a run", "agents_at_once", "wall_us", 1, "R"),
    Row("the same, peak memory a run", "agents_at_once", "peak_kb", 1.25, "R"),
    Row("agent, 100 tool calls: turns 80 to 100 over 5 to 25, JSON left out", "agent_turns", "growth", 1.1, "x"),
    Row("agent, 40 tool calls: memory kept a turn, messages left out", "agent_turns_memory", "bytes", 1536, "bytes"),
    Row("the same, all of it, turns 25 to 40 over 10 to 25", "agent_turns_memory", "growth", 1.1, "x"),
    Row("agent, 1 tool call and 1,000 chunks, followed, a chunk", "agent_streamed", "cpu_us", 0.15, "R"),
    Row(
        "trace of an agent with messages, 100 tool calls: bytes of turns 80 to 100 over 5 to 25",
        "trace_turns",
        "growth",
        1.1,
        "x",
    ),
    Row("the same, bytes a turn", "trace_turns", "bytes", 12_288, "bytes"),
    Row("model client: a call with 2 messages", "client_call", "cpu_us", 0.6, "R"),
    Row("the same with 100 messages over 2, JSON left out", "client_growth", "growth", 1.1, "x"),
    Row("the same with 2, traced, content off, over the untraced bare client", "client_traced", "cpu_us", 1, "R"),
    Row("the same over the bare client in a span of as many attributes", "client_spanned", "cpu_us", 0.75, "R"),
    Row("model client: a stream of 1,000 chunks, a chunk", "client_stream", "cpu_us", 0.12, "R"),
    Row("the same through step, stream and handler", "step_stream", "cpu_us", 0.12, "R"),
    Row("20,000 chunks of 384 dimensions, to add one", "vectors_ingest", "cpu_us", 2, "R"),
    Row("100,000 chunks over 20,000, to add one", "vectors_ingest_growth", "growth", 1.1, "R"),
    Row("hybrid query over 1,000 chunks", "vectors_query_few", "cpu_us", 2, "R"),
    Row("hybrid query over 20,000 chunks", "vectors_query", "cpu_us", 2, "R"),
    Row("the same, nearest ten by vector that are found", "vectors_query", "recall", 1, "", exact=True),
    Row("the same, memory kept a chunk", "vectors_query", "kb", 2, "R"),
    Row("hybrid query over 100,000 chunks", "vectors_query_many", "cpu_us", 2, "R"),
    Row("import", "import", "cpu_ms", 1.6, "R"),
]

PEERS = {
    "llamaindex": "llama-index",
    "pydantic_ai": "pydantic-ai",
    "langchain": "langchain",
    "openai_agents": "openai-agents",
}
"""The peers beside agentflow, as the table calls them."""
REFERENCE_UNITS = {
    "cpu_us": "us",
    "added_us": "us",
    "wall_us": "us",
    "peak_kb": "kB",
    "cpu_ms": "ms",
    "growth": "x",
    "kb": "kB",
}


def number(value: float) -> str:
    """Three digits, or all before the point; what is next to nothing is nothing."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.05 else "0"


def spread(values: list[float]) -> str:
    """The median, and the least and the most where they differ from it."""
    middle, least, most = (number(value) for value in (statistics.median(values), min(values), max(values)))
    return middle if least == most else f"{middle} ({least}..{most})"


def reference_of(row: Row, measured: Measured) -> str:
    """What the reference needs, in absolute terms."""
    values = [metrics[row.metric] for metrics in measured.reference if row.metric in metrics]
    return f"{spread(values)} {REFERENCE_UNITS.get(row.metric, row.unit)}".strip() if values else "-"


def lines(case: str, results: ByPeer) -> list[str]:
    """A case's figures, as they are printed while the benchmarks run."""
    out: list[str] = []
    for row in ROWS:
        for peer, measured in results.items():
            if row.case == case and measured:
                values = row.values(measured)
                figure = f"{spread(values)} {row.unit}".strip()
                goal = f", goal {row.goal_text}: {row.verdict(values)}" if peer == "agentflow" else ""
                against = row.unit if row.unit in MULTIPLES else "R"
                out.append(f"{row.title}: {peer} {figure}{goal}; {against} {reference_of(row, measured)}")
    return out


def table(results: dict[str, ByPeer]) -> str:
    """All figures as Markdown: a table for the rows of those areas in which the same peers have a part."""
    beside: dict[str, set[str]] = {}
    for row in ROWS:
        beside.setdefault(CASES[row.case].area, set()).update(peer for peer in PEERS if results[row.case].get(peer))
    tables: dict[tuple[str, ...], list[Row]] = {}
    for row in ROWS:
        tables.setdefault(tuple(peer for peer in PEERS if peer in beside[CASES[row.case].area]), []).append(row)
    return "\n\n".join(_table(results, rows, peers) for peers, rows in tables.items())


def _table(results: dict[str, ByPeer], rows: list[Row], peers: tuple[str, ...]) -> str:
    out = [
        f"| case | goal | agentflow | reached | {' | '.join([*(PEERS[peer] for peer in peers), 'R, or off'])} |",
        f"|{'---|' * (5 + len(peers))}",
    ]
    for row in rows:
        measured = results[row.case]
        ours = measured["agentflow"]
        assert ours, f"agentflow has no workload for {row.case}"
        values = row.values(ours)
        cells = [row.title, row.goal_text, f"**{spread(values)}**", row.verdict(values)]
        cells += [spread(row.values(theirs)) if (theirs := measured.get(peer)) else "-" for peer in peers]
        out.append(f"| {' | '.join([*cells, reference_of(row, ours)])} |")
    return "\n".join(out)


def put_between_markers(text: str, content: str) -> str:
    """The document with `content` between its two markers."""
    head, _, rest = text.partition(BEGIN)
    _, found, tail = rest.partition(END)
    if not found:
        raise ValueError(f"the document lacks the line {BEGIN!r} or the line {END!r} after it")
    return f"{head}{BEGIN}\n\n{content}\n\n{END}{tail}"
