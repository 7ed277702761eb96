"""What an agent tells observers of a tool call: the subject of its operation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ToolExecution:
    """The subject of a tool operation, whose name is the tool and whose result is a `ToolResultPart`."""

    call_id: str
    description: str
    arguments: str
    """JSON text, as the model wrote it."""
