"""The recorded drive as poses over time, cut wherever it is not one continuous motion.

A history or a future is only ever taken from within one piece, so no sample crosses a teleport, a pause of the
localisation or a reset of the simulator's clock; whoever asks for one gets the reason instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from collector.bags.reader import OdometryRow
from collector.common.errors import MonoError
from collector.geometry.constants import NS_PER_S
from collector.geometry.discontinuity import CLOCK_BACK, GAP, LATE, TELEPORT, TELEPORT_SLACK_M, discontinuity
from collector.geometry.poses import interpolate_poses
from collector.pose_tracks.smoothing import PoseNoise, Speeds, SpeedSource, clean_poses, measure_noise

NS = NS_PER_S
NO_POSE = "no pose"
NON_FINITE = "non-finite pose"
HISTORY_CUT = "history cut off"
HORIZON_CUT = "horizon cut off"


@dataclass(frozen=True)
class TrackConfig:
    """What counts as one continuous motion, and which poses are too noisy to be used as recorded.

    Attributes:
        max_pose_gap_s: a longer silence of the odometry cuts the track.
        teleport_slack_m: two poses in a row may lie this much farther apart than twice the speed explains.
        smooth: auto cleans the poses of a recording whose measured noise is above the two limits below, or whose
            heading is not that of its motion; never leaves all poses as recorded.
        clean_position_m: noise of x and y up to which poses count as clean.
        clean_yaw_rad: the same of the heading.
    """

    max_pose_gap_s: float = 0.2
    teleport_slack_m: float = TELEPORT_SLACK_M
    smooth: Literal["auto", "never"] = "auto"
    clean_position_m: float = 0.003
    clean_yaw_rad: float = 0.003

    def __post_init__(self) -> None:
        limits = (self.max_pose_gap_s, self.teleport_slack_m, self.clean_position_m, self.clean_yaw_rad)
        if not min(limits) > 0.0:
            raise MonoError(f"track limits {self}", "positive limits", "set them above zero")


@dataclass(frozen=True)
class Piece:
    """One continuous motion: strictly rising stamps, no jumps.

    Attributes:
        epoch: how often the clock has restarted before it.
        stamps_ns: (N,) header stamps.
        poses: (N, 3) map poses.
        begins, ends: why it does not reach further back, or on.
        speeds_mps: (N,) forward speed as the odometry tells it, NaN where it does not; empty once poses are cleaned.
    """

    epoch: int
    stamps_ns: NDArray[np.int64]
    poses: NDArray[np.float64]
    begins: str
    ends: str
    speeds_mps: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True)
class PoseReport:
    """What was measured of a recording's poses and what was done about it; goes into the manifest.

    Attributes:
        noise: as measured.
        smoothed: whether the poses were cleaned.
        yaw: whose heading the samples have.
        speed_pieces: by whose speed the pieces were cleaned: wheel, odometry, or that of the positions.
    """

    noise: PoseNoise = field(default_factory=PoseNoise)
    smoothed: bool = False
    yaw: Literal["recorded", "motion"] = "recorded"
    speed_pieces: dict[SpeedSource, int] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """As plain data, noise to a hundredth of a millimetre."""
        values = asdict(self)
        return values | {"noise": {name: round(value, 5) for name, value in values["noise"].items()}}


@dataclass(frozen=True)
class PoseTrack:
    """All pieces of a recording, in order.

    Attributes:
        pieces: the continuous motions.
        epoch_received_ns: (E,) time of arrival of the first pose of each epoch.
        received_ns, stamps_ns: (M,) arrival and header stamp of every pose used, to carry arrival times over.
        dropped: poses left out, by reason.
        report: how noisy the poses were, and what was done about it.
    """

    pieces: tuple[Piece, ...]
    epoch_received_ns: NDArray[np.int64]
    received_ns: NDArray[np.int64]
    stamps_ns: NDArray[np.int64]
    dropped: dict[str, int] = field(default_factory=dict)
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

    def piece_at(self, stamp_ns: int, epoch: int) -> int | str:
        """Index of the piece that holds a stamp, or the reason why none does."""
        ended = NO_POSE
        for index, piece in enumerate(self.pieces):
            if piece.epoch != epoch:
                continue
            if stamp_ns < piece.stamps_ns[0]:
                return ended
            if stamp_ns <= piece.stamps_ns[-1]:
                return index
            ended = NO_POSE if piece.ends in (HORIZON_CUT, CLOCK_BACK) else piece.ends
        return NO_POSE

    def run_at(self, index: int) -> int:
        """A piece's run: a silence leaves the kart in its run, a restart or being put elsewhere does not."""
        run = 0
        for before, piece in zip(self.pieces[:index], self.pieces[1 : index + 1]):
            run += int(piece.begins == TELEPORT or piece.epoch != before.epoch)
        return run

    def sample(self, index: int, stamp_ns: int, offsets_ns: NDArray[np.int64]) -> NDArray[np.float64] | str:
        """Map poses (K, 3) at ``stamp_ns + offsets_ns`` (rising) within one piece, or the reason why it ends short."""
        piece = self.pieces[index]
        query = stamp_ns + offsets_ns
        if query[0] < piece.stamps_ns[0]:
            return piece.begins
        if query[-1] > piece.stamps_ns[-1]:
            return piece.ends
        # Only the window: a long recording must not make every frame dearer.
        first = max(0, int(np.searchsorted(piece.stamps_ns, query[0], side="right")) - 1)
        last = int(np.searchsorted(piece.stamps_ns, query[-1])) + 1
        first = min(first, last - 2)
        return interpolate_poses(piece.stamps_ns[first:last], piece.poses[first:last], query)


