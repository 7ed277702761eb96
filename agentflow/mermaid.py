"""A picture as Mermaid text, for Markdown that draws it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from .picture import TIMES

if TYPE_CHECKING:
    from .picture import Picture

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


def render(picture: Picture) -> str:
    """The text."""
    shapes: list[str] = []
    lines: list[str] = []
    used: dict[str, None] = {}
    names: list[str] = []
    parts: dict[int, str] = {}

    def shape(kind: str, name: str, *label: str) -> str:
        key = _key(kind, name, used)
        shapes.append(
            f"    {key}{_SHAPES[kind].format('<br/>'.join(_quoted(text) for text in label if text))}:::{kind}"
        )
        return key

    for node in picture.nodes:
        times = "" if node.times is None else f" {TIMES}{node.times}"
        names.append(shape(node.kind, node.label, f"{node.label}{times}", node.note))
        for part in node.parts:
            if part.same not in parts:
                parts[part.same] = shape(part.kind, part.label, part.label, part.note)
            lines.append(f"    {names[-1]} -.- {parts[part.same]}")
    for line in picture.lines:
        arrow = "-.->" if line.awaited else "-->"
        times = "" if line.times is None else f'|"{TIMES}{line.times}"|'
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
    return re.sub(rf"[^\w .,:()+{TIMES}·-]", lambda letter: f"#{ord(letter[0])};", text)
