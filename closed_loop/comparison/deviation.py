"""How far a drive strayed: signed lateral error against a named line, curve by curve, and where it left the road.

Pure numpy. Lateral error is that of the rear axle's middle, positive left of the line. The curves are those that
:mod:`collector.geometry.curvature` finds on the line itself. Rates are weighted by distance driven, so that a kart that
crawls or stands does not fill the table with its easiest place.

Nothing is left out to look better: a drive that leaves the road keeps its deviation up to the moment it was reset,
the event is counted, and the lap it happened on is not a finished lap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from closed_loop.control.off_track import BACK_ON_ROAD_S, OffTrackEvents, beyond_edges
from closed_loop.course.course import Course
from collector.common.errors import MonoError
from collector.geometry.curvature import CurveSegment, curvature_profile, find_curves
from collector.geometry.poses import FloatArray
from collector.vehicle.model import KART

# Projections of neighbouring samples share one hint; this much travel is well within the hint's reach.
_HINT_EVERY_M = 5.0
# A curve counts so much earlier and later than it bends.
CURVE_MARGIN_M = 2.0

DEFINITIONS = (
    "Lateral deviation: signed distance of the rear axle's middle from the named reference line, left positive. "
    f"On curves: where the reference bends with a radius under 25 m, extended {CURVE_MARGIN_M:g} m at both ends. "
    "RMS and p95 are weighted by distance driven. Off-track: a corner of the "
    f"{KART.front_m + KART.rear_m:.3f} x {KART.width_m:.2f} m kart beyond the road's edge; one event lasts until the "
    f"kart is wholly back for {BACK_ON_ROAD_S:g} s or is reset. A finished lap is driven from start to start without a "
    "reset."
)


@dataclass(frozen=True)
class OffTrackEvent:
    """The kart left the road."""

    t_s: float  # when the first corner crossed an edge
    x_m: float  # of the rear axle then
    y_m: float  # and in y
    station_m: float  # place along the reference
    side: str  # the edge that was crossed
    curve: int  # number of the curve it happened on, 0 on a straight


@dataclass(frozen=True, eq=False)
class Deviation:
    """One drive measured, sample by sample; every array has length T."""

    road: Course  # whose edges count
    line: Course  # what is measured from
    t_s: FloatArray  # of the drive
    poses: FloatArray  # (T, 3) in the map
    station_m: FloatArray  # place along the line, 0 ... length.
    lateral_m: FloatArray  # signed deviation, left positive
    curve: NDArray[np.int64]  # number of the curve, from 1 in driving order; 0 on straights
    off_track: NDArray[np.bool_]  # a corner of the kart is beyond an edge
    step_m: FloatArray  # distance driven to this sample: its weight
    progress_m: FloatArray  # distance gained along the road since the start, laps added up
    curves: tuple[CurveSegment, ...]  # the line's curves; number n is `curves[n - 1]`
    events: tuple[OffTrackEvent, ...]
    resets_s: tuple[float, ...]  # times at which the kart was placed on the line again
    laps_asked: int  # see `DEFINITIONS`
    laps_finished: int  # see `DEFINITIONS`

    @property
    def reference(self) -> str:
        """What the line is called."""
        return f"{self.road.name} centreline" if self.line is self.road else self.line.name

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What a plot needs, as plain arrays for ``.npz``."""
        own = ("t_s", "poses", "station_m", "lateral_m", "curve", "off_track")
        return {
            **{name: getattr(self, name) for name in own},
            "recovered_s": np.array(self.resets_s, np.float64),
            "event_xy": np.array([(event.x_m, event.y_m) for event in self.events], np.float64).reshape(-1, 2),
            "event_station_m": np.array([event.station_m for event in self.events], np.float64),
        }


def reference_curves(reference: Course) -> tuple[CurveSegment, ...]:
    """The curves of a reference line in driving order, by the one labeller."""
    return find_curves(*curvature_profile(reference.xy, closed=reference.closed), closed=reference.closed)


