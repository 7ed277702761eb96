"""The graph as a picture: all that can happen in a workflow, or what happened in its last run.

The suffix of the file name chooses the form: `.html` is one page that works offline, `.mmd` is Mermaid text.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import WorkflowRuntimeError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from .picture import Picture
    from .workflow import Workflow


def draw_all_possible_flows(
    workflow: Workflow[Any, Any] | type[Workflow[Any, Any]],
    filename: str | os.PathLike[str] = "workflow_all_flows.html",
) -> Path:
    """Draw every way through a workflow, class or object, and return the path of the file.

    - `filename`: ends in `.html` for a page to look at, or in `.mmd` for Mermaid text.

    Raises `WorkflowValidationError` where the workflow cannot work, `WorkflowRuntimeError` for other suffixes.
    """
    from .picture import possible  # noqa: PLC0415 because only who draws needs it

    return _draw(filename, lambda: possible(workflow))


def draw_most_recent_execution(
    workflow: Workflow[Any, Any],
    filename: str | os.PathLike[str] = "workflow_recent_execution.html",
) -> Path:
    """Draw what ran in the run of a workflow object that was started last, and return the path of the file.

    Steps and events have numbers that say how often; what did not run is not there. The run may still go on.

    - `filename`: as for `draw_all_possible_flows`.

    Raises `WorkflowRuntimeError` where nothing has run yet, and for other suffixes.
    """
    from .picture import recent  # noqa: PLC0415 because only who draws needs it

    return _draw(filename, lambda: recent(workflow))


def _draw(filename: str | os.PathLike[str], make: Callable[[], Picture]) -> Path:
    path = Path(filename)
    suffix = path.suffix.lower()
    if suffix not in {".html", ".mmd"}:
        msg = (
            f"filename={str(filename)!r} does not say what to draw. It ends in .html for a page, or in .mmd for Mermaid "
            f"text. Write: filename={str(path.with_suffix('.html') if path.name else 'flow.html')!r}"
        )
        raise WorkflowRuntimeError(msg)
    picture = make()
    if suffix == ".mmd":
        text = _mermaid(picture)
    else:
        from .page import render  # noqa: PLC0415 because only who draws a page needs it

        text = render(picture)
    path.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
    return path


_SHAPES = {
    "start": '(["{}"])',
    "step": '["{}"]',
    "event": '("{}")',
    "stop": '(["{}"])',
    "outside": '{{{{"{}"}}}}',
    "workflow": '[["{}"]]',
    "resource": '[("{}")]',
}
_COLOURS = {
    "start": "fill:#e2f2e8,stroke:#9fcfb2,color:#205b3a",
    "step": "fill:#ffffff,stroke:#8d9aa8,color:#24313f",
    "event": "fill:#ecf1f8,stroke:#c9d6e7,color:#3c536f",
    "stop": "fill:#fae8e5,stroke:#e2b3ab,color:#7d3329",
    "outside": "fill:#fcf3dd,stroke:#d9b566,color:#6b4b0d,stroke-dasharray:5 3",
    "workflow": "fill:#f2effa,stroke:#b8a9dc,color:#4b3d7b",
    "resource": "fill:#e6f3f1,stroke:#8cc7c0,color:#27706a",
}


def _mermaid(picture: Picture) -> str:
    """The picture as a Mermaid flow chart."""
    shapes: list[str] = []
    lines: list[str] = []
    used: dict[str, None] = {}
    names: list[str] = []
    parts: dict[int, str] = {}

    def shape(kind: str, name: str, *label: str) -> str:
        key = _key(kind, name, used)
        shapes.append(f"    {key}{_SHAPES[kind].format('<br/>'.join(_quoted(text) for text in label if text))}:::{kind}")
        return key

    for node in picture.nodes:
        times = "" if node.count is None else f" ×{node.count}"
        names.append(shape(node.kind, node.label, f"{node.label}{times}", node.note))
        for part in node.parts:
            if part.same not in parts:
                parts[part.same] = shape(part.kind, part.label, part.label, part.note)
            lines.append(f"    {names[-1]} -.- {parts[part.same]}")
    for line in picture.lines:
        arrow = "-.->" if line.awaited else "-->"
        times = "" if line.count is None else f'|"×{line.count}"|'
        lines.append(f"    {names[line.source]} {arrow}{times} {names[line.target]}")
    kinds = [*dict.fromkeys(text.rpartition(":::")[2] for text in shapes)]
    colours = [f"    classDef {kind} {_COLOURS[kind]}" for kind in kinds]
    title = json.dumps(f"{picture.name}: {picture.title}", ensure_ascii=False)
    return "\n".join(["---", f"title: {title}", "---", "flowchart TD", *shapes, *lines, *colours, ""])


def _key(kind: str, name: str, used: dict[str, None]) -> str:
    """A name for a node that Mermaid takes for nothing else."""
    plain = base = f"{kind}_{re.sub(r'[^A-Za-z0-9_]', '_', name)}"
    number = 1
    while plain in used:
        number += 1
        plain = f"{base}_{number}"
    used[plain] = None
    return plain


def _quoted(text: str) -> str:
    """A text that Mermaid shows as it is: everything with a meaning is written as a number."""
    return re.sub(r"[^\w .,:()+×·-]", lambda letter: f"#{ord(letter[0])};", text)
