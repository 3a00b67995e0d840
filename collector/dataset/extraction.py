"""One frame in, one sample out, or the reason why not: poses at the frame's stamp, label, reasoning, consistency."""

from __future__ import annotations

import zlib
from array import array
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collector.dataset.config import CurationConfig
from collector.dataset.schema import Curve, Sample, TextClaim, image_name
from collector.dataset.splits import Interval, split_of
from collector.geometry.constants import FRAME_STEPS, FUTURE_STEPS, HISTORY_STEPS, NS_PER_S, STEP_NS, STEP_S
from collector.geometry.discontinuity import CLOCK_BACK
from collector.geometry.poses import to_ego
from collector.pose_tracks.recording import Recording
from collector.pose_tracks.sane_stamps import ZERO_STAMP
from collector.pose_tracks.tracks import CLOCKS_DIFFER, NO_POSE
from collector.reasoning.consistency import ClaimCheck, Motion, check_claim, measure_motion, parse_claim
from collector.reasoning.writing import write_reasoning
from collector.ros.images import BadFrame, FrameError, RawFrame, frame_jpeg
from collector.ros.jpeg import UPRIGHT, orientation

OFFSETS_NS: NDArray[np.int64] = np.arange(-(HISTORY_STEPS - 1), FUTURE_STEPS + 1, dtype=np.int64) * STEP_NS
HISTORY_NS, HORIZON_NS = -int(OFFSETS_NS[0]), int(OFFSETS_NS[-1])
# From t0 to t0: nothing that a training sample touches, from its history to its horizon, lies within one more horizon
# of anything that a validation sample touches. (Its four images lie within its history.)
GUARD_NS = HISTORY_NS + HORIZON_NS + HORIZON_NS
# Backwards by less than this (one step of 0.1 s at 0.3 m/s) is noise of the localisation.
_REVERSE_STEP_M = 0.03
# Stamps that hardly rise (a damaged clock) must not fill the memory.
_MOST_FRAMES = 64
# A camera whose stamps lie farther from those of the poses that arrive with them is on another clock.
_CLOCK_OFFSET_NS = NS_PER_S

DUPLICATE = "duplicate stamp"
NOT_SAMPLED = "not sampled (stride)"
STANDING = "standing still"
REVERSE = "reverse"
GUARD = "guard band of the split"
NO_TEXT = "no text given"
NO_HISTORY = "no frame history"

# Texts to curate, by bag (None: any) and stamp.
Texts = Mapping[tuple[str | None, int], str]


@dataclass
class HeldFrame:
    """A frame and its JPEG bytes, made at most once, when a sample needs them; raw pixels are then let go of."""

    frame: RawFrame
    quality: int
    bad: BadFrame | None = None  # why it cannot serve, once that is known
    cut_bytes: int = 0  # what lay behind the end of its JPEG
    orientation: int = UPRIGHT  # as its Exif says
    _done: bool = False
    _pending: Future[bytes | BadFrame] | None = None

    @property
    def stamp_ns(self) -> int:
        """Header stamp."""
        return self.frame.stamp_ns

    def start(self, pool: Executor) -> None:
        """Have a worker check and compress the frame, so that :meth:`jpeg` need not."""
        if not self._done and self._pending is None:
            self._pending = pool.submit(_jpeg_or_bad, self.frame, self.quality)

    def jpeg(self) -> bytes | None:
        """The frame as JPEG, None when it is broken."""
        if not self._done:
            pending, self._pending, self._done = self._pending, None, True
            found = _jpeg_or_bad(self.frame, self.quality) if pending is None else pending.result()
            self.bad, data = (found, None) if isinstance(found, BadFrame) else (None, found)
            recorded = self.frame.jpeg
            if data is not None and recorded is not None and len(data) < len(recorded) and recorded.startswith(data):
                self.cut_bytes = len(recorded) - len(data)
            self.orientation = orientation(data or b"")
            self.frame = replace(self.frame, jpeg=data, pixels=None)
        return self.frame.jpeg


def _jpeg_or_bad(frame: RawFrame, quality: int) -> bytes | BadFrame:
    # An error kept in a future would keep the frame's pixels as well.
    try:
        return frame_jpeg(frame, quality)
    except FrameError as error:
        return BadFrame.of(error)


class FrameWindow:
    """Just enough recent frames to pick the four of a sample from, each at most ``tolerance_ns`` off its ideal time."""

    def __init__(self, tolerance_ns: int) -> None:
        self._tolerance_ns = tolerance_ns
        self._frames: deque[HeldFrame] = deque(maxlen=_MOST_FRAMES)

    def clear(self) -> None:
        """Forget everything (the clock has restarted)."""
        self._frames.clear()

    def add(self, frame: HeldFrame) -> None:
        """Remember the newest frame and forget what is too old to be picked again."""
        self._frames.append(frame)
        oldest_ns = frame.stamp_ns - (FRAME_STEPS - 1) * STEP_NS - self._tolerance_ns
        while self._frames[0].stamp_ns < oldest_ns:
            self._frames.popleft()

    def last_four(self) -> list[HeldFrame] | None:
        """The newest frame and the three at one, two and three steps before it, oldest first.

        None when one of them is missing or would serve twice. Whether they decode is not asked here: that costs more
        than all the rest, and frames that no sample needs are never looked at.
        """
        newest = self._frames[-1]
        picked = [newest]
        for back in range(1, FRAME_STEPS):
            ideal_ns = newest.stamp_ns - back * STEP_NS
            nearest = min(self._frames, key=lambda frame: abs(frame.stamp_ns - ideal_ns))
            if abs(nearest.stamp_ns - ideal_ns) > self._tolerance_ns or nearest is picked[0]:
                return None
            picked.insert(0, nearest)
        return picked


