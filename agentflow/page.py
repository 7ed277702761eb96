"""A picture as one HTML page that needs nothing else: a drawing in SVG, its style and its script."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING
from unicodedata import east_asian_width

from .layout import lay_out
from .picture import TIMES, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .layout import Route
    from .picture import About, Node, Part, Picture

_LETTER = 0.615
"""The width of a letter of a monospaced font, in units of its size; real ones have 0.55 to 0.62."""
_LONGEST = 44
"""How many letters of a name are shown."""
_NAME, _EVENT, _SMALL = 13.5, 12.0, 11.0
_MARGIN = 24.0
_BEND = 9.0


def render(picture: Picture) -> str:
    """The page."""
    sizes = [_size(node) for node in picture.nodes]
    layout = lay_out(sizes, [(line.source, line.target) for line in picture.lines])
    abouts: list[About] = []
    drawing = list(_lines(picture, layout.routes))
    for number, (node, (x, y), size) in enumerate(zip(picture.nodes, layout.centres, sizes, strict=True)):
        inside = "".join(_inside(node, size, abouts))
        drawing.append(
            f'<g class="node {node.kind}" id="node-{number}" data-about="{len(abouts)}" '
            f'transform="translate({x:g} {y:g})" tabindex="0" role="img" '
            f'aria-label="{escape(_spoken(node))}">{inside}</g>'
        )
        abouts.append(node.about)
    style, script = _file("page.css"), _file("page.js")
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src '{_hash(script)}'"
    name, title = escape(picture.name), escape(picture.title)
    paragraph = picture.text.partition("\n\n")[0]
    text = f'<p class="text">{escape(paragraph)}</p>\n' if paragraph else ""
    shapes, legend = "\n".join(drawing), "\n".join(_legend(picture, layout.routes))
    sections = "\n".join(f'<section id="about-{n}" hidden>{_about(about)}</section>' for n, about in enumerate(abouts))
    box = f"{-_MARGIN:g} {-_MARGIN:g} {layout.width + 2 * _MARGIN:g} {layout.height + 2 * _MARGIN:g}"
    return f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{name}: {title}</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
<header>
<h1>{name}</h1>
<p class="summary">{title} · {escape(picture.summary)}</p>
{text}</header>
<svg id="drawing" viewBox="{box}" role="group" aria-label="{name}: {title}">
{shapes}
</svg>
<footer>
<ul id="legend">
{legend}
</ul>
<nav>
<button id="out" title="smaller (-)" aria-label="smaller">&minus;</button>
<button id="fit" title="all of it (0)" aria-label="all of it">fit</button>
<button id="in" title="larger (+)" aria-label="larger">+</button>
</nav>
</footer>
<aside id="card" hidden>
{sections}
</aside>
<script>
{script}</script>
</body>
</html>
"""


def _file(name: str) -> str:
    return files("agentflow").joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    digest = hashlib.sha256(f"\n{script}".encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _spoken(node: Node) -> str:
    times = "" if node.times is None else f", {node.times} times"
    return f"{node.about.what} {node.label}{times}"


def _letters(text: str) -> int:
    """The width of a text in letters: some take the place of two."""
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)


def _wide(text: str, size: float) -> float:
    return _letters(_short(text)) * size * _LETTER


