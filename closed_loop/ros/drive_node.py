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
from functools import partial
from pathlib import Path
from typing import Any

from rclpy.node import Node

from closed_loop.control.controller import ControllerConfig
from closed_loop.control.driver import Driver, DriverConfig, PlacedPlan, Tick
from closed_loop.control.faults import Faults
from closed_loop.control.off_track import OffTrackMonitor
from closed_loop.control.safety_monitor import SafetyLimits
from closed_loop.course.design import course_named
from closed_loop.ros.config import DriveParameters
from closed_loop.ros.log import DriveLog
from closed_loop.ros.policy_process import DEFAULT_POLICY, PlanReply, PolicyProcess, PolicySpec
from closed_loop.ros.publishing import DrivePublishing, RosMessage
from closed_loop.ros.termination import DriveTermination
from collector.calibration.model import read_calibration
from collector.common.errors import MonoError
from collector.common.model_files import find_model
from collector.common.run_folder import open_run
from collector.ros.conversions import odometry_of, rgb_of, stamp_ns_of
from collector.ros.families import choose_family
from collector.ros.message_packages import message_class
from collector.ros.parameters import declare_parameters
from collector.ros.session import Session, node_main
from collector.ros.topics import AWSIM_STATUS, CAMERA_IMAGE, ODOMETRY, qos_profile
from finetune import TINY_BASE
from finetune.policy import frames_of

STATUS_HZ = 5.0
FOREIGN_M = 50.0  # RMS distance from a course above which the drive took place elsewhere


