"""What agentflow and its peers show of the same scenes: writes the table in docs/observability.md.

`.venv/bin/python benchmarks/comparison.py` lives through every scene with every library, each in its environment, and
reads the answers out of the spans that came. Nothing in the table is written by hand.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import report
from environments import PEERS, ROOT, python_of
from run import ENVIRON, HERE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Span = dict[str, Any]
    Scene = dict[str, Any]

PAGE = ROOT / "docs" / "observability.md"
ORDER = ("agentflow", "llamaindex", "langchain", "pydantic_ai", "openai_agents")
TITLES = {
    "agentflow": "agentflow",
    "llamaindex": "llama-index-workflows",
    "langchain": "langgraph",
    "pydantic_ai": "pydantic-ai",
    "openai_agents": "openai-agents",
}
WAIT, WORK, PRIVATE = 0.07, 0.03, "Zebedee"
"""As in scenery.py, which imports a library that is not here."""
TOKENS = {"gen_ai.usage.input_tokens", "llm.token_count.prompt", "gen_ai.aggregated_usage.input_tokens"}
NONE = "-"


def failures(scene: Scene) -> str:
    """How many of the two failures are in the trace: as spans, or as events of spans, that tell of them."""
    spans: list[Span] = scene["spans"]
    of_spans = [span for span in spans if span["status"] == "ERROR" and _is_failure(_text(span))]
    parents = {span["parent"] for span in of_spans}
    deepest = [span for span in of_spans if span["id"] not in parents]
    events = [event for span in spans for event in span["events"] if _is_failure(_text(event))]
    return f"{min(2, max(len(deepest), len(events)))} of 2"


def waited(scene: Scene) -> str:
    """Is there a number that is the wait between two attempts?"""
    found = [key for span in scene["spans"] for key, value in _facts(span) if _is_about(value, WAIT)]
    return "yes" if found else "no"


def tools(scene: Scene) -> str:
    """Of two tool calls, how many have a span below the run."""
    spans = {span["id"]: span for span in scene["spans"]}
    calls = [
        span
        for span in spans.values()
        if span["name"].split()[-1] in {"north", "south"} or span["name"] == "FunctionTool.acall"
    ]
    below = [span for span in calls if _root(span, spans) is not span]
    return f"{len(below)} of 2"


def models(scene: Scene) -> str:
    """How many spans have the tokens of two model calls."""
    of_tokens = [span for span in scene["spans"] if any(_is_tokens(key) for key, _ in _facts(span))]
    return f"{len(of_tokens)} for 2"


def private(scene: Scene) -> str:
    """Is what was asked in the spans, though nobody switched that on?"""
    found = sum(PRIVATE in _text(span) for span in scene["spans"])
    return f"yes, on {found} spans" if found else "no"


def causes(scene: Scene) -> str:
    """Does the step that joins name the three events, and by what?"""
    most = max((len(span["links"]) for span in scene["spans"]), default=0)
    return f"{most} links" if most >= 3 else "no"


def queue(scene: Scene) -> str:
    """Is there a number for how long the third piece waited for a free worker?"""
    for span in scene["spans"]:
        for key, value in _facts(span):
            if re.search("wait|queue", key) and isinstance(value, float) and 0.5 * WORK < value < 5 * WORK:
                return "yes"
    return "no"


def ending(scene: Scene) -> str:
    """What the cancelled run's outermost span says of how it ended."""
    roots = [span for span in scene["spans"] if span["parent"] is None]
    if not roots:
        return "it never ends"
    root = roots[-1]
    said = "says cancelled" if re.search("cancel", _text(root), re.IGNORECASE) else "says nothing"
    status = {"OK": "status OK", "ERROR": "status ERROR", "UNSET": "no status"}[root["status"]]
    return f"{status}, {said}"


def stragglers(scene: Scene) -> str:
    """Spans that never end, and spans that end when the run's has ended."""
    roots = [span for span in scene["spans"] if span["parent"] is None]
    late = [span for span in scene["spans"] if roots and span["end"] > roots[-1]["end"] and span["parent"]]
    lost = scene["begun"] - len(scene["spans"])
    return f"{lost} lost, {len(late)} late" if lost or late else "none"


def pause(scene: Scene) -> str:
    """What tells that the run waited for a person."""
    for span in sorted(scene["spans"], key=lambda span: span["start"]):
        for key, value in _facts(span):
            if key == "agentflow.outcome" and value == "suspended":
                return "yes, as the outcome"
        for event in span["events"]:
            if re.search(
                "interrupt|wait|suspend|approv", f"{event['name']} {event.get('exception.type', '')}", re.IGNORECASE
            ):
                return "yes, as an exception" if event["name"] == "exception" else "yes, as an event"
    return "no"


