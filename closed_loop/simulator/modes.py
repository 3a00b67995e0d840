"""What the simulator plays: a session of AWSIM's development script, or of its end-to-end one as far as it is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from collector.ros.topics import CAMERA_IMAGE
from collector.vehicle.model import KART, VehicleModel

ModeName = Literal["dev", "e2e"]


@dataclass(frozen=True)
class Mode:
    """How a session differs from another."""

    localised: bool = True  # whether the kart's pose is published
    physics_hz: float = 100.0
    camera_hz: float = CAMERA_IMAGE.rate_hz or 0.0
    steering_gain: float = KART.steering_gain  # of a kart that no file describes
    sticks_below_mps2: float = KART.sticks_below_mps2
    wild_heading_share: float = 0.0  # part of the velocity reports whose heading rate is garbage

    def vehicle(self, given: VehicleModel | None) -> VehicleModel:
        """The kart that is moved: one that a file describes, or the mode's own."""
        kart = given or replace(KART, steering_gain=self.steering_gain)
        return replace(kart, sticks_below_mps2=max(kart.sticks_below_mps2, self.sticks_below_mps2))


# Of the 2026 end-to-end sessions participants measured: a picture every 105 ms (AWSIM steps by 5 ms), heading rates of
# +-1256 rad/s and NaN, wheels that turn by 0.6 of what is asked, and a kart that 0.3 m/s^2 does not start, but 0.6.
MODES: Mapping[ModeName, Mode] = {"dev": Mode(), "e2e": Mode(False, 200.0, 1.0 / 0.105, 0.6, 0.4, 0.2)}