def measure(
    t_s: ArrayLike,
    poses: ArrayLike,
    road: Course,
    reference: Course | None = None,
    *,
    resets_s: Sequence[float] = (),
    laps_asked: int = 1,
) -> Deviation:
    """Measure a drive, increasing times (T,) and the rear axle's poses (T, 3) in the map, against the road's edges.

    ``reference`` is the line to measure from; None takes the road's own centreline. At ``resets_s`` the kart was placed
    on the line again; the jump is no driving.

    Raises:
        MonoError: fewer than two samples, shapes that do not fit, non-finite poses, or times that go back.
    """
    line = reference or road
    times, places = np.asarray(t_s, np.float64), np.asarray(poses, np.float64)
    if times.ndim != 1 or places.shape != (len(times), 3) or len(times) < 2:
        found = f"a drive of {times.shape} times and {places.shape} poses"
        raise MonoError(found, "(T,) and (T, 3), T at least 2", "check that the drive was recorded")
    if not np.isfinite(places).all() or (np.diff(times) < 0.0).any():
        raise MonoError("a drive with poses that are not finite, or times that go back", "a time-ordered drive")
    step_m = np.linalg.norm(np.diff(places[:, :2], axis=0, prepend=places[:1, :2]), axis=1)
    resets = np.zeros(len(times), bool)
    for moment in resets_s:
        resets[min(int(np.searchsorted(times, moment - 1e-6)), len(times) - 1)] = True
    step_m[resets] = 0.0
    breaks = np.append(True, resets[1:])

    station_m, lateral_m = _project_in_order(line, places[:, :2], step_m, breaks)
    road_m = station_m if line is road else _project_in_order(road, places[:, :2], step_m, breaks)[0]
    curves = reference_curves(line)
    curve = curve_at(station_m, curves, line.length_m, line.closed, CURVE_MARGIN_M)
    beyond_left_m, beyond_right_m = beyond_edges(road, places, road_m)
    off_track = np.maximum(beyond_left_m, beyond_right_m) > 0.0
    sides = np.where(beyond_left_m >= beyond_right_m, "left", "right")
    events = tuple(
        OffTrackEvent(t, x, y, s, str(sides[i]), int(curve[i]))
        for i in _event_starts(times, off_track, resets)
        for t, x, y, s in [(float(times[i]), *places[i, :2].tolist(), float(station_m[i]))]
    )
    progress_m = _progress(road, road_m, resets)
    back_s, laps = tuple(times[resets].tolist()), min(_laps(progress_m, resets, road), laps_asked)
    driven = (times, places, station_m, lateral_m, curve, off_track, step_m, progress_m)
    return Deviation(road, line, *driven, curves, events, back_s, laps_asked, laps)


def _project_in_order(
    line: Course, xy: FloatArray, step_m: FloatArray, breaks: NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray]:
    """Station and lateral offset (T,) of a driven path, each stretch sought near where the last one ended.

    Where ``breaks`` is set the kart appears out of nowhere and the whole line is searched.
    """
    station, lateral = np.empty(len(xy)), np.empty(len(xy))
    travelled = np.cumsum(step_m)
    first, hint = 0, None
    while first < len(xy):
        hint = None if breaks[first] else hint
        last = first + 1
        if hint is not None:
            limit = int(np.searchsorted(travelled, travelled[first] + _HINT_EVERY_M))
            ahead = np.flatnonzero(breaks[first + 1 : limit])
            last = max(first + 1, first + 1 + int(ahead[0]) if len(ahead) else limit)
        foot = line.project(xy[first:last], hint)
        station[first:last], lateral[first:last] = foot.s_m, foot.lateral_m
        hint, first = float(foot.s_m[-1]), last
    return station, lateral


def curve_at(
    station_m: ArrayLike, curves: Sequence[CurveSegment], length_m: float, closed: bool, margin_m: float = 0.0
) -> NDArray[np.int64]:
    """Number of the curve (from 1) at each station, 0 where there is none; the nearer one where margins overlap."""
    stations = np.asarray(station_m, np.float64)
    number, outside_m = np.zeros(stations.shape, np.int64), np.full(stations.shape, np.inf)
    for index, segment in enumerate(curves):
        for shift in (-length_m, 0.0, length_m) if closed else (0.0,):
            at = stations + shift
            gap = np.maximum(np.maximum(segment.start_m - at, at - segment.end_m), 0.0)
            nearer = (gap <= margin_m) & (gap < outside_m)
            number[nearer], outside_m[nearer] = index + 1, gap[nearer]
    return number


def _event_starts(t_s: FloatArray, off_track: NDArray[np.bool_], resets: NDArray[np.bool_]) -> list[int]:
    """Indices where an off-track event begins."""
    events, starts = OffTrackEvents(), []
    for index in np.flatnonzero(off_track | resets):
        if resets[index]:
            events.reset()
        if events.begins(float(t_s[index]), bool(off_track[index])):
            starts.append(int(index))
    return starts


def _progress(road: Course, road_m: FloatArray, resets: NDArray[np.bool_]) -> FloatArray:
    """Distance gained along the road (T,), through the join of a closed one; being reset gains nothing."""
    gain = np.diff(road_m, prepend=road_m[:1])
    if road.closed:
        gain = (gain + road.length_m / 2.0) % road.length_m - road.length_m / 2.0
    gain[resets] = 0.0
    return np.cumsum(gain)


