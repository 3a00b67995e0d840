"""The watchdog of the driver: says at every control tick whether it is safe to follow the plan, and if not, why.

Pure: it never reads a clock, it is told the time. Give it a steady clock. A clock that follows ``/clock`` stops
together with the simulator, and a watchdog on it would sleep exactly when it is needed. What is wrong with a picture,
an odometry message or a plan is judged in :mod:`closed_loop.control.picture_health`, ``odometry_health`` and
``plan_health``: what they refuse has not arrived, and its age goes on.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

from closed_loop.control.plan_health import plan_contradiction, plan_defect
from closed_loop.control.safety_limits import DEFAULT_LIMITS, SafetyLimits
from collector.geometry.poses import FloatArray
from finetune.policy import FUTURE_STEPS, STEP_S

_LATE_S = 0.5  # a plan that is this much later than usual does not come
_WALK_MPS = 0.5  # below this speed metres say nothing about how long a plan is good for
_MOST_DOUBLED = 3  # how often the wait after a fault is doubled
STALE_PLAN = "plan stale"
IMPLAUSIBLE = "odometry implausible"
# Reasons that are no faults: nothing has come yet, or somebody else says when to drive.
STOPPING = "stopping"
HELD = "held"
REVERSE = "in reverse"
_PATIENT = ("no camera frame yet", "no odometry yet", "no plan yet", STOPPING, HELD, REVERSE)


@dataclass(frozen=True)
class Decision:
    """The answer of one check."""

    drive: bool  # follow the plan; False means brake
    reason: str = ""  # empty while driving, otherwise one of the named reasons, e.g. `"camera frame stale"`.
    detail: str = ""  # the measured value beside its limit

    @property
    def patient(self) -> bool:
        """Whether the kart only waits for what has never come, or was asked to."""
        return self.reason in _PATIENT


@dataclass
class Health:
    """What is known of one of the driver's inputs."""

    name: str
    arrived_s: float | None = None  # steady time of the last good one
    count: int = 0  # good ones
    refused: Counter[str] = field(default_factory=Counter)  # how many were not, by what was wrong, without its numbers
    defect: str = ""  # of the newest, empty when it was good
    reason: str = ""  # why the kart brakes for it

    def arrived(self, steady_s: float) -> None:
        """A good one came."""
        self.arrived_s, self.defect, self.reason = steady_s, "", ""
        self.count += 1

    def refuse(self, defect: str, reason: str) -> None:
        """One came that cannot be used."""
        self.defect, self.reason = defect, reason
        self.refused[re.sub(r"[:,]? *[-+]?\d.*", "", defect) or defect] += 1


