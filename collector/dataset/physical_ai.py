"""Samples from NVIDIA's PhysicalAI-AV: the front wide camera of its curve scenes, in the same folder as from bags.

Read through the package ``physical_ai_av`` from what that package has downloaded before (the data is gated: its licence
must be accepted on Hugging Face). A clip is 20 s of driving; splits go by clip. Its rig frame has the axes of our
base_link: x forward, y left, z up, yaw counter-clockwise; positions are metres in a frame fixed to the clip, times are
microseconds. Nothing is converted but the units of time and the loss of height, roll and pitch.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from collector.bags.reader import OdometryRow
from collector.common.arguments import OUT
from collector.common.command_line import command_line
from collector.common.errors import MonoError, require
from collector.common.output_folder import refuse_within
from collector.common.tables import progress
from collector.dataset.build_report import BuildReport
from collector.dataset.builder import FramePipeline, finish_dataset, print_report
from collector.dataset.config import CurationConfig
from collector.dataset.extraction import SampleExtractor
from collector.dataset.given_texts import load_texts
from collector.dataset.schema import OWN_NAMES, DatasetWriter, Sample
from collector.dataset.splits import Interval
from collector.geometry.constants import FUTURE_STEPS, STEP_NS, STEP_S
from collector.geometry.curvature import CurveThresholds
from collector.geometry.poses import to_ego
from collector.pose_tracks.recording import LapCount, Recording
from collector.pose_tracks.tracks import PoseTrack, TrackConfig, build_track
from collector.reasoning.consistency import measure_motion
from collector.ros.images import UNDECODABLE, BadFrame, RawFrame

REPOSITORY = "nvidia/PhysicalAI-Autonomous-Vehicles"
EXTRA = "physical-ai"
STRAIGHT = "no curve in the window"
UNREADABLE = "unreadable clip"
NOT_DOWNLOADED = "clip not downloaded"

# Decoded together: a seek back to the key frame costs more than a frame, and 12 frames of 1080p are 75 MB.
_BATCH = 12
_UNDECODED = BadFrame(UNDECODABLE, "the video cannot be decoded here")


@dataclass(frozen=True)
class _Clips:
    """What every build of clips names; a base class of its own, so that it comes first."""

    data: Path  # the cache_dir that the package downloaded into.
    out: Annotated[Path, OUT]  # dataset folder to write.
    clips: tuple[str, ...] = ()  # clip ids; by default all that are downloaded.


@dataclass(frozen=True)
class PhysicalAiConfig(CurationConfig, _Clips):
    """Cut clips of NVIDIA's PhysicalAI-AV into samples of the front camera, in curves only unless told otherwise.

    Download clips first, with the package itself:
    physical_ai_av.PhysicalAIAVDatasetInterface(cache_dir=DIR).download_clip_features(CLIPS, [the features
    camera_front_wide_120fov and egomotion]).
    """

    straights: bool = False  # keep frames without a curve ahead, too.


class PhysicalAiData:
    """What the package has downloaded into a folder; never goes online.

    Raises:
        MonoError: the package is missing, or the folder is not what it downloads into.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        package = require("physical_ai_av", EXTRA)
        snapshots = self.folder / f"datasets--{REPOSITORY.replace('/', '--')}" / "snapshots"
        found = sorted((entry for entry in snapshots.glob("*") if entry.is_dir()), key=lambda e: e.stat().st_mtime)
        if not found:
            expected = f"a cache_dir of the package physical_ai_av ({snapshots.name}/<commit> in it)"
            do = "accept the licence on Hugging Face, then download clips as build-physical-ai --help says"
            raise MonoError(f"no snapshot of {REPOSITORY} in {self.folder}", expected, do)
        self.revision, self.version = found[-1].name, str(package.__version__)
        # The hub asks the network about every file that is not there, unless told not to.
        require("huggingface_hub", EXTRA).constants.HF_HUB_OFFLINE = True
        try:
            self._data = package.PhysicalAIAVDatasetInterface(revision=self.revision, cache_dir=self.folder)
            self.camera: str = self._data.features.CAMERA.CAMERA_FRONT_WIDE_120FOV
            self.motion: str = self._data.features.LABELS.EGOMOTION
        except Exception as error:
            # pandas, pyarrow and the hub raise many kinds; all mean that the folder is not whole.
            why = f"physical_ai_av {self.version}: {type(error).__name__}: {error}"
            expected = "features.csv, clip_index.parquet and metadata/ of the data set"
            do = "download again with the package"
            raise MonoError(f"{found[-1]} cannot be opened by {why}", expected, do) from error

    def clips(self) -> list[str]:
        """Ids of all clips whose chunks of camera and motion are downloaded."""
        return [str(clip) for clip in self._data.clip_index.index if self.has(str(clip))]

    def has(self, clip: str) -> bool:
        """Whether camera and motion of a clip are downloaded."""
        if clip not in self._data.clip_index.index:
            return False
        chunk = self._data.get_clip_chunk(clip)
        names = [self._data.features.get_chunk_feature_filename(chunk, name) for name in (self.camera, self.motion)]
        return all(self._data.is_file_cached(name) for name in names)

    def recording(self, clip: str, config: TrackConfig) -> Recording:
        """Poses and speed of a clip. Raises whatever the package does on a damaged file."""
        motion = self._data.get_clip_feature(clip, self.motion)
        stamps_ns = np.asarray(motion.timestamps, np.int64) * 1000
        pose, velocity = motion.values.pose, np.asarray(motion.values.velocity, np.float64)
        turn = np.asarray(pose.rotation.as_matrix(), np.float64)
        yaw = np.arctan2(turn[:, 1, 0], turn[:, 0, 0])
        xy = np.asarray(pose.translation, np.float64)[:, :2]
        # Whatever frame the velocity is given in, its length is the speed.
        speed = np.linalg.norm(velocity, axis=1)
        columns = stamps_ns.tolist(), xy.tolist(), yaw.tolist(), speed.tolist()
        rows = [OdometryRow(ns, ns, x, y, angle, mps) for ns, (x, y), angle, mps in zip(*columns, strict=True)]
        nothing = np.empty(0, np.int64)
        track = build_track(rows, config, (stamps_ns, speed))
        return Recording(clip, track, LapCount(nothing, nothing), {0: (stamps_ns, speed)})

    def frames(self, clip: str) -> tuple[NDArray[np.int64], Iterator[RawFrame | BadFrame]]:
        """Stamps at 10 Hz and, decoded on demand, the frames at them; a bad one where a video cannot be decoded."""
        reader = self._data.get_clip_feature(clip, self.camera)
        stamps_ns = np.asarray(reader.timestamps, np.int64) * 1000
        ideal = np.arange(stamps_ns[0], stamps_ns[-1] + 1, STEP_NS, dtype=np.int64)
        after = np.clip(np.searchsorted(stamps_ns, ideal), 1, len(stamps_ns) - 1)
        indices = np.unique(after - (ideal - stamps_ns[after - 1] <= stamps_ns[after] - ideal))
        return stamps_ns[indices], _decoded(reader, indices, stamps_ns)


