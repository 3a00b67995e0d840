"""Whether what the kart reports can be its answer to what it was told: the wheels' angle, and the speed.

A sensor that is stuck, or fades as a kart might change, contradicts nothing but the commands; neither does a steering
that has come loose. Pure: seconds are vehicle seconds, counted by the ticks. The bounds are wide, since a kart that
nobody has identified turns its wheels by half or twice of what is expected, and drags, slips and climbs.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from closed_loop.control.buffers import STANDING_MPS
from closed_loop.control.safety_limits import DEFAULT_LIMITS, SafetyLimits
from collector.vehicle.model import KART, VehicleModel

_ENDS_S = 0.1  # of a window, over which speeds are taken at their best
_ANSWER_S = 0.4  # until an acceleration that was asked for is there
_ROLLING_MPS = 0.5  # wheels of a slower kart need not turn
_PUSHED_MPS2 = 0.3  # told so much, a kart is to get faster


@dataclass
class AnswerHealth:
    """Knows the last commands and judges reports by them."""

    limits: SafetyLimits = DEFAULT_LIMITS
    vehicle: VehicleModel = KART
    _steady_s: float | None = None  # of the last tick
    _now_s: float = 0.0
    _told: deque[tuple[float, float, float, float]] = field(default_factory=deque)  # time, seconds, angle, acceleration
    _speeds: deque[tuple[float, float]] = field(default_factory=deque)
    _shown_s: float | None = None  # since when the pictures have been those of a kart that moves

    def reset(self) -> None:
        """The vehicle was placed elsewhere: its speed before says nothing."""
        self._speeds.clear()

    def told(self, steer_rad: float, accel_mps2: float, steady_s: float, time_rate: float) -> None:
        """Take the command of a tick."""
        passed_s = 0.0 if self._steady_s is None else max(steady_s - self._steady_s, 0.0) * time_rate
        self._steady_s = steady_s
        self._now_s += passed_s
        model = self.vehicle
        angle = model.steering_gain * min(max(steer_rad, -model.max_steer_rad), model.max_steer_rad)
        self._told.append((self._now_s, passed_s, angle / model.report_scale, accel_mps2))
        longest_s = max(self.limits.answer_fall[-1][0] + _ANSWER_S, self.limits.answer_late_s)
        while self._now_s - self._told[0][0] > longest_s:
            self._told.popleft()

    def steering(self, angle_rad: float) -> str:
        """Why a reported angle cannot be the wheels' answer, empty when it may be."""
        limits = self.limits
        recent = [angle for at_s, _, angle, _ in self._told if self._now_s - at_s <= limits.answer_late_s]
        if not recent or not self._speeds or abs(self._speeds[-1][1]) < _ROLLING_MPS:
            return ""
        low, high = min(recent), max(recent)
        least, most = limits.answer_angle_shares
        low_rad = (most if low < 0.0 else least) * low - limits.answer_angle_rad
        high_rad = (most if high > 0.0 else least) * high + limits.answer_angle_rad
        if low_rad <= angle_rad <= high_rad:
            return ""
        asked = f"{low:.2f}" if high - low < 0.01 else f"{low:.2f} to {high:.2f}"
        return f"the wheels are at {angle_rad:.2f} rad where {asked} was to be expected"

    def speed(self, speed_mps: float, picture_moves: bool) -> str:
        """Why a reported speed cannot be the kart's answer, empty when it may be.

        ``picture_moves`` says whether the camera's newest picture is one of a kart that moves.
        """
        limits, now_s = self.limits, self._now_s
        self._speeds.append((now_s, speed_mps))
        while now_s - self._speeds[0][0] > limits.answer_fall[-1][0]:
            self._speeds.popleft()
        if speed_mps < -limits.answer_back_mps:
            return f"the kart goes backwards by {-speed_mps:.1f} m/s, limit {limits.answer_back_mps:g} m/s"
        for window_s, less_mps in limits.answer_fall:
            change_mps, asked_mps = self._change(window_s), self._asked(window_s)
            if change_mps < -limits.answer_slower_mps and change_mps < asked_mps - less_mps:
                return f"the speed fell by {-change_mps:.1f} m/s in {window_s:g} s, told {asked_mps:+.1f} m/s"
        return self._standing_defect(speed_mps, picture_moves)

    def _standing_defect(self, speed_mps: float, picture_moves: bool) -> str:
        """A kart that is said to stand, though it is pushed and sees the world move."""
        is_pushed = bool(self._told) and self._told[-1][3] > _PUSHED_MPS2
        if abs(speed_mps) > STANDING_MPS or not is_pushed or not picture_moves:
            self._shown_s = None
        elif self._shown_s is None:
            self._shown_s = self._now_s
        if self._shown_s is None or self._now_s - self._shown_s < self.limits.answer_stand_s:
            return ""
        return f"the speed says standing, though the picture moves and {self._told[-1][3]:.1f} m/s^2 are asked for"

    def _change(self, window_s: float) -> float:
        """How the speed changed within a window, as far as that is sure; 0 where it is not known for so long."""
        from_s = self._now_s - window_s
        within = [(at_s, speed) for at_s, speed in self._speeds if at_s >= from_s]
        if not within or within[0][0] > from_s + _ENDS_S:
            return 0.0
        first = min(speed for at_s, speed in within if at_s <= from_s + _ENDS_S)
        return max(speed for at_s, speed in within if at_s >= self._now_s - _ENDS_S) - first

    def _asked(self, window_s: float) -> float:
        """How the speed was told to change within a window, at least: commands take their time."""
        ends_s = (self._now_s, self._now_s - _ANSWER_S)
        return min(
            sum(passed_s * accel for at_s, passed_s, _, accel in self._told if end_s - window_s <= at_s <= end_s)
            for end_s in ends_s
        )
