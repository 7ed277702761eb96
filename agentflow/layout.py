"""Where the boxes of a drawing go and how the lines between them run: layers from top to bottom.

The usual way (after Sugiyama): lines that close a loop are set aside, every box gets a layer below all
that lead to it, the order within the layers is chosen so that few lines cross, and boxes that belong
together are put in line (after Brandes and Köpf). A line that passes layers holds a place in each of
them, so it touches no box. A loop leaves its box at the side, goes up, and arrives at the side.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

BETWEEN_BOXES = 30.0
BETWEEN_LINES = 14.0
BESIDE_BOX = 20.0
BETWEEN_LAYERS = 34.0
_STEEPNESS = 0.13
"""By how much layers move apart for each unit that a line between them goes sideways."""
_MOST_BETWEEN_LAYERS = 96.0
_ALMOST = 12.0
"""How far nodes may be out of line to be put in line, where there is room."""
_SWEEPS = 16
_ROUNDS = 8

Point = tuple[float, float]


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


def lay_out(sizes: Sequence[tuple[float, float]], lines: Sequence[tuple[int, int]]) -> Layout:
    """Lay out boxes of these widths and heights, with lines from box to box; none leads from a box to itself.

    The first box comes to the top. The same input gives the same layout.
    """
    assert all(source != target for source, target in lines)
    plan = _Plan(len(sizes), lines)
    layers = _ordered(plan)
    widths = [width for width, _ in sizes] + [0.0] * (plan.size - len(sizes))
    x = _across(plan, layers, widths)
    _straighten(plan, layers, widths, x)
    left = min((x[v] - widths[v] / 2 for v in range(plan.size)), default=0.0)
    x = [round(value - left, 1) for value in x]
    width = max((x[v] + widths[v] / 2 for v in range(plan.size)), default=0.0)

    bands: list[tuple[float, float]] = []
    below = 0.0
    for number, layer in enumerate(layers):
        tall = max((sizes[v][1] for v in layer if v < len(sizes)), default=0.0)
        if number:
            aside = max((abs(x[u] - x[v]) for v in layer for u in plan.above[v]), default=0.0)
            below += min(BETWEEN_LAYERS + aside * _STEEPNESS, _MOST_BETWEEN_LAYERS)
        bands.append((round(below, 1), round(below + tall, 1)))
        below += tall
    centres = [(x[v], round(sum(bands[plan.layer[v]]) / 2, 1)) for v in range(len(sizes))]
    routes = [_route(plan, number, x, bands, centres, sizes) for number in range(len(lines))]
    return Layout(width, bands[-1][1] if bands else 0.0, centres, routes)


class _Plan:
    """Boxes, and behind them the places that lines hold in the layers they pass, as numbered nodes."""

    def __init__(self, boxes: int, lines: Sequence[tuple[int, int]]) -> None:
        self.boxes = boxes
        self.lines = lines
        self.loops = _loops(boxes, lines)
        self.layer = _layers(boxes, [line for n, line in enumerate(lines) if n not in self.loops])
        self.above: list[list[int]] = [[] for _ in range(boxes)]
        self.below: list[list[int]] = [[] for _ in range(boxes)]
        self.beside: dict[int, int] = {}
        """A place that stays next to a box: where the lane of a loop begins or ends. Its box."""
        self.through: list[list[int]] = []
        """For each line, the places that it holds, from its source on."""
        lanes: dict[int, dict[int, None]] = {}
        shared: dict[tuple[bool, int, int], int] = {}
        for number, (source, target) in enumerate(lines):
            loop = number in self.loops
            first, last = self.layer[source], self.layer[target]
            # lines to the same box share their way: one trunk, and one lane for its loops
            levels = range(first - 1, last - 1, -1) if loop else range(first + 1, last)
            places = []
            for level in levels:
                key = (loop, target, level)
                if key not in shared:
                    shared[key] = self._place(level)
                places.append(shared[key])
            if loop:
                self.beside[places[-1]] = target
                places.insert(0, self._place(first))
                self.beside[places[0]] = source
                lanes.setdefault(target, {}).update(dict.fromkeys(places))
                way = places[::-1]
            else:
                way = [source, *places, target]
            for upper, lower in pairwise(way):
                if upper not in self.above[lower]:
                    self.above[lower].append(upper)
                    self.below[upper].append(lower)
            self.through.append(places)
        self.lanes = [list(lane) for lane in lanes.values()]
        """For each box that loops lead to, the places that they hold."""

    @property
    def size(self) -> int:
        return len(self.layer)

    def _place(self, level: int) -> int:
        self.layer.append(level)
        self.above.append([])
        self.below.append([])
        return len(self.layer) - 1


def _loops(boxes: int, lines: Sequence[tuple[int, int]]) -> set[int]:
    """The lines that lead back: to where a walk from the top, depth first, has come from."""
    leaving: list[list[tuple[int, int]]] = [[] for _ in range(boxes)]
    entered = [False] * boxes
    for number, (source, target) in enumerate(lines):
        leaving[source].append((number, target))
        entered[target] = True
    fresh, open_, done = 0, 1, 2
    state = [fresh] * boxes
    loops: set[int] = set()
    for root in [0, *(b for b in range(boxes) if not entered[b]), *range(boxes)] if boxes else []:
        if state[root] != fresh:
            continue
        state[root] = open_
        path = [(root, iter(leaving[root]))]
        while path:
            box, rest = path[-1]
            for number, target in rest:
                if state[target] == open_:
                    loops.add(number)
                elif state[target] == fresh:
                    state[target] = open_
                    path.append((target, iter(leaving[target])))
                    break
            else:
                state[box] = done
                path.pop()
    return loops


def _layers(boxes: int, lines: Sequence[tuple[int, int]]) -> list[int]:
    """Each box below all that lead to it; what nothing leads to from the first box, close to where it leads."""
    into = [0] * boxes
    leaving: list[list[int]] = [[] for _ in range(boxes)]
    for source, target in lines:
        into[target] += 1
        leaving[source].append(target)
    layer = [0] * boxes
    falls_from_top = [box == 0 for box in range(boxes)]
    sorted_: list[int] = [box for box in range(boxes) if not into[box]]
    for box in sorted_:
        for target in leaving[box]:
            layer[target] = max(layer[target], layer[box] + 1)
            falls_from_top[target] |= falls_from_top[box]
            into[target] -= 1
            if not into[target]:
                sorted_.append(target)
    for box in reversed(sorted_):
        if leaving[box] and (not falls_from_top[box] or box == 0):
            layer[box] = min(layer[target] for target in leaving[box]) - 1
    top = min(layer, default=0)
    return [level - top for level in layer]


def _ordered(plan: _Plan) -> list[list[int]]:
    """The nodes of each layer, from left to right."""
    found: list[tuple[int, int, _Order]] = []
    for number, right in enumerate((True, False)):
        order = _Order(plan, right=right)
        order.settle()
        for _ in range(_ROUNDS):
            if not (order.improve() | order.move_lanes()):
                break
        found.append((order.crossings(), number, order))
    return min(found)[-1].layers


class _Order:
    """An order within the layers, where the end of a loop's lane stays beside its box, on one side or the other."""

    def __init__(self, plan: _Plan, *, right: bool) -> None:
        self.plan = plan
        self.right = dict.fromkeys(plan.beside, right)
        self.heads: list[list[int]] = [[] for _ in range(max(plan.layer, default=-1) + 1)]
        lanes = {node for lane in plan.lanes for node in lane}
        walked = self._walked()
        walked.sort(key=lambda node: (node in lanes) == right)
        for node in walked:
            if node not in plan.beside:
                self.heads[plan.layer[node]].append(node)
        self.companions: dict[int, list[int]] = {}
        for node, box in plan.beside.items():
            self.companions.setdefault(box, []).append(node)
        self.layers: list[list[int]] = [[] for _ in self.heads]
        self.position = [0] * plan.size
        for level in range(len(self.heads)):
            self._settle(level)

    def _walked(self) -> list[int]:
        """All nodes, those that are connected close to each other."""
        seen: dict[int, None] = {}
        for root in range(self.plan.size):
            stack = [root]
            while stack:
                node = stack.pop()
                if node not in seen:
                    seen[node] = None
                    stack += reversed(self.plan.below[node])
        return list(seen)

    def _settle(self, level: int) -> None:
        self.layers[level] = [node for head in self.heads[level] for node in self._group(head)]
        for position, node in enumerate(self.layers[level]):
            self.position[node] = position

    def _group(self, head: int) -> list[int]:
        beside = self.companions.get(head, ())
        return [*(n for n in beside if not self.right[n]), head, *(n for n in beside if self.right[n])]

    def settle(self) -> None:
        """Sweep down and up, and keep the order with the fewest crossings."""
        best, fewest = self._copy(), self.crossings()
        for number in range(_SWEEPS if fewest else 0):
            self._sweep(down=number % 2 == 0)
            found = self.crossings()
            if found < fewest:
                best, fewest = self._copy(), found
        self._restore(best)

    def move_lanes(self) -> bool:
        """Take a whole lane to the far left or right where fewer lines cross then."""
        better = False
        for lane in self.plan.lanes:
            for right in (False, True):
                kept, crossings = self._copy(), self.crossings()
                for node in lane:
                    if node in self.right:
                        self.right[node] = right
                    else:
                        heads = self.heads[self.plan.layer[node]]
                        heads.remove(node)
                        heads.insert(len(heads) if right else 0, node)
                for level in {self.plan.layer[node] for node in lane}:
                    self._settle(level)
                if self.crossings() < crossings:
                    better = True
                else:
                    self._restore(kept)
        return better

    def _copy(self) -> tuple[list[list[int]], dict[int, bool]]:
        return [list(heads) for heads in self.heads], dict(self.right)

    def _restore(self, kept: tuple[list[list[int]], dict[int, bool]]) -> None:
        self.heads, self.right = kept
        for level in range(len(self.heads)):
            self._settle(level)

    def crossings(self) -> int:
        """How many pairs of lines cross."""
        total = 0
        for layer in self.layers:
            seen: list[int] = []
            for node in layer:
                ends = [self.position[n] for n in self.plan.below[node]]
                total += sum(len(seen) - bisect_right(seen, end) for end in ends)
                for end in ends:
                    insort(seen, end)
        return total

    def _sweep(self, *, down: bool) -> None:
        """Put each node of each layer where its neighbours in the layer before are, on average."""
        near = self.plan.above if down else self.plan.below
        for level in range(1, len(self.heads)) if down else range(len(self.heads) - 2, -1, -1):
            wanted: dict[int, float] = {}
            for head in self.heads[level]:
                ends = [self.position[n] for node in self._group(head) for n in near[node]]
                if ends:
                    wanted[head] = sum(ends) / len(ends)
                own = [self.position[n] for n in near[head]]
                for node in self.companions.get(head, ()):
                    if near[node] and own:
                        self.right[node] = self.position[near[node][0]] >= sum(own) / len(own)
            movable = iter(sorted((h for h in self.heads[level] if h in wanted), key=wanted.__getitem__))
            self.heads[level] = [next(movable) if head in wanted else head for head in self.heads[level]]
            self._settle(level)

    def improve(self) -> bool:
        """Exchange neighbours, and move lanes to the other side of their box, where fewer lines cross then."""
        better = False
        for level, heads in enumerate(self.heads):
            for index in range(len(heads) - 1):
                left, right = self._group(heads[index]), self._group(heads[index + 1])
                if self._crossed(right, left) < self._crossed(left, right):
                    heads[index], heads[index + 1] = heads[index + 1], heads[index]
                    self._settle(level)
                    better = True
            for head in heads:
                for node in self.companions.get(head, ()):
                    others = [n for n in self._group(head) if n != node]
                    as_it_is = self._crossed(others, [node]) - self._crossed([node], others)
                    if (as_it_is if self.right[node] else -as_it_is) > 0:
                        self.right[node] = not self.right[node]
                        self._settle(level)
                        better = True
        return better

    def _crossed(self, left: Iterable[int], right: Iterable[int]) -> int:
        """How many lines of the left nodes cross one of the right nodes."""
        total = 0
        for near in (self.plan.above, self.plan.below):
            ends = sorted(self.position[n] for node in right for n in near[node])
            for node in left:
                for n in near[node]:
                    total += bisect_right(ends, self.position[n] - 1)
        return total


