"""How noisy recorded poses are, and poses cleaned by as much as that calls for.

The noise is measured on the tracks themselves, and clean poses stay exactly as recorded. Noisy ones are cleaned in two
steps: the heading is smoothed and, with the best speed there is, integrated to a guide that has the shape of every
bend; then only the slow difference between positions and guide is smoothed. So a hairpin keeps its radius under a
smoothing that would cut it short if it were applied to the positions themselves. Pure numpy; a mirrored track gives
the mirrored answer.

Source of the smoother: Whittaker's, minimise sum (z - p)^2 + penalty * sum (third difference of p)^2. Away from the
ends its weights are the same for every sample, so a long track costs one convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from collector.geometry.constants import NS_PER_S
from collector.geometry.poses import FloatArray, interpolate_poses, wrap_angle

# A track to be judged or cleaned: (N,) rising stamps in ns and (N, 3) map poses.
Track = tuple[NDArray[np.int64], FloatArray]
# Speeds over time: (M,) rising stamps in ns and (M,) m/s along the kart.
Speeds = tuple[NDArray[np.int64], FloatArray]
SpeedSource = Literal["wheel", "odometry", "positions"]

# Noise is looked for between poses this far apart: closer ones share it where a filter made them, and the model is
# shown poses at 10 Hz.
_SPACING_S = 0.1
_GRID_S = 0.02
# Medians of the length of a 2-D normal vector and of a 1-D one, over their deviation.
_RAYLEIGH_MEDIAN, _NORMAL_MEDIAN = 1.17741, 0.67449
# How lively a kart drives: power density of the third derivative that the noise is weighed against. Tuned on simulated
# hairpins of 4 m radius at 5 to 8 m/s; path errors change by less than a tenth within a factor of four.
_YAW_LIVELINESS = 50.0  # rad^2/s^5
_SPEED_LIVELINESS = 20.0  # of positions where only their speed is wanted, m^2/s^5
_DRIFT_LIVELINESS = {"wheel": 0.01, "odometry": 0.01, "positions": 0.2}  # of positions against the guide, m^2/s^5
_POSITION_LIVELINESS = 500.0  # of positions that have no heading to guide them, m^2/s^5
# Below about this speed the motion's direction is noise, and the recorded heading counts for more.
_TANGENT_SPEED_MPS = 1.0
# A heading that lies this far off the motion (median) is not the kart's.
_WRONG_HEADING_RAD = 0.35
# A speed source whose distance is this far off that of the positions is not believed; a smaller error is corrected.
_WRONG_SPEED = 0.1
_SHORT_M = 5.0


@dataclass(frozen=True)
class PoseNoise:
    """Standard deviations of a source's x, y and heading, and how far its heading lies off the motion (median)."""

    position_m: float = 0.0
    yaw_rad: float = 0.0
    heading_off_rad: float = 0.0

    @property
    def is_heading_wrong(self) -> bool:
        """Whether the recorded heading is not the kart's (sources without one often send zero)."""
        return self.heading_off_rad > _WRONG_HEADING_RAD


