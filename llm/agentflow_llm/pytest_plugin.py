"""A fixture for pytest: `from agentflow_llm.pytest_plugin import recording` in a conftest.py."""

from __future__ import annotations

import os
import re
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .recording import MODES, Recording

if TYPE_CHECKING:
    from collections.abc import Iterator

MODE = "AGENTFLOW_RECORDINGS"
_LONGEST = 100
"""Characters of a file's name, which systems have room for, with a hash and an ending."""


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, where this module is named in `pytest_plugins`."""
    config.addinivalue_line("markers", "recording(file): the file, beside the test's, that `recording` plays")


class _OfTest(Recording):
    def remedy(self) -> str:
        return f"run {MODE}=missing pytest"


@pytest.fixture
def recording(request: pytest.FixtureRequest) -> Iterator[Recording]:
    """The `Recording` of this test: recordings/{module}/{class.}{test}.json beside its file.

    `@pytest.mark.recording("joke.json")` names another file, beside the test's own. The mode is "replay", or what the
    environment says: `AGENTFLOW_RECORDINGS=missing pytest` records what is not there yet, `=record` all.
    """
    asked = os.environ.get(MODE, "replay").strip().lower()
    if asked not in MODES:
        raise pytest.UsageError(f"{MODE}={os.environ[MODE]!r} is none of {', '.join(MODES)}.")
    with _OfTest(_path(request), mode=asked) as played:
        yield played


def _path(request: pytest.FixtureRequest) -> Path:
    """The file of a test."""
    folder = request.path.parent
    marker = request.node.get_closest_marker("recording")
    if marker is None:
        return folder / "recordings" / request.path.stem / f"{_file_name(request.node.nodeid.partition('::')[2])}.json"
    if len(marker.args) != 1 or not isinstance(marker.args[0], str | Path) or marker.kwargs:
        raise pytest.UsageError(
            f'The marker of {request.node.name} needs the name of a file: @pytest.mark.recording("joke.json").'
        )
    return folder / marker.args[0]


def _file_name(test: str) -> str:
    """A name that no other test of the module has: where it loses characters or its end, a hash tells it apart."""
    test = test.replace("::", ".")
    name = re.sub(r"[^\w.\[\]-]+", "_", test)[:_LONGEST]
    return name if name == test else f"{name}-{sha256(test.encode()).hexdigest()[:8]}"
