"""Instructions to a driving kart: what it is told in a drive, and whether text, plan and lap do it.

Each is held against the same kart's usual drives on the same course: its usual place and speed at every station.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from closed_loop.comparison.deviation import Deviation, summarise
from closed_loop.comparison.rollout import Rollout, RolloutConfig
from closed_loop.control.driver import PlacedPlan
from closed_loop.course.course import Course
from closed_loop.pairs.branching import stations_ahead
from collector.common.tables import Table, number, percent
from collector.geometry.constants import NS_PER_S
from collector.geometry.poses import FloatArray, to_ego
from collector.geometry.road import LocalRoad
from collector.reasoning.consistency import check_claim, measure_motion, parse_claim
from collector.reasoning.instructions import Instruction, read_instruction
from collector.reasoning.places import DEFAULT_MANNER_THRESHOLDS

ALL = "all"  # on the command line: every one of SCRIPT
# The last six ask for a way: wherever the road does not go it, it must not be driven.
SCRIPT = (
    *("keep left", "slower", "keep right", "faster", "stay in the middle", "slow down", "keep to the left edge"),
    *("speed up", "keep to the right edge", "left slow", "right brisk", "hug the right kerb", "go slower please"),
    *("left fast", "right slow", "drive briskly", "stay on the left side", "take it slowly on the right"),
    *("turn left", "turn right", "straight on", "turn right", "turn left", "straight on"),
)
DEFINITIONS = (
    "Instructions: each is said for a while to a driving kart and then taken back. Obeyed: for a whole second in the "
    f"mean, left or right of its usual place there by at least {DEFAULT_MANNER_THRESHOLDS.side_m:g} m (middle: by "
    f"less), at most {DEFAULT_MANNER_THRESHOLDS.slow_share:.0%} or at least "
    f"{DEFAULT_MANNER_THRESHOLDS.brisk_share:.0%} of its usual speed there; both where both are asked; "
    "never where the kart left the road or was put back on it. Usual is the "
    "median of its drives without instructions. Time: until that second begins. Reached: means over the second half. "
    "Text, plan: shares of the plans made meanwhile that claim, and that do, what was asked. A way to go that the road "
    "may not have is not obeyed but survived: how far it drew the kart from its usual place."
)
# Standing starts are over by then: of usual driving, and before the first instruction.
_BEGIN_S = 6.0
_GRID_M = 1.0
_ENDLESS = 1000.0  # laps that no script lasts


def script_words(instructions: tuple[str, ...]) -> tuple[str, ...]:
    """Every instruction that is meant on a command line; "all" stands for the whole list, wherever it is said."""
    return tuple(word for each in instructions for word in (SCRIPT if each == ALL else (each,)))


@dataclass(frozen=True)
class Script:
    """What a kart is told, dealt out to several starts in turn."""

    instructions: tuple[str, ...]
    hold_s: float  # each holds so long
    pause_s: float  # and then nothing is asked for so long

    def part(self, start: int, starts: int) -> tuple[tuple[float, str], ...]:
        """What the drive from one of the starts is told and when, in simulated seconds; "" takes back."""
        mine, told = self.instructions[start::starts], list[tuple[float, str]]()
        for index, text in enumerate(mine):
            at_s = _BEGIN_S + index * (self.hold_s + self.pause_s)
            told += [(at_s, text), (at_s + self.hold_s, "")]
        return tuple(told)

    def duration_s(self, starts: int) -> float:
        """Of the longest of the drives."""
        return _BEGIN_S + -(-len(self.instructions) // starts) * (self.hold_s + self.pause_s)

    def drive(self, usual: RolloutConfig, start: int, starts: int) -> RolloutConfig:
        """The drive from one of the starts, told its part, for as long as the script takes."""
        return replace(usual, instructions=self.part(start, starts), laps=_ENDLESS, max_time_s=self.duration_s(starts))


@dataclass(frozen=True, eq=False)
class Usual:
    """Where a kart usually drives along a course, and how fast: (N,) at every metre."""

    road: Course
    lateral_m: FloatArray
    speed_mps: FloatArray

    @classmethod
    def of(cls, drives: Sequence[tuple[Rollout, Deviation]], road: Course) -> Usual:
        """As :meth:`of_tables`, of drives as they come from the simulator."""
        names = ("t_s", "speed_mps", "lateral_m")
        return cls.of_tables(
            [
                {"station_m": deviation.station_m, **{name: getattr(rollout, name) for name in names}}
                for rollout, deviation in drives
            ],
            road,
        )

    @classmethod
    def of_tables(cls, drives: Sequence[Mapping[str, NDArray[Any]]], road: Course) -> Usual:
        """The median of drives; a place that none of them came by has its neighbours' values.

        Each has ``t_s``, ``speed_mps``, ``station_m`` and ``lateral_m``, all (T,).
        """
        count = int(np.ceil(road.length_m / _GRID_M))
        found: list[list[tuple[float, float]]] = [[] for _ in range(count)]
        for drive in drives:
            columns = (drive[name] for name in ("t_s", "speed_mps", "station_m", "lateral_m"))
            for t_s, speed, station, lateral in zip(*columns, strict=True):
                if t_s >= _BEGIN_S:
                    found[min(int(station / _GRID_M), count - 1)].append((lateral, speed))
        known = np.array([bool(each) for each in found])
        medians = np.array([np.median(each, axis=0) for each in found if each]).reshape(-1, 2)
        if not len(medians):
            medians, known = np.array([[0.0, 1.0]]), np.arange(count) == 0
        places, period = np.arange(count, dtype=np.float64), float(count) if road.closed else None
        lateral, speed = (np.interp(places, places[known], each, period=period) for each in medians.T)
        return cls(road, lateral, np.maximum(speed, 0.1))

    def at(self, station_m: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Usual place, metres left of the line, and usual speed at stations."""
        cells = np.clip((self.road.wrap_s(station_m) / _GRID_M).astype(np.int64), 0, len(self.lateral_m) - 1)
        return self.lateral_m[cells], self.speed_mps[cells]

    def ahead(self, placed: PlacedPlan) -> LocalRoad:
        """The usual line before a plan, as what asks for places on the road takes it; its edges are not told."""
        stations = stations_ahead(self.road, float(self.road.project(placed.pose_map[:2]).s_m))
        lateral, speed = self.at(stations)
        line = to_ego(self.road.pose_at(stations, lateral), placed.pose_map)[:, :2]
        return LocalRoad(line, np.zeros(len(line)), np.zeros(len(line)), speed)


