"""The board to look at first: is it well, what does it cost, what is slow; then what runs are made of."""

from __future__ import annotations

import promql as q
from board import Board, Row
from panels import DOLLARS_AN_HOUR, OUTCOMES, PART, PER_MINUTE, SECONDS, Query, bars, lines, stat

FIRING = 'count(ALERTS{alertname=~"Agentflow.+", alertstate="firing"})'
RUNS_ENDED = f"{q.WORKFLOWS}_count"

WELL = Row(
    5,
    (
        stat(
            "Alerts",
            "Alerts of agentflow that fire now. Needs alerts.yml in Prometheus; without it this is always 0.",
            "short",
            Query(q.or_zero(FIRING)),
            limits=(1, 3),
        ),
        stat(
            "Failed runs",
            "The part of all runs of the time shown that ended with an error or a timeout. "
            "What was retried and then went well is no failure.",
            PART,
            Query(q.share(RUNS_ENDED, q.FAILED, where=q.ENDED, over=q.ALL_SHOWN)),
            limits=(0.01, 0.05),
            at_once=True,
        ),
        stat(
            "Runs",
            "Runs of workflows and agents that ended, each minute. One inside another counts as well.",
            PER_MINUTE,
            Query(q.per_minute(RUNS_ENDED, where=q.ENDED)),
        ),
        stat(
            "Cost an hour",
            "What the calls to models of the last hour cost, in US dollars, by the prices that agentflow knows. "
            "Models without a known price cost nothing here.",
            DOLLARS_AN_HOUR,
            Query(q.increase(q.COST, over="1h")),
            limits=(5, 10),
        ),
        stat(
            "Run time, p95",
            "95 of 100 runs of the time shown took less. Time in which a run was put away to wait is not in it.",
            SECONDS,
            Query(q.quantile(0.95, q.WORKFLOWS, over=q.ALL_SHOWN)),
            limits=(60, 300),
            at_once=True,
        ),
        stat(
            "Queue wait, p95",
            "95 of 100 events of the time shown waited less before a step took them up. More workers make it less.",
            SECONDS,
            Query(q.quantile(0.95, q.WAIT, over=q.ALL_SHOWN)),
            limits=(1, 5),
            at_once=True,
        ),
    ),
)
SLOW = Row(
    9,
    (
        bars(
            "Slowest steps, p95",
            "The ten steps whose 95th percentile was highest in all the time shown, retries each for themselves.",
            SECONDS,
            Query(
                q.top(10, q.quantile(0.95, q.STEPS, q.WORKFLOW, q.STEP, over=q.ALL_SHOWN)),
                f"{q.shown(q.WORKFLOW)} · {q.shown(q.STEP)}",
            ),
            limits=(10, 60),
        ),
        bars(
            "Dearest workflows",
            "What the calls to models cost in all the time shown, in US dollars, by the workflow that made them.",
            "currencyUSD",
            Query(q.top(10, q.increase(q.COST, q.WORKFLOW)), q.shown(q.WORKFLOW)),
        ),
        bars(
            "Most frequent errors",
            "How many attempts of steps failed in all the time shown, by the class of the error. "
            "Those that were retried are in it.",
            "short",
            Query(q.top(10, q.increase(f"{q.STEPS}_count", q.ERROR, where=q.FAILED)), q.shown(q.ERROR)),
        ),
    ),
)
RUNS = Row(
    9,
    (
        lines(
            "Runs by outcome",
            "Runs that ended each minute, by how they ended. A run that was suspended ends once more.",
            PER_MINUTE,
            Query(q.per_minute(RUNS_ENDED, q.OUTCOME), q.shown(q.OUTCOME)),
            stacked=True,
            colours=OUTCOMES,
        ),
        lines(
            "Failed runs",
            "The part of the runs that ended with an error or a timeout, by workflow or agent.",
            PART,
            Query(q.share(RUNS_ENDED, q.FAILED, q.RUN, where=q.ENDED), q.shown(q.RUN)),
            limits=(0.01, 0.05),
        ),
        lines(
            "Run time",
            "How long runs took: 50, 95 and 99 of 100 took less. A dot is one run: it leads to its trace.",
            SECONDS,
            *(
                Query(q.quantile(part, q.WORKFLOWS, q.RUN), f"{q.shown(q.RUN)} {name}", exemplar=True)
                for part, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
            ),
        ),
    ),
    title="Runs",
)
AGENTS = Row(
    8,
    (
        lines(
            "Agent time",
            "How long runs of agents took: 50 and 95 of 100 took less. A dot is one run: it leads to its trace.",
            SECONDS,
            *(
                Query(q.quantile(part, q.AGENTS, q.SERVICE, q.AGENT), f"{q.shown(q.AGENT)} {name}", exemplar=True)
                for part, name in ((0.5, "p50"), (0.95, "p95"))
            ),
            operation=f"invoke_agent ${{__field.labels.{q.AGENT}}}",
        ),
        lines(
            "Calls to models in a run, p99",
            "99 of 100 runs of the agent called a model less often. A rise is a loop that does not find its end.",
            "short",
            Query(q.quantile(0.99, q.AGENT_CHATS, q.AGENT), q.shown(q.AGENT)),
            limits=(12, 24),
        ),
    ),
)
USE = Row(
    8,
    (
        lines(
            "Active runs",
            "Runs that are going on, by workflow. A line that only rises is runs that never end.",
            "short",
            Query(q.gauge(q.ACTIVE, q.WORKFLOW), q.shown(q.WORKFLOW)),
            stacked=True,
        ),
        lines(
            "Busy workers",
            "Workers of steps that are at work, by workflow.",
            "short",
            Query(q.gauge(q.BUSY, q.WORKFLOW), q.shown(q.WORKFLOW)),
            stacked=True,
        ),
        lines(
            "Waiting events",
            "Events that no worker has taken up yet, by workflow.",
            "short",
            Query(q.gauge(q.DEPTH, q.WORKFLOW), q.shown(q.WORKFLOW)),
            limits=(100, 1000),
        ),
        lines(
            "Queue wait, p95",
            "95 of 100 events waited less before a step took them up, by workflow.",
            SECONDS,
            Query(q.quantile(0.95, q.WAIT, q.WORKFLOW), q.shown(q.WORKFLOW)),
            limits=(1, 5),
        ),
    ),
    title="Load",
)
HEALTH = Row(
    8,
    (
        lines(
            "Suspended and resumed",
            "Runs that were suspended to wait for somebody, and runs that went on, each minute. Where more are "
            "suspended than resumed, answers are missing. How long they waited is told on the board of steps.",
            PER_MINUTE,
            Query(q.per_minute(RUNS_ENDED, where=q.PUT_AWAY), "suspended"),
            Query(q.per_minute(f"{q.SUSPENDED}_count"), "resumed"),
        ),
        lines(
            "Retries",
            "Attempts that failed and were made again, each minute: of steps, of calls to models, of tools.",
            PER_MINUTE,
            Query(q.per_minute(q.RETRIES, q.SCOPE, where=q.AGAIN), q.shown(q.SCOPE)),
            limits=(6, 12),
        ),
        lines(
            "Lost telemetry",
            "Spans, metrics and log records that did not go out, and pieces of content that were left out of spans, "
            "each minute. Not 0: the collector is away or too slow, a list is too long, or a redactor fails.",
            PER_MINUTE,
            Query(
                q.per_minute(q.EXPORT_DROPPED, q.SIGNAL, q.EXPORT_REASON),
                f"{q.shown(q.SIGNAL)}: {q.shown(q.EXPORT_REASON)}",
            ),
            Query(q.per_minute(q.CONTENT_DROPPED, q.CONTENT_REASON), f"content: {q.shown(q.CONTENT_REASON)}"),
            limits=(1, 60),
        ),
    ),
    title="Waiting, retries, telemetry",
)
BOARD = Board(
    uid="agentflow-overview",
    title="agentflow: overview",
    description="Is it well, what does it cost, what is slow: runs, load, waiting and retries of all agents.",
    rows=(WELL, SLOW, RUNS, AGENTS, USE, HEALTH),
)
