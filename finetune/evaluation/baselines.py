"""Drivers that see no picture: constant motion, and a regression from the kart's own motion. Pure numpy.

What they reach is what a metric gives away for nothing; a model that does no better has learnt nothing from its camera.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from collector.common.errors import MonoError
from collector.dataset.schema import Sample
from collector.geometry.poses import FloatArray, mirror_poses
from finetune.evaluation.bootstrap import group_samples
from finetune.policy import FUTURE_STEPS, STEP_S

PENALTIES = tuple(10.0**power for power in range(-4, 4))
FOLDS = 5
# More say nothing new to a hundred coefficients.
MOST_REGRESSION_SAMPLES = 20_000


def constant_motion(history: ArrayLike, turning: bool, steps: int = FUTURE_STEPS, dt_s: float = STEP_S) -> FloatArray:
    """Keep the speed of a history (16, 3), straight on or with the yaw rate of its last 0.3 s: (steps, 3) ego poses."""
    past = np.asarray(history, np.float64)
    span_s = 3 * dt_s
    speed = float(np.linalg.norm(np.diff(past[-4:, :2], axis=0), axis=1).sum()) / span_s
    rate = float(np.unwrap(past[-4:, 2])[-1] - np.unwrap(past[-4:, 2])[0]) / span_s if turning else 0.0
    yaw = rate * dt_s * np.arange(steps + 1)
    middle = (yaw[1:] + yaw[:-1]) / 2
    xy = np.cumsum(speed * dt_s * np.stack([np.cos(middle), np.sin(middle)], axis=1), axis=0)
    return np.column_stack([xy, yaw[1:]])


@dataclass(frozen=True, eq=False)
class EgoRegressor:
    """Ridge regression from history poses and speed to the future, fitted on a training split."""

    samples: int  # how many it was fitted on (each also as its mirror image)
    penalty: float  # of the squared coefficients, chosen by cross-validation between stretches of the training split
    centre: FloatArray  # (F,) of the features
    scale: FloatArray  # (F,) of the features
    weights: FloatArray  # (F, 192)
    mean: FloatArray  # (192,) of the futures

    @classmethod
    def fit(cls, samples: Iterable[Sample]) -> EgoRegressor:
        """Fit on the samples of the training split; the caller sees to it that no other comes in.

        Raises:
            MonoError: fewer samples than it takes, or one that is not of the training split.
        """
        kept = _thinned(samples, MOST_REGRESSION_SAMPLES)
        if stray := [sample.id for sample in kept if sample.split != "train"]:
            raise MonoError(f"sample {stray[0]} of split 'val' among those to fit on", "the training split only")
        if len(kept) < 2 * FOLDS:
            raise MonoError(f"{len(kept)} training samples", f"at least {2 * FOLDS} for a regression")
        folds = group_samples(kept).index % FOLDS
        features = np.stack([_features(s.history_array(), s.speed_mps) for s in kept])
        futures = np.stack([s.future_array() for s in kept]).reshape(len(kept), -1)
        mirrored = np.stack([_features(mirror_poses(s.history_array()), s.speed_mps) for s in kept])
        mirrored_futures = np.stack([mirror_poses(s.future_array()) for s in kept]).reshape(len(kept), -1)
        x, y = np.concatenate([features, mirrored]), np.concatenate([futures, mirrored_futures])
        fold = np.concatenate([folds, folds])
        penalty = _best_penalty(x, y, fold)
        return cls(len(kept), penalty, *_ridge(x, y, [penalty])[0])

    def predict(self, history: ArrayLike, speed_mps: float) -> FloatArray:
        """Future poses (64, 3) from a history (16, 3) and a speed."""
        features = _features(np.asarray(history, np.float64), speed_mps)
        return (((features - self.centre) / self.scale) @ self.weights + self.mean).reshape(-1, 3)


Fit = tuple[FloatArray, FloatArray, FloatArray, FloatArray]


def _features(history: FloatArray, speed_mps: float) -> FloatArray:
    """Poses before t0 and speed, and the same times the speed: a turn carries further in a fast kart."""
    plain = np.append(history[:-1].ravel(), speed_mps)
    return np.concatenate([plain, speed_mps * plain])


def _ridge(x: FloatArray, y: FloatArray, penalties: Sequence[float]) -> list[Fit]:
    """Centre, scale, weights and mean for each penalty."""
    centre, scale, mean = x.mean(axis=0), x.std(axis=0), y.mean(axis=0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    z = (x - centre) / scale
    values, vectors = np.linalg.eigh(z.T @ z)
    projected = vectors.T @ (z.T @ (y - mean))
    return [
        (centre, scale, vectors @ (projected / (np.maximum(values, 0.0) + penalty)[:, None]), mean)
        for penalty in penalties
    ]


def _best_penalty(x: FloatArray, y: FloatArray, fold: NDArray[np.int64]) -> float:
    """The penalty with the least distance on folds it was not fitted on."""
    error = np.zeros(len(PENALTIES))
    for held in np.unique(fold):
        out = fold == held
        if out.all():
            return 1.0  # a single stretch: nothing to choose by
        for index, (centre, scale, weights, mean) in enumerate(_ridge(x[~out], y[~out], PENALTIES)):
            missed = (((x[out] - centre) / scale) @ weights + mean - y[out]).reshape(out.sum(), -1, 3)
            error[index] += np.linalg.norm(missed[..., :2], axis=-1).mean(axis=1).sum()
    return PENALTIES[int(np.argmin(error))]


def _thinned(samples: Iterable[Sample], most: int) -> list[Sample]:
    """At most twice ``most`` of them, evenly spread, never holding more."""
    kept: list[Sample] = []
    stride = 1
    for index, sample in enumerate(samples):
        if index % stride == 0:
            kept.append(sample)
            if len(kept) >= 2 * most:
                kept, stride = kept[::2], 2 * stride
    return kept
