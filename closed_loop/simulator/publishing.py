"""What the simulator says: the kart's state as the Challenge's messages, each from one call.

Plain data in, messages out; which of them is due when is decided in :mod:`closed_loop.simulator.node`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node

from closed_loop.simulator.camera import Camera
from closed_loop.simulator.sensors import WheelReport
from closed_loop.simulator.vehicle import VehicleState, yaw_rate_radps
from collector.ros import topics
from collector.ros.conversions import fill_image, set_pose, set_stamp
from collector.ros.families import Family
from collector.ros.message_packages import message_class
from collector.vehicle.kart import Command
from collector.vehicle.model import VehicleModel


class Publishing:
    """The simulator's publishers, and one message each that is filled anew: publishing copies it.

    Without a camera there are no camera topics, without localisation there is no odometry; ``expert`` says whether
    ``control_cmd`` is ours to publish, ``manners`` whether the expert has any to tell.
    """

    def __init__(
        self,
        node: Node,
        camera: Camera | None,
        params: VehicleModel,
        expert: bool,
        family: Family,
        localised: bool = True,
        manners: bool = False,
    ) -> None:
        self._params, self._family, self._localised = params, family, localised
        absent = [*(() if camera else (topics.CAMERA_IMAGE, topics.CAMERA_INFO))]
        absent += [] if localised else [topics.ODOMETRY]
        spoken = [topic for topic in topics.FROM_SIMULATOR if topic not in absent]
        if expert:
            spoken.append(topics.CONTROL_CMD)
        if manners:
            spoken.append(topics.MANNER)
        self._messages: dict[topics.Topic, Any] = {topic: message_class(family.topic(topic).type)() for topic in spoken}
        self._publishers = {
            topic: node.create_publisher(type(message), topic.name, topics.qos_profile(topic))
            for topic, message in self._messages.items()
        }
        for topic, message in self._messages.items():
            if topic.frame_id:
                message.header.frame_id = topic.frame_id
        if localised:
            self._messages[topics.ODOMETRY].child_frame_id = topics.BASE_FRAME
        if camera:
            self._mount(camera)
        self._send(topics.TF_STATIC)

    def clock(self, stamp_ns: int) -> None:
        """Simulated time."""
        set_stamp(self._messages[topics.CLOCK].clock, stamp_ns)
        self._send(topics.CLOCK)

    def odometry(self, stamp_ns: int, state: VehicleState) -> None:
        """The true pose of the rear axle, where a localisation would say its estimate, if there is one."""
        if not self._localised:
            return
        message = self._messages[topics.ODOMETRY]
        set_pose(message.pose.pose, state.pose)
        message.twist.twist.linear.x = float(state.speed_mps)
        message.twist.twist.angular.z = yaw_rate_radps(state, self._params)
        self._send(topics.ODOMETRY, message.header.stamp, stamp_ns)

    def vehicle(self, stamp_ns: int, wheels: WheelReport, gear: int, mode: int) -> None:
        """Reported speed and tyre angle, gear and control mode."""
        velocity = self._messages[topics.VELOCITY_STATUS]
        velocity.longitudinal_velocity, velocity.heading_rate = wheels.speed_mps, wheels.heading_rate_radps
        self._send(topics.VELOCITY_STATUS, velocity.header.stamp, stamp_ns)
        self._messages[topics.STEERING_STATUS].steering_tire_angle = wheels.tire_angle_rad
        self._messages[topics.GEAR_STATUS].report = gear
        self._messages[topics.CONTROL_MODE].mode = mode
        for topic in (topics.STEERING_STATUS, topics.GEAR_STATUS, topics.CONTROL_MODE):
            self._send(topic, self._messages[topic].stamp, stamp_ns)

    def command(self, stamp_ns: int, command: Command, state: VehicleState) -> None:
        """The expert's command, as a team's controller would publish it."""
        message = self._messages[topics.CONTROL_CMD]
        self._family.fill_command(message, stamp_ns, command.steer_rad, command.accel_mps2, state.speed_mps)
        self._send(topics.CONTROL_CMD)

    def frame(self, stamp_ns: int, image_rgb: NDArray[np.uint8]) -> None:
        """A camera image and its camera info, both with the stamp of the instant they show."""
        fill_image(self._messages[topics.CAMERA_IMAGE], image_rgb)
        for topic in (topics.CAMERA_IMAGE, topics.CAMERA_INFO):
            self._send(topic, self._messages[topic].header.stamp, stamp_ns)

    def status(self, fields: Sequence[float]) -> None:
        """The seven numbers of ``/awsim/status``, see :data:`collector.ros.topics.AWSIM_STATUS_FIELDS`."""
        self._messages[topics.AWSIM_STATUS].data = [float(value) for value in fields]
        self._send(topics.AWSIM_STATUS)

    def manner(self, words: str) -> None:
        """How the expert drives from now on."""
        self._messages[topics.MANNER].data = words
        self._send(topics.MANNER)

    def state(self, name: str) -> None:
        """The session's state, latched."""
        self._messages[topics.AWSIM_STATE].data = name
        self._send(topics.AWSIM_STATE)

    def _send(self, topic: topics.Topic, stamp: Any = None, stamp_ns: int = 0) -> None:  # noqa: ANN401 - a ROS message's Time
        if stamp is not None:
            set_stamp(stamp, stamp_ns)
        self._publishers[topic].publish(self._messages[topic])

    def _mount(self, camera: Camera) -> None:
        """What does not change of the camera: its matrix, and where it sits (its optical axes look along z)."""
        info = self._messages[topics.CAMERA_INFO]
        info.height, info.width = camera.height_px, camera.width_px
        info.distortion_model, info.d = "plumb_bob", [0.0] * 5
        info.k, info.r = camera.K.ravel().tolist(), np.eye(3).ravel().tolist()
        info.p = np.hstack([camera.K, np.zeros((3, 1))]).ravel().tolist()
        transform = message_class("geometry_msgs/msg/TransformStamped")()
        transform.header.frame_id, transform.child_frame_id = topics.BASE_FRAME, topics.CAMERA_FRAME
        place, turn = transform.transform.translation, transform.transform.rotation
        place.x, place.y, place.z = float(camera.x_m), float(camera.y_m), float(camera.z_m)
        turn.x, turn.y, turn.z, turn.w = quaternion_of(camera.rotation)
        self._messages[topics.TF_STATIC].transforms.append(transform)


def quaternion_of(matrix: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """(x, y, z, w) of a rotation matrix (3, 3), w not negative.

    The eigenvector of the largest eigenvalue of a symmetric matrix, which no angle makes vanish (I. Bar-Itzhack, "New
    Method for Extracting the Quaternion from a Rotation Matrix", 2000).
    """
    skew = matrix - matrix.T
    table = np.zeros((4, 4))
    table[:3, :3] = matrix + matrix.T - np.trace(matrix) * np.eye(3)
    table[3] = table[:, 3] = (skew[2, 1], skew[0, 2], skew[1, 0], np.trace(matrix))
    best = np.linalg.eigh(table)[1][:, -1]
    x, y, z, w = (best * (-1.0 if best[3] < 0.0 else 1.0)).tolist()
    return x, y, z, w
