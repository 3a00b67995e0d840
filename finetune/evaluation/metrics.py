"""Distances between planned and driven paths, and what each variant did on every sample of an open-loop evaluation.

A plan that cannot be judged is set aside for a reason that is counted. A sample counts in the tables only where every
variant gave a plan for it, so that all rows speak of identical samples. Pure numpy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from collector.common.errors import MonoError
from collector.geometry.curvature import DEFAULT_THRESHOLDS
from finetune.evaluation.bootstrap import Better, Measure
from finetune.evaluation.consistency import RATES, ReasoningCheck, answers, check_reasoning, summarise
from finetune.policy import STEP_S, Plan

if TYPE_CHECKING:
    from collector.dataset.schema import Sample

Mask = NDArray[np.bool_]

NON_FINITE = "plan with non-finite numbers"
LABELS = ("straight", "left", "right", "s")
# Measures of which more is good; of errors and of the symptom less is.
_HIGHER = frozenset(RATES) - {"thinks_curve_drives_straight"}
HORIZONS_S = (1.0, 3.0, 5.0, 6.4)
# Up to here a plan is driven before newer ones have replaced it; the experiment's figure looks no further.
MAIN_HORIZON_S = 3.0
MAX_DEVIATION = f"max_deviation_{MAIN_HORIZON_S:g}s_m"


def path_errors(plan: ArrayLike, truth: ArrayLike, dt_s: float = STEP_S) -> dict[str, float]:
    """ADE, FDE, largest deviation and lateral deviation up to each horizon, metres, of positions (64, 2 or 3)."""
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
    """MinADE of the first k of the draws (K, 64, 2 or 3), for every k: (K, horizons), never rising with k, metres."""
    distance = np.linalg.norm(np.asarray(draws)[..., :2] - np.asarray(truth)[:, :2], axis=-1)
    each = np.stack([distance[:, : round(horizon / dt_s)].mean(axis=1) for horizon in HORIZONS_S], axis=1)
    best: NDArray[np.float64] = np.minimum.accumulate(each, axis=0)
    return best


def better_of(measure: str) -> Better:
    """Which direction of a measure is good."""
    return "higher" if measure in _HIGHER else "lower"


class Scores:
    """One variant on all samples; fill it with :meth:`add` and :meth:`set_aside`.

    Of ``draws`` plans minADE is taken; 1 is the one plan itself. ``thinks``: its plans come with a reasoning.
    """

    def __init__(self, name: str, samples: Sequence[Sample], draws: int = 1, thinks: bool = True) -> None:
        self.name, self.samples, self.thinks = name, samples, thinks
        self.values: dict[str, NDArray[np.float64]] = {}  # of each measure, NaN where it does not count
        self.best = np.full((len(samples), draws, len(HORIZONS_S)), np.nan)
        self.poses: dict[int, NDArray[np.float64]] = {}
        self.checks: dict[int, ReasoningCheck] = {}
        self.reasonings: dict[int, str] = {}
        self.reasons: dict[int, str] = {}

    def add(self, index: int, poses: ArrayLike, reasoning: str = "", draws: ArrayLike | None = None) -> dict[str, Any]:
        """Judge a plan (64, 3) and its draws (K, 64, 3); returns what a log should keep of it."""
        plan, sample = np.asarray(poses, np.float64), self.samples[index]
        line: dict[str, Any] = {"variant": self.name, "id": sample.id}
        drawn = plan[None] if draws is None or len(np.asarray(draws)) == 0 else np.asarray(draws, np.float64)
        if not (np.isfinite(plan).all() and np.isfinite(drawn).all()):
            return self.set_aside(index, NON_FINITE) | ({"reasoning": reasoning} if self.thinks else {})
        truth = sample.future_array()
        errors = path_errors(plan, truth)
        # A driver without noise draws its one plan every time.
        best = best_of_draws(drawn, truth)
        self.best[index] = best if len(best) == self.best.shape[1] else best[-1]
        least = {f"min_ade_{horizon:g}s_m": value for horizon, value in zip(HORIZONS_S, best[-1], strict=True)}
        self._keep(index, errors | least)
        self.poses[index] = plan
        if self.thinks:
            line["reasoning"] = self.reasonings[index] = reasoning
            self.checks[index] = check_reasoning(reasoning, plan, truth)
            self._keep(index, answers(self.checks[index]))
        return line | errors | {"min_ade_m": np.round(best, 4).tolist(), "poses": np.round(plan, 3).tolist()}

    def _keep(self, index: int, figures: Mapping[str, float | bool | None]) -> None:
        for name, value in figures.items():
            values = self.values.setdefault(name, np.full(len(self.samples), np.nan))
            values[index] = np.nan if value is None else value

    def set_aside(self, index: int, reason: str) -> dict[str, Any]:
        """Count a sample without a plan that can be judged; returns the line for the log."""
        self.reasons[index] = reason
        return {"variant": self.name, "id": self.samples[index].id, "set_aside": reason}

    def measures(self, chosen: Mask) -> dict[str, Measure]:
        """Every distance over the chosen samples and, of a driver that thinks, every rate of ``consistency.RATES``."""
        return {name: Measure.of(values).where(chosen) for name, values in self.values.items()}

    def summary(self, chosen: Mask) -> dict[str, Any]:
        """Means over the chosen samples, overall and by curve, with consistency and the count of what was set aside."""

        def means(part: Mask) -> dict[str, float]:
            return {"samples": int(part.sum())} | {
                key: found.mean for key, found in self.measures(part).items() if key not in RATES
            }

        best = self.best[chosen].mean(axis=0)
        out: dict[str, Any] = {
            **means(chosen),
            **{f"worst_{key}": float(v[chosen].max()) for key, v in self.values.items() if "max_deviation" in key},
            "min_ade_k": {f"{horizon:g}s_m": best[:, column].tolist() for column, horizon in enumerate(HORIZONS_S)},
        }
        for name, bins in (("by_label", label_masks(self.samples)), ("by_radius", radius_masks(self.samples))):
            out[name] = {part: means(mask & chosen) for part, mask in bins.items() if (mask & chosen).any()}
        if self.thinks:
            out["consistency"] = asdict(summarise(self.checks[index] for index in np.flatnonzero(chosen).tolist()))
        out["set_aside"] = dict(Counter(self.reasons.values()))
        return out


def plan_figures(samples: Sequence[Sample], plans: Sequence[Plan]) -> dict[str, float]:
    """Mean ADE and FDE at 3 s and largest deviation within 3 s (m), and the rates of reasoning and path.

    ``symptom_rate`` is "thinks curve, drives straight", NaN without a sample where it could occur; see
    :data:`finetune.evaluation.consistency.SYMPTOM_DEFINITION`.
    """
    judged = [(plan, sample.future_array()) for sample, plan in zip(samples, plans, strict=True)]
    errors = [path_errors(plan.poses, truth) for plan, truth in judged]
    rates = summarise(check_reasoning(plan.reasoning, plan.poses, truth) for plan, truth in judged)
    return {
        **{key: float(np.mean([row[key] for row in errors])) for key in ("ade_3s_m", "fde_3s_m", MAX_DEVIATION)},
        "symptom_rate": rates.thinks_curve_drives_straight,
        "consistent": rates.consistent,
        "coverage": rates.coverage,
        "reasoning_right": rates.reasoning_right,
    }


def identical_samples(variants: Sequence[Scores]) -> Mask:
    """The samples (N,) for which every variant has a plan (MonoError: none is left)."""
    chosen = np.array(
        [not any(index in scores.reasons for scores in variants) for index in range(len(variants[0].samples))]
    )
    if not chosen.any():
        why = set_aside_texts({scores.name: Counter(scores.reasons.values()) for scores in variants})
        found = f"no sample has a plan of every variant: {why}"
        raise MonoError(found, "at least one", "look at plans.jsonl for the sample ids")
    return chosen


def set_aside_texts(counts: Mapping[str, Mapping[str, int]]) -> str:
    """How many plans of each variant were set aside, and why, in a line."""
    return "; ".join(f"{name}: {reason} ({n})" for name, of in counts.items() for reason, n in of.items())


def label_masks(samples: Sequence[Sample]) -> dict[str, Mask]:
    """Which samples have each curve label, labels in table order."""
    labels = np.array([sample.curve.label for sample in samples])
    return {label: labels == label for label in LABELS if (labels == label).any()}


def radius_masks(samples: Sequence[Sample]) -> dict[str, Mask]:
    """The same for the radius bins of each kind of curve, as :mod:`collector.dataset.balance` divides them."""
    bins = np.array(
        [DEFAULT_THRESHOLDS.radius_bin(sample.curve.label, sample.curve.max_abs_curvature_1pm) for sample in samples]
    )
    order = [f"{label} {grade}" for label in LABELS[1:] for grade in ("gentle", "medium", "sharp")]
    return {name: bins == name for name in order if (bins == name).any()}
