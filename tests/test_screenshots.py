"""scripts/screenshots.py takes the pictures of the documents of a real Phoenix."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SHOWN = set(re.findall(r"\(images/(phoenix-\w+\.png)\)", (ROOT / "docs" / "phoenix.md").read_text(encoding="utf-8")))


def is_blank(picture: bytes) -> bool:
    """Is there little on it? That of a Phoenix that shows its frame and an error has 48 kB."""
    return len(picture) < 90_000


@pytest.mark.usefixtures("chromium", "phoenix")
def test_each_picture_is_taken_and_shows_something(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "screenshots.py", tmp_path], capture_output=True, text=True, check=True
    )
    assert {Path(line).name for line in done.stdout.splitlines()} == SHOWN
    taken = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert taken.keys() == SHOWN
    for name, picture in taken.items():
        assert struct.unpack(">II", picture[16:24]) == (1600, 1080), name
        assert not is_blank(picture), name


def test_the_pictures_of_the_page_are_there() -> None:
    assert len(SHOWN) == 5
    for name in SHOWN:
        assert not is_blank((ROOT / "docs" / "images" / name).read_bytes()), name