class DriveNode(Node):
    """Parameters and messages of the driver; :meth:`drive` runs until the drive is over.

    ``clock`` tells steady seconds, ``start_policy`` starts what answers the observations.
    """

    def __init__(
        self,
        session: Session,
        clock: Callable[[], float] = time.monotonic,
        start_policy: Callable[..., PolicyProcess] = PolicyProcess,
    ) -> None:
        super().__init__("alpamayo_drive")
        self._session, self._steady = session, clock
        self.values = declare_parameters(self, DriveParameters)
        v = self.values
        # Needed by whoever measures the drive: a misspelt course should be noticed before it.
        if v.reference:
            course_named(v.reference)
        road = course_named(v.course) if v.course else None
        self._off_track = OffTrackMonitor(road) if road is not None and v.off_road_s else None
        self._out = Path(v.out or f"runs/{time.strftime('%Y%m%d-%H%M%S')}-drive")
        self._log = DriveLog(self._out, clock)
        self.driver = Driver(
            DriverConfig(
                v.replan_s,
                frames_of(v.cameras),
                v.rolling_start_mps,
                SafetyLimits(v.frame_timeout_s, v.odometry_timeout_s, v.plan_timeout_s),
                ControllerConfig(steering_gain=v.steering_gain, max_speed_mps=v.max_speed_mps),
                read_calibration(v.calibration).required_offset_s if v.calibration else 0.0,
            ),
            lambda observation: self._policy.submit(observation),  # noqa: PLW0108 - the policy is started below
            Faults(latency_s=v.latency_s, jitter_s=v.jitter_s),
        )
        spec = self._policy_spec()
        inputs = [find_model(Path(path)) for path in (spec.options["model_folder"], v.adapter, v.calibration) if path]
        open_run(self._out, {"parameters": v, "driver": self.driver.config}, inputs, "drive")
        family = choose_family(self, v.messages, v.wait_s, session.stop.is_set)
        self.get_logger().info(str(family))
        self.termination = DriveTermination(v.laps, v.duration_s, v.off_road_s, wait_s=v.wait_s, began_s=clock())
        self._odometry_ns: int | None = None
        self._odometry_s: float | None = None
        self._ready = False
        self._bad_frames: set[str] = set()
        self._last_reason = ""
        self._ticks, self._engaged_s = 0, -math.inf

        # Publishers and subscriptions first, the policy last: its callbacks use them.
        self._say = DrivePublishing(self, family)
        for topic, callback in (
            (CAMERA_IMAGE, self._on_image),
            (ODOMETRY, self._on_odometry),
            (AWSIM_STATUS, self._on_status),
        ):
            self.create_subscription(message_class(family.topic(topic).type), topic.name, callback, qos_profile(topic))
        self._policy = start_policy(
            spec, self._on_ready, self._on_plan, self._on_policy_error, self._on_policy_death, self._on_policy_line
        )
        self.get_logger().info(f"policy process {self._policy.pid} loads {v.policy}")

    def _policy_spec(self) -> PolicySpec:
        v = self.values
        model = v.model or (str(TINY_BASE) if v.policy == DEFAULT_POLICY else "")
        same = ("cameras", "flow_steps", "noise_temperature", "reasoning", "device")
        options = {"model_folder": model, "adapter": v.adapter or None, **{name: getattr(v, name) for name in same}}
        if v.policy == DEFAULT_POLICY:
            options |= {name: getattr(v, name) for name in ("engine", "samples", "reasoning_hz")}
        return PolicySpec(v.policy, options, v.policy_python)

    # Messages in.

    def _on_odometry(self, message: RosMessage) -> None:
        stamp_ns, pose_map, speed_mps = odometry_of(message)
        steady_s = self._steady()
        self._odometry_ns, self._odometry_s = stamp_ns, steady_s
        if self.driver.odometry(stamp_ns, pose_map, speed_mps, message.twist.twist.angular.z, steady_s):
            self._log.odometry(stamp_ns, pose_map, speed_mps)
            if self._off_track is not None and self._off_track.update(stamp_ns, pose_map):
                self._note("off the road")

    def _on_image(self, message: RosMessage) -> None:
        try:
            image = rgb_of(message)
        except MonoError as error:
            # Once per kind: the safety monitor brakes for want of frames and this says why there are none.
            if str(error) not in self._bad_frames:
                self._bad_frames.add(str(error))
                self.get_logger().error(str(error))
            return
        self.driver.frame(stamp_ns_of(message.header.stamp), {"front": image}, self._steady())

    def _on_status(self, message: RosMessage) -> None:
        if self.termination.status(list(message.data)):
            self._note("lap", f"{self.termination.laps_done:g} done")

    # The policy's answers, in its reader thread.

    def _on_ready(self, load_s: float) -> None:
        self._ready = True
        self.get_logger().info(f"policy ready after {load_s:.1f} s")
        self.driver.policy_ready()

    def _on_plan(self, reply: PlanReply) -> None:
        self.driver.policy_plan(reply.plan, partial(self._taken, reply))

    def _taken(self, reply: PlanReply, placed: PlacedPlan | None) -> None:
        defect = "" if placed else self.driver.safety_monitor.defect or "from before a jump"
        self._log.plan(reply, self._odometry_ns or reply.plan.stamp_ns, defect)
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

    def _status(self, tick: Tick) -> dict[str, Any]:
        return {
            "driving": tick.decision.drive,
            "reason": tick.decision.reason,
            "detail": tick.decision.detail,
            "plan_age_s": None if tick.plan_age_s is None else round(tick.plan_age_s, 3),
            "speed_mps": round(tick.speed_mps, 3),
            "laps": self.termination.laps_done,
            "frames": self.driver.frames.received,
            "frames_lost": self.driver.frames.lost,
            "time_rate": round(self.driver.rate.value, 3),
        }

    # The control loop, in a thread of its own: neither images nor inference nor the executor can hold it up.

    def _control_loop(self) -> None:
        """Tick at ``control_hz`` of vehicle time until the session ends."""
        next_s = self._steady()
        try:
            while not self._session.stop.is_set():
                now_s = self._steady()
                self.control(now_s)
                # After a stall the missed ticks are not made up for: old commands help nobody.
                next_s = max(next_s + 1.0 / (self.values.control_hz * self.driver.rate.value), now_s)
                time.sleep(max(0.0, next_s - self._steady()))
        except Exception as error:
            # Nobody would notice a dead control thread: end the node, whose last word to the kart is a stop.
            self.termination.failed = f"the control loop failed: {error!r}"
            self._session.end(self.termination.failed)
            raise

    def control(self, now_s: float) -> None:
        """One tick of the control loop: decide, say so, write it down, and see whether the drive is over."""
        tick = self.driver.tick(now_s)
        self._say.command(tick.command, tick.speed_mps)
        self._log.tick(tick)
        self._ticks += 1
        changed = tick.decision.reason != self._last_reason
        if changed:
            self._last_reason = tick.decision.reason
            self._note("driving" if tick.decision.drive else f"braking: {tick.decision.reason}", tick.decision.detail)
        if changed or self._ticks % max(1, round(self.values.control_hz / STATUS_HZ)) == 0:
            self._say.status(self._status(tick))
        if now_s - self._engaged_s > 1.0:
            self._engaged_s = now_s
            self._say.engage()
        self._watch_for_the_end(tick, now_s)

    def _watch_for_the_end(self, tick: Tick, now_s: float) -> None:
        termination, frames, heard_s = self.termination, self.driver.frames.received, self._odometry_s
        driving, speed_mps = tick.decision.drive, tick.speed_mps
        ending = termination.update(now_s, tick.stamp_ns, driving, speed_mps, heard_s, frames, self._off_track)
        if termination.goal:
            self.driver.stop()
        # Asking the graph costs more than a tick: only when odometry has been silent for long.
        silent = not ending and termination.is_gone(now_s, heard_s, 0)
        if silent and not self.count_publishers(ODOMETRY.name):
            ending = "the simulator has left"
        if ending:
            self._session.end(ending)

    def _note(self, what: str, detail: str = "") -> None:
        self._log.event(self._odometry_ns, what, detail)
        self.get_logger().info(f"{what} ({detail})" if detail else what)

    def drive(self) -> int:
        """Run to the end; returns the exit code: 0 when what was asked for was driven or a signal came, else 1."""
        control = threading.Thread(target=self._control_loop, name="control", daemon=True)
        control.start()
        try:
            self._session.spin(self)
        finally:
            self._session.end("an error")
            control.join(5.0)
            # AWSIM goes on with the last command it heard: it must be a stop.
            self.driver.stop()
            for _ in range(3):
                tick = self.driver.tick(self._steady())
                self._say.command(tick.command, tick.speed_mps)
                time.sleep(0.02)
            self._policy.close()
        return self._finish()

    def _finish(self) -> int:
        complete, frames = self.termination.complete, self.driver.frames
        metrics = self._log.finish(
            {
                "ended": self._session.why,
                "laps": self.termination.laps_done,
                "complete": complete,
                "frames": {"received": frames.received, "lost": frames.lost},
                "brakes": dict(self.driver.safety_monitor.brakes),
                "jumps": self.driver.jumps,
                "parameters": self.values,
            }
        )
        if self.termination.failed:
            raise MonoError(self.termination.failed)
        age = metrics["plan_age_s"]
        print(
            f"drive ended: {self._session.why}; laps {self.termination.laps_done:g}; "
            f"control {metrics['control_rate_hz']} Hz; "
            + (f"plan age p50 {age['p50']:.2f} s, p95 {age['p95']:.2f} s; " if age else "no plan was driven; ")
            + f"frames lost {self.driver.frames.lost} of {self.driver.frames.received + self.driver.frames.lost}; "
            f"{self._out / 'metrics.json'}",
            flush=True,
        )
        print(deviation_line(self._out), flush=True)
        return 0 if complete or self._session.why.startswith("SIG") else 1


def deviation_line(folder: Path) -> str:
    """How far a finished drive strayed, in a line; `alpamayo-mono measure` and the report say it in full."""
    from closed_loop.comparison.measure import measure_drive

    try:
        drive = measure_drive(folder)
    except MonoError as error:
        return f"deviation not measured: {error}"
    rms_m, curves, road = drive.summary["all"]["rms_m"], drive.summary["on_curves"], drive.measured.road.name
    if rms_m is not None and rms_m > FOREIGN_M:
        return f"deviation not measured: the track does not lie on the course {road}; name it with course:="
    if curves["max_m"] is None:
        return "deviation not measured: no curve was reached"
    return (
        f"from {drive.summary['reference']}: max {curves['max_m']:.2f} m, RMS {curves['rms_m']:.2f} m on curves; "
        f"off the road {drive.summary['off_track_events']} times; full table: alpamayo-mono measure {folder}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: ``python -m closed_loop.ros.drive_node``, and the console script of the ROS package."""
    return node_main(DriveNode, DriveNode.drive, arguments)


if __name__ == "__main__":
    sys.exit(main())
