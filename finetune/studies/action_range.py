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
fifty (``benchmarks/exact_flow.py``). What needs steps is doubt, which the reasoning in the prefix removes.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from collector.common.tables import progress
from collector.geometry.poses import FloatArray
from finetune.evaluation.consistency import mean_of
from finetune.policy import STEP_S

if TYPE_CHECKING:
    from collector.dataset.schema import Sample
    from finetune.alpamayo_policy import AlpamayoPolicy

AXES = ("acceleration", "curvature")
LIMITS = (3.0, 5.0, 8.0)
# Waypoints are grouped by how many standard deviations their curvature is off.
BIN_EDGES = (0.0, 1.0, 3.0, 5.0, 8.0, np.inf)
BIN_NAMES = tuple(f"{low:g}-{high:g}" if np.isfinite(high) else f"> {low:g}" for low, high in pairwise(BIN_EDGES))
EULER_STEPS = (5, 10, 20, 50)
REFERENCE_STEPS = 200
STEP_3S = round(3.0 / STEP_S) - 1
_DRAWS = 8


def reach(actions: ArrayLike) -> dict[str, dict[str, float]]:
    """How far normalised actions (N, 64, 2) reach, per axis.

    ``spread`` is their own standard deviation in released ones; then ``largest``, and shares: ``waypoints_beyond_5``,
    ``samples_beyond_5`` and so on.
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


def actions_and_clips(samples: Sequence[Sample]) -> tuple[FloatArray, float, list[dict[str, float]]]:
    """Normalised actions (N, 64, 2), the share of samples outside the released bounds, and what clips would cost."""
    import torch

    from finetune.alpamayo.action_space import ActionSpace
    from finetune.alpamayo.configuration import RELEASED_ACTION_SPACE

    space = ActionSpace(RELEASED_ACTION_SPACE, torch.float64)
    history = torch.from_numpy(np.stack([sample.history_array() for sample in samples]))
    future = torch.from_numpy(np.stack([sample.future_array() for sample in samples]))
    actions = space.traj_to_action(history, future)
    whole = space.action_to_traj(history, actions)

    def cost(limit: float, path: torch.Tensor, other: torch.Tensor) -> dict[str, float]:
        return path_cost(limit, torch.linalg.vector_norm(path[..., :2] - other[..., :2], dim=-1).numpy())

    clips = [cost(limit, space.action_to_traj(history, actions.clamp(-limit, limit)), whole) for limit in LIMITS]
    outside = 1.0 - float(space.is_within_bounds(actions).double().mean())
    return actions.numpy(), outside, [cost(np.inf, whole, future), *clips]


def study_flow(
    policy: AlpamayoPolicy, samples: Sequence[Sample], folder: Path, batch_size: int, seed: int
) -> dict[str, Any]:
    """A model's flow, reasoning texts as trained: where its loss comes from, and the cost of few Euler steps.

    Noise and times follow from the seed and are the same for every model.
    """
    import torch

    squared_error, ends = _flow_figures(policy, samples, folder, batch_size, seed)
    history = torch.from_numpy(np.stack([sample.history_array() for sample in samples]))
    truth = np.stack([sample.future_array() for sample in samples])
    space = deepcopy(policy.model.action_space).cpu()
    true_actions = space.traj_to_action(history, torch.from_numpy(truth)).numpy()
    loss = squared_error.mean(axis=-1)
    curvature = np.abs(true_actions[..., 1])
    bend = curvature[:, : STEP_3S + 1].mean(axis=1)

    def halves(values: FloatArray) -> dict[str, float]:
        """Mean over the half of the samples that bends less within 3 s, and over the half that bends more."""
        sharp = bend > np.median(bend)
        return {"gentle": mean_of(values[~sharp]), "sharp": mean_of(values[sharp])}

    out: dict[str, Any] = {
        "samples": len(samples),
        "flow_loss": float(loss.mean()),
        "loss_share": bin_shares(true_actions, loss),
        "loss_per_waypoint": [
            mean_of(loss[(curvature >= low) & (curvature < high)]) for low, high in pairwise(BIN_EDGES)
        ],
        "euler": {},
        "mean_curvature_3s_sigma": halves(bend),
    }
    paths = {
        key: space.action_to_traj(history, torch.from_numpy(end)).numpy()[:, : STEP_3S + 1, :2]
        for key, end in ends.items()
    }
    for name, count in ends:
        reference = name, REFERENCE_STEPS
        if count == REFERENCE_STEPS:
            continue
        end_gap = (ends[name, count] - ends[reference])[..., 1]
        from_truth = np.linalg.norm(paths[name, count] - truth[:, : STEP_3S + 1, :2], axis=-1)
        out["euler"][f"{name}, {count}"] = {
            "curvature_gap_sigma": halves(np.sqrt(np.mean(end_gap**2, axis=1))),
            "path_gap_3s_m": halves(np.linalg.norm(paths[name, count] - paths[reference], axis=-1)[:, -1]),
            "ade_3s_m": halves(from_truth.mean(axis=1)),
        }
    return out


def _flow_figures(
    policy: AlpamayoPolicy, samples: Sequence[Sample], folder: Path, batch_size: int, seed: int
) -> tuple[FloatArray, dict[tuple[str, int], FloatArray]]:
    """Squared velocity errors (N, 64, 2), mean over draws as in training; and actions (N, 64, 2) after so many steps.

    The actions start from zero noise, as driving does by default, and from one draw of noise per sample.
    """
    import torch

    from finetune.alpamayo.flow_matching import interpolate, sample_times, target_velocity
    from finetune.studies.stages import run_batch
    from finetune.training.batches import cache_vision, collate, encode_row

    model, device = policy.model, policy.model.device
    generator = torch.Generator().manual_seed(seed)
    errors: list[torch.Tensor] = []
    ends: dict[tuple[str, int], list[torch.Tensor]] = {
        (name, count): [] for name in ("zero", "drawn") for count in (*EULER_STEPS, REFERENCE_STEPS)
    }
    with torch.no_grad():
        for start in progress(range(0, len(samples), batch_size), "flow", "batch"):
            part = samples[start : start + batch_size]
            rows = [encode_row(policy, sample, folder, policy.cameras) for sample in part]
            batch = collate(list(cache_vision(model, rows, device)), policy.processor.pad_id)
            prefix, actions = run_batch(model, batch), batch.actions.to(device)
            shape = (len(actions), _DRAWS, *actions.shape[1:])
            noise = torch.randn(shape, generator=generator).to(device)
            times = sample_times(shape[:2], generator=generator).to(device)
            targets = actions[:, None].expand_as(noise)
            x_t = interpolate(targets, noise, times)
            velocity = model.velocity(prefix, x_t.flatten(0, 1), times.flatten()).view_as(noise)
            errors.append((velocity - target_velocity(targets, noise)).square().mean(dim=1))
            for (name, count), found in ends.items():
                found.append(
                    model.sample_actions(prefix, noise[:, 0] if name == "drawn" else torch.zeros_like(actions), count)
                )
    joined = {key: torch.cat(parts).double().cpu().numpy() for key, parts in ends.items()}
    return torch.cat(errors).double().cpu().numpy(), joined
