"""Settings of a build: those of every source, and those of recorded bags."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from collector.common.cpu import default_workers
from collector.common.errors import MonoError
from collector.geometry.curvature import CurveThresholds
from collector.pose_tracks.tracks import TrackConfig
from collector.reasoning.claims import Language
from collector.ros.topics import AWSIM_STATUS, ODOMETRY, VELOCITY_STATUS


@dataclass(frozen=True)
class CurationConfig:
    """How samples are cut, labelled and chosen, whatever they come from."""

    stride: int = 1  # use every n-th frame; 10 Hz frames with stride 5 give two samples a second.
    # share of the driving kept for validation: laps with a guard band around them, or whole clips.
    val_fraction: float = 0.1
    seed: int = 0  # of the split and of the phrasing of the reasoning texts.
    # JSONL of texts to curate instead of writing our own: {"stamp_ns": .., "reasoning": "..", "bag": ".."} (bag is
    # optional, and the id of a clip); frames without a text are rejected.
    reasoning: Path | None = None
    reasoning_language: Language = "en"  # of the reasoning texts we write: en, as the released model speaks, or ja.
    # a frame whose kart is on average slower than this over the reasoning's window stands still.
    min_speed_mps: float = 0.5
    frame_tolerance_s: float = 0.06  # how far an older frame may lie from its ideal time.
    jpeg_quality: int = 95  # for frames recorded raw or as video; recorded JPEG is kept byte for byte.
    # what counts as one continuous motion, and smoothing of noisy poses.
    track: TrackConfig = field(default_factory=TrackConfig)
    # of the curve labels and of the contradiction filter. Roads bend less than kart courses: curve-curvature-1pm 0.01
    # takes bends of 100 m radius too.
    thresholds: CurveThresholds = field(default_factory=CurveThresholds)
    # level the training split by label and radius, by seed: straights and the commonest bends are thinned.
    balance: bool = False
    balance_ratio: float = 2.0  # a bin keeps at most this many times what the smallest bin has.
    # a bin with a smaller share of the training samples is kept whole and levels no other.
    balance_rare_share: float = 0.05
    overwrite: bool = False  # replace a dataset that is there already.

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise MonoError(f"a stride of {self.stride}", "1 or more", "use 1 for every frame")
        if not 0.0 <= self.val_fraction < 1.0:
            raise MonoError(f"a validation fraction of {self.val_fraction}", "from 0 to below 1", "use for example 0.1")
        if not (self.balance_ratio >= 1.0 and 0.0 <= self.balance_rare_share < 1.0):
            found = f"a balance ratio of {self.balance_ratio} and a rare share of {self.balance_rare_share}"
            raise MonoError(found, "a ratio of 1 or more, a share from 0 to below 1", "use for example 2 and 0.05")
        if not 1 <= self.jpeg_quality <= 100:
            raise MonoError(f"a JPEG quality of {self.jpeg_quality}", "1 to 100", "use for example 95")


@dataclass(frozen=True)
class _Bags:
    """What every build of bags names; a base class of its own, so that it comes first."""

    bags: tuple[Path, ...]  # bag folders (metadata.yaml inside) or single .mcap / .db3 files.
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]  # dataset folder to write.


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
    # threads that compress raw frames and check recorded ones; the dataset is the same for any number.
    workers: int = field(default_factory=default_workers)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.bags:
            raise MonoError("no bag", "at least one bag folder", "name one: --bags FOLDER")
        if self.workers < 1:
            raise MonoError(f"{self.workers} workers", "1 or more", "leave --workers out to use every core")