def judge(
    text: str, at_s: float, hold_s: float, rollout: Rollout, deviation: Deviation, usual: Usual
) -> dict[str, Any] | None:
    """What came of one instruction; None where the drive ended before it was over.

    ``text``, ``kind`` (what was understood), ``at_s``, ``station_m``; ``obeyed`` and ``after_s`` (None of a way, or
    where it was not); ``offset_m`` and ``speed_share`` against the usual over the second half, ``farthest_m`` from the
    usual place; ``text_share`` and ``plan_share`` of plans; ``off_track`` events.
    """
    asked = read_instruction(text)
    if rollout.t_s[-1] < at_s + hold_s - 0.1:
        return None
    during = (rollout.t_s >= at_s) & (rollout.t_s < at_s + hold_s)
    place, speed = usual.at(deviation.station_m[during])
    offset, share = rollout.lateral_m[during] - place, rollout.speed_mps[during] / speed
    step_s = float(np.median(np.diff(rollout.t_s)))
    width = max(1, round(DEFAULT_MANNER_THRESHOLDS.position_s / step_s))
    fits = np.flatnonzero(_does(asked, _means(offset, width), _means(share, width)))
    end_s, half = at_s + hold_s, len(offset) // 2
    off_track = sum(at_s <= event.t_s < end_s for event in deviation.events)
    # A kart that left the road, or was put back on it and stands, obeys nobody.
    if off_track or any(at_s <= reset_s < end_s for reset_s in rollout.resets_s):
        fits = fits[:0]
    plans = [each for each in rollout.plans if at_s <= each.plan.stamp_ns / NS_PER_S < at_s + hold_s]
    return {
        "text": text,
        "kind": asked.way or " ".join(each for each in (asked.line, asked.pace) if each != "usual"),
        "at_s": at_s,
        "station_m": float(deviation.station_m[during][0]),
        "obeyed": None if asked.way else bool(len(fits)),
        "after_s": float(fits[0] * step_s) if len(fits) and not asked.way else None,
        "offset_m": float(offset[half:].mean()),
        "speed_share": float(share[half:].mean()),
        "farthest_m": float(np.abs(offset).max()),
        **_shares(asked, plans, usual),
        "off_track": off_track,
    }


