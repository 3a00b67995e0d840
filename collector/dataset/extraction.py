"""One frame in, one sample out, or the reason why not: poses at the frame's stamp, label, reasoning, verdict."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collector.dataset.config import BuildConfig
from collector.dataset.frame_memory import NO_HISTORY, FrameMemory, HeldFrame
from collector.dataset.schema import Curve, Sample, TextClaim, image_name
from collector.dataset.splits import Stretch, split_of
from collector.geometry.constants import FUTURE_STEPS, HISTORY_STEPS, STEP_NS, STEP_S
from collector.geometry.poses import to_ego
from collector.pose_tracks.recording import Drive
from collector.pose_tracks.tracks import CLOCK_BACK, NS
from collector.reasoning.consistency import Agreement, Motion, judge, measure_motion
from collector.reasoning.parser import parse_claim
from collector.reasoning.writing import write_reasoning
from collector.ros.images import RawFrame

DT_S = STEP_S
OFFSETS_NS: NDArray[np.int64] = np.arange(-(HISTORY_STEPS - 1), FUTURE_STEPS + 1, dtype=np.int64) * STEP_NS
HISTORY_NS, HORIZON_NS = -int(OFFSETS_NS[0]), int(OFFSETS_NS[-1])
# From t0 to t0: nothing that a training sample touches, from its history to its horizon, lies within one more horizon
# of anything that a validation sample touches. (Its four images lie within its history.)
GUARD_NS = HISTORY_NS + HORIZON_NS + HORIZON_NS
# Backwards by less than this (one step of 0.1 s at 0.3 m/s) is noise of the localisation.
_REVERSE_STEP_M = 0.03

UNDECODABLE = "undecodable frame"
DUPLICATE = "duplicate stamp"
NOT_SAMPLED = "not sampled (stride)"
STANDING = "standing still"
REVERSE = "reverse"
GUARD = "guard band of the split"
NO_TEXT = "no text given"

# Texts to curate, by bag (None: any) and stamp.
Texts = Mapping[tuple[str | None, int], str]


@dataclass(frozen=True)
class Cut:
    """A sample, the four frames it needs, and why it must not train (None when it may)."""

    sample: Sample
    frames: tuple[HeldFrame, ...]
    image_stem: str
    verdict: dict[str, Any] | None

    def broken(self) -> str | None:
        """Why its frames cannot serve; compresses them, or waits until workers have."""
        if self.frames[-1].jpeg() is None:
            return UNDECODABLE
        return NO_HISTORY if any(frame.jpeg() is None for frame in self.frames) else None


class SampleCutter:
    """Cuts the samples of one recording; feed it every camera frame in order of arrival.

    Args:
        drive: the recording's poses.
        config: settings of the build.
        validation: stretches kept for validation, of all recordings.
        texts: reasoning texts to curate; None writes our own.
        lag_ns: what a picture shows was so long before its stamp; poses are taken then.
    """

    def __init__(
        self,
        drive: Drive,
        config: BuildConfig,
        validation: Sequence[Stretch],
        texts: Texts | None = None,
        lag_ns: int = 0,
    ) -> None:
        self._drive, self._config, self._validation, self._texts = drive, config, validation, texts
        self._lag_ns = lag_ns
        self._memory = FrameMemory(STEP_NS, round(config.frame_tolerance_s * NS))
        self._last_ns: int | None = None
        self._seen = self._restarts = 0

    def add(self, frame: RawFrame | None) -> Cut | str:
        """The sample of a frame (None: a message that could not be read), or the reason why it has none.

        Pictures are not looked at here: ask :meth:`Cut.broken` before a sample is used.
        """
        number, self._seen = self._seen, self._seen + 1
        if frame is None:
            return UNDECODABLE
        last_ns = self._last_ns
        if last_ns is not None and frame.stamp_ns <= last_ns:
            if frame.stamp_ns <= last_ns - NS:
                # The simulation has restarted: from here on time runs anew.
                self._memory.clear()
                self._last_ns, self._restarts = frame.stamp_ns, self._restarts + 1
            return DUPLICATE if frame.stamp_ns == last_ns else CLOCK_BACK
        self._last_ns = frame.stamp_ns
        held = HeldFrame(frame, self._config.jpeg_quality)
        self._memory.add(held)
        if number % self._config.stride:
            return NOT_SAMPLED
        return self._cut(held)

    def _cut(self, held: HeldFrame) -> Cut | str:
        drive, stamp_ns = self._drive, held.stamp_ns
        t0_ns = stamp_ns - self._lag_ns
        piece = drive.track.piece_at(t0_ns, drive.track.epoch_at(held.frame.received_ns))
        if isinstance(piece, str):
            return piece
        poses_map = drive.track.sample(piece, t0_ns, OFFSETS_NS)
        if isinstance(poses_map, str):
            return poses_map
        ahead_m = forward_steps_m(poses_map)
        if np.min(ahead_m) < -_REVERSE_STEP_M:
            return REVERSE
        if self._stands_still(poses_map):
            return STANDING
        frames = self._memory.last_four()
        if frames is None:
            return NO_HISTORY
        split = split_of(drive.name, drive.track.run_at(piece), t0_ns, self._validation, GUARD_NS)
        if split is None:
            return GUARD
        # Rounded to a micrometre, and minus zero made zero, so that the file holds what was judged.
        poses = np.round(to_ego(poses_map, poses_map[HISTORY_STEPS - 1]), 6) + 0.0
        motion = measure_motion(poses[HISTORY_STEPS:], DT_S, self._config.thresholds)
        text = self._text(motion, stamp_ns)
        if text is None:
            return NO_TEXT
        claim = parse_claim(text)
        agreement = judge(claim, motion)
        wheel_mps = drive.wheel_speed(t0_ns, drive.track.pieces[piece].epoch)
        pose_mps = float(ahead_m[HISTORY_STEPS - 2] + ahead_m[HISTORY_STEPS - 1]) / (2.0 * DT_S)
        # After a restart of the clock the same stamps come again.
        stem = f"{drive.name}-{self._restarts + 1}" if self._restarts else drive.name
        names = tuple(image_name(stem, frame.stamp_ns) for frame in frames)
        sample = Sample(
            file_name=names[-1],
            frames=names,
            id=f"{stem}_{stamp_ns}",
            bag=drive.name,
            lap=drive.laps.at(held.frame.received_ns),
            stamp_ns=stamp_ns,
            reasoning=text,
            history=_rows(poses[:HISTORY_STEPS]),
            future=_rows(poses[HISTORY_STEPS:]),
            dt_s=DT_S,
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
        return Cut(sample, tuple(frames), stem, None if agreement.keep else self._verdict(agreement, motion))

    @property
    def _window(self) -> int:
        return max(1, min(FUTURE_STEPS, round(self._config.thresholds.window_s / DT_S)))

    def _seen_m(self, poses: NDArray[np.float64]) -> float:
        """How far (80, 3) poses go within the reasoning's window."""
        steps = np.diff(poses[HISTORY_STEPS - 1 : HISTORY_STEPS + self._window, :2], axis=0)
        return float(np.sum(np.hypot(steps[:, 0], steps[:, 1])))

    def _stands_still(self, poses_map: NDArray[np.float64]) -> bool:
        return self._seen_m(poses_map) < self._config.min_speed_mps * self._window * DT_S

    def _text(self, motion: Motion, stamp_ns: int) -> str | None:
        name = self._drive.name
        if self._texts is None:
            config = self._config
            seed = text_seed(config.seed, name, stamp_ns)
            return write_reasoning(motion, seed, config.thresholds, config.reasoning_language)
        return self._texts.get((name, stamp_ns), self._texts.get((None, stamp_ns)))

    def _verdict(self, agreement: Agreement, motion: Motion) -> dict[str, Any]:
        return {
            "reason": agreement.reason,
            "lateral": agreement.lateral,
            "longitudinal": agreement.longitudinal,
            "measured": {
                "lateral": motion.lateral,
                "longitudinal": motion.longitudinal,
                "speed_start_mps": motion.speed_start_mps,
                "speed_end_mps": motion.speed_end_mps,
            },
            "thresholds": asdict(self._config.thresholds),
        }


def forward_steps_m(poses: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far each step of (N, 3) poses goes along the heading it starts with, (N-1,) metres."""
    steps = np.diff(poses, axis=0)
    return np.asarray(np.cos(poses[:-1, 2]) * steps[:, 0] + np.sin(poses[:-1, 2]) * steps[:, 1], np.float64)


def text_seed(seed: int, bag: str, stamp_ns: int) -> int:
    """The seed of a frame's phrasing: the same frame gets the same words in every build."""
    return zlib.crc32(f"{seed}/{bag}/{stamp_ns}".encode())


def _rows(poses: NDArray[np.float64]) -> tuple[tuple[float, float, float], ...]:
    return tuple((x, y, yaw) for x, y, yaw in poses.tolist())
