"""What `Workflow(verbose=True)` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from .events import Event
from .observe import Kind, Observer

if TYPE_CHECKING:
    from .observe import Note, Operation


class VerbosePrinter(Observer):
    """Prints each step as it runs, and what it produced."""

    kinds = frozenset({Kind.STEP})

    def started(self, op: Operation) -> None:
        """A step begins."""
        print(f"Running step {op.name}")  # noqa: T201 because printing is what it is for

    def noted(self, op: Operation, note: Note) -> None:
        """A step is to be tried again."""
        if note.name == "retry":
            facts = note.facts
            why = f"attempt {facts['attempt']}: {facts['error']!r}; again in {facts['delay']:g} s"
            print(f"Step {op.name} failed, {why}")  # noqa: T201 because printing is what it is for

    def finished(self, op: Operation, error: BaseException | None) -> None:
        """A step has ended."""
        if error is not None:
            if op.outcome != "retried":
                print(f"Step {op.name} ended with {error!r}")  # noqa: T201 because printing is what it is for
            return
        out: Any = op.result
        returned = cast("list[object]", out) if isinstance(out, list) else [out]
        events = [event for event in returned if isinstance(event, Event)]
        for event in events:
            print(f"Step {op.name} produced event {type(event).__name__}")  # noqa: T201 because printing is what it is for
        if not events:
            print(f"Step {op.name} produced no event")  # noqa: T201 because printing is what it is for
