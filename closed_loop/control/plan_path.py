"""A plan as a path: where it is at a time, how fast, and which of its points is nearest."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from collector.common.errors import MonoError
from collector.geometry.poses import FloatArray, distance_along


class PlanPath:
    """A plan (64, 3), ``step_s`` apart from t0 on, as a path: where to be and how fast, by time or by distance.

    Raises:
        MonoError: not (N >= 2, 3), or not finite.
    """

    def __init__(self, poses_map: ArrayLike, step_s: float) -> None:
        poses = np.asarray(poses_map, np.float64)
        if poses.ndim != 2 or poses.shape[1] != 3 or len(poses) < 2 or not np.isfinite(poses).all():
            found = f"a plan of shape {poses.shape}"
            raise MonoError(found, "at least two finite poses (N, 3)", "check Plan.poses before use")
        # The pose at t0 is not part of a plan; the first step taken backwards is where it started.
        self.xy = np.vstack([2.0 * poses[0, :2] - poses[1, :2], poses[:, :2]])
        self.t_s = step_s * np.arange(len(self.xy))
        self.s_m = distance_along(self.xy)
        self._along = steps = np.diff(self.xy, axis=0)
        self._length2 = np.maximum(np.einsum("nk,nk->n", steps, steps), 1e-12)
        heading = np.stack([np.cos(poses[:, 2]), np.sin(poses[:, 2])], axis=1)
        # Speed is the step along the heading, so that a plan that folds back asks for no forward speed.
        self._speed_t_s = (self.t_s[1:] + self.t_s[:-1]) / 2.0
        self._speed_mps = np.einsum("nk,nk->n", steps, heading) / step_s
        moving = np.linalg.norm(steps, axis=1) > 1e-3
        # Where it moves: one time for each distance.
        self._moving_m, self._moving_s = (np.append(each[:1], each[1:][moving]) for each in (self.s_m, self.t_s))
        last = steps[moving][-1] if moving.any() else heading[-1]
        self._exit = last / np.linalg.norm(last)

    def speed(self, t_s: float, window_s: float) -> tuple[float, float]:
        """Speed (m/s) and acceleration (m/s^2) at a time since t0, from a straight line over the window."""
        t_s = float(min(max(t_s, self._speed_t_s[0]), self._speed_t_s[-1]))
        first = min(max(t_s - window_s / 2.0, self._speed_t_s[0]), max(self._speed_t_s[-1] - window_s, 0.0))
        near = (self._speed_t_s >= first - 1e-9) & (self._speed_t_s <= first + window_s + 1e-9)
        times, speeds = self._speed_t_s[near], self._speed_mps[near]
        if len(times) < 2:
            return float(np.interp(t_s, self._speed_t_s, self._speed_mps)), 0.0
        middle_s, mean_mps = times.mean(), speeds.mean()
        accel = float(((times - middle_s) * (speeds - mean_mps)).sum() / ((times - middle_s) ** 2).sum())
        return float(mean_mps + accel * (t_s - middle_s)), accel

    def foot(self, xy: ArrayLike, near_m: float, search_m: float) -> float:
        """Distance along the path (m) of its point nearest to (2,) ``xy``, sought near a distance.

        The window keeps the kart on its own stretch where a path comes back to itself.
        """
        first, last = np.searchsorted(self.s_m, (near_m - search_m, near_m + search_m)).tolist()
        first = min(max(first - 1, 0), len(self.xy) - 2)
        last = min(max(last, first + 1), len(self.xy) - 1)
        start, along, length2 = self.xy[first:last], self._along[first:last], self._length2[first:last]
        offset = np.asarray(xy, np.float64) - start
        part = np.clip(np.einsum("nk,nk->n", offset, along) / length2, 0.0, 1.0)
        away = offset - part[:, None] * along
        best = int(np.einsum("nk,nk->n", away, away).argmin())
        return float(self.s_m[first + best] + part[best] * math.sqrt(length2[best]))

    def distance(self, t_s: float) -> float:
        """Distance along the path (m) at a time since t0."""
        return float(np.interp(t_s, self.t_s, self.s_m))

    def time(self, s_m: float) -> float:
        """Time since t0 (s) at a distance along the path; where it stands still the first."""
        return float(np.interp(s_m, self._moving_m, self._moving_s))

    def at(self, s_m: FloatArray) -> FloatArray:
        """Points (N, 2) at distances along the path; beyond its end straight on."""
        xy = np.stack([np.interp(s_m, self.s_m, self.xy[:, axis]) for axis in (0, 1)], axis=1)
        beyond: FloatArray = np.maximum(s_m - self.s_m[-1], 0.0)[:, None] * self._exit
        return xy + beyond