def _across(plan: _Plan, layers: list[list[int]], widths: list[float]) -> list[float]:
    """Where each node is from left to right: the mean of four layouts, each drawn towards one corner."""
    apart: dict[tuple[int, int], float] = {}
    for layer in layers:
        for a, b in pairwise(layer):
            apart[a, b] = apart[b, a] = (widths[a] + widths[b]) / 2 + _gap(plan, a, b)
    blocked = _blocked(plan, layers)
    near = [_to_align(plan, plan.below, plan.above), _to_align(plan, plan.above, plan.below)]
    found: list[list[float]] = []
    for down in (True, False):
        for rightwards in (False, True):
            rows = layers if down else layers[::-1]
            rows = [row[::-1] for row in rows] if rightwards else rows
            x = _one_sided(rows, near[down], apart, blocked)
            found.append([-value for value in x] if rightwards else x)
    if not plan.size:
        return []
    spans = [
        (min(x[v] - widths[v] / 2 for v in range(plan.size)), max(x[v] + widths[v] / 2 for v in range(plan.size)))
        for x in found
    ]
    low, high = min(spans, key=lambda span: span[1] - span[0])
    for number, x in enumerate(found):
        shift = high - spans[number][1] if number % 2 else low - spans[number][0]
        found[number] = [value + shift for value in x]
    return [round(sum(sorted(values)[1:3]) / 2, 1) for values in zip(*found, strict=True)]


