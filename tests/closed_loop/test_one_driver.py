"""The rollout and the ROS node drive with one driver: the same recorded messages, the same commands, the same files."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from closed_loop.comparison import rollout
from closed_loop.comparison.rollout import RolloutConfig
from closed_loop.control.faults import Faults
from closed_loop.course.design import course_named
from closed_loop.serving.client import Answers, PlanReply
from closed_loop.simulator.pacing import is_due
from closed_loop.simulator.sensors import Sensors, WheelReport
from closed_loop.simulator.vehicle import VehicleState, yaw_rate_radps
from closed_loop.simulator.world import World
from collector.ros.parameters import Rules
from collector.vehicle.kart import Command
from collector.vehicle.model import KART
from finetune.policy import Observation, Plan
from tests.helpers.paths import ROOT
from tests.helpers.rollouts import drive

SECONDS, HZ, CONTROL_HZ = 24.0, 100.0, 40.0


@dataclass
class Recording:
    """What reached the driver in one drive, by physics step, and what the policy answered, by stamp."""

    rules: Rules = "free"
    states: dict[int, VehicleState] = field(default_factory=dict)
    reports: dict[int, WheelReport] = field(default_factory=dict)
    images: dict[int, np.ndarray] = field(default_factory=dict)
    odometry: dict[int, Any] = field(default_factory=dict)
    wheels: dict[int, tuple[Any, Any]] = field(default_factory=dict)
    pictures: dict[int, Any] = field(default_factory=dict)
    plans: dict[int, Plan] = field(default_factory=dict)

    def make_messages(self) -> None:
        """The same as real messages, and what a node would read from them as what the rollout is given."""
        from collector.ros.conversions import fill_image, odometry_of, rgb_of, set_pose, set_stamp
        from collector.ros.message_packages import message_class
        from collector.ros.topics import CAMERA_IMAGE, ODOMETRY, STEERING_STATUS, VELOCITY_STATUS

        for step, state in self.states.items():
            message = message_class(ODOMETRY.type)()
            set_stamp(message.header.stamp, step * 10_000_000)
            set_pose(message.pose.pose, state.pose)
            message.twist.twist.linear.x = state.speed_mps
            message.twist.twist.angular.z = yaw_rate_radps(state, KART)
            _, (x, y, yaw), _ = odometry_of(message)
            self.states[step], self.odometry[step] = replace(state, x_m=x, y_m=y, yaw_rad=yaw), message
        for step, report in self.reports.items():
            velocity, steering = message_class(VELOCITY_STATUS.type)(), message_class(STEERING_STATUS.type)()
            set_stamp(velocity.header.stamp, step * 10_000_000)
            set_stamp(steering.stamp, step * 10_000_000)
            # As they are after their way through a message of single precision.
            speed, rate, angle = np.float32(
                (report.speed_mps, report.heading_rate_radps, report.tire_angle_rad)
            ).tolist()
            velocity.longitudinal_velocity, velocity.heading_rate = speed, rate
            steering.steering_tire_angle = angle
            self.reports[step], self.wheels[step] = WheelReport(speed, rate, angle), (velocity, steering)
        for step, image in self.images.items():
            message = message_class(CAMERA_IMAGE.type)()
            set_stamp(message.header.stamp, step * 10_000_000)
            fill_image(message, image)
            self.pictures[step] = message
            assert np.array_equal(rgb_of(message), image)


class Wavy:
    """Swerves over the road and off it, once without numbers; what it plans depends on what it sees."""

    cameras = "mono-4frames"

    def __init__(self, plans: dict[int, Plan]) -> None:
        self.plans = plans

    def plan_many(self, observations: Sequence[Observation]) -> list[Plan]:
        for seen in observations:
            t_s = seen.stamp_ns * 1e-9
            speed = min(4.0, (seen.speed_mps or 0.0) + 1.0)
            bend = 0.12 * np.sin(t_s) + 1e-4 * seen.frames["front"].mean() + 0.2 * seen.history[0, 1] + 1e-9
            along = speed * 0.1 * np.arange(1, 65)
            poses = np.stack([np.sin(bend * along) / bend, (1 - np.cos(bend * along)) / bend, bend * along], axis=1)
            poses[0, 0] = np.nan if 6.0 < t_s < 6.5 else poses[0, 0]
            self.plans[seen.stamp_ns] = Plan(seen.stamp_ns, poses, "I swerve.")
        return [self.plans[seen.stamp_ns] for seen in observations]


class Recorded:
    """Gives the recorded answers, and keeps what it was asked."""

    cameras = Wavy.cameras

    def __init__(self, plans: Mapping[int, Plan]) -> None:
        self.plans, self.seen = plans, []

    def plan_many(self, observations: Sequence[Observation]) -> list[Plan]:
        self.seen += observations
        return [self.plans[seen.stamp_ns] for seen in observations]


class ListeningWorld(World):
    """Keeps the command of every physics step."""

    def __init__(self) -> None:
        self.commands: list[Command] = []
        super().__init__(course_named("city"))

    def step(self, command: Command) -> VehicleState:
        self.commands.append(command)
        return super().step(command)


FAULTS = Faults(
    latency_s=0.15,
    drop_share=0.15,
    black_share=0.05,
    position_noise_m=0.01,
    yaw_noise_rad=0.004,
    speed_noise_mps=0.03,
    fault_seed=3,
)
CONFIG = RolloutConfig(
    max_time_s=SECONDS, max_off_track=99, reset_after_s=0.5, image_px=(64, 36), faults=FAULTS, start_s_m=12.0
)


@pytest.fixture(params=["free", "e2e"])
def recording(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Recording:
    pytest.importorskip("rclpy")
    kept = Recording(request.param)

    class Keeping(Sensors):
        def odometry(self, step: int) -> VehicleState | None:
            if (state := super().odometry(step)) is not None:
                kept.states[step] = state
            return state

        def wheels(self, step: int) -> WheelReport | None:
            if (report := super().wheels(step)) is not None:
                # Garbage now and then, as AWSIM says it, and wheels that say nothing for a while.
                report = replace(report, heading_rate_radps=1256.0) if step % 9 == 0 else report
                report = replace(report, speed_mps=math.nan) if step % 31 == 0 else report
                report = None if 1200 < step < 1300 else report
            if report is not None:
                kept.reports[step] = report
            return report

        def frame(self, step: int) -> Any:
            if (images := super().frame(step)) is not None:
                kept.images[step] = images["front"]
            return images

    with monkeypatch.context() as patched:
        patched.setattr(rollout, "Sensors", Keeping)
        result = drive(course_named("city"), Wavy(kept.plans), replace(CONFIG, rules=kept.rules))
    assert len(result.resets_s) >= 2, "the drive is to contain what a driver must cope with"
    kept.make_messages()
    return kept


def through_the_rollout(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Command], list[Observation], Mapping[str, int]]:
    class Replayed:
        def __init__(self, *_arguments: object) -> None: ...

        def odometry(self, step: int) -> VehicleState | None:
            return recording.states.get(step)

        def wheels(self, step: int) -> WheelReport | None:
            return recording.reports.get(step)

        def frame(self, step: int) -> Mapping[str, np.ndarray] | None:
            return {"front": recording.images[step]} if step in recording.images else None

    monkeypatch.setattr(rollout, "Sensors", Replayed)
    world, policy = ListeningWorld(), Recorded(recording.plans)
    result = drive(world, policy, replace(CONFIG, rules=recording.rules))
    ticks = [step for step in range(len(world.commands)) if is_due(step, CONTROL_HZ, HZ)]
    return [world.commands[step] for step in ticks], policy.seen, result.brakes


class RecordedProcess:
    """In the place of the policy process: asked at once, answers when the test says so."""

    name = "recording"

    def __init__(self, plans: Mapping[int, Plan], _place: object, answers: Answers, _give_up_s: float) -> None:
        self.plans, self.seen, self.waiting = plans, [], []
        self.on_ready, self.on_plan = answers.on_ready, answers.on_plan

    def submit(self, observation: Observation) -> None:
        self.seen.append(observation)
        self.waiting.append(observation)

    def answer(self) -> None:
        while self.waiting:
            self.on_plan(PlanReply(self.plans[self.waiting.pop().stamp_ns], 1.0, 2.0))

    def close(self) -> None: ...


def through_the_node(recording: Recording, out: Path) -> tuple[list[Command], list[Observation], Mapping[str, int]]:
    from closed_loop.ros.drive_node import DriveNode
    from collector.ros.session import ros_session
    from collector.ros.topics import CONTROL_CMD

    values = {
        "out": out,
        "cameras": Wavy.cameras,
        "latency_s": FAULTS.latency_s,
        "off_road_s": 0.0,
        "laps": 0,
        "wait_s": 1000.0,
        "policy": "none:None",
        "rules": recording.rules,
        "messages": "autoware_auto",
        "evaluator": "false",
        # 0 drives freely, as the rollout does by default; the node's parameter has a least speed limit.
        "max_speed_mps": 20.0,
    }
    words = [word for name, value in values.items() for word in ("-p", f"{name}:={value}")]
    now_s, processes, commands = [0.0], [], []

    def start(*arguments: Any) -> RecordedProcess:
        processes.append(RecordedProcess(recording.plans, *arguments))
        return processes[-1]

    with ros_session(["--ros-args", *words]) as session:
        node = DriveNode(session, lambda: now_s[0], start)
        node._say._publishers[CONTROL_CMD].publish = commands.append  # as it goes out, before float32
        (process,) = processes
        process.on_ready(0.0)
        for step in range(round(SECONDS * HZ) + 1):
            now_s[0] = step / HZ
            if step in recording.odometry and recording.rules == "free":
                node.inputs.on_odometry(recording.odometry[step])
            if step in recording.wheels:
                velocity, steering = recording.wheels[step]
                node.inputs.on_velocity(velocity)
                node.inputs.on_steering(steering)
            if step in recording.pictures:
                node.inputs.on_image(recording.pictures[step])
            process.answer()
            if is_due(step, CONTROL_HZ, HZ):
                node.control(now_s[0])
        brakes = dict(node.driver.safety_monitor.brakes)
        node.destroy_node()
    sent = [Command(m.lateral.steering_tire_angle, m.longitudinal.acceleration) for m in commands]
    return sent[:-1], process.seen, brakes  # the rollout ends before its last command is obeyed


@pytest.mark.ros
def test_the_same_messages_give_the_same_commands(
    recording: Recording, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ours, ours_seen, ours_brakes = through_the_rollout(recording, monkeypatch)
    theirs, theirs_seen, theirs_brakes = through_the_node(recording, tmp_path / "drive")
    assert len(ours) == len(theirs) == round(SECONDS * CONTROL_HZ)
    steer, accel = (np.array([getattr(c, name) for c in ours]) for name in ("steer_rad", "accel_mps2"))
    # A drive worth comparing: it steers, brakes, and the safety monitor steps in.
    assert np.ptp(steer) > 0.2 and np.ptp(accel) > 2.0 and len(ours_brakes) >= 2
    difference = max(
        max(abs(a.steer_rad - b.steer_rad), abs(a.accel_mps2 - b.accel_mps2)) for a, b in zip(ours, theirs, strict=True)
    )
    assert difference == 0.0
    assert ours_brakes == theirs_brakes
    for one, other in zip(ours_seen, theirs_seen, strict=True):
        assert (one.stamp_ns, one.speed_mps) == (other.stamp_ns, other.speed_mps)
        assert np.array_equal(one.history, other.history)
        assert np.array_equal(one.frames["front"], other.frames["front"])


def control_files(path: str) -> set[str]:
    """The modules of closed_loop.control that a file reaches through its imports of that room."""

    def imported(file: Path) -> set[str]:
        return {
            node.module
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("closed_loop.control.")
        }

    found: set[str] = set()
    waiting = imported(ROOT / path)
    while waiting:
        module = waiting.pop()
        found.add(module)
        waiting |= imported((ROOT / module.replace(".", "/")).with_suffix(".py")) - found
    return found


def test_rollout_and_node_reach_the_kart_through_the_same_files() -> None:
    ours, node, inputs = (
        control_files(f"closed_loop/{name}.py") for name in ("comparison/rollout", "ros/drive_node", "ros/inputs")
    )
    theirs = node | inputs
    drive_files = control_files("closed_loop/control/wheel_odometry.py") | {"closed_loop.control.wheel_odometry"}
    assert {
        f"closed_loop.control.{name}" for name in ("buffers", "controller", "driver", "safety_monitor")
    } < drive_files
    assert drive_files <= ours and drive_files <= theirs
    # What they import beside that decides about the drive, not about the kart's commands.
    beside = {"off_track", "faults"}
    assert {name.rpartition(".")[2] for name in (ours | theirs) - drive_files} <= beside


@pytest.mark.parametrize("path", ["comparison/rollout", "ros/drive_node"])
def test_neither_has_a_loop_of_its_own(path: str) -> None:
    """Only Driver sees buffers, plans' defects and the controller; both may name their settings, nothing more."""
    tree = ast.parse((ROOT / f"closed_loop/{path}.py").read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    refused = {"TrackingController", "PlanPath", "PoseBuffer", "FrameBuffer", "SafetyMonitor", "plan_defect", "rolling"}
    refused |= {"newest_observation", "to_ego", "to_map", "interpolate_poses", "HISTORY_STEPS"}
    assert "Driver" in names and not names & refused
    calls = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert "Observation" not in calls


def test_the_driver_needs_no_simulator() -> None:
    for file in (ROOT / "closed_loop" / "control").glob("*.py"):
        assert "closed_loop.simulator" not in {
            (node.module or "")[: len("closed_loop.simulator")]
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.ImportFrom)
        }, file
