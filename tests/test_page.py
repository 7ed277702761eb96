"""The page in a real browser: it moves, tells, fits its fonts, and asks for nothing."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import pytest

from agentflow import draw_all_possible_flows, draw_most_recent_execution
from test_draw import Approves, Asks, Branches, Chain, Judged, Nested, Setup, forty_steps, named

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TRAMPOLINE = """
import os, sys
read, write = (os.dup(int(fd)) for fd in sys.argv[1:3])
for given, wanted in ((read, 3), (write, 4)):
    os.dup2(given, wanted)
    os.set_inheritable(wanted, True)
os.execv(sys.argv[3], sys.argv[3:])
"""
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1200,900",
    "--remote-debugging-pipe",
]


class Browser:
    """A headless Chromium, driven through a pipe: real wheel, real mouse, real fonts."""

    def __init__(self, program: str, profile: str) -> None:
        child_reads, self._write = os.pipe()
        self._read, child_writes = os.pipe()
        ends = (child_reads, child_writes)
        self._process = subprocess.Popen(
            [sys.executable, "-c", TRAMPOLINE, *map(str, ends), program, *FLAGS, f"--user-data-dir={profile}"],
            pass_fds=ends,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in ends:
            os.close(end)
        self._rest = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], 60)
            assert ready, "the browser does not answer"
            found = os.read(self._read, 1 << 16)
            assert found, "the browser has ended"
            self._rest += found
        message, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def open(self, path: Path) -> None:
        """Load a page."""
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while not self.seen("Page.loadEventFired"):
            self.events.append(self._next())

    def seen(self, method: str) -> list[dict[str, Any]]:
        """What the browser told of since the page was opened."""
        return [event["params"] for event in self.events if event.get("method") == method]

    def run(self, script: str) -> Any:
        """The value of a script in the page."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def centre(self, selector: str) -> tuple[float, float]:
        """Where an element is in the window."""
        box = self.run(f"(({selector}).getBoundingClientRect().toJSON())")
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """Use the mouse."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def close(self) -> None:
        """End it."""
        self.call("Browser.close")
        self._process.wait(30)
        os.close(self._read)
        os.close(self._write)


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """A browser for all tests of this file."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(chromium, profile)
        yield browser
        browser.close()


def node(label: str) -> str:
    """A script that finds a node."""
    return f"[...document.querySelectorAll('.node')].find((n) => n.ariaLabel.endsWith({label!r}))"


VIEW = "document.getElementById('drawing').getAttribute('viewBox').split(' ').map(Number)"
EVERYTHING = [Chain, Judged, Branches, Setup, Asks, Approves, Nested, forty_steps()]


@pytest.mark.parametrize("workflow", EVERYTHING, ids=lambda workflow: workflow.__name__)
def test_page_loads_without_an_error_or_a_request(browser: Browser, workflow: Any, tmp_path: Path) -> None:
    """Its script ran to the end, nothing was logged, and nothing was asked for but the page."""
    path = draw_all_possible_flows(workflow, tmp_path / "flow.html")
    browser.open(path)
    assert browser.run("document.getElementById('drawing').dataset.ready") == "true"
    assert [event["request"]["url"] for event in browser.seen("Network.requestWillBeSent")] == [path.as_uri()]
    assert not browser.seen("Runtime.exceptionThrown")
    assert not browser.seen("Log.entryAdded")
    assert not browser.seen("Runtime.consoleAPICalled")


@pytest.mark.parametrize("workflow", EVERYTHING, ids=lambda workflow: workflow.__name__)
def test_every_text_is_inside_of_its_box(browser: Browser, workflow: Any, tmp_path: Path) -> None:
    """As this browser's fonts have it, so no two labels overlap: boxes never do."""
    browser.open(draw_all_possible_flows(workflow, tmp_path / "flow.html"))
    outside = browser.run(
        """[...document.querySelectorAll(".node text")].filter((text) => {
          const box = text.parentNode.querySelector("rect").getBoundingClientRect();
          const r = text.getBoundingClientRect();
          return r.left < box.left + 2 || box.right - 2 < r.right || r.top < box.top - 1 || box.bottom + 1 < r.bottom;
        }).map((text) => text.textContent)"""
    )
    assert outside == []


