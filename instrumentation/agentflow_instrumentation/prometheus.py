"""The page on which Prometheus reads the metrics of this process."""

from __future__ import annotations

import errno
import logging
import os
from typing import TYPE_CHECKING, Any, ClassVar

from .fork import after_fork
from .readers import add_reader, remove_reader

if TYPE_CHECKING:
    from collections.abc import Callable

    from .hub import Hub

logger = logging.getLogger("agentflow")

_HOST, _PORT = "OTEL_EXPORTER_PROMETHEUS_HOST", "OTEL_EXPORTER_PROMETHEUS_PORT"


class Page:
    """Serves the metrics of this process at /metrics, with those that others have registered with prometheus_client.

    There is one for all handles of this process, because prometheus_client has one list of what is shown.
    """

    open: ClassVar[Page | None] = None

    def __init__(self, reader: Any, serve: Callable[..., Any]) -> None:
        host = os.environ.get(_HOST) or "localhost"
        port = _port()
        try:
            self._server, self._thread = serve(port, host)
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            msg = (
                f'setup(metrics="prometheus"): nothing can be served at {host}:{port}: {error.strerror}. '
                + ("Something else is, maybe another process of this service. " if taken else "")
                + f"Choose another address, as in {_PORT}={port + 1}"
                + (", or send the metrics: setup(metrics=True)." if taken else f", or check {_HOST}.")
            )
            raise OSError(error.errno, msg) from None
        self.url = f"http://{host}:{self._server.server_port}/metrics"
        self.place = self.key = self.url
        self._reader = reader
        self._provider: Any = None
        self._users = 1
        self._closed = False
        Page.open = self
        after_fork(self._forked)

    def share(self) -> Page:
        """One more uses it, and shuts it down."""
        self._users += 1
        return self

    def attach(self, provider: Any, hub: Hub) -> None:  # noqa: ARG002 because it is that of Readings
        """Show the metrics of `provider`."""
        if self._provider is None:
            self._provider = provider
            add_reader(provider, self._reader)

    def put(self, item: Any) -> None:
        """Nothing: it is read."""

    def hurry(self) -> None:
        """Nothing is queued."""

    def flush(self, timeout: float) -> bool:  # noqa: ARG002 because it is an outlet's
        """Nothing is queued."""
        return True

    def not_yet(self) -> str:
        """Nothing: it does not send."""
        return ""

    def problems(self) -> list[str]:
        """Nothing: it does not send."""
        return []

    def unsaid(self) -> list[str]:
        """Nothing: it does not send."""
        return []

    def shutdown(self, timeout: float = 5.0) -> None:
        """Serve no more, if nobody else uses it."""
        self._users -= 1
        if self._closed or self._users:
            return
        self._closed = True
        Page.open = None
        self._server.shutdown()
        self._thread.join(timeout)
        self._server.server_close()
        if self._provider is not None:
            remove_reader(self._provider, self._reader)
        else:
            self._reader.shutdown()

    def _forked(self) -> None:
        """The child has the parent's socket, but not the thread that answers there."""
        if self._closed:
            return
        self._closed = True
        Page.open = None
        self._server.socket.close()
        logger.warning(
            "the metrics of this process, which was forked, are served nowhere: %s is its parent's. Call setup() in "
            "each process with another %s, or send the metrics: setup(metrics=True)",
            self.url,
            _PORT,
        )


def make_page() -> Page:
    """The page, served. Raises `ModuleNotFoundError` where the extra is missing, `ValueError`, and `OSError`."""
    if Page.open is not None:
        return Page.open.share()
    try:
        from opentelemetry.exporter.prometheus import PrometheusMetricReader  # noqa: PLC0415 because it is an extra
        from prometheus_client import start_http_server  # noqa: PLC0415 because it is an extra
    except ModuleNotFoundError as error:
        msg = (
            'setup(metrics="prometheus") needs opentelemetry-exporter-prometheus. '
            "Run: pip install 'agentflow-otel[prometheus]'"
        )
        raise ModuleNotFoundError(msg, name=error.name) from None
    reader: Any = PrometheusMetricReader()
    try:
        return Page(reader, start_http_server)
    except BaseException:
        reader.shutdown()
        raise


def _port() -> int:
    text = os.environ.get(_PORT) or "9464"
    if not text.isdigit() or int(text) > 65_535:  # noqa: PLR2004 because it is the last port there is
        msg = f"{_PORT}={text!r}: this is no port. Write: {_PORT}=9464"
        raise ValueError(msg)
    return int(text)
