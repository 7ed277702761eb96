"""A receiver of OTLP in this process: traces, metrics and logs, over http and grpc, on free ports of 127.0.0.1."""

from __future__ import annotations

import gzip
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread
from typing import TYPE_CHECKING, Any, Self

from . import received
from .received import tree_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from .received import LogRecord, MetricPoint, SpanRecord

_OK = 200
_TOO_LARGE = 413
_SERVICES = {
    "/v1/traces": ("trace", "Trace", "/opentelemetry.proto.collector.trace.v1.TraceService"),
    "/v1/metrics": ("metrics", "Metrics", "/opentelemetry.proto.collector.metrics.v1.MetricsService"),
    "/v1/logs": ("logs", "Logs", "/opentelemetry.proto.collector.logs.v1.LogsService"),
}
_REJECTED = {"/v1/traces": "rejected_spans", "/v1/metrics": "rejected_data_points", "/v1/logs": "rejected_log_records"}
_UNPACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.decompress, "deflate": zlib.decompress}
_GRPC_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "UNIMPLEMENTED",
    413: "RESOURCE_EXHAUSTED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class OtlpReceiver:
    """Keeps everything that is sent to it.

    - `largest`: the most bytes that it takes in one request, unpacked; more is answered as 413, over grpc as
      RESOURCE_EXHAUSTED. By default the 4 MiB that servers of grpc take.

    What it answers can be changed while it runs, to see what a sender makes of it:

    - `status`: the HTTP status; over grpc the code that means the same. Only what is answered with 200 is kept.
    - `retry_after`: seconds, sent along with a status that is an error over http.
    - `rejects`, `rejects_because`: so many items and why, as the answer of a partial success has them. What the
      request held is kept nevertheless.
    """

    def __init__(self, *, largest: int = 4 << 20) -> None:
        self.largest = largest
        self.spans: list[SpanRecord] = []
        """In the order in which they came."""
        self.metrics: list[MetricPoint] = []
        """In the order in which they came: a metric is sent again each time that it is exported."""
        self.logs: list[LogRecord] = []
        """In the order in which they came."""
        self.headers: list[dict[str, str]] = []
        """Of each request, names in lower case."""
        self.status = _OK
        self.retry_after: float | None = None
        self.rejects = 0
        self.rejects_because = ""
        self._came = Condition()
        self._http: ThreadingHTTPServer | None = None
        self._grpc: Any = None
        self._grpc_port = 0

    def __enter__(self) -> Self:
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        Thread(target=self._http.serve_forever, args=(0.02,), name="otlp-receiver", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
        if self._grpc is not None:
            self._grpc.stop(None).wait()

    @property
    def http_endpoint(self) -> str:
        """Its address for OTLP over http, without a path."""
        assert self._http is not None, "write: with OtlpReceiver() as receiver: ..."
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def grpc_endpoint(self) -> str:
        """Its address for OTLP over grpc, whose server starts when this is first asked for."""
        if self._grpc is None:
            self._start_grpc()
        return f"http://127.0.0.1:{self._grpc_port}"

    def wait_for(self, spans: int = 0, timeout: float = 10.0, *, metrics: int = 0, logs: int = 0) -> list[SpanRecord]:
        """Wait until so many spans, points of metrics and log records have come, and return the spans.

        Raises `TimeoutError` after `timeout` seconds.
        """
        end = time.monotonic() + timeout
        with self._came:
            while len(self.spans) < spans or len(self.metrics) < metrics or len(self.logs) < logs:
                if not self._came.wait(max(0.0, end - time.monotonic())) and time.monotonic() >= end:
                    raise TimeoutError(self._too_few(timeout, spans, metrics, logs))
            return list(self.spans)

    def _too_few(self, timeout: float, spans: int, metrics: int, logs: int) -> str:
        came = (
            ("spans", spans, [span.name for span in self.spans]),
            ("points of metrics", metrics, [point.name for point in self.metrics]),
            ("log records", logs, [record.event_name or record.body for record in self.logs]),
        )
        return "; ".join(
            f"{len(seen)} {what} came in {timeout:g} s, not {many}: {seen}"
            for what, many, seen in came
            if len(seen) < many
        )

    def named(self, name: str) -> list[SpanRecord]:
        """The spans of this name."""
        return [span for span in self.spans if span.name == name]

    def latest(self, metric: str) -> list[MetricPoint]:
        """The newest point of each set of attributes that a metric has."""
        newest: dict[str, MetricPoint] = {}
        for point in self.metrics:
            if point.name == metric:
                newest[repr((sorted(point.attributes.items()), sorted(point.resource.items())))] = point
        return list(newest.values())

    def children(self, span: SpanRecord) -> list[SpanRecord]:
        """The spans whose parent is this one, as they began."""
        return sorted((s for s in self.spans if s.parent_id == span.span_id), key=lambda s: s.start)

    def tree(self) -> str:
        """All spans as an indented text, one a line: the name, and the outcome where it is not "ok"."""
        return tree_of(self.spans)

    def take(self, path: str, body: bytes, headers: Iterable[tuple[str, str]]) -> bytes:
        """Keep a request; returns the answer's bytes. What the servers call."""
        request, answer = _messages(path)
        message = request.FromString(body)
        with self._came:
            self.headers.append({name.lower(): value for name, value in headers})
            if path == "/v1/traces":
                self.spans += received.spans(message)
            elif path == "/v1/metrics":
                self.metrics += received.points(message)
            else:
                self.logs += received.logs(message)
            self._came.notify_all()
        told = answer()
        if self.rejects or self.rejects_because:
            setattr(told.partial_success, _REJECTED[path], self.rejects)
            told.partial_success.error_message = self.rejects_because
        return bytes(told.SerializeToString())

    def _start_grpc(self) -> None:
        from importlib import import_module  # noqa: PLC0415 because grpc is heavy

        any_grpc: Any = import_module("grpc")  # it has no types
        handlers: list[Any] = []
        for path, (_, _, service) in _SERVICES.items():

            def answer(body: bytes, context: Any, path: str = path) -> bytes:
                if self.status != _OK:
                    code = _GRPC_STATUS.get(self.status, "UNKNOWN")
                    context.abort(getattr(any_grpc.StatusCode, code), f"the test wants {self.status}")
                return self.take(path, body, context.invocation_metadata())

            method = any_grpc.unary_unary_rpc_method_handler(answer)
            handlers.append(any_grpc.method_handlers_generic_handler(service[1:], {"Export": method}))
        self._grpc = any_grpc.server(
            ThreadPoolExecutor(2, thread_name_prefix="otlp-receiver"),
            options=[("grpc.max_receive_message_length", self.largest)],
        )
        self._grpc.add_generic_rpc_handlers(tuple(handlers))
        self._grpc_port = self._grpc.add_insecure_port("127.0.0.1:0")
        self._grpc.start()


def _handler(receiver: OtlpReceiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            unpack = _UNPACK.get(self.headers.get("Content-Encoding", ""))
            body = unpack(body) if unpack else body
            answer, status = b"", receiver.status
            if self.path not in _SERVICES:
                status = 404
            elif self.headers.get("Content-Type") != "application/x-protobuf":
                status = 415
            elif len(body) > receiver.largest:
                status = _TOO_LARGE
            elif status == _OK:
                answer = receiver.take(self.path, body, self.headers.items())
            self.send_response(status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            if status != _OK and receiver.retry_after is not None:
                self.send_header("Retry-After", f"{receiver.retry_after:g}")
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 because the base class has it so
            """Say nothing."""

    return Handler


def _messages(path: str) -> tuple[Any, Any]:
    """The protobuf classes of a request and of its answer."""
    from importlib import import_module  # noqa: PLC0415 because protobuf is heavy

    module, name, _ = _SERVICES[path]
    found = import_module(f"opentelemetry.proto.collector.{module}.v1.{module}_service_pb2")
    return getattr(found, f"Export{name}ServiceRequest"), getattr(found, f"Export{name}ServiceResponse")
