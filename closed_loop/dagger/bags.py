"""A recorded drive corrected: from where the kart was, the expert drives on along a team's reference line."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from closed_loop.course.course import Course
from closed_loop.dagger.choice import THINNED, Choice
from closed_loop.pairs.branching import OFF_ROAD, drive_on
from closed_loop.simulator.expert import Expert, ExpertConfig
from closed_loop.simulator.world import World, WorldConfig
from collector.geometry.constants import STEP_NS
from collector.geometry.poses import FloatArray, to_map, wrap_angle
from collector.reasoning.manners import Manner

ELSEWHERE = "far from the course"
_FAR_M = 15.0


class LineCorrection:
    """What the expert would have driven from recorded states; its kart is ``expert.vehicle``.

    Of a recorded state pose and speed are known. The wheels are taken to stand as the kart turned, and no other command
    to be under way.
    """

    def __init__(self, course: Course, expert: ExpertConfig, choice: Choice) -> None:
        self._world, self._expert = World(course, 0, WorldConfig(vehicle=expert.vehicle)), Expert(course, expert)
        self._choice = choice

    def future(self, drive: str, t0_ns: int, history_map: FloatArray) -> FloatArray | str:
        """(64, 3) poses in the map that the expert drives after (16, 3), or why there is no sample."""
        world, pose = self._world, history_map[-1]
        foot = world.course.project(pose[:2])
        station_m, lateral_m = float(foot.s_m), float(foot.lateral_m)
        if abs(lateral_m) > _FAR_M:
            return ELSEWHERE
        heading_rad = float(wrap_angle(pose[2] - foot.yaw_rad))
        kind = self._choice.kind(world.course, station_m, lateral_m, heading_rad)
        if not self._choice.takes(drive, t0_ns, kind):
            return f"{THINNED}: {kind}"
        steps, turns = np.diff(history_map[-3:], axis=0), np.diff(np.unwrap(history_map[-3:, 2]))
        driven_m = float(np.hypot(steps[:, 0], steps[:, 1]).sum())
        bend_1pm = float(turns.sum()) / max(driven_m, 0.1)
        speed_mps = driven_m / (len(steps) * STEP_NS * 1e-9)
        world.reset(station_m, lateral_m, heading_rad, speed_mps)
        world.vehicle.place(pose, speed_mps, math.atan(bend_1pm * world.config.vehicle.wheelbase_m))
        self._expert.reset()
        poses, beyond_m = drive_on(world, self._expert, Manner())
        return OFF_ROAD if beyond_m > 0.0 else to_map(poses, pose)

    def facts(self) -> dict[str, Any]:
        """The course and the counts of states."""
        return {"expert_on": self._world.course.name, "states": self._choice.facts()}
