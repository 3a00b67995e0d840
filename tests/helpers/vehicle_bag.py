"""Drives of the expert in a kart of known numbers, written as bags of what the kart hears and says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from closed_loop.course.design import course_named
from closed_loop.simulator.expert import ExpertConfig, ExpertPool
from closed_loop.simulator.pacing import is_due
from closed_loop.simulator.sensors import Sensors
from closed_loop.simulator.world import World, config_of
from collector.bags.reader import typestore
from collector.bags.writer import BagWriter
from collector.ros.topics import CONTROL_CMD, CONTROL_HZ, ODOMETRY, STEERING_STATUS, VELOCITY_STATUS, Topic
from collector.vehicle.model import VehicleModel
from tests.helpers.synthetic_bag import SECOND, START_NS, odometry_cdr

# White, of each report.
STEERING_NOISE_RAD, SPEED_NOISE_MPS, POSITION_NOISE_M, YAW_NOISE_RAD = 0.002, 0.02, 0.01, 0.002


def write_vehicle_bag(
    folder: Path,
    vehicle: VehicleModel,
    *,
    course: str = "city",
    seconds: float = 60.0,
    seed: int = 0,
    topics: tuple[Topic, ...] = (CONTROL_CMD, STEERING_STATUS, VELOCITY_STATUS, ODOMETRY),
    stamped: bool = True,
) -> Path:
    """Record a lap with recoveries: the expert takes the kart for the Challenge's, and errs now and then."""
    world = World(course_named(course), seed, replace(config_of("e2e", vehicle), disturb_every_s=8.0))
    experts, sensors = ExpertPool(ExpertConfig()), Sensors(world, [])
    rng, hz = np.random.default_rng([43, seed]), world.config.physics_hz
    writer = BagWriter(folder, list(topics))
    command = None
    for step in range(round(seconds * hz)):
        stamp_ns = START_NS + round(step * SECOND / hz)

        def say(topic: Topic, data: bytes, at_ns: int = stamp_ns) -> None:
            if topic in topics:
                writer.write(topic.name, at_ns + 1_000_000, data)

        if command is None or is_due(step, CONTROL_HZ, hz):
            command = experts.for_course(world.course).command(world.state, world.time_s, world.disturbance)
            say(CONTROL_CMD, command_cdr(stamp_ns if stamped else 0, command.steer_rad, command.accel_mps2))
        if (wheels := sensors.wheels(step)) is not None:
            angle_rad = wheels.tire_angle_rad + STEERING_NOISE_RAD * rng.standard_normal()
            speed_mps = wheels.speed_mps + SPEED_NOISE_MPS * rng.standard_normal()
            say(VELOCITY_STATUS, velocity_cdr(stamp_ns, speed_mps, wheels.heading_rate_radps))
            say(STEERING_STATUS, steering_cdr(stamp_ns, angle_rad))
        if (state := sensors.odometry(step)) is not None:
            noise = rng.standard_normal(3) * (POSITION_NOISE_M, POSITION_NOISE_M, YAW_NOISE_RAD)
            say(ODOMETRY, odometry_cdr(stamp_ns, state.pose + noise, state.speed_mps))
        world.step(command)
    writer.close()
    return folder


def command_cdr(stamp_ns: int, steer_rad: float, accel_mps2: float) -> bytes:
    types = typestore().types
    stamp = _stamp(stamp_ns)
    package = CONTROL_CMD.type.rpartition("/")[0]
    lateral = types[f"{package}/AckermannLateralCommand"](
        stamp=stamp, steering_tire_angle=steer_rad, steering_tire_rotation_rate=0.0
    )
    longitudinal = types[f"{package}/LongitudinalCommand"](stamp=stamp, speed=0.0, acceleration=accel_mps2, jerk=0.0)
    message = types[CONTROL_CMD.type](stamp=stamp, lateral=lateral, longitudinal=longitudinal)
    return bytes(typestore().serialize_cdr(message, CONTROL_CMD.type))


def steering_cdr(stamp_ns: int, angle_rad: float) -> bytes:
    message = typestore().types[STEERING_STATUS.type](stamp=_stamp(stamp_ns), steering_tire_angle=angle_rad)
    return bytes(typestore().serialize_cdr(message, STEERING_STATUS.type))


def velocity_cdr(stamp_ns: int, speed_mps: float, heading_rate_radps: float) -> bytes:
    types = typestore().types
    header = types["std_msgs/msg/Header"](stamp=_stamp(stamp_ns), frame_id=VELOCITY_STATUS.frame_id)
    message = types[VELOCITY_STATUS.type](
        header=header, longitudinal_velocity=speed_mps, lateral_velocity=0.0, heading_rate=heading_rate_radps
    )
    return bytes(typestore().serialize_cdr(message, VELOCITY_STATUS.type))


def _stamp(stamp_ns: int) -> Any:
    return typestore().types["builtin_interfaces/msg/Time"](sec=stamp_ns // SECOND, nanosec=stamp_ns % SECOND)
