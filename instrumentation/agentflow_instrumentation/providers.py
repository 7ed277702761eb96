"""The providers of this process: those that are there, else ours, and what these sample."""

from __future__ import annotations

import os
import socket
import uuid
import weakref
from functools import partial
from inspect import signature
from sys import modules
from typing import TYPE_CHECKING, Any

from . import discovery, names
from .exporters import service_name
from .hub import Hub, LogHub, SpanHub
from .identity import ByIdentity
from .ids import Ids

if TYPE_CHECKING:
    from collections.abc import Callable

_INSTANCE = "service.instance.id"

ours: ByIdentity[bool] = ByIdentity()
"""The providers that `setup()` has made."""
_hubs: ByIdentity[Any] = ByIdentity()
_samplers: ByIdentity[list[Any]] = ByIdentity()
"""Of each tracer provider of ours, the sampler that the environment says, and those that were chosen since."""
_resources: ByIdentity[Any] = ByIdentity()
_GLOBALS = (
    ("opentelemetry.metrics._internal", "_METER_PROVIDER"),
    ("opentelemetry._logs._internal", "_LOGGER_PROVIDER"),
)


def check_share(sampling: object) -> None:
    """Raise `ValueError` for what is no share."""
    if sampling is None:
        return
    if isinstance(sampling, bool) or not isinstance(sampling, int | float) or not 0 <= sampling <= 1:
        meant = ""
        if isinstance(sampling, int | float) and not isinstance(sampling, bool) and 1 < sampling <= 100:  # noqa: PLR2004 because it is per cent
            meant = f" For {sampling:g} %, write: sampling={sampling / 100:g}"
        msg = f"setup(sampling={sampling!r}): a share of the traces is needed, from 0 for none to 1 for all.{meant}" + (
            "" if meant else " Write: sampling=0.1"
        )
        raise ValueError(msg)


def tracer_provider(name: str | None, share: float | None) -> Any:
    """The global provider; one of ours where there is none. `share`: of the traces, which one of others refuses."""
    from opentelemetry import trace  # noqa: PLC0415 because only who traces needs it

    there = trace.get_tracer_provider()
    if hasattr(there, "add_span_processor"):
        if share is not None and there not in ours:
            _refuse(share, there)
        return there
    if not isinstance(there, trace.ProxyTracerProvider):
        what = "takes no span processors"
        raise _stranger("tracer", there, what)
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 because the SDK is heavy

    resource = _resource(name)
    ids: Any = Ids()
    made = TracerProvider(resource=resource, id_generator=ids, shutdown_on_exit=False)
    _samplers[made] = [made.sampler]
    ours[made] = True
    trace.set_tracer_provider(made)
    return made


def sample(provider: Any, share: float | None) -> Callable[[], None]:
    """Let a provider of ours record that share of the traces, or what the environment says. Returns what ends this."""
    chosen = _samplers.get(provider)
    if chosen is None:
        return lambda: None
    sampler = chosen[0] if share is None else _sampler_of(share)
    chosen.append(sampler)
    _use(provider, sampler)

    def leave() -> None:
        chosen.reverse()
        chosen.remove(sampler)  # the latest of its kind, never what the environment says
        chosen.reverse()
        _use(provider, chosen[-1])

    return leave


def _sampler_of(share: float) -> Any:
    """Keeps that share of the traces that begin here, and of others what was decided where they began."""
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased  # noqa: PLC0415 because the SDK is heavy

    return ParentBased(TraceIdRatioBased(share))


def _refuse(share: float, provider: object) -> None:
    """Raise `ValueError`: whoever has set up the provider has chosen its sampler."""
    name = type(provider).__name__
    msg = (
        f"setup(sampling={share:g}): a {name} is set up already, and its sampler stays. Call setup() before whatever "
        f"sets it, or sample there: {name}(sampler=ParentBased(TraceIdRatioBased({share:g}))), or by the variables "
        f"OTEL_TRACES_SAMPLER=parentbased_traceidratio OTEL_TRACES_SAMPLER_ARG={share:g}"
    )
    raise ValueError(msg)


def _use(provider: Any, sampler: Any) -> None:
    provider.sampler = sampler
    for tracer in getattr(provider, "_tracers", {}).values():  # which newer SDKs remember, and make no second time
        tracer.sampler = sampler


