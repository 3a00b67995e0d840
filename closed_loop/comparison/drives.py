"""A closed-loop drive as data: how it was to run, and everything that came of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from closed_loop.course.course import Course
from closed_loop.simulator.camera import FOUR_CAMERAS, Camera
from collector.common.errors import MonoError
from finetune.policy import FUTURE_STEPS, STEP_S

FloatArray = NDArray[np.float64]
Image = NDArray[np.uint8]

CAMERAS: dict[str, Camera] = {camera.name: camera for camera in FOUR_CAMERAS}


@dataclass(frozen=True)
class RolloutConfig:
    """How a drive runs.

    Attributes:
        laps: the drive ends after so many (an open course ends at its end).
        max_time_s: simulated time at which it ends at the latest; None allows twice the time of a crawl.
        replan_s: time between plans, a multiple of 0.1 s.
        latency_s: from the frame to the use of its plan. The first plan after a start is in hand at once.
        start_s_m, start_lateral_m, start_heading_rad, start_speed_mps: where the drive begins.
        set_back_beyond_m, set_back_after_s: off the road this far, or this long, the kart is put back.
        set_back_speed_mps: with this speed.
        max_off_track: the drive ends at this many off-track events.
        stuck_speed_mps, stuck_s: a kart slower than this for so long is put back too.
        cameras: names to render; None takes those of the policy's camera mode (mono when it names none).
        frames: frames per camera; None takes what the mode looks at.
        image_px: (width, height) of the pictures; None is 640 x 360.
        pitch_rad: added to every camera's pitch, positive looks down.
        record_s: time between the samples of the result.
        keep_frames: keep the front picture of every plan (memory!).
    """

    laps: float = 1.0
    max_time_s: float | None = None
    replan_s: float = 0.2
    latency_s: float = 0.15
    start_s_m: float = 0.0
    start_lateral_m: float = 0.0
    start_heading_rad: float = 0.0
    start_speed_mps: float = 2.0
    set_back_beyond_m: float = 1.0
    set_back_after_s: float = 2.0
    set_back_speed_mps: float = 1.0
    max_off_track: int = 5
    stuck_speed_mps: float = 0.2
    stuck_s: float = 5.0
    cameras: tuple[str, ...] | None = None
    frames: int | None = None
    image_px: tuple[int, int] | None = None
    pitch_rad: float = 0.0
    record_s: float = 0.05
    keep_frames: bool = False

    def __post_init__(self) -> None:
        steps = self.replan_s / STEP_S
        if round(steps) < 1 or abs(steps - round(steps)) > 1e-6:
            raise MonoError(f"replan_s = {self.replan_s}", "a positive multiple of 0.1 s (one camera frame)")
        if not 0.0 <= self.latency_s < FUTURE_STEPS * STEP_S:
            raise MonoError(f"latency_s = {self.latency_s}", "0 to 6.4 s")
        unknown = sorted(set(self.cameras or ()) - set(CAMERAS))
        if unknown:
            raise MonoError(f"cameras {unknown}", "some of " + ", ".join(CAMERAS))


@dataclass(frozen=True)
class DriveEvent:
    """Something that happened: ``off_track`` (a corner crossed the edge), ``set_back``, ``stuck``, ``bad_plan``."""

    what: str
    t_s: float
    station_m: float
    lateral_m: float
    x_m: float
    y_m: float


@dataclass(frozen=True, eq=False)
class DrivenPlan:
    """A plan as it was used.

    Attributes:
        stamp_s: time of its frame; usable_s: from when on it was followed.
        pose_map: (3,) the kart at ``stamp_s``.
        poses: (64, 3) in the kart's frame then; ``poses_map`` the same in the map.
        frame: the front picture, where frames were kept.
    """

    stamp_s: float
    usable_s: float
    pose_map: FloatArray
    poses: FloatArray
    poses_map: FloatArray
    reasoning: str = ""
    timings_ms: dict[str, float] = field(default_factory=dict)
    frame: Image | None = None


@dataclass(frozen=True, eq=False)
class Drive:
    """One drive, sampled every ``record_s``.

    Attributes:
        course: where it lay.
        t_s, speed_mps, steer_rad, accel_mps2, wheel_rad, station_m, lateral_m, beyond_edge_m: (T,) time, speed,
            the two commands, the applied tyre angle, place along and beside the reference line, and how far
            the outline reaches over the edge (negative: on the road).
        poses: (T, 3) base_link in the map.
        disturbed: (T,) the expert was erring on purpose.
        plans, events: in order of time.
        laps: laps driven, with fraction. finished: all laps that were asked for.
        end: why it ended: ``laps done``, ``end of course``, ``time over`` or ``too often off track``.
    """

    course: Course
    t_s: FloatArray
    poses: FloatArray
    speed_mps: FloatArray
    steer_rad: FloatArray
    accel_mps2: FloatArray
    wheel_rad: FloatArray
    station_m: FloatArray
    lateral_m: FloatArray
    beyond_edge_m: FloatArray
    disturbed: NDArray[np.bool_]
    plans: tuple[DrivenPlan, ...]
    events: tuple[DriveEvent, ...]
    laps: float
    finished: bool
    end: str

    @property
    def off_track_count(self) -> int:
        """Times a corner of the kart crossed the road's edge."""
        return sum(event.what == "off_track" for event in self.events)

    @property
    def recovered_s(self) -> tuple[float, ...]:
        """Times of the first sample after each time the kart was put back: the jump before it is no driving."""
        back = [event.t_s for event in self.events if event.what in ("set_back", "stuck")]
        after = [int(np.searchsorted(self.t_s, t + 1e-9)) for t in back]
        return tuple(float(self.t_s[i]) for i in after if i < len(self.t_s))
