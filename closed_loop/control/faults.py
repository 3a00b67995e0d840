"""What can be made to go wrong between world and driver, the same in process and over ROS 2.

Frames and odometry pass through :class:`closed_loop.simulator.sensors.Sensors`, answers of the policy through
:class:`closed_loop.control.driver.Driver`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from collector.common.errors import MonoError
from finetune.policy import FUTURE_STEPS, STEP_S


@dataclass(frozen=True)
class Faults:
    """Nothing goes wrong by default."""

    latency_s: float = 0.0  # vehicle seconds from a frame to the earliest use of its plan ...
    jitter_s: float = 0.0  # ... and up to so many more, drawn for each plan
    drop_share: float = 0.0  # share of the camera frames that get lost
    black_share: float = 0.0  # share of the camera frames that arrive black
    camera_fail_after_s: float = 0.0  # simulated seconds after which the camera goes silent; 0 never
    # position_noise_m, yaw_noise_rad, speed_noise_mps: standard deviation of white noise on x and y, on the yaw and on
    # the speed of each odometry message
    position_noise_m: float = 0.0
    yaw_noise_rad: float = 0.0
    speed_noise_mps: float = 0.0
    fault_seed: int = 0  # seed of what is drawn

    def __post_init__(self) -> None:
        if not 0.0 <= self.latency_s < FUTURE_STEPS * STEP_S:
            raise MonoError(f"latency_s = {self.latency_s}", "0 to 6.4 s")
        if not 0.0 <= self.jitter_s < FUTURE_STEPS * STEP_S:
            raise MonoError(f"jitter_s = {self.jitter_s}", "0 to 6.4 s")
        for name in ("drop_share", "black_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise MonoError(f"{name} = {getattr(self, name)}", "a share, 0 to 1")

    def late_ns(self, stamp_ns: int) -> int:
        """How late the plan of a frame may be used, by its stamp and the seed alone."""
        drawn = np.random.default_rng([37, self.fault_seed, abs(stamp_ns)]).random() if self.jitter_s else 0.0
        return round((self.latency_s + drawn * self.jitter_s) * 1e9)


NO_FAULTS = Faults()
