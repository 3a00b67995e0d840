"""Whether the kart is off the road of a named course, how far, how long and how often; and when a drive is over.

Pure numpy; one rule for all who ask. A course that lies elsewhere (another map) is no road to be off, so counting
begins once the kart has been seen wholly on it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from closed_loop.course.course import Course
from collector.geometry.poses import FloatArray
from collector.vehicle.kart import footprint
from collector.vehicle.model import KART, VehicleModel

# So long the kart must be wholly on the road before it can leave it anew.
BACK_ON_ROAD_S = 0.5
# A kart this far from the line may have come back to another stretch: the whole course is searched again.
_LOST_M = 10.0


def beyond_edges(
    road: Course, poses: ArrayLike, station_m: ArrayLike, vehicle: VehicleModel = KART
) -> tuple[FloatArray, FloatArray]:
    """How far the kart's outline reaches over the left and over the right edge, (...) each; negative on the road.

    Of poses (..., 3) of the rear axle's middle, and the stations (...) where they lie along the road.
    """
    outline = footprint(np.asarray(poses, np.float64), vehicle)
    left_m, right_m = road.beyond_edges_m(outline, np.asarray(station_m)[..., None])
    return left_m.max(axis=-1), right_m.max(axis=-1)


@dataclass
class OffTrackEvents:
    """Tells one time off the road from the next."""

    _last_off_s: float = -math.inf

    def begins(self, t_s: float, off: bool) -> bool:
        """Take a moment, in order of time; True when an event begins with it."""
        new = off and t_s - self._last_off_s > BACK_ON_ROAD_S
        if off:
            self._last_off_s = t_s
        return new

    def reset(self) -> None:
        """The kart was placed elsewhere: what comes is another event."""
        self._last_off_s = -math.inf


@dataclass
class OffTrackMonitor:
    """Follows one kart."""

    road: Course
    vehicle: VehicleModel = KART
    beyond_m: float = -math.inf  # how far the outline reached over an edge at the last pose, negative on the road
    off_s: float = 0.0  # seconds since a corner crossed the edge; 0 on the road, and before the kart was ever on it
    events: int = 0  # how often it has left the road
    _events: OffTrackEvents = field(default_factory=OffTrackEvents)
    _station_m: float | None = None
    _seen_on_road: bool = False
    _left_ns: int | None = None
    _last_ns: int | None = None

    def update(self, stamp_ns: int, pose_map: ArrayLike) -> bool:
        """Take a pose (3,) of the rear axle's middle; True when the kart has just left the road.

        A clock that goes back starts anew.
        """
        if self._last_ns is not None and stamp_ns < self._last_ns:
            self.reset()
        self._last_ns = stamp_ns
        pose = np.asarray(pose_map, np.float64)
        if self._station_m is None:
            foot = self.road.project(pose[:2])
            station_m, lateral_m = float(foot.s_m), float(foot.lateral_m)
        else:
            station_m, lateral_m, _, _ = self.road.follow(float(pose[0]), float(pose[1]), self._station_m)
        self._station_m = None if abs(lateral_m) > _LOST_M else station_m
        self.beyond_m = float(np.maximum(*beyond_edges(self.road, pose, station_m, self.vehicle)))
        if self.beyond_m <= 0.0:
            self._seen_on_road, self._left_ns = True, None
        elif self._left_ns is None and self._seen_on_road:
            self._left_ns = stamp_ns
        self.off_s = 0.0 if self._left_ns is None else (stamp_ns - self._left_ns) * 1e-9
        new = self._events.begins(stamp_ns * 1e-9, self._left_ns is not None)
        self.events += new
        return new

    def reset(self) -> None:
        """The kart was placed elsewhere."""
        self._station_m = self._left_ns = None
        self._events.reset()


@dataclass
class DriveGoal:
    """When a drive has driven what was asked for, or cannot any more: of a rollout and of a drive over ROS 2."""

    laps: float = 0.0  # asked for; 0 for no limit
    duration_s: float = 0.0  # asked for, in vehicle seconds; 0 for no limit
    off_track_s: float = 0.0  # the drive ends when the kart has been off the road for longer; 0 for no limit
    max_off_track: int = 0  # or as often; 0 for no limit
    laps_done: float = 0.0  # how many there are, kept by whoever counts them
    goal: str = ""  # what was reached, or why no more can be; empty while the drive goes on
    reached: bool = False  # whether the goal is what was asked for

    @property
    def complete(self) -> bool:
        """Whether all laps asked for are driven."""
        return not self.laps or self.laps_done >= self.laps

    def judge(self, driven_s: float, off_track: OffTrackMonitor | None) -> str:
        """The goal after ``driven_s`` vehicle seconds, ``off_track`` as it is now; once set it stays."""
        if self.goal:
            return self.goal
        if self.laps and self.complete:
            self.goal, self.reached = f"{min(self.laps_done, self.laps):g} of {self.laps:g} laps done", True
        elif off_track is not None and self.max_off_track and off_track.events >= self.max_off_track:
            self.goal = "too often off the road"
        elif off_track is not None and self.off_track_s and off_track.off_s > self.off_track_s:
            self.goal = f"off the road for {self.off_track_s:g} s"
        elif self.duration_s and driven_s >= self.duration_s:
            self.goal, self.reached = f"{self.duration_s:g} s driven", True
        return self.goal
