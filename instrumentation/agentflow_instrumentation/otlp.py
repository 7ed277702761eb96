"""Exporters of OTLP for each signal: to which address, by which protocol, and what the receiver answers."""

from __future__ import annotations

import os
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit, urlunsplit

from . import quiet
from .reasons import is_too_large, without_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Protocol = Literal["http/protobuf", "grpc"]
SignalName = Literal["traces", "metrics", "logs"]

PROTOCOLS: tuple[Protocol, ...] = ("http/protobuf", "grpc")
_PACKAGES = {
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http",
    "grpc": "opentelemetry.exporter.otlp.proto.grpc",
}
_EXPORTERS = {
    "traces": ("trace_exporter", "OTLPSpanExporter"),
    "metrics": ("metric_exporter", "OTLPMetricExporter"),
    "logs": ("_log_exporter", "OTLPLogExporter"),
}
_ANSWERS = {  # the message that answers a request, and its field for what was not taken
    "traces": ("trace", "ExportTraceServiceResponse", "rejected_spans"),
    "metrics": ("metrics", "ExportMetricsServiceResponse", "rejected_data_points"),
    "logs": ("logs", "ExportLogsServiceResponse", "rejected_log_records"),
}
_DEFAULTS = {"http/protobuf": "http://localhost:4318", "grpc": "http://localhost:4317"}
_AN_ERROR = 400
_SHOWN = 300


def protocol_of(signal: SignalName, given: str | None) -> Protocol:
    """The protocol: the one that is given, else what the environment says. Raises `ValueError`."""
    variables = (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    said = next(((name, value) for name in variables if (value := os.environ.get(name))), ("", PROTOCOLS[0]))
    where, chosen = said if given is None else ("protocol", given)
    for known in PROTOCOLS:
        if chosen == known:
            return known
    msg = f"setup({where}={chosen!r}): there is no such protocol. Choose from: {', '.join(PROTOCOLS)}."
    raise ValueError(msg)


def address(signal: SignalName, endpoint: str | None, protocol: Protocol) -> str | None:
    """Where a signal is sent: the address of the server is enough. None where the environment says it.

    Raises `ValueError` for what is no address, or one for another signal.
    """
    if endpoint is None:
        return None
    whole = endpoint if "://" in endpoint else f"http://{endpoint}"
    parts = urlsplit(whole)
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        shown = without_secrets(endpoint)
        msg = f'setup(endpoint={shown!r}): this is no address of a server. Write: endpoint="http://localhost:4318"'
        raise ValueError(msg)
    if protocol == "grpc":
        return whole
    path = parts.path.rstrip("/")
    if path.endswith("/v1/traces"):
        path = path.removesuffix("/v1/traces")
    elif path:
        if signal == "traces":
            return whole
        variable = f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"
        if os.environ.get(variable):
            return None
        shown = without_secrets(endpoint)
        msg = (
            f"setup(endpoint={shown!r}, {signal}=True): traces go to this path, and where {signal} go is not known. "
            f'Give the address without a path, as in endpoint="{parts.scheme}://{parts.netloc.rpartition("@")[2]}", '
            f"or say it by {variable}."
        )
        raise ValueError(msg)
    return urlunsplit(parts._replace(path=f"{path}/v1/{signal}"))


def place_of(signal: SignalName, given: str | None, protocol: Protocol) -> str:
    """The address that an exporter uses."""
    if given is not None:
        return given
    if own := os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"):
        return own
    base = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or _DEFAULTS[protocol]
    return base if protocol == "grpc" else f"{base.rstrip('/')}/v1/{signal}"


def make_exporter(signal: SignalName, where: str | None, protocol: Protocol, headers: Mapping[str, str] | None) -> Any:
    """An exporter of the SDK. `where`: None for what the environment says."""
    module, name = _EXPORTERS[signal]
    cls: Any = getattr(import_module(f"{_PACKAGES[protocol]}.{module}"), name)
    if protocol == "grpc":
        # metadata keys are lower case in HTTP/2
        lower = {name.lower(): value for name, value in headers.items()} if headers else None
        exporter = cls(endpoint=where, headers=lower)
        _read_answers_of_grpc(exporter, signal)
        return exporter
    variables = (f"OTEL_PYTHON_EXPORTER_OTLP_HTTP_{kind}CREDENTIAL_PROVIDER" for kind in ("", f"{signal.upper()}_"))
    has_session = any(os.environ.get(variable) for variable in variables)
    session = None if has_session else _session(signal)
    return cls(endpoint=where, headers=dict(headers) if headers else None, session=session)


def _session(signal: SignalName) -> Any:
    requests: Any = import_module("requests")  # what the exporter sends with; it has no types
    session = requests.Session()
    session.hooks["response"].append(partial(_answered, signal))
    return session


def _answered(signal: SignalName, response: Any, **_: Any) -> None:
    """Look into an answer over http: exporters look at its status only."""
    ear = quiet.listener()
    if ear is None or not response.content:
        return
    if response.status_code >= _AN_ERROR:
        text = f"code: {response.status_code}, reason: {response.text[:_SHOWN]}"
        if is_too_large(text):
            raise quiet.HopelessError(text)
    elif "protobuf" in response.headers.get("Content-Type", ""):
        _tell(ear, signal, _answer(signal)(response.content))


def _read_answers_of_grpc(exporter: Any, signal: SignalName) -> None:
    """Look into the answers over grpc, which the exporter throws away. It makes another stub when it reconnects."""

    def watched(client: Any) -> Any:
        export: Callable[..., Any] = client.Export

        def export_and_look(*args: Any, **more: Any) -> Any:
            answer = export(*args, **more)
            if (ear := quiet.listener()) is not None:
                _tell(ear, signal, answer)
            return answer

        client.Export = export_and_look
        return client

    stub: Any = getattr(exporter, "_stub", None)
    client = getattr(exporter, "_client", None)
    if stub is None or client is None:
        return

    def connect(channel: Any) -> Any:
        return watched(stub(channel))

    exporter._stub = connect  # noqa: SLF001 because there is no public way
    watched(client)


def _answer(signal: SignalName) -> Callable[[bytes], Any]:
    module, name, _ = _ANSWERS[signal]
    found: Any = import_module(f"opentelemetry.proto.collector.{module}.v1.{module}_service_pb2")

    broken: Any = import_module("google.protobuf.message").DecodeError

    def read(body: bytes) -> Any:
        try:
            return getattr(found, name).FromString(body)
        except broken:  # it has taken the request, whatever it answers
            return None

    return read


def _tell(ear: quiet.Ear, signal: SignalName, answer: Any) -> None:
    partly = getattr(answer, "partial_success", None)
    if partly is None:
        return
    many: int = getattr(partly, _ANSWERS[signal][2])
    message: str = partly.error_message
    if many or message:
        ear.refused(many, message)
