"""The recorded drive as poses over time, cut wherever it is not one continuous motion.

A history or a future is only ever taken from within one piece, so no sample crosses a teleport, a pause of the
localisation or a reset of the simulator's clock; whoever asks for one gets the reason instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from collector.bags import OdometryRow
from collector.errors import MonoError
from collector.poses import interpolate_poses, wrap_angle

NO_POSE = "no pose"
GAP = "pose gap too large"
CLOCK_BACK = "clock went back"
NON_FINITE = "non-finite pose"
TELEPORT = "teleport"
HISTORY_CUT = "history cut off"
HORIZON_CUT = "horizon cut off"

NS = 1_000_000_000
# A clock that steps back by less is a message out of order; by more, a restart of the simulation.
_RESET_NS = NS


@dataclass(frozen=True)
class TrackConfig:
    """What counts as one continuous motion.

    Attributes:
        max_pose_gap_s: a longer silence of the odometry cuts the track.
        teleport_slack_m: two poses in a row may lie this much farther apart than twice the speed explains.
        smooth_s: window of a quadratic (Savitzky-Golay) smoothing of the poses; 0 leaves them as recorded.
    """

    max_pose_gap_s: float = 0.2
    teleport_slack_m: float = 1.0
    smooth_s: float = 0.0

    def __post_init__(self) -> None:
        if not (self.max_pose_gap_s > 0.0 and self.teleport_slack_m > 0.0 and self.smooth_s >= 0.0):
            raise MonoError(
                f"track limits {self}", "positive limits", "set them above zero (smooth_s may be 0)"
            )


@dataclass(frozen=True)
class Piece:
    """One continuous motion: strictly rising stamps, no jumps.

    Attributes:
        epoch: how often the clock has restarted before it.
        stamps_ns: (N,) header stamps.
        poses: (N, 3) map poses.
        begins, ends: why it does not reach further back, or on.
    """

    epoch: int
    stamps_ns: NDArray[np.int64]
    poses: NDArray[np.float64]
    begins: str
    ends: str


@dataclass(frozen=True)
class PoseTrack:
    """All pieces of a recording, in order.

    Attributes:
        pieces: the continuous motions.
        epoch_received_ns: (E,) time of arrival of the first pose of each epoch.
        received_ns, stamps_ns: (M,) arrival and header stamp of every pose used, to carry arrival times over.
        dropped: poses left out, by reason.
    """

    pieces: tuple[Piece, ...]
    epoch_received_ns: NDArray[np.int64]
    received_ns: NDArray[np.int64]
    stamps_ns: NDArray[np.int64]
    dropped: dict[str, int] = field(default_factory=dict)

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


def build_track(rows: Iterable[OdometryRow | None], config: TrackConfig | None = None) -> PoseTrack:
    """Cut odometry, in order of arrival, into continuous pieces.

    Args:
        rows: poses; None where a message could not be read.
        config: what counts as continuous.
    """
    config = config or TrackConfig()
    cutter = _Cutter(config)
    for row in rows:
        cutter.add(row)
    track = cutter.finish()
    if config.smooth_s > 0.0:
        track = replace(track, pieces=tuple(_smoothed(piece, config.smooth_s) for piece in track.pieces))
    return track


class _Cutter:
    def __init__(self, config: TrackConfig) -> None:
        self._config = config
        self._pieces: list[Piece] = []
        self._rows: list[tuple[int, float, float, float]] = []
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
            if step_ns <= -_RESET_NS:
                self._cut(CLOCK_BACK)
                self._epoch += 1
                self._epochs.append(row.received_ns)
            elif step_ns <= 0:
                self._drop("duplicate stamp" if step_ns == 0 else CLOCK_BACK)
                return
            elif step_ns > self._config.max_pose_gap_s * NS:
                self._cut(NON_FINITE if self._saw_non_finite else GAP)
            elif self._is_teleport(last, row, step_ns / NS):
                self._cut(TELEPORT)
        self._saw_non_finite = False
        self._last = row
        self._rows.append((row.stamp_ns, row.x_m, row.y_m, row.yaw_rad))
        self._stamps.append((row.received_ns, row.stamp_ns))

    def finish(self) -> PoseTrack:
        self._cut(NON_FINITE if self._saw_non_finite else HORIZON_CUT)
        stamps = np.array(self._stamps, np.int64).reshape(-1, 2)
        return PoseTrack(
            tuple(self._pieces), np.array(self._epochs, np.int64), stamps[:, 0], stamps[:, 1], self.dropped
        )

    def _is_teleport(self, last: OdometryRow, row: OdometryRow, dt_s: float) -> bool:
        speeds = [abs(speed) for speed in (last.speed_mps, row.speed_mps) if np.isfinite(speed)]
        allowed_m = self._config.teleport_slack_m + 2.0 * max(speeds, default=0.0) * dt_s
        return float(np.hypot(row.x_m - last.x_m, row.y_m - last.y_m)) > allowed_m

    def _cut(self, reason: str) -> None:
        if len(self._rows) >= 2:
            stamps = np.array([row[0] for row in self._rows], np.int64)
            poses = np.array([row[1:] for row in self._rows], np.float64)
            self._pieces.append(Piece(self._epoch, stamps, poses, self._begins, reason))
        self._rows = []
        self._begins = reason

    def _drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1


def _smoothed(piece: Piece, window_s: float) -> Piece:
    """Least-squares parabola over a sliding window, so that curves keep their radius (an average would shrink it)."""
    step_ns = int(np.median(np.diff(piece.stamps_ns)))
    reach = round(window_s * NS / step_ns / 2)
    grid = np.arange(piece.stamps_ns[0], piece.stamps_ns[-1] + 1, step_ns, dtype=np.int64)
    if reach < 2 or len(grid) < 2 * reach + 1:
        return piece
    even = interpolate_poses(piece.stamps_ns, piece.poses, grid)
    even[:, 2] = np.unwrap(even[:, 2])
    offset = np.arange(-reach, reach + 1, dtype=np.float64)
    design = np.stack([np.ones_like(offset), offset, offset**2], axis=1)
    solve = np.linalg.pinv(design)
    smooth = even.copy()
    for column in range(3):
        values = even[:, column] - even[0, column]
        smooth[reach:-reach, column] = np.convolve(values, solve[0][::-1], mode="valid") + even[0, column]
        # The parabolas of the first and last full window cover the ends.
        smooth[:reach, column] = (design @ (solve @ values[: 2 * reach + 1]))[:reach] + even[0, column]
        smooth[-reach:, column] = (design @ (solve @ values[-2 * reach - 1 :]))[-reach:] + even[0, column]
    inside = piece.stamps_ns[(piece.stamps_ns >= grid[0]) & (piece.stamps_ns <= grid[-1])]
    poses = interpolate_poses(grid, np.column_stack([smooth[:, :2], wrap_angle(smooth[:, 2])]), inside)
    return replace(piece, stamps_ns=inside, poses=poses)
