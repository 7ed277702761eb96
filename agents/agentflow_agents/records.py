"""What an agent tells observers of a tool call: the subject of its operation, and that it goes on later."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ToolExecution:
    """The subject of a tool operation, whose name is the tool and whose result is a `ToolResultPart`.

    Notes on it:

    - `queued`, when a wait for one of the tool's slots, or for a thread, is over: `wait` (seconds).
    - `retry`, before each wait for another attempt: `attempt` (the number of the one that failed, from 1), `wait`
      (seconds), `error` (the exception; None where a tenacity object did not like what the tool returned).
    """

    call_id: str
    description: str
    arguments: str
    """JSON text, as the model wrote it, or as a person edited it."""
    known: bool = True
    """Is there such a tool? A model may have made up its name."""


class Suspended:
    """What a tool returns that was put away and goes on later: there is no result yet."""
