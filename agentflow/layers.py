"""Boxes in layers, from top to bottom, and the order within each layer: the first half of a layout.

The usual way (after Sugiyama): lines that close a loop are set aside, every box gets a layer below all
that lead to it, and the order is chosen so that few lines cross. A line that passes layers holds a
place in each of them. Lines to one box share their places, so they meet in one trunk; loops back to
it share lanes, which begin and end beside the boxes.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_SWEEPS = 16
_ROUNDS = 8
_MANY = 500_000
"""Where nodes times lanes are more, nobody can follow the lines, and lanes stay where they are."""


class Grid:
    """Boxes, and behind them the places that lines hold, as numbered nodes, each in its layer."""

    def __init__(self, boxes: int, lines: Sequence[tuple[int, int]]) -> None:
        self.boxes = boxes
        self.lines = lines
        self.loops = _loops(boxes, lines)
        """The lines that lead upwards."""
        self.layer = _layers(boxes, [line for n, line in enumerate(lines) if n not in self.loops])
        self.above: list[list[int]] = [[] for _ in range(boxes)]
        self.below: list[list[int]] = [[] for _ in range(boxes)]
        """For each node, those that lines lead to in the next layer."""
        self.beside: dict[int, int] = {}
        """A place that stays next to a box, where the lane of a loop begins or ends: its box."""
        self.through: list[list[int]] = []
        """For each line, the places that it holds, from its source on."""
        lanes: dict[tuple[int, int], dict[int, None]] = {}
        shared: dict[tuple[int, int, int], int] = {}
        lane_of = self._lanes_of()
        for number, (source, target) in enumerate(lines):
            loop = number in self.loops
            first, last = self.layer[source], self.layer[target]
            places: list[int] = []
            for level in range(first - 1, last - 1, -1) if loop else range(first + 1, last):
                key = (lane_of.get(number, -1), target, level)
                if key not in shared:
                    shared[key] = self._place(level)
                places.append(shared[key])
            if loop:
                self.beside[places[-1]] = target
                places.insert(0, self._place(first))
                self.beside[places[0]] = source
                lanes.setdefault((target, lane_of[number]), {}).update(dict.fromkeys(places))
                self._join(places[::-1])
            else:
                self._join([source, *places, target])
            self.through.append(places)
        self.lanes = [list(lane) for lane in lanes.values()]
        """The places that loops to the same box hold together."""
        self.second = {place for (_, lane), places in lanes.items() if lane for place in places}
        """The places of lanes that are a box's second."""
        self.rows = _ordered(self)
        """The nodes of each layer, from left to right."""

    @property
    def size(self) -> int:
        """How many nodes there are."""
        return len(self.layer)

    def _lanes_of(self) -> dict[int, int]:
        """For each loop, which of two lanes to its box it takes: what begins side by side can go up on both sides."""
        begun: dict[tuple[int, int], list[int]] = {}
        for number in sorted(self.loops):
            source, target = self.lines[number]
            begun.setdefault((target, self.layer[source]), []).append(number)
        return {
            number: int(2 * n >= len(numbers) > 1) for numbers in begun.values() for n, number in enumerate(numbers)
        }

    def _place(self, level: int) -> int:
        self.layer.append(level)
        self.above.append([])
        self.below.append([])
        return len(self.layer) - 1

    def _join(self, way: list[int]) -> None:
        for upper, lower in pairwise(way):
            if upper not in self.above[lower]:
                self.above[lower].append(upper)
                self.below[upper].append(lower)


