"""What the engine finds through the entry point group `agentflow.observers`, and asks at the start of every run."""

from __future__ import annotations


def observer() -> None:
    """The observer that makes spans, where OpenTelemetry is set up."""
