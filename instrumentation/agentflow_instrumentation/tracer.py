"""Starts spans as the SDK's tracer does, at a third of its price: what was made here is not checked again.

Half of what a span costs in the SDK is that each attribute is looked at, cleaned and put under a lock, once for each
way by which it may come. Ours are of the right types and few. So the span is the SDK's own class with its own
fields, methods, limits, sampler and processors; only its construction is another. Where the SDK is not as it
is known here, its tracer is asked instead.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from threading import Lock
from time import time_ns
from typing import TYPE_CHECKING, Any, Protocol

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import DEFAULT_TRACE_STATE, INVALID_SPAN_CONTEXT, Span, SpanContext, SpanKind, TraceFlags

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from opentelemetry.trace import Link, Tracer
    from opentelemetry.util.types import AttributeValue

_SDK = "opentelemetry.sdk.trace"
_SAMPLING = f"{_SDK}.sampling"
_TRACER = {
    "sampler",
    "resource",
    "span_processor",
    "id_generator",
    "instrumentation_info",
    "_span_limits",
    "_instrumentation_scope",
}
_TRACER_LATER = {"_tracer_config", "_tracer_metrics"}
_SPAN = {
    "_name",
    "_context",
    "_kind",
    "_instrumentation_info",
    "_instrumentation_scope",
    "_parent",
    "_start_time",
    "_end_time",
    "_attributes",
    "_events",
    "_links",
    "_resource",
    "_status",
    "_sampler",
    "_trace_config",
    "_record_exception",
    "_set_status_on_exception",
    "_span_processor",
    "_limits",
    "_lock",
}
_SPAN_LATER = {"_record_end_metrics"}
_ATTRIBUTES = {"maxlen", "dropped", "max_value_len", "_dict", "_lock", "_immutable"}
_ATTRIBUTES_LATER = {"_extended_attributes"}  # from 1.33 to 1.44
_LIST = {"dropped", "_dq", "_lock"}
_READABLE = _SPAN - {
    "_sampler",
    "_trace_config",
    "_record_exception",
    "_set_status_on_exception",
    "_span_processor",
    "_limits",
    "_lock",
}


class Start(Protocol):
    """Starts a span, as `Tracer.start_span` does. `attributes` becomes the span's: who gives it keeps it no longer."""

    def __call__(  # noqa: D102, PLR0913, PLR0917 because the class says it, and it is the SDK's signature
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: dict[str, AttributeValue] | None = None,
        links: tuple[Link, ...] = (),
        start_time: int | None = None,
    ) -> Span: ...


def starter(tracer: Tracer) -> Start:
    """What starts the spans of a tracer."""
    if type(tracer).__module__ == _SDK and type(tracer).__name__ == "Tracer" and _Starter.fits(tracer):
        return _Starter(tracer)
    return tracer.start_span


def tell(span: Span, attributes: Mapping[str, AttributeValue]) -> None:
    """As `span.set_attributes`, for attributes that were made here."""
    held: Any = getattr(span, "_attributes", None)
    if type(span).__name__ != _LIGHT or held.max_value_len is not None:
        span.set_attributes(attributes)
        return
    with held._lock:  # noqa: SLF001 because this is what the SDK does with them
        known: dict[str, AttributeValue] = held._dict  # noqa: SLF001 because as above
        is_full = held.maxlen is not None and len(known) + len(attributes) > held.maxlen
        if held._immutable or is_full or not span.is_recording():  # noqa: SLF001 because as above
            known = {}
        else:
            known.update(attributes)
    if not known:
        span.set_attributes(attributes)


