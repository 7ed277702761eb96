"""The way of metrics to a receiver: they are read at intervals, and each reading is sent."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from .outlet import Outlet
from .pipeline import METRICS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .hub import Hub


class Readings(Outlet):
    """Reads the metrics every `OTEL_METRIC_EXPORT_INTERVAL` milliseconds (60,000), and when it is flushed."""

    def __init__(self, make: Callable[[], Any], place: str, *, key: object) -> None:
        super().__init__(make, place, key=key, cargo=METRICS)
        self._reader: Any = None
        self._provider: Any = None
        self._hub: Hub | None = None

    def attach(self, provider: Any, hub: Hub) -> None:
        """Read the metrics of `provider`, unless `hub` says that a later one does. Raises `ValueError`."""
        self._reader = _reader_into(self)
        self._provider, self._hub = provider, hub
        add_reader(provider, self._reader)

    def take(self, reading: Any) -> None:
        """Metrics were read."""
        if self._hub is not None and self in self._hub.used:
            self.put(reading)

    def hurry(self) -> None:
        """Read the metrics, and send them now."""
        if self._reader is not None:
            self._reader.collect()
        super().hurry()

    def shutdown(self, timeout: float = 5.0) -> None:
        """Send what can be sent in `timeout` seconds, and stop; `hurry` first for what was measured last."""
        reader, self._reader = self._reader, None
        if reader is not None:
            self._hub = None  # the SDK's reader reads once more
            reader.shutdown(timeout * 1000)
            remove_reader(self._provider, reader)
        super().shutdown(timeout)

    def _hand_over(self, batch: Sequence[Any]) -> Any:
        return self.exporter.export(batch[0])

    def _forked(self) -> None:
        super()._forked()
        if self._reader is not None and not self._closed:
            begin_anew(self._provider, self._reader)


def _reader_into(readings: Readings) -> Any:
    """The SDK's reader that reads at intervals, with an exporter that hands on what is read."""
    from opentelemetry.sdk.metrics.export import (  # noqa: PLC0415 because the SDK is heavy
        MetricExporter,
        MetricExportResult,
        PeriodicExportingMetricReader,
    )

    known = weakref.ref(readings)

    class Into(MetricExporter):
        def export(self, metrics_data: Any, timeout_millis: float = 10_000, **_: Any) -> MetricExportResult:  # noqa: ARG002 because it is the SDK's
            if (there := known()) is not None:
                there.take(metrics_data)
            return MetricExportResult.SUCCESS

        def force_flush(self, timeout_millis: float = 10_000) -> bool:  # noqa: ARG002 because it is the SDK's
            return True

        def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
            """The outlet stops by itself."""

    class Reader(PeriodicExportingMetricReader):
        over = False

        def collect(self, timeout_millis: float = 10_000) -> None:  # type: ignore[misc]  # because the SDK complains else
            """Read, unless it is over: its thread may wish to once more, and the SDK would complain."""
            if not self.over:
                super().collect(timeout_millis)

        def shutdown(self, timeout_millis: float = 30_000, **more: Any) -> None:
            """Stop, once: a provider that lets go of a reader shuts it down, too."""
            if not self.over:
                self.over = True
                super().shutdown(timeout_millis, **more)  # pyright: ignore[reportUnknownMemberType]  # because the SDK does not say what more there is

    inner = readings.exporter
    # an exporter says how it wants its metrics: sums since the beginning, or differences
    return Reader(Into(inner._preferred_temporality, inner._preferred_aggregation))  # noqa: SLF001 because the SDK's reader asks it the same way


def add_reader(provider: Any, reader: Any) -> None:
    """Let a reader read a provider that is there already; one of ours, where the SDK has no way of its own to do so."""
    if hasattr(provider, "add_metric_reader"):
        provider.add_metric_reader(reader)
        return
    from opentelemetry.sdk.metrics._internal.metric_reader_storage import (  # noqa: PLC0415 because only the older SDKs need it
        MetricReaderStorage,
    )

    consumer = provider._measurement_consumer  # noqa: SLF001 because these versions have no other way
    storage = MetricReaderStorage(
        consumer._sdk_config,  # noqa: SLF001 because as above
        reader._instrument_class_temporality,  # noqa: SLF001 because as above
        reader._instrument_class_aggregation,  # noqa: SLF001 because as above
    )
    consumer._reader_storages = {**consumer._reader_storages, reader: storage}  # noqa: SLF001 because as above
    reader._set_collect_callback(consumer.collect)  # noqa: SLF001 because as above


def remove_reader(provider: Any, reader: Any) -> None:
    """Take back `add_reader`."""
    if hasattr(provider, "remove_metric_reader"):
        provider.remove_metric_reader(reader)
        return
    reader._set_collect_callback(_nothing)  # noqa: SLF001 because its thread may read once more
    reader.shutdown()
    consumer = provider._measurement_consumer  # noqa: SLF001 because as above
    kept = {one: storage for one, storage in consumer._reader_storages.items() if one is not reader}  # noqa: SLF001 because as above
    consumer._reader_storages = kept  # noqa: SLF001 because as above


def _nothing(*_: Any, **__: Any) -> None:
    """What is read when nobody is read any more."""


def begin_anew(provider: Any, reader: Any) -> None:
    """Forget what was measured in the process that this one was forked off, which tells it itself."""
    consumer = getattr(provider, "_measurement_consumer", None)
    storage = getattr(consumer, "_reader_storages", {}).get(reader)
    if storage is not None:
        storage._instrument_view_instrument_matches = {}  # noqa: SLF001 because there is no public way
