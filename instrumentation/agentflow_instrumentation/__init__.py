"""OpenTelemetry for agentflow: what runs, steps, events, model calls and tools do becomes spans, metrics and logs.

Runs are observed as soon as a provider is set up, by whomever. `setup()` sets providers up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bridge import OtelHandler
    from .console import ConsoleExporter
    from .fields import TraceContextFilter, add_trace_context
    from .formatting import configure_logging
    from .logs import LogObserver
    from .metrics import MetricObserver
    from .otlpfile import FileExporter
    from .propagation import continued, extract, inject
    from .redactors import pattern
    from .spans import SpanObserver
    from .telemetry import Telemetry, setup

__all__ = [
    "ConsoleExporter",
    "FileExporter",
    "LogObserver",
    "MetricObserver",
    "OtelHandler",
    "SpanObserver",
    "Telemetry",
    "TraceContextFilter",
    "add_trace_context",
    "configure_logging",
    "continued",
    "extract",
    "inject",
    "pattern",
    "setup",
]

_WHERE = {
    "ConsoleExporter": "console",
    "FileExporter": "otlpfile",
    "LogObserver": "logs",
    "MetricObserver": "metrics",
    "OtelHandler": "bridge",
    "SpanObserver": "spans",
    "Telemetry": "telemetry",
    "TraceContextFilter": "fields",
    "add_trace_context": "fields",
    "configure_logging": "formatting",
    "continued": "propagation",
    "extract": "propagation",
    "inject": "propagation",
    "pattern": "redactors",
    "setup": "telemetry",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: the engine imports this package at the first run."""
    if name not in _WHERE:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from importlib import import_module  # noqa: PLC0415 because only who sets something up needs it

    value = getattr(import_module(f".{_WHERE[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