def meter_provider(name: str | None) -> Any:
    """The same for metrics."""
    from opentelemetry import metrics  # noqa: PLC0415 because only who measures needs it

    there = metrics.get_meter_provider()
    if there in ours or hasattr(there, "add_metric_reader"):
        return there
    if not discovery.is_of_the_api(there):
        what = (
            "takes no readers any more, as MeterProvider(metric_readers=[PeriodicExportingMetricReader("
            "OTLPMetricExporter())]) has them"
        )
        raise _stranger("meter", there, what)
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415 because the SDK is heavy

    resource = _resource(name)
    made = MeterProvider(resource=resource, shutdown_on_exit=False)
    ours[made] = True
    _resources[made] = resource
    metrics.set_meter_provider(made)
    return made


def logger_provider(name: str | None) -> Any:
    """The same for logs."""
    from opentelemetry import _logs  # noqa: PLC0415 because only who logs needs it

    there = _logs.get_logger_provider()
    if hasattr(there, "add_log_record_processor"):
        return there
    if not discovery.is_of_the_api(there):
        what = "takes no log record processors"
        raise _stranger("logger", there, what)
    from opentelemetry.sdk._logs import LoggerProvider  # noqa: PLC0415 because the SDK is heavy

    resource = _resource(name)
    made = LoggerProvider(resource=resource, shutdown_on_exit=False)
    ours[made] = True
    _resources[made] = resource
    _logs.set_logger_provider(made)
    return made


def _stranger(kind: str, there: object, what: str) -> RuntimeError:
    return RuntimeError(
        f"setup(): the global {kind} provider is a {type(there).__name__}, which {what}, and it can't be replaced. "
        "Call setup() before whatever sets it, or configure that to export."
    )


def span_hub(provider: Any) -> Hub:
    """What leads the spans of a provider to the outlets."""
    add: Any = provider.add_span_processor
    if "replace_default_processor" in signature(add).parameters:  # Phoenix's own: else its exporter would be shut down
        add = partial(add, replace_default_processor=False)
    return _hub(provider, SpanHub, add)


def reading_hub(provider: Any) -> Hub:
    """What says which outlets read the metrics of a provider."""
    return _hub(provider, Hub, lambda _: None)


def log_hub(provider: Any) -> Hub:
    """What leads the log records of a provider to the outlets."""
    from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor  # noqa: PLC0415 because the SDK is heavy

    return _hub(provider, LogHub, lambda hub: provider.add_log_record_processor(SimpleLogRecordProcessor(hub)))


def _hub(provider: Any, make: type[Hub], add: Callable[[Any], None]) -> Hub:
    if provider not in _hubs:
        _hubs[provider] = hub = make()
        add(hub)
    found: Hub = _hubs[provider]
    return found


def _resource(name: str | None) -> Any:
    """The resource for a provider of ours: the one of those that are there, else a new one.

    A process that is forked off is another instance of the service.
    """
    from opentelemetry import trace  # noqa: PLC0415 because only who exports needs it
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 because the SDK is heavy

    there = getattr(trace.get_tracer_provider(), "resource", None)
    if there is not None:
        return there
    # the metrics or logs may have been set up alone
    for module, attribute in _GLOBALS:
        provider = getattr(modules.get(module), attribute, None)
        if provider is not None and provider in _resources:
            return _resources[provider]
    named = service_name(name)
    given = Resource.create({} if named is None else {"service.name": named})
    otherwise = {
        # without it Jaeger takes an event that outlives its step for a sign of clocks that differ
        "host.name": socket.gethostname(),
        # else Phoenix puts the traces of all services into one project
        names.PROJECT: os.environ.get("PHOENIX_PROJECT_NAME") or str(given.attributes["service.name"]),
        # else the metrics of several processes are taken for those of one
        _INSTANCE: str(uuid.uuid4()),
    }
    made = Resource(otherwise).merge(given)
    if _INSTANCE not in given.attributes and hasattr(os, "register_at_fork"):
        known = weakref.ref(made)

        def forked() -> None:
            if (resource := known()) is not None:
                another = Resource({_INSTANCE: str(uuid.uuid4())})
                resource._attributes = resource.merge(another)._attributes  # noqa: SLF001 because three providers, and all that they made, have this one

        os.register_at_fork(after_in_child=forked)
    return made
