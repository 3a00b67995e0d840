"""Planted against found: ten settings of a camera's lag and pitch on the embedded simulator, on ten courses and looks.

    python benchmarks/benchmark_calibration.py [--seconds 60] [--settings 10] [--bag BAG]

Each drive is rendered along the expert's path (640x360 at 10 Hz, JPEG) with 3 cm of position noise and 0.005 rad of
yaw noise at 50 Hz; ``--bag`` adds a recorded one whose truth is taken to be zero.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from collector.calibration.command import CalibrateConfig, calibrate_bag
from tests.helpers.planted_bag import write_planted_bag

MOST_LAG_MS, MOST_PITCH_DEG = 10.0, 0.5
# Course, planted lag in ms, planted pitch in degrees: both ends of the ranges, and lags that are no whole frame step.
SETTINGS = (
    ("city", 0.0, -5.0),
    ("city-mirror", 105.0, 13.0),
    ("random:9001", 12.0, 11.0),
    ("random:17", 95.0, -3.0),
    ("random:5", 23.0, 0.0),
    ("random:31", 83.0, 2.0),
    ("random:44", 35.0, 9.0),
    ("random:58", 71.0, 7.0),
    ("random:63-mirror", 47.0, -1.0),
    ("random:72", 59.0, 4.5),
)


def main() -> int:
    """Print a line per setting; 1 when one lies outside the goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of each drive")
    parser.add_argument("--settings", type=int, default=len(SETTINGS), help="how many of the settings")
    parser.add_argument("--bag", type=Path, help="a recording whose camera neither lags nor looks down")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    print("course            lag ms: planted  found   +-    off   pitch deg: planted  found   +-    off   CPU s")
    good = True
    with tempfile.TemporaryDirectory() as folder:
        for seed, (course, lag_ms, pitch_deg) in enumerate(SETTINGS[: arguments.settings], start=1):
            bag = write_planted_bag(
                Path(folder) / f"bag-{seed}",
                course,
                seed=seed,
                seconds=arguments.seconds,
                lag_s=lag_ms / 1e3,
                pitch_rad=float(np.radians(pitch_deg)),
            )
            good &= show(bag, course, lag_ms, pitch_deg)
    if arguments.bag is not None:
        good &= show(arguments.bag, arguments.bag.name, 0.0, 0.0)
    return 0 if good else 1


def show(bag: Path, course: str, lag_ms: float, pitch_deg: float) -> bool:
    """Calibrate, print the line, and say whether both lie within the goal."""
    began = time.process_time()
    found = calibrate_bag(CalibrateConfig(bag, bag.parent), show_progress=False)
    cpu_s = time.process_time() - began
    values = found.calibration
    if values.lag_s is None or values.lag_sd_s is None or values.pitch_rad is None or values.pitch_sd_rad is None:
        print(f"{course:17s} {'; '.join(found.refused)}", flush=True)
        return False
    lag_off_ms, pitch_off_deg = 1e3 * values.lag_s - lag_ms, float(np.degrees(values.pitch_rad)) - pitch_deg
    print(
        f"{course:17s} {lag_ms:15.1f} {1e3 * values.lag_s:6.1f} {1e3 * values.lag_sd_s:4.1f} {lag_off_ms:+6.1f} "
        f"{pitch_deg:20.1f} {np.degrees(values.pitch_rad):6.2f} {np.degrees(values.pitch_sd_rad):4.2f} "
        f"{pitch_off_deg:+6.2f} {cpu_s:7.1f}",
        flush=True,
    )
    return abs(lag_off_ms) <= MOST_LAG_MS and abs(pitch_off_deg) <= MOST_PITCH_DEG


if __name__ == "__main__":
    sys.exit(main())
