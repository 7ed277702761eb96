"""`setup()`: one call that makes the traces of this process go somewhere, and the handle that flushes them."""

from __future__ import annotations

import atexit
import logging
import os
import socket
from typing import TYPE_CHECKING, Any, Literal, Self, get_args
from weakref import WeakKeyDictionary, WeakSet

from . import discovery, names
from .content import CAPTURE, Content
from .exporters import check, make_outlet, service_name
from .outlet import Hub

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

    from .exporters import Protocol
    from .outlet import Direct, Outlet
    from .spans import Events, SpanObserver

ExporterName = Literal["otlp", "phoenix", "jaeger", "console", "file"]

logger = logging.getLogger("agentflow")

_ours: WeakSet[Any] = WeakSet()
"""The providers that `setup()` has made."""
_hubs: WeakKeyDictionary[Any, Hub] = WeakKeyDictionary()
_previewing: WeakSet[SpanObserver] = WeakSet()
"""Those whose content level nobody chose: it is "none" as soon as spans go elsewhere than to the terminal."""


class Telemetry:
    """What `setup()` began. Leaving its `with` block, or the end of the process, delivers what is left and stops it.

    What could not be delivered is then logged as a warning, unless it was said before.
    """

    def __init__(self, provider: Any, outlets: Sequence[Outlet | Direct], observer: SpanObserver | None) -> None:
        self.tracer_provider: TracerProvider | None = provider
        """Where spans of your own go, too; None where telemetry is turned off."""
        self._outlets = tuple(outlets)
        self._observer = observer
        self._closed = False
        atexit.register(self._leave)

    def flush(self, timeout: float = 10.0) -> list[str]:
        """Deliver the spans that have ended. Returns what went wrong since `setup()`, one line each; [] if nothing.

        Gives up after `timeout` seconds for each exporter; it goes on trying in the background.
        """
        late = [outlet for outlet in self._outlets if not outlet.flush(timeout) and not outlet.problems()]
        return [
            *(f"the trace is not delivered to {outlet.place} yet: {outlet.why}" for outlet in late),
            *self._problems(),
        ]

    def shutdown(self, timeout: float = 5.0) -> list[str]:
        """End the spans of runs that still go on, deliver everything, and stop. Returns what went wrong, as `flush`.

        Takes `timeout` seconds at most for each exporter, and none where nobody listens at the endpoint. A provider
        that others have set up goes on without what `setup()` added.
        """
        if self._closed:
            return self._problems()
        self._stop(timeout)
        return self._problems()

    def _leave(self) -> None:
        """Shut down where nobody reads what `shutdown()` returns."""
        if not self._closed:
            self._stop()
            for outlet in self._outlets:
                for line in outlet.unsaid():
                    logger.warning(line)

    def _stop(self, timeout: float = 5.0) -> None:
        self._closed = True
        atexit.unregister(self._leave)
        if self._observer is not None:
            self._observer.close()
            discovery.TRACES.leave(self.tracer_provider, self._observer, ours=self.tracer_provider in _ours)
        for outlet in self._outlets:
            outlet.shutdown(timeout)
            _hubs[self.tracer_provider].remove(outlet)

    def _problems(self) -> list[str]:
        return [line for outlet in self._outlets for line in outlet.problems()]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave()


