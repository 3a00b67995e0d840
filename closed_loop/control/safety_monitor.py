"""The watchdog of the driver: says at every control tick whether it is safe to follow the plan, and if not, why.

Pure: it never reads a clock, it is told the time. Give it a steady clock. A clock that follows ``/clock`` stops
together with the simulator, and a watchdog on it would sleep exactly when it is needed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from collector.common.arguments import Arguments, argument
from collector.geometry.poses import FloatArray, wrap_angle
from finetune.policy import FUTURE_STEPS, STEP_S

_LATE_S = 0.5  # a plan that is this much later than usual does not come


@dataclass(frozen=True)
class SafetyLimits(Arguments):
    """When to brake. Times are seconds of the vehicle's time, see :meth:`SafetyMonitor.check`."""

    # ages of the newest camera frame and odometry are those of their arrival, on a steady clock
    frame_age_s: float = argument(0.5, "vehicle seconds without a frame before the kart is braked", 0.05, 10.0)
    odometry_age_s: float = argument(0.5, "vehicle seconds without odometry before the kart is braked", 0.05, 10.0)
    # plan in use seen longer ago than this (image stamp t0 to now: inference time counts, and so does a policy that
    # hangs or a camera that repeats an old image)
    plan_age_s: float = argument(
        1.5,
        "age of the plan's image, vehicle seconds, before the kart is braked; where plans always take longer, the next "
        "one is waited for",
        0.05,
        30.0,
    )
    plan_start_m: float = 1.5  # the first waypoint, 0.1 s after t0, farther than this from the vehicle
    plan_step_m: float = 2.0  # two neighbouring waypoints farther apart than this (2 m in 0.1 s is 20 m/s)
    plan_turn_rad: float = 1.0  # heading change between neighbouring waypoints
    plan_offset_m: float = 4.0  # the vehicle farther than this from every waypoint of the plan it follows (a teleport)


DEFAULT_LIMITS = SafetyLimits()


@dataclass(frozen=True)
class Decision:
    """The answer of one check."""

    drive: bool  # follow the plan; False means brake
    reason: str = ""  # empty while driving, otherwise one of the named reasons, e.g. `"camera frame stale"`.
    detail: str = ""  # the measured value beside its limit


def plan_defect(poses_ego: FloatArray, limits: SafetyLimits = DEFAULT_LIMITS) -> str:
    """Why a plan, (64, 3) in the ego frame at its t0, cannot be followed, or an empty string."""
    poses = np.asarray(poses_ego, dtype=np.float64)
    if poses.shape != (FUTURE_STEPS, 3):
        return f"shape {poses.shape}, expected ({FUTURE_STEPS}, 3)"
    if not np.isfinite(poses).all():
        return f"{int((~np.isfinite(poses)).any(axis=1).sum())} waypoints are not finite"
    start_m = float(np.hypot(poses[0, 0], poses[0, 1]))
    if start_m > limits.plan_start_m:
        return f"starts {start_m:.1f} m from the vehicle, limit {limits.plan_start_m:g} m"
    steps_m = np.hypot(*np.diff(poses[:, :2], axis=0).T)
    worst = int(np.argmax(steps_m))
    if steps_m[worst] > limits.plan_step_m:
        return f"jumps {steps_m[worst]:.1f} m at {(worst + 2) * STEP_S:.1f} s, limit {limits.plan_step_m:g} m in 0.1 s"
    turns_rad = np.abs(wrap_angle(np.diff(poses[:, 2], prepend=0.0)))
    worst = int(np.argmax(turns_rad))
    if turns_rad[worst] > limits.plan_turn_rad:
        return f"turns {turns_rad[worst]:.1f} rad at {(worst + 1) * STEP_S:.1f} s, limit {limits.plan_turn_rad:g}"
    return ""


