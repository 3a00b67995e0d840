"""From how the camera and the kart moved to the camera's time offset and pitch, or why they cannot be told.

Both answers carry a standard error: from a bootstrap over blocks of the drive, since neighbouring frames err alike, and
from what the method itself was off by on simulated drives of known time offset and pitch, which no bootstrap sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collector.common.arguments import Arguments, argument
from collector.common.errors import MonoError
from collector.geometry.poses import FloatArray

OFFSET_STEP_S = 0.004
BLOCK_NS = 2_000_000_000
# A straight, or five seconds of a long one, counts as one look at the pitch.
_STRETCH_GAP_NS, _STRETCH_NS = 1_000_000_000, 5_000_000_000
_DRAWS = 300
# Ten drives of 45 s on ten courses: the time offset came out 1.2 ms too long on average, the pitch 0.07 degrees too low
# (the vanishing point is drawn towards the features, and most of them lie on the road).
_METHOD_OFFSET_SD_S, _METHOD_PITCH_SD_RAD = 0.0012, 0.0012
_PEAK_REACH = 8  # steps of time offset on either side of the peak through which its parabola is laid
_OUTLIERS_MADS = 5.0
_LEAST_OUTLIER_RAD = 0.01


@dataclass(frozen=True)
class FitLimits(Arguments):
    """When a bag tells enough."""

    max_offset_s: float = argument(0.4, "offsets searched on both sides of zero", 0.1, 5.0)
    min_turn_pairs: int = argument(100, "pairs of frames the time offset needs", 1, 10_000_000)
    min_yaw_rate_radps: float = argument(
        0.08, "root mean square of the yaw rate below which a drive holds no turns", 0.0, 10.0
    )
    min_correlation: float = argument(0.6, "of image and odometry turns at the best time offset", 0.0, 1.0)
    max_offset_sd_s: float = argument(0.01, "a less certain time offset is refused", 0.0, 10.0)
    max_ratio_error: float = argument(
        0.3, "how far image turns over odometry turns may be from 1 (a wrong focal length)", 0.0, 10.0
    )
    straight_yaw_rate_radps: float = argument(0.15, "a straight turns more slowly than this over a second", 0.0, 10.0)
    min_straight_pairs: int = argument(30, "pairs of frames on straights the pitch needs", 1, 10_000_000)
    max_pitch_sd_rad: float = argument(0.006, "a less certain pitch is refused", 0.0, 1.0)


@dataclass(frozen=True)
class TimeOffsetFit:
    """The time offset of best correlation (positive: pictures show the past) and its standard error."""

    offset_s: float
    sd_s: float
    correlation: float
    ratio: float  # image turns over odometry turns at the time offset
    pairs: int
    offsets_s: FloatArray  # (L,) of the curve whose peak it is
    correlations: FloatArray  # (L,) of that curve
    used: NDArray[np.bool_]  # (N,) which of the pairs given were used; the rest are outliers


@dataclass(frozen=True)
class PitchFit:
    """The pitch of most pairs on straights, its standard error, and the pairs' own (N,), radians."""

    pitch_rad: float
    sd_rad: float
    pitches_rad: FloatArray


def offset_grid(limits: FitLimits) -> FloatArray:
    """The offsets tried, (L,) seconds."""
    count = round(limits.max_offset_s / OFFSET_STEP_S)
    return np.asarray(OFFSET_STEP_S * np.arange(-count, count + 1), np.float64)


