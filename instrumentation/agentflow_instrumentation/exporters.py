"""Exporters by name. The presets are nothing but endpoints; Phoenix's own variables name its server and key, too."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast

from .otlp import address, make_exporter, place_of, protocol_of
from .outlet import Outlet
from .pipeline import LOGS, TRACES
from .reasons import without_secrets

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .console import Direct
    from .otlp import SignalName
    from .prometheus import Page
    from .readers import Readings

_PATH = "/v1/traces"
_PRESETS = {
    "phoenix": {"http/protobuf": f"http://localhost:6006{_PATH}", "grpc": "http://localhost:4317"},
    "jaeger": {"http/protobuf": f"http://localhost:4318{_PATH}", "grpc": "http://localhost:4317"},
}
_OTLP = ("otlp", *_PRESETS)
NAMES = (*_OTLP, "console", "file")


def make_outlet(
    exporter: object,
    *,
    endpoint: str | None,
    protocol: str | None,
    headers: Mapping[str, str] | None,
    path: str | Path | None,
) -> Outlet | Direct:
    """What leads traces to one exporter, given by its name or itself. Raises `ValueError`."""
    if not isinstance(exporter, str):
        return _given(exporter)
    if exporter not in NAMES:
        close = difflib.get_close_matches(exporter, NAMES, 1)
        meant = f' Did you mean "{close[0]}"?' if close else ""
        msg = f"setup(exporter={exporter!r}): there is no such exporter.{meant} Choose from: {', '.join(NAMES)}."
        raise ValueError(msg)
    if exporter == "console":
        from .console import ConsoleExporter, Direct  # noqa: PLC0415 because only who prints needs it

        return Direct(ConsoleExporter(), "the console", key="console")
    if exporter == "file":
        return _file(path)
    chosen = protocol_of("traces", protocol)
    where = _PRESETS.get(exporter, {}).get(chosen) if endpoint is None else endpoint
    if exporter == "phoenix":
        if endpoint is None and (named := os.environ.get("PHOENIX_COLLECTOR_ENDPOINT")):
            where = named if chosen == "grpc" else f"{named.rstrip('/').removesuffix(_PATH)}{_PATH}"
        if key := os.environ.get("PHOENIX_API_KEY"):
            headers = {"authorization": f"Bearer {key}", **(headers or {})}
    where = address("traces", where, chosen)
    place = place_of("traces", where, chosen)
    make = partial(make_exporter, "traces", where, chosen, headers)
    return Outlet(make, without_secrets(place), key=place, cargo=TRACES)


def make_log_outlet(*, endpoint: str | None, protocol: str | None, headers: Mapping[str, str] | None) -> Outlet:
    """What leads log records to the receiver. Raises `ValueError`."""
    chosen = protocol_of("logs", protocol)
    where = address("logs", endpoint, chosen)
    place = place_of("logs", where, chosen)
    make = partial(make_exporter, "logs", where, chosen, headers)
    return Outlet(make, without_secrets(place), key=place, cargo=LOGS)


def make_metric_ways(
    metrics: bool | Literal["prometheus"],  # noqa: FBT001 because it is the argument of setup()
    *,
    endpoint: str | None,
    protocol: str | None,
    headers: Mapping[str, str] | None,
) -> list[Readings | Page]:
    """What leads metrics to the receiver, or the page that shows them. Raises as `setup()`."""
    if metrics is False or (metrics is True and left_out("metrics")):
        return []
    if metrics == "prometheus":
        from .prometheus import make_page  # noqa: PLC0415 because the SDK is heavy

        return [make_page()]
    from .readers import Readings  # noqa: PLC0415 because as above

    chosen = protocol_of("metrics", protocol)
    where = address("metrics", endpoint, chosen)
    place = place_of("metrics", where, chosen)
    make = partial(make_exporter, "metrics", where, chosen, headers)
    return [Readings(make, without_secrets(place), key=place)]


def left_out(signal: SignalName) -> bool:
    """Does the environment say that this signal is exported nowhere?"""
    return os.environ.get(f"OTEL_{signal.upper()}_EXPORTER", "").strip().lower() == "none"


def check(
    wanted: Sequence[object],
    *,
    endpoint: str | None,
    protocol: str | None,
    headers: object,
    path: str | Path | None,
) -> None:
    """Raise `ValueError` for arguments that none of the exporters takes."""
    for_otlp: dict[str, object] = {"endpoint": endpoint, "protocol": protocol, "headers": headers}
    ignored = [name for name, value in for_otlp.items() if value is not None]
    if headers is not None and not isinstance(headers, Mapping):
        msg = (
            f'setup(headers=...): a dict is needed, not a {type(headers).__name__}. Write: headers={{"name": "value"}}'
        )
        raise ValueError(msg)
    given = cast("Mapping[object, object]", headers or {})
    if wrong := [(name, value) for name, value in given.items() if not isinstance(value, str)]:
        name, value = wrong[0]
        msg = f'setup(headers={{{name!r}: {value!r}}}): a header is text. Write: headers={{{name!r}: "{value}"}}'
        raise ValueError(msg)
    if ignored and not any(one in _OTLP for one in wanted if isinstance(one, str)):
        msg = (
            f"setup({ignored[0]}=...) is for exporters that send OTLP: {', '.join(_OTLP)}. None of these was chosen. "
            f'Write: setup("otlp", {ignored[0]}=...)'
        )
        raise ValueError(msg)
    if path is not None and "file" not in wanted:
        msg = f'setup(path={str(path)!r}) is for the exporter "file". Write: setup("file", path={str(path)!r})'
        raise ValueError(msg)


def check_signals(wanted: Sequence[object], *, metrics: object, logs: object) -> None:
    """Raise `ValueError` where metrics or logs are to go where none of the exporters takes them."""
    if metrics not in (False, True, "prometheus"):
        msg = f'setup(metrics={metrics!r}): there is no such choice. Choose from: False, True (by OTLP), "prometheus".'
        raise ValueError(msg)
    if logs not in (False, True):
        msg = f"setup(logs={logs!r}): there is no such choice. Choose from: False, True (by OTLP)."
        raise ValueError(msg)
    named = [one for one in wanted if isinstance(one, str)]
    for signal, asked in (("metrics", metrics is True), ("logs", logs is True)):
        if asked and "otlp" not in named:
            presets = [one for one in named if one in _PRESETS]
            why = f"{presets[0].capitalize()} takes traces only" if presets else "they are sent by OTLP"
            also = ["otlp", *named]
            line = (
                f'setup("otlp", {signal}=True)' if len(also) == 1 else f"setup({also}, {signal}=True)".replace("'", '"')
            )
            page = ', or setup(..., metrics="prometheus")' if signal == "metrics" else ""
            msg = f"setup({signal}=True): {why}, and no exporter of this call takes {signal}. Write: {line}{page}"
            raise ValueError(msg)


def _given(exporter: Any) -> Outlet | Direct:
    from .console import ConsoleExporter, Direct  # noqa: PLC0415 because only who prints needs it

    given: object = exporter
    if isinstance(given, type) and callable(getattr(exporter, "export", None)):
        name = given.__name__
        msg = f"setup({name}): this is a class, and an exporter is needed. Write: setup({name}())"
        raise ValueError(msg)  # noqa: TRY004 because all that is wrong with arguments is one kind of error
    if not callable(getattr(exporter, "export", None)):
        what = "None" if exporter is None else type(exporter).__name__
        msg = (
            f"setup(exporter=...): {what} is no exporter. Choose from: {', '.join(NAMES)}; or give a SpanExporter, or "
            "a list of these."
        )
        raise ValueError(msg)  # noqa: TRY004 because as above
    if isinstance(exporter, ConsoleExporter):
        return Direct(exporter, "the console")
    return Outlet(lambda: exporter, type(exporter).__name__)


def _file(path: str | Path | None) -> Outlet:
    if path is None:
        msg = 'setup("file") needs the file to write to. Write: setup("file", path="traces.jsonl")'
        raise ValueError(msg)
    from .otlpfile import FileExporter  # noqa: PLC0415 because only who writes a file needs it

    if not os.path.isdir(folder := os.path.dirname(os.path.realpath(path))):  # noqa: PTH112, PTH120 because it may be text
        msg = f'setup("file", path={str(path)!r}): there is no folder {folder!r}. Make it first: mkdir -p {folder}'
        raise FileNotFoundError(msg)
    return Outlet(partial(FileExporter, path), str(path), key=os.path.realpath(path), keeps_all=True)


def service_name(given: str | None) -> str | None:
    """The name of the service, or None where the environment has it."""
    if given is not None:
        return given
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return None if named else (os.path.splitext(os.path.basename(sys.argv[0]))[0] or "agentflow")  # noqa: PTH119, PTH122 because argv[0] may be no path
