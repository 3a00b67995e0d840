"""The driver's core, without ROS: frames and odometry in, one command per control tick out.

Three threads meet here (messages, plans, control), so every public method takes the one lock and none of them waits
for the policy. Stamps are the vehicle's time; ``steady_s`` is a steady clock that the caller reads.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from closed_loop.control.buffers import CameraFrame, FrameBuffer, Images, Pose, PoseBuffer, TimeRate, newest_observation
from closed_loop.control.controller import ControllerConfig, TrackingController
from closed_loop.control.faults import NO_FAULTS, Faults
from closed_loop.control.kart import Command
from closed_loop.control.safety_monitor import DEFAULT_LIMITS, Decision, SafetyLimits, SafetyMonitor
from collector.common.arguments import Arguments, argument
from collector.geometry.poses import FloatArray, to_map
from finetune.policy import FRAMES_PER_CAMERA, FUTURE_STEPS, STEP_S, Observation, Plan

# Odometry comes at 50 Hz: between two messages the pose is carried forward, but never further than this.
LONGEST_CARRY_S = 0.1
LATE_PLANS = 5  # the latest but one of so many says how late the next may be
# While braking for these reasons the last sound plan still shows where the road goes; for others the wheel is held.
STEER_ON = (
    "camera frame stale",
    "plan stale",
    "plan not sane",
    "policy process died",
    "another controller",
    "stopping",
)


@dataclass(frozen=True)
class DriverConfig(Arguments):
    """How to drive."""

    replan_s: float = argument(0.2, "vehicle seconds between plans", 0.05, 2.0)
    frames: int = FRAMES_PER_CAMERA  # how many of the camera the policy looks at
    rolling_start_mps: float = argument(
        1.5,
        "below this speed the model is shown a kart that came its own way at it (straight where it stood), since one "
        "that learned from moving karts does not move off from standstill; 0 shows the true history",
        0.0,
        5.0,
    )
    limits: SafetyLimits = DEFAULT_LIMITS
    controller: ControllerConfig = field(default_factory=ControllerConfig)
    camera_lag_s: float = 0.0  # a picture shows what was so long before its stamp (`collector.calibration.model`)


@dataclass(frozen=True, eq=False)
class PlacedPlan:
    """A plan laid on the map by the pose at its t0."""

    plan: Plan
    pose_map: FloatArray  # (3,) that pose
    poses_map: FloatArray  # (64, 3) the plan in the map
    taken_ns: int  # vehicle time from which it was used


@dataclass(frozen=True)
class Tick:
    """What one control tick decided."""

    command: Command
    decision: Decision
    stamp_ns: int | None  # vehicle time of the decision; None before the first odometry
    speed_mps: float
    plan_age_s: float | None  # since t0 of the plan in use, None without a plan


class Driver:
    """Holds what is known, asks the policy, and steers.

    ``submit`` hands an observation to the policy and returns at once. Of ``faults``, latency and its jitter are made
    here: plans are taken no earlier than so many vehicle seconds after their frame.
    """

    def __init__(self, config: DriverConfig, submit: Callable[[Observation], None], faults: Faults = NO_FAULTS) -> None:
        self.config = config
        self.safety_monitor = SafetyMonitor(config.limits)
        self.frames, self.poses, self.rate = FrameBuffer(), PoseBuffer(), TimeRate()
        self._camera_lag_ns = round(config.camera_lag_s * 1e9)
        self._submit = submit
        self._controller = TrackingController(config.controller)
        self._lock = threading.Lock()
        self._odometry_s = self._yaw_rate_radps = 0.0
        self._faults = faults
        self._held: deque[tuple[Plan, Callable[[PlacedPlan | None], object]]] = deque()
        self._plan: PlacedPlan | None = None
        self._path_xy, self._plan_m = np.empty((0, 2)), 0.0
        self._asked_ns: int | None = None
        self._late_s: deque[float] = deque(maxlen=LATE_PLANS)
        self._now_ns = self.jumps = 0
        self._policy_free = self._stopping = False

    def odometry(self, stamp_ns: int, pose_map: Pose, speed_mps: float, yaw_rate_radps: float, steady_s: float) -> bool:
        """Take an odometry message; False for a non-finite one, which is ignored and so goes stale."""
        if not all(map(math.isfinite, (*pose_map, speed_mps))):
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

    def frame(self, stamp_ns: int, images: Images, steady_s: float) -> None:
        """Take what the cameras show: name -> (H, W, 3) RGB. A repeated frame does not count as fresh.

        Here its stamp becomes the moment it shows; history, t0 and the age of plans follow from that.
        """
        with self._lock:
            if self.frames.add(CameraFrame(stamp_ns - self._camera_lag_ns, images)):
                self.safety_monitor.frame_arrived(steady_s)
                self._ask()

    def policy_ready(self) -> None:
        """The policy is free to be asked."""
        with self._lock:
            self._answered()

    def policy_plan(self, plan: Plan, taken: Callable[[PlacedPlan | None], object] = lambda _placed: None) -> None:
        """Take a plan, at once or when its latency is over; ``taken`` is called when that has happened.

        It is given None for a plan that is unusable or of the time before a jump; then the safety monitor brakes.
        """
        if self._faults.late_ns(plan.stamp_ns):
            self._held.append((plan, taken))
        else:
            taken(self._take(plan))

    def _take(self, plan: Plan) -> PlacedPlan | None:
        with self._lock:
            placed = None
            # Uncovered: the world jumped meanwhile, or inference took longer than the pose memory.
            if self.poses.covers(plan.stamp_ns) and not self.safety_monitor.plan_arrived(plan.poses):
                origin = self.poses.pose_at(plan.stamp_ns)
                now_ns = max(self._now_ns, self.poses.newest[0] if self.poses.newest else 0)
                placed = self._plan = PlacedPlan(plan, origin, to_map(plan.poses, origin), now_ns)
                self._path_xy = np.vstack([origin[:2], placed.poses_map[:, :2]])
                self._plan_m = self.poses.travelled_at(plan.stamp_ns)
                self._late_s.append((now_ns - plan.stamp_ns) * 1e-9)
            self._answered()
            return placed

    def policy_failed(self, why: str) -> None:
        """The policy answered with an error."""
        with self._lock:
            self.safety_monitor.policy_failed(why)
            self._answered()

    def policy_died(self, why: str) -> None:
        """There will be no answers any more."""
        with self._lock:
            self.safety_monitor.policy_died(why)

    def forbid(self, reason: str, detail: str = "") -> None:
        """Brake for a reason from outside, until it is taken back with an empty one."""
        with self._lock:
            self.safety_monitor.forbid(reason, detail)

    def stop(self) -> None:
        """From now on brake, along the last plan."""
        with self._lock:
            self._stopping = True
            self.safety_monitor.stop()

    def tick(self, steady_s: float) -> Tick:
        """Decide on the command for this instant."""
        with self._lock:
            now_ns, pose_map, speed_mps = self._present(steady_s)
        # Outside the lock: whoever is told of a plan may ask the driver something.
        while self._held and self._is_over(self._held[0][0].stamp_ns, now_ns):
            plan, taken = self._held.popleft()
            taken(self._take(plan))
        with self._lock:
            plan_age_s = offset_m = None
            if self._plan is not None and now_ns is not None and pose_map is not None:
                plan_age_s = (now_ns - self._plan.plan.stamp_ns) * 1e-9
                offset_m = math.sqrt(((self._path_xy - pose_map[:2]) ** 2).sum(axis=1).min())
            decision = self.safety_monitor.check(steady_s, plan_age_s, offset_m, self.rate.value, self._blind_s)
            command = Command(0.0, self.config.controller.stop_mps2)
            if now_ns is not None and pose_map is not None:
                command = self._command(decision, now_ns, pose_map, speed_mps, plan_age_s)
            return Tick(command, decision, now_ns, speed_mps, plan_age_s)

    def _present(self, steady_s: float) -> tuple[int | None, FloatArray | None, float]:
        """Vehicle time, pose (3,) and speed now: those of the newest odometry, carried forward."""
        newest = self.poses.newest
        if newest is None:
            return None, None, 0.0
        odometry_ns, pose_map, speed_mps = newest
        carry_s = min(max((steady_s - self._odometry_s) * self.rate.value, 0.0), LONGEST_CARRY_S)
        # A message that was long under way must not turn the controller's clock back.
        self._now_ns = max(self._now_ns, odometry_ns + round(carry_s * 1e9))
        return self._now_ns, carried(pose_map, speed_mps, self._yaw_rate_radps, carry_s), speed_mps

    def _is_over(self, stamp_ns: int, now_ns: int | None) -> bool:
        """Whether the latency of a plan is over, or the clock jumped back before it began."""
        return now_ns is None or not stamp_ns <= now_ns < stamp_ns + self._faults.late_ns(stamp_ns)

    def _command(
        self, decision: Decision, now_ns: int, pose_map: FloatArray, speed_mps: float, plan_age_s: float | None
    ) -> Command:
        now_s = now_ns * 1e-9
        follows = decision.drive or decision.reason in STEER_ON
        if not follows or self._plan is None or plan_age_s is None or plan_age_s > FUTURE_STEPS * STEP_S:
            return self._controller.brake(now_s)
        stamp_ns = self._plan.plan.stamp_ns
        command = self._controller.command(
            self._plan.poses_map,
            stamp_ns * 1e-9,
            now_s,
            pose_map,
            speed_mps,
            self.poses.travelled_m - self._plan_m,
            self._blind_s,
        )
        return command if decision.drive else Command(command.steer_rad, self.config.controller.stop_mps2)

    @property
    def _blind_s(self) -> float:
        """The age at which the next plan takes over: it is asked for when this one is taken, or when one is due."""
        # A single plan that was late is forgiven; while one is late, its own age counts.
        late_s = sorted(self._late_s)[-2:][0] if self._late_s else 0.0
        return late_s + max(late_s, self.config.replan_s) + STEP_S

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
        config = self.config
        observation = newest_observation(self.frames, self.poses, config.frames, config.rolling_start_mps)
        if observation is not None:
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


def carried(pose_map: FloatArray, speed_mps: float, yaw_rate_radps: float, seconds: float) -> FloatArray:
    """A pose (3,) some milliseconds later, at constant speed and yaw rate."""
    x, y, yaw = pose_map.tolist()
    turn, step_m = yaw_rate_radps * seconds, speed_mps * seconds
    heading = yaw + turn / 2.0
    return np.array([x + step_m * math.cos(heading), y + step_m * math.sin(heading), yaw + turn])
