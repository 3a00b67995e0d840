"""Which intervals of the recordings are for validation: whole laps by seed, with a guard band around them.

Neighbouring frames look alike, so frames are never shuffled apart. An interval is what was driven without interruption
within one lap; where intervals are larger than the share asked for, a piece of one is taken.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from collector.dataset.schema import Split
from collector.pose_tracks.recording import Recording


@dataclass(frozen=True)
class Interval:
    """Uninterrupted driving within one lap (0 where not recorded), between two stamps that have a whole sample."""

    bag: str
    piece: int  # index of the pose track's segment, under the name it has in manifests
    run: int  # of that segment (`collector.pose_tracks.tracks.PoseTrack.run_at`); within one, stamps only rise
    lap: int
    start_ns: int
    end_ns: int

    @property
    def length_ns(self) -> int:
        """How long it is."""
        return self.end_ns - self.start_ns


def intervals_of(recording: Recording, history_ns: int, horizon_ns: int) -> list[Interval]:
    """The intervals of a recording in which samples can be cut."""
    track, laps = recording.track, recording.laps
    changed = np.flatnonzero(np.diff(laps.laps)) + 1
    changes = [
        (track.epoch_at(received_ns), track.stamp_at(received_ns), lap)
        for received_ns, lap in zip(laps.received_ns[changed].tolist(), laps.laps[changed].tolist(), strict=True)
    ]
    intervals = []
    for index, segment in enumerate(track.segments):
        start_ns, end_ns = int(segment.stamps_ns[0]) + history_ns, int(segment.stamps_ns[-1]) - horizon_ns
        inner = [
            (border, lap) for epoch, border, lap in changes if epoch == segment.epoch and start_ns < border < end_ns
        ]
        before = [lap for epoch, border, lap in changes if (epoch, border) <= (segment.epoch, start_ns)]
        lap = before[-1] if before else (int(laps.laps[0]) if len(laps.laps) else 0)
        for border, next_lap in [*inner, (end_ns, lap)]:
            if border > start_ns:
                intervals.append(Interval(recording.name, index, track.run_at(index), lap, start_ns, border))
            start_ns, lap = border, next_lap
    return intervals


def choose_validation(
    intervals: Sequence[Interval], share: float, seed: int, guard_ns: int = 0
) -> tuple[Interval, ...]:
    """Draw the validation intervals from those of all recordings.

    Stretches are drawn until ``share`` of the usable time is reached; one far larger than what is still wanted is not
    taken whole. If all are, one piece of the wanted length is cut from the longest. A recording so short that the
    guard (``guard_ns`` on both sides) would leave nothing to train on gives up the place that was drawn for the end of
    its longest interval, and when that does not help either, validation.
    """
    drawn = [interval for interval in intervals if interval.length_ns > 0]
    wanted_ns = share * sum(interval.length_ns for interval in drawn)
    if wanted_ns <= 0.0:
        return ()
    draw = random.Random(seed)
    draw.shuffle(drawn)
    chosen: list[Interval] = []
    missing_ns = wanted_ns
    for interval in drawn:
        if interval.length_ns <= 1.5 * missing_ns:
            chosen.append(interval)
            missing_ns -= interval.length_ns
    whole = max(drawn, key=lambda interval: interval.length_ns)
    length_ns = min(round(wanted_ns), whole.length_ns)
    if not chosen:
        start_ns = whole.start_ns + round(draw.random() * (whole.length_ns - length_ns))
        chosen.append(replace(whole, start_ns=start_ns, end_ns=start_ns + length_ns))
    for validation in (chosen, [replace(whole, start_ns=whole.end_ns - length_ns)]):
        if _leaves_training(drawn, validation, guard_ns):
            return tuple(sorted(validation, key=lambda interval: (interval.bag, interval.piece, interval.start_ns)))
    return ()


def _leaves_training(intervals: Sequence[Interval], validation: Sequence[Interval], guard_ns: int) -> bool:
    """Whether any stamp is left to train on: if one is, then an end of an interval or the edge of a guard is."""
    edges = [edge for one in validation for edge in (one.start_ns - guard_ns - 1, one.end_ns + guard_ns + 1)]
    return any(
        split_of(interval.bag, interval.run, stamp_ns, validation, guard_ns) == "train"
        for interval in intervals
        for stamp_ns in (interval.start_ns, interval.end_ns, *edges)
        if interval.start_ns <= stamp_ns <= interval.end_ns
    )


def split_of(bag: str, run: int, stamp_ns: int, validation: Sequence[Interval], guard_ns: int) -> Split | None:
    """``"val"`` inside a validation interval, None (use neither) within ``guard_ns`` of one, else ``"train"``.

    Other runs need no guard: the kart was put elsewhere between them.
    """
    here = [interval for interval in validation if interval.bag == bag and interval.run == run]
    if any(interval.start_ns <= stamp_ns <= interval.end_ns for interval in here):
        return "val"
    if any(interval.start_ns - guard_ns <= stamp_ns <= interval.end_ns + guard_ns for interval in here):
        return None
    return "train"
