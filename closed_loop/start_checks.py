"""What drive and simulator can refuse before any process of theirs starts: courses, folders, files.

Named in :class:`collector.ros.parameters.Program`; the nodes themselves look again.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from closed_loop.course.design import check_named
from closed_loop.ros.config import DriveConfig
from closed_loop.ros.log import require_undriven
from closed_loop.serving.settings import DEFAULT_POLICY
from collector.calibration.model import read_calibration
from collector.common.errors import MonoError
from collector.common.files import check_file_place
from collector.common.model_files import find_model
from collector.common.output_folder import OutputFolder
from collector.ros.parameters import SimulatorParameters
from collector.vehicle.model import vehicle_named

_MODULE_CLASS = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def check_simulator(settings: SimulatorParameters) -> None:
    """Refuse (MonoError) a course that nobody knows, or a log that cannot be written."""
    for spec in filter(None, map(str.strip, [settings.course, *settings.courses.split(",")])):
        check_named(spec)
    if settings.log:
        check_file_place(Path(settings.log))
    vehicle_named(settings.simulated_vehicle)


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
    if settings.policy == DEFAULT_POLICY and not settings.policy_server:
        for name, do in (("model", "a model folder, or owner/name"), ("adapter", "what finetune wrote")):
            _check_folder(name, getattr(settings, name), do)
    if not _MODULE_CLASS.fullmatch(settings.policy):
        raise MonoError(f"policy:={settings.policy}", "module:Class", "name the class of the policy that drives")
    if settings.policy_python and shutil.which(settings.policy_python) is None:
        found = f"policy_python:={settings.policy_python} is no program"
        raise MonoError(found, "a Python interpreter", "name the bin/python of an environment")


def _check_folder(name: str, text: str, expected: str) -> None:
    """Refuse a folder that is not there; two words with a slash between them may be an id of the Hugging Face hub."""
    if not text:
        return
    path = find_model(Path(text))
    if not path.is_dir() and (path.is_absolute() or len(path.parts) != 2 or path.exists()):
        found = f"{name}:={text} is {'no folder' if path.exists() else 'not there'}"
        raise MonoError(found, expected, "correct the path")