def _short(text: str) -> str:
    return text if _letters(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _times(node: Node) -> str:
    return "" if node.times is None else f"{TIMES}{node.times}"


_NAME_HEIGHT, _NOTE_HEIGHT, _RESOURCE_HEIGHT, _WORKFLOW_HEIGHT = 40.0, 14.0, 19.0, 50.0


def _size(node: Node) -> tuple[float, float]:
    """The width and height of a node."""
    if node.kind is Kind.STEP:
        wide = [_wide(node.label, _NAME) + 40, _wide(node.note, _SMALL) + 28]
        wide += [_part_width(part) + 28 for part in node.parts]
        tall = _NAME_HEIGHT + (_NOTE_HEIGHT if node.note else 0)
        tall += sum(_WORKFLOW_HEIGHT if p.kind == "workflow" else _RESOURCE_HEIGHT for p in node.parts)
        return round(max(116.0, *wide)), tall + (8 if node.parts else 0)
    label = _wide(node.label, _EVENT) + (_wide(_times(node), _EVENT) + 7 if node.times is not None else 0)
    if node.kind is Kind.EVENT:
        return round(label + 26), 26.0
    return round(label + 26 + 18), 34.0


def _part_width(part: Part) -> float:
    if part.kind == "workflow":
        return max(_wide(part.label, _EVENT), _wide(part.note, _SMALL)) + 34
    return _wide(part.label, _SMALL) + _wide(part.note, _SMALL) + 26


def _inside(node: Node, size: tuple[float, float], abouts: list[About]) -> Iterator[str]:
    """A node, drawn around its centre; what there is to say of its parts is added to `abouts`."""
    width, height = size
    left, top = -width / 2, -height / 2
    radius = 9.0 if node.kind is Kind.STEP else height / 2
    if node.kind is not Kind.STEP:
        yield _rect("box", left, top, width, height, radius)
        icon = _ICONS.get(node.kind, "")
        times = f'<tspan class="count" dx="7">{_times(node)}</tspan>' if node.times is not None else ""
        if icon:
            yield f'<path class="icon" transform="translate({left + 20:g} 0)" d="{icon}"/>'
        yield f'<text class="event" x="{8 if icon else 0}" y="4.2">{escape(_short(node.label))}{times}</text>'
        return
    yield _rect("box", left, top, width, height, radius)
    below = top + 25
    yield f'<text class="name" y="{below:g}">{escape(_short(node.label))}</text>'
    below = top + _NAME_HEIGHT
    if node.note:
        yield f'<text class="note" y="{below + 1:g}">{escape(_short(node.note))}</text>'
        below += _NOTE_HEIGHT
    for part in node.parts:
        attributes = f'class="part {part.kind}{" missing" if part.missing else ""}" data-about="{len(abouts)}"'
        yield f'<g {attributes} data-same="{part.same}" tabindex="0" role="img" aria-label="{escape(part.about.what)}">'
        yield from _workflow(part, width, below) if part.kind == "workflow" else _resource(part, width, below)
        yield "</g>"
        abouts.append(part.about)
        below += _WORKFLOW_HEIGHT if part.kind == "workflow" else _RESOURCE_HEIGHT
    if node.times is not None:
        wide = _wide(_times(node), _SMALL) + 14
        yield _rect("badge", -left - wide + 9, top - 10, wide, 20, 10)
        yield f'<text class="badge" x="{-left - wide / 2 + 9:g}" y="{top + 4:g}">{_times(node)}</text>'


def _workflow(part: Part, width: float, y: float) -> Iterator[str]:
    yield _rect("box", -width / 2 + 12, y, width - 24, _WORKFLOW_HEIGHT - 8, 6)
    yield _rect("inner", -width / 2 + 15, y + 3, width - 30, _WORKFLOW_HEIGHT - 14, 4)
    yield f'<text class="event" y="{y + 18:g}">{escape(_short(part.label))}</text>'
    yield f'<text class="note" y="{y + 32:g}">{escape(_short(part.note))}</text>'


def _resource(part: Part, width: float, y: float) -> Iterator[str]:
    yield _rect("hit", -width / 2 + 6, y, width - 12, _RESOURCE_HEIGHT, 4)
    left = -(_wide(part.label, _SMALL) + _wide(part.note, _SMALL) + 22) / 2
    yield f'<path class="icon" d="M{left:g} {y + 9.5:g}l4 -4l4 4l-4 4z"/>'
    yield f'<text class="resource" x="{left + 15:g}" y="{y + 13:g}">{escape(_short(part.label))}'
    yield f'<tspan class="scope" dx="7">{escape(part.note)}</tspan></text>'


_ICONS = {
    Kind.START: "M-4 -5L5 0L-4 5Z",
    Kind.STOP: "M-4.5 -4.5H4.5V4.5H-4.5Z",
    Kind.OUTSIDE: "M0 -7a3.4 3.4 0 1 1 -.01 0ZM-6.5 7a6.5 6 0 0 1 13 0Z",
}


def _rect(kind: str, x: float, y: float, width: float, height: float, radius: float) -> str:  # noqa: PLR0913, PLR0917 because a rectangle has these
    return f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}"/>'