def _laps(progress_m: FloatArray, resets: NDArray[np.bool_], road: Course) -> int:
    """Whole laps driven in one piece: being reset starts the lap again. Of an open road, 1 when its end is near."""
    lap_m = road.length_m - (0.0 if road.closed else 5.0)
    laps, lap_start_m, at_m = 0, 0.0, 0.0
    for index in range(len(progress_m)):
        if resets[index]:
            lap_start_m = at_m = float(progress_m[index])
        at_m = max(at_m, float(progress_m[index]))
        if at_m - lap_start_m >= lap_m - 0.5:
            laps, lap_start_m = laps + 1, lap_start_m + lap_m
    return laps


def _rates(drives: Sequence[Deviation], masks: Sequence[NDArray[np.bool_]]) -> dict[str, float | None]:
    """Deviation figures over the masked samples of several drives; None where nothing was driven."""
    lateral, weight = (
        np.concatenate([getattr(drive, name)[mask] for drive, mask in zip(drives, masks, strict=True)])
        for name in ("lateral_m", "step_m")
    )
    total = float(weight.sum())
    if not len(lateral) or total <= 0.0:
        return {"distance_m": 0.0, "max_m": None, "rms_m": None, "p95_m": None, "mean_signed_m": None}
    order = np.argsort(np.abs(lateral))
    share = np.cumsum(weight[order]) / total
    p95 = np.abs(lateral)[order][min(int(np.searchsorted(share, 0.95)), len(order) - 1)]
    return {
        "distance_m": total,
        "max_m": float(np.abs(lateral).max()),
        "rms_m": float(np.sqrt((weight * lateral**2).sum() / total)),
        "p95_m": float(p95),
        "mean_signed_m": float((weight * lateral).sum() / total),
    }


def summarise(drives: Sequence[Deviation]) -> dict[str, Any]:
    """Totals and the per-curve table of one or more drives on one course against one reference, ready for JSON.

    ``reference``, ``road``, ``drives``, ``duration_s``, ``mean_speed_mps``, ``on_curves`` and ``all`` (each
    ``distance_m, max_m, rms_m, p95_m, mean_signed_m``), ``off_track_events``, ``recoveries``, ``laps_asked``,
    ``laps_finished``, ``laps_driven`` (with fractions, unfinished ones too), ``curves`` (a row each), ``events``.

    Raises:
        MonoError: no drive, or drives measured against different lines.
    """
    if not drives or len({(drive.road.name, drive.reference) for drive in drives}) != 1:
        raise MonoError("no drive, or drives on different courses", "drives on one course and reference")
    first = drives[0]
    rows = []
    for number, segment in enumerate(first.curves, start=1):
        masks = [drive.curve == number for drive in drives]
        rows.append(
            {
                "number": number,
                "direction": segment.direction,
                "start_m": segment.start_m,
                "end_m": segment.end_m,
                "turn_deg": float(np.degrees(segment.turn_rad)),
                "min_radius_m": 1.0 / segment.max_abs_curvature_1pm,
                **_rates(drives, masks),
                "off_track_events": sum(event.curve == number for drive in drives for event in drive.events),
            }
        )
    duration_s = float(sum(drive.t_s[-1] - drive.t_s[0] for drive in drives))
    everywhere = _rates(drives, [np.ones(len(drive.t_s), bool) for drive in drives])
    return {
        "reference": first.reference,
        "road": first.road.name,
        "drives": len(drives),
        "duration_s": duration_s,
        "mean_speed_mps": float(everywhere["distance_m"] or 0.0) / duration_s if duration_s else 0.0,
        "on_curves": _rates(drives, [drive.curve > 0 for drive in drives]),
        "all": everywhere,
        "off_track_events": sum(len(drive.events) for drive in drives),
        "recoveries": sum(len(drive.resets_s) for drive in drives),
        "laps_asked": sum(drive.laps_asked for drive in drives),
        "laps_finished": sum(drive.laps_finished for drive in drives),
        "laps_driven": float(sum(max(0.0, drive.progress_m[-1]) / drive.road.length_m for drive in drives)),
        "curves": rows,
        "events": [{"drive": index, **asdict(event)} for index, drive in enumerate(drives) for event in drive.events],
    }


def result_text(counts: Mapping[str, Any]) -> str:
    """The result column: plain words from the measured counts of a summary or a row, nothing else."""
    off_track_events: int = counts["off_track_events"]
    times = {1: "once", 2: "twice"}.get(off_track_events, f"{off_track_events} times")
    if off_track_events:
        return f"leaves the road {times}"
    finished = counts["laps_finished"] >= counts["laps_asked"]
    return "stays on the road" if finished else "stays on the road, does not finish"