@dataclass(frozen=True)
class Candidate:
    """A sample, the four frames it needs, and why it must not train (None when it may)."""

    sample: Sample
    frames: tuple[HeldFrame, ...]
    image_stem: str
    verdict: dict[str, Any] | None

    def broken(self) -> BadFrame | None:
        """Why its frames cannot serve; compresses them, or waits until workers have."""
        if self.frames[-1].jpeg() is None:
            return self.frames[-1].bad
        bad = [frame.bad for frame in self.frames if frame.jpeg() is None]
        return BadFrame(NO_HISTORY, bad[0].sentence if bad[0] else "") if bad else None


class SampleExtractor:
    """Cuts the samples of one recording; feed it every camera frame in order of arrival.

    ``validation`` are the intervals of all recordings, ``texts`` reasoning texts to curate (None writes our own). A
    picture shows what was ``lag_ns`` before its stamp; poses are taken then.
    """

    def __init__(
        self,
        recording: Recording,
        config: CurationConfig,
        validation: Sequence[Interval],
        texts: Texts | None = None,
        lag_ns: int = 0,
    ) -> None:
        self._recording, self._config, self._validation, self._texts = recording, config, validation, texts
        self._lag_ns = lag_ns
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
        if self._seen_m(poses_map) < self._config.min_speed_mps * self._seen_steps * STEP_S:
            return STANDING
        frames = self._window.last_four()
        split = split_of(recording.name, track.run_at(segment), t0_ns, self._validation, GUARD_NS)
        if frames is None or split is None:
            return NO_HISTORY if frames is None else GUARD
        # Rounded to a micrometre, and minus zero made zero, so that the file holds what was judged.
        poses = np.round(to_ego(poses_map, poses_map[HISTORY_STEPS - 1]), 6) + 0.0
        motion = measure_motion(poses[HISTORY_STEPS:], STEP_S, self._config.thresholds)
        text = self._text(motion, stamp_ns)
        if text is None:
            return NO_TEXT
        claim = parse_claim(text)
        check = check_claim(claim, motion)
        wheel_mps = recording.wheel_speed(t0_ns, track.segments[segment].epoch)
        pose_mps = float(ahead_m[HISTORY_STEPS - 2] + ahead_m[HISTORY_STEPS - 1]) / (2.0 * STEP_S)
        # After a restart of the clock the same stamps come again.
        stem = f"{recording.name}-{self._restarts + 1}" if self._restarts else recording.name
        names = tuple(image_name(stem, frame.stamp_ns) for frame in frames)
        sample = Sample(
            file_name=names[-1],
            frames=names,
            id=f"{stem}_{stamp_ns}",
            bag=recording.name,
            lap=recording.laps.at(held.frame.received_ns),
            stamp_ns=stamp_ns,
            reasoning=text,
            history=_rows(poses[:HISTORY_STEPS]),
            future=_rows(poses[HISTORY_STEPS:]),
            dt_s=STEP_S,
            speed_mps=round(pose_mps if wheel_mps is None else wheel_mps, 6),
            curve=Curve(
                label=motion.curve.label,
                max_abs_curvature_1pm=motion.curve.max_abs_curvature_1pm,
                entry_m=self._seen_m(poses) if motion.curve.entry_m is None else motion.curve.entry_m,
                turn_rad=motion.curve.turn_rad,
            ),
            claim=TextClaim(lateral=claim.lateral, longitudinal=claim.longitudinal),
            split=split,
        )
        return Candidate(sample, tuple(frames), stem, None if check.keep else self._verdict(check, motion))

    @property
    def _seen_steps(self) -> int:
        """The steps of the reasoning's window."""
        return max(1, min(FUTURE_STEPS, round(self._config.thresholds.window_s / STEP_S)))

    def _seen_m(self, poses: NDArray[np.float64]) -> float:
        """How far (80, 3) poses go within the reasoning's window."""
        steps = np.diff(poses[HISTORY_STEPS - 1 : HISTORY_STEPS + self._seen_steps, :2], axis=0)
        return float(np.sum(np.hypot(steps[:, 0], steps[:, 1])))

    def _text(self, motion: Motion, stamp_ns: int) -> str | None:
        name = self._recording.name
        if self._texts is None:
            config = self._config
            # The same frame gets the same words in every build.
            seed = zlib.crc32(f"{config.seed}/{name}/{stamp_ns}".encode())
            return write_reasoning(motion, seed, config.thresholds, config.reasoning_language)
        return self._texts.get((name, stamp_ns), self._texts.get((None, stamp_ns)))

    def _verdict(self, check: ClaimCheck, motion: Motion) -> dict[str, Any]:
        measured = ("lateral", "longitudinal", "speed_start_mps", "speed_end_mps")
        return {
            **{name: getattr(check, name) for name in ("reason", "lateral", "longitudinal")},
            "measured": {name: getattr(motion, name) for name in measured},
            "thresholds": asdict(self._config.thresholds),
        }


def _forward_steps_m(poses: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far each step of (N, 3) poses goes along the heading it starts with, (N-1,) metres."""
    steps = np.diff(poses, axis=0)
    return np.asarray(np.cos(poses[:-1, 2]) * steps[:, 0] + np.sin(poses[:-1, 2]) * steps[:, 1], np.float64)


def _rows(poses: NDArray[np.float64]) -> tuple[tuple[float, float, float], ...]:
    return tuple((x, y, yaw) for x, y, yaw in poses.tolist())
