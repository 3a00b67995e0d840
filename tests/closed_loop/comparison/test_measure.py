"""Drives over ROS 2 measured by where the kart really was: the evaluator's truth, or a bag."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from closed_loop.comparison.measure import TRUTH_FILE, main, measure_bag, measure_drive, require_here
from closed_loop.course.design import course_named
from collector.common.errors import MonoError
from collector.ros.topics import CONTROL_CMD, STEERING_STATUS
from collector.vehicle.model import KART
from tests.helpers.vehicle_bag import write_vehicle_bag

OFF_M = 0.3


def beside_the_line(seconds: float = 60.0) -> tuple[np.ndarray, np.ndarray]:
    """A drive at a constant offset to the left of the city's centreline."""
    road, t_s = course_named("city"), np.arange(0.0, seconds, 0.02)
    return t_s, np.array([road.pose_at(4.0 * t, OFF_M) for t in t_s])


def drive_folder(folder: Path, **tables: np.ndarray) -> Path:
    folder.mkdir()
    np.savez_compressed(folder / "drive.npz", **tables)
    (folder / "metrics.json").write_text(json.dumps({"parameters": {"course": "city", "laps": 1}}))
    return folder


def test_the_truth_is_measured_where_the_driver_knew_its_wheels_only(tmp_path: Path) -> None:
    t_s, poses = beside_the_line()
    drifted = poses - poses[0] + [0.0, 0.0, 1.0]
    folder = drive_folder(tmp_path / "drive", t_s=t_s, poses_odom=drifted, speed_mps=np.full(len(t_s), 4.0))
    with pytest.raises(MonoError, match=rf"wheels only.*{TRUTH_FILE}"):
        measure_drive(folder)
    np.savez_compressed(folder / TRUTH_FILE, t_s=t_s, poses_map=poses, speed_mps=np.full(len(t_s), 4.0))
    assert measure_drive(folder).summary["on_curves"]["rms_m"] == pytest.approx(OFF_M, abs=0.02)


def test_drives_of_before_are_measured_as_they_were(tmp_path: Path) -> None:
    t_s, poses = beside_the_line()
    folder = drive_folder(tmp_path / "drive", t_s=t_s, poses_map=poses, speed_mps=np.full(len(t_s), 4.0))
    assert measure_drive(folder).summary["on_curves"]["rms_m"] == pytest.approx(OFF_M, abs=0.02)


def test_a_bag_is_measured_by_its_poses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = write_vehicle_bag(tmp_path / "bag", KART, seconds=25.0)
    before = sorted(path.name for path in bag.iterdir())
    drive = measure_bag(bag, "city")
    assert 0.0 < drive.summary["on_curves"]["rms_m"] < 1.5 and drive.reasonings is None
    assert main([str(bag)]) == 0 and "deviation from" in capsys.readouterr().out
    assert sorted(path.name for path in bag.iterdir()) == before, "nothing is written into a bag"


def test_a_drive_that_took_place_elsewhere_is_no_result(tmp_path: Path) -> None:
    bag = write_vehicle_bag(tmp_path / "bag", KART, course="random:7", seconds=8.0)
    drive = measure_bag(bag, "random:7")
    far = replace(drive, summary={**drive.summary, "all": {**drive.summary["all"], "rms_m": 60.0}})
    with pytest.raises(MonoError, match=r"does not lie on the course random:7.*--course"):
        require_here(bag, far)
    require_here(bag, drive)


def test_a_bag_without_poses_is_refused(tmp_path: Path) -> None:
    bag = write_vehicle_bag(tmp_path / "bag", KART, seconds=2.0, topics=(CONTROL_CMD, STEERING_STATUS))
    with pytest.raises(MonoError, match="kinematic_state"):
        measure_bag(bag, "city")
