"""The steering's actuator, found from commands and reported angles: dead time, first-order lag, rate limit, and gain.

The commands are held until the next, late by the dead time, followed by a first-order lag of limited rate, times the
gain. Of dead time, lag and limit a coarse table is tried, and the best is refined by the steps of D. W. Marquardt ("An
Algorithm for Least-Squares Estimation of Nonlinear Parameters", 1963); gain and offset of each try are a linear
least-squares fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from collector.geometry.poses import FloatArray

_FINE_S, _COARSE_S = 0.005, 0.02  # steps of the model; the latter to search with
_DEAD_TIMES_S = np.arange(0.0, 0.56, 0.04)
_LAGS_S = np.array([0.01, 0.03, 0.08, 0.16, 0.32, 0.64])
_RATES_1PS = np.array([0.3, 0.6, 1.0, 1.6, 3.0, 1000.0])  # of the angle in units of the gain
_BOUNDS = np.array([(0.0, 0.6), (1e-3, 1.0), (0.05, 1000.0)])
_MOST_REFINEMENTS = 40
_MOVING_RADPS = 0.02  # slower wheels stand, as to the share of the time at the limit
_SPIKE = 6.0  # reports so many times farther off than the median do not count


@dataclass(frozen=True, eq=False)
class ActuatorFit:
    """What was found; errors are standard errors."""

    dead_time_s: tuple[float, float]  # value and error
    lag_s: tuple[float, float]
    rate_radps: tuple[float, float]  # of the reported angle
    gain: tuple[float, float]  # reported over commanded angle
    limited: float  # share of the time, of turning wheels, at the rate limit
    fastest_radps: float
    modelled_rad: FloatArray  # (R,) the reports as the model has them


class ActuatorData:
    """Commands (C,) and reports (R,) by rising seconds of one clock, and what the model makes of them."""

    def __init__(
        self, command_s: FloatArray, command_rad: FloatArray, report_s: FloatArray, report_rad: FloatArray
    ) -> None:
        self._command_s, self._command_rad = command_s, command_rad
        self.report_s, self.report_rad = report_s, report_rad
        # Its difference over a step of the grid is the mean command there, exact for any dead time.
        self._integral = np.concatenate([[0.0], np.cumsum(command_rad[:-1] * np.diff(command_s))])
        self.weights = np.ones(len(report_rad))

    def angles(self, shapes: FloatArray, step_s: float = _FINE_S) -> tuple[FloatArray, FloatArray]:
        """(R, K) reports over gain of shapes (K, 3): dead time, lag, rate; and how much of the time limited (K,)."""
        grid_s = np.arange(self.report_s[0], self.report_s[-1] + step_s, step_s)
        times = grid_s[:, None] - shapes[None, :, 0]
        sums = np.interp(times, self._command_s, self._integral)
        sums += np.maximum(times - self._command_s[-1], 0.0) * self._command_rad[-1]
        sums += np.minimum(times - self._command_s[0], 0.0) * self._command_rad[0]
        goals = np.diff(sums, axis=0) / step_s
        share, limit = 1.0 - np.exp(-step_s / shapes[:, 1]), shapes[:, 2] * step_s
        angle, angles = goals[0].copy(), np.empty(times.shape)
        angles[0] = angle
        for index, goal in enumerate(goals, start=1):
            angle = angle + np.clip((goal - angle) * share, -limit, limit)
            angles[index] = angle
        turned = np.abs(np.diff(angles, axis=0))
        moving = turned > _MOVING_RADPS * step_s
        limited = ((turned > 0.999 * limit) & moving).sum(axis=0) / np.maximum(moving.sum(axis=0), 1)
        return np.stack([np.interp(self.report_s, grid_s, each) for each in angles.T], axis=1), limited

    def solved(self, shapes: FloatArray, step_s: float = _FINE_S) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Of shapes (K, 3) the cost (K,), the best gain (K,), and what is left of the reports (R, K)."""
        angles, _ = self.angles(shapes, step_s)
        weights, report = self.weights, self.report_rad
        centre, mean = (weights @ angles) / weights.sum(), (weights @ report) / weights.sum()
        spread = angles - centre
        gain = (weights * (report - mean)) @ spread / np.maximum(weights @ spread**2, 1e-12)
        left = (report - mean)[:, None] - spread * gain
        return weights @ left**2, gain, left


