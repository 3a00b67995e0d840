"""What the driver hears and sees, judged as it comes: what cannot be used has not arrived, as the monitor is told.

Not thread-safe: the driver holds its lock.
"""

from __future__ import annotations

import enum
import math

from closed_loop.control.answer_health import AnswerHealth
from closed_loop.control.buffers import (
    GAP_S,
    CameraFrame,
    FrameBuffer,
    Images,
    Pose,
    PoseBuffer,
    TimeRate,
    newest_observation,
)
from closed_loop.control.last_path import carried
from closed_loop.control.odometry_health import OdometryHealth
from closed_loop.control.picture_health import PictureHealth
from closed_loop.control.safety_monitor import SafetyMonitor
from collector.geometry.discontinuity import LATE, discontinuity
from collector.geometry.poses import FloatArray
from finetune.policy import Observation

# Odometry comes at 50 Hz: between two messages the pose is carried forward; beyond this it is reckoned from commands.
LONGEST_CARRY_S = 0.1
_FORGET_S = 0.2  # odometry that was refused for longer may go on in another frame
_YAW_RATE_RADPS = 1.0  # a yaw rate this far from that of the poses is rubbish, which AWSIM is known to report


class Heard(enum.Enum):
    """What an odometry message was good for."""

    NOTHING = enum.auto()  # refused, or repeated
    MOTION = enum.auto()
    JUMP = enum.auto()  # the vehicle or its clock jumped: nothing from before it means anything


class Senses:
    """Frames and odometry of the last seconds, those that can be used."""

    def __init__(self, monitor: SafetyMonitor, camera_lag_s: float) -> None:
        self.frames, self.poses, self.rate = FrameBuffer(), PoseBuffer(), TimeRate()
        self.pictures, self._health = PictureHealth(monitor.limits), OdometryHealth(monitor.limits)
        self.answers = AnswerHealth(monitor.limits)
        self._monitor, self._camera_lag_ns = monitor, round(camera_lag_s * 1e9)
        self._heard: tuple[int, Pose] | None = None  # the newest odometry, used or not
        self._refused_s: float | None = None  # since when odometry has been refused
        self._odometry_s = self._yaw_rate_radps = 0.0
        self._now_ns = 0

    def odometry(
        self, stamp_ns: int, pose_map: Pose, speed_mps: float, yaw_rate_radps: float, steady_s: float
    ) -> Heard:
        """Take an odometry message."""
        why, defect = "", self._health.impossible(pose_map, speed_mps)
        if not defect:
            if self._heard is not None:
                moved_m = math.dist(pose_map[:2], self._heard[1][:2])
                why = discontinuity(stamp_ns - self._heard[0], moved_m, max_gap_s=GAP_S)
            if why == LATE:
                return Heard.NOTHING
            self._heard = stamp_ns, pose_map
            if why:
                self._health.reset()
                self.answers.reset()
            defect = self._health.judge(stamp_ns, pose_map, speed_mps, self.pictures.still_s(steady_s))
            defect = defect or self.answers.speed(speed_mps, self.pictures.moves)
        if defect:
            self._monitor.odometry_refused(defect)
            self._refused_s = steady_s if self._refused_s is None else self._refused_s
            return Heard.NOTHING
        elsewhere = self._refused_s is not None and steady_s - self._refused_s > _FORGET_S
        if elsewhere:
            self.poses.clear()
        self._refused_s = None
        self._monitor.odometry_arrived(steady_s)
        self.rate.add(steady_s, stamp_ns)
        self._odometry_s = steady_s
        believed = abs(yaw_rate_radps - self._health.yaw_rate_radps) < _YAW_RATE_RADPS
        self._yaw_rate_radps = yaw_rate_radps if believed else self._health.yaw_rate_radps
        return Heard.JUMP if self.poses.add(stamp_ns, pose_map, speed_mps) or elsewhere else Heard.MOTION

    def wheels(self, angle_rad: float) -> bool:
        """Judge a reported tyre angle; False for one that cannot be used."""
        defect = self.answers.steering(angle_rad)
        if defect:
            self._monitor.odometry_refused(defect)
        return not defect

    def frame(self, stamp_ns: int, images: Images, steady_s: float) -> bool:
        """Take what the cameras show; False for what is repeated or cannot be used."""
        shown_ns = stamp_ns - self._camera_lag_ns
        if not self.frames.is_news(shown_ns):
            return False
        if stamp := self._stamp_defect(stamp_ns, steady_s):
            self._monitor.frame_refused(stamp, "camera stamp wrong")
            return False
        if picture := self.pictures.judge(images, self.poses.travelled_m, steady_s):
            self._monitor.frame_refused(picture)
            return False
        self.frames.add(CameraFrame(shown_ns, images))
        self._monitor.frame_arrived(steady_s)
        return True

    def observation(self, count: int, rolling_mps: float) -> Observation | None:
        """See :func:`closed_loop.control.buffers.newest_observation`."""
        return newest_observation(self.frames, self.poses, count, rolling_mps)

    def present(self, steady_s: float) -> tuple[int | None, FloatArray | None, float]:
        """Vehicle time, pose (3,) and speed now: those of the newest odometry, carried forward."""
        newest = self.poses.newest
        if newest is None:
            return None, None, 0.0
        odometry_ns, pose_map, speed_mps = newest
        carry_s = min(max(self._late_s(steady_s), 0.0), LONGEST_CARRY_S)
        # A message that was long under way must not turn the controller's clock back.
        self._now_ns = max(self._now_ns, odometry_ns + round(carry_s * 1e9))
        return self._now_ns, carried(pose_map, speed_mps, self._yaw_rate_radps, carry_s), speed_mps

    def is_lost(self, steady_s: float) -> bool:
        """Whether the newest odometry says too little about now."""
        return not len(self.poses) or self._late_s(steady_s) > LONGEST_CARRY_S

    @property
    def now_ns(self) -> int:
        """The newest vehicle time that was told or reckoned."""
        return max(self._now_ns, self.poses.newest[0] if self.poses.newest else 0)

    def forget(self) -> None:
        """The world jumped: frames of before and their time mean nothing."""
        self._now_ns = 0
        self.frames.clear()

    def _late_s(self, steady_s: float) -> float:
        """Vehicle seconds since the newest odometry."""
        return (steady_s - self._odometry_s) * self.rate.value

    def _stamp_defect(self, stamp_ns: int, steady_s: float) -> str:
        """A frame's stamp against its arrival, on the clock that stamps the odometry; empty where they agree."""
        newest, limits = self.poses.newest, self._monitor.limits
        if newest is None or self.is_lost(steady_s):
            return ""
        behind_s = (newest[0] - stamp_ns) * 1e-9 + self._late_s(steady_s)
        if behind_s > limits.stamp_behind_s:
            return f"stamped {behind_s:.3g} s before its arrival, limit {limits.stamp_behind_s:g} s"
        if -behind_s > limits.stamp_ahead_s:
            return f"stamped {-behind_s:.3g} s after its arrival, limit {limits.stamp_ahead_s:g} s"
        return ""
