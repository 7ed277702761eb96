"""For tests: a receiver of OTLP in this process, over http and grpc, on free ports of 127.0.0.1.

```python
with OtlpReceiver() as receiver, setup("otlp", endpoint=receiver.http_endpoint):
    await workflow.run()
    receiver.wait_for(3)
print(receiver.tree())
```
"""

from __future__ import annotations

import gzip
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread
from typing import TYPE_CHECKING, Any, Self

from . import names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType

_KINDS: tuple[str, ...] = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_STATUSES = ("UNSET", "OK", "ERROR")
_SERVICES = {
    "/v1/traces": ("trace", "Trace", "/opentelemetry.proto.collector.trace.v1.TraceService"),
    "/v1/metrics": ("metrics", "Metrics", "/opentelemetry.proto.collector.metrics.v1.MetricsService"),
    "/v1/logs": ("logs", "Logs", "/opentelemetry.proto.collector.logs.v1.LogsService"),
}
_UNPACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.decompress, "deflate": zlib.decompress}


@dataclass(frozen=True)
class LinkRecord:
    """A link, with ids in hex."""

    trace_id: str
    span_id: str
    attributes: dict[str, Any]


@dataclass(frozen=True)
class EventRecord:
    """An event of a span. `at`: nanoseconds since the epoch."""

    name: str
    at: int
    attributes: dict[str, Any]


@dataclass(frozen=True)
class SpanRecord:
    """A span as it arrived: ids in hex, times in nanoseconds since the epoch."""

    name: str
    kind: str
    """INTERNAL, CLIENT..."""
    trace_id: str
    span_id: str
    parent_id: str
    """Empty for a root."""
    start: int
    end: int
    attributes: dict[str, Any] = field(repr=False)
    events: list[EventRecord] = field(repr=False)
    links: list[LinkRecord] = field(repr=False)
    status: str
    """UNSET, OK or ERROR."""
    description: str
    """Of the status."""
    resource: dict[str, Any] = field(repr=False)
    scope: str = field(repr=False)


class OtlpReceiver:
    """Keeps everything that is sent to it.

    - `status`: the HTTP status that it answers with; set another to see what a sender makes of it.
    """

    def __init__(self) -> None:
        self.spans: list[SpanRecord] = []
        """In the order in which they came."""
        self.metrics: list[Any] = []
        """Requests for metrics, as protobuf messages."""
        self.logs: list[Any] = []
        """Requests for logs, as protobuf messages."""
        self.headers: list[dict[str, str]] = []
        """Of each request, names in lower case."""
        self.status = 200
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

    def wait_for(self, spans: int, timeout: float = 10.0) -> list[SpanRecord]:
        """Wait until so many spans have come, and return all. Raises `TimeoutError` after `timeout` seconds."""
        end = time.monotonic() + timeout
        with self._came:
            while len(self.spans) < spans:
                if not self._came.wait(max(0.0, end - time.monotonic())) and time.monotonic() >= end:
                    names_ = [span.name for span in self.spans]
                    msg = f"{len(self.spans)} spans came in {timeout:g} s, not {spans}: {names_}"
                    raise TimeoutError(msg)
            return list(self.spans)

    def named(self, name: str) -> list[SpanRecord]:
        """The spans of this name."""
        return [span for span in self.spans if span.name == name]

    def children(self, span: SpanRecord) -> list[SpanRecord]:
        """The spans whose parent is this one, as they began."""
        return sorted((s for s in self.spans if s.parent_id == span.span_id), key=lambda s: s.start)

    def tree(self) -> str:
        """All spans as an indented text, one a line: the name, and the outcome where it is not "ok"."""
        known = {span.span_id for span in self.spans}
        lines: list[str] = []

        def show(span: SpanRecord, depth: int) -> None:
            outcome = span.attributes.get(names.OUTCOME, "ok")
            lines.append(f"{'  ' * depth}{span.name}{'' if outcome == 'ok' else f' {outcome}'}")
            for child in self.children(span):
                show(child, depth + 1)

        for root in sorted((s for s in self.spans if s.parent_id not in known), key=lambda s: s.start):
            show(root, 0)
        return "\n".join(lines)

    def take(self, path: str, body: bytes, headers: Iterable[tuple[str, str]]) -> bytes:
        """Keep a request; returns the answer's bytes. What the servers call."""
        request, answer = _messages(path)
        message = request.FromString(body)
        with self._came:
            self.headers.append({name.lower(): value for name, value in headers})
            if path == "/v1/traces":
                self.spans += _spans(message)
            else:
                (self.metrics if path == "/v1/metrics" else self.logs).append(message)
            self._came.notify_all()
        return bytes(answer().SerializeToString())

    def _start_grpc(self) -> None:
        from importlib import import_module  # noqa: PLC0415 because grpc is heavy

        any_grpc: Any = import_module("grpc")  # it has no types
        handlers: list[Any] = []
        for path, (_, _, service) in _SERVICES.items():

            def answer(body: bytes, context: Any, path: str = path) -> bytes:
                return self.take(path, body, context.invocation_metadata())

            method = any_grpc.unary_unary_rpc_method_handler(answer)
            handlers.append(any_grpc.method_handlers_generic_handler(service[1:], {"Export": method}))
        self._grpc = any_grpc.server(ThreadPoolExecutor(2, thread_name_prefix="otlp-receiver"))
        self._grpc.add_generic_rpc_handlers(tuple(handlers))
        self._grpc_port = self._grpc.add_insecure_port("127.0.0.1:0")
        self._grpc.start()


def _handler(receiver: OtlpReceiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            unpack = _UNPACK.get(self.headers.get("Content-Encoding", ""))
            answer, status = b"", receiver.status
            if self.path not in _SERVICES:
                status = 404
            elif self.headers.get("Content-Type") != "application/x-protobuf":
                status = 415
            elif status == 200:  # noqa: PLR2004 because it is HTTP's
                answer = receiver.take(self.path, unpack(body) if unpack else body, self.headers.items())
            self.send_response(status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
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


def _spans(request: Any) -> Iterable[SpanRecord]:
    for of_resource in request.resource_spans:
        resource = _attributes(of_resource.resource.attributes)
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                yield _span(span, resource, of_scope.scope.name)


def _span(span: Any, resource: dict[str, Any], scope: str) -> SpanRecord:
    kind: int = span.kind
    status: int = span.status.code
    return SpanRecord(
        name=span.name,
        kind=_KINDS[kind],
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        attributes=_attributes(span.attributes),
        events=[EventRecord(e.name, e.time_unix_nano, _attributes(e.attributes)) for e in span.events],
        links=[LinkRecord(x.trace_id.hex(), x.span_id.hex(), _attributes(x.attributes)) for x in span.links],
        status=_STATUSES[status],
        description=span.status.message,
        resource=resource,
        scope=scope,
    )


def _attributes(pairs: Sequence[Any]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    found = getattr(value, kind)
    if kind == "array_value":
        return [_value(one) for one in found.values]
    return _attributes(found.values) if kind == "kvlist_value" else found
