"""What dashboards/phoenix and docs/phoenix.md say about Phoenix is so in a real one."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

import clerk
import scenes
from boards import FOLDER
from real import RealPhoenix

pytestmark = pytest.mark.slow

VIEWS = re.findall(r"^\| .* \| `(.*)` \|$", (FOLDER / "phoenix" / "views.md").read_text(encoding="utf-8"), re.MULTILINE)
PAGE = (FOLDER.parent / "docs" / "phoenix.md").read_text(encoding="utf-8")
FILTERS = PAGE.split("above the list of spans:\n\n```text no-run\n")[1].split("\n```")[0].splitlines()
SCRIPT = FOLDER / "phoenix" / "setup_annotations.py"


@pytest.fixture(scope="module")
def project(phoenix: RealPhoenix, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The project with runs that went well, reached a limit, waited, failed and were cancelled."""
    for scene in (clerk.ask_clerk, scenes.order, scenes.add_for_ever, scenes.pay_later):
        clerk.record_all(phoenix, "http/protobuf", scene(tmp_path_factory.mktemp("scene")))
    clerk.record(phoenix, "http/protobuf", clerk.fail())
    clerk.record(phoenix, "http/protobuf", clerk.cancel())
    projects = [str(project["id"]) for project in phoenix.get("/v1/projects")["data"]]
    return next(project for project in projects if spans(phoenix, project, "name == 'invoke_agent clerk'"))


def spans(phoenix: RealPhoenix, project: str, condition: str) -> int:
    """How many a filter finds."""
    query = f"""{{ node(id: "{project}") {{ ... on Project {{
        recordCount(filterCondition: {json.dumps(condition)})
        spans(first: 1, filterCondition: {json.dumps(condition)}) {{ edges {{ node {{ name }} }} }} }} }} }}"""
    found = phoenix.ask(query)["node"]
    assert bool(found["spans"]["edges"]) is (found["recordCount"] > 0)
    return int(found["recordCount"])


@pytest.mark.parametrize("view", [*VIEWS, *FILTERS])
def test_every_filter_finds_something_and_not_all(view: str, phoenix: RealPhoenix, project: str) -> None:
    assert 0 < spans(phoenix, project, view) < spans(phoenix, project, "latency_ms >= 0")


def test_there_are_filters() -> None:
    assert len(VIEWS) > 10
    assert len(FILTERS) > 5


def test_questions_are_there_after_the_script_and_a_second_time(phoenix: RealPhoenix) -> None:
    command = [sys.executable, str(SCRIPT), f"http://127.0.0.1:{phoenix.port}"]
    for said in ("created", "was there"):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.split("\n") == [*(f"{name}: {said}" for name in ("correct", "grounded", "right_tools")), ""]
    names = {config["name"] for config in phoenix.get("/v1/annotation_configs")["data"]}
    assert {"correct", "grounded", "right_tools"} <= names


def test_without_a_phoenix_the_script_says_so() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "http://127.0.0.1:1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("http://127.0.0.1:1 is no Phoenix that takes this in: ")
