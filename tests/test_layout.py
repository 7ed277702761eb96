"""Where boxes go and how lines run: whatever the graph, nothing overlaps and nothing is crossed out."""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from agentflow.layout import Layout, Route, lay_out

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Sizes = list[tuple[float, float]]
Lines = list[tuple[int, int]]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Sizes, Lines]:
    """Boxes of all sizes, with lines between any two of them."""
    boxes = draw(st.integers(1, 14))
    sizes = draw(st.lists(st.tuples(st.integers(20, 240), st.integers(16, 120)), min_size=boxes, max_size=boxes))
    box = st.integers(0, boxes - 1)
    lines = draw(st.lists(st.tuples(box, box).filter(lambda line: line[0] != line[1]), max_size=24))
    return [(float(width), float(height)) for width, height in sizes], lines


def edges_of(layout: Layout, sizes: Sizes, box: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a box."""
    (x, y), (width, height) = layout.centres[box], sizes[box]
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def walked(route: Route) -> Iterator[tuple[float, float]]:
    """Points along a route, close to each other."""
    last = len(route.points) - 2
    for number, ((x, y), (to_x, to_y)) in enumerate(pairwise(route.points)):
        corner = {0: (to_x, y), last: (x, to_y)}.get(number) if route.loop else None
        for step in range(33):
            t = step / 32
            if corner is not None:  # level to the corner, then upright, or the other way round
                start, end = ((x, y), corner) if t < 0.5 else (corner, (to_x, to_y))
                part = t * 2 % 1
                yield start[0] + (end[0] - start[0]) * part, start[1] + (end[1] - start[1]) * part
            else:
                bend = 3 * t**2 - 2 * t**3
                middle = 1.5 * t * (1 - t) ** 2 + 1.5 * t**2 * (1 - t) + t**3
                yield x + (to_x - x) * bend, y + (to_y - y) * middle


def lay_out_chain(count: int, more: Sequence[tuple[int, int]] = ()) -> Layout:
    """Boxes of one size, one below the other."""
    return lay_out([(100.0, 40.0)] * count, [*pairwise(range(count)), *more])


@given(graphs())
def test_boxes_do_not_overlap(graph: tuple[Sizes, Lines]) -> None:
    """Any two are apart, from side to side or from top to bottom."""
    sizes, lines = graph
    layout = lay_out(sizes, lines)
    for a, b in combinations(range(len(sizes)), 2):
        left, top, right, bottom = edges_of(layout, sizes, a)
        other_left, other_top, other_right, other_bottom = edges_of(layout, sizes, b)
        assert right < other_left or other_right < left or bottom < other_top or other_bottom < top


@given(graphs())
def test_layout_is_as_large_as_what_is_in_it(graph: tuple[Sizes, Lines]) -> None:
    """Every box and every point of a line is inside of it."""
    sizes, lines = graph
    layout = lay_out(sizes, lines)
    for box in range(len(sizes)):
        left, top, right, bottom = edges_of(layout, sizes, box)
        assert left >= -0.1
        assert right <= layout.width + 0.1
        assert top >= -0.1
        assert bottom <= layout.height + 0.1
    for route in layout.routes:
        assert all(-0.1 <= x <= layout.width + 0.1 and -0.1 <= y <= layout.height + 0.1 for x, y in route.points)


@given(graphs())
def test_line_touches_no_box_but_its_own(graph: tuple[Sizes, Lines]) -> None:
    """No line goes through a box, its own ones included."""
    sizes, lines = graph
    layout = lay_out(sizes, lines)
    for route in layout.routes:
        for x, y in walked(route):
            for box in range(len(sizes)):
                left, top, right, bottom = edges_of(layout, sizes, box)
                assert not (left + 0.2 < x < right - 0.2 and top + 0.2 < y < bottom - 0.2)


@given(graphs())
def test_line_leads_from_its_source_to_its_target(graph: tuple[Sizes, Lines]) -> None:
    """It goes down from bottom to top, or, as a loop, up from side to side."""
    sizes, lines = graph
    layout = lay_out(sizes, lines)
    for (source, target), route in zip(lines, layout.routes, strict=True):
        left, top, right, bottom = edges_of(layout, sizes, source)
        to_left, to_top, to_right, to_bottom = edges_of(layout, sizes, target)
        (x, y), (to_x, to_y) = route.points[0], route.points[-1]
        if route.loop:
            assert min(abs(x - left), abs(x - right)) < 0.1
            assert min(abs(to_x - to_left), abs(to_x - to_right)) < 0.1
            assert top < y < bottom
            assert to_top < to_y < to_bottom
            assert to_bottom < top
        else:
            assert abs(x - (left + right) / 2) + abs(y - bottom) < 0.2
            assert abs(to_x - (to_left + to_right) / 2) + abs(to_y - to_top) < 0.2
            assert all(a[1] < b[1] for a, b in pairwise(route.points))


@given(graphs())
def test_label_of_a_line_lies_on_it_and_on_no_box(graph: tuple[Sizes, Lines]) -> None:
    """It is in the free space between two layers."""
    sizes, lines = graph
    layout = lay_out(sizes, lines)
    for route in layout.routes:
        x, y = route.label
        assert min(abs(x - at_x) + abs(y - at_y) for at_x, at_y in walked(route)) < 12
        for box in range(len(sizes)):
            left, top, right, bottom = edges_of(layout, sizes, box)
            assert not (left < x < right and top < y < bottom)


@given(graphs())
def test_same_graph_gives_the_same_layout(graph: tuple[Sizes, Lines]) -> None:
    """Nothing in it depends on chance."""
    assert lay_out(*graph) == lay_out(*graph)


def test_nothing_takes_no_room() -> None:
    """No box is no special case."""
    assert lay_out([], []) == Layout(0.0, 0.0, [], [])


def test_chain_is_one_straight_line() -> None:
    """Boxes with one neighbour each are exactly in line."""
    layout = lay_out_chain(5)
    assert {x for x, _ in layout.centres} == {50.0}
    assert all({x for x, _ in route.points} == {50.0} for route in layout.routes)


def test_branches_stand_symmetrically_below_what_they_come_from() -> None:
    """Both sides of a diamond are equally far from the line through its ends."""
    layout = lay_out([(100.0, 40.0)] * 4, [(0, 1), (0, 2), (1, 3), (2, 3)])
    (top, _), (left, _), (right, _), (bottom, _) = layout.centres
    assert top == bottom == (left + right) / 2
    assert left < right


def test_loop_is_drawn_as_a_lane_beside_the_boxes() -> None:
    """The line that leads back is told apart; it runs upright past everything."""
    layout = lay_out_chain(4, [(3, 0)])
    back = layout.routes[-1]
    assert [route.loop for route in layout.routes] == [False, False, False, True]
    lane = {x for x, _ in back.points[1:-1]}
    assert len(lane) == 1
    assert not 0 <= lane.pop() <= 100


def test_loop_stays_on_the_side_of_the_branch_that_it_comes_from() -> None:
    """A loop from the left branch goes up on the left, one from the right branch on the right: nothing crosses."""
    chains = [(0, 1), (1, 2), (2, 3), (1, 4), (4, 5), (1, 6), (6, 7)]
    layout = lay_out([(100.0, 40.0)] * 8, [*chains, (3, 1), (7, 1)])
    left, right = layout.routes[-2:]
    assert left.loop
    assert right.loop
    middle = layout.centres[1][0]
    sides = {route.points[1][0] > middle for route in (left, right)}
    assert sides == {True, False}
    assert (layout.centres[3][0] > middle) == (left.points[1][0] > middle)


def test_lines_to_one_box_from_far_above_meet_in_one_trunk() -> None:
    """They pass the layers in between together, straight."""
    layout = lay_out_chain(6, [(0, 5), (1, 5), (2, 5)])
    ways = [{x for x, _ in route.points[-5:-2]} for route in layout.routes[-3:]]
    assert ways[0] == ways[1] == ways[2]
    assert len(ways[0]) == 1


def test_loops_back_to_one_box_share_a_lane() -> None:
    """They arrive at the same point, by the same way."""
    layout = lay_out_chain(6, [(3, 1), (5, 1)])
    assert len({route.points[-4:] for route in layout.routes[-2:]}) == 1


def test_what_leads_into_the_middle_stands_just_above_it() -> None:
    """A second beginning is not put at the top, far from what it leads to."""
    layout = lay_out([(100.0, 40.0)] * 6, [*pairwise(range(5)), (5, 4)])
    assert layout.centres[5][1] == layout.centres[3][1]


def test_thousands_of_boxes_are_laid_out() -> None:
    """No part of it is recursive, or looks at every pair."""
    loops = [(n + 5, n) for n in range(0, 2_000 - 5, 7)]
    layout = lay_out_chain(2_000, loops)
    assert sum(route.loop for route in layout.routes) == len(loops)
