"""What the driving node hears, by the rules it drives by: each message to plain data, and one call into the driver.

By the rules of the end-to-end class: camera, velocity, steering, gear, and ``/clock`` (which rclpy subscribes to).
Driving freely: the localisation's odometry in place of the wheels, and the session's status and state.
"""

from __future__ import annotations

from collections.abc import Callable

from rclpy.node import Node

from closed_loop.control.buffers import Pose
from closed_loop.control.driver import Driver
from closed_loop.control.wheel_odometry import WheelOdometry
from closed_loop.ros.orders import Orders
from closed_loop.ros.session_state import SessionState
from closed_loop.ros.termination import DriveTermination
from collector.common.errors import MonoError
from collector.ros.conversions import odometry_of, rgb_of, stamp_ns_of
from collector.ros.families import Family
from collector.ros.message_packages import message_class
from collector.ros.parameters import Rules
from collector.ros.topics import (
    AWSIM_STATE,
    AWSIM_STATUS,
    CAMERA_IMAGE,
    GEAR_DRIVE,
    GEAR_REVERSES,
    GEAR_STATUS,
    ODOMETRY,
    STEERING_STATUS,
    VELOCITY_STATUS,
    Message,
    Topic,
    qos_profile,
)
from collector.vehicle.dead_reckoning import Reckoned
from collector.vehicle.model import VehicleModel


class DriveInputs:
    """The subscriptions of a driving node.

    ``placed`` is told every pose that the driver took (stamp, pose, speed), ``note`` what is worth a line in the log,
    ``engage`` that gear and control mode are to be asked for again.
    """

    def __init__(
        self,
        node: Node,
        rules: Rules,
        family: Family,
        vehicle: VehicleModel,
        driver: Driver,
        termination: DriveTermination,
        folder: str,
        clock: Callable[[], float],
        placed: Callable[[int, Pose, float], None],
        note: Callable[[str, str], None],
        engage: Callable[[], None],
    ) -> None:
        self.pose_topic: Topic = VELOCITY_STATUS if rules == "e2e" else ODOMETRY
        self.pose_ns: int | None = None  # stamp of the newest message that a pose comes from ...
        self.pose_s: float | None = None  # ... and when it arrived
        self._node, self._driver, self._termination, self._steady = node, driver, termination, clock
        self._placed, self._note, self._engage = placed, note, engage
        self._wheels = WheelOdometry(driver, vehicle)
        self._said: set[str] = set()  # each kind of trouble is said once
        self._gear: int | None = None
        self._session: SessionState | None = None
        self.orders = Orders(node, driver, termination, folder, self._told)
        wheels = ((VELOCITY_STATUS, self.on_velocity), (STEERING_STATUS, self.on_steering), (GEAR_STATUS, self.on_gear))
        free = ((ODOMETRY, self.on_odometry), (AWSIM_STATUS, self.on_status), (AWSIM_STATE, self.on_state))
        for topic, callback in ((CAMERA_IMAGE, self.on_image), *(wheels if rules == "e2e" else free)):
            node.create_subscription(message_class(family.topic(topic).type), topic.name, callback, qos_profile(topic))

    def on_image(self, message: Message) -> None:
        """A camera frame."""
        try:
            image = rgb_of(message)
        except MonoError as error:
            # The safety monitor brakes for want of frames, and this says why there are none.
            self._say_once(str(error))
            return
        self._driver.frame(stamp_ns_of(message.header.stamp), {"front": image}, self._steady())

    def on_odometry(self, message: Message) -> None:
        """The pose of a localisation."""
        stamp_ns, pose_map, speed_mps = odometry_of(message)
        steady_s = self._steady()
        self.pose_ns, self.pose_s = stamp_ns, steady_s
        if self._driver.odometry(stamp_ns, pose_map, speed_mps, message.twist.twist.angular.z, steady_s):
            self._placed(stamp_ns, pose_map, speed_mps)

    def on_velocity(self, message: Message) -> None:
        """What the wheels say of speed; the heading rate may be anything."""
        stamp_ns, steady_s = stamp_ns_of(message.header.stamp), self._steady()
        self.pose_ns, self.pose_s = stamp_ns, steady_s
        speed_mps, heading_rate = float(message.longitudinal_velocity), float(message.heading_rate)
        self._reckoned(self._wheels.velocity(stamp_ns, speed_mps, heading_rate, steady_s))

    def on_steering(self, message: Message) -> None:
        """The tyre angle."""
        place = self._wheels.steering(stamp_ns_of(message.stamp), float(message.steering_tire_angle), self._steady())
        self._reckoned(place)

    def _reckoned(self, place: Reckoned | None) -> None:
        for kind in self._wheels.refused.keys() - self._said:
            self._say_once(kind, f"not used: {kind}")
        if place is not None:
            self._placed(place.stamp_ns, place.pose_odom, place.speed_mps)

    def on_gear(self, message: Message) -> None:
        """The gear: whenever it is another than drive it is asked for anew, and in reverse the kart is not driven."""
        gear, before = int(message.report), self._gear
        self._gear = gear
        self._driver.safety_monitor.is_reverse = gear in GEAR_REVERSES
        if gear != before:
            if gear != GEAR_DRIVE or before is not None:
                self._note("gear", f"{gear}, wanted {GEAR_DRIVE}" if gear != GEAR_DRIVE else "drive again")
            self._engage()

    def on_status(self, message: Message) -> None:
        """The session's numbers, laps among them."""
        if self._termination.status(list(message.data)):
            self._note("lap", f"{self._termination.laps_done:g} done")

    def on_state(self, message: Message) -> None:
        """The session's state."""
        self._session = self._session or SessionState()
        if not self._session.heard(message.data):
            self._say_once(message.data, f"{AWSIM_STATE.name} says {message.data!r}, which changes nothing")
        self.orders.hold(self._session.hold(self._steady(), 1))
        self._engage()
        if self._session.finished:
            self._termination.give_up("the session is finished")

    def _told(self, what: str, detail: str) -> None:
        self._note(what, detail)
        self._engage()

    def _say_once(self, kind: str, text: str = "") -> None:
        if kind not in self._said:
            self._said.add(kind)
            self._node.get_logger().error(text or kind)
