"""The arms of a counterfactual: one picture, one noise, another text; how far the path moves, and whether it obeys.

Every arm is held against the plan from the sample's true text, from the same noise: what moves is the text's doing (in
``blank picture`` the picture's). ``again`` is the true text once more and has to move nothing at all. Pure numpy but
for the planning itself.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from collector.common.tables import Table, percent
from collector.dataset.sample import Sample
from collector.geometry.constants import STEP_S
from collector.geometry.poses import FloatArray
from collector.reasoning.claims import PaceClaim, PositionClaim
from collector.reasoning.consistency import check_claim, language_of, measure_motion, parse_claim
from collector.reasoning.writing import write_reasoning
from finetune.evaluation.bootstrap import Groups, Measure, group_samples, mean_interval

if TYPE_CHECKING:
    from finetune.alpamayo_policy import AlpamayoPolicy
    from finetune.evaluation.inference import Planned
    from finetune.policy import Observation, Plan
    from finetune.processing.processor import Encoded

# Beside those of `counterfactual`: what else the model is made to think, or not to see.
MORE_ARMS = ("again", "another", "opposite place", "opposite pace", "opposite speed", "shuffled", "blank picture")
TIMES_S = (1.0, 2.0, 3.0)
SPREAD_DRAWS = 8  # plans at noise temperature 1 from the true text: the spread beside which a shift is seen
_SPEED_STEPS = 5
_OTHER_PLACE: Mapping[PositionClaim, PositionClaim] = {
    "left": "right", "right": "left", "out left": "out right", "out right": "out left"
}  # fmt: skip
_OTHER_PACE: Mapping[PaceClaim, PaceClaim] = {"slow": "brisk", "brisk": "slow"}
DEFINITIONS = (
    "Arms: against the plan from the true text and the same noise, after 1, 2 and 3 s: shift to the left in metres and "
    "in m/s, means with 95 % intervals (bootstrap over stretches of driving). Obeys: the path does what the forced "
    "text claims (of place, pace or change of speed in the arms that turn those round, of direction elsewhere). Off "
    "the road: the kart's outline crosses an edge within 3 s, where the edges are known. Spread: standard deviation "
    "of plans drawn at noise temperature 1. ADE: mean distance, over 3 s, from the future that the sample has."
)


def arm_text(arm: str, number: int, samples: Sequence[Sample], pairs: Mapping[str, Sequence[Sample]]) -> str | None:
    """The text of an arm for one of the samples, None where it has none: no pair tells what the road would allow.

    ``pairs`` are all samples of the pairs among them, by the pair's id.
    """
    sample = samples[number]
    others = pairs.get(sample.pair or "", ())
    if arm == "another":
        there = [one for one in samples[number + 1 :] + samples[:number] if one.stamp_ns != sample.stamp_ns]  # type: ignore[operator]
        return there[len(there) // 2].reasoning if there else None
    if arm == "opposite place":
        wanted = _OTHER_PLACE.get(sample.claim.position or "none")
        return next((one.reasoning for one in others if wanted and one.claim.position == wanted), None)
    if arm in ("opposite pace", "opposite speed"):
        pace = _OTHER_PACE.get(sample.claim.pace or "none")
        fitting = [
            one for one in others if pace and one.claim.pace == pace and one.claim.position == sample.claim.position
        ]
        if fitting:
            return fitting[0].reasoning
        return _other_speed(sample) if arm == "opposite speed" else None
    if arm == "shuffled":
        language = language_of(sample.reasoning)
        words = sample.reasoning.split() if language == "en" else list(sample.reasoning)
        random.Random(sample.id).shuffle(words)
        return (" " if language == "en" else "").join(words)
    return sample.reasoning


def _other_speed(sample: Sample) -> str:
    """The plain reasoning of the sample's path with a change of speed turned round."""
    motion = measure_motion(sample.future_array(), sample.dt_s, road=sample.local_road)
    change: Literal["accelerate", "decelerate"] = "decelerate"
    if motion.longitudinal in ("decelerate", "stop"):
        change = "accelerate"
    return write_reasoning(replace(motion, longitudinal=change), seed=0, language=language_of(sample.reasoning))


