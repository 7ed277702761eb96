"""The way of telemetry to a person: in line, at once."""

from __future__ import annotations

import logging
from typing import Any

logger = logging.getLogger("agentflow")


class Direct:
    """Hands each item on at once, in line: for what is shown to a person."""

    def __init__(self, exporter: Any, place: str, *, key: object = None) -> None:
        self.exporter = exporter
        self.place = place
        self.key = id(exporter) if key is None else key
        """Of outlets with equal keys, the latest is used."""
        self._failed = ""

    def put(self, item: Any) -> None:
        """Hand on an item."""
        if self._failed:
            return
        try:
            self.exporter.export((item,))
        except Exception as error:  # noqa: BLE001 because a closed terminal must not end the program
            self._failed = f"the trace could not be shown on {self.place}: {type(error).__name__}: {error}"
            logger.warning(self._failed)

    def not_yet(self) -> str:
        """What went wrong."""
        return self._failed

    def unsaid(self) -> list[str]:
        """Nothing: a warning is logged at once."""
        return []

    def problems(self) -> list[str]:
        """What went wrong, if anything did."""
        return [self._failed] if self._failed else []

    def hurry(self) -> None:
        """Nothing is queued."""

    def flush(self, timeout: float) -> bool:  # noqa: ARG002 because it is an outlet's
        """Nothing is queued."""
        return not self._failed

    def shutdown(self, timeout: float = 5.0) -> None:  # noqa: ARG002 because it is an outlet's
        """Let the exporter show what it holds."""
        if not self._failed:
            self.exporter.shutdown()