def _means(values: FloatArray, width: int) -> FloatArray:
    return np.convolve(values, np.full(width, 1.0 / width), mode="valid")


def _does(asked: Instruction, offset_m: FloatArray, speed_share: FloatArray) -> NDArray[np.bool_]:
    limits, does = DEFAULT_MANNER_THRESHOLDS, np.ones(len(offset_m), bool)
    if asked.line in ("left", "right"):
        does &= (offset_m if asked.line == "left" else -offset_m) >= limits.side_m
    if asked.line == "middle":
        does &= np.abs(offset_m) < limits.side_m
    if asked.pace == "slow":
        does &= speed_share <= limits.slow_share
    return does & (speed_share >= limits.brisk_share) if asked.pace == "brisk" else does


def _shares(asked: Instruction, plans: Sequence[PlacedPlan], usual: Usual) -> dict[str, float | None]:
    """Of the plans those whose text claims what was asked, and those whose path does it."""
    wanted, texts, paths = parse_claim(asked.beginning), [], []
    for placed in plans:
        claim = parse_claim(placed.plan.reasoning)
        verdict = check_claim(wanted, measure_motion(placed.plan.poses, road=usual.ahead(placed)).of_path)
        if asked.way:
            texts.append(claim.lateral == wanted.lateral)
            paths.append(verdict.lateral == "agree")
        else:
            texts.append((claim.position, claim.pace) == (wanted.position, wanted.pace))
            paths.append({verdict.position, verdict.pace} <= {"agree", "no_claim"})
    return {
        name: float(np.mean(each)) if each else None for name, each in (("text_share", texts), ("plan_share", paths))
    }


def measure_script(
    script: Script,
    drives: Sequence[tuple[Rollout, Deviation]],
    usual: Sequence[tuple[Rollout, Deviation]],
    road: Course,
) -> dict[str, Any]:
    """What came of a script.

    ``instructions`` (:func:`judge` with ``start``), how many were ``not_given``, and the ``deviation`` of these drives
    (:func:`closed_loop.comparison.deviation.summarise`).
    """
    line, judged, asked = Usual.of(usual, road), [], 0
    for start, (rollout, deviation) in enumerate(drives):
        for at_s, text in script.part(start, len(drives)):
            if text:
                asked += 1
                row = judge(text, at_s, script.hold_s, rollout, deviation, line)
                judged += [] if row is None else [{"start": start, **row}]
    deviations = [deviation for _, deviation in drives]
    return {"instructions": judged, "not_given": asked - len(judged), "deviation": summarise(deviations)}


def script_table(runs: Sequence[Mapping[str, Any]]) -> Table | None:
    """A row per driver and kind of instruction over all courses; None where nobody was told anything."""
    told = [(run["variant"], run["instructed"]) for run in runs if run.get("instructed")]
    if not told:
        return None
    rows = []
    for variant in dict.fromkeys(name for name, _ in told):
        every = [row for name, each in told if name == variant for row in each["instructions"]]
        for kind in [*dict.fromkeys(row["kind"] for row in every), ""]:
            mine = [row for row in every if kind in ("", row["kind"])]
            judged = [row for row in mine if row["obeyed"] is not None]
            times = [row["after_s"] for row in judged if row["after_s"] is not None]
            means = {
                key: _mean([row[key] for row in mine if row[key] is not None])
                for key in ("offset_m", "speed_share", "text_share", "plan_share")
            }
            rows.append(
                (
                    *(variant, kind or "all", str(len(mine))),
                    f"{sum(row['obeyed'] for row in judged)} of {len(judged)}" if judged else "-",
                    number(float(np.median(times)) if times else None, 1),
                    number(means["offset_m"] if kind else None),
                    percent(means["speed_share"] if kind else None),
                    number(max((row["farthest_m"] for row in mine), default=None)),
                    percent(means["text_share"]),
                    percent(means["plan_share"]),
                    str(sum(row["off_track"] for row in mine)),
                )
            )
    headings = ("variant", "told", "times", "obeyed", "after s", "offset m", "speed", "farthest m", "text", "plan")
    return Table("Instructions to the driving kart", (*headings, "off-track"), rows, left=(0, 1))


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
