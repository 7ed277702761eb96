"""Where the boxes of a drawing go and how the lines between them run.

Boxes that belong together are put in line (after Brandes and Köpf). A line that passes layers goes
upright through its places there, so it touches no box. A loop leaves its box at the side, goes up,
and arrives at the side.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from .layers import Grid

if TYPE_CHECKING:
    from collections.abc import Sequence

BETWEEN_BOXES = 30.0
BETWEEN_LINES = 14.0
BESIDE_BOX = 20.0
BETWEEN_LAYERS = 34.0
_STEEPNESS = 0.13
"""By how much layers move apart for each unit that a line between them goes sideways."""
_MOST_BETWEEN_LAYERS = 96.0
_ALMOST = 12.0
"""How far nodes may be out of line to be put in line, where there is room."""

Point = tuple[float, float]
Size = tuple[float, float]


class Route(NamedTuple):
    """How a line runs: through these points, upright in each of them.

    A loop's first and last point are at the sides of its boxes; there, it runs level. A label has its
    place near the source, where lines from other boxes are still apart.
    """

    points: tuple[Point, ...]
    loop: bool
    label: Point


class Layout(NamedTuple):
    """The size of the whole, the centre of each box, and the route of each line."""

    width: float
    height: float
    centres: list[Point]
    routes: list[Route]


def lay_out(sizes: Sequence[Size], lines: Sequence[tuple[int, int]]) -> Layout:
    """Lay out boxes of these widths and heights, with lines from box to box; none leads from a box to itself.

    The drawing is to be read from the first box on. The same input gives the same layout.
    """
    assert all(source != target for source, target in lines)
    if not sizes:
        return Layout(0.0, 0.0, [], [])
    grid = Grid(len(sizes), lines)
    widths = [width for width, _ in sizes] + [0.0] * (grid.size - len(sizes))
    x = _across(grid, widths)
    _straighten(grid, widths, x)
    left = min(centre - width / 2 for centre, width in zip(x, widths, strict=True))
    x = [round(centre - left, 1) for centre in x]
    bands = _bands(grid, x, sizes)
    centres = [(x[box], round(sum(bands[grid.layer[box]]) / 2, 2)) for box in range(len(sizes))]
    routes = _Routes(grid, x, bands, centres, sizes)
    return Layout(
        max(centre + width / 2 for centre, width in zip(x, widths, strict=True)),
        bands[-1][1],
        centres,
        [routes.loop(number) if number in grid.loops else routes.straight(number) for number in range(len(lines))],
    )


def _bands(grid: Grid, x: list[float], sizes: Sequence[Size]) -> list[tuple[float, float]]:
    """Where each layer begins and ends."""
    bands: list[tuple[float, float]] = []
    below = 0.0
    for number, row in enumerate(grid.rows):
        if number:
            aside = max((abs(x[upper] - x[node]) for node in row for upper in grid.above[node]), default=0.0)
            below += round(min(BETWEEN_LAYERS + aside * _STEEPNESS, _MOST_BETWEEN_LAYERS), 1)
        tall = max((sizes[node][1] for node in row if node < grid.boxes), default=0.0)
        bands.append((round(below, 2), round(below + tall, 2)))
        below += tall
    return bands


def _gap(grid: Grid, a: int, b: int) -> float:
    if grid.beside.get(a) == b or grid.beside.get(b) == a:
        return BESIDE_BOX
    if a < grid.boxes and b < grid.boxes:
        return BETWEEN_BOXES
    return BESIDE_BOX if a < grid.boxes or b < grid.boxes else BETWEEN_LINES


def _across(grid: Grid, widths: list[float]) -> list[float]:
    """Where each node is from left to right: the mean of four layouts, each drawn towards one corner."""
    apart: dict[tuple[int, int], float] = {}
    for row in grid.rows:
        for a, b in pairwise(row):
            apart[a, b] = apart[b, a] = (widths[a] + widths[b]) / 2 + _gap(grid, a, b)
    blocked = _blocked(grid)
    near = [_to_align(grid, grid.below, grid.above), _to_align(grid, grid.above, grid.below)]
    found: list[list[float]] = []
    for down in (True, False):
        for mirrored in (False, True):
            rows = grid.rows if down else grid.rows[::-1]
            rows = [row[::-1] for row in rows] if mirrored else rows
            x = _compact(rows, _blocks(rows, near[down], blocked), apart)
            found.append([-value for value in x] if mirrored else x)
    spans = [
        (
            min(centre - width / 2 for centre, width in zip(x, widths, strict=True)),
            max(centre + width / 2 for centre, width in zip(x, widths, strict=True)),
        )
        for x in found
    ]
    low, high = min(spans, key=lambda span: span[1] - span[0])
    for number, x in enumerate(found):
        shift = high - spans[number][1] if number % 2 else low - spans[number][0]
        found[number] = [value + shift for value in x]
    return [round(sum(sorted(values)[1:3]) / 2, 1) for values in zip(*found, strict=True)]


def _to_align(grid: Grid, near: list[list[int]], back: list[list[int]]) -> list[list[int]]:
    """What each node may be in line with: a long line goes straight on, whatever joins or leaves it."""
    place = [node >= grid.boxes for node in range(grid.size)]
    return [
        [n for n in ends if place[n]] or ends
        if place[node]
        else [n for n in ends if not place[n] or not any(place[other] for other in back[n])]
        for node, ends in enumerate(near)
    ]


def _blocked(grid: Grid) -> set[tuple[int, int]]:
    """The pieces of lines that must not be straight, because they cross a long line, which is to be."""
    blocked: set[tuple[int, int]] = set()
    for above, row in pairwise(grid.rows):
        upper = {node: position for position, node in enumerate(above)}
        pieces = [(upper[u], position, u, node) for position, node in enumerate(row) for u in grid.above[node]]
        long = [(a, b) for a, b, u, v in pieces if u >= grid.boxes and v >= grid.boxes]
        for a, b, u, v in pieces:
            inner = u >= grid.boxes and v >= grid.boxes
            # of two long lines that cross, the one that is further left stays straight
            if any((c - a) * (d - b) < 0 and (not inner or c < a) for c, d in long):
                blocked |= {(u, v), (v, u)}
    return blocked


def _blocks(rows: list[list[int]], near: list[list[int]], blocked: set[tuple[int, int]]) -> list[int]:
    """For each node the first of those that it is in line with: the middle neighbour in the row before, and so on."""
    position = {node: number for row in rows for number, node in enumerate(row)}
    block = list(range(len(position)))
    for row in rows:
        taken = -1
        for node in row:
            ends = sorted(near[node], key=position.__getitem__)
            for end in ends[(len(ends) - 1) // 2 : len(ends) // 2 + 1]:
                if block[node] == node and (end, node) not in blocked and position[end] > taken:
                    block[node] = block[end]
                    taken = position[end]
    return block


def _compact(rows: list[list[int]], block: list[int], apart: dict[tuple[int, int], float]) -> list[float]:
    """Put blocks as far to the left as can be, then each as close to the one on its right as it can."""
    after: dict[int, dict[int, float]] = {b: {} for b in block}
    waiting = dict.fromkeys(block, 0)
    for row in rows:
        for a, b in pairwise(row):
            known = after[block[a]]
            waiting[block[b]] += block[b] not in known
            known[block[b]] = max(known.get(block[b], 0.0), apart[a, b])
    x = dict.fromkeys(block, 0.0)
    rightwards = [b for b in after if not waiting[b]]
    for b in rightwards:
        for other, distance in after[b].items():
            x[other] = max(x[other], x[b] + distance)
            waiting[other] -= 1
            if not waiting[other]:
                rightwards.append(other)
    for b in reversed(rightwards):
        if after[b]:
            x[b] = max(x[b], min(x[other] - distance for other, distance in after[b].items()))
    return [x[b] for b in block]


def _straighten(grid: Grid, widths: list[float], x: list[float]) -> None:
    """Put nodes exactly in line that almost are, with all that is in line with them, where there is room."""
    neighbours: list[list[tuple[int, float]]] = [[] for _ in range(grid.size)]
    for row in grid.rows:
        for a, b in pairwise(row):
            least = (widths[a] + widths[b]) / 2 + _gap(grid, a, b) / 2
            neighbours[a].append((b, least))
            neighbours[b].append((a, -least))

    def fits(nodes: set[int], shift: float) -> bool:
        return all(
            (x[other] - x[node] - shift - least) * least >= 0
            for node in nodes
            for other, least in neighbours[node]
            if other not in nodes
        )

    for lower, upper in [(node, upper) for row in grid.rows for node in row for upper in grid.above[node]]:
        shift = round(x[upper] - x[lower], 1)
        for start, by in ((lower, shift), (upper, -shift)) if 0 < abs(shift) <= _ALMOST else ():
            nodes = _in_line(grid, x, start)
            if fits(nodes, by):
                for node in nodes:
                    x[node] = round(x[node] + by, 1)
                break


def _in_line(grid: Grid, x: list[float], start: int) -> set[int]:
    """The nodes that straight lines connect with this one."""
    found, stack = {start}, [start]
    while stack:
        node = stack.pop()
        more = [n for n in (*grid.above[node], *grid.below[node]) if x[n] == x[start] and n not in found]
        found.update(more)
        stack += more
    return found


class _Routes:
    """The routes of lines, once it is known where everything is."""

    def __init__(
        self,
        grid: Grid,
        x: list[float],
        bands: list[tuple[float, float]],
        centres: list[Point],
        sizes: Sequence[Size],
    ) -> None:
        self.grid = grid
        self.x = x
        self.bands = bands
        self.centres = centres
        self.sizes = sizes
        self.beside: dict[tuple[int, bool], list[int]] = {}
        """For each side of each box, right or not, the places there."""
        for place, box in grid.beside.items():
            self.beside.setdefault((box, x[place] > x[box]), []).append(place)

    def straight(self, number: int) -> Route:
        """From the bottom of one box to the top of another."""
        source, target = self.grid.lines[number]
        x, layer = self.x, self.grid.layer
        points = [(x[source], self.centres[source][1] + self.sizes[source][1] / 2)]
        points.append((x[source], self.bands[layer[source]][1]))
        for place in self.grid.through[number]:
            points += [(x[place], edge) for edge in self.bands[layer[place]]]
        points.append((x[target], self.bands[layer[target]][0]))
        points.append((x[target], self.centres[target][1] - self.sizes[target][1] / 2))
        after = next(iter(self.grid.through[number]), target)
        label = ((x[source] + x[after]) / 2, (self.bands[layer[source]][1] + self.bands[layer[after]][0]) / 2)
        return Route(tuple(dict.fromkeys((at, round(y, 2)) for at, y in points)), loop=False, label=label)

    def loop(self, number: int) -> Route:
        """From the side of one box up to the side of another."""
        source, target = self.grid.lines[number]
        first, *between, last = self.grid.through[number]
        x, layer = self.x, self.grid.layer
        points = [self._side(source, first), (x[first], self.bands[layer[first]][0])]
        for place in between:
            points += [(x[place], edge) for edge in reversed(self.bands[layer[place]])]
        points += [(x[last], self.bands[layer[last]][1]), self._side(target, last)]
        after = between[0] if between else last
        label = ((x[first] + x[after]) / 2, (self.bands[layer[first]][0] + self.bands[layer[after]][1]) / 2)
        return Route(tuple(points), loop=True, label=label)

    def _side(self, box: int, place: int) -> Point:
        """Where a loop touches a box; above the middle where it arrives and lower where it leaves, if both do."""
        right = self.x[place] > self.x[box]
        width, height = self.sizes[box]
        both = len({bool(self.grid.above[other]) for other in self.beside[box, right]}) > 1
        offset = (height / 5 if self.grid.above[place] else -height / 5) if both else 0.0
        return self.x[box] + (width / 2 if right else -width / 2), round(self.centres[box][1] + offset, 1)
