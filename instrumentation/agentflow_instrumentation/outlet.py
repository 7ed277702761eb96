"""The way of finished spans to an exporter: off the caller's thread, in bounded memory, without noise.

What cannot be delivered is counted and said once, in one line, by the logger "agentflow"; the exporters' own
lines about it, one a batch and some with a stack trace, are kept back.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

from .reasons import gives_up, shorten

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span
    from opentelemetry.sdk.trace.export import SpanExporter

logger = logging.getLogger("agentflow")

_NOISY = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.common.http",
    "urllib3.connectionpool",
)
_QUEUE, _SHORT_QUEUE, _BATCH, _DELAY = 32_768, 2_048, 512, 1_000


class _KeepsBack(logging.Filter):
    """Takes the lines that exporters log while one of our outlets exports."""

    def __init__(self) -> None:
        super().__init__()
        self.here = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        """False for a line that an outlet has heard."""
        outlet: Outlet | None = getattr(self.here, "outlet", None)
        if outlet is None:
            return True
        if record.levelno >= logging.WARNING:
            outlet.heard(record.getMessage())
        return False


_filter = _KeepsBack()


class Outlet:
    """A span processor: a queue, and a thread that exports what is in it.

    When the queue is full, the oldest spans are dropped, and counted; with `keeps_all`, whoever ends a span waits for
    room instead. `OTEL_BSP_MAX_QUEUE_SIZE` (here 32,768 spans, with `keeps_all` 2,048),
    `OTEL_BSP_MAX_EXPORT_BATCH_SIZE` (512) and `OTEL_BSP_SCHEDULE_DELAY` (1,000 ms) hold here, too.
    """

    def __init__(self, exporter: SpanExporter, place: str, *, key: object = None, keeps_all: bool = False) -> None:
        self.exporter = exporter
        self.place = place
        """Where the spans go, in words."""
        self.key = id(exporter) if key is None else key
        """Of outlets with equal keys, the latest is used."""
        self.dropped = 0
        """How many spans the queue had no room for."""
        self.lost = 0
        """How many spans could not be delivered."""
        self.reason = ""
        """Why, in the exporter's words."""
        self._told = 0
        """Of the lost spans, how many somebody has been told of."""
        self._arrived = self._late = False
        self._keeps_all = keeps_all
        self._size = size = _number("OTEL_BSP_MAX_QUEUE_SIZE", _SHORT_QUEUE if keeps_all else _QUEUE)
        self._batch = min(size, _number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", _BATCH))
        self._delay = _number("OTEL_BSP_SCHEDULE_DELAY", _DELAY) / 1000
        self._queue: deque[ReadableSpan] = deque(maxlen=None if keeps_all else size)
        self._said: set[str] = set()
        self._hopeless = False
        self._closed = False
        self._begin()
        for name in _NOISY:
            logging.getLogger(name).addFilter(_filter)
        if hasattr(os, "register_at_fork"):
            again = weakref.WeakMethod(self._forked)
            os.register_at_fork(after_in_child=lambda: (method := again()) and method())

    def _begin(self) -> None:
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self._wanted = False
        self._in_flight = 0

    def _forked(self) -> None:
        """The child has no thread, and the parent exports what is queued."""
        self._queue.clear()
        self._begin()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing to do."""

    def _on_ending(self, span: Span) -> None:
        """Nothing to do."""

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span that has ended."""
        context = span.context
        if self._closed or context is None or not context.trace_flags.sampled:
            return
        queue = self._queue
        if self._keeps_all:
            self._wait_for_room()
        elif len(queue) == queue.maxlen:
            self.dropped += 1
            self._say_once("dropped", f"more spans are made than can be sent to {self.place}; the oldest are lost")
        queue.append(span)
        if self._thread is None:
            self._start()
        elif len(queue) == self._batch:
            self._wake()

    def _wait_for_room(self) -> None:
        if len(self._queue) < self._size or self._thread is threading.current_thread():
            return  # the thread that makes room ends a span itself when it collects garbage
        with self._condition:
            while (
                len(self._queue) >= self._size
                and not self._closed
                and self._thread is not None
                and self._thread.is_alive()
            ):
                self._condition.notify_all()
                self._condition.wait(1.0)

    def heard(self, message: str) -> None:
        """The exporter logged something while it exported."""
        if (self.reason and gives_up(message)) or (self._closed and self._late):
            return  # nobody waits for it any more, so it says that it was interrupted
        with self._condition:
            self.reason = message
            self._hopeless = shorten(message) == "connection refused"
            self._condition.notify_all()

    @property
    def why(self) -> str:
        """Why the last export failed, in a few words."""
        if self._late and not self.reason:
            return "not in time" if self._arrived else "no answer in time"
        return shorten(self.reason) or "the exporter failed"

    def unsaid(self) -> list[str]:
        """The problems of which nobody has been told: no warning was logged, and nobody has asked for `problems`."""
        return self.problems()[:1] if self.lost > self._told else []

    def problems(self) -> list[str]:
        """What did not arrive, in one line each; nothing where all did."""
        self._told = self.lost
        said: list[str] = []
        if self.lost:
            said.append(f"the trace could not be delivered to {self.place}: {self.why} ({_spans(self.lost)} lost)")
        if self.dropped:
            said.append(f"{_spans(self.dropped)} lost on the way to {self.place}: too many at once")
        return said

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Export all that is queued; True if nothing is left and nothing was lost."""
        return self.flush(timeout_millis / 1000) and not self.lost

    def flush(self, timeout: float) -> bool:
        """Export all that is queued; False if that takes longer, in seconds, or no one listens there."""
        end = time.monotonic() + timeout
        with self._condition:
            if not self._in_flight:
                self._hopeless = False  # else the exporter has been refused, and waits for another attempt
            while self._queue or self._in_flight:
                left = end - time.monotonic()
                if left <= 0 or self._hopeless:
                    self._late = not self._hopeless
                    return False
                self._wanted = True
                self._condition.notify_all()
                self._condition.wait(left)
        return True

    def shutdown(self, timeout: float = 5.0) -> None:
        """Export what can be exported in `timeout` seconds, and stop. What is left counts as lost."""
        if self._closed:
            return
        self.flush(timeout)
        with self._condition:
            self._closed = True
            self.lost += len(self._queue)
            self._queue.clear()
            self._condition.notify_all()
        self._quietly(self.exporter.shutdown)  # ends a wait for another attempt, too
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(1.0)
        with self._condition:
            self.lost += self._in_flight
            self._in_flight = 0

    def _start(self) -> None:
        with self._condition:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="agentflow-telemetry", daemon=True)
                self._thread.start()

    def _wake(self) -> None:
        with self._condition:
            self._condition.notify_all()

    def _run(self) -> None:
        _filter.here.outlet = self
        _instrument_nothing_here()
        condition = self._condition
        while True:
            with condition:
                if not self._queue and self._closed:
                    return
                if not self._wanted and not self._closed and len(self._queue) < self._batch:
                    condition.wait(self._delay)
                batch = [self._queue.popleft() for _ in range(min(len(self._queue), self._batch))]
                self._in_flight = len(batch)
                self._hopeless = False
                if self._keeps_all:
                    condition.notify_all()  # there is room
            arrived = not batch or self._export(batch)
            with condition:
                if not arrived:
                    self.lost += self._in_flight
                elif batch:
                    self._arrived = True
                if not self._closed:
                    self._late = False
                self._in_flight = 0
                if not self._queue:
                    self._wanted = False
                condition.notify_all()
            if batch:
                self._report(arrived=arrived)

    def _export(self, batch: list[ReadableSpan]) -> bool:
        try:
            result: Any = self.exporter.export(batch)
        except Exception as error:  # noqa: BLE001 because an exporter may raise anything, and the program goes on
            self.heard(f"{type(error).__name__}: {error}")
            return False
        return bool(getattr(result, "name", "SUCCESS") == "SUCCESS")

    def _report(self, *, arrived: bool) -> None:
        if arrived:
            self._said.discard("lost")
        elif not self._closed:  # else whoever closes it is told
            self._told = self.lost
            self._say_once("lost", f"the trace cannot be delivered to {self.place}: {self.why}; spans get lost")

    def _say_once(self, what: str, message: str) -> None:
        if what not in self._said:
            self._said.add(what)
            logger.warning(message)

    def _quietly(self, call: Any) -> None:
        _filter.here.outlet = self
        try:
            call()
        except Exception as error:  # noqa: BLE001 because an exporter may raise anything, and the program goes on
            self.heard(f"{type(error).__name__}: {error}")
        finally:
            _filter.here.outlet = None


class Direct:
    """A span processor that hands each span on at once, in line: for what is shown to a person."""

    def __init__(self, exporter: SpanExporter, place: str, *, key: object = None) -> None:
        self.exporter = exporter
        self.place = place
        self.key = id(exporter) if key is None else key
        """Of outlets with equal keys, the latest is used."""
        self._failed = ""

    @property
    def why(self) -> str:
        """What went wrong."""
        return self._failed

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing to do."""

    def _on_ending(self, span: Span) -> None:
        """Nothing to do."""

    def on_end(self, span: ReadableSpan) -> None:
        """Hand on a span that has ended."""
        if self._failed or span.context is None or not span.context.trace_flags.sampled:
            return
        try:
            self.exporter.export((span,))
        except Exception as error:  # noqa: BLE001 because a closed terminal must not end the program
            self._failed = f"the trace could not be shown on {self.place}: {type(error).__name__}: {error}"
            logger.warning(self._failed)

    def unsaid(self) -> list[str]:
        """Nothing: a warning is logged at once."""
        return []

    def problems(self) -> list[str]:
        """What went wrong, if anything did."""
        return [self._failed] if self._failed else []

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """True unless something went wrong."""
        return self.flush(timeout_millis / 1000)

    def flush(self, timeout: float) -> bool:  # noqa: ARG002 because it is an outlet's
        """Nothing is queued."""
        return not self._failed

    def shutdown(self, timeout: float = 5.0) -> None:  # noqa: ARG002 because it is an outlet's
        """Let the exporter show what it holds."""
        if not self._failed:
            self.exporter.shutdown()


class Hub:
    """The span processor that a provider is given: outlets come and go, while a provider keeps its processors."""

    def __init__(self) -> None:
        self.outlets: tuple[Outlet | Direct, ...] = ()
        self._used: tuple[Outlet | Direct, ...] = ()

    def add(self, outlet: Outlet | Direct) -> None:
        """Hand spans to `outlet`, too, and to none that leads to the same place, until `remove`."""
        self.outlets = (*self.outlets, outlet)
        self._choose()

    def remove(self, outlet: Outlet | Direct) -> None:
        """Take back `add`."""
        self.outlets = tuple(o for o in self.outlets if o is not outlet)
        self._choose()

    def _choose(self) -> None:
        self._used = tuple({outlet.key: outlet for outlet in self.outlets}.values())

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing to do."""

    def _on_ending(self, span: Span) -> None:
        """Nothing to do."""

    def on_end(self, span: ReadableSpan) -> None:
        """Hand a span that has ended to every outlet."""
        for outlet in self._used:
            outlet.on_end(span)

    def shutdown(self) -> None:
        """The provider is shut down by whoever owns it."""
        for outlet in self.outlets:
            outlet.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """The provider is flushed."""
        return False not in {outlet.force_flush(timeout_millis) for outlet in self.outlets}


def _instrument_nothing_here() -> None:
    """Let instrumentations of HTTP clients make no spans in this thread, which would be exported in their turn."""
    from opentelemetry import context  # noqa: PLC0415 because nothing is imported before it is used

    for key in ("suppress_instrumentation", getattr(context, "_SUPPRESS_INSTRUMENTATION_KEY", "")):
        context.attach(context.set_value(key, value=True))


def _spans(many: int) -> str:
    return f"{many:,} span{'s' * (many != 1)}"


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable, "")
    return int(text) if text.isdigit() and int(text) > 0 else default