@dataclass
class SafetyMonitor:
    """Collects the arrivals of frames, odometry and plans, and judges them at every control tick.

    All ``*_s`` arguments are seconds of one steady clock. Not thread-safe: the caller holds its own lock.
    """

    limits: SafetyLimits = DEFAULT_LIMITS
    brakes: Counter[str] = field(default_factory=Counter)
    defect: str = ""  # what is wrong with the newest plan, empty when it is sound
    camera: Health = field(default_factory=lambda: Health("camera frame"))
    odometry: Health = field(default_factory=lambda: Health("odometry"))
    plans: Health = field(default_factory=lambda: Health("plan"))
    is_reverse: bool = False  # the gear, by what the kart reports: pushed, it would go backwards
    _clock: tuple[int, float] | None = None  # the node's clock, and the steady time since which it says so
    _has_plan: bool = False
    _dead: str = ""
    _forbidden: tuple[str, str] = ("", "")
    _stopping: bool = False
    _last_reason: str = ""
    # The fault that was last, when it was last seen, the frames until then; when the faults of late began
    _fault: Decision | None = None
    _fault_s: float = 0.0
    _fault_frames: int = 0
    _began_s: deque[float] = field(default_factory=deque)

    @property
    def refused(self) -> dict[str, int]:
        """How many frames, odometry messages and plans could not be used, by what was wrong."""
        inputs = (self.camera, self.odometry, self.plans)
        return {f"{health.name}: {what}": n for health in inputs for what, n in sorted(health.refused.items())}

    def frame_arrived(self, steady_s: float) -> None:
        """Take note of a camera frame."""
        self.camera.arrived(steady_s)

    def frame_refused(self, defect: str, reason: str = "camera picture unusable") -> None:
        """Take note of a frame that cannot be used."""
        self.camera.refuse(defect, reason)

    def odometry_arrived(self, steady_s: float) -> None:
        """Take note of an odometry message."""
        self.odometry.arrived(steady_s)

    def odometry_refused(self, defect: str) -> None:
        """Take note of an odometry message that cannot be used."""
        self.odometry.refuse(defect, IMPLAUSIBLE)

    def plan_arrived(
        self,
        poses_ego: FloatArray,
        speed_mps: float | None = None,
        before_ego: FloatArray | None = None,
        later_s: float = 0.0,
        repeats: bool = False,
    ) -> str:
        """Take note of a plan, made at a speed; returns its defect, empty when the plan may be used.

        ``before_ego`` is the plan in use, ``later_s`` older, in the frame of the new one, which ``repeats`` it or not.
        A defective plan stops the kart until a sound one follows: whatever made the policy say nonsense is about the
        present, and the plan before it is older still.
        """
        self.defect = plan_defect(poses_ego, self.limits, speed_mps)
        if not self.defect and before_ego is not None:
            self.defect = plan_contradiction(poses_ego, before_ego, later_s, repeats, self.limits)
        self._has_plan = self._has_plan or not self.defect
        if self.defect:
            self.plans.refuse(self.defect, "plan not sane")
        else:
            self.plans.arrived(0.0)
        return self.defect

    def policy_failed(self, why: str) -> None:
        """The policy answered with an error instead of a plan."""
        self.defect = why
        self.plans.refuse("the policy answered with an error", "plan not sane")

    def policy_died(self, why: str) -> None:
        """The policy process is gone: nothing ends this."""
        self._dead = why

    def clock(self, clock_ns: int, steady_s: float) -> None:
        """Take note of what the node's clock says; 0 for one that has never been told the time."""
        if clock_ns and (self._clock is None or self._clock[0] != clock_ns):
            self._clock = clock_ns, steady_s

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
        speed_mps: float = 0.0,
    ) -> Decision:
        """Judge the present moment.

        ``plan_age_s`` is vehicle time since the plan's image, None without a plan; ``plan_offset_m`` the distance of
        the vehicle from the plan's nearest waypoint; ``time_rate`` seconds of vehicle time per steady second: 1 for the
        real kart and AWSIM, while a simulation at four times real time goes stale four times sooner. ``plan_due_s`` is
        the age at which a plan is replaced as a rule.
        """
        plan_reasons = self._plan_reasons(plan_age_s, plan_offset_m, plan_due_s, speed_mps)
        reasons = chain(self._input_reasons(steady_s, time_rate), plan_reasons)
        reason, detail = next(reasons, ("", ""))
        decision = Decision(not reason, reason, detail)
        if reason and not decision.patient:
            if self._fault is None or self._fault.reason != reason:
                self._began_s.append(steady_s)
            self._fault, self._fault_s, self._fault_frames = decision, steady_s, self.camera.count
        elif not reason and self._fault is not None:
            decision = self._waiting(self._fault, steady_s, time_rate)
        if decision.reason and decision.reason != self._last_reason:
            self.brakes[decision.reason] += 1
        self._last_reason = decision.reason
        return decision

    def _waiting(self, fault: Decision, steady_s: float, time_rate: float) -> Decision:
        """After a fault: drive on only when all has been well for a while, the longer the more faults there were."""
        limits, over_s = self.limits, (steady_s - self._fault_s) * time_rate
        while self._began_s and (steady_s - self._began_s[0]) * time_rate > limits.repeat_s:
            self._began_s.popleft()
        times = min(max(len(self._began_s) - 1, 0), _MOST_DOUBLED)
        # A single plan that was late, and has come, leaves nothing to wait for.
        wait_s = limits.recover_s * (2**times - (fault.reason == STALE_PLAN))
        wait_s *= limits.doubt if fault.reason == IMPLAUSIBLE else 1
        few = self.camera.count - self._fault_frames < limits.recover_frames and wait_s > 0.0
        if over_s < wait_s or few:
            detail = f"over for {over_s:.1f} s, driving on after {wait_s:g} s and {limits.recover_frames} frames"
            return Decision(False, fault.reason, detail)
        self._fault = None
        return Decision(True)

    def _input_reasons(self, steady_s: float, time_rate: float) -> Iterator[tuple[str, str]]:
        """Reasons to brake that do not lie in the plan, each with its detail; the gravest first."""
        if self._dead:
            yield "policy process died", self._dead
        if self._forbidden[0]:
            yield self._forbidden
        if self.is_reverse:
            yield REVERSE, "the gear is asked for anew every second"
        for health, patience_s in ((self.camera, self.limits.frame_age_s), (self.odometry, self.limits.odometry_age_s)):
            age_s = 0.0 if health.arrived_s is None else (steady_s - health.arrived_s) * time_rate
            limit_s = min(patience_s, self.limits.refused_age_s) if health.defect else patience_s
            if health.arrived_s is None:
                yield f"no {health.name} yet", health.defect
            elif age_s > limit_s:
                words = f"{health.defect}; " if health.defect else ""
                yield health.reason or f"{health.name} stale", f"{words}{age_s:.2f} s old, limit {limit_s:g} s"
        if self._clock is not None:
            age_s = (steady_s - self._clock[1]) * time_rate
            if age_s > self.limits.clock_age_s:
                yield "clock stands still", f"for {age_s:.2f} s, limit {self.limits.clock_age_s:g} s"
        if self._stopping:
            yield STOPPING, ""

    def _plan_reasons(
        self, plan_age_s: float | None, plan_offset_m: float | None, plan_due_s: float, speed_mps: float
    ) -> Iterator[tuple[str, str]]:
        limits = self.limits
        # One plan is under way at a time: with a policy that takes a second, a sound plan is two seconds old when the
        # next one comes. The controller is slow by then, see ControllerConfig.blind_m.
        longest_s = max(limits.plan_age_s, min(plan_due_s + _LATE_S, FUTURE_STEPS * STEP_S))
        # A plan is worth less with every metre, so a fast kart waits for less long than a slow one.
        longest_s = min(longest_s, plan_due_s + limits.plan_late_m / max(speed_mps, _WALK_MPS))
        if self.defect:
            yield "plan not sane", self.defect
        if not self._has_plan or plan_age_s is None:
            yield "no plan yet", ""
        elif plan_age_s > longest_s:
            yield STALE_PLAN, f"{plan_age_s:.2f} s old, limit {longest_s:.3g} s at {speed_mps:.1f} m/s"
        elif plan_age_s < -STEP_S:
            yield "plan from the future", f"{-plan_age_s:.2f} s ahead of the odometry"
        if plan_offset_m is not None and not plan_offset_m <= limits.plan_offset_m:
            yield "vehicle off its plan", f"{plan_offset_m:.1f} m, limit {limits.plan_offset_m:g} m"
