"""``alpamayo-mono pairs``: a dataset of counterfactual pairs from the simulator, without ROS.

The expert drives courses in drawn manners, as in a recording; of chosen frames the picture and the history are kept,
and from that very pose it drives on in every manner the road allows.
"""

from __future__ import annotations

import random
import sys
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import numpy as np

from closed_loop.course.design import course_named, listed_courses
from closed_loop.pairs.branching import MANNERS, futures_of, road_ahead
from closed_loop.pairs.moment import Moment, write_moment
from closed_loop.simulator.camera import FRONT
from closed_loop.simulator.expert import ExpertConfig, ExpertPool
from closed_loop.simulator.manners import MannerDriver
from closed_loop.simulator.pacing import is_due
from closed_loop.simulator.world import World, WorldConfig
from collector.calibration.intrinsics import camera_block
from collector.common.arguments import OUT, Arguments, argument, same_as
from collector.common.command_line import command_line
from collector.common.errors import MonoError
from collector.common.tables import progress
from collector.dataset.build_report import BuildReport
from collector.dataset.builder import finish_dataset, print_report
from collector.dataset.config import CurationConfig
from collector.dataset.schema import DatasetWriter
from collector.geometry.constants import FRAME_STEPS, HISTORY_STEPS, NS_PER_S, STEP_NS
from collector.geometry.curvature import CurveThresholds
from collector.geometry.poses import FloatArray
from collector.reasoning.claims import Language
from collector.reasoning.places import DEFAULT_MANNER_THRESHOLDS
from collector.ros.parameters import DRAWN_MANNER, SimulatorParameters
from collector.ros.topics import CONTROL_HZ

BAG = "pairs"  # what its samples call their recording
_STRETCH_S = 15.0  # after which the kart is placed elsewhere
_SLOWEST_MPS = 1.0  # a kart that stands has but one future


@dataclass(frozen=True)
class _Out:
    """What is named first."""

    out: Annotated[Path, OUT]  # dataset folder to write.


@dataclass(frozen=True)
class PairsConfig(Arguments, _Out):
    """Make counterfactual pairs in the simulator: one frame, several futures, each with the text that belongs to it.

    The expert drives on from the very pose of a frame: on either side, in the middle, on the racing line, slowly,
    briskly, to a stop before a mark, out and back. What the road does not allow is answered by a text that takes it
    back. No ROS is needed. Example: alpamayo-mono pairs --out runs/pairs --frames 400
    """

    courses: str = argument(
        "random:1,random:2,random:3,random:4,random:5,random:6",
        "comma-separated courses, in turn; as record takes them",
    )
    frames: int = argument(200, "how many frames to continue", 1, 1_000_000)
    futures: int = argument(8, "manners tried at each frame, the usual one among them", 2, len(MANNERS))
    every_s: float = argument(1.0, "simulated seconds between two frames", 0.1, 10.0)
    seed: int = same_as(CurationConfig, "seed")
    val_fraction: float = same_as(CurationConfig, "val_fraction")
    max_speed_mps: float = same_as(SimulatorParameters, "max_speed_mps")
    image_width: int = same_as(SimulatorParameters, "image_width")
    image_height: int = same_as(SimulatorParameters, "image_height")
    jpeg_quality: int = same_as(CurationConfig, "jpeg_quality")
    reasoning_language: Language = CurationConfig.reasoning_language  # of the reasoning texts: en or ja.
    thresholds: CurveThresholds = field(default_factory=CurveThresholds)  # as of build.
    overwrite: bool = False  # replace a dataset that is there already.

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.course_names:
            raise MonoError("no course", "at least one course", "name one: --courses city")

    @property
    def course_names(self) -> list[str]:
        """Each by itself."""
        return listed_courses(self.courses)


