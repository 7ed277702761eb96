"""Every metric: its instrument, unit, buckets and dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from . import names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.metrics import CallbackOptions, Meter, Observation

    Callback = Callable[[CallbackOptions], Iterable[Observation]]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `observed`: nobody records it; it is read when metrics are collected."""

    name: str
    sort: Literal["histogram", "counter", "up-down counter", "gauge"]
    unit: str
    description: str
    dimensions: tuple[str, ...]
    buckets: tuple[float, ...] = ()
    """Upper bounds, of a histogram."""
    observed: bool = False


def _doubled(first: float, many: int) -> tuple[float, ...]:
    return tuple(first * 2**power for power in range(many))


_CALL = _doubled(0.01, 14)  # to 82 s
_AGENT = _doubled(0.1, 13)  # to 7 minutes
_STEP = _doubled(0.005, 17)  # to 5 minutes
_WAIT = _doubled(0.001, 15)  # to 16 s
_LOOKUP = _doubled(0.001, 17)  # to 66 s
_RUN = (0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0)
_PAUSE = (1.0, 10.0, 60.0, 600.0, 3600.0, 21600.0, 86400.0, 604800.0, 2592000.0)  # to 30 days
_TOKENS = tuple(float(4**power) for power in range(14))
_CALLS = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0)
_DOCUMENTS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)

_CLIENT = (
    names.OPERATION,
    names.PROVIDER,
    names.REQUEST_MODEL,
    names.RESPONSE_MODEL,
    names.SERVER_ADDRESS,
    names.SERVER_PORT,
)
_PLACE = (names.WORKFLOW_OF, names.STEP)
_RETRY = (names.RETRY_SCOPE, names.RETRY_NAME, names.ERROR_TYPE)