def _to_align(plan: _Plan, near: list[list[int]], back: list[list[int]]) -> list[list[int]]:
    """What each node may be in line with: a long line goes straight on, whatever joins or leaves it."""
    place = [node >= plan.boxes for node in range(plan.size)]
    return [
        [n for n in ends if place[n]] or ends
        if place[node]
        else [n for n in ends if not place[n] or not any(place[other] for other in back[n])]
        for node, ends in enumerate(near)
    ]


def _gap(plan: _Plan, a: int, b: int) -> float:
    if plan.beside.get(a) == b or plan.beside.get(b) == a:
        return BESIDE_BOX
    if a < plan.boxes and b < plan.boxes:
        return BETWEEN_BOXES
    return BESIDE_BOX if a < plan.boxes or b < plan.boxes else BETWEEN_LINES


def _blocked(plan: _Plan, layers: list[list[int]]) -> set[tuple[int, int]]:
    """The pieces of lines that must not be straight, because they cross a long line, which is to be."""
    blocked: set[tuple[int, int]] = set()
    for layer in layers[1:]:
        pieces = [(plan_position, u, v) for plan_position, v in enumerate(layer) for u in plan.above[v]]
        upper = {u: n for n, u in enumerate(layers[plan.layer[layer[0]] - 1])} if layer else {}
        long = [(upper[u], n) for n, u, v in pieces if u >= plan.boxes and v >= plan.boxes]
        for n, u, v in pieces:
            inner = u >= plan.boxes and v >= plan.boxes
            crossed = [(a, b) for a, b in long if (a - upper[u]) * (b - n) < 0]
            # of two long lines that cross, the one that is further left stays straight
            if any(not inner or a < upper[u] for a, _ in crossed):
                blocked |= {(u, v), (v, u)}
    return blocked


