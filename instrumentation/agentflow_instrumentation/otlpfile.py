"""Traces as a file of OTLP JSON lines, which the collector's `otlpjsonfile` receiver reads, too."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
else:
    SpanExporter = object  # the SDK's class only says which methods there are, and it is heavy

_IDS = {"traceId", "spanId", "parentSpanId"}


class FileExporter(SpanExporter):
    """Appends one line of OTLP JSON for each batch of spans. Raises `OSError` where the file cannot be opened."""

    def __init__(self, path: str | Path) -> None:
        self._file = Path(path).open("a", encoding="utf-8")  # noqa: SIM115 because shutdown() closes it
        self._lock = Lock()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Append a line."""
        from importlib import import_module  # noqa: PLC0415 because protobuf is heavy

        from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans  # noqa: PLC0415 because as above
        from opentelemetry.sdk.trace.export import SpanExportResult  # noqa: PLC0415 because as above

        to_dict: Any = import_module("google.protobuf.json_format").MessageToDict  # it has no types
        request: dict[str, Any] = to_dict(encode_spans(spans), use_integers_for_enums=True)
        line = json.dumps(_with_hex_ids(request), ensure_ascii=False, separators=(",", ":"))
        with self._lock:
            if self._file.closed:
                return SpanExportResult.FAILURE
            self._file.write(f"{line}\n")
            self._file.flush()
        return SpanExportResult.SUCCESS

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002 because it is the SDK's
        """Every line is written at once."""
        return True

    def shutdown(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()


def _with_hex_ids(value: Any) -> Any:
    """OTLP writes ids as hex, where protobuf's JSON has base64."""
    if isinstance(value, dict):
        return {
            key: base64.b64decode(item).hex() if key in _IDS and isinstance(item, str) else _with_hex_ids(item)
            for key, item in value.items()  # pyright: ignore[reportUnknownVariableType]  # because JSON holds anything
        }
    return [_with_hex_ids(item) for item in value] if isinstance(value, list) else value  # pyright: ignore[reportUnknownVariableType]  # as above
