"""Plans judged and set aside, on identical samples, up to the tables a person reads."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collector.common.errors import MonoError
from collector.common.tables import Console
from collector.geometry.poses import mirror_poses
from finetune.evaluation.bootstrap import group_samples
from finetune.evaluation.consistency import answers, check_reasoning, summarise
from finetune.evaluation.metrics import MAX_DEVIATION, NON_FINITE, Scores, identical_samples, label_masks, radius_masks
from finetune.evaluation.tables import (
    compare_before_after,
    definitions,
    headline,
    in_todays_words,
    print_tables,
    write_tables,
)
from tests.helpers.driven_samples import make_sample, make_stretches

SAMPLES = make_stretches(9, 6)
LEFT_AND_FASTER = "The lane bends left ahead, so speed up and steer left to keep the lane."


def planned(name: str, error_m: float, draws: int = 1, thinks: bool = True) -> Scores:
    """Plans beside the driven path by a distance that grows to ``error_m`` at 3 s."""
    scores = Scores(name, SAMPLES, draws, thinks)
    for index, sample in enumerate(SAMPLES):
        plan = sample.future_array()
        plan[:, 1] += np.minimum(np.arange(1, 65) / 30.0, 1.0) * error_m
        drawn = np.stack([plan] * draws) if draws > 1 else None
        scores.add(index, plan, sample.reasoning, drawn)
    return scores


def metrics_of(variants: list[Scores], draws: int = 1) -> dict[str, Any]:
    chosen, groups = identical_samples(variants), group_samples(SAMPLES)
    summaries = {scores.name: scores.summary(chosen) for scores in variants}
    return {
        "definitions": definitions(draws), "cameras": "mono", "evaluated": "split val", "samples": int(chosen.sum()),
        "draws": draws, "bootstrap": {"groups": groups.count, "group": groups.what}, "notes": ["a note"],
        "table": headline(variants, summaries, chosen, groups, seed=0), "variants": summaries,
        "verdicts": compare_before_after(variants[0], variants[1], chosen, groups, draws, seed=0),
    }  # fmt: skip


def test_a_plan_with_nan_is_set_aside_in_every_variant() -> None:
    before, after = planned("before", 2.0), planned("after", 1.0)
    broken = SAMPLES[7].future_array()
    broken[40, 2] = np.nan
    again = Scores("after", SAMPLES)
    for index, sample in enumerate(SAMPLES):
        line = again.add(index, broken if index == 7 else after.poses[index], sample.reasoning)
        assert line.get("set_aside") == (NON_FINITE if index == 7 else None)
        assert ("poses" in line) == (index != 7) and line["reasoning"] == sample.reasoning
    again.set_aside(9, "another reason")
    metrics = metrics_of([before, again])
    assert metrics["samples"] == len(SAMPLES) - 2
    assert metrics["variants"]["before"]["samples"] == len(SAMPLES) - 2
    assert metrics["variants"]["after"]["set_aside"] == {NON_FINITE: 1, "another reason": 1}
    assert metrics["variants"]["before"]["set_aside"] == {}
    assert metrics["variants"]["after"][MAX_DEVIATION] == pytest.approx(1.0)
    empty = Scores("after", SAMPLES)
    for index in range(len(SAMPLES)):
        empty.add(index, np.full((64, 3), np.nan))
    with pytest.raises(MonoError, match=rf"after: {NON_FINITE} \(54\)"):
        identical_samples([before, empty])


def test_a_draw_with_nan_is_no_draw() -> None:
    scores = Scores("before", SAMPLES, draws=2)
    good = SAMPLES[0].future_array()
    scores.add(0, good, draws=np.stack([good, good * np.nan]))
    assert scores.reasons == {0: NON_FINITE}


def test_curves_and_radii_divide_the_samples() -> None:
    for masks in (label_masks(SAMPLES), {**radius_masks(SAMPLES), "straight": label_masks(SAMPLES)["straight"]}):
        assert (np.sum(list(masks.values()), axis=0) == 1).all()
    assert list(label_masks(SAMPLES)) == ["straight", "left", "right"]
    assert list(radius_masks(SAMPLES)) == ["left medium", "right sharp"]  # radius 10 m and 5 m


def test_no_claim_is_never_consistent() -> None:
    left = make_sample(0.1).future_array()
    checks = [check_reasoning(text, left, left) for text in (LEFT_AND_FASTER, "Nothing to see.", "Keep the speed.")]
    rates = summarise(checks)
    assert (rates.plans, rates.coverage, rates.consistent) == (3, pytest.approx(1 / 3), 1.0)
    assert (rates.longitudinal_coverage, rates.longitudinal_consistent) == (pytest.approx(2 / 3), 0.5)
    assert (rates.both_coverage, rates.both_consistent) == (pytest.approx(1 / 3), 0.0)
    assert (rates.reasoning_right, rates.speed_reasoning_right) == (1.0, 0.5)
    assert answers(checks[1])["consistent"] is answers(checks[1])["both_consistent"] is None
    silent = summarise([checks[1]])
    assert silent.coverage == 0.0 and np.isnan(silent.consistent) and np.isnan(silent.speed_reasoning_right)


def test_reasoning_against_path_and_reasoning_against_truth_are_two_things() -> None:
    left = make_sample(0.1).future_array()
    straight = make_sample(0.0).future_array()
    symptom = check_reasoning(LEFT_AND_FASTER, straight, left)
    assert (symptom.agreement.lateral, symptom.reasoning_right, symptom.symptom) == ("contradict", True, True)
    dreamt = check_reasoning(LEFT_AND_FASTER, left, mirror_poses(left))
    assert (dreamt.agreement.lateral, dreamt.reasoning_right, dreamt.symptom) == ("agree", False, False)
    assert check_reasoning(LEFT_AND_FASTER, left, straight).symptom is None


@pytest.mark.parametrize(("after_m", "verdict"), [(0.4, "better"), (3.0, "worse"), (2.0, "undecided")])
def test_the_table_says_better_worse_or_undecided(tmp_path: Path, after_m: float, verdict: str) -> None:
    variants = [planned("before", 2.0), planned("after", after_m), planned("constant velocity", 2.0, thinks=False)]
    metrics = metrics_of(variants)
    rows = {row["variant"]: row for row in metrics["table"]}
    assert rows["after"]["max_deviation_m"] == pytest.approx(after_m) == rows["after"]["worst_m"]
    assert rows["after"]["verdict"] == verdict and rows["before"]["verdict"] is None
    assert rows["constant velocity"]["verdict"] == "undecided"
    found = {(row["curves"], row["measure"]): row for row in metrics["verdicts"]}
    assert found["all", MAX_DEVIATION]["verdict"] == verdict
    assert found["all", MAX_DEVIATION]["change"] == pytest.approx(after_m - 2.0)
    assert found["right", MAX_DEVIATION]["why"] == "too few groups: 3 of 5"
    assert found["all", "coverage"]["verdict"] == "undecided"  # 100 % on both sides
    assert not any("min_ade" in measure for _, measure in found)

    paths = write_tables(metrics, tmp_path)
    table = list(csv.DictReader(paths[0].open()))
    assert list(table[0])[:3] == ["variant", "max_deviation_m", "result"]
    assert table[1]["variant"] == "after" and table[1]["result"].startswith(verdict)
    errors = {(r["variant"], r["curves"], r["measure"]): r for r in csv.DictReader(paths[1].open())}
    assert float(errors["after", "left medium", "ade_3s_m"]["value"]) > 0.0
    assert errors["after", "left", "ade_3s_m"]["samples"] == "18"
    assert ("constant velocity", "all", "consistent") not in errors
    assert {row["verdict"] for row in csv.DictReader(paths[2].open())} <= {"better", "worse", "undecided"}
    text = paths[3].read_text()
    assert "thinks curve" in text and "a note" in text and "Coverage: share of plans" in text and "minADE_1" in text


@pytest.mark.parametrize("width", [80, 200])
def test_tables_fit_a_terminal(width: int) -> None:
    file = io.StringIO()
    console = Console(file, width)
    print_tables(metrics_of([planned("before", 2.0, 3), planned("after", 0.4, 3)], draws=3), console)
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines), "a cut cell"
    assert any("better: -1.60" in line for line in lines)
    assert any("minADE_3" in line for line in lines)


def test_metrics_of_version_0_1_are_read_in_todays_words() -> None:
    today = json.loads(json.dumps(metrics_of([planned("before", 2.0), planned("after", 0.4)])))
    former = json.dumps(today).replace("reasoning_right", "thought_right").replace('"variant', '"condition')
    assert "speed_thought_right" in former and '"conditions"' in former
    assert in_todays_words(json.loads(former)) == in_todays_words(today) == today