def test_wheel_zooms_around_the_pointer(browser: Browser, tmp_path: Path) -> None:
    """What is under the pointer stays there."""
    browser.open(draw_all_possible_flows(Judged, tmp_path / "flow.html"))
    x, y = browser.centre(node("rerank"))
    before = browser.run(VIEW)
    browser.mouse("mouseWheel", x, y, deltaX=0, deltaY=-240)
    after = browser.run(VIEW)
    assert after[2] < before[2] * 0.8
    assert after[2] / after[3] == pytest.approx(before[2] / before[3])
    assert browser.centre(node("rerank")) == pytest.approx((x, y), abs=0.5)


def test_drag_moves_the_drawing(browser: Browser, tmp_path: Path) -> None:
    """By as much as the mouse moves."""
    browser.open(draw_all_possible_flows(Judged, tmp_path / "flow.html"))
    x, y = browser.centre(node("rerank"))
    browser.mouse("mousePressed", 60, 300, button="left", buttons=1, clickCount=1)
    browser.mouse("mouseMoved", 100, 340, button="left", buttons=1)
    browser.mouse("mouseMoved", 160, 360, button="left", buttons=1)
    browser.mouse("mouseReleased", 160, 360, button="left", clickCount=1)
    assert browser.centre(node("rerank")) == pytest.approx((x + 100, y + 60), abs=0.5)
    browser.mouse("mouseMoved", 300, 400)
    assert browser.centre(node("rerank")) == pytest.approx((x + 100, y + 60), abs=0.5)


def test_buttons_and_keys_zoom_and_bring_everything_back(browser: Browser, tmp_path: Path) -> None:
    """Larger, smaller, and all of it."""
    browser.open(draw_all_possible_flows(Judged, tmp_path / "flow.html"))
    whole = browser.run(VIEW)
    browser.run("document.getElementById('in').click()")
    assert browser.run(VIEW)[2] == pytest.approx(whole[2] / 1.3)
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="-")
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="-")
    assert browser.run(VIEW)[2] == pytest.approx(whole[2] * 1.3)
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowLeft")
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="0")
    assert browser.run(VIEW) == pytest.approx(whole)


def test_long_flow_is_readable_at_once_and_fits_on_demand(browser: Browser, tmp_path: Path) -> None:
    """It begins at its top in a readable size."""
    browser.open(draw_all_possible_flows(forty_steps(), tmp_path / "flow.html"))
    assert browser.run("document.querySelector('.node.step .box').getBoundingClientRect().height") > 30
    assert 0 < browser.centre(node("StartEvent"))[1] < 300
    browser.run("document.getElementById('fit').click()")
    height = browser.run("innerHeight")
    assert all(0 < browser.centre(node(label))[1] < height for label in ("StartEvent", "stage_20", "StopEvent"))


def test_hovering_a_node_tells_about_it_and_lights_what_it_is_connected_to(browser: Browser, tmp_path: Path) -> None:
    """And leaving it ends that."""
    browser.open(draw_all_possible_flows(Judged, tmp_path / "flow.html"))
    assert browser.run("document.getElementById('card').hidden") is True
    browser.mouse("mouseMoved", *browser.centre(node("judge_query")))
    told = browser.run("document.getElementById('card').innerText")
    assert "Is the query good enough?" in told
    assert "num_workers" in told
    assert "A query that is to be judged again." not in told
    lit = browser.run("[...document.querySelectorAll('.node.on')].map((n) => n.ariaLabel.split(' ').pop()).sort()")
    assert lit == [
        "BadQueryEvent",
        "HighTopKEvent",
        "JudgeEvent",
        "NaiveRAGEvent",
        "RerankEvent",
        "StartEvent",
        "judge_query",
    ]
    browser.mouse("mouseMoved", 60, 400)
    assert browser.run("document.getElementById('card').hidden") is True
    assert browser.run("document.querySelectorAll('.on').length") == 0


