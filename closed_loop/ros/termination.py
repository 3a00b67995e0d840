"""When a drive is over, and whether it was what was asked for: laps, seconds, or nothing to drive with.

Pure: wall times are a steady clock's, vehicle times are stamps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from collector.ros.topics import AWSIM_STATUS_FIELDS, CAMERA_IMAGE, ODOMETRY

LAP_FIELD = AWSIM_STATUS_FIELDS.index("lap_count")
GONE_AFTER_S = 5.0  # wall seconds without odometry and without its publisher: the simulator has left
STOP_WITHIN_S = 6.0  # wall seconds given to the kart to come to rest at a clean end
STANDING_MPS = 0.05


@dataclass
class Mission:
    """Follows one drive.

    Attributes:
        laps: laps asked for, 0 for no limit.
        duration_s: vehicle seconds asked for, counted from the first driven tick, 0 for no limit.
        wait_s: wall seconds to wait for the first odometry and the first frame.
        began_s: steady time of the start.
        laps_done: counted from the simulator's own lap counter, wherever that started.
        goal: what was reached, or why no more can be; from then on the kart should stop.
        failed: why nothing could be driven, as a sentence.
    """

    laps: int
    duration_s: float
    wait_s: float
    began_s: float
    laps_done: int = 0
    goal: str = ""
    failed: str = ""
    _lap: int | None = None
    _started_ns: int | None = None
    _goal_s: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether all laps asked for are driven."""
        return not self.laps or self.laps_done >= self.laps

    def status(self, fields: list[float]) -> bool:
        """Take the numbers of ``/awsim/status``; True when a lap was completed."""
        if len(fields) <= LAP_FIELD or not math.isfinite(fields[LAP_FIELD]):
            return False
        lap, before = int(fields[LAP_FIELD]), self._lap
        self._lap = lap
        if before is None or lap <= before:
            return False
        self.laps_done += lap - before
        return True

    def update(
        self,
        steady_s: float,
        stamp_ns: int | None,
        driving: bool,
        speed_mps: float,
        odometry_s: float | None,
        frames: int,
    ) -> str:
        """Judge one control tick.

        Args:
            steady_s: now.
            stamp_ns: vehicle time, None before the first odometry.
            driving: whether this tick follows a plan.
            odometry_s: steady time of the last odometry, None before the first.
            frames: how many have arrived.

        Returns:
            Why the drive ends now, or an empty string.
        """
        waited = steady_s - self.began_s > self.wait_s
        if stamp_ns is None or odometry_s is None:
            if waited and not self.failed:
                self.failed = (
                    f"no odometry on {ODOMETRY.name} after {self.wait_s:g} s. Expected: a running simulator with "
                    "localisation in this ROS domain. Do: start it, or add simulator:=true"
                )
            return self.failed
        if self._started_ns is None:
            if driving:
                self._started_ns = stamp_ns
            elif frames == 0 and waited and not self.failed:
                self.failed = (
                    f"no frame on {CAMERA_IMAGE.name} after {self.wait_s:g} s, though odometry arrives. Expected: "
                    "10 per second. Do: start AWSIM with --camera gpu (its dev script passes off)"
                )
        if self.failed:
            return self.failed
        if not self.goal:
            driven_s = 0.0 if self._started_ns is None else (stamp_ns - self._started_ns) * 1e-9
            if self.laps and self.laps_done >= self.laps:
                self.goal, self._goal_s = f"{self.laps_done} of {self.laps} laps done", steady_s
            elif self.duration_s and driven_s >= self.duration_s:
                self.goal, self._goal_s = f"{self.duration_s:g} s driven", steady_s
        elif speed_mps < STANDING_MPS or steady_s - self._goal_s > STOP_WITHIN_S:
            return self.goal
        return ""

    def give_up(self, why: str, steady_s: float) -> None:
        """There is no driving on from here: bring the kart to rest, then end."""
        if not self.goal:
            self.goal, self._goal_s = why, steady_s

    @staticmethod
    def is_gone(steady_s: float, odometry_s: float | None, publishers: int) -> bool:
        """Whether the simulator has left: silent for a while, and its publisher no longer there."""
        return odometry_s is not None and publishers == 0 and steady_s - odometry_s > GONE_AFTER_S
