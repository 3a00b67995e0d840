"""What a drive says and leaves at its end: its metrics first, then a line to read, then how far it strayed."""

from __future__ import annotations

from closed_loop.control.driver import Driver
from closed_loop.ros.config import DriveParameters
from closed_loop.ros.log import DriveLog
from closed_loop.ros.termination import DriveTermination


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
            "refused": driver.safety_monitor.refused,
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
    if termination.has_driven and parameters.rules == "free":
        from closed_loop.comparison.measure import deviation_line

        print(deviation_line(log.out), flush=True)
