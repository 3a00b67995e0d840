"""Which lane of a map follows which, and the loop a kart drives: the one a person names, or the longest simple one."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np

from closed_loop.course.crossings import crossing
from closed_loop.course.lanes import SAME_PLACE_M, Lane
from closed_loop.course.osm import listed
from collector.common.errors import MonoError

MOST_STEPS = 300_000  # of the search, a second or so; a circuit needs some hundreds
LISTED_LOOPS = 5


@dataclass(frozen=True)
class Loop:
    """Lanes in driving order, whether the last leads to the first, and what a person should know of the choice."""

    lanes: list[Lane]
    closed: bool
    said: list[str]

    @property
    def length_m(self) -> float:
        """Mean length of the bounds."""
        return sum(lane.length_m for lane in self.lanes)


def followers(lanes: Sequence[Lane]) -> list[list[int]]:
    """For each lane the lanes it leads to."""
    size = 2.0 * SAME_PLACE_M
    starts: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, lane in enumerate(lanes):
        starts[_cell(lane.left[0], size)].append(number)
    found: list[list[int]] = []
    for lane in lanes:
        x, y = _cell(lane.left[-1], size)
        near = (number for dx, dy in product((-1, 0, 1), repeat=2) for number in starts.get((x + dx, y + dy), ()))
        found.append(sorted(number for number in near if lane.leads_to(lanes[number])))
    return found


def _cell(point: np.ndarray, size: float) -> tuple[int, int]:
    return int(np.floor(point[0] / size)), int(np.floor(point[1] / size))


def main_loop(lanes: Sequence[Lane]) -> Loop:
    """The longest closed row of lanes that does not cross itself; where none closes, the longest open row.

    A loop that crosses itself is taken only where every loop does. The search is bounded, and says so.
    """
    after = followers(lanes)
    search = _Search(lanes, _on_loops(after), _clashes(lanes))
    longest = search.longest()
    said: list[str] = []
    if not longest and any(search.after):
        search = _Search(lanes, search.after, [0] * len(lanes))
        longest = search.longest()
    if not longest and not search.cut_short:
        row = _longest_row(lanes, after)
        others = len(lanes) - len(row)
        said.append(
            f"no lanes make a loop; the longest row of them is taken{f', {others} others are not' if others else ''}"
        )
        return Loop([lanes[number] for number in row], False, said)
    if not longest:
        found = f"a map of {len(lanes)} lanes with so many ways that no loop was found in {MOST_STEPS:,} steps"
        raise MonoError(found, "a circuit, or lanes that are named", "name some lanes of the loop, in driving order")
    shorter = sorted(search.lengths_m, reverse=True)[1:]
    if shorter:
        lengths = ", ".join(f"{length_m:.0f}" for length_m in shorter[:LISTED_LOOPS])
        lengths += ", ..." if len(shorter) > LISTED_LOOPS else ""
        more = "at least " if search.cut_short else ""
        said.append(f"{more}{len(shorter)} other loops close too, of {lengths} m")
    if search.cut_short:
        said.append("the map has so many ways that not all loops were looked at")
    return Loop([lanes[number] for number in longest], True, said)


def named_loop(lanes: Sequence[Lane], names: Sequence[str]) -> Loop:
    """The shortest loop through the named lanes in this order, or the row from the first to the last where none closes.

    Raises:
        MonoError: no lane of a name, or no way from one to the next.
    """
    numbers = {lane.name: number for number, lane in enumerate(lanes)}
    for name in names:
        if name not in numbers:
            do = f"name some of {listed([lane.name for lane in lanes])}"
            raise MonoError(f"the map has no usable lane {name!r}", "names of its lanelets", do)
    wanted = [numbers[name] for name in names]
    if len(set(wanted)) < len(wanted):
        raise MonoError(f"a lane named twice in {'+'.join(names)}", "each lane once", "remove one")
    after = followers(lanes)
    row = [wanted[0]]
    for start, goal in pairwise(wanted):
        way = _shortest(lanes, after, start, goal, {*row, *wanted})
        if way is None:
            found = f"no way from lane {lanes[start].name} to lane {lanes[goal].name}"
            raise MonoError(found, "lanes in driving order", "name them in another order, or others")
        row += way
    back = _shortest(lanes, after, row[-1], row[0], {*row})
    said = [] if back is not None else [f"no way back from lane {lanes[row[-1]].name} to lane {lanes[row[0]].name}"]
    return Loop([lanes[number] for number in row + (back or [row[0]])[:-1]], back is not None, said)


def _shortest(
    lanes: Sequence[Lane], after: list[list[int]], start: int, goal: int, avoided: set[int]
) -> list[int] | None:
    """The lanes behind ``start`` up to and with ``goal`` on the shortest way (Dijkstra), None where there is none."""
    queue: list[tuple[float, list[int]]] = [(0.0, [start])]
    done: set[int] = set()
    while queue:
        length_m, row = heapq.heappop(queue)
        for number in after[row[-1]]:
            if number == goal:
                return [*row[1:], goal]
            if number not in done and number not in avoided:
                done.add(number)
                heapq.heappush(queue, (length_m + lanes[number].length_m, [*row, number]))
    return None


def _on_loops(after: list[list[int]]) -> list[list[int]]:
    """The followers among lanes that can be on a loop: those that lead on and are led to, all dead ends taken off."""
    kept = [list(numbers) for numbers in after]
    before: list[set[int]] = [set() for _ in after]
    for number, numbers in enumerate(kept):
        for other in numbers:
            before[other].add(number)
    dead = [number for number in range(len(after)) if not kept[number] or not before[number]]
    gone = set(dead)
    while dead:
        number = dead.pop()
        for other in before[number]:
            kept[other] = [each for each in kept[other] if each != number]
        for other in kept[number]:
            before[other].discard(number)
        touched = {*before[number], *kept[number]}
        kept[number], before[number] = [], set()
        for other in touched - gone:
            if not kept[other] or not before[other]:
                gone.add(other)
                dead.append(other)
    return kept


def _clashes(lanes: Sequence[Lane]) -> list[int]:
    """For each lane a mask of the lanes it shares no simple loop with: their middles cross, start or end together."""
    middles = [lane.middle(8) for lane in lanes]
    low = np.array([middle.min(axis=0) for middle in middles])
    high = np.array([middle.max(axis=0) for middle in middles])
    clash = [0] * len(lanes)
    for i, middle in enumerate(middles):
        near = np.flatnonzero((low[i + 1 :] <= high[i]).all(axis=1) & (high[i + 1 :] >= low[i]).all(axis=1)) + i + 1
        for j in near.tolist():
            ends = ((middle[0], middles[j][0]), (middle[-1], middles[j][-1]))
            same = any(np.linalg.norm(a - b) < SAME_PLACE_M for a, b in ends)
            joint = np.linalg.norm(middle[-1] - middles[j][0]), np.linalg.norm(middles[j][-1] - middle[0])
            if same or (min(joint) >= SAME_PLACE_M and crossing(middle, middles[j]) is not None):
                clash[i] |= 1 << j
                clash[j] |= 1 << i
    return clash


class _Search:
    """A walk through the simple loops of a graph, each from its lane of lowest number on."""

    def __init__(self, lanes: Sequence[Lane], after: list[list[int]], clashes: list[int]) -> None:
        self.after, self.cut_short = after, False
        self.lengths_m: list[float] = []  # of every loop found
        self._clashes, self._lane_m = clashes, [lane.length_m for lane in lanes]

    def longest(self) -> list[int]:
        """The lanes of the longest loop, none where there is none."""
        starts = [number for number, numbers in enumerate(self.after) if numbers]
        best: tuple[float, list[int]] = (0.0, [])
        for first in starts:
            for length_m, row in self._loops_from(first, MOST_STEPS // len(starts)):
                self.lengths_m.append(length_m)
                if length_m > best[0] + 1e-6:
                    best = length_m, row
        return best[1]

    def _loops_from(self, first: int, budget: int) -> Iterator[tuple[float, list[int]]]:
        stack = [([first], self._lane_m[first], self._clashes[first] | ((2 << first) - 1))]
        while stack:
            budget -= 1
            if budget < 0:
                self.cut_short = True
                return
            row, length_m, barred = stack.pop()
            for number in self.after[row[-1]]:
                if number == first:
                    yield length_m, row
                elif not barred >> number & 1:
                    barred_then = barred | self._clashes[number] | 1 << number
                    stack.append(([*row, number], length_m + self._lane_m[number], barred_then))


def _longest_row(lanes: Sequence[Lane], after: list[list[int]]) -> list[int]:
    """The longest row of lanes in a graph without loops."""
    waiting = [0] * len(lanes)
    for numbers in after:
        for number in numbers:
            waiting[number] += 1
    best_m, came_from = [lane.length_m for lane in lanes], [-1] * len(lanes)
    ready = [number for number, count in enumerate(waiting) if not count]
    while ready:
        number = ready.pop()
        for other in after[number]:
            if best_m[number] + lanes[other].length_m > best_m[other]:
                best_m[other], came_from[other] = best_m[number] + lanes[other].length_m, number
            waiting[other] -= 1
            if not waiting[other]:
                ready.append(other)
    row = [int(np.argmax(best_m))]
    while came_from[row[-1]] >= 0:
        row.append(came_from[row[-1]])
    return row[::-1]
