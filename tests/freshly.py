"""A test's own OpenTelemetry: no provider is set up, and no variable says anything."""

from __future__ import annotations

import os
import socket
import threading
from importlib import import_module
from typing import Any

import pytest
from opentelemetry.util._once import Once

_GLOBALS = (
    ("opentelemetry.trace", "_TRACER_PROVIDER"),
    ("opentelemetry.metrics._internal", "_METER_PROVIDER"),
    ("opentelemetry._logs._internal", "_LOGGER_PROVIDER"),
)


def forget_providers(patch: pytest.MonkeyPatch) -> None:
    """Let the process be as it was before anything was set up, until the end of the test."""
    for name in list(os.environ):
        if name.startswith(("OTEL_", "AGENTFLOW_TELEMETRY", "PHOENIX_")):
            patch.delenv(name)
    for module, attribute in _GLOBALS:
        found: Any = import_module(module)
        patch.setattr(found, attribute, None)
        patch.setattr(found, f"{attribute}_SET_ONCE", Once())


def threads_of_ours() -> list[threading.Thread]:
    """The threads that export, collect or serve. Those of plain tools outlive the tests that made them."""
    names = [(thread, thread.name) for thread in threading.enumerate()]
    return [
        thread for thread, name in names if name.startswith(("agentflow", "OtelPeriodic")) and name != "agentflow-tool"
    ]


def closed_port() -> int:
    """A port at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
