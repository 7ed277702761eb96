"""The observer that makes spans: one for each operation, each in its place, with its cause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakSet

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.trace import Link, NonRecordingSpan, SpanKind, format_span_id

from agentflow.observe import Kind, Observer, current_scope

from . import agents, clients, names, notes
from .content import Policy, longest_value
from .failures import fail
from .interplay import below
from .origin import before, belongs, belongs_here, origin, pack, sent_by
from .place import beginning, inside, left_by
from .tracer import starter, tell
from .trail import RunTrail, Trail, alive, give_up, with_span

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.context import Context
    from opentelemetry.trace import Tracer, TracerProvider
    from opentelemetry.util.types import AttributeValue

    from agentflow.observe import Note, Operation, Outcome, Ref

    from .content import Content, Teller
    from .redactors import Redactor

Events = Literal["spans", "links"]

_RUN, _STEP, _EVENT = Kind.RUN, Kind.STEP, Kind.EVENT  # a look into an enum costs as much as a call
_MOST_LINKS = 128
_MOST_NAMED = 16
_MODELS = (Kind.CHAT, Kind.EMBEDDINGS)
_FAILURES = frozenset({"error", "timeout", "retried"})
_CLIENTS = {  # kind: how the span's name begins, its kind, its kind for Phoenix, its operation for the conventions
    Kind.CHAT: ("chat", SpanKind.CLIENT, "LLM", "chat"),
    Kind.EMBEDDINGS: ("embeddings", SpanKind.CLIENT, "EMBEDDING", "embeddings"),
    Kind.RETRIEVAL: ("retrieval", SpanKind.CLIENT, "RETRIEVER", "retrieval"),
    Kind.RERANK: ("rerank", SpanKind.CLIENT, "RERANKER", None),
    Kind.TOOL: ("execute_tool", SpanKind.INTERNAL, "TOOL", "execute_tool"),
    Kind.MEMORY: ("memory", SpanKind.INTERNAL, "CHAIN", None),
    Kind.RESOURCE: ("resource", SpanKind.INTERNAL, "CHAIN", None),
    Kind.CHECKPOINT: ("checkpoint", SpanKind.INTERNAL, "CHAIN", None),
    Kind.GUARDRAIL: ("guardrail", SpanKind.INTERNAL, "GUARDRAIL", None),
}


class SpanObserver(Observer):
    """Makes spans of runs, steps, events and the calls of clients, through the OpenTelemetry API.

    - `tracer_provider`: where spans go; the global one by default.
    - `content`: what of the user's data goes out. "none": sizes and counts; "preview": cut to 1 kB a text;
      "full": cut to 8 kB a text, 64 kB an attribute. By default what
      `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT` says, else "none".
    - `redactors`: what else is taken out of content: callables `redact(text, where) -> text`, in this order.
    - `events`: "spans" makes a span of each event on its way from sent to taken up; "links" leaves these out
      and links a step to the step that sent its event.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        *,
        content: Content | None = None,
        redactors: Iterable[Redactor] = (),
        events: Events = "spans",
    ) -> None:
        self.events: Events = events
        provider = trace.get_tracer_provider() if tracer_provider is None else tracer_provider
        self._tracer: Tracer = provider.get_tracer(names.SCOPE, names.version(), schema_url=names.SCHEMA)
        self._start = starter(self._tracer)
        self._policy = Policy(content, redactors, longest=longest_value(self._tracer))
        self._all_or_none = _samples_whole_traces(self._tracer)
        self._runs: WeakSet[Trail] = WeakSet()

    @property
    def content(self) -> Content:
        """The level; when it is set, it holds for what is told from now on."""
        return self._policy.level

    @content.setter
    def content(self, level: Content) -> None:
        self._policy = self._policy.at(level)

    def __repr__(self) -> str:
        return f"SpanObserver(content={self.content!r}, events={self.events!r})"

    def started(self, op: Operation) -> bool | None:
        """Begin a span, and make it the current one, unless it is an event's."""
        kind = op.kind
        if kind is _STEP:
            self._begin_step(op)
        elif kind is _EVENT:
            self._begin_event(op)
        elif kind is _RUN:
            return self._begin_run(op)
        else:
            self._begin_call(op)
        return None

    def noted(self, op: Operation, note: Note) -> None:
        """Add an event to the span, or links."""
        trail: Trail | None = op.ref.carried_by(self)
        if trail is None or trail.span is None or not trail.span.is_recording():
            return
        if note.name == "collected":
            self._link(op, trail, note.facts["causes"], note.facts["count"])
        else:
            notes.add(trail, note, self._teller(trail))

    def finished(self, op: Operation, error: BaseException | None) -> None:
        """End the span."""
        trail: Trail | None = op.ref.carried_by(self)
        if trail is None:
            return
        if trail.token is not None:
            trail.detach()
        run, pauses = trail.run, op.kind is _RUN and op.outcome == "suspended" and error is None
        if pauses:
            # a step may be alive in a wait, with what it has open; else the run is to hold nothing while it waits
            trail.run = trail.context = None
        elif run is not None and op.kind is _RUN:
            self._end_calls(run)
        elif run is not None:
            run.forget(trail)
        # it leads back to this operation; the events that a step has sent begin after its end
        trail.context = left_by(trail.context) if op.kind is _STEP and trail.context is not None else None
        span, trail.span = trail.span, None
        if span is None or not span.is_recording():
            return
        if op.kind is _EVENT:
            tell(span, {names.OUTCOME: op.outcome})
        else:
            if pauses and run is not None and run.asked is not None:
                tell(span, self._teller(trail).output(run.asked))
            self._tell(op, trail, span, error)
        span.end(op.ended_at)

    def _tell(self, op: Operation, trail: Trail, span: trace.Span, error: BaseException | None) -> None:
        outcome = op.outcome
        made: dict[str, AttributeValue] = {names.OUTCOME: outcome}
        if trail.counts is not None:
            made |= notes.totals(trail)
        teller = self._teller(trail)
        made |= self._results(op, trail, error, teller)
        if teller.may.shows:
            made |= teller.facts()
        tell(span, made)
        if outcome != "ok" and outcome in _FAILURES:
            fail(span, error, "timeout" if outcome == "timeout" else None, teller, op.ended_at)
            tell(span, teller.facts())

    def close(self) -> None:
        """End the spans of runs that are still open, and of what is open in them: nobody will hear of their end.

        A run that stands still is suspended, one that works is cancelled, as far as it is told.
        """
        # runs inside of runs first, as ever
        for trail in sorted(alive(self._runs), key=lambda trail: getattr(trail.span, "start_time", 0), reverse=True):
            if trail.run is not None:
                self._end_calls(trail.run)
                trail.lost = self._end_parts(trail.run)
            span, trail.span = trail.span, None
            if span is not None:
                give_up(span, trail.lost)

    def _end_parts(self, run: RunTrail) -> Outcome:
        """End the steps and events of a run. Says how the run itself ends."""
        parts, run.parts = run.parts, set()
        works = any(not part.waits for part in parts)
        for part in parts:
            span, part.span = part.span, None
            if span is not None:
                give_up(span, "suspended" if part.waits or not works else part.lost)
        return "cancelled" if works else "suspended"

    def _end_calls(self, run: RunTrail) -> None:
        """What still goes on in threads when the run has ended was left behind."""
        if not run.calls:  # it costs less to ask than to go through none
            return
        for trail in alive(run.calls):
            span, trail.span = trail.span, None
            if span is not None:
                give_up(span, "cancelled")
        run.calls.clear()

    def _begin_run(self, op: Operation) -> bool | None:
        here = otel.get_current()
        current = beginning(self, op.ref, here)
        made: dict[str, AttributeValue] = {names.SPAN_KIND: "CHAIN", names.RUN_ID: op.run_id or ""}
        if op.agent is None:
            name = f"invoke_workflow {op.name}"
            made[names.OPERATION] = "invoke_workflow"
        else:
            name = f"invoke_agent {op.agent}"
            made[names.SPAN_KIND] = "AGENT"
            made[names.OPERATION] = "invoke_agent"
            made[names.AGENT] = op.agent
        made[names.WORKFLOW] = op.name
        teller = self._policy.teller()
        if teller.may.inputs and op.subject is not None:
            made |= teller.input(agents.question(op.subject)) | teller.facts()
        above = self._trail(op.parent)
        run = RunTrail()
        run.silent = op.subject is None
        run.belongs = belongs(op, None if above is None or above.run is None else above.run.belongs, here)
        made[names.SEGMENT] = op.segment
        made |= run.belongs
        earlier: trace.SpanContext | None = None
        links: tuple[Link, ...] = ()
        if op.origin is not None:
            earlier = before(op)
            told, links = origin(op, earlier)
            made |= told
        around = current
        if op.parent is None:
            place = trace.get_current_span(current).get_span_context()
            scope = current_scope.get()
            if scope is None:
                links = links if place.is_valid else (*links, *sent_by(current))
            elif scope.run_id != op.run_id:
                # inside a step: a trace of its own, that knows where it came from
                links = (*links, *_links(place))
            if scope is not None or (earlier is not None and op.segment > 1 and earlier.trace_id == place.trace_id):
                around = with_span(trace.INVALID_SPAN, current)
        span = self._start(name, around, attributes=made, links=links, start_time=op.started_at)
        trail = Trail(span, span.get_span_context(), op.name, "suspended")
        trail.teller = teller
        trail.run = run
        op.ref.carry(self, trail)
        pack(op, trail.span_context)
        trail.attach(inside(span, op.ref, here))
        if not span.is_recording():
            return False if self._all_or_none else None
        self._runs.add(trail)
        return None

    def _begin_step(self, op: Operation) -> None:
        made: dict[str, AttributeValue] = {
            names.SPAN_KIND: "CHAIN",
            names.RUN_ID: op.run_id or "",
            names.WORKFLOW_OF: op.workflow or "",
            names.STEP: op.name,
            names.ATTEMPT: op.attempt,
            names.EVENT_TYPE: type(op.subject).__name__,
            names.QUEUE_WAIT: op.queued_ns / 1e9,
        }
        if (said := agents.step_begins(op.subject)) is not None:
            made |= said
        links: tuple[Link, ...] = ()
        cause: Trail | None = None if op.cause is None else op.cause.carried_by(self)
        if cause is not None:
            made[names.TRIGGERED_BY] = (str(cause),)
            links = (Link(cause.span_context),)
        teller = self._policy.teller()
        if teller.may.inputs:
            made |= teller.input(agents.taken(op.subject)) | teller.facts()
        parent = self._trail(op.parent)
        around = _inside(parent)
        span = self._start(f"step {op.name}", around, attributes=made, links=links, start_time=op.started_at)
        trail = Trail(span, span.get_span_context(), op.name, "cancelled")
        trail.teller = teller
        if parent is not None:
            run = trail.run = parent.run
            if run is not None:
                run.parts.add(trail)
                if (run.silent or run.asked is not None) and agents.is_answer(op.subject):
                    self._answer(op.subject, run, parent)
        op.ref.carry(self, trail)
        trail.attach(inside(span, op.ref, around))

    def _answer(self, event: object, run: RunTrail, trail: Trail) -> None:
        """What a person said is what a run goes on with."""
        run.asked = None
        teller = self._teller(trail)
        if run.silent and trail.span is not None and teller.may.inputs:
            run.silent = False
            tell(trail.span, teller.input(agents.question(event)))

    def _begin_event(self, op: Operation) -> None:
        sender = self._trail(op.cause)
        label = op.name if sender is None else f"{sender.label}:{op.name}"
        if self.events == "links":
            if sender is not None:
                op.ref.carry(self, Trail(None, sender.span_context, label, "dropped"))
            return
        made: dict[str, AttributeValue] = {
            names.SPAN_KIND: "CHAIN",
            names.RUN_ID: op.run_id or "",
            names.WORKFLOW_OF: op.workflow or "",
            names.EVENT_TYPE: op.name,
        }
        parent = sender or self._trail(op.parent)
        span = self._start(
            f"event {op.name}",
            otel.get_current() if parent is None else parent.context,
            attributes=made,
            start_time=op.started_at,
        )
        trail = Trail(span, span.get_span_context(), label, "dropped")
        if parent is not None and parent.run is not None:
            trail.run = parent.run
            parent.run.parts.add(trail)
        op.ref.carry(self, trail)

    def _begin_call(self, op: Operation) -> None:
        """The call of a client belongs where it is made: in the current span, be it the user's own."""
        first, kind, shown_as, operation = _CLIENTS[op.kind]
        made: dict[str, AttributeValue] = {names.SPAN_KIND: shown_as}
        if operation is not None:
            made[names.OPERATION] = operation
        if op.run_id is not None:
            made[names.RUN_ID] = op.run_id
        parent = self._trail(op.parent)
        run = None if parent is None else parent.run
        teller = self._policy.teller()
        made |= clients.begins(op, run, teller) | teller.facts()
        if op.kind is Kind.CHAT:
            made |= belongs_here() if run is None else run.belongs
        name = f"{first} {clients.name_of(op)}" if op.name else first
        current = otel.get_current()
        around = beginning(self, op.ref, current)
        span = self._start(name, around, kind=kind, attributes=made, start_time=op.started_at)
        trail = Trail(span, span.get_span_context(), op.name, "cancelled")
        trail.teller = teller
        if run is not None:
            trail.belongs_to(run)
        if op.kind is Kind.CHAT and run is not None and run.history is not None:
            run.history.span_id = format_span_id(trail.span_context.span_id)
        op.ref.carry(self, trail)
        within = inside(span, op.ref, current)
        trail.attach(below(within) if op.kind in _MODELS else within)

    def _results(
        self, op: Operation, trail: Trail, error: BaseException | None, teller: Teller
    ) -> dict[str, AttributeValue]:
        if op.kind in _CLIENTS:
            return clients.ends(op, trail, error, teller)
        made: dict[str, AttributeValue] = {}
        if op.kind is _RUN:
            made = agents.run_ends(op.result, error)
        elif op.result is not None:
            made = agents.step_ends(op.result, teller)
        if not teller.may.outputs or op.result is None:
            return made
        if op.kind is _STEP:
            if names.ASKED in made and trail.run is not None:
                trail.run.asked = agents.asked(op.result)
            made |= teller.output(_produced(op.result))
        elif op.outcome == "ok":
            made |= teller.output(agents.answer(op.result))
        return made

    def _link(self, op: Operation, trail: Trail, causes: list[Ref], count: int) -> None:
        assert trail.span is not None
        own = self._trail(op.cause)
        collected = [cause for ref in causes if (cause := self._trail(ref)) is not None]
        for cause in [cause for cause in collected if cause is not own][: _MOST_LINKS - 1]:
            trail.span.add_link(cause.span_context)
        made: dict[str, AttributeValue] = {names.COLLECTED: count}
        if collected:
            made[names.TRIGGERED_BY] = tuple(str(cause) for cause in collected[:_MOST_NAMED])
        tell(trail.span, made)

    def _teller(self, trail: Trail) -> Teller:
        """What tells the content of a span that has begun; nothing more where the level was lowered meanwhile."""
        teller = trail.teller
        return self._policy.teller() if teller is None or teller.may is not self._policy else teller

    def _trail(self, ref: Ref | None) -> Trail | None:
        return None if ref is None else ref.carried_by(self)


def _inside(parent: Trail | None) -> Context:
    """The current context, with the parent's span as the current one, as the records have it."""
    current = otel.get_current()
    if parent is None or parent.context is current:
        return current
    return with_span(NonRecordingSpan(parent.span_context), current)


def _links(span_context: trace.SpanContext) -> tuple[Link, ...]:
    return (Link(span_context),) if span_context.is_valid else ()


def _produced(out: Any) -> object:
    if isinstance(out, list):
        return [_produced(one) for one in out[:_MOST_LINKS]]  # pyright: ignore[reportUnknownVariableType]  # because a list holds anything
    return {type(out).__name__: agents.produced(out)}


def _samples_whole_traces(tracer: Any) -> bool:
    """Does the sampler leave out a whole trace when it leaves out its root?"""
    sampler: object = getattr(tracer, "sampler", None)
    kind: type[object] = type(sampler)
    if kind.__module__ != "opentelemetry.sdk.trace.sampling":
        return False
    if kind.__name__ in {"ParentBased", "ParentBasedTraceIdRatio"}:
        inside: object = getattr(sampler, "_local_parent_not_sampled", None)
        return type(inside).__name__ == "StaticSampler"
    return kind.__name__ in {"StaticSampler", "TraceIdRatioBased"}
