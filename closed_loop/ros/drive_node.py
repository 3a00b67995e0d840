"""The driving node: camera frames and odometry in, ``control_cmd`` out, with the model in a process of its own.

Thin: parameters, messages to plain data, one call into :class:`closed_loop.control.driver.Driver`, publish. It speaks
the Challenge's interface and does not know which simulator (or kart) is at the other end.

    python -m closed_loop.ros.drive_node --ros-args -p model:=FOLDER -p adapter:=FOLDER -p laps:=1
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from rclpy.node import Node

from closed_loop.control.buffers import Pose
from closed_loop.control.controller import ControllerConfig
from closed_loop.control.driver import Driver, DriverConfig, PlacedPlan, Tick
from closed_loop.control.faults import Faults
from closed_loop.control.off_track import OffTrackMonitor
from closed_loop.control.safety_limits import SafetyLimits
from closed_loop.course.design import course_named
from closed_loop.ros.config import DriveParameters
from closed_loop.ros.diagnostics import Diagnostics, findings
from closed_loop.ros.guard import Guard
from closed_loop.ros.inputs import DriveInputs
from closed_loop.ros.instructions import Instructions
from closed_loop.ros.log import DriveLog
from closed_loop.ros.orders import DRIVER_NAME
from closed_loop.ros.publishing import DrivePublishing, status_of
from closed_loop.ros.results import leave_results
from closed_loop.ros.termination import DriveTermination
from closed_loop.serving.child import open_policy
from closed_loop.serving.client import Answers, PlanReply, PolicyClient
from collector.calibration.model import read_calibration
from collector.common.errors import MonoError
from collector.common.model_files import find_model
from collector.common.run_folder import open_run
from collector.ros import topics
from collector.ros.families import choose_family
from collector.ros.graph import ONE_CONTROLLER, ONE_SIMULATOR, Strangers, UnorderedClock, Watch
from collector.ros.parameters import declare_parameters
from collector.ros.session import EXIT_FAILED, Session, node_main
from collector.vehicle.kart import Command
from collector.vehicle.model import vehicle_named
from finetune.policy import NO_INSTRUCTIONS, TAKES_INSTRUCTIONS, frames_of

STATUS_HZ = 5.0


class DriveNode(Node):
    """Parameters and messages of the driver; :meth:`drive` runs until the drive is over.

    ``clock`` tells steady seconds, ``start_policy`` starts what answers the observations.
    """

    def __init__(
        self,
        session: Session,
        clock: Callable[[], float] = time.monotonic,
        start_policy: Callable[..., PolicyClient] = open_policy,
    ) -> None:
        super().__init__(DRIVER_NAME)
        self._session, self._steady = session, clock
        self.values = declare_parameters(self, DriveParameters)
        v = self.values
        # Needed by whoever measures the drive: a misspelt course should be noticed before it.
        if v.reference:
            course_named(v.reference)
        road = course_named(v.course) if v.course else None
        vehicle = vehicle_named(v.vehicle, v.steering_gain)
        # Dead reckoning knows no road; by those rules the evaluator looks.
        seen = road is not None and v.off_road_s and v.rules == "free"
        self._off_track = OffTrackMonitor(road, vehicle) if road is not None and seen else None
        self._out = Path(v.out or f"runs/{time.strftime('%Y%m%d-%H%M%S')}-drive")
        self._log = DriveLog(self._out, clock, "poses_map" if v.rules == "free" else "poses_odom")
        self.driver = Driver(
            DriverConfig(
                v.replan_s,
                frames_of(v.cameras),
                v.rolling_start_mps,
                SafetyLimits(v.frame_timeout_s, v.odometry_timeout_s, v.plan_timeout_s),
                ControllerConfig.of(vehicle, v.max_speed_mps),
                read_calibration(v.calibration).required_offset_s if v.calibration else 0.0,
            ),
            lambda observation: self._policy.submit(observation),  # noqa: PLW0108 - the policy is started below
            Faults(latency_s=v.latency_s, jitter_s=v.jitter_s),
        )
        model = "" if v.policy_server else v.spec().options["model_folder"]
        inputs = [find_model(Path(path)) for path in (model, v.adapter, v.calibration, v.vehicle) if path]
        open_run(self._out, {"parameters": v, "driver": self.driver.config}, inputs, "drive")
        self._family = family = choose_family(self, v.messages, v.wait_s, session.stop.is_set)
        self.get_logger().info(str(family))
        self.termination = DriveTermination(v.laps, v.duration_s, v.off_road_s, wait_s=v.wait_s, began_s=clock())
        self._ready = False
        self._last_reason: str | None = None  # said of the last tick, where there was one
        self._ticks, self._engaged_s = 0, -math.inf
        self._guard: Guard | None = None
        self._over = threading.Event()

        # Publishers and subscriptions first, the policy last: its callbacks use them.
        self._diagnostics = Diagnostics(self)
        self._say = DrivePublishing(self, family, topics.MAP_FRAME if v.rules == "free" else topics.ODOM_FRAME)
        self._strangers = Strangers(
            self,
            Watch(
                self,
                replace(ONE_CONTROLLER, topic=family.topic(topics.CONTROL_CMD)),
                lambda message: not self._say.is_ours(message),
                1,
                clock,
            ),
            Watch(self, ONE_SIMULATOR, UnorderedClock(), 0, clock),
        )
        self.inputs = DriveInputs(
            self,
            v.rules,
            family,
            vehicle,
            self.driver,
            self.termination,
            str(self._out),
            clock,
            self._placed,
            self._note,
            self._ask_again,
        )
        self.termination.pose_topic = self.inputs.pose_topic.name
        self.instructions = Instructions(self, v.instruction, self.driver, clock, self._note)
        if v.rules == "e2e" and v.evaluator:
            self.inputs.orders.wait(clock())
        told = (self._on_ready, self._on_plan, self._on_policy_error, self._on_policy_death, self._on_policy_line)
        self._policy = start_policy(v, Answers(*told), v.wait_s)
        self.get_logger().info(f"{self._policy.name} {'plans' if v.policy_server else f'loads {v.policy}'}")

    def _placed(self, stamp_ns: int, pose: Pose, speed_mps: float) -> None:
        self._log.odometry(stamp_ns, pose, speed_mps)
        if self._off_track is not None and self._off_track.update(stamp_ns, pose):
            self._note("off the road")

    def _ask_again(self) -> None:
        """Gear and control mode are asked for at the next tick."""
        self._engaged_s = -math.inf

    # The policy's answers, in its reader thread.

    def _on_ready(self, load_s: float) -> None:
        self._ready = True
        self._note("policy ready", f"loaded in {load_s:.1f} s")
        if self.instructions.is_heard and not self._policy.takes_instructions:
            self.termination.failed = str(MonoError(NO_INSTRUCTIONS, TAKES_INSTRUCTIONS, "leave out instruction:="))
            return
        self.driver.policy_ready()

    def _on_plan(self, reply: PlanReply) -> None:
        self.driver.policy_plan(reply.plan, partial(self._taken, reply))

    def _taken(self, reply: PlanReply, placed: PlacedPlan | None) -> None:
        defect = "" if placed else self.driver.safety_monitor.defect or "from before a jump"
        self._log.plan(reply, self.inputs.pose_ns or reply.plan.stamp_ns, defect)
        if placed is not None:
            self._say.plan(placed)

    def _on_policy_line(self, line: str) -> None:
        self.get_logger().info(f"policy: {line}")

    def _on_policy_error(self, text: str) -> None:
        self._note("policy error", text)
        self.driver.policy_failed(text)

    def _on_policy_death(self, why: str) -> None:
        self.driver.policy_died(why)
        self._note("policy process died", why)
        if self._ready:
            self.termination.give_up("the policy process died")
        else:
            self.termination.failed = f"the policy did not start: {why}"

    # The control loop, in a thread of its own: neither images nor inference nor the executor can hold it up.

    def _control_loop(self) -> None:
        """Tick at ``control_hz`` of vehicle time until the drive is over and its files are written."""
        next_s = self._steady()
        try:
            while not self._over.is_set():
                now_s = self._steady()
                self.control(now_s)
                # After a stall the missed ticks are not made up for: old commands help nobody.
                next_s = max(next_s + 1.0 / (self.values.control_hz * self.driver.rate.value), now_s)
                time.sleep(max(0.0, next_s - self._steady()))
        except Exception as error:
            # Nobody would notice a dead control thread: end the node. The guard brakes until its last word.
            self.termination.failed = f"the control loop failed: {error!r}"
            self._session.fail(self.termination.failed)
            self._last_words()
            raise

    def control(self, now_s: float) -> None:
        """One tick of the control loop: decide, say so, write it down, and see whether the drive is over."""
        self.inputs.orders.tick(now_s)
        self.driver.clock(self.get_clock().now().nanoseconds, now_s)
        tick = self.driver.tick(now_s)
        self._say.command(tick.command, tick.speed_mps)
        if self._guard is not None:
            self._guard.beat(tick.command.steer_rad, tick.stamp_ns or 0, now_s)
        self._log.tick(tick)
        self._ticks += 1
        changed = tick.decision.reason != self._last_reason
        if changed:
            self._last_reason = tick.decision.reason
            self._note("driving" if tick.decision.drive else f"braking: {tick.decision.reason}", tick.decision.detail)
        if changed or self._ticks % max(1, round(self.values.control_hz / STATUS_HZ)) == 0:
            status = status_of(tick, self.driver, self.termination.laps_done)
            self._say.status({**status, **self.instructions.status(now_s)})
        if self._diagnostics.is_due(tick.decision.reason, now_s):
            found = findings(self.driver.safety_monitor, tick.decision, now_s)
            self._diagnostics.publish([*found, *self.instructions.findings(now_s)])
        if now_s - self._engaged_s > 1.0:
            self._engaged_s = now_s
            self._say.engage()
        if not self._session.stop.is_set():
            self._look_around(now_s)
            self._watch_for_the_end(tick, now_s)

    def _look_around(self, now_s: float) -> None:
        """Brake while somebody else drives too, or another simulator speaks; before the first metre, end over it."""
        found = self._strangers.look(now_s)
        self.driver.forbid(*(("", "") if found is None else (found[0].reason, found[1])))
        if found is not None and not self.termination.has_driven:
            self.termination.failed = str(found[0].error(found[1]))
        if self._log.error is not None:
            self.termination.give_up(str(self._log.error))

    def _watch_for_the_end(self, tick: Tick, now_s: float) -> None:
        termination, frames, heard_s = self.termination, self.driver.frames.received, self.inputs.pose_s
        driving, speed_mps = tick.decision.drive, tick.speed_mps
        ending = termination.update(now_s, tick.stamp_ns, driving, speed_mps, heard_s, frames, self._off_track)
        if termination.goal:
            self.driver.stop()
        # Asking the graph is no matter of every tick: only while there is no odometry, or none any more.
        if heard_s is None or tick.stamp_ns is None or termination.is_gone(now_s, heard_s, 0):
            publishers = self.count_publishers(self.inputs.pose_topic.name)
            termination.simulator(publishers + self.count_publishers(topics.CLOCK.name))
            if not ending and termination.is_gone(now_s, heard_s, publishers):
                ending = "the simulator has left"
        if ending:
            self._session.end(ending)

    def _note(self, what: str, detail: str = "") -> None:
        self._log.event(self.inputs.pose_ns, what, detail)
        self.get_logger().info(f"{what} ({detail})" if detail else what)

    def drive(self) -> int:
        """Run to the end; returns the exit code: 0 when what was asked for was driven or a signal came, else 1.

        Raises:
            MonoError: somebody else drives, there was nothing to drive with, or the log could not be written.
        """
        try:
            self._strangers.refuse(self._session.joined_s)
        except MonoError:
            self._policy.close()  # and not a word to the kart, which somebody else drives
            raise
        self._guard = Guard(self.driver.config.controller.stop_mps2, self._family)
        if self._policy.pid:
            self._guard.policy(self._policy.pid)
        control = threading.Thread(target=self._control_loop, name="control", daemon=True)
        # From the last line to the first, whatever fails on the way. The control loop brakes until all is written.
        with ExitStack() as ending:
            ending.callback(self._guard.farewell)
            ending.callback(self._last_words)
            ending.callback(control.join, 5.0)
            ending.callback(self._over.set)
            ending.callback(self._policy.close)
            ending.callback(
                lambda: leave_results(self._log, self._session.why, self.driver, self.termination, self.values)
            )
            ending.callback(self.driver.stop)
            ending.callback(self._session.end, "an error")
            control.start()
            self._session.spin(self)
        if self.termination.failed:
            raise MonoError(self.termination.failed)
        if self._log.error is not None:
            raise self._log.error
        return 0 if self.termination.reached or self._session.interrupted else EXIT_FAILED

    def _last_words(self) -> None:
        """AWSIM goes on with the last command it heard: it must be a stop, in whatever state the driver is."""
        command = Command(0.0, self.driver.config.controller.stop_mps2)
        for _ in range(3):
            with suppress(Exception):
                command = self.driver.tick(self._steady()).command
            self._say.command(Command(command.steer_rad, min(command.accel_mps2, 0.0)), 0.0)
            time.sleep(0.02)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: ``python -m closed_loop.ros.drive_node``, and the console script of the ROS package."""
    return node_main(DriveNode, DriveNode.drive, arguments)


if __name__ == "__main__":
    sys.exit(main())
