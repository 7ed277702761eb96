"""Records into a histogram as the SDK does, at a third of its price: what does not change is looked up once.

Most of what a record costs in the SDK is that attributes are cleaned, copied, sorted and hashed to find the
series that they stand for. Ours come again and again. The exemplar filter is asked, and the SDK's own aggregations
take the measurement. Where views choose among attributes, where series begin anew with each collection, or where
the SDK is not as it is known here, it is asked instead.
"""

from __future__ import annotations

from math import inf
from time import time_ns
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.context import Context
    from opentelemetry.util.types import AttributeValue

    Record = Callable[[float, Context], None]

_INTERNAL = "opentelemetry.sdk.metrics._internal."
_MEASUREMENT = {"value", "time_unix_nano", "instrument", "context", "attributes"}


def recorder(histogram: Any, attributes: Mapping[str, AttributeValue]) -> Record:
    """What records with these attributes: a value, and the context in which it was measured, which is not empty."""
    consumer = getattr(histogram, "_measurement_consumer", None)
    if _is_the_sdks(histogram, "instrument") and _is_the_sdks(consumer, "measurement_consumer"):
        return _Series(histogram, consumer, attributes).record

    def record(value: float, context: Context) -> None:
        histogram.record(value, attributes, context)

    return record


class _Series:
    """One histogram with one set of attributes."""

    __slots__ = ("_aggregations", "_attributes", "_consumer", "_enabled", "_histogram", "_kind", "_readers")

    def __init__(self, histogram: Any, consumer: Any, attributes: Mapping[str, AttributeValue]) -> None:
        self._histogram = histogram
        self._consumer = consumer
        self._enabled: Callable[[], bool] | None = getattr(histogram, "_is_enabled", None)
        self._attributes: Any = attributes
        self._kind: Any = None
        """The SDK's class of measurements."""
        self._readers: Any = None
        """What read when it was looked at last."""
        self._aggregations: list[Any] = []
        """The series of all readers, where they are as they are known here."""

    def record(self, value: float, context: Context) -> None:
        readers = self._consumer._reader_storages  # noqa: SLF001 because it is replaced when a reader comes or goes
        if readers is not self._readers or not self._aggregations or not 0 <= value < inf:
            self._record(value, context, readers)
            return
        if self._enabled is not None and not self._enabled():
            return
        at = time_ns()
        measured = object.__new__(self._kind)
        measured.__dict__.update(
            value=value, time_unix_nano=at, instrument=self._histogram, context=context, attributes=self._attributes
        )
        filtered = self._consumer._sdk_config.exemplar_filter  # noqa: SLF001 because nothing else has it
        sampled = filtered.should_sample(value, at, self._attributes, context)
        for aggregation in self._aggregations:
            aggregation.aggregate(measured, sampled)

    def _record(self, value: float, context: Context, readers: Any) -> None:
        self._histogram.record(value, self._attributes, context)
        if readers is not self._readers:
            self._aggregations = self._find(readers, context)
            self._readers = readers

    def _find(self, readers: Any, context: Context) -> list[Any]:
        """The aggregations that have just taken a value; none where one of them may be another next time."""
        from opentelemetry.sdk.metrics._internal.measurement import Measurement  # noqa: PLC0415 because the SDK is there

        measured: Any = Measurement(0.0, 0, self._histogram, context, dict(self._attributes))
        fields: dict[str, Any] = getattr(measured, "__dict__", {})
        if set(fields) != _MEASUREMENT:
            return []
        self._kind, self._attributes = Measurement, measured.attributes
        found: list[Any] = []
        for storage in readers.values():
            for match in getattr(storage, "_instrument_view_instrument_matches", {}).get(self._histogram, (None,)):
                aggregation = self._found(match)
                if aggregation is None:
                    return []
                found.append(aggregation)
        return found

    def _found(self, match: Any) -> Any:
        if getattr(match, "_reset_on_collect", False):
            return None
        view, series = getattr(match, "_view", None), getattr(match, "_attributes_aggregation", None)
        if series is None or getattr(view, "_attribute_keys", self) is not None:
            return None
        every = list(series.values())
        ours = [one for one in every if getattr(one, "_attributes", None) == self._attributes]
        return ours[0] if len(ours) == 1 and _is_the_sdks(ours[0], "aggregation") else None


def _is_the_sdks(thing: object, module: str) -> bool:
    return type(thing).__module__ == _INTERNAL + module
