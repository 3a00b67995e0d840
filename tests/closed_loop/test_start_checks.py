"""What drive and simulator refuse before any process starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from closed_loop.ros.config import DriveConfig
from closed_loop.start_checks import check_drive, check_simulator
from collector.common.errors import MonoError
from collector.ros.parameters import SimulateConfig


def test_both_vehicles_of_a_simulator_are_read(tmp_path: Path) -> None:
    (tmp_path / "kart.yaml").write_text("definition: 1\nsteering_gain: -0.6\n")
    for name in ("vehicle", "simulated_vehicle"):
        with pytest.raises(MonoError, match="steering_gain"):
            check_simulator(SimulateConfig(**{name: str(tmp_path / "kart.yaml")}))


def test_the_token_of_a_server_is_read(tmp_path: Path) -> None:
    with pytest.raises(MonoError, match="token file"):
        check_drive(DriveConfig(policy_server="gpu-box:8000", policy_token_file=str(tmp_path / "none")))
