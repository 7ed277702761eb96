"""What agents reach for: tools, documents, embeddings, memories."""

from __future__ import annotations

import promql as q
from board import Board, Row
from panels import COUNT, PART, PER_MINUTE, SECONDS, Column, Query, bars, lines, stat, table

CALLS = f"{q.TOOLS}_count"
TOOL_NAME = q.shown(q.TOOL)
SOURCE_NAME = q.shown(q.SOURCE)
NOTHING_FOUND = 'le=~"0|0.0"'


def _found_nothing(*by: str, over: str = q.RECENTLY) -> str:
    """The part of the retrievals that found no document: the lowest bucket, which Prometheus calls 0 or 0.0."""
    nothing = q.added(f"{q.DOCUMENTS}_bucket", *by, where=NOTHING_FOUND, over=over)
    return f"{nothing} / ({q.added(f'{q.DOCUMENTS}_count', *by, over=over)} > 0)"


NOW = Row(
    5,
    (
        stat(
            "Failed tool calls",
            "The part of the calls of tools that failed, in all the time shown.",
            PART,
            Query(q.share(CALLS, q.FAILED, over=q.ALL_SHOWN)),
            limits=(0.05, 0.2),
            at_once=True,
        ),
        stat("Tool calls", "Calls of tools that ended, each minute.", PER_MINUTE, Query(q.per_minute(CALLS))),
        stat(
            "Tool time, p95",
            "95 of 100 calls of tools took less, in all the time shown.",
            SECONDS,
            Query(q.quantile(0.95, q.TOOLS, over=q.ALL_SHOWN)),
            limits=(5, 30),
            at_once=True,
        ),
        stat(
            "Found nothing",
            "The part of the retrievals of the time shown that found no document at all.",
            PART,
            Query(_found_nothing(over=q.ALL_SHOWN)),
            limits=(0.05, 0.2),
            at_once=True,
        ),
        stat(
            "Retrievals",
            "Searches for documents that ended, each minute.",
            PER_MINUTE,
            Query(q.per_minute(f"{q.RETRIEVALS}_count")),
        ),
        stat(
            "Retrieval time, p95",
            "95 of 100 retrievals of the time shown took less, the embedding of the question included.",
            SECONDS,
            Query(q.quantile(0.95, q.RETRIEVALS, over=q.ALL_SHOWN)),
            limits=(1, 5),
            at_once=True,
        ),
    ),
)
TOOLS = Row(
    9,
    (
        lines(
            "Tool calls",
            'Calls each minute, by tool. "_other" is a name that the model made up.',
            PER_MINUTE,
            Query(q.per_minute(CALLS, q.TOOL), TOOL_NAME),
        ),
        lines(
            "Failed tool calls",
            "The part of the calls that failed, by tool.",
            PART,
            Query(q.share(CALLS, q.FAILED, q.TOOL), TOOL_NAME),
            limits=(0.05, 0.2),
        ),
        lines(
            "Tool time, p95",
            "95 of 100 calls of the tool took less. A dot is one call: it leads to its trace.",
            SECONDS,
            Query(q.quantile(0.95, q.TOOLS, q.SERVICE, q.TOOL), TOOL_NAME, exemplar=True),
            limits=(5, 30),
            operation=f"execute_tool ${{__field.labels.{q.TOOL}}}",
        ),
    ),
    title="Tools",
)
TOOL_TABLE = Row(
    9,
    (
        table(
            "All tools",
            "Each tool of each agent in all the time shown, those called most often first.",
            {q.TOOL: "Tool", q.AGENT: "Agent"},
            Column("Calls", COUNT, q.increase(CALLS, q.TOOL, q.AGENT)),
            Column("Failed", PART, q.share(CALLS, q.FAILED, q.TOOL, q.AGENT, over=q.ALL_SHOWN), (0.05, 0.2)),
            Column("p50", SECONDS, q.quantile(0.5, q.TOOLS, q.TOOL, q.AGENT, over=q.ALL_SHOWN)),
            Column("p95", SECONDS, q.quantile(0.95, q.TOOLS, q.TOOL, q.AGENT, over=q.ALL_SHOWN), (5, 30)),
        ),
        lines(
            "Tools of a run, p95",
            "95 of 100 runs of the agent called tools less often.",
            COUNT,
            Query(q.quantile(0.95, q.AGENT_TOOLS, q.AGENT), q.shown(q.AGENT)),
            limits=(12, 24),
        ),
        bars(
            "Errors of tools",
            "How many calls failed in all the time shown, by tool and class of the error.",
            COUNT,
            Query(q.top(10, q.increase(CALLS, q.TOOL, q.ERROR, where=q.FAILED)), f"{TOOL_NAME} · {q.shown(q.ERROR)}"),
        ),
    ),
    widths=(12, 6, 6),
)
RETRIEVAL = Row(
    9,
    (
        lines(
            "Retrieval time",
            "How long retrievals took: 50 and 95 of 100 took less. A dot is one of them: it leads to its trace.",
            SECONDS,
            *(
                Query(q.quantile(part, q.RETRIEVALS, q.SERVICE, q.SOURCE), f"{SOURCE_NAME} {name}", exemplar=True)
                for part, name in ((0.5, "p50"), (0.95, "p95"))
            ),
            limits=(1, 5),
            operation=f"retrieval ${{__field.labels.{q.SOURCE}}}",
        ),
        lines(
            "Documents found",
            "How many documents a retrieval found on average.",
            COUNT,
            Query(q.mean(q.DOCUMENTS, q.SOURCE), SOURCE_NAME),
        ),
        lines(
            "Found nothing",
            "The part of the retrievals that found no document at all.",
            PART,
            Query(_found_nothing(q.SOURCE), SOURCE_NAME),
            limits=(0.05, 0.2),
        ),
    ),
    title="Retrieval",
)
AROUND = Row(
    9,
    (
        lines(
            "Embedding time, p95",
            "95 of 100 calls that embed texts took less.",
            SECONDS,
            Query(q.quantile(0.95, q.CALLS, q.MODEL, where=q.EMBEDDINGS), q.shown(q.MODEL), exemplar=True),
            limits=(1, 5),
        ),
        lines(
            "Embedded tokens",
            "Tokens that were embedded, each minute.",
            PER_MINUTE,
            Query(q.per_minute(f"{q.TOKENS}_sum", q.MODEL, where=q.EMBEDDINGS), q.shown(q.MODEL)),
            stacked=True,
        ),
        lines(
            "Reranking time, p95",
            "95 of 100 rerankings took less.",
            SECONDS,
            Query(q.quantile(0.95, q.RERANKINGS, q.RERANKER), q.shown(q.RERANKER)),
            limits=(2, 10),
        ),
        lines(
            "Memory time, p95",
            "95 of 100 uses of a memory took less, by what was done.",
            SECONDS,
            Query(q.quantile(0.95, q.MEMORY, q.MEMORY_OPERATION), q.shown(q.MEMORY_OPERATION)),
            limits=(0.5, 2),
        ),
    ),
    title="Embedding, reranking, memory",
)
BOARD = Board(
    uid="agentflow-tools-rag",
    title="agentflow: tools and retrieval",
    description="What agents reach for: tools, documents, embeddings, memories.",
    rows=(NOW, TOOLS, TOOL_TABLE, RETRIEVAL, AROUND),
)