def moments(config: PairsConfig) -> Iterator[Moment]:
    """Drive, and stop at every frame that is asked for to look what could come."""
    world = World([course_named(name) for name in config.course_names], config.seed, WorldConfig(episode_s=_STRETCH_S))
    experts, manners = ExpertPool(ExpertConfig(max_speed_mps=config.max_speed_mps)), MannerDriver(world, DRAWN_MANNER)
    camera = replace(FRONT, width_px=config.image_width, height_px=config.image_height)
    draw = random.Random(config.seed)
    hz = world.config.physics_hz
    history: deque[FloatArray] = deque(maxlen=HISTORY_STEPS)
    episode, step, next_s, command = -1, 0, 0.0, None
    while True:
        if world.episode != episode:
            episode = world.episode
            history.clear()
            experts.for_course(world.course).reset()
            command, next_s = None, world.time_s + HISTORY_STEPS * STEP_NS / NS_PER_S
        expert = experts.for_course(world.course)
        if is_due(step, NS_PER_S / STEP_NS, hz):
            history.append(world.pose)
            if len(history) == HISTORY_STEPS and world.time_s >= next_s and world.speed_mps > _SLOWEST_MPS:
                next_s = world.time_s + config.every_s
                road = road_ahead(world.course, world.station_m, world.pose, expert.speed_mps)
                asked = [MANNERS[0], *draw.sample(MANNERS[1:], config.futures - 1)]
                stamp_ns = round(world.time_s * NS_PER_S)
                seed = zlib.crc32(f"{config.seed}/{BAG}/{stamp_ns}".encode())
                found = futures_of(world, expert, road, seed, config.thresholds, config.reasoning_language, asked)
                pictures = tuple(world.scene.render(camera, pose) for pose in list(history)[-FRAME_STEPS:])
                yield Moment(episode, stamp_ns, np.array(history), world.speed_mps, road, tuple(found), pictures)
        if command is None or is_due(step, CONTROL_HZ, hz):
            command = expert.command(world.state, world.time_s, manners.now())
        world.step(command)
        step += 1


def make_pairs(config: PairsConfig, show_progress: bool = True) -> BuildReport:
    """Write the dataset (MonoError: an unknown course, or a folder that is in use)."""
    report = BuildReport()
    per_stretch = max(1, int((_STRETCH_S - HISTORY_STEPS * STEP_NS / NS_PER_S) / config.every_s))
    stretches = max(1, -(-config.frames // per_stretch))
    count = min(max(1, round(config.val_fraction * stretches)), stretches - 1) if config.val_fraction > 0.0 else 0
    # Whole stretches, between which the kart is put elsewhere: no pair and no drive is parted.
    validation = set(random.Random(config.seed).sample(range(stretches), count))
    camera = replace(FRONT, width_px=config.image_width, height_px=config.image_height)
    with DatasetWriter(config.out, config.overwrite) as writer:
        found = moments(config)
        for _ in progress(range(config.frames), "pairs", "frame", show=show_progress):
            moment = next(found)
            report.seen += 1
            write_moment(
                writer,
                report,
                moment,
                "val" if moment.stretch in validation else "train",
                bag=BAG,
                thresholds=config.thresholds,
                jpeg_quality=config.jpeg_quality,
            )
        known = {
            "topic": "", "frame_id": "", "width": camera.width_px, "height": camera.height_px,
            "K": camera.K.ravel().tolist(), "distortion_model": "plumb_bob", "D": [],
        }  # fmt: skip
        facts = {
            "made_by": "alpamayo_mono closed_loop.pairs.command",
            "bags": [{"name": BAG, "sha256": None}],
            "calibration": None,
            "camera": camera_block({BAG: known}),
            "manner_thresholds": vars(DEFAULT_MANNER_THRESHOLDS),
            "validation": sorted(validation),
            "poses": "[x_m, y_m, yaw_rad] in the ego frame at t0 = stamp_ns, x forward, y left",
        }
        finish_dataset(writer, config, report, facts, private=("out", "overwrite"))
    return report


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; prints the table of counts."""
    config = command_line(PairsConfig, argv, "alpamayo-mono pairs")
    try:
        report = make_pairs(config)
    except KeyboardInterrupt:
        print(f"pairs: stopped; {config.out} is as it was before", file=sys.stderr)
        raise
    return print_report(report, config.out)
