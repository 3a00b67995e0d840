"""How the expert drives in a manner: the line it keeps, the pace, the stop before a mark, out to a side and back.

A manner is told to :class:`closed_loop.simulator.expert.Expert` in the words it knows: a line beside the reference
line, a scale of the speed, a brake. All of it stays on the road, and the limits of the kart hold as ever.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from closed_loop.course.course import Course
from closed_loop.course.racing_line import racing_line
from closed_loop.simulator.expert import Disturbance, ExpertConfig
from closed_loop.simulator.vehicle import VehicleState
from closed_loop.simulator.world import World
from collector.reasoning.manners import Act, Line, Manner, Pace, read_manner
from collector.ros.parameters import DRAWN_MANNER
from collector.vehicle.model import KART, VehicleModel

# In the order they are drawn from; the plain ones more often, for they show what is usual.
LINES: tuple[Line, ...] = ("usual", "middle", "left", "right", "racing")
PACES: tuple[Pace, ...] = ("usual", "slow", "brisk")
ACTS: tuple[Act, ...] = ("stop", "out left", "out right")
_USUAL_SHARE, _ACT_SHARE, _PACE_SHARE = 0.3, 0.25, 0.4


@dataclass(frozen=True)
class MannerConfig:
    """What a manner is in numbers."""

    edge_off_m: float = 0.35  # between the kart's side and the road's edge, where a side is kept
    side_share: float = 0.65  # of what that leaves, the line of a side
    slow_scale: float = 0.6  # of the usual speed
    brisk_scale: float = 1.25
    out_s: float = 2.6  # so long out to a side, then back
    mark_decel_mps2: float = 1.8  # before a mark
    mark_ahead_s: float = 0.35  # driven before that braking begins
    stand_s: float = 1.0  # at a mark
    manner_s: tuple[float, float] = (5.0, 9.0)  # how long a drawn manner lasts


class Errand:
    """One manner under way on a course, from where and when it began."""

    def __init__(
        self,
        manner: Manner,
        course: Course,
        state: VehicleState,
        station_m: float,
        time_s: float,
        config: MannerConfig | None = None,
        vehicle: VehicleModel = KART,
    ) -> None:
        self.manner, self.course, self.config = manner, course, config or MannerConfig()
        self._begun_s, self._vehicle = time_s, vehicle
        c, speed = self.config, state.speed_mps
        self._to_mark_m = c.mark_ahead_s * speed + speed * speed / (2.0 * c.mark_decel_mps2)
        self._last_m, self._stood_s = station_m, 0.0
        self._last_s = time_s
        # As it is recorded: its words, its numbers, its cause.
        numbers = f"lateral_m={self.line_m(station_m, time_s):.2f} speed_scale={self.speed_scale:g}"
        self.message = f"{manner.words} {numbers}{f' because {manner.cause}' if manner.cause else ''}"

    @property
    def speed_scale(self) -> float:
        """Of the usual speed."""
        c = self.config
        return {"usual": 1.0, "slow": c.slow_scale, "brisk": c.brisk_scale}[self.manner.pace]

    def side_m(self, station_m: float, left: bool) -> float:
        """How far to a side of the reference line its line runs at a station, at least 0."""
        edge = self.course.width_left_m if left else self.course.width_right_m
        room = float(self.course.at(station_m, edge)) - 0.5 * self._vehicle.width_m - self.config.edge_off_m
        return self.config.side_share * max(0.0, room)

    def line_m(self, station_m: float, time_s: float) -> float:
        """The line at a station, metres left of the reference line."""
        line, act = self.manner.line, self.manner.act
        if act in ("out left", "out right"):
            line = "usual" if time_s - self._begun_s >= self.config.out_s else "left" if act == "out left" else "right"
        if line == "racing":
            off_m = 0.5 * self._vehicle.width_m + self.config.edge_off_m
            return float(self.course.at(station_m, racing_line(self.course, off_m)))
        if line in ("left", "right"):
            return self.side_m(station_m, line == "left") * (1.0 if line == "left" else -1.0)
        return 0.0

    def at(self, state: VehicleState, station_m: float, time_s: float) -> Disturbance:
        """What the expert is to do otherwise now; ``station_m`` is where the kart is along the course."""
        look = ExpertConfig.look_ahead_m + ExpertConfig.look_ahead_s * state.speed_mps
        line_m = self.line_m(station_m + look, time_s)
        if self.manner.act != "stop":
            return Disturbance(line_m, self.speed_scale)
        moved = station_m - self._last_m
        if self.course.closed:
            moved -= self.course.length_m * round(moved / self.course.length_m)
        self._to_mark_m -= moved
        self._stood_s += time_s - self._last_s if state.speed_mps < 0.05 else 0.0
        self._last_m, self._last_s = station_m, time_s
        brake = -(state.speed_mps**2) / (2.0 * max(self._to_mark_m, 0.05))
        near = -brake >= 0.9 * self.config.mark_decel_mps2 or self._to_mark_m < 0.2
        return Disturbance(line_m, self.speed_scale, most_accel_mps2=min(brake, -0.2) if near else 0.0)

    @property
    def is_over(self) -> bool:
        """Whether the kart has stood at its mark long enough."""
        return self.manner.act == "stop" and self._stood_s >= self.config.stand_s


def draw_manner(rng: np.random.Generator) -> Manner:
    """A manner by seed."""
    kind = rng.random()
    if kind < _USUAL_SHARE:
        return Manner()
    if kind < _USUAL_SHARE + _ACT_SHARE:
        return Manner(act=ACTS[int(rng.integers(len(ACTS)))])
    line = LINES[int(rng.integers(1, len(LINES)))]
    pace = PACES[int(rng.integers(1, len(PACES)))] if rng.random() < _PACE_SHARE else "usual"
    return Manner(line, pace)


class MannerDriver:
    """The manners of a drive: the one that was asked for, or drawn ones by the world's seed, one after the other."""

    def __init__(self, world: World, asked: str) -> None:
        self._world, self._asked = world, None if asked == DRAWN_MANNER else read_manner(asked)
        self._rng = np.random.default_rng([47, world.seed])
        self.errand = self._begin()

    def now(self) -> Disturbance:
        """What the expert is to do otherwise now; what the world wants done wrong goes before it."""
        world = self._world
        if world.episode != self._episode or self.errand.is_over or world.time_s >= self._until_s:
            self.errand = self._begin()
        manner = self.errand.at(world.state, world.station_m, world.time_s)
        return world.disturbance or manner

    def _begin(self) -> Errand:
        world = self._world
        manner = draw_manner(self._rng) if self._asked is None else self._asked
        low, high = MannerConfig.manner_s
        self._until_s = world.time_s + (self._rng.uniform(low, high) if self._asked is None else np.inf)
        self._episode = world.episode
        return Errand(manner, world.course, world.state, world.station_m, world.time_s, vehicle=world.config.vehicle)
