"""When a drive has driven what was asked for, or cannot any more: the rules of a rollout and of a drive over ROS 2."""

from __future__ import annotations

from dataclasses import dataclass

from closed_loop.control.off_track import OffTrackMonitor


@dataclass
class DriveGoal:
    """Follows one drive.

    Attributes:
        laps: laps asked for, 0 for no limit.
        duration_s: vehicle seconds asked for, 0 for no limit.
        off_track_s: the drive ends when the kart has been off the road for longer, 0 for no limit.
        max_off_track: the drive ends when the kart leaves the road so many times, 0 for no limit.
        laps_done: how many there are, kept by whoever counts them.
        goal: what was reached, or why no more can be; empty while the drive goes on.
    """

    laps: float = 0.0
    duration_s: float = 0.0
    off_track_s: float = 0.0
    max_off_track: int = 0
    laps_done: float = 0.0
    goal: str = ""

    @property
    def complete(self) -> bool:
        """Whether all laps asked for are driven."""
        return not self.laps or self.laps_done >= self.laps

    def judge(self, driven_s: float, off_track: OffTrackMonitor | None) -> str:
        """The goal after ``driven_s`` vehicle seconds; once set it stays.

        Args:
            off_track: as it is now; None without a road to be off.
        """
        if self.goal:
            return self.goal
        if self.laps and self.complete:
            self.goal = f"{min(self.laps_done, self.laps):g} of {self.laps:g} laps done"
        elif off_track is not None and self.max_off_track and off_track.events >= self.max_off_track:
            self.goal = "too often off the road"
        elif off_track is not None and self.off_track_s and off_track.off_s > self.off_track_s:
            self.goal = f"off the road for {self.off_track_s:g} s"
        elif self.duration_s and driven_s >= self.duration_s:
            self.goal = f"{self.duration_s:g} s driven"
        return self.goal
