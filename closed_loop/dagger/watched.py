"""A simulated drive that is watched: ten times a second somebody sees where the driver has brought the kart.

The expert rides along. It hears every command, so that it could take the wheel at any moment knowing what is under way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from closed_loop.course.course import Course
from closed_loop.simulator.expert import Expert, ExpertConfig
from closed_loop.simulator.pacing import is_due
from closed_loop.simulator.vehicle import VehicleState
from closed_loop.simulator.world import World, WorldConfig
from collector.geometry.constants import HISTORY_STEPS, NS_PER_S, STEP_NS
from collector.geometry.poses import FloatArray
from collector.vehicle.kart import Command


class WatchedWorld(World):
    """A world of one course; ``look`` is called at each state whose last 1.5 s were driven in one piece."""

    def __init__(
        self, name: str, course: Course, seed: int, expert: ExpertConfig, look: Callable[[WatchedWorld], object]
    ) -> None:
        self.name = name
        self.history: deque[FloatArray] = deque(maxlen=HISTORY_STEPS)  # poses at 10 Hz, the newest last
        self.expert = Expert(course, expert)
        self._look, self._heard = look, Command(0.0, 0.0)
        super().__init__(course, seed, WorldConfig(vehicle=expert.vehicle))

    @property
    def stamp_ns(self) -> int:
        """Simulated time."""
        return round(self.time_s * NS_PER_S)

    def reset(self, s_m: float = 0.0, lateral_m: float = 0.0, heading_rad: float = 0.0, speed_mps: float = 0.0) -> None:
        """Place the kart, as :meth:`World.reset`; what it drove before is no history of what comes."""
        super().reset(s_m, lateral_m, heading_rad, speed_mps)
        self._forget()

    def recover(self, speed_mps: float = 0.0) -> None:
        """Put the kart back on the line, as :meth:`World.recover`."""
        super().recover(speed_mps)
        self._forget()

    def _forget(self) -> None:
        self.history.clear()
        self.expert.reset()

    def step(self, command: Command) -> VehicleState:
        """One physics step, after the state before it was shown where that is due."""
        hz = self.config.physics_hz
        if is_due(round(self.time_s * hz), NS_PER_S / STEP_NS, hz):
            self.history.append(self.pose)
            if len(self.history) == HISTORY_STEPS:
                self._look(self)
        if command is not self._heard:
            self._heard = command
            self.expert.note(self.time_s, command.steer_rad)
        return super().step(command)
