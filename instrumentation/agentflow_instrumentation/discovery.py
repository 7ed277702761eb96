"""What the engine finds through the entry point group `agentflow.observers`, and asks at the start of every run.

Nothing of OpenTelemetry is imported where nobody else has: then nobody can have set it up.
"""

from __future__ import annotations

import atexit
import os
from sys import modules
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentflow.observe import Observer

_deciding = Lock()


class Closing(Protocol):
    """An observer that is told when nobody looks through it any more."""

    def close(self) -> None:
        """End what is open."""


class Signal:
    """Traces, metrics or logs: who observes as long as which provider is the process's global one."""

    def __init__(self, api: str, attribute: str, variable: str, make: Callable[[Any], Any]) -> None:
        self._api = api
        self._attribute = attribute
        self._make_observer = make
        self._chosen_by_name = bool(os.environ.get(variable))
        self._provider: object = None
        self._observer: Any = None
        self._chosen: list[Any] = []
        """What `use` was given for the global provider, and `leave` was not, the latest last."""
        self._left: WeakSet[Any] = WeakSet()
        """The providers of ours that nobody uses any more: they export nothing."""

    def observer(self) -> Any:
        """The observer, where a provider has been set up, by whomever; else None.

        `AGENTFLOW_TELEMETRY=off` and `OTEL_SDK_DISABLED=true` turn it off; they are read when a provider is first seen.
        """
        api = modules.get(self._api)
        if api is None and not self._chosen_by_name:
            return None
        # asked at the start of every run: the API's own function looks into the environment each time
        provider = getattr(api, self._attribute, None)
        unchanged = provider is self._provider and not self._chosen_by_name
        return self._observer if unchanged else self._decide(provider)

    def use(self, provider: object, chosen: Closing) -> None:
        """Let `chosen` observe as long as `provider` is the global one, until `leave`."""
        with _deciding:
            if provider is not self._provider:
                self._chosen.clear()
            self._chosen.append(chosen)
            self._left.discard(provider)
            self._provider = provider
            self._replace(chosen)

    def leave(self, provider: object, chosen: Closing, *, ours: bool) -> None:
        """Take back `use`. Whoever was chosen before observes again; others' providers are observed as ever."""
        with _deciding:
            if provider is self._provider and chosen in self._chosen:
                self._chosen.remove(chosen)
                self._replace(self._chosen[-1] if self._chosen else None if ours else self._make(provider))
                if self._chosen:
                    return
            if ours:
                self._left.add(provider)

    def _replace(self, new: Any) -> None:
        old, self._observer = self._observer, new
        if old is not None:
            atexit.unregister(old.close)
        if new is not None:
            atexit.register(new.close)

    def _decide(self, provider: object) -> Any:
        """The global provider is another than before."""
        with _deciding:
            if self._chosen_by_name:
                from importlib import import_module  # noqa: PLC0415 because only a variable of the environment asks

                self._chosen_by_name = False
                get = f"get{self._attribute.lower()}"  # loads the provider that the variable names
                provider = getattr(import_module(self._api), get)()
                provider = getattr(modules[self._api], self._attribute, provider)
            if provider is not self._provider:
                self._chosen.clear()
                self._replace(self._make(provider))
                self._provider = provider
            return self._observer

    def _make(self, provider: Any) -> Any:
        if provider is None or provider in self._left or is_off():
            return None
        if type(provider).__name__.startswith(("NoOp", "Proxy", "_Proxy")):  # the API's own: nobody has set it up
            return None
        return self._make_observer(provider)


def is_off() -> bool:
    """Is telemetry turned off by the environment?"""
    off = os.environ.get("AGENTFLOW_TELEMETRY", "").strip().lower() in {"off", "false", "0", "no", "none"}
    return off or os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def _make_spans(provider: Any) -> Any:
    from .spans import SpanObserver  # noqa: PLC0415 because it imports OpenTelemetry

    return SpanObserver(provider)


TRACES = Signal("opentelemetry.trace", "_TRACER_PROVIDER", "OTEL_PYTHON_TRACER_PROVIDER", _make_spans)
_SIGNALS = (TRACES,)


def observers() -> tuple[Observer, ...] | None:
    """The observers of a run that starts now; None where nobody has set anything up."""
    found = tuple(observer for signal in _SIGNALS if (observer := signal.observer()) is not None)
    return found or None
