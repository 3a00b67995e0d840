"""The driver's poses from the wheels alone, as the rules of the end-to-end class ask for: no localisation, no map.

Plans are placed in the frame of the dead reckoning, the history that the model is shown comes from it, and the safety
monitor sees its places as odometry: wheels that fall silent are odometry gone stale.
"""

from __future__ import annotations

from collections.abc import Mapping

from closed_loop.control.driver import Driver
from collector.vehicle.dead_reckoning import DeadReckoning, Reckoned
from collector.vehicle.model import VehicleModel


class WheelOdometry:
    """Hands to a driver what dead reckoning makes of the wheels' reports."""

    def __init__(self, driver: Driver, vehicle: VehicleModel) -> None:
        self._driver, self._reckoning = driver, DeadReckoning(vehicle)
        driver.answers.vehicle = vehicle

    @property
    def refused(self) -> Mapping[str, int]:
        """How many reports were not used, by reason."""
        return self._reckoning.refused

    def velocity(self, stamp_ns: int, speed_mps: float, heading_rate_radps: float, steady_s: float) -> Reckoned | None:
        """Take a velocity report; the new place of the kart, where there is one."""
        return self._handed_on(self._reckoning.velocity(stamp_ns, speed_mps, heading_rate_radps), steady_s)

    def steering(self, stamp_ns: int, tire_angle_rad: float, steady_s: float) -> Reckoned | None:
        """Take a steering report likewise."""
        if not self._driver.wheels(tire_angle_rad):
            return None
        return self._handed_on(self._reckoning.steering(stamp_ns, tire_angle_rad), steady_s)

    def _handed_on(self, place: Reckoned | None, steady_s: float) -> Reckoned | None:
        if place is not None:
            self._driver.odometry(place.stamp_ns, place.pose_odom, place.speed_mps, place.yaw_rate_radps, steady_s)
        return place
