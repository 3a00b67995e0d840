"""Distances between a planned and a driven path, and the two baselines that need no model. Pure numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetune.policy import STEP_S

HORIZONS_S = (1.0, 3.0, 5.0, 6.4)


def path_errors(plan: ArrayLike, truth: ArrayLike, dt_s: float = STEP_S) -> dict[str, float]:
    """ADE and FDE at each horizon and the largest deviation within 3 s, metres.

    Args:
        plan, truth: (64, 2 or 3) ego positions at dt_s, ... 64 dt_s.
    """
    distance = np.linalg.norm(np.asarray(plan)[:, :2] - np.asarray(truth)[:, :2], axis=1)
    errors: dict[str, float] = {}
    for horizon in HORIZONS_S:
        upto = distance[: round(horizon / dt_s)]
        errors[f"ade_{horizon:g}s_m"] = float(upto.mean())
        errors[f"fde_{horizon:g}s_m"] = float(upto[-1])
    errors["max_deviation_3s_m"] = float(distance[: round(3.0 / dt_s)].max())
    return errors


def constant_motion(history: ArrayLike, turning: bool, steps: int = 64, dt_s: float = STEP_S) -> NDArray[np.float64]:
    """The two baselines that need no model: keep speed, straight on or with the present yaw rate.

    Args:
        history: (16, 3) ego poses ending at the origin.
        turning: keep the yaw rate of the last 0.3 s; otherwise go straight.

    Returns:
        (steps, 3) ego poses.
    """
    past = np.asarray(history, np.float64)
    span_s = 3 * dt_s
    speed = float(np.linalg.norm(np.diff(past[-4:, :2], axis=0), axis=1).sum()) / span_s
    rate = float(np.unwrap(past[-4:, 2])[-1] - np.unwrap(past[-4:, 2])[0]) / span_s if turning else 0.0
    yaw = rate * dt_s * np.arange(steps + 1)
    middle = (yaw[1:] + yaw[:-1]) / 2
    xy = np.cumsum(speed * dt_s * np.stack([np.cos(middle), np.sin(middle)], axis=1), axis=0)
    return np.column_stack([xy, yaw[1:]])