def test_hovering_a_part_of_a_step_tells_about_the_part_and_then_about_the_step_again(
    browser: Browser, tmp_path: Path
) -> None:
    """A resource lights up wherever it is used."""
    browser.open(draw_all_possible_flows(Nested, tmp_path / "flow.html"))
    browser.mouse("mouseMoved", *browser.centre("document.querySelector('.part.resource')"))
    assert "Open the database of the service." in browser.run("document.getElementById('card').innerText")
    assert browser.run("document.querySelectorAll('.part.on').length") == 2
    browser.mouse("mouseMoved", *browser.centre("document.querySelector('.node.step .name')"))
    assert "num_workers" in browser.run("document.getElementById('card').innerText")


def test_nodes_can_be_reached_by_the_keyboard(browser: Browser, tmp_path: Path) -> None:
    """Focus tells what the mouse tells, and Escape hides it."""
    browser.open(draw_all_possible_flows(Chain, tmp_path / "flow.html"))
    browser.run(f"{node('two')}.focus()")
    assert "returns or sends" in browser.run("document.getElementById('card').innerText")
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="Escape")
    assert browser.run("document.getElementById('card').hidden") is True


def test_page_is_light_or_dark_as_the_reader_has_it(browser: Browser, tmp_path: Path) -> None:
    """Background and text change places."""
    path = draw_all_possible_flows(Chain, tmp_path / "flow.html")
    found: dict[str, list[int]] = {}
    for scheme in ("light", "dark"):
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        browser.open(path)
        colours = "const s = getComputedStyle(document.body); [s.backgroundColor, s.color].join(' ')"
        found[scheme] = [sum(map(int, c.split(","))) for c in re.findall(r"rgb\((.*?)\)", browser.run(colours))]
    assert found["light"][0] > 600 > found["light"][1]
    assert found["dark"][0] < 200 < found["dark"][1]


def test_script_of_a_user_does_not_run(browser: Browser, tmp_path: Path) -> None:
    """Neither from a name nor from a docstring; even one that got into the page would be refused."""
    attack = "</title></svg></section><script>window.hit=1</script><img src=x onerror=window.hit=1>"
    path = draw_all_possible_flows(named(attack), tmp_path / "flow.html")
    browser.open(path)
    assert browser.run("document.getElementById('drawing').dataset.ready") == "true"
    assert browser.run("window.hit") is None
    assert browser.run("document.images.length") == 0
    path.write_text(
        path.read_text(encoding="utf-8").replace("</body>", "<script>window.hit=1</script></body>"), "utf-8"
    )
    browser.open(path)
    assert browser.run("document.getElementById('drawing').dataset.ready") == "true"
    assert browser.run("window.hit") is None


async def test_page_of_an_execution_shows_its_numbers(browser: Browser, tmp_path: Path) -> None:
    """None of them lies on a box or on another."""
    flow = Judged()
    await flow.run(query="why")
    browser.open(draw_most_recent_execution(flow, tmp_path / "flow.html"))
    assert browser.run("document.querySelectorAll('text.badge').length") == 6
    covered = browser.run(
        """(() => {
          const numbers = [...document.querySelectorAll("text.times")].map((n) => n.getBoundingClientRect());
          const boxes = [...document.querySelectorAll(".node > .box")].map((n) => n.getBoundingClientRect());
          const meet = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
          return numbers.filter((a) => [...boxes, ...numbers].some((b) => a !== b && meet(a, b))).length;
        })()"""
    )
    assert covered == 0
