"""The exporter that prints each trace as a tree, and the way to it."""

from __future__ import annotations

import logging
import sys
from collections import deque
from threading import Lock
from typing import TYPE_CHECKING, Any

from . import tree
from .fork import after_fork

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
else:
    SpanExporter = object  # the SDK's class only says which methods there are, and it is heavy

logger = logging.getLogger("agentflow")

_MOST_ROWS = 20_000
_MOST_TRACES = 256


class _Trace:
    def __init__(self) -> None:
        self.rows: list[tree.Row] = []
        self.left_out = 0


class ConsoleExporter(SpanExporter):
    """Prints each trace as a tree when its local root has ended: the span whose parent is no span of this process.

    - `file`: where to; the standard error output by default. Colours where it is a terminal, unless `NO_COLOR` is set.

    Of one trace 20,000 spans are kept, of unfinished traces 256; what goes beyond is counted, or printed unfinished.
    What ends later than the root of its trace, such as a call in a thread that was left behind, is not printed.
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = file
        self._begin()
        after_fork(self._begin)  # the parent prints what it has, and another of its threads may hold the lock

    def _begin(self) -> None:
        self._traces: dict[int, _Trace] = {}
        self._lock = Lock()
        self._printed: deque[int] = deque(maxlen=_MOST_TRACES)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Keep spans until their trace is complete; then print it."""
        from opentelemetry.sdk.trace.export import SpanExportResult  # noqa: PLC0415 because the SDK is heavy

        for span in spans:
            if span.context is not None:
                self._take(span, span.context.trace_id)
        return SpanExportResult.SUCCESS

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002 because it is the SDK's
        """Nothing to do: a trace that is complete is printed at once."""
        return True

    def shutdown(self) -> None:
        """Print what is left: traces whose root has not ended."""
        with self._lock:
            traces, self._traces = self._traces, {}
        for trace_id, trace in traces.items():
            self._print(trace_id, trace, complete=False)

    def _take(self, span: ReadableSpan, trace_id: int) -> None:
        done: list[tuple[int, _Trace, bool]] = []
        is_root = span.parent is None or span.parent.is_remote
        with self._lock:
            trace = self._traces.setdefault(trace_id, _Trace())
            if len(trace.rows) < _MOST_ROWS or is_root:
                trace.rows.append(tree.Row(span))
            else:
                trace.left_out += 1
            if is_root:
                done.append((trace_id, self._traces.pop(trace_id), True))
            elif len(self._traces) > _MOST_TRACES:
                oldest = next(iter(self._traces))
                done.append((oldest, self._traces.pop(oldest), False))
        for one in done:
            self._print(one[0], one[1], complete=one[2])

    def _print(self, trace_id: int, trace: _Trace, *, complete: bool) -> None:
        file = sys.stderr if self._file is None else self._file
        if complete:
            self._printed.append(trace_id)
        elif trace_id in self._printed:
            return
        title = f"trace {trace_id:032x}{'' if complete else ', unfinished'}"
        drawn = tree.drawn(trace.rows, title, file)
        if trace.left_out:
            drawn += f"and {trace.left_out:,} spans more, which were not kept\n"
        file.write(f"{drawn}\n")
        file.flush()


class Direct:
    """Hands each item on at once, in line: for what is shown to a person."""

    def __init__(self, exporter: Any, place: str, *, key: object = None) -> None:
        self.exporter = exporter
        self.place = place
        self.key = id(exporter) if key is None else key
        """Of outlets with equal keys, the latest is used."""
        self._failed = ""

    def put(self, item: Any) -> None:
        """Hand on an item."""
        if self._failed:
            return
        try:
            self.exporter.export((item,))
        except Exception as error:  # noqa: BLE001 because a closed terminal must not end the program
            self._failed = f"the trace could not be shown on {self.place}: {type(error).__name__}: {error}"
            logger.warning(self._failed)

    def not_yet(self) -> str:
        """What went wrong."""
        return self._failed

    def unsaid(self) -> list[str]:
        """Nothing: a warning is logged at once."""
        return []

    def problems(self) -> list[str]:
        """What went wrong, if anything did."""
        return [self._failed] if self._failed else []

    def hurry(self) -> None:
        """Nothing is queued."""

    def flush(self, timeout: float) -> bool:  # noqa: ARG002 because it is an outlet's
        """Nothing is queued."""
        return not self._failed

    def shutdown(self, timeout: float = 5.0) -> None:  # noqa: ARG002 because it is an outlet's
        """Let the exporter show what it holds."""
        if not self._failed:
            self.exporter.shutdown()
