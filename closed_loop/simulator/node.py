"""The embedded simulator as a ROS node: speaks the Challenge's interface, in AWSIM's place.

Physics, cameras and publishing run in one loop, paced by the wall clock; received commands come in through a thread.
A machine that cannot keep ``time_scale`` gets slower time, never missing frames.

    python -m closed_loop.simulator.node --ros-args -p course:=city -p time_scale:=2.0

Like AWSIM it goes on with the last command it heard, however old: stopping a kart whose driver has gone silent is
the driver's own duty.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from rclpy.node import Node

from closed_loop.control.faults import Faults
from closed_loop.course.design import course_named, listed_courses
from closed_loop.simulator.camera import FRONT
from closed_loop.simulator.expert import ExpertConfig, ExpertPool
from closed_loop.simulator.manners import MannerDriver
from closed_loop.simulator.modes import MODES
from closed_loop.simulator.pacing import Pacer, is_due
from closed_loop.simulator.publishing import Publishing
from closed_loop.simulator.sensors import Sensors
from closed_loop.simulator.session import SessionStates
from closed_loop.simulator.world import World, WorldConfig, config_of
from collector.common.errors import MonoError
from collector.common.files import check_file_place
from collector.ros import topics
from collector.ros.families import asked_or_installed
from collector.ros.graph import NO_SIMULATOR, Strangers, Watch
from collector.ros.message_packages import message_class
from collector.ros.parameters import SimulateConfig, declare_parameters
from collector.ros.session import Session, node_main
from collector.vehicle.kart import Command
from collector.vehicle.model import read_vehicle

GEAR_DRIVE_LAST = 19
MODE_AUTONOMOUS, MODE_MANUAL = 1, 4
STANDSTILL = Command(0.0, -3.0)
LOG_HZ = 50.0
DISTURB_EVERY_S = 8.0
MANNER_HZ = 1.0
PROGRESS_S = 10.0


@dataclass
class Heard:
    """What the subscribers wrote down last; each field is replaced as a whole, so reading needs no lock."""

    command: Command | None = None
    gear: int = topics.GEAR_DRIVE
    autonomous: bool = False
    reset: bool = False


class SimulatorNode(Node):
    """Parameters, subscriptions and the loop of one simulation; :meth:`simulate` runs it."""

    def __init__(self, session: Session) -> None:
        super().__init__("simulator")
        self._session = session
        self.values = declare_parameters(self, SimulateConfig)
        v = self.values
        self._log = log_place(Path(v.log)) if v.log else None
        courses = listed_courses(v.courses) or [v.course]
        self._mode = MODES[v.mode]
        self.world = World([course_named(spec) for spec in courses], v.seed, world_config(v))
        if not v.episode_s:
            self._place_at_start()
        self._experts = ExpertPool(ExpertConfig(max_speed_mps=v.max_speed_mps, vehicle=self.world.config.vehicle))
        self._camera = replace(FRONT, width_px=v.image_width, height_px=v.image_height) if v.camera else None
        faults = {each.name: getattr(v, each.name) for each in fields(Faults) if hasattr(v, each.name)}
        self._sensors = Sensors(self.world, [self._camera] if self._camera else [], Faults(**faults))
        self._manners = MannerDriver(self.world, v.manner) if v.manner and v.expert else None
        self._told = ""  # the manner as it was last said
        family = asked_or_installed(v.messages)
        self._say = Publishing(
            self,
            self._camera,
            self.world.config.vehicle,
            v.expert,
            family,
            self._mode.localised,
            self._manners is not None,
        )
        self._session_states = SessionStates(v.countdown_s, v.session_laps)
        self._heard = Heard()
        self._command = STANDSTILL
        self._frames = 0
        self._lap = (self.world.episode, 0), 0.0  # which lap it is, and when it began
        self._track: list[tuple[float, ...]] = []
        for topic, callback in (
            (topics.CONTROL_CMD, self._on_command),
            (topics.GEAR_CMD, self._on_gear),
            (topics.CONTROL_MODE_REQUEST, self._on_mode),
            (topics.AWSIM_RESET, self._on_reset),
        ):
            if topic is not topics.CONTROL_CMD or not v.expert:
                self.create_subscription(
                    message_class(family.topic(topic).type), topic.name, callback, topics.qos_profile(topic)
                )

    # Messages in, in the callback thread.

    def _on_command(self, message: Any) -> None:  # noqa: ANN401 - a message of rclpy
        # As AWSIM: only these two numbers count.
        self._heard.command = Command(message.lateral.steering_tire_angle, message.longitudinal.acceleration)

    def _on_gear(self, message: Any) -> None:  # noqa: ANN401 - a message of rclpy
        self._heard.gear = int(message.command)

    def _on_mode(self, message: Any) -> None:  # noqa: ANN401 - a message of rclpy
        self._heard.autonomous = bool(message.data)

    def _on_reset(self, _message: Any) -> None:  # noqa: ANN401 - a message of rclpy
        self._heard.reset = True

    # The loop.

    def simulate(self) -> int:
        """Run until the end is asked for or ``duration_s`` has passed; returns the exit code."""
        v, world = self.values, self.world
        physics_hz = world.config.physics_hz
        pacer = Pacer(v.time_scale)
        step, episode, next_report_s = 0, world.episode, time.monotonic() + PROGRESS_S
        if self._camera:
            world.render(self._camera)  # painting the first scene takes time that belongs before the start
        Strangers(self, Watch(self, NO_SIMULATOR, lambda _message: True, own=1)).refuse(self._session.joined_s)
        with self._session.spinning(self):
            while not self._session.stop.is_set():
                if v.duration_s and world.time_s >= v.duration_s - 1e-9:
                    self._session.end(f"{v.duration_s:g} s simulated")
                    break
                if self._heard.reset:
                    self._reset()
                if state := self._session_states.update(world.time_s, self._laps()):
                    self._say.state(state)
                    # The grid asks anew of everyone: what was requested in another state counts no more.
                    self._heard.autonomous = self._heard.autonomous and not v.countdown_s
                self._publish(step, physics_hz)
                world.step(STANDSTILL if self._session_states.held else self._command)
                step += 1
                if world.episode != episode:
                    episode = world.episode
                    self._experts.for_course(world.course).reset()
                pacer.wait(world.time_s)
                if time.monotonic() >= next_report_s:
                    next_report_s += PROGRESS_S
                    self.get_logger().info(self._report(pacer))
            self._say.state("Finish")
            if self._session.why.endswith("simulated"):
                time.sleep(0.3)  # the last messages are still on their way
        self._write_log()
        print(f"simulation ended: {self._session.why}; {self._report(pacer)}", flush=True)
        return 0

    def _publish(self, step: int, physics_hz: float) -> None:
        """Decide on a command and say everything that is due at this step."""
        world, say, heard = self.world, self._say, self._heard
        # Simulated time starts at one step: a stamp of zero means "no time" to ROS.
        stamp_ns = round((step + 1) * 1e9 / physics_hz)
        state = world.state

        def due(rate_hz: float | None) -> bool:
            return is_due(step, rate_hz or physics_hz, physics_hz)

        if due(topics.CLOCK.rate_hz):
            say.clock(stamp_ns)
        if self.values.expert:
            if due(topics.CONTROL_HZ):
                expert = self._experts.for_course(world.course)
                otherwise = world.disturbance if self._manners is None else self._manners.now()
                self._command = expert.command(state, world.time_s, otherwise)
                say.command(stamp_ns, self._command, state)
        else:
            self._command = obeyed(heard)
        self._say_manner(due(MANNER_HZ))
        if (believed := self._sensors.odometry(step)) is not None:
            say.odometry(stamp_ns, believed)
        if (wheels := self._sensors.wheels(step)) is not None:
            autonomous = self.values.expert or heard.autonomous
            say.vehicle(stamp_ns, wheels, heard.gear, MODE_AUTONOMOUS if autonomous else MODE_MANUAL)
        if due(topics.AWSIM_STATUS.rate_hz):
            say.status(self._status())
        if (images := self._sensors.frame(step)) is not None:
            say.frame(stamp_ns, images[FRONT.name])
            self._frames += 1
        if self.values.log and due(LOG_HZ):
            command = self._command
            self._track.append(
                (stamp_ns * 1e-9, *state.pose, state.speed_mps, command.steer_rad, command.accel_mps2, self._laps())
            )

    def _say_manner(self, due: bool) -> None:
        """Where it changes, and again and again for a recorder that begins later."""
        if self._manners is not None and (due or self._manners.errand.message != self._told):
            self._told = self._manners.errand.message
            self._say.manner(self._told)

    def _laps(self) -> int:
        # An open course counts as one lap when its end is reached.
        return 1 if self.world.finished else self.world.lap

    def _status(self) -> tuple[float, ...]:
        v, world = self.values, self.world
        if self._lap[0] != (world.episode, self._laps()):
            self._lap = (world.episode, self._laps()), world.time_s
        left_s = max(0.0, v.duration_s - world.time_s)
        section = int(10.0 * (world.station_m / world.course.length_m)) % 10
        return (left_s, float(self._laps()), world.time_s - self._lap[1], float(section), v.time_scale, 0.0, 0.0)

    def _reset(self) -> None:
        self._heard = Heard(gear=self._heard.gear)
        self._command = STANDSTILL
        self._place_at_start()
        self._experts.for_course(self.world.course).reset()
        self._session_states.reset()

    def _place_at_start(self) -> None:
        v = self.values
        self.world.reset(v.start_s_m, v.start_lateral_m, v.start_heading_rad, v.start_speed_mps)

    def _report(self, pacer: Pacer) -> str:
        world = self.world
        return (
            f"{world.time_s:.0f} s simulated at {pacer.achieved(world.time_s):.2f} times real time "
            f"(asked for {pacer.time_scale:g}), {self._frames} frames, {self._laps()} laps, "
            f"course {world.course.name}"
        )

    def _write_log(self) -> None:
        if self._log is None:
            return
        track = np.array(self._track, np.float64).reshape(-1, 8)
        try:
            np.savez_compressed(
                self._log,
                t_s=track[:, 0],
                poses_map=track[:, 1:4],
                speed_mps=track[:, 4],
                commands=track[:, 5:7],
                laps=track[:, 7].astype(np.int64),
            )
        except OSError as error:
            raise MonoError(
                f"the log {self._log}: {error.strerror}", "a folder of yours", "give another log:="
            ) from error


def log_place(path: Path) -> Path:
    """Where the simulator's record goes, ``.npz`` added (MonoError: no file can be written, or somebody's is there)."""
    place = path if path.suffix == ".npz" else path.with_name(path.name + ".npz")
    check_file_place(place)
    if place.is_file():
        try:
            with np.load(place, allow_pickle=False) as table:
                ours = {"poses_map", "commands", "laps"} <= {*table.files}
        except (OSError, ValueError, EOFError, AttributeError, BadZipFile):
            ours = False
        if not ours:
            raise MonoError(
                f"{place} is no record of the simulator", "a new file, or such a record", "give another log:="
            )
    return place


def obeyed(heard: Heard) -> Command:
    """What the kart does with what it heard: nothing before autonomous mode, no driving force out of gear."""
    if heard.command is None or not heard.autonomous:
        return STANDSTILL
    if topics.GEAR_DRIVE <= heard.gear <= GEAR_DRIVE_LAST:
        return heard.command
    return Command(heard.command.steer_rad, min(heard.command.accel_mps2, 0.0))


def world_config(values: SimulateConfig) -> WorldConfig:
    """The world's settings from the node's parameters; ``disturbance`` scales every error on purpose."""
    file = values.simulated_vehicle or values.vehicle
    plain, scale = config_of(values.mode, read_vehicle(file) if file else None), values.disturbance
    calm, errors = plain.disturbance, values.expert and scale > 0.0
    return replace(
        plain,
        episode_s=values.episode_s or None,
        start_lateral_m=scale * plain.start_lateral_m,
        start_heading_rad=scale * plain.start_heading_rad,
        disturbed_share=min(1.0, scale * plain.disturbed_share),
        disturb_every_s=DISTURB_EVERY_S if errors and not values.episode_s else None,
        disturbance=replace(
            calm,
            max_lateral_m=scale * calm.max_lateral_m,
            steer_noise_rad=scale * calm.steer_noise_rad,
            speed_scale=(1.0 + scale * (calm.speed_scale[0] - 1.0), 1.0 + scale * (calm.speed_scale[1] - 1.0)),
        ),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: ``python -m closed_loop.simulator.node``, and the console script of the ROS package."""
    return node_main(SimulatorNode, SimulatorNode.simulate, arguments)


if __name__ == "__main__":
    sys.exit(main())
