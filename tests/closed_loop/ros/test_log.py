"""A drive's log on a full disk, and in a folder that goes away."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from closed_loop.ros.log import DriveLog
from closed_loop.serving.client import PlanReply
from finetune.policy import Plan


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")  # noqa: PTH110
def test_a_full_disk_is_named_and_stops_nobody_who_notes_a_plan(tmp_path: Path) -> None:
    log = DriveLog(tmp_path / "drive")
    log._plans_file.close()
    log._plans_file = open("/dev/full", "w", encoding="utf-8")  # noqa: PTH123, SIM115
    reply = PlanReply(Plan(1, np.zeros((64, 3))), 1.0, 2.0)
    log.plan(reply, 2, "")
    log.plan(reply, 3, "")
    assert str(log.error).startswith(f"{tmp_path / 'drive' / 'plans.jsonl'}: No space left on device"), log.error
    assert log.finish({})["plans"] == 2, "what can be written is"


def test_a_folder_that_is_tidied_away_meanwhile_is_named_and_holds_the_metrics(tmp_path: Path) -> None:
    log = DriveLog(tmp_path / "drive")
    log.plan(PlanReply(Plan(1, np.zeros((64, 3))), 1.0, 2.0), 2, "")
    shutil.rmtree(tmp_path / "drive")
    assert log.finish({})["plans"] == 1
    assert "plans.jsonl was removed while the drive went on" in str(log.error)
    assert {each.name for each in (tmp_path / "drive").iterdir()} == {"metrics.json", "drive.npz"}