def _loops(boxes: int, lines: Sequence[tuple[int, int]]) -> set[int]:
    """The lines that lead back: to where a walk from the first box, depth first, has come from."""
    leaving: list[list[tuple[int, int]]] = [[] for _ in range(boxes)]
    entered = [False] * boxes
    for number, (source, target) in enumerate(lines):
        leaving[source].append((number, target))
        entered[target] = True
    fresh, begun, done = 0, 1, 2
    state = [fresh] * boxes
    loops: set[int] = set()
    for root in sorted(range(boxes), key=lambda box: (box > 0, entered[box])):
        if state[root] != fresh:
            continue
        state[root] = begun
        path = [(root, iter(leaving[root]))]
        while path:
            box, rest = path[-1]
            for number, target in rest:
                if state[target] == begun:
                    loops.add(number)
                elif state[target] == fresh:
                    state[target] = begun
                    path.append((target, iter(leaving[target])))
                    break
            else:
                state[box] = done
                path.pop()
    return loops


def _layers(boxes: int, lines: Sequence[tuple[int, int]]) -> list[int]:
    """Each box below all that lead to it; what the first box does not lead to, close to where it leads itself."""
    into = [0] * boxes
    leaving: list[list[int]] = [[] for _ in range(boxes)]
    for source, target in lines:
        into[target] += 1
        leaving[source].append(target)
    layer = [0] * boxes
    hangs = [False] * boxes
    """Does the first box lead to it?"""
    downwards = [box for box in range(boxes) if not into[box]]
    for box in downwards:
        for target in leaving[box]:
            layer[target] = max(layer[target], layer[box] + 1)
            hangs[target] |= hangs[box] or box == 0
            into[target] -= 1
            if not into[target]:
                downwards.append(target)
    for box in reversed(downwards):
        if leaving[box] and not hangs[box]:
            layer[box] = min(layer[target] for target in leaving[box]) - 1
    top = min(layer, default=0)
    return [level - top for level in layer]


def _ordered(grid: Grid) -> list[list[int]]:
    found: list[_Order] = []
    for right in (True, False):
        order = _Order(grid, right=right)
        order.sweep()
        for _ in range(_ROUNDS):
            moved = grid.size * len(grid.lanes) <= _MANY and order.move_lanes()
            if not (order.exchange() or moved):
                break
        found.append(order)
    return min(found, key=_Order.crossings).rows