def _one_sided(
    rows: list[list[int]],
    near: list[list[int]],
    apart: dict[tuple[int, int], float],
    blocked: set[tuple[int, int]],
) -> list[float]:
    """Put nodes in line with the middle one of their neighbours in the row before, all as far left as can be."""
    size = sum(map(len, rows))
    position = [0] * size
    block = list(range(size))
    for row in rows:
        for n, node in enumerate(row):
            position[node] = n
        taken = -1
        for node in row:
            ends = sorted(near[node], key=position.__getitem__)
            for end in ends[(len(ends) - 1) // 2 : len(ends) // 2 + 1]:
                if block[node] == node and (end, node) not in blocked and position[end] > taken:
                    block[node] = block[end]
                    taken = position[end]
    after: list[dict[int, float]] = [{} for _ in range(size)]
    waiting = [0] * size
    for row in rows:
        for a, b in pairwise(row):
            if block[b] not in after[block[a]]:
                waiting[block[b]] += 1
            after[block[a]][block[b]] = max(after[block[a]].get(block[b], 0.0), apart[a, b])
    x = [0.0] * size
    sorted_ = [b for b in range(size) if block[b] == b and not waiting[b]]
    for b in sorted_:
        for other, distance in after[b].items():
            x[other] = max(x[other], x[b] + distance)
            waiting[other] -= 1
            if not waiting[other]:
                sorted_.append(other)
    for b in reversed(sorted_):
        if after[b]:
            x[b] = max(x[b], min(x[other] - distance for other, distance in after[b].items()))
    return [x[block[node]] for node in range(size)]


def _straighten(plan: _Plan, layers: list[list[int]], widths: list[float], x: list[float]) -> None:
    """Put nodes exactly in line that almost are, with all that is in line with them, where there is room."""
    beside: dict[int, list[tuple[int, float]]] = {node: [] for node in range(plan.size)}
    for layer in layers:
        for a, b in pairwise(layer):
            least = (widths[a] + widths[b]) / 2 + _gap(plan, a, b) / 2
            beside[a].append((b, least))
            beside[b].append((a, least))

    def in_line(node: int) -> set[int]:
        found, stack = {node}, [node]
        while stack:
            at = stack.pop()
            more = [n for n in (*plan.above[at], *plan.below[at]) if x[n] == x[node] and n not in found]
            found.update(more)
            stack += more
        return found

    def move(nodes: set[int], shift: float) -> bool:
        for node in nodes:
            for other, least in beside[node]:
                apart = x[other] - x[node]
                if other not in nodes and (abs(apart - shift) < least or (apart > 0) != (apart - shift > 0)):
                    return False
        for node in nodes:
            x[node] += shift
        return True

    for layer in layers:
        for node in layer:
            for other in plan.above[node]:
                shift = x[other] - x[node]
                if 0 < abs(shift) <= _ALMOST and not move(in_line(node), shift):
                    move(in_line(other), -shift)


def _route(  # noqa: PLR0913, PLR0917 because a route depends on all of it
    plan: _Plan,
    number: int,
    x: list[float],
    bands: list[tuple[float, float]],
    centres: list[Point],
    sizes: Sequence[tuple[float, float]],
) -> Route:
    source, target = plan.lines[number]
    places = plan.through[number]
    if number not in plan.loops:
        points = [(x[source], centres[source][1] + sizes[source][1] / 2), (x[source], bands[plan.layer[source]][1])]
        for place in places:
            points += [(x[place], edge) for edge in bands[plan.layer[place]]]
        points += [(x[target], bands[plan.layer[target]][0]), (x[target], centres[target][1] - sizes[target][1] / 2)]
        after = places[0] if places else target
        label = ((x[source] + x[after]) / 2, (bands[plan.layer[source]][1] + bands[plan.layer[after]][0]) / 2)
        return Route(tuple(p for n, p in enumerate(points) if n == 0 or p != points[n - 1]), loop=False, label=label)
    points = [_side(plan, source, places[0], x, centres, sizes), (x[places[0]], bands[plan.layer[source]][0])]
    for place in places[1:-1]:
        points += [(x[place], edge) for edge in reversed(bands[plan.layer[place]])]
    points += [(x[places[-1]], bands[plan.layer[target]][1]), _side(plan, target, places[-1], x, centres, sizes)]
    top, bottom = bands[plan.layer[source]][0], bands[plan.layer[source] - 1][1]
    return Route(tuple(points), loop=True, label=((x[places[0]] + x[places[1]]) / 2, (top + bottom) / 2))


def _side(  # noqa: PLR0913, PLR0917 because a side depends on all of it
    plan: _Plan, box: int, place: int, x: list[float], centres: list[Point], sizes: Sequence[tuple[float, float]]
) -> Point:
    """Where a loop touches a box; lower where it leaves, if another one arrives on the same side."""
    right = x[place] > x[box]
    same = [p for p, b in plan.beside.items() if b == box and (x[p] > x[box]) == right]
    width, height = sizes[box]
    offset = 0.0
    if len(same) > 1:
        arrives = bool(plan.above[place]) is False and bool(plan.below[place])
        offset = -height / 5 if arrives else height / 5
    return x[box] + (width / 2 if right else -width / 2), round(centres[box][1] + offset, 1)
