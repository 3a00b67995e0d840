"""One frame in, one sample out, or the reason why not: poses at the frame's stamp, label, reasoning, consistency."""

from __future__ import annotations

import zlib
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from collector.dataset.config import CurationConfig
from collector.dataset.frames import FrameWindow, HeldFrame
from collector.dataset.neighbours import Neighbours
from collector.dataset.sample import judged_sample, seen_m
from collector.dataset.schema import Sample, Split, image_name
from collector.dataset.splits import Interval, split_of
from collector.geometry.constants import FUTURE_STEPS, HISTORY_STEPS, NS_PER_S, STEP_NS, STEP_S
from collector.geometry.discontinuity import CLOCK_BACK
from collector.geometry.poses import to_ego
from collector.geometry.road import LocalRoad
from collector.pose_tracks.recording import Recording
from collector.pose_tracks.sane_stamps import ZERO_STAMP
from collector.pose_tracks.tracks import CLOCKS_DIFFER, NO_POSE
from collector.reasoning.consistency import Motion, measure_motion, parse_claim
from collector.reasoning.manner_writing import write_manner
from collector.reasoning.manners import Manner
from collector.ros.images import BadFrame, RawFrame

OFFSETS_NS: NDArray[np.int64] = np.arange(-(HISTORY_STEPS - 1), FUTURE_STEPS + 1, dtype=np.int64) * STEP_NS
HISTORY_NS, HORIZON_NS = -int(OFFSETS_NS[0]), int(OFFSETS_NS[-1])
# From t0 to t0: nothing that a training sample touches, from its history to its horizon, lies within one more horizon
# of anything that a validation sample touches. (Its four images lie within its history.)
GUARD_NS = HISTORY_NS + HORIZON_NS + HORIZON_NS
# Backwards by less than this (one step of 0.1 s at 0.3 m/s) is noise of the localisation.
_REVERSE_STEP_M = 0.03
# A camera whose stamps lie farther from those of the poses that arrive with them is on another clock.
_CLOCK_OFFSET_NS = NS_PER_S

DUPLICATE = "duplicate stamp"
NOT_SAMPLED = "not sampled (stride)"
STANDING = "standing still"
REVERSE = "reverse"
GUARD = "guard band of the split"
NO_TEXT = "no text given"
NO_HISTORY = "no frame history"
UNREAD = "manner that cannot be read"
NOT_DRIVEN = "manner not driven, or no usual lap to hold it against"

# Texts to curate, by bag (None: any) and stamp.
Texts = Mapping[tuple[str | None, int], str]


@dataclass(frozen=True)
class Candidate:
    """A sample, the four frames it needs, and why it must not train (None when it may)."""

    sample: Sample
    frames: tuple[HeldFrame, ...]
    image_stem: str
    verdict: dict[str, Any] | None
    others: tuple[Sample, ...] = ()  # of the same frame: what neighbouring laps did from here

    def broken(self) -> BadFrame | None:
        """Why its frames cannot serve; compresses them, or waits until workers have."""
        if self.frames[-1].jpeg() is None:
            return self.frames[-1].bad
        bad = [frame.bad for frame in self.frames if frame.jpeg() is None]
        return BadFrame(NO_HISTORY, bad[0].sentence if bad[0] else "") if bad else None


class Correction(Protocol):
    """What ought to have been driven, in place of what was."""

    def future(self, drive: str, t0_ns: int, history_map: NDArray[np.float64]) -> NDArray[np.float64] | str:
        """(64, 3) poses in the map to follow a drive's last (16, 3) up to t0, or the reason why there is no sample."""
        ...

    def facts(self) -> dict[str, Any]:
        """What it did, for the manifest."""
        ...


