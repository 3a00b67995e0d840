"""Distances between a planned and a driven path. Pure numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetune.policy import STEP_S

HORIZONS_S = (1.0, 3.0, 5.0, 6.4)
# Up to here a plan is driven before newer ones have replaced it; the experiment's figure looks no further.
MAIN_HORIZON_S = 3.0
MAX_DEVIATION = f"max_deviation_{MAIN_HORIZON_S:g}s_m"


def path_errors(plan: ArrayLike, truth: ArrayLike, dt_s: float = STEP_S) -> dict[str, float]:
    """ADE, FDE, the largest deviation and the largest lateral deviation up to each horizon, metres.

    Args:
        plan, truth: (64, 2 or 3) ego positions at dt_s, ... 64 dt_s.
    """
    distance = np.linalg.norm(np.asarray(plan)[:, :2] - np.asarray(truth)[:, :2], axis=1)
    lateral = distance_from_line(plan, truth)
    errors: dict[str, float] = {}
    for horizon in HORIZONS_S:
        steps = round(horizon / dt_s)
        errors[f"ade_{horizon:g}s_m"] = float(distance[:steps].mean())
        errors[f"fde_{horizon:g}s_m"] = float(distance[steps - 1])
        errors[f"max_deviation_{horizon:g}s_m"] = float(distance[:steps].max())
        errors[f"max_lateral_{horizon:g}s_m"] = float(lateral[:steps].max())
    return errors


def distance_from_line(plan: ArrayLike, truth: ArrayLike) -> NDArray[np.float64]:
    """Distance of each planned position (N,) from the driven path as a line, whatever the time, metres.

    The line begins at the origin and goes straight on behind the last driven position: a faster plan is not beside it.
    """
    points, driven = np.asarray(plan, np.float64)[:, :2], np.asarray(truth, np.float64)
    line = np.vstack([np.zeros((1, 2)), driven[:, :2]])
    yaw = driven[-1, 2] if driven.shape[1] > 2 else np.arctan2(*(line[-1] - line[-2])[::-1])
    reach_m = 1.0 + float(np.linalg.norm(points - line[-1], axis=1).max())
    line = np.vstack([line, line[-1] + reach_m * np.array([np.cos(yaw), np.sin(yaw)])])
    start, step = line[:-1], np.diff(line, axis=0)
    length2 = np.maximum((step**2).sum(axis=1), np.finfo(float).tiny)
    along = np.clip(((points[:, None] - start) * step).sum(axis=-1) / length2, 0.0, 1.0)
    foot = start + along[..., None] * step
    nearest: NDArray[np.float64] = np.linalg.norm(points[:, None] - foot, axis=-1).min(axis=1)
    return nearest


def best_of_draws(draws: ArrayLike, truth: ArrayLike, dt_s: float = STEP_S) -> NDArray[np.float64]:
    """MinADE of the first k draws, for every k: (K, horizons), never rising with k, metres.

    Args:
        draws: (K, 64, 2 or 3) plans for one observation.
        truth: (64, 2 or 3) what was driven.
    """
    distance = np.linalg.norm(np.asarray(draws)[..., :2] - np.asarray(truth)[:, :2], axis=-1)
    each = np.stack([distance[:, : round(horizon / dt_s)].mean(axis=1) for horizon in HORIZONS_S], axis=1)
    best: NDArray[np.float64] = np.minimum.accumulate(each, axis=0)
    return best