def together(scene: Scene) -> str:
    """What the part after the pause has in common with the part before it."""
    traces = sorted({span["trace"] for span in scene["spans"]}, key=lambda one: _begin(scene, one))
    if len(traces) < 2:
        return "one trace" if any(span["name"] for span in scene["spans"]) else NONE
    first, second = ([span for span in scene["spans"] if span["trace"] == one] for one in traces[:2])
    linked = any(traces[0] in span["links"] for span in second)
    shared = {key for key, _ in _ids(first) & _ids(second)}
    said = ["a link"] if linked else []
    said += sorted(f"`{key}`" for key in shared)[:2]
    return " and ".join(said) or "nothing"


ROWS: tuple[tuple[str, str, Callable[[Scene], str]], ...] = (
    ("a step fails twice, then succeeds: failures to be seen", "step_retry", failures),
    ("... the wait before the next attempt", "step_retry", waited),
    ("the model refuses twice (429), then answers: refusals to be seen", "model_retry", failures),
    ("... the wait before the next attempt", "model_retry", waited),
    ("two tools at once: spans below the run", "tools", tools),
    ("... spans that count tokens, for two model calls", "tools", models),
    ("... what the user asked goes out, unasked", "tools", private),
    ("three pieces are joined: what the join names as its cause", "fan_in", causes),
    ("... how long a piece waited for a free worker", "fan_in", queue),
    ("a run is cancelled: its span", "cancel", ending),
    ("... spans lost, or ended after their run", "cancel", stragglers),
    ("a run is stored and waits for a person: that it waits", "pause", pause),
    ("... what its second part has in common with the first", "pause", together),
)


def table(seen: dict[str, dict[str, Scene]]) -> str:
    """The answers as Markdown."""
    peers = [peer for peer in ORDER if peer in seen]
    lines = [f"| | {' | '.join(TITLES[peer] for peer in peers)} |", f"|---|{'---|' * len(peers)}"]
    for title, scene, ask in ROWS:
        answers = [ask(seen[peer][scene]) if scene in seen[peer] else NONE for peer in peers]
        lines.append(f"| {title} | {' | '.join(answers)} |")
    return "\n".join(lines)


def _begin(scene: Scene, trace: str) -> float:
    return min(float(span["start"]) for span in scene["spans"] if span["trace"] == trace)


def _ids(spans: Iterable[Span]) -> set[tuple[str, str]]:
    """Ids that tell which run or session it is."""
    return {
        (key, str(value))
        for span in spans
        for key, value in span["attributes"].items()
        if re.search(r"(session|conversation|run|thread|group)[._]?id$", key)
    }


def _facts(span: Span) -> Iterator[tuple[str, Any]]:
    yield from span["attributes"].items()
    for event in span["events"]:
        yield from event.items()


def _text(thing: Any) -> str:
    return json.dumps(thing, default=str)


def _is_failure(text: str) -> bool:
    return re.search(r"ConnectionError|no route|RateLimit|\b429\b|slow down", text) is not None


def _is_about(value: Any, wanted: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value - wanted) <= 0.1 * wanted


def _is_tokens(key: str) -> bool:
    return key in TOKENS or key.endswith("prompt_tokens")


def _root(span: Span, spans: dict[str, Span]) -> Span:
    while span["parent"] in spans:
        span = spans[span["parent"]]
    return span


def look(peer: str, python: str) -> tuple[dict[str, Scene], dict[str, str]]:
    """What is seen of a peer, and its versions."""
    command = [python, str(HERE / "witness.py"), peer]
    done = subprocess.run(command, capture_output=True, env=ENVIRON, timeout=120, check=False)
    if done.returncode:
        raise SystemExit(f"{peer} failed:\n{done.stderr.decode()}")
    answer = json.loads(done.stdout)
    if failed := {name: scene["failed"] for name, scene in answer["seen"].items() if scene["failed"]}:
        raise SystemExit(f"{peer} failed: {failed}")
    return answer["seen"], answer["versions"]


def main() -> None:
    """Live through all scenes and write the table."""
    parser = argparse.ArgumentParser(description="Compare what agentflow and its peers show of the same scenes.")
    parser.add_argument("--no-write", action="store_true", help="print the table only")
    parser.add_argument("--venvs", type=Path, default=ROOT / ".bench" / "venvs", metavar="DIR", help="environments")
    options = parser.parse_args()
    seen: dict[str, dict[str, Scene]] = {}
    versions: dict[str, str] = {}
    for peer in PEERS:
        seen[peer], of_peer = look(peer, python_of(peer, options.venvs))
        versions |= of_peer
    names = ", ".join(f"{name} {version}" for name, version in versions.items())
    text = f"{table(seen)}\n\n{datetime.now(UTC).date()}: {names}."
    print(text)
    if not options.no_write:
        PAGE.write_text(report.put_between_markers(PAGE.read_text(encoding="utf-8"), text), encoding="utf-8")


if __name__ == "__main__":
    main()