METRICS = (
    Metric(
        names.METRIC_RUN_DURATION,
        "histogram",
        "s",
        "How long runs took, those of agents included; a run that was suspended has one for each segment.",
        (names.WORKFLOW, names.OUTCOME, names.ERROR_TYPE),
        _RUN,
    ),
    Metric(
        names.METRIC_RUNS,
        "up-down counter",
        "{run}",
        "Runs that go on; one that is suspended does not.",
        (names.WORKFLOW_OF,),
        observed=True,
    ),
    Metric(
        names.METRIC_SUSPENDED,
        "histogram",
        "s",
        "How long runs stood still, recorded when they go on.",
        (names.WORKFLOW_OF,),
        _PAUSE,
    ),
    Metric(
        names.METRIC_STEP_DURATION,
        "histogram",
        "s",
        "How long steps took, each attempt by itself.",
        (*_PLACE, names.OUTCOME, names.ERROR_TYPE),
        _STEP,
    ),
    Metric(
        names.METRIC_QUEUE_WAIT,
        "histogram",
        "s",
        "How long events waited before a step took them up.",
        _PLACE,
        _WAIT,
    ),
    Metric(
        names.METRIC_QUEUE_DEPTH,
        "gauge",
        "{event}",
        "Events that wait for a worker of the step now, in all runs.",
        _PLACE,
        observed=True,
    ),
    Metric(
        names.METRIC_BUSY,
        "gauge",
        "{worker}",
        "Workers of the step that are busy now, in all runs.",
        _PLACE,
        observed=True,
    ),
    Metric(
        names.METRIC_EVENTS,
        "counter",
        "{event}",
        "Events that were sent.",
        (names.WORKFLOW_OF, names.EVENT_TYPE),
        observed=True,
    ),
    Metric(
        names.METRIC_RETRIES,
        "counter",
        "{retry}",
        "Attempts that failed: those that were followed by another, and, as exhausted, the last of them.",
        (*_RETRY, names.RETRY_EXHAUSTED),
    ),
    Metric(
        names.METRIC_RETRY_WAIT,
        "counter",
        "s",
        "Time waited between attempts.",
        _RETRY,
    ),
    Metric(
        names.METRIC_CLIENT_DURATION,
        "histogram",
        "s",
        "How long calls of models took, retries included.",
        (*_CLIENT, names.ERROR_TYPE),
        _CALL,
    ),
    Metric(
        names.METRIC_FIRST_CHUNK,
        "histogram",
        "s",
        "Time to the first piece of answers that are streamed, retries included.",
        _CLIENT,
        _CALL,
    ),
    Metric(
        names.METRIC_TOKENS,
        "histogram",
        "{token}",
        "Tokens of each call of a model, where the server told them.",
        (*_CLIENT, names.TOKEN_TYPE),
        _TOKENS,
    ),
    Metric(
        names.METRIC_COST,
        "counter",
        "{USD}",
        "What calls of models cost, where the price is known.",
        (names.PROVIDER, names.REQUEST_MODEL, names.WORKFLOW_OF),
    ),
    Metric(
        names.METRIC_TOOL_DURATION,
        "histogram",
        "s",
        "How long calls of tools took, retries included.",
        (names.TOOL_NAME, names.TOOL_TYPE, names.AGENT, names.ERROR_TYPE),
        _CALL,
    ),
    Metric(
        names.METRIC_AGENT_DURATION,
        "histogram",
        "s",
        "How long runs of agents took; one that was suspended has one for each segment.",
        (names.AGENT, names.ERROR_TYPE),
        _AGENT,
    ),
    Metric(
        names.METRIC_AGENT_INFERENCES,
        "histogram",
        "{call}",
        "Calls of models in each run of an agent, all segments together.",
        (names.AGENT,),
        _CALLS,
    ),
    Metric(
        names.METRIC_AGENT_TOOLS,
        "histogram",
        "{call}",
        "Calls of tools in each run of an agent, all segments together.",
        (names.AGENT,),
        _CALLS,
    ),
    Metric(
        names.METRIC_RETRIEVAL_DURATION,
        "histogram",
        "s",
        "How long retrievals took.",
        (names.WORKFLOW_OF, names.DATA_SOURCE),
        _LOOKUP,
    ),
    Metric(
        names.METRIC_RETRIEVED,
        "histogram",
        "{document}",
        "Documents that each retrieval found.",
        (names.WORKFLOW_OF, names.DATA_SOURCE),
        _DOCUMENTS,
    ),
    Metric(
        names.METRIC_RERANK_DURATION,
        "histogram",
        "s",
        "How long rerankings took.",
        (names.WORKFLOW_OF, names.RERANK_MODEL),
        _LOOKUP,
    ),
    Metric(
        names.METRIC_MEMORY_DURATION,
        "histogram",
        "s",
        "How long memories took.",
        (names.WORKFLOW_OF, names.MEMORY_OPERATION),
        _LOOKUP,
    ),
    Metric(
        names.METRIC_RESOURCE_DURATION,
        "histogram",
        "s",
        "How long resources took to be made.",
        (names.WORKFLOW_OF, names.RESOURCE_NAME),
        _LOOKUP,
    ),
    Metric(
        names.METRIC_CHECKPOINT_DURATION,
        "histogram",
        "s",
        "How long checkpoints took to be stored: operations of that kind are your own so far.",
        (names.WORKFLOW_OF,),
        _LOOKUP,
    ),
    Metric(
        names.METRIC_CONTENT_DROPPED,
        "counter",
        "{item}",
        "Texts, messages, documents and tools that were left out of spans.",
        (names.CONTENT_REASON,),
        observed=True,
    ),
    Metric(
        names.METRIC_EXPORT_DROPPED,
        "counter",
        "{item}",
        "Spans, metrics and log records that were never delivered.",
        (names.SIGNAL, names.EXPORT_REASON),
        observed=True,
    ),
)


def make(meter: Meter, callbacks: dict[str, Callback]) -> dict[str, Any]:
    """The instruments that are recorded, by name. Those that are observed read what the callback of their name says."""
    made: dict[str, Any] = {}
    observe: dict[str, Callable[..., object]] = {
        "gauge": meter.create_observable_gauge,
        "counter": meter.create_observable_counter,
        "up-down counter": meter.create_observable_up_down_counter,
    }
    for metric in METRICS:
        about = {"name": metric.name, "unit": metric.unit, "description": metric.description}
        if metric.observed:
            observe[metric.sort](callbacks=[callbacks[metric.name]], **about)
        elif metric.sort == "histogram":
            made[metric.name] = meter.create_histogram(**about, explicit_bucket_boundaries_advisory=metric.buckets)
        else:
            made[metric.name] = meter.create_counter(**about)
    return made
