"""The expert in manners: it keeps the line and the pace it was asked for, on the road, and says so."""

from __future__ import annotations

import numpy as np
import pytest

from closed_loop.control.off_track import OffTrackMonitor
from closed_loop.course.course import Course
from closed_loop.course.design import course_named
from closed_loop.course.racing_line import racing_line
from closed_loop.ros.config import SIMULATE_NODE
from closed_loop.simulator.expert import Expert
from closed_loop.simulator.manners import MannerDriver
from closed_loop.simulator.world import World
from collector.common.errors import MonoError
from collector.reasoning.manners import read_manner
from collector.ros.parameters import DRAWN_MANNER, SimulateConfig, parameter_values


def driven(asked: str, seconds: float, course: Course | None = None, seed: int = 3) -> np.ndarray:
    """(N, 4) at 10 Hz, from the tenth second on: lateral, speed, how far over an edge, station."""
    world = World(course or course_named("city"), seed)
    expert, manners = Expert(world.course), MannerDriver(world, asked)
    monitor, rows = OffTrackMonitor(world.course), []
    command = expert.command(world.state, 0.0, manners.now())
    for step in range(round(seconds * 100)):
        if step % 3 == 0:
            command = expert.command(world.state, world.time_s, manners.now())
        world.step(command)
        if step % 10 == 0:
            monitor.update(round(world.time_s * 1e9), world.pose)
            rows.append((world.lateral_m, world.speed_mps, monitor.beyond_m, world.station_m))
    return np.array(rows)[100:]


@pytest.mark.parametrize("course", ["city", "random:7"])
def test_drawn_manners_stay_on_the_road(course: str) -> None:
    rows = driven(DRAWN_MANNER, 90.0, course_named(course))
    assert rows[:, 2].max() < -0.1
    assert rows[:, 0].max() > 1.0 and rows[:, 0].min() < -1.0 and rows[:, 1].max() > 5.5 and rows[:, 1].min() < 0.1


@pytest.mark.parametrize(("asked", "sign"), [("left", 1.0), ("right", -1.0), ("middle", 0.0)])
def test_a_side_is_kept(asked: str, sign: float) -> None:
    lateral = driven(asked, 40.0)[:, 0]
    assert np.all(sign * lateral > 0.8) if sign else np.all(np.abs(lateral) < 0.15)


def test_paces_differ_and_a_mark_is_stopped_at() -> None:
    slow, usual, brisk = (driven(asked, 30.0)[:, 1].mean() for asked in ("slow", "usual", "brisk"))
    assert slow < 0.7 * usual and brisk > 1.15 * usual
    world = World(course_named("city"), 3)
    world.reset(20.0, speed_mps=4.0)
    expert, manners = Expert(world.course), MannerDriver(world, "stop")
    began_m, speeds = world.station_m, []
    for _ in range(600):
        errand = manners.errand
        command = expert.command(world.state, world.time_s, errand.at(world.state, world.station_m, world.time_s))
        world.step(command)
        speeds.append(world.speed_mps)
        if errand.is_over:
            break
    assert errand.is_over and max(speeds[250:]) < 0.3
    assert 4.0 < world.station_m - began_m < 8.0


def test_the_racing_line_bends_less_and_stays_on_the_road() -> None:
    course = course_named("city")
    offsets = racing_line(course, 1.0)
    line = Course("line", course.pose_at(course.s_m, offsets)[:, :2], True, 1.0, 1.0)

    def bending(of: Course) -> float:
        return float(np.mean(of.curvature_1pm**2) * of.length_m)

    assert bending(line) < 0.8 * bending(course) and line.length_m < course.length_m
    assert np.all(offsets <= course.width_left_m - 1.0) and np.all(offsets >= 1.0 - course.width_right_m)
    assert np.abs(racing_line(course_named("city-mirror"), 1.0) + offsets).max() < 0.05


def test_manners_are_said_in_words_that_are_read_again_and_change_within_a_drive() -> None:
    world = World(course_named("city"), 5)
    expert, manners = Expert(world.course), MannerDriver(world, DRAWN_MANNER)
    said = []
    for step in range(6000):
        if step % 3 == 0:
            command = expert.command(world.state, world.time_s, manners.now())
        world.step(command)
        if not said or manners.errand.message != said[-1]:
            said.append(manners.errand.message)
    assert len(said) >= 6 and all("lateral_m=" in words and "speed_scale=" in words for words in said)
    assert len({read_manner(words).words for words in said}) >= 4


def test_an_empty_manner_drives_as_ever_and_a_wrong_one_is_refused() -> None:
    assert SimulateConfig().manner == "" and parameter_values(SIMULATE_NODE, SimulateConfig())["manner"] == ""
    assert SimulateConfig(manner="right slow").manner == "right slow"
    with pytest.raises(MonoError, match="lefft"):
        SimulateConfig(manner="lefft")
    with pytest.raises(MonoError, match="without the expert"):
        SimulateConfig(manner="left", expert=False)