def note(span: Span, name: str, attributes: dict[str, AttributeValue], at: int) -> None:
    """As `span.add_event`, for attributes that were made here, and are nobody else's."""
    limits: Any = getattr(span, "_limits", None)
    many = limits.max_event_attributes if type(span).__name__ == _LIGHT else 0
    if (many is not None and len(attributes) > many) or limits is None or limits.max_attribute_length is not None:
        span.add_event(name, attributes, at)
        return
    light: Any = span
    held: Any = type(light._attributes)(many, None, immutable=True)  # noqa: SLF001 because as above
    held._dict = attributes  # noqa: SLF001 because this is what the SDK does with them
    light._add_event(light._made_of_note(name, held, at))  # noqa: SLF001 because as above


_LIGHT = "AgentflowSpan"
_PLACE = 1, 2, False, TraceFlags(TraceFlags.SAMPLED), DEFAULT_TRACE_STATE
"""A span's context, but for whether it is valid."""
_new: Any = getattr(tuple, "__new__")  # noqa: B009 because its type is partly unknown
_CURRENT = next(iter(trace.set_span_in_context(trace.INVALID_SPAN, Context())))
_FLAGS = tuple(TraceFlags(flags) for flags in range(4))
_SOME = object()
_LARGEST_TRACE_ID = (1 << 128) - 1
_LARGEST_SPAN_ID = (1 << 64) - 1


