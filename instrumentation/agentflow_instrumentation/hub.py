"""What a provider is given once: outlets come and go, while a provider keeps its processors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span

    from .pipeline import Way


class Hub:
    """Hands what it is given to every outlet, and to the latest one only of those that lead to the same place."""

    def __init__(self) -> None:
        self.outlets: tuple[Way, ...] = ()
        self.used: tuple[Way, ...] = ()

    def add(self, outlet: Way) -> None:
        """Hand everything to `outlet`, too, and to none that leads to the same place, until `remove`."""
        self.outlets = (*self.outlets, outlet)
        self._choose()

    def remove(self, outlet: Way) -> None:
        """Take back `add`."""
        self.outlets = tuple(o for o in self.outlets if o is not outlet)
        self._choose()

    def _choose(self) -> None:
        self.used = tuple({outlet.key: outlet for outlet in self.outlets}.values())

    def shutdown(self) -> None:
        """The provider is shut down by whoever owns it."""
        for outlet in self.outlets:
            outlet.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """The provider is flushed. True if nothing is left and nothing was lost."""
        return False not in {o.flush(timeout_millis / 1000) and not o.problems() for o in self.outlets}


class SpanHub(Hub):
    """The span processor of a tracer provider."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing to do."""

    def _on_ending(self, span: Span) -> None:
        """Nothing to do."""

    def on_end(self, span: ReadableSpan) -> None:
        """A span has ended."""
        context = span.context
        if context is not None and context.trace_flags.sampled:
            for outlet in self.used:
                outlet.put(span)


class LogHub(Hub):
    """The exporter of the one processor that a logger provider is given, which differs from version to version."""

    def export(self, batch: Sequence[Any]) -> None:
        """Records were emitted."""
        for record in batch:
            for outlet in self.used:
                outlet.put(record)