def _lines(picture: Picture, routes: list[Route]) -> Iterator[str]:
    labels: list[str] = []
    for line, route in zip(picture.lines, routes, strict=True):
        ends = f'data-from="node-{line.source}" data-to="node-{line.target}"'
        kind = f"line{' loop' if route.loop else ''}{' awaited' if line.awaited else ''}"
        pointed = route.loop or picture.nodes[line.target].kind is not Kind.EVENT
        head = f'<path class="head" d="{_head(route)}"/>' if pointed else ""
        yield f'<g class="{kind}" {ends}><path class="way" d="{_curve(route)}"/>{head}</g>'
        if line.times is not None:
            x, y = route.label
            labels.append(f'<text class="times" {ends} x="{x:g}" y="{y + 4:g}">{TIMES}{line.times}</text>')
    yield from labels


def _curve(route: Route) -> str:
    """The way of a line, in SVG."""
    points = list(route.points)
    (x, y), last = points[0], len(points) - 1
    path = [f"M{x:g} {y:g}"]
    for number, (to_x, to_y) in enumerate(points[1:], 1):
        if route.loop and number == 1:
            bend = min(_BEND, abs(to_x - x))
            path.append(f"H{to_x - (bend if to_x > x else -bend):g}Q{to_x:g} {y:g} {to_x:g} {y - bend:g}V{to_y:g}")
        elif route.loop and number == last:
            bend = min(_BEND, abs(to_x - x))
            path.append(f"V{to_y + bend:g}Q{x:g} {to_y:g} {x + (bend if to_x > x else -bend):g} {to_y:g}H{to_x:g}")
        elif to_x == x:
            path.append(f"V{to_y:g}")
        else:
            middle = (y + to_y) / 2
            path.append(f"C{x:g} {middle:g} {to_x:g} {middle:g} {to_x:g} {to_y:g}")
        x, y = to_x, to_y
    return "".join(path)


def _head(route: Route) -> str:
    """The head of the arrow at the end of a line."""
    (x, y), (before, _) = route.points[-1], route.points[-2]
    if not route.loop:
        return f"M{x:g} {y:g}l-4.5 -8.5q4.5 2.5 9 0z"
    back = 8.5 if before > x else -8.5
    return f"M{x:g} {y:g}l{back:g} -4.5q{-back / 3.4:g} 4.5 0 9z"


def _legend(picture: Picture, routes: list[Route]) -> Iterator[str]:
    """What there is in this picture."""
    kinds = {str(node.kind) for node in picture.nodes} | {p.kind for node in picture.nodes for p in node.parts}
    for kind, text in (
        ("start", "start"),
        ("step", "step"),
        ("event", "event"),
        ("stop", "stop"),
        ("outside", "outside world"),
        ("workflow", "nested workflow"),
        ("resource", "resource"),
    ):
        if kind in kinds:
            yield f'<li><i class="{kind}"></i>{text}</li>'
    if any(route.loop for route in routes):
        yield '<li><i class="way loop"></i>loop</li>'
    if any(line.awaited for line in picture.lines):
        yield '<li><i class="way awaited"></i>awaited</li>'
    if any(node.times is not None for node in picture.nodes):
        yield "<li><b>&times;2</b>how often</li>"


def _about(about: About) -> str:
    rows = "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in about.rows)
    text = f'<p class="doc">{escape(about.text)}</p>' if about.text else ""
    return f'<p class="what">{escape(about.what)}</p><h2>{escape(about.name)}</h2>{text}<dl>{rows}</dl>'
