"""Where the kart is by its wheels alone: reported speed and tyre angle, added up as a kinematic bicycle.

The pose is in a frame of its own, which begins where the reckoning begins and drifts: over the seconds of a plan it is
as good as a map. Reports that no kart makes are refused, one by one, and counted with their reason.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass

from collector.geometry.constants import NS_PER_S
from collector.geometry.discontinuity import LATE, discontinuity
from collector.geometry.poses import advance
from collector.vehicle.model import VehicleModel

LONGEST_GAP_S = 1.0  # what was driven in a longer silence is not known: the reckoning goes on from where it was
_MOST_MPS, _MOST_RAD = 40.0, 1.2  # no kart is faster, no wheel is turned farther
# Between two reports no kart changes by more than this and so much per second; one that does needs a second to agree.
_LEAP_MPS, _LEAP_MPS2 = 2.0, 15.0
_LEAP_RAD, _LEAP_RADPS = 0.2, 4.0
_MOST_KEPT = 1000  # reports that wait for the other stream
# A reported yaw rate is used once it has followed so many reports of a bend within these bounds, until it fails to.
_AGREED_REPORTS = 5
_BEND_RADPS, _AGREES_RADPS, _AGREES_SHARE = 0.1, 0.02, 0.15


Pose = tuple[float, float, float]


@dataclass(frozen=True)
class Reckoned:
    """Where the kart is, and how it moves, at one stamp."""

    stamp_ns: int
    pose_odom: Pose  # x, y, yaw of the rear axle's middle since the reckoning began
    speed_mps: float  # over ground, negative backwards
    yaw_rate_radps: float


class Reports:
    """One stream of numbers by stamp, what is no number of a kart left out."""

    def __init__(self, what: str, most: float, leap: float, leap_per_s: float) -> None:
        self.what, self._most, self._leap, self._leap_per_s = what, most, leap, leap_per_s
        self.kept: deque[tuple[int, float]] = deque(maxlen=_MOST_KEPT)
        self._doubted: float | None = None

    def defect(self, stamp_ns: int, value: float) -> str:
        """Take a report; why it is not used, or an empty string."""
        if not abs(value) <= self._most:  # not a number, too
            return f"{self.what} that no kart has"
        step_ns = stamp_ns - self.kept[-1][0] if self.kept else 0
        if self.kept:
            why = discontinuity(step_ns, 0.0, max_gap_s=LONGEST_GAP_S)
            if why == LATE:
                return f"{self.what} whose stamp is not newer"
            if why:
                self.kept.clear()
            elif self._leaps(self.kept[-1][1], value, step_ns):
                agreed = self._doubted is not None and not self._leaps(self._doubted, value, step_ns)
                self._doubted = value
                if not agreed:
                    return f"{self.what} far from the one before"
        self._doubted = None
        self.kept.append((stamp_ns, value))
        return ""

    def _leaps(self, before: float, value: float, step_ns: int) -> bool:
        return abs(value - before) > self._leap + self._leap_per_s * step_ns / NS_PER_S

    def at(self, stamp_ns: int) -> float:
        """Between the two reports around a covered stamp."""
        before_ns, before = self.kept[0]
        for after_ns, after in self.kept:
            if after_ns >= stamp_ns:
                share = (stamp_ns - before_ns) / (after_ns - before_ns) if after_ns > before_ns else 1.0
                return before + share * (after - before)
            before_ns, before = after_ns, after
        return before

    def forget(self, before_ns: int) -> None:
        """Keep what is needed from this stamp on."""
        while len(self.kept) > 1 and self.kept[1][0] <= before_ns:
            self.kept.popleft()


class DeadReckoning:
    """Adds up velocity and steering reports, in whatever order they come; each call gives the newest place, if new.

    A place is reckoned at the newest stamp that both streams reach: reports of one stamp give it with the second of
    them, and when one stream is silent there is none. ``refused`` counts the reports that were not used, by reason.
    """

    def __init__(self, model: VehicleModel) -> None:
        self.model = model
        self.newest: Reckoned | None = None
        self.refused: Counter[str] = Counter()
        self._speed = Reports("a speed", _MOST_MPS, _LEAP_MPS, _LEAP_MPS2)
        self._angle = Reports("a tyre angle", _MOST_RAD, _LEAP_RAD, _LEAP_RADPS)
        self._yaw_rates: deque[tuple[int, float]] = deque(maxlen=32)
        self._agreed = 0

    def velocity(self, stamp_ns: int, speed_mps: float, heading_rate_radps: float = math.nan) -> Reckoned | None:
        """Take what the wheels report; the heading rate may be anything."""
        if not self._refused(self._speed, stamp_ns, speed_mps):
            self._yaw_rates.append((stamp_ns, heading_rate_radps))
        return self._reckon()

    def steering(self, stamp_ns: int, tire_angle_rad: float) -> Reckoned | None:
        """Take the reported tyre angle, left positive."""
        self._refused(self._angle, stamp_ns, tire_angle_rad)
        return self._reckon()

    def at(self, stamp_ns: int) -> Reckoned | None:
        """The newest place carried to a stamp at constant speed and yaw rate; None before there is one."""
        if self.newest is None:
            return None
        pose, speed, yaw_rate = self.newest.pose_odom, self.newest.speed_mps, self.newest.yaw_rate_radps
        seconds = (stamp_ns - self.newest.stamp_ns) / NS_PER_S
        return Reckoned(stamp_ns, _arc(pose, speed * seconds, yaw_rate * seconds), speed, yaw_rate)

    def _refused(self, reports: Reports, stamp_ns: int, value: float) -> bool:
        defect = reports.defect(stamp_ns, value)
        if defect:
            self.refused[defect] += 1
        return bool(defect)

    def _reckon(self) -> Reckoned | None:
        speeds, angles, last = self._speed.kept, self._angle.kept, self.newest
        if not speeds or not angles:
            return None
        until_ns = min(speeds[-1][0], angles[-1][0])
        if until_ns < max(speeds[0][0], angles[0][0]):
            return None  # one of the clocks was turned back, and the other not yet
        if last is not None:
            why = discontinuity(until_ns - last.stamp_ns, 0.0, max_gap_s=LONGEST_GAP_S)
            if why == LATE:
                return None
            if why:  # the place stays, and what was driven meanwhile is not known
                self._agreed, last = 0, self._moved(until_ns, last.pose_odom, None)
        last = last or self._moved(until_ns, (0.0, 0.0, 0.0), None)
        knots = {stamp for stamp, _ in (*speeds, *angles) if last.stamp_ns < stamp <= until_ns}
        for stamp_ns in sorted(knots):
            last = self._moved(stamp_ns, last.pose_odom, last)
        for reports in (self._speed, self._angle):
            reports.forget(until_ns)
        self.newest = last
        return last

    def _moved(self, stamp_ns: int, pose: Pose, last: Reckoned | None) -> Reckoned:
        """The place at a stamp, driven to from the last one, or where nothing is known of the way, there."""
        speed = self.model.speed_scale * self._speed.at(stamp_ns)
        yaw_rate = self._yaw_rate(stamp_ns, speed * self.model.curvature_1pm(self._angle.at(stamp_ns)))
        if last is not None:
            half_s = 0.5 * (stamp_ns - last.stamp_ns) / NS_PER_S
            pose = _arc(pose, (last.speed_mps + speed) * half_s, (last.yaw_rate_radps + yaw_rate) * half_s)
        return Reckoned(stamp_ns, pose, speed, yaw_rate)

    def _yaw_rate(self, stamp_ns: int, bicycle_radps: float) -> float:
        """The bicycle's, or the reported one while that has proved to follow it."""
        reported = next((rate for stamp, rate in self._yaw_rates if stamp == stamp_ns), None)
        if reported is None:
            return bicycle_radps
        within = _AGREES_RADPS + _AGREES_SHARE * abs(bicycle_radps)
        if not abs(reported - bicycle_radps) <= within:
            self._agreed = 0
        elif abs(bicycle_radps) > _BEND_RADPS:
            self._agreed += 1
        return reported if self._agreed >= _AGREED_REPORTS else bicycle_radps


def _arc(pose: Pose, metres: float, turn_rad: float) -> Pose:
    """A pose driven on; one that does not move does not turn."""
    if abs(metres) < 1e-9:
        return pose
    x, y, yaw = advance(pose, metres, turn_rad / metres)
    return x, y, math.remainder(yaw, math.tau)
