"""``alpamayo-mono calibrate``: the camera's time offset against the pose and its pitch, from a recorded bag.

The image's rotation from frame to frame is laid over the odometry's, at the time offset where they correlate best; the
pitch is read off the vanishing point of the flow on straights. What the bag cannot tell is not written.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from collector.bags.reader import open_bag
from collector.calibration.fit import FitLimits, PitchFit, TimeOffsetFit, fit_pitch, fit_time_offset
from collector.calibration.model import DEFINITION, Calibration, describe, write_calibration
from collector.calibration.pairs import RUN_FRAMES, Findings, read_pairs
from collector.common.errors import MonoError, require
from collector.common.run_folder import command_line, hash_path
from collector.pose_tracks.recording import require_odometry
from collector.pose_tracks.tracks import TrackConfig, build_track
from collector.ros.topics import ODOMETRY

CALIBRATION_FILE, PLOT_FILE = "calibration.yaml", "calibration.png"


@dataclass(frozen=True)
class CalibrateConfig:
    """Estimate the camera's time offset and pitch from a recorded bag; see the plot before you trust it.

    Attributes:
        bag: bag folder (metadata.yaml inside) or single .mcap / .db3 file.
        out: folder for calibration.yaml and calibration.png; existing ones are replaced.
        image_topic: camera topic; by default our JPEG topic, else the raw one.
        odometry_topic: nav_msgs/Odometry with the pose of base_link in the map.
        camera_info_topic: CameraInfo with the intrinsics, used where --hfov-deg is not given; by default camera_info
            beside the camera topic, where the bag has it.
        hfov_deg: horizontal field of view of an undistorted camera, in place of CameraInfo; 90 where neither is there.
        max_frames: of a longer bag, so many frames spread over its whole length are looked at.
        min_speed_mps: slower frames are passed over.
        track: what counts as one continuous motion; noise in the yaw, which hides when a turn began, is cleaned away.
        limits: when the bag tells enough.
    """

    bag: tyro.conf.Positional[Path]
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    image_topic: str | None = None
    odometry_topic: str = ODOMETRY.name
    camera_info_topic: str | None = None
    hfov_deg: float | None = None
    max_frames: int = 3000
    min_speed_mps: float = 1.0
    track: TrackConfig = field(default_factory=TrackConfig)
    limits: FitLimits = field(default_factory=FitLimits)

    def __post_init__(self) -> None:
        if self.max_frames < 2 * RUN_FRAMES:
            raise MonoError(f"max_frames = {self.max_frames}", f"at least {2 * RUN_FRAMES}", "raise it")


def calibrate_bag(config: CalibrateConfig, show_progress: bool = True) -> Findings:
    """Estimate time offset and pitch from a bag.

    Raises:
        MonoError: no such bag, or it lacks camera or odometry; or it can tell neither time offset nor pitch.
    """
    limits = config.limits
    with open_bag(config.bag) as bag:
        topic = bag.image_topic(config.image_topic)
        require_odometry(bag, config.odometry_topic)
        track = build_track(bag.odometry(config.odometry_topic), config.track)
        pairs = read_pairs(
            bag,
            topic,
            config.camera_info_topic,
            config.hfov_deg,
            track,
            limits,
            config.max_frames,
            config.min_speed_mps,
            show_progress,
        )
    refused: list[str] = []
    offset: TimeOffsetFit | None = None
    pitch: PitchFit | None = None
    try:
        straight = pairs.straight
        pitch = fit_pitch(pairs.start_ns[straight], pairs.pitches_rad[straight], limits)
    except MonoError as error:
        refused.append(str(error))
    try:
        turns = pairs.image_turn_rad(0.0 if pitch is None else pitch.pitch_rad)
        offset = fit_time_offset(pairs.start_ns, pairs.seconds, turns, pairs.odometry_turn_rad, limits)
    except MonoError as error:
        refused.append(str(error))
    if pitch is None and offset is None:
        passed = ", ".join(f"{why}: {count}" for why, count in sorted(pairs.passed_over.items()))
        raise MonoError(" ".join(refused) + f" Of {pairs.frames} frames passed over: {passed or 'none'}")
    calibration = Calibration(
        DEFINITION,
        lag_s=None if offset is None else round(offset.offset_s, 5),
        lag_sd_s=None if offset is None else round(offset.sd_s, 5),
        pitch_rad=None if pitch is None else round(pitch.pitch_rad, 5),
        pitch_sd_rad=None if pitch is None else round(pitch.sd_rad, 5),
        correlation=None if offset is None else round(offset.correlation, 4),
        turn_ratio=None if offset is None else round(offset.ratio, 4),
        lag_pairs=0 if offset is None else offset.pairs,
        pitch_pairs=0 if pitch is None else len(pitch.pitches_rad),
        frames=pairs.frames,
        intrinsics=pairs.intrinsics,
        bag=Path(config.bag).resolve().name,
        bag_sha256=hash_path(config.bag) or "",
    )
    return Findings(calibration, pairs, offset, pitch, tuple(refused))


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; 1 when only one of the two could be told."""
    config = command_line(CalibrateConfig, argv, "alpamayo-mono calibrate")
    require("matplotlib", "report")
    from collector.calibration.plot import write_plot

    findings = calibrate_bag(config)
    config.out.mkdir(parents=True, exist_ok=True)
    write_plot(config.out / PLOT_FILE, findings)
    write_calibration(config.out / CALIBRATION_FILE, findings.calibration)
    print(f"{describe(findings.calibration)}; lens: {findings.pairs.intrinsics.source}")
    print(f"calibration: {config.out / CALIBRATION_FILE}; what was fitted: {config.out / PLOT_FILE}")
    for why in findings.refused:
        print(f"left out: {why}", file=sys.stderr)
    return 1 if findings.refused else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MonoError as error:
        sys.exit(f"calibrate: {error}")
