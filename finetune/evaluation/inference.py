"""Plans of samples through the driving path, and the few figures by which one training is held against another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from collector.dataset.schema import Sample
from finetune.evaluation.consistency import check_reasoning, summarise
from finetune.evaluation.path_errors import path_errors
from finetune.policy import Observation, Plan

if TYPE_CHECKING:
    from finetune.alpamayo_policy import AlpamayoPolicy

PlanBatch = Callable[[Sequence[Sample], Sequence[Observation]], list[Plan]]


def plan_samples(
    policy: AlpamayoPolicy,
    samples: Sequence[Sample],
    folder: Path,
    batch_size: int,
    title: str,
    plan: PlanBatch | None = None,
) -> list[Plan]:
    """The plan of each sample; ``plan`` replaces the policy's own ``plan_many``."""
    from finetune.training.batches import observe  # brings torch; the figures below do not need it

    plans: list[Plan] = []
    with tqdm(total=len(samples), desc=title, unit="sample", dynamic_ncols=True) as bar:
        for start in range(0, len(samples), batch_size):
            part = samples[start : start + batch_size]
            seen = [observe(sample, folder, policy.cameras) for sample in part]
            plans += policy.plan_many(seen) if plan is None else plan(part, seen)
            bar.update(len(part))
    return plans


def plan_figures(samples: Sequence[Sample], plans: Sequence[Plan]) -> dict[str, float]:
    """Mean ADE and FDE at 3 s and largest deviation within 3 s (m), and the rates of reasoning and path.

    ``symptom_rate`` is "thinks curve, drives straight", NaN without a sample where it could occur; see
    :data:`finetune.evaluation.consistency.SYMPTOM_DEFINITION`.
    """
    errors = [path_errors(plan.poses, sample.future_array()) for sample, plan in zip(samples, plans)]
    rates = summarise(
        check_reasoning(plan.reasoning, plan.poses, sample.future_array()) for sample, plan in zip(samples, plans)
    )
    means = {
        key: float(np.mean([row[key] for row in errors])) for key in ("ade_3s_m", "fde_3s_m", "max_deviation_3s_m")
    }
    return {
        **means,
        "symptom_rate": rates.thinks_curve_drives_straight,
        "consistent": rates.consistent,
        "coverage": rates.coverage,
        "reasoning_right": rates.reasoning_right,
    }


def spread(samples: Sequence[Sample], limit: int) -> list[Sample]:
    """At most ``limit`` samples, evenly spread; all of them for 0."""
    if not limit or len(samples) <= limit:
        return list(samples)
    return [samples[index] for index in np.linspace(0, len(samples) - 1, limit).astype(int)]
