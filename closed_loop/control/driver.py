"""The driver's core, without ROS: frames and odometry in, one command per control tick out.

Three threads meet here (messages, plans, control), so every public method takes the one lock and none of them waits
for the policy. Stamps are the vehicle's time; ``steady_s`` is a steady clock that the caller reads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from closed_loop.control.buffers import Frame, FrameBuffer, PoseBuffer, TimeRate, observe, rolling
from closed_loop.control.controller import ControllerConfig, TrackingController
from closed_loop.control.kart import Command
from closed_loop.control.safety_monitor import SafetyLimits, SafetyMonitor, Verdict
from collector.geometry.poses import to_map
from finetune.policy import FRAMES_PER_CAMERA, FUTURE_STEPS, STEP_S, Observation, Plan

# Odometry comes at 50 Hz: between two messages the pose is carried forward, but never further than this.
LONGEST_CARRY_S = 0.1
# While braking for these reasons the last sound plan still shows where the road goes; for others the wheel is held.
STEER_ON = ("camera frame stale", "plan stale", "plan not sane", "policy process died", "stopping")


@dataclass(frozen=True)
class DriverConfig:
    """How to drive.

    Attributes:
        replan_s: vehicle seconds between the frames handed to the policy.
        frames: how many frames of the camera the policy looks at.
        rolling_start_mps: below this speed the policy is shown the history of a kart that rolls straight at this
            speed: models that learned from moving karts only see no reason to move off. 0 shows what was measured.
        limits: when to brake.
        controller: the kart and its limits.
        camera_lag_s: a picture shows what was so long before its stamp (:mod:`collector.calibration.model`).
    """

    replan_s: float = 0.2
    frames: int = FRAMES_PER_CAMERA
    rolling_start_mps: float = 1.5
    limits: SafetyLimits = field(default_factory=SafetyLimits)
    controller: ControllerConfig = field(default_factory=ControllerConfig)
    camera_lag_s: float = 0.0


@dataclass(frozen=True)
class PlacedPlan:
    """A plan laid on the map by the pose at its t0.

    Attributes:
        poses_map: (64, 3).
        path_xy: (65, 2) the same with the place it started from.
    """

    plan: Plan
    poses_map: NDArray[np.float64]
    path_xy: NDArray[np.float64]


@dataclass(frozen=True)
class Tick:
    """What one control tick decided.

    Attributes:
        stamp_ns: vehicle time of the decision; None before the first odometry.
        pose_map: (3,) where the kart is taken to be at that time.
        plan_age_s: since t0 of the plan in use, None without a plan.
    """

    command: Command
    verdict: Verdict
    stamp_ns: int | None
    pose_map: NDArray[np.float64] | None
    speed_mps: float
    plan_age_s: float | None


class Driver:
    """Holds what is known, asks the policy, and steers.

    Args:
        config: how to drive.
        submit: hands an observation to the policy and returns at once.
    """

    def __init__(self, config: DriverConfig, submit: Callable[[Observation], None]) -> None:
        self.config = config
        self.safety_monitor = SafetyMonitor(config.limits)
        self.frames, self.poses, self.rate = FrameBuffer(), PoseBuffer(), TimeRate()
        self._camera_lag_ns = round(config.camera_lag_s * 1e9)
        self._submit = submit
        self._controller = TrackingController(config.controller)
        self._lock = threading.Lock()
        self._odometry_s = 0.0
        self._yaw_rate_radps = 0.0
        self._plan: PlacedPlan | None = None
        self._asked_ns: int | None = None
        self._now_ns = 0
        self._policy_free = False
        self._stopping = False
        self.jumps = 0

    def odometry(
        self,
        stamp_ns: int,
        pose_map: tuple[float, float, float],
        speed_mps: float,
        yaw_rate_radps: float,
        steady_s: float,
    ) -> bool:
        """Take an odometry message; False for a non-finite one, which is ignored and so goes stale."""
        if not np.isfinite([*pose_map, speed_mps]).all():
            return False
        with self._lock:
            self.safety_monitor.odometry_arrived(steady_s)
            self.rate.add(steady_s, stamp_ns)
            self._odometry_s = steady_s
            # AWSIM is known to report rubbish in its yaw rates now and then.
            self._yaw_rate_radps = yaw_rate_radps if abs(yaw_rate_radps) < 5.0 else 0.0
            if self.poses.add(stamp_ns, pose_map, speed_mps):
                self._forget()
            self._ask()
        return True

    def frame(self, stamp_ns: int, image_rgb: NDArray[np.uint8], steady_s: float) -> None:
        """Take a camera frame, (H, W, 3) RGB. A repeated frame does not count as fresh.

        Here its stamp becomes the moment it shows; history, t0 and the age of plans follow from that.
        """
        with self._lock:
            if self.frames.add(Frame(stamp_ns - self._camera_lag_ns, image_rgb)):
                self.safety_monitor.frame_arrived(steady_s)
                self._ask()

    def policy_ready(self) -> None:
        with self._lock:
            self._answered()

    def policy_plan(self, plan: Plan) -> PlacedPlan | None:
        """Take a plan; None when it is unusable, in which case the safety monitor brakes."""
        with self._lock:
            placed = None
            # Uncovered: the world jumped meanwhile, or inference took longer than the pose memory.
            if self.poses.covers(plan.stamp_ns) and not self.safety_monitor.plan_arrived(plan.poses):
                origin = self.poses.pose_at(plan.stamp_ns)
                poses_map = to_map(plan.poses, origin)
                placed = PlacedPlan(plan, poses_map, np.vstack([origin[:2], poses_map[:, :2]]))
                self._plan = placed
            self._answered()
            return placed

    def policy_failed(self, why: str) -> None:
        with self._lock:
            self.safety_monitor.policy_failed(why)
            self._answered()

    def policy_died(self, why: str) -> None:
        with self._lock:
            self.safety_monitor.policy_died(why)

    def stop(self) -> None:
        """From now on brake, along the last plan."""
        with self._lock:
            self._stopping = True
            self.safety_monitor.stop()

    def tick(self, steady_s: float) -> Tick:
        """Decide on the command for this instant."""
        with self._lock:
            newest = self.poses.newest
            rate = self.rate.value
            if newest is None:
                command = Command(0.0, self.config.controller.stop_mps2)
                verdict = self.safety_monitor.check(steady_s, None, None, rate)
                return Tick(command, verdict, None, None, 0.0, None)
            odometry_ns, pose_map, speed_mps = newest
            carry_s = float(np.clip((steady_s - self._odometry_s) * rate, 0.0, LONGEST_CARRY_S))
            pose_map = carried(pose_map, speed_mps, self._yaw_rate_radps, carry_s)
            # A message that was long under way must not turn the controller's clock back.
            now_ns = self._now_ns = max(self._now_ns, odometry_ns + int(carry_s * 1e9))
            plan_age_s = offset_m = None
            if self._plan is not None:
                plan_age_s = (now_ns - self._plan.plan.stamp_ns) * 1e-9
                offset_m = float(np.hypot(*(self._plan.path_xy - pose_map[:2]).T).min())
            verdict = self.safety_monitor.check(steady_s, plan_age_s, offset_m, rate)
            command = self._command(verdict, now_ns, pose_map, speed_mps, plan_age_s)
            return Tick(command, verdict, now_ns, pose_map, speed_mps, plan_age_s)

    def _command(
        self, verdict: Verdict, now_ns: int, pose_map: NDArray[np.float64], speed_mps: float, plan_age_s: float | None
    ) -> Command:
        now_s = now_ns * 1e-9
        follows = verdict.drive or verdict.reason in STEER_ON
        if not follows or self._plan is None or plan_age_s is None or plan_age_s > FUTURE_STEPS * STEP_S:
            return self._controller.brake(now_s)
        command = self._controller.command(
            self._plan.poses_map, self._plan.plan.stamp_ns * 1e-9, now_s, pose_map, speed_mps
        )
        return command if verdict.drive else Command(command.steer_rad, self.config.controller.stop_mps2)

    def _answered(self) -> None:
        self._policy_free = True
        self._ask()

    def _ask(self) -> None:
        """Hand the newest frame to the policy when it is free, a plan is due, and odometry has caught up."""
        newest = self.frames.newest
        if newest is None or not self._policy_free or self._stopping:
            return
        # Half a frame period of tolerance: 0.2 s of 105 ms frames means every second frame, not every third.
        due_ns = 0 if self._asked_ns is None else self._asked_ns + int((self.config.replan_s - STEP_S / 2) * 1e9)
        if newest.stamp_ns < due_ns:
            return
        observation = observe(self.frames, self.poses, self.config.frames)
        if observation is not None:
            observation = rolling(observation, self.config.rolling_start_mps)
            self._asked_ns, self._policy_free = newest.stamp_ns, False
            self._submit(observation)

    def _forget(self) -> None:
        """The vehicle or its clock jumped."""
        self.jumps += 1
        self._plan = self._asked_ns = None
        self._now_ns = 0
        self.frames.clear()
        self._controller.reset()
        self.safety_monitor.forget_plan()


def carried(
    pose_map: NDArray[np.float64], speed_mps: float, yaw_rate_radps: float, seconds: float
) -> NDArray[np.float64]:
    """A pose (3,) some milliseconds later, at constant speed and yaw rate."""
    turn = yaw_rate_radps * seconds
    heading = pose_map[2] + turn / 2.0
    step_m = speed_mps * seconds
    moved: NDArray[np.float64] = pose_map + np.array([step_m * np.cos(heading), step_m * np.sin(heading), turn])
    return moved