@dataclass
class SafetyMonitor:
    """Collects the arrivals of frames, odometry and plans, and judges them at every control tick.

    All ``*_s`` arguments are seconds of one steady clock. Not thread-safe: the caller holds its own lock.
    """

    limits: SafetyLimits = DEFAULT_LIMITS
    brakes: Counter[str] = field(default_factory=Counter)
    defect: str = ""  # what is wrong with the newest plan, empty when it is sound
    _frame_s: float | None = None
    _odometry_s: float | None = None
    _has_plan: bool = False
    _dead: str = ""
    _forbidden: tuple[str, str] = ("", "")
    _stopping: bool = False
    _last_reason: str = ""

    def frame_arrived(self, steady_s: float) -> None:
        """Take note of a camera frame."""
        self._frame_s = steady_s

    def odometry_arrived(self, steady_s: float) -> None:
        """Take note of an odometry message."""
        self._odometry_s = steady_s

    def plan_arrived(self, poses_ego: FloatArray) -> str:
        """Take note of a plan; returns its defect, empty when the plan may be used.

        A defective plan stops the kart until a sound one follows: whatever made the policy say nonsense
        is about the present, and the plan before it is older still.
        """
        self.defect = plan_defect(poses_ego, self.limits)
        self._has_plan = self._has_plan or not self.defect
        return self.defect

    def policy_failed(self, why: str) -> None:
        """The policy answered with an error instead of a plan."""
        self.defect = why

    def policy_died(self, why: str) -> None:
        """The policy process is gone: nothing ends this."""
        self._dead = why

    def forbid(self, reason: str, detail: str = "") -> None:
        """Brake for a reason that lies outside of what is seen here, until it is taken back with an empty one."""
        self._forbidden = reason, detail

    def stop(self) -> None:
        """The drive is over: brake from now on, whatever else is well."""
        self._stopping = True

    def forget_plan(self) -> None:
        """The world jumped (reset, teleport): earlier plans say nothing about it."""
        self._has_plan, self.defect = False, ""

    def check(
        self,
        steady_s: float,
        plan_age_s: float | None,
        plan_offset_m: float | None = None,
        time_rate: float = 1.0,
        plan_due_s: float = 0.0,
    ) -> Decision:
        """Judge the present moment.

        ``plan_age_s`` is vehicle time since the plan's image, None without a plan; ``plan_offset_m`` the distance of
        the vehicle from the plan's nearest waypoint; ``time_rate`` seconds of vehicle time per steady second: 1 for the
        real kart and AWSIM, while a simulation at four times real time goes stale four times sooner. ``plan_due_s`` is
        the age at which a plan is replaced as a rule.
        """
        plan_reasons = self._plan_reasons(plan_age_s, plan_offset_m, plan_due_s)
        reasons = chain(self._input_reasons(steady_s, time_rate), plan_reasons)
        reason, detail = next(reasons, ("", ""))
        if reason and reason != self._last_reason:
            self.brakes[reason] += 1
        self._last_reason = reason
        return Decision(not reason, reason, detail)

    def _input_reasons(self, steady_s: float, time_rate: float) -> Iterator[tuple[str, str]]:
        """Reasons to brake that do not lie in the plan, each with its detail; the gravest first."""
        if self._dead:
            yield "policy process died", self._dead
        if self._forbidden[0]:
            yield self._forbidden
        for what, arrived_s, limit_s in (
            ("camera frame", self._frame_s, self.limits.frame_age_s),
            ("odometry", self._odometry_s, self.limits.odometry_age_s),
        ):
            age_s = 0.0 if arrived_s is None else (steady_s - arrived_s) * time_rate
            if arrived_s is None:
                yield f"no {what} yet", ""
            elif age_s > limit_s:
                yield f"{what} stale", f"{age_s:.2f} s old, limit {limit_s:g} s"
        if self._stopping:
            yield "stopping", ""

    def _plan_reasons(
        self, plan_age_s: float | None, plan_offset_m: float | None, plan_due_s: float
    ) -> Iterator[tuple[str, str]]:
        limits = self.limits
        # One plan is under way at a time: with a policy that takes a second, a sound plan is two seconds old when the
        # next one comes. The controller is slow by then, see ControllerConfig.blind_m.
        longest_s = max(limits.plan_age_s, min(plan_due_s + _LATE_S, FUTURE_STEPS * STEP_S))
        if self.defect:
            yield "plan not sane", self.defect
        if not self._has_plan or plan_age_s is None:
            yield "no plan yet", ""
        elif plan_age_s > longest_s:
            yield "plan stale", f"{plan_age_s:.2f} s old, limit {longest_s:.3g} s"
        elif plan_age_s < -STEP_S:
            yield "plan from the future", f"{-plan_age_s:.2f} s ahead of the odometry"
        if plan_offset_m is not None and not plan_offset_m <= limits.plan_offset_m:
            yield "vehicle off its plan", f"{plan_offset_m:.1f} m, limit {limits.plan_offset_m:g} m"
