"""What the engine finds through the entry point group `agentflow.observers`, and asks at the start of every run.

Nothing of OpenTelemetry is imported where nobody else has: then nobody can have set it up.
"""

from __future__ import annotations

import atexit
import os
from sys import modules
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

if TYPE_CHECKING:
    from .spans import SpanObserver

_API = "opentelemetry.trace"
_deciding = Lock()
_provider: object = None
_observer: SpanObserver | None = None
_chosen: list[SpanObserver] = []
"""What `use` was given for the global provider, and `leave` was not, the latest last."""
_left: WeakSet[object] = WeakSet()
"""The providers of ours that nobody uses any more: they export nothing."""
_chosen_by_name = bool(os.environ.get("OTEL_PYTHON_TRACER_PROVIDER"))


def observer() -> SpanObserver | None:
    """The observer that makes spans, where a tracer provider has been set up, by whomever; else None.

    `AGENTFLOW_TELEMETRY=off` and `OTEL_SDK_DISABLED=true` turn it off; they are read when a provider is first seen.
    """
    api = modules.get(_API)
    if api is None and not _chosen_by_name:
        return None
    # asked at the start of every run: the API's own function looks into the environment each time
    provider = getattr(api, "_TRACER_PROVIDER", None)
    return _observer if provider is _provider and not _chosen_by_name else _decide(provider)


def use(provider: object, chosen: SpanObserver) -> None:
    """Let `chosen` observe as long as `provider` is the global one, until `leave`."""
    global _provider  # noqa: PLW0603 because the global provider is the process's, too
    with _deciding:
        if provider is not _provider:
            _chosen.clear()
        _chosen.append(chosen)
        _left.discard(provider)
        _provider = provider
        _replace(chosen)


def leave(provider: object, chosen: SpanObserver, *, ours: bool) -> None:
    """Take back `use`. Whoever was chosen before observes again; a provider that is not ours is observed as ever."""
    with _deciding:
        if provider is _provider and chosen in _chosen:
            _chosen.remove(chosen)
            _replace(_chosen[-1] if _chosen else None if ours else _make(provider))
            if _chosen:
                return
        if ours:
            _left.add(provider)


def is_off() -> bool:
    """Is telemetry turned off by the environment?"""
    off = os.environ.get("AGENTFLOW_TELEMETRY", "").strip().lower() in {"off", "false", "0", "no", "none"}
    return off or os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def _replace(new: SpanObserver | None) -> None:
    global _observer
    old, _observer = _observer, new
    if old is not None:
        atexit.unregister(old.close)
    if new is not None:
        atexit.register(new.close)


def _decide(provider: object) -> SpanObserver | None:
    """The global provider is another than before."""
    global _provider, _chosen_by_name  # noqa: PLW0603 because the global provider is the process's, too
    with _deciding:
        if _chosen_by_name:
            from opentelemetry import trace  # noqa: PLC0415 because only this variable asks for it

            _chosen_by_name = False
            trace.get_tracer_provider()  # loads the provider that OTEL_PYTHON_TRACER_PROVIDER names
            provider = getattr(modules[_API], "_TRACER_PROVIDER", provider)
        if provider is not _provider:
            _chosen.clear()
            _replace(_make(provider))
            _provider = provider
        return _observer


def _make(provider: Any) -> SpanObserver | None:
    if provider is None or provider in _left or is_off():
        return None
    from opentelemetry.trace import NoOpTracerProvider, ProxyTracerProvider  # noqa: PLC0415 because somebody set it up

    if isinstance(provider, NoOpTracerProvider | ProxyTracerProvider):
        return None
    from .spans import SpanObserver  # noqa: PLC0415 because it imports OpenTelemetry

    return SpanObserver(provider)
