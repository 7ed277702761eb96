"""The observer that makes metrics: of runs, steps, events, and the calls of clients, sampled or not."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import ref

from opentelemetry import context as otel
from opentelemetry import metrics, trace

from agentflow.observe import Kind, Observer, current_scope

from . import names
from .bounded import Bounded
from .failures import error_type
from .identity import ByIdentity
from .instruments import make
from .load import Going, Load
from .series import recorder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.context import Context
    from opentelemetry.metrics import MeterProvider

    from agentflow.observe import Note, Operation

    from .series import Record

_RUN, _STEP, _EVENT, _CHAT, _TOOL = Kind.RUN, Kind.STEP, Kind.EVENT, Kind.CHAT, Kind.TOOL  # a look-up costs a call
_FAILURES = frozenset({"error", "timeout", "retried"})
_SCOPES = {Kind.STEP: "step", Kind.CHAT: "llm", Kind.EMBEDDINGS: "llm", Kind.TOOL: "tool"}
_NOTED = frozenset({"retry", "fallback", "cache", "first_chunk"})
_TIMED = {  # kind: its metric, and the dimension that is the operation's name
    Kind.RETRIEVAL: (names.METRIC_RETRIEVAL_DURATION, names.DATA_SOURCE),
    Kind.RERANK: (names.METRIC_RERANK_DURATION, names.RERANK_MODEL),
    Kind.MEMORY: (names.METRIC_MEMORY_DURATION, names.MEMORY_OPERATION),
    Kind.RESOURCE: (names.METRIC_RESOURCE_DURATION, names.RESOURCE_NAME),
    Kind.CHECKPOINT: (names.METRIC_CHECKPOINT_DURATION, None),
}
_NOTHING = trace.set_span_in_context(trace.INVALID_SPAN, otel.Context())
"""Instead of an empty context, for which the SDK would take the one that is current when something is recorded."""
_MOST_SERIES = 4096
"""So many sets of dimensions are remembered; others are made each time."""


class _Meters:
    """The instruments of one provider, and what they read when metrics are collected."""

    def __init__(self, provider: MeterProvider) -> None:
        self.bounded = Bounded()
        self.load = Load(self.bounded)
        meter = provider.get_meter(names.SCOPE, names.version(), schema_url=names.SCHEMA)
        self.instruments = make(meter, self.load.callbacks())


_meters: ByIdentity[_Meters] = ByIdentity()
_making = Lock()


def _meters_of(provider: MeterProvider) -> _Meters:
    """Made once for each provider: it keeps its instruments, and would read those of a second observer as well."""
    with _making:
        found = _meters.get(provider)
        if found is None:
            found = _meters[provider] = _Meters(provider)
        return found


class _Call:
    """What is known of the call of a client that goes on."""

    __slots__ = ("cached", "context", "first_chunk", "retries", "run")

    def __init__(self, run: Going | None, context: Context) -> None:
        self.run = run
        self.context = context
        self.retries = 0
        """How often it was tried again, by whoever is asked now."""
        self.cached = False
        self.first_chunk: float | None = None


class MetricObserver(Observer):
    """Makes metrics through the OpenTelemetry API, of all runs, whether they are traced or not.

    - `meter_provider`: where metrics go; the global one by default.

    A measurement is made in the context of its operation, so that its exemplar is the operation's own span.
    """

    kinds = frozenset(Kind) - {Kind.GUARDRAIL}
    reads_current = True

    def __init__(self, meter_provider: MeterProvider | None = None) -> None:
        meters = _meters_of(metrics.get_meter_provider() if meter_provider is None else meter_provider)
        self._bounded = meters.bounded
        self._load = meters.load
        self._to = meters.instruments
        self._sent = meters.load.sent
        self._steps: dict[tuple[object, ...], tuple[Record, Record]] = {}
        self._series: dict[tuple[object, ...], Record] = {}

    def __repr__(self) -> str:
        return "MetricObserver()"

    def close(self) -> None:
        """There is nothing to end: a run is recorded when it ends, and another may go on with the instruments."""

    def started(self, op: Operation) -> None:
        """Remember what is current in the operation, and to which run it belongs."""
        kind = op.kind
        if kind is _EVENT:
            self._sent(op.workflow, op.name)
            return
        if kind is _RUN:
            self._begin_run(op)
            return
        parent: Going | _Call | None = None if op.parent is None else op.parent.carried_by(self)
        run = parent.run if isinstance(parent, _Call) else parent
        if kind is _STEP and run is not None and run.engine is None:
            scope = current_scope.get()
            run.engine = None if scope is None or scope.run is None else ref(scope.run)
        op.ref.carry(self, _Call(run, otel.get_current() or _NOTHING))

    def noted(self, op: Operation, note: Note) -> None:
        """Count retries; remember what else a call's measurements depend on."""
        if note.name not in _NOTED or op.kind not in _SCOPES:
            return
        call: _Call | None = op.ref.carried_by(self)
        if call is None:
            return
        if note.name == "retry":
            call.retries += 1
            facts = note.facts
            self._retried(op, call, facts.get("error"), exhausted=False)
            wait = facts.get("delay") if op.kind is _STEP else facts.get("wait")
            if wait:
                made = self._retry(op, facts.get("error"))
                self._to[names.METRIC_RETRY_WAIT].add(float(wait), made, call.context)
        elif note.name == "first_chunk":
            call.first_chunk = float(note.facts.get("after") or 0.0)
        elif note.name == "cache":
            call.cached = call.cached or bool(note.facts.get("hit"))
        elif call.retries:  # the next model is asked because this one failed for good
            self._retried(op, call, note.facts.get("error"), exhausted=True)
            call.retries = 0

    def finished(self, op: Operation, error: BaseException | None) -> None:
        """Record what the operation took."""
        kind = op.kind
        if kind is _EVENT:
            return
        if kind is _STEP:
            self._end_step(op, error)
            return
        if kind is _RUN:
            self._load.leave(op.ref.id)
        known: Going | _Call | None = op.ref.carried_by(self)
        if isinstance(known, Going):
            self._end_run(op, known, error)
        elif known is not None:
            self._end_call(op, known, error)

    # -- runs and steps

    def _begin_run(self, op: Operation) -> None:
        value = self._bounded.value
        agent = None if op.agent is None else value(names.AGENT, op.agent)
        run = Going(value(names.WORKFLOW_OF, op.name), agent, otel.get_current() or _NOTHING)
        op.ref.carry(self, run)
        self._load.enter(op.ref.id, run)
        if agent is not None:
            resumed = op.origin if op.origin is not None and op.origin.how == "resumed_from" else None
            run.begin(op.luggage, "" if resumed is None else resumed.luggage.get(names.CALLS_BEFORE, ""))
        if op.suspended_ns:
            about = {names.WORKFLOW_OF: run.workflow}
            self._record(names.METRIC_SUSPENDED, op.suspended_ns / 1e9, about, run.context)

    def _end_run(self, op: Operation, run: Going, error: BaseException | None) -> None:
        failed = self._error(op, error)
        about: dict[str, str] = {names.WORKFLOW: run.workflow, names.OUTCOME: op.outcome, **failed}
        self._record(names.METRIC_RUN_DURATION, _seconds(op), about, run.context)
        if run.agent is None:
            return
        agent = {names.AGENT: run.agent}
        self._record(names.METRIC_AGENT_DURATION, _seconds(op), {**agent, **failed}, run.context)
        if op.outcome != "suspended":
            self._record(names.METRIC_AGENT_INFERENCES, run.calls[0], agent, run.context)
            self._record(names.METRIC_AGENT_TOOLS, run.calls[1], agent, run.context)

    def _end_step(self, op: Operation, error: BaseException | None) -> None:
        outcome = op.outcome
        failure = None if outcome not in _FAILURES else self._error(op, error)[names.ERROR_TYPE]
        key = op.workflow, op.name, outcome, failure
        both = self._steps.get(key)
        if both is None:
            place = self._load.place(op.workflow, op.name)
            about: dict[str, str] = {**place, names.OUTCOME: outcome}
            if failure is not None:
                about[names.ERROR_TYPE] = failure
            duration, wait = names.METRIC_STEP_DURATION, names.METRIC_QUEUE_WAIT
            both = recorder(self._to[duration], about), recorder(self._to[wait], place)
            if len(self._steps) < _MOST_SERIES:
                self._steps[key] = both
        call: _Call | None = op.ref.carried_by(self)
        context = otel.get_current() or _NOTHING if call is None else call.context
        both[0](_seconds(op), context)
        both[1](op.queued_ns / 1e9, context)
        if op.attempt > 1 and failure is not None and outcome != "retried" and call is not None:
            self._retried(op, call, error, exhausted=True)

    # -- the calls of clients

    def _end_call(self, op: Operation, call: _Call, error: BaseException | None) -> None:
        kind = op.kind
        if kind is _TOOL:
            self._end_tool(op, call, error)
        elif kind is _CHAT or kind is Kind.EMBEDDINGS:
            self._end_model(op, call, error)
        elif kind in _TIMED:
            metric, named = _TIMED[kind]
            about = self._bounded.values({names.WORKFLOW_OF: op.workflow, **({named: op.name} if named else {})})
            self._record(metric, _seconds(op), about, call.context)
            found: list[object] | None = op.result
            if kind is Kind.RETRIEVAL and isinstance(found, list):
                self._record(names.METRIC_RETRIEVED, len(found), about, call.context)
        if call.retries and op.outcome in _FAILURES:
            self._retried(op, call, error, exhausted=True)

    def _end_tool(self, op: Operation, call: _Call, error: BaseException | None) -> None:
        if op.outcome == "suspended":  # it goes on later, as another operation
            return
        run = call.run
        about = {names.TOOL_NAME: self._tool(op), names.TOOL_TYPE: "function", **self._error(op, error)}
        if run is not None:
            run.called(tool=True)
            if run.agent is not None:
                about[names.AGENT] = run.agent
        self._record(names.METRIC_TOOL_DURATION, _seconds(op), about, call.context)

    def _end_model(self, op: Operation, call: _Call, error: BaseException | None) -> None:
        """What a cache answered took nothing of a model: no time, no tokens, no money."""
        if call.cached:
            return
        if call.run is not None and op.kind is _CHAT:
            call.run.called(tool=False)
        provider, model, address, port = _asked(op)
        answer = op.result if hasattr(op.result, "usage") else None
        asked = {names.PROVIDER: provider, names.REQUEST_MODEL: model}
        about: dict[str, Any] = self._bounded.values(
            {
                names.OPERATION: op.kind.value,
                **asked,
                names.RESPONSE_MODEL: getattr(answer, "model", None),
                names.SERVER_ADDRESS: address,
            }
        )
        if address and port and self._bounded.value(names.SERVER_PORT, str(port)) != names.OTHER:
            about[names.SERVER_PORT] = port
        self._record(names.METRIC_CLIENT_DURATION, _seconds(op), {**about, **self._error(op, error)}, call.context)
        if call.first_chunk is not None:
            self._record(names.METRIC_FIRST_CHUNK, call.first_chunk, about, call.context)
        if answer is None:
            return
        usage: Any = answer.usage
        for kind, tokens in (("input", usage.input_tokens), ("output", usage.output_tokens)):
            if tokens is not None:
                self._record(names.METRIC_TOKENS, tokens, {**about, names.TOKEN_TYPE: kind}, call.context)
        if usage.cost:
            paid = self._bounded.values({**asked, names.WORKFLOW_OF: op.workflow})
            self._to[names.METRIC_COST].add(float(usage.cost), paid, call.context)

    def _record(self, metric: str, value: float, about: Mapping[str, str | int], context: Context) -> None:
        key = metric, *about.items()
        record = self._series.get(key)
        if record is None:
            record = recorder(self._to[metric], about)
            if len(self._series) < _MOST_SERIES:
                self._series[key] = record
        record(value, context)

    # -- dimensions

    def _retried(self, op: Operation, call: _Call, error: BaseException | None, *, exhausted: bool) -> None:
        made = {**self._retry(op, error), names.RETRY_EXHAUSTED: exhausted}
        self._to[names.METRIC_RETRIES].add(1, made, call.context)

    def _retry(self, op: Operation, error: BaseException | None) -> dict[str, str]:
        scope = _SCOPES[op.kind]
        name = op.name if scope == "step" else self._tool(op) if scope == "tool" else _asked(op)[1]
        made = {names.RETRY_SCOPE: scope, names.RETRY_NAME: self._bounded.value(names.RETRY_NAME, name)}
        if error is not None:
            made[names.ERROR_TYPE] = self._bounded.value(names.ERROR_TYPE, error_type(error))
        return made

    def _tool(self, op: Operation) -> str:
        known = getattr(op.subject, "known", True)
        return self._bounded.value(names.TOOL_NAME, op.name) if known else names.OTHER

    def _error(self, op: Operation, error: BaseException | None) -> dict[str, str]:
        """What is said of an operation that failed. One that was cancelled has not."""
        if op.outcome not in _FAILURES:
            return {}
        kind = "timeout" if op.outcome == "timeout" else "_OTHER" if error is None else error_type(error)
        return {names.ERROR_TYPE: self._bounded.value(names.ERROR_TYPE, kind)}


def _seconds(op: Operation) -> float:
    return max(0, op.ended_at - op.started_at) / 1e9


def _asked(op: Operation) -> tuple[str | None, str, str | None, int | None]:
    """Who was asked, of several the last: provider, model, the server's address and port."""
    call: Any = op.subject
    if not hasattr(call, "provider"):
        return None, op.name, None, None
    asked: tuple[str, str, str | None, int | None] | None = getattr(getattr(call, "progress", None), "asked", None)
    return asked or (call.provider, call.model, call.server_address, call.server_port)
