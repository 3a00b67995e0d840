"""The states that a driving model comes to, and what becomes of each: a sample, a pair, or a reason why not."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np

from closed_loop.comparison.instructed import Script
from closed_loop.comparison.rollout import RolloutConfig, drive_many
from closed_loop.control.controller import ControllerConfig
from closed_loop.control.driver import DriverConfig
from closed_loop.course.course import Course
from closed_loop.dagger.choice import THINNED, Choice
from closed_loop.dagger.config import DaggerConfig
from closed_loop.dagger.watched import WatchedWorld
from closed_loop.pairs.branching import OFF_ROAD, Future, drive_on, futures_of, road_ahead
from closed_loop.pairs.moment import Moment, write_moment
from closed_loop.simulator.camera import FRONT
from closed_loop.simulator.expert import ExpertConfig
from collector.dataset.build_report import BuildReport
from collector.dataset.schema import DatasetWriter, Split
from collector.geometry.constants import FRAME_STEPS, STEP_S
from collector.geometry.poses import wrap_angle
from collector.geometry.road import LocalRoad
from collector.reasoning.consistency import measure_motion
from collector.reasoning.instructions import read_instruction
from collector.reasoning.manner_writing import write_manner
from collector.reasoning.manners import Manner
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
        road, config = None, self._config
        if self._told[world.name]:
            road = road_ahead(world.course, world.station_m, world.pose, world.expert.speed_mps)
        futures = (self._usual(world),) if road is None else self._futures(world, road)
        is_usable = any(isinstance(each, Future) for each in futures)
        seen = list(world.history)[-FRAME_STEPS:] if is_usable else []
        moment = Moment(
            world.lap,
            world.stamp_ns,
            np.array(world.history),
            world.speed_mps,
            road,
            futures,
            tuple(world.scene.render(FRONT, pose) for pose in seen),
        )
        write_moment(
            self._writer,
            report,
            moment,
            self._split,
            bag=world.name,
            thresholds=config.thresholds,
            jpeg_quality=config.jpeg_quality,
        )

    def _futures(self, world: WatchedWorld, road: LocalRoad) -> tuple[Future | str, ...]:
        """What the expert does as ever, with an answer to what the road does not allow, and what it does as told."""
        config = self._config
        said = [text for at_s, text in self._told[world.name] if at_s <= world.time_s]
        asked = read_instruction(said[-1] if said else "")
        manners = tuple(dict.fromkeys((Manner(), Manner(asked.line, asked.pace))))
        seed, language = self._seed(world), config.reasoning_language
        return tuple(futures_of(world, world.expert, road, seed, config.thresholds, language, manners))

    def _usual(self, world: WatchedWorld) -> Future | str:
        """What the expert does as ever, with nothing said of the road's edges."""
        config = self._config
        poses, beyond_m = drive_on(world, world.expert, Manner())
        if beyond_m > 0.0:
            return OFF_ROAD
        poses = np.round(poses, 6) + 0.0
        motion = measure_motion(poses, STEP_S, config.thresholds)
        text = write_manner(motion, Manner(), self._seed(world), config.thresholds, config.reasoning_language)
        return Future(Manner(), None, poses, motion, str(text))

    def _seed(self, world: WatchedWorld) -> int:
        """Of the words for a state."""
        return zlib.crc32(f"{self._config.seed}/{world.name}/{world.stamp_ns}".encode())