class _Order:
    """An order within the layers; the end of a loop's lane stays beside its box, on one side or the other."""

    def __init__(self, grid: Grid, *, right: bool) -> None:
        self.grid = grid
        self.right = {place: right != (place in grid.second) for place in grid.beside}
        self.heads: list[list[int]] = [[] for _ in range(max(grid.layer, default=-1) + 1)]
        """Each row without what is beside a box."""
        sides = {place: 1 if right != (place in grid.second) else -1 for lane in grid.lanes for place in lane}
        for node in sorted(self._walked(), key=lambda node: sides.get(node, 0)):
            if node not in grid.beside:
                self.heads[grid.layer[node]].append(node)
        self.companions: dict[int, list[int]] = {}
        for node, box in grid.beside.items():
            self.companions.setdefault(box, []).append(node)
        self.rows: list[list[int]] = [[] for _ in self.heads]
        self.position = [0] * grid.size
        self._settle(range(len(self.heads)))

    def _walked(self) -> list[int]:
        """All nodes, those that are connected close to each other."""
        seen: dict[int, None] = {}
        for root in range(self.grid.size):
            stack = [root]
            while stack:
                node = stack.pop()
                if node not in seen:
                    seen[node] = None
                    stack += reversed(self.grid.below[node])
        return list(seen)

    def _settle(self, levels: Iterable[int]) -> None:
        """Work out rows and positions from heads and sides."""
        for level in levels:
            self.rows[level] = [node for head in self.heads[level] for node in self._group(head)]
            for position, node in enumerate(self.rows[level]):
                self.position[node] = position

    def _group(self, head: int) -> list[int]:
        beside = self.companions.get(head, ())
        return [*(n for n in beside if not self.right[n]), head, *(n for n in beside if self.right[n])]

    def _copy(self, levels: Iterable[int]) -> tuple[dict[int, list[int]], dict[int, bool]]:
        return {level: list(self.heads[level]) for level in levels}, dict(self.right)

    def _restore(self, kept: tuple[dict[int, list[int]], dict[int, bool]]) -> None:
        heads, self.right = kept
        for level, order in heads.items():
            self.heads[level] = order
        self._settle(heads)

    def crossings(self, levels: Iterable[int] | None = None) -> int:
        """How many pairs of lines cross below these layers, or below any."""
        total = 0
        for level in range(len(self.rows)) if levels is None else levels:
            seen: list[int] = []
            for node in self.rows[level]:
                ends = [self.position[n] for n in self.grid.below[node]]
                total += sum(len(seen) - bisect_right(seen, end) for end in ends)
                for end in ends:
                    insort(seen, end)
        return total

    def sweep(self) -> None:
        """Go down and up, and keep the order with the fewest crossings."""
        everywhere = range(len(self.heads))
        best, fewest = self._copy(everywhere), self.crossings()
        for number in range(_SWEEPS if fewest else 0):
            down = number % 2 == 0
            for level in everywhere[1:] if down else everywhere[-2::-1]:
                self._follow(level, self.grid.above if down else self.grid.below)
            found = self.crossings()
            if found < fewest:
                best, fewest = self._copy(everywhere), found
        self._restore(best)

    def _follow(self, level: int, near: list[list[int]]) -> None:
        """Put each node of a layer where its neighbours in the layer before are, on average."""
        wanted: dict[int, float] = {}
        for head in self.heads[level]:
            ends = [self.position[n] for node in self._group(head) for n in near[node]]
            if ends:
                wanted[head] = sum(ends) / len(ends)
            own = [self.position[n] for n in near[head]]
            for node in self.companions.get(head, ()):
                if near[node] and own:
                    self.right[node] = self.position[near[node][0]] >= sum(own) / len(own)
        movable = iter(sorted(wanted, key=wanted.__getitem__))
        self.heads[level] = [next(movable) if head in wanted else head for head in self.heads[level]]
        self._settle([level])

    def move_lanes(self) -> bool:
        """Take a whole lane to the far left or right where fewer lines cross then. Did that help?"""
        better = False
        for lane in self.grid.lanes:
            levels = {self.grid.layer[node] for node in lane}
            around = range(max(min(levels) - 1, 0), max(levels) + 1)
            for right in (False, True):
                kept, crossings = self._copy(levels), self.crossings(around)
                for node in lane:
                    if node in self.right:
                        self.right[node] = right
                    else:
                        heads = self.heads[self.grid.layer[node]]
                        heads.remove(node)
                        heads.insert(len(heads) if right else 0, node)
                self._settle(levels)
                if self.crossings(around) < crossings:
                    better = True
                else:
                    self._restore(kept)
        return better

    def exchange(self) -> bool:
        """Exchange neighbours, and let lanes end on the other side of a box, where fewer lines cross then."""
        better = False
        for level, heads in enumerate(self.heads):
            for index in range(len(heads) - 1):
                left, right = self._group(heads[index]), self._group(heads[index + 1])
                if self._crossed(right, left) < self._crossed(left, right):
                    heads[index], heads[index + 1] = heads[index + 1], heads[index]
                    self._settle([level])
                    better = True
            for head in heads:
                for node in self.companions.get(head, ()):
                    others = [n for n in self._group(head) if n != node]
                    to_the_right = self._crossed(others, [node]) - self._crossed([node], others)
                    if (to_the_right if self.right[node] else -to_the_right) > 0:
                        self.right[node] = not self.right[node]
                        self._settle([level])
                        better = True
        return better

    def _crossed(self, left: Iterable[int], right: Iterable[int]) -> int:
        """How many lines of the left nodes cross one of the right nodes."""
        total = 0
        for near in (self.grid.above, self.grid.below):
            ends = sorted(self.position[n] for node in right for n in near[node])
            total += sum(bisect_right(ends, self.position[n] - 1) for node in left for n in near[node])
        return total
