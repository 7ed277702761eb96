"""`setup()`: one call that makes the telemetry of this process go somewhere, and the handle that flushes it."""

from __future__ import annotations

import atexit
import logging
import time
from contextlib import ExitStack
from sys import modules
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from . import discovery, providers, signals
from .content import Content
from .exporters import check, check_signals, left_out, make_log_outlet, make_metric_ways, make_outlet
from .fork import after_fork
from .redactors import checked

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

    from .otlp import Protocol
    from .pipeline import Way
    from .redactors import Redactor
    from .signals import Part
    from .spans import Events

ExporterName = Literal["otlp", "phoenix", "jaeger", "console", "file"]

logger = logging.getLogger("agentflow")


class Telemetry:
    """What `setup()` began. Leaving its `with` block, or the end of the process, delivers what is left and stops it.

    What could not be delivered is then logged as a warning, unless it was said before. A process that is forked off
    sends its own spans, metrics and log records, and nothing of its parent's, as another instance of the service.
    """

    def __init__(self, traces: Part | None = None, metrics: Part | None = None, logs: Part | None = None) -> None:
        self.tracer_provider: TracerProvider | None = None if traces is None else traces.provider
        """Where spans of your own go, too; None where nothing is traced."""
        self.meter_provider: MeterProvider | None = None if metrics is None else metrics.provider
        """Where metrics of your own go, too; None without `metrics`."""
        self.logger_provider: LoggerProvider | None = None if logs is None else logs.provider
        """Where log records go; None without `logs`."""
        self._parts = [part for part in (traces, metrics, logs) if part is not None]
        self._ways = [way for part in self._parts for way in part.ways]
        self.metrics_url: str | None = next((url for way in self._ways if (url := getattr(way, "url", None))), None)
        """Where Prometheus finds the metrics; None but for `metrics="prometheus"`."""
        self._closed = False
        atexit.register(self._leave)
        after_fork(self._forked)

    def flush(self, timeout: float = 10.0) -> list[str]:
        """Deliver the spans that have ended, the log records, and the metrics as they are now.

        Returns what went wrong since `setup()`, one line each; [] if nothing. Gives up after `timeout` seconds; it
        goes on trying in the background.
        """
        end = time.monotonic() + timeout
        for way in self._ways:
            way.hurry()
        late = [way for way in self._ways if not way.flush(_left(end)) and not way.problems()]
        return [*(way.not_yet() for way in late), *self._problems()]

    def shutdown(self, timeout: float = 5.0) -> list[str]:
        """End the spans of runs that still go on, deliver everything, and stop. Returns what went wrong, as `flush`.

        Takes `timeout` seconds at most, and one more for each exporter that does not let go; none where nobody
        listens at the endpoint. Providers that others have set up go on without what `setup()` added.
        """
        if self._closed:
            return self._problems()
        self._stop(timeout)
        return self._problems()

    def _leave(self) -> None:
        """Shut down where nobody reads what `shutdown()` returns."""
        if not self._closed:
            self._stop()
            for way in self._ways:
                for line in way.unsaid():
                    logger.warning(line)

    def _stop(self, timeout: float = 5.0) -> None:
        self._closed = True
        atexit.unregister(self._leave)
        for part in self._parts:
            part.close()
        end = time.monotonic() + timeout
        for way in self._ways:
            way.hurry()
        for way in self._ways:
            way.shutdown(_left(end))
        for part in self._parts:
            part.stop()

    def _forked(self) -> None:
        """The children of multiprocessing leave without a word to `atexit`."""
        util = modules.get("multiprocessing.util")
        if util is not None and not self._closed:
            util.register_after_fork(self, _at_the_end)

    def _problems(self) -> list[str]:
        return [line for way in self._ways for line in way.problems()]

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
    redactors: Iterable[Redactor] = (),
    sampling: float | None = None,
    metrics: bool | Literal["prometheus"] = False,
    logs: bool = False,
) -> Telemetry:
    """Let the traces of this process go somewhere: `setup("phoenix")`. For applications; libraries leave it alone.

    - `exporter`: "otlp", "phoenix" and "jaeger" send OTLP; "console" prints each trace as a tree when it has ended;
      "file" appends OTLP JSON lines to `path`. A `SpanExporter` of your own is fine, and several, as a list.
    - `endpoint`: the server's address, for all that send OTLP. By default Phoenix's and Jaeger's own on this machine,
      for "otlp" what the `OTEL_EXPORTER_OTLP_*` variables say; `PHOENIX_COLLECTOR_ENDPOINT` and `PHOENIX_API_KEY` name
      another Phoenix. Over http, `/v1/traces`, `/v1/metrics` and `/v1/logs` are added where no path is given.
    - `protocol`: "http/protobuf" or "grpc"; by default what `OTEL_EXPORTER_OTLP_PROTOCOL` says, else http.
    - `headers`: sent with every request.
    - `service_name`: by default `OTEL_SERVICE_NAME`, else the name of the program. In Phoenix it is the project, too,
      unless `PHOENIX_PROJECT_NAME` names another.
    - `content`: what of prompts, answers, arguments and events goes out. "none": sizes and counts; "preview": 1 kB a
      text; "full": 8 kB a text, 64 kB an attribute. By default what
      `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT` says, else "none"; "preview" where `setup("console")` is
      all there is, because then nothing leaves the terminal. Recognised secrets never go out.
    - `events`: "links" leaves out the spans of events, and links a step to the step that sent its event.
    - `redactors`: callables `redact(text, where) -> text` that all content goes through, in this order.
    - `sampling`: the share of the traces that are recorded, from 0 to 1; of those that began elsewhere, what was
      decided there. By default what `OTEL_TRACES_SAMPLER` says, else all. Metrics are of all runs, and the trace's id
      goes on to whom a run calls, recorded or not.
    - `metrics`: True sends them as "otlp" is told to, every `OTEL_METRIC_EXPORT_INTERVAL` ms (60,000); "prometheus"
      serves them at `OTEL_EXPORTER_PROMETHEUS_HOST` and `_PORT` (localhost:9464): `metrics_url` of the handle.
    - `logs`: True sends log records of runs and retries as "otlp" is told to, and what the program logs; for that
      the root logger gets a handler, and keeps its level.

    Where a provider of the OpenTelemetry SDK is set up already, it stays, with its resource and sampler, and is given
    one more processor. Where none is, one is made and set as the global one; `OTEL_TRACES_SAMPLER`,
    `OTEL_RESOURCE_ATTRIBUTES` and the other variables of the SDK hold for it. With `AGENTFLOW_TELEMETRY=off` or
    `OTEL_SDK_DISABLED=true` nothing is set up; with `OTEL_TRACES_EXPORTER=none`, or `_METRICS_` or `_LOGS_`, "otlp" is
    sent nothing of that kind. Called again with the same exporter and endpoint, the later call's is used until it is
    shut down, so that nothing is told twice.

    Raises `ValueError` for an argument that means nothing, or nothing for these exporters, or a `sampling` that a
    provider of others would ignore, `OSError` for a file that cannot be written or an address that is taken,
    `ModuleNotFoundError` where an extra is missing, `RuntimeError` where the global provider is not one of the SDK.
    """
    given: Any = exporter
    wanted: list[Any] = list(given) if isinstance(given, list | tuple) else [given]  # pyright: ignore[reportUnknownArgumentType]  # because it is checked one by one
    check(wanted, endpoint=endpoint, protocol=protocol, headers=headers, path=path)
    check_signals(wanted, metrics=metrics, logs=logs)
    _check("content", content, get_args(Content))
    _check("events", events, ("spans", "links"))
    providers.check_share(sampling)
    hiding = checked(redactors)
    if discovery.is_off():
        return Telemetry()
    to: Any = {"endpoint": endpoint, "protocol": protocol, "headers": headers}
    made: dict[str, Part] = {}
    with ExitStack() as undo:  # what was made before something else could not be
        outlets: list[Way] = []
        for one in wanted:
            if one != "otlp" or not left_out("traces"):
                outlets.append(make_outlet(one, path=path, **to))
                if isinstance(one, str):  # an exporter that was given may be given again
                    undo.callback(outlets[-1].shutdown, 0)
        log_outlet = make_log_outlet(**to) if logs and not left_out("logs") else None
        ways = make_metric_ways(metrics, **to)
        for way in (*ways, *([log_outlet] if log_outlet else [])):
            undo.callback(way.shutdown, 0)
        if outlets:
            provider = providers.tracer_provider(service_name, sampling)
            made["traces"] = signals.traces(
                provider, outlets, sampling=sampling, content=content, events=events, redactors=hiding
            )
            undo.callback(made["traces"].undo_all)
        if ways:
            made["metrics"] = signals.metrics(providers.meter_provider(service_name), ways)
            undo.callback(made["metrics"].undo_all)
        if log_outlet:
            provider = providers.logger_provider(service_name)
            made["logs"] = signals.logs(provider, log_outlet, content=content, redactors=hiding)
        undo.pop_all()
    return Telemetry(**made)


def _check(option: str, given: object, choices: tuple[str, ...]) -> None:
    if given is not None and given not in choices:
        shown = ", ".join(f'"{choice}"' for choice in choices)
        msg = f"setup({option}={given!r}): there is no such choice. Choose from: {shown}."
        raise ValueError(msg)


def _left(end: float) -> float:
    return max(0.0, end - time.monotonic())


def _at_the_end(telemetry: Any) -> None:
    util: Any = modules["multiprocessing.util"]
    util.Finalize(telemetry, telemetry._leave, exitpriority=0)  # noqa: SLF001 because it is a function for register_after_fork only
