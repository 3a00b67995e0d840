"""Settings of a build, and its count of where every frame went."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from collector.curvature import CurveThresholds
from collector.errors import MonoError
from collector.stack import AWSIM_STATUS, ODOMETRY, VELOCITY_STATUS
from collector.tracks import TrackConfig


@dataclass(frozen=True)
class BuildConfig:
    """Cut recorded bags into samples of one front image, a thought and a path that agree.

    Attributes:
        bags: bag folders (metadata.yaml inside) or single .mcap / .db3 files.
        out: dataset folder to write.
        stride: use every n-th frame; 10 Hz frames with stride 5 give two samples a second.
        val_fraction: share of the driving kept for validation, by laps, with a guard band around it.
        seed: of the split and of the phrasing of the thoughts.
        reasoning: JSONL of texts to curate instead of writing our own: {"stamp_ns": .., "reasoning": "..",
            "bag": ".."} (bag is optional); frames without a text are rejected.
        calibration: YAML of `alpamayo-mono calibrate`; poses are then taken at each stamp minus its lag, the moment
            that the picture shows. Without one a picture is taken to show its stamp.
        image_topic: camera topic; by default our JPEG topic, else the raw one.
        odometry_topic: nav_msgs/Odometry with the pose of base_link in the map.
        velocity_topic: VelocityReport, used where the bag has it.
        status_topic: the simulator's status with the lap count, used where the bag has it.
        min_speed_mps: a frame whose kart is on average slower than this over the thought's window stands still.
        frame_tolerance_s: how far an older frame may lie from its ideal time.
        jpeg_quality: for frames recorded raw; recorded JPEG is kept byte for byte.
        track: what counts as one continuous motion, and smoothing of noisy poses.
        thresholds: of the curve labels and of the contradiction filter.
        overwrite: replace a dataset that is there already.
    """

    bags: tuple[Path, ...]
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    stride: int = 1
    val_fraction: float = 0.1
    seed: int = 0
    reasoning: Path | None = None
    calibration: Path | None = None
    image_topic: str | None = None
    odometry_topic: str = ODOMETRY.name
    velocity_topic: str = VELOCITY_STATUS.name
    status_topic: str = AWSIM_STATUS.name
    min_speed_mps: float = 0.5
    frame_tolerance_s: float = 0.06
    jpeg_quality: int = 95
    track: TrackConfig = field(default_factory=TrackConfig)
    thresholds: CurveThresholds = field(default_factory=CurveThresholds)
    overwrite: bool = False

    def __post_init__(self) -> None:
        if not self.bags:
            raise MonoError("no bag", "at least one bag folder", "name one: --bags FOLDER")
        if self.stride < 1:
            raise MonoError(f"a stride of {self.stride}", "1 or more", "use 1 for every frame")
        if not 0.0 <= self.val_fraction < 1.0:
            raise MonoError(
                f"a validation fraction of {self.val_fraction}", "from 0 to below 1", "use for example 0.1"
            )
        if not 1 <= self.jpeg_quality <= 100:
            raise MonoError(f"a JPEG quality of {self.jpeg_quality}", "1 to 100", "use for example 95")


@dataclass
class BuildReport:
    """Where every frame went.

    Attributes:
        seen: camera messages in the bags.
        kept: samples in ``metadata.jsonl``.
        quarantined: samples whose text and path disagree.
        rejected: the rest, by reason.
        labels, splits: of the kept samples.
    """

    seen: int = 0
    kept: int = 0
    quarantined: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)

    def keep(self, label: str, split: str) -> None:
        """Count one frame in."""
        self.kept += 1
        self.labels[label] = self.labels.get(label, 0) + 1
        self.splits[split] = self.splits.get(split, 0) + 1

    def reject(self, reason: str) -> None:
        """Count one frame out."""
        self.rejected[reason] = self.rejected.get(reason, 0) + 1

    def check_sum(self) -> None:
        """Raise if a frame was lost or counted twice; that would be a fault of ours."""
        total = self.kept + self.quarantined + sum(self.rejected.values())
        if total != self.seen:
            raise AssertionError(f"{self.seen} frames seen, {total} accounted for")

    def table(self) -> str:
        """The counts for a terminal; they add up to the frames seen."""
        rows = [("kept", self.kept), ("quarantined (text and path disagree)", self.quarantined)]
        rows += [(f"rejected: {reason}", count) for reason, count in sorted(self.rejected.items())]
        rows.append(("frames seen", self.seen))
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}  {count:>8}" for name, count in rows]
        lines.insert(-1, "-" * (width + 10))
        for title, counts in (("labels", self.labels), ("splits", self.splits)):
            lines.append(
                f"{title}: " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
            )
        return "\n".join(lines)
