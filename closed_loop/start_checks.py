"""What drive and simulator can refuse before any process of theirs starts: courses, folders, files.

Named in :class:`collector.ros.parameters.Program`; the nodes themselves look again.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from closed_loop.course.design import check_named
from closed_loop.ros.config import DriveConfig
from closed_loop.ros.log import require_undriven
from closed_loop.serving.settings import read_token
from collector.calibration.model import read_calibration
from collector.common.errors import MonoError
from collector.common.files import check_file_place
from collector.common.output_folder import OutputFolder
from collector.ros.parameters import SimulatorParameters
from collector.vehicle.model import vehicle_named


def check_simulator(settings: SimulatorParameters) -> None:
    """Refuse (MonoError) a course that nobody knows, or a log that cannot be written."""
    for spec in filter(None, map(str.strip, [settings.course, *settings.courses.split(",")])):
        check_named(spec)
    if settings.log:
        check_file_place(Path(settings.log))
    for path in (settings.vehicle, settings.simulated_vehicle):
        vehicle_named(path)


def check_drive(settings: DriveConfig) -> None:
    """Refuse (MonoError) what the driving node could not start with."""
    for spec in filter(None, (settings.course, settings.reference)):
        check_named(spec)
    if settings.out:
        with OutputFolder(settings.out) as folder:
            require_undriven(folder)
    if settings.calibration:
        read_calibration(settings.calibration)
    vehicle_named(settings.vehicle, settings.steering_gain)
    if settings.policy_server:
        read_token(settings.policy_token_file)
    else:
        settings.check_folders()
    if settings.policy_python and shutil.which(settings.policy_python) is None:
        found = f"policy_python:={settings.policy_python} is no program"
        raise MonoError(found, "a Python interpreter", "name the bin/python of an environment")