def build_track(
    rows: Iterable[OdometryRow | None], config: TrackConfig | None = None, wheel: Speeds | None = None
) -> PoseTrack:
    """:func:`cut_track`, then :func:`clean_track`; the wheel's speeds are those of one clock that never restarted."""
    config = config or TrackConfig()
    return clean_track(cut_track(rows, config), config, None if wheel is None else {0: wheel})


def cut_track(rows: Iterable[OdometryRow | None], config: TrackConfig) -> PoseTrack:
    """Cut odometry, in order of arrival, into continuous pieces; None where a message could not be read."""
    cutter = _Cutter(config)
    for row in rows:
        cutter.add(row)
    return cutter.finish()


def clean_track(track: PoseTrack, config: TrackConfig, wheel: Mapping[int, Speeds] | None = None) -> PoseTrack:
    """Clean a track where it is noisy.

    Args:
        track: as cut.
        config: what counts as noisy.
        wheel: wheel speed over header time by epoch, where recorded; it overrides the speed of noisy positions.
    """
    noise = measure_noise([(piece.stamps_ns, piece.poses) for piece in track.pieces])
    track = replace(track, pieces=_rejoined(track.pieces, config, noise))
    noisy = noise.position_m > config.clean_position_m or noise.yaw_rad > config.clean_yaw_rad
    if config.smooth == "never" or not (noisy or noise.is_heading_wrong):
        return replace(track, report=PoseReport(noise))
    pieces, sources = [], Counter[SpeedSource]()
    for piece in track.pieces:
        speeds: list[tuple[SpeedSource, Speeds]] = [("odometry", (piece.stamps_ns, piece.speeds_mps))]
        if wheel is not None and piece.epoch in wheel:
            speeds.insert(0, ("wheel", wheel[piece.epoch]))
        (stamps_ns, poses), source = clean_poses((piece.stamps_ns, piece.poses), noise, speeds)
        pieces.append(replace(piece, stamps_ns=stamps_ns, poses=poses, speeds_mps=np.empty(0)))
        sources[source] += 1
    return replace(track, pieces=tuple(pieces), report=PoseReport(noise, True, "motion", dict(sources)))


