"""Pairs of neighbouring frames of a bag: how the camera moved between them, and how the kart did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from collector.bags.reader import BagReader
from collector.calibration.ego_motion import Motion, gray_image, motion_between
from collector.calibration.fit import FitLimits, offset_grid
from collector.calibration.intrinsics import read_intrinsics
from collector.calibration.model import Intrinsics, intrinsics_of, undistorted
from collector.common.arguments import OUT, POSITIONAL, Arguments, argument
from collector.common.errors import MonoError
from collector.common.tables import progress
from collector.geometry.constants import NS_PER_S
from collector.geometry.poses import FloatArray
from collector.pose_tracks.tracks import CLOCKS_DIFFER, NO_POSE, PoseTrack, TrackConfig
from collector.ros.images import BadFrame, FrameError, RawFrame
from collector.ros.topics import ODOMETRY

Gray = NDArray[np.uint8]

# Frames are looked at in runs: only neighbours tell something.
RUN_FRAMES = 50
# Of a faster camera not every frame is looked at: within 33 ms a turn is lost in the noise.
_SHORTEST_STEP_NS, _LONGEST_STEP_NS = 80_000_000, 300_000_000
_HALF_WINDOW_NS = NS_PER_S // 2  # speed and straightness are those of the second around a pair
_DEFAULT_HFOV_DEG = 90.0
_LENSES = ("", "plumb_bob", "rational_polynomial")


@dataclass(frozen=True)
class CalibrateConfig(Arguments):
    """Estimate the camera's time offset and pitch from a recorded bag; see the plot before you trust it."""

    bag: Annotated[Path, POSITIONAL]  # bag folder (metadata.yaml inside) or single .mcap / .db3 file.
    # folder for calibration.yaml and calibration.png; existing ones are replaced.
    out: Annotated[Path, OUT]
    image_topic: str | None = None  # camera topic; by default our JPEG topic, else the raw one.
    odometry_topic: str = ODOMETRY.name  # nav_msgs/Odometry with the pose of base_link in the map.
    # CameraInfo with the intrinsics, used where --hfov-deg is not given; by default camera_info beside the camera
    # topic, where the bag has it.
    camera_info_topic: str | None = None
    hfov_deg: float | None = argument(
        None,
        "horizontal field of view of an undistorted camera, in place of CameraInfo; 90 where neither is there",
        1.0,
        179.0,
    )
    max_frames: int = argument(
        3000, "of a longer bag, so many frames spread over its whole length are looked at", 2 * RUN_FRAMES, 10_000_000
    )
    min_speed_mps: float = argument(1.0, "slower frames are passed over", 0.0, 100.0)
    # what counts as one continuous motion; noise in the yaw, which hides when a turn began, is cleaned away.
    track: TrackConfig = field(default_factory=TrackConfig)
    limits: FitLimits = field(default_factory=FitLimits)  # when the bag tells enough.


@dataclass(frozen=True, eq=False)
class Pairs:
    """What N pairs of neighbouring frames told."""

    start_ns: NDArray[np.int64]  # (N,) header stamp of the first frame
    end_ns: NDArray[np.int64]  # (N,) of the second
    rotations: FloatArray  # (N, 3) as `collector.calibration.ego_motion.Motion` has them
    pitches_rad: FloatArray  # (N,)
    odometry_turn_rad: FloatArray  # (N, L) how far the kart turned left between both stamps minus each offset
    straight: NDArray[np.bool_]  # (N,) on a straight, by the odometry
    shown: tuple[Gray, Motion] | None  # the frame on a straight with the most features and its motion, for the plot
    frames: int
    passed_over: dict[str, int]  # of the `frames` looked at, how many gave no pair with the frame before, by reason
    intrinsics: Intrinsics

    @property
    def seconds(self) -> FloatArray:
        """(N,) time between the two frames."""
        return np.asarray((self.end_ns - self.start_ns) / NS_PER_S, np.float64)

    def image_turn_rad(self, pitch_rad: float) -> FloatArray:
        """(N,) how far the camera turned left about the vertical, given its pitch."""
        turn = self.rotations[:, 1] * np.cos(pitch_rad) + self.rotations[:, 2] * np.sin(pitch_rad)
        return np.asarray(turn, np.float64)


