"""What happens inside runs: the time of steps, who waits for whom, what is tried again."""

from __future__ import annotations

import promql as q
from board import Board, Row
from panels import COUNT, OUTCOMES, PART, PER_MINUTE, SECONDS, Column, Query, heatmap, lines, stat, table

ATTEMPTS = f"{q.STEPS}_count"
STEP = (q.WORKFLOW, q.STEP)
STEP_NAME = f"{q.shown(q.WORKFLOW)} · {q.shown(q.STEP)}"
RETRY_NAME = f"{q.shown(q.SCOPE)} · {q.shown(q.RETRIED)}"

NOW = Row(
    5,
    (
        stat(
            "Failed attempts",
            "The part of the attempts of the time shown that ended with an error, those that were retried among them.",
            PART,
            Query(q.share(ATTEMPTS, q.FAILED, over=q.ALL_SHOWN)),
            limits=(0.02, 0.1),
            at_once=True,
        ),
        stat(
            "Given up",
            "How often the last retry failed, too, in all the time shown: of steps, calls to models, tools.",
            COUNT,
            Query(q.or_zero(q.increase(q.RETRIES, where=q.GIVEN_UP))),
            limits=(1, 5),
            at_once=True,
        ),
        stat("Attempts", "Attempts of steps that ended, each minute.", PER_MINUTE, Query(q.per_minute(ATTEMPTS))),
        stat(
            "Step time, p95",
            "95 of 100 attempts of steps took less, in all the time shown.",
            SECONDS,
            Query(q.quantile(0.95, q.STEPS, over=q.ALL_SHOWN)),
            limits=(10, 60),
            at_once=True,
        ),
        stat(
            "Queue wait, p95",
            "95 of 100 events of the time shown waited less before a step took them up.",
            SECONDS,
            Query(q.quantile(0.95, q.WAIT, over=q.ALL_SHOWN)),
            limits=(1, 5),
            at_once=True,
        ),
        stat(
            "Retries",
            "Attempts that failed and were made again, each minute: of steps, of calls to models, of tools.",
            PER_MINUTE,
            Query(q.or_zero(q.per_minute(q.RETRIES, where=q.AGAIN))),
            limits=(6, 12),
        ),
    ),
)
STEPS = Row(
    9,
    (
        lines(
            "Step time, p95",
            "95 of 100 attempts of the step took less. A dot is one attempt: it leads to its trace.",
            SECONDS,
            Query(q.quantile(0.95, q.STEPS, q.SERVICE, *STEP), STEP_NAME, exemplar=True),
            limits=(10, 60),
            operation=f"step ${{__field.labels.{q.STEP}}}",
        ),
        lines(
            "Attempts by outcome",
            "Attempts of steps that ended each minute, by how they ended. "
            '"collecting" has kept its event and waits for more.',
            PER_MINUTE,
            Query(q.per_minute(ATTEMPTS, q.OUTCOME), q.shown(q.OUTCOME)),
            stacked=True,
            colours=OUTCOMES,
        ),
        heatmap(
            "Times of all steps",
            "How many attempts each second took how long.",
            SECONDS,
            Query(q.rate(f"{q.STEPS}_bucket", "le"), "{{le}}"),
        ),
    ),
    title="Steps",
)
STEP_TABLE = Row(
    10,
    (
        table(
            "All steps",
            "Each step in all the time shown, those with the most attempts first.",
            {q.WORKFLOW: "Workflow", q.STEP: "Step"},
            Column("Attempts", COUNT, q.increase(ATTEMPTS, *STEP)),
            Column("Failed", PART, q.share(ATTEMPTS, q.FAILED, *STEP, over=q.ALL_SHOWN), (0.02, 0.1)),
            Column("p50", SECONDS, q.quantile(0.5, q.STEPS, *STEP, over=q.ALL_SHOWN)),
            Column("p95", SECONDS, q.quantile(0.95, q.STEPS, *STEP, over=q.ALL_SHOWN), (10, 60)),
            Column("Wait p95", SECONDS, q.quantile(0.95, q.WAIT, *STEP, over=q.ALL_SHOWN), (1, 5)),
        ),
        lines(
            "Failed attempts",
            "Attempts of steps that failed each minute, by the class of the error.",
            PER_MINUTE,
            Query(q.per_minute(ATTEMPTS, q.ERROR, where=q.FAILED), q.shown(q.ERROR)),
            stacked=True,
        ),
    ),
    widths=(16, 8),
)
QUEUES = Row(
    9,
    (
        lines(
            "Queue wait, p95",
            "95 of 100 events waited less before the step took them up. More workers of the step make it less.",
            SECONDS,
            Query(q.quantile(0.95, q.WAIT, *STEP), STEP_NAME, exemplar=True),
            limits=(1, 5),
        ),
        lines(
            "Waiting events",
            "Events that no worker of the step has taken up yet.",
            COUNT,
            Query(q.gauge(q.DEPTH, *STEP), STEP_NAME),
            limits=(100, 1000),
        ),
        lines(
            "Busy workers",
            "Workers of the step that are at work. A line that lies flat at the step's number of workers, with events "
            "that wait, is a bottleneck.",
            COUNT,
            Query(q.gauge(q.BUSY, *STEP), STEP_NAME),
        ),
    ),
    title="Queues",
)
RETRIES = Row(
    9,
    (
        lines(
            "Retries",
            "Attempts that failed and were made again, each minute: of a step, a model or a tool.",
            PER_MINUTE,
            Query(q.per_minute(q.RETRIES, q.SCOPE, q.RETRIED, where=q.AGAIN), RETRY_NAME),
            limits=(6, 12),
        ),
        lines(
            "Given up",
            "How often the last retry failed, too, each minute.",
            PER_MINUTE,
            Query(q.per_minute(q.RETRIES, q.SCOPE, q.RETRIED, where=q.GIVEN_UP), RETRY_NAME),
            stacked=True,
        ),
        lines(
            "Time lost to waits between attempts",
            "Seconds each second that are spent on waits between attempts: 2 means that at any time two wait.",
            "suffix: s/s",
            Query(q.rate(q.RETRY_WAIT, q.SCOPE, q.RETRIED), RETRY_NAME),
        ),
    ),
    title="Retries",
)
EVENTS = Row(
    9,
    (
        lines(
            "Events",
            "Events that were sent each minute, by their class.",
            PER_MINUTE,
            Query(q.per_minute(q.EVENTS, q.EVENT), q.shown(q.EVENT)),
        ),
        lines(
            "Runs that waited for somebody",
            "How long runs were put away before they went on: 50 and 95 of 100 waited less.",
            SECONDS,
            *(
                Query(q.quantile(part, q.SUSPENDED, q.WORKFLOW), f"{q.shown(q.WORKFLOW)} {name}")
                for part, name in ((0.5, "p50"), (0.95, "p95"))
            ),
            limits=(3600, 86400),
        ),
        lines(
            "Making resources, p95",
            "How long steps waited for a resource to be made: 95 of 100 took less.",
            SECONDS,
            Query(q.quantile(0.95, q.RESOURCES, q.RESOURCE), q.shown(q.RESOURCE)),
            limits=(1, 10),
        ),
    ),
    title="Events, waiting, resources",
)
BOARD = Board(
    uid="agentflow-steps",
    title="agentflow: steps and queues",
    description="What happens inside runs: the time of steps, who waits for whom, what is tried again.",
    rows=(NOW, STEPS, STEP_TABLE, QUEUES, RETRIES, EVENTS),
)
