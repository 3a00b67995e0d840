"""How long a kart has been off the road of a named course: a drive that has lost it need not go on for its time.

Pure numpy. A course that lies elsewhere (another map) is no road to be off, so counting begins once the kart has
been seen wholly on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from closed_loop.control.kart import VehicleParams, footprint
from closed_loop.course.course import Course

# A kart this far from the line may have come back to another stretch: the whole course is searched again.
_LOST_M = 10.0


@dataclass
class OffRoadWatch:
    """Follows one kart.

    Attributes:
        road: whose edges count.
        vehicle: the kart's outline.
    """

    road: Course
    vehicle: VehicleParams = field(default_factory=VehicleParams)
    _station_m: float | None = None
    _seen_on_road: bool = False
    _left_ns: int | None = None
    _last_ns: int | None = None

    def update(self, stamp_ns: int, pose_map: ArrayLike) -> float:
        """Take a pose.

        Args:
            stamp_ns: its stamp; a clock that goes back starts anew.
            pose_map: (3,) of the rear axle's middle.

        Returns:
            Seconds since a corner of the kart crossed the edge; 0 on the road, and before it was ever on it.
        """
        if self._last_ns is not None and stamp_ns < self._last_ns:
            self._station_m = self._left_ns = None
        self._last_ns = stamp_ns
        pose = np.asarray(pose_map, np.float64)
        foot = self.road.project(pose[:2], self._station_m)
        self._station_m = None if abs(float(foot.lateral_m)) > _LOST_M else float(foot.s_m)
        left_m, right_m = self.road.beyond_edges_m(footprint(pose, self.vehicle), float(foot.s_m))
        if max(left_m.max(), right_m.max()) <= 0.0:
            self._seen_on_road, self._left_ns = True, None
        elif self._left_ns is None and self._seen_on_road:
            self._left_ns = stamp_ns
        return 0.0 if self._left_ns is None else (stamp_ns - self._left_ns) * 1e-9
