"""What a drive says and leaves at its end: its metrics first, then a line to read, then how far it strayed."""

from __future__ import annotations

from pathlib import Path

from closed_loop.control.driver import Driver
from closed_loop.ros.config import DriveParameters
from closed_loop.ros.log import DriveLog
from closed_loop.ros.termination import DriveTermination
from collector.common.errors import MonoError

FOREIGN_M = 50.0  # RMS distance from a course above which the drive took place elsewhere


def leave_results(
    log: DriveLog, ended: str, driver: Driver, termination: DriveTermination, parameters: DriveParameters
) -> None:
    """Write the files of a drive, and print what they say.

    What cannot be written is in ``log.error``, and printed all the same.
    """
    metrics = log.finish(
        {
            "ended": ended,
            "laps": termination.laps_done,
            "complete": termination.complete,
            "frames": {"received": driver.frames.received, "lost": driver.frames.lost},
            "brakes": dict(driver.safety_monitor.brakes),
            "jumps": driver.jumps,
            "parameters": parameters,
        }
    )
    age, frames = metrics["plan_age_s"], metrics["frames"]
    print(
        f"drive ended: {metrics['ended']}; laps {metrics['laps']:g}; "
        f"control {metrics['control_rate_hz']} Hz; "
        + (f"plan age p50 {age['p50']:.2f} s, p95 {age['p95']:.2f} s; " if age else "no plan was driven; ")
        + f"frames lost {frames['lost']} of {frames['received'] + frames['lost']}; {log.out / 'metrics.json'}",
        flush=True,
    )
    if termination.has_driven:
        print(deviation_line(log.out), flush=True)


def deviation_line(folder: Path) -> str:
    """How far a finished drive strayed, in a line; `alpamayo-mono measure` and the report say it in full."""
    from closed_loop.comparison.measure import measure_drive

    try:
        drive = measure_drive(folder)
    except (MonoError, OSError) as error:
        return f"deviation not measured: {error}"
    rms_m, curves, road = drive.summary["all"]["rms_m"], drive.summary["on_curves"], drive.measured.road.name
    if rms_m is not None and rms_m > FOREIGN_M:
        return f"deviation not measured: the track does not lie on the course {road}; name it with course:="
    if curves["max_m"] is None:
        return "deviation not measured: no curve was reached"
    return (
        f"from {drive.summary['reference']}: max {curves['max_m']:.2f} m, RMS {curves['rms_m']:.2f} m on curves; "
        f"off the road {drive.summary['off_track_events']} times; full table: alpamayo-mono measure {folder}"
    )