def read_pairs(
    bag: BagReader, topic: str, track: PoseTrack, config: CalibrateConfig, show_progress: bool = True
) -> Pairs:
    """Look at the frames of a bag's camera topic, against the kart's poses.

    Raises:
        MonoError: intrinsics that are none, or not a single frame that can be decoded.
    """
    limits = config.limits
    kart = _KartMotion(track, offset_grid(limits))
    intrinsics: Intrinsics | None = None
    shown: tuple[Gray, Motion] | None = None
    rows: list[tuple[Any, ...]] = []
    look = _Neighbours()
    reasons = look.reasons
    for before, (frame, gray), size_px in look.pairs(_chosen(bag, topic, config.max_frames, show_progress)):
        intrinsics = intrinsics or _intrinsics(bag, topic, config, size_px)
        if before is None or frame.stamp_ns - before[0].stamp_ns > _LONGEST_STEP_NS or before[1].shape != gray.shape:
            reasons["no frame shortly before"] += 1
            continue
        moved = kart.between(before[0], frame)
        if moved is None or moved.speed_mps < config.min_speed_mps:
            why = track.why_no_pose(before[0].stamp_ns, before[0].received_ns)
            reasons[why if moved is None else "too slow"] += 1
            continue
        motion = motion_between(before[1], gray, intrinsics)
        if motion is None:
            reasons["too few features"] += 1
            continue
        is_straight = moved.yaw_rate_radps < limits.straight_yaw_rate_radps
        if is_straight and (shown is None or motion.tracks > shown[1].tracks):
            shown = before[1], motion
        rows.append(
            (before[0].stamp_ns, frame.stamp_ns, motion.rotation, motion.pitch_rad, moved.turns_rad, is_straight)
        )
    if intrinsics is None:
        found = f"none of {look.seen} frames of {topic} in {bag.path} can be decoded"
        raise MonoError(
            f"{found}: {look.why_bad}" if look.why_bad else found, "JPEG, PNG or a raw image", "record again"
        )
    if not rows and reasons[CLOCKS_DIFFER] > reasons[NO_POSE]:
        raise MonoError(f"{bag.path}: {track.spans(min(look.stamps_ns), max(look.stamps_ns))}")
    starts, ends, rotations, pitches, turns, straight = zip(*rows, strict=True) if rows else [()] * 6
    return Pairs(
        np.array(starts, np.int64),
        np.array(ends, np.int64),
        np.array(rotations, np.float64).reshape(-1, 3),
        np.array(pitches, np.float64),
        np.array(turns, np.float64).reshape(-1, len(kart.offsets_ns)),
        np.array(straight, bool),
        shown,
        look.seen,
        dict(reasons),
        intrinsics,
    )


class _Neighbours:
    """Decodes frames and pairs each with the one before it; counts those that it looks at and cannot use."""

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()
        self.seen, self.why_bad = 0, ""
        self.stamps_ns: list[int] = []  # of the frames that were decoded

    def pairs(
        self, frames: Iterator[RawFrame | BadFrame | None]
    ) -> Iterator[tuple[tuple[RawFrame, Gray] | None, tuple[RawFrame, Gray], tuple[int, int]]]:
        """The frame before (None at the beginning of a run), the frame, and its recorded (width, height)."""
        last: tuple[RawFrame, Gray] | None = None
        for frame in frames:
            if frame is None:
                last = None  # the end of a run
                continue
            if isinstance(frame, RawFrame) and last is not None:
                step_ns = frame.stamp_ns - last[0].stamp_ns
                if step_ns < -NS_PER_S:
                    last = None  # a clock that has restarted
                elif step_ns < _SHORTEST_STEP_NS:
                    continue
            self.seen += 1
            try:
                whole, gray, size_px = _decoded(frame)
            except FrameError as error:
                self.reasons[error.reason] += 1
                last, self.why_bad = None, self.why_bad or str(error)
                continue
            self.stamps_ns.append(whole.stamp_ns)
            before, last = last, (whole, gray)
            yield before, last, size_px


def _decoded(frame: RawFrame | BadFrame) -> tuple[RawFrame, Gray, tuple[int, int]]:
    """The frame, :func:`gray_image` of it and its recorded (width, height) (FrameError: it is a bad one)."""
    if isinstance(frame, BadFrame):
        raise FrameError(frame.sentence, reason=frame.reason)
    return frame, *gray_image(frame)