def plan_arms(
    policy: AlpamayoPolicy,
    samples: Sequence[Sample],
    folder: Path,
    batch_size: int,
    pairs: Mapping[str, Sequence[Sample]],
    planned: Mapping[str, Sequence[Plan]],
    title: str,
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """A row per arm and sample as :func:`measure_arm` gives it, with ``arm, id, text``; and the sampler's spread.

    ``planned`` are the plans that are there already, by what the model was made to think; ``true`` among them.
    """
    from finetune.evaluation.inference import plan_all

    reference, rows = planned["true"], list[dict[str, Any]]()

    def measure(arm: str, numbers: Sequence[int], plans: Sequence[Plan]) -> None:
        for number, plan in zip(numbers, plans, strict=True):
            row = {"arm": arm, "id": samples[number].id, "text": plan.reasoning}
            row |= measure_arm(arm, plan.poses, reference[number].poses, plan.reasoning, samples[number])
            rows.append(row)

    for arm, plans in planned.items():
        measure(arm, range(len(samples)), plans)
    for arm in MORE_ARMS:
        texts = [arm_text(arm, number, samples, pairs) for number in range(len(samples))]
        numbers = [number for number, text in enumerate(texts) if text]
        forced = {samples[number].id: str(texts[number]) for number in numbers}
        plan = partial(_plan_texts, policy, forced, arm == "blank picture", 0)
        chosen = [samples[number] for number in numbers]
        measure(arm, numbers, plan_all(policy, chosen, folder, batch_size, f"{title}, arm: {arm}", plan))
    return rows, _spread(policy, samples, folder, batch_size, title)


def _spread(
    policy: AlpamayoPolicy, samples: Sequence[Sample], folder: Path, batch_size: int, title: str
) -> dict[str, float]:
    from finetune.evaluation.inference import FrameError, SamplePrompts, plan_samples

    prompts = SamplePrompts(samples, folder, policy.cameras)
    plan = partial(_plan_texts, policy, {sample.id: sample.reasoning for sample in samples}, False, SPREAD_DRAWS)
    found = [
        spread_of(one[1])
        for batch in plan_samples(policy, prompts, batch_size, f"{title}, spread", plan=plan)
        for _, one in batch
        if not isinstance(one, FrameError)
    ]
    return {key: float(np.mean([each[key] for each in found])) for key in found[0]} if found else {}


def _plan_texts(
    policy: AlpamayoPolicy,
    texts: Mapping[str, str],
    is_blank: bool,
    draws: int,
    samples: Sequence[Sample],
    seen: Sequence[Observation],
    encoded: Sequence[Encoded],
) -> list[Planned]:
    from finetune.studies.stages import plan_with_reasonings

    if is_blank:
        black = [{name: np.zeros_like(frames) for name, frames in each.frames.items()} for each in seen]
        seen = [replace(each, frames=frames) for each, frames in zip(seen, black, strict=True)]
        encoded = [policy.encode(each) for each in seen]
    return plan_with_reasonings(policy, seen, [texts[sample.id] for sample in samples], encoded, draws)


def measure_arm(arm: str, poses: ArrayLike, reference: ArrayLike, text: str, sample: Sample) -> dict[str, Any]:
    """One plan (64, 3) of an arm against the one from the true text (64, 3): shifts, whether it obeys and stays."""
    path, base = np.asarray(poses, np.float64), np.asarray(reference, np.float64)
    row: dict[str, Any] = {}
    speeds = [speed_at(each) for each in (path, base)]
    for number, time_s in enumerate(TIMES_S):
        step = round(time_s / STEP_S) - 1
        dx, dy = path[step, :2] - base[step, :2]
        yaw = base[step, 2]
        row[f"left_{time_s:g}s_m"] = float(-np.sin(yaw) * dx + np.cos(yaw) * dy)
        row[f"faster_{time_s:g}s_mps"] = float(speeds[0][number] - speeds[1][number])
    row["moved_m"] = float(np.abs(path - base).max())
    seen = slice(round(TIMES_S[-1] / STEP_S))
    row["ade_3s_m"] = float(np.linalg.norm((path - sample.future_array())[seen, :2], axis=1).mean())
    claim, road = parse_claim(text), sample.local_road
    check = check_claim(claim, measure_motion(path, sample.dt_s, road=road).of_path)
    said = {
        "opposite place": check.position,
        "opposite pace": check.pace,
        "opposite speed": check.longitudinal if claim.pace == "none" else check.pace,
    }
    verdict = said.get(arm, check.lateral)
    row["obeys"] = None if verdict in ("no_claim", "unjudged") else verdict == "agree"
    row["off_road"] = None
    if road is not None and np.all(road.left_m > 0.0) and np.all(road.right_m > 0.0):
        row["off_road"] = bool(np.maximum(*road.beyond_edges(path[seen])).max() > 0.0)
    return row


def speed_at(poses: FloatArray) -> list[float]:
    """Speeds of a plan (64, 3) at the times looked at, over the half second before, m/s."""
    steps = np.linalg.norm(np.diff(np.vstack([np.zeros(3), poses])[:, :2], axis=0), axis=1) / STEP_S
    ends = [round(time_s / STEP_S) for time_s in TIMES_S]
    return [float(np.mean(steps[end - _SPEED_STEPS : end])) for end in ends]


def spread_of(draws: NDArray[np.float64]) -> dict[str, float]:
    """Standard deviations of (K, 64, 3) drawn plans: sideways in metres and in m/s at the times looked at."""
    mean = draws.mean(axis=0)
    speeds = np.array([speed_at(draw) for draw in draws])
    found: dict[str, float] = {}
    for number, time_s in enumerate(TIMES_S):
        step = round(time_s / STEP_S) - 1
        gap, yaw = draws[:, step, :2] - mean[step, :2], mean[step, 2]
        found[f"left_{time_s:g}s_m"] = float(np.std(-np.sin(yaw) * gap[:, 0] + np.cos(yaw) * gap[:, 1]))
        found[f"faster_{time_s:g}s_mps"] = float(np.std(speeds[:, number]))
    return found


def summarise_arms(rows: Sequence[Mapping[str, Any]], samples: Sequence[Sample]) -> dict[str, dict[str, Any]]:
    """Per arm (the rows' ``arm``; ``id`` is the sample's) the means of all it measures, each with its interval."""
    places = {sample.id: number for number, sample in enumerate(samples)}
    groups, found = group_samples(samples), dict[str, dict[str, Any]]()
    for arm in dict.fromkeys(str(row["arm"]) for row in rows):
        mine = [row for row in rows if row["arm"] == arm]
        keys = [key for key, value in mine[0].items() if key not in ("arm", "id", "text", "variant")]
        found[arm] = {"samples": len(mine), **{key: _mean(key, mine, places, groups) for key in keys}}
        found[arm]["moved_most_m"] = max((row["moved_m"] for row in mine if "moved_m" in row), default=0.0)
    return found


def _mean(
    key: str, rows: Sequence[Mapping[str, Any]], places: Mapping[str, int], groups: Groups
) -> dict[str, float | int | None]:
    values = np.full(len(places), np.nan)
    for row in rows:
        if row[key] is not None:
            values[places[row["id"]]] = float(row[key])
    measure = Measure.of(values)
    low, high = mean_interval(measure, groups)
    return {"mean": measure.mean, "low": low, "high": high, "of": int(measure.weights.sum())}


def arm_rows(arms: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[dict[str, str]]:
    """The table as strings, a row per variant and arm; three figures in one cell are those at 1, 2 and 3 s."""
    rows = []
    for variant, of_arms in arms.items():
        for arm, values in of_arms.items():
            row = {"variant": variant, "arm": arm, "samples": str(values["samples"])}
            for name, kind, unit in (("left, m", "left", "m"), ("faster, m/s", "faster", "mps")):
                row[name] = " ".join(f"{values[f'{kind}_{at:g}s_{unit}']['mean']:+.2f}" for at in TIMES_S)
                last = values[f"{kind}_{TIMES_S[-1]:g}s_{unit}"]
                row[f"{name} (95 %)"] = _interval(last, "{:+.2f}")
            row["ADE 3 s, m"] = f"{values['ade_3s_m']['mean']:.2f}" if "ade_3s_m" in values else ""
            for name in ("obeys", "off_road"):
                row[name.replace("_", " ")] = (
                    percent(values[name]["mean"]) if name in values and values[name]["of"] else "-"
                )
                row[f"{name.replace('_', ' ')} (95 %)"] = _interval(values[name], "{:.0%}") if name in values else ""
            rows.append(row)
    return rows


def arm_tables(metrics: Mapping[str, Any]) -> list[Any]:
    """A table per variant for the terminal, each followed by the spread beside which its shifts are seen."""
    shown: list[Any] = []
    for variant, of_arms in metrics["arms"].items():
        rows = [list(row.items())[1:] for row in arm_rows({variant: of_arms})]
        headings = [name for name, _ in rows[0]]
        shown.append(Table(f"Arms, {variant}", headings, [[value for _, value in row] for row in rows]))
        spread = (f"{key} {value:.2f}" for key, value in metrics["spread"][variant].items())
        shown.append(f"spread of the sampler: {', '.join(spread)}")
    return shown


def _interval(value: Mapping[str, Any], form: str) -> str:
    if value["low"] is None:
        return ""
    return f"{form.format(value['low'])} to {form.format(value['high'])}"
