"""What ``/awsim/state`` means for a driver: stand on the grid, go at Start, end at Finish.

Pure. A state is said once and latched, so one that came late hears the newest only: none of those before Start is
waited for.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from collector.ros.topics import AWSIM_STATES

_START, _FINISH = "Start", "Finish"
_SILENT_S = 2.0  # a publisher of the state that is not heard for so long says nothing a driver could wait for


@dataclass
class SessionState:
    """Follows one session."""

    state: str = ""  # the newest one that is known
    unknown: set[str] = field(default_factory=set)  # others that were said
    _silent_since_s: float | None = None

    def heard(self, text: str) -> bool:
        """Take a state; False for one that AWSIM has none of, which changes nothing."""
        name = text.strip()
        if name not in AWSIM_STATES:
            self.unknown.add(name)
            return False
        self.state = name
        return True

    def hold(self, now_s: float, publishers: int) -> str:
        """Why the kart must stand, empty when it may go: at Start, and where nobody says the state."""
        if self.state:
            return "" if self.state in (_START, _FINISH) else f"the session is {self.state}, not {_START} yet"
        if not publishers:
            self._silent_since_s = None
            return ""
        if self._silent_since_s is None:
            self._silent_since_s = now_s
        return "the session's state is not known yet" if now_s - self._silent_since_s < _SILENT_S else ""

    @property
    def finished(self) -> bool:
        """Whether the session is over."""
        return self.state == _FINISH
