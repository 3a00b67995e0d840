"""Before against after on the same samples: a paired bootstrap over stretches of driving, and a plain verdict.

Neighbouring samples show nearly the same road, so whole groups of them are drawn, not samples. With few groups a
percentile interval is too narrow; it is widened as Hesterberg does ("What Teachers Should Know About the Bootstrap",
The American Statistician 69, 2015: the expanded percentile interval). Pure numpy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from collector.geometry.poses import FloatArray
from finetune.policy import FUTURE_STEPS, STEP_S

if TYPE_CHECKING:
    from collector.dataset.schema import Sample

Better = Literal["lower", "higher"]
Verdict = Literal["better", "worse", "undecided"]

RESAMPLES = 10_000
CONFIDENCE = 0.95
# With fewer groups an interval says more about luck than about the driver.
FEWEST_GROUPS = 5
HORIZON_NS = round(FUTURE_STEPS * STEP_S * 1e9)
_AT_A_TIME = 1_000
# A rate that is defined in fewer of the resamples than this has no interval.
_DEFINED = 0.95


@dataclass(frozen=True, eq=False)
class Groups:
    """Which samples belong together: ``index`` (N,) from 0, their ``count``, and in words what a group is."""

    index: NDArray[np.int64]
    count: int
    what: str


@dataclass(frozen=True, eq=False)
class Measure:
    """A mean over samples: ``values`` (N,) and ``weights`` (N,), 0 where a sample does not count."""

    values: FloatArray
    weights: FloatArray

    @classmethod
    def of(cls, values: FloatArray) -> Measure:
        """Over all finite values."""
        counts = np.isfinite(values)
        return cls(np.where(counts, values, 0.0), counts.astype(np.float64))

    @property
    def mean(self) -> float:
        """NaN over nothing."""
        total = float(self.weights.sum())
        return float((self.values * self.weights).sum() / total) if total else float("nan")

    def where(self, chosen: NDArray[np.bool_]) -> Measure:
        """Over the chosen samples only."""
        return Measure(self.values, self.weights * chosen)


@dataclass(frozen=True)
class Difference:
    """After minus before."""

    before: float  # the mean before
    after: float  # and after
    low: float | None  # the interval of the difference; None where there is none
    high: float | None  # its other end
    verdict: Verdict  # better or worse where the interval leaves zero out
    why: str = ""  # of an undecided row without an interval

    @property
    def change(self) -> float:
        """After minus before."""
        return self.after - self.before


def group_samples(samples: Sequence[Sample]) -> Groups:
    """Stretches: one bag, one lap, no gap longer than a plan. Where these are too few, pieces of a plan's length."""
    names: dict[tuple[str, int], list[int]] = {}
    for position, sample in enumerate(samples):
        names.setdefault((sample.bag, sample.lap), []).append(position)
    index = np.zeros(len(samples), np.int64)
    blocks = np.zeros(len(samples), np.int64)
    stretch = block = -1
    for positions in names.values():
        start_ns = last_ns = -(2**62)
        for position in sorted(positions, key=lambda at: samples[at].stamp_ns):
            stamp_ns = samples[position].stamp_ns
            if stamp_ns - last_ns > HORIZON_NS:
                stretch, block, start_ns = stretch + 1, block + 1, stamp_ns
            elif stamp_ns - start_ns > HORIZON_NS:
                block, start_ns = block + 1, stamp_ns
            index[position], blocks[position], last_ns = stretch, block, stamp_ns
    seconds = f"{HORIZON_NS / 1e9:g} s"
    if stretch + 1 >= FEWEST_GROUPS or block == stretch:
        return Groups(index, stretch + 1, f"stretches of one lap without a gap of {seconds}")
    return Groups(blocks, block + 1, f"pieces of {seconds}, because there are only {stretch + 1} stretches of driving")


def compare(
    before: Mapping[str, Measure],
    after: Mapping[str, Measure],
    better: Mapping[str, Better],
    groups: Groups,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Difference]:
    """Every measure before against after, all with the same draws of groups.

    The measures are of the same samples in the same order; only names in both are compared. ``better`` is which
    direction is good.
    """
    names = [name for name in before if name in after]
    columns = []
    for name in names:
        for measure in (before[name], after[name]):
            columns += [_sums(measure.values * measure.weights, groups), _sums(measure.weights, groups)]
    totals = np.stack(columns, axis=1) if columns else np.zeros((groups.count, 0))
    generator = np.random.default_rng(seed)
    drawn = []
    for start in range(0, resamples, _AT_A_TIME):
        size = min(_AT_A_TIME, resamples - start)
        counts = generator.multinomial(groups.count, np.full(groups.count, 1.0 / groups.count), size=size)
        drawn.append(counts @ totals)
    sums = np.concatenate(drawn).reshape(resamples, len(names), 2, 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = sums[..., 0] / sums[..., 1]
    changes = means[..., 1] - means[..., 0]
    return {
        name: _judge(before[name], after[name], better[name], groups, changes[:, column])
        for column, name in enumerate(names)
    }


def mean_interval(
    measure: Measure, groups: Groups, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float | None, float | None]:
    """The interval of a mean over samples, by drawing whole groups; None where there are too few of them."""
    held = np.unique(groups.index[measure.weights > 0])
    if len(held) < FEWEST_GROUPS:
        return None, None
    totals = np.stack([_sums(measure.values * measure.weights, groups), _sums(measure.weights, groups)], axis=1)[held]
    generator, share = np.random.default_rng(seed), np.full(len(held), 1.0 / len(held))
    sums = generator.multinomial(len(held), share, size=resamples) @ totals
    tail = tail_share(len(held))
    low, high = np.quantile(sums[:, 0] / sums[:, 1], [tail, 1.0 - tail])
    return float(low), float(high)


def _sums(values: FloatArray, groups: Groups) -> FloatArray:
    return np.bincount(groups.index, weights=values, minlength=groups.count).astype(np.float64)


def _judge(before: Measure, after: Measure, better: Better, groups: Groups, changes: FloatArray) -> Difference:
    held = np.unique(groups.index[(before.weights > 0) & (after.weights > 0)])
    means = before.mean, after.mean
    if len(held) < FEWEST_GROUPS:
        return Difference(*means, None, None, "undecided", f"too few groups: {len(held)} of {FEWEST_GROUPS}")
    drawn, changes = len(changes), changes[np.isfinite(changes)]
    if len(changes) < _DEFINED * drawn:
        return Difference(*means, None, None, "undecided", "too rare for an interval")
    tail = tail_share(len(held))
    low, high = (float(value) for value in np.quantile(changes, [tail, 1.0 - tail]))
    verdict: Verdict = "undecided"
    if high < 0.0:
        verdict = "better" if better == "lower" else "worse"
    elif low > 0.0:
        verdict = "worse" if better == "lower" else "better"
    return Difference(*means, low, high, verdict)


def tail_share(groups: int, confidence: float = CONFIDENCE) -> float:
    """Share of resamples beyond each end of the expanded percentile interval."""
    normal, freedom = NormalDist(), groups - 1
    z = normal.inv_cdf((1.0 + confidence) / 2.0)
    # Student's quantile from the normal one (Cornish and Fisher; Abramowitz and Stegun 26.7.5).
    t = (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )
    return normal.cdf(-t * (groups / freedom) ** 0.5)