def _chosen(bag: BagReader, topic: str, max_frames: int, show_progress: bool) -> Iterator[RawFrame | BadFrame | None]:
    """The frames of runs spread evenly over the bag; None between runs that are not neighbours."""
    total = bag.counts[topic]
    share = min(1.0, max_frames / max(1, total))
    frames = progress(bag.frames(topic), f"calibrate {bag.path.name}", "frame", show=show_progress, total=total)
    taking = False
    for number, frame in enumerate(frames):
        run = number // RUN_FRAMES
        if int((run + 1) * share) > int(run * share):
            taking = True
            yield frame
        elif taking:
            taking = False
            yield None


def _intrinsics(bag: BagReader, topic: str, config: CalibrateConfig, size_px: tuple[int, int]) -> Intrinsics:
    """From the field of view if one is given, else from the bag's CameraInfo, else 90 degrees."""
    if config.hfov_deg is not None:
        return undistorted(config.hfov_deg, f"--hfov-deg {config.hfov_deg:g}", *size_px)
    known = read_intrinsics(bag, topic, config.camera_info_topic)
    if known is None:
        return undistorted(_DEFAULT_HFOV_DEG, f"an assumed field of view of {_DEFAULT_HFOV_DEG:g} degrees", *size_px)
    if known["distortion_model"] not in _LENSES:
        found = f"the lens model {known['distortion_model']!r} in {known['topic']}"
        do = "undistort the images before, or give --hfov-deg to take them as undistorted"
        raise MonoError(found, "plumb_bob or rational_polynomial", do)
    lens = known["D"] if any(known["D"]) else ()
    return intrinsics_of(known["K"], known["topic"], known["width"], known["height"], lens)


class _Moved(NamedTuple):
    """The kart around a pair of frames: (L,) turns per offset, speed, the faster of two half seconds' yaw rates."""

    turns_rad: FloatArray
    speed_mps: float
    yaw_rate_radps: float


class _KartMotion:
    """Looks up turns, speed and straightness in a pose track."""

    def __init__(self, track: PoseTrack, offsets_s: FloatArray) -> None:
        self._track = track
        self.offsets_ns = np.round(offsets_s * NS_PER_S).astype(np.int64)
        self._reach_ns = max(int(self.offsets_ns[-1]), _HALF_WINDOW_NS)
        self._yaws = [np.unwrap(piece.poses[:, 2]) for piece in track.segments]

    def between(self, before: RawFrame, after: RawFrame) -> _Moved | None:
        """None where the poses do not reach far enough around the two frames."""
        index = self._track.segment_at(before.stamp_ns, self._track.epoch_at(before.received_ns))
        if isinstance(index, str):
            return None
        piece, yaws = self._track.segments[index], self._yaws[index]
        first_ns, last_ns = piece.stamps_ns[0], piece.stamps_ns[-1]
        if before.stamp_ns - self._reach_ns < first_ns or after.stamp_ns + self._reach_ns > last_ns:
            return None
        # Relative to the pair: nanoseconds since 1970 lose their low bits as float64.
        around = before.stamp_ns - self._reach_ns - NS_PER_S, after.stamp_ns + self._reach_ns + NS_PER_S
        near = slice(*np.searchsorted(piece.stamps_ns, around).tolist())
        times = (piece.stamps_ns[near] - before.stamp_ns).astype(np.float64)
        step_ns = after.stamp_ns - before.stamp_ns
        turns = np.interp(step_ns - self.offsets_ns, times, yaws[near]) - np.interp(-self.offsets_ns, times, yaws[near])
        window = step_ns / 2.0 + np.array([-_HALF_WINDOW_NS, 0.0, _HALF_WINDOW_NS])
        yaw = np.interp(window, times, yaws[near])
        x, y = (np.interp(window[[0, 2]], times, piece.poses[near, axis]) for axis in (0, 1))
        speed_mps = float(np.hypot(x[1] - x[0], y[1] - y[0])) * NS_PER_S / (2 * _HALF_WINDOW_NS)
        return _Moved(turns, speed_mps, float(np.abs(np.diff(yaw)).max()) * NS_PER_S / _HALF_WINDOW_NS)
