"""Planted differences get the verdict they deserve; neighbours are not taken for independent."""

from __future__ import annotations

import numpy as np
import pytest

from finetune.evaluation.bootstrap import (
    FEWEST_GROUPS,
    Better,
    Difference,
    Groups,
    Measure,
    compare,
    group_samples,
    tail_share,
)
from tests.helpers.driven_samples import STEP_NS, make_sample, make_stretches

PER_GROUP = 12


def grouped(count: int) -> Groups:
    return Groups(np.repeat(np.arange(count), PER_GROUP), count, "planted")


def judge(before: np.ndarray, after: np.ndarray, groups: Groups, better: Better = "lower", **kwargs: int) -> Difference:
    one, other = {"x": Measure.of(before)}, {"x": Measure.of(after)}
    return compare(one, other, {"x": better}, groups, **kwargs)["x"]


@pytest.mark.parametrize(
    ("shift", "better", "verdict"),
    [(-0.5, "lower", "better"), (0.5, "lower", "worse"), (0.0, "lower", "undecided"), (0.5, "higher", "better"),
     (-0.5, "higher", "worse")],
)  # fmt: skip
def test_planted_differences(shift: float, better: Better, verdict: str) -> None:
    generator = np.random.default_rng(1)
    groups = grouped(10)
    before = np.repeat(generator.normal(3.0, 2.0, 10), PER_GROUP) + generator.normal(0.0, 0.2, 120)
    noise = np.repeat(generator.normal(0.0, 0.2, 10), PER_GROUP)
    found = judge(before, before + noise - noise.mean() + shift, groups, better)
    assert found.verdict == verdict
    assert found.change == pytest.approx(shift)
    assert found.low is not None and found.high is not None and found.low < shift < found.high


def test_many_neighbours_do_not_make_a_finding() -> None:
    """One stretch in which everything became better, among stretches that did not change."""
    groups = grouped(10)
    before = np.full(120, 3.0)
    after = np.where(groups.index == 4, 1.0, before)
    assert judge(before, after, groups).verdict == "undecided"
    alone = Groups(np.arange(120), 120, "as if every sample stood for itself")
    assert judge(before, after, alone).verdict == "better", "the wrong way must differ, or this test shows nothing"


def test_the_interval_holds_what_it_promises() -> None:
    generator = np.random.default_rng(2)
    missed = 0
    for seed in range(200):
        effect = np.repeat(generator.normal(0.0, 1.0, 8), PER_GROUP) + generator.normal(0.0, 0.5, 96)
        missed += judge(np.zeros(96), effect, grouped(8), resamples=1000, seed=seed).verdict != "undecided"
    assert missed <= 21, f"{missed} of 200 differences found where there is none, 10 expected"
    # Student's t with 7 degrees of freedom is 2.365 at 95 %: sqrt(8 / 7) of it, beyond a normal's 1.96.
    assert tail_share(8) == pytest.approx(0.00573, abs=2e-5)
    assert tail_share(100_000) == pytest.approx(0.025, abs=1e-5)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(0).normal(size=96)
    first, again, other = (judge(np.zeros(96), values, grouped(8), seed=seed) for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_a_rate_counts_only_those_it_is_a_share_of() -> None:
    groups = grouped(6)
    says = (np.arange(72) % 2).astype(float)  # every second plan claims something
    before, after = Measure(np.zeros(72), says), Measure(says, np.ones(72))
    found = compare({"x": before}, {"x": after}, {"x": "higher"}, groups)["x"]
    assert (found.before, found.after) == (0.0, 0.5)
    assert found.verdict == "better"


@pytest.mark.parametrize("count", [1, FEWEST_GROUPS - 1])
def test_too_few_groups_give_no_interval(count: int) -> None:
    size = count * PER_GROUP
    found = judge(np.full(size, 9.0), np.zeros(size), grouped(count))
    assert (found.verdict, found.low, found.why) == ("undecided", None, f"too few groups: {count} of {FEWEST_GROUPS}")


def test_nothing_at_all_is_undecided() -> None:
    found = judge(np.full(96, np.nan), np.zeros(96), grouped(8))
    assert found.verdict == "undecided" and np.isnan(found.before)


def test_groups_are_laps_of_a_bag_cut_at_long_gaps() -> None:
    laps = make_stretches(5, 4) + make_stretches(2, 4, bag="other")
    groups = group_samples(laps)
    assert groups.count == 7
    assert groups.index.tolist() == np.repeat(np.arange(7), 4).tolist()
    again = group_samples([*laps, make_sample(stamp_ns=laps[-1].stamp_ns + 10 * 10**9, bag="other", lap=2)])
    assert again.count == 8 and again.index[-1] == 7  # the same lap, 10 s later
    shuffled = np.random.default_rng(0).permutation(len(laps))
    mixed = group_samples([laps[at] for at in shuffled])
    assert len(set(zip(mixed.index.tolist(), groups.index[shuffled].tolist(), strict=True))) == 7


def test_one_long_lap_is_cut_into_pieces_of_a_plan() -> None:
    lap = [make_sample(stamp_ns=10**9 + step * STEP_NS) for step in range(200)]  # 40 s
    groups = group_samples(lap)
    assert "pieces of 6.4 s" in groups.what and groups.count == 7
    lengths_s = [
        np.ptp([s.stamp_ns for s, at in zip(lap, groups.index, strict=True) if at == one]) / 1e9 for one in range(7)
    ]
    assert max(lengths_s) <= 6.4
