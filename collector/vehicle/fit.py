"""What a drive tells of its vehicle: steering gain, dead time, lag, rate limit, and the scales of its wheels' reports.

How the reported tyre angle follows the commands is :mod:`collector.vehicle.actuator`; the scales of speed and angle are
those with which the reports explain the way and the turns of the poses. A value is told only where it shows.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from collector.common.arguments import arguments_of
from collector.geometry.poses import FloatArray, interpolate_poses
from collector.vehicle.actuator import ActuatorData, fit_actuator
from collector.vehicle.model import VehicleModel

_POSE_STEP_S, _WINDOW_S = 0.05, 0.5  # way and turns are compared over windows
# What a value must show to be told, and how well it must be known (its standard error, as a part of it).
_FEWEST_COMMANDS, _FEWEST_REPORTS = 10, 30
_LEAST_COMMAND_RAD = 0.02  # spread of the commands
_LEAST_LIMITED = 0.01  # share of the time at the rate limit
_LEAST_WAY_M, _LEAST_TURN_RAD = 20.0, 2.0
_MOST_ERROR = 0.05
_SHORT_S = 0.02  # a dead time or lag below this need be known to the millisecond only
_MOST_TIRE_RAD = 1.3
_LONGEST_S = 10_800.0  # a fit of more would take gigabytes
_RANGES = {each.name: each for each in arguments_of(VehicleModel)}


@dataclass(frozen=True, eq=False)
class DriveSignals:
    """What was recorded, each stream by stamps of one clock in seconds, rising."""

    command_s: FloatArray  # (C,)
    command_rad: FloatArray  # (C,) commanded tyre angle
    report_s: FloatArray  # (R,)
    report_rad: FloatArray  # (R,) reported tyre angle
    speed_s: FloatArray  # (V,)
    speed_mps: FloatArray  # (V,) reported speed
    # stretches of poses without a jump: stamps (N,) in nanoseconds and (N, 3) in the map
    poses: tuple[tuple[NDArray[np.int64], FloatArray], ...] = ()


@dataclass(eq=False)
class VehicleFit:
    """What was found: by the names of VehicleModel values and standard errors, or a sentence why not."""

    values: dict[str, float] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    shown: dict[str, FloatArray] = field(default_factory=dict)  # for the plot

    def take(self, name: str, value: float, error: float, do: str, at_least: float = 0.0) -> None:
        """Keep a value if it is known well enough and a vehicle may have it; ``do`` says what would tell it better."""
        known = _RANGES[name]
        if not error <= _MOST_ERROR * max(abs(value), at_least):
            self.refused[name] = f"it is {value:.3g} +- {error:.2g} only: {do}"
        elif not known.minimum <= value <= known.maximum:
            self.refused[name] = f"{value:.3g}, and a vehicle has {known.limits}: see the units and signs of the topics"
        else:
            self.values[name], self.errors[name] = value, error


def fit_vehicle(signals: DriveSignals, base: VehicleModel) -> VehicleFit:
    """Fit a recorded drive; what it does not tell stays out. ``base`` gives wheelbase and steering limit."""
    fit = VehicleFit()
    ways_m, turns_rad, edges_s = _windows(signals)
    _fit_speed(fit, signals, ways_m, edges_s)
    _fit_report(fit, signals, base, ways_m, turns_rad, edges_s)
    _fit_steering(fit, signals, base)
    return fit


def _fit_steering(fit: VehicleFit, signals: DriveSignals, base: VehicleModel) -> None:
    names = ("steering_gain", "dead_time_s", "lag_s", "steer_rate_radps")
    commands, reports = len(signals.command_s), len(signals.report_s)
    command_rad = np.clip(signals.command_rad, -base.max_steer_rad, base.max_steer_rad)
    if commands < _FEWEST_COMMANDS or reports < _FEWEST_REPORTS:
        fit.refused |= dict.fromkeys(names, f"{commands} commands and {reports} steering reports are too few")
        return
    if np.std(command_rad) < _LEAST_COMMAND_RAD:
        why = f"the wheels were hardly turned (commands within {np.ptp(command_rad):.3f} rad): drive bends"
        fit.refused |= dict.fromkeys(names, why)
        return
    reach_s = float(signals.report_s[-1] - signals.report_s[0])
    if reach_s > _LONGEST_S:
        why = f"the stamps of the reports reach over {reach_s:.3g} s: read a bag of {_LONGEST_S:g} s at most"
        fit.refused |= dict.fromkeys(names, why)
        return
    found = fit_actuator(ActuatorData(signals.command_s, command_rad, signals.report_s, signals.report_rad))
    scale = fit.values.get("report_scale", base.report_scale)
    if not found.gain[0] > 0.0:
        fit.refused |= dict.fromkeys(names, f"the reports do not follow the commands (gain {found.gain[0]:.3f})")
        return
    do = "steer harder, and longer"
    fit.take("steering_gain", scale * found.gain[0], scale * found.gain[1], do)
    fit.take("dead_time_s", *found.dead_time_s, do, _SHORT_S)
    fit.take("lag_s", *found.lag_s, do, _SHORT_S)
    if found.limited < _LEAST_LIMITED:
        fastest = scale * found.fastest_radps
        why = f"the wheels never turned as fast as they can ({fastest:.2f} rad/s at most): steer harder"
        fit.refused["steer_rate_radps"] = why
    else:
        fit.take("steer_rate_radps", scale * found.rate_radps[0], scale * found.rate_radps[1], do)
    fit.shown |= {"report_s": signals.report_s, "report_rad": signals.report_rad, "modelled_rad": found.modelled_rad}
    fit.shown |= {"command_s": signals.command_s, "command_rad": signals.command_rad}


def _fit_speed(fit: VehicleFit, signals: DriveSignals, ways_m: FloatArray, edges_s: FloatArray) -> None:
    name, reports = "speed_scale", len(signals.speed_s)
    if reports < _FEWEST_REPORTS or not len(ways_m):
        fit.refused[name] = f"{reports} velocity reports and {len(ways_m)} half seconds of poses are too few"
        return
    reported_m = np.abs(_integral(signals.speed_s, signals.speed_mps, edges_s))
    scale, error, kept = _ratio(ways_m, reported_m)
    way_m = float(ways_m[kept].sum())
    if way_m < _LEAST_WAY_M:
        fit.refused[name] = f"{way_m:.0f} m driven with poses and reports: drive {_LEAST_WAY_M:g} m at least"
    else:
        fit.take(name, scale, error, "drive longer")
    fit.shown |= {"way_m": ways_m[kept], "reported_m": reported_m[kept]}


def _fit_report(
    fit: VehicleFit,
    signals: DriveSignals,
    base: VehicleModel,
    ways_m: FloatArray,
    turns_rad: FloatArray,
    edges_s: FloatArray,
) -> None:
    name, reports = "report_scale", len(signals.report_s)
    if reports < _FEWEST_REPORTS or not len(ways_m):
        fit.refused[name] = f"{reports} steering reports and {len(ways_m)} half seconds of poses are too few"
        return
    scale = 1.0
    # Turns are nearly proportional to the angle: a few rounds settle the tangent's bend.
    for _ in range(4):
        curvature = np.tan(np.clip(scale * signals.report_rad, -_MOST_TIRE_RAD, _MOST_TIRE_RAD)) / base.wheelbase_m
        explained = ways_m * _integral(signals.report_s, curvature, edges_s) / _WINDOW_S
        factor, error, kept = _ratio(turns_rad, explained)
        scale = min(max(scale * factor, 0.05), 20.0)
    turned_rad = float(np.abs(turns_rad[kept]).sum())
    if turned_rad < _LEAST_TURN_RAD:
        fit.refused[name] = f"the kart turned by {turned_rad:.1f} rad: drive bends of {_LEAST_TURN_RAD:g} rad at least"
    else:
        fit.take(name, scale, scale * error, "drive more bends")
    fit.shown |= {"turn_rad": turns_rad[kept], "explained_rad": explained[kept]}


def _windows(signals: DriveSignals) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Ways and turns of the poses over windows (W,), and the windows' edges (W, 2) in seconds."""
    ways: list[float] = []
    turns: list[float] = []
    edges: list[tuple[float, float]] = []
    size = round(_WINDOW_S / _POSE_STEP_S)
    for stamps_ns, poses in signals.poses:
        grid_ns = np.arange(stamps_ns[0], stamps_ns[-1], round(_POSE_STEP_S * 1e9), dtype=np.int64)
        if len(stamps_ns) < 2 or len(grid_ns) <= size:
            continue
        placed = interpolate_poses(stamps_ns, poses, grid_ns)
        steps_m, yaw_rad = np.hypot(*np.diff(placed[:, :2], axis=0).T), np.unwrap(placed[:, 2])
        for first in range(0, len(steps_m) - size, size):
            ways.append(float(steps_m[first : first + size].sum()))
            turns.append(float(yaw_rad[first + size] - yaw_rad[first]))
            edges.append((grid_ns[first] * 1e-9, grid_ns[first + size] * 1e-9))
    return np.array(ways), np.array(turns), np.array(edges).reshape(-1, 2)