def fit_time_offset(
    start_ns: NDArray[np.int64],  # (N,) stamp of the first frame of each pair, for the blocks
    seconds: FloatArray,  # (N,) between the frames
    image_turn_rad: FloatArray,  # (N,) how far the camera turned left from frame to frame
    odometry_turn_rad: FloatArray,  # (N, L) how far the kart turned between the two stamps minus each of `offset_grid`
    limits: FitLimits,  # when to refuse
) -> TimeOffsetFit:
    """The time offset at which the kart's turns fit the camera's.

    Raises:
        MonoError: too few pairs, no turns, no clear peak, or a turn ratio that contradicts the focal length.
    """
    offsets = offset_grid(limits)
    if len(start_ns) < limits.min_turn_pairs:
        found = f"the time offset cannot be told: {len(start_ns)} pairs of frames show the camera's motion"
        do = "record a minute of driving with turns, poses included"
        raise MonoError(found, f"at least {limits.min_turn_pairs}", do)
    middle = odometry_turn_rad[:, len(offsets) // 2]
    yaw_rate = float(np.sqrt(np.mean((middle / seconds) ** 2)))
    if yaw_rate < limits.min_yaw_rate_radps:
        found = f"the time offset cannot be told: the kart hardly turns (root mean square {yaw_rate:.3f} rad/s)"
        raise MonoError(found, f"at least {limits.min_yaw_rate_radps} rad/s", "record a drive through curves")
    used = np.ones(len(start_ns), bool)
    for _ in range(2):  # the second time without the pairs that no time offset explains
        sums = _block_sums(start_ns[used], image_turn_rad[used], odometry_turn_rad[used])
        curve = _correlation(sums.sum(axis=0))
        best = int(np.argmax(curve))
        ratio, offset = np.polyfit(odometry_turn_rad[used, best], image_turn_rad[used], 1)
        rest = np.abs(image_turn_rad - ratio * odometry_turn_rad[:, best] - offset)
        used = rest <= max(_LEAST_OUTLIER_RAD, _OUTLIERS_MADS * 1.4826 * float(np.median(rest)))
    offset_s, peak = peak_of(offsets, curve)
    rng = np.random.default_rng(0)
    picks = rng.multinomial(len(sums), np.full(len(sums), 1.0 / len(sums)), _DRAWS)
    drawn = [peak_of(offsets, _correlation(np.tensordot(pick, sums, 1)))[0] for pick in picks]
    sd_s = _spread(drawn, len(sums), _METHOD_OFFSET_SD_S)
    at_edge = not _PEAK_REACH <= best < len(offsets) - _PEAK_REACH
    if at_edge or peak < limits.min_correlation or sd_s > limits.max_offset_sd_s:
        raise MonoError(
            f"the time offset cannot be told: turns seen and turns driven correlate by {peak:.2f} at best, "
            f"at {offset_s:.3f} s (+- {sd_s:.3f} s, searched to +-{limits.max_offset_s:g} s)",
            f"a peak of at least {limits.min_correlation:g} within the range, certain to {limits.max_offset_sd_s:g} s",
            "record longer, through more curves, in daylight; check that poses and frames are of the same drive",
        )
    if abs(ratio - 1.0) > limits.max_ratio_error:
        found = f"the camera seems to turn {ratio:.2f} times as far as the kart: the focal length does not fit"
        do = "give the camera's field of view with --hfov-deg"
        raise MonoError(found, f"a ratio within {limits.max_ratio_error:g} of 1", do)
    return TimeOffsetFit(offset_s, sd_s, peak, float(ratio), int(used.sum()), offsets, curve, used)


def fit_pitch(start_ns: NDArray[np.int64], pitches_rad: FloatArray, limits: FitLimits) -> PitchFit:
    """The camera's pitch: the median over the frame pairs on straights (N,), by what each says by its vanishing point.

    Raises:
        MonoError: too few pairs, or they contradict each other.
    """
    if len(start_ns) < limits.min_straight_pairs:
        found = f"the pitch cannot be told: {len(start_ns)} pairs of frames lie on straights"
        do = "record a drive with straights, faster than walking pace"
        raise MonoError(found, f"at least {limits.min_straight_pairs}", do)
    groups = np.split(pitches_rad, _stretch_starts(start_ns))
    rng = np.random.default_rng(0)
    drawn = [
        np.median(np.concatenate([groups[number] for number in rng.integers(0, len(groups), len(groups))]))
        for _ in range(_DRAWS)
    ]
    sd_rad = _spread(drawn, len(groups), _METHOD_PITCH_SD_RAD)
    pitch_rad = float(np.median(pitches_rad))
    if len(groups) < 3 or sd_rad > limits.max_pitch_sd_rad:
        raise MonoError(
            f"the pitch cannot be told: {len(groups)} stretches of straight give {np.degrees(pitch_rad):.1f} "
            f"+- {np.degrees(sd_rad):.2f} degrees",
            f"at least 3 stretches and an error below {np.degrees(limits.max_pitch_sd_rad):.2f} degrees",
            "record longer, with more straights",
        )
    return PitchFit(pitch_rad, sd_rad, pitches_rad)


def _stretch_starts(start_ns: NDArray[np.int64]) -> list[int]:
    """Where, in the rising stamps of pairs on straights, the second and every further stretch begins."""
    starts, first = [], 0
    for number in range(1, len(start_ns)):
        pause_ns = start_ns[number] - start_ns[number - 1]
        if not 0 <= pause_ns <= _STRETCH_GAP_NS or start_ns[number] - start_ns[first] > _STRETCH_NS:
            starts.append(number)
            first = number
    return starts


def _spread(drawn: Sequence[Any], blocks: int, of_method: float) -> float:
    """Standard error from a bootstrap's draws; with few blocks their spread is short by (B - 1) / B of its square."""
    return float(np.hypot(np.std(drawn) * np.sqrt(blocks / max(1, blocks - 1)), of_method))


def peak_of(offsets_s: FloatArray, curve: FloatArray) -> tuple[float, float]:
    """Place and height of a curve's maximum, finer than its grid: the vertex of a parabola through its neighbours."""
    best = int(np.argmax(curve))
    near = slice(max(0, best - _PEAK_REACH), best + _PEAK_REACH + 1)
    a, b, c = np.polyfit(offsets_s[near] - offsets_s[best], curve[near], 2)
    reach_s = _PEAK_REACH * OFFSET_STEP_S
    if a >= 0.0 or abs(b) > 2.0 * -a * reach_s:
        return float(offsets_s[best]), float(curve[best])
    return float(offsets_s[best] - b / (2.0 * a)), float(c - b * b / (4.0 * a))


def _block_sums(start_ns: NDArray[np.int64], x: FloatArray, y: FloatArray) -> FloatArray:
    """(B, 6, L) per block: count, sum x, sum y, sum xx, sum yy, sum xy; correlations of any mix of blocks follow."""
    _, block = np.unique(start_ns // BLOCK_NS, return_inverse=True)
    wide = np.broadcast_to(x[:, None], y.shape)
    terms = np.stack([np.ones_like(y), wide, y, wide * wide, y * y, wide * y], axis=1)
    sums = np.zeros((block.max() + 1, *terms.shape[1:]))
    np.add.at(sums, block, terms)
    return sums


def _correlation(sums: FloatArray) -> FloatArray:
    """(L,) Pearson's correlation from sums (6, L)."""
    n, x, y, xx, yy, xy = sums
    spread = np.sqrt(np.maximum((n * xx - x * x) * (n * yy - y * y), 1e-30))
    return np.asarray((n * xy - x * y) / spread, np.float64)