def measure_noise(tracks: Sequence[Track]) -> PoseNoise:
    """The noise of one source, from all its tracks; what is too short to tell counts as clean.

    A pose is compared with the cubic through the two before and the two after it, a tenth of a second apart: a
    hairpin of 4 m radius at 6 m/s seems to have 0.1 mm.
    """
    position, yaw, off = [np.empty(0)], [np.empty(0)], [np.empty(0)]
    for stamps_ns, poses in tracks:
        stride = max(1, round(_SPACING_S * NS_PER_S / float(np.median(np.diff(stamps_ns)))))
        if len(poses) <= 4 * stride:
            continue
        values = np.column_stack([poses[:, :2] - poses[:1, :2], np.unwrap(poses[:, 2])])
        misfit = _cubic_misfit((stamps_ns - stamps_ns[0]) / NS_PER_S, values, stride)
        position.append(np.hypot(misfit[:, 0], misfit[:, 1]))
        yaw.append(np.abs(misfit[:, 2]))
        reach = 5 * stride
        step = values[reach:, :2] - values[:-reach, :2]
        moving = np.hypot(step[:, 0], step[:, 1]) > 0.5
        middle = values[reach // 2 : reach // 2 + len(step), 2]
        off.append(np.abs(_turned(np.arctan2(step[:, 1], step[:, 0]) - middle))[moving])
    return PoseNoise(_median(position) / _RAYLEIGH_MEDIAN, _median(yaw) / _NORMAL_MEDIAN, _median(off))


def clean_poses(
    track: Track, noise: PoseNoise, speeds: Sequence[tuple[SpeedSource, Speeds]] = ()
) -> tuple[Track, SpeedSource]:
    """One track (two poses or more) without its noise, at 50 Hz between the same stamps, and whose speed shaped it.

    The heading follows the motion. Of the sources of speed, the best first, one is believed where it covers the track
    and its distance is that of the positions within a tenth; the last resort is the speed of the positions.
    """
    stamps_ns, poses = track
    span_ns = int(stamps_ns[-1] - stamps_ns[0])
    count = max(1, round(span_ns / NS_PER_S / _GRID_S))
    grid_ns = stamps_ns[0] + np.round(np.arange(count + 1) * (span_ns / count)).astype(np.int64)
    step_s = span_ns / count / NS_PER_S
    even = interpolate_poses(stamps_ns, poses, grid_ns)
    # Sparser poses than the grid are fewer, so each of theirs counts for less.
    fewer = max(1.0, span_ns / NS_PER_S / max(1, len(stamps_ns) - 1) / step_s) ** 0.5
    xy_noise_m, yaw_noise_rad = noise.position_m * fewer, noise.yaw_rad * fewer

    source: SpeedSource = "positions"
    if noise.is_heading_wrong:
        xy = _whittaker(even[:, :2], xy_noise_m, _POSITION_LIVELINESS, step_s)
        yaw = _motion_yaw(np.gradient(xy, step_s, axis=0))
    else:
        rough = _whittaker(even[:, :2], xy_noise_m, _SPEED_LIVELINESS, step_s)
        velocity = np.gradient(rough, step_s, axis=0)
        yaw = _whittaker(np.unwrap(even[:, 2])[:, None], yaw_noise_rad, _YAW_LIVELINESS, step_s)[:, 0]
        along = velocity[:, 0] * np.cos(yaw) + velocity[:, 1] * np.sin(yaw)
        source, speed = _best_speed(grid_ns, along, step_s, speeds)
        guide_rate = speed[:, None] * np.stack([np.cos(yaw), np.sin(yaw)], axis=1)
        guide = np.zeros_like(rough)
        guide[1:] = np.cumsum((guide_rate[1:] + guide_rate[:-1]) * (step_s / 2.0), axis=0)
        drift = _whittaker(even[:, :2] - guide, xy_noise_m, _DRIFT_LIVELINESS[source], step_s)
        xy = guide + drift
        velocity = np.gradient(xy, step_s, axis=0)
        trust = np.sum(velocity**2, axis=1)
        trust = trust / (trust + _TANGENT_SPEED_MPS**2)
        yaw = yaw + trust * _turned(np.arctan2(velocity[:, 1], velocity[:, 0]) - yaw)
    return (grid_ns, np.column_stack([xy, wrap_angle(yaw)])), source


def _cubic_misfit(time_s: FloatArray, values: FloatArray, stride: int) -> FloatArray:
    """Each inner value minus the cubic through its four neighbours, scaled so that white noise keeps its deviation."""
    count = len(values) - 4 * stride
    at = [time_s[k * stride : k * stride + count] for k in range(5)]
    neighbours = (0, 1, 3, 4)
    misfit, scale = values[2 * stride : 2 * stride + count].copy(), np.ones(count)
    for k in neighbours:
        weight = np.ones(count)
        for other in neighbours:
            if other != k:
                weight *= (at[2] - at[other]) / (at[k] - at[other])
        misfit -= weight[:, None] * values[k * stride : k * stride + count]
        scale += weight**2
    return np.asarray(misfit / np.sqrt(scale)[:, None])


def _median(parts: Sequence[FloatArray]) -> float:
    values = np.concatenate(parts)
    return float(np.median(values)) if len(values) else 0.0


def _turned(angle_rad: FloatArray) -> FloatArray:
    """The angle between two lines without direction, in [-pi/2, pi/2): a kart that reverses has not turned round."""
    return np.asarray(wrap_angle(2.0 * angle_rad) / 2.0)


def _whittaker(values: FloatArray, deviation: float, liveliness: float, step_s: float) -> FloatArray:
    """(N, C) evenly spaced values with white noise of a deviation, smoothed as much as their liveliness allows."""
    tau = min((deviation**2 / (liveliness * step_s**5)) ** (1.0 / 6.0), 60.0)
    reach = int(np.ceil(6.0 * tau)) + 2
    size = min(len(values), 2 * reach + 1)
    if size < 4 or tau < 0.1:
        return values
    third = np.diff(np.eye(size), 3, axis=0)
    weights = np.linalg.inv(np.eye(size) + tau**6 * third.T @ third)
    base = values[:1]
    rest = values - base
    if size < 2 * reach + 1:
        return np.asarray(weights @ rest + base)
    smooth = np.empty_like(rest)
    smooth[:reach], smooth[-reach:] = weights[:reach] @ rest[:size], weights[-reach:] @ rest[-size:]
    for column in range(values.shape[1]):
        smooth[reach:-reach, column] = np.convolve(rest[:, column], weights[reach], mode="valid")
    return smooth + base


def _best_speed(
    grid_ns: NDArray[np.int64], along_mps: FloatArray, step_s: float, speeds: Sequence[tuple[SpeedSource, Speeds]]
) -> tuple[SpeedSource, FloatArray]:
    driven_m = float(np.sum(np.abs(along_mps))) * step_s
    most_ns = NS_PER_S // 5
    for source, (recorded_ns, recorded_mps) in speeds:
        near = (recorded_ns >= grid_ns[0] - most_ns) & (recorded_ns <= grid_ns[-1] + most_ns)
        stamps_ns, speeds_mps = (values[near & np.isfinite(recorded_mps)] for values in (recorded_ns, recorded_mps))
        ends = np.concatenate([grid_ns[:1], stamps_ns, grid_ns[-1:]])
        if len(stamps_ns) < 2 or np.max(np.abs(np.diff(ends))) > most_ns:
            continue
        speed = np.interp(grid_ns, stamps_ns, speeds_mps)
        length_m = float(np.sum(np.abs(speed))) * step_s
        if driven_m < _SHORT_M:
            if abs(length_m - driven_m) < _WRONG_SPEED * _SHORT_M * 2.0:
                return source, speed
        elif abs(length_m / driven_m - 1.0) < _WRONG_SPEED and np.mean(speed * along_mps) > 0.0:
            return source, speed * (driven_m / length_m)
    return "positions", along_mps


def _motion_yaw(velocity: FloatArray) -> FloatArray:
    """Direction of motion, held where the kart stands."""
    moving = np.flatnonzero(np.hypot(velocity[:, 0], velocity[:, 1]) > _TANGENT_SPEED_MPS / 2.0)
    if len(moving) == 0:
        return np.zeros(len(velocity))
    yaw = np.unwrap(np.arctan2(velocity[moving, 1], velocity[moving, 0]))
    return np.asarray(np.interp(np.arange(len(velocity)), moving, yaw))
