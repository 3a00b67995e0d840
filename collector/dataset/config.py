"""Settings of a build: those of every source, and those of recorded bags."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from collector.common.arguments import MOST_SEED, OUT, Arguments, argument
from collector.common.cpu import default_workers
from collector.common.errors import MonoError
from collector.geometry.curvature import CurveThresholds
from collector.pose_tracks.tracks import TrackConfig
from collector.reasoning.claims import Language
from collector.ros.topics import AWSIM_STATUS, ODOMETRY, VELOCITY_STATUS


@dataclass(frozen=True)
class CurationConfig(Arguments):
    """How samples are cut, labelled and chosen, whatever they come from."""

    stride: int = argument(1, "use every n-th frame; 10 Hz frames with stride 5 give two samples a second", 1, 100_000)
    val_fraction: float = argument(
        0.1, "share of the driving kept for validation: laps with a guard band around them, or whole clips", 0.0, 0.99
    )
    seed: int = argument(0, "of the split and of the phrasing of the reasoning texts", 0, MOST_SEED)
    # JSONL of texts to curate instead of writing our own: {"stamp_ns": .., "reasoning": "..", "bag": ".."} (bag is
    # optional, and the id of a clip); frames without a text are rejected.
    reasoning: Path | None = None
    reasoning_language: Language = "en"  # of the reasoning texts we write: en, as the released model speaks, or ja.
    min_speed_mps: float = argument(
        0.5, "a frame whose kart is on average slower than this over the reasoning's window stands still", 0.0, 100.0
    )
    frame_tolerance_s: float = argument(0.06, "how far an older frame may lie from its ideal time", 0.0, 10.0)
    jpeg_quality: int = argument(95, "for frames recorded raw or as video; recorded JPEG is kept byte for byte", 1, 100)
    # what counts as one continuous motion, and smoothing of noisy poses.
    track: TrackConfig = field(default_factory=TrackConfig)
    # of the curve labels and of the contradiction filter. Roads bend less than kart courses: curve-curvature-1pm 0.01
    # takes bends of 100 m radius too.
    thresholds: CurveThresholds = field(default_factory=CurveThresholds)
    # level the training split by label and radius, by seed: straights and the commonest bends are thinned.
    balance: bool = False
    balance_ratio: float = argument(
        2.0, "a bin keeps at most this many times what the smallest bin has", 1.0, 1000000.0
    )
    balance_rare_share: float = argument(
        0.05, "a bin with a smaller share of the training samples is kept whole and levels no other", 0.0, 0.99
    )
    overwrite: bool = False  # replace a dataset that is there already.


@dataclass(frozen=True)
class _Bags:
    """What every build of bags names; a base class of its own, so that it comes first."""

    bags: tuple[Path, ...]  # bag folders (metadata.yaml inside) or single .mcap / .db3 files.
    out: Annotated[Path, OUT]  # dataset folder to write.


@dataclass(frozen=True)
class BuildConfig(CurationConfig, _Bags):
    """Cut recorded bags into samples of one front image, a reasoning and a path that agree."""

    # YAML of `alpamayo-mono calibrate`; poses are then taken at each stamp minus its lag, the moment that the picture
    # shows. Without one a picture is taken to show its stamp.
    calibration: Path | None = None
    image_topic: str | None = None  # camera topic; by default our JPEG topic, else the raw one.
    # the pose of base_link in the map: nav_msgs/Odometry, or geometry_msgs/PoseStamped or PoseWithCovarianceStamped.
    odometry_topic: str = ODOMETRY.name
    velocity_topic: str = VELOCITY_STATUS.name  # VelocityReport, used where the bag has it.
    status_topic: str = AWSIM_STATUS.name  # the simulator's status with the lap count, used where the bag has it.
    workers: int = argument(
        default_workers(),
        "threads that compress raw frames and check recorded ones; the dataset is the same for any number",
        1,
        1024,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.bags:
            raise MonoError("no bag", "at least one bag folder", "name one: --bags FOLDER")
