"""Queries in PromQL, of the names that agentflow's metrics have in Prometheus, filtered by a board's variables."""

from __future__ import annotations

WORKFLOWS = "gen_ai_invoke_workflow_duration_seconds"
AGENTS = "gen_ai_invoke_agent_duration_seconds"
AGENT_CHATS = "gen_ai_invoke_agent_inference_calls"
AGENT_TOOLS = "gen_ai_invoke_agent_tool_calls"
CALLS = "gen_ai_client_operation_duration_seconds"
FIRST_CHUNK = "gen_ai_client_operation_time_to_first_chunk_seconds"
TOKENS = "gen_ai_client_token_usage"
COST = "agentflow_llm_cost_total"
TOOLS = "gen_ai_execute_tool_duration_seconds"
ACTIVE = "agentflow_run_active"
SUSPENDED = "agentflow_run_suspended_duration_seconds"
STEPS = "agentflow_step_duration_seconds"
WAIT = "agentflow_step_queue_wait_seconds"
DEPTH = "agentflow_step_queue_depth"
BUSY = "agentflow_step_workers_busy"
EVENTS = "agentflow_events_total"
RETRIES = "agentflow_retries_total"
RETRY_WAIT = "agentflow_retry_wait_seconds_total"
RETRIEVALS = "agentflow_retrieval_duration_seconds"
DOCUMENTS = "agentflow_retrieval_documents"
RERANKINGS = "agentflow_rerank_duration_seconds"
MEMORY = "agentflow_memory_duration_seconds"
RESOURCES = "agentflow_resource_duration_seconds"
EXPORT_DROPPED = "agentflow_export_dropped_total"
CONTENT_DROPPED = "agentflow_content_dropped_total"

SERVICE = "job"
WORKFLOW = "agentflow_workflow_name"
RUN = "gen_ai_workflow_name"
STEP = "agentflow_step_name"
AGENT = "gen_ai_agent_name"
MODEL = "gen_ai_request_model"
TOOL = "gen_ai_tool_name"
OPERATION = "gen_ai_operation_name"
TOKEN_TYPE = "gen_ai_token_type"  # noqa: S105 because it is a label's name
OUTCOME = "agentflow_outcome"
ERROR = "error_type"
EVENT = "agentflow_event_type"
SCOPE = "agentflow_retry_scope"
RETRIED = "agentflow_retry_name"
EXHAUSTED = "agentflow_retry_exhausted"
SOURCE = "gen_ai_data_source_id"
RERANKER = "reranker_model_name"
MEMORY_OPERATION = "agentflow_memory_operation"
RESOURCE = "agentflow_resource_name"
SIGNAL = "agentflow_signal"
EXPORT_REASON = "agentflow_export_dropped_reason"
CONTENT_REASON = "agentflow_content_dropped_reason"

FAILED = f'{ERROR}!=""'
ENDED = f'{OUTCOME}!="suspended"'
"""Of runs: those that are over. A segment that was suspended is no run that went well."""
PUT_AWAY = f'{OUTCOME}="suspended"'
CHATS = f'{OPERATION}!="embeddings"'
EMBEDDINGS = f'{OPERATION}="embeddings"'
AGAIN = f'{EXHAUSTED}="false"'
"""Of retries: those that were followed by another attempt."""
GIVEN_UP = f'{EXHAUSTED}="true"'
RECENTLY = "$__rate_interval"
ALL_SHOWN = "$__range"
"""The time that the board shows."""

_VARIABLES: dict[str, dict[str, str]] = {
    "gen_ai_client_": {MODEL: "model"},
    "gen_ai_execute_tool_": {AGENT: "agent"},
    "gen_ai_invoke_agent_": {AGENT: "agent"},
    "gen_ai_invoke_workflow_": {RUN: "workflow"},
    "agentflow_llm_": {WORKFLOW: "workflow", MODEL: "model"},
    **{
        f"agentflow_{what}": {WORKFLOW: "workflow"}
        for what in ("run_", "step_", "events_", "retrieval_", "rerank_", "memory_", "resource_")
    },
}
"""By the beginning of a metric's name, the labels that it can be filtered by, each with its variable."""


_NONE: dict[str, str] = {}


def select(metric: str, where: str = "") -> str:
    """The metric's series of what is chosen above the board."""
    found = next((labels for start, labels in _VARIABLES.items() if metric.startswith(start)), _NONE)
    filters = [f'{label}=~"${variable}"' for label, variable in {SERVICE: "service", **found}.items()]
    return f"{metric}{{{', '.join([*filters, *filter(None, [where])])}}}"


def gauge(metric: str, *by: str) -> str:
    """The sum of a gauge, apart by these labels."""
    return _sum(select(metric), *by)


def rate(metric: str, *by: str, where: str = "", over: str = RECENTLY) -> str:
    """How much is added each second."""
    return _sum(f"rate({select(metric, where)}[{over}])", *by)


def increase(metric: str, *by: str, where: str = "", over: str = ALL_SHOWN) -> str:
    """How much was added in all that time.

    Prometheus' own `increase` leaves out what a series began with; of what happens seldom, that is the first time it
    happened, and of a service that was started anew, the first time again. A series that was there in the hour before
    did not begin: it had a gap.
    """
    series = select(metric, where)
    grown = f"increase({series}[{over}])"
    begun = f"(min_over_time({series}[{over}]) unless last_over_time({series}[1h] offset {over}))"
    return _sum(f"{grown} + ({begun} or 0 * {grown})", *by)


def added(metric: str, *by: str, where: str = "", over: str = RECENTLY) -> str:
    """What parts are taken of: over all the time shown what its sums have, too, the beginnings of series included."""
    return (increase if over == ALL_SHOWN else rate)(metric, *by, where=where, over=over)


def per_minute(metric: str, *by: str, where: str = "") -> str:
    """How much is added each minute: agents are slow, and a rate of 0.03 a second says little to a person."""
    return f"60 * {rate(metric, *by, where=where)}"


def quantile(part: float, histogram: str, *by: str, where: str = "", over: str = RECENTLY) -> str:
    """What this part of the values stayed below."""
    buckets = added(f"{histogram}_bucket", *by, "le", where=where, over=over)
    return f"histogram_quantile({part}, {buckets})"


def mean(histogram: str, *by: str, where: str = "", over: str = RECENTLY) -> str:
    """What a value was on average."""
    whole, count = (added(f"{histogram}_{what}", *by, where=where, over=over) for what in ("sum", "count"))
    return f"{whole} / ({count} > 0)"


def share(counter: str, part: str, *by: str, where: str = "", over: str = RECENTLY) -> str:
    """Which part of all have this label: 0 where none has, and nothing where nothing happened."""
    whole = added(counter, *by, where=where, over=over)
    having = added(counter, *by, where=", ".join(filter(None, [where, part])), over=over)
    return f"({having} or 0 * {whole}) / ({whole} > 0)"


def shown(label: str) -> str:
    """The label's value, in a legend."""
    return f"{{{{{label}}}}}"


def or_zero(expression: str) -> str:
    """Zero where no series is there yet; for a sum that has no labels."""
    return f"({expression} or vector(0))"


def top(many: int, expression: str) -> str:
    """The greatest."""
    return f"topk({many}, {expression})"


def _sum(inner: str, *by: str) -> str:
    return f"sum by ({', '.join(by)}) ({inner})" if by else f"sum({inner})"
