"""A fixture for pytest: `from agentflow_llm.pytest_plugin import recording` in a conftest.py."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from .recording import MODES, Recording

if TYPE_CHECKING:
    from collections.abc import Iterator

MODE = "AGENTFLOW_RECORDINGS"


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, where this module is named in `pytest_plugins`."""
    config.addinivalue_line("markers", "recording(file): the file, beside the test's, that `recording` plays")


@pytest.fixture
def recording(request: pytest.FixtureRequest) -> Iterator[Recording]:
    """The `Recording` of this test: recordings/{module}/{test}.json beside its file.

    `@pytest.mark.recording("joke.json")` names another file, beside the test's own. The mode is "replay", or what the
    environment says: `AGENTFLOW_RECORDINGS=missing pytest` records what is not there yet, `=record` all.
    """
    marker = request.node.get_closest_marker("recording")
    folder = request.path.parent
    name = re.sub(r"[^\w.-]+", "_", request.node.name).strip("_")
    path = folder / marker.args[0] if marker else folder / "recordings" / request.path.stem / f"{name}.json"
    asked = os.environ.get(MODE, "replay").strip().lower()
    if asked not in MODES:
        raise pytest.UsageError(f"{MODE}={os.environ[MODE]!r} is none of {', '.join(MODES)}.")
    with Recording(path, mode=asked) as played:
        yield played
