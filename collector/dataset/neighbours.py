"""Neighbouring laps: what they tell of the road at a place, and which futures a kart could have had there.

Without a map the middle of a road is where it was driven in the usual manner, and the usual speed is that of those
laps. The edges are not known. A lap in another manner that comes by at the same place with the same speed shows another
future of the same picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collector.geometry.constants import FUTURE_STEPS, NS_PER_S, STEP_NS, STEP_S
from collector.geometry.poses import FloatArray, to_ego, wrap_angle
from collector.geometry.road import LocalRoad
from collector.pose_tracks.recording import Recording
from collector.pose_tracks.tracks import TrackSegment
from collector.reasoning.manners import Manner

# Another lap: so long before or after, or of another recording or piece of one.
_OTHER_LAP_NS = 8 * NS_PER_S
# A lap is back in the usual manner so long after it was asked to be.
_SETTLED_STEPS = 30
# Of a lap beside the kart: how far off it may be, and how much it may point elsewhere.
_BESIDE_M, _ALONG_RAD = 3.0, 0.8
_BEHIND_STEPS, _AHEAD_M, _LAPS_COMPARED = 5, 50.0, 5
# Without marks nobody says which laps are usual: so many others have to agree.
_UNMARKED_LAPS = 2
# The same place and the same speed, for another future.
SAME_M, SAME_RAD, SAME_MPS = 0.3, 0.1, 0.5
# Over so long what is left of the difference is taken back.
_BLEND_S = 2.0


@dataclass(frozen=True, eq=False)
class _Piece:
    """One segment of a recording, every tenth of a second."""

    recording: Recording
    segment: int
    stamps_ns: NDArray[np.int64]
    poses: FloatArray  # (N, 3) in the map
    speed_mps: FloatArray
    manners: tuple[Manner | None, ...]
    usual: NDArray[np.bool_]  # whether it shows the middle of the road and the usual speed


@dataclass(frozen=True, eq=False)
class OtherFuture:
    """What another lap did from the same place: its manner, and its poses (64, 3) in the ego frame of the kart here.

    They begin at the origin: what the two karts differ by at first is taken back within two seconds.
    """

    manner: Manner
    future: FloatArray
    recording: Recording
    segment: int
    stamp_ns: int


class Neighbours:
    """The laps of all recordings of a build, found by place."""

    def __init__(self, recordings: Sequence[Recording]) -> None:
        self.is_marked = any(one.marks.received_ns for one in recordings)
        self._pieces = [
            _piece(one, index, segment, self.is_marked)
            for one in recordings
            for index, segment in enumerate(one.track.segments)
            if segment.stamps_ns[-1] - segment.stamps_ns[0] > 2 * STEP_NS
        ]
        self._owner = np.concatenate(
            [np.full(len(p.stamps_ns), n) for n, p in enumerate(self._pieces)] or [np.zeros(0, int)]
        )
        self._index = np.concatenate([np.arange(len(p.stamps_ns)) for p in self._pieces] or [np.zeros(0, int)])
        xy = np.concatenate([p.poses[:, :2] for p in self._pieces] or [np.zeros((0, 2))])
        self._xy = xy
        self._cells: dict[tuple[int, int], list[int]] = {}
        for number, (x, y) in enumerate(np.floor(xy / _BESIDE_M).astype(int).tolist()):
            self._cells.setdefault((x, y), []).append(number)

    def road_at(self, recording: Recording, segment: int, stamp_ns: int, pose_map: FloatArray) -> LocalRoad | None:
        """The road ahead of a pose by its neighbouring laps in the usual manner; None where too few came by."""
        lines = [
            line
            for piece, at in self._passes(recording, segment, stamp_ns, pose_map)
            if piece.usual[at] and (line := _line_from(piece, at, pose_map)) is not None
        ]
        if len(lines) < (1 if self.is_marked else _UNMARKED_LAPS):
            return None
        lines.sort(key=lambda line: -line.length_m)
        base, others = lines[0], lines[1:_LAPS_COMPARED]
        stations, zero = base.feet(base.xy)[0], np.zeros(len(base.xy))
        offsets, speeds = [zero], [base.usual_mps]
        for other in others:
            where, offset = base.feet(other.xy)
            order = np.argsort(where, kind="stable")
            inside = (stations >= where.min()) & (stations <= where.max())
            offsets.append(np.where(inside, np.interp(stations, where[order], offset[order]), np.nan))
            speeds.append(np.where(inside, np.interp(stations, where[order], other.usual_mps[order]), np.nan))
        middle, usual = np.nanmedian(offsets, axis=0), np.nanmedian(speeds, axis=0)
        heading = np.arctan2(np.gradient(base.xy[:, 1]), np.gradient(base.xy[:, 0]))
        xy = base.xy + middle[:, None] * np.stack([-np.sin(heading), np.cos(heading)], axis=1)
        return LocalRoad(xy, zero, zero, usual)

    def other_futures(
        self, recording: Recording, segment: int, stamp_ns: int, pose_map: FloatArray, speed_mps: float, manner: Manner
    ) -> Iterator[OtherFuture]:
        """What laps in other manners did from this place and speed, at most one of each manner, the nearest."""
        found: dict[str, tuple[float, _Piece, int]] = {}
        for piece, at in self._passes(recording, segment, stamp_ns, pose_map):
            other = piece.manners[at]
            if other is None or other.words == manner.words or at + FUTURE_STEPS >= len(piece.stamps_ns):
                continue
            there = to_ego(piece.poses[at], pose_map)
            off_m, off_mps = float(np.hypot(*there[:2])), abs(float(piece.speed_mps[at]) - speed_mps)
            if off_m > SAME_M or abs(there[2]) > SAME_RAD or off_mps > SAME_MPS:
                continue
            if other.words not in found or off_m < found[other.words][0]:
                found[other.words] = (off_m, piece, at)
        for words in sorted(found):
            _, piece, at = found[words]
            asked = piece.manners[at]
            if asked is not None:
                future = _from_here(to_ego(piece.poses[at : at + FUTURE_STEPS + 1], pose_map))
                yield OtherFuture(asked, future, piece.recording, piece.segment, int(piece.stamps_ns[at]))

    def _passes(
        self, recording: Recording, segment: int, stamp_ns: int, pose_map: FloatArray
    ) -> Iterator[tuple[_Piece, int]]:
        """Every other time that a kart came by: the piece, and the pose in it that was nearest."""
        column, row = np.floor(pose_map[:2] / _BESIDE_M).astype(int).tolist()
        cells = [(column + i, row + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        near = np.array([number for cell in cells for number in self._cells.get(cell, ())], np.int64)
        if not len(near):
            return
        near.sort()
        away = np.linalg.norm(self._xy[near] - pose_map[:2], axis=1)
        near, away = near[away < _BESIDE_M], away[away < _BESIDE_M]
        breaks = np.flatnonzero((np.diff(near) > 20) | (np.diff(self._owner[near]) != 0)) + 1
        for some, far in zip(np.split(near, breaks), np.split(away, breaks), strict=True):
            if not len(some):
                continue
            best = int(some[int(np.argmin(far))])
            piece, at = self._pieces[int(self._owner[best])], int(self._index[best])
            is_own = piece.recording is recording and piece.segment == segment
            if is_own and abs(int(piece.stamps_ns[at]) - stamp_ns) < _OTHER_LAP_NS:
                continue
            if abs(float(wrap_angle(piece.poses[at, 2] - pose_map[2]))) < _ALONG_RAD:
                yield piece, at


def _piece(recording: Recording, index: int, segment: TrackSegment, is_marked: bool) -> _Piece:
    stamps_ns = np.arange(segment.stamps_ns[0], segment.stamps_ns[-1] + 1, STEP_NS, dtype=np.int64)
    window = recording.track.window(int(stamps_ns[0]), segment.epoch, stamps_ns - stamps_ns[0])
    poses = np.zeros((0, 3)) if isinstance(window, str) else window[1]
    stamps_ns = stamps_ns[: len(poses)]
    speed = (
        np.linalg.norm(np.gradient(poses[:, :2], axis=0), axis=1) / STEP_S if len(poses) > 1 else np.zeros(len(poses))
    )
    marks, track = recording.marks, recording.track
    # Marks have no stamp: theirs is that of the pose that arrived with them.
    places = [(track.epoch_at(ns), track.stamp_at(ns)) for ns in marks.received_ns]
    manners: list[Manner | None] = []
    for stamp_ns in stamps_ns.tolist():
        before = (
            [number for number, place in enumerate(places) if place <= (segment.epoch, stamp_ns)] if not manners else []
        )
        manners.append(marks.manners[before[-1]] if before else Manner() if not manners else manners[-1])
    current = manners[:1]
    for number, place in enumerate(places):
        if place[0] == segment.epoch:
            first = int(np.searchsorted(stamps_ns, place[1]))
            manners[first:] = [marks.manners[number]] * (len(manners) - first)
    usual = np.array(
        [not is_marked or (manner is not None and manner.is_reference) for manner in manners or current], bool
    )
    for at in np.flatnonzero(usual[1:] & ~usual[:-1]).tolist():
        usual[at + 1 : at + 1 + _SETTLED_STEPS] = False
    return _Piece(recording, index, stamps_ns, poses, speed, tuple(manners), usual[: len(poses)])


def _line_from(piece: _Piece, at: int, pose_map: FloatArray) -> LocalRoad | None:
    """The way a lap took past a pose, in the ego frame of that; None where it soon ended."""
    first = at - int(np.argmin(piece.usual[: at + 1][::-1])) + 1 if not piece.usual[: at + 1].all() else 0
    first = max(first, at - _BEHIND_STEPS)
    unusual = np.flatnonzero(~piece.usual[at:])
    last = at + int(unusual[0]) if len(unusual) else len(piece.poses)
    poses, speed = piece.poses[first:last], piece.speed_mps[first:last]
    steps = np.linalg.norm(np.diff(poses[:, :2], axis=0), axis=1)
    moved = np.concatenate([[True], steps > 0.02]) if len(poses) else np.zeros(0, bool)
    poses, speed = poses[moved], speed[moved]
    if len(poses) < 3:
        return None
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(poses[:, :2], axis=0), axis=1))])
    stations = np.arange(0.0, min(along[-1], _AHEAD_M), 1.0)
    if len(stations) < 3:
        return None
    ego = to_ego(poses, pose_map)
    xy = np.stack([np.interp(stations, along, ego[:, axis]) for axis in (0, 1)], axis=1)
    zero = np.zeros(len(stations))
    return LocalRoad(xy, zero, zero, np.interp(stations, along, speed))


def _from_here(poses: FloatArray) -> FloatArray:
    """(65, 3) poses of a lap beside the kart, the first one at t0, as (64, 3) that begin where the kart is."""
    share = np.clip(np.arange(len(poses)) * STEP_S / _BLEND_S, 0.0, 1.0)
    rest = 0.5 + 0.5 * np.cos(np.pi * share)
    start = np.array([poses[0, 0], poses[0, 1], wrap_angle(poses[0, 2])])
    moved = poses - rest[:, None] * start
    moved[:, 2] = wrap_angle(moved[:, 2])
    return np.asarray(moved[1:], np.float64)
