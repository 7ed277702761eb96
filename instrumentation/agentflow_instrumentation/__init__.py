"""OpenTelemetry for agentflow: what runs, steps, events, model calls and tools do becomes spans.

Runs are traced as soon as a tracer provider is set up, by whomever. `setup()` sets one up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .console import ConsoleExporter
    from .otlpfile import FileExporter
    from .spans import SpanObserver
    from .telemetry import Telemetry, setup

__all__ = ["ConsoleExporter", "FileExporter", "SpanObserver", "Telemetry", "setup"]

_WHERE = {
    "ConsoleExporter": "console",
    "FileExporter": "otlpfile",
    "SpanObserver": "spans",
    "Telemetry": "telemetry",
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
