"""Whether odometry can be a kart's: its poses against its speed, and both against what a kart can do.

Pure and clock-free: stamps and steady times are passed in. A message is judged by those that arrived before it, taken
or not, so that an error that stays is told by the motion: a yaw that is wrong by a quarter turn makes the kart drive
aside.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from closed_loop.control.buffers import STANDING_MPS, Pose
from closed_loop.control.safety_limits import DEFAULT_LIMITS, SafetyLimits

# Poses are set against speeds over the shorter for what is fast, over the longer for what is slow.
_WINDOWS_S = (0.4, 1.5)
_REFILL_S = 0.4  # after a step nothing is known to fit until a window of it has been seen
_STILL_S = 0.5


@dataclass(frozen=True)
class _Step:
    """From one message to the next."""

    end_ns: int
    seconds: float
    forward_m: float  # by the poses, in the kart's frame
    aside_m: float
    way_m: float  # by the speeds
    turn_rad: float


@dataclass
class OdometryHealth:
    """Judges messages in order of their stamps."""

    limits: SafetyLimits = DEFAULT_LIMITS
    yaw_rate_radps: float = 0.0  # by the last two poses
    _last: tuple[int, Pose, float] | None = None
    _good: tuple[int, float] | None = None  # stamp and speed of the last message without a defect
    _steps: deque[_Step] = field(default_factory=deque)
    _broken_ns: int | None = None  # when the poses stepped
    _speed_lost: bool = False  # the speed fell to nothing faster than a kart can

    def reset(self) -> None:
        """The vehicle was placed elsewhere, or its clock jumped."""
        self._last = self._good = self._broken_ns = None
        self._steps.clear()
        self._speed_lost, self.yaw_rate_radps = False, 0.0

    def impossible(self, pose_map: Pose, speed_mps: float) -> str:
        """Why a message is no odometry at all, empty when it may be."""
        limits = self.limits
        if not all(map(math.isfinite, (*pose_map, speed_mps))):
            return "not a number"
        if max(abs(pose_map[0]), abs(pose_map[1])) > limits.odometry_place_m:
            return f"a place {max(abs(pose_map[0]), abs(pose_map[1])):.3g} m from the map's origin"
        if abs(speed_mps) > limits.odometry_speed_mps:
            return f"{speed_mps:.3g} m/s, at most {limits.odometry_speed_mps:g} m/s"
        return ""

    def judge(self, stamp_ns: int, pose_map: Pose, speed_mps: float, still_s: float = 0.0) -> str:
        """Why a message, newer than the one before, does not fit a kart's motion; empty when it does.

        ``still_s`` says for how long the camera's picture has not changed: a kart whose speed fell to nothing from one
        message to the next stands when its picture does.
        """
        defect = self._step_defect(stamp_ns, pose_map, speed_mps) or self._window_defect(stamp_ns)
        defect = defect or self._speed_defect(stamp_ns, speed_mps, still_s)
        self._last = stamp_ns, pose_map, speed_mps
        if not defect:
            self._good = stamp_ns, speed_mps
        return defect

    def _step_defect(self, stamp_ns: int, pose_map: Pose, speed_mps: float) -> str:
        """The step from the message before."""
        if self._last is None:
            return ""
        limits = self.limits
        last_ns, last_pose, last_mps = self._last
        seconds = (stamp_ns - last_ns) * 1e-9
        dx, dy = pose_map[0] - last_pose[0], pose_map[1] - last_pose[1]
        turn_rad = math.remainder(pose_map[2] - last_pose[2], math.tau)
        yaw = last_pose[2] + turn_rad / 2.0
        forward_m = math.cos(yaw) * dx + math.sin(yaw) * dy
        aside_m = math.cos(yaw) * dy - math.sin(yaw) * dx
        way_m = 0.5 * (last_mps + speed_mps) * seconds
        self.yaw_rate_radps = turn_rad / seconds if seconds > 1e-3 else 0.0
        defect = ""
        if abs(turn_rad) > limits.yaw_step_rad + limits.yaw_rate_radps * seconds:
            defect = f"the yaw turned by {turn_rad:.2f} rad in {seconds:.2f} s"
        elif math.hypot(forward_m - way_m, aside_m) > limits.place_step_m + abs(way_m) + limits.offset_m * abs(
            turn_rad
        ):
            defect = f"the place jumped by {math.hypot(dx, dy):.2f} m in {seconds:.2f} s"
        if defect:
            self._broken_ns = stamp_ns
            self._steps.clear()
            return defect
        self._steps.append(_Step(stamp_ns, seconds, forward_m, aside_m, way_m, turn_rad))
        while stamp_ns - self._steps[0].end_ns > _WINDOWS_S[-1] * 1e9:
            self._steps.popleft()
        return ""

    def _window_defect(self, stamp_ns: int) -> str:
        """Poses against speeds over the last moments."""
        limits = self.limits
        for window_s in _WINDOWS_S:
            steps = [step for step in self._steps if stamp_ns - step.end_ns < window_s * 1e9]
            # Fifty times a second of every kart: lists are summed in half the time of generators.
            forward_m, aside_m = sum([step.forward_m for step in steps]), sum([step.aside_m for step in steps])
            way_m, turn_rad = sum([step.way_m for step in steps]), sum([step.turn_rad for step in steps])
            allowed_m = limits.drift_m + limits.drift_share * abs(way_m)
            if abs(forward_m - way_m) > allowed_m:
                return f"the poses moved {forward_m:.2f} m where the speed says {way_m:.2f} m"
            if abs(aside_m) > allowed_m + limits.offset_m * abs(turn_rad):
                return f"the poses moved {aside_m:.2f} m aside in {way_m:.2f} m"
        if self._broken_ns is not None and stamp_ns - self._broken_ns < _REFILL_S * 1e9:
            return "the poses stepped a moment ago"
        self._broken_ns = None
        return ""

    def _speed_defect(self, stamp_ns: int, speed_mps: float, still_s: float) -> str:
        """The speed against the last one that was good."""
        limits = self.limits
        if self._good is not None:
            good_ns, good_mps = self._good
            seconds = (stamp_ns - good_ns) * 1e-9
            if abs(speed_mps - good_mps) > limits.speed_step_mps + limits.speed_rate_mps2 * seconds:
                self._speed_lost = abs(speed_mps) < STANDING_MPS
                return f"the speed went from {good_mps:.1f} to {speed_mps:.1f} m/s in {seconds:.2f} s"
        if self._speed_lost and abs(speed_mps) < STANDING_MPS and still_s < _STILL_S:
            return "the speed fell to nothing, and the picture does not stand still"
        self._speed_lost = False
        return ""
