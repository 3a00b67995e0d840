"""The evaluator: where the kart really was, laps and off-track, beside a driver that may know none of it.

It hears the localisation, where there is one, and the session; tells the driver when to start and when the drive is
over (:mod:`closed_loop.ros.orders`); and leaves ``truth.npz`` in the driver's folder, from which `alpamayo-mono
measure` has the lateral deviation. The driver does not know it: without it, or after its end, it goes on driving.

    python -m closed_loop.ros.evaluator_node --ros-args -p course:=city -p laps:=1
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rclpy.node import Node

from closed_loop.control.off_track import OffTrackMonitor
from closed_loop.course.design import course_named
from closed_loop.ros.config import GoalParameters
from closed_loop.ros.orders import END, HOLD, LAPS_DONE, DriverLine
from closed_loop.ros.session_state import SessionState
from closed_loop.ros.termination import DriveTermination
from collector.ros.conversions import odometry_of
from collector.ros.message_packages import message_class
from collector.ros.parameters import declare_parameters
from collector.ros.session import Session, node_main
from collector.ros.topics import AWSIM_STATE, AWSIM_STATUS, ODOMETRY, Message, qos_profile
from collector.vehicle.model import vehicle_named

_LOOK_S = 0.1
_DRIVER_WRITES_S = 4.0  # the driver's own files come within so many wall seconds of its end


class EvaluatorNode(Node):
    """Subscriptions and judgement; :meth:`evaluate` runs until it is told to end."""

    def __init__(self, session: Session, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__("alpamayo_evaluator")
        self._running, self._steady = session, clock
        self.values = declare_parameters(self, GoalParameters)
        v = self.values
        road = course_named(v.course) if v.course else None
        vehicle = vehicle_named(v.vehicle)
        self._off_track = OffTrackMonitor(road, vehicle) if road is not None else None
        self.goal = DriveTermination(v.laps, off_track_s=v.off_road_s)
        self.session = SessionState()
        self._driver = DriverLine(self)
        self._poses: list[tuple[float, float, float, float, float]] = []
        for topic, callback in (
            (ODOMETRY, self._on_odometry),
            (AWSIM_STATUS, self._on_status),
            (AWSIM_STATE, self._on_state),
        ):
            self.create_subscription(message_class(topic.type), topic.name, callback, qos_profile(topic))

    def _on_odometry(self, message: Message) -> None:
        stamp_ns, pose_map, speed_mps = odometry_of(message)
        if not all(map(math.isfinite, (*pose_map, speed_mps))):
            return
        self._poses.append((stamp_ns * 1e-9, *pose_map, speed_mps))
        if self._off_track is not None and self._off_track.update(stamp_ns, pose_map):
            self.get_logger().info("off the road")

    def _on_status(self, message: Message) -> None:
        if self.goal.status(list(message.data)):
            self.get_logger().info(f"lap ({self.goal.laps_done:g} done)")

    def _on_state(self, message: Message) -> None:
        known = self.session.heard(message.data)
        self.get_logger().info(f"session: {message.data}" + ("" if known else ", which changes nothing"))

    def orders(self, now_s: float) -> dict[str, str | float]:
        """What the driver is to know now."""
        reached = self.goal.judge(0.0, self._off_track)
        # Whoever has driven the laps knows it by their number.
        end = "" if reached and self.goal.complete and self.goal.laps else reached
        if self.session.finished:
            end = end or "the session is finished"
        hold = self.session.hold(now_s, 0 if self.session.state else self.count_publishers(AWSIM_STATE.name))
        return {HOLD: hold, LAPS_DONE: float(self.goal.laps_done), END: end}

    def evaluate(self) -> int:
        """Run until the drive or the session ends; returns the exit code."""
        if self.values.rules == "free":
            print("evaluator: by the rules free the driver counts and judges itself", flush=True)
            return 0
        with self._running.spinning(self):
            while not self._running.stop.wait(_LOOK_S):
                now_s = self._steady()
                self._driver.tell(self.orders(now_s), now_s)
        self._leave_results()
        return 0

    def _leave_results(self) -> None:
        from closed_loop.comparison.measure import TRUTH_FILE, deviation_line

        if not self._driver.folder:
            print("evaluator: no driver was heard, nothing is written", flush=True)
            return
        folder = Path(self._driver.folder)
        events = 0 if self._off_track is None else self._off_track.events
        laps = f"evaluator: laps {self.goal.laps_done:g}"
        if not self._poses:
            print(f"{laps}; nobody published {ODOMETRY.name}, so there is no deviation to measure", flush=True)
            return
        table = np.array(self._poses, np.float64)
        np.savez_compressed(folder / TRUTH_FILE, t_s=table[:, 0], poses_map=table[:, 1:4], speed_mps=table[:, 4])
        until_s = self._steady() + _DRIVER_WRITES_S
        while not (folder / "metrics.json").is_file() and self._steady() < until_s:
            time.sleep(_LOOK_S)
        print(f"{laps}; off the road {events} times as it went; {folder / TRUTH_FILE}", flush=True)
        print(deviation_line(folder), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: ``python -m closed_loop.ros.evaluator_node``, and the console script of the ROS package."""
    return node_main(EvaluatorNode, EvaluatorNode.evaluate, arguments)


if __name__ == "__main__":
    sys.exit(main())