class SampleExtractor:
    """Cuts the samples of one recording; feed it every camera frame in order of arrival.

    ``validation`` are the intervals of all recordings, ``texts`` reasoning texts to curate (None writes our own). A
    picture shows what was ``lag_ns`` before its stamp; poses are taken then. ``neighbours`` are the laps of all
    recordings: where manners were marked, samples say them, and other laps show other futures of a frame. With a
    ``correction`` a sample's future is what that says, and no more what was driven.
    """

    def __init__(
        self,
        recording: Recording,
        config: CurationConfig,
        validation: Sequence[Interval],
        texts: Texts | None = None,
        lag_ns: int = 0,
        neighbours: Neighbours | None = None,
        correction: Correction | None = None,
    ) -> None:
        self._recording, self._config, self._validation, self._texts = recording, config, validation, texts
        self._lag_ns, self._neighbours, self._correction = lag_ns, neighbours, correction
        self._window = FrameWindow(round(config.frame_tolerance_s * NS_PER_S))
        self._last_ns: int | None = None
        self._seen = self._restarts = self._zeros = 0
        self._stamps_ns, self._received_ns = array("q"), array("q")
        self._placed: Counter[str] = Counter()

    def add(self, frame: RawFrame | BadFrame) -> Candidate | str:
        """The sample of a frame, or the reason why it has none.

        Pictures are not looked at here: ask :meth:`Candidate.broken` before a sample is used.
        """
        number, self._seen = self._seen, self._seen + 1
        if isinstance(frame, BadFrame):
            return frame.reason
        last_ns = self._last_ns
        if frame.stamp_ns == 0:
            self._zeros += 1
            if last_ns is not None:
                return ZERO_STAMP
        self._stamps_ns.append(frame.stamp_ns)
        self._received_ns.append(frame.received_ns)
        if last_ns is not None and frame.stamp_ns <= last_ns:
            if frame.stamp_ns <= last_ns - NS_PER_S:
                # The simulation has restarted: from here on time runs anew.
                self._window.clear()
                self._last_ns, self._restarts = frame.stamp_ns, self._restarts + 1
            return DUPLICATE if frame.stamp_ns == last_ns else CLOCK_BACK
        self._last_ns = frame.stamp_ns
        held = HeldFrame(frame, self._config.jpeg_quality)
        self._window.add(held)
        if number % self._config.stride:
            return NOT_SAMPLED
        return self._candidate(held)

    @property
    def name(self) -> str:
        """Of the recording."""
        return self._recording.name

    def remarks(self) -> Iterator[str]:
        """What is to be said about the stamps of the frames that were added, in sentences."""
        if self._zeros > 1:
            yield f"the header.stamp of {self._zeros} frames is 0: mend what publishes them, and record again"
        if self._zeros > len(self._stamps_ns) or not self._stamps_ns:
            return
        offset_ns = self._recording.track.clock_offset_ns(self._stamps_ns, self._received_ns)
        if abs(offset_ns) > _CLOCK_OFFSET_NS:
            yield (
                f"the camera's stamps lie {offset_ns / NS_PER_S:+.1f} s from those of the poses that arrive with them: "
                "two clocks? Do: synchronise them, or set use_sim_time for both, and record again"
            )
        if self._placed[NO_POSE] + self._placed[CLOCKS_DIFFER] > 0.5 * len(self._stamps_ns):
            yield self._recording.track.spans(min(self._stamps_ns), max(self._stamps_ns))

    def _candidate(self, held: HeldFrame) -> Candidate | str:
        recording, stamp_ns = self._recording, held.stamp_ns
        t0_ns = stamp_ns - self._lag_ns
        track = recording.track
        found = track.window(t0_ns, track.epoch_at(held.frame.received_ns), OFFSETS_NS)
        if found == NO_POSE:
            found = ZERO_STAMP if stamp_ns == 0 else track.why_no_pose(t0_ns, held.frame.received_ns)
        if isinstance(found, str):
            self._placed[found] += 1
            return found
        segment, poses_map = found
        ahead_m = _forward_steps_m(poses_map)
        if np.min(ahead_m) < -_REVERSE_STEP_M:
            return REVERSE
        if seen_m(poses_map, self._seen_steps) < self._config.min_speed_mps * self._seen_steps * STEP_S:
            return STANDING
        frames = self._window.last_four()
        split = split_of(recording.name, track.run_at(segment), t0_ns, self._validation, GUARD_NS)
        if frames is None or split is None:
            return NO_HISTORY if frames is None else GUARD
        if self._correction is not None:
            history_map = poses_map[:HISTORY_STEPS]
            future = self._correction.future(recording.name, t0_ns, history_map)
            if isinstance(future, str):
                return future
            poses_map = np.concatenate([history_map, future])
        return self._placed_candidate(held, frames, (recording, segment, t0_ns), poses_map, split)

    def _placed_candidate(
        self,
        held: HeldFrame,
        frames: Sequence[HeldFrame],
        place: tuple[Recording, int, int],
        poses_map: NDArray[np.float64],
        split: Split,
    ) -> Candidate | str:
        """The sample of a frame whose poses (80, 3) in the map are known; ``place`` is recording, segment and t0."""
        recording, segment, t0_ns = place
        stamp_ns, track = held.stamp_ns, recording.track
        ahead_m = _forward_steps_m(poses_map)
        # After a restart of the clock the same stamps come again.
        stem = f"{recording.name}-{self._restarts + 1}" if self._restarts else recording.name
        names = tuple(image_name(stem, frame.stamp_ns) for frame in frames)
        wheel_mps = recording.wheel_speed(t0_ns, track.segments[segment].epoch)
        pose_mps = float(ahead_m[HISTORY_STEPS - 2] + ahead_m[HISTORY_STEPS - 1]) / (2.0 * STEP_S)
        facts = {
            "file_name": names[-1],
            "frames": names,
            "id": f"{stem}_{stamp_ns}",
            "bag": recording.name,
            "lap": recording.laps.at(held.frame.received_ns),
            "stamp_ns": stamp_ns,
            "speed_mps": round(pose_mps if wheel_mps is None else wheel_mps, 6),
            "split": split,
        }
        # Rounded to a micrometre, and minus zero made zero, so that the file holds what was judged.
        poses = np.round(to_ego(poses_map, poses_map[HISTORY_STEPS - 1]), 6) + 0.0
        here = (*place, poses_map[HISTORY_STEPS - 1])
        manner = None
        if self._neighbours is not None and self._neighbours.is_marked:
            manner = recording.marks.at(held.frame.received_ns)
            if manner is None:
                return UNREAD
        text = self._given(stamp_ns)
        if self._texts is not None and text is None:
            return NO_TEXT
        claim = None if text is None else parse_claim(text)
        is_placed = claim is not None and (claim.position, claim.pace) != ("none", "none")
        # What nobody asks for is not looked up.
        road = self._neighbours.road_at(*here) if self._neighbours is not None and (manner or is_placed) else None
        motion = measure_motion(poses[HISTORY_STEPS:], STEP_S, self._config.thresholds, road=road)
        text = self._written(motion, manner, stamp_ns) if text is None else text
        if text is None:
            return NOT_DRIVEN
        others = () if manner is None or self._texts is not None else self._others(here, manner, facts, poses, road)
        pair = facts["id"] if others else ""
        sample, verdict = judged_sample(facts, poses, motion, text, self._config.thresholds, manner, road, str(pair))
        return Candidate(sample, tuple(frames), stem, verdict, others)

    def _others(
        self,
        here: tuple[Recording, int, int, NDArray[np.float64]],
        manner: Manner,
        facts: Mapping[str, Any],
        poses: NDArray[np.float64],
        road: LocalRoad | None,
    ) -> tuple[Sample, ...]:
        """Samples of the same frame with the futures of neighbouring laps in other manners, of the same split."""
        found: list[Sample] = []
        if self._neighbours is None or road is None:
            return ()
        for other in self._neighbours.other_futures(*here, facts["speed_mps"], manner):
            theirs = other.recording
            run = theirs.track.run_at(other.segment)
            if split_of(theirs.name, run, other.stamp_ns, self._validation, GUARD_NS) != facts["split"]:
                continue
            whole = np.concatenate([poses[:HISTORY_STEPS], np.round(other.future, 6) + 0.0])
            motion = measure_motion(other.future, STEP_S, self._config.thresholds, road=road)
            text = self._written(motion, other.manner, int(facts["stamp_ns"]))
            if text is None:
                continue
            mine = {**facts, "id": f"{facts['id']}~{len(found) + 1}"}
            sample, verdict = judged_sample(
                mine, whole, motion, text, self._config.thresholds, other.manner, road, str(facts["id"])
            )
            if verdict is None:
                found.append(sample)
        return tuple(found)

    @property
    def _seen_steps(self) -> int:
        """The steps of the reasoning's window."""
        return max(1, min(FUTURE_STEPS, round(self._config.thresholds.window_s / STEP_S)))

    def _given(self, stamp_ns: int) -> str | None:
        if self._texts is None:
            return None
        return self._texts.get((self._recording.name, stamp_ns), self._texts.get((None, stamp_ns)))

    def _written(self, motion: Motion, manner: Manner | None, stamp_ns: int) -> str | None:
        config = self._config
        # The same frame gets the same words in every build.
        seed = zlib.crc32(f"{config.seed}/{self._recording.name}/{stamp_ns}".encode())
        return write_manner(motion, manner or Manner(), seed, config.thresholds, config.reasoning_language)


def _forward_steps_m(poses: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far each step of (N, 3) poses goes along the heading it starts with, (N-1,) metres."""
    steps = np.diff(poses, axis=0)
    return np.asarray(np.cos(poses[:-1, 2]) * steps[:, 0] + np.sin(poses[:-1, 2]) * steps[:, 1], np.float64)
