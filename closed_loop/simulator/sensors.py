"""What reaches a driver from a world: odometry and camera frames at their rates, with the faults that are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from closed_loop.control.faults import NO_FAULTS, Faults
from closed_loop.simulator.camera import Camera
from closed_loop.simulator.pacing import is_due
from closed_loop.simulator.scene import Scene
from closed_loop.simulator.vehicle import VehicleState, yaw_rate_radps
from closed_loop.simulator.world import World
from collector.ros.topics import ODOMETRY, VELOCITY_STATUS

# What AWSIM was seen to say.
WILD_HEADING_RATES = (1256.0, -1256.0, float("nan"))


class CameraView(Mapping[str, NDArray[np.uint8]]):
    """The cameras' pictures from one pose, each rendered when it is first looked at."""

    def __init__(self, scene: Scene, cameras: Sequence[Camera], pose_map: NDArray[np.float64], black: bool) -> None:
        self._cameras = {camera.name: camera for camera in cameras}
        self._scene, self._pose_map, self._black = scene, pose_map, black
        self._rendered: dict[str, NDArray[np.uint8]] = {}

    def __getitem__(self, name: str) -> NDArray[np.uint8]:
        if name not in self._rendered:
            image = self._scene.render(self._cameras[name], self._pose_map)
            self._rendered[name] = np.zeros_like(image) if self._black else image
        return self._rendered[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._cameras)

    def __len__(self) -> int:
        return len(self._cameras)


@dataclass(frozen=True)
class WheelReport:
    """What the kart says of its wheels."""

    speed_mps: float
    heading_rate_radps: float
    tire_angle_rad: float


class Sensors:
    """Odometry, wheels and cameras of the kart in a world, and what goes wrong with both."""

    def __init__(self, world: World, cameras: Sequence[Camera], faults: Faults = NO_FAULTS) -> None:
        self.cameras = tuple(cameras)
        self._world, self._faults = world, faults
        self._draws = [np.random.default_rng([31, faults.fault_seed, stream]) for stream in range(3)]

    def odometry(self, step: int) -> VehicleState | None:
        """The state a localisation would report at this physics step; None where none is due."""
        f, state = self._faults, self._world.state
        if not is_due(step, ODOMETRY.rate_hz or 0.0, self._world.config.physics_hz):
            return None
        if not (f.position_noise_m or f.yaw_noise_rad or f.speed_noise_mps):
            return state
        scale = (f.position_noise_m, f.position_noise_m, f.yaw_noise_rad, f.speed_noise_mps)
        noise = (self._draws[0].standard_normal(4) * scale).tolist()
        noisy = {
            name: getattr(state, name) + each
            for name, each in zip(("x_m", "y_m", "yaw_rad", "speed_mps"), noise, strict=True)
        }
        return replace(state, **noisy)

    def wheels(self, step: int) -> WheelReport | None:
        """What the wheels report at this physics step; None where no report is due."""
        world, state = self._world, self._world.state
        if not is_due(step, VELOCITY_STATUS.rate_hz or 0.0, world.config.physics_hz):
            return None
        vehicle = world.config.vehicle
        heading_rate = yaw_rate_radps(state, vehicle)
        if world.config.wild_heading_share:
            wild, which = self._draws[2].random(2)
            if wild < world.config.wild_heading_share:
                heading_rate = WILD_HEADING_RATES[int(which * len(WILD_HEADING_RATES))]
        return WheelReport(state.speed_mps / vehicle.speed_scale, heading_rate, state.steer_rad / vehicle.report_scale)

    def frame(self, step: int) -> CameraView | None:
        """What the cameras show at this physics step; None where no frame is due, or the one due is lost."""
        f, world = self._faults, self._world
        if not self.cameras or not is_due(step, world.config.camera_hz, world.config.physics_hz):
            return None
        lost, black = self._draws[1].random(2) < (f.drop_share, f.black_share)
        if lost or (f.camera_fail_after_s and world.time_s >= f.camera_fail_after_s):
            return None
        return CameraView(world.scene, self.cameras, world.pose, bool(black))