def fit_actuator(data: ActuatorData) -> ActuatorFit:
    """The model that explains the reports best."""
    tried = np.stack(np.meshgrid(_DEAD_TIMES_S, _LAGS_S, _RATES_1PS, indexing="ij"), axis=-1).reshape(-1, 3)
    costs = np.concatenate([data.solved(part, _COARSE_S)[0] for part in np.array_split(tried, 8)])
    shape = tried[int(np.argmin(costs))]
    for _ in range(2):
        shape = _refined(shape, data)
        left = np.abs(data.solved(shape[None])[2][:, 0])
        data.weights = (left <= _SPIKE * max(float(np.median(left)), 1e-4)).astype(np.float64)
    _, gains, lefts = data.solved(shape[None])
    gain = float(gains[0])
    dead, lag, rate, of_gain = _errors(shape, data).tolist()
    angles, limited = data.angles(shape[None])
    modelled = data.report_rad - lefts[:, 0]
    fastest = float(np.max(np.abs(np.diff(angles[:, 0]) / np.maximum(np.diff(data.report_s), 1e-3))))
    return ActuatorFit(
        (float(shape[0]), dead),
        (float(shape[1]), lag),
        (abs(gain) * float(shape[2]), abs(gain) * rate),
        (gain, of_gain),
        float(limited[0]),
        abs(gain) * fastest,
        modelled,
    )


def _nudged(shape: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(4, 3) a shape and it with each parameter changed a little, and by how much (3,)."""
    nudges = np.array([0.002, max(0.02 * shape[1], 0.001), 0.01 * shape[2]])
    return np.vstack([shape, shape + np.diag(nudges)]), nudges


def _refined(shape: FloatArray, data: ActuatorData) -> FloatArray:
    """The shape of least cost nearby."""
    damping = 1e-3
    for _ in range(_MOST_REFINEMENTS):
        shapes, nudges = _nudged(shape)
        costs, _, left = data.solved(shapes)
        slopes = data.weights[:, None] * (left[:, 1:] - left[:, :1]) / nudges
        normal, right = slopes.T @ slopes, slopes.T @ left[:, 0]
        scale = np.diag(np.diag(normal) + 1e-12)
        dampings = damping * np.array([0.1, 1.0, 10.0, 100.0])
        tries = np.array([shape - np.linalg.solve(normal + each * scale, right) for each in dampings])
        tries = np.clip(tries, *_BOUNDS.T)
        found = data.solved(tries)[0]
        best = int(np.argmin(found))
        if not found[best] < costs[0] * (1.0 - 1e-7):
            break
        damping, shape = float(dampings[best]), tries[best]
    return shape


def _errors(shape: FloatArray, data: ActuatorData) -> FloatArray:
    """(4,) standard errors of the shape and the gain.

    What is left of a wrong model comes in runs of one sign, which count as fewer reports.
    """
    shapes, nudges = _nudged(shape)
    _, gains, left = data.solved(shapes)
    slopes = data.weights[:, None] * (left[:, 1:] - left[:, :1]) / nudges
    rest = left[data.weights > 0, 0]
    alike = float(rest[:-1] @ rest[1:] / max(rest @ rest, 1e-12))
    alike = min(max(alike, 0.0), 0.95)
    spread = float(rest @ rest) / max(len(rest) - 5, 1) * (1.0 + alike) / (1.0 - alike)
    covariance = spread * np.linalg.pinv(slopes.T @ slopes)
    of_gain = (gains[1:] - gains[0]) / nudges
    own = spread / max(float(gains[0] ** -2 * (data.report_rad.var() * len(rest))), 1e-12)
    variances = np.append(np.diag(covariance), of_gain @ covariance @ of_gain + own)
    return np.asarray(np.sqrt(np.maximum(variances, 0.0)), np.float64)
