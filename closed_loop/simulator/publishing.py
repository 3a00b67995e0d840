"""What the simulator says: the kart's state as the Challenge's messages, each from one call.

Plain data in, messages out; which of them is due when is decided in :mod:`closed_loop.simulator.node`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node

from closed_loop.control.kart import Command, VehicleParams
from closed_loop.simulator.camera import Camera
from closed_loop.simulator.vehicle import VehicleState, yaw_rate_radps
from collector.ros.conversions import fill_image, set_pose, set_stamp
from collector.ros.message_packages import message_class
from collector.ros.topics import (
    AWSIM_STATE,
    AWSIM_STATUS,
    BASE_FRAME,
    CAMERA_FRAME,
    CAMERA_IMAGE,
    CAMERA_INFO,
    CLOCK,
    CONTROL_CMD,
    CONTROL_MODE,
    FROM_SIMULATOR,
    GEAR_STATUS,
    ODOMETRY,
    STEERING_STATUS,
    TF_STATIC,
    VELOCITY_STATUS,
    Topic,
    qos_profile,
)


class Publishing:
    """The simulator's publishers.

    Args:
        node: the node they belong to.
        camera: mounted on the kart; None for a simulator without one, which then has no camera topics.
        params: the kart, for its yaw rate.
        expert: whether ``control_cmd`` is ours to publish.
    """

    def __init__(self, node: Node, camera: Camera | None, params: VehicleParams, expert: bool) -> None:
        self._params = params
        topics = [topic for topic in FROM_SIMULATOR if camera or topic not in (CAMERA_IMAGE, CAMERA_INFO)]
        if expert:
            topics.append(CONTROL_CMD)
        self._types = {topic: message_class(topic.type) for topic in topics}
        self._publishers = {
            topic: node.create_publisher(self._types[topic], topic.name, qos_profile(topic)) for topic in topics
        }
        self._info = self._camera_info(camera) if camera else None
        self._transforms(camera)

    def clock(self, stamp_ns: int) -> None:
        message = self._types[CLOCK]()
        set_stamp(message.clock, stamp_ns)
        self._send(CLOCK, message)

    def odometry(self, stamp_ns: int, state: VehicleState) -> None:
        """The true pose of the rear axle, where a localisation would say its estimate."""
        message = self._stamped(ODOMETRY, stamp_ns)
        message.child_frame_id = BASE_FRAME
        set_pose(message.pose.pose, state.pose)
        message.twist.twist.linear.x = float(state.speed_mps)
        message.twist.twist.angular.z = yaw_rate_radps(state, self._params)
        self._send(ODOMETRY, message)

    def vehicle(self, stamp_ns: int, state: VehicleState, gear: int, mode: int) -> None:
        """Speed, applied tyre angle, gear and control mode."""
        velocity = self._stamped(VELOCITY_STATUS, stamp_ns)
        velocity.longitudinal_velocity = float(state.speed_mps)
        velocity.heading_rate = yaw_rate_radps(state, self._params)
        self._send(VELOCITY_STATUS, velocity)
        for topic, field, value in (
            (STEERING_STATUS, "steering_tire_angle", float(state.steer_rad)),
            (GEAR_STATUS, "report", gear),
            (CONTROL_MODE, "mode", mode),
        ):
            message = self._types[topic]()
            set_stamp(message.stamp, stamp_ns)
            setattr(message, field, value)
            self._send(topic, message)

    def command(self, stamp_ns: int, command: Command, state: VehicleState) -> None:
        """The expert's command, as a team's controller would publish it."""
        message = self._types[CONTROL_CMD]()
        for stamp in (message.stamp, message.lateral.stamp, message.longitudinal.stamp):
            set_stamp(stamp, stamp_ns)
        message.lateral.steering_tire_angle = float(command.steer_rad)
        message.longitudinal.acceleration = float(command.accel_mps2)
        message.longitudinal.speed = float(state.speed_mps)
        self._send(CONTROL_CMD, message)

    def frame(self, stamp_ns: int, image_rgb: NDArray[np.uint8]) -> None:
        """A camera image and its camera info, both with the stamp of the instant they show."""
        if self._info is None:
            return
        message = self._stamped(CAMERA_IMAGE, stamp_ns)
        fill_image(message, image_rgb)
        self._send(CAMERA_IMAGE, message)
        set_stamp(self._info.header.stamp, stamp_ns)
        self._send(CAMERA_INFO, self._info)

    def status(self, fields: Sequence[float]) -> None:
        """The seven numbers of ``/awsim/status``, see :data:`collector.ros.topics.AWSIM_STATUS_FIELDS`."""
        self._send(AWSIM_STATUS, self._types[AWSIM_STATUS](data=[float(value) for value in fields]))

    def state(self, name: str) -> None:
        """The session's state, latched."""
        self._send(AWSIM_STATE, self._types[AWSIM_STATE](data=name))

    def _send(self, topic: Topic, message: Any) -> None:
        self._publishers[topic].publish(message)

    def _stamped(self, topic: Topic, stamp_ns: int) -> Any:
        message = self._types[topic]()
        message.header.frame_id = topic.frame_id
        set_stamp(message.header.stamp, stamp_ns)
        return message

    def _camera_info(self, camera: Camera) -> Any:
        info = self._types[CAMERA_INFO]()
        info.header.frame_id = CAMERA_INFO.frame_id
        info.height, info.width = camera.height_px, camera.width_px
        info.distortion_model, info.d = "plumb_bob", [0.0] * 5
        matrix = np.asarray(camera.K, np.float64)
        info.k = [float(value) for value in matrix.ravel()]
        info.r = [float(value) for value in np.eye(3).ravel()]
        info.p = [float(value) for value in np.hstack([matrix, np.zeros((3, 1))]).ravel()]
        return info

    def _transforms(self, camera: Camera | None) -> None:
        """Where the camera sits, latched: its optical frame looks along z, with x to the right."""
        message = self._types[TF_STATIC]()
        if camera is not None:
            transform = message_class("geometry_msgs/msg/TransformStamped")()
            transform.header.frame_id, transform.child_frame_id = BASE_FRAME, CAMERA_FRAME
            place = transform.transform.translation
            place.x, place.y, place.z = float(camera.x_m), float(camera.y_m), float(camera.z_m)
            rotation = transform.transform.rotation
            rotation.x, rotation.y, rotation.z, rotation.w = quaternion_of(camera.rotation)
            message.transforms.append(transform)
        self._send(TF_STATIC, message)


def quaternion_of(matrix: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """(x, y, z, w) of a rotation matrix (3, 3), w not negative."""
    # Four equal answers up to a factor; the one with the largest diagonal never vanishes.
    candidates = np.array(
        [
            1 + matrix[0, 0] - matrix[1, 1] - matrix[2, 2],
            1 - matrix[0, 0] + matrix[1, 1] - matrix[2, 2],
            1 - matrix[0, 0] - matrix[1, 1] + matrix[2, 2],
            1 + np.trace(matrix),
        ]
    )
    symmetric, skew = matrix + matrix.T, matrix - matrix.T
    rows = np.array(
        [
            [candidates[0], symmetric[0, 1], symmetric[0, 2], skew[2, 1]],
            [symmetric[0, 1], candidates[1], symmetric[1, 2], skew[0, 2]],
            [symmetric[0, 2], symmetric[1, 2], candidates[2], skew[1, 0]],
            [skew[2, 1], skew[0, 2], skew[1, 0], candidates[3]],
        ]
    )
    best = rows[int(np.argmax(candidates))]
    x, y, z, w = best / np.linalg.norm(best) * (-1.0 if best[3] < 0.0 else 1.0)
    return float(x), float(y), float(z), float(w)
