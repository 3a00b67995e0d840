"""A frame of a simulated drive with its several futures, and how it becomes samples of one pair."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from closed_loop.pairs.branching import Future
from collector.dataset.build_report import BuildReport
from collector.dataset.sample import judged_sample
from collector.dataset.schema import DatasetWriter, Split, image_name
from collector.geometry.constants import FRAME_STEPS, STEP_NS
from collector.geometry.curvature import CurveThresholds
from collector.geometry.poses import FloatArray, to_ego
from collector.geometry.road import LocalRoad
from collector.reasoning.manners import Manner
from collector.ros.images import encode_jpeg


@dataclass(frozen=True, eq=False)
class Moment:
    """A frame of a drive, and what its futures are made of."""

    stretch: int
    stamp_ns: int
    poses_map: FloatArray  # (16, 3) the last 1.5 s
    speed_mps: float
    road: LocalRoad | None  # ahead; None for a moment of one future, which is a sample alone and tells no manner
    futures: tuple[Future | str, ...]  # or the reason why there is none
    pictures: tuple[NDArray[np.uint8], ...]  # the last four, RGB


def write_moment(
    writer: DatasetWriter,
    report: BuildReport,
    moment: Moment,
    split: Split,
    *,
    bag: str,
    thresholds: CurveThresholds,
    jpeg_quality: int,
) -> None:
    """Write each future as a sample of a pair, or as one alone, and the pictures where one is usable; count them all.

    ``bag`` is what the samples call their drive; its moments have stamps of their own.
    """
    stamps = [moment.stamp_ns - back * STEP_NS for back in reversed(range(FRAME_STEPS))]
    names = tuple(image_name(bag, stamp_ns) for stamp_ns in stamps)
    history = np.round(to_ego(moment.poses_map, moment.poses_map[-1]), 6) + 0.0
    pair = f"{bag}_{moment.stamp_ns}"
    is_written = False
    report.paired += len(moment.futures) - 1
    for number, future in enumerate(moment.futures):
        if isinstance(future, str):
            report.reject(future)
            continue
        sample_id = pair
        told: tuple[()] | tuple[Manner, LocalRoad, str] = ()
        if moment.road is not None:
            sample_id, told = f"{pair}~{number}", (future.manner, moment.road, pair)
        facts = {
            "file_name": names[-1], "frames": names, "id": sample_id, "bag": bag, "lap": moment.stretch,
            "stamp_ns": moment.stamp_ns, "speed_mps": round(moment.speed_mps, 6), "split": split,
        }  # fmt: skip
        poses = np.concatenate([history, future.poses])
        sample, verdict = judged_sample(facts, poses, future.motion, future.text, thresholds, *told)
        if verdict is None:
            writer.write(sample)
            report.keep(sample)
        else:
            writer.quarantine(sample, verdict)
            report.quarantined += 1
        is_written = True
    if is_written:
        for stamp_ns, picture in zip(stamps, moment.pictures, strict=True):
            bgr = np.ascontiguousarray(picture[:, :, ::-1])
            writer.add_image(bag, stamp_ns, encode_jpeg(bgr, jpeg_quality))
