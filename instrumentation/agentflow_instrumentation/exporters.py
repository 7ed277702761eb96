"""Exporters by name. The presets are nothing but endpoints."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from .outlet import Direct, Outlet
from .reasons import without_password

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from opentelemetry.sdk.trace.export import SpanExporter

Protocol = Literal["http/protobuf", "grpc"]

_PROTOCOLS = ("http/protobuf", "grpc")
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
    """What leads to one exporter, given by its name or itself. Raises `ValueError`."""
    if not isinstance(exporter, str):
        return _given(exporter)
    if exporter not in NAMES:
        close = difflib.get_close_matches(exporter, NAMES, 1)
        meant = f' Did you mean "{close[0]}"?' if close else ""
        msg = f"setup(exporter={exporter!r}): there is no such exporter.{meant} Choose from: {', '.join(NAMES)}."
        raise ValueError(msg)
    if exporter == "console":
        from .console import ConsoleExporter  # noqa: PLC0415 because only who prints needs it

        return Direct(ConsoleExporter(), "the console", key="console")
    if exporter == "file":
        return _file(path)
    return _otlp(exporter, endpoint, _protocol(protocol), headers)


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
    if ignored and not any(one in _OTLP for one in wanted if isinstance(one, str)):
        msg = (
            f"setup({ignored[0]}=...) is for exporters that send OTLP: {', '.join(_OTLP)}. None of these was chosen. "
            f'Write: setup("otlp", {ignored[0]}=...)'
        )
        raise ValueError(msg)
    if path is not None and "file" not in wanted:
        msg = f'setup(path={str(path)!r}) is for the exporter "file". Write: setup("file", path={str(path)!r})'
        raise ValueError(msg)


def _given(exporter: Any) -> Outlet | Direct:
    from .console import ConsoleExporter  # noqa: PLC0415 because only who prints needs it

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
    return Outlet(exporter, type(exporter).__name__)


def _file(path: str | Path | None) -> Outlet:
    if path is None:
        msg = 'setup("file") needs the file to write to. Write: setup("file", path="traces.jsonl")'
        raise ValueError(msg)
    from .otlpfile import FileExporter  # noqa: PLC0415 because only who writes a file needs it

    return Outlet(FileExporter(path), str(path), key=os.path.realpath(path), keeps_all=True)


def _protocol(given: str | None) -> str:
    variables = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    chosen = given or next((value for name in variables if (value := os.environ.get(name))), _PROTOCOLS[0])
    if chosen not in _PROTOCOLS:
        where = "protocol=" if given else "OTEL_EXPORTER_OTLP_PROTOCOL="
        msg = f"setup({where}{chosen!r}): there is no such protocol. Choose from: {', '.join(_PROTOCOLS)}."
        raise ValueError(msg)
    return chosen


def _otlp(preset: str, endpoint: str | None, protocol: str, headers: Mapping[str, str] | None) -> Outlet:
    where = endpoint if endpoint is not None else _PRESETS.get(preset, {}).get(protocol)
    if where is not None:
        where = _complete(where, protocol)
    given = dict(headers) if headers else None
    exporter: SpanExporter
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415 because grpc is heavy
            OTLPSpanExporter,
        )

        # metadata keys are lower case in HTTP/2
        lower = {name.lower(): value for name, value in given.items()} if given else None
        exporter = OTLPSpanExporter(endpoint=where, headers=lower)
        place = where or _from_environment("http://localhost:4317", "")
    else:
        from opentelemetry.exporter.otlp.proto.http import trace_exporter  # noqa: PLC0415 because it is heavy

        exporter = trace_exporter.OTLPSpanExporter(endpoint=where, headers=given)
        place = where or _from_environment("http://localhost:4318", _PATH)
    return Outlet(exporter, without_password(place), key=place)


def _complete(endpoint: str, protocol: str) -> str:
    """An endpoint with its scheme and, over http, its path: the address of the server is enough."""
    whole = endpoint if "://" in endpoint else f"http://{endpoint}"
    parts = urlsplit(whole)
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        shown = without_password(whole) if "@" in whole else endpoint
        msg = f'setup(endpoint={shown!r}): this is no address of a server. Write: endpoint="http://localhost:4318"'
        raise ValueError(msg)
    return f"{whole.rstrip('/')}{_PATH}" if protocol != "grpc" and parts.path in {"", "/"} else whole


def _from_environment(default: str, path: str) -> str:
    own = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return own or f"{os.environ.get('OTEL_EXPORTER_OTLP_ENDPOINT', default).rstrip('/')}{path}"


def service_name(given: str | None) -> str | None:
    """The name of the service, or None where the environment has it."""
    if given is not None:
        return given
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return None if named else (os.path.splitext(os.path.basename(sys.argv[0]))[0] or "agentflow")  # noqa: PTH119, PTH122 because argv[0] may be no path
