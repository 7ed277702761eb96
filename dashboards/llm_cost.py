"""What the models cost, and how they do: dollars, tokens, time, errors."""

from __future__ import annotations

import promql as q
from board import Board, Row
from panels import (
    COUNT,
    DOLLARS,
    DOLLARS_AN_HOUR,
    PART,
    PER_MINUTE,
    SECONDS,
    Column,
    Query,
    bars,
    heatmap,
    lines,
    stat,
    table,
)

CALLS = f"{q.CALLS}_count"
RUNS = q.increase(f"{q.WORKFLOWS}_count", where=q.ENDED)

NOW = Row(
    5,
    (
        stat(
            "Cost an hour",
            "What the calls to models of the last hour cost, in US dollars, by the prices that agentflow knows.",
            DOLLARS_AN_HOUR,
            Query(q.increase(q.COST, over="1h")),
            limits=(5, 10),
        ),
        stat(
            "Cost of the time shown",
            "What the calls to models cost in all the time shown, in US dollars.",
            DOLLARS,
            Query(q.increase(q.COST)),
            at_once=True,
        ),
        stat(
            "Cost of a run",
            "What a run cost on average in all the time shown, in US dollars. One inside another counts as well.",
            DOLLARS,
            Query(f"{q.increase(q.COST)} / ({RUNS} > 0)"),
            limits=(0.5, 2),
            at_once=True,
        ),
        stat(
            "Tokens",
            "Tokens that went in and came out, each minute.",
            PER_MINUTE,
            Query(q.per_minute(f"{q.TOKENS}_sum", where=f'{q.TOKEN_TYPE}="input"'), "in"),
            Query(q.per_minute(f"{q.TOKENS}_sum", where=f'{q.TOKEN_TYPE}="output"'), "out"),
        ),
        stat(
            "Failed calls",
            "The part of the calls of the time shown that failed for good, after all their retries.",
            PART,
            Query(q.share(CALLS, q.FAILED, over=q.ALL_SHOWN)),
            limits=(0.01, 0.05),
            at_once=True,
        ),
        stat(
            "Time of an answer, p95",
            "95 of 100 chats of the time shown took less, with their retries and the waits between them.",
            SECONDS,
            Query(q.quantile(0.95, q.CALLS, where=q.CHATS, over=q.ALL_SHOWN)),
            limits=(20, 60),
            at_once=True,
        ),
    ),
)
COST = Row(
    9,
    (
        lines(
            "Cost by model",
            "US dollars an hour, by the model that was asked.",
            DOLLARS_AN_HOUR,
            Query(f"3600 * {q.rate(q.COST, q.MODEL)}", q.shown(q.MODEL)),
            stacked=True,
        ),
        lines(
            "Cost by workflow",
            "US dollars an hour, by the workflow or agent that made the calls.",
            DOLLARS_AN_HOUR,
            Query(f"3600 * {q.rate(q.COST, q.WORKFLOW)}", q.shown(q.WORKFLOW)),
            stacked=True,
        ),
        bars(
            "Dearest of the time shown",
            "What each workflow spent on each model in all the time shown, in US dollars.",
            DOLLARS,
            Query(q.top(10, q.increase(q.COST, q.WORKFLOW, q.MODEL)), f"{q.shown(q.WORKFLOW)} · {q.shown(q.MODEL)}"),
        ),
    ),
    title="Cost",
)
TOKENS = Row(
    8,
    (
        lines(
            "Tokens by model",
            "Tokens each minute: what went in, and what came out. The tokens of embeddings are in it.",
            PER_MINUTE,
            Query(
                q.per_minute(f"{q.TOKENS}_sum", q.MODEL, q.TOKEN_TYPE),
                f"{q.shown(q.MODEL)} {q.shown(q.TOKEN_TYPE)}",
            ),
        ),
        lines(
            "Tokens of a call",
            "Tokens of one call: 50 and 95 of 100 calls had less. An input that grows with every turn is a history "
            "that nobody cuts.",
            COUNT,
            *(
                Query(
                    q.quantile(part, q.TOKENS, q.TOKEN_TYPE, where=q.CHATS),
                    f"{q.shown(q.TOKEN_TYPE)} {name}",
                    exemplar=True,
                )
                for part, name in ((0.5, "p50"), (0.95, "p95"))
            ),
            limits=(32_000, 128_000),
        ),
        lines(
            "Calls of a run",
            "How often an agent called a model in one run: 50, 95 and 99 of 100 runs called less often. "
            "p99 near the agent's limit is a loop that does not find its end.",
            COUNT,
            *(
                Query(q.quantile(part, q.AGENT_CHATS, q.AGENT), f"{q.shown(q.AGENT)} {name}")
                for part, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
            ),
            limits=(12, 24),
        ),
    ),
    title="Tokens",
)
TIME = Row(
    9,
    (
        lines(
            "Time of an answer",
            "How long chats took: 50 and 95 of 100 took less, retries and their waits included. "
            "A dot is one chat: it leads to its trace.",
            SECONDS,
            *(
                Query(
                    q.quantile(part, q.CALLS, q.SERVICE, q.MODEL, where=q.CHATS),
                    f"{q.shown(q.MODEL)} {name}",
                    exemplar=True,
                )
                for part, name in ((0.5, "p50"), (0.95, "p95"))
            ),
            limits=(20, 60),
            operation=f"chat ${{__field.labels.{q.MODEL}}}",
        ),
        lines(
            "Time to the first piece, p95",
            "How long a streamed answer let wait for its first piece: 95 of 100 took less.",
            SECONDS,
            Query(q.quantile(0.95, q.FIRST_CHUNK, q.MODEL), q.shown(q.MODEL), exemplar=True),
            limits=(3, 10),
        ),
        heatmap(
            "Times of all chats",
            "How many chats each second took how long: two bands are two kinds of calls, or a provider that limits.",
            SECONDS,
            Query(q.rate(f"{q.CALLS}_bucket", "le", where=q.CHATS), "{{le}}"),
        ),
    ),
    title="Time and errors",
)
ERRORS = Row(
    9,
    (
        lines(
            "Failed calls",
            "Calls to models that failed for good each minute, by the class of the error.",
            PER_MINUTE,
            Query(q.per_minute(CALLS, q.ERROR, where=q.FAILED), q.shown(q.ERROR)),
            stacked=True,
        ),
        lines(
            "Retried calls",
            "Attempts of calls to models that failed and were made again, each minute, by the class of the error.",
            PER_MINUTE,
            Query(q.per_minute(q.RETRIES, q.ERROR, where=f'{q.SCOPE}="llm", {q.AGAIN}'), q.shown(q.ERROR)),
            stacked=True,
        ),
        table(
            "Models",
            "Each model and kind of call in all the time shown.",
            {q.MODEL: "Model", q.OPERATION: "Kind"},
            Column("Calls", COUNT, q.increase(CALLS, q.MODEL, q.OPERATION)),
            Column("Failed", PART, q.share(CALLS, q.FAILED, q.MODEL, q.OPERATION, over=q.ALL_SHOWN), (0.01, 0.05)),
            Column("p50", SECONDS, q.quantile(0.5, q.CALLS, q.MODEL, q.OPERATION, over=q.ALL_SHOWN)),
            Column("p95", SECONDS, q.quantile(0.95, q.CALLS, q.MODEL, q.OPERATION, over=q.ALL_SHOWN), (20, 60)),
            Column("Tokens", COUNT, q.increase(f"{q.TOKENS}_sum", q.MODEL, q.OPERATION)),
        ),
    ),
    widths=(6, 6, 12),
)
BOARD = Board(
    uid="agentflow-llm-cost",
    title="agentflow: models and cost",
    description="What the models cost and how they do: dollars, tokens, time, errors.",
    rows=(NOW, COST, TOKENS, TIME, ERRORS),
)
