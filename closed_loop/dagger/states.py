"""The states that a driving model comes to, and what becomes of each: a sample, a pair, or a reason why not."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Any

import numpy as np

from closed_loop.comparison.instructed import Script
from closed_loop.comparison.rollout import RolloutConfig, drive_many
from closed_loop.control.controller import ControllerConfig
from closed_loop.control.driver import DriverConfig
from closed_loop.course.course import Course
from closed_loop.dagger.choice import THINNED, Choice
from closed_loop.dagger.config import DaggerConfig
from closed_loop.dagger.watched import WatchedWorld
from closed_loop.pairs.branching import OFF_ROAD, drive_on, futures_of, road_ahead
from closed_loop.pairs.moment import Moment, write_moment
from closed_loop.simulator.camera import FRONT
from closed_loop.simulator.expert import ExpertConfig
from collector.dataset.build_report import BuildReport
from collector.dataset.sample import judged_sample
from collector.dataset.schema import DatasetWriter, Sample, Split, image_name
from collector.geometry.constants import FRAME_STEPS, HISTORY_STEPS, STEP_NS, STEP_S
from collector.geometry.poses import FloatArray, to_ego, wrap_angle
from collector.reasoning.consistency import measure_motion
from collector.reasoning.instructions import read_instruction
from collector.reasoning.manner_writing import write_manner
from collector.reasoning.manners import Manner
from collector.ros.images import encode_jpeg
from finetune.policy import Policy

SLOW = "as slow as a start"


class States:
    """Takes the states of the drives on one course to the dataset."""

    def __init__(
        self, config: DaggerConfig, choice: Choice, writer: DatasetWriter, report: BuildReport, split: Split
    ) -> None:
        self._config, self._choice, self._writer, self._report = config, choice, writer, report
        self._split: Split = split
        self._told: dict[str, tuple[tuple[float, str], ...]] = {}  # what each drive is told, and from when on

    def drive(self, course: Course, number: int, expert: ExpertConfig, policy: Policy) -> list[str]:
        """Drive a course from every start; returns what the drives are called."""
        starts = self._config.starts if course.closed else 1
        names = [f"dagger-{number + 1}-{start + 1}" for start in range(starts)]
        worlds = [WatchedWorld(name, course, self._config.seed + number, expert, self._look) for name in names]
        usual = RolloutConfig(laps=self._config.laps, vehicle=expert.vehicle)
        driver = replace(usual.driver, controller=ControllerConfig.of(expert.vehicle, None))
        places = [course.length_m * start / starts if course.closed else 0.0 for start in range(starts)]
        drives = [replace(usual, driver=driver, start_s_m=place_m) for place_m in places]
        if words := self._config.script_words:
            script = Script(words, self._config.hold_s, self._config.pause_s)
            drives = [script.drive(each, start, starts) for start, each in enumerate(drives)]
        self._told = {name: each.instructions for name, each in zip(names, drives, strict=True)}
        getattr(policy, "forget", lambda: None)()
        drive_many(worlds, policy, drives)
        return names

    def _look(self, world: WatchedWorld) -> None:
        """Let the expert drive on from a state, where it is worth a sample."""
        report = self._report
        report.seen += 1
        if world.speed_mps < DriverConfig.rolling_start_mps:
            # The driver shows the model another history then.
            report.reject(SLOW)
            return
        line_yaw = world.course.follow(world.state.x_m, world.state.y_m, world.station_m)[2]
        heading_rad = float(wrap_angle(world.state.yaw_rad - line_yaw))
        kind = self._choice.kind(world.course, world.station_m, world.lateral_m, heading_rad)
        if not self._choice.takes(world.name, world.stamp_ns, kind):
            report.reject(f"{THINNED}: {kind}")
            return
        if self._told[world.name]:
            self._write_pair(world)
            return
        poses, beyond_m = drive_on(world, world.expert, Manner())
        if beyond_m > 0.0:
            report.reject(OFF_ROAD)
            return
        sample, verdict = self._judged(world, poses)
        self._add_pictures(world)
        if verdict is None:
            self._writer.write(sample)
            report.keep(sample)
        else:
            self._writer.quarantine(sample, verdict)
            report.quarantined += 1

    def _write_pair(self, world: WatchedWorld) -> None:
        """What the expert does as ever, with an answer to what the road does not allow, and what it does as told."""
        config = self._config
        said = [text for at_s, text in self._told[world.name] if at_s <= world.time_s]
        asked = read_instruction(said[-1] if said else "")
        manners = dict.fromkeys((Manner(), Manner(asked.line, asked.pace)))
        expert = world.expert
        road = road_ahead(world.course, world.station_m, world.pose, expert.speed_mps)
        seed, language = self._seed(world), config.reasoning_language
        futures = futures_of(world, expert, road, seed, config.thresholds, language, tuple(manners))
        moment = Moment(
            world.lap,
            world.stamp_ns,
            np.array(world.history),
            world.speed_mps,
            road,
            tuple(futures),
            tuple(world.scene.render(FRONT, pose) for pose in list(world.history)[-FRAME_STEPS:]),
        )
        self._report.seen -= 1  # counted by the look and by the pair
        write_moment(
            self._writer,
            self._report,
            moment,
            self._split,
            bag=world.name,
            thresholds=config.thresholds,
            jpeg_quality=config.jpeg_quality,
        )

    def _seed(self, world: WatchedWorld) -> int:
        """Of the words for a state."""
        return zlib.crc32(f"{self._config.seed}/{world.name}/{world.stamp_ns}".encode())

    def _judged(self, world: WatchedWorld, future: FloatArray) -> tuple[Sample, dict[str, Any] | None]:
        config, stamp_ns = self._config, world.stamp_ns
        poses = np.concatenate([to_ego(np.array(world.history), world.pose), future])
        poses = np.round(poses, 6) + 0.0
        motion = measure_motion(poses[HISTORY_STEPS:], STEP_S, config.thresholds)
        text = write_manner(motion, Manner(), self._seed(world), config.thresholds, config.reasoning_language)
        names = tuple(image_name(world.name, stamp) for stamp in _stamps(world))
        facts = {
            "file_name": names[-1], "frames": names, "id": f"{world.name}_{stamp_ns}", "bag": world.name,
            "lap": world.lap, "stamp_ns": stamp_ns, "speed_mps": round(world.speed_mps, 6), "split": self._split,
        }  # fmt: skip
        return judged_sample(facts, poses, motion, str(text), config.thresholds)

    def _add_pictures(self, world: WatchedWorld) -> None:
        for stamp_ns, pose in zip(_stamps(world), list(world.history)[-FRAME_STEPS:], strict=True):
            bgr = np.ascontiguousarray(world.scene.render(FRONT, pose)[:, :, ::-1])
            self._writer.add_image(world.name, stamp_ns, encode_jpeg(bgr, self._config.jpeg_quality))


def _stamps(world: WatchedWorld) -> list[int]:
    """Of the last four frames."""
    return [world.stamp_ns - back * STEP_NS for back in reversed(range(FRAME_STEPS))]