class _Video(Protocol):
    def decode_images_from_frame_indices(self, indices: NDArray[np.int64]) -> Sequence[NDArray[np.uint8] | None]: ...

    def close(self) -> None: ...


def _decoded(reader: _Video, indices: NDArray[np.int64], stamps_ns: NDArray[np.int64]) -> Iterator[RawFrame | BadFrame]:
    try:
        for first in range(0, len(indices), _BATCH):
            batch = indices[first : first + _BATCH]
            try:
                images = reader.decode_images_from_frame_indices(batch)
            except Exception:  # noqa: BLE001 - a damaged stream fails anywhere inside the decoder; its frames are counted
                images = [None] * len(batch)
            for index, image in zip(batch, images, strict=False):
                stamp_ns = int(stamps_ns[index])
                frame = RawFrame(stamp_ns, stamp_ns, "camera_front_wide_120fov", pixels=image, encoding="rgb8")
                yield _UNDECODED if image is None else frame
    finally:
        reader.close()


def build_physical_ai(config: PhysicalAiConfig, show_progress: bool = True) -> tuple[BuildReport, dict[str, str]]:
    """Build a dataset folder from clips. Returns the count of frames, and clips left out with the reason.

    Raises:
        MonoError: no data, no clip, or the output folder is not empty.
    """
    texts = load_texts(config.reasoning) if config.reasoning is not None else None
    read = [config.data, *filter(None, [config.reasoning])]
    refuse_within([config.out / name for name in OWN_NAMES], read)
    report, left_out = BuildReport(), {}
    quality: dict[str, Any] = {}

    def refuse(sample: Sample) -> str | None:
        return STRAIGHT if sample.curve.label == "straight" and not config.straights else None

    with DatasetWriter(config.out, config.overwrite) as writer:
        data = PhysicalAiData(config.data)
        clips = sorted(set(config.clips) or data.clips())
        if not clips:
            found = f"no clip with camera and motion in {config.data}"
            raise MonoError(found, "at least one", "download some with physical_ai_av")
        for_validation = _draw_clips(clips, config.val_fraction, config.seed)
        for clip in progress(clips, "build", "clip", show=show_progress):
            if not data.has(clip):
                left_out[clip] = NOT_DOWNLOADED
                continue
            try:
                recording = data.recording(clip, config.track)
                stamps_ns, frames = data.frames(clip)
            except Exception as error:  # noqa: BLE001 - zipfile, pyarrow, scipy and av each have their own
                left_out[clip] = f"{UNREADABLE}: {type(error).__name__}: {error}"
                continue
            track = recording.track
            quality[clip] = track.report.plain()
            if not config.straights and not _has_curve(track, stamps_ns, config.thresholds):
                report.seen += len(stamps_ns)
                report.reject(STRAIGHT, len(stamps_ns))
                continue
            whole = [
                Interval(clip, index, track.run_at(index), 0, int(segment.stamps_ns[0]), int(segment.stamps_ns[-1]))
                for index, segment in enumerate(track.segments)
                if clip in for_validation
            ]
            FramePipeline(writer, report).run(frames, SampleExtractor(recording, config, whole, texts), refuse)
        facts = {
            "made_by": "alpamayo_mono collector.dataset.physical_ai",
            "source": {
                "dataset": REPOSITORY, "revision": data.revision, "physical_ai_av": data.version,
                "camera": data.camera, "clips": clips, "clips_left_out": left_out,
            },
            "pose_quality": quality,
            "validation": sorted(for_validation),
            "camera": "front",
            "poses": "[x_m, y_m, yaw_rad] in the rig frame at stamp_ns, x forward, y left",
        }  # fmt: skip
        finish_dataset(writer, config, report, facts, private=("data", "out", "overwrite"))
    return report, left_out