def _rejoined(pieces: Sequence[Piece], config: TrackConfig, noise: PoseNoise) -> tuple[Piece, ...]:
    """Undo the cuts whose jump is no more than the noise of the poses explains (or a single pose far off)."""
    joined: list[Piece] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if last is not None and last.epoch == piece.epoch and last.ends == TELEPORT:
            step_ns = int(piece.stamps_ns[0] - last.stamps_ns[-1])
            jump_m = float(np.hypot(*(piece.poses[0, :2] - last.poses[-1, :2])))
            speeds = (float(last.speeds_mps[-1]), float(piece.speeds_mps[0]))
            # The difference of two poses six of its deviations off is no accident.
            slack_m = config.teleport_slack_m + 6.0 * 2.0**0.5 * noise.position_m
            if not discontinuity(step_ns, jump_m, speeds, max_gap_s=config.max_pose_gap_s, slack_m=slack_m):
                joined[-1] = Piece(
                    last.epoch,
                    np.concatenate([last.stamps_ns, piece.stamps_ns]),
                    np.concatenate([last.poses, piece.poses]),
                    last.begins,
                    piece.ends,
                    np.concatenate([last.speeds_mps, piece.speeds_mps]),
                )
                continue
        joined.append(piece)
    return tuple(joined)


class _Cutter:
    def __init__(self, config: TrackConfig) -> None:
        self._config = config
        self._pieces: list[Piece] = []
        self._rows: list[tuple[int, float, float, float, float]] = []
        self._last: OdometryRow | None = None
        self._begins, self._epoch = HISTORY_CUT, 0
        self._saw_non_finite = False
        self._epochs: list[int] = []
        self._stamps: list[tuple[int, int]] = []
        self.dropped: dict[str, int] = {}

    def add(self, row: OdometryRow | None) -> None:
        if row is None:
            self._drop("unreadable message")
            return
        if not np.isfinite([row.x_m, row.y_m, row.yaw_rad]).all():
            self._saw_non_finite = True
            self._drop(NON_FINITE)
            return
        last = self._last
        if last is None:
            self._epochs.append(row.received_ns)
        else:
            step_ns = row.stamp_ns - last.stamp_ns
            why = discontinuity(
                step_ns,
                float(np.hypot(row.x_m - last.x_m, row.y_m - last.y_m)),
                (last.speed_mps, row.speed_mps),
                max_gap_s=self._config.max_pose_gap_s,
                slack_m=self._config.teleport_slack_m,
            )
            if why == LATE:
                self._drop("duplicate stamp" if step_ns == 0 else CLOCK_BACK)
                return
            if why:
                self._cut(NON_FINITE if why == GAP and self._saw_non_finite else why)
            if why == CLOCK_BACK:
                self._epoch += 1
                self._epochs.append(row.received_ns)
        self._saw_non_finite = False
        self._last = row
        self._rows.append((row.stamp_ns, row.x_m, row.y_m, row.yaw_rad, row.speed_mps))
        self._stamps.append((row.received_ns, row.stamp_ns))

    def finish(self) -> PoseTrack:
        self._cut(NON_FINITE if self._saw_non_finite else HORIZON_CUT)
        stamps = np.array(self._stamps, np.int64).reshape(-1, 2)
        return PoseTrack(
            tuple(self._pieces), np.array(self._epochs, np.int64), stamps[:, 0], stamps[:, 1], self.dropped
        )

    def _cut(self, reason: str) -> None:
        if len(self._rows) >= 2:
            stamps = np.array([row[0] for row in self._rows], np.int64)
            values = np.array([row[1:] for row in self._rows], np.float64)
            self._pieces.append(Piece(self._epoch, stamps, values[:, :3], self._begins, reason, values[:, 3]))
        self._rows = []
        self._begins = reason

    def _drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
