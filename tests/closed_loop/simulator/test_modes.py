"""The end-to-end session: what it says differs from the development one's, as AWSIM's does."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from closed_loop.course.design import course_named
from closed_loop.simulator.camera import FRONT
from closed_loop.simulator.modes import MODES
from closed_loop.simulator.sensors import Sensors
from closed_loop.simulator.session import SessionStates
from closed_loop.simulator.vehicle import Vehicle
from closed_loop.simulator.world import World, config_of
from collector.vehicle.kart import Command
from collector.vehicle.model import KART


def test_pictures_come_every_105_ms() -> None:
    world = World(course_named("city"), 0, config_of("e2e"))
    sensors = Sensors(world, [FRONT])
    steps = [step for step in range(2000) if sensors.frame(step) is not None]
    stamps_ms = np.array(steps) * 1000.0 / world.config.physics_hz
    assert set(np.diff(stamps_ms)) == {105.0}


def test_heading_rates_are_garbage_now_and_then_and_the_rest_is_true() -> None:
    world = World(course_named("city"), 0, config_of("e2e"))
    world.reset(speed_mps=3.0, s_m=40.0)
    sensors = Sensors(world, [])
    reports = []
    for step in range(4000):
        if (report := sensors.wheels(step)) is not None:
            reports.append(report)
            assert report.speed_mps == world.speed_mps and report.tire_angle_rad == world.state.steer_rad
        world.step(Command(0.1, 0.0))
    wild = [each.heading_rate_radps for each in reports if not abs(each.heading_rate_radps) < 100.0]
    assert len(reports) == pytest.approx(600, abs=1) and 0.1 < len(wild) / len(reports) < 0.3
    assert {1256.0, -1256.0} < set(wild) and any(map(math.isnan, wild))


def test_the_development_session_says_the_truth() -> None:
    world = World(course_named("city"))
    assert world.config == config_of("dev") and world.config.vehicle == KART and world.config.physics_hz == 100.0
    report = Sensors(world, []).wheels(0)
    assert report is not None and math.isfinite(report.heading_rate_radps)


@pytest.mark.parametrize(("accel_mps2", "moves"), [(0.3, False), (0.39, False), (0.4, True), (0.6, True)])
def test_a_sticky_kart_moves_off_from_04_on(accel_mps2: float, moves: bool) -> None:
    vehicle = Vehicle(config_of("e2e").vehicle)
    for _ in range(400):
        vehicle.step(0.0, accel_mps2, 0.005)
    assert (vehicle.state.speed_mps > 0.3) == moves
    vehicle.place((0.0, 0.0, 0.0), 1.0)
    vehicle.step(0.0, 0.2, 0.005)
    assert vehicle.state.speed_mps >= 1.0, "once it rolls, less will do"


def test_wheels_answer_at_06_or_as_a_file_says() -> None:
    assert config_of("e2e").vehicle.steering_gain == 0.6
    odd = replace(KART, steering_gain=0.9, speed_scale=1.1, report_scale=0.8)
    given = config_of("e2e", odd).vehicle
    assert (given.steering_gain, given.sticks_below_mps2) == (0.9, MODES["e2e"].sticks_below_mps2)
    world = World(course_named("city"), 0, config_of("dev", odd))
    world.reset(speed_mps=3.0, s_m=40.0)
    report = Sensors(world, []).wheels(0)
    assert report is not None
    assert report.speed_mps * 1.1 == pytest.approx(3.0)
    assert report.tire_angle_rad * 0.8 == pytest.approx(world.state.steer_rad)


@pytest.mark.parametrize("dead_time_s", [0.1, 0.1234])
def test_a_dead_time_is_exact_whatever_the_step(dead_time_s: float) -> None:
    ends = []
    for step_s in (0.01, 0.001):
        vehicle = Vehicle(replace(KART, dead_time_s=dead_time_s, steer_rate_radps=100.0))
        for step in range(round(0.3 / step_s)):
            vehicle.step(0.5 if step * step_s < 0.2 - 1e-9 else -0.5, 0.0, step_s)
        ends.append(vehicle.state.steer_rad)
    assert ends[0] == pytest.approx(ends[1], abs=1e-9)


def said(states: SessionStates, seconds: float, laps_at_s: float = math.inf) -> list[tuple[float, str]]:
    return [
        (step / 10, name)
        for step in range(round(seconds * 10))
        if (name := states.update(step / 10, int(step / 10 >= laps_at_s)))
    ]


def test_a_grid_says_each_state_once_and_holds_the_kart_till_the_start() -> None:
    states = SessionStates(countdown_s=5.0, laps=1)
    assert said(states, 4.9) == [(0.0, "Spawned"), (1.0, "Grounded"), (2.0, "Ready")]
    assert states.held
    assert said(states, 8.0, 7.0)[-2:] == [(5.0, "Start"), (7.0, "Finish")]
    assert not states.held
    states.reset()
    assert states.update(20.0, 0) == "Spawned" and states.held


def test_without_a_countdown_it_starts_at_once() -> None:
    states = SessionStates()
    assert said(states, 3.0, 1.0) == [(0.0, "Start")] and not states.held
