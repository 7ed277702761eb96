"""What scripts/backend.py has installed, as tests see it: servers, read through their own API, and an environment."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from http.client import HTTPConnection
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from opentelemetry.sdk.trace import ReadableSpan

Protocol = Literal["http/protobuf", "grpc"]
SCRIPT = Path(__file__).parents[1] / "scripts" / "backend.py"


@dataclass(frozen=True)
class Link:
    """The trace and the span that a link leads to, and what the link says."""

    trace: str
    to: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Event:
    """An event of a span."""

    name: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Seen:
    """A span as a back end, or the SDK, tells it. Ids are hexadecimal."""

    name: str
    id: str
    parent: str | None
    kind: str
    """In Phoenix the kind that it shows, such as "LLM"; elsewhere OpenTelemetry's, such as "CLIENT"."""
    status: str
    message: str
    attributes: Mapping[str, Any]
    events: tuple[Event, ...] = ()
    links: tuple[Link, ...] = ()
    begun: float = field(default=0.0, compare=False)
    """In seconds since the epoch; each back end rounds it in its own way."""
    lasted: float = field(default=0.0, compare=False)
    """Seconds."""

    @classmethod
    def from_sdk(cls, span: ReadableSpan) -> Self:
        """As the SDK made it."""
        context = span.get_span_context()
        assert context
        return cls(
            name=span.name,
            id=f"{context.span_id:016x}",
            parent=f"{span.parent.span_id:016x}" if span.parent else None,
            kind=span.kind.name,
            status=span.status.status_code.name,
            message=span.status.description or "",
            attributes=_plain(span.attributes),
            events=tuple(Event(event.name, _plain(event.attributes)) for event in span.events),
            links=tuple(
                Link(f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}", _plain(link.attributes))
                for link in span.links
            ),
            begun=(span.start_time or 0) / 1e9,
            lasted=((span.end_time or 0) - (span.start_time or 0)) / 1e9,
        )


class Trace:
    """The spans of a trace, as one of those who know it tells them. Its id is hexadecimal."""

    def __init__(self, spans: Iterable[Seen], trace_id: str) -> None:
        self.id = trace_id
        self.spans = {span.id: span for span in sorted(spans, key=lambda span: span.begun)}

    def tree(self) -> dict[str, tuple[str, str | None]]:
        """By id, each span's name and its parent's id."""
        return {span.id: (span.name, span.parent) for span in self.spans.values()}

    def named(self, name: str) -> Seen:
        """The one span of this name."""
        (found,) = (span for span in self.spans.values() if span.name == name)
        return found

    @property
    def root(self) -> Seen:
        """The one span that has no parent."""
        (found,) = (span for span in self.spans.values() if span.parent is None)
        return found

    def all_named(self, name: str) -> list[Seen]:
        """The spans of this name, in the order in which they began."""
        return [span for span in self.spans.values() if span.name == name]

    def above(self, span: Seen) -> list[str]:
        """The names on the way from the root to this span, its own at the end."""
        parent = self.spans[span.parent] if span.parent else None
        return [*(self.above(parent) if parent else ()), span.name]


