"""How far kart tracks reach in the released normalisation, and what that does to training and sampling.

The released model counts curvature in standard deviations of 0.026 1/m, those of ordinary roads; a kart's hairpin of
5 m radius lies 7.6 of them out. This measures a dataset in these units, what clipping would cost in metres, which
waypoints the flow loss comes from, and how many Euler steps it takes to travel that far.

On 980 samples of random courses 39 % of the waypoints lie beyond 5 (the farthest at 15.7). They make 83 % of the loss
of a model that knows nothing, and still 58 % of it after finetuning. A clip at 5 moves paths by 1.8 m after 3 s.

So the default clips nothing: the paths would miss the hairpins they are to learn. The released constants stay:
``action_in_proj`` reads noisy actions through waves with a period of one standard deviation and shorter, and in other
units it would have to be learnt anew. Both action projections train in full, which is where the kart's range is learnt.
Distance is no obstacle to sampling: the flow's path from noise to action is straight, so five Euler steps go as far as
fifty. What needs steps is doubt, most of all between two far ends, which the reasoning in the prefix removes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetune.policy import STEP_S

FloatArray = NDArray[np.float64]
AXES = ("acceleration", "curvature")
LIMITS = (3.0, 5.0, 8.0)
# Waypoints are grouped by how many standard deviations their curvature is off.
BIN_EDGES = (0.0, 1.0, 3.0, 5.0, 8.0, np.inf)
EULER_STEPS = (5, 10, 20, 50)
STEP_3S = round(3.0 / STEP_S) - 1


def reach(actions: ArrayLike) -> dict[str, dict[str, float]]:
    """How far normalised actions (N, 64, 2) reach, per axis.

    Returns:
        ``spread``: their own standard deviation in released ones; ``largest``; ``waypoints_beyond_5`` and
        ``samples_beyond_5`` and so on: shares.
    """
    size = np.abs(np.asarray(actions, np.float64))
    out = {}
    for index, axis in enumerate(AXES):
        values = size[..., index]
        out[axis] = {
            "spread": float(np.asarray(actions)[..., index].std()),
            "largest": float(values.max()),
            **{f"waypoints_beyond_{limit:g}": float((values > limit).mean()) for limit in LIMITS},
            **{f"samples_beyond_{limit:g}": float((values > limit).any(axis=1).mean()) for limit in LIMITS},
        }
    return out


def bin_shares(actions: ArrayLike, weight: ArrayLike | None = None) -> list[float]:
    """Shares of waypoints, or of a weight (N, 64) they carry, by bin of curvature; see :data:`BIN_EDGES`."""
    curvature = np.abs(np.asarray(actions, np.float64)[..., 1]).ravel()
    weights = np.ones(len(curvature)) if weight is None else np.asarray(weight, np.float64).ravel()
    totals, _ = np.histogram(curvature, BIN_EDGES, weights=weights)
    return [float(share) for share in totals / weights.sum()]


def ignorant_loss(actions: ArrayLike) -> FloatArray:
    """Flow loss (N, 64) of a model that answers the mean velocity everywhere: what large values weigh at the start.

    The target is action minus noise, and the noise has variance 1 on each axis.
    """
    values = np.asarray(actions, np.float64)
    loss: FloatArray = ((values - values.mean(axis=(0, 1))) ** 2 + 1.0).mean(axis=-1)
    return loss


def euler_gaussian(mean: float, spread_: float, x0: ArrayLike, steps: int) -> FloatArray:
    """Euler along the exact flow from N(0, 1) to N(mean, spread^2); spread 0 is a single point, the linear flow.

    x_t is N(t mean, t^2 spread^2 + (1 - t)^2), and the velocity E[x_1 - x_0 | x_t] is linear in x_t. With any number of
    steps the mean moves exactly by ``mean``; only the width is off. The exact end is ``mean + spread * x0``.
    """
    x: FloatArray = np.asarray(x0, np.float64)
    for t in np.arange(steps) / steps:
        variance = t**2 * spread_**2 + (1.0 - t) ** 2
        x = x + (mean + (t * spread_**2 - (1.0 - t)) / variance * (x - t * mean)) / steps
    return x


def euler_two_ends(mean: float, spread_: float, x0: ArrayLike, steps: int) -> FloatArray:
    """Euler along the exact flow to an even mixture of N(mean, spread^2) and N(-mean, spread^2): left or right."""
    x: FloatArray = np.asarray(x0, np.float64)
    for t in np.arange(steps) / steps:
        variance = t**2 * spread_**2 + (1.0 - t) ** 2
        slope = (t * spread_**2 - (1.0 - t)) / variance
        towards_left = 0.5 * (1.0 + np.tanh(t * mean * x / variance))
        velocity = sum(
            share * (end + slope * (x - t * end)) for share, end in ((towards_left, mean), (1.0 - towards_left, -mean))
        )
        x = x + velocity / steps
    return x


def exact_flow_errors(means: Sequence[float] = (0.0, 3.0, 8.0), spread_: float = 0.3) -> dict[str, Any]:
    """Errors of the end point in standard deviations, by steps and by how far the flow must travel.

    Returns:
        ``point``: largest error to a single end; ``gaussian``: RMS error to an end known to within ``spread_``;
        ``two_ends``: share of draws that end more than 3 spreads from both of two opposite ends.
    """
    x0 = np.random.default_rng(0).standard_normal(4000)
    out: dict[str, Any] = {"means": list(means), "spread": spread_, "point": {}, "gaussian": {}, "two_ends": {}}
    for steps in EULER_STEPS:
        point = [np.abs(euler_gaussian(mean, 0.0, x0, steps) - mean).max() for mean in means]
        known = [euler_gaussian(mean, spread_, x0, steps) - (mean + spread_ * x0) for mean in means]
        between = [np.abs(np.abs(euler_two_ends(mean, spread_, x0, steps)) - mean) > 3.0 * spread_ for mean in means]
        out["point"][str(steps)] = [float(value) for value in point]
        out["gaussian"][str(steps)] = [float(np.sqrt(np.mean(error**2))) for error in known]
        out["two_ends"][str(steps)] = [float(value.mean()) for value in between]
    return out


def halves(values: FloatArray, sharp: NDArray[np.bool_]) -> dict[str, float]:
    """Mean over the half of the samples that bends less within 3 s, and over the half that bends more."""
    return {
        "gentle": float(values[~sharp].mean()) if (~sharp).any() else float("nan"),
        "sharp": float(values[sharp].mean()) if sharp.any() else float("nan"),
    }


def bin_means(actions: FloatArray, values: FloatArray) -> list[float]:
    """Mean of values (N, 64) over the waypoints of each bin, NaN in an empty one."""
    curvature = np.abs(actions[..., 1])
    return [
        float(values[inside].mean()) if (inside := (curvature >= low) & (curvature < high)).any() else float("nan")
        for low, high in pairwise(BIN_EDGES)
    ]


def bin_names() -> list[str]:
    """What the bins of :data:`BIN_EDGES` are called."""
    return [f"{low:g}-{high:g}" if np.isfinite(high) else f"> {low:g}" for low, high in pairwise(BIN_EDGES)]


def path_cost(limit: float, gap_m: FloatArray) -> dict[str, float]:
    """Metres that a clip at ``limit`` moves paths (N, 64): over those it moves at all, and the share they are."""
    moved = gap_m.max(axis=1) > 1e-3
    chosen = gap_m[moved] if moved.any() else np.zeros((1, gap_m.shape[1]))
    return {
        "limit": limit,
        "samples_moved": float(moved.mean()),
        "mean_3s_m": float(chosen[:, STEP_3S].mean()),
        "largest_3s_m": float(chosen[:, STEP_3S].max()),
        "mean_6.4s_m": float(chosen[:, -1].mean()),
        "largest_6.4s_m": float(chosen[:, -1].max()),
    }