def _integral(times_s: FloatArray, values: FloatArray, edges_s: FloatArray) -> FloatArray:
    """Of a reported value over windows (W, 2), NaN where the reports do not cover one."""
    sums = np.concatenate([[0.0], np.cumsum(0.5 * (values[1:] + values[:-1]) * np.diff(times_s))])
    over = np.interp(edges_s[:, 1], times_s, sums) - np.interp(edges_s[:, 0], times_s, sums)
    inside = (edges_s[:, 0] >= times_s[0]) & (edges_s[:, 1] <= times_s[-1])
    return np.where(inside, over, np.nan)


def _ratio(wanted: FloatArray, had: FloatArray) -> tuple[float, float, NDArray[np.bool_]]:
    """The factor from one to the other, its standard error, and which windows counted: those far off do not."""
    kept = np.isfinite(wanted) & np.isfinite(had)
    factor = 1.0
    for _ in range(4):
        square = max(float(had[kept] @ had[kept]), 1e-12)
        factor = float(wanted[kept] @ had[kept]) / square
        left = np.abs(wanted - factor * had)
        median = float(np.median(left[kept])) if kept.any() else 0.0
        kept = np.isfinite(left) & (left <= 6.0 * max(median, 1e-3))
    spread = float(np.sum((wanted[kept] - factor * had[kept]) ** 2)) / max(int(kept.sum()) - 1, 1)
    return factor, float(np.sqrt(spread / max(float(had[kept] @ had[kept]), 1e-12))), kept
