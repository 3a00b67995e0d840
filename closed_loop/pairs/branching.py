"""From one pose of the simulator, what each manner makes of it: futures the expert drives, and the texts of them.

Kart and expert are doubled and driven on for the horizon, so every future begins with the same pose, the same speed and
the same commands under way. What leaves the road, or does not do what it was asked, is no sample.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from closed_loop.control.off_track import beyond_edges
from closed_loop.course.course import Course
from closed_loop.simulator.expert import Disturbance, Expert
from closed_loop.simulator.manners import Errand
from closed_loop.simulator.pacing import is_due
from closed_loop.simulator.vehicle import Vehicle
from closed_loop.simulator.world import World
from collector.geometry.constants import FUTURE_STEPS, STEP_S
from collector.geometry.curvature import CurveThresholds
from collector.geometry.poses import FloatArray, to_ego
from collector.geometry.road import LocalRoad
from collector.reasoning.claims import Language
from collector.reasoning.consistency import Motion, measure_motion
from collector.reasoning.manner_writing import Refused, refusals, write_manner, write_refusal
from collector.reasoning.manners import Manner
from collector.ros.topics import CONTROL_HZ

# Every manner a frame is continued in. The usual one comes first: what is refused is driven like it.
MANNERS: tuple[Manner, ...] = (
    Manner(),
    Manner("middle"),
    Manner("left"),
    Manner("right"),
    Manner("racing"),
    Manner(pace="slow"),
    Manner(pace="brisk"),
    Manner("left", "slow"),
    Manner("right", "slow"),
    Manner("left", "brisk"),
    Manner("right", "brisk"),
    Manner(act="stop"),
    Manner(act="out left"),
    Manner(act="out right"),
)
OFF_ROAD = "left the road"
NOT_REACHED = "manner not reached within the window"
# Of the road ahead that a sample keeps: a little behind, and as far as the fastest future gets.
_BEHIND_M, _AHEAD_M = 4.0, 48.0


@dataclass(frozen=True, eq=False)
class Future:
    """One continuation of a frame."""

    manner: Manner
    refused: Refused | None  # what was asked and the road does not allow; the manner is then the usual one
    poses: FloatArray  # (64, 3) in the ego frame
    motion: Motion
    text: str


def stations_ahead(course: Course, station_m: float) -> FloatArray:
    """Every metre of the road ahead of a station, as far as there is a course."""
    stations = station_m + np.arange(-_BEHIND_M, _AHEAD_M, 1.0)
    return stations if course.closed else stations[(stations >= 0.0) & (stations <= course.length_m)]


def road_ahead(course: Course, station_m: float, pose_map: FloatArray, usual_mps: FloatArray) -> LocalRoad:
    """The course as a sample keeps it; ``usual_mps`` (N,) is the expert's speed at each of its points."""
    stations = stations_ahead(course, station_m)
    ego = to_ego(course.pose_at(stations), pose_map)
    widths = course.at(stations, course.width_left_m), course.at(stations, course.width_right_m)
    return LocalRoad(ego[:, :2], *widths, course.at(stations, usual_mps))


def drive_on(world: World, expert: Expert, manner: Manner) -> tuple[FloatArray, float]:
    """What the expert does from the world's present state in a manner, the world itself left as it is.

    Returns (64, 3) poses in the ego frame, and how far the outline reaches over an edge at most; negative on the road.
    """
    kart, driver, course = copy.deepcopy(world.vehicle), expert.twin(), world.course
    errand = Errand(manner, course, kart.state, world.station_m, world.time_s, vehicle=world.config.vehicle)
    poses, stations = _driven(kart, driver, errand, world)
    beyond = np.maximum(*beyond_edges(course, poses, stations, world.config.vehicle))
    return to_ego(poses, world.pose), float(beyond.max())


def _driven(kart: Vehicle, driver: Expert, errand: Errand, world: World) -> tuple[FloatArray, FloatArray]:
    hz, station = world.config.physics_hz, world.station_m
    each = round(STEP_S * hz)
    command, poses, stations = None, [], []
    for step in range(FUTURE_STEPS * each):
        time_s = world.time_s + step / hz
        if command is None or is_due(step, CONTROL_HZ, hz):
            otherwise: Disturbance = errand.at(kart.state, station, time_s)
            command = driver.command(kart.state, time_s, otherwise)
        state = kart.step(command.steer_rad, command.accel_mps2, 1.0 / hz)
        station = errand.course.follow(state.x_m, state.y_m, station)[0]
        if (step + 1) % each == 0:
            poses.append(state.pose)
            stations.append(station)
    return np.array(poses), np.array(stations)


def futures_of(
    world: World,
    expert: Expert,
    road: LocalRoad,
    seed: int,
    thresholds: CurveThresholds,
    language: Language,
    manners: Sequence[Manner] = MANNERS,
) -> Iterator[Future | str]:
    """Every continuation of the present frame, or the reason why there is none.

    Beside the usual one stands something that the road does not allow there, drawn by seed and answered.
    """
    for manner in manners:
        poses, beyond_m = drive_on(world, expert, manner)
        poses = np.round(poses, 6) + 0.0
        motion = measure_motion(poses, STEP_S, thresholds, road=road)
        if beyond_m > 0.0:
            yield OFF_ROAD
            continue
        text = write_manner(motion, manner, seed, thresholds, language)
        yield NOT_REACHED if text is None else Future(manner, None, poses, motion, text)
        if manner.is_usual and (ways := refusals(motion)):
            refused = random.Random(seed).choice(ways)
            said = write_refusal(motion, refused, seed, thresholds, language)
            yield Future(manner, refused, poses, motion, said)
