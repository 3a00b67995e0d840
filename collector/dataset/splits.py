"""Which stretches of the recordings are for validation: whole laps by seed, with a guard band around them.

Neighbouring frames look alike, so frames are never shuffled apart. A stretch is what was driven without interruption
within one lap; where stretches are larger than the share asked for, a piece of one is taken.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from collector.common.errors import MonoError
from collector.dataset.schema import Split
from collector.pose_tracks.recording import LapCount
from collector.pose_tracks.tracks import PoseTrack


@dataclass(frozen=True)
class Stretch:
    """Uninterrupted driving within one lap, between two header stamps.

    Attributes:
        bag: the recording.
        piece: index of the pose track's piece.
        run: of that piece (:meth:`collector.pose_tracks.tracks.PoseTrack.run_at`); within one, stamps only rise.
        lap: lap count, 0 where not recorded.
        start_ns, end_ns: stamps for which a whole sample (history and future) exists.
    """

    bag: str
    piece: int
    run: int
    lap: int
    start_ns: int
    end_ns: int

    @property
    def length_ns(self) -> int:
        """How long it is."""
        return self.end_ns - self.start_ns


def stretches_of(bag: str, track: PoseTrack, laps: LapCount, history_ns: int, horizon_ns: int) -> list[Stretch]:
    """The stretches of a recording in which samples can be cut."""
    changes = np.flatnonzero(np.diff(laps.laps)) + 1
    borders = [track.stamp_at(int(laps.received_ns[change])) for change in changes]
    border_epochs = [track.epoch_at(int(laps.received_ns[change])) for change in changes]
    stretches = []
    for index, piece in enumerate(track.pieces):
        start_ns, end_ns = int(piece.stamps_ns[0]) + history_ns, int(piece.stamps_ns[-1]) - horizon_ns
        inner = [
            (border, int(laps.laps[change]))
            for border, epoch, change in zip(borders, border_epochs, changes, strict=True)
            if epoch == piece.epoch and start_ns < border < end_ns
        ]
        before = [
            int(laps.laps[change])
            for border, epoch, change in zip(borders, border_epochs, changes, strict=True)
            if (epoch, border) <= (piece.epoch, start_ns)
        ]
        lap = before[-1] if before else (int(laps.laps[0]) if len(laps.laps) else 0)
        for border, next_lap in [*inner, (end_ns, lap)]:
            if border > start_ns:
                stretches.append(Stretch(bag, index, track.run_at(index), lap, start_ns, border))
            start_ns, lap = border, next_lap
    return stretches


def choose_validation(stretches: Sequence[Stretch], share: float, seed: int, guard_ns: int = 0) -> tuple[Stretch, ...]:
    """Draw the validation stretches.

    Stretches are drawn until ``share`` of the usable time is reached; one far larger than what is still wanted is not
    taken whole. If all are, one piece of the wanted length is cut from the longest. A recording so short that the
    guard would leave nothing to train on gives up the place that was drawn for the end of its longest stretch, and
    when that does not help either, validation.

    Args:
        stretches: of all recordings.
        share: of their time.
        seed: of the draw.
        guard_ns: kept free on both sides of a validation stretch.

    Raises:
        MonoError: a share outside [0, 1).
    """
    if not 0.0 <= share < 1.0:
        raise MonoError(
            f"a validation fraction of {share}", "0 or more and less than 1", "use for example --val-fraction 0.1"
        )
    drawn = [stretch for stretch in stretches if stretch.length_ns > 0]
    wanted_ns = share * sum(stretch.length_ns for stretch in drawn)
    if wanted_ns <= 0.0:
        return ()
    draw = random.Random(seed)
    draw.shuffle(drawn)
    chosen: list[Stretch] = []
    missing_ns = wanted_ns
    for stretch in drawn:
        if stretch.length_ns <= 1.5 * missing_ns:
            chosen.append(stretch)
            missing_ns -= stretch.length_ns
    whole = max(drawn, key=lambda stretch: stretch.length_ns)
    length_ns = min(round(wanted_ns), whole.length_ns)
    if not chosen:
        start_ns = whole.start_ns + round(draw.random() * (whole.length_ns - length_ns))
        chosen.append(replace(whole, start_ns=start_ns, end_ns=start_ns + length_ns))
    for validation in (chosen, [replace(whole, start_ns=whole.end_ns - length_ns)]):
        if _leaves_training(drawn, validation, guard_ns):
            return tuple(sorted(validation, key=lambda stretch: (stretch.bag, stretch.piece, stretch.start_ns)))
    return ()


def _leaves_training(stretches: Sequence[Stretch], validation: Sequence[Stretch], guard_ns: int) -> bool:
    """Whether any stamp is left to train on: if one is, then an end of a stretch or the edge of a guard is."""
    edges = [edge for one in validation for edge in (one.start_ns - guard_ns - 1, one.end_ns + guard_ns + 1)]
    return any(
        split_of(stretch.bag, stretch.run, stamp_ns, validation, guard_ns) == "train"
        for stretch in stretches
        for stamp_ns in (stretch.start_ns, stretch.end_ns, *edges)
        if stretch.start_ns <= stamp_ns <= stretch.end_ns
    )


def split_of(bag: str, run: int, stamp_ns: int, validation: Sequence[Stretch], guard_ns: int) -> Split | None:
    """``"val"`` inside a validation stretch, None (use neither) within ``guard_ns`` of one, else ``"train"``.

    Other runs need no guard: the kart was put elsewhere between them.
    """
    here = [stretch for stretch in validation if stretch.bag == bag and stretch.run == run]
    if any(stretch.start_ns <= stamp_ns <= stretch.end_ns for stretch in here):
        return "val"
    if any(stretch.start_ns - guard_ns <= stamp_ns <= stretch.end_ns + guard_ns for stretch in here):
        return None
    return "train"
