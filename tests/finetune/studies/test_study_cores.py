"""The numbers behind the studies: nested subsets, enough samples, paths measured, reach."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from collector.reasoning.consistency import parse_claim
from finetune.policy import Observation
from finetune.studies.action_range import BIN_EDGES, bin_shares, ignorant_loss, path_cost, reach
from finetune.studies.counterfactual import forced_text, measure_path, summarise_reasonings
from finetune.studies.parity import compare_stage
from finetune.studies.subsets import nested_order
from finetune.studies.sweep import enough_samples, read_sizes
from tests.helpers.constant_curvature import ConstantCurvature


def _arc(curvature_1pm: float) -> NDArray[np.float64]:
    """(64, 3) poses at 4 m/s."""
    seen = Observation(0, {}, np.zeros((16, 3)))
    return ConstantCurvature(curvature_1pm=curvature_1pm, speed_mps=4.0).plan(seen).poses


def _samples(counts: dict[str, int]) -> list[Any]:
    curves = {"straight": 0.0, "left": 0.1, "right": 0.2, "s": 0.05}
    return [
        SimpleNamespace(id=f"{label}-{number}", curve=SimpleNamespace(label=label, max_abs_curvature_1pm=curves[label]))
        for label, count in counts.items()
        for number in range(count)
    ]


def test_every_beginning_of_the_order_has_the_mix_of_the_whole() -> None:
    samples = _samples({"left": 400, "right": 300, "straight": 200, "s": 100})
    order = nested_order(samples, seed=3)
    assert sorted(order) == list(range(1000))
    for size in (10, 50, 333):
        labels = Counter(samples[index].curve.label for index in order[:size])
        for label, share in (("left", 0.4), ("right", 0.3), ("straight", 0.2), ("s", 0.1)):
            assert abs(labels[label] - share * size) <= 1.0
    assert order != nested_order(samples, seed=4)
    # Which samples of a bin come first depends on their names, not on where they stand.
    turned = samples[::-1]
    assert {samples[i].id for i in order[:50]} == {turned[i].id for i in nested_order(turned, seed=3)[:50]}


def test_sizes_are_read_with_commas_or_blanks() -> None:
    assert read_sizes(["50,100,200"]) == read_sizes(["200", "50", "100", "50"]) == (50, 100, 200)


def test_enough_is_where_no_larger_size_is_much_worse() -> None:
    def rows(*values: float) -> list[dict[str, Any]]:
        return [{"samples": size, "ade": value} for size, value in zip((0, 50, 100, 200, 500), values, strict=False)]

    assert enough_samples(rows(3.0, 1.5, 0.59, 0.55, 0.5), "ade") == 100
    # A lucky small size that the next one does not keep is not enough.
    assert enough_samples(rows(3.0, 0.5, 1.0, 0.55, 0.5), "ade") == 200
    assert enough_samples(rows(0.5, 0.0, 0.0, 0.0, 0.0), "ade") == 50
    assert enough_samples(rows(3.0, 0.5, 0.5, 0.5, 0.9), "ade") is None
    assert enough_samples(rows(0.4, 0.5, 0.5, 0.5, 0.5), "ade") is None  # the base is better
    assert enough_samples(rows(3.0, float("nan"), 1.0, 1.0, 1.0), "ade") is None
    assert enough_samples(rows(3.0), "ade") is None and enough_samples(rows(3.0, 1.0), "fde") is None


@pytest.mark.parametrize(("side", "curvature_1pm"), [("left", 0.15), ("right", -0.15)])
def test_paths_are_measured_towards_the_true_side(side: str, curvature_1pm: float) -> None:
    sign = 1.0 if side == "left" else -1.0
    towards = measure_path(_arc(curvature_1pm), sign, f"The lane bends {side}, so steer {side}.")
    assert towards["follows"] and towards["heading_2s_rad"] == pytest.approx(0.15 * 4.0 * 2.0)
    assert towards["lateral_3s_m"] > 1.0
    away = measure_path(_arc(-curvature_1pm), sign, f"The lane bends {side}, so steer {side}.")
    assert away["follows"] is False and away["lateral_3s_m"] == pytest.approx(-towards["lateral_3s_m"])
    assert measure_path(_arc(curvature_1pm), sign, "")["follows"] is None
    rows = [
        {"id": 1, "true_direction": side, "reasoning": reasoning, **measured}
        for reasoning, measured in (("true", towards), ("opposite", away))
    ]
    summary = summarise_reasonings(rows)
    assert summary["opposite"]["to_true_side"] == 0.0 and summary["true"]["to_true_side"] == 1.0
    assert summary["opposite"]["moved_heading_2s_rad"] == pytest.approx(2 * 0.15 * 4.0 * 2.0)


@pytest.mark.parametrize(
    "text", ["The lane bends left now, so brake and steer left.", "車線が左に曲がるので、左に操舵しながら減速する。"]
)
def test_forced_texts_name_what_they_should(text: str) -> None:
    sample: Any = SimpleNamespace(reasoning=text, future_array=lambda: _arc(0.15), dt_s=0.1, speed_mps=4.0, curve=None)
    names = {
        reasoning: parse_claim(forced_text(sample, reasoning)).lateral for reasoning in ("true", "opposite", "straight")
    }
    assert names == {"true": "left", "opposite": "right", "straight": "straight"}
    assert forced_text(sample, "none") == ""


def test_reach_and_shares_count_waypoints() -> None:
    actions = np.zeros((4, 64, 2))
    actions[0, :32, 1] = -9.0
    actions[1, 0, 0] = 4.0
    found = reach(actions)
    assert found["curvature"]["waypoints_beyond_8"] == pytest.approx(32 / 256)
    assert found["curvature"]["samples_beyond_8"] == 0.25 and found["curvature"]["largest"] == 9.0
    assert found["acceleration"]["samples_beyond_3"] == 0.25 and found["acceleration"]["samples_beyond_5"] == 0.0
    assert bin_shares(actions)[-1] == pytest.approx(32 / 256) and len(bin_shares(actions)) == len(BIN_EDGES) - 1
    # An eighth of the waypoints carries most of what a model without knowledge pays.
    assert bin_shares(actions, ignorant_loss(actions))[-1] > 0.7


def test_only_moved_paths_count_for_a_clip() -> None:
    gap = np.zeros((4, 64))
    gap[0] = 2.0
    cost = path_cost(5.0, gap)
    assert cost["samples_moved"] == 0.25 and cost["mean_3s_m"] == 2.0
    assert path_cost(5.0, np.zeros((4, 64)))["largest_6.4s_m"] == 0.0


def test_stages_are_compared_by_value_shape_and_kind() -> None:
    whole, half = np.array([1, 2, 3]), np.array([1.0, 2.0, 4.0])
    assert compare_stage([whole], [whole], ["a"], 0.0).agrees
    assert not compare_stage([whole + 1], [whole], ["a"], 10.0).agrees  # whole numbers tolerate nothing
    assert compare_stage([half * (1 + 1e-5)], [half], ["a"], 1e-4).agrees
    wrong = compare_stage([half, half + 1.0], [half, half], ["a", "b"], 1e-4)
    assert not wrong.agrees and wrong.sample_id == "b" and wrong.largest == 1.0
    assert not compare_stage([half[:2]], [half], ["a"], 1e9).agrees
    assert not compare_stage([half * np.nan], [half], ["a"], 1e9).agrees
