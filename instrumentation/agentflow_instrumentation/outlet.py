"""The way of telemetry to an exporter: off the caller's thread, in bounded memory, without noise.

What cannot be delivered is counted and said once, in one line, by the logger "agentflow"; the exporters' own
lines about it, one a batch and some with a stack trace, are kept back.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from . import quiet
from .fork import after_fork
from .pipeline import METRICS, TRACES
from .reasons import gives_up, is_hopeless, is_too_large, shorten
from .tally import EXPORT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .pipeline import Cargo

logger = logging.getLogger("agentflow")

_SHORT_QUEUE, _DELAY = 2_048, 1_000
_MOST_BYTES = 64 << 20
"""About so much may wait in a queue, however long its items are."""
_ITSELF = 2_048
"""Bytes that an item takes beside its texts."""
_SAMPLE = 32
_LET_GO = 1.0
"""So many seconds an exporter has to let go when it is shut down."""


class Outlet:
    """A queue, and a thread that exports what is in it.

    When the queue is full, the oldest items are dropped, and counted; with `keeps_all`, whoever puts one waits for
    room instead. `OTEL_BSP_MAX_QUEUE_SIZE` (here 32,768 spans, with `keeps_all` 2,048),
    `OTEL_BSP_MAX_EXPORT_BATCH_SIZE` (512) and `OTEL_BSP_SCHEDULE_DELAY` (1,000 ms) hold here, too, and `OTEL_BLRP_*`
    for log records (8,192). Of long items fewer may wait: about 64 MB of them, and a batch. What is too large for the
    receiver is sent in halves.

    - `make`: makes the exporter; once more in each process that is forked off this one, because two processes can't
      share a connection.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        place: str,
        *,
        key: object = None,
        keeps_all: bool = False,
        cargo: Cargo = TRACES,
    ) -> None:
        self._make = make
        self.exporter: Any = make()
        self.place = place
        """Where it goes, in words."""
        self.key = id(self.exporter) if key is None else key
        """Of outlets with equal keys, the latest is used."""
        self.cargo = cargo
        self.dropped = 0
        """How many items the queue had no room for."""
        self.lost = 0
        """How many items could not be delivered."""
        self.reason = ""
        """Why, in the exporter's words."""
        self._keeps_all = keeps_all
        self._size = size = _number(cargo, "MAX_QUEUE_SIZE", _SHORT_QUEUE if keeps_all else cargo.queue)
        self._batch = min(size, _number(cargo, "MAX_EXPORT_BATCH_SIZE", cargo.batch))
        self._delay = _number(cargo, "SCHEDULE_DELAY", _DELAY) / 1000
        self._room = size
        """How many items of the length that they have now may wait."""
        self._queue: deque[Any] = deque()
        self._closed = False
        self._begin()
        quiet.keep_back()
        after_fork(self._forked)

    def _begin(self) -> None:
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self._wanted = False
        self._in_flight = 0
        self._said: set[str] = set()
        self._told = 0
        """Of the lost items, how many somebody has been told of."""
        self._arrived = self._late = self._hopeless = False

    def _forked(self) -> None:
        """The child has no thread, and the parent exports what is queued."""
        self._queue.clear()
        self.dropped = self.lost = 0
        self._parents = self.exporter  # it is not to be closed with the parent's connection
        self._begin()
        if not self._closed:
            self.exporter = self._make()

    def put(self, item: Any) -> None:
        """Queue an item."""
        if self._closed:
            return
        queue = self._queue
        if self._keeps_all:
            self._wait_for_room()
        queue.append(item)
        if len(queue) > self._room and not self._keeps_all:
            self._drop()
        if self._thread is None:
            self._start()
        elif len(queue) == self._batch:
            self._wake()

    def _drop(self) -> None:
        """Drop the oldest items, each counted, however many threads put some at once."""
        with self._condition:
            many = len(self._queue) - self._room
            for _ in range(many):
                self._queue.popleft()
            self.dropped += max(0, many)
        if many > 0:
            EXPORT.add(self.cargo.signal, "queue_full", many=many)
            items = f"{self.cargo.item}s"
            self._say_once("dropped", f"more {items} are made than can be sent to {self.place}; the oldest are lost")

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

    def heard(self, message: str) -> bool:
        """The exporter logged something while it exported. True if its next attempts would only hold up the end."""
        if (self.reason and gives_up(message)) or (self._closed and self._late):
            return False  # nobody waits for it any more, so it says that it was interrupted
        with self._condition:
            self.reason = message
            self._hopeless = is_hopeless(message)
            self._condition.notify_all()
        return self._hopeless and self._thread is None

    def refused(self, many: int, message: str) -> None:
        """The receiver took a request, but not so many of the items in it; with none, it merely says something."""
        why = f"the receiver says: {message}" if message else "the receiver refused them"
        if not many:
            self._say_once(why, f"{self.cargo.whole} was delivered to {self.place}, and {why}")
            return
        with self._condition:
            self.reason = why
            self._lose(1 if self.cargo is METRICS else many)

    @property
    def why(self) -> str:
        """Why the last export failed, in a few words."""
        if self._late and not self.reason:
            return "not in time" if self._arrived else "no answer in time"
        return shorten(self.reason, self.cargo.signal) or "the exporter failed"

    def not_yet(self) -> str:
        """What a flush did not wait for, in a line."""
        return f"{self.cargo.whole} is not delivered to {self.place} yet: {self.why}"

    def unsaid(self) -> list[str]:
        """The problems of which nobody has been told: no warning was logged, and nobody has asked for `problems`."""
        return self.problems()[:1] if self.lost > self._told else []

    def problems(self) -> list[str]:
        """What did not arrive, in one line each; nothing where all did."""
        self._told = self.lost
        whole = self.cargo.whole
        said: list[str] = []
        if self.lost:
            said.append(f"{whole} could not be delivered to {self.place}: {self.why} ({self._many(self.lost)} lost)")
        if self.dropped:
            said.append(f"{self._many(self.dropped)} lost on the way to {self.place}: too many at once")
        return said

    def _many(self, items: int) -> str:
        return f"{items:,} {self.cargo.item}{'s' * (items != 1)}"

    def hurry(self) -> None:
        """Export what is queued now, without waiting for more."""
        self._send_now()

    def _send_now(self) -> None:
        with self._condition:
            if not self._in_flight:
                self._hopeless = False  # else the exporter has been refused, and waits for another attempt
            if self._queue:
                self._wanted = True
                self._condition.notify_all()

    def flush(self, timeout: float) -> bool:
        """Export all that is queued; False if that takes longer, in seconds, or no one listens there."""
        end = time.monotonic() + timeout
        self._send_now()
        if self._queue and self._thread is None:
            self._start()
            if self._thread is None:  # pyright: ignore[reportUnnecessaryComparison]  # because a thread may have started
                copy_context().run(self._send_here, end)
        with self._condition:
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
            self._lose(len(self._queue))
            self._queue.clear()
            self._condition.notify_all()
        # it ends a wait for another attempt, too; but some wait themselves for an attempt that goes on
        closing = threading.Thread(target=self._close, name="agentflow-telemetry", daemon=True)
        if self._in_flight:
            if _started(closing):
                closing.join(_LET_GO / 2)
        else:
            self._close()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_LET_GO / 2)
        with self._condition:
            self._lose(self._in_flight)
            self._in_flight = 0

    def _close(self) -> None:
        quiet.listen(self)
        try:
            self.exporter.shutdown()
        except Exception as error:  # noqa: BLE001 because an exporter may raise anything, and the program goes on
            self.heard(f"{type(error).__name__}: {error}")
        finally:
            quiet.listen(None)

    def _start(self) -> None:
        with self._condition:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="agentflow-telemetry", daemon=True)
                self._thread = thread if _started(thread) else None

    def _wake(self) -> None:
        with self._condition:
            self._condition.notify_all()

    def _send_here(self, end: float) -> None:
        """Export in the caller's thread, where the first items came when the program had ended."""
        quiet.listen(self)
        _instrument_nothing_here()
        try:
            while self._queue and not self._hopeless and time.monotonic() < end:
                self._export(self._take())
        finally:
            quiet.listen(None)

    def _take(self) -> list[Any]:
        """The next batch, which is in flight from now on."""
        with self._condition:
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), self._batch))]
            self._in_flight = len(batch)
            self._hopeless = False
        if batch:
            sample = batch[:: max(1, len(batch) // _SAMPLE)]
            mean = sum(map(_weight, sample)) // len(sample)
            self._room = min(self._size, max(self._batch, _MOST_BYTES // mean))
        return batch

    def _run(self) -> None:
        quiet.listen(self)
        _instrument_nothing_here()
        condition = self._condition
        while True:
            with condition:
                if not self._queue and self._closed:
                    return
                if not self._wanted and not self._closed and len(self._queue) < self._batch:
                    condition.wait(self._delay)
                batch = self._take()
                if self._keeps_all:
                    condition.notify_all()  # there is room
                lost = self.lost
            if batch:
                self._export(batch)
            with condition:
                if not self._closed:
                    self._late = False
                self._in_flight = 0
                if not self._queue:
                    self._wanted = False
                condition.notify_all()
            if batch:
                self._report(arrived=self.lost == lost)

    def _export(self, batch: Sequence[Any]) -> None:
        before = self.reason
        try:
            result: Any = self._hand_over(batch)
            arrived = getattr(result, "name", "SUCCESS") == "SUCCESS"
        except Exception as error:  # noqa: BLE001 because an exporter may raise anything, and the program goes on
            arrived = False
            if is_too_large(str(error)):
                if len(batch) > 1:
                    self.reason = before
                    half = len(batch) // 2
                    self._export(batch[:half])
                    self._export(batch[half:])
                    return
                self.reason = f"one {self.cargo.item} alone is larger than the receiver takes"
            elif not isinstance(error, quiet.HopelessError):
                self.heard(f"{type(error).__name__}: {error}")
        with self._condition:
            mine = min(len(batch), self._in_flight)  # what shutdown() did not wait for is lost already
            self._in_flight -= mine
            if arrived:
                self._arrived = True
            else:
                self._lose(mine)

    def _hand_over(self, batch: Sequence[Any]) -> Any:
        return self.exporter.export(batch)

    def _lose(self, many: int) -> None:
        if many:
            self.lost += many
            EXPORT.add(self.cargo.signal, "failed", many=many)

    def _report(self, *, arrived: bool) -> None:
        if arrived:
            self._said.discard("lost")
        elif not self._closed:  # else whoever closes it is told
            self._told = self.lost
            items = f"{self.cargo.item}s"
            what = f"{self.cargo.whole} cannot be delivered to {self.place}: {self.why}; {items} get lost"
            self._say_once("lost", what)

    def _say_once(self, what: str, message: str) -> None:
        if what not in self._said:
            self._said.add(what)
            logger.warning(message)


def _started(thread: threading.Thread) -> bool:
    """Start a thread; False where that is too late: from Python 3.12 on, none is started when the program has ended."""
    try:
        thread.start()
    except RuntimeError:
        return False
    return True


def _instrument_nothing_here() -> None:
    """Let instrumentations of HTTP clients make no spans in this thread, which would be exported in their turn."""
    from opentelemetry import context  # noqa: PLC0415 because nothing is imported before it is used

    for key in ("suppress_instrumentation", getattr(context, "_SUPPRESS_INSTRUMENTATION_KEY", "")):
        context.attach(context.set_value(key, value=True))


def _weight(item: Any) -> int:
    """About how many bytes a span or a log record takes."""
    item = getattr(item, "log_record", item)
    told: list[Any] = [getattr(item, "body", None)]
    for one in (item, *getattr(item, "events", ())):
        told += (getattr(one, "attributes", None) or {}).values()
    return _ITSELF + sum(len(text) for text in told if isinstance(text, str))


def _number(cargo: Cargo, variable: str, default: int) -> int:
    text = os.environ.get(f"{cargo.variables}_{variable}", "") if cargo.variables else ""
    return int(text) if text.isdigit() and int(text) > 0 else default