@dataclass(frozen=True)
class RealBackend:
    """A server that runs."""

    preset: ClassVar[Literal["phoenix", "jaeger"]]
    """How `setup` calls it."""
    port: int
    http: str
    """Where it takes in OTLP over HTTP."""
    grpc: str

    def get(self, path: str) -> Any:
        """What its API answers, or None where it knows nothing of that."""
        with contextlib.closing(HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        assert answer.status in {200, 404}, (path, answer.status, body)
        return json.loads(body) if answer.status == 200 else None

    def endpoint(self, protocol: Protocol) -> str:
        """Where it takes in OTLP by this protocol."""
        return self.grpc if protocol == "grpc" else self.http

    def trace(self, trace_id: str, size: int) -> Trace:
        """The trace, as soon as it has so many spans: a server may take its time to show what it was sent."""
        give_up = time.monotonic() + 30
        while len(found := list(self._spans(trace_id))) < size:
            assert time.monotonic() < give_up, f"{len(found)} of {size} spans arrived: {[span.name for span in found]}"
            time.sleep(0.1)
        return Trace(found, trace_id)

    def _spans(self, trace_id: str) -> Iterable[Seen]:
        raise NotImplementedError


class RealPhoenix(RealBackend):
    """A Phoenix that runs."""

    preset = "phoenix"

    def _spans(self, trace_id: str) -> Iterable[Seen]:
        projects = [project["id"] for project in self.get("/v1/projects")["data"]]
        answers = (self.get(f"/v1/projects/{project}/spans?limit=1000&trace_id={trace_id}") for project in projects)
        for span in (span for answer in answers for span in answer["data"]):
            begun, ended = map(datetime.fromisoformat, (span["start_time"], span["end_time"]))
            yield Seen(
                name=span["name"],
                id=span["context"]["span_id"],
                parent=span["parent_id"],
                kind=span["span_kind"],
                status=span["status_code"],
                message=span["status_message"],
                attributes=span["attributes"],
                events=tuple(Event(event["name"], event["attributes"]) for event in span["events"]),
                begun=begun.timestamp(),
                lasted=(ended - begun).total_seconds(),
            )

    def ask(self, query: str) -> Any:
        """What its GraphQL answers."""
        with contextlib.closing(HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            body = json.dumps({"query": query})
            connection.request("POST", "/graphql", body, {"Content-Type": "application/json"})
            told = json.loads(connection.getresponse().read())
        assert not told.get("errors"), told
        return told["data"]

    def about(self, span: Seen, fields: str) -> Any:
        """These fields of a span, of its trace, of its session, as GraphQL has them."""
        return self.ask(f'{{ getSpanByOtelId(spanId: "{span.id}") {{ {fields} }} }}')["getSpanByOtelId"]

    def cost(self, span: Seen) -> dict[str, float]:
        """What it says that a span cost, in dollars: "prompt", "completion" and "total", where it knows."""
        fields = "prompt { cost } completion { cost } total { cost }"
        summary = self.about(span, f"costSummary {{ {fields} }}")["costSummary"] or {}
        return {part: of["cost"] for part, of in summary.items() if of["cost"] is not None}


class RealJaeger(RealBackend):
    """A Jaeger that runs."""

    preset = "jaeger"

    def _spans(self, trace_id: str) -> Iterable[Seen]:
        answer = self.get(f"/api/v3/traces/{trace_id}")
        for resource in answer["result"]["resourceSpans"] if answer else ():
            for scope in resource["scopeSpans"]:
                yield from map(_from_otlp, scope["spans"])


_KINDS = ["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"]
_STATUS = ["UNSET", "OK", "ERROR"]


def _from_otlp(span: Mapping[str, Any]) -> Seen:
    """From OTLP's JSON, which leaves out what is empty."""
    status = span.get("status", {})
    return Seen(
        name=span["name"],
        id=span["spanId"],
        parent=span.get("parentSpanId"),
        kind=_KINDS[span["kind"]],
        status=_STATUS[status.get("code", 0)],
        message=status.get("message", ""),
        attributes=_attributes(span),
        events=tuple(Event(event["name"], _attributes(event)) for event in span.get("events", ())),
        links=tuple(Link(link["traceId"], link["spanId"], _attributes(link)) for link in span.get("links", ())),
        begun=int(span["startTimeUnixNano"]) / 1e9,
        lasted=(int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"])) / 1e9,
    )


def _attributes(holder: Mapping[str, Any]) -> dict[str, Any]:
    return {one["key"]: _value(one["value"]) for one in holder.get("attributes", ())}


def _value(value: Mapping[str, Any]) -> Any:
    ((kind, inner),) = value.items()
    if kind == "arrayValue":
        return [_value(one) for one in inner.get("values", ())]
    return int(inner) if kind == "intValue" else inner


def _plain(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in (attributes or {}).items()}


def is_installed(name: str) -> bool:
    """Whether there is such a back end to be run."""
    return (
        subprocess.run([sys.executable, SCRIPT, name, "path"], stdout=subprocess.DEVNULL, check=False).returncode == 0
    )


@contextlib.contextmanager
def running(name: str, **ports: int) -> Generator[None]:
    """Let the back end serve on these ports while the block runs."""
    options = [f"--{option.replace('_', '-')}={port}" for option, port in ports.items()]
    with subprocess.Popen(
        [sys.executable, SCRIPT, name, "run", *options], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            said = ""
            while "Ctrl-C" not in said:
                line = process.stdout.readline()
                assert line, f"{name} did not start: {said}"
                said += line
            yield
        finally:
            process.terminate()


@contextlib.contextmanager
def running_phoenix() -> Generator[RealPhoenix]:
    """A Phoenix of one's own."""
    port, grpc = free_ports(2)
    with running("phoenix", port=port, grpc_port=grpc):
        yield RealPhoenix(port, f"http://127.0.0.1:{port}/v1/traces", f"http://127.0.0.1:{grpc}")


@contextlib.contextmanager
def running_jaeger() -> Generator[RealJaeger]:
    """A Jaeger of one's own."""
    port, http, grpc = free_ports(3)
    with running("jaeger", port=port, http_port=http, grpc_port=grpc):
        yield RealJaeger(port, f"http://127.0.0.1:{http}/v1/traces", f"http://127.0.0.1:{grpc}")


@dataclass(frozen=True)
class Instrumented:
    """A Python with the instrumentors of others in it, for programs that use this agentflow."""

    folder: Path
    """In which this agentflow is made known as installed."""

    @classmethod
    def make(cls, folder: Path) -> Self:
        """Its entry points are what an installation of it there would have."""
        here = distribution("agentflow-otel")
        known = folder / f"agentflow_otel-{here.version}.dist-info"
        known.mkdir()
        for name in ("METADATA", "entry_points.txt"):
            (known / name).write_text(here.read_text(name) or "", encoding="utf-8")
        return cls(folder)

    @cached_property
    def python(self) -> Path:
        """The interpreter."""
        command = [sys.executable, str(SCRIPT), "instrumented", "path"]
        return Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())

    def run(self, *command: str, before: Iterable[str] = (), **environ: str) -> str:
        """What a program of that environment says: "python", or another. `before`: packages that come first."""
        root = SCRIPT.parents[1]
        packages = [root, *(root / name for name in ("agents", "llm", "instrumentation"))]
        aside = [self.python.parents[1] / name for name in before]
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("AGENTFLOW_", "OTEL_"))}
        clean["PYTHONPATH"] = os.pathsep.join(map(str, [*aside, self.folder, *packages]))
        program = str(self.python.with_name(command[0]))
        done = subprocess.run(
            [program, *command[1:]], capture_output=True, text=True, env=clean | environ, check=False, timeout=120
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout


def free_ports(many: int) -> list[int]:
    """Ports of this machine on which nobody listens."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(many)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
