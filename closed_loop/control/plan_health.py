"""Whether a plan can be driven.

It has to be numbers, begin where the kart is and lead forwards, round bends that the wheels and the speed allow, and
along the road of the plan before it.

Pure numpy; plans are (64, 3) poses in the ego frame at their t0, 0.1 to 6.4 s after it.
"""

from __future__ import annotations

import numpy as np

from closed_loop.control.plan_path import PlanPath
from closed_loop.control.safety_limits import DEFAULT_LIMITS, SafetyLimits
from collector.geometry.poses import FloatArray, distance_along, wrap_angle
from finetune.policy import FUTURE_STEPS, STEP_S

_POINT_M, _CHORD = (
    0.25,
    6,
)  # curvature is of three points 1.5 m apart, which the unevenness of a drawn path does not bend
_DRIVABLE_S, _LEAST_M = 3.0, 4.0  # so far ahead a plan has to be drivable
_SEARCH_M = 6.0  # how far along its path another plan may have got faster or slower
_BACK_S = 1.0  # a hairpin comes back later


def plan_defect(poses_ego: FloatArray, limits: SafetyLimits = DEFAULT_LIMITS, speed_mps: float | None = None) -> str:
    """Why a plan cannot be followed at a speed (None: not known), or an empty string."""
    poses = np.asarray(poses_ego, dtype=np.float64)
    if poses.shape != (FUTURE_STEPS, 3):
        return f"shape {poses.shape}, expected ({FUTURE_STEPS}, 3)"
    if not np.isfinite(poses).all():
        return f"{int((~np.isfinite(poses)).any(axis=1).sum())} waypoints are not finite"
    ahead_m = (speed_mps or 0.0) * STEP_S
    start_m = float(np.hypot(poses[0, 0] - ahead_m, poses[0, 1]))
    if start_m > limits.plan_start_m + (limits.plan_start_m if speed_mps is None else 0.0):
        return f"starts {start_m:.1f} m from the vehicle, limit {limits.plan_start_m:g} m"
    steps_m = np.hypot(*np.diff(poses[:, :2], axis=0).T)
    worst = int(np.argmax(steps_m))
    if steps_m[worst] > limits.plan_step_m:
        return f"jumps {steps_m[worst]:.1f} m at {(worst + 2) * STEP_S:.1f} s, limit {limits.plan_step_m:g} m in 0.1 s"
    turns_rad = np.abs(wrap_angle(np.diff(poses[:, 2], prepend=0.0)))
    worst = int(np.argmax(turns_rad))
    if turns_rad[worst] > limits.plan_turn_rad:
        return f"turns {turns_rad[worst]:.1f} rad at {(worst + 1) * STEP_S:.1f} s, limit {limits.plan_turn_rad:g}"
    return _undrivable(poses, limits, speed_mps or 0.0)


def _undrivable(poses: FloatArray, limits: SafetyLimits, speed_mps: float) -> str:
    """Backwards, or round bends that no kart drives, or not at this speed."""
    xy = np.vstack([[0.0, 0.0], poses[:, :2]])
    back_m = -float(xy[: round(_BACK_S / STEP_S) + 1, 0].min())
    yaw = np.concatenate([[0.0], poses[:, 2]])
    along_m = np.diff(xy, axis=0)[:, 0] * np.cos(yaw[:-1]) + np.diff(xy, axis=0)[:, 1] * np.sin(yaw[:-1])
    back_m = max(back_m, -float(along_m.sum()))
    if back_m > limits.plan_back_m:
        return f"leads {back_m:.1f} m backwards, limit {limits.plan_back_m:g} m"
    s_m = distance_along(xy)
    at_m = np.arange(0.0, min(s_m[-1], max(_LEAST_M, _DRIVABLE_S * speed_mps)), _POINT_M)
    if len(at_m) <= 2 * _CHORD:
        return ""
    points = np.stack([np.interp(at_m, s_m, xy[:, axis]) for axis in (0, 1)], axis=1)
    one, two = points[_CHORD:-_CHORD] - points[: -2 * _CHORD], points[2 * _CHORD :] - points[_CHORD:-_CHORD]
    cross = one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]
    # Of the circle through three points; a path that turns on the spot has no chord, and is as bent as can be.
    sides_m3 = np.hypot(*one.T) * np.hypot(*two.T) * np.hypot(*(one + two).T)
    bend_1pm = 2.0 * np.abs(cross) / np.maximum(sides_m3, 1e-3)
    bend_1pm[(one * two).sum(axis=1) < 0.0] = np.inf
    middle_m = at_m[_CHORD:-_CHORD]
    worst = int(np.argmax(bend_1pm))
    if bend_1pm[worst] > limits.plan_curvature_1pm:
        return f"bends by {bend_1pm[worst]:.2f} 1/m after {middle_m[worst]:.1f} m, limit {limits.plan_curvature_1pm:g}"
    # How slow the kart can be there, braking from now on.
    speed2 = np.maximum(speed_mps**2 - 2.0 * limits.plan_brake_mps2 * middle_m, 0.0)
    worst = int(np.argmax(bend_1pm * speed2))
    lateral_mps2 = float(bend_1pm[worst] * speed2[worst])
    if lateral_mps2 > limits.plan_lateral_mps2:
        allowed = f"limit {limits.plan_lateral_mps2:g}"
        return (
            f"asks for {lateral_mps2:.1f} m/s^2 aside after {middle_m[worst]:.1f} m at {speed_mps:.1f} m/s, {allowed}"
        )
    return ""


def plan_contradiction(
    poses_ego: FloatArray,
    before_ego: FloatArray,
    later_s: float,
    repeats: bool = False,
    limits: SafetyLimits = DEFAULT_LIMITS,
) -> str:
    """Where a plan leaves the way of the one taken before it, ``later_s`` older, in the same frame; empty where not.

    A road does not turn into another while the older plan still reaches there. A plan that ``repeats`` the other bit by
    bit, from another place, is of a policy that does not look any more unless both lie on one arc.
    """
    plan, before = PlanPath(poses_ego, STEP_S), PlanPath(before_ego, STEP_S)
    # Where the kart is on the older plan: at most as far as planned, and not so far where it had to brake.
    half_m = 0.5 * before.distance(later_s)
    here_m = before.foot((0.0, 0.0), half_m, half_m + _SEARCH_M)
    for t_s, change_m in zip(limits.plan_change_s, limits.plan_change_m, strict=True):
        if later_s + t_s > before.t_s[-1]:
            break
        limit_m = limits.plan_repeat_m if repeats else change_m
        place = plan.at(np.array([plan.distance(t_s)]))[0]
        foot_m = before.foot(place, here_m + plan.distance(t_s), _SEARCH_M)
        # Beyond the end of the way that the one before knew, nothing is contradicted.
        apart_m = float(np.hypot(*(before.at(np.array([foot_m]))[0] - place)))
        if apart_m > limit_m and foot_m < before.s_m[-1] - 1e-6:
            return f"leaves the plan before it by {apart_m:.1f} m at {t_s:g} s, limit {limit_m:g} m"
    return ""
