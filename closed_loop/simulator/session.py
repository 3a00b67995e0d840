"""The states of a session as AWSIM says them on ``/awsim/state``, and whether the kart may move."""

from __future__ import annotations

from dataclasses import dataclass

_SETTLES_S = 1.0  # simulated seconds from Spawned to Grounded, and from there to Ready


@dataclass
class SessionStates:
    """Spawned, Grounded, Ready, Start and Finish, each said once; without a countdown it is Start at once."""

    countdown_s: float = 0.0  # simulated seconds from the spawning to the start
    laps: int = 0  # after which the session is finished; 0 never
    name: str = ""  # the state as it was last said, empty before the first and after a reset
    _spawned_s: float = 0.0

    def reset(self) -> None:
        """The kart is spawned anew."""
        self.name = ""

    def update(self, time_s: float, laps: int) -> str:
        """The state to say now; empty where it was said already."""
        if not self.name:
            self._spawned_s = time_s
        settles_s = min(_SETTLES_S, self.countdown_s / 3.0)
        began = {"Spawned": 0.0, "Grounded": settles_s, "Ready": 2.0 * settles_s, "Start": self.countdown_s}
        name = [each for each, after_s in began.items() if time_s - self._spawned_s >= after_s - 1e-9][-1]
        if self.laps and laps >= self.laps:
            name = "Finish"
        said, self.name = self.name, name
        return "" if name == said else name

    @property
    def held(self) -> bool:
        """Whether the kart is held where it stands."""
        return self.name in ("Spawned", "Grounded", "Ready")
