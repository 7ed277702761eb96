"""What the engine finds through the entry point group `agentflow.observers`, and asks at the start of every run.

Nothing of OpenTelemetry is imported where nobody else has: then nobody can have set it up.
"""

from __future__ import annotations

import atexit
import logging
import os
from functools import cache
from sys import modules
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

from .identity import ByIdentity

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentflow.observe import Observer

_deciding = Lock()
_runs = logging.getLogger("agentflow.runs")
"""Where log lines of runs go."""


class Closing(Protocol):
    """An observer that is told when nobody looks through it any more."""

    def close(self) -> None:
        """End what is open."""


class Choice:
    """An observer that was chosen, and how to make it once more: a process that is forked off has one of its own."""

    def __init__(self, make: Callable[[], Closing]) -> None:
        self.make = make
        self.observer = make()


class Signal:
    """Traces, metrics or logs: who observes as long as which provider is the process's global one."""

    def __init__(self, api: str, attribute: str, variable: str, make: Callable[[Any], Any]) -> None:
        self._api = api
        self._attribute = attribute
        self._make_observer = make
        self._chosen_by_name = bool(os.environ.get(variable))
        self._provider: object = None
        self._observer: Any = None
        self._chosen: list[Choice] = []
        """What `use` was given for the global provider, and `leave` was not, the latest last."""
        self._left: ByIdentity[bool] = ByIdentity()
        """The providers of ours that nobody uses any more: they export nothing."""

    def observer(self) -> Any:
        """The observer, where a provider has been set up, by whomever; else None.

        `AGENTFLOW_TELEMETRY=off`, `OTEL_SDK_DISABLED=true` and `OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=agentflow` turn
        it off; they are read when a provider is first seen.
        """
        api = modules.get(self._api)
        if api is None and not self._chosen_by_name:
            return None
        # asked at the start of every run: the API's own function looks into the environment each time
        provider = getattr(api, self._attribute, None)
        unchanged = provider is self._provider and not self._chosen_by_name
        return self._observer if unchanged else self._decide(provider)

    def use(self, provider: object, chosen: Choice) -> None:
        """Let `chosen` observe as long as `provider` is the global one, until `leave`."""
        with _deciding:
            if provider is not self._provider:
                self._chosen.clear()
            self._chosen.append(chosen)
            self._left.discard(provider)
            self._provider = provider
            self._replace(chosen.observer)

    def leave(self, provider: object, chosen: Choice, *, ours: bool) -> None:
        """Take back `use`. Whoever was chosen before observes again; others' providers are observed as ever."""
        with _deciding:
            if provider is self._provider and chosen in self._chosen:
                self._chosen.remove(chosen)
                self._replace(self._chosen[-1].observer if self._chosen else None if ours else self._make(provider))
                if self._chosen:
                    return
            if ours:
                self._left[provider] = True

    def forked(self) -> None:
        """Begin anew in a child process: what is open here is the parent's to end, and to tell."""
        for choice in self._chosen:
            choice.observer = choice.make()
        if self._observer is not None:
            self._replace(self._chosen[-1].observer if self._chosen else self._make(self._provider))

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
        if is_of_the_api(provider):
            return None
        try:
            return self._make_observer(provider)
        except Exception:
            logging.getLogger("agentflow").exception("a %s cannot be used; it is left out", type(provider).__name__)
            return None


def is_of_the_api(provider: object) -> bool:
    """Does it do nothing, because nobody has set one up? Other packages have proxies, too, which do something."""
    kind = type(provider)
    return kind.__module__.startswith("opentelemetry.") and kind.__name__.startswith(("NoOp", "Proxy", "_Proxy"))


def is_off() -> bool:
    """Is telemetry turned off by the environment?"""
    off = os.environ.get("AGENTFLOW_TELEMETRY", "").strip().lower() in {"off", "false", "0", "no", "none"}
    # how those are turned off that `opentelemetry-instrument` brings in
    disabled = os.environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").split(",")
    disabled_by_name = "agentflow" in (name.strip() for name in disabled)
    return off or disabled_by_name or os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def _make_spans(provider: Any) -> Any:
    from .spans import SpanObserver  # noqa: PLC0415 because it imports OpenTelemetry

    return SpanObserver(provider)


def _make_logs(provider: Any) -> Any:
    from .logs import LogObserver  # noqa: PLC0415 because it imports OpenTelemetry

    return LogObserver(provider)


def _make_metrics(provider: Any) -> Any:
    from .metrics import MetricObserver  # noqa: PLC0415 because it imports OpenTelemetry

    return MetricObserver(provider)


TRACES = Signal("opentelemetry.trace", "_TRACER_PROVIDER", "OTEL_PYTHON_TRACER_PROVIDER", _make_spans)
METRICS = Signal("opentelemetry.metrics._internal", "_METER_PROVIDER", "OTEL_PYTHON_METER_PROVIDER", _make_metrics)
LOGS = Signal("opentelemetry._logs._internal", "_LOGGER_PROVIDER", "OTEL_PYTHON_LOGGER_PROVIDER", _make_logs)
_SIGNALS = (TRACES, METRICS, LOGS)


def _forked() -> None:
    global _deciding  # noqa: PLW0603 because a thread of the parent may hold it for ever
    _deciding = Lock()
    for signal in _SIGNALS:
        signal.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def observers() -> tuple[Observer, ...] | None:
    """The observers of a run that starts now; None where nobody has set anything up."""
    found: list[Observer] = [observer for signal in _SIGNALS if (observer := signal.observer()) is not None]
    if _runs.isEnabledFor(logging.INFO):
        found.append(_lines(debug=_runs.isEnabledFor(logging.DEBUG)))
    # another thread may be importing it just now
    if getattr(modules.get("agentflow_instrumentation.fields"), "wanted", False):
        found.append(_marker())
    return tuple(found) or None


@cache
def _lines(*, debug: bool) -> Observer:
    from .lines import LineObserver  # noqa: PLC0415 because most processes log nothing of their runs

    return LineObserver(logging.DEBUG if debug else logging.INFO)


@cache
def _marker() -> Observer:
    from .fields import StepMarker  # noqa: PLC0415 because it is there already

    return StepMarker()
