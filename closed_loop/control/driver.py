"""The driver's core, without ROS: frames and odometry in, one command per control tick out.

Three threads meet here (messages, plans, control), so every public method takes the one lock and none of them waits
for the policy. Stamps are the vehicle's time; ``steady_s`` is a steady clock that the caller reads.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from closed_loop.control.buffers import Images, Pose
from closed_loop.control.controller import ControllerConfig, TrackingController
from closed_loop.control.faults import NO_FAULTS, Faults
from closed_loop.control.last_path import LastPath
from closed_loop.control.safety_limits import DEFAULT_LIMITS, SafetyLimits
from closed_loop.control.safety_monitor import HELD, STOPPING, Decision, SafetyMonitor
from closed_loop.control.senses import Heard, Senses
from collector.common.arguments import Arguments, argument
from collector.geometry.constants import NS_PER_S
from collector.geometry.poses import FloatArray, to_ego, to_map
from collector.vehicle.kart import Command
from finetune.policy import FRAMES_PER_CAMERA, FUTURE_STEPS, STEP_S, Observation, Plan

LATE_PLANS = 5  # the latest but one of so many says how late the next may be
# A kart that was put elsewhere stands; one that goes on at its speed was only said to be, and stops along its road.
_MOVING_MPS, _SAME_MPS = 1.0, 1.5


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
        self._senses = Senses(self.safety_monitor, config.camera_lag_s)
        self.frames, self.poses, self.rate = self._senses.frames, self._senses.poses, self._senses.rate
        self.answers = self._senses.answers
        self._submit, self._faults = submit, faults
        self._controller, self._lock = TrackingController(config.controller), threading.Lock()
        self._last_path = LastPath(config.controller.accel_lag_s)
        self._ticked_s: float | None = None
        # The controller's clock: vehicle time, but for jumps of its stamps
        self._control_s = self._ahead_s = 0.0
        self._jumped = self._jumped_on = False  # the stamps did, and the kart goes on without a plan
        self._held: deque[tuple[Plan, Callable[[PlacedPlan | None], object]]] = deque()
        self._plan: PlacedPlan | None = None
        self._said: PlacedPlan | None = None  # the plan that a new one is set against
        self._path_xy, self._plan_m = np.empty((0, 2)), 0.0
        self._asked_ns: int | None = None
        self._late_s: deque[float] = deque(maxlen=LATE_PLANS)
        self._policy_free = self._stopping = False
        self.jumps, self._hold, self._instruction = 0, "", ""

    def odometry(self, stamp_ns: int, pose_map: Pose, speed_mps: float, yaw_rate_radps: float, steady_s: float) -> bool:
        """Take an odometry message; False for one that cannot be used, or repeats, which so does not count as fresh."""
        with self._lock:
            heard = self._senses.odometry(stamp_ns, pose_map, speed_mps, yaw_rate_radps, steady_s)
            if heard is Heard.JUMP:
                self._forget(speed_mps)
            if heard is not Heard.NOTHING:
                self._ask()
        return heard is not Heard.NOTHING

    def wheels(self, angle_rad: float) -> bool:
        """Judge a reported tyre angle; False for one that is none of a kart that does what it is told."""
        with self._lock:
            return self._senses.wheels(angle_rad)

    def frame(self, stamp_ns: int, images: Images, steady_s: float) -> None:
        """Take what the cameras show: name -> (H, W, 3) RGB. Repeated and unusable frames do not count as fresh.

        Here its stamp becomes the moment it shows; history, t0 and the age of plans follow from that.
        """
        with self._lock:
            if self._senses.frame(stamp_ns, images, steady_s):
                self._ask()

    def clock(self, clock_ns: int, steady_s: float) -> None:
        """Take note of the clock that the commands are stamped with; 0 before it was told the time."""
        with self._lock:
            self.safety_monitor.clock(clock_ns, steady_s)

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
            if self.poses.covers(plan.stamp_ns) and not self._defect(plan):
                origin = self.poses.pose_at(plan.stamp_ns)
                now_ns = self._senses.now_ns
                placed = self._plan = PlacedPlan(plan, origin, to_map(plan.poses, origin), now_ns)
                self._path_xy = np.vstack([origin[:2], placed.poses_map[:, :2]])
                self._plan_m = self.poses.travelled_at(plan.stamp_ns)
                self._jumped_on = False
                self._late_s.append((now_ns - plan.stamp_ns) * 1e-9)
            self._answered()
            return placed

    def _defect(self, plan: Plan) -> str:
        """What is wrong with a plan of a covered stamp, by itself and beside the plan in use."""
        before, later_s, repeats = None, 0.0, False
        speed_mps = self.poses.speed_at(plan.stamp_ns)
        if self._plan is not None and np.shape(plan.poses) == np.shape(self._plan.poses_map):
            # Plans that are all the same are set against one of a second ago: from one to the next little changes.
            repeats = np.array_equal(plan.poses, self._plan.plan.poses)
            if not repeats or self._said is None or plan.stamp_ns - self._said.plan.stamp_ns > NS_PER_S:
                self._said = self._plan
            later_s = (plan.stamp_ns - self._said.plan.stamp_ns) * 1e-9
            before = to_ego(self._said.poses_map, self.poses.pose_at(plan.stamp_ns))
        return self.safety_monitor.plan_arrived(plan.poses, speed_mps, before, later_s, repeats)

    def policy_failed(self, why: str) -> None:
        """The policy answered with an error."""
        with self._lock:
            self.safety_monitor.policy_failed(why)
            self._answered()

    def policy_died(self, why: str) -> None:
        """There will be no answers any more."""
        with self._lock:
            self.safety_monitor.policy_died(why)

    def hold(self, why: str) -> None:
        """Stand, for this reason, until it is taken back by an empty one."""
        with self._lock:
            self._hold = why

    def instruct(self, words: str) -> None:
        """From the next frame on ask the policy to drive so; empty takes it back. It decides nothing but the plans."""
        with self._lock:
            self._instruction = words

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
            now_ns, pose_map, speed_mps = self._senses.present(steady_s)
        # Outside the lock: whoever is told of a plan may ask the driver something.
        while self._held and self._is_over(self._held[0][0].stamp_ns, now_ns):
            plan, taken = self._held.popleft()
            taken(self._take(plan))
        with self._lock:
            now_s = self._locate(steady_s, now_ns, pose_map, speed_mps)
            path, plan_age_s, offset_m = self._last_path, None, None
            if self._plan is not None and path.pose_map is not None:
                plan_age_s, speed_mps = path.age_s, path.speed_mps
                offset_m = math.sqrt(((self._path_xy - path.pose_map[:2]) ** 2).sum(axis=1).min())
            decision = self.safety_monitor.check(
                steady_s, plan_age_s, offset_m, self.rate.value, self._blind_s, path.speed_mps
            )
            if self._hold and decision.reason != STOPPING:
                decision = Decision(False, HELD, self._hold)
            command = self._command(decision, now_s)
            path.told(command.accel_mps2)
            self.answers.told(command.steer_rad, command.accel_mps2, steady_s, self.rate.value)
            return Tick(command, decision, now_ns, speed_mps, plan_age_s)

    def _locate(self, steady_s: float, now_ns: int | None, pose_map: FloatArray | None, speed_mps: float) -> float:
        """Say where the kart is on its last path, by odometry or reckoned; returns the controller's time."""
        path, rate = self._last_path, self.rate.value
        passed_s = 0.0 if self._ticked_s is None else max(steady_s - self._ticked_s, 0.0) * rate
        self._ticked_s = steady_s
        lost = self._senses.is_lost(steady_s)
        if lost or now_ns is None or pose_map is None:
            self._control_s += passed_s
        else:
            if self._jumped:
                self._ahead_s, self._jumped = self._control_s + passed_s - now_ns * 1e-9, False
            self._control_s = now_ns * 1e-9 + self._ahead_s
            if self._plan is not None:
                stamp_ns, driven_m = self._plan.plan.stamp_ns, self.poses.travelled_m - self._plan_m
                path.plan(self._plan.poses_map, stamp_ns * 1e-9 + self._ahead_s, (now_ns - stamp_ns) * 1e-9, driven_m)
                path.known(pose_map, speed_mps, steady_s)
                return self._control_s
        path.reckon(steady_s, rate, self._controller.bend_1pm, None if lost else speed_mps)
        return self._control_s

    def _is_over(self, stamp_ns: int, now_ns: int | None) -> bool:
        """Whether the latency of a plan is over, or the clock jumped back before it began."""
        return now_ns is None or not stamp_ns <= now_ns < stamp_ns + self._faults.late_ns(stamp_ns)

    def _command(self, decision: Decision, now_s: float) -> Command:
        path, limits = self._last_path, self.config.controller
        # Braking for a fault has no time to lose; what was never there, or is to end, is met gently.
        stop_mps2 = limits.stop_mps2 if decision.patient and not self._jumped_on else limits.max_brake_mps2
        if path.poses_map is None and not len(self.poses):
            return Command(0.0, stop_mps2)
        if path.poses_map is None or path.pose_map is None or path.age_s > FUTURE_STEPS * STEP_S:
            return replace(self._controller.brake(now_s), accel_mps2=stop_mps2)
        command = self._controller.command(
            path.poses_map, path.stamp_s, now_s, path.pose_map, path.speed_mps, path.driven_m, self._blind_s
        )
        return command if decision.drive else Command(command.steer_rad, stop_mps2)

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
        observation = self._senses.observation(self.config.frames, self.config.rolling_start_mps)
        if observation is not None:
            self._asked_ns, self._policy_free = newest.stamp_ns, False
            self._submit(replace(observation, instruction=self._instruction))

    def _forget(self, speed_mps: float) -> None:
        """The vehicle or its clock jumped, or is said to have."""
        self.jumps += 1
        path = self._last_path
        goes_on = path.speed_mps > _MOVING_MPS and abs(path.speed_mps - speed_mps) < _SAME_MPS
        if not goes_on:
            path.forget()
            self._controller.reset()
        self._jumped = self._jumped_on = goes_on
        self._ahead_s = self._ahead_s if goes_on else 0.0
        self._plan = self._said = self._asked_ns = None
        self._senses.forget()
        self.safety_monitor.forget_plan()