def _draw_clips(clips: Sequence[str], share: float, seed: int) -> set[str]:
    """Whole clips for validation; at least one where a share is asked for and another clip is left to train on."""
    count = round(share * len(clips))
    if share > 0.0 and len(clips) > 1:
        count = min(max(count, 1), len(clips) - 1)
    return set(random.Random(seed).sample(list(clips), count))


def _has_curve(track: PoseTrack, stamps_ns: NDArray[np.int64], thresholds: CurveThresholds) -> bool:
    """Whether a curve lies ahead of any frame; the video of other clips need not be decoded."""
    steps = np.arange(FUTURE_STEPS + 1, dtype=np.int64) * STEP_NS
    for stamp_ns in stamps_ns[::5].tolist():
        found = track.window(stamp_ns, 0, steps)
        if not isinstance(found, str):
            motion = measure_motion(to_ego(found[1], found[1][0])[1:], STEP_S, thresholds)
            if motion.curve.label != "straight":
                return True
    return False


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; prints the clips left out and the table of counts."""
    config = command_line(PhysicalAiConfig, argv, "alpamayo-mono build-physical-ai")
    report, left_out = build_physical_ai(config)
    for clip, reason in left_out.items():
        print(f"left out: {clip}: {reason}")
    return print_report(report, config.out)
