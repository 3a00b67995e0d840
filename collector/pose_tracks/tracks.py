"""The recorded drive as poses over time, cut wherever it is not one continuous motion.

A history or a future is only ever taken from within one segment, so no sample crosses a teleport, a pause of the
localisation or a reset of the simulator's clock; whoever asks for one gets the reason instead.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from collector.bags.reader import OdometryRow
from collector.common.arguments import Arguments, argument
from collector.geometry.constants import NS_PER_S
from collector.geometry.discontinuity import CLOCK_BACK, GAP, LATE, TELEPORT, TELEPORT_SLACK_M, discontinuity
from collector.geometry.poses import interpolate_poses
from collector.pose_tracks.sane_stamps import sane_stamps
from collector.pose_tracks.smoothing import PoseNoise, Speeds, SpeedSource, clean_poses, measure_noise

NO_POSE = "no pose"
CLOCKS_DIFFER = "clocks differ"
NON_FINITE = "non-finite pose"
HISTORY_CUT = "history cut off"
HORIZON_CUT = "horizon cut off"


@dataclass(frozen=True)
class TrackConfig(Arguments):
    """What counts as one continuous motion, and which poses are too noisy to be used as recorded."""

    max_pose_gap_s: float = argument(0.2, "a longer silence of the odometry cuts the track", 0.001, 1000.0)
    teleport_slack_m: float = argument(
        TELEPORT_SLACK_M,
        "two poses in a row may lie this much farther apart than twice the speed explains",
        1e-06,
        1000.0,
    )
    # auto cleans the poses of a recording whose measured noise is above the two limits below, or whose heading is not
    # that of its motion; never leaves all poses as recorded.
    smooth: Literal["auto", "never"] = "auto"
    clean_position_m: float = argument(0.003, "noise of x and y up to which poses count as clean", 1e-06, 1000.0)
    clean_yaw_rad: float = argument(0.003, "the same of the heading", 1e-06, 10.0)


@dataclass(frozen=True)
class TrackSegment:
    """One continuous motion: (N,) strictly rising header stamps and (N, 3) map poses without jumps."""

    epoch: int  # how often the clock has restarted before it
    stamps_ns: NDArray[np.int64]
    poses: NDArray[np.float64]
    begins: str  # why it does not reach further back
    ends: str  # or on
    # (N,) forward speed as the odometry tells it, NaN where it does not; empty once poses are cleaned
    speeds_mps: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True)
class PoseReport:
    """What was measured of a recording's poses and what was done about it; goes into the manifest."""

    noise: PoseNoise = field(default_factory=PoseNoise)
    smoothed: bool = False
    yaw: Literal["recorded", "motion"] = "recorded"  # whose heading the samples have
    # by whose speed the segments were cleaned: wheel, odometry, or that of the positions
    speed_pieces: dict[SpeedSource, int] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """As plain data, noise to a hundredth of a millimetre."""
        values = asdict(self)
        return values | {"noise": {name: round(value, 5) for name, value in values["noise"].items()}}