def setup(  # noqa: PLR0913 because an application says all of it in one place
    exporter: ExporterName | SpanExporter | Sequence[ExporterName | SpanExporter] = "otlp",
    *,
    endpoint: str | None = None,
    protocol: Protocol | None = None,
    headers: Mapping[str, str] | None = None,
    path: str | Path | None = None,
    service_name: str | None = None,
    content: Content | None = None,
    events: Events = "spans",
) -> Telemetry:
    """Let the traces of this process go somewhere: `setup("phoenix")`. For applications; libraries leave it alone.

    - `exporter`: "otlp", "phoenix" and "jaeger" send OTLP; "console" prints each trace as a tree when it has ended;
      "file" appends OTLP JSON lines to `path`. A `SpanExporter` of your own is fine, and several, as a list.
    - `endpoint`: the server's address, for all that send OTLP. By default Phoenix's and Jaeger's own on this machine,
      for "otlp" what the `OTEL_EXPORTER_OTLP_*` variables say. Over http, `/v1/traces` is added where no path is given.
    - `protocol`: "http/protobuf" or "grpc"; by default what `OTEL_EXPORTER_OTLP_PROTOCOL` says, else http.
    - `headers`: sent with every request.
    - `service_name`: by default `OTEL_SERVICE_NAME`, else the name of the program. In Phoenix it is the project, too,
      unless `PHOENIX_PROJECT_NAME` names another.
    - `content`: what of prompts, answers, arguments and events goes out. "none": sizes and counts; "preview": 1 kB a
      text; "full": 8 kB a text, 64 kB an attribute. By default what
      `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT` says, else "none"; "preview" where `setup("console")` is
      all there is, because then nothing leaves the terminal. Recognised secrets never go out.
    - `events`: "links" leaves out the spans of events, and links a step to the step that sent its event.

    Where a provider of the OpenTelemetry SDK is set up already, it stays, with its resource and sampler, and is given
    one more processor. Where none is, one is made and set as the global one; `OTEL_TRACES_SAMPLER`,
    `OTEL_RESOURCE_ATTRIBUTES` and the other variables of the SDK hold for it. With `AGENTFLOW_TELEMETRY=off` or
    `OTEL_SDK_DISABLED=true` nothing is set up. Called again with the same exporter and endpoint, the later call's is
    used until it is shut down, so that no trace is told twice.

    Raises `ValueError` for an argument that means nothing, or nothing for these exporters, `OSError` for a file that
    cannot be written, `RuntimeError` where the global provider is not one of the SDK.
    """
    given: Any = exporter
    wanted: list[Any] = list(given) if isinstance(given, list | tuple) else [given]  # pyright: ignore[reportUnknownArgumentType]  # because it is checked one by one
    check(wanted, endpoint=endpoint, protocol=protocol, headers=headers, path=path)
    _check("content", content, get_args(Content))
    _check("events", events, ("spans", "links"))
    if discovery.is_off():
        return Telemetry(None, (), None)
    outlets = [make_outlet(one, endpoint=endpoint, protocol=protocol, headers=headers, path=path) for one in wanted]
    provider = _provider(service_name)
    if provider not in _hubs:
        hub = _hubs[provider] = Hub()
        provider.add_span_processor(hub)
    for outlet in outlets:
        _hubs[provider].add(outlet)
    stays_here = provider in _ours and all(o.key == "console" for o in _hubs[provider].outlets)
    for earlier in () if stays_here else tuple(_previewing):
        earlier.content = "none"
    by_default = content is None and CAPTURE not in os.environ
    from .spans import SpanObserver  # noqa: PLC0415 because only who traces needs it

    observer = SpanObserver(provider, content="preview" if by_default and stays_here else content, events=events)
    if by_default:
        _previewing.add(observer)
    discovery.TRACES.use(provider, observer)
    return Telemetry(provider, outlets, observer)


def _provider(name: str | None) -> Any:
    """The global provider; one of ours where there is none."""
    from opentelemetry import trace  # noqa: PLC0415 because only who traces needs it

    there = trace.get_tracer_provider()
    if hasattr(there, "add_span_processor"):
        return there
    if not isinstance(there, trace.ProxyTracerProvider):
        msg = (
            f"setup(): the global tracer provider is a {type(there).__name__}, which takes no span processors, and it "
            "can't be replaced. Call setup() before whatever sets it, or configure that to export."
        )
        raise RuntimeError(msg)  # noqa: TRY004 because it is no argument that has the wrong type
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 because the SDK is heavy
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 because as above

    named = service_name(name)
    given = Resource.create({} if named is None else {"service.name": named})
    otherwise = {
        # without it Jaeger takes an event that outlives its step for a sign of clocks that differ
        "host.name": socket.gethostname(),
        # else Phoenix puts the traces of all services into one project
        names.PROJECT: os.environ.get("PHOENIX_PROJECT_NAME") or str(given.attributes["service.name"]),
    }
    made = TracerProvider(resource=Resource(otherwise).merge(given), shutdown_on_exit=False)
    _ours.add(made)
    trace.set_tracer_provider(made)
    return made


def _check(option: str, given: object, choices: tuple[str, ...]) -> None:
    if given is not None and given not in choices:
        shown = ", ".join(f'"{choice}"' for choice in choices)
        msg = f"setup({option}={given!r}): there is no such choice. Choose from: {shown}."
        raise ValueError(msg)
