"""The peers: the same workloads, each written as a user of that library would write them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

Pause = Callable[[], Awaitable[object]]
"""What a step waits for."""
Run = Callable[[], Awaitable[int]]
"""A workload of fixed size."""
Text = Callable[[], Awaitable[str]]
"""Asks an agent, and gives its answer."""
Conversing = Callable[[], Awaitable[tuple[str, object]]]
"""Asks an agent, and gives its answer and the run's messages as the library holds them."""
Tick = Callable[[], None]
"""Notes that a tool was called."""
SizedRun = Callable[[int], Awaitable[int]]
"""A workload of the size that it is given."""
Pausing = tuple[Callable[[], Awaitable[Any]], Callable[[Any, int], Awaitable[int]]]
"""Starts a run and returns it when it has asked; answers such a run, which ends with that answer."""
PuttingAway = tuple[Callable[[], Awaitable[str]], Callable[[str, int], Awaitable[int]]]
"""Writes a run down that has asked; answers a run that was written down."""
Checkpointing = tuple[Callable[[], str], Callable[[str], Any], Callable[[Any], Awaitable[dict[str, object]]]]
"""Writes the state down; makes it anew from that; reads all of it, which is not timed."""
Said = list[tuple[str, str]]
"""Messages, each a role and a text."""
Talking = Callable[[Said], Text]
"""Makes the messages as the library has them, and what sends them to a model and gives its answer."""
Streaming = Callable[[], Awaitable[tuple[str, int]]]
"""Lets a model talk in pieces, and gives all that it said, and in how many."""