class _Starter:
    """`Tracer.start_span` of the SDK, for spans of ours."""

    def __init__(self, tracer: Any) -> None:
        from opentelemetry import attributes as sdk_attributes  # noqa: PLC0415 because it comes with the SDK
        from opentelemetry.sdk import trace as sdk  # noqa: PLC0415 because a tracer of the SDK is there
        from opentelemetry.sdk.trace.sampling import Decision  # noqa: PLC0415 because as above

        self._tracer = tracer
        self._sampler = tracer.sampler
        self._follows = _follows_its_parent(tracer.sampler)
        metrics: Any = getattr(tracer, "_tracer_metrics", None)
        nobody_counts = type(metrics).__name__ == "NoOpTracerMetrics"
        self._metrics: Any = None if nobody_counts else metrics
        self._uncounted: Any = metrics.start_span(None, Decision.DROP) if nobody_counts else None
        self._always: Any = _says_always(tracer.sampler)
        self._sampled: Any = Decision.RECORD_AND_SAMPLE
        sample = _sample(tracer)
        fields: dict[str, Any] = sample.__dict__
        limits = tracer._span_limits  # noqa: SLF001 because nothing else has them
        self._list: Any = type(sample._events)  # noqa: SLF001 because it is a span of the SDK
        same = {name: value for name, value in fields.items() if name not in _EACH}
        same["_events"] = _Later("_events", partial(self._listed, (), limits.max_events))
        same["_links"] = _Later("_links", partial(self._listed, (), limits.max_links))
        same["_made_of_note"] = sdk.Event
        same["_readable_span"] = _readable_of(sdk.ReadableSpan)
        self._light: type[Any] = type(_LIGHT, (sdk._Span,), same)  # noqa: SLF001 because only a tracer makes spans
        self._bounded: Any = sdk_attributes.BoundedAttributes
        self._blank: dict[str, Any] = vars(sample._attributes)  # noqa: SLF001 because it is a span of the SDK
        self._most: int | None = limits.max_span_attributes
        self._most_links = limits.max_links
        self._no_attributes = self._bounded(limits.max_link_attributes, None, immutable=True)

    @staticmethod
    def fits(tracer: Any) -> bool:
        """Is the SDK as it is known here, and nothing set that needs its own checks?"""
        if not _knows(tracer, _TRACER, _TRACER_LATER) or not _is_known_sampler(tracer.sampler):
            return False
        limits = tracer._span_limits  # noqa: SLF001 because nothing else has them
        if limits.max_span_attribute_length is not None or not limits.max_links:
            return False
        span = _sample(tracer)
        return (
            _knows(span, _SPAN, _SPAN_LATER)
            and _knows(span._attributes, _ATTRIBUTES, _ATTRIBUTES_LATER)  # noqa: SLF001 because it is a span of the SDK
            and _knows(span._events, _LIST)  # noqa: SLF001 because as above
            and _knows(span._readable_span(), _READABLE)  # noqa: SLF001 because as above
            and tuple(SpanContext(*_PLACE)) == (*_PLACE, True)
        )

    def __call__(  # noqa: PLR0913, PLR0917 because it is the SDK's signature
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: dict[str, AttributeValue] | None = None,
        links: tuple[Link, ...] = (),
        start_time: int | None = None,
    ) -> Span:
        tracer = self._tracer
        attributes = {} if attributes is None else attributes
        if tracer.sampler is not self._sampler or (self._most is not None and len(attributes) > self._most):
            started: Span = tracer.start_span(name, context, kind, attributes, links, start_time)
            return started
        current: Any = _SOME if context is None else context.get(_CURRENT)
        if type(current) is self._light:
            around: SpanContext = current._context  # noqa: SLF001 because a call less for most spans
        elif current is None:
            around = INVALID_SPAN_CONTEXT
        else:
            around = trace.get_current_span(context).get_span_context()
        config = getattr(tracer, "_tracer_config", None)
        if config is not None and not config.is_enabled:
            return trace.NonRecordingSpan(around)
        ids = tracer.id_generator
        trace_id, _, is_remote, flags, state, is_valid = around
        parent = around if is_valid else None
        if parent is not None and self._follows and flags & 1 and not is_remote:
            decision = self._sampled
        else:
            trace_id = ids.generate_trace_id() if parent is None else trace_id
            decision = self._always
            if decision is None:
                result: Any = self._sampler.should_sample(context, trace_id, name, kind, attributes, links)
                decision = result.decision
                state = DEFAULT_TRACE_STATE if result.trace_state is None else result.trace_state
            elif parent is None:
                state = DEFAULT_TRACE_STATE
            flags = self._flags(decision, parent)
        span_id = ids.generate_span_id()
        is_valid = 0 < trace_id <= _LARGEST_TRACE_ID and 0 < span_id <= _LARGEST_SPAN_ID
        span_context: SpanContext = _new(SpanContext, (trace_id, span_id, False, flags, state, is_valid))
        ended = self._uncounted if self._metrics is None else self._metrics.start_span(parent, decision)
        if not decision.is_recording():
            return trace.NonRecordingSpan(span_context)
        span: Any = object.__new__(self._light)
        span.__dict__ = {
            "_name": name,
            "_context": span_context,
            "_kind": kind,
            "_parent": parent,
            "_start_time": time_ns() if start_time is None else start_time,
            "_attributes": self._own(attributes),
            "_resource": tracer.resource,
            "_lock": Lock(),
            "_record_end_metrics": ended,
        }
        if links:
            span._links = self._linked(span, links)  # noqa: SLF001 because it is a span of the SDK
        tracer.span_processor.on_start(span, parent_context=context)
        return span  # type: ignore[no-any-return]  # because it is a span by its class

    def _flags(self, decision: Any, parent: SpanContext | None) -> TraceFlags:
        flags = TraceFlags.SAMPLED if decision.is_sampled() else TraceFlags.DEFAULT
        random = getattr(TraceFlags, "RANDOM_TRACE_ID", 0)  # since 1.42
        if random:
            is_random = (
                self._tracer.id_generator.is_trace_id_random() if parent is None else parent.trace_flags.random_trace_id
            )
            flags |= random if is_random else 0
        return _FLAGS[flags]

    def _own(self, attributes: dict[str, AttributeValue]) -> Any:
        """The SDK's attributes of a span, as if each had been set."""
        made: Any = object.__new__(self._bounded)
        made.__dict__ = {**self._blank, "_dict": attributes, "_lock": Lock()}
        return made

    def _listed(self, items: Iterable[Any], most: int | None) -> Any:
        """The SDK's list of a span, which has room for these."""
        made: Any = object.__new__(self._list)
        made.__dict__ = {"dropped": 0, "_dq": deque(items, most), "_lock": Lock()}
        return made

    def _linked(self, span: Any, links: tuple[Link, ...]) -> Any:
        valid: list[Link] = []
        for link in links:
            context: Any = link._context  # noqa: SLF001 because a call less for most links
            if link.attributes or len(links) > self._most_links:
                span._limits = self._tracer._span_limits  # noqa: SLF001 because they are what the SDK looks at
                return span._new_links(links)  # noqa: SLF001 because it is what the SDK does
            if context.is_valid:
                link._attributes = self._no_attributes  # noqa: SLF001 because it is what the SDK does
                valid.append(link)
        return self._listed(valid, self._most_links)


