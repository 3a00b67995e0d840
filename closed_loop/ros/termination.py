"""When a drive is over, and whether it was what was asked for: laps, seconds, or nothing to drive with.

Pure: wall times are a steady clock's, vehicle times are stamps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from closed_loop.control.off_track import DriveGoal, OffTrackMonitor
from collector.geometry.discontinuity import StampedTime
from collector.ros.topics import AWSIM_STATUS_FIELDS, CAMERA_IMAGE, ODOMETRY, STANDING_MPS

LAP_FIELD = AWSIM_STATUS_FIELDS.index("lap_count")
GONE_AFTER_S = 5.0  # wall seconds without odometry and without its publisher: the simulator has left
STOP_WITHIN_S = 6.0  # wall seconds given to the kart to come to rest at a clean end


@dataclass
class DriveTermination(DriveGoal):
    """Follows one drive over ROS 2; see :class:`closed_loop.control.off_track.DriveGoal` for the goal."""

    wait_s: float = math.inf  # wall seconds to wait for the first odometry and the first frame
    began_s: float = 0.0  # steady time of the start
    pose_topic: str = ODOMETRY.name  # where the driver's poses come from
    failed: str = ""  # why nothing could be driven, as a sentence
    simulator_seen: bool = False  # whether anybody ever published what a simulator says
    simulator_there: bool = False  # whether somebody does now
    _lap: int | None = None
    _driven: StampedTime | None = None  # from the first driven tick
    _goal_s: float | None = None

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
        off_track: OffTrackMonitor | None = None,
    ) -> str:
        """Judge one control tick: why the drive ends now, or an empty string.

        ``stamp_ns`` (vehicle time) and ``odometry_s`` (steady time of the last odometry) are None before the first
        odometry.
        """
        waited = steady_s - self.began_s > self.wait_s
        if stamp_ns is None or odometry_s is None:
            if waited and not self.failed:
                self.failed = self.nothing_came(frames)
            return self.failed
        if self._driven is None:
            if driving:
                self._driven = StampedTime()
            elif frames == 0 and waited and not self.failed:
                self.failed = (
                    f"no frame on {CAMERA_IMAGE.name} after {self.wait_s:g} s, though odometry arrives. Expected: "
                    "10 per second. Do: start AWSIM with --camera gpu (its dev script passes off)"
                )
        if self.failed:
            return self.failed
        if self._driven is not None:
            self._driven.add(stamp_ns)
        if not self.judge(0.0 if self._driven is None else self._driven.passed_s, off_track):
            return ""
        if self._goal_s is None:
            self._goal_s = steady_s
            return ""
        return self.goal if speed_mps < STANDING_MPS or steady_s - self._goal_s > STOP_WITHIN_S else ""

    @property
    def has_driven(self) -> bool:
        """Whether the kart was driven for a tick at least."""
        return self._driven is not None

    def nothing_came(self, frames: int) -> str:
        """Why there was no odometry, as a sentence; the ROS domain is suspected only where nothing at all was heard."""
        found = f"no odometry on {self.pose_topic} after {self.wait_s:g} s"
        if self.simulator_seen and not self.simulator_there:
            return f"{found}: the simulator has left. Expected: one that runs. Do: see why it ended, and start it again"
        if self.pose_topic != ODOMETRY.name:
            return f"{found}. Expected: a running simulator in this ROS domain. Do: start it, or add simulator:=true"
        if frames or self.simulator_seen:
            return (
                f"{found}, though a simulator is there. Expected: localisation. Do: run it with GNSS and IMU on "
                "(AWSIM's e2e modes switch them off)"
            )
        return (
            f"{found}. Expected: a running simulator with localisation in this ROS domain. Do: start it, or add "
            "simulator:=true"
        )

    def simulator(self, publishers: int) -> None:
        """Take how many publish what a simulator says."""
        self.simulator_there = publishers > 0
        self.simulator_seen = self.simulator_seen or self.simulator_there

    def give_up(self, why: str) -> None:
        """There is no driving on from here: bring the kart to rest, then end."""
        self.goal = self.goal or why

    @staticmethod
    def is_gone(steady_s: float, odometry_s: float | None, publishers: int) -> bool:
        """Whether the simulator has left: silent for a while, and its publisher no longer there."""
        return odometry_s is not None and publishers == 0 and steady_s - odometry_s > GONE_AFTER_S
