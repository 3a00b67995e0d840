"""A drive over ROS 2 measured like any other: the folder `alpamayo-mono drive` leaves, against course and reference.

Reads ``drive.npz`` (or the evaluator's ``truth.npz``, where the driver knew no map), ``plans.jsonl`` and
``metrics.json``; of a bag its poses. Needs neither ROS nor torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from closed_loop.comparison import deviation, reasoning
from closed_loop.comparison.deviation import Deviation, measure, result_text, summarise
from closed_loop.comparison.reasoning import check_plans, place_plan, summarise_checks
from closed_loop.comparison.runs import load_drive
from closed_loop.control.driver import PlacedPlan
from closed_loop.course.design import course_named
from collector.common.arguments import POSITIONAL
from collector.common.command_line import command_line
from collector.common.errors import MonoError
from collector.common.files import check_file_place, write_atomically
from collector.common.run_folder import plain
from collector.common.tables import Console, Table, metres, number
from collector.common.text_files import read_json, read_json_lines
from collector.geometry.constants import FUTURE_STEPS, NS_PER_S
from collector.geometry.discontinuity import teleports
from collector.geometry.poses import FloatArray
from collector.ros.parameters import RoadParameters
from collector.ros.topics import ODOMETRY
from finetune.policy import Plan

TRUTH_FILE = "truth.npz"  # of the evaluator: where the kart really was
FOREIGN_M = 50.0  # RMS distance from a course above which the drive took place elsewhere


@dataclass(frozen=True, eq=False)
class MeasuredDrive:
    """A drive folder, measured."""

    metrics: Mapping[str, Any]  # its own `metrics.json`: control rate, plan age, timings, parameters
    measured: Deviation  # sample by sample
    summary: Mapping[str, Any]  # as `closed_loop.comparison.deviation.summarise`
    reasonings: Mapping[str, Any] | None  # as `closed_loop.comparison.reasoning.summarise_checks`, None without plans

    @property
    def is_elsewhere(self) -> bool:
        """Whether it took place so far from the course that its distances from it say nothing."""
        rms_m = self.summary["all"]["rms_m"]
        return rms_m is not None and bool(rms_m > FOREIGN_M)


def measure_drive(folder: Path, course: str = "", reference: str = "") -> MeasuredDrive:
    """Measure what ``alpamayo-mono drive out:=FOLDER`` wrote.

    ``course`` and ``reference`` override those named in its ``metrics.json``; without any reference it is the
    centreline.

    Raises:
        MonoError: no drive there, one that never moved, or an unknown course.
    """
    metrics = read_json(folder / "metrics.json")
    parameters = metrics.get("parameters") or {}
    road = course_named(course or str(parameters.get("course") or "city"))
    line_name = reference or str(parameters.get("reference") or "")
    line = course_named(line_name) if line_name else None
    file = folder / TRUTH_FILE if (folder / TRUTH_FILE).is_file() else folder / "drive.npz"
    table = load_drive(file)
    if not {"t_s", "poses_map"} <= table.keys():
        found = f"{file} holds no poses in the map: that drive knew its wheels only"
        do = f"drive where there is localisation, whose evaluator leaves {TRUTH_FILE}, or measure a bag of the drive"
        raise MonoError(found, "poses of a localisation", do)
    t_s, poses = table["t_s"], table["poses_map"]
    # A simulator that restarts turns its clock back: only what follows the last restart is this drive.
    back = np.flatnonzero(np.diff(t_s) < 0.0)
    start = int(back[-1]) + 1 if len(back) else 0
    keep = np.flatnonzero(np.diff(t_s[start:], prepend=-np.inf) > 0.0) + start
    t_s, poses = t_s[keep], poses[keep]
    if len(t_s) < 2:
        raise MonoError(f"{file} holds {len(t_s)} poses", "a drive", "see its log for why it ended")
    resets_s = t_s[teleports(t_s, poses[:, :2])].tolist()
    laps = max(1, round(float(parameters.get("laps") or 1)))
    measured = measure(t_s, poses, road, line, resets_s=resets_s, laps_asked=laps)
    checks = check_plans(_sane_plans(folder / "plans.jsonl", t_s, poses), measured, road)
    return MeasuredDrive(metrics, measured, summarise([measured]), summarise_checks(checks))


def deviation_line(folder: Path) -> str:
    """How far a finished drive strayed, in a line; `alpamayo-mono measure` and the report say it in full."""
    try:
        drive = measure_drive(folder)
    except (MonoError, OSError) as error:
        return f"deviation not measured: {error}"
    curves = drive.summary["on_curves"]
    if drive.is_elsewhere:
        road = drive.measured.road.name
        return f"deviation not measured: the track does not lie on the course {road}; name it with course:="
    if curves["max_m"] is None:
        return "deviation not measured: no curve was reached"
    return (
        f"from {drive.summary['reference']}: max {curves['max_m']:.2f} m, RMS {curves['rms_m']:.2f} m on curves; "
        f"off the road {drive.summary['off_track_events']} times; full table: alpamayo-mono measure {folder}"
    )


def _sane_plans(path: Path, t_s: FloatArray, poses: FloatArray) -> Iterator[PlacedPlan]:
    """The sane plans of a drive whose t0 lies within the recorded poses."""
    stamps_ns = np.round(t_s * NS_PER_S).astype(np.int64)
    if not path.is_file():
        return

    def plan_of(values: dict[str, Any]) -> Plan | None:
        stamp_ns, plan = int(values["stamp_ns"]), np.array(values["poses"], np.float64)
        if values.get("defect") or plan.shape != (FUTURE_STEPS, 3) or not np.isfinite(plan).all():
            return None
        return Plan(stamp_ns, plan, str(values.get("reasoning", "")))

    for found in read_json_lines(path, "the plans", plan_of):
        if found is not None and stamps_ns[0] <= found.stamp_ns <= stamps_ns[-1]:
            yield place_plan(found, stamps_ns, poses)


def is_bag(path: Path) -> bool:
    """Whether a path is a bag rather than the folder of a drive."""
    from collector.bags.bag_files import STORAGES

    if path.is_dir() and not (path / "metrics.json").exists():
        return any(part in name.name for name in path.iterdir() for part in STORAGES)
    return path.is_file()


def measure_bag(path: Path, course: str, reference: str = "") -> MeasuredDrive:
    """Measure the poses of a bag against a course: no plans, no metrics.

    Raises:
        MonoError: no such bag, no pose in it that can be used, or an unknown course.
    """
    # A drive's folder is measured where nothing is installed that reads bags.
    from collector.bags.reader import open_bag
    from collector.pose_tracks.recording import require_odometry, require_track
    from collector.pose_tracks.tracks import TrackConfig, build_track

    road, line = course_named(course or RoadParameters.course), course_named(reference) if reference else None
    with open_bag(path) as bag:
        require_odometry(bag, ODOMETRY.name)
        track = build_track(bag.odometry(ODOMETRY.name), TrackConfig())
        require_track(bag, ODOMETRY.name, track)
    # Stretches between gaps are one drive, with a reset where the next begins; of a clock that went back, the last.
    last = [each for each in track.segments if each.epoch == track.segments[-1].epoch]
    t_s = np.concatenate([each.stamps_ns for each in last]) / NS_PER_S
    poses = np.concatenate([each.poses for each in last])
    resets_s = [float(each.stamps_ns[0]) / NS_PER_S for each in last[1:]]
    measured = measure(t_s, poses, road, line, resets_s=resets_s, laps_asked=1)
    return MeasuredDrive({}, measured, summarise([measured]), None)


@dataclass(frozen=True)
class MeasureConfig:
    """Lateral deviation on curves, off-track events and reasoning-path consistency of drives over ROS 2."""

    # folders that `alpamayo-mono drive` wrote, each of which gets a deviation.json; or bags with the kart's poses.
    drives: Annotated[tuple[Path, ...], POSITIONAL]
    course: str = ""  # the course, where the drive does not name it.
    reference: str = ""  # the line to measure from: a raceline or centreline file; empty is the course's centreline.


def require_here(folder: Path, drive: MeasuredDrive) -> None:
    """Refuse (MonoError) a drive that took place elsewhere: its distances from this course say nothing."""
    if drive.is_elsewhere:
        rms_m, road = drive.summary["all"]["rms_m"], drive.measured.road.name
        found = f"{folder} does not lie on the course {road}: its distance from it is {rms_m:.0f} m (RMS)"
        raise MonoError(found, "the course that was driven", "name it with --course")


def main(argv: Sequence[str] | None = None) -> int:
    """``alpamayo-mono measure``: the deviation of drive folders."""
    config = command_line(MeasureConfig, argv, "alpamayo-mono measure")
    if not config.drives:
        raise MonoError("no drive folder named", "at least one", "alpamayo-mono measure runs/...-drive")
    console = Console()
    for folder in config.drives:
        has_folder = not is_bag(folder)
        if has_folder and folder.is_dir():
            check_file_place(folder / "deviation.json")
        drive = (measure_drive if has_folder else measure_bag)(folder, config.course, config.reference)
        require_here(folder, drive)
        if has_folder:
            definitions = {"deviation": deviation.DEFINITIONS, "reasonings": reasoning.DEFINITIONS}
            written = {"definitions": definitions, "deviation": drive.summary, "reasonings": drive.reasonings}
            write_atomically(folder / "deviation.json", json.dumps(plain(written), indent=2) + "\n")
        rows = [
            (
                f"{row['number']} {row['direction']}",
                *(number(row[key], 1) for key in ("start_m", "end_m", "min_radius_m")),
                *(number(row[key]) for key in ("max_m", "rms_m", "mean_signed_m")),
                str(row["off_track_events"]),
            )
            for row in drive.summary["curves"]
        ]
        headings = ("curve", "from m", "to m", "R min m", "max m", "RMS m", "mean m", "off-track")
        console.print(Table(f"{folder}: deviation from {drive.summary['reference']}", headings, rows, left=()))
        curves = drive.summary["on_curves"]
        most, rms = metres(curves["max_m"]), metres(curves["rms_m"])
        console.print(f"{result_text(drive.summary)}; on curves max {most}, RMS {rms}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