@dataclass(frozen=True)
class PoseTrack:
    """All segments of a recording, in order."""

    segments: tuple[TrackSegment, ...]
    epoch_received_ns: NDArray[np.int64]  # (E,) time of arrival of the first pose of each epoch
    received_ns: NDArray[np.int64]  # (M,) arrival of every pose used, to carry arrival times over
    stamps_ns: NDArray[np.int64]  # (M,) and its header stamp
    dropped: dict[str, int] = field(default_factory=dict)  # poses left out, by reason
    report: PoseReport = field(default_factory=PoseReport)

    def epoch_at(self, received_ns: int) -> int:
        """The epoch in which a message arrived."""
        return max(0, int(np.searchsorted(self.epoch_received_ns, received_ns, side="right")) - 1)

    def stamp_at(self, received_ns: int) -> int:
        """The header time that corresponds to a time of arrival (for messages without a header)."""
        if len(self.stamps_ns) == 0:
            return received_ns
        at = int(np.clip(np.searchsorted(self.received_ns, received_ns), 0, len(self.stamps_ns) - 1))
        return int(self.stamps_ns[at])

    def clock_offset_ns(self, stamps_ns: Sequence[int], received_ns: Sequence[int]) -> int:
        """How far stamps lie, in the median, from those of poses that arrive within 0.2 s of them; 0 without any."""
        if len(self.received_ns) == 0:
            return 0
        arrivals = np.asarray(received_ns, np.int64)
        at = np.clip(np.searchsorted(self.received_ns, arrivals), 0, len(self.received_ns) - 1)
        near = np.abs(self.received_ns[at] - arrivals) < NS_PER_S // 5
        offsets = (np.asarray(stamps_ns, np.int64) - self.stamps_ns[at])[near]
        return int(np.partition(offsets, len(offsets) // 2)[len(offsets) // 2]) if len(offsets) else 0

    def why_no_pose(self, stamp_ns: int, received_ns: int) -> str:
        """Whether there is no pose at a stamp since poses bear stamps of another clock."""
        if (near := self._nearest(received_ns)) is None:
            return NO_POSE
        # A simulation may run slower or faster than the clock of arrival.
        apart_ns = abs(stamp_ns - near[1] - near[0])
        return CLOCKS_DIFFER if apart_ns > NS_PER_S + abs(near[0]) else NO_POSE

    def spans(self, first_ns: int, last_ns: int) -> str:
        """Says which times a camera's and the poses' stamps cover."""
        if len(self.stamps_ns) == 0:
            return "there are no poses"
        ends_ns = (first_ns, last_ns, int(self.stamps_ns.min()), int(self.stamps_ns.max()))
        camera, poses = (f"{ends_ns[k] / NS_PER_S:.1f} to {ends_ns[k + 1] / NS_PER_S:.1f} s" for k in (0, 2))
        return (
            f"most frames have no pose: the camera's stamps are {camera}, the poses' {poses}. "
            "Do: stamp both by one clock (use_sim_time for both, or for neither), and record again"
        )

    def _nearest(self, received_ns: int) -> tuple[int, int] | None:
        """Of the pose that arrived nearest: how much later the given time is, and the pose's stamp."""
        if len(self.received_ns) == 0:
            return None
        at = int(np.searchsorted(self.received_ns, received_ns))
        around = range(max(0, at - 1), min(len(self.received_ns), at + 1))
        best = min(around, key=lambda k: abs(received_ns - int(self.received_ns[k])))
        return received_ns - int(self.received_ns[best]), int(self.stamps_ns[best])

    def segment_at(self, stamp_ns: int, epoch: int) -> int | str:
        """Index of the segment that holds a stamp, or the reason why none does."""
        ended = NO_POSE
        for index, segment in enumerate(self.segments):
            if segment.epoch != epoch:
                continue
            if stamp_ns < segment.stamps_ns[0]:
                return ended
            if stamp_ns <= segment.stamps_ns[-1]:
                return index
            ended = NO_POSE if segment.ends in (HORIZON_CUT, CLOCK_BACK) else segment.ends
        return NO_POSE

    def run_at(self, index: int) -> int:
        """A segment's run: a silence leaves the kart in its run, a restart or being put elsewhere does not."""
        run = 0
        for before, segment in pairwise(self.segments[: index + 1]):
            run += int(segment.begins == TELEPORT or segment.epoch != before.epoch)
        return run

    def window(self, stamp_ns: int, epoch: int, offsets_ns: NDArray[np.int64]) -> tuple[int, NDArray[np.float64]] | str:
        """The segment's index and map poses (K, 3) at ``stamp_ns + offsets_ns`` (rising), all within one segment.

        Or the reason why there is none or it ends short.
        """
        index = self.segment_at(stamp_ns, epoch)
        if isinstance(index, str):
            return index
        segment, query = self.segments[index], stamp_ns + offsets_ns
        if query[0] < segment.stamps_ns[0]:
            return segment.begins
        if query[-1] > segment.stamps_ns[-1]:
            return segment.ends
        # Only what is asked for: a long recording must not make every frame dearer.
        first = max(0, int(np.searchsorted(segment.stamps_ns, query[0], side="right")) - 1)
        last = int(np.searchsorted(segment.stamps_ns, query[-1])) + 1
        first = min(first, last - 2)
        return index, interpolate_poses(segment.stamps_ns[first:last], segment.poses[first:last], query)


def build_track(
    rows: Iterable[OdometryRow | None], config: TrackConfig | None = None, wheel: Speeds | None = None
) -> PoseTrack:
    """:func:`cut_track`, then :func:`clean_track`; the wheel's speeds are those of one clock that never restarted."""
    config = config or TrackConfig()
    return clean_track(cut_track(rows, config), config, None if wheel is None else {0: wheel})


def cut_track(rows: Iterable[OdometryRow | None], config: TrackConfig) -> PoseTrack:
    """Cut odometry, in order of arrival, into continuous segments; None where a message could not be read."""
    last: OdometryRow | None = None
    # Numbers, not rows: an hour of poses takes a tenth of the memory.
    times, values_of = array("q"), array("d")
    cuts: list[tuple[int, str]] = []
    dropped = Counter[str]()
    saw_non_finite = False
    for row in sane_stamps(rows, dropped, config.max_pose_gap_s * NS_PER_S):
        if row is None:
            dropped["unreadable message"] += 1
            continue
        if not np.isfinite([row.x_m, row.y_m, row.yaw_rad]).all():
            dropped[NON_FINITE] += 1
            saw_non_finite = True
            continue
        why = HISTORY_CUT if last is None else _cut_between(last, row, config)
        if last is not None and why == LATE:
            dropped["duplicate stamp" if row.stamp_ns == last.stamp_ns else CLOCK_BACK] += 1
            continue
        if why:
            cuts.append((len(times) // 2, NON_FINITE if why == GAP and saw_non_finite else why))
        saw_non_finite = False
        times.extend((row.received_ns, row.stamp_ns))
        values_of.extend((row.x_m, row.y_m, row.yaw_rad, row.speed_mps))
        last = row
    cuts.append((len(times) // 2, NON_FINITE if saw_non_finite else HORIZON_CUT))
    stamps, values = np.array(times, np.int64).reshape(-1, 2), np.array(values_of, np.float64).reshape(-1, 4)
    segments, restarts = [], []
    for (first, begins), (end, ends) in pairwise(cuts):
        if begins in (HISTORY_CUT, CLOCK_BACK):
            restarts.append(stamps[first, 0])
        if end - first >= 2:
            here = slice(first, end)
            poses, speeds_mps = values[here, :3], values[here, 3]
            segments.append(TrackSegment(len(restarts) - 1, stamps[here, 1], poses, begins, ends, speeds_mps))
    return PoseTrack(tuple(segments), np.array(restarts, np.int64), stamps[:, 0], stamps[:, 1], dict(+dropped))


def _cut_between(last: OdometryRow, row: OdometryRow, config: TrackConfig) -> str:
    return discontinuity(
        row.stamp_ns - last.stamp_ns,
        float(np.hypot(row.x_m - last.x_m, row.y_m - last.y_m)),
        (last.speed_mps, row.speed_mps),
        max_gap_s=config.max_pose_gap_s,
        slack_m=config.teleport_slack_m,
    )


def clean_track(track: PoseTrack, config: TrackConfig, wheel: Mapping[int, Speeds] | None = None) -> PoseTrack:
    """Clean a track, as cut, where it is noisy.

    ``wheel`` is the wheel speed over header time by epoch, where recorded; it overrides the speed of noisy positions.
    """
    noise = measure_noise([(segment.stamps_ns, segment.poses) for segment in track.segments])
    track = replace(track, segments=_rejoined(track.segments, config, noise))
    noisy = noise.position_m > config.clean_position_m or noise.yaw_rad > config.clean_yaw_rad
    if config.smooth == "never" or not (noisy or noise.is_heading_wrong):
        return replace(track, report=PoseReport(noise))
    segments, sources = [], Counter[SpeedSource]()
    for segment in track.segments:
        speeds: list[tuple[SpeedSource, Speeds]] = [("odometry", (segment.stamps_ns, segment.speeds_mps))]
        if wheel is not None and segment.epoch in wheel:
            speeds.insert(0, ("wheel", wheel[segment.epoch]))
        (stamps_ns, poses), source = clean_poses((segment.stamps_ns, segment.poses), noise, speeds)
        segments.append(replace(segment, stamps_ns=stamps_ns, poses=poses, speeds_mps=np.empty(0)))
        sources[source] += 1
    return replace(track, segments=tuple(segments), report=PoseReport(noise, True, "motion", dict(sources)))


def _rejoined(segments: Sequence[TrackSegment], config: TrackConfig, noise: PoseNoise) -> tuple[TrackSegment, ...]:
    """Undo the cuts whose jump is no more than the noise of the poses explains (or a single pose far off)."""
    joined: list[TrackSegment] = []
    for segment in segments:
        last = joined[-1] if joined else None
        if last is not None and last.epoch == segment.epoch and last.ends == TELEPORT:
            step_ns = int(segment.stamps_ns[0] - last.stamps_ns[-1])
            jump_m = float(np.hypot(*(segment.poses[0, :2] - last.poses[-1, :2])))
            speeds = (float(last.speeds_mps[-1]), float(segment.speeds_mps[0]))
            # The difference of two poses six of its deviations off is no accident.
            slack_m = config.teleport_slack_m + 6.0 * 2.0**0.5 * noise.position_m
            if not discontinuity(step_ns, jump_m, speeds, max_gap_s=config.max_pose_gap_s, slack_m=slack_m):
                stamps_ns = np.concatenate([last.stamps_ns, segment.stamps_ns])
                poses = np.concatenate([last.poses, segment.poses])
                speeds_mps = np.concatenate([last.speeds_mps, segment.speeds_mps])
                joined[-1] = TrackSegment(last.epoch, stamps_ns, poses, last.begins, segment.ends, speeds_mps)
                continue
        joined.append(segment)
    return tuple(joined)