_EACH = {
    "_name",
    "_context",
    "_kind",
    "_parent",
    "_start_time",
    "_attributes",
    "_events",
    "_links",
    "_resource",
    "_lock",
    "_record_end_metrics",
}
"""The fields of a span that are not the same for all spans of a tracer: the others are its class's."""


class _Later:
    """A list of a span that is made when somebody asks for it: most spans have no events, and many no links."""

    def __init__(self, name: str, make: Callable[[], Any]) -> None:
        self._name = name
        self._make = make

    def __get__(self, span: Any, owner: type[Any]) -> Any:
        return span.__dict__.setdefault(self._name, self._make())


def _readable_of(kind: Any) -> Callable[[Any], Any]:
    """What makes of a span what is exported, as the SDK does."""

    def readable_span(span: Any) -> Any:
        held = span.__dict__
        made = object.__new__(kind)
        made.__dict__ = {
            "_name": held["_name"],
            "_context": held["_context"],
            "_kind": held["_kind"],
            "_instrumentation_info": span._instrumentation_info,  # noqa: SLF001 because it is a span of the SDK
            "_instrumentation_scope": span._instrumentation_scope,  # noqa: SLF001 because as above
            "_parent": held["_parent"],
            "_start_time": held["_start_time"],
            "_end_time": held["_end_time"],
            "_attributes": held["_attributes"],
            "_events": held.get("_events", ()),
            "_links": held.get("_links", ()),
            "_resource": held["_resource"],
            "_status": span._status,  # noqa: SLF001 because as above
        }
        return made

    return readable_span


def _sample(tracer: Any) -> Any:
    """A span of the SDK that never begins."""
    from opentelemetry.sdk import trace as sdk  # noqa: PLC0415 because a tracer of the SDK is there

    return sdk._Span(  # noqa: SLF001 because only a tracer makes spans
        name="",
        context=trace.INVALID_SPAN_CONTEXT,
        sampler=tracer.sampler,
        resource=tracer.resource,
        span_processor=tracer.span_processor,
        instrumentation_info=tracer.instrumentation_info,
        limits=tracer._span_limits,  # noqa: SLF001 because nothing else has them
        instrumentation_scope=tracer._instrumentation_scope,  # noqa: SLF001 because as above
    )


def _knows(thing: object, fields: set[str], later: set[str] = frozenset()) -> bool:  # type: ignore[assignment]  # because an empty set is one
    """Has it these fields, and perhaps those of later versions, and no others?"""
    there = set(vars(thing))
    return fields <= there <= fields | later


def _is_known_sampler(sampler: Any) -> bool:
    """Is it one of the SDK's, with nothing of others inside? These leave the attributes as they are."""
    if type(sampler).__module__ != _SAMPLING:
        return False
    inside: list[Any] = list(sampler.__dict__.values())
    return all(_is_known_sampler(one) for one in inside if hasattr(one, "should_sample"))


def _follows_its_parent(sampler: Any) -> bool:
    """Does it sample every child of a span of this process that is sampled?"""
    decision = _says_always(getattr(sampler, "_local_parent_sampled", None))
    return getattr(decision, "name", "") == "RECORD_AND_SAMPLE"


def _says_always(sampler: Any) -> Any:
    """What it decides of every span; None where it depends."""
    return getattr(sampler, "_decision", None) if type(sampler).__name__ == "StaticSampler" else None
